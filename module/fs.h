/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The internal file system: where buffers live as inodes, and files of them
 * come from.  Nobody can mount it.
 */
#ifndef _COWMEM_FS_H
#define _COWMEM_FS_H

#include "buffer.h"

/**
 * cowmem_fs_buffer() - make an empty buffer
 *
 * It belongs to the fsuid of current.
 *
 * Context: may sleep.
 * Return: the buffer, with one reference that cowmem_fs_put() drops, or an
 * ERR_PTR.
 */
struct cowmem_buffer *cowmem_fs_buffer(void);

/**
 * cowmem_fs_put() - drop a reference to a buffer
 * @buf: the buffer
 *
 * The last one, of all files and this, frees it.
 *
 * Context: may sleep.
 */
void cowmem_fs_put(struct cowmem_buffer *buf);

/**
 * cowmem_fs_file() - make a file of a buffer
 * @buf: the buffer; the file gets a reference of its own
 * @flags: O_RDONLY or O_RDWR
 *
 * Context: may sleep.
 * Return: the file, or an ERR_PTR.
 */
struct file *cowmem_fs_file(struct cowmem_buffer *buf, int flags);

int cowmem_fs_init(void);
void cowmem_fs_exit(void);

#endif
