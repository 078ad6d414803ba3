// SPDX-License-Identifier: GPL-2.0
/*
 * Snapshots: that they keep what they have whoever writes afterwards, what a
 * first write costs, and that no page is written in place that somebody else
 * can still see.
 */
#include <limits.h>
#include <pthread.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <time.h>

#include "common.h"
#include "harness.h"
#include "util.h"
#include "writers.h"

#define NR		16UL
#define SIZE		(NR * PAGE)

/* Has it what fill_pages() writes?  By read(), which maps nothing. */
static bool file_filled(int fd)
{
	char data[SIZE];

	return pread(fd, data, SIZE, 0) == SIZE && pages_filled(data, 0, NR);
}

/* The same, by read() and in a mapping made just now. */
static bool buffer_filled(int fd)
{
	char *p = cow_map(fd, SIZE, PROT_READ);
	bool filled = p != MAP_FAILED && file_filled(fd) &&
		      pages_filled(p, 0, NR);

	munmap(p, SIZE);
	return filled;
}

/*
 * More ways to write a page
 */

static bool write_child_write(int fd, char *p, unsigned long index, char value)
{
	return !CHILD(_exit(!write_write(fd, p, index, value)));
}

static bool write_new_mapping(int fd, char *p, unsigned long index, char value)
{
	char *q = mmap(NULL, PAGE, RW, MAP_SHARED, fd, index * PAGE);

	if (q == MAP_FAILED)
		return false;
	memset(q, value, PAGE);
	return !munmap(q, PAGE);
}

static bool write_other_file(int fd, char *p, unsigned long index, char value)
{
	int file = cow_file(fd, 0);
	bool done = write_new_mapping(file, p, index, value);

	close(file);
	return done;
}

/* By read() of something else into the mapping. */
static bool write_read(int fd, char *p, unsigned long index, char value)
{
	char data[PAGE];
	int pipefd[2];
	bool done;

	if (pipe(pipefd))
		return false;
	memset(data, value, PAGE);
	done = write(pipefd[1], data, PAGE) == PAGE &&
	       read(pipefd[0], p + index * PAGE, PAGE) == PAGE;
	pipe_close(pipefd);
	return done;
}

static bool write_splice(int fd, char *p, unsigned long index, char value)
{
	off_t offset = index * PAGE;
	char data[PAGE];
	int pipefd[2];
	bool done;

	if (pipe(pipefd))
		return false;
	memset(data, value, PAGE);
	done = write(pipefd[1], data, PAGE) == PAGE &&
	       splice(pipefd[0], NULL, fd, &offset, PAGE, 0) == PAGE;
	pipe_close(pipefd);
	return done;
}

/* Poke the mapping of a child. */
static bool write_ptrace(int fd, char *p, unsigned long index, char value)
{
	pid_t pid = fork();
	bool done = true;
	int status;
	long word;
	char *q;

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
		return false;
	memset(&word, value, sizeof(word));
	for (q = p + index * PAGE; q < p + (index + 1) * PAGE; q += sizeof(word))
		done &= !ptrace(PTRACE_POKEDATA, pid, q, word);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return done;
}

FIXTURE(written)
{
	int fd;
	char *p;
};

FIXTURE_VARIANT(written)
{
	write_fn by;
};

FIXTURE_VARIANT_ADD(written, store) { .by = write_store };
FIXTURE_VARIANT_ADD(written, write) { .by = write_write };
FIXTURE_VARIANT_ADD(written, process_vm_writev) { .by = write_remote };
FIXTURE_VARIANT_ADD(written, proc_mem) { .by = write_proc_mem };
FIXTURE_VARIANT_ADD(written, ptrace) { .by = write_ptrace };
FIXTURE_VARIANT_ADD(written, child) { .by = write_child };
FIXTURE_VARIANT_ADD(written, write_in_child) { .by = write_child_write };
FIXTURE_VARIANT_ADD(written, new_mapping) { .by = write_new_mapping };
FIXTURE_VARIANT_ADD(written, other_file) { .by = write_other_file };
FIXTURE_VARIANT_ADD(written, read_into_it) { .by = write_read };
FIXTURE_VARIANT_ADD(written, splice) { .by = write_splice };

FIXTURE_SETUP(written)
{
	self->fd = cow_create_mapped(SIZE, "written", &self->p);
	ASSERT_GE(self->fd, 0);
	fill_pages(self->p, NR);
}

FIXTURE_TEARDOWN(written)
{
	close(self->fd);
}

TEST_F(written, frozen_stays_as_it_was)
{
	int snap = cow_snapshot(self->fd, 0);
	unsigned long i;
	char *q;

	ASSERT_GE(snap, 0);
	q = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	for (i = 0; i < NR; i += 3)
		ASSERT_TRUE(variant->by(self->fd, self->p, i, '!'));
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_TRUE(buffer_filled(snap));
	for (i = 0; i < NR; i++)
		EXPECT_TRUE(page_is(self->p + i * PAGE,
				    i % 3 ? value_of(i) : '!'));
}

TEST_F(written, frozen_that_was_read_stays_as_it_was)
{
	int snap = cow_snapshot(self->fd, 0);
	char *q;

	ASSERT_GE(snap, 0);
	q = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	ASSERT_TRUE(variant->by(self->fd, self->p, 7, '1'));
	ASSERT_TRUE(variant->by(self->fd, self->p, 7, '2'));
	EXPECT_TRUE(page_is(self->p + 7 * PAGE, '2'));
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_TRUE(file_filled(snap));
}

TEST_F(written, clone_and_origin_are_independent)
{
	int clone = cow_snapshot(self->fd, COWMEM_WRITABLE);
	char *q;

	ASSERT_GE(clone, 0);
	q = cow_map(clone, SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_TRUE(variant->by(self->fd, self->p, 1, '1'));
	ASSERT_TRUE(variant->by(clone, q, 2, '2'));
	ASSERT_TRUE(variant->by(clone, q, 3, '3'));
	ASSERT_TRUE(variant->by(self->fd, self->p, 3, '4'));
	EXPECT_TRUE(page_is(self->p + 1 * PAGE, '1'));
	EXPECT_TRUE(page_is(self->p + 2 * PAGE, value_of(2)));
	EXPECT_TRUE(page_is(self->p + 3 * PAGE, '4'));
	EXPECT_TRUE(page_is(q + 1 * PAGE, value_of(1)));
	EXPECT_TRUE(page_is(q + 2 * PAGE, '2'));
	EXPECT_TRUE(page_is(q + 3 * PAGE, '3'));
}

TEST_F(written, each_of_many_snapshots_has_its_moment)
{
	int snap[8];
	unsigned int i;

	for (i = 0; i < 8; i++) {
		ASSERT_TRUE(variant->by(self->fd, self->p, 5, '0' + i));
		snap[i] = cow_snapshot(self->fd, 0);
		ASSERT_GE(snap[i], 0);
	}
	for (i = 0; i < 8; i++) {
		EXPECT_EQ('0' + i, read_byte(snap[i], 5 * PAGE));
		EXPECT_EQ('0' + i, read_byte(snap[i], 6 * PAGE - 1));
		EXPECT_EQ(value_of(6), read_byte(snap[i], 6 * PAGE));
	}
}

/*
 * A filled buffer, mapped shared; both kinds of handle
 */

FIXTURE(snapshot)
{
	int fd;
	char *p;
};

FIXTURE_VARIANT(snapshot)
{
	bool device;
};

FIXTURE_VARIANT_ADD(snapshot, device) { .device = true };
FIXTURE_VARIANT_ADD(snapshot, file) { .device = false };

FIXTURE_SETUP(snapshot)
{
	self->fd = variant->device ? cow_open() : cow_create(SIZE, "origin");
	ASSERT_GE(self->fd, 0);
	self->p = cow_map(self->fd, SIZE, RW);
	ASSERT_NE(MAP_FAILED, self->p);
	fill_pages(self->p, NR);
}

FIXTURE_TEARDOWN(snapshot)
{
	close(self->fd);
}

TEST_F(snapshot, frozen_outlives_its_origin)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	memset(self->p, '!', PAGE);
	munmap(self->p, SIZE);
	close(self->fd);
	EXPECT_TRUE(buffer_filled(snap));
	self->fd = snap;
}

TEST_F(snapshot, origin_outlives_its_snapshots)
{
	int snap = cow_snapshot(self->fd, 0);
	int clone = cow_snapshot(self->fd, COWMEM_WRITABLE);

	ASSERT_GE(snap, 0);
	ASSERT_GE(clone, 0);
	close(snap);
	ASSERT_TRUE(write_byte(clone, 0, '!'));
	close(clone);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	EXPECT_TRUE(file_filled(self->fd));
}

TEST_F(snapshot, frozen_cannot_be_written)
{
	int snap = cow_snapshot(self->fd, 0);
	char *q, *r;

	ASSERT_GE(snap, 0);
	EXPECT_EQ(-1, pwrite(snap, "!", 1, 0));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(-1, ftruncate(snap, 0));
	EXPECT_EQ(MAP_FAILED, cow_map(snap, SIZE, RW));
	EXPECT_EQ(EACCES, errno);
	q = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(-1, mprotect(q, SIZE, RW));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(SIGSEGV, COW_TRY(q[0] = '!'));
	EXPECT_FALSE(write_remote(snap, q, 0, '!'));
	EXPECT_FALSE(write_proc_mem(snap, q, 0, '!'));
	EXPECT_FALSE(write_ptrace(snap, q, 0, '!'));

	r = mmap(NULL, SIZE, RW, MAP_PRIVATE, snap, 0);
	ASSERT_NE(MAP_FAILED, r);
	memset(r, '!', SIZE);
	EXPECT_TRUE(write_proc_mem(snap, r, 0, '?'));
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

TEST_F(snapshot, has_the_given_name)
{
	struct cowmem_snapshot arg = {
		.size = sizeof(arg), .fd = -1, .name = "given name",
	};
	char link[64], path[256] = "";

	ASSERT_EQ(0, cow_ioctl(self->fd, COWMEM_SNAPSHOT, &arg));
	EXPECT_STREQ("given name", cow_stat(arg.fd).name);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", arg.fd);
	EXPECT_LT(0, readlink(link, path, sizeof(path) - 1));
	EXPECT_EQ(0, strncmp(path, "/cowmem:given name", 18));
}

TEST_F(snapshot, inherits_the_name)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	EXPECT_STREQ(variant->device ? "" : "origin", cow_stat(snap).name);
	EXPECT_STREQ(cow_stat(self->fd).name, cow_stat(snap).name);
}

TEST_F(snapshot, is_another_buffer_of_the_same_account)
{
	int snap = cow_snapshot(self->fd, 0);
	int clone = cow_snapshot(self->fd, COWMEM_WRITABLE);

	ASSERT_GE(snap, 0);
	ASSERT_GE(clone, 0);
	EXPECT_NE(cow_stat(self->fd).id, cow_stat(snap).id);
	EXPECT_NE(cow_stat(self->fd).id, cow_stat(clone).id);
	EXPECT_NE(cow_stat(snap).id, cow_stat(clone).id);
	EXPECT_EQ(cow_stat(self->fd).account, cow_stat(snap).account);
	EXPECT_EQ(cow_stat(self->fd).account, cow_stat(clone).account);
	EXPECT_EQ(COWMEM_STATE_FROZEN, cow_stat(snap).state);
	EXPECT_EQ(0, cow_stat(clone).state);
}

TEST_F(snapshot, counts_in_the_origin)
{
	int snap, clone;

	EXPECT_EQ(0, cow_stat(self->fd).snapshots);
	snap = cow_snapshot(self->fd, 0);
	clone = cow_snapshot(self->fd, COWMEM_WRITABLE);
	ASSERT_GE(snap, 0);
	ASSERT_GE(clone, 0);
	EXPECT_EQ(2, cow_stat(self->fd).snapshots);
	EXPECT_EQ(0, cow_stat(clone).snapshots);
	close(cow_snapshot(clone, 0));
	EXPECT_EQ(1, cow_stat(clone).snapshots);
	EXPECT_EQ(2, cow_stat(self->fd).snapshots);
	EXPECT_EQ(0, cow_stat(snap).snapshots);
}

TEST_F(snapshot, of_a_snapshot)
{
	int first = cow_snapshot(self->fd, 0), second;

	ASSERT_GE(first, 0);
	memset(self->p, '!', SIZE);
	second = cow_snapshot(first, 0);
	ASSERT_GE(second, 0);
	close(first);
	EXPECT_TRUE(buffer_filled(second));
}

TEST_F(snapshot, clone_of_a_frozen_one_can_be_written)
{
	int first = cow_snapshot(self->fd, 0), clone;

	ASSERT_GE(first, 0);
	memset(self->p, '!', SIZE);
	clone = cow_snapshot(first, COWMEM_WRITABLE);
	ASSERT_GE(clone, 0);
	EXPECT_TRUE(buffer_filled(clone));
	ASSERT_TRUE(write_byte(clone, 0, '?'));
	EXPECT_TRUE(buffer_filled(first));
	EXPECT_EQ('?', read_byte(clone, 0));
	EXPECT_EQ('!', self->p[0]);
}

TEST_F(snapshot, private_mapping_of_the_origin_is_not_part_of_it)
{
	char *q = mmap(NULL, SIZE, RW, MAP_PRIVATE, self->fd, 0);
	int snap;

	ASSERT_NE(MAP_FAILED, q);
	memset(q, '!', SIZE);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_TRUE(buffer_filled(snap));
	EXPECT_TRUE(page_is(q, '!'));
}

/*
 * Depth and width
 */

#define MANY		200

FIXTURE(many)
{
	int fd;
	int snap[MANY];
};

FIXTURE_SETUP(many)
{
	char *p;

	self->fd = cow_create_mapped(SIZE, "many", &p);
	ASSERT_GE(self->fd, 0);
	fill_pages(p, NR);
	munmap(p, SIZE);
}

FIXTURE_TEARDOWN(many)
{
	close(self->fd);
}

TEST_F(many, chain_of_frozen_snapshots_costs_no_page_and_no_node)
{
	int fd = self->fd;
	long pages, nodes;
	int i;

	pages = cow_param("pages");
	nodes = cow_param("nodes");
	for (i = 0; i < MANY; i++) {
		self->snap[i] = cow_snapshot(fd, 0);
		ASSERT_GE(self->snap[i], 0);
		fd = self->snap[i];
	}
	EXPECT_EQ(pages, cow_param("pages"));
	EXPECT_EQ(nodes, cow_param("nodes"));
	for (i = 0; i < MANY - 1; i++)
		close(self->snap[i]);
	EXPECT_TRUE(buffer_filled(self->snap[MANY - 1]));
	EXPECT_TRUE(buffer_filled(self->fd));
}

/* What page @index of the clone number @depth of a chain has: see below. */
static int chain_value(int depth, unsigned long index)
{
	for (; depth >= 0; depth--)
		if (depth % NR == index)
			return depth + 1;
	return value_of(index);
}

TEST_F(many, chain_of_clones_keeps_what_each_wrote)
{
	int fd = self->fd, i, bad = 0;
	unsigned long page;

	for (i = 0; i < MANY; i++) {
		self->snap[i] = cow_snapshot(fd, COWMEM_WRITABLE);
		ASSERT_GE(self->snap[i], 0);
		fd = self->snap[i];
		ASSERT_TRUE(write_byte(fd, i % NR * PAGE, i + 1));
	}
	for (i = 0; i < MANY; i++)
		for (page = 0; page < NR; page++)
			bad += read_byte(self->snap[i], page * PAGE) !=
			       chain_value(i, page);
	EXPECT_EQ(0, bad);
	EXPECT_TRUE(file_filled(self->fd));
}

TEST_F(many, chain_closed_from_either_end_leaves_the_rest)
{
	int fd = self->fd, i;

	for (i = 0; i < MANY; i++) {
		self->snap[i] = cow_snapshot(fd, COWMEM_WRITABLE);
		ASSERT_GE(self->snap[i], 0);
		fd = self->snap[i];
		ASSERT_TRUE(write_byte(fd, i % NR * PAGE, i + 1));
	}
	for (i = 0; i < MANY / 2; i++) {
		close(self->snap[i]);
		if (i < MANY / 2 - 1)
			close(self->snap[MANY - 1 - i]);
	}
	/* The one that is left is number MANY / 2. */
	for (i = 0; i < NR; i++)
		EXPECT_EQ(chain_value(MANY / 2, i),
			  read_byte(self->snap[MANY / 2], i * PAGE));
	EXPECT_TRUE(file_filled(self->fd));
}

TEST_F(many, fan_keeps_each_moment)
{
	int i, bad = 0;

	for (i = 0; i < MANY; i++) {
		self->snap[i] = cow_snapshot(self->fd, 0);
		ASSERT_GE(self->snap[i], 0);
		ASSERT_TRUE(write_byte(self->fd, 3 * PAGE, i + 1));
	}
	for (i = 0; i < MANY; i++) {
		bad += read_byte(self->snap[i], 3 * PAGE) !=
		       (i ? i : value_of(3));
		bad += read_byte(self->snap[i], 3 * PAGE + 1) != value_of(3);
		bad += read_byte(self->snap[i], 4 * PAGE) != value_of(4);
	}
	EXPECT_EQ(0, bad);
	EXPECT_EQ(MANY, cow_stat(self->fd).snapshots);
	EXPECT_EQ(MANY, cow_stat(self->fd).copied);
}

TEST_F(many, fan_of_clones_of_one_frozen_snapshot)
{
	int snap = cow_snapshot(self->fd, 0), i, bad = 0;

	ASSERT_GE(snap, 0);
	for (i = 0; i < MANY; i++) {
		self->snap[i] = cow_snapshot(snap, COWMEM_WRITABLE);
		ASSERT_GE(self->snap[i], 0);
		ASSERT_TRUE(write_byte(self->snap[i], 3 * PAGE, i + 1));
	}
	for (i = 0; i < MANY; i++)
		bad += read_byte(self->snap[i], 3 * PAGE) != i + 1;
	EXPECT_EQ(0, bad);
	EXPECT_TRUE(file_filled(snap));
}

/*
 * Sizes and holes
 */

FIXTURE(shape)
{
	int fd;
};

FIXTURE_SETUP(shape)
{
	char data[SIZE];

	self->fd = cow_create(SIZE, "shape");
	ASSERT_GE(self->fd, 0);
	fill_pages(data, NR);
	ASSERT_EQ(SIZE, pwrite(self->fd, data, SIZE, 0));
}

FIXTURE_TEARDOWN(shape)
{
	close(self->fd);
}

TEST_F(shape, frozen_keeps_its_size_when_the_origin_grows)
{
	int snap = cow_snapshot(self->fd, 0);
	struct stat st;

	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, ftruncate(self->fd, 3 * SIZE));
	ASSERT_TRUE(write_byte(self->fd, 2 * SIZE, '!'));
	EXPECT_EQ(SIZE, cow_stat(snap).length);
	ASSERT_EQ(0, fstat(snap, &st));
	EXPECT_EQ(SIZE, st.st_size);
	EXPECT_EQ(-1, read_byte(snap, SIZE));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(shape, frozen_keeps_all_when_the_origin_shrinks_to_nothing)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, ftruncate(self->fd, 0));
	EXPECT_EQ(0, resident_pages(self->fd));
	EXPECT_EQ(NR, resident_pages(snap));
	EXPECT_TRUE(buffer_filled(snap));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE));
	EXPECT_EQ(0, read_byte(self->fd, 0));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(shape, frozen_keeps_the_rest_of_a_page_that_the_origin_cuts)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, ftruncate(self->fd, 2 * PAGE + 100));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE));
	EXPECT_EQ(value_of(2), read_byte(self->fd, 2 * PAGE + 99));
	EXPECT_EQ(0, read_byte(self->fd, 2 * PAGE + 100));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(shape, origin_keeps_its_size_when_a_clone_changes)
{
	int clone = cow_snapshot(self->fd, COWMEM_WRITABLE);

	ASSERT_GE(clone, 0);
	ASSERT_EQ(0, ftruncate(clone, PAGE));
	EXPECT_TRUE(buffer_filled(self->fd));
	ASSERT_EQ(0, ftruncate(clone, 2 * SIZE));
	EXPECT_EQ(SIZE, cow_stat(self->fd).length);
	EXPECT_TRUE(buffer_filled(self->fd));
}

TEST_F(shape, mapping_of_a_snapshot_ends_where_the_snapshot_does)
{
	volatile char value;
	char *q;
	int snap;

	ASSERT_EQ(0, ftruncate(self->fd, 4 * PAGE));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, ftruncate(self->fd, SIZE));
	q = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(0, COW_TRY(value = q[4 * PAGE - 1]));
	EXPECT_EQ(value_of(3), value);
	EXPECT_EQ(SIGBUS, COW_TRY(value = q[4 * PAGE]));
}

TEST_F(shape, of_an_empty_buffer)
{
	int empty = cow_create(0, "empty"), snap, clone;

	ASSERT_GE(empty, 0);
	snap = cow_snapshot(empty, 0);
	clone = cow_snapshot(empty, COWMEM_WRITABLE);
	ASSERT_GE(snap, 0);
	ASSERT_GE(clone, 0);
	EXPECT_EQ(0, cow_stat(snap).length);
	EXPECT_EQ(-1, read_byte(snap, 0));
	ASSERT_TRUE(write_byte(empty, 0, '1'));
	ASSERT_TRUE(write_byte(clone, 0, '2'));
	EXPECT_EQ(0, cow_stat(snap).length);
	EXPECT_EQ('1', read_byte(empty, 0));
	EXPECT_EQ('2', read_byte(clone, 0));
}

TEST_F(shape, of_a_device_handle_without_a_size)
{
	int dev = cow_open(), snap;

	ASSERT_GE(dev, 0);
	snap = cow_snapshot(dev, 0);
	ASSERT_GE(snap, 0);
	EXPECT_NE(MAP_FAILED, cow_map(dev, SIZE, RW));
	EXPECT_EQ(SIZE, cow_stat(dev).length);
	EXPECT_EQ(0, cow_stat(snap).length);
}

TEST_F(shape, of_an_odd_size)
{
	struct stat st;
	int snap;
	char *q;

	ASSERT_EQ(0, ftruncate(self->fd, 2 * PAGE + 123));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, fstat(snap, &st));
	EXPECT_EQ(2 * PAGE + 123, st.st_size);
	EXPECT_EQ(value_of(2), read_byte(snap, 2 * PAGE + 122));
	EXPECT_EQ(-1, read_byte(snap, 2 * PAGE + 123));
	ASSERT_TRUE(write_byte(self->fd, 2 * PAGE + 200, '!'));
	EXPECT_EQ(2 * PAGE + 123, cow_stat(snap).length);
	q = cow_map(snap, 3 * PAGE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(0, q[2 * PAGE + 200]);
}

TEST_F(shape, holes_stay_holes)
{
	int sparse = cow_create(SIZE, "sparse"), snap;
	char *p, *q;

	ASSERT_GE(sparse, 0);
	p = cow_map(sparse, SIZE, RW);
	ASSERT_NE(MAP_FAILED, p);
	p[4 * PAGE] = '!';
	snap = cow_snapshot(sparse, 0);
	ASSERT_GE(snap, 0);
	q = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(page_is(q, 0));
	fill_pages(p, NR);
	EXPECT_TRUE(page_is(q, 0));
	EXPECT_TRUE(page_is(q + 5 * PAGE, 0));
	EXPECT_EQ('!', q[4 * PAGE]);
	EXPECT_EQ(1, resident_pages(snap));
	EXPECT_EQ(NR, resident_pages(sparse));
	EXPECT_EQ(4 * PAGE, lseek(snap, 0, SEEK_DATA));
	EXPECT_EQ(5 * PAGE, lseek(snap, 4 * PAGE, SEEK_HOLE));
	EXPECT_EQ(-1, lseek(snap, 5 * PAGE, SEEK_DATA));
}

TEST_F(shape, hole_that_is_mapped_across_a_snapshot_can_be_written)
{
	int sparse = cow_create(SIZE, "sparse"), snap;
	char *p;

	ASSERT_GE(sparse, 0);
	p = cow_map(sparse, SIZE, RW);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_TRUE(page_is(p, 0));
	snap = cow_snapshot(sparse, 0);
	ASSERT_GE(snap, 0);
	p[0] = '!';
	EXPECT_EQ('!', p[0]);
	EXPECT_EQ(1, cow_stat(sparse).filled);
	EXPECT_EQ(0, cow_stat(sparse).copied);
	EXPECT_EQ(0, read_byte(snap, 0));
	EXPECT_EQ(0, resident_pages(snap));
}

/*
 * What a first write costs
 */

struct counts {
	long faults, filled, copied, reused, held, pages;
};

static struct counts counts_now(int fd)
{
	struct cowmem_stat stat = cow_stat(fd);

	return (struct counts) {
		.faults = stat.faults,
		.filled = stat.filled,
		.copied = stat.copied,
		.reused = stat.reused,
		.held = stat.held,
		.pages = cow_param("pages"),
	};
}

static struct counts counts_since(int fd, struct counts old)
{
	struct counts now = counts_now(fd);

	return (struct counts) {
		.faults = now.faults - old.faults,
		.filled = now.filled - old.filled,
		.copied = now.copied - old.copied,
		.reused = now.reused - old.reused,
		.held = now.held - old.held,
		.pages = now.pages - old.pages,
	};
}

FIXTURE(cost)
{
	int fd;
	char *p;
	int snap;
	char *q;	/* mapping of the snapshot, or NULL */
	struct counts before;
};

FIXTURE_VARIANT(cost)
{
	bool mapped;	/* the origin's pages have been read since the snapshot */
	bool snap_mapped;	/* and those of the snapshot */
};

FIXTURE_VARIANT_ADD(cost, unmapped) { };
FIXTURE_VARIANT_ADD(cost, mapped) { .mapped = true };
FIXTURE_VARIANT_ADD(cost, snapshot_mapped) { .snap_mapped = true };
FIXTURE_VARIANT_ADD(cost, both_mapped) { .mapped = true, .snap_mapped = true };

FIXTURE_SETUP(cost)
{
	char local;

	self->fd = cow_create_mapped(SIZE, "cost", &self->p);
	ASSERT_GE(self->fd, 0);
	fill_pages(self->p, NR);
	self->snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(self->snap, 0);
	if (variant->mapped)
		ASSERT_TRUE(pages_filled(self->p, 0, NR));
	if (variant->snap_mapped) {
		self->q = cow_map(self->snap, SIZE, PROT_READ);
		ASSERT_NE(MAP_FAILED, self->q);
		ASSERT_TRUE(pages_filled(self->q, 0, NR));
	}
	/* Faults of the measuring itself. */
	faults_of_store(&local, 0);
	counts_since(self->fd, counts_now(self->fd));
	self->before = counts_now(self->fd);
}

FIXTURE_TEARDOWN(cost)
{
	close(self->fd);
}

TEST_F(cost, first_store_is_one_fault_and_one_copy)
{
	struct counts since;

	EXPECT_EQ(1, faults_of_store(self->p + 5 * PAGE, '!'));
	since = counts_since(self->fd, self->before);
	EXPECT_EQ(1, since.faults);
	EXPECT_EQ(1, since.copied);
	EXPECT_EQ(1, since.pages);
	EXPECT_EQ(0, since.reused);
	EXPECT_EQ(0, since.filled);
	EXPECT_EQ(0, since.held);
	EXPECT_TRUE(file_filled(self->snap));
}

TEST_F(cost, second_store_is_free)
{
	struct counts since;

	self->p[5 * PAGE] = '!';
	self->before = counts_now(self->fd);
	EXPECT_EQ(0, faults_of_store(self->p + 5 * PAGE + 1, '!'));
	since = counts_since(self->fd, self->before);
	EXPECT_EQ(0, since.faults);
	EXPECT_EQ(0, since.copied);
	EXPECT_EQ(0, since.pages);
}

TEST_F(cost, every_page_is_copied_once)
{
	struct counts since;

	memset(self->p, '!', SIZE);
	memset(self->p, '?', SIZE);
	since = counts_since(self->fd, self->before);
	EXPECT_EQ(NR, since.faults);
	EXPECT_EQ(NR, since.copied);
	EXPECT_EQ(NR, since.pages);
	EXPECT_TRUE(file_filled(self->snap));
}

TEST_F(cost, neighbours_are_left_alone)
{
	struct counts since;

	self->p[5 * PAGE] = '!';
	EXPECT_TRUE(page_is(self->p + 4 * PAGE, value_of(4)));
	EXPECT_TRUE(page_is(self->p + 6 * PAGE, value_of(6)));
	since = counts_since(self->fd, self->before);
	EXPECT_EQ(1, since.copied);
	EXPECT_EQ(variant->mapped ? 1 : 3, since.faults);
	EXPECT_EQ(1, faults_of_store(self->p + 6 * PAGE, '!'));
	EXPECT_EQ(2, counts_since(self->fd, self->before).copied);
}

TEST_F(cost, write_copies_once_without_a_fault)
{
	struct counts since;

	ASSERT_TRUE(write_byte(self->fd, 5 * PAGE, '!'));
	ASSERT_TRUE(write_byte(self->fd, 5 * PAGE + 1, '!'));
	since = counts_since(self->fd, self->before);
	EXPECT_EQ(0, since.faults);
	EXPECT_EQ(1, since.copied);
	EXPECT_EQ(1, since.pages);
	EXPECT_EQ('!', self->p[5 * PAGE]);
	EXPECT_EQ('!', self->p[5 * PAGE + 1]);
	EXPECT_TRUE(file_filled(self->snap));
}

TEST_F(cost, store_after_write_copies_no_more)
{
	struct counts since;

	ASSERT_TRUE(write_byte(self->fd, 5 * PAGE, '!'));
	EXPECT_EQ(1, faults_of_store(self->p + 5 * PAGE, '?'));
	since = counts_since(self->fd, self->before);
	EXPECT_EQ(1, since.copied);
	EXPECT_EQ(1, since.pages);
	EXPECT_EQ('?', read_byte(self->fd, 5 * PAGE));
}

TEST_F(cost, two_mappings_make_one_copy)
{
	char *q = cow_map(self->fd, SIZE, RW);
	struct counts since;

	ASSERT_NE(MAP_FAILED, q);
	if (variant->mapped)
		EXPECT_TRUE(pages_filled(q, 0, NR));
	self->before = counts_now(self->fd);
	EXPECT_EQ(1, faults_of_store(self->p + 5 * PAGE, '1'));
	EXPECT_EQ(1, faults_of_store(q + 5 * PAGE + 1, '2'));
	since = counts_since(self->fd, self->before);
	EXPECT_EQ(2, since.faults);
	EXPECT_EQ(1, since.copied);
	EXPECT_EQ(1, since.pages);
	EXPECT_EQ('1', q[5 * PAGE]);
	EXPECT_EQ('2', self->p[5 * PAGE + 1]);
	EXPECT_TRUE(file_filled(self->snap));
}

TEST_F(cost, store_in_a_child_makes_one_copy)
{
	struct counts since;

	EXPECT_EQ(0, CHILD(self->p[5 * PAGE] = '!'));
	EXPECT_EQ('!', self->p[5 * PAGE]);
	self->p[5 * PAGE] = '?';
	since = counts_since(self->fd, self->before);
	EXPECT_EQ(1, since.copied);
	EXPECT_EQ(1, since.pages);
	EXPECT_TRUE(file_filled(self->snap));
}

TEST_F(cost, clone_copies_for_itself)
{
	int clone = cow_snapshot(self->snap, COWMEM_WRITABLE);
	struct counts before, since;

	ASSERT_GE(clone, 0);
	before = counts_now(clone);
	ASSERT_TRUE(write_byte(clone, 5 * PAGE, '!'));
	since = counts_since(clone, before);
	EXPECT_EQ(1, since.copied);
	EXPECT_EQ(1, since.pages);
	EXPECT_EQ(0, counts_since(self->fd, self->before).copied);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	EXPECT_TRUE(file_filled(self->snap));
}

TEST_F(cost, each_snapshot_costs_a_copy_again)
{
	int i;

	for (i = 1; i <= 5; i++) {
		EXPECT_EQ(1, faults_of_store(self->p + 5 * PAGE, '0' + i));
		EXPECT_EQ(i, counts_since(self->fd, self->before).copied);
		EXPECT_EQ(i, counts_since(self->fd, self->before).pages);
		ASSERT_GE(cow_snapshot(self->fd, 0), 0);
	}
}

TEST_F(cost, page_that_is_not_written_stays_mapped_across_snapshots)
{
	ASSERT_GE(cow_snapshot(self->fd, 0), 0);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	EXPECT_EQ(variant->mapped ? 0 : NR,
		  counts_since(self->fd, self->before).faults);
	ASSERT_GE(cow_snapshot(self->fd, 0), 0);
	self->before = counts_now(self->fd);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	EXPECT_EQ(0, counts_since(self->fd, self->before).faults);
}

/* With its mapping, which would keep it. */
static void drop_snapshot(FIXTURE_DATA(cost) *self)
{
	if (self->q)
		munmap(self->q, SIZE);
	close(self->snap);
	self->before = counts_now(self->fd);
}

TEST_F(cost, last_owner_stores_without_a_copy)
{
	struct counts since;

	drop_snapshot(self);
	EXPECT_EQ(1, faults_of_store(self->p + 5 * PAGE, '!'));
	since = counts_since(self->fd, self->before);
	EXPECT_EQ(1, since.faults);
	EXPECT_EQ(0, since.copied);
	EXPECT_EQ(1, since.reused);
	EXPECT_EQ(0, since.held);
	EXPECT_EQ(0, since.pages);
	EXPECT_EQ('!', self->p[5 * PAGE]);
	EXPECT_EQ(value_of(5), self->p[5 * PAGE + 1]);
}

TEST_F(cost, last_owner_writes_without_a_copy)
{
	struct counts since;

	drop_snapshot(self);
	ASSERT_TRUE(write_byte(self->fd, 5 * PAGE, '!'));
	since = counts_since(self->fd, self->before);
	EXPECT_EQ(0, since.copied);
	EXPECT_EQ(1, since.reused);
	EXPECT_EQ(0, since.held);
	EXPECT_EQ(0, since.pages);
	EXPECT_EQ('!', self->p[5 * PAGE]);
}

TEST_F(cost, mapping_of_a_closed_snapshot_still_shares)
{
	char *q = cow_map(self->snap, SIZE, PROT_READ);
	struct counts since;

	ASSERT_NE(MAP_FAILED, q);
	close(self->snap);
	self->p[5 * PAGE] = '!';
	since = counts_since(self->fd, self->before);
	EXPECT_EQ(1, since.copied);
	EXPECT_EQ(0, since.reused);
	EXPECT_EQ(0, since.held);
	EXPECT_TRUE(pages_filled(q, 0, NR));
}

TEST_F(cost, clone_that_outlives_all_others_stores_without_a_copy)
{
	int clone = cow_snapshot(self->fd, COWMEM_WRITABLE);
	struct counts since;
	char *r;

	ASSERT_GE(clone, 0);
	r = cow_map(clone, SIZE, RW);
	ASSERT_NE(MAP_FAILED, r);
	EXPECT_TRUE(pages_filled(r, 0, NR));
	drop_snapshot(self);
	munmap(self->p, SIZE);
	close(self->fd);
	self->fd = clone;
	self->before = counts_now(clone);
	fill_pages(r, NR);
	since = counts_since(clone, self->before);
	EXPECT_EQ(NR, since.faults);
	EXPECT_EQ(0, since.copied);
	EXPECT_EQ(NR, since.reused);
	EXPECT_EQ(0, since.pages);
}

/*
 * What a snapshot costs
 */

/* A buffer with @nr pages of data, and nothing written since a snapshot. */
static int clean_buffer(unsigned long nr)
{
	int fd = cow_create(nr * PAGE, "clean");
	char data[NR * PAGE];
	unsigned long i;

	memset(data, 1, sizeof(data));
	for (i = 0; i < nr; i += NR)
		if (pwrite(fd, data, sizeof(data), i * PAGE) != sizeof(data))
			return -1;
	close(cow_snapshot(fd, 0));
	return fd;
}

static void take_snapshot(int fd)
{
	close(cow_snapshot(fd, 0));
}

static void ask_STAT(int fd)
{
	cow_stat(fd);
}

/* The shortest of some. */
static double seconds_of(void (*call)(int fd), int fd)
{
	double best = 1e9, start, took;
	int i;

	for (i = 0; i < 20; i++) {
		start = seconds_now();
		call(fd);
		took = seconds_now() - start;
		if (took < best)
			best = took;
	}
	return best;
}

FIXTURE(size)
{
	int small, large;
};

FIXTURE_SETUP(size)
{
	self->small = clean_buffer((64 << 10) / PAGE);
	self->large = clean_buffer((64 << 20) / PAGE);
	ASSERT_GE(self->small, 0);
	ASSERT_GE(self->large, 0);
}

FIXTURE_TEARDOWN(size)
{
	close(self->small);
	close(self->large);
}

static void compare_times(struct __test_metadata *_metadata,
			  FIXTURE_DATA(size) *self, void (*call)(int fd))
{
	double small = seconds_of(call, self->small);
	double large = seconds_of(call, self->large);

	TH_LOG("64 KiB: %.1f us, 64 MiB: %.1f us", small * 1e6, large * 1e6);
	/* Only a check that it is not 1,024 times as long. */
	EXPECT_LT(large, 20 * small);
}

TEST_F(size, does_not_matter_for_the_time_of_a_snapshot)
{
	compare_times(_metadata, self, take_snapshot);
}

TEST_F(size, does_not_matter_for_the_time_of_STAT)
{
	compare_times(_metadata, self, ask_STAT);
}

#define NR_CLONES	500

static long slab_bytes(void)
{
	char line[128];
	FILE *meminfo = fopen("/proc/meminfo", "r");
	long kb = -1;

	while (meminfo && fgets(line, sizeof(line), meminfo))
		if (sscanf(line, "Slab: %ld", &kb) == 1)
			break;
	if (meminfo)
		fclose(meminfo);
	return kb * 1024;
}

/* Bytes that the kernel allocates for a clone, but for pages and the index. */
static long bytes_of_clone(int fd)
{
	int clone[NR_CLONES], i, failed = 0;
	long before = slab_bytes(), after;

	for (i = 0; i < NR_CLONES; i++) {
		clone[i] = cow_snapshot(fd, COWMEM_WRITABLE);
		failed += clone[i] < 0;
	}
	after = slab_bytes();
	for (i = 0; i < NR_CLONES; i++)
		close(clone[i]);
	return failed ? LONG_MAX : (after - before) / NR_CLONES;
}

TEST_F(size, does_not_matter_for_the_few_KiB_of_a_clone)
{
	/* A kernel with checkers has theirs beside each lock and each object. */
	bool checked = !access("/sys/kernel/debug/kmemleak", F_OK);
	/* In this order: what is freed now may be there for the next. */
	long large = bytes_of_clone(self->large);
	long small = bytes_of_clone(self->small);

	TH_LOG("of 64 KiB: %ld bytes, of 64 MiB: %ld bytes", small, large);
	EXPECT_LT(small, checked ? 32768 : 4096);
	EXPECT_LT(large, checked ? 32768 : 4096);
}

TEST(snapshot_of_a_clean_buffer_allocates_no_page_and_no_node)
{
	int fd = clean_buffer(1024), snap;
	long pages = cow_param("pages"), nodes = cow_param("nodes");

	ASSERT_GE(fd, 0);
	snap = cow_snapshot(fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(pages, cow_param("pages"));
	EXPECT_EQ(nodes, cow_param("nodes"));
	close(snap);
	EXPECT_EQ(pages, cow_param("pages"));
	EXPECT_EQ(nodes, cow_param("nodes"));
}

TEST(snapshot_of_a_written_buffer_allocates_no_page_and_no_node)
{
	int fd = cow_create(SIZE, "dirty"), snap;
	long pages, nodes;
	char *p;

	ASSERT_GE(fd, 0);
	p = cow_map(fd, SIZE, RW);
	ASSERT_NE(MAP_FAILED, p);
	fill_pages(p, NR);
	pages = cow_param("pages");
	nodes = cow_param("nodes");
	snap = cow_snapshot(fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(pages, cow_param("pages"));
	EXPECT_EQ(nodes, cow_param("nodes"));
}

/*
 * Pages that somebody else holds: here, a pipe
 */

FIXTURE(held)
{
	int fd;
	char *p;
	int pipefd[2];
	long pages;
};

FIXTURE_SETUP(held)
{
	self->fd = cow_create_mapped(SIZE, "held", &self->p);
	ASSERT_GE(self->fd, 0);
	fill_pages(self->p, NR);
	ASSERT_EQ(0, pipe(self->pipefd));
	self->pages = cow_param("pages");
}

FIXTURE_TEARDOWN(held)
{
	close(self->fd);
}

/* Let the pipe hold page 3 of a snapshot that is closed then. */
static bool hold_page_of_gone_snapshot(int fd, int pipefd[2])
{
	int snap = cow_snapshot(fd, 0);
	char *q = cow_map(snap, SIZE, PROT_READ);
	bool held = q != MAP_FAILED && pipe_hold(pipefd, q + 3 * PAGE);

	munmap(q, SIZE);
	close(snap);
	return held;
}

TEST_F(held, page_of_a_gone_snapshot_is_not_reused)
{
	ASSERT_TRUE(hold_page_of_gone_snapshot(self->fd, self->pipefd));

	memset(self->p + 3 * PAGE, '!', PAGE);
	EXPECT_EQ(1, cow_stat(self->fd).held);
	EXPECT_EQ(1, cow_stat(self->fd).copied);
	EXPECT_EQ(0, cow_stat(self->fd).reused);
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_TRUE(pipe_has(self->pipefd, value_of(3)));
	EXPECT_TRUE(page_is(self->p + 3 * PAGE, '!'));

	memset(self->p + 4 * PAGE, '!', PAGE);
	EXPECT_EQ(1, cow_stat(self->fd).held);
	EXPECT_EQ(1, cow_stat(self->fd).reused);
}

TEST_F(held, page_of_a_gone_snapshot_is_not_reused_by_write)
{
	ASSERT_TRUE(hold_page_of_gone_snapshot(self->fd, self->pipefd));

	ASSERT_TRUE(write_write(self->fd, self->p, 3, '!'));
	EXPECT_EQ(1, cow_stat(self->fd).held);
	EXPECT_TRUE(pipe_has(self->pipefd, value_of(3)));
	EXPECT_TRUE(page_is(self->p + 3 * PAGE, '!'));
}

TEST_F(held, store_that_fails_counts_nothing)
{
	struct counts before, now;

	NEED(LIMIT);
	ASSERT_TRUE(hold_page_of_gone_snapshot(self->fd, self->pipefd));
	ASSERT_EQ(0, cow_limit(self->fd, cow_stat(self->fd).charged));
	before = counts_now(self->fd);

	EXPECT_EQ(SIGBUS, COW_TRY(self->p[3 * PAGE] = '!'));
	EXPECT_EQ(-ENOSPC, write_page(self->fd, 3, '!'));
	now = counts_since(self->fd, before);
	EXPECT_EQ(0, now.filled);
	EXPECT_EQ(0, now.copied);
	EXPECT_EQ(0, now.reused);
	EXPECT_EQ(0, now.held);
	EXPECT_EQ(0, now.pages);
	EXPECT_TRUE(file_filled(self->fd));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));

	/* The very same store. */
	ASSERT_EQ(0, cow_limit(self->fd, COWMEM_NO_LIMIT));
	EXPECT_EQ(0, COW_TRY(self->p[3 * PAGE] = '!'));
	now = counts_since(self->fd, before);
	EXPECT_EQ(1, now.held);
	EXPECT_EQ(1, now.copied);
	EXPECT_EQ(0, now.reused);
	EXPECT_EQ('!', self->p[3 * PAGE]);
	EXPECT_TRUE(pipe_has(self->pipefd, value_of(3)));
}

#ifdef __x86_64__
/* One instruction that loads and stores. */
static void move_bytes(char *to, const char *from, size_t length)
{
	asm volatile("rep movsb"
		     : "+D" (to), "+S" (from), "+c" (length) : : "memory");
}

TEST_F(held, store_that_begins_with_a_load_fails_at_the_LIMIT)
{
	char *p = self->p + 3 * PAGE;

	NEED(LIMIT);
	ASSERT_TRUE(hold_page_of_gone_snapshot(self->fd, self->pipefd));
	ASSERT_EQ(0, cow_limit(self->fd, cow_stat(self->fd).charged));
	EXPECT_EQ(SIGBUS, COW_TRY(move_bytes(p + 100, p, 8)));
	ASSERT_EQ(0, cow_limit(self->fd, COWMEM_NO_LIMIT));
}
#endif

TEST_F(held, page_that_the_pipe_gave_back_is_reused)
{
	ASSERT_TRUE(hold_page_of_gone_snapshot(self->fd, self->pipefd));
	EXPECT_TRUE(pipe_has(self->pipefd, value_of(3)));

	memset(self->p + 3 * PAGE, '!', PAGE);
	EXPECT_EQ(0, cow_stat(self->fd).held);
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_EQ(1, cow_stat(self->fd).reused);
}

TEST_F(held, page_of_the_origin_held_after_a_snapshot_stays_as_it_was)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	ASSERT_TRUE(pipe_hold(self->pipefd, self->p + 3 * PAGE));
	memset(self->p + 3 * PAGE, '!', PAGE);
	EXPECT_TRUE(file_filled(snap));
	EXPECT_TRUE(pipe_has(self->pipefd, value_of(3)));
	EXPECT_TRUE(page_is(self->p + 3 * PAGE, '!'));
}

TEST_F(held, page_of_a_snapshot_in_a_pipe_outlives_every_buffer)
{
	ASSERT_TRUE(hold_page_of_gone_snapshot(self->fd, self->pipefd));
	memset(self->p, '!', SIZE);
	munmap(self->p, SIZE);
	close(self->fd);
	EXPECT_EQ(self->pages - NR, cow_param("pages"));
	EXPECT_TRUE(pipe_has(self->pipefd, value_of(3)));
	self->fd = -1;
}

TEST_F(held, page_held_before_a_snapshot_stays_with_the_live_buffer)
{
	int snap;
	char *q;

	ASSERT_TRUE(pipe_hold(self->pipefd, self->p + 3 * PAGE));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	q = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_EQ(self->pages + 1, cow_param("pages"));

	memset(self->p + 3 * PAGE, '!', PAGE);
	EXPECT_EQ(self->pages + 1, cow_param("pages"));
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_TRUE(file_filled(snap));
	EXPECT_TRUE(pipe_has(self->pipefd, '!'));
}

TEST_F(held, page_held_before_a_snapshot_is_copied_for_each)
{
	int first, second;

	ASSERT_TRUE(pipe_hold(self->pipefd, self->p + 3 * PAGE));
	first = cow_snapshot(self->fd, 0);
	ASSERT_GE(first, 0);
	memset(self->p + 3 * PAGE, '!', PAGE);
	second = cow_snapshot(self->fd, 0);
	ASSERT_GE(second, 0);
	memset(self->p + 3 * PAGE, '?', PAGE);
	EXPECT_TRUE(file_filled(first));
	EXPECT_EQ('!', read_byte(second, 3 * PAGE));
	EXPECT_TRUE(pipe_has(self->pipefd, '?'));
}

TEST_F(held, copy_made_for_a_snapshot_counts_as_held)
{
	int snap;

	ASSERT_TRUE(pipe_hold(self->pipefd, self->p + 3 * PAGE));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(1, cow_stat(self->fd).held);
	EXPECT_EQ(1, cow_stat(self->fd).copied);
}

TEST_F(held, locked_memory_is_not_held)
{
	char *q = cow_map(self->fd, SIZE, RW);
	int snap;

	ASSERT_NE(MAP_FAILED, q);
	if (mlock(self->p, SIZE) || mlock(q, SIZE))
		SKIP(return, "mlock: %s", strerror(errno));
	fill_pages(q, NR);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_EQ(0, cow_stat(self->fd).held);
	memset(self->p, '!', SIZE);
	EXPECT_TRUE(file_filled(snap));
}

/*
 * Mappings that a revocation might miss
 */

TEST_F(snapshot, store_after_mprotect_to_read_only_and_back)
{
	int snap;

	ASSERT_EQ(0, mprotect(self->p, SIZE, PROT_READ));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, mprotect(self->p, SIZE, RW));
	memset(self->p, '!', SIZE);
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(snapshot, store_after_mprotect_and_a_load)
{
	int snap;

	ASSERT_EQ(0, mprotect(self->p, SIZE, PROT_READ));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	ASSERT_EQ(0, mprotect(self->p, SIZE, RW));
	memset(self->p, '!', SIZE);
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(snapshot, store_after_mprotect_to_nothing_and_back)
{
	int snap;

	ASSERT_EQ(0, mprotect(self->p, SIZE, PROT_NONE));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, mprotect(self->p, SIZE, RW));
	memset(self->p, '!', SIZE);
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(snapshot, store_through_a_part_made_read_only)
{
	int snap;

	ASSERT_EQ(0, mprotect(self->p + PAGE, 2 * PAGE, PROT_READ));
	ASSERT_EQ(0, mprotect(self->p + 5 * PAGE, PAGE, PROT_NONE));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, mprotect(self->p, SIZE, RW));
	memset(self->p, '!', SIZE);
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(snapshot, store_after_clearing_soft_dirty)
{
	int refs = open("/proc/self/clear_refs", O_WRONLY), snap;

	if (refs < 0 || write(refs, "4", 1) != 1)
		SKIP(return, "no soft-dirty in this kernel");
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	ASSERT_EQ(1, write(refs, "4", 1));
	memset(self->p, '!', SIZE);
	EXPECT_TRUE(buffer_filled(snap));
	close(refs);
}

TEST_F(snapshot, store_through_a_mapping_moved_before)
{
	char *q = moved(self->p, SIZE);
	int snap;

	ASSERT_NE(MAP_FAILED, q);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	memset(q, '!', SIZE);
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(snapshot, store_through_a_mapping_moved_after)
{
	int snap = cow_snapshot(self->fd, 0);
	char *q;

	ASSERT_GE(snap, 0);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	q = moved(self->p, SIZE);
	ASSERT_NE(MAP_FAILED, q);
	memset(q, '!', SIZE);
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(snapshot, store_through_a_part_moved_before)
{
	char *q = moved(self->p + 4 * PAGE, 4 * PAGE);
	int snap;

	ASSERT_NE(MAP_FAILED, q);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	memset(q, '!', 4 * PAGE);
	memset(self->p, '!', 4 * PAGE);
	memset(self->p + 8 * PAGE, '!', SIZE - 8 * PAGE);
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(snapshot, store_through_a_mapping_at_another_offset)
{
	char *q = mmap(NULL, 3 * PAGE, RW, MAP_SHARED, self->fd, 7 * PAGE);
	int snap;

	ASSERT_NE(MAP_FAILED, q);
	memset(q, value_of(7), PAGE);
	memset(q + PAGE, value_of(8), PAGE);
	memset(q + 2 * PAGE, value_of(9), PAGE);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	memset(q, '!', 3 * PAGE);
	EXPECT_TRUE(buffer_filled(snap));
	EXPECT_TRUE(page_is(self->p + 9 * PAGE, '!'));
}

TEST_F(snapshot, store_through_many_mappings_of_one_page)
{
	char *q[32];
	unsigned int i;
	int snap;

	for (i = 0; i < 32; i++) {
		q[i] = mmap(NULL, PAGE, RW, MAP_SHARED, self->fd, 2 * PAGE);
		ASSERT_NE(MAP_FAILED, q[i]);
		q[i][i] = value_of(2);
	}
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	for (i = 0; i < 32; i++)
		q[i][i] = '!';
	EXPECT_TRUE(buffer_filled(snap));
	EXPECT_EQ(1, cow_stat(self->fd).copied);
	for (i = 0; i < 32; i++)
		EXPECT_EQ('!', self->p[2 * PAGE + i]);
}

/* A child that has its own writable PTEs, and uses them when told to. */
static pid_t start_writer(char *p)
{
	pid_t pid = fork();
	int status;

	if (pid) {
		waitpid(pid, &status, WUNTRACED);
		return WIFSTOPPED(status) ? pid : -1;
	}
	fill_pages(p, NR);
	raise(SIGSTOP);
	memset(p, '!', SIZE);
	_exit(0);
}

static bool let_write(pid_t pid)
{
	int status = -1;

	kill(pid, SIGCONT);
	return waitpid(pid, &status, 0) == pid && !status;
}

TEST_F(snapshot, store_by_a_child_forked_before)
{
	pid_t pid = start_writer(self->p);
	int snap;

	ASSERT_GT(pid, 0);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_TRUE(let_write(pid));
	EXPECT_TRUE(buffer_filled(snap));
	EXPECT_TRUE(page_is(self->p, '!'));
}

TEST_F(snapshot, store_by_two_children_and_the_parent)
{
	pid_t first = start_writer(self->p), second = start_writer(self->p);
	int snap;

	ASSERT_GT(first, 0);
	ASSERT_GT(second, 0);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_TRUE(let_write(first));
	memset(self->p, '?', SIZE);
	EXPECT_TRUE(let_write(second));
	EXPECT_TRUE(buffer_filled(snap));
	EXPECT_EQ(NR, cow_stat(self->fd).copied);
	EXPECT_TRUE(page_is(self->p, '!'));
}

TEST_F(snapshot, store_by_a_child_that_took_it)
{
	/* The child's fd dies with it: the snapshot is for the parent's data. */
	EXPECT_EQ(0, CHILD({
		int snap = cow_snapshot(self->fd, 0);

		memset(self->p, '!', SIZE);
		_exit(snap >= 0 && file_filled(snap) ? 0 : 1);
	}));
	EXPECT_TRUE(page_is(self->p, '!'));
	fill_pages(self->p, NR);
	EXPECT_EQ(NR, cow_stat(self->fd).copied);
}

TEST_F(snapshot, store_through_a_mapping_whose_handle_is_closed)
{
	int file = cow_file(self->fd, 0), snap;
	char *q;

	ASSERT_GE(file, 0);
	q = cow_map(file, SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	close(file);
	fill_pages(q, NR);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	memset(q, '!', SIZE);
	EXPECT_TRUE(buffer_filled(snap));
	EXPECT_TRUE(page_is(self->p, '!'));
}

TEST_F(snapshot, private_mapping_follows_across_it)
{
	char *q = mmap(NULL, SIZE, RW, MAP_PRIVATE, self->fd, 0);
	int snap;

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	q[0] = '1';
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ('1', q[0]);
	memset(self->p, '!', SIZE);
	EXPECT_EQ('1', q[0]);
	EXPECT_EQ(value_of(0), q[1]);
	EXPECT_TRUE(page_is(q + PAGE, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

/*
 * Snapshots while others write: one word a page, and a number that every round
 * stores to the first page, then to the second, and so on.
 */

struct race {
	int fd;
	char *p;
	volatile bool stop;
	void (*disturb)(struct race *race);
};

static volatile unsigned long *word_of(char *p, unsigned long index)
{
	return (volatile unsigned long *)(p + index * PAGE);
}

static void *race_write(void *data)
{
	struct race *race = data;
	unsigned long round, i;

	for (round = 1; !race->stop; round++)
		for (i = 0; i < NR / 2; i++)
			*word_of(race->p, i) = round;
	return NULL;
}

static void *race_disturb(void *data)
{
	struct race *race = data;

	while (!race->stop)
		race->disturb(race);
	return NULL;
}

/* The other half of the pages is for those who disturb. */
static void touch_other_half(char *p)
{
	unsigned long i;

	for (i = NR / 2; i < NR; i++)
		(*word_of(p, i))++;
}

static void disturb_write(struct race *race)
{
	touch_other_half(race->p);
}

static void disturb_dontneed(struct race *race)
{
	touch_other_half(race->p);
	madvise(race->p, SIZE, MADV_DONTNEED);
}

static void disturb_mprotect(struct race *race)
{
	char *q = cow_map(race->fd, SIZE, RW);

	touch_other_half(q);
	mprotect(q, SIZE, PROT_READ);
	mprotect(q, SIZE, RW);
	touch_other_half(q);
	mprotect(q, SIZE, PROT_NONE);
	mprotect(q, SIZE, RW);
	touch_other_half(q);
	munmap(q, SIZE);
}

static void disturb_mremap(struct race *race)
{
	char *q = cow_map(race->fd, SIZE, RW);

	touch_other_half(q);
	q = moved(q, SIZE);
	touch_other_half(q);
	munmap(q, SIZE);
}

static void disturb_munmap(struct race *race)
{
	char *q = cow_map(race->fd, SIZE, RW);

	touch_other_half(q);
	munmap(q, SIZE);
}

static void disturb_fork(struct race *race)
{
	CHILD(touch_other_half(race->p));
}

static void disturb_write_call(struct race *race)
{
	write_write(race->fd, race->p, NR - 1, '!');
}

static void disturb_snapshot(struct race *race)
{
	close(cow_snapshot(race->fd, 0));
	touch_other_half(race->p);
}

FIXTURE(race)
{
	struct race race;
	pthread_t writer, disturber;
};

FIXTURE_VARIANT(race)
{
	void (*disturb)(struct race *race);
};

FIXTURE_VARIANT_ADD(race, stores) { .disturb = disturb_write };
FIXTURE_VARIANT_ADD(race, dontneed) { .disturb = disturb_dontneed };
FIXTURE_VARIANT_ADD(race, mprotect) { .disturb = disturb_mprotect };
FIXTURE_VARIANT_ADD(race, mremap) { .disturb = disturb_mremap };
FIXTURE_VARIANT_ADD(race, munmap) { .disturb = disturb_munmap };
FIXTURE_VARIANT_ADD(race, fork) { .disturb = disturb_fork };
FIXTURE_VARIANT_ADD(race, write) { .disturb = disturb_write_call };
FIXTURE_VARIANT_ADD(race, snapshot) { .disturb = disturb_snapshot };

FIXTURE_SETUP(race)
{
	self->race.fd = cow_create_mapped(SIZE, "race", &self->race.p);
	ASSERT_GE(self->race.fd, 0);
	self->race.disturb = variant->disturb;
	ASSERT_EQ(0, pthread_create(&self->writer, NULL, race_write,
				    &self->race));
	ASSERT_EQ(0, pthread_create(&self->disturber, NULL, race_disturb,
				    &self->race));
}

FIXTURE_TEARDOWN(race)
{
	close(self->race.fd);
}

#define RACE_SNAPSHOTS	20

/* A later page never has more rounds than an earlier one, nor two less. */
static bool in_order(char *p)
{
	unsigned long i;

	for (i = 1; i < NR / 2; i++)
		if (*word_of(p, i) > *word_of(p, i - 1))
			return false;
	return *word_of(p, 0) - *word_of(p, NR / 2 - 1) <= 1;
}

TEST_F(race, snapshots_are_cuts_and_never_change)
{
	static char taken[RACE_SNAPSHOTS][SIZE], later[SIZE];
	int snap[RACE_SNAPSHOTS], i, bad = 0;

	for (i = 0; i < RACE_SNAPSHOTS; i++) {
		usleep(2000);
		snap[i] = cow_snapshot(self->race.fd, 0);
		ASSERT_GE(snap[i], 0);
		ASSERT_EQ(SIZE, pread(snap[i], taken[i], SIZE, 0));
		bad += !in_order(taken[i]);
	}
	EXPECT_EQ(0, bad);
	self->race.stop = true;
	pthread_join(self->writer, NULL);
	pthread_join(self->disturber, NULL);
	for (i = 0, bad = 0; i < RACE_SNAPSHOTS; i++) {
		ASSERT_EQ(SIZE, pread(snap[i], later, SIZE, 0));
		bad += !!memcmp(taken[i], later, SIZE);
	}
	EXPECT_EQ(0, bad);
	EXPECT_TRUE(in_order(self->race.p));
}

TEST_HARNESS_MAIN
