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

#include "amplify.h"
#include "buffer.h"
#include "page.h"
#include "trace.h"

static atomic64_t last_id;

void cowmem_buffer_init(struct cowmem_buffer *buf)
{
	int i;

	init_rwsem(&buf->snap);
	for (i = 0; i < COWMEM_LEAF_LOCKS; i++)
		mutex_init(&buf->leaf[i]);
	spin_lock_init(&buf->tree_lock);
	buf->tree.root = NULL;
	buf->id = atomic64_inc_return(&last_id);
	buf->account = buf->id;
	buf->frozen = false;
	buf->holes_mapped = false;
	atomic_long_set(&buf->faults, 0);
	atomic_long_set(&buf->filled, 0);
	atomic_long_set(&buf->copied, 0);
	atomic_long_set(&buf->reused, 0);
	atomic_long_set(&buf->held, 0);
	atomic_long_set(&buf->snapshots, 0);
	buf->name[0] = '\0';
}

static struct mutex *leaf_lock(struct cowmem_buffer *buf, pgoff_t index)
{
	return &buf->leaf[(index >> COWMEM_NODE_SHIFT) % COWMEM_LEAF_LOCKS];
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

void cowmem_buffer_revoke(struct cowmem_buffer *buf, pgoff_t index, pgoff_t nr)
{
	unmap_mapping_pages(&buf->inode.i_data, index, nr, false);
	cowmem_amplify_revoke();
}

/*
 * May @old be written where it is?  Its path is exclusive and it is not
 * granted, so it had been shared.
 */
static bool page_reusable(struct cowmem_buffer *buf, pgoff_t index,
			  struct page *old, struct page *known)
{
	if (cowmem_page_owners(old) != 1)
		return false;
	if (!cowmem_page_held(old, old == known))
		return true;
	/* Perhaps they are only our own PTEs. */
	cowmem_buffer_revoke(buf, index, 1);
	if (!cowmem_page_held(old, old == known))
		return true;
	atomic_long_inc(&buf->held);
	return false;
}

/* The page to put at @index instead of @old, or @old itself. */
static struct page *page_to_store(struct cowmem_buffer *buf, pgoff_t index,
				  struct page *old, struct page *known,
				  struct cowmem_reserve *reserve)
{
	struct page *page;

	if (old && PageHWPoison(old))
		return ERR_PTR(-EIO);
	if (old && page_reusable(buf, index, old, known))
		return old;
	page = reserve->page;
	reserve->page = NULL;
	if (!page)
		page = cowmem_page_alloc(GFP_NOWAIT | (old ? 0 : __GFP_ZERO));
	if (!page)
		return ERR_PTR(-EAGAIN);
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
		if (buf->holes_mapped)
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

static int page_own(struct cowmem_buffer *buf, pgoff_t index,
		    struct page *known, struct cowmem_reserve *reserve,
		    struct page **page)
{
	struct page *old;
	int granted;

	lockdep_assert_held(&buf->snap);
	lockdep_assert_held(leaf_lock(buf, index));
	if (WARN_ON_ONCE(buf->frozen))
		return -EIO;

	spin_lock(&buf->tree_lock);
	granted = cowmem_tree_edit(&buf->tree, index, reserve, &old);
	spin_unlock(&buf->tree_lock);
	if (granted < 0)
		return granted;
	*page = old;
	if (granted)
		return PageHWPoison(old) ? -EIO : 0;

	*page = page_to_store(buf, index, old, known, reserve);
	if (IS_ERR(*page))
		return PTR_ERR(*page);
	spin_lock(&buf->tree_lock);
	cowmem_tree_store(&buf->tree, index, *page);
	spin_unlock(&buf->tree_lock);
	page_replaced(buf, index, old, *page);
	return 0;
}

int cowmem_buffer_own(struct cowmem_buffer *buf, pgoff_t index,
		      struct page *known, bool bounded,
		      struct cowmem_reserve *reserve, struct page **page)
{
	int err;

	for (;;) {
		err = cowmem_buffer_lock(buf, index);
		if (err)
			return err;
		if (bounded && index >= cowmem_buffer_nr_pages(buf))
			err = -ERANGE;
		else
			err = page_own(buf, index, known, reserve, page);
		if (!err)
			return 0;
		cowmem_buffer_unlock(buf, index);
		if (err != -EAGAIN)
			return err;
		if (fatal_signal_pending(current))
			return -EINTR;
		err = cowmem_reserve_fill(reserve);
		if (err)
			return err;
	}
}

/* Zero what the last page has beyond @end; with a full reserve. */
static int zero_tail(struct cowmem_buffer *buf, loff_t end,
		     struct cowmem_reserve *reserve)
{
	pgoff_t index = end >> PAGE_SHIFT;
	unsigned int offset = offset_in_page(end);
	struct page *page;
	int err = 0;

	if (!offset)
		return 0;
	mutex_lock(leaf_lock(buf, index));
	spin_lock(&buf->tree_lock);
	page = cowmem_tree_lookup(&buf->tree, index);
	spin_unlock(&buf->tree_lock);
	if (page)
		err = page_own(buf, index, NULL, reserve, &page);
	if (page && !err)
		memzero_page(page, offset, PAGE_SIZE - offset);
	mutex_unlock(leaf_lock(buf, index));
	return err;
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

/* Make holes of all that is beyond the end, under snap exclusive. */
static void cut_beyond_end(struct cowmem_buffer *buf,
			   struct cowmem_reserve *reserve)
{
	pgoff_t first = cowmem_buffer_nr_pages(buf);
	struct address_space *mapping = &buf->inode.i_data;
	int err;

	if (mapping_mapped(mapping)) {
		unmap_mapping_range(mapping, (loff_t)first << PAGE_SHIFT, 0, 1);
		wait_private_faults(buf, first);
		unmap_mapping_range(mapping, (loff_t)first << PAGE_SHIFT, 0, 1);
	}
	spin_lock(&buf->tree_lock);
	err = cowmem_tree_cut(&buf->tree, first, reserve);
	spin_unlock(&buf->tree_lock);
	WARN_ON_ONCE(err);
}

int cowmem_buffer_resize(struct cowmem_buffer *buf, loff_t size)
{
	unsigned int noio = memalloc_noio_save();
	struct cowmem_reserve reserve = { };
	loff_t old_size;
	int err;

	err = cowmem_reserve_fill(&reserve);
	if (err)
		goto out;
	err = -EINTR;
	if (down_write_killable(&buf->snap))
		goto out;
	old_size = i_size_read(&buf->inode);
	err = zero_tail(buf, min(size, old_size), &reserve);
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
	struct cowmem_reserve reserve = { };
	int err;

	err = cowmem_reserve_fill(&reserve);
	if (err)
		goto out;
	err = -EINTR;
	if (down_read_killable(&buf->snap))
		goto out;
	err = zero_tail(buf, i_size_read(&buf->inode), &reserve);
	up_read(&buf->snap);
out:
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
