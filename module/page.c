// SPDX-License-Identifier: GPL-2.0
/*
 * One page of memory: see page.h.
 *
 * Pages are order 0, unmovable, on no LRU list, with page->mapping NULL: that
 * is what lets one page be in many buffers at once.
 */
#include <linux/err.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/pagemap.h>

#include "account.h"
#include "compat.h"
#include "page.h"

#define COWMEM_PAGE_GFP	(__GFP_HIGHMEM | __GFP_ACCOUNT | __GFP_NOWARN)

/* Enough that two CPUs rarely share one: each PTE of a hole is a reference. */
#define COWMEM_ZERO_PAGES	16

static struct page *zero_pages[COWMEM_ZERO_PAGES];

static atomic_long_t *page_owners(struct page *page)
{
	return (atomic_long_t *)&page->private;
}

struct page *cowmem_page_alloc(struct cowmem_account *account, gfp_t gfp)
{
	struct page *page;

	if (!cowmem_account_charge(account))
		return ERR_PTR(-ENOSPC);
	page = alloc_page(cowmem_gfp(gfp) | COWMEM_PAGE_GFP);
	if (!page) {
		cowmem_account_uncharge(account);
		return ERR_PTR(-ENOMEM);
	}
	atomic_long_set(page_owners(page), 1);
	page_folio(page)->index = (unsigned long)account;
	return page;
}

int cowmem_page_copy(struct page *dst, struct page *src)
{
	if (PageHWPoison(src) || copy_mc_user_highpage(dst, src, 0, NULL))
		return -EIO;
	return 0;
}

void cowmem_page_take(struct page *page)
{
	atomic_long_inc(page_owners(page));
}

void cowmem_page_drop(struct page *page)
{
	/* Full order: what this owner did comes before what the last does. */
	if (!atomic_long_dec_and_test(page_owners(page)))
		return;
	cowmem_account_uncharge((void *)page_folio(page)->index);
	put_page(page);
}

unsigned long cowmem_page_owners(struct page *page)
{
	return atomic_long_read_acquire(page_owners(page));
}

bool cowmem_page_held(struct page *page, unsigned int known)
{
	/*
	 * Pairs with the reference taken by GUP-fast, which re-reads the PTE
	 * after it: either it sees the PTE that was zapped before this and
	 * gives up, or its reference is seen here.
	 */
	smp_mb();
	return page_ref_count(page) > 1 + known;
}

struct page *cowmem_zero_page(void)
{
	struct page *page = zero_pages[raw_smp_processor_id() % COWMEM_ZERO_PAGES];
	int refs = page_ref_count(page);

	/* fork() and pins do not ask: leave them seven eighths. */
	return refs > 0 && refs < INT_MAX / 8 ? page : NULL;
}

void cowmem_zero_pages_wait(void)
{
	int i;

	for (i = 0; i < COWMEM_ZERO_PAGES; i++) {
		lock_page(zero_pages[i]);
		unlock_page(zero_pages[i]);
	}
}

void cowmem_page_exit(void)
{
	int i;

	for (i = 0; i < COWMEM_ZERO_PAGES; i++)
		if (zero_pages[i])
			put_page(zero_pages[i]);
}

int cowmem_page_init(void)
{
	int i;

	for (i = 0; i < COWMEM_ZERO_PAGES; i++) {
		zero_pages[i] = alloc_page(GFP_KERNEL | __GFP_ZERO);
		if (!zero_pages[i]) {
			cowmem_page_exit();
			return -ENOMEM;
		}
	}
	return 0;
}
