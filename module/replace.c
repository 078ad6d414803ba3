// SPDX-License-Identifier: GPL-2.0
/*
 * Replacing what a buffer has in a range: see replace.h.
 *
 * With snap exclusive, in this order:
 *
 *	1. revoke the PTEs of all that differs; wait for MAP_PRIVATE faults that
 *	   still copy a page of it; find the pages that stay
 *	2. put those in what comes, and graft that on the buffer; unless they are
 *	   all that differs
 *	3. copy to the pages that stay what was to come there
 *
 * Only 1 and the start of 2 can fail, and change no content.
 */
#include <linux/err.h>
#include <linux/highmem.h>
#include <linux/list.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "buffer.h"
#include "page.h"
#include "replace.h"
#include "snapshot.h"

/* What is copied back in place; more is cheaper to share. */
#define IN_PLACE_PAGES	1024

/* What is revoked at a time. */
#define RUN_PAGES	1024

/* A page that stays. */
struct kept_page {
	struct list_head list;
	pgoff_t index;
	struct page *page;
	struct page *content;	/* owned by us; NULL: zeroes */
};

struct replacement {
	struct cowmem_buffer *buf;
	struct cowmem_tree view;	/* of @buf: the range, from index 0 */
	struct cowmem_tree *piece;
	enum cowmem_replace how;
	u64 end;			/* in bytes: from here on all goes */
	struct cowmem_reserve *reserve;
	struct list_head kept;
	unsigned int nr_kept;
	bool all_kept;			/* of what differs */
};

static int keep_page(struct replacement *r, pgoff_t index, struct page *page)
{
	struct kept_page *kept = kzalloc(sizeof(*kept), cowmem_gfp(GFP_KERNEL));

	if (!kept)
		return -ENOMEM;
	kept->index = index;
	kept->page = page;
	kept->content = cowmem_tree_lookup(r->piece, index);
	if (kept->content)
		cowmem_page_take(kept->content);
	list_add_tail(&kept->list, &r->kept);
	r->nr_kept++;
	return kept->content && PageHWPoison(kept->content) ? -EIO : 0;
}

/* May somebody write to the page without asking, and should it stay as it is? */
static bool page_may_stay(struct replacement *r, pgoff_t index)
{
	return (u64)index << PAGE_SHIFT < r->end &&
	       cowmem_tree_is_granted(&r->view, index) &&
	       !PageHWPoison(cowmem_tree_lookup(&r->view, index));
}

static bool page_stays_mapped(struct replacement *r, pgoff_t index)
{
	return r->how == COWMEM_REPLACE_IN_PLACE &&
	       r->nr_kept < IN_PLACE_PAGES && page_may_stay(r, index) &&
	       cowmem_tree_lookup(r->piece, index);
}

static bool pages_equal(struct page *a, struct page *b, size_t bytes)
{
	void *left = a ? kmap_local_page(a) : NULL;
	void *right = b ? kmap_local_page(b) : NULL;
	bool equal;

	if (left && right)
		equal = !memcmp(left, right, bytes);
	else
		equal = !memchr_inv(left ?: right, 0, bytes);
	if (right)
		kunmap_local(right);
	if (left)
		kunmap_local(left);
	return equal;
}

static int compare_pages(struct replacement *r, struct page *page, pgoff_t index)
{
	struct page *new = cowmem_tree_lookup(r->piece, index);
	u64 bytes = PAGE_SIZE;

	if ((page && PageHWPoison(page)) || (new && PageHWPoison(new)))
		return -EIO;
	/* What is hidden behind the end does not count, but may not change. */
	if (!r->buf->frozen)
		bytes = min(bytes, r->end - ((u64)index << PAGE_SHIFT));
	return pages_equal(page, new, bytes) ? 0 : -EBADE;
}

/* Wait for a MAP_PRIVATE fault that copies it: truncate only knows the tree. */
static void wait_private_fault(struct page *page)
{
	lock_page(page);
	unlock_page(page);
}

/* The PTEs of the page are revoked.  Does it stay, or when can it go? */
static int retire_page(struct replacement *r, pgoff_t index)
{
	struct page *page = cowmem_tree_lookup(&r->view, index);
	bool held = page && cowmem_page_held(page, 0);
	int err;

	if (held) {
		wait_private_fault(page);
		held = cowmem_page_held(page, 0);
	}
	if (r->how == COWMEM_REPLACE_EQUAL) {
		/* Whoever held it before may have written it since. */
		err = compare_pages(r, page, index);
		if (err)
			return err;
	}
	if (held && page_may_stay(r, index))
		return keep_page(r, index, page);
	r->all_kept = false;
	return 0;
}

static int retire_run(struct replacement *r, pgoff_t index, pgoff_t end)
{
	pgoff_t first = r->view.base - r->buf->tree.base;
	int err = 0;

	cowmem_buffer_revoke(r->buf, first + index, end - index);
	for (; index < end && !err; index++) {
		err = retire_page(r, index);
		cond_resched();
	}
	return err;
}

/* All that differs, in runs as long as possible. */
static int retire(struct replacement *r, pgoff_t last)
{
	pgoff_t index = 0, end;
	int err = 0;

	while (!err) {
		index = cowmem_tree_next_diff(&r->view, r->piece, index, last);
		if (index == ULONG_MAX)
			break;
		if (page_stays_mapped(r, index)) {
			struct page *page = cowmem_tree_lookup(&r->view, index);

			wait_private_fault(page);
			err = keep_page(r, index++, page);
			continue;
		}
		end = index;
		do
			end++;
		while (end <= last && end - index < RUN_PAGES &&
		       !page_stays_mapped(r, end) &&
		       cowmem_tree_next_diff(&r->view, r->piece, end, end) == end);
		err = retire_run(r, index, end);
		index = end;
		if (fatal_signal_pending(current))
			err = err ?: -EINTR;
	}
	return err;
}

/* What comes gets the pages that stay, and the buffer gets what comes. */
static int replace_range(struct replacement *r, pgoff_t first, pgoff_t nr)
{
	struct cowmem_buffer *buf = r->buf;
	struct kept_page *kept;
	int err;

	list_for_each_entry(kept, &r->kept, list) {
		cowmem_page_take(kept->page);
		err = cowmem_tree_put(r->piece, kept->index, kept->page, r->reserve);
		if (err)
			return err;
		cond_resched();
	}
	err = cowmem_reserve_nodes(r->reserve,
				   cowmem_tree_graft_nodes(&buf->tree, r->piece));
	if (err)
		return err;
	spin_lock(&buf->tree_lock);
	err = cowmem_tree_graft(&buf->tree, first, nr, r->piece, r->reserve);
	spin_unlock(&buf->tree_lock);
	WARN_ON_ONCE(err);
	return err;
}

/* Now nothing can fail but the memory itself, and it is too late to go back. */
static int copy_kept(struct replacement *r)
{
	struct kept_page *kept;
	int err = 0;

	if (r->how == COWMEM_REPLACE_EQUAL)
		return 0;
	list_for_each_entry(kept, &r->kept, list) {
		if (!kept->content)
			clear_highpage(kept->page);
		else if (cowmem_page_copy(kept->page, kept->content))
			err = -EHWPOISON;
		cond_resched();
	}
	return err;
}

static void forget_kept(struct replacement *r)
{
	struct kept_page *kept, *next;

	list_for_each_entry_safe(kept, next, &r->kept, list) {
		if (kept->content)
			cowmem_page_drop(kept->content);
		kfree(kept);
		cond_resched();
	}
}

int cowmem_replace(struct cowmem_buffer *buf, pgoff_t first, pgoff_t nr,
		   u64 end, struct cowmem_tree *piece,
		   enum cowmem_replace how, struct cowmem_reserve *reserve)
{
	struct replacement r = {
		.buf = buf,
		.view = { .root = buf->tree.root, .base = buf->tree.base + first },
		.piece = piece,
		.how = how,
		.end = end,
		.reserve = reserve,
		.kept = LIST_HEAD_INIT(r.kept),
		.all_kept = true,
	};
	unsigned int noio = memalloc_noio_save();
	int err;

	reserve->account = buf->account;
	err = retire(&r, nr == ULONG_MAX ? nr : nr - 1);
	/* Even if nothing differs: then both have the same nodes from now on. */
	if (!err && !(r.all_kept && r.nr_kept))
		err = replace_range(&r, first, nr);
	if (!err)
		err = copy_kept(&r);
	/* What was grafted is the buffer's alone, before anybody looks. */
	cowmem_tree_drop(piece);
	forget_kept(&r);
	memalloc_noio_restore(noio);
	return err;
}

/* Check the ranges, now that no size can change. */
static int copy_check(const struct cowmem_copy *copy)
{
	loff_t size = i_size_read(&copy->buf->inode);
	loff_t source_size = i_size_read(&copy->source->inode);
	loff_t apart = abs(copy->offset - copy->source_offset);

	if (!copy->length)
		return 0;
	if (copy->source_offset > source_size ||
	    copy->length > source_size - copy->source_offset)
		return -EINVAL;
	if (!copy->extend &&
	    (copy->offset > size || copy->length > size - copy->offset))
		return -EINVAL;
	if (copy->buf == copy->source && apart < copy->length)
		return -EINVAL;
	/* A part of a page, only if that is the end of both. */
	if (!PAGE_ALIGNED(copy->length) &&
	    (copy->source_offset + copy->length != source_size ||
	     copy->offset + copy->length < size))
		return -EINVAL;
	return 0;
}

static int copy_range(const struct cowmem_copy *copy,
		      struct cowmem_reserve *reserve)
{
	struct cowmem_buffer *buf = copy->buf;
	pgoff_t first = copy->offset >> PAGE_SHIFT;
	pgoff_t nr = copy->length ? DIV_ROUND_UP_ULL(copy->length, PAGE_SIZE) :
		     ULONG_MAX;
	struct cowmem_cut cut = {
		.buf = copy->source,
		.account = buf->account,
		.first = copy->source_offset >> PAGE_SHIFT,
		.nr = nr,
	};
	int err;

	err = cowmem_cut_take(&cut, 1);
	if (!err)
		err = cowmem_tree_align(&cut.tree, &buf->tree, first, reserve);
	if (!err)
		err = cowmem_replace(buf, first, nr,
				     copy->length ?:
				     i_size_read(&copy->source->inode),
				     &cut.tree, copy->how, reserve);
	else
		cowmem_tree_drop(&cut.tree);
	return err;
}

static void copy_set_size(const struct cowmem_copy *copy)
{
	struct inode *inode = &copy->buf->inode;
	loff_t old_size = i_size_read(inode), size = old_size;

	if (!copy->length)
		size = i_size_read(&copy->source->inode);
	else
		size = max(size, copy->offset + copy->length);
	i_size_write(inode, size);
	if (size < old_size)
		cowmem_buffer_unmap_beyond(copy->buf,
					   cowmem_buffer_nr_pages(copy->buf));
}

/* Nothing to do if it goes as a whole. */
static int copy_zero_tail(const struct cowmem_copy *copy,
			  struct cowmem_reserve *reserve)
{
	loff_t size = i_size_read(&copy->buf->inode);

	if (!copy->length || copy->offset < size)
		return 0;
	return cowmem_buffer_zero_tail(copy->buf, size, reserve);
}

int cowmem_copy(const struct cowmem_copy *copy)
{
	struct cowmem_buffer *bufs[] = { copy->buf, copy->source };
	struct cowmem_reserve reserve = { .account = copy->buf->account };
	unsigned int noio = memalloc_noio_save();
	int err;

	err = cowmem_buffers_lock(bufs, ARRAY_SIZE(bufs));
	if (err)
		goto out;
	err = copy_check(copy);
	if (!err && !(copy->buf == copy->source && !copy->length)) {
		err = copy_zero_tail(copy, &reserve);
		if (!err)
			err = copy_range(copy, &reserve);
		if (!err || err == -EHWPOISON)
			copy_set_size(copy);
		if (err == -EHWPOISON)
			err = -EIO;
	}
	cowmem_buffers_unlock(bufs, ARRAY_SIZE(bufs));
	cowmem_reserve_release(&reserve);
out:
	memalloc_noio_restore(noio);
	return err;
}
