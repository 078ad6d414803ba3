// SPDX-License-Identifier: GPL-2.0
/*
 * Mappings of a buffer, without snapshots: sizes, ends, holes, what mmap(),
 * mremap(), mprotect(), madvise() and fork() do to them, access from other
 * processes, private copies, locks that faults take, futexes, and what /proc
 * shows.
 */
#include <pthread.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <linux/futex.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>

#include "common.h"
#include "harness.h"
#include "util.h"

#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC	(1 << 15)
#endif

#define NR		16UL
#define SIZE		(NR * PAGE)

/*
 * Buffers that have no size yet
 */

FIXTURE(unsized)
{
	int fd;
};

FIXTURE_SETUP(unsized)
{
	self->fd = cow_open();
	ASSERT_GE(self->fd, 0);
	ASSERT_EQ(0, cow_stat(self->fd).length);
}

FIXTURE_TEARDOWN(unsized)
{
	close(self->fd);
}

TEST_F(unsized, first_mmap_gives_the_size)
{
	char *p = cow_map(self->fd, SIZE, RW);

	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(SIZE, cow_stat(self->fd).length);
	fill_pages(p, NR);
	EXPECT_TRUE(pages_filled(p, 0, NR));
}

TEST_F(unsized, size_is_offset_plus_length)
{
	char *p = mmap(NULL, SIZE, RW, MAP_SHARED, self->fd, 3 * PAGE);

	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(SIZE + 3 * PAGE, cow_stat(self->fd).length);
	p[0] = 1;
	EXPECT_EQ(1, pread(self->fd, p + 1, 1, 3 * PAGE));
	EXPECT_EQ(1, p[1]);
}

TEST_F(unsized, odd_length_counts_as_whole_pages)
{
	char *p = cow_map(self->fd, PAGE + 1, RW);

	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(2 * PAGE, cow_stat(self->fd).length);
	EXPECT_EQ(0, COW_TRY(p[2 * PAGE - 1] = 1));
}

TEST_F(unsized, private_mmap_gives_the_size)
{
	char *p = map_private(self->fd, SIZE, RW);

	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(SIZE, cow_stat(self->fd).length);
	EXPECT_EQ(0, COW_TRY(p[SIZE - 1] = 1));
	EXPECT_EQ(0, resident_pages(self->fd));
}

TEST_F(unsized, second_mmap_does_not_resize)
{
	volatile char value = 0;
	char *p, *q;

	p = cow_map(self->fd, SIZE, RW);
	ASSERT_NE(MAP_FAILED, p);
	q = cow_map(self->fd, 2 * SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(SIZE, cow_stat(self->fd).length);
	EXPECT_EQ(0, COW_TRY(q[SIZE - 1] = 1));
	EXPECT_EQ(SIGBUS, COW_TRY(q[SIZE] = 1));
	EXPECT_EQ(SIGBUS, COW_TRY(value = q[SIZE]));
	EXPECT_EQ(0, value);
	EXPECT_NE(MAP_FAILED, cow_map(self->fd, PAGE, RW));
	EXPECT_EQ(SIZE, cow_stat(self->fd).length);
}

TEST_F(unsized, refused_mmap_leaves_it_unsized)
{
	EXPECT_EQ(MAP_FAILED, cow_map(self->fd, SIZE, RW | PROT_EXEC));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(0, cow_stat(self->fd).length);
}

TEST_F(unsized, size_from_write_is_not_changed_by_mmap)
{
	char *p;

	ASSERT_EQ(5, write(self->fd, "hello", 5));
	p = cow_map(self->fd, SIZE, RW);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(5, cow_stat(self->fd).length);
	EXPECT_EQ(0, memcmp(p, "hello", 6));
	EXPECT_EQ(SIGBUS, COW_TRY(p[PAGE] = 1));
}

TEST_F(unsized, each_open_makes_another_buffer)
{
	int other = cow_open();
	char *p, *q;

	ASSERT_GE(other, 0);
	EXPECT_NE(cow_stat(self->fd).id, cow_stat(other).id);
	p = cow_map(self->fd, PAGE, RW);
	q = cow_map(other, PAGE, RW);
	ASSERT_NE(MAP_FAILED, p);
	ASSERT_NE(MAP_FAILED, q);
	p[0] = 1;
	EXPECT_EQ(0, q[0]);
	close(other);
}

TEST_F(unsized, mapping_lives_on_after_close)
{
	int fd = cow_open();
	char *p;

	ASSERT_GE(fd, 0);
	p = cow_map(fd, SIZE, RW);
	ASSERT_NE(MAP_FAILED, p);
	p[0] = 1;
	close(fd);
	fill_pages(p, NR);
	EXPECT_TRUE(pages_filled(p, 0, NR));
}

TEST_F(unsized, mmap_ends_at_most_at_the_largest_size)
{
	struct cowmem_query query = { .size = sizeof(query) };
	char *p;

	ASSERT_EQ(0, cow_ioctl(self->fd, COWMEM_QUERY, &query));
	p = mmap(NULL, 2 * PAGE, RW, MAP_SHARED, self->fd,
		 query.max_size - PAGE);
	EXPECT_EQ(MAP_FAILED, p);
	EXPECT_TRUE(errno == EOVERFLOW || errno == EFBIG);
	EXPECT_EQ(0, cow_stat(self->fd).length);

	p = mmap(NULL, PAGE, RW, MAP_SHARED, self->fd, query.max_size - PAGE);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(query.max_size, cow_stat(self->fd).length);
	p[PAGE - 1] = 7;
	EXPECT_EQ(7, p[PAGE - 1]);
	EXPECT_EQ(1, resident_pages(self->fd));
}

TEST_F(unsized, file_is_not_sized_by_mmap)
{
	int file = cow_file(self->fd, 0);
	char *p;

	ASSERT_GE(file, 0);
	p = cow_map(file, PAGE, RW);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(0, cow_stat(file).length);
	EXPECT_EQ(SIGBUS, COW_TRY(p[0] = 1));
	close(file);
}

/*
 * Large and sparse
 */

FIXTURE(sparse)
{
	int fd;
	char *p;
};

FIXTURE_VARIANT(sparse)
{
	int flags;
};

FIXTURE_VARIANT_ADD(sparse, shared) { .flags = MAP_SHARED };
FIXTURE_VARIANT_ADD(sparse, private) { .flags = MAP_PRIVATE | MAP_NORESERVE };

FIXTURE_SETUP(sparse)
{
	self->fd = cow_create(16 * GIB, "sparse");
	ASSERT_GE(self->fd, 0);
	self->p = mmap(NULL, 16 * GIB, RW, variant->flags, self->fd, 0);
	ASSERT_NE(MAP_FAILED, self->p);
}

FIXTURE_TEARDOWN(sparse)
{
	munmap(self->p, 16 * GIB);
	close(self->fd);
}

TEST_F(sparse, pages_far_apart_cost_only_themselves)
{
	static const unsigned long offsets[] = {
		0, PAGE, 2 << 20, GIB - PAGE, GIB, 8 * GIB + 5 * PAGE,
		16 * GIB - PAGE,
	};
	bool shared = variant->flags == MAP_SHARED;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(offsets); i++)
		memset(self->p + offsets[i], i + 1, PAGE);
	for (i = 0; i < ARRAY_SIZE(offsets); i++)
		EXPECT_TRUE(page_is(self->p + offsets[i], i + 1));
	EXPECT_TRUE(page_is(self->p + 2 * PAGE, 0));
	EXPECT_TRUE(page_is(self->p + 12 * GIB, 0));
	EXPECT_TRUE(page_is(self->p + 16 * GIB - 2 * PAGE, 0));
	EXPECT_EQ(shared ? ARRAY_SIZE(offsets) : 0, resident_pages(self->fd));
}

TEST_F(sparse, last_byte_is_reached_through_every_way)
{
	char value = 3;

	ASSERT_EQ(1, pwrite(self->fd, &value, 1, 16 * GIB - 1));
	EXPECT_EQ(3, self->p[16 * GIB - 1]);
	EXPECT_EQ(1, pread(self->fd, &value, 1, 16 * GIB - 1));
	EXPECT_EQ(3, value);
	EXPECT_EQ(0, pread(self->fd, &value, 1, 16 * GIB));
	EXPECT_EQ(1, resident_pages(self->fd));
}

TEST_F(sparse, whole_mapping_can_be_unmapped_and_mapped_again)
{
	char value = 9, *p;

	ASSERT_EQ(1, pwrite(self->fd, &value, 1, 16 * GIB - 1));
	munmap(self->p, 16 * GIB);
	p = cow_map(self->fd, 16 * GIB, PROT_READ);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(9, p[16 * GIB - 1]);
	munmap(p, 16 * GIB);
}

/*
 * The end of the buffer
 */

#define END		(2 * PAGE + PAGE / 2)
#define END_MAP		(5 * PAGE)

FIXTURE(end)
{
	int fd;
	char *p;
};

FIXTURE_VARIANT(end)
{
	int flags;
	bool written;	/* every page has been written through the mapping */
};

FIXTURE_VARIANT_ADD(end, shared) { .flags = MAP_SHARED };
FIXTURE_VARIANT_ADD(end, shared_written) {
	.flags = MAP_SHARED, .written = true,
};
FIXTURE_VARIANT_ADD(end, private) { .flags = MAP_PRIVATE };
FIXTURE_VARIANT_ADD(end, private_written) {
	.flags = MAP_PRIVATE, .written = true,
};

FIXTURE_SETUP(end)
{
	self->fd = cow_create(END, "end");
	ASSERT_GE(self->fd, 0);
	self->p = mmap(NULL, END_MAP, RW, variant->flags, self->fd, 0);
	ASSERT_NE(MAP_FAILED, self->p);
	if (variant->written)
		memset(self->p, 'x', END);
}

FIXTURE_TEARDOWN(end)
{
	close(self->fd);
}

static int store(char *p)
{
	return COW_TRY(*(volatile char *)p = 1);
}

TEST_F(end, last_page_is_whole)
{
	EXPECT_EQ(0, load_signal(self->p + 3 * PAGE - 1));
	EXPECT_EQ(0, self->p[3 * PAGE - 1]);
	EXPECT_EQ(0, store(self->p + 3 * PAGE - 1));
}

TEST_F(end, beyond_is_sigbus)
{
	EXPECT_EQ(SIGBUS, load_signal(self->p + 3 * PAGE));
	EXPECT_EQ(SIGBUS, store(self->p + 3 * PAGE));
	EXPECT_EQ(SIGBUS, load_signal(self->p + END_MAP - 1));
	EXPECT_EQ(SIGBUS, store(self->p + END_MAP - 1));
	EXPECT_EQ(variant->written && variant->flags == MAP_SHARED ? 3 : 0,
		  resident_pages(self->fd));
}

TEST_F(end, beyond_after_shrink_is_sigbus)
{
	load_signal(self->p + PAGE);
	load_signal(self->p + 2 * PAGE);
	ASSERT_EQ(0, ftruncate(self->fd, PAGE));
	EXPECT_EQ(0, load_signal(self->p + PAGE - 1));
	EXPECT_EQ(SIGBUS, load_signal(self->p + PAGE));
	EXPECT_EQ(SIGBUS, store(self->p + PAGE));
	EXPECT_EQ(SIGBUS, load_signal(self->p + 2 * PAGE));
	EXPECT_EQ(SIGBUS, store(self->p + 2 * PAGE));
}

TEST_F(end, all_is_beyond_after_shrink_to_nothing)
{
	ASSERT_EQ(0, ftruncate(self->fd, 0));
	EXPECT_EQ(SIGBUS, load_signal(self->p));
	EXPECT_EQ(SIGBUS, store(self->p));
	EXPECT_EQ(0, resident_pages(self->fd));
}

TEST_F(end, zeroes_after_shrink_and_grow)
{
	ASSERT_EQ(0, ftruncate(self->fd, PAGE));
	ASSERT_EQ(0, ftruncate(self->fd, END_MAP));
	EXPECT_TRUE(page_is(self->p, variant->written ? 'x' : 0));
	EXPECT_TRUE(page_is(self->p + PAGE, 0));
	EXPECT_TRUE(page_is(self->p + 2 * PAGE, 0));
	EXPECT_TRUE(page_is(self->p + 4 * PAGE, 0));
	EXPECT_EQ(0, store(self->p + 4 * PAGE));
}

TEST_F(end, grow_makes_the_mapping_valid)
{
	EXPECT_EQ(SIGBUS, load_signal(self->p + 4 * PAGE));
	ASSERT_EQ(0, ftruncate(self->fd, END_MAP));
	EXPECT_EQ(0, load_signal(self->p + 4 * PAGE));
	EXPECT_EQ(0, store(self->p + 4 * PAGE));
}

TEST_F(end, write_beyond_makes_the_mapping_valid)
{
	EXPECT_EQ(SIGBUS, load_signal(self->p + 4 * PAGE));
	ASSERT_EQ(1, pwrite(self->fd, "y", 1, END_MAP - 1));
	EXPECT_EQ('y', self->p[END_MAP - 1]);
	EXPECT_EQ(0, load_signal(self->p + 3 * PAGE));
}

TEST_F(end, stores_beyond_in_the_last_page_never_appear)
{
	char *q = cow_map(self->fd, END_MAP, RW), value = 1;

	ASSERT_NE(MAP_FAILED, q);
	memset(q + END, 'z', 3 * PAGE - END);
	ASSERT_EQ(0, ftruncate(self->fd, END_MAP));
	EXPECT_EQ(1, pread(self->fd, &value, 1, END));
	EXPECT_EQ(0, value);
	EXPECT_EQ(0, q[END]);
	EXPECT_EQ(0, q[3 * PAGE - 1]);
}

TEST_F(end, system_calls_beyond_get_efault)
{
	char data[16] = "";
	int pipefd[2];

	ASSERT_EQ(0, pipe(pipefd));
	EXPECT_EQ(-1, write(pipefd[1], self->p + 3 * PAGE, 1));
	EXPECT_EQ(EFAULT, errno);
	ASSERT_EQ(1, write(pipefd[1], data, 1));
	EXPECT_EQ(-1, read(pipefd[0], self->p + 3 * PAGE, 1));
	EXPECT_EQ(EFAULT, errno);
}

TEST_F(end, other_processes_beyond_get_an_error)
{
	char data = 1;
	struct iovec local = { &data, 1 };
	struct iovec remote = { self->p + 3 * PAGE, 1 };
	int mem = open("/proc/self/mem", O_RDWR);

	ASSERT_GE(mem, 0);
	EXPECT_EQ(-1, process_vm_readv(getpid(), &local, 1, &remote, 1, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, process_vm_writev(getpid(), &local, 1, &remote, 1, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, pread(mem, &data, 1, (long)self->p + 3 * PAGE));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(-1, pwrite(mem, &data, 1, (long)self->p + 3 * PAGE));
	EXPECT_EQ(EIO, errno);
	close(mem);
}

TEST_F(end, populate_beyond_fails)
{
	EXPECT_EQ(-1, madvise(self->p, END_MAP, MADV_POPULATE_READ));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, madvise(self->p, END_MAP, MADV_POPULATE_WRITE));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, madvise(self->p, 3 * PAGE, MADV_POPULATE_WRITE));
}

/*
 * Holes
 */

FIXTURE(hole)
{
	int fd;
	char *p;
	long pages;
};

FIXTURE_SETUP(hole)
{
	self->pages = cow_param("pages");
	self->fd = cow_create_mapped(SIZE, "hole", &self->p);
	ASSERT_GE(self->fd, 0);
}

FIXTURE_TEARDOWN(hole)
{
	munmap(self->p, SIZE);
	close(self->fd);
}

static bool all_zero(const char *p)
{
	unsigned long i;

	for (i = 0; i < NR; i++)
		if (!page_is(p + i * PAGE, 0))
			return false;
	return true;
}

TEST_F(hole, load_allocates_nothing)
{
	EXPECT_TRUE(all_zero(self->p));
	EXPECT_EQ(0, cow_stat(self->fd).resident);
	EXPECT_EQ(0, cow_stat(self->fd).filled);
	EXPECT_EQ(self->pages, cow_param("pages"));
}

TEST_F(hole, private_load_and_store_allocate_nothing)
{
	char *q = map_private(self->fd, SIZE, RW);

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(all_zero(q));
	fill_pages(q, NR);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_TRUE(all_zero(self->p));
	EXPECT_EQ(0, cow_stat(self->fd).resident);
	EXPECT_EQ(self->pages, cow_param("pages"));
}

TEST_F(hole, read_allocates_nothing)
{
	char data[SIZE];

	memset(data, 1, sizeof(data));
	EXPECT_EQ(SIZE, pread(self->fd, data, SIZE, 0));
	EXPECT_TRUE(all_zero(data));
	EXPECT_EQ(0, cow_stat(self->fd).resident);
	EXPECT_EQ(self->pages, cow_param("pages"));
}

TEST_F(hole, store_allocates_one_page)
{
	self->p[5 * PAGE + 7] = 1;
	EXPECT_EQ(PAGE, cow_stat(self->fd).resident);
	EXPECT_EQ(1, cow_stat(self->fd).filled);
	EXPECT_EQ(self->pages + 1, cow_param("pages"));
	EXPECT_EQ(0, self->p[5 * PAGE + 6]);
	EXPECT_EQ(0, self->p[5 * PAGE + 8]);
	self->p[5 * PAGE] = 1;
	EXPECT_EQ(1, cow_stat(self->fd).filled);
}

TEST_F(hole, store_after_load_is_seen_in_the_same_mapping)
{
	EXPECT_TRUE(all_zero(self->p));
	fill_pages(self->p, NR);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	EXPECT_EQ(NR, resident_pages(self->fd));
}

TEST_F(hole, store_is_seen_in_mappings_that_had_read_it)
{
	char *q = cow_map(self->fd, SIZE, RW);
	char *r = cow_map(self->fd, SIZE, PROT_READ);
	char *s = map_private(self->fd, SIZE, RW);

	ASSERT_NE(MAP_FAILED, q);
	ASSERT_NE(MAP_FAILED, r);
	ASSERT_NE(MAP_FAILED, s);
	EXPECT_TRUE(all_zero(q) && all_zero(r) && all_zero(s));
	fill_pages(self->p, NR);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_TRUE(pages_filled(r, 0, NR));
	EXPECT_TRUE(pages_filled(s, 0, NR));
	q[0] = '!';
	EXPECT_EQ('!', self->p[0]);
}

TEST_F(hole, write_is_seen_in_mappings_that_had_read_it)
{
	char data[SIZE];

	EXPECT_TRUE(all_zero(self->p));
	fill_pages(data, NR);
	ASSERT_EQ(SIZE, pwrite(self->fd, data, SIZE, 0));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

TEST_F(hole, remote_write_is_seen_in_mappings_that_had_read_it)
{
	char data[SIZE], *q = cow_map(self->fd, SIZE, PROT_READ);
	struct iovec local = { data, SIZE }, remote = { self->p, SIZE };

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(all_zero(self->p) && all_zero(q));
	fill_pages(data, NR);
	ASSERT_EQ(SIZE, process_vm_writev(getpid(), &local, 1, &remote, 1, 0));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	EXPECT_TRUE(pages_filled(q, 0, NR));
}

TEST_F(hole, store_is_seen_by_a_process_that_had_read_it)
{
	pid_t pid = CHILD_START({
		bool zero = all_zero(self->p);

		raise(SIGSTOP);
		_exit(zero && pages_filled(self->p, 0, NR) ? 0 : 1);
	});

	ASSERT_TRUE(child_stopped(pid));
	fill_pages(self->p, NR);
	EXPECT_EQ(0, child_finish(pid));
}

TEST_F(hole, store_of_a_child_is_seen_where_it_had_been_read)
{
	EXPECT_TRUE(all_zero(self->p));
	EXPECT_EQ(0, CHILD(fill_pages(self->p, NR)));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

TEST_F(hole, populate_read_allocates_nothing)
{
	ASSERT_EQ(0, madvise(self->p, SIZE, MADV_POPULATE_READ));
	EXPECT_EQ(0, resident_pages(self->fd));
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_TRUE(all_zero(self->p));
}

TEST_F(hole, populate_write_allocates_all)
{
	unsigned long faults;

	ASSERT_EQ(0, madvise(self->p, SIZE, MADV_POPULATE_WRITE));
	EXPECT_EQ(NR, resident_pages(self->fd));
	EXPECT_EQ(self->pages + NR, cow_param("pages"));
	faults = cow_stat(self->fd).faults;
	fill_pages(self->p, NR);
	EXPECT_EQ(faults, cow_stat(self->fd).faults);
}

/* The kernel populates shared mappings by reading, writable ones too. */
TEST_F(hole, map_populate_shared_allocates_nothing)
{
	char *q = mmap(NULL, SIZE, RW, MAP_SHARED | MAP_POPULATE, self->fd, 0);
	unsigned long faults;

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(0, resident_pages(self->fd));
	faults = cow_stat(self->fd).faults;
	EXPECT_TRUE(all_zero(q));
	EXPECT_EQ(faults, cow_stat(self->fd).faults);
	fill_pages(q, NR);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

TEST_F(hole, map_populate_private_allocates_nothing)
{
	char *q = mmap(NULL, SIZE, RW, MAP_PRIVATE | MAP_POPULATE, self->fd, 0);

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(0, resident_pages(self->fd));
	EXPECT_TRUE(all_zero(q));
}

/*
 * A filled buffer, mapped shared; both kinds of handle
 */

FIXTURE(buffer)
{
	int fd;
	char *p;
};

FIXTURE_VARIANT(buffer)
{
	bool device;
};

FIXTURE_VARIANT_ADD(buffer, device) { .device = true };
FIXTURE_VARIANT_ADD(buffer, file) { .device = false };

FIXTURE_SETUP(buffer)
{
	self->fd = variant->device ? cow_open() : cow_create(SIZE, "mmap test");
	ASSERT_GE(self->fd, 0);
	self->p = cow_map(self->fd, SIZE, RW);
	ASSERT_NE(MAP_FAILED, self->p);
	fill_pages(self->p, NR);
}

FIXTURE_TEARDOWN(buffer)
{
	close(self->fd);
}

TEST_F(buffer, shared_mappings_show_each_other)
{
	char *q = cow_map(self->fd, SIZE, RW);

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	q[PAGE] = '1';
	EXPECT_EQ('1', self->p[PAGE]);
	self->p[PAGE] = '2';
	EXPECT_EQ('2', q[PAGE]);
}

TEST_F(buffer, offset_selects_the_page)
{
	unsigned long i;

	for (i = 0; i < NR; i++) {
		char *q = mmap(NULL, PAGE, RW, MAP_SHARED, self->fd, i * PAGE);

		ASSERT_NE(MAP_FAILED, q);
		EXPECT_TRUE(page_is(q, value_of(i)));
		q[1] = '!';
		EXPECT_EQ('!', self->p[i * PAGE + 1]);
		munmap(q, PAGE);
	}
}

TEST_F(buffer, odd_offset_is_refused)
{
	EXPECT_EQ(MAP_FAILED,
		  mmap(NULL, PAGE, RW, MAP_SHARED, self->fd, 100));
	EXPECT_EQ(EINVAL, errno);
}

TEST_F(buffer, shared_validate_works_and_sync_is_refused)
{
	char *q = mmap(NULL, SIZE, RW, MAP_SHARED_VALIDATE, self->fd, 0);

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, SIZE, RW,
				   MAP_SHARED_VALIDATE | MAP_SYNC, self->fd, 0));
	EXPECT_EQ(EOPNOTSUPP, errno);
}

TEST_F(buffer, reading_handle_cannot_be_mapped_writable)
{
	int file = cow_file(self->fd, COWMEM_RDONLY);
	char *q;

	ASSERT_GE(file, 0);
	EXPECT_EQ(MAP_FAILED, cow_map(file, SIZE, RW));
	EXPECT_EQ(EACCES, errno);
	q = cow_map(file, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(-1, mprotect(q, SIZE, RW));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(SIGSEGV, COW_TRY(q[0] = 1));
	EXPECT_TRUE(pages_filled(q, 0, NR));
	self->p[0] = '!';
	EXPECT_EQ('!', q[0]);
}

TEST_F(buffer, reading_handle_can_be_mapped_private_and_writable)
{
	int file = cow_file(self->fd, COWMEM_RDONLY);
	char *q;

	ASSERT_GE(file, 0);
	q = map_private(file, SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	q[0] = '!';
	EXPECT_EQ('!', q[0]);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

TEST_F(buffer, exec_is_refused)
{
	EXPECT_EQ(MAP_FAILED, cow_map(self->fd, SIZE, PROT_READ | PROT_EXEC));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(MAP_FAILED, map_private(self->fd, SIZE, RW | PROT_EXEC));
	EXPECT_EQ(EPERM, errno);
}

TEST_F(buffer, mprotect_to_exec_is_refused)
{
	char *q = map_private(self->fd, SIZE, PROT_READ);

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(-1, mprotect(self->p, SIZE, PROT_READ | PROT_EXEC));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(-1, mprotect(q, SIZE, PROT_READ | PROT_EXEC));
	EXPECT_EQ(EACCES, errno);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

TEST_F(buffer, part_can_be_unmapped)
{
	char *q;

	ASSERT_EQ(0, munmap(self->p + 4 * PAGE, 4 * PAGE));
	EXPECT_TRUE(pages_filled(self->p, 0, 4));
	EXPECT_TRUE(pages_filled(self->p + 8 * PAGE, 8, NR - 8));
	EXPECT_EQ(SIGSEGV, load_signal(self->p + 4 * PAGE));
	EXPECT_EQ(SIGSEGV, store(self->p + 8 * PAGE - 1));
	EXPECT_EQ(NR, resident_pages(self->fd));

	q = mmap(self->p + 4 * PAGE, 4 * PAGE, RW, MAP_SHARED | MAP_FIXED,
		 self->fd, 4 * PAGE);
	ASSERT_EQ(self->p + 4 * PAGE, q);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

TEST_F(buffer, data_survives_without_any_mapping)
{
	ASSERT_EQ(0, munmap(self->p, SIZE));
	self->p = cow_map(self->fd, SIZE, RW);
	ASSERT_NE(MAP_FAILED, self->p);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

/* Room for a mapping of @length bytes. */
static char *free_range(size_t length)
{
	char *p = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	munmap(p, length);
	return p;
}

TEST_F(buffer, mremap_moves_it)
{
	char *q, *to = free_range(SIZE);

	q = mremap(self->p, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	ASSERT_EQ(to, q);
	EXPECT_EQ(SIGSEGV, load_signal(self->p));
	EXPECT_TRUE(pages_filled(q, 0, NR));
	q[0] = '!';
	self->p = cow_map(self->fd, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, self->p);
	EXPECT_EQ('!', self->p[0]);
}

TEST_F(buffer, mremap_moves_a_part)
{
	char *q, *to = free_range(4 * PAGE);

	q = mremap(self->p + 6 * PAGE, 4 * PAGE, 4 * PAGE,
		   MREMAP_MAYMOVE | MREMAP_FIXED, to);
	ASSERT_EQ(to, q);
	EXPECT_TRUE(pages_filled(q, 6, 4));
	EXPECT_TRUE(pages_filled(self->p, 0, 6));
	EXPECT_TRUE(pages_filled(self->p + 10 * PAGE, 10, NR - 10));
	q[0] = '!';
	ASSERT_EQ(1, pread(self->fd, q + 1, 1, 6 * PAGE));
	EXPECT_EQ('!', q[1]);
}

TEST_F(buffer, mremap_shrinks)
{
	ASSERT_EQ(self->p, mremap(self->p, SIZE, PAGE, 0));
	EXPECT_TRUE(pages_filled(self->p, 0, 1));
	EXPECT_EQ(SIGSEGV, load_signal(self->p + PAGE));
	EXPECT_EQ(SIZE, cow_stat(self->fd).length);
}

/* Page 0 at an address with room for @room pages more behind it. */
static char *map_with_room(int fd, size_t room)
{
	char *p = free_range((1 + room) * PAGE);

	return mmap(p, PAGE, RW, MAP_SHARED | MAP_FIXED, fd, 0);
}

/* Of the page at @p, to @length bytes: 0 or an errno. */
static int mremap_error(char *p, size_t length, int flags)
{
	return mremap(p, PAGE, length, flags) == MAP_FAILED ? errno : 0;
}

TEST_F(buffer, mremap_never_grows_in_place)
{
	char *q = map_with_room(self->fd, NR);

	ASSERT_NE(MAP_FAILED, q);
	if (mremap_error(q, SIZE, 0) == EFAULT)
		SKIP(return, "mappings do not expand on this kernel");
	EXPECT_EQ(ENOMEM, mremap_error(q, SIZE, 0));
	EXPECT_EQ(ENOMEM, mremap_error(q, SIZE, MREMAP_MAYMOVE));
	EXPECT_TRUE(pages_filled(q, 0, 1));
	EXPECT_EQ(SIGSEGV, load_signal(q + PAGE));
	EXPECT_EQ(0, store(q));
	EXPECT_EQ(1, self->p[0]);
}

TEST_F(buffer, mremap_without_room_moves_it_if_it_may)
{
	char *q = map_with_room(self->fd, 1), *guard, *r;

	ASSERT_NE(MAP_FAILED, q);
	guard = mmap(q + PAGE, PAGE, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	ASSERT_EQ(q + PAGE, guard);
	if (mremap_error(q, SIZE, 0) == EFAULT)
		SKIP(return, "mappings do not expand on this kernel");
	EXPECT_EQ(ENOMEM, mremap_error(q, SIZE, 0));
	EXPECT_TRUE(pages_filled(q, 0, 1));
	r = mremap(q, PAGE, SIZE + PAGE, MREMAP_MAYMOVE);
	ASSERT_NE(MAP_FAILED, r);
	EXPECT_NE(q, r);
	EXPECT_EQ(SIGSEGV, load_signal(q));
	EXPECT_TRUE(pages_filled(r, 0, NR));
	r[SIZE - 1] = '!';
	EXPECT_EQ('!', self->p[SIZE - 1]);
	EXPECT_EQ(SIGBUS, load_signal(r + SIZE));
	EXPECT_EQ(SIZE, cow_stat(self->fd).length);
}

TEST_F(buffer, mremap_duplicates_where_the_kernel_allows)
{
	char *q = mremap(self->p, 0, SIZE, MREMAP_MAYMOVE);

	if (q == MAP_FAILED && errno == EFAULT)
		SKIP(return, "mappings do not expand on this kernel");
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	q[0] = '!';
	EXPECT_EQ('!', self->p[0]);
}

TEST_F(buffer, mremap_dontunmap_keeps_both)
{
	char *q = mremap(self->p, SIZE, SIZE,
			 MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);

	if (q == MAP_FAILED)
		SKIP(return, "no MREMAP_DONTUNMAP for this kind of mapping");
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	q[0] = '!';
	EXPECT_EQ('!', self->p[0]);
}

TEST_F(buffer, mprotect_round_trips)
{
	int i;

	for (i = 0; i < 10; i++) {
		ASSERT_EQ(0, mprotect(self->p, SIZE, PROT_READ));
		EXPECT_EQ(SIGSEGV, COW_TRY(self->p[i * PAGE] = '!'));
		EXPECT_TRUE(page_is(self->p + i * PAGE, value_of(i)));
		ASSERT_EQ(0, mprotect(self->p, SIZE, RW));
		self->p[i * PAGE] = '!';
		EXPECT_EQ('!', self->p[i * PAGE]);
	}
}

TEST_F(buffer, mprotect_of_a_part)
{
	ASSERT_EQ(0, mprotect(self->p + 4 * PAGE, 4 * PAGE, PROT_READ));
	EXPECT_EQ(0, store(self->p + 4 * PAGE - 1));
	EXPECT_EQ(SIGSEGV, store(self->p + 4 * PAGE));
	EXPECT_EQ(SIGSEGV, store(self->p + 8 * PAGE - 1));
	EXPECT_EQ(0, store(self->p + 8 * PAGE));
	ASSERT_EQ(0, mprotect(self->p, SIZE, RW));
	EXPECT_TRUE(pages_filled(self->p + 4 * PAGE, 4, 4));
	EXPECT_EQ(0, store(self->p + 4 * PAGE));
}

TEST_F(buffer, prot_none_keeps_the_data)
{
	ASSERT_EQ(0, mprotect(self->p, SIZE, PROT_NONE));
	EXPECT_EQ(SIGSEGV, load_signal(self->p));
	EXPECT_EQ(SIGSEGV, store(self->p));
	ASSERT_EQ(0, mprotect(self->p, SIZE, RW));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

TEST_F(buffer, mapped_with_prot_none_and_opened_later)
{
	char *q = cow_map(self->fd, SIZE, PROT_NONE);

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(SIGSEGV, load_signal(q));
	ASSERT_EQ(0, mprotect(q, SIZE, PROT_READ));
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_EQ(SIGSEGV, store(q));
	ASSERT_EQ(0, mprotect(q, SIZE, RW));
	EXPECT_EQ(0, store(q));
	EXPECT_EQ(1, self->p[0]);
}

TEST_F(buffer, map_fixed_over_it_takes_only_the_mapping)
{
	char *q = mmap(self->p + PAGE, PAGE, RW,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	char value;

	ASSERT_EQ(self->p + PAGE, q);
	EXPECT_TRUE(page_is(q, 0));
	q[0] = '!';
	ASSERT_EQ(1, pread(self->fd, &value, 1, PAGE));
	EXPECT_EQ(value_of(1), value);
}

TEST_F(buffer, map_fixed_of_another_page_over_it)
{
	char *q = mmap(self->p, PAGE, RW, MAP_SHARED | MAP_FIXED, self->fd,
		       9 * PAGE);

	ASSERT_EQ(self->p, q);
	EXPECT_TRUE(page_is(q, value_of(9)));
	q[0] = '!';
	/* The compiler knows that q == p, but not that p[0] is p[9 * PAGE]. */
	__asm__ volatile("" : : : "memory");
	EXPECT_EQ('!', self->p[9 * PAGE]);
	EXPECT_TRUE(pages_filled(self->p + PAGE, 1, 8));
}

TEST_F(buffer, map_fixed_of_another_buffer_over_it)
{
	int other = cow_create(PAGE, "other");
	char *q, value;

	ASSERT_GE(other, 0);
	q = mmap(self->p, PAGE, RW, MAP_SHARED | MAP_FIXED, other, 0);
	ASSERT_EQ(self->p, q);
	EXPECT_TRUE(page_is(q, 0));
	q[0] = '!';
	ASSERT_EQ(1, pread(self->fd, &value, 1, 0));
	EXPECT_EQ(value_of(0), value);
	close(other);
}

TEST_F(buffer, dontneed_keeps_shared_data)
{
	ASSERT_EQ(0, madvise(self->p, SIZE, MADV_DONTNEED));
	EXPECT_EQ(NR, resident_pages(self->fd));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	EXPECT_EQ(0, store(self->p));
}

TEST_F(buffer, advice_never_changes_data)
{
	int advice;

	/* Up to MADV_COLLAPSE, but for those that mean to change something. */
	for (advice = 0; advice <= 25; advice++) {
		if (advice == MADV_REMOVE || advice == MADV_DONTFORK)
			continue;
		madvise(self->p, SIZE, advice);
		EXPECT_TRUE(pages_filled(self->p, 0, NR));
		memset(self->p, value_of(0), PAGE);
	}
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

TEST_F(buffer, advice_for_anonymous_memory_is_refused)
{
	EXPECT_EQ(-1, madvise(self->p, SIZE, MADV_FREE));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, madvise(self->p, SIZE, MADV_WIPEONFORK));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

TEST_F(buffer, dontfork_hides_it_from_the_child)
{
	ASSERT_EQ(0, madvise(self->p, SIZE, MADV_DONTFORK));
	EXPECT_EQ(0, CHILD(_exit(load_signal(self->p) == SIGSEGV ? 0 : 1)));
	if (madvise(self->p, SIZE, MADV_DOFORK) && errno == EINVAL)
		SKIP(return, "this kernel does not take MADV_DONTFORK back");
	EXPECT_EQ(0, CHILD(_exit(pages_filled(self->p, 0, NR) ? 0 : 1)));
}

TEST_F(buffer, mlock_and_munlock)
{
	struct rlimit limit;

	getrlimit(RLIMIT_MEMLOCK, &limit);
	if (mlock(self->p, SIZE) && errno == ENOMEM)
		SKIP(return, "RLIMIT_MEMLOCK is %lu", (long)limit.rlim_cur);
	EXPECT_EQ(0, mlock(self->p, SIZE));
	fill_pages(self->p, NR);
	EXPECT_EQ(0, munlock(self->p + PAGE, PAGE));
	EXPECT_EQ(0, munlock(self->p, SIZE));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

TEST_F(buffer, mlockall_and_new_mappings)
{
	char *q;

	if (mlockall(MCL_CURRENT | MCL_FUTURE))
		SKIP(return, "mlockall: %s", strerror(errno));
	q = mmap(NULL, SIZE, RW, MAP_SHARED | MAP_LOCKED, self->fd, 0);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	q[0] = '!';
	EXPECT_EQ('!', self->p[0]);
	EXPECT_EQ(0, munlockall());
}

TEST_F(buffer, msync)
{
	EXPECT_EQ(0, msync(self->p, SIZE, MS_SYNC));
	EXPECT_EQ(0, msync(self->p, SIZE, MS_ASYNC));
	EXPECT_EQ(0, msync(self->p + PAGE, PAGE, MS_SYNC | MS_INVALIDATE));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

TEST_F(buffer, mincore)
{
	unsigned char present[NR];

	/* What it answers is about the page cache, which we do not use. */
	EXPECT_EQ(0, mincore(self->p, SIZE, present));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

TEST_F(buffer, moving_pages_to_a_node_keeps_the_data)
{
	void *addresses[NR];
	int nodes[NR] = { }, status[NR];
	unsigned long i;

	for (i = 0; i < NR; i++)
		addresses[i] = self->p + i * PAGE;
	if (syscall(SYS_move_pages, 0, NR, addresses, nodes, status, 2) < 0)
		SKIP(return, "move_pages: %s", strerror(errno));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	EXPECT_EQ(0, store(self->p));
}

TEST_F(buffer, fork_shares_it_both_ways)
{
	pid_t pid = CHILD_START({
		bool seen = pages_filled(self->p, 0, NR);

		self->p[0] = '1';
		raise(SIGSTOP);
		_exit(seen && self->p[PAGE] == '2' ? 0 : 1);
	});

	ASSERT_TRUE(child_stopped(pid));
	EXPECT_EQ('1', self->p[0]);
	self->p[PAGE] = '2';
	EXPECT_EQ(0, child_finish(pid));
}

TEST_F(buffer, fork_copies_page_tables_only_on_old_kernels)
{
	/* With VM_MIXEDMAP, which is there for want of a function of 6.15. */
	long kb = kernel_before(6, 15) ? SIZE / 1024 : 0;

	ASSERT_EQ(SIZE / 1024, smaps_kb(self->p, SIZE, "Rss"));
	EXPECT_EQ(0, CHILD(_exit(smaps_kb(self->p, SIZE, "Rss") == kb ? 0 : 1)));
}

TEST_F(buffer, grandchild_shares_it)
{
	EXPECT_EQ(0, CHILD(_exit(CHILD(self->p[0] = '!') ? 1 : 0)));
	EXPECT_EQ('!', self->p[0]);
}

TEST_F(buffer, fork_copies_private_pages)
{
	char *q = map_private(self->fd, SIZE, RW);
	pid_t pid;

	ASSERT_NE(MAP_FAILED, q);
	q[0] = '1';
	pid = CHILD_START({
		bool seen = q[0] == '1';

		q[0] = '2';
		q[PAGE] = '3';
		raise(SIGSTOP);
		_exit(seen && q[0] == '2' && q[2 * PAGE] == value_of(2) ? 0 : 1);
	});
	ASSERT_TRUE(child_stopped(pid));
	EXPECT_EQ('1', q[0]);
	EXPECT_EQ(value_of(1), q[PAGE]);
	q[2 * PAGE] = '4';
	EXPECT_EQ(0, child_finish(pid));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

/*
 * Access by address from elsewhere
 */

TEST_F(buffer, process_vm_readv_of_a_child)
{
	char data[SIZE];
	struct iovec local = { data, SIZE }, remote = { self->p, SIZE };
	pid_t pid = CHILD_START(raise(SIGSTOP));

	ASSERT_TRUE(child_stopped(pid));
	EXPECT_EQ(SIZE, process_vm_readv(pid, &local, 1, &remote, 1, 0));
	EXPECT_TRUE(pages_filled(data, 0, NR));
	EXPECT_EQ(0, child_finish(pid));
}

TEST_F(buffer, process_vm_writev_to_a_child)
{
	char data[2 * PAGE];
	struct iovec local = { data, sizeof(data) };
	struct iovec remote = { self->p + PAGE, sizeof(data) };
	pid_t pid = CHILD_START({
		raise(SIGSTOP);
		_exit(page_is(self->p + PAGE, '!') ? 0 : 1);
	});

	ASSERT_TRUE(child_stopped(pid));
	memset(data, '!', sizeof(data));
	EXPECT_EQ(sizeof(data),
		  process_vm_writev(pid, &local, 1, &remote, 1, 0));
	EXPECT_EQ(0, child_finish(pid));
	EXPECT_TRUE(page_is(self->p + PAGE, '!'));
	EXPECT_TRUE(page_is(self->p + 2 * PAGE, '!'));
}

TEST_F(buffer, process_vm_writev_needs_a_writable_mapping)
{
	char data = '!', *q = cow_map(self->fd, SIZE, PROT_READ);
	struct iovec local = { &data, 1 }, remote = { q, 1 };

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(-1, process_vm_writev(getpid(), &local, 1, &remote, 1, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

TEST_F(buffer, proc_mem_reads_and_writes_a_writable_mapping)
{
	int mem = open("/proc/self/mem", O_RDWR);
	char data[SIZE];

	ASSERT_GE(mem, 0);
	EXPECT_EQ(SIZE, pread(mem, data, SIZE, (long)self->p));
	EXPECT_TRUE(pages_filled(data, 0, NR));
	EXPECT_EQ(1, pwrite(mem, "!", 1, (long)self->p + PAGE));
	EXPECT_EQ('!', self->p[PAGE]);
	close(mem);
}

TEST_F(buffer, proc_mem_cannot_write_a_read_only_shared_mapping)
{
	int mem = open("/proc/self/mem", O_RDWR);
	int file = cow_file(self->fd, COWMEM_RDONLY);
	char *q = cow_map(self->fd, SIZE, PROT_READ);
	char *r = cow_map(file, SIZE, PROT_READ);

	ASSERT_GE(mem, 0);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_NE(MAP_FAILED, r);
	EXPECT_EQ(-1, pwrite(mem, "!", 1, (long)q));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(-1, pwrite(mem, "!", 1, (long)r));
	EXPECT_EQ(EIO, errno);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	close(mem);
}

TEST_F(buffer, proc_mem_writes_a_copy_in_a_read_only_private_mapping)
{
	int mem = open("/proc/self/mem", O_RDWR);
	char *q = map_private(self->fd, SIZE, PROT_READ);

	ASSERT_GE(mem, 0);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(value_of(0), q[0]);
	if (pwrite(mem, "!", 1, (long)q) < 0)
		SKIP(return, "the kernel does not let /proc/PID/mem override");
	EXPECT_EQ('!', q[0]);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	close(mem);
}

static pid_t traced_child(void)
{
	return CHILD_START({
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
	});
}

TEST_F(buffer, ptrace_peeks_and_pokes_a_writable_mapping)
{
	long word, want;
	pid_t pid = traced_child();

	ASSERT_TRUE(child_stopped(pid));
	memcpy(&want, self->p + PAGE, sizeof(want));
	word = ptrace(PTRACE_PEEKDATA, pid, self->p + PAGE, NULL);
	EXPECT_EQ(want, word);
	EXPECT_EQ(0, ptrace(PTRACE_POKEDATA, pid, self->p + PAGE, ~want));
	memcpy(&word, self->p + PAGE, sizeof(word));
	EXPECT_EQ(~want, word);
	kill(pid, SIGKILL);
	child_finish(pid);
}

TEST_F(buffer, ptrace_pokes_a_copy_in_a_read_only_private_mapping)
{
	char *q = map_private(self->fd, SIZE, PROT_READ);
	pid_t pid;

	ASSERT_NE(MAP_FAILED, q);
	pid = traced_child();
	ASSERT_TRUE(child_stopped(pid));
	EXPECT_EQ(0, ptrace(PTRACE_POKEDATA, pid, q, 0x55L));
	EXPECT_EQ(0x55, ptrace(PTRACE_PEEKDATA, pid, q, NULL));
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	kill(pid, SIGKILL);
	child_finish(pid);
}

TEST_F(buffer, ptrace_cannot_poke_a_read_only_shared_mapping)
{
	char *q = cow_map(self->fd, SIZE, PROT_READ);
	pid_t pid;

	ASSERT_NE(MAP_FAILED, q);
	pid = traced_child();
	ASSERT_TRUE(child_stopped(pid));
	EXPECT_EQ(-1, ptrace(PTRACE_POKEDATA, pid, q, 0x55L));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	kill(pid, SIGKILL);
	child_finish(pid);
}

TEST_F(buffer, system_calls_read_and_write_a_mapping)
{
	char data[PAGE];
	int pipefd[2];

	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_EQ(PAGE, write(pipefd[1], self->p + 3 * PAGE, PAGE));
	ASSERT_EQ(PAGE, read(pipefd[0], data, PAGE));
	EXPECT_TRUE(page_is(data, value_of(3)));
	memset(data, '!', PAGE);
	ASSERT_EQ(PAGE, write(pipefd[1], data, PAGE));
	ASSERT_EQ(PAGE, read(pipefd[0], self->p + 4 * PAGE, PAGE));
	EXPECT_TRUE(page_is(self->p + 4 * PAGE, '!'));
}

TEST_F(buffer, write_from_its_own_mapping)
{
	EXPECT_EQ(2 * PAGE, pwrite(self->fd, self->p + 2 * PAGE, 2 * PAGE, 0));
	EXPECT_TRUE(page_is(self->p, value_of(2)));
	EXPECT_TRUE(page_is(self->p + PAGE, value_of(3)));
	EXPECT_EQ(PAGE, pwrite(self->fd, self->p + 5 * PAGE, PAGE, 5 * PAGE));
	EXPECT_TRUE(page_is(self->p + 5 * PAGE, value_of(5)));
}

TEST_F(buffer, read_into_its_own_mapping)
{
	EXPECT_EQ(2 * PAGE, pread(self->fd, self->p, 2 * PAGE, 2 * PAGE));
	EXPECT_TRUE(page_is(self->p, value_of(2)));
	EXPECT_TRUE(page_is(self->p + PAGE, value_of(3)));
}

/*
 * Private mappings
 */

TEST_F(buffer, private_store_stays_private)
{
	char *q = map_private(self->fd, SIZE, RW);
	char *r = map_private(self->fd, SIZE, RW);

	ASSERT_NE(MAP_FAILED, q);
	ASSERT_NE(MAP_FAILED, r);
	memset(q, '!', SIZE);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	EXPECT_TRUE(pages_filled(r, 0, NR));
	EXPECT_EQ(NR, resident_pages(self->fd));
	EXPECT_EQ(0, cow_stat(self->fd).copied);
}

TEST_F(buffer, private_page_follows_until_its_first_store)
{
	char *q = map_private(self->fd, SIZE, RW);

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(value_of(0), q[0]);
	self->p[0] = '1';
	EXPECT_EQ('1', q[0]);
	q[1] = '2';
	self->p[0] = '3';
	EXPECT_EQ('1', q[0]);
	EXPECT_EQ('2', q[1]);
	self->p[PAGE] = '4';
	EXPECT_EQ('4', q[PAGE]);
}

TEST_F(buffer, private_first_access_may_be_a_store)
{
	char *q = map_private(self->fd, SIZE, RW);

	ASSERT_NE(MAP_FAILED, q);
	q[0] = '!';
	EXPECT_EQ(value_of(0), q[1]);
	EXPECT_EQ(value_of(0), q[PAGE - 1]);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

TEST_F(buffer, private_copies_go_with_dontneed)
{
	char *q = map_private(self->fd, SIZE, RW);

	ASSERT_NE(MAP_FAILED, q);
	memset(q, '!', SIZE);
	ASSERT_EQ(0, madvise(q, SIZE, MADV_DONTNEED));
	EXPECT_TRUE(pages_filled(q, 0, NR));
}

TEST_F(buffer, private_copies_survive_mremap_and_mprotect)
{
	char *q = map_private(self->fd, SIZE, RW), *to = free_range(SIZE);

	ASSERT_NE(MAP_FAILED, q);
	q[0] = '!';
	ASSERT_EQ(to, mremap(q, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_EQ('!', to[0]);
	ASSERT_EQ(0, mprotect(to, SIZE, PROT_READ));
	EXPECT_EQ(SIGSEGV, store(to + PAGE));
	ASSERT_EQ(0, mprotect(to, SIZE, RW));
	to[PAGE] = '!';
	EXPECT_EQ('!', to[0]);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

TEST_F(buffer, private_pages_made_writable_later)
{
	char *q = map_private(self->fd, SIZE, PROT_READ);

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	ASSERT_EQ(0, mprotect(q, SIZE, RW));
	memset(q, '!', SIZE);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

/*
 * Faults and mmap_lock, which whoever changes a mapping holds: where each VMA has
 * a lock of its own, a fault needs no other.
 */

#define MMAP_LOCK_EVENT	\
	"/sys/kernel/tracing/events/mmap_lock/mmap_lock_start_locking/id"

/* An fd that counts how often this thread goes for mmap_lock, or -errno. */
static int count_mmap_lock(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_TRACEPOINT,
		.size = sizeof(attr),
	};
	long id = read_number(MMAP_LOCK_EVENT);

	if (id < 0)
		return -ENOENT;
	attr.config = id;
	return ret(syscall(SYS_perf_event_open, &attr, 0, -1, -1,
			   PERF_FLAG_FD_CLOEXEC));
}

static unsigned long mmap_locks(int counter)
{
	uint64_t count = 0;

	if (read(counter, &count, sizeof(count)) != sizeof(count))
		return 0;
	return count;
}

FIXTURE(vma_lock)
{
	int fd;
	char *p;
	int counter;
	long wanted;	/* times that a fault goes for mmap_lock */
};

FIXTURE_VARIANT(vma_lock)
{
	uint32_t flags;
};

FIXTURE_VARIANT_ADD(vma_lock, ordinary) { .flags = 0 };
FIXTURE_VARIANT_ADD(vma_lock, pinnable) { .flags = COWMEM_PINNABLE };

FIXTURE_SETUP(vma_lock)
{
	unsigned long before;

	if (variant->flags)
		NEED(PINNABLE);
	self->counter = count_mmap_lock();
	if (self->counter < 0)
		SKIP(return, "no count of mmap_lock: %s",
		     strerror(-self->counter));
	/* Before there were such locks, it is the other way round. */
	self->wanted = kernel_before(6, 4) ? 1 : 0;
	self->fd = cow_create_flags(SIZE, "vma lock", variant->flags);
	ASSERT_GE(self->fd, 0);
	before = mmap_locks(self->counter);
	self->p = cow_map(self->fd, SIZE, RW);
	ASSERT_NE(MAP_FAILED, self->p);
	ASSERT_LT(before, mmap_locks(self->counter));
}

FIXTURE_TEARDOWN(vma_lock)
{
	close(self->counter);
	close(self->fd);
}

/*
 * How often the fault of this access goes for mmap_lock; -1: there is no fault.
 * The first round goes elsewhere, and takes the faults of the measuring itself.
 */
static long locks_of(FIXTURE_DATA(vma_lock) *self, char *p, bool store)
{
	unsigned long faults = cow_stat(self->fd).faults, before;
	char elsewhere = 0;
	char *where[] = { &elsewhere, p };
	long locks = 0;
	int i;

	for (i = 0; i < 2; i++) {
		before = mmap_locks(self->counter);
		if (store)
			*(volatile char *)where[i] = '!';
		else
			(void)*(volatile char *)where[i];
		locks = mmap_locks(self->counter) - before;
	}
	return cow_stat(self->fd).faults == faults ? -1 : locks;
}

TEST_F(vma_lock, is_all_that_a_load_takes)
{
	ASSERT_TRUE(write_byte(self->fd, PAGE, '!'));
	EXPECT_EQ(self->wanted, locks_of(self, self->p, false));
	EXPECT_EQ(self->wanted, locks_of(self, self->p + PAGE, false));
}

TEST_F(vma_lock, is_all_that_a_store_takes)
{
	ASSERT_TRUE(write_byte(self->fd, PAGE, '!'));
	EXPECT_EQ(self->wanted, locks_of(self, self->p, true));
	EXPECT_EQ(self->wanted, locks_of(self, self->p + PAGE, true));
}

TEST_F(vma_lock, is_all_that_a_store_behind_a_load_takes)
{
	/* A PINNABLE buffer maps it to be written at once. */
	long wanted = variant->flags ? -1 : self->wanted;

	EXPECT_EQ(self->wanted, locks_of(self, self->p, false));
	EXPECT_EQ(wanted, locks_of(self, self->p, true));
}

TEST_F(vma_lock, is_all_that_a_store_behind_a_snapshot_takes)
{
	int snap;

	self->p[0] = '?';
	self->p[PAGE] = '?';
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(self->wanted, locks_of(self, self->p, true));
	EXPECT_EQ(1, cow_stat(self->fd).copied);
	close(snap);
	EXPECT_EQ(self->wanted, locks_of(self, self->p + PAGE, true));
	EXPECT_EQ(1, cow_stat(self->fd).reused);
}

TEST_F(vma_lock, is_all_that_a_private_copy_takes)
{
	char *q = map_private(self->fd, SIZE, RW);

	ASSERT_NE(MAP_FAILED, q);
	/* With the first, the kernel prepares the mapping for such pages. */
	q[0] = '!';
	EXPECT_EQ(self->wanted, locks_of(self, q + PAGE, true));
	EXPECT_EQ(self->wanted, locks_of(self, q + 2 * PAGE, false));
}

/*
 * Futexes
 */

static long futex(uint32_t *word, int op, uint32_t value)
{
	struct timespec timeout = { .tv_sec = 10 };

	return syscall(SYS_futex, word, op, value, &timeout, NULL, 0);
}

static void *futex_waiter(void *word)
{
	return (void *)futex(word, FUTEX_WAIT_PRIVATE, 0);
}

TEST_F(buffer, private_futex_works)
{
	uint32_t *word = (uint32_t *)self->p;
	void *result = (void *)-1;
	pthread_t thread;
	int tries;

	*word = 0;
	EXPECT_EQ(-1, futex(word, FUTEX_WAIT_PRIVATE, 1));
	EXPECT_EQ(EAGAIN, errno);
	ASSERT_EQ(0, pthread_create(&thread, NULL, futex_waiter, word));
	for (tries = 0; tries < 5000; tries++) {
		if (futex(word, FUTEX_WAKE_PRIVATE, 1))
			break;
		usleep(1000);
	}
	EXPECT_LT(tries, 5000);
	pthread_join(thread, &result);
	EXPECT_EQ(NULL, result);
}

TEST_F(buffer, shared_futex_is_efault)
{
	uint32_t *word = (uint32_t *)self->p;

	*word = 0;
	EXPECT_EQ(-1, futex(word, FUTEX_WAKE, 1));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, futex(word, FUTEX_WAIT, 0));
	EXPECT_EQ(EFAULT, errno);
}

/*
 * userfaultfd
 */

FIXTURE(uffd)
{
	int fd;
	char *p;
};

FIXTURE_VARIANT(uffd)
{
	uint64_t mode;
	uint64_t features;
};

FIXTURE_VARIANT_ADD(uffd, missing) { .mode = UFFDIO_REGISTER_MODE_MISSING };
FIXTURE_VARIANT_ADD(uffd, minor) { .mode = UFFDIO_REGISTER_MODE_MINOR };
FIXTURE_VARIANT_ADD(uffd, protect) { .mode = UFFDIO_REGISTER_MODE_WP };
FIXTURE_VARIANT_ADD(uffd, protect_async) {
	.mode = UFFDIO_REGISTER_MODE_WP,
	.features = UFFD_FEATURE_WP_ASYNC,
};

FIXTURE_SETUP(uffd)
{
	self->fd = cow_create_mapped(SIZE, "uffd", &self->p);
	ASSERT_GE(self->fd, 0);
}

FIXTURE_TEARDOWN(uffd)
{
	close(self->fd);
}

TEST_F(uffd, registration_is_refused)
{
	int err = uffd_register(self->p, SIZE, variant->mode,
				variant->features);

	if (err == -ENOSYS)
		SKIP(return, "no such userfaultfd in this kernel");
	EXPECT_EQ(-EINVAL, err);
	fill_pages(self->p, NR);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
}

/*
 * What /proc shows
 */

/* Its line of /proc/self/maps. */
static bool maps_line(const char *p, char *line, int size)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	bool found = false;
	unsigned long start;

	while (maps && !found && fgets(line, size, maps))
		found = sscanf(line, "%lx-", &start) == 1 &&
			start == (unsigned long)p;
	if (maps)
		fclose(maps);
	return found;
}

TEST_F(buffer, smaps_counts_resident_pages)
{
	char *q = cow_map(self->fd, SIZE, PROT_READ);

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(SIZE / 1024, smaps_kb(self->p, SIZE, "Rss"));
	EXPECT_EQ(0, smaps_kb(q, SIZE, "Rss"));
	EXPECT_TRUE(pages_filled(q, 0, 4));
	EXPECT_EQ(4 * PAGE / 1024, smaps_kb(q, SIZE, "Rss"));
	ASSERT_EQ(0, madvise(self->p, 2 * PAGE, MADV_DONTNEED));
	EXPECT_EQ((SIZE - 2 * PAGE) / 1024, smaps_kb(self->p, SIZE, "Rss"));
}

TEST_F(buffer, pagemap_shows_one_page_in_both_mappings)
{
	char *q = cow_map(self->fd, SIZE, PROT_READ);

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(0, frame_of(q));
	EXPECT_EQ(value_of(0), q[0]);
	if (!frame_of(self->p))
		SKIP(return, "pagemap hides frame numbers");
	EXPECT_EQ(frame_of(self->p), frame_of(q));
	EXPECT_NE(frame_of(self->p), frame_of(self->p + PAGE));
}

TEST_F(buffer, maps_shows_the_name)
{
	const char *name = variant->device ? COWMEM_DEVICE : "/cowmem:mmap test";
	char line[512] = "", link[64], path[512] = "";

	ASSERT_TRUE(maps_line(self->p, line, sizeof(line)));
	EXPECT_NE(NULL, strstr(line, name));
	EXPECT_NE(NULL, strstr(line, "rw-s"));
	snprintf(link, sizeof(link), "/proc/self/fd/%d", self->fd);
	EXPECT_LT(0, readlink(link, path, sizeof(path) - 1));
	EXPECT_EQ(0, strncmp(path, name, strlen(name)));
}

TEST_HARNESS_MAIN
