/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A census of trees: visits everything that they reach and compares what each
 * node and page says of itself with what was counted.  Knows the shape of nodes
 * and nothing of what the trees are for.
 */
#ifndef _COWMEM_TESTS_CENSUS_H
#define _COWMEM_TESTS_CENSUS_H

#include <kunit/test.h>
#include <linux/string.h>

#include "page.h"
#include "tree.h"

#define CENSUS_MAX	8192		/* things of one kind */
#define CENSUS_BUCKETS	(2 * CENSUS_MAX)

/* A set of things, in the order in which they were met. */
struct census_set {
	unsigned int nr;
	void *thing[CENSUS_MAX];
	unsigned int owners[CENSUS_MAX];
	u16 bucket[CENSUS_BUCKETS];	/* place in @thing, plus 1 */
};

struct census {
	struct census_set nodes;
	struct census_set pages;
};

/* Meet @thing once more. */
static inline void census_count(struct kunit *test, struct census_set *set,
				void *thing)
{
	unsigned long bucket = (unsigned long)thing / 64 % CENSUS_BUCKETS;

	while (set->bucket[bucket]) {
		unsigned int i = set->bucket[bucket] - 1;

		if (set->thing[i] == thing) {
			set->owners[i]++;
			return;
		}
		bucket = (bucket + 1) % CENSUS_BUCKETS;
	}
	KUNIT_ASSERT_LT(test, set->nr, (unsigned int)CENSUS_MAX);
	set->thing[set->nr] = thing;
	set->owners[set->nr] = 1;
	set->bucket[bucket] = ++set->nr;
}

/* Does a set bit in @node say what is true, and a clear one too? */
static inline void census_check_mark(struct kunit *test,
				     const struct cowmem_node *node,
				     unsigned int slot)
{
	bool granted = test_bit(slot, node->granted);
	const struct cowmem_node *child = node->child[slot];

	if (!child) {
		KUNIT_ASSERT_FALSE(test, granted);
	} else if (node->level) {
		bool below = !bitmap_empty(child->granted, COWMEM_NODE_SLOTS);

		KUNIT_ASSERT_EQ(test, granted, below);
	} else if (granted) {
		KUNIT_ASSERT_EQ(test, cowmem_page_owners(node->page[slot]), 1UL);
	}
}

/* Check what @node says of those below, and meet them. */
static inline void census_visit(struct kunit *test, struct census *census,
				struct cowmem_node *node)
{
	unsigned long nr_pages = 0;
	unsigned int slot;

	for (slot = 0; slot < COWMEM_NODE_SLOTS; slot++) {
		census_check_mark(test, node, slot);
		if (!node->child[slot])
			continue;
		if (node->level) {
			KUNIT_ASSERT_EQ(test, node->child[slot]->level + 1,
					node->level);
			nr_pages += node->child[slot]->nr_pages;
			census_count(test, &census->nodes, node->child[slot]);
		} else {
			nr_pages++;
			census_count(test, &census->pages, node->page[slot]);
		}
	}
	KUNIT_ASSERT_EQ(test, node->nr_pages, nr_pages);
	/* Holes cost nothing. */
	KUNIT_ASSERT_NE(test, nr_pages, 0UL);
}

static inline void census_check_node(struct kunit *test,
				     struct cowmem_node *node,
				     unsigned int owners)
{
	KUNIT_ASSERT_EQ(test, atomic_long_read(&node->owners), (long)owners);
	if (owners > 1)
		KUNIT_ASSERT_TRUE(test, bitmap_empty(node->granted,
						     COWMEM_NODE_SLOTS));
}

/**
 * census_take() - check everything that some trees reach
 * @test: fails at the first thing that is wrong
 * @census: where to count
 * @tree: the trees: all that there are
 * @nr: how many
 *
 * Owner counts of nodes and pages, page counts, levels, granted marks; and that
 * a marked page and its path have one owner.  Afterwards @census has the number
 * of nodes and pages.
 */
static inline void census_take(struct kunit *test, struct census *census,
			       const struct cowmem_tree *tree, unsigned int nr)
{
	struct census_set *nodes = &census->nodes, *pages = &census->pages;
	unsigned int i;

	memset(census, 0, sizeof(*census));
	for (i = 0; i < nr; i++)
		if (tree[i].root)
			census_count(test, nodes, tree[i].root);
	/* The set is its own list of what is left to visit. */
	for (i = 0; i < nodes->nr; i++)
		census_visit(test, census, nodes->thing[i]);
	for (i = 0; i < nodes->nr; i++)
		census_check_node(test, nodes->thing[i], nodes->owners[i]);
	for (i = 0; i < pages->nr; i++)
		KUNIT_ASSERT_EQ(test, cowmem_page_owners(pages->thing[i]),
				(unsigned long)pages->owners[i]);
}

#endif
