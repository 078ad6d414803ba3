// SPDX-License-Identifier: GPL-2.0
/*
 * The internal file system: see fs.h.
 *
 * Lifetime.  A buffer is an inode and dies with its last reference: those of
 * files (through their dentry), of mappings (through their file), of device
 * handles, and of ioctls in progress.  The inode needs the superblock, the
 * superblock holds the module, and what holds the superblock is a mount: each
 * file pins one through its path, each device handle through cowmem_fs_pin(),
 * and an ioctl is made on one of these.  So the module stays exactly as long as
 * a buffer does, and the last put of it is done by the core, after the last of
 * our code has run.  There is one superblock however many mounts come and go,
 * so that all buffers are of one file system.
 */
#include <linux/file.h>
#include <linux/fs_context.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/slab.h>

#include "compat.h"
#include "device.h"
#include "file.h"
#include "fs.h"

#define COWMEM_SUPER_MAGIC	0x434f574d	/* "COWM" */

static struct kmem_cache *buffer_cache;
static struct vfsmount *pinned_mount;
static int pinned_count;

static struct inode *cowmem_alloc_inode(struct super_block *sb)
{
	struct cowmem_buffer *buf = alloc_inode_sb(sb, buffer_cache, GFP_KERNEL);

	return buf ? &buf->inode : NULL;
}

static void cowmem_free_inode(struct inode *inode)
{
	kmem_cache_free(buffer_cache, cowmem_buffer_of(inode));
}

static void cowmem_evict_inode(struct inode *inode)
{
	truncate_inode_pages_final(&inode->i_data);
	clear_inode(inode);
	/* No file is left, so no mapping and no PTE: see buffer.h, Close. */
	if (S_ISREG(inode->i_mode))
		cowmem_buffer_destroy(cowmem_buffer_of(inode));
}

static const struct super_operations cowmem_super_ops = {
	.alloc_inode	= cowmem_alloc_inode,
	.free_inode	= cowmem_free_inode,
	.evict_inode	= cowmem_evict_inode,
	.drop_inode	= inode_just_drop,
	.statfs		= simple_statfs,
};

static int cowmem_fill_super(struct super_block *sb, struct fs_context *fc)
{
	struct inode *root;

	sb->s_maxbytes = COWMEM_MAX_SIZE;
	sb->s_blocksize = PAGE_SIZE;
	sb->s_blocksize_bits = PAGE_SHIFT;
	sb->s_magic = COWMEM_SUPER_MAGIC;
	sb->s_op = &cowmem_super_ops;
	sb->s_time_gran = 1;
	sb->s_iflags |= SB_I_NOEXEC | SB_I_NODEV;

	root = new_inode(sb);
	if (!root)
		return -ENOMEM;
	root->i_ino = 1;
	root->i_mode = S_IFDIR | 0700;
	simple_inode_init_ts(root);
	sb->s_root = d_make_root(root);
	return sb->s_root ? 0 : -ENOMEM;
}

static int cowmem_get_tree(struct fs_context *fc)
{
	return get_tree_single(fc, cowmem_fill_super);
}

static const struct fs_context_operations cowmem_context_ops = {
	.get_tree	= cowmem_get_tree,
};

static int cowmem_init_fs_context(struct fs_context *fc)
{
	fc->ops = &cowmem_context_ops;
	/* One superblock for all user namespaces, that nobody can mount. */
	fc->global = true;
	fc->sb_flags |= SB_NOUSER;
	return 0;
}

/* Never registered: known to nobody but simple_pin_fs(). */
static struct file_system_type cowmem_fs_type = {
	.owner			= THIS_MODULE,
	.name			= "cowmem",
	.init_fs_context	= cowmem_init_fs_context,
	.kill_sb		= kill_anon_super,
};

static int inode_init_buffer(struct inode *inode, struct cowmem_buffer *origin)
{
	inode->i_ino = get_next_ino();
	inode->i_mode = S_IFREG | 0600;
	inode->i_uid = current_fsuid();
	inode->i_gid = current_fsgid();
	inode->i_op = &cowmem_file_inode_ops;
	inode->i_fop = &cowmem_file_ops;
	inode->i_mapping->a_ops = &cowmem_file_aops;
	simple_inode_init_ts(inode);
	/* No name in any directory: nobody can link it to one. */
	clear_nlink(inode);
	return cowmem_buffer_init(cowmem_buffer_of(inode), origin);
}

struct vfsmount *cowmem_fs_pin(void)
{
	int err = simple_pin_fs(&cowmem_fs_type, &pinned_mount, &pinned_count);

	return err ? ERR_PTR(err) : pinned_mount;
}

void cowmem_fs_unpin(void)
{
	simple_release_fs(&pinned_mount, &pinned_count);
}

struct cowmem_buffer *cowmem_fs_buffer_of(struct file *file)
{
	if (file->f_op != &cowmem_file_ops && file->f_op != &cowmem_device_ops)
		return NULL;
	return cowmem_file_buffer(file);
}

struct vfsmount *cowmem_fs_mount(struct file *handle)
{
	/* A handle of the device is of another file system, and has a pin. */
	if (handle->f_op == &cowmem_file_ops)
		return handle->f_path.mnt;
	return pinned_mount;
}

struct cowmem_buffer *cowmem_fs_buffer(struct vfsmount *mnt,
				       struct cowmem_buffer *origin)
{
	struct inode *inode = new_inode(mnt->mnt_sb);

	if (!inode)
		return ERR_PTR(-ENOMEM);
	if (inode_init_buffer(inode, origin)) {
		iput(inode);
		return ERR_PTR(-ENOMEM);
	}
	return cowmem_buffer_of(inode);
}

struct file *cowmem_fs_file(struct vfsmount *mnt, struct cowmem_buffer *buf,
			    int flags)
{
	char name[sizeof("cowmem:") + COWMEM_NAME_MAX];
	struct file *file;

	snprintf(name, sizeof(name), "cowmem:%s", buf->name);
	ihold(&buf->inode);
	file = alloc_file_pseudo(&buf->inode, mnt, name, flags | O_LARGEFILE,
				 &cowmem_file_ops);
	if (IS_ERR(file)) {
		iput(&buf->inode);
		return file;
	}
	file->f_mode |= FMODE_LSEEK | FMODE_PREAD | FMODE_PWRITE |
			FMODE_ATOMIC_POS;
	file->private_data = buf;
	return file;
}

static void buffer_init_once(void *object)
{
	struct cowmem_buffer *buf = object;

	inode_init_once(&buf->inode);
}

int cowmem_fs_init(void)
{
	buffer_cache = kmem_cache_create("cowmem_buffer",
					 sizeof(struct cowmem_buffer), 0,
					 SLAB_ACCOUNT | SLAB_RECLAIM_ACCOUNT,
					 buffer_init_once);
	return buffer_cache ? 0 : -ENOMEM;
}

void cowmem_fs_exit(void)
{
	/* Inodes are freed after a grace period. */
	rcu_barrier();
	kmem_cache_destroy(buffer_cache);
}
