/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Faults: module/vm.c; and what CPUs, devices and the core of the kernel do with
 * a mapping: stores, loads, pins.
 *
 * A change of a PTE is a step because it is made under the page-table lock; a
 * store or load, because it is one instruction, and no TLB is flushed in the
 * middle of one.
 */

/* What a buffer has to have: what was stored to it last. */
typedef content_t {
	byte word[4]		/* index * WORDS + writer */
}

content_t wanted[NR_TREES];

/* One gets at page @i what another has. */
inline has_what(t, from, i)
{
	wanted[t].word[i * WORDS] = wanted[from].word[i * WORDS];
	wanted[t].word[i * WORDS + 1] = wanted[from].word[i * WORDS + 1]
}

/* vm_insert_page(): nothing, if there is a PTE. */
inline insert_page(b, i, pg)
{
	d_step {
		if
		:: buf[b].pte[i].mode == NO_PTE ->
			page_get(pg);
			buf[b].pte[i].mode = READ;
			buf[b].pte[i].page = pg
		:: else
		fi
	}
}

/* compat_pte_mkwrite(): nothing, if the PTE is gone. */
inline make_writable(b, i, pg)
{
	d_step {
		if
		:: buf[b].pte[i].mode != NO_PTE ->
			assert(buf[b].pte[i].page == pg || foreign_pte);
			buf[b].pte[i].mode = WRITE
		:: else
		fi
	}
}

/*
 * fault_write(), and vmf_insert_page_mkwrite() as in compat.h.  Before
 * page_mkwrite() the core takes a reference of the page of the read-only PTE,
 * under the page-table lock; what it does if there is none begins as well with a
 * look at the PTE.
 */
inline fault_write(b, i)
{
	d_step {
		if
		:: buf[b].pte[i].mode == READ ->
			known = buf[b].pte[i].page;
			page_get(known)
		:: else
		fi
	}
	buffer_own(b, i, mine);
#ifdef INSTALL_AFTER_UNLOCK
	buffer_unlock(b, i);
	insert_page(b, i, mine);
	make_writable(b, i, mine);
#else
	insert_page(b, i, mine);
	atomic {
		make_writable(b, i, mine);
		buffer_unlock(b, i)
	}
#endif
#ifndef RESERVE_FORGOTTEN
	reserve_release();
#endif
	atomic {
		page_put(known);
		known = HOLE;
		mine = HOLE
	}
}

/* fault_read(), page_to_read() */
inline fault_read(b, i)
{
	buffer_lock(b, i);
	buffer_page(b, i, mine);
	if
	:: mine == HOLE -> buf[b].holes_mapped = true
	:: else
	fi;
	insert_page(b, i, mine);
	atomic {
		page_put(mine);
		mine = HOLE;
		buffer_unlock(b, i)
	}
}

/* May an instruction go through the PTE or TLB entry? */
#define may(entry, b, i, how) (buf[b].entry[i].mode >= how)

inline store_to(b, i, w, value, pg)
{
	assert(page[pg].refs || used_after_free);
	page[pg].word[w] = value;
	wanted[b].word[i * WORDS + w] = value
}

#define OTHERS	7		/* stored to the snapshot, if that is writable */

/* What is read of a buffer: not another's stores, and all of its own. */
inline must_have(b, i, w, pg)
{
	assert(pg == HOLE || page[pg].refs || used_after_free);
	assert(page[pg].word[w] == wanted[b].word[i * WORDS + w] ||
	       (b == LIVE && page[pg].word[w] != OTHERS) || not_isolated);
	assert(page[pg].word[w] == wanted[b].word[i * WORDS + w] || lost_store)
}

inline store(b, i, w, value)
{
	do
	:: atomic {
		may(pte, b, i, WRITE) ->
		store_to(b, i, w, value, buf[b].pte[i].page)
	   }
	   break
	:: atomic {
		may(stale, b, i, WRITE) ->
		store_to(b, i, w, value, buf[b].stale[i].page)
	   }
	   break
	:: !may(pte, b, i, WRITE) -> fault_write(b, i)
	od
}

inline load(b, i, w, value)
{
	do
	:: atomic {
		may(pte, b, i, READ) ->
		must_have(b, i, w, buf[b].pte[i].page);
		value = page[buf[b].pte[i].page].word[w]
	   }
	   break
	:: atomic {
		may(stale, b, i, READ) ->
		must_have(b, i, w, buf[b].stale[i].page);
		value = page[buf[b].stale[i].page].word[w]
	   }
	   break
	:: !may(pte, b, i, READ) -> fault_read(b, i)
	od
}

/*
 * A pin for writing, as GUP-fast takes it without a lock: read the PTE, take a
 * reference, unless the page is free, and see that the PTE is still the same.
 */
inline pin(b, i, pg)
{
	do
	:: atomic { may(pte, b, i, WRITE) -> pg = buf[b].pte[i].page }
	   d_step {
		if
		:: page[pg].refs -> page[pg].refs++
		:: else -> pg = HOLE
		fi
	   }
	   if
	   :: pg != HOLE && may(pte, b, i, WRITE) && buf[b].pte[i].page == pg ->
		break
	   :: else -> page_put(pg); pg = HOLE
	   fi
	:: !may(pte, b, i, WRITE) -> fault_write(b, i)
	od
}
