// SPDX-License-Identifier: GPL-2.0
/*
 * madvise(), each advice before and after a snapshot: what it answers, that no
 * content changes on either side but by what means to change some, and that
 * nothing is copied or allocated for it but by what asks for that.
 *
 * Elsewhere: memory errors (memory.c), DONTNEED against snapshots in a race
 * (snapshot.c), REMOVE in detail (fallocate.c), beyond the end (mmap.c), at the
 * LIMIT (account.c, pins.c).
 */
#include "common.h"
#include "harness.h"
#include "util.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED	24
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif

#define NR	8UL
#define SIZE	(NR * PAGE)

/* The page of the private mapping that is a copy of its own. */
#define OWN	2UL

FIXTURE(advice)
{
	int fd, snap;
	char *live, *private, *frozen;
	long pages;	/* of the buffer that is filled, before its snapshot */
};

/*
 * What madvise() answers for a mapping of a live buffer, of a frozen one, and for
 * a private one that may be written; and what it does.
 */
FIXTURE_VARIANT(advice)
{
	int advice;
	int live, frozen, private;
	bool zeroes;		/* punches the live buffer */
	bool drops;		/* takes private copies away */
	bool hides;		/* a child does not get the mapping */
	bool writes, reads;	/* populates */
	bool pinnable;
};

#define ADVICE(_advice, ...)						\
	FIXTURE_VARIANT_ADD(advice, _advice) {				\
		.advice = MADV_##_advice, __VA_ARGS__			\
	};								\
	FIXTURE_VARIANT_ADD(advice, pinnable_##_advice) {		\
		.advice = MADV_##_advice, .pinnable = true, __VA_ARGS__	\
	}

ADVICE(NORMAL);
ADVICE(RANDOM);
ADVICE(SEQUENTIAL);
ADVICE(WILLNEED);
ADVICE(DONTNEED, .drops = true);
ADVICE(DONTNEED_LOCKED, .drops = true);
ADVICE(FREE, .live = -EINVAL, .frozen = -EINVAL, .private = -EINVAL);
ADVICE(REMOVE, .frozen = -EACCES, .private = -EACCES, .zeroes = true);
ADVICE(DONTFORK, .hides = true);
ADVICE(DOFORK);
ADVICE(WIPEONFORK, .live = -EINVAL, .frozen = -EINVAL, .private = -EINVAL);
ADVICE(KEEPONFORK);
ADVICE(MERGEABLE);
ADVICE(UNMERGEABLE);
ADVICE(HUGEPAGE);
ADVICE(NOHUGEPAGE);
ADVICE(COLLAPSE, .live = -EINVAL, .frozen = -EINVAL, .private = -EINVAL);
ADVICE(DONTDUMP);
ADVICE(DODUMP, .live = -EINVAL, .frozen = -EINVAL, .private = -EINVAL);
ADVICE(COLD);
ADVICE(PAGEOUT);
ADVICE(POPULATE_READ, .reads = true);
ADVICE(POPULATE_WRITE, .frozen = -EINVAL, .writes = true);

FIXTURE_SETUP(advice)
{
	if (variant->pinnable)
		NEED(PINNABLE);
	self->fd = cow_create_flags(SIZE, "advice",
				    variant->pinnable ? COWMEM_PINNABLE : 0);
	ASSERT_GE(self->fd, 0);
	self->live = cow_map(self->fd, SIZE, RW);
	ASSERT_NE(MAP_FAILED, self->live);
	if (variant->advice == MADV_DOFORK &&
	    madvise(self->live, SIZE, MADV_DOFORK) && errno == EINVAL)
		SKIP(return, "this kernel does not take MADV_DONTFORK back");
	fill_pages(self->live, NR);
	self->private = map_private(self->fd, SIZE, RW);
	ASSERT_NE(MAP_FAILED, self->private);
	ASSERT_TRUE(pages_filled(self->private, 0, NR));
	memset(self->private + OWN * PAGE, '#', PAGE);
	self->pages = cow_param("pages");
}

FIXTURE_TEARDOWN(advice)
{
	munmap(self->live, SIZE);
	munmap(self->private, SIZE);
	close(self->fd);
}

/* Frozen, and mapped, but nothing of it is read. */
static bool take_snapshot(FIXTURE_DATA(advice) *self)
{
	self->snap = cow_snapshot(self->fd, 0);
	if (self->snap < 0)
		return false;
	self->frozen = cow_map(self->snap, SIZE, PROT_READ);
	return self->frozen != MAP_FAILED;
}

/* By read(), in the mapping, and in one made just now: as filled, or zeroes. */
static bool content_is(int fd, const char *mapped, bool zeroes)
{
	char *fresh = cow_map(fd, SIZE, PROT_READ), data[SIZE];
	unsigned long i;
	bool is = fresh != MAP_FAILED && pread(fd, data, SIZE, 0) == SIZE;

	for (i = 0; is && i < NR; i++)
		is = page_is(data + i * PAGE, zeroes ? 0 : value_of(i)) &&
		     page_is(mapped + i * PAGE, zeroes ? 0 : value_of(i)) &&
		     page_is(fresh + i * PAGE, zeroes ? 0 : value_of(i));
	munmap(fresh, SIZE);
	return is;
}

/* All pages of the live buffer get a new value, through its mapping. */
static bool store_all(FIXTURE_DATA(advice) *self)
{
	char data[SIZE];
	unsigned long i;

	memset(self->live, '!', SIZE);
	if (pread(self->fd, data, SIZE, 0) != SIZE)
		return false;
	for (i = 0; i < NR; i++)
		if (!page_is(data + i * PAGE, '!') ||
		    !page_is(self->live + i * PAGE, '!'))
			return false;
	return true;
}

/* Its own page is its own still, the others are those of the buffer. */
static bool private_is(FIXTURE_DATA(advice) *self, bool own, char others)
{
	unsigned long i;

	for (i = 0; i < NR; i++)
		if (!page_is(self->private + i * PAGE,
			     own && i == OWN ? '#' : others ?: value_of(i)))
			return false;
	return true;
}

TEST_F(advice, before_a_snapshot)
{
	EXPECT_EQ(variant->live, ret(madvise(self->live, SIZE, variant->advice)));
	EXPECT_EQ(self->pages - (variant->zeroes ? NR : 0), cow_param("pages"));
	ASSERT_TRUE(take_snapshot(self));
	EXPECT_EQ(self->pages - (variant->zeroes ? NR : 0), cow_param("pages"));
	EXPECT_EQ(0, cow_stat(self->fd).held);
	EXPECT_TRUE(store_all(self));
	EXPECT_TRUE(content_is(self->snap, self->frozen, variant->zeroes));
}

TEST_F(advice, after_a_snapshot)
{
	bool copies = variant->writes || (variant->reads && variant->pinnable);

	ASSERT_TRUE(take_snapshot(self));
	EXPECT_EQ(variant->live, ret(madvise(self->live, SIZE, variant->advice)));
	EXPECT_EQ(self->pages + (copies ? NR : 0), cow_param("pages"));
	EXPECT_TRUE(content_is(self->fd, self->live, variant->zeroes));
	EXPECT_TRUE(content_is(self->snap, self->frozen, false));
	EXPECT_TRUE(store_all(self));
	EXPECT_TRUE(content_is(self->snap, self->frozen, false));
	EXPECT_EQ(self->pages + NR, cow_param("pages"));
}

TEST_F(advice, of_a_mapping_that_is_written_again_and_again)
{
	unsigned long i;
	int snap;

	for (i = 0; i < 4; i++) {
		memset(self->live, value_of(i), SIZE);
		madvise(self->live, SIZE / 2, variant->advice);
		snap = cow_snapshot(self->fd, 0);
		ASSERT_GE(snap, 0);
		madvise(self->live + PAGE, SIZE / 2, variant->advice);
		self->live[0] = '!';
		EXPECT_EQ('!', self->live[0]);
		EXPECT_TRUE(page_reads_as(snap, 0,
					  variant->zeroes ? 0 : value_of(i)));
		EXPECT_TRUE(page_reads_as(snap, NR - 1, value_of(i)));
		close(snap);
	}
}

TEST_F(advice, of_a_frozen_mapping)
{
	ASSERT_TRUE(take_snapshot(self));
	EXPECT_EQ(variant->frozen,
		  ret(madvise(self->frozen, SIZE, variant->advice)));
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_TRUE(content_is(self->snap, self->frozen, false));
	/* Now that it has been read. */
	EXPECT_EQ(variant->frozen,
		  ret(madvise(self->frozen, SIZE, variant->advice)));
	EXPECT_EQ(SIGSEGV, COW_TRY(self->frozen[0] = '!'));
	EXPECT_TRUE(content_is(self->snap, self->frozen, false));
	EXPECT_TRUE(content_is(self->fd, self->live, false));
	EXPECT_TRUE(store_all(self));
	EXPECT_TRUE(content_is(self->snap, self->frozen, false));
}

TEST_F(advice, of_a_private_mapping)
{
	bool own = !variant->drops;

	ASSERT_TRUE(take_snapshot(self));
	EXPECT_EQ(variant->private,
		  ret(madvise(self->private, SIZE, variant->advice)));
	EXPECT_EQ(self->pages, cow_param("pages"));
	EXPECT_TRUE(private_is(self, own, 0));
	EXPECT_TRUE(content_is(self->fd, self->live, false));
	EXPECT_TRUE(store_all(self));
	/* Populated for writing, all pages are copies of its own. */
	EXPECT_TRUE(private_is(self, own, variant->writes ? 0 : '!'));
	memset(self->private, '?', SIZE);
	EXPECT_TRUE(content_is(self->snap, self->frozen, false));
	EXPECT_TRUE(page_is(self->live, '!'));
}

TEST_F(advice, before_a_fork_after_a_snapshot)
{
	ASSERT_TRUE(take_snapshot(self));
	madvise(self->live, SIZE, variant->advice);
	madvise(self->frozen, SIZE, variant->advice);
	EXPECT_EQ(0, CHILD({
		if (variant->hides)
			_exit(load_signal(self->live) != SIGSEGV ||
			      load_signal(self->frozen) != SIGSEGV);
		memset(self->live, '!', PAGE);
		_exit(!pages_filled(self->frozen, 0, NR));
	}));
	EXPECT_EQ(!variant->hides, page_is(self->live, '!'));
	EXPECT_TRUE(content_is(self->snap, self->frozen, false));
}

TEST_HARNESS_MAIN
