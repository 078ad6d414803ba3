// SPDX-License-Identifier: GPL-2.0
/*
 * SNAPSHOT of a range: a buffer of its own, whose offset 0 is the offset of the
 * range, that has the pages of the range and never any other; and a buffer
 * around it that does not pay for more than the range.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "common.h"
#include "harness.h"
#include "util.h"

#define NR		16UL
#define SIZE		(NR * PAGE)
#define POISON		0xa5

static bool file_filled(int fd, unsigned long first, unsigned long nr)
{
	char data[SIZE + PAGE];

	return pread(fd, data, sizeof(data), 0) == nr * PAGE &&
	       pages_filled(data, first, nr);
}

/* @fd has these pages and no more, by read() and in a mapping made just now. */
static bool buffer_filled(int fd, unsigned long first, unsigned long nr)
{
	char *p = cow_map(fd, nr * PAGE, PROT_READ);
	bool filled = p != MAP_FAILED && file_filled(fd, first, nr) &&
		      pages_filled(p, first, nr);

	munmap(p, nr * PAGE);
	return filled;
}

/* Offset and length in pages. */
static int range_of(int fd, uint32_t flags, unsigned long first,
		    unsigned long nr)
{
	return cow_snapshot_range(fd, flags, first * PAGE, nr * PAGE);
}

/*
 * A filled buffer
 */

FIXTURE(origin)
{
	int fd;
	char *p;
	long pages;	/* of everything else */
};

FIXTURE_SETUP(origin)
{
	NEED(RANGE);
	self->pages = cow_param("pages");
	self->fd = cow_create_mapped(SIZE, "origin", &self->p);
	ASSERT_GE(self->fd, 0);
	fill_pages(self->p, NR);
}

FIXTURE_TEARDOWN(origin)
{
	close(self->fd);
}

static void close_origin(FIXTURE_DATA(origin) *self)
{
	munmap(self->p, SIZE);
	close(self->fd);
	self->fd = -1;
}

TEST_F(origin, range_has_its_pages_and_its_length)
{
	static const struct {
		unsigned long first, nr;
	} ranges[] = {
		{ 0, 4 }, { 6, 5 }, { 12, 4 }, { 0, 1 }, { 7, 1 }, { 15, 1 },
		{ 0, NR },
	};
	unsigned long first, nr;
	struct stat st;
	int i, range;

	for (i = 0; i < 2 * ARRAY_SIZE(ranges); i++) {
		first = ranges[i / 2].first;
		nr = ranges[i / 2].nr;
		range = range_of(self->fd, i % 2 ? COWMEM_WRITABLE : 0, first, nr);
		ASSERT_GE(range, 0);
		EXPECT_TRUE(buffer_filled(range, first, nr));
		EXPECT_EQ(nr * PAGE, cow_stat(range).length);
		EXPECT_EQ(nr, resident_pages(range));
		ASSERT_EQ(0, fstat(range, &st));
		EXPECT_EQ(nr * PAGE, st.st_size);
		EXPECT_EQ(nr * PAGE, lseek(range, 0, SEEK_END));
		close(range);
	}
	EXPECT_TRUE(buffer_filled(self->fd, 0, NR));
}

TEST_F(origin, every_range_has_its_pages)
{
	unsigned long first, nr;
	int range, bad = 0;

	for (first = 0; first < NR; first++) {
		for (nr = 1; nr <= NR - first; nr++) {
			range = range_of(self->fd, 0, first, nr);
			ASSERT_GE(range, 0);
			bad += !buffer_filled(range, first, nr);
			close(range);
		}
	}
	EXPECT_EQ(0, bad);
}

TEST_F(origin, length_0_is_to_the_end)
{
	int whole = range_of(self->fd, 0, 0, 0);
	int half = range_of(self->fd, 0, 8, 0);
	int last = range_of(self->fd, 0, 15, 0);

	ASSERT_GE(whole, 0);
	ASSERT_GE(half, 0);
	ASSERT_GE(last, 0);
	EXPECT_TRUE(buffer_filled(whole, 0, NR));
	EXPECT_TRUE(buffer_filled(half, 8, 8));
	EXPECT_TRUE(buffer_filled(last, 15, 1));
}

TEST_F(origin, range_is_another_buffer_of_the_same_account)
{
	int frozen = range_of(self->fd, 0, 4, 4);
	int clone = range_of(self->fd, COWMEM_WRITABLE, 4, 4);

	ASSERT_GE(frozen, 0);
	ASSERT_GE(clone, 0);
	EXPECT_NE(cow_stat(self->fd).id, cow_stat(frozen).id);
	EXPECT_NE(cow_stat(clone).id, cow_stat(frozen).id);
	EXPECT_EQ(cow_stat(self->fd).account, cow_stat(frozen).account);
	EXPECT_EQ(cow_stat(self->fd).account, cow_stat(clone).account);
	EXPECT_EQ(COWMEM_STATE_FROZEN, cow_stat(frozen).state);
	EXPECT_EQ(0, cow_stat(clone).state);
	EXPECT_STREQ("origin", cow_stat(frozen).name);
	EXPECT_EQ(2, cow_stat(self->fd).snapshots);
	EXPECT_EQ(0, cow_stat(clone).snapshots);
}

TEST_F(origin, range_has_the_given_name)
{
	struct cowmem_snapshot arg = {
		.size = sizeof(arg), .offset = PAGE, .length = PAGE, .fd = -1,
		.name = "given name",
	};

	ASSERT_EQ(0, cow_ioctl(self->fd, COWMEM_SNAPSHOT, &arg));
	EXPECT_STREQ("given name", cow_stat(arg.fd).name);
	EXPECT_EQ(0, fcntl(arg.fd, F_GETFD));
	EXPECT_TRUE(buffer_filled(arg.fd, 1, 1));
}

TEST_F(origin, frozen_range_cannot_be_written)
{
	int range = range_of(self->fd, 0, 4, 4);
	char *q;

	ASSERT_GE(range, 0);
	EXPECT_EQ(-1, pwrite(range, "!", 1, 0));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(-1, ftruncate(range, 0));
	EXPECT_EQ(MAP_FAILED, cow_map(range, PAGE, RW));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(-EPERM, reopen(range, O_RDWR));
	q = cow_map(range, PAGE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(SIGSEGV, COW_TRY(q[0] = '!'));
	EXPECT_TRUE(buffer_filled(range, 4, 4));
}

TEST_F(origin, mapping_of_a_range_ends_where_the_range_does)
{
	int range = range_of(self->fd, COWMEM_WRITABLE, 4, 4);
	volatile char value = 0;
	char *q;

	ASSERT_GE(range, 0);
	q = cow_map(range, 6 * PAGE, RW);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(0, COW_TRY(value = q[4 * PAGE - 1]));
	EXPECT_EQ(value_of(7), value);
	EXPECT_EQ(SIGBUS, COW_TRY(value = q[4 * PAGE]));
	EXPECT_EQ(SIGBUS, COW_TRY(q[4 * PAGE] = '!'));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

TEST_F(origin, range_of_a_device_handle)
{
	int dev = cow_open(), range;
	char *q;

	ASSERT_GE(dev, 0);
	q = cow_map(dev, SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	fill_pages(q, NR);
	range = range_of(dev, 0, 3, 9);
	ASSERT_GE(range, 0);
	memset(q, '!', SIZE);
	EXPECT_TRUE(buffer_filled(range, 3, 9));
}

TEST_F(origin, range_of_a_frozen_snapshot)
{
	int snap = cow_snapshot(self->fd, 0), range, clone;

	ASSERT_GE(snap, 0);
	memset(self->p, '!', SIZE);
	range = range_of(snap, 0, 3, 9);
	clone = range_of(snap, COWMEM_WRITABLE, 4, 4);
	ASSERT_GE(range, 0);
	ASSERT_GE(clone, 0);
	ASSERT_TRUE(write_byte(clone, 0, '?'));
	EXPECT_TRUE(buffer_filled(range, 3, 9));
	EXPECT_TRUE(buffer_filled(snap, 0, NR));
	close(snap);
	EXPECT_TRUE(buffer_filled(range, 3, 9));
}

TEST_F(origin, range_of_a_range)
{
	int first = range_of(self->fd, COWMEM_WRITABLE, 2, 12), second;

	ASSERT_GE(first, 0);
	second = range_of(first, COWMEM_WRITABLE, 3, 6);
	ASSERT_GE(second, 0);
	EXPECT_TRUE(buffer_filled(second, 5, 6));
	memset(self->p, '!', SIZE);
	ASSERT_EQ(PAGE, write_page(first, 4, '?'));
	EXPECT_TRUE(buffer_filled(second, 5, 6));
	ASSERT_EQ(PAGE, write_page(second, 0, '1'));
	EXPECT_EQ(value_of(5), read_byte(first, 3 * PAGE));
	close(first);
	EXPECT_EQ('1', read_byte(second, 0));
	EXPECT_EQ(value_of(6), read_byte(second, PAGE));
	EXPECT_EQ(value_of(10), read_byte(second, 6 * PAGE - 1));
}

TEST_F(origin, snapshot_of_a_range_and_range_of_a_clone)
{
	int range = range_of(self->fd, 0, 6, 4), snap, clone, other;

	ASSERT_GE(range, 0);
	snap = cow_snapshot(range, 0);
	clone = cow_snapshot(self->fd, COWMEM_WRITABLE);
	ASSERT_GE(snap, 0);
	ASSERT_GE(clone, 0);
	other = range_of(clone, 0, 6, 4);
	ASSERT_GE(other, 0);
	memset(self->p, '!', SIZE);
	ASSERT_EQ(PAGE, write_page(clone, 7, '?'));
	close(range);
	EXPECT_TRUE(buffer_filled(snap, 6, 4));
	EXPECT_TRUE(buffer_filled(other, 6, 4));
}

TEST_F(origin, overlapping_ranges_are_independent)
{
	int left = range_of(self->fd, COWMEM_WRITABLE, 2, 8);
	int right = range_of(self->fd, COWMEM_WRITABLE, 6, 8);

	ASSERT_GE(left, 0);
	ASSERT_GE(right, 0);
	/* Page 7 of the origin, page 9, and again page 7. */
	ASSERT_EQ(PAGE, write_page(left, 5, '1'));
	ASSERT_EQ(PAGE, write_page(right, 3, '2'));
	ASSERT_EQ(PAGE, write_page(right, 1, '3'));
	EXPECT_EQ('1', read_byte(left, 5 * PAGE));
	EXPECT_EQ(value_of(9), read_byte(left, 7 * PAGE));
	EXPECT_EQ('2', read_byte(right, 3 * PAGE));
	EXPECT_EQ('3', read_byte(right, PAGE));
	EXPECT_EQ(value_of(6), read_byte(right, 0));
	EXPECT_TRUE(buffer_filled(self->fd, 0, NR));
}

/*
 * What stays when the others go
 */

TEST_F(origin, only_the_pages_of_the_range_outlive_the_origin)
{
	int range = range_of(self->fd, 0, 5, 6);

	ASSERT_GE(range, 0);
	EXPECT_EQ(self->pages + NR, cow_param("pages"));
	EXPECT_EQ(6, resident_pages(range));
	close_origin(self);
	EXPECT_EQ(self->pages + 6, cow_param("pages"));
	EXPECT_TRUE(buffer_filled(range, 5, 6));
	close(range);
	EXPECT_EQ(self->pages, cow_param("pages"));
}

TEST_F(origin, only_the_pages_of_both_ranges_outlive_the_origin)
{
	int left = range_of(self->fd, 0, 2, 5);
	int right = range_of(self->fd, 0, 6, 5);

	ASSERT_GE(left, 0);
	ASSERT_GE(right, 0);
	close_origin(self);
	/* 2 to 10, of which both have 6. */
	EXPECT_EQ(self->pages + 9, cow_param("pages"));
	close(left);
	EXPECT_EQ(self->pages + 5, cow_param("pages"));
	EXPECT_TRUE(buffer_filled(right, 6, 5));
	close(right);
	EXPECT_EQ(self->pages, cow_param("pages"));
}

TEST_F(origin, only_the_pages_of_the_inner_range_outlive_the_outer)
{
	int outer = range_of(self->fd, 0, 2, 12);
	int inner = range_of(outer, 0, 3, 2);

	ASSERT_GE(outer, 0);
	ASSERT_GE(inner, 0);
	close_origin(self);
	EXPECT_EQ(self->pages + 12, cow_param("pages"));
	close(outer);
	EXPECT_EQ(self->pages + 2, cow_param("pages"));
	EXPECT_TRUE(buffer_filled(inner, 5, 2));
}

TEST_F(origin, range_that_outlives_the_origin_is_written_in_place)
{
	int range = range_of(self->fd, COWMEM_WRITABLE, 5, 6);
	unsigned long i;
	char *q;

	ASSERT_GE(range, 0);
	q = cow_map(range, 6 * PAGE, RW);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(pages_filled(q, 5, 6));
	close_origin(self);
	for (i = 0; i < 6; i++)
		q[i * PAGE] = '!';
	EXPECT_EQ(0, cow_stat(range).copied);
	EXPECT_EQ(6, cow_stat(range).reused);
	EXPECT_EQ(self->pages + 6, cow_param("pages"));
	EXPECT_EQ(value_of(5), q[1]);
}

TEST_F(origin, origin_that_outlives_the_range_is_written_in_place)
{
	int range = range_of(self->fd, 0, 5, 6);

	ASSERT_GE(range, 0);
	EXPECT_TRUE(buffer_filled(range, 5, 6));
	close(range);
	memset(self->p, '!', SIZE);
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_EQ(6, cow_stat(self->fd).reused);
	EXPECT_EQ(self->pages + NR, cow_param("pages"));
}

TEST_F(origin, index_of_a_range_is_freed)
{
	long nodes = cow_param("nodes");
	int range = range_of(self->fd, COWMEM_WRITABLE, 5, 6);

	ASSERT_GE(range, 0);
	ASSERT_TRUE(write_byte(range, 0, '!'));
	close(range);
	EXPECT_EQ(nodes, cow_param("nodes"));
	EXPECT_EQ(self->pages + NR, cow_param("pages"));
}

/*
 * Who sees whose writes
 */

FIXTURE(isolated)
{
	int fd, frozen, clone;	/* the latter: pages 5 to 10 */
	char *p, *q, *r;
};

FIXTURE_VARIANT(isolated)
{
	bool store;	/* through the mapping; else by write() */
	bool mapped;	/* all have been read through their mappings before */
};

FIXTURE_VARIANT_ADD(isolated, store) { .store = true };
FIXTURE_VARIANT_ADD(isolated, store_mapped) { .store = true, .mapped = true };
FIXTURE_VARIANT_ADD(isolated, write) { };
FIXTURE_VARIANT_ADD(isolated, write_mapped) { .mapped = true };

#define FIRST		5UL
#define LENGTH		6UL

FIXTURE_SETUP(isolated)
{
	NEED(RANGE);
	self->fd = cow_create_mapped(SIZE, "isolated", &self->p);
	ASSERT_GE(self->fd, 0);
	fill_pages(self->p, NR);
	self->frozen = range_of(self->fd, 0, FIRST, LENGTH);
	self->clone = range_of(self->fd, COWMEM_WRITABLE, FIRST, LENGTH);
	ASSERT_GE(self->frozen, 0);
	ASSERT_GE(self->clone, 0);
	self->q = cow_map(self->frozen, LENGTH * PAGE, PROT_READ);
	self->r = cow_map(self->clone, LENGTH * PAGE, RW);
	ASSERT_NE(MAP_FAILED, self->q);
	ASSERT_NE(MAP_FAILED, self->r);
	if (!variant->mapped)
		return;
	ASSERT_TRUE(pages_filled(self->p, 0, NR));
	ASSERT_TRUE(pages_filled(self->q, FIRST, LENGTH));
	ASSERT_TRUE(pages_filled(self->r, FIRST, LENGTH));
}

FIXTURE_TEARDOWN(isolated)
{
	close(self->fd);
}

static bool isolated_write(const FIXTURE_VARIANT(isolated) *variant, int fd,
			   char *p, unsigned long index, char value)
{
	if (!variant->store)
		return write_page(fd, index, value) == PAGE;
	memset(p + index * PAGE, value, PAGE);
	return true;
}

/* By mapping and by read(). */
static bool isolated_is(int fd, const char *p, unsigned long index, char value)
{
	char data[PAGE];

	return page_is(p + index * PAGE, value) &&
	       pread(fd, data, PAGE, index * PAGE) == PAGE &&
	       page_is(data, value);
}

TEST_F(isolated, nobody_sees_what_the_origin_writes)
{
	unsigned long i;

	for (i = 0; i < NR; i++)
		ASSERT_TRUE(isolated_write(variant, self->fd, self->p, i, '!'));
	for (i = 0; i < NR; i++)
		EXPECT_TRUE(isolated_is(self->fd, self->p, i, '!'));
	EXPECT_TRUE(pages_filled(self->q, FIRST, LENGTH));
	EXPECT_TRUE(pages_filled(self->r, FIRST, LENGTH));
	EXPECT_TRUE(buffer_filled(self->frozen, FIRST, LENGTH));
	EXPECT_TRUE(buffer_filled(self->clone, FIRST, LENGTH));
}

TEST_F(isolated, nobody_sees_what_the_clone_writes)
{
	unsigned long i;

	for (i = 0; i < LENGTH; i++)
		ASSERT_TRUE(isolated_write(variant, self->clone, self->r, i,
					   '0' + i));
	for (i = 0; i < LENGTH; i++)
		EXPECT_TRUE(isolated_is(self->clone, self->r, i, '0' + i));
	EXPECT_TRUE(pages_filled(self->q, FIRST, LENGTH));
	EXPECT_TRUE(buffer_filled(self->frozen, FIRST, LENGTH));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	EXPECT_TRUE(buffer_filled(self->fd, 0, NR));
}

TEST_F(isolated, both_write_the_same_page)
{
	unsigned long i;

	ASSERT_TRUE(isolated_write(variant, self->fd, self->p, FIRST + 2, '1'));
	ASSERT_TRUE(isolated_write(variant, self->clone, self->r, 2, '2'));
	for (i = 0; i < NR; i++)
		EXPECT_TRUE(isolated_is(self->fd, self->p, i,
					i == FIRST + 2 ? '1' : value_of(i)));
	for (i = 0; i < LENGTH; i++)
		EXPECT_TRUE(isolated_is(self->clone, self->r, i, i == 2 ?
					'2' : value_of(FIRST + i)));
	EXPECT_TRUE(buffer_filled(self->frozen, FIRST, LENGTH));
}

TEST_F(isolated, first_and_last_page_and_their_neighbours)
{
	ASSERT_TRUE(isolated_write(variant, self->fd, self->p, FIRST - 1, '1'));
	ASSERT_TRUE(isolated_write(variant, self->fd, self->p, FIRST, '2'));
	ASSERT_TRUE(isolated_write(variant, self->fd, self->p,
				   FIRST + LENGTH - 1, '3'));
	ASSERT_TRUE(isolated_write(variant, self->fd, self->p,
				   FIRST + LENGTH, '4'));
	EXPECT_TRUE(buffer_filled(self->frozen, FIRST, LENGTH));
	EXPECT_TRUE(buffer_filled(self->clone, FIRST, LENGTH));
	EXPECT_EQ(2, cow_stat(self->fd).copied);
	ASSERT_TRUE(isolated_write(variant, self->clone, self->r, 0, '5'));
	ASSERT_TRUE(isolated_write(variant, self->clone, self->r, LENGTH - 1,
				   '6'));
	EXPECT_TRUE(isolated_is(self->fd, self->p, FIRST, '2'));
	EXPECT_TRUE(isolated_is(self->fd, self->p, FIRST + LENGTH - 1, '3'));
	EXPECT_TRUE(buffer_filled(self->frozen, FIRST, LENGTH));
}

/*
 * Private views, and other processes
 */

TEST_F(origin, private_view_keeps_its_copies_and_follows_the_origin)
{
	char *q = map_private(self->fd, SIZE, RW);
	int range;

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	memset(q + 5 * PAGE, '1', PAGE);
	range = range_of(self->fd, 0, 4, 8);
	ASSERT_GE(range, 0);
	EXPECT_TRUE(pages_filled(q + 7 * PAGE, 7, NR - 7));
	memset(q + 6 * PAGE, '2', PAGE);
	EXPECT_TRUE(buffer_filled(range, 4, 8));
	EXPECT_TRUE(buffer_filled(self->fd, 0, NR));
	EXPECT_EQ(0, cow_stat(self->fd).copied);

	/* Inside and outside. */
	memset(self->p, '!', SIZE);
	EXPECT_TRUE(page_is(q + 4 * PAGE, '!'));
	EXPECT_TRUE(page_is(q + 5 * PAGE, '1'));
	EXPECT_TRUE(page_is(q + 6 * PAGE, '2'));
	EXPECT_TRUE(page_is(q + 7 * PAGE, '!'));
	EXPECT_TRUE(page_is(q + 12 * PAGE, '!'));
	EXPECT_TRUE(buffer_filled(range, 4, 8));
}

TEST_F(origin, private_views_of_a_range_and_a_clone_are_their_own)
{
	int range = range_of(self->fd, 0, 4, 4);
	int clone = range_of(self->fd, COWMEM_WRITABLE, 4, 4);
	char *q = map_private(range, 4 * PAGE, RW);
	char *r = map_private(clone, 4 * PAGE, RW);

	ASSERT_NE(MAP_FAILED, q);
	ASSERT_NE(MAP_FAILED, r);
	EXPECT_TRUE(pages_filled(q, 4, 4));
	EXPECT_TRUE(pages_filled(r, 4, 4));
	memset(q, '1', PAGE);
	memset(r, '2', PAGE);
	EXPECT_TRUE(buffer_filled(range, 4, 4));
	EXPECT_TRUE(buffer_filled(clone, 4, 4));
	EXPECT_TRUE(buffer_filled(self->fd, 0, NR));

	ASSERT_EQ(PAGE, write_page(clone, 0, '3'));
	ASSERT_EQ(PAGE, write_page(clone, 1, '4'));
	memset(self->p, '!', SIZE);
	EXPECT_TRUE(page_is(q, '1'));
	EXPECT_TRUE(pages_filled(q + PAGE, 5, 3));
	EXPECT_TRUE(page_is(r, '2'));
	EXPECT_TRUE(page_is(r + PAGE, '4'));
	EXPECT_TRUE(pages_filled(r + 2 * PAGE, 6, 2));
}

TEST_F(origin, stores_of_a_child_forked_before_are_not_in_the_range)
{
	char *q = map_private(self->fd, SIZE, RW);
	int range;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, q);
	memset(q + 5 * PAGE, '1', PAGE);
	pid = CHILD_START({
		/* Now it has PTEs of its own. */
		fill_pages(self->p, NR);
		raise(SIGSTOP);
		memset(self->p, '!', SIZE);
		memset(q + 6 * PAGE, '2', PAGE);
		_exit(page_is(q + 5 * PAGE, '1') &&
		      page_is(q + 7 * PAGE, '!') ? 0 : 1);
	});
	ASSERT_TRUE(child_stopped(pid));
	range = range_of(self->fd, 0, 4, 8);
	ASSERT_GE(range, 0);
	EXPECT_EQ(0, child_finish(pid));
	EXPECT_TRUE(buffer_filled(range, 4, 8));
	EXPECT_EQ(8, cow_stat(self->fd).copied);
	EXPECT_TRUE(page_is(self->p, '!'));
	EXPECT_TRUE(page_is(self->p + 11 * PAGE, '!'));
	/* Private copies of the child are not those of the parent. */
	EXPECT_TRUE(page_is(q + 5 * PAGE, '1'));
	EXPECT_TRUE(page_is(q + 6 * PAGE, '!'));
}

TEST_F(origin, clone_of_a_range_is_one_for_two_processes)
{
	int clone = range_of(self->fd, COWMEM_WRITABLE, 4, 4);
	char *q = cow_map(clone, 4 * PAGE, RW);

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(pages_filled(q, 4, 4));
	EXPECT_EQ(0, CHILD({
		char *r = cow_map(clone, 4 * PAGE, RW);

		memset(q, '1', PAGE);
		memset(r + PAGE, '2', PAGE);
		_exit(page_is(r, '1') && page_is(q + PAGE, '2') ? 0 : 1);
	}));
	EXPECT_TRUE(page_is(q, '1'));
	EXPECT_TRUE(page_is(q + PAGE, '2'));
	EXPECT_TRUE(pages_filled(q + 2 * PAGE, 6, 2));
	EXPECT_EQ(2, cow_stat(clone).copied);
	EXPECT_TRUE(buffer_filled(self->fd, 0, NR));
}

/*
 * Holes
 */

FIXTURE(sparse)
{
	int fd;		/* with pages 2 and 9, else holes */
	char *p;
};

FIXTURE_SETUP(sparse)
{
	NEED(RANGE);
	self->fd = cow_create_mapped(SIZE, "sparse", &self->p);
	ASSERT_GE(self->fd, 0);
	memset(self->p + 2 * PAGE, 'c', PAGE);
	memset(self->p + 9 * PAGE, 'j', PAGE);
}

FIXTURE_TEARDOWN(sparse)
{
	close(self->fd);
}

TEST_F(sparse, holes_stay_holes)
{
	int range = range_of(self->fd, 0, 1, 8);
	char *q;

	ASSERT_GE(range, 0);
	EXPECT_EQ(1, resident_pages(range));
	EXPECT_EQ(PAGE, lseek(range, 0, SEEK_DATA));
	EXPECT_EQ(2 * PAGE, lseek(range, PAGE, SEEK_HOLE));
	EXPECT_EQ(-1, lseek(range, 2 * PAGE, SEEK_DATA));
	EXPECT_EQ(ENXIO, errno);
	q = cow_map(range, 8 * PAGE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(page_is(q, 0));
	EXPECT_TRUE(page_is(q + PAGE, 'c'));
	EXPECT_TRUE(page_is(q + 2 * PAGE, 0));
	EXPECT_TRUE(page_is(q + 7 * PAGE, 0));
	memset(self->p, '!', SIZE);
	EXPECT_TRUE(page_is(q, 0));
	EXPECT_TRUE(page_is(q + PAGE, 'c'));
	EXPECT_TRUE(page_is(q + 7 * PAGE, 0));
	EXPECT_EQ(1, resident_pages(range));
}

TEST_F(sparse, range_of_holes_has_no_page)
{
	int range = range_of(self->fd, COWMEM_WRITABLE, 3, 6);

	ASSERT_GE(range, 0);
	EXPECT_EQ(0, resident_pages(range));
	EXPECT_EQ(6 * PAGE, cow_stat(range).length);
	EXPECT_EQ(-1, lseek(range, 0, SEEK_DATA));
	EXPECT_EQ(0, lseek(range, 0, SEEK_HOLE));
	memset(self->p + 3 * PAGE, '!', 6 * PAGE);
	EXPECT_EQ(0, read_byte(range, 0));
	EXPECT_EQ(0, read_byte(range, 6 * PAGE - 1));
}

TEST_F(sparse, hole_that_the_clone_fills_stays_one_of_the_origin)
{
	int range = range_of(self->fd, COWMEM_WRITABLE, 1, 8);

	ASSERT_GE(range, 0);
	ASSERT_TRUE(write_byte(range, 3 * PAGE, '!'));
	EXPECT_EQ(1, cow_stat(range).filled);
	EXPECT_EQ(0, cow_stat(range).copied);
	EXPECT_EQ(2, resident_pages(self->fd));
	EXPECT_EQ(0, self->p[4 * PAGE]);
	EXPECT_EQ('!', read_byte(range, 3 * PAGE));
}

TEST_F(sparse, hole_mapped_across_the_snapshot_can_be_written)
{
	int range;

	EXPECT_TRUE(page_is(self->p + 4 * PAGE, 0));
	range = range_of(self->fd, 0, 1, 8);
	ASSERT_GE(range, 0);
	self->p[4 * PAGE] = '!';
	EXPECT_EQ('!', self->p[4 * PAGE]);
	EXPECT_EQ(0, read_byte(range, 3 * PAGE));
	EXPECT_EQ(1, resident_pages(range));
}

/*
 * Sizes
 */

TEST_F(origin, clone_that_grows_reads_zeroes)
{
	int range = range_of(self->fd, COWMEM_WRITABLE, 4, 4);
	unsigned long i;
	char *q;

	ASSERT_GE(range, 0);
	ASSERT_EQ(0, ftruncate(range, NR * PAGE));
	q = cow_map(range, SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(pages_filled(q, 4, 4));
	for (i = 4; i < NR; i++) {
		EXPECT_TRUE(page_is(q + i * PAGE, 0));
		EXPECT_EQ(0, read_byte(range, i * PAGE));
	}
	EXPECT_EQ(4, resident_pages(range));
	q[4 * PAGE] = '!';
	EXPECT_EQ(0, q[4 * PAGE + 1]);
	EXPECT_EQ(1, cow_stat(range).filled);
	EXPECT_TRUE(buffer_filled(self->fd, 0, NR));
}

TEST_F(origin, clone_that_grows_by_a_write_reads_zeroes)
{
	int range = range_of(self->fd, COWMEM_WRITABLE, 4, 4);
	char data[3 * PAGE];

	ASSERT_GE(range, 0);
	ASSERT_TRUE(write_byte(range, 6 * PAGE + 10, '!'));
	EXPECT_EQ(6 * PAGE + 11, cow_stat(range).length);
	EXPECT_EQ(2 * PAGE + 11, pread(range, data, sizeof(data), 4 * PAGE));
	EXPECT_TRUE(page_is(data, 0));
	EXPECT_TRUE(page_is(data + PAGE, 0));
	EXPECT_EQ(0, data[2 * PAGE + 9]);
	EXPECT_EQ('!', data[2 * PAGE + 10]);
	EXPECT_EQ(5, resident_pages(range));
	EXPECT_TRUE(buffer_filled(self->fd, 0, NR));
}

TEST_F(origin, clone_written_right_behind_its_end)
{
	int range = range_of(self->fd, COWMEM_WRITABLE, 4, 4);

	ASSERT_GE(range, 0);
	ASSERT_TRUE(write_byte(range, 4 * PAGE, '!'));
	EXPECT_EQ('!', read_byte(range, 4 * PAGE));
	EXPECT_EQ(value_of(7), read_byte(range, 4 * PAGE - 1));
	EXPECT_EQ(value_of(8), self->p[8 * PAGE]);
	ASSERT_EQ(0, ftruncate(range, 5 * PAGE));
	EXPECT_EQ(0, read_byte(range, 4 * PAGE + 1));
}

TEST_F(origin, clone_that_shrinks_and_grows_reads_zeroes)
{
	int range = range_of(self->fd, COWMEM_WRITABLE, 4, 8);
	unsigned long i;

	ASSERT_GE(range, 0);
	ASSERT_EQ(0, ftruncate(range, 2 * PAGE + 100));
	EXPECT_EQ(3, resident_pages(range));
	ASSERT_EQ(0, ftruncate(range, 8 * PAGE));
	EXPECT_EQ(value_of(4), read_byte(range, 0));
	EXPECT_EQ(value_of(6), read_byte(range, 2 * PAGE + 99));
	EXPECT_EQ(0, read_byte(range, 2 * PAGE + 100));
	for (i = 3; i < 8; i++)
		EXPECT_EQ(0, read_byte(range, i * PAGE));
	EXPECT_TRUE(buffer_filled(self->fd, 0, NR));
}

TEST_F(origin, range_keeps_all_when_the_origin_shrinks)
{
	int range = range_of(self->fd, 0, 4, 8);

	ASSERT_GE(range, 0);
	ASSERT_EQ(0, ftruncate(self->fd, 7 * PAGE + 100));
	EXPECT_TRUE(buffer_filled(range, 4, 8));
	ASSERT_EQ(0, ftruncate(self->fd, 0));
	EXPECT_TRUE(buffer_filled(range, 4, 8));
	EXPECT_EQ(self->pages + 8, cow_param("pages"));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE));
	EXPECT_TRUE(page_is(self->p + 4 * PAGE, 0));
	EXPECT_TRUE(buffer_filled(range, 4, 8));
}

TEST_F(origin, range_keeps_its_size_when_the_origin_grows)
{
	int range = range_of(self->fd, 0, 12, 0);

	ASSERT_GE(range, 0);
	ASSERT_EQ(0, ftruncate(self->fd, 2 * SIZE));
	ASSERT_TRUE(write_byte(self->fd, SIZE, '!'));
	EXPECT_EQ(4 * PAGE, cow_stat(range).length);
	EXPECT_TRUE(buffer_filled(range, 12, 4));
}

/*
 * The end of a buffer that does not end with a page
 */

FIXTURE(odd)
{
	int fd;
	char *p;
};

#define ODD_SIZE	(10 * PAGE + 100)

FIXTURE_SETUP(odd)
{
	NEED(RANGE);
	self->fd = cow_create_mapped(SIZE, "odd", &self->p);
	ASSERT_GE(self->fd, 0);
	fill_pages(self->p, NR);
	ASSERT_EQ(0, ftruncate(self->fd, ODD_SIZE));
}

FIXTURE_TEARDOWN(odd)
{
	close(self->fd);
}

TEST_F(odd, range_may_end_where_the_buffer_does)
{
	int range = cow_snapshot_range(self->fd, 0, 8 * PAGE, 2 * PAGE + 100);
	struct stat st;

	ASSERT_GE(range, 0);
	EXPECT_EQ(2 * PAGE + 100, cow_stat(range).length);
	ASSERT_EQ(0, fstat(range, &st));
	EXPECT_EQ(2 * PAGE + 100, st.st_size);
	EXPECT_EQ(3, resident_pages(range));
	EXPECT_EQ(value_of(8), read_byte(range, 0));
	EXPECT_EQ(value_of(10), read_byte(range, 2 * PAGE + 99));
	EXPECT_EQ(-1, read_byte(range, 2 * PAGE + 100));
}

TEST_F(odd, length_0_reaches_the_odd_end)
{
	int range = cow_snapshot_range(self->fd, 0, 8 * PAGE, 0);
	int last = cow_snapshot_range(self->fd, 0, 10 * PAGE, 0);

	ASSERT_GE(range, 0);
	ASSERT_GE(last, 0);
	EXPECT_EQ(2 * PAGE + 100, cow_stat(range).length);
	EXPECT_EQ(100, cow_stat(last).length);
	EXPECT_EQ(value_of(10), read_byte(last, 99));
	EXPECT_EQ(-1, read_byte(last, 100));
}

TEST_F(odd, whole_by_its_length)
{
	int range = cow_snapshot_range(self->fd, 0, 0, ODD_SIZE);

	ASSERT_GE(range, 0);
	EXPECT_EQ(ODD_SIZE, cow_stat(range).length);
	EXPECT_EQ(value_of(0), read_byte(range, 0));
	EXPECT_EQ(value_of(10), read_byte(range, ODD_SIZE - 1));
}

TEST_F(odd, last_part_alone)
{
	int range = cow_snapshot_range(self->fd, COWMEM_WRITABLE, 10 * PAGE, 100);

	ASSERT_GE(range, 0);
	EXPECT_EQ(100, cow_stat(range).length);
	ASSERT_TRUE(write_byte(range, 0, '!'));
	EXPECT_EQ(value_of(10), self->p[10 * PAGE]);
}

TEST_F(odd, whole_pages_before_the_odd_end)
{
	int range = range_of(self->fd, 0, 4, 6);

	ASSERT_GE(range, 0);
	EXPECT_TRUE(buffer_filled(range, 4, 6));
}

TEST_F(odd, clone_that_grows_reads_zeroes_beyond_the_old_end)
{
	int range;

	/* A mapping can store there; nobody must ever read it. */
	memset(self->p + ODD_SIZE, '!', PAGE - 100);
	range = cow_snapshot_range(self->fd, COWMEM_WRITABLE, 8 * PAGE, 0);
	ASSERT_GE(range, 0);
	ASSERT_EQ(0, ftruncate(range, 4 * PAGE));
	EXPECT_EQ(value_of(10), read_byte(range, 2 * PAGE + 99));
	EXPECT_EQ(0, read_byte(range, 2 * PAGE + 100));
	EXPECT_EQ(0, read_byte(range, 3 * PAGE - 1));
	EXPECT_EQ(0, read_byte(range, 3 * PAGE));
}

TEST_F(odd, clone_that_grows_by_a_write_reads_zeroes_beyond_the_old_end)
{
	int range;

	memset(self->p + ODD_SIZE, '!', PAGE - 100);
	range = cow_snapshot_range(self->fd, COWMEM_WRITABLE, 8 * PAGE, 0);
	ASSERT_GE(range, 0);
	ASSERT_TRUE(write_byte(range, 2 * PAGE + 200, '?'));
	EXPECT_EQ(value_of(10), read_byte(range, 2 * PAGE + 99));
	EXPECT_EQ(0, read_byte(range, 2 * PAGE + 100));
	EXPECT_EQ(0, read_byte(range, 2 * PAGE + 199));
	EXPECT_EQ('?', read_byte(range, 2 * PAGE + 200));
	EXPECT_EQ(-1, read_byte(range, 2 * PAGE + 201));
}

/*
 * What it costs the origin: pages 6 to 9, of pages that have all been written
 * since the last snapshot
 */

#define IN_RANGE(index)	((index) >= 6 && (index) < 10)

FIXTURE(cost)
{
	int fd, range;
	char *p;
	long pages;
	struct cowmem_stat before;
};

FIXTURE_SETUP(cost)
{
	NEED(RANGE);
	self->fd = cow_create_mapped(SIZE, "cost", &self->p);
	ASSERT_GE(self->fd, 0);
	fill_pages(self->p, NR);
	self->pages = cow_param("pages");
	self->before = cow_stat(self->fd);
	self->range = range_of(self->fd, 0, 6, 4);
	ASSERT_GE(self->range, 0);
}

FIXTURE_TEARDOWN(cost)
{
	close(self->fd);
}

TEST_F(cost, snapshot_of_a_range_allocates_no_page_and_copies_none)
{
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_EQ(self->before.copied, cow_stat(self->fd).copied);
	EXPECT_EQ(self->before.faults, cow_stat(self->fd).faults);
}

TEST_F(cost, store_outside_is_free)
{
	unsigned long i;

	for (i = 0; i < NR; i++)
		if (!IN_RANGE(i))
			EXPECT_EQ(0, faults_of_store(self->p + i * PAGE, '!'));
	EXPECT_EQ(self->before.faults, cow_stat(self->fd).faults);
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_TRUE(buffer_filled(self->range, 6, 4));
}

TEST_F(cost, store_inside_is_one_fault_and_one_copy)
{
	unsigned long i;

	for (i = 6; i < 10; i++) {
		EXPECT_EQ(1, faults_of_store(self->p + i * PAGE, '1'));
		EXPECT_EQ(0, faults_of_store(self->p + i * PAGE, '2'));
	}
	EXPECT_EQ(4, cow_stat(self->fd).copied);
	EXPECT_EQ(self->before.faults + 4, cow_stat(self->fd).faults);
	EXPECT_EQ(self->pages + 4, cow_param("pages"));
	EXPECT_TRUE(buffer_filled(self->range, 6, 4));
}

TEST_F(cost, store_inside_leaves_those_outside_alone)
{
	self->p[6 * PAGE] = '!';
	self->p[9 * PAGE] = '!';
	EXPECT_EQ(0, faults_of_store(self->p + 5 * PAGE, '!'));
	EXPECT_EQ(0, faults_of_store(self->p + 10 * PAGE, '!'));
	EXPECT_EQ(2, cow_stat(self->fd).copied);
}

TEST_F(cost, write_copies_inside_only)
{
	unsigned long i;

	for (i = 0; i < NR; i++)
		ASSERT_TRUE(write_byte(self->fd, i * PAGE, '!'));
	EXPECT_EQ(4, cow_stat(self->fd).copied);
	EXPECT_EQ(0, cow_stat(self->fd).reused);
	EXPECT_EQ(self->pages + 4, cow_param("pages"));
	EXPECT_TRUE(buffer_filled(self->range, 6, 4));
}

TEST_F(cost, load_outside_is_free)
{
	EXPECT_TRUE(pages_filled(self->p, 0, 6));
	EXPECT_TRUE(pages_filled(self->p + 10 * PAGE, 10, 6));
	EXPECT_EQ(self->before.faults, cow_stat(self->fd).faults);
}

TEST_F(cost, pages_that_were_only_read_stay_mapped_inside_too)
{
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	ASSERT_GE(range_of(self->fd, 0, 6, 4), 0);
	self->before = cow_stat(self->fd);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	EXPECT_EQ(self->before.faults, cow_stat(self->fd).faults);
}

TEST_F(cost, page_outside_that_an_older_snapshot_shares_is_copied_once)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	ASSERT_GE(range_of(self->fd, 0, 6, 4), 0);
	EXPECT_EQ(1, faults_of_store(self->p + 2 * PAGE, '1'));
	ASSERT_GE(range_of(self->fd, 0, 6, 4), 0);
	EXPECT_EQ(0, faults_of_store(self->p + 2 * PAGE, '2'));
	EXPECT_EQ(1, cow_stat(self->fd).copied);
	EXPECT_TRUE(buffer_filled(snap, 0, NR));
}

/* They stayed writable: the next that shares them has to know. */
TEST_F(cost, next_whole_snapshot_is_safe_from_stores_outside)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	memset(self->p, '!', SIZE);
	EXPECT_TRUE(buffer_filled(snap, 0, NR));
	EXPECT_TRUE(buffer_filled(self->range, 6, 4));
	EXPECT_EQ(NR, cow_stat(self->fd).copied);
}

TEST_F(cost, next_range_is_safe_from_stores_to_it)
{
	int left = range_of(self->fd, 0, 3, 5), right = range_of(self->fd, 0, 9, 0);

	ASSERT_GE(left, 0);
	ASSERT_GE(right, 0);
	EXPECT_EQ(0, faults_of_store(self->p + 2 * PAGE, '!'));
	memset(self->p, '!', SIZE);
	EXPECT_TRUE(buffer_filled(left, 3, 5));
	EXPECT_TRUE(buffer_filled(right, 9, 7));
	EXPECT_TRUE(buffer_filled(self->range, 6, 4));
	/* All but 0, 1 and 2. */
	EXPECT_EQ(13, cow_stat(self->fd).copied);
}

TEST_F(cost, second_mapping_is_revoked_inside_only)
{
	char *q = cow_map(self->fd, SIZE, RW);
	int range;

	ASSERT_NE(MAP_FAILED, q);
	memset(q, '1', SIZE);
	range = range_of(self->fd, 0, 6, 4);
	ASSERT_GE(range, 0);
	EXPECT_EQ(0, faults_of_store(q + 5 * PAGE, '2'));
	EXPECT_EQ(0, faults_of_store(self->p + 5 * PAGE, '2'));
	EXPECT_EQ(1, faults_of_store(q + 6 * PAGE, '2'));
	EXPECT_EQ(1, faults_of_store(self->p + 6 * PAGE + 1, '2'));
	EXPECT_EQ('1', read_byte(range, 0));
	EXPECT_EQ('1', read_byte(range, 1));
	EXPECT_EQ('2', read_byte(self->fd, 6 * PAGE));
}

/*
 * A pinned page: held by a pipe since before the snapshot
 */

FIXTURE(pinned)
{
	int fd;
	char *p;
	int pipefd[2];
	long pages;
};

FIXTURE_SETUP(pinned)
{
	NEED(RANGE);
	self->fd = cow_create_mapped(SIZE, "pinned", &self->p);
	ASSERT_GE(self->fd, 0);
	fill_pages(self->p, NR);
	ASSERT_EQ(0, pipe(self->pipefd));
	self->pages = cow_param("pages");
}

FIXTURE_TEARDOWN(pinned)
{
	close(self->fd);
}

TEST_F(pinned, page_inside_stays_with_the_origin_and_the_range_has_a_copy)
{
	int range;

	ASSERT_TRUE(pipe_hold(self->pipefd, self->p + 7 * PAGE));
	range = range_of(self->fd, 0, 6, 4);
	ASSERT_GE(range, 0);
	EXPECT_EQ(self->pages + 1, cow_param("pages"));
	EXPECT_EQ(1, cow_stat(self->fd).held);
	EXPECT_EQ(1, cow_stat(self->fd).copied);
	memset(self->p + 7 * PAGE, '!', PAGE);
	EXPECT_EQ(self->pages + 1, cow_param("pages"));
	EXPECT_EQ(1, cow_stat(self->fd).copied);
	EXPECT_TRUE(buffer_filled(range, 6, 4));
	EXPECT_TRUE(pipe_has(self->pipefd, '!'));
}

TEST_F(pinned, pages_at_both_ends_of_the_range)
{
	int range;

	ASSERT_TRUE(pipe_hold(self->pipefd, self->p + 6 * PAGE));
	ASSERT_TRUE(pipe_hold(self->pipefd, self->p + 9 * PAGE));
	range = range_of(self->fd, 0, 6, 4);
	ASSERT_GE(range, 0);
	EXPECT_EQ(2, cow_stat(self->fd).held);
	memset(self->p, '!', SIZE);
	EXPECT_TRUE(buffer_filled(range, 6, 4));
	EXPECT_TRUE(pipe_has(self->pipefd, '!'));
	EXPECT_TRUE(pipe_has(self->pipefd, '!'));
	EXPECT_EQ(4, cow_stat(self->fd).copied);
}

TEST_F(pinned, pages_outside_cost_nothing)
{
	int range;

	ASSERT_TRUE(pipe_hold(self->pipefd, self->p + 5 * PAGE));
	ASSERT_TRUE(pipe_hold(self->pipefd, self->p + 10 * PAGE));
	range = range_of(self->fd, 0, 6, 4);
	ASSERT_GE(range, 0);
	EXPECT_EQ(0, cow_stat(self->fd).held);
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_EQ(0, faults_of_store(self->p + 5 * PAGE, '1'));
	EXPECT_EQ(0, faults_of_store(self->p + 10 * PAGE, '2'));
	memset(self->p + 5 * PAGE, '1', PAGE);
	memset(self->p + 10 * PAGE, '2', PAGE);
	EXPECT_TRUE(pipe_has(self->pipefd, '1'));
	EXPECT_TRUE(pipe_has(self->pipefd, '2'));
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_TRUE(buffer_filled(range, 6, 4));
}

TEST_F(pinned, page_inside_is_safe_in_the_next_snapshot_too)
{
	int first, second;

	ASSERT_TRUE(pipe_hold(self->pipefd, self->p + 7 * PAGE));
	first = range_of(self->fd, 0, 6, 4);
	ASSERT_GE(first, 0);
	memset(self->p + 7 * PAGE, '1', PAGE);
	second = range_of(self->fd, 0, 7, 1);
	ASSERT_GE(second, 0);
	memset(self->p + 7 * PAGE, '2', PAGE);
	EXPECT_TRUE(buffer_filled(first, 6, 4));
	EXPECT_EQ('1', read_byte(second, 0));
	EXPECT_EQ('1', read_byte(second, PAGE - 1));
	EXPECT_TRUE(pipe_has(self->pipefd, '2'));
}

/*
 * Buffers of many pages: each page begins with its number, and ranges begin and
 * end anywhere in the index
 */

#define MANY		200UL

FIXTURE(many)
{
	int fd;
	long pages;
};

/* Pages are numbered from @first on; how many are not. */
static unsigned long misnumbered(int fd, uint64_t first, unsigned long nr)
{
	unsigned long i, bad = 0;

	for (i = 0; i < nr; i++)
		bad += read_word(fd, i * PAGE) != first + i;
	return bad + (read_word(fd, nr * PAGE) != UINT64_MAX);
}

FIXTURE_SETUP(many)
{
	unsigned long i;

	NEED(RANGE);
	self->pages = cow_param("pages");
	self->fd = cow_create(MANY * PAGE, "many");
	ASSERT_GE(self->fd, 0);
	for (i = 0; i < MANY; i++)
		ASSERT_TRUE(write_word(self->fd, i * PAGE, 1000 + i));
}

FIXTURE_TEARDOWN(many)
{
	close(self->fd);
}

static const struct {
	unsigned long first, nr;
} spans[] = {
	{ 0, 64 }, { 64, 64 }, { 64, 128 }, { 1, 64 }, { 63, 2 }, { 37, 130 },
	{ 0, 199 }, { 1, 199 }, { 128, 72 }, { 199, 1 }, { 3, 3 },
};

TEST_F(many, ranges_anywhere_have_their_pages)
{
	unsigned long i;
	int range;

	for (i = 0; i < ARRAY_SIZE(spans); i++) {
		range = range_of(self->fd, 0, spans[i].first, spans[i].nr);
		ASSERT_GE(range, 0);
		EXPECT_EQ(0, misnumbered(range, 1000 + spans[i].first,
					 spans[i].nr));
		EXPECT_EQ(spans[i].nr, resident_pages(range));
		close(range);
	}
	EXPECT_EQ(0, misnumbered(self->fd, 1000, MANY));
	EXPECT_EQ(self->pages + MANY, cow_param("pages"));
}

TEST_F(many, ranges_anywhere_are_isolated)
{
	unsigned long i, k, first, nr;
	int range;

	for (i = 0; i < ARRAY_SIZE(spans); i++) {
		first = spans[i].first;
		nr = spans[i].nr;
		range = range_of(self->fd, COWMEM_WRITABLE, first, nr);
		ASSERT_GE(range, 0);
		for (k = 0; k < nr; k += 7)
			ASSERT_TRUE(write_word(range, k * PAGE, 5000 + k));
		EXPECT_EQ(0, misnumbered(self->fd, 1000, MANY));
		for (k = first; k < first + nr; k++)
			ASSERT_TRUE(write_word(self->fd, k * PAGE, 1));
		for (k = 0; k < nr; k++)
			EXPECT_EQ(k % 7 ? 1000 + first + k : 5000 + k,
				  read_word(range, k * PAGE));
		for (k = first; k < first + nr; k++)
			ASSERT_TRUE(write_word(self->fd, k * PAGE, 1000 + k));
		EXPECT_EQ(0, misnumbered(self->fd, 1000, MANY));
		close(range);
	}
	EXPECT_EQ(self->pages + MANY, cow_param("pages"));
}

TEST_F(many, ranges_of_ranges_have_their_pages)
{
	unsigned long depth, nr = MANY;
	int fd = self->fd, range;

	for (depth = 1; depth <= 20; depth++) {
		/* Without the first four and the last two. */
		nr -= 6;
		range = range_of(fd, depth % 2 ? COWMEM_WRITABLE : 0, 4, nr);
		ASSERT_GE(range, 0);
		EXPECT_EQ(0, misnumbered(range, 1000 + 4 * depth, nr));
		if (fd != self->fd)
			close(fd);
		fd = range;
	}
	close(self->fd);
	self->fd = fd;
	EXPECT_EQ(0, misnumbered(fd, 1000 + 4 * 20, nr));
	EXPECT_EQ(self->pages + nr, cow_param("pages"));
}

/*
 * Ranges of buffers of a size that no memory has
 */

FIXTURE(large)
{
	int fd;
	long pages;
};

FIXTURE_SETUP(large)
{
	NEED(RANGE);
	self->pages = cow_param("pages");
	self->fd = cow_create(TIB + 3 * PAGE, "large");
	ASSERT_GE(self->fd, 0);
	ASSERT_EQ(PAGE, write_page(self->fd, 1, '1'));
	ASSERT_EQ(PAGE, write_page(self->fd, 3 * GIB / PAGE, '2'));
	ASSERT_EQ(PAGE, write_page(self->fd, TIB / PAGE, '3'));
	ASSERT_EQ(PAGE, write_page(self->fd, TIB / PAGE + 2, '4'));
}

FIXTURE_TEARDOWN(large)
{
	close(self->fd);
}

TEST_F(large, range_far_out)
{
	int range = cow_snapshot_range(self->fd, COWMEM_WRITABLE, TIB, 3 * PAGE);
	char data[4 * PAGE];

	ASSERT_GE(range, 0);
	EXPECT_EQ(3 * PAGE, cow_stat(range).length);
	EXPECT_EQ(2, resident_pages(range));
	EXPECT_EQ(3 * PAGE, pread(range, data, sizeof(data), 0));
	EXPECT_TRUE(page_is(data, '3'));
	EXPECT_TRUE(page_is(data + PAGE, 0));
	EXPECT_TRUE(page_is(data + 2 * PAGE, '4'));
	ASSERT_EQ(PAGE, write_page(range, 0, '!'));
	ASSERT_EQ(PAGE, write_page(self->fd, TIB / PAGE + 2, '?'));
	EXPECT_EQ('3', read_byte(self->fd, TIB));
	EXPECT_EQ('4', read_byte(range, 2 * PAGE));
	close(self->fd);
	self->fd = -1;
	EXPECT_EQ(self->pages + 2, cow_param("pages"));
	EXPECT_EQ('!', read_byte(range, 0));
	EXPECT_EQ('4', read_byte(range, 3 * PAGE - 1));
}

TEST_F(large, range_over_large_holes_keeps_all_offsets)
{
	int range = cow_snapshot_range(self->fd, 0, PAGE, 0);

	ASSERT_GE(range, 0);
	EXPECT_EQ(TIB + 2 * PAGE, cow_stat(range).length);
	EXPECT_EQ(4, resident_pages(range));
	EXPECT_EQ(0, lseek(range, 0, SEEK_DATA));
	EXPECT_EQ(3 * GIB - PAGE, lseek(range, PAGE, SEEK_DATA));
	EXPECT_EQ(TIB - PAGE, lseek(range, 3 * GIB, SEEK_DATA));
	EXPECT_EQ(TIB, lseek(range, TIB - PAGE, SEEK_HOLE));
	EXPECT_EQ(TIB + PAGE, lseek(range, TIB, SEEK_DATA));
	EXPECT_EQ('1', read_byte(range, PAGE - 1));
	EXPECT_EQ('2', read_byte(range, 3 * GIB - PAGE));
	EXPECT_EQ('3', read_byte(range, TIB - PAGE));
	EXPECT_EQ('4', read_byte(range, TIB + 2 * PAGE - 1));
}

TEST_F(large, range_in_the_middle_with_one_page)
{
	int range = cow_snapshot_range(self->fd, COWMEM_WRITABLE, 2 * GIB, 2 * GIB);

	ASSERT_GE(range, 0);
	EXPECT_EQ(1, resident_pages(range));
	EXPECT_EQ(GIB, lseek(range, 0, SEEK_DATA));
	EXPECT_EQ('2', read_byte(range, GIB));
	ASSERT_TRUE(write_byte(range, GIB + PAGE, '!'));
	EXPECT_EQ(0, read_byte(self->fd, 3 * GIB + PAGE));
	ASSERT_EQ(0, ftruncate(range, TIB));
	EXPECT_EQ(2, resident_pages(range));
	EXPECT_EQ(-1, lseek(range, GIB + 2 * PAGE, SEEK_DATA));
}

/*
 * Back to where it came from
 */

TEST_F(origin, range_is_restored_at_its_offset)
{
	int range;
	char *q;

	NEED(RESTORE);
	range = range_of(self->fd, COWMEM_WRITABLE, 4, 4);
	ASSERT_GE(range, 0);
	q = cow_map(range, 4 * PAGE, RW);
	ASSERT_NE(MAP_FAILED, q);
	memset(q + PAGE, '?', PAGE);
	memset(self->p, '!', SIZE);
	ASSERT_EQ(0, cow_restore_range(self->fd, 4 * PAGE, range, 0, 4 * PAGE,
				       0));
	EXPECT_TRUE(page_is(self->p + 3 * PAGE, '!'));
	EXPECT_TRUE(page_is(self->p + 4 * PAGE, value_of(4)));
	EXPECT_TRUE(page_is(self->p + 5 * PAGE, '?'));
	EXPECT_TRUE(pages_filled(self->p + 6 * PAGE, 6, 2));
	EXPECT_TRUE(page_is(self->p + 8 * PAGE, '!'));
	EXPECT_EQ(SIZE, cow_stat(self->fd).length);
	/* And they are two again. */
	memset(self->p + 5 * PAGE, '1', PAGE);
	memset(q + 2 * PAGE, '2', PAGE);
	EXPECT_TRUE(page_is(q + PAGE, '?'));
	EXPECT_TRUE(page_is(self->p + 6 * PAGE, value_of(6)));
}

TEST_F(origin, part_of_a_frozen_range_is_restored_elsewhere)
{
	int range;

	NEED(RESTORE);
	range = range_of(self->fd, 0, 4, 6);
	ASSERT_GE(range, 0);
	/* Pages 6 and 7 of the origin. */
	ASSERT_EQ(0, cow_restore_range(self->fd, 12 * PAGE, range, 2 * PAGE,
				       2 * PAGE, 0));
	EXPECT_TRUE(pages_filled(self->p, 0, 12));
	EXPECT_TRUE(pages_filled(self->p + 12 * PAGE, 6, 2));
	EXPECT_TRUE(pages_filled(self->p + 14 * PAGE, 14, 2));
	memset(self->p + 12 * PAGE, '!', PAGE);
	EXPECT_TRUE(buffer_filled(range, 4, 6));
	EXPECT_TRUE(page_is(self->p + 6 * PAGE, value_of(6)));
}

/*
 * While a writer never pauses: it stores n to its pages in turn, then n + 1
 */

struct race {
	char *p;
	atomic_bool stop;
	atomic_ulong round;
	unsigned long lost;
};

static void *race_write(void *data)
{
	struct race *race = data;
	unsigned long i;

	while (!race->stop) {
		unsigned long n = race->round + 1;

		for (i = 0; i < NR; i++) {
			race->lost += atomic_load(page_word(race->p, i)) !=
				      n - 1;
			atomic_store(page_word(race->p, i), n);
		}
		race->round = n;
	}
	return NULL;
}

/* Is it what the pages hold at some moment of some round? */
static bool is_one_moment(int fd, unsigned long nr)
{
	uint64_t first = read_word(fd, 0), number, last = first;
	unsigned long i;

	for (i = 1; i < nr; i++) {
		number = read_word(fd, i * PAGE);
		if (number > last || number + 1 < first)
			return false;
		last = number;
	}
	return first != UINT64_MAX;
}

static void wait_for_round(struct race *race, unsigned long round)
{
	while (race->round < round)
		sched_yield();
}

TEST_F(origin, range_is_one_moment)
{
	struct race race = { .p = self->p };
	unsigned long i, bad = 0, first;
	pthread_t thread;
	int range;

	memset(self->p, 0, SIZE);
	ASSERT_EQ(0, pthread_create(&thread, NULL, race_write, &race));
	for (i = 0; i < 60; i++) {
		wait_for_round(&race, race.round + 1);
		first = i % 7;
		range = range_of(self->fd, i % 4 ? 0 : COWMEM_WRITABLE, first,
				 NR - 6);
		bad += range < 0 || !is_one_moment(range, NR - 6);
		close(range);
	}
	race.stop = true;
	pthread_join(thread, NULL);
	EXPECT_EQ(0, bad);
	EXPECT_EQ(0, race.lost);
}

/*
 * Bad input
 */

FIXTURE(bad)
{
	int fd, odd, empty;
	char *p;
	struct cowmem_stat before;
	long pages, nodes;
};

FIXTURE_SETUP(bad)
{
	NEED(RANGE);
	self->fd = cow_create(SIZE, "bad");
	self->odd = cow_create(ODD_SIZE, "odd");
	self->empty = cow_create(0, "empty");
	ASSERT_GE(self->fd, 0);
	ASSERT_GE(self->odd, 0);
	ASSERT_GE(self->empty, 0);
	self->p = cow_map(self->fd, SIZE, RW);
	ASSERT_NE(MAP_FAILED, self->p);
	fill_pages(self->p, NR);
	self->before = cow_stat(self->fd);
	self->pages = cow_param("pages");
	self->nodes = cow_param("nodes");
}

FIXTURE_TEARDOWN(bad)
{
	close(self->fd);
	close(self->odd);
	close(self->empty);
}

/* On @fd, and nothing has been made or changed. */
static void fails_on(struct __test_metadata *_metadata, FIXTURE_DATA(bad) *self,
		     int fd, uint64_t offset, uint64_t length, int err)
{
	struct cowmem_snapshot arg, copy;
	int next = next_fd();

	memset(&arg, 0, sizeof(arg));
	arg.size = sizeof(arg);
	arg.offset = offset;
	arg.length = length;
	memset(&arg.fd, POISON, sizeof(arg.fd));
	copy = arg;
	EXPECT_EQ(-err, cow_ioctl(fd, COWMEM_SNAPSHOT, &arg))
		TH_LOG("offset %#jx, length %#jx", (uintmax_t)offset,
		       (uintmax_t)length);
	EXPECT_EQ(0, memcmp(&arg, &copy, sizeof(arg)))
		TH_LOG("a call that failed has written to its struct");
	EXPECT_EQ(next, next_fd());
	EXPECT_EQ(0, cow_stat(self->odd).snapshots);
	EXPECT_EQ(0, cow_stat(self->empty).snapshots);
	EXPECT_EQ(self->before.snapshots, cow_stat(self->fd).snapshots);
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_EQ(self->nodes, cow_param("nodes"));
	/* A forgotten snapshot would make this store copy. */
	fill_pages(self->p, NR);
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_EQ(0, cow_stat(self->fd).reused);
}

static void is_EINVAL(struct __test_metadata *_metadata,
		      FIXTURE_DATA(bad) *self, uint64_t offset, uint64_t length)
{
	fails_on(_metadata, self, self->fd, offset, length, EINVAL);
}

TEST_F(bad, offset_that_is_not_aligned_is_EINVAL)
{
	is_EINVAL(_metadata, self, 1, PAGE);
	is_EINVAL(_metadata, self, PAGE - 1, PAGE);
	is_EINVAL(_metadata, self, PAGE + 512, 0);
	is_EINVAL(_metadata, self, SIZE - 1, 1);
	is_EINVAL(_metadata, self, PAGE / 2, SIZE - PAGE / 2);
}

TEST_F(bad, length_that_is_not_aligned_is_EINVAL)
{
	is_EINVAL(_metadata, self, 0, 1);
	is_EINVAL(_metadata, self, 0, SIZE - 1);
	is_EINVAL(_metadata, self, PAGE, PAGE + 512);
	is_EINVAL(_metadata, self, SIZE - PAGE, PAGE - 1);
}

TEST_F(bad, length_that_is_not_aligned_before_an_odd_end_is_EINVAL)
{
	fails_on(_metadata, self, self->odd, 8 * PAGE, 2 * PAGE + 99, EINVAL);
	fails_on(_metadata, self, self->odd, 7 * PAGE, 2 * PAGE + 100, EINVAL);
	fails_on(_metadata, self, self->odd, 10 * PAGE, 99, EINVAL);
	fails_on(_metadata, self, self->odd, 0, 100, EINVAL);
}

TEST_F(bad, range_beyond_the_end_is_EINVAL)
{
	is_EINVAL(_metadata, self, 0, SIZE + PAGE);
	is_EINVAL(_metadata, self, PAGE, SIZE);
	is_EINVAL(_metadata, self, SIZE - PAGE, 2 * PAGE);
	is_EINVAL(_metadata, self, SIZE + PAGE, PAGE);
	is_EINVAL(_metadata, self, SIZE + PAGE, 0);
	is_EINVAL(_metadata, self, TIB, PAGE);
	is_EINVAL(_metadata, self, 0, TIB);
}

TEST_F(bad, range_beyond_an_odd_end_is_EINVAL)
{
	/* The page ends there, not the buffer. */
	fails_on(_metadata, self, self->odd, 8 * PAGE, 3 * PAGE, EINVAL);
	fails_on(_metadata, self, self->odd, 10 * PAGE, 101, EINVAL);
	fails_on(_metadata, self, self->odd, 11 * PAGE, 0, EINVAL);
}

TEST_F(bad, range_that_overflows_is_EINVAL)
{
	is_EINVAL(_metadata, self, PAGE, -PAGE);
	is_EINVAL(_metadata, self, -PAGE, PAGE);
	is_EINVAL(_metadata, self, -PAGE, 2 * PAGE);
	is_EINVAL(_metadata, self, -PAGE, 0);
	is_EINVAL(_metadata, self, 2 * PAGE, -PAGE);
	is_EINVAL(_metadata, self, 0, -PAGE);
	is_EINVAL(_metadata, self, 1UL << 63, 1UL << 63);
	is_EINVAL(_metadata, self, SIZE - PAGE, (1UL << 63) + PAGE);
}

TEST_F(bad, offset_that_is_the_end_is_EINVAL)
{
	is_EINVAL(_metadata, self, SIZE, 0);
	is_EINVAL(_metadata, self, SIZE, PAGE);
}

TEST_F(bad, range_of_an_empty_buffer_is_EINVAL)
{
	fails_on(_metadata, self, self->empty, 0, PAGE, EINVAL);
	fails_on(_metadata, self, self->empty, PAGE, 0, EINVAL);
	fails_on(_metadata, self, self->empty, 0, 1, EINVAL);
}

TEST_F(bad, handle_that_cannot_be_read_is_EACCES)
{
	int fd = reopen(self->fd, O_WRONLY);

	ASSERT_GE(fd, 0);
	fails_on(_metadata, self, fd, PAGE, PAGE, EACCES);
}

TEST_F(bad, name_that_is_not_valid_is_EINVAL)
{
	struct cowmem_snapshot arg = {
		.size = sizeof(arg), .offset = PAGE, .length = PAGE, .fd = -1,
		.name = "a/b",
	};

	EXPECT_EQ(-EINVAL, cow_ioctl(self->fd, COWMEM_SNAPSHOT, &arg));
	memset(arg.name, 'x', sizeof(arg.name));
	EXPECT_EQ(-EINVAL, cow_ioctl(self->fd, COWMEM_SNAPSHOT, &arg));
	EXPECT_EQ(-1, arg.fd);
	EXPECT_EQ(0, cow_stat(self->fd).snapshots);
}

TEST_HARNESS_MAIN
