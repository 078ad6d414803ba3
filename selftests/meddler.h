/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A thread that does to the area of the writers, and to a copy of it that only
 * it writes, all else that changes a buffer, and looks at what comes of it.
 */
#ifndef COWMEM_SELFTESTS_MEDDLER_H
#define COWMEM_SELFTESTS_MEDDLER_H

#include "area.h"

#define NEIGHBOURS	6	/* deduped in one turn */
#define MEDDLER_STEPS	12

/* What became of each kind of step; in memory that processes share. */
struct meddled {
	struct {
		atomic_ulong done;
		atomic_ulong wrong;
		atomic_int error;
	} steps[MEDDLER_STEPS];
	atomic_ulong idle_same;		/* deduped pages that nobody writes */
	atomic_ulong busy_same;		/* deduped pages that a writer writes */
};

struct meddler {
	const struct area *area;
	struct area copy;
	struct meddled *meddled;
	char *live, *mine;		/* mappings: of the area, of the copy */
	unsigned int turn;
	unsigned int last;		/* the buffer with versions and tail */
	unsigned int step;
	uint64_t version;		/* what was restored last */
	unsigned int tail_pages;	/* that are there */
	uint64_t cut_off;		/* what the first that is not had */
};

static inline void meddler_expect(struct meddler *m, bool ok)
{
	if (!ok)
		m->meddled->steps[m->step].wrong++;
}

/*
 * The steps.  @i: which buffer, where any will do.  0 or -errno.
 */

/* A page of buffer @i that nobody writes. */
static inline bool page_is_idle(struct meddler *m, unsigned int i,
				unsigned int page)
{
	return (area_start(m->area, i) / PAGE + page) % STRIDE;
}

static inline uint64_t first_value(struct meddler *m, char *map, unsigned int i)
{
	return atomic_load(word(map, area_first_word(m->area, i)));
}

/* The copy of buffer @i was made at one moment, with @least there already. */
static inline void expect_cut(struct meddler *m, unsigned int i, uint64_t least)
{
	struct wrong wrong = { };

	check_words(m->mine, area_first_word(m->area, i),
		    area_first_word(m->area, i + 1), &wrong);
	meddler_expect(m, !wrong.order && !wrong.chain && !wrong.versions);
	meddler_expect(m, first_value(m, m->mine, i) >= least);
}

static inline int meddle_clone(struct meddler *m, unsigned int i)
{
	uint64_t least = first_value(m, m->live, i);
	int err = cow_clone_range(m->copy.fd[i], 0, m->area->fd[i], 0,
				  area_length(m->area, i));

	if (!err)
		expect_cut(m, i, least);
	return err;
}

/* IN_PLACE, too: nobody else writes to the copy. */
static inline int meddle_restore(struct meddler *m, unsigned int i)
{
	uint64_t least = first_value(m, m->live, i);
	struct wrong wrong = { };
	int err = cow_restore(m->copy.fd[i], m->area->fd[i],
			      m->turn % 2 ? COWMEM_IN_PLACE : 0);

	if (err)
		return err;
	expect_cut(m, i, least);
	if (i == m->last) {
		meddler_expect(m, area_tail_pages(&m->copy) == m->tail_pages);
		check_tail(m->mine, m->tail_pages, &wrong);
		meddler_expect(m, !wrong.tail);
	}
	return 0;
}

static inline void new_version(struct meddler *m)
{
	m->version += 1ULL << VERSION_SHIFT;
	for (unsigned int i = VERSIONS; i < NR_WORDS; i++)
		atomic_store(word(m->mine, i), m->version);
}

/* Into the area.  The old must be gone, and what is stored there stays there. */
static inline int meddle_versions(struct meddler *m, unsigned int i)
{
	size_t offset = word_offset(VERSIONS) - area_start(m->area, m->last);
	int err;

	new_version(m);
	err = cow_restore_range(m->area->fd[m->last], offset,
				m->copy.fd[m->last], offset,
				VERSION_WORDS * STRIDE * PAGE, 0);
	for (i = VERSIONS; !err && i < NR_WORDS; i++) {
		meddler_expect(m, atomic_load(word(m->live, i)) >= m->version);
		meddler_expect(m, atomic_load(word(m->mine, i)) == m->version);
	}
	return err;
}

/* Mark the pages that DIFF lists. */
static inline int list_diff(struct meddler *m, unsigned int i, bool *listed)
{
	struct cowmem_extent extents[16];
	uint64_t cursor = 0, end = 0;

	while (cursor != COWMEM_DIFF_END) {
		int nr = cow_diff(m->copy.fd[i], m->area->fd[i], extents, 16,
				  &cursor);

		if (nr < 0)
			return nr;
		for (int k = 0; k < nr; k++) {
			uint64_t offset = extents[k].offset;

			meddler_expect(m, offset >= end);
			end = offset + extents[k].length;
			if (end > MAP_SIZE)
				return -EOVERFLOW;
			for (; offset < end; offset += PAGE)
				listed[offset / PAGE] = true;
		}
	}
	return 0;
}

/* What the meddler alone has written differs; what nobody writes is shared. */
static inline int meddle_diff(struct meddler *m, unsigned int i)
{
	bool listed[MAP_SIZE / PAGE] = { };
	unsigned int nr = area_length(m->area, i) / PAGE;
	int err;

	new_version(m);
	err = list_diff(m, i, listed);
	for (unsigned int page = 0; !err && page < nr; page++)
		if (page_is_idle(m, i, page))
			meddler_expect(m, !listed[page]);
	for (unsigned int k = VERSIONS; !err && i == m->last && k < NR_WORDS; k++)
		meddler_expect(m, listed[(word_offset(k) - area_start(m->area, i)) / PAGE]);
	return err;
}

/* Then both have pages of their own. */
static inline int unshare_pages(struct meddler *m, unsigned int i,
				unsigned int first)
{
	bool listed[MAP_SIZE / PAGE] = { };
	int mode = FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE;
	int err;

	if (fallocate(m->area->fd[i], mode, first * PAGE, STRIDE * PAGE) ||
	    fallocate(m->copy.fd[i], mode, first * PAGE, STRIDE * PAGE))
		return -errno;
	err = list_diff(m, i, listed);
	for (unsigned int page = first; !err && page < first + STRIDE; page++)
		if (page_is_idle(m, i, page))
			meddler_expect(m, listed[page]);
	return err;
}

/*
 * As many pages as are from word to word: one of a word, which may have been
 * written since, and those between, which are equal.
 */
static inline int meddle_dedupe(struct meddler *m, unsigned int i)
{
	int dst = m->turn % 2 ? m->copy.fd[i] : m->area->fd[i];
	int src = m->turn % 2 ? m->area->fd[i] : m->copy.fd[i];
	unsigned int nr = area_length(m->area, i) / PAGE;
	unsigned int first = m->turn * 5 % (nr - STRIDE);
	int err = unshare_pages(m, i, first);

	for (unsigned int page = first; !err && page < first + STRIDE; page++) {
		long ret = cow_dedupe(dst, page * PAGE, src, page * PAGE, PAGE);

		if (ret < 0)
			return ret;
		if (!page_is_idle(m, i, page))
			continue;
		meddler_expect(m, ret == PAGE);
		m->meddled->idle_same += ret == PAGE;
	}
	return err;
}

/*
 * A word and the next of its set are equal most of the time, and both about to
 * be written: now the first of them is the destination, now the second.
 */
static inline int meddle_neighbours(struct meddler *m, unsigned int i)
{
	for (unsigned int k = 0; k < NEIGHBOURS; k++) {
		unsigned int at = (m->turn * NEIGHBOURS + k) % (NR_WORDS - 1);
		size_t to = word_offset(at + m->turn % 2);
		size_t from = word_offset(at + 1 - m->turn % 2);
		int dst = area_find(m->area, &to);
		int src = area_find(m->area, &from);
		long ret;

		/* Not yet written: maybe two holes. */
		if (!atomic_load(word(m->live, at + 1)))
			continue;
		ret = cow_dedupe(dst, to, src, from, PAGE);
		if (ret < 0)
			return ret;
		m->meddled->busy_same += ret == PAGE;
	}
	return 0;
}

/* Zeroes, or what was written since. */
static inline void expect_gone(struct meddler *m, unsigned int page,
			       uint64_t before)
{
	uint64_t value = atomic_load(tail_word(m->live, page));

	meddler_expect(m, !value || value > before);
}

/*
 * Let some of the tail be zeroes: from the middle of @page, whose first half
 * stays, to the middle of another.
 */
static inline int zero_some(struct meddler *m, unsigned int page, int mode)
{
	uint64_t stays = atomic_load(tail_word(m->live, page));
	uint64_t whole = atomic_load(tail_word(m->live, page + 1));
	uint64_t half = atomic_load(tail_word(m->live, page + 2));

	if (fallocate(m->area->fd[m->last], mode | FALLOC_FL_KEEP_SIZE,
		      area_length(m->area, m->last) + page * PAGE + PAGE / 2,
		      2 * PAGE))
		return -errno;
	meddler_expect(m, atomic_load(tail_word(m->live, page)) >= stays);
	expect_gone(m, page + 1, whole);
	expect_gone(m, page + 2, half);
	return 0;
}

static inline int meddle_punch(struct meddler *m, unsigned int i)
{
	return zero_some(m, m->turn % (TAIL_PAGES - 2), FALLOC_FL_PUNCH_HOLE);
}

/* Elsewhere.  What it replaces is not a hole. */
static inline int meddle_zero(struct meddler *m, unsigned int i)
{
	unsigned int page = (m->turn + 3) % (TAIL_PAGES - 2);
	off_t whole = area_length(m->area, m->last) + (page + 1) * PAGE;
	int err = zero_some(m, page, FALLOC_FL_ZERO_RANGE);

	if (!err)
		meddler_expect(m, lseek(m->area->fd[m->last], whole,
					SEEK_DATA) == whole);
	return err;
}

/* Of the last page, half is there. */
static inline int resize_tail(struct meddler *m, unsigned int nr)
{
	if (ftruncate(m->area->fd[m->last],
		      area_length(m->area, m->last) + nr * PAGE - PAGE / 2))
		return -errno;
	m->tail_pages = nr;
	return 0;
}

static inline int meddle_truncate(struct meddler *m, unsigned int i)
{
	unsigned int nr = m->turn % (TAIL_PAGES - 1) + 1;
	uint64_t stays = atomic_load(tail_word(m->live, nr - 1)), value;
	int err;

	m->cut_off = atomic_load(tail_word(m->live, nr));
	err = resize_tail(m, nr);
	if (err)
		return err;
	meddler_expect(m, atomic_load(tail_word(m->live, nr - 1)) >= stays);
	meddler_expect(m, !try_load(tail_word(m->live, nr), &value));
	meddler_expect(m, pread(m->area->fd[m->last], &value, sizeof(value),
				area_length(m->area, m->last) + nr * PAGE) == 0);
	return 0;
}

static inline int meddle_extend(struct meddler *m, unsigned int i)
{
	unsigned int nr = m->tail_pages;
	int err = resize_tail(m, TAIL_PAGES);

	if (!err)
		expect_gone(m, nr, m->cut_off);
	return err;
}

/* Fills holes, adds the other half page, and leaves the rest alone. */
static inline int meddle_fill(struct meddler *m, unsigned int i)
{
	size_t start = area_length(m->area, m->last), length = TAIL_PAGES * PAGE;
	int fd = m->area->fd[m->last];
	uint64_t before[TAIL_PAGES];

	for (i = 0; i < TAIL_PAGES; i++)
		before[i] = atomic_load(tail_word(m->live, i));
	if (fallocate(fd, 0, start, length))
		return -errno;
	for (i = 0; i < TAIL_PAGES; i++)
		meddler_expect(m, atomic_load(tail_word(m->live, i)) >= before[i]);
	meddler_expect(m, lseek(fd, start, SEEK_HOLE) == start + length);
	return 0;
}

/*
 * In this order: between truncate and extend there is less of the tail, and diff
 * sees that what was deduped is shared.
 */
static const struct {
	const char *name;
	int (*step)(struct meddler *m, unsigned int i);
} meddler_steps[MEDDLER_STEPS] = {
	{ "clone",				meddle_clone },
	{ "restore of versions",		meddle_versions },
	{ "dedupe after unshare",		meddle_dedupe },
	{ "diff",				meddle_diff },
	{ "punch",				meddle_punch },
	{ "zero",				meddle_zero },
	{ "truncate",				meddle_truncate },
	{ "dedupe of neighbours",		meddle_neighbours },
	{ "restore of versions, tail cut off",	meddle_versions },
	{ "restore of the copy",		meddle_restore },
	{ "extend",				meddle_extend },
	{ "fill",				meddle_fill },
};

static inline bool meddler_init(struct meddler *m, const struct area *area,
				struct meddled *meddled)
{
	*m = (struct meddler) {
		.area = area,
		.meddled = meddled,
		.last = area->nr - 1,
		.tail_pages = TAIL_PAGES,
	};
	if (area_snapshot(area, COWMEM_WRITABLE, &m->copy))
		return false;
	m->live = area_map(area, PROT_READ);
	m->mine = area_map(&m->copy, RW);
	return m->live != MAP_FAILED && m->mine != MAP_FAILED;
}

static inline void meddler_exit(struct meddler *m)
{
	munmap(m->live, MAP_SIZE);
	munmap(m->mine, MAP_SIZE);
	area_close(&m->copy);
}

static inline void meddler_turn(struct meddler *m)
{
	for (m->step = 0; m->step < MEDDLER_STEPS; m->step++) {
		int err = meddler_steps[m->step].step(m, m->turn % m->area->nr);

		if (err)
			m->meddled->steps[m->step].error = err;
		else
			m->meddled->steps[m->step].done++;
	}
	m->turn++;
}

#endif
