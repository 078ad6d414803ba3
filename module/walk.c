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

/* What a slot that is NULL points to, for those who go on all the same. */
static const struct cowmem_node no_slots;

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

/* Where to start from for @place: where both have a node, or one has none. */
static bool common_level(const struct cowmem_tree *a,
			 const struct cowmem_tree *b, pgoff_t place,
			 unsigned int *level)
{
	bool covers_a = tree_covers(a, place), covers_b = tree_covers(b, place);

	if (covers_a && covers_b)
		*level = min(a->root->level, b->root->level);
	else if (covers_a || covers_b)
		*level = covers_a ? a->root->level : b->root->level;
	return covers_a || covers_b;
}

/*
 * Below two nodes at @level: is there a place from *@place on at which they
 * differ?  If not, *@place is where to go on.
 */
static bool find_difference(const struct cowmem_node *left,
			    const struct cowmem_node *right, unsigned int level,
			    pgoff_t *place)
{
	for (;; level--) {
		unsigned int from = slot_of(*place, level), slot = from;

		while (slot < COWMEM_NODE_SLOTS &&
		       left->child[slot] == right->child[slot])
			slot++;
		if (slot != from)
			*place = (*place & ~(slot_span(level + 1) - 1)) +
				 slot * slot_span(level);
		if (slot == COWMEM_NODE_SLOTS || !level)
			return slot != COWMEM_NODE_SLOTS;
		left = left->child[slot] ?: &no_slots;
		right = right->child[slot] ?: &no_slots;
	}
}

static pgoff_t next_diff_place(const struct cowmem_tree *a,
			       const struct cowmem_tree *b, pgoff_t place,
			       pgoff_t last)
{
	unsigned int level;

	while (place <= last && common_level(a, b, place, &level)) {
		if (find_difference(slot_lookup(a, place, level + 1) ?: &no_slots,
				    slot_lookup(b, place, level + 1) ?: &no_slots,
				    level, &place))
			return place <= last ? place : ULONG_MAX;
		cond_resched();
	}
	return ULONG_MAX;
}

/* Two that are not in the same place have pages in common, but no nodes. */
static pgoff_t next_diff_apart(const struct cowmem_tree *a,
			       const struct cowmem_tree *b, pgoff_t index,
			       pgoff_t last)
{
	for (;; index++) {
		index = min(cowmem_tree_next_page(a, index),
			    cowmem_tree_next_page(b, index));
		if (index > last || index == ULONG_MAX)
			return ULONG_MAX;
		if (cowmem_tree_lookup(a, index) != cowmem_tree_lookup(b, index))
			return index;
		cond_resched();
	}
}

pgoff_t cowmem_tree_next_diff(const struct cowmem_tree *a,
			      const struct cowmem_tree *b, pgoff_t index,
			      pgoff_t last)
{
	pgoff_t place;

	if (a->base != b->base)
		return next_diff_apart(a, b, index, last);
	place = next_diff_place(a, b, a->base + index,
				a->base + min(last, ULONG_MAX - a->base));
	return place == ULONG_MAX ? ULONG_MAX : place - a->base;
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
		sum->exclusive += exclusive && owners == 1;
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
