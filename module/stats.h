/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a buffer tells about itself.
 */
#ifndef _COWMEM_STATS_H
#define _COWMEM_STATS_H

#include <linux/cowmem.h>

struct cowmem_buffer;
struct file;
struct seq_file;

/**
 * cowmem_stats_fill() - fill in a struct cowmem_stat
 * @buf: the buffer
 * @stat: all but @size and @flags is written
 *
 * Context: may sleep.
 */
void cowmem_stats_fill(struct cowmem_buffer *buf, struct cowmem_stat *stat);

/**
 * cowmem_stats_show() - the same as text, for /proc/PID/fdinfo/N
 * @m: where to print
 * @file: a handle
 *
 * Context: may sleep.
 */
void cowmem_stats_show(struct seq_file *m, struct file *file);

#endif
