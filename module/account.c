// SPDX-License-Identifier: GPL-2.0
/*
 * Accounts: see account.h.
 */
#include <linux/limits.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "account.h"

unsigned long cowmem_max_pages;

static atomic_long_t nr_pages;

struct cowmem_account *cowmem_account_new(u64 id, kuid_t uid)
{
	struct cowmem_account *account;

	account = kmalloc(sizeof(*account), GFP_KERNEL_ACCOUNT);
	if (!account)
		return NULL;
	atomic_long_set(&account->buffers, 1);
	atomic_long_set(&account->pages, 1);
	account->limit = U64_MAX;
	account->id = id;
	account->uid = uid;
	return account;
}

struct cowmem_account *cowmem_account_get(struct cowmem_account *account)
{
	atomic_long_inc(&account->buffers);
	return account;
}

static void pages_dec(struct cowmem_account *account)
{
	if (atomic_long_dec_and_test(&account->pages))
		kfree(account);
}

void cowmem_account_put(struct cowmem_account *account)
{
	if (atomic_long_dec_and_test(&account->buffers))
		pages_dec(account);
}

/* Not an increment that is taken back: another would fail because of it. */
static bool inc_below(atomic_long_t *counter, unsigned long limit)
{
	long old = atomic_long_read(counter);

	do {
		if ((unsigned long)old >= limit)
			return false;
	} while (!atomic_long_try_cmpxchg(counter, &old, old + 1));
	return true;
}

bool cowmem_account_charge(struct cowmem_account *account)
{
	unsigned long limit = READ_ONCE(account->limit) >> PAGE_SHIFT;
	unsigned long max_pages = READ_ONCE(cowmem_max_pages);

	/* There is one more while there are buffers. */
	if (!inc_below(&account->pages, limit + 1))
		return false;
	if (!inc_below(&nr_pages, max_pages ?: ULONG_MAX)) {
		atomic_long_dec(&account->pages);
		return false;
	}
	return true;
}

void cowmem_account_uncharge(struct cowmem_account *account)
{
	atomic_long_dec(&nr_pages);
	pages_dec(account);
}

unsigned long cowmem_account_pages(const struct cowmem_account *account)
{
	/* There is one more while there are buffers. */
	return atomic_long_read(&account->pages) - 1;
}

unsigned long cowmem_pages(void)
{
	return atomic_long_read(&nr_pages);
}
