/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the benchmarks share: time, medians, and memory to measure.
 */
#ifndef COWMEM_BENCH_H
#define COWMEM_BENCH_H

#include <stdbool.h>
#include <time.h>

#include "../../selftests/common.h"

#define MIB	(1UL << 20)
#define GIB	(1UL << 30)
#define ROUNDS	9
/* Of what takes microseconds: one round more or less does not matter. */
#define MANY_ROUNDS	301

static inline double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e6 + ts.tv_nsec / 1e3;
}

static inline int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static inline double median(double *values, int nr)
{
	qsort(values, nr, sizeof(*values), by_value);
	return values[nr / 2];
}

static inline void die(const char *what)
{
	perror(what);
	exit(1);
}

struct memory {
	int fd;			/* -1: anonymous memory */
	char *map;
	size_t size;
};

static inline struct memory anonymous(size_t size)
{
	struct memory mem = { .fd = -1, .size = size };

	mem.map = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem.map == MAP_FAILED)
		die("mmap");
	/* 4 KiB pages, as on both other sides. */
	madvise(mem.map, size, MADV_NOHUGEPAGE);
	return mem;
}

static inline struct memory buffer(size_t size)
{
	struct memory mem = { .fd = cow_create(size, "bench"), .size = size };

	if (mem.fd < 0)
		die("COWMEM_CREATE");
	mem.map = cow_map(mem.fd, size, PROT_READ | PROT_WRITE);
	if (mem.map == MAP_FAILED)
		die("mmap");
	return mem;
}

static inline void discard(struct memory *mem)
{
	munmap(mem->map, mem->size);
	if (mem->fd >= 0)
		close(mem->fd);
}

/*
 * Write @nr pages, each @stride pages behind the one before: stores only, a
 * load would be a fault of its own.
 */
static inline void touch(struct memory *mem, unsigned long nr, unsigned long stride)
{
	for (unsigned long i = 0; i < nr; i++)
		*(volatile char *)(mem->map + i * stride * PAGE) = 1;
}

static inline double time_snapshot(struct memory *mem, int *snap)
{
	double start = now();

	*snap = cow_snapshot(mem->fd, 0);
	start = now() - start;
	if (*snap < 0)
		die("COWMEM_SNAPSHOT");
	return start;
}

static inline unsigned long random_page(unsigned long nr)
{
	static unsigned long x = 88172645463325252;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x % nr;
}

#endif
