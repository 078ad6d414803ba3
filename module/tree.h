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

struct page;

/*
 * 64 slots: the first write to a page after a snapshot copies one leaf and, for
 * the first in a while, up to three nodes above; a node is 544 bytes, so the
 * index of a dense buffer is 0.2 % of it.  make bench measures 512 slots too.
 */
#ifndef COWMEM_NODE_SHIFT
#define COWMEM_NODE_SHIFT	6
#endif
#define COWMEM_NODE_SLOTS	(1UL << COWMEM_NODE_SHIFT)

/* Enough levels for every page index of a file: 63 bits of bytes. */
#define COWMEM_TREE_BITS	51
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

struct cowmem_tree {
	struct cowmem_node *root;	/* NULL: all holes */
};

/**
 * struct cowmem_reserve - memory to come and memory to go
 * @spare: nodes to take before asking the allocator
 * @nr_spare: how many
 * @page: a page full of zeroes, or NULL
 * @dead: nodes that lost their last owner, not yet freed
 *
 * Lets a change be made where nothing may sleep: when -EAGAIN says that there
 * was no memory to be had, leave, call cowmem_reserve_fill() and try again.
 */
struct cowmem_reserve {
	struct cowmem_node *spare;
	unsigned int nr_spare;
	struct page *page;
	struct cowmem_node *dead;
};

/**
 * cowmem_reserve_fill() - have enough for a change of two paths and a page
 * @reserve: the reserve
 *
 * Context: may sleep.
 * Return: 0 or -ENOMEM.
 */
int cowmem_reserve_fill(struct cowmem_reserve *reserve);

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
 * cowmem_tree_clear_granted() - clear all granted marks
 * @tree: the tree
 *
 * In time that grows with the number of leaves that have marks.
 *
 * Context: may sleep.
 */
void cowmem_tree_clear_granted(struct cowmem_tree *tree);

/**
 * cowmem_tree_share() - let another tree reach everything that this one does
 * @tree: a tree without granted marks
 * @copy: an empty tree
 */
void cowmem_tree_share(struct cowmem_tree *tree, struct cowmem_tree *copy);

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
