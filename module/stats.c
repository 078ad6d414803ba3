// SPDX-License-Identifier: GPL-2.0
/*
 * What a buffer tells about itself: see stats.h.
 */
#include <linux/sched.h>
#include <linux/seq_file.h>

#include "buffer.h"
#include "stats.h"

static u32 buffer_state(struct cowmem_buffer *buf)
{
	return (buf->frozen ? COWMEM_STATE_FROZEN : 0) |
	       (buf->pinnable ? COWMEM_STATE_PINNABLE : 0);
}

/* A leaf at a time: writers go on. */
static void fill_sharing(struct cowmem_buffer *buf, struct cowmem_stat *stat)
{
	struct cowmem_sharing sum = { };
	pgoff_t index = 0;

	while (index != ULONG_MAX) {
		spin_lock(&buf->tree_lock);
		index = cowmem_tree_sharing(&buf->tree, index, &sum);
		spin_unlock(&buf->tree_lock);
		cond_resched();
	}
	stat->exclusive = sum.exclusive << PAGE_SHIFT;
	stat->proportional = sum.proportional;
	stat->index = sum.nodes * sizeof(struct cowmem_node);
}

void cowmem_stats_fill(struct cowmem_buffer *buf, struct cowmem_stat *stat)
{
	u32 size = stat->size, flags = stat->flags;

	*stat = (struct cowmem_stat) {
		.size		= size,
		.flags		= flags,
		.id		= buf->id,
		.account	= buf->account->id,
		.state		= buffer_state(buf),
		.length		= i_size_read(&buf->inode),
		.resident	= (u64)cowmem_buffer_resident(buf) << PAGE_SHIFT,
		.limit		= READ_ONCE(buf->account->limit),
		.charged	= (u64)cowmem_account_pages(buf->account) << PAGE_SHIFT,
		.faults		= atomic_long_read(&buf->faults),
		.filled		= atomic_long_read(&buf->filled),
		.copied		= atomic_long_read(&buf->copied),
		.reused		= atomic_long_read(&buf->reused),
		.held		= atomic_long_read(&buf->held),
		.snapshots	= atomic_long_read(&buf->snapshots),
	};
	strscpy(stat->name, buf->name, sizeof(stat->name));
	if (flags & COWMEM_SHARING)
		fill_sharing(buf, stat);
}

void cowmem_stats_show(struct seq_file *m, struct file *file)
{
	struct cowmem_stat stat = { };

	cowmem_stats_fill(cowmem_file_buffer(file), &stat);
	seq_printf(m, "cowmem-id:\t%llu\n", stat.id);
	seq_printf(m, "cowmem-account:\t%llu\n", stat.account);
	seq_printf(m, "cowmem-state:\t%s%s\n",
		   stat.state & COWMEM_STATE_FROZEN ? "frozen" : "live",
		   stat.state & COWMEM_STATE_PINNABLE ? " pinnable" : "");
	seq_printf(m, "cowmem-size:\t%llu\n", stat.length);
	seq_printf(m, "cowmem-resident:\t%llu\n", stat.resident);
	if (stat.limit != COWMEM_NO_LIMIT)
		seq_printf(m, "cowmem-limit:\t%llu\n", stat.limit);
	seq_printf(m, "cowmem-charged:\t%llu\n", stat.charged);
	seq_printf(m, "cowmem-faults:\t%llu\n", stat.faults);
	seq_printf(m, "cowmem-filled:\t%llu\n", stat.filled);
	seq_printf(m, "cowmem-copied:\t%llu\n", stat.copied);
	seq_printf(m, "cowmem-reused:\t%llu\n", stat.reused);
	seq_printf(m, "cowmem-held:\t%llu\n", stat.held);
	seq_printf(m, "cowmem-snapshots:\t%llu\n", stat.snapshots);
	seq_puts(m, "cowmem-name:\t");
	seq_escape(m, stat.name, "\n\\");
	seq_putc(m, '\n');
}
