// SPDX-License-Identifier: GPL-2.0
/*
 * Trees that share ranges: extract, align, graft, diff, and how sharing adds up.
 *
 * Random programs on a few trees, next to a model of each: an array that says
 * which page is where.  The indices in use are a stride apart, so that with one
 * stride a range is within a leaf and with another it spans levels.
 *
 * Also built for user space by selftests/unit/.
 */
#include <kunit/test.h>
#include <linux/err.h>

#include "account.h"
#include "census.h"
#include "inject.h"
#include "page.h"
#include "tree.h"

#define NR_TREES	4
#define NR_SPOTS	(COWMEM_NODE_SLOTS + 128)

struct fixture {
	unsigned long nr_nodes;		/* that exist outside of the test */
	pgoff_t stride;
	struct cowmem_account *account;
	struct cowmem_reserve reserve;
	/* One more, for what is moved from one to another. */
	struct cowmem_tree tree[NR_TREES + 1];
	struct page *page[NR_TREES + 1][NR_SPOTS];
	bool granted[NR_TREES + 1][NR_SPOTS];
	u32 random;
	struct census census;
};

/* Too large for a stack; one test runs at a time. */
static struct fixture fixture;

static int range_test_init(struct kunit *test)
{
	struct fixture *f = &fixture;

	memset(f, 0, sizeof(*f));
	f->nr_nodes = cowmem_nodes();
	f->stride = 1;
	f->account = cowmem_account_new(1, (kuid_t){ });
	f->reserve.account = f->account;
	test->priv = f;
	return f->account ? 0 : -ENOMEM;
}

static void empty_tree(struct fixture *f, unsigned int t)
{
	cowmem_tree_drop(&f->tree[t]);
	f->tree[t].base = 0;
	memset(f->page[t], 0, sizeof(f->page[t]));
	memset(f->granted[t], 0, sizeof(f->granted[t]));
}

static void range_test_exit(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int t;

	for (t = 0; t <= NR_TREES; t++)
		empty_tree(f, t);
	cowmem_reserve_release(&f->reserve);
	if (f->account)
		cowmem_account_put(f->account);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 0UL);
	KUNIT_EXPECT_EQ(test, cowmem_nodes(), f->nr_nodes);
}

static unsigned int random_below(struct fixture *f, unsigned int limit)
{
	f->random ^= f->random << 13;
	f->random ^= f->random >> 17;
	f->random ^= f->random << 5;
	return f->random % limit;
}

static void fill_reserve(struct kunit *test)
{
	struct fixture *f = test->priv;

	KUNIT_ASSERT_EQ(test, cowmem_reserve_fill(&f->reserve), 0);
}

static void write_spot(struct kunit *test, unsigned int t, unsigned int s)
{
	struct fixture *f = test->priv;
	struct page *old, *page;

	while (cowmem_tree_edit(&f->tree[t], s * f->stride, &f->reserve, &old) ==
	       -EAGAIN)
		fill_reserve(test);
	KUNIT_ASSERT_PTR_EQ(test, old, f->page[t][s]);
	page = old;
	if (!page || cowmem_page_owners(page) != 1) {
		page = cowmem_page_alloc(f->account, GFP_KERNEL);
		KUNIT_ASSERT_FALSE(test, IS_ERR(page));
	}
	cowmem_tree_store(&f->tree[t], s * f->stride, page);
	if (old && old != page)
		cowmem_page_drop(old);
	f->page[t][s] = page;
	f->granted[t][s] = true;
}

static void write_spots(struct kunit *test, unsigned int t, unsigned int first,
			unsigned int nr)
{
	for (; nr-- && first < NR_SPOTS; first++)
		write_spot(test, t, first);
}

static pgoff_t length_of(struct fixture *f, unsigned int nr)
{
	return nr == UINT_MAX ? ULONG_MAX : nr * f->stride;
}

/* Everything of the range, to an empty tree. */
static void extract(struct kunit *test, unsigned int from, unsigned int first,
		    unsigned int nr, unsigned int to)
{
	struct fixture *f = test->priv;
	unsigned int s;

	cowmem_tree_clear_granted(&f->tree[from], first * f->stride,
				  length_of(f, nr));
	while (cowmem_tree_extract(&f->tree[from], first * f->stride,
				   length_of(f, nr), &f->tree[to], &f->reserve))
		fill_reserve(test);
	for (s = 0; s < nr && first + s < NR_SPOTS; s++) {
		f->page[to][s] = f->page[from][first + s];
		f->granted[from][first + s] = false;
	}
}

static void graft(struct kunit *test, unsigned int t, unsigned int first,
		  unsigned int nr, unsigned int piece)
{
	struct fixture *f = test->priv;
	unsigned int s;
	int err;

	while (cowmem_tree_align(&f->tree[piece], &f->tree[t], first * f->stride,
				 &f->reserve))
		fill_reserve(test);
	/* So many are enough: no other can be had. */
	KUNIT_ASSERT_EQ(test, 0, cowmem_reserve_nodes(
				&f->reserve, cowmem_tree_graft_nodes(
				&f->tree[t], &f->tree[piece])));
	cowmem_inject_failures(0, UINT_MAX);
	err = cowmem_tree_graft(&f->tree[t], first * f->stride,
				length_of(f, nr), &f->tree[piece], &f->reserve);
	cowmem_inject_failures(0, 0);
	KUNIT_ASSERT_EQ(test, err, 0);
	for (s = 0; s < nr && first + s < NR_SPOTS; s++) {
		f->page[t][first + s] = f->page[piece][s];
		f->granted[t][first + s] = f->granted[piece][s];
	}
	empty_tree(f, piece);
	cowmem_reserve_release(&f->reserve);
}

static void cut(struct kunit *test, unsigned int t, unsigned int first)
{
	struct fixture *f = test->priv;

	while (cowmem_tree_cut(&f->tree[t], first * f->stride, &f->reserve))
		fill_reserve(test);
	for (; first < NR_SPOTS; first++) {
		f->page[t][first] = NULL;
		f->granted[t][first] = false;
	}
}

static void check_content(struct kunit *test, unsigned int t)
{
	struct fixture *f = test->priv;
	const struct cowmem_tree *tree = &f->tree[t];
	pgoff_t next = cowmem_tree_next_page(tree, 0), end;
	unsigned long nr_pages = 0;
	unsigned int s;

	for (s = 0; s < NR_SPOTS; s++) {
		pgoff_t index = s * f->stride;

		KUNIT_ASSERT_PTR_EQ(test, cowmem_tree_lookup(tree, index),
				    f->page[t][s]);
		KUNIT_ASSERT_EQ(test, cowmem_tree_is_granted(tree, index),
				f->granted[t][s]);
		if (!f->page[t][s])
			continue;
		nr_pages++;
		KUNIT_ASSERT_EQ(test, next, index);
		next = cowmem_tree_next_page(tree, index + 1);
		if (f->granted[t][s])
			KUNIT_ASSERT_EQ(test, index, cowmem_tree_next_granted(
						tree, index, &end));
	}
	KUNIT_ASSERT_EQ(test, next, ULONG_MAX);
	KUNIT_ASSERT_EQ(test, cowmem_tree_pages(tree), nr_pages);
}

static void check_diff(struct kunit *test, unsigned int a, unsigned int b)
{
	struct fixture *f = test->priv;
	pgoff_t last = (NR_SPOTS - 1) * f->stride;
	pgoff_t next = cowmem_tree_next_diff(&f->tree[a], &f->tree[b], 0, last);
	unsigned int s;

	for (s = 0; s < NR_SPOTS; s++) {
		if (f->page[a][s] == f->page[b][s])
			continue;
		KUNIT_ASSERT_EQ(test, next, s * f->stride);
		next = cowmem_tree_next_diff(&f->tree[a], &f->tree[b], next + 1,
					     last);
	}
	KUNIT_ASSERT_EQ(test, next, ULONG_MAX);
	KUNIT_ASSERT_EQ(test, ULONG_MAX, cowmem_tree_next_diff(
				&f->tree[a], &f->tree[a], 0, ULONG_MAX));
}

static struct cowmem_sharing sharing(struct fixture *f, unsigned int t)
{
	struct cowmem_sharing sum = { };
	pgoff_t index = 0;

	while (index != ULONG_MAX)
		index = cowmem_tree_sharing(&f->tree[t], index, &sum);
	return sum;
}

/* In how many places of all trees is the page? */
static unsigned int uses(struct fixture *f, const struct page *page)
{
	unsigned int t, s, nr = 0;

	for (t = 0; t < NR_TREES; t++)
		for (s = 0; s < NR_SPOTS; s++)
			nr += f->page[t][s] == page;
	return nr;
}

static void check_private(struct kunit *test, unsigned int t)
{
	struct fixture *f = test->priv;
	unsigned int s, nr = 0;

	for (s = 0; s < NR_SPOTS; s++)
		nr += f->page[t][s] && uses(f, f->page[t][s]) == 1;
	KUNIT_ASSERT_EQ(test, sharing(f, t).exclusive, (u64)nr);
}

/* The shares of all trees are the pages that there are. */
static void check_sharing(struct kunit *test)
{
	struct fixture *f = test->priv;
	u64 bytes = 0, nr_nodes = 0, held = (u64)cowmem_pages() * PAGE_SIZE;
	unsigned int t;

	for (t = 0; t < NR_TREES; t++) {
		struct cowmem_sharing sum = sharing(f, t);

		KUNIT_ASSERT_LE(test, sum.exclusive * PAGE_SIZE, sum.proportional);
		bytes += sum.proportional;
		nr_nodes += sum.nodes;
	}
	KUNIT_ASSERT_LE(test, bytes, held);
	KUNIT_ASSERT_LE(test, held - bytes, (u64)NR_TREES);
	KUNIT_ASSERT_LE(test, nr_nodes, (u64)f->census.nodes.nr);
}

static void check_all(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int t;

	/* Dead nodes are owners too. */
	cowmem_reserve_release(&f->reserve);
	for (t = 0; t < NR_TREES; t++) {
		check_content(test, t);
		check_diff(test, t, (t + 1) % NR_TREES);
	}
	census_take(test, &f->census, f->tree, NR_TREES);
	KUNIT_ASSERT_EQ(test, cowmem_nodes(), f->nr_nodes + f->census.nodes.nr);
	KUNIT_ASSERT_EQ(test, cowmem_pages(), (unsigned long)f->census.pages.nr);
	check_sharing(test);
}

static const pgoff_t strides[] = {
	1, 2, COWMEM_NODE_SLOTS / 2, COWMEM_NODE_SLOTS,
	COWMEM_NODE_SLOTS * COWMEM_NODE_SLOTS / 4 + 1,
	COWMEM_NODE_SLOTS * COWMEM_NODE_SLOTS * COWMEM_NODE_SLOTS,
};

/* All that a range has, and nothing else; the whole is not touched. */
static void range_test_extract(struct kunit *test)
{
	struct fixture *f = test->priv;
	static const struct {
		unsigned int first, nr;
	} ranges[] = {
		{ 0, UINT_MAX }, { 0, NR_SPOTS }, { 0, 1 }, { 1, 1 },
		{ COWMEM_NODE_SLOTS, COWMEM_NODE_SLOTS },
		{ 3, COWMEM_NODE_SLOTS }, { NR_SPOTS - 1, 1 },
		{ 5, UINT_MAX }, { NR_SPOTS - 1, UINT_MAX },
	};
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(strides); i++) {
		f->stride = strides[i];
		write_spots(test, 0, 0, NR_SPOTS);
		for (j = 0; j < ARRAY_SIZE(ranges); j++) {
			extract(test, 0, ranges[j].first, ranges[j].nr, 1);
			check_all(test);
			/* A part of the part. */
			extract(test, 1, 1, UINT_MAX, 2);
			check_all(test);
			write_spot(test, 1, 0);
			write_spot(test, 0, ranges[j].first);
			check_all(test);
			empty_tree(f, 2);
			empty_tree(f, 1);
		}
		empty_tree(f, 0);
	}
}

/* A range that is whole is one reference, however large. */
static void range_test_extract_is_constant(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned long nr_nodes;

	write_spots(test, 0, 0, NR_SPOTS);
	cowmem_reserve_release(&f->reserve);
	nr_nodes = cowmem_nodes();
	extract(test, 0, 0, UINT_MAX, 1);
	KUNIT_EXPECT_EQ(test, cowmem_nodes(), nr_nodes);
	KUNIT_EXPECT_PTR_EQ(test, f->tree[0].root, f->tree[1].root);
	/* All but one page: one path more. */
	extract(test, 0, 0, NR_SPOTS - 1, 2);
	cowmem_reserve_release(&f->reserve);
	KUNIT_EXPECT_LE(test, cowmem_nodes(), nr_nodes + 2);
}

/* There and back: the same nodes again, so nothing differs. */
static void range_test_graft_back(struct kunit *test)
{
	struct fixture *f = test->priv;
	const unsigned int nr = COWMEM_NODE_SLOTS + 50;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(strides); i++) {
		f->stride = strides[i];
		write_spots(test, 0, 0, NR_SPOTS);
		extract(test, 0, 7, nr, 1);
		write_spots(test, 0, 3, COWMEM_NODE_SLOTS + 20);
		check_all(test);
		extract(test, 1, 0, nr, NR_TREES);
		graft(test, 0, 7, nr, NR_TREES);
		check_all(test);
		empty_tree(f, 1);
		empty_tree(f, 0);
	}
}

/* A piece keeps its granted pages where it is grafted. */
static void range_test_graft_granted(struct kunit *test)
{
	struct fixture *f = test->priv;

	write_spots(test, 0, 0, NR_SPOTS);
	extract(test, 0, 0, UINT_MAX, NR_TREES);
	write_spot(test, NR_TREES, 5);
	write_spot(test, NR_TREES, COWMEM_NODE_SLOTS + 1);
	graft(test, 0, 0, UINT_MAX, NR_TREES);
	KUNIT_EXPECT_TRUE(test, f->granted[0][5]);
	check_all(test);
}

/* Far from all that is there: roots above it, and a path down. */
static void range_test_graft_far(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int level;

	for (level = 1; level < COWMEM_TREE_LEVELS; level++) {
		f->stride = 1UL << (level * COWMEM_NODE_SHIFT);
		write_spot(test, 0, 0);
		write_spots(test, 1, 3, 2);
		extract(test, 1, 3, 2, NR_TREES);
		graft(test, 0, 3, 2, NR_TREES);
		check_all(test);
		empty_tree(f, 1);
		empty_tree(f, 0);
	}
}

/* The part of a part of a part: where it is adds up. */
static void range_test_align_to_start(struct kunit *test)
{
	static const struct cowmem_tree start;
	struct fixture *f = test->priv;

	f->stride = 1UL << (COWMEM_TREE_BITS - 3);
	write_spots(test, 0, 2, 2);
	extract(test, 0, 2, UINT_MAX, 1);
	while (cowmem_tree_align(&f->tree[1], &start, 0, &f->reserve))
		fill_reserve(test);
	KUNIT_EXPECT_EQ(test, f->tree[1].base, 0UL);
	check_all(test);
}

static void random_graft(struct kunit *test, unsigned int t, unsigned int from)
{
	struct fixture *f = test->priv;
	unsigned int to = random_below(f, NR_SPOTS);
	unsigned int first = random_below(f, 2) ? to : random_below(f, NR_SPOTS);
	unsigned int nr = 1 + random_below(f, NR_SPOTS);

	if (!random_below(f, 8)) {
		to = 0;
		first = 0;
		nr = UINT_MAX;
	}
	/* What does not fit into the model stays out. */
	if (nr != UINT_MAX && to + nr > NR_SPOTS)
		nr = NR_SPOTS - to;
	if (nr != UINT_MAX && first + nr > NR_SPOTS)
		nr = NR_SPOTS - first;
	extract(test, from, first, nr, NR_TREES);
	if (random_below(f, 2) && nr != UINT_MAX)
		write_spot(test, NR_TREES, random_below(f, nr));
	if (f->tree[NR_TREES].base != f->tree[t].base + to * f->stride)
		memset(f->granted[NR_TREES], 0, sizeof(f->granted[NR_TREES]));
	graft(test, t, to, nr, NR_TREES);
}

static void random_step(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int t = random_below(f, NR_TREES);
	unsigned int other = random_below(f, NR_TREES);
	unsigned int first = random_below(f, NR_SPOTS);

	switch (random_below(f, 12)) {
	case 0 ... 3:
		write_spot(test, t, first);
		break;
	case 4:
	case 5:
		write_spots(test, t, first, random_below(f, NR_SPOTS));
		break;
	case 6:
	case 7:
		if (other == t)
			break;
		empty_tree(f, other);
		extract(test, t, first, random_below(f, 3) ?
			1 + random_below(f, NR_SPOTS) : UINT_MAX, other);
		break;
	case 8:
	case 9:
	case 10:
		random_graft(test, t, other);
		break;
	case 11:
		if (!random_below(f, 4))
			cut(test, t, first);
		break;
	}
}

static void range_test_random(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int i, n, t;

	for (i = 0; i < ARRAY_SIZE(strides); i++) {
		f->stride = strides[i];
		f->random = 0xbeef + i;
		kunit_info(test, "seed %u, stride %lu", f->random, f->stride);
		for (n = 1; n <= 300; n++) {
			random_step(test);
			if (n % 16 == 0)
				check_all(test);
			if (n % 64 == 0)
				check_private(test, n / 64 % NR_TREES);
		}
		for (t = 0; t < NR_TREES; t++)
			empty_tree(f, t);
	}
}

static struct kunit_case range_test_cases[] = {
	KUNIT_CASE(range_test_extract),
	KUNIT_CASE(range_test_extract_is_constant),
	KUNIT_CASE(range_test_graft_back),
	KUNIT_CASE(range_test_graft_granted),
	KUNIT_CASE(range_test_graft_far),
	KUNIT_CASE(range_test_align_to_start),
	KUNIT_CASE(range_test_random),
	{ }
};

static struct kunit_suite range_test_suite = {
	.name		= "cowmem_range",
	.init		= range_test_init,
	.exit		= range_test_exit,
	.test_cases	= range_test_cases,
};
kunit_test_suites(&range_test_suite);
