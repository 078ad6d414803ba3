/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A buffer: a sparse array of pages with a size.  Owns the locks, and the two
 * mechanisms that everything else is made of; the third, making a buffer
 * shareable, is in snapshot.c.
 *
 * Locks, outermost first
 * ----------------------
 *	inode lock	write(), truncate, fallocate(), restore, clone: one size
 *			change at a time (but for sizing by mmap); clone: of both
 *	mmap_lock, VMA lock
 *	many_mutex	snap locks of a group
 *	buf->snap	shared: faults and writes, while they change or map a
 *			page, and reads, while they look one up; exclusive:
 *			snapshot, restore, clone, dedupe, diff, truncate,
 *			fallocate(), sizing by mmap.  Of several buffers in the
 *			order of their addresses
 *	buf->leaf[]	one of a few, by leaf: who may replace or map a page
 *	page lock	of a page that a MAP_PRIVATE fault copies, see below
 *	i_mmap		inside unmap_mapping_*(), or
 *	buf->tree_lock	the tree; nothing sleeps under it
 *	page-table lock
 *
 * Under snap and leaf nothing faults (write() copies with faults disabled) and
 * nothing takes mmap_lock.  snap is never taken shared twice by one thread.
 *
 * What orders what
 * ----------------
 * Write fault, read fault, write() of one page: the leaf lock.  Each holds it
 * from before it looks the page up until its PTE is in, or its data is copied.
 * So a fault never installs a page that another has just replaced, and two
 * writers of one shared page make one copy.
 *
 * Two faults below one shared node, in different leaves: tree_lock.  The second
 * finds the node exclusive.
 *
 * Any fault or write against what has snap exclusive: snap.  When the snapshot has
 * it, every PTE that was allowed is installed, and none is allowed until the
 * cut is done.  So one pass of revocation finds them all, and everything that
 * happened before any store in the snapshot is in it too: the cut is the moment
 * the last revocation is done.
 *
 * Faults, snapshots and closing of two buffers that share pages: they share no
 * lock.  Nodes with two owners never change, and owner counts rise only through
 * a tree that reaches the node.  A buffer that gives up a page has first zapped
 * and flushed its own PTEs of it, then drops its owner count with full order.
 * The last owner reads "1" with acquire, and in case of a page that had been
 * shared also that nobody holds a reference: a PTE, a pin, a pipe and a reader
 * of the other buffer all hold one.
 *
 * Restore, clone, dedupe, punch, all through cowmem_replace(): what comes in is
 * prepared as a tree of its own, with all that can fail; then the PTEs of what
 * differs are revoked, and it is grafted on, under tree_lock.  No fault and no
 * snapshot sees a part of it, because of snap.  A read(), which takes it for each
 * page anew, may have old pages before new ones, and not the reverse.
 *
 * Two-buffer operations in both directions, and groups: they hold all snap
 * locks that they need before they look at anything.
 *
 * GUP pins against snapshot: the PTE is zapped first, then the references are
 * read; GUP takes the reference first, then reads the PTE again.  A pin that
 * the snapshot does not see will not be; for one it does see it copies the page
 * for itself, and the pinned one stays with the live buffer.
 *
 * fork(): copies PTEs without asking.  The child's VMA is in i_mmap, behind its
 * parent's, before its PTEs are copied, so the revocation, which walks i_mmap
 * in that order, zaps the child's as well.  munmap(), exec, exit: may take the
 * VMA off i_mmap before its PTEs are zapped.  Such a PTE still holds a
 * reference, until the TLB is flushed, so the page looks pinned.
 *
 * MAP_PRIVATE write faults: the core copies the page after our locks are
 * dropped, under the page lock that the fault returned.  Truncate waits for
 * those locks before it unmaps for the second time, else a private copy could
 * stay beyond the end; who replaces a page, one or a range, waits for its lock
 * too, so truncate need not know it.
 *
 * Pages against the limit of their account: one atomic counter, raised before
 * the page is allocated, by who may.
 *
 * Close: the last handle or mapping holds the file, so nothing else can run on
 * the buffer, and it has no PTEs.
 *
 * Memory that is allocated under the inode lock or snap does no I/O: reclaim
 * could wait for a file system on a loop device on this very buffer.  See
 * cowmem_gfp() for what that means when there is none.
 *
 * Out of memory: everything that can fail comes before everything that changes
 * content or ownership; pages and nodes are allocated without sleeping under
 * the locks, and if that fails, with all locks dropped.
 */
#ifndef _COWMEM_BUFFER_H
#define _COWMEM_BUFFER_H

#include <linux/cowmem.h>
#include <linux/fs.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>

#include "account.h"
#include "tree.h"

#define COWMEM_LEAF_LOCKS	16
#define COWMEM_MAX_SIZE		((loff_t)MAX_LFS_FILESIZE & PAGE_MASK)

/**
 * struct cowmem_buffer - a buffer, and the inode that it is
 * @inode: in the internal file system; its i_size is the size, changed under
 *	@snap exclusive, or shared and the inode lock
 * @snap: see above
 * @leaf: see above
 * @tree_lock: protects @tree; its granted marks are also stable under @snap
 *	exclusive, and only changed there or under both locks
 * @tree: the pages
 * @account: what its pages count for; constant
 * @id: never used twice while the module is loaded; constant
 * @frozen: content and size never change again; constant once a file exists
 * @pinnable: mappings allow long-term write pins; constant once a file exists
 * @holes_mapped: the zero page may be mapped somewhere; set under the leaf lock
 *	of the hole, never cleared
 * @waiting: a bit for each of @leaf: a fault waits for others to let go of a page
 *	that it has a reference to itself
 * @faults: counter, as the following: see struct cowmem_stat
 * @filled: counter
 * @copied: counter
 * @reused: counter
 * @held: counter
 * @snapshots: counter
 * @name: NUL-terminated; constant once a file exists
 */
struct cowmem_buffer {
	struct inode inode;
	struct rw_semaphore snap;
	struct mutex leaf[COWMEM_LEAF_LOCKS];
	spinlock_t tree_lock;
	struct cowmem_tree tree;
	struct cowmem_account *account;
	u64 id;
	bool frozen;
	bool pinnable;
	bool holes_mapped;
	unsigned long waiting;
	atomic_long_t faults;
	atomic_long_t filled;
	atomic_long_t copied;
	atomic_long_t reused;
	atomic_long_t held;
	atomic_long_t snapshots;
	char name[COWMEM_NAME_MAX];
};

static inline struct cowmem_buffer *cowmem_buffer_of(struct inode *inode)
{
	return container_of(inode, struct cowmem_buffer, inode);
}

/* Every handle, of the device as of the file system, points to its buffer. */
static inline struct cowmem_buffer *cowmem_file_buffer(struct file *file)
{
	return file->private_data;
}

/**
 * cowmem_buffer_init() - set up what the inode does not
 * @buf: a new buffer
 * @origin: the buffer whose account it shares, or NULL for one of its own
 *
 * Return: 0 or -ENOMEM; then cowmem_buffer_destroy() is needed all the same.
 */
int cowmem_buffer_init(struct cowmem_buffer *buf, struct cowmem_buffer *origin);

/**
 * cowmem_buffer_destroy() - free what the inode does not
 * @buf: a buffer that nobody knows any more
 *
 * Context: may sleep.
 */
void cowmem_buffer_destroy(struct cowmem_buffer *buf);

/**
 * cowmem_buffer_lock() - keep a page from being replaced or mapped
 * @buf: the buffer
 * @index: page index
 *
 * Context: may sleep; takes snap shared and the leaf lock.
 * Return: 0, or -EINTR on a fatal signal.
 */
int cowmem_buffer_lock(struct cowmem_buffer *buf, pgoff_t index);

/**
 * cowmem_buffer_unlock() - undo cowmem_buffer_lock()
 * @buf: the buffer
 * @index: the same page index
 */
void cowmem_buffer_unlock(struct cowmem_buffer *buf, pgoff_t index);

/**
 * cowmem_buffers_lock() - take the snap locks of several buffers, exclusive
 * @bufs: the buffers; sorted afterwards; one may be there twice
 * @nr: how many
 *
 * Context: may sleep.
 * Return: 0, or -EINTR on a fatal signal.
 */
int cowmem_buffers_lock(struct cowmem_buffer **bufs, unsigned int nr);

/**
 * cowmem_buffers_unlock() - undo cowmem_buffers_lock()
 * @bufs: as it left them
 * @nr: how many
 */
void cowmem_buffers_unlock(struct cowmem_buffer **bufs, unsigned int nr);

/**
 * cowmem_buffer_nr_pages() - size of the buffer in pages, rounded up
 * @buf: the buffer; with snap held in any way the answer is stable, but for an
 *	extending write()
 *
 * Return: the first index beyond the end.
 */
static inline pgoff_t cowmem_buffer_nr_pages(struct cowmem_buffer *buf)
{
	return DIV_ROUND_UP_ULL(i_size_read(&buf->inode), PAGE_SIZE);
}

/**
 * cowmem_buffer_resident() - count the pages
 * @buf: the buffer
 *
 * Context: any.
 * Return: number of pages that the buffer reaches, shared or not.
 */
unsigned long cowmem_buffer_resident(struct cowmem_buffer *buf);

/**
 * cowmem_buffer_page() - look a page up
 * @buf: the buffer
 * @index: page index
 *
 * Context: any.
 * Return: the page with a reference for the caller, or NULL for a hole.
 */
struct page *cowmem_buffer_page(struct cowmem_buffer *buf, pgoff_t index);

/**
 * cowmem_buffer_read() - look a page up, to read from it
 * @buf: the buffer, with none of its locks held
 * @index: page index
 *
 * Waits while a range is replaced: who then reads on finds nothing older.
 *
 * Context: may sleep.
 * Return: the page with a reference for the caller, NULL for a hole,
 * ERR_PTR(-EIO) or ERR_PTR(-EINTR).
 */
struct page *cowmem_buffer_read(struct cowmem_buffer *buf, pgoff_t index);

/**
 * cowmem_buffer_own() - lock a page and make it exclusive
 * @buf: the buffer, not frozen
 * @index: page index
 * @known: a page that the caller holds a reference to, or NULL
 * @bounded: fail beyond the end
 * @reserve: an empty reserve; release it after cowmem_buffer_unlock()
 * @page: out: the page, granted, with no PTE of any other page at @index left
 *
 * Finds it exclusive, makes it so, copies it, or fills the hole.  Whatever
 * writes to a buffer goes through here.
 *
 * Context: may sleep; on success snap is held shared, and the leaf lock.
 * Return: 0, -ERANGE (@bounded, and beyond the end), -EIO, -ENOMEM, -ENOSPC,
 * -EINTR, or -EBUSY (@known): somebody waits for that reference to go.
 */
int cowmem_buffer_own(struct cowmem_buffer *buf, pgoff_t index,
		      struct page *known, bool bounded,
		      struct cowmem_reserve *reserve, struct page **page);

/**
 * cowmem_buffer_revoke() - zap and flush all PTEs of a range
 * @buf: the buffer, with snap exclusive, or locked at the one index
 * @index: start of the range
 * @nr: number of pages
 *
 * Private copies of MAP_PRIVATE mappings stay.
 *
 * Context: may sleep.
 */
void cowmem_buffer_revoke(struct cowmem_buffer *buf, pgoff_t index, pgoff_t nr);

/**
 * cowmem_buffer_resize() - change the size
 * @buf: the buffer, not frozen, with the inode lock held
 * @size: new size in bytes, at most COWMEM_MAX_SIZE
 *
 * Pages beyond the new end go; the rest of the last page reads as zero if the
 * buffer ever grows again.
 *
 * Context: may sleep.
 * Return: 0, -ENOMEM, -ENOSPC, -EIO or -EINTR; then nothing has changed.
 */
int cowmem_buffer_resize(struct cowmem_buffer *buf, loff_t size);

/**
 * cowmem_buffer_extend() - get ready for a write() beyond the end
 * @buf: the buffer, not frozen, with the inode lock held
 *
 * Stores through a mapping may have left something in the last page, beyond
 * the end: it must not appear when the buffer grows.
 *
 * Context: may sleep.
 * Return: 0, -ENOMEM, -ENOSPC, -EIO or -EINTR.
 */
int cowmem_buffer_extend(struct cowmem_buffer *buf);

/**
 * cowmem_buffer_zero() - zero a part of a page
 * @buf: the buffer, not frozen, with snap held and the inode lock
 * @start: first byte
 * @end: behind the last byte, at most the end of the same page
 * @reserve: where to take a page and nodes from; filled as needed
 *
 * Context: may sleep.
 * Return: 0, -ENOMEM, -ENOSPC, -EIO or -EINTR.
 */
int cowmem_buffer_zero(struct cowmem_buffer *buf, loff_t start, loff_t end,
		       struct cowmem_reserve *reserve);

/**
 * cowmem_buffer_zero_tail() - zero the rest of a page
 * @buf: the buffer, not frozen, with snap held and the inode lock
 * @end: where the rest begins, in bytes; if it is none, nothing is done
 * @reserve: where to take a page and nodes from; filled as needed
 *
 * What is hidden behind the end must not appear when the buffer grows.
 *
 * Context: may sleep.
 * Return: 0, -ENOMEM, -ENOSPC, -EIO or -EINTR.
 */
int cowmem_buffer_zero_tail(struct cowmem_buffer *buf, loff_t end,
			    struct cowmem_reserve *reserve);

/**
 * cowmem_buffer_unmap_beyond() - unmap all from an index on, for ever
 * @buf: the buffer, with snap exclusive
 * @first: page index
 *
 * Private copies of MAP_PRIVATE mappings go too, and nobody is about to make one.
 *
 * Context: may sleep.
 */
void cowmem_buffer_unmap_beyond(struct cowmem_buffer *buf, pgoff_t first);

/**
 * cowmem_buffer_set_size() - give a buffer of size 0 a size
 * @buf: the buffer, not frozen
 * @size: its size if it has none
 *
 * Context: may sleep.
 * Return: 0 or -EINTR.
 */
int cowmem_buffer_set_size(struct cowmem_buffer *buf, loff_t size);

#endif
