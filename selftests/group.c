// SPDX-License-Identifier: GPL-2.0
/*
 * SNAPSHOT of a group: one file for each member, all of one moment, and all or
 * none of them.
 */
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/resource.h>

#include <linux/falloc.h>

#include "common.h"
#include "harness.h"
#include "util.h"

#define BUFFERS		4U
#define NR		4UL		/* pages of each */
#define SIZE		(NR * PAGE)
#define POISON		-0x5a5a5a5b

/* What a page of a buffer has in the beginning. */
static char value_in(unsigned int buffer, unsigned long index)
{
	return 'A' + buffer * NR + index;
}

static bool pages_filled_in(const char *p, unsigned int buffer,
			    unsigned long first, unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++)
		if (!page_is(p + i * PAGE, value_in(buffer, first + i)))
			return false;
	return true;
}

/* @fd has these pages of the buffer and no more, by read() and mapped. */
static bool range_filled(int fd, unsigned int buffer, unsigned long first,
			 unsigned long nr)
{
	char *p = cow_map(fd, nr * PAGE, PROT_READ);
	char data[SIZE + PAGE];
	bool filled;

	filled = p != MAP_FAILED && pages_filled_in(p, buffer, first, nr) &&
		 pread(fd, data, sizeof(data), 0) == nr * PAGE &&
		 pages_filled_in(data, buffer, first, nr);
	munmap(p, nr * PAGE);
	return filled;
}

static bool buffer_filled(int fd, unsigned int buffer)
{
	return range_filled(fd, buffer, 0, NR);
}

static int open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int nr = 0;

	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}

/*
 * Some buffers, filled through their mappings, and a valid call for all of them
 * on a handle of yet another
 */

struct group {
	int dev;
	int fd[BUFFERS];
	char *p[BUFFERS];
	struct cowmem_member members[BUFFERS];
	struct cowmem_snapshot arg;
	/* As it was before the call. */
	struct {
		struct cowmem_member members[BUFFERS];
		struct cowmem_snapshot arg;
		int open_fds;
		long pages, nodes;
	} before;
};

static void fill(struct group *g, unsigned int buffer)
{
	unsigned long i;

	for (i = 0; i < NR; i++)
		memset(g->p[buffer] + i * PAGE, value_in(buffer, i), PAGE);
}

/* What nobody who has a snapshot should see. */
static void scribble(struct group *g)
{
	unsigned int i;

	for (i = 0; i < BUFFERS; i++)
		memset(g->p[i], '!', SIZE);
}

static void group_init(struct __test_metadata *_metadata, struct group *g)
{
	char name[16];
	unsigned int i;

	g->dev = cow_open();
	ASSERT_GE(g->dev, 0);
	for (i = 0; i < BUFFERS; i++) {
		snprintf(name, sizeof(name), "member %u", i);
		g->fd[i] = cow_create_mapped(SIZE, name, &g->p[i]);
		ASSERT_GE(g->fd[i], 0);
		fill(g, i);
		g->members[i].fd = g->fd[i];
		g->members[i].snapshot_fd = POISON;
	}
	g->arg = (struct cowmem_snapshot) {
		.size = sizeof(g->arg),
		.members = (uintptr_t)g->members,
		.nr_members = BUFFERS,
		.fd = POISON,
	};
}

static void group_exit(struct group *g)
{
	unsigned int i;

	for (i = 0; i < BUFFERS; i++)
		close(g->fd[i]);
	close(g->dev);
}

static int take(struct group *g)
{
	return cow_ioctl(g->dev, COWMEM_SNAPSHOT, &g->arg);
}

static void remember(struct group *g)
{
	memcpy(g->before.members, g->members, sizeof(g->members));
	g->before.arg = g->arg;
	g->before.open_fds = open_fds();
	g->before.pages = cow_param("pages");
	g->before.nodes = cow_param("nodes");
}

static void expect_nothing_returned(struct __test_metadata *_metadata,
				    struct group *g)
{
	EXPECT_EQ(0, memcmp(&g->arg, &g->before.arg, sizeof(g->arg)))
		TH_LOG("a call that failed has written to its struct");
	EXPECT_EQ(0, memcmp(g->members, g->before.members, sizeof(g->members)))
		TH_LOG("a call that failed has written to the members");
	EXPECT_EQ(g->before.open_fds, open_fds());
	EXPECT_EQ(g->before.pages, cow_param("pages"));
	EXPECT_EQ(g->before.nodes, cow_param("nodes"));
}

static void expect_nothing_made(struct __test_metadata *_metadata,
				struct group *g)
{
	struct cowmem_stat stat;
	unsigned int i;

	expect_nothing_returned(_metadata, g);
	for (i = 0; i < BUFFERS; i++) {
		/* A forgotten snapshot would make these stores copy. */
		fill(g, i);
		stat = cow_stat(g->fd[i]);
		EXPECT_EQ(0, stat.snapshots);
		EXPECT_EQ(0, stat.copied);
		EXPECT_EQ(0, stat.reused);
		EXPECT_EQ(SIZE, stat.length);
	}
}

/* The call fails, and nothing is made or changed, for any member. */
static void fails(struct __test_metadata *_metadata, struct group *g, int err)
{
	remember(g);
	EXPECT_EQ(-err, take(g));
	expect_nothing_made(_metadata, g);
}

FIXTURE(group)
{
	struct group g;
};

FIXTURE_SETUP(group)
{
	NEED(GROUP);
	group_init(_metadata, &self->g);
}

FIXTURE_TEARDOWN(group)
{
	group_exit(&self->g);
}

TEST_F(group, each_member_gets_the_snapshot_of_its_buffer)
{
	struct group *g = &self->g;
	unsigned int i;
	int snap;

	remember(g);
	ASSERT_EQ(0, take(g));
	EXPECT_EQ(g->before.open_fds + BUFFERS, open_fds());
	scribble(g);
	for (i = 0; i < BUFFERS; i++) {
		snap = g->members[i].snapshot_fd;
		ASSERT_GE(snap, 0);
		EXPECT_TRUE(buffer_filled(snap, i));
		EXPECT_EQ(COWMEM_STATE_FROZEN, cow_stat(snap).state);
		EXPECT_NE(cow_stat(g->fd[i]).id, cow_stat(snap).id);
		EXPECT_EQ(cow_stat(g->fd[i]).account, cow_stat(snap).account);
		EXPECT_EQ(1, cow_stat(g->fd[i]).snapshots);
	}
	EXPECT_EQ(0, cow_stat(g->dev).snapshots);
}

TEST_F(group, only_snapshot_fd_of_a_member_is_written)
{
	struct group *g = &self->g;
	unsigned int i;

	remember(g);
	ASSERT_EQ(0, take(g));
	for (i = 0; i < BUFFERS; i++) {
		EXPECT_NE(POISON, g->members[i].snapshot_fd);
		g->members[i].snapshot_fd = POISON;
	}
	EXPECT_EQ(0, memcmp(g->members, g->before.members, sizeof(g->members)));
}

TEST_F(group, frozen_snapshots_cannot_be_written)
{
	struct group *g = &self->g;
	unsigned int i;
	int snap;

	ASSERT_EQ(0, take(g));
	for (i = 0; i < BUFFERS; i++) {
		snap = g->members[i].snapshot_fd;
		EXPECT_EQ(-1, pwrite(snap, "!", 1, 0));
		EXPECT_EQ(EBADF, errno);
		EXPECT_EQ(MAP_FAILED, cow_map(snap, SIZE, RW));
		EXPECT_EQ(EACCES, errno);
		EXPECT_EQ(-EPERM, reopen(snap, O_RDWR));
	}
}

TEST_F(group, writable_snapshots_are_independent_of_all)
{
	struct group *g = &self->g;
	unsigned int i, k;
	int clone;

	g->arg.flags = COWMEM_WRITABLE;
	ASSERT_EQ(0, take(g));
	for (i = 0; i < BUFFERS; i++) {
		clone = g->members[i].snapshot_fd;
		EXPECT_EQ(0, cow_stat(clone).state);
		ASSERT_TRUE(write_byte(clone, i * PAGE, '1'));
		for (k = 0; k < BUFFERS; k++)
			EXPECT_TRUE(pages_filled_in(g->p[k], k, 0, NR));
		for (k = i + 1; k < BUFFERS; k++)
			EXPECT_TRUE(buffer_filled(g->members[k].snapshot_fd, k));
	}
	scribble(g);
	for (i = 0; i < BUFFERS; i++) {
		clone = g->members[i].snapshot_fd;
		EXPECT_EQ('1', read_byte(clone, i * PAGE));
		EXPECT_EQ(value_in(i, i), read_byte(clone, i * PAGE + 1));
		EXPECT_EQ(value_in(i, 3 - i),
			  read_byte(clone, (4 - i) * PAGE - 1));
	}
}

TEST_F(group, name_is_that_of_all_snapshots)
{
	struct group *g = &self->g;
	char link[64], path[256];
	unsigned int i;
	int snap;

	strcpy(g->arg.name, "given name");
	ASSERT_EQ(0, take(g));
	for (i = 0; i < BUFFERS; i++) {
		snap = g->members[i].snapshot_fd;
		EXPECT_STREQ("given name", cow_stat(snap).name);
		snprintf(link, sizeof(link), "/proc/self/fd/%d", snap);
		memset(path, 0, sizeof(path));
		EXPECT_LT(0, readlink(link, path, sizeof(path) - 1));
		EXPECT_EQ(0, strncmp(path, "/cowmem:given name", 18));
	}
}

TEST_F(group, without_a_name_each_has_that_of_its_origin)
{
	struct group *g = &self->g;
	unsigned int i;

	ASSERT_EQ(0, take(g));
	for (i = 0; i < BUFFERS; i++)
		EXPECT_STREQ(cow_stat(g->fd[i]).name,
			     cow_stat(g->members[i].snapshot_fd).name);
	EXPECT_STREQ("member 3", cow_stat(g->members[3].snapshot_fd).name);
}

TEST_F(group, all_files_close_on_exec_with_the_flag_or_none)
{
	struct group *g = &self->g;
	unsigned int i;

	ASSERT_EQ(0, take(g));
	for (i = 0; i < BUFFERS; i++)
		EXPECT_EQ(0, fcntl(g->members[i].snapshot_fd, F_GETFD));
	g->arg.flags = COWMEM_CLOEXEC;
	ASSERT_EQ(0, take(g));
	for (i = 0; i < BUFFERS; i++)
		EXPECT_EQ(FD_CLOEXEC, fcntl(g->members[i].snapshot_fd, F_GETFD));
}

TEST_F(group, call_may_be_made_on_a_member)
{
	struct group *g = &self->g;
	unsigned int i;

	ASSERT_EQ(0, cow_ioctl(g->fd[2], COWMEM_SNAPSHOT, &g->arg));
	for (i = 0; i < BUFFERS; i++)
		EXPECT_TRUE(buffer_filled(g->members[i].snapshot_fd, i));
	EXPECT_EQ(1, cow_stat(g->fd[2]).snapshots);
}

TEST_F(group, part_of_the_buffers_leaves_the_others_alone)
{
	struct group *g = &self->g;

	g->arg.members = (uintptr_t)&g->members[1];
	g->arg.nr_members = 2;
	ASSERT_EQ(0, take(g));
	EXPECT_EQ(POISON, g->members[0].snapshot_fd);
	EXPECT_EQ(POISON, g->members[3].snapshot_fd);
	EXPECT_EQ(0, cow_stat(g->fd[0]).snapshots);
	EXPECT_EQ(0, cow_stat(g->fd[3]).snapshots);
	scribble(g);
	EXPECT_EQ(0, cow_stat(g->fd[0]).copied);
	EXPECT_EQ(NR, cow_stat(g->fd[1]).copied);
	EXPECT_EQ(NR, cow_stat(g->fd[2]).copied);
	EXPECT_EQ(0, cow_stat(g->fd[3]).copied);
	EXPECT_TRUE(buffer_filled(g->members[1].snapshot_fd, 1));
	EXPECT_TRUE(buffer_filled(g->members[2].snapshot_fd, 2));
}

TEST_F(group, order_of_the_members_does_not_matter)
{
	struct group *g = &self->g;
	unsigned int i;

	for (i = 0; i < BUFFERS; i++)
		g->members[i].fd = g->fd[BUFFERS - 1 - i];
	ASSERT_EQ(0, take(g));
	for (i = 0; i < BUFFERS; i++)
		EXPECT_TRUE(buffer_filled(g->members[i].snapshot_fd,
					  BUFFERS - 1 - i));
}

TEST_F(group, read_only_files_suffice)
{
	struct group *g = &self->g;
	unsigned int i;

	for (i = 0; i < BUFFERS; i++) {
		g->members[i].fd = reopen(g->fd[i], O_RDONLY);
		ASSERT_GE(g->members[i].fd, 0);
	}
	ASSERT_EQ(0, take(g));
	for (i = 0; i < BUFFERS; i++)
		EXPECT_TRUE(buffer_filled(g->members[i].snapshot_fd, i));
}

TEST_F(group, allocates_and_copies_no_page_and_no_node)
{
	struct group *g = &self->g;
	unsigned int i;

	remember(g);
	ASSERT_EQ(0, take(g));
	EXPECT_EQ(g->before.pages, cow_param("pages"));
	EXPECT_EQ(g->before.nodes, cow_param("nodes"));
	for (i = 0; i < BUFFERS; i++) {
		EXPECT_EQ(0, cow_stat(g->fd[i]).copied);
		close(g->members[i].snapshot_fd);
	}
	EXPECT_EQ(g->before.pages, cow_param("pages"));
	EXPECT_EQ(g->before.nodes, cow_param("nodes"));
	/* All snapshots are gone: nobody shares. */
	scribble(g);
	for (i = 0; i < BUFFERS; i++) {
		EXPECT_EQ(0, cow_stat(g->fd[i]).copied);
		EXPECT_EQ(NR, cow_stat(g->fd[i]).reused);
	}
}

TEST_F(group, second_group_has_what_was_written_since)
{
	struct group *g = &self->g;
	struct cowmem_member first[BUFFERS];
	unsigned int i;

	ASSERT_EQ(0, take(g));
	memcpy(first, g->members, sizeof(first));
	scribble(g);
	ASSERT_EQ(0, take(g));
	for (i = 0; i < BUFFERS; i++)
		fill(g, i);
	for (i = 0; i < BUFFERS; i++) {
		EXPECT_TRUE(buffer_filled(first[i].snapshot_fd, i));
		EXPECT_EQ('!', read_byte(g->members[i].snapshot_fd, 0));
		EXPECT_EQ('!', read_byte(g->members[i].snapshot_fd, SIZE - 1));
	}
}

TEST_F(group, page_that_is_pinned_in_one_member_is_copied_for_its_snapshot)
{
	struct group *g = &self->g;
	unsigned int i;
	int pipefd[2];

	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_TRUE(pipe_hold(pipefd, g->p[1] + 2 * PAGE));
	remember(g);
	ASSERT_EQ(0, take(g));
	EXPECT_EQ(g->before.pages + 1, cow_param("pages"));
	for (i = 0; i < BUFFERS; i++)
		EXPECT_EQ(i == 1, cow_stat(g->fd[i]).held);
	scribble(g);
	for (i = 0; i < BUFFERS; i++)
		EXPECT_TRUE(buffer_filled(g->members[i].snapshot_fd, i));
	EXPECT_EQ(NR, cow_stat(g->fd[1]).copied);
	EXPECT_TRUE(pipe_has(pipefd, '!'));
}

TEST_F(group, private_views_keep_their_copies_and_follow_their_buffers)
{
	struct group *g = &self->g;
	char *q[BUFFERS];
	unsigned int i;

	for (i = 0; i < BUFFERS; i++) {
		q[i] = map_private(g->fd[i], SIZE, RW);
		ASSERT_NE(MAP_FAILED, q[i]);
		EXPECT_TRUE(pages_filled_in(q[i], i, 0, NR));
		memset(q[i], '1', PAGE);
	}
	ASSERT_EQ(0, take(g));
	for (i = 0; i < BUFFERS; i++) {
		EXPECT_TRUE(pages_filled_in(q[i] + PAGE, i, 1, NR - 1));
		memset(q[i] + PAGE, '2', PAGE);
		EXPECT_TRUE(buffer_filled(g->members[i].snapshot_fd, i));
		EXPECT_TRUE(buffer_filled(g->fd[i], i));
		EXPECT_EQ(0, cow_stat(g->fd[i]).copied);
	}
	scribble(g);
	for (i = 0; i < BUFFERS; i++) {
		EXPECT_TRUE(page_is(q[i], '1'));
		EXPECT_TRUE(page_is(q[i] + PAGE, '2'));
		EXPECT_TRUE(page_is(q[i] + 2 * PAGE, '!'));
		EXPECT_TRUE(buffer_filled(g->members[i].snapshot_fd, i));
	}
}

TEST_F(group, private_views_of_the_snapshots_are_their_own)
{
	struct group *g = &self->g;
	unsigned int i;
	char *q;

	ASSERT_EQ(0, take(g));
	for (i = 0; i < BUFFERS; i++) {
		q = map_private(g->members[i].snapshot_fd, SIZE, RW);
		ASSERT_NE(MAP_FAILED, q);
		EXPECT_TRUE(pages_filled_in(q, i, 0, NR));
		memset(q, '1', PAGE);
		memset(g->p[i], '!', SIZE);
		EXPECT_TRUE(page_is(q, '1'));
		EXPECT_TRUE(pages_filled_in(q + PAGE, i, 1, NR - 1));
		EXPECT_TRUE(buffer_filled(g->members[i].snapshot_fd, i));
	}
}

TEST_F(group, stores_of_a_child_forked_before_are_in_none)
{
	struct group *g = &self->g;
	unsigned int i;
	pid_t pid;

	pid = CHILD_START({
		/* Now it has PTEs of its own. */
		for (i = 0; i < BUFFERS; i++)
			fill(g, i);
		raise(SIGSTOP);
		scribble(g);
	});
	ASSERT_TRUE(child_stopped(pid));
	ASSERT_EQ(0, take(g));
	EXPECT_EQ(0, child_finish(pid));
	for (i = 0; i < BUFFERS; i++) {
		EXPECT_TRUE(buffer_filled(g->members[i].snapshot_fd, i));
		EXPECT_TRUE(page_is(g->p[i], '!'));
		EXPECT_TRUE(page_is(g->p[i] + SIZE - PAGE, '!'));
		EXPECT_EQ(NR, cow_stat(g->fd[i]).copied);
	}
}

TEST_F(group, child_that_takes_it_has_what_its_parent_stored)
{
	struct group *g = &self->g;
	unsigned int i;

	scribble(g);
	EXPECT_EQ(0, CHILD({
		if (take(g))
			_exit(1);
		for (i = 0; i < BUFFERS; i++) {
			fill(g, i);
			if (!page_reads_as(g->members[i].snapshot_fd, 0, '!'))
				_exit(2);
		}
	}));
	for (i = 0; i < BUFFERS; i++) {
		EXPECT_TRUE(pages_filled_in(g->p[i], i, 0, NR));
		EXPECT_EQ(1, cow_stat(g->fd[i]).snapshots);
	}
}

TEST_F(group, relatives_are_different_buffers)
{
	struct group *g = &self->g;
	int clone, grandclone, frozen;
	unsigned int i;

	clone = cow_snapshot(g->fd[0], COWMEM_WRITABLE);
	ASSERT_GE(clone, 0);
	ASSERT_TRUE(write_byte(clone, 0, '1'));
	grandclone = cow_snapshot(clone, COWMEM_WRITABLE);
	ASSERT_GE(grandclone, 0);
	ASSERT_TRUE(write_byte(grandclone, 0, '2'));
	frozen = cow_snapshot(g->fd[0], 0);
	ASSERT_GE(frozen, 0);
	g->p[0][0] = '3';
	g->members[1].fd = clone;
	g->members[2].fd = grandclone;
	g->members[3].fd = frozen;
	ASSERT_EQ(0, take(g));
	g->p[0][0] = '!';
	ASSERT_TRUE(write_byte(clone, 0, '!'));
	ASSERT_TRUE(write_byte(grandclone, 0, '!'));
	EXPECT_EQ('3', read_byte(g->members[0].snapshot_fd, 0));
	EXPECT_EQ('1', read_byte(g->members[1].snapshot_fd, 0));
	EXPECT_EQ('2', read_byte(g->members[2].snapshot_fd, 0));
	EXPECT_TRUE(buffer_filled(g->members[3].snapshot_fd, 0));
	for (i = 0; i < 3; i++)
		EXPECT_EQ(value_in(0, 3),
			  read_byte(g->members[i].snapshot_fd, 3 * PAGE));
}

TEST_F(group, device_handles_are_members)
{
	struct group *g = &self->g;
	int dev = cow_open();
	char *q;

	ASSERT_GE(dev, 0);
	q = cow_map(dev, SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	memset(q, '1', SIZE);
	g->members[2].fd = dev;
	ASSERT_EQ(0, take(g));
	memset(q, '!', SIZE);
	EXPECT_EQ('1', read_byte(g->members[2].snapshot_fd, 0));
	EXPECT_EQ('1', read_byte(g->members[2].snapshot_fd, SIZE - 1));
	EXPECT_TRUE(buffer_filled(g->members[3].snapshot_fd, 3));
}

TEST_F(group, sizes_may_differ)
{
	struct group *g = &self->g;
	int empty = cow_create(0, "empty"), large = cow_create(TIB, "large");

	ASSERT_GE(empty, 0);
	ASSERT_GE(large, 0);
	ASSERT_TRUE(write_byte(large, TIB - 1, '1'));
	ASSERT_EQ(0, ftruncate(g->fd[3], PAGE + 100));
	g->members[0].fd = empty;
	g->members[1].fd = large;
	ASSERT_EQ(0, take(g));
	ASSERT_TRUE(write_byte(empty, 0, '!'));
	ASSERT_TRUE(write_byte(large, TIB - 1, '!'));
	ASSERT_EQ(0, ftruncate(g->fd[3], SIZE));
	EXPECT_EQ(0, cow_stat(g->members[0].snapshot_fd).length);
	EXPECT_EQ(-1, read_byte(g->members[0].snapshot_fd, 0));
	EXPECT_EQ(TIB, cow_stat(g->members[1].snapshot_fd).length);
	EXPECT_EQ('1', read_byte(g->members[1].snapshot_fd, TIB - 1));
	EXPECT_TRUE(buffer_filled(g->members[2].snapshot_fd, 2));
	EXPECT_EQ(PAGE + 100, cow_stat(g->members[3].snapshot_fd).length);
	EXPECT_EQ(value_in(3, 1),
		  read_byte(g->members[3].snapshot_fd, PAGE + 99));
	EXPECT_EQ(-1, read_byte(g->members[3].snapshot_fd, PAGE + 100));
}

TEST_F(group, each_member_has_its_own_range)
{
	struct group *g = &self->g;

	NEED(RANGE);
	ASSERT_EQ(0, ftruncate(g->fd[3], 3 * PAGE + 100));
	g->members[0].offset = PAGE;
	g->members[0].length = 2 * PAGE;
	g->members[1].offset = 3 * PAGE;
	g->members[2].length = PAGE;
	g->members[3].offset = 2 * PAGE;
	g->members[3].length = PAGE + 100;
	ASSERT_EQ(0, take(g));
	memset(g->p[0], '!', SIZE);
	memset(g->p[1], '!', SIZE);
	memset(g->p[2], '!', SIZE);
	EXPECT_TRUE(range_filled(g->members[0].snapshot_fd, 0, 1, 2));
	EXPECT_TRUE(range_filled(g->members[1].snapshot_fd, 1, 3, 1));
	EXPECT_TRUE(range_filled(g->members[2].snapshot_fd, 2, 0, 1));
	EXPECT_EQ(PAGE + 100, cow_stat(g->members[3].snapshot_fd).length);
	EXPECT_EQ(value_in(3, 2), read_byte(g->members[3].snapshot_fd, 0));
	EXPECT_EQ(value_in(3, 3),
		  read_byte(g->members[3].snapshot_fd, PAGE + 99));
	/* And what is outside has cost nothing. */
	EXPECT_EQ(2, cow_stat(g->fd[0]).copied);
	EXPECT_EQ(1, cow_stat(g->fd[1]).copied);
	EXPECT_EQ(1, cow_stat(g->fd[2]).copied);
}

/* A program may keep its structs in a buffer, even in one that it snapshots. */
TEST_F(group, array_and_struct_in_the_members_themselves_work)
{
	struct group *g = &self->g;
	struct cowmem_member *members = (void *)(g->p[0] + PAGE);
	struct cowmem_snapshot *arg = (void *)(g->p[1] + PAGE);
	unsigned int i;

	memcpy(members, g->members, sizeof(g->members));
	*arg = g->arg;
	arg->members = (uintptr_t)members;
	ASSERT_EQ(0, cow_ioctl(g->dev, COWMEM_SNAPSHOT, arg));
	for (i = 0; i < BUFFERS; i++) {
		ASSERT_GE(members[i].snapshot_fd, 0);
		EXPECT_EQ(g->fd[i], members[i].fd);
	}
	EXPECT_TRUE(buffer_filled(members[2].snapshot_fd, 2));
	EXPECT_TRUE(buffer_filled(members[3].snapshot_fd, 3));
	/* But for the pages that the structs are in. */
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(value_in(i, 0), read_byte(members[i].snapshot_fd, 0));
		EXPECT_EQ(value_in(i, 2),
			  read_byte(members[i].snapshot_fd, 2 * PAGE));
	}
}

TEST_F(group, array_at_the_end_of_mapped_memory_and_unaligned_works)
{
	size_t bytes = sizeof(self->g.members);
	struct cowmem_member members[BUFFERS];
	struct group *g = &self->g;
	unsigned int i;
	char *array;

	array = mmap(NULL, 2 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, array);
	ASSERT_EQ(0, munmap(array + PAGE, PAGE));
	for (i = 0; i < 2; i++) {
		g->arg.members = (uintptr_t)array + PAGE - bytes - i;
		memcpy((void *)g->arg.members, g->members, bytes);
		ASSERT_EQ(0, take(g));
		memcpy(members, (void *)g->arg.members, bytes);
		EXPECT_TRUE(buffer_filled(members[0].snapshot_fd, 0));
		EXPECT_TRUE(buffer_filled(members[3].snapshot_fd, 3));
	}
}

/*
 * How many: one page with a number for each
 */

FIXTURE(number)
{
	unsigned int nr;
	struct cowmem_member *members;
	int dev;
};

FIXTURE_VARIANT(number)
{
	unsigned int nr;	/* 0: as many as there can be */
};

FIXTURE_VARIANT_ADD(number, one) { 1 };
FIXTURE_VARIANT_ADD(number, two) { 2 };
FIXTURE_VARIANT_ADD(number, eight) { 8 };
FIXTURE_VARIANT_ADD(number, most) { 0 };

/* @nr different buffers. */
static struct cowmem_member *create_members(unsigned int nr)
{
	struct rlimit limit = { 3 * nr + 64, 3 * nr + 64 };
	struct cowmem_member *members = calloc(nr, sizeof(*members));
	unsigned int i;

	if (!members || setrlimit(RLIMIT_NOFILE, &limit))
		return NULL;
	for (i = 0; i < nr; i++) {
		members[i].fd = cow_create(PAGE, "number");
		members[i].snapshot_fd = POISON;
		if (members[i].fd < 0 || !write_word(members[i].fd, 0, i))
			return NULL;
	}
	return members;
}

FIXTURE_SETUP(number)
{
	NEED(GROUP);
	self->nr = variant->nr ?: cow_query().max_members;
	ASSERT_GE(self->nr, 1);
	self->members = create_members(self->nr);
	ASSERT_NE(NULL, self->members);
	self->dev = cow_open();
	ASSERT_GE(self->dev, 0);
}

FIXTURE_TEARDOWN(number)
{
	close(self->dev);
}

TEST_F(number, all_members_have_their_snapshots)
{
	unsigned int i, bad = 0;

	ASSERT_EQ(0, cow_snapshot_group(self->dev, 0, self->members, self->nr));
	for (i = 0; i < self->nr; i++)
		bad += !write_word(self->members[i].fd, 0, 1000000 + i);
	for (i = 0; i < self->nr; i++) {
		bad += read_word(self->members[i].snapshot_fd, 0) != i;
		bad += read_word(self->members[i].fd, 0) != 1000000 + i;
	}
	EXPECT_EQ(0, bad);
}

TEST_F(number, all_clones_are_independent)
{
	unsigned int i, bad = 0;

	ASSERT_EQ(0, cow_snapshot_group(self->dev, COWMEM_WRITABLE,
					self->members, self->nr));
	for (i = 0; i < self->nr; i++)
		bad += !write_word(self->members[i].snapshot_fd, 0,
				   1000000 + i);
	for (i = 0; i < self->nr; i++) {
		bad += read_word(self->members[i].snapshot_fd, 0) !=
		       1000000 + i;
		bad += read_word(self->members[i].fd, 0) != i;
	}
	EXPECT_EQ(0, bad);
}

TEST(one_member_more_than_there_can_be_is_EINVAL)
{
	struct cowmem_member *members;
	unsigned int i, nr, bad = 0;
	int dev, fds;

	NEED(GROUP);
	nr = cow_query().max_members + 1;
	members = create_members(nr);
	ASSERT_NE(NULL, members);
	dev = cow_open();
	ASSERT_GE(dev, 0);
	fds = open_fds();
	EXPECT_EQ(-EINVAL, cow_snapshot_group(dev, 0, members, nr));
	EXPECT_EQ(fds, open_fds());
	for (i = 0; i < nr; i++) {
		bad += members[i].snapshot_fd != POISON;
		bad += cow_stat(members[i].fd).snapshots != 0;
	}
	EXPECT_EQ(0, bad);
	EXPECT_EQ(0, cow_snapshot_group(dev, 0, members, nr - 1));
	EXPECT_EQ(POISON, members[nr - 1].snapshot_fd);
}

/* It must not be what the kernel allocates, or reads. */
TEST_F(group, as_many_members_as_can_be_said_are_EINVAL)
{
	size_t bytes = UINT32_MAX * sizeof(struct cowmem_member);
	struct group *g = &self->g;
	void *array;

	array = mmap(NULL, bytes, RW,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (array == MAP_FAILED)
		SKIP(return, "no %zu bytes of address space", bytes);
	memcpy(array, g->members, sizeof(g->members));
	g->arg.members = (uintptr_t)array;
	g->arg.nr_members = UINT32_MAX;
	fails(_metadata, g, EINVAL);
	EXPECT_EQ(0, memcmp(array, g->members, sizeof(g->members)));
	munmap(array, bytes);
}

/*
 * All or none: one member is bad
 */

FIXTURE(bad)
{
	struct group g;
};

FIXTURE_VARIANT(bad)
{
	void (*spoil)(struct cowmem_member *member);
	int err;
	bool range;
};

static void closed_fd(struct cowmem_member *member)
{
	member->fd = dup(0);
	close(member->fd);
}

static void no_fd(struct cowmem_member *member)
{
	member->fd = -1;
}

static void memfd(struct cowmem_member *member)
{
	member->fd = memfd_create("member", 0);
	if (member->fd < 0 || ftruncate(member->fd, SIZE))
		exit(1);
}

static void other_device(struct cowmem_member *member)
{
	member->fd = open("/dev/zero", O_RDWR);
}

static void path_handle(struct cowmem_member *member)
{
	member->fd = reopen(member->fd, O_PATH);
}

static void write_only_handle(struct cowmem_member *member)
{
	member->fd = reopen(member->fd, O_WRONLY);
}

static void write_only_device(struct cowmem_member *member)
{
	member->fd = open(COWMEM_DEVICE, O_WRONLY);
}

static void unaligned_offset(struct cowmem_member *member)
{
	member->offset = PAGE - 1;
	member->length = PAGE;
}

static void unaligned_length(struct cowmem_member *member)
{
	member->length = PAGE + 1;
}

static void beyond_the_end(struct cowmem_member *member)
{
	member->offset = PAGE;
	member->length = SIZE;
}

static void at_the_end(struct cowmem_member *member)
{
	member->offset = SIZE;
}

static void overflow(struct cowmem_member *member)
{
	member->offset = PAGE;
	member->length = -PAGE;
}

FIXTURE_VARIANT_ADD(bad, closed_fd) { closed_fd, EBADF };
FIXTURE_VARIANT_ADD(bad, no_fd) { no_fd, EBADF };
FIXTURE_VARIANT_ADD(bad, memfd) { memfd, EBADF };
FIXTURE_VARIANT_ADD(bad, other_device) { other_device, EBADF };
FIXTURE_VARIANT_ADD(bad, path_handle) { path_handle, EBADF };
FIXTURE_VARIANT_ADD(bad, write_only_handle) { write_only_handle, EACCES };
FIXTURE_VARIANT_ADD(bad, write_only_device) { write_only_device, EACCES };
FIXTURE_VARIANT_ADD(bad, unaligned_offset) { unaligned_offset, EINVAL, true };
FIXTURE_VARIANT_ADD(bad, unaligned_length) { unaligned_length, EINVAL, true };
FIXTURE_VARIANT_ADD(bad, beyond_the_end) { beyond_the_end, EINVAL, true };
FIXTURE_VARIANT_ADD(bad, at_the_end) { at_the_end, EINVAL, true };
FIXTURE_VARIANT_ADD(bad, overflow) { overflow, EINVAL, true };

FIXTURE_SETUP(bad)
{
	NEED(GROUP);
	if (variant->range)
		NEED(RANGE);
	group_init(_metadata, &self->g);
}

FIXTURE_TEARDOWN(bad)
{
	group_exit(&self->g);
}

TEST_F(bad, member_first_or_last_or_between_makes_none)
{
	struct cowmem_member good;
	unsigned int i;

	for (i = 0; i < BUFFERS; i++) {
		good = self->g.members[i];
		variant->spoil(&self->g.members[i]);
		fails(_metadata, &self->g, variant->err);
		self->g.members[i] = good;
	}
	EXPECT_EQ(0, take(&self->g));
}

TEST_F(bad, member_alone_makes_none)
{
	self->g.arg.nr_members = 1;
	variant->spoil(&self->g.members[0]);
	fails(_metadata, &self->g, variant->err);
}

TEST_F(bad, clone_is_not_made)
{
	self->g.arg.flags = COWMEM_WRITABLE | COWMEM_CLOEXEC;
	variant->spoil(&self->g.members[2]);
	fails(_metadata, &self->g, variant->err);
}

/*
 * All or none: the cut is made and the pinned page of the first member copied,
 * but the one of the last cannot be
 */

#define LAST		(BUFFERS - 1)

FIXTURE(late)
{
	struct group g;
	struct cowmem_stat before[BUFFERS];
	/* They hold page 1 of the first and of the last member. */
	int first[2], last[2];
	uint64_t broken;	/* its frame, 0: none */
};

FIXTURE_SETUP(late)
{
	NEED_BITS(COWMEM_FEATURE_GROUP | COWMEM_FEATURE_LIMIT |
		  COWMEM_FEATURE_FALLOCATE);
	group_init(_metadata, &self->g);
	ASSERT_EQ(0, pipe(self->first));
	ASSERT_EQ(0, pipe(self->last));
	ASSERT_TRUE(pipe_hold(self->first, self->g.p[0] + PAGE));
	ASSERT_TRUE(pipe_hold(self->last, self->g.p[LAST] + PAGE));
}

FIXTURE_TEARDOWN(late)
{
	pipe_close(self->first);
	pipe_close(self->last);
	group_exit(&self->g);
	if (self->broken)
		unpoison(self->broken);
}

static void fails_late(struct __test_metadata *_metadata,
		       FIXTURE_DATA(late) *self, int err)
{
	struct group *g = &self->g;
	unsigned int i;

	for (i = 0; i < BUFFERS; i++)
		self->before[i] = cow_stat(g->fd[i]);
	remember(g);
	EXPECT_EQ(-err, take(g));
	expect_nothing_returned(_metadata, g);
	for (i = 0; i < BUFFERS; i++)
		EXPECT_TRUE(stat_unchanged(g->fd[i], &self->before[i]));
}

TEST_F(late, copy_beyond_the_LIMIT_is_ENOSPC_and_makes_none)
{
	struct group *g = &self->g;
	unsigned int i;

	ASSERT_EQ(0, cow_limit(g->fd[LAST], SIZE));
	fails_late(_metadata, self, ENOSPC);
	for (i = 0; i < BUFFERS; i++)
		EXPECT_TRUE(buffer_filled(g->fd[i], i));
	expect_nothing_made(_metadata, g);

	/* Both pages are still the live ones, and still held. */
	ASSERT_EQ(0, cow_limit(g->fd[LAST], COWMEM_NO_LIMIT));
	ASSERT_EQ(0, take(g));
	EXPECT_EQ(g->before.pages + 2, cow_param("pages"));
	for (i = 0; i < BUFFERS; i++)
		EXPECT_EQ(i == 0 || i == LAST, cow_stat(g->fd[i]).held);
	scribble(g);
	for (i = 0; i < BUFFERS; i++)
		EXPECT_TRUE(buffer_filled(g->members[i].snapshot_fd, i));
	EXPECT_TRUE(pipe_has(self->first, '!'));
	EXPECT_TRUE(pipe_has(self->last, '!'));
}

TEST_F(late, copy_of_a_page_with_a_memory_error_is_EIO_and_makes_none)
{
	struct group *g = &self->g;
	char *p = g->p[LAST];
	uint64_t frame = frame_of(p + PAGE);
	unsigned int i;

	ASSERT_NE(0, frame);
	if (!poison(p + PAGE))
		SKIP(return, "kernel without MEMORY_FAILURE");
	self->broken = frame;
	fails_late(_metadata, self, EIO);
	for (i = 0; i < LAST; i++)
		EXPECT_TRUE(buffer_filled(g->fd[i], i));
	EXPECT_TRUE(pages_filled_in(p, LAST, 0, 1));
	EXPECT_TRUE(pages_filled_in(p + 2 * PAGE, LAST, 2, NR - 2));

	/* No store to any of the other pages copies. */
	for (i = 0; i < LAST; i++)
		fill(g, i);
	memset(p, '?', PAGE);
	memset(p + 2 * PAGE, '?', SIZE - 2 * PAGE);
	for (i = 0; i < BUFFERS; i++)
		EXPECT_TRUE(stat_unchanged(g->fd[i], &self->before[i]));

	ASSERT_EQ(0, fallocate(g->fd[LAST],
			       FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       PAGE, PAGE));
	ASSERT_EQ(0, take(g));
	scribble(g);
	for (i = 0; i < LAST; i++)
		EXPECT_TRUE(buffer_filled(g->members[i].snapshot_fd, i));
	EXPECT_TRUE(page_reads_as(g->members[LAST].snapshot_fd, 0, '?'));
	EXPECT_TRUE(page_reads_as(g->members[LAST].snapshot_fd, 1, 0));
	EXPECT_TRUE(page_reads_as(g->members[LAST].snapshot_fd, 2, '?'));
}

/*
 * One buffer twice
 */

FIXTURE(twice)
{
	struct group g;
};

FIXTURE_VARIANT(twice)
{
	int (*again)(int fd);
};

static int same_fd(int fd)
{
	return fd;
}

static int other_file(int fd)
{
	return cow_file(fd, 0);
}

static int read_only_file(int fd)
{
	return cow_file(fd, COWMEM_RDONLY);
}

static int reopened(int fd)
{
	return reopen(fd, O_RDWR);
}

FIXTURE_VARIANT_ADD(twice, same_fd) { same_fd };
FIXTURE_VARIANT_ADD(twice, duplicate_fd) { dup };
FIXTURE_VARIANT_ADD(twice, other_file) { other_file };
FIXTURE_VARIANT_ADD(twice, read_only_file) { read_only_file };
FIXTURE_VARIANT_ADD(twice, reopened) { reopened };

FIXTURE_SETUP(twice)
{
	NEED(GROUP);
	group_init(_metadata, &self->g);
}

FIXTURE_TEARDOWN(twice)
{
	group_exit(&self->g);
}

TEST_F(twice, as_neighbours_is_EINVAL)
{
	self->g.members[2].fd = variant->again(self->g.fd[1]);
	ASSERT_GE(self->g.members[2].fd, 0);
	fails(_metadata, &self->g, EINVAL);
}

TEST_F(twice, as_first_and_last_is_EINVAL)
{
	self->g.members[3].fd = variant->again(self->g.fd[0]);
	ASSERT_GE(self->g.members[3].fd, 0);
	fails(_metadata, &self->g, EINVAL);
}

TEST_F(twice, with_different_ranges_is_EINVAL)
{
	NEED(RANGE);
	self->g.members[2].fd = variant->again(self->g.fd[0]);
	ASSERT_GE(self->g.members[2].fd, 0);
	self->g.members[0].length = PAGE;
	self->g.members[2].offset = 2 * PAGE;
	fails(_metadata, &self->g, EINVAL);
}

TEST_F(group, device_handle_and_its_file_are_one_buffer)
{
	struct group *g = &self->g;

	g->members[0].fd = g->dev;
	g->members[3].fd = cow_file(g->dev, 0);
	ASSERT_GE(g->members[3].fd, 0);
	fails(_metadata, g, EINVAL);
	EXPECT_EQ(0, cow_stat(g->dev).snapshots);
}

/*
 * Bad calls
 */

TEST_F(group, number_without_an_array_is_EINVAL)
{
	self->g.arg.members = 0;
	fails(_metadata, &self->g, EINVAL);
}

TEST_F(group, array_without_a_number_is_EINVAL)
{
	self->g.arg.nr_members = 0;
	fails(_metadata, &self->g, EINVAL);
	/* Also on a buffer that could be snapshotted alone. */
	EXPECT_EQ(-EINVAL, cow_ioctl(self->g.fd[0], COWMEM_SNAPSHOT,
				     &self->g.arg));
	expect_nothing_made(_metadata, &self->g);
}

TEST_F(group, range_of_the_call_is_EINVAL)
{
	struct group *g = &self->g;

	g->arg.offset = PAGE;
	fails(_metadata, g, EINVAL);
	g->arg.offset = 0;
	g->arg.length = PAGE;
	fails(_metadata, g, EINVAL);
	EXPECT_EQ(-EINVAL, cow_ioctl(g->fd[0], COWMEM_SNAPSHOT, &g->arg));
	expect_nothing_made(_metadata, g);
	g->arg.length = 0;
	EXPECT_EQ(0, take(g));
}

TEST_F(group, name_that_is_not_valid_is_EINVAL)
{
	strcpy(self->g.arg.name, "a/b");
	fails(_metadata, &self->g, EINVAL);
	memset(self->g.arg.name, 'x', sizeof(self->g.arg.name));
	fails(_metadata, &self->g, EINVAL);
}

TEST_F(group, each_unknown_flag_is_EINVAL)
{
	unsigned int bit;

	remember(&self->g);
	for (bit = 0; bit < 32; bit++) {
		self->g.arg.flags = 1U << bit;
		if (!(self->g.arg.flags & (COWMEM_CLOEXEC | COWMEM_WRITABLE)))
			EXPECT_EQ(-EINVAL, take(&self->g));
	}
	self->g.arg.flags = 0;
	expect_nothing_made(_metadata, &self->g);
}

TEST_F(group, array_in_the_kernel_is_EFAULT)
{
	self->g.arg.members = -64 * PAGE;
	fails(_metadata, &self->g, EFAULT);
	self->g.arg.members = UINT64_MAX - 7;
	fails(_metadata, &self->g, EFAULT);
}

/* The array, copied to memory that ends @missing bytes before it does. */
static bool cut_array(struct group *g, size_t missing)
{
	size_t bytes = sizeof(g->members) - missing;
	char *array;

	array = mmap(NULL, 2 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (array == MAP_FAILED || munmap(array + PAGE, PAGE))
		return false;
	memcpy(array + PAGE - bytes, g->members, bytes);
	g->arg.members = (uintptr_t)array + PAGE - bytes;
	return true;
}

TEST_F(group, array_of_which_a_part_is_not_mapped_is_EFAULT)
{
	static const size_t missing[] = {
		1, sizeof(struct cowmem_member), sizeof(self->g.members),
	};
	struct group *g = &self->g;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(missing); i++) {
		ASSERT_TRUE(cut_array(g, missing[i]));
		fails(_metadata, g, EFAULT);
		EXPECT_EQ(0, memcmp((void *)g->arg.members, g->members,
				    sizeof(g->members) - missing[i]));
	}
}

TEST_F(group, array_that_cannot_be_written_is_EFAULT)
{
	struct group *g = &self->g;
	void *array = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, array);
	memcpy(array, g->members, sizeof(g->members));
	g->arg.members = (uintptr_t)array;
	ASSERT_EQ(0, mprotect(array, PAGE, PROT_READ));
	fails(_metadata, g, EFAULT);
	ASSERT_EQ(0, mprotect(array, PAGE, PROT_NONE));
	fails(_metadata, g, EFAULT);
}

TEST_F(group, array_of_which_a_part_cannot_be_written_is_EFAULT)
{
	struct group *g = &self->g;
	char *pages, *array;

	pages = mmap(NULL, 2 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, pages);
	array = pages + PAGE - 2 * sizeof(g->members[0]);
	memcpy(array, g->members, sizeof(g->members));
	ASSERT_EQ(0, mprotect(pages + PAGE, PAGE, PROT_READ));
	g->arg.members = (uintptr_t)array;
	fails(_metadata, g, EFAULT);
	EXPECT_EQ(0, memcmp(array, g->members, sizeof(g->members)));
}

/* The lowest limit of fds that leaves room for @nr more. */
static rlim_t limit_with_free(unsigned int nr)
{
	rlim_t limit;

	for (limit = 0; nr; limit++)
		if (fcntl(limit, F_GETFD) < 0)
			nr--;
	return limit;
}

TEST_F(group, too_few_fds_left_is_EMFILE_and_makes_none)
{
	struct group *g = &self->g;
	struct rlimit old, limit;
	unsigned int nr;
	int err;

	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
	limit = old;
	for (nr = 0; nr < BUFFERS; nr++) {
		remember(g);
		limit.rlim_cur = limit_with_free(nr);
		ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
		err = take(g);
		ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
		EXPECT_EQ(-EMFILE, err);
		expect_nothing_made(_metadata, g);
	}
	limit.rlim_cur = limit_with_free(BUFFERS);
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	EXPECT_EQ(0, take(g));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
}

/*
 * The cut is one over all.  Two writers never pause:
 *
 *	causal chain	link k, in buffer k % 4, is copied from link k - 1, by
 *			the other writer.  In any cut no link is ahead of the one
 *			before it.
 *	program order	each writer stores n to a word of its own in buffers 0,
 *			1, 2, 3, then n + 1.  Any cut shows n...n, n-1...n-1.
 */

#define WRITERS		2U
#define LINKS		16U
/* Apart, so that they lie in several nodes of the index. */
#define STRIDE		67UL
#define CUT_PAGES	((LINKS / BUFFERS + WRITERS) * STRIDE)
#define CUT_SIZE	(CUT_PAGES * PAGE)

struct writer {
	unsigned int number;
	char **maps;
	atomic_bool *stop;
	atomic_ulong rounds;
	unsigned long lost;
};

FIXTURE(cut)
{
	int dev;
	struct cowmem_member members[BUFFERS];
	char *maps[BUFFERS];
	atomic_bool stop;
	struct writer writers[WRITERS];
	pthread_t threads[WRITERS];
};

static off_t link_offset(unsigned int k)
{
	return k / BUFFERS * STRIDE * PAGE;
}

static off_t own_offset(unsigned int writer)
{
	return (LINKS / BUFFERS + writer) * STRIDE * PAGE;
}

static _Atomic uint64_t *link_word(char **maps, unsigned int k)
{
	return (_Atomic uint64_t *)(maps[k % BUFFERS] + link_offset(k));
}

static void write_chain(struct writer *writer, uint64_t n)
{
	unsigned int k;

	for (k = writer->number; k < LINKS; k += WRITERS)
		atomic_store(link_word(writer->maps, k),
			     k ? atomic_load(link_word(writer->maps, k - 1)) : n);
}

static void write_own(struct writer *writer, uint64_t n)
{
	_Atomic uint64_t *word;
	unsigned int i;

	for (i = 0; i < BUFFERS; i++) {
		word = (void *)(writer->maps[i] + own_offset(writer->number));
		writer->lost += atomic_load(word) != n - 1;
		atomic_store(word, n);
	}
}

static void *run_writer(void *data)
{
	struct writer *writer = data;
	uint64_t n;

	for (n = 1; !*writer->stop; n++) {
		write_chain(writer, n);
		write_own(writer, n);
		writer->rounds = n;
	}
	return NULL;
}

FIXTURE_SETUP(cut)
{
	unsigned int i;

	NEED(GROUP);
	self->dev = cow_open();
	ASSERT_GE(self->dev, 0);
	for (i = 0; i < BUFFERS; i++) {
		self->members[i].fd = cow_create_mapped(CUT_SIZE, "cut",
							&self->maps[i]);
		ASSERT_GE(self->members[i].fd, 0);
	}
	for (i = 0; i < WRITERS; i++) {
		self->writers[i].number = i;
		self->writers[i].maps = self->maps;
		self->writers[i].stop = &self->stop;
		ASSERT_EQ(0, pthread_create(&self->threads[i], NULL, run_writer,
					    &self->writers[i]));
	}
}

FIXTURE_TEARDOWN(cut)
{
	close(self->dev);
}

/* @snaps: snapshots of the buffers, in their order. */
static bool chain_ok(const int snaps[BUFFERS], uint64_t *last)
{
	uint64_t before = UINT64_MAX - 1, here = 0;
	unsigned int k;

	for (k = 0; k < LINKS; k++) {
		here = read_word(snaps[k % BUFFERS], link_offset(k));
		if (here > before)
			return false;
		before = here;
	}
	/* Nor behind that of the cut before this. */
	if (here < *last)
		return false;
	*last = here;
	return true;
}

static bool order_ok(const int snaps[BUFFERS], unsigned int writer)
{
	uint64_t first = read_word(snaps[0], own_offset(writer));
	uint64_t before = first, here;
	unsigned int i;

	for (i = 1; i < BUFFERS; i++) {
		here = read_word(snaps[i], own_offset(writer));
		if (here > before || here + 1 < first)
			return false;
		before = here;
	}
	return first != UINT64_MAX;
}

static void wait_for_progress(FIXTURE_DATA(cut) *self)
{
	unsigned long rounds[WRITERS];
	unsigned int i;

	for (i = 0; i < WRITERS; i++)
		rounds[i] = self->writers[i].rounds;
	for (i = 0; i < WRITERS; i++)
		while (self->writers[i].rounds == rounds[i])
			sched_yield();
}

/* With member number @first as the first of the array. */
static bool take_cut(FIXTURE_DATA(cut) *self, unsigned int first,
		     int snaps[BUFFERS])
{
	struct cowmem_member members[BUFFERS];
	unsigned int i;

	for (i = 0; i < BUFFERS; i++)
		members[i] = self->members[(first + i) % BUFFERS];
	if (cow_snapshot_group(self->dev, 0, members, BUFFERS))
		return false;
	for (i = 0; i < BUFFERS; i++)
		snaps[(first + i) % BUFFERS] = members[i].snapshot_fd;
	return true;
}

TEST_F(cut, is_one_over_all_members)
{
	unsigned int round, i, failed = 0, chain = 0, order = 0;
	int snaps[BUFFERS];
	uint64_t last = 0;

	for (round = 0; round < 100; round++) {
		wait_for_progress(self);
		if (!take_cut(self, round % BUFFERS, snaps)) {
			failed++;
			break;
		}
		chain += !chain_ok(snaps, &last);
		for (i = 0; i < WRITERS; i++)
			order += !order_ok(snaps, i);
		for (i = 0; i < BUFFERS; i++)
			close(snaps[i]);
	}
	self->stop = true;
	for (i = 0; i < WRITERS; i++) {
		pthread_join(self->threads[i], NULL);
		EXPECT_EQ(0, self->writers[i].lost);
	}
	EXPECT_EQ(0, failed);
	EXPECT_EQ(0, chain);
	EXPECT_EQ(0, order);
	EXPECT_GT(last, 0);
}

/*
 * Several at once
 */

struct taker {
	struct cowmem_member members[BUFFERS];
	int dev;
	unsigned int failed;
};

static void *run_taker(void *data)
{
	struct taker *taker = data;
	unsigned int i, k;

	for (i = 0; i < 50; i++) {
		if (cow_snapshot_group(taker->dev, i % 2 ? COWMEM_WRITABLE : 0,
				       taker->members, BUFFERS)) {
			taker->failed++;
			continue;
		}
		for (k = 0; k < BUFFERS; k++)
			close(taker->members[k].snapshot_fd);
	}
	return NULL;
}

TEST_F(group, groups_of_the_same_buffers_in_opposite_orders_end)
{
	struct group *g = &self->g;
	struct taker takers[2] = { };
	pthread_t threads[2];
	unsigned int i;
	int snap;

	for (i = 0; i < BUFFERS; i++) {
		takers[0].members[i].fd = g->fd[i];
		takers[1].members[i].fd = g->fd[BUFFERS - 1 - i];
	}
	for (i = 0; i < 2; i++) {
		takers[i].dev = g->dev;
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, run_taker,
					    &takers[i]));
	}
	/* Beside them snapshots of single buffers, and stores to all. */
	for (i = 0; i < 50; i++) {
		snap = cow_snapshot(g->fd[i % BUFFERS], 0);
		EXPECT_GE(snap, 0);
		close(snap);
		fill(g, (i + 1) % BUFFERS);
	}
	for (i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		EXPECT_EQ(0, takers[i].failed);
	}
	for (i = 0; i < BUFFERS; i++)
		EXPECT_TRUE(buffer_filled(g->fd[i], i));
}

TEST_HARNESS_MAIN
