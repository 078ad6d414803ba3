// SPDX-License-Identifier: GPL-2.0
/*
 * File operations of a buffer: see file.h.  Touches user memory only through
 * iov_iter.
 */
#include <linux/highmem.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/splice.h>
#include <linux/uio.h>
/* Wants types that it does not include. */
#include <linux/falloc.h>

#include "buffer.h"
#include "compat.h"
#include "device.h"
#include "file.h"
#include "page.h"
#include "range.h"
#include "remap.h"
#include "stats.h"
#include "vm.h"

/*
 * Copies: never hands out the page itself, which could then sit in a pipe long
 * after it was written again.
 */
static int copy_page_out(struct cowmem_buffer *buf, loff_t pos, size_t *bytes,
			 struct iov_iter *to)
{
	struct page *page = cowmem_buffer_read(buf, pos >> PAGE_SHIFT);
	char *kaddr;

	if (IS_ERR(page))
		return PTR_ERR(page);
	if (!page) {
		*bytes = iov_iter_zero(*bytes, to);
		return 0;
	}
	kaddr = kmap_local_page(page);
	*bytes = copy_to_iter(kaddr + offset_in_page(pos), *bytes, to);
	kunmap_local(kaddr);
	put_page(page);
	return 0;
}

ssize_t cowmem_file_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct cowmem_buffer *buf = cowmem_file_buffer(iocb->ki_filp);
	ssize_t done = 0;
	int err = 0;

	while (iov_iter_count(to)) {
		loff_t size = i_size_read(&buf->inode);
		size_t part, bytes;

		if (iocb->ki_pos >= size)
			break;
		if (fatal_signal_pending(current)) {
			err = -EINTR;
			break;
		}
		part = min_t(loff_t, size - iocb->ki_pos,
			     PAGE_SIZE - offset_in_page(iocb->ki_pos));
		part = min(part, iov_iter_count(to));
		bytes = part;
		err = copy_page_out(buf, iocb->ki_pos, &bytes, to);
		if (err)
			break;
		done += bytes;
		iocb->ki_pos += bytes;
		if (bytes < part) {
			err = -EFAULT;
			break;
		}
		cond_resched();
	}
	file_accessed(iocb->ki_filp);
	return done ?: err;
}

/*
 * Copy to an exclusive page.  @bounce: a page that has the data already, or
 * NULL: take it from @from, as far as it can be had without a page fault.
 */
static ssize_t copy_page_in(struct cowmem_buffer *buf, loff_t pos, size_t bytes,
			    struct iov_iter *from, struct page *bounce)
{
	struct cowmem_reserve reserve = { };
	pgoff_t index = pos >> PAGE_SHIFT;
	unsigned int offset = offset_in_page(pos);
	struct page *page;
	ssize_t ret;

	ret = cowmem_buffer_own(buf, index, NULL, false, &reserve, &page);
	if (ret)
		goto out;
	if (bounce) {
		memcpy_page(page, offset, bounce, offset, bytes);
		ret = bytes;
	} else {
		ret = copy_folio_from_iter_atomic(page_folio(page), offset,
						  bytes, from);
	}
	if (ret > 0 && pos + ret > i_size_read(&buf->inode))
		i_size_write(&buf->inode, pos + ret);
	cowmem_buffer_unlock(buf, index);
out:
	cowmem_reserve_release(&reserve);
	return ret;
}

/* The source keeps being unmapped under us: copy it before the locks. */
static ssize_t copy_page_bounced(struct cowmem_buffer *buf, loff_t pos,
				 size_t bytes, struct iov_iter *from)
{
	struct page *bounce = alloc_page(cowmem_gfp(GFP_KERNEL));
	ssize_t ret;
	size_t copied;

	if (!bounce)
		return -ENOMEM;
	copied = copy_page_from_iter(bounce, offset_in_page(pos), bytes, from);
	ret = -EFAULT;
	if (copied)
		ret = copy_page_in(buf, pos, copied, from, bounce);
	if (ret < 0)
		iov_iter_revert(from, copied);
	put_page(bounce);
	return ret;
}

/* As much as possible of what goes to one page. */
static ssize_t write_page(struct cowmem_buffer *buf, loff_t pos, size_t bytes,
			  struct iov_iter *from)
{
	ssize_t ret;
	int tries;

	for (tries = 0; tries < 2; tries++) {
		if (fault_in_iov_iter_readable(from, bytes) == bytes)
			return -EFAULT;
		ret = copy_page_in(buf, pos, bytes, from, NULL);
		if (ret)
			return ret;
	}
	return copy_page_bounced(buf, pos, bytes, from);
}

static ssize_t write_pages(struct cowmem_buffer *buf, struct kiocb *iocb,
			   struct iov_iter *from)
{
	ssize_t done = 0, ret = 0;

	while (iov_iter_count(from)) {
		loff_t pos = iocb->ki_pos;
		size_t bytes = min_t(size_t, iov_iter_count(from),
				     PAGE_SIZE - offset_in_page(pos));

		ret = -EINTR;
		if (fatal_signal_pending(current))
			break;
		ret = write_page(buf, pos, bytes, from);
		if (ret < 0)
			break;
		iocb->ki_pos += ret;
		done += ret;
		cond_resched();
	}
	return done ?: ret;
}

ssize_t cowmem_file_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct cowmem_buffer *buf = cowmem_file_buffer(iocb->ki_filp);
	struct inode *inode = &buf->inode;
	unsigned int noio;
	ssize_t ret;

	if (iocb->ki_flags & IOCB_NOWAIT)
		return -EAGAIN;
	inode_lock(inode);
	noio = memalloc_noio_save();
	ret = generic_write_checks(iocb, from);
	if (ret <= 0)
		goto unlock;
	if (iocb->ki_pos > i_size_read(inode)) {
		ret = cowmem_buffer_extend(buf);
		if (ret)
			goto unlock;
	}
	ret = file_remove_privs(iocb->ki_filp);
	if (ret)
		goto unlock;
	inode_set_mtime_ctime_current(inode);
	ret = write_pages(buf, iocb, from);
unlock:
	memalloc_noio_restore(noio);
	inode_unlock(inode);
	return ret;
}

/* First byte from @offset on that is (not) in a hole, or the end. */
static loff_t seek_hole_data(struct cowmem_buffer *buf, loff_t offset,
			     int whence)
{
	pgoff_t index = offset >> PAGE_SHIFT, found;
	loff_t size = i_size_read(&buf->inode);

	if (offset < 0 || offset >= size)
		return -ENXIO;
	spin_lock(&buf->tree_lock);
	if (whence == SEEK_DATA)
		found = cowmem_tree_next_page(&buf->tree, index);
	else
		found = cowmem_tree_next_hole(&buf->tree, index);
	spin_unlock(&buf->tree_lock);

	if (found >= DIV_ROUND_UP_ULL(size, PAGE_SIZE))
		return whence == SEEK_DATA ? -ENXIO : size;
	return max(offset, (loff_t)found << PAGE_SHIFT);
}

loff_t cowmem_file_llseek(struct file *file, loff_t offset, int whence)
{
	struct cowmem_buffer *buf = cowmem_file_buffer(file);

	if (whence == SEEK_DATA || whence == SEEK_HOLE) {
		offset = seek_hole_data(buf, offset, whence);
		if (offset < 0)
			return offset;
		return vfs_setpos(file, offset, COWMEM_MAX_SIZE);
	}
	return generic_file_llseek_size(file, offset, whence, COWMEM_MAX_SIZE,
					i_size_read(&buf->inode));
}

int cowmem_file_fsync(struct file *file, loff_t start, loff_t end, int datasync)
{
	return 0;
}

static long cowmem_file_fallocate(struct file *file, int mode, loff_t offset,
				  loff_t length)
{
	struct inode *inode = file_inode(file);
	struct cowmem_buffer *buf = cowmem_buffer_of(inode);
	bool keep_size = mode & FALLOC_FL_KEEP_SIZE;
	int err;

	if (offset > COWMEM_MAX_SIZE || length > COWMEM_MAX_SIZE - offset)
		return -EFBIG;
	inode_lock(inode);
	err = keep_size ? 0 : inode_newsize_ok(inode, offset + length);
	if (!err)
		err = file_remove_privs(file);
	if (err)
		goto unlock;
	switch (mode & ~FALLOC_FL_KEEP_SIZE) {
	case 0:
		err = cowmem_range_fill(buf, offset, length, keep_size);
		break;
	case FALLOC_FL_PUNCH_HOLE:
		err = cowmem_range_punch(buf, offset, length);
		break;
	case FALLOC_FL_ZERO_RANGE:
		err = cowmem_range_zero(buf, offset, length, keep_size);
		break;
	case FALLOC_FL_UNSHARE_RANGE:
		err = cowmem_range_unshare(buf, offset, length, keep_size);
		break;
	default:
		err = -EOPNOTSUPP;
	}
	if (!err)
		inode_set_mtime_ctime_current(inode);
unlock:
	inode_unlock(inode);
	return err;
}

static int cowmem_file_open(struct inode *inode, struct file *file)
{
	file->private_data = cowmem_buffer_of(inode);
	return generic_file_open(inode, file);
}

static int cowmem_file_setattr(struct mnt_idmap *idmap, struct dentry *dentry,
			       struct iattr *attr)
{
	struct inode *inode = d_inode(dentry);
	int err;

	err = setattr_prepare(idmap, dentry, attr);
	if (err)
		return err;
	if (attr->ia_valid & ATTR_SIZE) {
		if (attr->ia_size > COWMEM_MAX_SIZE)
			return -EFBIG;
		err = cowmem_buffer_resize(cowmem_buffer_of(inode),
					   attr->ia_size);
		if (err)
			return err;
		inode_set_mtime_ctime_current(inode);
	}
	setattr_copy(idmap, inode, attr);
	return 0;
}

static int cowmem_file_getattr(struct mnt_idmap *idmap, const struct path *path,
			       struct kstat *stat, u32 request_mask,
			       unsigned int flags)
{
	struct inode *inode = d_inode(path->dentry);
	unsigned long nr_pages;

	generic_fillattr(idmap, request_mask, inode, stat);
	nr_pages = cowmem_buffer_resident(cowmem_buffer_of(inode));
	stat->blocks = (u64)nr_pages * (PAGE_SIZE / 512);
	stat->blksize = PAGE_SIZE;
	return 0;
}

const struct inode_operations cowmem_file_inode_ops = {
	.setattr	= cowmem_file_setattr,
	.getattr	= cowmem_file_getattr,
};

/* Nothing is ever in the page cache; pages become dirty when they are unmapped. */
const struct address_space_operations cowmem_file_aops = {
	.dirty_folio	= noop_dirty_folio,
};

/* No .owner: the mount that every file pins holds the module, see fs.c. */
const struct file_operations cowmem_file_ops = {
	.open		= cowmem_file_open,
	.llseek		= cowmem_file_llseek,
	.read_iter	= cowmem_file_read_iter,
	.write_iter	= cowmem_file_write_iter,
	.splice_read	= copy_splice_read,
	.splice_write	= iter_file_splice_write,
	.mmap		= cowmem_vm_mmap,
	.fsync		= cowmem_file_fsync,
	.fallocate	= cowmem_file_fallocate,
	.remap_file_range = cowmem_remap_file_range,
	.copy_file_range = cowmem_copy_file_range,
	.unlocked_ioctl	= cowmem_device_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.show_fdinfo	= cowmem_stats_show,
};
