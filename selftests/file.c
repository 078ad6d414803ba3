// SPDX-License-Identifier: GPL-2.0
/*
 * Handles as files: what a program that knows nothing of cowmem does with them.
 * Where both kinds of handle can do it, both are tested.
 */
#include <poll.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>

#include <linux/falloc.h>
#include <linux/fs.h>

#include "common.h"
#include "harness.h"
#include "util.h"

#define PAGES	8
#define LENGTH	(PAGES * PAGE)

static bool all_bytes(const char *p, char value, size_t bytes)
{
	while (bytes--)
		if (*p++ != value)
			return false;
	return true;
}

/* Does the file have @bytes of @value at @offset? */
static bool has(int fd, loff_t offset, char value, size_t bytes)
{
	static char text[LENGTH];

	return pread(fd, text, bytes, offset) == bytes &&
	       all_bytes(text, value, bytes);
}

/* Bytes that tell where they are. */
static void fill_pattern(char *p, size_t bytes, unsigned int seed)
{
	for (size_t i = 0; i < bytes; i++)
		p[i] = seed + i * 7 + i / PAGE;
}

static blkcnt_t blocks(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? -1 : st.st_blocks;
}

static loff_t size_of(int fd)
{
	return cow_stat(fd).length;
}

/* ------------------------------------------------------------- both handles */

FIXTURE(handle) {
	int fd;		/* of a buffer of LENGTH bytes, all hole */
	char *map;	/* of all of it, never touched */
};

FIXTURE_VARIANT(handle) {
	bool device;
};

FIXTURE_VARIANT_ADD(handle, device) { .device = true };
FIXTURE_VARIANT_ADD(handle, file) { .device = false };

FIXTURE_SETUP(handle)
{
	self->fd = variant->device ? cow_open() : cow_create(LENGTH, "file");
	ASSERT_GE(self->fd, 0)
		TH_LOG("/dev/cowmem: %s", strerror(-self->fd));
	self->map = cow_map(self->fd, LENGTH, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->map, MAP_FAILED);
	ASSERT_EQ(size_of(self->fd), LENGTH);
}

FIXTURE_TEARDOWN(handle)
{
	munmap(self->map, LENGTH);
	close(self->fd);
}

TEST_F(handle, write_is_seen_by_read_and_mapping)
{
	static char text[3 * PAGE], back[3 * PAGE];

	fill_pattern(text, sizeof(text), 1);
	EXPECT_EQ(write(self->fd, text, sizeof(text)), sizeof(text));
	EXPECT_EQ(lseek(self->fd, 0, SEEK_CUR), sizeof(text));
	EXPECT_EQ(lseek(self->fd, 0, SEEK_SET), 0);
	EXPECT_EQ(read(self->fd, back, sizeof(back)), sizeof(back));
	EXPECT_EQ(memcmp(text, back, sizeof(text)), 0);
	EXPECT_EQ(memcmp(text, self->map, sizeof(text)), 0);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_CUR), sizeof(text));
}

TEST_F(handle, mapping_is_seen_by_read)
{
	static char back[LENGTH];

	fill_pattern(self->map, LENGTH, 2);
	EXPECT_EQ(read(self->fd, back, LENGTH), LENGTH);
	EXPECT_EQ(memcmp(back, self->map, LENGTH), 0);
}

TEST_F(handle, pread_and_pwrite_at_any_offset_leave_the_position)
{
	static char text[PAGE + 10], back[PAGE + 10];

	fill_pattern(text, sizeof(text), 3);
	EXPECT_EQ(pwrite(self->fd, text, sizeof(text), PAGE - 5), sizeof(text));
	EXPECT_EQ(pread(self->fd, back, sizeof(back), PAGE - 5), sizeof(back));
	EXPECT_EQ(memcmp(text, back, sizeof(text)), 0);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_CUR), 0);
	EXPECT_TRUE(has(self->fd, 0, 0, PAGE - 5));
	EXPECT_TRUE(has(self->fd, 2 * PAGE + 5, 0, PAGE));
}

TEST_F(handle, readv_and_writev_gather_and_scatter)
{
	char a[] = "one", b[] = "", c[] = "three", x[4], y[4];
	struct iovec out[] = { { a, 3 }, { b, 0 }, { c, 5 } };
	struct iovec in[] = { { x, 4 }, { y, 4 } };

	EXPECT_EQ(writev(self->fd, out, 3), 8);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_SET), 0);
	EXPECT_EQ(readv(self->fd, in, 2), 8);
	EXPECT_EQ(memcmp(x, "onet", 4), 0);
	EXPECT_EQ(memcmp(y, "hree", 4), 0);
}

TEST_F(handle, preadv_and_pwritev_across_a_page_boundary)
{
	char a[] = "abcd", x[3], y[5];
	struct iovec out[] = { { a, 4 }, { a, 4 } };
	struct iovec in[] = { { x, 3 }, { y, 5 } };

	EXPECT_EQ(pwritev(self->fd, out, 2, PAGE - 4), 8);
	EXPECT_EQ(preadv(self->fd, in, 2, PAGE - 4), 8);
	EXPECT_EQ(memcmp(x, "abc", 3), 0);
	EXPECT_EQ(memcmp(y, "dabcd", 5), 0);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_CUR), 0);
}

TEST_F(handle, preadv2_with_offset_minus_1_uses_the_position)
{
	char a[] = "abcd", x[4] = "";
	struct iovec out = { a, 4 }, in = { x, 4 };

	EXPECT_EQ(pwritev2(self->fd, &out, 1, -1, 0), 4);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_CUR), 4);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_SET), 0);
	EXPECT_EQ(preadv2(self->fd, &in, 1, -1, 0), 4);
	EXPECT_EQ(memcmp(x, a, 4), 0);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_CUR), 4);
}

TEST_F(handle, pwritev2_RWF_APPEND_goes_to_the_end)
{
	char a[] = "abcd";
	struct iovec out = { a, 4 };

	EXPECT_EQ(pwritev2(self->fd, &out, 1, 0, RWF_APPEND), 4);
	EXPECT_EQ(size_of(self->fd), LENGTH + 4);
	EXPECT_TRUE(has(self->fd, 0, 0, 4));
	EXPECT_TRUE(has(self->fd, LENGTH + 1, 'b', 1));
}

TEST_F(handle, RWF_DSYNC_and_SYNC_are_taken)
{
	char a[] = "abcd";
	struct iovec out = { a, 4 };

	EXPECT_EQ(pwritev2(self->fd, &out, 1, 0, RWF_DSYNC), 4);
	EXPECT_EQ(pwritev2(self->fd, &out, 1, 4, RWF_SYNC), 4);
	EXPECT_TRUE(has(self->fd, 4, 'a', 1));
}

/* Refused or right: a NOWAIT read must not say that there is nothing. */
TEST_F(handle, RWF_NOWAIT_is_refused_or_works)
{
	char a[4] = "abcd", x[4];
	struct iovec out = { a, 4 }, in = { x, 4 };
	long got;

	ASSERT_EQ(pwritev(self->fd, &out, 1, 0), 4);
	got = ret(preadv2(self->fd, &in, 1, 0, RWF_NOWAIT));
	EXPECT_TRUE(got == -EOPNOTSUPP || got == 4);
	got = ret(pwritev2(self->fd, &out, 1, 8, RWF_NOWAIT));
	EXPECT_TRUE(got == -EOPNOTSUPP || got == 4);
	EXPECT_EQ(size_of(self->fd), LENGTH);
}

TEST_F(handle, O_APPEND_writes_at_the_end_wherever_the_position_is)
{
	int flags = fcntl(self->fd, F_GETFL);

	ASSERT_EQ(fcntl(self->fd, F_SETFL, flags | O_APPEND), 0);
	EXPECT_EQ(write(self->fd, "xy", 2), 2);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_CUR), LENGTH + 2);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_SET), 0);
	EXPECT_EQ(write(self->fd, "z", 1), 1);
	EXPECT_EQ(pwrite(self->fd, "z", 1, 5), 1);
	EXPECT_EQ(size_of(self->fd), LENGTH + 4);
	EXPECT_TRUE(has(self->fd, LENGTH + 2, 'z', 2));
	EXPECT_TRUE(has(self->fd, 0, 0, 6));
}

TEST_F(handle, position_is_shared_by_dup)
{
	int fd = dup(self->fd);

	ASSERT_GE(fd, 0);
	EXPECT_EQ(write(fd, "abc", 3), 3);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_CUR), 3);
	EXPECT_EQ(write(self->fd, "d", 1), 1);
	EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 4);
	close(fd);
}

TEST_F(handle, position_is_separate_after_FILE)
{
	int fd;

	ASSERT_EQ(write(self->fd, "abc", 3), 3);
	fd = cow_file(self->fd, 0);
	ASSERT_GE(fd, 0);
	EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 0);
	EXPECT_EQ(write(fd, "xyz12", 5), 5);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_CUR), 3);
	EXPECT_EQ(memcmp(self->map, "xyz12", 5), 0);
	close(fd);
}

TEST_F(handle, read_is_short_at_the_end_and_0_behind)
{
	static char text[LENGTH];

	EXPECT_EQ(pread(self->fd, text, LENGTH, PAGE), LENGTH - PAGE);
	EXPECT_EQ(pread(self->fd, text, 10, LENGTH - 3), 3);
	EXPECT_EQ(pread(self->fd, text, 10, LENGTH), 0);
	EXPECT_EQ(pread(self->fd, text, 10, LENGTH + 100 * PAGE), 0);
	EXPECT_EQ(pread(self->fd, text, 10, INT64_MAX - 4096), 0);
	EXPECT_EQ(pread(self->fd, text, 0, 0), 0);
}

TEST_F(handle, negative_offsets_are_EINVAL)
{
	char c;

	EXPECT_EQ(ret(pread(self->fd, &c, 1, -1)), -EINVAL);
	EXPECT_EQ(ret(pwrite(self->fd, &c, 1, -1)), -EINVAL);
	EXPECT_EQ(ret(lseek(self->fd, -1, SEEK_SET)), -EINVAL);
	EXPECT_EQ(ret(lseek(self->fd, -1, SEEK_CUR)), -EINVAL);
	EXPECT_EQ(ret(lseek(self->fd, -LENGTH - 1, SEEK_END)), -EINVAL);
	EXPECT_EQ(ret(lseek(self->fd, 0, 77)), -EINVAL);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_CUR), 0);
}

TEST_F(handle, write_beyond_the_end_makes_a_hole)
{
	EXPECT_EQ(pwrite(self->fd, "x", 1, LENGTH + 5 * PAGE + 7), 1);
	EXPECT_EQ(size_of(self->fd), LENGTH + 5 * PAGE + 8);
	EXPECT_TRUE(has(self->fd, LENGTH, 0, 5 * PAGE + 7));
	EXPECT_TRUE(has(self->fd, LENGTH + 5 * PAGE + 7, 'x', 1));
	EXPECT_EQ(cow_stat(self->fd).resident, PAGE);
}

TEST_F(handle, write_of_nothing_changes_nothing)
{
	EXPECT_EQ(pwrite(self->fd, "x", 0, LENGTH + PAGE), 0);
	EXPECT_EQ(size_of(self->fd), LENGTH);
	EXPECT_EQ(cow_stat(self->fd).resident, 0);
}

TEST_F(handle, holes_read_as_zero_and_cost_nothing)
{
	EXPECT_TRUE(has(self->fd, 0, 0, LENGTH));
	EXPECT_TRUE(all_bytes(self->map, 0, LENGTH));
	EXPECT_EQ(cow_stat(self->fd).resident, 0);
	self->map[0] = 1;
	EXPECT_EQ(cow_stat(self->fd).resident, PAGE);
	EXPECT_TRUE(has(self->fd, 1, 0, LENGTH - 1));
}

/* Not known to the compiler as NULL. */
static char *volatile null;

/* A page that cannot be read, with one that can before it. */
static char *half_readable(void)
{
	char *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	memset(p, 's', PAGE);
	mprotect(p + PAGE, PAGE, PROT_NONE);
	return p;
}

TEST_F(handle, write_from_a_bad_address_is_EFAULT_and_changes_nothing)
{
	char *bad = half_readable();

	ASSERT_NE(bad, NULL);
	memset(self->map, 'o', PAGE);
	EXPECT_EQ(ret(pwrite(self->fd, bad + PAGE, 100, 0)), -EFAULT);
	EXPECT_EQ(ret(pwrite(self->fd, null, 100, 0)), -EFAULT);
	EXPECT_EQ(ret(pwrite(self->fd, bad + PAGE, PAGE, LENGTH + PAGE)), -EFAULT);
	EXPECT_EQ(ret(write(self->fd, bad + PAGE, 1)), -EFAULT);
	EXPECT_EQ(size_of(self->fd), LENGTH);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_CUR), 0);
	EXPECT_EQ(cow_stat(self->fd).resident, PAGE);
	EXPECT_TRUE(all_bytes(self->map, 'o', PAGE));
	munmap(bad, 2 * PAGE);
}

TEST_F(handle, write_that_runs_into_a_bad_address_is_short)
{
	char *bad = half_readable();
	long done;

	ASSERT_NE(bad, NULL);
	done = ret(pwrite(self->fd, bad + PAGE - 100, 200, 50));
	EXPECT_EQ(done, 100);
	EXPECT_TRUE(all_bytes(self->map + 50, 's', 100));
	EXPECT_TRUE(all_bytes(self->map + 150, 0, LENGTH - 150));
	/* A whole page, then nothing of the next. */
	EXPECT_EQ(ret(pwrite(self->fd, bad, 2 * PAGE, 2 * PAGE)), PAGE);
	EXPECT_TRUE(all_bytes(self->map + 3 * PAGE, 0, PAGE));
	munmap(bad, 2 * PAGE);
}

TEST_F(handle, short_write_beyond_the_end_grows_by_what_was_written)
{
	char *bad = half_readable();

	ASSERT_NE(bad, NULL);
	EXPECT_EQ(ret(pwrite(self->fd, bad + PAGE - 10, 100, LENGTH + 5)), 10);
	EXPECT_EQ(size_of(self->fd), LENGTH + 15);
	munmap(bad, 2 * PAGE);
}

TEST_F(handle, read_to_a_bad_address_is_EFAULT_or_short)
{
	char *bad = half_readable();

	ASSERT_NE(bad, NULL);
	fill_pattern(self->map, LENGTH, 5);
	EXPECT_EQ(ret(pread(self->fd, bad + PAGE, 100, 0)), -EFAULT);
	EXPECT_EQ(ret(read(self->fd, null, 100)), -EFAULT);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_CUR), 0);
	EXPECT_EQ(ret(read(self->fd, bad, 2 * PAGE)), PAGE);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_CUR), PAGE);
	EXPECT_EQ(memcmp(bad, self->map, PAGE), 0);
	munmap(bad, 2 * PAGE);
}

struct unmapper {
	char *page;
	volatile bool stop;
};

static void *unmap_and_map(void *data)
{
	struct unmapper *u = data;

	while (!u->stop) {
		mprotect(u->page, PAGE, PROT_NONE);
		mprotect(u->page, PAGE, PROT_READ);
	}
	return NULL;
}

/* Nothing written, nothing grown; else what was written is there. */
TEST_F(handle, write_whose_source_comes_and_goes_grows_by_its_count)
{
	struct unmapper u = { .page = self->map };
	time_t end = time(NULL) + 3;
	pthread_t thread;

	self->map[0] = 'm';
	ASSERT_EQ(pthread_create(&thread, NULL, unmap_and_map, &u), 0);
	for (int i = 0; i < 1500 && time(NULL) < end; i++) {
		loff_t before = size_of(self->fd);
		long done = ret(pwrite(self->fd, self->map, 1, before + 9));

		if (done == 1) {
			ASSERT_EQ(size_of(self->fd), before + 10);
		} else {
			ASSERT_EQ(done, -EFAULT);
			ASSERT_EQ(size_of(self->fd), before);
		}
	}
	u.stop = true;
	pthread_join(thread, NULL);
}

/* write() from a mapping of the same buffer: locks are held on both sides. */

TEST_F(handle, write_from_the_same_page)
{
	fill_pattern(self->map, PAGE, 6);
	EXPECT_EQ(pwrite(self->fd, self->map, PAGE, 0), PAGE);
	for (int i = 0; i < PAGE; i++)
		ASSERT_EQ(self->map[i], (char)(6 + i * 7));
	EXPECT_EQ(pwrite(self->fd, self->map, 100, 200), 100);
	EXPECT_EQ(memcmp(self->map, self->map + 200, 100), 0);
}

TEST_F(handle, write_from_a_hole_of_the_same_buffer)
{
	self->map[5 * PAGE] = 'x';
	EXPECT_EQ(pwrite(self->fd, self->map + PAGE, PAGE, 5 * PAGE), PAGE);
	EXPECT_TRUE(has(self->fd, 0, 0, LENGTH));
	/* And from a hole to itself. */
	EXPECT_EQ(pwrite(self->fd, self->map + 2 * PAGE, PAGE, 2 * PAGE), PAGE);
	EXPECT_TRUE(has(self->fd, 0, 0, LENGTH));
	EXPECT_EQ(cow_stat(self->fd).resident, 2 * PAGE);
}

TEST_F(handle, write_from_a_page_that_is_not_faulted_in)
{
	static char text[PAGE];

	fill_pattern(text, PAGE, 8);
	ASSERT_EQ(pwrite(self->fd, text, PAGE, 3 * PAGE), PAGE);
	EXPECT_EQ(pwrite(self->fd, self->map + 3 * PAGE, PAGE, 6 * PAGE), PAGE);
	EXPECT_EQ(memcmp(self->map + 6 * PAGE, text, PAGE), 0);
	/* To the page itself, through a new mapping. */
	ASSERT_EQ(madvise(self->map, LENGTH, MADV_DONTNEED), 0);
	EXPECT_EQ(pwrite(self->fd, self->map + 3 * PAGE, PAGE, 3 * PAGE), PAGE);
	EXPECT_EQ(memcmp(self->map + 3 * PAGE, text, PAGE), 0);
}

TEST_F(handle, write_from_the_buffer_to_a_page_before)
{
	static char want[LENGTH];

	fill_pattern(self->map, LENGTH, 9);
	memcpy(want, self->map, LENGTH);
	memmove(want, want + 100, 3 * PAGE);
	EXPECT_EQ(pwrite(self->fd, self->map + 100, 3 * PAGE, 0), 3 * PAGE);
	EXPECT_EQ(memcmp(self->map, want, LENGTH), 0);
}

TEST_F(handle, write_from_the_buffer_beyond_its_end_doubles_it)
{
	static char want[LENGTH];

	fill_pattern(self->map, LENGTH, 10);
	memcpy(want, self->map, LENGTH);
	EXPECT_EQ(pwrite(self->fd, self->map, LENGTH, LENGTH), LENGTH);
	EXPECT_EQ(pread(self->fd, want, LENGTH, LENGTH), LENGTH);
	EXPECT_EQ(memcmp(self->map, want, LENGTH), 0);
	EXPECT_EQ(size_of(self->fd), 2 * LENGTH);
}

TEST_F(handle, write_from_the_mapping_beyond_the_end_is_EFAULT)
{
	char *beyond = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, self->fd, LENGTH);

	ASSERT_NE(beyond, MAP_FAILED);
	EXPECT_EQ(ret(pwrite(self->fd, beyond, 1, 0)), -EFAULT);
	EXPECT_EQ(ret(pwrite(self->fd, beyond, 1, LENGTH + 100)), -EFAULT);
	EXPECT_EQ(size_of(self->fd), LENGTH);
	munmap(beyond, PAGE);
}

TEST_F(handle, write_after_a_snapshot_from_and_to_shared_pages)
{
	static char before[LENGTH], want[LENGTH], back[LENGTH];
	int snap;

	fill_pattern(self->map, LENGTH, 11);
	memcpy(before, self->map, LENGTH);
	memcpy(want, before, LENGTH);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	/* Another page, the same page, and both across a boundary. */
	EXPECT_EQ(pwrite(self->fd, self->map, PAGE, PAGE), PAGE);
	memcpy(want + PAGE, want, PAGE);
	EXPECT_EQ(pwrite(self->fd, self->map + 2 * PAGE, 50, 2 * PAGE + 60), 50);
	memcpy(want + 2 * PAGE + 60, want + 2 * PAGE, 50);
	EXPECT_EQ(pwrite(self->fd, self->map + 5 * PAGE - 9, 20, 6 * PAGE - 9), 20);
	memcpy(want + 6 * PAGE - 9, want + 5 * PAGE - 9, 20);
	EXPECT_EQ(memcmp(self->map, want, LENGTH), 0);
	EXPECT_EQ(pread(snap, back, LENGTH, 0), LENGTH);
	EXPECT_EQ(memcmp(back, before, LENGTH), 0);
	close(snap);
}

TEST_F(handle, write_from_a_mapping_of_a_snapshot)
{
	char *old;
	int snap;

	fill_pattern(self->map, LENGTH, 12);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	old = cow_map(snap, LENGTH, PROT_READ);
	ASSERT_NE(old, MAP_FAILED);
	memset(self->map, 'x', LENGTH);
	EXPECT_EQ(pwrite(self->fd, old, LENGTH, 0), LENGTH);
	EXPECT_EQ(memcmp(self->map, old, LENGTH), 0);
	munmap(old, LENGTH);
	close(snap);
}

TEST_F(handle, read_into_a_mapping_of_the_same_buffer)
{
	fill_pattern(self->map, PAGE, 13);
	/* The same page, a hole, and a part that overlaps. */
	EXPECT_EQ(pread(self->fd, self->map, PAGE, 0), PAGE);
	EXPECT_EQ(pread(self->fd, self->map + 3 * PAGE, PAGE, 0), PAGE);
	EXPECT_EQ(memcmp(self->map, self->map + 3 * PAGE, PAGE), 0);
	EXPECT_EQ(pread(self->fd, self->map + 3 * PAGE + 50, 100, 100), 100);
	EXPECT_EQ(memcmp(self->map + 100, self->map + 3 * PAGE + 50, 100), 0);
	EXPECT_EQ(pread(self->fd, self->map, PAGE, 6 * PAGE), PAGE);
	EXPECT_TRUE(has(self->fd, 0, 0, PAGE));
}

TEST_F(handle, read_after_a_snapshot_into_a_shared_page)
{
	int snap;

	memset(self->map, 'a', PAGE);
	memset(self->map + PAGE, 'b', PAGE);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(pread(self->fd, self->map, PAGE, PAGE), PAGE);
	EXPECT_EQ(pread(snap, self->map + 2 * PAGE, PAGE, 0), PAGE);
	EXPECT_TRUE(has(self->fd, 0, 'b', PAGE));
	EXPECT_TRUE(has(self->fd, 2 * PAGE, 'a', PAGE));
	EXPECT_TRUE(has(snap, 0, 'a', PAGE));
	EXPECT_TRUE(has(snap, 2 * PAGE, 0, PAGE));
	close(snap);
}

/* lseek() */

TEST_F(handle, SEEK_END_and_CUR_are_relative)
{
	EXPECT_EQ(lseek(self->fd, 0, SEEK_END), LENGTH);
	EXPECT_EQ(lseek(self->fd, -10, SEEK_END), LENGTH - 10);
	EXPECT_EQ(lseek(self->fd, 4, SEEK_CUR), LENGTH - 6);
	EXPECT_EQ(lseek(self->fd, 3 * LENGTH, SEEK_SET), 3 * LENGTH);
	EXPECT_EQ(lseek(self->fd, 5, SEEK_END), LENGTH + 5);
	EXPECT_EQ(write(self->fd, "x", 1), 1);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_END), LENGTH + 6);
}

TEST_F(handle, seeking_beyond_the_largest_size_is_EINVAL)
{
	loff_t max = cow_query().max_size;

	EXPECT_EQ(lseek(self->fd, max, SEEK_SET), max);
	EXPECT_EQ(ret(lseek(self->fd, max + 1, SEEK_SET)), -EINVAL);
	EXPECT_EQ(ret(lseek(self->fd, INT64_MAX, SEEK_SET)), -EINVAL);
}

TEST_F(handle, SEEK_DATA_and_HOLE_at_and_beyond_the_end_are_ENXIO)
{
	self->map[LENGTH - 1] = 1;
	EXPECT_EQ(lseek(self->fd, 5, SEEK_SET), 5);
	EXPECT_EQ(ret(lseek(self->fd, LENGTH, SEEK_DATA)), -ENXIO);
	EXPECT_EQ(ret(lseek(self->fd, LENGTH, SEEK_HOLE)), -ENXIO);
	EXPECT_EQ(ret(lseek(self->fd, LENGTH + 1, SEEK_DATA)), -ENXIO);
	EXPECT_EQ(ret(lseek(self->fd, INT64_MAX, SEEK_HOLE)), -ENXIO);
	EXPECT_EQ(ret(lseek(self->fd, -1, SEEK_DATA)), -ENXIO);
	EXPECT_EQ(ret(lseek(self->fd, -1, SEEK_HOLE)), -ENXIO);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_CUR), 5);
}

TEST_F(handle, SEEK_DATA_without_data_is_ENXIO)
{
	self->map[0] = 1;
	EXPECT_EQ(lseek(self->fd, 0, SEEK_DATA), 0);
	EXPECT_EQ(lseek(self->fd, 7, SEEK_DATA), 7);
	EXPECT_EQ(ret(lseek(self->fd, PAGE, SEEK_DATA)), -ENXIO);
	EXPECT_EQ(lseek(self->fd, 7, SEEK_HOLE), PAGE);
	EXPECT_EQ(lseek(self->fd, PAGE + 3, SEEK_HOLE), PAGE + 3);
}

TEST_F(handle, SEEK_HOLE_without_hole_is_the_end)
{
	memset(self->map, 1, LENGTH);
	EXPECT_EQ(lseek(self->fd, 9, SEEK_HOLE), LENGTH);
	ASSERT_EQ(pwrite(self->fd, "x", 1, LENGTH + 9), 1);
	EXPECT_EQ(lseek(self->fd, 9, SEEK_HOLE), LENGTH + 10);
	EXPECT_EQ(lseek(self->fd, LENGTH + 2, SEEK_DATA), LENGTH + 2);
}

TEST_F(handle, fsync_and_fdatasync_work)
{
	self->map[0] = 1;
	EXPECT_EQ(fsync(self->fd), 0);
	EXPECT_EQ(fdatasync(self->fd), 0);
	EXPECT_EQ(msync(self->map, LENGTH, MS_SYNC), 0);
	EXPECT_EQ(sync_file_range(self->fd, 0, PAGE, SYNC_FILE_RANGE_WRITE),
		  variant->device ? -1 : 0);
}

TEST_F(handle, poll_says_ready)
{
	struct pollfd p = { .fd = self->fd, .events = POLLIN | POLLOUT };

	EXPECT_EQ(poll(&p, 1, 0), 1);
	EXPECT_EQ(p.revents, POLLIN | POLLOUT);
}

/* Pipes and sockets: what is in them is out of the buffer's hands. */

TEST_F(handle, splice_to_a_pipe_is_a_copy)
{
	static char want[2 * PAGE], got[2 * PAGE];
	int p[2];
	loff_t offset = 100;

	ASSERT_EQ(pipe(p), 0);
	fill_pattern(self->map, LENGTH, 14);
	memcpy(want, self->map + 100, sizeof(want));
	/* It may be short: a kernel with page_owner moves a page at a time. */
	while (offset < 100 + sizeof(want))
		ASSERT_GT(splice(self->fd, &offset, p[1], NULL,
				 100 + sizeof(want) - offset, 0), 0);
	EXPECT_EQ(offset, 100 + sizeof(want));
	memset(self->map, 'x', LENGTH);
	ASSERT_EQ(pwrite(self->fd, got, sizeof(got), 100), sizeof(got));
	ASSERT_EQ(read(p[0], got, sizeof(got)), sizeof(got));
	EXPECT_EQ(memcmp(got, want, sizeof(got)), 0);
	pipe_close(p);
}

TEST_F(handle, splice_of_a_hole_is_zeros)
{
	static char got[PAGE];
	int p[2];

	ASSERT_EQ(pipe(p), 0);
	ASSERT_EQ(splice(self->fd, NULL, p[1], NULL, PAGE, 0), PAGE);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_CUR), PAGE);
	memset(self->map, 'x', LENGTH);
	ASSERT_EQ(read(p[0], got, PAGE), PAGE);
	EXPECT_TRUE(all_bytes(got, 0, PAGE));
	pipe_close(p);
}

TEST_F(handle, splice_from_a_pipe_writes)
{
	static char text[2 * PAGE];
	loff_t offset = PAGE + 33;
	int p[2];

	ASSERT_EQ(pipe(p), 0);
	fill_pattern(text, sizeof(text), 15);
	ASSERT_EQ(write(p[1], text, sizeof(text)), sizeof(text));
	EXPECT_EQ(splice(p[0], NULL, self->fd, &offset, sizeof(text), 0),
		  sizeof(text));
	EXPECT_EQ(memcmp(self->map + PAGE + 33, text, sizeof(text)), 0);
	EXPECT_EQ(offset, PAGE + 33 + sizeof(text));
	pipe_close(p);
}

TEST_F(handle, splice_at_the_end_is_0)
{
	loff_t offset = LENGTH;
	int p[2];

	ASSERT_EQ(pipe(p), 0);
	EXPECT_EQ(splice(self->fd, &offset, p[1], NULL, PAGE, 0), 0);
	pipe_close(p);
}

TEST_F(handle, splice_through_a_pipe_to_another_buffer)
{
	int fd = cow_create(0, "to"), p[2];
	static char back[LENGTH];
	loff_t from = 0, to = 0;

	ASSERT_GE(fd, 0);
	ASSERT_EQ(pipe(p), 0);
	fill_pattern(self->map, LENGTH, 16);
	while (from < LENGTH) {
		ssize_t n = splice(self->fd, &from, p[1], NULL, LENGTH, 0);

		ASSERT_GT(n, 0);
		ASSERT_EQ(splice(p[0], NULL, fd, &to, n, 0), n);
	}
	ASSERT_EQ(pread(fd, back, LENGTH, 0), LENGTH);
	EXPECT_EQ(memcmp(back, self->map, LENGTH), 0);
	pipe_close(p);
	close(fd);
}

TEST_F(handle, sendfile_to_a_socket_is_a_copy)
{
	static char want[2 * PAGE], got[2 * PAGE];
	off_t offset = 77;
	int s[2];

	ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	fill_pattern(self->map, LENGTH, 17);
	memcpy(want, self->map + 77, sizeof(want));
	ASSERT_EQ(sendfile(s[1], self->fd, &offset, sizeof(want)), sizeof(want));
	memset(self->map, 'x', LENGTH);
	ASSERT_EQ(recv(s[0], got, sizeof(got), MSG_WAITALL), sizeof(got));
	EXPECT_EQ(memcmp(got, want, sizeof(got)), 0);
	close(s[0]);
	close(s[1]);
}

TEST_F(handle, sendfile_to_a_pipe_is_a_copy)
{
	static char got[PAGE];
	off_t offset = 0;
	int p[2];

	ASSERT_EQ(pipe(p), 0);
	memset(self->map, 'a', PAGE);
	ASSERT_EQ(sendfile(p[1], self->fd, &offset, PAGE), PAGE);
	memset(self->map, 'b', PAGE);
	ASSERT_EQ(read(p[0], got, PAGE), PAGE);
	EXPECT_TRUE(all_bytes(got, 'a', PAGE));
	pipe_close(p);
}

TEST_F(handle, sendfile_to_another_buffer)
{
	int fd = cow_create(0, "to");
	static char back[LENGTH];
	off_t offset = 0;

	ASSERT_GE(fd, 0);
	fill_pattern(self->map, LENGTH, 18);
	ASSERT_EQ(sendfile(fd, self->fd, &offset, LENGTH), LENGTH);
	ASSERT_EQ(pread(fd, back, LENGTH, 0), LENGTH);
	EXPECT_EQ(memcmp(back, self->map, LENGTH), 0);
	self->map[0]++;
	EXPECT_EQ(pread(fd, back, 1, 0), 1);
	EXPECT_NE(back[0], self->map[0]);
	close(fd);
}

/* Limits */

TEST_F(handle, write_beyond_the_largest_size_is_EFBIG)
{
	loff_t max = cow_query().max_size;

	EXPECT_EQ(ret(pwrite(self->fd, "x", 1, max)), -EFBIG);
	EXPECT_EQ(ret(pwrite(self->fd, "x", 1, max + 100)), -EFBIG);
	EXPECT_EQ(size_of(self->fd), LENGTH);
}

TEST_F(handle, write_across_the_largest_size_is_short)
{
	loff_t max = cow_query().max_size;

	EXPECT_EQ(ret(pwrite(self->fd, "xyz", 3, max - 2)), 2);
	EXPECT_EQ(size_of(self->fd), max);
	EXPECT_TRUE(has(self->fd, max - 2, 'x', 1));
	EXPECT_EQ(lseek(self->fd, 0, SEEK_DATA), max - PAGE);
	EXPECT_EQ(cow_stat(self->fd).resident, PAGE);
}

TEST_F(handle, write_beyond_RLIMIT_FSIZE_is_EFBIG)
{
	struct rlimit limit = { LENGTH + 10, LENGTH + 10 };

	signal(SIGXFSZ, SIG_IGN);
	ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
	EXPECT_EQ(ret(pwrite(self->fd, "x", 1, LENGTH + 10)), -EFBIG);
	EXPECT_EQ(size_of(self->fd), LENGTH);
	EXPECT_EQ(ret(pwrite(self->fd, "xyz", 3, LENGTH + 8)), 2);
	EXPECT_EQ(size_of(self->fd), LENGTH + 10);
}

TEST_F(handle, mapping_beyond_the_largest_size_fails)
{
	loff_t max = cow_query().max_size;
	long err;

	errno = 0;
	EXPECT_EQ(mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, self->fd,
		       max - PAGE), MAP_FAILED);
	err = errno;
	EXPECT_TRUE(err == EOVERFLOW || err == EFBIG);
	EXPECT_EQ(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, self->fd,
		       INT64_MAX & ~(PAGE - 1)), MAP_FAILED);
	err = errno;
	EXPECT_TRUE(err == EOVERFLOW || err == EFBIG);
	EXPECT_EQ(size_of(self->fd), LENGTH);
}

TEST_F(handle, mapping_executable_is_EPERM)
{
	char *p;

	EXPECT_EQ(mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, self->fd,
		       0), MAP_FAILED);
	EXPECT_EQ(errno, EPERM);
	EXPECT_EQ(mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, self->fd,
		       0), MAP_FAILED);
	EXPECT_EQ(errno, EPERM);
	p = cow_map(self->fd, PAGE, PROT_READ);
	ASSERT_NE(p, MAP_FAILED);
	EXPECT_EQ(ret(mprotect(p, PAGE, PROT_READ | PROT_EXEC)), -EACCES);
	munmap(p, PAGE);
}

/* What /proc tells */

/* The value behind "@key:\t" in fdinfo, as text. */
static const char *fdinfo(int fd, const char *key)
{
	static char text[4096];
	char path[64], *p;
	ssize_t n;
	int info;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = open(path, O_RDONLY);
	n = read(info, text, sizeof(text) - 1);
	close(info);
	text[n > 0 ? n : 0] = '\0';
	p = strstr(text, key);
	if (!p)
		return "missing";
	p += strlen(key) + strlen(":\t");
	p[strcspn(p, "\n")] = '\0';
	return p;
}

TEST_F(handle, fdinfo_agrees_with_STAT)
{
	struct cowmem_stat st;
	int snap;

	memset(self->map, 1, 3 * PAGE);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	self->map[0] = 2;
	close(snap);
	self->map[PAGE] = 2;
	st = cow_stat(self->fd);
	EXPECT_EQ(atoll(fdinfo(self->fd, "cowmem-id")), st.id);
	EXPECT_EQ(atoll(fdinfo(self->fd, "cowmem-account")), st.account);
	EXPECT_EQ(atoll(fdinfo(self->fd, "cowmem-size")), st.length);
	EXPECT_EQ(atoll(fdinfo(self->fd, "cowmem-resident")), st.resident);
	EXPECT_EQ(atoll(fdinfo(self->fd, "cowmem-charged")), st.charged);
	EXPECT_EQ(atoll(fdinfo(self->fd, "cowmem-faults")), st.faults);
	EXPECT_EQ(atoll(fdinfo(self->fd, "cowmem-filled")), st.filled);
	EXPECT_EQ(atoll(fdinfo(self->fd, "cowmem-copied")), st.copied);
	EXPECT_EQ(atoll(fdinfo(self->fd, "cowmem-reused")), st.reused);
	EXPECT_EQ(atoll(fdinfo(self->fd, "cowmem-held")), st.held);
	EXPECT_EQ(atoll(fdinfo(self->fd, "cowmem-snapshots")), st.snapshots);
	EXPECT_EQ(st.copied, 1);
	EXPECT_EQ(st.reused, 1);
	EXPECT_STREQ(fdinfo(self->fd, "cowmem-state"), "live");
	EXPECT_STREQ(fdinfo(self->fd, "cowmem-name"),
		     variant->device ? "" : "file");
}

/* -------------------------------------------------------------- files alone */

FIXTURE(file) {
	int fd;		/* of a buffer of LENGTH bytes, all hole */
	char *map;
};

FIXTURE_SETUP(file)
{
	self->fd = cow_create(LENGTH, "file");
	ASSERT_GE(self->fd, 0)
		TH_LOG("/dev/cowmem: %s", strerror(-self->fd));
	self->map = cow_map(self->fd, LENGTH, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->map, MAP_FAILED);
}

FIXTURE_TEARDOWN(file)
{
	munmap(self->map, LENGTH);
	close(self->fd);
}

TEST_F(file, fstat_shows_size_mode_and_owner)
{
	struct stat st;

	ASSERT_EQ(fstat(self->fd, &st), 0);
	EXPECT_EQ(st.st_size, LENGTH);
	EXPECT_EQ(st.st_mode, S_IFREG | 0600);
	EXPECT_EQ(st.st_uid, geteuid());
	EXPECT_EQ(st.st_gid, getegid());
	EXPECT_EQ(st.st_blksize, PAGE);
	EXPECT_EQ(st.st_nlink, 0);
	EXPECT_EQ(st.st_blocks, 0);
}

TEST_F(file, fstat_shows_the_creator_not_the_reader)
{
	int p[2], status;
	pid_t pid;

	ASSERT_EQ(pipe(p), 0);
	/* The device is root's: a handle of it is passed on by fork. */
	pid = fork();
	if (!pid) {
		struct stat st;
		int fd;

		if (!become_nobody())
			_exit(2);
		fd = cow_create_on(self->fd, 0, NULL, 0);
		if (fd < 0)
			_exit(3);
		_exit(fstat(fd, &st) || st.st_uid != NOBODY ||
		      st.st_gid != NOBODY || st.st_mode != (S_IFREG | 0600));
	}
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(status, 0);
}

TEST_F(file, two_buffers_are_two_inodes_of_one_device)
{
	int fd = cow_create(0, "other"), same = cow_file(self->fd, 0);
	struct stat a, b, c;

	ASSERT_EQ(fstat(self->fd, &a), 0);
	ASSERT_EQ(fstat(fd, &b), 0);
	ASSERT_EQ(fstat(same, &c), 0);
	EXPECT_EQ(a.st_dev, b.st_dev);
	EXPECT_NE(a.st_ino, b.st_ino);
	EXPECT_EQ(a.st_ino, c.st_ino);
	close(same);
	close(fd);
}

TEST_F(file, st_blocks_counts_resident_pages)
{
	int snap;

	self->map[0] = 1;
	self->map[3 * PAGE] = 1;
	EXPECT_EQ(blocks(self->fd), 2 * PAGE / 512);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(blocks(snap), 2 * PAGE / 512);
	self->map[0] = 2;
	self->map[5 * PAGE] = 1;
	EXPECT_EQ(blocks(self->fd), 3 * PAGE / 512);
	EXPECT_EQ(blocks(snap), 2 * PAGE / 512);
	ASSERT_EQ(ftruncate(self->fd, PAGE + 1), 0);
	EXPECT_EQ(blocks(self->fd), PAGE / 512);
	EXPECT_EQ(blocks(snap), 2 * PAGE / 512);
	close(snap);
}

TEST_F(file, write_and_truncate_touch_mtime_and_ctime)
{
	struct timespec past[2] = { { 1000, 0 }, { 1000, 0 } };
	struct stat st;

	ASSERT_EQ(futimens(self->fd, past), 0);
	ASSERT_EQ(write(self->fd, "x", 1), 1);
	ASSERT_EQ(fstat(self->fd, &st), 0);
	EXPECT_GT(st.st_mtim.tv_sec, 1000);
	ASSERT_EQ(futimens(self->fd, past), 0);
	ASSERT_EQ(ftruncate(self->fd, PAGE), 0);
	ASSERT_EQ(fstat(self->fd, &st), 0);
	EXPECT_GT(st.st_mtim.tv_sec, 1000);
}

TEST_F(file, ftruncate_cuts_and_grows_with_holes)
{
	memset(self->map, 'x', LENGTH);
	ASSERT_EQ(ftruncate(self->fd, 2 * PAGE), 0);
	EXPECT_EQ(size_of(self->fd), 2 * PAGE);
	EXPECT_EQ(cow_stat(self->fd).resident, 2 * PAGE);
	EXPECT_EQ(COW_TRY(*(volatile char *)(self->map + 2 * PAGE)), SIGBUS);
	ASSERT_EQ(ftruncate(self->fd, LENGTH), 0);
	EXPECT_TRUE(has(self->fd, 0, 'x', 2 * PAGE));
	EXPECT_TRUE(has(self->fd, 2 * PAGE, 0, LENGTH - 2 * PAGE));
	EXPECT_TRUE(all_bytes(self->map + 2 * PAGE, 0, LENGTH - 2 * PAGE));
	EXPECT_EQ(cow_stat(self->fd).resident, 2 * PAGE);
}

TEST_F(file, ftruncate_to_0_and_back)
{
	memset(self->map, 'x', LENGTH);
	ASSERT_EQ(ftruncate(self->fd, 0), 0);
	EXPECT_EQ(blocks(self->fd), 0);
	ASSERT_EQ(ftruncate(self->fd, LENGTH), 0);
	EXPECT_TRUE(has(self->fd, 0, 0, LENGTH));
}

TEST_F(file, ftruncate_zeroes_the_tail_of_the_last_page)
{
	memset(self->map, 'x', LENGTH);
	ASSERT_EQ(ftruncate(self->fd, PAGE + 100), 0);
	/* Through the mapping it is zero at once. */
	EXPECT_TRUE(all_bytes(self->map + PAGE, 'x', 100));
	EXPECT_TRUE(all_bytes(self->map + PAGE + 100, 0, PAGE - 100));
	ASSERT_EQ(ftruncate(self->fd, LENGTH), 0);
	EXPECT_TRUE(has(self->fd, 0, 'x', PAGE + 100));
	EXPECT_TRUE(has(self->fd, PAGE + 100, 0, LENGTH - PAGE - 100));
}

TEST_F(file, ftruncate_hides_stores_beyond_the_end)
{
	ASSERT_EQ(ftruncate(self->fd, PAGE + 100), 0);
	memset(self->map + PAGE, 'y', PAGE);
	ASSERT_EQ(ftruncate(self->fd, LENGTH), 0);
	EXPECT_TRUE(has(self->fd, PAGE, 'y', 100));
	EXPECT_TRUE(has(self->fd, PAGE + 100, 0, LENGTH - PAGE - 100));
	EXPECT_TRUE(all_bytes(self->map + PAGE + 100, 0, PAGE));
}

TEST_F(file, write_beyond_the_end_hides_stores_beyond_the_end)
{
	ASSERT_EQ(ftruncate(self->fd, PAGE + 100), 0);
	memset(self->map + PAGE, 'y', PAGE);
	ASSERT_EQ(pwrite(self->fd, "z", 1, PAGE + 200), 1);
	EXPECT_TRUE(has(self->fd, PAGE, 'y', 100));
	EXPECT_TRUE(has(self->fd, PAGE + 100, 0, 100));
	EXPECT_TRUE(has(self->fd, PAGE + 200, 'z', 1));
	ASSERT_EQ(ftruncate(self->fd, LENGTH), 0);
	EXPECT_TRUE(has(self->fd, PAGE + 201, 0, LENGTH - PAGE - 201));
}

TEST_F(file, clone_that_grows_hides_stores_beyond_the_end)
{
	int clone;

	ASSERT_EQ(ftruncate(self->fd, 100), 0);
	memset(self->map, 'y', PAGE);
	clone = cow_snapshot(self->fd, COWMEM_WRITABLE);
	ASSERT_GE(clone, 0);
	ASSERT_EQ(ftruncate(clone, PAGE), 0);
	EXPECT_TRUE(has(clone, 0, 'y', 100));
	EXPECT_TRUE(has(clone, 100, 0, PAGE - 100));
	/* The origin's page is its own affair. */
	EXPECT_EQ(self->map[200], 'y');
	close(clone);
}

TEST_F(file, ftruncate_leaves_a_snapshot_alone)
{
	int snap;

	memset(self->map, 'x', LENGTH);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	ASSERT_EQ(ftruncate(self->fd, 100), 0);
	EXPECT_EQ(size_of(snap), LENGTH);
	EXPECT_TRUE(has(snap, 0, 'x', LENGTH));
	ASSERT_EQ(ftruncate(self->fd, LENGTH), 0);
	EXPECT_TRUE(has(self->fd, 100, 0, LENGTH - 100));
	EXPECT_TRUE(has(snap, 0, 'x', LENGTH));
	close(snap);
}

TEST_F(file, ftruncate_cuts_private_copies)
{
	char *priv = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE,
			  self->fd, 0);

	ASSERT_NE(priv, MAP_FAILED);
	memset(priv, 'p', LENGTH);
	ASSERT_EQ(ftruncate(self->fd, PAGE), 0);
	EXPECT_EQ(COW_TRY(*(volatile char *)(priv + PAGE)), SIGBUS);
	ASSERT_EQ(ftruncate(self->fd, LENGTH), 0);
	EXPECT_EQ(priv[PAGE], 0);
	EXPECT_EQ(priv[0], 'p');
	munmap(priv, LENGTH);
}

TEST_F(file, ftruncate_of_bad_sizes)
{
	loff_t max = cow_query().max_size;

	EXPECT_EQ(ret(ftruncate(self->fd, -1)), -EINVAL);
	EXPECT_EQ(ret(ftruncate(self->fd, max + 1)), -EFBIG);
	EXPECT_EQ(ret(ftruncate(self->fd, INT64_MAX)), -EFBIG);
	EXPECT_EQ(size_of(self->fd), LENGTH);
	EXPECT_EQ(ftruncate(self->fd, max), 0);
	EXPECT_EQ(size_of(self->fd), max);
}

TEST_F(file, ftruncate_beyond_RLIMIT_FSIZE_is_EFBIG)
{
	struct rlimit limit = { LENGTH + 10, LENGTH + 10 };

	signal(SIGXFSZ, SIG_IGN);
	ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
	EXPECT_EQ(ret(ftruncate(self->fd, LENGTH + 11)), -EFBIG);
	EXPECT_EQ(size_of(self->fd), LENGTH);
	EXPECT_EQ(ftruncate(self->fd, LENGTH + 10), 0);
}

TEST_F(file, ftruncate_of_a_device_handle_is_EINVAL)
{
	int fd = cow_open();

	ASSERT_GE(fd, 0);
	EXPECT_EQ(ret(ftruncate(fd, PAGE)), -EINVAL);
	EXPECT_EQ(size_of(fd), 0);
	close(fd);
}

TEST_F(file, truncate_through_proc)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->fd);
	self->map[0] = 1;
	EXPECT_EQ(truncate(path, 10), 0);
	EXPECT_EQ(size_of(self->fd), 10);
}

/* Random pages against a plain array, with odd sizes. */
TEST_F(file, SEEK_DATA_and_HOLE_agree_with_a_model)
{
	enum { N = 600 };
	static bool data[N];
	unsigned int seed = 1;

	for (int round = 0; round < 8; round++) {
		loff_t size = (N - 1) * PAGE + rand_r(&seed) % PAGE + 1;
		int fd = cow_create(size, "seek");

		ASSERT_GE(fd, 0);
		memset(data, 0, sizeof(data));
		for (int i = 0, at = 0; i < 40; i++) {
			int run = rand_r(&seed) % (round < 4 ? 3 : 30) + 1;

			at = rand_r(&seed) % N;
			for (; run-- && at < N; at++) {
				ASSERT_EQ(pwrite(fd, "x", 1, at * PAGE), 1);
				data[at] = true;
			}
		}
		size = size_of(fd);
		for (int i = 0; i < N; i++) {
			loff_t from = i * PAGE + rand_r(&seed) % PAGE;
			int d = i, h = i;

			if (from >= size)
				from = i * PAGE;
			while (d < N && !data[d])
				d++;
			while (h < N && data[h])
				h++;
			ASSERT_EQ(ret(lseek(fd, from, SEEK_DATA)),
				  d == N ? -ENXIO :
				  d == i ? from : d * PAGE);
			ASSERT_EQ(ret(lseek(fd, from, SEEK_HOLE)),
				  h == N ? size :
				  h == i ? from : h * PAGE);
		}
		close(fd);
	}
}

TEST_F(file, SEEK_DATA_finds_one_page_far_away)
{
	loff_t far = 1LL << 50;

	ASSERT_EQ(pwrite(self->fd, "x", 1, far + 5), 1);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_DATA), far);
	EXPECT_EQ(lseek(self->fd, far, SEEK_HOLE), far + 6);
	EXPECT_EQ(lseek(self->fd, 3, SEEK_HOLE), 3);
	EXPECT_EQ(blocks(self->fd), PAGE / 512);
}

TEST_F(file, SEEK_DATA_is_the_same_in_a_snapshot)
{
	int snap;

	self->map[2 * PAGE] = 1;
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	self->map[0] = 1;
	EXPECT_EQ(lseek(snap, 0, SEEK_DATA), 2 * PAGE);
	EXPECT_EQ(lseek(snap, 2 * PAGE, SEEK_HOLE), 3 * PAGE);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_DATA), 0);
	close(snap);
}

/* Opening it again */

TEST_F(file, reopened_file_is_the_same_buffer_with_its_own_position)
{
	int fd = reopen(self->fd, O_RDWR);

	ASSERT_GE(fd, 0);
	EXPECT_EQ(cow_stat(fd).id, cow_stat(self->fd).id);
	ASSERT_EQ(write(fd, "abc", 3), 3);
	EXPECT_EQ(lseek(self->fd, 0, SEEK_CUR), 0);
	EXPECT_EQ(memcmp(self->map, "abc", 3), 0);
	close(fd);
}

TEST_F(file, reopened_file_outlives_the_first)
{
	int fd = reopen(self->fd, O_RDWR);

	ASSERT_GE(fd, 0);
	self->map[0] = 'x';
	munmap(self->map, LENGTH);
	close(self->fd);
	EXPECT_TRUE(has(fd, 0, 'x', 1));
	self->fd = fd;
	self->map = cow_map(fd, LENGTH, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->map, MAP_FAILED);
	EXPECT_EQ(self->map[0], 'x');
}

TEST_F(file, reopened_read_only_cannot_write)
{
	int fd = reopen(self->fd, O_RDONLY);

	ASSERT_GE(fd, 0);
	EXPECT_EQ(ret(write(fd, "x", 1)), -EBADF);
	EXPECT_EQ(ret(ftruncate(fd, 0)), -EINVAL);
	EXPECT_EQ(cow_map(fd, PAGE, PROT_READ | PROT_WRITE), MAP_FAILED);
	EXPECT_EQ(errno, EACCES);
	EXPECT_TRUE(has(fd, 0, 0, LENGTH));
	close(fd);
}

TEST_F(file, reopened_write_only_cannot_read)
{
	int fd = reopen(self->fd, O_WRONLY);
	char c;

	ASSERT_GE(fd, 0);
	EXPECT_EQ(ret(read(fd, &c, 1)), -EBADF);
	EXPECT_EQ(write(fd, "x", 1), 1);
	EXPECT_EQ(cow_map(fd, PAGE, PROT_READ), MAP_FAILED);
	EXPECT_EQ(errno, EACCES);
	EXPECT_TRUE(has(self->fd, 0, 'x', 1));
	close(fd);
}

TEST_F(file, reopened_with_O_TRUNC_is_empty)
{
	int fd;

	self->map[0] = 'x';
	fd = reopen(self->fd, O_RDWR | O_TRUNC);
	ASSERT_GE(fd, 0);
	EXPECT_EQ(size_of(self->fd), 0);
	EXPECT_EQ(blocks(self->fd), 0);
	close(fd);
}

TEST_F(file, reopened_with_O_APPEND_appends)
{
	int fd = reopen(self->fd, O_WRONLY | O_APPEND);

	ASSERT_GE(fd, 0);
	EXPECT_EQ(write(fd, "x", 1), 1);
	EXPECT_EQ(size_of(self->fd), LENGTH + 1);
	close(fd);
}

TEST_F(file, reopened_with_O_DIRECT_is_refused_or_works)
{
	int fd = reopen(self->fd, O_RDWR | O_DIRECT);
	static char text[PAGE] __attribute__((aligned(4096)));

	if (fd == -EINVAL)
		return;
	ASSERT_GE(fd, 0);
	memset(text, 'd', PAGE);
	EXPECT_EQ(pwrite(fd, text, PAGE, PAGE), PAGE);
	EXPECT_TRUE(all_bytes(self->map + PAGE, 'd', PAGE));
	EXPECT_EQ(pread(fd, text, PAGE, 0), PAGE);
	EXPECT_TRUE(all_bytes(text, 0, PAGE));
	close(fd);
}

TEST_F(file, path_that_is_created_exclusively_is_EEXIST)
{
	EXPECT_EQ(reopen(self->fd, O_RDWR | O_CREAT | O_EXCL), -EEXIST);
	EXPECT_EQ(reopen(self->fd, O_RDONLY | O_DIRECTORY), -ENOTDIR);
}

/* What reopen() returns to another uid: 0 or -errno. */
static int reopen_as_nobody(int fd, int flags)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		int err;

		if (!become_nobody())
			_exit(255);
		err = reopen(fd, flags);
		_exit(err < 0 ? -err : 0);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -ECHILD;
	return -WEXITSTATUS(status);
}

TEST_F(file, another_uid_cannot_reopen_it)
{
	EXPECT_EQ(reopen_as_nobody(self->fd, O_RDONLY), -EACCES);
	EXPECT_EQ(reopen_as_nobody(self->fd, O_WRONLY), -EACCES);
	EXPECT_EQ(reopen_as_nobody(self->fd, O_RDWR), -EACCES);
	EXPECT_EQ(reopen_as_nobody(self->fd, O_RDONLY | O_TRUNC), -EACCES);
}

TEST_F(file, chmod_0644_lets_another_uid_read)
{
	ASSERT_EQ(fchmod(self->fd, 0644), 0);
	EXPECT_EQ(reopen_as_nobody(self->fd, O_RDONLY), 0);
	EXPECT_EQ(reopen_as_nobody(self->fd, O_RDWR), -EACCES);
	EXPECT_EQ(reopen_as_nobody(self->fd, O_RDONLY | O_TRUNC), -EACCES);
	EXPECT_EQ(size_of(self->fd), LENGTH);
}

TEST_F(file, chown_gives_it_to_another_uid)
{
	struct stat st;

	ASSERT_EQ(fchown(self->fd, NOBODY, NOBODY), 0);
	ASSERT_EQ(fstat(self->fd, &st), 0);
	EXPECT_EQ(st.st_uid, NOBODY);
	EXPECT_EQ(reopen_as_nobody(self->fd, O_RDWR), 0);
}

TEST_F(file, snapshot_has_its_own_mode)
{
	int snap;

	ASSERT_EQ(fchmod(self->fd, 0644), 0);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(reopen_as_nobody(snap, O_RDONLY), -EACCES);
	close(snap);
}

TEST_F(file, another_uid_keeps_using_an_fd_that_it_was_given)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		if (!become_nobody())
			_exit(2);
		_exit(pwrite(self->fd, "n", 1, 0) != 1 ||
		      cow_snapshot(self->fd, 0) < 0 ||
		      cow_file(self->fd, 0) < 0);
	}
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(status, 0);
	EXPECT_EQ(self->map[0], 'n');
}

/* Whoever writes without the right to keep it drops the set-uid bit. */
TEST_F(file, write_by_another_uid_drops_set_uid)
{
	struct stat st;
	int status;
	pid_t pid;

	ASSERT_EQ(fchmod(self->fd, 04777), 0);
	pid = fork();
	if (!pid) {
		if (!become_nobody())
			_exit(2);
		_exit(pwrite(self->fd, "n", 1, 0) != 1);
	}
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(status, 0);
	ASSERT_EQ(fstat(self->fd, &st), 0);
	EXPECT_EQ(st.st_mode, S_IFREG | 0777);
}

TEST_F(file, linking_it_to_a_name_fails)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->fd);
	EXPECT_EQ(linkat(self->fd, "", AT_FDCWD, "/tmp/cowmem-link",
			 AT_EMPTY_PATH), -1);
	EXPECT_TRUE(errno == EXDEV || errno == ENOENT);
	EXPECT_EQ(linkat(AT_FDCWD, path, AT_FDCWD, "/tmp/cowmem-link",
			 AT_SYMLINK_FOLLOW), -1);
	EXPECT_TRUE(errno == EXDEV || errno == ENOENT);
	EXPECT_EQ(access("/tmp/cowmem-link", F_OK), -1);
}

/* Names */

static bool maps_has(const char *text)
{
	char line[512];
	bool found = false;
	FILE *f = fopen("/proc/self/maps", "r");

	while (f && fgets(line, sizeof(line), f))
		found |= !!strstr(line, text);
	if (f)
		fclose(f);
	return found;
}

static const char *link_of(int fd)
{
	static char text[256];
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

TEST_F(file, name_shows_in_maps_and_in_the_link)
{
	int snap, unnamed = cow_create(0, NULL);
	struct cowmem_snapshot arg = {
		.size = sizeof(arg), .name = "base of all",
	};

	EXPECT_STREQ(link_of(self->fd), "/cowmem:file (deleted)");
	EXPECT_TRUE(maps_has(" /cowmem:file (deleted)\n"));
	EXPECT_STREQ(link_of(unnamed), "/cowmem: (deleted)");
	snap = cow_snapshot(self->fd, 0);
	EXPECT_STREQ(link_of(snap), "/cowmem:file (deleted)");
	ASSERT_EQ(cow_ioctl(self->fd, COWMEM_SNAPSHOT, &arg), 0);
	EXPECT_STREQ(link_of(arg.fd), "/cowmem:base of all (deleted)");
	close(arg.fd);
	close(snap);
	close(unnamed);
}

TEST_F(file, name_with_a_newline_does_not_break_fdinfo)
{
	int fd = cow_create(0, "a\nb\\c");

	ASSERT_GE(fd, 0);
	EXPECT_STREQ(fdinfo(fd, "cowmem-name"), "a\\012b\\134c");
	close(fd);
}

TEST_F(file, fdinfo_of_a_snapshot_says_frozen)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	EXPECT_STREQ(fdinfo(snap, "cowmem-state"), "frozen");
	close(snap);
}

/* Locks: between open files of one buffer, as on any file. */

TEST_F(file, flock_conflicts_between_opens)
{
	int fd = reopen(self->fd, O_RDWR), other = cow_create(0, "other");

	ASSERT_GE(fd, 0);
	EXPECT_EQ(flock(self->fd, LOCK_EX | LOCK_NB), 0);
	EXPECT_EQ(ret(flock(fd, LOCK_SH | LOCK_NB)), -EWOULDBLOCK);
	EXPECT_EQ(flock(other, LOCK_EX | LOCK_NB), 0);
	EXPECT_EQ(flock(self->fd, LOCK_UN), 0);
	EXPECT_EQ(flock(fd, LOCK_SH | LOCK_NB), 0);
	EXPECT_EQ(flock(self->fd, LOCK_SH | LOCK_NB), 0);
	close(other);
	close(fd);
}

TEST_F(file, OFD_locks_conflict_between_opens_by_range)
{
	int fd = reopen(self->fd, O_RDWR);
	struct flock lock = { .l_type = F_WRLCK, .l_start = 10, .l_len = 10 };
	struct flock touch = { .l_type = F_RDLCK, .l_start = 19, .l_len = 1 };
	struct flock apart = { .l_type = F_WRLCK, .l_start = 20, .l_len = 1 };

	ASSERT_GE(fd, 0);
	EXPECT_EQ(fcntl(self->fd, F_OFD_SETLK, &lock), 0);
	EXPECT_EQ(ret(fcntl(fd, F_OFD_SETLK, &touch)), -EAGAIN);
	EXPECT_EQ(fcntl(fd, F_OFD_SETLK, &apart), 0);
	lock.l_type = F_UNLCK;
	EXPECT_EQ(fcntl(self->fd, F_OFD_SETLK, &lock), 0);
	EXPECT_EQ(fcntl(fd, F_OFD_SETLK, &touch), 0);
	close(fd);
}

TEST_F(file, POSIX_locks_conflict_between_processes)
{
	struct flock lock = { .l_type = F_WRLCK, .l_len = 10 };
	int fd = reopen(self->fd, O_RDWR), status;
	pid_t pid;

	ASSERT_GE(fd, 0);
	ASSERT_EQ(fcntl(self->fd, F_SETLK, &lock), 0);
	pid = fork();
	if (!pid) {
		struct flock get = lock;

		if (ret(fcntl(fd, F_SETLK, &lock)) != -EAGAIN)
			_exit(1);
		if (fcntl(fd, F_GETLK, &get) || get.l_pid != getppid())
			_exit(2);
		lock.l_start = 10;
		_exit(fcntl(fd, F_SETLK, &lock) ? 3 : 0);
	}
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(status, 0);
	/* Any close by the process drops its locks. */
	close(fd);
	lock.l_start = 0;
	fd = reopen(self->fd, O_RDWR);
	EXPECT_EQ(fcntl(fd, F_OFD_SETLK, &(struct flock) {
			.l_type = F_WRLCK, .l_len = 10 }), 0);
	close(fd);
}

TEST_F(file, lock_of_a_closed_file_is_gone)
{
	int fd = reopen(self->fd, O_RDWR);

	ASSERT_GE(fd, 0);
	EXPECT_EQ(flock(fd, LOCK_EX | LOCK_NB), 0);
	EXPECT_EQ(ret(flock(self->fd, LOCK_EX | LOCK_NB)), -EWOULDBLOCK);
	close(fd);
	EXPECT_EQ(flock(self->fd, LOCK_EX | LOCK_NB), 0);
}

/* Copies by the kernel */

TEST_F(file, copy_file_range_copies_between_buffers)
{
	int fd = cow_create(0, "to");
	static char back[3 * PAGE];
	off64_t from = 100, to = 50;
	ssize_t done = 0, n = 1;

	ASSERT_GE(fd, 0);
	fill_pattern(self->map, LENGTH, 19);
	while (n > 0 && done < sizeof(back)) {
		n = copy_file_range(self->fd, &from, fd, &to,
				    sizeof(back) - done, 0);
		done += n;
	}
	ASSERT_EQ(done, sizeof(back))
		TH_LOG("%s", strerror(errno));
	EXPECT_EQ(from, 100 + sizeof(back));
	EXPECT_EQ(pread(fd, back, sizeof(back), 50), sizeof(back));
	EXPECT_EQ(memcmp(back, self->map + 100, sizeof(back)), 0);
	EXPECT_EQ(size_of(fd), 50 + sizeof(back));
	/* And they stay apart. */
	memset(self->map, 'x', LENGTH);
	EXPECT_TRUE(has(self->fd, 0, 'x', LENGTH));
	EXPECT_EQ(pread(fd, self->map, sizeof(back), 50), sizeof(back));
	EXPECT_EQ(memcmp(back, self->map, sizeof(back)), 0);
	close(fd);
}

TEST_F(file, copy_file_range_within_a_buffer)
{
	static char want[LENGTH];
	off64_t from = 0, to = 4 * PAGE;

	fill_pattern(self->map, LENGTH, 20);
	memcpy(want, self->map, LENGTH);
	memcpy(want + 4 * PAGE, want, 2 * PAGE);
	ASSERT_EQ(copy_file_range(self->fd, &from, self->fd, &to, 2 * PAGE, 0),
		  2 * PAGE);
	EXPECT_EQ(memcmp(self->map, want, LENGTH), 0);
	from = 0;
	to = PAGE;
	EXPECT_EQ(ret(copy_file_range(self->fd, &from, self->fd, &to,
				      2 * PAGE, 0)), -EINVAL);
	EXPECT_EQ(memcmp(self->map, want, LENGTH), 0);
}

TEST_F(file, copy_file_range_to_a_frozen_buffer_fails)
{
	int snap = cow_snapshot(self->fd, 0);
	off64_t from = 0, to = 0;

	ASSERT_GE(snap, 0);
	self->map[0] = 'x';
	EXPECT_EQ(ret(copy_file_range(self->fd, &from, snap, &to, PAGE, 0)),
		  -EBADF);
	EXPECT_TRUE(has(snap, 0, 0, LENGTH));
	close(snap);
}

TEST_F(file, seals_leases_and_xattrs_are_those_of_a_plain_file)
{
	EXPECT_EQ(ret(fcntl(self->fd, F_GET_SEALS)), -EINVAL);
	EXPECT_EQ(fcntl(self->fd, F_GETLEASE), F_UNLCK);
	EXPECT_EQ(posix_fadvise(self->fd, 0, 0, POSIX_FADV_SEQUENTIAL), 0);
}

TEST_F(file, readahead_and_fadvise_do_no_harm)
{
	fill_pattern(self->map, LENGTH, 21);
	readahead(self->fd, 0, LENGTH);
	posix_fadvise(self->fd, 0, LENGTH, POSIX_FADV_WILLNEED);
	posix_fadvise(self->fd, 0, LENGTH, POSIX_FADV_DONTNEED);
	for (int i = 0; i < LENGTH; i++)
		ASSERT_EQ(self->map[i], (char)(21 + i * 7 + i / PAGE));
}

TEST_F(file, cannot_be_executed)
{
	static const char script[] = "#!/bin/sh\nexit 0\n";
	char path[64];
	char * const argv[] = { "x", NULL };

	ASSERT_EQ(pwrite(self->fd, script, sizeof(script) - 1, 0),
		  sizeof(script) - 1);
	ASSERT_EQ(fchmod(self->fd, 0755), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->fd);
	EXPECT_EQ(execv(path, argv), -1);
	EXPECT_EQ(errno, EACCES);
}

/* ----------------------------------------------------------- frozen buffers */

FIXTURE(frozen) {
	int origin;
	int fd;		/* of a frozen snapshot, LENGTH bytes of 'f' */
};

FIXTURE_SETUP(frozen)
{
	static char text[LENGTH];

	memset(text, 'f', LENGTH);
	self->origin = cow_create(LENGTH, "origin");
	ASSERT_GE(self->origin, 0)
		TH_LOG("/dev/cowmem: %s", strerror(-self->origin));
	ASSERT_EQ(pwrite(self->origin, text, LENGTH, 0), LENGTH);
	self->fd = cow_snapshot(self->origin, 0);
	ASSERT_GE(self->fd, 0);
}

/* Whatever was tried, it is as it was. */
FIXTURE_TEARDOWN(frozen)
{
	EXPECT_EQ(size_of(self->fd), LENGTH);
	EXPECT_TRUE(has(self->fd, 0, 'f', LENGTH));
	close(self->fd);
	close(self->origin);
}

TEST_F(frozen, open_for_writing_is_EPERM_also_for_root)
{
	EXPECT_EQ(reopen(self->fd, O_RDWR), -EPERM);
	EXPECT_EQ(reopen(self->fd, O_WRONLY), -EPERM);
	EXPECT_EQ(reopen(self->fd, O_WRONLY | O_APPEND), -EPERM);
}

TEST_F(frozen, open_with_O_TRUNC_is_EPERM)
{
	EXPECT_EQ(reopen(self->fd, O_RDONLY | O_TRUNC), -EPERM);
	EXPECT_EQ(reopen(self->fd, O_RDWR | O_TRUNC), -EPERM);
}

TEST_F(frozen, open_for_reading_works)
{
	int fd = reopen(self->fd, O_RDONLY);

	ASSERT_GE(fd, 0);
	EXPECT_TRUE(has(fd, 0, 'f', LENGTH));
	close(fd);
}

TEST_F(frozen, write_is_EBADF)
{
	struct iovec iov = { "x", 1 };

	EXPECT_EQ(ret(write(self->fd, "x", 1)), -EBADF);
	EXPECT_EQ(ret(pwrite(self->fd, "x", 1, 0)), -EBADF);
	EXPECT_EQ(ret(pwritev2(self->fd, &iov, 1, 0, RWF_APPEND)), -EBADF);
}

TEST_F(frozen, splice_and_sendfile_to_it_are_EBADF)
{
	off_t offset = 0;
	int p[2];

	ASSERT_EQ(pipe(p), 0);
	ASSERT_EQ(write(p[1], "x", 1), 1);
	EXPECT_EQ(ret(splice(p[0], NULL, self->fd, NULL, 1, 0)), -EBADF);
	EXPECT_EQ(ret(sendfile(self->fd, self->origin, &offset, 1)), -EBADF);
	pipe_close(p);
}

TEST_F(frozen, truncate_is_EINVAL_by_handle_and_EPERM_by_path)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->fd);
	EXPECT_EQ(ret(ftruncate(self->fd, 0)), -EINVAL);
	EXPECT_EQ(ret(ftruncate(self->fd, 2 * LENGTH)), -EINVAL);
	EXPECT_EQ(ret(truncate(path, 0)), -EPERM);
}

TEST_F(frozen, fallocate_fails)
{
	EXPECT_EQ(ret(fallocate(self->fd, FALLOC_FL_PUNCH_HOLE |
				FALLOC_FL_KEEP_SIZE, 0, PAGE)), -EBADF);
}

TEST_F(frozen, chmod_and_chown_are_EPERM)
{
	struct stat st;

	EXPECT_EQ(ret(fchmod(self->fd, 0666)), -EPERM);
	EXPECT_EQ(ret(fchown(self->fd, NOBODY, NOBODY)), -EPERM);
	ASSERT_EQ(fstat(self->fd, &st), 0);
	EXPECT_EQ(st.st_mode, S_IFREG | 0600);
	EXPECT_EQ(st.st_uid, geteuid());
}

/* Thawing it, as chattr does. */
TEST_F(frozen, flag_cannot_be_taken_off)
{
	int flags = 0;

	EXPECT_NE(ioctl(self->fd, FS_IOC_SETFLAGS, &flags), 0);
	EXPECT_EQ(reopen(self->fd, O_RDWR), -EPERM);
}

TEST_F(frozen, O_RDWR_by_fcntl_is_not_taken)
{
	EXPECT_EQ(fcntl(self->fd, F_SETFL, O_RDWR), 0);
	EXPECT_EQ(fcntl(self->fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	EXPECT_EQ(ret(write(self->fd, "x", 1)), -EBADF);
}

TEST_F(frozen, shared_writable_mapping_is_EACCES)
{
	EXPECT_EQ(cow_map(self->fd, LENGTH, PROT_READ | PROT_WRITE), MAP_FAILED);
	EXPECT_EQ(errno, EACCES);
	EXPECT_EQ(cow_map(self->fd, LENGTH, PROT_WRITE), MAP_FAILED);
	EXPECT_EQ(errno, EACCES);
}

TEST_F(frozen, mprotect_to_writable_is_EACCES)
{
	char *p = cow_map(self->fd, LENGTH, PROT_READ);

	ASSERT_NE(p, MAP_FAILED);
	EXPECT_EQ(p[0], 'f');
	EXPECT_EQ(ret(mprotect(p, LENGTH, PROT_READ | PROT_WRITE)), -EACCES);
	EXPECT_EQ(COW_TRY(*(volatile char *)p = 'x'), SIGSEGV);
	munmap(p, LENGTH);
}

TEST_F(frozen, private_mapping_is_private)
{
	char *p = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE,
		       self->fd, 0);

	ASSERT_NE(p, MAP_FAILED);
	memset(p, 'p', LENGTH);
	EXPECT_TRUE(has(self->fd, 0, 'f', LENGTH));
	munmap(p, LENGTH);
}

/* A debugger's store ignores protection, but not what is frozen. */
TEST_F(frozen, store_through_proc_mem_fails)
{
	char *p = cow_map(self->fd, LENGTH, PROT_READ);
	int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);

	ASSERT_NE(p, MAP_FAILED);
	ASSERT_GE(mem, 0);
	EXPECT_EQ(p[0], 'f');
	EXPECT_EQ(pwrite(mem, "x", 1, (uintptr_t)p), -1);
	EXPECT_EQ(p[0], 'f');
	close(mem);
	munmap(p, LENGTH);
}

TEST_F(frozen, times_of_day_do_not_change_it)
{
	struct timespec times[2] = { { 1, 0 }, { 1, 0 } };
	struct stat before, after;

	ASSERT_EQ(fstat(self->fd, &before), 0);
	EXPECT_EQ(ret(futimens(self->fd, times)), -EPERM);
	ASSERT_EQ(fstat(self->fd, &after), 0);
	EXPECT_EQ(before.st_mtim.tv_sec, after.st_mtim.tv_sec);
}

/* ------------------------------------------------------ the device, and mmap */

TEST(mmap_sizes_an_empty_device_buffer)
{
	int fd = cow_open();
	char *p;

	ASSERT_GE(fd, 0);
	EXPECT_EQ(size_of(fd), 0);
	p = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		 2 * PAGE);
	ASSERT_NE(p, MAP_FAILED);
	EXPECT_EQ(size_of(fd), 5 * PAGE);
	p[3 * PAGE - 1] = 1;
	/* Only the first. */
	EXPECT_NE(cow_map(fd, LENGTH, PROT_READ), MAP_FAILED);
	EXPECT_EQ(size_of(fd), 5 * PAGE);
	close(fd);
}

TEST(failed_mmap_does_not_size_a_device_buffer)
{
	int fd = cow_open();

	ASSERT_GE(fd, 0);
	EXPECT_EQ(mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0),
		  MAP_FAILED);
	EXPECT_EQ(mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd,
		       cow_query().max_size - PAGE), MAP_FAILED);
	EXPECT_EQ(size_of(fd), 0);
	close(fd);
}

TEST(mmap_does_not_size_a_file)
{
	int fd = cow_create(0, "empty");
	char *p;

	ASSERT_GE(fd, 0);
	p = cow_map(fd, PAGE, PROT_READ | PROT_WRITE);
	ASSERT_NE(p, MAP_FAILED);
	EXPECT_EQ(size_of(fd), 0);
	EXPECT_EQ(COW_TRY(*(volatile char *)p = 1), SIGBUS);
	EXPECT_EQ(COW_TRY((void)*(volatile char *)p), SIGBUS);
	close(fd);
}

TEST(device_is_a_character_device_and_its_file_is_not)
{
	int fd = cow_open(), file;
	struct stat st;

	ASSERT_GE(fd, 0);
	ASSERT_EQ(fstat(fd, &st), 0);
	EXPECT_TRUE(S_ISCHR(st.st_mode));
	EXPECT_EQ(major(st.st_rdev), 10);
	file = cow_file(fd, 0);
	ASSERT_EQ(fstat(file, &st), 0);
	EXPECT_TRUE(S_ISREG(st.st_mode));
	EXPECT_EQ(st.st_mode & 0777, 0600);
	close(file);
	close(fd);
}

TEST(every_open_of_the_device_is_a_new_buffer)
{
	int a = cow_open(), b = cow_open();

	ASSERT_GE(a, 0);
	ASSERT_GE(b, 0);
	ASSERT_EQ(write(a, "a", 1), 1);
	EXPECT_EQ(size_of(b), 0);
	EXPECT_NE(cow_stat(a).id, cow_stat(b).id);
	/* That is also what opening its link does: ask FILE for the same. */
	close(b);
	b = reopen(a, O_RDWR);
	ASSERT_GE(b, 0);
	EXPECT_EQ(size_of(b), 0);
	close(b);
	close(a);
}

TEST(device_handle_and_its_file_share_mappings)
{
	int fd = cow_open(), file;
	char *p, *q;

	ASSERT_GE(fd, 0);
	p = cow_map(fd, LENGTH, PROT_READ | PROT_WRITE);
	ASSERT_NE(p, MAP_FAILED);
	file = cow_file(fd, 0);
	ASSERT_GE(file, 0);
	q = cow_map(file, LENGTH, PROT_READ | PROT_WRITE);
	ASSERT_NE(q, MAP_FAILED);
	p[0] = 'p';
	EXPECT_EQ(q[0], 'p');
	q[PAGE] = 'q';
	EXPECT_EQ(p[PAGE], 'q');
	ASSERT_EQ(ftruncate(file, PAGE), 0);
	EXPECT_EQ(COW_TRY((void)*(volatile char *)(p + PAGE)), SIGBUS);
	EXPECT_EQ(lseek(fd, 0, SEEK_END), PAGE);
	close(file);
	close(fd);
}

TEST_HARNESS_MAIN
