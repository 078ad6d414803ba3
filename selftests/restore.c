// SPDX-License-Identifier: GPL-2.0
/*
 * COWMEM_RESTORE: that a buffer, or a range of it, becomes equal to another
 * under its live mappings, whatever the two have to do with each other; that
 * nothing else changes and that they stay apart afterwards; what it costs, what
 * it refuses, and what others may see of it while it runs.
 *
 * What is about content is done twice, without and with COWMEM_IN_PLACE: the
 * flag must make no difference to it.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <time.h>

#include "common.h"
#include "harness.h"
#include "util.h"

#define NR		16UL
#define SIZE		(NR * PAGE)
/* Mappings go on beyond the end, so that buffers can grow under them. */
#define MAX_NR		(2 * NR)
#define MAX_SIZE	(MAX_NR * PAGE)

/* Features of the module that a restore with @flags needs. */
static uint64_t restore_features(uint32_t flags)
{
	return COWMEM_FEATURE_RESTORE |
	       (flags & COWMEM_IN_PLACE ? COWMEM_FEATURE_IN_PLACE : 0);
}

#define PLAIN_AND_IN_PLACE(fixture)					\
	FIXTURE_VARIANT(fixture) { uint32_t flags; };			\
	FIXTURE_VARIANT_ADD(fixture, plain) { .flags = 0 };		\
	FIXTURE_VARIANT_ADD(fixture, in_place) { .flags = COWMEM_IN_PLACE }

/*
 * A buffer of whole pages, with a mapping and with what is to be in it: a page
 * holds one value all over, and 0 is a hole.
 */
struct buffer {
	int fd;
	char *p;
	unsigned long nr;
	char want[MAX_NR];
};

static bool buffer_map(struct buffer *buf)
{
	bool frozen = cow_stat(buf->fd).state & COWMEM_STATE_FROZEN;

	buf->p = cow_map(buf->fd, MAX_SIZE, frozen ? PROT_READ : RW);
	return buf->p != MAP_FAILED;
}

static bool buffer_create(struct buffer *buf, unsigned long nr)
{
	*buf = (struct buffer) {
		.fd = cow_create(nr * PAGE, "restore"), .nr = nr,
	};
	return buf->fd >= 0 && buffer_map(buf);
}

static void buffer_close(struct buffer *buf)
{
	munmap(buf->p, MAX_SIZE);
	close(buf->fd);
	buf->fd = -1;
}

static void buffer_store(struct buffer *buf, unsigned long index, char value)
{
	memset(buf->p + index * PAGE, value, PAGE);
	buf->want[index] = value;
}

/* Store other values to all pages. */
static void buffer_store_all(struct buffer *buf, char first)
{
	unsigned long i;

	for (i = 0; i < buf->nr; i++)
		buffer_store(buf, i, first + i);
}

/* The same, but for every fifth page, @hole being one of them. */
static void buffer_fill(struct buffer *buf, char first, unsigned long hole)
{
	unsigned long i;

	for (i = 0; i < buf->nr; i++)
		if (i % 5 != hole)
			buffer_store(buf, i, first + i);
}

static bool buffer_resize(struct buffer *buf, unsigned long nr)
{
	if (nr < buf->nr)
		memset(buf->want + nr, 0, buf->nr - nr);
	buf->nr = nr;
	return !ftruncate(buf->fd, nr * PAGE);
}

static bool buffer_snapshot(struct buffer *buf, const struct buffer *origin,
			    uint32_t flags)
{
	*buf = *origin;
	buf->fd = cow_snapshot(origin->fd, flags);
	return buf->fd >= 0 && buffer_map(buf);
}

static bool buffer_snapshot_range(struct buffer *buf,
				  const struct buffer *origin, uint32_t flags,
				  unsigned long index, unsigned long nr)
{
	*buf = (struct buffer) { .nr = nr };
	memcpy(buf->want, origin->want + index, nr);
	buf->fd = cow_snapshot_range(origin->fd, flags, index * PAGE, nr * PAGE);
	return buf->fd >= 0 && buffer_map(buf);
}

static int buffer_restore(struct buffer *to, const struct buffer *from,
			  uint32_t flags)
{
	int err = cow_restore(to->fd, from->fd, flags);

	if (!err) {
		to->nr = from->nr;
		memmove(to->want, from->want, MAX_NR);
	}
	return err;
}

static int buffer_restore_range(struct buffer *to, unsigned long index,
				const struct buffer *from,
				unsigned long from_index, unsigned long nr,
				uint32_t flags)
{
	int err = cow_restore_range(to->fd, index * PAGE, from->fd,
				    from_index * PAGE, nr * PAGE, flags);

	if (!err)
		memmove(to->want + index, from->want + from_index, nr);
	return err;
}

/* Does @p, a mapping of MAX_SIZE, show what is wanted, and end where it should? */
static bool mapping_ok(const char *p, const struct buffer *buf)
{
	unsigned long i;

	for (i = 0; i < buf->nr; i++)
		if (!page_is(p + i * PAGE, buf->want[i]))
			return false;
	return buf->nr == MAX_NR ||
	       (load_signal(p + buf->nr * PAGE) == SIGBUS &&
		load_signal(p + MAX_SIZE - 1) == SIGBUS);
}

static bool file_ok(const struct buffer *buf)
{
	char data[MAX_SIZE];
	unsigned long i;

	if (pread(buf->fd, data, MAX_SIZE, 0) != buf->nr * PAGE)
		return false;
	for (i = 0; i < buf->nr; i++)
		if (!page_is(data + i * PAGE, buf->want[i]))
			return false;
	return true;
}

static bool size_ok(const struct buffer *buf)
{
	struct stat st;

	return cow_stat(buf->fd).length == buf->nr * PAGE &&
	       !fstat(buf->fd, &st) && st.st_size == buf->nr * PAGE;
}

static bool holes_ok(const struct buffer *buf)
{
	unsigned long i, nr_data = 0;

	for (i = 0; i < buf->nr; i++) {
		off_t offset = i * PAGE;
		bool hole = lseek(buf->fd, offset, SEEK_HOLE) == offset;

		if (hole != !buf->want[i])
			return false;
		nr_data += !hole;
	}
	return cow_stat(buf->fd).resident == nr_data * PAGE;
}

static bool buffer_ok(const struct buffer *buf)
{
	return size_ok(buf) && mapping_ok(buf->p, buf) && file_ok(buf) &&
	       holes_ok(buf);
}

/* Number of the first buffer that is not what it should be, or -1. */
static int first_bad(const struct buffer *buf, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		if (buf[i].fd >= 0 && !buffer_ok(&buf[i]))
			return i;
	return -1;
}

/*
 * A child that stops itself, once it has done something, and goes on when it is
 * told to.  It does not outlive a test that fails meanwhile.
 */

static pid_t child_start(void)
{
	pid_t pid = fork();

	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

/* It has the pages mapped at @p as they are @now, and is to see them as @then. */
static pid_t start_viewer(const char *p, const struct buffer *now,
			  const struct buffer *then)
{
	pid_t pid = child_start();

	if (!pid) {
		if (!mapping_ok(p, now))
			_exit(1);
		raise(SIGSTOP);
		_exit(!mapping_ok(p, then));
	}
	return pid;
}

/* It stores to all pages, and again when it is told to go on. */
static pid_t start_writer(struct buffer *buf, char first, char second)
{
	pid_t pid = child_start();
	unsigned long i;

	if (!pid) {
		buffer_store_all(buf, first);
		raise(SIGSTOP);
		buffer_store_all(buf, second);
		_exit(0);
	}
	for (i = 0; i < buf->nr; i++)
		buf->want[i] = first + i;
	return pid;
}

static bool writer_finish(pid_t pid, struct buffer *buf, char second)
{
	unsigned long i;

	for (i = 0; i < buf->nr; i++)
		buf->want[i] = second + i;
	return !child_finish(pid);
}

/*
 * Everybody from everybody
 */

enum { ORIGIN, CLONE, GRANDCLONE, SIBLING, STRANGER, WRITABLE };
enum { EARLIER = WRITABLE, FROZEN, NR_BUFFERS };	/* both of the origin */

FIXTURE(family)
{
	struct buffer buf[NR_BUFFERS];
	struct buffer *to, *from;
};

FIXTURE_VARIANT(family)
{
	int to, from;
	uint32_t flags;
};

#define RELATION(name, _to, _from)					\
	FIXTURE_VARIANT_ADD(family, name) {				\
		.to = _to, .from = _from,				\
	};								\
	FIXTURE_VARIANT_ADD(family, name##_in_place) {			\
		.to = _to, .from = _from, .flags = COWMEM_IN_PLACE,	\
	}

RELATION(rollback, ORIGIN, FROZEN);
RELATION(commit, ORIGIN, CLONE);
RELATION(fast_forward, CLONE, ORIGIN);
RELATION(sibling, CLONE, SIBLING);
RELATION(grand_ancestor, GRANDCLONE, EARLIER);
RELATION(grandchild, ORIGIN, GRANDCLONE);
RELATION(stranger, ORIGIN, STRANGER);
RELATION(to_stranger, STRANGER, FROZEN);

/* Each differs from each: in data, in holes that were filled, in nothing. */
FIXTURE_SETUP(family)
{
	struct buffer *buf = self->buf;

	NEED_BITS(restore_features(variant->flags));
	ASSERT_TRUE(buffer_create(&buf[ORIGIN], NR));
	buffer_fill(&buf[ORIGIN], 'a', 3);
	ASSERT_TRUE(buffer_snapshot(&buf[EARLIER], &buf[ORIGIN], 0));
	buffer_store(&buf[ORIGIN], 1, '1');
	buffer_store(&buf[ORIGIN], 8, '8');
	ASSERT_TRUE(buffer_snapshot(&buf[FROZEN], &buf[ORIGIN], 0));
	ASSERT_TRUE(buffer_snapshot(&buf[CLONE], &buf[ORIGIN], COWMEM_WRITABLE));
	ASSERT_TRUE(buffer_snapshot(&buf[SIBLING], &buf[ORIGIN],
				    COWMEM_WRITABLE));
	buffer_store(&buf[ORIGIN], 2, 'O');
	buffer_store(&buf[ORIGIN], 13, 'P');
	buffer_store(&buf[CLONE], 2, 'C');
	buffer_store(&buf[CLONE], 3, 'D');
	buffer_store(&buf[CLONE], 6, 'E');
	buffer_store(&buf[SIBLING], 2, 'S');
	buffer_store(&buf[SIBLING], 12, 'T');
	ASSERT_TRUE(buffer_snapshot(&buf[GRANDCLONE], &buf[CLONE],
				    COWMEM_WRITABLE));
	buffer_store(&buf[GRANDCLONE], 4, 'G');
	buffer_store(&buf[GRANDCLONE], 13, 'H');
	ASSERT_TRUE(buffer_create(&buf[STRANGER], NR));
	buffer_fill(&buf[STRANGER], 'A', 1);
	self->to = &buf[variant->to];
	self->from = &buf[variant->from];
}

FIXTURE_TEARDOWN(family)
{
	int i;

	for (i = 0; i < NR_BUFFERS; i++)
		if (self->buf[i].fd >= 0)
			buffer_close(&self->buf[i]);
}

/* Each that can be written stores to each of its pages: nobody else sees it. */
static bool stay_apart(struct buffer buf[NR_BUFFERS])
{
	int i;

	for (i = 0; i < WRITABLE; i++)
		if (buf[i].fd >= 0)
			buffer_store_all(&buf[i], 1 + i * NR);
	return first_bad(buf, NR_BUFFERS) < 0;
}

TEST_F(family, becomes_equal_and_stays_apart)
{
	ASSERT_EQ(0, buffer_restore(self->to, self->from, variant->flags));
	EXPECT_EQ(-1, first_bad(self->buf, NR_BUFFERS));
	EXPECT_TRUE(stay_apart(self->buf));
}

TEST_F(family, becomes_equal_with_all_pages_mapped)
{
	ASSERT_EQ(-1, first_bad(self->buf, NR_BUFFERS));
	ASSERT_TRUE(stay_apart(self->buf));
	ASSERT_EQ(0, buffer_restore(self->to, self->from, variant->flags));
	EXPECT_EQ(-1, first_bad(self->buf, NR_BUFFERS));
	EXPECT_TRUE(stay_apart(self->buf));
}

TEST_F(family, range_becomes_equal)
{
	ASSERT_EQ(0, buffer_restore_range(self->to, 2, self->from, 2, 11,
					  variant->flags));
	EXPECT_EQ(-1, first_bad(self->buf, NR_BUFFERS));
	EXPECT_TRUE(stay_apart(self->buf));
}

TEST_F(family, range_goes_to_a_higher_and_to_a_lower_offset)
{
	ASSERT_EQ(0, buffer_restore_range(self->to, 5, self->from, 1, 10,
					  variant->flags));
	EXPECT_EQ(-1, first_bad(self->buf, NR_BUFFERS));
	ASSERT_EQ(0, buffer_restore_range(self->to, 1, self->from, 5, 10,
					  variant->flags));
	EXPECT_EQ(-1, first_bad(self->buf, NR_BUFFERS));
	EXPECT_TRUE(stay_apart(self->buf));
}

TEST_F(family, snapshots_around_it_keep_their_moment)
{
	struct buffer before, after;

	ASSERT_TRUE(buffer_snapshot(&before, self->to, 0));
	ASSERT_EQ(0, buffer_restore(self->to, self->from, variant->flags));
	ASSERT_TRUE(buffer_snapshot(&after, self->to, 0));
	buffer_store_all(self->to, '!');
	EXPECT_TRUE(buffer_ok(&before));
	EXPECT_TRUE(buffer_ok(&after));

	ASSERT_EQ(0, buffer_restore(self->to, &before, variant->flags));
	EXPECT_TRUE(buffer_ok(self->to));
	ASSERT_EQ(0, buffer_restore(self->to, &after, variant->flags));
	EXPECT_TRUE(stay_apart(self->buf));
	EXPECT_TRUE(buffer_ok(&before));
	EXPECT_TRUE(buffer_ok(&after));
}

TEST_F(family, does_not_depend_on_the_source)
{
	ASSERT_EQ(0, buffer_restore(self->to, self->from, variant->flags));
	buffer_close(self->from);
	EXPECT_EQ(-1, first_bad(self->buf, NR_BUFFERS));
	EXPECT_TRUE(stay_apart(self->buf));
}

TEST_F(family, source_does_not_depend_on_it)
{
	ASSERT_EQ(0, buffer_restore(self->to, self->from, variant->flags));
	buffer_close(self->to);
	EXPECT_EQ(-1, first_bad(self->buf, NR_BUFFERS));
	EXPECT_TRUE(stay_apart(self->buf));
}

/*
 * A buffer from itself
 */

FIXTURE(itself)
{
	struct buffer buf, snap;
};

PLAIN_AND_IN_PLACE(itself);

FIXTURE_SETUP(itself)
{
	NEED_BITS(restore_features(variant->flags));
	ASSERT_TRUE(buffer_create(&self->buf, NR));
	buffer_fill(&self->buf, 'a', 3);
	ASSERT_TRUE(buffer_snapshot(&self->snap, &self->buf, 0));
	buffer_store(&self->buf, 2, '!');
}

FIXTURE_TEARDOWN(itself)
{
	buffer_close(&self->buf);
	buffer_close(&self->snap);
}

TEST_F(itself, whole_changes_nothing)
{
	int file = cow_file(self->buf.fd, 0);

	ASSERT_GE(file, 0);
	EXPECT_EQ(0, cow_restore(self->buf.fd, self->buf.fd, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_EQ(0, cow_restore(self->buf.fd, file, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	buffer_store_all(&self->buf, '0');
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->snap));
	close(file);
}

/* The heap of a program may be in a buffer, and what it passes to a call. */
TEST_F(itself, struct_in_the_buffer_is_not_written)
{
	struct cowmem_restore *arg = (void *)(self->buf.p + 2 * PAGE + 64);
	struct cowmem_extent extent;
	uint64_t cursor = 0;

	*arg = (struct cowmem_restore) {
		.size = sizeof(*arg), .flags = variant->flags,
		.source = self->snap.fd,
	};
	EXPECT_EQ(0, cow_ioctl(self->buf.fd, COWMEM_RESTORE, arg));
	self->buf.want[2] = self->snap.want[2];
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_EQ(variant->flags & COWMEM_IN_PLACE ? 1 : 0,
		  cow_diff(self->buf.fd, self->snap.fd, &extent, 1, &cursor));
}

/* Stores to one of the ranges must not show in the other. */
static bool halves_stay_apart(FIXTURE_DATA(itself) *self)
{
	unsigned long i;

	for (i = 0; i < NR; i++) {
		buffer_store(&self->buf, i, '0' + i);
		if (!mapping_ok(self->buf.p, &self->buf))
			return false;
	}
	return buffer_ok(&self->buf) && buffer_ok(&self->snap);
}

TEST_F(itself, range_goes_to_a_higher_offset)
{
	ASSERT_EQ(0, buffer_restore_range(&self->buf, NR / 2, &self->buf, 0,
					  NR / 2, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->snap));
	EXPECT_TRUE(halves_stay_apart(self));
}

TEST_F(itself, range_goes_to_a_lower_offset)
{
	ASSERT_EQ(0, buffer_restore_range(&self->buf, 0, &self->buf, NR / 2,
					  NR / 2, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->snap));
	EXPECT_TRUE(halves_stay_apart(self));
}

TEST_F(itself, one_page_goes_everywhere)
{
	unsigned long i;

	for (i = 0; i < NR; i++)
		if (i != 2)
			ASSERT_EQ(0, buffer_restore_range(&self->buf, i,
							  &self->buf, 2, 1,
							  variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(page_is(self->buf.p + (NR - 1) * PAGE, '!'));
	EXPECT_TRUE(halves_stay_apart(self));
}

/*
 * Ranges: sizes, and snapshots of ranges
 */

FIXTURE(range)
{
	struct buffer buf, longer;
};

PLAIN_AND_IN_PLACE(range);

FIXTURE_SETUP(range)
{
	NEED_BITS(restore_features(variant->flags));
	ASSERT_TRUE(buffer_create(&self->buf, NR));
	buffer_fill(&self->buf, 'a', 3);
	ASSERT_TRUE(buffer_create(&self->longer, 2 * NR));
	buffer_fill(&self->longer, 'A', 1);
}

FIXTURE_TEARDOWN(range)
{
	buffer_close(&self->buf);
	buffer_close(&self->longer);
}

TEST_F(range, of_all_pages_leaves_the_size)
{
	ASSERT_EQ(0, buffer_restore_range(&self->buf, 0, &self->longer, 0, NR,
					  variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_EQ(NR, self->buf.nr);
	EXPECT_TRUE(buffer_ok(&self->longer));
}

TEST_F(range, from_a_shorter_source_leaves_the_rest)
{
	ASSERT_EQ(0, buffer_restore_range(&self->longer, 0, &self->buf, 0, NR,
					  variant->flags));
	EXPECT_TRUE(buffer_ok(&self->longer));
	EXPECT_EQ(2 * NR, self->longer.nr);
	EXPECT_TRUE(buffer_ok(&self->buf));
}

TEST_F(range, of_the_first_or_the_last_page)
{
	ASSERT_EQ(0, buffer_restore_range(&self->buf, 0, &self->longer,
					  2 * NR - 1, 1, variant->flags));
	ASSERT_EQ(0, buffer_restore_range(&self->buf, NR - 1, &self->longer,
					  0, 1, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->longer));
}

TEST_F(range, of_nothing_but_holes_makes_holes)
{
	struct buffer empty;

	ASSERT_TRUE(buffer_create(&empty, NR));
	ASSERT_EQ(0, buffer_restore_range(&self->buf, 2, &empty, 9, 7,
					  variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	ASSERT_EQ(0, buffer_restore_range(&empty, 1, &self->buf, 2, 7,
					  variant->flags));
	EXPECT_TRUE(buffer_ok(&empty));
	EXPECT_EQ(0, cow_stat(empty.fd).resident);
}

TEST_F(range, before_an_odd_end_leaves_that_alone)
{
	char data[PAGE];

	ASSERT_EQ(0, ftruncate(self->buf.fd, 2 * PAGE + 123));
	ASSERT_EQ(0, buffer_restore_range(&self->buf, 0, &self->longer, 4, 2,
					  variant->flags));
	EXPECT_EQ(2 * PAGE + 123, cow_stat(self->buf.fd).length);
	EXPECT_TRUE(page_is(self->buf.p, self->longer.want[4]));
	EXPECT_TRUE(page_is(self->buf.p + PAGE, self->longer.want[5]));
	ASSERT_EQ(123, pread(self->buf.fd, data, PAGE, 2 * PAGE));
	EXPECT_EQ('c', data[0]);
	EXPECT_EQ(0, memcmp(data, data + 1, 122));
}

TEST_F(range, snapshot_of_one_goes_back_to_where_it_came_from)
{
	struct buffer snap;

	NEED(RANGE);
	ASSERT_TRUE(buffer_snapshot_range(&snap, &self->buf, 0, 4, 6));
	buffer_store_all(&self->buf, '0');
	ASSERT_EQ(0, buffer_restore_range(&self->buf, 4, &snap, 0, 6,
					  variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_EQ('e', self->buf.p[4 * PAGE]);
	EXPECT_EQ('0' + 3, self->buf.p[3 * PAGE]);
	EXPECT_EQ('0' + 10, self->buf.p[10 * PAGE]);
	buffer_store_all(&self->buf, 'A');
	EXPECT_TRUE(buffer_ok(&snap));
	EXPECT_TRUE(buffer_ok(&self->buf));
}

TEST_F(range, clone_of_one_is_committed_to_where_it_came_from)
{
	struct buffer clone;

	NEED(RANGE);
	ASSERT_TRUE(buffer_snapshot_range(&clone, &self->buf, COWMEM_WRITABLE,
					  4, 6));
	buffer_store(&clone, 1, '!');
	buffer_store(&clone, 4, '?');
	ASSERT_EQ(0, buffer_restore_range(&self->buf, 4, &clone, 0, 6,
					  variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	buffer_store_all(&clone, 'A');
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&clone));
}

TEST_F(range, clone_of_one_follows_its_origin)
{
	struct buffer clone;

	NEED(RANGE);
	ASSERT_TRUE(buffer_snapshot_range(&clone, &self->buf, COWMEM_WRITABLE,
					  4, 6));
	buffer_store_all(&self->buf, '0');
	ASSERT_EQ(0, buffer_restore_range(&clone, 0, &self->buf, 4, 6,
					  variant->flags));
	EXPECT_TRUE(buffer_ok(&clone));
	buffer_store_all(&self->buf, 'A');
	EXPECT_TRUE(buffer_ok(&clone));
	EXPECT_TRUE(buffer_ok(&self->buf));
}

TEST_F(range, snapshot_of_one_as_a_whole_gives_its_size)
{
	struct buffer snap;

	NEED(RANGE);
	ASSERT_TRUE(buffer_snapshot_range(&snap, &self->buf, 0, 4, 6));
	ASSERT_EQ(0, buffer_restore(&self->buf, &snap, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_EQ(6, self->buf.nr);
	EXPECT_TRUE(buffer_ok(&snap));
}

/*
 * Large and sparse: pages on both sides of where an index of any fan-out splits
 */

#define WIDE_NR		16384UL
#define WIDE_SIZE	(WIDE_NR * PAGE)

static const unsigned long wide_index[] = {
	0, 1, 62, 63, 64, 65, 127, 128, 511, 512, 513, 4094, 4095, 4096, 4097,
	8191, 8192, 12288, 16383,
};

#define NR_WIDE		(sizeof(wide_index) / sizeof(wide_index[0]))

struct wide {
	int fd;
	char *p;
	char want[WIDE_NR];
};

static bool wide_map(struct wide *wide, int prot)
{
	wide->p = cow_map(wide->fd, WIDE_SIZE, prot);
	return wide->p != MAP_FAILED;
}

static bool wide_create(struct wide *wide)
{
	memset(wide->want, 0, WIDE_NR);
	wide->fd = cow_create(WIDE_SIZE, "wide");
	return wide->fd >= 0 && wide_map(wide, RW);
}

static bool wide_snapshot(struct wide *wide, const struct wide *origin,
			  uint32_t flags)
{
	memcpy(wide->want, origin->want, WIDE_NR);
	wide->fd = cow_snapshot(origin->fd, flags);
	return wide->fd >= 0 &&
	       wide_map(wide, flags & COWMEM_WRITABLE ? RW : PROT_READ);
}

static void wide_close(struct wide *wide)
{
	munmap(wide->p, WIDE_SIZE);
	close(wide->fd);
}

/* Store to the pages of wide_index but each third, from number @skip on. */
static void wide_fill(struct wide *wide, unsigned int skip, char first)
{
	unsigned int k;

	for (k = 0; k < NR_WIDE; k++) {
		if (k % 3 == skip)
			continue;
		wide->want[wide_index[k]] = first + k;
		memset(wide->p + wide_index[k] * PAGE, first + k, PAGE);
	}
}

static bool wide_page_ok(const struct wide *wide, unsigned long index)
{
	char data[PAGE];

	return page_is(wide->p + index * PAGE, wide->want[index]) &&
	       pread(wide->fd, data, PAGE, index * PAGE) == PAGE &&
	       page_is(data, wide->want[index]);
}

static unsigned long wide_next_data(const struct wide *wide,
				    unsigned long index)
{
	while (index < WIDE_NR && !wide->want[index])
		index++;
	return index;
}

/* All pages with data, each first page of a hole, and that nothing else is there. */
static bool wide_ok(const struct wide *wide)
{
	unsigned long index = 0, nr_data = 0;
	off_t data;

	for (;; index++, nr_data++) {
		data = lseek(wide->fd, index * PAGE, SEEK_DATA);
		index = wide_next_data(wide, index);
		if (index == WIDE_NR)
			break;
		if (data != index * PAGE || !wide_page_ok(wide, index) ||
		    (index + 1 < WIDE_NR && !wide_page_ok(wide, index + 1)))
			return false;
	}
	return data < 0 && cow_stat(wide->fd).resident == nr_data * PAGE &&
	       cow_stat(wide->fd).length == WIDE_SIZE;
}

FIXTURE(wide)
{
	struct wide to, from, before;
};

FIXTURE_VARIANT(wide)
{
	bool related;
	uint32_t flags;
};

FIXTURE_VARIANT_ADD(wide, stranger) { };
FIXTURE_VARIANT_ADD(wide, stranger_in_place) { .flags = COWMEM_IN_PLACE };
FIXTURE_VARIANT_ADD(wide, clone) { .related = true };
FIXTURE_VARIANT_ADD(wide, clone_in_place) {
	.related = true, .flags = COWMEM_IN_PLACE,
};

FIXTURE_SETUP(wide)
{
	NEED_BITS(restore_features(variant->flags));
}

FIXTURE_TEARDOWN(wide)
{
}

/* The two, and a snapshot of the one that changes, then written once more. */
static bool wide_open(FIXTURE_DATA(wide) *self, bool related)
{
	if (!wide_create(&self->to))
		return false;
	wide_fill(&self->to, 0, 'a');
	if (related ? !wide_snapshot(&self->from, &self->to, COWMEM_WRITABLE) :
		      !wide_create(&self->from))
		return false;
	wide_fill(&self->from, 1, 'A');
	if (related)
		wide_fill(&self->to, 2, '0');
	if (!wide_snapshot(&self->before, &self->to, 0))
		return false;
	wide_fill(&self->to, 1, '#');
	return true;
}

static bool wide_check(FIXTURE_DATA(wide) *self)
{
	if (!wide_ok(&self->to) || !wide_ok(&self->from) ||
	    !wide_ok(&self->before))
		return false;
	wide_fill(&self->to, 3, '!');
	wide_fill(&self->from, 3, '?');
	return wide_ok(&self->to) && wide_ok(&self->from) &&
	       wide_ok(&self->before);
}

static void wide_shut(FIXTURE_DATA(wide) *self)
{
	wide_close(&self->to);
	wide_close(&self->from);
	wide_close(&self->before);
}

TEST_F(wide, whole_becomes_equal)
{
	ASSERT_TRUE(wide_open(self, variant->related));
	ASSERT_EQ(0, cow_restore(self->to.fd, self->from.fd, variant->flags));
	memcpy(self->to.want, self->from.want, WIDE_NR);
	EXPECT_TRUE(wide_check(self));
	wide_shut(self);
}

TEST_F(wide, range_of_any_alignment_becomes_equal)
{
	static const struct {
		unsigned long to, from, nr;
	} moves[] = {
		{ 0, 0, WIDE_NR }, { 1, 1, WIDE_NR - 2 }, { 0, 0, 4096 },
		{ 64, 64, 64 }, { 512, 512, 512 }, { 63, 63, 2 },
		{ 4095, 4095, 2 }, { 500, 500, 100 },
		{ 64, 0, 64 }, { 0, 64, 64 }, { 512, 0, 512 }, { 0, 512, 512 },
		{ 4096, 0, 4096 }, { 0, 4096, 4096 }, { 12288, 0, 4096 },
		{ 1, 0, 600 }, { 0, 1, 600 }, { 63, 64, 4096 },
		{ 64, 63, 4096 }, { WIDE_NR - 1, 0, 1 }, { 0, WIDE_NR - 1, 1 },
	};
	unsigned int i;

	for (i = 0; i < sizeof(moves) / sizeof(moves[0]); i++) {
		ASSERT_TRUE(wide_open(self, variant->related));
		ASSERT_EQ(0, cow_restore_range(self->to.fd, moves[i].to * PAGE,
					       self->from.fd,
					       moves[i].from * PAGE,
					       moves[i].nr * PAGE,
					       variant->flags));
		memcpy(self->to.want + moves[i].to,
		       self->from.want + moves[i].from, moves[i].nr);
		EXPECT_TRUE(wide_check(self))
			TH_LOG("%lu pages at %lu from %lu", moves[i].nr,
			       moves[i].to, moves[i].from);
		wide_shut(self);
	}
}

/*
 * Size
 */

FIXTURE(size)
{
	struct buffer buf, other;
};

PLAIN_AND_IN_PLACE(size);

FIXTURE_SETUP(size)
{
	NEED_BITS(restore_features(variant->flags));
	ASSERT_TRUE(buffer_create(&self->buf, NR));
	buffer_fill(&self->buf, 'a', 3);
}

FIXTURE_TEARDOWN(size)
{
	buffer_close(&self->buf);
	if (self->other.fd > 0)
		buffer_close(&self->other);
}

/* A stranger of @nr pages. */
static bool other_open(FIXTURE_DATA(size) *self, unsigned long nr)
{
	if (!buffer_create(&self->other, nr))
		return false;
	buffer_fill(&self->other, 'A', 1);
	return true;
}

TEST_F(size, grows_with_the_source)
{
	ASSERT_TRUE(other_open(self, 2 * NR - 1));
	ASSERT_TRUE(buffer_ok(&self->buf));
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->other, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	buffer_store_all(&self->buf, '!');
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->other));
}

TEST_F(size, shrinks_with_the_source_for_good)
{
	ASSERT_TRUE(other_open(self, 5));
	ASSERT_TRUE(buffer_ok(&self->buf));
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->other, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	ASSERT_TRUE(buffer_resize(&self->buf, NR));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->other));
}

TEST_F(size, becomes_0_and_grows_back)
{
	struct buffer before;

	ASSERT_TRUE(other_open(self, 0));
	ASSERT_TRUE(buffer_snapshot(&before, &self->buf, 0));
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->other, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&before));
	ASSERT_EQ(0, buffer_restore(&self->buf, &before, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_EQ(NR, self->buf.nr);
	buffer_store_all(&self->buf, '!');
	EXPECT_TRUE(buffer_ok(&before));
}

TEST_F(size, goes_back_to_that_of_a_snapshot_after_a_truncate)
{
	struct buffer snap;

	ASSERT_TRUE(buffer_snapshot(&snap, &self->buf, 0));
	ASSERT_TRUE(buffer_resize(&self->buf, 3));
	buffer_store(&self->buf, 0, '!');
	ASSERT_EQ(0, buffer_restore(&self->buf, &snap, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	ASSERT_TRUE(buffer_resize(&self->buf, MAX_NR));
	buffer_store(&self->buf, MAX_NR - 1, '!');
	ASSERT_EQ(0, buffer_restore(&self->buf, &snap, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&snap));
}

TEST_F(size, empty_buffer_gets_one)
{
	ASSERT_TRUE(other_open(self, 0));
	ASSERT_EQ(0, buffer_restore(&self->other, &self->buf, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->other));
	EXPECT_EQ(NR, self->other.nr);
	EXPECT_TRUE(buffer_ok(&self->buf));
}

TEST_F(size, device_handle_without_a_size_gets_one)
{
	struct buffer dev = { .fd = cow_open() };

	ASSERT_GE(dev.fd, 0);
	ASSERT_EQ(0, buffer_restore(&dev, &self->buf, variant->flags));
	EXPECT_EQ(SIZE, cow_stat(dev.fd).length);
	ASSERT_TRUE(buffer_map(&dev));
	EXPECT_EQ(SIZE, cow_stat(dev.fd).length);
	EXPECT_TRUE(mapping_ok(dev.p, &dev));
	EXPECT_TRUE(file_ok(&dev));
	buffer_close(&dev);
}

TEST_F(size, goes_to_a_terabyte_and_back)
{
	const off_t size = 1L << 40;
	int large = cow_create(size, "large");
	struct buffer before;
	char value = '!';

	ASSERT_GE(large, 0);
	ASSERT_TRUE(buffer_snapshot(&before, &self->buf, 0));
	ASSERT_EQ(1, pwrite(large, &value, 1, size - 1));
	ASSERT_EQ(0, cow_restore(self->buf.fd, large, variant->flags));
	EXPECT_EQ(size, cow_stat(self->buf.fd).length);
	EXPECT_EQ(PAGE, cow_stat(self->buf.fd).resident);
	EXPECT_EQ(size - PAGE, lseek(self->buf.fd, 0, SEEK_DATA));
	EXPECT_TRUE(page_is(self->buf.p, 0));
	value = 0;
	EXPECT_EQ(1, pread(self->buf.fd, &value, 1, size - 1));
	EXPECT_EQ('!', value);
	ASSERT_EQ(0, buffer_restore(&self->buf, &before, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&before));
	close(large);
}

/* A size in the middle of the third page, and what others make of the rest. */
#define ODD_SIZE	(2 * PAGE + 123)

/* Is the file that of @like up to ODD_SIZE, then zeroes up to @end? */
static bool file_is_cut(int fd, const struct buffer *like, size_t end)
{
	char data[SIZE + 1];
	size_t i;

	if (pread(fd, data, sizeof(data), 0) != end)
		return false;
	for (i = 0; i < end; i++)
		if (data[i] != (i < ODD_SIZE ? like->want[i / PAGE] : 0))
			return false;
	return true;
}

/* Cut it in the third page, and store to the rest of that, which is allowed. */
static bool buffer_cut(struct buffer *buf)
{
	if (ftruncate(buf->fd, ODD_SIZE))
		return false;
	memset(buf->p + ODD_SIZE, '#', 3 * PAGE - ODD_SIZE);
	return true;
}

TEST_F(size, is_odd_if_that_of_the_source_is)
{
	struct stat st;

	ASSERT_TRUE(other_open(self, 3));
	ASSERT_EQ(0, ftruncate(self->other.fd, ODD_SIZE));
	ASSERT_EQ(0, cow_restore(self->buf.fd, self->other.fd, variant->flags));
	EXPECT_EQ(ODD_SIZE, cow_stat(self->buf.fd).length);
	ASSERT_EQ(0, fstat(self->buf.fd, &st));
	EXPECT_EQ(ODD_SIZE, st.st_size);
	EXPECT_TRUE(file_is_cut(self->buf.fd, &self->other, ODD_SIZE));
	EXPECT_TRUE(file_is_cut(self->other.fd, &self->other, ODD_SIZE));
	EXPECT_EQ(0, load_signal(self->buf.p + 3 * PAGE - 1));
	EXPECT_EQ(SIGBUS, load_signal(self->buf.p + 3 * PAGE));
}

TEST_F(size, rest_of_the_last_page_of_the_source_never_shows)
{
	ASSERT_TRUE(other_open(self, 3));
	ASSERT_TRUE(buffer_cut(&self->other));
	ASSERT_EQ(0, cow_restore(self->buf.fd, self->other.fd, variant->flags));
	ASSERT_EQ(0, ftruncate(self->buf.fd, SIZE));
	EXPECT_TRUE(file_is_cut(self->buf.fd, &self->other, SIZE));
	EXPECT_TRUE(page_is(self->buf.p + 3 * PAGE, 0));
	EXPECT_TRUE(file_is_cut(self->other.fd, &self->other, ODD_SIZE));
}

TEST_F(size, rest_of_the_last_page_of_a_snapshot_never_shows)
{
	struct buffer snap;
	char zero = 0;

	ASSERT_TRUE(other_open(self, 3));
	ASSERT_TRUE(buffer_cut(&self->other));
	ASSERT_TRUE(buffer_snapshot(&snap, &self->other, 0));
	ASSERT_EQ(0, cow_restore(self->buf.fd, snap.fd, variant->flags));
	/* A write() beyond the end grows it as well. */
	ASSERT_EQ(1, pwrite(self->buf.fd, &zero, 1, 4 * PAGE));
	EXPECT_TRUE(file_is_cut(self->buf.fd, &snap, 4 * PAGE + 1));
	EXPECT_TRUE(file_is_cut(snap.fd, &snap, ODD_SIZE));
	EXPECT_TRUE(file_is_cut(self->other.fd, &snap, ODD_SIZE));
	buffer_close(&snap);
}

TEST_F(size, rest_of_the_own_last_page_never_shows)
{
	struct buffer snap;

	ASSERT_EQ(0, ftruncate(self->buf.fd, ODD_SIZE));
	ASSERT_TRUE(buffer_snapshot(&snap, &self->buf, 0));
	memset(self->buf.p, '!', 3 * PAGE);
	ASSERT_EQ(0, cow_restore(self->buf.fd, snap.fd, variant->flags));
	ASSERT_EQ(0, ftruncate(self->buf.fd, SIZE));
	EXPECT_TRUE(file_is_cut(self->buf.fd, &snap, SIZE));
	EXPECT_TRUE(file_is_cut(snap.fd, &snap, ODD_SIZE));
	buffer_close(&snap);
}

TEST_F(size, odd_one_is_gone_with_a_larger_source)
{
	ASSERT_TRUE(other_open(self, NR));
	ASSERT_TRUE(buffer_cut(&self->buf));
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->other, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->other));
}

/*
 * Who sees it: all kinds of mappings and handles.  A buffer, a snapshot of it
 * taken before some stores, and a stranger.
 */

FIXTURE(view)
{
	struct buffer buf, snap, other;
};

PLAIN_AND_IN_PLACE(view);

FIXTURE_SETUP(view)
{
	NEED_BITS(restore_features(variant->flags));
	ASSERT_TRUE(buffer_create(&self->buf, NR));
	buffer_fill(&self->buf, 'a', 3);
	ASSERT_TRUE(buffer_snapshot(&self->snap, &self->buf, 0));
	buffer_store(&self->buf, 1, '1');
	buffer_store(&self->buf, 3, '3');
	buffer_store(&self->buf, 15, '?');
	ASSERT_TRUE(buffer_create(&self->other, NR));
	buffer_fill(&self->other, 'A', 1);
}

FIXTURE_TEARDOWN(view)
{
	buffer_close(&self->buf);
	buffer_close(&self->snap);
	buffer_close(&self->other);
}

TEST_F(view, two_mappings_show_it)
{
	char *q = cow_map(self->buf.fd, MAX_SIZE, RW);

	ASSERT_NE(MAP_FAILED, q);
	ASSERT_TRUE(mapping_ok(q, &self->buf));
	q[1 * PAGE] = '!';
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->snap, variant->flags));
	EXPECT_TRUE(mapping_ok(q, &self->buf));
	EXPECT_TRUE(buffer_ok(&self->buf));
	memset(q, '!', SIZE);
	EXPECT_TRUE(page_is(self->buf.p + 15 * PAGE, '!'));
	EXPECT_TRUE(buffer_ok(&self->snap));
}

TEST_F(view, forked_child_sees_it)
{
	pid_t pid = start_viewer(self->buf.p, &self->buf, &self->snap);

	ASSERT_TRUE(child_stopped(pid));
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->snap, variant->flags));
	EXPECT_EQ(0, child_finish(pid));
	EXPECT_TRUE(buffer_ok(&self->buf));
}

TEST_F(view, child_with_a_mapping_of_its_own_sees_it)
{
	int file = cow_file(self->buf.fd, COWMEM_RDONLY);
	char *q = cow_map(file, MAX_SIZE, PROT_READ);
	pid_t pid;

	ASSERT_NE(MAP_FAILED, q);
	pid = start_viewer(q, &self->buf, &self->other);
	munmap(q, MAX_SIZE);
	close(file);
	ASSERT_TRUE(child_stopped(pid));
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->other, variant->flags));
	EXPECT_EQ(0, child_finish(pid));
	EXPECT_TRUE(buffer_ok(&self->buf));
}

TEST_F(view, child_that_had_stored_stores_to_its_own_buffer_only)
{
	pid_t pid = start_writer(&self->buf, 'w', '0');

	ASSERT_TRUE(child_stopped(pid));
	ASSERT_TRUE(buffer_ok(&self->buf));
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->snap, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(writer_finish(pid, &self->buf, '0'));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->snap));
}

TEST_F(view, restore_in_a_child_is_seen)
{
	ASSERT_TRUE(buffer_ok(&self->buf));
	EXPECT_EQ(0, CHILD(_exit(!!buffer_restore(&self->buf, &self->other,
						  variant->flags))));
	memcpy(self->buf.want, self->other.want, NR);
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->other));
}

TEST_F(view, nobody_sees_beyond_a_new_end)
{
	char *q = cow_map(self->buf.fd, MAX_SIZE, PROT_READ);
	struct buffer small;
	unsigned long i;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, q);
	ASSERT_TRUE(buffer_create(&small, 4));
	buffer_fill(&small, 'A', 1);
	ASSERT_TRUE(mapping_ok(q, &self->buf));
	pid = start_viewer(self->buf.p, &self->buf, &small);
	ASSERT_TRUE(child_stopped(pid));

	ASSERT_EQ(0, buffer_restore(&self->buf, &small, variant->flags));
	for (i = 4; i < NR; i++) {
		EXPECT_EQ(SIGBUS, load_signal(self->buf.p + i * PAGE));
		EXPECT_EQ(SIGBUS, load_signal(q + i * PAGE));
		EXPECT_EQ(SIGBUS, COW_TRY(self->buf.p[i * PAGE] = '!'));
	}
	EXPECT_TRUE(mapping_ok(q, &self->buf));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_EQ(0, child_finish(pid));
	EXPECT_TRUE(buffer_ok(&self->snap));
	buffer_close(&small);
}

TEST_F(view, everybody_sees_up_to_a_new_end)
{
	char *q = cow_map(self->buf.fd, MAX_SIZE, RW);
	struct buffer large;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, q);
	ASSERT_TRUE(buffer_create(&large, NR + 5));
	buffer_fill(&large, 'A', 1);
	ASSERT_TRUE(mapping_ok(q, &self->buf));
	pid = start_viewer(self->buf.p, &self->buf, &large);
	ASSERT_TRUE(child_stopped(pid));

	ASSERT_EQ(0, buffer_restore(&self->buf, &large, variant->flags));
	EXPECT_TRUE(mapping_ok(q, &self->buf));
	EXPECT_EQ(0, child_finish(pid));
	memset(q + (NR + 4) * PAGE, '!', PAGE);
	EXPECT_TRUE(page_is(self->buf.p + (NR + 4) * PAGE, '!'));
	EXPECT_TRUE(buffer_ok(&large));
	buffer_close(&large);
}

TEST_F(view, mapping_of_the_last_pages_shows_it)
{
	char *q = mmap(NULL, 4 * PAGE, RW, MAP_SHARED, self->buf.fd, 12 * PAGE);

	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(page_is(q + 3 * PAGE, '?'));
	memset(q + 2 * PAGE, '!', PAGE);
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->snap, variant->flags));
	EXPECT_TRUE(page_is(q + 2 * PAGE, self->snap.want[14]));
	EXPECT_TRUE(page_is(q + 3 * PAGE, self->snap.want[15]));
	memset(q, '!', 4 * PAGE);
	EXPECT_TRUE(page_is(self->buf.p + 12 * PAGE, '!'));
	EXPECT_TRUE(buffer_ok(&self->snap));
}

TEST_F(view, mapping_that_was_moved_shows_it)
{
	char *to = mmap(NULL, MAX_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
			-1, 0);

	ASSERT_NE(MAP_FAILED, to);
	self->buf.p = mremap(self->buf.p, MAX_SIZE, MAX_SIZE,
			     MREMAP_MAYMOVE | MREMAP_FIXED, to);
	ASSERT_NE(MAP_FAILED, self->buf.p);
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->snap, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	buffer_store_all(&self->buf, '0');
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->snap));
}

TEST_F(view, mapping_whose_handle_is_closed_shows_it)
{
	int file = cow_file(self->buf.fd, 0);
	char *q = cow_map(file, MAX_SIZE, RW);

	ASSERT_NE(MAP_FAILED, q);
	close(file);
	memset(q, '!', SIZE);
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->snap, variant->flags));
	EXPECT_TRUE(mapping_ok(q, &self->buf));
	memset(q, '!', SIZE);
	EXPECT_TRUE(page_is(self->buf.p, '!'));
	EXPECT_TRUE(buffer_ok(&self->snap));
}

TEST_F(view, read_only_mapping_shows_it)
{
	int file = cow_file(self->buf.fd, COWMEM_RDONLY);
	char *q = cow_map(file, MAX_SIZE, PROT_READ);

	ASSERT_NE(MAP_FAILED, q);
	ASSERT_TRUE(mapping_ok(q, &self->buf));
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->snap, variant->flags));
	EXPECT_TRUE(mapping_ok(q, &self->buf));
	buffer_store_all(&self->buf, '0');
	EXPECT_TRUE(mapping_ok(q, &self->buf));
	EXPECT_TRUE(buffer_ok(&self->snap));
	close(file);
}

TEST_F(view, file_and_new_mapping_show_it_if_nothing_was_mapped)
{
	munmap(self->buf.p, MAX_SIZE);
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->snap, variant->flags));
	EXPECT_TRUE(file_ok(&self->buf));
	ASSERT_TRUE(buffer_map(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->buf));
	buffer_store_all(&self->buf, '0');
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->snap));
}

TEST_F(view, mapping_made_read_only_before_and_writable_after_stays_apart)
{
	buffer_store_all(&self->buf, '0');
	ASSERT_EQ(0, mprotect(self->buf.p, MAX_SIZE, PROT_READ));
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->snap, variant->flags));
	EXPECT_TRUE(mapping_ok(self->buf.p, &self->buf));
	ASSERT_EQ(0, mprotect(self->buf.p, MAX_SIZE, RW));
	buffer_store_all(&self->buf, 'A');
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->snap));
}

TEST_F(view, mapping_made_inaccessible_before_and_writable_after_stays_apart)
{
	buffer_store_all(&self->buf, '0');
	ASSERT_EQ(0, mprotect(self->buf.p, MAX_SIZE, PROT_NONE));
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->snap, variant->flags));
	ASSERT_EQ(0, mprotect(self->buf.p, MAX_SIZE, RW));
	self->buf.p[5 * PAGE] = '!';
	EXPECT_EQ(self->snap.want[5], self->buf.p[5 * PAGE + 1]);
	EXPECT_TRUE(buffer_ok(&self->snap));
	buffer_store_all(&self->buf, 'A');
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->snap));
}

TEST_F(view, hole_that_is_mapped_gets_data)
{
	ASSERT_TRUE(page_is(self->buf.p + 8 * PAGE, 0));
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->other, variant->flags));
	EXPECT_TRUE(page_is(self->buf.p + 8 * PAGE, self->other.want[8]));
	EXPECT_TRUE(buffer_ok(&self->buf));
}

TEST_F(view, data_that_became_a_hole_is_filled_anew)
{
	struct cowmem_stat before;

	ASSERT_EQ(0, buffer_restore(&self->buf, &self->snap, variant->flags));
	ASSERT_TRUE(buffer_ok(&self->buf));
	before = cow_stat(self->buf.fd);
	self->buf.p[3 * PAGE + 5] = '!';
	EXPECT_EQ(before.filled + 1, cow_stat(self->buf.fd).filled);
	EXPECT_EQ(before.copied, cow_stat(self->buf.fd).copied);
	EXPECT_EQ(0, self->buf.p[3 * PAGE + 4]);
	EXPECT_EQ(0, self->buf.p[3 * PAGE + 6]);
	EXPECT_TRUE(buffer_ok(&self->snap));
}

static bool store_by_others(struct buffer *buf)
{
	char data[PAGE];
	struct iovec local = { data, PAGE }, remote = { buf->p + 6 * PAGE, PAGE };

	memset(data, '!', PAGE);
	return pwrite(buf->fd, data, PAGE, 5 * PAGE) == PAGE &&
	       process_vm_writev(getpid(), &local, 1, &remote, 1, 0) == PAGE &&
	       !CHILD(memset(buf->p + 7 * PAGE, '!', PAGE));
}

TEST_F(view, what_was_written_by_any_means_is_undone)
{
	ASSERT_TRUE(store_by_others(&self->buf));
	EXPECT_TRUE(page_is(self->buf.p + 5 * PAGE, '!'));
	EXPECT_TRUE(page_is(self->buf.p + 6 * PAGE, '!'));
	EXPECT_TRUE(page_is(self->buf.p + 7 * PAGE, '!'));
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->snap, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	ASSERT_TRUE(store_by_others(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->snap));
}

TEST_F(view, private_mapping_shows_it_but_for_pages_of_its_own)
{
	char *q = map_private(self->buf.fd, MAX_SIZE, RW);
	unsigned long i;

	ASSERT_NE(MAP_FAILED, q);
	ASSERT_TRUE(mapping_ok(q, &self->buf));
	q[2 * PAGE] = '!';
	q[15 * PAGE] = '!';
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->other, variant->flags));
	for (i = 0; i < NR; i++)
		if (i != 2 && i != 15)
			EXPECT_TRUE(page_is(q + i * PAGE, self->other.want[i]));
	EXPECT_EQ('!', q[2 * PAGE]);
	EXPECT_EQ('c', q[2 * PAGE + 1]);
	EXPECT_EQ('!', q[15 * PAGE]);
	EXPECT_EQ('?', q[15 * PAGE + 1]);
	memset(q, '#', SIZE);
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->other));
	munmap(q, MAX_SIZE);
}

TEST_F(view, private_pages_are_gone_beyond_a_new_end)
{
	char *q = map_private(self->buf.fd, MAX_SIZE, RW);
	struct buffer small;

	ASSERT_NE(MAP_FAILED, q);
	ASSERT_TRUE(buffer_create(&small, 4));
	buffer_fill(&small, 'A', 1);
	q[2 * PAGE] = '!';
	q[10 * PAGE] = '!';
	ASSERT_EQ(0, buffer_restore(&self->buf, &small, variant->flags));
	EXPECT_EQ('!', q[2 * PAGE]);
	EXPECT_EQ('c', q[2 * PAGE + 1]);
	EXPECT_EQ(SIGBUS, load_signal(q + 10 * PAGE));
	ASSERT_TRUE(buffer_resize(&self->buf, NR));
	EXPECT_TRUE(page_is(q + 10 * PAGE, 0));
	EXPECT_EQ('!', q[2 * PAGE]);
	EXPECT_TRUE(buffer_ok(&self->buf));
	munmap(q, MAX_SIZE);
	buffer_close(&small);
}

TEST_F(view, private_mapping_of_the_source_stays)
{
	char *q = map_private(self->other.fd, MAX_SIZE, RW);

	ASSERT_NE(MAP_FAILED, q);
	ASSERT_TRUE(mapping_ok(q, &self->other));
	q[2 * PAGE] = '!';
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->other, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_EQ('!', q[2 * PAGE]);
	buffer_store_all(&self->buf, '0');
	EXPECT_TRUE(page_is(q + 5 * PAGE, self->other.want[5]));
	EXPECT_EQ(self->other.want[2], q[2 * PAGE + 1]);
	munmap(q, MAX_SIZE);
}

TEST_F(view, device_handle_can_be_either_side)
{
	struct buffer dev = { .fd = cow_open(), .nr = MAX_NR }, snap;

	ASSERT_GE(dev.fd, 0);
	ASSERT_TRUE(buffer_map(&dev));
	buffer_fill(&dev, 'A', 1);
	ASSERT_TRUE(buffer_snapshot(&snap, &dev, 0));
	buffer_store_all(&dev, '0');
	ASSERT_EQ(0, buffer_restore(&dev, &snap, variant->flags));
	EXPECT_TRUE(mapping_ok(dev.p, &dev));
	EXPECT_TRUE(file_ok(&dev));
	EXPECT_TRUE(holes_ok(&dev));
	ASSERT_EQ(0, buffer_restore(&self->buf, &dev, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	buffer_store_all(&dev, '0');
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&snap));
	buffer_close(&dev);
	buffer_close(&snap);
}

TEST_F(view, destination_need_not_be_readable_nor_the_source_writable)
{
	int writer = reopen(self->buf.fd, O_WRONLY);
	int reader = cow_file(self->other.fd, COWMEM_RDONLY);

	ASSERT_GE(writer, 0);
	ASSERT_GE(reader, 0);
	EXPECT_EQ(0, cow_restore(writer, reader, variant->flags));
	EXPECT_TRUE(mapping_ok(self->buf.p, &self->other));
	close(writer);
	close(reader);
}

TEST_F(view, stat_still_tells_of_the_same_buffers)
{
	struct cowmem_stat to = cow_stat(self->buf.fd), to_after;
	struct cowmem_stat from = cow_stat(self->other.fd), from_after;

	ASSERT_EQ(0, buffer_restore(&self->buf, &self->other, variant->flags));
	to_after = cow_stat(self->buf.fd);
	from_after = cow_stat(self->other.fd);
	EXPECT_EQ(to.id, to_after.id);
	EXPECT_EQ(to.account, to_after.account);
	EXPECT_EQ(to.state, to_after.state);
	EXPECT_STREQ(to.name, to_after.name);
	EXPECT_EQ(to.snapshots, to_after.snapshots);
	EXPECT_EQ(from.id, from_after.id);
	EXPECT_EQ(from.account, from_after.account);
	EXPECT_EQ(from.state, from_after.state);
	EXPECT_EQ(from.snapshots, from_after.snapshots);
	EXPECT_EQ(from.resident, from_after.resident);
}

/*
 * A source that is alive: all of its pages have been stored to, and may be
 * again without a fault
 */

FIXTURE(source)
{
	struct buffer to, from;
};

PLAIN_AND_IN_PLACE(source);

FIXTURE_SETUP(source)
{
	NEED_BITS(restore_features(variant->flags));
	ASSERT_TRUE(buffer_create(&self->to, NR));
	buffer_fill(&self->to, 'a', 3);
	ASSERT_TRUE(buffer_snapshot(&self->from, &self->to, COWMEM_WRITABLE));
	buffer_store_all(&self->from, 'A');
}

FIXTURE_TEARDOWN(source)
{
	buffer_close(&self->to);
	buffer_close(&self->from);
}

TEST_F(source, keeps_its_later_stores)
{
	ASSERT_EQ(0, buffer_restore(&self->to, &self->from, variant->flags));
	buffer_store_all(&self->from, '0');
	EXPECT_TRUE(buffer_ok(&self->to));
	EXPECT_TRUE(buffer_ok(&self->from));
	buffer_store_all(&self->to, 'a');
	EXPECT_TRUE(buffer_ok(&self->to));
	EXPECT_TRUE(buffer_ok(&self->from));
}

TEST_F(source, does_not_see_the_stores_of_the_other)
{
	ASSERT_EQ(0, buffer_restore(&self->to, &self->from, variant->flags));
	buffer_store_all(&self->to, 'a');
	EXPECT_TRUE(buffer_ok(&self->from));
	EXPECT_TRUE(buffer_ok(&self->to));
}

TEST_F(source, is_cut_at_each_of_many_restores)
{
	int i;

	for (i = 0; i < 20; i++) {
		buffer_store(&self->from, i % NR, '0' + i);
		ASSERT_EQ(0, buffer_restore(&self->to, &self->from,
					    variant->flags));
		buffer_store(&self->from, i % NR, '!');
		EXPECT_TRUE(mapping_ok(self->to.p, &self->to));
	}
	EXPECT_TRUE(buffer_ok(&self->to));
	EXPECT_TRUE(buffer_ok(&self->from));
}

TEST_F(source, keeps_the_later_stores_of_a_child)
{
	pid_t pid = start_writer(&self->from, 'w', '0');

	ASSERT_TRUE(child_stopped(pid));
	ASSERT_EQ(0, buffer_restore(&self->to, &self->from, variant->flags));
	EXPECT_TRUE(writer_finish(pid, &self->from, '0'));
	EXPECT_TRUE(buffer_ok(&self->to));
	EXPECT_TRUE(buffer_ok(&self->from));
}

TEST_F(source, keeps_the_later_stores_through_another_mapping)
{
	char *q = cow_map(self->from.fd, MAX_SIZE, RW);

	ASSERT_NE(MAP_FAILED, q);
	memset(q, '!', SIZE);
	memset(self->from.want, '!', NR);
	ASSERT_EQ(0, buffer_restore(&self->to, &self->from, variant->flags));
	memset(q, '?', SIZE);
	EXPECT_TRUE(buffer_ok(&self->to));
	EXPECT_TRUE(page_is(self->from.p, '?'));
}

TEST_F(source, keeps_the_later_writes)
{
	char data[SIZE];

	memset(data, '!', SIZE);
	ASSERT_EQ(SIZE, pwrite(self->from.fd, data, SIZE, 0));
	memset(self->from.want, '!', NR);
	ASSERT_EQ(0, buffer_restore(&self->to, &self->from, variant->flags));
	memset(data, '?', SIZE);
	ASSERT_EQ(SIZE, pwrite(self->from.fd, data, SIZE, 0));
	EXPECT_TRUE(buffer_ok(&self->to));
	EXPECT_TRUE(page_is(self->from.p, '?'));
}

TEST_F(source, made_read_only_before_and_writable_after_keeps_its_stores)
{
	ASSERT_EQ(0, mprotect(self->from.p, MAX_SIZE, PROT_READ));
	ASSERT_EQ(0, buffer_restore(&self->to, &self->from, variant->flags));
	EXPECT_TRUE(mapping_ok(self->from.p, &self->from));
	ASSERT_EQ(0, mprotect(self->from.p, MAX_SIZE, RW));
	buffer_store_all(&self->from, '0');
	EXPECT_TRUE(buffer_ok(&self->to));
	EXPECT_TRUE(buffer_ok(&self->from));
}

TEST_F(source, of_a_range_keeps_its_later_stores)
{
	ASSERT_EQ(0, buffer_restore_range(&self->to, 1, &self->from, 6, 8,
					  variant->flags));
	buffer_store_all(&self->from, '0');
	EXPECT_TRUE(buffer_ok(&self->to));
	EXPECT_TRUE(buffer_ok(&self->from));
}

/*
 * Many: more pages that differ than are copied back in place, or revoked at a
 * time.  A buffer and a snapshot of it; then every @step-th page is stored to.
 */

#define MANY_NR		1100UL
#define MANY_IN_PLACE	1024UL	/* as the header says */

FIXTURE(many)
{
	int fd, snap;
	char *p;
	unsigned long nr, step;
};

FIXTURE_VARIANT(many)
{
	unsigned long step;
	uint32_t flags;
};

FIXTURE_VARIANT_ADD(many, adjacent) { .step = 1 };
FIXTURE_VARIANT_ADD(many, adjacent_in_place) {
	.step = 1, .flags = COWMEM_IN_PLACE,
};
FIXTURE_VARIANT_ADD(many, scattered) { .step = 2 };
FIXTURE_VARIANT_ADD(many, scattered_in_place) {
	.step = 2, .flags = COWMEM_IN_PLACE,
};

/* What the page has after so many rounds of stores.  Its period is a prime. */
static char many_value(unsigned long index, unsigned int round)
{
	return 1 + (index + 100 * round) % 251;
}

static void many_store(FIXTURE_DATA(many) *self, unsigned long step,
		       unsigned int round)
{
	unsigned long i;

	for (i = 0; i < self->nr; i += step)
		memset(self->p + i * PAGE, many_value(i, round), PAGE);
}

FIXTURE_SETUP(many)
{
	NEED_BITS(restore_features(variant->flags));
	self->step = variant->step;
	self->nr = MANY_NR * self->step;
	self->fd = cow_create_mapped(self->nr * PAGE, "many", &self->p);
	ASSERT_GE(self->fd, 0);
	many_store(self, 1, 0);
	self->snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(self->snap, 0);
	many_store(self, self->step, 1);
}

FIXTURE_TEARDOWN(many)
{
	munmap(self->p, self->nr * PAGE);
	close(self->fd);
	close(self->snap);
}

/* After that round of stores to every @step-th page; and the snapshot. */
static bool many_ok(FIXTURE_DATA(many) *self, unsigned long step,
		    unsigned int round)
{
	unsigned long i;
	char value;

	for (i = 0; i < self->nr; i++) {
		value = many_value(i, i % step ? 0 : round);
		if (!page_is(self->p + i * PAGE, value) ||
		    !page_reads_as(self->fd, i, value) ||
		    !page_reads_as(self->snap, i, many_value(i, 0)))
			return false;
	}
	return true;
}

TEST_F(many, whole_becomes_equal_and_is_stored_to_again)
{
	unsigned int round;
	long before;

	for (round = 2; round < 4; round++) {
		ASSERT_EQ(0, cow_restore(self->fd, self->snap, variant->flags));
		EXPECT_TRUE(many_ok(self, 1, 0));
		before = cow_stat(self->fd).copied;
		many_store(self, self->step, round);
		EXPECT_EQ(variant->flags ? MANY_NR - MANY_IN_PLACE : MANY_NR,
			  cow_stat(self->fd).copied - before);
		EXPECT_TRUE(many_ok(self, self->step, round));
	}
}

/* Each page gets what is behind it in the snapshot: all of them differ. */
TEST_F(many, range_becomes_equal_to_one_from_elsewhere)
{
	unsigned long i, last = self->nr - 1;
	char value;

	ASSERT_EQ(0, cow_restore_range(self->fd, 0, self->snap, PAGE,
				       last * PAGE, variant->flags));
	for (i = 0; i < last; i++) {
		value = many_value(i + 1, 0);
		ASSERT_TRUE(page_is(self->p + i * PAGE, value));
		ASSERT_TRUE(page_reads_as(self->fd, i, value));
	}
	value = many_value(last, last % self->step ? 0 : 1);
	EXPECT_TRUE(page_is(self->p + last * PAGE, value));
	many_store(self, 1, 2);
	EXPECT_TRUE(many_ok(self, 1, 2));
}

/*
 * Pages that somebody holds: here, a pipe.  A buffer, a snapshot of it and a
 * stranger.
 */

FIXTURE(held)
{
	struct buffer buf, snap, other;
	int pipefd[2];
};

PLAIN_AND_IN_PLACE(held);

FIXTURE_SETUP(held)
{
	NEED_BITS(restore_features(variant->flags));
	ASSERT_EQ(0, pipe(self->pipefd));
	ASSERT_TRUE(buffer_create(&self->buf, NR));
	buffer_fill(&self->buf, 'a', 3);
	ASSERT_TRUE(buffer_snapshot(&self->snap, &self->buf, 0));
	ASSERT_TRUE(buffer_create(&self->other, NR));
	buffer_fill(&self->other, 'A', 1);
}

FIXTURE_TEARDOWN(held)
{
	pipe_close(self->pipefd);
	buffer_close(&self->buf);
	if (self->snap.fd >= 0)
		buffer_close(&self->snap);
	buffer_close(&self->other);
}

TEST_F(held, page_that_was_stored_to_keeps_its_place)
{
	char data[PAGE];

	buffer_store(&self->buf, 5, '!');
	ASSERT_TRUE(pipe_hold(self->pipefd, self->buf.p + 5 * PAGE));
	ASSERT_TRUE(pipe_hold(self->pipefd, self->buf.p + 5 * PAGE));
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->snap, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(pipe_has(self->pipefd, 'f'));

	self->buf.p[5 * PAGE + 7] = '?';
	ASSERT_EQ(PAGE, read(self->pipefd[0], data, PAGE));
	EXPECT_EQ('?', data[7]);
	data[7] = 'f';
	EXPECT_TRUE(page_is(data, 'f'));
	EXPECT_TRUE(buffer_ok(&self->snap));
	buffer_store(&self->buf, 5, '#');
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->snap));
}

TEST_F(held, page_keeps_its_place_in_a_range_from_elsewhere)
{
	buffer_store(&self->buf, 5, '!');
	ASSERT_TRUE(pipe_hold(self->pipefd, self->buf.p + 5 * PAGE));
	ASSERT_TRUE(pipe_hold(self->pipefd, self->buf.p + 5 * PAGE));
	ASSERT_EQ(0, buffer_restore_range(&self->buf, 4, &self->other, 8, 3,
					  variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(pipe_has(self->pipefd, self->other.want[9]));
	buffer_store(&self->buf, 5, '?');
	EXPECT_TRUE(pipe_has(self->pipefd, '?'));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->other));
}

/* It cannot become a hole: it has a place, and zeroes. */
TEST_F(held, page_keeps_its_place_where_the_source_has_a_hole)
{
	buffer_store(&self->buf, 3, '!');
	ASSERT_TRUE(pipe_hold(self->pipefd, self->buf.p + 3 * PAGE));
	ASSERT_TRUE(pipe_hold(self->pipefd, self->buf.p + 3 * PAGE));
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->snap, variant->flags));
	EXPECT_TRUE(mapping_ok(self->buf.p, &self->buf));
	EXPECT_TRUE(file_ok(&self->buf));
	EXPECT_TRUE(pipe_has(self->pipefd, 0));
	buffer_store(&self->buf, 3, '?');
	EXPECT_TRUE(pipe_has(self->pipefd, '?'));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->snap));
}

TEST_F(held, page_keeps_its_place_each_time)
{
	int i;

	buffer_store(&self->buf, 5, '!');
	for (i = 0; i < 8; i++)
		ASSERT_TRUE(pipe_hold(self->pipefd, self->buf.p + 5 * PAGE));
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, buffer_restore(&self->buf,
					    i % 2 ? &self->snap : &self->other,
					    variant->flags));
		EXPECT_TRUE(mapping_ok(self->buf.p, &self->buf));
		EXPECT_TRUE(pipe_has(self->pipefd, self->buf.want[5]));
		buffer_store(&self->buf, 5, '0' + i);
		EXPECT_TRUE(pipe_has(self->pipefd, '0' + i));
	}
	EXPECT_TRUE(buffer_ok(&self->snap));
	EXPECT_TRUE(buffer_ok(&self->other));
}

TEST_F(held, page_stays_with_the_buffer_at_a_later_snapshot)
{
	struct buffer after;

	buffer_store(&self->buf, 5, '!');
	ASSERT_TRUE(pipe_hold(self->pipefd, self->buf.p + 5 * PAGE));
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->snap, variant->flags));
	ASSERT_TRUE(buffer_snapshot(&after, &self->buf, 0));
	buffer_store(&self->buf, 5, '?');
	EXPECT_TRUE(buffer_ok(&after));
	EXPECT_TRUE(buffer_ok(&self->snap));
	EXPECT_TRUE(pipe_has(self->pipefd, '?'));
	buffer_close(&after);
}

TEST_F(held, page_beyond_a_new_end_is_let_go)
{
	struct buffer small;

	ASSERT_TRUE(buffer_create(&small, 4));
	buffer_fill(&small, 'A', 1);
	buffer_store(&self->buf, 10, '!');
	ASSERT_TRUE(pipe_hold(self->pipefd, self->buf.p + 10 * PAGE));
	ASSERT_EQ(0, buffer_restore(&self->buf, &small, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	ASSERT_TRUE(buffer_resize(&self->buf, NR));
	EXPECT_TRUE(buffer_ok(&self->buf));
	buffer_store(&self->buf, 10, '?');
	EXPECT_TRUE(pipe_has(self->pipefd, '!'));
	EXPECT_TRUE(buffer_ok(&small));
	buffer_close(&small);
}

/* Nobody can write it through the pipe: it is as of when it was taken. */
TEST_F(held, page_not_stored_to_since_the_snapshot_stays_as_it_was)
{
	buffer_close(&self->snap);
	ASSERT_TRUE(pipe_hold(self->pipefd, self->buf.p + 5 * PAGE));
	ASSERT_TRUE(pipe_hold(self->pipefd, self->buf.p + 5 * PAGE));
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->other, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(pipe_has(self->pipefd, 'f'));
	buffer_store(&self->buf, 5, '?');
	EXPECT_TRUE(pipe_has(self->pipefd, 'f'));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->other));
}

TEST_F(held, page_of_a_live_source_stays_with_the_source)
{
	buffer_store(&self->other, 5, '!');
	ASSERT_TRUE(pipe_hold(self->pipefd, self->other.p + 5 * PAGE));
	ASSERT_TRUE(pipe_hold(self->pipefd, self->other.p + 5 * PAGE));
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->other, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->other));
	buffer_store(&self->other, 5, '?');
	EXPECT_TRUE(pipe_has(self->pipefd, '?'));
	EXPECT_TRUE(buffer_ok(&self->buf));
	buffer_store(&self->buf, 5, '#');
	EXPECT_TRUE(pipe_has(self->pipefd, '?'));
	EXPECT_TRUE(buffer_ok(&self->other));
}

TEST_F(held, pages_of_both_stay_where_they_are)
{
	int other_pipe[2];

	ASSERT_EQ(0, pipe(other_pipe));
	buffer_store(&self->buf, 5, '1');
	buffer_store(&self->other, 5, '2');
	ASSERT_TRUE(pipe_hold(self->pipefd, self->buf.p + 5 * PAGE));
	ASSERT_TRUE(pipe_hold(other_pipe, self->other.p + 5 * PAGE));
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->other, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->other));
	buffer_store(&self->buf, 5, '3');
	buffer_store(&self->other, 5, '4');
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&self->other));
	EXPECT_TRUE(pipe_has(self->pipefd, '3'));
	EXPECT_TRUE(pipe_has(other_pipe, '4'));
	pipe_close(other_pipe);
}

TEST_F(held, page_of_a_source_that_is_gone_stays_as_it_was)
{
	ASSERT_TRUE(pipe_hold(self->pipefd, self->snap.p + 5 * PAGE));
	buffer_store(&self->buf, 5, '!');
	ASSERT_EQ(0, buffer_restore(&self->buf, &self->snap, variant->flags));
	buffer_close(&self->snap);
	buffer_store_all(&self->buf, '0');
	EXPECT_TRUE(pipe_has(self->pipefd, 'f'));
	EXPECT_TRUE(buffer_ok(&self->buf));
}

/* For a hole of the buffer there is no page to copy to: there has to be one. */
TEST_F(held, page_that_has_to_be_copied_at_the_limit_is_ENOSPC)
{
	struct buffer clone;

	NEED(LIMIT);
	ASSERT_TRUE(buffer_snapshot(&clone, &self->buf, COWMEM_WRITABLE));
	buffer_store(&clone, 3, '!');
	ASSERT_TRUE(pipe_hold(self->pipefd, clone.p + 3 * PAGE));
	ASSERT_EQ(0, cow_limit(self->buf.fd, PAGE));
	EXPECT_EQ(-ENOSPC, buffer_restore(&self->buf, &clone, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&clone));
	ASSERT_EQ(0, cow_limit(self->buf.fd, COWMEM_NO_LIMIT));
	EXPECT_EQ(0, buffer_restore(&self->buf, &clone, variant->flags));
	EXPECT_TRUE(buffer_ok(&self->buf));
	buffer_store(&clone, 3, '?');
	EXPECT_TRUE(pipe_has(self->pipefd, '?'));
	EXPECT_TRUE(buffer_ok(&self->buf));
	buffer_close(&clone);
}

/*
 * What it costs.  Nobody else runs here: the counts are exact.
 */

#define COST_NR		64UL
#define COST_SIZE	(COST_NR * PAGE)
#define COST_HOLE	20UL

FIXTURE(cost)
{
	int fd;
	char *p;
	int snap;
};

/* What the page has in the snapshot. */
static char cost_value(unsigned long index)
{
	return index == COST_HOLE ? 0 : index + 1;
}

static bool cost_restored(int fd)
{
	char data[PAGE];
	unsigned long i;

	for (i = 0; i < COST_NR; i++)
		if (pread(fd, data, PAGE, i * PAGE) != PAGE ||
		    !page_is(data, cost_value(i)))
			return false;
	return true;
}

static __attribute__((noinline)) long minor_faults(void)
{
	return cow_minor_faults();
}

/* Page faults, as the kernel counts them; those of the counting come before. */
static __attribute__((noinline)) long faults_of_loads(const char *p,
						      unsigned long nr)
{
	unsigned long i;
	long before;

	minor_faults();
	before = minor_faults();
	for (i = 0; i < nr; i++)
		(void)*(volatile const char *)(p + i * PAGE);
	return minor_faults() - before;
}

static __attribute__((noinline)) long faults_of_stores(char *p,
						       unsigned long nr,
						       char value)
{
	unsigned long i;
	long before;

	minor_faults();
	before = minor_faults();
	for (i = 0; i < nr; i++)
		*(volatile char *)(p + i * PAGE) = value;
	return minor_faults() - before;
}

FIXTURE_SETUP(cost)
{
	unsigned long i;
	char local;

	NEED(RESTORE);
	self->fd = cow_create_mapped(COST_SIZE, "cost", &self->p);
	ASSERT_GE(self->fd, 0);
	for (i = 0; i < COST_NR; i++)
		if (i != COST_HOLE)
			memset(self->p + i * PAGE, cost_value(i), PAGE);
	self->snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(self->snap, 0);
	/* All pages are mapped, and the code that counts. */
	faults_of_loads(self->p, COST_NR);
	faults_of_stores(&local, 1, 0);
	ASSERT_TRUE(cost_restored(self->fd));
}

FIXTURE_TEARDOWN(cost)
{
	munmap(self->p, COST_SIZE);
	close(self->fd);
	close(self->snap);
}

static long copied(int fd)
{
	return cow_stat(fd).copied;
}

TEST_F(cost, pages_restored_in_place_are_stored_to_without_a_fault)
{
	long before;
	int i;

	NEED(IN_PLACE);
	memset(self->p, '!', 16 * PAGE);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, cow_restore(self->fd, self->snap, COWMEM_IN_PLACE));
		EXPECT_TRUE(cost_restored(self->fd));
		before = copied(self->fd);
		EXPECT_EQ(0, faults_of_stores(self->p, 16, '?'));
		EXPECT_EQ(before, copied(self->fd));
		EXPECT_EQ('?', self->p[15 * PAGE]);
		EXPECT_TRUE(cost_restored(self->snap));
	}
}

TEST_F(cost, range_restored_in_place_is_stored_to_without_a_fault)
{
	long before;

	NEED(IN_PLACE);
	memset(self->p, '!', 16 * PAGE);
	ASSERT_EQ(0, cow_restore_range(self->fd, 4 * PAGE, self->snap, 4 * PAGE,
				       8 * PAGE, COWMEM_IN_PLACE));
	before = copied(self->fd);
	EXPECT_EQ(0, faults_of_stores(self->p + 4 * PAGE, 8, '?'));
	EXPECT_EQ(before, copied(self->fd));
	EXPECT_TRUE(cost_restored(self->snap));
}

TEST_F(cost, store_after_it_copies_exactly_once)
{
	long before;
	int i;

	memset(self->p, '!', 4 * PAGE);
	ASSERT_EQ(0, cow_restore(self->fd, self->snap, 0));
	before = copied(self->fd);
	for (i = 0; i < 4; i++) {
		self->p[i * PAGE] = '1';
		EXPECT_EQ(before + i + 1, copied(self->fd));
		self->p[i * PAGE] = '2';
		EXPECT_EQ(before + i + 1, copied(self->fd));
	}
	self->p[10 * PAGE] = '1';
	EXPECT_EQ(before + 5, copied(self->fd));
	EXPECT_TRUE(cost_restored(self->snap));
}

TEST_F(cost, pages_that_did_not_differ_stay_mapped)
{
	memset(self->p, '!', 4 * PAGE);
	ASSERT_EQ(0, cow_restore(self->fd, self->snap, 0));
	EXPECT_EQ(0, faults_of_loads(self->p + 4 * PAGE, COST_NR - 4));
	EXPECT_TRUE(cost_restored(self->fd));
	EXPECT_EQ(self->p[3 * PAGE], cost_value(3));
}

TEST_F(cost, pages_outside_of_the_range_stay_mapped)
{
	struct buffer other;

	ASSERT_TRUE(buffer_create(&other, NR));
	buffer_store_all(&other, 'A');
	ASSERT_EQ(0, cow_restore_range(self->fd, 8 * PAGE, other.fd, 0, SIZE, 0));
	EXPECT_EQ(0, faults_of_loads(self->p, 8));
	EXPECT_EQ(0, faults_of_loads(self->p + 8 * PAGE + SIZE,
				     COST_NR - 8 - NR));
	EXPECT_TRUE(page_is(self->p + 8 * PAGE, 'A'));
	buffer_close(&other);
}

/* From a frozen buffer, and from one that could be written but was not. */
static void expect_nothing_revoked(struct __test_metadata *_metadata,
				   FIXTURE_DATA(cost) *self, uint32_t flags)
{
	int clone = cow_snapshot(self->snap, COWMEM_WRITABLE);
	char *q = cow_map(clone, COST_SIZE, RW);

	ASSERT_NE(MAP_FAILED, q);
	faults_of_loads(q, COST_NR);
	EXPECT_EQ(0, faults_of_loads(self->p, COST_NR));
	ASSERT_EQ(0, cow_restore(self->fd, self->snap, flags));
	EXPECT_EQ(0, faults_of_loads(self->p, COST_NR));
	ASSERT_EQ(0, cow_restore(self->fd, clone, flags));
	EXPECT_EQ(0, faults_of_loads(self->p, COST_NR));
	EXPECT_EQ(0, faults_of_loads(q, COST_NR));
	ASSERT_EQ(0, cow_restore_range(self->fd, 5 * PAGE, clone, 5 * PAGE,
				       30 * PAGE, flags));
	EXPECT_EQ(0, faults_of_loads(self->p, COST_NR));
	EXPECT_EQ(0, faults_of_loads(q, COST_NR));
	EXPECT_TRUE(cost_restored(self->fd));
	munmap(q, COST_SIZE);
	close(clone);
}

TEST_F(cost, restore_of_equal_buffers_revokes_nothing)
{
	expect_nothing_revoked(_metadata, self, 0);
}

TEST_F(cost, restore_of_equal_buffers_in_place_revokes_nothing)
{
	NEED(IN_PLACE);
	expect_nothing_revoked(_metadata, self, COWMEM_IN_PLACE);
}

TEST_F(cost, second_restore_revokes_nothing)
{
	memset(self->p, '!', 4 * PAGE);
	ASSERT_EQ(0, cow_restore(self->fd, self->snap, 0));
	faults_of_loads(self->p, COST_NR);
	ASSERT_EQ(0, cow_restore(self->fd, self->snap, 0));
	EXPECT_EQ(0, faults_of_loads(self->p, COST_NR));
	EXPECT_TRUE(cost_restored(self->fd));
}

TEST_F(cost, rollback_frees_what_was_written)
{
	long pages = cow_param("pages");

	memset(self->p, '!', 16 * PAGE);
	EXPECT_EQ(pages + 16, cow_param("pages"));
	ASSERT_EQ(0, cow_restore(self->fd, self->snap, 0));
	EXPECT_EQ(pages, cow_param("pages"));
}

FIXTURE(rounds)
{
	int fd;
	char *p;
	int snap;
};

FIXTURE_VARIANT(rounds)
{
	bool range;
	uint32_t flags;
};

FIXTURE_VARIANT_ADD(rounds, whole) { };
FIXTURE_VARIANT_ADD(rounds, whole_in_place) { .flags = COWMEM_IN_PLACE };
FIXTURE_VARIANT_ADD(rounds, range) { .range = true };
FIXTURE_VARIANT_ADD(rounds, range_in_place) {
	.range = true, .flags = COWMEM_IN_PLACE,
};

FIXTURE_SETUP(rounds)
{
	unsigned long i;

	NEED_BITS(restore_features(variant->flags));
	self->fd = cow_create_mapped(COST_SIZE, "rounds", &self->p);
	ASSERT_GE(self->fd, 0);
	for (i = 0; i < COST_NR; i++)
		if (i != COST_HOLE)
			memset(self->p + i * PAGE, cost_value(i), PAGE);
	self->snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(self->snap, 0);
}

FIXTURE_TEARDOWN(rounds)
{
	munmap(self->p, COST_SIZE);
	close(self->fd);
	close(self->snap);
}

static int write_and_restore(FIXTURE_DATA(rounds) *self, bool range,
			     uint32_t flags)
{
	self->p[1 * PAGE] = '!';
	self->p[COST_HOLE * PAGE] = '!';
	self->p[40 * PAGE] = '!';
	if (range)
		return cow_restore_range(self->fd, PAGE, self->snap, PAGE,
					 COST_SIZE - PAGE, flags);
	return cow_restore(self->fd, self->snap, flags);
}

TEST_F(rounds, of_stores_and_restores_do_not_add_up)
{
	long pages = cow_param("pages"), nodes;
	int i;

	ASSERT_EQ(0, write_and_restore(self, variant->range, variant->flags));
	/* What has been copied back stays where it is. */
	if (variant->flags & COWMEM_IN_PLACE)
		pages = cow_param("pages");
	nodes = cow_param("nodes");
	for (i = 0; i < 200; i++)
		ASSERT_EQ(0, write_and_restore(self, variant->range,
					       variant->flags));
	EXPECT_EQ(pages, cow_param("pages"));
	EXPECT_EQ(nodes, cow_param("nodes"));
	EXPECT_EQ((COST_NR - 1) * PAGE, cow_stat(self->fd).resident);
	EXPECT_TRUE(cost_restored(self->fd));
	EXPECT_TRUE(cost_restored(self->snap));
}

/* The shortest of some restores of @nr pages, of which four were written. */
static double restore_seconds(unsigned long nr, uint32_t flags)
{
	int fd = cow_create(nr * PAGE, "seconds"), snap, i;
	char *p = cow_map(fd, nr * PAGE, RW);
	double best = 1e9, start, took;

	memset(p, 1, nr * PAGE);
	snap = cow_snapshot(fd, 0);
	for (i = 0; i < 20; i++) {
		faults_of_stores(p, 4, '!');
		start = seconds_now();
		if (cow_restore(fd, snap, flags))
			return -1;
		took = seconds_now() - start;
		if (took < best)
			best = took;
	}
	munmap(p, nr * PAGE);
	close(fd);
	close(snap);
	return best;
}

FIXTURE(seconds)
{
};

PLAIN_AND_IN_PLACE(seconds);

FIXTURE_SETUP(seconds)
{
	NEED_BITS(restore_features(variant->flags));
}

FIXTURE_TEARDOWN(seconds)
{
}

TEST_F(seconds, do_not_grow_with_the_size)
{
	double small = restore_seconds(64, variant->flags);
	double large = restore_seconds(4096, variant->flags);

	ASSERT_LT(0, small);
	ASSERT_LT(0, large);
	TH_LOG("64 pages: %.1f us, 4096 pages: %.1f us", small * 1e6,
	       large * 1e6);
	/* Only a check that it is not 64 times as long. */
	EXPECT_LT(large, 20 * small);
}

/*
 * What it refuses, without and with COWMEM_IN_PLACE.  @arg is valid; a test
 * spoils one thing of it.  A call that fails must have changed nothing: no
 * content, no counter, not the struct.
 */

FIXTURE(errors)
{
	struct buffer to, from;
	struct cowmem_restore arg;
	bool in_place;
	struct cowmem_stat before[2];
	long pages;
};

FIXTURE_SETUP(errors)
{
	NEED(RESTORE);
	self->in_place = !cow_missing(COWMEM_FEATURE_IN_PLACE);
	ASSERT_TRUE(buffer_create(&self->to, NR));
	buffer_fill(&self->to, 'a', 3);
	ASSERT_TRUE(buffer_create(&self->from, NR));
	buffer_fill(&self->from, 'A', 1);
	self->arg = (struct cowmem_restore) {
		.size = sizeof(self->arg), .source = self->from.fd,
		.offset = PAGE, .source_offset = 2 * PAGE, .length = 3 * PAGE,
	};
	self->before[0] = cow_stat(self->to.fd);
	self->before[1] = cow_stat(self->from.fd);
	self->pages = cow_param("pages");
}

FIXTURE_TEARDOWN(errors)
{
	buffer_close(&self->to);
	buffer_close(&self->from);
}

static bool stat_same(int fd, const struct cowmem_stat *before)
{
	struct cowmem_stat now = cow_stat(fd);

	return !memcmp(&now, before, sizeof(now));
}

/* Looks at nothing through a mapping, which would count as a fault. */
static bool nothing_changed(FIXTURE_DATA(errors) *self)
{
	return stat_same(self->to.fd, &self->before[0]) &&
	       stat_same(self->from.fd, &self->before[1]) &&
	       self->pages == cow_param("pages") &&
	       file_ok(&self->to) && holes_ok(&self->to) &&
	       file_ok(&self->from) && holes_ok(&self->from);
}

/* The error of the call on @fd, or 1 if something changed all the same. */
static int refused_with(FIXTURE_DATA(errors) *self, int fd, uint32_t flags)
{
	struct cowmem_restore arg = self->arg, before;
	int err;

	arg.flags |= flags;
	before = arg;
	err = cow_ioctl(fd, COWMEM_RESTORE, &arg);
	if (memcmp(&arg, &before, sizeof(arg)) || !nothing_changed(self))
		return 1;
	return err;
}

static int refused_on(FIXTURE_DATA(errors) *self, int fd)
{
	int err = refused_with(self, fd, 0);

	if (self->in_place && refused_with(self, fd, COWMEM_IN_PLACE) != err)
		return 1;
	return err;
}

static int refused(FIXTURE_DATA(errors) *self)
{
	return refused_on(self, self->to.fd);
}

/* The same with another source, which is closed then. */
static int refused_from(FIXTURE_DATA(errors) *self, int source)
{
	int err;

	self->arg.source = source;
	err = refused(self);
	close(source);
	return err;
}

/* Make it a call for the whole buffer. */
static void set_whole(FIXTURE_DATA(errors) *self)
{
	self->arg.offset = 0;
	self->arg.source_offset = 0;
	self->arg.length = 0;
}

TEST_F(errors, valid_call_is_taken)
{
	struct cowmem_restore arg = self->arg;

	EXPECT_EQ(0, cow_ioctl(self->to.fd, COWMEM_RESTORE, &arg));
	memcpy(self->to.want + 1, self->from.want + 2, 3);
	EXPECT_TRUE(buffer_ok(&self->to));
	EXPECT_TRUE(buffer_ok(&self->from));
}

TEST_F(errors, source_that_is_closed_is_EBADF)
{
	int fd = dup(self->from.fd);

	ASSERT_GE(fd, 0);
	close(fd);
	self->arg.source = fd;
	EXPECT_EQ(-EBADF, refused(self));
	set_whole(self);
	EXPECT_EQ(-EBADF, refused(self));
}

TEST_F(errors, source_that_can_be_no_fd_is_EBADF)
{
	self->arg.source = -1;
	EXPECT_EQ(-EBADF, refused(self));
	self->arg.source = INT32_MIN;
	EXPECT_EQ(-EBADF, refused(self));
	self->arg.source = INT32_MAX;
	EXPECT_EQ(-EBADF, refused(self));
}

TEST_F(errors, source_that_is_a_pipe_is_EBADF)
{
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	EXPECT_EQ(-EBADF, refused_from(self, fds[0]));
	close(fds[1]);
}

TEST_F(errors, source_that_is_another_device_is_EBADF)
{
	int fd = open("/dev/null", O_RDWR);

	ASSERT_GE(fd, 0);
	EXPECT_EQ(-EBADF, refused_from(self, fd));
}

TEST_F(errors, source_that_is_another_kind_of_memory_is_EBADF)
{
	int fd = memfd_create("source", MFD_CLOEXEC);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, SIZE));
	EXPECT_EQ(-EBADF, refused_from(self, fd));
	fd = memfd_create("source", MFD_CLOEXEC);
	ASSERT_GE(fd, 0);
	set_whole(self);
	EXPECT_EQ(-EBADF, refused_from(self, fd));
}

TEST_F(errors, source_that_is_only_a_path_is_EBADF)
{
	int fd = reopen(self->from.fd, O_PATH);

	ASSERT_GE(fd, 0);
	EXPECT_EQ(-EBADF, refused_from(self, fd));
}

TEST_F(errors, handle_that_cannot_write_is_EACCES)
{
	int fd = cow_file(self->to.fd, COWMEM_RDONLY);

	ASSERT_GE(fd, 0);
	EXPECT_EQ(-EACCES, refused_on(self, fd));
	set_whole(self);
	EXPECT_EQ(-EACCES, refused_on(self, fd));
	close(fd);
}

TEST_F(errors, source_that_cannot_be_read_is_EACCES)
{
	int fd = reopen(self->from.fd, O_WRONLY);

	ASSERT_GE(fd, 0);
	EXPECT_EQ(-EACCES, refused_from(self, fd));
	fd = reopen(self->from.fd, O_WRONLY);
	set_whole(self);
	EXPECT_EQ(-EACCES, refused_from(self, fd));
}

/* Its handle cannot write either: that it is frozen goes first. */
TEST_F(errors, frozen_buffer_is_EPERM)
{
	struct buffer snap;

	ASSERT_TRUE(buffer_snapshot(&snap, &self->to, 0));
	self->before[0] = cow_stat(self->to.fd);
	EXPECT_EQ(-EPERM, refused_on(self, snap.fd));
	set_whole(self);
	EXPECT_EQ(-EPERM, refused_on(self, snap.fd));
	self->arg.source = self->to.fd;
	EXPECT_EQ(-EPERM, refused_on(self, snap.fd));
	EXPECT_TRUE(buffer_ok(&snap));
	buffer_close(&snap);
}

static const uint64_t unaligned[] = { 1, 512, PAGE - 1, PAGE + 1, 3 * PAGE + 8 };

#define NR_UNALIGNED	(sizeof(unaligned) / sizeof(unaligned[0]))

TEST_F(errors, offset_not_aligned_is_EINVAL)
{
	unsigned int i;

	for (i = 0; i < NR_UNALIGNED; i++) {
		self->arg.offset = unaligned[i];
		EXPECT_EQ(-EINVAL, refused(self));
	}
}

TEST_F(errors, source_offset_not_aligned_is_EINVAL)
{
	unsigned int i;

	for (i = 0; i < NR_UNALIGNED; i++) {
		self->arg.source_offset = unaligned[i];
		EXPECT_EQ(-EINVAL, refused(self));
	}
}

TEST_F(errors, length_not_aligned_is_EINVAL)
{
	unsigned int i;

	for (i = 0; i < NR_UNALIGNED; i++) {
		self->arg.length = unaligned[i];
		EXPECT_EQ(-EINVAL, refused(self));
	}
}

TEST_F(errors, length_up_to_an_end_that_is_not_aligned_is_EINVAL)
{
	unsigned long i;

	ASSERT_EQ(0, ftruncate(self->to.fd, SIZE - 100));
	ASSERT_EQ(0, ftruncate(self->from.fd, SIZE - 100));
	self->before[0] = cow_stat(self->to.fd);
	self->before[1] = cow_stat(self->from.fd);
	set_whole(self);
	self->arg.length = SIZE - 100;
	EXPECT_EQ(-EINVAL, cow_ioctl(self->to.fd, COWMEM_RESTORE, &self->arg));
	self->arg.length = SIZE;
	EXPECT_EQ(-EINVAL, cow_ioctl(self->to.fd, COWMEM_RESTORE, &self->arg));
	EXPECT_TRUE(stat_same(self->to.fd, &self->before[0]));
	EXPECT_TRUE(stat_same(self->from.fd, &self->before[1]));
	for (i = 0; i < NR - 1; i++)
		EXPECT_TRUE(page_is(self->to.p + i * PAGE, self->to.want[i]));
}

TEST_F(errors, range_beyond_the_end_is_EINVAL)
{
	self->arg.offset = (NR - 2) * PAGE;
	EXPECT_EQ(-EINVAL, refused(self));
	self->arg.offset = SIZE;
	EXPECT_EQ(-EINVAL, refused(self));
	self->arg.offset = 1UL << 40;
	EXPECT_EQ(-EINVAL, refused(self));
}

TEST_F(errors, range_beyond_the_end_of_the_source_is_EINVAL)
{
	self->arg.source_offset = (NR - 2) * PAGE;
	EXPECT_EQ(-EINVAL, refused(self));
	self->arg.source_offset = SIZE;
	EXPECT_EQ(-EINVAL, refused(self));
	self->arg.source_offset = 1UL << 40;
	EXPECT_EQ(-EINVAL, refused(self));
}

TEST_F(errors, range_beyond_the_end_of_the_shorter_is_EINVAL)
{
	ASSERT_TRUE(buffer_resize(&self->from, 4));
	self->before[1] = cow_stat(self->from.fd);
	self->pages = cow_param("pages");
	EXPECT_EQ(-EINVAL, refused(self));
	ASSERT_TRUE(buffer_resize(&self->from, NR));
	ASSERT_TRUE(buffer_resize(&self->to, 3));
	self->before[0] = cow_stat(self->to.fd);
	self->before[1] = cow_stat(self->from.fd);
	self->pages = cow_param("pages");
	EXPECT_EQ(-EINVAL, refused(self));
}

TEST_F(errors, no_length_with_an_offset_is_EINVAL)
{
	set_whole(self);
	self->arg.offset = PAGE;
	EXPECT_EQ(-EINVAL, refused(self));
	self->arg.offset = SIZE;
	EXPECT_EQ(-EINVAL, refused(self));
}

TEST_F(errors, no_length_with_a_source_offset_is_EINVAL)
{
	set_whole(self);
	self->arg.source_offset = PAGE;
	EXPECT_EQ(-EINVAL, refused(self));
	self->arg.offset = PAGE;
	EXPECT_EQ(-EINVAL, refused(self));
}

TEST_F(errors, overlap_with_itself_is_EINVAL)
{
	int file = cow_file(self->to.fd, COWMEM_RDONLY);

	ASSERT_GE(file, 0);
	self->arg.source = self->to.fd;
	EXPECT_EQ(-EINVAL, refused(self));
	self->arg.source_offset = 0;
	EXPECT_EQ(-EINVAL, refused(self));
	self->arg.source_offset = self->arg.offset;
	EXPECT_EQ(-EINVAL, refused(self));
	self->arg.source = file;
	self->arg.source_offset = 3 * PAGE;
	EXPECT_EQ(-EINVAL, refused(self));
	close(file);
}

TEST_F(errors, offset_and_length_overflow_is_EINVAL)
{
	self->arg.offset = -2 * PAGE;
	EXPECT_EQ(-EINVAL, refused(self));
	self->arg.offset = -3 * PAGE;
	EXPECT_EQ(-EINVAL, refused(self));
	self->arg.offset = PAGE;
	self->arg.length = -PAGE;
	EXPECT_EQ(-EINVAL, refused(self));
	self->arg.source_offset = 0;
	self->arg.offset = 0;
	EXPECT_EQ(-EINVAL, refused(self));
}

TEST_F(errors, source_offset_and_length_overflow_is_EINVAL)
{
	self->arg.source_offset = -2 * PAGE;
	EXPECT_EQ(-EINVAL, refused(self));
	self->arg.source_offset = -3 * PAGE;
	EXPECT_EQ(-EINVAL, refused(self));
	self->arg.source_offset = 1UL << 63;
	self->arg.length = 1UL << 63;
	EXPECT_EQ(-EINVAL, refused(self));
}

TEST_F(errors, unknown_flag_is_EINVAL)
{
	unsigned int bit;

	for (bit = 0; bit < 32; bit++) {
		self->arg.flags = 1U << bit;
		if (self->arg.flags != COWMEM_IN_PLACE)
			EXPECT_EQ(-EINVAL, refused(self));
	}
}

TEST_F(errors, reserved_field_not_zero_is_EINVAL)
{
	self->arg.__reserved = 1;
	EXPECT_EQ(-EINVAL, refused(self));
	self->arg.__reserved = 1U << 31;
	EXPECT_EQ(-EINVAL, refused(self));
}

/*
 * While it runs.  In all of this a restore is at one moment: for everybody the
 * old content is gone before anybody sees the new.
 */

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/*
 * One thread stores to two pages in turn, first A, then B, each time a larger
 * number than ever before; another restores the buffer, again and again, to a
 * snapshot where both are 0.
 *
 * What a thread may conclude that only loads, through any mappings.  It saw a
 * number in a page, then 0 in the same page: so there was a restore between the
 * two loads.  What it had seen up to the first of them, in either page, had been
 * stored before that restore, and so had everything smaller, as the numbers
 * grow.  By now that is gone, everywhere and for ever: a number that is not
 * larger is old content, seen after the new.
 */
enum { A = 2, B = 9 };

struct witness {
	uint64_t seen;		/* largest number seen */
	uint64_t at[NR];	/* the same, when the page was last seen not 0 */
	uint64_t gone;		/* no number up to this one may be seen again */
	unsigned long stale;
};

static uint64_t witness_load(struct witness *witness, char *map,
			     unsigned long page)
{
	uint64_t value = atomic_load(page_word(map, page));

	if (!value) {
		witness->gone = later(witness->gone, witness->at[page]);
		return 0;
	}
	if (value <= witness->gone)
		witness->stale++;
	witness->seen = later(witness->seen, value);
	witness->at[page] = witness->seen;
	return value;
}

struct race {
	struct buffer buf, snap;
	char *other;			/* second mapping of the buffer */
	atomic_bool stop;
	atomic_ulong begun, ended;	/* restores */
	atomic_ulong stored;		/* largest number whose store is done */
	atomic_ulong passes;		/* of the observer */
	atomic_ulong stale, lost;
};

/* Let the observer see both pages as they are now, and let others run. */
static void wait_for_observer(struct race *race)
{
	unsigned long until = race->passes + 2;

	while (race->passes < until && !race->stop)
		sched_yield();
}

/*
 * With no restore from before the store until after the load, the load has to
 * find what was stored: else it went to a page that was no longer the buffer's.
 */
static void race_store(struct race *race, struct witness *witness,
		       unsigned long page, uint64_t value)
{
	unsigned long ended = race->ended, begun = race->begun;
	uint64_t found;

	atomic_store(page_word(race->buf.p, page), value);
	race->stored = value;
	found = witness_load(witness, race->other, page);
	if (begun == ended && begun == race->begun && found != value)
		race->lost++;
}

static void *race_writer(void *data)
{
	struct witness witness = { };
	struct race *race = data;
	uint64_t n;

	for (n = 1; !race->stop; n++) {
		race_store(race, &witness, A, 2 * n - 1);
		race_store(race, &witness, B, 2 * n);
		wait_for_observer(race);
	}
	race->stale += witness.stale;
	return NULL;
}

static void *race_observer(void *data)
{
	struct witness witness = { };
	struct race *race = data;

	while (!race->stop) {
		witness_load(&witness, race->buf.p, A);
		witness_load(&witness, race->other, B);
		witness_load(&witness, race->other, A);
		witness_load(&witness, race->buf.p, B);
		race->passes++;
	}
	race->stale += witness.stale;
	return NULL;
}

/* What was stored before the call is gone when it returns. */
static int race_restore(struct race *race, struct witness *witness)
{
	uint64_t stored = race->stored;
	int err;

	race->begun++;
	err = cow_restore(race->buf.fd, race->snap.fd, 0);
	race->ended++;
	witness->gone = later(witness->gone, stored);
	witness_load(witness, race->buf.p, B);
	witness_load(witness, race->other, A);
	return err;
}

/* Against stores in progress, and against loads of what is there for a while. */
static int race_restorer(struct race *race, int rounds)
{
	struct witness witness = { };
	unsigned long stored = 0;
	int i, err = 0;

	for (i = 0; i < rounds && !err; i++) {
		while (race->stored == stored)
			sched_yield();
		if (i % 2)
			wait_for_observer(race);
		stored = race->stored;
		err = race_restore(race, &witness);
	}
	race->stale += witness.stale;
	return err;
}

/* As at the snapshot. */
static bool race_is_over(char *map)
{
	return page_is(map + A * PAGE, 0) && !atomic_load(page_word(map, B)) &&
	       atomic_load(page_word(map, B) + 1) == 1;
}

TEST(nobody_sees_old_content_after_new_while_both_are_stored_to)
{
	pthread_t writer, observer;
	struct race race = { };

	NEED(RESTORE);
	ASSERT_TRUE(buffer_create(&race.buf, NR));
	/* In the snapshot A is a hole, B is not. */
	atomic_store(page_word(race.buf.p, B) + 1, 1);
	ASSERT_TRUE(buffer_snapshot(&race.snap, &race.buf, 0));
	race.other = cow_map(race.buf.fd, MAX_SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, race.other);
	ASSERT_EQ(0, pthread_create(&observer, NULL, race_observer, &race));
	ASSERT_EQ(0, pthread_create(&writer, NULL, race_writer, &race));
	EXPECT_EQ(0, race_restorer(&race, 200));
	race.stop = true;
	pthread_join(writer, NULL);
	pthread_join(observer, NULL);

	TH_LOG("%lu stores", race.stored);
	EXPECT_EQ(0, race.stale);
	EXPECT_EQ(0, race.lost);
	EXPECT_GE(race.stored, 200);
	EXPECT_TRUE(race_is_over(race.snap.p));
	ASSERT_EQ(0, cow_restore(race.buf.fd, race.snap.fd, 0));
	EXPECT_TRUE(race_is_over(race.buf.p));
	EXPECT_TRUE(race_is_over(race.other));
	munmap(race.other, MAX_SIZE);
	buffer_close(&race.buf);
	buffer_close(&race.snap);
}

/*
 * A buffer is restored to ever newer versions: all pages of version n begin with
 * n.  Through a mapping, whatever page is loaded next is never of an older
 * version than one loaded before.  In a read(), no page is of an older version
 * than the page before it.
 */

#define VERSIONS	100

struct versions {
	atomic_bool stop;
	atomic_ulong passes;
	atomic_ulong newest;	/* version seen */
	atomic_ulong wrong;
};

/* Load from each page, in an order that is not that of the pages. */
static void watch_pages(char *map, struct versions *versions, uint64_t *newest)
{
	unsigned long i, page = 0;
	uint64_t value;

	for (i = 0; i < NR; i++) {
		page = (page + 5) % NR;
		value = atomic_load(page_word(map, page));
		if (value < *newest)
			versions->wrong++;
		*newest = later(value, *newest);
	}
	versions->newest = *newest;
}

static void watch_mapping(int fd, struct versions *versions)
{
	static uint64_t newest;
	static char *map;

	if (!map)
		map = cow_map(fd, SIZE, PROT_READ);
	watch_pages(map, versions, &newest);
}

static void watch_new_mapping(int fd, struct versions *versions)
{
	static uint64_t newest;
	char *map = cow_map(fd, SIZE, PROT_READ);

	watch_pages(map, versions, &newest);
	munmap(map, SIZE);
}

static void watch_read(int fd, struct versions *versions)
{
	uint64_t data[SIZE / sizeof(uint64_t)];
	unsigned long i;

	if (pread(fd, data, SIZE, 0) != SIZE)
		versions->wrong++;
	for (i = 1; i < NR; i++)
		if (*page_word((char *)data, i) <
		    *page_word((char *)data, i - 1))
			versions->wrong++;
	versions->newest = *page_word((char *)data, NR - 1);
}

FIXTURE(versions)
{
	struct buffer to, from;
	struct versions *shared;
	int pipe[2];
};

/* @held: a page in the middle is pinned, so it stays and gets the content. */
FIXTURE_VARIANT(versions)
{
	void (*watch)(int fd, struct versions *versions);
	bool held;
};

FIXTURE_VARIANT_ADD(versions, mapping) { .watch = watch_mapping };
FIXTURE_VARIANT_ADD(versions, new_mapping) { .watch = watch_new_mapping };
FIXTURE_VARIANT_ADD(versions, read) { .watch = watch_read };
FIXTURE_VARIANT_ADD(versions, mapping_of_held) {
	.watch = watch_mapping, .held = true,
};
FIXTURE_VARIANT_ADD(versions, read_of_held) {
	.watch = watch_read, .held = true,
};

FIXTURE_SETUP(versions)
{
	NEED(RESTORE);
	ASSERT_TRUE(buffer_create(&self->to, NR));
	ASSERT_TRUE(buffer_create(&self->from, NR));
	self->shared = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->shared);
	if (variant->held) {
		self->to.p[NR / 2 * PAGE] = 0;
		ASSERT_EQ(0, pipe(self->pipe));
		ASSERT_TRUE(pipe_hold(self->pipe, self->to.p + NR / 2 * PAGE));
	}
}

FIXTURE_TEARDOWN(versions)
{
	if (variant->held)
		pipe_close(self->pipe);
	buffer_close(&self->to);
	buffer_close(&self->from);
	munmap(self->shared, PAGE);
}

static bool restore_version(FIXTURE_DATA(versions) *self, uint64_t n)
{
	unsigned long i, until;

	for (i = 0; i < NR; i++)
		atomic_store(page_word(self->from.p, i), n);
	if (cow_restore(self->to.fd, self->from.fd, 0))
		return false;
	/* One pass may have begun before. */
	until = self->shared->passes + 2;
	while (self->shared->passes < until && !self->shared->wrong)
		sched_yield();
	return !self->shared->wrong;
}

TEST_F(versions, newer_is_never_followed_by_older)
{
	pid_t pid = child_start();
	uint64_t n = 0;
	int status = -1;

	if (!pid) {
		for (; !self->shared->stop; self->shared->passes++)
			variant->watch(self->to.fd, self->shared);
		_exit(0);
	}
	while (n < VERSIONS && restore_version(self, n + 1))
		n++;
	self->shared->stop = true;
	waitpid(pid, &status, 0);
	EXPECT_EQ(0, status);
	EXPECT_EQ(0, self->shared->wrong);
	EXPECT_EQ(VERSIONS, n);
	EXPECT_EQ(VERSIONS, self->shared->newest);
}

/*
 * A source that is stored to all the time, to A and then to B: the buffer
 * becomes what the source was at one moment of the call.  And the writer finds
 * what it stored last, and nothing of what is stored to the buffer.
 */

struct count {
	struct buffer to, from;
	atomic_bool stop;
	atomic_ulong foreign;
};

static void *count_up(void *data)
{
	struct count *count = data;
	char *map = count->from.p;
	uint64_t n;

	for (n = 1; !count->stop; n++) {
		if (atomic_load(page_word(map, A)) != n - 1 ||
		    atomic_load(page_word(map, B)) != n - 1)
			count->foreign++;
		atomic_store(page_word(map, A), n);
		atomic_store(page_word(map, B), n);
	}
	return NULL;
}

/* Restore from the source, then let it go on. */
static bool cut_is_consistent(struct count *count)
{
	uint64_t before = atomic_load(page_word(count->from.p, B)), a, b;

	if (cow_restore(count->to.fd, count->from.fd, 0))
		return false;
	a = atomic_load(page_word(count->to.p, A));
	b = atomic_load(page_word(count->to.p, B));
	atomic_store(page_word(count->to.p, A), UINT64_MAX);
	while (atomic_load(page_word(count->from.p, B)) <= b)
		sched_yield();
	return b >= before && (a == b || a == b + 1) &&
	       atomic_load(page_word(count->to.p, A)) == UINT64_MAX &&
	       atomic_load(page_word(count->to.p, B)) == b;
}

TEST(source_is_cut_at_one_moment)
{
	struct count count = { };
	pthread_t writer;
	int i, bad = 0;

	NEED(RESTORE);
	ASSERT_TRUE(buffer_create(&count.to, NR));
	ASSERT_TRUE(buffer_create(&count.from, NR));
	ASSERT_EQ(0, pthread_create(&writer, NULL, count_up, &count));
	for (i = 0; i < 200; i++)
		bad += !cut_is_consistent(&count);
	count.stop = true;
	pthread_join(writer, NULL);
	EXPECT_EQ(0, bad);
	EXPECT_EQ(0, count.foreign);
	buffer_close(&count.to);
	buffer_close(&count.from);
}

/* Restores from one after the other, @rounds times or until it is to stop. */
struct restorer {
	int to, from[2];
	unsigned int flags;
	int rounds;
	atomic_bool stop;
	int failed;
};

static void *restore_in_turn(void *data)
{
	struct restorer *restorer = data;
	int i;

	for (i = 0; i < restorer->rounds && !restorer->stop; i++)
		restorer->failed += !!cow_restore(restorer->to,
						  restorer->from[i % 2],
						  restorer->flags);
	return NULL;
}

/* A buffer whose bytes are all @value. */
static int uniform_buffer(char value)
{
	int fd = cow_create(SIZE, "uniform");
	char data[SIZE];

	memset(data, value, SIZE);
	return pwrite(fd, data, SIZE, 0) == SIZE ? fd : -1;
}

static bool is_uniform(int fd)
{
	char data[SIZE];

	return pread(fd, data, SIZE, 0) == SIZE && data[0] &&
	       !memcmp(data, data + 1, SIZE - 1);
}

/* How many of a hundred snapshots have a part of one, or -1. */
static int torn_snapshots(unsigned int flags)
{
	struct restorer restorer = {
		.to = uniform_buffer('x'),
		.from = { uniform_buffer('y'), uniform_buffer('z') },
		.flags = flags,
		.rounds = INT32_MAX,
	};
	int i, snap, torn = 0;
	pthread_t thread;

	if (pthread_create(&thread, NULL, restore_in_turn, &restorer))
		return -1;
	for (i = 0; i < 100; i++) {
		snap = cow_snapshot(restorer.to, 0);
		torn += !is_uniform(snap);
		close(snap);
	}
	restorer.stop = true;
	pthread_join(thread, NULL);
	if (restorer.failed || !is_uniform(restorer.from[0]) ||
	    !is_uniform(restorer.from[1]))
		torn = -1;
	close(restorer.to);
	close(restorer.from[0]);
	close(restorer.from[1]);
	return torn;
}

TEST(no_snapshot_has_a_part_of_it)
{
	NEED(RESTORE);
	EXPECT_EQ(0, torn_snapshots(0));
}

TEST(no_snapshot_has_a_part_of_it_in_place)
{
	NEED(IN_PLACE);
	EXPECT_EQ(0, torn_snapshots(COWMEM_IN_PLACE));
}

/*
 * Each is the other's source, in turn with a snapshot of its own, so that there
 * is always something to do; last of all the other.  No deadlock, no mixture.
 */
TEST(two_buffers_become_each_other_at_the_same_time)
{
	int x = uniform_buffer('x'), x_snap = cow_snapshot(x, 0);
	int y = uniform_buffer('y'), y_snap = cow_snapshot(y, 0), i;
	struct restorer restorers[2] = {
		{ .to = x, .from = { y, x_snap }, .rounds = 201 },
		{ .to = y, .from = { x, y_snap }, .rounds = 201 },
	};
	pthread_t threads[2];

	NEED(RESTORE);
	ASSERT_GE(x_snap, 0);
	ASSERT_GE(y_snap, 0);
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, restore_in_turn,
					    &restorers[i]));
	for (i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		EXPECT_EQ(0, restorers[i].failed);
	}
	EXPECT_TRUE(is_uniform(x));
	EXPECT_TRUE(is_uniform(y));
	EXPECT_TRUE(is_uniform(x_snap));
	EXPECT_TRUE(is_uniform(y_snap));
	close(x);
	close(y);
	close(x_snap);
	close(y_snap);
}

TEST_HARNESS_MAIN
