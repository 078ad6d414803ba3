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

struct shared {
	atomic_bool stop;
	atomic_ulong rounds[WRITERS];
	atomic_ulong lost;
	atomic_ulong stale;
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

static void writer(int fd, struct shared *shared, unsigned int w)
{
	char *map = cow_map(fd, SIZE, PROT_READ | PROT_WRITE);

	for (uint64_t n = 1; !shared->stop; n++) {
		write_own(map, shared, w, n);
		write_chain(map, w, n);
		shared->rounds[w] = n;
	}
	munmap(map, SIZE);
}

/* Keeps pages mapped read-only, and checks what it sees against read(). */
static void reader(int fd, struct shared *shared)
{
	const char *map = cow_map(fd, SIZE, PROT_READ);
	unsigned int page = 0;
	uint64_t value;

	while (!shared->stop) {
		if (page % 8 == 0)
			usleep(200);
		page = (page + 1) % (WRITERS * OWN_PAGES + CHAIN_PAGES);
		if (pread(fd, &value, sizeof(value), page * STRIDE * PAGE) !=
		    sizeof(value))
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

struct kept {
	int fd;
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

static void keep(struct kept *kept, int snap, struct counts *counts)
{
	kept->fd = snap;
	kept->map = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, snap, 0);
	if (kept->map == MAP_FAILED) {
		counts->failed++;
		close(snap);
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
	close(kept->fd);
	kept->map = NULL;
}

/*
 * A pipe holds a page of a snapshot when that is closed: the origin becomes the
 * last owner, and writes.
 */
static void hold_page(int fd, char *live, struct counts *counts, int pipefd[2],
		      uint64_t n)
{
	struct iovec iov = { .iov_len = sizeof(n) };
	uint64_t seen = 0;
	int snap;

	atomic_store(held_word(live), n);
	snap = cow_snapshot(fd, 0);
	iov.iov_base = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, snap, HELD_OFFSET);
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

static struct counts take_snapshots(int fd, unsigned long wanted)
{
	char *live = cow_map(fd, SIZE, PROT_READ | PROT_WRITE);
	struct kept kept[KEPT] = { };
	struct counts counts = { };
	int pipefd[2];

	if (pipe(pipefd) || live == MAP_FAILED)
		counts.failed++;
	/* There are more busy threads than CPUs: do not wait for a turn. */
	setpriority(PRIO_PROCESS, 0, -10);
	for (unsigned long i = 0; i < wanted; i++) {
		int snap = cow_snapshot(fd, i % 4 ? 0 : COWMEM_WRITABLE);

		let_go(&kept[i % KEPT], &counts);
		if (snap < 0)
			counts.failed++;
		else
			keep(&kept[i % KEPT], snap, &counts);
		hold_page(fd, live, &counts, pipefd, i);
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
	int fd;
	struct shared *shared;
	unsigned int w;
};

static void *run_thread(void *data)
{
	struct thread_arg *arg = data;

	if (arg->w < WRITERS)
		writer(arg->fd, arg->shared, arg->w);
	else
		reader(arg->fd, arg->shared);
	return NULL;
}

FIXTURE(cut) {
	int fd;
	struct shared *shared;
	struct thread_arg args[WRITERS + 1];
	pthread_t threads[WRITERS + 1];
	pid_t children[WRITERS + 1];
};

FIXTURE_VARIANT(cut) {
	bool processes;
};

FIXTURE_VARIANT_ADD(cut, threads) {
	.processes = false,
};

FIXTURE_VARIANT_ADD(cut, processes) {
	.processes = true,
};

FIXTURE_SETUP(cut)
{
	self->fd = cow_create(SIZE, "stress");
	ASSERT_GE(self->fd, 0);
	self->shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(self->shared, MAP_FAILED);
	for (unsigned int i = 0; i < WRITERS + 1; i++) {
		self->args[i] = (struct thread_arg){ self->fd, self->shared, i };
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
	close(self->fd);
}

TEST_F_TIMEOUT(cut, snapshots_are_consistent_and_immutable, 900)
{
	struct counts counts;
	int status;

	counts = take_snapshots(self->fd, snapshots_wanted(600));
	self->shared->stop = true;
	for (unsigned int i = 0; i < WRITERS + 1; i++) {
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
	EXPECT_EQ(counts.order, 0);
	EXPECT_EQ(counts.chain, 0);
	EXPECT_EQ(counts.changed, 0);
	EXPECT_EQ(counts.held, 0);
	EXPECT_EQ(self->shared->lost, 0);
	EXPECT_EQ(self->shared->stale, 0);
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
	struct race race = { .rounds = snapshots_wanted(300) };
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
