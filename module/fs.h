/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The internal file system: where buffers live as inodes, and files of them
 * come from.  Nobody can mount it.
 */
#ifndef _COWMEM_FS_H
#define _COWMEM_FS_H

#include "buffer.h"

struct vfsmount;

/**
 * cowmem_fs_pin() - keep the file system in existence
 *
 * Context: may sleep.
 * Return: a mount of it, until cowmem_fs_unpin(), or an ERR_PTR.
 */
struct vfsmount *cowmem_fs_pin(void);

/**
 * cowmem_fs_unpin() - undo cowmem_fs_pin()
 *
 * Context: may sleep; no reference to a buffer may depend on it any more.
 */
void cowmem_fs_unpin(void);

/**
 * cowmem_fs_mount() - find the mount that a handle pins
 * @handle: of the device, or a file
 *
 * Context: any.
 * Return: the mount, as long as @handle is open.
 */
struct vfsmount *cowmem_fs_mount(struct file *handle);

/**
 * cowmem_fs_buffer_of() - find the buffer of any file
 * @file: the file
 *
 * Context: any.
 * Return: the buffer, as long as @file is open, or NULL if it is not a handle.
 */
struct cowmem_buffer *cowmem_fs_buffer_of(struct file *file);

/**
 * cowmem_fs_buffer() - make an empty buffer
 * @mnt: a mount that stays pinned as long as the reference
 * @origin: the buffer whose account it shares, or NULL for one of its own
 *
 * It belongs to the fsuid of current.
 *
 * Context: may sleep.
 * Return: the buffer, with one reference, to be dropped with iput() of its
 * inode, or an ERR_PTR.
 */
struct cowmem_buffer *cowmem_fs_buffer(struct vfsmount *mnt,
				       struct cowmem_buffer *origin);

/**
 * cowmem_fs_file() - make a file of a buffer
 * @mnt: a mount
 * @buf: the buffer; the file gets references of its own to both
 * @flags: O_RDONLY or O_RDWR
 *
 * Context: may sleep.
 * Return: the file, or an ERR_PTR.
 */
struct file *cowmem_fs_file(struct vfsmount *mnt, struct cowmem_buffer *buf,
			    int flags);

int cowmem_fs_init(void);
void cowmem_fs_exit(void);

#endif
