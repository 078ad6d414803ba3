// SPDX-License-Identifier: GPL-2.0
/*
 * The misc device and the ioctls: the only file that copies structs from and
 * to user space.  What they promise is in uapi/linux/cowmem.h.
 */
#include <linux/capability.h>
#include <linux/cowmem.h>
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/slab.h>
#include <linux/splice.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "device.h"
#include "diff.h"
#include "file.h"
#include "fs.h"
#include "replace.h"
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
static_assert(sizeof(struct cowmem_stat) == 200);

/* A file to return, with the fd reserved for it. */
struct new_file {
	struct file *file;
	int fd;
};

/* Most buffers in a group: what one call may hold locked at a time. */
#define MAX_MEMBERS	64

struct group;

/* One ioctl: the handle it is made on, files to return, the caller's struct. */
struct cowmem_command {
	struct file *handle;
	struct group *group;
	struct new_file *new_files;
	unsigned int nr_new;
	struct new_file new_file;
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
	struct file *file;
	int fd;

	fd = get_unused_fd_flags(cmd->arg.flags & COWMEM_CLOEXEC ? O_CLOEXEC : 0);
	if (fd < 0)
		return fd;
	file = cowmem_fs_file(cowmem_fs_mount(cmd->handle), buf, open_flags);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		return PTR_ERR(file);
	}
	cmd->new_files[cmd->nr_new++] = (struct new_file){ file, fd };
	return fd;
}

static void command_publish(struct cowmem_command *cmd)
{
	unsigned int i;

	for (i = 0; i < cmd->nr_new; i++)
		fd_install(cmd->new_files[i].fd, cmd->new_files[i].file);
}

static void command_abort(struct cowmem_command *cmd)
{
	unsigned int i;

	for (i = 0; i < cmd->nr_new; i++) {
		put_unused_fd(cmd->new_files[i].fd);
		fput(cmd->new_files[i].file);
	}
}

/* The handle behind an fd of the caller, to be put, or an ERR_PTR. */
static struct file *get_handle(int fd)
{
	struct file *file = fget(fd);

	if (!file)
		return ERR_PTR(-EBADF);
	if (!cowmem_fs_buffer_of(file)) {
		fput(file);
		return ERR_PTR(-EBADF);
	}
	return file;
}

static struct file *get_readable(int fd)
{
	struct file *file = get_handle(fd);

	if (!IS_ERR(file) && !(file->f_mode & FMODE_READ)) {
		fput(file);
		return ERR_PTR(-EACCES);
	}
	return file;
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
	query->features = COWMEM_FEATURE_SNAPSHOT | COWMEM_FEATURE_RANGE |
			  COWMEM_FEATURE_GROUP | COWMEM_FEATURE_RESTORE |
			  COWMEM_FEATURE_IN_PLACE | COWMEM_FEATURE_DIFF |
			  COWMEM_FEATURE_SHARING | COWMEM_FEATURE_LIMIT |
			  COWMEM_FEATURE_PINNABLE | COWMEM_FEATURE_CLONE |
			  COWMEM_FEATURE_DEDUPE | COWMEM_FEATURE_FALLOCATE;
	query->max_size = COWMEM_MAX_SIZE;
	query->max_members = MAX_MEMBERS;
	query->__reserved = 0;
	return 0;
}

static int do_create(struct cowmem_command *cmd)
{
	struct cowmem_create *create = &cmd->arg.create;
	struct cowmem_buffer *buf;

	if (!name_valid(create->name) || create->__reserved)
		return -EINVAL;
	if (create->length > COWMEM_MAX_SIZE)
		return -EFBIG;
	buf = cowmem_fs_buffer(cowmem_fs_mount(cmd->handle), NULL);
	if (IS_ERR(buf))
		return PTR_ERR(buf);
	strscpy(buf->name, create->name, sizeof(buf->name));
	buf->pinnable = create->flags & COWMEM_PINNABLE;
	i_size_write(&buf->inode, create->length);
	create->fd = command_new_file(cmd, buf, O_RDWR);
	iput(&buf->inode);
	return min(create->fd, 0);
}

static int do_file(struct cowmem_command *cmd)
{
	struct cowmem_buffer *buf = cowmem_file_buffer(cmd->handle);
	bool rdonly = cmd->arg.flags & COWMEM_RDONLY;
	int fd;

	if (cmd->arg.file.__reserved)
		return -EINVAL;
	if (!rdonly && buf->frozen)
		return -EPERM;
	if (!(cmd->handle->f_mode & FMODE_READ) ||
	    (!rdonly && !(cmd->handle->f_mode & FMODE_WRITE)))
		return -EACCES;
	fd = command_new_file(cmd, buf, rdonly ? O_RDONLY : O_RDWR);
	cmd->arg.file.fd = fd;
	return min(fd, 0);
}

/* A new buffer for a snapshot of @origin, and its file. */
static int new_snapshot(struct cowmem_command *cmd, struct cowmem_buffer *origin,
			struct cowmem_shot *shot)
{
	const char *name = cmd->arg.snapshot.name;
	bool writable = cmd->arg.flags & COWMEM_WRITABLE;
	struct cowmem_buffer *buf;
	int fd;

	buf = cowmem_fs_buffer(cowmem_fs_mount(cmd->handle), origin);
	if (IS_ERR(buf))
		return PTR_ERR(buf);
	strscpy(buf->name, name[0] ? name : origin->name, sizeof(buf->name));
	if (writable) {
		buf->pinnable = origin->pinnable;
	} else {
		buf->frozen = true;
		/* What the core checks before anybody may write. */
		buf->inode.i_flags |= S_IMMUTABLE;
	}
	fd = command_new_file(cmd, buf, writable ? O_RDWR : O_RDONLY);
	/* The file has it, if there is one. */
	iput(&buf->inode);
	shot->buf = origin;
	shot->snapshot = buf;
	return fd;
}

static int snapshot_handle(struct cowmem_command *cmd)
{
	struct cowmem_snapshot *snapshot = &cmd->arg.snapshot;
	struct cowmem_shot shot = {
		.offset = snapshot->offset,
		.length = snapshot->length,
	};
	int fd;

	if (!(cmd->handle->f_mode & FMODE_READ))
		return -EACCES;
	fd = new_snapshot(cmd, cowmem_file_buffer(cmd->handle), &shot);
	if (fd < 0)
		return fd;
	snapshot->fd = fd;
	return cowmem_snapshot_take(&shot, 1);
}

/* A group snapshot in progress. */
struct group {
	unsigned int nr;
	struct cowmem_member members[MAX_MEMBERS];
	struct cowmem_shot shots[MAX_MEMBERS];
	struct file *origins[MAX_MEMBERS];
	struct new_file files[MAX_MEMBERS];
};

static bool group_has(const struct group *group, unsigned int nr,
		      struct cowmem_buffer *buf)
{
	while (nr--)
		if (cowmem_file_buffer(group->origins[nr]) == buf)
			return true;
	return false;
}

static int group_get_origins(struct group *group)
{
	unsigned int i;

	for (i = 0; i < group->nr; i++) {
		struct file *file = get_readable(group->members[i].fd);

		if (IS_ERR(file))
			return PTR_ERR(file);
		group->origins[i] = file;
		if (group_has(group, i, cowmem_file_buffer(file)))
			return -EINVAL;
	}
	return 0;
}

static int group_take(struct cowmem_command *cmd, struct group *group)
{
	unsigned int i;
	int err;

	err = group_get_origins(group);
	if (err)
		return err;
	for (i = 0; i < group->nr; i++) {
		struct cowmem_member *member = &group->members[i];
		int fd;

		group->shots[i].offset = member->offset;
		group->shots[i].length = member->length;
		fd = new_snapshot(cmd, cowmem_file_buffer(group->origins[i]),
				  &group->shots[i]);
		if (fd < 0)
			return fd;
		member->snapshot_fd = fd;
	}
	return cowmem_snapshot_take(group->shots, group->nr);
}

static int snapshot_group(struct cowmem_command *cmd)
{
	struct cowmem_snapshot *snapshot = &cmd->arg.snapshot;
	void __user *user = u64_to_user_ptr(snapshot->members);
	size_t size = snapshot->nr_members * sizeof(struct cowmem_member);
	struct group *group;
	int err;

	if (snapshot->nr_members > MAX_MEMBERS)
		return -EINVAL;
	group = kzalloc(sizeof(*group), GFP_KERNEL);
	if (!group)
		return -ENOMEM;
	cmd->group = group;
	cmd->new_files = group->files;
	group->nr = snapshot->nr_members;
	if (copy_from_user(group->members, user, size) ||
	    fault_in_safe_writeable(user, size))
		return -EFAULT;
	err = group_take(cmd, group);
	if (!err && copy_to_user(user, group->members, size))
		err = -EFAULT;
	return err;
}

static void command_free_group(struct cowmem_command *cmd)
{
	struct group *group = cmd->group;
	unsigned int i;

	if (!group)
		return;
	for (i = 0; i < group->nr && group->origins[i]; i++)
		fput(group->origins[i]);
	kfree(group);
}

static int do_snapshot(struct cowmem_command *cmd)
{
	struct cowmem_snapshot *snapshot = &cmd->arg.snapshot;

	if (!name_valid(snapshot->name))
		return -EINVAL;
	if (!snapshot->nr_members != !snapshot->members)
		return -EINVAL;
	if (!snapshot->nr_members)
		return snapshot_handle(cmd);
	if (snapshot->offset || snapshot->length)
		return -EINVAL;
	return snapshot_group(cmd);
}

/* Offsets and lengths that no buffer can have. */
static bool range_valid(u64 offset, u64 length)
{
	return PAGE_ALIGNED(offset | length) && offset <= COWMEM_MAX_SIZE &&
	       length <= COWMEM_MAX_SIZE - offset;
}

static int restore_from(struct cowmem_command *cmd, struct file *source)
{
	const struct cowmem_restore *restore = &cmd->arg.restore;
	struct cowmem_copy copy = {
		.buf = cowmem_file_buffer(cmd->handle),
		.source = cowmem_file_buffer(source),
		.offset = restore->offset,
		.source_offset = restore->source_offset,
		.length = restore->length,
		.how = restore->flags & COWMEM_IN_PLACE ?
		       COWMEM_REPLACE_IN_PLACE : COWMEM_REPLACE,
	};
	struct inode *inode = &copy.buf->inode;
	int err;

	inode_lock(inode);
	err = cowmem_copy(&copy);
	if (!err)
		inode_set_mtime_ctime_current(inode);
	inode_unlock(inode);
	return err;
}

static int do_restore(struct cowmem_command *cmd)
{
	const struct cowmem_restore *restore = &cmd->arg.restore;
	struct file *source;
	int err;

	if (restore->__reserved ||
	    !range_valid(restore->offset, restore->length) ||
	    !range_valid(restore->source_offset, restore->length))
		return -EINVAL;
	if (!restore->length && (restore->offset || restore->source_offset))
		return -EINVAL;
	if (cowmem_file_buffer(cmd->handle)->frozen)
		return -EPERM;
	if (!(cmd->handle->f_mode & FMODE_WRITE))
		return -EACCES;
	source = get_readable(restore->source);
	if (IS_ERR(source))
		return PTR_ERR(source);
	err = restore_from(cmd, source);
	fput(source);
	return err;
}

/* What one call lists at most: more takes another. */
#define MAX_EXTENTS	1024U

static int diff_with(struct cowmem_command *cmd, struct file *other)
{
	struct cowmem_diff *diff = &cmd->arg.diff;
	unsigned int nr = min(diff->nr_extents, MAX_EXTENTS);
	struct cowmem_extent *extents;
	int ret;

	extents = kvcalloc(nr, sizeof(*extents), GFP_KERNEL);
	if (!extents)
		return -ENOMEM;
	ret = cowmem_diff(cowmem_file_buffer(cmd->handle),
			  cowmem_file_buffer(other), &diff->cursor, extents, nr);
	if (ret > 0 && copy_to_user(u64_to_user_ptr(diff->extents), extents,
				    ret * sizeof(*extents)))
		ret = -EFAULT;
	kvfree(extents);
	if (ret < 0)
		return ret;
	diff->nr_extents = ret;
	return 0;
}

static int do_diff(struct cowmem_command *cmd)
{
	const struct cowmem_diff *diff = &cmd->arg.diff;
	struct file *other;
	int err;

	if (!diff->nr_extents || !PAGE_ALIGNED(diff->cursor))
		return -EINVAL;
	if (!(cmd->handle->f_mode & FMODE_READ))
		return -EACCES;
	other = get_readable(diff->other);
	if (IS_ERR(other))
		return PTR_ERR(other);
	err = diff_with(cmd, other);
	fput(other);
	return err;
}

static int do_limit(struct cowmem_command *cmd)
{
	struct cowmem_account *account = cowmem_file_buffer(cmd->handle)->account;

	if (!uid_eq(current_euid(), account->uid) && !capable(CAP_SYS_RESOURCE))
		return -EPERM;
	WRITE_ONCE(account->limit, cmd->arg.limit.limit);
	return 0;
}

static int do_stat(struct cowmem_command *cmd)
{
	cowmem_stats_fill(cowmem_file_buffer(cmd->handle), &cmd->arg.stat);
	return 0;
}

/**
 * struct cowmem_op - one kind of ioctl
 * @size: of its struct now
 * @min_size: of its struct when it was new
 * @flags: flags that it knows
 * @answers: it fills fields of the struct
 * @execute: does it
 */
struct cowmem_op {
	unsigned int size;
	unsigned int min_size;
	u32 flags;
	bool answers;
	int (*execute)(struct cowmem_command *cmd);
};

#define COWMEM_OP(_cmd, _struct, _last, _flags, _answers, _execute)	\
	[_IOC_NR(_cmd)] = {						\
		.size = sizeof(struct _struct),				\
		.min_size = offsetofend(struct _struct, _last),		\
		.flags = _flags,					\
		.answers = _answers,					\
		.execute = _execute,					\
	}

static const struct cowmem_op ops[] = {
	COWMEM_OP(COWMEM_QUERY, cowmem_query, __reserved, 0, true, do_query),
	COWMEM_OP(COWMEM_CREATE, cowmem_create, __reserved,
		  COWMEM_CLOEXEC | COWMEM_PINNABLE, true, do_create),
	COWMEM_OP(COWMEM_FILE, cowmem_file, __reserved,
		  COWMEM_CLOEXEC | COWMEM_RDONLY, true, do_file),
	COWMEM_OP(COWMEM_SNAPSHOT, cowmem_snapshot, name,
		  COWMEM_CLOEXEC | COWMEM_WRITABLE, true, do_snapshot),
	COWMEM_OP(COWMEM_RESTORE, cowmem_restore, length,
		  COWMEM_IN_PLACE, false, do_restore),
	COWMEM_OP(COWMEM_DIFF, cowmem_diff, cursor, 0, true, do_diff),
	COWMEM_OP(COWMEM_STAT, cowmem_stat, name, COWMEM_SHARING, true,
		  do_stat),
	COWMEM_OP(COWMEM_LIMIT, cowmem_limit, limit, 0, false, do_limit),
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
	if (op->answers && fault_in_safe_writeable(user, min(size, op->size)))
		return -EFAULT;
	err = op->execute(cmd);
	if (err || !op->answers)
		return err;
	if (copy_to_user(user, &cmd->arg, min(size, op->size)))
		return -EFAULT;
	return 0;
}

long cowmem_device_ioctl(struct file *file, unsigned int nr, unsigned long arg)
{
	struct cowmem_command cmd = { .handle = file };
	int err;

	cmd.new_files = &cmd.new_file;
	if (_IOC_TYPE(nr) != COWMEM_IOC_TYPE || _IOC_NR(nr) >= ARRAY_SIZE(ops) ||
	    nr != _IO(COWMEM_IOC_TYPE, _IOC_NR(nr)))
		return -ENOTTY;
	err = command_run(&cmd, &ops[_IOC_NR(nr)], (void __user *)arg);
	if (err)
		command_abort(&cmd);
	else
		command_publish(&cmd);
	command_free_group(&cmd);
	return err;
}

static int cowmem_device_open(struct inode *inode, struct file *file)
{
	struct vfsmount *mnt = cowmem_fs_pin();
	struct cowmem_buffer *buf;

	if (IS_ERR(mnt))
		return PTR_ERR(mnt);
	buf = cowmem_fs_buffer(mnt, NULL);
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

const struct file_operations cowmem_device_ops = {
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
	.fops	= &cowmem_device_ops,
};

int cowmem_device_init(void)
{
	return misc_register(&device);
}

void cowmem_device_exit(void)
{
	misc_deregister(&device);
}
