/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Replacing what a buffer has in a range, at one moment, under its mappings:
 * restore, clone, dedupe and what fallocate() does.
 */
#ifndef _COWMEM_REPLACE_H
#define _COWMEM_REPLACE_H

#include <linux/types.h>

struct cowmem_buffer;
struct cowmem_reserve;
struct cowmem_tree;

/* What becomes of pages of the buffer that would be replaced. */
enum cowmem_replace {
	/* Those that are pinned for writing stay and get the content. */
	COWMEM_REPLACE,
	/* Those that may be written stay, mapped, and get the content. */
	COWMEM_REPLACE_IN_PLACE,
	/* The same, if all are equal to what comes. */
	COWMEM_REPLACE_EQUAL,
};

/**
 * cowmem_replace() - let a buffer have in a range what a tree has
 * @buf: the buffer, with snap exclusive
 * @first: start of the range in pages
 * @nr: its length in pages, ULONG_MAX: to the end
 * @end: bytes of the range that count: pages beyond them go in any case, and
 *	are not compared
 * @piece: the tree, aligned, its index 0 going to @first; empty afterwards
 * @how: see above
 * @reserve: released by the caller when snap is released: it has what was there
 *
 * Context: may sleep.
 * Return: 0, -ENOMEM, -EINTR, -EIO or (COWMEM_REPLACE_EQUAL) -EBADE; then nothing
 * has changed; or -EHWPOISON: all is done, but for a page that stays and could
 * not be filled because the memory to copy from failed just then.
 */
int cowmem_replace(struct cowmem_buffer *buf, pgoff_t first, pgoff_t nr,
		   u64 end, struct cowmem_tree *piece,
		   enum cowmem_replace how, struct cowmem_reserve *reserve);

/**
 * struct cowmem_copy - content to take from another place
 * @buf: the buffer to change, with the inode lock held
 * @source: the buffer to take from, perhaps the same
 * @offset: start of the range in @buf in bytes, a multiple of the page size
 * @source_offset: start of the range in @source, likewise
 * @length: bytes; 0: the whole of both, and the size too
 * @extend: grow @buf if the range goes beyond its end
 * @how: see above
 */
struct cowmem_copy {
	struct cowmem_buffer *buf;
	struct cowmem_buffer *source;
	loff_t offset;
	loff_t source_offset;
	loff_t length;
	bool extend;
	enum cowmem_replace how;
};

/**
 * cowmem_copy() - let a range share all that another has
 * @copy: from where to where
 *
 * In time that grows with what differs, if both have a range of an ancestor of
 * both at the same place, else with what is in the range.
 *
 * Context: may sleep.
 * Return: 0, -EINVAL (beyond the end of @source, or of @buf without @extend),
 * -EINTR, -ENOMEM, -ENOSPC, -EIO or -EBADE; then no content has changed (but
 * see -EHWPOISON above, which is -EIO here).
 */
int cowmem_copy(const struct cowmem_copy *copy);

#endif
