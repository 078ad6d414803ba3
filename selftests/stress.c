// SPDX-License-Identifier: GPL-2.0
/*
 * Races, under load: writers never pause while snapshots are taken, checked,
 * kept, checked again and closed.  What must hold:
 *
 *	cut		of each set of words, and of the tail, a snapshot shows
 *			what there can be at one moment: see area.h.
 *	immutable	a snapshot reads the same when it is closed as when it
 *			was taken.
 *	no lost store	a writer finds in its page what it stored last.
 *	no stale page	what a mapping shows is not older than what read()
 *			returned before, nor than the next word was before.
 *	held		a page of a closed snapshot that a pipe holds stays as it
 *			was.
 *	isolation	a clone never shows what was stored to its origin later,
 *			nor the other way round.
 *
 * All of it also over a group of buffers, which are snapshotted at one moment,
 * and with a meddler beside the writers, who clones, restores, compares, dedupes,
 * unshares, punches and resizes: see meddler.h.
 *
 * The windows are a few instructions wide: the build of the module with race
 * amplifiers opens them.  COWMEM_STRESS_SNAPSHOTS sets how long it takes.
 */
#include <pthread.h>
#include <sys/resource.h>

#include "common.h"
#include "harness.h"
#include "meddler.h"

#define KEPT		6
/* Each buffer, in both directions. */
#define MEDDLER_TURNS	(2 * MAX_BUFFERS)

struct shared {
	atomic_bool stop;
	atomic_ulong rounds[WRITERS];
	atomic_ulong lost;
	atomic_ulong stale;
	struct meddled meddled;
};

static_assert(sizeof(struct shared) <= PAGE, "shared memory");

static unsigned long snapshots_wanted(unsigned long standard)
{
	const char *text = getenv("COWMEM_STRESS_SNAPSHOTS");

	return text ? strtoul(text, NULL, 0) : standard;
}

static void write_own(char *map, struct shared *shared, unsigned int w,
		      uint64_t n)
{
	unsigned int first = w * OWN_WORDS;

	for (unsigned int i = first; i < first + OWN_WORDS; i++) {
		if (atomic_load(word(map, i)) != n - 1)
			shared->lost++;
		atomic_store(word(map, i), n);
	}
}

static void write_chain(char *map, unsigned int w, uint64_t n)
{
	for (unsigned int k = w; k < CHAIN_WORDS; k += WRITERS)
		atomic_store(word(map, CHAIN + k),
			     k ? atomic_load(word(map, CHAIN + k - 1)) : n);
}

/* Until a newer version is restored. */
static void write_versions(char *map, struct shared *shared)
{
	uint64_t n = atomic_load(word(map, VERSIONS)) + 1;

	for (unsigned int i = VERSIONS; i < NR_WORDS; i++) {
		uint64_t seen = n - 1;

		if (atomic_compare_exchange_strong(word(map, i), &seen, n))
			continue;
		if (seen >> VERSION_SHIFT <= n >> VERSION_SHIFT)
			shared->lost++;
		return;
	}
}

/* Where it was written TAIL_PAGES ago, if it has not been punched or cut off. */
static void write_tail(char *map, struct shared *shared, uint64_t n)
{
	_Atomic uint64_t *here = tail_word(map, n % TAIL_PAGES);
	uint64_t seen;

	if (try_load(here, &seen) && seen && seen + TAIL_PAGES != n)
		shared->lost++;
	try_store(here, n);
}

static void writer(const struct area *area, struct shared *shared,
		   unsigned int w)
{
	char *map = area_map(area, RW);

	for (uint64_t n = 1; !shared->stop; n++) {
		write_own(map, shared, w, n);
		write_chain(map, w, n);
		if (w)
			write_tail(map, shared, n);
		else
			write_versions(map, shared);
		shared->rounds[w] = n;
	}
	munmap(map, MAP_SIZE);
}

/*
 * What read() returns of a word.  It may have a part of what a restore brings,
 * byte by byte: only the version itself counts.
 */
static uint64_t pread_word(const struct area *area, unsigned int i)
{
	size_t offset = word_offset(i);
	int fd = area_find(area, &offset);
	uint64_t value = read_word(fd, offset);

	if (i >= VERSIONS && value != UINT64_MAX)
		value = value >> VERSION_SHIFT << VERSION_SHIFT;
	return value;
}

/*
 * Keeps pages mapped read-only, and checks what it sees against read() and
 * against the next word, which is never ahead and was seen before.
 */
static void reader(const struct area *area, struct shared *shared)
{
	char *map = area_map(area, PROT_READ);
	uint64_t least, seen = 0;
	unsigned int i = 0;

	while (!shared->stop) {
		if (i % 8 == 0)
			usleep(200);
		i = (i ?: NR_WORDS) - 1;
		least = pread_word(area, i);
		if (i + 1 < NR_WORDS && same_set(i, i + 1) && seen > least)
			least = seen;
		seen = atomic_load(word(map, i));
		if (seen < least)
			shared->stale++;
	}
	munmap(map, MAP_SIZE);
}

/* A few turns, even if they take longer than the snapshots. */
static void meddler(const struct area *area, struct shared *shared)
{
	struct meddler m;

	if (!meddler_init(&m, area, &shared->meddled))
		return;
	while (!shared->stop || m.turn < MEDDLER_TURNS)
		meddler_turn(&m);
	meddler_exit(&m);
}

static uint64_t checksum(char *map, unsigned int tail_pages)
{
	uint64_t sum = tail_pages;

	for (unsigned int i = 0; i < NR_WORDS; i++)
		sum = sum * 1099511628211ULL + *word(map, i);
	for (unsigned int i = 0; i < tail_pages; i++)
		sum = sum * 1099511628211ULL + *tail_word(map, i);
	return sum;
}

struct kept {
	struct area area;
	char *map;
	uint64_t sum;
};

struct counts {
	unsigned long snapshots;
	struct wrong wrong;
	unsigned long changed;
	unsigned long held;
	unsigned long failed;
};

static void keep(struct kept *kept, struct counts *counts)
{
	unsigned int tail_pages = area_tail_pages(&kept->area);

	kept->map = area_map(&kept->area, PROT_READ);
	if (kept->map == MAP_FAILED) {
		counts->failed++;
		area_close(&kept->area);
		kept->map = NULL;
		return;
	}
	counts->snapshots++;
	check_words(kept->map, 0, NR_WORDS, &counts->wrong);
	check_tail(kept->map, tail_pages, &counts->wrong);
	kept->sum = checksum(kept->map, tail_pages);
}

static void let_go(struct kept *kept, struct counts *counts)
{
	if (!kept->map)
		return;
	if (checksum(kept->map, area_tail_pages(&kept->area)) != kept->sum)
		counts->changed++;
	munmap(kept->map, MAP_SIZE);
	area_close(&kept->area);
	kept->map = NULL;
}

/*
 * A pipe holds a page of a snapshot when that is closed: the origin becomes the
 * last owner, and writes.
 */
static void hold_page(const struct area *area, char *live,
		      struct counts *counts, int pipefd[2], uint64_t n)
{
	struct iovec iov = { .iov_len = sizeof(n) };
	size_t offset = HELD_OFFSET;
	uint64_t seen = 0;
	int snap, fd = area_find(area, &offset);

	atomic_store(held_word(live), n);
	snap = cow_snapshot(fd, 0);
	iov.iov_base = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, snap, offset);
	if (snap < 0 || iov.iov_base == MAP_FAILED ||
	    vmsplice(pipefd[1], &iov, 1, 0) != sizeof(n)) {
		counts->failed++;
		return;
	}
	munmap(iov.iov_base, PAGE);
	close(snap);
	atomic_store(held_word(live), n + 1);
	if (read(pipefd[0], &seen, sizeof(seen)) != sizeof(seen))
		counts->failed++;
	if (seen != n)
		counts->held++;
}

static bool all_is_well(const struct counts *counts)
{
	const struct wrong *wrong = &counts->wrong;

	return !wrong->order && !wrong->chain && !wrong->versions &&
	       !wrong->tail && !counts->changed && !counts->held &&
	       !counts->failed;
}

static struct counts take_snapshots(const struct area *area,
				    unsigned long wanted)
{
	char *live = area_map(area, RW);
	struct kept kept[KEPT] = { };
	struct counts counts = { };
	int pipefd[2];

	if (pipe(pipefd) || live == MAP_FAILED)
		counts.failed++;
	/* There are more busy threads than CPUs: do not wait for a turn. */
	setpriority(PRIO_PROCESS, 0, -10);
	/* What is wrong once is enough. */
	for (unsigned long i = 0; i < wanted && all_is_well(&counts); i++) {
		struct kept *next = &kept[i % KEPT];

		let_go(next, &counts);
		if (area_snapshot(area, i % 4 ? 0 : COWMEM_WRITABLE, &next->area))
			counts.failed++;
		else
			keep(next, &counts);
		hold_page(area, live, &counts, pipefd, i);
		/* Others get a turn: all of them on a CPU, in the middle of it. */
		usleep(i % 8 * 100);
	}
	for (unsigned int i = 0; i < KEPT; i++)
		let_go(&kept[i], &counts);
	munmap(live, MAP_SIZE);
	pipe_close(pipefd);
	return counts;
}

struct thread_arg {
	const struct area *area;
	struct shared *shared;
	unsigned int w;
};

static void *run_thread(void *data)
{
	struct thread_arg *arg = data;

	if (arg->w < WRITERS)
		writer(arg->area, arg->shared, arg->w);
	else if (arg->w == WRITERS)
		reader(arg->area, arg->shared);
	else
		meddler(arg->area, arg->shared);
	return NULL;
}

#define MAX_THREADS	(WRITERS + 2)

FIXTURE(cut) {
	struct area area;
	struct shared *shared;
	unsigned int nr_threads;
	struct thread_arg args[MAX_THREADS];
	pthread_t threads[MAX_THREADS];
	pid_t children[MAX_THREADS];
};

FIXTURE_VARIANT(cut) {
	bool processes;
	bool meddler;
	unsigned int nr_buffers;
};

FIXTURE_VARIANT_ADD(cut, threads) {
	.nr_buffers = 1,
};

FIXTURE_VARIANT_ADD(cut, processes) {
	.processes = true,
	.nr_buffers = 1,
};

FIXTURE_VARIANT_ADD(cut, group) {
	.nr_buffers = MAX_BUFFERS,
};

FIXTURE_VARIANT_ADD(cut, meddler) {
	.meddler = true,
	.nr_buffers = 1,
};

FIXTURE_VARIANT_ADD(cut, group_and_meddler) {
	.processes = true,
	.meddler = true,
	.nr_buffers = MAX_BUFFERS,
};

FIXTURE_SETUP(cut)
{
	self->nr_threads = MAX_THREADS - !variant->meddler;
	ASSERT_EQ(catch_sigbus(), 0);
	ASSERT_TRUE(area_create(&self->area, variant->nr_buffers));
	self->shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(self->shared, MAP_FAILED);
	for (unsigned int i = 0; i < self->nr_threads; i++) {
		self->args[i] = (struct thread_arg){ &self->area, self->shared, i };
		if (!variant->processes) {
			ASSERT_EQ(pthread_create(&self->threads[i], NULL, run_thread,
						 &self->args[i]), 0);
			continue;
		}
		self->children[i] = fork();
		ASSERT_GE(self->children[i], 0);
		if (!self->children[i]) {
			run_thread(&self->args[i]);
			_exit(0);
		}
	}
}

FIXTURE_TEARDOWN(cut)
{
	area_close(&self->area);
}

static void expect_meddled(struct __test_metadata *_metadata,
			   struct meddled *meddled)
{
	for (unsigned int i = 0; i < MEDDLER_STEPS; i++) {
		const char *name = meddler_steps[i].name;

		EXPECT_GT(meddled->steps[i].done, 0) TH_LOG("%s", name);
		EXPECT_EQ(meddled->steps[i].error, 0) TH_LOG("%s", name);
		EXPECT_EQ(meddled->steps[i].wrong, 0) TH_LOG("%s", name);
	}
	TH_LOG("%lu times meddled, %lu idle and %lu busy pages deduped",
	       meddled->steps[0].done, meddled->idle_same, meddled->busy_same);
	EXPECT_GT(meddled->idle_same, 0);
	EXPECT_GT(meddled->busy_same, 0);
}

TEST_F_TIMEOUT(cut, snapshots_are_consistent_and_immutable, 900)
{
	struct counts counts;
	int status;

	counts = take_snapshots(&self->area, snapshots_wanted(200));
	self->shared->stop = true;
	for (unsigned int i = 0; i < self->nr_threads; i++) {
		if (!variant->processes) {
			pthread_join(self->threads[i], NULL);
			continue;
		}
		waitpid(self->children[i], &status, 0);
		EXPECT_EQ(status, 0);
	}
	TH_LOG("%lu snapshots, %lu and %lu rounds", counts.snapshots,
	       self->shared->rounds[0], self->shared->rounds[1]);
	EXPECT_EQ(counts.failed, 0);
	EXPECT_EQ(counts.wrong.order, 0);
	EXPECT_EQ(counts.wrong.chain, 0);
	EXPECT_EQ(counts.wrong.versions, 0);
	EXPECT_EQ(counts.wrong.tail, 0);
	EXPECT_EQ(counts.changed, 0);
	EXPECT_EQ(counts.held, 0);
	EXPECT_EQ(self->shared->lost, 0);
	EXPECT_EQ(self->shared->stale, 0);
	for (unsigned int w = 0; w < WRITERS; w++)
		EXPECT_GT(self->shared->rounds[w], 1);
	if (variant->meddler)
		expect_meddled(_metadata, &self->shared->meddled);
}

/*
 * Origin and clone write the same page at the same time: each time one of them
 * becomes the last owner of the old page while the other still has it mapped.
 * Each has two mappings: one to write, and one that has the old page mapped.
 * In every other round the first has it mapped too (and the fault, which then
 * begins with a read-only PTE, holds a reference to the old page meanwhile).
 */
#define RACE_PAGES	32
#define RACE_SIZE	(RACE_PAGES * PAGE)

struct race_side {
	int fd;
	char *map;
	char *seen;
};

struct race {
	struct race_side sides[2];
	pthread_barrier_t barrier;
	uint64_t round;
	atomic_uint at;
	bool stop;
	atomic_ulong mixed;
	unsigned long rounds;
};

enum { ORIGIN, CLONE };

static uint64_t mark(uint64_t round, unsigned int who)
{
	return round * 2 + who;
}

/* Both at the same page, but not always at the same instruction. */
static void keep_step(struct race *race, unsigned int page, unsigned int who)
{
	race->at++;
	for (int spin = 0; spin < 20000 && race->at < 2 * (page + 1); spin++)
		;
	if (who == race->round % 2)
		for (volatile unsigned int spin = race->round * 37 % 4000; spin; spin--)
			;
}

static uint64_t race_load(const char *map, unsigned int page)
{
	return atomic_load((_Atomic uint64_t *)(map + page * PAGE));
}

static void race_write(struct race *race, unsigned int who)
{
	struct race_side *mine = &race->sides[who], *other = &race->sides[!who];
	uint64_t value = mark(race->round, who);

	for (unsigned int i = 0; i < RACE_PAGES; i++) {
		keep_step(race, i, who);
		atomic_store((_Atomic uint64_t *)(mine->map + i * PAGE), value);
		/* The other side has the old page mapped, if not a new one. */
		if (race_load(other->seen, i) == value)
			race->mixed++;
	}
}

static void *race_clone(void *data)
{
	struct race *race = data;

	for (;;) {
		pthread_barrier_wait(&race->barrier);
		if (race->stop)
			return NULL;
		race_write(race, CLONE);
		pthread_barrier_wait(&race->barrier);
	}
}

/* @mapped: have the old page mapped where it is written, too. */
static bool race_map(struct race_side *side, bool mapped)
{
	side->map = cow_map(side->fd, RACE_SIZE, RW);
	side->seen = cow_map(side->fd, RACE_SIZE, PROT_READ);
	if (side->map == MAP_FAILED || side->seen == MAP_FAILED)
		return false;
	for (unsigned int i = 0; i < RACE_PAGES; i++) {
		race_load(side->seen, i);
		if (mapped)
			race_load(side->map, i);
	}
	return true;
}

static void race_unmap(struct race_side *side)
{
	munmap(side->map, RACE_SIZE);
	munmap(side->seen, RACE_SIZE);
}

static bool race_round(struct race *race)
{
	race->sides[CLONE].fd = cow_snapshot(race->sides[ORIGIN].fd, COWMEM_WRITABLE);
	for (unsigned int who = ORIGIN; who <= CLONE; who++)
		if (!race_map(&race->sides[who], race->round % 2))
			return false;
	race->at = 0;
	pthread_barrier_wait(&race->barrier);
	race_write(race, ORIGIN);
	pthread_barrier_wait(&race->barrier);
	for (unsigned int who = ORIGIN; who <= CLONE; who++) {
		for (unsigned int i = 0; i < RACE_PAGES; i++)
			if (race_load(race->sides[who].map, i) != mark(race->round, who))
				race->mixed++;
		race_unmap(&race->sides[who]);
	}
	close(race->sides[CLONE].fd);
	return true;
}

FIXTURE(clones) {
	int fd;
};

FIXTURE_SETUP(clones)
{
	self->fd = cow_create(RACE_SIZE, "race");
	ASSERT_GE(self->fd, 0);
}

FIXTURE_TEARDOWN(clones)
{
	close(self->fd);
}

TEST_F_TIMEOUT(clones, are_isolated_while_both_write, 900)
{
	struct race race = { .rounds = snapshots_wanted(200) };
	pthread_t writer;

	race.sides[ORIGIN].fd = self->fd;
	pthread_barrier_init(&race.barrier, NULL, 2);
	pthread_create(&writer, NULL, race_clone, &race);
	/* The first has holes in place of old pages. */
	for (race.round = 1; race.round <= race.rounds && !race.mixed; race.round++)
		ASSERT_TRUE(race_round(&race));
	race.stop = true;
	pthread_barrier_wait(&race.barrier);
	pthread_join(writer, NULL);
	TH_LOG("%lu rounds", race.rounds);
	EXPECT_EQ(race.mixed, 0);
}

TEST_HARNESS_MAIN
