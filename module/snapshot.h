/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Snapshots: the third mechanism, making a buffer shareable, and its user.
 */
#ifndef _COWMEM_SNAPSHOT_H
#define _COWMEM_SNAPSHOT_H

struct cowmem_buffer;

/**
 * cowmem_snapshot_take() - let a new buffer share everything of another
 * @buf: the origin
 * @snapshot: a new buffer that nobody else knows yet
 *
 * Gets content and size of @buf as of one moment.
 *
 * Context: may sleep.
 * Return: 0, -EINTR, -ENOMEM or -EIO; then @buf has its content and @snapshot
 * is empty.
 */
int cowmem_snapshot_take(struct cowmem_buffer *buf,
			 struct cowmem_buffer *snapshot);

#endif
