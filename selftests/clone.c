// SPDX-License-Identifier: GPL-2.0
/*
 * FICLONE, FICLONERANGE and copy_file_range() between buffers: what they share
 * and what they copy, that each side keeps to itself what is written later, and
 * what they refuse.  Every buffer has a model in ordinary memory; all bytes of
 * both sides are compared with it, by read() and in mappings that were written
 * through before the call.
 */
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

#include <linux/fs.h>

#include "common.h"
#include "harness.h"
#include "bytes.h"

#define NR	16UL
#define SIZE	(NR * PAGE)

static bool buffer_truncate(struct buffer *buf, size_t size)
{
	if (size < buf->size)
		memset(buf->want + size, 0, buf->size - size);
	buf->size = size;
	return !ftruncate(buf->fd, size);
}

/* Of a buffer that has every page: how many are in that range? */
static long pages_in(struct buffer *buf, size_t offset, size_t length)
{
	size_t end = page_up(offset + length);

	if (end > page_up(buf->size))
		end = page_up(buf->size);
	return offset < end ? (end - offset) / PAGE : 0;
}

/* What a clone or a copy does to the model of the destination. */
static void model_copy(struct buffer *dst, size_t to, struct buffer *src,
		       size_t from, size_t length)
{
	memmove(dst->want + to, src->want + from, length);
	if (length && dst->size < to + length)
		dst->size = to + length;
}

/* FICLONE, also of the model. */
static long buffer_clone(struct buffer *dst, struct buffer *src)
{
	long err = ret(ioctl(dst->fd, FICLONE, src->fd));

	if (!err)
		model_copy(dst, 0, src, 0, src->size);
	return err;
}

/* FICLONERANGE, also of the model. */
static long buffer_clone_range(struct buffer *dst, uint64_t to,
			       struct buffer *src, uint64_t from,
			       uint64_t length)
{
	long err = cow_clone_range(dst->fd, to, src->fd, from, length);

	if (!err)
		model_copy(dst, to, src, from, length ?: src->size - from);
	return err;
}

/* What is left of @length up to the end of @src. */
static size_t copy_length(struct buffer *src, size_t from, size_t length)
{
	size_t left = from < src->size ? src->size - from : 0;

	return length < left ? length : left;
}

/*
 * copy_file_range(), also of the model; goes on after a short count.  The value
 * is the number of bytes, or -errno of the first call.
 */
static long buffer_copy(struct buffer *dst, size_t to, struct buffer *src,
			size_t from, size_t length)
{
	size_t want = copy_length(src, from, length), done;
	long n = copy_range(dst->fd, to, src->fd, from, length);

	if (n < 0)
		return n;
	for (done = n; n > 0 && done < want; done += n > 0 ? n : 0)
		n = copy_range(dst->fd, to + done, src->fd, from + done,
			       want - done);
	model_copy(dst, to, src, from, done);
	return done;
}

/*
 * FICLONE
 */

FIXTURE(whole)
{
	struct buffer src;
	struct buffer dst;
	long pages;
};

FIXTURE_VARIANT(whole)
{
	size_t src_size;
	size_t dst_size;
	int err;
};

FIXTURE_VARIANT_ADD(whole, into_an_empty_buffer) { SIZE, 0 };
FIXTURE_VARIANT_ADD(whole, into_a_smaller_buffer) { SIZE, 4 * PAGE };
FIXTURE_VARIANT_ADD(whole, into_one_of_the_same_size) { SIZE, SIZE };
FIXTURE_VARIANT_ADD(whole, into_a_larger_buffer) { SIZE, 24 * PAGE };
FIXTURE_VARIANT_ADD(whole, into_an_unaligned_smaller) { SIZE, 4 * PAGE + 77 };
FIXTURE_VARIANT_ADD(whole, into_an_unaligned_larger) { SIZE, SIZE + 77 };
FIXTURE_VARIANT_ADD(whole, of_nothing) { 0, SIZE };
FIXTURE_VARIANT_ADD(whole, of_less_than_a_page) { 77, 0 };
FIXTURE_VARIANT_ADD(whole, unaligned_into_an_empty_buffer) { SIZE + 100, 0 };
FIXTURE_VARIANT_ADD(whole, unaligned_into_a_smaller) { SIZE + 100, SIZE };
FIXTURE_VARIANT_ADD(whole, unaligned_into_the_same_page) {
	SIZE + 100, SIZE + 99,
};
FIXTURE_VARIANT_ADD(whole, unaligned_into_the_same_size) {
	SIZE + 100, SIZE + 100,
};
FIXTURE_VARIANT_ADD(whole, unaligned_into_one_byte_more) {
	SIZE + 100, SIZE + 101, -EINVAL,
};
FIXTURE_VARIANT_ADD(whole, unaligned_into_a_larger) {
	SIZE + 100, 24 * PAGE, -EINVAL,
};

FIXTURE_SETUP(whole)
{
	ASSERT_TRUE(buffer_create_filled(&self->src, variant->src_size, 1));
	ASSERT_TRUE(buffer_create_filled(&self->dst, variant->dst_size, 2));
	self->pages = cow_param("pages");
}

FIXTURE_TEARDOWN(whole)
{
	buffer_close(&self->src);
	buffer_close(&self->dst);
}

TEST_F(whole, has_the_content_and_shares_it)
{
	long replaced = pages_in(&self->dst, 0, variant->src_size);

	EXPECT_EQ(variant->err, buffer_clone(&self->dst, &self->src));
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_EQ(page_up(self->dst.size), resident(&self->dst));
	EXPECT_EQ(page_up(self->src.size), resident(&self->src));
	EXPECT_EQ(self->pages - (variant->err ? 0 : replaced),
		  cow_param("pages"));
}

TEST_F(whole, later_writes_are_seen_on_their_own_side_only)
{
	EXPECT_EQ(variant->err, buffer_clone(&self->dst, &self->src));
	buffer_store_all(&self->dst);
	EXPECT_TRUE(buffer_ok(&self->src));
	buffer_store_all(&self->src);
	EXPECT_TRUE(buffer_ok(&self->dst));
	ASSERT_TRUE(buffer_write_all(&self->dst));
	ASSERT_TRUE(buffer_write_all(&self->src));
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->dst));
}

/*
 * FICLONERANGE
 */

FIXTURE(range)
{
	struct buffer src;
	struct buffer other;
	struct buffer *dst;
	long pages;
};

/* Sizes of 0 stand for SIZE. */
FIXTURE_VARIANT(range)
{
	size_t src_size;
	size_t dst_size;
	bool same;	/* within src */
	uint64_t from;
	uint64_t to;
	uint64_t length;
};

FIXTURE_VARIANT_ADD(range, one_page) {
	.from = 3 * PAGE, .to = 3 * PAGE, .length = PAGE,
};
FIXTURE_VARIANT_ADD(range, all) { .length = SIZE };
FIXTURE_VARIANT_ADD(range, all_by_length_0) { .length = 0 };
FIXTURE_VARIANT_ADD(range, middle) {
	.from = 4 * PAGE, .to = 4 * PAGE, .length = 5 * PAGE,
};
FIXTURE_VARIANT_ADD(range, to_a_higher_offset) {
	.from = 2 * PAGE, .to = 9 * PAGE, .length = 4 * PAGE,
};
FIXTURE_VARIANT_ADD(range, to_a_lower_offset) {
	.from = 9 * PAGE, .to = 2 * PAGE, .length = 4 * PAGE,
};
FIXTURE_VARIANT_ADD(range, to_the_end_by_length_0) {
	.from = 10 * PAGE, .to = 3 * PAGE,
};
FIXTURE_VARIANT_ADD(range, nothing_by_length_0_at_the_end) {
	.from = SIZE, .to = 3 * PAGE,
};
FIXTURE_VARIANT_ADD(range, across_the_end_of_the_destination) {
	.from = 8 * PAGE, .to = 12 * PAGE, .length = 8 * PAGE,
};
FIXTURE_VARIANT_ADD(range, across_an_unaligned_end_of_the_destination) {
	.dst_size = 5 * PAGE + 50, .from = 4 * PAGE, .to = 4 * PAGE,
	.length = 3 * PAGE,
};
FIXTURE_VARIANT_ADD(range, ends_in_the_page_of_the_destinations_end) {
	.dst_size = 5 * PAGE + 50, .from = 4 * PAGE, .to = 4 * PAGE,
	.length = 2 * PAGE,
};
FIXTURE_VARIANT_ADD(range, at_the_end_of_the_destination) {
	.to = SIZE, .length = SIZE,
};
FIXTURE_VARIANT_ADD(range, beyond_the_end_of_the_destination) {
	.from = PAGE, .to = SIZE + 5 * PAGE, .length = 8 * PAGE,
};
FIXTURE_VARIANT_ADD(range, beyond_an_unaligned_end_of_the_destination) {
	.dst_size = SIZE - 100, .from = PAGE, .to = SIZE + 5 * PAGE,
	.length = 8 * PAGE,
};
FIXTURE_VARIANT_ADD(range, unaligned_end_to_the_same_end) {
	.src_size = 15 * PAGE + 100, .dst_size = 15 * PAGE + 100,
	.from = 10 * PAGE, .to = 10 * PAGE, .length = 5 * PAGE + 100,
};
FIXTURE_VARIANT_ADD(range, unaligned_end_across_the_end) {
	.src_size = 15 * PAGE + 100,
	.from = 10 * PAGE, .to = 14 * PAGE, .length = 5 * PAGE + 100,
};
FIXTURE_VARIANT_ADD(range, unaligned_end_by_length_0) {
	.src_size = 15 * PAGE + 100, .from = 15 * PAGE, .to = SIZE,
};
FIXTURE_VARIANT_ADD(range, aligned_part_of_an_unaligned_source) {
	.src_size = 15 * PAGE + 100, .from = 10 * PAGE, .to = 2 * PAGE,
	.length = 5 * PAGE,
};
FIXTURE_VARIANT_ADD(range, within_a_buffer_to_a_higher_offset) {
	.same = true, .to = 9 * PAGE, .length = 7 * PAGE,
};
FIXTURE_VARIANT_ADD(range, within_a_buffer_to_a_lower_offset) {
	.same = true, .from = 9 * PAGE, .length = 7 * PAGE,
};
FIXTURE_VARIANT_ADD(range, within_a_buffer_side_by_side) {
	.same = true, .to = 8 * PAGE, .length = 8 * PAGE,
};
FIXTURE_VARIANT_ADD(range, within_a_buffer_to_its_end) {
	.same = true, .to = SIZE, .length = SIZE,
};
FIXTURE_VARIANT_ADD(range, within_a_buffer_unaligned_end_behind_itself) {
	.src_size = 3 * PAGE + 100, .same = true, .from = 3 * PAGE,
	.to = 4 * PAGE, .length = 100,
};

FIXTURE_SETUP(range)
{
	ASSERT_TRUE(buffer_create_filled(&self->src,
					 variant->src_size ?: SIZE, 1));
	ASSERT_TRUE(buffer_create_filled(&self->other,
					 variant->dst_size ?: SIZE, 2));
	self->dst = variant->same ? &self->src : &self->other;
	self->pages = cow_param("pages");
}

FIXTURE_TEARDOWN(range)
{
	buffer_close(&self->src);
	buffer_close(&self->other);
}

TEST_F(range, has_the_content_and_shares_it)
{
	uint64_t length = variant->length ?: self->src.size - variant->from;
	long replaced = pages_in(self->dst, variant->to, length);

	EXPECT_EQ(0, buffer_clone_range(self->dst, variant->to, &self->src,
					variant->from, variant->length));
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->other));
	EXPECT_EQ(self->pages - replaced, cow_param("pages"));
}

TEST_F(range, later_writes_are_seen_in_their_own_place_only)
{
	EXPECT_EQ(0, buffer_clone_range(self->dst, variant->to, &self->src,
					variant->from, variant->length));
	buffer_store_all(&self->other);
	EXPECT_TRUE(buffer_ok(&self->src));
	buffer_store_all(&self->src);
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->other));
	ASSERT_TRUE(buffer_write_all(&self->other));
	ASSERT_TRUE(buffer_write_all(&self->src));
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->other));
}

/*
 * Ranges that are EINVAL
 */

FIXTURE(refused)
{
	struct buffer src;
	struct buffer other;
	struct buffer *dst;
	long pages;
};

/* As for range. */
FIXTURE_VARIANT(refused)
{
	size_t src_size;
	size_t dst_size;
	bool same;
	uint64_t from;
	uint64_t to;
	uint64_t length;
};

FIXTURE_VARIANT_ADD(refused, unaligned_source_offset) {
	.from = 100, .length = PAGE,
};
FIXTURE_VARIANT_ADD(refused, unaligned_destination_offset) {
	.to = 100, .length = PAGE,
};
FIXTURE_VARIANT_ADD(refused, offsets_unaligned_alike) {
	.from = 512, .to = 512, .length = 2 * PAGE,
};
FIXTURE_VARIANT_ADD(refused, unaligned_length) {
	.length = PAGE + 512,
};
FIXTURE_VARIANT_ADD(refused, length_below_a_page) {
	.length = 1,
};
FIXTURE_VARIANT_ADD(refused, unaligned_length_before_the_end) {
	.src_size = 15 * PAGE + 100, .from = 10 * PAGE, .to = SIZE,
	.length = 5 * PAGE + 99,
};
FIXTURE_VARIANT_ADD(refused, unaligned_length_to_the_destinations_end) {
	.dst_size = 5 * PAGE + 100, .length = 5 * PAGE + 100,
};
FIXTURE_VARIANT_ADD(refused, unaligned_end_inside_the_destination) {
	.src_size = 15 * PAGE + 100, .from = 10 * PAGE, .to = 3 * PAGE,
	.length = 5 * PAGE + 100,
};
FIXTURE_VARIANT_ADD(refused, unaligned_end_by_length_0_inside) {
	.src_size = 15 * PAGE + 100, .from = 10 * PAGE, .to = 3 * PAGE,
};
FIXTURE_VARIANT_ADD(refused, across_the_end_of_the_source) {
	.from = 12 * PAGE, .length = 5 * PAGE,
};
FIXTURE_VARIANT_ADD(refused, across_an_unaligned_end_of_the_source) {
	.src_size = 15 * PAGE + 100, .from = 12 * PAGE, .to = 12 * PAGE,
	.length = 4 * PAGE,
};
FIXTURE_VARIANT_ADD(refused, at_the_end_of_the_source) {
	.from = SIZE, .length = PAGE,
};
FIXTURE_VARIANT_ADD(refused, behind_the_end_of_the_source) {
	.from = SIZE + PAGE, .length = PAGE,
};
FIXTURE_VARIANT_ADD(refused, length_0_behind_the_end_of_the_source) {
	.from = SIZE + PAGE,
};
FIXTURE_VARIANT_ADD(refused, huge_length) {
	.length = INT64_MAX,
};
FIXTURE_VARIANT_ADD(refused, negative_length) {
	.length = -PAGE,
};
FIXTURE_VARIANT_ADD(refused, negative_source_offset) {
	.from = -PAGE, .length = PAGE,
};
FIXTURE_VARIANT_ADD(refused, negative_destination_offset) {
	.to = -PAGE, .length = PAGE,
};
FIXTURE_VARIANT_ADD(refused, end_of_the_destination_overflows) {
	.to = INT64_MAX & -PAGE, .length = PAGE,
};
FIXTURE_VARIANT_ADD(refused, overlap_from_below) {
	.same = true, .to = 3 * PAGE, .length = 4 * PAGE,
};
FIXTURE_VARIANT_ADD(refused, overlap_from_above) {
	.same = true, .from = 3 * PAGE, .length = 4 * PAGE,
};
FIXTURE_VARIANT_ADD(refused, onto_itself) {
	.same = true, .from = 3 * PAGE, .to = 3 * PAGE, .length = PAGE,
};
FIXTURE_VARIANT_ADD(refused, overlap_by_an_unaligned_end) {
	.src_size = 3 * PAGE + 100, .same = true, .from = 2 * PAGE,
	.to = 3 * PAGE,
};

FIXTURE_SETUP(refused)
{
	ASSERT_TRUE(buffer_create_filled(&self->src,
					 variant->src_size ?: SIZE, 1));
	ASSERT_TRUE(buffer_create_filled(&self->other,
					 variant->dst_size ?: SIZE, 2));
	self->dst = variant->same ? &self->src : &self->other;
	self->pages = cow_param("pages");
}

FIXTURE_TEARDOWN(refused)
{
	buffer_close(&self->src);
	buffer_close(&self->other);
}

TEST_F(refused, EINVAL_and_nothing_changes)
{
	EXPECT_EQ(-EINVAL,
		  buffer_clone_range(self->dst, variant->to, &self->src,
				     variant->from, variant->length));
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->other));
	EXPECT_EQ(self->pages, cow_param("pages"));
}

/*
 * Clones of one buffer in another of the same size
 */

FIXTURE(pair)
{
	struct buffer src;
	struct buffer dst;
	int pipefd[2];
	long pages;
};

FIXTURE_SETUP(pair)
{
	ASSERT_TRUE(buffer_create_filled(&self->src, SIZE, 1));
	ASSERT_TRUE(buffer_create_filled(&self->dst, SIZE, 2));
	ASSERT_EQ(0, pipe(self->pipefd));
	self->pages = cow_param("pages");
}

/* Whatever else was done, no model may be wrong in the end. */
FIXTURE_TEARDOWN(pair)
{
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->dst));
	buffer_close(&self->src);
	buffer_close(&self->dst);
}

TEST_F(pair, sharing_is_told_by_STAT)
{
	struct cowmem_stat st;

	NEED(SHARING);
	ASSERT_EQ(0, buffer_clone(&self->dst, &self->src));
	EXPECT_EQ(0, cow_sharing(self->src.fd).exclusive);
	EXPECT_EQ(0, cow_sharing(self->dst.fd).exclusive);
	EXPECT_EQ(SIZE / 2, cow_sharing(self->dst.fd).proportional);
	buffer_store(&self->dst, 3 * PAGE, '!');
	st = cow_sharing(self->dst.fd);
	EXPECT_EQ(PAGE, st.exclusive);
	EXPECT_EQ(SIZE, st.resident);
	EXPECT_EQ(1, st.copied);
	EXPECT_EQ(PAGE, cow_sharing(self->src.fd).exclusive);
	EXPECT_EQ(self->pages - NR + 1, cow_param("pages"));
}

TEST_F(pair, clone_copies_nothing)
{
	ASSERT_EQ(0, buffer_clone(&self->dst, &self->src));
	EXPECT_EQ(0, cow_stat(self->src.fd).copied);
	EXPECT_EQ(0, cow_stat(self->dst.fd).copied);
}

TEST_F(pair, clone_again_changes_nothing)
{
	ASSERT_EQ(0, buffer_clone(&self->dst, &self->src));
	ASSERT_EQ(0, buffer_clone(&self->dst, &self->src));
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_EQ(self->pages - NR, cow_param("pages"));
	buffer_store_all(&self->dst);
	EXPECT_TRUE(buffer_ok(&self->src));
}

TEST_F(pair, clone_back_and_forth_with_stores_between)
{
	unsigned int i;

	for (i = 0; i < 6; i++) {
		ASSERT_EQ(0, buffer_clone(&self->dst, &self->src));
		buffer_store(&self->src, i * PAGE, '1' + i);
		buffer_store(&self->dst, (i + 1) * PAGE, 'a' + i);
		EXPECT_TRUE(buffer_ok(&self->src));
		EXPECT_TRUE(buffer_ok(&self->dst));
		ASSERT_EQ(0, buffer_clone_range(&self->src, 8 * PAGE, &self->dst,
						i * PAGE, 3 * PAGE));
		buffer_store(&self->dst, i * PAGE + 1, 'A' + i);
		buffer_store(&self->src, 8 * PAGE + 1, 'K' + i);
		EXPECT_TRUE(buffer_ok(&self->src));
		EXPECT_TRUE(buffer_ok(&self->dst));
	}
}

TEST_F(pair, clone_of_a_clone)
{
	struct buffer third;

	ASSERT_TRUE(buffer_create(&third, 0));
	ASSERT_EQ(0, buffer_clone(&self->dst, &self->src));
	buffer_store(&self->dst, 2 * PAGE, '2');
	ASSERT_EQ(0, buffer_clone(&third, &self->dst));
	EXPECT_EQ(self->pages - NR + 1, cow_param("pages"));
	buffer_store_all(&self->src);
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_TRUE(buffer_ok(&third));
	buffer_store_all(&self->dst);
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&third));
	buffer_store_all(&third);
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->dst));
	buffer_close(&third);
}

TEST_F(pair, clone_outlives_its_source_and_leaves_nothing)
{
	struct buffer src, dst;

	ASSERT_TRUE(buffer_create_filled(&src, SIZE, 3));
	ASSERT_TRUE(buffer_create_filled(&dst, 4 * PAGE, 4));
	ASSERT_EQ(0, buffer_clone(&dst, &src));
	buffer_close(&src);
	EXPECT_TRUE(buffer_ok(&dst));
	EXPECT_EQ(self->pages + NR, cow_param("pages"));
	buffer_store_all(&dst);
	EXPECT_TRUE(buffer_ok(&dst));
	EXPECT_EQ(self->pages + NR, cow_param("pages"));
	buffer_close(&dst);
	EXPECT_EQ(self->pages, cow_param("pages"));
}

TEST_F(pair, source_outlives_its_clone)
{
	struct buffer dst;

	ASSERT_TRUE(buffer_create(&dst, 0));
	ASSERT_EQ(0, buffer_clone(&dst, &self->src));
	buffer_store_all(&dst);
	buffer_close(&dst);
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_EQ(self->pages, cow_param("pages"));
	buffer_store_all(&self->src);
	EXPECT_EQ(self->pages, cow_param("pages"));
}

TEST_F(pair, truncating_one_side_leaves_the_other)
{
	ASSERT_EQ(0, buffer_clone(&self->dst, &self->src));
	ASSERT_TRUE(buffer_truncate(&self->src, 3 * PAGE + 100));
	EXPECT_TRUE(buffer_ok(&self->dst));
	ASSERT_TRUE(buffer_truncate(&self->src, SIZE));
	EXPECT_TRUE(buffer_ok(&self->src));
	ASSERT_TRUE(buffer_truncate(&self->dst, 0));
	EXPECT_EQ(0, resident(&self->dst));
}

TEST_F(pair, snapshots_of_both_sides_keep_what_they_have)
{
	struct buffer old_src, old_dst;

	ASSERT_TRUE(buffer_snapshot(&old_src, &self->src, false));
	ASSERT_TRUE(buffer_snapshot(&old_dst, &self->dst, false));
	ASSERT_EQ(0, buffer_clone_range(&self->dst, 2 * PAGE, &self->src,
					5 * PAGE, 8 * PAGE));
	EXPECT_EQ(self->pages, cow_param("pages"));
	buffer_store_all(&self->dst);
	buffer_store_all(&self->src);
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&old_src));
	EXPECT_TRUE(buffer_ok(&old_dst));
	buffer_close(&old_src);
	buffer_close(&old_dst);
}

TEST_F(pair, snapshot_of_a_clone_keeps_what_it_has)
{
	struct buffer snap;

	ASSERT_EQ(0, buffer_clone(&self->dst, &self->src));
	ASSERT_TRUE(buffer_snapshot(&snap, &self->dst, false));
	buffer_store_all(&self->dst);
	buffer_store_all(&self->src);
	EXPECT_TRUE(buffer_ok(&snap));
	buffer_close(&snap);
}

TEST_F(pair, frozen_source_is_cloned)
{
	struct buffer snap;

	ASSERT_TRUE(buffer_snapshot(&snap, &self->src, false));
	buffer_store_all(&self->src);
	ASSERT_EQ(0, buffer_clone(&self->dst, &snap));
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_EQ(self->pages, cow_param("pages"));
	buffer_store_all(&self->dst);
	ASSERT_TRUE(buffer_write_all(&self->dst));
	EXPECT_TRUE(buffer_ok(&snap));
	buffer_close(&snap);
}

TEST_F(pair, clone_made_in_another_process_is_seen_at_once)
{
	EXPECT_EQ(0, CHILD({
		if (buffer_clone(&self->dst, &self->src) ||
		    !buffer_ok(&self->dst) || !buffer_ok(&self->src))
			_exit(1);
		buffer_store(&self->src, 0, '!');
		if (!buffer_ok(&self->dst))
			_exit(2);
	}));
	model_copy(&self->dst, 0, &self->src, 0, SIZE);
	self->src.want[0] = '!';
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_TRUE(buffer_ok(&self->src));
}

TEST_F(pair, mapping_beyond_the_end_gets_pages)
{
	volatile char value = 0;

	EXPECT_EQ(SIGBUS, COW_TRY(value = self->dst.p[SIZE]));
	ASSERT_EQ(0, buffer_clone_range(&self->dst, SIZE, &self->src, 0, PAGE));
	EXPECT_EQ(0, COW_TRY(value = self->dst.p[SIZE]));
	EXPECT_EQ(self->src.want[0], value);
	EXPECT_EQ(SIGBUS, COW_TRY(value = self->dst.p[SIZE + PAGE]));
}

TEST_F(pair, private_copy_stays_and_the_rest_is_new)
{
	char *q = mmap(NULL, SIZE, RW, MAP_PRIVATE, self->dst.fd, 0);
	char own[PAGE];

	ASSERT_NE(MAP_FAILED, q);
	q[2 * PAGE] = '!';
	memcpy(own, q + 2 * PAGE, PAGE);
	EXPECT_EQ(self->dst.want[3 * PAGE], q[3 * PAGE]);
	ASSERT_EQ(0, buffer_clone(&self->dst, &self->src));
	EXPECT_EQ(0, memcmp(q + 2 * PAGE, own, PAGE));
	EXPECT_EQ(0, memcmp(q + 3 * PAGE, self->src.want + 3 * PAGE,
			    SIZE - 3 * PAGE));
	memset(q, '?', SIZE);
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_TRUE(buffer_ok(&self->src));
	munmap(q, SIZE);
}

TEST_F(pair, held_page_of_the_destination_keeps_its_place)
{
	ASSERT_TRUE(pipe_hold(self->pipefd, self->dst.p + 3 * PAGE));
	ASSERT_EQ(0, buffer_clone(&self->dst, &self->src));
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_EQ(self->pages - NR + 1, cow_param("pages"));
	buffer_store(&self->dst, 3 * PAGE + 9, '!');
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(pipe_has_page(self->pipefd, self->dst.want + 3 * PAGE));
}

TEST_F(pair, held_page_of_the_destination_at_another_offset)
{
	ASSERT_TRUE(pipe_hold(self->pipefd, self->dst.p + 6 * PAGE));
	ASSERT_EQ(0, buffer_clone_range(&self->dst, 5 * PAGE, &self->src,
					2 * PAGE, 4 * PAGE));
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_EQ(self->pages - 3, cow_param("pages"));
	buffer_store(&self->dst, 6 * PAGE + 9, '!');
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(pipe_has_page(self->pipefd, self->dst.want + 6 * PAGE));
}

TEST_F(pair, held_page_of_the_destination_gets_the_zeroes_of_a_hole)
{
	struct buffer hole;

	ASSERT_TRUE(buffer_create(&hole, SIZE));
	ASSERT_TRUE(pipe_hold(self->pipefd, self->dst.p + 3 * PAGE));
	ASSERT_EQ(0, buffer_clone(&self->dst, &hole));
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_EQ(self->pages - NR + 1, cow_param("pages"));
	buffer_store(&self->dst, 3 * PAGE + 9, '!');
	EXPECT_TRUE(buffer_ok(&hole));
	EXPECT_TRUE(pipe_has_page(self->pipefd, self->dst.want + 3 * PAGE));
	buffer_close(&hole);
}

TEST_F(pair, held_page_outside_the_range_is_left_alone)
{
	ASSERT_TRUE(pipe_hold(self->pipefd, self->dst.p + 3 * PAGE));
	ASSERT_EQ(0, buffer_clone_range(&self->dst, 4 * PAGE, &self->src,
					4 * PAGE, 4 * PAGE));
	EXPECT_EQ(self->pages - 4, cow_param("pages"));
	buffer_store(&self->dst, 3 * PAGE + 9, '!');
	EXPECT_TRUE(pipe_has_page(self->pipefd, self->dst.want + 3 * PAGE));
}

TEST_F(pair, held_page_of_the_source_stays_with_the_source)
{
	ASSERT_TRUE(pipe_hold(self->pipefd, self->src.p + 3 * PAGE));
	ASSERT_EQ(0, buffer_clone(&self->dst, &self->src));
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_EQ(self->pages - NR + 1, cow_param("pages"));
	buffer_store(&self->src, 3 * PAGE + 9, '!');
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_TRUE(pipe_has_page(self->pipefd, self->src.want + 3 * PAGE));
}

/* A page that is shared with a snapshot can only be pinned for reading. */
TEST_F(pair, page_held_for_reading_stays_as_it_was)
{
	struct buffer snap;

	ASSERT_TRUE(buffer_snapshot(&snap, &self->dst, false));
	ASSERT_TRUE(pipe_hold(self->pipefd, self->dst.p + 3 * PAGE));
	ASSERT_EQ(0, buffer_clone(&self->dst, &self->src));
	EXPECT_TRUE(buffer_ok(&self->dst));
	buffer_store(&self->dst, 3 * PAGE + 9, '!');
	EXPECT_TRUE(pipe_has_page(self->pipefd, snap.want + 3 * PAGE));
	EXPECT_TRUE(buffer_ok(&snap));
	buffer_close(&snap);
}

TEST_F(pair, clone_and_copy_touch_mtime)
{
	static const struct timespec past[2] = { { 1, 0 }, { 1, 0 } };
	struct stat st;

	ASSERT_EQ(0, futimens(self->dst.fd, past));
	ASSERT_EQ(0, buffer_clone(&self->dst, &self->src));
	ASSERT_EQ(0, fstat(self->dst.fd, &st));
	EXPECT_NE(1, st.st_mtime);
	ASSERT_EQ(0, futimens(self->dst.fd, past));
	ASSERT_EQ(PAGE, buffer_copy(&self->dst, 100, &self->src, 0, PAGE));
	ASSERT_EQ(0, fstat(self->dst.fd, &st));
	EXPECT_NE(1, st.st_mtime);
}

/*
 * Holes
 */

FIXTURE(sparse)
{
	struct buffer src;	/* page 2 and page 5 */
	struct buffer dst;	/* all pages */
	long pages;
};

FIXTURE_SETUP(sparse)
{
	ASSERT_TRUE(buffer_create(&self->src, SIZE));
	buffer_fill(&self->src, 2 * PAGE, PAGE, 1);
	buffer_fill(&self->src, 5 * PAGE, PAGE, 3);
	ASSERT_TRUE(buffer_create_filled(&self->dst, SIZE, 2));
	self->pages = cow_param("pages");
}

FIXTURE_TEARDOWN(sparse)
{
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->dst));
	buffer_close(&self->src);
	buffer_close(&self->dst);
}

TEST_F(sparse, holes_are_cloned_as_holes)
{
	int fd = self->dst.fd;

	ASSERT_EQ(0, buffer_clone(&self->dst, &self->src));
	EXPECT_EQ(2 * PAGE, resident(&self->dst));
	EXPECT_EQ(self->pages - NR, cow_param("pages"));
	EXPECT_EQ(0, lseek(fd, 0, SEEK_HOLE));
	EXPECT_EQ(2 * PAGE, lseek(fd, 0, SEEK_DATA));
	EXPECT_EQ(3 * PAGE, lseek(fd, 2 * PAGE, SEEK_HOLE));
	EXPECT_EQ(5 * PAGE, lseek(fd, 3 * PAGE, SEEK_DATA));
	EXPECT_EQ(6 * PAGE, lseek(fd, 5 * PAGE, SEEK_HOLE));
	EXPECT_EQ(-ENXIO, ret(lseek(fd, 6 * PAGE, SEEK_DATA)));
}

TEST_F(sparse, holes_are_cloned_to_another_offset)
{
	ASSERT_EQ(0, buffer_clone_range(&self->dst, 9 * PAGE, &self->src,
					PAGE, 5 * PAGE));
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_EQ((NR - 3) * PAGE, resident(&self->dst));
	EXPECT_EQ(self->pages - 5, cow_param("pages"));
	EXPECT_EQ(9 * PAGE, lseek(self->dst.fd, 0, SEEK_HOLE));
	EXPECT_EQ(10 * PAGE, lseek(self->dst.fd, 9 * PAGE, SEEK_DATA));
}

TEST_F(sparse, range_of_nothing_but_a_hole)
{
	ASSERT_EQ(0, buffer_clone_range(&self->dst, 2 * PAGE, &self->src,
					8 * PAGE, 4 * PAGE));
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_EQ((NR - 4) * PAGE, resident(&self->dst));
	EXPECT_EQ(self->pages - 4, cow_param("pages"));
}

TEST_F(sparse, range_between_the_ends_is_a_hole)
{
	ASSERT_TRUE(buffer_truncate(&self->dst, 3 * PAGE + 100));
	ASSERT_EQ(0, buffer_clone_range(&self->dst, 20 * PAGE, &self->src,
					2 * PAGE, PAGE));
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_EQ(5 * PAGE, resident(&self->dst));
	EXPECT_EQ(4 * PAGE, lseek(self->dst.fd, 0, SEEK_HOLE));
	EXPECT_EQ(20 * PAGE, lseek(self->dst.fd, 4 * PAGE, SEEK_DATA));
}

TEST_F(sparse, stores_fill_holes_on_their_own_side_only)
{
	ASSERT_EQ(0, buffer_clone(&self->dst, &self->src));
	buffer_store(&self->dst, 0, '!');
	buffer_store(&self->src, PAGE, '?');
	EXPECT_EQ(3 * PAGE, resident(&self->dst));
	EXPECT_EQ(3 * PAGE, resident(&self->src));
}

TEST_F(sparse, copy_of_an_aligned_hole_takes_no_page)
{
	ASSERT_EQ(8 * PAGE, buffer_copy(&self->dst, PAGE, &self->src,
					6 * PAGE, 8 * PAGE));
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_GE(self->pages, cow_param("pages"));
}

TEST_F(sparse, copy_of_an_unaligned_hole_overwrites)
{
	ASSERT_EQ(8 * PAGE, buffer_copy(&self->dst, 100, &self->src,
					6 * PAGE + 50, 8 * PAGE));
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_GE(self->pages, cow_param("pages"));
}

TEST(huge_sparse_buffer_is_cloned)
{
	int src = cow_create(GIB, "src"), dst = cow_create(0, "dst");
	long pages = cow_param("pages");

	ASSERT_GE(src, 0);
	ASSERT_GE(dst, 0);
	ASSERT_EQ(1, pwrite(src, "a", 1, 0));
	ASSERT_EQ(1, pwrite(src, "b", 1, 600 * PAGE));
	ASSERT_EQ(1, pwrite(src, "c", 1, GIB - 1));
	ASSERT_EQ(0, ret(ioctl(dst, FICLONE, src)));
	EXPECT_EQ(pages + 3, cow_param("pages"));
	EXPECT_EQ(3 * PAGE, cow_stat(dst).resident);
	EXPECT_EQ(GIB, cow_stat(dst).length);
	EXPECT_EQ('a', read_byte(dst, 0));
	EXPECT_EQ(0, read_byte(dst, 1));
	EXPECT_EQ('b', read_byte(dst, 600 * PAGE));
	EXPECT_EQ('c', read_byte(dst, GIB - 1));
	ASSERT_EQ(1, pwrite(dst, "!", 1, 600 * PAGE));
	EXPECT_EQ('b', read_byte(src, 600 * PAGE));
	close(src);
	close(dst);
}

/* Whatever the fan-out of the index is, it does not divide that distance. */
TEST(long_range_is_cloned_to_an_odd_offset)
{
	int src = cow_create(GIB, "src"), dst = cow_create(0, "dst");
	long pages = cow_param("pages");

	ASSERT_GE(src, 0);
	ASSERT_GE(dst, 0);
	ASSERT_EQ(1, pwrite(src, "a", 1, 0));
	ASSERT_EQ(1, pwrite(src, "b", 1, 600 * PAGE));
	ASSERT_EQ(1, pwrite(src, "c", 1, 1023 * PAGE));
	ASSERT_EQ(1, pwrite(src, "d", 1, 1024 * PAGE));
	ASSERT_EQ(0, cow_clone_range(dst, 77 * PAGE, src, 0, 1024 * PAGE));
	EXPECT_EQ(pages + 4, cow_param("pages"));
	EXPECT_EQ(3 * PAGE, cow_stat(dst).resident);
	EXPECT_EQ((77 + 1024) * PAGE, cow_stat(dst).length);
	EXPECT_EQ(77 * PAGE, lseek(dst, 0, SEEK_DATA));
	EXPECT_EQ('a', read_byte(dst, 77 * PAGE));
	EXPECT_EQ((77 + 600) * PAGE, lseek(dst, 78 * PAGE, SEEK_DATA));
	EXPECT_EQ('b', read_byte(dst, (77 + 600) * PAGE));
	EXPECT_EQ('c', read_byte(dst, (77 + 1023) * PAGE));
	close(src);
	close(dst);
}

/*
 * Rights, and files that are none of ours
 */

FIXTURE(rights)
{
	struct buffer src;
	struct buffer dst;
	long pages;
};

/* What is asked for, and what it gives. */
FIXTURE_VARIANT(rights)
{
	int (*clone)(int dst, uint64_t to, int src, uint64_t from,
		     uint64_t length);
	uint64_t to;
	uint64_t from;
	uint64_t length;
	long result;
	bool copy;	/* is it copy_file_range()? */
};

static int clone_all(int dst, uint64_t to, int src, uint64_t from,
		     uint64_t length)
{
	return ret(ioctl(dst, FICLONE, src));
}

static int copy_some(int dst, uint64_t to, int src, uint64_t from,
		     uint64_t length)
{
	return copy_range(dst, to, src, from, length);
}

FIXTURE_VARIANT_ADD(rights, FICLONE) { clone_all, 0, 0, SIZE };
FIXTURE_VARIANT_ADD(rights, FICLONERANGE) {
	cow_clone_range, 4 * PAGE, 2 * PAGE, PAGE,
};
FIXTURE_VARIANT_ADD(rights, aligned_copy) {
	copy_some, 4 * PAGE, 2 * PAGE, PAGE, PAGE, true,
};
FIXTURE_VARIANT_ADD(rights, unaligned_copy) {
	copy_some, 4 * PAGE + 50, 2 * PAGE + 100, 300, 300, true,
};

static int rights_clone(const FIXTURE_VARIANT(rights) *variant, int dst,
			int src)
{
	return variant->clone(dst, variant->to, src, variant->from,
			      variant->length);
}

FIXTURE_SETUP(rights)
{
	ASSERT_TRUE(buffer_create_filled(&self->src, SIZE, 1));
	ASSERT_TRUE(buffer_create_filled(&self->dst, SIZE, 2));
	self->pages = cow_param("pages");
}

/* No model has changed but by the test of success. */
FIXTURE_TEARDOWN(rights)
{
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->dst));
	buffer_close(&self->src);
	buffer_close(&self->dst);
}

TEST_F(rights, EBADF_destination_open_for_reading)
{
	int fd = cow_file(self->dst.fd, COWMEM_RDONLY);

	ASSERT_GE(fd, 0);
	EXPECT_EQ(-EBADF, rights_clone(variant, fd, self->src.fd));
	EXPECT_EQ(self->pages, cow_param("pages"));
	close(fd);
}

TEST_F(rights, EBADF_frozen_destination)
{
	struct buffer snap;

	ASSERT_TRUE(buffer_snapshot(&snap, &self->dst, false));
	EXPECT_EQ(-EBADF, rights_clone(variant, snap.fd, self->src.fd));
	EXPECT_TRUE(buffer_ok(&snap));
	EXPECT_EQ(self->pages, cow_param("pages"));
	buffer_close(&snap);
}

TEST_F(rights, EBADF_source_open_for_writing)
{
	int fd = reopen(self->src.fd, O_WRONLY);

	ASSERT_GE(fd, 0);
	EXPECT_EQ(-EBADF, rights_clone(variant, self->dst.fd, fd));
	EXPECT_EQ(self->pages, cow_param("pages"));
	close(fd);
}

TEST_F(rights, EBADF_closed_source)
{
	EXPECT_EQ(-EBADF, rights_clone(variant, self->dst.fd, -1));
}

TEST_F(rights, reading_the_source_and_writing_the_destination_are_enough)
{
	int src = cow_file(self->src.fd, COWMEM_RDONLY);
	int dst = reopen(self->dst.fd, O_WRONLY);

	ASSERT_GE(src, 0);
	ASSERT_GE(dst, 0);
	EXPECT_EQ(variant->result, rights_clone(variant, dst, src));
	model_copy(&self->dst, variant->to, &self->src, variant->from,
		   variant->length);
	close(src);
	close(dst);
}

/* The VFS compares file systems before anything else, kinds of file later. */
TEST_F(rights, EXDEV_other_file_system)
{
	int fd = memfd_create("foreign", MFD_CLOEXEC);
	static char text[SIZE], back[SIZE];

	memset(text, 'm', SIZE);
	ASSERT_EQ(SIZE, pwrite(fd, text, SIZE, 0));
	EXPECT_EQ(-EXDEV, rights_clone(variant, self->dst.fd, fd));
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_EQ(-EXDEV, rights_clone(variant, fd, self->src.fd));
	EXPECT_EQ(SIZE, pread(fd, back, SIZE, 0));
	EXPECT_EQ(0, memcmp(back, text, SIZE));
	close(fd);
}

/*
 * For a handle of the device and a file the clone ioctls see two file systems;
 * copy_file_range() looks at the kind of file first.
 */
TEST_F(rights, device_handles_are_refused)
{
	int fd = cow_open(), other = cow_open();
	long mixed = variant->copy ? -EINVAL : -EXDEV;
	char *p = cow_map(fd, SIZE, RW), *q = cow_map(other, SIZE, RW);
	char want[PAGE];

	ASSERT_NE(MAP_FAILED, p);
	ASSERT_NE(MAP_FAILED, q);
	memset(p, 'p', SIZE);
	memset(q, 'q', SIZE);
	memset(want, 'p', PAGE);
	EXPECT_EQ(-EINVAL, rights_clone(variant, fd, other));
	EXPECT_EQ(mixed, rights_clone(variant, fd, self->src.fd));
	EXPECT_EQ(mixed, rights_clone(variant, self->dst.fd, other));
	EXPECT_EQ(0, memcmp(p + 4 * PAGE, want, PAGE));
	EXPECT_EQ('q', q[4 * PAGE]);
	EXPECT_EQ(self->pages + 2 * NR, cow_param("pages"));
	munmap(p, SIZE);
	munmap(q, SIZE);
	close(fd);
	close(other);
}

/*
 * copy_file_range()
 */

FIXTURE(copy)
{
	struct buffer src;
	struct buffer other;
	struct buffer *dst;
	long pages;
};

/* Sizes of 0 stand for SIZE. */
FIXTURE_VARIANT(copy)
{
	size_t src_size;
	size_t dst_size;
	bool empty;	/* the destination is of size 0 */
	bool same;	/* within src */
	size_t from;
	size_t to;
	size_t length;
	long result;
	long grows;	/* by so many pages at most; what is shared is less */
};

FIXTURE_VARIANT_ADD(copy, all) {
	.length = SIZE, .result = SIZE, .grows = -NR,
};
FIXTURE_VARIANT_ADD(copy, all_into_an_empty_buffer) {
	.empty = true, .length = SIZE, .result = SIZE,
};
FIXTURE_VARIANT_ADD(copy, one_page) {
	.from = 3 * PAGE, .to = 3 * PAGE, .length = PAGE, .result = PAGE,
	.grows = -1,
};
FIXTURE_VARIANT_ADD(copy, pages_to_another_offset) {
	.from = 2 * PAGE, .to = 9 * PAGE, .length = 4 * PAGE,
	.result = 4 * PAGE, .grows = -4,
};
FIXTURE_VARIANT_ADD(copy, head_middle_and_tail) {
	.from = 100, .to = 100, .length = 8 * PAGE, .result = 8 * PAGE,
	.grows = -7,
};
FIXTURE_VARIANT_ADD(copy, head_middle_and_tail_into_an_empty_buffer) {
	.empty = true, .from = 100, .to = 100, .length = 8 * PAGE,
	.result = 8 * PAGE, .grows = 2,
};
FIXTURE_VARIANT_ADD(copy, head_middle_and_tail_to_another_offset) {
	.from = 2 * PAGE + 100, .to = 5 * PAGE + 100, .length = 6 * PAGE + 50,
	.result = 6 * PAGE + 50, .grows = -5,
};
FIXTURE_VARIANT_ADD(copy, head_and_middle_into_an_empty_buffer) {
	.empty = true, .from = PAGE + 100, .to = 100, .length = 4 * PAGE - 100,
	.result = 4 * PAGE - 100, .grows = 1,
};
FIXTURE_VARIANT_ADD(copy, middle_and_tail_into_an_empty_buffer) {
	.empty = true, .length = 3 * PAGE + 50, .result = 3 * PAGE + 50,
	.grows = 1,
};
FIXTURE_VARIANT_ADD(copy, one_byte_less_than_a_page_twice) {
	.from = 1, .to = PAGE + 1, .length = 2 * PAGE - 2,
	.result = 2 * PAGE - 2,
};
FIXTURE_VARIANT_ADD(copy, inside_a_page) {
	.from = 10, .to = 10, .length = 30, .result = 30,
};
FIXTURE_VARIANT_ADD(copy, inside_a_page_to_another_place) {
	.from = 10, .to = 5 * PAGE + 200, .length = 30, .result = 30,
};
FIXTURE_VARIANT_ADD(copy, last_byte_of_a_page_and_first_of_the_next) {
	.from = 3 * PAGE - 1, .to = 3 * PAGE - 1, .length = 2, .result = 2,
};
FIXTURE_VARIANT_ADD(copy, misaligned_source) {
	.from = 1, .length = 5 * PAGE, .result = 5 * PAGE,
};
FIXTURE_VARIANT_ADD(copy, misaligned_destination) {
	.to = 1, .length = 5 * PAGE, .result = 5 * PAGE,
};
FIXTURE_VARIANT_ADD(copy, misaligned_by_less_than_a_page) {
	.from = 3000, .to = 100, .length = 20000, .result = 20000,
};
FIXTURE_VARIANT_ADD(copy, misaligned_into_an_empty_buffer) {
	.empty = true, .from = 1, .length = 4 * PAGE, .result = 4 * PAGE,
	.grows = 4,
};
FIXTURE_VARIANT_ADD(copy, length_beyond_the_end) {
	.from = 10 * PAGE, .length = 100 * PAGE, .result = 6 * PAGE,
	.grows = -6,
};
FIXTURE_VARIANT_ADD(copy, length_beyond_an_unaligned_end) {
	.src_size = 5 * PAGE + 77, .from = 2 * PAGE, .to = 2 * PAGE,
	.length = SIZE, .result = 3 * PAGE + 77, .grows = -3,
};
FIXTURE_VARIANT_ADD(copy, unaligned_end_into_an_empty_buffer) {
	.src_size = 5 * PAGE + 77, .empty = true, .length = SIZE,
	.result = 5 * PAGE + 77, .grows = 1,
};
FIXTURE_VARIANT_ADD(copy, misaligned_length_beyond_the_end) {
	.from = 14 * PAGE + 5, .to = 3, .length = SIZE,
	.result = 2 * PAGE - 5,
};
FIXTURE_VARIANT_ADD(copy, largest_length) {
	.length = SSIZE_MAX, .result = SIZE, .grows = -NR,
};
FIXTURE_VARIANT_ADD(copy, at_the_end) {
	.from = SIZE, .length = PAGE, .result = 0,
};
FIXTURE_VARIANT_ADD(copy, behind_the_end) {
	.from = SIZE + 100, .to = 2 * SIZE, .length = PAGE, .result = 0,
};
FIXTURE_VARIANT_ADD(copy, nothing) {
	.to = 2 * SIZE, .length = 0, .result = 0,
};
FIXTURE_VARIANT_ADD(copy, across_the_end_of_the_destination) {
	.from = 8 * PAGE, .to = 12 * PAGE, .length = 8 * PAGE,
	.result = 8 * PAGE, .grows = -4,
};
FIXTURE_VARIANT_ADD(copy, misaligned_across_the_end_of_the_destination) {
	.from = 8 * PAGE, .to = 12 * PAGE + 9, .length = 8 * PAGE,
	.result = 8 * PAGE, .grows = 5,
};
FIXTURE_VARIANT_ADD(copy, beyond_an_unaligned_end_of_the_destination) {
	.dst_size = 2 * PAGE + 50, .from = 7, .to = 5 * PAGE + 9,
	.length = 3 * PAGE, .result = 3 * PAGE, .grows = 4,
};
FIXTURE_VARIANT_ADD(copy, pages_beyond_an_unaligned_end_of_the_destination) {
	.dst_size = 2 * PAGE + 50, .from = PAGE, .to = 5 * PAGE,
	.length = 3 * PAGE, .result = 3 * PAGE, .grows = 0,
};
FIXTURE_VARIANT_ADD(copy, within_a_buffer) {
	.same = true, .to = 8 * PAGE, .length = 8 * PAGE, .result = 8 * PAGE,
	.grows = -8,
};
FIXTURE_VARIANT_ADD(copy, within_a_buffer_unaligned) {
	.same = true, .from = 100, .to = 8 * PAGE + 100, .length = 5 * PAGE,
	.result = 5 * PAGE, .grows = -4,
};
FIXTURE_VARIANT_ADD(copy, within_a_buffer_misaligned) {
	.same = true, .from = 9 * PAGE + 1, .to = 5, .length = 5 * PAGE,
	.result = 5 * PAGE,
};
FIXTURE_VARIANT_ADD(copy, within_a_page) {
	.same = true, .from = 1000, .to = 500, .length = 500, .result = 500,
};
FIXTURE_VARIANT_ADD(copy, within_a_buffer_to_its_end) {
	.same = true, .to = SIZE, .length = SIZE, .result = SIZE,
};
/* It would overlap if the source were longer. */
FIXTURE_VARIANT_ADD(copy, within_a_buffer_shortened) {
	.same = true, .from = 12 * PAGE, .to = 4 * PAGE, .length = 100 * PAGE,
	.result = 4 * PAGE, .grows = -4,
};
FIXTURE_VARIANT_ADD(copy, EINVAL_overlap_from_below) {
	.same = true, .to = 3 * PAGE, .length = 4 * PAGE, .result = -EINVAL,
};
FIXTURE_VARIANT_ADD(copy, EINVAL_overlap_from_above) {
	.same = true, .from = 3 * PAGE, .length = 4 * PAGE, .result = -EINVAL,
};
FIXTURE_VARIANT_ADD(copy, EINVAL_overlap_by_a_byte) {
	.same = true, .from = 100, .to = PAGE + 99, .length = PAGE,
	.result = -EINVAL,
};
FIXTURE_VARIANT_ADD(copy, EINVAL_onto_itself) {
	.same = true, .from = 3 * PAGE, .to = 3 * PAGE, .length = PAGE,
	.result = -EINVAL,
};

FIXTURE_SETUP(copy)
{
	size_t dst_size = variant->empty ? 0 : variant->dst_size ?: SIZE;

	ASSERT_TRUE(buffer_create_filled(&self->src,
					 variant->src_size ?: SIZE, 1));
	ASSERT_TRUE(buffer_create_filled(&self->other, dst_size, 2));
	self->dst = variant->same ? &self->src : &self->other;
	self->pages = cow_param("pages");
}

FIXTURE_TEARDOWN(copy)
{
	buffer_close(&self->src);
	buffer_close(&self->other);
}

TEST_F(copy, has_the_content_and_shares_whole_pages)
{
	EXPECT_EQ(variant->result,
		  buffer_copy(self->dst, variant->to, &self->src,
			      variant->from, variant->length));
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->other));
	EXPECT_GE(self->pages + variant->grows, cow_param("pages"));
}

TEST_F(copy, later_writes_are_seen_in_their_own_place_only)
{
	EXPECT_EQ(variant->result,
		  buffer_copy(self->dst, variant->to, &self->src,
			      variant->from, variant->length));
	buffer_store_all(&self->other);
	EXPECT_TRUE(buffer_ok(&self->src));
	buffer_store_all(&self->src);
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->other));
	ASSERT_TRUE(buffer_write_all(&self->other));
	ASSERT_TRUE(buffer_write_all(&self->src));
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->other));
}

TEST_F(pair, copy_with_pointers_advances_them_and_no_position)
{
	off_t from = 100, to = 3 * PAGE + 100, n;

	n = copy_file_range(self->src.fd, &from, self->dst.fd, &to, 2 * PAGE, 0);
	ASSERT_LT(0, n);
	model_copy(&self->dst, 3 * PAGE + 100, &self->src, 100, n);
	EXPECT_EQ(100 + n, from);
	EXPECT_EQ(3 * PAGE + 100 + n, to);
	EXPECT_EQ(0, lseek(self->src.fd, 0, SEEK_CUR));
	EXPECT_EQ(0, lseek(self->dst.fd, 0, SEEK_CUR));
}

TEST_F(pair, copy_without_pointers_advances_the_positions)
{
	off_t n;

	ASSERT_EQ(5 * PAGE + 7, lseek(self->src.fd, 5 * PAGE + 7, SEEK_SET));
	ASSERT_EQ(PAGE, lseek(self->dst.fd, PAGE, SEEK_SET));
	n = copy_file_range(self->src.fd, NULL, self->dst.fd, NULL,
			    2 * PAGE, 0);
	ASSERT_LT(0, n);
	model_copy(&self->dst, PAGE, &self->src, 5 * PAGE + 7, n);
	EXPECT_EQ(5 * PAGE + 7 + n, lseek(self->src.fd, 0, SEEK_CUR));
	EXPECT_EQ(PAGE + n, lseek(self->dst.fd, 0, SEEK_CUR));
}

TEST_F(pair, copy_that_fails_or_does_nothing_leaves_the_positions)
{
	ASSERT_EQ(PAGE, lseek(self->src.fd, PAGE, SEEK_SET));
	EXPECT_EQ(-EINVAL, ret(copy_file_range(self->src.fd, NULL, self->src.fd,
					       NULL, PAGE, 0)));
	EXPECT_EQ(PAGE, lseek(self->src.fd, 0, SEEK_CUR));
	ASSERT_EQ(SIZE, lseek(self->src.fd, SIZE, SEEK_SET));
	EXPECT_EQ(0, copy_file_range(self->src.fd, NULL, self->dst.fd, NULL,
				     PAGE, 0));
	EXPECT_EQ(SIZE, lseek(self->src.fd, 0, SEEK_CUR));
	EXPECT_EQ(0, lseek(self->dst.fd, 0, SEEK_CUR));
}

TEST_F(pair, copy_to_a_held_page_keeps_it_in_place)
{
	ASSERT_TRUE(pipe_hold(self->pipefd, self->dst.p + 3 * PAGE));
	ASSERT_EQ(4 * PAGE, buffer_copy(&self->dst, 2 * PAGE, &self->src,
					2 * PAGE, 4 * PAGE));
	EXPECT_TRUE(buffer_ok(&self->dst));
	ASSERT_EQ(PAGE, buffer_copy(&self->dst, 3 * PAGE + 50, &self->src,
				    PAGE, PAGE));
	EXPECT_TRUE(buffer_ok(&self->dst));
	buffer_store(&self->dst, 3 * PAGE + 9, '!');
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(pipe_has_page(self->pipefd, self->dst.want + 3 * PAGE));
}

TEST_F(pair, copy_of_a_frozen_source)
{
	struct buffer snap;

	ASSERT_TRUE(buffer_snapshot(&snap, &self->src, false));
	buffer_store_all(&self->src);
	ASSERT_EQ(5 * PAGE, buffer_copy(&self->dst, 50, &snap, 50, 5 * PAGE));
	EXPECT_TRUE(buffer_ok(&self->dst));
	ASSERT_EQ(5 * PAGE, buffer_copy(&self->dst, 51, &snap, 50, 5 * PAGE));
	EXPECT_TRUE(buffer_ok(&self->dst));
	buffer_store_all(&self->dst);
	EXPECT_TRUE(buffer_ok(&snap));
	buffer_close(&snap);
}

TEST_F(pair, copy_leaves_snapshots_of_the_destination)
{
	struct buffer snap;

	ASSERT_TRUE(buffer_snapshot(&snap, &self->dst, false));
	ASSERT_EQ(3 * PAGE, buffer_copy(&self->dst, 1, &self->src, 0,
					3 * PAGE));
	ASSERT_EQ(3 * PAGE, buffer_copy(&self->dst, 5 * PAGE + 1, &self->src, 1,
					3 * PAGE));
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_TRUE(buffer_ok(&snap));
	buffer_close(&snap);
}

/* More than a 32-bit count has room for, and next to no data. */
TEST(copy_of_3_GiB_of_hole)
{
	int src = cow_create(3 * GIB, "src"), dst = cow_create(0, "dst");
	long pages = cow_param("pages"), n = 1;
	size_t done = 0;

	ASSERT_GE(src, 0);
	ASSERT_GE(dst, 0);
	ASSERT_EQ(1, pwrite(src, "z", 1, 3 * GIB - 1));
	while (n > 0 && done < 3 * GIB) {
		n = copy_range(dst, done, src, done, 3 * GIB - done);
		ASSERT_LT(0, n);
		done += n;
	}
	EXPECT_EQ(3 * GIB, done);
	EXPECT_EQ(3 * GIB, cow_stat(dst).length);
	EXPECT_EQ('z', read_byte(dst, 3 * GIB - 1));
	EXPECT_EQ(0, read_byte(dst, 3 * GIB - 2));
	EXPECT_EQ(pages + 1, cow_param("pages"));
	close(src);
	close(dst);
}

TEST(short_copy_up_to_the_largest_size_and_EFBIG_behind)
{
	off_t max = cow_query().max_size;
	struct buffer src;
	int dst = cow_create(0, "dst");
	char back[PAGE];

	ASSERT_GE(dst, 0);
	ASSERT_TRUE(buffer_create_filled(&src, SIZE, 1));
	EXPECT_EQ(-EFBIG, copy_range(dst, max, src.fd, 0, PAGE));
	EXPECT_EQ(0, cow_stat(dst).length);
	EXPECT_EQ(PAGE, copy_range(dst, max - PAGE, src.fd, 0, SIZE));
	EXPECT_EQ(max, cow_stat(dst).length);
	EXPECT_EQ(PAGE, pread(dst, back, PAGE, max - PAGE));
	EXPECT_EQ(0, memcmp(back, src.want, PAGE));
	EXPECT_EQ(PAGE, cow_stat(dst).resident);
	close(dst);
	buffer_close(&src);
}

/* For the VFS one is the offset of a write, the other a length in it. */
TEST(clone_beyond_the_largest_size_is_refused)
{
	off_t max = cow_query().max_size;
	struct buffer src;
	int dst = cow_create(0, "dst");
	long err;

	ASSERT_GE(dst, 0);
	ASSERT_TRUE(buffer_create_filled(&src, SIZE, 1));
	err = cow_clone_range(dst, max, src.fd, 0, PAGE);
	EXPECT_TRUE(err == -EFBIG || err == -EINVAL)
		TH_LOG("at the largest size: %ld", err);
	err = cow_clone_range(dst, max - PAGE, src.fd, 0, 2 * PAGE);
	EXPECT_TRUE(err == -EFBIG || err == -EINVAL)
		TH_LOG("across the largest size: %ld", err);
	EXPECT_EQ(0, cow_stat(dst).length);
	EXPECT_EQ(0, cow_stat(dst).resident);
	EXPECT_EQ(0, cow_clone_range(dst, max - PAGE, src.fd, 0, PAGE));
	EXPECT_EQ(max, cow_stat(dst).length);
	close(dst);
	buffer_close(&src);
}

TEST_F(pair, EFBIG_beyond_RLIMIT_FSIZE_or_a_short_copy)
{
	struct rlimit limit = { SIZE + 100, SIZE + 100 };

	signal(SIGXFSZ, SIG_IGN);
	ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &limit));
	EXPECT_EQ(-EFBIG, buffer_clone_range(&self->dst, SIZE, &self->src, 0,
					     PAGE));
	EXPECT_EQ(-EFBIG, copy_range(self->dst.fd, SIZE + 100, self->src.fd, 0,
				     PAGE));
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_EQ(self->pages, cow_param("pages"));
	/* The limit is one on the size. */
	EXPECT_EQ(0, buffer_clone(&self->dst, &self->src));
	EXPECT_EQ(100, copy_range(self->dst.fd, SIZE, self->src.fd, 0, PAGE));
	model_copy(&self->dst, SIZE, &self->src, 0, 100);
}

/*
 * At the LIMIT of the destination
 */

FIXTURE(limited)
{
	struct buffer src;
	struct buffer dst;	/* page 0, and no other may come */
	long pages;
};

FIXTURE_SETUP(limited)
{
	NEED(LIMIT);
	ASSERT_TRUE(buffer_create_filled(&self->src, SIZE, 1));
	ASSERT_TRUE(buffer_create(&self->dst, SIZE));
	buffer_fill(&self->dst, 0, PAGE, 2);
	ASSERT_EQ(0, cow_limit(self->dst.fd, PAGE));
	self->pages = cow_param("pages");
}

FIXTURE_TEARDOWN(limited)
{
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->dst));
	buffer_close(&self->src);
	buffer_close(&self->dst);
}

TEST_F(limited, clone_needs_no_page)
{
	EXPECT_EQ(0, buffer_clone_range(&self->dst, 4 * PAGE, &self->src,
					4 * PAGE, 8 * PAGE));
	EXPECT_EQ(self->pages, cow_param("pages"));
}

TEST_F(limited, copy_that_shares_needs_no_page)
{
	EXPECT_EQ(8 * PAGE, buffer_copy(&self->dst, 4 * PAGE, &self->src,
					4 * PAGE, 8 * PAGE));
	EXPECT_EQ(self->pages, cow_param("pages"));
}

TEST_F(limited, ENOSPC_copy_that_needs_a_page)
{
	EXPECT_EQ(-ENOSPC, copy_range(self->dst.fd, 4 * PAGE, self->src.fd, 1,
				      PAGE));
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_EQ(-ENOSPC, copy_range(self->dst.fd, SIZE + 5, self->src.fd, 0,
				      PAGE));
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_EQ(self->pages, cow_param("pages"));
	ASSERT_EQ(0, cow_limit(self->dst.fd, COWMEM_NO_LIMIT));
	EXPECT_EQ(PAGE, buffer_copy(&self->dst, 4 * PAGE, &self->src, 1, PAGE));
}

TEST_F(limited, short_count_of_a_copy_that_needs_more)
{
	long n;

	ASSERT_EQ(0, cow_limit(self->dst.fd, 3 * PAGE));
	n = copy_range(self->dst.fd, 4 * PAGE, self->src.fd, 1, 6 * PAGE);
	ASSERT_LT(0, n);
	EXPECT_GT(6 * PAGE, n);
	model_copy(&self->dst, 4 * PAGE, &self->src, 1, n);
	EXPECT_GE(self->pages + 2, cow_param("pages"));
}

/* The page stays with the source, and the copy counts for the destination. */
TEST_F(pair, ENOSPC_pinned_page_of_the_source_at_the_LIMIT)
{
	struct cowmem_stat src, dst, now;

	NEED(LIMIT);
	ASSERT_TRUE(pipe_hold(self->pipefd, self->src.p + 3 * PAGE));
	ASSERT_EQ(0, cow_limit(self->dst.fd, cow_stat(self->dst.fd).charged));
	src = cow_stat(self->src.fd);
	dst = cow_stat(self->dst.fd);
	ASSERT_EQ(SIZE, src.charged);
	EXPECT_EQ(-ENOSPC, buffer_clone(&self->dst, &self->src));
	EXPECT_EQ(-ENOSPC, buffer_clone_range(&self->dst, 5 * PAGE, &self->src,
					      2 * PAGE, 4 * PAGE));
	EXPECT_EQ(-ENOSPC, buffer_copy(&self->dst, 5 * PAGE, &self->src,
				       2 * PAGE, 4 * PAGE));
	now = cow_stat(self->src.fd);
	EXPECT_EQ(0, memcmp(&now, &src, sizeof(now)));
	now = cow_stat(self->dst.fd);
	EXPECT_EQ(0, memcmp(&now, &dst, sizeof(now)));
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->dst));

	/* Nothing is shared: no store of either side needs a page. */
	ASSERT_EQ(0, cow_limit(self->src.fd, SIZE));
	EXPECT_EQ(0, COW_TRY(buffer_store_all(&self->src)));
	EXPECT_EQ(0, COW_TRY(buffer_store_all(&self->dst)));
	EXPECT_EQ(src.copied, cow_stat(self->src.fd).copied);
	EXPECT_EQ(dst.copied, cow_stat(self->dst.fd).copied);

	/* Pages beside it can be had. */
	EXPECT_EQ(0, buffer_clone_range(&self->dst, 4 * PAGE, &self->src,
					4 * PAGE, 4 * PAGE));
	ASSERT_EQ(0, cow_limit(self->dst.fd, COWMEM_NO_LIMIT));
	EXPECT_EQ(0, buffer_clone(&self->dst, &self->src));
	EXPECT_EQ(SIZE, cow_stat(self->src.fd).charged);
	EXPECT_EQ(self->pages - NR + 1, cow_param("pages"));
	buffer_store(&self->src, 3 * PAGE + 9, '!');
	EXPECT_TRUE(pipe_has_page(self->pipefd, self->src.want + 3 * PAGE));
}

/*
 * Stores meanwhile
 */

/* A word that one thread counts up, each time from what it finds there. */
struct counter {
	volatile uint64_t *word;
	uint64_t count;
	atomic_bool stop;
};

static void *count_up(void *arg)
{
	struct counter *counter = arg;

	while (!counter->stop) {
		*counter->word = *counter->word + 1;
		counter->count++;
	}
	return NULL;
}

static bool counter_start(struct counter *counter, pthread_t *thread,
			  struct buffer *buf, size_t offset)
{
	*counter = (struct counter) { .word = (void *)(buf->p + offset) };
	*counter->word = 0;
	return !pthread_create(thread, NULL, count_up, counter);
}

/* Ends the thread; the model gets what it counted, lost or not. */
static void counter_stop(struct counter *counter, pthread_t thread,
			 struct buffer *buf, size_t offset)
{
	counter->stop = true;
	pthread_join(thread, NULL);
	memcpy(buf->want + offset, &counter->count, sizeof(counter->count));
}

static uint64_t load_word(struct buffer *buf, size_t offset)
{
	return *(volatile uint64_t *)(buf->p + offset);
}

TEST_F(pair, stores_to_the_source_meanwhile_are_before_or_after)
{
	size_t offset = 3 * PAGE + 8;
	uint64_t before, cloned = 0, after;
	struct counter counter;
	pthread_t thread;
	unsigned int i;

	ASSERT_TRUE(counter_start(&counter, &thread, &self->src, offset));
	for (i = 0; i < 100; i++) {
		before = load_word(&self->src, offset);
		EXPECT_EQ(0, buffer_clone(&self->dst, &self->src));
		cloned = load_word(&self->dst, offset);
		after = load_word(&self->src, offset);
		EXPECT_LE(before, cloned);
		EXPECT_LE(cloned, after);
		EXPECT_EQ(cloned, load_word(&self->dst, offset));
	}
	counter_stop(&counter, thread, &self->src, offset);
	memcpy(self->dst.want + offset, &cloned, sizeof(cloned));
}

TEST_F(pair, copy_within_a_page_does_not_copy_the_page)
{
	int snap = cow_snapshot(self->src.fd, 0);
	struct cowmem_stat before, now;

	ASSERT_GE(snap, 0);
	close(snap);
	before = cow_stat(self->src.fd);
	EXPECT_EQ(50, buffer_copy(&self->src, 3 * PAGE + 100, &self->src,
				  3 * PAGE + 2000, 50));
	now = cow_stat(self->src.fd);
	EXPECT_EQ(before.reused + 1, now.reused);
	EXPECT_EQ(before.copied, now.copied);
	EXPECT_EQ(before.held, now.held);
}

/* A buffer whose size another thread changes all the time. */
struct resizer {
	int fd;
	size_t small, large;
	atomic_bool stop;
};

static void *resize(void *arg)
{
	struct resizer *resizer = arg;

	while (!resizer->stop) {
		ftruncate(resizer->fd, resizer->small);
		ftruncate(resizer->fd, resizer->large);
	}
	return NULL;
}

/* Neither size is a multiple of the page size: only ends of the source are. */
TEST_F(pair, source_is_resized_meanwhile)
{
	struct resizer resizer = {
		.small = 3 * PAGE + 5, .large = 5 * PAGE + 7,
	};
	unsigned int i, refused = 0;
	pthread_t thread;
	long n;

	resizer.fd = cow_create(resizer.small, "resized");
	ASSERT_GE(resizer.fd, 0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, resize, &resizer));
	for (i = 0; i < 300; i++) {
		/* The end of the source must not lie before that of this one. */
		ASSERT_EQ(0, ftruncate(self->dst.fd, 0));
		refused += !!ioctl(self->dst.fd, FICLONE, resizer.fd);
		n = copy_range(self->dst.fd, 0, resizer.fd, PAGE, SIZE);
		EXPECT_TRUE(n == 2 * PAGE + 5 || n == 4 * PAGE + 7)
			TH_LOG("copy_file_range(): %ld", n);
	}
	resizer.stop = true;
	pthread_join(thread, NULL);
	EXPECT_EQ(0, refused);
	close(resizer.fd);
	buffer_truncate(&self->dst, 0);
}

TEST_F(pair, stores_beside_what_is_copied_are_never_lost)
{
	size_t offset = 12 * PAGE;
	struct counter counter;
	pthread_t thread;
	unsigned int i;

	ASSERT_TRUE(counter_start(&counter, &thread, &self->dst, offset));
	for (i = 0; i < 50; i++) {
		EXPECT_EQ(12 * PAGE, buffer_copy(&self->dst, 0, &self->src, 0,
						 12 * PAGE));
		EXPECT_EQ(PAGE, buffer_copy(&self->dst, 13 * PAGE, &self->src,
					    i * 7, PAGE));
		EXPECT_EQ(3 * PAGE, buffer_copy(&self->dst, 9 * PAGE,
						&self->src, PAGE - i,
						3 * PAGE));
		/* In the same page, behind the counter. */
		EXPECT_EQ(PAGE, buffer_copy(&self->dst, offset + 64, &self->src,
					    i, PAGE));
	}
	counter_stop(&counter, thread, &self->dst, offset);
}

TEST_F(pair, stores_beside_what_is_cloned_are_never_lost)
{
	size_t offset = 12 * PAGE;
	struct counter counter;
	pthread_t thread;
	unsigned int i;

	ASSERT_TRUE(counter_start(&counter, &thread, &self->dst, offset));
	for (i = 0; i < 100; i++) {
		EXPECT_EQ(0, buffer_clone_range(&self->dst, i % 4 * PAGE,
						&self->src, 2 * PAGE,
						8 * PAGE));
		EXPECT_EQ(0, buffer_clone_range(&self->dst, 13 * PAGE,
						&self->src, i % 8 * PAGE,
						3 * PAGE));
	}
	counter_stop(&counter, thread, &self->dst, offset);
}

/*
 * Random calls
 */

#define RANDOM_SEED	0x20c0ffeeU
#define RANDOM_STEPS	300
#define RANDOM_CHECK	6		/* steps from one comparison to the next */
#define RANDOM_BUFFERS	3U
#define RANDOM_MAX	(32 * PAGE + 777)

static struct buffer *random_buffer(struct buffer *buf, unsigned int *state)
{
	return &buf[next_random(state) % RANDOM_BUFFERS];
}

/* What the contract says of a range with aligned offsets. */
static long clone_result(struct buffer *dst, size_t to, struct buffer *src,
			 size_t from, size_t length)
{
	if (!length)
		length = src->size - from;
	if (!length)
		return 0;
	if (from + length > src->size)
		return -EINVAL;
	if (length % PAGE &&
	    (from + length < src->size || to + length < dst->size))
		return -EINVAL;
	if (src == dst && to < page_up(from + length) &&
	    from < page_up(to + length))
		return -EINVAL;
	return 0;
}

static bool random_clone(struct buffer *buf, unsigned int *state)
{
	struct buffer *src = random_buffer(buf, state);
	struct buffer *dst = random_buffer(buf, state);
	size_t from = next_random(state) % (src->size / PAGE + 1) * PAGE;
	size_t left = src->size - from, length, to;
	long want;
	const size_t lengths[] = {
		0, left, left / PAGE * PAGE, next_random(state) % 8 * PAGE,
	};

	length = lengths[next_random(state) % 4];
	to = RANDOM_MAX - (length ?: left);
	to = next_random(state) % (to / PAGE + 1) * PAGE;
	want = clone_result(dst, to, src, from, length);
	return buffer_clone_range(dst, to, src, from, length) == want;
}

static bool random_copy(struct buffer *buf, unsigned int *state)
{
	struct buffer *src = random_buffer(buf, state);
	struct buffer *dst = random_buffer(buf, state);
	size_t from = next_random(state) % (src->size + 100);
	size_t length = next_random(state) % (12 * PAGE);
	size_t to = next_random(state) % (RANDOM_MAX - length - PAGE);
	long want;

	/* Half of them share pages. */
	if (next_random(state) % 2)
		to = to / PAGE * PAGE + from % PAGE;
	want = copy_length(src, from, length);
	if (src == dst && to < from + want && from < to + want)
		want = -EINVAL;
	return buffer_copy(dst, to, src, from, length) == want;
}

static bool random_write(struct buffer *buf, unsigned int *state)
{
	struct buffer *dst = random_buffer(buf, state);
	size_t length = 1 + next_random(state) % (3 * PAGE), i;
	size_t offset = next_random(state) % (RANDOM_MAX - length);

	for (i = offset; i < offset + length; i++)
		dst->want[i] = next_random(state);
	if (dst->size < offset + length)
		dst->size = offset + length;
	return pwrite(dst->fd, dst->want + offset, length, offset) == length;
}

static bool random_store(struct buffer *buf, unsigned int *state)
{
	struct buffer *dst = random_buffer(buf, state);
	size_t offset, length;

	if (!dst->size)
		return true;
	offset = next_random(state) % dst->size;
	length = 1 + next_random(state) % (dst->size - offset);
	if (length > 2 * PAGE)
		length = 2 * PAGE;
	buffer_fill(dst, offset, length, next_random(state));
	return true;
}

static bool random_truncate(struct buffer *buf, unsigned int *state)
{
	struct buffer *dst = random_buffer(buf, state);
	size_t size = next_random(state) % (RANDOM_MAX + 1);

	if (next_random(state) % 2)
		size = size / PAGE * PAGE;
	return buffer_truncate(dst, size);
}

/* Clones and copies most often. */
static const struct {
	const char *name;
	bool (*step)(struct buffer *buf, unsigned int *state);
} random_steps[] = {
	{ "clone", random_clone },
	{ "clone", random_clone },
	{ "clone", random_clone },
	{ "copy", random_copy },
	{ "copy", random_copy },
	{ "copy", random_copy },
	{ "write", random_write },
	{ "store", random_store },
	{ "store", random_store },
	{ "truncate", random_truncate },
};

FIXTURE(random)
{
	struct buffer buf[RANDOM_BUFFERS];
	long pages;
};

FIXTURE_SETUP(random)
{
	unsigned int i;

	self->pages = cow_param("pages");
	for (i = 0; i < RANDOM_BUFFERS; i++)
		ASSERT_TRUE(buffer_create_filled(&self->buf[i],
						 20 * PAGE + i * 99, 1 + i));
}

FIXTURE_TEARDOWN(random)
{
	unsigned int i;

	for (i = 0; i < RANDOM_BUFFERS; i++)
		buffer_close(&self->buf[i]);
	EXPECT_EQ(self->pages, cow_param("pages"));
}

TEST_F(random, every_byte_is_that_of_the_model)
{
	unsigned int state = RANDOM_SEED, step, kind, i;

	TH_LOG("seed %#x", RANDOM_SEED);
	for (step = 0; step < RANDOM_STEPS; step++) {
		kind = next_random(&state) % ARRAY_SIZE(random_steps);
		ASSERT_TRUE(random_steps[kind].step(self->buf, &state))
			TH_LOG("step %u, %s", step, random_steps[kind].name);
		if (step % RANDOM_CHECK)
			continue;
		for (i = 0; i < RANDOM_BUFFERS; i++)
			ASSERT_TRUE(buffer_ok(&self->buf[i]))
				TH_LOG("buffer %u after step %u", i, step);
	}
	for (i = 0; i < RANDOM_BUFFERS; i++)
		EXPECT_TRUE(buffer_ok(&self->buf[i]));
}

TEST_HARNESS_MAIN
