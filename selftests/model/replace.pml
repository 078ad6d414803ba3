/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Restore: module/replace.c, the steps of its first comment in the same order,
 * with snap exclusive of both buffers.
 */

/* retire() of a page: if it differs, it goes, unless somebody may write it. */
inline retire(b, t, i)
{
	if
	:: page_of(b, i) != page_of(t, i) ->
#ifndef RESTORE_WITHOUT_REVOKE
		revoke(b, i);
#endif
		if
#ifndef PINNED_NOT_KEPT
		:: granted_of(b, i) && page_held(page_of(b, i), 0) ->
			/* keep_page() */
			atomic {
				keep[i] = page_of(b, i);
				copy[i] = page_of(t, i);
				page_take(copy[i])
			}
#endif
		:: else -> goes = true
		fi
	:: else
	fi
}

/* replace_range(), cowmem_tree_put(): what comes gets the pages that stay... */
inline put_kept(t, i)
{
	if
	:: keep[i] ->
		page_take(keep[i]);
		tree_edit(t, i, was, own, no_lock);
		d_step { tree_store(t, i, keep[i]); own = false }
		page_drop(was);
		was = HOLE;
		reserve_release()
	:: else
	fi
}

/* ... and the buffer gets what comes: cowmem_tree_graft(), root_replace(). */
inline graft(b, t)
{
	atomic {
		mutex_lock(buf[b].tree_lock);
		root[tree[t]].owners++
	}
	atomic {
		root_drop(tree[b]);
		tree[b] = tree[t];
		has_what(b, t, 0);
		has_what(b, t, 1);
		buf[b].tree_lock = false
	}
}

/* copy_kept() of a word.  What a device stored to it until now is gone. */
inline copy_back(b, i, w)
{
	d_step {
		page[keep[i]].word[w] = page[copy[i]].word[w];
		wanted[b].word[i * WORDS + w] = page[copy[i]].word[w]
	}
}

/* copy_kept() of a page, and forget_kept(). */
inline copy_kept(b, i)
{
	if
	:: keep[i] ->
		copy_back(b, i, 0);
		copy_back(b, i, 1);
		page_drop(copy[i]);
		d_step { keep[i] = HOLE; copy[i] = HOLE }
	:: else
	fi
}

/* cowmem_replace() */
inline replace(b, t)
{
	retire(b, t, 0);
	retire(b, t, 1);
	if
	:: goes || !(keep[0] || keep[1]) ->
		put_kept(t, 0);
		put_kept(t, 1);
		graft(b, t)
	:: else -> d_step { has_what(b, t, 0); has_what(b, t, 1) }
	fi;
	goes = false;
	copy_kept(b, 0);
	copy_kept(b, 1);
	/* Never the last owner. */
	atomic {
		root_drop(tree[t]);
		tree[t] = NONE
	}
}

/* cowmem_copy() with COWMEM_REPLACE of all: RESTORE of @b from @source. */
inline restore(b, source, t)
{
	down_write(b);
	down_write(source);
	/* cowmem_cut_take() of what is frozen, and has no granted pages. */
	atomic {
		root[tree[source]].owners++;
		tree[t] = tree[source];
		has_what(t, source, 0);
		has_what(t, source, 1)
	}
	replace(b, t);
	d_step {
		buf[b].writer = false;
		buf[source].writer = false
	}
	reserve_release()
}
