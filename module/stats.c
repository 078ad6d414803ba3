// SPDX-License-Identifier: GPL-2.0
/*
 * What a buffer tells about itself: see stats.h.
 */
#include <linux/seq_file.h>

#include "buffer.h"
#include "stats.h"

void cowmem_stats_fill(struct cowmem_buffer *buf, struct cowmem_stat *stat)
{
	u32 size = stat->size, flags = stat->flags;

	*stat = (struct cowmem_stat) {
		.size		= size,
		.flags		= flags,
		.id		= buf->id,
		.account	= buf->account,
		.state		= buf->frozen ? COWMEM_STATE_FROZEN : 0,
		.length		= i_size_read(&buf->inode),
		.resident	= (u64)cowmem_buffer_resident(buf) << PAGE_SHIFT,
		.limit		= U64_MAX,
		.faults		= atomic_long_read(&buf->faults),
		.filled		= atomic_long_read(&buf->filled),
		.copied		= atomic_long_read(&buf->copied),
		.reused		= atomic_long_read(&buf->reused),
		.held		= atomic_long_read(&buf->held),
		.snapshots	= atomic_long_read(&buf->snapshots),
	};
	strscpy(stat->name, buf->name, sizeof(stat->name));
}

void cowmem_stats_show(struct seq_file *m, struct file *file)
{
	struct cowmem_stat stat = { };

	cowmem_stats_fill(cowmem_file_buffer(file), &stat);
	seq_printf(m, "cowmem-id:\t%llu\n", stat.id);
	seq_printf(m, "cowmem-account:\t%llu\n", stat.account);
	seq_printf(m, "cowmem-state:\t%s\n",
		   stat.state & COWMEM_STATE_FROZEN ? "frozen" : "live");
	seq_printf(m, "cowmem-size:\t%llu\n", stat.length);
	seq_printf(m, "cowmem-resident:\t%llu\n", stat.resident);
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
