// SPDX-License-Identifier: GPL-2.0
/*
 * Loading and unloading.
 */
#include <linux/module.h>

#include "account.h"
#include "device.h"
#include "fs.h"
#include "page.h"
#include "tree.h"

static int get_pages(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%lu\n", cowmem_pages());
}

static int get_nodes(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%lu\n", cowmem_nodes());
}

static const struct kernel_param_ops pages_ops = { .get = get_pages };
static const struct kernel_param_ops nodes_ops = { .get = get_nodes };

module_param_cb(pages, &pages_ops, NULL, 0444);
MODULE_PARM_DESC(pages, "Pages that all buffers hold, each counted once (read-only)");
module_param_cb(nodes, &nodes_ops, NULL, 0444);
MODULE_PARM_DESC(nodes, "Index nodes that all buffers hold (read-only)");

module_param_named(max_pages, cowmem_max_pages, ulong, 0644);
MODULE_PARM_DESC(max_pages, "Most pages that all buffers together may hold (0: no limit)");

static int __init cowmem_init(void)
{
	int err;

	err = cowmem_page_init();
	if (err)
		return err;
	err = cowmem_tree_init();
	if (err)
		goto exit_page;
	err = cowmem_fs_init();
	if (err)
		goto exit_tree;
	err = cowmem_device_init();
	if (err)
		goto exit_fs;
	return 0;

exit_fs:
	cowmem_fs_exit();
exit_tree:
	cowmem_tree_exit();
exit_page:
	cowmem_page_exit();
	return err;
}

static void __exit cowmem_exit(void)
{
	cowmem_device_exit();
	cowmem_fs_exit();
	cowmem_tree_exit();
	cowmem_page_exit();
}

module_init(cowmem_init);
module_exit(cowmem_exit);

MODULE_DESCRIPTION("Memory buffers with constant-time copy-on-write snapshots");
MODULE_LICENSE("GPL");
MODULE_VERSION(COWMEM_VERSION);
