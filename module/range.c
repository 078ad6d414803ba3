// SPDX-License-Identifier: GPL-2.0
/*
 * What fallocate() does to a range of a buffer: see range.h.
 *
 * The inode lock keeps holes from appearing meanwhile.  Pages are allocated
 * before the snap lock is taken; under it a piece is prepared that has them, and
 * then replaces the range.
 */
#include <linux/err.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>

#include "buffer.h"
#include "page.h"
#include "range.h"
#include "replace.h"

/* A range, in bytes and in pages. */
struct span {
	loff_t start, end;
	pgoff_t first, nr;		/* pages that have a byte of it */
	pgoff_t whole_first, whole_nr;	/* pages that lie in it */
};

static struct span span_of(loff_t offset, loff_t length)
{
	struct span range = {
		.start = offset,
		.end = offset + length,
		.first = offset >> PAGE_SHIFT,
		.whole_first = DIV_ROUND_UP_ULL(offset, PAGE_SIZE),
	};
	pgoff_t last = range.end >> PAGE_SHIFT;

	if (length)
		range.nr = DIV_ROUND_UP_ULL(range.end, PAGE_SIZE) - range.first;
	range.whole_nr = last > range.whole_first ? last - range.whole_first : 0;
	return range;
}

/* Where the next fresh page goes: a hole or, with @whole, a page in the range. */
static pgoff_t next_fresh(struct cowmem_buffer *buf, const struct span *range,
			  bool whole, pgoff_t index)
{
	pgoff_t hole;

	for (;; index++) {
		if (whole &&
		    range->first + index - range->whole_first < range->whole_nr)
			return index;
		spin_lock(&buf->tree_lock);
		hole = cowmem_tree_next_hole(&buf->tree, range->first + index);
		spin_unlock(&buf->tree_lock);
		hole -= range->first;
		if (!whole || hole == index || index >= range->nr)
			return hole;
	}
}

/* Put fresh pages into a tree: in place of holes, and of @whole pages. */
static int piece_fill(struct cowmem_buffer *buf, const struct span *range,
		      bool whole, struct cowmem_tree *piece,
		      struct cowmem_reserve *reserve)
{
	pgoff_t index = 0;
	int err;

	piece->base = buf->tree.base + range->first;
	for (;; index++) {
		struct page *page;

		index = next_fresh(buf, range, whole, index);
		if (index >= range->nr)
			return 0;
		if (fatal_signal_pending(current))
			return -EINTR;
		page = cowmem_page_alloc(buf->account, GFP_KERNEL | __GFP_ZERO);
		if (IS_ERR(page))
			return PTR_ERR(page);
		err = cowmem_tree_put(piece, index, page, reserve);
		if (err)
			return err;
		cond_resched();
	}
}

/* Let @piece have what @buf has at @index, if that is not a hole. */
static int piece_leave(struct cowmem_buffer *buf, pgoff_t index,
		       const struct span *range, struct cowmem_tree *piece,
		       struct cowmem_reserve *reserve)
{
	struct page *page = cowmem_tree_lookup(&buf->tree, index);

	if (!page)
		return 0;
	cowmem_page_take(page);
	return cowmem_tree_put(piece, index - range->first, page, reserve);
}

static void extend_size(struct cowmem_buffer *buf, loff_t end)
{
	if (end > i_size_read(&buf->inode))
		i_size_write(&buf->inode, end);
}

/* Add what is in @fresh to all that @buf has in the range. */
static int fill_holes(struct cowmem_buffer *buf, const struct span *range,
		      struct cowmem_tree *fresh, struct cowmem_reserve *reserve)
{
	struct cowmem_tree piece = { };
	pgoff_t index = 0;
	int err = 0;

	while (cowmem_tree_extract(&buf->tree, range->first, range->nr, &piece,
				   reserve) == -EAGAIN && !err)
		err = cowmem_reserve_fill(reserve);
	for (; !err; index++) {
		struct page *page;

		index = cowmem_tree_next_page(fresh, index);
		if (index == ULONG_MAX)
			break;
		/* A fault was first. */
		if (cowmem_tree_lookup(&piece, index))
			continue;
		page = cowmem_tree_lookup(fresh, index);
		cowmem_page_take(page);
		err = cowmem_tree_put(&piece, index, page, reserve);
		if (fatal_signal_pending(current))
			err = err ?: -EINTR;
		cond_resched();
	}
	if (!err)
		return cowmem_replace(buf, range->first, range->nr, 0, &piece,
				      COWMEM_REPLACE, reserve);
	cowmem_tree_drop(&piece);
	return err;
}

static pgoff_t next_page(struct cowmem_buffer *buf, pgoff_t index)
{
	spin_lock(&buf->tree_lock);
	index = cowmem_tree_next_page(&buf->tree, index);
	spin_unlock(&buf->tree_lock);
	return index;
}

static bool is_exclusive(struct cowmem_buffer *buf, pgoff_t index)
{
	bool exclusive;

	spin_lock(&buf->tree_lock);
	exclusive = cowmem_tree_is_exclusive(&buf->tree, index);
	spin_unlock(&buf->tree_lock);
	return exclusive;
}

/* Let every page of the range be the buffer's alone. */
static int unshare_pages(struct cowmem_buffer *buf, const struct span *range)
{
	struct cowmem_reserve reserve = { .account = buf->account };
	unsigned long nr_shared = 0;
	struct page *page;
	pgoff_t index;
	int err;

	for (index = range->first;
	     (index = next_page(buf, index)) - range->first < range->nr; index++) {
		nr_shared += !is_exclusive(buf, index);
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	/* All of them before the first is used. */
	err = cowmem_reserve_pages(&reserve, nr_shared);
	for (index = range->first;
	     !err && (index = next_page(buf, index)) - range->first < range->nr;
	     index++) {
		err = cowmem_buffer_own(buf, index, NULL, false, &reserve, &page);
		if (!err)
			cowmem_buffer_unlock(buf, index);
		cond_resched();
	}
	cowmem_reserve_release(&reserve);
	return err;
}

/* Count holes that got a page. */
static void count_filled(struct cowmem_buffer *buf, unsigned long nr_before)
{
	atomic_long_add(cowmem_tree_pages(&buf->tree) - nr_before, &buf->filled);
}

static int fill(struct cowmem_buffer *buf, const struct span *range,
		bool keep_size, struct cowmem_tree *fresh,
		struct cowmem_reserve *reserve)
{
	unsigned long nr_before = cowmem_tree_pages(&buf->tree);
	int err = 0;

	if (!keep_size && range->end > i_size_read(&buf->inode))
		err = cowmem_buffer_zero_tail(buf, i_size_read(&buf->inode),
					      reserve);
	if (!err)
		err = fill_holes(buf, range, fresh, reserve);
	if (!err)
		count_filled(buf, nr_before);
	if (!err && !keep_size)
		extend_size(buf, range->end);
	/* While they are shared with what is left, nobody looks. */
	cowmem_reserve_release(reserve);
	cowmem_tree_drop(fresh);
	return err;
}

static int range_fill(struct cowmem_buffer *buf, const struct span *range,
		      bool keep_size, bool unshare)
{
	struct cowmem_reserve reserve = { .account = buf->account };
	unsigned int noio = memalloc_noio_save();
	struct cowmem_tree fresh = { };
	int err;

	err = piece_fill(buf, range, false, &fresh, &reserve);
	if (!err && unshare)
		err = unshare_pages(buf, range);
	if (!err && down_write_killable(&buf->snap))
		err = -EINTR;
	if (!err) {
		err = fill(buf, range, keep_size, &fresh, &reserve);
		up_write(&buf->snap);
	}
	cowmem_tree_drop(&fresh);
	cowmem_reserve_release(&reserve);
	memalloc_noio_restore(noio);
	return err;
}

int cowmem_range_fill(struct cowmem_buffer *buf, loff_t offset, loff_t length,
		      bool keep_size)
{
	struct span range = span_of(offset, length);

	return range_fill(buf, &range, keep_size, false);
}

int cowmem_range_unshare(struct cowmem_buffer *buf, loff_t offset,
			 loff_t length, bool keep_size)
{
	struct span range = span_of(offset, length);

	return range_fill(buf, &range, keep_size, true);
}

/* Bytes of the range that do not fill a page: at its start, and at its end. */
static struct span head_of(const struct span *range)
{
	loff_t end = min_t(loff_t, range->end, PAGE_ALIGN(range->start));

	return span_of(range->start, end - range->start);
}

static struct span tail_of(const struct span *range)
{
	loff_t start = max_t(loff_t, head_of(range).end, range->end & PAGE_MASK);

	return span_of(start, range->end - start);
}

static bool edge_is_shared(struct cowmem_buffer *buf, const struct span *edge)
{
	return edge->nr && cowmem_tree_lookup(&buf->tree, edge->first) &&
	       !cowmem_tree_is_exclusive(&buf->tree, edge->first);
}

/* Have the page of an edge ready to be zeroed, with a page that is there. */
static int prepare_edge(struct cowmem_buffer *buf, struct span edge,
			struct cowmem_reserve *reserve)
{
	return edge.nr ? cowmem_buffer_zero(buf, edge.start, edge.start, reserve) :
	       0;
}

/* Have both ready, or none. */
static int prepare_edges(struct cowmem_buffer *buf, const struct span *range,
			 struct cowmem_reserve *reserve)
{
	struct span head = head_of(range), tail = tail_of(range);
	int err;

	err = cowmem_reserve_pages(reserve, edge_is_shared(buf, &head) +
				   edge_is_shared(buf, &tail));
	if (!err)
		err = prepare_edge(buf, head, reserve);
	return err ?: prepare_edge(buf, tail, reserve);
}

/* They are granted now, so that nothing can fail. */
static int zero_edges(struct cowmem_buffer *buf, const struct span *range,
		      struct cowmem_reserve *reserve)
{
	struct span head = head_of(range), tail = tail_of(range);
	int err = 0;

	if (head.nr)
		err = cowmem_buffer_zero(buf, head.start, head.end, reserve);
	if (!err && tail.nr)
		err = cowmem_buffer_zero(buf, tail.start, tail.end, reserve);
	return err;
}

static int punch(struct cowmem_buffer *buf, const struct span *range,
		 struct cowmem_reserve *reserve)
{
	struct cowmem_tree piece = { .base = buf->tree.base + range->whole_first };
	int err;

	err = prepare_edges(buf, range, reserve);
	if (!err && range->whole_nr)
		err = cowmem_replace(buf, range->whole_first, range->whole_nr, 0,
				     &piece, COWMEM_REPLACE, reserve);
	return err ?: zero_edges(buf, range, reserve);
}

int cowmem_range_punch(struct cowmem_buffer *buf, loff_t offset, loff_t length)
{
	struct cowmem_reserve reserve = { .account = buf->account };
	struct span range = span_of(offset, length);
	unsigned int noio = memalloc_noio_save();
	int err = -EINTR;

	if (!down_write_killable(&buf->snap)) {
		err = punch(buf, &range, &reserve);
		up_write(&buf->snap);
	}
	cowmem_reserve_release(&reserve);
	memalloc_noio_restore(noio);
	return err;
}

/* Replace by @piece, but for pages that have other bytes as well. */
static int zero(struct cowmem_buffer *buf, const struct span *range,
		struct cowmem_tree *piece, struct cowmem_reserve *reserve)
{
	unsigned long nr_before = cowmem_tree_pages(&buf->tree);
	pgoff_t last = range->first + range->nr - 1;
	int err;

	err = prepare_edges(buf, range, reserve);
	if (!err && range->first < range->whole_first)
		err = piece_leave(buf, range->first, range, piece, reserve);
	if (!err && !PAGE_ALIGNED(range->end))
		err = piece_leave(buf, last, range, piece, reserve);
	if (!err)
		err = cowmem_replace(buf, range->first, range->nr, U64_MAX,
				     piece, COWMEM_REPLACE, reserve);
	if (!err)
		count_filled(buf, nr_before);
	if (!err)
		err = zero_edges(buf, range, reserve);
	/* A new page of zeroes that cannot be read. */
	return err == -EHWPOISON ? -EIO : err;
}

int cowmem_range_zero(struct cowmem_buffer *buf, loff_t offset, loff_t length,
		      bool keep_size)
{
	struct cowmem_reserve reserve = { .account = buf->account };
	struct span range = span_of(offset, length);
	unsigned int noio = memalloc_noio_save();
	struct cowmem_tree piece = { };
	int err;

	err = piece_fill(buf, &range, true, &piece, &reserve);
	if (!err && down_write_killable(&buf->snap))
		err = -EINTR;
	if (err)
		goto out;
	if (!keep_size && range.end > i_size_read(&buf->inode))
		err = cowmem_buffer_zero_tail(buf, i_size_read(&buf->inode),
					      &reserve);
	if (!err)
		err = zero(buf, &range, &piece, &reserve);
	if (!err && !keep_size)
		extend_size(buf, range.end);
	up_write(&buf->snap);
out:
	cowmem_tree_drop(&piece);
	cowmem_reserve_release(&reserve);
	memalloc_noio_restore(noio);
	return err;
}
