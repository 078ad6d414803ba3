// SPDX-License-Identifier: GPL-2.0
/*
 * Every allocation fails, and every copy from and to user memory: in each ioctl,
 * each call on a file, each kind of page fault.  After each failure there is an
 * error that is documented, or a part was done that is told, or there was another
 * way; all bytes of all buffers are what they have to be, no page, node or file is
 * left over, and the same call works when it is made once more.  A fault of a
 * program ends with the page, as the kernel tries again.
 *
 * First the calls, one after the other, each with its first, second, third...
 * failure, until there is none left: of anything at all; of the module's, followed
 * by more of them, so that the other way fails too; of the module's copies, likewise.
 *
 * Then the sites: all places where the module allocates or copies, by name, each
 * with a call and a failure in it that hits just that place, and what becomes of
 * it.  No injection reaches get_user(), clear_user(), check_zeroed_user() and
 * fault_in_*(), which fail in abi.c, diff.c, file.c and group.c with bad addresses,
 * nor what the module gets from the allocator of per-CPU memory, when it is loaded.
 *
 * Wants a kernel with failslab, fail_page_alloc and fail_usercopy.
 */
#include <limits.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <linux/falloc.h>

#include "bytes.h"
#include "common.h"
#include "failures.h"
#include "harness.h"

#define PARAMETERS	"/sys/module/cowmem/parameters/"

#define A_SIZE		(5 * PAGE + 100)
#define A_PAGES		6
#define B_SIZE		(4 * PAGE)
#define FAR_INDEX	70UL
#define FAR_SIZE	(100 * PAGE)
#define MOST_EXTENTS	1024
#define MOST_FAILURES	500

/* Errors that a call may end with. */
#define NOMEM		(1U << 0)
#define FAULT		(1U << 1)
#define NOENT		(1U << 2)

/* How the page of a fault is before. */
#define LOADED		(1U << 0)	/* mapped, for reading */
#define ALONE		(1U << 1)	/* no longer shared */
#define SHARED		(1U << 2)	/* with a snapshot, and so are its nodes */

union arg {
	struct cowmem_query query;
	struct cowmem_create create;
	struct cowmem_file file;
	struct cowmem_snapshot snapshot;
	struct cowmem_restore restore;
	struct cowmem_diff diff;
	struct cowmem_stat stat;
	struct cowmem_limit limit;
};

/* All there is while a call is made, and made anew for each. */
static struct {
	int dev;		/* a handle of an empty buffer */
	struct buffer a;	/* 0, 3 and 5 shared with s, 1 and 4 not; 2 a hole */
	struct buffer s;	/* frozen */
	struct buffer b;	/* a stranger: three pages, a hole */
	int pipe[2];

	/* What the call is made on or with, or makes. */
	union arg arg;
	union arg asked;
	unsigned long cmd;
	int on;
	int from;
	int fd;
	char *map;
	size_t map_size;
	char *to;		/* where to load or store */
	char *want;		/* what is there */
	char elsewhere;		/* that, if it is in none of the buffers */
	int held[4];		/* to be closed */
	unsigned int nr_held;
	int table_first;	/* likewise, all from here on */
	struct cowmem_member members[2];

	/* Before all of it. */
	int next_fd;
	long pages;
	long nodes;
} w;

static int pages_param, nodes_param;	/* open */
static char pattern[MAX + PAGE];
static char data[MAX];
static struct stat file_stat;
static struct cowmem_extent extents[MOST_EXTENTS];

/*
 * A call: how it is made, and what it does.
 */
struct op {
	const char *name;
	bool (*prepare)(const struct op *op);
	bool (*before)(void);		/* each time it is made */
	long (*call)(const struct op *op);
	/* It did so much: put that in the models.  False: it did something else. */
	bool (*done)(const struct op *op, long result);
	long full;			/* its result, if it did all */
	unsigned int errors;
	unsigned int spare;		/* pages, or nodes, that it may have copied */
	bool parts;			/* may do less, and tell */
	bool fills;			/* may have filled some of the holes */
	bool safe;			/* there may be nothing in it that can fail */
	bool bare;			/* there is nothing else */
	bool child;			/* in a process of its own */

	/* What it is called with, as far as it applies. */
	struct buffer *source;
	size_t at;			/* in a */
	size_t source_at;
	size_t length;			/* 0: all */
	unsigned int flags;		/* or mode, or advice */
	unsigned int pins;		/* pages of a, a bit each */
	unsigned int source_pins;
};

/*
 * Before and after
 */

static void fill(struct buffer *buf, size_t offset, size_t length,
		 unsigned int version)
{
	memcpy(buf->want + offset, pattern + offset + version, length);
	memcpy(buf->p + offset, buf->want + offset, length);
}

/* As cow_param(), with no file to open: there may be no room for one. */
static long param(int fd)
{
	char text[32] = "";

	return pread(fd, text, sizeof(text) - 1, 0) > 0 ? atol(text) : -1;
}

static bool hold(int fd)
{
	if (fd >= 0)
		w.held[w.nr_held++] = fd;
	return fd >= 0;
}

static bool buffers_open(void)
{
	w.dev = cow_open();
	if (w.dev < 0 || pipe2(w.pipe, O_NONBLOCK | O_CLOEXEC) ||
	    !buffer_create(&w.a, A_SIZE) || !buffer_create(&w.b, B_SIZE))
		return false;
	fill(&w.a, 0, 2 * PAGE, 1);
	fill(&w.a, 3 * PAGE, 2 * PAGE + 100, 1);
	if (!buffer_snapshot(&w.s, &w.a, false))
		return false;
	fill(&w.a, PAGE, PAGE, 2);
	fill(&w.a, 4 * PAGE, PAGE, 2);
	fill(&w.b, 0, 3 * PAGE, 3);
	return true;
}

static bool world_open(const struct op *op)
{
	memset(&w, 0, sizeof(w));
	w.next_fd = next_fd();
	w.pages = param(pages_param);
	w.nodes = param(nodes_param);
	w.dev = w.a.fd = w.s.fd = w.b.fd = w.pipe[0] = w.pipe[1] = -1;
	return op->bare || buffers_open();
}

static void buffers_close(void)
{
	struct buffer *bufs[] = { &w.a, &w.s, &w.b };
	unsigned int i;

	for (i = 0; i < ARRAY_LENGTH(bufs); i++)
		if (bufs[i]->fd >= 0)
			buffer_close(bufs[i]);
	if (w.dev >= 0) {
		pipe_close(w.pipe);
		close(w.dev);
	}
}

/* What is wrong, or NULL. */
static const char *world_close(void)
{
	if (w.map)
		munmap(w.map, w.map_size);
	while (w.nr_held)
		close(w.held[--w.nr_held]);
	if (w.table_first)
		close_range(w.table_first, ~0U, 0);
	buffers_close();
	if (next_fd() != w.next_fd)
		return "a file is left open";
	if (param(pages_param) != w.pages)
		return "a page is left";
	if (param(nodes_param) != w.nodes)
		return "a node is left";
	return NULL;
}

/* What a failed call must leave as it was. */
struct state {
	struct cowmem_stat stats[4];
	long pages;
	long nodes;
};

static void look(struct state *state)
{
	int fds[] = { w.a.fd, w.s.fd, w.b.fd, w.dev };
	unsigned int i;

	memset(state, 0, sizeof(*state));
	for (i = 0; i < ARRAY_LENGTH(fds); i++)
		if (fds[i] >= 0)
			state->stats[i] = cow_stat(fds[i]);
	state->pages = param(pages_param);
	state->nodes = param(nodes_param);
}

/* None less, and no more than @most more. */
static bool grew(uint64_t was, uint64_t is, uint64_t most)
{
	return is - was <= most;
}

static bool counters_kept(const struct cowmem_stat *was,
			  const struct cowmem_stat *is)
{
	return grew(was->faults, is->faults, 4 * A_PAGES) &&
	       grew(was->filled, is->filled, A_PAGES) &&
	       grew(was->copied, is->copied, A_PAGES) &&
	       grew(was->reused, is->reused, A_PAGES) &&
	       grew(was->held, is->held, A_PAGES) &&
	       grew(was->snapshots, is->snapshots, 1);
}

static bool stat_kept(const struct op *op, const struct cowmem_stat *was,
		      const struct cowmem_stat *is)
{
	return was->id == is->id && was->account == is->account &&
	       was->state == is->state && was->length == is->length &&
	       was->limit == is->limit && !strcmp(was->name, is->name) &&
	       grew(was->resident, is->resident,
		    op->fills ? op->spare * PAGE : 0) &&
	       grew(was->charged, is->charged, op->spare * PAGE) &&
	       counters_kept(was, is);
}

static bool state_kept(const struct op *op, const struct state *was)
{
	struct state is;
	unsigned int i;

	look(&is);
	for (i = 0; i < ARRAY_LENGTH(is.stats); i++)
		if (!stat_kept(op, &was->stats[i], &is.stats[i]))
			return false;
	return grew(was->pages, is.pages, op->spare) &&
	       grew(was->nodes, is.nodes, op->spare);
}

static bool buffers_ok(void)
{
	struct buffer *bufs[] = { &w.a, &w.s, &w.b };
	unsigned int i;

	for (i = 0; i < ARRAY_LENGTH(bufs); i++)
		if (bufs[i]->fd >= 0 && !buffer_ok(bufs[i]))
			return false;
	return true;
}

/* Does the file that was made have these bytes?  And close it. */
static bool made_is(int fd, const char *want, size_t size)
{
	struct stat st;
	bool is = !fstat(fd, &st) && st.st_size == size &&
		  pread(fd, data, MAX, 0) == size && !memcmp(data, want, size);

	close(fd);
	return is;
}

/* The first @length bytes at @at of a are those at @source_at of @source. */
static void model_copy(size_t at, const struct buffer *source, size_t source_at,
		       size_t length)
{
	memmove(w.a.want + at, source->want + source_at, length);
	if (at + length > w.a.size)
		w.a.size = at + length;
}

static void model_write(size_t at, const char *from, size_t length)
{
	memcpy(w.a.want + at, from, length);
	if (at + length > w.a.size)
		w.a.size = at + length;
}

static void model_resize(size_t size)
{
	memset(w.a.want + size, 0, MAX - size);
	w.a.size = size;
}

/* By a pipe, which has a reference to the page. */
static bool pin_pages(const struct buffer *buf, unsigned int pins)
{
	unsigned int i;

	for (i = 0; i < A_PAGES; i++)
		if (pins & (1U << i) && !pipe_hold(w.pipe, buf->p + i * PAGE))
			return false;
	return true;
}

/*
 * ioctls
 */

static bool ask(int fd, unsigned long cmd, const void *arg, size_t size)
{
	w.on = fd;
	w.cmd = cmd;
	memcpy(&w.arg, arg, size);
	w.asked = w.arg;
	return true;
}

#define ASK(fd, cmd, type, ...)						\
	ask(fd, cmd, &(struct type){ .size = sizeof(struct type), __VA_ARGS__ }, \
	    sizeof(struct type))

static long call_ioctl(const struct op *op)
{
	return cow_ioctl(w.on, w.cmd, &w.arg);
}

static bool prepare_query(const struct op *op)
{
	return ASK(w.a.fd, COWMEM_QUERY, cowmem_query);
}

static bool done_query(const struct op *op, long result)
{
	return w.arg.query.abi == COWMEM_ABI && w.arg.query.page_size == PAGE;
}

static bool prepare_stat(const struct op *op)
{
	return ASK(w.a.fd, COWMEM_STAT, cowmem_stat, .flags = op->flags);
}

static bool done_stat(const struct op *op, long result)
{
	return w.arg.stat.length == A_SIZE && w.arg.stat.resident == 5 * PAGE &&
	       w.arg.stat.exclusive == (op->flags ? 2 * PAGE : 0);
}

static bool prepare_limit(const struct op *op)
{
	return ASK(w.a.fd, COWMEM_LIMIT, cowmem_limit, .limit = GIB);
}

static bool done_limit(const struct op *op, long result)
{
	return cow_stat(w.s.fd).limit == GIB;
}

static bool prepare_create(const struct op *op)
{
	return ASK(w.dev, COWMEM_CREATE, cowmem_create, .flags = op->flags,
		   .length = 3 * PAGE, .name = "made");
}

static bool done_create(const struct op *op, long result)
{
	static const char zeroes[3 * PAGE];

	return made_is(w.arg.create.fd, zeroes, sizeof(zeroes));
}

static bool prepare_file(const struct op *op)
{
	return ASK(w.a.fd, COWMEM_FILE, cowmem_file, .flags = op->flags);
}

static bool done_file(const struct op *op, long result)
{
	return made_is(w.arg.file.fd, w.a.want, w.a.size);
}

static bool prepare_file_of_handle(const struct op *op)
{
	return ASK(w.dev, COWMEM_FILE, cowmem_file);
}

static bool done_file_of_handle(const struct op *op, long result)
{
	return made_is(w.arg.file.fd, "", 0);
}

/* How many files the process has room for. */
static int table_size(void)
{
	FILE *status = fopen("/proc/self/status", "r");
	char line[256];
	int size = 0;

	while (status && fgets(line, sizeof(line), status))
		if (sscanf(line, "FDSize: %d", &size) == 1)
			break;
	if (status)
		fclose(status);
	return size;
}

/* With the table of files full: only once, as it never shrinks. */
static bool prepare_file_in_full_table(const struct op *op)
{
	int size = table_size(), fd;

	w.table_first = next_fd();
	do
		fd = dup(0);
	while (fd >= 0 && fd < size - 1);
	return fd == size - 1 && prepare_file(op);
}

static bool prepare_diff(const struct op *op)
{
	memset(extents, 0, sizeof(extents));
	return ASK(w.a.fd, COWMEM_DIFF, cowmem_diff, .other = w.s.fd,
		   .nr_extents = op->length, .extents = (uintptr_t)extents);
}

static bool extent_is(const struct cowmem_extent *extent, unsigned long index)
{
	return extent->offset == index * PAGE && extent->length == PAGE &&
	       extent->flags == COWMEM_EXTENT_DATA;
}

static bool done_diff(const struct op *op, long result)
{
	const struct cowmem_diff *diff = &w.arg.diff;

	if (op->length == 1)
		return diff->nr_extents == 1 && diff->cursor == 4 * PAGE &&
		       extent_is(&extents[0], 1);
	return diff->nr_extents == 2 && diff->cursor == COWMEM_DIFF_END &&
	       extent_is(&extents[0], 1) && extent_is(&extents[1], 4);
}

static const struct op ioctls[] = {
	{ "QUERY", prepare_query, .call = call_ioctl, .done = done_query,
	  .errors = FAULT },
	{ "STAT", prepare_stat, .call = call_ioctl, .done = done_stat,
	  .errors = FAULT },
	{ "STAT with SHARING", prepare_stat, .call = call_ioctl,
	  .done = done_stat, .errors = FAULT, .flags = COWMEM_SHARING },
	{ "LIMIT", prepare_limit, .call = call_ioctl, .done = done_limit,
	  .errors = FAULT },
	{ "CREATE", prepare_create, .call = call_ioctl, .done = done_create,
	  .errors = NOMEM | FAULT },
	{ "CREATE, PINNABLE", prepare_create, .call = call_ioctl,
	  .done = done_create, .errors = NOMEM | FAULT,
	  .flags = COWMEM_PINNABLE },
	{ "FILE", prepare_file, .call = call_ioctl, .done = done_file,
	  .errors = NOMEM | FAULT },
	{ "FILE for reading", prepare_file, .call = call_ioctl,
	  .done = done_file, .errors = NOMEM | FAULT, .flags = COWMEM_RDONLY },
	{ "FILE of a device handle", prepare_file_of_handle,
	  .call = call_ioctl, .done = done_file_of_handle,
	  .errors = NOMEM | FAULT },
	{ "FILE in a full table", prepare_file_in_full_table,
	  .call = call_ioctl, .done = done_file, .errors = NOMEM | FAULT,
	  .child = true },
	{ "DIFF", prepare_diff, .call = call_ioctl, .done = done_diff,
	  .errors = NOMEM | FAULT, .length = 4 },
	{ "DIFF, one extent", prepare_diff, .call = call_ioctl,
	  .done = done_diff, .errors = NOMEM | FAULT, .length = 1 },
	{ "DIFF, many extents", prepare_diff, .call = call_ioctl,
	  .done = done_diff, .errors = NOMEM | FAULT, .length = MOST_EXTENTS },
};

/*
 * SNAPSHOT
 */

static bool prepare_snapshot(const struct op *op)
{
	return ASK(w.a.fd, COWMEM_SNAPSHOT, cowmem_snapshot,
		   .flags = op->flags, .offset = op->at, .length = op->length);
}

static bool done_snapshot(const struct op *op, long result)
{
	return made_is(w.arg.snapshot.fd, w.a.want + op->at,
		       op->length ?: w.a.size);
}

/* All of a, and the first two pages of b. */
static bool prepare_group(const struct op *op)
{
	w.members[0] = (struct cowmem_member){ .fd = w.a.fd };
	w.members[1] = (struct cowmem_member){ .fd = w.b.fd,
					       .length = 2 * PAGE };
	return ASK(w.dev, COWMEM_SNAPSHOT, cowmem_snapshot,
		   .members = (uintptr_t)w.members,
		   .nr_members = ARRAY_LENGTH(w.members));
}

static bool done_group(const struct op *op, long result)
{
	bool first = made_is(w.members[0].snapshot_fd, w.a.want, w.a.size);

	return made_is(w.members[1].snapshot_fd, w.b.want, 2 * PAGE) && first;
}

/* A range of a range, and places that add up to more than a tree can have. */
static bool prepare_far_range(const struct op *op)
{
	uint64_t max_size = cow_query().max_size, start = max_size / 4 * 3;
	int whole = cow_create(max_size, "whole"), part;

	start -= start % PAGE;
	if (!hold(whole))
		return false;
	part = cow_snapshot_range(whole, COWMEM_WRITABLE, start,
				  max_size - start);
	if (!hold(part) || ftruncate(part, max_size) ||
	    pwrite(part, pattern, PAGE, start + PAGE) != PAGE)
		return false;
	return ASK(part, COWMEM_SNAPSHOT, cowmem_snapshot, .offset = start,
		   .length = 3 * PAGE);
}

static bool done_far_range(const struct op *op, long result)
{
	char want[3 * PAGE] = "";

	memcpy(want + PAGE, pattern, PAGE);
	return made_is(w.arg.snapshot.fd, want, sizeof(want));
}

static const struct op snapshots[] = {
	{ "SNAPSHOT", prepare_snapshot, .call = call_ioctl,
	  .done = done_snapshot, .errors = NOMEM | FAULT },
	{ "SNAPSHOT, writable", prepare_snapshot, .call = call_ioctl,
	  .done = done_snapshot, .errors = NOMEM | FAULT,
	  .flags = COWMEM_WRITABLE },
	{ "SNAPSHOT of a range", prepare_snapshot, .call = call_ioctl,
	  .done = done_snapshot, .errors = NOMEM | FAULT,
	  .at = PAGE, .length = 3 * PAGE },
	{ "SNAPSHOT with a pinned page", prepare_snapshot, .call = call_ioctl,
	  .done = done_snapshot, .errors = NOMEM | FAULT, .pins = 1 << 4 },
	{ "SNAPSHOT of a range with pinned pages", prepare_snapshot,
	  .call = call_ioctl, .done = done_snapshot, .errors = NOMEM | FAULT,
	  .at = PAGE, .length = 4 * PAGE, .pins = 1 << 1 | 1 << 4 },
	{ "SNAPSHOT of a group", prepare_group, .call = call_ioctl,
	  .done = done_group, .errors = NOMEM | FAULT },
	{ "SNAPSHOT of a group with pinned pages", prepare_group,
	  .call = call_ioctl, .done = done_group, .errors = NOMEM | FAULT,
	  .pins = 1 << 4, .source = &w.b, .source_pins = 1 << 0 | 1 << 1 },
	{ "SNAPSHOT beyond all places", prepare_far_range, .call = call_ioctl,
	  .done = done_far_range, .errors = NOMEM | FAULT },
};

/*
 * From one buffer to another
 */

static bool prepare_restore(const struct op *op)
{
	return ASK(w.a.fd, COWMEM_RESTORE, cowmem_restore, .flags = op->flags,
		   .source = op->source->fd, .offset = op->at,
		   .source_offset = op->source_at, .length = op->length);
}

static bool done_restore(const struct op *op, long result)
{
	if (op->length) {
		model_copy(op->at, op->source, op->source_at, op->length);
		return true;
	}
	memcpy(w.a.want, op->source->want, MAX);
	w.a.size = op->source->size;
	return true;
}

static long call_clone(const struct op *op)
{
	if (!op->length)
		return cow_ioctl(w.a.fd, FICLONE,
				 (void *)(long)op->source->fd);
	return cow_clone_range(w.a.fd, op->at, op->source->fd, op->source_at,
			       op->length);
}

static bool done_clone(const struct op *op, long result)
{
	model_copy(op->at, op->source, op->source_at,
		   op->length ?: op->source->size);
	return true;
}

/* The source has the same bytes. */
static bool prepare_dedupe(const struct op *op)
{
	memcpy(op->source->want + op->source_at, w.a.want + op->at, op->length);
	memcpy(op->source->p + op->source_at, w.a.want + op->at, op->length);
	return true;
}

static long call_dedupe(const struct op *op)
{
	return cow_dedupe(w.a.fd, op->at, op->source->fd, op->source_at,
			  op->length);
}

static bool prepare_copy(const struct op *op)
{
	w.from = op->source->fd;
	if (op->source != &w.a)
		return true;
	/* With a position of its own. */
	w.from = cow_file(w.a.fd, COWMEM_RDONLY);
	return hold(w.from);
}

/* Positions in memory would be written back when all is done, and may fail. */
static long call_copy(const struct op *op)
{
	lseek(w.from, op->source_at, SEEK_SET);
	lseek(w.a.fd, op->at, SEEK_SET);
	return ret(copy_file_range(w.from, NULL, w.a.fd, NULL, op->length, 0));
}

static bool done_copy(const struct op *op, long result)
{
	model_copy(op->at, op->source, op->source_at, result);
	return true;
}

static const struct op copies[] = {
	{ "RESTORE", prepare_restore, .call = call_ioctl, .done = done_restore,
	  .errors = NOMEM | FAULT, .source = &w.s },
	{ "RESTORE from a stranger", prepare_restore, .call = call_ioctl,
	  .done = done_restore, .errors = NOMEM | FAULT, .source = &w.b },
	{ "RESTORE of a range", prepare_restore, .call = call_ioctl,
	  .done = done_restore, .errors = NOMEM | FAULT, .source = &w.s,
	  .at = PAGE, .source_at = PAGE, .length = 2 * PAGE },
	{ "RESTORE of a range from elsewhere", prepare_restore,
	  .call = call_ioctl, .done = done_restore, .errors = NOMEM | FAULT,
	  .source = &w.s, .at = 3 * PAGE, .length = 2 * PAGE },
	{ "RESTORE, a page stays", prepare_restore, .call = call_ioctl,
	  .done = done_restore, .errors = NOMEM | FAULT, .source = &w.s,
	  .pins = 1 << 4 },
	{ "RESTORE from pinned pages", prepare_restore, .call = call_ioctl,
	  .done = done_restore, .errors = NOMEM | FAULT, .source = &w.b,
	  .length = 2 * PAGE, .source_pins = 1 << 0 },
	{ "RESTORE, IN_PLACE", prepare_restore, .call = call_ioctl,
	  .done = done_restore, .errors = NOMEM | FAULT, .source = &w.s,
	  .flags = COWMEM_IN_PLACE },
	{ "FICLONE", .call = call_clone, .done = done_clone,
	  .errors = NOMEM | FAULT, .source = &w.b },
	{ "FICLONERANGE from elsewhere", .call = call_clone,
	  .done = done_clone, .errors = NOMEM | FAULT, .source = &w.b,
	  .at = 2 * PAGE, .length = 2 * PAGE },
	{ "FICLONERANGE beyond the end", .call = call_clone,
	  .done = done_clone, .errors = NOMEM | FAULT, .spare = 1,
	  .source = &w.b, .at = 7 * PAGE, .length = 2 * PAGE },
	{ "FICLONERANGE, a page stays", .call = call_clone,
	  .done = done_clone, .errors = NOMEM | FAULT, .source = &w.b,
	  .at = 3 * PAGE, .length = 2 * PAGE, .pins = 1 << 4 },
	{ "FIDEDUPERANGE", prepare_dedupe, .call = call_dedupe, .full = PAGE,
	  .errors = NOMEM | FAULT, .source = &w.b, .source_at = PAGE,
	  .length = PAGE },
	{ "copy_file_range", prepare_copy, .call = call_copy, .done = done_copy,
	  .full = 2 * PAGE, .errors = NOMEM, .source = &w.b, .at = PAGE,
	  .length = 2 * PAGE },
	{ "copy_file_range of bytes", prepare_copy, .call = call_copy,
	  .done = done_copy, .full = PAGE + 500, .errors = NOMEM, .spare = 1,
	  .parts = true, .source = &w.b, .at = 2 * PAGE + 20, .source_at = 10,
	  .length = PAGE + 500 },
	{ "copy_file_range in a page", prepare_copy, .call = call_copy,
	  .done = done_copy, .full = 500, .errors = NOMEM, .spare = 1,
	  .source = &w.a, .at = 2000, .source_at = 10, .length = 500 },
	{ "copy_file_range beyond the end", prepare_copy, .call = call_copy,
	  .done = done_copy, .full = 2 * PAGE + 10, .errors = NOMEM, .spare = 1,
	  .parts = true, .source = &w.b, .at = 7 * PAGE,
	  .length = 2 * PAGE + 10 },
};

/*
 * Files
 */

static long call_pread(const struct op *op)
{
	return ret(pread(w.a.fd, data, op->length, op->at));
}

/* The two halves of something. */
static void halve(struct iovec iov[2], char *from, size_t length)
{
	iov[0] = (struct iovec){ from, length / 2 };
	iov[1] = (struct iovec){ from + length / 2, length - length / 2 };
}

static long call_preadv(const struct op *op)
{
	struct iovec iov[2];

	halve(iov, data, op->length);
	return ret(preadv(w.a.fd, iov, 2, op->at));
}

static bool done_read(const struct op *op, long result)
{
	return !memcmp(data, w.a.want + op->at, result);
}

/* Once more: every page and every node. */
static bool prepare_shared(const struct op *op)
{
	return hold(cow_snapshot(w.a.fd, 0));
}

static long call_pwrite(const struct op *op)
{
	return ret(pwrite(w.a.fd, pattern, op->length, op->at));
}

static long call_pwritev(const struct op *op)
{
	struct iovec iov[2];

	halve(iov, pattern, op->length);
	return ret(pwritev(w.a.fd, iov, 2, op->at));
}

static bool done_write(const struct op *op, long result)
{
	model_write(op->at, pattern, result);
	return true;
}

static long call_ftruncate(const struct op *op)
{
	return ret(ftruncate(w.a.fd, op->length));
}

static bool done_ftruncate(const struct op *op, long result)
{
	model_resize(op->length);
	return true;
}

static long call_fallocate(const struct op *op)
{
	return ret(fallocate(w.a.fd, op->flags, op->at, op->length));
}

static bool done_fallocate(const struct op *op, long result)
{
	size_t end = op->at + op->length;

	if (op->flags & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		memset(w.a.want + op->at, 0, op->length);
	if (!(op->flags & FALLOC_FL_KEEP_SIZE) && end > w.a.size)
		w.a.size = end;
	return true;
}

static long call_lseek(const struct op *op)
{
	return ret(lseek(w.a.fd, op->at, op->flags));
}

static long call_fsync(const struct op *op)
{
	return ret(fsync(w.a.fd));
}

static long call_fstat(const struct op *op)
{
	return ret(fstat(w.a.fd, &file_stat));
}

static bool done_fstat(const struct op *op, long result)
{
	return file_stat.st_size == A_SIZE;
}

static bool prepare_fdinfo(const struct op *op)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", w.a.fd);
	w.fd = open(path, O_RDONLY | O_CLOEXEC);
	return hold(w.fd);
}

static long call_fdinfo(const struct op *op)
{
	ssize_t n = pread(w.fd, data, PAGE, 0);

	data[n > 0 ? n : 0] = '\0';
	return n < 0 ? -errno : 0;
}

static bool done_fdinfo(const struct op *op, long result)
{
	return strstr(data, "cowmem-size:\t20580\n");
}

static long call_splice_out(const struct op *op)
{
	lseek(w.a.fd, op->at, SEEK_SET);
	return ret(splice(w.a.fd, NULL, w.pipe[1], NULL, op->length, 0));
}

static bool done_splice_out(const struct op *op, long result)
{
	return read(w.pipe[0], data, result) == result &&
	       done_read(op, result);
}

/* Two pages in the pipe, and not what an earlier call left. */
static bool fill_pipe(void)
{
	while (read(w.pipe[0], data, MAX) > 0)
		;
	return write(w.pipe[1], pattern, 2 * PAGE) == 2 * PAGE;
}

static long call_splice_in(const struct op *op)
{
	lseek(w.a.fd, op->at, SEEK_SET);
	return ret(splice(w.pipe[0], NULL, w.a.fd, NULL, op->length, 0));
}

static const struct op files[] = {
	{ "pread", .call = call_pread, .done = done_read, .full = 3 * PAGE,
	  .errors = FAULT, .parts = true, .at = 100, .length = 3 * PAGE },
	{ "preadv", .call = call_preadv, .done = done_read, .full = 3 * PAGE,
	  .errors = FAULT, .parts = true, .at = PAGE, .length = 3 * PAGE },
	{ "pwrite", prepare_shared, .call = call_pwrite, .done = done_write,
	  .full = 2 * PAGE + 50, .errors = NOMEM | FAULT, .spare = 1,
	  .parts = true, .at = 100, .length = 2 * PAGE + 50 },
	{ "pwrite to a page of its own", .call = call_pwrite,
	  .done = done_write, .full = 1000, .errors = NOMEM | FAULT,
	  .at = PAGE + 100, .length = 1000 },
	{ "pwrite beyond the end", prepare_shared, .call = call_pwrite,
	  .done = done_write, .full = PAGE, .errors = NOMEM | FAULT,
	  .spare = 2, .parts = true, .fills = true,
	  .at = 7 * PAGE + 10, .length = PAGE },
	{ "pwritev", .call = call_pwritev, .done = done_write,
	  .full = 2 * PAGE, .errors = NOMEM | FAULT, .spare = 1, .parts = true,
	  .fills = true, .at = 2 * PAGE, .length = 2 * PAGE },
	{ "ftruncate to less", .call = call_ftruncate, .done = done_ftruncate,
	  .errors = NOMEM, .spare = 1, .length = 3 * PAGE + 10 },
	{ "ftruncate to more", .call = call_ftruncate, .done = done_ftruncate,
	  .errors = NOMEM, .spare = 1, .length = 8 * PAGE },
	{ "ftruncate to nothing", .call = call_ftruncate,
	  .done = done_ftruncate, .errors = NOMEM },
	{ "fallocate", .call = call_fallocate, .done = done_fallocate,
	  .errors = NOMEM, .spare = 1, .at = 2 * PAGE, .length = 6 * PAGE },
	{ "fallocate, KEEP_SIZE", .call = call_fallocate,
	  .done = done_fallocate, .errors = NOMEM,
	  .flags = FALLOC_FL_KEEP_SIZE, .at = PAGE, .length = 3 * PAGE },
	{ "PUNCH_HOLE", .call = call_fallocate, .done = done_fallocate,
	  .errors = NOMEM, .flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	  .spare = 2, .at = 50, .length = 3 * PAGE + 20 },
	{ "PUNCH_HOLE of a pinned page", .call = call_fallocate,
	  .done = done_fallocate, .errors = NOMEM,
	  .flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	  .at = 3 * PAGE, .length = 2 * PAGE, .pins = 1 << 4 },
	{ "ZERO_RANGE", .call = call_fallocate, .done = done_fallocate,
	  .errors = NOMEM, .flags = FALLOC_FL_ZERO_RANGE, .spare = 2, .at = 50,
	  .length = 3 * PAGE + 20 },
	{ "ZERO_RANGE beyond the end", .call = call_fallocate,
	  .done = done_fallocate, .errors = NOMEM,
	  .flags = FALLOC_FL_ZERO_RANGE, .spare = 1, .at = 6 * PAGE + 50,
	  .length = PAGE },
	{ "UNSHARE_RANGE", .call = call_fallocate, .done = done_fallocate,
	  .errors = NOMEM, .flags = FALLOC_FL_UNSHARE_RANGE, .spare = 2,
	  .length = 5 * PAGE },
	{ "SEEK_HOLE", .call = call_lseek, .full = 2 * PAGE, .safe = true,
	  .flags = SEEK_HOLE },
	{ "SEEK_DATA", .call = call_lseek, .full = 3 * PAGE, .safe = true,
	  .flags = SEEK_DATA, .at = 2 * PAGE },
	{ "fsync", .call = call_fsync, .safe = true },
	{ "fstat", .call = call_fstat, .done = done_fstat,
	  .errors = NOMEM | FAULT },
	{ "fdinfo", prepare_fdinfo, .call = call_fdinfo, .done = done_fdinfo,
	  .errors = NOMEM | FAULT },
	/* With page_owner on the kernel splices a page at a time. */
	{ "splice to a pipe", .call = call_splice_out, .done = done_splice_out,
	  .full = PAGE, .errors = NOMEM, .at = PAGE, .length = PAGE },
	{ "splice from a pipe", .before = fill_pipe, .call = call_splice_in,
	  .done = done_write, .full = 2 * PAGE, .errors = NOMEM, .spare = 1,
	  .parts = true, .at = 2 * PAGE, .length = 2 * PAGE },
};

/*
 * Opening, mapping, and dropping
 */

static long call_open(const struct op *op)
{
	w.fd = cow_open();
	return w.fd < 0 ? w.fd : 0;
}

static bool done_open(const struct op *op, long result)
{
	bool empty = !cow_stat(w.fd).length;

	close(w.fd);
	return empty;
}

static long call_reopen(const struct op *op)
{
	w.fd = reopen(w.a.fd, O_RDWR);
	return w.fd < 0 ? w.fd : 0;
}

static bool done_reopen(const struct op *op, long result)
{
	return made_is(w.fd, w.a.want, w.a.size);
}

/* Without a size of its own yet. */
static bool prepare_mmap_handle(const struct op *op)
{
	w.on = w.dev;
	return true;
}

static bool prepare_mmap(const struct op *op)
{
	w.on = w.a.fd;
	return true;
}

static long call_mmap(const struct op *op)
{
	char *p = mmap(NULL, op->length, RW, op->flags, w.on, 0);

	if (p == MAP_FAILED)
		return -errno;
	w.map = p;
	w.map_size = op->length;
	return 0;
}

static bool done_mmap_handle(const struct op *op, long result)
{
	return cow_stat(w.dev).length == op->length && page_is(w.map, 0);
}

static bool done_mmap(const struct op *op, long result)
{
	return !memcmp(w.map, w.a.want, op->length);
}

static bool prepare_munmap(const struct op *op)
{
	return prepare_mmap(op) && !call_mmap(op) && done_mmap(op, 0);
}

static long call_munmap(const struct op *op)
{
	return ret(munmap(w.map, w.map_size));
}

static bool done_munmap(const struct op *op, long result)
{
	w.map = NULL;
	return true;
}

/* A clone that shares some, and has pages of its own. */
static bool prepare_close(const struct op *op)
{
	w.fd = cow_snapshot(w.a.fd, COWMEM_WRITABLE);
	return w.fd >= 0 && write_byte(w.fd, 0, 'x') &&
	       write_byte(w.fd, 2 * PAGE, 'y');
}

static long call_close(const struct op *op)
{
	return ret(close(w.fd));
}

static const struct op handles[] = {
	{ "open", .call = call_open, .done = done_open,
	  .errors = NOMEM | FAULT },
	{ "open of the first handle", .call = call_open, .done = done_open,
	  .errors = NOMEM | FAULT, .bare = true },
	/* The last is what procfs says. */
	{ "open of a file", .call = call_reopen, .done = done_reopen,
	  .errors = NOMEM | FAULT | NOENT },
	{ "mmap of a handle", prepare_mmap_handle, .call = call_mmap,
	  .done = done_mmap_handle, .errors = NOMEM, .length = 2 * PAGE,
	  .flags = MAP_SHARED },
	{ "mmap", prepare_mmap, .call = call_mmap, .done = done_mmap,
	  .errors = NOMEM, .length = 3 * PAGE, .flags = MAP_SHARED },
	{ "mmap, MAP_PRIVATE", prepare_mmap, .call = call_mmap,
	  .done = done_mmap, .errors = NOMEM, .length = 3 * PAGE,
	  .flags = MAP_PRIVATE },
	{ "munmap", prepare_munmap, .call = call_munmap, .done = done_munmap,
	  .errors = NOMEM, .safe = true, .length = 3 * PAGE,
	  .flags = MAP_SHARED },
	{ "close", prepare_close, .call = call_close, .safe = true },
};

/*
 * Page faults
 */

static bool touch(const char *p)
{
	return *(volatile const char *)p == *w.want;
}

/* In the mapping of a that there is. */
static bool prepare_fault(const struct op *op)
{
	w.to = w.a.p + op->at;
	w.want = w.a.want + op->at;
	if (op->flags & ALONE)
		buffer_close(&w.s);
	if (op->flags & SHARED && !prepare_shared(op))
		return false;
	return !(op->flags & LOADED) || touch(w.to);
}

/* In another, that no page table is there for. */
static bool prepare_apart(const struct op *op)
{
	w.map_size = page_up(A_SIZE);
	w.map = mmap((void *)(1UL << 44), w.map_size, RW,
		     MAP_SHARED | MAP_FIXED_NOREPLACE, w.a.fd, 0);
	w.to = w.map + op->at;
	w.want = w.a.want + op->at;
	return w.map != MAP_FAILED;
}

static bool prepare_private(const struct op *op)
{
	w.map_size = page_up(A_SIZE);
	w.map = map_private(w.a.fd, w.map_size, RW);
	w.to = w.map + op->at;
	w.elsewhere = w.a.want[op->at];
	w.want = &w.elsewhere;
	return w.map != MAP_FAILED && (!(op->flags & LOADED) || touch(w.to));
}

/* At @at in a mapping of a buffer of @size that has one page, the first. */
static bool prepare_other(const struct op *op, size_t size, uint32_t flags)
{
	int fd = cow_create_flags(size, "other", flags);

	if (!hold(fd) || !write_byte(fd, 0, '0'))
		return false;
	w.map_size = size;
	w.map = cow_map(fd, size, RW);
	w.to = w.map + op->at;
	w.elsewhere = op->at ? 0 : '0';
	w.want = &w.elsewhere;
	return w.map != MAP_FAILED &&
	       (!(op->flags & SHARED) || hold(cow_snapshot(fd, 0)));
}

static bool prepare_far(const struct op *op)
{
	return prepare_other(op, FAR_SIZE, 0);
}

static bool prepare_pinnable(const struct op *op)
{
	return prepare_other(op, 4 * PAGE, COWMEM_PINNABLE);
}

static long call_store(const struct op *op)
{
	*(volatile char *)w.to = 'x';
	return 0;
}

static bool done_store(const struct op *op, long result)
{
	*w.want = 'x';
	return touch(w.to);
}

static long call_load(const struct op *op)
{
	return touch(w.to) ? 0 : -EBADMSG;
}

static long call_madvise(const struct op *op)
{
	return ret(madvise(w.a.p + op->at, op->length, op->flags));
}

static bool done_remove(const struct op *op, long result)
{
	memset(w.a.want + op->at, 0, op->length);
	return true;
}

/* The kernel faults, for a copy to the mapping and from it. */
static long call_read_into(const struct op *op)
{
	return ret(pread(w.b.fd, w.a.p + op->at, op->length, 0));
}

static bool done_read_into(const struct op *op, long result)
{
	model_copy(op->at, &w.b, 0, result);
	return true;
}

static long call_write_from(const struct op *op)
{
	return ret(pwrite(w.b.fd, w.a.p + op->at, op->length, 0));
}

static bool done_write_from(const struct op *op, long result)
{
	memcpy(w.b.want, w.a.want + op->at, result);
	return true;
}

static const struct op faults[] = {
	{ "store to a hole", prepare_fault, .call = call_store,
	  .done = done_store, .at = 2 * PAGE },
	{ "store to a hole that is mapped", prepare_fault, .call = call_store,
	  .done = done_store, .flags = LOADED, .at = 2 * PAGE },
	{ "store to a shared page", prepare_fault, .call = call_store,
	  .done = done_store, .flags = SHARED, .at = 9 },
	{ "store to a shared page that is mapped", prepare_fault,
	  .call = call_store, .done = done_store, .flags = SHARED | LOADED,
	  .at = 9 },
	{ "store to a page that was shared", prepare_fault, .call = call_store,
	  .done = done_store, .flags = ALONE, .at = 9, .safe = true },
	{ "store to a page that was shared and is mapped", prepare_fault,
	  .call = call_store, .done = done_store, .flags = ALONE | LOADED,
	  .at = 9, .safe = true },
	{ "store without a page table", prepare_apart, .call = call_store,
	  .done = done_store, .at = 9 },
	{ "store far away", prepare_far, .call = call_store,
	  .done = done_store, .at = FAR_INDEX * PAGE },
	{ "load of a hole", prepare_fault, .call = call_load, .at = 2 * PAGE,
	  .safe = true },
	{ "load of a shared page", prepare_fault, .call = call_load, .at = 9,
	  .safe = true },
	{ "load without a page table", prepare_apart, .call = call_load,
	  .at = 9 },
	{ "load of a hole, PINNABLE", prepare_pinnable, .call = call_load,
	  .at = 2 * PAGE },
	{ "load of a shared page, PINNABLE", prepare_pinnable,
	  .call = call_load, .flags = SHARED },
	{ "store to a shared page, PINNABLE", prepare_pinnable,
	  .call = call_store, .done = done_store, .flags = SHARED },
	{ "private load of a hole", prepare_private, .call = call_load,
	  .at = 2 * PAGE, .safe = true },
	{ "private load of a page", prepare_private, .call = call_load,
	  .at = 9, .safe = true },
	{ "private store to a hole", prepare_private, .call = call_store,
	  .done = done_store, .at = 2 * PAGE },
	{ "private store to a page", prepare_private, .call = call_store,
	  .done = done_store, .at = 9 },
	{ "private store to a page that is mapped", prepare_private,
	  .call = call_store, .done = done_store, .flags = LOADED, .at = 9 },
	{ "MADV_POPULATE_READ", .call = call_madvise, .safe = true,
	  .flags = MADV_POPULATE_READ, .length = 6 * PAGE },
	{ "MADV_POPULATE_WRITE", .call = call_madvise,
	  .errors = NOMEM | FAULT, .spare = 4, .fills = true,
	  .flags = MADV_POPULATE_WRITE, .length = 6 * PAGE },
	{ "MADV_REMOVE", .call = call_madvise, .done = done_remove,
	  .errors = NOMEM, .flags = MADV_REMOVE, .at = PAGE,
	  .length = 3 * PAGE },
	{ "read to a hole", .call = call_read_into, .done = done_read_into,
	  .full = PAGE, .errors = FAULT, .spare = 1, .parts = true,
	  .at = 2 * PAGE - 50, .length = PAGE },
	{ "read to a shared page", .call = call_read_into,
	  .done = done_read_into, .full = PAGE, .errors = FAULT, .spare = 1,
	  .parts = true, .at = 3 * PAGE, .length = PAGE },
	{ "write from a shared page", .call = call_write_from,
	  .done = done_write_from, .full = PAGE, .errors = FAULT | NOMEM,
	  .parts = true, .length = PAGE },
};

/*
 * One failure, or a few, in one call
 */

/* In memory that a child shares. */
static struct {
	const char *wrong;	/* or NULL */
	long result;
	unsigned int failed;
} *out;

static bool error_allowed(const struct op *op, long result)
{
	switch (result) {
	case -ENOMEM:
		return op->errors & NOMEM;
	case -EFAULT:
		return op->errors & FAULT;
	case -ENOENT:
		return op->errors & NOENT;
	default:
		return false;
	}
}

static const char *check_failed(const struct op *op, long result,
				const struct state *before)
{
	if (!error_allowed(op, result))
		return "that is no error of it";
	if (memcmp(&w.arg, &w.asked, sizeof(w.arg)))
		return "the struct was written";
	if (!state_kept(op, before))
		return "STAT or what is held has changed";
	return NULL;
}

static const char *check_done(const struct op *op, long result)
{
	if (result != op->full &&
	    !(op->parts && result > 0 && result < op->full))
		return "that is no result of it";
	if (op->done && !op->done(op, result))
		return "it did something else";
	return NULL;
}

static const char *check(const struct op *op, long result,
			 const struct state *before)
{
	const char *wrong;

	wrong = result < 0 ? check_failed(op, result, before) :
		check_done(op, result);
	if (!wrong && !buffers_ok())
		wrong = "other bytes";
	return wrong;
}

/* Make the call, with the failures that are armed. */
static void make(const struct op *op, unsigned int nth, unsigned int times)
{
	struct state before;

	if (op->before && !op->before()) {
		out->wrong = "it cannot be made";
		return;
	}
	look(&before);
	if (nth)
		failures_arm(nth, times);
	out->result = op->call(op);
	if (nth)
		out->failed = failures_disarm(times);
	out->wrong = check(op, out->result, &before);
}

/* And once more, if not all was done; @out tells of the first time. */
static void make_until_done(const struct op *op, unsigned int nth,
			    unsigned int times)
{
	long first;

	make(op, nth, times);
	first = out->result;
	if (out->wrong || first == op->full)
		return;
	make(op, 0, 0);
	if (!out->wrong && out->result != op->full)
		out->wrong = "the next try failed";
	out->result = first;
}

static void run_here(const struct op *op, unsigned int nth, unsigned int times)
{
	if (!world_open(op) || !pin_pages(&w.a, op->pins) ||
	    (op->source_pins && !pin_pages(op->source, op->source_pins)) ||
	    (op->prepare && !op->prepare(op)))
		out->wrong = "it cannot be prepared";
	else
		make_until_done(op, nth, times);
	if (!out->wrong)
		out->wrong = world_close();
}

static void run_in_child(const struct op *op, unsigned int nth,
			 unsigned int times)
{
	int status = CHILD({
		if (failures_begin_thread())
			run_here(op, nth, times);
		else
			out->wrong = "a child has no failures";
	});

	if (status)
		out->wrong = "the child died";
}

/* All of it, with nothing left over; what became of it is in @out. */
static void run(const struct op *op, unsigned int nth, unsigned int times)
{
	int sig;

	memset(out, 0, sizeof(*out));
	if (op->child) {
		run_in_child(op, nth, times);
		return;
	}
	sig = COW_TRY(run_here(op, nth, times));
	if (sig) {
		failures_disarm(times);
		out->wrong = strsignal(sig);
	}
}

static bool inject_begin(struct knobs *knobs)
{
	unsigned int seed = 1;
	size_t i;

	for (i = 0; i < sizeof(pattern); i++)
		pattern[i] = next_random(&seed);
	out = mmap(NULL, sizeof(*out), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pages_param = open(PARAMETERS "pages", O_RDONLY | O_CLOEXEC);
	nodes_param = open(PARAMETERS "nodes", O_RDONLY | O_CLOEXEC);
	/* Page faults that are tried again, caches that cannot grow. */
	expect_noise();
	return out != MAP_FAILED && pages_param >= 0 && nodes_param >= 0 &&
	       knobs_save(knobs) && failures_begin();
}

/*
 * Each call with each failure
 */

FIXTURE(sweep)
{
	struct knobs knobs;
};

FIXTURE_VARIANT(sweep)
{
	const struct op *ops;
	unsigned int nr;
};

#define SWEEP(array)							\
	FIXTURE_VARIANT_ADD(sweep, array)				\
	{								\
		.ops = array, .nr = ARRAY_LENGTH(array)			\
	}

SWEEP(ioctls);
SWEEP(snapshots);
SWEEP(copies);
SWEEP(files);
SWEEP(handles);
SWEEP(faults);

FIXTURE_SETUP(sweep)
{
	if (!failures_possible())
		SKIP(return, "no fault injection in this kernel");
	ASSERT_TRUE(inject_begin(&self->knobs));
}

FIXTURE_TEARDOWN_PARENT(sweep)
{
	knobs_restore(&self->knobs);
}

/* Its first failure, its second... until there is none: how many there are. */
static unsigned int sweep(struct __test_metadata *_metadata,
			  const struct op *op, unsigned int times)
{
	unsigned int nth;

	for (nth = 1; nth < MOST_FAILURES; nth++) {
		run(op, nth, times);
		if (out->wrong)
			TH_LOG("%s, failure %u, which ended with %ld: %s",
			       op->name, nth, out->result, out->wrong);
		ASSERT_EQ(NULL, out->wrong);
		if (!out->failed)
			break;
	}
	EXPECT_LT(nth, MOST_FAILURES);
	TH_LOG("%s: %u", op->name, nth - 1);
	return nth - 1;
}

TEST_F_TIMEOUT(sweep, anything_fails_once, 600)
{
	unsigned int i;

	ASSERT_TRUE(failures_plan(1 << SLAB | 1 << PAGES | 1 << USER, all_code));
	for (i = 0; i < variant->nr; i++) {
		unsigned int nr = sweep(_metadata, &variant->ops[i], 0);

		if (!variant->ops[i].safe)
			EXPECT_NE(0, nr);
	}
}

TEST_F_TIMEOUT(sweep, whatever_the_module_does_instead_fails_too, 600)
{
	unsigned int i;

	ASSERT_TRUE(failures_plan(1 << SLAB | 1 << PAGES | 1 << USER,
				  module_code()));
	for (i = 0; i < variant->nr; i++)
		sweep(_metadata, &variant->ops[i], 4);
}

TEST_F_TIMEOUT(sweep, only_copies_fail_and_go_on_to_fail, 600)
{
	unsigned int i;

	ASSERT_TRUE(failures_plan(1 << USER, module_code()));
	for (i = 0; i < variant->nr; i++)
		sweep(_metadata, &variant->ops[i], 4);
}

/*
 * Each place in the module
 */

/* A place, and how it is hit. */
struct site {
	const char *name;
	unsigned int kinds;
	const char *in;		/* a function that is called just for it */
	const char *op;
	unsigned int nth;	/* below that function */
	unsigned int times;	/* with those that follow */
	unsigned int failed;	/* if that is not @times */
	long result;		/* 0: all is done */
};

static const struct site sites[] = {
	/* account.c */
	{ "account", 1 << SLAB, "cowmem_account_new", "CREATE", 1, 1,
	  .result = -ENOMEM },
	/* fs.c */
	{ "buffer", 1 << SLAB, "cowmem_alloc_inode", "CREATE", 1, 1,
	  .result = -ENOMEM },
	{ "buffer of a snapshot", 1 << SLAB, "cowmem_alloc_inode", "SNAPSHOT",
	  1, 1, .result = -ENOMEM },
	{ "file", 1 << SLAB, "cowmem_fs_file", "FILE", 1, 1,
	  .result = -ENOMEM },
	{ "mount", 1 << SLAB, "cowmem_fs_pin", "open of the first handle",
	  1, 1, .result = -ENOMEM },
	{ "root inode", 1 << SLAB, "cowmem_alloc_inode",
	  "open of the first handle", 1, 1, .result = -ENOMEM },
	{ "root dentry", 1 << SLAB, "d_make_root", "open of the first handle",
	  1, 1, .result = -ENOMEM },
	{ "buffer of a handle", 1 << SLAB, "cowmem_alloc_inode", "open", 1, 1,
	  .result = -ENOMEM },
	/* device.c */
	{ "file descriptor", 1 << SLAB, "get_unused_fd_flags",
	  "FILE in a full table", 1, 1, .result = -ENOMEM },
	{ "struct, in", 1 << USER, "cowmem_device_ioctl", "QUERY", 1, 1,
	  .result = -EFAULT },
	{ "struct, out", 1 << USER, "cowmem_device_ioctl", "QUERY", 2, 1,
	  .result = -EFAULT },
	{ "group", 1 << SLAB, "do_snapshot", "SNAPSHOT of a group", 1, 1,
	  .result = -ENOMEM },
	{ "members, in", 1 << USER, "do_snapshot", "SNAPSHOT of a group", 1, 1,
	  .result = -EFAULT },
	{ "members, out", 1 << USER, "do_snapshot", "SNAPSHOT of a group", 2, 1,
	  .result = -EFAULT },
	{ "extents", 1 << SLAB, "do_diff", "DIFF", 1, 1, .result = -ENOMEM },
	{ "extents, more than a page", 1 << PAGES, "do_diff",
	  "DIFF, many extents", 1, 1 },
	{ "extents, out", 1 << USER, "do_diff", "DIFF", 1, 1,
	  .result = -EFAULT },
	/* file.c */
	{ "read", 1 << USER, "cowmem_file_read_iter", "pread", 1, 1,
	  .result = -EFAULT },
	{ "write", 1 << USER, "cowmem_file_write_iter",
	  "pwrite to a page of its own", 1, 1 },
	{ "write, bounced", 1 << USER, "cowmem_file_write_iter",
	  "pwrite to a page of its own", 1, 2 },
	{ "write, to the bounce page", 1 << USER, "cowmem_file_write_iter",
	  "pwrite to a page of its own", 1, 3, .result = -EFAULT },
	{ "bounce page", 1 << USER | 1 << PAGES, "cowmem_file_write_iter",
	  "pwrite to a page of its own", 1, 2, .failed = 3,
	  .result = -ENOMEM },
	/* buffer.c */
	{ "page, at once", 1 << PAGES, "cowmem_page_alloc", "pwrite", 1, 1 },
	{ "page, with time", 1 << PAGES, "cowmem_page_alloc", "pwrite", 1, 2,
	  .result = -ENOMEM },
	{ "page to be zeroed in part", 1 << PAGES, "cowmem_page_alloc",
	  "ftruncate to less", 1, 2, .result = -ENOMEM },
	{ "nodes to resize", 1 << SLAB, "cowmem_buffer_resize",
	  "ftruncate to nothing", 1, 1, .result = -ENOMEM },
	{ "nodes, with time", 1 << SLAB, "cowmem_buffer_own", "pwrite", 1, 2,
	  .result = -ENOMEM },
	/* tree.c */
	{ "node, at once", 1 << SLAB, "cowmem_tree_edit", "pwrite", 1, 1 },
	{ "root, at once", 1 << SLAB, "cowmem_tree_edit", "store far away",
	  1, 1 },
	{ "nodes to put a page in a tree", 1 << SLAB, "cowmem_tree_put",
	  "fallocate", 1, 2, .result = -ENOMEM },
	{ "nodes to align", 1 << SLAB, "cowmem_tree_align",
	  "RESTORE of a range from elsewhere", 1, 2, .result = -ENOMEM },
	/* range.c */
	{ "page for a hole", 1 << PAGES, "cowmem_page_alloc", "fallocate",
	  1, 1, .result = -ENOMEM },
	{ "nodes of what is in the range", 1 << SLAB, "cowmem_range_fill",
	  "fallocate, KEEP_SIZE", 2, 2, .result = -ENOMEM },
	{ "pages for shared ones", 1 << PAGES, "cowmem_reserve_pages",
	  "UNSHARE_RANGE", 1, 1, .result = -ENOMEM },
	{ "pages for the edges", 1 << PAGES, "cowmem_reserve_pages",
	  "PUNCH_HOLE", 1, 1, .result = -ENOMEM },
	/* replace.c */
	{ "note of a page that stays", 1 << SLAB, "cowmem_replace",
	  "RESTORE, a page stays", 1, 1, .result = -ENOMEM },
	{ "nodes for a page that stays", 1 << SLAB, "cowmem_tree_put",
	  "RESTORE, a page stays", 1, 2, .result = -ENOMEM },
	{ "nodes to graft", 1 << SLAB, "cowmem_replace", "RESTORE", 1, 1,
	  .result = -ENOMEM },
	/* snapshot.c */
	{ "note of a pinned page", 1 << SLAB, "cowmem_cut_take",
	  "SNAPSHOT with a pinned page", 1, 1, .result = -ENOMEM },
	{ "copy of a pinned page", 1 << PAGES, "cowmem_page_alloc",
	  "SNAPSHOT with a pinned page", 1, 1, .result = -ENOMEM },
	{ "nodes beside a pinned page", 1 << SLAB, "cowmem_cut_take",
	  "SNAPSHOT with a pinned page", 2, 2, .result = -ENOMEM },
	{ "nodes of a range", 1 << SLAB, "cowmem_cut_take",
	  "SNAPSHOT of a range", 1, 2, .result = -ENOMEM },
	{ "list of buffers", 1 << SLAB, "cowmem_snapshot_take",
	  "SNAPSHOT of a group", 1, 1, .result = -ENOMEM },
	{ "list of cuts", 1 << SLAB, "cowmem_snapshot_take",
	  "SNAPSHOT of a group", 2, 1, .result = -ENOMEM },
	{ "nodes at other places", 1 << SLAB, "cowmem_tree_align",
	  "SNAPSHOT beyond all places", 1, 2, .result = -ENOMEM },
	/* vm.c: out of memory, and the kernel tries again */
	{ "page table", 1 << PAGES, "cowmem_vm_fault",
	  "store without a page table", 1, 1 },
	{ "page of a fault", 1 << PAGES, "cowmem_page_alloc",
	  "store to a hole", 1, 2 },
	{ "nodes of a fault", 1 << SLAB, "cowmem_vm_fault",
	  "store to a shared page", 1, 2 },
	{ "page of a store to what is mapped", 1 << PAGES,
	  "cowmem_page_alloc", "store to a shared page that is mapped", 1, 2 },
	{ "nodes of a store to what is mapped", 1 << SLAB,
	  "cowmem_vm_page_mkwrite", "store to a shared page that is mapped",
	  1, 2 },
};

static const struct op *find_op(const char *name)
{
	static const struct {
		const struct op *ops;
		unsigned int nr;
	} all[] = {
		{ ioctls, ARRAY_LENGTH(ioctls) },
		{ snapshots, ARRAY_LENGTH(snapshots) },
		{ copies, ARRAY_LENGTH(copies) },
		{ files, ARRAY_LENGTH(files) },
		{ handles, ARRAY_LENGTH(handles) },
		{ faults, ARRAY_LENGTH(faults) },
	};
	unsigned int i, k;

	for (i = 0; i < ARRAY_LENGTH(all); i++)
		for (k = 0; k < all[i].nr; k++)
			if (!strcmp(all[i].ops[k].name, name))
				return &all[i].ops[k];
	return NULL;
}

static const char *result_name(long result)
{
	return result < 0 ? strerrorname_np(-result) : "all is done";
}

/* Is it hit, and does the call end as it should? */
static bool site_ok(const struct site *site, const struct op *op)
{
	return !out->wrong &&
	       out->failed == (site->failed ?: site->times) &&
	       out->result == (site->result ?: op->full);
}

FIXTURE(site)
{
	struct knobs knobs;
};

FIXTURE_SETUP(site)
{
	if (!failures_possible())
		SKIP(return, "no fault injection in this kernel");
	ASSERT_TRUE(inject_begin(&self->knobs));
}

FIXTURE_TEARDOWN_PARENT(site)
{
	knobs_restore(&self->knobs);
}

/*
 * What a checker notes down the first time, it notes down before that counts; but
 * now and then a cache has to grow.
 */
static bool site_hit(const struct site *site, const struct op *op)
{
	int try;

	run(op, 0, 0);
	for (try = 0; try < 3 && !out->wrong; try++) {
		run(op, site->nth, site->times);
		if (site_ok(site, op))
			return true;
	}
	return false;
}

TEST_F_TIMEOUT(site, each_is_hit, 600)
{
	unsigned int i;

	for (i = 0; i < ARRAY_LENGTH(sites); i++) {
		const struct site *site = &sites[i];
		const struct op *op = find_op(site->op);
		struct code code = code_of(site->in);

		ASSERT_NE(NULL, op);
		ASSERT_NE(0, code.start);
		ASSERT_TRUE(failures_plan(site->kinds, code));
		EXPECT_TRUE(site_hit(site, op));
		TH_LOG("%s: number %u in %s(), of %s; %u failed: %s",
		       site->name, site->nth, site->in, site->op, out->failed,
		       result_name(out->result));
		if (out->wrong)
			TH_LOG("%s: %s", site->op, out->wrong);
	}
}

/*
 * Loading.  Last of all, as the module is at another place afterwards.
 */

#define MODULE_FILE	"/cowmem.ko"

static long load(void)
{
	int fd = open(MODULE_FILE, O_RDONLY | O_CLOEXEC);
	long err = fd < 0 ? -errno : ret(syscall(SYS_finit_module, fd, "", 0));

	close(fd);
	return err;
}

/* Kernel threads may put the last reference to it a little later. */
static long unload(void)
{
	long err = -EAGAIN;
	int try;

	for (try = 0; try < 20 && err == -EAGAIN; try++) {
		err = ret(syscall(SYS_delete_module, "cowmem", O_NONBLOCK));
		if (err == -EAGAIN)
			usleep(100000);
	}
	return err;
}

static bool loaded(void)
{
	return !access("/sys/module/cowmem", F_OK);
}

/* The error, and how many failed. */
static long load_with(unsigned int nth, unsigned int *failed)
{
	long err;

	failures_arm(nth, 1);
	err = load();
	*failed = failures_disarm(1);
	return err;
}

/* From number @first of @kind below the function to @last: how many there are. */
static unsigned int sweep_load(struct __test_metadata *_metadata,
			       unsigned int kind, const char *in,
			       unsigned int first, unsigned int last)
{
	unsigned int nth, failed;

	ASSERT_TRUE(failures_plan(1U << kind, code_of(in)));
	for (nth = first; nth <= last; nth++) {
		long err = load_with(nth, &failed);

		if (!failed) {
			EXPECT_EQ(0, err);
			EXPECT_EQ(0, unload());
			break;
		}
		TH_LOG("number %u in %s(), of loading: %s", nth, in,
		       result_name(err));
		EXPECT_EQ(-ENOMEM, err);
		ASSERT_FALSE(loaded());
	}
	return nth - first;
}

/*
 * Of what the kernel does to make a cache only what it calls itself: it leaks the
 * name if adding it to sysfs fails.
 */
#define CACHE_DEPTH	6

TEST_F_TIMEOUT(site, loading_fails_and_the_next_try_works, 600)
{
	if (access(MODULE_FILE, R_OK))
		SKIP(return, "no module to load");
	ASSERT_EQ(0, unload());
	/* cowmem_page_init(): the first page of zeroes, and the last. */
	EXPECT_EQ(1, sweep_load(_metadata, PAGES, "do_one_initcall", 1, 1));
	EXPECT_EQ(1, sweep_load(_metadata, PAGES, "do_one_initcall", 16, 16));
	/* cowmem_device_init() */
	EXPECT_EQ(1, sweep_load(_metadata, SLAB, "device_create_with_groups",
				1, 1));
	/* cowmem_tree_init() and cowmem_fs_init(): a cache each. */
	ASSERT_TRUE(knob_set(SLAB, "stacktrace-depth", CACHE_DEPTH));
	EXPECT_LE(2, sweep_load(_metadata, SLAB, "__kmem_cache_create_args",
				1, 8));
	EXPECT_EQ(0, load());
	EXPECT_EQ(COWMEM_ABI, cow_query().abi);
}

int main(int argc, char **argv)
{
	if (failures_possible() && !symbols_load()) {
		perror("/proc/kallsyms");
		return KSFT_FAIL;
	}
	return test_harness_run(argc, argv);
}
