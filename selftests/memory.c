// SPDX-License-Identifier: GPL-2.0
/*
 * Whose memory it is, and what happens when it runs out or breaks: charging to
 * the cgroup that touches, OOM kills of the toucher alone, pages with a memory
 * error: EIO from each call that would have to read one.
 */
#include <linux/falloc.h>
#include <linux/fs.h>

#include "common.h"
#include "harness.h"
#include "util.h"

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

#define MIB	(1L << 20)
#define GROUP	"/sys/fs/cgroup/cowmem-test"
/* What is to be charged, and what else may be: the kernel charges in batches. */
#define TOUCHED	(8 * MIB)
#define SLACK	(4 * MIB)

/* False: there is no memory controller in cgroup v2. */
static bool make_group(void)
{
	write_file("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
	return (!mkdir(GROUP, 0755) || errno == EEXIST) &&
	       read_number(GROUP "/memory.current") >= 0;
}

/* For the calling process. */
static bool join_group(void)
{
	return write_file(GROUP "/cgroup.procs", "0");
}

/* Bytes charged to the group, but for @before of them. */
static long charged(long before)
{
	return read_number(GROUP "/memory.current") - before;
}

/* Is no more than a little left?  Some is given back a while later. */
static bool uncharged(long before)
{
	int try;

	for (try = 0; try < 50; try++) {
		if (charged(before) < SLACK)
			return true;
		usleep(100000);
	}
	return false;
}

/* What may make pages: each writes to the whole range, or fills it. */

static bool touch_by_store(int fd, size_t offset, size_t length)
{
	char *p = cow_map(fd, offset + length, RW);

	if (p == MAP_FAILED)
		return false;
	memset(p + offset, 1, length);
	return true;
}

static bool touch_by_write(int fd, size_t offset, size_t length)
{
	static char data[MIB];
	size_t end = offset + length;

	memset(data, 1, sizeof(data));
	for (; offset < end; offset += MIB)
		if (pwrite(fd, data, MIB, offset) != MIB)
			return false;
	return true;
}

static bool touch_by_fallocate(int fd, size_t offset, size_t length)
{
	return !fallocate(fd, FALLOC_FL_UNSHARE_RANGE, offset, length);
}

/* In a child, in the group or not: its wait status. */
static int touch_in_child(int fd, bool in_group,
			  bool (*touch)(int fd, size_t offset, size_t length),
			  size_t offset, size_t length)
{
	return CHILD(_exit((!in_group || join_group()) &&
			   touch(fd, offset, length) ? 0 : 1));
}

/*
 * What is in a page at first: memory that was given back soon comes again
 */

#define NR_FRESH	64UL

static bool leave_dirt(void)
{
	char *p;
	int fd = cow_create_mapped(NR_FRESH * PAGE, "dirt", &p);

	if (fd < 0)
		return false;
	memset(p, '!', NR_FRESH * PAGE);
	munmap(p, NR_FRESH * PAGE);
	close(fd);
	return true;
}

/* Is that all there is: @first at the start of each page, then zeroes? */
static bool pages_are_fresh(int fd, char first)
{
	char page[PAGE];
	unsigned long i;

	for (i = 0; i < NR_FRESH; i++) {
		if (pread(fd, page, PAGE, i * PAGE) != PAGE || page[0] != first)
			return false;
		page[0] = 0;
		if (!page_is(page, 0))
			return false;
	}
	return pages_of(fd) == NR_FRESH;
}

TEST(page_of_a_store_is_zeroed)
{
	unsigned long i;
	char *p;
	int fd;

	ASSERT_TRUE(leave_dirt());
	fd = cow_create_mapped(NR_FRESH * PAGE, "stores", &p);
	ASSERT_GE(fd, 0);
	for (i = 0; i < NR_FRESH; i++)
		p[i * PAGE] = 'a';
	EXPECT_TRUE(pages_are_fresh(fd, 'a'));
	munmap(p, NR_FRESH * PAGE);
	close(fd);
}

TEST(page_of_a_write_is_zeroed)
{
	unsigned long i;
	int fd;

	ASSERT_TRUE(leave_dirt());
	fd = cow_create(NR_FRESH * PAGE, "writes");
	ASSERT_GE(fd, 0);
	for (i = 0; i < NR_FRESH; i++)
		ASSERT_TRUE(write_byte(fd, i * PAGE, 'a'));
	EXPECT_TRUE(pages_are_fresh(fd, 'a'));
	close(fd);
}

TEST(reserved_page_is_zeroed)
{
	int fd;

	NEED(FALLOCATE);
	ASSERT_TRUE(leave_dirt());
	fd = cow_create(NR_FRESH * PAGE, "reserved");
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, fallocate(fd, 0, 0, NR_FRESH * PAGE));
	EXPECT_TRUE(pages_are_fresh(fd, 0));
	close(fd);
}

/*
 * Who is charged
 */

FIXTURE(charge)
{
	int fd;
};

FIXTURE_VARIANT(charge)
{
	bool (*touch)(int fd, size_t offset, size_t length);
};

FIXTURE_VARIANT_ADD(charge, store) { touch_by_store };
FIXTURE_VARIANT_ADD(charge, write) { touch_by_write };
FIXTURE_VARIANT_ADD(charge, fallocate) { touch_by_fallocate };

FIXTURE_SETUP(charge)
{
	NEED(FALLOCATE);
	if (!make_group())
		SKIP(return, "no memory controller in cgroup v2");
	self->fd = cow_create(2 * TOUCHED, "charge");
	ASSERT_GE(self->fd, 0);
}

FIXTURE_TEARDOWN(charge)
{
	close(self->fd);
	rmdir(GROUP);
}

TEST_F(charge, toucher_is_charged_until_the_page_is_freed)
{
	long before = charged(0);

	ASSERT_EQ(0, touch_in_child(self->fd, false, variant->touch, 0,
				    TOUCHED));
	EXPECT_LT(charged(before), SLACK);
	ASSERT_EQ(0, touch_in_child(self->fd, true, variant->touch, TOUCHED,
				    TOUCHED));
	/* The process is gone, its pages are not. */
	EXPECT_GE(charged(before), TOUCHED - MIB);
	EXPECT_LT(charged(before), TOUCHED + SLACK);
	close(self->fd);
	EXPECT_TRUE(uncharged(before));
}

TEST_F(charge, copy_is_charged_to_who_makes_it_until_it_is_freed)
{
	long before;
	int snap;

	ASSERT_EQ(0, touch_in_child(self->fd, false, touch_by_store, 0,
				    TOUCHED));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	before = charged(0);
	ASSERT_EQ(0, touch_in_child(self->fd, true, variant->touch, 0, TOUCHED));
	EXPECT_GE(charged(before), TOUCHED - MIB);
	EXPECT_LT(charged(before), TOUCHED + SLACK);
	/* The snapshot has the old pages, which others pay. */
	close(self->fd);
	EXPECT_TRUE(uncharged(before));
	close(snap);
}

FIXTURE(cgroup)
{
	int fd;
};

FIXTURE_SETUP(cgroup)
{
	if (!make_group())
		SKIP(return, "no memory controller in cgroup v2");
	self->fd = cow_create(64 * MIB, "cgroup");
	ASSERT_GE(self->fd, 0);
}

FIXTURE_TEARDOWN(cgroup)
{
	close(self->fd);
	rmdir(GROUP);
}

/* Let a pipe have all of the mapping, which has been written. */
static bool pipe_hold_all(int pipefd[2], char *p, size_t length)
{
	struct iovec iov = { p, length };

	return !pipe(pipefd) && fcntl(pipefd[1], F_SETPIPE_SZ, length) >= 0 &&
	       vmsplice(pipefd[1], &iov, 1, 0) == length;
}

/* An exit status: 0 if all is well. */
static int snapshot_held_pages(int fd, long before)
{
	int snap;

	if (!join_group() || charged(before) >= SLACK)
		return 1;
	snap = cow_snapshot(fd, 0);
	if (snap < 0 || cow_stat(fd).held != TOUCHED / PAGE)
		return 2;
	if (charged(before) < TOUCHED - MIB ||
	    charged(before) >= TOUCHED + SLACK)
		return 3;
	close(snap);
	return uncharged(before) ? 0 : 4;
}

TEST_F(cgroup, copies_of_held_pages_are_charged_to_who_takes_the_snapshot)
{
	char *p = cow_map(self->fd, TOUCHED, RW);
	long before = charged(0);
	int pipefd[2];

	ASSERT_NE(MAP_FAILED, p);
	memset(p, 1, TOUCHED);
	ASSERT_TRUE(pipe_hold_all(pipefd, p, TOUCHED));
	EXPECT_EQ(0, CHILD(_exit(snapshot_held_pages(self->fd, before))))
		TH_LOG("see snapshot_held_pages()");
	pipe_close(pipefd);
}

/*
 * Out of memory
 */

TEST_F(cgroup, only_the_offender_is_killed_and_others_keep_their_content)
{
	int status;
	char *map;

	expect_noise();
	map = cow_map(self->fd, 64 * MIB, PROT_READ | PROT_WRITE);
	ASSERT_NE(map, MAP_FAILED);
	memset(map, 7, MIB);
	ASSERT_TRUE(write_file(GROUP "/memory.max", "16777216"));
	status = touch_in_child(self->fd, true, touch_by_store, 8 * MIB,
				48 * MIB);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	for (size_t i = 0; i < MIB; i += PAGE)
		ASSERT_EQ(map[i], 7);
	/* We are not in the group: for us there is memory. */
	map[63 * MIB] = 1;
	munmap(map, 64 * MIB);
}

/*
 * Pages with a memory error
 */

TEST(page_with_a_memory_error_is_refused_and_the_others_go_on)
{
	int fd = cow_create(4 * PAGE, "poison"), snap;
	unsigned long pfn;
	char *live, *then, c;

	ASSERT_GE(fd, 0);
	live = cow_map(fd, 4 * PAGE, PROT_READ | PROT_WRITE);
	ASSERT_NE(live, MAP_FAILED);
	memset(live, 1, 4 * PAGE);
	snap = cow_snapshot(fd, 0);
	ASSERT_GE(snap, 0);
	then = cow_map(snap, 4 * PAGE, PROT_READ);
	ASSERT_NE(then, MAP_FAILED);
	/* Map it for reading: that is what madvise() finds. */
	ASSERT_EQ(live[PAGE], 1);
	pfn = frame_of(live + PAGE);
	ASSERT_NE(pfn, 0);
	if (!poison(live + PAGE))
		SKIP(return, "kernel without MEMORY_FAILURE");
	/* Not mapped yet: must not become. */
	EXPECT_EQ(COW_TRY(c = *(volatile char *)(then + PAGE)), SIGBUS);
	EXPECT_EQ(pread(snap, &c, 1, PAGE), -1);
	EXPECT_EQ(errno, EIO);
	/* A store would have to copy it. */
	EXPECT_EQ(COW_TRY(*(volatile char *)(live + PAGE) = 2), SIGBUS);
	EXPECT_EQ(pwrite(fd, "x", 1, PAGE), -1);
	EXPECT_EQ(errno, EIO);
	for (int i = 0; i < 4; i++) {
		if (i == 1)
			continue;
		EXPECT_EQ(COW_TRY(live[i * PAGE] = 2), 0);
		EXPECT_EQ(then[i * PAGE], 1);
	}
	munmap(live, 4 * PAGE);
	munmap(then, 4 * PAGE);
	close(snap);
	close(fd);
	unpoison(pfn);
}

#define NR_SHARERS	4

/* The broken page is @broken of @nr, those from @first on of fill_pages(). */
static bool sharer_ok(int fd, unsigned long broken, unsigned long first,
		      unsigned long nr)
{
	char *p = cow_map(fd, nr * PAGE, PROT_READ), byte;
	unsigned long i;
	bool ok = p != MAP_FAILED;

	for (i = 0; ok && i < nr; i++) {
		if (i == broken)
			ok = load_signal(p + i * PAGE) == SIGBUS &&
			     ret(pread(fd, &byte, 1, i * PAGE)) == -EIO;
		else
			ok = page_is(p + i * PAGE, value_of(first + i)) &&
			     page_reads_as(fd, i, value_of(first + i));
	}
	munmap(p, nr * PAGE);
	return ok;
}

TEST(page_with_a_memory_error_is_refused_to_every_sharer)
{
	int fd, sharer[NR_SHARERS], given, i;
	unsigned long pfn;
	char *p;

	NEED(CLONE);
	NEED(RANGE);
	fd = cow_create_mapped(4 * PAGE, "shared", &p);
	ASSERT_GE(fd, 0);
	given = cow_create(0, "given");
	ASSERT_GE(given, 0);
	fill_pages(p, 4);
	sharer[0] = cow_snapshot(fd, 0);
	sharer[1] = cow_snapshot(fd, COWMEM_WRITABLE);
	sharer[2] = cow_snapshot(sharer[1], 0);
	sharer[3] = cow_snapshot_range(sharer[0], 0, PAGE, 2 * PAGE);
	for (i = 0; i < NR_SHARERS; i++)
		ASSERT_GE(sharer[i], 0);
	ASSERT_TRUE(pages_filled(p, 0, 4));
	pfn = frame_of(p + PAGE);
	ASSERT_NE(0, pfn);
	if (!poison(p + PAGE))
		SKIP(return, "kernel without MEMORY_FAILURE");
	munmap(p, 4 * PAGE);
	EXPECT_TRUE(sharer_ok(fd, 1, 0, 4));
	for (i = 0; i < 3; i++)
		EXPECT_TRUE(sharer_ok(sharer[i], 1, 0, 4));
	EXPECT_TRUE(sharer_ok(sharer[3], 0, 1, 2));
	EXPECT_EQ(-EIO, ret(pwrite(sharer[1], "!", 1, PAGE)));
	EXPECT_EQ(-EIO, copy_range(given, 0, fd, PAGE + 1, 10));
	/* Whom it is given to is refused it as well. */
	EXPECT_EQ(0, ret(ioctl(given, FICLONE, fd)));
	EXPECT_TRUE(sharer_ok(given, 1, 0, 4));
	/* Who is left when the others have gone, too. */
	close(fd);
	for (i = 0; i < 3; i++)
		close(sharer[i]);
	close(given);
	EXPECT_TRUE(sharer_ok(sharer[3], 0, 1, 2));
	close(sharer[3]);
	unpoison(pfn);
}

/* The kernel would have to move it, which it cannot: then it stays, as it is. */
TEST(page_that_is_to_be_taken_out_of_use_stays)
{
	char *live, *then;
	int fd, snap, err;

	fd = cow_create_mapped(4 * PAGE, "offline", &live);
	ASSERT_GE(fd, 0);
	fill_pages(live, 4);
	expect_noise();
	err = ret(madvise(live, PAGE, MADV_SOFT_OFFLINE));
	if (err == -EINVAL)
		SKIP(return, "kernel without MEMORY_FAILURE");
	EXPECT_GT(0, err);
	snap = cow_snapshot(fd, 0);
	ASSERT_GE(snap, 0);
	then = cow_map(snap, 4 * PAGE, PROT_READ);
	ASSERT_NE(MAP_FAILED, then);
	EXPECT_TRUE(pages_filled(live, 0, 4));
	EXPECT_TRUE(pages_filled(then, 0, 4));
	EXPECT_GT(0, ret(madvise(live + PAGE, PAGE, MADV_SOFT_OFFLINE)));
	EXPECT_GT(0, ret(madvise(then + 2 * PAGE, PAGE, MADV_SOFT_OFFLINE)));
	memset(live, '!', 4 * PAGE);
	EXPECT_TRUE(pages_filled(then, 0, 4));
	munmap(live, 4 * PAGE);
	munmap(then, 4 * PAGE);
	close(snap);
	close(fd);
}

#define NR	4UL
#define SIZE	(NR * PAGE)

/* All but page 1 are as fill_pages() made them, and that has an error. */
static bool page_1_broken(int fd)
{
	unsigned long i;
	char byte;

	for (i = 0; i < NR; i++)
		if (i != 1 && !page_reads_as(fd, i, value_of(i)))
			return false;
	return ret(pread(fd, &byte, 1, PAGE)) == -EIO;
}

/*
 * Where to take content from: a frozen snapshot of a buffer, with an error in its
 * page 1.  The buffer has a page of its own there, with the same bytes at first.
 */

FIXTURE(source)
{
	int fd, snap;
	char *p, *q;
	int pipefd[2];
	unsigned long pfn;
	long pages;
	struct cowmem_stat before, snap_before;
};

FIXTURE_SETUP(source)
{
	self->fd = cow_create_mapped(SIZE, "source", &self->p);
	ASSERT_GE(self->fd, 0);
	fill_pages(self->p, NR);
	self->snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(self->snap, 0);
	self->q = cow_map(self->snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, self->q);
	memset(self->p + PAGE, value_of(1), PAGE);
	ASSERT_EQ(0, pipe(self->pipefd));
	ASSERT_TRUE(pages_filled(self->q, 0, NR));
	self->pfn = frame_of(self->q + PAGE);
	ASSERT_NE(0, self->pfn);
	ASSERT_NE(self->pfn, frame_of(self->p + PAGE));
	if (!poison(self->q + PAGE))
		SKIP(return, "kernel without MEMORY_FAILURE");
	self->before = cow_stat(self->fd);
	self->snap_before = cow_stat(self->snap);
	self->pages = cow_param("pages");
}

FIXTURE_TEARDOWN(source)
{
	pipe_close(self->pipefd);
	munmap(self->p, SIZE);
	munmap(self->q, SIZE);
	close(self->fd);
	close(self->snap);
	unpoison(self->pfn);
}

/* The buffer, with @value in page 1. */
static bool source_unused(FIXTURE_DATA(source) *self, char value)
{
	unsigned long i;

	for (i = 0; i < NR; i++)
		if (!page_reads_as(self->fd, i, i == 1 ? value : value_of(i)) ||
		    !page_is(self->p + i * PAGE, i == 1 ? value : value_of(i)))
			return false;
	return stat_unchanged(self->fd, &self->before) &&
	       stat_unchanged(self->snap, &self->snap_before) &&
	       cow_param("pages") == self->pages;
}

/* The page that the pipe has is still the buffer's, to be stored to. */
static bool pipe_has_live_page(FIXTURE_DATA(source) *self, char value)
{
	memset(self->p + PAGE, value, PAGE);
	return stat_unchanged(self->fd, &self->before) &&
	       pipe_has(self->pipefd, value);
}

TEST_F(source, RESTORE_that_has_to_copy_it_is_EIO)
{
	NEED(RESTORE);
	NEED(IN_PLACE);
	memset(self->p + PAGE, '!', PAGE);
	ASSERT_TRUE(pipe_hold(self->pipefd, self->p + PAGE));
	EXPECT_EQ(-EIO, cow_restore(self->fd, self->snap, 0));
	EXPECT_TRUE(source_unused(self, '!'));
	EXPECT_EQ(-EIO, cow_restore_range(self->fd, PAGE, self->snap, PAGE,
					  PAGE, 0));
	EXPECT_TRUE(source_unused(self, '!'));
	EXPECT_EQ(-EIO, cow_restore(self->fd, self->snap, COWMEM_IN_PLACE));
	EXPECT_TRUE(source_unused(self, '!'));
	EXPECT_TRUE(pipe_has_live_page(self, '?'));
	/* The pin is gone, the page is mapped writable. */
	EXPECT_EQ(-EIO, cow_restore(self->fd, self->snap, COWMEM_IN_PLACE));
	EXPECT_TRUE(source_unused(self, '?'));
	/* Nobody has to read what is only shared. */
	EXPECT_EQ(0, cow_restore(self->fd, self->snap, 0));
	EXPECT_TRUE(page_1_broken(self->fd));
	EXPECT_EQ(SIGBUS, load_signal(self->p + PAGE));
	EXPECT_EQ(self->pages - 1, cow_param("pages"));
}

TEST_F(source, clone_that_has_to_copy_it_is_EIO)
{
	NEED(CLONE);
	memset(self->p + PAGE, '!', PAGE);
	ASSERT_TRUE(pipe_hold(self->pipefd, self->p + PAGE));
	EXPECT_EQ(-EIO, ret(ioctl(self->fd, FICLONE, self->snap)));
	EXPECT_TRUE(source_unused(self, '!'));
	EXPECT_EQ(-EIO, cow_clone_range(self->fd, 0, self->snap, 0, 2 * PAGE));
	EXPECT_TRUE(source_unused(self, '!'));
	EXPECT_EQ(-EIO, copy_range(self->fd, 0, self->snap, 0, SIZE));
	EXPECT_TRUE(source_unused(self, '!'));
	EXPECT_TRUE(pipe_has_live_page(self, '?'));
	/* Nobody has to read what is only shared. */
	EXPECT_EQ(0, ret(ioctl(self->fd, FICLONE, self->snap)));
	EXPECT_TRUE(page_1_broken(self->fd));
	EXPECT_EQ(self->pages - 1, cow_param("pages"));
}

TEST_F(source, copy_of_a_part_of_it_is_EIO_or_short)
{
	char data[PAGE];

	NEED(CLONE);
	EXPECT_EQ(-EIO, copy_range(self->fd, PAGE, self->snap, PAGE + 100, 200));
	EXPECT_EQ(-EIO, copy_range(self->fd, 100, self->snap, PAGE, PAGE));
	EXPECT_EQ(-EIO, copy_range(self->fd, 2 * PAGE, self->snap, 2 * PAGE - 1,
				   10));
	EXPECT_TRUE(source_unused(self, value_of(1)));
	/* All that there is of page 0. */
	EXPECT_EQ(PAGE - 1, copy_range(self->fd, 2 * PAGE, self->snap, 1,
				       2 * PAGE));
	ASSERT_EQ(PAGE, pread(self->fd, data, PAGE, 2 * PAGE));
	EXPECT_EQ(value_of(2), data[PAGE - 1]);
	data[PAGE - 1] = value_of(0);
	EXPECT_TRUE(page_is(data, value_of(0)));
	EXPECT_TRUE(page_reads_as(self->fd, 1, value_of(1)));
	EXPECT_TRUE(page_reads_as(self->fd, 3, value_of(3)));
}

TEST_F(source, dedupe_that_has_to_compare_it_is_EIO)
{
	NEED(DEDUPE);
	/* Another page of its own that could be shared. */
	memset(self->p + 2 * PAGE, value_of(2), PAGE);
	self->before = cow_stat(self->fd);
	self->snap_before = cow_stat(self->snap);
	self->pages = cow_param("pages");
	EXPECT_EQ(-EIO, cow_dedupe(self->fd, PAGE, self->snap, PAGE, PAGE));
	EXPECT_TRUE(source_unused(self, value_of(1)));
	EXPECT_EQ(-EIO, cow_dedupe(self->fd, 0, self->snap, 0, SIZE));
	EXPECT_TRUE(source_unused(self, value_of(1)));
	EXPECT_EQ(2 * PAGE, cow_dedupe(self->fd, 2 * PAGE, self->snap, 2 * PAGE,
				       2 * PAGE));
	EXPECT_EQ(self->pages - 1, cow_param("pages"));
}

/*
 * A buffer with an error in its page 1, which is its own, or which it shares with
 * a snapshot
 */

FIXTURE(broken)
{
	int fd, snap;
	char *p;
	unsigned long pfn;
	long pages;
	struct cowmem_stat before;
};

FIXTURE_VARIANT(broken)
{
	bool shared;
};

FIXTURE_VARIANT_ADD(broken, own) { .shared = false };
FIXTURE_VARIANT_ADD(broken, shared) { .shared = true };

FIXTURE_SETUP(broken)
{
	self->fd = cow_create_mapped(SIZE, "broken", &self->p);
	ASSERT_GE(self->fd, 0);
	fill_pages(self->p, NR);
	self->snap = variant->shared ? cow_snapshot(self->fd, 0) : -1;
	if (variant->shared)
		ASSERT_GE(self->snap, 0);
	ASSERT_TRUE(pages_filled(self->p, 0, NR));
	self->pfn = frame_of(self->p + PAGE);
	ASSERT_NE(0, self->pfn);
	if (!poison(self->p + PAGE))
		SKIP(return, "kernel without MEMORY_FAILURE");
	self->before = cow_stat(self->fd);
	self->pages = cow_param("pages");
}

FIXTURE_TEARDOWN(broken)
{
	munmap(self->p, SIZE);
	close(self->fd);
	if (variant->shared)
		close(self->snap);
	unpoison(self->pfn);
}

static bool broken_content_same(FIXTURE_DATA(broken) *self)
{
	return page_1_broken(self->fd) &&
	       (self->snap < 0 || page_1_broken(self->snap));
}

static bool broken_unchanged(FIXTURE_DATA(broken) *self)
{
	return broken_content_same(self) && stat_unchanged(self->fd, &self->before) &&
	       cow_param("pages") == self->pages;
}

/* Page 1 reads as @value, and can be stored to; the snapshot has it as it was. */
static bool broken_healed(FIXTURE_DATA(broken) *self, char value)
{
	if (!page_is(self->p + PAGE, value))
		return false;
	memset(self->p + PAGE, '!', PAGE);
	return page_reads_as(self->fd, 1, '!') &&
	       (self->snap < 0 || page_1_broken(self->snap));
}

TEST_F(broken, ftruncate_that_has_to_zero_a_part_is_EIO)
{
	EXPECT_EQ(-EIO, ret(ftruncate(self->fd, PAGE + 100)));
	EXPECT_TRUE(broken_unchanged(self));
	EXPECT_EQ(-EIO, ret(ftruncate(self->fd, 2 * PAGE - 1)));
	EXPECT_TRUE(broken_unchanged(self));
	/* Nobody has to read what goes as a whole. */
	EXPECT_EQ(0, ret(ftruncate(self->fd, PAGE)));
	EXPECT_EQ(0, ret(ftruncate(self->fd, SIZE)));
	EXPECT_TRUE(broken_healed(self, 0));
	EXPECT_TRUE(page_reads_as(self->fd, 0, value_of(0)));
}

TEST_F(broken, fallocate_that_has_to_read_it_is_EIO)
{
	static const int modes[] = {
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE,
	};
	unsigned int i;

	NEED(FALLOCATE);
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		EXPECT_EQ(-EIO, ret(fallocate(self->fd, modes[i], PAGE + 100,
					      100)));
		EXPECT_TRUE(broken_unchanged(self));
		/* With the whole page behind it. */
		EXPECT_EQ(-EIO, ret(fallocate(self->fd, modes[i], PAGE + 100,
					      2 * PAGE - 100)));
		EXPECT_TRUE(broken_unchanged(self));
	}
	/* With a part of page 0, which may be the buffer's own afterwards. */
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		EXPECT_EQ(-EIO, ret(fallocate(self->fd, modes[i], 100, PAGE)));
		EXPECT_TRUE(broken_content_same(self));
	}
	if (variant->shared) {
		EXPECT_EQ(-EIO, ret(fallocate(self->fd, FALLOC_FL_UNSHARE_RANGE,
					      0, SIZE)));
		EXPECT_TRUE(broken_content_same(self));
	}
	EXPECT_EQ(SIZE, cow_stat(self->fd).length);
	EXPECT_EQ(SIZE, cow_stat(self->fd).resident);
	/* Nobody has to read what is replaced as a whole. */
	EXPECT_EQ(0, ret(fallocate(self->fd, FALLOC_FL_ZERO_RANGE, PAGE, PAGE)));
	EXPECT_TRUE(broken_healed(self, 0));
	EXPECT_TRUE(page_reads_as(self->fd, 0, value_of(0)));
	EXPECT_TRUE(page_reads_as(self->fd, 2, value_of(2)));
}

TEST_F(broken, dedupe_that_has_to_compare_it_is_EIO)
{
	struct cowmem_stat other_before;
	char *q;
	int other;

	NEED(DEDUPE);
	NEED(RESTORE);
	other = cow_create_mapped(SIZE, "other", &q);
	ASSERT_GE(other, 0);
	fill_pages(q, NR);
	other_before = cow_stat(other);
	self->pages = cow_param("pages");
	EXPECT_EQ(-EIO, cow_dedupe(self->fd, 0, other, 0, SIZE));
	EXPECT_TRUE(broken_unchanged(self));
	EXPECT_EQ(-EIO, cow_dedupe(other, 0, self->fd, 0, SIZE));
	EXPECT_TRUE(broken_unchanged(self));
	EXPECT_TRUE(stat_unchanged(other, &other_before));
	EXPECT_TRUE(pages_filled(q, 0, NR));
	/* What is not compared is replaced. */
	EXPECT_EQ(0, cow_restore(self->fd, other, 0));
	EXPECT_TRUE(broken_healed(self, value_of(1)));
	EXPECT_TRUE(pages_filled(q, 0, NR));
	munmap(q, SIZE);
	close(other);
}

/* It has to be copied, so that the pin stays with the source. */
TEST(pinned_page_of_a_live_source_with_a_memory_error_is_EIO)
{
	struct cowmem_stat before, other_before;
	int fd, other, pipefd[2];
	unsigned long pfn, i;
	char *p, *q;

	NEED(IN_PLACE);
	NEED(CLONE);
	fd = cow_create_mapped(SIZE, "live", &p);
	ASSERT_GE(fd, 0);
	other = cow_create_mapped(SIZE, "other", &q);
	ASSERT_GE(other, 0);
	fill_pages(p, NR);
	memset(q, '!', SIZE);
	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_TRUE(pipe_hold(pipefd, p + PAGE));
	pfn = frame_of(p + PAGE);
	ASSERT_NE(0, pfn);
	if (!poison(p + PAGE))
		SKIP(return, "kernel without MEMORY_FAILURE");
	before = cow_stat(fd);
	other_before = cow_stat(other);

	EXPECT_EQ(-EIO, cow_restore(other, fd, 0));
	EXPECT_EQ(-EIO, cow_restore(other, fd, COWMEM_IN_PLACE));
	EXPECT_EQ(-EIO, cow_restore_range(other, 0, fd, PAGE, PAGE, 0));
	EXPECT_EQ(-EIO, ret(ioctl(other, FICLONE, fd)));
	EXPECT_EQ(-EIO, cow_clone_range(other, 0, fd, PAGE, PAGE));
	EXPECT_EQ(-EIO, copy_range(other, 0, fd, 0, SIZE));
	EXPECT_TRUE(page_1_broken(fd));
	for (i = 0; i < NR; i++)
		EXPECT_TRUE(page_reads_as(other, i, '!'));
	/* Nothing is shared: no store copies. */
	p[0] = value_of(0);
	memset(q, '?', SIZE);
	EXPECT_TRUE(stat_unchanged(fd, &before));
	EXPECT_TRUE(stat_unchanged(other, &other_before));
	EXPECT_TRUE(page_1_broken(fd));
	/* Pages beside it can be had. */
	EXPECT_EQ(0, cow_clone_range(other, 0, fd, 2 * PAGE, 2 * PAGE));
	EXPECT_TRUE(pages_filled(q, 2, 2));
	munmap(p, SIZE);
	munmap(q, SIZE);
	close(fd);
	close(other);
	pipe_close(pipefd);
	unpoison(pfn);
}

/* What is hidden behind the end would have to be zeroed first. */
TEST(growing_from_a_last_page_with_a_memory_error_is_EIO)
{
	struct cowmem_stat before;
	unsigned long pfn;
	int fd, other;
	char *p, *q;
	long pages;

	NEED(FALLOCATE);
	NEED(CLONE);
	fd = cow_create(2 * PAGE - 100, "tail");
	ASSERT_GE(fd, 0);
	p = cow_map(fd, 2 * PAGE, RW);
	ASSERT_NE(MAP_FAILED, p);
	fill_pages(p, 2);
	other = cow_create_mapped(SIZE, "other", &q);
	ASSERT_GE(other, 0);
	fill_pages(q, NR);
	pfn = frame_of(p + PAGE);
	ASSERT_NE(0, pfn);
	if (!poison(p + PAGE))
		SKIP(return, "kernel without MEMORY_FAILURE");
	before = cow_stat(fd);
	pages = cow_param("pages");

	EXPECT_EQ(-EIO, ret(ftruncate(fd, SIZE)));
	EXPECT_EQ(-EIO, ret(pwrite(fd, "!", 1, 3 * PAGE)));
	EXPECT_EQ(-EIO, ret(fallocate(fd, 0, 2 * PAGE, PAGE)));
	EXPECT_EQ(-EIO, ret(fallocate(fd, FALLOC_FL_ZERO_RANGE, 2 * PAGE,
				      PAGE)));
	EXPECT_EQ(-EIO, ret(fallocate(fd, FALLOC_FL_UNSHARE_RANGE, 2 * PAGE,
				      PAGE)));
	EXPECT_EQ(-EIO, cow_clone_range(fd, 2 * PAGE, other, 0, PAGE));
	EXPECT_EQ(-EIO, copy_range(fd, 3 * PAGE, other, 1, 10));
	EXPECT_TRUE(stat_unchanged(fd, &before));
	EXPECT_EQ(pages, cow_param("pages"));
	EXPECT_TRUE(page_reads_as(fd, 0, value_of(0)));
	/* Nobody has to read what goes as a whole. */
	EXPECT_EQ(0, ret(ftruncate(fd, PAGE)));
	EXPECT_EQ(0, ret(ftruncate(fd, SIZE)));
	EXPECT_TRUE(page_reads_as(fd, 1, 0));
	munmap(p, 2 * PAGE);
	munmap(q, SIZE);
	close(fd);
	close(other);
	unpoison(pfn);
}

TEST_HARNESS_MAIN
