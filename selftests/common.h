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
#include <linux/fs.h>

#define PAGE	4096UL
#define RW	(PROT_READ | PROT_WRITE)

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

static inline struct cowmem_query cow_query(void)
{
	struct cowmem_query arg = { .size = sizeof(arg) };
	int dev = cow_open();

	if (cow_ioctl(dev, COWMEM_QUERY, &arg)) {
		perror("COWMEM_QUERY");
		exit(1);
	}
	close(dev);
	return arg;
}

/* Those of the COWMEM_FEATURE_* bits @wanted that the module lacks. */
static inline uint64_t cow_missing(uint64_t wanted)
{
	return wanted & ~cow_query().features;
}

/*
 * Skip what the module was built without.  Before anything else of a test, so
 * that no failure is forgotten.
 */
#define NEED(feature) do {						\
	if (cow_missing(COWMEM_FEATURE_##feature))			\
		SKIP(return, "module without " #feature);		\
} while (0)

#define NEED_BITS(wanted) do {						\
	uint64_t _missing = cow_missing(wanted);			\
									\
	if (_missing)							\
		SKIP(return, "module without features %#llx",		\
		     (unsigned long long)_missing);			\
} while (0)

/* On the handle @dev.  @flags: COWMEM_PINNABLE, or 0. */
static inline int cow_create_on(int dev, uint64_t length, const char *name,
				uint32_t flags)
{
	struct cowmem_create arg = {
		.size = sizeof(arg),
		.flags = COWMEM_CLOEXEC | flags,
		.length = length,
		.fd = -1,
	};
	int err;

	strncpy(arg.name, name ? name : "", sizeof(arg.name) - 1);
	err = cow_ioctl(dev, COWMEM_CREATE, &arg);
	return err ? err : arg.fd;
}

static inline int cow_create_flags(uint64_t length, const char *name,
				   uint32_t flags)
{
	int dev = cow_open(), fd;

	if (dev < 0)
		return dev;
	fd = cow_create_on(dev, length, name, flags);
	close(dev);
	return fd;
}

static inline int cow_create(uint64_t length, const char *name)
{
	return cow_create_flags(length, name, 0);
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

/* Its fd, and in *@p a mapping of all of it; or -errno. */
static inline int cow_create_mapped(uint64_t length, const char *name, char **p)
{
	int fd = cow_create(length, name);

	if (fd < 0)
		return fd;
	*p = cow_map(fd, length, RW);
	return *p == MAP_FAILED ? -errno : fd;
}

/* FICLONERANGE, with offset and source as for a restore. */
static inline int cow_clone_range(int fd, uint64_t offset, int source,
				  uint64_t source_offset, uint64_t length)
{
	struct file_clone_range arg = {
		.src_fd = source,
		.src_offset = source_offset,
		.src_length = length,
		.dest_offset = offset,
	};

	return cow_ioctl(fd, FICLONERANGE, &arg);
}

/*
 * FIDEDUPERANGE with one destination: bytes that are now shared, the status if
 * it is not FILE_DEDUPE_RANGE_SAME, or -errno.
 */
static inline long cow_dedupe(int fd, uint64_t offset, int source,
			      uint64_t source_offset, uint64_t length)
{
	struct {
		struct file_dedupe_range range;
		struct file_dedupe_range_info info;
	} arg = {
		.range = {
			.src_offset = source_offset,
			.src_length = length,
			.dest_count = 1,
		},
		.info = { .dest_fd = fd, .dest_offset = offset },
	};

	if (ioctl(source, FIDEDUPERANGE, &arg))
		return -errno;
	return arg.info.status ?: (long)arg.info.bytes_deduped;
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
