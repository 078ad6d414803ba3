// SPDX-License-Identifier: GPL-2.0
/*
 * Buffers and snapshots without mappings: which page a buffer owns after what,
 * what is copied and what is not, pins, sizes, errors.
 *
 * A pin, a pipe, a PTE: all are one more reference to a page, and that is what
 * get_page() stands for here.
 */
#include <kunit/test.h>
#include <linux/highmem.h>
#include <linux/module.h>
#include <linux/string.h>

#include "fixture.h"

#define NR_PAGES	(4 * COWMEM_NODE_SLOTS)

static int buffer_test_init(struct kunit *test)
{
	return fixture_init(test, NR_PAGES << PAGE_SHIFT);
}

static void buffer_test_exit(struct kunit *test)
{
	fixture_exit(test, 0);
}

static int try_own(struct kunit *test, pgoff_t index, struct page *known,
		   bool bounded, struct page **page)
{
	struct fixture *f = test->priv;
	struct cowmem_reserve reserve = { };
	int err;

	err = cowmem_buffer_own(f->buf, index, known, bounded, &reserve, page);
	if (!err)
		cowmem_buffer_unlock(f->buf, index);
	cowmem_reserve_release(&reserve);
	return err;
}

static struct page *own(struct kunit *test, pgoff_t index)
{
	struct page *page = NULL;

	KUNIT_ASSERT_EQ(test, try_own(test, index, NULL, true, &page), 0);
	KUNIT_ASSERT_NOT_NULL(test, page);
	return page;
}

static void fill_page(struct page *page, int byte)
{
	void *kaddr = kmap_local_page(page);

	memset(kaddr, byte, PAGE_SIZE);
	kunmap_local(kaddr);
}

static bool range_is(struct page *page, unsigned int start, unsigned int end,
		     int byte)
{
	char *kaddr = kmap_local_page(page);
	bool equal = !memchr_inv(kaddr + start, byte, end - start);

	kunmap_local(kaddr);
	return equal;
}

/* Like write(): own a page and fill it. */
static struct page *write_page(struct kunit *test, pgoff_t index, int byte)
{
	struct page *page = own(test, index);

	fill_page(page, byte);
	return page;
}

/* The page at @index; the buffer goes on owning it. */
static struct page *page_at(struct cowmem_buffer *buf, pgoff_t index)
{
	struct page *page = cowmem_buffer_page(buf, index);

	if (page)
		put_page(page);
	return page;
}

static void expect_counts(struct kunit *test, long filled, long copied,
			  long reused, long held)
{
	struct fixture *f = test->priv;

	KUNIT_EXPECT_EQ(test, atomic_long_read(&f->buf->filled), filled);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&f->buf->copied), copied);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&f->buf->reused), reused);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&f->buf->held), held);
}

static void resize(struct kunit *test, loff_t size)
{
	struct fixture *f = test->priv;
	int err;

	inode_lock(&f->buf->inode);
	err = cowmem_buffer_resize(f->buf, size);
	inode_unlock(&f->buf->inode);
	KUNIT_ASSERT_EQ(test, err, 0);
	KUNIT_ASSERT_EQ(test, i_size_read(&f->buf->inode), size);
}

static void buffer_test_empty(struct kunit *test)
{
	struct fixture *f = test->priv;

	KUNIT_EXPECT_EQ(test, cowmem_buffer_nr_pages(f->buf), NR_PAGES);
	KUNIT_EXPECT_EQ(test, cowmem_buffer_resident(f->buf), 0UL);
	KUNIT_EXPECT_NULL(test, cowmem_buffer_page(f->buf, 0));
	KUNIT_EXPECT_EQ(test, cowmem_nodes(), f->nr_nodes);
	/* Only a buffer without a size gets one this way. */
	KUNIT_EXPECT_EQ(test, cowmem_buffer_set_size(f->buf, PAGE_SIZE), 0);
	KUNIT_EXPECT_EQ(test, cowmem_buffer_nr_pages(f->buf), NR_PAGES);
}

static void buffer_test_fill(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct page *page = own(test, 3);

	KUNIT_EXPECT_TRUE(test, range_is(page, 0, PAGE_SIZE, 0));
	KUNIT_EXPECT_PTR_EQ(test, page_at(f->buf, 3), page);
	KUNIT_EXPECT_NULL(test, page_at(f->buf, 2));
	KUNIT_EXPECT_NULL(test, page_at(f->buf, 4));
	expect_counts(test, 1, 0, 0, 0);

	KUNIT_EXPECT_PTR_EQ(test, own(test, 3), page);
	expect_counts(test, 1, 0, 0, 0);
	KUNIT_EXPECT_EQ(test, cowmem_buffer_resident(f->buf), 1UL);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 1UL);
}

/* A reference that the caller gets is one of its own. */
static void buffer_test_page_reference(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct page *page = own(test, 0);

	KUNIT_EXPECT_EQ(test, page_ref_count(page), 1);
	KUNIT_EXPECT_PTR_EQ(test, cowmem_buffer_page(f->buf, 0), page);
	KUNIT_EXPECT_EQ(test, page_ref_count(page), 2);
	put_page(page);
}

static void buffer_test_bounded(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct page *page;

	KUNIT_EXPECT_EQ(test, try_own(test, NR_PAGES, NULL, true, &page), -ERANGE);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 0UL);
	own(test, NR_PAGES - 1);
	/* A write() that extends the buffer asks for the page before. */
	KUNIT_EXPECT_EQ(test, try_own(test, NR_PAGES, NULL, false, &page), 0);
	KUNIT_EXPECT_EQ(test, cowmem_buffer_resident(f->buf), 2UL);
}

static void buffer_test_poisoned(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct page *page = own(test, 0), *same;
	bool poisoned;
	int granted, shared;

	SetPageHWPoison(page);
	poisoned = PageHWPoison(page);
	granted = try_own(test, 0, NULL, true, &same);
	ClearPageHWPoison(page);
	take_snapshot(test);
	SetPageHWPoison(page);
	shared = try_own(test, 0, NULL, true, &same);
	ClearPageHWPoison(page);
	if (!poisoned)
		kunit_skip(test, "kernel without CONFIG_MEMORY_FAILURE");
	KUNIT_EXPECT_EQ(test, granted, -EIO);
	KUNIT_EXPECT_EQ(test, shared, -EIO);
	/* Nothing has changed, and without the error it works. */
	KUNIT_EXPECT_PTR_EQ(test, page_at(f->buf, 0), page);
	own(test, 0);
	expect_counts(test, 1, 1, 0, 0);
}

static void buffer_test_snapshot(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct page *old = write_page(test, 5, 0x11), *page;

	take_snapshot(test);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 1UL);
	KUNIT_EXPECT_EQ(test, i_size_read(&f->snap->inode),
			i_size_read(&f->buf->inode));
	KUNIT_EXPECT_EQ(test, atomic_long_read(&f->buf->snapshots), 1L);
	KUNIT_EXPECT_PTR_EQ(test, f->snap->account, f->buf->account);
	KUNIT_EXPECT_PTR_EQ(test, page_at(f->snap, 5), old);

	page = write_page(test, 5, 0x22);
	KUNIT_EXPECT_PTR_NE(test, page, old);
	expect_counts(test, 1, 1, 0, 0);
	KUNIT_EXPECT_PTR_EQ(test, own(test, 5), page);
	expect_counts(test, 1, 1, 0, 0);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 2UL);
	KUNIT_EXPECT_PTR_EQ(test, page_at(f->snap, 5), old);
	KUNIT_EXPECT_TRUE(test, range_is(old, 0, PAGE_SIZE, 0x11));
}

/* The copy begins as what was there. */
static void buffer_test_copy_content(struct kunit *test)
{
	write_page(test, 0, 0x33);
	take_snapshot(test);
	KUNIT_EXPECT_TRUE(test, range_is(own(test, 0), 0, PAGE_SIZE, 0x33));
}

/* A hole that is filled after a snapshot stays one in the snapshot. */
static void buffer_test_snapshot_hole(struct kunit *test)
{
	struct fixture *f = test->priv;

	write_page(test, 0, 0x11);
	take_snapshot(test);
	write_page(test, 1, 0x22);
	KUNIT_EXPECT_NULL(test, page_at(f->snap, 1));
	KUNIT_EXPECT_EQ(test, cowmem_buffer_resident(f->snap), 1UL);
	KUNIT_EXPECT_EQ(test, cowmem_buffer_resident(f->buf), 2UL);
	expect_counts(test, 2, 0, 0, 0);
}

static void buffer_test_snapshot_of_nothing(struct kunit *test)
{
	struct fixture *f = test->priv;

	take_snapshot(test);
	KUNIT_EXPECT_EQ(test, cowmem_buffer_resident(f->snap), 0UL);
	KUNIT_EXPECT_EQ(test, cowmem_buffer_nr_pages(f->snap), NR_PAGES);
	own(test, 0);
	expect_counts(test, 1, 0, 0, 0);
}

static void buffer_test_reuse(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct page *page = write_page(test, 0, 0x11);

	take_snapshot(test);
	put_snapshot(f);
	KUNIT_EXPECT_PTR_EQ(test, own(test, 0), page);
	expect_counts(test, 1, 0, 1, 0);
	/* Granted now: not even asked. */
	KUNIT_EXPECT_PTR_EQ(test, own(test, 0), page);
	expect_counts(test, 1, 0, 1, 0);
	KUNIT_EXPECT_TRUE(test, range_is(page, 0, PAGE_SIZE, 0x11));
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 1UL);
}

/* One page copied, the snapshot gone: the copy stays, the other is reused. */
static void buffer_test_reuse_neighbour(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct page *page = write_page(test, 0, 0x11);

	write_page(test, 1, 0x11);
	take_snapshot(test);
	write_page(test, 1, 0x22);
	KUNIT_EXPECT_EQ(test, cowmem_page_owners(page), 2UL);
	put_snapshot(f);
	KUNIT_EXPECT_EQ(test, cowmem_page_owners(page), 1UL);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 2UL);
	KUNIT_EXPECT_PTR_EQ(test, own(test, 0), page);
	expect_counts(test, 2, 1, 1, 0);
}

/* The snapshot is gone, but not all who read it. */
static void buffer_test_held(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct page *old = write_page(test, 0, 0x11), *page;

	take_snapshot(test);
	KUNIT_ASSERT_PTR_EQ(test, cowmem_buffer_page(f->snap, 0), old);
	put_snapshot(f);
	page = write_page(test, 0, 0x22);
	KUNIT_EXPECT_PTR_NE(test, page, old);
	expect_counts(test, 1, 1, 0, 1);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 1UL);
	KUNIT_EXPECT_EQ(test, page_ref_count(old), 1);
	KUNIT_EXPECT_TRUE(test, range_is(old, 0, PAGE_SIZE, 0x11));
	put_page(old);
}

/* A reference that the caller itself holds does not count. */
static void buffer_test_known(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct page *old = write_page(test, 0, 0x11), *page = NULL;
	int err;

	take_snapshot(test);
	put_snapshot(f);
	get_page(old);
	err = try_own(test, 0, old, true, &page);
	put_page(old);
	KUNIT_EXPECT_EQ(test, err, 0);
	KUNIT_EXPECT_PTR_EQ(test, page, old);
	expect_counts(test, 1, 0, 1, 0);
}

/* Whoever pinned a page goes on writing to the live buffer, and only there. */
static void buffer_test_pinned(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct page *pinned = write_page(test, 3, 0x11), *copy;

	write_page(test, 4, 0x44);
	get_page(pinned);
	take_snapshot(test);
	copy = page_at(f->snap, 3);
	KUNIT_EXPECT_PTR_EQ(test, page_at(f->buf, 3), pinned);
	KUNIT_ASSERT_NOT_NULL(test, copy);
	KUNIT_EXPECT_PTR_NE(test, copy, pinned);
	KUNIT_EXPECT_TRUE(test, range_is(copy, 0, PAGE_SIZE, 0x11));
	KUNIT_EXPECT_EQ(test, cowmem_page_owners(pinned), 1UL);
	KUNIT_EXPECT_EQ(test, cowmem_page_owners(copy), 1UL);
	/* The neighbour is shared as always. */
	KUNIT_EXPECT_PTR_EQ(test, page_at(f->snap, 4), page_at(f->buf, 4));
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 3UL);

	/* Still granted: no look at its references, no copy but the snapshot's. */
	KUNIT_EXPECT_PTR_EQ(test, write_page(test, 3, 0x22), pinned);
	expect_counts(test, 2, 1, 0, 1);
	KUNIT_EXPECT_TRUE(test, range_is(copy, 0, PAGE_SIZE, 0x11));
	put_page(pinned);
}

/* As long as the pin lasts, each snapshot makes its own copy. */
static void buffer_test_pinned_again(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct page *pinned = write_page(test, 3, 0x11);

	get_page(pinned);
	take_snapshot(test);
	put_snapshot(f);
	fill_page(pinned, 0x22);
	take_snapshot(test);
	KUNIT_EXPECT_PTR_EQ(test, page_at(f->buf, 3), pinned);
	KUNIT_EXPECT_PTR_NE(test, page_at(f->snap, 3), pinned);
	KUNIT_EXPECT_TRUE(test, range_is(page_at(f->snap, 3), 0, PAGE_SIZE, 0x22));
	put_page(pinned);

	/* And when it is gone, the page is shared like any other. */
	put_snapshot(f);
	take_snapshot(test);
	KUNIT_EXPECT_PTR_EQ(test, page_at(f->snap, 3), pinned);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 1UL);
}

/* Pins in several leaves, with one and with two pages. */
static void buffer_test_pinned_many(struct kunit *test)
{
	static const pgoff_t index[] = {
		0, 1, COWMEM_NODE_SLOTS - 1, COWMEM_NODE_SLOTS, NR_PAGES - 1
	};
	struct fixture *f = test->priv;
	struct page *page[ARRAY_SIZE(index)];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(index); i++) {
		page[i] = write_page(test, index[i], i + 1);
		get_page(page[i]);
	}
	take_snapshot(test);
	for (i = 0; i < ARRAY_SIZE(index); i++) {
		struct page *copy = page_at(f->snap, index[i]);

		KUNIT_EXPECT_PTR_EQ(test, own(test, index[i]), page[i]);
		KUNIT_EXPECT_PTR_NE(test, copy, page[i]);
		KUNIT_EXPECT_TRUE(test, range_is(copy, 0, PAGE_SIZE, i + 1));
		put_page(page[i]);
	}
	expect_counts(test, ARRAY_SIZE(index), ARRAY_SIZE(index), 0,
		      ARRAY_SIZE(index));
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 2 * ARRAY_SIZE(index));
}

/* A snapshot that fails leaves the buffer as it was. */
static void buffer_test_snapshot_fails(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct page *page = write_page(test, 0, 0x11);
	bool poisoned;
	int err;

	f->snap = cowmem_fs_buffer(f->mnt, f->buf);
	if (IS_ERR(f->snap))
		f->snap = NULL;
	KUNIT_ASSERT_NOT_NULL(test, f->snap);
	get_page(page);
	SetPageHWPoison(page);
	poisoned = PageHWPoison(page);
	err = take_shot(f);
	ClearPageHWPoison(page);
	put_page(page);
	if (!poisoned)
		kunit_skip(test, "kernel without CONFIG_MEMORY_FAILURE");
	KUNIT_EXPECT_EQ(test, err, -EIO);
	KUNIT_EXPECT_EQ(test, cowmem_buffer_resident(f->snap), 0UL);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&f->buf->snapshots), 0L);
	KUNIT_EXPECT_PTR_EQ(test, own(test, 0), page);
	expect_counts(test, 1, 0, 0, 0);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 1UL);
}

static void buffer_test_shrink(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct page *page = write_page(test, 1, 0xff);

	write_page(test, 2, 0xff);
	write_page(test, NR_PAGES - 1, 0xff);
	resize(test, PAGE_SIZE + 100);
	KUNIT_EXPECT_EQ(test, cowmem_buffer_nr_pages(f->buf), 2UL);
	KUNIT_EXPECT_EQ(test, cowmem_buffer_resident(f->buf), 1UL);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 1UL);
	KUNIT_EXPECT_PTR_EQ(test, page_at(f->buf, 1), page);
	KUNIT_EXPECT_TRUE(test, range_is(page, 0, 100, 0xff));
	KUNIT_EXPECT_TRUE(test, range_is(page, 100, PAGE_SIZE, 0));

	resize(test, 0);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 0UL);
	resize(test, NR_PAGES << PAGE_SHIFT);
	KUNIT_EXPECT_EQ(test, cowmem_buffer_resident(f->buf), 0UL);
}

/* The end in the middle of a hole: nothing to zero, nothing to fill. */
static void buffer_test_shrink_hole(struct kunit *test)
{
	write_page(test, 0, 0xff);
	resize(test, PAGE_SIZE + 100);
	resize(test, 3 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 1UL);
	expect_counts(test, 1, 0, 0, 0);
}

static void buffer_test_shrink_shared(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct page *old = write_page(test, 1, 0xff);

	write_page(test, 2, 0xff);
	take_snapshot(test);
	resize(test, PAGE_SIZE + 100);
	KUNIT_EXPECT_EQ(test, cowmem_buffer_resident(f->buf), 1UL);
	KUNIT_EXPECT_TRUE(test, range_is(page_at(f->buf, 1), 100, PAGE_SIZE, 0));
	/* The snapshot has size and content as before. */
	KUNIT_EXPECT_EQ(test, cowmem_buffer_nr_pages(f->snap), NR_PAGES);
	KUNIT_EXPECT_EQ(test, cowmem_buffer_resident(f->snap), 2UL);
	KUNIT_EXPECT_PTR_EQ(test, page_at(f->snap, 1), old);
	KUNIT_EXPECT_TRUE(test, range_is(old, 0, PAGE_SIZE, 0xff));
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 3UL);
}

/* Stores through a mapping reach beyond the end, and must not come back. */
static void buffer_test_grow(struct kunit *test)
{
	struct page *page;

	resize(test, PAGE_SIZE + 100);
	page = write_page(test, 1, 0xff);
	resize(test, NR_PAGES << PAGE_SHIFT);
	KUNIT_EXPECT_TRUE(test, range_is(page, 0, 100, 0xff));
	KUNIT_EXPECT_TRUE(test, range_is(page, 100, PAGE_SIZE, 0));
}

static void buffer_test_extend(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct page *page;
	int err;

	resize(test, PAGE_SIZE + 100);
	page = write_page(test, 1, 0xff);
	take_snapshot(test);
	inode_lock(&f->buf->inode);
	err = cowmem_buffer_extend(f->buf);
	inode_unlock(&f->buf->inode);
	KUNIT_EXPECT_EQ(test, err, 0);
	KUNIT_EXPECT_EQ(test, i_size_read(&f->buf->inode), PAGE_SIZE + 100);
	KUNIT_EXPECT_TRUE(test, range_is(page, 0, PAGE_SIZE, 0xff));
	page = page_at(f->buf, 1);
	KUNIT_EXPECT_TRUE(test, range_is(page, 0, 100, 0xff));
	KUNIT_EXPECT_TRUE(test, range_is(page, 100, PAGE_SIZE, 0));
	expect_counts(test, 1, 1, 0, 0);
}

static struct kunit_case buffer_test_cases[] = {
	KUNIT_CASE(buffer_test_empty),
	KUNIT_CASE(buffer_test_fill),
	KUNIT_CASE(buffer_test_page_reference),
	KUNIT_CASE(buffer_test_bounded),
	KUNIT_CASE(buffer_test_poisoned),
	KUNIT_CASE(buffer_test_snapshot),
	KUNIT_CASE(buffer_test_copy_content),
	KUNIT_CASE(buffer_test_snapshot_hole),
	KUNIT_CASE(buffer_test_snapshot_of_nothing),
	KUNIT_CASE(buffer_test_reuse),
	KUNIT_CASE(buffer_test_reuse_neighbour),
	KUNIT_CASE(buffer_test_held),
	KUNIT_CASE(buffer_test_known),
	KUNIT_CASE(buffer_test_pinned),
	KUNIT_CASE(buffer_test_pinned_again),
	KUNIT_CASE(buffer_test_pinned_many),
	KUNIT_CASE(buffer_test_snapshot_fails),
	KUNIT_CASE(buffer_test_shrink),
	KUNIT_CASE(buffer_test_shrink_hole),
	KUNIT_CASE(buffer_test_shrink_shared),
	KUNIT_CASE(buffer_test_grow),
	KUNIT_CASE(buffer_test_extend),
	{ }
};

static struct kunit_suite buffer_test_suite = {
	.name		= "cowmem_buffer",
	.init		= buffer_test_init,
	.exit		= buffer_test_exit,
	.test_cases	= buffer_test_cases,
};
kunit_test_suites(&buffer_test_suite);
