// SPDX-License-Identifier: GPL-2.0
/*
 * Random programs of all operations on a few buffers, against a model: each
 * buffer is an array of bytes, and of numbers that say which pages it shares.
 * After every step what was touched is compared; every 64 steps all is, with
 * DIFF of all pairs, the pages held and how they are split among the buffers.
 * A tenth as many steps more have all of that after each.
 *
 * Where the contract leaves a choice (a page that is zeroed in part and had
 * been zero there, a copy that may share, IN_PLACE), the model asks DIFF and
 * SEEK_DATA what was chosen, and insists only that it was one of the choices.
 *
 * What fsx does to a file, and what does it here:
 *
 *	read, write		READ, WRITE
 *	mapread, mapwrite	LOAD, STORE, and those of another process in FORK
 *	truncate		TRUNCATE
 *	fallocate, punch, zero	FALLOCATE
 *	clone range		CLONE, and RESTORE of a range
 *	dedupe, copy range	DEDUPE, COPY
 *	seek data, seek hole	SEEK
 *	two openers		REOPEN, and CLOSE of the first before the second
 *	collapse, insert range	nothing: EOPNOTSUPP, as fallocate.c tests
 *	exchange range		nothing: only XFS has it
 *	fsync, msync, fadvise	nothing: there is nowhere to write to
 *	O_DIRECT, AIO, io_uring	nothing: they pin pages, which is what pins.c is about
 *
 * A program that fails is cut down, in children that run a part of it, to one
 * from which nothing can be left out, and printed, one line an operation.
 *
 *	COWMEM_SEED		of the first program; each next has the next one
 *	COWMEM_MODEL_OPS	how many operations, in programs of 2000
 *	COWMEM_MODEL_CHECK	after how many of them to check all: 1 after each,
 *				0 only at the end of a program
 *	COWMEM_MODEL_TRACE	print each before it is done: the kernel may crash
 */
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <time.h>

#include "common.h"
#include "kselftest.h"
#include "split.h"

#define BUFFERS		8
#define PAGES		24U
#define LENGTH		(PAGES * (unsigned int)PAGE)
#define MAPPINGS	10
#define MEMBERS		4	/* of a group */
#define PROGRAM		2000	/* operations */
#define CHECK		64	/* operations from one check of all to the next */
#define SLICE		10	/* a tenth as many more, with one after each */
#define HANGS		100	/* a program that has none for so many seconds */
#define PATIENCE	60	/* seconds to look for a shorter one that fails */
#define NO_LIMIT	(~0U)

/*
 * All choices are made when it is made, so any part of a program is a program:
 * an operation that does not apply any more is left out.  Buffers and mappings
 * have numbers from 1 on, none used twice.  Offsets and lengths are in bytes.
 */
struct op {
	uint16_t a;		/* buffer; the one that changes, if there are two */
	uint16_t b;		/* other buffer */
	uint16_t to;		/* new buffer, or the first of a group */
	uint16_t map;
	uint16_t members[MEMBERS];	/* 0: none */
	uint8_t kind;
	uint8_t flags;		/* index of what the kind has names for */
	uint8_t value;		/* of what is stored */
	bool load;		/* look also through mappings afterwards */
	bool second;		/* by the second file, if there is one */
	uint32_t offset;
	uint32_t source;	/* offset in the other buffer */
	uint32_t length;
};

enum {
	CREATE, REOPEN, CLOSE, MMAP, MUNMAP, PROTECT, ROUND_TRIP, MREMAP, DONTNEED,
	STORE, LOAD, READ, WRITE, SEEK, FORK, SNAPSHOT, GROUP, RESTORE, DIFF, CLONE,
	COPY, DEDUPE, FALLOCATE, TRUNCATE, LIMIT, NR_KINDS
};

/* Shared with the child that runs a program. */
struct run {
	unsigned int step;	/* the one that runs, or has failed */
	unsigned int nr;
	unsigned long applied[NR_KINDS];
	bool hangs;
	char text[256];		/* what failed */
	struct op ops[PROGRAM];
};

struct buffer {
	unsigned int number;	/* 0: none */
	bool frozen;
	bool pinnable;
	int fd;			/* -1: only mappings are left */
	int second;		/* another file of it, or -1 */
	bool readonly, second_readonly;	/* the files */
	unsigned int account;
	unsigned int base;	/* what its page 0 was in the first of its origins */
	unsigned int size;
	unsigned int id[PAGES];	/* of the page; 0: a hole */
	/* Whole pages, also what lies beyond the end in the last one. */
	uint8_t data[LENGTH];
};

struct mapping {
	unsigned int number;	/* 0: none */
	uint8_t *p;
	struct buffer *buf;
	unsigned int first;	/* page of the buffer */
	unsigned int nr;
	int prot;
	bool shared;
	bool readonly;		/* shared, of a file that cannot write */
	bool greedy;		/* a load takes a page as a store does */
	bool split;		/* mprotect() has made several of it */
	bool own[PAGES];	/* private copies... */
	uint8_t data[LENGTH];	/* ... and what is in them */
};

struct page_of_model {
	uint16_t owners;
	uint16_t account;
	uint16_t buffers;	/* a bit for each that has it, for check_sharing() */
};

struct account {
	unsigned int held;
	unsigned int limit;
	/* Some page may count here or elsewhere, and STAT could not say. */
	bool vague;
};

static struct buffer buffers[BUFFERS];
static struct mapping mappings[MAPPINGS];
static struct page_of_model pages[64 * PROGRAM];
static struct account accounts[PROGRAM + 1];
static unsigned int nr_pages, nr_accounts, held;
static unsigned int node_slots = 64;
static unsigned int nr_slots = PAGES;	/* places that an index may have to reach */
static unsigned int touched;	/* a bit for each buffer */
/* Pages of one buffer that may count for its account now, or still for another. */
static struct buffer *undecided_of;
static unsigned int undecided[PAGES], nr_undecided;
static long pages_before;

static struct run *run;
static uint64_t features;
/* The deliberate mistake: what is stored shows wherever the page is shared. */
static bool ignore_cow;
static bool trace;
static unsigned int check_every;	/* operations; 0: only at the end */
static uint8_t scratch[LENGTH];

static void __attribute__((noreturn, format(printf, 1, 2)))
fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(run->text, sizeof(run->text), format, args);
	va_end(args);
	_exit(1);
}

#define expect(condition, ...) do {	\
	if (!(condition))		\
		fail(__VA_ARGS__);	\
} while (0)

static bool has(uint64_t feature)
{
	return (features & feature) == feature;
}

static long result(long ret)
{
	return ret < 0 ? -errno : ret;
}

static bool overlap(unsigned int a, unsigned int b, unsigned int length)
{
	return a < b + length && b < a + length;
}

static unsigned int least_of(unsigned int a, unsigned int b)
{
	return a < b ? a : b;
}

static unsigned int page_of(unsigned int offset)
{
	return offset / PAGE;
}

static unsigned int page_up(unsigned int offset)
{
	return (offset + PAGE - 1) / PAGE * PAGE;
}

static unsigned int page_down(unsigned int offset)
{
	return offset / PAGE * PAGE;
}

static bool all_zero(const uint8_t *data, unsigned int length)
{
	return !length || (!data[0] && !memcmp(data, data + 1, length - 1));
}

/* What a page has depends on the value alone: there will be equal pages. */
static void fill(uint8_t *data, unsigned int offset, unsigned int length,
		 uint8_t value)
{
	for (unsigned int i = 0; i < length; i++) {
		unsigned int at = (offset + i) % PAGE;

		data[i] = value ? value + at + at / 256 * 7 : 0;
	}
}

/* ------------------------------------------------------- memory that may fault */

static volatile sig_atomic_t armed;

static void on_fault(int sig)
{
	if (!armed)
		signal(sig, SIG_DFL);
	else
		siglongjmp(cow_fault_jmp, 1);
}

static void catch_faults(void)
{
	struct sigaction action = {
		.sa_handler = on_fault,
		.sa_flags = SA_NODEFER,	/* so that no mask has to be saved */
	};

	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
}

static bool try_copy(void *to, const void *from, size_t length)
{
	bool done = false;

	armed = 1;
	if (!sigsetjmp(cow_fault_jmp, 0)) {
		memcpy(to, from, length);
		done = true;
	}
	armed = 0;
	return done;
}

/* 0: equal, 1: not, -1: cannot be read. */
static int try_compare(const void *seen, const void *want, size_t length)
{
	volatile int ret = -1;

	armed = 1;
	if (!sigsetjmp(cow_fault_jmp, 0))
		ret = !!memcmp(seen, want, length);
	armed = 0;
	return ret;
}

/* ------------------------------------------------------------------ the model */

static void page_put(unsigned int id)
{
	if (id && !--pages[id].owners) {
		accounts[pages[id].account].held--;
		held--;
	}
}

static void page_get(unsigned int id)
{
	if (id && !pages[id].owners++) {
		accounts[pages[id].account].held++;
		held++;
	}
}

static void set_page(struct buffer *buf, unsigned int i, unsigned int id)
{
	page_get(id);
	page_put(buf->id[i]);
	buf->id[i] = id;
}

static void new_page(struct buffer *buf, unsigned int i)
{
	expect(++nr_pages < ARRAY_SIZE(pages), "test: no page numbers left");
	pages[nr_pages].account = buf->account;
	set_page(buf, i, nr_pages);
}

static void drop_page(struct buffer *buf, unsigned int i)
{
	if (buf->id[i])
		memset(buf->data + i * PAGE, 0, PAGE);
	set_page(buf, i, 0);
}

static bool page_shared(const struct buffer *buf, unsigned int i)
{
	return pages[buf->id[i]].owners > 1;
}

static bool needs_page(const struct buffer *buf, unsigned int i)
{
	return !buf->id[i] || page_shared(buf, i);
}

static void own_page(struct buffer *buf, unsigned int i)
{
	if (needs_page(buf, i))
		new_page(buf, i);
}

static void add_undecided(struct buffer *buf, unsigned int id)
{
	for (unsigned int k = 0; k < nr_undecided; k++)
		if (undecided[k] == id)
			return;
	undecided_of = buf;
	undecided[nr_undecided++] = id;
}

/* It may be kept, or another that the same buffer pays for may take its place. */
static void replace_page(struct buffer *buf, unsigned int i)
{
	if (!needs_page(buf, i) && pages[buf->id[i]].account != buf->account)
		add_undecided(buf, buf->id[i]);
	own_page(buf, i);
}

static void move_page(unsigned int id, unsigned int account)
{
	accounts[pages[id].account].held--;
	accounts[account].held++;
	pages[id].account = account;
}

static unsigned int end_page(const struct buffer *buf)
{
	return page_of(page_up(buf->size));
}

static unsigned int resident(const struct buffer *buf)
{
	unsigned int nr = 0;

	for (unsigned int i = 0; i < PAGES; i++)
		nr += !!buf->id[i];
	return nr;
}

static void touch(const struct buffer *buf)
{
	touched |= 1U << (buf - buffers);
}

/* The buffer, if it has an fd. */
static struct buffer *handle(unsigned int number)
{
	for (struct buffer *buf = buffers; buf < buffers + BUFFERS; buf++) {
		if (buf->number == number && buf->fd >= 0) {
			touch(buf);
			return buf;
		}
	}
	return NULL;
}

static bool by_second(const struct buffer *buf, const struct op *op)
{
	return op->second && buf->second >= 0;
}

/* What the operation is done by. */
static int file_of(const struct buffer *buf, const struct op *op)
{
	return by_second(buf, op) ? buf->second : buf->fd;
}

static bool is_readonly(const struct buffer *buf, const struct op *op)
{
	return by_second(buf, op) ? buf->second_readonly : buf->readonly;
}

static struct buffer *free_buffer(void)
{
	for (struct buffer *buf = buffers; buf < buffers + BUFFERS; buf++)
		if (!buf->number)
			return buf;
	return NULL;
}

static struct mapping *mapped(unsigned int number)
{
	for (struct mapping *map = mappings; map < mappings + MAPPINGS; map++) {
		if (map->number && map->number == number) {
			touch(map->buf);
			return map;
		}
	}
	return NULL;
}

static struct mapping *free_mapping(void)
{
	for (struct mapping *map = mappings; map < mappings + MAPPINGS; map++)
		if (!map->number)
			return map;
	return NULL;
}

static void add_buffer(struct buffer *buf, unsigned int number, int fd,
		       bool frozen, unsigned int account, unsigned int size)
{
	buf->number = number;
	buf->frozen = frozen;
	buf->fd = fd;
	buf->second = -1;
	buf->readonly = frozen;
	buf->account = account;
	buf->base = 0;
	buf->size = size;
	touch(buf);
}

/* What a snapshot of the range has. */
static void add_snapshot(unsigned int number, const struct buffer *from, int fd,
			 bool frozen, unsigned int offset, unsigned int length)
{
	struct buffer *buf = free_buffer();

	add_buffer(buf, number, fd, frozen, from->account, length);
	buf->pinnable = from->pinnable && !frozen;
	/* A range keeps its place in the index. */
	buf->base = from->base + page_of(offset);
	if (nr_slots < buf->base + PAGES)
		nr_slots = buf->base + PAGES;
	memcpy(buf->data, from->data + offset, page_up(length));
	for (unsigned int i = 0; i < end_page(buf); i++)
		set_page(buf, i, from->id[page_of(offset) + i]);
}

static bool is_mapped(const struct buffer *buf)
{
	for (unsigned int i = 0; i < MAPPINGS; i++)
		if (mappings[i].number && mappings[i].buf == buf)
			return true;
	return false;
}

/* After the fd was closed, or a mapping unmapped. */
static void remove_if_unused(struct buffer *buf)
{
	if (buf->fd >= 0 || is_mapped(buf))
		return;
	for (unsigned int i = 0; i < PAGES; i++)
		drop_page(buf, i);
	buf->number = 0;
}

/* Private copies beyond a new end go. */
static void cut_private_copies(const struct buffer *buf)
{
	for (unsigned int n = 0; n < MAPPINGS; n++) {
		struct mapping *map = &mappings[n];

		if (!map->number || map->buf != buf)
			continue;
		for (unsigned int i = 0; i < map->nr; i++)
			if (map->first + i >= end_page(buf))
				map->own[i] = false;
	}
}

/* What a page of a mapping shows, or NULL beyond the end. */
static const uint8_t *view(const struct mapping *map, unsigned int i)
{
	if (map->first + i >= end_page(map->buf))
		return NULL;
	if (map->own[i])
		return map->data + i * PAGE;
	return map->buf->data + (map->first + i) * PAGE;
}

static void store_everywhere(unsigned int id, unsigned int offset,
			     const uint8_t *data, unsigned int length)
{
	for (struct buffer *buf = buffers; buf < buffers + BUFFERS; buf++)
		for (unsigned int i = 0; i < PAGES; i++)
			if (id && buf->id[i] == id)
				memcpy(buf->data + i * PAGE + offset, data, length);
}

/* A write within one page. */
static void write_page(struct buffer *buf, unsigned int offset,
		       const uint8_t *data, unsigned int length)
{
	unsigned int i = page_of(offset);

	if (ignore_cow)
		store_everywhere(buf->id[i], offset % PAGE, data, length);
	own_page(buf, i);
	memcpy(buf->data + offset, data, length);
}

static void store_page(struct mapping *map, unsigned int offset,
		       const uint8_t *data, unsigned int length)
{
	unsigned int i = page_of(offset);

	if (map->shared) {
		write_page(map->buf, map->first * PAGE + offset, data, length);
		return;
	}
	if (!map->own[i])
		memcpy(map->data + i * PAGE, view(map, i), PAGE);
	map->own[i] = true;
	memcpy(map->data + offset, data, length);
}

static void load_page(struct mapping *map, unsigned int i)
{
	if (map->greedy)
		own_page(map->buf, map->first + i);
}

/*
 * Limits
 */

enum verdict { FAILS, MAY_WORK, WORKS };

/* Pages that a call has to allocate: at least, and at most. */
struct need {
	unsigned int least;
	unsigned int most;
};

static uint64_t limit_in_bytes(const struct account *account)
{
	return account->limit == NO_LIMIT ? COWMEM_NO_LIMIT : account->limit * PAGE;
}

static enum verdict room_for(const struct buffer *buf, struct need need)
{
	const struct account *account = &accounts[buf->account];
	unsigned int room = 0;

	if (!need.most || account->limit == NO_LIMIT)
		return WORKS;
	if (account->vague || nr_undecided)
		return MAY_WORK;
	if (account->limit > account->held)
		room = account->limit - account->held;
	if (need.least > room)
		return FAILS;
	return need.most > room ? MAY_WORK : WORKS;
}

static enum verdict room_to_write(const struct buffer *buf, unsigned int i)
{
	unsigned int nr = needs_page(buf, i);

	return room_for(buf, (struct need){ nr, nr });
}

static enum verdict room_to_store(const struct mapping *map, unsigned int i)
{
	if (!view(map, i))
		return FAILS;
	return map->shared ? room_to_write(map->buf, map->first + i) : WORKS;
}

static enum verdict room_to_load(const struct mapping *map, unsigned int i)
{
	if (!view(map, i))
		return FAILS;
	return map->greedy ? room_to_write(map->buf, map->first + i) : WORKS;
}

/* A call that needs pages returned @ret: did it work? */
static bool worked(const struct buffer *buf, long ret, struct need need)
{
	enum verdict verdict = room_for(buf, need);

	expect(ret >= 0 || ret == -ENOSPC, "%s", strerror(-ret));
	expect(ret < 0 || verdict != FAILS, "went beyond the limit");
	expect(ret >= 0 || verdict != WORKS, "ENOSPC below the limit");
	return ret >= 0;
}

/* Nothing changes what is frozen, nor does a file that cannot write. */
static bool refused(const struct buffer *buf, const struct op *op, long ret)
{
	bool readonly = is_readonly(buf, op);

	expect(!readonly || ret < 0, "buffer %u changed", buf->number);
	return readonly;
}

/*
 * Choices of the kernel: ask it
 */

#define CAN_ASK	(COWMEM_FEATURE_DIFF | COWMEM_FEATURE_RANGE)

/* Does it list this page of both? */
static bool differ(int fd, int other, unsigned int i)
{
	struct cowmem_extent extent;
	uint64_t cursor = i * PAGE;
	int nr = cow_diff(fd, other, &extent, 1, &cursor);

	expect(nr >= 0, "diff: %s", strerror(-nr));
	return nr && extent.offset == i * PAGE;
}

static int page_snapshot(const struct buffer *buf, unsigned int i)
{
	bool whole = (i + 1) * PAGE <= buf->size;
	int fd = cow_snapshot_range(buf->fd, 0, i * PAGE, whole ? PAGE : 0);

	expect(fd >= 0, "snapshot of a page: %s", strerror(-fd));
	return fd;
}

static bool shares(const struct buffer *buf, unsigned int i,
		   const struct buffer *other, unsigned int k)
{
	int fd, other_fd;
	bool shared;

	if (i == k && buf != other)
		return !differ(buf->fd, other->fd, i);
	fd = page_snapshot(buf, i);
	other_fd = page_snapshot(other, k);
	shared = !differ(fd, other_fd, 0);
	close(fd);
	close(other_fd);
	return shared;
}

/* Another buffer that can be asked about a page that is shared. */
static const struct buffer *sharer(const struct buffer *buf, unsigned int i,
				   unsigned int *page)
{
	for (const struct buffer *other = buffers; other < buffers + BUFFERS; other++)
		for (*page = 0; *page < PAGES; ++*page)
			if (other != buf && other->fd >= 0 &&
			    other->id[*page] == buf->id[i])
				return other;
	return NULL;
}

/* Nobody could be asked: an operation that might be about it is left out. */
static bool unknowable(const struct buffer *buf, unsigned int offset)
{
	unsigned int i = page_of(offset), page;

	if (offset % PAGE == 0 || !page_shared(buf, i))
		return false;
	return !has(CAN_ASK) || !sharer(buf, i, &page);
}

static bool became_hole(struct buffer *buf, unsigned int i)
{
	unsigned int visible = least_of(PAGE, buf->size - i * PAGE);

	if (lseek(buf->fd, i * PAGE, SEEK_DATA) == (off_t)(i * PAGE))
		return false;
	expect(all_zero(buf->data + i * PAGE, visible),
	       "page %u of buffer %u is a hole", i, buf->number);
	drop_page(buf, i);
	return true;
}

/*
 * [@from, @to) within one page was zeroed.  If there was nothing to be zeroed,
 * the page may still be shared, or a hole.
 */
static void zeroed(struct buffer *buf, unsigned int from, unsigned int to)
{
	unsigned int i = page_of(from), page;
	const struct buffer *other;
	bool changed;

	if (from == to)
		return;
	changed = !all_zero(buf->data + from, to - from);
	memset(buf->data + from, 0, to - from);
	if (became_hole(buf, i))
		return;
	if (page_shared(buf, i) && !changed) {
		other = sharer(buf, i, &page);
		if (shares(buf, i, other, page))
			return;
	}
	replace_page(buf, i);
}

static struct need need_to_zero(const struct buffer *buf, unsigned int from,
				unsigned int to)
{
	struct need need = { };

	if (from < to && page_shared(buf, page_of(from))) {
		need.least = !all_zero(buf->data + from, to - from);
		need.most = 1;
	}
	return need;
}

/* Page @i is a copy of the other's, or shares it, if @other is not NULL. */
static void copied(struct buffer *buf, unsigned int i,
		   const struct buffer *other, unsigned int k)
{
	unsigned int visible = least_of(PAGE, buf->size - i * PAGE);
	uint8_t *data = buf->data + i * PAGE;

	if (became_hole(buf, i))
		return;
	if (other && other->id[k] && shares(buf, i, other, k)) {
		expect(!memcmp(data, other->data + k * PAGE, visible),
		       "page %u of buffer %u is shared, but differs", i,
		       buf->number);
		memcpy(data, other->data + k * PAGE, PAGE);
		set_page(buf, i, other->id[k]);
	} else {
		replace_page(buf, i);
	}
}

/*
 * The tail is what lies in the last page beyond the end: stores put it there,
 * and nothing but a mapping shows it.  Bytes of it that become part of the
 * buffer become zero, but the rest may or may not.
 */

/* The end of what has to be zeroed when the buffer goes on at @offset. */
static unsigned int tail_end(const struct buffer *buf, unsigned int offset)
{
	if (buf->size % PAGE == 0 || !buf->id[page_of(buf->size)] ||
	    offset < buf->size)
		return buf->size;
	return least_of(offset, page_up(buf->size));
}

static bool tail_dirty(const struct buffer *buf)
{
	return !all_zero(buf->data + buf->size, page_up(buf->size) - buf->size);
}

static void read_tail(struct buffer *buf)
{
	unsigned int i = page_of(buf->size), start = buf->size % PAGE;
	uint8_t *p;

	if (!start || !buf->id[i])
		return;
	/* Private: never takes a page. */
	p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, buf->fd, i * PAGE);
	expect(p != MAP_FAILED, "mmap: %m");
	expect(try_copy(buf->data + buf->size, p + start, PAGE - start),
	       "last page of buffer %u faults", buf->number);
	munmap(p, PAGE);
}

/*
 * What is copied within a buffer could be the last page, before or after it is
 * zeroed.
 */
static bool tail_ambiguous(const struct buffer *buf, unsigned int tail, bool dirty)
{
	return tail > buf->size &&
	       (dirty || page_shared(buf, page_of(buf->size)));
}

/* A call failed that may have prepared the tail before. */
static void only_tail_changed(struct buffer *buf, unsigned int tail, bool dirty)
{
	unsigned int i = page_of(buf->size), page;
	const struct buffer *other;

	if (tail > buf->size && page_shared(buf, i)) {
		other = sharer(buf, i, &page);
		if (!shares(buf, i, other, page))
			own_page(buf, i);
	}
	if (dirty)
		read_tail(buf);
}

/* ---------------------------------------------------------------------- checks */

static void same(const uint8_t *seen, const uint8_t *want,
		 unsigned int offset, unsigned int length, const char *how,
		 unsigned int n)
{
	int ret = try_compare(seen, want, length);
	unsigned int i = 0;

	if (!ret)
		return;
	expect(ret > 0, "%s %u: offset %u faults", how, n, offset);
	while (i < length - 1 && seen[i] == want[i])
		i++;
	fail("%s %u: offset %u (page %u) is %02x, not %02x", how, n, offset + i,
	     page_of(offset + i), seen[i], want[i]);
}

/* In one page. */
static void load(struct mapping *map, unsigned int offset, unsigned int length)
{
	unsigned int i = page_of(offset);

	switch (room_to_load(map, i)) {
	case WORKS:
		same(map->p + offset, view(map, i) + offset % PAGE, offset,
		     length, "mapping", map->number);
		load_page(map, i);
		break;
	case FAILS:
		expect(!try_copy(scratch, map->p + offset, length),
		       "mapping %u: offset %u does not fault", map->number, offset);
		break;
	case MAY_WORK:
		break;
	}
}

/* All that can be loaded, and the first page beyond the end. */
static void check_mapping(struct mapping *map)
{
	unsigned int i = 0;

	do
		load(map, i * PAGE, PAGE);
	while (view(map, i) && ++i < map->nr);
}

static void check_mappings(const struct buffer *buf)
{
	for (struct mapping *map = mappings; map < mappings + MAPPINGS; map++)
		if (map->number && map->buf == buf && map->prot != PROT_NONE)
			check_mapping(map);
}

static void check_file(const struct buffer *buf)
{
	struct cowmem_stat stat = cow_stat(buf->fd);
	unsigned int n = buf->number;

	expect(stat.state == (buf->frozen ? COWMEM_STATE_FROZEN : 0) +
			     (buf->pinnable ? COWMEM_STATE_PINNABLE : 0),
	       "buffer %u: state is %#x", n, stat.state);
	expect(stat.length == buf->size, "buffer %u: size is %llu, not %u", n,
	       (unsigned long long)stat.length, buf->size);
	expect(stat.resident == resident(buf) * PAGE,
	       "buffer %u: resident are %llu pages, not %u", n,
	       (unsigned long long)stat.resident / 4096, resident(buf));
	expect(pread(buf->fd, scratch, LENGTH, 0) == buf->size,
	       "buffer %u: pread", n);
	same(scratch, buf->data, 0, buf->size, "buffer", n);
}

/* Note what it says of pages; the value is its end. */
static uint64_t list_extent(const struct cowmem_extent *extent, uint64_t at,
			    unsigned int flags[PAGES])
{
	uint64_t offset = extent->offset, end = offset + extent->length;

	expect(offset >= at && end > offset && end <= LENGTH &&
	       (offset | end) % PAGE == 0 && !extent->__reserved,
	       "diff: extent %llx to %llx", (unsigned long long)offset,
	       (unsigned long long)end);
	for (; offset < end; offset += PAGE)
		flags[page_of(offset)] = extent->flags;
	return end;
}

/* Exactly the pages from @start on that are not shared are listed. */
static void check_diff(const struct buffer *buf, const struct buffer *other,
		       unsigned int start, unsigned int nr)
{
	uint64_t at = start, cursor = start;
	unsigned int flags[PAGES] = { };
	struct cowmem_extent extents[8];
	int calls = 0, n;

	do {
		n = cow_diff(buf->fd, other->fd, extents, nr, &cursor);
		expect(n >= 0 && n <= nr, "diff: %d", n);
		for (int k = 0; k < n; k++)
			at = list_extent(&extents[k], at, flags);
		expect(cursor >= at && ++calls <= 2 * PAGES,
		       "diff: cursor %llx", (unsigned long long)cursor);
	} while (cursor != COWMEM_DIFF_END);
	for (unsigned int i = page_of(start); i < PAGES; i++) {
		unsigned int want = buf->id[i] ? COWMEM_EXTENT_DATA :
						 COWMEM_EXTENT_HOLE;

		if (buf->id[i] == other->id[i])
			want = 0;
		expect(flags[i] == want,
		       "diff of %u and %u: page %u is listed as %u, not %u",
		       buf->number, other->number, i, flags[i], want);
	}
}

/* In how many of its first @nr places has it that page? */
static unsigned int nr_places(const struct buffer *buf, unsigned int id,
			      unsigned int nr)
{
	unsigned int places = 0;

	while (nr--)
		places += buf->id[nr] == id;
	return places;
}

/* Levels of nodes, and the page itself. */
static unsigned int split_steps(void)
{
	unsigned int steps = 2, reach;

	for (reach = node_slots; reach < nr_slots; reach *= node_slots)
		steps++;
	return steps;
}

/*
 * The model knows in how many places each page is, not which of the nodes above
 * are shared: a call that fails, or copies what is there already, may have
 * unshared one, and that is nobody's business.  So these are bounds, exact for
 * pages in up to two places; see account.c for exact ones.
 */
static struct split split_of(const struct buffer *buf)
{
	struct split split = { };

	for (unsigned int i = 0; i < PAGES; i++)
		if (buf->id[i] && !nr_places(buf, buf->id[i], i))
			split_add(&split, nr_places(buf, buf->id[i], PAGES),
				  pages[buf->id[i]].owners, split_steps());
	return split;
}

/* What is its own, and what STAT says of its part in all; the value is that. */
static uint64_t check_split(const struct buffer *buf)
{
	const struct account *account = &accounts[buf->account];
	struct cowmem_stat stat = cow_sharing(buf->fd);
	struct split split = split_of(buf);
	unsigned int own = 0;

	for (unsigned int i = 0; i < PAGES; i++)
		own += !needs_page(buf, i);
	expect(stat.exclusive == own * PAGE,
	       "buffer %u: exclusive are %llu bytes, not %u pages",
	       buf->number, (unsigned long long)stat.exclusive, own);
	expect(account->vague || stat.charged == account->held * PAGE,
	       "buffer %u: its account holds %llu bytes, not %u pages",
	       buf->number, (unsigned long long)stat.charged, account->held);
	expect(stat.limit == limit_in_bytes(account),
	       "buffer %u: its account may hold %llu bytes", buf->number,
	       (unsigned long long)stat.limit);
	expect(split_allows(&split, stat.proportional),
	       "buffer %u: proportional are %llu bytes, not %ld to %ld",
	       buf->number, (unsigned long long)stat.proportional,
	       split.least, split.most);
	return stat.proportional;
}

/* Those that share a page with it, or with one that does. */
static unsigned int family_of(unsigned int member)
{
	unsigned int family = 1U << member, before;

	do {
		before = family;
		for (unsigned int n = 0; n < BUFFERS; n++)
			for (unsigned int i = 0; i < PAGES; i++)
				if (family & 1U << n && buffers[n].id[i])
					family |= pages[buffers[n].id[i]].buffers;
	} while (family != before);
	return family;
}

/*
 * Whatever the index is like: no page has a part in a buffer that does not reach
 * it, and all its parts add up to it.  Each sum of a buffer is rounded down, by a
 * byte at most.  The value is how many pages there are.
 */
static unsigned int check_family(unsigned int family,
				 const uint64_t proportional[BUFFERS])
{
	unsigned int nr = 0, nr_members = 0;
	uint64_t sum = 0;

	for (unsigned int n = 0; n < BUFFERS; n++) {
		if (!(family & 1U << n))
			continue;
		nr_members++;
		sum += proportional[n];
		for (unsigned int i = 0; i < PAGES; i++) {
			struct page_of_model *page = &pages[buffers[n].id[i]];

			/* Each counts once. */
			nr += !!page->buffers;
			page->buffers = 0;
		}
	}
	expect(sum <= nr * PAGE && sum + nr_members >= nr * PAGE,
	       "proportional: %llu bytes in all of buffers %#x, not %u pages",
	       (unsigned long long)sum, family, nr);
	return nr;
}

static void check_sharing(void)
{
	unsigned int left = 0, family, nr = 0;
	uint64_t proportional[BUFFERS];

	for (unsigned int n = 0; n < BUFFERS; n++) {
		if (!buffers[n].number)
			continue;
		left |= 1U << n;
		proportional[n] = check_split(&buffers[n]);
		for (unsigned int i = 0; i < PAGES; i++)
			if (buffers[n].id[i])
				pages[buffers[n].id[i]].buffers |= 1U << n;
	}
	for (; left; left &= ~family) {
		family = family_of(__builtin_ctz(left));
		nr += check_family(family, proportional);
	}
	expect(nr == held, "test: %u pages are held, not %u", nr, held);
}

/* The last reference may be put a little later than a call returns. */
static bool pages_become(long wanted)
{
	for (int tries = 0; tries < 50; tries++) {
		if (cow_param("pages") == wanted)
			return true;
		usleep(2000);
	}
	return false;
}

static void check_held(void)
{
	expect(pages_become(pages_before + held), "%ld pages are held, not %u",
	       cow_param("pages") - pages_before, held);
}

/* Ask how many of those pages were kept: all, none, or it stays open which. */
static void decide_accounts(void)
{
	struct account *account;
	unsigned int nr_moved;

	if (!nr_undecided)
		return;
	/* Then nothing is about to be freed. */
	check_held();
	account = &accounts[undecided_of->account];
	nr_moved = cow_stat(undecided_of->fd).charged / PAGE - account->held;
	expect(account->vague || nr_moved <= nr_undecided,
	       "%d pages more count for the account of buffer %u, not up to %u",
	       (int)nr_moved, undecided_of->number, nr_undecided);
	for (unsigned int k = 0; k < nr_undecided; k++) {
		unsigned int id = undecided[k];

		if (account->vague || (nr_moved && nr_moved != nr_undecided)) {
			accounts[pages[id].account].vague = true;
			account->vague = true;
		} else if (nr_moved) {
			move_page(id, undecided_of->account);
		}
	}
	nr_undecided = 0;
}

/* A file of what the mapping is of. */
static int open_mapped(const struct mapping *map)
{
	unsigned long at = (unsigned long)map->p, start, end;
	FILE *maps = fopen("/proc/self/maps", "r");
	char path[64];
	int fd;

	expect(maps, "maps: %m");
	do
		expect(fscanf(maps, "%lx-%lx%*[^\n]", &start, &end) == 2,
		       "mapping %u is not in maps", map->number);
	while (at < start || at >= end);
	fclose(maps);
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", start, end);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	expect(fd >= 0, "%s: %m", path);
	return fd;
}

/* Have a file of each buffer of which only mappings are left; the value is of which. */
static unsigned int open_all_mapped(void)
{
	unsigned int opened = 0;

	for (const struct mapping *map = mappings; map < mappings + MAPPINGS; map++) {
		if (!map->number || map->buf->fd >= 0)
			continue;
		map->buf->fd = open_mapped(map);
		opened |= 1U << (map->buf - buffers);
	}
	return opened;
}

static void close_files(unsigned int opened)
{
	for (unsigned int n = 0; n < BUFFERS; n++) {
		if (!(opened & 1U << n))
			continue;
		close(buffers[n].fd);
		buffers[n].fd = -1;
	}
}

static void check_all(void)
{
	unsigned int opened = open_all_mapped();

	for (struct buffer *buf = buffers; buf < buffers + BUFFERS; buf++) {
		if (!buf->number)
			continue;
		check_mappings(buf);
		check_file(buf);
		if (!has(COWMEM_FEATURE_DIFF))
			continue;
		for (struct buffer *other = buffers; other <= buf; other++)
			if (other->number)
				check_diff(buf, other, 0, 8);
	}
	check_held();
	if (has(COWMEM_FEATURE_SHARING))
		check_sharing();
	close_files(opened);
}

/* What an operation touched. */
static void check_touched(bool load)
{
	for (struct buffer *buf = buffers; buf < buffers + BUFFERS; buf++) {
		if (!buf->number || !(touched & 1U << (buf - buffers)))
			continue;
		if (buf->fd >= 0)
			check_file(buf);
		/*
		 * Not always: so that there are pages that are not mapped yet
		 * when they are stored to.
		 */
		if (load)
			check_mappings(buf);
	}
}

/*
 * --------------------------------------------------------- operations: buffers
 *
 * Each does the call, says what may come of it, and does the same to the model.
 * The value is whether it applied.
 */

static bool run_create(const struct op *op)
{
	struct buffer *buf = free_buffer();
	int fd;

	if (!buf)
		return false;
	fd = cow_create_flags(op->length, "model",
			      op->flags ? COWMEM_PINNABLE : 0);
	expect(fd >= 0, "%s", strerror(-fd));
	accounts[++nr_accounts].limit = NO_LIMIT;
	add_buffer(buf, op->to, fd, false, nr_accounts, op->length);
	buf->pinnable = op->flags;
	return true;
}

static void unmap(struct mapping *map)
{
	expect(!munmap(map->p, map->nr * PAGE), "munmap: %m");
	map->number = 0;
	remove_if_unused(map->buf);
}

/* Another file of what @fd is a file of. */
static int open_again(int fd, bool readonly)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return result(open(path, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC));
}

/* Through its path, or with FILE, which does not give more than the handle has. */
static bool run_reopen(const struct op *op)
{
	bool readonly = !(op->flags & 1), by_ioctl = op->flags & 2;
	struct buffer *buf = handle(op->a);
	int fd, err = 0;

	if (!buf)
		return false;
	if (!readonly && buf->frozen)
		err = -EPERM;
	else if (!readonly && by_ioctl && is_readonly(buf, op))
		err = -EACCES;
	if (by_ioctl)
		fd = cow_file(file_of(buf, op), readonly ? COWMEM_RDONLY : 0);
	else
		fd = open_again(file_of(buf, op), readonly);
	expect(err ? fd == err : fd >= 0, "%d, not %d", fd, err);
	if (err)
		return true;
	if (buf->second >= 0)
		close(buf->second);
	buf->second = fd;
	buf->second_readonly = readonly;
	return true;
}

enum { CLOSE_ALL, CLOSE_UNMAP, CLOSE_FIRST };

/* The second takes its place. */
static bool close_first(struct buffer *buf)
{
	if (buf->second < 0)
		return false;
	close(buf->fd);
	buf->fd = buf->second;
	buf->readonly = buf->second_readonly;
	buf->second = -1;
	return true;
}

/* Its mappings live on, if they are not unmapped too. */
static bool run_close(const struct op *op)
{
	struct buffer *buf = handle(op->a);

	if (!buf)
		return false;
	if (op->flags == CLOSE_FIRST)
		return close_first(buf);
	if (buf->second >= 0)
		close(buf->second);
	close(buf->fd);
	buf->fd = buf->second = -1;
	remove_if_unused(buf);
	for (struct mapping *map = mappings; map < mappings + MAPPINGS; map++)
		if (op->flags == CLOSE_UNMAP && map->number && map->buf == buf)
			unmap(map);
	return true;
}

static bool run_limit(const struct op *op)
{
	struct buffer *buf = handle(op->a);
	struct account *account;
	int err;

	if (!buf)
		return false;
	account = &accounts[buf->account];
	account->limit = op->length;
	if (account->limit != NO_LIMIT)
		account->limit += account->held;
	err = cow_limit(file_of(buf, op), limit_in_bytes(account));
	expect(!err, "%s", strerror(-err));
	return true;
}

/* A range that a snapshot may have: whole pages, or up to the end. */
static bool snapshot_range(const struct buffer *buf, const struct op *op,
			   unsigned int *length)
{
	unsigned int end = op->offset + op->length;

	*length = op->length ? op->length : buf->size - op->offset;
	if (!op->offset && !op->length)
		return true;
	return op->offset % PAGE == 0 && op->offset < buf->size &&
	       end <= buf->size && (op->length % PAGE == 0 || end == buf->size);
}

static bool run_snapshot(const struct op *op)
{
	struct buffer *from = handle(op->a);
	uint32_t flags = op->flags ? COWMEM_WRITABLE : 0;
	unsigned int length;
	int fd;

	if (!from || !free_buffer() || !snapshot_range(from, op, &length))
		return false;
	fd = file_of(from, op);
	if (op->offset || op->length)
		fd = cow_snapshot_range(fd, flags, op->offset, op->length);
	else
		fd = cow_snapshot(fd, flags);
	expect(fd >= 0, "%s", strerror(-fd));
	add_snapshot(op->to, from, fd, !flags, op->offset, length);
	return true;
}

/* The members, if all of them are there, each once, and have a size. */
static unsigned int find_members(const struct op *op, struct buffer *from[MEMBERS])
{
	unsigned int nr = 0;

	for (int k = 0; k < MEMBERS; k++) {
		if (!op->members[k])
			continue;
		from[nr] = handle(op->members[k]);
		if (!from[nr] || !from[nr]->size)
			return 0;
		for (unsigned int i = 0; i < nr; i++)
			if (from[i] == from[nr])
				return 0;
		nr++;
	}
	return nr;
}

/* Each from the offset on, if it reaches so far, else whole. */
static bool run_group(const struct op *op)
{
	uint32_t flags = op->flags ? COWMEM_WRITABLE : 0;
	struct cowmem_member members[MEMBERS];
	struct buffer *from[MEMBERS];
	unsigned int nr = find_members(op, from), room = 0;
	int err;

	for (unsigned int i = 0; i < BUFFERS; i++)
		room += !buffers[i].number;
	if (!nr || nr > room)
		return false;
	for (unsigned int k = 0; k < nr; k++)
		members[k] = (struct cowmem_member){
			.fd = file_of(from[k], op),
			.snapshot_fd = -1,
			.offset = op->offset < from[k]->size ? op->offset : 0,
		};
	err = cow_snapshot_group(from[0]->fd, flags, members, nr);
	expect(!err, "%s", strerror(-err));
	for (unsigned int k = 0; k < nr; k++) {
		expect(members[k].snapshot_fd >= 0, "member %u has no snapshot", k);
		add_snapshot(op->to + k, from[k], members[k].snapshot_fd, !flags,
			     members[k].offset, from[k]->size - members[k].offset);
	}
	return true;
}

static void restore_pages(struct buffer *buf, unsigned int first,
			  const struct buffer *from, unsigned int source,
			  unsigned int nr, bool in_place)
{
	memcpy(buf->data + first * PAGE, from->data + source * PAGE, nr * PAGE);
	for (unsigned int i = 0; i < nr; i++) {
		if (buf->id[first + i] == from->id[source + i])
			continue;
		if (in_place)
			copied(buf, first + i, from, source + i);
		else
			set_page(buf, first + i, from->id[source + i]);
	}
}

static void restore_whole(struct buffer *buf, const struct buffer *from,
			  bool in_place)
{
	unsigned int last = page_of(from->size);

	buf->size = from->size;
	for (unsigned int i = end_page(buf); i < PAGES; i++)
		drop_page(buf, i);
	cut_private_copies(buf);
	restore_pages(buf, 0, from, 0, end_page(buf), in_place);
	if (buf->size % PAGE && buf->id[last] != from->id[last])
		read_tail(buf);
}

static bool run_restore(const struct op *op)
{
	struct buffer *buf = handle(op->a), *from = handle(op->b);
	uint32_t flags = op->flags ? COWMEM_IN_PLACE : 0;
	bool whole = !op->length;
	int err;

	if (!buf || !from || op->offset + op->length > page_down(buf->size) ||
	    op->source + op->length > page_down(from->size))
		return false;
	if (whole)
		err = cow_restore(file_of(buf, op), file_of(from, op), flags);
	else
		err = cow_restore_range(file_of(buf, op), op->offset,
					file_of(from, op), op->source,
					op->length, flags);
	if (refused(buf, op, err))
		return true;
	if (buf == from && (whole || overlap(op->offset, op->source, op->length))) {
		/* The contract does not say if that of the whole overlaps. */
		expect(err == -EINVAL || (whole && !err), "%d", err);
		return true;
	}
	expect(!err, "%s", strerror(-err));
	if (whole)
		restore_whole(buf, from, op->flags);
	else
		restore_pages(buf, page_of(op->offset), from,
			      page_of(op->source), page_of(op->length), op->flags);
	return true;
}

static bool run_diff(const struct op *op)
{
	struct buffer *buf = handle(op->a), *other = handle(op->b);

	if (!buf || !other)
		return false;
	check_diff(buf, other, op->offset, op->length);
	return true;
}

/* -------------------------------------------------------- operations: mappings */

static const int map_flags[] = { MAP_SHARED, MAP_SHARED, MAP_PRIVATE, MAP_PRIVATE };
static const int map_prots[] = { PROT_READ, RW, PROT_READ, RW };
static const int prots[] = { PROT_NONE, PROT_READ, RW };

static bool run_mmap(const struct op *op)
{
	struct mapping *map = free_mapping();
	struct buffer *buf = handle(op->a);
	int prot = map_prots[op->flags];
	bool shared = map_flags[op->flags] == MAP_SHARED;
	void *p;

	if (!buf || !map)
		return false;
	p = mmap(NULL, op->length, prot, map_flags[op->flags],
		 file_of(buf, op), op->offset);
	if (is_readonly(buf, op) && shared && prot == RW) {
		expect(p == MAP_FAILED && errno == EACCES, "read-only, but writable");
		return true;
	}
	expect(p != MAP_FAILED, "%m");
	map->number = op->map;
	map->p = p;
	map->buf = buf;
	map->first = page_of(op->offset);
	map->nr = page_of(op->length);
	map->prot = prot;
	map->shared = shared;
	map->readonly = shared && is_readonly(buf, op);
	map->greedy = shared && buf->pinnable && !map->readonly;
	map->split = false;
	memset(map->own, 0, sizeof(map->own));
	return true;
}

static bool run_munmap(const struct op *op)
{
	struct mapping *map = mapped(op->map);

	if (!map)
		return false;
	unmap(map);
	return true;
}

static bool run_protect(const struct op *op)
{
	struct mapping *map = mapped(op->map);
	int prot = prots[op->flags];
	long err;

	if (!map)
		return false;
	err = result(mprotect(map->p, map->nr * PAGE, prot));
	if (map->readonly && prot == RW) {
		expect(err == -EACCES, "read-only, but writable: %ld", err);
		return true;
	}
	expect(!err, "%s", strerror(-err));
	map->prot = prot;
	return true;
}

/* A part, and back to what it was. */
static bool run_round_trip(const struct op *op)
{
	struct mapping *map = mapped(op->map);
	uint8_t *p;

	if (!map || op->offset + op->length > map->nr * PAGE)
		return false;
	p = map->p + op->offset;
	expect(!mprotect(p, op->length, prots[op->flags]), "%m");
	expect(!mprotect(p, op->length, map->prot), "back: %m");
	map->split |= op->length < map->nr * PAGE;
	return true;
}

static void *move_mapping(const struct mapping *map)
{
	size_t length = map->nr * PAGE;
	void *to = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return mremap(map->p, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, to);
}

/* Move, cut or grow it; the kernel does none of them across its own borders. */
static bool run_mremap(const struct op *op)
{
	struct mapping *map = mapped(op->map);
	unsigned int nr = page_of(op->length);
	void *p;

	if (!map || map->split || map->first + nr > PAGES)
		return false;
	if (nr == map->nr)
		p = move_mapping(map);
	else
		p = mremap(map->p, map->nr * PAGE, nr * PAGE, MREMAP_MAYMOVE);
	/* Growing: ENOMEM where VM_MIXEDMAP, EFAULT where VM_DONTEXPAND. */
	if (p == MAP_FAILED && nr > map->nr && (errno == ENOMEM || errno == EFAULT))
		return true;
	expect(p != MAP_FAILED, "%m");
	for (unsigned int i = map->nr; i < nr; i++)
		map->own[i] = false;
	map->p = p;
	map->nr = nr;
	return true;
}

static bool run_dontneed(const struct op *op)
{
	struct mapping *map = mapped(op->map);

	if (!map)
		return false;
	expect(!madvise(map->p, map->nr * PAGE, MADV_DONTNEED), "%m");
	memset(map->own, 0, sizeof(map->own));
	return true;
}

/* In one page. */
static bool store(struct mapping *map, unsigned int offset, unsigned int length,
		  uint8_t value)
{
	enum verdict verdict = room_to_store(map, page_of(offset));
	bool stored;

	fill(scratch, offset, length, value);
	stored = try_copy(map->p + offset, scratch, length);
	expect(stored || verdict != WORKS, "offset %u: faults", offset);
	expect(!stored || verdict != FAILS, "offset %u: does not fault", offset);
	if (stored)
		store_page(map, offset, scratch, length);
	return stored;
}

static bool run_store(const struct op *op)
{
	struct mapping *map = mapped(op->map);
	unsigned int at = op->offset, end = at + op->length, next;

	if (!map || map->prot != RW || end > map->nr * PAGE)
		return false;
	for (; at < end; at = next) {
		next = least_of(end, page_down(at) + PAGE);
		if (!store(map, at, next - at, op->value))
			break;
	}
	return true;
}

static bool run_load(const struct op *op)
{
	struct mapping *map = mapped(op->map);
	unsigned int at = op->offset, end = at + op->length, next;

	if (!map || map->prot == PROT_NONE || end > map->nr * PAGE)
		return false;
	for (; at < end; at = next) {
		next = least_of(end, page_down(at) + PAGE);
		load(map, at, next - at);
	}
	return true;
}

/*
 * Everything through each mapping that can be read: the child does what the
 * parent expects.
 */
static void fork_loads(bool child)
{
	for (struct mapping *map = mappings; map < mappings + MAPPINGS; map++) {
		if (!map->number || map->prot == PROT_NONE)
			continue;
		if (child)
			check_mapping(map);
		for (unsigned int i = 0; i < map->nr && !child; i++)
			if (room_to_load(map, i) == WORKS)
				load_page(map, i);
	}
}

/* One store through each mapping that may: likewise. */
static void fork_stores(const struct op *op, bool child)
{
	for (struct mapping *map = mappings; map < mappings + MAPPINGS; map++) {
		unsigned int offset, length, i;
		enum verdict verdict;

		if (!map->number || map->prot != RW)
			continue;
		offset = op->offset % (map->nr * PAGE);
		length = least_of(op->length, page_down(offset) + PAGE - offset);
		i = page_of(offset);
		verdict = room_to_store(map, i);
		if (verdict == MAY_WORK)
			continue;
		if (child) {
			store(map, offset, length, op->value + i);
		} else if (map->shared && verdict == WORKS) {
			fill(scratch, offset, length, op->value + i);
			store_page(map, offset, scratch, length);
		}
	}
}

static void __attribute__((noreturn)) fork_child(const struct op *op)
{
	alarm(60);
	if (op->load)
		fork_loads(true);
	fork_stores(op, true);
	fork_loads(true);
	_exit(0);
}

/* What the child stores to private mappings does not show here. */
static bool run_fork(const struct op *op)
{
	pid_t pid = fork();
	int status = -1;

	expect(pid >= 0, "%m");
	if (!pid)
		fork_child(op);
	expect(waitpid(pid, &status, 0) == pid, "%m");
	if (status && run->text[0])
		_exit(1);
	expect(!status, "the child has status %#x", status);
	for (const struct mapping *map = mappings; map < mappings + MAPPINGS; map++)
		if (map->number)
			touch(map->buf);
	if (op->load)
		fork_loads(false);
	fork_stores(op, false);
	fork_loads(false);
	return true;
}

/* ----------------------------------------------------------- operations: files */

static bool run_read(const struct op *op)
{
	struct buffer *buf = handle(op->a);
	unsigned int want = 0;
	long ret;

	if (!buf || op->length > LENGTH)
		return false;
	if (op->offset < buf->size)
		want = least_of(op->length, buf->size - op->offset);
	ret = result(pread(file_of(buf, op), scratch, op->length, op->offset));
	expect(ret == want, "%ld, not %u", ret, want);
	same(scratch, buf->data + op->offset, op->offset, want, "read of buffer",
	     op->a);
	return true;
}

/* Where the first page is, or the first hole, of which the end is the last. */
static long seek(const struct buffer *buf, unsigned int offset, bool hole)
{
	unsigned int i = page_of(offset);

	if (offset >= buf->size)
		return -ENXIO;
	while (i < end_page(buf) && !buf->id[i] != hole)
		i++;
	if (i == end_page(buf))
		return hole ? (long)buf->size : -ENXIO;
	return i * PAGE > offset ? i * PAGE : offset;
}

static bool run_seek(const struct op *op)
{
	struct buffer *buf = handle(op->a);
	bool hole = op->flags;
	long ret;

	if (!buf)
		return false;
	ret = result(lseek(file_of(buf, op), op->offset,
			   hole ? SEEK_HOLE : SEEK_DATA));
	expect(ret == seek(buf, op->offset, hole), "%ld, not %ld", ret,
	       seek(buf, op->offset, hole));
	return true;
}

/* Bytes were written, until a page could not be had. */
static void write_pages(struct buffer *buf, const struct op *op,
			unsigned int done)
{
	unsigned int at = op->offset, end = at + done, next;

	for (; at < end; at = next) {
		next = least_of(end, page_down(at) + PAGE);
		expect(room_to_write(buf, page_of(at)) != FAILS,
		       "page %u is beyond the limit", page_of(at));
		write_page(buf, at, scratch + at - op->offset, next - at);
	}
	expect(done == op->length ||
	       (end % PAGE == 0 && room_to_write(buf, page_of(end)) != WORKS),
	       "only %u bytes", done);
}

static bool run_write(const struct op *op)
{
	struct buffer *buf = handle(op->a);
	unsigned int size, tail;
	struct need need;
	bool dirty;
	long ret;

	if (!buf || unknowable(buf, buf->size))
		return false;
	size = buf->size;
	tail = tail_end(buf, op->offset);
	dirty = tail_dirty(buf);
	need = need_to_zero(buf, size, tail);
	fill(scratch, op->offset, op->length, op->value);
	ret = result(pwrite(file_of(buf, op), scratch, op->length, op->offset));
	if (refused(buf, op, ret))
		return true;
	if (ret == -ENOSPC)
		need.most += needs_page(buf, page_of(op->offset));
	if (!worked(buf, ret, need)) {
		only_tail_changed(buf, tail, dirty);
		return true;
	}
	expect(ret && ret <= op->length, "%ld", ret);
	if (op->offset + ret > size)
		buf->size = op->offset + ret;
	zeroed(buf, size, tail);
	write_pages(buf, op, ret);
	if (dirty)
		read_tail(buf);
	return true;
}

static bool run_truncate(const struct op *op)
{
	struct buffer *buf = handle(op->a);
	unsigned int from, to;
	bool dirty, shrink;
	struct need need;
	long ret;

	if (!buf || op->length == buf->size)
		return false;
	shrink = op->length < buf->size;
	from = shrink ? op->length : buf->size;
	to = shrink ? page_up(from) : tail_end(buf, op->length);
	if (unknowable(buf, from))
		return false;
	if (from < to && !buf->id[page_of(from)])
		to = from;
	dirty = !shrink && tail_dirty(buf);
	need = need_to_zero(buf, from, to);
	ret = result(ftruncate(file_of(buf, op), op->length));
	if (refused(buf, op, ret) || !worked(buf, ret, need))
		return true;
	buf->size = op->length;
	for (unsigned int i = end_page(buf); i < PAGES; i++)
		drop_page(buf, i);
	cut_private_copies(buf);
	zeroed(buf, from, to);
	if (dirty)
		read_tail(buf);
	return true;
}

#define KEEP	FALLOC_FL_KEEP_SIZE
#define PUNCH	FALLOC_FL_PUNCH_HOLE
#define ZERO	FALLOC_FL_ZERO_RANGE
#define UNSHARE	FALLOC_FL_UNSHARE_RANGE

static const int modes[] = {
	0, KEEP, PUNCH | KEEP, ZERO, ZERO | KEEP, UNSHARE, UNSHARE | KEEP,
};

/* The part [@from, @to) of page @i; a whole page that is replaced was needed. */
static struct need need_to_allocate(const struct buffer *buf, int mode,
				    unsigned int from, unsigned int to)
{
	unsigned int i = page_of(from);
	bool whole = to - from == PAGE, hole = !buf->id[i];
	struct need need = { };

	switch (mode & ~KEEP) {
	case PUNCH:
		return whole ? need : need_to_zero(buf, from, to);
	case ZERO:
		if (!whole)
			need = need_to_zero(buf, from, to);
		else
			need.least = needs_page(buf, i);
		need.most = 1;
		return need;
	case UNSHARE:
		/* The last of its sharers, here too, needs none. */
		need.least = hole;
		need.most = needs_page(buf, i);
		return need;
	default:
		need.least = need.most = hole;
		return need;
	}
}

static void allocated(struct buffer *buf, int mode, unsigned int from,
		      unsigned int to)
{
	unsigned int i = page_of(from);
	bool whole = to - from == PAGE;

	switch (mode & ~KEEP) {
	case PUNCH:
	case ZERO:
		if (!whole) {
			zeroed(buf, from, to);
		} else if (mode & PUNCH) {
			drop_page(buf, i);
		} else {
			replace_page(buf, i);
			memset(buf->data + from, 0, PAGE);
		}
		break;
	case UNSHARE:
		own_page(buf, i);
		break;
	default:
		if (!buf->id[i])
			new_page(buf, i);
	}
}

static bool run_fallocate(const struct op *op)
{
	unsigned int at, next, size, tail, end = op->offset + op->length;
	struct buffer *buf = handle(op->a);
	int mode = modes[op->flags];
	struct need need, part;
	bool dirty;
	long ret;

	if (!buf || unknowable(buf, buf->size) || unknowable(buf, op->offset) ||
	    unknowable(buf, end))
		return false;
	/* What KEEP_SIZE keeps beyond the end, the contract does not say. */
	if (mode & KEEP)
		end = least_of(end, page_up(buf->size));
	if (op->offset >= end || (end < op->offset + op->length && !(mode & PUNCH)))
		return false;
	size = buf->size;
	tail = mode & KEEP ? size : tail_end(buf, end);
	dirty = tail_dirty(buf);
	need = need_to_zero(buf, size, tail);
	/* If it is in the range, it may have been counted twice. */
	if (op->offset < tail)
		need.least = 0;
	for (at = op->offset; at < end; at = next) {
		next = least_of(end, page_down(at) + PAGE);
		part = need_to_allocate(buf, mode, at, next);
		need.least += part.least;
		need.most += part.most;
	}
	ret = result(fallocate(file_of(buf, op), mode, op->offset, op->length));
	if (refused(buf, op, ret))
		return true;
	if (!worked(buf, ret, need)) {
		only_tail_changed(buf, tail, dirty);
		return true;
	}
	if (end > size && !(mode & KEEP))
		buf->size = end;
	zeroed(buf, size, tail);
	for (at = op->offset; at < end; at = next) {
		next = least_of(end, page_down(at) + PAGE);
		allocated(buf, mode, at, next);
	}
	if (dirty)
		read_tail(buf);
	return true;
}

/* A range of pages, or up to the end and no less than to the other's. */
static bool clone_range(const struct buffer *to, const struct buffer *from,
			const struct op *op)
{
	unsigned int end = op->source + op->length;

	if (end > from->size || op->offset + op->length > LENGTH)
		return false;
	return op->length % PAGE == 0 ||
	       (end == from->size && op->offset + op->length >= to->size);
}

static bool run_clone(const struct op *op)
{
	struct buffer *buf = handle(op->a), *from = handle(op->b);
	unsigned int size, tail;
	struct need need;
	bool dirty;
	long ret;

	if (!buf || !from || !clone_range(buf, from, op) ||
	    unknowable(buf, buf->size))
		return false;
	size = buf->size;
	tail = tail_end(buf, op->offset);
	dirty = tail_dirty(buf);
	if (buf == from && tail_ambiguous(buf, tail, dirty))
		return false;
	need = need_to_zero(buf, size, tail);
	ret = cow_clone_range(file_of(buf, op), op->offset, file_of(from, op),
			      op->source, op->length);
	if (refused(buf, op, ret))
		return true;
	if (buf == from && overlap(op->offset, op->source, op->length)) {
		expect(ret == -EINVAL, "overlaps: %ld", ret);
		return true;
	}
	if (!worked(buf, ret, need)) {
		only_tail_changed(buf, tail, dirty);
		return true;
	}
	if (op->offset + op->length > size)
		buf->size = op->offset + op->length;
	zeroed(buf, size, tail);
	restore_pages(buf, page_of(op->offset), from, page_of(op->source),
		      page_of(page_up(op->length)), false);
	return true;
}

/* Pages that are shared whole need none; those of which bytes are copied may. */
static struct need need_to_copy(const struct buffer *buf, const struct op *op,
				unsigned int length)
{
	struct need need = need_to_zero(buf, buf->size, tail_end(buf, op->offset));

	need.least = 0;
	for (unsigned int at = op->offset; at < op->offset + length;
	     at = page_down(at) + PAGE)
		need.most += needs_page(buf, page_of(at));
	return need;
}

/* Pages that lie alike in both may be shared. */
static void copy_bytes(struct buffer *buf, const struct buffer *from,
		       const struct op *op, unsigned int done)
{
	unsigned int first = page_of(op->offset);
	unsigned int last = page_of(op->offset + done - 1);
	bool alike = op->offset % PAGE == op->source % PAGE;

	memcpy(buf->data + op->offset, from->data + op->source, done);
	for (unsigned int i = first; i <= last; i++)
		copied(buf, i, alike ? from : NULL, page_of(op->source) + i - first);
}

static bool run_copy(const struct op *op)
{
	struct buffer *buf = handle(op->a), *from = handle(op->b);
	off_t offset = op->offset, source = op->source;
	unsigned int size, tail, want = 0;
	struct need need;
	bool dirty;
	long ret;

	if (!buf || !from || unknowable(buf, buf->size))
		return false;
	size = buf->size;
	tail = tail_end(buf, op->offset);
	dirty = tail_dirty(buf);
	if (buf == from && tail_ambiguous(buf, tail, dirty))
		return false;
	if (op->source < from->size)
		want = least_of(op->length, from->size - op->source);
	need = need_to_copy(buf, op, want);
	ret = result(copy_file_range(file_of(from, op), &source,
				     file_of(buf, op), &offset, op->length, 0));
	if (refused(buf, op, ret))
		return true;
	if (buf == from && overlap(op->offset, op->source, want)) {
		expect(ret == -EINVAL, "overlaps: %ld", ret);
		return true;
	}
	if (!worked(buf, ret, need)) {
		only_tail_changed(buf, tail, dirty);
		return true;
	}
	expect(ret <= want && !ret == !want, "%ld, not %u", ret, want);
	if (!ret)
		return true;
	if (op->offset + ret > size)
		buf->size = op->offset + ret;
	zeroed(buf, size, tail);
	copy_bytes(buf, from, op, ret);
	if (dirty)
		read_tail(buf);
	return true;
}

/* They share whole pages now, and perhaps the last one. */
static void deduped(struct buffer *buf, const struct buffer *from,
		    const struct op *op)
{
	unsigned int first = page_of(op->offset), source = page_of(op->source);
	unsigned int nr = page_of(op->length);

	restore_pages(buf, first, from, source, nr, false);
	if (op->length % PAGE && shares(buf, first + nr, from, source + nr))
		restore_pages(buf, first + nr, from, source + nr, 1, false);
}

static bool run_dedupe(const struct op *op)
{
	struct buffer *buf = handle(op->a), *from = handle(op->b);
	struct {
		struct file_dedupe_range range;
		struct file_dedupe_range_info info;
	} arg = {
		.range.src_offset = op->source,
		.range.src_length = op->length,
		.range.dest_count = 1,
		.info.dest_offset = op->offset,
	};
	bool same;

	if (!buf || !from || !clone_range(buf, from, op) ||
	    op->offset + op->length > buf->size)
		return false;
	same = !memcmp(buf->data + op->offset, from->data + op->source, op->length);
	arg.info.dest_fd = file_of(buf, op);
	expect(!ioctl(file_of(from, op), FIDEDUPERANGE, &arg), "%m");
	if (buf == from && overlap(op->offset, op->source, op->length)) {
		expect(arg.info.status < 0, "overlaps: %d", arg.info.status);
		return true;
	}
	/* Root may dedupe what it cannot write; the content stays. */
	if (is_readonly(buf, op) && arg.info.status < 0)
		return true;
	/* What a mapping shows behind its end may not change either. */
	if (buf->frozen && op->length % PAGE &&
	    arg.info.status == FILE_DEDUPE_RANGE_DIFFERS)
		return true;
	expect(arg.info.status == (same ? FILE_DEDUPE_RANGE_SAME :
					  FILE_DEDUPE_RANGE_DIFFERS),
	       "status is %d", arg.info.status);
	if (same)
		deduped(buf, from, op);
	return true;
}

/* ------------------------------------------------------------------- the kinds */

/*
 * The text says what to print: %a, %b and %t buffers, %g a group, %m a mapping,
 * %f the name of the flags, %o and %s offsets, %l a length, %v a value.
 */
static const struct kind {
	bool (*run)(const struct op *op);
	unsigned int weight;
	uint64_t feature;
	const char *text;
	const char *flags[7];
} kinds[NR_KINDS] = {
	[CREATE] = { run_create, 20, 0, "create %t: %l bytes%f",
		     { "", ", pinnable" } },
	[REOPEN] = { run_reopen, 40, 0, "second file of %a: %f",
		     { "open, r", "open, rw", "FILE, r", "FILE, rw" } },
	[CLOSE] = { run_close, 125, 0, "close %a%f",
		    { "", ", munmap all", ", first file" } },
	[MMAP] = { run_mmap, 70, 0, "mmap %m: %f of %a, %l at %o",
		   { "shared r", "shared rw", "private r", "private rw" } },
	[MUNMAP] = { run_munmap, 30, 0, "munmap %m" },
	[PROTECT] = { run_protect, 25, 0, "mprotect %m: %f",
		      { "none", "r", "rw" } },
	[ROUND_TRIP] = { run_round_trip, 15, 0,
			 "mprotect %m: %l at %o %f, and back",
			 { "none", "r", "rw" } },
	[MREMAP] = { run_mremap, 20, 0, "mremap %m: %l" },
	[DONTNEED] = { run_dontneed, 20, 0, "madvise %m: dontneed" },
	[STORE] = { run_store, 250, 0, "store to %m: %l at %o, value %v" },
	[LOAD] = { run_load, 50, 0, "load from %m: %l at %o" },
	[READ] = { run_read, 30, 0, "read %a: %l at %o" },
	[WRITE] = { run_write, 110, 0, "write %a: %l at %o, value %v" },
	[SEEK] = { run_seek, 25, 0, "lseek %a: %f from %o", { "DATA", "HOLE" } },
	[FORK] = { run_fork, 5, 0, "fork: store %l at %o, value %v" },
	[SNAPSHOT] = { run_snapshot, 180, 0, "snapshot of %a to %t: %f, %l at %o",
		       { "frozen", "writable" } },
	[GROUP] = { run_group, 25, COWMEM_FEATURE_GROUP,
		    "snapshots of %g to %t...: %f, from %o on", { "frozen", "writable" } },
	[RESTORE] = { run_restore, 60, COWMEM_FEATURE_RESTORE,
		      "restore %a from %b: %f, %l at %o from %s",
		      { "shared", "in place" } },
	[DIFF] = { run_diff, 30, COWMEM_FEATURE_DIFF,
		   "diff %a and %b: from %o on, %l extents a call" },
	[CLONE] = { run_clone, 35, COWMEM_FEATURE_CLONE,
		    "FICLONERANGE to %a from %b: %l at %o from %s" },
	[COPY] = { run_copy, 35, COWMEM_FEATURE_CLONE | CAN_ASK,
		   "copy_file_range to %a from %b: %l at %o from %s" },
	[DEDUPE] = { run_dedupe, 35, COWMEM_FEATURE_DEDUPE | CAN_ASK,
		     "FIDEDUPERANGE of %a and %b: %l at %o and %s" },
	[FALLOCATE] = { run_fallocate, 55, COWMEM_FEATURE_FALLOCATE,
			"fallocate %a: %f, %l at %o",
			{ "0", "KEEP", "PUNCH", "ZERO", "ZERO|KEEP", "UNSHARE",
			  "UNSHARE|KEEP" } },
	[TRUNCATE] = { run_truncate, 25, 0, "truncate %a: %l" },
	[LIMIT] = { run_limit, 30, COWMEM_FEATURE_LIMIT, "limit %a: %l more pages" },
};

static void print_field(FILE *out, const struct op *op, char field)
{
	switch (field) {
	case 'a':
		fprintf(out, "%u", op->a);
		break;
	case 'b':
		fprintf(out, "%u", op->b);
		break;
	case 't':
		fprintf(out, "%u", op->to);
		break;
	case 'g':
		for (int k = 0; k < MEMBERS; k++)
			if (op->members[k])
				fprintf(out, k ? ", %u" : "%u", op->members[k]);
		break;
	case 'm':
		fprintf(out, "m%u", op->map);
		break;
	case 'f':
		fprintf(out, "%s", kinds[op->kind].flags[op->flags]);
		break;
	case 'o':
		fprintf(out, "%#x", op->offset);
		break;
	case 's':
		fprintf(out, "%#x", op->source);
		break;
	case 'l':
		fprintf(out, op->length == NO_LIMIT ? "any" : "%u", op->length);
		break;
	case 'v':
		fprintf(out, "%u", op->value);
	}
}

/* As a line of TAP. */
static void print_op(const struct op *op)
{
	char line[160] = "";
	FILE *out = fmemopen(line, sizeof(line), "w");

	for (const char *p = kinds[op->kind].text; *p; p++) {
		if (*p == '%')
			print_field(out, op, *++p);
		else
			fputc(*p, out);
	}
	fclose(out);
	ksft_print_msg("  %s%s%s\n", line, op->second ? "; second file" : "",
		       op->load ? "; load all" : "");
}

/* --------------------------------------------------------------- the generator */

static uint64_t random_state;
static unsigned int last_buffer, last_mapping;

static void seed_random(uint64_t seed)
{
	/* splitmix64: neighbouring seeds have nothing in common. */
	seed = (seed + 1) * 0x9e3779b97f4a7c15;
	seed = (seed ^ seed >> 30) * 0xbf58476d1ce4e5b9;
	seed = (seed ^ seed >> 27) * 0x94d049bb133111eb;
	random_state = seed ^ seed >> 31 ?: 1;
}

/* Less than @end. */
static unsigned int any(unsigned int end)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state >> 16) % end;
}

/* Half of all happens to one buffer, for a while, so that it adds up. */
static unsigned int favourite;

static struct buffer *any_buffer(bool writable)
{
	unsigned int start = any(2) ? favourite : any(BUFFERS);

	for (unsigned int k = 0; k < BUFFERS; k++) {
		struct buffer *buf = &buffers[(start + k) % BUFFERS];

		if (buf->fd >= 0 && !(writable && buf->frozen))
			return buf;
	}
	return NULL;
}

static struct mapping *any_mapping(int prot)
{
	unsigned int start = any(MAPPINGS);
	struct mapping *map, *found = NULL;
	bool of_favourite = any(2);

	for (unsigned int k = 0; k < MAPPINGS; k++) {
		map = &mappings[(start + k) % MAPPINGS];
		if (!map->number || (map->prot & prot) != prot)
			continue;
		found = map;
		if (!of_favourite || map->buf == &buffers[favourite])
			break;
	}
	return found;
}

/* Small ones are more likely; half of them end within a page. */
static unsigned int any_size(void)
{
	unsigned int size = (any(2) ? any(PAGES + 1) : 1 + any(8)) * PAGE;

	return size && any(2) ? size - any(PAGE) : size;
}

/*
 * Anywhere up to @end, but often in the first pages, so that much happens to
 * the same, and at or near the start of a page.
 */
static unsigned int any_offset(unsigned int end)
{
	unsigned int offset = any((any(2) ? end : least_of(end, 3 * PAGE)) + 1);

	switch (any(4)) {
	case 0:
		return offset;
	case 1:
		return least_of(end, page_up(offset) + any(9));
	default:
		return page_down(offset);
	}
}

/* At least 1, at most @most, which is not 0. */
static unsigned int any_length(unsigned int most)
{
	unsigned int length = 1 + any(most);

	switch (any(4)) {
	case 0:
		return length;
	case 1:
		return least_of(most, 1 + any(64));
	case 2:
		return least_of(most, 1 + any(2 * PAGE));
	default:
		return least_of(most, (1 + any(4)) * PAGE);
	}
}

/* A range in [0, @end), which is not empty. */
static void any_range(struct op *op, unsigned int end)
{
	op->offset = any_offset(end - 1);
	op->length = any_length(end - op->offset);
}

/* A range in a file, sometimes beyond its end. */
static void any_file_range(struct op *op, const struct buffer *buf)
{
	any_range(op, least_of(LENGTH, buf->size + any(4) / 2 * PAGE + 1));
}

static bool make_mapping_op(struct op *op)
{
	const struct mapping *map = any_mapping(op->kind == STORE ? RW :
						op->kind == LOAD ? PROT_READ :
						PROT_NONE);

	if (!map)
		return false;
	op->map = map->number;
	switch (op->kind) {
	case PROTECT:
		op->flags = any(2) ? 2 : any(ARRAY_SIZE(prots));
		return true;
	case ROUND_TRIP:
		op->flags = any(2);
		op->offset = any(map->nr) * PAGE;
		op->length = (1 + any(map->nr - page_of(op->offset))) * PAGE;
		return true;
	case MREMAP:
		op->length = (any(2) ? map->nr : 1 + any(PAGES - map->first)) * PAGE;
		return true;
	default:
		any_range(op, map->nr * PAGE);
		return true;
	}
}

static bool make_mmap(struct op *op)
{
	const struct buffer *buf = any_buffer(any(4));
	unsigned int first, nr;

	if (!buf || !free_mapping())
		return false;
	op->a = buf->number;
	op->map = ++last_mapping;
	first = any(2) ? 0 : any(PAGES);
	nr = end_page(buf);
	op->flags = any(4) ? (any(3) ? 1 : 3) : any(ARRAY_SIZE(map_flags));
	op->offset = first * PAGE;
	op->length = (nr && any(2) ? least_of(nr, PAGES - first) :
				     1 + any(PAGES - first)) * PAGE;
	return true;
}

static bool make_snapshot(struct op *op)
{
	const struct buffer *buf = any_buffer(false);
	unsigned int left;

	if (!buf || !free_buffer())
		return false;
	op->a = buf->number;
	op->to = ++last_buffer;
	op->flags = any(2);
	if (!buf->size || any(2) || !has(COWMEM_FEATURE_RANGE))
		return true;
	op->offset = page_down(any(buf->size));
	left = buf->size - op->offset;
	op->length = any(3) ? page_down(any(left + 1)) : left;
	return true;
}

static bool make_group(struct op *op)
{
	unsigned int nr = 0, room = 0;

	for (unsigned int i = 0; i < BUFFERS; i++)
		room += !buffers[i].number;
	for (struct buffer *buf = buffers; buf < buffers + BUFFERS; buf++)
		if (buf->fd >= 0 && buf->size && any(2) &&
		    nr < least_of(room, MEMBERS))
			op->members[nr++] = buf->number;
	op->to = last_buffer + 1;
	last_buffer += nr;
	op->flags = any(2);
	if (!any(3) && has(COWMEM_FEATURE_RANGE))
		op->offset = any(PAGES) * PAGE;
	return nr;
}

/* Pages of one buffer and of another, mostly at the same offset. */
static void any_pages(struct op *op, unsigned int end, unsigned int source_end)
{
	op->source = any(source_end) * PAGE;
	op->offset = any(2) ? op->source : any(end) * PAGE;
	if (op->offset >= end * PAGE)
		op->offset = 0;
	op->length = least_of(end * PAGE - op->offset,
			      source_end * PAGE - op->source);
	op->length = least_of(op->length, (1 + any(8)) * PAGE);
}

/* Pages that are the same, but not shared, or that are at least alike at first. */
static void any_equal_pages(struct op *op, const struct buffer *buf,
			    const struct buffer *from)
{
	bool alike = !any(3);

	for (int tries = 0; tries < 20; tries++) {
		any_pages(op, page_of(buf->size), page_of(from->size));
		if (tries < 10 && buf->id[page_of(op->offset)] ==
				  from->id[page_of(op->source)])
			continue;
		for (; op->length > PAGE && !alike; op->length -= PAGE)
			if (!memcmp(buf->data + op->offset,
				    from->data + op->source, op->length))
				return;
		op->length = PAGE;
		if (!memcmp(buf->data + op->offset, from->data + op->source,
			    alike ? 64 : PAGE))
			return;
	}
}

/* Up to both ends, in both. */
static bool make_dedupe_of_ends(struct op *op, const struct buffer *buf,
				const struct buffer *from)
{
	op->source = page_down(from->size);
	op->offset = page_down(buf->size);
	op->length = from->size % PAGE;
	return op->length && op->length == buf->size % PAGE;
}

static bool make_pair_op(struct op *op)
{
	const struct buffer *buf = any_buffer(op->kind != DIFF && any(8));
	const struct buffer *from = any_buffer(false);

	if (!buf || !from)
		return false;
	op->a = buf->number;
	op->b = from->number;
	switch (op->kind) {
	case DIFF:
		op->offset = any(2) ? 0 : any(PAGES + 1) * PAGE;
		op->length = 1 + any(4);
		return true;
	case RESTORE:
		op->flags = any(2) && has(COWMEM_FEATURE_IN_PLACE | CAN_ASK);
		if (!any(4) || buf->size < PAGE || from->size < PAGE)
			return true;
		any_pages(op, page_of(buf->size), page_of(from->size));
		return true;
	case CLONE:
		if (!from->size)
			return false;
		any_pages(op, PAGES, end_page(from));
		if (op->source + op->length > from->size)
			op->length = from->size - op->source;
		return op->length;
	case COPY:
		op->source = any_offset(from->size);
		any_file_range(op, buf);
		if (any(2))
			op->offset = page_down(op->offset) + op->source % PAGE;
		op->length = least_of(op->length, LENGTH - op->offset);
		return op->length;
	default:
		if (!any(4))
			return make_dedupe_of_ends(op, buf, from);
		if (buf->size < PAGE || from->size < PAGE)
			return false;
		any_equal_pages(op, buf, from);
		return true;
	}
}

static bool make_file_op(struct op *op)
{
	const struct buffer *buf = any_buffer(op->kind != CLOSE &&
					      op->kind != REOPEN && any(16));
	unsigned int end;

	if (!buf)
		return false;
	op->a = buf->number;
	switch (op->kind) {
	case TRUNCATE:
		op->length = any(4) ? any_size() : any_offset(buf->size);
		return true;
	case LIMIT:
		op->length = any(2) ? NO_LIMIT : any(4);
		return true;
	case FALLOCATE:
		op->flags = any(ARRAY_SIZE(modes));
		any_file_range(op, buf);
		end = op->offset + op->length;
		if (any(2))
			end = page_up(end);
		if ((modes[op->flags] & (KEEP | PUNCH)) == KEEP)
			end = least_of(end, page_up(buf->size));
		op->length = end - op->offset;
		return end > op->offset;
	case REOPEN:
		op->flags = any(8) ? any(2) * 2 + 1 : any(4);
		return true;
	case SEEK:
		op->flags = any(2);
		op->offset = any_offset(buf->size);
		return true;
	case CLOSE:
		op->flags = any(6) ? CLOSE_UNMAP : CLOSE_ALL;
		if (buf->second >= 0 && any(2))
			op->flags = CLOSE_FIRST;
		/* Rather not what took so many operations to come about. */
		return op->flags == CLOSE_FIRST || !is_mapped(buf) || !any(4);
	default:
		any_file_range(op, buf);
		return true;
	}
}

static unsigned int any_kind(void)
{
	unsigned int kind, sum = 0, n;

	for (kind = 0; kind < NR_KINDS; kind++)
		sum += kinds[kind].weight;
	n = any(sum);
	for (kind = 0; n >= kinds[kind].weight; kind++)
		n -= kinds[kind].weight;
	return kind;
}

/* A limit is soon taken off: most operations fail under it. */
static bool make_unlimit(struct op *op)
{
	for (struct buffer *buf = buffers; buf < buffers + BUFFERS; buf++) {
		if (buf->fd >= 0 && accounts[buf->account].limit != NO_LIMIT) {
			op->kind = LIMIT;
			op->a = buf->number;
			op->length = NO_LIMIT;
			return !any(20);
		}
	}
	return false;
}

static bool make_op(struct op *op)
{
	*op = (struct op){
		.value = any(3) ? any(256) : any(3),
		.load = any(2),
		.second = any(2),
	};
	if (make_unlimit(op))
		return true;
	if (!any(32))
		favourite = any(BUFFERS);
	op->kind = any_kind();
	op->a = op->length = 0;
	if (!has(kinds[op->kind].feature))
		return false;
	switch (op->kind) {
	case CREATE:
		op->length = any_size();
		op->to = ++last_buffer;
		/* Most: it is lost on the way through frozen snapshots. */
		op->flags = any(4) && has(COWMEM_FEATURE_PINNABLE);
		return free_buffer();
	case FORK:
		op->offset = any(LENGTH);
		op->length = 1 + any(16);
		return true;
	case MMAP:
		return make_mmap(op);
	case MUNMAP: case PROTECT: case ROUND_TRIP: case MREMAP: case DONTNEED:
	case STORE: case LOAD:
		return make_mapping_op(op);
	case SNAPSHOT:
		return make_snapshot(op);
	case GROUP:
		return make_group(op);
	case RESTORE: case DIFF: case CLONE: case COPY: case DEDUPE:
		return make_pair_op(op);
	default:
		return make_file_op(op);
	}
}

/* ------------------------------------------------------------- running programs */

static void step(const struct op *op)
{
	if (trace) {
		print_op(op);
		fflush(stdout);
	}
	touched = 0;
	if (!kinds[op->kind].run(op))
		return;
	run->applied[op->kind]++;
	decide_accounts();
	check_touched(op->load);
}

/* @ops, or random ones, which it notes. */
static void run_ops(const struct op *ops, unsigned int nr)
{
	for (unsigned int n = 0; n < BUFFERS; n++)
		buffers[n].fd = -1;
	for (unsigned int i = 0; i < nr; i++) {
		run->step = i;
		if (!ops) {
			while (!make_op(&run->ops[i]))
				;
			run->nr = i + 1;
		}
		step(ops ? &ops[i] : &run->ops[i]);
		if (i % 16 == 15)
			check_held();
		if (check_every && i % check_every == check_every - 1) {
			check_all();
			alarm(HANGS);
		}
	}
	check_all();
}

/* In a child, which may hang, crash, and leave anything behind. */
static bool program_works(const struct op *ops, unsigned int nr, uint64_t seed)
{
	int status = -1;
	pid_t pid;

	run->nr = run->step = 0;
	run->text[0] = '\0';
	pages_before = cow_param("pages");
	fflush(stdout);
	pid = fork();
	if (!pid) {
		alarm(HANGS);
		catch_faults();
		seed_random(seed);
		run_ops(ops, nr);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	run->hangs = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
	if (status && !run->text[0])
		snprintf(run->text, sizeof(run->text), "status %#x", status);
	if (!pages_become(pages_before) && !status) {
		snprintf(run->text, sizeof(run->text), "pages are left behind");
		status = 1;
	}
	return !status;
}

static void rename_buffer(uint16_t *number, unsigned int from, unsigned int to)
{
	if (*number == from)
		*number = to;
}

/* Let everybody use the origin in place of the snapshot. */
static void rename_snapshot(struct op *ops, unsigned int nr, unsigned int from,
			    unsigned int to)
{
	for (unsigned int i = 0; i < nr; i++) {
		rename_buffer(&ops[i].a, from, to);
		rename_buffer(&ops[i].b, from, to);
		for (int k = 0; k < MEMBERS; k++)
			rename_buffer(&ops[i].members[k], from, to);
	}
}

/* @instead: of the snapshot that is left out, take the origin. */
static unsigned int leave_out(struct op *to, const struct op *ops,
			      unsigned int nr, unsigned int at,
			      unsigned int part, bool instead)
{
	unsigned int left = at + part < nr ? nr - at - part : 0;

	memcpy(to, ops, at * sizeof(*ops));
	memcpy(to + at, ops + nr - left, left * sizeof(*ops));
	if (instead && ops[at].kind == SNAPSHOT)
		rename_snapshot(to + at, left, ops[at].to, ops[at].a);
	for (int k = 0; instead && k < MEMBERS; k++)
		if (ops[at].kind == GROUP && ops[at].members[k])
			rename_snapshot(to + at, left, ops[at].to + k,
					ops[at].members[k]);
	return at + left;
}

static struct op simpler(struct op op, int how)
{
	switch (how) {
	case 0:
		op.load = false;
		break;
	case 1:
		op.second = false;
		break;
	default:
		/* Not pinnable. */
		if (op.kind == CREATE)
			op.flags = 0;
	}
	return op;
}

/* Do without what does not matter in an operation that does. */
static void simplify(struct op *ops, unsigned int nr, time_t end)
{
	for (unsigned int i = 0; i < nr && time(NULL) < end; i++) {
		for (int how = 0; how < 3; how++) {
			struct op op = ops[i];

			ops[i] = simpler(op, how);
			if (memcmp(&ops[i], &op, sizeof(op)) &&
			    program_works(ops, nr, 0))
				ops[i] = op;
		}
	}
}

/* Leave out what can be, in ever smaller parts; the value is what is left. */
static unsigned int shrink(struct op *ops, unsigned int nr)
{
	time_t end = time(NULL) + PATIENCE;
	unsigned int part, at, left;
	struct op trial[PROGRAM];
	bool again = true, works;

	for (part = nr / 2 ?: 1; again; part = part / 2 ?: 1) {
		again = part > 1;
		for (at = 0; at < nr && time(NULL) < end;) {
			left = leave_out(trial, ops, nr, at, part, false);
			works = program_works(trial, left, 0);
			if (works && part == 1 && ops[at].to) {
				leave_out(trial, ops, nr, at, part, true);
				works = program_works(trial, left, 0);
			}
			if (works) {
				at += part;
				continue;
			}
			nr = left;
			memcpy(ops, trial, nr * sizeof(*ops));
			again = true;
		}
	}
	simplify(ops, nr, end);
	return nr;
}

/* Print the shortest part of the last program that fails; the value is its length. */
static unsigned int explain(uint64_t seed)
{
	unsigned int nr = least_of(run->nr, run->step + 1);
	struct op ops[PROGRAM];

	memcpy(ops, run->ops, nr * sizeof(*ops));
	ksft_print_msg("seed %llu, operation %u: %s\n",
		       (unsigned long long)seed, run->step, run->text);
	if (!nr)
		return PROGRAM;
	print_op(&ops[nr - 1]);
	if (run->hangs || program_works(ops, nr, 0)) {
		ksft_print_msg(run->hangs ? "it hangs\n" :
					    "it worked when it ran again\n");
		return nr;
	}
	nr = shrink(ops, nr);
	program_works(ops, nr, 0);
	ksft_print_msg("%u operations are enough: %s\n", nr, run->text);
	for (unsigned int i = 0; i < nr; i++)
		print_op(&ops[i]);
	return nr;
}

/* ------------------------------------------------------------------------ tests */

static unsigned long number_from(const char *name, unsigned long standard)
{
	const char *text = getenv(name);

	return text ? strtoul(text, NULL, 0) : standard;
}

static void test_model(unsigned long seed, unsigned long nr, unsigned int every)
{
	unsigned long done, part;
	uint64_t next = seed;
	bool works = true;

	check_every = every;
	for (done = 0; works && done < nr; done += part) {
		part = nr - done < PROGRAM ? nr - done : PROGRAM;
		works = program_works(NULL, part, next);
		if (!works)
			explain(next);
		else if (++next % 32 == 0)
			ksft_print_msg("%lu operations\n", done + part);
	}
	ksft_test_result(works,
			 "model: %lu operations, seed %lu, all checked every %u\n",
			 nr, seed, every);
}

/* A random program that never does something tests nothing of it. */
static void test_coverage(unsigned long nr)
{
	bool all = true, missing = false;

	for (unsigned int kind = 0; kind < NR_KINDS; kind++) {
		if (!has(kinds[kind].feature)) {
			ksft_print_msg("not built in: %s\n", kinds[kind].text);
			missing = true;
		} else if (!run->applied[kind]) {
			ksft_print_msg("never done: %s\n", kinds[kind].text);
			all = false;
		}
	}
	if (missing)
		ksft_test_result_skip("some operations are not built in\n");
	else if (!all && nr < PROGRAM)
		ksft_test_result_skip("so few operations do not do all kinds\n");
	else
		ksft_test_result(all, "all kinds of operations were done\n");
}

static void test_checker(void)
{
	unsigned int left = PROGRAM;
	uint64_t seed;

	check_every = CHECK;
	ignore_cow = true;
	/* Not every program can be cut down as far. */
	for (seed = 1; seed <= 8 && left > 6; seed++)
		if (!program_works(NULL, 200, seed))
			left = explain(seed);
	ignore_cow = false;
	ksft_test_result(left <= 6,
			 "model that ignores copy-on-write is found out\n");
}

/* How many slots the nodes of the module have, if it is not as it should be. */
int main(int argc, char **argv)
{
	unsigned long seed = number_from("COWMEM_SEED", 1);
	unsigned long nr = number_from("COWMEM_MODEL_OPS", 2 * PROGRAM);
	unsigned long every = number_from("COWMEM_MODEL_CHECK", CHECK);
	struct cowmem_query query = { .size = sizeof(query) };
	int fd = cow_open();

	ksft_print_header();
	if (fd < 0 || cow_ioctl(fd, COWMEM_QUERY, &query))
		ksft_exit_fail_msg("/dev/cowmem: %s\n", strerror(-fd));
	close(fd);
	features = query.features;
	trace = getenv("COWMEM_MODEL_TRACE");
	if (argc > 1)
		node_slots = strtoul(argv[1], NULL, 0);
	run = mmap(NULL, sizeof(*run), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (run == MAP_FAILED)
		ksft_exit_fail_msg("mmap: %m\n");
	ksft_set_plan(4);
	test_model(seed, nr, every);
	test_model(seed + (nr + PROGRAM - 1) / PROGRAM, (nr + SLICE - 1) / SLICE, 1);
	test_coverage(nr);
	test_checker();
	if (ksft_get_fail_cnt())
		ksft_exit_fail();
	ksft_exit_pass();
}
