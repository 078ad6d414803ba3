// SPDX-License-Identifier: GPL-2.0
/*
 * Comparing buffers: see diff.h.
 *
 * With the snap locks of both exclusive, no page changes its owner.  Nothing has
 * to be revoked for that: a page that can be written has one owner, and so is a
 * difference already.
 */
#include <linux/kernel.h>
#include <linux/sched/signal.h>

#include "buffer.h"
#include "diff.h"

/* Differences that one call lists at most: writers wait meanwhile. */
#define CALL_PAGES	(1UL << 18)

/* The run that begins with a difference at @index. */
static pgoff_t fill_extent(struct cowmem_buffer *buf,
			   struct cowmem_buffer *other, pgoff_t index,
			   pgoff_t last, struct cowmem_extent *extent)
{
	bool data = cowmem_tree_lookup(&buf->tree, index);
	pgoff_t end = index + 1;

	while (end <= last && end - index < CALL_PAGES &&
	       cowmem_tree_next_diff(&buf->tree, &other->tree, end, end) == end &&
	       data == !!cowmem_tree_lookup(&buf->tree, end)) {
		end++;
		cond_resched();
	}
	*extent = (struct cowmem_extent) {
		.offset	= (u64)index << PAGE_SHIFT,
		.length	= (u64)(end - index) << PAGE_SHIFT,
		.flags	= data ? COWMEM_EXTENT_DATA : COWMEM_EXTENT_HOLE,
	};
	return end;
}

static int fill_extents(struct cowmem_buffer *buf, struct cowmem_buffer *other,
			u64 *cursor, struct cowmem_extent *extents,
			unsigned int nr)
{
	pgoff_t index = *cursor >> PAGE_SHIFT, end;
	unsigned long nr_pages = 0;
	unsigned int i = 0;

	end = max(cowmem_buffer_nr_pages(buf), cowmem_buffer_nr_pages(other));
	*cursor = COWMEM_DIFF_END;
	while (index < end) {
		index = cowmem_tree_next_diff(&buf->tree, &other->tree, index,
					      end - 1);
		if (index == ULONG_MAX)
			break;
		if (i == nr || nr_pages >= CALL_PAGES) {
			*cursor = (u64)index << PAGE_SHIFT;
			break;
		}
		if (fatal_signal_pending(current))
			return -EINTR;
		index = fill_extent(buf, other, index, end - 1, &extents[i]);
		nr_pages += extents[i++].length >> PAGE_SHIFT;
	}
	return i;
}

int cowmem_diff(struct cowmem_buffer *buf, struct cowmem_buffer *other,
		u64 *cursor, struct cowmem_extent *extents, unsigned int nr)
{
	struct cowmem_buffer *bufs[] = { buf, other };
	int ret;

	ret = cowmem_buffers_lock(bufs, ARRAY_SIZE(bufs));
	if (ret)
		return ret;
	ret = fill_extents(buf, other, cursor, extents, nr);
	cowmem_buffers_unlock(bufs, ARRAY_SIZE(bufs));
	return ret;
}
