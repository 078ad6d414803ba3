/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A few trees, and a model of each: plain arrays that say what every page index
 * must hold.  Owns the trees; does to them what a buffer would do, to the models
 * the same, and compares the two.
 *
 * The models know only some indices, the places: a dense range of a few leaves,
 * and a few indices on both sides of each boundary between levels.  So a walk
 * over all places sees all shapes of tree.  What a page holds is a stamp, never
 * used twice: a page that is written in place while another tree reaches it
 * shows up there.
 */
#ifndef _COWMEM_TESTS_MODEL_H
#define _COWMEM_TESTS_MODEL_H

#include <kunit/test.h>
#include <linux/highmem.h>
#include <linux/string.h>

#include "account.h"
#include "census.h"
#include "page.h"
#include "tree.h"

#define NR_TREES	4
#define LAST_INDEX	((1UL << COWMEM_TREE_BITS) - 1)

#define DENSE_PLACES	(3 * COWMEM_NODE_SLOTS)
#define EDGE_PLACES	4	/* on each side of a boundary */
#define MAX_PLACES	(DENSE_PLACES + 2 * EDGE_PLACES * COWMEM_TREE_LEVELS)

struct model {
	u32 stamp[MAX_PLACES];		/* 0: a hole */
	bool granted[MAX_PLACES];
};

struct fixture {
	unsigned long nr_nodes;		/* that exist outside of the test */
	unsigned int nr_places;
	pgoff_t place[MAX_PLACES];	/* sorted */
	struct cowmem_tree tree[NR_TREES];
	struct model model[NR_TREES];
	struct cowmem_reserve reserve;
	struct cowmem_account *account;
	u32 stamp;			/* the last that was used */
	u32 random;
	struct census census;
};

/* Too large for a stack; one test runs at a time. */
static struct fixture fixture;

static void add_places(struct fixture *f, pgoff_t first, unsigned int nr)
{
	while (nr--)
		f->place[f->nr_places++] = first++;
}

static void init_places(struct fixture *f)
{
	unsigned int level;

	add_places(f, 0, DENSE_PLACES);
	for (level = 2; level < COWMEM_TREE_LEVELS; level++)
		add_places(f, (1UL << (level * COWMEM_NODE_SHIFT)) - EDGE_PLACES,
			   2 * EDGE_PLACES);
	add_places(f, LAST_INDEX - EDGE_PLACES + 1, EDGE_PLACES);
}

static int model_init(struct kunit *test)
{
	struct fixture *f = &fixture;

	memset(f, 0, sizeof(*f));
	f->nr_nodes = cowmem_nodes();
	init_places(f);
	f->account = cowmem_account_new(1, (kuid_t){ });
	f->reserve.account = f->account;
	test->priv = f;
	return f->account ? 0 : -ENOMEM;
}

static void drop_tree(struct fixture *f, unsigned int t)
{
	cowmem_tree_drop(&f->tree[t]);
	memset(&f->model[t], 0, sizeof(f->model[t]));
}

static void drop_all(struct fixture *f)
{
	unsigned int t;

	for (t = 0; t < NR_TREES; t++)
		drop_tree(f, t);
	cowmem_reserve_release(&f->reserve);
}

static void model_exit(struct kunit *test)
{
	struct fixture *f = test->priv;

	drop_all(f);
	cowmem_account_put(f->account);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 0UL);
	KUNIT_EXPECT_EQ(test, cowmem_nodes(), f->nr_nodes);
}

/* xorshift: the same numbers everywhere, for the same seed. */
static unsigned int random_below(struct fixture *f, unsigned int limit)
{
	f->random ^= f->random << 13;
	f->random ^= f->random >> 17;
	f->random ^= f->random << 5;
	return f->random % limit;
}

static u32 read_stamp(struct page *page)
{
	u32 *kaddr = kmap_local_page(page), stamp = *kaddr;

	kunmap_local(kaddr);
	return stamp;
}

static void write_stamp(struct page *page, u32 stamp)
{
	u32 *kaddr = kmap_local_page(page);

	*kaddr = stamp;
	kunmap_local(kaddr);
}

static struct page *new_page(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct page *page = cowmem_page_alloc(f->account, GFP_KERNEL);

	KUNIT_ASSERT_FALSE(test, IS_ERR(page));
	return page;
}

/* cowmem_tree_edit(), as often as it takes; checked against the model. */
static int edit(struct kunit *test, unsigned int t, unsigned int p,
		struct page **page)
{
	struct fixture *f = test->priv;
	u32 stamp = f->model[t].stamp[p];
	int granted;

	while ((granted = cowmem_tree_edit(&f->tree[t], f->place[p],
					   &f->reserve, page)) == -EAGAIN)
		KUNIT_ASSERT_EQ(test, cowmem_reserve_fill(&f->reserve), 0);
	KUNIT_ASSERT_EQ(test, granted, (int)f->model[t].granted[p]);
	KUNIT_ASSERT_EQ(test, *page ? read_stamp(*page) : 0, stamp);
	return granted;
}

/* Take back what an edit made and nothing was stored below. */
static void prune(struct kunit *test, unsigned int t, unsigned int p)
{
	struct fixture *f = test->priv;

	cowmem_tree_prune(&f->tree[t], f->place[p], &f->reserve);
	cowmem_reserve_release(&f->reserve);
}

static void edit_for_nothing(struct kunit *test, unsigned int t, unsigned int p)
{
	struct page *page;

	edit(test, t, p, &page);
	prune(test, t, p);
}

/* Put a page at a place as buffers do: in place if it is ours alone. */
static void write_place(struct kunit *test, unsigned int t, unsigned int p)
{
	struct fixture *f = test->priv;
	struct page *old, *page, *replaced;

	if (edit(test, t, p, &old)) {
		page = old;
	} else {
		page = old;
		if (!old || cowmem_page_owners(old) != 1)
			page = new_page(test);
		replaced = cowmem_tree_store(&f->tree[t], f->place[p], page);
		KUNIT_ASSERT_PTR_EQ(test, replaced, old);
		if (old && old != page)
			cowmem_page_drop(old);
	}
	write_stamp(page, ++f->stamp);
	f->model[t].stamp[p] = f->stamp;
	f->model[t].granted[p] = true;
}

static void write_places(struct kunit *test, unsigned int t, unsigned int first,
			 unsigned int nr)
{
	struct fixture *f = test->priv;

	for (; nr && first < f->nr_places; nr--)
		write_place(test, t, first++);
}

static void clear_granted(struct fixture *f, unsigned int t)
{
	cowmem_tree_clear_granted(&f->tree[t], 0, ULONG_MAX);
	memset(f->model[t].granted, 0, sizeof(f->model[t].granted));
}

/* What a snapshot does. */
static void share(struct fixture *f, unsigned int from, unsigned int to)
{
	clear_granted(f, from);
	/* A whole needs no node. */
	cowmem_tree_extract(&f->tree[from], 0, ULONG_MAX, &f->tree[to],
			    &f->reserve);
	f->model[to] = f->model[from];
}

static void cut_model(struct fixture *f, unsigned int t, pgoff_t first)
{
	unsigned int p;

	for (p = 0; p < f->nr_places; p++) {
		if (f->place[p] < first)
			continue;
		f->model[t].stamp[p] = 0;
		f->model[t].granted[p] = false;
	}
}

static void cut(struct kunit *test, unsigned int t, pgoff_t first)
{
	struct fixture *f = test->priv;

	while (cowmem_tree_cut(&f->tree[t], first, &f->reserve))
		KUNIT_ASSERT_EQ(test, cowmem_reserve_fill(&f->reserve), 0);
	cowmem_reserve_release(&f->reserve);
	cut_model(f, t, first);
}

/* Where something may go wrong: beside boundaries, and here and there. */
static bool is_sample(struct fixture *f, unsigned int p)
{
	unsigned int slot = f->place[p] % COWMEM_NODE_SLOTS;

	return slot <= 1 || slot == COWMEM_NODE_SLOTS - 1 ||
	       slot % (COWMEM_NODE_SLOTS / 4) == 3;
}

static void check_content(struct kunit *test, unsigned int t)
{
	struct fixture *f = test->priv;
	unsigned long nr_pages = 0;
	unsigned int p;

	for (p = 0; p < f->nr_places; p++) {
		struct page *page = cowmem_tree_lookup(&f->tree[t], f->place[p]);

		KUNIT_ASSERT_EQ(test, page ? read_stamp(page) : 0,
				f->model[t].stamp[p]);
		nr_pages += !!page;
	}
	KUNIT_ASSERT_EQ(test, cowmem_tree_pages(&f->tree[t]), nr_pages);
}

/*
 * From the end: what comes next after a place is what came last before.  The
 * tree looks at one slot after the other, so only some places are asked.
 */
static void check_next(struct kunit *test, unsigned int t)
{
	struct fixture *f = test->priv;
	const struct cowmem_tree *tree = &f->tree[t];
	pgoff_t page = ULONG_MAX, hole = LAST_INDEX + 1;
	unsigned int p = f->nr_places;

	while (p--) {
		pgoff_t index = f->place[p];

		/* The index after this is a place, or a hole. */
		if (p + 1 < f->nr_places && f->place[p + 1] != index + 1)
			hole = index + 1;
		if (f->model[t].stamp[p])
			page = index;
		else
			hole = index;
		if (page - index < 4 || is_sample(f, p))
			KUNIT_ASSERT_EQ(test, page,
					cowmem_tree_next_page(tree, index));
		if (hole - index < 4 || is_sample(f, p))
			KUNIT_ASSERT_EQ(test, hole,
					cowmem_tree_next_hole(tree, index));
	}
}

static void check_granted(struct kunit *test, unsigned int t)
{
	struct fixture *f = test->priv;
	const struct cowmem_tree *tree = &f->tree[t];
	pgoff_t index = 0, end = 0;
	unsigned int p;

	for (p = 0; p < f->nr_places; p++) {
		if (!f->model[t].granted[p])
			continue;
		if (index == end)
			index = cowmem_tree_next_granted(tree, end, &end);
		KUNIT_ASSERT_EQ(test, index, f->place[p]);
		KUNIT_ASSERT_LT(test, index, end);
		index++;
	}
	KUNIT_ASSERT_EQ(test, index, end);
	KUNIT_ASSERT_EQ(test, cowmem_tree_next_granted(tree, end, &end),
			ULONG_MAX);
}

/* No node and no page exists that nobody reaches. */
static void check_census(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int nr_pages = f->reserve.page ? 1 : 0;

	census_take(test, &f->census, f->tree, NR_TREES);
	KUNIT_ASSERT_EQ(test, cowmem_nodes(), f->nr_nodes +
			f->census.nodes.nr + f->reserve.nr_spare);
	KUNIT_ASSERT_EQ(test, cowmem_pages(),
			(unsigned long)f->census.pages.nr + nr_pages);
}

static void check_all(struct kunit *test)
{
	unsigned int t;

	for (t = 0; t < NR_TREES; t++) {
		check_content(test, t);
		check_next(test, t);
		check_granted(test, t);
	}
	check_census(test);
}

static unsigned long nodes_now(struct kunit *test)
{
	struct fixture *f = test->priv;

	return cowmem_nodes() - f->nr_nodes - f->reserve.nr_spare;
}

/* Place of an index that has one. */
static unsigned int place_of(struct kunit *test, pgoff_t index)
{
	struct fixture *f = test->priv;
	unsigned int p = 0;

	while (p < f->nr_places && f->place[p] != index)
		p++;
	KUNIT_ASSERT_LT(test, p, f->nr_places);
	return p;
}

/* A tree with a page at each place, none granted. */
static void fill_tree(struct kunit *test, unsigned int t)
{
	struct fixture *f = test->priv;

	write_places(test, t, 0, f->nr_places);
	clear_granted(f, t);
}

#endif
