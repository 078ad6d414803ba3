// SPDX-License-Identifier: GPL-2.0
/*
 * FIDEDUPERANGE: equal pages of two buffers become one, whoever has them mapped,
 * frozen or pinned; no byte of any buffer changes, and no store is lost or shows
 * up on the other side.  Every buffer has a model in ordinary memory; all bytes
 * of both sides are compared with it, by read() and in mappings that were
 * written through before the call.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include <linux/fs.h>

#include "common.h"
#include "harness.h"
#include "bytes.h"

#define NR	16UL
#define SIZE	(NR * PAGE)
/* What the kernel has to overwrite, or to leave if the call fails. */
#define POISON	0x5a5a

/* By stores, the bytes that @src has at @from. */
static void buffer_fill_from(struct buffer *dst, size_t to, struct buffer *src,
			     size_t from, size_t length)
{
	memmove(dst->want + to, src->want + from, length);
	memcpy(dst->p + to, dst->want + to, length);
}

static void buffer_store_zeroes(struct buffer *buf, size_t offset,
				size_t length)
{
	memset(buf->want + offset, 0, length);
	memset(buf->p + offset, 0, length);
}

/*
 * The call
 */

static struct file_dedupe_range_info target(int fd, uint64_t offset)
{
	return (struct file_dedupe_range_info) {
		.dest_fd = fd,
		.dest_offset = offset,
		.bytes_deduped = POISON,
		.status = POISON,
	};
}

static int dedupe_many(int src, uint64_t from, uint64_t length,
		       struct file_dedupe_range_info *targets, unsigned int nr)
{
	size_t bytes = nr * sizeof(*targets);
	struct file_dedupe_range *arg = calloc(1, sizeof(*arg) + bytes);
	int err;

	arg->src_offset = from;
	arg->src_length = length;
	arg->dest_count = nr;
	memcpy(arg->info, targets, bytes);
	err = ret(ioctl(src, FIDEDUPERANGE, arg));
	memcpy(targets, arg->info, bytes);
	free(arg);
	return err;
}

/* Of the call, and of its one destination. */
struct result {
	int err;
	int status;
	uint64_t bytes;
};

static struct result dedupe(int dst, uint64_t to, int src, uint64_t from,
			    uint64_t length)
{
	struct file_dedupe_range_info info = target(dst, to);
	int err = dedupe_many(src, from, length, &info, 1);

	return (struct result) { err, info.status, info.bytes_deduped };
}

static bool is_same(struct result result, uint64_t length)
{
	return !result.err && result.status == FILE_DEDUPE_RANGE_SAME &&
	       result.bytes == length;
}

static bool is_different(struct result result)
{
	return !result.err && result.status == FILE_DEDUPE_RANGE_DIFFERS &&
	       !result.bytes;
}

/* The destination was refused with @err, the call as such was not. */
static bool is_status(struct result result, int err)
{
	return !result.err && result.status == err && !result.bytes;
}

/* The call failed, and has written nothing. */
static bool is_error(struct result result, int err)
{
	return result.err == err && result.status == POISON &&
	       result.bytes == POISON;
}

static struct result buffer_dedupe(struct buffer *dst, uint64_t to,
				   struct buffer *src, uint64_t from,
				   uint64_t length)
{
	return dedupe(dst->fd, to, src->fd, from, length);
}

/* All of two buffers of SIZE. */
static bool buffer_same(struct buffer *dst, struct buffer *src)
{
	return is_same(buffer_dedupe(dst, 0, src, 0, SIZE), SIZE);
}

/*
 * Ranges with the same bytes
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
FIXTURE_VARIANT_ADD(range, middle) {
	.from = 4 * PAGE, .to = 4 * PAGE, .length = 5 * PAGE,
};
FIXTURE_VARIANT_ADD(range, at_a_higher_offset) {
	.from = 2 * PAGE, .to = 9 * PAGE, .length = 4 * PAGE,
};
FIXTURE_VARIANT_ADD(range, at_a_lower_offset) {
	.from = 9 * PAGE, .to = 2 * PAGE, .length = 4 * PAGE,
};
FIXTURE_VARIANT_ADD(range, at_both_ends) {
	.from = 8 * PAGE, .to = 8 * PAGE, .length = 8 * PAGE,
};
FIXTURE_VARIANT_ADD(range, buffers_of_different_size) {
	.src_size = 7 * PAGE, .to = 4 * PAGE, .length = 7 * PAGE,
};
FIXTURE_VARIANT_ADD(range, unaligned_ends) {
	.src_size = 5 * PAGE + 100, .dst_size = 5 * PAGE + 100,
	.length = 5 * PAGE + 100,
};
FIXTURE_VARIANT_ADD(range, unaligned_ends_at_different_offsets) {
	.src_size = 5 * PAGE + 100, .dst_size = 9 * PAGE + 100,
	.from = 3 * PAGE, .to = 7 * PAGE, .length = 2 * PAGE + 100,
};
FIXTURE_VARIANT_ADD(range, pages_before_unaligned_ends) {
	.src_size = 5 * PAGE + 100, .dst_size = 5 * PAGE + 200,
	.length = 5 * PAGE,
};
FIXTURE_VARIANT_ADD(range, within_a_buffer) {
	.same = true, .to = 8 * PAGE, .length = 4 * PAGE,
};
FIXTURE_VARIANT_ADD(range, within_a_buffer_backwards) {
	.same = true, .from = 11 * PAGE, .to = 2 * PAGE, .length = 4 * PAGE,
};
FIXTURE_VARIANT_ADD(range, within_a_buffer_side_by_side) {
	.same = true, .to = 8 * PAGE, .length = 8 * PAGE,
};

FIXTURE_SETUP(range)
{
	ASSERT_TRUE(buffer_create_filled(&self->src,
					 variant->src_size ?: SIZE, 1));
	ASSERT_TRUE(buffer_create_filled(&self->other,
					 variant->dst_size ?: SIZE, 2));
	self->dst = variant->same ? &self->src : &self->other;
	buffer_fill_from(self->dst, variant->to, &self->src, variant->from,
			 variant->length);
	self->pages = cow_param("pages");
}

FIXTURE_TEARDOWN(range)
{
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->other));
	buffer_close(&self->src);
	buffer_close(&self->other);
}

TEST_F(range, equal_pages_become_one)
{
	long nr = page_up(variant->length) / PAGE;

	EXPECT_TRUE(is_same(buffer_dedupe(self->dst, variant->to, &self->src,
					  variant->from, variant->length),
			    variant->length));
	EXPECT_EQ(self->pages - nr, cow_param("pages"));
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->other));
	EXPECT_EQ(page_up(self->other.size), resident(&self->other));
	EXPECT_EQ(0, cow_stat(self->src.fd).copied);
	EXPECT_EQ(0, cow_stat(self->other.fd).copied);
}

TEST_F(range, later_writes_are_seen_in_their_own_place_only)
{
	EXPECT_TRUE(is_same(buffer_dedupe(self->dst, variant->to, &self->src,
					  variant->from, variant->length),
			    variant->length));
	buffer_store_all(&self->other);
	EXPECT_TRUE(buffer_ok(&self->src));
	buffer_store_all(&self->src);
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->other));
	ASSERT_TRUE(buffer_write_all(&self->other));
	ASSERT_TRUE(buffer_write_all(&self->src));
	EXPECT_EQ(self->pages, cow_param("pages"));
}

TEST_F(range, last_byte_differs)
{
	buffer_flip(self->dst, variant->to + variant->length - 1);
	EXPECT_TRUE(is_different(buffer_dedupe(self->dst, variant->to,
					       &self->src, variant->from,
					       variant->length)));
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->other));
	EXPECT_GE(self->pages, cow_param("pages"));
	buffer_store_all(&self->src);
	buffer_store_all(&self->other);
}

/*
 * Ranges that are EINVAL: of the source, for the call; of the destination, or of
 * both together, for that destination
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
	bool call;	/* the call fails, not only its destination */
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
FIXTURE_VARIANT_ADD(refused, unaligned_length) { .length = PAGE + 512 };
FIXTURE_VARIANT_ADD(refused, length_below_a_page) { .length = 1 };
FIXTURE_VARIANT_ADD(refused, unaligned_length_before_the_end) {
	.src_size = 5 * PAGE + 100, .dst_size = 5 * PAGE + 99,
	.length = 5 * PAGE + 99,
};
FIXTURE_VARIANT_ADD(refused, unaligned_end_inside_the_destination) {
	.src_size = 5 * PAGE + 100, .length = 5 * PAGE + 100,
};
FIXTURE_VARIANT_ADD(refused, unaligned_end_one_byte_before_the_other) {
	.src_size = 5 * PAGE + 100, .dst_size = 5 * PAGE + 101,
	.length = 5 * PAGE + 100,
};
FIXTURE_VARIANT_ADD(refused, unaligned_end_of_the_destination_only) {
	.dst_size = 5 * PAGE + 100, .length = 5 * PAGE + 100,
};
FIXTURE_VARIANT_ADD(refused, across_the_end_of_the_destination) {
	.dst_size = 5 * PAGE, .length = 6 * PAGE,
};
FIXTURE_VARIANT_ADD(refused, across_an_unaligned_end_of_the_destination) {
	.dst_size = 5 * PAGE + 100, .length = 6 * PAGE,
};
FIXTURE_VARIANT_ADD(refused, behind_the_end_of_the_destination) {
	.to = SIZE, .length = PAGE,
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
FIXTURE_VARIANT_ADD(refused, across_the_end_of_the_source) {
	.src_size = 5 * PAGE, .length = 6 * PAGE, .call = true,
};
FIXTURE_VARIANT_ADD(refused, across_an_unaligned_end_of_the_source) {
	.src_size = 5 * PAGE + 100, .length = 6 * PAGE, .call = true,
};
FIXTURE_VARIANT_ADD(refused, behind_the_end_of_the_source) {
	.from = SIZE, .length = PAGE, .call = true,
};
FIXTURE_VARIANT_ADD(refused, negative_source_offset) {
	.from = -PAGE, .length = PAGE, .call = true,
};
FIXTURE_VARIANT_ADD(refused, negative_length) {
	.length = -PAGE, .call = true,
};
FIXTURE_VARIANT_ADD(refused, huge_length) {
	.length = INT64_MAX, .call = true,
};

/* At equal offsets the bytes are equal. */
FIXTURE_SETUP(refused)
{
	ASSERT_TRUE(buffer_create_filled(&self->src,
					 variant->src_size ?: SIZE, 1));
	ASSERT_TRUE(buffer_create_filled(&self->other,
					 variant->dst_size ?: SIZE, 1));
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
	struct result result = buffer_dedupe(self->dst, variant->to, &self->src,
					     variant->from, variant->length);

	EXPECT_TRUE(variant->call ? is_error(result, -EINVAL) :
				    is_status(result, -EINVAL))
		TH_LOG("error %d, status %d", result.err, result.status);
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->other));
}

/*
 * Two buffers with the same bytes
 */

FIXTURE(pair)
{
	struct buffer src;
	struct buffer dst;
	int pipefd[2];
	int other_pipefd[2];
	long pages;
};

FIXTURE_SETUP(pair)
{
	ASSERT_TRUE(buffer_create_filled(&self->src, SIZE, 1));
	ASSERT_TRUE(buffer_create_filled(&self->dst, SIZE, 1));
	ASSERT_EQ(0, pipe(self->pipefd));
	ASSERT_EQ(0, pipe(self->other_pipefd));
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
	NEED(SHARING);
	EXPECT_EQ(SIZE, cow_sharing(self->dst.fd).exclusive);
	ASSERT_TRUE(buffer_same(&self->dst, &self->src));
	EXPECT_EQ(0, cow_sharing(self->src.fd).exclusive);
	EXPECT_EQ(0, cow_sharing(self->dst.fd).exclusive);
	EXPECT_EQ(SIZE, cow_sharing(self->dst.fd).resident);
	buffer_flip(&self->src, 3 * PAGE);
	EXPECT_EQ(PAGE, cow_sharing(self->src.fd).exclusive);
	EXPECT_EQ(PAGE, cow_sharing(self->dst.fd).exclusive);
	EXPECT_EQ(self->pages - NR + 1, cow_param("pages"));
}

TEST_F(pair, one_byte_of_any_page_differs)
{
	static const size_t places[] = { 0, PAGE / 2 + 1, PAGE - 1 };
	size_t i, k, offset;

	for (i = 0; i < NR; i++) {
		for (k = 0; k < ARRAY_SIZE(places); k++) {
			offset = i * PAGE + places[k];
			buffer_flip(&self->dst, offset);
			EXPECT_TRUE(is_different(buffer_dedupe(&self->dst, 0,
							       &self->src, 0,
							       SIZE)))
				TH_LOG("page %zu, byte %zu", i, places[k]);
			buffer_flip(&self->dst, offset);
		}
		EXPECT_TRUE(buffer_ok(&self->dst));
		EXPECT_TRUE(buffer_ok(&self->src));
	}
	EXPECT_TRUE(buffer_same(&self->dst, &self->src));
	EXPECT_EQ(self->pages - NR, cow_param("pages"));
}

TEST_F(pair, one_bit_differs)
{
	unsigned int bit;

	for (bit = 0; bit < 8; bit++) {
		buffer_store(&self->src, 77, self->dst.want[77] ^ 1 << bit);
		EXPECT_TRUE(is_different(buffer_dedupe(&self->dst, 0, &self->src,
						       0, PAGE)));
		EXPECT_TRUE(buffer_ok(&self->dst));
		EXPECT_TRUE(buffer_ok(&self->src));
	}
}

TEST_F(pair, what_is_outside_of_the_range_does_not_matter)
{
	buffer_flip(&self->dst, 4 * PAGE - 1);
	buffer_flip(&self->dst, 6 * PAGE);
	EXPECT_TRUE(is_same(buffer_dedupe(&self->dst, 4 * PAGE, &self->src,
					  4 * PAGE, 2 * PAGE), 2 * PAGE));
	EXPECT_EQ(self->pages - 2, cow_param("pages"));
}

TEST_F(pair, shared_already_is_the_same_and_changes_nothing)
{
	ASSERT_TRUE(buffer_same(&self->dst, &self->src));
	EXPECT_TRUE(buffer_same(&self->dst, &self->src));
	EXPECT_TRUE(buffer_same(&self->src, &self->dst));
	EXPECT_EQ(self->pages - NR, cow_param("pages"));
	buffer_store_all(&self->dst);
	EXPECT_TRUE(buffer_ok(&self->src));
}

TEST_F(pair, clone_is_the_same_and_changes_nothing)
{
	struct buffer clone;

	ASSERT_TRUE(buffer_snapshot(&clone, &self->src, true));
	EXPECT_TRUE(buffer_same(&clone, &self->src));
	EXPECT_TRUE(buffer_same(&self->src, &clone));
	EXPECT_EQ(self->pages, cow_param("pages"));
	buffer_store_all(&clone);
	EXPECT_TRUE(buffer_ok(&self->src));
	buffer_store_all(&self->src);
	EXPECT_TRUE(buffer_ok(&clone));
	buffer_close(&clone);
}

TEST_F(pair, page_written_back_is_shared_again)
{
	ASSERT_TRUE(buffer_same(&self->dst, &self->src));
	buffer_flip(&self->dst, 3 * PAGE + 1);
	EXPECT_EQ(self->pages - NR + 1, cow_param("pages"));
	EXPECT_TRUE(is_different(buffer_dedupe(&self->dst, 0, &self->src, 0,
					       SIZE)));
	buffer_flip(&self->dst, 3 * PAGE + 1);
	EXPECT_TRUE(buffer_same(&self->dst, &self->src));
	EXPECT_EQ(self->pages - NR, cow_param("pages"));
}

TEST_F(pair, length_0_is_the_same_and_does_nothing)
{
	EXPECT_TRUE(is_same(buffer_dedupe(&self->dst, 0, &self->src, PAGE, 0),
			    0));
	EXPECT_EQ(self->pages, cow_param("pages"));
}

TEST_F(pair, no_destination_does_nothing)
{
	struct file_dedupe_range_info unused = target(self->dst.fd, 0);

	EXPECT_EQ(0, dedupe_many(self->src.fd, 0, SIZE, &unused, 0));
	EXPECT_EQ(POISON, unused.status);
	EXPECT_EQ(self->pages, cow_param("pages"));
}

TEST_F(pair, two_destinations_in_one_call)
{
	struct file_dedupe_range_info targets[2];
	struct buffer third;

	ASSERT_TRUE(buffer_create_filled(&third, SIZE, 3));
	buffer_fill_from(&third, 9 * PAGE, &self->src, 2 * PAGE, 4 * PAGE);
	targets[0] = target(self->dst.fd, 2 * PAGE);
	targets[1] = target(third.fd, 9 * PAGE);
	ASSERT_EQ(0, dedupe_many(self->src.fd, 2 * PAGE, 4 * PAGE, targets, 2));
	EXPECT_EQ(FILE_DEDUPE_RANGE_SAME, targets[0].status);
	EXPECT_EQ(4 * PAGE, targets[0].bytes_deduped);
	EXPECT_EQ(FILE_DEDUPE_RANGE_SAME, targets[1].status);
	EXPECT_EQ(4 * PAGE, targets[1].bytes_deduped);
	EXPECT_EQ(self->pages + NR - 8, cow_param("pages"));
	buffer_store_all(&self->src);
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_TRUE(buffer_ok(&third));
	buffer_store_all(&third);
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->dst));
	buffer_store_all(&self->dst);
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&third));
	buffer_close(&third);
}

TEST_F(pair, two_destinations_in_one_buffer)
{
	struct file_dedupe_range_info targets[2] = {
		target(self->dst.fd, 8 * PAGE), target(self->dst.fd, 12 * PAGE),
	};

	buffer_fill_from(&self->dst, 8 * PAGE, &self->src, 0, 4 * PAGE);
	buffer_fill_from(&self->dst, 12 * PAGE, &self->src, 0, 4 * PAGE);
	ASSERT_EQ(0, dedupe_many(self->src.fd, 0, 4 * PAGE, targets, 2));
	EXPECT_EQ(FILE_DEDUPE_RANGE_SAME, targets[0].status);
	EXPECT_EQ(FILE_DEDUPE_RANGE_SAME, targets[1].status);
	EXPECT_EQ(self->pages - 8, cow_param("pages"));
	buffer_flip(&self->dst, 8 * PAGE);
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_TRUE(buffer_ok(&self->src));
}

/* What is wrong with one destination does not matter to the next. */
TEST_F(pair, each_destination_has_its_own_status)
{
	int foreign = memfd_create("foreign", MFD_CLOEXEC);
	struct file_dedupe_range_info targets[] = {
		target(-1, 0),
		target(foreign, 0),
		target(self->dst.fd, 100),
		target(self->dst.fd, SIZE),
		target(self->dst.fd, 0),
		target(self->dst.fd, 8 * PAGE),
		target(self->dst.fd, 4 * PAGE),
	};

	ASSERT_GE(foreign, 0);
	ASSERT_EQ(SIZE, pwrite(foreign, self->src.want, SIZE, 0));
	targets[5].reserved = 1;
	ASSERT_EQ(0, dedupe_many(self->src.fd, 4 * PAGE, 4 * PAGE, targets,
				 ARRAY_SIZE(targets)));
	EXPECT_EQ(-EBADF, targets[0].status);
	EXPECT_EQ(-EXDEV, targets[1].status);
	EXPECT_EQ(-EINVAL, targets[2].status);
	EXPECT_EQ(-EINVAL, targets[3].status);
	EXPECT_EQ(FILE_DEDUPE_RANGE_DIFFERS, targets[4].status);
	EXPECT_EQ(-EINVAL, targets[5].status);
	EXPECT_EQ(FILE_DEDUPE_RANGE_SAME, targets[6].status);
	EXPECT_EQ(0, targets[4].bytes_deduped);
	EXPECT_EQ(4 * PAGE, targets[6].bytes_deduped);
	EXPECT_EQ(self->pages - 4, cow_param("pages"));
	close(foreign);
}

TEST_F(pair, snapshot_of_the_destination_keeps_its_pages)
{
	struct buffer snap;

	ASSERT_TRUE(buffer_snapshot(&snap, &self->dst, false));
	ASSERT_TRUE(buffer_same(&self->dst, &self->src));
	EXPECT_EQ(self->pages, cow_param("pages"));
	buffer_store_all(&self->dst);
	EXPECT_TRUE(buffer_ok(&snap));
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_EQ(self->pages + NR, cow_param("pages"));
	buffer_close(&snap);
	EXPECT_EQ(self->pages, cow_param("pages"));
}

TEST_F(pair, snapshot_of_the_source_keeps_what_it_has)
{
	struct buffer snap;

	ASSERT_TRUE(buffer_snapshot(&snap, &self->src, false));
	ASSERT_TRUE(buffer_same(&self->dst, &self->src));
	EXPECT_EQ(self->pages - NR, cow_param("pages"));
	buffer_store_all(&self->src);
	EXPECT_TRUE(buffer_ok(&snap));
	EXPECT_TRUE(buffer_ok(&self->dst));
	buffer_store_all(&self->dst);
	EXPECT_TRUE(buffer_ok(&snap));
	buffer_close(&snap);
}

TEST_F(pair, frozen_source)
{
	struct buffer snap;

	ASSERT_TRUE(buffer_snapshot(&snap, &self->src, false));
	buffer_store_all(&self->src);
	EXPECT_EQ(self->pages + NR, cow_param("pages"));
	EXPECT_TRUE(buffer_same(&self->dst, &snap));
	EXPECT_EQ(self->pages, cow_param("pages"));
	buffer_store_all(&self->dst);
	ASSERT_TRUE(buffer_write_all(&self->dst));
	EXPECT_TRUE(buffer_ok(&snap));
	buffer_close(&snap);
}

/* Its content does not change: that is what frozen means. */
TEST_F(pair, frozen_destination)
{
	struct buffer snap;

	ASSERT_TRUE(buffer_snapshot(&snap, &self->dst, false));
	buffer_store_all(&self->dst);
	EXPECT_EQ(self->pages + NR, cow_param("pages"));
	EXPECT_TRUE(buffer_same(&snap, &self->src));
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_TRUE(buffer_ok(&snap));
	buffer_store_all(&self->src);
	ASSERT_TRUE(buffer_write_all(&self->src));
	EXPECT_TRUE(buffer_ok(&snap));
	EXPECT_TRUE(is_different(buffer_dedupe(&snap, 0, &self->src, 0, SIZE)));
	EXPECT_TRUE(buffer_ok(&snap));
	buffer_close(&snap);
}

TEST_F(pair, two_frozen_buffers)
{
	struct buffer src, dst;

	ASSERT_TRUE(buffer_snapshot(&src, &self->src, false));
	ASSERT_TRUE(buffer_snapshot(&dst, &self->dst, false));
	EXPECT_TRUE(buffer_same(&dst, &src));
	buffer_store_all(&self->src);
	buffer_store_all(&self->dst);
	EXPECT_TRUE(buffer_ok(&src));
	EXPECT_TRUE(buffer_ok(&dst));
	EXPECT_EQ(self->pages + NR, cow_param("pages"));
	buffer_close(&src);
	buffer_close(&dst);
}

TEST_F(pair, shared_pages_outlive_their_source_and_leave_nothing)
{
	struct buffer src, dst;

	ASSERT_TRUE(buffer_create_filled(&src, SIZE, 3));
	ASSERT_TRUE(buffer_create_filled(&dst, SIZE, 3));
	ASSERT_TRUE(buffer_same(&dst, &src));
	buffer_close(&src);
	EXPECT_TRUE(buffer_ok(&dst));
	EXPECT_EQ(self->pages + NR, cow_param("pages"));
	buffer_store_all(&dst);
	EXPECT_TRUE(buffer_ok(&dst));
	EXPECT_EQ(self->pages + NR, cow_param("pages"));
	buffer_close(&dst);
	EXPECT_EQ(self->pages, cow_param("pages"));
}

TEST_F(pair, other_processes_keep_their_mappings_and_their_side)
{
	EXPECT_EQ(0, CHILD({
		if (!buffer_same(&self->dst, &self->src) ||
		    !buffer_ok(&self->dst) || !buffer_ok(&self->src))
			_exit(1);
	}));
	EXPECT_EQ(self->pages - NR, cow_param("pages"));
	buffer_store_all(&self->src);
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_EQ(0, CHILD({
		if (!buffer_ok(&self->dst) || !buffer_ok(&self->src))
			_exit(1);
		buffer_flip(&self->dst, 9);
		if (!buffer_ok(&self->dst) || !buffer_ok(&self->src))
			_exit(2);
	}));
	self->dst.want[9] = ~self->dst.want[9];
}

TEST_F(pair, private_copies_of_mappings_stay)
{
	char *q = mmap(NULL, SIZE, RW, MAP_PRIVATE, self->dst.fd, 0);

	ASSERT_NE(MAP_FAILED, q);
	q[2 * PAGE] = ~self->dst.want[2 * PAGE];
	EXPECT_EQ(self->dst.want[3 * PAGE], q[3 * PAGE]);
	ASSERT_TRUE(buffer_same(&self->dst, &self->src));
	EXPECT_EQ((char)~self->dst.want[2 * PAGE], q[2 * PAGE]);
	EXPECT_EQ(0, memcmp(q + 2 * PAGE + 1, self->dst.want + 2 * PAGE + 1,
			    SIZE - 2 * PAGE - 1));
	memset(q, '?', SIZE);
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_TRUE(buffer_ok(&self->src));
	munmap(q, SIZE);
}

TEST_F(pair, mtime_stays)
{
	static const struct timespec past[2] = { { 1, 0 }, { 1, 0 } };
	struct stat st;

	ASSERT_EQ(0, futimens(self->dst.fd, past));
	ASSERT_TRUE(buffer_same(&self->dst, &self->src));
	ASSERT_EQ(0, fstat(self->dst.fd, &st));
	EXPECT_EQ(1, st.st_mtime);
}

TEST_F(pair, needs_no_page_at_the_LIMIT)
{
	NEED(LIMIT);
	ASSERT_EQ(0, cow_limit(self->dst.fd, SIZE));
	ASSERT_EQ(0, cow_limit(self->src.fd, SIZE));
	EXPECT_TRUE(buffer_same(&self->dst, &self->src));
	EXPECT_EQ(self->pages - NR, cow_param("pages"));
}

/*
 * Pinned pages
 */

TEST_F(pair, held_page_of_the_destination_keeps_its_place)
{
	ASSERT_TRUE(pipe_hold(self->pipefd, self->dst.p + 3 * PAGE));
	EXPECT_TRUE(buffer_same(&self->dst, &self->src));
	EXPECT_EQ(self->pages - NR + 1, cow_param("pages"));
	buffer_flip(&self->dst, 3 * PAGE + 9);
	EXPECT_TRUE(buffer_ok(&self->src));
	buffer_flip(&self->src, 3 * PAGE + 10);
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_TRUE(pipe_has_page(self->pipefd, self->dst.want + 3 * PAGE));
}

TEST_F(pair, held_page_of_the_source_keeps_its_place)
{
	ASSERT_TRUE(pipe_hold(self->pipefd, self->src.p + 3 * PAGE));
	EXPECT_TRUE(buffer_same(&self->dst, &self->src));
	EXPECT_EQ(self->pages - NR + 1, cow_param("pages"));
	buffer_flip(&self->src, 3 * PAGE + 9);
	EXPECT_TRUE(buffer_ok(&self->dst));
	buffer_flip(&self->dst, 3 * PAGE + 10);
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(pipe_has_page(self->pipefd, self->src.want + 3 * PAGE));
}

TEST_F(pair, ENOSPC_held_page_of_the_source_at_the_LIMIT)
{
	NEED(LIMIT);
	ASSERT_TRUE(pipe_hold(self->pipefd, self->src.p + 3 * PAGE));
	ASSERT_EQ(0, cow_limit(self->dst.fd, SIZE));
	EXPECT_TRUE(is_status(buffer_dedupe(&self->dst, 0, &self->src, 0, SIZE),
			      -ENOSPC));
	EXPECT_EQ(SIZE, cow_sharing(self->src.fd).exclusive);
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->dst));
	ASSERT_EQ(0, cow_limit(self->dst.fd, SIZE + PAGE));
	EXPECT_TRUE(buffer_same(&self->dst, &self->src));
}

TEST_F(pair, held_pages_of_both_sides_keep_their_places)
{
	ASSERT_TRUE(pipe_hold(self->pipefd, self->src.p + 3 * PAGE));
	ASSERT_TRUE(pipe_hold(self->other_pipefd, self->dst.p + 3 * PAGE));
	EXPECT_TRUE(buffer_same(&self->dst, &self->src));
	EXPECT_EQ(self->pages - NR + 1, cow_param("pages"));
	buffer_flip(&self->src, 3 * PAGE + 9);
	buffer_flip(&self->dst, 3 * PAGE + 10);
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->dst));
	EXPECT_TRUE(pipe_has_page(self->pipefd, self->src.want + 3 * PAGE));
	EXPECT_TRUE(pipe_has_page(self->other_pipefd,
				  self->dst.want + 3 * PAGE));
}

TEST_F(pair, held_page_that_differs_keeps_its_place)
{
	ASSERT_TRUE(pipe_hold(self->pipefd, self->dst.p + 3 * PAGE));
	buffer_flip(&self->dst, 3 * PAGE + 8);
	EXPECT_TRUE(is_different(buffer_dedupe(&self->dst, 0, &self->src, 0,
					       SIZE)));
	buffer_flip(&self->dst, 3 * PAGE + 9);
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(pipe_has_page(self->pipefd, self->dst.want + 3 * PAGE));
}

TEST_F(pair, held_page_of_zeroes_over_a_hole_keeps_its_place)
{
	struct buffer hole;

	ASSERT_TRUE(buffer_create(&hole, SIZE));
	buffer_store_zeroes(&self->dst, 3 * PAGE, PAGE);
	ASSERT_TRUE(pipe_hold(self->pipefd, self->dst.p + 3 * PAGE));
	EXPECT_TRUE(is_same(buffer_dedupe(&self->dst, 3 * PAGE, &hole, 3 * PAGE,
					  PAGE), PAGE));
	buffer_flip(&self->dst, 3 * PAGE + 9);
	EXPECT_TRUE(buffer_ok(&hole));
	EXPECT_TRUE(pipe_has_page(self->pipefd, self->dst.want + 3 * PAGE));
	buffer_close(&hole);
}

/* A page that is shared with a snapshot can only be pinned for reading. */
TEST_F(pair, page_held_for_reading_stays_as_it_was)
{
	struct buffer snap;

	ASSERT_TRUE(buffer_snapshot(&snap, &self->dst, false));
	ASSERT_TRUE(pipe_hold(self->pipefd, self->dst.p + 3 * PAGE));
	EXPECT_TRUE(buffer_same(&self->dst, &self->src));
	buffer_flip(&self->dst, 3 * PAGE + 9);
	buffer_flip(&self->src, 3 * PAGE + 10);
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(pipe_has_page(self->pipefd, snap.want + 3 * PAGE));
	EXPECT_TRUE(buffer_ok(&snap));
	buffer_close(&snap);
}

/*
 * Holes and pages of zeroes
 */

FIXTURE(zeroes)
{
	struct buffer hole;
	struct buffer pages;	/* full; pages 2 to 5 are all zero */
	long before;
};

FIXTURE_SETUP(zeroes)
{
	ASSERT_TRUE(buffer_create(&self->hole, SIZE));
	ASSERT_TRUE(buffer_create_filled(&self->pages, SIZE, 1));
	buffer_store_zeroes(&self->pages, 2 * PAGE, 4 * PAGE);
	self->before = cow_param("pages");
}

FIXTURE_TEARDOWN(zeroes)
{
	EXPECT_TRUE(buffer_ok(&self->hole));
	EXPECT_TRUE(buffer_ok(&self->pages));
	buffer_close(&self->hole);
	buffer_close(&self->pages);
}

TEST_F(zeroes, pages_become_holes)
{
	EXPECT_TRUE(is_same(buffer_dedupe(&self->pages, 2 * PAGE, &self->hole,
					  8 * PAGE, 4 * PAGE), 4 * PAGE));
	EXPECT_EQ(self->before - 4, cow_param("pages"));
	EXPECT_EQ(SIZE - 4 * PAGE, resident(&self->pages));
	EXPECT_EQ(2 * PAGE, lseek(self->pages.fd, 0, SEEK_HOLE));
	EXPECT_EQ(6 * PAGE, lseek(self->pages.fd, 2 * PAGE, SEEK_DATA));
	EXPECT_TRUE(buffer_ok(&self->pages));
	buffer_flip(&self->pages, 3 * PAGE);
	EXPECT_TRUE(buffer_ok(&self->hole));
	EXPECT_EQ(0, resident(&self->hole));
}

TEST_F(zeroes, hole_takes_no_page_of_its_own)
{
	EXPECT_TRUE(is_same(buffer_dedupe(&self->hole, 8 * PAGE, &self->pages,
					  2 * PAGE, 4 * PAGE), 4 * PAGE));
	EXPECT_GE(self->before, cow_param("pages"));
	EXPECT_TRUE(buffer_ok(&self->hole));
	buffer_flip(&self->pages, 3 * PAGE);
	EXPECT_TRUE(buffer_ok(&self->hole));
	buffer_flip(&self->hole, 8 * PAGE);
	EXPECT_TRUE(buffer_ok(&self->pages));
}

TEST_F(zeroes, two_holes_are_the_same)
{
	EXPECT_TRUE(is_same(buffer_dedupe(&self->hole, 0, &self->hole, 8 * PAGE,
					  8 * PAGE), 8 * PAGE));
	EXPECT_EQ(self->before, cow_param("pages"));
	EXPECT_EQ(0, resident(&self->hole));
}

TEST_F(zeroes, two_pages_of_zeroes_become_one_or_none)
{
	EXPECT_TRUE(is_same(buffer_dedupe(&self->pages, 2 * PAGE, &self->pages,
					  4 * PAGE, 2 * PAGE), 2 * PAGE));
	EXPECT_GE(self->before - 2, cow_param("pages"));
	buffer_flip(&self->pages, 2 * PAGE);
	EXPECT_TRUE(buffer_ok(&self->pages));
}

TEST_F(zeroes, one_byte_differs_from_a_hole)
{
	static const size_t places[] = {
		2 * PAGE, 4 * PAGE + 77, 6 * PAGE - 1,
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(places); i++) {
		buffer_store(&self->pages, places[i], 1);
		EXPECT_TRUE(is_different(buffer_dedupe(&self->pages, 2 * PAGE,
						       &self->hole, 2 * PAGE,
						       4 * PAGE)));
		EXPECT_TRUE(is_different(buffer_dedupe(&self->hole, 2 * PAGE,
						       &self->pages, 2 * PAGE,
						       4 * PAGE)));
		EXPECT_TRUE(buffer_ok(&self->pages));
		EXPECT_TRUE(buffer_ok(&self->hole));
		buffer_store(&self->pages, places[i], 0);
	}
	EXPECT_GE(self->before, cow_param("pages"));
}

TEST_F(zeroes, pages_and_holes_in_one_range)
{
	struct buffer dst;

	/* The destination has a page for each hole of the source. */
	ASSERT_EQ(0, ret(ftruncate(self->pages.fd, 8 * PAGE)));
	ASSERT_EQ(0, ret(ftruncate(self->pages.fd, SIZE)));
	memset(self->pages.want + 8 * PAGE, 0, SIZE - 8 * PAGE);
	ASSERT_TRUE(buffer_create(&dst, SIZE));
	buffer_fill_from(&dst, 0, &self->pages, 0, SIZE);
	EXPECT_EQ(self->before - 8 + NR, cow_param("pages"));
	EXPECT_TRUE(buffer_same(&dst, &self->pages));
	EXPECT_GE(self->before - 8, cow_param("pages"));
	EXPECT_TRUE(buffer_ok(&dst));
	buffer_store_all(&self->pages);
	EXPECT_TRUE(buffer_ok(&dst));
	buffer_close(&dst);
}

/*
 * Rights, and files that are none of ours
 */

TEST_F(pair, EINVAL_source_open_for_writing)
{
	int fd = reopen(self->src.fd, O_WRONLY);

	ASSERT_GE(fd, 0);
	EXPECT_TRUE(is_error(dedupe(self->dst.fd, 0, fd, 0, SIZE), -EINVAL));
	EXPECT_EQ(self->pages, cow_param("pages"));
	close(fd);
}

TEST_F(pair, EINVAL_reserved_fields_of_the_call)
{
	struct {
		struct file_dedupe_range range;
		struct file_dedupe_range_info info;
	} arg = {
		.range = {
			.src_length = SIZE,
			.dest_count = 1,
			.reserved1 = 1,
		},
		.info = target(self->dst.fd, 0),
	};

	EXPECT_EQ(-EINVAL, ret(ioctl(self->src.fd, FIDEDUPERANGE, &arg)));
	arg.range.reserved1 = 0;
	arg.range.reserved2 = 1;
	EXPECT_EQ(-EINVAL, ret(ioctl(self->src.fd, FIDEDUPERANGE, &arg)));
	EXPECT_EQ(POISON, arg.info.status);
	EXPECT_EQ(self->pages, cow_param("pages"));
	arg.range.reserved2 = 0;
	EXPECT_EQ(0, ret(ioctl(self->src.fd, FIDEDUPERANGE, &arg)));
	EXPECT_EQ(self->pages - NR, cow_param("pages"));
}

TEST_F(pair, handles_for_reading_or_writing_only_are_enough)
{
	int src = cow_file(self->src.fd, COWMEM_RDONLY);
	int reader = cow_file(self->dst.fd, COWMEM_RDONLY);
	int writer = reopen(self->dst.fd, O_WRONLY);

	ASSERT_GE(src, 0);
	ASSERT_GE(reader, 0);
	ASSERT_GE(writer, 0);
	EXPECT_TRUE(is_same(dedupe(writer, 0, src, 0, 4 * PAGE), 4 * PAGE));
	EXPECT_EQ(self->pages - 4, cow_param("pages"));
	EXPECT_TRUE(is_same(dedupe(reader, 4 * PAGE, src, 4 * PAGE, 4 * PAGE),
			    4 * PAGE));
	EXPECT_EQ(self->pages - 8, cow_param("pages"));
	close(src);
	close(reader);
	close(writer);
}

TEST_F(pair, EPERM_stranger_whose_destination_is_open_for_reading)
{
	int reader = cow_file(self->dst.fd, COWMEM_RDONLY);

	ASSERT_GE(reader, 0);
	EXPECT_EQ(0, CHILD({
		if (!become_nobody())
			_exit(1);
		if (!is_status(dedupe(reader, 0, self->src.fd, 0, SIZE), -EPERM))
			_exit(2);
	}));
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_EQ(0, CHILD({
		if (!become_nobody())
			_exit(1);
		if (!buffer_same(&self->dst, &self->src))
			_exit(2);
	}));
	EXPECT_EQ(self->pages - NR, cow_param("pages"));
	close(reader);
}

/* A buffer of one page, for who cannot open the device. */
static int create_on(int dev, char value)
{
	int fd = cow_create_on(dev, PAGE, NULL, 0);

	return fd < 0 || write_page(fd, 0, value) != PAGE ? -1 : fd;
}

/* An exit status: 0 if all is well. */
static int dedupe_own_frozen_buffer(int dev)
{
	int src, dst, snap;
	char value;

	if (!become_nobody())
		return 1;
	src = create_on(dev, 'a');
	dst = create_on(dev, 'a');
	snap = cow_snapshot(dst, 0);
	if (src < 0 || dst < 0 || snap < 0)
		return 2;
	if (!is_same(dedupe(snap, 0, src, 0, PAGE), PAGE))
		return 3;
	if (pwrite(src, "b", 1, 0) != 1 || pread(snap, &value, 1, 0) != 1)
		return 4;
	return value == 'a' ? 0 : 5;
}

TEST(frozen_destination_of_an_owner_without_privileges)
{
	int dev = cow_open();

	ASSERT_GE(dev, 0);
	EXPECT_EQ(0, CHILD(_exit(dedupe_own_frozen_buffer(dev))))
		TH_LOG("see dedupe_own_frozen_buffer()");
	close(dev);
}

/* A memfd has no such operation of its own, and is of another file system. */
TEST_F(pair, EXDEV_destination_and_EOPNOTSUPP_source_of_another_kind)
{
	int fd = memfd_create("foreign", MFD_CLOEXEC);
	char back[SIZE];

	ASSERT_GE(fd, 0);
	ASSERT_EQ(SIZE, pwrite(fd, self->src.want, SIZE, 0));
	EXPECT_TRUE(is_status(dedupe(fd, 0, self->src.fd, 0, SIZE), -EXDEV));
	EXPECT_TRUE(is_error(dedupe(self->dst.fd, 0, fd, 0, SIZE),
			     -EOPNOTSUPP));
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_EQ(SIZE, pread(fd, back, SIZE, 0));
	EXPECT_EQ(0, memcmp(back, self->src.want, SIZE));
	close(fd);
}

/* A source is asked for its kind, a destination for its file system. */
TEST_F(pair, EINVAL_source_and_EXDEV_destination_of_the_device)
{
	int fd = cow_open();
	char *p = cow_map(fd, SIZE, RW);

	ASSERT_NE(MAP_FAILED, p);
	memcpy(p, self->src.want, SIZE);
	EXPECT_TRUE(is_error(dedupe(self->dst.fd, 0, fd, 0, SIZE), -EINVAL));
	EXPECT_TRUE(is_status(dedupe(fd, 0, self->src.fd, 0, SIZE), -EXDEV));
	EXPECT_EQ(self->pages + NR, cow_param("pages"));
	EXPECT_EQ(0, memcmp(p, self->src.want, SIZE));
	munmap(p, SIZE);
	close(fd);
}

/*
 * Much at once
 */

#define LARGE	(8UL << 20)

TEST(large_range)
{
	int src = cow_create(LARGE, "src"), dst = cow_create(LARGE, "dst");
	char *p = cow_map(src, LARGE, RW), *q = cow_map(dst, LARGE, RW);
	long pages;
	size_t i;

	ASSERT_NE(MAP_FAILED, p);
	ASSERT_NE(MAP_FAILED, q);
	for (i = 0; i < LARGE / PAGE; i++) {
		memset(p + i * PAGE, 1 + i % 251, PAGE);
		memset(q + i * PAGE, 1 + i % 251, PAGE);
	}
	pages = cow_param("pages");
	EXPECT_TRUE(is_same(dedupe(dst, 0, src, 0, LARGE), LARGE));
	EXPECT_EQ(pages - LARGE / PAGE, cow_param("pages"));
	EXPECT_EQ(0, memcmp(p, q, LARGE));
	for (i = 0; i < LARGE / PAGE; i++)
		ASSERT_EQ((char)(1 + i % 251), q[i * PAGE + i % PAGE]);
	q[LARGE - 1] = 0;
	EXPECT_NE(0, p[LARGE - 1]);
	p[LARGE / 2] = 0;
	EXPECT_NE(0, q[LARGE / 2]);
	EXPECT_EQ(pages - LARGE / PAGE + 2, cow_param("pages"));
	munmap(p, LARGE);
	munmap(q, LARGE);
	close(src);
	close(dst);
}

/*
 * Stores meanwhile: in each round both pages start out equal, or not, and then
 * one thread counts up a word in one of them while another dedupes them.
 */

#define ROUNDS	300U
#define BURST	32U
#define WORD	(3 * PAGE + 8)

struct racer {
	volatile uint64_t *word;
	atomic_uint round;
	atomic_uint done;
};

static void wait_for(atomic_uint *value, unsigned int round)
{
	while (atomic_load(value) < round)
		sched_yield();
}

/* Now sooner, now later than what it races with. */
static void delay(struct racer *racer, unsigned int round)
{
	unsigned int i;

	for (i = 0; i < round * 37 % 64 * 32; i++)
		atomic_load(&racer->round);
}

static void *count_up(void *arg)
{
	struct racer *racer = arg;
	unsigned int round, i;

	for (round = 1; round <= ROUNDS; round++) {
		wait_for(&racer->round, round);
		delay(racer, round);
		for (i = 0; i < BURST; i++)
			*racer->word = *racer->word + 1;
		atomic_store(&racer->done, round);
	}
	return NULL;
}

FIXTURE(race)
{
	struct buffer src;
	struct buffer dst;
	struct buffer *counting;
	struct buffer *other;
	struct racer racer;
	pthread_t thread;
};

FIXTURE_VARIANT(race)
{
	bool source;	/* is the source written, or the destination? */
};

FIXTURE_VARIANT_ADD(race, store_to_the_destination) { false };
FIXTURE_VARIANT_ADD(race, store_to_the_source) { true };

FIXTURE_SETUP(race)
{
	uint64_t zero = 0;

	ASSERT_TRUE(buffer_create_filled(&self->src, SIZE, 1));
	ASSERT_TRUE(buffer_create_filled(&self->dst, SIZE, 1));
	self->counting = variant->source ? &self->src : &self->dst;
	self->other = variant->source ? &self->dst : &self->src;
	memcpy(self->counting->p + WORD, &zero, sizeof(zero));
	self->racer.word = (void *)(self->counting->p + WORD);
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, count_up,
				    &self->racer));
}

FIXTURE_TEARDOWN(race)
{
	buffer_close(&self->src);
	buffer_close(&self->dst);
}

/* Nobody stores: make the pages equal, but for a byte if @differ. */
static bool make_equal(struct buffer *other, struct buffer *counting,
		       bool differ)
{
	char *page = other->want + 3 * PAGE;

	memcpy(page, counting->p + 3 * PAGE, PAGE);
	if (differ)
		page[PAGE - 1] ^= 1;
	return pwrite(other->fd, page, PAGE, 3 * PAGE) == PAGE;
}

TEST_F(race, no_store_is_lost_and_none_is_seen_on_the_other_side)
{
	unsigned int round, same = 0;
	struct result result;
	uint64_t count;

	for (round = 1; round <= ROUNDS; round++) {
		ASSERT_TRUE(make_equal(self->other, self->counting,
				       round % 4 == 0));
		atomic_store(&self->racer.round, round);
		result = buffer_dedupe(&self->dst, 2 * PAGE, &self->src,
				       2 * PAGE, 3 * PAGE);
		wait_for(&self->racer.done, round);
		EXPECT_TRUE(is_different(result) ||
			    (round % 4 && is_same(result, 3 * PAGE)))
			TH_LOG("error %d, status %d", result.err,
			       result.status);
		same += is_same(result, 3 * PAGE);
		ASSERT_EQ(round * BURST, *self->racer.word);
		ASSERT_EQ(round * BURST, read_word(self->counting->fd, WORD));
		ASSERT_EQ((round - 1) * BURST,
			  read_word(self->other->fd, WORD));
		ASSERT_EQ(0, memcmp(self->other->p + 3 * PAGE,
				    self->other->want + 3 * PAGE, PAGE));
	}
	pthread_join(self->thread, NULL);
	TH_LOG("the same in %u of %u rounds", same, ROUNDS);
	count = ROUNDS * BURST;
	memcpy(self->counting->want + WORD, &count, sizeof(count));
	EXPECT_TRUE(buffer_ok(&self->src));
	EXPECT_TRUE(buffer_ok(&self->dst));
}

TEST_HARNESS_MAIN
