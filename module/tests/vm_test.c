// SPDX-License-Identifier: GPL-2.0
/*
 * Mappings: real page faults, taken by the kernel's own copies to and from a
 * user address of the test's thread, for which KUnit makes an address space.
 *
 * What a mapping leaves behind goes with that address space, a moment after the
 * test: so its exit waits for the counts to become what they were.
 */
#include <kunit/test.h>
#include <linux/file.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/uaccess.h>

#include "fixture.h"

#define NR_PAGES	8
#define NR_BYTES	(NR_PAGES * PAGE_SIZE)

static int vm_test_init(struct kunit *test)
{
	return fixture_init(test, NR_BYTES);
}

static void vm_test_exit(struct kunit *test)
{
	fixture_exit(test, 500);
}

/* Two pages more than the buffer has, so that there is something beyond it. */
static unsigned long map(struct kunit *test, struct cowmem_buffer *buf,
			 int open_flags, unsigned long prot, unsigned long flags)
{
	struct fixture *f = test->priv;
	struct file *file = cowmem_fs_file(f->mnt, buf, open_flags);
	unsigned long addr;

	KUNIT_ASSERT_FALSE(test, IS_ERR(file));
	addr = kunit_vm_mmap(test, file, 0, NR_BYTES + 2 * PAGE_SIZE, prot,
			     flags, 0);
	fput(file);
	KUNIT_ASSERT_NE(test, addr, 0UL);
	KUNIT_ASSERT_FALSE(test, IS_ERR_VALUE(addr));
	return addr;
}

static unsigned long map_shared(struct kunit *test)
{
	struct fixture *f = test->priv;

	return map(test, f->buf, O_RDWR, PROT_READ | PROT_WRITE, MAP_SHARED);
}

static unsigned long map_private(struct kunit *test)
{
	struct fixture *f = test->priv;

	return map(test, f->buf, O_RDWR, PROT_READ | PROT_WRITE, MAP_PRIVATE);
}

/* Of the buffer as it is now, and only to be read. */
static unsigned long map_snapshot(struct kunit *test)
{
	struct fixture *f = test->priv;

	take_snapshot(test);
	return map(test, f->snap, O_RDONLY, PROT_READ, MAP_SHARED);
}

static unsigned long __user *user_word(unsigned long addr, pgoff_t index)
{
	return (unsigned long __user *)(addr + (index << PAGE_SHIFT));
}

static void store(struct kunit *test, unsigned long addr, pgoff_t index,
		  unsigned long value)
{
	KUNIT_ASSERT_EQ(test, put_user(value, user_word(addr, index)), 0);
}

static unsigned long load(struct kunit *test, unsigned long addr, pgoff_t index)
{
	unsigned long value = 0x5a5a;

	KUNIT_ASSERT_EQ(test, get_user(value, user_word(addr, index)), 0);
	return value;
}

static void expect_counts(struct kunit *test, long faults, long filled,
			  long copied, long reused)
{
	struct fixture *f = test->priv;

	KUNIT_EXPECT_EQ(test, atomic_long_read(&f->buf->faults), faults);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&f->buf->filled), filled);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&f->buf->copied), copied);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&f->buf->reused), reused);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&f->buf->held), 0L);
}

static void vm_test_write(struct kunit *test)
{
	unsigned long addr = map_shared(test);

	store(test, addr, 1, 11);
	expect_counts(test, 1, 1, 0, 0);
	KUNIT_EXPECT_EQ(test, load(test, addr, 1), 11UL);
	store(test, addr, 1, 12);
	KUNIT_EXPECT_EQ(test, load(test, addr, 1), 12UL);
	/* One fault for the first store, none for the rest. */
	expect_counts(test, 1, 1, 0, 0);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 1UL);
}

static void vm_test_read_hole(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned long addr = map_shared(test);
	pgoff_t index;

	for (index = 0; index < NR_PAGES; index++)
		KUNIT_EXPECT_EQ(test, load(test, addr, index), 0UL);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 0UL);
	KUNIT_EXPECT_EQ(test, cowmem_nodes(), f->nr_nodes);
	expect_counts(test, NR_PAGES, 0, 0, 0);
}

/* A zero page that is mapped, here and elsewhere, gives way to the new page. */
static void vm_test_read_then_write(struct kunit *test)
{
	unsigned long addr = map_shared(test), other = map_shared(test);

	KUNIT_EXPECT_EQ(test, load(test, addr, 2), 0UL);
	KUNIT_EXPECT_EQ(test, load(test, other, 2), 0UL);
	store(test, addr, 2, 21);
	KUNIT_EXPECT_EQ(test, load(test, addr, 2), 21UL);
	KUNIT_EXPECT_EQ(test, load(test, other, 2), 21UL);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 1UL);
}

static void vm_test_copy_range(struct kunit *test)
{
	unsigned long addr = map_shared(test);
	char *out = kunit_kzalloc(test, 2 * PAGE_SIZE, GFP_KERNEL);
	char *in = kunit_kzalloc(test, 2 * PAGE_SIZE, GFP_KERNEL);
	void __user *user = (void __user *)(addr + PAGE_SIZE / 2);

	KUNIT_ASSERT_NOT_NULL(test, out);
	KUNIT_ASSERT_NOT_NULL(test, in);
	memset(out, 0x77, 2 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, copy_to_user(user, out, 2 * PAGE_SIZE), 0UL);
	KUNIT_EXPECT_EQ(test, copy_from_user(in, user, 2 * PAGE_SIZE), 0UL);
	KUNIT_EXPECT_EQ(test, memcmp(in, out, 2 * PAGE_SIZE), 0);
	expect_counts(test, 3, 3, 0, 0);
}

static void vm_test_snapshot(struct kunit *test)
{
	unsigned long addr = map_shared(test), snap;

	store(test, addr, 0, 1);
	store(test, addr, 1, 2);
	snap = map_snapshot(test);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 2UL);

	store(test, addr, 0, 3);
	expect_counts(test, 3, 2, 1, 0);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 3UL);
	KUNIT_EXPECT_EQ(test, load(test, addr, 0), 3UL);
	KUNIT_EXPECT_EQ(test, load(test, addr, 1), 2UL);
	KUNIT_EXPECT_EQ(test, load(test, snap, 0), 1UL);
	KUNIT_EXPECT_EQ(test, load(test, snap, 1), 2UL);

	store(test, addr, 0, 4);
	expect_counts(test, 4, 2, 1, 0);
	KUNIT_EXPECT_EQ(test, load(test, snap, 0), 1UL);
}

/* Both read the shared page before it is written through one of them. */
static void vm_test_snapshot_both_mapped(struct kunit *test)
{
	unsigned long addr = map_shared(test), other = map_shared(test), snap;

	store(test, addr, 0, 1);
	snap = map_snapshot(test);
	KUNIT_EXPECT_EQ(test, load(test, snap, 0), 1UL);
	KUNIT_EXPECT_EQ(test, load(test, addr, 0), 1UL);
	KUNIT_EXPECT_EQ(test, load(test, other, 0), 1UL);
	store(test, addr, 0, 2);
	KUNIT_EXPECT_EQ(test, load(test, snap, 0), 1UL);
	KUNIT_EXPECT_EQ(test, load(test, addr, 0), 2UL);
	KUNIT_EXPECT_EQ(test, load(test, other, 0), 2UL);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 2UL);
}

/* A hole of the snapshot stays one, whatever the buffer does. */
static void vm_test_snapshot_hole(struct kunit *test)
{
	unsigned long addr = map_shared(test), snap;

	KUNIT_EXPECT_EQ(test, load(test, addr, 0), 0UL);
	snap = map_snapshot(test);
	KUNIT_EXPECT_EQ(test, load(test, snap, 0), 0UL);
	store(test, addr, 0, 1);
	KUNIT_EXPECT_EQ(test, load(test, snap, 0), 0UL);
	KUNIT_EXPECT_EQ(test, load(test, addr, 0), 1UL);
}

/*
 * Written in place again when the snapshot is gone, though our own read-only
 * PTEs hold the page: that of the fault is known, others are revoked.
 */
static void vm_test_reuse(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned long addr = map_shared(test), other = map_shared(test);

	store(test, addr, 0, 1);
	f->snap = cowmem_fs_buffer(f->mnt, f->buf);
	if (IS_ERR(f->snap))
		f->snap = NULL;
	KUNIT_ASSERT_NOT_NULL(test, f->snap);
	KUNIT_ASSERT_EQ(test, take_shot(f), 0);
	KUNIT_EXPECT_EQ(test, load(test, addr, 0), 1UL);
	KUNIT_EXPECT_EQ(test, load(test, other, 0), 1UL);
	iput(&f->snap->inode);
	f->snap = NULL;
	store(test, addr, 0, 2);
	KUNIT_EXPECT_EQ(test, load(test, addr, 0), 2UL);
	KUNIT_EXPECT_EQ(test, load(test, other, 0), 2UL);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&f->buf->copied), 0L);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&f->buf->reused), 1L);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 1UL);
}

static void vm_test_beyond_end(struct kunit *test)
{
	unsigned long addr = map_shared(test), value = 0;

	KUNIT_EXPECT_EQ(test, get_user(value, user_word(addr, NR_PAGES)),
			-EFAULT);
	KUNIT_EXPECT_EQ(test, value, 0UL);
	KUNIT_EXPECT_EQ(test, put_user(1UL, user_word(addr, NR_PAGES)),
			-EFAULT);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 0UL);
	store(test, addr, NR_PAGES - 1, 1);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 1UL);
}

/* What was mapped is gone when the buffer has been made smaller. */
static void vm_test_shrink(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned long addr = map_shared(test), priv = map_private(test);
	unsigned long value = 0;
	int err;

	store(test, addr, 0, 1);
	store(test, addr, 5, 2);
	store(test, priv, 5, 3);
	KUNIT_EXPECT_EQ(test, load(test, addr, 6), 0UL);
	inode_lock(&f->buf->inode);
	err = cowmem_buffer_resize(f->buf, 5 * PAGE_SIZE);
	inode_unlock(&f->buf->inode);
	KUNIT_EXPECT_EQ(test, err, 0);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 1UL);
	KUNIT_EXPECT_EQ(test, get_user(value, user_word(addr, 5)), -EFAULT);
	KUNIT_EXPECT_EQ(test, value, 0UL);
	KUNIT_EXPECT_EQ(test, get_user(value, user_word(addr, 6)), -EFAULT);
	KUNIT_EXPECT_EQ(test, get_user(value, user_word(priv, 5)), -EFAULT);
	KUNIT_EXPECT_EQ(test, load(test, addr, 0), 1UL);
}

static void vm_test_private(struct kunit *test)
{
	unsigned long addr = map_shared(test), priv = map_private(test);

	store(test, addr, 0, 1);
	KUNIT_EXPECT_EQ(test, load(test, priv, 0), 1UL);
	/* Over a page that is mapped, one that is not, and a hole. */
	store(test, addr, 1, 2);
	store(test, priv, 0, 11);
	store(test, priv, 1, 12);
	store(test, priv, 2, 13);
	KUNIT_EXPECT_EQ(test, load(test, priv, 0), 11UL);
	KUNIT_EXPECT_EQ(test, load(test, priv, 1), 12UL);
	KUNIT_EXPECT_EQ(test, load(test, priv, 2), 13UL);
	KUNIT_EXPECT_EQ(test, load(test, addr, 0), 1UL);
	KUNIT_EXPECT_EQ(test, load(test, addr, 1), 2UL);
	KUNIT_EXPECT_EQ(test, load(test, addr, 2), 0UL);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 2UL);
}

/* Neither a snapshot nor a store to the buffer takes a private copy away. */
static void vm_test_private_stays(struct kunit *test)
{
	unsigned long addr = map_shared(test), priv = map_private(test), snap;

	store(test, addr, 0, 1);
	store(test, priv, 0, 2);
	snap = map_snapshot(test);
	store(test, addr, 0, 3);
	KUNIT_EXPECT_EQ(test, load(test, priv, 0), 2UL);
	KUNIT_EXPECT_EQ(test, load(test, snap, 0), 1UL);
	KUNIT_EXPECT_EQ(test, load(test, addr, 0), 3UL);
}

static struct kunit_case vm_test_cases[] = {
	KUNIT_CASE(vm_test_write),
	KUNIT_CASE(vm_test_read_hole),
	KUNIT_CASE(vm_test_read_then_write),
	KUNIT_CASE(vm_test_copy_range),
	KUNIT_CASE(vm_test_snapshot),
	KUNIT_CASE(vm_test_snapshot_both_mapped),
	KUNIT_CASE(vm_test_snapshot_hole),
	KUNIT_CASE(vm_test_reuse),
	KUNIT_CASE(vm_test_beyond_end),
	KUNIT_CASE(vm_test_shrink),
	KUNIT_CASE(vm_test_private),
	KUNIT_CASE(vm_test_private_stays),
	{ }
};

static struct kunit_suite vm_test_suite = {
	.name		= "cowmem_vm",
	.init		= vm_test_init,
	.exit		= vm_test_exit,
	.test_cases	= vm_test_cases,
};
kunit_test_suites(&vm_test_suite);
