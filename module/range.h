/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What fallocate() does to a range of a buffer.
 */
#ifndef _COWMEM_RANGE_H
#define _COWMEM_RANGE_H

#include <linux/types.h>

struct cowmem_buffer;

/**
 * cowmem_range_fill() - put a page of zeroes into each hole
 * @buf: the buffer, with the inode lock held
 * @offset: first byte
 * @length: in bytes; beyond the end the size grows, unless @keep_size
 * @keep_size: leave the size alone
 *
 * Context: may sleep.
 * Return: 0, -ENOMEM, -ENOSPC, -EIO or -EINTR; then nothing has changed.
 */
int cowmem_range_fill(struct cowmem_buffer *buf, loff_t offset, loff_t length,
		      bool keep_size);

/**
 * cowmem_range_unshare() - the same, and copy pages that others share
 * @buf: the buffer, with the inode lock held
 * @offset: first byte
 * @length: in bytes
 * @keep_size: leave the size alone
 *
 * Context: may sleep.
 * Return: as above; then no content and no size has changed.
 */
int cowmem_range_unshare(struct cowmem_buffer *buf, loff_t offset,
			 loff_t length, bool keep_size);

/**
 * cowmem_range_punch() - make a hole; zero what does not fill a page
 * @buf: the buffer, with the inode lock held
 * @offset: first byte
 * @length: in bytes
 *
 * Context: may sleep.
 * Return: 0, -ENOMEM, -ENOSPC, -EIO or -EINTR; then nothing has changed.
 */
int cowmem_range_punch(struct cowmem_buffer *buf, loff_t offset, loff_t length);

/**
 * cowmem_range_zero() - replace by pages of zeroes
 * @buf: the buffer, with the inode lock held
 * @offset: first byte
 * @length: in bytes; beyond the end the size grows, unless @keep_size
 * @keep_size: leave the size alone
 *
 * Context: may sleep.
 * Return: 0, -ENOMEM, -ENOSPC, -EIO or -EINTR; then nothing has changed.
 */
int cowmem_range_zero(struct cowmem_buffer *buf, loff_t offset, loff_t length,
		      bool keep_size);

#endif
