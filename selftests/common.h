/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the selftests share: thin wrappers around the ioctls, which return an fd
 * or -errno, and ways to touch memory that may raise SIGBUS.
 */
#ifndef COWMEM_SELFTESTS_COMMON_H
#define COWMEM_SELFTESTS_COMMON_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/cowmem.h>

#define PAGE	4096UL

static inline int cow_open(void)
{
	int fd = open(COWMEM_DEVICE, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* An ioctl made on a throw-away handle, for those that need none. */
static inline int cow_ioctl(int fd, unsigned long cmd, void *arg)
{
	return ioctl(fd, cmd, arg) ? -errno : 0;
}

static inline int cow_create(uint64_t length, const char *name)
{
	struct cowmem_create arg = {
		.size = sizeof(arg),
		.flags = COWMEM_CLOEXEC,
		.length = length,
		.fd = -1,
	};
	int dev = cow_open(), err;

	if (dev < 0)
		return dev;
	strncpy(arg.name, name ? name : "", sizeof(arg.name) - 1);
	err = cow_ioctl(dev, COWMEM_CREATE, &arg);
	close(dev);
	return err ? err : arg.fd;
}

static inline int cow_file(int fd, uint32_t flags)
{
	struct cowmem_file arg = {
		.size = sizeof(arg),
		.flags = COWMEM_CLOEXEC | flags,
		.fd = -1,
	};
	int err = cow_ioctl(fd, COWMEM_FILE, &arg);

	return err ? err : arg.fd;
}

/* @flags: 0 for a frozen snapshot, COWMEM_WRITABLE for a clone. */
static inline int cow_snapshot(int fd, uint32_t flags)
{
	struct cowmem_snapshot arg = {
		.size = sizeof(arg),
		.flags = COWMEM_CLOEXEC | flags,
		.fd = -1,
	};
	int err = cow_ioctl(fd, COWMEM_SNAPSHOT, &arg);

	return err ? err : arg.fd;
}

static inline struct cowmem_stat cow_stat(int fd)
{
	struct cowmem_stat arg = { .size = sizeof(arg) };

	if (cow_ioctl(fd, COWMEM_STAT, &arg)) {
		perror("COWMEM_STAT");
		exit(1);
	}
	return arg;
}

/* A range in bytes: a buffer of @length. */
static inline int cow_snapshot_range(int fd, uint32_t flags, uint64_t offset,
				     uint64_t length)
{
	struct cowmem_snapshot arg = {
		.size = sizeof(arg),
		.flags = COWMEM_CLOEXEC | flags,
		.offset = offset,
		.length = length,
		.fd = -1,
	};
	int err = cow_ioctl(fd, COWMEM_SNAPSHOT, &arg);

	return err ? err : arg.fd;
}

/* One cut over all members, whose snapshot_fd it sets. */
static inline int cow_snapshot_group(int fd, uint32_t flags,
				     struct cowmem_member *members,
				     unsigned int nr)
{
	struct cowmem_snapshot arg = {
		.size = sizeof(arg),
		.flags = COWMEM_CLOEXEC | flags,
		.members = (uintptr_t)members,
		.nr_members = nr,
		.fd = -1,
	};

	return cow_ioctl(fd, COWMEM_SNAPSHOT, &arg);
}

static inline int cow_restore(int fd, int source, uint32_t flags)
{
	struct cowmem_restore arg = {
		.size = sizeof(arg),
		.flags = flags,
		.source = source,
	};

	return cow_ioctl(fd, COWMEM_RESTORE, &arg);
}

static inline int cow_restore_range(int fd, uint64_t offset, int source,
				    uint64_t source_offset, uint64_t length,
				    uint32_t flags)
{
	struct cowmem_restore arg = {
		.size = sizeof(arg),
		.flags = flags,
		.source = source,
		.offset = offset,
		.source_offset = source_offset,
		.length = length,
	};

	return cow_ioctl(fd, COWMEM_RESTORE, &arg);
}

/* Number of extents (at most @nr), from *@cursor on, or -errno. */
static inline int cow_diff(int fd, int other, struct cowmem_extent *extents,
			   unsigned int nr, uint64_t *cursor)
{
	struct cowmem_diff arg = {
		.size = sizeof(arg),
		.other = other,
		.nr_extents = nr,
		.extents = (uintptr_t)extents,
		.cursor = *cursor,
	};
	int err = cow_ioctl(fd, COWMEM_DIFF, &arg);

	if (err)
		return err;
	*cursor = arg.cursor;
	return arg.nr_extents;
}

static inline int cow_limit(int fd, uint64_t limit)
{
	struct cowmem_limit arg = { .size = sizeof(arg), .limit = limit };

	return cow_ioctl(fd, COWMEM_LIMIT, &arg);
}

/* With private, proportional and index. */
static inline struct cowmem_stat cow_sharing(int fd)
{
	struct cowmem_stat arg = {
		.size = sizeof(arg),
		.flags = COWMEM_SHARING,
	};

	if (cow_ioctl(fd, COWMEM_STAT, &arg)) {
		perror("COWMEM_STAT");
		exit(1);
	}
	return arg;
}

/* MAP_FAILED on error. */
static inline char *cow_map(int fd, size_t length, int prot)
{
	return mmap(NULL, length, prot, MAP_SHARED, fd, 0);
}

/* Pages or nodes that the module holds: sums over all buffers of the machine. */
static inline long cow_param(const char *name)
{
	char path[128], text[32] = "";
	int fd;

	snprintf(path, sizeof(path), "/sys/module/cowmem/parameters/%s", name);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return -1;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	return atol(text);
}

static sigjmp_buf cow_fault_jmp;

static inline void cow_fault_handler(int sig)
{
	siglongjmp(cow_fault_jmp, sig);
}

/*
 * Run @statement; the value is 0, or the signal (SIGBUS, SIGSEGV) that it
 * raised.  What it assigns must be volatile.
 */
#define COW_TRY(statement) ({						\
	struct sigaction _act = { .sa_handler = cow_fault_handler };	\
	struct sigaction _bus, _segv;					\
	int _sig;							\
									\
	sigaction(SIGBUS, &_act, &_bus);				\
	sigaction(SIGSEGV, &_act, &_segv);				\
	_sig = sigsetjmp(cow_fault_jmp, 1);				\
	if (!_sig) {							\
		statement;						\
	}								\
	sigaction(SIGBUS, &_bus, NULL);					\
	sigaction(SIGSEGV, &_segv, NULL);				\
	_sig;								\
})

/* Minor page faults of this thread. */
static inline long cow_minor_faults(void)
{
	/* Fields of /proc/thread-self/stat behind the name, which may have
	 * blanks: state ppid pgrp session tty tpgid flags minflt.
	 */
	char text[1024], *p;
	long minflt = -1;
	int fd = open("/proc/thread-self/stat", O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return -1;
	text[n] = '\0';
	p = strrchr(text, ')');
	if (!p || sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %ld", &minflt) != 1)
		return -1;
	return minflt;
}

#endif
