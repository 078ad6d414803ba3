// SPDX-License-Identifier: GPL-2.0
/*
 * What snapshots cost, beside fork() and MAP_PRIVATE of a memfd doing the same,
 * in turn in the same process: medians, as ratios.  Rows as in the table of
 * README.md.  Prints what it does; on an emulated CPU only ratios mean anything.
 */
#include "bench.h"

/* As long as the parent is kept from running. */
static double time_fork(void)
{
	double start = now();
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	start = now() - start;
	waitpid(pid, NULL, 0);
	return start;
}

static void row_clean(void)
{
	static const size_t sizes[] = { 64 * MIB, GIB, 4 * GIB };
	double first = 0;

	printf("\n1. Snapshot of a populated, mapped buffer, nothing written since the last\n");
	printf("   %-28s %12s %12s %10s\n", "", "snapshot us", "fork us", "ratio");
	for (int i = 0; i < 4; i++) {
		size_t size = i < 3 ? sizes[i] : 16 * GIB;
		size_t stride = i < 3 ? 1 : size / (64 * MIB);
		double snaps[MANY_ROUNDS], forks[ROUNDS], s, f;
		struct memory mem, anon;
		int snap;

		/* One at a time in memory, so that fork() copies only its own. */
		mem = buffer(size);
		touch(&mem, size / stride / PAGE, stride);
		time_snapshot(&mem, &snap);
		close(snap);
		for (int round = 0; round < MANY_ROUNDS; round++) {
			snaps[round] = time_snapshot(&mem, &snap);
			close(snap);
		}
		discard(&mem);
		anon = anonymous(size);
		touch(&anon, size / stride / PAGE, stride);
		for (int round = 0; round < ROUNDS; round++)
			forks[round] = time_fork();
		discard(&anon);
		s = median(snaps, MANY_ROUNDS);
		f = median(forks, ROUNDS);
		if (!i)
			first = s;
		printf("   %5zu MiB%-19s %12.1f %12.1f %9.0fx   %.2f of 64 MiB\n",
		       size / MIB, i < 3 ? "" : ", 64 MiB in it", s, f, f / s,
		       s / first);
	}
}

/* Write @nr pages in runs of @run at random places. */
static void dirty(struct memory *mem, unsigned long nr, unsigned long run)
{
	unsigned long pages = mem->size / PAGE;

	if (nr == pages) {
		touch(mem, nr, 1);
		return;
	}
	for (unsigned long i = 0; i < nr / run; i++) {
		unsigned long at = random_page(pages - run);

		for (unsigned long j = 0; j < run; j++)
			*(volatile char *)(mem->map + (at + j) * PAGE) = 1;
	}
}

static void row_dirty(void)
{
	static const struct {
		const char *name;
		unsigned long per_mille, run;
	} cases[] = {
		{ "clean", 0, 1 },
		{ "16 pages", 0, 16 },
		{ "1 %, at random", 10, 1 },
		{ "1 %, in runs of 16", 10, 16 },
		{ "all", 1000, 1 },
	};
	struct memory mem = buffer(GIB), anon = anonymous(GIB);
	unsigned long pages = GIB / PAGE;
	double forks[ROUNDS], f;

	printf("\n2. Snapshot of 1 GiB with pages written since the last\n");
	printf("   %-28s %12s %12s %10s\n", "", "snapshot us", "fork us", "ratio");
	touch(&anon, pages, 1);
	for (int round = 0; round < ROUNDS; round++)
		forks[round] = time_fork();
	f = median(forks, ROUNDS);
	discard(&anon);
	touch(&mem, pages, 1);
	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		double snaps[ROUNDS], s;
		int snap, rounds = cases[i].per_mille == 1000 ? 5 : ROUNDS;

		time_snapshot(&mem, &snap);
		close(snap);
		for (int round = 0; round < rounds; round++) {
			unsigned long nr = pages * cases[i].per_mille / 1000;

			if (!nr && i == 1)
				for (int k = 0; k < 16; k++)
					dirty(&mem, 1, 1);
			else if (nr)
				dirty(&mem, nr, cases[i].run);
			snaps[round] = time_snapshot(&mem, &snap);
			close(snap);
		}
		s = median(snaps, rounds);
		printf("   %-28s %12.1f %12.1f %9.1fx\n", cases[i].name, s, f, f / s);
	}
	discard(&mem);
}

struct cost {
	double us;
	double faults;
};

/* First writes to @nr pages, @stride apart: each. */
static struct cost first_writes(struct memory *mem, unsigned long nr,
				unsigned long stride)
{
	long faults = cow_minor_faults();
	double start = now();

	touch(mem, nr, stride);
	return (struct cost){
		.us = (now() - start) / nr,
		.faults = (double)(cow_minor_faults() - faults) / nr,
	};
}

static struct cost after_snapshot(struct memory *mem, unsigned long nr,
				  unsigned long stride, bool gone, bool mapped)
{
	struct cost cost;
	int snap;

	time_snapshot(mem, &snap);
	if (gone)
		close(snap);
	if (mapped)
		for (unsigned long i = 0; i < nr; i++)
			*(volatile char *)(mem->map + i * stride * PAGE);
	cost = first_writes(mem, nr, stride);
	if (!gone)
		close(snap);
	return cost;
}

/* In the parent, while a child holds the old pages. */
static struct cost after_fork(struct memory *mem, unsigned long nr,
			      unsigned long stride)
{
	struct cost cost;
	int go[2];
	pid_t pid;
	char c;

	if (pipe(go))
		die("pipe");
	pid = fork();
	if (!pid) {
		close(go[1]);
		_exit(read(go[0], &c, 1) != 0);
	}
	cost = first_writes(mem, nr, stride);
	close(go[1]);
	waitpid(pid, NULL, 0);
	close(go[0]);
	return cost;
}

static struct cost private_memfd(int memfd, size_t size, unsigned long nr,
				 unsigned long stride)
{
	struct memory mem = { .fd = -1, .size = size };
	struct cost cost;

	mem.map = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_NORESERVE, memfd, 0);
	if (mem.map == MAP_FAILED)
		die("mmap");
	cost = first_writes(&mem, nr, stride);
	discard(&mem);
	return cost;
}

enum { SNAPSHOT, SNAPSHOT_READ, SNAPSHOT_GONE, FORK, MEMFD, NR_SIDES };

static const char *const sides[] = {
	"cowmem", "cowmem, mapped for reading", "cowmem, last sharer gone",
	"fork()", "MAP_PRIVATE of a memfd",
};

static void row_first_write(const char *name, unsigned long stride)
{
	unsigned long nr = 2048;
	size_t size = nr * stride * PAGE;
	struct memory mem = buffer(size), anon = anonymous(size);
	int memfd = memfd_create("bench", MFD_CLOEXEC);
	double us[NR_SIDES][ROUNDS], median_us[NR_SIDES];
	struct cost cost[NR_SIDES];
	struct cowmem_stat before, after;
	unsigned long copied[NR_SIDES] = { };

	if (memfd < 0 || ftruncate(memfd, size))
		die("memfd");
	touch(&mem, nr, stride);
	touch(&anon, nr, stride);
	for (unsigned long i = 0; i < nr; i++)
		if (pwrite(memfd, "x", 1, i * stride * PAGE) != 1)
			die("pwrite");
	for (int round = 0; round < ROUNDS; round++) {
		for (int side = SNAPSHOT; side <= SNAPSHOT_GONE; side++) {
			before = cow_stat(mem.fd);
			cost[side] = after_snapshot(&mem, nr, stride,
						    side == SNAPSHOT_GONE,
						    side == SNAPSHOT_READ);
			after = cow_stat(mem.fd);
			copied[side] = after.copied - before.copied;
		}
		cost[FORK] = after_fork(&anon, nr, stride);
		cost[MEMFD] = private_memfd(memfd, size, nr, stride);
		for (int side = 0; side < NR_SIDES; side++)
			us[side][round] = cost[side].us;
	}
	printf("\n3. First write after, %s: us, faults and copies a page\n", name);
	for (int side = 0; side < NR_SIDES; side++)
		median_us[side] = median(us[side], ROUNDS);
	for (int side = 0; side < NR_SIDES; side++) {
		printf("   %-28s %8.2f us %6.3f faults", sides[side],
		       median_us[side], cost[side].faults);
		if (side <= SNAPSHOT_GONE)
			printf(" %6.3f copied   %.2f of fork, %.2f of memfd",
			       (double)copied[side] / nr,
			       median_us[side] / median_us[FORK],
			       median_us[side] / median_us[MEMFD]);
		printf("\n");
	}
	discard(&mem);
	discard(&anon);
	close(memfd);
}

static void row_index(void)
{
	struct memory mem = buffer(256 * MIB);
	long nodes = cow_param("nodes"), dense, cloned;
	int snap;

	touch(&mem, mem.size / PAGE, 1);
	dense = cow_param("nodes") - nodes;
	snap = cow_snapshot(mem.fd, COWMEM_WRITABLE);
	touch(&mem, 4096, 16);
	cloned = cow_param("nodes") - nodes - dense;
	printf("\n-  Index of 256 MiB, dense: %ld nodes; more after a snapshot and writing\n"
	       "   every 16th page: %ld\n", dense, cloned);
	close(snap);
	discard(&mem);
}

int main(void)
{
	setbuf(stdout, NULL);
	row_clean();
	row_dirty();
	row_first_write("pages side by side", 1);
	row_first_write("one page in each 2 MiB", 512);
	row_index();
	return 0;
}
