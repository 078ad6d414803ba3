// SPDX-License-Identifier: GPL-2.0
/*
 * The persistent radix tree: see tree.h.
 *
 * This file and page.c are also built for user space, where selftests/unit/
 * runs their suites under the address and undefined-behaviour sanitizers.
 */
#include <linux/bitmap.h>
#include <linux/percpu_counter.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "amplify.h"
#include "compat.h"
#include "page.h"
#include "tree.h"

static struct kmem_cache *node_cache;
static struct percpu_counter nr_nodes;

static struct cowmem_node *node_alloc(gfp_t gfp)
{
	struct cowmem_node *node;

	node = kmem_cache_alloc(node_cache, gfp | __GFP_ACCOUNT | __GFP_NOWARN);
	if (node)
		percpu_counter_inc(&nr_nodes);
	return node;
}

static void node_free(struct cowmem_node *node)
{
	percpu_counter_dec(&nr_nodes);
	kmem_cache_free(node_cache, node);
}

int cowmem_reserve_fill(struct cowmem_reserve *reserve)
{
	while (reserve->nr_spare < 2 * COWMEM_TREE_LEVELS) {
		struct cowmem_node *node = node_alloc(GFP_KERNEL);

		if (!node)
			return -ENOMEM;
		node->next = reserve->spare;
		reserve->spare = node;
		reserve->nr_spare++;
	}
	if (!reserve->page)
		reserve->page = cowmem_page_alloc(GFP_KERNEL | __GFP_ZERO);
	return reserve->page ? 0 : -ENOMEM;
}

static struct cowmem_node *reserve_take(struct cowmem_reserve *reserve)
{
	struct cowmem_node *node = reserve->spare;

	if (!node)
		return node_alloc(GFP_NOWAIT);
	reserve->spare = node->next;
	reserve->nr_spare--;
	return node;
}

/* Drop one owner of @node; if it was the last, put the node on a list. */
static void node_drop(struct cowmem_node *node, struct cowmem_node **dead)
{
	/* Full order: what this owner read comes before what the last writes. */
	if (!atomic_long_dec_and_test(&node->owners))
		return;
	node->next = *dead;
	*dead = node;
}

/* The list is a stack of what is left to do: no recursion, no allocation. */
static void free_dead(struct cowmem_node **dead)
{
	struct cowmem_node *node;
	unsigned int i;

	while ((node = *dead)) {
		*dead = node->next;
		for (i = 0; i < COWMEM_NODE_SLOTS; i++) {
			if (!node->child[i])
				continue;
			if (node->level)
				node_drop(node->child[i], dead);
			else
				cowmem_page_drop(node->page[i]);
		}
		node_free(node);
		cond_resched();
	}
}

void cowmem_reserve_release(struct cowmem_reserve *reserve)
{
	struct cowmem_node *node;

	while ((node = reserve->spare)) {
		reserve->spare = node->next;
		node_free(node);
	}
	reserve->nr_spare = 0;
	if (reserve->page)
		cowmem_page_drop(reserve->page);
	reserve->page = NULL;
	free_dead(&reserve->dead);
}

static unsigned int slot_of(pgoff_t index, unsigned int level)
{
	return (index >> (level * COWMEM_NODE_SHIFT)) & (COWMEM_NODE_SLOTS - 1);
}

/* Pages below one slot of a node at @level. */
static pgoff_t slot_span(unsigned int level)
{
	return 1UL << (level * COWMEM_NODE_SHIFT);
}

/* First index below the slot after the one that @index is below. */
static pgoff_t slot_end(pgoff_t index, unsigned int level)
{
	return (index | (slot_span(level) - 1)) + 1;
}

/* Is @index below a tree with a root at @level? */
static bool level_covers(unsigned int level, pgoff_t index)
{
	unsigned int bits = (level + 1) * COWMEM_NODE_SHIFT;

	return bits >= BITS_PER_LONG || !(index >> bits);
}

static bool node_exclusive(struct cowmem_node *node)
{
	/* Pairs with node_drop(): the other owner has stopped reading. */
	return atomic_long_read_acquire(&node->owners) == 1;
}

struct page *cowmem_tree_lookup(const struct cowmem_tree *tree, pgoff_t index)
{
	struct cowmem_node *node = tree->root;

	if (!node || !level_covers(node->level, index))
		return NULL;
	while (node && node->level)
		node = node->child[slot_of(index, node->level)];
	return node ? node->page[slot_of(index, 0)] : NULL;
}

/*
 * The subtree or page at @index, from the top: the first that is absent
 * (NULL), a page, or (with @hole) full of pages.  *@level: of the node whose
 * slot it is.
 */
static void *find_uniform(const struct cowmem_tree *tree, pgoff_t index,
			  bool hole, unsigned int *level)
{
	struct cowmem_node *node = tree->root;

	for (;;) {
		struct cowmem_node *child;

		*level = node->level;
		child = node->child[slot_of(index, node->level)];
		if (!child || !node->level)
			return child;
		if (!child->nr_pages)
			return NULL;
		if (hole && child->nr_pages == slot_span(node->level))
			return child;
		node = child;
	}
}

static pgoff_t next_index(const struct cowmem_tree *tree, pgoff_t index,
			  bool hole)
{
	unsigned int level;

	while (tree->root && level_covers(tree->root->level, index)) {
		if (!find_uniform(tree, index, hole, &level) == hole)
			return index;
		index = slot_end(index, level);
		if (!index)
			break;
	}
	return hole ? index : ULONG_MAX;
}

pgoff_t cowmem_tree_next_page(const struct cowmem_tree *tree, pgoff_t index)
{
	return next_index(tree, index, false);
}

pgoff_t cowmem_tree_next_hole(const struct cowmem_tree *tree, pgoff_t index)
{
	return next_index(tree, index, true);
}

unsigned long cowmem_tree_pages(const struct cowmem_tree *tree)
{
	return tree->root ? tree->root->nr_pages : 0;
}

static void node_init(struct cowmem_node *node, unsigned int level)
{
	memset(node, 0, sizeof(*node));
	atomic_long_set(&node->owners, 1);
	node->level = level;
}

/* Copy a shared node; the copy is one more owner of everything in its slots. */
static void node_copy(struct cowmem_node *node, const struct cowmem_node *src)
{
	unsigned int i;

	memcpy(node, src, sizeof(*node));
	atomic_long_set(&node->owners, 1);
	for (i = 0; i < COWMEM_NODE_SLOTS; i++) {
		if (!node->child[i])
			continue;
		if (node->level)
			atomic_long_inc(&node->child[i]->owners);
		else
			cowmem_page_take(node->page[i]);
	}
}

/* Make what *@slot points to exist, at @level, and have one owner. */
static struct cowmem_node *slot_edit(struct cowmem_node **slot,
				     unsigned int level,
				     struct cowmem_reserve *reserve)
{
	struct cowmem_node *old = *slot, *node;

	if (old && node_exclusive(old))
		return old;
	node = reserve_take(reserve);
	if (!node)
		return NULL;
	if (old) {
		node_copy(node, old);
		cowmem_amplify_copy();
		node_drop(old, &reserve->dead);
	} else {
		node_init(node, level);
	}
	*slot = node;
	return node;
}

/* Put roots on top until the tree reaches @index. */
static int tree_grow(struct cowmem_tree *tree, pgoff_t index,
		     struct cowmem_reserve *reserve)
{
	struct cowmem_node *old, *node;

	while ((old = tree->root) && !level_covers(old->level, index)) {
		node = reserve_take(reserve);
		if (!node)
			return -EAGAIN;
		node_init(node, old->level + 1);
		node->child[0] = old;
		node->nr_pages = old->nr_pages;
		if (!bitmap_empty(old->granted, COWMEM_NODE_SLOTS))
			__set_bit(0, node->granted);
		tree->root = node;
	}
	return 0;
}

/* The exclusive path from the root to the node at @bottom that covers @index. */
static struct cowmem_node *path_edit(struct cowmem_tree *tree, pgoff_t index,
				     unsigned int bottom,
				     struct cowmem_reserve *reserve)
{
	struct cowmem_node *node;

	node = slot_edit(&tree->root, bottom, reserve);
	while (node && node->level > bottom)
		node = slot_edit(&node->child[slot_of(index, node->level)],
				 node->level - 1, reserve);
	return node;
}

int cowmem_tree_edit(struct cowmem_tree *tree, pgoff_t index,
		     struct cowmem_reserve *reserve, struct page **page)
{
	struct cowmem_node *leaf;
	unsigned int level = 0;

	while (!tree->root && !level_covers(level, index))
		level++;
	if (tree_grow(tree, index, reserve))
		return -EAGAIN;
	if (!tree->root && !slot_edit(&tree->root, level, reserve))
		return -EAGAIN;
	leaf = path_edit(tree, index, 0, reserve);
	if (!leaf)
		return -EAGAIN;
	*page = leaf->page[slot_of(index, 0)];
	return test_bit(slot_of(index, 0), leaf->granted);
}

/* Walk an exclusive path down to @bottom, adding to the counts on the way. */
static struct cowmem_node *path_count(struct cowmem_tree *tree, pgoff_t index,
				      unsigned int bottom, long nr_pages)
{
	struct cowmem_node *node = tree->root;

	for (;;) {
		node->nr_pages += nr_pages;
		if (node->level == bottom)
			return node;
		node = node->child[slot_of(index, node->level)];
	}
}

struct page *cowmem_tree_store(struct cowmem_tree *tree, pgoff_t index,
			       struct page *page)
{
	struct cowmem_node *node;
	struct page *old = cowmem_tree_lookup(tree, index);

	for (node = tree->root; node->level;
	     node = node->child[slot_of(index, node->level)])
		__set_bit(slot_of(index, node->level), node->granted);
	__set_bit(slot_of(index, 0), node->granted);
	node->page[slot_of(index, 0)] = page;
	if (!old)
		path_count(tree, index, 0, 1);
	return old;
}

/* The node at @bottom on @index has lost its marks: tell those above. */
static void path_clear(struct cowmem_tree *tree, pgoff_t index,
		       unsigned int bottom)
{
	struct cowmem_node *path[COWMEM_TREE_LEVELS], *node = tree->root;
	unsigned int level;

	for (;;) {
		path[node->level] = node;
		if (node->level == bottom)
			break;
		node = node->child[slot_of(index, node->level)];
	}
	for (level = bottom; level < tree->root->level; level++) {
		if (!bitmap_empty(path[level]->granted, COWMEM_NODE_SLOTS))
			break;
		__clear_bit(slot_of(index, level + 1), path[level + 1]->granted);
	}
}

/* Cut everything below one slot of @node, whose path is exclusive. */
static void slot_cut(struct cowmem_tree *tree, pgoff_t index,
		     struct cowmem_node *node, struct cowmem_reserve *reserve)
{
	unsigned int slot = slot_of(index, node->level);
	struct cowmem_node *child = node->child[slot];

	if (node->level) {
		path_count(tree, index, node->level, -(long)child->nr_pages);
		node_drop(child, &reserve->dead);
	} else {
		path_count(tree, index, 0, -1);
		cowmem_page_drop(node->page[slot]);
	}
	node->child[slot] = NULL;
	if (__test_and_clear_bit(slot, node->granted))
		path_clear(tree, index, node->level);
}

int cowmem_tree_cut(struct cowmem_tree *tree, pgoff_t first,
		    struct cowmem_reserve *reserve)
{
	pgoff_t index = cowmem_tree_next_page(tree, first);

	while (index != ULONG_MAX) {
		struct cowmem_node *node;
		unsigned int level = 0;

		/* The largest subtree that begins here and lies in the range. */
		while (level < tree->root->level &&
		       (index & ~(slot_span(level + 1) - 1)) >= first)
			level++;
		node = path_edit(tree, index, level, reserve);
		if (!node)
			return -EAGAIN;
		slot_cut(tree, index, node, reserve);
		index = slot_end(index, level);
		if (!index)
			break;
		index = cowmem_tree_next_page(tree, index);
	}
	return 0;
}

pgoff_t cowmem_tree_next_granted(const struct cowmem_tree *tree, pgoff_t index,
				 pgoff_t *end)
{
	struct cowmem_node *node = tree->root;
	pgoff_t base;
	unsigned int slot;

restart:
	if (!node || !level_covers(node->level, index))
		return ULONG_MAX;
	for (;;) {
		base = index & ~(slot_span(node->level + 1) - 1);
		slot = find_next_bit(node->granted, COWMEM_NODE_SLOTS,
				     slot_of(index, node->level));
		if (slot == COWMEM_NODE_SLOTS) {
			/* Nothing more below this node: go on after it. */
			index = slot_end(index, node->level + 1);
			if (!index || node == tree->root)
				return ULONG_MAX;
			node = tree->root;
			goto restart;
		}
		if (slot != slot_of(index, node->level))
			index = base + slot * slot_span(node->level);
		if (!node->level)
			break;
		node = node->child[slot];
	}
	*end = base + find_next_zero_bit(node->granted, COWMEM_NODE_SLOTS, slot);
	return index;
}

void cowmem_tree_clear_granted(struct cowmem_tree *tree)
{
	struct cowmem_node *leaf;
	pgoff_t index = 0, end;

	while ((index = cowmem_tree_next_granted(tree, index, &end)) != ULONG_MAX) {
		leaf = path_count(tree, index, 0, 0);
		bitmap_zero(leaf->granted, COWMEM_NODE_SLOTS);
		path_clear(tree, index, 0);
		cond_resched();
	}
}

void cowmem_tree_share(struct cowmem_tree *tree, struct cowmem_tree *copy)
{
	if (tree->root)
		atomic_long_inc(&tree->root->owners);
	copy->root = tree->root;
}

void cowmem_tree_drop(struct cowmem_tree *tree)
{
	struct cowmem_node *dead = NULL;

	if (!tree->root)
		return;
	node_drop(tree->root, &dead);
	tree->root = NULL;
	free_dead(&dead);
}

unsigned long cowmem_nodes(void)
{
	return percpu_counter_sum_positive(&nr_nodes);
}

int cowmem_tree_init(void)
{
	int err = percpu_counter_init(&nr_nodes, 0, GFP_KERNEL);

	if (err)
		return err;
	node_cache = kmem_cache_create("cowmem_node", sizeof(struct cowmem_node),
				       0, SLAB_ACCOUNT, NULL);
	if (!node_cache) {
		percpu_counter_destroy(&nr_nodes);
		return -ENOMEM;
	}
	return 0;
}

void cowmem_tree_exit(void)
{
	kmem_cache_destroy(node_cache);
	percpu_counter_destroy(&nr_nodes);
}
