// SPDX-License-Identifier: GPL-2.0
/*
 * Taking snapshots: see snapshot.h.
 *
 * With the snap lock exclusive, in this order:
 *
 *	1. revoke the PTEs of all granted pages: after the last, the cut is made
 *	2. find those that somebody still holds (pins for DMA), and copy them
 *	3. clear the granted marks: nothing is writable any more
 *	4. share the root
 *	5. give the live buffer its own path to each pinned page, granted, and
 *	   put the copy in its place in the snapshot
 *
 * Only 2 and 5 can fail.  After 5 failed, dropping the snapshot's tree makes the
 * live one exclusive again, and the pinned pages are granted again.
 */
#include <linux/err.h>
#include <linux/list.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "amplify.h"
#include "buffer.h"
#include "page.h"
#include "snapshot.h"
#include "trace.h"

/* A page that cannot be shared, because somebody may write it without asking. */
struct pinned_page {
	struct list_head list;
	pgoff_t index;
	struct page *page;	/* owned by the live tree */
	struct page *copy;	/* owned by us, until the snapshot has it */
};

/* Each has been copied, only because it is held. */
static void count_pinned(struct cowmem_buffer *buf, struct list_head *pinned)
{
	struct pinned_page *pin;

	list_for_each_entry(pin, pinned, list) {
		atomic_long_inc(&buf->copied);
		atomic_long_inc(&buf->held);
	}
}

static void forget_pinned(struct list_head *pinned)
{
	struct pinned_page *pin, *next;

	list_for_each_entry_safe(pin, next, pinned, list) {
		if (pin->copy)
			cowmem_page_drop(pin->copy);
		kfree(pin);
	}
}

static int add_pinned(struct list_head *pinned, pgoff_t index,
		      struct page *page)
{
	struct pinned_page *pin = kzalloc(sizeof(*pin), GFP_KERNEL);

	if (!pin)
		return -ENOMEM;
	pin->index = index;
	pin->page = page;
	list_add_tail(&pin->list, pinned);
	pin->copy = cowmem_page_alloc(GFP_KERNEL);
	if (!pin->copy)
		return -ENOMEM;
	return cowmem_page_copy(pin->copy, page);
}

static unsigned long revoke_granted(struct cowmem_buffer *buf)
{
	unsigned long nr_pages = 0;
	pgoff_t index = 0, end;

	while ((index = cowmem_tree_next_granted(&buf->tree, index, &end)) !=
	       ULONG_MAX) {
		pgoff_t more;

		/* Runs go on in the next leaf. */
		while (cowmem_tree_next_granted(&buf->tree, end, &more) == end)
			end = more;
		cowmem_buffer_revoke(buf, index, end - index);
		nr_pages += end - index;
		index = end;
	}
	return nr_pages;
}

static int find_pinned(struct cowmem_buffer *buf, struct list_head *pinned)
{
	pgoff_t index = 0, end;
	int err;

	for (;; index = end) {
		index = cowmem_tree_next_granted(&buf->tree, index, &end);
		if (index == ULONG_MAX)
			return 0;
		for (; index < end; index++) {
			struct page *page = cowmem_tree_lookup(&buf->tree, index);

			if (!cowmem_page_held(page, 0))
				continue;
			err = add_pinned(pinned, index, page);
			if (err)
				return err;
		}
		cond_resched();
	}
}

/* The exclusive path of @tree to @index; sleeps for memory, not under the lock. */
static int edit_path(struct cowmem_buffer *buf, struct cowmem_tree *tree,
		     pgoff_t index, struct cowmem_reserve *reserve)
{
	struct page *page;
	int ret;

	for (;;) {
		spin_lock(&buf->tree_lock);
		ret = cowmem_tree_edit(tree, index, reserve, &page);
		spin_unlock(&buf->tree_lock);
		if (ret != -EAGAIN)
			return 0;
		ret = cowmem_reserve_fill(reserve);
		if (ret)
			return ret;
	}
}

/* Let the pinned page stay with @buf and the snapshot have the copy. */
static int split_pinned(struct cowmem_buffer *buf, struct cowmem_tree *shared,
			struct pinned_page *pin, struct cowmem_reserve *reserve)
{
	int err;

	err = edit_path(buf, &buf->tree, pin->index, reserve);
	if (err)
		return err;
	/* The path that was shared is now the snapshot's alone. */
	err = edit_path(buf, shared, pin->index, reserve);
	if (err)
		return err;
	cowmem_page_drop(cowmem_tree_store(shared, pin->index, pin->copy));
	pin->copy = NULL;
	return 0;
}

/* They are written without a fault, so they have to count as written. */
static void grant_pinned(struct cowmem_buffer *buf, struct list_head *pinned)
{
	struct pinned_page *pin;

	spin_lock(&buf->tree_lock);
	list_for_each_entry(pin, pinned, list)
		cowmem_tree_store(&buf->tree, pin->index, pin->page);
	spin_unlock(&buf->tree_lock);
}

static int share_tree(struct cowmem_buffer *buf, struct cowmem_tree *shared,
		      struct list_head *pinned)
{
	struct cowmem_reserve reserve = { };
	struct pinned_page *pin;
	int err = 0;

	cowmem_tree_clear_granted(&buf->tree);
	spin_lock(&buf->tree_lock);
	cowmem_tree_share(&buf->tree, shared);
	spin_unlock(&buf->tree_lock);
	list_for_each_entry(pin, pinned, list) {
		err = split_pinned(buf, shared, pin, &reserve);
		if (err) {
			cowmem_tree_drop(shared);
			break;
		}
	}
	/* Dead nodes are owners too. */
	cowmem_reserve_release(&reserve);
	grant_pinned(buf, pinned);
	return err;
}

int cowmem_snapshot_take(struct cowmem_buffer *buf,
			 struct cowmem_buffer *snapshot)
{
	unsigned long nr_pages;
	LIST_HEAD(pinned);
	unsigned int noio;
	int err;

	trace_cowmem_snapshot_start(buf->id);
	if (down_write_killable(&buf->snap)) {
		trace_cowmem_snapshot_done(buf->id, 0, 0, -EINTR);
		return -EINTR;
	}
	noio = memalloc_noio_save();
	nr_pages = revoke_granted(buf);
	err = find_pinned(buf, &pinned);
	if (!err)
		err = share_tree(buf, &snapshot->tree, &pinned);
	if (!err) {
		i_size_write(&snapshot->inode, i_size_read(&buf->inode));
		snapshot->account = buf->account;
		atomic_long_inc(&buf->snapshots);
		count_pinned(buf, &pinned);
	}
	memalloc_noio_restore(noio);
	up_write(&buf->snap);
	forget_pinned(&pinned);
	trace_cowmem_snapshot_done(buf->id, snapshot->id, nr_pages, err);
	return err;
}
