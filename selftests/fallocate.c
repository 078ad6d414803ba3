// SPDX-License-Identifier: GPL-2.0
/*
 * fallocate(): which holes get pages and which pages become holes, what reads
 * as zero afterwards and what everybody else keeps, that a failed call leaves
 * nothing behind, and that no store is lost to one.
 */
#include <pthread.h>
#include <sys/resource.h>

#include <linux/falloc.h>

#include "common.h"
#include "harness.h"
#include "util.h"

#define NR		16UL
#define SIZE		(NR * PAGE)

#define MIB		(1UL << 20)

#define KEEP		FALLOC_FL_KEEP_SIZE
#define PUNCH		(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO		FALLOC_FL_ZERO_RANGE
#define UNSHARE		FALLOC_FL_UNSHARE_RANGE

static long allocate(int fd, int mode, off_t offset, off_t length)
{
	return fallocate(fd, mode, offset, length) ? -errno : 0;
}

static off_t size_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? -1 : st.st_size;
}

/* Pages of the machine when the test began. */
static long base;

/* Pages that the buffers of the test hold, each counted once. */
static long held(void)
{
	return cow_param("pages") - base;
}

static bool is_hole(int fd, unsigned long index)
{
	off_t offset = index * PAGE;

	return lseek(fd, offset, SEEK_HOLE) == offset;
}

/*
 * Contents
 */

static const char zeroes[2 * SIZE];
static char filled[SIZE];	/* by fill_pages() */

static bool file_is(int fd, const char *want, size_t length)
{
	char data[2 * SIZE];

	return pread(fd, data, length, 0) == length &&
	       !memcmp(data, want, length);
}

/* By read() and in a mapping made just now. */
static bool buffer_is(int fd, const char *want, size_t length)
{
	char *p = cow_map(fd, length, PROT_READ);
	bool same = p != MAP_FAILED && !memcmp(p, want, length);

	munmap(p, length);
	return same && file_is(fd, want, length);
}

/* What a failed call must leave as it was. */
struct state {
	off_t size;
	long pages;
	long held;
	char data[SIZE];
};

static void state_of(int fd, struct state *state)
{
	memset(state, 0, sizeof(*state));
	state->size = size_of(fd);
	state->pages = pages_of(fd);
	state->held = held();
	if (pread(fd, state->data, SIZE, 0) != SIZE)
		state->size = -1;
}

static bool state_is(int fd, const struct state *before)
{
	return size_of(fd) == before->size && pages_of(fd) == before->pages &&
	       held() == before->held && buffer_is(fd, before->data, SIZE);
}

/* A buffer of SIZE bytes, in a mapping that has room for it to grow. */
static int buffer_open(char **p)
{
	int fd;

	fill_pages(filled, NR);
	base = cow_param("pages");
	fd = cow_create(SIZE, "fallocate");
	if (fd < 0)
		return fd;
	*p = cow_map(fd, 2 * SIZE, RW);
	return *p == MAP_FAILED ? -1 : fd;
}

static void buffer_close(int fd, char *p)
{
	munmap(p, 2 * SIZE);
	close(fd);
}

/*
 * The modes that fill holes do it in the same way
 */

FIXTURE(alloc)
{
	int fd;		/* all hole */
	char *p;
};

FIXTURE_VARIANT(alloc)
{
	int mode;
};

FIXTURE_VARIANT_ADD(alloc, mode_0) { .mode = 0 };
FIXTURE_VARIANT_ADD(alloc, ZERO_RANGE) { .mode = ZERO };
FIXTURE_VARIANT_ADD(alloc, UNSHARE_RANGE) { .mode = UNSHARE };

FIXTURE_SETUP(alloc)
{
	NEED(FALLOCATE);
	self->fd = buffer_open(&self->p);
	ASSERT_GE(self->fd, 0);
}

FIXTURE_TEARDOWN(alloc)
{
	buffer_close(self->fd, self->p);
	EXPECT_EQ(0, held());
}

TEST_F(alloc, holes_get_pages)
{
	ASSERT_EQ(0, allocate(self->fd, variant->mode, 0, SIZE));
	EXPECT_EQ(NR, pages_of(self->fd));
	EXPECT_EQ(NR, held());
	EXPECT_EQ(NR, cow_stat(self->fd).filled);
	EXPECT_EQ(SIZE, size_of(self->fd));
	EXPECT_TRUE(buffer_is(self->fd, zeroes, SIZE));
}

TEST_F(alloc, every_page_that_the_range_touches_gets_one)
{
	ASSERT_EQ(0, allocate(self->fd, variant->mode, PAGE - 1, 2));
	EXPECT_EQ(2, pages_of(self->fd));
	ASSERT_EQ(0, allocate(self->fd, variant->mode, 5 * PAGE + 7, 1));
	EXPECT_EQ(3, pages_of(self->fd));
	EXPECT_FALSE(is_hole(self->fd, 0));
	EXPECT_FALSE(is_hole(self->fd, 1));
	EXPECT_TRUE(is_hole(self->fd, 2));
	EXPECT_TRUE(is_hole(self->fd, 4));
	EXPECT_FALSE(is_hole(self->fd, 5));
	EXPECT_TRUE(is_hole(self->fd, 6));
}

TEST_F(alloc, size_is_extended_to_the_byte)
{
	char byte;

	ASSERT_EQ(0, allocate(self->fd, variant->mode, SIZE - 100, 300));
	EXPECT_EQ(SIZE + 200, size_of(self->fd));
	EXPECT_EQ(SIZE + 200, cow_stat(self->fd).length);
	EXPECT_EQ(2, pages_of(self->fd));
	EXPECT_TRUE(buffer_is(self->fd, zeroes, SIZE + 200));
	EXPECT_EQ(0, pread(self->fd, &byte, 1, SIZE + 200));
}

TEST_F(alloc, range_inside_keeps_the_size)
{
	ASSERT_EQ(0, allocate(self->fd, variant->mode, 100, 200));
	EXPECT_EQ(SIZE, size_of(self->fd));
	ASSERT_EQ(0, allocate(self->fd, variant->mode, 0, SIZE));
	EXPECT_EQ(SIZE, size_of(self->fd));
}

TEST_F(alloc, second_call_allocates_nothing)
{
	ASSERT_EQ(0, allocate(self->fd, variant->mode, 0, SIZE));
	ASSERT_EQ(0, allocate(self->fd, variant->mode, 0, SIZE));
	EXPECT_EQ(NR, pages_of(self->fd));
	EXPECT_EQ(NR, held());
}

TEST_F(alloc, filled_page_takes_stores_without_another)
{
	ASSERT_EQ(0, allocate(self->fd, variant->mode, 0, SIZE));
	fill_pages(self->p, NR);
	EXPECT_EQ(NR, held());
	EXPECT_EQ(NR, cow_stat(self->fd).filled);
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_TRUE(buffer_is(self->fd, filled, SIZE));
}

TEST_F(alloc, hole_that_had_been_read_shows_stores_to_the_new_page)
{
	char *q = cow_map(self->fd, SIZE, RW);

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(0, memcmp(self->p, zeroes, SIZE));
	EXPECT_EQ(0, memcmp(q, zeroes, SIZE));
	ASSERT_EQ(0, allocate(self->fd, variant->mode, 0, SIZE));
	fill_pages(self->p, NR);
	EXPECT_EQ(0, memcmp(q, filled, SIZE));
	q[3 * PAGE] = '!';
	EXPECT_EQ('!', self->p[3 * PAGE]);
	EXPECT_TRUE(file_is(self->fd, self->p, SIZE));
	munmap(q, SIZE);
}

TEST_F(alloc, works_up_to_the_largest_size)
{
	off_t largest = cow_query().max_size;
	char data[PAGE];

	memset(data, '!', PAGE);
	ASSERT_EQ(0, allocate(self->fd, variant->mode, largest - PAGE, PAGE));
	EXPECT_EQ(largest, size_of(self->fd));
	EXPECT_EQ(1, pages_of(self->fd));
	EXPECT_EQ(PAGE, pread(self->fd, data, PAGE, largest - PAGE));
	EXPECT_TRUE(page_is(data, 0));
}

TEST_F(alloc, growing_beyond_RLIMIT_FSIZE_is_EFBIG)
{
	struct rlimit old, tight;
	long err;

	signal(SIGXFSZ, SIG_IGN);
	ASSERT_EQ(0, getrlimit(RLIMIT_FSIZE, &old));
	tight = (struct rlimit) { 2 * SIZE, old.rlim_max };
	ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &tight));
	err = allocate(self->fd, variant->mode, 0, 2 * SIZE + 1);
	setrlimit(RLIMIT_FSIZE, &old);
	EXPECT_EQ(-EFBIG, err);
	EXPECT_EQ(SIZE, size_of(self->fd));
	EXPECT_EQ(0, held());
}

TEST_F(alloc, growing_hides_stores_beyond_the_end)
{
	char want[3 * PAGE] = "";
	int snap;

	memset(want + PAGE, '!', 100);
	ASSERT_EQ(0, ftruncate(self->fd, PAGE + 100));
	memset(self->p + PAGE, '!', PAGE);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, allocate(self->fd, variant->mode, 2 * PAGE, PAGE));
	EXPECT_EQ(3 * PAGE, size_of(self->fd));
	EXPECT_EQ(0, memcmp(self->p, want, 3 * PAGE));
	EXPECT_TRUE(buffer_is(self->fd, want, 3 * PAGE));
	EXPECT_EQ(PAGE + 100, size_of(snap));
	EXPECT_TRUE(buffer_is(snap, want, PAGE + 100));
	close(snap);
}

TEST_F(alloc, handle_needs_only_to_write)
{
	int fd = reopen(self->fd, O_WRONLY);

	ASSERT_GE(fd, 0);
	EXPECT_EQ(0, allocate(fd, variant->mode, 0, SIZE));
	EXPECT_EQ(NR, pages_of(self->fd));
	close(fd);
}

TEST_F(alloc, KEEP_SIZE_inside_fills)
{
	ASSERT_EQ(0, allocate(self->fd, variant->mode | KEEP, 0, SIZE));
	EXPECT_EQ(NR, pages_of(self->fd));
	EXPECT_EQ(SIZE, size_of(self->fd));
	EXPECT_TRUE(buffer_is(self->fd, zeroes, SIZE));
}

TEST_F(alloc, KEEP_SIZE_beyond_the_end_counts_and_does_not_show)
{
	char byte;

	ASSERT_EQ(0, allocate(self->fd, variant->mode | KEEP, SIZE, 4 * PAGE));
	EXPECT_EQ(4, pages_of(self->fd));
	EXPECT_EQ(4, held());
	EXPECT_EQ(SIZE, size_of(self->fd));
	EXPECT_EQ(0, pread(self->fd, &byte, 1, SIZE));
	EXPECT_EQ(-1, lseek(self->fd, 0, SEEK_DATA));
	EXPECT_EQ(ENXIO, errno);
	EXPECT_EQ(-1, lseek(self->fd, SIZE, SEEK_DATA));
	EXPECT_EQ(ENXIO, errno);
	EXPECT_EQ(SIGBUS, COW_TRY(*(volatile char *)(self->p + SIZE) = 1));
}

TEST_F(alloc, KEEP_SIZE_across_the_end_fills_both_sides)
{
	ASSERT_EQ(0, allocate(self->fd, variant->mode | KEEP, SIZE - 1, 2));
	EXPECT_EQ(2, pages_of(self->fd));
	EXPECT_EQ(SIZE, size_of(self->fd));
	EXPECT_FALSE(is_hole(self->fd, NR - 1));
}

TEST_F(alloc, growing_over_pages_beyond_the_end_reads_zero)
{
	char want[SIZE + 4 * PAGE] = "";

	ASSERT_EQ(0, allocate(self->fd, variant->mode | KEEP, SIZE, 4 * PAGE));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE + 4 * PAGE));
	EXPECT_EQ(4, held());
	EXPECT_TRUE(buffer_is(self->fd, want, SIZE + 4 * PAGE));
	memset(self->p + SIZE, '!', 4 * PAGE);
	memset(want + SIZE, '!', 4 * PAGE);
	EXPECT_EQ(4, held());
	EXPECT_TRUE(buffer_is(self->fd, want, SIZE + 4 * PAGE));
}

TEST_F(alloc, write_into_pages_beyond_the_end_needs_no_page)
{
	char want[SIZE + PAGE + 6] = "";

	want[SIZE + PAGE + 5] = '!';
	ASSERT_EQ(0, allocate(self->fd, variant->mode | KEEP, SIZE, 4 * PAGE));
	ASSERT_EQ(1, pwrite(self->fd, "!", 1, SIZE + PAGE + 5));
	EXPECT_EQ(4, held());
	EXPECT_EQ(SIZE + PAGE + 6, size_of(self->fd));
	EXPECT_TRUE(buffer_is(self->fd, want, SIZE + PAGE + 6));
}

TEST_F(alloc, shrinking_frees_pages_beyond_the_end)
{
	ASSERT_EQ(0, allocate(self->fd, variant->mode | KEEP, 0, 2 * SIZE));
	EXPECT_EQ(2 * NR, held());
	ASSERT_EQ(0, ftruncate(self->fd, 3 * PAGE));
	EXPECT_EQ(3, pages_of(self->fd));
	EXPECT_EQ(3, held());
}

TEST_F(alloc, clone_shares_pages_beyond_the_end_and_grows_apart)
{
	char want[SIZE + PAGE] = "";
	int clone;

	ASSERT_EQ(0, allocate(self->fd, variant->mode | KEEP, SIZE, PAGE));
	clone = cow_snapshot(self->fd, COWMEM_WRITABLE);
	ASSERT_GE(clone, 0);
	EXPECT_EQ(SIZE, size_of(clone));
	EXPECT_EQ(1, pages_of(clone));
	EXPECT_EQ(1, held());
	ASSERT_EQ(0, ftruncate(self->fd, SIZE + PAGE));
	ASSERT_EQ(0, ftruncate(clone, SIZE + PAGE));
	memset(self->p + SIZE, '!', PAGE);
	EXPECT_EQ(2, held());
	EXPECT_TRUE(buffer_is(clone, want, SIZE + PAGE));
	memset(want + SIZE, '!', PAGE);
	EXPECT_TRUE(buffer_is(self->fd, want, SIZE + PAGE));
	close(clone);
}

/*
 * Data in the even pages, holes in the odd ones
 */

FIXTURE(mixed)
{
	int fd;
	char *p;
	char want[SIZE];
};

static void fill_even(char *p)
{
	unsigned long i;

	for (i = 0; i < NR; i += 2)
		memset(p + i * PAGE, 'a' + i, PAGE);
}

FIXTURE_SETUP(mixed)
{
	NEED(FALLOCATE);
	self->fd = buffer_open(&self->p);
	ASSERT_GE(self->fd, 0);
	fill_even(self->p);
	fill_even(self->want);
}

FIXTURE_TEARDOWN(mixed)
{
	buffer_close(self->fd, self->p);
	EXPECT_EQ(0, held());
}

TEST_F(mixed, mode_0_leaves_data_alone)
{
	ASSERT_EQ(0, allocate(self->fd, 0, 0, SIZE));
	EXPECT_EQ(NR, pages_of(self->fd));
	EXPECT_EQ(NR, cow_stat(self->fd).filled);
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_EQ(0, memcmp(self->p, self->want, SIZE));
	EXPECT_TRUE(buffer_is(self->fd, self->want, SIZE));
}

TEST_F(mixed, mode_0_leaves_shared_pages_shared)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, allocate(self->fd, 0, 0, SIZE));
	EXPECT_EQ(NR + NR / 2, pages_of(self->fd) + pages_of(snap));
	EXPECT_EQ(NR, held());
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_TRUE(buffer_is(self->fd, self->want, SIZE));
	EXPECT_TRUE(buffer_is(snap, self->want, SIZE));
	/* Still shared: the first store copies, to a filled hole it does not. */
	self->p[0] = '!';
	EXPECT_EQ(1, cow_stat(self->fd).copied);
	self->p[PAGE] = '!';
	EXPECT_EQ(1, cow_stat(self->fd).copied);
	EXPECT_EQ(NR + 1, held());
	EXPECT_TRUE(buffer_is(snap, self->want, SIZE));
	close(snap);
}

TEST_F(mixed, mode_0_in_a_clone_leaves_the_holes_of_the_origin)
{
	int clone = cow_snapshot(self->fd, COWMEM_WRITABLE);

	ASSERT_GE(clone, 0);
	ASSERT_EQ(0, allocate(clone, 0, 0, SIZE));
	EXPECT_EQ(NR, pages_of(clone));
	EXPECT_EQ(NR / 2, pages_of(self->fd));
	EXPECT_TRUE(is_hole(self->fd, 1));
	EXPECT_TRUE(buffer_is(clone, self->want, SIZE));
	EXPECT_TRUE(buffer_is(self->fd, self->want, SIZE));
	close(clone);
}

TEST_F(mixed, punch_of_holes_allocates_nothing)
{
	ASSERT_EQ(0, allocate(self->fd, PUNCH, PAGE + 1, PAGE - 2));
	ASSERT_EQ(0, allocate(self->fd, PUNCH, 3 * PAGE, PAGE));
	EXPECT_EQ(NR / 2, pages_of(self->fd));
	/* The hole's part of the edge page, and the data's. */
	ASSERT_EQ(0, allocate(self->fd, PUNCH, 5 * PAGE + 100, PAGE));
	memset(self->want + 6 * PAGE, 0, 100);
	EXPECT_EQ(NR / 2, pages_of(self->fd));
	EXPECT_TRUE(buffer_is(self->fd, self->want, SIZE));
}

TEST_F(mixed, unsupported_modes_change_nothing)
{
	/* What the core of 6.1 says instead: it has more reasons. */
	static const struct {
		int mode;
		int older;
	} bad[] = {
		{ FALLOC_FL_PUNCH_HOLE, EOPNOTSUPP },
		{ FALLOC_FL_COLLAPSE_RANGE, EOPNOTSUPP },
		{ FALLOC_FL_INSERT_RANGE, EOPNOTSUPP },
		{ FALLOC_FL_NO_HIDE_STALE, EOPNOTSUPP },
		{ 0x100, EOPNOTSUPP },
		{ PUNCH | ZERO, EOPNOTSUPP },
		{ FALLOC_FL_COLLAPSE_RANGE | KEEP, EINVAL },
		{ FALLOC_FL_INSERT_RANGE | KEEP, EINVAL },
		{ FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE, EINVAL },
		{ UNSHARE | ZERO, EINVAL },
		{ UNSHARE | PUNCH, EINVAL },
	};
	struct state before;
	int i, err;

	state_of(self->fd, &before);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		err = allocate(self->fd, bad[i].mode, 2 * PAGE, 2 * PAGE);
		EXPECT_TRUE(err == -EOPNOTSUPP || err == -bad[i].older)
			TH_LOG("mode %#x: %d", bad[i].mode, err);
		EXPECT_TRUE(state_is(self->fd, &before));
	}
}

TEST_F(mixed, populate_read_of_a_snapshot_allocates_nothing)
{
	int snap = cow_snapshot(self->fd, 0);
	char *q;

	ASSERT_GE(snap, 0);
	q = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_EQ(0, madvise(q, SIZE, MADV_POPULATE_READ));
	EXPECT_EQ(NR / 2, pages_of(snap));
	EXPECT_EQ(NR / 2, held());
	EXPECT_EQ(0, memcmp(q, self->want, SIZE));
	munmap(q, SIZE);
	close(snap);
}

TEST_F(mixed, populate_write_of_a_snapshot_is_EINVAL_and_changes_nothing)
{
	int snap = cow_snapshot(self->fd, 0);
	struct state before;
	char *q;

	ASSERT_GE(snap, 0);
	q = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	state_of(snap, &before);
	EXPECT_EQ(-1, madvise(q, SIZE, MADV_POPULATE_WRITE));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_TRUE(state_is(snap, &before));
	munmap(q, SIZE);
	close(snap);
}

TEST_F(mixed, populate_read_after_a_snapshot_allocates_nothing)
{
	int clone = cow_snapshot(self->fd, COWMEM_WRITABLE);
	char *q;

	ASSERT_GE(clone, 0);
	q = cow_map(clone, SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_EQ(0, madvise(q, SIZE, MADV_POPULATE_READ));
	ASSERT_EQ(0, madvise(self->p, SIZE, MADV_POPULATE_READ));
	EXPECT_EQ(NR / 2, held());
	EXPECT_EQ(0, cow_stat(clone).copied);
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_EQ(0, memcmp(q, self->want, SIZE));
	EXPECT_EQ(0, memcmp(self->p, self->want, SIZE));
	munmap(q, SIZE);
	close(clone);
}

TEST_F(mixed, populate_write_of_a_clone_copies_and_fills)
{
	int clone = cow_snapshot(self->fd, COWMEM_WRITABLE);
	unsigned long faults;
	char *q;

	ASSERT_GE(clone, 0);
	q = cow_map(clone, SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_EQ(0, madvise(q, SIZE, MADV_POPULATE_WRITE));
	EXPECT_EQ(NR, pages_of(clone));
	EXPECT_EQ(NR + NR / 2, held());
	EXPECT_EQ(NR / 2, cow_stat(clone).copied);
	EXPECT_EQ(NR / 2, cow_stat(clone).filled);
	EXPECT_EQ(0, memcmp(q, self->want, SIZE));
	faults = cow_stat(clone).faults;
	fill_pages(q, NR);
	EXPECT_EQ(faults, cow_stat(clone).faults);
	EXPECT_TRUE(buffer_is(clone, filled, SIZE));
	EXPECT_TRUE(buffer_is(self->fd, self->want, SIZE));
	munmap(q, SIZE);
	close(clone);
}

TEST_F(mixed, populate_write_of_the_origin_leaves_the_snapshot)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, madvise(self->p, SIZE, MADV_POPULATE_WRITE));
	EXPECT_EQ(NR, pages_of(self->fd));
	EXPECT_EQ(NR / 2, pages_of(snap));
	EXPECT_EQ(NR + NR / 2, held());
	fill_pages(self->p, NR);
	EXPECT_TRUE(buffer_is(snap, self->want, SIZE));
	close(snap);
}

/*
 * The modes that zero, over data
 */

struct range {
	unsigned long offset;
	unsigned long length;
};

static const struct range ranges[] = {
	{ 4 * PAGE, 3 * PAGE },
	{ 4 * PAGE + 100, 3 * PAGE },
	{ 4 * PAGE + 100, 3 * PAGE - 100 },
	{ 4 * PAGE, 3 * PAGE + 100 },
	{ 4 * PAGE + 100, 200 },
	{ 5 * PAGE - 1, 1 },
	{ 5 * PAGE, 1 },
	{ 5 * PAGE - 1, 2 },
	{ 5 * PAGE - 1, PAGE + 2 },
	{ SIZE - PAGE - 1, PAGE + 1 },
	{ 0, SIZE },
};

/* Pages that lie inside as a whole. */
static long whole_pages(const struct range *range)
{
	unsigned long first = (range->offset + PAGE - 1) / PAGE;
	unsigned long end = (range->offset + range->length) / PAGE;

	return end > first ? end - first : 0;
}

TEST(buffer_that_is_punched_page_by_page_has_no_index_left)
{
	long nodes = cow_param("nodes");
	int fd = cow_create(64 * MIB, "punched"), i;

	NEED(FALLOCATE);
	ASSERT_GE(fd, 0);
	for (i = 0; i < 64; i++)
		ASSERT_TRUE(write_byte(fd, i * MIB + i * PAGE, '!'));
	for (i = 0; i < 64; i++)
		ASSERT_EQ(0, allocate(fd, PUNCH, i * MIB + i * PAGE, PAGE));
	EXPECT_EQ(0, pages_of(fd));
	EXPECT_EQ(nodes, cow_param("nodes"));
	close(fd);
}

FIXTURE(erase)
{
	int fd;
	char *p, *q;	/* two mappings */
	char want[SIZE];
};

FIXTURE_VARIANT(erase)
{
	int mode;
};

FIXTURE_VARIANT_ADD(erase, PUNCH_HOLE) { .mode = PUNCH };
FIXTURE_VARIANT_ADD(erase, ZERO_RANGE) { .mode = ZERO };
FIXTURE_VARIANT_ADD(erase, ZERO_RANGE_KEEP_SIZE) { .mode = ZERO | KEEP };

FIXTURE_SETUP(erase)
{
	NEED(FALLOCATE);
	self->fd = buffer_open(&self->p);
	ASSERT_GE(self->fd, 0);
	self->q = cow_map(self->fd, SIZE, RW);
	ASSERT_NE(MAP_FAILED, self->q);
	fill_pages(self->p, NR);
	fill_pages(self->want, NR);
	ASSERT_EQ(0, memcmp(self->q, filled, SIZE));
}

FIXTURE_TEARDOWN(erase)
{
	munmap(self->q, SIZE);
	buffer_close(self->fd, self->p);
	EXPECT_EQ(0, held());
}

/* Do it, to the buffer and to what it is to have. */
static long erase(FIXTURE_DATA(erase) *self, int mode,
		  const struct range *range)
{
	memset(self->want + range->offset, 0, range->length);
	return allocate(self->fd, mode, range->offset, range->length);
}

static bool erased(FIXTURE_DATA(erase) *self)
{
	return !memcmp(self->p, self->want, SIZE) &&
	       !memcmp(self->q, self->want, SIZE) &&
	       buffer_is(self->fd, self->want, SIZE);
}

TEST_F(erase, just_the_range_reads_zero)
{
	const struct range *range;

	for (range = ranges; range < ranges + ARRAY_SIZE(ranges); range++) {
		fill_pages(self->p, NR);
		fill_pages(self->want, NR);
		ASSERT_EQ(0, erase(self, variant->mode, range));
		EXPECT_TRUE(erased(self))
			TH_LOG("%lu+%lu", range->offset, range->length);
		EXPECT_EQ(variant->mode == PUNCH ? NR - whole_pages(range) : NR,
			  pages_of(self->fd));
		EXPECT_EQ(SIZE, size_of(self->fd));
	}
}

TEST_F(erase, snapshot_keeps_the_data)
{
	const struct range *range;
	int snap;
	char *r;

	for (range = ranges; range < ranges + ARRAY_SIZE(ranges); range++) {
		fill_pages(self->p, NR);
		fill_pages(self->want, NR);
		snap = cow_snapshot(self->fd, 0);
		ASSERT_GE(snap, 0);
		r = cow_map(snap, SIZE, PROT_READ);
		ASSERT_NE(MAP_FAILED, r);
		EXPECT_EQ(0, memcmp(r, filled, SIZE));
		ASSERT_EQ(0, erase(self, variant->mode, range));
		EXPECT_TRUE(erased(self))
			TH_LOG("%lu+%lu", range->offset, range->length);
		EXPECT_EQ(0, memcmp(r, filled, SIZE));
		EXPECT_TRUE(buffer_is(snap, filled, SIZE));
		EXPECT_EQ(NR, pages_of(snap));
		munmap(r, SIZE);
		close(snap);
	}
}

TEST_F(erase, origin_keeps_what_goes_in_the_clone)
{
	int clone = cow_snapshot(self->fd, COWMEM_WRITABLE);

	ASSERT_GE(clone, 0);
	ASSERT_EQ(0, allocate(clone, variant->mode, 100, SIZE - 200));
	EXPECT_TRUE(erased(self));
	EXPECT_EQ(NR, pages_of(self->fd));
	memset(self->want + 100, 0, SIZE - 200);
	EXPECT_TRUE(buffer_is(clone, self->want, SIZE));
	close(clone);
}

/* To @sync[1] and from @sync[0] of a pipe. */
static void sync_post(int sync[2])
{
	if (write(sync[1], "", 1) != 1)
		_exit(1);
}

static void sync_wait(int sync[2])
{
	char byte;

	if (read(sync[0], &byte, 1) != 1)
		_exit(1);
}

TEST_F(erase, other_processes_see_zero_at_once_and_their_stores_are_seen)
{
	const struct range range = { 4 * PAGE + 100, 3 * PAGE };
	int ready[2], go[2], status = -1;
	pid_t pid;

	ASSERT_EQ(0, pipe(ready));
	ASSERT_EQ(0, pipe(go));
	pid = fork();
	if (!pid) {
		bool ok = !memcmp(self->q, filled, SIZE);

		sync_post(ready);
		sync_wait(go);
		memset(self->want + range.offset, 0, range.length);
		ok &= !memcmp(self->q, self->want, SIZE);
		memset(self->q + 5 * PAGE, '!', PAGE);
		_exit(!ok);
	}
	sync_wait(ready);
	ASSERT_EQ(0, erase(self, variant->mode, &range));
	sync_post(go);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	memset(self->want + 5 * PAGE, '!', PAGE);
	EXPECT_TRUE(erased(self));
	pipe_close(ready);
	pipe_close(go);
}

TEST_F(erase, stores_afterwards_are_seen_by_all)
{
	static const struct range all = { 0, SIZE };

	ASSERT_EQ(0, erase(self, variant->mode, &all));
	self->p[3 * PAGE + 5] = self->want[3 * PAGE + 5] = '1';
	EXPECT_TRUE(erased(self));
	self->q[3 * PAGE + 6] = self->want[3 * PAGE + 6] = '2';
	EXPECT_TRUE(erased(self));
	self->want[4 * PAGE + 7] = '3';
	ASSERT_EQ(1, pwrite(self->fd, "3", 1, 4 * PAGE + 7));
	EXPECT_TRUE(erased(self));
	EXPECT_EQ(variant->mode == PUNCH ? 2 : NR, held());
}

TEST_F(erase, private_copies_stay_and_the_rest_reads_zero)
{
	char *r = mmap(NULL, SIZE, RW, MAP_PRIVATE, self->fd, 0);
	static const struct range all = { 0, SIZE };
	char want[SIZE] = "";

	ASSERT_NE(MAP_FAILED, r);
	EXPECT_EQ(0, memcmp(r, filled, SIZE));
	memset(r + 3 * PAGE, '!', PAGE);
	memset(want + 3 * PAGE, '!', PAGE);
	ASSERT_EQ(0, erase(self, variant->mode, &all));
	EXPECT_EQ(0, memcmp(r, want, SIZE));
	EXPECT_TRUE(erased(self));
	munmap(r, SIZE);
}

TEST_F(erase, snapshot_taken_afterwards_has_the_zeroes)
{
	static const struct range some = { 4 * PAGE, 3 * PAGE };
	int snap;

	ASSERT_EQ(0, erase(self, variant->mode, &some));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	memset(self->p, '!', SIZE);
	EXPECT_TRUE(buffer_is(snap, self->want, SIZE));
	EXPECT_EQ(variant->mode == PUNCH ? NR - 3 : NR, pages_of(snap));
	close(snap);
}

/*
 * A buffer full of data
 */

FIXTURE(filled)
{
	int fd;
	char *p;
};

FIXTURE_SETUP(filled)
{
	NEED(FALLOCATE);
	self->fd = buffer_open(&self->p);
	ASSERT_GE(self->fd, 0);
	fill_pages(self->p, NR);
}

FIXTURE_TEARDOWN(filled)
{
	buffer_close(self->fd, self->p);
	EXPECT_EQ(0, held());
}

TEST_F(filled, punched_pages_are_freed_and_are_holes)
{
	ASSERT_EQ(0, allocate(self->fd, PUNCH, 4 * PAGE, 3 * PAGE));
	EXPECT_EQ(NR - 3, held());
	EXPECT_EQ(4 * PAGE, lseek(self->fd, 0, SEEK_HOLE));
	EXPECT_EQ(7 * PAGE, lseek(self->fd, 4 * PAGE, SEEK_DATA));
	EXPECT_EQ(SIZE, lseek(self->fd, 7 * PAGE, SEEK_HOLE));
	ASSERT_EQ(0, allocate(self->fd, PUNCH, 0, SIZE));
	EXPECT_EQ(0, held());
}

TEST_F(filled, punched_hole_that_is_read_stays_a_hole)
{
	ASSERT_EQ(0, allocate(self->fd, PUNCH, 0, SIZE));
	EXPECT_EQ(0, memcmp(self->p, zeroes, SIZE));
	EXPECT_EQ(0, held());
}

TEST_F(filled, write_to_a_punched_hole_has_zeroes_around_it)
{
	char want[SIZE];

	fill_pages(want, NR);
	memset(want + 4 * PAGE, 0, PAGE);
	memcpy(want + 4 * PAGE + 50, "hello", 5);
	ASSERT_EQ(0, allocate(self->fd, PUNCH, 4 * PAGE, PAGE));
	ASSERT_EQ(5, pwrite(self->fd, "hello", 5, 4 * PAGE + 50));
	EXPECT_EQ(0, memcmp(self->p, want, SIZE));
	EXPECT_TRUE(buffer_is(self->fd, want, SIZE));
}

TEST_F(filled, edges_of_a_punch_are_copied_if_shared)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, allocate(self->fd, PUNCH, 4 * PAGE + 100, 3 * PAGE));
	EXPECT_EQ(NR - 2, pages_of(self->fd));
	EXPECT_EQ(NR + 2, held());
	EXPECT_EQ(2, cow_stat(self->fd).copied);
	close(snap);
	EXPECT_EQ(NR - 2, held());
}

TEST_F(filled, shared_page_is_freed_by_the_second_punch)
{
	int clone = cow_snapshot(self->fd, COWMEM_WRITABLE);

	ASSERT_GE(clone, 0);
	ASSERT_EQ(0, allocate(self->fd, PUNCH, 0, SIZE));
	EXPECT_EQ(0, pages_of(self->fd));
	EXPECT_EQ(NR, pages_of(clone));
	EXPECT_EQ(NR, held());
	EXPECT_TRUE(buffer_is(clone, filled, SIZE));
	ASSERT_EQ(0, allocate(clone, PUNCH, 0, 4 * PAGE));
	EXPECT_EQ(NR - 4, held());
	ASSERT_EQ(0, allocate(clone, PUNCH, 0, SIZE));
	EXPECT_EQ(0, held());
	close(clone);
}

TEST_F(filled, page_punched_by_the_last_sharer_is_stored_to_without_a_copy)
{
	int clone = cow_snapshot(self->fd, COWMEM_WRITABLE);

	ASSERT_GE(clone, 0);
	ASSERT_EQ(0, allocate(clone, PUNCH, 3 * PAGE, PAGE));
	self->p[3 * PAGE] = '!';
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_EQ(1, cow_stat(self->fd).reused);
	self->p[4 * PAGE] = '!';
	EXPECT_EQ(1, cow_stat(self->fd).copied);
	EXPECT_EQ(NR + 1, held());
	close(clone);
}

TEST_F(filled, punch_beyond_the_end_changes_nothing)
{
	ASSERT_EQ(0, allocate(self->fd, PUNCH, SIZE, 4 * PAGE));
	ASSERT_EQ(0, allocate(self->fd, PUNCH, SIZE + 100, 1));
	ASSERT_EQ(0, allocate(self->fd, PUNCH, GIB, GIB));
	EXPECT_EQ(NR, held());
	EXPECT_EQ(SIZE, size_of(self->fd));
	EXPECT_TRUE(buffer_is(self->fd, filled, SIZE));
}

TEST_F(filled, punch_across_the_end_keeps_the_size)
{
	char want[SIZE];

	fill_pages(want, NR);
	memset(want + SIZE - 2 * PAGE, 0, 2 * PAGE);
	ASSERT_EQ(0, allocate(self->fd, PUNCH, SIZE - 2 * PAGE, 8 * PAGE));
	EXPECT_EQ(NR - 2, held());
	EXPECT_EQ(SIZE, size_of(self->fd));
	EXPECT_TRUE(buffer_is(self->fd, want, SIZE));
}

TEST_F(filled, punch_up_to_an_end_inside_a_page)
{
	char want[SIZE];

	fill_pages(want, NR);
	memset(want + SIZE - PAGE + 50, 0, PAGE - 50);
	ASSERT_EQ(0, ftruncate(self->fd, SIZE - 100));
	ASSERT_EQ(0, allocate(self->fd, PUNCH, SIZE - PAGE + 50, PAGE - 150));
	EXPECT_EQ(SIZE - 100, size_of(self->fd));
	EXPECT_TRUE(buffer_is(self->fd, want, SIZE - 100));
	ASSERT_EQ(0, allocate(self->fd, PUNCH, SIZE - PAGE, PAGE));
	EXPECT_EQ(NR - 1, held());
	ASSERT_EQ(0, ftruncate(self->fd, SIZE));
	memset(want + SIZE - PAGE, 0, PAGE);
	EXPECT_TRUE(buffer_is(self->fd, want, SIZE));
}

TEST_F(filled, punch_frees_pages_beyond_the_end)
{
	ASSERT_EQ(0, allocate(self->fd, KEEP, SIZE, 8 * PAGE));
	EXPECT_EQ(NR + 8, held());
	ASSERT_EQ(0, allocate(self->fd, PUNCH, SIZE, 6 * PAGE));
	EXPECT_EQ(NR + 2, pages_of(self->fd));
	EXPECT_EQ(NR + 2, held());
}

/* Page by page it would not end before the timeout. */
TEST_F(filled, punch_of_a_huge_sparse_range_is_quick)
{
	off_t largest = cow_query().max_size;
	unsigned long i;

	ASSERT_EQ(0, ftruncate(self->fd, largest));
	for (i = 1; i <= 16; i++)
		ASSERT_EQ(1, pwrite(self->fd, "!", 1, i * GIB - 1));
	ASSERT_EQ(1, pwrite(self->fd, "!", 1, largest - 1));
	EXPECT_EQ(NR + 17, held());
	ASSERT_EQ(0, allocate(self->fd, PUNCH, SIZE, 16 * GIB - SIZE));
	EXPECT_EQ(NR + 1, held());
	EXPECT_EQ(largest - PAGE, lseek(self->fd, SIZE, SEEK_DATA));
	ASSERT_EQ(0, allocate(self->fd, PUNCH, PAGE + 100,
			      largest - PAGE - 200));
	EXPECT_EQ(3, held());
	EXPECT_EQ(largest - PAGE, lseek(self->fd, 2 * PAGE, SEEK_DATA));
	ASSERT_EQ(0, allocate(self->fd, PUNCH, 0, largest));
	EXPECT_EQ(0, held());
	EXPECT_EQ(largest, size_of(self->fd));
}

TEST_F(filled, punch_of_a_huge_shared_range_leaves_the_snapshot)
{
	unsigned long i;
	int snap;
	char c;

	ASSERT_EQ(0, ftruncate(self->fd, 16 * GIB));
	for (i = 1; i <= 16; i++)
		ASSERT_EQ(1, pwrite(self->fd, "!", 1, i * GIB - 1));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, allocate(self->fd, PUNCH, 0, 16 * GIB));
	EXPECT_EQ(0, pages_of(self->fd));
	EXPECT_EQ(NR + 16, pages_of(snap));
	EXPECT_EQ(NR + 16, held());
	EXPECT_TRUE(file_is(self->fd, zeroes, SIZE));
	EXPECT_TRUE(file_is(snap, filled, SIZE));
	for (i = 1; i <= 16; i++) {
		EXPECT_EQ(1, pread(snap, &c, 1, i * GIB - 1));
		EXPECT_EQ('!', c);
		EXPECT_EQ(1, pread(self->fd, &c, 1, i * GIB - 1));
		EXPECT_EQ(0, c);
	}
	close(snap);
}

TEST_F(filled, ZERO_RANGE_replaces_pages_one_for_one)
{
	ASSERT_EQ(0, allocate(self->fd, ZERO, 0, SIZE));
	EXPECT_EQ(NR, pages_of(self->fd));
	EXPECT_EQ(NR, held());
	EXPECT_EQ(0, memcmp(self->p, zeroes, SIZE));
	fill_pages(self->p, NR);
	EXPECT_EQ(NR, held());
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_TRUE(buffer_is(self->fd, filled, SIZE));
}

TEST_F(filled, ZERO_RANGE_of_shared_pages_takes_pages_of_its_own)
{
	int snap = cow_snapshot(self->fd, 0);
	struct cowmem_stat before;

	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, allocate(self->fd, ZERO, 4 * PAGE + 100, 3 * PAGE));
	EXPECT_EQ(NR, pages_of(self->fd));
	EXPECT_EQ(NR + 4, held());
	before = cow_stat(self->fd);
	memset(self->p + 4 * PAGE, '!', 4 * PAGE);
	EXPECT_EQ(before.copied, cow_stat(self->fd).copied);
	EXPECT_EQ(NR + 4, held());
	EXPECT_TRUE(buffer_is(snap, filled, SIZE));
	close(snap);
}

TEST_F(filled, ZERO_RANGE_across_the_end_extends_to_the_byte)
{
	char want[SIZE + 200] = "";

	fill_pages(want, NR);
	memset(want + SIZE - 100, 0, 300);
	ASSERT_EQ(0, allocate(self->fd, ZERO, SIZE - 100, 300));
	EXPECT_EQ(SIZE + 200, size_of(self->fd));
	EXPECT_EQ(NR + 1, held());
	EXPECT_TRUE(buffer_is(self->fd, want, SIZE + 200));
}

TEST_F(filled, ZERO_RANGE_KEEP_SIZE_across_the_end_keeps_it)
{
	char want[SIZE + PAGE] = "";

	fill_pages(want, NR);
	memset(want + SIZE - 100, 0, 300);
	ASSERT_EQ(0, allocate(self->fd, ZERO | KEEP, SIZE - 100, 300));
	EXPECT_EQ(SIZE, size_of(self->fd));
	EXPECT_EQ(NR + 1, held());
	EXPECT_TRUE(buffer_is(self->fd, want, SIZE));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE + PAGE));
	EXPECT_TRUE(buffer_is(self->fd, want, SIZE + PAGE));
}

/*
 * UNSHARE_RANGE
 */

TEST_F(filled, store_after_UNSHARE_copies_nothing)
{
	int snap = cow_snapshot(self->fd, 0);
	struct cowmem_stat before;

	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, allocate(self->fd, UNSHARE, 0, SIZE));
	EXPECT_EQ(NR, pages_of(self->fd));
	EXPECT_EQ(2 * NR, held());
	EXPECT_EQ(0, memcmp(self->p, filled, SIZE));
	EXPECT_TRUE(buffer_is(self->fd, filled, SIZE));
	before = cow_stat(self->fd);
	memset(self->p, '!', SIZE);
	EXPECT_EQ(before.copied, cow_stat(self->fd).copied);
	EXPECT_EQ(2 * NR, held());
	EXPECT_TRUE(buffer_is(snap, filled, SIZE));
	close(snap);
}

TEST_F(filled, UNSHARE_of_mapped_pages_does_not_join_them)
{
	int snap = cow_snapshot(self->fd, 0);
	char *q, *r;

	ASSERT_GE(snap, 0);
	q = cow_map(self->fd, SIZE, RW);
	r = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_NE(MAP_FAILED, r);
	EXPECT_EQ(0, memcmp(q, filled, SIZE));
	EXPECT_EQ(0, memcmp(r, filled, SIZE));
	ASSERT_EQ(0, allocate(self->fd, UNSHARE, 0, SIZE));
	memset(self->p, '!', SIZE);
	EXPECT_TRUE(page_is(q, '!'));
	q[0] = '?';
	EXPECT_EQ('?', self->p[0]);
	EXPECT_EQ(0, memcmp(r, filled, SIZE));
	munmap(q, SIZE);
	munmap(r, SIZE);
	close(snap);
}

TEST_F(filled, UNSHARE_of_a_part_copies_what_it_touches)
{
	int snap = cow_snapshot(self->fd, 0);
	struct cowmem_stat before;

	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, allocate(self->fd, UNSHARE, 4 * PAGE + 1, 2 * PAGE));
	EXPECT_EQ(NR + 3, held());
	before = cow_stat(self->fd);
	memset(self->p + 4 * PAGE, '!', 3 * PAGE);
	EXPECT_EQ(before.copied, cow_stat(self->fd).copied);
	self->p[3 * PAGE] = '!';
	self->p[7 * PAGE] = '!';
	EXPECT_EQ(before.copied + 2, cow_stat(self->fd).copied);
	EXPECT_TRUE(buffer_is(snap, filled, SIZE));
	close(snap);
}

TEST_F(filled, UNSHARE_in_a_clone_leaves_the_origin_alone)
{
	int clone = cow_snapshot(self->fd, COWMEM_WRITABLE);

	ASSERT_GE(clone, 0);
	ASSERT_EQ(0, allocate(clone, UNSHARE, 0, SIZE));
	EXPECT_EQ(2 * NR, held());
	/* The origin is now the last that has its pages. */
	memset(self->p, '!', SIZE);
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_EQ(2 * NR, held());
	EXPECT_TRUE(buffer_is(clone, filled, SIZE));
	close(clone);
}

TEST_F(filled, UNSHARE_of_pages_that_nobody_shares_copies_nothing)
{
	ASSERT_EQ(0, allocate(self->fd, UNSHARE, 0, SIZE));
	EXPECT_EQ(NR, held());
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_TRUE(buffer_is(self->fd, filled, SIZE));
}

TEST_F(filled, UNSHARE_after_the_sharer_is_closed_copies_nothing)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	close(snap);
	ASSERT_EQ(0, allocate(self->fd, UNSHARE, 0, SIZE));
	EXPECT_EQ(NR, held());
	memset(self->p, '!', SIZE);
	EXPECT_EQ(NR, held());
	EXPECT_EQ(0, cow_stat(self->fd).copied);
}

TEST_F(filled, UNSHARE_fills_holes_and_the_snapshot_keeps_its_own)
{
	char want[SIZE];
	int snap;

	fill_pages(want, NR);
	memset(want, 0, 4 * PAGE);
	ASSERT_EQ(0, allocate(self->fd, PUNCH, 0, 4 * PAGE));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, allocate(self->fd, UNSHARE, 0, SIZE));
	EXPECT_EQ(NR, pages_of(self->fd));
	EXPECT_EQ(NR - 4, pages_of(snap));
	EXPECT_EQ(2 * NR - 4, held());
	EXPECT_TRUE(buffer_is(self->fd, want, SIZE));
	memset(self->p, '!', SIZE);
	EXPECT_EQ(2 * NR - 4, held());
	EXPECT_TRUE(buffer_is(snap, want, SIZE));
	close(snap);
}

TEST_F(filled, UNSHARE_separates_pages_that_one_buffer_has_twice)
{
	struct cowmem_stat before;
	char want[SIZE];

	NEED(CLONE);
	fill_pages(want, NR);
	memcpy(want + 4 * PAGE, want, 4 * PAGE);
	ASSERT_EQ(0, cow_clone_range(self->fd, 4 * PAGE, self->fd, 0,
				     4 * PAGE));
	EXPECT_EQ(NR - 4, held());
	ASSERT_EQ(0, allocate(self->fd, UNSHARE, 0, SIZE));
	EXPECT_EQ(NR, held());
	EXPECT_TRUE(buffer_is(self->fd, want, SIZE));
	before = cow_stat(self->fd);
	memset(self->p, '!', 4 * PAGE);
	memset(want, '!', 4 * PAGE);
	EXPECT_TRUE(buffer_is(self->fd, want, SIZE));
	memset(self->p + 4 * PAGE, '?', 4 * PAGE);
	EXPECT_EQ(before.copied, cow_stat(self->fd).copied);
	EXPECT_EQ(NR, held());
	EXPECT_TRUE(page_is(self->p, '!'));
}

TEST_F(filled, pages_are_private_after_UNSHARE)
{
	int snap;

	NEED(SHARING);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(0, cow_sharing(self->fd).exclusive);
	ASSERT_EQ(0, allocate(self->fd, UNSHARE, 0, 4 * PAGE));
	EXPECT_EQ(4 * PAGE, cow_sharing(self->fd).exclusive);
	EXPECT_EQ(4 * PAGE, cow_sharing(snap).exclusive);
	ASSERT_EQ(0, allocate(self->fd, UNSHARE, 0, SIZE));
	EXPECT_EQ(SIZE, cow_sharing(self->fd).exclusive);
	EXPECT_EQ(SIZE, cow_sharing(snap).exclusive);
	close(snap);
}

/*
 * Pins
 */

TEST_F(filled, pinned_page_is_detached_by_a_punch)
{
	char want[SIZE];
	int pipefd[2];

	fill_pages(want, NR);
	memset(want + 3 * PAGE, 0, PAGE);
	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_TRUE(pipe_hold(pipefd, self->p + 3 * PAGE));
	ASSERT_EQ(0, allocate(self->fd, PUNCH, 3 * PAGE, PAGE));
	EXPECT_EQ(NR - 1, pages_of(self->fd));
	EXPECT_EQ(NR - 1, held());
	EXPECT_EQ(0, memcmp(self->p, want, SIZE));
	EXPECT_TRUE(buffer_is(self->fd, want, SIZE));
	memset(self->p + 3 * PAGE, '!', PAGE);
	EXPECT_EQ(NR, held());
	EXPECT_TRUE(pipe_has(pipefd, 'd'));
	EXPECT_TRUE(page_is(self->p + 3 * PAGE, '!'));
	pipe_close(pipefd);
}

TEST_F(filled, pinned_page_is_zeroed_where_it_is)
{
	uint64_t frame = frame_of(self->p + 3 * PAGE);
	int pipefd[2];

	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_TRUE(pipe_hold(pipefd, self->p + 3 * PAGE));
	ASSERT_EQ(0, allocate(self->fd, ZERO, 3 * PAGE, PAGE));
	EXPECT_TRUE(page_is(self->p + 3 * PAGE, 0));
	EXPECT_EQ(frame, frame_of(self->p + 3 * PAGE));
	EXPECT_EQ(NR, held());
	memset(self->p + 3 * PAGE, '!', PAGE);
	EXPECT_TRUE(pipe_has(pipefd, '!'));
	pipe_close(pipefd);
}

/* What the pin has keeps its bytes: the page was shared when it was pinned. */
TEST_F(filled, page_pinned_while_it_is_shared_is_unshared)
{
	int snap = cow_snapshot(self->fd, 0), pipefd[2];

	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_TRUE(pipe_hold(pipefd, self->p + 3 * PAGE));
	ASSERT_EQ(0, allocate(self->fd, UNSHARE, 0, SIZE));
	EXPECT_EQ(2 * NR, held());
	memset(self->p + 3 * PAGE, '!', PAGE);
	EXPECT_EQ(2 * NR, held());
	EXPECT_TRUE(pipe_has(pipefd, 'd'));
	EXPECT_TRUE(page_is(self->p + 3 * PAGE, '!'));
	pipe_close(pipefd);
	close(snap);
}

TEST_F(filled, pinned_page_that_is_shared_is_detached_on_one_side)
{
	int clone = cow_snapshot(self->fd, COWMEM_WRITABLE), pipefd[2];
	char *q;

	ASSERT_GE(clone, 0);
	q = cow_map(clone, SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_TRUE(pipe_hold(pipefd, q + 3 * PAGE));
	ASSERT_EQ(0, allocate(clone, PUNCH, 3 * PAGE, PAGE));
	EXPECT_TRUE(page_is(q + 3 * PAGE, 0));
	memset(q + 3 * PAGE, '!', PAGE);
	memset(self->p + 3 * PAGE, '?', PAGE);
	EXPECT_TRUE(pipe_has(pipefd, 'd'));
	EXPECT_TRUE(page_is(q + 3 * PAGE, '!'));
	EXPECT_TRUE(page_is(self->p + 3 * PAGE, '?'));
	pipe_close(pipefd);
	munmap(q, SIZE);
	close(clone);
}

TEST_F(filled, pinned_pages_are_detached_by_a_punch_of_all)
{
	int pipefd[2];

	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_TRUE(pipe_hold(pipefd, self->p));
	ASSERT_TRUE(pipe_hold(pipefd, self->p + SIZE - PAGE));
	ASSERT_EQ(0, allocate(self->fd, PUNCH, 0, SIZE));
	EXPECT_EQ(0, held());
	memset(self->p, '!', SIZE);
	EXPECT_TRUE(pipe_has(pipefd, 'a'));
	EXPECT_TRUE(pipe_has(pipefd, 'a' + NR - 1));
	pipe_close(pipefd);
}

/*
 * madvise()
 */

TEST_F(filled, MADV_REMOVE_punches)
{
	int snap = cow_snapshot(self->fd, 0);
	char want[SIZE];

	ASSERT_GE(snap, 0);
	fill_pages(want, NR);
	memset(want + 4 * PAGE, 0, 3 * PAGE);
	ASSERT_EQ(0, madvise(self->p + 4 * PAGE, 3 * PAGE, MADV_REMOVE));
	EXPECT_EQ(NR - 3, pages_of(self->fd));
	EXPECT_EQ(SIZE, size_of(self->fd));
	EXPECT_EQ(0, memcmp(self->p, want, SIZE));
	EXPECT_TRUE(buffer_is(self->fd, want, SIZE));
	EXPECT_TRUE(buffer_is(snap, filled, SIZE));
	close(snap);
	EXPECT_EQ(NR - 3, held());
}

TEST_F(filled, MADV_REMOVE_goes_by_the_offset_of_the_mapping)
{
	char *q = mmap(NULL, 2 * PAGE, RW, MAP_SHARED, self->fd, 8 * PAGE);
	char want[SIZE];

	ASSERT_NE(MAP_FAILED, q);
	fill_pages(want, NR);
	memset(want + 9 * PAGE, 0, PAGE);
	ASSERT_EQ(0, madvise(q + PAGE, PAGE, MADV_REMOVE));
	EXPECT_EQ(0, memcmp(self->p, want, SIZE));
	EXPECT_TRUE(buffer_is(self->fd, want, SIZE));
	munmap(q, 2 * PAGE);
}

TEST_F(filled, MADV_REMOVE_of_a_private_mapping_is_EACCES)
{
	char *q = mmap(NULL, SIZE, RW, MAP_PRIVATE, self->fd, 0);

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(-1, madvise(q, SIZE, MADV_REMOVE));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(NR, held());
	EXPECT_TRUE(buffer_is(self->fd, filled, SIZE));
	munmap(q, SIZE);
}

TEST_F(filled, MADV_REMOVE_of_a_frozen_snapshot_is_EACCES)
{
	int snap = cow_snapshot(self->fd, 0);
	char *q;

	ASSERT_GE(snap, 0);
	q = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(-1, madvise(q, SIZE, MADV_REMOVE));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(NR, pages_of(snap));
	EXPECT_TRUE(buffer_is(snap, filled, SIZE));
	munmap(q, SIZE);
	close(snap);
}

/*
 * A /dev/cowmem handle
 */

FIXTURE(device)
{
	int fd;
	char *p;
};

FIXTURE_SETUP(device)
{
	NEED(FALLOCATE);
	fill_pages(filled, NR);
	base = cow_param("pages");
	self->fd = cow_open();
	ASSERT_GE(self->fd, 0);
	self->p = cow_map(self->fd, SIZE, RW);
	ASSERT_NE(MAP_FAILED, self->p);
	fill_pages(self->p, NR);
}

FIXTURE_TEARDOWN(device)
{
	munmap(self->p, SIZE);
	close(self->fd);
	EXPECT_EQ(0, held());
}

TEST_F(device, MADV_REMOVE_is_ENODEV_and_changes_nothing)
{
	EXPECT_EQ(-1, madvise(self->p + PAGE, PAGE, MADV_REMOVE));
	EXPECT_EQ(ENODEV, errno);
	EXPECT_EQ(NR, held());
	EXPECT_EQ(0, memcmp(self->p, filled, SIZE));
}

TEST_F(device, punch_through_its_file_is_seen_in_its_mapping)
{
	int file = cow_file(self->fd, 0);
	char want[SIZE];

	ASSERT_GE(file, 0);
	fill_pages(want, NR);
	memset(want + PAGE, 0, PAGE);
	ASSERT_EQ(0, allocate(file, PUNCH, PAGE, PAGE));
	EXPECT_EQ(0, memcmp(self->p, want, SIZE));
	EXPECT_EQ(NR - 1, held());
	self->p[PAGE] = '!';
	want[PAGE] = '!';
	EXPECT_TRUE(buffer_is(file, want, SIZE));
	close(file);
}

/*
 * Bad calls, of each mode
 */

FIXTURE(bad)
{
	int fd;
	char *p;
	struct state before;
};

FIXTURE_VARIANT(bad)
{
	int mode;
};

FIXTURE_VARIANT_ADD(bad, mode_0) { .mode = 0 };
FIXTURE_VARIANT_ADD(bad, KEEP_SIZE) { .mode = KEEP };
FIXTURE_VARIANT_ADD(bad, PUNCH_HOLE) { .mode = PUNCH };
FIXTURE_VARIANT_ADD(bad, ZERO_RANGE) { .mode = ZERO };
FIXTURE_VARIANT_ADD(bad, ZERO_RANGE_KEEP_SIZE) { .mode = ZERO | KEEP };
FIXTURE_VARIANT_ADD(bad, UNSHARE_RANGE) { .mode = UNSHARE };
FIXTURE_VARIANT_ADD(bad, UNSHARE_RANGE_KEEP_SIZE) { .mode = UNSHARE | KEEP };

FIXTURE_SETUP(bad)
{
	NEED(FALLOCATE);
	self->fd = buffer_open(&self->p);
	ASSERT_GE(self->fd, 0);
	fill_even(self->p);
	state_of(self->fd, &self->before);
}

/* Whatever was tried, it is as it was. */
FIXTURE_TEARDOWN(bad)
{
	EXPECT_TRUE(state_is(self->fd, &self->before));
	buffer_close(self->fd, self->p);
	EXPECT_EQ(0, held());
}

TEST_F(bad, length_0_or_negative_is_EINVAL)
{
	EXPECT_EQ(-EINVAL, allocate(self->fd, variant->mode, PAGE, 0));
	EXPECT_EQ(-EINVAL, allocate(self->fd, variant->mode, PAGE, -1));
	EXPECT_EQ(-EINVAL, allocate(self->fd, variant->mode, 2 * PAGE, -PAGE));
}

TEST_F(bad, negative_offset_is_EINVAL)
{
	EXPECT_EQ(-EINVAL, allocate(self->fd, variant->mode, -1, PAGE));
	EXPECT_EQ(-EINVAL, allocate(self->fd, variant->mode, -PAGE, 2 * PAGE));
}

TEST_F(bad, range_beyond_the_largest_size_is_EFBIG)
{
	off_t largest = cow_query().max_size;

	EXPECT_EQ(-EFBIG, allocate(self->fd, variant->mode, largest, 1));
	EXPECT_EQ(-EFBIG, allocate(self->fd, variant->mode,
				   largest - PAGE, PAGE + 1));
	EXPECT_EQ(-EFBIG, allocate(self->fd, variant->mode, PAGE, INT64_MAX));
}

TEST_F(bad, read_only_handle_is_EBADF)
{
	int fd = cow_file(self->fd, COWMEM_RDONLY);

	ASSERT_GE(fd, 0);
	EXPECT_EQ(-EBADF, allocate(fd, variant->mode, 0, 2 * SIZE));
	close(fd);
}

TEST_F(bad, frozen_buffer_is_EBADF)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	EXPECT_EQ(-EBADF, allocate(snap, variant->mode, 0, 2 * SIZE));
	EXPECT_TRUE(state_is(snap, &self->before));
	close(snap);
}

TEST_F(bad, device_handle_is_ENODEV)
{
	int dev = cow_open();
	char *q;

	ASSERT_GE(dev, 0);
	q = cow_map(dev, SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	q[0] = '!';
	EXPECT_EQ(-ENODEV, allocate(dev, variant->mode, 0, 2 * SIZE));
	EXPECT_EQ('!', q[0]);
	EXPECT_EQ(PAGE, cow_stat(dev).resident);
	EXPECT_EQ(SIZE, cow_stat(dev).length);
	munmap(q, SIZE);
	close(dev);
}

/*
 * At the LIMIT: four pages of data, then holes, and room for six pages more
 */

#define NR_DATA		4UL
#define NR_ROOM		6UL

FIXTURE(full)
{
	int fd;
	char *p, *q;	/* both mapped all over for reading */
	struct state before;
};

FIXTURE_VARIANT(full)
{
	int mode;
};

FIXTURE_VARIANT_ADD(full, mode_0) { .mode = 0 };
FIXTURE_VARIANT_ADD(full, KEEP_SIZE) { .mode = KEEP };
FIXTURE_VARIANT_ADD(full, ZERO_RANGE) { .mode = ZERO };
FIXTURE_VARIANT_ADD(full, ZERO_RANGE_KEEP_SIZE) { .mode = ZERO | KEEP };
FIXTURE_VARIANT_ADD(full, UNSHARE_RANGE) { .mode = UNSHARE };
FIXTURE_VARIANT_ADD(full, UNSHARE_RANGE_KEEP_SIZE) { .mode = UNSHARE | KEEP };

FIXTURE_SETUP(full)
{
	unsigned long i;

	NEED(FALLOCATE);
	NEED(LIMIT);
	self->fd = buffer_open(&self->p);
	ASSERT_GE(self->fd, 0);
	self->q = cow_map(self->fd, SIZE, RW);
	ASSERT_NE(MAP_FAILED, self->q);
	for (i = 0; i < NR_DATA; i++)
		memset(self->p + i * PAGE, 'a' + i, PAGE);
	ASSERT_EQ(0, memcmp(self->p, self->q, SIZE));
	ASSERT_EQ(0, cow_limit(self->fd, (NR_DATA + NR_ROOM) * PAGE));
	state_of(self->fd, &self->before);
}

FIXTURE_TEARDOWN(full)
{
	munmap(self->q, SIZE);
	buffer_close(self->fd, self->p);
	EXPECT_EQ(0, held());
}

static bool unchanged(FIXTURE_DATA(full) *self)
{
	return state_is(self->fd, &self->before) &&
	       !memcmp(self->p, self->before.data, SIZE) &&
	       !memcmp(self->q, self->before.data, SIZE);
}

TEST_F(full, failed_call_is_undone_and_works_with_a_higher_limit)
{
	off_t size = variant->mode & KEEP ? SIZE : 2 * SIZE;

	EXPECT_EQ(-ENOSPC, allocate(self->fd, variant->mode, 0, 2 * SIZE));
	EXPECT_TRUE(unchanged(self));
	ASSERT_EQ(0, cow_limit(self->fd, 2 * SIZE + SIZE));
	ASSERT_EQ(0, allocate(self->fd, variant->mode, 0, 2 * SIZE));
	EXPECT_EQ(2 * NR, pages_of(self->fd));
	EXPECT_EQ(size, size_of(self->fd));
	EXPECT_TRUE(buffer_is(self->fd, variant->mode & ZERO ? zeroes :
			      self->before.data, SIZE));
}

TEST_F(full, failed_call_is_undone_at_its_edges)
{
	EXPECT_EQ(-ENOSPC, allocate(self->fd, variant->mode, 100,
				    2 * SIZE - 200));
	EXPECT_TRUE(unchanged(self));
}

TEST_F(full, failed_call_is_undone_beyond_the_end)
{
	EXPECT_EQ(-ENOSPC, allocate(self->fd, variant->mode, SIZE, SIZE));
	EXPECT_TRUE(unchanged(self));
	ASSERT_EQ(0, ftruncate(self->fd, 2 * SIZE));
	EXPECT_EQ(NR_DATA, pages_of(self->fd));
}

TEST_F(full, failed_call_is_undone_in_shared_pages)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	EXPECT_EQ(-ENOSPC, allocate(self->fd, variant->mode, 100,
				    2 * SIZE - 200));
	EXPECT_TRUE(unchanged(self));
	EXPECT_TRUE(state_is(snap, &self->before));
	close(snap);
	EXPECT_TRUE(unchanged(self));
}

TEST_F(full, failed_call_leaves_pages_that_were_there_beyond_the_end)
{
	ASSERT_EQ(0, allocate(self->fd, KEEP, SIZE, 2 * PAGE));
	EXPECT_EQ(-ENOSPC, allocate(self->fd, variant->mode, 0, 2 * SIZE));
	EXPECT_EQ(NR_DATA + 2, pages_of(self->fd));
	EXPECT_EQ(SIZE, size_of(self->fd));
	EXPECT_EQ(0, memcmp(self->p, self->before.data, SIZE));
}

TEST_F(full, failed_calls_leave_the_room_to_others)
{
	unsigned long i;

	for (i = 0; i < 5; i++)
		EXPECT_EQ(-ENOSPC, allocate(self->fd, variant->mode, 0,
					    2 * SIZE));
	for (i = NR_DATA; i < NR_DATA + NR_ROOM; i++)
		EXPECT_EQ(0, COW_TRY(memset(self->p + i * PAGE, '!', PAGE)));
	EXPECT_EQ(SIGBUS, COW_TRY(memset(self->p + i * PAGE, '!', PAGE)));
	/* The second mapping sees them, where it had seen holes. */
	EXPECT_EQ(0, memcmp(self->p, self->q, SIZE));
	EXPECT_TRUE(page_is(self->q + (i - 1) * PAGE, '!'));
	EXPECT_TRUE(page_is(self->q + i * PAGE, 0));
	EXPECT_TRUE(file_is(self->fd, self->p, SIZE));
}

TEST_F(full, huge_range_fails_soon)
{
	EXPECT_EQ(-ENOSPC, allocate(self->fd, variant->mode, 0, 16 * GIB));
	EXPECT_TRUE(unchanged(self));
}

TEST_F(full, what_fits_works)
{
	off_t length = NR_ROOM * PAGE;

	EXPECT_EQ(0, allocate(self->fd, variant->mode, NR_DATA * PAGE, length));
	EXPECT_EQ(NR_DATA + NR_ROOM, held());
	EXPECT_TRUE(buffer_is(self->fd, self->before.data, SIZE));
	EXPECT_EQ(-ENOSPC, allocate(self->fd, variant->mode,
				    NR_DATA * PAGE + length, 1));
	EXPECT_EQ(NR_DATA + NR_ROOM, pages_of(self->fd));
}

/* All the pages of the buffer and no more, all shared with a snapshot. */
static int limit_shared(int fd, unsigned long nr_pages)
{
	int snap = cow_snapshot(fd, 0);

	return snap < 0 || cow_limit(fd, nr_pages * PAGE) ? -1 : snap;
}

TEST_F(filled, UNSHARE_that_fails_at_the_limit_leaves_pages_shared)
{
	int snap;

	NEED(LIMIT);
	snap = limit_shared(self->fd, NR + 4);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(-ENOSPC, allocate(self->fd, UNSHARE, 0, SIZE));
	EXPECT_EQ(NR, held());
	EXPECT_EQ(NR, pages_of(self->fd));
	EXPECT_EQ(0, memcmp(self->p, filled, SIZE));
	EXPECT_TRUE(buffer_is(self->fd, filled, SIZE));
	EXPECT_TRUE(buffer_is(snap, filled, SIZE));
	ASSERT_EQ(0, cow_limit(self->fd, 2 * SIZE));
	EXPECT_EQ(0, allocate(self->fd, UNSHARE, 0, SIZE));
	EXPECT_EQ(2 * NR, held());
	EXPECT_TRUE(buffer_is(self->fd, filled, SIZE));
	EXPECT_TRUE(buffer_is(snap, filled, SIZE));
	close(snap);
}

TEST_F(filled, ZERO_RANGE_that_fails_at_the_limit_leaves_the_data)
{
	int snap;

	NEED(LIMIT);
	snap = limit_shared(self->fd, NR + 4);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(-ENOSPC, allocate(self->fd, ZERO, 100, SIZE - 200));
	EXPECT_EQ(NR, held());
	EXPECT_EQ(NR, pages_of(self->fd));
	EXPECT_EQ(0, memcmp(self->p, filled, SIZE));
	EXPECT_TRUE(buffer_is(self->fd, filled, SIZE));
	EXPECT_TRUE(buffer_is(snap, filled, SIZE));
	close(snap);
}

/* Its edges have to be copied; the pages between must not go either. */
TEST_F(filled, punch_that_fails_at_the_limit_leaves_the_data)
{
	int snap;

	NEED(LIMIT);
	snap = limit_shared(self->fd, NR);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(-ENOSPC, allocate(self->fd, PUNCH, 4 * PAGE + 100, 3 * PAGE));
	EXPECT_EQ(NR, held());
	EXPECT_EQ(NR, pages_of(self->fd));
	EXPECT_EQ(0, memcmp(self->p, filled, SIZE));
	EXPECT_TRUE(buffer_is(self->fd, filled, SIZE));
	/* Room for one of the two edges is not enough. */
	ASSERT_EQ(0, cow_limit(self->fd, SIZE + PAGE));
	EXPECT_EQ(-ENOSPC, allocate(self->fd, PUNCH, 4 * PAGE + 100, 3 * PAGE));
	EXPECT_EQ(NR, held());
	EXPECT_TRUE(buffer_is(self->fd, filled, SIZE));
	EXPECT_TRUE(buffer_is(snap, filled, SIZE));
	close(snap);
}

TEST_F(filled, calls_that_need_no_page_work_at_the_limit)
{
	char want[SIZE];
	int snap;

	NEED(LIMIT);
	ASSERT_EQ(0, cow_limit(self->fd, SIZE));
	EXPECT_EQ(0, allocate(self->fd, 0, 0, SIZE));
	EXPECT_EQ(0, allocate(self->fd, UNSHARE, 0, SIZE));
	EXPECT_EQ(0, allocate(self->fd, PUNCH, 4 * PAGE + 100, 200));
	fill_pages(want, NR);
	memset(want + 4 * PAGE + 100, 0, 200);
	EXPECT_TRUE(buffer_is(self->fd, want, SIZE));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(0, allocate(self->fd, 0, 0, SIZE));
	EXPECT_EQ(0, allocate(self->fd, PUNCH, 8 * PAGE, 8 * PAGE));
	EXPECT_EQ(NR, held());
	EXPECT_TRUE(buffer_is(snap, want, SIZE));
	memset(want + 8 * PAGE, 0, 8 * PAGE);
	EXPECT_TRUE(buffer_is(self->fd, want, SIZE));
	close(snap);
}

/*
 * Races
 */

#define WORDS		(PAGE / sizeof(uint64_t))

struct race {
	int fd;
	volatile uint64_t *words;
	bool started;
	bool stop;
	bool bad;
	uint64_t last;		/* what the thread stored last */
};

static bool race_stopped(struct race *race)
{
	return __atomic_load_n(&race->stop, __ATOMIC_ACQUIRE);
}

static void race_stop(struct race *race, pthread_t thread)
{
	__atomic_store_n(&race->stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
}

static void race_wait_started(struct race *race)
{
	while (!__atomic_load_n(&race->started, __ATOMIC_ACQUIRE))
		sched_yield();
}

/* One more after the stop: that one nobody may take away. */
static void *store_to_one_page(void *data)
{
	struct race *race = data;
	uint64_t value = 0, seen;
	bool stopped;

	do {
		stopped = race_stopped(race);
		race->words[0] = ++value;
		seen = race->words[0];
		if (seen && seen != value)
			race->bad = true;
		__atomic_store_n(&race->started, true, __ATOMIC_RELEASE);
	} while (!stopped);
	race->last = value;
	return NULL;
}

/* The page of @race has its two words and nothing else. */
static bool rest_is_zero(struct race *race)
{
	uint64_t data[WORDS];
	int i;

	if (pread(race->fd, data, PAGE, 0) != PAGE)
		return false;
	for (i = 2; i < WORDS; i++)
		if (data[i])
			return false;
	return true;
}

FIXTURE(race)
{
	int fd;
	char *p;
	struct race race;
};

FIXTURE_SETUP(race)
{
	NEED(FALLOCATE);
	self->fd = buffer_open(&self->p);
	ASSERT_GE(self->fd, 0);
	self->race.fd = self->fd;
	self->race.words = (uint64_t *)self->p;
}

FIXTURE_TEARDOWN(race)
{
	buffer_close(self->fd, self->p);
	EXPECT_EQ(0, held());
}

/* Erase a page that another thread stores to. */
static void erase_raced(struct __test_metadata *_metadata, struct race *race,
			int mode)
{
	uint64_t old, seen;
	pthread_t thread;
	unsigned int i;

	ASSERT_EQ(0, pthread_create(&thread, NULL, store_to_one_page, race));
	race_wait_started(race);
	for (i = 1; i <= 200; i++) {
		old = race->words[0];
		ASSERT_EQ(0, allocate(race->fd, mode, 0, PAGE));
		seen = race->words[0];
		EXPECT_TRUE(!seen || seen > old)
			TH_LOG("round %u: %lu after %lu", i, seen, old);
		/* Nobody else erases: this one has to stay. */
		EXPECT_EQ(0, race->words[1]);
		race->words[1] = i;
		EXPECT_TRUE(rest_is_zero(race));
		EXPECT_EQ(i, race->words[1]);
	}
	race_stop(race, thread);
	EXPECT_FALSE(race->bad);
	EXPECT_EQ(race->last, race->words[0]);
	EXPECT_EQ(200, race->words[1]);
	EXPECT_EQ(1, pages_of(race->fd));
}

TEST_F(race, punch_against_stores)
{
	erase_raced(_metadata, &self->race, PUNCH);
}

TEST_F(race, ZERO_RANGE_against_stores)
{
	erase_raced(_metadata, &self->race, ZERO);
}

/* A lost store leaves a counter behind for good. */
static void *count_in_every_page(void *data)
{
	struct race *race = data;
	unsigned long i;

	race->last = 0;
	do {
		for (i = 0; i < NR; i++)
			race->words[i * WORDS]++;
		race->last++;
		__atomic_store_n(&race->started, true, __ATOMIC_RELEASE);
	} while (!race_stopped(race));
	return NULL;
}

static bool counters_agree(struct race *race)
{
	unsigned long i;

	for (i = 0; i < NR; i++)
		if (race->words[i * WORDS] != race->last)
			return false;
	return true;
}

TEST_F(race, stores_during_UNSHARE_are_kept)
{
	pthread_t thread;
	int i, snap;

	ASSERT_EQ(0, pthread_create(&thread, NULL, count_in_every_page,
				    &self->race));
	race_wait_started(&self->race);
	for (i = 0; i < 50; i++) {
		snap = cow_snapshot(self->fd, 0);
		ASSERT_GE(snap, 0);
		ASSERT_EQ(0, allocate(self->fd, UNSHARE, 0, SIZE));
		close(snap);
	}
	race_stop(&self->race, thread);
	EXPECT_TRUE(counters_agree(&self->race));
	EXPECT_EQ(NR, held());
}

TEST_F(race, stores_to_holes_that_are_being_filled_are_kept)
{
	pthread_t thread;
	int i;

	for (i = 0; i < 30; i++) {
		self->race.started = false;
		self->race.stop = false;
		ASSERT_EQ(0, pthread_create(&thread, NULL, count_in_every_page,
					    &self->race));
		ASSERT_EQ(0, allocate(self->fd, 0, 0, SIZE));
		race_stop(&self->race, thread);
		EXPECT_TRUE(counters_agree(&self->race));
		EXPECT_EQ(NR, held());
		ASSERT_EQ(0, allocate(self->fd, PUNCH, 0, SIZE));
	}
}

static void *fail_to_allocate(void *data)
{
	struct race *race = data;

	do {
		if (allocate(race->fd, 0, 0, SIZE) != -ENOSPC)
			race->bad = true;
		__atomic_store_n(&race->started, true, __ATOMIC_RELEASE);
	} while (!race_stopped(race));
	return NULL;
}

/*
 * What a failing call fills and takes back may have been stored to meanwhile.
 * The store itself may also find the LIMIT reached.
 */
TEST_F(race, stores_during_a_call_that_fails_are_kept)
{
	volatile uint64_t *word = self->race.words;
	pthread_t thread;
	uint64_t data;
	int i, kept = 0;

	NEED(LIMIT);
	ASSERT_EQ(0, cow_limit(self->fd, SIZE / 2));
	ASSERT_EQ(0, pthread_create(&thread, NULL, fail_to_allocate,
				    &self->race));
	race_wait_started(&self->race);
	for (i = 1; i <= 200; i++) {
		if (!COW_TRY(*word = i)) {
			EXPECT_EQ(8, pread(self->fd, &data, 8, 0));
			EXPECT_EQ(i, data);
			EXPECT_EQ(i, *word);
			kept++;
		}
		ASSERT_EQ(0, allocate(self->fd, PUNCH, 0, PAGE));
		EXPECT_EQ(0, *word);
	}
	race_stop(&self->race, thread);
	EXPECT_GT(kept, 0);
	EXPECT_FALSE(self->race.bad);
	EXPECT_EQ(0, held());
	*word = 1;
	EXPECT_EQ(1, held());
}

TEST_HARNESS_MAIN
