/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What read(), write(), ftruncate() and their kin do, on both kinds of handle.
 */
#ifndef _COWMEM_FILE_H
#define _COWMEM_FILE_H

#include <linux/fs.h>

extern const struct inode_operations cowmem_file_inode_ops;
extern const struct file_operations cowmem_file_ops;
extern const struct address_space_operations cowmem_file_aops;

ssize_t cowmem_file_read_iter(struct kiocb *iocb, struct iov_iter *to);
ssize_t cowmem_file_write_iter(struct kiocb *iocb, struct iov_iter *from);
loff_t cowmem_file_llseek(struct file *file, loff_t offset, int whence);
int cowmem_file_fsync(struct file *file, loff_t start, loff_t end, int datasync);

#endif
