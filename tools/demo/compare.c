// SPDX-License-Identifier: GPL-2.0
/*
 * usage: compare MIB...
 *
 * Snapshots of a cowmem buffer beside fork() of a process with as much anonymous
 * memory, in turns: medians of what the call itself takes, and how many times as
 * long as the snapshot that is.
 */
#include <time.h>

#include "common.h"

#define ROUNDS	11
#define MIB	(1024UL * 1024)

struct memory {
	char *map;
	size_t bytes;
};

/* Write to @nr pages, spread evenly; a load first would prevent huge pages. */
static void dirty(struct memory *mem, size_t nr)
{
	size_t nr_pages = mem->bytes / PAGE, i;
	volatile char *map = mem->map;

	for (i = 0; i < nr; i++)
		map[i * nr_pages / nr * PAGE] = 1;
}

/*
 * Anonymous memory, or of @fd, that has all its pages.  fork() is to pay for one
 * memory at a time: fork_us() says for which.
 */
static struct memory make_memory(size_t bytes, int fd, int advice)
{
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	struct memory mem = { .bytes = bytes };

	mem.map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (mem.map == MAP_FAILED) {
		perror("compare: mmap");
		exit(1);
	}
	madvise(mem.map, bytes, MADV_DONTFORK);
	madvise(mem.map, bytes, advice);
	dirty(&mem, bytes / PAGE);
	return mem;
}

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static double snapshot_us(int fd)
{
	double us = -now_us();
	int snapshot = cow_snapshot(fd, 0);

	us += now_us();
	if (snapshot < 0) {
		fprintf(stderr, "compare: COWMEM_SNAPSHOT: %s\n",
			strerror(-snapshot));
		exit(1);
	}
	close(snapshot);
	return us;
}

static double fork_us(struct memory *mem)
{
	double us;
	pid_t pid;

	madvise(mem->map, mem->bytes, MADV_DOFORK);
	us = -now_us();
	pid = fork();
	if (!pid)
		_exit(0);
	us += now_us();
	if (pid < 0) {
		perror("compare: fork");
		exit(1);
	}
	waitpid(pid, NULL, 0);
	madvise(mem->map, mem->bytes, MADV_DONTFORK);
	return us;
}

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values)
{
	qsort(values, ROUNDS, sizeof(*values), compare_double);
	return values[ROUNDS / 2];
}

/* A line of the table: @nr pages written before each snapshot and each fork. */
static void compare(int fd, struct memory *buffer, struct memory *small,
		    struct memory *huge, size_t nr)
{
	double snapshots[ROUNDS], smalls[ROUNDS], huges[ROUNDS], a, b, c;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		dirty(buffer, nr);
		snapshots[i] = snapshot_us(fd);
		dirty(small, nr);
		smalls[i] = fork_us(small);
		dirty(huge, nr);
		huges[i] = fork_us(huge);
	}
	a = median(snapshots);
	b = median(smalls);
	c = median(huges);
	printf("   %5lu MiB %10zu %9.0f us %9.0f us %8.1fx %9.0f us %8.1fx\n",
	       buffer->bytes / MIB, nr, a, b, b / a, c, c / a);
}

static void compare_size(size_t bytes)
{
	int fd = cow_create(bytes, "compare");
	struct memory buffer, small, huge;

	if (fd < 0) {
		fprintf(stderr, "compare: COWMEM_CREATE: %s\n", strerror(-fd));
		exit(1);
	}
	buffer = make_memory(bytes, fd, MADV_NORMAL);
	small = make_memory(bytes, -1, MADV_NOHUGEPAGE);
	huge = make_memory(bytes, -1, MADV_HUGEPAGE);

	compare(fd, &buffer, &small, &huge, 0);
	compare(fd, &buffer, &small, &huge, 100);
	compare(fd, &buffer, &small, &huge, 1000);
	munmap(huge.map, bytes);
	munmap(small.map, bytes);
	munmap(buffer.map, bytes);
	close(fd);
}

int main(int argc, char **argv)
{
	int i;

	setlinebuf(stdout);
	printf("   resident    written   snapshot   fork, 4 KiB pages     fork, huge pages\n");
	for (i = 1; i < argc; i++)
		compare_size(strtoul(argv[i], NULL, 10) * MIB);
	return 0;
}
