/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The calls of fuzz.c: mappings, and what is done through them.
 */
#ifndef COWMEM_SELFTESTS_FUZZ_MEMORY_H
#define COWMEM_SELFTESTS_FUZZ_MEMORY_H

#include <linux/futex.h>

#include "fuzz.h"

static long call_mmap(struct worker *w, const uint64_t *a)
{
	static const int prots[] = {
		RW, RW, RW, PROT_READ, PROT_READ, PROT_NONE, PROT_WRITE, RW | PROT_EXEC,
	};
	static const int flags[] = {
		MAP_SHARED, MAP_SHARED, MAP_SHARED, MAP_PRIVATE, MAP_PRIVATE,
		MAP_SHARED_VALIDATE, MAP_SHARED | MAP_POPULATE, MAP_SHARED | MAP_LOCKED,
		MAP_PRIVATE | MAP_POPULATE, MAP_PRIVATE | MAP_NORESERVE,
		MAP_SHARED_VALIDATE | MAP_SYNC,
	};

	return mmap(at(a[1]), within(a[1], a[2]), PICK(prots, a[4]),
		    PICK(flags, a[4] >> 8) | MAP_FIXED, fd_of(a[0]), a[3]) == MAP_FAILED ? -1 : 0;
}

static long call_mmap_anonymous(struct worker *w, const uint64_t *a)
{
	return mmap(at(a[0]), within(a[0], a[1]), RW, (a[2] % 2 ? MAP_PRIVATE : MAP_SHARED) |
		    MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0;
}

static long call_munmap(struct worker *w, const uint64_t *a)
{
	return munmap(at(a[0]), within(a[0], a[1]));
}

static long call_mremap(struct worker *w, const uint64_t *a)
{
	static const int flags[] = {
		MREMAP_MAYMOVE | MREMAP_FIXED, MREMAP_MAYMOVE | MREMAP_FIXED, 0,
		MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
	};
	int how = PICK(flags, a[4]);
	/* The kernel's log would tell of none. */
	size_t length = within(a[0], a[1]) ?: PAGE;

	/* Where it is, so that it does not leave the arena. */
	if (!how)
		return mremap(at(a[0]), length, a[4] >> 8 & 1 ? length : within(a[0], a[3]),
			      0) == MAP_FAILED ? -1 : 0;
	if (length > within(a[2], length))
		length = within(a[2], length);
	return mremap(at(a[0]), length, a[4] >> 8 & 3 ? length : within(a[2], a[3]),
		      how, at(a[2])) == MAP_FAILED ? -1 : 0;
}

static long call_mprotect(struct worker *w, const uint64_t *a)
{
	static const int prots[] = { RW, RW, PROT_READ, PROT_NONE, RW | PROT_EXEC };

	return mprotect(at(a[0]), within(a[0], a[1]), PICK(prots, a[2]));
}

/* But for memory errors, which pins.c and memory.c make. */
static long call_madvise(struct worker *w, const uint64_t *a)
{
	static const int advice[] = {
		MADV_DONTNEED, MADV_DONTNEED, MADV_REMOVE, MADV_REMOVE, MADV_POPULATE_READ,
		MADV_POPULATE_WRITE, MADV_POPULATE_WRITE, MADV_WILLNEED, MADV_FREE,
		MADV_COLD, MADV_PAGEOUT, MADV_DONTFORK, MADV_DOFORK, MADV_WIPEONFORK,
		MADV_KEEPONFORK, MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_HUGEPAGE,
		MADV_NOHUGEPAGE, 25 /* COLLAPSE */, MADV_DODUMP, MADV_DONTDUMP,
		MADV_SEQUENTIAL, MADV_RANDOM, 24 /* DONTNEED_LOCKED */, 99,
	};

	return madvise(at(a[0]), within(a[0], a[1]), PICK(advice, a[2]));
}

static long call_mlock(struct worker *w, const uint64_t *a)
{
	size_t length = within(a[0], a[1]);

	return a[2] % 2 ? munlock(at(a[0]), length) :
	       mlock2(at(a[0]), length, a[2] / 2 % 2 ? MLOCK_ONFAULT : 0);
}

static long call_msync(struct worker *w, const uint64_t *a)
{
	return msync(at(a[0]), within(a[0], a[1]), a[2] % 8);
}

static long call_mincore(struct worker *w, const uint64_t *a)
{
	unsigned char vec[ARENA_PAGES + 1];

	return mincore(at(a[0]), within(a[0], a[1]), vec);
}

static long call_load(struct worker *w, const uint64_t *a)
{
	return TOUCH(({
		for (unsigned int i = 0; i < 1 + a[1] % 4; i++)
			(void)*(volatile char *)at((a[0] + i * PAGE) % ARENA_BYTES);
	}));
}

static long call_store(struct worker *w, const uint64_t *a)
{
	return TOUCH(({
		for (unsigned int i = 0; i < 1 + a[1] % 4; i++)
			*(volatile char *)at((a[0] + i * PAGE) % ARENA_BYTES) = a[1] >> 8;
	}));
}

static long call_atomic(struct worker *w, const uint64_t *a)
{
	return TOUCH(({
		_Atomic uint64_t *word = at(a[0] % ARENA_BYTES / 8 * 8);

		atomic_fetch_add(word, a[1]);
	}));
}

static long call_process_vm(struct worker *w, const uint64_t *a)
{
	struct iovec local = { at(a[0]), a[2] }, remote = { at(a[1]), a[2] };

	return (a[3] % 2 ? process_vm_readv : process_vm_writev)
		(getpid(), &local, 1, &remote, 1, 0);
}

/* As a debugger does, who does not care for protections. */
static long call_force(struct worker *w, const uint64_t *a)
{
	int fd = open("/proc/self/mem", O_RDWR);
	char byte = a[1];
	long ret = -1;

	if (fd < 0)
		return -1;
	if (a[0] < ARENA_BYTES)
		ret = a[1] % 4 ? pwrite(fd, &byte, 1, (uintptr_t)at(a[0])) :
		      pread(fd, &byte, 1, (uintptr_t)at(a[0]));
	else
		errno = EIO;
	close(fd);
	return ret;
}

static long call_futex(struct worker *w, const uint64_t *a)
{
	return syscall(SYS_futex, at(a[0] / 4 * 4),
		       a[1] % 2 ? FUTEX_WAKE_PRIVATE : FUTEX_WAKE, 1, NULL, NULL, 0);
}

#endif
