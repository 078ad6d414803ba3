// SPDX-License-Identifier: GPL-2.0
/*
 * FICLONE, FICLONERANGE, FIDEDUPERANGE and copy_file_range(): their arguments,
 * and the bytes that do not fill a page.
 */
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>

#include "buffer.h"
#include "compat.h"
#include "file.h"
#include "page.h"
#include "remap.h"
#include "replace.h"

/* How much is deduped in one go: it is compared with faults locked out. */
#define DEDUPE_BYTES	(1UL << 20)

/* As other file systems do, but that nothing is shortened. */
static int remap_check(struct cowmem_copy *copy, unsigned int flags)
{
	loff_t size_in = i_size_read(&copy->source->inode);
	loff_t size_out = i_size_read(&copy->buf->inode);
	bool dedupe = flags & REMAP_FILE_DEDUP;

	if (flags & ~(REMAP_FILE_DEDUP | REMAP_FILE_ADVISORY))
		return -EINVAL;
	if (!PAGE_ALIGNED(copy->offset | copy->source_offset) ||
	    copy->source_offset > size_in)
		return -EINVAL;
	if (!copy->length && !dedupe)
		copy->length = size_in - copy->source_offset;
	if (copy->length > size_in - copy->source_offset)
		return -EINVAL;
	if (copy->offset > COWMEM_MAX_SIZE ||
	    copy->length > COWMEM_MAX_SIZE - copy->offset)
		return -EFBIG;
	if (dedupe && (copy->offset > size_out ||
		       copy->length > size_out - copy->offset))
		return -EINVAL;
	if (dedupe && copy->buf == copy->source &&
	    abs(copy->offset - copy->source_offset) < copy->length)
		return -EINVAL;
	if (!dedupe && copy->offset + copy->length > size_out)
		return inode_newsize_ok(&copy->buf->inode,
					copy->offset + copy->length);
	return 0;
}

static int dedupe(const struct cowmem_copy *whole)
{
	struct cowmem_copy part = *whole;
	loff_t done;
	int err;

	for (done = 0; done < whole->length; done += part.length) {
		if (fatal_signal_pending(current))
			return -EINTR;
		part.offset = whole->offset + done;
		part.source_offset = whole->source_offset + done;
		part.length = min_t(loff_t, whole->length - done, DEDUPE_BYTES);
		err = cowmem_copy(&part);
		if (err)
			return err;
	}
	return 0;
}

static int modified(struct file *file)
{
	int err = file_remove_privs(file);

	if (!err)
		inode_set_mtime_ctime_current(file_inode(file));
	return err;
}

loff_t cowmem_remap_file_range(struct file *in, loff_t pos_in,
			       struct file *out, loff_t pos_out, loff_t length,
			       unsigned int flags)
{
	struct cowmem_copy copy = {
		.buf = cowmem_file_buffer(out),
		.source = cowmem_file_buffer(in),
		.offset = pos_out,
		.source_offset = pos_in,
		.length = length,
		.extend = !(flags & REMAP_FILE_DEDUP),
		.how = flags & REMAP_FILE_DEDUP ? COWMEM_REPLACE_EQUAL :
		       COWMEM_REPLACE,
	};
	int err;

	lock_two_nondirectories(file_inode(in), file_inode(out));
	err = remap_check(&copy, flags);
	if (!err && copy.length) {
		if (flags & REMAP_FILE_DEDUP)
			err = dedupe(&copy);
		else
			err = modified(out) ?: cowmem_copy(&copy);
	}
	unlock_two_nondirectories(file_inode(in), file_inode(out));
	return err ?: copy.length;
}

/* Copy bytes of one page to one page. */
static int copy_bytes(const struct cowmem_copy *copy)
{
	struct cowmem_buffer *buf = copy->buf;
	pgoff_t to = copy->offset >> PAGE_SHIFT;
	pgoff_t from = copy->source_offset >> PAGE_SHIFT;
	struct cowmem_reserve reserve = { };
	struct page *src = NULL, *dst;
	bool within;
	int err;

	/* In one page: with a reference of our own, somebody would hold it. */
	within = buf == copy->source && to == from;
	if (!within)
		src = cowmem_buffer_read(copy->source, from);
	if (IS_ERR(src))
		return PTR_ERR(src);
	err = cowmem_buffer_own(buf, to, NULL, false, &reserve, &dst);
	if (!err) {
		if (src || within)
			memcpy_page(dst, offset_in_page(copy->offset),
				    within ? dst : src,
				    offset_in_page(copy->source_offset),
				    copy->length);
		else
			memzero_page(dst, offset_in_page(copy->offset),
				     copy->length);
		if (copy->offset + copy->length > i_size_read(&buf->inode))
			i_size_write(&buf->inode, copy->offset + copy->length);
		cowmem_buffer_unlock(buf, to);
	}
	cowmem_reserve_release(&reserve);
	if (src)
		put_page(src);
	return err;
}

/* The next step: whole pages that can be shared, or bytes of one page. */
static int copy_step(struct cowmem_copy *copy, loff_t length)
{
	unsigned int in = offset_in_page(copy->source_offset);
	unsigned int out = offset_in_page(copy->offset);

	copy->length = length & PAGE_MASK;
	if (!in && !out && copy->length)
		return cowmem_copy(copy);
	copy->length = min_t(loff_t, length, PAGE_SIZE - max(in, out));
	return copy_bytes(copy);
}

static ssize_t copy_steps(struct cowmem_copy *copy, size_t length)
{
	size_t done = 0;
	int err;

	while (done < length) {
		loff_t left = i_size_read(&copy->source->inode) -
			      copy->source_offset;

		if (left <= 0)
			break;
		err = fatal_signal_pending(current) ? -EINTR :
		      copy_step(copy, min_t(loff_t, length - done, left));
		if (err)
			return done ?: err;
		done += copy->length;
		copy->offset += copy->length;
		copy->source_offset += copy->length;
		cond_resched();
	}
	return done;
}

ssize_t cowmem_copy_file_range(struct file *in, loff_t pos_in,
			       struct file *out, loff_t pos_out, size_t length,
			       unsigned int flags)
{
	struct cowmem_copy copy = {
		.buf = cowmem_file_buffer(out),
		.source = cowmem_file_buffer(in),
		.offset = pos_out,
		.source_offset = pos_in,
		.extend = true,
		.how = COWMEM_REPLACE,
	};
	unsigned int noio;
	ssize_t ret = 0;

	lock_two_nondirectories(file_inode(in), file_inode(out));
	noio = memalloc_noio_save();
	if (pos_out > i_size_read(file_inode(out)))
		ret = cowmem_buffer_extend(copy.buf);
	if (!ret)
		ret = modified(out);
	if (!ret)
		ret = copy_steps(&copy, length);
	memalloc_noio_restore(noio);
	unlock_two_nondirectories(file_inode(in), file_inode(out));
	return ret;
}
