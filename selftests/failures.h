/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Failures at will: of slab and page allocations and of copies from and to user
 * memory, by the kernel's fault injection (Documentation/fault-injection), and
 * only in the calling thread.
 *
 * A plan says what counts: calls of some kinds, with an address of some function
 * on the stack.  Armed, the nth call that counts fails, and, if that is asked for,
 * so do the next of each kind.  The kernel is not asked to print it: it would not
 * for allocations with __GFP_NOWARN, as those of pages and nodes are.
 */
#ifndef COWMEM_SELFTESTS_FAILURES_H
#define COWMEM_SELFTESTS_FAILURES_H

#include "util.h"

#define ARRAY_LENGTH(array)	(sizeof(array) / sizeof((array)[0]))

/*
 * Functions of the kernel
 */

/* Addresses of code, the last exclusive. */
struct code {
	unsigned long start;
	unsigned long end;
};

static const struct code all_code = { 0, -1UL };
static const struct code no_code = { 0, 0 };

struct symbol {
	unsigned long address;
	char type;
	const char *name;	/* of a module: with a tab and [module] behind it */
};

static struct symbol *symbols;
static size_t nr_symbols;

/* "ffffffff81001b90 T do_one_initcall" */
static inline bool symbol_add(char *line)
{
	struct symbol *symbol;

	if (nr_symbols % 8192 == 0) {
		symbol = realloc(symbols, (nr_symbols + 8192) * sizeof(*symbol));
		if (!symbol)
			return false;
		symbols = symbol;
	}
	symbol = &symbols[nr_symbols++];
	symbol->address = strtoul(line, &line, 16);
	symbol->type = line[1];
	symbol->name = line + 3;
	return true;
}

/* Those of now: a module that is loaded again is at another place. */
static inline bool symbols_load(void)
{
	FILE *file = fopen("/proc/kallsyms", "r");
	char *text = NULL, *line, *rest;
	size_t size = 0;
	bool ok;

	if (!file)
		return false;
	ok = getdelim(&text, &size, '\0', file) > 0;
	fclose(file);
	line = ok ? strtok_r(text, "\n", &rest) : NULL;
	for (; line && ok; line = strtok_r(NULL, "\n", &rest))
		ok = symbol_add(line);
	return ok;
}

static inline bool symbol_is(const struct symbol *symbol, const char *name)
{
	size_t length = strlen(name);

	return !strncmp(symbol->name, name, length) &&
	       (!symbol->name[length] || symbol->name[length] == '\t');
}

/* A function: the module's, if there are others of that name; or no code. */
static inline struct code code_of(const char *name)
{
	struct code code = no_code;
	size_t i;

	for (i = 0; i < nr_symbols; i++)
		if (symbol_is(&symbols[i], name))
			code.start = symbols[i].address;
	if (!code.start)
		return code;
	code.end = -1UL;
	for (i = 0; i < nr_symbols; i++)
		if (symbols[i].address > code.start &&
		    symbols[i].address < code.end)
			code.end = symbols[i].address;
	return code;
}

/* All functions of the module. */
static inline struct code module_code(void)
{
	struct code code = { -1UL, 0 };
	size_t i;

	for (i = 0; i < nr_symbols; i++) {
		if (!strchr("tT", symbols[i].type) ||
		    !strstr(symbols[i].name, "\t[cowmem]"))
			continue;
		if (symbols[i].address < code.start)
			code.start = symbols[i].address;
		/* And the last of them. */
		if (symbols[i].address + PAGE > code.end)
			code.end = symbols[i].address + PAGE;
	}
	return code;
}

/*
 * Knobs
 */

enum { SLAB, PAGES, USER, NR_KINDS };

#define KNOBS_DIR	"/sys/kernel/debug/"

static const char *const kind_dirs[NR_KINDS] = {
	[SLAB]	= "failslab",
	[PAGES]	= "fail_page_alloc",
	[USER]	= "fail_usercopy",
};

/* Of every kind. */
static const struct {
	const char *name;
	unsigned long value;
} kind_knobs[] = {
	{ "times", 0 },		/* until it is armed, none but the nth */
	{ "task-filter", 1 },
	{ "probability", 100 },
	{ "interval", 1 },
	{ "space", 0 },
	{ "verbose", 0 },
	{ "stacktrace-depth", 32 },
	{ "require-start", 0 },
	{ "require-end", -1UL },
	{ "reject-start", 0 },
	{ "reject-end", 0 },
};

/* Allocations that may sleep, and those of single pages, fail as well. */
static const struct {
	unsigned int kind;
	const char *name;
} other_knobs[] = {
	{ SLAB, "ignore-gfp-wait" },
	{ SLAB, "cache-filter" },
	{ PAGES, "ignore-gfp-wait" },
	{ PAGES, "ignore-gfp-highmem" },
	{ PAGES, "min-order" },
};

static inline bool knob_set(unsigned int kind, const char *name,
			    unsigned long value)
{
	char path[128], text[32];

	snprintf(path, sizeof(path), KNOBS_DIR "%s/%s", kind_dirs[kind], name);
	snprintf(text, sizeof(text), "%lu", value);
	return write_file(path, text);
}

/* How they were before. */
struct knobs {
	char of_kind[NR_KINDS][ARRAY_LENGTH(kind_knobs)][32];
	char other[ARRAY_LENGTH(other_knobs)][32];
};

static inline bool knob_save(unsigned int kind, const char *name, char text[32])
{
	char path[128];
	ssize_t n = -1;
	int fd;

	snprintf(path, sizeof(path), KNOBS_DIR "%s/%s", kind_dirs[kind], name);
	fd = open(path, O_RDONLY);
	if (fd >= 0)
		n = read(fd, text, 31);
	close(fd);
	if (n > 0)
		text[n] = '\0';
	return n > 0;
}

static inline void knob_restore(unsigned int kind, const char *name,
				const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), KNOBS_DIR "%s/%s", kind_dirs[kind], name);
	write_file(path, text);
}

static inline bool knobs_save(struct knobs *knobs)
{
	unsigned int kind, i;

	for (kind = 0; kind < NR_KINDS; kind++)
		for (i = 0; i < ARRAY_LENGTH(kind_knobs); i++)
			if (!knob_save(kind, kind_knobs[i].name,
				       knobs->of_kind[kind][i]))
				return false;
	for (i = 0; i < ARRAY_LENGTH(other_knobs); i++)
		if (!knob_save(other_knobs[i].kind, other_knobs[i].name,
			       knobs->other[i]))
			return false;
	return true;
}

static inline void knobs_restore(const struct knobs *knobs)
{
	unsigned int kind, i;

	for (kind = 0; kind < NR_KINDS; kind++)
		for (i = ARRAY_LENGTH(kind_knobs); i--;)
			knob_restore(kind, kind_knobs[i].name,
				     knobs->of_kind[kind][i]);
	for (i = 0; i < ARRAY_LENGTH(other_knobs); i++)
		knob_restore(other_knobs[i].kind, other_knobs[i].name,
			     knobs->other[i]);
}

/* Does this kernel have them? */
static inline bool failures_possible(void)
{
	unsigned int kind;
	char text[32];

	for (kind = 0; kind < NR_KINDS; kind++)
		if (!knob_save(kind, "require-start", text))
			return false;
	return !access("/proc/thread-self/fail-nth", W_OK);
}

/*
 * Failures
 */

static int nth_fd = -1, times_fds[NR_KINDS];

/* What a thread needs, and a child once more. */
static inline bool failures_begin_thread(void)
{
	nth_fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	return nth_fd >= 0 && write_file("/proc/thread-self/make-it-fail", "1");
}

/* What the checkers of the kernel allocate for themselves does not count. */
static inline bool ignore_code(unsigned int kind, const char *name)
{
	struct code code = code_of(name);

	return knob_set(kind, "reject-start", code.start) &&
	       knob_set(kind, "reject-end", code.end);
}

static inline bool failures_begin(void)
{
	unsigned int kind, i;
	char path[128];

	for (kind = 0; kind < NR_KINDS; kind++) {
		for (i = 0; i < ARRAY_LENGTH(kind_knobs); i++)
			if (!knob_set(kind, kind_knobs[i].name,
				      kind_knobs[i].value))
				return false;
		snprintf(path, sizeof(path), KNOBS_DIR "%s/times",
			 kind_dirs[kind]);
		times_fds[kind] = open(path, O_WRONLY | O_CLOEXEC);
		if (times_fds[kind] < 0)
			return false;
	}
	for (i = 0; i < ARRAY_LENGTH(other_knobs); i++)
		if (!knob_set(other_knobs[i].kind, other_knobs[i].name, 0))
			return false;
	return ignore_code(SLAB, "__alloc_object") &&
	       ignore_code(PAGES, "stack_depot_save_flags") &&
	       failures_begin_thread();
}

/* What counts from now on: @kinds, a bit each, somewhere below @code. */
static inline bool failures_plan(unsigned int kinds, struct code code)
{
	unsigned int kind;

	for (kind = 0; kind < NR_KINDS; kind++) {
		struct code counts = kinds & (1U << kind) ? code : no_code;

		if (!knob_set(kind, "require-start", counts.start) ||
		    !knob_set(kind, "require-end", counts.end))
			return false;
	}
	return true;
}

static inline void failures_set_times(unsigned int times)
{
	unsigned int kind;
	char text[16];
	int length;

	length = snprintf(text, sizeof(text), "%u", times);
	for (kind = 0; kind < NR_KINDS; kind++)
		if (write(times_fds[kind], text, length) != length)
			perror("times");
}

/*
 * Let the @nth call that counts fail, alone (@times 0), or also each after it,
 * until @times of its kind did.
 */
static inline void failures_arm(unsigned int nth, unsigned int times)
{
	char text[16];
	int length;

	if (times)
		failures_set_times(times);
	length = snprintf(text, sizeof(text), "%u", nth);
	if (pwrite(nth_fd, text, length, 0) != length)
		perror("fail-nth");
}

static inline unsigned int failures_counted(unsigned int times)
{
	unsigned int kind, failed = 0;
	char path[128];

	for (kind = 0; kind < NR_KINDS; kind++) {
		snprintf(path, sizeof(path), KNOBS_DIR "%s/times",
			 kind_dirs[kind]);
		failed += times - read_number(path);
	}
	return failed;
}

/* How many failed?  0: fewer calls counted than had to. */
static inline unsigned int failures_disarm(unsigned int times)
{
	char left[16] = "";
	unsigned int failed;

	/* If these are what failed, nothing else did. */
	failed = pread(nth_fd, left, sizeof(left) - 1, 0) > 0 && !atoi(left);
	(void)!pwrite(nth_fd, "0", 1, 0);
	if (!times)
		return failed;
	failed = failures_counted(times);
	failures_set_times(0);
	return failed;
}

#endif
