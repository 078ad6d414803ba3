// SPDX-License-Identifier: GPL-2.0
/*
 * Races, under load: writers never pause while snapshots are taken, checked,
 * kept, checked again and closed.  What must hold:
 *
 *	program order	writer w stores n to its pages 0, 1, 2, ... in turn, then
 *			n + 1.  Any cut shows n...n, n-1...n-1.
 *	causal chain	page k of the chain is copied from page k - 1, by another
 *			writer each.  In any cut no page is ahead of the one
 *			before it.
 *	immutable	a snapshot reads the same when it is closed as when it
 *			was taken.
 *	no lost store	a writer finds in its page what it stored last.
 *	no stale page	what a mapping shows is not older than what read()
 *			returned before.
 *	held		a page of a closed snapshot that a pipe holds stays as it
 *			was.
 *	isolation	a clone never shows what was stored to its origin later,
 *			nor the other way round.
 *
 * All of it also over a group of buffers, which are snapshotted at one moment,
 * and with a meddler beside the writers, who restores another buffer from
 * theirs, compares, clones, dedupes, unshares, punches and resizes.
 *
 * The windows are a few instructions wide: the build of the module with race
 * amplifiers opens them.  COWMEM_STRESS_SNAPSHOTS sets how long it takes.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/uio.h>

#include "common.h"
#include "kselftest_harness.h"

#define WRITERS		2
#define OWN_PAGES	24
#define CHAIN_PAGES	16
/* Apart, so that they lie in several leaves of the index. */
#define STRIDE		7
#define NR_PAGES	((WRITERS * OWN_PAGES + CHAIN_PAGES) * STRIDE)
/* One more, which only the thread that takes the snapshots writes. */
#define HELD_OFFSET	(NR_PAGES * PAGE)
#define SIZE		((NR_PAGES + 1) * PAGE)
#define KEPT		6

/* The last buffer of a group goes on behind; only the meddler uses that. */
#define SPARE_PAGES	64
#define MAX_BUFFERS	3

/* Buffers whose mappings, one behind the other, are one area of SIZE bytes. */
struct area {
	unsigned int nr;
	int fd[MAX_BUFFERS];
};

static size_t area_start(const struct area *area, unsigned int i)
{
	return i * (SIZE / PAGE) / area->nr * PAGE;
}

static size_t area_length(const struct area *area, unsigned int i)
{
	return area_start(area, i + 1) - area_start(area, i);
}

static char *area_map(const struct area *area, int prot)
{
	char *map = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (unsigned int i = 0; map != MAP_FAILED && i < area->nr; i++)
		if (mmap(map + area_start(area, i), area_length(area, i), prot,
			 MAP_SHARED | MAP_FIXED, area->fd[i], 0) == MAP_FAILED)
			return MAP_FAILED;
	return map;
}

static void area_close(const struct area *area)
{
	for (unsigned int i = 0; i < area->nr; i++)
		close(area->fd[i]);
}

/* The buffer that has an offset of the area, and where. */
static int area_find(const struct area *area, size_t *offset)
{
	unsigned int i = area->nr - 1;

	while (area_start(area, i) > *offset)
		i--;
	*offset -= area_start(area, i);
	return area->fd[i];
}

static int area_snapshot(const struct area *area, uint32_t flags,
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

struct shared {
	atomic_bool stop;
	atomic_ulong rounds[WRITERS];
	atomic_ulong lost;
	atomic_ulong stale;
	atomic_ulong meddled;
	atomic_ulong torn;	/* what the meddler saw */
};

static unsigned long snapshots_wanted(unsigned long standard)
{
	const char *text = getenv("COWMEM_STRESS_SNAPSHOTS");

	return text ? strtoul(text, NULL, 0) : standard;
}

static _Atomic uint64_t *word(char *map, unsigned int page)
{
	return (_Atomic uint64_t *)(map + page * STRIDE * PAGE);
}

static _Atomic uint64_t *own_word(char *map, unsigned int w, unsigned int i)
{
	return word(map, w * OWN_PAGES + i);
}

static _Atomic uint64_t *chain_word(char *map, unsigned int k)
{
	return word(map, WRITERS * OWN_PAGES + k);
}

static _Atomic uint64_t *held_word(char *map)
{
	return (_Atomic uint64_t *)(map + HELD_OFFSET);
}

static void write_own(char *map, struct shared *shared, unsigned int w,
		      uint64_t n)
{
	for (unsigned int i = 0; i < OWN_PAGES; i++) {
		if (atomic_load(own_word(map, w, i)) != n - 1)
			shared->lost++;
		atomic_store(own_word(map, w, i), n);
	}
}

static void write_chain(char *map, unsigned int w, uint64_t n)
{
	for (unsigned int k = w; k < CHAIN_PAGES; k += WRITERS)
		atomic_store(chain_word(map, k),
			     k ? atomic_load(chain_word(map, k - 1)) : n);
}

static void writer(const struct area *area, struct shared *shared,
		   unsigned int w)
{
	char *map = area_map(area, PROT_READ | PROT_WRITE);

	for (uint64_t n = 1; !shared->stop; n++) {
		write_own(map, shared, w, n);
		write_chain(map, w, n);
		shared->rounds[w] = n;
	}
	munmap(map, SIZE);
}

/* Keeps pages mapped read-only, and checks what it sees against read(). */
static void reader(const struct area *area, struct shared *shared)
{
	const char *map = area_map(area, PROT_READ);
	unsigned int page = 0;
	uint64_t value;

	while (!shared->stop) {
		size_t offset;
		int fd;

		if (page % 8 == 0)
			usleep(200);
		page = (page + 1) % (WRITERS * OWN_PAGES + CHAIN_PAGES);
		offset = page * STRIDE * PAGE;
		fd = area_find(area, &offset);
		if (pread(fd, &value, sizeof(value), offset) != sizeof(value))
			shared->stale++;
		else if (atomic_load(word((char *)map, page)) < value)
			shared->stale++;
	}
	munmap((void *)map, SIZE);
}

static unsigned int order_violations(char *map)
{
	unsigned int bad = 0;

	for (unsigned int w = 0; w < WRITERS; w++) {
		uint64_t first = *own_word(map, w, 0);

		for (unsigned int i = 1; i < OWN_PAGES; i++) {
			uint64_t here = *own_word(map, w, i);

			if (here > *own_word(map, w, i - 1) || here + 1 < first)
				bad++;
		}
	}
	return bad;
}

static unsigned int chain_violations(char *map)
{
	unsigned int bad = 0;

	for (unsigned int k = 1; k < CHAIN_PAGES; k++)
		if (*chain_word(map, k) > *chain_word(map, k - 1))
			bad++;
	return bad;
}

static uint64_t checksum(char *map)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < WRITERS * OWN_PAGES + CHAIN_PAGES; i++)
		sum = sum * 1099511628211ULL + *word(map, i);
	return sum;
}

/*
 * One buffer and its copy, which shares with it what they have in common.  The
 * spare pages are not part of the area; all else may be done to them.
 */
static void meddle(int fd, int copy, size_t length, unsigned int what)
{
	struct cowmem_extent extents[16];
	uint64_t cursor = 0;

	switch (what % 8) {
	case 0:
		cow_clone_range(copy, PAGE, fd, PAGE, length - PAGE);
		break;
	case 1:
		while (cow_diff(fd, copy, extents, 16, &cursor) > 0 && cursor != COWMEM_DIFF_END)
			;
		break;
	case 2:
		cow_dedupe(fd, 0, copy, 0, length);
		break;
	case 3:
		cow_dedupe(copy, 0, fd, 0, length);
		break;
	case 4:
		fallocate(fd, FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE, 0, length);
		break;
	case 5:
		fallocate(fd, 0, length, SPARE_PAGES * PAGE);
		break;
	case 6:
		fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  length + PAGE / 2, SPARE_PAGES / 2 * PAGE);
		break;
	case 7:
		ftruncate(fd, length + what / 8 % SPARE_PAGES * PAGE);
		break;
	}
}

static void meddler(const struct area *area, struct shared *shared)
{
	struct area copy = { .nr = area->nr };
	unsigned int what = 0;
	char *map;

	if (area_snapshot(area, COWMEM_WRITABLE, &copy))
		shared->torn++;
	map = area_map(&copy, PROT_READ | PROT_WRITE);
	while (!shared->stop) {
		unsigned int i = what++ % area->nr;

		meddle(area->fd[i], copy.fd[i], area_length(area, i), what / area->nr);
		shared->meddled++;
		if (what % 4)
			continue;
		/* One buffer as a whole is restored at one moment. */
		if (cow_restore(copy.fd[i], area->fd[i], 0))
			shared->torn++;
		if (area->nr == 1)
			shared->torn += order_violations(map) + chain_violations(map);
	}
	munmap(map, SIZE);
	area_close(&copy);
}

struct kept {
	struct area area;
	char *map;
	uint64_t sum;
};

struct counts {
	unsigned long snapshots;
	unsigned long order;
	unsigned long chain;
	unsigned long changed;
	unsigned long held;
	unsigned long failed;
};

static void keep(struct kept *kept, struct counts *counts)
{
	kept->map = area_map(&kept->area, PROT_READ);
	if (kept->map == MAP_FAILED) {
		counts->failed++;
		area_close(&kept->area);
		kept->map = NULL;
		return;
	}
	counts->snapshots++;
	counts->order += order_violations(kept->map);
	counts->chain += chain_violations(kept->map);
	kept->sum = checksum(kept->map);
}

static void let_go(struct kept *kept, struct counts *counts)
{
	if (!kept->map)
		return;
	if (checksum(kept->map) != kept->sum)
		counts->changed++;
	munmap(kept->map, SIZE);
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

static struct counts take_snapshots(const struct area *area,
				    unsigned long wanted)
{
	char *live = area_map(area, PROT_READ | PROT_WRITE);
	struct kept kept[KEPT] = { };
	struct counts counts = { };
	int pipefd[2];

	if (pipe(pipefd) || live == MAP_FAILED)
		counts.failed++;
	/* There are more busy threads than CPUs: do not wait for a turn. */
	setpriority(PRIO_PROCESS, 0, -10);
	for (unsigned long i = 0; i < wanted; i++) {
		struct kept *next = &kept[i % KEPT];

		let_go(next, &counts);
		if (area_snapshot(area, i % 4 ? 0 : COWMEM_WRITABLE, &next->area))
			counts.failed++;
		else
			keep(next, &counts);
		hold_page(area, live, &counts, pipefd, i);
		/* Enough is known. */
		if (counts.order || counts.chain || counts.changed ||
		    counts.held || counts.failed)
			break;
		/* Others get a turn: all of them on a CPU, in the middle of it. */
		usleep(i % 8 * 100);
	}
	for (unsigned int i = 0; i < KEPT; i++)
		let_go(&kept[i], &counts);
	munmap(live, SIZE);
	close(pipefd[0]);
	close(pipefd[1]);
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
	self->area.nr = variant->nr_buffers;
	for (unsigned int i = 0; i < self->area.nr; i++) {
		self->area.fd[i] = cow_create(area_length(&self->area, i), "stress");
		ASSERT_GE(self->area.fd[i], 0);
	}
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
	TH_LOG("%lu snapshots, %lu and %lu rounds, %lu times meddled",
	       counts.snapshots, self->shared->rounds[0],
	       self->shared->rounds[1], self->shared->meddled);
	EXPECT_EQ(counts.failed, 0);
	EXPECT_EQ(counts.order, 0);
	EXPECT_EQ(counts.chain, 0);
	EXPECT_EQ(counts.changed, 0);
	EXPECT_EQ(counts.held, 0);
	EXPECT_EQ(self->shared->lost, 0);
	EXPECT_EQ(self->shared->stale, 0);
	EXPECT_EQ(self->shared->torn, 0);
	if (variant->meddler)
		EXPECT_GT(self->shared->meddled, 8);
	for (unsigned int w = 0; w < WRITERS; w++)
		EXPECT_GT(self->shared->rounds[w], 1);
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
	side->map = cow_map(side->fd, RACE_SIZE, PROT_READ | PROT_WRITE);
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
