/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One page of memory: how it is allocated and charged, who owns it, how it is
 * copied.  Knows nothing of trees, buffers or mappings.
 *
 * Two counts, and the difference matters:
 *
 *	owners		how many tree slots hold the page, kept in
 *			page->private.  All owners together hold one page
 *			reference, so this count says nothing of the next.
 *	page_ref_count	that one reference, and one for every PTE, GUP pin,
 *			pipe buffer and reader in progress.
 *
 * A page may be written in place only by its one owner, and once it was shared
 * only if nobody else holds a reference either: see cowmem_page_held().
 */
#ifndef _COWMEM_PAGE_H
#define _COWMEM_PAGE_H

#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>

struct cowmem_account;

/**
 * cowmem_gfp() - what to allocate memory with, also under the inode lock or snap
 * @gfp: what would do without locks
 *
 * For an allocation that must do no I/O the kernel kills nobody, but tries again
 * until somebody else frees memory.  Let it fail instead.
 *
 * Return: @gfp, or more.
 */
static inline gfp_t cowmem_gfp(gfp_t gfp)
{
	if (gfp & ~current_gfp_context(gfp) & __GFP_FS)
		gfp |= __GFP_RETRY_MAYFAIL | __GFP_NOWARN;
	return gfp;
}

/**
 * cowmem_page_alloc() - allocate a page
 * @account: what it counts for; kept in the index of its folio until it is freed
 * @gfp: GFP_KERNEL or GFP_NOWAIT, and __GFP_ZERO if it is not to be copied to
 *
 * The page has one owner and is charged to the memory cgroup of current.
 *
 * Context: any that @gfp allows.
 * Return: the page, or an ERR_PTR: -ENOMEM, or -ENOSPC at the limit.
 */
struct page *cowmem_page_alloc(struct cowmem_account *account, gfp_t gfp);

/**
 * cowmem_page_push() - put a page on a list
 * @list: the first page of the list, or NULL
 * @page: a page that only the caller knows
 */
static inline void cowmem_page_push(struct page **list, struct page *page)
{
	page->lru.next = (void *)*list;
	*list = page;
}

/**
 * cowmem_page_pop() - take a page off a list
 * @list: the first page of the list, or NULL
 *
 * Return: the page that was first, or NULL.
 */
static inline struct page *cowmem_page_pop(struct page **list)
{
	struct page *page = *list;

	if (page)
		*list = (void *)page->lru.next;
	return page;
}

/**
 * cowmem_page_copy() - copy the content of a page
 * @dst: a page that only the caller knows
 * @src: a page that the caller owns or holds a reference to
 *
 * Context: any.
 * Return: 0, or -EIO if @src has a memory error.
 */
int cowmem_page_copy(struct page *dst, struct page *src);

/**
 * cowmem_page_take() - add an owner
 * @page: a page that a node reaches which the caller may read
 *
 * Context: any.
 */
void cowmem_page_take(struct page *page);

/**
 * cowmem_page_drop() - give up being an owner; the last one frees the page
 * @page: a page that the caller owns and has unmapped from its own mappings
 *
 * A page that is pinned lives on until it is unpinned.
 *
 * Context: any.
 */
void cowmem_page_drop(struct page *page);

/**
 * cowmem_page_owners() - count the owners
 * @page: a page that the caller owns
 *
 * "1" is stable while the caller keeps everybody from sharing its tree, and
 * then nothing that another owner did to the page is still to come.
 *
 * Context: any.
 * Return: number of tree slots that hold @page.
 */
unsigned long cowmem_page_owners(struct page *page);

/**
 * cowmem_page_held() - does anybody but owners hold a reference?
 * @page: a page that the caller owns
 * @known: references that the caller knows of and that do not matter
 *
 * References of PTEs last until the TLB is flushed, so "no" also means that no
 * CPU can reach the page through a stale TLB entry.  "No" is stable for a page
 * with one owner that the caller keeps from being mapped; "yes" may be
 * transient.  The two counts are never compared with each other, nor with the
 * map count: they cannot be read at one moment.
 *
 * Context: any.
 * Return: true if there are references besides the owners' and @known.
 */
bool cowmem_page_held(struct page *page, unsigned int known);

/**
 * cowmem_zero_page() - a page of zeroes to map read-only where there is a hole
 *
 * Shared by all buffers and never written.  Not the kernel's own, which
 * vm_insert_page() does not take for writable mappings.
 *
 * Context: any.
 * Return: the page without a reference of its own, or NULL if so many
 * mappings hold it that its reference count could overflow.
 */
struct page *cowmem_zero_page(void);

/**
 * cowmem_zero_pages_wait() - wait until nobody holds the lock of a zero page
 *
 * Context: may sleep.
 */
void cowmem_zero_pages_wait(void);

int cowmem_page_init(void);
void cowmem_page_exit(void);

#endif
