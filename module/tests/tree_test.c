// SPDX-License-Identifier: GPL-2.0
/*
 * The tree: content, sharing, owner counts, granted marks, cuts, failures.
 * Each test works on a few trees with a model each, see model.h.
 *
 * Also built for user space by selftests/unit/.
 */
#include <kunit/test.h>
#include <linux/module.h>

#include "inject.h"
#include "model.h"
#include "page.h"
#include "tree.h"

static void tree_test_empty(struct kunit *test)
{
	struct fixture *f = test->priv;

	check_all(test);
	KUNIT_EXPECT_EQ(test, cowmem_tree_cut(&f->tree[0], 0, &f->reserve), 0);
	share(f, 0, 1);
	KUNIT_EXPECT_NULL(test, f->tree[1].root);
	KUNIT_EXPECT_NULL(test, cowmem_tree_lookup(&f->tree[0], LAST_INDEX));
	KUNIT_EXPECT_NULL(test, cowmem_tree_lookup(&f->tree[0], ULONG_MAX));
}

/* One page: as many levels as its index needs, and one node in each. */
static void tree_test_one_page(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int p, nr_levels;

	for (p = 0; p < f->nr_places; p++) {
		pgoff_t index = f->place[p];

		write_place(test, 0, p);
		for (nr_levels = 1; index >>= COWMEM_NODE_SHIFT; )
			nr_levels++;
		KUNIT_ASSERT_EQ(test, nodes_now(test), (unsigned long)nr_levels);
		KUNIT_ASSERT_EQ(test, f->tree[0].root->level + 1, nr_levels);
		if (is_sample(f, p))
			check_all(test);
		drop_tree(f, 0);
		KUNIT_ASSERT_EQ(test, nodes_now(test), 0UL);
	}
}

/* An edit changes nothing, and can be taken back. */
static void tree_test_edit_alone(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct page *page;

	edit_for_nothing(test, 0, 0);
	edit_for_nothing(test, 0, f->nr_places - 1);
	KUNIT_EXPECT_NULL(test, f->tree[0].root);
	check_all(test);
	/* But for what is on the way to where somebody else is about to store. */
	edit(test, 0, 0, &page);
	edit_for_nothing(test, 0, f->nr_places - 1);
	KUNIT_EXPECT_EQ(test, nodes_now(test), (unsigned long)COWMEM_TREE_LEVELS);
	prune(test, 0, 0);
	check_all(test);
	write_place(test, 0, DENSE_PLACES - 1);
	share(f, 0, 1);
	edit_for_nothing(test, 0, DENSE_PLACES - 1);
	edit_for_nothing(test, 1, f->nr_places - 1);
	check_all(test);
	cut(test, 0, 0);
	check_all(test);
}

static void tree_test_grow(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int p;

	/* Roots are put on top, above granted pages and above shared nodes. */
	for (p = DENSE_PLACES - 1; p < f->nr_places; p++) {
		write_place(test, 0, p);
		if (p % 3 == 0)
			share(f, 0, 1);
		check_all(test);
		drop_tree(f, 1);
	}
	/* And with the root there already. */
	drop_tree(f, 0);
	for (p = f->nr_places; p-- > DENSE_PLACES - 1; )
		write_place(test, 0, p);
	check_all(test);
}

static void tree_test_store_again(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct page *old, *page = new_page(test), *replaced;

	write_place(test, 0, 1);
	edit(test, 0, 1, &old);
	replaced = cowmem_tree_store(&f->tree[0], 1, page);
	KUNIT_EXPECT_PTR_EQ(test, replaced, old);
	KUNIT_EXPECT_EQ(test, cowmem_page_owners(old), 1UL);
	KUNIT_EXPECT_EQ(test, cowmem_tree_pages(&f->tree[0]), 1UL);
	cowmem_page_drop(old);
	/* The same page once more: nobody owns it more than before. */
	replaced = cowmem_tree_store(&f->tree[0], 1, page);
	KUNIT_EXPECT_PTR_EQ(test, replaced, page);
	KUNIT_EXPECT_EQ(test, cowmem_page_owners(page), 1UL);
	KUNIT_EXPECT_EQ(test, cowmem_tree_pages(&f->tree[0]), 1UL);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 1UL);
	write_stamp(page, f->model[0].stamp[1]);
	check_all(test);
}

static unsigned long owners_at(struct fixture *f, unsigned int t, unsigned int p)
{
	return cowmem_page_owners(cowmem_tree_lookup(&f->tree[t], f->place[p]));
}

static void tree_test_share(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned long nr_nodes, nr_pages;
	unsigned int p = COWMEM_NODE_SLOTS + 3, t;

	fill_tree(test, 0);
	nr_nodes = nodes_now(test);
	nr_pages = cowmem_pages();
	for (t = 1; t < NR_TREES; t++)
		share(f, 0, t);
	/* One more owner of the root each, and nothing else. */
	KUNIT_EXPECT_EQ(test, nodes_now(test), nr_nodes);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), nr_pages);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&f->tree[0].root->owners),
			(long)NR_TREES);
	check_all(test);

	/* A path of its own, and a page. */
	write_place(test, 2, p);
	KUNIT_EXPECT_EQ(test, nodes_now(test), nr_nodes + COWMEM_TREE_LEVELS);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), nr_pages + 1);
	KUNIT_EXPECT_EQ(test, owners_at(f, 2, p), 1UL);
	/* The neighbours: owned by both leaves. */
	KUNIT_EXPECT_EQ(test, owners_at(f, 2, p + 1), 2UL);
	/* Pages of the next leaf: the leaf is shared, they are not. */
	KUNIT_EXPECT_EQ(test, owners_at(f, 2, p + COWMEM_NODE_SLOTS), 1UL);
	check_all(test);

	/* The second page of the leaf: no more nodes. */
	write_place(test, 2, p + 1);
	KUNIT_EXPECT_EQ(test, nodes_now(test), nr_nodes + COWMEM_TREE_LEVELS);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), nr_pages + 2);
	check_all(test);
}

/* When the other tree is gone, the survivor has everything for itself. */
static void tree_test_last_sharer(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned long nr_nodes, nr_pages;
	struct page *page;
	unsigned int t, p;

	for (t = 0; t < 2; t++) {
		fill_tree(test, 0);
		nr_nodes = nodes_now(test);
		nr_pages = cowmem_pages();
		share(f, 0, 1);
		write_places(test, 0, 5, COWMEM_NODE_SLOTS);
		write_place(test, 0, f->nr_places - 1);
		clear_granted(f, 0);
		drop_tree(f, t);
		KUNIT_ASSERT_EQ(test, nodes_now(test), nr_nodes);
		KUNIT_ASSERT_EQ(test, cowmem_pages(), nr_pages);
		for (p = 0; p < f->nr_places; p++) {
			edit(test, !t, p, &page);
			KUNIT_ASSERT_EQ(test, cowmem_page_owners(page), 1UL);
		}
		KUNIT_ASSERT_EQ(test, nodes_now(test), nr_nodes);
		check_all(test);
		drop_tree(f, !t);
	}
}

/* Four trees, each with something of its own and something of each other. */
static void make_family(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int t;

	fill_tree(test, 0);
	for (t = 1; t < NR_TREES; t++) {
		share(f, t - 1, t);
		write_places(test, t, t * COWMEM_NODE_SLOTS / 2, 2);
		write_place(test, t - 1, t * COWMEM_NODE_SLOTS / 2);
		write_place(test, t, f->nr_places - t);
	}
}

/* Order number @n of 4!: drop the @n-th of those left, and so on. */
static void drop_in_order(struct kunit *test, unsigned int n)
{
	unsigned int left[NR_TREES] = { 0, 1, 2, 3 };
	unsigned int nr, i;

	for (nr = NR_TREES; nr; nr--) {
		i = n % nr;
		n /= nr;
		drop_tree(test->priv, left[i]);
		left[i] = left[nr - 1];
		check_census(test);
	}
}

static void tree_test_drop_orders(struct kunit *test)
{
	unsigned int n;

	for (n = 0; n < 4 * 3 * 2; n++) {
		make_family(test);
		if (!n)
			check_all(test);
		drop_in_order(test, n);
		KUNIT_ASSERT_EQ(test, cowmem_pages(), 0UL);
		KUNIT_ASSERT_EQ(test, nodes_now(test), 0UL);
	}
}

/* Runs of pages and holes that begin and end anywhere, also full subtrees. */
static void tree_test_next(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int p, run, n;

	f->random = 1;
	for (n = 0; n < 8; n++) {
		for (p = 0; p < f->nr_places; p += run + 1) {
			run = random_below(f, 1 << (2 + n));
			if (random_below(f, 2))
				write_places(test, 0, p, run);
		}
		check_next(test, 0);
		drop_tree(f, 0);
	}
	fill_tree(test, 0);
	check_next(test, 0);
}

static void tree_test_granted(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int p;

	for (p = 0; p < f->nr_places; p += 1 + p % 7)
		write_place(test, 0, p);
	check_granted(test, 0);
	clear_granted(f, 0);
	check_all(test);

	/* A page that has no mark gets one again. */
	write_place(test, 0, 0);
	write_place(test, 0, f->nr_places - 1);
	check_all(test);

	share(f, 0, 1);
	check_all(test);
	write_place(test, 1, 1);
	write_places(test, 1, DENSE_PLACES - 2, 4);
	check_all(test);
	clear_granted(f, 1);
	check_all(test);
}

/* Cut a tree that has everything, some of it granted. */
static void cut_once(struct kunit *test, pgoff_t first)
{
	struct fixture *f = test->priv;

	write_places(test, 0, 1, 3);
	write_places(test, 0, DENSE_PLACES - 1, 3);
	cut(test, 0, first);
	check_all(test);
	drop_tree(f, 0);
}

static void tree_test_cut(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int p;

	for (p = 0; p < f->nr_places; p++) {
		if (!is_sample(f, p))
			continue;
		fill_tree(test, 0);
		cut_once(test, f->place[p]);
	}
}

static void tree_test_cut_shared(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int p;

	fill_tree(test, 1);
	for (p = 0; p < f->nr_places; p++) {
		if (!is_sample(f, p))
			continue;
		share(f, 1, 0);
		cut_once(test, f->place[p]);
	}
}

/* What was cut can be filled again, and cut less, and nothing cut at all. */
static void tree_test_cut_repeated(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int n;

	f->random = 2;
	fill_tree(test, 0);
	share(f, 0, 1);
	for (n = 0; n < 32; n++) {
		cut(test, 0, f->place[random_below(f, f->nr_places)]);
		cut(test, 0, LAST_INDEX);
		cut(test, 0, LAST_INDEX + 1);
		write_places(test, 0, random_below(f, f->nr_places), 5);
		if (n % 4 == 0)
			check_all(test);
	}
	cut(test, 0, 0);
	check_all(test);
	KUNIT_EXPECT_EQ(test, cowmem_tree_pages(&f->tree[0]), 0UL);
}

/* A full reserve is enough for a cut, and then nothing is allocated. */
static void cut_with_reserve(struct kunit *test, pgoff_t first)
{
	struct fixture *f = test->priv;
	unsigned long nr_nodes;
	int err;

	share(f, 1, 0);
	KUNIT_ASSERT_EQ(test, cowmem_reserve_fill(&f->reserve), 0);
	nr_nodes = cowmem_nodes();
	cowmem_inject_failures(0, UINT_MAX);
	err = cowmem_tree_cut(&f->tree[0], first, &f->reserve);
	cowmem_inject_failures(0, 0);
	KUNIT_ASSERT_EQ(test, err, 0);
	KUNIT_ASSERT_EQ(test, cowmem_nodes(), nr_nodes);
	/* Half of it is left for an edit. */
	KUNIT_ASSERT_GE(test, f->reserve.nr_spare,
			(unsigned int)COWMEM_TREE_LEVELS);
	cut_model(f, 0, first);
	cowmem_reserve_release(&f->reserve);
	check_content(test, 0);
	check_content(test, 1);
	drop_tree(f, 0);
}

static void tree_test_cut_reserve(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int p;

	fill_tree(test, 1);
	for (p = 0; p < f->nr_places; p++)
		if (is_sample(f, p))
			cut_with_reserve(test, f->place[p]);
	check_all(test);
}

/* Nodes that a cut of a shared tree with all places copies. */
static unsigned int nodes_for_cut(struct kunit *test, pgoff_t first)
{
	struct fixture *f = test->priv;
	unsigned int nr_spare;

	fill_tree(test, 0);
	share(f, 0, 1);
	KUNIT_ASSERT_EQ(test, cowmem_reserve_fill(&f->reserve), 0);
	nr_spare = f->reserve.nr_spare;
	KUNIT_ASSERT_EQ(test, cowmem_tree_cut(&f->tree[0], first, &f->reserve), 0);
	nr_spare -= f->reserve.nr_spare;
	drop_all(f);
	return nr_spare;
}

/* Subtrees that lie in the range as a whole go as a whole. */
static void tree_test_cut_subtrees(struct kunit *test)
{
	const unsigned int nr_levels = COWMEM_TREE_LEVELS;
	const pgoff_t leaf = COWMEM_NODE_SLOTS;

	KUNIT_EXPECT_EQ(test, nodes_for_cut(test, 0), 0U);
	KUNIT_EXPECT_EQ(test, nodes_for_cut(test, leaf - 1), nr_levels);
	KUNIT_EXPECT_EQ(test, nodes_for_cut(test, leaf), nr_levels - 1);
	KUNIT_EXPECT_EQ(test, nodes_for_cut(test, leaf + 1), nr_levels);
	KUNIT_EXPECT_EQ(test, nodes_for_cut(test, leaf * leaf), nr_levels - 2);
}

static void tree_test_reserve(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct cowmem_reserve *reserve = &f->reserve;
	const unsigned int nr = 2 * COWMEM_TREE_LEVELS;

	KUNIT_EXPECT_EQ(test, cowmem_reserve_fill(reserve), 0);
	KUNIT_EXPECT_EQ(test, reserve->nr_spare, nr);
	KUNIT_EXPECT_EQ(test, cowmem_nodes(), f->nr_nodes + nr);
	/* Full: nothing more. */
	KUNIT_EXPECT_EQ(test, cowmem_reserve_fill(reserve), 0);
	KUNIT_EXPECT_EQ(test, cowmem_nodes(), f->nr_nodes + nr);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 0UL);
	KUNIT_EXPECT_EQ(test, cowmem_reserve_pages(reserve, 1), 0);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 1UL);
	KUNIT_EXPECT_NOT_NULL(test, reserve->page);
	/* What an edit takes is what it needs. */
	write_place(test, 0, place_of(test, LAST_INDEX));
	KUNIT_EXPECT_EQ(test, reserve->nr_spare, nr - COWMEM_TREE_LEVELS);
	check_all(test);
	cowmem_reserve_release(reserve);
	KUNIT_EXPECT_EQ(test, reserve->nr_spare, 0U);
	KUNIT_EXPECT_NULL(test, reserve->spare);
	KUNIT_EXPECT_NULL(test, reserve->page);
	check_all(test);
}

static void tree_test_fill_fails(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int n;

	if (!cowmem_inject_failures(0, 0))
		kunit_skip(test, "allocations cannot be made to fail");
	for (n = 0; n < 2 * COWMEM_TREE_LEVELS; n++) {
		cowmem_inject_failures(n, 1);
		KUNIT_ASSERT_EQ(test, cowmem_reserve_fill(&f->reserve), -ENOMEM);
		check_census(test);
		if (n % 2)
			KUNIT_ASSERT_EQ(test, cowmem_reserve_fill(&f->reserve), 0);
		cowmem_reserve_release(&f->reserve);
		check_census(test);
	}
}

/*
 * Let the @n-th allocation of an edit fail.  Whatever was done until then, the
 * trees still hold what they did, and a full reserve is enough for the rest.
 */
static bool edit_fails_once(struct kunit *test, unsigned int p, unsigned int n)
{
	struct fixture *f = test->priv;
	unsigned long nr_nodes;
	struct page *page;
	int err;

	cowmem_inject_failures(n, 1);
	err = cowmem_tree_edit(&f->tree[0], f->place[p], &f->reserve, &page);
	cowmem_inject_failures(0, 0);
	if (err != -EAGAIN)
		return false;
	prune(test, 0, p);
	check_all(test);
	KUNIT_ASSERT_EQ(test, cowmem_reserve_fill(&f->reserve), 0);
	nr_nodes = cowmem_nodes();
	cowmem_inject_failures(0, UINT_MAX);
	err = cowmem_tree_edit(&f->tree[0], f->place[p], &f->reserve, &page);
	cowmem_inject_failures(0, 0);
	KUNIT_ASSERT_EQ(test, err, 0);
	KUNIT_ASSERT_EQ(test, cowmem_nodes(), nr_nodes);
	write_place(test, 0, p);
	check_all(test);
	return true;
}

/* Number of allocations of an edit at @p, each of which failed once. */
static unsigned int edit_failures(struct kunit *test, unsigned int p,
				  void (*prepare)(struct kunit *test))
{
	unsigned int n = 0;
	bool failed;

	do {
		prepare(test);
		failed = edit_fails_once(test, p, n);
		drop_all(test->priv);
		check_census(test);
	} while (failed && ++n);
	return n;
}

static void prepare_nothing(struct kunit *test)
{
}

static void prepare_small(struct kunit *test)
{
	write_place(test, 0, 0);
}

static void prepare_shared(struct kunit *test)
{
	fill_tree(test, 0);
	share(test->priv, 0, 1);
}

static void tree_test_edit_fails(struct kunit *test)
{
	const unsigned int nr_levels = COWMEM_TREE_LEVELS;
	unsigned int last = place_of(test, LAST_INDEX);

	if (!cowmem_inject_failures(0, 0))
		kunit_skip(test, "allocations cannot be made to fail");
	/* A new path; roots on top and a path; a copy of each node. */
	KUNIT_EXPECT_EQ(test, edit_failures(test, last, prepare_nothing),
			nr_levels);
	KUNIT_EXPECT_EQ(test, edit_failures(test, last, prepare_small),
			2 * (nr_levels - 1));
	KUNIT_EXPECT_EQ(test, edit_failures(test, 7, prepare_shared), nr_levels);
	KUNIT_EXPECT_EQ(test, edit_failures(test, last, prepare_shared),
			nr_levels);
}

/* The same for a cut: a part is cut, the other tree has everything. */
static bool cut_fails_once(struct kunit *test, pgoff_t first, unsigned int n)
{
	struct fixture *f = test->priv;
	int err;

	cowmem_inject_failures(n, 1);
	err = cowmem_tree_cut(&f->tree[0], first, &f->reserve);
	cowmem_inject_failures(0, 0);
	if (err != -EAGAIN)
		return false;
	check_content(test, 1);
	KUNIT_ASSERT_EQ(test, cowmem_reserve_fill(&f->reserve), 0);
	cowmem_inject_failures(0, UINT_MAX);
	err = cowmem_tree_cut(&f->tree[0], first, &f->reserve);
	cowmem_inject_failures(0, 0);
	KUNIT_ASSERT_EQ(test, err, 0);
	cowmem_reserve_release(&f->reserve);
	cut_model(f, 0, first);
	check_all(test);
	return true;
}

static void tree_test_cut_fails(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int n = 0;
	bool failed;

	if (!cowmem_inject_failures(0, 0))
		kunit_skip(test, "allocations cannot be made to fail");
	do {
		prepare_shared(test);
		failed = cut_fails_once(test, COWMEM_NODE_SLOTS + 5, n);
		drop_all(f);
		check_census(test);
	} while (failed && ++n);
	KUNIT_EXPECT_EQ(test, n, (unsigned int)COWMEM_TREE_LEVELS);
}

/* Share with a tree that is empty, or empty one. */
static void random_share(struct fixture *f, unsigned int t)
{
	unsigned int other = random_below(f, NR_TREES);

	if (other == t || f->tree[other].root)
		drop_tree(f, other);
	else
		share(f, t, other);
}

static void random_step(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int t = random_below(f, NR_TREES);
	unsigned int p = random_below(f, f->nr_places);

	switch (random_below(f, 16)) {
	case 0 ... 8:
		write_place(test, t, p);
		break;
	case 9:
	case 10:
		write_places(test, t, p, random_below(f, COWMEM_NODE_SLOTS));
		break;
	case 11:
	case 12:
		random_share(f, t);
		break;
	case 13:
		clear_granted(f, t);
		break;
	case 14:
		cut(test, t, f->place[p] + random_below(f, 3));
		break;
	case 15:
		cowmem_reserve_release(&f->reserve);
		break;
	}
}

static void random_walk(struct kunit *test, u32 seed, unsigned int nr_steps)
{
	struct fixture *f = test->priv;
	unsigned int n;

	kunit_info(test, "seed %u, %u steps", seed, nr_steps);
	f->random = seed;
	for (n = 1; n <= nr_steps; n++) {
		random_step(test);
		if (n % 64 == 0)
			check_all(test);
	}
	check_all(test);
	drop_all(f);
	check_all(test);
}

static void tree_test_random(struct kunit *test)
{
	random_walk(test, 0x12345, 2000);
	random_walk(test, 0xc0ffee, 2000);
}

/* The next allocations fail now and then: always tried again, and no harm. */
static void tree_test_random_failures(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int n;

	if (!cowmem_inject_failures(0, 0))
		kunit_skip(test, "allocations cannot be made to fail");
	f->random = 0xbad5eed;
	kunit_info(test, "seed %u", f->random);
	for (n = 1; n <= 2000; n++) {
		unsigned int t = random_below(f, NR_TREES);
		unsigned int p = random_below(f, f->nr_places);

		cowmem_inject_failures(random_below(f, 4), 1);
		if (n % 8)
			edit_for_nothing(test, t, p);
		else
			cut(test, t, f->place[p]);
		cowmem_inject_failures(0, 0);
		random_step(test);
		if (n % 64 == 0)
			check_all(test);
	}
	check_all(test);
}

static struct kunit_case tree_test_cases[] = {
	KUNIT_CASE(tree_test_empty),
	KUNIT_CASE(tree_test_one_page),
	KUNIT_CASE(tree_test_edit_alone),
	KUNIT_CASE(tree_test_grow),
	KUNIT_CASE(tree_test_store_again),
	KUNIT_CASE(tree_test_share),
	KUNIT_CASE(tree_test_last_sharer),
	KUNIT_CASE(tree_test_drop_orders),
	KUNIT_CASE(tree_test_next),
	KUNIT_CASE(tree_test_granted),
	KUNIT_CASE(tree_test_cut),
	KUNIT_CASE(tree_test_cut_shared),
	KUNIT_CASE(tree_test_cut_repeated),
	KUNIT_CASE(tree_test_cut_reserve),
	KUNIT_CASE(tree_test_cut_subtrees),
	KUNIT_CASE(tree_test_reserve),
	KUNIT_CASE(tree_test_fill_fails),
	KUNIT_CASE(tree_test_edit_fails),
	KUNIT_CASE(tree_test_cut_fails),
	KUNIT_CASE(tree_test_random),
	KUNIT_CASE(tree_test_random_failures),
	{ }
};

static struct kunit_suite tree_test_suite = {
	.name		= "cowmem_tree",
	.init		= model_init,
	.exit		= model_exit,
	.test_cases	= tree_test_cases,
};
kunit_test_suites(&tree_test_suite);
