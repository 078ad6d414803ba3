/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How a tree is laid out, for those two that walk it: tree.c and walk.c.
 *
 * A *place* is an index plus the base of its tree: where it is among the slots.
 */
#ifndef _COWMEM_SLOT_H
#define _COWMEM_SLOT_H

#include "tree.h"

static inline unsigned int slot_of(pgoff_t index, unsigned int level)
{
	return (index >> (level * COWMEM_NODE_SHIFT)) & (COWMEM_NODE_SLOTS - 1);
}

/* Pages below one slot of a node at @level. */
static inline pgoff_t slot_span(unsigned int level)
{
	return 1UL << (level * COWMEM_NODE_SHIFT);
}

/* First index below the slot after the one that @index is below. */
static inline pgoff_t slot_end(pgoff_t index, unsigned int level)
{
	return (index | (slot_span(level) - 1)) + 1;
}

/* Is @index below a tree with a root at @level? */
static inline bool level_covers(unsigned int level, pgoff_t index)
{
	unsigned int bits = (level + 1) * COWMEM_NODE_SHIFT;

	return bits >= BITS_PER_LONG || !(index >> bits);
}

static inline bool node_exclusive(struct cowmem_node *node)
{
	/* Pairs with node_drop(): the other owner has stopped reading. */
	return atomic_long_read_acquire(&node->owners) == 1;
}

static inline bool tree_covers(const struct cowmem_tree *tree, pgoff_t place)
{
	return tree->root && level_covers(tree->root->level, place);
}

/* Does one slot at @level from @place on hold all that @tree has there? */
static inline bool slot_known(const struct cowmem_tree *tree, pgoff_t place,
			      unsigned int level)
{
	return !tree->root || level <= tree->root->level + 1 ||
	       !level_covers(tree->root->level, place);
}

/* The node or page in that slot.  A root counts as in a slot. */
static inline void *slot_lookup(const struct cowmem_tree *tree, pgoff_t place,
				unsigned int level)
{
	struct cowmem_node *node = tree->root;

	if (!tree_covers(tree, place))
		return NULL;
	while (node && node->level >= level && node->level)
		node = node->child[slot_of(place, node->level)];
	return node && !level ? node->page[slot_of(place, 0)] : (void *)node;
}

/**
 * cowmem_tree_next_place() - find the next page or hole
 * @tree: the tree
 * @place: where to start
 * @hole: look for a hole
 *
 * Return: the first place from @place on that has a page (ULONG_MAX if none has)
 * or a hole.
 */
pgoff_t cowmem_tree_next_place(const struct cowmem_tree *tree, pgoff_t place,
			       bool hole);

#endif
