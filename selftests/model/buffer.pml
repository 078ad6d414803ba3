/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Locks, revocation, and how a page becomes a buffer's own: module/buffer.c.
 *
 * A PTE that is zapped may still be in the TLB of any CPU until that is flushed.
 * So a store or load may go through .pte or .stale, whichever it finds.
 */

#define NO_PTE	0
#define READ	1
#define WRITE	2

typedef pte_t {
	byte mode;
	byte page
}

typedef buffer_t {
	byte readers;		/* snap: shared */
	bit waiting;		/* snap: somebody wants it exclusive, so nobody
				   else gets it shared */
	bit writer;		/* snap: exclusive */
	bit leaf_lock[2];	/* two leaves, two locks */
	bit tree_lock;
	bit holes_mapped;
	pte_t pte[2];		/* of one mapping, which all threads share */
	pte_t stale[2]
}

buffer_t buf[NR_BUFFERS];

inline down_read(b)
{
	atomic {
		!buf[b].writer && !buf[b].waiting;
		buf[b].readers++
	}
}

inline down_write(b)
{
	buf[b].waiting = true;
	atomic {
		!buf[b].readers;
		buf[b].writer = true;
		buf[b].waiting = false
	}
}

/* cowmem_buffer_lock() */
inline buffer_lock(b, i)
{
#ifndef FAULTS_NOT_BLOCKED
	down_read(b);
#endif
	atomic { mutex_lock(buf[b].leaf_lock[i]) }
}

/* cowmem_buffer_unlock() */
inline buffer_unlock(b, i)
{
	d_step {
		buf[b].leaf_lock[i] = false;
#ifndef FAULTS_NOT_BLOCKED
		buf[b].readers--
#endif
	}
}

/* cowmem_buffer_page() */
inline buffer_page(b, i, pg)
{
	atomic {
		!buf[b].tree_lock;
		pg = page_of(b, i);
		page_get(pg)
	}
}

/*
 * cowmem_buffer_revoke() of one page.  First zap the PTE, under the page-table
 * lock; then flush the TLBs and put the reference that the PTE held.  The put is
 * in one step with the flush: in between a page looks held that is not, as it
 * did before the flush.
 */
inline zap(b, i)
{
	/* Two at a time: only in mutants. */
	buf[b].stale[i].mode == NO_PTE;
	d_step {
		buf[b].stale[i].mode = buf[b].pte[i].mode;
		buf[b].stale[i].page = buf[b].pte[i].page;
		zapped = buf[b].pte[i].mode != NO_PTE;
		buf[b].pte[i].mode = NO_PTE;
		buf[b].pte[i].page = HOLE
	}
}

inline flush(b, i)
{
	if
	:: zapped ->
		atomic {
			page_put(buf[b].stale[i].page);
			buf[b].stale[i].mode = NO_PTE;
			buf[b].stale[i].page = HOLE;
			zapped = false
		}
	:: else
	fi
}

inline revoke(b, i)
{
	atomic { zap(b, i) }
	flush(b, i)
}

/* cowmem_page_held(), which counts what the caller holds itself: a step. */
#ifdef DROP_BEFORE_REVOKE
/* And what PTEs hold: this mutant needs both, see the patch of that name. */
#define maps(b, i, pg)	(buf[b].pte[i].mode && buf[b].pte[i].page == pg)
#define mapcount(pg)	(maps(0, 0, pg) + maps(0, 1, pg) + \
			 maps(1, 0, pg) + maps(1, 1, pg))
#else
#define mapcount(pg)	0
#endif
#define page_held(pg, own) (page[pg].refs > 1 + (own) + mapcount(pg))

/* page_reusable(): each count is looked at once, at different moments. */
inline page_reusable(b, i, pg, reusable)
{
	reusable = page[pg].owners == 1;
#ifndef REUSE_WHILE_HELD
	if
	:: reusable && page_held(pg, pg == known) ->
		/* Perhaps they are only our own PTEs. */
		revoke(b, i);
		reusable = !page_held(pg, pg == known)
	:: else
	fi
#endif
}

/* page_replaced(), detach_page(): revoke the PTEs, and only then give up. */
inline page_replaced(b, i, pg)
{
#ifdef DROP_BEFORE_REVOKE
	page_drop(pg);
	revoke(b, i)
#else
	if
	:: page_held(pg, 0) -> revoke(b, i)
	:: else
	fi;
	page_drop(pg)
#endif
}

#ifndef NO_TREE_LOCK
#define TREE_LOCK(b)	buf[b].tree_lock
#else
#define TREE_LOCK(b)	no_lock
#endif

/*
 * cowmem_buffer_own(): @pg is the page then, and the locks are held.  There is
 * always memory.
 */
inline buffer_own(b, i, pg)
{
	buffer_lock(b, i);
#ifdef SNAP_TWICE
	down_read(b);
	buf[b].readers--;
#endif
	tree_edit(b, i, was, own, TREE_LOCK(b));
	if
	:: own -> pg = was
	:: !own && was != HOLE ->
		page_reusable(b, i, was, own);
		if
		:: own -> pg = was
		:: else ->
			atomic { page_alloc(pg); word_copy(pg, was, 0) }
			word_copy(pg, was, 1)
		fi;
		atomic { !buf[b].tree_lock; tree_store(b, i, pg) }
		if
		:: !own -> page_replaced(b, i, was)
		:: else
		fi
	:: else ->
		atomic { !buf[b].tree_lock; page_alloc(pg); tree_store(b, i, pg) }
#ifndef HOLE_STAYS_MAPPED
		if
		:: buf[b].holes_mapped -> revoke(b, i)
		:: else
		fi
#endif
	fi;
	d_step { was = HOLE; own = false }
}
