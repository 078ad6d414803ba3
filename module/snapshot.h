/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Snapshots: the third mechanism, making buffers shareable, and its first user.
 */
#ifndef _COWMEM_SNAPSHOT_H
#define _COWMEM_SNAPSHOT_H

#include <linux/list.h>

#include "tree.h"

struct cowmem_buffer;

/**
 * struct cowmem_cut - a range of a buffer that is made shareable
 * @buf: the buffer
 * @account: what copies of pinned pages count for: that of who gets them
 * @first: start of the range in pages
 * @nr: length of the range in pages, ULONG_MAX: to the end
 * @tree: out: all that the buffer has there, its index 0 being @first
 * @nr_revoked: out: pages whose PTEs were revoked
 * @pinned: pages that had to be copied
 */
struct cowmem_cut {
	struct cowmem_buffer *buf;
	struct cowmem_account *account;
	pgoff_t first;
	pgoff_t nr;
	struct cowmem_tree tree;
	unsigned long nr_revoked;
	struct list_head pinned;
};

/**
 * cowmem_cut_take() - make ranges of several buffers shareable, at one moment
 * @cuts: the ranges, of different buffers, with snap exclusive of each
 * @nr: how many
 *
 * Context: may sleep.
 * Return: 0, -EINTR, -ENOMEM, -ENOSPC or -EIO; then all @tree are empty.
 */
int cowmem_cut_take(struct cowmem_cut *cuts, unsigned int nr);

/**
 * struct cowmem_shot - one snapshot to take
 * @buf: the origin
 * @snapshot: a new buffer that nobody else knows yet
 * @offset: start of the range in bytes, a multiple of the page size
 * @length: length of the range in bytes; 0: to the end
 */
struct cowmem_shot {
	struct cowmem_buffer *buf;
	struct cowmem_buffer *snapshot;
	loff_t offset;
	loff_t length;
};

/**
 * cowmem_snapshot_take() - let new buffers share ranges of others
 * @shots: the snapshots, of different buffers
 * @nr: how many
 *
 * They get content and size as of one moment.
 *
 * Context: may sleep.
 * Return: 0, -EINVAL (range not aligned, beyond the end or empty), -EINTR,
 * -ENOMEM, -ENOSPC or -EIO; then all buffers have their content and all
 * snapshots are empty.
 */
int cowmem_snapshot_take(const struct cowmem_shot *shots, unsigned int nr);

#endif
