/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The index: module/tree.c.  A root above two leaves of one page each, so that
 * two faults copy the same parent and different leaves.
 *
 * What a slot holds changes only under the lock of the tree.  The owner counts
 * are atomics that two trees share: each change of one is a step, and so is each
 * look at one.  The granted marks of a root are those of its leaves, and change
 * in the same step: they are left out.
 */

#define NONE	0

typedef root_t {
	byte owners;
	bit used;		/* not freed: a dead node has no owners */
	byte leaf[2]
}

typedef leaf_t {
	byte owners;
	bit used;
	bit granted;
	byte page
}

root_t root[NR_ROOTS];
leaf_t leaf[NR_LEAVES];
byte tree[NR_TREES];		/* their roots */

#define leaf_of(t, i)	root[tree[t]].leaf[i]
#define page_of(t, i)	leaf[leaf_of(t, i)].page
#define granted_of(t, i) leaf[leaf_of(t, i)].granted

/* To be in one step with what follows, as page_alloc(). */
inline root_alloc(nr)
{
	nr = 1;
	do
	:: root[nr].used -> nr++
	:: else -> break
	od;
	root[nr].used = true;
	root[nr].owners = 1
}

inline leaf_alloc(nr)
{
	nr = 1;
	do
	:: leaf[nr].used -> nr++
	:: else -> break
	od;
	leaf[nr].used = true;
	leaf[nr].owners = 1
}

inline leaf_take(nr)
{
	d_step {
		assert(leaf[nr].owners || used_after_free);
		leaf[nr].owners++
	}
}

/* node_drop() */
inline node_drop(node, nr, dead)
{
	d_step {
		assert(node.owners || used_after_free);
		node.owners--;
		if
		:: !node.owners -> dead = nr
		:: else
		fi
	}
}

#define root_drop(nr)	node_drop(root[nr], nr, dead_root)
#define leaf_drop(nr)	node_drop(leaf[nr], nr, dead_leaf)

/* free_dead() of a leaf */
inline leaf_free()
{
	if
	:: dead_leaf ->
		page_drop(leaf[dead_leaf].page);
		d_step {
			leaf[dead_leaf].used = false;
			leaf[dead_leaf].granted = false;
			leaf[dead_leaf].page = HOLE;
			dead_leaf = NONE
		}
	:: else
	fi
}

/*
 * cowmem_reserve_release(), free_dead(): what tree_edit() left, once the locks
 * are dropped.
 */
inline reserve_release()
{
	leaf_free();
	if
	:: dead_root ->
		leaf_drop(root[dead_root].leaf[0]);
		leaf_free();
		leaf_drop(root[dead_root].leaf[1]);
		leaf_free();
		d_step {
			root[dead_root].used = false;
			root[dead_root].leaf[0] = NONE;
			root[dead_root].leaf[1] = NONE;
			dead_root = NONE
		}
	:: else
	fi
}

/* cowmem_tree_drop() */
inline tree_drop(t)
{
	atomic {
		root_drop(tree[t]);
		tree[t] = NONE
	}
	reserve_release()
}

/*
 * cowmem_tree_edit(), and slot_edit() for both levels: copy what has more than
 * one owner, become an owner of what the copy holds, then give up the old one.
 * @lock is held meanwhile.
 */
inline tree_edit(t, i, pg, is_granted, lock)
{
	atomic {
		mutex_lock(lock);
		old = tree[t];
		assert(root[old].owners || used_after_free);
#ifndef PARENT_NOT_COPIED
		shared = root[old].owners != 1
#endif
	}
	if
	:: shared ->
#ifdef DROP_BEFORE_COPY
		root_drop(old);
#endif
		atomic {
			root_alloc(new);
			root[new].leaf[0] = root[old].leaf[0];
			root[new].leaf[1] = root[old].leaf[1];
			leaf_take(root[new].leaf[0])
		}
		leaf_take(root[new].leaf[1]);
		atomic {
#ifndef DROP_BEFORE_COPY
			root_drop(old);
#endif
			tree[t] = new
		}
	:: else
	fi;
	d_step {
		old = leaf_of(t, i);
		assert(leaf[old].owners || used_after_free);
		shared = leaf[old].owners != 1
	}
	if
	:: shared ->
		atomic {
			d_step {
				assert(!leaf[old].granted || shared_node_changed);
				leaf_alloc(new);
				leaf[new].page = leaf[old].page
			}
			page_take(leaf[new].page)
		}
		atomic {
			leaf_drop(old);
			leaf_of(t, i) = new
		}
	:: else
	fi;
	atomic {
		pg = page_of(t, i);
		is_granted = granted_of(t, i);
		old = NONE;
		new = NONE;
		shared = false;
		lock = false
	}
}

/* cowmem_tree_store(): a step, because the path is this tree's alone. */
inline tree_store(t, i, pg)
{
	assert(root[tree[t]].owners == 1 || shared_node_changed);
	assert(leaf[leaf_of(t, i)].owners == 1 || shared_node_changed);
	page_of(t, i) = pg;
	granted_of(t, i) = true
}
