/* SPDX-License-Identifier: GPL-2.0 */
/*
 * /dev/cowmem and the ioctls of both kinds of handle.
 */
#ifndef _COWMEM_DEVICE_H
#define _COWMEM_DEVICE_H

struct file;
struct file_operations;

extern const struct file_operations cowmem_device_ops;

long cowmem_device_ioctl(struct file *file, unsigned int cmd, unsigned long arg);

int cowmem_device_init(void);
void cowmem_device_exit(void);

#endif
