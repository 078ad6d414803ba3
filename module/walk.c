// SPDX-License-Identifier: GPL-2.0
/*
 * The persistent radix tree, seen by those who change nothing: see tree.h.
 *
 * Also built for user space, as tree.c is.
 */
#include <linux/bitmap.h>
#include <linux/minmax.h>
#include <linux/sched/signal.h>

#include "page.h"
#include "slot.h"

struct page *cowmem_tree_lookup(const struct cowmem_tree *tree, pgoff_t index)
{
	return slot_lookup(tree, tree->base + index, 0);
}

/*
 * The subtree or page at @place, from the top: the first that is absent
 * (NULL), a page, or (with @hole) full of pages.  *@level: of the node whose
 * slot it is.
 */
static void *find_uniform(const struct cowmem_tree *tree, pgoff_t place,
			  bool hole, unsigned int *level)
{
	struct cowmem_node *node = tree->root;

	for (;;) {
		struct cowmem_node *child;

		*level = node->level;
		child = node->child[slot_of(place, node->level)];
		if (!child || !node->level)
			return child;
		if (!child->nr_pages)
			return NULL;
		if (hole && child->nr_pages == slot_span(node->level))
			return child;
		node = child;
	}
}

pgoff_t cowmem_tree_next_place(const struct cowmem_tree *tree, pgoff_t place,
			       bool hole)
{
	unsigned int level;

	while (tree_covers(tree, place)) {
		if (!find_uniform(tree, place, hole, &level) == hole)
			return place;
		place = slot_end(place, level);
		if (!place)
			break;
	}
	return hole ? place : ULONG_MAX;
}

pgoff_t cowmem_tree_next_page(const struct cowmem_tree *tree, pgoff_t index)
{
	pgoff_t place = cowmem_tree_next_place(tree, tree->base + index, false);

	return place == ULONG_MAX ? ULONG_MAX : place - tree->base;
}

pgoff_t cowmem_tree_next_hole(const struct cowmem_tree *tree, pgoff_t index)
{
	return cowmem_tree_next_place(tree, tree->base + index, true) - tree->base;
}

unsigned long cowmem_tree_pages(const struct cowmem_tree *tree)
{
	return tree->root ? tree->root->nr_pages : 0;
}

bool cowmem_tree_is_exclusive(const struct cowmem_tree *tree, pgoff_t index)
{
	pgoff_t place = tree->base + index;
	struct cowmem_node *node = tree->root;

	if (!tree_covers(tree, place))
		return false;
	while (node && node_exclusive(node) && node->level)
		node = node->child[slot_of(place, node->level)];
	if (!node || !node_exclusive(node) || !node->page[slot_of(place, 0)])
		return false;
	return cowmem_page_owners(node->page[slot_of(place, 0)]) == 1;
}

/* Places after @place that need not be looked at: they are the same in both. */
static pgoff_t same_span(const struct cowmem_tree *a, pgoff_t place_a,
			 const struct cowmem_tree *b, pgoff_t place_b,
			 unsigned int level)
{
	for (;; level--) {
		if (!((place_a | place_b) & (slot_span(level) - 1)) &&
		    slot_known(a, place_a, level) &&
		    slot_known(b, place_b, level) &&
		    slot_lookup(a, place_a, level) ==
		    slot_lookup(b, place_b, level))
			return slot_span(level);
		if (!level)
			return 0;
	}
}

pgoff_t cowmem_tree_next_diff(const struct cowmem_tree *a,
			      const struct cowmem_tree *b, pgoff_t index,
			      pgoff_t last)
{
	unsigned int top = max(a->root ? a->root->level : 0,
			       b->root ? b->root->level : 0) + 1;
	pgoff_t span;

	for (; index <= last; index += span) {
		/* Else both have the holes of large subtrees in one step. */
		if (a->base != b->base)
			index = min(cowmem_tree_next_page(a, index),
				    cowmem_tree_next_page(b, index));
		if (index > last || (!tree_covers(a, a->base + index) &&
				     !tree_covers(b, b->base + index)))
			break;
		cond_resched();
		span = same_span(a, a->base + index, b, b->base + index, top);
		if (!span)
			return index;
		if (span > last - index)
			break;
	}
	return ULONG_MAX;
}

/* Add up the pages of @leaf, each weighing @weight before it is split. */
static void sharing_add(struct cowmem_node *leaf, u64 weight, bool exclusive,
			struct cowmem_sharing *sum)
{
	unsigned int i;

	for (i = 0; i < COWMEM_NODE_SLOTS; i++) {
		unsigned long owners;

		if (!leaf->page[i])
			continue;
		owners = cowmem_page_owners(leaf->page[i]);
		sum->fraction += weight / owners;
		sum->private += exclusive && owners == 1;
	}
	sum->proportional += sum->fraction >> COWMEM_FRACTION_BITS;
	sum->fraction &= (1ULL << COWMEM_FRACTION_BITS) - 1;
}

pgoff_t cowmem_tree_sharing(const struct cowmem_tree *tree, pgoff_t index,
			    struct cowmem_sharing *sum)
{
	pgoff_t from = tree->base + index, place = cowmem_tree_next_place(tree, from, false);
	u64 weight = (u64)PAGE_SIZE << COWMEM_FRACTION_BITS;
	struct cowmem_node *node = tree->root;
	bool exclusive = true;

	if (place == ULONG_MAX)
		return ULONG_MAX;
	for (;;) {
		unsigned long owners = atomic_long_read(&node->owners);

		exclusive = exclusive && owners == 1;
		weight /= owners;
		/* Not if an earlier call came through here. */
		if (exclusive &&
		    (!index || (place & ~(slot_span(node->level + 1) - 1)) >= from))
			sum->nodes++;
		if (!node->level)
			break;
		node = node->child[slot_of(place, node->level)];
	}
	sharing_add(node, weight, exclusive, sum);
	place = slot_end(place, 1);
	return place ? place - tree->base : ULONG_MAX;
}
