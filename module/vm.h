/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Mappings of a buffer: mmap() and page faults.
 */
#ifndef _COWMEM_VM_H
#define _COWMEM_VM_H

struct file;
struct vm_area_struct;

/**
 * cowmem_vm_mmap() - map a buffer, shared or private
 * @file: a handle
 * @vma: where
 *
 * Context: mmap_lock held for writing.
 * Return: 0 or -EPERM (PROT_EXEC).
 */
int cowmem_vm_mmap(struct file *file, struct vm_area_struct *vma);

/**
 * cowmem_vm_mmap_device() - the same, and gives an unsized buffer its size
 * @file: a handle of the device
 * @vma: where
 *
 * Context: mmap_lock held for writing.
 * Return: 0, -EPERM (PROT_EXEC), -EOVERFLOW or -EINTR.
 */
int cowmem_vm_mmap_device(struct file *file, struct vm_area_struct *vma);

#endif
