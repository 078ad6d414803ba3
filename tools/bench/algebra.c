// SPDX-License-Identifier: GPL-2.0
/*
 * What restore, diff, depth and many clones cost, and how that grows: with what
 * differs, not with the size of the buffer, nor with the number of snapshots.
 */
#include <sys/resource.h>

#include "bench.h"

#define WRITTEN	128
#define CHANGED	16

/* Spread over the buffer, so that each is in a leaf of its own. */
static void write_spread(struct memory *mem, unsigned long nr)
{
	touch(mem, nr, mem->size / PAGE / nr);
}

/* Page faults of touching every @stride-th page: PTEs that are gone. */
static long refaults(struct memory *mem)
{
	long faults = cow_minor_faults();

	for (size_t i = 0; i < mem->size; i += PAGE)
		*(volatile char *)(mem->map + i);
	return cow_minor_faults() - faults;
}

struct rollback {
	double write_us, restore_us;
	long revoked;
};

static struct rollback restore_rounds(struct memory *mem, uint32_t flags)
{
	double write_us[ROUNDS], restore_us[ROUNDS];
	struct rollback result;
	int snap = cow_snapshot(mem->fd, 0);

	/* So that only what is restored faults again. */
	refaults(mem);
	for (int round = 0; round < ROUNDS; round++) {
		double start = now();

		write_spread(mem, WRITTEN);
		write_us[round] = now() - start;
		start = now();
		if (cow_restore(mem->fd, snap, flags))
			die("COWMEM_RESTORE");
		restore_us[round] = now() - start;
		if (round == ROUNDS - 1)
			result.revoked = refaults(mem);
	}
	result.write_us = median(write_us, ROUNDS);
	result.restore_us = median(restore_us, ROUNDS);
	close(snap);
	return result;
}

/* The same work of a MAP_PRIVATE mapping of a memfd. */
static struct rollback dontneed_rounds(size_t size)
{
	double write_us[ROUNDS], restore_us[ROUNDS];
	int memfd = memfd_create("bench", MFD_CLOEXEC);
	struct memory mem = { .fd = memfd, .size = size };
	struct rollback result = { };

	if (memfd < 0 || ftruncate(memfd, size))
		die("memfd");
	mem.map = cow_map(memfd, size, PROT_READ | PROT_WRITE);
	touch(&mem, size / PAGE, 1);
	munmap(mem.map, size);
	mem.map = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_NORESERVE, memfd, 0);
	if (mem.map == MAP_FAILED)
		die("mmap");
	for (int round = 0; round < ROUNDS; round++) {
		double start = now();

		write_spread(&mem, WRITTEN);
		write_us[round] = now() - start;
		start = now();
		madvise(mem.map, size, MADV_DONTNEED);
		restore_us[round] = now() - start;
	}
	result.write_us = median(write_us, ROUNDS);
	result.restore_us = median(restore_us, ROUNDS);
	discard(&mem);
	return result;
}

static void print_rollback(const char *name, struct rollback r, double peer)
{
	printf("     %-26s %9.1f %9.1f %9.1f %9ld", name, r.write_us,
	       r.restore_us, r.write_us + r.restore_us, r.revoked);
	if (peer)
		printf("   %.2f of MADV_DONTNEED", (r.write_us + r.restore_us) / peer);
	printf("\n");
}

static void row_restore(size_t size)
{
	struct memory mem = buffer(size);
	struct rollback peer = dontneed_rounds(size);
	double sum = peer.write_us + peer.restore_us;

	touch(&mem, size / PAGE, 1);
	printf("   %zu MiB\n", size / MIB);
	print_rollback("RESTORE", restore_rounds(&mem, 0), sum);
	print_rollback("RESTORE with IN_PLACE", restore_rounds(&mem, COWMEM_IN_PLACE), sum);
	print_rollback("MADV_DONTNEED of memfd", peer, 0);
	discard(&mem);
}

static void row_diff(size_t size)
{
	struct memory mem = buffer(size);
	struct cowmem_extent extents[2 * CHANGED];
	double us[MANY_ROUNDS];
	int snap, found = 0;

	touch(&mem, size / PAGE, 1);
	snap = cow_snapshot(mem.fd, 0);
	write_spread(&mem, CHANGED);
	for (int round = 0; round < MANY_ROUNDS; round++) {
		uint64_t cursor = 0;
		double start = now();

		found = cow_diff(mem.fd, snap, extents, 2 * CHANGED, &cursor);
		us[round] = now() - start;
	}
	printf("   %5zu MiB %10.1f us, %d extents\n", size / MIB,
	       median(us, MANY_ROUNDS), found);
	close(snap);
	discard(&mem);
}

struct depth_cost {
	double fault_us, read_us, stat_us;
};

static struct depth_cost depth_cost(struct memory *mem)
{
	double fault_us[MANY_ROUNDS], read_us[MANY_ROUNDS], stat_us[MANY_ROUNDS];
	char page[PAGE];

	for (int round = 0; round < MANY_ROUNDS; round++) {
		size_t offset = (size_t)round % (mem->size / PAGE) * PAGE;
		double start = now();

		*(volatile char *)(mem->map + offset) = 1;
		fault_us[round] = now() - start;
		start = now();
		if (pread(mem->fd, page, PAGE, offset) != PAGE)
			die("pread");
		read_us[round] = now() - start;
		start = now();
		cow_stat(mem->fd);
		stat_us[round] = now() - start;
	}
	return (struct depth_cost){
		median(fault_us, MANY_ROUNDS), median(read_us, MANY_ROUNDS),
		median(stat_us, MANY_ROUNDS),
	};
}

/* A buffer of 4 MiB, after @depth snapshots with a write between any two. */
static struct depth_cost at_depth(int depth)
{
	struct memory mem = buffer(4 * MIB);
	struct depth_cost cost;
	int *snaps = calloc(depth, sizeof(*snaps));

	touch(&mem, mem.size / PAGE, 1);
	for (int i = 0; i < depth; i++) {
		time_snapshot(&mem, &snaps[i]);
		mem.map[(size_t)i * 7 % (mem.size / PAGE) * PAGE]++;
	}
	close(snaps[depth - 1]);
	time_snapshot(&mem, &snaps[depth - 1]);
	cost = depth_cost(&mem);
	for (int i = 0; i < depth; i++)
		close(snaps[i]);
	free(snaps);
	discard(&mem);
	return cost;
}

/* The last of a chain of @depth clones, each of the one before and written. */
static struct depth_cost at_end_of_chain(int depth)
{
	struct memory first = buffer(4 * MIB), last = first;
	struct depth_cost cost;
	int *chain = calloc(depth, sizeof(*chain));

	touch(&first, first.size / PAGE, 1);
	for (int i = 0; i < depth; i++) {
		off_t offset = (size_t)i * 7 % (first.size / PAGE) * PAGE;

		chain[i] = cow_snapshot(last.fd, COWMEM_WRITABLE);
		if (chain[i] < 0 || pwrite(chain[i], "x", 1, offset) != 1)
			die("COWMEM_SNAPSHOT");
		last.fd = chain[i];
	}
	last.map = cow_map(last.fd, last.size, PROT_READ | PROT_WRITE);
	if (last.map == MAP_FAILED)
		die("mmap");
	cost = depth_cost(&last);
	munmap(last.map, last.size);
	for (int i = 0; i < depth; i++)
		close(chain[i]);
	free(chain);
	discard(&first);
	return cost;
}

static void print_depth(const char *what, double one, double deep, double end)
{
	printf("   %-17s %8.1f us %8.1f us  %.2f %8.1f us  %.2f\n", what, one,
	       deep, deep / one, end, end / one);
}

static void row_depth(void)
{
	struct depth_cost one = at_depth(1), deep = at_depth(1000);
	struct depth_cost end = at_end_of_chain(1000);

	printf("\n6. After 1 and after 1,000 snapshots with a write between any two,\n"
	       "   and at the end of a chain of 1,000 clones, each of the one before\n");
	print_depth("store that copies", one.fault_us, deep.fault_us, end.fault_us);
	print_depth("read() of a page", one.read_us, deep.read_us, end.read_us);
	print_depth("STAT", one.stat_us, deep.stat_us, end.stat_us);
}

static double worst(const double *us, int first, int last)
{
	double most = 0;

	for (int i = first; i < last; i++)
		if (us[i] > most)
			most = us[i];
	return most;
}

static void print_latencies(const char *what, double *us, int nr)
{
	/* Before the median sorts them. */
	double early = worst(us, 0, nr / 10), late = worst(us, nr - nr / 10, nr);
	double most = worst(us, 0, nr);
	double first = median(us, nr / 10), last = median(us + nr - nr / 10, nr / 10);

	printf("   %-32s %7.1f %7.1f %9.1f %9.1f %9.1f\n", what, first, last,
	       early, late, most);
}

enum order { CREATION, REVERSE, RANDOM };

static void row_many(enum order order, const char *name, int nr)
{
	struct memory mem = buffer(64 * MIB);
	int *snaps = calloc(nr, sizeof(*snaps));
	double *us = calloc(nr, sizeof(*us));
	char what[64];

	for (int i = 0; i < nr; i++) {
		mem.map[random_page(mem.size / PAGE) * PAGE]++;
		us[i] = time_snapshot(&mem, &snaps[i]);
	}
	print_latencies("taken", us, nr);
	for (int i = 0; i < nr; i++) {
		int j = order == CREATION ? i : order == REVERSE ? nr - 1 - i :
			i + (int)random_page(nr - i), fd = snaps[j];
		double start = now();

		close(fd);
		us[i] = now() - start;
		if (order == RANDOM)
			snaps[j] = snaps[i];
	}
	snprintf(what, sizeof(what), "closed, %s", name);
	print_latencies(what, us, nr);
	free(snaps);
	free(us);
	discard(&mem);
}

/* Kernel memory that is not in pages of buffers, in KiB. */
static long slab_kib(void)
{
	char line[128];
	long kib = -1;
	FILE *file = fopen("/proc/meminfo", "r");

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Slab: %ld", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib;
}

static void print_sum(struct memory *mem, const int *clones, int nr,
		      const char *when)
{
	uint64_t sum = cow_sharing(mem->fd).proportional;
	uint64_t held = cow_param("pages") * PAGE;

	for (int i = 0; i < nr; i++)
		sum += cow_sharing(clones[i]).proportional;
	printf("   sum of proportional %s: %llu of %llu bytes held, %lld short\n",
	       when, (unsigned long long)sum, (unsigned long long)held,
	       (long long)(held - sum));
}

static void row_clones(int nr)
{
	struct memory mem = buffer(64 * MIB);
	int *clones = calloc(nr, sizeof(*clones));
	long nodes, slab;

	touch(&mem, mem.size / PAGE, 1);
	nodes = cow_param("nodes");
	slab = slab_kib();
	printf("\n9. %d clones of 64 MiB\n", nr);
	for (int i = 0; i < nr; i++) {
		clones[i] = cow_snapshot(mem.fd, COWMEM_WRITABLE);
		if (clones[i] < 0)
			die("COWMEM_SNAPSHOT");
	}
	printf("   a clone: %.2f KiB of kernel memory, %.2f nodes of the index\n",
	       (double)(slab_kib() - slab) / nr,
	       (double)(cow_param("nodes") - nodes) / nr);
	print_sum(&mem, clones, nr, "before a write");
	nodes = cow_param("nodes");
	for (int i = 0; i < nr; i++)
		if (pwrite(clones[i], "x", 1, i * 16 % (mem.size / PAGE) * PAGE) != 1)
			die("pwrite");
	print_sum(&mem, clones, nr, "after each wrote a page");
	printf("   a clone that wrote a page: %.2f nodes more\n",
	       (double)(cow_param("nodes") - nodes) / nr);
	for (int i = 0; i < nr; i++)
		close(clones[i]);
	free(clones);
	discard(&mem);
}

int main(void)
{
	struct rlimit limit = { 20000, 20000 };

	setbuf(stdout, NULL);
	if (setrlimit(RLIMIT_NOFILE, &limit))
		die("RLIMIT_NOFILE");
	printf("\n4. Write %d pages and roll back: us, and PTEs that were revoked\n"
	       "     %-26s %9s %9s %9s %9s\n", WRITTEN, "", "write", "restore", "sum",
	       "revoked");
	row_restore(64 * MIB);
	row_restore(4 * GIB);
	printf("\n5. DIFF of %d changed pages\n", CHANGED);
	row_diff(64 * MIB);
	row_diff(GIB);
	row_diff(4 * GIB);
	row_depth();
	printf("\n6. 10,000 snapshots of 64 MiB, a page written before each: us\n"
	       "   %-32s %7s %7s %9s %9s %9s\n", "", "first", "last", "worst of", "worst of",
	       "worst");
	printf("   %-32s %7s %7s %9s %9s\n", "", "tenth", "tenth", "first", "last");
	row_many(CREATION, "in order of creation", 10000);
	row_many(REVERSE, "in reverse order", 10000);
	row_many(RANDOM, "in random order", 10000);
	row_clones(1000);
	return 0;
}
