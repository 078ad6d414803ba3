/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What of the module has been run, by KCOV: of a kernel that has it, and a module
 * that was built with KCOV=1.  Each worker has a buffer that the kernel fills.
 */
#ifndef COWMEM_SELFTESTS_FUZZ_COVERAGE_H
#define COWMEM_SELFTESTS_FUZZ_COVERAGE_H

#include <linux/kcov.h>

#include "fuzz.h"

#define COVERED_WORDS	(1UL << 19)	/* what one program may run of it */
#define TEXT_BYTES	(1UL << 20)	/* more than the module has */
#define EDGES		(1UL << 16)
#define FUNCTIONS	2000

struct function {
	uint64_t start;
	char name[64];
	bool reached;
};

static struct {
	int fd[WORKERS];	/* 0: there is no KCOV */
	uint64_t *words[WORKERS];
	struct function functions[FUNCTIONS];
	unsigned int nr_functions;
	bool places[TEXT_BYTES], edges[EDGES];
	unsigned long nr_places, nr_edges;
} coverage;

static int compare_functions(const void *a, const void *b)
{
	const struct function *left = a, *right = b;

	return left->start < right->start ? -1 : left->start > right->start;
}

/*
 * In the order of their addresses.  But for what others generate: tracepoints, what
 * the checkers do before they report, and begin and end of sections.
 */
static bool read_functions(void)
{
	FILE *file = fopen("/proc/kallsyms", "r");
	char line[256], type, module[64];

	while (file && fgets(line, sizeof(line), file)) {
		struct function *f = &coverage.functions[coverage.nr_functions];
		unsigned long start;

		if (sscanf(line, "%lx %c %63s [%63[^]]", &start, &type, f->name,
			   module) != 4 ||
		    strcmp(module, "cowmem") || (type != 't' && type != 'T') ||
		    !strncmp(f->name, "__", 2) || !strncmp(f->name, "_sub_", 5) ||
		    strstr(f->name, "trace_") || strstr(f->name, ".cold"))
			continue;
		f->start = start;
		if (++coverage.nr_functions == FUNCTIONS)
			break;
	}
	if (file)
		fclose(file);
	qsort(coverage.functions, coverage.nr_functions, sizeof(struct function),
	      compare_functions);
	return coverage.nr_functions;
}

static bool coverage_open(void)
{
	for (unsigned int i = 0; i < WORKERS; i++) {
		int fd = open("/sys/kernel/debug/kcov", O_RDWR | O_CLOEXEC);
		uint64_t *words;

		if (fd < 0 || ioctl(fd, KCOV_INIT_TRACE, COVERED_WORDS))
			return false;
		words = mmap(NULL, COVERED_WORDS * sizeof(*words), RW, MAP_SHARED, fd, 0);
		if (words == MAP_FAILED)
			return false;
		coverage.fd[i] = fd;
		coverage.words[i] = words;
	}
	return read_functions();
}

/* Of the thread that calls it. */
static void coverage_begin(unsigned int worker)
{
	if (coverage.fd[worker] && ioctl(coverage.fd[worker], KCOV_ENABLE, KCOV_TRACE_PC))
		complain("KCOV_ENABLE: %m");
}

static void coverage_end(unsigned int worker)
{
	if (coverage.fd[worker])
		ioctl(coverage.fd[worker], KCOV_DISABLE, 0);
}

static struct function *function_at(uint64_t address)
{
	unsigned int low = 0, high = coverage.nr_functions;

	while (high - low > 1) {
		unsigned int middle = (low + high) / 2;

		if (coverage.functions[middle].start <= address)
			low = middle;
		else
			high = middle;
	}
	return &coverage.functions[low];
}

/* What the buffer of a worker tells, and empty it: how many edges are new? */
static unsigned int coverage_add(uint64_t *words)
{
	uint64_t nr = words[0], first = coverage.functions[0].start, last = 0;
	unsigned int new = 0;

	for (uint64_t i = 1; i <= nr && i < COVERED_WORDS; i++) {
		uint64_t place = words[i] - first;
		uint64_t edge = (place ^ last * 31) % EDGES;

		last = place;
		if (place >= TEXT_BYTES)
			continue;
		if (!coverage.places[place]) {
			coverage.places[place] = true;
			coverage.nr_places++;
			function_at(words[i])->reached = true;
		}
		if (!coverage.edges[edge]) {
			coverage.edges[edge] = true;
			coverage.nr_edges++;
			new++;
		}
	}
	words[0] = 0;
	return new;
}

static unsigned int coverage_new(void)
{
	unsigned int new = 0;

	for (unsigned int i = 0; i < WORKERS; i++)
		if (coverage.fd[i])
			new += coverage_add(coverage.words[i]);
	return new;
}

static unsigned int functions_reached(void)
{
	unsigned int nr = 0;

	for (unsigned int i = 0; i < coverage.nr_functions; i++)
		nr += coverage.functions[i].reached;
	return nr;
}

#endif
