/* SPDX-License-Identifier: GPL-2.0 */
/*
 * FICLONE, FICLONERANGE, FIDEDUPERANGE and copy_file_range().
 */
#ifndef _COWMEM_REMAP_H
#define _COWMEM_REMAP_H

#include <linux/types.h>

struct file;

loff_t cowmem_remap_file_range(struct file *in, loff_t pos_in,
			       struct file *out, loff_t pos_out, loff_t length,
			       unsigned int flags);
ssize_t cowmem_copy_file_range(struct file *in, loff_t pos_in,
			       struct file *out, loff_t pos_out, size_t length,
			       unsigned int flags);

#endif
