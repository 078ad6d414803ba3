/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM cowmem

#if !defined(_COWMEM_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _COWMEM_TRACE_H

#include <linux/mm.h>
#include <linux/tracepoint.h>

/* Buffers by the id that STAT and fdinfo show; indexes in pages. */

TRACE_EVENT(cowmem_fault,
	TP_PROTO(u64 id, pgoff_t index, bool write, vm_fault_t result),
	TP_ARGS(id, index, write, result),
	TP_STRUCT__entry(
		__field(u64, id)
		__field(pgoff_t, index)
		__field(bool, write)
		__field(unsigned int, result)
	),
	TP_fast_assign(
		__entry->id = id;
		__entry->index = index;
		__entry->write = write;
		__entry->result = (__force unsigned int)result;
	),
	TP_printk("id=%llu index=%lu %s result=%#x", __entry->id,
		  __entry->index, __entry->write ? "write" : "read",
		  __entry->result)
);

TRACE_EVENT(cowmem_copy,
	TP_PROTO(u64 id, pgoff_t index),
	TP_ARGS(id, index),
	TP_STRUCT__entry(
		__field(u64, id)
		__field(pgoff_t, index)
	),
	TP_fast_assign(
		__entry->id = id;
		__entry->index = index;
	),
	TP_printk("id=%llu index=%lu", __entry->id, __entry->index)
);

TRACE_EVENT(cowmem_snapshot_start,
	TP_PROTO(u64 id),
	TP_ARGS(id),
	TP_STRUCT__entry(
		__field(u64, id)
	),
	TP_fast_assign(
		__entry->id = id;
	),
	TP_printk("id=%llu", __entry->id)
);

TRACE_EVENT(cowmem_snapshot_done,
	TP_PROTO(u64 id, u64 snapshot, unsigned long revoked, int error),
	TP_ARGS(id, snapshot, revoked, error),
	TP_STRUCT__entry(
		__field(u64, id)
		__field(u64, snapshot)
		__field(unsigned long, revoked)
		__field(int, error)
	),
	TP_fast_assign(
		__entry->id = id;
		__entry->snapshot = snapshot;
		__entry->revoked = revoked;
		__entry->error = error;
	),
	TP_printk("id=%llu snapshot=%llu revoked=%lu error=%d", __entry->id,
		  __entry->snapshot, __entry->revoked, __entry->error)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
