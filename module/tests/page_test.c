// SPDX-License-Identifier: GPL-2.0
/*
 * Pages: allocation, owner counts, copies, references of others, zero pages.
 *
 * Also built for user space by selftests/unit/.
 */
#include <kunit/test.h>
#include <linux/highmem.h>
#include <linux/module.h>
#include <linux/smp.h>
#include <linux/string.h>

#include "account.h"
#include "inject.h"
#include "page.h"

static void fill_page(struct page *page, int byte)
{
	void *kaddr = kmap_local_page(page);

	memset(kaddr, byte, PAGE_SIZE);
	kunmap_local(kaddr);
}

static bool page_is_full_of(struct page *page, int byte)
{
	void *kaddr = kmap_local_page(page);
	bool full = !memchr_inv(kaddr, byte, PAGE_SIZE);

	kunmap_local(kaddr);
	return full;
}

static struct page *new_page(struct kunit *test, gfp_t gfp)
{
	struct page *page = cowmem_page_alloc(test->priv, gfp);

	KUNIT_ASSERT_FALSE(test, IS_ERR(page));
	return page;
}

static int page_test_init(struct kunit *test)
{
	test->priv = cowmem_account_new(1, (kuid_t){ });
	return test->priv ? 0 : -ENOMEM;
}

static void page_test_exit(struct kunit *test)
{
	if (test->priv)
		cowmem_account_put(test->priv);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 0UL);
}

/* One page more than it may have; one that is freed makes room. */
static void page_test_limit(struct kunit *test)
{
	struct cowmem_account *account = test->priv;
	struct page *page, *other;

	account->limit = 2 * PAGE_SIZE + 1;
	page = new_page(test, GFP_KERNEL);
	other = new_page(test, GFP_KERNEL);
	KUNIT_EXPECT_PTR_EQ(test, cowmem_page_alloc(account, GFP_KERNEL),
			    (struct page *)ERR_PTR(-ENOSPC));
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 2UL);
	cowmem_page_drop(page);
	page = new_page(test, GFP_KERNEL);
	cowmem_page_drop(page);
	cowmem_page_drop(other);
	account->limit = 0;
	KUNIT_EXPECT_PTR_EQ(test, cowmem_page_alloc(account, GFP_KERNEL),
			    (struct page *)ERR_PTR(-ENOSPC));
}

static void page_test_max_pages(struct kunit *test)
{
	struct page *page;

	cowmem_max_pages = 1;
	page = new_page(test, GFP_KERNEL);
	KUNIT_EXPECT_PTR_EQ(test, cowmem_page_alloc(test->priv, GFP_KERNEL),
			    (struct page *)ERR_PTR(-ENOSPC));
	cowmem_max_pages = 0;
	cowmem_page_drop(new_page(test, GFP_KERNEL));
	cowmem_page_drop(page);
}

/* A page may outlive the buffers of its account. */
static void page_test_account_outlived(struct kunit *test)
{
	struct cowmem_account *account = cowmem_account_new(2, (kuid_t){ });
	struct page *page;

	KUNIT_ASSERT_NOT_NULL(test, account);
	page = cowmem_page_alloc(account, GFP_KERNEL);
	KUNIT_ASSERT_FALSE(test, IS_ERR(page));
	cowmem_account_put(cowmem_account_get(account));
	cowmem_account_put(account);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 1UL);
	cowmem_page_drop(page);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 0UL);
}

static void page_test_alloc(struct kunit *test)
{
	struct page *page = new_page(test, GFP_KERNEL);
	struct page *zeroed = new_page(test, GFP_KERNEL | __GFP_ZERO);

	KUNIT_EXPECT_EQ(test, cowmem_pages(), 2UL);
	KUNIT_EXPECT_EQ(test, cowmem_page_owners(page), 1UL);
	KUNIT_EXPECT_EQ(test, page_ref_count(page), 1);
	KUNIT_EXPECT_TRUE(test, page_is_full_of(zeroed, 0));
	cowmem_page_drop(zeroed);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 1UL);
	cowmem_page_drop(page);
}

static void page_test_alloc_fails(struct kunit *test)
{
	struct page *page;

	if (!cowmem_inject_failures(0, 1))
		kunit_skip(test, "allocations cannot be made to fail");
	page = cowmem_page_alloc(test->priv, GFP_KERNEL);
	KUNIT_EXPECT_PTR_EQ(test, page, (struct page *)ERR_PTR(-ENOMEM));
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 0UL);
}

static void page_test_owners(struct kunit *test)
{
	struct page *page = new_page(test, GFP_KERNEL);

	cowmem_page_take(page);
	cowmem_page_take(page);
	KUNIT_EXPECT_EQ(test, cowmem_page_owners(page), 3UL);
	/* However many owners: one page, one reference. */
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 1UL);
	KUNIT_EXPECT_EQ(test, page_ref_count(page), 1);

	cowmem_page_drop(page);
	cowmem_page_drop(page);
	KUNIT_EXPECT_EQ(test, cowmem_page_owners(page), 1UL);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 1UL);
	KUNIT_EXPECT_EQ(test, page_ref_count(page), 1);
	cowmem_page_drop(page);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 0UL);
}

/* The last drop gives up one reference, not the page under a pin. */
static void page_test_drop_pinned(struct kunit *test)
{
	struct page *page = new_page(test, GFP_KERNEL);

	fill_page(page, 0x17);
	get_page(page);
	cowmem_page_drop(page);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 0UL);
	KUNIT_EXPECT_EQ(test, page_ref_count(page), 1);
	KUNIT_EXPECT_TRUE(test, page_is_full_of(page, 0x17));
	put_page(page);
}

static void page_test_copy(struct kunit *test)
{
	struct page *src = new_page(test, GFP_KERNEL);
	struct page *dst = new_page(test, GFP_KERNEL | __GFP_ZERO);

	fill_page(src, 0x2a);
	KUNIT_EXPECT_EQ(test, cowmem_page_copy(dst, src), 0);
	KUNIT_EXPECT_TRUE(test, page_is_full_of(dst, 0x2a));
	fill_page(src, 0x2b);
	KUNIT_EXPECT_TRUE(test, page_is_full_of(dst, 0x2a));
	KUNIT_EXPECT_EQ(test, cowmem_page_owners(src), 1UL);
	KUNIT_EXPECT_EQ(test, cowmem_page_owners(dst), 1UL);
	cowmem_page_drop(dst);
	cowmem_page_drop(src);
}

static void page_test_copy_poisoned(struct kunit *test)
{
	struct page *src = new_page(test, GFP_KERNEL | __GFP_ZERO);
	struct page *dst = new_page(test, GFP_KERNEL);
	bool poisoned;
	int err;

	fill_page(dst, 0x2a);
	SetPageHWPoison(src);
	poisoned = PageHWPoison(src);
	err = cowmem_page_copy(dst, src);
	ClearPageHWPoison(src);
	if (poisoned) {
		KUNIT_EXPECT_EQ(test, err, -EIO);
		KUNIT_EXPECT_TRUE(test, page_is_full_of(dst, 0x2a));
	}
	cowmem_page_drop(dst);
	cowmem_page_drop(src);
	if (!poisoned)
		kunit_skip(test, "kernel without CONFIG_MEMORY_FAILURE");
}

static void page_test_held(struct kunit *test)
{
	struct page *page = new_page(test, GFP_KERNEL);

	KUNIT_EXPECT_FALSE(test, cowmem_page_held(page, 0));
	get_page(page);
	KUNIT_EXPECT_TRUE(test, cowmem_page_held(page, 0));
	KUNIT_EXPECT_FALSE(test, cowmem_page_held(page, 1));
	get_page(page);
	KUNIT_EXPECT_TRUE(test, cowmem_page_held(page, 1));
	put_page(page);
	put_page(page);
	KUNIT_EXPECT_FALSE(test, cowmem_page_held(page, 0));

	/* Owners do not hold it in this sense. */
	cowmem_page_take(page);
	KUNIT_EXPECT_FALSE(test, cowmem_page_held(page, 0));
	cowmem_page_drop(page);
	cowmem_page_drop(page);
}

/* As many calls as find the pages of many CPUs. */
static void page_test_zero_page(struct kunit *test)
{
	struct page *page;
	int i;

	for (i = 0; i < 64; i++) {
		get_cpu();
		page = cowmem_zero_page();
		put_cpu();
		KUNIT_ASSERT_NOT_NULL(test, page);
		KUNIT_EXPECT_TRUE(test, page_is_full_of(page, 0));
	}
	/* They belong to no buffer. */
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 0UL);
	cowmem_zero_pages_wait();
}

static void page_test_zero_page_limit(struct kunit *test)
{
	const int nr = INT_MAX / 8;
	struct page *before, *full = NULL, *after;

	/* On one CPU, so that it is the same page every time. */
	get_cpu();
	before = cowmem_zero_page();
	if (before) {
		page_ref_add(before, nr);
		full = cowmem_zero_page();
		page_ref_sub(before, nr);
	}
	after = cowmem_zero_page();
	put_cpu();
	KUNIT_ASSERT_NOT_NULL(test, before);
	KUNIT_EXPECT_NULL(test, full);
	KUNIT_EXPECT_PTR_EQ(test, after, before);
}

static struct kunit_case page_test_cases[] = {
	KUNIT_CASE(page_test_alloc),
	KUNIT_CASE(page_test_alloc_fails),
	KUNIT_CASE(page_test_limit),
	KUNIT_CASE(page_test_max_pages),
	KUNIT_CASE(page_test_account_outlived),
	KUNIT_CASE(page_test_owners),
	KUNIT_CASE(page_test_drop_pinned),
	KUNIT_CASE(page_test_copy),
	KUNIT_CASE(page_test_copy_poisoned),
	KUNIT_CASE(page_test_held),
	KUNIT_CASE(page_test_zero_page),
	KUNIT_CASE(page_test_zero_page_limit),
	{ }
};

static struct kunit_suite page_test_suite = {
	.name		= "cowmem_page",
	.init		= page_test_init,
	.exit		= page_test_exit,
	.test_cases	= page_test_cases,
};
kunit_test_suites(&page_test_suite);
