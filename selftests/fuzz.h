/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What fuzz.c works on: programs of random calls, the places that these calls
 * name by numbers (files, memory), and the numbers themselves.
 *
 * All of a call is chosen when it is made, so a part of a program is a program,
 * and a seed says which.  What a number refers to is found out when the call is
 * run, by then another worker may have closed or unmapped it.
 */
#ifndef COWMEM_SELFTESTS_FUZZ_H
#define COWMEM_SELFTESTS_FUZZ_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include "util.h"

#define WORKERS		2
#define CALLS		100	/* of a worker, in a program */
#define ARGS		6
#define MAX_KINDS	80
#define MAX_SIZE	0x7ffffffffffff000ULL	/* of a buffer, as in QUERY */

/*
 * Files have fixed numbers, so that none is ever another's: first buffers, then
 * what is none.  What a call returns moves there from below.
 */
#define FIRST_FD	100
enum { BUFFERS = 12, PIPE_OUT = BUFFERS, PIPE_IN, MEMFD, ZERO, SLOTS };

/*
 * Memory of the calls.  Where no error in one bit of an address leads to memory
 * that is used otherwise; the last page stays inaccessible.
 */
#define ARENA		((char *)0x100000000000)
#define ARENA_PAGES	64UL
#define ARENA_BYTES	(ARENA_PAGES * PAGE)

struct call {
	uint8_t kind;
	uint64_t arg[ARGS];
};

struct program {
	uint64_t seed;
	unsigned int nr[WORKERS];
	struct call calls[WORKERS][CALLS];
};

/* A frozen snapshot, and what was in it when it was taken. */
struct kept {
	int fd;			/* 0: none */
	uint64_t sum;
};

#define KEPT		2

struct worker {
	unsigned int nr;
	const struct program *program;
	unsigned int step;
	bool child;		/* of the process that has the program */
	struct kept kept[KEPT];
};

/* In memory that all processes share. */
struct shared {
	struct {
		atomic_ulong tried, done;
	} kinds[MAX_KINDS];
	atomic_uint ready;
	atomic_uint steps[WORKERS];
	atomic_int children;
	atomic_bool wrong;
	char text[256];		/* what is */
};

static struct shared *shared;

/* What must not happen has; only the first is told. */
static void __attribute__((format(printf, 1, 2)))
complain(const char *format, ...)
{
	va_list args;

	if (atomic_exchange(&shared->wrong, true))
		return;
	va_start(args, format);
	vsnprintf(shared->text, sizeof(shared->text), format, args);
	va_end(args);
}

/*
 * Numbers
 */

static uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static unsigned int random_below(uint64_t *state, unsigned int limit)
{
	return random_next(state) % limit;
}

#define PICK(array, number)	((array)[(number) % (sizeof(array) / sizeof((array)[0]))])

/* Far from where buffers end, or around what no buffer can have. */
static const uint64_t edges[] = {
	MAX_SIZE, MAX_SIZE - PAGE, MAX_SIZE + 1, MAX_SIZE + PAGE, 1ULL << 63,
	~0ULL, -PAGE, 1ULL << 31, 1ULL << 32, 1ULL << 40, 4096 * PAGE,
	64 * PAGE, 65 * PAGE, 63 * PAGE,
};

/* In bytes: mostly a few whole pages, as many buffers have. */
static uint64_t random_bytes(uint64_t *state)
{
	uint64_t pages = random_below(state, random_below(state, 4) ? 8 : 24) * PAGE;

	switch (random_below(state, 24)) {
	case 0:
		return pages + 1;
	case 1:
		return pages - 1;
	case 2:
		return random_below(state, 24 * PAGE);
	case 3:
		return PICK(edges, random_next(state));
	case 4:
		return PICK(edges, random_next(state)) - pages;
	case 5: case 6: case 7: case 8: case 9: case 10: case 11:
		return 0;
	default:
		return pages;
	}
}

/* Arguments of a call, by what they mean. */
enum {
	NONE, BUFFER, ANY, TO, OFFSET, LENGTH, MEMORY, AREA, BITS
};

static const uint64_t bad_addresses[] = {
	(1UL << 47) - PAGE, 0xffff888000000000, 0xffffffffffffe000, 1UL << 50,
};

static uint64_t random_argument(uint64_t *state, unsigned int meaning)
{
	switch (meaning) {
	case BUFFER:
		if (!random_below(state, 40))
			return SLOTS;
		return random_below(state, random_below(state, 3) ? BUFFERS / 2 : BUFFERS);
	case ANY:
		return random_below(state, random_below(state, 4) ? BUFFERS : SLOTS);
	case TO:
		return random_below(state, BUFFERS);
	case OFFSET:
		return random_bytes(state);
	case LENGTH:
		/* Seldom none, seldom more than there is. */
		return random_below(state, 2) ? (1 + random_below(state, 4)) * PAGE :
		       random_bytes(state);
	case MEMORY:
		if (!random_below(state, 16))
			return PICK(bad_addresses, random_next(state));
		return random_below(state, ARENA_PAGES) * PAGE +
		       (random_below(state, 2) ? random_below(state, PAGE) : 0);
	case AREA:
		return random_below(state, ARENA_PAGES - 1) * PAGE +
		       !random_below(state, 32);
	default:
		return random_next(state);
	}
}

/*
 * Places
 */

static inline int fd_of(uint64_t slot)
{
	return slot < SLOTS ? FIRST_FD + (int)slot : -1;
}

/* A new file moves to @slot. */
static inline long adopt(long fd, uint64_t slot)
{
	int error = errno;

	if (fd >= 0) {
		dup2(fd, fd_of(slot));
		close(fd);
	}
	errno = error;
	return fd;
}

static inline void *at(uint64_t address)
{
	return address < ARENA_BYTES ? ARENA + address : (char *)address;
}

/* @length, but not beyond what may be mapped and unmapped. */
static inline size_t within(uint64_t area, uint64_t length)
{
	uint64_t most = ARENA_BYTES - PAGE - area / PAGE * PAGE;

	return length < most ? length : most;
}

/*
 * Memory that may not be there
 */

static __thread sigjmp_buf fault_jump;
static __thread volatile sig_atomic_t fault_expected;

static void fault_handler(int sig)
{
	if (fault_expected) {
		fault_expected = 0;
		siglongjmp(fault_jump, 1);
	}
	signal(sig, SIG_DFL);
	raise(sig);
}

/* The value is 0, or -1 and EFAULT if @statement raised a signal. */
#define TOUCH(statement) ({						\
	long _ret = -1;							\
									\
	errno = EFAULT;							\
	if (!sigsetjmp(fault_jump, 0)) {				\
		fault_expected = 1;					\
		statement;						\
		fault_expected = 0;					\
		_ret = 0;						\
	}								\
	_ret;								\
})

#endif
