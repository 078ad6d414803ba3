/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The calls of fuzz.c: ioctls of the device.
 */
#ifndef COWMEM_SELFTESTS_FUZZ_IOCTLS_H
#define COWMEM_SELFTESTS_FUZZ_IOCTLS_H

#include <linux/fiemap.h>
#include <linux/fs.h>

#include "fuzz.h"

#define GROUP		8	/* members */

/* With room behind, for a size that is not the struct's. */
static __thread union {
	uint32_t size;
	char bytes[3 * PAGE];
} passed, before;

static void damage(size_t size, uint64_t how)
{
	static const uint32_t sizes[] = {
		0, 4, 8, 15, 16, 40, 88, 104, 200, PAGE - 8, PAGE, PAGE + 1, -1,
	};
	size_t bit = how / 16 % (size * 8);

	switch (how % 16) {
	case 0:
		passed.size = PICK(sizes, how / 16);
		break;
	case 1: case 2:
		passed.bytes[bit / 8] ^= 1 << bit % 8;
		break;
	case 3:
		passed.bytes[bit / 8] = how >> 32;
		break;
	case 4:
		/* From a newer program, which wants something if it is odd. */
		passed.size = size + 8;
		passed.bytes[size] = how / 16 % 2;
		break;
	}
}

/*
 * Make the ioctl with a struct, or with what @how makes of it, or elsewhere.  Only
 * what worked on the struct itself comes back to it.
 */
static long pass(uint64_t slot, unsigned long cmd, void *arg, size_t size,
		 uint64_t how)
{
	void *user = &passed;
	long ret;

	memset(passed.bytes + size, 0, PAGE);
	memcpy(&passed, arg, size);
	damage(size, how / 4);
	memcpy(&before, &passed, size + 8);
	if (how % 64 == 0) {
		user = at(random_argument(&how, MEMORY));
		/* Where it is not, garbage or nothing is. */
		TOUCH(memcpy(user, arg, size));
	}
	ret = ioctl(fd_of(slot), cmd, user);
	if (ret && memcmp(&before, &passed, size + 8))
		complain("ioctl %#lx: failed, and wrote to its struct", cmd);
	if (!ret && user == &passed)
		memcpy(arg, &passed, size);
	return ret;
}

#define PASS(slot, cmd, arg, how)	pass(slot, cmd, &(arg), sizeof(arg), how)

static void random_name(char name[COWMEM_NAME_MAX], uint64_t how)
{
	switch (how % 8) {
	case 0:
		strncpy(name, "fuzz", COWMEM_NAME_MAX);
		break;
	case 1:
		memset(name, 'x', COWMEM_NAME_MAX - 1);
		break;
	case 2:
		if (how / 8 % 4 == 0)
			memset(name, how, COWMEM_NAME_MAX);
		break;
	}
}

static long call_query(struct worker *w, const uint64_t *a)
{
	struct cowmem_query arg = { .size = sizeof(arg) };
	long ret = PASS(a[0], COWMEM_QUERY, arg, a[1]);

	if (!ret && arg.abi && (arg.page_size != PAGE || arg.max_size != MAX_SIZE))
		complain("QUERY: wrong answer");
	return ret;
}

static long call_create(struct worker *w, const uint64_t *a)
{
	static const uint32_t flags[] = { 0, COWMEM_CLOEXEC, COWMEM_PINNABLE };
	struct cowmem_create arg = {
		.size = sizeof(arg),
		.flags = PICK(flags, a[3]),
		.length = a[1],
		.fd = -1,
	};
	long ret;

	random_name(arg.name, a[3] >> 8);
	ret = PASS(a[0], COWMEM_CREATE, arg, a[2]);
	if (!ret)
		adopt(arg.fd, a[4]);
	return ret;
}

static long call_file(struct worker *w, const uint64_t *a)
{
	static const uint32_t flags[] = { 0, COWMEM_CLOEXEC, COWMEM_RDONLY };
	struct cowmem_file arg = {
		.size = sizeof(arg),
		.flags = PICK(flags, a[2]),
		.fd = -1,
	};
	long ret = PASS(a[0], COWMEM_FILE, arg, a[1]);

	if (!ret)
		adopt(arg.fd, a[3]);
	return ret;
}

static long call_snapshot(struct worker *w, const uint64_t *a)
{
	static const uint32_t flags[] = { 0, COWMEM_CLOEXEC, COWMEM_WRITABLE };
	struct cowmem_snapshot arg = {
		.size = sizeof(arg),
		.flags = PICK(flags, a[4]),
		.fd = -1,
	};
	long ret;

	if (a[4] / 4 % 4 == 0) {
		arg.offset = a[1];
		arg.length = a[2];
	}
	random_name(arg.name, a[4] >> 8);
	ret = PASS(a[0], COWMEM_SNAPSHOT, arg, a[3]);
	if (!ret)
		adopt(arg.fd, a[5]);
	return ret;
}

static void adopt_members(const struct cowmem_member *members, unsigned int nr,
			  uint64_t slots)
{
	for (unsigned int i = 0; i < nr; i++, slots /= BUFFERS)
		adopt(members[i].snapshot_fd, slots % BUFFERS);
}

static long call_group(struct worker *w, const uint64_t *a)
{
	static __thread struct cowmem_member here[2 * GROUP];
	struct cowmem_member *members = here;
	struct cowmem_snapshot arg = {
		.size = sizeof(arg),
		.flags = a[3] % 2 ? COWMEM_WRITABLE : 0,
		.nr_members = 1 + a[3] / 2 % (a[3] / 16 % 8 ? 3 : GROUP),
		.fd = -1,
	};
	uint64_t slots = a[1];
	long ret;

	for (unsigned int i = 0; i < GROUP; i++, slots /= BUFFERS)
		members[i] = (struct cowmem_member){
			.fd = fd_of(slots % BUFFERS), .snapshot_fd = -1,
		};
	if (a[3] / 128 % 4 == 0)
		members[0].offset = a[5];
	if (a[3] / 512 % 8 == 0)
		members = at(a[5]);
	arg.members = (uintptr_t)members;
	ret = PASS(a[0], COWMEM_SNAPSHOT, arg, a[2]);
	if (!ret && arg.nr_members <= GROUP && arg.members == (uintptr_t)here)
		adopt_members(here, arg.nr_members, a[4]);
	return ret;
}

static long call_restore(struct worker *w, const uint64_t *a)
{
	struct cowmem_restore arg = {
		.size = sizeof(arg),
		.flags = a[5] % 4 ? 0 : COWMEM_IN_PLACE,
		.source = fd_of(a[1]),
	};

	if (a[5] / 4 % 2) {
		arg.offset = a[2];
		arg.source_offset = a[5] / 8 % 2 ? a[2] : a[3];
		arg.length = a[4];
	}
	return PASS(a[0], COWMEM_RESTORE, arg, a[5] >> 4);
}

static void check_extents(const struct cowmem_extent *extents, unsigned int nr,
			  uint64_t from)
{
	for (unsigned int i = 0; i < nr; i++) {
		const struct cowmem_extent *e = &extents[i];

		if (e->offset < from || !e->length || e->length > MAX_SIZE ||
		    (e->offset | e->length) % PAGE ||
		    (e->flags != COWMEM_EXTENT_DATA &&
		     e->flags != COWMEM_EXTENT_HOLE))
			complain("DIFF: extent %u: %#llx %#llx %#x", i,
				 (unsigned long long)e->offset,
				 (unsigned long long)e->length, e->flags);
		from = e->offset + e->length;
	}
}

static long call_diff(struct worker *w, const uint64_t *a)
{
	static __thread struct cowmem_extent here[8];
	struct cowmem_extent *extents = a[5] % 8 ? here : at(a[3]);
	struct cowmem_diff arg = {
		.size = sizeof(arg),
		.other = fd_of(a[1]),
		.nr_extents = extents == here ? 1 + a[5] / 8 % 8 : a[5] >> 32,
		.extents = (uintptr_t)extents,
		.cursor = a[2],
	};
	long ret;

	/* A flipped bit must not let it write beyond. */
	ret = PASS(a[0], COWMEM_DIFF, arg, extents == here ? 4 * 15 : a[4]);
	if (!ret && extents == here)
		check_extents(here, arg.nr_extents, a[2]);
	return ret;
}

static long call_stat(struct worker *w, const uint64_t *a)
{
	struct cowmem_stat arg = {
		.size = sizeof(arg),
		.flags = a[2] % 2 ? COWMEM_SHARING : 0,
	};
	long ret = PASS(a[0], COWMEM_STAT, arg, a[1]);

	if (!ret && strnlen(arg.name, sizeof(arg.name)) == sizeof(arg.name))
		complain("STAT: a name without an end");
	return ret;
}

static long call_limit(struct worker *w, const uint64_t *a)
{
	struct cowmem_limit arg = {
		.size = sizeof(arg),
		.limit = a[2] % 2 ? COWMEM_NO_LIMIT : a[1],
	};

	return PASS(a[0], COWMEM_LIMIT, arg, a[2] >> 1);
}

/* What is no ioctl of ours, or of any number. */
static long call_ioctl(struct worker *w, const uint64_t *a)
{
	static const unsigned int cmds[] = {
		FIONREAD, FIOCLEX, FIONCLEX, FIOASYNC, FIGETBSZ, FIBMAP, FIOQSIZE,
		FS_IOC_FIEMAP, FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FSGETXATTR,
		FS_IOC_FSSETXATTR, FIFREEZE, FITHAW, TCGETS, BLKGETSIZE64,
		COWMEM_LIMIT + 1, COWMEM_STAT | 1U << 30, COWMEM_QUERY - 1,
	};
	unsigned int cmd = PICK(cmds, a[1]);

	return ioctl(fd_of(a[0]), a[1] >> 32 & 1 ? cmd : cmd ^ 1U << (a[1] >> 40) % 32,
		     at(a[2]));
}

/* A frozen snapshot that no call knows: does it stay as it is? */
static uint64_t content_of(int fd)
{
	static __thread uint64_t words[16 * PAGE / sizeof(uint64_t)];
	ssize_t n = pread(fd, words, sizeof(words), 0);
	uint64_t sum = lseek(fd, 0, SEEK_END);

	for (ssize_t i = 0; i < n / (ssize_t)sizeof(words[0]); i++)
		sum = (sum ^ words[i]) * 0x100000001b3ULL;
	return sum + n;
}

static long call_keep(struct worker *w, const uint64_t *a)
{
	struct kept *kept = &w->kept[a[1] % KEPT];
	int fd;

	if (kept->fd || w->child)
		return 0;
	fd = cow_snapshot(fd_of(a[0]), 0);
	if (fd < 0)
		return errno = -fd, -1;
	*kept = (struct kept){ .fd = fd, .sum = content_of(fd) };
	return 0;
}

/* An account may hold more than its limit, but not all together. */
static long call_pages(struct worker *w, const uint64_t *a)
{
	long most = cow_param("max_pages");

	if (most < 0)
		return -1;
	if (cow_param("pages") > most)
		complain("more than max_pages");
	return 0;
}

#endif
