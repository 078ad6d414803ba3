/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The protocol of locks and faults, for spin: see run.sh, and "What orders what"
 * in module/buffer.h.
 *
 * A buffer of two pages below one parent, of which the second is a hole at first;
 * two that write to it, and one that takes snapshots.  Each file stands for the one
 * of that name in module/, each inline for the functions that it names.
 *
 * A step is what others see at once: an atomic of the kernel, a change of a PTE, a
 * load or store of a word.  To take a lock, to touch what only that lock
 * protects, or memory that nobody else knows, and to drop the lock at last, joins
 * a step next to it: nobody can tell.  Asserts and wanted[] only look on.
 *
 * Left out: failures, sizes and ranges, MAP_PRIVATE, and the order of memory
 * accesses of one CPU: all see the steps in one order.
 */

#define NR_BUFFERS	2
#define LIVE		0
#define SNAP		1
#define NR_TREES	3	/* theirs, and what RESTORE brings */
#define PIECE		2

/* As many as are ever needed: an index beyond is an error as any other. */
#define NR_PAGES	8
#define NR_ROOTS	6
#define NR_LEAVES	8

/* A buffer as it is not: the names of the assertions.  True: do not care. */
#ifndef ONLY
#define IGNORED	false
#else
#define IGNORED	true
#endif
bit torn_cut = IGNORED, not_isolated = IGNORED, lost_store = IGNORED;
bit reused_while_held = IGNORED, used_after_free = IGNORED;
bit shared_node_changed = IGNORED, foreign_pte = IGNORED, leaked = IGNORED;

/* To be in one step with what it protects. */
#define mutex_lock(mutex)	!mutex; mutex = true

#include "page.pml"
#include "tree.pml"
#include "buffer.pml"
#include "vm.pml"
#include "snapshot.pml"
#include "replace.pml"

bit published;
byte ended;

/* What the inlines use; all of it is 0 between two calls. */
#define LOCALS \
	byte old, new, was, mine, known, dead_root, dead_leaf; \
	bit shared, own, last, zapped, no_lock

/* Whose words */
#define A	0
#define B	1

/* Stores n to its words, of page 0 and then of page 1. */
proctype first_writer()
{
	LOCALS;
	byte step;

	do
	:: step < 2 * ROUNDS ->
		store(LIVE, step % 2, A, step / 2 + 1);
		step++
	:: else -> break
	od;
	ended++
}

#ifndef PIN
/* Copies a word of the other, from page 1, to its own of page 0. */
proctype second_writer()
{
	LOCALS;
	byte step, seen;

	do
	:: step < ROUNDS ->
		load(LIVE, 1, A, seen);
		store(LIVE, 0, B, seen);
		atomic { step++; seen = 0 }
	:: else -> break
	od;
	ended++
}
#else
/* A device: pins page 0, and stores to it without a PTE. */
proctype second_writer()
{
	LOCALS;
	byte step, pinned;

	pin(LIVE, 0, pinned);
	do
	:: step < ROUNDS ->
		atomic {
			step++;
			store_to(LIVE, 0, B, step, pinned)
		}
	:: else -> break
	od;
	page_put(pinned);
	pinned = HOLE;
	ended++
}
#endif

/* A read() of all of a buffer that nobody changes. */
inline check(t)
{
	must_have(t, 0, A, page_of(t, 0));
	must_have(t, 0, B, page_of(t, 0));
	must_have(t, 1, A, page_of(t, 1));
	must_have(t, 1, B, page_of(t, 1))
}

/* cowmem_snapshot_take(): then others may know the snapshot. */
inline snapshot()
{
	down_write(LIVE);
	cut_take(LIVE, SNAP);
	buf[LIVE].writer = false
}

#define snap_word(i, w)	page[page_of(SNAP, i)].word[w]

/* With each store it has those that its writer made, or saw, before. */
inline check_cut()
{
	assert(snap_word(1, A) <= snap_word(0, A) || torn_cut);
	assert(snap_word(0, A) <= snap_word(1, A) + 1 || torn_cut);
#ifndef PIN
	assert(snap_word(0, B) <= snap_word(1, A) || torn_cut);
#endif
	check(SNAP)
}

/* A pipe holds a page of the snapshot when that is closed. */
inline hold_and_drop()
{
	buffer_page(SNAP, 0, mine);
	tree_drop(SNAP);
	assert(page[mine].word[A] == wanted[SNAP].word[A] || reused_while_held);
	assert(page[mine].word[B] == wanted[SNAP].word[B] || reused_while_held);
	page_put(mine);
	mine = HOLE
}

/* The snapshot is writable: it is mapped, stored to, unmapped and closed. */
inline write_and_drop()
{
	load(SNAP, 1, A, seen);
	store(SNAP, 1, A, OTHERS);
	atomic { seen = 0; check(SNAP) }
	revoke(SNAP, 1);
	tree_drop(SNAP)
}

proctype snapshotter()
{
	LOCALS;
	byte shots, seen;
	byte copy[2], keep[2];
	bit goes;

	do
	:: shots < SHOTS ->
		shots++;
		snapshot();
		published = true;
#ifdef SNAPSHOT
		d_step { check_cut() }
		d_step { check(SNAP) }
		tree_drop(SNAP);
#endif
#ifdef DROP
		hold_and_drop();
#endif
#ifdef CLONE
		write_and_drop();
#endif
#ifdef RESTORE
		restore(LIVE, SNAP, PIECE);
		d_step { check(SNAP) }
		tree_drop(SNAP);
#endif
		d_step {
			wanted[SNAP].word[0] = 0;
			wanted[SNAP].word[1] = 0;
			wanted[SNAP].word[2] = 0;
			wanted[SNAP].word[3] = 0
		}
	:: else -> break
	od;
	ended++
}

inline set_up()
{
#ifdef ONLY
	ONLY = false;
#endif
	page[1].owners = 1;
	page[1].refs = 1;
	leaf[1].used = true;
	leaf[1].owners = 1;
	leaf[1].page = 1;
	leaf[2].used = true;
	leaf[2].owners = 1;
#ifdef CLONE
	page[2].owners = 1;
	page[2].refs = 1;
	leaf[2].page = 2;
#endif
	root[1].used = true;
	root[1].owners = 1;
	root[1].leaf[0] = 1;
	root[1].leaf[1] = 2;
	tree[LIVE] = 1
}

/* In the end there is what the live buffer has; and then nothing. */
init {
	LOCALS;
	byte i;

	atomic {
		set_up();
		run snapshotter()
	}
#if defined(CLONE) || defined(RESTORE)
	/* What is before the first snapshot has been seen in the others. */
	published;
#endif
	atomic {
		run first_writer();
		run second_writer()
	}
	ended == 3;
	d_step { check(LIVE) }
	revoke(LIVE, 0);
	revoke(LIVE, 1);
	tree_drop(LIVE);
	d_step {
		for (i : 1 .. NR_PAGES - 1) {
			assert(!page[i].owners && !page[i].refs || leaked)
		}
		for (i : 1 .. NR_LEAVES - 1) {
			assert(!leaf[i].used || leaked)
		}
		for (i : 1 .. NR_ROOTS - 1) {
			assert(!root[i].used || leaked)
		}
	}
}
