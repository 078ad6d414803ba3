/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Accounts: how many pages the buffers of one family hold, and may hold.
 *
 * Made with a fresh buffer and shared by all its snapshots and clones.  A page
 * counts for the account whose buffer it was allocated for, until it is freed,
 * whoever owns it by then; so an account may outlive its buffers.
 */
#ifndef _COWMEM_ACCOUNT_H
#define _COWMEM_ACCOUNT_H

#include <linux/atomic.h>
#include <linux/types.h>
#include <linux/uidgid.h>

/**
 * struct cowmem_account - an account
 * @buffers: how many buffers count for it
 * @pages: pages that count for it, and one more while there are buffers: who
 *	takes the last away frees it
 * @limit: bytes of pages that it may have; U64_MAX: any
 * @id: never used twice while the module is loaded; constant
 * @uid: who may set @limit; constant
 */
struct cowmem_account {
	atomic_long_t buffers;
	atomic_long_t pages;
	u64 limit;
	u64 id;
	kuid_t uid;
};

/**
 * cowmem_account_new() - make an account with one buffer
 * @id: its number
 * @uid: who may set its limit
 *
 * Context: may sleep.
 * Return: the account, or NULL.
 */
struct cowmem_account *cowmem_account_new(u64 id, kuid_t uid);

/**
 * cowmem_account_get() - add a buffer
 * @account: an account that has one
 *
 * Context: any.
 * Return: @account.
 */
struct cowmem_account *cowmem_account_get(struct cowmem_account *account);

/**
 * cowmem_account_put() - a buffer is gone
 * @account: the account; may be gone too, afterwards
 *
 * Context: any.
 */
void cowmem_account_put(struct cowmem_account *account);

/**
 * cowmem_account_charge() - count one more page
 * @account: an account that has a buffer
 *
 * Never lets the account, nor all of them together, have more than they may,
 * not even for a moment.
 *
 * Context: any.
 * Return: true, or false at the limit of the account or of the module.
 */
bool cowmem_account_charge(struct cowmem_account *account);

/**
 * cowmem_account_uncharge() - count one page less
 * @account: what the page was charged to; may be gone afterwards
 *
 * Context: any.
 */
void cowmem_account_uncharge(struct cowmem_account *account);

/**
 * cowmem_account_pages() - count the pages that count for an account
 * @account: an account that has a buffer
 *
 * Context: any.
 * Return: their number.
 */
unsigned long cowmem_account_pages(const struct cowmem_account *account);

/**
 * cowmem_pages() - count the pages that have an owner
 *
 * Context: any.
 * Return: the number of pages that all buffers hold, each counted once.
 */
unsigned long cowmem_pages(void);

/* Most pages that all accounts together may have; 0: no limit. */
extern unsigned long cowmem_max_pages;

#endif
