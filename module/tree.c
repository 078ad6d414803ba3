// SPDX-License-Identifier: GPL-2.0
/*
 * The persistent radix tree: see tree.h.
 *
 * This file and page.c are also built for user space, where selftests/unit/
 * runs their suites under the address and undefined-behaviour sanitizers.
 */
#include <linux/bitmap.h>
#include <linux/err.h>
#include <linux/minmax.h>
#include <linux/percpu_counter.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "amplify.h"
#include "compat.h"
#include "page.h"
#include "slot.h"

static struct kmem_cache *node_cache;
static struct percpu_counter nr_nodes;

static struct cowmem_node *node_alloc(gfp_t gfp)
{
	struct cowmem_node *node;

	node = kmem_cache_alloc(node_cache,
				cowmem_gfp(gfp) | __GFP_ACCOUNT | __GFP_NOWARN);
	if (node)
		percpu_counter_inc(&nr_nodes);
	return node;
}

static void node_free(struct cowmem_node *node)
{
	percpu_counter_dec(&nr_nodes);
	kmem_cache_free(node_cache, node);
}

int cowmem_reserve_nodes(struct cowmem_reserve *reserve, unsigned int nr)
{
	while (reserve->nr_spare < nr) {
		struct cowmem_node *node = node_alloc(GFP_KERNEL);

		if (!node)
			return -ENOMEM;
		node->next = reserve->spare;
		reserve->spare = node;
		reserve->nr_spare++;
	}
	return 0;
}

int cowmem_reserve_fill(struct cowmem_reserve *reserve)
{
	return cowmem_reserve_nodes(reserve, 2 * COWMEM_TREE_LEVELS);
}

int cowmem_reserve_pages(struct cowmem_reserve *reserve, unsigned long nr)
{
	while (nr--) {
		struct page *page = cowmem_page_alloc(reserve->account,
						      GFP_KERNEL | __GFP_ZERO);

		if (IS_ERR(page))
			return PTR_ERR(page);
		cowmem_page_push(&reserve->page, page);
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
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
	struct page *page;

	while ((node = reserve->spare)) {
		reserve->spare = node->next;
		node_free(node);
	}
	reserve->nr_spare = 0;
	while ((page = cowmem_page_pop(&reserve->page)))
		cowmem_page_drop(page);
	free_dead(&reserve->dead);
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

/* Put roots on top until the tree reaches @place. */
static int tree_grow(struct cowmem_tree *tree, pgoff_t place,
		     struct cowmem_reserve *reserve)
{
	struct cowmem_node *old, *node;

	while ((old = tree->root) && !level_covers(old->level, place)) {
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

/* Have a root that reaches @place, at @level or above. */
static int tree_reach(struct cowmem_tree *tree, pgoff_t place,
		      unsigned int level, struct cowmem_reserve *reserve)
{
	if (tree_grow(tree, place, reserve))
		return -EAGAIN;
	while (!level_covers(level, place))
		level++;
	if (!tree->root && !slot_edit(&tree->root, level, reserve))
		return -EAGAIN;
	return 0;
}

/* The exclusive path from the root to the node at @bottom that covers @place. */
static struct cowmem_node *path_edit(struct cowmem_tree *tree, pgoff_t place,
				     unsigned int bottom,
				     struct cowmem_reserve *reserve)
{
	struct cowmem_node *node;

	node = slot_edit(&tree->root, bottom, reserve);
	while (node && node->level > bottom)
		node = slot_edit(&node->child[slot_of(place, node->level)],
				 node->level - 1, reserve);
	return node;
}

int cowmem_tree_edit(struct cowmem_tree *tree, pgoff_t index,
		     struct cowmem_reserve *reserve, struct page **page)
{
	pgoff_t place = tree->base + index;
	struct cowmem_node *leaf;

	if (tree_reach(tree, place, 0, reserve))
		return -EAGAIN;
	leaf = path_edit(tree, place, 0, reserve);
	if (!leaf)
		return -EAGAIN;
	*page = leaf->page[slot_of(place, 0)];
	return test_bit(slot_of(place, 0), leaf->granted);
}

/* Walk an exclusive path down to @bottom, adding to the counts on the way. */
static struct cowmem_node *path_count(struct cowmem_tree *tree, pgoff_t place,
				      unsigned int bottom, long nr_pages)
{
	struct cowmem_node *node = tree->root;

	for (;;) {
		node->nr_pages += nr_pages;
		if (node->level == bottom)
			return node;
		node = node->child[slot_of(place, node->level)];
	}
}

/* Drop the nodes on the way to @place that nothing is in any more. */
static void path_prune(struct cowmem_tree *tree, pgoff_t place,
		       struct cowmem_reserve *reserve)
{
	struct cowmem_node **slot[COWMEM_TREE_LEVELS], *node;
	unsigned int level, top;

	if (!tree->root || !level_covers(tree->root->level, place))
		return;
	top = tree->root->level;
	slot[top] = &tree->root;
	for (level = top; level && *slot[level]; level--)
		slot[level - 1] = &(*slot[level])->child[slot_of(place, level)];
	for (; level <= top; level++) {
		node = *slot[level];
		if (!node)
			continue;
		if (node->nr_pages ||
		    memchr_inv(node->child, 0, sizeof(node->child)))
			break;
		*slot[level] = NULL;
		node_drop(node, &reserve->dead);
	}
}

void cowmem_tree_prune(struct cowmem_tree *tree, pgoff_t index,
		       struct cowmem_reserve *reserve)
{
	path_prune(tree, tree->base + index, reserve);
}

/* Mark a slot at @bottom, and those above. */
static void path_mark(struct cowmem_tree *tree, pgoff_t place,
		      unsigned int bottom)
{
	struct cowmem_node *node = tree->root;

	for (;;) {
		__set_bit(slot_of(place, node->level), node->granted);
		if (node->level == bottom)
			break;
		node = node->child[slot_of(place, node->level)];
	}
}

struct page *cowmem_tree_store(struct cowmem_tree *tree, pgoff_t index,
			       struct page *page)
{
	pgoff_t place = tree->base + index;
	struct cowmem_node *leaf = path_count(tree, place, 0, 0);
	struct page *old = leaf->page[slot_of(place, 0)];

	path_mark(tree, place, 0);
	leaf->page[slot_of(place, 0)] = page;
	if (!old)
		path_count(tree, place, 0, 1);
	return old;
}

int cowmem_tree_put(struct cowmem_tree *tree, pgoff_t index, struct page *page,
		    struct cowmem_reserve *reserve)
{
	struct page *old;
	int err;

	while (cowmem_tree_edit(tree, index, reserve, &old) == -EAGAIN) {
		err = cowmem_reserve_fill(reserve);
		if (err) {
			cowmem_page_drop(page);
			return err;
		}
	}
	old = cowmem_tree_store(tree, index, page);
	if (old)
		cowmem_page_drop(old);
	return 0;
}

/* The node at @bottom on @place has lost its marks: tell those above. */
static void path_clear(struct cowmem_tree *tree, pgoff_t place,
		       unsigned int bottom)
{
	struct cowmem_node *path[COWMEM_TREE_LEVELS], *node = tree->root;
	unsigned int level;

	for (;;) {
		path[node->level] = node;
		if (node->level == bottom)
			break;
		node = node->child[slot_of(place, node->level)];
	}
	for (level = bottom; level < tree->root->level; level++) {
		if (!bitmap_empty(path[level]->granted, COWMEM_NODE_SLOTS))
			break;
		__clear_bit(slot_of(place, level + 1), path[level + 1]->granted);
	}
}

static bool slot_granted(const struct cowmem_tree *tree, pgoff_t place,
			 unsigned int level)
{
	struct cowmem_node *below = slot_lookup(tree, place, max(level, 1U));

	if (!below)
		return false;
	return level ? !bitmap_empty(below->granted, COWMEM_NODE_SLOTS) :
	       test_bit(slot_of(place, 0), below->granted);
}

bool cowmem_tree_is_granted(const struct cowmem_tree *tree, pgoff_t index)
{
	return slot_granted(tree, tree->base + index, 0);
}

/*
 * Put what @src has in a slot (NULL: nothing) in place of what @node has there,
 * whose path in @tree is exclusive.
 */
static void slot_replace(struct cowmem_tree *tree, pgoff_t place,
			 struct cowmem_node *node,
			 const struct cowmem_tree *src,
			 struct cowmem_reserve *reserve)
{
	unsigned int level = node->level, slot = slot_of(place, level);
	void *new = src ? slot_lookup(src, place, level) : NULL;
	void *old = node->child[slot];
	long nr_pages = 0;

	if (new == old)
		return;
	if (level) {
		if (new)
			atomic_long_inc(&((struct cowmem_node *)new)->owners);
		nr_pages += new ? ((struct cowmem_node *)new)->nr_pages : 0;
		nr_pages -= old ? ((struct cowmem_node *)old)->nr_pages : 0;
	} else {
		if (new)
			cowmem_page_take(new);
		nr_pages = !!new - !!old;
	}
	path_count(tree, place, level, nr_pages);
	node->child[slot] = new;
	if (__test_and_clear_bit(slot, node->granted))
		path_clear(tree, place, level);
	if (new && slot_granted(src, place, level))
		path_mark(tree, place, level);
	if (old && level)
		node_drop(old, &reserve->dead);
	else if (old)
		cowmem_page_drop(old);
}

/* Is everything that @tree can have without growing in the range? */
static bool range_covers(const struct cowmem_tree *tree, pgoff_t first,
			 pgoff_t last)
{
	return !tree->root ||
	       (!first && (last == ULONG_MAX ||
			   !level_covers(tree->root->level, last + 1)));
}

static void root_replace(struct cowmem_tree *tree,
			 const struct cowmem_tree *src,
			 struct cowmem_reserve *reserve)
{
	struct cowmem_node *old = tree->root;

	if (src->root)
		atomic_long_inc(&src->root->owners);
	tree->root = src->root;
	if (old)
		node_drop(old, &reserve->dead);
}

static int range_replace_slots(struct cowmem_tree *tree, pgoff_t first,
			       pgoff_t last, const struct cowmem_tree *src,
			       struct cowmem_reserve *reserve)
{
	pgoff_t place = first, start;

	for (;;) {
		struct cowmem_node *node;
		unsigned int level = 0;

		place = min(cowmem_tree_next_place(tree, place, false),
			    cowmem_tree_next_place(src, place, false));
		if (place > last || place == ULONG_MAX)
			return 0;
		if (tree_reach(tree, place, src->root ? src->root->level : 0,
			       reserve))
			return -EAGAIN;
		while (level < tree->root->level) {
			start = place & ~(slot_span(level + 1) - 1);
			if (start < first ||
			    last - start < slot_span(level + 1) - 1 ||
			    !slot_known(src, start, level + 1))
				break;
			level++;
		}
		node = path_edit(tree, place, level, reserve);
		if (!node)
			return -EAGAIN;
		slot_replace(tree, place & ~(slot_span(level) - 1), node, src,
			     reserve);
		place = slot_end(place, level);
		if (!place)
			return 0;
	}
}

/*
 * Let @tree have what @src has, in a range of places: in as few and large steps
 * as there are subtrees that lie in it.
 */
static int range_replace(struct cowmem_tree *tree, pgoff_t first, pgoff_t last,
			 const struct cowmem_tree *src,
			 struct cowmem_reserve *reserve)
{
	if (range_covers(tree, first, last) && range_covers(src, first, last)) {
		root_replace(tree, src, reserve);
		return 0;
	}
	if (range_replace_slots(tree, first, last, src, reserve))
		return -EAGAIN;
	/* Only at its ends may nodes have lost all they had. */
	path_prune(tree, first, reserve);
	path_prune(tree, last, reserve);
	return 0;
}

/* Nothing is below the base, so that what begins there is whole. */
static pgoff_t first_place(const struct cowmem_tree *tree, pgoff_t first)
{
	return first ? tree->base + first : 0;
}

static pgoff_t last_place(const struct cowmem_tree *tree, pgoff_t first,
			  pgoff_t nr)
{
	pgoff_t place = tree->base + first;

	return nr > ULONG_MAX - place ? ULONG_MAX : place + nr - 1;
}

int cowmem_tree_cut(struct cowmem_tree *tree, pgoff_t first,
		    struct cowmem_reserve *reserve)
{
	static const struct cowmem_tree empty;

	return range_replace(tree, first_place(tree, first), ULONG_MAX, &empty,
			     reserve);
}

int cowmem_tree_extract(const struct cowmem_tree *tree, pgoff_t first,
			pgoff_t nr, struct cowmem_tree *piece,
			struct cowmem_reserve *reserve)
{
	piece->base = tree->base + first;
	return range_replace(piece, first_place(tree, first),
			     last_place(tree, first, nr), tree, reserve);
}

int cowmem_tree_align(struct cowmem_tree *piece, const struct cowmem_tree *tree,
		      pgoff_t first, struct cowmem_reserve *reserve)
{
	struct cowmem_tree moved = { .base = tree->base + first };
	pgoff_t index = 0;
	int err = 0;

	if (piece->base == moved.base)
		return 0;
	for (; !err; index++) {
		struct page *page;

		index = cowmem_tree_next_page(piece, index);
		if (index == ULONG_MAX)
			break;
		page = cowmem_tree_lookup(piece, index);
		cowmem_page_take(page);
		err = cowmem_tree_put(&moved, index, page, reserve);
		if (fatal_signal_pending(current))
			err = err ?: -EINTR;
		cond_resched();
	}
	/* They are shared, for all that is known here. */
	cowmem_tree_clear_granted(&moved, 0, ULONG_MAX);
	cowmem_tree_drop(piece);
	*piece = moved;
	return err;
}

unsigned int cowmem_tree_graft_nodes(const struct cowmem_tree *tree,
				     const struct cowmem_tree *piece)
{
	unsigned int level = max(tree->root ? tree->root->level : 0,
				 piece->root ? piece->root->level : 0);

	return 3 * (level + 1);
}

int cowmem_tree_graft(struct cowmem_tree *tree, pgoff_t first, pgoff_t nr,
		      const struct cowmem_tree *piece,
		      struct cowmem_reserve *reserve)
{
	return range_replace(tree, first_place(tree, first),
			     last_place(tree, first, nr), piece, reserve);
}

/* The next granted run of places, up to a node's end. */
static pgoff_t next_granted(const struct cowmem_tree *tree, pgoff_t place,
			    pgoff_t *end)
{
	struct cowmem_node *node = tree->root;
	pgoff_t start;
	unsigned int slot;

restart:
	if (!node || !level_covers(node->level, place))
		return ULONG_MAX;
	for (;;) {
		start = place & ~(slot_span(node->level + 1) - 1);
		slot = find_next_bit(node->granted, COWMEM_NODE_SLOTS,
				     slot_of(place, node->level));
		if (slot == COWMEM_NODE_SLOTS) {
			/* Nothing more below this node: go on after it. */
			place = slot_end(place, node->level + 1);
			if (!place || node == tree->root)
				return ULONG_MAX;
			node = tree->root;
			goto restart;
		}
		if (slot != slot_of(place, node->level))
			place = start + slot * slot_span(node->level);
		if (!node->level)
			break;
		node = node->child[slot];
	}
	*end = start + find_next_zero_bit(node->granted, COWMEM_NODE_SLOTS, slot);
	return place;
}

pgoff_t cowmem_tree_next_granted(const struct cowmem_tree *tree, pgoff_t index,
				 pgoff_t *end)
{
	pgoff_t place = next_granted(tree, tree->base + index, end);

	if (place == ULONG_MAX)
		return ULONG_MAX;
	*end -= tree->base;
	return place - tree->base;
}

void cowmem_tree_clear_granted(struct cowmem_tree *tree, pgoff_t first,
			       pgoff_t nr)
{
	pgoff_t place = tree->base + first, end;
	pgoff_t last = last_place(tree, first, nr);
	struct cowmem_node *leaf;

	for (;; place = end) {
		place = next_granted(tree, place, &end);
		if (place == ULONG_MAX || place > last)
			break;
		if (end - 1 > last)
			end = last + 1;
		leaf = path_count(tree, place, 0, 0);
		bitmap_clear(leaf->granted, slot_of(place, 0), end - place);
		path_clear(tree, place, 0);
		cond_resched();
	}
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
