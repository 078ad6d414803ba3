// SPDX-License-Identifier: GPL-2.0
/*
 * Two buffers, each the source of the other at the same time: no deadlock, and
 * never a page that is not from one of the two.
 *
 * Threads go on for a number of rounds, and note what they find wrong.
 */
#include <pthread.h>

#include <linux/fs.h>

#include "common.h"
#include "harness.h"
#include "util.h"

#define NR		16UL
/* The buffers lie in several nodes of the index. */
#define STRIDE		(40 * PAGE)
#define SIZE		(NR * STRIDE)
#define ROUNDS		300

/* Two live buffers, and what each was made with, frozen. */
struct pair {
	int fd[2];
	int origin[2];
	char *p[2];
};

/* What page @index of buffer @who is made with, all over. */
static char made_with(int who, unsigned long index)
{
	return 1 + 2 * index + who;
}

static bool write_made_with(int fd, int who, unsigned long index)
{
	char data[PAGE];

	memset(data, made_with(who, index), PAGE);
	return pwrite(fd, data, PAGE, index * STRIDE) == PAGE;
}

static bool pair_create(struct pair *pair)
{
	unsigned long index;
	int who;

	for (who = 0; who < 2; who++) {
		pair->fd[who] = cow_create_mapped(SIZE, "pair", &pair->p[who]);
		if (pair->fd[who] < 0)
			return false;
		for (index = 0; index < NR; index++)
			if (!write_made_with(pair->fd[who], who, index))
				return false;
		pair->origin[who] = cow_snapshot(pair->fd[who], 0);
		if (pair->origin[who] < 0)
			return false;
	}
	return true;
}

static void pair_close(struct pair *pair)
{
	int who;

	for (who = 0; who < 2; who++) {
		munmap(pair->p[who], SIZE);
		close(pair->fd[who]);
		close(pair->origin[who]);
	}
}

enum { FIRST = 1, SECOND = 2, NOBODY_KNOWS = 4 };

/* Whose pages are in it? */
static int made_by(int fd)
{
	int who, makers = 0;
	unsigned long index;
	char data[PAGE];

	for (index = 0; index < NR; index++) {
		if (pread(fd, data, PAGE, index * STRIDE) != PAGE)
			return NOBODY_KNOWS;
		for (who = 0; who < 2; who++)
			if (page_is(data, made_with(who, index)))
				break;
		makers |= FIRST << who;
	}
	return makers;
}

/* A page that neither of the two was made with? */
static bool is_mixture(int fd)
{
	return made_by(fd) & NOBODY_KNOWS;
}

/* The same for the mappings of both, which fault at that. */
static int nr_foreign(const struct pair *pair)
{
	unsigned long index;
	int who, nr = 0;
	char value;

	for (who = 0; who < 2; who++) {
		for (index = 0; index < NR; index++) {
			value = *(volatile char *)(pair->p[who] + index * STRIDE);
			nr += value != made_with(0, index) &&
			      value != made_with(1, index);
		}
	}
	return nr;
}

/*
 * A thread: @play does one round, and says how much was wrong.
 */
struct player {
	struct pair *pair;
	int who;
	int (*play)(struct player *player, int round);
	int (*cross)(int to, int from, int round);
	int wrong;
	pthread_t thread;
};

static void *play_rounds(void *data)
{
	struct player *player = data;
	int round;

	for (round = 0; round < ROUNDS; round++)
		player->wrong += player->play(player, round);
	return NULL;
}

static int play_all(struct player *players, int nr)
{
	int i, wrong = 0;

	for (i = 0; i < nr; i++)
		if (pthread_create(&players[i].thread, NULL, play_rounds,
				   &players[i]))
			exit(1);
	for (i = 0; i < nr; i++) {
		pthread_join(players[i].thread, NULL);
		wrong += players[i].wrong;
	}
	return wrong;
}

/*
 * One kind of call in both directions
 */

/* Some pages in a row, others each round. */
static unsigned long range_first(int round)
{
	return round * 5 % NR;
}

static unsigned long range_nr(int round)
{
	return 1 + round * 7 % (NR - range_first(round));
}

static int cross_restore(int to, int from, int round)
{
	return !!cow_restore(to, from, 0);
}

static int cross_restore_in_place(int to, int from, int round)
{
	return !!cow_restore(to, from, COWMEM_IN_PLACE);
}

static int cross_restore_range(int to, int from, int round)
{
	uint64_t offset = range_first(round) * STRIDE;

	return !!cow_restore_range(to, offset, from, offset,
				   range_nr(round) * STRIDE, 0);
}

static int cross_clone(int to, int from, int round)
{
	return !!ioctl(to, FICLONE, from);
}

static int cross_clone_range(int to, int from, int round)
{
	uint64_t offset = range_first(round) * STRIDE;

	return !!cow_clone_range(to, offset, from, offset,
				 range_nr(round) * STRIDE);
}

static int cross_copy(int to, int from, int round)
{
	off64_t in = 0, out = 0;

	return copy_file_range(from, &in, to, &out, SIZE, 0) != SIZE;
}

/* From the other, and in turn what it was at first, so that there is some to do. */
static int play_cross(struct player *player, int round)
{
	struct pair *pair = player->pair;
	int from = round % 2 ? pair->origin[player->who] :
		   pair->fd[!player->who];

	return player->cross(pair->fd[player->who], from, round) +
	       nr_foreign(pair);
}

/* See both at one moment. */
static int snapshot_both(const struct pair *pair, int snap[2])
{
	struct cowmem_member members[2] = {
		{ .fd = pair->fd[0] }, { .fd = pair->fd[1] },
	};
	int err = cow_snapshot_group(pair->fd[0], 0, members, 2);

	snap[0] = members[0].snapshot_fd;
	snap[1] = members[1].snapshot_fd;
	return err;
}

static int play_watch(struct player *player, int round)
{
	int snap[2], wrong;

	if (snapshot_both(player->pair, snap))
		return 1;
	wrong = is_mixture(snap[0]) + is_mixture(snap[1]);
	close(snap[0]);
	close(snap[1]);
	return wrong;
}

/* It is as a whole what one of the two was made with. */
static int play_watch_whole(struct player *player, int round)
{
	int snap[2], wrong = 0, makers, i;

	if (snapshot_both(player->pair, snap))
		return 1;
	for (i = 0; i < 2; i++) {
		makers = made_by(snap[i]);
		wrong += makers != FIRST && makers != SECOND;
		close(snap[i]);
	}
	return wrong;
}

FIXTURE(crossing)
{
	struct pair pair;
};

FIXTURE_VARIANT(crossing)
{
	uint64_t feature;
	int (*cross)(int to, int from, int round);
	int (*watch)(struct player *player, int round);
};

FIXTURE_VARIANT_ADD(crossing, restore) {
	COWMEM_FEATURE_RESTORE, cross_restore, play_watch_whole
};
FIXTURE_VARIANT_ADD(crossing, restore_in_place) {
	COWMEM_FEATURE_RESTORE | COWMEM_FEATURE_IN_PLACE,
	cross_restore_in_place, play_watch
};
FIXTURE_VARIANT_ADD(crossing, restore_range) {
	COWMEM_FEATURE_RESTORE, cross_restore_range, play_watch
};
FIXTURE_VARIANT_ADD(crossing, clone) {
	COWMEM_FEATURE_CLONE, cross_clone, play_watch_whole
};
FIXTURE_VARIANT_ADD(crossing, clone_range) {
	COWMEM_FEATURE_CLONE, cross_clone_range, play_watch
};
FIXTURE_VARIANT_ADD(crossing, copy_file_range) {
	COWMEM_FEATURE_CLONE, cross_copy, play_watch
};

FIXTURE_SETUP(crossing)
{
	NEED_BITS(variant->feature | COWMEM_FEATURE_GROUP);
	ASSERT_TRUE(pair_create(&self->pair));
}

FIXTURE_TEARDOWN(crossing)
{
	pair_close(&self->pair);
}

TEST_F_TIMEOUT(crossing, calls_end_and_mix_no_page, 300)
{
	struct pair *pair = &self->pair;
	struct player players[] = {
		{ pair, 0, play_cross, variant->cross },
		{ pair, 1, play_cross, variant->cross },
		{ pair, 0, variant->watch },
	};

	EXPECT_EQ(0, play_all(players, ARRAY_SIZE(players)));
	EXPECT_FALSE(is_mixture(pair->fd[0]));
	EXPECT_FALSE(is_mixture(pair->fd[1]));
	EXPECT_EQ(FIRST, made_by(pair->origin[0]));
	EXPECT_EQ(SECOND, made_by(pair->origin[1]));
}

/*
 * FIDEDUPERANGE, and calls of several kinds
 */

FIXTURE(pair)
{
	struct pair pair;
};

FIXTURE_SETUP(pair)
{
	NEED_BITS(COWMEM_FEATURE_RESTORE | COWMEM_FEATURE_CLONE |
		  COWMEM_FEATURE_DEDUPE | COWMEM_FEATURE_GROUP |
		  COWMEM_FEATURE_DIFF);
	ASSERT_TRUE(pair_create(&self->pair));
}

FIXTURE_TEARDOWN(pair)
{
	pair_close(&self->pair);
}

/* Note which pages a DIFF lists.  False: it fails, or they are not in order. */
static bool list_differences(int fd, int other, bool listed[NR])
{
	struct cowmem_extent extents[3];
	uint64_t cursor = 0, at = 0;
	unsigned long index;
	int nr, i;

	memset(listed, 0, NR * sizeof(listed[0]));
	do {
		nr = cow_diff(fd, other, extents, ARRAY_SIZE(extents), &cursor);
		for (i = 0; i < nr; i++) {
			if (extents[i].offset < at || !extents[i].length)
				return false;
			at = extents[i].offset + extents[i].length;
			for (index = 0; index < NR; index++)
				listed[index] |= index * STRIDE >= extents[i].offset &&
						 index * STRIDE < at;
		}
	} while (nr >= 0 && cursor != COWMEM_DIFF_END);
	return nr >= 0 && at <= SIZE;
}

/* Pages that differ, but are not listed. */
static int nr_missed(int fd, int other)
{
	unsigned long index;
	bool listed[NR];
	int nr = 0;

	if (!list_differences(fd, other, listed))
		return NR;
	for (index = 0; index < NR; index++)
		nr += !listed[index] && read_byte(fd, index * STRIDE) !=
					read_byte(other, index * STRIDE);
	return nr;
}

/*
 * All pages but the last are the same in both, and are written again and again
 * with what is there already, so that there is some to do.
 */

#define LAST		(NR - 1)

static int play_dedupe(struct player *player, int round)
{
	int to = player->pair->fd[player->who];
	int from = player->pair->fd[!player->who];
	int wrong;

	wrong = cow_dedupe(to, 0, from, 0, LAST * STRIDE) != LAST * STRIDE;
	wrong += cow_dedupe(to, LAST * STRIDE, from, LAST * STRIDE, STRIDE) !=
		 FILE_DEDUPE_RANGE_DIFFERS;
	wrong += !write_made_with(to, 0, round % LAST);
	return wrong + nr_foreign(player->pair);
}

TEST_F_TIMEOUT(pair, deduplicated_in_both_directions_stay_the_same, 300)
{
	struct pair *pair = &self->pair;
	struct player players[] = {
		{ pair, 0, play_dedupe }, { pair, 1, play_dedupe },
		{ pair, 0, play_watch },
	};
	unsigned long index;
	bool listed[NR];

	for (index = 0; index < LAST; index++)
		ASSERT_TRUE(write_made_with(pair->fd[1], 0, index));
	EXPECT_EQ(0, play_all(players, ARRAY_SIZE(players)));
	EXPECT_EQ(FIRST, made_by(pair->fd[0]));
	EXPECT_EQ(FIRST | SECOND, made_by(pair->fd[1]));
	/* With nobody about, what is the same is shared, and nothing else. */
	EXPECT_EQ(LAST * STRIDE, cow_dedupe(pair->fd[0], 0, pair->fd[1], 0,
					    LAST * STRIDE));
	ASSERT_TRUE(list_differences(pair->fd[0], pair->fd[1], listed));
	for (index = 0; index < NR; index++)
		EXPECT_EQ(index == LAST, listed[index]);
}

/*
 * All of them: the second buffer is restored from the first, of which ranges are
 * cloned from the second, while both are compared, and snapshotted in groups, of
 * two and of more.
 */

static int play_restore(struct player *player, int round)
{
	struct pair *pair = player->pair;

	return cross_restore(pair->fd[1],
			     round % 2 ? pair->origin[1] : pair->fd[0], round);
}

static int play_clone_range(struct player *player, int round)
{
	struct pair *pair = player->pair;

	return cross_clone_range(pair->fd[0],
				 round % 2 ? pair->origin[0] : pair->fd[1],
				 round) + nr_foreign(pair);
}

static int play_diff(struct player *player, int round)
{
	struct pair *pair = player->pair;
	bool listed[NR];

	return !list_differences(pair->fd[round % 2], pair->fd[!(round % 2)],
				 listed);
}

static int play_group(struct player *player, int round)
{
	struct cowmem_member members[4] = {
		{ .fd = player->pair->fd[0] }, { .fd = player->pair->fd[1] },
		{ .fd = player->pair->origin[0] },
		{ .fd = player->pair->origin[1] },
	};
	unsigned int nr = round % 2 ? 2 : 4, i;
	int wrong = 0;

	if (cow_snapshot_group(members[0].fd, 0, members, nr))
		return 1;
	for (i = 0; i < nr; i++)
		wrong += is_mixture(members[i].snapshot_fd);
	wrong += nr_missed(members[0].snapshot_fd, members[1].snapshot_fd);
	for (i = 0; i < nr; i++)
		close(members[i].snapshot_fd);
	return wrong;
}

TEST_F_TIMEOUT(pair, restored_cloned_compared_and_snapshotted_at_once_mixes_no_page, 300)
{
	struct pair *pair = &self->pair;
	struct player players[] = {
		{ pair, 0, play_restore }, { pair, 0, play_clone_range },
		{ pair, 0, play_diff }, { pair, 0, play_group },
	};

	EXPECT_EQ(0, play_all(players, ARRAY_SIZE(players)));
	EXPECT_FALSE(is_mixture(pair->fd[0]));
	EXPECT_FALSE(is_mixture(pair->fd[1]));
	EXPECT_EQ(FIRST, made_by(pair->origin[0]));
	EXPECT_EQ(SECOND, made_by(pair->origin[1]));
}

TEST_HARNESS_MAIN
