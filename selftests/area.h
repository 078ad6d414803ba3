/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The memory that stress writes to, and what must hold of it at any moment.
 *
 * Words, each on a page of its own, in sets of which each is written in one
 * order.  So the values of a word only grow, and no word is ever ahead of the one
 * before it in its set:
 *
 *	own		writer w stores n to its words 0, 1, 2, ... in turn, then
 *			n + 1: a cut shows n...n, n-1...n-1
 *	chain		word k is copied from word k - 1, by another writer each
 *	versions	as own, by compare-and-swap; and restores put a new
 *			version, (v << VERSION_SHIFT), into all words at one moment.
 *			A cut still shows n...n, n-1...n-1, of one version
 *
 * Then a page that only the thread that takes snapshots writes.
 *
 * Last the tail: page n % TAIL_PAGES of it gets n, for n = 1, 2, ...  It is
 * punched and cut off meanwhile: a page of it has what it got last, or zeroes, or
 * is not there.
 */
#ifndef COWMEM_SELFTESTS_AREA_H
#define COWMEM_SELFTESTS_AREA_H

#include <assert.h>
#include <stdatomic.h>

#include "util.h"

#define WRITERS		2
#define OWN_WORDS	18
#define CHAIN_WORDS	14
#define VERSION_WORDS	10
#define TAIL_PAGES	8

/* Numbers of words; those of the writers are the first. */
#define CHAIN		(WRITERS * OWN_WORDS)
#define VERSIONS	(CHAIN + CHAIN_WORDS)
#define NR_WORDS	(VERSIONS + VERSION_WORDS)

/* Apart, so that they lie in several leaves of the index. */
#define STRIDE		7
#define HELD_OFFSET	(NR_WORDS * STRIDE * PAGE)
#define SIZE		(HELD_OFFSET + PAGE)
#define MAP_SIZE	(SIZE + TAIL_PAGES * PAGE)

#define VERSION_SHIFT	32
#define MAX_BUFFERS	3

/*
 * Buffers whose mappings, one behind the other, are one area of SIZE bytes.  The
 * last goes on behind it, with the tail.
 */
struct area {
	unsigned int nr;
	int fd[MAX_BUFFERS];
};

/* The versions are in the last buffer: a restore is of one. */
static_assert((MAX_BUFFERS - 1) * (SIZE / PAGE) / MAX_BUFFERS <= VERSIONS * STRIDE,
	      "versions in two buffers");

/*
 * Where things are
 */

static inline size_t area_start(const struct area *area, unsigned int i)
{
	return i * (SIZE / PAGE) / area->nr * PAGE;
}

/* Without the tail. */
static inline size_t area_length(const struct area *area, unsigned int i)
{
	return area_start(area, i + 1) - area_start(area, i);
}

static inline size_t area_tail(const struct area *area, unsigned int i)
{
	return i == area->nr - 1 ? TAIL_PAGES * PAGE : 0;
}

/* The buffer that has an offset of the area, and where. */
static inline int area_find(const struct area *area, size_t *offset)
{
	unsigned int i = area->nr - 1;

	while (area_start(area, i) > *offset)
		i--;
	*offset -= area_start(area, i);
	return area->fd[i];
}

/* The first word that buffer @i has, or that comes behind it. */
static inline unsigned int area_first_word(const struct area *area,
					   unsigned int i)
{
	size_t step = STRIDE * PAGE;
	unsigned int first = (area_start(area, i) + step - 1) / step;

	return first < NR_WORDS ? first : NR_WORDS;
}

static inline size_t word_offset(unsigned int i)
{
	return i * STRIDE * PAGE;
}

static inline _Atomic uint64_t *word(char *map, unsigned int i)
{
	return (_Atomic uint64_t *)(map + word_offset(i));
}

static inline _Atomic uint64_t *held_word(char *map)
{
	return (_Atomic uint64_t *)(map + HELD_OFFSET);
}

static inline _Atomic uint64_t *tail_word(char *map, unsigned int page)
{
	return (_Atomic uint64_t *)(map + SIZE + page * PAGE);
}

/* Are both words of one set? */
static inline bool same_set(unsigned int i, unsigned int k)
{
	if (i < CHAIN && k < CHAIN)
		return i / OWN_WORDS == k / OWN_WORDS;
	return (i < CHAIN) == (k < CHAIN) && (i < VERSIONS) == (k < VERSIONS);
}

/*
 * Life
 */

static inline bool area_create(struct area *area, unsigned int nr)
{
	area->nr = nr;
	for (unsigned int i = 0; i < nr; i++) {
		area->fd[i] = cow_create(area_length(area, i) + area_tail(area, i),
					 "stress");
		if (area->fd[i] < 0)
			return false;
	}
	return true;
}

/* MAP_SIZE bytes. */
static inline char *area_map(const struct area *area, int prot)
{
	char *map = mmap(NULL, MAP_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);

	for (unsigned int i = 0; map != MAP_FAILED && i < area->nr; i++)
		if (mmap(map + area_start(area, i),
			 area_length(area, i) + area_tail(area, i), prot,
			 MAP_SHARED | MAP_FIXED, area->fd[i], 0) == MAP_FAILED)
			return MAP_FAILED;
	return map;
}

static inline void area_close(const struct area *area)
{
	for (unsigned int i = 0; i < area->nr; i++)
		close(area->fd[i]);
}

static inline int area_snapshot(const struct area *area, uint32_t flags,
				struct area *snap)
{
	struct cowmem_member members[MAX_BUFFERS] = { };
	int err;

	snap->nr = area->nr;
	if (area->nr == 1) {
		snap->fd[0] = cow_snapshot(area->fd[0], flags);
		return snap->fd[0] < 0 ? snap->fd[0] : 0;
	}
	for (unsigned int i = 0; i < area->nr; i++)
		members[i].fd = area->fd[i];
	err = cow_snapshot_group(area->fd[0], flags, members, area->nr);
	for (unsigned int i = 0; !err && i < area->nr; i++)
		snap->fd[i] = members[i].snapshot_fd;
	return err;
}

/* Pages of the tail that are there, the last perhaps in part. */
static inline unsigned int area_tail_pages(const struct area *area)
{
	unsigned int last = area->nr - 1;

	return page_up(cow_stat(area->fd[last]).length -
		       area_length(area, last)) / PAGE;
}

/*
 * Loads and stores that may be beyond the end, by many threads: COW_TRY() is for
 * one.
 */

static _Thread_local sigjmp_buf try_jmp;
static _Thread_local volatile bool trying;

static inline void handle_sigbus(int sig)
{
	if (trying)
		siglongjmp(try_jmp, 1);
	signal(SIGBUS, SIG_DFL);
}

/* For this process, and those that it forks. */
static inline int catch_sigbus(void)
{
	struct sigaction act = {
		.sa_handler = handle_sigbus,
		.sa_flags = SA_NODEFER,
	};

	return sigaction(SIGBUS, &act, NULL);
}

/* False: SIGBUS. */
static inline bool try_load(_Atomic uint64_t *from, uint64_t *value)
{
	trying = true;
	if (sigsetjmp(try_jmp, 0)) {
		trying = false;
		return false;
	}
	*value = atomic_load(from);
	trying = false;
	return true;
}

static inline bool try_store(_Atomic uint64_t *to, uint64_t value)
{
	trying = true;
	if (sigsetjmp(try_jmp, 0)) {
		trying = false;
		return false;
	}
	atomic_store(to, value);
	trying = false;
	return true;
}

/*
 * What must hold of a cut
 */

struct wrong {
	unsigned long order;
	unsigned long chain;
	unsigned long versions;
	unsigned long tail;
};

/* Words @from ... @end - 1 of one set; @lag: how far the last may be behind. */
static inline unsigned int words_wrong(char *map, unsigned int from,
				       unsigned int end, uint64_t lag)
{
	unsigned int bad = 0;

	for (unsigned int i = from + 1; i < end; i++) {
		uint64_t here = *word(map, i);

		if (here > *word(map, i - 1) || *word(map, from) - here > lag)
			bad++;
	}
	return bad;
}

static inline unsigned int later(unsigned int i, unsigned int k)
{
	return i > k ? i : k;
}

static inline unsigned int earlier(unsigned int i, unsigned int k)
{
	return i < k ? i : k;
}

/* A cut of words @from ... @end - 1. */
static inline void check_words(char *map, unsigned int from, unsigned int end,
			       struct wrong *wrong)
{
	for (unsigned int w = 0; w < WRITERS; w++)
		wrong->order += words_wrong(map, later(from, w * OWN_WORDS),
					    earlier(end, (w + 1) * OWN_WORDS), 1);
	wrong->chain += words_wrong(map, later(from, CHAIN),
				    earlier(end, VERSIONS), UINT64_MAX);
	wrong->versions += words_wrong(map, later(from, VERSIONS), end, 1);
}

/* A cut of the tail, of which @nr pages are there. */
static inline void check_tail(char *map, unsigned int nr, struct wrong *wrong)
{
	uint64_t value, newest = 0;

	for (unsigned int i = 0; i < nr; i++)
		if (*tail_word(map, i) > newest)
			newest = *tail_word(map, i);
	for (unsigned int i = 0; i < nr; i++) {
		value = *tail_word(map, i);
		if (value && (value % TAIL_PAGES != i ||
			      value + TAIL_PAGES <= newest))
			wrong->tail++;
	}
	if (nr < TAIL_PAGES && try_load(tail_word(map, nr), &value))
		wrong->tail++;
}

#endif
