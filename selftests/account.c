// SPDX-License-Identifier: GPL-2.0
/*
 * Who has how much memory: what STAT with SHARING says of each of the buffers
 * that share pages, and that a LIMIT on an account, or max_pages on all of
 * them, is never passed, hurts nobody who needs no page, and is over as soon
 * as there is room.
 */
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <linux/capability.h>
#include <linux/falloc.h>
#include <linux/fs.h>

#include "common.h"
#include "harness.h"
#include "split.h"
#include "util.h"

#define NR		16UL
#define SIZE		(NR * PAGE)

/* Pages of the machine when the test began. */
static long base;

/* Pages that the buffers of the test hold, each counted once. */
static long held(void)
{
	return cow_param("pages") - base;
}

/* The first @nr pages as fill_pages() makes them, then holes. */
static bool file_filled(int fd, unsigned long nr)
{
	char data[SIZE];
	unsigned long i;

	if (pread(fd, data, SIZE, 0) != SIZE)
		return false;
	for (i = 0; i < NR; i++)
		if (!page_is(data + i * PAGE, i < nr ? 'a' + i : 0))
			return false;
	return true;
}

/* Ends with 0 or SIGBUS. */
static int store(char *p, unsigned long index, char value)
{
	return COW_TRY(memset(p + index * PAGE, value, PAGE));
}

static int punch(int fd, unsigned long index, unsigned long nr)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 index * PAGE, nr * PAGE) ? -errno : 0;
}

/*
 * STAT with SHARING
 */

FIXTURE(sharing)
{
	int fd;		/* full */
	char *p;
};

FIXTURE_SETUP(sharing)
{
	NEED(SHARING);
	base = cow_param("pages");
	self->fd = cow_create_mapped(SIZE, "sharing", &self->p);
	ASSERT_GE(self->fd, 0);
	fill_pages(self->p, NR);
}

FIXTURE_TEARDOWN(sharing)
{
	munmap(self->p, SIZE);
	close(self->fd);
	EXPECT_EQ(0, held());
}

/* Is @bytes that part of @pages, less below one byte a page? */
static bool part_is(uint64_t bytes, uint64_t pages, unsigned int sharers)
{
	return bytes * sharers <= pages * PAGE &&
	       (bytes + pages) * sharers > pages * PAGE;
}

/* The pages of @fd, each split, are @pages of them. */
static bool split_is(int fd, double pages)
{
	double lost = pages * PAGE - cow_sharing(fd).proportional;

	/* What is rounded down may be just short of a whole number. */
	return lost > -1e-6 && lost < 1 + 1e-6;
}

/* Nobody but @sharers buffers, all of which have all of it. */
static bool shared_by(int fd, unsigned int sharers)
{
	struct cowmem_stat stat = cow_sharing(fd);

	return !stat.exclusive && part_is(stat.proportional, NR, sharers) &&
	       stat.resident == SIZE && pages_of(fd) == NR;
}

/*
 * Do all buffers together have just what there is?  Each of the numbers is
 * rounded down.
 */
static bool adds_up(const int *fds, unsigned int nr)
{
	uint64_t lost, pages = held();
	unsigned int i;

	lost = pages * PAGE;
	for (i = 0; i < nr; i++)
		lost -= cow_sharing(fds[i]).proportional;
	/* A sum that is too large wraps around. */
	return !lost || lost < pages || lost < nr;
}

TEST_F(sharing, buffer_by_itself_is_private)
{
	struct cowmem_stat stat = cow_sharing(self->fd);

	EXPECT_EQ(SIZE, stat.resident);
	EXPECT_EQ(SIZE, stat.exclusive);
	EXPECT_EQ(SIZE, stat.proportional);
	EXPECT_GT(stat.index, 0);
	EXPECT_EQ(NR, pages_of(self->fd));
}

TEST_F(sharing, empty_buffer_has_nothing)
{
	int fd = cow_create(SIZE, "empty");
	struct cowmem_stat stat;

	ASSERT_GE(fd, 0);
	stat = cow_sharing(fd);
	EXPECT_EQ(0, stat.resident);
	EXPECT_EQ(0, stat.exclusive);
	EXPECT_EQ(0, stat.proportional);
	EXPECT_EQ(0, stat.index);
	close(fd);
}

TEST_F(sharing, holes_that_are_read_are_not_counted)
{
	int fd = cow_create(SIZE, "holes");
	struct cowmem_stat stat;
	char *p;

	ASSERT_GE(fd, 0);
	p = cow_map(fd, SIZE, RW);
	ASSERT_NE(MAP_FAILED, p);
	p[5 * PAGE] = '!';
	EXPECT_TRUE(page_is(p, 0));
	EXPECT_TRUE(page_is(p + 6 * PAGE, 0));
	stat = cow_sharing(fd);
	EXPECT_EQ(PAGE, stat.resident);
	EXPECT_EQ(PAGE, stat.exclusive);
	EXPECT_EQ(PAGE, stat.proportional);
	munmap(p, SIZE);
	close(fd);
}

TEST_F(sharing, page_far_away_counts_as_one)
{
	int fd = cow_create(1UL << 40, "far");
	struct cowmem_stat stat;

	ASSERT_GE(fd, 0);
	ASSERT_EQ(1, pwrite(fd, "!", 1, (1UL << 40) - 1));
	stat = cow_sharing(fd);
	EXPECT_EQ(PAGE, stat.resident);
	EXPECT_EQ(PAGE, stat.exclusive);
	EXPECT_EQ(PAGE, stat.proportional);
	EXPECT_GT(stat.index, 0);
	close(fd);
}

TEST_F(sharing, device_handle_says_the_same_as_its_file)
{
	int dev = cow_open(), file;
	struct cowmem_stat of_dev, of_file;
	char *p;

	ASSERT_GE(dev, 0);
	p = cow_map(dev, SIZE, RW);
	ASSERT_NE(MAP_FAILED, p);
	fill_pages(p, 5);
	file = cow_file(dev, COWMEM_RDONLY);
	ASSERT_GE(file, 0);
	of_dev = cow_sharing(dev);
	of_file = cow_sharing(file);
	EXPECT_EQ(5 * PAGE, of_dev.exclusive);
	EXPECT_EQ(5 * PAGE, of_dev.proportional);
	EXPECT_EQ(of_dev.exclusive, of_file.exclusive);
	EXPECT_EQ(of_dev.proportional, of_file.proportional);
	EXPECT_EQ(of_dev.index, of_file.index);
	munmap(p, SIZE);
	close(file);
	close(dev);
}

TEST_F(sharing, private_copies_of_a_mapping_are_not_counted)
{
	char *q = mmap(NULL, SIZE, RW, MAP_PRIVATE, self->fd, 0);

	ASSERT_NE(MAP_FAILED, q);
	memset(q, '!', SIZE);
	EXPECT_EQ(SIZE, cow_sharing(self->fd).resident);
	EXPECT_EQ(SIZE, cow_sharing(self->fd).exclusive);
	EXPECT_EQ(NR, held());
	munmap(q, SIZE);
}

TEST_F(sharing, snapshot_and_origin_have_half_each)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	EXPECT_TRUE(shared_by(self->fd, 2));
	EXPECT_TRUE(shared_by(snap, 2));
	EXPECT_EQ(SIZE / 2, cow_sharing(snap).proportional);
	EXPECT_EQ(NR, held());
	close(snap);
	EXPECT_EQ(SIZE, cow_sharing(self->fd).exclusive);
	EXPECT_EQ(SIZE, cow_sharing(self->fd).proportional);
}

TEST_F(sharing, snapshot_outlives_the_origin_and_has_all)
{
	int fd = cow_create(SIZE, "origin"), snap;

	ASSERT_GE(fd, 0);
	ASSERT_EQ(PAGE, write_page(fd, 7, '!'));
	snap = cow_snapshot(fd, 0);
	ASSERT_GE(snap, 0);
	close(fd);
	EXPECT_EQ(PAGE, cow_sharing(snap).exclusive);
	EXPECT_EQ(PAGE, cow_sharing(snap).proportional);
	EXPECT_GT(cow_sharing(snap).index, 0);
	close(snap);
}

TEST_F(sharing, each_page_written_becomes_private_to_both)
{
	int fds[2] = { self->fd, cow_snapshot(self->fd, 0) };
	struct cowmem_stat stat;
	unsigned long i, k;

	ASSERT_GE(fds[1], 0);
	for (k = 1; k <= NR; k++) {
		self->p[(k * 5 % NR) * PAGE] = '!';
		for (i = 0; i < 2; i++) {
			stat = cow_sharing(fds[i]);
			EXPECT_EQ(k * PAGE, stat.exclusive);
			EXPECT_EQ(k * PAGE + (NR - k) * PAGE / 2,
				  stat.proportional);
			EXPECT_EQ(SIZE, stat.resident);
		}
		EXPECT_EQ(NR + k, held());
	}
	close(fds[1]);
}

TEST_F(sharing, filled_hole_is_private_to_one)
{
	int fd = cow_create(SIZE, "holes"), clone;

	ASSERT_GE(fd, 0);
	ASSERT_EQ(PAGE, write_page(fd, 0, '1'));
	clone = cow_snapshot(fd, COWMEM_WRITABLE);
	ASSERT_GE(clone, 0);
	ASSERT_EQ(PAGE, write_page(clone, 1, '2'));
	EXPECT_EQ(PAGE, cow_sharing(clone).exclusive);
	EXPECT_EQ(PAGE + PAGE / 2, cow_sharing(clone).proportional);
	EXPECT_EQ(2 * PAGE, cow_sharing(clone).resident);
	EXPECT_EQ(0, cow_sharing(fd).exclusive);
	EXPECT_EQ(PAGE / 2, cow_sharing(fd).proportional);
	EXPECT_EQ(PAGE, cow_sharing(fd).resident);
	close(clone);
	close(fd);
}

#define NR_CHAIN	5

TEST_F(sharing, chain_splits_by_its_length)
{
	int fds[NR_CHAIN] = { self->fd }, i;

	for (i = 1; i < NR_CHAIN; i++) {
		fds[i] = cow_snapshot(fds[i - 1], COWMEM_WRITABLE);
		ASSERT_GE(fds[i], 0);
	}
	for (i = 0; i < NR_CHAIN; i++)
		EXPECT_TRUE(shared_by(fds[i], NR_CHAIN));
	EXPECT_TRUE(adds_up(fds, NR_CHAIN));
	for (i = 1; i < NR_CHAIN; i++)
		close(fds[i]);
	EXPECT_EQ(SIZE, cow_sharing(self->fd).exclusive);
}

/*
 * Link number i writes page number i before the next is made: of that page all
 * before have one and all behind have the other.
 */
static bool make_written_chain(int fds[NR_CHAIN])
{
	int i;

	for (i = 1; i < NR_CHAIN; i++) {
		fds[i] = cow_snapshot(fds[i - 1], COWMEM_WRITABLE);
		if (fds[i] < 0 || write_page(fds[i], i, '0' + i) != PAGE)
			return false;
	}
	return true;
}

/* What link number @link has of it, in pages, if all others are there. */
static double part_of_chain(int link)
{
	double pages = (NR - (NR_CHAIN - 1)) / (double)NR_CHAIN;
	int i;

	for (i = 1; i < NR_CHAIN; i++)
		pages += 1.0 / (link < i ? i : NR_CHAIN - i);
	return pages;
}

TEST_F(sharing, chain_that_is_written_has_private_pages_at_its_ends)
{
	int fds[NR_CHAIN] = { self->fd }, i;

	ASSERT_TRUE(make_written_chain(fds));
	EXPECT_EQ(NR + NR_CHAIN - 1, held());
	for (i = 0; i < NR_CHAIN; i++) {
		EXPECT_EQ(i == 0 || i == NR_CHAIN - 1 ? PAGE : 0,
			  cow_sharing(fds[i]).exclusive);
		EXPECT_EQ(NR, pages_of(fds[i]));
	}
	EXPECT_TRUE(adds_up(fds, NR_CHAIN));
	for (i = 1; i < NR_CHAIN; i++)
		close(fds[i]);
}

TEST_F(sharing, page_of_a_chain_is_split_among_those_before_or_behind_its_write)
{
	int fds[NR_CHAIN] = { self->fd }, i;

	ASSERT_TRUE(make_written_chain(fds));
	for (i = 0; i < NR_CHAIN; i++)
		EXPECT_TRUE(split_is(fds[i], part_of_chain(i)));
	for (i = 1; i < NR_CHAIN; i++)
		close(fds[i]);
}

/* Snapshot number i is the last but for the write to page number i. */
TEST_F(sharing, page_of_a_writer_is_split_among_the_snapshots_of_one_version)
{
	int fds[NR_CHAIN], i;

	fds[NR_CHAIN - 1] = self->fd;
	for (i = 0; i < NR_CHAIN - 1; i++) {
		fds[i] = cow_snapshot(self->fd, 0);
		ASSERT_GE(fds[i], 0);
		ASSERT_EQ(PAGE, write_page(self->fd, i + 1, '!'));
	}
	for (i = 0; i < NR_CHAIN; i++)
		EXPECT_TRUE(split_is(fds[i], part_of_chain(i)));
	EXPECT_TRUE(adds_up(fds, NR_CHAIN));
	for (i = 0; i < NR_CHAIN - 1; i++)
		close(fds[i]);
}

/* The index of the writer is its own, the two others have one together. */
TEST_F(sharing, one_of_three_that_wrote_has_half_of_what_it_did_not_write)
{
	int fds[3] = { self->fd };

	fds[1] = cow_snapshot(self->fd, 0);
	fds[2] = cow_snapshot(self->fd, COWMEM_WRITABLE);
	ASSERT_GE(fds[1], 0);
	ASSERT_GE(fds[2], 0);
	ASSERT_EQ(PAGE, write_page(fds[2], 3, '!'));
	EXPECT_EQ((NR - 1) * PAGE / 4 + PAGE / 2, cow_sharing(fds[0]).proportional);
	EXPECT_EQ((NR - 1) * PAGE / 4 + PAGE / 2, cow_sharing(fds[1]).proportional);
	EXPECT_EQ((NR - 1) * PAGE / 2 + PAGE, cow_sharing(fds[2]).proportional);
	close(fds[1]);
	close(fds[2]);
}

TEST_F(sharing, two_of_three_that_wrote_leave_a_third_to_each)
{
	int fds[3] = { self->fd }, i;

	for (i = 1; i < 3; i++) {
		fds[i] = cow_snapshot(self->fd, COWMEM_WRITABLE);
		ASSERT_GE(fds[i], 0);
		ASSERT_EQ(PAGE, write_page(fds[i], 3, '!'));
	}
	for (i = 0; i < 3; i++)
		EXPECT_TRUE(split_is(fds[i], (NR - 1) / 3.0 + 1));
	close(fds[1]);
	close(fds[2]);
}

/* So far that pages have no node in common but the root. */
#define FAR		(4096 * PAGE)

TEST_F(sharing, pages_far_apart_are_split_at_nodes_of_their_own)
{
	int fds[3] = { cow_create(FAR + PAGE, "far") };

	ASSERT_GE(fds[0], 0);
	ASSERT_TRUE(write_byte(fds[0], 0, '!'));
	ASSERT_TRUE(write_byte(fds[0], PAGE, '!'));
	ASSERT_TRUE(write_byte(fds[0], FAR, '!'));
	fds[1] = cow_snapshot(fds[0], COWMEM_WRITABLE);
	fds[2] = cow_snapshot(fds[0], COWMEM_WRITABLE);
	ASSERT_GE(fds[1], 0);
	ASSERT_GE(fds[2], 0);
	/* The root of two; the page beside, and the node of that far away, of two. */
	ASSERT_TRUE(write_byte(fds[2], 0, '2'));
	EXPECT_EQ(PAGE / 2 + PAGE / 4 + PAGE / 4, cow_sharing(fds[0]).proportional);
	EXPECT_EQ(PAGE / 2 + PAGE / 4 + PAGE / 4, cow_sharing(fds[1]).proportional);
	EXPECT_EQ(PAGE + PAGE / 2 + PAGE / 2, cow_sharing(fds[2]).proportional);
	/* Each has a root; 0 and 1 share the node of two pages, 0 and 2 the other. */
	ASSERT_TRUE(write_byte(fds[1], FAR, '1'));
	EXPECT_EQ(PAGE / 2 + PAGE / 4 + PAGE / 2, cow_sharing(fds[0]).proportional);
	EXPECT_EQ(PAGE / 2 + PAGE / 4 + PAGE, cow_sharing(fds[1]).proportional);
	EXPECT_EQ(PAGE + PAGE / 2 + PAGE / 2, cow_sharing(fds[2]).proportional);
	close(fds[0]);
	close(fds[1]);
	close(fds[2]);
}

#define NR_FAN		10

TEST_F(sharing, fan_splits_among_those_that_are_left)
{
	int fds[NR_FAN + 1], i, n;

	fds[0] = self->fd;
	for (i = 1; i <= NR_FAN; i++) {
		fds[i] = cow_snapshot(self->fd, i % 2 ? COWMEM_WRITABLE : 0);
		ASSERT_GE(fds[i], 0);
	}
	for (n = NR_FAN + 1; n > 1; n--) {
		for (i = 0; i < n; i++)
			EXPECT_TRUE(shared_by(fds[i], n));
		EXPECT_TRUE(adds_up(fds, n));
		EXPECT_EQ(NR, held());
		close(fds[n - 1]);
	}
	EXPECT_EQ(SIZE, cow_sharing(self->fd).exclusive);
	EXPECT_EQ(SIZE, cow_sharing(self->fd).proportional);
}

/* Each of the clones writes page 3, and the page that has its number. */
static bool make_fan_of_writers(int fds[NR_FAN + 1])
{
	int i;

	for (i = 1; i <= NR_FAN; i++) {
		fds[i] = cow_snapshot(fds[0], COWMEM_WRITABLE);
		if (fds[i] < 0 || write_page(fds[i], 3, '0' + i) != PAGE ||
		    write_page(fds[i], i, 'A' + i) != PAGE)
			return false;
	}
	return true;
}

TEST_F(sharing, page_of_a_fan_is_split_among_those_that_did_not_write_it)
{
	/* Those that nobody wrote, and those that one wrote; page 3 apart. */
	double rest = (NR - NR_FAN) / (NR_FAN + 1.0), other = 1.0 / NR_FAN;
	int fds[NR_FAN + 1] = { self->fd }, i;

	ASSERT_TRUE(make_fan_of_writers(fds));
	EXPECT_TRUE(split_is(fds[0], rest + 9 * other + 1));
	for (i = 1; i <= NR_FAN; i++)
		EXPECT_TRUE(split_is(fds[i], i == 3 ? rest + 9 * other + 1 :
						      rest + 8 * other + 2));
	for (i = 1; i <= NR_FAN; i++)
		close(fds[i]);
}

TEST_F(sharing, fan_of_writers_adds_up)
{
	int fds[NR_FAN + 1] = { self->fd }, i;

	ASSERT_TRUE(make_fan_of_writers(fds));
	/* Page 3 of each, and one more, but for the one that wrote only it. */
	for (i = 1; i <= NR_FAN; i++)
		EXPECT_EQ(i == 3 ? PAGE : 2 * PAGE,
			  cow_sharing(fds[i]).exclusive);
	EXPECT_EQ(PAGE, cow_sharing(self->fd).exclusive);
	EXPECT_TRUE(adds_up(fds, NR_FAN + 1));
	for (i = NR_FAN; i > 0; i--) {
		close(fds[i]);
		EXPECT_TRUE(adds_up(fds, i));
	}
	EXPECT_EQ(SIZE, cow_sharing(self->fd).exclusive);
}

/* Pages so far from each other that the index is most of it. */
#define SPREAD		(256 * PAGE)

TEST_F(sharing, index_is_shared_with_a_snapshot_until_one_side_writes)
{
	int fd = cow_create(NR * SPREAD, "spread"), snap;
	uint64_t alone;
	unsigned long i;

	ASSERT_GE(fd, 0);
	for (i = 0; i < NR; i++)
		ASSERT_EQ(1, pwrite(fd, "!", 1, i * SPREAD));
	alone = cow_sharing(fd).index;
	EXPECT_GT(alone, 0);
	snap = cow_snapshot(fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_LT(cow_sharing(fd).index, alone);
	EXPECT_LT(cow_sharing(snap).index, alone);
	ASSERT_EQ(1, pwrite(fd, "?", 1, 5 * SPREAD));
	EXPECT_GT(cow_sharing(fd).index, 0);
	EXPECT_GT(cow_sharing(snap).index, 0);
	EXPECT_LT(cow_sharing(fd).index, alone);
	EXPECT_LT(cow_sharing(snap).index, alone);
	close(snap);
	EXPECT_EQ(alone, cow_sharing(fd).index);
	close(fd);
}

TEST_F(sharing, snapshot_of_a_range_shares_the_range)
{
	int snap;

	NEED(RANGE);
	snap = cow_snapshot_range(self->fd, 0, 4 * PAGE, 4 * PAGE);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(0, cow_sharing(snap).exclusive);
	EXPECT_EQ(4 * PAGE / 2, cow_sharing(snap).proportional);
	EXPECT_EQ(4 * PAGE, cow_sharing(snap).resident);
	EXPECT_EQ((NR - 4) * PAGE, cow_sharing(self->fd).exclusive);
	EXPECT_EQ((NR - 4) * PAGE + 4 * PAGE / 2,
		  cow_sharing(self->fd).proportional);
	EXPECT_EQ(NR, held());
	close(snap);
	EXPECT_EQ(SIZE, cow_sharing(self->fd).exclusive);
}

/* What the two share is one owner of each page, and so is the range. */
TEST_F(sharing, snapshot_of_a_range_of_two_that_share_has_half_of_it)
{
	int snap, range;

	NEED(RANGE);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	range = cow_snapshot_range(snap, 0, 4 * PAGE, 4 * PAGE);
	ASSERT_GE(range, 0);
	EXPECT_EQ(4 * PAGE / 2, cow_sharing(range).proportional);
	EXPECT_EQ((NR - 4) * PAGE / 2 + 4 * PAGE / 4,
		  cow_sharing(self->fd).proportional);
	EXPECT_EQ((NR - 4) * PAGE / 2 + 4 * PAGE / 4,
		  cow_sharing(snap).proportional);
	close(range);
	close(snap);
}

TEST_F(sharing, restored_buffer_has_half_as_after_a_snapshot)
{
	int snap;

	NEED(RESTORE);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	memset(self->p, '!', SIZE);
	ASSERT_EQ(SIZE, cow_sharing(snap).proportional);
	ASSERT_EQ(0, cow_restore(self->fd, snap, 0));
	EXPECT_EQ(SIZE / 2, cow_sharing(snap).proportional);
	EXPECT_EQ(SIZE / 2, cow_sharing(self->fd).proportional);
	EXPECT_EQ(NR, held());
	close(snap);
}

TEST_F(sharing, cloned_range_is_shared_at_another_offset)
{
	int fd;

	NEED(CLONE);
	fd = cow_create(SIZE, "destination");
	ASSERT_GE(fd, 0);
	ASSERT_EQ(PAGE, write_page(fd, 0, '!'));
	ASSERT_EQ(0, cow_clone_range(fd, 8 * PAGE, self->fd, 2 * PAGE,
				     4 * PAGE));
	EXPECT_EQ(PAGE, cow_sharing(fd).exclusive);
	EXPECT_EQ(PAGE + 4 * PAGE / 2, cow_sharing(fd).proportional);
	EXPECT_EQ(5, pages_of(fd));
	EXPECT_EQ((NR - 4) * PAGE, cow_sharing(self->fd).exclusive);
	EXPECT_EQ((NR - 4) * PAGE + 4 * PAGE / 2,
		  cow_sharing(self->fd).proportional);
	EXPECT_EQ(NR + 1, held());
	close(fd);
	EXPECT_EQ(SIZE, cow_sharing(self->fd).exclusive);
}

TEST_F(sharing, cloned_file_is_shared_as_a_whole)
{
	int fd;

	NEED(CLONE);
	fd = cow_create(0, "destination");
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ioctl(fd, FICLONE, self->fd));
	EXPECT_TRUE(shared_by(fd, 2));
	EXPECT_TRUE(shared_by(self->fd, 2));
	EXPECT_EQ(NR, held());
	close(fd);
}

TEST_F(sharing, page_that_one_buffer_has_twice_is_not_private_and_counts_once)
{
	NEED(CLONE);
	ASSERT_EQ(0, cow_clone_range(self->fd, 4 * PAGE, self->fd, 0,
				     4 * PAGE));
	EXPECT_EQ(NR - 4, held());
	EXPECT_EQ(NR, pages_of(self->fd));
	EXPECT_EQ((NR - 8) * PAGE, cow_sharing(self->fd).exclusive);
	EXPECT_EQ((NR - 4) * PAGE, cow_sharing(self->fd).proportional);
	self->p[0] = '!';
	EXPECT_EQ((NR - 6) * PAGE, cow_sharing(self->fd).exclusive);
	EXPECT_EQ((NR - 3) * PAGE, cow_sharing(self->fd).proportional);
}

/* A range that is worth sharing nodes of the index for. */
TEST_F(sharing, large_range_that_one_buffer_has_twice_is_not_private)
{
	uint64_t half = 512 * PAGE;
	int fd;

	NEED(CLONE);
	fd = cow_create(2 * half, "halves");
	ASSERT_GE(fd, 0);
	ASSERT_EQ(PAGE, write_page(fd, 0, '1'));
	ASSERT_EQ(PAGE, write_page(fd, 100, '2'));
	ASSERT_EQ(PAGE, write_page(fd, 511, '3'));
	ASSERT_EQ(0, cow_clone_range(fd, half, fd, 0, half));
	EXPECT_EQ(NR + 3, held());
	EXPECT_EQ(6, pages_of(fd));
	EXPECT_EQ(0, cow_sharing(fd).exclusive);
	EXPECT_EQ(3 * PAGE, cow_sharing(fd).proportional);
	ASSERT_EQ(PAGE, write_page(fd, 612, '4'));
	EXPECT_EQ(NR + 4, held());
	EXPECT_EQ(2 * PAGE, cow_sharing(fd).exclusive);
	EXPECT_EQ(4 * PAGE, cow_sharing(fd).proportional);
	close(fd);
}

TEST_F(sharing, deduplicated_pages_are_shared)
{
	int fd, i;

	NEED(DEDUPE);
	fd = cow_create(SIZE, "same");
	ASSERT_GE(fd, 0);
	for (i = 0; i < NR; i++)
		ASSERT_EQ(PAGE, write_page(fd, i, 'a' + i));
	EXPECT_EQ(SIZE, cow_sharing(fd).exclusive);
	EXPECT_EQ(2 * NR, held());
	ASSERT_EQ(SIZE, cow_dedupe(fd, 0, self->fd, 0, SIZE));
	EXPECT_EQ(NR, held());
	EXPECT_TRUE(shared_by(fd, 2));
	EXPECT_TRUE(shared_by(self->fd, 2));
	close(fd);
}

/* A buffer that has nothing but what page 5 of the others has. */
static int create_page_5(void)
{
	int fd = cow_create(SIZE, "page 5");

	return write_page(fd, 5, value_of(5)) == PAGE ? fd : -1;
}

TEST_F(sharing, page_deduplicated_among_three_is_split_in_three)
{
	int fds[2], i;

	NEED(DEDUPE);
	for (i = 0; i < 2; i++) {
		fds[i] = create_page_5();
		ASSERT_GE(fds[i], 0);
		ASSERT_EQ(PAGE, cow_dedupe(fds[i], 5 * PAGE, self->fd, 5 * PAGE,
					   PAGE));
	}
	EXPECT_TRUE(split_is(self->fd, NR - 1 + 1 / 3.0));
	EXPECT_TRUE(split_is(fds[0], 1 / 3.0));
	EXPECT_TRUE(split_is(fds[1], 1 / 3.0));
	EXPECT_EQ(NR, held());
	close(fds[0]);
	close(fds[1]);
}

TEST_F(sharing, page_deduplicated_with_two_that_share_is_split_in_halves)
{
	int snap, fd;

	NEED(DEDUPE);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	fd = create_page_5();
	ASSERT_GE(fd, 0);
	ASSERT_EQ(PAGE, cow_dedupe(fd, 5 * PAGE, self->fd, 5 * PAGE, PAGE));
	EXPECT_EQ(PAGE / 2, cow_sharing(fd).proportional);
	EXPECT_EQ((NR - 1) * PAGE / 2 + PAGE / 4,
		  cow_sharing(self->fd).proportional);
	EXPECT_EQ((NR - 1) * PAGE / 2 + PAGE / 4,
		  cow_sharing(snap).proportional);
	EXPECT_EQ(NR, held());
	close(snap);
	close(fd);
}

/* It stays with the origin and the snapshot gets a copy. */
TEST_F(sharing, page_pinned_at_the_snapshot_is_private_to_both)
{
	int pipefd[2], snap;

	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_TRUE(pipe_hold(pipefd, self->p + 3 * PAGE));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(PAGE, cow_sharing(self->fd).exclusive);
	EXPECT_EQ(PAGE, cow_sharing(snap).exclusive);
	EXPECT_EQ(PAGE + (NR - 1) * PAGE / 2, cow_sharing(snap).proportional);
	EXPECT_EQ(NR + 1, held());
	pipe_close(pipefd);
	close(snap);
}

/*
 * A random shape, against a model: which page, by number, each buffer has in
 * each of its slots.  Slots are so far from each other that some ranges of them
 * can share nodes of the index and others cannot.
 */

#define NR_SHAPE	30
#define NR_STEPS	150
#define SLOT		(40 * PAGE)

struct member {
	int fd;
	bool frozen;
	unsigned int nr;		/* slots, up to the end */
	unsigned int page[NR];		/* 0: a hole */
};

struct shape {
	struct member member[NR_SHAPE];
	unsigned int nr;
	unsigned int last_page;
	unsigned int refs[NR_STEPS * NR];	/* by number of the page */
	uint64_t seed;
};

static unsigned int any_below(uint64_t *seed, unsigned int below)
{
	*seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (*seed >> 33) % below;
}

static unsigned int shape_random(struct shape *shape, unsigned int below)
{
	return any_below(&shape->seed, below);
}

static void shape_count(struct shape *shape)
{
	unsigned int i, k;

	memset(shape->refs, 0, sizeof(shape->refs));
	for (i = 0; i < shape->nr; i++)
		for (k = 0; k < shape->member[i].nr; k++)
			shape->refs[shape->member[i].page[k]]++;
	shape->refs[0] = 0;
}

static bool member_write(struct shape *shape, struct member *member,
			 unsigned int slot)
{
	unsigned int *page = &member->page[slot];

	shape_count(shape);
	if (shape->refs[*page] != 1)
		*page = ++shape->last_page;
	return pwrite(member->fd, "!", 1, slot * SLOT) == 1;
}

static bool shape_write(struct shape *shape, struct member *member)
{
	unsigned int n = 1 + shape_random(shape, 4);

	while (n--)
		if (!member_write(shape, member,
				  shape_random(shape, member->nr)))
			return false;
	return true;
}

static bool shape_create(struct shape *shape)
{
	struct member *member = &shape->member[shape->nr++];
	unsigned int i;

	*member = (struct member) {
		.fd = cow_create(NR * SLOT, "shape"), .nr = NR,
	};
	if (member->fd < 0)
		return false;
	for (i = 0; i < NR; i += 2)
		if (!member_write(shape, member, i))
			return false;
	return true;
}

/* Of some slots in a row, or of all. */
static bool shape_snapshot(struct shape *shape, struct member *origin)
{
	struct member *member = &shape->member[shape->nr++];
	bool frozen = shape_random(shape, 3) == 0;
	unsigned int first = 0, nr = origin->nr;

	if (shape_random(shape, 2)) {
		first = shape_random(shape, origin->nr);
		nr = 1 + shape_random(shape, origin->nr - first);
	}
	*member = (struct member) { .frozen = frozen, .nr = nr };
	memcpy(member->page, origin->page + first, nr * sizeof(member->page[0]));
	member->fd = cow_snapshot_range(origin->fd,
					frozen ? 0 : COWMEM_WRITABLE,
					first * SLOT, nr * SLOT);
	return member->fd >= 0;
}

static bool shape_clone(struct shape *shape, struct member *member)
{
	struct member *source = &shape->member[shape_random(shape, shape->nr)];
	unsigned int to = shape_random(shape, member->nr);
	unsigned int from = shape_random(shape, source->nr);
	unsigned int nr = member->nr - to;

	if (nr > source->nr - from)
		nr = source->nr - from;
	nr = 1 + shape_random(shape, nr);
	if (source == member && from < to + nr && to < from + nr)
		return true;
	memcpy(member->page + to, source->page + from,
	       nr * sizeof(member->page[0]));
	return !cow_clone_range(member->fd, to * SLOT, source->fd, from * SLOT,
			    nr * SLOT);
}

static bool shape_punch(struct shape *shape, struct member *member)
{
	unsigned int first = shape_random(shape, member->nr);
	unsigned int nr = 1 + shape_random(shape, member->nr - first);

	memset(member->page + first, 0, nr * sizeof(member->page[0]));
	return !punch(member->fd, first * SLOT / PAGE, nr * SLOT / PAGE);
}

static bool shape_cut(struct shape *shape, struct member *member)
{
	member->nr -= shape_random(shape, member->nr);
	return !ftruncate(member->fd, member->nr * SLOT);
}

static void shape_close(struct shape *shape, struct member *member)
{
	close(member->fd);
	*member = shape->member[--shape->nr];
}

static bool shape_change(struct shape *shape, struct member *member)
{
	switch (shape_random(shape, 8)) {
	case 0:
		return shape_punch(shape, member);
	case 1:
		return shape_cut(shape, member);
	case 2 ... 4:
		return shape_clone(shape, member);
	default:
		return shape_write(shape, member);
	}
}

static bool shape_step(struct shape *shape)
{
	bool room = shape->nr < NR_SHAPE;
	struct member *member;
	unsigned int kind;

	if (shape->nr < 3)
		return shape_create(shape);
	member = &shape->member[shape_random(shape, shape->nr)];
	kind = shape_random(shape, 12);
	if (kind == 0 && room)
		return shape_create(shape);
	if (kind <= 4 && room)
		return shape_snapshot(shape, member);
	if (kind == 5 || !room) {
		shape_close(shape, member);
		return true;
	}
	return member->frozen ? shape_snapshot(shape, member) :
	       shape_change(shape, member);
}

/* In how many of its first @nr slots has it that page? */
static unsigned int member_places(const struct member *member,
				  unsigned int page, unsigned int nr)
{
	unsigned int places = 0;

	while (nr--)
		places += member->page[nr] == page;
	return places;
}

/* All of a shape is below two levels of nodes; the third is the page. */
#define SHAPE_STEPS	3

static struct split member_split(const struct shape *shape,
				 const struct member *member)
{
	struct split split = { };
	unsigned int i, page;

	for (i = 0; i < member->nr; i++) {
		page = member->page[i];
		if (page && !member_places(member, page, i))
			split_add(&split,
				  member_places(member, page, member->nr),
				  shape->refs[page], SHAPE_STEPS);
	}
	return split;
}

/* Does STAT say what the model knows? */
static bool member_agrees(struct shape *shape, struct member *member)
{
	struct split split = member_split(shape, member);
	struct cowmem_stat stat = cow_sharing(member->fd);
	unsigned long pages = 0, private = 0;
	unsigned int i;

	for (i = 0; i < member->nr; i++) {
		pages += member->page[i] != 0;
		private += shape->refs[member->page[i]] == 1;
	}
	return stat.exclusive == private * PAGE &&
	       stat.resident == pages * PAGE && pages_of(member->fd) == pages &&
	       split_allows(&split, stat.proportional);
}

static bool shape_agrees(struct shape *shape)
{
	int fds[NR_SHAPE];
	long pages = 0;
	unsigned int i;

	shape_count(shape);
	for (i = 1; i <= shape->last_page; i++)
		pages += shape->refs[i] != 0;
	for (i = 0; i < shape->nr; i++) {
		fds[i] = shape->member[i].fd;
		if (!member_agrees(shape, &shape->member[i]))
			return false;
	}
	return held() == pages && adds_up(fds, shape->nr);
}

TEST(random_shape_agrees_with_a_model_after_each_step)
{
	static struct shape shape = { .seed = 1 };
	int i;

	NEED_BITS(COWMEM_FEATURE_SHARING | COWMEM_FEATURE_RANGE |
		  COWMEM_FEATURE_CLONE | COWMEM_FEATURE_FALLOCATE);
	base = cow_param("pages");
	for (i = 0; i < NR_STEPS; i++) {
		ASSERT_TRUE(shape_step(&shape))
			TH_LOG("step %d: %s", i, strerror(errno));
		ASSERT_TRUE(shape_agrees(&shape))
			TH_LOG("after step %d", i);
	}
	while (shape.nr) {
		shape_close(&shape, &shape.member[0]);
		ASSERT_TRUE(shape_agrees(&shape));
	}
	EXPECT_EQ(0, held());
}

/*
 * A random family of buffers so small that one node is all that each has of an
 * index, against a model of these nodes: a snapshot shares that of its origin,
 * one of a range has its own, and so has a buffer that is written.
 */

#define NR_FAMILY	12
#define NR_FAMILY_STEPS	600

struct leaf {
	unsigned int owners;		/* relatives; 0: it is free */
	unsigned int page[NR];		/* by number */
};

struct relative {
	int fd;
	bool frozen;
	unsigned int first;		/* slot of its page 0 */
	unsigned int nr;
	struct leaf *leaf;
};

struct family {
	struct relative relative[NR_FAMILY];
	unsigned int nr;
	unsigned int last_page;
	struct leaf leaf[NR_FAMILY + 1];
	uint64_t seed;
};

static struct leaf *leaf_new(struct family *family)
{
	struct leaf *leaf = family->leaf;

	while (leaf->owners)
		leaf++;
	*leaf = (struct leaf) { .owners = 1 };
	return leaf;
}

static unsigned int page_owners(const struct family *family, unsigned int page)
{
	unsigned int i, k, owners = 0;

	for (i = 0; i <= NR_FAMILY; i++)
		for (k = 0; k < NR && family->leaf[i].owners; k++)
			owners += family->leaf[i].page[k] == page;
	return owners;
}

static bool family_write(struct family *family, struct relative *relative,
			 unsigned int index)
{
	struct leaf *leaf = relative->leaf;
	unsigned int *page;

	if (leaf->owners > 1) {
		leaf->owners--;
		relative->leaf = leaf_new(family);
		memcpy(relative->leaf->page, leaf->page, sizeof(leaf->page));
	}
	page = &relative->leaf->page[relative->first + index];
	if (!*page || page_owners(family, *page) > 1)
		*page = ++family->last_page;
	return write_byte(relative->fd, index * PAGE, '!');
}

static bool family_create(struct family *family)
{
	struct relative *relative = &family->relative[family->nr++];
	unsigned int i;

	*relative = (struct relative) {
		.fd = cow_create(SIZE, "family"),
		.nr = NR,
		.leaf = leaf_new(family),
	};
	for (i = 0; i < NR; i += 2)
		if (!family_write(family, relative, i))
			return false;
	return true;
}

static bool family_snapshot(struct family *family, struct relative *origin,
			    unsigned int first, unsigned int nr)
{
	struct relative *relative = &family->relative[family->nr++];
	bool frozen = any_below(&family->seed, 3) == 0;

	*relative = (struct relative) {
		.frozen = frozen,
		.first = origin->first + first,
		.nr = nr,
		.leaf = origin->leaf,
	};
	if (nr == origin->nr) {
		relative->leaf->owners++;
	} else {
		relative->leaf = leaf_new(family);
		memcpy(relative->leaf->page + relative->first,
		       origin->leaf->page + relative->first,
		       nr * sizeof(relative->leaf->page[0]));
	}
	relative->fd = cow_snapshot_range(origin->fd,
					  frozen ? 0 : COWMEM_WRITABLE,
					  first * PAGE, nr * PAGE);
	return relative->fd >= 0;
}

static bool family_snapshot_any(struct family *family, struct relative *origin)
{
	unsigned int first = 0, nr = origin->nr;

	if (!any_below(&family->seed, 3)) {
		first = any_below(&family->seed, origin->nr);
		nr = 1 + any_below(&family->seed, origin->nr - first);
	}
	return family_snapshot(family, origin, first, nr);
}

static void family_close(struct family *family, struct relative *relative)
{
	close(relative->fd);
	relative->leaf->owners--;
	*relative = family->relative[--family->nr];
}

static bool family_step(struct family *family)
{
	struct relative *relative;

	if (family->nr < 2)
		return family_create(family);
	relative = &family->relative[any_below(&family->seed, family->nr)];
	switch (any_below(&family->seed, 8)) {
	case 0:
		family_close(family, relative);
		return true;
	case 1 ... 3:
		return family->nr == NR_FAMILY ||
		       family_snapshot_any(family, relative);
	default:
		return relative->frozen ||
		       family_write(family, relative,
				    any_below(&family->seed, relative->nr));
	}
}

/* Each is, to the byte, what is left of its pages after each split. */
static bool family_agrees(const struct family *family)
{
	unsigned int i, k;

	for (i = 0; i < family->nr; i++) {
		const struct leaf *leaf = family->relative[i].leaf;
		double pages = 0;

		for (k = 0; k < NR; k++)
			if (leaf->page[k])
				pages += 1.0 / leaf->owners /
					 page_owners(family, leaf->page[k]);
		if (!split_is(family->relative[i].fd, pages))
			return false;
	}
	return true;
}

TEST(random_family_of_one_node_each_is_split_as_a_model_says)
{
	static struct family family = { .seed = 1 };
	int i;

	NEED_BITS(COWMEM_FEATURE_SHARING | COWMEM_FEATURE_RANGE);
	for (i = 0; i < NR_FAMILY_STEPS; i++) {
		ASSERT_TRUE(family_step(&family))
			TH_LOG("step %d: %s", i, strerror(errno));
		ASSERT_TRUE(family_agrees(&family))
			TH_LOG("after step %d", i);
	}
	while (family.nr) {
		family_close(&family, &family.relative[0]);
		ASSERT_TRUE(family_agrees(&family));
	}
}

/*
 * What the kernel says of mappings
 */

TEST_F(sharing, smaps_splits_a_page_among_the_mappings_of_a_buffer)
{
	char *q = cow_map(self->fd, SIZE, PROT_READ), sum = 0;
	int i;

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(SIZE / 1024, smaps_kb(self->p, SIZE, "Rss"));
	EXPECT_EQ(SIZE / 1024, smaps_kb(self->p, SIZE, "Pss"));
	EXPECT_EQ(0, smaps_kb(q, SIZE, "Rss"));
	EXPECT_EQ(0, smaps_kb(q, SIZE, "Pss"));
	for (i = 0; i < 4; i++)
		sum |= ((volatile char *)q)[i * PAGE];
	EXPECT_NE(0, sum);
	EXPECT_EQ(4 * PAGE / 1024, smaps_kb(q, SIZE, "Rss"));
	EXPECT_EQ(2 * PAGE / 1024, smaps_kb(q, SIZE, "Pss"));
	EXPECT_EQ(SIZE / 1024, smaps_kb(self->p, SIZE, "Rss"));
	EXPECT_EQ((SIZE - 2 * PAGE) / 1024, smaps_kb(self->p, SIZE, "Pss"));
	munmap(q, SIZE);
}

TEST_F(sharing, smaps_splits_a_page_among_the_mappings_of_two_buffers)
{
	int snap = cow_snapshot(self->fd, 0);
	char *q;

	ASSERT_GE(snap, 0);
	q = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	/* Maps all of both. */
	EXPECT_EQ(0, memcmp(self->p, q, SIZE));
	EXPECT_EQ(SIZE / 1024, smaps_kb(self->p, SIZE, "Rss"));
	EXPECT_EQ(SIZE / 2048, smaps_kb(self->p, SIZE, "Pss"));
	EXPECT_EQ(SIZE / 1024, smaps_kb(q, SIZE, "Rss"));
	EXPECT_EQ(SIZE / 2048, smaps_kb(q, SIZE, "Pss"));
	memset(self->p, '!', 8 * PAGE);
	EXPECT_EQ(SIZE / 1024, smaps_kb(self->p, SIZE, "Rss"));
	EXPECT_EQ((SIZE - 4 * PAGE) / 1024, smaps_kb(self->p, SIZE, "Pss"));
	EXPECT_EQ((SIZE - 4 * PAGE) / 1024, smaps_kb(q, SIZE, "Pss"));
	munmap(q, SIZE);
	close(snap);
}

/*
 * LIMIT: eight pages of data, eight holes
 */

#define NR_DATA		8UL

FIXTURE(limit)
{
	int fd;
	char *p;
};

FIXTURE_SETUP(limit)
{
	NEED(LIMIT);
	base = cow_param("pages");
	self->fd = cow_create_mapped(SIZE, "limit", &self->p);
	ASSERT_GE(self->fd, 0);
	fill_pages(self->p, NR_DATA);
}

FIXTURE_TEARDOWN(limit)
{
	munmap(self->p, SIZE);
	close(self->fd);
	EXPECT_EQ(0, held());
}

static int limit_pages(int fd, unsigned long nr)
{
	return cow_limit(fd, nr * PAGE);
}

/* Stores to the pages from @first on, up to the first that fails, or @end. */
static unsigned long store_until(char *p, unsigned long first,
				 unsigned long end)
{
	while (first < end && !store(p, first, '!'))
		first++;
	return first;
}

TEST_F(limit, there_is_none_at_first)
{
	EXPECT_EQ(COWMEM_NO_LIMIT, cow_stat(self->fd).limit);
	EXPECT_EQ(NR, store_until(self->p, 0, NR));
}

TEST_F(limit, STAT_shows_it)
{
	ASSERT_EQ(0, limit_pages(self->fd, 3));
	EXPECT_EQ(3 * PAGE, cow_stat(self->fd).limit);
	ASSERT_EQ(0, limit_pages(self->fd, 0));
	EXPECT_EQ(0, cow_stat(self->fd).limit);
	ASSERT_EQ(0, cow_limit(self->fd, COWMEM_NO_LIMIT));
	EXPECT_EQ(COWMEM_NO_LIMIT, cow_stat(self->fd).limit);
}

TEST_F(limit, STAT_of_any_of_the_family_shows_what_the_account_holds)
{
	int clone = cow_snapshot(self->fd, COWMEM_WRITABLE);

	ASSERT_GE(clone, 0);
	EXPECT_EQ(NR_DATA * PAGE, cow_stat(self->fd).charged);
	EXPECT_EQ(NR_DATA * PAGE, cow_stat(clone).charged);
	self->p[0]++;
	EXPECT_EQ((NR_DATA + 1) * PAGE, cow_stat(self->fd).charged);
	EXPECT_EQ((NR_DATA + 1) * PAGE, cow_stat(clone).charged);
	close(clone);
	EXPECT_EQ(NR_DATA * PAGE, cow_stat(self->fd).charged);
}

TEST_F(limit, pages_up_to_it_can_be_stored_to_and_one_more_is_SIGBUS)
{
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA + 3));
	EXPECT_EQ(NR_DATA + 3, store_until(self->p, NR_DATA, NR));
	EXPECT_EQ(SIGBUS, store(self->p, NR - 1, '!'));
	EXPECT_EQ(NR_DATA + 3, held());
	EXPECT_EQ(NR_DATA + 3, pages_of(self->fd));
	EXPECT_TRUE(page_is(self->p + NR_DATA * PAGE, '!'));
	EXPECT_TRUE(page_is(self->p + (NR - 1) * PAGE, 0));
	/* The very same store. */
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA + 4));
	EXPECT_EQ(0, store(self->p, NR - 1, '!'));
	EXPECT_TRUE(page_is(self->p + (NR - 1) * PAGE, '!'));
	EXPECT_EQ(NR_DATA + 4, held());
	ASSERT_EQ(0, cow_limit(self->fd, COWMEM_NO_LIMIT));
	EXPECT_EQ(NR, store_until(self->p, 0, NR));
}

TEST_F(limit, store_beyond_it_kills_who_does_not_catch_SIGBUS)
{
	int status;

	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA));
	status = CHILD(self->p[NR_DATA * PAGE] = '!');
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_EQ(SIGBUS, WTERMSIG(status));
	EXPECT_TRUE(file_filled(self->fd, NR_DATA));
}

TEST_F(limit, parts_of_a_page_do_not_count)
{
	ASSERT_EQ(0, cow_limit(self->fd, (NR_DATA + 1) * PAGE + PAGE - 1));
	EXPECT_EQ(NR_DATA + 1, store_until(self->p, NR_DATA, NR));
	EXPECT_EQ(NR_DATA + 1, held());
}

TEST_F(limit, of_0_lets_nothing_through)
{
	int fd = cow_create(SIZE, "none");
	char *p;

	ASSERT_GE(fd, 0);
	p = cow_map(fd, SIZE, RW);
	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, limit_pages(fd, 0));
	EXPECT_EQ(SIGBUS, store(p, 0, '!'));
	EXPECT_EQ(-ENOSPC, write_page(fd, 0, '!'));
	EXPECT_TRUE(page_is(p, 0));
	EXPECT_EQ(0, pages_of(fd));
	munmap(p, SIZE);
	close(fd);
}

TEST_F(limit, write_is_ENOSPC_or_short)
{
	char data[4 * PAGE];

	memset(data, '!', sizeof(data));
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA + 2));
	EXPECT_EQ(2 * PAGE, pwrite(self->fd, data, 4 * PAGE, NR_DATA * PAGE));
	EXPECT_EQ(-1, pwrite(self->fd, data, 4 * PAGE, (NR_DATA + 2) * PAGE));
	EXPECT_EQ(ENOSPC, errno);
	EXPECT_EQ(NR_DATA + 2, held());
	EXPECT_TRUE(page_is(self->p + NR_DATA * PAGE, '!'));
	EXPECT_TRUE(page_is(self->p + (NR_DATA + 1) * PAGE, '!'));
	EXPECT_TRUE(page_is(self->p + (NR_DATA + 2) * PAGE, 0));
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA + 6));
	EXPECT_EQ(4 * PAGE, pwrite(self->fd, data, 4 * PAGE,
				   (NR_DATA + 2) * PAGE));
	EXPECT_TRUE(page_is(self->p + (NR_DATA + 5) * PAGE, '!'));
}

TEST_F(limit, write_beyond_the_end_grows_by_what_was_written)
{
	char data[4 * PAGE];

	memset(data, '!', sizeof(data));
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA + 2));
	EXPECT_EQ(2 * PAGE, pwrite(self->fd, data, 4 * PAGE, SIZE));
	EXPECT_EQ(SIZE + 2 * PAGE, cow_stat(self->fd).length);
	EXPECT_EQ(-1, pwrite(self->fd, data, PAGE, SIZE + 2 * PAGE));
	EXPECT_EQ(ENOSPC, errno);
	EXPECT_EQ(SIZE + 2 * PAGE, cow_stat(self->fd).length);
}

TEST_F(limit, read_into_a_mapping_is_EFAULT_and_loses_nothing)
{
	int pipefd[2];

	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_EQ(5, write(pipefd[1], "hello", 5));
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA));
	EXPECT_EQ(-1, read(pipefd[0], self->p + NR_DATA * PAGE, 5));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_TRUE(file_filled(self->fd, NR_DATA));
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA + 1));
	EXPECT_EQ(5, read(pipefd[0], self->p + NR_DATA * PAGE, 5));
	EXPECT_EQ(0, memcmp(self->p + NR_DATA * PAGE, "hello", 6));
	pipe_close(pipefd);
}

TEST_F(limit, populate_is_EFAULT)
{
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA + 2));
	EXPECT_EQ(-1, madvise(self->p, SIZE, MADV_POPULATE_WRITE));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(NR_DATA + 2, held());
	EXPECT_TRUE(file_filled(self->fd, NR_DATA));
	ASSERT_EQ(0, limit_pages(self->fd, NR));
	EXPECT_EQ(0, madvise(self->p, SIZE, MADV_POPULATE_WRITE));
	EXPECT_EQ(NR, held());
}

TEST_F(limit, fallocate_is_ENOSPC)
{
	NEED(FALLOCATE);
	ASSERT_EQ(0, limit_pages(self->fd, NR - 1));
	EXPECT_EQ(-1, fallocate(self->fd, 0, 0, SIZE));
	EXPECT_EQ(ENOSPC, errno);
	EXPECT_EQ(NR_DATA, held());
	ASSERT_EQ(0, limit_pages(self->fd, NR));
	EXPECT_EQ(0, fallocate(self->fd, 0, 0, SIZE));
	EXPECT_EQ(NR, held());
	EXPECT_TRUE(file_filled(self->fd, NR_DATA));
}

/* The part of the last page behind the end has to be zeroed: in a copy. */
TEST_F(limit, zeroing_a_part_of_a_shared_page_needs_one_page)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA));
	EXPECT_EQ(-ENOSPC, ret(fallocate(self->fd, FALLOC_FL_ZERO_RANGE, 9, 8)));
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA + 1));
	EXPECT_EQ(0, ret(fallocate(self->fd, FALLOC_FL_ZERO_RANGE, 9, 8)));
	EXPECT_EQ(0, self->p[9]);
	EXPECT_NE(0, self->p[8]);
	close(snap);
}

TEST_F(limit, ftruncate_into_a_shared_page_is_ENOSPC)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA));
	EXPECT_EQ(-1, ftruncate(self->fd, 3 * PAGE + 100));
	EXPECT_EQ(ENOSPC, errno);
	EXPECT_EQ(SIZE, cow_stat(self->fd).length);
	EXPECT_TRUE(file_filled(self->fd, NR_DATA));
	EXPECT_EQ(0, ftruncate(self->fd, 3 * PAGE));
	EXPECT_EQ(0, ftruncate(self->fd, 2 * SIZE));
	EXPECT_TRUE(file_filled(self->fd, 3));
	EXPECT_TRUE(file_filled(snap, NR_DATA));
	EXPECT_EQ(NR_DATA, held());
	close(snap);
}

TEST_F(limit, loads_and_exclusive_pages_do_not_care)
{
	char *q = mmap(NULL, SIZE, RW, MAP_PRIVATE, self->fd, 0);
	int pipefd[2];

	ASSERT_NE(MAP_FAILED, q);
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA));
	EXPECT_TRUE(file_filled(self->fd, NR_DATA));
	EXPECT_TRUE(page_is(self->p + NR_DATA * PAGE, 0));
	/* Exclusive pages, in each way. */
	EXPECT_EQ(NR_DATA, store_until(self->p, 0, NR_DATA));
	EXPECT_EQ(PAGE, write_page(self->fd, 3, '?'));
	EXPECT_TRUE(page_is(self->p + 3 * PAGE, '?'));
	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_EQ(5, write(pipefd[1], "hello", 5));
	EXPECT_EQ(5, read(pipefd[0], self->p + 4 * PAGE, 5));
	EXPECT_EQ(0, memcmp(self->p + 4 * PAGE, "hello!", 6));
	/* Copies of a private mapping are the kernel's. */
	EXPECT_EQ(NR, store_until(q, 0, NR));
	EXPECT_EQ(NR_DATA, held());
	pipe_close(pipefd);
	munmap(q, SIZE);
}

TEST_F(limit, below_what_is_held_only_stops_new_pages)
{
	int snap;

	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA / 2));
	EXPECT_TRUE(file_filled(self->fd, NR_DATA));
	EXPECT_EQ(0, store(self->p, 3, 'd'));
	EXPECT_EQ(SIGBUS, store(self->p, NR_DATA, '!'));
	EXPECT_EQ(-ENOSPC, write_page(self->fd, NR_DATA, '!'));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(SIGBUS, store(self->p, 3, '!'));
	EXPECT_TRUE(file_filled(self->fd, NR_DATA));
	EXPECT_TRUE(file_filled(snap, NR_DATA));
	close(snap);
	EXPECT_EQ(0, store(self->p, 3, 'd'));
	/* Down to one below the limit. */
	ASSERT_EQ(0, ftruncate(self->fd, (NR_DATA / 2 - 1) * PAGE));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE));
	EXPECT_EQ(NR_DATA / 2, store_until(self->p, 0, NR));
}

TEST_F(limit, shrinking_gives_room)
{
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA));
	EXPECT_EQ(NR_DATA, store_until(self->p, NR_DATA, NR));
	ASSERT_EQ(0, ftruncate(self->fd, 3 * PAGE));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE));
	EXPECT_EQ(3, held());
	EXPECT_EQ(NR_DATA, store_until(self->p, 3, NR));
}

TEST_F(limit, punching_gives_room)
{
	NEED(FALLOCATE);
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA));
	EXPECT_EQ(SIGBUS, store(self->p, NR_DATA, '!'));
	ASSERT_EQ(0, punch(self->fd, 2, 3));
	EXPECT_EQ(NR_DATA - 3, held());
	EXPECT_EQ(NR_DATA + 3, store_until(self->p, NR_DATA, NR));
}

TEST_F(limit, deduplicating_gives_room)
{
	unsigned long i;

	NEED(DEDUPE);
	for (i = 4; i < 8; i++)
		memset(self->p + i * PAGE, 'a' + i - 4, PAGE);
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA));
	EXPECT_EQ(SIGBUS, store(self->p, NR_DATA, '!'));
	ASSERT_EQ(4 * PAGE, cow_dedupe(self->fd, 4 * PAGE, self->fd, 0,
				       4 * PAGE));
	EXPECT_EQ(NR_DATA - 4, held());
	EXPECT_EQ(NR_DATA + 4, store_until(self->p, NR_DATA, NR));
}

/*
 * LIMIT and sharing
 */

TEST_F(limit, copy_after_a_snapshot_counts)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA + 2));
	EXPECT_EQ(0, store(self->p, 0, 'a'));
	EXPECT_EQ(PAGE, write_page(self->fd, 1, 'b'));
	EXPECT_EQ(NR_DATA + 2, held());
	EXPECT_EQ(SIGBUS, store(self->p, 2, '!'));
	EXPECT_EQ(-ENOSPC, write_page(self->fd, 2, '!'));
	EXPECT_TRUE(file_filled(self->fd, NR_DATA));
	EXPECT_TRUE(file_filled(snap, NR_DATA));
	EXPECT_EQ(NR_DATA + 2, held());
	/* What is copied already stays writable. */
	EXPECT_EQ(0, store(self->p, 0, '!'));
	EXPECT_EQ(0, store(self->p, 1, '!'));
	EXPECT_TRUE(file_filled(snap, NR_DATA));
	close(snap);
}

TEST_F(limit, store_that_failed_works_once_the_last_sharer_is_gone)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA));
	EXPECT_EQ(SIGBUS, store(self->p, 2, '!'));
	close(snap);
	EXPECT_EQ(NR_DATA, store_until(self->p, 0, NR));
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_EQ(NR_DATA, cow_stat(self->fd).reused);
	EXPECT_EQ(NR_DATA, held());
}

TEST_F(limit, SNAPSHOT_works_at_it)
{
	int snap, clone;

	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA));
	snap = cow_snapshot(self->fd, 0);
	clone = cow_snapshot(self->fd, COWMEM_WRITABLE);
	ASSERT_GE(snap, 0);
	ASSERT_GE(clone, 0);
	EXPECT_TRUE(file_filled(snap, NR_DATA));
	EXPECT_TRUE(file_filled(clone, NR_DATA));
	EXPECT_EQ(-ENOSPC, write_page(clone, 0, '!'));
	EXPECT_EQ(-ENOSPC, write_page(clone, NR_DATA, '!'));
	EXPECT_EQ(NR_DATA, held());
	close(clone);
	close(snap);
}

/* Which has to be copied at once. */
TEST_F(limit, SNAPSHOT_with_a_pinned_page_is_ENOSPC)
{
	int pipefd[2], snap;

	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA));
	ASSERT_TRUE(pipe_hold(pipefd, self->p + 3 * PAGE));
	EXPECT_EQ(-ENOSPC, cow_snapshot(self->fd, 0));
	EXPECT_EQ(0, cow_stat(self->fd).snapshots);
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_EQ(NR_DATA, held());
	EXPECT_TRUE(file_filled(self->fd, NR_DATA));
	/* Nothing is shared. */
	EXPECT_EQ(NR_DATA, store_until(self->p, 0, NR_DATA));
	fill_pages(self->p, NR_DATA);
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA + 1));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(NR_DATA + 1, held());
	memset(self->p + 3 * PAGE, '!', PAGE);
	EXPECT_TRUE(file_filled(snap, NR_DATA));
	pipe_close(pipefd);
	close(snap);
}

TEST_F(limit, RESTORE_works_at_it_and_gives_room)
{
	int snap;

	NEED(RESTORE);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA + 4));
	EXPECT_EQ(4, store_until(self->p, 0, NR));
	EXPECT_EQ(NR_DATA + 4, held());
	ASSERT_EQ(0, cow_restore(self->fd, snap, 0));
	EXPECT_EQ(NR_DATA, held());
	EXPECT_TRUE(file_filled(self->fd, NR_DATA));
	EXPECT_EQ(NR_DATA + 4, store_until(self->p, NR_DATA, NR));
	EXPECT_TRUE(file_filled(snap, NR_DATA));
	close(snap);
}

TEST_F(limit, snapshots_and_clones_are_of_one_account)
{
	int snap = cow_snapshot(self->fd, 0), clone, grandclone, file, fresh;
	uint64_t account = cow_stat(self->fd).account;

	ASSERT_GE(snap, 0);
	clone = cow_snapshot(self->fd, COWMEM_WRITABLE);
	grandclone = cow_snapshot(snap, COWMEM_WRITABLE);
	file = cow_file(clone, COWMEM_RDONLY);
	fresh = cow_create(SIZE, "fresh");
	ASSERT_GE(clone, 0);
	ASSERT_GE(grandclone, 0);
	ASSERT_GE(file, 0);
	ASSERT_GE(fresh, 0);
	EXPECT_EQ(account, cow_stat(snap).account);
	EXPECT_EQ(account, cow_stat(clone).account);
	EXPECT_EQ(account, cow_stat(grandclone).account);
	EXPECT_EQ(account, cow_stat(file).account);
	EXPECT_NE(account, cow_stat(fresh).account);
	/* A limit on one is one on all. */
	ASSERT_EQ(0, limit_pages(grandclone, 20));
	EXPECT_EQ(20 * PAGE, cow_stat(self->fd).limit);
	EXPECT_EQ(20 * PAGE, cow_stat(snap).limit);
	EXPECT_EQ(20 * PAGE, cow_stat(clone).limit);
	EXPECT_EQ(COWMEM_NO_LIMIT, cow_stat(fresh).limit);
	close(fresh);
	close(file);
	close(grandclone);
	close(clone);
	close(snap);
}

TEST_F(limit, snapshot_of_a_range_is_of_the_account)
{
	int clone;

	NEED(RANGE);
	clone = cow_snapshot_range(self->fd, COWMEM_WRITABLE, PAGE, 4 * PAGE);
	ASSERT_GE(clone, 0);
	EXPECT_EQ(cow_stat(self->fd).account, cow_stat(clone).account);
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA + 1));
	EXPECT_EQ(PAGE, write_page(clone, 0, '!'));
	EXPECT_EQ(-ENOSPC, write_page(clone, 1, '!'));
	EXPECT_EQ(SIGBUS, store(self->p, NR_DATA, '!'));
	close(clone);
}

TEST_F(limit, pages_of_all_clones_count_together)
{
	int clone = cow_snapshot(self->fd, COWMEM_WRITABLE);
	char *q;

	ASSERT_GE(clone, 0);
	q = cow_map(clone, SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA + 3));
	EXPECT_EQ(0, store(q, 0, '!'));
	EXPECT_EQ(0, store(q, NR_DATA, '!'));
	EXPECT_EQ(0, store(self->p, 1, '!'));
	EXPECT_EQ(NR_DATA + 3, held());
	EXPECT_EQ(SIGBUS, store(q, 2, '!'));
	EXPECT_EQ(SIGBUS, store(self->p, 2, '!'));
	EXPECT_EQ(SIGBUS, store(self->p, NR_DATA, '!'));
	EXPECT_EQ('c', q[2 * PAGE]);
	EXPECT_EQ('c', self->p[2 * PAGE]);
	/* The origin is the last that has this one. */
	EXPECT_EQ(0, store(self->p, 0, '!'));
	munmap(q, SIZE);
	close(clone);
}

TEST_F(limit, closing_a_clone_gives_room_back)
{
	int clone = cow_snapshot(self->fd, COWMEM_WRITABLE);
	char *q;

	ASSERT_GE(clone, 0);
	q = cow_map(clone, SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA + 4));
	EXPECT_EQ(4, store_until(q, 0, NR));
	EXPECT_EQ(SIGBUS, store(self->p, NR_DATA, '!'));
	/* The mapping keeps it. */
	close(clone);
	EXPECT_EQ(SIGBUS, store(self->p, NR_DATA, '!'));
	munmap(q, SIZE);
	EXPECT_EQ(NR_DATA + 4, store_until(self->p, NR_DATA, NR));
}

TEST_F(limit, outlives_the_buffer_that_the_account_was_made_with)
{
	int fd = cow_create(SIZE, "origin"), snap, clone;

	ASSERT_GE(fd, 0);
	ASSERT_EQ(PAGE, write_page(fd, 0, 'a'));
	ASSERT_EQ(0, limit_pages(fd, 2));
	snap = cow_snapshot(fd, 0);
	ASSERT_GE(snap, 0);
	close(fd);
	clone = cow_snapshot(snap, COWMEM_WRITABLE);
	ASSERT_GE(clone, 0);
	EXPECT_EQ(2 * PAGE, cow_stat(clone).limit);
	EXPECT_EQ(PAGE, write_page(clone, 0, '!'));
	EXPECT_EQ(-ENOSPC, write_page(clone, 1, '!'));
	close(snap);
	EXPECT_EQ(PAGE, write_page(clone, 1, '!'));
	EXPECT_EQ(-ENOSPC, write_page(clone, 2, '!'));
	close(clone);
}

TEST_F(limit, of_one_account_does_not_touch_another)
{
	int fd = cow_create(SIZE, "other"), dev = cow_open();
	char *q;

	ASSERT_GE(fd, 0);
	ASSERT_GE(dev, 0);
	q = cow_map(dev, SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA));
	EXPECT_EQ(SIGBUS, store(self->p, NR_DATA, '!'));
	EXPECT_EQ(NR, store_until(q, 0, NR));
	EXPECT_EQ(PAGE, write_page(fd, 0, '!'));
	/* A device handle limits its own. */
	ASSERT_EQ(0, limit_pages(dev, 0));
	EXPECT_EQ(0, cow_stat(dev).limit);
	EXPECT_EQ(PAGE, write_page(fd, 1, '!'));
	munmap(q, SIZE);
	close(dev);
	close(fd);
}

/*
 * LIMIT and pages that two accounts share
 */

FIXTURE(accounts)
{
	int a, b;	/* b: clone of the file a, with an account of its own */
	char *p, *q;
};

FIXTURE_SETUP(accounts)
{
	NEED(LIMIT);
	NEED(CLONE);
	base = cow_param("pages");
	self->a = cow_create(SIZE, "a");
	self->b = cow_create(SIZE, "b");
	ASSERT_GE(self->a, 0);
	ASSERT_GE(self->b, 0);
	self->p = cow_map(self->a, SIZE, RW);
	self->q = cow_map(self->b, SIZE, RW);
	ASSERT_NE(MAP_FAILED, self->p);
	ASSERT_NE(MAP_FAILED, self->q);
	fill_pages(self->p, NR_DATA);
	/* Cloning needs no page, so it works at the limit. */
	ASSERT_EQ(0, limit_pages(self->a, NR_DATA));
	ASSERT_EQ(0, limit_pages(self->b, 0));
	ASSERT_EQ(0, ioctl(self->b, FICLONE, self->a));
	ASSERT_NE(cow_stat(self->a).account, cow_stat(self->b).account);
	ASSERT_EQ(NR_DATA, held());
}

/* Once. */
static void drop(int *fd, char *p)
{
	if (*fd < 0)
		return;
	munmap(p, SIZE);
	close(*fd);
	*fd = -1;
}

FIXTURE_TEARDOWN(accounts)
{
	drop(&self->a, self->p);
	drop(&self->b, self->q);
	EXPECT_EQ(0, held());
}

TEST_F(accounts, clone_needs_pages_of_its_own_account)
{
	EXPECT_EQ(SIGBUS, store(self->q, 0, '!'));
	EXPECT_EQ(-ENOSPC, write_page(self->b, 0, '!'));
	EXPECT_TRUE(file_filled(self->b, NR_DATA));
	ASSERT_EQ(0, limit_pages(self->b, 2));
	EXPECT_EQ(2, store_until(self->q, 0, NR));
	EXPECT_EQ(NR_DATA + 2, held());
	EXPECT_TRUE(file_filled(self->a, NR_DATA));
	/* Where b has copied, a is alone again; the copies are not a's. */
	EXPECT_EQ(2, store_until(self->p, 0, NR));
	EXPECT_EQ(NR_DATA + 2, held());
}

/*
 * All eight pages were allocated for a.  When a gives up five of them they are
 * not freed, since b has them, so they go on counting for a, which still has no
 * room; what gives a room is that b gives them up.
 */
TEST_F(accounts, page_counts_for_its_allocator_until_the_other_frees_it)
{
	ASSERT_EQ(0, ftruncate(self->a, 3 * PAGE));
	ASSERT_EQ(0, ftruncate(self->a, SIZE));
	EXPECT_EQ(3, pages_of(self->a));
	EXPECT_EQ(NR_DATA, held());
	EXPECT_EQ(SIGBUS, store(self->p, 3, '!'));
	EXPECT_EQ(SIGBUS, store(self->p, 0, '!'));
	EXPECT_TRUE(file_filled(self->b, NR_DATA));

	ASSERT_EQ(0, ftruncate(self->b, 6 * PAGE));
	ASSERT_EQ(0, ftruncate(self->b, SIZE));
	EXPECT_EQ(6, held());
	EXPECT_EQ(5, store_until(self->p, 3, NR));
	EXPECT_EQ(NR_DATA, held());
	EXPECT_TRUE(file_filled(self->b, 6));

	/* A copy that b makes counts for b, and leaves the original to a. */
	ASSERT_EQ(0, limit_pages(self->b, 1));
	EXPECT_EQ(0, store(self->q, 0, '!'));
	EXPECT_EQ(NR_DATA + 1, held());
	EXPECT_EQ(SIGBUS, store(self->q, 1, '!'));
	EXPECT_EQ(0, store(self->p, 0, '?'));
	EXPECT_EQ(SIGBUS, store(self->p, 5, '!'));
	EXPECT_EQ(NR_DATA + 1, held());

	/* And one that only b has is b's to write and a's to pay. */
	EXPECT_EQ(0, store(self->q, 5, '!'));
	EXPECT_EQ(NR_DATA + 1, held());
	ASSERT_EQ(0, ftruncate(self->b, 5 * PAGE));
	EXPECT_EQ(6, store_until(self->p, 5, NR));
	EXPECT_EQ(SIGBUS, store(self->q, 1, '!'));
}

TEST_F(accounts, closing_the_other_gives_room_back)
{
	ASSERT_EQ(0, ftruncate(self->a, 0));
	ASSERT_EQ(0, ftruncate(self->a, SIZE));
	EXPECT_EQ(NR_DATA, held());
	EXPECT_EQ(SIGBUS, store(self->p, 0, '!'));
	drop(&self->b, self->q);
	EXPECT_EQ(0, held());
	EXPECT_EQ(NR_DATA, store_until(self->p, 0, NR));
}

/* Pages that nobody shares any more are b's to write, whoever pays. */
TEST_F(accounts, account_outlives_its_buffers_with_its_pages)
{
	drop(&self->a, self->p);
	EXPECT_EQ(NR_DATA, held());
	EXPECT_TRUE(file_filled(self->b, NR_DATA));
	EXPECT_EQ(NR_DATA, store_until(self->q, 0, NR));
	EXPECT_EQ(0, cow_stat(self->b).copied);
	EXPECT_EQ(-ENOSPC, write_page(self->b, NR_DATA, '!'));
	ASSERT_EQ(0, ftruncate(self->b, PAGE));
	EXPECT_EQ(1, held());
	/* Room in the other account, of which there is no buffer left. */
	EXPECT_EQ(-ENOSPC, write_page(self->b, 1, '!'));
	EXPECT_EQ(PAGE, cow_stat(self->b).length);
}

TEST_F(accounts, copy_file_range_that_has_to_copy_is_ENOSPC_or_short)
{
	int fd = cow_create(0, "copy");
	off64_t from = 1, to = 0;
	char data[2 * PAGE];
	ssize_t n;

	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, limit_pages(fd, 0));
	EXPECT_EQ(-1, copy_file_range(self->a, &from, fd, &to, 100, 0));
	EXPECT_EQ(ENOSPC, errno);
	EXPECT_EQ(1, from);
	EXPECT_EQ(0, to);
	EXPECT_EQ(0, cow_stat(fd).length);
	ASSERT_EQ(0, limit_pages(fd, 1));
	n = copy_file_range(self->a, &from, fd, &to, 2 * PAGE, 0);
	EXPECT_GT(n, 0);
	EXPECT_LE(n, PAGE);
	EXPECT_EQ(1 + n, from);
	EXPECT_EQ(n, to);
	EXPECT_EQ(n, cow_stat(fd).length);
	EXPECT_EQ(NR_DATA + 1, held());
	EXPECT_EQ(n, pread(fd, data, sizeof(data), 0));
	EXPECT_EQ(0, memcmp(data, self->p + 1, n));
	close(fd);
}

/*
 * Who may set it
 */

/* A buffer that belongs to nobody, made on the device handle @dev. */
static int create_as_nobody(int dev)
{
	int fd;

	if (seteuid(NOBODY))
		return -errno;
	fd = cow_create_on(dev, SIZE, NULL, 0);
	if (seteuid(0))
		_exit(100);
	return fd;
}

static void drop_capability(int capability)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data))
		_exit(100);
	data[CAP_TO_INDEX(capability)].effective &= ~CAP_TO_MASK(capability);
	if (syscall(SYS_capset, &header, data))
		_exit(100);
}

/* The following run in a child and return what failed, or 0. */

static int limit_of_root(int fd)
{
	if (!become_nobody())
		return 100;
	return cow_limit(fd, 0) != -EPERM || cow_limit(fd, COWMEM_NO_LIMIT) != -EPERM;
}

static int limit_through_clone(int fd)
{
	int clone;

	if (!become_nobody())
		return 100;
	clone = cow_snapshot(fd, COWMEM_WRITABLE);
	if (clone < 0)
		return 1;
	if (cow_limit(clone, COWMEM_NO_LIMIT) != -EPERM)
		return 2;
	return write_page(clone, 0, '!') == -ENOSPC ? 0 : 3;
}

static int limit_of_own(int dev)
{
	int fd, clone;

	if (!become_nobody())
		return 100;
	fd = cow_create_on(dev, SIZE, NULL, 0);
	if (fd < 0)
		return 1;
	if (limit_pages(fd, 1) || cow_stat(fd).limit != PAGE)
		return 2;
	if (write_page(fd, 0, '!') != PAGE ||
	    write_page(fd, 1, '!') != -ENOSPC)
		return 3;
	clone = cow_snapshot(fd, COWMEM_WRITABLE);
	if (limit_pages(clone, 2) || write_page(clone, 1, '!') != PAGE)
		return 4;
	/* The buffer of the handle itself was made by root. */
	return limit_pages(dev, 1) == -EPERM ? 0 : 5;
}

static int limit_of_nobody(int dev, int fd_of_root)
{
	int fd = create_as_nobody(dev);

	if (fd < 0)
		return 1;
	if (limit_pages(fd, 1) || cow_stat(fd).limit != PAGE)
		return 2;
	drop_capability(CAP_SYS_RESOURCE);
	if (limit_pages(fd, 2) != -EPERM || cow_stat(fd).limit != PAGE)
		return 3;
	return limit_pages(fd_of_root, 2) ? 4 : 0;
}

TEST_F(limit, of_another_uid_is_EPERM)
{
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA + 1));
	EXPECT_EQ(0, CHILD(_exit(limit_of_root(self->fd))));
	EXPECT_EQ((NR_DATA + 1) * PAGE, cow_stat(self->fd).limit);
	EXPECT_EQ(NR_DATA + 1, store_until(self->p, NR_DATA, NR));
}

/* The account is that of the origin. */
TEST_F(limit, of_another_uid_is_EPERM_through_a_snapshot_too)
{
	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA));
	EXPECT_EQ(0, CHILD(_exit(limit_through_clone(self->fd))));
	EXPECT_EQ(NR_DATA * PAGE, cow_stat(self->fd).limit);
}

TEST_F(limit, of_ones_own_buffer_needs_no_privilege)
{
	int dev = cow_open();

	ASSERT_GE(dev, 0);
	EXPECT_EQ(0, CHILD(_exit(limit_of_own(dev))));
	EXPECT_EQ(COWMEM_NO_LIMIT, cow_stat(dev).limit);
	close(dev);
}

TEST_F(limit, of_another_uid_works_with_CAP_SYS_RESOURCE_only)
{
	int dev = cow_open();

	ASSERT_GE(dev, 0);
	EXPECT_EQ(0, CHILD(_exit(limit_of_nobody(dev, self->fd))));
	EXPECT_EQ(2 * PAGE, cow_stat(self->fd).limit);
	close(dev);
}

/*
 * Races: who comes first is open, how many get through is not
 */

#define NR_RACERS	4
#define NR_THROUGH	10
#define RACES		16	/* in each, two may collide */

/* Each stores to its own quarter of the pages of its own mapping. */
static int race_stores(char *p, unsigned int racer)
{
	unsigned long i;
	int stored = 0;

	for (i = racer; i < NR; i += NR_RACERS)
		stored += !store(p, i, '!');
	return stored;
}

/* Number of stores of all, who start when the last of them is there. */
static int race(char *p[NR_RACERS], int (*stores)(char *p, unsigned int racer))
{
	int go[2], i, status, stored = 0;
	pid_t pid[NR_RACERS];
	char byte;

	if (pipe(go))
		return -1;
	for (i = 0; i < NR_RACERS; i++) {
		pid[i] = fork();
		if (pid[i])
			continue;
		close(go[1]);
		if (read(go[0], &byte, 1))
			_exit(100);
		_exit(stores(p[i], i));
	}
	pipe_close(go);
	for (i = 0; i < NR_RACERS; i++) {
		if (waitpid(pid[i], &status, 0) != pid[i] || !WIFEXITED(status))
			return -1;
		stored += WEXITSTATUS(status);
	}
	return stored;
}

TEST_F(limit, is_hard_when_processes_race_for_the_pages_of_one_buffer)
{
	char *p[NR_RACERS] = { self->p, self->p, self->p, self->p };
	unsigned long i, stored;
	int round;

	ASSERT_EQ(0, limit_pages(self->fd, NR_THROUGH));
	for (round = 0; round < RACES; round++) {
		ASSERT_EQ(0, ftruncate(self->fd, 0));
		ASSERT_EQ(0, ftruncate(self->fd, SIZE));
		EXPECT_EQ(NR_THROUGH, race(p, race_stores));
		EXPECT_EQ(NR_THROUGH, held());
		for (i = 0, stored = 0; i < NR; i++)
			stored += page_is(self->p + i * PAGE, '!');
		EXPECT_EQ(NR_THROUGH, stored);
	}
}

/* All racers to the same pages, which they have read before. */
static int race_same_pages(char *p, unsigned int racer)
{
	int stored = 0;
	unsigned long i;

	for (i = 0; i < NR_DATA; i++)
		(void)*(volatile char *)(p + i * PAGE);
	for (i = 0; i < NR_DATA; i++)
		stored += !store(p, i, 'A' + racer);
	return stored;
}

/* Each of them holds the page in its fault, for as long as that takes. */
TEST_F(limit, stores_that_need_no_page_do_not_fail_when_processes_race)
{
	char *p[NR_RACERS] = { self->p, self->p, self->p, self->p };
	int round, snap;

	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA));
	for (round = 0; round < 20; round++) {
		snap = cow_snapshot(self->fd, 0);
		ASSERT_GE(snap, 0);
		close(snap);
		EXPECT_EQ(NR_RACERS * NR_DATA, race(p, race_same_pages));
		EXPECT_EQ(NR_DATA, held());
	}
}

/* In one leaf of the index, whose first place is not that of the buffer. */
static int race_in_a_leaf(char *p, unsigned int racer)
{
	unsigned long index = 62 + racer;
	int i, stored = 0;

	for (i = 0; i < 100; i++) {
		if (store(p, index, 'A' + racer))
			continue;
		stored = 1;
		madvise(p + index * PAGE, PAGE, MADV_REMOVE);
	}
	return stored;
}

TEST_F(limit, store_that_fails_takes_nothing_from_one_that_is_under_way)
{
	unsigned long nr = 128;
	char *p[NR_RACERS];
	int fd, i, round;

	ASSERT_EQ(0, ftruncate(self->fd, (nr + 1) * PAGE));
	fd = cow_snapshot_range(self->fd, COWMEM_WRITABLE, PAGE, nr * PAGE);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, punch(fd, 0, nr));
	for (i = 0; i < NR_RACERS; i++)
		p[i] = i ? p[0] : cow_map(fd, nr * PAGE, RW);
	ASSERT_NE(MAP_FAILED, p[0]);
	ASSERT_EQ(0, limit_pages(fd, held() + 1));
	for (round = 0; round < 5; round++) {
		EXPECT_LE(1, race(p, race_in_a_leaf));
		EXPECT_EQ(0, pages_of(fd));
	}
	munmap(p[0], nr * PAGE);
	close(fd);
}

/* But for roots: at most one for each level. */
TEST_F(limit, stores_that_fail_leave_no_index)
{
	off_t far = 1L << 40;
	long nodes;
	char *q;
	int i;

	ASSERT_EQ(0, limit_pages(self->fd, NR_DATA));
	ASSERT_EQ(0, ftruncate(self->fd, 2 * far));
	q = mmap(NULL, SIZE, RW, MAP_SHARED, self->fd, far);
	ASSERT_NE(MAP_FAILED, q);
	nodes = cow_param("nodes");
	EXPECT_EQ(SIGBUS, store(q, 0, '!'));
	for (i = 0; i < 100; i++)
		EXPECT_FALSE(write_byte(self->fd, far + i * (1L << 24), '!'));
	EXPECT_EQ(ENOSPC, errno);
	EXPECT_LT(cow_param("nodes") - nodes, 10);
	munmap(q, SIZE);
}

TEST_F(limit, is_hard_when_clones_race_for_copies)
{
	int clone[NR_RACERS], round, i;
	char *q[NR_RACERS];

	fill_pages(self->p, NR);
	ASSERT_EQ(0, limit_pages(self->fd, NR + NR_THROUGH));
	for (round = 0; round < 4; round++) {
		for (i = 0; i < NR_RACERS; i++) {
			clone[i] = cow_snapshot(self->fd, COWMEM_WRITABLE);
			ASSERT_GE(clone[i], 0);
			q[i] = cow_map(clone[i], SIZE, RW);
			ASSERT_NE(MAP_FAILED, q[i]);
		}
		EXPECT_EQ(NR_THROUGH, race(q, race_stores));
		EXPECT_EQ(NR + NR_THROUGH, held());
		EXPECT_TRUE(file_filled(self->fd, NR));
		for (i = 0; i < NR_RACERS; i++) {
			munmap(q[i], SIZE);
			close(clone[i]);
		}
		EXPECT_EQ(NR, held());
	}
}

/*
 * The same while snapshots come and go: stores of one byte, so that a snapshot has
 * a page as it was or as it is
 */

static int race_bytes(char *p, unsigned int racer)
{
	unsigned long i;
	int stored = 0;

	for (i = racer; i < NR; i += NR_RACERS)
		stored += !COW_TRY(*(volatile char *)(p + i * PAGE) = '!');
	return stored;
}

/* Pages of which the first byte is '!', but -1 if other bytes are not as filled. */
static int bytes_stored(int fd, bool filled)
{
	char data[SIZE], *page;
	int stored = 0;

	if (pread(fd, data, SIZE, 0) != SIZE)
		return -1;
	for (page = data; page < data + SIZE; page += PAGE) {
		char old = filled ? value_of((page - data) / PAGE) : 0;

		stored += page[0] == '!';
		if (page[0] == '!')
			page[0] = old;
		if (!page_is(page, old))
			return -1;
	}
	return stored;
}

/* Returns only if something is wrong. */
static int take_snapshots(int fd, bool filled)
{
	uint64_t limit = cow_stat(fd).limit;
	int snap, stored, last = 0;

	for (;;) {
		snap = cow_snapshot(fd, 0);
		if (snap < 0)
			return -snap;
		stored = bytes_stored(snap, filled);
		if (stored < last)
			return 100;
		if (cow_stat(fd).charged > limit)
			return 101;
		last = stored;
		close(snap);
	}
}

/* As race(); below 0 if take_snapshots() returned. */
static int race_beside_snapshots(int fd, bool filled, char *p[NR_RACERS])
{
	uint64_t before = cow_stat(fd).snapshots;
	pid_t pid = CHILD_START(_exit(take_snapshots(fd, filled)));
	int stored, status;

	while (cow_stat(fd).snapshots == before)
		usleep(100);
	stored = race(p, race_bytes);
	if (waitpid(pid, &status, WNOHANG))
		return -WEXITSTATUS(status);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return stored;
}

TEST_F(limit, is_hard_when_snapshots_are_taken_of_a_buffer_that_is_filled)
{
	char *p[NR_RACERS] = { self->p, self->p, self->p, self->p };
	int round, stored;

	ASSERT_EQ(0, limit_pages(self->fd, NR_THROUGH));
	for (round = 0; round < RACES; round++) {
		ASSERT_EQ(0, ftruncate(self->fd, 0));
		ASSERT_EQ(0, ftruncate(self->fd, SIZE));
		stored = race_beside_snapshots(self->fd, false, p);
		/* One that has its page may need another: a snapshot came. */
		EXPECT_LE(0, stored);
		EXPECT_EQ(stored, bytes_stored(self->fd, false));
		EXPECT_EQ(NR_THROUGH, held());
	}
}

/* How many get through depends on how soon the snapshots go. */
TEST_F(limit, is_hard_when_snapshots_are_taken_of_a_buffer_that_is_copied)
{
	char *p[NR_RACERS] = { self->p, self->p, self->p, self->p };
	int round, stored;

	ASSERT_EQ(0, limit_pages(self->fd, NR + 2));
	for (round = 0; round < RACES; round++) {
		fill_pages(self->p, NR);
		stored = race_beside_snapshots(self->fd, true, p);
		EXPECT_LE(2, stored);
		EXPECT_EQ(stored, bytes_stored(self->fd, true));
		EXPECT_EQ(NR, held());
	}
}

/*
 * The bound on all accounts together
 */

#define MAX_PAGES	"/sys/module/cowmem/parameters/max_pages"

static int write_max_pages(const char *text)
{
	int fd = open(MAX_PAGES, O_WRONLY);
	int err;

	if (fd < 0)
		return -errno;
	err = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	close(fd);
	return err;
}

static int set_max_pages(long nr)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", nr);
	return write_max_pages(text);
}

/* As text: what no bound looks like is none of our business. */
static int read_max_pages(char text[32])
{
	int fd = open(MAX_PAGES, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, text, 31);
	close(fd);
	if (n <= 0)
		return -EIO;
	text[n] = '\0';
	return 0;
}

/* Shared with the parent, which restores the parameter even after a crash. */
FIXTURE(max_pages)
{
	char saved[32];
	long pages;
	int fd;
	char *p;
};

FIXTURE_SETUP(max_pages)
{
	NEED(LIMIT);
	self->pages = base = cow_param("pages");
	ASSERT_EQ(0, read_max_pages(self->saved));
	self->fd = cow_create_mapped(SIZE, "max_pages", &self->p);
	ASSERT_GE(self->fd, 0);
}

FIXTURE_TEARDOWN_PARENT(max_pages)
{
	char now[32] = "";

	EXPECT_EQ(0, write_max_pages(self->saved));
	EXPECT_EQ(0, read_max_pages(now));
	EXPECT_STREQ(self->saved, now);
	EXPECT_EQ(self->pages, cow_param("pages"));
}

TEST_F(max_pages, reads_as_written)
{
	ASSERT_EQ(0, set_max_pages(123456));
	EXPECT_EQ(123456, cow_param("max_pages"));
	EXPECT_EQ(-EINVAL, write_max_pages("many"));
	EXPECT_EQ(123456, cow_param("max_pages"));
}

TEST_F(max_pages, is_not_for_others_to_write)
{
	char now[32] = "";

	EXPECT_EQ(0, CHILD({
		if (!become_nobody())
			_exit(100);
		_exit(set_max_pages(1) != -EACCES);
	}));
	EXPECT_EQ(0, read_max_pages(now));
	EXPECT_STREQ(self->saved, now);
}

TEST_F(max_pages, fifth_page_of_four_is_SIGBUS)
{
	ASSERT_EQ(0, set_max_pages(base + 4));
	EXPECT_EQ(4, store_until(self->p, 0, NR));
	EXPECT_EQ(SIGBUS, store(self->p, 4, '!'));
	EXPECT_EQ(-ENOSPC, write_page(self->fd, 4, '!'));
	EXPECT_EQ(4, held());
	EXPECT_TRUE(page_is(self->p + 3 * PAGE, '!'));
	EXPECT_TRUE(page_is(self->p + 4 * PAGE, 0));
	EXPECT_EQ(0, store(self->p, 0, '?'));
	ASSERT_EQ(0, set_max_pages(base + 5));
	EXPECT_EQ(0, store(self->p, 4, '!'));
	EXPECT_EQ(5, held());
}

TEST_F(max_pages, of_0_is_no_bound)
{
	ASSERT_EQ(0, set_max_pages(base + 1));
	EXPECT_EQ(1, store_until(self->p, 0, NR));
	ASSERT_EQ(0, set_max_pages(0));
	EXPECT_EQ(NR, store_until(self->p, 0, NR));
}

TEST_F(max_pages, counts_all_accounts)
{
	int fd = cow_create(SIZE, "other");

	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, set_max_pages(base + 4));
	EXPECT_EQ(2, store_until(self->p, 0, 2));
	EXPECT_EQ(PAGE, write_page(fd, 0, '!'));
	EXPECT_EQ(PAGE, write_page(fd, 1, '!'));
	EXPECT_EQ(-ENOSPC, write_page(fd, 2, '!'));
	EXPECT_EQ(SIGBUS, store(self->p, 2, '!'));
	close(fd);
	EXPECT_EQ(4, store_until(self->p, 2, NR));
}

TEST_F(max_pages, and_LIMIT_both_hold)
{
	ASSERT_EQ(0, set_max_pages(base + 4));
	ASSERT_EQ(0, limit_pages(self->fd, 2));
	EXPECT_EQ(2, store_until(self->p, 0, NR));
	ASSERT_EQ(0, limit_pages(self->fd, NR));
	EXPECT_EQ(4, store_until(self->p, 2, NR));
	/* A page that one of them refuses does not count for the other. */
	ASSERT_EQ(0, set_max_pages(base + 6));
	ASSERT_EQ(0, limit_pages(self->fd, 6));
	EXPECT_EQ(6, store_until(self->p, 4, NR));
}

/* Each account has room for its part, all of them together have not. */
TEST_F(max_pages, is_hard_when_accounts_race_for_pages)
{
	int fd[NR_RACERS], round, i;
	char *p[NR_RACERS];

	for (i = 0; i < NR_RACERS; i++) {
		fd[i] = cow_create_mapped(SIZE, "racer", &p[i]);
		ASSERT_GE(fd[i], 0);
		ASSERT_EQ(0, limit_pages(fd[i], NR / NR_RACERS));
	}
	for (round = 0; round < RACES; round++) {
		ASSERT_EQ(0, set_max_pages(base + NR_THROUGH));
		EXPECT_EQ(NR_THROUGH, race(p, race_stores));
		EXPECT_EQ(NR_THROUGH, held());
		/* What was refused counts for no account. */
		ASSERT_EQ(0, set_max_pages(base + NR));
		EXPECT_EQ(NR, race(p, race_stores));
		EXPECT_EQ(NR, held());
		for (i = 0; i < NR_RACERS; i++) {
			ASSERT_EQ(0, ftruncate(fd[i], 0));
			ASSERT_EQ(0, ftruncate(fd[i], SIZE));
		}
		EXPECT_EQ(0, held());
	}
}

TEST_F(max_pages, below_what_is_held_only_stops_new_pages)
{
	int snap;

	fill_pages(self->p, NR_DATA);
	ASSERT_EQ(0, set_max_pages(base + 4));
	EXPECT_EQ(SIGBUS, store(self->p, NR_DATA, '!'));
	EXPECT_EQ(0, store(self->p, 0, 'a'));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(SIGBUS, store(self->p, 0, '!'));
	EXPECT_TRUE(file_filled(self->fd, NR_DATA));
	EXPECT_TRUE(file_filled(snap, NR_DATA));
	close(snap);
	EXPECT_EQ(0, store(self->p, 0, '!'));
	ASSERT_EQ(0, ftruncate(self->fd, 3 * PAGE));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE));
	EXPECT_EQ(4, store_until(self->p, 3, NR));
}

TEST_HARNESS_MAIN
