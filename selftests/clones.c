// SPDX-License-Identifier: GPL-2.0
/*
 * Clones and transfers, case by case: what the test suites of Zircon for clones
 * of virtual memory objects and for moving pages between them show, shown anew
 * for buffers.  The name of the case stands behind each test.  A snapshot child
 * is a writable snapshot here, one with an offset that of a range; a transfer is
 * a RESTORE of a range, or FICLONERANGE, and then a hole where the pages were.
 *
 * After every step all buffers are compared with a model: what each page has,
 * read and, in half of the tests, mapped; what STAT says of each buffer; what
 * the shares of all add up to; and how many pages the module holds.
 *
 * Cases without a meaning here:
 *
 *	ForbidContiguousVmo	no buffer promises contiguous memory
 *	NoPhysical		no buffer is made of memory that exists already
 *	NoSnapshotPager		no buffer is filled by somebody in user space
 *	Uncached		all mappings are cached
 *	ResizeTest of a contiguous object (part of ResizeChild, ResizeOriginal)
 *
 * Cases whose answer is another one here:
 *
 *	Offset, Overflow, OutOfBounds and others that clone beyond the end of the
 *				parent: EINVAL; the same is had by growing
 *	Children, ManyChildren	there is no count of clones and no signal: that
 *				all pages are private again says that none is left
 *	PinBeforeCreateFailure	not refused: the pinned page is copied
 *	SnapshotAtLeastOnWriteSliceInChain, ChildSlice, ReferenceChild
 *				there is one kind of clone; what is another view of
 *				the same object there is a second file or a mapping
 *	SameSrcAndDst		ranges that overlap: EINVAL
 *
 * COWMEM_CLONES_ROUNDS is the number of rounds of each of the two races (1,000,
 * as in Zircon).
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include <linux/fs.h>

#include "common.h"
#include "harness.h"
#include "util.h"

#define HALF		(PAGE / 2)
#define MAX_PAGES	6UL
#define MAX_SIZE	(MAX_PAGES * PAGE)

enum { ORIGIN, CLONE, SECOND, THIRD, FOURTH, FIFTH, NR_BUFFERS };

/*
 * The model
 */

/* One page of a buffer.  Each half of it has one value all over. */
struct slot {
	int page;	/* the same number: the same page; 0: a hole */
	char head, tail;
};

struct buffer {
	int fd;		/* -1: there is none */
	char *p;	/* mapping of MAX_SIZE, or NULL */
	unsigned long nr;	/* pages */
	struct slot slots[MAX_PAGES];
};

struct world {
	struct buffer buf[NR_BUFFERS];
	bool mapped;
	int last_page;
	long pages, nodes;	/* that the module held before */
};

static void world_begin(struct world *w, bool mapped)
{
	int i;

	*w = (struct world) {
		.mapped = mapped,
		.pages = cow_param("pages"),
		.nodes = cow_param("nodes"),
	};
	for (i = 0; i < NR_BUFFERS; i++)
		w->buf[i].fd = -1;
}

/* How often a page is reached, from all buffers together. */
static unsigned int nr_places(const struct world *w, int page)
{
	unsigned int i, nr = 0;
	unsigned long k;

	for (i = 0; i < NR_BUFFERS; i++)
		for (k = 0; k < w->buf[i].nr; k++)
			nr += w->buf[i].slots[k].page == page;
	return nr;
}

static long nr_pages(const struct world *w)
{
	long nr = 0;
	int page;

	for (page = 1; page <= w->last_page; page++)
		nr += nr_places(w, page) > 0;
	return nr;
}

static bool complain(const struct buffer *buf, const char *what, long is,
		     long want)
{
	fprintf(stderr, "# fd %d: %s is %ld, not %ld\n", buf ? buf->fd : -1,
		what, is, want);
	return false;
}

static bool half_is(const char *half, char value)
{
	return half[0] == value && !memcmp(half, half + 1, HALF - 1);
}

static bool pages_ok(const struct buffer *buf, const char *data,
		     const char *where)
{
	const struct slot *slot;
	unsigned long i;

	for (i = 0; i < buf->nr; i++) {
		slot = &buf->slots[i];
		if (!half_is(data + i * PAGE, slot->head))
			return complain(buf, where, data[i * PAGE], slot->head);
		if (!half_is(data + i * PAGE + HALF, slot->tail))
			return complain(buf, where, data[i * PAGE + HALF],
					slot->tail);
	}
	return true;
}

static bool content_ok(const struct buffer *buf)
{
	char data[MAX_SIZE + 1];
	ssize_t size = pread(buf->fd, data, sizeof(data), 0);

	if (size != buf->nr * PAGE)
		return complain(buf, "bytes read", size, buf->nr * PAGE);
	return pages_ok(buf, data, "byte read") &&
	       (!buf->p || pages_ok(buf, buf->p, "byte mapped"));
}

/*
 * Exact but for pages that are reached from more than two places: how such a
 * page is split depends on who shares the index above it.  Nobody has more than
 * half of it.
 */
static bool sharing_ok(const struct world *w, const struct buffer *buf,
		       const struct cowmem_stat *stat)
{
	uint64_t private = 0, least = 0, most = 0;
	unsigned int places;
	unsigned long i;

	for (i = 0; i < buf->nr; i++) {
		if (!buf->slots[i].page)
			continue;
		places = nr_places(w, buf->slots[i].page);
		private += places == 1 ? PAGE : 0;
		least += places <= 2 ? PAGE / places : PAGE >> (places - 1);
		most += places <= 2 ? PAGE / places : PAGE / 2;
	}
	if (stat->exclusive != private)
		return complain(buf, "private", stat->exclusive, private);
	if (stat->proportional < least)
		return complain(buf, "proportional", stat->proportional, least);
	if (stat->proportional > most)
		return complain(buf, "proportional", stat->proportional, most);
	return true;
}

/* A page that is twice in the buffer may count once or twice as resident. */
static bool resident_ok(const struct buffer *buf,
			const struct cowmem_stat *stat)
{
	unsigned long i, k, all = 0, different = 0;

	for (i = 0; i < buf->nr; i++) {
		if (!buf->slots[i].page)
			continue;
		for (k = 0; buf->slots[k].page != buf->slots[i].page; k++)
			;
		all++;
		different += k == i;
	}
	if (stat->resident < different * PAGE)
		return complain(buf, "resident", stat->resident, different * PAGE);
	if (stat->resident > all * PAGE)
		return complain(buf, "resident", stat->resident, all * PAGE);
	return true;
}

static bool buffer_ok(const struct world *w, const struct buffer *buf,
		      uint64_t *proportional)
{
	struct cowmem_stat stat = cow_sharing(buf->fd);

	*proportional += stat.proportional;
	if (stat.length != buf->nr * PAGE)
		return complain(buf, "length", stat.length, buf->nr * PAGE);
	return content_ok(buf) && resident_ok(buf, &stat) &&
	       sharing_ok(w, buf, &stat);
}

/* Everything is as the model says. */
static bool world_ok(const struct world *w)
{
	long held = cow_param("pages") - w->pages, pages = nr_pages(w);
	uint64_t sum = 0, places = 0;
	int i;

	for (i = 0; i < NR_BUFFERS; i++) {
		if (w->buf[i].fd < 0)
			continue;
		if (!buffer_ok(w, &w->buf[i], &sum))
			return false;
		places += w->buf[i].nr;
	}
	if (held != pages)
		return complain(NULL, "number of pages", held, pages);
	/* Each share may have been rounded down. */
	if (sum > pages * PAGE || sum + places < pages * PAGE)
		return complain(NULL, "sum of shares", sum, pages * PAGE);
	return true;
}

/*
 * Steps.  Each is made in the kernel and in the model, which then are compared.
 */

static bool add(struct world *w, int i, int fd, int prot)
{
	struct buffer *buf = &w->buf[i];

	buf->fd = fd;
	if (fd >= 0 && w->mapped)
		buf->p = cow_map(fd, MAX_SIZE, prot);
	return fd >= 0 && buf->p != MAP_FAILED;
}

static bool make(struct world *w, int i, unsigned long nr)
{
	w->buf[i].nr = nr;
	return add(w, i, cow_create(nr * PAGE, "clones"), RW) && world_ok(w);
}

/* Page number k has the value @first + k. */
static bool make_filled(struct world *w, int i, unsigned long nr, char first)
{
	struct buffer *buf = &w->buf[i];
	char data[MAX_SIZE];
	unsigned long k;

	for (k = 0; k < nr; k++) {
		memset(data + k * PAGE, first + k, PAGE);
		buf->slots[k] = (struct slot) {
			++w->last_page, first + k, first + k,
		};
	}
	buf->nr = nr;
	if (!add(w, i, cow_create(nr * PAGE, "clones"), RW))
		return false;
	if (buf->p)
		memcpy(buf->p, data, nr * PAGE);
	else if (pwrite(buf->fd, data, nr * PAGE, 0) != nr * PAGE)
		return false;
	return world_ok(w);
}

static bool snapshot_range(struct world *w, int to, int from, uint32_t flags,
			   unsigned long first, unsigned long nr)
{
	struct buffer *origin = &w->buf[from], *buf = &w->buf[to];
	bool whole = first == 0 && nr == origin->nr;

	memset(buf->slots, 0, sizeof(buf->slots));
	memcpy(buf->slots, origin->slots + first, nr * sizeof(buf->slots[0]));
	buf->nr = nr;
	return add(w, to,
		   whole ? cow_snapshot(origin->fd, flags) :
			   cow_snapshot_range(origin->fd, flags, first * PAGE,
					      nr * PAGE),
		   flags ? RW : PROT_READ);
}

static bool clone_range(struct world *w, int to, int from, unsigned long first,
			unsigned long nr)
{
	return snapshot_range(w, to, from, COWMEM_WRITABLE, first, nr) &&
	       world_ok(w);
}

static bool clone_whole(struct world *w, int to, int from)
{
	return clone_range(w, to, from, 0, w->buf[from].nr);
}

static bool freeze(struct world *w, int to, int from)
{
	return snapshot_range(w, to, from, 0, 0, w->buf[from].nr) && world_ok(w);
}

static void drop_quietly(struct world *w, int i)
{
	struct buffer *buf = &w->buf[i];

	if (buf->p)
		munmap(buf->p, MAX_SIZE);
	close(buf->fd);
	*buf = (struct buffer) { .fd = -1 };
}

static bool drop(struct world *w, int i)
{
	drop_quietly(w, i);
	return world_ok(w);
}

static bool drop_all(struct world *w)
{
	int i;

	for (i = 0; i < NR_BUFFERS; i++)
		if (w->buf[i].fd >= 0 && !drop(w, i))
			return false;
	return true;
}

static bool resize(struct world *w, int i, unsigned long nr)
{
	struct buffer *buf = &w->buf[i];

	if (nr < buf->nr)
		memset(buf->slots + nr, 0, (buf->nr - nr) * sizeof(buf->slots[0]));
	buf->nr = nr;
	return !ftruncate(buf->fd, nr * PAGE) && world_ok(w);
}

static bool punch(struct world *w, int i, unsigned long first, unsigned long nr)
{
	struct buffer *buf = &w->buf[i];

	memset(buf->slots + first, 0, nr * sizeof(buf->slots[0]));
	return !fallocate(buf->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  first * PAGE, nr * PAGE) && world_ok(w);
}

static bool by_write(struct buffer *buf, unsigned long index, char value)
{
	char data[HALF];

	memset(data, value, HALF);
	return pwrite(buf->fd, data, HALF, index * PAGE) == HALF;
}

static bool by_store(struct buffer *buf, unsigned long index, char value)
{
	char *p = buf->p ? buf->p : cow_map(buf->fd, MAX_SIZE, RW);

	if (p == MAP_FAILED)
		return false;
	memset(p + index * PAGE, value, HALF);
	if (!buf->p)
		munmap(p, MAX_SIZE);
	return true;
}

/* Only the first half of the page, so that a copy has to bring the other. */
static bool put_by(struct world *w, int i, unsigned long index, char value,
		   bool (*by)(struct buffer *buf, unsigned long index, char value))
{
	struct slot *slot = &w->buf[i].slots[index];

	if (!slot->page || nr_places(w, slot->page) > 1)
		slot->page = ++w->last_page;
	slot->head = value;
	return by(&w->buf[i], index, value) && world_ok(w);
}

static bool put(struct world *w, int i, unsigned long index, char value)
{
	return put_by(w, i, index, value, w->mapped ? by_store : by_write);
}

static uint64_t share_of(const struct world *w, int i)
{
	return cow_sharing(w->buf[i].fd).proportional;
}

static uint64_t private_of(const struct world *w, int i)
{
	return cow_sharing(w->buf[i].fd).exclusive;
}

/*
 * Helpers that have nothing to do with the model
 */

static bool pipe_drain(int pipefd[2], char *page)
{
	return read(pipefd[0], page, PAGE) == PAGE;
}

FIXTURE(clone)
{
	struct world world;
};

FIXTURE_VARIANT(clone)
{
	bool mapped;
};

FIXTURE_VARIANT_ADD(clone, file) { .mapped = false };
FIXTURE_VARIANT_ADD(clone, mapping) { .mapped = true };

FIXTURE_SETUP(clone)
{
	NEED(RANGE);
	NEED(SHARING);
	world_begin(&self->world, variant->mapped);
}

FIXTURE_TEARDOWN(clone)
{
	struct world *w = &self->world;

	EXPECT_TRUE(drop_all(w));
	EXPECT_EQ(w->pages, cow_param("pages"));
	EXPECT_EQ(w->nodes, cow_param("nodes"));
}

/*
 * One page, two buffers
 */

TEST_F(clone, has_an_id_of_its_own_and_the_account_of_its_origin) /* Zircon: Info */
{
	struct world *w = &self->world;
	struct cowmem_stat before, after, clone, frozen;

	ASSERT_TRUE(make(w, ORIGIN, 1));
	before = cow_stat(w->buf[ORIGIN].fd);
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	ASSERT_TRUE(freeze(w, SECOND, ORIGIN));
	after = cow_stat(w->buf[ORIGIN].fd);
	clone = cow_stat(w->buf[CLONE].fd);
	frozen = cow_stat(w->buf[SECOND].fd);

	EXPECT_EQ(before.id, after.id);
	EXPECT_NE(before.id, clone.id);
	EXPECT_NE(before.id, frozen.id);
	EXPECT_NE(clone.id, frozen.id);
	EXPECT_EQ(before.account, after.account);
	EXPECT_EQ(before.account, clone.account);
	EXPECT_EQ(before.account, frozen.account);
	EXPECT_EQ(0, before.state);
	EXPECT_EQ(0, after.state);
	EXPECT_EQ(0, clone.state);
	EXPECT_EQ(COWMEM_STATE_FROZEN, frozen.state);
	EXPECT_EQ(0, before.snapshots);
	EXPECT_EQ(2, after.snapshots);
	EXPECT_EQ(0, clone.snapshots);
}

TEST_F(clone, reads_what_its_origin_has) /* Zircon: Read */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 1, 'a'));
	EXPECT_TRUE(clone_whole(w, CLONE, ORIGIN));
	EXPECT_TRUE(freeze(w, SECOND, ORIGIN));
	EXPECT_TRUE(clone_whole(w, THIRD, SECOND));
}

TEST_F(clone, is_written_alone) /* Zircon: CloneVmoWrite */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 1, 'a'));
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	EXPECT_TRUE(put_by(w, CLONE, 0, '1', by_write));
}

TEST_F(clone, does_not_see_its_origin_written) /* Zircon: ParentVmoWrite */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 1, 'a'));
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	EXPECT_TRUE(put_by(w, ORIGIN, 0, '1', by_write));
}

TEST_F(clone, is_stored_to_alone) /* Zircon: CloneVmarWrite */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 1, 'a'));
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	EXPECT_TRUE(put_by(w, CLONE, 0, '1', by_store));
}

TEST_F(clone, does_not_see_its_origin_stored_to) /* Zircon: ParentVmarWrite */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make(w, ORIGIN, 1));
	ASSERT_TRUE(put_by(w, ORIGIN, 0, 'a', by_store));
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	EXPECT_TRUE(put_by(w, ORIGIN, 0, '1', by_store));
}

TEST_F(clone, outlives_its_origin_and_owns_all) /* Zircon: CloseOriginal */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 1, 'a'));
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	EXPECT_EQ(0, private_of(w, CLONE));
	EXPECT_TRUE(drop(w, ORIGIN));
	EXPECT_EQ(PAGE, private_of(w, CLONE));
	EXPECT_TRUE(put(w, CLONE, 0, '1'));
}

TEST_F(clone, that_is_closed_leaves_its_origin_all) /* Zircon: CloseClone */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 1, 'a'));
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	EXPECT_EQ(0, private_of(w, ORIGIN));
	EXPECT_TRUE(drop(w, CLONE));
	EXPECT_EQ(PAGE, private_of(w, ORIGIN));
	EXPECT_TRUE(put(w, ORIGIN, 0, '1'));
}

TEST_F(clone, halves_what_it_shares_and_owns_what_it_wrote) /* Zircon: ObjMemAccounting */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 2, 'a'));
	EXPECT_EQ(2 * PAGE, share_of(w, ORIGIN));
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	EXPECT_EQ(PAGE, share_of(w, ORIGIN));
	EXPECT_EQ(PAGE, share_of(w, CLONE));
	EXPECT_EQ(0, private_of(w, ORIGIN));

	ASSERT_TRUE(put(w, ORIGIN, 0, '1'));
	EXPECT_EQ(3 * PAGE / 2, share_of(w, ORIGIN));
	EXPECT_EQ(3 * PAGE / 2, share_of(w, CLONE));
	EXPECT_EQ(PAGE, private_of(w, CLONE));

	ASSERT_TRUE(put(w, CLONE, 1, '2'));
	EXPECT_EQ(2 * PAGE, share_of(w, ORIGIN));
	EXPECT_EQ(2 * PAGE, share_of(w, CLONE));

	/* Nothing is shared any more. */
	ASSERT_TRUE(put(w, ORIGIN, 1, '3'));
	ASSERT_TRUE(put(w, CLONE, 0, '4'));
	EXPECT_EQ(2 * PAGE, share_of(w, ORIGIN));
	EXPECT_EQ(2 * PAGE, private_of(w, CLONE));
	EXPECT_EQ(w->pages + 4, cow_param("pages"));
}

TEST_F(clone, of_a_hole_costs_one_page_where_it_is_written) /* Zircon: ZeroPageWrite */
{
	struct world *w = &self->world;
	int i;

	ASSERT_TRUE(make(w, ORIGIN, 1));
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	ASSERT_TRUE(clone_whole(w, SECOND, ORIGIN));
	ASSERT_TRUE(clone_whole(w, THIRD, CLONE));
	for (i = ORIGIN; i <= THIRD; i++) {
		EXPECT_TRUE(put(w, i, 0, '1' + i));
		EXPECT_EQ(w->pages + i + 1, cow_param("pages"));
		EXPECT_EQ(0, cow_stat(w->buf[i].fd).copied);
	}
}

TEST_F(clone, of_a_clone_keeps_what_it_wrote_as_others_close) /* Zircon: SplitPageClosure */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 1, 'a'));
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	ASSERT_TRUE(clone_whole(w, SECOND, CLONE));
	ASSERT_TRUE(put(w, CLONE, 0, '1'));
	ASSERT_TRUE(put(w, SECOND, 0, '2'));
	EXPECT_EQ(PAGE, private_of(w, ORIGIN));
	EXPECT_TRUE(drop(w, ORIGIN));
	EXPECT_TRUE(drop(w, CLONE));
	EXPECT_EQ(PAGE, private_of(w, SECOND));
}

/*
 * Ranges
 */

TEST_F(clone, of_a_range_begins_at_its_offset_and_keeps_no_more) /* Zircon: Offset */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 3, 'a'));
	ASSERT_TRUE(clone_range(w, CLONE, ORIGIN, 1, 2));
	ASSERT_TRUE(resize(w, CLONE, 3));
	EXPECT_EQ(2 * PAGE, share_of(w, ORIGIN));
	EXPECT_EQ(PAGE, share_of(w, CLONE));
	EXPECT_TRUE(put(w, CLONE, 1, '1'));
	EXPECT_TRUE(drop(w, ORIGIN));
	EXPECT_EQ(w->pages + 2, cow_param("pages"));
}

TEST_F(clone, of_ranges_of_a_range_share_with_the_first) /* Zircon: OffsetTest2 */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 4, 'a'));
	ASSERT_TRUE(clone_range(w, CLONE, ORIGIN, 1, 3));
	ASSERT_TRUE(clone_range(w, SECOND, CLONE, 0, 2));
	ASSERT_TRUE(clone_range(w, THIRD, CLONE, 2, 1));
	ASSERT_TRUE(put(w, CLONE, 1, '1'));
	ASSERT_TRUE(drop(w, CLONE));
	EXPECT_EQ(5 * PAGE / 2, share_of(w, ORIGIN));
	EXPECT_EQ(PAGE, share_of(w, SECOND));
	EXPECT_EQ(PAGE / 2, share_of(w, THIRD));
	ASSERT_TRUE(drop(w, SECOND));
	EXPECT_EQ(7 * PAGE / 2, share_of(w, ORIGIN));
	ASSERT_TRUE(drop(w, THIRD));
	EXPECT_EQ(4 * PAGE, share_of(w, ORIGIN));
}

TEST_F(clone, of_a_range_costs_a_write_beside_it_nothing) /* Zircon: OffsetProgressiveWrite */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 2, 'a'));
	ASSERT_TRUE(clone_range(w, CLONE, ORIGIN, 1, 1));
	ASSERT_TRUE(resize(w, CLONE, 2));
	ASSERT_TRUE(put(w, CLONE, 0, '1'));
	EXPECT_EQ(w->pages + 3, cow_param("pages"));
	ASSERT_TRUE(clone_range(w, SECOND, CLONE, 1, 1));
	ASSERT_TRUE(put(w, CLONE, 0, '2'));
	EXPECT_EQ(w->pages + 3, cow_param("pages"));
	EXPECT_EQ(0, cow_stat(w->buf[SECOND].fd).resident);
	EXPECT_TRUE(drop(w, ORIGIN));
	EXPECT_TRUE(drop(w, SECOND));
	EXPECT_EQ(PAGE, private_of(w, CLONE));
}

TEST_F(clone, that_grew_has_zeroes_behind_its_origin) /* Zircon: Overflow */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 1, 'a'));
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	ASSERT_TRUE(resize(w, CLONE, 2));
	EXPECT_EQ(PAGE / 2, share_of(w, CLONE));
	ASSERT_TRUE(put(w, CLONE, 1, '1'));
	ASSERT_TRUE(clone_whole(w, SECOND, CLONE));
	ASSERT_TRUE(resize(w, SECOND, 3));
	EXPECT_TRUE(put(w, SECOND, 2, '2'));
	EXPECT_EQ(PAGE, private_of(w, SECOND));
	EXPECT_TRUE(put(w, SECOND, 0, '3'));
	EXPECT_TRUE(put(w, SECOND, 1, '4'));
	EXPECT_EQ(PAGE / 2, share_of(w, ORIGIN));
	EXPECT_EQ(3 * PAGE / 2, share_of(w, CLONE));
	EXPECT_EQ(3 * PAGE, private_of(w, SECOND));
	EXPECT_TRUE(drop(w, CLONE));
	EXPECT_EQ(PAGE, private_of(w, ORIGIN));
}

/* No clone of a range that ends beyond the end, and nothing has changed. */
static bool range_refused(struct world *w, int i, uint64_t offset,
			  uint64_t length)
{
	int fd = cow_snapshot_range(w->buf[i].fd, COWMEM_WRITABLE, offset, length);

	if (fd >= 0)
		close(fd);
	return fd == -EINVAL && !cow_stat(w->buf[i].fd).snapshots && world_ok(w);
}

TEST_F(clone, beyond_the_end_is_EINVAL_and_of_holes_has_nothing) /* Zircon: OutOfBounds */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 1, 'a'));
	EXPECT_TRUE(range_refused(w, ORIGIN, 0, 2 * PAGE));
	EXPECT_TRUE(range_refused(w, ORIGIN, PAGE, 0));
	EXPECT_TRUE(range_refused(w, ORIGIN, PAGE, PAGE));
	EXPECT_TRUE(range_refused(w, ORIGIN, 2 * PAGE, 0));
	EXPECT_TRUE(range_refused(w, ORIGIN, 2 * PAGE, 2 * PAGE));

	ASSERT_TRUE(resize(w, ORIGIN, 4));
	ASSERT_TRUE(clone_range(w, CLONE, ORIGIN, 2, 2));
	EXPECT_EQ(PAGE, share_of(w, ORIGIN));
	EXPECT_EQ(0, share_of(w, CLONE));
	ASSERT_TRUE(put(w, CLONE, 1, '1'));
	ASSERT_TRUE(clone_whole(w, SECOND, CLONE));
	ASSERT_TRUE(resize(w, SECOND, 3));
	ASSERT_TRUE(put(w, SECOND, 2, '2'));
	EXPECT_EQ(PAGE, share_of(w, ORIGIN));
	EXPECT_EQ(PAGE / 2, share_of(w, CLONE));
	EXPECT_EQ(3 * PAGE / 2, share_of(w, SECOND));
}

TEST_F(clone, of_one_page_costs_the_others_nothing) /* Zircon: SmallClone */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 3, 'a'));
	ASSERT_TRUE(clone_range(w, CLONE, ORIGIN, 1, 1));
	EXPECT_EQ(5 * PAGE / 2, share_of(w, ORIGIN));
	EXPECT_EQ(PAGE / 2, share_of(w, CLONE));
	EXPECT_TRUE(put(w, ORIGIN, 0, '1'));
	EXPECT_TRUE(put(w, ORIGIN, 2, '2'));
	EXPECT_EQ(w->pages + 3, cow_param("pages"));
	EXPECT_TRUE(drop(w, ORIGIN));
	EXPECT_EQ(w->pages + 1, cow_param("pages"));
}

TEST_F(clone, of_a_small_clone_does_not_see_beyond_it) /* Zircon: SmallCloneChild */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 3, 'a'));
	ASSERT_TRUE(clone_range(w, CLONE, ORIGIN, 1, 1));
	ASSERT_TRUE(clone_whole(w, SECOND, CLONE));
	EXPECT_TRUE(resize(w, SECOND, 2));
	EXPECT_TRUE(put(w, SECOND, 1, '1'));
}

TEST_F(clone, small_ones_keep_only_what_they_reach) /* Zircon: SmallClones */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 3, 'a'));
	ASSERT_TRUE(clone_range(w, CLONE, ORIGIN, 1, 2));
	ASSERT_TRUE(put(w, CLONE, 1, '1'));
	ASSERT_TRUE(clone_range(w, SECOND, ORIGIN, 0, 1));
	EXPECT_EQ(2 * PAGE, share_of(w, ORIGIN));
	EXPECT_EQ(3 * PAGE / 2, share_of(w, CLONE));
	EXPECT_EQ(PAGE / 2, share_of(w, SECOND));
	EXPECT_TRUE(drop(w, ORIGIN));
	EXPECT_EQ(w->pages + 3, cow_param("pages"));
	EXPECT_EQ(2 * PAGE, private_of(w, CLONE));
	EXPECT_EQ(PAGE, private_of(w, SECOND));
}

/*
 * Four clones of a page each, two of them through a clone in between
 */

#define LEAF	SECOND

static bool make_leaves(struct world *w)
{
	return make_filled(w, ORIGIN, 4, 'a') &&
	       clone_range(w, CLONE, ORIGIN, 1, 2) &&
	       clone_range(w, LEAF, ORIGIN, 0, 1) &&
	       clone_range(w, LEAF + 1, CLONE, 0, 1) &&
	       clone_range(w, LEAF + 2, CLONE, 1, 1) &&
	       clone_range(w, LEAF + 3, ORIGIN, 3, 1);
}

TEST_F(clone, disjoint_ones_outlive_their_origins_unwritten) /* Zircon: DisjointCloneEarlyClose */
{
	struct world *w = &self->world;
	int i;

	ASSERT_TRUE(make_leaves(w));
	EXPECT_TRUE(drop(w, ORIGIN));
	EXPECT_TRUE(drop(w, CLONE));
	for (i = 0; i < 4; i++)
		EXPECT_TRUE(put(w, LEAF + i, 0, '1' + i));
	EXPECT_EQ(w->pages + 4, cow_param("pages"));
}

TEST_F(clone, disjoint_ones_outlive_their_origins_written) /* Zircon: DisjointCloneLateClose */
{
	struct world *w = &self->world;
	int i;

	ASSERT_TRUE(make_leaves(w));
	for (i = 0; i < 4; i++)
		EXPECT_TRUE(put(w, LEAF + i, 0, '1' + i));
	EXPECT_EQ(w->pages + 8, cow_param("pages"));
	EXPECT_TRUE(drop(w, ORIGIN));
	EXPECT_TRUE(drop(w, CLONE));
	EXPECT_EQ(w->pages + 4, cow_param("pages"));
}

TEST_F(clone, disjoint_ones_close_in_every_order) /* Zircon: DisjointCloneTest2 */
{
	struct world *w = &self->world;
	unsigned int n, i, order[4];

	for (n = 0; n < 24; n++) {
		order_of(n, 4, order);
		ASSERT_TRUE(make_leaves(w));
		ASSERT_TRUE(drop(w, ORIGIN));
		ASSERT_TRUE(drop(w, CLONE));
		for (i = 0; i < 4; i++) {
			ASSERT_TRUE(drop(w, LEAF + order[i]));
			ASSERT_EQ(w->pages + 3 - i, cow_param("pages"));
		}
	}
}

TEST_F(clone, of_ranges_leaves_the_origin_whole) /* Zircon: DisjointCloneProgressive */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 6, 'a'));
	ASSERT_TRUE(clone_range(w, CLONE, ORIGIN, 1, 5));
	ASSERT_TRUE(put(w, CLONE, 3, '1'));
	/* With it, after it, before it, and of nothing but a hole. */
	ASSERT_TRUE(clone_range(w, SECOND, CLONE, 1, 4));
	ASSERT_TRUE(clone_range(w, THIRD, CLONE, 4, 1));
	ASSERT_TRUE(clone_range(w, FOURTH, CLONE, 2, 1));
	ASSERT_TRUE(resize(w, CLONE, 6));
	ASSERT_TRUE(clone_range(w, FIFTH, CLONE, 5, 1));
	ASSERT_TRUE(drop(w, CLONE));
	ASSERT_TRUE(drop(w, SECOND));
	ASSERT_TRUE(drop(w, FOURTH));
	ASSERT_TRUE(drop(w, FIFTH));
	ASSERT_TRUE(drop(w, THIRD));
	EXPECT_EQ(6 * PAGE, private_of(w, ORIGIN));
	EXPECT_TRUE(clone_whole(w, CLONE, ORIGIN));
	EXPECT_TRUE(put(w, ORIGIN, 4, '2'));
}

/*
 * Sizes
 */

/* Both wrote a page; @target is cut to its first page and grows by one again. */
static void resize_one(struct __test_metadata *_metadata, struct world *w,
		       int target, int other)
{
	ASSERT_TRUE(make_filled(w, ORIGIN, 4, 'a'));
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	ASSERT_TRUE(put(w, ORIGIN, 1, '1'));
	ASSERT_TRUE(put(w, CLONE, 2, '2'));
	EXPECT_EQ(3 * PAGE, share_of(w, ORIGIN));
	EXPECT_EQ(3 * PAGE, share_of(w, CLONE));

	ASSERT_TRUE(resize(w, target, 1));
	EXPECT_EQ(PAGE / 2, share_of(w, target));
	EXPECT_EQ(7 * PAGE / 2, share_of(w, other));
	EXPECT_TRUE(resize(w, target, 2));
	EXPECT_TRUE(put(w, other, 3, '3'));
	EXPECT_EQ(w->pages + 4, cow_param("pages"));
	EXPECT_TRUE(drop(w, other));
	EXPECT_EQ(PAGE, private_of(w, target));
	EXPECT_EQ(w->pages + 1, cow_param("pages"));
}

TEST_F(clone, that_is_cut_lets_go_of_what_it_shared) /* Zircon: ResizeChild */
{
	resize_one(_metadata, &self->world, CLONE, ORIGIN);
}

TEST_F(clone, keeps_what_its_origin_cuts_off) /* Zircon: ResizeOriginal */
{
	resize_one(_metadata, &self->world, ORIGIN, CLONE);
}

TEST_F(clone, that_grows_does_not_see_more_of_its_origin) /* Zircon: ResizeGrow */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 2, 'a'));
	ASSERT_TRUE(clone_range(w, CLONE, ORIGIN, 0, 1));
	EXPECT_TRUE(resize(w, CLONE, 2));
	EXPECT_TRUE(put(w, ORIGIN, 1, '1'));
	EXPECT_EQ(w->pages + 2, cow_param("pages"));
	EXPECT_EQ(3 * PAGE / 2, share_of(w, ORIGIN));
	EXPECT_EQ(PAGE / 2, share_of(w, CLONE));
}

TEST_F(clone, of_a_range_keeps_it_when_the_origin_is_emptied) /* Zircon: ResizeOffsetChild */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 3, 'a'));
	ASSERT_TRUE(clone_range(w, CLONE, ORIGIN, 1, 1));
	EXPECT_TRUE(resize(w, ORIGIN, 0));
	EXPECT_EQ(0, share_of(w, ORIGIN));
	EXPECT_EQ(PAGE, private_of(w, CLONE));
	EXPECT_EQ(w->pages + 1, cow_param("pages"));
}

TEST_F(clone, disjoint_ones_are_emptied_in_every_order) /* Zircon: ResizeDisjointChild */
{
	struct world *w = &self->world;
	unsigned int n, i, order[3];

	for (n = 0; n < 6; n++) {
		order_of(n, 3, order);
		ASSERT_TRUE(make_filled(w, ORIGIN, 3, 'a'));
		for (i = 0; i < 3; i++)
			ASSERT_TRUE(clone_range(w, CLONE + i, ORIGIN, i, 1));
		EXPECT_EQ(3 * PAGE / 2, share_of(w, ORIGIN));
		EXPECT_EQ(PAGE / 2, share_of(w, CLONE));
		ASSERT_TRUE(resize(w, CLONE + order[0], 0));
		ASSERT_TRUE(resize(w, CLONE + order[1], 0));
		ASSERT_TRUE(resize(w, ORIGIN, 0));
		EXPECT_EQ(PAGE, private_of(w, CLONE + order[2]));
		ASSERT_TRUE(resize(w, CLONE + order[2], 0));
		EXPECT_EQ(w->pages, cow_param("pages"));
		ASSERT_TRUE(drop_all(w));
	}
}

TEST_F(clone, is_emptied_before_its_origin) /* Zircon: ResizeMultipleProgressive */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 3, 'a'));
	ASSERT_TRUE(clone_range(w, CLONE, ORIGIN, 0, 2));
	ASSERT_TRUE(put(w, ORIGIN, 0, '1'));
	ASSERT_TRUE(put(w, CLONE, 1, '2'));
	ASSERT_TRUE(clone_range(w, SECOND, ORIGIN, 0, 1));
	EXPECT_TRUE(resize(w, CLONE, 0));
	EXPECT_EQ(5 * PAGE / 2, share_of(w, ORIGIN));
	EXPECT_EQ(0, share_of(w, CLONE));
	EXPECT_EQ(PAGE / 2, share_of(w, SECOND));
	EXPECT_TRUE(resize(w, ORIGIN, 0));
	EXPECT_EQ(PAGE, private_of(w, SECOND));
	EXPECT_EQ(w->pages + 1, cow_param("pages"));
}

TEST_F(clone, of_a_range_that_the_origin_loses_and_regains) /* Zircon: ResizeOverSiblingRange */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 4, 'a'));
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	ASSERT_TRUE(clone_range(w, SECOND, ORIGIN, 2, 1));
	EXPECT_TRUE(resize(w, ORIGIN, 1));
	EXPECT_TRUE(resize(w, ORIGIN, 4));
	EXPECT_TRUE(put(w, ORIGIN, 1, '1'));
	EXPECT_TRUE(put(w, ORIGIN, 2, '2'));
	EXPECT_TRUE(put(w, ORIGIN, 3, '3'));
	EXPECT_EQ(0, cow_stat(w->buf[ORIGIN].fd).copied);
}

/*
 * Many clones
 */

TEST_F(clone, that_closes_makes_all_pages_private_again) /* Zircon: Children */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 1, 'a'));
	EXPECT_EQ(PAGE, private_of(w, ORIGIN));
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	EXPECT_EQ(0, private_of(w, ORIGIN));
	EXPECT_EQ(0, private_of(w, CLONE));
	ASSERT_TRUE(drop(w, CLONE));
	EXPECT_EQ(PAGE, private_of(w, ORIGIN));
}

static void close_many(struct __test_metadata *_metadata, struct world *w,
		       bool reverse)
{
	int i;

	ASSERT_TRUE(make_filled(w, ORIGIN, 1, 'a'));
	for (i = CLONE; i <= FIFTH; i++) {
		ASSERT_TRUE(clone_whole(w, i, ORIGIN));
		EXPECT_EQ(i, cow_stat(w->buf[ORIGIN].fd).snapshots);
	}
	for (i = CLONE; i <= FIFTH; i++) {
		EXPECT_EQ(0, private_of(w, ORIGIN));
		ASSERT_TRUE(drop(w, reverse ? FIFTH + CLONE - i : i));
	}
	EXPECT_EQ(PAGE, private_of(w, ORIGIN));
}

TEST_F(clone, many_close_in_the_order_they_were_made) /* Zircon: ManyChildren */
{
	close_many(_metadata, &self->world, false);
}

TEST_F(clone, many_close_in_the_reverse_order) /* Zircon: ManyChildrenRevClose */
{
	close_many(_metadata, &self->world, true);
}

TEST_F(clone, four_mappings_are_stored_to_in_every_order) /* Zircon: ManyCloneMapping */
{
	struct world *w = &self->world;
	unsigned int n, i, order[4];

	for (n = 0; n < 24; n++) {
		order_of(n, 4, order);
		ASSERT_TRUE(make_filled(w, ORIGIN, 1, 'a'));
		ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
		ASSERT_TRUE(clone_whole(w, SECOND, ORIGIN));
		ASSERT_TRUE(clone_whole(w, THIRD, CLONE));
		for (i = 0; i < 4; i++)
			ASSERT_TRUE(put_by(w, order[i], 0, '1' + i, by_store));
		EXPECT_EQ(w->pages + 4, cow_param("pages"));
		ASSERT_TRUE(drop_all(w));
	}
}

TEST_F(clone, of_a_range_of_a_clone_leaves_the_first_alone) /* Zircon: ManyCloneOffset */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 1, 'a'));
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	ASSERT_TRUE(resize(w, CLONE, 2));
	ASSERT_TRUE(clone_range(w, SECOND, CLONE, 1, 1));
	EXPECT_TRUE(put(w, CLONE, 0, '1'));
	EXPECT_TRUE(drop(w, CLONE));
	EXPECT_EQ(PAGE, private_of(w, ORIGIN));
}

TEST_F(clone, siblings_of_other_ranges_are_written) /* Zircon: ManyCloneMappingOffset */
{
	struct world *w = &self->world;
	int i;

	ASSERT_TRUE(make(w, ORIGIN, 2));
	ASSERT_TRUE(put(w, ORIGIN, 0, 'a'));
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	ASSERT_TRUE(clone_range(w, SECOND, ORIGIN, 1, 1));
	ASSERT_TRUE(clone_whole(w, THIRD, ORIGIN));
	EXPECT_TRUE(put(w, THIRD, 0, '1'));
	EXPECT_TRUE(put(w, CLONE, 0, '2'));
	for (i = ORIGIN; i <= THIRD; i++)
		EXPECT_EQ(i == SECOND ? 0 : PAGE, private_of(w, i));
}

/* Clone number i wrote page number i; then they go, the origin first. */
static void go_progressively(struct __test_metadata *_metadata, struct world *w,
			     bool truncate)
{
	int i;

	ASSERT_TRUE(make_filled(w, ORIGIN, 6, 'a'));
	for (i = CLONE; i <= FIFTH; i++) {
		ASSERT_TRUE(clone_whole(w, i, ORIGIN));
		ASSERT_TRUE(put(w, i, i, '0' + i));
	}
	EXPECT_EQ(w->pages + 11, cow_param("pages"));
	for (i = ORIGIN; i < FOURTH; i++)
		ASSERT_TRUE(truncate ? resize(w, i, 0) : drop(w, i));
	EXPECT_EQ(w->pages + 8, cow_param("pages"));
	EXPECT_EQ(4 * PAGE, share_of(w, FOURTH));
	EXPECT_EQ(4 * PAGE, share_of(w, FIFTH));
	EXPECT_EQ(2 * PAGE, private_of(w, FIFTH));
}

TEST_F(clone, progressive_ones_close_one_by_one) /* Zircon: ProgressiveCloneClose */
{
	go_progressively(_metadata, &self->world, false);
}

TEST_F(clone, progressive_ones_are_emptied_one_by_one) /* Zircon: ProgressiveCloneTruncate */
{
	go_progressively(_metadata, &self->world, true);
}

TEST_F(clone, of_ranges_of_ranges_outlives_those_between) /* Zircon: ParentStartLimitRegression */
{
	struct world *w = &self->world;
	enum { ROOT, MIDDLE, LEFT, SIDE, RIGHT, BELOW };

	ASSERT_TRUE(make_filled(w, ROOT, 3, 'a'));
	ASSERT_TRUE(clone_range(w, MIDDLE, ROOT, 1, 2));
	ASSERT_TRUE(clone_range(w, LEFT, MIDDLE, 0, 1));
	ASSERT_TRUE(clone_range(w, SIDE, ROOT, 2, 1));
	ASSERT_TRUE(drop(w, ROOT));
	ASSERT_TRUE(clone_range(w, RIGHT, MIDDLE, 1, 1));
	ASSERT_TRUE(drop(w, MIDDLE));
	ASSERT_TRUE(clone_whole(w, BELOW, RIGHT));
	EXPECT_TRUE(drop(w, LEFT));
	EXPECT_EQ(w->pages + 1, cow_param("pages"));
	EXPECT_TRUE(put(w, RIGHT, 0, '1'));
	EXPECT_TRUE(put(w, BELOW, 0, '2'));
	EXPECT_EQ(PAGE, private_of(w, SIDE));
}

TEST_F(clone, offsets_do_not_add_up_along_a_chain) /* Zircon: NoAccumulatedOverflow */
{
	struct world *w = &self->world;
	uint64_t max = cow_query().max_size;
	int huge, last, again, snap;
	char value = 0;

	ASSERT_TRUE(make_filled(w, ORIGIN, 2, 'a'));
	/* Offset plus length wraps around. */
	EXPECT_TRUE(range_refused(w, ORIGIN, -8 * PAGE, 8 * PAGE));
	EXPECT_TRUE(range_refused(w, ORIGIN, -8 * PAGE, 9 * PAGE));
	EXPECT_TRUE(range_refused(w, ORIGIN, PAGE, -PAGE));
	EXPECT_TRUE(range_refused(w, ORIGIN, 2 * PAGE, -PAGE));
	EXPECT_TRUE(range_refused(w, ORIGIN, 0, -PAGE));
	EXPECT_TRUE(range_refused(w, ORIGIN, -PAGE, 0));

	huge = cow_create(max, "huge");
	ASSERT_GE(huge, 0);
	last = cow_snapshot_range(huge, COWMEM_WRITABLE, max - PAGE, PAGE);
	ASSERT_GE(last, 0);
	EXPECT_EQ(PAGE, cow_stat(last).length);
	ASSERT_EQ(0, ftruncate(last, max));
	EXPECT_EQ(-1, ftruncate(last, max + 1));
	EXPECT_EQ(EFBIG, errno);
	EXPECT_EQ(max, cow_stat(last).length);
	/* Enough generations to leave every index that there is. */
	for (int generation = 0; generation < 20; generation++) {
		again = cow_snapshot_range(last, COWMEM_WRITABLE, max - PAGE, PAGE);
		ASSERT_GE(again, 0);
		ASSERT_EQ(0, ftruncate(again, max));
		ASSERT_EQ(1, pwrite(again, "!", 1, max - 1));
		ASSERT_EQ(1, pread(again, &value, 1, max - 1));
		ASSERT_EQ('!', value);
		ASSERT_EQ(1, pread(last, &value, 1, 16 * PAGE));
		ASSERT_EQ(0, value);
		/* What clears marks along the path. */
		snap = cow_snapshot(again, 0);
		ASSERT_GE(snap, 0);
		close(snap);
		ASSERT_EQ(1, pwrite(again, "?", 1, 16 * PAGE));
		ASSERT_EQ(0, cow_restore(again, last, 0));
		ASSERT_EQ(1, pwrite(again, "!", 1, max - 1));
		close(last);
		last = again;
	}
	EXPECT_EQ(0, cow_stat(huge).resident);
	close(huge);
	close(last);
	EXPECT_TRUE(world_ok(w));
}

TEST_F(clone, has_a_page_that_the_one_before_had_punched) /* Zircon: MarkerClearsSplitBits */
{
	struct world *w = &self->world;

	NEED(FALLOCATE);
	ASSERT_TRUE(make(w, ORIGIN, 3));
	ASSERT_TRUE(put(w, ORIGIN, 1, '1'));
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	ASSERT_TRUE(put(w, CLONE, 1, '2'));
	ASSERT_TRUE(punch(w, CLONE, 1, 1));
	EXPECT_EQ(PAGE, private_of(w, ORIGIN));
	ASSERT_TRUE(drop(w, CLONE));
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	EXPECT_TRUE(put(w, CLONE, 1, '3'));
	EXPECT_TRUE(drop(w, ORIGIN));
}

TEST_F(clone, populated_for_reading_copies_nothing) /* Zircon: MapRangeReadOnly */
{
	struct world *w = &self->world;
	char *q;

	ASSERT_TRUE(make_filled(w, ORIGIN, 5, 'a'));
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	q = mmap(NULL, 5 * PAGE, PROT_READ, MAP_SHARED | MAP_POPULATE,
		 w->buf[CLONE].fd, 0);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(pages_ok(&w->buf[CLONE], q, "byte populated"));
	EXPECT_EQ(0, private_of(w, CLONE));
	EXPECT_EQ(5 * PAGE, cow_stat(w->buf[ORIGIN].fd).resident);
	EXPECT_EQ(0, cow_stat(w->buf[CLONE].fd).copied);
	EXPECT_TRUE(world_ok(w));
	/* What it maps is the clone, not the origin. */
	ASSERT_TRUE(put(w, ORIGIN, 2, '1'));
	EXPECT_TRUE(pages_ok(&w->buf[CLONE], q, "byte populated"));
	ASSERT_TRUE(put(w, CLONE, 3, '2'));
	EXPECT_TRUE(pages_ok(&w->buf[CLONE], q, "byte populated"));
	munmap(q, 5 * PAGE);
}

TEST_F(clone, of_the_middle_of_a_chain) /* Zircon: SnapshotAtLeastOnWriteSliceInChain */
{
	struct world *w = &self->world;
	int file, first;

	ASSERT_TRUE(make_filled(w, ORIGIN, 1, 'a'));
	ASSERT_TRUE(clone_whole(w, CLONE, ORIGIN));
	ASSERT_TRUE(put(w, CLONE, 0, '1'));
	ASSERT_TRUE(clone_whole(w, SECOND, CLONE));
	ASSERT_TRUE(put(w, SECOND, 0, '2'));

	first = w->buf[CLONE].fd;
	file = cow_file(first, COWMEM_RDONLY);
	ASSERT_GE(file, 0);
	w->buf[CLONE].fd = file;
	EXPECT_TRUE(clone_whole(w, THIRD, CLONE));
	w->buf[CLONE].fd = first;
	close(file);
	EXPECT_TRUE(put(w, THIRD, 0, '3'));
}

/*
 * Pins
 */

TEST_F(clone, of_a_pinned_page_is_a_copy_until_it_is_released) /* Zircon: PinBeforeCreateFailure */
{
	struct world *w = &self->world;
	char *p, data[PAGE];
	int pipefd[2];

	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_TRUE(make_filled(w, ORIGIN, 2, 'a'));
	p = cow_map(w->buf[ORIGIN].fd, 2 * PAGE, RW);
	ASSERT_NE(MAP_FAILED, p);
	/* Stored to, so that who holds the page might write it. */
	p[0] = 'a';
	ASSERT_TRUE(pipe_hold(pipefd, p));

	ASSERT_TRUE(snapshot_range(w, CLONE, ORIGIN, COWMEM_WRITABLE, 0, 2));
	w->buf[CLONE].slots[0].page = ++w->last_page;
	EXPECT_TRUE(world_ok(w));
	EXPECT_EQ(3 * PAGE / 2, share_of(w, ORIGIN));
	EXPECT_EQ(3 * PAGE / 2, share_of(w, CLONE));
	EXPECT_EQ(1, cow_stat(w->buf[ORIGIN].fd).held);
	EXPECT_EQ(1, cow_stat(w->buf[ORIGIN].fd).copied);

	/* The pipe has the page of the origin. */
	ASSERT_TRUE(put_by(w, ORIGIN, 0, '1', by_store));
	ASSERT_TRUE(pipe_drain(pipefd, data));
	EXPECT_TRUE(half_is(data, '1'));
	EXPECT_TRUE(half_is(data + HALF, 'a'));

	EXPECT_TRUE(clone_whole(w, SECOND, ORIGIN));
	EXPECT_EQ(0, private_of(w, SECOND));
	EXPECT_EQ(1, cow_stat(w->buf[ORIGIN].fd).held);
	munmap(p, 2 * PAGE);
	pipe_close(pipefd);
}

TEST(pins_of_a_buffer_and_of_its_clone_are_of_different_pages) /* Zircon: PinClonePages */
{
	long pages = cow_param("pages");
	int fd, clone, pipes[2][2], i, k;
	char *p, *q, data[PAGE];

	NEED(PINNABLE);
	fd = cow_create_flags(4 * PAGE, "pinnable", COWMEM_PINNABLE);
	ASSERT_GE(fd, 0);
	p = cow_map(fd, 4 * PAGE, RW);
	ASSERT_NE(MAP_FAILED, p);
	for (i = 0; i < 4; i++)
		memset(p + i * PAGE, 'a' + i, PAGE);
	clone = cow_snapshot(fd, COWMEM_WRITABLE);
	ASSERT_GE(clone, 0);
	q = cow_map(clone, 4 * PAGE, RW);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(pages + 4, cow_param("pages"));

	ASSERT_EQ(0, pipe(pipes[0]));
	ASSERT_EQ(0, pipe(pipes[1]));
	for (i = 0; i < 4; i++) {
		ASSERT_TRUE(pipe_hold(pipes[0], p + i * PAGE));
		ASSERT_TRUE(pipe_hold(pipes[1], q + i * PAGE));
	}
	EXPECT_EQ(pages + 8, cow_param("pages"));
	for (i = 0; i < 4; i++)
		for (k = 0; k < 4; k++)
			EXPECT_NE(frame_of(p + i * PAGE), frame_of(q + k * PAGE));
	for (i = 0; i < 4; i++) {
		EXPECT_TRUE(half_is(p + i * PAGE, 'a' + i));
		EXPECT_TRUE(half_is(q + i * PAGE + HALF, 'a' + i));
	}
	/* Each pin is of the page that its buffer has. */
	memset(p, '1', PAGE);
	memset(q, '2', PAGE);
	for (i = 0; i < 2; i++) {
		ASSERT_TRUE(pipe_drain(pipes[i], data));
		EXPECT_TRUE(half_is(data, '1' + i));
		EXPECT_TRUE(half_is(data + HALF, '1' + i));
	}
	munmap(p, 4 * PAGE);
	munmap(q, 4 * PAGE);
	close(fd);
	close(clone);
	EXPECT_EQ(pages, cow_param("pages"));
	/* The pipes have the rest, which no buffer counts. */
	for (i = 0; i < 2; i++) {
		ASSERT_TRUE(pipe_drain(pipes[i], data));
		EXPECT_TRUE(half_is(data, 'b'));
	}
}

/*
 * Races of two threads
 */

static unsigned int nr_rounds(void)
{
	const char *text = getenv("COWMEM_CLONES_ROUNDS");

	return text ? strtoul(text, NULL, 0) : 1000;
}

struct race {
	pthread_t thread;
	void (*act)(struct race *race);	/* what the other thread does */
	unsigned int rounds;
	atomic_uint came;	/* threads, to all meetings so far */
	int fd;
	struct cowmem_stat stat;
};

/* Two threads come to meeting number @nr, and go on at the same time. */
static void meet(struct race *race, unsigned int nr)
{
	atomic_fetch_add(&race->came, 1);
	while (atomic_load(&race->came) < 2 * nr)
		sched_yield();
}

static void *race_thread(void *data)
{
	struct race *race = data;
	unsigned int i;

	for (i = 0; i < race->rounds; i++) {
		meet(race, 2 * i + 1);
		race->act(race);
		meet(race, 2 * i + 2);
	}
	return NULL;
}

static bool race_begin(struct race *race, void (*act)(struct race *race))
{
	*race = (struct race) { .act = act, .rounds = nr_rounds() };
	return !pthread_create(&race->thread, NULL, race_thread, race);
}

/* Close @fd while the other thread acts. */
static void race_close(struct race *race, unsigned int round, int fd)
{
	meet(race, 2 * round + 1);
	close(fd);
	meet(race, 2 * round + 2);
}

static void race_drop(struct race *race)
{
	close(race->fd);
}

static void race_stat(struct race *race)
{
	race->stat = cow_sharing(race->fd);
}

FIXTURE(parallel)
{
	struct race race;
	long pages, nodes;
};

FIXTURE_SETUP(parallel)
{
	NEED(RANGE);
	NEED(SHARING);
	self->pages = cow_param("pages");
	self->nodes = cow_param("nodes");
}

FIXTURE_TEARDOWN(parallel)
{
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_EQ(self->nodes, cow_param("nodes"));
}

/* A buffer of @nr pages, each of them filled; -1 on failure. */
static int filled_buffer(unsigned long nr)
{
	char data[MAX_SIZE];
	unsigned long i;
	int fd;

	for (i = 0; i < nr; i++)
		memset(data + i * PAGE, 'a' + i, PAGE);
	fd = cow_create(nr * PAGE, "parallel");
	if (fd < 0 || pwrite(fd, data, nr * PAGE, 0) != nr * PAGE)
		return -1;
	return fd;
}

TEST_F_TIMEOUT(parallel, drops_of_both_free_all, 300) /* Zircon: DropChildrenInParallel */
{
	struct race *race = &self->race;
	unsigned int i;
	int origin;

	ASSERT_TRUE(race_begin(race, race_drop));
	for (i = 0; i < race->rounds; i++) {
		origin = filled_buffer(3);
		ASSERT_GE(origin, 0);
		race->fd = cow_snapshot(origin, COWMEM_WRITABLE);
		ASSERT_GE(race->fd, 0);
		/* Every other time each has a page of its own, too. */
		if (i % 2) {
			ASSERT_EQ(1, pwrite(origin, "1", 1, 0));
			ASSERT_EQ(1, pwrite(race->fd, "2", 1, PAGE));
			ASSERT_EQ(self->pages + 5, cow_param("pages"));
		}
		race_close(race, i, origin);
		ASSERT_EQ(self->pages, cow_param("pages"));
		ASSERT_EQ(self->nodes, cow_param("nodes"));
	}
	pthread_join(race->thread, NULL);
}

TEST_F_TIMEOUT(parallel, share_while_the_origin_goes, 300) /* Zircon: DropParentCommittedBytes */
{
	struct race *race = &self->race;
	char data[2 * PAGE];
	unsigned int i;
	int origin;

	ASSERT_TRUE(race_begin(race, race_stat));
	for (i = 0; i < race->rounds; i++) {
		origin = filled_buffer(3);
		ASSERT_GE(origin, 0);
		race->fd = cow_snapshot_range(origin, COWMEM_WRITABLE, PAGE,
					      2 * PAGE);
		ASSERT_GE(race->fd, 0);
		ASSERT_EQ(1, pwrite(race->fd, "!", 1, PAGE));
		race_stat(race);
		ASSERT_EQ(3 * PAGE / 2, race->stat.proportional);
		race_close(race, i, origin);
		/* Before or after, but nothing in between. */
		if (race->stat.proportional != 2 * PAGE)
			ASSERT_EQ(3 * PAGE / 2, race->stat.proportional);
		if (race->stat.exclusive != 2 * PAGE)
			ASSERT_EQ(PAGE, race->stat.exclusive);
		ASSERT_EQ(2 * PAGE, race->stat.resident);

		race_stat(race);
		ASSERT_EQ(2 * PAGE, race->stat.proportional);
		ASSERT_EQ(2 * PAGE, race->stat.exclusive);
		ASSERT_EQ(self->pages + 2, cow_param("pages"));
		ASSERT_EQ(2 * PAGE, pread(race->fd, data, 2 * PAGE, 0));
		ASSERT_TRUE(half_is(data, 'b') && half_is(data + HALF, 'b'));
		ASSERT_EQ('!', data[PAGE]);
		ASSERT_EQ('c', data[PAGE + 1]);
		ASSERT_TRUE(half_is(data + PAGE + HALF, 'c'));
		close(race->fd);
	}
	pthread_join(race->thread, NULL);
}

/*
 * Transfers
 */

static int share_by_restore(int fd, uint64_t offset, int source,
			    uint64_t source_offset, uint64_t length)
{
	return cow_restore_range(fd, offset, source, source_offset, length, 0);
}

FIXTURE(transfer)
{
	struct world world;
};

FIXTURE_VARIANT(transfer)
{
	uint64_t feature;
	bool mapped;
	int (*share)(int fd, uint64_t offset, int source, uint64_t source_offset,
		     uint64_t length);
	/* The errors that differ. */
	int stranger;	/* of a source that is not a buffer */
	int not_allowed;	/* for want of the right to read or write */
	int frozen;	/* of a frozen destination */
	bool grows;	/* a destination that ends too early */
};

FIXTURE_VARIANT_ADD(transfer, restore_file) {
	.feature = COWMEM_FEATURE_RESTORE, .share = share_by_restore,
	.stranger = -EBADF, .not_allowed = -EACCES, .frozen = -EPERM,
};
FIXTURE_VARIANT_ADD(transfer, restore_mapping) {
	.feature = COWMEM_FEATURE_RESTORE, .share = share_by_restore,
	.stranger = -EBADF, .not_allowed = -EACCES, .frozen = -EPERM,
	.mapped = true,
};
FIXTURE_VARIANT_ADD(transfer, clone_file) {
	.feature = COWMEM_FEATURE_CLONE, .share = cow_clone_range,
	.stranger = -EXDEV, .not_allowed = -EBADF, .frozen = -EBADF,
	.grows = true,
};
FIXTURE_VARIANT_ADD(transfer, clone_mapping) {
	.feature = COWMEM_FEATURE_CLONE, .share = cow_clone_range,
	.stranger = -EXDEV, .not_allowed = -EBADF, .frozen = -EBADF,
	.grows = true, .mapped = true,
};

FIXTURE_SETUP(transfer)
{
	NEED_BITS(COWMEM_FEATURE_RANGE | COWMEM_FEATURE_SHARING |
		  COWMEM_FEATURE_FALLOCATE | variant->feature);
	world_begin(&self->world, variant->mapped);
}

FIXTURE_TEARDOWN(transfer)
{
	struct world *w = &self->world;

	EXPECT_TRUE(drop_all(w));
	EXPECT_EQ(w->pages, cow_param("pages"));
	EXPECT_EQ(w->nodes, cow_param("nodes"));
}

/* First both have the pages, then the destination alone. */
static bool transfer(struct world *w, const FIXTURE_VARIANT(transfer) *variant,
		     int to, unsigned long index, int from, unsigned long first,
		     unsigned long nr)
{
	struct buffer *dst = &w->buf[to], *src = &w->buf[from];

	memcpy(dst->slots + index, src->slots + first, nr * sizeof(src->slots[0]));
	return !variant->share(dst->fd, index * PAGE, src->fd, first * PAGE,
			       nr * PAGE) &&
	       world_ok(w) && punch(w, from, first, nr);
}

TEST_F(transfer, from_a_range_whose_origin_is_gone) /* Zircon: DestroyedParentWithNonZeroOffset */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 5, 'a'));
	ASSERT_TRUE(clone_range(w, CLONE, ORIGIN, 1, 3));
	ASSERT_TRUE(drop(w, ORIGIN));
	ASSERT_TRUE(make_filled(w, SECOND, 5, 'A'));
	EXPECT_TRUE(transfer(w, variant, SECOND, 0, CLONE, 0, 3));
	EXPECT_EQ(5 * PAGE, private_of(w, SECOND));
	EXPECT_EQ(w->pages + 5, cow_param("pages"));
}

TEST_F(transfer, from_a_clone_leaves_its_origin_alone) /* Zircon: SnapshotChildSrc */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 5, 'a'));
	ASSERT_TRUE(clone_range(w, CLONE, ORIGIN, 0, 3));
	ASSERT_TRUE(make_filled(w, SECOND, 5, 'A'));
	EXPECT_TRUE(transfer(w, variant, SECOND, 0, CLONE, 0, 3));
	EXPECT_EQ(0, private_of(w, CLONE));
	EXPECT_EQ(7 * PAGE / 2, share_of(w, SECOND));
	EXPECT_TRUE(put(w, SECOND, 1, '1'));
	EXPECT_TRUE(put(w, ORIGIN, 0, '2'));
}

TEST_F(transfer, to_a_clone_leaves_its_origin_alone) /* Zircon: SnapshotChildDst */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, SECOND, 5, 'a'));
	ASSERT_TRUE(make_filled(w, ORIGIN, 5, 'A'));
	ASSERT_TRUE(clone_range(w, CLONE, ORIGIN, 0, 3));
	EXPECT_TRUE(transfer(w, variant, CLONE, 0, SECOND, 0, 3));
	EXPECT_EQ(3 * PAGE, private_of(w, CLONE));
	EXPECT_EQ(5 * PAGE, private_of(w, ORIGIN));
	EXPECT_TRUE(put(w, CLONE, 1, '1'));
}

TEST_F(transfer, from_a_range_is_seen_in_its_mapping) /* Zircon: ChildSliceSrc */
{
	struct world *w = &self->world;
	struct buffer view = { .fd = -1, .nr = 3 };
	char *q;

	ASSERT_TRUE(make_filled(w, ORIGIN, 5, 'a'));
	ASSERT_TRUE(make_filled(w, SECOND, 5, 'A'));
	q = mmap(NULL, 3 * PAGE, PROT_READ, MAP_SHARED, w->buf[ORIGIN].fd, PAGE);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ('b', q[0]);
	EXPECT_TRUE(transfer(w, variant, SECOND, 0, ORIGIN, 1, 3));
	EXPECT_TRUE(pages_ok(&view, q, "byte of the view"));
	EXPECT_TRUE(put(w, ORIGIN, 2, '1'));
	EXPECT_TRUE(half_is(q + PAGE, '1'));
	munmap(q, 3 * PAGE);
}

TEST_F(transfer, to_a_range_is_seen_in_its_mapping) /* Zircon: ChildSliceDst */
{
	struct world *w = &self->world;
	struct buffer view = { .fd = -1, .nr = 3 };
	char *q;

	ASSERT_TRUE(make_filled(w, ORIGIN, 5, 'a'));
	ASSERT_TRUE(make_filled(w, SECOND, 5, 'A'));
	q = mmap(NULL, 3 * PAGE, RW, MAP_SHARED, w->buf[ORIGIN].fd, PAGE);
	ASSERT_NE(MAP_FAILED, q);
	memset(q + 2 * PAGE, 'd', PAGE);
	memcpy(view.slots, w->buf[SECOND].slots, sizeof(view.slots));
	EXPECT_TRUE(transfer(w, variant, ORIGIN, 1, SECOND, 0, 3));
	EXPECT_TRUE(pages_ok(&view, q, "byte of the view"));
	EXPECT_TRUE(put(w, ORIGIN, 2, '1'));
	EXPECT_TRUE(half_is(q + PAGE, '1'));
	munmap(q, 3 * PAGE);
}

TEST_F(transfer, through_another_file_of_the_source) /* Zircon: ReferenceChildSrc */
{
	struct world *w = &self->world;
	int first, file;

	ASSERT_TRUE(make_filled(w, ORIGIN, 5, 'a'));
	ASSERT_TRUE(make_filled(w, SECOND, 5, 'A'));
	first = w->buf[ORIGIN].fd;
	file = cow_file(first, 0);
	ASSERT_GE(file, 0);
	w->buf[ORIGIN].fd = file;
	EXPECT_TRUE(transfer(w, variant, SECOND, 0, ORIGIN, 0, 3));
	w->buf[ORIGIN].fd = first;
	EXPECT_TRUE(world_ok(w));
	close(file);
	EXPECT_TRUE(world_ok(w));
}

TEST_F(transfer, through_another_file_of_the_destination) /* Zircon: ReferenceChildDst */
{
	struct world *w = &self->world;
	int first, file;

	ASSERT_TRUE(make_filled(w, ORIGIN, 5, 'a'));
	ASSERT_TRUE(make_filled(w, SECOND, 5, 'A'));
	first = w->buf[SECOND].fd;
	file = cow_file(first, 0);
	ASSERT_GE(file, 0);
	w->buf[SECOND].fd = file;
	EXPECT_TRUE(transfer(w, variant, SECOND, 0, ORIGIN, 0, 3));
	w->buf[SECOND].fd = first;
	EXPECT_TRUE(world_ok(w));
	close(file);
	EXPECT_TRUE(world_ok(w));
}

/* It fails with @err, and nothing has changed. */
static bool refused(struct world *w, const FIXTURE_VARIANT(transfer) *variant,
		    int err, int fd, uint64_t offset, int source,
		    uint64_t source_offset, uint64_t length)
{
	int is = variant->share(fd, offset, source, source_offset, length);

	return (is == err || complain(NULL, "error", is, err)) && world_ok(w);
}

TEST_F(transfer, within_one_buffer) /* Zircon: SameSrcAndDst */
{
	struct world *w = &self->world;
	struct buffer *buf = &w->buf[ORIGIN];

	ASSERT_TRUE(make_filled(w, ORIGIN, 5, 'a'));
	EXPECT_TRUE(refused(w, variant, -EINVAL, buf->fd, 2 * PAGE, buf->fd, 0,
			    3 * PAGE));
	EXPECT_TRUE(refused(w, variant, -EINVAL, buf->fd, 0, buf->fd, 2 * PAGE,
			    3 * PAGE));
	EXPECT_TRUE(transfer(w, variant, ORIGIN, 3, ORIGIN, 0, 2));
	EXPECT_EQ(3 * PAGE, private_of(w, ORIGIN));

	/* One page at two offsets: each is written alone. */
	ASSERT_EQ(0, variant->share(buf->fd, 0, buf->fd, 3 * PAGE, PAGE));
	buf->slots[0] = buf->slots[3];
	EXPECT_TRUE(world_ok(w));
	EXPECT_EQ(2 * PAGE, private_of(w, ORIGIN));
	EXPECT_TRUE(clone_whole(w, CLONE, ORIGIN));
	EXPECT_TRUE(put(w, ORIGIN, 0, '1'));
	EXPECT_TRUE(put(w, ORIGIN, 3, '2'));
	EXPECT_TRUE(put(w, CLONE, 3, '3'));
	EXPECT_TRUE(put(w, CLONE, 0, '4'));
}

TEST_F(transfer, moves_pages_to_where_others_were) /* Zircon: Basic */
{
	struct world *w = &self->world;

	ASSERT_TRUE(make_filled(w, ORIGIN, 5, 'a'));
	ASSERT_TRUE(make_filled(w, SECOND, 5, 'A'));
	EXPECT_TRUE(transfer(w, variant, SECOND, 2, ORIGIN, 0, 3));
	EXPECT_EQ(w->pages + 7, cow_param("pages"));
	EXPECT_EQ(2 * PAGE, private_of(w, ORIGIN));
	EXPECT_EQ(5 * PAGE, private_of(w, SECOND));
	EXPECT_EQ(0, cow_stat(w->buf[SECOND].fd).copied);
	EXPECT_TRUE(put(w, SECOND, 2, '1'));
	EXPECT_TRUE(put(w, ORIGIN, 0, '2'));
	EXPECT_EQ(w->pages + 8, cow_param("pages"));
}

TEST_F(transfer, of_what_is_wrong_fails_and_changes_nothing) /* Zircon: InvalidInputs */
{
	struct world *w = &self->world;
	int stranger = memfd_create("stranger", MFD_CLOEXEC);
	int src, dst, reader, writer;

	ASSERT_TRUE(make_filled(w, ORIGIN, 5, 'a'));
	ASSERT_TRUE(make_filled(w, SECOND, 5, 'A'));
	ASSERT_TRUE(freeze(w, THIRD, SECOND));
	src = w->buf[ORIGIN].fd;
	dst = w->buf[SECOND].fd;
	reader = cow_file(dst, COWMEM_RDONLY);
	ASSERT_GE(reader, 0);
	writer = reopen(src, O_WRONLY);
	ASSERT_GE(writer, 0);
	ASSERT_EQ(0, ftruncate(stranger, 5 * PAGE));

	/* Handles */
	EXPECT_TRUE(refused(w, variant, -EBADF, dst, PAGE, -1, 0, PAGE));
	EXPECT_TRUE(refused(w, variant, variant->stranger, dst, PAGE, stranger, 0,
			    PAGE));
	EXPECT_TRUE(refused(w, variant, variant->not_allowed, reader, PAGE, src, 0,
			    PAGE));
	EXPECT_TRUE(refused(w, variant, variant->not_allowed, dst, PAGE, writer, 0,
			    PAGE));
	EXPECT_TRUE(refused(w, variant, variant->frozen, w->buf[THIRD].fd, PAGE,
			    src, 0, PAGE));

	/* Alignment */
	EXPECT_TRUE(refused(w, variant, -EINVAL, dst, PAGE - 1, src, 0, PAGE));
	EXPECT_TRUE(refused(w, variant, -EINVAL, dst, PAGE, src, 512, PAGE));
	EXPECT_TRUE(refused(w, variant, -EINVAL, dst, PAGE, src, 0, PAGE - 1));

	/* Ranges */
	EXPECT_TRUE(refused(w, variant, -EINVAL, dst, 0, src, 0, 6 * PAGE));
	EXPECT_TRUE(refused(w, variant, -EINVAL, dst, 0, src, 4 * PAGE, 2 * PAGE));
	EXPECT_TRUE(refused(w, variant, -EINVAL, dst, 0, src, 6 * PAGE, PAGE));
	EXPECT_TRUE(refused(w, variant, -EINVAL, dst, 0, src, -PAGE, PAGE));
	EXPECT_TRUE(refused(w, variant, -EINVAL, dst, 0, src, -PAGE, 2 * PAGE));
	EXPECT_TRUE(refused(w, variant, -EINVAL, dst, -PAGE, src, 0, PAGE));
	EXPECT_TRUE(refused(w, variant, -EINVAL, dst, PAGE, src, PAGE, -PAGE));
	if (variant->grows) {
		w->buf[SECOND].nr = 6;
		EXPECT_TRUE(transfer(w, variant, SECOND, 5, ORIGIN, 0, 1));
	} else {
		EXPECT_TRUE(refused(w, variant, -EINVAL, dst, 5 * PAGE, src, 0,
				    PAGE));
		EXPECT_TRUE(refused(w, variant, -EINVAL, dst, 4 * PAGE, src, 0,
				    2 * PAGE));
	}
	close(reader);
	close(writer);
	close(stranger);
}

TEST_HARNESS_MAIN
