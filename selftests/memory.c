// SPDX-License-Identifier: GPL-2.0
/*
 * Whose memory it is, and what happens when it runs out or breaks: charging to
 * the cgroup that touches, OOM kills of the toucher alone, pages with a memory
 * error.
 */
#include "common.h"
#include "kselftest_harness.h"
#include "util.h"

#define MIB	(1UL << 20)
#define GROUP	"/sys/fs/cgroup/cowmem-test"

static long read_number(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return -1;
	close(fd);
	return atol(text);
}

/* The kernel will say something, and it is meant to: tell the VM's init. */
static void expect_noise(void)
{
	close(open("/tmp/expect-noise", O_WRONLY | O_CREAT, 0600));
}

FIXTURE(cgroup) {
	int fd;
};

FIXTURE_SETUP(cgroup)
{
	write_file("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
	if ((mkdir(GROUP, 0755) && errno != EEXIST) ||
	    read_number(GROUP "/memory.current") < 0)
		SKIP(return, "no memory controller in cgroup v2");
	self->fd = cow_create(64 * MIB, "cgroup");
	ASSERT_GE(self->fd, 0);
}

FIXTURE_TEARDOWN(cgroup)
{
	close(self->fd);
	rmdir(GROUP);
}

/* Write @length bytes of the buffer from @offset on; in the group or not. */
static int touch_in_child(int fd, bool in_group, size_t offset, size_t length)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		char *map = cow_map(fd, 64 * MIB, PROT_READ | PROT_WRITE);

		if (in_group && !write_file(GROUP "/cgroup.procs", "0"))
			_exit(1);
		if (map == MAP_FAILED)
			_exit(1);
		memset(map + offset, 1, length);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	return status;
}

TEST_F(cgroup, toucher_is_charged_until_the_page_is_freed)
{
	long before = read_number(GROUP "/memory.current"), now;

	ASSERT_EQ(touch_in_child(self->fd, false, 0, 16 * MIB), 0);
	EXPECT_LT(read_number(GROUP "/memory.current") - before, 4 * MIB);
	ASSERT_EQ(touch_in_child(self->fd, true, 16 * MIB, 16 * MIB), 0);
	/* The process is gone, its pages are not. */
	EXPECT_GE(read_number(GROUP "/memory.current") - before, 15 * MIB);
	EXPECT_LT(read_number(GROUP "/memory.current") - before, 24 * MIB);
	close(self->fd);
	for (int i = 0; i < 50; i++) {
		now = read_number(GROUP "/memory.current") - before;
		if (now < 4 * MIB)
			break;
		usleep(100000);
	}
	EXPECT_LT(now, 4 * MIB);
}

TEST_F(cgroup, copy_is_charged_to_the_writer)
{
	long before;
	int snap;

	ASSERT_EQ(touch_in_child(self->fd, false, 0, 16 * MIB), 0);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	before = read_number(GROUP "/memory.current");
	ASSERT_EQ(touch_in_child(self->fd, true, 0, 16 * MIB), 0);
	EXPECT_GE(read_number(GROUP "/memory.current") - before, 15 * MIB);
	close(snap);
}

TEST_F(cgroup, only_the_offender_is_killed_and_others_keep_their_content)
{
	int status;
	char *map;

	expect_noise();
	map = cow_map(self->fd, 64 * MIB, PROT_READ | PROT_WRITE);
	ASSERT_NE(map, MAP_FAILED);
	memset(map, 7, MIB);
	ASSERT_TRUE(write_file(GROUP "/memory.max", "16777216"));
	status = touch_in_child(self->fd, true, 8 * MIB, 48 * MIB);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	for (size_t i = 0; i < MIB; i += PAGE)
		ASSERT_EQ(map[i], 7);
	/* We are not in the group: for us there is memory. */
	map[63 * MIB] = 1;
	munmap(map, 64 * MIB);
}

static unsigned long pfn_of(void *addr)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	if (pread(fd, &entry, sizeof(entry), (uintptr_t)addr / PAGE * 8) !=
	    sizeof(entry))
		entry = 0;
	close(fd);
	return entry & ((1ULL << 55) - 1);
}

/* A poisoned page is never freed, and would look like a leak. */
static void unpoison(unsigned long pfn)
{
	char text[32];

	snprintf(text, sizeof(text), "%#lx", pfn);
	write_file("/sys/kernel/debug/hwpoison/unpoison-pfn", text);
}

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
	pfn = pfn_of(live + PAGE);
	ASSERT_NE(pfn, 0);
	expect_noise();
	if (madvise(live + PAGE, PAGE, MADV_HWPOISON) && errno == EINVAL)
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

TEST_HARNESS_MAIN
