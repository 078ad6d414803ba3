// SPDX-License-Identifier: GPL-2.0
/*
 * The misc device and the ioctls: the only file that copies structs from and
 * to user space.  What they promise is in uapi/linux/cowmem.h.
 */
#include <linux/cowmem.h>
#include <linux/file.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/splice.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "device.h"
#include "file.h"
#include "fs.h"
#include "snapshot.h"
#include "stats.h"
#include "vm.h"

static_assert(sizeof(struct cowmem_query) == 40);
static_assert(sizeof(struct cowmem_create) == 88);
static_assert(sizeof(struct cowmem_file) == 16);
static_assert(sizeof(struct cowmem_member) == 24);
static_assert(sizeof(struct cowmem_snapshot) == 104);
static_assert(sizeof(struct cowmem_restore) == 40);
static_assert(sizeof(struct cowmem_extent) == 24);
static_assert(sizeof(struct cowmem_diff) == 32);
static_assert(sizeof(struct cowmem_limit) == 16);
static_assert(sizeof(struct cowmem_stat) == 192);

/* One ioctl in progress: the handle that it is made on, a file to return (or
 * NULL) with the fd reserved for it, and the struct of the caller.
 */
struct cowmem_command {
	struct file *handle;
	struct file *new_file;
	int new_fd;
	union {
		struct {
			__u32 size;
			__u32 flags;
		};
		struct cowmem_query query;
		struct cowmem_create create;
		struct cowmem_file file;
		struct cowmem_snapshot snapshot;
		struct cowmem_restore restore;
		struct cowmem_diff diff;
		struct cowmem_stat stat;
		struct cowmem_limit limit;
	} arg;
};

/* Reserve an fd and make a file, to be published when nothing can fail. */
static int command_new_file(struct cowmem_command *cmd,
			    struct cowmem_buffer *buf, int open_flags)
{
	int fd;

	fd = get_unused_fd_flags(cmd->arg.flags & COWMEM_CLOEXEC ? O_CLOEXEC : 0);
	if (fd < 0)
		return fd;
	cmd->new_file = cowmem_fs_file(cowmem_fs_mount(cmd->handle), buf,
				       open_flags);
	if (IS_ERR(cmd->new_file)) {
		int err = PTR_ERR(cmd->new_file);

		cmd->new_file = NULL;
		put_unused_fd(fd);
		return err;
	}
	cmd->new_fd = fd;
	return 0;
}

static void command_publish(struct cowmem_command *cmd)
{
	if (cmd->new_file)
		fd_install(cmd->new_fd, cmd->new_file);
}

static void command_abort(struct cowmem_command *cmd)
{
	if (!cmd->new_file)
		return;
	put_unused_fd(cmd->new_fd);
	fput(cmd->new_file);
}

static bool name_valid(const char name[COWMEM_NAME_MAX])
{
	return strnlen(name, COWMEM_NAME_MAX) < COWMEM_NAME_MAX &&
	       !strchr(name, '/');
}

static int do_query(struct cowmem_command *cmd)
{
	struct cowmem_query *query = &cmd->arg.query;

	query->abi = COWMEM_ABI;
	query->page_size = PAGE_SIZE;
	query->features = COWMEM_FEATURE_SNAPSHOT;
	query->max_size = COWMEM_MAX_SIZE;
	query->max_members = 0;
	query->__reserved = 0;
	return 0;
}

static int do_create(struct cowmem_command *cmd)
{
	struct cowmem_create *create = &cmd->arg.create;
	struct cowmem_buffer *buf;
	int err;

	if (!name_valid(create->name) || create->__reserved)
		return -EINVAL;
	if (create->length > COWMEM_MAX_SIZE)
		return -EFBIG;
	if (create->flags & COWMEM_PINNABLE)
		return -EOPNOTSUPP;
	buf = cowmem_fs_buffer(cowmem_fs_mount(cmd->handle));
	if (IS_ERR(buf))
		return PTR_ERR(buf);
	strscpy(buf->name, create->name, sizeof(buf->name));
	i_size_write(&buf->inode, create->length);
	err = command_new_file(cmd, buf, O_RDWR);
	create->fd = cmd->new_fd;
	iput(&buf->inode);
	return err;
}

static int do_file(struct cowmem_command *cmd)
{
	struct cowmem_buffer *buf = cowmem_file_buffer(cmd->handle);
	bool rdonly = cmd->arg.flags & COWMEM_RDONLY;
	int err;

	if (cmd->arg.file.__reserved)
		return -EINVAL;
	if (!rdonly && buf->frozen)
		return -EPERM;
	if (!(cmd->handle->f_mode & FMODE_READ) ||
	    (!rdonly && !(cmd->handle->f_mode & FMODE_WRITE)))
		return -EACCES;
	err = command_new_file(cmd, buf, rdonly ? O_RDONLY : O_RDWR);
	cmd->arg.file.fd = cmd->new_fd;
	return err;
}

static int snapshot_check(struct cowmem_command *cmd)
{
	struct cowmem_snapshot *snapshot = &cmd->arg.snapshot;
	u64 size = i_size_read(&cowmem_file_buffer(cmd->handle)->inode);

	if (!name_valid(snapshot->name))
		return -EINVAL;
	if (!snapshot->nr_members != !snapshot->members)
		return -EINVAL;
	if (snapshot->nr_members)
		return snapshot->offset || snapshot->length ? -EINVAL : -EOPNOTSUPP;
	if (!PAGE_ALIGNED(snapshot->offset) || snapshot->offset > size ||
	    snapshot->length > size - snapshot->offset)
		return -EINVAL;
	if (!PAGE_ALIGNED(snapshot->length) &&
	    snapshot->offset + snapshot->length != size)
		return -EINVAL;
	if (snapshot->offset || (snapshot->length && snapshot->length != size))
		return -EOPNOTSUPP;
	if (!(cmd->handle->f_mode & FMODE_READ))
		return -EACCES;
	return 0;
}

static int do_snapshot(struct cowmem_command *cmd)
{
	struct cowmem_buffer *origin = cowmem_file_buffer(cmd->handle);
	struct cowmem_snapshot *snapshot = &cmd->arg.snapshot;
	bool writable = cmd->arg.flags & COWMEM_WRITABLE;
	struct cowmem_buffer *buf;
	int err;

	err = snapshot_check(cmd);
	if (err)
		return err;
	buf = cowmem_fs_buffer(cowmem_fs_mount(cmd->handle));
	if (IS_ERR(buf))
		return PTR_ERR(buf);
	strscpy(buf->name, snapshot->name[0] ? snapshot->name : origin->name,
		sizeof(buf->name));
	if (!writable) {
		buf->frozen = true;
		/* What the core checks before anybody may write. */
		buf->inode.i_flags |= S_IMMUTABLE;
	}
	err = command_new_file(cmd, buf, writable ? O_RDWR : O_RDONLY);
	if (!err)
		err = cowmem_snapshot_take(origin, buf);
	snapshot->fd = cmd->new_fd;
	iput(&buf->inode);
	return err;
}

static int do_stat(struct cowmem_command *cmd)
{
	if (cmd->arg.flags & COWMEM_SHARING)
		return -EOPNOTSUPP;
	cowmem_stats_fill(cowmem_file_buffer(cmd->handle), &cmd->arg.stat);
	return 0;
}

static int do_unsupported(struct cowmem_command *cmd)
{
	return -EOPNOTSUPP;
}

/**
 * struct cowmem_op - one kind of ioctl
 * @size: of its struct now
 * @min_size: of its struct when it was new
 * @flags: flags that it knows
 * @execute: does it
 */
struct cowmem_op {
	unsigned int size;
	unsigned int min_size;
	u32 flags;
	int (*execute)(struct cowmem_command *cmd);
};

#define COWMEM_OP(_cmd, _struct, _last, _flags, _execute)		\
	[_IOC_NR(_cmd)] = {						\
		.size = sizeof(struct _struct),				\
		.min_size = offsetofend(struct _struct, _last),		\
		.flags = _flags,					\
		.execute = _execute,					\
	}

static const struct cowmem_op ops[] = {
	COWMEM_OP(COWMEM_QUERY, cowmem_query, __reserved, 0, do_query),
	COWMEM_OP(COWMEM_CREATE, cowmem_create, __reserved,
		  COWMEM_CLOEXEC | COWMEM_PINNABLE, do_create),
	COWMEM_OP(COWMEM_FILE, cowmem_file, __reserved,
		  COWMEM_CLOEXEC | COWMEM_RDONLY, do_file),
	COWMEM_OP(COWMEM_SNAPSHOT, cowmem_snapshot, name,
		  COWMEM_CLOEXEC | COWMEM_WRITABLE, do_snapshot),
	COWMEM_OP(COWMEM_RESTORE, cowmem_restore, length,
		  COWMEM_IN_PLACE, do_unsupported),
	COWMEM_OP(COWMEM_DIFF, cowmem_diff, cursor, 0, do_unsupported),
	COWMEM_OP(COWMEM_STAT, cowmem_stat, name, COWMEM_SHARING, do_stat),
	COWMEM_OP(COWMEM_LIMIT, cowmem_limit, limit, 0, do_unsupported),
};

static int command_run(struct cowmem_command *cmd, const struct cowmem_op *op,
		       void __user *user)
{
	u32 size;
	int err;

	if (get_user(size, (u32 __user *)user))
		return -EFAULT;
	if (size < op->min_size)
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG;
	err = copy_struct_from_user(&cmd->arg, op->size, user, size);
	if (err)
		return err;
	/* It may have changed meanwhile: what was checked counts. */
	cmd->arg.size = size;
	if (cmd->arg.flags & ~op->flags)
		return -EINVAL;
	/* Find out now, while nothing has changed, if it can be written back. */
	if (fault_in_safe_writeable(user, min(size, op->size)))
		return -EFAULT;
	err = op->execute(cmd);
	if (err)
		return err;
	if (copy_to_user(user, &cmd->arg, min(size, op->size)))
		return -EFAULT;
	return 0;
}

long cowmem_device_ioctl(struct file *file, unsigned int nr, unsigned long arg)
{
	struct cowmem_command cmd = { .handle = file, .new_fd = -1 };
	int err;

	if (_IOC_TYPE(nr) != COWMEM_IOC_TYPE || _IOC_NR(nr) >= ARRAY_SIZE(ops) ||
	    nr != _IO(COWMEM_IOC_TYPE, _IOC_NR(nr)))
		return -ENOTTY;
	err = command_run(&cmd, &ops[_IOC_NR(nr)], (void __user *)arg);
	if (err)
		command_abort(&cmd);
	else
		command_publish(&cmd);
	return err;
}

static int cowmem_device_open(struct inode *inode, struct file *file)
{
	struct vfsmount *mnt = cowmem_fs_pin();
	struct cowmem_buffer *buf;

	if (IS_ERR(mnt))
		return PTR_ERR(mnt);
	buf = cowmem_fs_buffer(mnt);
	if (IS_ERR(buf)) {
		cowmem_fs_unpin();
		return PTR_ERR(buf);
	}
	file->private_data = buf;
	/* One address space for all handles, so that revoking finds all PTEs. */
	file->f_mapping = buf->inode.i_mapping;
	file->f_mode |= FMODE_LSEEK | FMODE_PREAD | FMODE_PWRITE |
			FMODE_ATOMIC_POS;
	return 0;
}

static int cowmem_device_release(struct inode *inode, struct file *file)
{
	iput(&cowmem_file_buffer(file)->inode);
	cowmem_fs_unpin();
	return 0;
}

static const struct file_operations device_fops = {
	.owner		= THIS_MODULE,
	.open		= cowmem_device_open,
	.release	= cowmem_device_release,
	.llseek		= cowmem_file_llseek,
	.read_iter	= cowmem_file_read_iter,
	.write_iter	= cowmem_file_write_iter,
	.splice_read	= copy_splice_read,
	.splice_write	= iter_file_splice_write,
	.mmap		= cowmem_vm_mmap_device,
	.fsync		= cowmem_file_fsync,
	.unlocked_ioctl	= cowmem_device_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.show_fdinfo	= cowmem_stats_show,
};

static struct miscdevice device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "cowmem",
	.mode	= 0600,
	.fops	= &device_fops,
};

int cowmem_device_init(void)
{
	return misc_register(&device);
}

void cowmem_device_exit(void)
{
	misc_deregister(&device);
}
