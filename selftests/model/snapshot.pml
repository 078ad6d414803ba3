/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Making a buffer shareable: module/snapshot.c, the steps of its first comment in
 * the same order, with snap exclusive: granted marks and slots do not change.
 */

inline revoke_granted(b, i)
{
	if
	:: granted_of(b, i) -> revoke(b, i)
	:: else
	fi
}

/* cowmem_page_copy() of a word to the sharer, who is to have what it reads. */
inline copy_for_sharer(t, i, w, pg)
{
	word_copy(copy[i], pg, w);
	wanted[t].word[i * WORDS + w] = page[pg].word[w]
}

/*
 * find_pinned(), add_pinned().  Who held a page until it is looked at may have
 * stored to it since it was revoked: that is in the snapshot too.
 */
inline find_pinned(b, t, i)
{
	atomic {
		own = granted_of(b, i) && page_held(page_of(b, i), 0);
		if
		:: own ->
			page_alloc(copy[i]);
			copy_for_sharer(t, i, 0, page_of(b, i))
		:: else -> has_what(t, b, i)
		fi
	}
	if
	:: own ->
		atomic {
			copy_for_sharer(t, i, 1, page_of(b, i));
			own = false
		}
	:: else
	fi
}

/*
 * split_pinned(): the page stays with the buffer, the sharer has the copy, which
 * nobody writes yet.  grant_pinned(): the page is written without a fault.
 */
inline split_pinned(b, t, i)
{
	if
	:: copy[i] ->
		tree_edit(b, i, was, own, buf[b].tree_lock);
		tree_edit(t, i, was, own, buf[b].tree_lock);
		d_step {
			tree_store(t, i, copy[i]);
			granted_of(t, i) = false;
			tree_store(b, i, was);
			copy[i] = HOLE;
			own = false
		}
		page_drop(was);
		was = HOLE;
		reserve_release()
	:: else
	fi
}

/* cowmem_cut_take(): @t gets all that the buffer has, and that is the cut. */
inline cut_take(b, t)
{
#ifdef PINS_BEFORE_REVOKE
	find_pinned(b, t, 0);
	find_pinned(b, t, 1);
#endif
	revoke_granted(b, 0);
	revoke_granted(b, 1);
	d_step { has_what(t, b, 0); has_what(t, b, 1) }
#ifndef PINS_BEFORE_REVOKE
	find_pinned(b, t, 0);
	find_pinned(b, t, 1);
#endif
	d_step {
		granted_of(b, 0) = false;
		granted_of(b, 1) = false;
		root[tree[b]].owners++;
		tree[t] = tree[b]
	}
	split_pinned(b, t, 0);
	split_pinned(b, t, 1)
}
