// SPDX-License-Identifier: GPL-2.0
/*
 * Sudden death: processes that do one thing over and over, with the same buffers,
 * end at random moments of it: by SIGKILL, because one of their threads exits, or
 * because one calls exec().  A witness has these buffers, too, and then finds that
 *
 *	the frozen snapshot is as it was,
 *	each page has what it had before or what it was to get, and if all of it
 *	comes at one moment, either all of it or nothing is there,
 *	each buffer can still be read, written, snapshotted and restored,
 *	and, once all is closed, no page and no node is left.
 *
 * Signals that do not kill change nothing at all.
 *
 *	COWMEM_DEATHS		of each operation, four at a time (32)
 *	COWMEM_SEED		of the delays until they die (1)
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <linux/falloc.h>

#include "common.h"
#include "harness.h"
#include "util.h"

#define PAGES		128UL
#define LENGTH		(PAGES * PAGE)
#define HALF		(LENGTH / 2)
#define WORDS		(PAGE / sizeof(uint64_t))
#define MAX_DELAY	2000	/* microseconds */
#define MAX_SECONDS	60	/* of one death, and what comes after it */
#define GONE		"gone"	/* argument of a process that ends at once */

/*
 * What is in a page: all its words are the same, but that the first may be STORED,
 * and the first and the last of any kind that is allowed.
 */
#define ZERO		(1U << 0)
#define OLD		(1U << 1)	/* at first in the target */
#define NEW		(1U << 2)	/* what the source has there */
#define MOVED		(1U << 3)	/* what the source has half its size away */
#define STORED		(1U << 4)

static uint64_t word_of(unsigned int kind, unsigned long index)
{
	return (uint64_t)kind << 32 | index;
}

static unsigned int kind_of(uint64_t word, unsigned long index)
{
	if (!word)
		return ZERO;
	if (word == word_of(NEW, (index + PAGES / 2) % PAGES))
		return MOVED;
	return word % PAGES == index % PAGES ? word >> 32 : 0;
}

/* One page, of which there is what @allowed says; 0: there is not. */
static unsigned int page_kind(const uint64_t *page, unsigned long index,
			      unsigned int allowed)
{
	unsigned int first = kind_of(page[0], index);
	unsigned int last = kind_of(page[WORDS - 1], index) |
			    kind_of(page[WORDS - 1], index + 1);

	if (memcmp(&page[1], &page[2], PAGE - 3 * sizeof(*page)))
		return 0;
	if (!(first & allowed) || !(last & allowed & ~STORED))
		return 0;
	return kind_of(page[1], index) & allowed & ~STORED;
}

static uint64_t old_data[LENGTH / sizeof(uint64_t)];
static uint64_t new_data[LENGTH / sizeof(uint64_t)];

static void fill_data(uint64_t *data, unsigned int kind)
{
	for (unsigned long i = 0; i < LENGTH / sizeof(*data); i++)
		data[i] = word_of(kind, i / WORDS);
}

/*
 * What dies
 */

/* One of each works at the same time. */
enum family { ALONE, THREADS, FORKED, SENT, NR_FAMILIES };
enum way { KILLED, EXITS, EXECS, NR_WAYS };

/* In shared memory: how far they are that may be dead. */
struct progress {
	atomic_bool started[NR_FAMILIES];
	atomic_ulong entered, left;	/* what they do */
	atomic_ulong signals;		/* handled in the midst of it */
	atomic_long error;
};

struct world {
	int target, source, frozen;
	char *map;			/* of the target */
	char *source_map;
	struct progress *progress;
};

struct worker {
	const struct world *world;
	unsigned long round;
	int pipe[2];
	int own;
	char *memory;
};

/* What is to be interrupted: its result, or -errno. */
#define CALL(w, expression) ({						\
	struct progress *_progress = (w)->world->progress;		\
	long _value;							\
									\
	_progress->entered++;						\
	_value = ret(expression);					\
	_progress->left++;						\
	_value;								\
})

/* 0, -errno, or -ENODATA: less than was asked for. */
static long all_of(long done, long wanted)
{
	return done < 0 ? done : done == wanted ? 0 : -ENODATA;
}

static long shut(long fd)
{
	return fd < 0 ? fd : ret(close(fd));
}

static long write_data(int fd, const void *data)
{
	return all_of(ret(pwrite(fd, data, LENGTH, 0)), LENGTH);
}

/* All that is not whole is made so. */
static long put_back(struct worker *w)
{
	return cow_restore(w->world->target, w->world->frozen, 0);
}

static long prepare_pipe(struct worker *w)
{
	return ret(pipe(w->pipe)) ?:
	       all_of(ret(fcntl(w->pipe[1], F_SETPIPE_SZ, HALF)), HALF);
}

static long prepare_memory(struct worker *w)
{
	w->memory = mmap(NULL, LENGTH, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return w->memory == MAP_FAILED ? -errno : 0;
}

static long do_snapshot(struct worker *w)
{
	uint32_t flags = w->round % 2 ? COWMEM_WRITABLE : 0;

	return write_data(w->world->target, old_data) ?:
	       shut(CALL(w, cow_snapshot(w->world->target, flags)));
}

static long do_snapshot_range(struct worker *w)
{
	return write_data(w->world->target, old_data) ?:
	       shut(CALL(w, cow_snapshot_range(w->world->target, 0, HALF, HALF)));
}

/* Half of the pages, which each snapshot then has to copy. */
static long prepare_pinned(struct worker *w)
{
	struct iovec iov = { w->world->map, HALF };

	return prepare_pipe(w) ?: write_data(w->world->target, old_data) ?:
	       all_of(ret(vmsplice(w->pipe[1], &iov, 1, 0)), HALF);
}

static long do_pinned(struct worker *w)
{
	return shut(CALL(w, cow_snapshot(w->world->target, 0)));
}

static long prepare_own(struct worker *w)
{
	w->own = cow_create(LENGTH, "own");
	return w->own < 0 ? w->own : 0;
}

static long do_group(struct worker *w)
{
	struct cowmem_member members[] = {
		{ .fd = w->world->target },
		{ .fd = w->world->source },
		{ .fd = w->own },
	};
	long err = write_data(w->own, old_data);

	if (!err)
		err = CALL(w, cow_snapshot_group(w->own, 0, members, 3));
	for (int i = 0; i < 3 && !err; i++)
		err = shut(members[i].snapshot_fd);
	return err;
}

static long do_restore(struct worker *w)
{
	return CALL(w, cow_restore(w->world->target, w->world->source, 0)) ?:
	       CALL(w, cow_restore(w->world->target, w->world->frozen, 0));
}

static long do_restore_in_place(struct worker *w)
{
	return write_data(w->world->target, new_data) ?:
	       CALL(w, cow_restore(w->world->target, w->world->frozen,
				   COWMEM_IN_PLACE));
}

static long do_restore_moved(struct worker *w)
{
	int to = w->world->target, from = w->world->source;

	return CALL(w, cow_restore_range(to, 0, from, HALF, HALF, 0)) ?:
	       CALL(w, cow_restore_range(to, HALF, from, 0, HALF, 0)) ?:
	       put_back(w);
}

static long do_clone(struct worker *w)
{
	return CALL(w, ioctl(w->world->target, FICLONE, w->world->source)) ?:
	       CALL(w, ioctl(w->world->target, FICLONE, w->world->frozen));
}

static long do_clone_moved(struct worker *w)
{
	int to = w->world->target, from = w->world->source;

	return CALL(w, cow_clone_range(to, 0, from, HALF, HALF)) ?:
	       CALL(w, cow_clone_range(to, HALF, from, 0, HALF)) ?:
	       put_back(w);
}

/* Byte by byte. */
static long do_copy(struct worker *w)
{
	size_t bytes = LENGTH - sizeof(uint64_t);

	return all_of(CALL(w, copy_range(w->world->target, 0, w->world->source,
					 sizeof(uint64_t), bytes)), bytes) ?:
	       put_back(w);
}

/* The frozen one, too, gets pages of the other. */
static long do_dedupe(struct worker *w)
{
	int to = w->world->target, from = w->world->frozen;
	long err = write_data(to, old_data);

	if (w->round % 2) {
		to = w->world->frozen;
		from = w->world->target;
	}
	return err ?: all_of(CALL(w, cow_dedupe(to, 0, from, 0, LENGTH)), LENGTH);
}

static long prepare_diff(struct worker *w)
{
	long err = 0;

	for (unsigned long i = 0; i < PAGES && !err; i += 2)
		err = all_of(ret(pwrite(w->world->target, &new_data[i * WORDS],
					PAGE, i * PAGE)), PAGE);
	return err;
}

static long do_diff(struct worker *w)
{
	static _Thread_local struct cowmem_extent extents[PAGES];
	uint64_t cursor = 0;

	return all_of(CALL(w, cow_diff(w->world->target, w->world->frozen,
				       extents, PAGES, &cursor)), PAGES / 2);
}

static long do_fill(struct worker *w)
{
	int fd = w->world->target;

	return ret(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			     LENGTH)) ?:
	       CALL(w, fallocate(fd, 0, 0, LENGTH)) ?:
	       CALL(w, fallocate(fd, FALLOC_FL_KEEP_SIZE, HALF, LENGTH)) ?:
	       put_back(w);
}

static long do_punch(struct worker *w)
{
	return CALL(w, fallocate(w->world->target,
				 FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				 sizeof(uint64_t), LENGTH - 2 * sizeof(uint64_t))) ?:
	       put_back(w);
}

static long do_remove(struct worker *w)
{
	return CALL(w, madvise(w->world->map, LENGTH, MADV_REMOVE)) ?: put_back(w);
}

static long do_zero(struct worker *w)
{
	return CALL(w, fallocate(w->world->target, FALLOC_FL_ZERO_RANGE,
				 sizeof(uint64_t), LENGTH - 2 * sizeof(uint64_t))) ?:
	       put_back(w);
}

static long do_unshare(struct worker *w)
{
	return CALL(w, fallocate(w->world->target, FALLOC_FL_UNSHARE_RANGE, 0,
				 LENGTH)) ?:
	       put_back(w);
}

static long do_truncate(struct worker *w)
{
	return CALL(w, ftruncate(w->world->target, HALF + sizeof(uint64_t))) ?:
	       CALL(w, ftruncate(w->world->target, LENGTH)) ?: put_back(w);
}

static long do_extend(struct worker *w)
{
	return CALL(w, ftruncate(w->world->target, 0)) ?:
	       CALL(w, write_data(w->world->target, old_data));
}

static long do_write(struct worker *w)
{
	return CALL(w, write_data(w->world->target, new_data)) ?:
	       CALL(w, write_data(w->world->target, old_data));
}

/* Each page of what is written has to be faulted in. */
static long do_write_mapped(struct worker *w)
{
	return ret(madvise(w->world->source_map, LENGTH, MADV_DONTNEED)) ?:
	       CALL(w, write_data(w->world->target, w->world->source_map)) ?:
	       put_back(w);
}

static long do_read(struct worker *w)
{
	return ret(madvise(w->memory, LENGTH, MADV_DONTNEED)) ?:
	       all_of(CALL(w, pread(w->world->target, w->memory, LENGTH, 0)), LENGTH);
}

/* Of any file it returns early if a signal is to be handled. */
static long splice_all(struct worker *w, int in, loff_t *in_offset, int out,
		       loff_t *out_offset, long left)
{
	long n;

	while (left) {
		n = CALL(w, splice(in, in_offset, out, out_offset, left, 0));
		if (n < 0 && n != -EINTR)
			return n;
		if (n > 0)
			left -= n;
	}
	return 0;
}

static long do_splice(struct worker *w)
{
	loff_t from = 0, to = 0;
	long err = 0;

	while (to < LENGTH && !err)
		err = splice_all(w, w->world->source, &from, w->pipe[1], NULL, HALF) ?:
		      splice_all(w, w->pipe[0], NULL, w->world->target, &to, HALF);
	return err ?: put_back(w);
}

static long store_all(char *map)
{
	for (unsigned long i = 0; i < PAGES; i++)
		*page_word(map, i) = word_of(STORED, i);
	return 0;
}

static long load_all(char *map)
{
	for (unsigned long i = 0; i < PAGES; i++)
		(void)*(volatile char *)(map + i * PAGE);
	return 0;
}

static long do_store(struct worker *w)
{
	return CALL(w, store_all(w->world->map)) ?: put_back(w);
}

static long do_load(struct worker *w)
{
	return CALL(w, load_all(w->world->map)) ?:
	       ret(madvise(w->world->map, LENGTH, MADV_DONTNEED));
}

static long prepare_private(struct worker *w)
{
	w->memory = map_private(w->world->target, LENGTH, RW);
	return w->memory == MAP_FAILED ? -errno : 0;
}

static long do_store_private(struct worker *w)
{
	return CALL(w, store_all(w->memory)) ?:
	       ret(madvise(w->memory, LENGTH, MADV_DONTNEED));
}

static long do_populate(struct worker *w)
{
	return CALL(w, madvise(w->world->map, LENGTH, MADV_POPULATE_WRITE)) ?:
	       put_back(w);
}

/* Stores, but by the kernel, which holds each page meanwhile. */
static long do_process_write(struct worker *w)
{
	struct iovec from = { new_data, LENGTH }, to = { w->world->map, LENGTH };

	return all_of(CALL(w, process_vm_writev(getpid(), &from, 1, &to, 1, 0)),
		      LENGTH) ?:
	       put_back(w);
}

static long do_map(struct worker *w)
{
	long at = CALL(w, (long)cow_map(w->world->target, LENGTH, RW));

	if (at < 0)
		return at;
	for (unsigned long i = 0; i < PAGES; i += 8)
		*page_word((char *)at, i) = word_of(STORED, i);
	at = CALL(w, (long)moved((char *)at, LENGTH));
	return at < 0 ? at : CALL(w, munmap((char *)at, LENGTH));
}

static long do_close(struct worker *w)
{
	int fd = cow_snapshot(w->world->target, COWMEM_WRITABLE);

	if (fd < 0)
		return fd;
	return write_data(fd, new_data) ?: CALL(w, close(fd));
}

static long do_open(struct worker *w)
{
	long dev = CALL(w, cow_open()), file = CALL(w, cow_file(dev, 0));
	long again = CALL(w, reopen(file, O_RDWR));

	return shut(CALL(w, cow_create_on(dev, LENGTH, "new", 0))) ?:
	       shut(again) ?: shut(file) ?: shut(dev);
}

static pid_t fork_and_exit(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	return pid;
}

/* With all their mappings. */
static long do_fork(struct worker *w)
{
	long pid;

	load_all(w->world->map);
	pid = CALL(w, fork_and_exit());
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return pid < 0 ? pid : 0;
}

/*
 * How it dies
 */

struct operation {
	long (*prepare)(struct worker *w);
	long (*run)(struct worker *w);
	unsigned int allowed;	/* what the target may have then */
	bool whole;		/* of one kind only */
	bool resizes;
	bool quick;		/* hardly ever interrupted */
};

struct death {
	enum family family;
	enum way way;
	bool at_work;		/* not before it has begun to work */
	unsigned int delay;
};

struct work {
	const struct world *world;
	const struct operation *op;
	enum family family;
};

static void *work(void *data)
{
	const struct work *work = data;
	struct progress *progress = work->world->progress;
	struct worker worker = { .world = work->world };
	long err = work->op->prepare ? work->op->prepare(&worker) : 0;

	progress->started[work->family] = true;
	for (; !err; worker.round++)
		err = work->op->run(&worker);
	progress->error = err;
	return NULL;
}

/* Gets its buffers from its parent, and maps them itself. */
static void work_with_sent(const struct work *parents, int sock)
{
	struct world world = *parents->world;
	struct work mine = { &world, parents->op, parents->family };

	close(world.target);
	close(world.source);
	close(world.frozen);
	munmap(world.map, LENGTH);
	munmap(world.source_map, LENGTH);
	world.target = receive_fd(sock);
	world.source = receive_fd(sock);
	world.frozen = receive_fd(sock);
	world.map = cow_map(world.target, LENGTH, RW);
	world.source_map = cow_map(world.source, LENGTH, PROT_READ);
	if (world.map == MAP_FAILED || world.source_map == MAP_FAILED)
		world.progress->error = -errno;
	work(&mine);
}

/* Another one is on its way for ever. */
static void send_all(const struct world *world, int sock)
{
	if (send_fd(sock, world->target) || send_fd(sock, world->source) ||
	    send_fd(sock, world->frozen) || send_fd(sock, world->target))
		world->progress->error = -errno;
}

static void start_family(struct work *shared)
{
	unsigned int nr = shared->family == THREADS ? 3 : 1;
	pthread_t thread;
	int socks[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, socks))
		shared->world->progress->error = -errno;
	if (shared->family >= FORKED && !fork()) {
		if (shared->family == SENT)
			work_with_sent(shared, socks[1]);
		else
			work(shared);
		pause();
	}
	if (shared->family == SENT)
		send_all(shared->world, socks[0]);
	while (nr--)
		pthread_create(&thread, NULL, work, shared);
}

static void wait_to_die(const struct death *death, struct progress *progress)
{
	while (death->at_work && !progress->started[death->family] &&
	       !progress->error)
		usleep(100);
	usleep(death->delay);
}

static void live(const struct death *death, const struct operation *op,
		 const struct world *world)
{
	struct work shared = { world, op, death->family };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setpgid(0, 0);
	start_family(&shared);
	if (death->way == KILLED)
		pause();
	wait_to_die(death, world->progress);
	if (death->way == EXECS)
		execl("/proc/self/exe", "death", GONE, NULL);
	_exit(0);
}

/* What live() executes. */
static __attribute__((constructor)) void end_at_once(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], GONE))
		_exit(0);
}

/* Are all dead in the way that they should be? */
static bool die(const struct death *deaths, const struct operation *op,
		const struct world *world)
{
	pid_t pids[NR_FAMILIES];
	siginfo_t info;
	int status;
	bool ok = true;

	for (int i = 0; i < NR_FAMILIES; i++) {
		pids[i] = fork();
		if (!pids[i])
			live(&deaths[i], op, world);
	}
	for (int i = 0; i < NR_FAMILIES; i++) {
		if (deaths[i].way == KILLED) {
			wait_to_die(&deaths[i], world->progress);
			kill(pids[i], SIGKILL);
		}
	}
	for (int i = 0; i < NR_FAMILIES; i++) {
		/* Its number remains, so that its child is found. */
		waitid(P_PID, pids[i], &info, WEXITED | WNOWAIT);
		kill(-pids[i], SIGKILL);
		waitpid(pids[i], &status, 0);
		if (status != (deaths[i].way == KILLED ? SIGKILL : 0))
			ok = false;
	}
	while (wait(NULL) > 0)
		;
	return ok;
}

/*
 * What the witness finds
 */

/* In shared memory: no fork() has it copied. */
static uint64_t *seen;

/* The kinds of its pages; 0: there is something else. */
static unsigned int content(int fd, unsigned int allowed)
{
	ssize_t bytes = pread(fd, seen, LENGTH, 0);
	unsigned int kinds = 0, kind;

	if (bytes < 0)
		return 0;
	memset((char *)seen + bytes, 0, LENGTH - bytes);
	for (unsigned long i = 0; i < page_up(bytes) / PAGE; i++) {
		kind = page_kind(&seen[i * WORDS], i, allowed);
		if (!kind)
			return 0;
		kinds |= kind;
	}
	return bytes ? kinds : allowed;
}

static bool size_allowed(const struct operation *op, off_t size)
{
	if (size == LENGTH)
		return true;
	return op->resizes && size < LENGTH &&
	       (size % PAGE == 0 || size == HALF + sizeof(uint64_t));
}

static bool map_shows_seen(char *map, off_t size)
{
	for (unsigned long i = 0; i < size / PAGE; i += PAGES / 16)
		if (memcmp(map + i * PAGE, &seen[i * WORDS], PAGE))
			return false;
	return true;
}

static bool is_one_kind(unsigned int kinds)
{
	return !(kinds & (kinds - 1));
}

/* NULL: nothing is wrong. */
static const char *find_content(const struct operation *op,
				const struct world *world, unsigned long *mixed)
{
	off_t size = lseek(world->target, 0, SEEK_END);
	unsigned int kinds;

	if (content(world->frozen, OLD) != OLD)
		return "the frozen snapshot has changed";
	if (content(world->source, NEW) != NEW)
		return "the source has changed";
	if (!size_allowed(op, size))
		return "the target has a size that it never had";
	kinds = content(world->target, op->allowed);
	if (!kinds)
		return "the target has what nobody wrote";
	if (!is_one_kind(kinds)) {
		++*mixed;
		if (op->whole)
			return "the target has some of both";
	}
	if (!map_shows_seen(world->map, size))
		return "a mapping shows something else";
	return NULL;
}

static const char *find_snapshot(const struct world *world)
{
	uint64_t word = word_of(STORED, 0);
	int snap;

	*page_word(world->map, 0) = word;
	snap = cow_snapshot(world->target, 0);
	if (snap < 0 || read_word(snap, 0) != word)
		return "a snapshot does not have a store before it";
	close(snap);
	return NULL;
}

/* Is each page shared, so that a store copies it? */
static const char *find_isolated(const struct world *world, off_t size)
{
	for (unsigned long i = 0; i < size / PAGE; i += PAGES / 16) {
		*page_word(world->map, i) = word_of(STORED, i);
		if (read_word(world->frozen, i * PAGE) != word_of(OLD, i))
			return "a store changes the frozen snapshot";
		if (read_word(world->source, i * PAGE) != word_of(NEW, i))
			return "a store changes the source";
	}
	return NULL;
}

/* Nobody holds a lock, for one. */
static const char *find_usable(const struct world *world)
{
	const char *wrong;

	wrong = find_isolated(world, lseek(world->target, 0, SEEK_END));
	if (wrong)
		return wrong;
	if (cow_restore(world->target, world->frozen, 0) ||
	    content(world->target, OLD) != OLD ||
	    !map_shows_seen(world->map, LENGTH))
		return "the target cannot be restored";
	wrong = find_snapshot(world);
	if (wrong)
		return wrong;
	if (ioctl(world->target, FICLONE, world->source) ||
	    read_word(world->target, HALF) != word_of(NEW, PAGES / 2))
		return "the target cannot be cloned to";
	if (write_data(world->source, old_data) ||
	    fallocate(world->target, FALLOC_FL_ZERO_RANGE, 0, LENGTH) ||
	    read_word(world->target, HALF))
		return "the buffers cannot be written";
	if (shut(cow_snapshot(world->frozen, COWMEM_WRITABLE)) ||
	    content(world->frozen, OLD) != OLD)
		return "the frozen snapshot cannot be used";
	return NULL;
}

/* The last reference may be put a little later. */
static bool becomes(const char *name, long value)
{
	for (int i = 0; i < 1000; i++) {
		if (cow_param(name) == value)
			return true;
		usleep(10000);
	}
	return false;
}

static bool world_begin(struct world *world, int old, int new,
			struct progress *progress)
{
	*progress = (struct progress){ };
	*world = (struct world) { .progress = progress };
	world->target = cow_snapshot(old, COWMEM_WRITABLE);
	world->frozen = cow_snapshot(world->target, 0);
	world->source = cow_snapshot(new, COWMEM_WRITABLE);
	world->map = cow_map(world->target, LENGTH, RW);
	world->source_map = cow_map(world->source, LENGTH, PROT_READ);
	if (world->map == MAP_FAILED || world->source_map == MAP_FAILED)
		return false;
	/* These have to go when their pages do. */
	for (unsigned long i = 0; i < PAGES; i += PAGES / 16)
		load_signal(world->map + i * PAGE);
	return world->frozen >= 0;
}

static void world_end(const struct world *world)
{
	munmap(world->map, LENGTH);
	munmap(world->source_map, LENGTH);
	close(world->target);
	close(world->frozen);
	close(world->source);
}

static unsigned long number_from(const char *name, unsigned long standard)
{
	const char *text = getenv(name);

	return text ? strtoul(text, NULL, 0) : standard;
}

/* All pages of all buffers are of these two, which nobody writes. */
FIXTURE(death) {
	struct progress *progress;
	int old, new;
	long pages, nodes;	/* before them */
	long all_pages, all_nodes;
};

FIXTURE_VARIANT(death) {
	struct operation op;
};

FIXTURE_SETUP(death)
{
	fill_data(old_data, OLD);
	fill_data(new_data, NEW);
	seen = mmap(NULL, LENGTH, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(seen, MAP_FAILED);
	self->pages = cow_param("pages");
	self->nodes = cow_param("nodes");
	self->old = cow_create(LENGTH, "old");
	self->new = cow_create(LENGTH, "new");
	ASSERT_EQ(write_data(self->old, old_data), 0);
	ASSERT_EQ(write_data(self->new, new_data), 0);
	self->all_pages = cow_param("pages");
	self->all_nodes = cow_param("nodes");
	self->progress = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(self->progress, MAP_FAILED);
	/* Grandchildren as well, to wait for them. */
	ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
}

FIXTURE_TEARDOWN(death)
{
	close(self->old);
	close(self->new);
	EXPECT_TRUE(becomes("pages", self->pages));
	EXPECT_TRUE(becomes("nodes", self->nodes));
}

#define OPERATION(name, ...)						\
	FIXTURE_VARIANT_ADD(death, name) {				\
		.op = { .run = do_##name, __VA_ARGS__ },		\
	}

OPERATION(snapshot, .allowed = OLD, .quick = true);
OPERATION(snapshot_range, .allowed = OLD, .quick = true);
OPERATION(pinned, .prepare = prepare_pinned, .allowed = OLD);
OPERATION(group, .prepare = prepare_own, .allowed = OLD, .quick = true);
OPERATION(restore, .allowed = OLD | NEW, .whole = true);
OPERATION(restore_in_place, .allowed = OLD | NEW);
OPERATION(restore_moved, .allowed = OLD | MOVED);
OPERATION(clone, .allowed = OLD | NEW, .whole = true);
OPERATION(clone_moved, .allowed = OLD | MOVED);
OPERATION(copy, .allowed = OLD | NEW);
OPERATION(dedupe, .allowed = OLD, .quick = true);
OPERATION(diff, .prepare = prepare_diff, .allowed = OLD | NEW);
OPERATION(fill, .allowed = OLD | ZERO, .whole = true);
OPERATION(punch, .allowed = OLD | ZERO, .whole = true);
OPERATION(remove, .allowed = OLD | ZERO, .whole = true);
OPERATION(zero, .allowed = OLD | ZERO, .whole = true);
OPERATION(unshare, .allowed = OLD);
OPERATION(truncate, .allowed = OLD | ZERO, .resizes = true);
OPERATION(extend, .allowed = OLD, .resizes = true);
OPERATION(write, .allowed = OLD | NEW);
OPERATION(write_mapped, .allowed = OLD | NEW);
OPERATION(read, .prepare = prepare_memory, .allowed = OLD);
OPERATION(splice, .prepare = prepare_pipe, .allowed = OLD | NEW);
OPERATION(store, .allowed = OLD | STORED);
OPERATION(load, .allowed = OLD);
OPERATION(store_private, .prepare = prepare_private, .allowed = OLD);
OPERATION(populate, .allowed = OLD);
OPERATION(process_write, .allowed = OLD | NEW);
OPERATION(map, .allowed = OLD | STORED);
OPERATION(close, .allowed = OLD, .quick = true);
OPERATION(open, .allowed = OLD);
OPERATION(fork, .allowed = OLD);

/* Each family dies in each way, in turn. */
static void choose_deaths(struct death *deaths, unsigned long round)
{
	for (int i = 0; i < NR_FAMILIES; i++)
		deaths[i] = (struct death) {
			.family = i,
			.way = (round + i) % NR_WAYS,
			.at_work = random() % 8,
			.delay = random() % MAX_DELAY,
		};
}

TEST_F_TIMEOUT(death, of_who_works, 900)
{
	unsigned long nr = number_from("COWMEM_DEATHS", 32);
	unsigned long seed = number_from("COWMEM_SEED", 1);
	unsigned long midst = 0, mixed = 0, done = 0;
	struct death deaths[NR_FAMILIES];
	struct world world;

	srandom(seed);
	for (; done < nr; done += NR_FAMILIES) {
		const char *wrong;

		alarm(MAX_SECONDS);
		choose_deaths(deaths, done / NR_FAMILIES);
		ASSERT_TRUE(world_begin(&world, self->old, self->new,
					self->progress));
		ASSERT_TRUE(die(deaths, &variant->op, &world));
		ASSERT_EQ(self->progress->error, 0);
		midst += self->progress->entered - self->progress->left;
		wrong = find_content(&variant->op, &world, &mixed) ?:
			find_usable(&world);
		ASSERT_EQ(wrong, NULL) {
			TH_LOG("death %lu, after %lu calls: %s", done,
			       (unsigned long)self->progress->left, wrong);
		}
		world_end(&world);
		ASSERT_TRUE(becomes("pages", self->all_pages));
		ASSERT_TRUE(becomes("nodes", self->all_nodes));
	}
	TH_LOG("%lu deaths, seed %lu: %lu calls did not return, %lu times half was done",
	       done, seed, midst, mixed);
	if (!variant->op.quick)
		EXPECT_GT(midst, 0);
}

static struct progress *interrupted;

static void note_signal(int sig)
{
	if (interrupted->entered != interrupted->left)
		interrupted->signals++;
}

/* Until it was interrupted often. */
static long work_interrupted(const struct operation *op,
			     const struct world *world)
{
	struct itimerval often = { { 0, 300 }, { 0, 300 } }, never = { };
	struct sigaction act = { .sa_handler = note_signal };
	struct worker worker = { .world = world };
	double end;
	long err = op->prepare ? op->prepare(&worker) : 0;

	interrupted = world->progress;
	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	end = seconds_now() + 0.05;
	for (; !err && seconds_now() < end; worker.round++)
		err = op->run(&worker);
	setitimer(ITIMER_REAL, &never, NULL);
	return err;
}

TEST_F_TIMEOUT(death, is_not_what_other_signals_bring, 300)
{
	struct world world;
	unsigned long mixed;

	alarm(MAX_SECONDS);
	ASSERT_TRUE(world_begin(&world, self->old, self->new, self->progress));
	ASSERT_EQ(CHILD(self->progress->error =
			work_interrupted(&variant->op, &world)), 0);
	EXPECT_EQ(self->progress->error, 0);
	EXPECT_EQ(find_content(&variant->op, &world, &mixed), NULL);
	EXPECT_EQ(find_usable(&world), NULL);
	TH_LOG("%lu signals in the midst of %lu calls",
	       (unsigned long)self->progress->signals,
	       (unsigned long)self->progress->left);
	if (!variant->op.quick)
		EXPECT_GT(self->progress->signals, 0);
	world_end(&world);
	EXPECT_TRUE(becomes("pages", self->all_pages));
	EXPECT_TRUE(becomes("nodes", self->all_nodes));
}

TEST_HARNESS_MAIN
