// SPDX-License-Identifier: GPL-2.0
/*
 * Making buffers shareable, and taking snapshots: see snapshot.h.
 *
 * With the snap locks exclusive, in this order, each for all of them:
 *
 *	1. revoke the PTEs of all granted pages: after the last, the cut is made
 *	2. find those that somebody still holds (pins for DMA), and copy them
 *	3. clear the granted marks: nothing is writable any more
 *	4. share the range
 *	5. give the live buffer its own path to each pinned page, granted, and
 *	   put the copy in its place in what is shared
 *
 * Only 2, 4 and 5 can fail.  Then dropping what was shared makes the live tree
 * exclusive again, and the pinned pages are granted again.
 */
#include <linux/err.h>
#include <linux/list.h>
#include <linux/minmax.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "amplify.h"
#include "buffer.h"
#include "page.h"
#include "snapshot.h"
#include "trace.h"

/* Ticks to wait for a page that somebody holds, at the limit. */
#define MAX_WAITS	10

/* A page that cannot be shared, because somebody may write it without asking. */
struct pinned_page {
	struct list_head list;
	pgoff_t index;		/* in the live tree */
	struct page *page;	/* owned by the live tree */
	struct page *copy;	/* owned by us, until the snapshot has it */
};

static void forget_pinned(struct cowmem_cut *cut)
{
	struct pinned_page *pin, *next;

	list_for_each_entry_safe(pin, next, &cut->pinned, list) {
		if (pin->copy)
			cowmem_page_drop(pin->copy);
		kfree(pin);
		cond_resched();
	}
}

static int add_pinned(struct cowmem_cut *cut, pgoff_t index, struct page *page,
		      struct page *copy)
{
	struct pinned_page *pin = kzalloc(sizeof(*pin), cowmem_gfp(GFP_KERNEL));

	if (!pin) {
		cowmem_page_drop(copy);
		return -ENOMEM;
	}
	pin->index = index;
	pin->page = page;
	pin->copy = copy;
	list_add_tail(&pin->list, &cut->pinned);
	return cowmem_page_copy(pin->copy, pin->page);
}

/*
 * A mapping that goes has references for a moment, too: where there is no room
 * for a copy, wait a little for a page that may need none.
 */
static int copy_if_held(struct cowmem_cut *cut, pgoff_t index, struct page *page)
{
	unsigned int waits = 0;
	struct page *copy;

	while (cowmem_page_held(page, 0)) {
		copy = cowmem_page_alloc(cut->account, GFP_KERNEL);
		if (!IS_ERR(copy))
			return add_pinned(cut, index, page, copy);
		if (PTR_ERR(copy) != -ENOSPC || waits++ == MAX_WAITS)
			return PTR_ERR(copy);
		schedule_timeout_killable(1);
	}
	return 0;
}

/* The next granted run in the range, however many leaves it goes on in. */
static pgoff_t next_run(const struct cowmem_cut *cut, pgoff_t index, pgoff_t *end)
{
	const struct cowmem_tree *tree = &cut->buf->tree;
	pgoff_t more, limit = cut->first + min(cut->nr, ULONG_MAX - cut->first);

	index = cowmem_tree_next_granted(tree, index, end);
	if (index >= limit)
		return ULONG_MAX;
	while (*end < limit && cowmem_tree_next_granted(tree, *end, &more) == *end)
		*end = more;
	*end = min(*end, limit);
	return index;
}

static void revoke_granted(struct cowmem_cut *cut)
{
	pgoff_t index = cut->first, end;

	while ((index = next_run(cut, index, &end)) != ULONG_MAX) {
		cowmem_buffer_revoke(cut->buf, index, end - index);
		cut->nr_revoked += end - index;
		index = end;
	}
}

static int find_pinned(struct cowmem_cut *cut)
{
	pgoff_t index = cut->first, end;
	int err;

	for (;; index = end) {
		index = next_run(cut, index, &end);
		if (index == ULONG_MAX)
			return 0;
		for (; index < end; index++) {
			struct page *page;

			cond_resched();
			page = cowmem_tree_lookup(&cut->buf->tree, index);
			err = copy_if_held(cut, index, page);
			if (!err && fatal_signal_pending(current))
				err = -EINTR;
			if (err)
				return err;
		}
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

/* Let the pinned page stay with the buffer and the sharer have the copy. */
static int split_pinned(struct cowmem_cut *cut, struct pinned_page *pin,
			struct cowmem_reserve *reserve)
{
	pgoff_t index = pin->index - cut->first;
	int err;

	err = edit_path(cut->buf, &cut->buf->tree, pin->index, reserve);
	if (err)
		return err;
	/* The path that was shared is now the sharer's alone. */
	err = edit_path(cut->buf, &cut->tree, index, reserve);
	if (err)
		return err;
	cowmem_page_drop(cowmem_tree_store(&cut->tree, index, pin->copy));
	pin->copy = NULL;
	return 0;
}

/* They are written without a fault, so they have to count as written. */
static void grant_pinned(struct cowmem_cut *cut)
{
	struct cowmem_buffer *buf = cut->buf;
	struct pinned_page *pin;

	list_for_each_entry(pin, &cut->pinned, list) {
		spin_lock(&buf->tree_lock);
		cowmem_tree_store(&buf->tree, pin->index, pin->page);
		spin_unlock(&buf->tree_lock);
		cond_resched();
	}
}

static int extract(struct cowmem_cut *cut, struct cowmem_reserve *reserve)
{
	struct cowmem_buffer *buf = cut->buf;
	int err;

	for (;;) {
		spin_lock(&buf->tree_lock);
		err = cowmem_tree_extract(&buf->tree, cut->first, cut->nr,
					  &cut->tree, reserve);
		spin_unlock(&buf->tree_lock);
		if (!err)
			return 0;
		err = cowmem_reserve_fill(reserve);
		if (err)
			return err;
	}
}

static int share(struct cowmem_cut *cut)
{
	struct cowmem_reserve reserve = { .account = cut->account };
	struct pinned_page *pin;
	int err;

	cowmem_tree_clear_granted(&cut->buf->tree, cut->first, cut->nr);
	err = extract(cut, &reserve);
	list_for_each_entry(pin, &cut->pinned, list) {
		if (!err)
			err = split_pinned(cut, pin, &reserve);
		cond_resched();
	}
	/* The sharer's copies are its own, but nobody writes them yet. */
	cowmem_tree_clear_granted(&cut->tree, 0, ULONG_MAX);
	if (err)
		cowmem_tree_drop(&cut->tree);
	/* Dead nodes are owners too. */
	cowmem_reserve_release(&reserve);
	return err;
}

static int cut_take(struct cowmem_cut *cuts, unsigned int nr)
{
	unsigned int i;
	int err = 0;

	for (i = 0; i < nr; i++)
		revoke_granted(&cuts[i]);
	for (i = 0; i < nr && !err; i++)
		err = find_pinned(&cuts[i]);
	if (err)
		return err;
	for (i = 0; i < nr && !err; i++)
		err = share(&cuts[i]);
	/* Those that are shared give it back. */
	if (err)
		while (i--)
			cowmem_tree_drop(&cuts[i].tree);
	return err;
}

static void count_pinned(struct cowmem_cut *cut)
{
	struct pinned_page *pin;

	/* Each has been copied, only because it is held. */
	list_for_each_entry(pin, &cut->pinned, list) {
		atomic_long_inc(&cut->buf->copied);
		atomic_long_inc(&cut->buf->held);
	}
}

int cowmem_cut_take(struct cowmem_cut *cuts, unsigned int nr)
{
	unsigned int noio = memalloc_noio_save();
	unsigned int i;
	int err;

	for (i = 0; i < nr; i++) {
		cuts[i].tree = (struct cowmem_tree){ };
		cuts[i].nr_revoked = 0;
		INIT_LIST_HEAD(&cuts[i].pinned);
	}
	err = cut_take(cuts, nr);
	for (i = 0; i < nr; i++) {
		grant_pinned(&cuts[i]);
		if (!err)
			count_pinned(&cuts[i]);
		forget_pinned(&cuts[i]);
	}
	memalloc_noio_restore(noio);
	return err;
}

/* What @shot is of, now that the size cannot change. */
static int shot_range(const struct cowmem_shot *shot, struct cowmem_cut *cut,
		      loff_t *length)
{
	loff_t size = i_size_read(&shot->buf->inode);
	u64 offset = shot->offset;

	cut->buf = shot->buf;
	cut->account = shot->snapshot->account;
	*length = shot->length;
	if (!*length && (offset < size || !offset))
		*length = size - offset;
	if (!PAGE_ALIGNED(offset) || offset > size ||
	    (u64)*length > size - offset || (size && !*length))
		return -EINVAL;
	if (!PAGE_ALIGNED(*length) && offset + *length != size)
		return -EINVAL;
	cut->first = offset >> PAGE_SHIFT;
	/* The whole buffer, with what was reserved beyond its end. */
	cut->nr = ULONG_MAX;
	if (*length != size)
		cut->nr = DIV_ROUND_UP_ULL(*length, PAGE_SIZE);
	return 0;
}

/*
 * The places of a range of a range of a range add up, and would get beyond those
 * that a tree can have: then it moves to the start, which takes time.
 */
static int settle(struct cowmem_cut *cut)
{
	static const struct cowmem_tree start;
	struct cowmem_reserve reserve = { };
	int err = 0;

	if (cut->tree.base > COWMEM_MAX_SIZE >> PAGE_SHIFT)
		err = cowmem_tree_align(&cut->tree, &start, 0, &reserve);
	cowmem_reserve_release(&reserve);
	return err;
}

static int take(const struct cowmem_shot *shots, struct cowmem_cut *cuts,
		unsigned int nr)
{
	unsigned int noio, i;
	loff_t length;
	int err = 0;

	for (i = 0; i < nr; i++) {
		err = shot_range(&shots[i], &cuts[i], &length);
		if (err)
			return err;
		i_size_write(&shots[i].snapshot->inode, length);
	}
	err = cowmem_cut_take(cuts, nr);
	if (err)
		return err;
	noio = memalloc_noio_save();
	for (i = 0; i < nr && !err; i++)
		err = settle(&cuts[i]);
	memalloc_noio_restore(noio);
	if (err) {
		for (i = 0; i < nr; i++)
			cowmem_tree_drop(&cuts[i].tree);
		return err;
	}
	for (i = 0; i < nr; i++) {
		shots[i].snapshot->tree = cuts[i].tree;
		atomic_long_inc(&shots[i].buf->snapshots);
	}
	return 0;
}

static void trace_start(const struct cowmem_shot *shots, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		trace_cowmem_snapshot_start(shots[i].buf->id);
}

static void trace_done(const struct cowmem_shot *shots,
		       const struct cowmem_cut *cuts, unsigned int nr, int err)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		trace_cowmem_snapshot_done(shots[i].buf->id,
					   shots[i].snapshot->id,
					   cuts[i].nr_revoked, err);
}

static int snapshot_one(const struct cowmem_shot *shot)
{
	struct cowmem_cut cut = { };
	int err = -EINTR;

	trace_start(shot, 1);
	if (!down_write_killable(&shot->buf->snap)) {
		err = take(shot, &cut, 1);
		up_write(&shot->buf->snap);
	}
	trace_done(shot, &cut, 1, err);
	return err;
}

static int snapshot_several(const struct cowmem_shot *shots, unsigned int nr)
{
	struct cowmem_buffer **bufs;
	struct cowmem_cut *cuts;
	unsigned int i;
	int err = -ENOMEM;

	bufs = kcalloc(nr, sizeof(*bufs), GFP_KERNEL);
	cuts = kcalloc(nr, sizeof(*cuts), GFP_KERNEL);
	if (!bufs || !cuts)
		goto out;
	for (i = 0; i < nr; i++)
		bufs[i] = shots[i].buf;
	trace_start(shots, nr);
	err = cowmem_buffers_lock(bufs, nr);
	if (!err) {
		err = take(shots, cuts, nr);
		cowmem_buffers_unlock(bufs, nr);
	}
	trace_done(shots, cuts, nr, err);
out:
	kfree(cuts);
	kfree(bufs);
	return err;
}

int cowmem_snapshot_take(const struct cowmem_shot *shots, unsigned int nr)
{
	return nr == 1 ? snapshot_one(shots) : snapshot_several(shots, nr);
}
