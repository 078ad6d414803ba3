// SPDX-License-Identifier: GPL-2.0
/*
 * A buffer, its locks, and the two mechanisms: see buffer.h.
 *
 * Lives as an inode, from cowmem_fs_buffer() until its last file is closed;
 * knows nothing of files, ioctls and user memory.
 */
#include <linux/highmem.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sort.h>

#include "amplify.h"
#include "buffer.h"
#include "page.h"
#include "trace.h"

/* Jiffies: far more than a read or a fault takes, no time for who has a pin. */
#define MAX_WAITS	10

static atomic64_t last_id;

int cowmem_buffer_init(struct cowmem_buffer *buf, struct cowmem_buffer *origin)
{
	int i;

	init_rwsem(&buf->snap);
	for (i = 0; i < COWMEM_LEAF_LOCKS; i++)
		mutex_init(&buf->leaf[i]);
	spin_lock_init(&buf->tree_lock);
	buf->tree = (struct cowmem_tree){ };
	buf->id = atomic64_inc_return(&last_id);
	buf->account = origin ? cowmem_account_get(origin->account) :
		       cowmem_account_new(buf->id, buf->inode.i_uid);
	buf->frozen = false;
	buf->pinnable = false;
	buf->holes_mapped = false;
	buf->waiting = 0;
	atomic_long_set(&buf->faults, 0);
	atomic_long_set(&buf->filled, 0);
	atomic_long_set(&buf->copied, 0);
	atomic_long_set(&buf->reused, 0);
	atomic_long_set(&buf->held, 0);
	atomic_long_set(&buf->snapshots, 0);
	buf->name[0] = '\0';
	return buf->account ? 0 : -ENOMEM;
}

void cowmem_buffer_destroy(struct cowmem_buffer *buf)
{
	cowmem_tree_drop(&buf->tree);
	if (buf->account)
		cowmem_account_put(buf->account);
}

static int compare_buffers(const void *a, const void *b)
{
	struct cowmem_buffer *const *left = a, *const *right = b;

	return *left < *right ? -1 : *left > *right;
}

/*
 * The order alone avoids deadlocks.  Lockdep is told of it: of two, the second is
 * of another class; more are taken under one more lock, as there are not enough
 * classes.
 */
static DEFINE_MUTEX(many_mutex);

static int lock_two(struct cowmem_buffer *first, struct cowmem_buffer *second)
{
	if (down_write_killable(&first->snap))
		return -EINTR;
	if (first == second)
		return 0;
	if (down_write_killable_nested(&second->snap, SINGLE_DEPTH_NESTING)) {
		up_write(&first->snap);
		return -EINTR;
	}
	return 0;
}

static int lock_many(struct cowmem_buffer **bufs, unsigned int nr)
{
	unsigned int i;

	if (mutex_lock_killable(&many_mutex))
		return -EINTR;
	for (i = 0; i < nr; i++)
		if (!i || bufs[i] != bufs[i - 1])
			down_write_nest_lock(&bufs[i]->snap, &many_mutex);
	return 0;
}

int cowmem_buffers_lock(struct cowmem_buffer **bufs, unsigned int nr)
{
	sort(bufs, nr, sizeof(*bufs), compare_buffers, NULL);
	return nr == 2 ? lock_two(bufs[0], bufs[1]) : lock_many(bufs, nr);
}

void cowmem_buffers_unlock(struct cowmem_buffer **bufs, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		if (!i || bufs[i] != bufs[i - 1])
			up_write(&bufs[i]->snap);
	if (nr != 2)
		mutex_unlock(&many_mutex);
}

/* By leaf: who prunes one must not meet who is about to store below it. */
static unsigned int leaf_nr(struct cowmem_buffer *buf, pgoff_t index)
{
	return ((buf->tree.base + index) >> COWMEM_NODE_SHIFT) %
	       COWMEM_LEAF_LOCKS;
}

static struct mutex *leaf_lock(struct cowmem_buffer *buf, pgoff_t index)
{
	return &buf->leaf[leaf_nr(buf, index)];
}

int cowmem_buffer_lock(struct cowmem_buffer *buf, pgoff_t index)
{
	if (down_read_killable(&buf->snap))
		return -EINTR;
	mutex_lock(leaf_lock(buf, index));
	return 0;
}

void cowmem_buffer_unlock(struct cowmem_buffer *buf, pgoff_t index)
{
	mutex_unlock(leaf_lock(buf, index));
	up_read(&buf->snap);
}

unsigned long cowmem_buffer_resident(struct cowmem_buffer *buf)
{
	unsigned long nr_pages;

	spin_lock(&buf->tree_lock);
	nr_pages = cowmem_tree_pages(&buf->tree);
	spin_unlock(&buf->tree_lock);
	return nr_pages;
}

struct page *cowmem_buffer_page(struct cowmem_buffer *buf, pgoff_t index)
{
	struct page *page;

	spin_lock(&buf->tree_lock);
	page = cowmem_tree_lookup(&buf->tree, index);
	if (page)
		get_page(page);
	spin_unlock(&buf->tree_lock);
	return page;
}

struct page *cowmem_buffer_read(struct cowmem_buffer *buf, pgoff_t index)
{
	struct page *page;

	if (down_read_killable(&buf->snap))
		return ERR_PTR(-EINTR);
	page = cowmem_buffer_page(buf, index);
	up_read(&buf->snap);
	if (page && PageHWPoison(page)) {
		put_page(page);
		return ERR_PTR(-EIO);
	}
	return page;
}

void cowmem_buffer_revoke(struct cowmem_buffer *buf, pgoff_t index, pgoff_t nr)
{
	unmap_mapping_pages(&buf->inode.i_data, index, nr, false);
	cowmem_amplify_revoke();
}

/*
 * May @old be written where it is?  Its path is exclusive and it is not
 * granted, so it had been shared.  @held: if not, only because of who holds it.
 */
static bool page_reusable(struct cowmem_buffer *buf, pgoff_t index,
			  struct page *old, struct page *known, bool *held)
{
	if (cowmem_page_owners(old) != 1)
		return false;
	if (!cowmem_page_held(old, old == known))
		return true;
	/* Perhaps they are only our own PTEs. */
	cowmem_buffer_revoke(buf, index, 1);
	*held = cowmem_page_held(old, old == known);
	return !*held;
}

/* The page to put at @index instead of @old, or @old itself. */
static struct page *page_to_store(struct cowmem_buffer *buf, pgoff_t index,
				  struct page *old, struct page *known,
				  struct cowmem_reserve *reserve, bool *held)
{
	struct page *page;

	if (old && PageHWPoison(old))
		return ERR_PTR(-EIO);
	if (old && page_reusable(buf, index, old, known, held))
		return old;
	page = cowmem_page_pop(&reserve->page);
	if (!page)
		page = cowmem_page_alloc(buf->account,
					 GFP_NOWAIT | (old ? 0 : __GFP_ZERO));
	if (IS_ERR(page))
		return page;
	if (old && cowmem_page_copy(page, old)) {
		cowmem_page_drop(page);
		return ERR_PTR(-EIO);
	}
	return page;
}

/* Nobody maps @old any more, nor copies it for a MAP_PRIVATE mapping. */
static void detach_page(struct cowmem_buffer *buf, pgoff_t index,
			struct page *old)
{
	cowmem_buffer_revoke(buf, index, 1);
	/* Truncate only knows the pages that are in the tree. */
	lock_page(old);
	unlock_page(old);
}

/* Count what became of @old; revoke its PTEs, and only then give it up. */
static void page_replaced(struct cowmem_buffer *buf, pgoff_t index,
			  struct page *old, struct page *page)
{
	if (!old) {
		atomic_long_inc(&buf->filled);
		if (READ_ONCE(buf->holes_mapped))
			cowmem_buffer_revoke(buf, index, 1);
	} else if (old == page) {
		atomic_long_inc(&buf->reused);
	} else {
		atomic_long_inc(&buf->copied);
		trace_cowmem_copy(buf->id, index);
		if (cowmem_page_held(old, 0))
			detach_page(buf, index, old);
		cowmem_page_drop(old);
	}
}

/* What was missing under the locks: -EAGAIN nodes, -ENOMEM a page. */
static int reserve_missing(struct cowmem_reserve *reserve, int err)
{
	if (err == -EAGAIN)
		return cowmem_reserve_fill(reserve);
	if (err == -ENOMEM)
		return cowmem_reserve_pages(reserve, 1);
	return err;
}

static int page_own(struct cowmem_buffer *buf, pgoff_t index,
		    struct page *known, struct cowmem_reserve *reserve,
		    struct page **page)
{
	bool held = false;
	struct page *old;
	int granted;

	lockdep_assert_held(&buf->snap);
	lockdep_assert_held(leaf_lock(buf, index));
	if (WARN_ON_ONCE(buf->frozen))
		return -EIO;

	spin_lock(&buf->tree_lock);
	granted = cowmem_tree_edit(&buf->tree, index, reserve, &old);
	if (granted < 0)
		cowmem_tree_prune(&buf->tree, index, reserve);
	spin_unlock(&buf->tree_lock);
	if (granted < 0)
		return granted;
	*page = old;
	if (granted)
		return PageHWPoison(old) ? -EIO : 0;

	*page = page_to_store(buf, index, old, known, reserve, &held);
	cowmem_amplify_store();
	spin_lock(&buf->tree_lock);
	if (IS_ERR(*page))
		cowmem_tree_prune(&buf->tree, index, reserve);
	else
		cowmem_tree_store(&buf->tree, index, *page);
	spin_unlock(&buf->tree_lock);
	if (IS_ERR(*page))
		return held && *page == ERR_PTR(-ENOSPC) ? -EBUSY :
		       PTR_ERR(*page);
	page_replaced(buf, index, old, *page);
	if (held)
		atomic_long_inc(&buf->held);
	return 0;
}

/*
 * There is no room for a copy, and none is needed once nobody reads the page or
 * has it in a fault: wait a little.  Of those who wait with a reference to it
 * all but one have to let go.
 */
static int wait_unheld(struct cowmem_buffer *buf, pgoff_t index,
		       struct page *known, unsigned int *waits)
{
	if (!*waits && known &&
	    test_and_set_bit(leaf_nr(buf, index), &buf->waiting))
		return -EBUSY;
	if ((*waits)++ == MAX_WAITS)
		return -ENOSPC;
	schedule_timeout_killable(1);
	return 0;
}

int cowmem_buffer_own(struct cowmem_buffer *buf, pgoff_t index,
		      struct page *known, bool bounded,
		      struct cowmem_reserve *reserve, struct page **page)
{
	unsigned int waits = 0;
	int err;

	reserve->account = buf->account;
	for (;;) {
		err = cowmem_buffer_lock(buf, index);
		if (err)
			break;
		if (bounded && index >= cowmem_buffer_nr_pages(buf))
			err = -ERANGE;
		else
			err = page_own(buf, index, known, reserve, page);
		if (!err)
			break;
		cowmem_buffer_unlock(buf, index);
		if (fatal_signal_pending(current))
			err = -EINTR;
		else if (err == -EBUSY)
			err = wait_unheld(buf, index, known, &waits);
		else
			err = reserve_missing(reserve, err);
		if (err)
			break;
	}
	if (waits && known)
		clear_bit(leaf_nr(buf, index), &buf->waiting);
	return err;
}

int cowmem_buffer_zero(struct cowmem_buffer *buf, loff_t start, loff_t end,
		       struct cowmem_reserve *reserve)
{
	pgoff_t index = start >> PAGE_SHIFT;
	struct page *page;
	int err, retry;

	reserve->account = buf->account;
	do {
		err = 0;
		mutex_lock(leaf_lock(buf, index));
		spin_lock(&buf->tree_lock);
		page = cowmem_tree_lookup(&buf->tree, index);
		spin_unlock(&buf->tree_lock);
		if (page)
			err = page_own(buf, index, NULL, reserve, &page);
		if (page && !err)
			memzero_page(page, offset_in_page(start), end - start);
		mutex_unlock(leaf_lock(buf, index));
		retry = err;
		/* Not the place to wait: nobody else gets anywhere. */
		err = err == -EBUSY ? -ENOSPC : reserve_missing(reserve, err);
	} while (retry && !err);
	return err;
}

int cowmem_buffer_zero_tail(struct cowmem_buffer *buf, loff_t end,
			    struct cowmem_reserve *reserve)
{
	if (PAGE_ALIGNED(end))
		return 0;
	return cowmem_buffer_zero(buf, end, PAGE_ALIGN(end), reserve);
}

/* Wait for MAP_PRIVATE faults that still copy a page from @first on. */
static void wait_private_faults(struct cowmem_buffer *buf, pgoff_t first)
{
	struct page *page;

	for (;; first++) {
		spin_lock(&buf->tree_lock);
		first = cowmem_tree_next_page(&buf->tree, first);
		spin_unlock(&buf->tree_lock);
		if (first == ULONG_MAX)
			break;
		page = cowmem_buffer_page(buf, first);
		lock_page(page);
		unlock_page(page);
		put_page(page);
		cond_resched();
	}
	cowmem_zero_pages_wait();
}

void cowmem_buffer_unmap_beyond(struct cowmem_buffer *buf, pgoff_t first)
{
	struct address_space *mapping = &buf->inode.i_data;

	if (!mapping_mapped(mapping))
		return;
	unmap_mapping_range(mapping, (loff_t)first << PAGE_SHIFT, 0, 1);
	wait_private_faults(buf, first);
	unmap_mapping_range(mapping, (loff_t)first << PAGE_SHIFT, 0, 1);
}

/* Make holes of all that is beyond the end, with a reserve for one path. */
static void cut_beyond_end(struct cowmem_buffer *buf,
			   struct cowmem_reserve *reserve)
{
	pgoff_t first = cowmem_buffer_nr_pages(buf);
	int err;

	cowmem_buffer_unmap_beyond(buf, first);
	spin_lock(&buf->tree_lock);
	err = cowmem_tree_cut(&buf->tree, first, reserve);
	spin_unlock(&buf->tree_lock);
	WARN_ON_ONCE(err);
}

int cowmem_buffer_resize(struct cowmem_buffer *buf, loff_t size)
{
	struct cowmem_reserve reserve = { .account = buf->account };
	unsigned int noio = memalloc_noio_save();
	loff_t old_size;
	int err;

	err = -EINTR;
	if (down_write_killable(&buf->snap))
		goto out;
	old_size = i_size_read(&buf->inode);
	/* One path for the tail, one is left for the cut. */
	err = cowmem_reserve_fill(&reserve);
	if (!err)
		err = cowmem_buffer_zero_tail(buf, min(size, old_size),
					      &reserve);
	if (!err) {
		i_size_write(&buf->inode, size);
		if (size < old_size)
			cut_beyond_end(buf, &reserve);
	}
	up_write(&buf->snap);
out:
	cowmem_reserve_release(&reserve);
	memalloc_noio_restore(noio);
	return err;
}

int cowmem_buffer_extend(struct cowmem_buffer *buf)
{
	struct cowmem_reserve reserve = { .account = buf->account };
	int err;

	if (down_read_killable(&buf->snap))
		return -EINTR;
	err = cowmem_buffer_zero_tail(buf, i_size_read(&buf->inode), &reserve);
	up_read(&buf->snap);
	cowmem_reserve_release(&reserve);
	return err;
}

int cowmem_buffer_set_size(struct cowmem_buffer *buf, loff_t size)
{
	if (down_write_killable(&buf->snap))
		return -EINTR;
	if (!i_size_read(&buf->inode))
		i_size_write(&buf->inode, size);
	up_write(&buf->snap);
	return 0;
}
