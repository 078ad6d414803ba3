/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Pages: module/page.c.  Both counts are atomics: each change of one is a step,
 * and so is each look at one.
 */

#define WORDS	2		/* of a page: one for each writer */
#define HOLE	0		/* no page; in a PTE: the zero page, whose
				   references nobody counts */

typedef page_t {
	byte owners;		/* slots of leaves that hold it */
	byte refs;		/* all owners together, PTEs, pins, readers */
	byte word[WORDS]
}

page_t page[NR_PAGES];

/* To be in one step with what follows: nobody else knows the page. */
inline page_alloc(pg)
{
	d_step {
		pg = 1;
		do
		:: page[pg].refs -> pg++
		:: else -> break
		od;
		page[pg].owners = 1;
		page[pg].refs = 1
	}
}

inline page_get(pg)
{
	if
	:: pg != HOLE ->
		assert(page[pg].refs || used_after_free);
		page[pg].refs++
	:: else
	fi
}

inline page_put(pg)
{
	d_step {
		if
		:: pg != HOLE ->
			assert(page[pg].refs || used_after_free);
			page[pg].refs--;
			if
			:: !page[pg].refs ->
				assert(!page[pg].owners || used_after_free);
				page[pg].word[0] = 0;
				page[pg].word[1] = 0
			:: else
			fi
		:: else
		fi
	}
}

/* cowmem_page_take() */
inline page_take(pg)
{
	d_step {
		if
		:: pg != HOLE ->
			assert(page[pg].owners || used_after_free);
			page[pg].owners++
		:: else
		fi
	}
}

/* cowmem_page_drop(): the count, then the reference of all owners. */
inline page_drop(pg)
{
	d_step {
		last = false;
		if
		:: pg != HOLE ->
			assert(page[pg].owners || used_after_free);
			page[pg].owners--;
			last = !page[pg].owners
		:: else
		fi
	}
	if
	:: last -> page_put(pg); last = false
	:: else
	fi
}

/* cowmem_page_copy() of a word: others may store to the next meanwhile. */
inline word_copy(dst, src, w)
{
	d_step {
		assert(page[src].refs || used_after_free);
		page[dst].word[w] = page[src].word[w]
	}
}
