// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that runs out, of a cgroup or of the machine: who asks for too much is
 * killed, or gets ENOMEM, nobody else does, buffers keep what they have, and what
 * is left goes on.  And processes that clone and fork without end.
 *
 * Elsewhere: who is charged (memory.c), LIMIT and max_pages (account.c).
 */
#include <sched.h>
#include <sys/resource.h>

#include <linux/falloc.h>

#include "common.h"
#include "harness.h"
#include "util.h"

#define MIB	(1L << 20)
#define GROUP	"/sys/fs/cgroup/cowmem-pressure"
/* What the group may have, and what its members try to get. */
#define MAX	(8 * MIB)
#define SIZE	(16 * MIB)

/* False: there is no memory controller in cgroup v2. */
static bool make_group(void)
{
	char max[32];

	snprintf(max, sizeof(max), "%ld", MAX);
	write_file("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
	if (mkdir(GROUP, 0755) && errno != EEXIST)
		return false;
	/* Swap would only make it take longer. */
	write_file(GROUP "/memory.swap.max", "0");
	return write_file(GROUP "/memory.max", max);
}

static bool join_group(void)
{
	return write_file(GROUP "/cgroup.procs", "0");
}

/* Kills that the group has seen since it was made. */
static long group_kills(void)
{
	FILE *events = fopen(GROUP "/memory.events", "r");
	char key[64];
	long value, kills = -1;

	if (!events)
		return -1;
	while (fscanf(events, "%63s %ld", key, &value) == 2)
		if (!strcmp(key, "oom_kill"))
			kills = value;
	fclose(events);
	return kills;
}

/* Until all that was in it is gone. */
static bool remove_group(void)
{
	int i;

	for (i = 0; i < 100; i++) {
		if (!rmdir(GROUP) || errno == ENOENT)
			return true;
		usleep(100000);
	}
	return false;
}

/* Let this process be the first to be killed. */
static bool offer_oneself(void)
{
	return write_file("/proc/self/oom_score_adj", "1000");
}

/* What is freed by the kernel's threads takes a moment. */
static bool pages_become(long pages)
{
	int i;

	for (i = 0; i < 100 && cow_param("pages") != pages; i++)
		usleep(100000);
	return cow_param("pages") == pages;
}

/*
 * Ways to ask for more pages than there are.  Only a call may return, with -1 and
 * ENOMEM: a store has nobody to tell.
 */

/* Exit statuses: what is in errno; 0: there was enough. */

static int store_to_all(int fd)
{
	size_t length = cow_stat(fd).length, i;
	char *p = cow_map(fd, length, RW);

	for (i = 0; p != MAP_FAILED && i < length; i += PAGE)
		p[i] = '!';
	return 0;
}

static int load_all(int fd)
{
	size_t length = cow_stat(fd).length, i;
	char *p = cow_map(fd, length, RW);

	for (i = 0; p != MAP_FAILED && i < length; i += PAGE)
		(void)*(volatile char *)(p + i);
	return 0;
}

static int populate_all(int fd)
{
	size_t length = cow_stat(fd).length;
	char *p = cow_map(fd, length, RW);

	return madvise(p, length, MADV_POPULATE_WRITE) ? errno : 0;
}

static int write_to_all(int fd)
{
	off_t length = cow_stat(fd).length, i;

	for (i = 0; i < length; i += PAGE)
		if (!write_byte(fd, i, '!'))
			return errno;
	return 0;
}

/* Not aligned: bytes have to be copied. */
static int copy_to_all(int fd)
{
	off_t length = cow_stat(fd).length - 1, done = 0;
	int source = cow_create(length + 1, "source");
	long copied;

	for (; done < length; done += copied) {
		copied = copy_range(fd, done, source, done + 1, length - done);
		if (copied <= 0)
			return errno;
	}
	return 0;
}

static int fill_all(int fd)
{
	return fallocate(fd, FALLOC_FL_UNSHARE_RANGE, 0,
			 cow_stat(fd).length) ? errno : 0;
}

static int zero_all(int fd)
{
	return fallocate(fd, FALLOC_FL_ZERO_RANGE, 0,
			 cow_stat(fd).length) ? errno : 0;
}

static int snapshot_held(int fd)
{
	return cow_snapshot(fd, 0) < 0 ? errno : 0;
}

static int restore_held(int fd)
{
	return cow_restore(cow_create(SIZE, "other"), fd, 0) ? errno : 0;
}

static bool was_killed(int status)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static bool was_refused(int status)
{
	return WIFEXITED(status) && WEXITSTATUS(status) == ENOMEM;
}

/*
 * A cgroup
 */

FIXTURE(group)
{
	int fd, snap;
	char *p;
	int pipefd[2];
	long pages;
};

FIXTURE_VARIANT(group)
{
	int (*ask)(int fd);
	bool call;		/* may fail instead of being killed */
	bool filled;		/* all of the buffer, else its first page */
	bool shared;		/* with a snapshot */
	bool held;		/* by a pipe */
	bool pinnable;
	bool keeps;		/* what is asked for is not content */
};

FIXTURE_VARIANT_ADD(group, stores_to_holes) { store_to_all };
FIXTURE_VARIANT_ADD(group, stores_that_copy) {
	store_to_all, .filled = true, .shared = true,
};
FIXTURE_VARIANT_ADD(group, loads_of_holes) { load_all, .pinnable = true };
FIXTURE_VARIANT_ADD(group, loads_that_copy) {
	load_all, .filled = true, .shared = true, .pinnable = true,
	.keeps = true,
};
FIXTURE_VARIANT_ADD(group, populate) { populate_all, true };
FIXTURE_VARIANT_ADD(group, populate_that_copies) {
	populate_all, true, .filled = true, .shared = true, .keeps = true,
};
FIXTURE_VARIANT_ADD(group, writes_to_holes) { write_to_all, true };
FIXTURE_VARIANT_ADD(group, writes_that_copy) {
	write_to_all, true, .filled = true, .shared = true,
};
FIXTURE_VARIANT_ADD(group, copy_of_a_file) { copy_to_all, true, .shared = true };
FIXTURE_VARIANT_ADD(group, fallocate) { fill_all, true, .keeps = true };
FIXTURE_VARIANT_ADD(group, unshare) {
	fill_all, true, .filled = true, .shared = true, .keeps = true,
};
FIXTURE_VARIANT_ADD(group, zero) {
	zero_all, true, .filled = true, .shared = true, .keeps = true,
};
FIXTURE_VARIANT_ADD(group, snapshot_of_held_pages) {
	snapshot_held, true, .filled = true, .held = true, .keeps = true,
};
FIXTURE_VARIANT_ADD(group, restore_from_held_pages) {
	restore_held, true, .filled = true, .held = true, .keeps = true,
};

/* Let a pipe have all of the buffer. */
static bool hold_all(FIXTURE_DATA(group) *self)
{
	struct iovec iov = { self->p, SIZE };

	return !pipe(self->pipefd) &&
	       fcntl(self->pipefd[1], F_SETPIPE_SZ, SIZE) >= 0 &&
	       vmsplice(self->pipefd[1], &iov, 1, 0) == SIZE;
}

FIXTURE_SETUP(group)
{
	if (variant->pinnable)
		NEED(PINNABLE);
	if (!make_group())
		SKIP(return, "no memory controller in cgroup v2");
	expect_noise();
	self->fd = cow_create_flags(SIZE, "group",
				    variant->pinnable ? COWMEM_PINNABLE : 0);
	ASSERT_GE(self->fd, 0);
	self->p = cow_map(self->fd, SIZE, RW);
	ASSERT_NE(MAP_FAILED, self->p);
	memset(self->p, 'a', variant->filled ? SIZE : PAGE);
	self->snap = variant->shared ? cow_snapshot(self->fd, 0) : -1;
	if (variant->shared)
		ASSERT_GE(self->snap, 0);
	if (variant->held)
		ASSERT_TRUE(hold_all(self));
	self->pages = cow_param("pages");
}

FIXTURE_TEARDOWN(group)
{
	munmap(self->p, SIZE);
	close(self->fd);
	if (variant->shared)
		close(self->snap);
	if (variant->held)
		pipe_close(self->pipefd);
	EXPECT_TRUE(remove_group());
}

/* What the page had, but that its first byte may have been written. */
static bool page_is_ours(const char *page, char value, bool same)
{
	return (page[0] == value || (!same && (page[0] == '!' || !page[0]))) &&
	       page[1] == value && !memcmp(page + 1, page + 2, PAGE - 2);
}

/* Pages that have not what they should. */
static unsigned long pages_wrong(int fd, bool filled, bool same)
{
	unsigned long i, wrong = 0;
	char data[PAGE];

	for (i = 0; i < SIZE / PAGE; i++)
		wrong += pread(fd, data, PAGE, i * PAGE) != PAGE ||
			 !page_is_ours(data, filled || !i ? 'a' : 0, same);
	return wrong;
}

TEST_F_TIMEOUT(group, who_asks_pays_and_nobody_else, 120)
{
	bool copy = variant->ask == copy_to_all;
	long kills = group_kills();
	int status;

	status = CHILD(_exit(join_group() ? variant->ask(self->fd) : 1));
	EXPECT_TRUE(was_killed(status) || (variant->call && was_refused(status)))
		TH_LOG("status %#x", status);
	EXPECT_EQ(kills + was_killed(status), group_kills());
	/* A page that was copied from a hole is all zeroes. */
	if (!copy)
		EXPECT_EQ(0, pages_wrong(self->fd, variant->filled,
					 variant->keeps));
	if (variant->shared)
		EXPECT_EQ(0, pages_wrong(self->snap, variant->filled, true));
	/* A call is done or not: what it had made is gone. */
	if (variant->held || variant->ask == zero_all)
		EXPECT_TRUE(pages_become(self->pages));
	/* We are not in the group: for us there is memory. */
	memset(self->p, '?', SIZE);
	EXPECT_TRUE(page_is(self->p + SIZE - PAGE, '?'));
	if (variant->shared)
		EXPECT_EQ(0, pages_wrong(self->snap, variant->filled, true));
}

/*
 * Clones without end
 */

#define MANY_FILES	(1UL << 20)
#define FEW_FILES	256
#define BOMB_CLONES	16
#define BOMB_SECONDS	5

/* Returns why there can be no more. */
static int clone_for_ever(int fd, rlim_t files)
{
	struct rlimit limit = { files, files };

	setrlimit(RLIMIT_NOFILE, &limit);
	do
		fd = cow_snapshot(fd, COWMEM_WRITABLE);
	while (fd >= 0);
	return fd;
}

/* Each process clones what it got, writes to it, and forks. */
static void bomb(int fd)
{
	struct rlimit limit = { MANY_FILES, MANY_FILES };
	int i;

	setrlimit(RLIMIT_NOFILE, &limit);
	for (;;) {
		for (i = 0; i < BOMB_CLONES; i++) {
			fd = cow_snapshot(fd, COWMEM_WRITABLE);
			if (fd < 0 || !write_byte(fd, i * PAGE, '!'))
				_exit(0);
		}
		if (fork() < 0)
			_exit(0);
	}
}

FIXTURE(clones)
{
	int fd;
	char *p;
	long pages, nodes;
};

FIXTURE_SETUP(clones)
{
	if (!make_group())
		SKIP(return, "no memory controller in cgroup v2");
	expect_noise();
	self->fd = cow_create_mapped(SIZE, "clones", &self->p);
	ASSERT_GE(self->fd, 0);
	memset(self->p, 'a', SIZE);
	self->pages = cow_param("pages");
	self->nodes = cow_param("nodes");
}

FIXTURE_TEARDOWN(clones)
{
	munmap(self->p, SIZE);
	close(self->fd);
	EXPECT_TRUE(remove_group());
}

TEST_F(clones, of_one_process_are_bounded_by_its_group)
{
	int status = CHILD(_exit(join_group() ?
				 -clone_for_ever(self->fd, MANY_FILES) : 1));

	EXPECT_TRUE(was_killed(status) || was_refused(status))
		TH_LOG("status %#x", status);
	EXPECT_TRUE(pages_become(self->pages));
	EXPECT_EQ(0, pages_wrong(self->fd, true, true));
}

TEST_F(clones, of_one_process_are_bounded_by_its_files)
{
	EXPECT_EQ(0, CHILD(_exit(clone_for_ever(self->fd, FEW_FILES) != -EMFILE)));
	EXPECT_TRUE(pages_become(self->pages));
}

TEST_F_TIMEOUT(clones, of_a_fork_bomb_are_bounded_by_its_group, 120)
{
	double end = seconds_now() + BOMB_SECONDS;
	long kills = group_kills();
	pid_t pid = CHILD_START({
		if (!join_group())
			_exit(1);
		bomb(self->fd);
	});

	/* Meanwhile we go on. */
	while (seconds_now() < end || group_kills() == kills) {
		self->p[SIZE - 1]++;
		sched_yield();
	}
	self->p[SIZE - 1] = 'a';
	EXPECT_EQ(0, pages_wrong(self->fd, true, true));
	TH_LOG("%ld processes killed, %ld pages", group_kills() - kills,
	       cow_param("pages") - self->pages);
	EXPECT_GT(MAX / PAGE, cow_param("pages") - self->pages);
	ASSERT_TRUE(write_file(GROUP "/cgroup.kill", "1"));
	waitpid(pid, NULL, 0);
	/* Nothing is left of all that. */
	EXPECT_TRUE(pages_become(self->pages));
	EXPECT_EQ(self->nodes, cow_param("nodes"));
	EXPECT_EQ(0, pages_wrong(self->fd, true, true));
}

/*
 * The machine
 */

#define LARGEST_MACHINE	(4UL << 20)	/* kB: to fill more would take too long */
#define LEFT		(96L << 10)	/* kB that are left to be fought for */
#define GREED		(1UL << 30)	/* bytes: more than that */

static long meminfo_kb(const char *name)
{
	FILE *meminfo = fopen("/proc/meminfo", "r");
	char key[64];
	long kb, found = -1;

	if (!meminfo)
		return -1;
	while (fscanf(meminfo, "%63[^:]: %ld%*[^\n]\n", key, &kb) == 2)
		if (!strcmp(key, name))
			found = kb;
	fclose(meminfo);
	return found;
}

/* A process that is not to be killed has all memory but LEFT. */
static pid_t start_hog(void)
{
	pid_t pid = CHILD_START({
		char *p = mmap(NULL, GREED * 4, RW,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		write_file("/proc/self/oom_score_adj", "-1000");
		while (p != MAP_FAILED && meminfo_kb("MemAvailable") > LEFT) {
			memset(p, '!', 4 * MIB);
			p += 4 * MIB;
		}
		raise(SIGSTOP);
	});

	return child_stopped(pid) ? pid : -1;
}

FIXTURE(machine)
{
	int fd, snap;
	char *p;
	long pages, nodes;
	pid_t hog;
};

FIXTURE_VARIANT(machine)
{
	int (*ask)(int fd);
	bool call;	/* may fail instead of being killed */
	bool ours;	/* a clone of what others have */
};

FIXTURE_VARIANT_ADD(machine, stores) { store_to_all };
FIXTURE_VARIANT_ADD(machine, stores_to_a_clone) { store_to_all, .ours = true };
FIXTURE_VARIANT_ADD(machine, writes) { write_to_all, true };
FIXTURE_VARIANT_ADD(machine, fallocate) { fill_all, true };

FIXTURE_SETUP(machine)
{
	if (meminfo_kb("MemTotal") > LARGEST_MACHINE)
		SKIP(return, "more memory than to be used up");
	expect_noise();
	self->fd = cow_create_mapped(SIZE, "machine", &self->p);
	ASSERT_GE(self->fd, 0);
	memset(self->p, 'a', SIZE);
	self->snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(self->snap, 0);
	self->pages = cow_param("pages");
	self->nodes = cow_param("nodes");
	self->hog = start_hog();
	ASSERT_LT(0, self->hog);
}

FIXTURE_TEARDOWN(machine)
{
	kill(self->hog, SIGKILL);
	waitpid(self->hog, NULL, 0);
	munmap(self->p, SIZE);
	close(self->fd);
	close(self->snap);
}

/* In a child: an exit status. */
static int ask_machine(int fd, int (*ask)(int fd), bool clone)
{
	if (!offer_oneself())
		return 0;
	fd = clone ? cow_snapshot(fd, COWMEM_WRITABLE) : cow_create(0, "greed");
	if (fd < 0 || ftruncate(fd, GREED))
		return 0;
	return ask(fd);
}

TEST_F_TIMEOUT(machine, greedy_one_fails_and_all_it_had_is_freed, 120)
{
	int status = CHILD(_exit(ask_machine(self->fd, variant->ask,
					     variant->ours)));

	EXPECT_TRUE(was_killed(status) || (variant->call && was_refused(status)))
		TH_LOG("status %#x", status);
	EXPECT_TRUE(pages_become(self->pages));
	EXPECT_EQ(self->nodes, cow_param("nodes"));
	/* We live, and have what we had. */
	EXPECT_EQ(0, pages_wrong(self->fd, true, true));
	EXPECT_EQ(0, pages_wrong(self->snap, true, true));
	memset(self->p, '?', SIZE);
	EXPECT_EQ(0, pages_wrong(self->snap, true, true));
	EXPECT_EQ(0, kill(self->hog, 0));
}

TEST_HARNESS_MAIN
