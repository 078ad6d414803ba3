// SPDX-License-Identifier: GPL-2.0
/*
 * Writers that hold a page instead of asking for it: io_uring fixed buffers,
 * O_DIRECT, AF_XDP, process_vm_writev, ptrace, /proc/PID/mem and pipes, before,
 * after and during a snapshot.  What they write is in the live buffer and never
 * in a snapshot that was taken before.  And PINNABLE, which long-term pins need:
 * what it costs, who inherits it, and that nothing else is different.  Last,
 * those who keep a page or an address in other ways: futexes, mlock, mremap,
 * userfaultfd.
 *
 * What the kernel allows differs: before Linux 6.5 a long-term write pin works
 * on any mapping, but io_uring takes no memory of a file but of tmpfs and
 * hugetlbfs (EOPNOTSUPP); since then it takes what can be pinned, and that is
 * EFAULT for a mapping that is not of a PINNABLE buffer.
 *
 * The cases of the kernel's own tests of copy-on-write (selftests/mm/cow.c), with
 * a snapshot in place of fork(), are here unless another file is named:
 *
 *	basic			snapshot.c written.*
 *	  and mprotect()	snapshot.c snapshot.store_after_mprotect_*,
 *				pinnable.store_after_PROT_*
 *	vmsplice in the child	spliced.page_of_a_snapshot_stays_as_it_was
 *	  and mprotect()	spliced.page_of_a_snapshot_stays_after_PROT_READ
 *	vmsplice, then fork	spliced.page_held_before_a_clone_outlives_the_origin,
 *				spliced.page_whose_mapping_is_gone_*
 *	fork, then vmsplice	spliced.page_held_after_a_clone_outlives_the_origin
 *	fixed buffer, PROT_READ	fixed.store_after_PROT_READ_is_written,
 *				in_flight.mapping_is_made_read_only
 *	fixed buffer, fork	fixed.store_beside_a_child_is_written,
 *				fixed.store_by_a_child_is_written
 *	GUP for reading		slow: nothing is mapped there, fast: it is
 *	  of a shared page	spliced.page_not_stored_to_since_the_snapshot
 *	  shared before		spliced.page_shared_before_stays_as_it_was_held
 *	  exclusive		spliced.page_mapped_for_reading_gets_stores
 *	a part moved, shared	kept.mremap_of_a_part_between_two_snapshots,
 *				in_flight.snapshot_of_a_range_copies_only_pins_in_it
 *	MAP_PRIVATE: basic	mmap.c buffer.private_*, sharing.c private.*;
 *	  of the zero page	mmap.c hole.private_load_and_store_allocate_nothing
 *	  GUP			spliced.page_held_through_a_private_mapping,
 *				ring.fixed_buffer_in_a_private_mapping_is_private
 *
 * Not here: huge pages (THP, collapse, hugetlb) and pages swapped out, which
 * buffers have not; long-term pins for reading, which in these kernels are only
 * for vfio, RDMA and gup_test.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <linux/futex.h>
#include <linux/if_xdp.h>
#include <linux/io_uring.h>
#include <linux/loop.h>
#include <linux/userfaultfd.h>

#include "common.h"
#include "harness.h"
#include "util.h"

#define NR		8UL
#define SIZE		(NR * PAGE)

/* Page @index is @value all over, the others are as fill_pages() left them. */
static bool pages_are(const char *p, unsigned long index, char value)
{
	unsigned long i;

	for (i = 0; i < NR; i++)
		if (!page_is(p + i * PAGE, i == index ? value : value_of(i)))
			return false;
	return true;
}

/* The same, by read() and in a mapping made just now. */
static bool buffer_is(int fd, unsigned long index, char value)
{
	char *p = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fd, 0), data[SIZE];
	bool is = p != MAP_FAILED && pread(fd, data, SIZE, 0) == SIZE &&
		  pages_are(data, index, value) && pages_are(p, index, value);

	munmap(p, SIZE);
	return is;
}

static bool buffer_filled(int fd)
{
	return buffer_is(fd, NR, 0);
}

static int create(bool pinnable)
{
	return cow_create_flags(SIZE, "pins", pinnable ? COWMEM_PINNABLE : 0);
}

/* Its fd, and in *@p a mapping of all of it; or -errno. */
static int create_mapped(bool pinnable, char **p)
{
	int fd = create(pinnable);

	if (fd < 0)
		return fd;
	*p = cow_map(fd, SIZE, RW);
	return *p == MAP_FAILED ? -errno : fd;
}

/*
 * What PINNABLE is
 */

FIXTURE(pinnable)
{
	int fd;
	char *p;
	long pages;
};

FIXTURE_SETUP(pinnable)
{
	NEED(PINNABLE);
	self->pages = cow_param("pages");
	self->fd = create_mapped(true, &self->p);
	ASSERT_GE(self->fd, 0);
}

FIXTURE_TEARDOWN(pinnable)
{
	close(self->fd);
}

TEST_F(pinnable, shows_in_STAT_and_goes_to_clones_only)
{
	int plain = create(false), clone, frozen, below;

	clone = cow_snapshot(self->fd, COWMEM_WRITABLE);
	ASSERT_GE(clone, 0);
	frozen = cow_snapshot(self->fd, 0);
	ASSERT_GE(frozen, 0);
	below = cow_snapshot(clone, COWMEM_WRITABLE);
	ASSERT_GE(below, 0);
	EXPECT_EQ(COWMEM_STATE_PINNABLE, cow_stat(self->fd).state);
	EXPECT_EQ(COWMEM_STATE_PINNABLE, cow_stat(clone).state);
	EXPECT_EQ(COWMEM_STATE_PINNABLE, cow_stat(below).state);
	EXPECT_EQ(COWMEM_STATE_FROZEN, cow_stat(frozen).state);
	EXPECT_EQ(0, cow_stat(plain).state);
	close(plain);
	plain = cow_file(self->fd, COWMEM_RDONLY);
	EXPECT_EQ(COWMEM_STATE_PINNABLE, cow_stat(plain).state);
}

TEST_F(pinnable, load_of_a_hole_allocates_it)
{
	EXPECT_EQ(0, cow_stat(self->fd).resident);
	EXPECT_TRUE(page_is(self->p + 3 * PAGE, 0));
	EXPECT_EQ(PAGE, cow_stat(self->fd).resident);
	EXPECT_EQ(1, cow_stat(self->fd).filled);
	EXPECT_EQ(self->pages + 1, cow_param("pages"));
	self->p[3 * PAGE] = '!';
	EXPECT_EQ(PAGE, cow_stat(self->fd).resident);
	EXPECT_EQ(1, cow_stat(self->fd).filled);
}

TEST_F(pinnable, load_of_a_hole_allocates_it_where_PROT_WRITE_may_come)
{
	char *q = cow_map(self->fd, SIZE, PROT_READ);

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(page_is(q, 0));
	EXPECT_EQ(PAGE, cow_stat(self->fd).resident);
}

TEST_F(pinnable, load_of_a_hole_that_may_not_be_written_allocates_nothing)
{
	int reader = cow_file(self->fd, COWMEM_RDONLY);
	char *q, *r;

	ASSERT_GE(reader, 0);
	q = cow_map(reader, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	r = mmap(NULL, SIZE, RW, MAP_PRIVATE, self->fd, 0);
	ASSERT_NE(MAP_FAILED, r);
	EXPECT_TRUE(page_is(q, 0));
	EXPECT_TRUE(page_is(r, 0));
	r[PAGE] = '!';
	EXPECT_EQ(0, cow_stat(self->fd).resident);
	EXPECT_EQ(self->pages, cow_param("pages"));
	/* Those who had the hole mapped see what comes. */
	self->p[0] = '1';
	EXPECT_EQ('1', q[0]);
	EXPECT_EQ('1', r[0]);
	EXPECT_EQ(0, self->p[PAGE]);
}

TEST_F(pinnable, read_of_a_hole_allocates_nothing)
{
	char data[SIZE];

	ASSERT_EQ(SIZE, pread(self->fd, data, SIZE, 0));
	EXPECT_TRUE(page_is(data, 0));
	EXPECT_EQ(0, cow_stat(self->fd).resident);
}

TEST_F(pinnable, hole_of_the_snapshot_stays_one)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	EXPECT_TRUE(page_is(self->p, 0));
	self->p[0] = '!';
	EXPECT_EQ(0, cow_stat(snap).resident);
	EXPECT_EQ(-1, lseek(snap, 0, SEEK_DATA));
	EXPECT_EQ(PAGE, cow_stat(self->fd).resident);
}

TEST_F(pinnable, first_load_after_a_snapshot_copies)
{
	int snap;

	fill_pages(self->p, NR);
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(self->pages + NR, cow_param("pages"));
	EXPECT_TRUE(page_is(self->p + 3 * PAGE, value_of(3)));
	EXPECT_EQ(1, cow_stat(self->fd).copied);
	EXPECT_EQ(0, cow_stat(self->fd).held);
	EXPECT_EQ(self->pages + NR + 1, cow_param("pages"));
	/* The store finds it done. */
	memset(self->p + 3 * PAGE, '!', PAGE);
	EXPECT_EQ(1, cow_stat(self->fd).copied);
	EXPECT_TRUE(pages_are(self->p, 3, '!'));
	EXPECT_EQ(NR, cow_stat(self->fd).copied);
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(pinnable, load_that_may_not_become_a_store_copies_nothing)
{
	int reader = cow_file(self->fd, COWMEM_RDONLY), snap;
	char *q, *r, data[SIZE];

	fill_pages(self->p, NR);
	ASSERT_GE(reader, 0);
	q = cow_map(reader, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	r = mmap(NULL, SIZE, RW, MAP_PRIVATE, self->fd, 0);
	ASSERT_NE(MAP_FAILED, r);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_TRUE(pages_filled(r, 0, NR));
	ASSERT_EQ(SIZE, pread(self->fd, data, SIZE, 0));
	EXPECT_TRUE(pages_filled(data, 0, NR));
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	/* They follow, though they had the old page mapped. */
	memset(self->p + 3 * PAGE, '!', PAGE);
	EXPECT_TRUE(pages_are(q, 3, '!'));
	EXPECT_TRUE(pages_are(r, 3, '!'));
	memset(r + 4 * PAGE, '?', PAGE);
	EXPECT_TRUE(buffer_is(self->fd, 3, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(pinnable, load_of_the_last_sharer_copies_nothing)
{
	int clone;
	char *q;

	fill_pages(self->p, NR);
	clone = cow_snapshot(self->fd, COWMEM_WRITABLE);
	ASSERT_GE(clone, 0);
	q = cow_map(clone, SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_EQ(NR, cow_stat(self->fd).copied);
	EXPECT_EQ(0, cow_stat(clone).copied);
	EXPECT_EQ(self->pages + 2 * NR, cow_param("pages"));
	memset(self->p + PAGE, '1', PAGE);
	memset(q + 2 * PAGE, '2', PAGE);
	EXPECT_TRUE(pages_are(self->p, 1, '1'));
	EXPECT_TRUE(pages_are(q, 2, '2'));
}

/* What the load of a page needs that the account may not have. */
static void load_at_the_LIMIT(struct __test_metadata *_metadata,
			      FIXTURE_DATA(pinnable) *self, unsigned long index)
{
	struct cowmem_stat before, now;

	ASSERT_EQ(0, cow_limit(self->fd, cow_stat(self->fd).charged));
	before = cow_stat(self->fd);
	EXPECT_EQ(SIGBUS, load_signal(self->p + index * PAGE));
	EXPECT_EQ(SIGBUS, load_signal(self->p + index * PAGE));
	now = cow_stat(self->fd);
	before.faults = now.faults;
	EXPECT_EQ(0, memcmp(&now, &before, sizeof(now)));
	/* The very same load. */
	ASSERT_EQ(0, cow_limit(self->fd, before.charged + PAGE));
	EXPECT_EQ(0, load_signal(self->p + index * PAGE));
	EXPECT_EQ(before.charged + PAGE, cow_stat(self->fd).charged);
}

TEST_F(pinnable, load_of_a_hole_at_the_LIMIT_is_SIGBUS)
{
	NEED(LIMIT);
	self->p[0] = '!';
	load_at_the_LIMIT(_metadata, self, 3);
	EXPECT_EQ(2, cow_stat(self->fd).filled);
	EXPECT_TRUE(page_is(self->p + 3 * PAGE, 0));
	EXPECT_EQ('!', self->p[0]);
	EXPECT_EQ(self->pages + 2, cow_param("pages"));
}

/* It loads them all, as far as it gets. */
TEST_F(pinnable, populate_for_reading_at_the_LIMIT_is_EFAULT)
{
	int snap;

	NEED(LIMIT);
	ASSERT_EQ(0, cow_limit(self->fd, 3 * PAGE));
	EXPECT_EQ(-EFAULT, ret(madvise(self->p, SIZE, MADV_POPULATE_READ)));
	EXPECT_EQ(self->pages + 3, cow_param("pages"));
	EXPECT_EQ(3 * PAGE, cow_stat(self->fd).resident);
	ASSERT_EQ(0, cow_limit(self->fd, COWMEM_NO_LIMIT));
	EXPECT_EQ(0, madvise(self->p, SIZE, MADV_POPULATE_READ));
	EXPECT_EQ(SIZE, cow_stat(self->fd).resident);
	fill_pages(self->p, NR);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	/* Shared pages would have to be copied. */
	ASSERT_EQ(0, cow_limit(self->fd, SIZE + 3 * PAGE));
	EXPECT_EQ(-EFAULT, ret(madvise(self->p, SIZE, MADV_POPULATE_READ)));
	EXPECT_EQ(3, cow_stat(self->fd).copied);
	EXPECT_TRUE(buffer_filled(self->fd));
	EXPECT_TRUE(buffer_filled(snap));
	ASSERT_EQ(0, cow_limit(self->fd, 2 * SIZE));
	EXPECT_EQ(0, madvise(self->p, SIZE, MADV_POPULATE_READ));
	EXPECT_EQ(self->pages + 2 * NR, cow_param("pages"));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(pinnable, load_of_a_shared_page_at_the_LIMIT_is_SIGBUS)
{
	char data[PAGE];
	int snap;

	NEED(LIMIT);
	fill_pages(self->p, NR);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	load_at_the_LIMIT(_metadata, self, 3);
	EXPECT_EQ(1, cow_stat(self->fd).copied);
	EXPECT_EQ(0, cow_stat(self->fd).held);
	EXPECT_TRUE(page_is(self->p + 3 * PAGE, value_of(3)));
	/* Who does not load needs no page. */
	EXPECT_EQ(SIGBUS, load_signal(self->p + 4 * PAGE));
	EXPECT_EQ(PAGE, pread(self->fd, data, PAGE, 4 * PAGE));
	EXPECT_TRUE(page_is(data, value_of(4)));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(pinnable, snapshot_without_pins_copies_nothing)
{
	int snap;

	fill_pages(self->p, NR);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	close(cow_snapshot(self->fd, 0));
	EXPECT_EQ(0, cow_stat(self->fd).held);
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_EQ(self->pages + NR, cow_param("pages"));
}

TEST_F(pinnable, store_after_PROT_READ_before_the_snapshot)
{
	int snap;

	fill_pages(self->p, NR);
	ASSERT_EQ(0, mprotect(self->p, SIZE, PROT_READ));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, mprotect(self->p, SIZE, RW));
	memset(self->p + 3 * PAGE, '!', PAGE);
	EXPECT_TRUE(pages_are(self->p, 3, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(pinnable, store_after_PROT_READ_and_a_load_before_the_snapshot)
{
	int snap;

	fill_pages(self->p, NR);
	ASSERT_EQ(0, mprotect(self->p, SIZE, PROT_READ));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	ASSERT_EQ(0, mprotect(self->p, SIZE, RW));
	memset(self->p + 3 * PAGE, '!', PAGE);
	EXPECT_TRUE(pages_are(self->p, 3, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(pinnable, store_after_PROT_READ_and_a_load_after_the_snapshot)
{
	int snap;

	fill_pages(self->p, NR);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, mprotect(self->p, SIZE, PROT_READ));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	ASSERT_EQ(0, mprotect(self->p, SIZE, RW));
	memset(self->p + 3 * PAGE, '!', PAGE);
	EXPECT_TRUE(pages_are(self->p, 3, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(pinnable, store_through_what_was_mapped_for_reading)
{
	char *q = cow_map(self->fd, SIZE, PROT_READ);
	int snap;

	ASSERT_NE(MAP_FAILED, q);
	fill_pages(self->p, NR);
	munmap(self->p, SIZE);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	ASSERT_EQ(0, mprotect(q, SIZE, RW));
	memset(q + 3 * PAGE, '!', PAGE);
	EXPECT_TRUE(pages_are(q, 3, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(pinnable, store_after_PROT_NONE_and_a_part_of_it)
{
	int snap;

	fill_pages(self->p, NR);
	ASSERT_EQ(0, mprotect(self->p, 4 * PAGE, PROT_NONE));
	ASSERT_EQ(0, mprotect(self->p + 6 * PAGE, PAGE, PROT_READ));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, mprotect(self->p, SIZE, RW));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	memset(self->p, '!', SIZE);
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(pinnable, store_to_a_hole_that_was_loaded_under_PROT_READ)
{
	char *q = cow_map(self->fd, SIZE, PROT_READ), *r;
	int other = create(true);

	ASSERT_NE(MAP_FAILED, q);
	r = cow_map(other, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, r);
	EXPECT_TRUE(page_is(q, 0));
	EXPECT_TRUE(page_is(r, 0));
	ASSERT_EQ(0, mprotect(q, SIZE, RW));
	memset(q, '!', PAGE);
	EXPECT_TRUE(page_is(self->p, '!'));
	/* It was no page that others have, too. */
	EXPECT_TRUE(page_is(q + PAGE, 0));
	EXPECT_TRUE(page_is(r, 0));
	EXPECT_TRUE(page_is(r + PAGE, 0));
	close(other);
}

TEST_F(pinnable, fork_shares_it_and_the_snapshot_stays)
{
	int snap;

	fill_pages(self->p, NR);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(0, CHILD({
		if (!pages_filled(self->p, 0, NR))
			_exit(1);
		memset(self->p + 3 * PAGE, '!', PAGE);
	}));
	EXPECT_TRUE(pages_are(self->p, 3, '!'));
	/* Once for both: the child's loads made the pages the buffer's own. */
	EXPECT_EQ(NR, cow_stat(self->fd).copied);
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(pinnable, store_by_a_child_that_had_it_mapped_before_the_snapshot)
{
	int snap, status = -1;
	pid_t pid;

	fill_pages(self->p, NR);
	pid = fork();
	if (!pid) {
		/* Loads only: the PTEs are writable all the same. */
		if (!pages_filled(self->p, 0, NR))
			_exit(1);
		raise(SIGSTOP);
		memset(self->p + 3 * PAGE, '!', PAGE);
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, WUNTRACED));
	ASSERT_TRUE(WIFSTOPPED(status));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	kill(pid, SIGCONT);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_TRUE(buffer_filled(snap));
	EXPECT_TRUE(pages_are(self->p, 3, '!'));
}

TEST_F(pinnable, write_after_a_snapshot_is_seen_where_it_was_loaded)
{
	int snap;

	fill_pages(self->p, NR);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	ASSERT_EQ(1, pwrite(self->fd, "!", 1, 3 * PAGE));
	EXPECT_EQ('!', self->p[3 * PAGE]);
	EXPECT_EQ(value_of(3), self->p[3 * PAGE + 1]);
	EXPECT_EQ(NR, cow_stat(self->fd).copied);
	EXPECT_TRUE(buffer_filled(snap));
}

TEST(ordinary_buffer_is_loaded_without_a_copy_and_holes_stay)
{
	int fd = create(false), snap;
	char *p;

	ASSERT_GE(fd, 0);
	p = cow_map(fd, SIZE, RW);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_TRUE(page_is(p, 0));
	EXPECT_EQ(0, cow_stat(fd).resident);
	fill_pages(p, NR);
	snap = cow_snapshot(fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_TRUE(pages_filled(p, 0, NR));
	EXPECT_EQ(0, cow_stat(fd).copied);
}

/*
 * io_uring, one request at a time
 */

struct ring {
	int fd;
	struct io_uring_params params;
	char *queues;
	struct io_uring_sqe *sqes;
};

/* 0 or -errno. */
static int ring_open(struct ring *ring)
{
	struct io_uring_params *params = &ring->params;
	size_t sq_size, cq_size;

	memset(ring, 0, sizeof(*ring));
	ring->fd = syscall(SYS_io_uring_setup, 4, params);
	if (ring->fd < 0)
		return -errno;
	sq_size = params->sq_off.array + params->sq_entries * sizeof(__u32);
	cq_size = params->cq_off.cqes +
		  params->cq_entries * sizeof(struct io_uring_cqe);
	ring->queues = mmap(NULL, sq_size > cq_size ? sq_size : cq_size, RW,
			    MAP_SHARED, ring->fd, IORING_OFF_SQ_RING);
	ring->sqes = mmap(NULL, params->sq_entries * sizeof(*ring->sqes), RW,
			  MAP_SHARED, ring->fd, IORING_OFF_SQES);
	return ring->queues == MAP_FAILED || ring->sqes == MAP_FAILED ? -errno : 0;
}

static _Atomic __u32 *ring_word(struct ring *ring, __u32 offset)
{
	return (_Atomic __u32 *)(ring->queues + offset);
}

static int ring_register(struct ring *ring, void *p, size_t length)
{
	struct iovec iov = { p, length };

	return syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_BUFFERS,
		       &iov, 1) < 0 ? -errno : 0;
}

static int ring_unregister(struct ring *ring)
{
	return syscall(SYS_io_uring_register, ring->fd,
		       IORING_UNREGISTER_BUFFERS, NULL, 0) < 0 ? -errno : 0;
}

/* At offset 0 of the file, with fixed buffer number 0. */
static bool ring_submit(struct ring *ring, int opcode, int fd, void *p,
			size_t length)
{
	struct io_sqring_offsets *sq = &ring->params.sq_off;
	__u32 tail = atomic_load(ring_word(ring, sq->tail));
	__u32 index = tail & *ring_word(ring, sq->ring_mask);

	ring->sqes[index] = (struct io_uring_sqe) {
		.opcode = opcode,
		.fd = fd,
		.addr = (uintptr_t)p,
		.len = length,
	};
	*(ring_word(ring, sq->array) + index) = index;
	atomic_store(ring_word(ring, sq->tail), tail + 1);
	return syscall(SYS_io_uring_enter, ring->fd, 1, 0, 0, NULL, 0) == 1;
}

static bool ring_empty(struct ring *ring)
{
	struct io_cqring_offsets *cq = &ring->params.cq_off;

	return atomic_load(ring_word(ring, cq->head)) ==
	       atomic_load(ring_word(ring, cq->tail));
}

/* Result of the next request to complete. */
static int ring_wait(struct ring *ring)
{
	struct io_cqring_offsets *cq = &ring->params.cq_off;
	struct io_uring_cqe *cqes = (void *)(ring->queues + cq->cqes);
	__u32 head = atomic_load(ring_word(ring, cq->head));
	int res;

	while (ring_empty(ring))
		if (syscall(SYS_io_uring_enter, ring->fd, 0, 1,
			    IORING_ENTER_GETEVENTS, NULL, 0) < 0 &&
		    errno != EINTR)
			return -errno;
	res = cqes[head & *ring_word(ring, cq->ring_mask)].res;
	atomic_store(ring_word(ring, cq->head), head + 1);
	return res;
}

/*
 * What is at the other end: a pipe, a file, or a block device over a file
 */

struct channel {
	int in, out;	/* what goes into @out comes from @in */
	bool stream;	/* else it is at offset 0 */
};

static int channel_pipe(struct channel *channel)
{
	int fds[2];

	if (pipe(fds))
		return -errno;
	*channel = (struct channel) { fds[0], fds[1], true };
	return 0;
}

static int channel_memfd(struct channel *channel)
{
	int fd = memfd_create("channel", MFD_CLOEXEC);

	*channel = (struct channel) { fd, fd, false };
	return fd < 0 || ftruncate(fd, SIZE) ? -errno : 0;
}

/* A loop device over @backing, open for O_DIRECT; it goes with its last fd. */
static int loop_open(int backing)
{
	struct loop_config config = {
		.fd = backing,
		.info.lo_flags = LO_FLAGS_AUTOCLEAR,
	};
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int nr, fd, direct = -1;
	char path[32];

	if (control < 0)
		return -ENODEV;
	nr = ioctl(control, LOOP_CTL_GET_FREE);
	close(control);
	snprintf(path, sizeof(path), "/dev/loop%d", nr);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (!ioctl(fd, LOOP_CONFIGURE, &config))
		direct = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (direct < 0)
		direct = -errno;
	close(fd);
	return direct;
}

static int channel_block(struct channel *channel)
{
	int err = channel_memfd(channel);

	if (err)
		return err;
	channel->in = loop_open(channel->out);
	return channel->in < 0 ? channel->in : 0;
}

/* Where to write to it from the side of the pins. */
static int channel_sink(const struct channel *channel)
{
	return channel->stream ? channel->out : channel->in;
}

static bool channel_feed(const struct channel *channel, char value, size_t size)
{
	char data[SIZE];

	memset(data, value, size);
	if (channel->stream)
		return write(channel->out, data, size) == size;
	return pwrite(channel->out, data, size, 0) == size;
}

/* Is what was written to it a page of @value? */
static bool channel_has(const struct channel *channel, char value)
{
	char data[PAGE];

	if (channel->stream ? read(channel->in, data, PAGE) != PAGE :
			      pread(channel->out, data, PAGE, 0) != PAGE)
		return false;
	return page_is(data, value);
}

/*
 * Who may register what
 */

FIXTURE(ring)
{
	struct ring ring;
	int fd;
	char *p;
	long pages;
};

FIXTURE_VARIANT(ring)
{
	bool pinnable;
};

FIXTURE_VARIANT_ADD(ring, ordinary) { .pinnable = false };
FIXTURE_VARIANT_ADD(ring, pinnable) { .pinnable = true };

FIXTURE_SETUP(ring)
{
	int err = ring_open(&self->ring);

	if (err == -ENOSYS || err == -EPERM)
		SKIP(return, "no io_uring: %s", strerror(-err));
	ASSERT_EQ(0, err);
	if (variant->pinnable)
		NEED(PINNABLE);
	self->pages = cow_param("pages");
	self->fd = create_mapped(variant->pinnable, &self->p);
	ASSERT_GE(self->fd, 0);
}

FIXTURE_TEARDOWN(ring)
{
	close(self->fd);
}

TEST_F(ring, fixed_buffer_needs_PINNABLE)
{
	int err, want;

	fill_pages(self->p, NR);
	err = ring_register(&self->ring, self->p, SIZE);
	if (kernel_before(6, 5))
		want = err ? -EOPNOTSUPP : 0;
	else
		want = variant->pinnable ? 0 : -EFAULT;
	EXPECT_EQ(want, err);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	EXPECT_EQ(self->pages + NR, cow_param("pages"));
	if (!err)
		EXPECT_EQ(0, ring_unregister(&self->ring));
	EXPECT_EQ(0, cow_stat(self->fd).held);
}

TEST_F(ring, fixed_buffer_fills_holes)
{
	int err = ring_register(&self->ring, self->p + 2 * PAGE, 3 * PAGE);

	if (err)
		SKIP(return, "cannot be registered: %s", strerror(-err));
	EXPECT_EQ(3 * PAGE, cow_stat(self->fd).resident);
	EXPECT_EQ(3, cow_stat(self->fd).filled);
	EXPECT_TRUE(page_is(self->p + 3 * PAGE, 0));
}

TEST_F(ring, fixed_buffer_that_cannot_be_written_is_EFAULT)
{
	char *q = cow_map(self->fd, SIZE, PROT_READ), *r;
	int snap;

	fill_pages(self->p, NR);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(-EFAULT, ring_register(&self->ring, q, SIZE));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	r = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, r);
	EXPECT_EQ(-EFAULT, ring_register(&self->ring, r, SIZE));
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(ring, fixed_buffer_in_a_private_mapping_is_private)
{
	char *q = mmap(NULL, SIZE, RW, MAP_PRIVATE, self->fd, 0);
	struct channel channel;
	int err;

	fill_pages(self->p, NR);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_EQ(0, channel_pipe(&channel));
	err = ring_register(&self->ring, q, SIZE);
	if (err == -EOPNOTSUPP && kernel_before(6, 5))
		SKIP(return, "no fixed buffers in files before Linux 6.5");
	ASSERT_EQ(0, err);
	ASSERT_TRUE(channel_feed(&channel, '!', PAGE));
	ASSERT_TRUE(ring_submit(&self->ring, IORING_OP_READ_FIXED, channel.in,
				q + 3 * PAGE, PAGE));
	EXPECT_EQ(PAGE, ring_wait(&self->ring));
	EXPECT_TRUE(pages_are(q, 3, '!'));
	EXPECT_TRUE(buffer_filled(self->fd));
	EXPECT_EQ(self->pages + NR, cow_param("pages"));
	EXPECT_EQ(0, ring_unregister(&self->ring));
}

TEST_F(ring, read_that_is_not_fixed_works_across_a_snapshot)
{
	struct channel channel;
	int snap;

	fill_pages(self->p, NR);
	ASSERT_EQ(0, channel_pipe(&channel));
	ASSERT_TRUE(ring_submit(&self->ring, IORING_OP_READ, channel.in,
				self->p + 3 * PAGE, PAGE));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_TRUE(ring_empty(&self->ring));
	ASSERT_TRUE(channel_feed(&channel, '!', PAGE));
	EXPECT_EQ(PAGE, ring_wait(&self->ring));
	EXPECT_TRUE(pages_are(self->p, 3, '!'));
	EXPECT_TRUE(buffer_filled(snap));
	EXPECT_EQ(0, cow_stat(self->fd).held);
}

/*
 * Fixed buffers.  Pages 2 to 5 are registered, and page 3 is read into.
 */

#define FIRST_FIXED	2UL
#define NR_FIXED	4UL
#define INDEX		3UL
#define TARGET(p)	((p) + INDEX * PAGE)

struct fixed {
	bool ready;
	int fd;
	char *p;
	long pages;	/* of the module, before there was the buffer */
	struct ring ring;
	struct channel channel;
};

/* Why there cannot be one here, or NULL. */
static const char *fixed_open(struct fixed *fixed,
			      int (*channel_open)(struct channel *channel))
{
	int err = ring_open(&fixed->ring);

	if (err == -ENOSYS || err == -EPERM)
		return "no io_uring";
	if (cow_missing(COWMEM_FEATURE_PINNABLE))
		return "module without PINNABLE";
	if (!err)
		err = channel_open(&fixed->channel);
	if (err == -ENODEV)
		return "no /dev/loop-control";
	fixed->pages = cow_param("pages");
	fixed->fd = create(true);
	fixed->p = cow_map(fixed->fd, SIZE, RW);
	if (err || fixed->p == MAP_FAILED)
		return NULL;
	fill_pages(fixed->p, NR);
	err = ring_register(&fixed->ring, fixed->p + FIRST_FIXED * PAGE,
			    NR_FIXED * PAGE);
	if (err == -EOPNOTSUPP && kernel_before(6, 5))
		return "no fixed buffers in files before Linux 6.5";
	fixed->ready = !err;
	return NULL;
}

static bool fixed_submit(struct fixed *fixed)
{
	return ring_submit(&fixed->ring, IORING_OP_READ_FIXED, fixed->channel.in,
			   TARGET(fixed->p), PAGE);
}

static bool fixed_read(struct fixed *fixed, char value)
{
	return channel_feed(&fixed->channel, value, PAGE) &&
	       fixed_submit(fixed) && ring_wait(&fixed->ring) == PAGE;
}

/* Does a write from the fixed buffer write @value? */
static bool fixed_writes(struct fixed *fixed, char value)
{
	return ring_submit(&fixed->ring, IORING_OP_WRITE_FIXED,
			   channel_sink(&fixed->channel), TARGET(fixed->p),
			   PAGE) &&
	       ring_wait(&fixed->ring) == PAGE &&
	       channel_has(&fixed->channel, value);
}

FIXTURE(fixed)
{
	struct fixed fixed;
};

FIXTURE_VARIANT(fixed)
{
	int (*channel_open)(struct channel *channel);
};

FIXTURE_VARIANT_ADD(fixed, pipe) { .channel_open = channel_pipe };
FIXTURE_VARIANT_ADD(fixed, memfd) { .channel_open = channel_memfd };
FIXTURE_VARIANT_ADD(fixed, block) { .channel_open = channel_block };

FIXTURE_SETUP(fixed)
{
	const char *reason = fixed_open(&self->fixed, variant->channel_open);

	if (reason)
		SKIP(return, "%s", reason);
	ASSERT_TRUE(self->fixed.ready);
}

FIXTURE_TEARDOWN(fixed)
{
	EXPECT_EQ(0, ring_unregister(&self->fixed.ring));
	close(self->fixed.fd);
}

TEST_F(fixed, read_after_a_snapshot_is_not_in_it)
{
	struct fixed *fixed = &self->fixed;
	int snap = cow_snapshot(fixed->fd, 0);

	ASSERT_GE(snap, 0);
	ASSERT_TRUE(fixed_read(fixed, '!'));
	EXPECT_TRUE(pages_are(fixed->p, INDEX, '!'));
	EXPECT_TRUE(buffer_is(fixed->fd, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(fixed, read_before_a_snapshot_is_in_it)
{
	struct fixed *fixed = &self->fixed;
	int snap;

	ASSERT_TRUE(fixed_read(fixed, '1'));
	snap = cow_snapshot(fixed->fd, 0);
	ASSERT_GE(snap, 0);
	ASSERT_TRUE(fixed_read(fixed, '2'));
	EXPECT_TRUE(pages_are(fixed->p, INDEX, '2'));
	EXPECT_TRUE(buffer_is(snap, INDEX, '1'));
}

TEST_F(fixed, each_snapshot_has_the_read_before_it)
{
	struct fixed *fixed = &self->fixed;
	int snap[6], i;

	for (i = 0; i < 6; i++) {
		ASSERT_TRUE(fixed_read(fixed, '0' + i));
		snap[i] = cow_snapshot(fixed->fd, i % 2 ? COWMEM_WRITABLE : 0);
		ASSERT_GE(snap[i], 0);
	}
	ASSERT_TRUE(fixed_read(fixed, '!'));
	for (i = 0; i < 6; i++)
		EXPECT_TRUE(buffer_is(snap[i], INDEX, '0' + i));
	EXPECT_TRUE(pages_are(fixed->p, INDEX, '!'));
}

TEST_F(fixed, read_is_seen_in_mappings_that_a_snapshot_revoked)
{
	struct fixed *fixed = &self->fixed;
	char *q = cow_map(fixed->fd, SIZE, PROT_READ);
	int snap;

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	snap = cow_snapshot(fixed->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	ASSERT_TRUE(fixed_read(fixed, '!'));
	EXPECT_TRUE(pages_are(q, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(fixed, write_takes_what_was_stored_last)
{
	struct fixed *fixed = &self->fixed;
	char data[PAGE];
	int snap;

	EXPECT_TRUE(fixed_writes(fixed, value_of(INDEX)));
	snap = cow_snapshot(fixed->fd, 0);
	ASSERT_GE(snap, 0);
	memset(TARGET(fixed->p), '1', PAGE);
	EXPECT_TRUE(fixed_writes(fixed, '1'));
	close(cow_snapshot(fixed->fd, 0));
	memset(data, '2', PAGE);
	ASSERT_EQ(PAGE, pwrite(fixed->fd, data, PAGE, INDEX * PAGE));
	EXPECT_TRUE(fixed_writes(fixed, '2'));
	ASSERT_TRUE(fixed_read(fixed, '3'));
	EXPECT_TRUE(fixed_writes(fixed, '3'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(fixed, clone_is_on_its_own)
{
	struct fixed *fixed = &self->fixed;
	int clone = cow_snapshot(fixed->fd, COWMEM_WRITABLE);
	char *q;

	ASSERT_GE(clone, 0);
	q = cow_map(clone, SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	memset(TARGET(q), '1', PAGE);
	EXPECT_TRUE(fixed_writes(fixed, value_of(INDEX)));
	ASSERT_TRUE(fixed_read(fixed, '2'));
	EXPECT_TRUE(pages_are(q, INDEX, '1'));
	EXPECT_TRUE(pages_are(fixed->p, INDEX, '2'));
}

/* A store behind it finds a read-only PTE, as nothing is dirty any more. */
static bool make_read_only_and_back(char *p)
{
	bool done = !mprotect(p, SIZE, PROT_READ);

	/* Where there is no such thing, all is well too. */
	write_file("/proc/self/clear_refs", "4");
	return done && !mprotect(p, SIZE, RW);
}

TEST_F(fixed, store_after_PROT_READ_is_written)
{
	struct fixed *fixed = &self->fixed;
	int snap = cow_snapshot(fixed->fd, 0);

	ASSERT_GE(snap, 0);
	EXPECT_TRUE(pages_filled(fixed->p, 0, NR));
	ASSERT_TRUE(make_read_only_and_back(fixed->p));
	memset(TARGET(fixed->p), '!', PAGE);
	EXPECT_TRUE(fixed_writes(fixed, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(fixed, store_beside_a_child_is_written)
{
	struct fixed *fixed = &self->fixed;
	pid_t pid = fork();

	if (!pid) {
		raise(SIGSTOP);
		_exit(page_is(TARGET(fixed->p), '!') ? 0 : 1);
	}
	ASSERT_TRUE(child_stopped(pid));
	memset(TARGET(fixed->p), '!', PAGE);
	EXPECT_TRUE(fixed_writes(fixed, '!'));
	EXPECT_EQ(0, child_finish(pid));
}

TEST_F(fixed, store_by_a_child_is_written)
{
	struct fixed *fixed = &self->fixed;
	int snap = cow_snapshot(fixed->fd, 0);

	ASSERT_GE(snap, 0);
	EXPECT_EQ(0, CHILD(memset(TARGET(fixed->p), '!', PAGE)));
	EXPECT_TRUE(fixed_writes(fixed, '!'));
	EXPECT_TRUE(pages_are(fixed->p, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

/*
 * A read that waits for its pipe while other things happen
 */

FIXTURE(in_flight)
{
	struct fixed fixed;
};

FIXTURE_SETUP(in_flight)
{
	const char *reason = fixed_open(&self->fixed, channel_pipe);

	if (reason)
		SKIP(return, "%s", reason);
	ASSERT_TRUE(self->fixed.ready);
	ASSERT_TRUE(fixed_submit(&self->fixed));
	ASSERT_TRUE(ring_empty(&self->fixed.ring));
}

FIXTURE_TEARDOWN(in_flight)
{
	close(self->fixed.fd);
}

static bool complete(struct fixed *fixed, char value)
{
	return ring_empty(&fixed->ring) &&
	       channel_feed(&fixed->channel, value, PAGE) &&
	       ring_wait(&fixed->ring) == PAGE;
}

TEST_F(in_flight, snapshot_has_the_old_content)
{
	struct fixed *fixed = &self->fixed;
	int snap = cow_snapshot(fixed->fd, 0);

	ASSERT_GE(snap, 0);
	EXPECT_TRUE(buffer_filled(snap));
	ASSERT_TRUE(complete(fixed, '!'));
	EXPECT_TRUE(pages_are(fixed->p, INDEX, '!'));
	EXPECT_TRUE(buffer_is(fixed->fd, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(in_flight, snapshots_have_what_was_stored_meanwhile)
{
	struct fixed *fixed = &self->fixed;
	int first = cow_snapshot(fixed->fd, 0), second;

	ASSERT_GE(first, 0);
	memset(TARGET(fixed->p), '1', PAGE);
	second = cow_snapshot(fixed->fd, 0);
	ASSERT_GE(second, 0);
	memset(TARGET(fixed->p), '2', PAGE);
	ASSERT_TRUE(complete(fixed, '!'));
	EXPECT_TRUE(pages_are(fixed->p, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(first));
	EXPECT_TRUE(buffer_is(second, INDEX, '1'));
}

TEST_F(in_flight, snapshot_was_read_and_mapped_meanwhile)
{
	struct fixed *fixed = &self->fixed;
	int snap = cow_snapshot(fixed->fd, 0);
	char *q;

	ASSERT_GE(snap, 0);
	q = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_TRUE(pages_filled(fixed->p, 0, NR));
	ASSERT_TRUE(complete(fixed, '!'));
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_TRUE(pages_are(fixed->p, INDEX, '!'));
}

TEST_F(in_flight, clone_has_the_old_content_and_its_own_stores)
{
	struct fixed *fixed = &self->fixed;
	int clone = cow_snapshot(fixed->fd, COWMEM_WRITABLE), below;
	char *q;

	ASSERT_GE(clone, 0);
	below = cow_snapshot(clone, COWMEM_WRITABLE);
	ASSERT_GE(below, 0);
	q = cow_map(clone, SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	memset(TARGET(q), '1', PAGE);
	ASSERT_TRUE(complete(fixed, '!'));
	EXPECT_TRUE(pages_are(fixed->p, INDEX, '!'));
	EXPECT_TRUE(pages_are(q, INDEX, '1'));
	EXPECT_TRUE(buffer_filled(below));
}

TEST_F(in_flight, each_snapshot_copies_each_pinned_page)
{
	struct fixed *fixed = &self->fixed;
	long pages = fixed->pages + NR;
	uint64_t frame = frame_of(TARGET(fixed->p));
	int snap[3], i;

	ASSERT_NE(0, frame);
	for (i = 0; i < 3; i++) {
		snap[i] = cow_snapshot(fixed->fd, 0);
		ASSERT_GE(snap[i], 0);
		pages += NR_FIXED;
		EXPECT_EQ((i + 1) * NR_FIXED, cow_stat(fixed->fd).held);
		EXPECT_EQ((i + 1) * NR_FIXED, cow_stat(fixed->fd).copied);
		EXPECT_EQ(pages, cow_param("pages"));
	}
	/* It has stayed where it is. */
	EXPECT_EQ(value_of(INDEX), *TARGET(fixed->p));
	EXPECT_EQ(frame, frame_of(TARGET(fixed->p)));
	EXPECT_EQ(0, cow_stat(snap[0]).held);
	ASSERT_TRUE(complete(fixed, '!'));
	for (i = 0; i < 3; i++)
		EXPECT_TRUE(buffer_filled(snap[i]));
}

TEST_F(in_flight, pages_are_shared_again_after_the_pin)
{
	struct fixed *fixed = &self->fixed;
	long pages;
	int snap;

	ASSERT_TRUE(complete(fixed, '!'));
	ASSERT_EQ(0, ring_unregister(&fixed->ring));
	pages = cow_param("pages");
	snap = cow_snapshot(fixed->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(pages, cow_param("pages"));
	EXPECT_EQ(0, cow_stat(fixed->fd).held);
	memset(TARGET(fixed->p), '?', PAGE);
	EXPECT_EQ(1, cow_stat(fixed->fd).copied);
	EXPECT_TRUE(buffer_is(snap, INDEX, '!'));
}

TEST_F(in_flight, mapping_is_moved)
{
	struct fixed *fixed = &self->fixed;
	char *q = moved(fixed->p, SIZE);
	int snap;

	ASSERT_NE(MAP_FAILED, q);
	snap = cow_snapshot(fixed->fd, 0);
	ASSERT_GE(snap, 0);
	ASSERT_TRUE(complete(fixed, '!'));
	EXPECT_TRUE(pages_are(q, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(in_flight, mapping_is_made_read_only)
{
	struct fixed *fixed = &self->fixed;
	int snap;

	ASSERT_EQ(0, mprotect(fixed->p, SIZE, PROT_READ));
	snap = cow_snapshot(fixed->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_TRUE(pages_filled(fixed->p, 0, NR));
	ASSERT_TRUE(complete(fixed, '!'));
	EXPECT_TRUE(pages_are(fixed->p, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(in_flight, mapping_is_gone)
{
	struct fixed *fixed = &self->fixed;
	int snap;

	munmap(fixed->p, SIZE);
	snap = cow_snapshot(fixed->fd, 0);
	ASSERT_GE(snap, 0);
	ASSERT_TRUE(complete(fixed, '!'));
	EXPECT_TRUE(buffer_is(fixed->fd, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(in_flight, buffer_is_gone)
{
	struct fixed *fixed = &self->fixed;
	int snap = cow_snapshot(fixed->fd, 0);

	ASSERT_GE(snap, 0);
	munmap(fixed->p, SIZE);
	close(fixed->fd);
	fixed->fd = -1;
	/* The pinned pages are nobody's. */
	EXPECT_EQ(fixed->pages + NR, cow_param("pages"));
	ASSERT_TRUE(complete(fixed, '!'));
	EXPECT_TRUE(buffer_filled(snap));
	close(snap);
	EXPECT_EQ(fixed->pages, cow_param("pages"));
}

TEST_F(in_flight, truncate_takes_the_page_away)
{
	struct fixed *fixed = &self->fixed;
	int snap = cow_snapshot(fixed->fd, 0);

	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, ftruncate(fixed->fd, PAGE));
	EXPECT_EQ(fixed->pages + NR, cow_param("pages"));
	ASSERT_EQ(0, ftruncate(fixed->fd, SIZE));
	ASSERT_TRUE(complete(fixed, '!'));
	EXPECT_TRUE(page_is(fixed->p, value_of(0)));
	EXPECT_TRUE(page_is(TARGET(fixed->p), 0));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(in_flight, punch_takes_the_page_away)
{
	struct fixed *fixed = &self->fixed;
	int snap = cow_snapshot(fixed->fd, 0);

	ASSERT_GE(snap, 0);
	NEED(FALLOCATE);
	ASSERT_EQ(0, fallocate(fixed->fd,
			       FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       INDEX * PAGE, PAGE));
	ASSERT_TRUE(complete(fixed, '!'));
	EXPECT_TRUE(pages_are(fixed->p, INDEX, 0));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(in_flight, restore_keeps_the_page_in_place)
{
	struct fixed *fixed = &self->fixed;
	int snap = cow_snapshot(fixed->fd, 0);

	ASSERT_GE(snap, 0);
	NEED(RESTORE);
	memset(fixed->p, '1', SIZE);
	ASSERT_EQ(0, cow_restore(fixed->fd, snap, 0));
	EXPECT_TRUE(pages_filled(fixed->p, 0, NR));
	EXPECT_TRUE(buffer_filled(fixed->fd));
	ASSERT_TRUE(complete(fixed, '!'));
	EXPECT_TRUE(pages_are(fixed->p, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(in_flight, snapshot_of_a_range_copies_only_pins_in_it)
{
	struct fixed *fixed = &self->fixed;
	char data[2 * PAGE];
	int before, with;

	NEED(RANGE);
	before = cow_snapshot_range(fixed->fd, 0, 0, FIRST_FIXED * PAGE);
	ASSERT_GE(before, 0);
	EXPECT_EQ(0, cow_stat(fixed->fd).held);
	with = cow_snapshot_range(fixed->fd, 0, INDEX * PAGE, 2 * PAGE);
	ASSERT_GE(with, 0);
	EXPECT_EQ(2, cow_stat(fixed->fd).held);
	EXPECT_EQ(fixed->pages + NR + 2, cow_param("pages"));
	ASSERT_TRUE(complete(fixed, '!'));
	memset(fixed->p, '?', PAGE);
	ASSERT_EQ(2 * PAGE, pread(with, data, 2 * PAGE, 0));
	EXPECT_TRUE(page_is(data, value_of(INDEX)));
	EXPECT_TRUE(page_is(data + PAGE, value_of(INDEX + 1)));
	ASSERT_EQ(2 * PAGE, pread(before, data, 2 * PAGE, 0));
	EXPECT_TRUE(page_is(data, value_of(0)));
	EXPECT_TRUE(page_is(data + PAGE, value_of(1)));
}

TEST_F(in_flight, group_snapshot_has_the_old_content)
{
	struct fixed *fixed = &self->fixed;
	struct cowmem_member members[2] = { };
	int other = create(false);
	char *q = cow_map(other, SIZE, RW);

	NEED(GROUP);
	ASSERT_NE(MAP_FAILED, q);
	fill_pages(q, NR);
	members[0].fd = other;
	members[1].fd = fixed->fd;
	ASSERT_EQ(0, cow_snapshot_group(fixed->fd, 0, members, 2));
	EXPECT_EQ(NR_FIXED, cow_stat(fixed->fd).held);
	EXPECT_EQ(0, cow_stat(other).held);
	ASSERT_TRUE(complete(fixed, '!'));
	memset(TARGET(q), '?', PAGE);
	EXPECT_TRUE(pages_are(fixed->p, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(members[0].snapshot_fd));
	EXPECT_TRUE(buffer_filled(members[1].snapshot_fd));
}

/*
 * A read in flight while its page gets the content of another buffer's, or
 * gives it
 */

static int give_by_restore(int fd, int source)
{
	return cow_restore_range(fd, INDEX * PAGE, source, INDEX * PAGE, PAGE, 0);
}

static int give_by_clone(int fd, int source)
{
	return cow_clone_range(fd, INDEX * PAGE, source, INDEX * PAGE, PAGE);
}

static int give_by_copy(int fd, int source)
{
	off_t from = INDEX * PAGE, to = from;
	ssize_t n = copy_file_range(source, &from, fd, &to, PAGE, 0);

	return n < 0 ? -errno : n == PAGE ? 0 : -EIO;
}

static int give_by_dedupe(int fd, int source)
{
	long n = cow_dedupe(fd, INDEX * PAGE, source, INDEX * PAGE, PAGE);

	return n < 0 ? n : n == PAGE ? 0 : -EIO;
}

FIXTURE(given)
{
	struct fixed fixed;
	int other;
};

FIXTURE_VARIANT(given)
{
	uint64_t feature;
	int (*give)(int fd, int source);
	char content;	/* of the other buffer's page */
};

FIXTURE_VARIANT_ADD(given, restore) {
	COWMEM_FEATURE_RESTORE, give_by_restore, '1',
};
FIXTURE_VARIANT_ADD(given, clone) {
	COWMEM_FEATURE_CLONE, give_by_clone, '1',
};
FIXTURE_VARIANT_ADD(given, copy) {
	COWMEM_FEATURE_CLONE, give_by_copy, '1',
};
/* Only what is the same is deduped. */
FIXTURE_VARIANT_ADD(given, dedupe) {
	COWMEM_FEATURE_DEDUPE, give_by_dedupe, 'a' + INDEX,
};

FIXTURE_SETUP(given)
{
	const char *reason = fixed_open(&self->fixed, channel_pipe);
	char data[SIZE];

	if (reason)
		SKIP(return, "%s", reason);
	NEED_BITS(variant->feature);
	ASSERT_TRUE(self->fixed.ready);
	fill_pages(data, NR);
	memset(TARGET(data), variant->content, PAGE);
	self->other = create(false);
	ASSERT_EQ(SIZE, pwrite(self->other, data, SIZE, 0));
	ASSERT_TRUE(fixed_submit(&self->fixed));
}

FIXTURE_TEARDOWN(given)
{
	close(self->fixed.fd);
	close(self->other);
}

TEST_F(given, to_a_pinned_page_leaves_it_in_place)
{
	struct fixed *fixed = &self->fixed;

	ASSERT_EQ(0, variant->give(fixed->fd, self->other));
	EXPECT_TRUE(pages_are(fixed->p, INDEX, variant->content));
	EXPECT_TRUE(buffer_is(fixed->fd, INDEX, variant->content));
	ASSERT_TRUE(complete(fixed, '!'));
	EXPECT_TRUE(pages_are(fixed->p, INDEX, '!'));
	EXPECT_TRUE(buffer_is(self->other, INDEX, variant->content));
	EXPECT_TRUE(fixed_writes(fixed, '!'));
}

TEST_F(given, by_a_pinned_page_is_a_copy)
{
	struct fixed *fixed = &self->fixed;

	ASSERT_EQ(0, variant->give(self->other, fixed->fd));
	EXPECT_TRUE(buffer_filled(self->other));
	ASSERT_TRUE(complete(fixed, '!'));
	EXPECT_TRUE(pages_are(fixed->p, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(self->other));
	EXPECT_TRUE(fixed_writes(fixed, '!'));
}

/*
 * AF_XDP: a long-term write pin that every kernel takes
 */

/* A socket that has pinned the memory, or -errno. */
static int xdp_pin(void *p, size_t length)
{
	int sock = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0), err = 0;
	struct xdp_umem_reg reg;

	if (sock < 0)
		return -EAFNOSUPPORT;
	memset(&reg, 0, sizeof(reg));
	reg.addr = (uintptr_t)p;
	reg.len = length;
	reg.chunk_size = PAGE;
	if (setsockopt(sock, SOL_XDP, XDP_UMEM_REG, &reg, sizeof(reg)))
		err = -errno;
	if (err)
		close(sock);
	return err ? err : sock;
}

FIXTURE(umem)
{
	int fd;
	char *p;
	long pages;
};

FIXTURE_VARIANT(umem)
{
	bool pinnable;
};

FIXTURE_VARIANT_ADD(umem, ordinary) { .pinnable = false };
FIXTURE_VARIANT_ADD(umem, pinnable) { .pinnable = true };

FIXTURE_SETUP(umem)
{
	if (variant->pinnable)
		NEED(PINNABLE);
	self->pages = cow_param("pages");
	self->fd = create_mapped(variant->pinnable, &self->p);
	ASSERT_GE(self->fd, 0);
	fill_pages(self->p, NR);
}

FIXTURE_TEARDOWN(umem)
{
	close(self->fd);
}

TEST_F(umem, pinned_pages_stay_with_the_live_buffer)
{
	int sock = xdp_pin(self->p, SIZE), snap, i;
	uint64_t frame[NR];

	if (sock == -EAFNOSUPPORT)
		SKIP(return, "no AF_XDP");
	if (!variant->pinnable && !kernel_before(6, 5)) {
		EXPECT_EQ(-EFAULT, sock);
		EXPECT_TRUE(buffer_filled(self->fd));
		return;
	}
	ASSERT_GE(sock, 0);
	for (i = 0; i < NR; i++) {
		EXPECT_EQ(value_of(i), self->p[i * PAGE]);
		frame[i] = frame_of(self->p + i * PAGE);
	}
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(NR, cow_stat(self->fd).held);
	EXPECT_EQ(self->pages + 2 * NR, cow_param("pages"));
	memset(TARGET(self->p), '!', PAGE);
	EXPECT_TRUE(pages_are(self->p, INDEX, '!'));
	for (i = 0; i < NR; i++)
		EXPECT_EQ(frame[i], frame_of(self->p + i * PAGE));
	EXPECT_EQ(NR, cow_stat(self->fd).copied);
	EXPECT_TRUE(buffer_filled(snap));
	close(sock);
}

/*
 * O_DIRECT, from a block device into a mapping
 */

static int backing_memfd(void)
{
	int fd = memfd_create("backing", MFD_CLOEXEC);

	return fd < 0 || ftruncate(fd, SIZE) ? -1 : fd;
}

static int backing_cowmem(void)
{
	return create(false);
}

FIXTURE(direct)
{
	int fd;
	char *p;
	int backing;
	int device;
};

FIXTURE_VARIANT(direct)
{
	bool pinnable;
	int (*backing)(void);
};

FIXTURE_VARIANT_ADD(direct, ordinary_from_memfd) { false, backing_memfd };
FIXTURE_VARIANT_ADD(direct, ordinary_from_cowmem) { false, backing_cowmem };
FIXTURE_VARIANT_ADD(direct, pinnable_from_memfd) { true, backing_memfd };
FIXTURE_VARIANT_ADD(direct, pinnable_from_cowmem) { true, backing_cowmem };

FIXTURE_SETUP(direct)
{
	if (variant->pinnable)
		NEED(PINNABLE);
	self->backing = variant->backing();
	ASSERT_GE(self->backing, 0);
	self->device = loop_open(self->backing);
	if (self->device == -ENODEV)
		SKIP(return, "no /dev/loop-control");
	ASSERT_GE(self->device, 0);
	self->fd = create_mapped(variant->pinnable, &self->p);
	ASSERT_GE(self->fd, 0);
	fill_pages(self->p, NR);
}

FIXTURE_TEARDOWN(direct)
{
	close(self->device);
	close(self->backing);
	close(self->fd);
}

/* The device has @value everywhere. */
static bool device_fill(int backing, char value)
{
	struct channel channel = { backing, backing, false };

	return channel_feed(&channel, value, SIZE);
}

TEST_F(direct, read_after_a_snapshot_is_not_in_it)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	ASSERT_TRUE(device_fill(self->backing, '!'));
	ASSERT_EQ(PAGE, pread(self->device, TARGET(self->p), PAGE, 0));
	EXPECT_TRUE(pages_are(self->p, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
	/* Nobody has held it when it was shared. */
	EXPECT_EQ(0, cow_stat(self->fd).held);
}

TEST_F(direct, read_before_a_snapshot_is_in_it)
{
	int snap;

	ASSERT_TRUE(device_fill(self->backing, '1'));
	ASSERT_EQ(PAGE, pread(self->device, TARGET(self->p), PAGE, 0));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	ASSERT_TRUE(device_fill(self->backing, '2'));
	ASSERT_EQ(PAGE, pread(self->device, TARGET(self->p), PAGE, 0));
	EXPECT_TRUE(pages_are(self->p, INDEX, '2'));
	EXPECT_TRUE(buffer_is(snap, INDEX, '1'));
}

TEST_F(direct, read_of_a_sector_leaves_the_rest_of_the_page)
{
	int snap = cow_snapshot(self->fd, 0);
	char want[PAGE];

	ASSERT_GE(snap, 0);
	ASSERT_TRUE(device_fill(self->backing, '!'));
	ASSERT_EQ(512, pread(self->device, TARGET(self->p) + 1024, 512, 0));
	memset(want, value_of(INDEX), PAGE);
	memset(want + 1024, '!', 512);
	EXPECT_EQ(0, memcmp(TARGET(self->p), want, PAGE));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(direct, read_into_origin_and_clone)
{
	int clone = cow_snapshot(self->fd, COWMEM_WRITABLE);
	char *q;

	ASSERT_GE(clone, 0);
	q = cow_map(clone, SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_TRUE(device_fill(self->backing, '1'));
	ASSERT_EQ(PAGE, pread(self->device, TARGET(q), PAGE, 0));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	ASSERT_TRUE(device_fill(self->backing, '2'));
	ASSERT_EQ(PAGE, pread(self->device, TARGET(self->p), PAGE, PAGE));
	EXPECT_TRUE(pages_are(q, INDEX, '1'));
	EXPECT_TRUE(pages_are(self->p, INDEX, '2'));
}

TEST_F(direct, read_over_all_pages_and_holes)
{
	int snap = cow_snapshot(self->fd, 0), i;

	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, ftruncate(self->fd, 2 * PAGE));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE));
	ASSERT_TRUE(device_fill(self->backing, '!'));
	ASSERT_EQ(SIZE, pread(self->device, self->p, SIZE, 0));
	for (i = 0; i < NR; i++)
		EXPECT_TRUE(page_is(self->p + i * PAGE, '!'));
	EXPECT_EQ(SIZE, cow_stat(self->fd).resident);
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(direct, write_takes_what_was_stored_last)
{
	struct channel channel = { self->device, self->backing, false };
	int snap = cow_snapshot(self->fd, 0);
	char *q;

	ASSERT_GE(snap, 0);
	q = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	memset(TARGET(self->p), '!', PAGE);
	ASSERT_EQ(PAGE, pwrite(self->device, TARGET(self->p), PAGE, 0));
	EXPECT_TRUE(channel_has(&channel, '!'));
	ASSERT_EQ(PAGE, pwrite(self->device, TARGET(q), PAGE, 0));
	EXPECT_TRUE(channel_has(&channel, value_of(INDEX)));
	EXPECT_TRUE(pages_are(self->p, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(direct, read_into_a_frozen_mapping_is_EFAULT)
{
	int snap = cow_snapshot(self->fd, 0);
	char *q;

	ASSERT_GE(snap, 0);
	q = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	ASSERT_TRUE(device_fill(self->backing, '!'));
	EXPECT_EQ(-1, pread(self->device, TARGET(q), PAGE, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_TRUE(buffer_filled(self->fd));
}

/*
 * Another process writes into the mapping of a child
 */

#define PATCH_OFFSET	128
#define PATCH_SIZE	64

static bool write_process_vm(pid_t pid, char *to, const char *data)
{
	struct iovec local = { (void *)data, PATCH_SIZE };
	struct iovec remote = { to, PATCH_SIZE };

	return process_vm_writev(pid, &local, 1, &remote, 1, 0) == PATCH_SIZE;
}

static bool write_proc_mem(pid_t pid, char *to, const char *data)
{
	char path[64];
	bool done;
	int mem;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	mem = open(path, O_RDWR | O_CLOEXEC);
	done = pwrite(mem, data, PATCH_SIZE, (long)to) == PATCH_SIZE;
	close(mem);
	return done;
}

static bool write_ptrace(pid_t pid, char *to, const char *data)
{
	unsigned int i;
	long word;

	for (i = 0; i < PATCH_SIZE; i += sizeof(word)) {
		memcpy(&word, data + i, sizeof(word));
		if (ptrace(PTRACE_POKEDATA, pid, to + i, word))
			return false;
	}
	return true;
}

FIXTURE(remote)
{
	int fd;
	char *p;
	char *private;
	char *read_only, *private_read_only;
	pid_t pid;
};

FIXTURE_VARIANT(remote)
{
	bool pinnable;
	bool (*write)(pid_t pid, char *to, const char *data);
};

FIXTURE_VARIANT_ADD(remote, process_vm_writev) { false, write_process_vm };
FIXTURE_VARIANT_ADD(remote, proc_mem) { false, write_proc_mem };
FIXTURE_VARIANT_ADD(remote, ptrace) { false, write_ptrace };
FIXTURE_VARIANT_ADD(remote, pinnable_process_vm_writev) {
	true, write_process_vm,
};
FIXTURE_VARIANT_ADD(remote, pinnable_proc_mem) { true, write_proc_mem };
FIXTURE_VARIANT_ADD(remote, pinnable_ptrace) { true, write_ptrace };

FIXTURE_SETUP(remote)
{
	int status;

	if (variant->pinnable)
		NEED(PINNABLE);
	self->fd = create_mapped(variant->pinnable, &self->p);
	ASSERT_GE(self->fd, 0);
	self->private = mmap(NULL, SIZE, RW, MAP_PRIVATE, self->fd, 0);
	ASSERT_NE(MAP_FAILED, self->private);
	self->read_only = cow_map(self->fd, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, self->read_only);
	self->private_read_only = map_private(self->fd, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, self->private_read_only);
	self->pid = fork();
	if (!self->pid) {
		/* Has writable PTEs of its own, and goes no further. */
		fill_pages(self->p, NR);
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		_exit(0);
	}
	ASSERT_EQ(self->pid, waitpid(self->pid, &status, 0));
	ASSERT_TRUE(WIFSTOPPED(status));
}

FIXTURE_TEARDOWN(remote)
{
	kill(self->pid, SIGKILL);
	waitpid(self->pid, NULL, 0);
	close(self->fd);
}

/* Write to the child's page @index, at PATCH_OFFSET. */
static bool patch(pid_t pid, char *p, unsigned long index, char value,
		  bool (*write)(pid_t pid, char *to, const char *data))
{
	char data[PATCH_SIZE];

	memset(data, value, PATCH_SIZE);
	return write(pid, p + index * PAGE + PATCH_OFFSET, data);
}

/* Page @index has been patched with @value, and nothing else has changed. */
static bool patched(int fd, unsigned long index, char value)
{
	char data[SIZE], want[SIZE];

	fill_pages(want, NR);
	memset(want + index * PAGE + PATCH_OFFSET, value, PATCH_SIZE);
	return pread(fd, data, SIZE, 0) == SIZE && !memcmp(data, want, SIZE);
}

TEST_F(remote, write_after_a_snapshot_is_not_in_it)
{
	int snap = cow_snapshot(self->fd, 0);
	char *q;

	ASSERT_GE(snap, 0);
	q = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	ASSERT_TRUE(patch(self->pid, self->p, INDEX, '!', variant->write));
	EXPECT_TRUE(patched(self->fd, INDEX, '!'));
	EXPECT_EQ('!', TARGET(self->p)[PATCH_OFFSET]);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_TRUE(buffer_filled(snap));
	EXPECT_EQ(0, cow_stat(self->fd).held);
}

TEST_F(remote, write_before_a_snapshot_is_in_it)
{
	int first, second;

	ASSERT_TRUE(patch(self->pid, self->p, INDEX, '1', variant->write));
	first = cow_snapshot(self->fd, 0);
	ASSERT_GE(first, 0);
	ASSERT_TRUE(patch(self->pid, self->p, INDEX, '2', variant->write));
	second = cow_snapshot(self->fd, COWMEM_WRITABLE);
	ASSERT_GE(second, 0);
	ASSERT_TRUE(patch(self->pid, self->p, INDEX, '3', variant->write));
	EXPECT_TRUE(patched(self->fd, INDEX, '3'));
	EXPECT_TRUE(patched(second, INDEX, '2'));
	EXPECT_TRUE(patched(first, INDEX, '1'));
}

TEST_F(remote, write_meets_stores_of_others)
{
	char value = 0;
	int snap;

	TARGET(self->p)[PATCH_OFFSET] = '1';
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	TARGET(self->p)[PATCH_OFFSET] = '2';
	ASSERT_TRUE(patch(self->pid, self->p, INDEX, '!', variant->write));
	EXPECT_TRUE(patched(self->fd, INDEX, '!'));
	/* And the other way round. */
	TARGET(self->p)[PATCH_OFFSET] = '3';
	EXPECT_EQ('!', TARGET(self->p)[PATCH_OFFSET + 1]);
	EXPECT_EQ(1, pread(snap, &value, 1, INDEX * PAGE + PATCH_OFFSET));
	EXPECT_EQ('1', value);
}

TEST_F(remote, write_to_a_hole_after_a_snapshot)
{
	int snap;

	ASSERT_EQ(0, ftruncate(self->fd, 0));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	ASSERT_TRUE(patch(self->pid, self->p, INDEX, '!', variant->write));
	EXPECT_EQ(PAGE, cow_stat(self->fd).resident);
	EXPECT_EQ(0, cow_stat(snap).resident);
	EXPECT_EQ('!', TARGET(self->p)[PATCH_OFFSET]);
	EXPECT_EQ(0, TARGET(self->p)[PATCH_OFFSET - 1]);
	EXPECT_EQ(0, TARGET(self->p)[PATCH_OFFSET + PATCH_SIZE]);
}

TEST_F(remote, write_to_a_private_mapping_is_private)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	ASSERT_TRUE(patch(self->pid, self->private, INDEX, '!', variant->write));
	EXPECT_TRUE(buffer_filled(self->fd));
	EXPECT_TRUE(buffer_filled(snap));
	EXPECT_TRUE(pages_filled(self->private, 0, NR));
	EXPECT_EQ(0, cow_stat(self->fd).copied);
}

/* What the child's page @index has at PATCH_OFFSET; 0: nothing. */
static char patch_seen(pid_t pid, char *p, unsigned long index)
{
	char value = 0;
	struct iovec local = { &value, 1 };
	struct iovec remote = { p + index * PAGE + PATCH_OFFSET, 1 };

	return process_vm_readv(pid, &local, 1, &remote, 1, 0) == 1 ? value : 0;
}

/* A debugger may, and gets a copy of its own. */
TEST_F(remote, write_to_a_private_mapping_for_reading_is_private)
{
	bool forces = variant->write != write_process_vm;
	char *q = self->private_read_only;
	int before, after;

	EXPECT_EQ(forces, patch(self->pid, q, INDEX, '1', variant->write));
	before = cow_snapshot(self->fd, 0);
	ASSERT_GE(before, 0);
	/* To that copy, and to a page that is shared now. */
	EXPECT_EQ(forces, patch(self->pid, q, INDEX, '2', variant->write));
	EXPECT_EQ(forces, patch(self->pid, q, INDEX + 1, '3', variant->write));
	after = cow_snapshot(self->fd, 0);
	ASSERT_GE(after, 0);
	EXPECT_EQ(forces ? '2' : value_of(INDEX),
		  patch_seen(self->pid, q, INDEX));
	EXPECT_EQ(forces ? '3' : value_of(INDEX + 1),
		  patch_seen(self->pid, q, INDEX + 1));
	EXPECT_TRUE(buffer_filled(self->fd));
	EXPECT_TRUE(buffer_filled(before));
	EXPECT_TRUE(buffer_filled(after));
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_EQ(0, cow_stat(self->fd).copied);
}

TEST_F(remote, write_to_a_shared_mapping_for_reading_fails)
{
	int snap;

	EXPECT_FALSE(patch(self->pid, self->read_only, INDEX, '1',
			   variant->write));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_FALSE(patch(self->pid, self->read_only, INDEX, '2',
			   variant->write));
	/* What is written elsewhere is seen there, too. */
	ASSERT_TRUE(patch(self->pid, self->p, INDEX, '3', variant->write));
	EXPECT_EQ('3', patch_seen(self->pid, self->read_only, INDEX));
	EXPECT_TRUE(patched(self->fd, INDEX, '3'));
	EXPECT_TRUE(buffer_filled(snap));
}

/*
 * A page in a pipe
 */

FIXTURE(spliced)
{
	int fd;
	char *p;
	int pipefd[2];
	long pages;
};

FIXTURE_VARIANT(spliced)
{
	bool pinnable;
};

FIXTURE_VARIANT_ADD(spliced, ordinary) { .pinnable = false };
FIXTURE_VARIANT_ADD(spliced, pinnable) { .pinnable = true };

FIXTURE_SETUP(spliced)
{
	if (variant->pinnable)
		NEED(PINNABLE);
	self->fd = create_mapped(variant->pinnable, &self->p);
	ASSERT_GE(self->fd, 0);
	fill_pages(self->p, NR);
	ASSERT_EQ(0, pipe(self->pipefd));
	self->pages = cow_param("pages");
}

FIXTURE_TEARDOWN(spliced)
{
	close(self->fd);
}

TEST_F(spliced, live_page_stays_with_the_live_buffer)
{
	uint64_t frame = frame_of(TARGET(self->p));
	int snap;

	ASSERT_TRUE(pipe_hold(self->pipefd, TARGET(self->p)));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(1, cow_stat(self->fd).held);
	EXPECT_EQ(1, cow_stat(self->fd).copied);
	EXPECT_EQ(self->pages + 1, cow_param("pages"));
	memset(TARGET(self->p), '!', PAGE);
	EXPECT_EQ(frame, frame_of(TARGET(self->p)));
	EXPECT_EQ(self->pages + 1, cow_param("pages"));
	EXPECT_TRUE(pages_are(self->p, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
	EXPECT_TRUE(pipe_has(self->pipefd, '!'));
}

TEST_F(spliced, page_not_stored_to_since_the_snapshot)
{
	int snap = cow_snapshot(self->fd, 0), second;

	ASSERT_GE(snap, 0);
	/* Of an ordinary buffer it is the shared page, else one of its own. */
	ASSERT_TRUE(pipe_hold(self->pipefd, TARGET(self->p)));
	EXPECT_EQ(variant->pinnable, cow_stat(self->fd).copied);
	second = cow_snapshot(self->fd, 0);
	ASSERT_GE(second, 0);
	EXPECT_EQ(variant->pinnable, cow_stat(self->fd).held);
	memset(TARGET(self->p), '!', PAGE);
	EXPECT_TRUE(pages_are(self->p, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
	EXPECT_TRUE(buffer_filled(second));
	EXPECT_TRUE(pipe_has(self->pipefd,
			     variant->pinnable ? '!' : value_of(INDEX)));
}

TEST_F(spliced, page_whose_mapping_is_gone_before_the_snapshot)
{
	char data[PAGE];
	int snap;

	ASSERT_TRUE(pipe_hold(self->pipefd, TARGET(self->p)));
	munmap(self->p, SIZE);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(1, cow_stat(self->fd).held);
	memset(data, '!', PAGE);
	ASSERT_EQ(PAGE, pwrite(self->fd, data, PAGE, INDEX * PAGE));
	EXPECT_TRUE(buffer_is(self->fd, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
	EXPECT_TRUE(pipe_has(self->pipefd, '!'));
}

TEST_F(spliced, page_whose_mapping_is_gone_after_the_snapshot)
{
	char *q = cow_map(self->fd, SIZE, RW);
	int snap;

	ASSERT_NE(MAP_FAILED, q);
	ASSERT_TRUE(pipe_hold(self->pipefd, TARGET(self->p)));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	munmap(self->p, SIZE);
	memset(TARGET(q), '!', PAGE);
	EXPECT_TRUE(pages_are(q, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
	EXPECT_TRUE(pipe_has(self->pipefd, '!'));
}

TEST_F(spliced, page_whose_mapping_moves)
{
	int snap;
	char *q;

	ASSERT_TRUE(pipe_hold(self->pipefd, TARGET(self->p)));
	q = moved(self->p, SIZE);
	ASSERT_NE(MAP_FAILED, q);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(1, cow_stat(self->fd).held);
	memset(TARGET(q), '!', PAGE);
	EXPECT_TRUE(pages_are(q, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
	EXPECT_TRUE(pipe_has(self->pipefd, '!'));
}

TEST_F(spliced, page_whose_mapping_is_made_read_only)
{
	int snap;

	ASSERT_TRUE(pipe_hold(self->pipefd, TARGET(self->p)));
	ASSERT_EQ(0, mprotect(self->p, SIZE, PROT_READ));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(1, cow_stat(self->fd).held);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	ASSERT_EQ(0, mprotect(self->p, SIZE, RW));
	memset(TARGET(self->p), '!', PAGE);
	EXPECT_TRUE(pages_are(self->p, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
	EXPECT_TRUE(pipe_has(self->pipefd, '!'));
}

TEST_F(spliced, page_of_a_snapshot_stays_as_it_was)
{
	int snap = cow_snapshot(self->fd, 0);
	char *q;

	ASSERT_GE(snap, 0);
	q = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_TRUE(pipe_hold(self->pipefd, TARGET(q)));
	memset(TARGET(self->p), '1', PAGE);
	munmap(q, SIZE);
	close(snap);
	memset(TARGET(self->p), '2', PAGE);
	EXPECT_TRUE(pages_are(self->p, INDEX, '2'));
	EXPECT_TRUE(pipe_has(self->pipefd, value_of(INDEX)));
}

TEST_F(spliced, page_of_a_snapshot_stays_after_PROT_READ)
{
	int snap = cow_snapshot(self->fd, 0);
	char *q;

	ASSERT_GE(snap, 0);
	q = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_TRUE(pipe_hold(self->pipefd, TARGET(q)));
	munmap(q, SIZE);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	ASSERT_TRUE(make_read_only_and_back(self->p));
	memset(TARGET(self->p), '!', PAGE);
	EXPECT_TRUE(pages_are(self->p, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
	EXPECT_TRUE(pipe_has(self->pipefd, value_of(INDEX)));
}

/* What is stored to a clone that has become the last owner of its pages. */
static bool store_to_last(FIXTURE_DATA(spliced) *self, int clone)
{
	char *q = cow_map(clone, SIZE, RW);

	munmap(self->p, SIZE);
	close(self->fd);
	self->fd = clone;
	if (q == MAP_FAILED)
		return false;
	memset(TARGET(q), '!', PAGE);
	return pages_are(q, INDEX, '!') && buffer_is(clone, INDEX, '!');
}

TEST_F(spliced, page_held_before_a_clone_outlives_the_origin)
{
	int clone;

	ASSERT_TRUE(pipe_hold(self->pipefd, TARGET(self->p)));
	clone = cow_snapshot(self->fd, COWMEM_WRITABLE);
	ASSERT_GE(clone, 0);
	EXPECT_TRUE(store_to_last(self, clone));
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_TRUE(pipe_has(self->pipefd, value_of(INDEX)));
}

TEST_F(spliced, page_held_after_a_clone_outlives_the_origin)
{
	int clone = cow_snapshot(self->fd, COWMEM_WRITABLE);

	ASSERT_GE(clone, 0);
	ASSERT_TRUE(pipe_hold(self->pipefd, TARGET(self->p)));
	EXPECT_TRUE(store_to_last(self, clone));
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_TRUE(pipe_has(self->pipefd, value_of(INDEX)));
}

TEST_F(spliced, page_shared_before_stays_as_it_was_held)
{
	/* The first access makes a page of a PINNABLE buffer its own again. */
	char mapped = variant->pinnable ? '1' : value_of(INDEX);
	char unmapped = variant->pinnable ? '2' : value_of(INDEX + 1);

	close(cow_snapshot(self->fd, 0));
	EXPECT_EQ(0, load_signal(TARGET(self->p)));
	ASSERT_TRUE(pipe_hold(self->pipefd, TARGET(self->p)));
	ASSERT_TRUE(pipe_hold(self->pipefd, TARGET(self->p) + PAGE));
	memset(TARGET(self->p), '1', PAGE);
	memset(TARGET(self->p) + PAGE, '2', PAGE);
	EXPECT_EQ(variant->pinnable ? 0 : 2, cow_stat(self->fd).held);
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_TRUE(pipe_has(self->pipefd, mapped));
	EXPECT_TRUE(pipe_has(self->pipefd, unmapped));
	EXPECT_TRUE(page_is(TARGET(self->p), '1'));
	EXPECT_TRUE(page_is(TARGET(self->p) + PAGE, '2'));
}

TEST_F(spliced, page_mapped_for_reading_gets_stores)
{
	ASSERT_TRUE(make_read_only_and_back(self->p));
	ASSERT_TRUE(pipe_hold(self->pipefd, TARGET(self->p)));
	memset(TARGET(self->p), '!', PAGE);
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_TRUE(pipe_has(self->pipefd, '!'));
}

TEST_F(spliced, page_held_through_a_private_mapping)
{
	char *q = mmap(NULL, SIZE, RW, MAP_PRIVATE, self->fd, 0);
	int snap;

	ASSERT_NE(MAP_FAILED, q);
	ASSERT_TRUE(pipe_hold(self->pipefd, TARGET(q)));
	memset(TARGET(q), '1', PAGE);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(1, cow_stat(self->fd).held);
	memset(TARGET(self->p), '2', PAGE);
	EXPECT_TRUE(pages_are(q, INDEX, '1'));
	EXPECT_TRUE(pages_are(self->p, INDEX, '2'));
	EXPECT_TRUE(buffer_filled(snap));
	/* It is the page of the buffer. */
	EXPECT_TRUE(pipe_has(self->pipefd, '2'));
}

TEST_F(spliced, each_held_page_counts_at_each_snapshot)
{
	int first, second;

	ASSERT_TRUE(pipe_hold(self->pipefd, self->p + 1 * PAGE));
	ASSERT_TRUE(pipe_hold(self->pipefd, self->p + 4 * PAGE));
	/* Twice the same page is one copy. */
	ASSERT_TRUE(pipe_hold(self->pipefd, self->p + 4 * PAGE));
	first = cow_snapshot(self->fd, 0);
	ASSERT_GE(first, 0);
	EXPECT_EQ(2, cow_stat(self->fd).held);
	second = cow_snapshot(self->fd, 0);
	ASSERT_GE(second, 0);
	EXPECT_EQ(4, cow_stat(self->fd).held);
	EXPECT_EQ(4, cow_stat(self->fd).copied);
	EXPECT_EQ(self->pages + 4, cow_param("pages"));

	ASSERT_TRUE(pipe_has(self->pipefd, value_of(1)));
	close(cow_snapshot(self->fd, 0));
	EXPECT_EQ(5, cow_stat(self->fd).held);
	ASSERT_TRUE(pipe_has(self->pipefd, value_of(4)));
	close(cow_snapshot(self->fd, 0));
	EXPECT_EQ(6, cow_stat(self->fd).held);
	ASSERT_TRUE(pipe_has(self->pipefd, value_of(4)));
	close(cow_snapshot(self->fd, 0));
	EXPECT_EQ(6, cow_stat(self->fd).held);
	EXPECT_EQ(self->pages + 4, cow_param("pages"));
	EXPECT_TRUE(buffer_filled(first));
	EXPECT_TRUE(buffer_filled(second));
}

TEST_F(spliced, clone_of_a_held_page_has_its_own)
{
	int clone;
	char *q;

	ASSERT_TRUE(pipe_hold(self->pipefd, TARGET(self->p)));
	clone = cow_snapshot(self->fd, COWMEM_WRITABLE);
	ASSERT_GE(clone, 0);
	q = cow_map(clone, SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	memset(TARGET(q), '1', PAGE);
	EXPECT_EQ(0, cow_stat(clone).copied);
	memset(TARGET(self->p), '2', PAGE);
	EXPECT_TRUE(pages_are(q, INDEX, '1'));
	EXPECT_TRUE(pages_are(self->p, INDEX, '2'));
	EXPECT_TRUE(pipe_has(self->pipefd, '2'));
}

TEST_F(spliced, restore_gives_a_held_page_its_content_in_place)
{
	int snap;

	NEED(RESTORE);
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	memset(TARGET(self->p), '1', PAGE);
	ASSERT_TRUE(pipe_hold(self->pipefd, TARGET(self->p)));
	ASSERT_TRUE(pipe_hold(self->pipefd, TARGET(self->p)));
	ASSERT_EQ(0, cow_restore(self->fd, snap, 0));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	EXPECT_TRUE(pipe_has(self->pipefd, value_of(INDEX)));
	memset(TARGET(self->p), '2', PAGE);
	EXPECT_TRUE(pipe_has(self->pipefd, '2'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(spliced, snapshot_of_a_held_page_at_the_LIMIT_is_ENOSPC)
{
	int snap;

	NEED(LIMIT);
	ASSERT_TRUE(pipe_hold(self->pipefd, TARGET(self->p)));
	ASSERT_EQ(0, cow_limit(self->fd, SIZE));
	EXPECT_EQ(-ENOSPC, cow_snapshot(self->fd, 0));
	EXPECT_EQ(0, cow_stat(self->fd).snapshots);
	EXPECT_EQ(0, cow_stat(self->fd).held);
	EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));

	/* The page is still the live one, and still held. */
	ASSERT_EQ(0, cow_limit(self->fd, COWMEM_NO_LIMIT));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(1, cow_stat(self->fd).held);
	memset(TARGET(self->p), '!', PAGE);
	EXPECT_TRUE(buffer_filled(snap));
	EXPECT_TRUE(pipe_has(self->pipefd, '!'));

	/* Without a pin none is needed. */
	ASSERT_EQ(0, cow_limit(self->fd, SIZE));
	snap = cow_snapshot(self->fd, 0);
	EXPECT_GE(snap, 0);
	EXPECT_TRUE(buffer_is(snap, INDEX, '!'));
}

TEST(snapshot_of_a_held_page_with_a_memory_error_is_EIO)
{
	long pages = cow_param("pages");
	int fd = create(false), pipefd[2];
	char *p = cow_map(fd, SIZE, RW);
	uint64_t frame;
	unsigned long i;

	ASSERT_NE(MAP_FAILED, p);
	fill_pages(p, NR);
	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_TRUE(pipe_hold(pipefd, TARGET(p)));
	frame = frame_of(TARGET(p));
	ASSERT_NE(0, frame);
	if (!poison(TARGET(p)))
		SKIP(return, "kernel without MEMORY_FAILURE");
	EXPECT_EQ(-EIO, cow_snapshot(fd, 0));
	EXPECT_EQ(0, cow_stat(fd).snapshots);
	EXPECT_EQ(0, cow_stat(fd).copied);
	EXPECT_EQ(SIZE, cow_stat(fd).resident);
	EXPECT_EQ(pages + NR, cow_param("pages"));
	for (i = 0; i < NR; i++) {
		if (i == INDEX)
			continue;
		EXPECT_TRUE(page_is(p + i * PAGE, value_of(i)));
		memset(p + i * PAGE, '!', PAGE);
	}
	EXPECT_EQ(0, cow_stat(fd).copied);
	munmap(p, SIZE);
	close(fd);
	pipe_close(pipefd);
	EXPECT_EQ(pages, cow_param("pages"));
	unpoison(frame);
}

/*
 * All that at once: a thread writes the whole buffer by its pages, round after
 * round, while snapshots are taken
 */

#define SNAPSHOTS	100

struct writer {
	int fd;
	char *p;
	struct ring ring;
	struct channel channel;
	bool (*write)(struct writer *writer, char value);
	atomic_uint rounds;
	atomic_bool stop, failed;
	char last;
};

static bool write_all_process_vm(struct writer *writer, char value)
{
	char data[SIZE];
	struct iovec local = { data, SIZE }, remote = { writer->p, SIZE };

	memset(data, value, SIZE);
	return process_vm_writev(getpid(), &local, 1, &remote, 1, 0) == SIZE;
}

static bool write_all_fixed(struct writer *writer, char value)
{
	return channel_feed(&writer->channel, value, SIZE) &&
	       ring_submit(&writer->ring, IORING_OP_READ_FIXED,
			   writer->channel.in, writer->p, SIZE) &&
	       ring_wait(&writer->ring) == SIZE;
}

static bool write_all_direct(struct writer *writer, char value)
{
	return channel_feed(&writer->channel, value, SIZE) &&
	       pread(writer->channel.in, writer->p, SIZE, 0) == SIZE;
}

static void *keep_writing(void *data)
{
	struct writer *writer = data;

	while (!writer->stop && !writer->failed) {
		writer->last = writer->rounds % 100 + 1;
		if (!writer->write(writer, writer->last))
			writer->failed = true;
		writer->rounds++;
	}
	return NULL;
}

FIXTURE(concurrent)
{
	struct writer writer;
	pthread_t thread;
};

FIXTURE_VARIANT(concurrent)
{
	bool pinnable;
	bool fixed;
	int (*channel_open)(struct channel *channel);
	bool (*write)(struct writer *writer, char value);
};

FIXTURE_VARIANT_ADD(concurrent, process_vm_writev) {
	.write = write_all_process_vm,
};
FIXTURE_VARIANT_ADD(concurrent, pinnable_process_vm_writev) {
	.pinnable = true, .write = write_all_process_vm,
};
FIXTURE_VARIANT_ADD(concurrent, fixed) {
	.pinnable = true, .fixed = true, .channel_open = channel_pipe,
	.write = write_all_fixed,
};
FIXTURE_VARIANT_ADD(concurrent, fixed_from_block) {
	.pinnable = true, .fixed = true, .channel_open = channel_block,
	.write = write_all_fixed,
};
FIXTURE_VARIANT_ADD(concurrent, direct) {
	.channel_open = channel_block, .write = write_all_direct,
};
FIXTURE_VARIANT_ADD(concurrent, pinnable_direct) {
	.pinnable = true, .channel_open = channel_block,
	.write = write_all_direct,
};

FIXTURE_SETUP(concurrent)
{
	struct writer *writer = &self->writer;
	int err;

	if (variant->pinnable)
		NEED(PINNABLE);
	err = variant->channel_open ?
	      variant->channel_open(&writer->channel) : 0;
	if (err == -ENODEV)
		SKIP(return, "no /dev/loop-control");
	ASSERT_EQ(0, err);
	writer->write = variant->write;
	writer->fd = create_mapped(variant->pinnable, &writer->p);
	ASSERT_GE(writer->fd, 0);
	if (!variant->fixed)
		return;
	err = ring_open(&writer->ring);
	if (err == -ENOSYS || err == -EPERM)
		SKIP(return, "no io_uring: %s", strerror(-err));
	ASSERT_EQ(0, err);
	err = ring_register(&writer->ring, writer->p, SIZE);
	if (err == -EOPNOTSUPP && kernel_before(6, 5))
		SKIP(return, "no fixed buffers in files before Linux 6.5");
	ASSERT_EQ(0, err);
}

FIXTURE_TEARDOWN(concurrent)
{
	close(self->writer.fd);
}

TEST_F_TIMEOUT(concurrent, snapshots_never_change, 300)
{
	static char taken[SNAPSHOTS][SIZE], later[SIZE];
	struct writer *writer = &self->writer;
	int snap[SNAPSHOTS], i, changed = 0;
	unsigned int rounds;

	ASSERT_EQ(0, pthread_create(&self->thread, NULL, keep_writing, writer));
	for (i = 0; i < SNAPSHOTS; i++) {
		/* There is something new in each. */
		rounds = writer->rounds;
		while (writer->rounds == rounds && !writer->failed)
			sched_yield();
		snap[i] = cow_snapshot(writer->fd, 0);
		ASSERT_GE(snap[i], 0);
		ASSERT_EQ(SIZE, pread(snap[i], taken[i], SIZE, 0));
	}
	for (i = 0; i < SNAPSHOTS; i++) {
		ASSERT_EQ(SIZE, pread(snap[i], later, SIZE, 0));
		changed += !!memcmp(taken[i], later, SIZE);
	}
	writer->stop = true;
	pthread_join(self->thread, NULL);
	for (i = 0; i < SNAPSHOTS; i++) {
		ASSERT_EQ(SIZE, pread(snap[i], later, SIZE, 0));
		changed += !!memcmp(taken[i], later, SIZE);
	}
	EXPECT_EQ(0, changed);
	EXPECT_FALSE(writer->failed);
	/* What was written last is in the live buffer, all of it. */
	for (i = 0; i < NR; i++)
		EXPECT_TRUE(page_is(writer->p + i * PAGE, writer->last));
	if (variant->fixed) {
		EXPECT_EQ(SNAPSHOTS * NR, cow_stat(writer->fd).held);
		EXPECT_EQ(0, ring_unregister(&writer->ring));
	}
}

/*
 * Futexes
 */

static long futex(uint32_t *word, int op, uint32_t value, unsigned long value2,
		  uint32_t *word2, uint32_t value3)
{
	return syscall(SYS_futex, word, op, value, value2, word2, value3);
}

static void *futex_waiter(void *word)
{
	return (void *)futex(word, FUTEX_WAIT_PRIVATE, 0, 0, NULL, 0);
}

FIXTURE(futex)
{
	int fd;
	uint32_t *word, *other;	/* in different pages */
};

FIXTURE_VARIANT(futex)
{
	bool pinnable;
};

FIXTURE_VARIANT_ADD(futex, ordinary) { .pinnable = false };
FIXTURE_VARIANT_ADD(futex, pinnable) { .pinnable = true };

FIXTURE_SETUP(futex)
{
	char *p;

	if (variant->pinnable)
		NEED(PINNABLE);
	self->fd = create_mapped(variant->pinnable, &p);
	ASSERT_GE(self->fd, 0);
	self->word = (uint32_t *)p;
	self->other = (uint32_t *)(p + PAGE);
	*self->other = 7;
}

FIXTURE_TEARDOWN(futex)
{
	close(self->fd);
}

TEST_F(futex, private_one_wakes_across_a_snapshot)
{
	uint32_t *word = self->word, seen = 1;
	void *result = (void *)-1;
	pthread_t thread;
	int snap;

	ASSERT_EQ(0, pthread_create(&thread, NULL, futex_waiter, word));
	/* It waits when it can be made to wait for the other word. */
	while (futex(word, FUTEX_CMP_REQUEUE_PRIVATE, 0, 1, self->other, 0) != 1)
		sched_yield();
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	*word = 1;
	*self->other = 8;
	EXPECT_EQ(0, futex(word, FUTEX_WAKE_PRIVATE, 1, 0, NULL, 0));
	EXPECT_EQ(1, futex(self->other, FUTEX_WAKE_PRIVATE, 1, 0, NULL, 0));
	pthread_join(thread, &result);
	EXPECT_EQ(NULL, result);
	EXPECT_EQ(sizeof(seen), pread(snap, &seen, sizeof(seen), 0));
	EXPECT_EQ(0, seen);
	EXPECT_EQ(sizeof(seen), pread(snap, &seen, sizeof(seen), PAGE));
	EXPECT_EQ(7, seen);
}

TEST_F(futex, private_one_compares_what_is_live)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	*self->other = 8;
	EXPECT_EQ(-1, futex(self->other, FUTEX_WAIT_PRIVATE, 7, 0, NULL, 0));
	EXPECT_EQ(EAGAIN, errno);
}

TEST_F(futex, store_by_the_kernel_is_not_in_the_snapshot)
{
	int snap = cow_snapshot(self->fd, 0), op;
	uint32_t seen = 0;

	ASSERT_GE(snap, 0);
	op = FUTEX_OP(FUTEX_OP_ADD, 5, FUTEX_OP_CMP_EQ, 7);
	EXPECT_EQ(0, futex(self->word, FUTEX_WAKE_OP_PRIVATE, 1, 1, self->other,
			   op));
	EXPECT_EQ(12, *self->other);
	EXPECT_EQ(sizeof(seen), pread(snap, &seen, sizeof(seen), PAGE));
	EXPECT_EQ(7, seen);
}

TEST_F(futex, process_shared_one_is_EFAULT)
{
	int snap = cow_snapshot(self->fd, 0);
	uint32_t seen = 0;

	ASSERT_GE(snap, 0);
	EXPECT_EQ(-1, futex(self->other, FUTEX_WAKE, 1, 0, NULL, 0));
	EXPECT_EQ(EFAULT, errno);
	/* It would not wait if it worked. */
	EXPECT_EQ(-1, futex(self->other, FUTEX_WAIT, 8, 0, NULL, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(7, *self->other);
	EXPECT_EQ(sizeof(seen), pread(snap, &seen, sizeof(seen), PAGE));
	EXPECT_EQ(7, seen);
}

/*
 * mlock, mremap, userfaultfd
 */

FIXTURE(kept)
{
	int fd;
	char *p;
	long pages;
};

FIXTURE_VARIANT(kept)
{
	bool pinnable;
};

FIXTURE_VARIANT_ADD(kept, ordinary) { .pinnable = false };
FIXTURE_VARIANT_ADD(kept, pinnable) { .pinnable = true };

FIXTURE_SETUP(kept)
{
	if (variant->pinnable)
		NEED(PINNABLE);
	self->pages = cow_param("pages");
	self->fd = create_mapped(variant->pinnable, &self->p);
	ASSERT_GE(self->fd, 0);
	fill_pages(self->p, NR);
}

FIXTURE_TEARDOWN(kept)
{
	close(self->fd);
}

TEST_F(kept, mlock_before_a_snapshot)
{
	int snap;

	ASSERT_EQ(0, mlock(self->p, SIZE));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(0, cow_stat(self->fd).held);
	EXPECT_EQ(self->pages + NR, cow_param("pages"));
	memset(TARGET(self->p), '1', PAGE);
	EXPECT_TRUE(pages_are(self->p, INDEX, '1'));
	EXPECT_EQ(0, munlock(self->p, SIZE));
	memset(TARGET(self->p), '2', PAGE);
	EXPECT_TRUE(pages_are(self->p, INDEX, '2'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(kept, mlock_after_a_snapshot)
{
	int snap = cow_snapshot(self->fd, 0), second;

	ASSERT_GE(snap, 0);
	ASSERT_EQ(0, mlock(self->p, SIZE));
	if (!variant->pinnable)
		EXPECT_EQ(0, cow_stat(self->fd).copied);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	memset(TARGET(self->p), '1', PAGE);
	second = cow_snapshot(self->fd, 0);
	ASSERT_GE(second, 0);
	EXPECT_EQ(0, cow_stat(self->fd).held);
	EXPECT_EQ(0, munlock(TARGET(self->p), PAGE));
	memset(TARGET(self->p), '2', PAGE);
	EXPECT_TRUE(pages_are(self->p, INDEX, '2'));
	EXPECT_TRUE(buffer_is(second, INDEX, '1'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(kept, mlock_of_a_snapshot)
{
	int snap = cow_snapshot(self->fd, 0);
	char *q;

	ASSERT_GE(snap, 0);
	q = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_EQ(0, mlock(q, SIZE));
	memset(TARGET(self->p), '!', PAGE);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	EXPECT_TRUE(pages_are(self->p, INDEX, '!'));
	EXPECT_EQ(0, munlock(q, SIZE));
	munmap(q, SIZE);
	close(snap);
	/* Nothing of it is held. */
	memset(TARGET(self->p) + PAGE, '?', PAGE);
	EXPECT_EQ(0, cow_stat(self->fd).held);
}

TEST_F(kept, mremap_before_a_snapshot)
{
	char *q = moved(self->p, SIZE);
	int snap;

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(pages_filled(q, 0, NR));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(0, cow_stat(self->fd).held);
	memset(TARGET(q), '!', PAGE);
	EXPECT_TRUE(pages_are(q, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(kept, mremap_after_a_snapshot)
{
	int snap = cow_snapshot(self->fd, 0);
	char *q;

	ASSERT_GE(snap, 0);
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	q = moved(self->p, SIZE);
	ASSERT_NE(MAP_FAILED, q);
	memset(TARGET(q), '!', PAGE);
	EXPECT_TRUE(pages_are(q, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(kept, mremap_of_a_part_between_two_snapshots)
{
	int first = cow_snapshot(self->fd, 0), second;
	char *q;

	ASSERT_GE(first, 0);
	memset(TARGET(self->p), '1', PAGE);
	q = moved(TARGET(self->p), 2 * PAGE);
	ASSERT_NE(MAP_FAILED, q);
	second = cow_snapshot(self->fd, 0);
	ASSERT_GE(second, 0);
	memset(q, '2', PAGE);
	memset(self->p, '3', PAGE);
	EXPECT_TRUE(page_is(q, '2'));
	EXPECT_TRUE(page_is(q + PAGE, value_of(INDEX + 1)));
	EXPECT_TRUE(page_is(self->p, '3'));
	EXPECT_TRUE(buffer_is(second, INDEX, '1'));
	EXPECT_TRUE(buffer_filled(first));
}

TEST_F(kept, mremap_that_shrinks)
{
	int snap = cow_snapshot(self->fd, 0);

	ASSERT_GE(snap, 0);
	ASSERT_EQ(self->p, mremap(self->p, SIZE, 4 * PAGE, 0));
	memset(TARGET(self->p), '!', PAGE);
	EXPECT_TRUE(buffer_is(self->fd, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

/* Where the kernel allows a second mapping, it is one of the live buffer. */
TEST_F(kept, mremap_that_doubles_it)
{
	char *q = mremap(self->p, 0, SIZE, MREMAP_MAYMOVE);
	int snap;

	if (q == MAP_FAILED) {
		EXPECT_EQ(EFAULT, errno);
		EXPECT_TRUE(pages_filled(self->p, 0, NR));
		return;
	}
	EXPECT_TRUE(pages_filled(q, 0, NR));
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	memset(TARGET(q), '!', PAGE);
	EXPECT_TRUE(pages_are(self->p, INDEX, '!'));
	EXPECT_TRUE(pages_are(q, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_F(kept, userfaultfd_is_refused)
{
	static const uint64_t modes[] = {
		UFFDIO_REGISTER_MODE_MISSING,
		UFFDIO_REGISTER_MODE_WP,
		UFFDIO_REGISTER_MODE_MINOR,
	};
	int snap, i, err;
	char *q;

	for (i = 0; i < 3; i++) {
		err = uffd_register(self->p, SIZE, modes[i], 0);
		if (err == -ENOSYS)
			SKIP(return, "no userfaultfd in this kernel");
		EXPECT_EQ(-EINVAL, err);
	}
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	q = cow_map(snap, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, q);
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(-EINVAL, uffd_register(self->p, SIZE, modes[i], 0));
		EXPECT_NE(0, uffd_register(q, SIZE, modes[i], 0));
	}
	memset(TARGET(self->p), '!', PAGE);
	EXPECT_TRUE(pages_are(self->p, INDEX, '!'));
	EXPECT_TRUE(buffer_filled(snap));
}

TEST_HARNESS_MAIN
