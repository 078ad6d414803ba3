// SPDX-License-Identifier: GPL-2.0
/*
 * DIFF: which pages two buffers do not share.  What it lists is drawn as a
 * string, with one character a page ('D' for DATA, 'H' for HOLE, '.' for what
 * is not listed), and compared with what must be.  Every single call is held to
 * the rules of the header.  One test keeps books of who owns which page.
 */
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "common.h"
#include "harness.h"
#include "util.h"

#define NR		16UL
#define SIZE		(NR * PAGE)
#define SAME		"................"
#define END		COWMEM_DIFF_END
#define ROOM		128U
#define MAX_PAGES	256UL
#define POISON		0xa5

/*
 * Lists
 */

/* All that was listed; extents that went on in another call are one. */
struct list {
	unsigned int nr;
	struct cowmem_extent extents[ROOM];
};

static bool extent_valid(const struct cowmem_extent *extent)
{
	return extent->length && extent->length % PAGE == 0 &&
	       extent->offset % PAGE == 0 && !extent->__reserved &&
	       (extent->flags == COWMEM_EXTENT_DATA ||
		extent->flags == COWMEM_EXTENT_HOLE);
}

/* May one call that began at @start have returned these @nr, and @cursor? */
static bool call_valid(const struct cowmem_extent *extents, unsigned int nr,
		       uint64_t start, uint64_t cursor)
{
	uint64_t end = start;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (!extent_valid(&extents[i]) || extents[i].offset < end)
			return false;
		/* What touches is one, unless it is of another kind. */
		if (i && extents[i].offset == end &&
		    extents[i].flags == extents[i - 1].flags)
			return false;
		end = extents[i].offset + extents[i].length;
	}
	return end <= cursor && start < cursor &&
	       (cursor == END || cursor % PAGE == 0);
}

/* The array behind the extents that a call has returned. */
static bool rest_untouched(const struct cowmem_extent *extents, unsigned int nr)
{
	const unsigned char *byte = (const unsigned char *)&extents[nr];

	for (; byte < (const unsigned char *)&extents[ROOM]; byte++)
		if (*byte != POISON)
			return false;
	return true;
}

static bool list_add(struct list *list, const struct cowmem_extent *extent)
{
	struct cowmem_extent *last = &list->extents[list->nr - 1];

	if (list->nr && last->flags == extent->flags &&
	    last->offset + last->length == extent->offset) {
		last->length += extent->length;
		return true;
	}
	if (list->nr == ROOM)
		return false;
	list->extents[list->nr++] = *extent;
	return true;
}

/*
 * From @cursor to the end, in calls with room for @room extents.  -EBADMSG if a
 * call returned what none may.
 */
static int list_diff(struct list *list, int fd, int other, uint64_t cursor,
		     unsigned int room)
{
	struct cowmem_extent extents[ROOM];
	uint64_t start;
	int nr, i;

	list->nr = 0;
	do {
		start = cursor;
		memset(extents, POISON, sizeof(extents));
		nr = cow_diff(fd, other, extents, room, &cursor);
		if (nr < 0)
			return nr;
		if (nr > room || !call_valid(extents, nr, start, cursor) ||
		    !rest_untouched(extents, nr))
			return -EBADMSG;
		for (i = 0; i < nr; i++)
			if (!list_add(list, &extents[i]))
				return -EBADMSG;
	} while (cursor != END);
	return 0;
}

static unsigned long length_in_pages(int fd)
{
	return (cow_stat(fd).length + PAGE - 1) / PAGE;
}

static bool draw(char *text, unsigned long nr_pages, const struct list *list)
{
	unsigned long page, end;
	unsigned int i;

	memset(text, '.', nr_pages);
	text[nr_pages] = '\0';
	for (i = 0; i < list->nr; i++) {
		page = list->extents[i].offset / PAGE;
		end = page + list->extents[i].length / PAGE;
		if (end > nr_pages)
			return false;
		for (; page < end; page++)
			text[page] = list->extents[i].flags == COWMEM_EXTENT_DATA ?
				     'D' : 'H';
	}
	return true;
}

/* A character for each page of the longer of the two. */
static const char *diff_from(int fd, int other, uint64_t cursor,
			     unsigned int room)
{
	static char text[MAX_PAGES + 1];
	unsigned long nr_pages = length_in_pages(fd);
	struct list list;
	int err;

	if (length_in_pages(other) > nr_pages)
		nr_pages = length_in_pages(other);
	err = list_diff(&list, fd, other, cursor, room);
	if (err)
		return strerror(-err);
	return draw(text, nr_pages, &list) ? text : "beyond the end";
}

static const char *diff(int fd, int other)
{
	return diff_from(fd, other, 0, ROOM);
}

/*
 * A filled buffer and a clone of it, both mapped
 */

FIXTURE(pair)
{
	int origin, clone;
	char *p, *q;
};

FIXTURE_SETUP(pair)
{
	NEED(DIFF);
	self->origin = cow_create_mapped(SIZE, "origin", &self->p);
	ASSERT_GE(self->origin, 0);
	fill_pages(self->p, NR);
	self->clone = cow_snapshot(self->origin, COWMEM_WRITABLE);
	ASSERT_GE(self->clone, 0);
	self->q = cow_map(self->clone, SIZE, RW);
	ASSERT_NE(MAP_FAILED, self->q);
}

FIXTURE_TEARDOWN(pair)
{
	close(self->origin);
	close(self->clone);
}

TEST_F(pair, nothing_differs_after_a_snapshot)
{
	struct cowmem_extent extents[ROOM];
	uint64_t cursor = 0;

	memset(extents, POISON, sizeof(extents));
	EXPECT_EQ(0, cow_diff(self->origin, self->clone, extents, 4, &cursor));
	EXPECT_EQ(END, cursor);
	cursor = 0;
	EXPECT_EQ(0, cow_diff(self->clone, self->origin, extents, 4, &cursor));
	EXPECT_EQ(END, cursor);
	EXPECT_TRUE(rest_untouched(extents, 0));
}

TEST_F(pair, nothing_differs_from_a_frozen_snapshot)
{
	int snap = cow_snapshot(self->origin, 0);

	ASSERT_GE(snap, 0);
	EXPECT_STREQ(SAME, diff(self->origin, snap));
	EXPECT_STREQ(SAME, diff(snap, self->origin));
	EXPECT_STREQ(SAME, diff(snap, self->clone));
}

TEST_F(pair, page_that_the_origin_stores_to_is_data_of_both)
{
	self->p[5 * PAGE + 7] = '!';
	EXPECT_STREQ(".....D..........", diff(self->origin, self->clone));
	EXPECT_STREQ(".....D..........", diff(self->clone, self->origin));
}

TEST_F(pair, page_that_the_clone_stores_to_is_data_of_both)
{
	self->q[5 * PAGE + 7] = '!';
	EXPECT_STREQ(".....D..........", diff(self->origin, self->clone));
	EXPECT_STREQ(".....D..........", diff(self->clone, self->origin));
}

TEST_F(pair, page_that_is_written_by_write_is_listed)
{
	ASSERT_TRUE(write_byte(self->origin, 5 * PAGE, '!'));
	EXPECT_STREQ(".....D..........", diff(self->origin, self->clone));
	ASSERT_TRUE(write_byte(self->clone, 9 * PAGE - 1, '!'));
	EXPECT_STREQ(".....D..D.......", diff(self->origin, self->clone));
}

TEST_F(pair, write_across_two_pages_lists_both)
{
	ASSERT_EQ(2, pwrite(self->clone, "!!", 2, 6 * PAGE - 1));
	EXPECT_STREQ(".....DD.........", diff(self->origin, self->clone));
}

TEST_F(pair, first_and_last_page)
{
	self->p[0] = '!';
	EXPECT_STREQ("D...............", diff(self->origin, self->clone));
	self->p[SIZE - 1] = '!';
	EXPECT_STREQ("D..............D", diff(self->origin, self->clone));
	EXPECT_STREQ("D..............D", diff(self->clone, self->origin));
}

TEST_F(pair, both_write_different_pages)
{
	self->p[2 * PAGE] = '1';
	self->q[7 * PAGE] = '2';
	EXPECT_STREQ("..D....D........", diff(self->origin, self->clone));
	EXPECT_STREQ("..D....D........", diff(self->clone, self->origin));
}

TEST_F(pair, both_write_the_same_page)
{
	self->p[2 * PAGE] = '1';
	self->q[2 * PAGE] = '2';
	EXPECT_STREQ("..D.............", diff(self->origin, self->clone));
	EXPECT_STREQ("..D.............", diff(self->clone, self->origin));
}

TEST_F(pair, page_written_twice_is_listed_once)
{
	self->p[2 * PAGE] = '1';
	EXPECT_STREQ("..D.............", diff(self->origin, self->clone));
	self->p[2 * PAGE] = '2';
	EXPECT_STREQ("..D.............", diff(self->origin, self->clone));
}

TEST_F(pair, page_written_with_the_bytes_it_had_is_listed)
{
	char data[PAGE];

	memset(self->p + 3 * PAGE, value_of(3), PAGE);
	memset(data, value_of(5), PAGE);
	ASSERT_EQ(PAGE, pwrite(self->clone, data, PAGE, 5 * PAGE));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	EXPECT_TRUE(pages_filled(self->q, 0, NR));
	EXPECT_STREQ("...D.D..........", diff(self->origin, self->clone));
}

TEST_F(pair, reading_shares_on)
{
	char data[SIZE];

	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	EXPECT_TRUE(pages_filled(self->q, 0, NR));
	EXPECT_EQ(SIZE, pread(self->origin, data, SIZE, 0));
	EXPECT_EQ(SIZE, pread(self->clone, data, SIZE, 0));
	EXPECT_STREQ(SAME, diff(self->origin, self->clone));
}

TEST_F(pair, private_copy_of_a_page_is_no_difference)
{
	char *r = map_private(self->clone, SIZE, RW);

	ASSERT_NE(MAP_FAILED, r);
	memset(r, '!', SIZE);
	EXPECT_STREQ(SAME, diff(self->origin, self->clone));
}

TEST_F(pair, pages_that_another_process_stores_to_are_listed)
{
	pid_t pid = CHILD_START({
		char *p = cow_map(self->origin, SIZE, RW);
		char *r = map_private(self->clone, SIZE, RW);

		p[3 * PAGE] = '!';
		r[9 * PAGE] = '!';
		raise(SIGSTOP);
		/* Once more, and through what it has inherited. */
		p[3 * PAGE] = '?';
		self->q[7 * PAGE] = '?';
	});

	ASSERT_TRUE(child_stopped(pid));
	EXPECT_STREQ("...D............", diff(self->origin, self->clone));
	EXPECT_STREQ("...D............", diff(self->clone, self->origin));
	EXPECT_EQ(0, child_finish(pid));
	EXPECT_STREQ("...D...D........", diff(self->origin, self->clone));
	EXPECT_STREQ("...D...D........", diff(self->clone, self->origin));
	EXPECT_EQ('?', self->p[3 * PAGE]);
}

TEST_F(pair, run_is_one_extent)
{
	struct list list;

	memset(self->p + 4 * PAGE, '!', 5 * PAGE);
	self->p[11 * PAGE] = '!';
	ASSERT_EQ(0, list_diff(&list, self->clone, self->origin, 0, ROOM));
	ASSERT_EQ(2, list.nr);
	EXPECT_EQ(4 * PAGE, list.extents[0].offset);
	EXPECT_EQ(5 * PAGE, list.extents[0].length);
	EXPECT_EQ(COWMEM_EXTENT_DATA, list.extents[0].flags);
	EXPECT_EQ(11 * PAGE, list.extents[1].offset);
	EXPECT_EQ(PAGE, list.extents[1].length);
}

TEST_F(pair, run_is_one_extent_whoever_wrote_it)
{
	struct list list;

	self->q[6 * PAGE] = '!';
	self->p[5 * PAGE] = '!';
	self->p[4 * PAGE] = '!';
	self->q[4 * PAGE] = '!';
	ASSERT_EQ(0, list_diff(&list, self->origin, self->clone, 0, ROOM));
	ASSERT_EQ(1, list.nr);
	EXPECT_EQ(4 * PAGE, list.extents[0].offset);
	EXPECT_EQ(3 * PAGE, list.extents[0].length);
}

TEST_F(pair, all_pages_written_are_one_extent)
{
	struct list list;

	memset(self->q, '!', SIZE);
	ASSERT_EQ(0, list_diff(&list, self->origin, self->clone, 0, ROOM));
	ASSERT_EQ(1, list.nr);
	EXPECT_EQ(0, list.extents[0].offset);
	EXPECT_EQ(SIZE, list.extents[0].length);
}

TEST_F(pair, data_next_to_a_hole_are_two_extents)
{
	struct list list;

	ASSERT_EQ(0, ftruncate(self->clone, 8 * PAGE));
	self->q[7 * PAGE] = '!';
	ASSERT_EQ(0, list_diff(&list, self->clone, self->origin, 0, ROOM));
	ASSERT_EQ(2, list.nr);
	EXPECT_EQ(7 * PAGE, list.extents[0].offset);
	EXPECT_EQ(PAGE, list.extents[0].length);
	EXPECT_EQ(COWMEM_EXTENT_DATA, list.extents[0].flags);
	EXPECT_EQ(8 * PAGE, list.extents[1].offset);
	EXPECT_EQ(8 * PAGE, list.extents[1].length);
	EXPECT_EQ(COWMEM_EXTENT_HOLE, list.extents[1].flags);
	EXPECT_STREQ(".......DDDDDDDDD", diff(self->origin, self->clone));
}

TEST_F(pair, one_buffer_with_itself)
{
	int file = cow_file(self->origin, COWMEM_RDONLY);

	ASSERT_GE(file, 0);
	self->p[3 * PAGE] = '!';
	EXPECT_STREQ(SAME, diff(self->origin, self->origin));
	EXPECT_STREQ(SAME, diff(self->origin, file));
	EXPECT_STREQ(SAME, diff(file, self->origin));
}

TEST_F(pair, device_handle_with_its_file)
{
	int dev = cow_open(), file;
	char *r;

	ASSERT_GE(dev, 0);
	r = cow_map(dev, SIZE, RW);
	ASSERT_NE(MAP_FAILED, r);
	r[0] = '!';
	file = cow_file(dev, 0);
	ASSERT_GE(file, 0);
	EXPECT_STREQ(SAME, diff(dev, file));
	EXPECT_STREQ(SAME, diff(file, dev));
}

TEST_F(pair, device_handles_on_either_side)
{
	int dev = cow_open(), snap;
	char *r;

	ASSERT_GE(dev, 0);
	r = cow_map(dev, SIZE, RW);
	ASSERT_NE(MAP_FAILED, r);
	fill_pages(r, NR);
	snap = cow_snapshot(dev, 0);
	ASSERT_GE(snap, 0);
	r[2 * PAGE] = '!';
	EXPECT_STREQ("..D.............", diff(dev, snap));
	EXPECT_STREQ("..D.............", diff(snap, dev));
}

TEST_F(pair, read_only_handles_suffice)
{
	int reader = cow_file(self->origin, COWMEM_RDONLY);
	int other = reopen(self->clone, O_RDONLY);

	ASSERT_GE(reader, 0);
	ASSERT_GE(other, 0);
	self->q[5 * PAGE] = '!';
	EXPECT_STREQ(".....D..........", diff(reader, other));
}

TEST_F(pair, grandchild_and_grandparent)
{
	int child, grandchild;

	self->q[2 * PAGE] = '1';
	child = cow_snapshot(self->clone, COWMEM_WRITABLE);
	ASSERT_GE(child, 0);
	ASSERT_TRUE(write_byte(child, 5 * PAGE, '2'));
	grandchild = cow_snapshot(child, COWMEM_WRITABLE);
	ASSERT_GE(grandchild, 0);
	ASSERT_TRUE(write_byte(grandchild, 8 * PAGE, '3'));
	self->p[11 * PAGE] = '4';
	EXPECT_STREQ("..D..D..D..D....", diff(grandchild, self->origin));
	EXPECT_STREQ("..D..D..D..D....", diff(self->origin, grandchild));
	EXPECT_STREQ(".....D..D.......", diff(grandchild, self->clone));
	EXPECT_STREQ("........D.......", diff(grandchild, child));
	close(child);
	munmap(self->q, SIZE);
	close(self->clone);
	EXPECT_STREQ("..D..D..D..D....", diff(grandchild, self->origin));
}

TEST_F(pair, siblings)
{
	int sibling = cow_snapshot(self->origin, COWMEM_WRITABLE);

	ASSERT_GE(sibling, 0);
	EXPECT_STREQ(SAME, diff(sibling, self->clone));
	self->p[3 * PAGE] = '!';
	EXPECT_STREQ(SAME, diff(sibling, self->clone));
	self->q[4 * PAGE] = '!';
	EXPECT_STREQ("....D...........", diff(sibling, self->clone));
	EXPECT_STREQ("...D............", diff(sibling, self->origin));
}

TEST_F(pair, end_of_a_third_sharer_changes_nothing)
{
	int third = cow_snapshot(self->origin, COWMEM_WRITABLE);
	char data[SIZE];

	ASSERT_GE(third, 0);
	memset(data, '!', SIZE);
	ASSERT_EQ(SIZE, pwrite(third, data, SIZE, 0));
	EXPECT_STREQ(SAME, diff(self->origin, self->clone));
	close(third);
	EXPECT_STREQ(SAME, diff(self->origin, self->clone));
	self->q[4 * PAGE] = '!';
	EXPECT_STREQ("....D...........", diff(self->origin, self->clone));
}

TEST_F(pair, page_written_in_place_by_its_last_owner_is_listed)
{
	int snap;

	self->p[6 * PAGE] = '1';
	snap = cow_snapshot(self->origin, 0);
	ASSERT_GE(snap, 0);
	close(snap);
	self->p[6 * PAGE] = '2';
	EXPECT_EQ(1, cow_stat(self->origin).reused);
	EXPECT_STREQ("......D.........", diff(self->origin, self->clone));
}

TEST_F(pair, page_that_is_pinned_while_snapshotted_is_not_shared)
{
	int pipefd[2], snap;

	self->p[3 * PAGE] = value_of(3);
	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_TRUE(pipe_hold(pipefd, self->p + 3 * PAGE));
	snap = cow_snapshot(self->origin, 0);
	ASSERT_GE(snap, 0);
	EXPECT_STREQ("...D............", diff(self->origin, snap));
	EXPECT_STREQ("...D............", diff(snap, self->origin));
}

TEST_F(pair, pages_just_written_are_listed_and_stay_writable)
{
	self->p[2 * PAGE] = '1';
	self->q[3 * PAGE] = '2';
	EXPECT_STREQ("..DD............", diff(self->origin, self->clone));
	EXPECT_STREQ("..DD............", diff(self->clone, self->origin));
	EXPECT_EQ(0, faults_of_store(self->p + 2 * PAGE, '3'));
	EXPECT_EQ(0, faults_of_store(self->q + 3 * PAGE, '4'));
	EXPECT_EQ(1, cow_stat(self->origin).copied);
	EXPECT_EQ(1, cow_stat(self->clone).copied);
	EXPECT_EQ('3', read_byte(self->origin, 2 * PAGE));
	EXPECT_EQ('4', read_byte(self->clone, 3 * PAGE));
}

TEST_F(pair, changes_no_counter_and_no_content)
{
	struct cowmem_stat origin, clone, now;
	long pages, nodes;

	self->p[2 * PAGE] = value_of(2);
	origin = cow_stat(self->origin);
	clone = cow_stat(self->clone);
	pages = cow_param("pages");
	nodes = cow_param("nodes");
	EXPECT_STREQ("..D.............", diff(self->origin, self->clone));
	now = cow_stat(self->origin);
	EXPECT_EQ(0, memcmp(&origin, &now, sizeof(now)));
	now = cow_stat(self->clone);
	EXPECT_EQ(0, memcmp(&clone, &now, sizeof(now)));
	EXPECT_EQ(pages, cow_param("pages"));
	EXPECT_EQ(nodes, cow_param("nodes"));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	EXPECT_TRUE(pages_filled(self->q, 0, NR));
}

TEST_F(pair, nothing_differs_after_RESTORE)
{
	NEED(RESTORE);
	memset(self->p + PAGE, '1', 2 * PAGE);
	memset(self->q + 2 * PAGE, '2', 2 * PAGE);
	ASSERT_EQ(0, cow_restore(self->clone, self->origin, 0));
	EXPECT_STREQ(SAME, diff(self->clone, self->origin));
	EXPECT_STREQ(SAME, diff(self->origin, self->clone));
	EXPECT_EQ(0, memcmp(self->p, self->q, SIZE));
	self->q[9 * PAGE] = '!';
	EXPECT_STREQ(".........D......", diff(self->clone, self->origin));
}

TEST_F(pair, range_that_was_restored_does_not_differ)
{
	NEED(RESTORE);
	memset(self->p, '!', SIZE);
	ASSERT_EQ(0, cow_restore_range(self->origin, 4 * PAGE, self->clone,
				       4 * PAGE, 3 * PAGE, 0));
	EXPECT_STREQ("DDDD...DDDDDDDDD", diff(self->clone, self->origin));
	EXPECT_STREQ("DDDD...DDDDDDDDD", diff(self->origin, self->clone));
}

/*
 * Sizes
 */

TEST_F(pair, clone_that_grew_by_a_hole_does_not_differ)
{
	ASSERT_EQ(0, ftruncate(self->clone, SIZE + 4 * PAGE));
	EXPECT_STREQ(SAME "....", diff(self->clone, self->origin));
	EXPECT_STREQ(SAME "....", diff(self->origin, self->clone));
}

TEST_F(pair, data_beyond_the_end_of_the_other_is_listed)
{
	ASSERT_EQ(0, ftruncate(self->clone, SIZE + 4 * PAGE));
	ASSERT_TRUE(write_byte(self->clone, SIZE + 2 * PAGE, '!'));
	EXPECT_STREQ(SAME "..D.", diff(self->clone, self->origin));
	EXPECT_STREQ(SAME "..H.", diff(self->origin, self->clone));
}

TEST_F(pair, what_the_clone_cut_off_is_a_hole_of_it)
{
	ASSERT_EQ(0, ftruncate(self->clone, 10 * PAGE));
	EXPECT_STREQ("..........HHHHHH", diff(self->clone, self->origin));
	EXPECT_STREQ("..........DDDDDD", diff(self->origin, self->clone));
}

TEST_F(pair, what_the_clone_cut_off_stays_a_hole_when_it_grows)
{
	ASSERT_EQ(0, ftruncate(self->clone, 10 * PAGE));
	ASSERT_EQ(0, ftruncate(self->clone, SIZE));
	EXPECT_STREQ("..........HHHHHH", diff(self->clone, self->origin));
	self->q[12 * PAGE] = '!';
	EXPECT_STREQ("..........HHDHHH", diff(self->clone, self->origin));
	EXPECT_STREQ("..........DDDDDD", diff(self->origin, self->clone));
}

TEST_F(pair, hole_that_both_cut_is_not_listed)
{
	ASSERT_EQ(0, ftruncate(self->clone, 10 * PAGE));
	ASSERT_EQ(0, ftruncate(self->clone, SIZE));
	ASSERT_EQ(0, ftruncate(self->origin, 12 * PAGE));
	EXPECT_STREQ("..........HH....", diff(self->clone, self->origin));
	EXPECT_STREQ("..........DD....", diff(self->origin, self->clone));
}

TEST_F(pair, page_cut_in_the_middle_differs)
{
	ASSERT_EQ(0, ftruncate(self->clone, 10 * PAGE + 100));
	EXPECT_STREQ("..........DHHHHH", diff(self->clone, self->origin));
	EXPECT_STREQ("..........DDDDDD", diff(self->origin, self->clone));
}

TEST_F(pair, last_page_of_an_odd_size_is_listed_whole)
{
	struct list list;
	int snap;

	ASSERT_EQ(0, ftruncate(self->origin, 10 * PAGE + 100));
	snap = cow_snapshot(self->origin, 0);
	ASSERT_GE(snap, 0);
	EXPECT_STREQ("...........", diff(self->origin, snap));
	self->p[10 * PAGE + 50] = '!';
	ASSERT_EQ(0, list_diff(&list, self->origin, snap, 0, ROOM));
	ASSERT_EQ(1, list.nr);
	EXPECT_EQ(10 * PAGE, list.extents[0].offset);
	EXPECT_EQ(PAGE, list.extents[0].length);
}

TEST_F(pair, empty_buffer_is_all_holes)
{
	int empty = cow_create(0, "empty"), other = cow_create(0, "empty");

	ASSERT_GE(empty, 0);
	ASSERT_GE(other, 0);
	EXPECT_STREQ("HHHHHHHHHHHHHHHH", diff(empty, self->origin));
	EXPECT_STREQ("DDDDDDDDDDDDDDDD", diff(self->origin, empty));
	EXPECT_STREQ("", diff(empty, other));
}

/*
 * Holes
 */

FIXTURE(sparse)
{
	int origin, clone;	/* with pages 2 and 9, else holes */
	char *p, *q;
};

FIXTURE_SETUP(sparse)
{
	NEED(DIFF);
	self->origin = cow_create_mapped(SIZE, "sparse", &self->p);
	ASSERT_GE(self->origin, 0);
	self->p[2 * PAGE] = 'c';
	self->p[9 * PAGE] = 'j';
	self->clone = cow_snapshot(self->origin, COWMEM_WRITABLE);
	ASSERT_GE(self->clone, 0);
	self->q = cow_map(self->clone, SIZE, RW);
	ASSERT_NE(MAP_FAILED, self->q);
}

FIXTURE_TEARDOWN(sparse)
{
	close(self->origin);
	close(self->clone);
}

TEST_F(sparse, filled_hole_is_data_here_and_a_hole_there)
{
	self->p[4 * PAGE] = '!';
	EXPECT_STREQ("....D...........", diff(self->origin, self->clone));
	EXPECT_STREQ("....H...........", diff(self->clone, self->origin));
	self->q[12 * PAGE] = '!';
	EXPECT_STREQ("....D.......H...", diff(self->origin, self->clone));
	EXPECT_STREQ("....H.......D...", diff(self->clone, self->origin));
}

TEST_F(sparse, hole_filled_with_zeroes_is_data)
{
	self->p[4 * PAGE] = 0;
	EXPECT_STREQ("....D...........", diff(self->origin, self->clone));
	EXPECT_STREQ("....H...........", diff(self->clone, self->origin));
}

TEST_F(sparse, hole_that_both_filled_is_data_of_both)
{
	self->p[4 * PAGE] = '!';
	self->q[4 * PAGE] = '!';
	EXPECT_STREQ("....D...........", diff(self->origin, self->clone));
	EXPECT_STREQ("....D...........", diff(self->clone, self->origin));
}

TEST_F(sparse, holes_of_both_are_not_listed)
{
	int stranger = cow_create(SIZE, "stranger");

	ASSERT_GE(stranger, 0);
	EXPECT_STREQ(SAME, diff(self->origin, self->clone));
	EXPECT_STREQ("..D......D......", diff(self->origin, stranger));
	EXPECT_STREQ("..H......H......", diff(stranger, self->origin));
}

TEST_F(sparse, holes_that_were_read_are_still_holes)
{
	EXPECT_TRUE(page_is(self->p + 4 * PAGE, 0));
	EXPECT_TRUE(page_is(self->q + 5 * PAGE, 0));
	EXPECT_EQ(0, read_byte(self->origin, 6 * PAGE));
	EXPECT_STREQ(SAME, diff(self->origin, self->clone));
}

TEST_F(sparse, neighbours_of_different_kind_are_extents_of_their_own)
{
	struct list list;

	self->p[3 * PAGE] = '!';
	self->q[4 * PAGE] = '!';
	self->p[5 * PAGE] = '!';
	ASSERT_EQ(0, list_diff(&list, self->origin, self->clone, 0, ROOM));
	ASSERT_EQ(3, list.nr);
	EXPECT_EQ(COWMEM_EXTENT_DATA, list.extents[0].flags);
	EXPECT_EQ(COWMEM_EXTENT_HOLE, list.extents[1].flags);
	EXPECT_EQ(COWMEM_EXTENT_DATA, list.extents[2].flags);
	EXPECT_EQ(4 * PAGE, list.extents[1].offset);
	EXPECT_EQ(PAGE, list.extents[1].length);
}

TEST_F(sparse, strangers_differ_in_all_that_either_has)
{
	int stranger = cow_create(SIZE, "stranger");

	ASSERT_GE(stranger, 0);
	ASSERT_TRUE(write_byte(stranger, 9 * PAGE, 'j'));
	ASSERT_TRUE(write_byte(stranger, 10 * PAGE, 'k'));
	EXPECT_STREQ("..D......DH.....", diff(self->origin, stranger));
	EXPECT_STREQ("..H......DD.....", diff(stranger, self->origin));
}

/*
 * Snapshots of ranges
 */

TEST_F(pair, range_from_0_shares_its_pages)
{
	int range;

	NEED(RANGE);
	range = cow_snapshot_range(self->origin, COWMEM_WRITABLE, 0, 8 * PAGE);
	ASSERT_GE(range, 0);
	EXPECT_STREQ("........HHHHHHHH", diff(range, self->origin));
	EXPECT_STREQ("........DDDDDDDD", diff(self->origin, range));
	self->p[3 * PAGE] = '1';
	ASSERT_TRUE(write_byte(range, 5 * PAGE, '2'));
	EXPECT_STREQ("...D.D..HHHHHHHH", diff(range, self->origin));
	EXPECT_STREQ(".....D..HHHHHHHH", diff(range, self->clone));
}

TEST_F(pair, range_from_elsewhere_has_other_pages_at_equal_offsets)
{
	int range;

	NEED(RANGE);
	range = cow_snapshot_range(self->origin, 0, 8 * PAGE, 8 * PAGE);
	ASSERT_GE(range, 0);
	EXPECT_STREQ("DDDDDDDDHHHHHHHH", diff(range, self->origin));
	EXPECT_STREQ("DDDDDDDDDDDDDDDD", diff(self->origin, range));
}

TEST_F(sparse, range_from_elsewhere_has_its_holes_at_its_own_offsets)
{
	int range;

	NEED(RANGE);
	range = cow_snapshot_range(self->origin, 0, 7 * PAGE, 8 * PAGE);
	ASSERT_GE(range, 0);
	/* What was page 9 is page 2 of it. */
	EXPECT_STREQ("..D......H......", diff(range, self->origin));
	EXPECT_STREQ("..D......D......", diff(self->origin, range));
}

TEST_F(pair, two_ranges_of_one_part_share_its_pages)
{
	int first, second;

	NEED(RANGE);
	first = cow_snapshot_range(self->origin, 0, 5 * PAGE, 6 * PAGE);
	second = cow_snapshot_range(self->clone, COWMEM_WRITABLE, 5 * PAGE,
				    8 * PAGE);
	ASSERT_GE(first, 0);
	ASSERT_GE(second, 0);
	EXPECT_STREQ("......HH", diff(first, second));
	ASSERT_TRUE(write_byte(second, 2 * PAGE, '!'));
	EXPECT_STREQ("..D...HH", diff(first, second));
	EXPECT_STREQ("..D...DD", diff(second, first));
}

/*
 * The cursor.  What differs is "D.DD..DDDH.H..HD", seen from the origin.
 */

#define CURSOR_DIFF	"D.DD..DDDH.H..HD"

FIXTURE(cursor)
{
	int origin, clone;
};

FIXTURE_SETUP(cursor)
{
	const char *kind = CURSOR_DIFF;
	unsigned long i;

	NEED(DIFF);
	self->origin = cow_create(SIZE, "origin");
	ASSERT_GE(self->origin, 0);
	for (i = 0; i < NR; i++)
		if (kind[i] == '.')
			ASSERT_TRUE(write_byte(self->origin, i * PAGE, 'a'));
	self->clone = cow_snapshot(self->origin, COWMEM_WRITABLE);
	ASSERT_GE(self->clone, 0);
	for (i = 0; i < NR; i++) {
		if (kind[i] == 'D')
			ASSERT_TRUE(write_byte(self->origin, i * PAGE, '1'));
		if (kind[i] == 'H')
			ASSERT_TRUE(write_byte(self->clone, i * PAGE, '2'));
	}
}

FIXTURE_TEARDOWN(cursor)
{
	close(self->origin);
	close(self->clone);
}

TEST_F(cursor, room_for_one_extent_walks_all)
{
	EXPECT_STREQ(CURSOR_DIFF, diff_from(self->origin, self->clone, 0, 1));
}

TEST_F(cursor, any_room_walks_all)
{
	unsigned int room;

	for (room = 2; room <= NR; room++)
		EXPECT_STREQ(CURSOR_DIFF,
			     diff_from(self->origin, self->clone, 0, room));
}

TEST_F(cursor, any_start_lists_the_rest)
{
	char want[] = CURSOR_DIFF;
	unsigned long start;

	for (start = 0; start < NR; start++) {
		EXPECT_STREQ(want, diff_from(self->origin, self->clone,
					     start * PAGE, ROOM));
		EXPECT_STREQ(want, diff_from(self->origin, self->clone,
					     start * PAGE, 1));
		want[start] = '.';
	}
}

TEST_F(cursor, in_the_middle_of_an_extent_lists_its_rest)
{
	struct cowmem_extent extent;
	uint64_t cursor = 7 * PAGE;

	ASSERT_EQ(1, cow_diff(self->origin, self->clone, &extent, 1, &cursor));
	EXPECT_EQ(7 * PAGE, extent.offset);
	EXPECT_EQ(2 * PAGE, extent.length);
	EXPECT_EQ(COWMEM_EXTENT_DATA, extent.flags);
	EXPECT_GE(cursor, 9 * PAGE);
}

TEST_F(cursor, behind_the_last_extent_is_the_end)
{
	struct list list;

	ASSERT_EQ(0, ftruncate(self->origin, 2 * SIZE));
	EXPECT_EQ(0, list_diff(&list, self->origin, self->clone, SIZE, ROOM));
	EXPECT_EQ(0, list.nr);
}

TEST_F(cursor, beyond_the_end_lists_nothing)
{
	static const uint64_t starts[] = {
		SIZE, SIZE + PAGE, 1ULL << 40, 1ULL << 62, 1ULL << 63,
		END - PAGE + 1,
	};
	struct cowmem_extent extents[ROOM];
	unsigned int i;
	uint64_t cursor;

	memset(extents, POISON, sizeof(extents));
	for (i = 0; i < ARRAY_SIZE(starts); i++) {
		cursor = starts[i];
		EXPECT_EQ(0, cow_diff(self->origin, self->clone, extents, ROOM,
				      &cursor));
		EXPECT_EQ(END, cursor);
	}
	EXPECT_TRUE(rest_untouched(extents, 0));
}

TEST_F(cursor, takes_up_the_state_that_is_then)
{
	struct cowmem_extent extent;
	uint64_t cursor = 0;

	ASSERT_EQ(1, cow_diff(self->origin, self->clone, &extent, 1, &cursor));
	EXPECT_EQ(0, extent.offset);
	ASSERT_LE(cursor, 2 * PAGE);
	ASSERT_TRUE(write_byte(self->clone, 13 * PAGE, '!'));
	EXPECT_STREQ("..DD..DDDH.H.DHD", diff_from(self->origin, self->clone,
						   cursor, ROOM));
}

TEST_F(cursor, room_for_more_extents_than_there_are)
{
	struct cowmem_extent *extents;
	unsigned int nr = 1000;
	uint64_t cursor = 0;

	extents = calloc(nr, sizeof(*extents));
	ASSERT_NE(NULL, extents);
	EXPECT_EQ(7, cow_diff(self->origin, self->clone, extents, nr, &cursor));
	EXPECT_EQ(END, cursor);
	EXPECT_EQ(15 * PAGE, extents[6].offset);
	EXPECT_EQ(0, extents[7].length);
	free(extents);
}

/* It must not be what the kernel allocates, or touches. */
TEST_F(cursor, room_for_as_many_extents_as_can_be_said)
{
	size_t bytes = UINT32_MAX * sizeof(struct cowmem_extent);
	struct cowmem_extent *extents;
	uint64_t cursor = 0;

	extents = mmap(NULL, bytes, RW,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (extents == MAP_FAILED)
		SKIP(return, "no %zu bytes of address space", bytes);
	EXPECT_EQ(7, cow_diff(self->origin, self->clone, extents, UINT32_MAX,
			      &cursor));
	EXPECT_EQ(END, cursor);
	EXPECT_EQ(15 * PAGE, extents[6].offset);
	munmap(extents, bytes);
}

TEST_F(cursor, array_in_a_mapping_of_the_buffer_works)
{
	struct cowmem_extent *extents;
	uint64_t cursor = 0;
	char *p = cow_map(self->origin, SIZE, RW);

	ASSERT_NE(MAP_FAILED, p);
	/* In page 15, which differs as it is. */
	extents = (void *)(p + 15 * PAGE);
	EXPECT_EQ(7, cow_diff(self->origin, self->clone, extents, 8, &cursor));
	EXPECT_EQ(END, cursor);
	EXPECT_EQ(15 * PAGE, extents[6].offset);
	EXPECT_EQ(PAGE, extents[6].length);
}

/*
 * Large buffers
 */

FIXTURE(large)
{
	int origin, clone;
};

FIXTURE_SETUP(large)
{
	NEED(DIFF);
	self->origin = cow_create(16 * GIB, "large");
	ASSERT_GE(self->origin, 0);
	ASSERT_TRUE(write_byte(self->origin, GIB, 'a'));
	ASSERT_TRUE(write_byte(self->origin, 8 * GIB, 'b'));
	self->clone = cow_snapshot(self->origin, COWMEM_WRITABLE);
	ASSERT_GE(self->clone, 0);
}

FIXTURE_TEARDOWN(large)
{
	close(self->origin);
	close(self->clone);
}

TEST_F(large, three_pages_of_16_GiB)
{
	struct list list;
	unsigned int i;

	ASSERT_TRUE(write_byte(self->origin, 5 * PAGE, '1'));
	ASSERT_TRUE(write_byte(self->clone, 8 * GIB + PAGE - 1, '2'));
	ASSERT_TRUE(write_byte(self->clone, 16 * GIB - 1, '3'));
	ASSERT_EQ(0, list_diff(&list, self->clone, self->origin, 0, ROOM));
	ASSERT_EQ(3, list.nr);
	for (i = 0; i < 3; i++)
		EXPECT_EQ(PAGE, list.extents[i].length);
	EXPECT_EQ(5 * PAGE, list.extents[0].offset);
	EXPECT_EQ(COWMEM_EXTENT_HOLE, list.extents[0].flags);
	EXPECT_EQ(8 * GIB, list.extents[1].offset);
	EXPECT_EQ(COWMEM_EXTENT_DATA, list.extents[1].flags);
	EXPECT_EQ(16 * GIB - PAGE, list.extents[2].offset);
	EXPECT_EQ(COWMEM_EXTENT_DATA, list.extents[2].flags);
}

TEST_F(large, cursor_in_the_middle_of_16_GiB)
{
	struct list list;

	ASSERT_TRUE(write_byte(self->clone, 8 * GIB, '1'));
	ASSERT_TRUE(write_byte(self->clone, 8 * GIB + PAGE, '2'));
	ASSERT_TRUE(write_byte(self->clone, 12 * GIB, '3'));
	ASSERT_EQ(0, list_diff(&list, self->clone, self->origin, 8 * GIB + PAGE,
			       1));
	ASSERT_EQ(2, list.nr);
	EXPECT_EQ(8 * GIB + PAGE, list.extents[0].offset);
	EXPECT_EQ(12 * GIB, list.extents[1].offset);
}

TEST_F(large, buffer_of_one_page_with_one_of_16_GiB)
{
	int small = cow_create(PAGE, "small");
	struct list list;

	ASSERT_GE(small, 0);
	ASSERT_EQ(0, list_diff(&list, small, self->origin, 0, ROOM));
	ASSERT_EQ(2, list.nr);
	EXPECT_EQ(GIB, list.extents[0].offset);
	EXPECT_EQ(8 * GIB, list.extents[1].offset);
	EXPECT_EQ(COWMEM_EXTENT_HOLE, list.extents[1].flags);
}

TEST_F(large, run_of_many_pages_is_one_extent)
{
	unsigned long nr = 200, first = GIB / PAGE - 77;
	struct list list;
	unsigned long i;

	for (i = 0; i < nr; i++)
		ASSERT_TRUE(write_byte(self->clone, (first + i) * PAGE, '!'));
	ASSERT_EQ(0, list_diff(&list, self->clone, self->origin, 0, ROOM));
	ASSERT_EQ(1, list.nr);
	EXPECT_EQ(first * PAGE, list.extents[0].offset);
	EXPECT_EQ(nr * PAGE, list.extents[0].length);
}

/* More than one call lists, whatever room there is. */
TEST_F(large, pages_apart_in_more_extents_than_one_call_lists)
{
	static struct cowmem_extent extents[1100];
	unsigned int want = ARRAY_SIZE(extents), found = 0, i;
	uint64_t cursor = 0, start;
	const unsigned char *rest;
	int nr;

	for (i = 0; i < want; i++)
		ASSERT_TRUE(write_byte(self->clone, 2 * i * PAGE, '!'));
	do {
		memset(extents, POISON, sizeof(extents));
		start = cursor;
		nr = cow_diff(self->clone, self->origin, extents, want, &cursor);
		ASSERT_LT(0, nr);
		ASSERT_GE(1024, nr);
		ASSERT_TRUE(call_valid(extents, nr, start, cursor));
		for (i = 0; i < nr; i++, found++) {
			ASSERT_EQ(2 * found * PAGE, extents[i].offset);
			ASSERT_EQ(PAGE, extents[i].length);
			ASSERT_EQ(COWMEM_EXTENT_DATA, extents[i].flags);
		}
		rest = (const unsigned char *)&extents[nr];
		EXPECT_EQ(POISON, rest[0]);
		EXPECT_EQ(0, memcmp(rest, rest + 1,
				    (want - nr) * sizeof(extents[0]) - 1));
	} while (cursor != END);
	EXPECT_EQ(want, found);
}

/*
 * The buffer has one page in all places, the other has none: pages of their own
 * would take more memory than the machine may have.
 */
TEST_F_TIMEOUT(large, run_of_300000_pages_is_listed_without_a_gap, 300)
{
	unsigned long nr = 300000, done = 1, step;
	struct list list;
	int fd, other;

	NEED(CLONE);
	fd = cow_create(0, "run");
	ASSERT_GE(fd, 0);
	other = cow_create(0, "none");
	ASSERT_GE(other, 0);
	ASSERT_EQ(PAGE, write_page(fd, 0, '!'));
	for (; done < nr; done += step) {
		step = done < nr - done ? done : nr - done;
		ASSERT_EQ(0, cow_clone_range(fd, done * PAGE, fd, 0,
					     step * PAGE));
	}
	ASSERT_EQ(nr * PAGE, cow_stat(fd).length);
	ASSERT_EQ(0, list_diff(&list, fd, other, 0, ROOM));
	ASSERT_EQ(1, list.nr);
	EXPECT_EQ(0, list.extents[0].offset);
	EXPECT_EQ(nr * PAGE, list.extents[0].length);
	EXPECT_EQ(COWMEM_EXTENT_DATA, list.extents[0].flags);
	close(fd);
	close(other);
}

/* The shortest of some. */
static double diff_seconds(int fd, int other)
{
	struct cowmem_extent extents[ROOM];
	double best = 1e9, start, took;
	uint64_t cursor;
	int i;

	for (i = 0; i < 20; i++) {
		cursor = 0;
		start = seconds_now();
		if (cow_diff(fd, other, extents, ROOM, &cursor) != 3)
			return -1;
		took = seconds_now() - start;
		if (took < best)
			best = took;
	}
	return best;
}

/*
 * Time for a buffer of @size bytes, the first @nr pages of which are data, and
 * a clone that wrote three of its pages.
 */
static double seconds_of_three(uint64_t size, unsigned long nr)
{
	int fd = cow_create(size, "three"), clone;
	double seconds = -1;
	unsigned long i;

	for (i = 0; i < nr; i++)
		write_byte(fd, i * PAGE, 1);
	clone = cow_snapshot(fd, COWMEM_WRITABLE);
	if (clone >= 0 && write_byte(clone, PAGE, 2) &&
	    write_byte(clone, size / 2, 2) && write_byte(clone, size - 1, 2))
		seconds = diff_seconds(fd, clone);
	close(clone);
	close(fd);
	return seconds;
}

TEST_F(large, time_grows_with_what_differs_not_with_the_size)
{
	double small = seconds_of_three(8 * PAGE, 8);
	double dense = seconds_of_three(4096 * PAGE, 4096);
	double sparse = seconds_of_three(16 * GIB, 8);

	ASSERT_GT(small, 0);
	ASSERT_GT(dense, 0);
	ASSERT_GT(sparse, 0);
	TH_LOG("8 pages: %.1f us, 4096 pages: %.1f us, 16 GiB: %.1f us",
	       small * 1e6, dense * 1e6, sparse * 1e6);
	/* Only a check that it does not look at every page. */
	EXPECT_LT(dense, 20 * small);
	EXPECT_LT(sparse, 20 * small);
}

/*
 * Two clones against a model that knows who owns which page: slot number i is
 * page number i * stride.
 */

#define SLOTS		64UL
#define ROUNDS		200

struct side {
	int fd;
	char *map;
	unsigned long nr;		/* slots below the end */
	unsigned int id[SLOTS];		/* of the page, 0: a hole */
	char value[SLOTS];
};

FIXTURE(model)
{
	struct side sides[2];
	unsigned long stride;
	unsigned int last_id;
	unsigned int seed;
};

FIXTURE_VARIANT(model)
{
	unsigned long stride;
};

FIXTURE_VARIANT_ADD(model, dense) { .stride = 1 };
/* Far apart, also for an index with large nodes. */
FIXTURE_VARIANT_ADD(model, sparse) { .stride = 521 };

static bool side_map(struct side *side, unsigned long stride)
{
	side->map = cow_map(side->fd, SLOTS * stride * PAGE, RW);
	return side->map != MAP_FAILED;
}

FIXTURE_SETUP(model)
{
	struct side *sides = self->sides;

	NEED(DIFF);
	self->stride = variant->stride;
	self->seed = 1;
	sides[0].nr = SLOTS;
	sides[0].fd = cow_create(SLOTS * self->stride * PAGE, "model");
	ASSERT_GE(sides[0].fd, 0);
	ASSERT_TRUE(side_map(&sides[0], self->stride));
	sides[1] = sides[0];
	sides[1].fd = cow_snapshot(sides[0].fd, COWMEM_WRITABLE);
	ASSERT_GE(sides[1].fd, 0);
	ASSERT_TRUE(side_map(&sides[1], self->stride));
}

FIXTURE_TEARDOWN(model)
{
	close(self->sides[0].fd);
	close(self->sides[1].fd);
}

static unsigned int any(FIXTURE_DATA(model) *self, unsigned int nr)
{
	return rand_r(&self->seed) / 7 % nr;
}

/* Whatever the page was: afterwards nobody shares it. */
static bool model_write(FIXTURE_DATA(model) *self, struct side *side)
{
	unsigned long slot = any(self, SLOTS);
	off_t offset = slot * self->stride * PAGE;
	char value = 1 + any(self, 100), data[PAGE];

	side->id[slot] = ++self->last_id;
	side->value[slot] = value;
	if (slot < side->nr && any(self, 2)) {
		side->map[offset] = value;
		return true;
	}
	if (slot >= side->nr)
		side->nr = slot + 1;
	/* Whole pages: no size ever ends within a page that is shared. */
	memset(data, value, PAGE);
	return pwrite(side->fd, data, PAGE, offset) == PAGE;
}

static bool model_resize(FIXTURE_DATA(model) *self, struct side *side)
{
	unsigned long slot, nr = side->nr + any(self, 21);

	nr = nr < 10 ? 0 : nr - 10;
	if (nr > SLOTS)
		nr = SLOTS;
	for (slot = nr; slot < side->nr; slot++) {
		side->id[slot] = 0;
		side->value[slot] = 0;
	}
	side->nr = nr;
	return !ftruncate(side->fd, nr * self->stride * PAGE);
}

/* Make one a clone of the other again. */
static bool model_clone(FIXTURE_DATA(model) *self)
{
	unsigned int which = any(self, 2);
	struct side *from = &self->sides[which], *to = &self->sides[!which];

	munmap(to->map, SLOTS * self->stride * PAGE);
	close(to->fd);
	*to = *from;
	to->fd = cow_snapshot(from->fd, COWMEM_WRITABLE);
	return to->fd >= 0 && side_map(to, self->stride);
}

static bool model_step(FIXTURE_DATA(model) *self)
{
	struct side *side = &self->sides[any(self, 2)];
	unsigned int what = any(self, 40);

	if (!what)
		return model_clone(self);
	return what < 6 ? model_resize(self, side) : model_write(self, side);
}

/* What DIFF lists, as flags for each slot. */
static bool model_listed(FIXTURE_DATA(model) *self, int fd, int other,
			 unsigned int flags[SLOTS])
{
	struct cowmem_extent *extent;
	struct list list;
	unsigned long page;
	unsigned int i;

	memset(flags, 0, SLOTS * sizeof(flags[0]));
	if (list_diff(&list, fd, other, 0, 1 + any(self, 8)))
		return false;
	for (i = 0; i < list.nr; i++) {
		extent = &list.extents[i];
		for (page = extent->offset / PAGE;
		     page < (extent->offset + extent->length) / PAGE; page++) {
			if (page % self->stride || page / self->stride >= SLOTS)
				return false;
			flags[page / self->stride] = extent->flags;
		}
	}
	return true;
}

static bool model_agrees(FIXTURE_DATA(model) *self, unsigned int which)
{
	struct side *side = &self->sides[which], *other = &self->sides[!which];
	unsigned int flags[SLOTS], want;
	unsigned long slot;

	if (!model_listed(self, side->fd, other->fd, flags))
		return false;
	for (slot = 0; slot < SLOTS; slot++) {
		want = side->id[slot] ? COWMEM_EXTENT_DATA : COWMEM_EXTENT_HOLE;
		if (side->id[slot] == other->id[slot])
			want = 0;
		if (flags[slot] != want)
			return false;
	}
	return true;
}

static bool model_content_ok(FIXTURE_DATA(model) *self, struct side *side)
{
	unsigned long slot;

	for (slot = 0; slot < side->nr; slot++)
		if (read_byte(side->fd, slot * self->stride * PAGE) !=
		    side->value[slot])
			return false;
	return true;
}

TEST_F(model, lists_exactly_what_is_not_shared)
{
	unsigned int round, i;

	for (round = 0; round < ROUNDS; round++) {
		for (i = any(self, 4); i < 4; i++)
			ASSERT_TRUE(model_step(self));
		ASSERT_TRUE(model_agrees(self, 0)) TH_LOG("round %u", round);
		ASSERT_TRUE(model_agrees(self, 1)) TH_LOG("round %u", round);
	}
	EXPECT_TRUE(model_content_ok(self, &self->sides[0]));
	EXPECT_TRUE(model_content_ok(self, &self->sides[1]));
}

/*
 * While others write
 */

/* Apart, so that the pages lie in several nodes of the index. */
#define ORDERED		64UL
#define STRIDE		65UL

struct writer {
	int fd;
	char *map;
	int round;
};

/* One page after the other, in ascending order. */
static void *write_in_order(void *data)
{
	struct writer *writer = data;
	unsigned long i;

	for (i = 0; i < ORDERED; i++)
		writer->map[i * STRIDE * PAGE] = writer->round;
	return NULL;
}

/* If a call lists a page, it lists all that were written before. */
static bool in_order(const struct cowmem_extent *extents, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		if (extents[i].offset != i * STRIDE * PAGE ||
		    extents[i].length != PAGE)
			return false;
	return nr >= 0;
}

TEST(one_call_sees_one_moment)
{
	struct cowmem_extent extents[ROOM];
	struct writer writer;
	pthread_t thread;
	uint64_t cursor;
	int nr, snap;

	NEED(DIFF);
	writer.fd = cow_create_mapped(ORDERED * STRIDE * PAGE, "ordered",
				      &writer.map);
	ASSERT_GE(writer.fd, 0);
	for (writer.round = 1; writer.round <= 20; writer.round++) {
		snap = cow_snapshot(writer.fd, 0);
		ASSERT_GE(snap, 0);
		ASSERT_EQ(0, pthread_create(&thread, NULL, write_in_order,
					    &writer));
		do {
			cursor = 0;
			nr = cow_diff(writer.fd, snap, extents, ROOM, &cursor);
			ASSERT_TRUE(in_order(extents, nr));
			sched_yield();
		} while (nr < ORDERED);
		pthread_join(thread, NULL);
		close(snap);
	}
	close(writer.fd);
}

struct comparer {
	int fd, other;
	unsigned int failed;
};

static void *compare(void *data)
{
	struct comparer *comparer = data;
	struct list list;
	int i;

	for (i = 0; i < 200; i++)
		if (list_diff(&list, comparer->fd, comparer->other, 0, ROOM))
			comparer->failed++;
	return NULL;
}

TEST_F(pair, comparing_both_ways_at_once_ends)
{
	struct comparer comparers[] = {
		{ self->origin, self->clone }, { self->clone, self->origin },
	};
	pthread_t threads[2];
	int i;

	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, compare,
					    &comparers[i]));
	for (i = 0; i < 200; i++) {
		self->p[i % NR * PAGE] = '1';
		self->q[(i + 3) % NR * PAGE] = '2';
	}
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	EXPECT_EQ(0, comparers[0].failed);
	EXPECT_EQ(0, comparers[1].failed);
	EXPECT_STREQ("DDDDDDDDDDDDDDDD", diff(self->origin, self->clone));
}

/*
 * Bad input: two extents are there to be listed
 */

FIXTURE(bad)
{
	int origin, clone;
	struct cowmem_extent *extents;	/* the last two of a mapping */
	struct cowmem_diff arg;
	struct cowmem_stat before[2];
};

FIXTURE_SETUP(bad)
{
	char *array;

	NEED(DIFF);
	self->origin = cow_create(SIZE, "origin");
	ASSERT_GE(self->origin, 0);
	self->clone = cow_snapshot(self->origin, COWMEM_WRITABLE);
	ASSERT_GE(self->clone, 0);
	ASSERT_TRUE(write_byte(self->origin, 2 * PAGE, '!'));
	ASSERT_TRUE(write_byte(self->clone, 5 * PAGE, '!'));
	array = mmap(NULL, 2 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, array);
	ASSERT_EQ(0, munmap(array + PAGE, PAGE));
	memset(array, POISON, PAGE);
	self->extents = (void *)(array + PAGE - 2 * sizeof(*self->extents));
	self->arg = (struct cowmem_diff) {
		.size = sizeof(self->arg),
		.other = self->clone,
		.nr_extents = 2,
		.extents = (uintptr_t)self->extents,
	};
	self->before[0] = cow_stat(self->origin);
	self->before[1] = cow_stat(self->clone);
}

FIXTURE_TEARDOWN(bad)
{
	close(self->origin);
	close(self->clone);
}

/* On @fd, and nothing has changed; the array may be written to by EFAULT only. */
static void fails_on(struct __test_metadata *_metadata, FIXTURE_DATA(bad) *self,
		     int fd, int err)
{
	struct cowmem_diff arg = self->arg;
	struct cowmem_stat origin, clone;

	EXPECT_EQ(-err, cow_ioctl(fd, COWMEM_DIFF, &arg));
	EXPECT_EQ(0, memcmp(&arg, &self->arg, sizeof(arg)))
		TH_LOG("a call that failed has written to its struct");
	if (err != EFAULT) {
		EXPECT_EQ((unsigned char)POISON,
			  *(unsigned char *)&self->extents[0].offset);
		EXPECT_EQ(0, memcmp(&self->extents[0], &self->extents[1],
				    sizeof(self->extents[0])));
	}
	origin = cow_stat(self->origin);
	clone = cow_stat(self->clone);
	EXPECT_EQ(0, memcmp(&origin, &self->before[0], sizeof(origin)));
	EXPECT_EQ(0, memcmp(&clone, &self->before[1], sizeof(clone)));
	EXPECT_STREQ("..D..H..........", diff(self->origin, self->clone));
}

static void fails(struct __test_metadata *_metadata, FIXTURE_DATA(bad) *self,
		  int err)
{
	fails_on(_metadata, self, self->origin, err);
}

TEST_F(bad, input_is_valid_but_for_one_thing)
{
	ASSERT_EQ(0, cow_ioctl(self->origin, COWMEM_DIFF, &self->arg));
	EXPECT_EQ(2, self->arg.nr_extents);
	EXPECT_EQ(2 * PAGE, self->extents[0].offset);
	EXPECT_EQ(5 * PAGE, self->extents[1].offset);
}

TEST_F(bad, other_that_is_no_fd_is_EBADF)
{
	int fds[] = { -1, INT32_MAX, dup(0) };
	unsigned int i;

	close(fds[2]);
	for (i = 0; i < 3; i++) {
		self->arg.other = fds[i];
		fails(_metadata, self, EBADF);
	}
}

TEST_F(bad, other_that_is_no_cowmem_buffer_is_EBADF)
{
	int fds[] = {
		memfd_create("other", 0), open("/dev/null", O_RDWR),
		open("/proc", O_RDONLY),
	};
	unsigned int i;

	for (i = 0; i < 3; i++) {
		ASSERT_GE(fds[i], 0);
		self->arg.other = fds[i];
		fails(_metadata, self, EBADF);
	}
}

TEST_F(bad, other_that_is_an_O_PATH_handle_is_EBADF)
{
	self->arg.other = reopen(self->clone, O_PATH);
	ASSERT_GE(self->arg.other, 0);
	fails(_metadata, self, EBADF);
}

TEST_F(bad, other_that_cannot_be_read_is_EACCES)
{
	self->arg.other = reopen(self->clone, O_WRONLY);
	ASSERT_GE(self->arg.other, 0);
	fails(_metadata, self, EACCES);
}

TEST_F(bad, handle_that_cannot_be_read_is_EACCES)
{
	int fd = reopen(self->origin, O_WRONLY);

	ASSERT_GE(fd, 0);
	fails_on(_metadata, self, fd, EACCES);
}

TEST_F(bad, device_handle_that_cannot_be_read_is_EACCES)
{
	int dev = open(COWMEM_DEVICE, O_WRONLY);

	ASSERT_GE(dev, 0);
	fails_on(_metadata, self, dev, EACCES);
	self->arg.other = dev;
	fails(_metadata, self, EACCES);
}

TEST_F(bad, cursor_that_is_not_aligned_is_EINVAL)
{
	static const uint64_t cursors[] = {
		1, PAGE - 1, PAGE + 512, 2 * SIZE + 1, END - PAGE, END,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cursors); i++) {
		self->arg.cursor = cursors[i];
		fails(_metadata, self, EINVAL);
	}
}

TEST_F(bad, no_room_is_EINVAL)
{
	self->arg.nr_extents = 0;
	fails(_metadata, self, EINVAL);
}

TEST_F(bad, each_flag_is_EINVAL)
{
	unsigned int bit;

	for (bit = 0; bit < 32; bit++) {
		self->arg.flags = 1U << bit;
		fails(_metadata, self, EINVAL);
	}
}

TEST_F(bad, array_at_no_address_is_EFAULT)
{
	self->arg.extents = 0;
	fails(_metadata, self, EFAULT);
}

TEST_F(bad, array_in_the_kernel_is_EFAULT)
{
	self->arg.extents = -64 * PAGE;
	fails(_metadata, self, EFAULT);
	self->arg.extents = END - 7;
	fails(_metadata, self, EFAULT);
}

TEST_F(bad, array_that_is_not_mapped_is_EFAULT)
{
	self->arg.extents += 2 * sizeof(*self->extents);
	fails(_metadata, self, EFAULT);
}

TEST_F(bad, array_of_which_a_part_is_not_mapped_is_EFAULT)
{
	self->arg.extents += sizeof(*self->extents);
	fails(_metadata, self, EFAULT);
	self->arg.extents -= sizeof(*self->extents) - 8;
	fails(_metadata, self, EFAULT);
}

TEST_F(bad, array_in_read_only_memory_is_EFAULT)
{
	void *page = (void *)((uintptr_t)self->extents & -PAGE);

	ASSERT_EQ(0, mprotect(page, PAGE, PROT_READ));
	fails(_metadata, self, EFAULT);
	ASSERT_EQ(0, mprotect(page, PAGE, PROT_NONE));
	fails(_metadata, self, EFAULT);
}

TEST_HARNESS_MAIN
