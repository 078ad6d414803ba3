// SPDX-License-Identifier: GPL-2.0
/*
 * Who may do what: what a handle allows, whoever has it; what is left to the
 * owner; who may open a buffer again; and that nobody, by whatever way, changes a
 * frozen one.  Persons are the owner, root here, and strangers, each also as root
 * of a user namespace of its own.
 *
 * Elsewhere: LIMIT by others in detail (account.c), each ioctl with bad fds of all
 * kinds (abi.c, diff.c, restore.c, group.c, clone.c), files and modes (file.c).
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>

#include <linux/falloc.h>
#include <linux/fs.h>

#include "common.h"
#include "harness.h"
#include "util.h"

#define NR	4UL
#define SIZE	(NR * PAGE)
#define OTHER	1234	/* a uid that is neither root's nor nobody's */

/*
 * Persons
 */

/* Not one whose processes others of the same uid may not look at. */
static bool become(uid_t uid)
{
	return !setresgid(uid, uid, uid) && !setresuid(uid, uid, uid) &&
	       !prctl(PR_SET_DUMPABLE, 1);
}

/* With all capabilities, in a namespace where it is the only user, and root. */
static bool enter_namespace(void)
{
	char map[32];

	snprintf(map, sizeof(map), "0 %d 1", geteuid());
	return !unshare(CLONE_NEWUSER) && !prctl(PR_SET_DUMPABLE, 1) &&
	       write_file("/proc/self/uid_map", map) && !geteuid();
}

struct person {
	uid_t uid;
	bool namespace;
};

static bool become_person(const struct person *person)
{
	return (!person->uid || become(person->uid)) &&
	       (!person->namespace || enter_namespace());
}

/*
 * A buffer, and handles of all kinds
 */

enum handle { READ_WRITE, READ_ONLY, WRITE_ONLY, FROZEN, NR_HANDLES };

struct world {
	int fd[NR_HANDLES];	/* FROZEN is a snapshot of the buffer */
	int other;		/* another buffer, with the same content */
	char *p;		/* mapping of the buffer */
};

static void world_init(struct __test_metadata *_metadata, struct world *w)
{
	char *q;

	w->fd[READ_WRITE] = cow_create_mapped(SIZE, "rights", &w->p);
	ASSERT_GE(w->fd[READ_WRITE], 0);
	fill_pages(w->p, NR);
	w->other = cow_create_mapped(SIZE, "other", &q);
	ASSERT_GE(w->other, 0);
	fill_pages(q, NR);
	munmap(q, SIZE);
	w->fd[READ_ONLY] = reopen(w->fd[READ_WRITE], O_RDONLY);
	w->fd[WRITE_ONLY] = reopen(w->fd[READ_WRITE], O_WRONLY);
	w->fd[FROZEN] = cow_snapshot(w->fd[READ_WRITE], 0);
	ASSERT_GE(w->fd[READ_ONLY], 0);
	ASSERT_GE(w->fd[WRITE_ONLY], 0);
	ASSERT_GE(w->fd[FROZEN], 0);
}

static void world_exit(struct world *w)
{
	int i;

	for (i = 0; i < NR_HANDLES; i++)
		close(w->fd[i]);
	close(w->other);
	munmap(w->p, SIZE);
}

static bool file_filled(int fd)
{
	char data[SIZE];

	return pread(fd, data, SIZE, 0) == SIZE && pages_filled(data, 0, NR);
}

/*
 * What may be done with a handle.  Each returns 0 or -errno, and leaves what it
 * may change as it was.
 */

static int try_read(struct world *w, int fd)
{
	char byte;

	return ret(pread(fd, &byte, 1, 0)) == 1 ? 0 : -errno;
}

static int try_write(struct world *w, int fd)
{
	char byte = value_of(0);

	return ret(pwrite(fd, &byte, 1, 0)) == 1 ? 0 : -errno;
}

static int try_map(int fd, int prot, int flags, int later_prot)
{
	char *p = mmap(NULL, SIZE, prot, flags, fd, 0);
	int err;

	if (p == MAP_FAILED)
		return -errno;
	err = ret(mprotect(p, SIZE, later_prot));
	if (!err && later_prot & PROT_WRITE)
		*(volatile char *)p = value_of(0);
	munmap(p, SIZE);
	return err;
}

static int try_map_read(struct world *w, int fd)
{
	return try_map(fd, PROT_READ, MAP_SHARED, PROT_READ);
}

static int try_map_write(struct world *w, int fd)
{
	return try_map(fd, RW, MAP_SHARED, RW);
}

static int try_mprotect(struct world *w, int fd)
{
	return try_map(fd, PROT_READ, MAP_SHARED, RW);
}

static int try_mprotect_from_none(struct world *w, int fd)
{
	return try_map(fd, PROT_NONE, MAP_SHARED, PROT_WRITE);
}

static int try_map_private(struct world *w, int fd)
{
	return try_map(fd, PROT_READ, MAP_PRIVATE, RW);
}

static int try_truncate(struct world *w, int fd)
{
	return ret(ftruncate(fd, SIZE));
}

static int try_fill(struct world *w, int fd)
{
	return ret(fallocate(fd, 0, 0, SIZE));
}

static int try_punch(struct world *w, int fd)
{
	int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	return ret(fallocate(fd, mode, SIZE, PAGE));
}

static int try_close(int fd)
{
	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

static int try_file(struct world *w, int fd)
{
	return try_close(cow_file(fd, 0));
}

static int try_file_rdonly(struct world *w, int fd)
{
	return try_close(cow_file(fd, COWMEM_RDONLY));
}

static int try_snapshot(struct world *w, int fd)
{
	return try_close(cow_snapshot(fd, 0));
}

static int try_clone(struct world *w, int fd)
{
	return try_close(cow_snapshot(fd, COWMEM_WRITABLE));
}

static int try_group(struct world *w, int fd)
{
	struct cowmem_member members[] = { { .fd = w->other }, { .fd = fd } };
	int err = cow_snapshot_group(w->other, 0, members, 2);

	if (err)
		return err;
	close(members[0].snapshot_fd);
	close(members[1].snapshot_fd);
	return 0;
}

static int try_restore(struct world *w, int fd)
{
	return cow_restore(fd, w->other, 0);
}

static int try_restore_in_place(struct world *w, int fd)
{
	return cow_restore(fd, w->other, COWMEM_IN_PLACE);
}

static int try_restore_range(struct world *w, int fd)
{
	return cow_restore_range(fd, PAGE, w->other, PAGE, PAGE, 0);
}

static int try_restore_from(struct world *w, int fd)
{
	return cow_restore(w->other, fd, 0);
}

static int try_diff(struct world *w, int fd)
{
	struct cowmem_extent extent;
	uint64_t cursor = 0;

	return cow_diff(fd, w->other, &extent, 1, &cursor) < 0 ? -errno : 0;
}

static int try_diff_with(struct world *w, int fd)
{
	struct cowmem_extent extent;
	uint64_t cursor = 0;

	return cow_diff(w->other, fd, &extent, 1, &cursor) < 0 ? -errno : 0;
}

static int try_ficlone(struct world *w, int fd)
{
	return ret(ioctl(fd, FICLONE, w->other));
}

static int try_ficlone_from(struct world *w, int fd)
{
	return ret(ioctl(w->other, FICLONE, fd));
}

static int try_copy(struct world *w, int fd)
{
	return copy_range(fd, 0, w->other, 0, 100) == 100 ? 0 : -errno;
}

static int try_copy_from(struct world *w, int fd)
{
	return copy_range(w->other, 0, fd, 0, 100) == 100 ? 0 : -errno;
}

static int try_dedupe(struct world *w, int fd)
{
	long shared = cow_dedupe(fd, 0, w->other, 0, SIZE);

	return shared == SIZE ? 0 : shared;
}

static int try_dedupe_from(struct world *w, int fd)
{
	long shared = cow_dedupe(w->other, 0, fd, 0, SIZE);

	return shared == SIZE ? 0 : shared;
}

static int try_stat(struct world *w, int fd)
{
	struct cowmem_stat arg = {
		.size = sizeof(arg), .flags = COWMEM_SHARING,
	};

	return cow_ioctl(fd, COWMEM_STAT, &arg);
}

static int try_chmod(struct world *w, int fd)
{
	return ret(fchmod(fd, 0600));
}

static int try_set_times(struct world *w, int fd)
{
	struct timespec times[2] = { { 1, 0 }, { 1, 0 } };

	return ret(futimens(fd, times));
}

static int try_limit(struct world *w, int fd)
{
	return cow_limit(fd, COWMEM_NO_LIMIT);
}

/*
 * @expected: by handle: read-write, read-only, write-only, frozen
 * @owner_differs: for who is not the owner it is @stranger
 */
static const struct attempt {
	const char *name;
	int (*make)(struct world *w, int fd);
	int expected[NR_HANDLES];
	bool owner_differs;
	int stranger[NR_HANDLES];
} attempts[] = {
	{ "read", try_read, { 0, 0, -EBADF, 0 } },
	{ "write", try_write, { 0, -EBADF, 0, -EBADF } },
	{ "mmap to read", try_map_read, { 0, 0, -EACCES, 0 } },
	{ "mmap to write", try_map_write, { 0, -EACCES, -EACCES, -EACCES } },
	{ "mprotect", try_mprotect, { 0, -EACCES, -EACCES, -EACCES } },
	{ "mprotect of PROT_NONE", try_mprotect_from_none,
		{ 0, -EACCES, -EACCES, -EACCES } },
	{ "private mmap", try_map_private, { 0, 0, -EACCES, 0 } },
	{ "ftruncate", try_truncate, { 0, -EINVAL, 0, -EINVAL } },
	{ "fallocate", try_fill, { 0, -EBADF, 0, -EBADF } },
	{ "punch", try_punch, { 0, -EBADF, 0, -EBADF } },
	{ "FILE", try_file, { 0, -EACCES, -EACCES, -EPERM } },
	{ "FILE for reading", try_file_rdonly, { 0, 0, -EACCES, 0 } },
	{ "SNAPSHOT", try_snapshot, { 0, 0, -EACCES, 0 } },
	{ "SNAPSHOT, writable", try_clone, { 0, 0, -EACCES, 0 } },
	{ "SNAPSHOT of several", try_group, { 0, 0, -EACCES, 0 } },
	{ "RESTORE", try_restore, { 0, -EACCES, 0, -EPERM } },
	{ "RESTORE in place", try_restore_in_place, { 0, -EACCES, 0, -EPERM } },
	{ "RESTORE of a range", try_restore_range, { 0, -EACCES, 0, -EPERM } },
	{ "RESTORE from it", try_restore_from, { 0, 0, -EACCES, 0 } },
	{ "DIFF", try_diff, { 0, 0, -EACCES, 0 } },
	{ "DIFF with it", try_diff_with, { 0, 0, -EACCES, 0 } },
	{ "FICLONE", try_ficlone, { 0, -EBADF, 0, -EBADF } },
	{ "FICLONE from it", try_ficlone_from, { 0, 0, -EBADF, 0 } },
	{ "copy", try_copy, { 0, -EBADF, 0, -EBADF } },
	{ "copy from it", try_copy_from, { 0, 0, -EBADF, 0 } },
	/* It changes no content. */
	{ "dedupe", try_dedupe, { 0, 0, 0, 0 }, true,
		{ 0, -EPERM, 0, -EPERM } },
	{ "dedupe from it", try_dedupe_from, { 0, 0, -EINVAL, 0 } },
	{ "STAT", try_stat, { 0, 0, 0, 0 } },
	{ "fchmod", try_chmod, { 0, 0, 0, -EPERM }, true,
		{ -EPERM, -EPERM, -EPERM, -EPERM } },
	{ "futimens", try_set_times, { 0, 0, 0, -EPERM }, true,
		{ -EPERM, -EPERM, -EPERM, -EPERM } },
	{ "LIMIT", try_limit, { 0, 0, 0, 0 }, true,
		{ -EPERM, -EPERM, -EPERM, -EPERM } },
};

/* Runs in a child: the number of attempts that had another end. */
static int attempts_wrong(struct world *w, const struct person *person,
			  enum handle handle)
{
	int wrong = 0, got, want;
	unsigned int i;

	if (!become_person(person)) {
		printf("# cannot become that person: %s\n", strerror(errno));
		return 100;
	}
	for (i = 0; i < ARRAY_SIZE(attempts); i++) {
		const struct attempt *a = &attempts[i];

		want = a->owner_differs && person->uid ? a->stranger[handle] :
		       a->expected[handle];
		got = a->make(w, w->fd[handle]);
		if (got == want && file_filled(w->fd[READ_ONLY]) &&
		    file_filled(w->fd[FROZEN]) && file_filled(w->other))
			continue;
		printf("# %s: %d, not %d\n", a->name, got, want);
		wrong++;
	}
	fflush(stdout);
	return wrong;
}

FIXTURE(handle)
{
	struct world w;
};

FIXTURE_VARIANT(handle)
{
	struct person person;
};

FIXTURE_VARIANT_ADD(handle, owner) { };
FIXTURE_VARIANT_ADD(handle, owner_in_a_namespace) { { .namespace = true } };
FIXTURE_VARIANT_ADD(handle, stranger) { { .uid = NOBODY } };
FIXTURE_VARIANT_ADD(handle, stranger_in_a_namespace) {
	{ .uid = NOBODY, .namespace = true },
};

FIXTURE_SETUP(handle)
{
	world_init(_metadata, &self->w);
}

FIXTURE_TEARDOWN(handle)
{
	world_exit(&self->w);
}

TEST_F(handle, for_reading_and_writing)
{
	EXPECT_EQ(0, CHILD(_exit(attempts_wrong(&self->w, &variant->person,
						READ_WRITE))));
}

TEST_F(handle, for_reading)
{
	EXPECT_EQ(0, CHILD(_exit(attempts_wrong(&self->w, &variant->person,
						READ_ONLY))));
}

TEST_F(handle, for_writing)
{
	EXPECT_EQ(0, CHILD(_exit(attempts_wrong(&self->w, &variant->person,
						WRITE_ONLY))));
}

TEST_F(handle, of_a_frozen_buffer)
{
	EXPECT_EQ(0, CHILD(_exit(attempts_wrong(&self->w, &variant->person,
						FROZEN))));
}

/*
 * To open it again
 */

static const struct {
	const char *name;
	int flags;
	mode_t mode;		/* of the live buffer */
	int owner, stranger, frozen, frozen_stranger;
} reopenings[] = {
	{ "O_RDONLY", O_RDONLY, 0600, 0, -EACCES, 0, -EACCES },
	{ "O_WRONLY", O_WRONLY, 0600, 0, -EACCES, -EPERM, -EPERM },
	{ "O_RDWR", O_RDWR, 0600, 0, -EACCES, -EPERM, -EPERM },
	{ "O_APPEND", O_WRONLY | O_APPEND, 0600, 0, -EACCES, -EPERM, -EPERM },
	{ "O_PATH", O_PATH, 0600, 0, 0, 0, 0 },
	{ "0644, O_RDONLY", O_RDONLY, 0644, 0, 0, 0, -EACCES },
	{ "0644, O_RDWR", O_RDWR, 0644, 0, -EACCES, -EPERM, -EPERM },
	{ "0666, O_RDWR", O_RDWR, 0666, 0, 0, -EPERM, -EPERM },
};

/* In a child, with the handle for reading: the number of those that went wrong. */
static int reopenings_wrong(struct world *w, const struct person *person)
{
	int wrong = 0, got, frozen;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(reopenings); i++) {
		if (fchmod(w->fd[READ_WRITE], reopenings[i].mode))
			return 100;
		if (!CHILD({
			if (!become_person(person))
				_exit(100);
			got = try_close(reopen(w->fd[READ_ONLY],
					       reopenings[i].flags));
			frozen = try_close(reopen(w->fd[FROZEN],
						  reopenings[i].flags));
			if (got != (person->uid ? reopenings[i].stranger :
				    reopenings[i].owner) ||
			    frozen != (person->uid ? reopenings[i].frozen_stranger :
				       reopenings[i].frozen)) {
				printf("# %s: %d, frozen %d\n",
				       reopenings[i].name, got, frozen);
				fflush(stdout);
				_exit(1);
			}
		}))
			continue;
		wrong++;
	}
	return wrong;
}

TEST_F(handle, to_be_opened_again)
{
	EXPECT_EQ(0, reopenings_wrong(&self->w, &variant->person));
	EXPECT_TRUE(file_filled(self->w.fd[READ_ONLY]));
}

TEST_F(handle, path_cannot_be_truncated_by_others_nor_if_frozen)
{
	bool stranger = variant->person.uid;

	EXPECT_EQ(0, CHILD({
		char live[64];
		char frozen[64];

		snprintf(live, sizeof(live), "/proc/self/fd/%d",
			 self->w.fd[READ_ONLY]);
		snprintf(frozen, sizeof(frozen), "/proc/self/fd/%d",
			 self->w.fd[FROZEN]);
		if (!become_person(&variant->person))
			_exit(100);
		if (ret(truncate(live, SIZE)) != (stranger ? -EACCES : 0))
			_exit(1);
		if (ret(truncate(frozen, SIZE)) != -EPERM)
			_exit(2);
	}));
}

TEST_F(handle, device_is_opened_by_its_owner_only)
{
	int want = variant->person.uid ? -EACCES : 0;

	EXPECT_EQ(0, CHILD({
		if (!become_person(&variant->person))
			_exit(100);
		_exit(try_close(cow_open()) != want);
	}));
}

/*
 * A process that has a buffer of its own, open and mapped, for others to look into
 */

FIXTURE(holder)
{
	pid_t pid;
	int pipefd[2];
	/* As the holder has them. */
	int live, reader, frozen;
	char *p;
};

FIXTURE_SETUP(holder)
{
	int dev = cow_open(), status;

	ASSERT_GE(dev, 0);
	ASSERT_EQ(0, pipe(self->pipefd));
	self->pid = fork();
	if (!self->pid) {
		FIXTURE_DATA(holder) mine = { };

		if (!become(OTHER))
			_exit(1);
		mine.live = cow_create_on(dev, SIZE, "held", 0);
		mine.reader = cow_file(mine.live, COWMEM_RDONLY);
		mine.p = cow_map(mine.live, SIZE, RW);
		fill_pages(mine.p, NR);
		mine.frozen = cow_snapshot(mine.live, 0);
		if (write(self->pipefd[1], &mine, sizeof(mine)) != sizeof(mine))
			_exit(1);
		raise(SIGSTOP);
		_exit(!pages_filled(mine.p, 0, NR) || !file_filled(mine.frozen));
	} else {
		FIXTURE_DATA(holder) theirs;

		close(dev);
		ASSERT_EQ(self->pid, waitpid(self->pid, &status, WUNTRACED));
		ASSERT_TRUE(WIFSTOPPED(status));
		ASSERT_EQ(sizeof(theirs),
			  read(self->pipefd[0], &theirs, sizeof(theirs)));
		self->live = theirs.live;
		self->reader = theirs.reader;
		self->frozen = theirs.frozen;
		self->p = theirs.p;
	}
}

/* Nobody has changed it. */
FIXTURE_TEARDOWN(holder)
{
	EXPECT_EQ(0, child_finish(self->pid));
	pipe_close(self->pipefd);
}

static int open_of(pid_t pid, int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
	return try_close(ret(open(path, flags | O_CLOEXEC)));
}

/* By the name that the kernel gives to a mapping. */
static int open_mapping(pid_t pid, const char *p, size_t length, int flags)
{
	char path[96];

	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", pid,
		 (unsigned long)p, (unsigned long)p + length);
	return try_close(ret(open(path, flags | O_CLOEXEC)));
}

static int take_fd(pid_t pid, int fd)
{
	int pidfd = syscall(SYS_pidfd_open, pid, 0), err;

	if (pidfd < 0)
		return -errno;
	err = try_close(ret(syscall(SYS_pidfd_getfd, pidfd, fd, 0)));
	close(pidfd);
	return err;
}

/* In a child: what failed, or 0. */
static int stranger_gets_in(FIXTURE_DATA(holder) *self)
{
	char path[64], data = '!';
	struct iovec local = { &data, 1 }, remote = { self->p, 1 };

	snprintf(path, sizeof(path), "/proc/%d/mem", self->pid);
	if (open_of(self->pid, self->live, O_RDONLY) != -EACCES ||
	    open_of(self->pid, self->live, O_RDWR) != -EACCES ||
	    open_of(self->pid, self->frozen, O_RDONLY) != -EACCES)
		return 1;
	if (open_mapping(self->pid, self->p, SIZE, O_RDONLY) != -EACCES &&
	    open_mapping(self->pid, self->p, SIZE, O_RDONLY) != -EPERM)
		return 2;
	if (take_fd(self->pid, self->live) != -EPERM)
		return 3;
	if (try_close(ret(open(path, O_RDWR))) != -EACCES)
		return 4;
	if (ret(process_vm_writev(self->pid, &local, 1, &remote, 1, 0)) != -EPERM ||
	    ret(process_vm_readv(self->pid, &local, 1, &remote, 1, 0)) != -EPERM)
		return 5;
	if (ret(ptrace(PTRACE_ATTACH, self->pid, NULL, NULL)) != -EPERM)
		return 6;
	return 0;
}

TEST_F(holder, stranger_gets_at_nothing)
{
	EXPECT_EQ(0, CHILD(_exit(become(NOBODY) ? stranger_gets_in(self) : 100)))
		TH_LOG("see stranger_gets_in()");
}

TEST_F(holder, root_of_another_namespace_gets_at_nothing)
{
	EXPECT_EQ(0, CHILD({
		if (!become(NOBODY) || !enter_namespace())
			_exit(100);
		_exit(stranger_gets_in(self));
	}))
		TH_LOG("see stranger_gets_in()");
}

/* As with any file: it is the mode that counts, not how the handle was opened. */
TEST_F(holder, same_user_opens_it_but_not_for_writing_if_frozen)
{
	EXPECT_EQ(0, CHILD({
		if (!become(OTHER))
			_exit(100);
		if (open_of(self->pid, self->live, O_RDWR) ||
		    open_of(self->pid, self->reader, O_RDWR) ||
		    open_of(self->pid, self->frozen, O_RDONLY))
			_exit(1);
		if (open_of(self->pid, self->frozen, O_RDWR) != -EPERM ||
		    open_of(self->pid, self->frozen, O_WRONLY) != -EPERM ||
		    open_of(self->pid, self->frozen,
			    O_RDONLY | O_TRUNC) != -EPERM)
			_exit(2);
	}));
}

/*
 * Whose it is, what one makes
 */

static bool belongs_to(int fd, uid_t uid)
{
	struct stat st;

	return !fstat(fd, &st) && st.st_uid == uid &&
	       st.st_mode == (S_IFREG | 0600);
}

/* In a child, which sends what it made of a buffer of another: what failed. */
static int make_some(int fd, int sock, bool namespace)
{
	struct person stranger = { .uid = NOBODY, .namespace = namespace };
	uid_t uid = namespace ? 0 : NOBODY;
	int snap, clone;

	if (!become_person(&stranger))
		return 100;
	snap = cow_snapshot(fd, 0);
	clone = cow_snapshot(fd, COWMEM_WRITABLE);
	if (!belongs_to(snap, uid) || !belongs_to(clone, uid))
		return 1;
	if (try_close(reopen(snap, O_RDONLY)) ||
	    try_close(reopen(snap, O_RDWR)) != -EPERM ||
	    try_close(reopen(clone, O_RDWR)))
		return 2;
	if (fchmod(clone, 0600) || fchmod(snap, 0600) != -1)
		return 3;
	if (!write_byte(clone, 0, '!') || send_fd(sock, snap) ||
	    send_fd(sock, clone))
		return 4;
	return 0;
}

FIXTURE(made)
{
	struct world w;
	int sock[2];
};

FIXTURE_VARIANT(made)
{
	bool namespace;
};

FIXTURE_VARIANT_ADD(made, by_a_stranger) { .namespace = false };
FIXTURE_VARIANT_ADD(made, in_a_namespace) { .namespace = true };

FIXTURE_SETUP(made)
{
	world_init(_metadata, &self->w);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, self->sock));
}

FIXTURE_TEARDOWN(made)
{
	world_exit(&self->w);
	pipe_close(self->sock);
}

TEST_F(made, belongs_to_its_maker)
{
	int snap, clone;

	EXPECT_EQ(0, CHILD(_exit(make_some(self->w.fd[READ_ONLY], self->sock[1],
					   variant->namespace))))
		TH_LOG("see make_some()");
	snap = receive_fd(self->sock[0]);
	clone = receive_fd(self->sock[0]);
	ASSERT_GE(snap, 0);
	ASSERT_GE(clone, 0);
	EXPECT_TRUE(belongs_to(snap, NOBODY));
	EXPECT_TRUE(belongs_to(clone, NOBODY));
	EXPECT_EQ(0, CHILD({
		if (!become(OTHER))
			_exit(100);
		if (try_close(reopen(snap, O_RDONLY)) != -EACCES ||
		    try_close(reopen(clone, O_RDONLY)) != -EACCES ||
		    try_close(reopen(clone, O_RDWR)) != -EACCES)
			_exit(1);
	}));
	EXPECT_TRUE(file_filled(snap));
	EXPECT_EQ('!', read_byte(clone, 0));
	EXPECT_TRUE(file_filled(self->w.fd[FROZEN]));
	EXPECT_TRUE(pages_filled(self->w.p, 0, NR));
	close(snap);
	close(clone);
}

/*
 * Frozen is frozen
 */

FIXTURE(frozen)
{
	int origin, fd;
	char *live, *p, *private;
};

FIXTURE_VARIANT(frozen)
{
	bool loaded;	/* before it is tried */
	bool pinnable;
};

FIXTURE_VARIANT_ADD(frozen, not_yet_loaded) { .loaded = false };
FIXTURE_VARIANT_ADD(frozen, loaded) { .loaded = true };
FIXTURE_VARIANT_ADD(frozen, pinnable_origin) { .loaded = true, .pinnable = true };

FIXTURE_SETUP(frozen)
{
	if (variant->pinnable)
		NEED(PINNABLE);
	self->origin = cow_create_flags(SIZE, "frozen",
					variant->pinnable ? COWMEM_PINNABLE : 0);
	ASSERT_GE(self->origin, 0);
	self->live = cow_map(self->origin, SIZE, RW);
	ASSERT_NE(MAP_FAILED, self->live);
	fill_pages(self->live, NR);
	self->fd = cow_snapshot(self->origin, 0);
	ASSERT_GE(self->fd, 0);
	self->p = cow_map(self->fd, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, self->p);
	self->private = map_private(self->fd, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, self->private);
	if (variant->loaded) {
		ASSERT_TRUE(pages_filled(self->p, 0, NR));
		ASSERT_TRUE(pages_filled(self->private, 0, NR));
	}
}

/* Neither it nor its origin has anything of what was tried. */
FIXTURE_TEARDOWN(frozen)
{
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	EXPECT_TRUE(file_filled(self->fd));
	EXPECT_TRUE(pages_filled(self->live, 0, NR));
	EXPECT_TRUE(file_filled(self->origin));
	munmap(self->live, SIZE);
	munmap(self->p, SIZE);
	munmap(self->private, SIZE);
	close(self->fd);
	close(self->origin);
}

/* Through a mapping that is only to be read, as a debugger does: 1 or -errno. */
static int force(char *p)
{
	int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC), done;

	done = ret(pwrite(mem, "!", 1, (uintptr_t)p));
	close(mem);
	return done;
}

/* Some kernels let only a tracer override. */
static bool forces(void)
{
	char *p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool forced = force(p) == 1;

	munmap(p, PAGE);
	return forced;
}

TEST_F(frozen, forced_store_to_a_shared_mapping_fails)
{
	EXPECT_EQ(-EIO, force(self->p));
	EXPECT_EQ(-EIO, force(self->p + SIZE - 1));
}

TEST_F(frozen, forced_store_to_a_private_mapping_is_private)
{
	int snap;

	if (!forces())
		SKIP(return, "the kernel does not let /proc/PID/mem override");
	ASSERT_EQ(1, force(self->private));
	EXPECT_EQ('!', self->private[0]);
	/* A page that is its own, and a snapshot between two. */
	snap = cow_snapshot(self->fd, 0);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(1, force(self->private + 1));
	EXPECT_EQ('!', self->private[1]);
	EXPECT_EQ(value_of(0), self->private[2]);
	EXPECT_TRUE(file_filled(snap));
	/* Dropped, it shows what is frozen. */
	ASSERT_EQ(0, madvise(self->private, PAGE, MADV_DONTNEED));
	EXPECT_TRUE(pages_filled(self->private, 0, NR));
	close(snap);
}

TEST_F(frozen, debugger_pokes_a_private_mapping_only)
{
	long word = 0x2121212121212121;
	pid_t pid = CHILD_START({
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
	});

	ASSERT_TRUE(child_stopped(pid));
	EXPECT_EQ(-1, ptrace(PTRACE_POKEDATA, pid, self->p, word));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(0, ptrace(PTRACE_POKEDATA, pid, self->private, word));
	EXPECT_EQ(word, ptrace(PTRACE_PEEKDATA, pid, self->private, NULL));
	EXPECT_TRUE(pages_filled(self->private, 0, NR));
	kill(pid, SIGKILL);
	child_finish(pid);
}

TEST_F(frozen, other_processes_cannot_write_it_by_address)
{
	char data = '!';
	struct iovec local = { &data, 1 }, remote = { self->p, 1 };

	EXPECT_EQ(-EFAULT, ret(process_vm_writev(getpid(), &local, 1, &remote,
						 1, 0)));
	remote.iov_base = self->private;
	EXPECT_EQ(-EFAULT, ret(process_vm_writev(getpid(), &local, 1, &remote,
						 1, 0)));
	EXPECT_EQ(-EFAULT, ret(pread(self->origin, self->p, 1, 0)));
}

TEST_F(frozen, mapping_that_moves_or_is_inherited_stays_read_only)
{
	self->p = moved(self->p, SIZE);
	ASSERT_NE(MAP_FAILED, self->p);
	EXPECT_EQ(-EACCES, ret(mprotect(self->p, SIZE, RW)));
	EXPECT_EQ(-EACCES, ret(mprotect(self->p + PAGE, PAGE, PROT_WRITE)));
	EXPECT_EQ(0, CHILD({
		if (ret(mprotect(self->p, SIZE, RW)) != -EACCES)
			_exit(1);
		if (COW_TRY(*(volatile char *)self->p = '!') != SIGSEGV)
			_exit(2);
	}));
	EXPECT_EQ(SIGSEGV, COW_TRY(*(volatile char *)self->p = '!'));
}

TEST_F(frozen, private_mapping_made_writable_is_private)
{
	ASSERT_EQ(0, mprotect(self->private, SIZE, RW));
	memset(self->private, '!', SIZE);
	EXPECT_TRUE(page_is(self->private, '!'));
}

TEST_F(frozen, mapping_is_not_a_way_to_open_it_for_writing)
{
	EXPECT_EQ(0, open_mapping(getpid(), self->p, SIZE, O_RDONLY));
	EXPECT_EQ(-EPERM, open_mapping(getpid(), self->p, SIZE, O_RDWR));
	EXPECT_EQ(-EPERM, open_mapping(getpid(), self->private, SIZE, O_RDWR));
	EXPECT_EQ(-EPERM, open_mapping(getpid(), self->p, SIZE,
				       O_RDONLY | O_TRUNC));
	EXPECT_EQ(0, open_mapping(getpid(), self->live, SIZE, O_RDWR));
}

/*
 * The race that was called Dirty COW: a store is forced upon a private mapping
 * while its copy is taken away.
 */

#define RACE_SECONDS	1.0

struct race {
	int fd;			/* is mapped and must not change */
	int origin;		/* snapshots are taken of it meanwhile; -1: no */
	char *private;
	atomic_bool stop;
	atomic_ulong dropped, forced;
};

static void *race_drop(void *data)
{
	struct race *race = data;

	while (!race->stop) {
		madvise(race->private, PAGE, MADV_DONTNEED);
		race->dropped++;
	}
	return NULL;
}

static void *race_force(void *data)
{
	struct race *race = data;
	int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);

	while (!race->stop)
		race->forced += pwrite(mem, "!", 1, (uintptr_t)race->private) == 1;
	close(mem);
	return NULL;
}

FIXTURE(dirty_cow)
{
	int live, snap;
	char *p;
	struct race race;
};

FIXTURE_VARIANT(dirty_cow)
{
	bool frozen;		/* the snapshot is mapped, not the buffer */
	bool shared;		/* there is a snapshot */
	bool snapshots;		/* more are taken meanwhile */
	int prot;
};

FIXTURE_VARIANT_ADD(dirty_cow, frozen) {
	.frozen = true, .shared = true, .prot = PROT_READ,
};
FIXTURE_VARIANT_ADD(dirty_cow, frozen_beside_snapshots) {
	.frozen = true, .shared = true, .snapshots = true, .prot = PROT_READ,
};
FIXTURE_VARIANT_ADD(dirty_cow, live) { .prot = PROT_READ };
FIXTURE_VARIANT_ADD(dirty_cow, live_and_shared) {
	.shared = true, .prot = PROT_READ,
};
FIXTURE_VARIANT_ADD(dirty_cow, live_beside_snapshots) {
	.shared = true, .snapshots = true, .prot = PROT_READ,
};
FIXTURE_VARIANT_ADD(dirty_cow, writable_mapping) {
	.frozen = true, .shared = true, .prot = RW,
};

FIXTURE_SETUP(dirty_cow)
{
	self->live = cow_create_mapped(SIZE, "dirty cow", &self->p);
	ASSERT_GE(self->live, 0);
	fill_pages(self->p, NR);
	self->snap = variant->shared ? cow_snapshot(self->live, 0) : -1;
	if (variant->shared)
		ASSERT_GE(self->snap, 0);
	self->race.fd = variant->frozen ? self->snap : self->live;
	self->race.origin = variant->snapshots ? self->live : -1;
	self->race.private = map_private(self->race.fd, SIZE, variant->prot);
	ASSERT_NE(MAP_FAILED, self->race.private);
}

FIXTURE_TEARDOWN(dirty_cow)
{
	munmap(self->p, SIZE);
	munmap(self->race.private, SIZE);
	close(self->live);
	if (variant->shared)
		close(self->snap);
}

/* What the main thread does meanwhile; false: something is wrong. */
static bool race_look(struct race *race)
{
	int snap = -1;
	bool filled;

	if (race->origin < 0)
		return file_filled(race->fd);
	snap = cow_snapshot(race->origin, 0);
	filled = snap >= 0 && file_filled(snap) && file_filled(race->fd);
	close(snap);
	return filled;
}

TEST_F(dirty_cow, stores_are_private)
{
	struct race *race = &self->race;
	double end = seconds_now() + RACE_SECONDS;
	pthread_t dropper, forcer;
	unsigned long bad = 0;

	if (variant->prot == PROT_READ && !forces())
		SKIP(return, "the kernel does not let /proc/PID/mem override");
	ASSERT_EQ(0, pthread_create(&dropper, NULL, race_drop, race));
	ASSERT_EQ(0, pthread_create(&forcer, NULL, race_force, race));
	while (seconds_now() < end || race->forced < 100 || race->dropped < 100)
		bad += !race_look(race);
	race->stop = true;
	pthread_join(dropper, NULL);
	pthread_join(forcer, NULL);
	TH_LOG("%lu times forced, %lu times dropped", race->forced, race->dropped);
	EXPECT_EQ(0, bad);
	EXPECT_TRUE(file_filled(self->live));
	EXPECT_TRUE(pages_filled(self->p, 0, NR));
	if (variant->shared)
		EXPECT_TRUE(file_filled(self->snap));
	/* Without the race, one store, and it is private. */
	ASSERT_EQ(0, madvise(race->private, PAGE, MADV_DONTNEED));
	EXPECT_TRUE(pages_filled(race->private, 0, NR));
	EXPECT_EQ(1, force(race->private));
	EXPECT_EQ('!', race->private[0]);
	EXPECT_TRUE(file_filled(race->fd));
}

TEST_HARNESS_MAIN
