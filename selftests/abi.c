// SPDX-License-Identifier: GPL-2.0
/*
 * The ioctls: every errno of uapi/linux/cowmem.h, one test each, by input that
 * is valid but for one thing.  All outputs are poisoned before a call, and a
 * call that fails must leave the struct, the fds and the buffers as they were.
 */
#include <assert.h>
#include <stddef.h>
#include <sys/resource.h>

#include "common.h"
#include "harness.h"
#include "util.h"

#define POISON	0xa5
#define LENGTH	(4 * PAGE)

static_assert(sizeof(struct cowmem_query) == 40, "query");
static_assert(sizeof(struct cowmem_create) == 88, "create");
static_assert(sizeof(struct cowmem_file) == 16, "file");
static_assert(sizeof(struct cowmem_member) == 24, "member");
static_assert(sizeof(struct cowmem_snapshot) == 104, "snapshot");
static_assert(sizeof(struct cowmem_restore) == 40, "restore");
static_assert(sizeof(struct cowmem_extent) == 24, "extent");
static_assert(sizeof(struct cowmem_diff) == 32, "diff");
static_assert(sizeof(struct cowmem_limit) == 16, "limit");
static_assert(sizeof(struct cowmem_stat) == 200, "stat");

union arg {
	struct {
		__u32 size;
		__u32 flags;
	};
	struct cowmem_query query;
	struct cowmem_create create;
	struct cowmem_file file;
	struct cowmem_snapshot snapshot;
	struct cowmem_restore restore;
	struct cowmem_diff diff;
	struct cowmem_limit limit;
	struct cowmem_stat stat;
	char bytes[2 * PAGE];
};

/*
 * What a test works on: a handle of a buffer with one page, another buffer, all
 * hole, an array of extents, and room for a struct of up to two pages with
 * nothing mapped behind.
 */
struct subject {
	int fd;
	char *store;
	char value;			/* of the first byte */
	int other;
	struct cowmem_extent extents[4];
	union arg *arg;
	int next_fd;
	long pages;
	struct cowmem_stat before, other_before;
};

/* A kind of ioctl, with how to make a valid struct of it. */
struct kind {
	unsigned long cmd;
	size_t size;
	__u32 flags;			/* that it knows */
	/* Inputs, but for size and flags. */
	void (*fill)(union arg *arg, const struct subject *s);
	__u64 feature;			/* COWMEM_FEATURE_*, or 0: always there */
};

static void fill_nothing(union arg *arg, const struct subject *s)
{
}

static void fill_create(union arg *arg, const struct subject *s)
{
	arg->create.length = LENGTH;
	memset(arg->create.name, 0, sizeof(arg->create.name));
	arg->create.__reserved = 0;
}

static void fill_file(union arg *arg, const struct subject *s)
{
	arg->file.__reserved = 0;
}

static void fill_snapshot(union arg *arg, const struct subject *s)
{
	arg->snapshot.offset = 0;
	arg->snapshot.length = 0;
	arg->snapshot.members = 0;
	arg->snapshot.nr_members = 0;
	memset(arg->snapshot.name, 0, sizeof(arg->snapshot.name));
}

static void fill_restore(union arg *arg, const struct subject *s)
{
	arg->restore.source = s->other;
	arg->restore.__reserved = 0;
	arg->restore.offset = 0;
	arg->restore.source_offset = 0;
	arg->restore.length = 0;
}

static void fill_diff(union arg *arg, const struct subject *s)
{
	arg->diff.other = s->other;
	arg->diff.nr_extents = ARRAY_SIZE(s->extents);
	arg->diff.extents = (uintptr_t)s->extents;
	arg->diff.cursor = 0;
}

/* Not what it is, and not what stops any test. */
static void fill_limit(union arg *arg, const struct subject *s)
{
	arg->limit.limit = 64 * PAGE;
}

static const struct kind query = {
	COWMEM_QUERY, sizeof(struct cowmem_query), 0, fill_nothing
};
static const struct kind create = {
	COWMEM_CREATE, sizeof(struct cowmem_create),
	COWMEM_CLOEXEC | COWMEM_PINNABLE, fill_create
};
static const struct kind file = {
	COWMEM_FILE, sizeof(struct cowmem_file),
	COWMEM_CLOEXEC | COWMEM_RDONLY, fill_file
};
static const struct kind snapshot = {
	COWMEM_SNAPSHOT, sizeof(struct cowmem_snapshot),
	COWMEM_CLOEXEC | COWMEM_WRITABLE, fill_snapshot
};
static const struct kind restore = {
	COWMEM_RESTORE, sizeof(struct cowmem_restore), COWMEM_IN_PLACE,
	fill_restore, COWMEM_FEATURE_RESTORE
};
static const struct kind diff = {
	COWMEM_DIFF, sizeof(struct cowmem_diff), 0, fill_diff,
	COWMEM_FEATURE_DIFF
};
static const struct kind stat_kind = {
	COWMEM_STAT, sizeof(struct cowmem_stat), COWMEM_SHARING, fill_nothing
};
static const struct kind limit = {
	COWMEM_LIMIT, sizeof(struct cowmem_limit), 0, fill_limit,
	COWMEM_FEATURE_LIMIT
};

static void subject_init(struct __test_metadata *_metadata, struct subject *s)
{
	s->arg = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(s->arg, MAP_FAILED);
	ASSERT_EQ(munmap(s->arg->bytes + 2 * PAGE, PAGE), 0);
	s->fd = cow_create(LENGTH, "subject");
	ASSERT_GE(s->fd, 0)
		TH_LOG("/dev/cowmem: %s", strerror(-s->fd));
	s->store = cow_map(s->fd, LENGTH, PROT_READ | PROT_WRITE);
	ASSERT_NE(s->store, MAP_FAILED);
	s->store[0] = s->value = 1;
	s->other = cow_create(LENGTH, "other");
	ASSERT_GE(s->other, 0);
	memset(s->extents, POISON, sizeof(s->extents));
	s->before = cow_stat(s->fd);
	s->other_before = cow_stat(s->other);
	s->pages = cow_param("pages");
	s->next_fd = next_fd();
}

static void subject_exit(struct subject *s)
{
	munmap(s->store, LENGTH);
	munmap(s->arg, 2 * PAGE);
	close(s->other);
	close(s->fd);
}

/* A valid struct at @where with all outputs poisoned. */
static union arg *valid_at(const struct kind *kind, const struct subject *s,
			   void *where)
{
	union arg *arg = where;

	memset(arg, POISON, kind->size);
	arg->size = kind->size;
	arg->flags = 0;
	kind->fill(arg, s);
	return arg;
}

static union arg *valid(const struct kind *kind, struct subject *s)
{
	memset(s->arg, 0, sizeof(*s->arg));
	return valid_at(kind, s, s->arg);
}

/* Has nothing been written to the array of extents? */
static bool extents_untouched(const struct subject *s)
{
	const unsigned char *byte = (const unsigned char *)s->extents;
	size_t i;

	for (i = 0; i < sizeof(s->extents); i++)
		if (byte[i] != POISON)
			return false;
	return true;
}

/* No fd, no page and no snapshot more than before, and no other content. */
static void expect_nothing_made(struct __test_metadata *_metadata,
				struct subject *s)
{
	struct cowmem_stat now = cow_stat(s->fd), other = cow_stat(s->other);

	EXPECT_EQ(next_fd(), s->next_fd);
	EXPECT_EQ(cow_param("pages"), s->pages);
	EXPECT_EQ(now.snapshots, s->before.snapshots);
	EXPECT_EQ(now.length, s->before.length);
	EXPECT_EQ(now.limit, s->before.limit);
	EXPECT_EQ(memcmp(&other, &s->other_before, sizeof(other)), 0);
	EXPECT_TRUE(extents_untouched(s));
	EXPECT_EQ(s->store[0], s->value);
	/* A forgotten snapshot would make this store copy. */
	s->store[0] = ++s->value;
	now = cow_stat(s->fd);
	EXPECT_EQ(now.copied, s->before.copied);
	EXPECT_EQ(cow_param("pages"), s->pages);
}

static void fails_at(struct __test_metadata *_metadata, struct subject *s,
		     int fd, unsigned long cmd, void *arg, size_t bytes, int err)
{
	static char copy[2 * PAGE];

	memcpy(copy, arg, bytes);
	EXPECT_EQ(cow_ioctl(fd, cmd, arg), -err);
	EXPECT_EQ(memcmp(copy, arg, bytes), 0)
		TH_LOG("a call that failed has written to its struct");
	expect_nothing_made(_metadata, s);
}

/* The call that s->arg is ready for fails on @fd, and changes nothing. */
static void fails_on(struct __test_metadata *_metadata, struct subject *s,
		     int fd, const struct kind *kind, int err)
{
	fails_at(_metadata, s, fd, kind->cmd, s->arg, sizeof(*s->arg), err);
}

static void fails(struct __test_metadata *_metadata, struct subject *s,
		  const struct kind *kind, int err)
{
	fails_on(_metadata, s, s->fd, kind, err);
}

/* ---------------------------------------------------------------- every kind */

FIXTURE(every) {
	struct subject s;
};

FIXTURE_VARIANT(every) {
	const struct kind *kind;
};

FIXTURE_VARIANT_ADD(every, query) { .kind = &query };
FIXTURE_VARIANT_ADD(every, create) { .kind = &create };
FIXTURE_VARIANT_ADD(every, file) { .kind = &file };
FIXTURE_VARIANT_ADD(every, snapshot) { .kind = &snapshot };
FIXTURE_VARIANT_ADD(every, restore) { .kind = &restore };
FIXTURE_VARIANT_ADD(every, diff) { .kind = &diff };
FIXTURE_VARIANT_ADD(every, stat) { .kind = &stat_kind };
FIXTURE_VARIANT_ADD(every, limit) { .kind = &limit };

FIXTURE_SETUP(every)
{
	NEED_BITS(variant->kind->feature);
	subject_init(_metadata, &self->s);
}

FIXTURE_TEARDOWN(every)
{
	subject_exit(&self->s);
}

TEST_F(every, size_0_is_EINVAL)
{
	valid(variant->kind, &self->s)->size = 0;
	fails(_metadata, &self->s, variant->kind, EINVAL);
}

TEST_F(every, size_below_the_first_version_is_EINVAL)
{
	valid(variant->kind, &self->s)->size--;
	fails(_metadata, &self->s, variant->kind, EINVAL);
}

TEST_F(every, exact_size_works_and_writes_nothing_behind)
{
	union arg *arg = valid(variant->kind, &self->s);
	size_t size = variant->kind->size;

	memset(arg->bytes + size, POISON, 64);
	EXPECT_EQ(cow_ioctl(self->s.fd, variant->kind->cmd, arg), 0);
	EXPECT_EQ(arg->size, size);
	EXPECT_EQ(arg->flags, 0);
	for (int i = 0; i < 64; i++)
		EXPECT_EQ((unsigned char)arg->bytes[size + i], POISON);
}

TEST_F(every, exact_size_works_at_the_end_of_mapped_memory)
{
	union arg *arg = valid_at(variant->kind, &self->s,
				  self->s.arg->bytes + 2 * PAGE -
				  variant->kind->size);

	EXPECT_EQ(cow_ioctl(self->s.fd, variant->kind->cmd, arg), 0);
}

TEST_F(every, unaligned_struct_works)
{
	union arg *arg = valid_at(variant->kind, &self->s,
				  self->s.arg->bytes + 1);

	EXPECT_EQ(cow_ioctl(self->s.fd, variant->kind->cmd, arg), 0);
}

TEST_F(every, struct_across_two_pages_works)
{
	union arg *arg = valid_at(variant->kind, &self->s,
				  self->s.arg->bytes + PAGE - 12);

	EXPECT_EQ(cow_ioctl(self->s.fd, variant->kind->cmd, arg), 0);
}

TEST_F(every, larger_size_with_zeros_works_and_leaves_the_tail)
{
	union arg *arg = valid(variant->kind, &self->s);
	size_t size = variant->kind->size;

	arg->size = size + 64;
	memset(arg->bytes + size + 64, POISON, 64);
	EXPECT_EQ(cow_ioctl(self->s.fd, variant->kind->cmd, arg), 0);
	EXPECT_EQ(arg->size, size + 64);
	for (int i = 0; i < 64; i++)
		EXPECT_EQ(arg->bytes[size + i], 0);
	for (int i = 64; i < 128; i++)
		EXPECT_EQ((unsigned char)arg->bytes[size + i], POISON);
}

TEST_F(every, size_of_a_page_with_zeros_works)
{
	union arg *arg = valid(variant->kind, &self->s);

	arg->size = PAGE;
	EXPECT_EQ(cow_ioctl(self->s.fd, variant->kind->cmd, arg), 0);
	EXPECT_EQ(arg->size, PAGE);
}

TEST_F(every, larger_size_with_a_first_byte_set_is_E2BIG)
{
	union arg *arg = valid(variant->kind, &self->s);

	arg->size += 64;
	arg->bytes[variant->kind->size] = 1;
	fails(_metadata, &self->s, variant->kind, E2BIG);
}

TEST_F(every, larger_size_with_a_last_byte_set_is_E2BIG)
{
	union arg *arg = valid(variant->kind, &self->s);

	arg->size += 63;
	arg->bytes[arg->size - 1] = 1;
	fails(_metadata, &self->s, variant->kind, E2BIG);
}

TEST_F(every, size_above_a_page_is_E2BIG)
{
	valid(variant->kind, &self->s)->size = PAGE + 1;
	fails(_metadata, &self->s, variant->kind, E2BIG);
}

TEST_F(every, largest_size_is_E2BIG)
{
	valid(variant->kind, &self->s)->size = UINT32_MAX;
	fails(_metadata, &self->s, variant->kind, E2BIG);
}

TEST_F(every, null_pointer_is_EFAULT)
{
	EXPECT_EQ(cow_ioctl(self->s.fd, variant->kind->cmd, NULL), -EFAULT);
	expect_nothing_made(_metadata, &self->s);
}

TEST_F(every, kernel_pointer_is_EFAULT)
{
	void *bad = (void *)-(long)(64 * PAGE);

	EXPECT_EQ(cow_ioctl(self->s.fd, variant->kind->cmd, bad), -EFAULT);
	expect_nothing_made(_metadata, &self->s);
}

TEST_F(every, struct_that_runs_into_unmapped_memory_is_EFAULT)
{
	size_t bytes = variant->kind->size - 4;
	static union arg whole;
	char *at = self->s.arg->bytes + 2 * PAGE - bytes;

	valid_at(variant->kind, &self->s, &whole);
	memcpy(at, &whole, bytes);
	fails_at(_metadata, &self->s, self->s.fd, variant->kind->cmd, at, bytes,
		 EFAULT);
}

TEST_F(every, tail_that_runs_into_unmapped_memory_is_EFAULT)
{
	size_t bytes = variant->kind->size + 8;
	union arg *arg;

	arg = valid_at(variant->kind, &self->s,
		       self->s.arg->bytes + 2 * PAGE - bytes);
	arg->size = bytes + 8;
	fails_at(_metadata, &self->s, self->s.fd, variant->kind->cmd, arg, bytes,
		 EFAULT);
}

TEST_F(every, inaccessible_memory_is_EFAULT)
{
	union arg *arg = valid(variant->kind, &self->s);

	ASSERT_EQ(mprotect(arg, 2 * PAGE, PROT_NONE), 0);
	EXPECT_EQ(cow_ioctl(self->s.fd, variant->kind->cmd, arg), -EFAULT);
	ASSERT_EQ(mprotect(arg, 2 * PAGE, PROT_READ | PROT_WRITE), 0);
	expect_nothing_made(_metadata, &self->s);
}

static bool has_output(const struct kind *kind)
{
	return kind != &restore && kind != &limit;
}

TEST_F(every, output_in_read_only_memory_is_EFAULT_and_makes_nothing)
{
	union arg *arg = valid(variant->kind, &self->s);

	ASSERT_EQ(mprotect(arg, 2 * PAGE, PROT_READ), 0);
	if (has_output(variant->kind))
		fails(_metadata, &self->s, variant->kind, EFAULT);
	else
		EXPECT_EQ(cow_ioctl(self->s.fd, variant->kind->cmd, arg), 0);
	ASSERT_EQ(mprotect(arg, 2 * PAGE, PROT_READ | PROT_WRITE), 0);
}

TEST_F(every, output_that_runs_into_read_only_memory_is_not_begun)
{
	union arg *arg = valid_at(variant->kind, &self->s,
				  self->s.arg->bytes + PAGE -
				  variant->kind->size + 4);

	ASSERT_EQ(mprotect(self->s.arg->bytes + PAGE, PAGE, PROT_READ), 0);
	if (has_output(variant->kind))
		fails_at(_metadata, &self->s, self->s.fd, variant->kind->cmd,
			 arg, variant->kind->size, EFAULT);
	else
		EXPECT_EQ(cow_ioctl(self->s.fd, variant->kind->cmd, arg), 0);
}

TEST_F(every, each_unknown_flag_is_EINVAL)
{
	for (int bit = 0; bit < 32; bit++) {
		if (variant->kind->flags & (1U << bit))
			continue;
		valid(variant->kind, &self->s)->flags = 1U << bit;
		EXPECT_EQ(cow_ioctl(self->s.fd, variant->kind->cmd,
				    self->s.arg), -EINVAL);
		EXPECT_EQ(self->s.arg->flags, 1U << bit);
	}
	expect_nothing_made(_metadata, &self->s);
}

TEST_F(every, unknown_flag_beside_a_known_one_is_EINVAL)
{
	valid(variant->kind, &self->s)->flags = variant->kind->flags | 1U << 31;
	fails(_metadata, &self->s, variant->kind, EINVAL);
}

TEST_F(every, O_PATH_handle_is_EBADF)
{
	int fd = reopen(self->s.fd, O_PATH);

	ASSERT_GE(fd, 0);
	self->s.next_fd = next_fd();
	valid(variant->kind, &self->s);
	fails_on(_metadata, &self->s, fd, variant->kind, EBADF);
	close(fd);
}

TEST_F(every, closed_handle_is_EBADF)
{
	valid(variant->kind, &self->s);
	fails_on(_metadata, &self->s, self->s.next_fd, variant->kind, EBADF);
}

TEST_F(every, other_files_are_ENOTTY)
{
	static const char * const paths[] = {
		"/dev/null", "/dev/zero", "/proc/self/stat", "/proc/self/exe",
		"/proc",
	};

	for (int i = 0; i < 5; i++) {
		int fd = open(paths[i], O_RDONLY);

		ASSERT_GE(fd, 0);
		self->s.next_fd = next_fd();
		valid(variant->kind, &self->s);
		fails_on(_metadata, &self->s, fd, variant->kind, ENOTTY);
		close(fd);
	}
}

TEST_F(every, direction_and_size_in_the_number_are_ENOTTY)
{
	unsigned int nr = _IOC_NR(variant->kind->cmd);
	unsigned int size = variant->kind->size;
	const unsigned long cmds[] = {
		_IOC(_IOC_READ, COWMEM_IOC_TYPE, nr, 0),
		_IOC(_IOC_WRITE, COWMEM_IOC_TYPE, nr, 0),
		_IOC(_IOC_READ | _IOC_WRITE, COWMEM_IOC_TYPE, nr, 0),
		_IOC(_IOC_READ | _IOC_WRITE, COWMEM_IOC_TYPE, nr, size),
		_IOC(_IOC_NONE, COWMEM_IOC_TYPE, nr, size),
	};

	for (int i = 0; i < 5; i++) {
		valid(variant->kind, &self->s);
		fails_at(_metadata, &self->s, self->s.fd, cmds[i], self->s.arg,
			 variant->kind->size, ENOTTY);
	}
}

TEST_F(every, device_handle_works)
{
	int fd = cow_open();

	ASSERT_GE(fd, 0);
	EXPECT_EQ(cow_ioctl(fd, variant->kind->cmd,
			    valid(variant->kind, &self->s)), 0);
	close(fd);
}

/* A program may keep its structs in a buffer, even in the one it snapshots. */
TEST_F(every, struct_in_the_buffer_itself_works)
{
	union arg *arg = valid_at(variant->kind, &self->s,
				  self->s.store + PAGE);

	EXPECT_EQ(cow_ioctl(self->s.fd, variant->kind->cmd, arg), 0);
	/* It is restored as everything else: the other buffer is a hole. */
	EXPECT_EQ(arg->size,
		  variant->kind == &restore ? 0 : variant->kind->size);
}

#ifdef __x86_64__
static int ioctl32(int fd, unsigned int cmd, void *arg)
{
	long ret = 54;	/* __NR_ioctl of i386 */

	asm volatile("int $0x80"
		     : "+a" (ret)
		     : "b" ((long)fd), "c" ((long)cmd), "d" (arg)
		     : "memory", "r8", "r9", "r10", "r11");
	return (int)ret;
}

TEST_F(every, struct_of_a_32_bit_caller_is_the_same)
{
	void *low = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	volatile int ret = -ENOSYS;

	ASSERT_NE(low, MAP_FAILED);
	valid_at(variant->kind, &self->s, low);
	if (COW_TRY(ret = ioctl32(self->s.fd, variant->kind->cmd, low)) ||
	    ret == -ENOSYS)
		SKIP(return, "kernel without IA32_EMULATION");
	EXPECT_EQ(ret, 0);
	valid_at(variant->kind, &self->s, low)->size--;
	self->s.before = cow_stat(self->s.fd);
	self->s.next_fd = next_fd();
	EXPECT_EQ(ioctl32(self->s.fd, variant->kind->cmd, low), -EINVAL);
	EXPECT_EQ(next_fd(), self->s.next_fd);
	EXPECT_EQ(ioctl32(self->s.fd, variant->kind->cmd, NULL), -EFAULT);
}
#endif

/* --------------------------------------------------- those that return an fd */

FIXTURE(fd) {
	struct subject s;
};

FIXTURE_VARIANT(fd) {
	const struct kind *kind;
	size_t at;
};

FIXTURE_VARIANT_ADD(fd, create) {
	.kind = &create, .at = offsetof(struct cowmem_create, fd)
};
FIXTURE_VARIANT_ADD(fd, file) {
	.kind = &file, .at = offsetof(struct cowmem_file, fd)
};
FIXTURE_VARIANT_ADD(fd, snapshot) {
	.kind = &snapshot, .at = offsetof(struct cowmem_snapshot, fd)
};

FIXTURE_SETUP(fd)
{
	subject_init(_metadata, &self->s);
}

FIXTURE_TEARDOWN(fd)
{
	subject_exit(&self->s);
}

/* The fd that the call with s->arg returns, or -errno. */
static int new_fd(struct subject *s, const struct kind *kind, size_t at)
{
	int err = cow_ioctl(s->fd, kind->cmd, s->arg), fd;

	memcpy(&fd, s->arg->bytes + at, sizeof(fd));
	return err ?: fd;
}

TEST_F(fd, is_the_lowest_free_one)
{
	int fd;

	valid(variant->kind, &self->s);
	fd = new_fd(&self->s, variant->kind, variant->at);
	EXPECT_EQ(fd, self->s.next_fd);
	EXPECT_EQ(close(fd), 0);
}

TEST_F(fd, closes_on_exec_with_the_flag)
{
	int fd;

	valid(variant->kind, &self->s)->flags = COWMEM_CLOEXEC;
	fd = new_fd(&self->s, variant->kind, variant->at);
	ASSERT_GE(fd, 0);
	EXPECT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	EXPECT_EQ(self->s.arg->flags, COWMEM_CLOEXEC);
	close(fd);
}

TEST_F(fd, stays_on_exec_without_the_flag)
{
	int fd;

	valid(variant->kind, &self->s);
	fd = new_fd(&self->s, variant->kind, variant->at);
	ASSERT_GE(fd, 0);
	EXPECT_EQ(fcntl(fd, F_GETFD), 0);
	close(fd);
}

TEST_F(fd, is_a_regular_file)
{
	struct stat st;
	int fd;

	valid(variant->kind, &self->s);
	fd = new_fd(&self->s, variant->kind, variant->at);
	ASSERT_EQ(fstat(fd, &st), 0);
	EXPECT_TRUE(S_ISREG(st.st_mode));
	close(fd);
}

TEST_F(fd, is_EMFILE_at_the_limit_and_makes_nothing)
{
	struct rlimit old, limit;

	ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
	limit = old;
	limit.rlim_cur = self->s.next_fd;
	valid(variant->kind, &self->s);
	ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
	EXPECT_EQ(new_fd(&self->s, variant->kind, variant->at), -EMFILE);
	ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
	expect_nothing_made(_metadata, &self->s);
	EXPECT_EQ((unsigned char)self->s.arg->bytes[variant->at], POISON);
}

/*
 * With room for no open file more on the whole machine, which binds all but the
 * privileged: for no longer than the call takes.
 */
static int new_fd_at_file_max(struct subject *s, const struct kind *kind,
			      size_t at, int file_max)
{
	char before[32];
	ssize_t bytes = pread(file_max, before, sizeof(before), 0);
	int fd = -ENOTRECOVERABLE;

	if (pwrite(file_max, "0", 1, 0) == 1 && !seteuid(NOBODY))
		fd = new_fd(s, kind, at);
	if (seteuid(0) || pwrite(file_max, before, bytes, 0) != bytes)
		return -ENOTRECOVERABLE;
	return fd;
}

TEST_F(fd, is_ENFILE_with_too_many_open_files_and_makes_nothing)
{
	int file_max = open("/proc/sys/fs/file-max", O_RDWR | O_CLOEXEC);

	if (file_max < 0)
		SKIP(return, "file-max: %s", strerror(errno));
	valid(variant->kind, &self->s);
	EXPECT_EQ(new_fd_at_file_max(&self->s, variant->kind, variant->at,
				     file_max), -ENFILE);
	close(file_max);
	expect_nothing_made(_metadata, &self->s);
	EXPECT_EQ((unsigned char)self->s.arg->bytes[variant->at], POISON);
}

/* ---------------------------------------------------------------------- each */

FIXTURE(one) {
	struct subject s;
};

FIXTURE_SETUP(one)
{
	subject_init(_metadata, &self->s);
}

FIXTURE_TEARDOWN(one)
{
	subject_exit(&self->s);
}

TEST_F(one, QUERY_tells_what_the_header_says)
{
	struct cowmem_query *q = &valid(&query, &self->s)->query;

	ASSERT_EQ(cow_ioctl(self->s.fd, COWMEM_QUERY, q), 0);
	EXPECT_EQ(q->abi, COWMEM_ABI);
	EXPECT_EQ(q->page_size, sysconf(_SC_PAGESIZE));
	/* All: else the tests that need one of them would be skipped unseen. */
	EXPECT_EQ(q->features, (COWMEM_FEATURE_FALLOCATE << 1) - 1);
	EXPECT_GE(q->max_size, 1ULL << 40);
	EXPECT_EQ(q->max_size % q->page_size, 0);
	EXPECT_EQ(q->max_members == 0,
		  !(q->features & COWMEM_FEATURE_GROUP));
	EXPECT_EQ(q->__reserved, 0);
}

TEST_F(one, QUERY_and_STAT_work_on_any_open_handle)
{
	static const int modes[] = { O_RDONLY, O_WRONLY, O_RDWR };

	for (int i = 0; i < 3; i++) {
		int fd = reopen(self->s.fd, modes[i]);

		ASSERT_GE(fd, 0);
		EXPECT_EQ(cow_ioctl(fd, COWMEM_QUERY,
				    valid(&query, &self->s)), 0);
		EXPECT_EQ(cow_ioctl(fd, COWMEM_STAT,
				    valid(&stat_kind, &self->s)), 0);
		close(fd);
	}
}

/* CREATE */

TEST_F(one, CREATE_reserved_is_EINVAL)
{
	valid(&create, &self->s)->create.__reserved = 1;
	fails(_metadata, &self->s, &create, EINVAL);
}

TEST_F(one, CREATE_unterminated_name_is_EINVAL)
{
	memset(valid(&create, &self->s)->create.name, 'n', COWMEM_NAME_MAX);
	fails(_metadata, &self->s, &create, EINVAL);
}

TEST_F(one, CREATE_name_with_a_slash_is_EINVAL)
{
	strcpy(valid(&create, &self->s)->create.name, "a/b");
	fails(_metadata, &self->s, &create, EINVAL);
}

TEST_F(one, CREATE_name_that_is_a_slash_is_EINVAL)
{
	strcpy(valid(&create, &self->s)->create.name, "/");
	fails(_metadata, &self->s, &create, EINVAL);
}

TEST_F(one, CREATE_length_above_the_largest_is_EFBIG)
{
	valid(&create, &self->s)->create.length = cow_query().max_size + 1;
	fails(_metadata, &self->s, &create, EFBIG);
}

TEST_F(one, CREATE_largest_number_as_length_is_EFBIG)
{
	valid(&create, &self->s)->create.length = UINT64_MAX;
	fails(_metadata, &self->s, &create, EFBIG);
}

TEST_F(one, CREATE_takes_any_length_up_to_the_largest)
{
	const __u64 lengths[] = {
		0, 1, PAGE - 1, PAGE + 1, cow_query().max_size
	};

	for (int i = 0; i < 5; i++) {
		int fd = cow_create(lengths[i], "x");
		struct cowmem_stat stat;

		ASSERT_GE(fd, 0);
		stat = cow_stat(fd);
		EXPECT_EQ(stat.length, lengths[i]);
		EXPECT_EQ(stat.resident, 0);
		EXPECT_EQ(lseek(fd, 0, SEEK_END), lengths[i]);
		close(fd);
	}
}

TEST_F(one, CREATE_takes_names_up_to_the_longest)
{
	struct cowmem_create *arg = &valid(&create, &self->s)->create;

	memset(arg->name, 'n', COWMEM_NAME_MAX - 1);
	ASSERT_EQ(cow_ioctl(self->s.fd, COWMEM_CREATE, arg), 0);
	EXPECT_STREQ(cow_stat(arg->fd).name, arg->name);
	close(arg->fd);
}

TEST_F(one, CREATE_looks_at_a_name_up_to_its_NUL)
{
	struct cowmem_create *arg = &valid(&create, &self->s)->create;

	memcpy(arg->name, "a\0/", 3);
	ASSERT_EQ(cow_ioctl(self->s.fd, COWMEM_CREATE, arg), 0);
	EXPECT_STREQ(cow_stat(arg->fd).name, "a");
	close(arg->fd);
}

TEST_F(one, CREATE_makes_a_buffer_and_an_account_of_its_own)
{
	int fd = cow_create(PAGE, "x");
	struct cowmem_stat stat;

	ASSERT_GE(fd, 0);
	stat = cow_stat(fd);
	EXPECT_GT(stat.id, self->s.before.id);
	EXPECT_NE(stat.account, self->s.before.account);
	EXPECT_EQ(stat.state, 0);
	EXPECT_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
	close(fd);
}

TEST_F(one, CREATE_works_on_a_handle_with_any_rights)
{
	static const int modes[] = { O_RDONLY, O_WRONLY };

	for (int i = 0; i < 2; i++) {
		int fd = reopen(self->s.fd, modes[i]);
		struct cowmem_create *arg = &valid(&create, &self->s)->create;

		ASSERT_GE(fd, 0);
		EXPECT_EQ(cow_ioctl(fd, COWMEM_CREATE, arg), 0);
		close(arg->fd);
		close(fd);
	}
}

/* FILE */

TEST_F(one, FILE_reserved_is_EINVAL)
{
	valid(&file, &self->s)->file.__reserved = 1;
	fails(_metadata, &self->s, &file, EINVAL);
}

TEST_F(one, FILE_for_writing_of_a_read_only_handle_is_EACCES)
{
	int fd = reopen(self->s.fd, O_RDONLY);

	ASSERT_GE(fd, 0);
	self->s.next_fd = next_fd();
	valid(&file, &self->s);
	fails_on(_metadata, &self->s, fd, &file, EACCES);
	close(fd);
}

TEST_F(one, FILE_of_a_write_only_handle_is_EACCES)
{
	int fd = reopen(self->s.fd, O_WRONLY);

	ASSERT_GE(fd, 0);
	self->s.next_fd = next_fd();
	valid(&file, &self->s);
	fails_on(_metadata, &self->s, fd, &file, EACCES);
	valid(&file, &self->s)->flags = COWMEM_RDONLY;
	fails_on(_metadata, &self->s, fd, &file, EACCES);
	close(fd);
}

TEST_F(one, FILE_for_writing_of_a_frozen_buffer_is_EPERM)
{
	int snap = cow_snapshot(self->s.fd, 0);
	struct cowmem_file arg = {
		.size = sizeof(arg), .fd = -1
	};

	ASSERT_GE(snap, 0);
	EXPECT_EQ(cow_ioctl(snap, COWMEM_FILE, &arg), -EPERM);
	EXPECT_EQ(arg.fd, -1);
	arg.flags = COWMEM_RDONLY;
	EXPECT_EQ(cow_ioctl(snap, COWMEM_FILE, &arg), 0);
	EXPECT_EQ(fcntl(arg.fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	close(arg.fd);
	close(snap);
}

TEST_F(one, FILE_opens_as_its_flag_says)
{
	int rw = cow_file(self->s.fd, 0);
	int ro = cow_file(self->s.fd, COWMEM_RDONLY);

	ASSERT_GE(rw, 0);
	ASSERT_GE(ro, 0);
	EXPECT_EQ(fcntl(rw, F_GETFL) & O_ACCMODE, O_RDWR);
	EXPECT_EQ(fcntl(ro, F_GETFL) & O_ACCMODE, O_RDONLY);
	EXPECT_EQ(write(ro, "x", 1), -1);
	EXPECT_EQ(errno, EBADF);
	close(rw);
	close(ro);
}

TEST_F(one, FILE_is_of_the_same_buffer)
{
	int dev = cow_open(), fd;

	ASSERT_GE(dev, 0);
	fd = cow_file(dev, 0);
	ASSERT_GE(fd, 0);
	EXPECT_EQ(cow_stat(fd).id, cow_stat(dev).id);
	EXPECT_EQ(cow_stat(fd).account, cow_stat(dev).account);
	ASSERT_EQ(write(dev, "abc", 3), 3);
	EXPECT_EQ(cow_stat(fd).length, 3);
	close(dev);
	close(fd);
}

/* SNAPSHOT */

TEST_F(one, SNAPSHOT_of_a_write_only_handle_is_EACCES)
{
	int fd = reopen(self->s.fd, O_WRONLY);

	ASSERT_GE(fd, 0);
	self->s.next_fd = next_fd();
	valid(&snapshot, &self->s);
	fails_on(_metadata, &self->s, fd, &snapshot, EACCES);
	valid(&snapshot, &self->s)->flags = COWMEM_WRITABLE;
	fails_on(_metadata, &self->s, fd, &snapshot, EACCES);
	close(fd);
}

TEST_F(one, SNAPSHOT_of_a_read_only_handle_works)
{
	int fd = reopen(self->s.fd, O_RDONLY), snap, clone;

	ASSERT_GE(fd, 0);
	snap = cow_snapshot(fd, 0);
	clone = cow_snapshot(fd, COWMEM_WRITABLE);
	EXPECT_GE(snap, 0);
	EXPECT_GE(clone, 0);
	close(clone);
	close(snap);
	close(fd);
}

TEST_F(one, SNAPSHOT_unterminated_name_is_EINVAL)
{
	memset(valid(&snapshot, &self->s)->snapshot.name, 'n', COWMEM_NAME_MAX);
	fails(_metadata, &self->s, &snapshot, EINVAL);
}

TEST_F(one, SNAPSHOT_name_with_a_slash_is_EINVAL)
{
	strcpy(valid(&snapshot, &self->s)->snapshot.name, "a/b");
	fails(_metadata, &self->s, &snapshot, EINVAL);
}

TEST_F(one, SNAPSHOT_members_without_their_number_are_EINVAL)
{
	struct cowmem_member member = { .fd = self->s.fd };

	valid(&snapshot, &self->s)->snapshot.members = (uintptr_t)&member;
	fails(_metadata, &self->s, &snapshot, EINVAL);
}

TEST_F(one, SNAPSHOT_group_with_an_offset_is_EINVAL)
{
	struct cowmem_member member = { .fd = self->s.fd };
	struct cowmem_snapshot *arg = &valid(&snapshot, &self->s)->snapshot;

	arg->members = (uintptr_t)&member;
	arg->nr_members = 1;
	arg->offset = PAGE;
	fails(_metadata, &self->s, &snapshot, EINVAL);
}

TEST_F(one, SNAPSHOT_group_with_a_length_is_EINVAL)
{
	struct cowmem_member member = { .fd = self->s.fd };
	struct cowmem_snapshot *arg = &valid(&snapshot, &self->s)->snapshot;

	arg->members = (uintptr_t)&member;
	arg->nr_members = 1;
	arg->length = PAGE;
	fails(_metadata, &self->s, &snapshot, EINVAL);
}

TEST_F(one, SNAPSHOT_misaligned_offset_is_EINVAL)
{
	valid(&snapshot, &self->s)->snapshot.offset = PAGE + 1;
	fails(_metadata, &self->s, &snapshot, EINVAL);
}

TEST_F(one, SNAPSHOT_misaligned_length_is_EINVAL)
{
	valid(&snapshot, &self->s)->snapshot.length = PAGE + 1;
	fails(_metadata, &self->s, &snapshot, EINVAL);
}

TEST_F(one, SNAPSHOT_offset_beyond_the_end_is_EINVAL)
{
	valid(&snapshot, &self->s)->snapshot.offset = LENGTH + PAGE;
	fails(_metadata, &self->s, &snapshot, EINVAL);
}

TEST_F(one, SNAPSHOT_length_beyond_the_end_is_EINVAL)
{
	valid(&snapshot, &self->s)->snapshot.length = LENGTH + PAGE;
	fails(_metadata, &self->s, &snapshot, EINVAL);
}

TEST_F(one, SNAPSHOT_range_beyond_the_end_is_EINVAL)
{
	struct cowmem_snapshot *arg = &valid(&snapshot, &self->s)->snapshot;

	arg->offset = PAGE;
	arg->length = LENGTH;
	fails(_metadata, &self->s, &snapshot, EINVAL);
}

TEST_F(one, SNAPSHOT_range_that_wraps_around_is_EINVAL)
{
	struct cowmem_snapshot *arg = &valid(&snapshot, &self->s)->snapshot;

	arg->offset = PAGE;
	arg->length = -(__u64)PAGE;
	fails(_metadata, &self->s, &snapshot, EINVAL);
}

TEST_F(one, SNAPSHOT_range_that_is_the_whole_buffer_works)
{
	struct cowmem_snapshot *arg = &valid(&snapshot, &self->s)->snapshot;

	arg->length = LENGTH;
	ASSERT_EQ(cow_ioctl(self->s.fd, COWMEM_SNAPSHOT, arg), 0);
	EXPECT_EQ(cow_stat(arg->fd).length, LENGTH);
	close(arg->fd);
}

TEST_F(one, SNAPSHOT_length_need_not_be_aligned_at_the_end)
{
	struct cowmem_snapshot *arg = &valid(&snapshot, &self->s)->snapshot;

	ASSERT_EQ(ftruncate(self->s.fd, LENGTH - 5), 0);
	arg->length = LENGTH - 5;
	ASSERT_EQ(cow_ioctl(self->s.fd, COWMEM_SNAPSHOT, arg), 0);
	EXPECT_EQ(cow_stat(arg->fd).length, LENGTH - 5);
	close(arg->fd);
}

TEST_F(one, SNAPSHOT_of_an_empty_buffer_works)
{
	int fd = cow_create(0, "empty"), snap;

	ASSERT_GE(fd, 0);
	snap = cow_snapshot(fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(cow_stat(snap).length, 0);
	close(snap);
	close(fd);
}

TEST_F(one, SNAPSHOT_takes_the_name_of_its_origin_unless_it_has_one)
{
	struct cowmem_snapshot *arg = &valid(&snapshot, &self->s)->snapshot;

	ASSERT_EQ(cow_ioctl(self->s.fd, COWMEM_SNAPSHOT, arg), 0);
	EXPECT_STREQ(cow_stat(arg->fd).name, "subject");
	close(arg->fd);
	strcpy(arg->name, "mine");
	ASSERT_EQ(cow_ioctl(self->s.fd, COWMEM_SNAPSHOT, arg), 0);
	EXPECT_STREQ(cow_stat(arg->fd).name, "mine");
	EXPECT_STREQ(cow_stat(self->s.fd).name, "subject");
	close(arg->fd);
}

TEST_F(one, SNAPSHOT_is_frozen_and_read_only_by_default)
{
	int snap = cow_snapshot(self->s.fd, 0);

	ASSERT_GE(snap, 0);
	EXPECT_EQ(cow_stat(snap).state, COWMEM_STATE_FROZEN);
	EXPECT_EQ(fcntl(snap, F_GETFL) & O_ACCMODE, O_RDONLY);
	close(snap);
}

TEST_F(one, SNAPSHOT_WRITABLE_is_live_and_read_write)
{
	int clone = cow_snapshot(self->s.fd, COWMEM_WRITABLE);

	ASSERT_GE(clone, 0);
	EXPECT_EQ(cow_stat(clone).state, 0);
	EXPECT_EQ(fcntl(clone, F_GETFL) & O_ACCMODE, O_RDWR);
	close(clone);
}

TEST_F(one, SNAPSHOT_of_a_snapshot_may_be_of_either_kind)
{
	int snap = cow_snapshot(self->s.fd, 0), again, clone;

	ASSERT_GE(snap, 0);
	again = cow_snapshot(snap, 0);
	clone = cow_snapshot(snap, COWMEM_WRITABLE);
	ASSERT_GE(again, 0);
	ASSERT_GE(clone, 0);
	EXPECT_EQ(cow_stat(again).state, COWMEM_STATE_FROZEN);
	EXPECT_EQ(cow_stat(clone).state, 0);
	EXPECT_EQ(cow_stat(snap).snapshots, 2);
	close(clone);
	close(again);
	close(snap);
}

TEST_F(one, SNAPSHOT_has_its_own_id_and_its_origins_account)
{
	int snap = cow_snapshot(self->s.fd, 0), clone;

	ASSERT_GE(snap, 0);
	clone = cow_snapshot(snap, COWMEM_WRITABLE);
	ASSERT_GE(clone, 0);
	EXPECT_NE(cow_stat(snap).id, self->s.before.id);
	EXPECT_NE(cow_stat(clone).id, cow_stat(snap).id);
	EXPECT_EQ(cow_stat(snap).account, self->s.before.account);
	EXPECT_EQ(cow_stat(clone).account, self->s.before.account);
	close(clone);
	close(snap);
}

/* STAT */

TEST_F(one, STAT_fills_every_field)
{
	struct cowmem_stat *st = &valid(&stat_kind, &self->s)->stat;

	ASSERT_EQ(cow_ioctl(self->s.fd, COWMEM_STAT, st), 0);
	EXPECT_GT(st->id, 0);
	EXPECT_LT(st->id, 1ULL << 40);
	EXPECT_GT(st->account, 0);
	EXPECT_LT(st->account, 1ULL << 40);
	EXPECT_EQ(st->state, 0);
	EXPECT_EQ(st->__reserved, 0);
	EXPECT_EQ(st->length, LENGTH);
	EXPECT_EQ(st->resident, PAGE);
	EXPECT_EQ(st->limit, COWMEM_NO_LIMIT);
	EXPECT_EQ(st->charged, PAGE);
	EXPECT_EQ(st->faults, 1);
	EXPECT_EQ(st->filled, 1);
	EXPECT_EQ(st->copied, 0);
	EXPECT_EQ(st->reused, 0);
	EXPECT_EQ(st->held, 0);
	EXPECT_EQ(st->snapshots, 0);
	EXPECT_EQ(st->exclusive, 0);
	EXPECT_EQ(st->proportional, 0);
	EXPECT_EQ(st->index, 0);
	EXPECT_STREQ(st->name, "subject");
	for (size_t i = strlen("subject"); i < COWMEM_NAME_MAX; i++)
		EXPECT_EQ(st->name[i], 0);
}

TEST_F(one, STAT_counts_snapshots_copies_and_reuse)
{
	int snap = cow_snapshot(self->s.fd, 0);

	ASSERT_GE(snap, 0);
	EXPECT_EQ(cow_stat(self->s.fd).snapshots, 1);
	EXPECT_EQ(cow_stat(snap).snapshots, 0);
	self->s.store[0] = 2;
	EXPECT_EQ(cow_stat(self->s.fd).copied, 1);
	EXPECT_EQ(cow_stat(self->s.fd).held, 0);
	close(snap);
	snap = cow_snapshot(self->s.fd, 0);
	ASSERT_GE(snap, 0);
	close(snap);
	self->s.store[0] = 3;
	EXPECT_EQ(cow_stat(self->s.fd).copied, 1);
	EXPECT_EQ(cow_stat(self->s.fd).reused, 1);
	EXPECT_EQ(cow_stat(self->s.fd).snapshots, 2);
}

TEST_F(one, STAT_counts_faults_that_end_in_SIGBUS)
{
	__u64 faults;

	ASSERT_EQ(ftruncate(self->s.fd, PAGE), 0);
	faults = cow_stat(self->s.fd).faults;
	EXPECT_EQ(load_signal(self->s.store + PAGE), SIGBUS);
	EXPECT_EQ(cow_stat(self->s.fd).faults, faults + 1);
}

/* RESTORE, DIFF, LIMIT: known, perhaps not built */

static struct cowmem_restore valid_restore(int source)
{
	return (struct cowmem_restore) {
		.size = sizeof(struct cowmem_restore),
		.source = source,
	};
}

/* It works if the feature bit says so, and only then. */
static void expect_built(struct __test_metadata *_metadata, struct subject *s,
			 unsigned long cmd, void *arg, size_t size, __u64 bit)
{
	if (!cow_missing(bit)) {
		EXPECT_EQ(cow_ioctl(s->fd, cmd, arg), 0);
	} else {
		fails_at(_metadata, s, s->fd, cmd, arg, size, EOPNOTSUPP);
	}
}

TEST_F(one, RESTORE_is_there_if_QUERY_says_so)
{
	int source = cow_create(LENGTH, "source");
	struct cowmem_restore arg = valid_restore(source);

	ASSERT_GE(source, 0);
	self->s.next_fd = next_fd();
	expect_built(_metadata, &self->s, COWMEM_RESTORE, &arg, sizeof(arg),
		     COWMEM_FEATURE_RESTORE);
	close(source);
}

TEST_F(one, RESTORE_IN_PLACE_is_there_if_QUERY_says_so)
{
	int source = cow_create(LENGTH, "source");
	struct cowmem_restore arg = valid_restore(source);

	ASSERT_GE(source, 0);
	self->s.next_fd = next_fd();
	arg.flags = COWMEM_IN_PLACE;
	expect_built(_metadata, &self->s, COWMEM_RESTORE, &arg, sizeof(arg),
		     COWMEM_FEATURE_IN_PLACE);
	close(source);
}

TEST_F(one, DIFF_is_there_if_QUERY_says_so)
{
	int other = cow_create(LENGTH, "other");
	struct cowmem_extent extents[4];
	struct cowmem_diff arg = {
		.size = sizeof(arg),
		.other = other,
		.nr_extents = 4,
		.extents = (uintptr_t)extents,
	};

	ASSERT_GE(other, 0);
	self->s.next_fd = next_fd();
	memset(extents, POISON, sizeof(extents));
	expect_built(_metadata, &self->s, COWMEM_DIFF, &arg, sizeof(arg),
		     COWMEM_FEATURE_DIFF);
	if (cow_missing(COWMEM_FEATURE_DIFF)) {
		EXPECT_EQ(*(unsigned char *)extents, POISON);
	}
	close(other);
}

TEST_F(one, LIMIT_is_there_if_QUERY_says_so)
{
	struct cowmem_limit arg = { .size = sizeof(arg), .limit = COWMEM_NO_LIMIT };

	expect_built(_metadata, &self->s, COWMEM_LIMIT, &arg, sizeof(arg),
		     COWMEM_FEATURE_LIMIT);
}

/* Not any other */

TEST_F(one, unknown_numbers_are_ENOTTY)
{
	for (int nr = _IOC_NR(COWMEM_LIMIT) + 1; nr < 256; nr++) {
		valid(&query, &self->s);
		EXPECT_EQ(cow_ioctl(self->s.fd, _IO(COWMEM_IOC_TYPE, nr),
				    self->s.arg), -ENOTTY);
	}
	expect_nothing_made(_metadata, &self->s);
}

TEST_F(one, unknown_types_are_ENOTTY)
{
	int dev = cow_open();

	ASSERT_GE(dev, 0);
	self->s.next_fd = next_fd();
	for (int nr = 0; nr <= _IOC_NR(COWMEM_LIMIT); nr++) {
		valid(&query, &self->s);
		fails_at(_metadata, &self->s, self->s.fd,
			 _IO(COWMEM_IOC_TYPE + 1, nr), self->s.arg,
			 sizeof(*self->s.arg), ENOTTY);
		fails_at(_metadata, &self->s, dev,
			 _IO(COWMEM_IOC_TYPE - 1, nr), self->s.arg,
			 sizeof(*self->s.arg), ENOTTY);
	}
	close(dev);
}

TEST_F(one, device_opened_read_only_cannot_write)
{
	int fd = open(COWMEM_DEVICE, O_RDONLY | O_CLOEXEC), ro;

	ASSERT_GE(fd, 0);
	EXPECT_EQ(write(fd, "x", 1), -1);
	EXPECT_EQ(errno, EBADF);
	EXPECT_EQ(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0),
		  MAP_FAILED);
	EXPECT_EQ(errno, EACCES);
	EXPECT_EQ(cow_file(fd, 0), -EACCES);
	ro = cow_file(fd, COWMEM_RDONLY);
	EXPECT_GE(ro, 0);
	close(ro);
	close(fd);
}

TEST_HARNESS_MAIN
