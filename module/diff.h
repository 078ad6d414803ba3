/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Comparing buffers by the pages that they own.
 */
#ifndef _COWMEM_DIFF_H
#define _COWMEM_DIFF_H

#include <linux/types.h>

struct cowmem_buffer;
struct cowmem_extent;

/**
 * cowmem_diff() - list where two buffers do not share pages
 * @buf: a buffer
 * @other: a buffer
 * @cursor: in: where to start in bytes; out: where to go on, or COWMEM_DIFF_END
 * @extents: out: what @buf has where the two differ
 * @nr: how many fit
 *
 * Context: may sleep.
 * Return: the number of extents, or -EINTR.
 */
int cowmem_diff(struct cowmem_buffer *buf, struct cowmem_buffer *other,
		u64 *cursor, struct cowmem_extent *extents, unsigned int nr);

#endif
