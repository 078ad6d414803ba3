/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The index of a buffer: a persistent radix tree from page index to page.
 * Knows nothing of mappings, files or locks, and takes none.
 *
 *	tree A ──> root A'                 root ──┐<── tree B (owners: 1)
 *	            │  └───────> node <───────┘   │
 *	            └─> node'    (owners: 2)      └─> node    (owners: 1)
 *	                 └─> leaf' ─> page            └─> leaf ─> page
 *
 * A node counts its owners: trees whose root it is, and slots of nodes above.
 * A node with more than one owner never changes.  A path is *exclusive* if
 * every node on it has one owner; only then may the leaf be changed, so before
 * a change the shared nodes of the path are copied, from the root down.
 * Sharing a whole tree is one more owner of its root.
 *
 * Ownership of a node rises only through a tree that already reaches it.  So
 * what a tree finds exclusive stays exclusive until that very tree is shared.
 *
 * *Granted* marks the pages that were made writable since the tree was last
 * shared: a bit per slot in the leaf, and a bit in each node above for a child
 * with a bit in it.  A granted page has one owner and lies on an exclusive
 * path, and need not be asked again.  Nodes with several owners have no bits.
 *
 * All functions want the tree kept from changing by the caller (one lock for
 * readers and writers of one tree; none for nodes that several trees share).
 */
#ifndef _COWMEM_TREE_H
#define _COWMEM_TREE_H

#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/types.h>

struct cowmem_account;
struct page;

/*
 * 64 slots: the first write to a page after a snapshot copies one leaf and, for
 * the first in a while, up to three nodes above; a node is 544 bytes, so the
 * index of a dense buffer is 0.2 % of it.  With 512 slots a write to a page far
 * from others costs 1.4 times as much, and nothing less: make bench.
 */
#ifndef COWMEM_NODE_SHIFT
#define COWMEM_NODE_SHIFT	6
#endif
#define COWMEM_NODE_SLOTS	(1UL << COWMEM_NODE_SHIFT)

/* Enough levels for the sum of two page indices of a file: 63 bits of bytes. */
#define COWMEM_TREE_BITS	52
#define COWMEM_TREE_LEVELS	\
	((COWMEM_TREE_BITS + COWMEM_NODE_SHIFT - 1) / COWMEM_NODE_SHIFT)

/**
 * struct cowmem_node - a node of the tree
 * @owners: tree roots and slots that point here
 * @nr_pages: pages below
 * @level: 0 for a leaf, whose slots hold pages
 * @granted: which slots are, or have below, a granted page
 * @next: links nodes that nobody owns any more, and spare nodes
 * @child: the slots of a node above the leaves; NULL: all holes
 * @page: the slots of a leaf; NULL: a hole
 */
struct cowmem_node {
	atomic_long_t owners;
	unsigned long nr_pages;
	unsigned int level;
	union {
		DECLARE_BITMAP(granted, COWMEM_NODE_SLOTS);
		struct cowmem_node *next;
	};
	union {
		struct cowmem_node *child[COWMEM_NODE_SLOTS];
		struct page *page[COWMEM_NODE_SLOTS];
	};
};

/**
 * struct cowmem_tree - a tree
 * @root: NULL: all holes
 * @base: what to add to an index to find its slots; nothing is below
 *
 * A part of a tree keeps its place among the slots, so that it can share nodes
 * with the whole.
 */
struct cowmem_tree {
	struct cowmem_node *root;
	pgoff_t base;
};

/**
 * struct cowmem_reserve - memory to come and memory to go
 * @account: what a page counts for
 * @spare: nodes to take before asking the allocator
 * @nr_spare: how many
 * @page: list of pages full of zeroes
 * @dead: nodes that lost their last owner, not yet freed
 *
 * Lets a change be made where nothing may sleep: when -EAGAIN says that there
 * was no memory to be had, leave, call cowmem_reserve_fill() and try again.
 */
struct cowmem_reserve {
	struct cowmem_account *account;
	struct cowmem_node *spare;
	unsigned int nr_spare;
	struct page *page;
	struct cowmem_node *dead;
};

/**
 * cowmem_reserve_nodes() - have spare nodes
 * @reserve: the reserve
 * @nr: how many
 *
 * Context: may sleep.
 * Return: 0 or -ENOMEM.
 */
int cowmem_reserve_nodes(struct cowmem_reserve *reserve, unsigned int nr);

/**
 * cowmem_reserve_fill() - have enough nodes for a change of two paths
 * @reserve: the reserve
 *
 * Context: may sleep.
 * Return: 0 or -ENOMEM.
 */
int cowmem_reserve_fill(struct cowmem_reserve *reserve);

/**
 * cowmem_reserve_pages() - have more pages
 * @reserve: the reserve
 * @nr: how many more
 *
 * Context: may sleep.
 * Return: 0, -ENOMEM, -ENOSPC or -EINTR.
 */
int cowmem_reserve_pages(struct cowmem_reserve *reserve, unsigned long nr);

/**
 * cowmem_reserve_release() - free what is left, and what dead nodes own
 * @reserve: the reserve, empty afterwards
 *
 * Context: may sleep.
 */
void cowmem_reserve_release(struct cowmem_reserve *reserve);

/**
 * cowmem_tree_lookup() - find a page
 * @tree: the tree
 * @index: page index
 *
 * Return: the page, or NULL for a hole.
 */
struct page *cowmem_tree_lookup(const struct cowmem_tree *tree, pgoff_t index);

/**
 * cowmem_tree_next_page() - find the next page
 * @tree: the tree
 * @index: where to start
 *
 * Return: the first index from @index on that is not a hole, or ULONG_MAX.
 */
pgoff_t cowmem_tree_next_page(const struct cowmem_tree *tree, pgoff_t index);

/**
 * cowmem_tree_next_hole() - find the next hole
 * @tree: the tree
 * @index: where to start
 *
 * Return: the first index from @index on that is a hole.
 */
pgoff_t cowmem_tree_next_hole(const struct cowmem_tree *tree, pgoff_t index);

/**
 * cowmem_tree_pages() - count the pages
 * @tree: the tree
 *
 * Return: number of pages that the tree reaches, in constant time.
 */
unsigned long cowmem_tree_pages(const struct cowmem_tree *tree);

/**
 * cowmem_tree_edit() - make the path to an index exclusive
 * @tree: the tree
 * @index: page index
 * @reserve: where to take nodes from and leave dead ones
 * @page: out: the page at @index, or NULL for a hole
 *
 * Return: 1 if the page is granted, 0 if not, or -EAGAIN; what was done until
 * then changes no content, and the call can be repeated.
 */
int cowmem_tree_edit(struct cowmem_tree *tree, pgoff_t index,
		     struct cowmem_reserve *reserve, struct page **page);

/**
 * cowmem_tree_prune() - take back what cowmem_tree_edit() made for nothing
 * @tree: the tree
 * @index: page index, below which no page came to be stored
 * @reserve: where to leave nodes
 *
 * Nodes that others are about to store below stay.
 */
void cowmem_tree_prune(struct cowmem_tree *tree, pgoff_t index,
		       struct cowmem_reserve *reserve);

/**
 * cowmem_tree_store() - put a page at an index and mark it granted
 * @tree: the tree
 * @index: page index; cowmem_tree_edit() has made its path exclusive
 * @page: a page whose one owner is the caller, and becomes the tree; may be
 *	the one that is already there
 *
 * Return: the page that was there, now owned by the caller (unless it is
 * @page), or NULL.
 */
struct page *cowmem_tree_store(struct cowmem_tree *tree, pgoff_t index,
			       struct page *page);

/**
 * cowmem_tree_put() - put a page into a tree that nobody else knows
 * @tree: the tree; no lock is needed
 * @index: page index
 * @page: a page of which the caller is an owner, and then no more: the tree is,
 *	and marks it granted, or, after an error, nobody
 * @reserve: where to take nodes from and leave dead ones; filled as needed
 *
 * Context: may sleep.
 * Return: 0 or -ENOMEM.
 */
int cowmem_tree_put(struct cowmem_tree *tree, pgoff_t index, struct page *page,
		    struct cowmem_reserve *reserve);

/**
 * cowmem_tree_cut() - make holes from an index to the end
 * @tree: the tree
 * @first: first index to go; its pages are not mapped any more
 * @reserve: where to take nodes from and leave dead ones
 *
 * Return: 0 or -EAGAIN; then a part is cut, and the call can be repeated.
 */
int cowmem_tree_cut(struct cowmem_tree *tree, pgoff_t first,
		    struct cowmem_reserve *reserve);

/**
 * cowmem_tree_extract() - share a range with a new tree
 * @tree: a tree without granted marks in the range
 * @first: start of the range
 * @nr: its length, ULONG_MAX: to the end
 * @piece: out: an empty tree (or a part, after -EAGAIN) that gets what @tree
 *	has in the range, its own index 0 being @first
 * @reserve: where to take nodes from and leave dead ones
 *
 * In time that grows with the height of the tree.
 *
 * Return: 0 or -EAGAIN; then the call can be repeated.
 */
int cowmem_tree_extract(const struct cowmem_tree *tree, pgoff_t first,
			pgoff_t nr, struct cowmem_tree *piece,
			struct cowmem_reserve *reserve);

/**
 * cowmem_tree_align() - move a tree to where it can be grafted
 * @piece: a tree
 * @tree: the tree to graft it on
 * @first: where
 * @reserve: filled as needed
 *
 * In time that grows with what is in @piece, unless it is there already.
 *
 * Context: may sleep.
 * Return: 0, or -ENOMEM or -EINTR; then @piece has what it had, or a part.
 */
int cowmem_tree_align(struct cowmem_tree *piece, const struct cowmem_tree *tree,
		      pgoff_t first, struct cowmem_reserve *reserve);

/**
 * cowmem_tree_graft_nodes() - how many nodes does a graft take at most?
 * @tree: the tree
 * @piece: what is to be grafted on it
 *
 * Two paths, and new roots until one of them reaches as far as the other.
 *
 * Return: so many in the reserve are enough.
 */
unsigned int cowmem_tree_graft_nodes(const struct cowmem_tree *tree,
				     const struct cowmem_tree *piece);

/**
 * cowmem_tree_graft() - replace a range by what another tree has
 * @tree: the tree; what differs in the range is not mapped any more
 * @first: start of the range
 * @nr: its length, ULONG_MAX: to the end
 * @piece: a tree that was aligned; its granted marks are taken over, so it has
 *	to be dropped before anybody else looks at @tree
 * @reserve: where to take nodes from and leave dead ones
 *
 * In time that grows with the height of the trees.
 *
 * Return: 0 or -EAGAIN; then a part is replaced, and the call can be repeated.
 */
int cowmem_tree_graft(struct cowmem_tree *tree, pgoff_t first, pgoff_t nr,
		      const struct cowmem_tree *piece,
		      struct cowmem_reserve *reserve);

/**
 * cowmem_tree_next_diff() - find the next index at which two trees differ
 * @a: a tree
 * @b: a tree
 * @index: where to start, in both
 * @last: where to end, in both
 *
 * In time that grows with what differs and with the height of the trees, or, if
 * the two do not have the same @base, with what is in them.
 *
 * Context: may sleep.
 *
 * Return: the first index from @index to @last at which not both have the same
 * page or both a hole, or ULONG_MAX.
 */
pgoff_t cowmem_tree_next_diff(const struct cowmem_tree *a,
			      const struct cowmem_tree *b, pgoff_t index,
			      pgoff_t last);

/**
 * struct cowmem_sharing - how much of a tree is its own
 * @exclusive: pages that only this tree reaches
 * @proportional: bytes of pages, each split among those who own it, and each
 *	node above it
 * @fraction: of a byte more, in units of 2^-COWMEM_FRACTION_BITS
 * @nodes: nodes that only this tree reaches
 */
struct cowmem_sharing {
	u64 exclusive;
	u64 proportional;
	u64 fraction;
	u64 nodes;
};

#define COWMEM_FRACTION_BITS	40

/**
 * cowmem_tree_sharing() - add up how much of a tree is its own, a leaf at a time
 * @tree: the tree
 * @index: where to go on: first 0
 * @sum: what to add to: first all 0
 *
 * Return: where to go on, or ULONG_MAX at the end.
 */
pgoff_t cowmem_tree_sharing(const struct cowmem_tree *tree, pgoff_t index,
			    struct cowmem_sharing *sum);

/**
 * cowmem_tree_next_granted() - find the next run of granted pages
 * @tree: the tree
 * @index: where to start
 * @end: out: end of the run, exclusive
 *
 * Return: start of the run, or ULONG_MAX if there is none.
 */
pgoff_t cowmem_tree_next_granted(const struct cowmem_tree *tree, pgoff_t index,
				 pgoff_t *end);

/**
 * cowmem_tree_clear_granted() - clear the granted marks of a range
 * @tree: the tree
 * @first: start of the range
 * @nr: its length, ULONG_MAX: to the end
 *
 * In time that grows with the number of runs of marks.
 *
 * Context: may sleep.
 */
void cowmem_tree_clear_granted(struct cowmem_tree *tree, pgoff_t first,
			       pgoff_t nr);

/**
 * cowmem_tree_is_exclusive() - is there a page that no other tree reaches?
 * @tree: the tree
 * @index: page index
 *
 * Return: true if the page and all nodes above it have one owner.
 */
bool cowmem_tree_is_exclusive(const struct cowmem_tree *tree, pgoff_t index);

/**
 * cowmem_tree_is_granted() - is there a granted page?
 * @tree: the tree
 * @index: page index
 *
 * Return: true if there is a page and it is granted.
 */
bool cowmem_tree_is_granted(const struct cowmem_tree *tree, pgoff_t index);

/**
 * cowmem_tree_drop() - empty a tree
 * @tree: a tree whose pages are not mapped any more
 *
 * Frees what no other tree reaches: exactly, without recursion, in time that
 * grows with what is freed.
 *
 * Context: may sleep.
 */
void cowmem_tree_drop(struct cowmem_tree *tree);

/**
 * cowmem_nodes() - count the nodes that exist
 *
 * Return: nodes of all trees and reserves.
 */
unsigned long cowmem_nodes(void);

int cowmem_tree_init(void);
void cowmem_tree_exit(void);

#endif
