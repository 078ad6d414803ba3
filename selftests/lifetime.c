// SPDX-License-Identifier: GPL-2.0
/*
 * Who keeps what alive: handles, mappings, snapshots, processes, messages.  At
 * the end of each test the module holds as many pages as before, and in the
 * model tests after every step exactly those that somebody can reach.  The
 * count is of the whole machine, so let nobody else use the module meanwhile.
 */
#include <pthread.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "common.h"
#include "harness.h"
#include "util.h"

#define PAGES	16
#define LENGTH	(PAGES * PAGE)

static int open_pidfd(pid_t pid)
{
	return syscall(SYS_pidfd_open, pid, 0);
}

/* The last reference may be put a little later than the call returns. */
static bool pages_become(long pages)
{
	for (int i = 0; i < 200; i++) {
		if (cow_param("pages") == pages)
			return true;
		usleep(10000);
	}
	return false;
}

static void expect_exit_0(struct __test_metadata *_metadata, pid_t pid)
{
	int status;

	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(status, 0);
}

/* One byte through a pipe: a process tells another to go on. */
static void signal_pipe(int fd)
{
	if (write(fd, "x", 1) != 1)
		_exit(99);
}

static void wait_pipe(int fd)
{
	char c;

	if (read(fd, &c, 1) != 1)
		_exit(98);
}

/* --------------------------------------------------------------------- model */

/*
 * What buffers should hold: for each slot a value, and the identity of the page
 * that has it.  A store makes a new page if another living buffer has the same,
 * or if it hits a hole; else the page stays.
 */
#define SLOTS		120
#define STRIDE		13	/* pages from slot to slot: several leaves */
#define BUFFERS		24
#define MODEL_LENGTH	(SLOTS * STRIDE * PAGE)

struct model_buffer {
	int fd;			/* -1: not there */
	bool frozen;
	char *map;		/* NULL: file operations only */
	int value[SLOTS];
	int page[SLOTS];	/* 0: hole */
};

struct model {
	struct model_buffer buffers[BUFFERS];
	bool mapped;
	long start;
	int last_value;
	int last_page;
	unsigned int seed;
};

static loff_t slot_offset(int slot)
{
	return slot * STRIDE * PAGE + 8 * slot;
}

static void model_init(struct model *m, bool mapped)
{
	memset(m, 0, sizeof(*m));
	m->mapped = mapped;
	m->start = cow_param("pages");
	m->seed = 1;
	for (int i = 0; i < BUFFERS; i++)
		m->buffers[i].fd = -1;
}

/* Pages that somebody reaches, each once. */
static long model_pages(struct model *m)
{
	long pages = 0;

	for (int slot = 0; slot < SLOTS; slot++) {
		for (int i = 0; i < BUFFERS; i++) {
			int page = m->buffers[i].page[slot], k = 0;

			if (!page)
				continue;
			while (m->buffers[k].page[slot] != page)
				k++;
			pages += k == i;
		}
	}
	return pages;
}

static bool page_shared(struct model *m, int i, int slot)
{
	for (int k = 0; k < BUFFERS; k++)
		if (k != i && m->buffers[k].page[slot] ==
			      m->buffers[i].page[slot])
			return true;
	return false;
}

static bool model_add(struct model *m, int i, int fd, bool frozen)
{
	struct model_buffer *b = &m->buffers[i];
	int prot = frozen ? PROT_READ : PROT_READ | PROT_WRITE;

	b->fd = fd;
	b->frozen = frozen;
	if (fd >= 0 && m->mapped)
		b->map = cow_map(fd, MODEL_LENGTH, prot);
	return fd >= 0 && b->map != MAP_FAILED;
}

static bool model_create(struct model *m, int i)
{
	return model_add(m, i, cow_create(MODEL_LENGTH, "model"), false);
}

static bool model_snapshot(struct model *m, int i, int of, uint32_t flags)
{
	struct model_buffer *from = &m->buffers[of], *to = &m->buffers[i];

	memcpy(to->value, from->value, sizeof(to->value));
	memcpy(to->page, from->page, sizeof(to->page));
	return model_add(m, i, cow_snapshot(from->fd, flags), !flags);
}

static bool model_store(struct model *m, int i, int slot)
{
	struct model_buffer *b = &m->buffers[i];
	int value = ++m->last_value;

	if (!b->page[slot] || page_shared(m, i, slot))
		b->page[slot] = ++m->last_page;
	b->value[slot] = value;
	if (b->map) {
		*(volatile int *)(b->map + slot_offset(slot)) = value;
		return true;
	}
	return pwrite(b->fd, &value, sizeof(value), slot_offset(slot)) ==
	       sizeof(value);
}

static bool model_store_some(struct model *m, int i, int stores)
{
	while (stores--)
		if (!model_store(m, i, rand_r(&m->seed) % SLOTS))
			return false;
	return true;
}

static void model_close(struct model *m, int i)
{
	struct model_buffer *b = &m->buffers[i];

	/* Both orders. */
	if (b->map && i % 2)
		munmap(b->map, MODEL_LENGTH);
	close(b->fd);
	if (b->map && !(i % 2))
		munmap(b->map, MODEL_LENGTH);
	memset(b, 0, sizeof(*b));
	b->fd = -1;
}

static bool model_content(struct model_buffer *b)
{
	for (int slot = 0; slot < SLOTS; slot++) {
		int value = -1;

		if (b->map)
			value = *(volatile int *)(b->map + slot_offset(slot));
		else if (pread(b->fd, &value, sizeof(value),
			       slot_offset(slot)) != sizeof(value))
			return false;
		if (value != b->value[slot])
			return false;
	}
	return true;
}

/* All that are left have what they should, and no page more is held. */
static void model_check(struct __test_metadata *_metadata, struct model *m)
{
	for (int i = 0; i < BUFFERS; i++) {
		if (m->buffers[i].fd >= 0) {
			ASSERT_TRUE(model_content(&m->buffers[i]))
				TH_LOG("buffer %d", i);
		}
	}
	ASSERT_EQ(cow_param("pages"), m->start + model_pages(m));
}

FIXTURE(model) {
	struct model m;
};

FIXTURE_VARIANT(model) {
	bool mapped;
};

FIXTURE_VARIANT_ADD(model, fds) { .mapped = false };
FIXTURE_VARIANT_ADD(model, mapped) { .mapped = true };

FIXTURE_SETUP(model)
{
	int fd = cow_open();

	ASSERT_GE(fd, 0)
		TH_LOG("/dev/cowmem: %s", strerror(-fd));
	close(fd);
	model_init(&self->m, variant->mapped);
}

FIXTURE_TEARDOWN(model)
{
	for (int i = 0; i < BUFFERS; i++)
		if (self->m.buffers[i].fd >= 0)
			model_close(&self->m, i);
	EXPECT_TRUE(pages_become(self->m.start));
}

enum { ORIGIN, SNAPSHOT, CLONE, SECOND, FAMILY };

static void family_init(struct __test_metadata *_metadata, struct model *m)
{
	ASSERT_TRUE(model_create(m, ORIGIN));
	ASSERT_TRUE(model_store_some(m, ORIGIN, 2 * SLOTS));
	ASSERT_TRUE(model_snapshot(m, SNAPSHOT, ORIGIN, 0));
	ASSERT_TRUE(model_store_some(m, ORIGIN, SLOTS / 4));
	ASSERT_TRUE(model_snapshot(m, CLONE, SNAPSHOT, COWMEM_WRITABLE));
	ASSERT_TRUE(model_store_some(m, CLONE, SLOTS / 4));
	ASSERT_TRUE(model_snapshot(m, SECOND, ORIGIN, 0));
	ASSERT_TRUE(model_store_some(m, ORIGIN, SLOTS / 4));
	ASSERT_TRUE(model_store_some(m, CLONE, SLOTS / 4));
	model_check(_metadata, m);
}

/* @order counts through all 4! orders; @step is which to close next. */
static int nth_left(struct model *m, int *order, int step)
{
	int nth = *order % (FAMILY - step);

	*order /= FAMILY - step;
	for (int i = 0; i < FAMILY; i++)
		if (m->buffers[i].fd >= 0 && !nth--)
			return i;
	return -1;
}

TEST_F(model, closing_in_every_order_frees_what_nobody_reaches)
{
	for (int n = 0; n < 24; n++) {
		int order = n;

		family_init(_metadata, &self->m);
		for (int step = 0; step < FAMILY; step++) {
			model_close(&self->m, nth_left(&self->m, &order, step));
			model_check(_metadata, &self->m);
		}
		ASSERT_EQ(cow_param("pages"), self->m.start);
	}
}

TEST_F(model, survivors_go_on_being_written_in_every_order)
{
	for (int n = 0; n < 24; n++) {
		int order = n;

		family_init(_metadata, &self->m);
		for (int step = 0; step < FAMILY; step++) {
			model_close(&self->m, nth_left(&self->m, &order, step));
			for (int i = ORIGIN; i <= CLONE; i += CLONE)
				if (self->m.buffers[i].fd >= 0)
					model_store_some(&self->m, i, 10);
			model_check(_metadata, &self->m);
		}
	}
}

TEST_F(model, chain_of_snapshots_is_freed_link_by_link)
{
	struct model *m = &self->m;

	ASSERT_TRUE(model_create(m, 0));
	for (int i = 1; i < BUFFERS; i++) {
		ASSERT_TRUE(model_store_some(m, 0, 20));
		ASSERT_TRUE(model_snapshot(m, i, 0, 0));
	}
	model_check(_metadata, m);
	for (int i = 0; i < BUFFERS; i++) {
		model_close(m, (i * 7 + 3) % BUFFERS);
		model_check(_metadata, m);
	}
}

TEST_F(model, clone_of_clone_of_clone_is_freed_link_by_link)
{
	struct model *m = &self->m;

	ASSERT_TRUE(model_create(m, 0));
	for (int i = 1; i < BUFFERS; i++) {
		ASSERT_TRUE(model_store_some(m, i - 1, 20));
		ASSERT_TRUE(model_snapshot(m, i, i - 1, COWMEM_WRITABLE));
	}
	model_check(_metadata, m);
	for (int i = 0; i < BUFFERS; i++) {
		model_close(m, (i * 11 + 5) % BUFFERS);
		model_check(_metadata, m);
	}
}

/* Anything at random; content checked now and then, pages every time. */
static bool random_step(struct model *m)
{
	int i = rand_r(&m->seed) % BUFFERS, of = rand_r(&m->seed) % BUFFERS;
	struct model_buffer *b = &m->buffers[i];

	if (b->fd >= 0) {
		if (b->frozen || rand_r(&m->seed) % 4 == 0)
			model_close(m, i);
		else
			return model_store_some(m, i, 8);
		return true;
	}
	if (m->buffers[of].fd < 0)
		return model_create(m, i) && model_store_some(m, i, 30);
	return model_snapshot(m, i, of,
			      rand_r(&m->seed) % 2 ? COWMEM_WRITABLE : 0);
}

TEST_F(model, random_life_holds_what_is_reached)
{
	struct model *m = &self->m;

	for (int step = 0; step < 500; step++) {
		ASSERT_TRUE(random_step(m));
		ASSERT_EQ(cow_param("pages"), m->start + model_pages(m))
			TH_LOG("step %d", step);
		if (step % 50 == 0)
			model_check(_metadata, m);
	}
	model_check(_metadata, m);
}

/* --------------------------------------------------------- handle and mapping */

FIXTURE(life) {
	long start;
	int fd;		/* of a buffer of LENGTH bytes */
	char *map;	/* of it, all written with 'm' */
};

FIXTURE_SETUP(life)
{
	self->start = cow_param("pages");
	ASSERT_GE(self->start, 0)
		TH_LOG("cannot read /sys/module/cowmem/parameters/pages");
	self->fd = cow_create_mapped(LENGTH, "life", &self->map);
	ASSERT_GE(self->fd, 0);
	memset(self->map, 'm', LENGTH);
	ASSERT_EQ(cow_param("pages"), self->start + PAGES);
}

FIXTURE_TEARDOWN(life)
{
	if (self->map)
		munmap(self->map, LENGTH);
	if (self->fd >= 0)
		close(self->fd);
	EXPECT_TRUE(pages_become(self->start))
		TH_LOG("%ld pages, %ld before", cow_param("pages"),
		       self->start);
}

static void close_handle(int *fd)
{
	close(*fd);
	*fd = -1;
}

static void unmap(char **map)
{
	munmap(*map, LENGTH);
	*map = NULL;
}

TEST_F(life, mapping_outlives_its_handle)
{
	close_handle(&self->fd);
	EXPECT_EQ(cow_param("pages"), self->start + PAGES);
	EXPECT_EQ(self->map[0], 'm');
	ASSERT_EQ(madvise(self->map, LENGTH, MADV_DONTNEED), 0);
	EXPECT_EQ(self->map[PAGE], 'm');
	self->map[2 * PAGE] = 'x';
	EXPECT_EQ(self->map[2 * PAGE], 'x');
	unmap(&self->map);
	EXPECT_TRUE(pages_become(self->start));
}

TEST_F(life, handle_outlives_its_mapping)
{
	char c;

	unmap(&self->map);
	EXPECT_EQ(cow_param("pages"), self->start + PAGES);
	EXPECT_EQ(pread(self->fd, &c, 1, PAGE), 1);
	EXPECT_EQ(c, 'm');
	close_handle(&self->fd);
	EXPECT_TRUE(pages_become(self->start));
}

TEST_F(life, mapping_outlives_a_device_handle)
{
	int fd = cow_open();
	char *p;

	ASSERT_GE(fd, 0);
	p = cow_map(fd, LENGTH, PROT_READ | PROT_WRITE);
	ASSERT_NE(p, MAP_FAILED);
	close(fd);
	memset(p, 'd', LENGTH);
	EXPECT_EQ(cow_param("pages"), self->start + 2 * PAGES);
	EXPECT_EQ(p[PAGE], 'd');
	munmap(p, LENGTH);
	EXPECT_TRUE(pages_become(self->start + PAGES));
}

TEST_F(life, file_outlives_the_device_handle_it_came_from)
{
	int dev = cow_open(), fd;
	char c;

	ASSERT_GE(dev, 0);
	ASSERT_EQ(write(dev, "abc", 3), 3);
	fd = cow_file(dev, 0);
	ASSERT_GE(fd, 0);
	close(dev);
	EXPECT_EQ(pread(fd, &c, 1, 2), 1);
	EXPECT_EQ(c, 'c');
	close(fd);
	EXPECT_TRUE(pages_become(self->start + PAGES));
}

TEST_F(life, private_mapping_keeps_the_buffer_not_its_copies)
{
	char *p = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE,
		       self->fd, 0);

	ASSERT_NE(p, MAP_FAILED);
	memset(p, 'p', LENGTH / 2);
	unmap(&self->map);
	close_handle(&self->fd);
	EXPECT_EQ(cow_param("pages"), self->start + PAGES);
	EXPECT_EQ(p[0], 'p');
	EXPECT_EQ(p[LENGTH / 2], 'm');
	munmap(p, LENGTH);
	EXPECT_TRUE(pages_become(self->start));
}

TEST_F(life, part_of_a_mapping_keeps_the_whole_buffer)
{
	close_handle(&self->fd);
	ASSERT_EQ(munmap(self->map, LENGTH - PAGE), 0);
	EXPECT_EQ(cow_param("pages"), self->start + PAGES);
	EXPECT_EQ(self->map[LENGTH - 1], 'm');
	ASSERT_EQ(munmap(self->map + LENGTH - PAGE, PAGE), 0);
	self->map = NULL;
	EXPECT_TRUE(pages_become(self->start));
}

TEST_F(life, last_of_two_mappings_frees)
{
	char *second = cow_map(self->fd, LENGTH, PROT_READ | PROT_WRITE);

	ASSERT_NE(second, MAP_FAILED);
	close_handle(&self->fd);
	unmap(&self->map);
	EXPECT_EQ(cow_param("pages"), self->start + PAGES);
	EXPECT_EQ(second[5 * PAGE], 'm');
	munmap(second, LENGTH);
	EXPECT_TRUE(pages_become(self->start));
}

TEST_F(life, mapping_moved_by_mremap_still_holds)
{
	char *to = mmap(NULL, LENGTH, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
			-1, 0);

	close_handle(&self->fd);
	ASSERT_EQ(mremap(self->map, LENGTH, LENGTH,
			 MREMAP_MAYMOVE | MREMAP_FIXED, to), to);
	self->map = to;
	EXPECT_EQ(to[3 * PAGE], 'm');
	EXPECT_EQ(cow_param("pages"), self->start + PAGES);
}

TEST_F(life, snapshot_of_a_mapping_whose_handles_are_read_only)
{
	int ro = cow_file(self->fd, COWMEM_RDONLY), snap;
	char c;

	ASSERT_GE(ro, 0);
	close_handle(&self->fd);
	snap = cow_snapshot(ro, 0);
	ASSERT_GE(snap, 0);
	self->map[0] = 'x';
	EXPECT_EQ(cow_param("pages"), self->start + PAGES + 1);
	EXPECT_EQ(pread(snap, &c, 1, 0), 1);
	EXPECT_EQ(c, 'm');
	close(ro);
	close(snap);
	EXPECT_EQ(cow_param("pages"), self->start + PAGES);
}

TEST_F(life, mapping_of_a_snapshot_outlives_everything)
{
	int snap = cow_snapshot(self->fd, 0);
	char *p;

	ASSERT_GE(snap, 0);
	p = cow_map(snap, LENGTH, PROT_READ);
	ASSERT_NE(p, MAP_FAILED);
	memset(self->map, 'x', LENGTH);
	close(snap);
	close_handle(&self->fd);
	unmap(&self->map);
	EXPECT_TRUE(pages_become(self->start + PAGES));
	for (int i = 0; i < PAGES; i++)
		EXPECT_EQ(p[i * PAGE], 'm');
	munmap(p, LENGTH);
	EXPECT_TRUE(pages_become(self->start));
}

/* A page in a pipe is a copy: it does not count. */
TEST_F(life, pipe_keeps_nothing)
{
	char text[PAGE];
	int p[2];

	ASSERT_EQ(pipe(p), 0);
	ASSERT_EQ(splice(self->fd, NULL, p[1], NULL, PAGE, 0), PAGE);
	unmap(&self->map);
	close_handle(&self->fd);
	EXPECT_TRUE(pages_become(self->start));
	EXPECT_EQ(read(p[0], text, PAGE), PAGE);
	EXPECT_EQ(text[PAGE - 1], 'm');
	pipe_close(p);
}

TEST_F(life, proc_link_and_fdinfo_keep_nothing)
{
	char path[64];
	int info;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", self->fd);
	info = open(path, O_RDONLY);
	ASSERT_GE(info, 0);
	unmap(&self->map);
	close_handle(&self->fd);
	EXPECT_TRUE(pages_become(self->start));
	close(info);
}

TEST_F(life, truncated_pages_are_freed_at_once)
{
	ASSERT_EQ(ftruncate(self->fd, PAGE), 0);
	EXPECT_EQ(cow_param("pages"), self->start + 1);
	EXPECT_EQ(COW_TRY(self->map[PAGE] = 'x'), SIGBUS);
	EXPECT_EQ(cow_param("pages"), self->start + 1);
}

/* ------------------------------------------------------------------ processes */

TEST_F(life, child_keeps_what_it_has_mapped)
{
	int go[2], ready[2];
	pid_t pid;

	ASSERT_EQ(pipe(go), 0);
	ASSERT_EQ(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		close(self->fd);
		signal_pipe(ready[1]);
		wait_pipe(go[0]);
		self->map[0] = 'c';
		_exit(self->map[0] != 'c' || self->map[PAGE] != 'm');
	}
	unmap(&self->map);
	close_handle(&self->fd);
	wait_pipe(ready[0]);
	EXPECT_EQ(cow_param("pages"), self->start + PAGES);
	signal_pipe(go[1]);
	expect_exit_0(_metadata, pid);
	EXPECT_TRUE(pages_become(self->start));
}

TEST_F(life, child_keeps_what_it_has_open)
{
	int go[2], ready[2];
	pid_t pid;

	ASSERT_EQ(pipe(go), 0);
	ASSERT_EQ(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		char c;

		munmap(self->map, LENGTH);
		signal_pipe(ready[1]);
		wait_pipe(go[0]);
		_exit(pread(self->fd, &c, 1, PAGE) != 1 || c != 'm' ||
		      cow_snapshot(self->fd, 0) < 0);
	}
	unmap(&self->map);
	close_handle(&self->fd);
	wait_pipe(ready[0]);
	EXPECT_EQ(cow_param("pages"), self->start + PAGES);
	signal_pipe(go[1]);
	expect_exit_0(_metadata, pid);
	EXPECT_TRUE(pages_become(self->start));
}

TEST_F(life, fork_shares_what_is_mapped)
{
	pid_t pid = fork();

	if (!pid) {
		self->map[0] = 'c';
		_exit(0);
	}
	expect_exit_0(_metadata, pid);
	EXPECT_EQ(self->map[0], 'c');
	EXPECT_EQ(cow_param("pages"), self->start + PAGES);
}

TEST_F(life, snapshot_in_the_child_freezes_what_the_parent_had)
{
	int snap, s[2];
	pid_t pid;
	char c;

	ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	pid = fork();
	if (!pid) {
		snap = cow_snapshot(self->fd, 0);
		_exit(snap < 0 || send_fd(s[1], snap));
	}
	expect_exit_0(_metadata, pid);
	memset(self->map, 'x', LENGTH);
	snap = receive_fd(s[0]);
	ASSERT_GE(snap, 0);
	EXPECT_EQ(pread(snap, &c, 1, 3 * PAGE), 1);
	EXPECT_EQ(c, 'm');
	close(snap);
	close(s[0]);
	close(s[1]);
}

TEST_F(life, snapshot_outlives_the_process_of_its_origin)
{
	int s[2], snap;
	char *p;
	pid_t pid;

	ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	pid = fork();
	if (!pid) {
		int fd = cow_create(LENGTH, "origin");

		p = cow_map(fd, LENGTH, PROT_READ | PROT_WRITE);
		memset(p, 'o', LENGTH);
		snap = cow_snapshot(fd, 0);
		memset(p, 'x', LENGTH);
		_exit(send_fd(s[1], snap) != 0);
	}
	expect_exit_0(_metadata, pid);
	snap = receive_fd(s[0]);
	ASSERT_GE(snap, 0);
	EXPECT_TRUE(pages_become(self->start + 2 * PAGES));
	p = cow_map(snap, LENGTH, PROT_READ);
	ASSERT_NE(p, MAP_FAILED);
	for (int i = 0; i < PAGES; i++)
		EXPECT_EQ(p[i * PAGE], 'o');
	munmap(p, LENGTH);
	close(snap);
	close(s[0]);
	close(s[1]);
}

/* Many buffers, snapshots and mappings; the caller then goes in some way. */
static void make_a_mess(void)
{
	for (int i = 0; i < 20; i++) {
		int fd = cow_create(LENGTH, "mess"), snap;
		char *p = cow_map(fd, LENGTH, PROT_READ | PROT_WRITE);

		memset(p, i, LENGTH);
		snap = cow_snapshot(fd, i % 2 ? COWMEM_WRITABLE : 0);
		cow_map(snap, LENGTH, PROT_READ);
		p[0]++;
		if (i % 3 == 0)
			close(fd);
	}
}

TEST_F(life, exit_closes_everything)
{
	pid_t pid = fork();

	if (!pid) {
		make_a_mess();
		_exit(0);
	}
	expect_exit_0(_metadata, pid);
	EXPECT_TRUE(pages_become(self->start + PAGES));
}

TEST_F(life, exec_drops_mappings_and_CLOEXEC_handles)
{
	int ready[2], go[2];
	pid_t pid;

	ASSERT_EQ(pipe(ready), 0);
	ASSERT_EQ(pipe(go), 0);
	pid = fork();
	if (!pid) {
		make_a_mess();
		dup2(ready[1], 1);
		dup2(go[0], 0);
		execl("/bin/sh", "sh", "-c", "echo x; read y", NULL);
		_exit(1);
	}
	wait_pipe(ready[0]);
	/* It runs on, with another image. */
	EXPECT_TRUE(pages_become(self->start + PAGES));
	EXPECT_EQ(write(go[1], "y\n", 2), 2);
	expect_exit_0(_metadata, pid);
}

TEST_F(life, handle_without_CLOEXEC_survives_exec)
{
	static char text[LENGTH];
	int p[2], done = 0, n;
	pid_t pid;

	ASSERT_EQ(pipe(p), 0);
	pid = fork();
	if (!pid) {
		dup2(p[1], 1);
		dup2(self->fd, 0);
		close(p[1]);
		execl("/bin/sh", "sh", "-c", "exec cat", NULL);
		_exit(1);
	}
	close(p[1]);
	while ((n = read(p[0], text + done, sizeof(text) - done)) > 0)
		done += n;
	expect_exit_0(_metadata, pid);
	EXPECT_EQ(done, LENGTH);
	EXPECT_EQ(memcmp(text, self->map, LENGTH), 0);
	close(p[0]);
}

TEST_F(life, opening_it_through_the_proc_of_another_process)
{
	int ready[2], go[2], fd, their = self->fd;
	char path[64];
	pid_t pid;

	ASSERT_EQ(pipe(ready), 0);
	ASSERT_EQ(pipe(go), 0);
	pid = fork();
	if (!pid) {
		signal_pipe(ready[1]);
		wait_pipe(go[0]);
		_exit(0);
	}
	unmap(&self->map);
	close_handle(&self->fd);
	wait_pipe(ready[0]);
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, their);
	fd = open(path, O_RDWR);
	ASSERT_GE(fd, 0);
	signal_pipe(go[1]);
	expect_exit_0(_metadata, pid);
	EXPECT_EQ(cow_param("pages"), self->start + PAGES);
	EXPECT_EQ(cow_stat(fd).length, LENGTH);
	close(fd);
}

/* ----------------------------------------------------------- handles on travel */

FIXTURE(travel) {
	long start;
	int fd;
	int sock[2];
};

FIXTURE_VARIANT(travel) {
	bool device;
};

FIXTURE_VARIANT_ADD(travel, device) { .device = true };
FIXTURE_VARIANT_ADD(travel, file) { .device = false };

FIXTURE_SETUP(travel)
{
	static char text[LENGTH];

	self->start = cow_param("pages");
	self->fd = variant->device ? cow_open() : cow_create(0, "travel");
	ASSERT_GE(self->fd, 0)
		TH_LOG("/dev/cowmem: %s", strerror(-self->fd));
	memset(text, 't', LENGTH);
	ASSERT_EQ(write(self->fd, text, LENGTH), LENGTH);
	ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, self->sock), 0);
}

FIXTURE_TEARDOWN(travel)
{
	close(self->fd);
	close(self->sock[0]);
	close(self->sock[1]);
	EXPECT_TRUE(pages_become(self->start));
}

TEST_F(travel, receiver_maps_and_both_see_writes)
{
	char *p = cow_map(self->fd, LENGTH, PROT_READ | PROT_WRITE);
	int go[2];
	pid_t pid;

	ASSERT_NE(p, MAP_FAILED);
	ASSERT_EQ(pipe(go), 0);
	pid = fork();
	if (!pid) {
		char *q;
		int fd;

		close(self->fd);
		munmap(p, LENGTH);
		fd = receive_fd(self->sock[0]);
		q = cow_map(fd, LENGTH, PROT_READ | PROT_WRITE);
		if (fd < 0 || q == MAP_FAILED || q[PAGE] != 't')
			_exit(1);
		q[0] = 'r';
		signal_pipe(go[1]);
		while (*(volatile char *)(q + PAGE) != 's')
			usleep(1000);
		_exit(0);
	}
	ASSERT_EQ(send_fd(self->sock[1], self->fd), 0);
	wait_pipe(go[0]);
	EXPECT_EQ(p[0], 'r');
	p[PAGE] = 's';
	expect_exit_0(_metadata, pid);
	munmap(p, LENGTH);
}

TEST_F(travel, handle_in_flight_keeps_the_buffer)
{
	char c = 0;

	ASSERT_EQ(send_fd(self->sock[1], self->fd), 0);
	close(self->fd);
	usleep(20000);
	EXPECT_EQ(cow_param("pages"), self->start + PAGES);
	self->fd = receive_fd(self->sock[0]);
	ASSERT_GE(self->fd, 0);
	EXPECT_EQ(pread(self->fd, &c, 1, PAGE), 1);
	EXPECT_EQ(c, 't');
}

TEST_F(travel, handle_lost_in_flight_is_closed)
{
	ASSERT_EQ(send_fd(self->sock[1], self->fd), 0);
	close_handle(&self->fd);
	EXPECT_EQ(cow_param("pages"), self->start + PAGES);
	close_handle(&self->sock[0]);
	close_handle(&self->sock[1]);
	EXPECT_TRUE(pages_become(self->start));
}

TEST_F(travel, pidfd_getfd_takes_a_handle)
{
	int fd, pidfd, ready[2], go[2], their = self->fd;
	char c = 0;
	pid_t pid;

	ASSERT_EQ(pipe(ready), 0);
	ASSERT_EQ(pipe(go), 0);
	pid = fork();
	if (!pid) {
		signal_pipe(ready[1]);
		wait_pipe(go[0]);
		_exit(0);
	}
	close_handle(&self->fd);
	wait_pipe(ready[0]);
	pidfd = open_pidfd(pid);
	ASSERT_GE(pidfd, 0);
	fd = syscall(SYS_pidfd_getfd, pidfd, their, 0);
	ASSERT_GE(fd, 0)
		TH_LOG("pidfd_getfd: %s", strerror(errno));
	signal_pipe(go[1]);
	expect_exit_0(_metadata, pid);
	EXPECT_EQ(cow_param("pages"), self->start + PAGES);
	EXPECT_EQ(pread(fd, &c, 1, PAGE), 1);
	EXPECT_EQ(c, 't');
	EXPECT_EQ(cow_stat(fd).length, LENGTH);
	close(fd);
	close(pidfd);
}

/* ------------------------------------------------------------- violent deaths */

struct worker {
	int fd;
	char *map;
	unsigned int seed;
};

static void *store_for_ever(void *data)
{
	struct worker *w = data;

	for (;;)
		w->map[rand_r(&w->seed) % LENGTH]++;
	return NULL;
}

static void *load_for_ever(void *data)
{
	volatile char sink;
	struct worker *w = data;

	for (;;) {
		sink = w->map[rand_r(&w->seed) % LENGTH];
		if (rand_r(&w->seed) % 64 == 0)
			madvise(w->map, LENGTH, MADV_DONTNEED);
	}
	(void)sink;
	return NULL;
}

static void *snapshot_for_ever(void *data)
{
	struct worker *w = data;

	for (;;)
		close(cow_snapshot(w->fd, 0));
	return NULL;
}

static void *write_for_ever(void *data)
{
	static char text[2 * PAGE];
	struct worker *w = data;

	for (;;)
		if (pwrite(w->fd, text, sizeof(text),
			   rand_r(&w->seed) % (LENGTH - sizeof(text))) < 0)
			return NULL;
}

/* A process that runs @roles in threads until it is killed. */
static pid_t spawn(int fd, char *map, void *(* const roles[])(void *), int nr)
{
	static struct worker workers[8];
	pthread_t thread;
	pid_t pid = fork();

	if (pid)
		return pid;
	for (int i = 0; i < nr; i++) {
		workers[i] = (struct worker) { fd, map, i + 1 };
		if (pthread_create(&thread, NULL, roles[i], &workers[i]))
			_exit(1);
	}
	for (;;)
		pause();
}

static void kill_and_reap(struct __test_metadata *_metadata, pid_t pid)
{
	int status;

	ASSERT_EQ(kill(pid, SIGKILL), 0);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST_F(life, kill_of_threads_that_fault_and_snapshot)
{
	static void *(* const roles[])(void *) = {
		store_for_ever, load_for_ever, snapshot_for_ever, write_for_ever,
	};

	for (int i = 0; i < 30; i++) {
		pid_t pid = spawn(self->fd, self->map, roles, 4);

		usleep(3000 + i * 700);
		kill_and_reap(_metadata, pid);
		ASSERT_TRUE(pages_become(self->start + PAGES));
		self->map[0] = i;
		ASSERT_EQ(self->map[0], (char)i);
	}
}

TEST_F(life, kill_of_a_process_that_faults_under_snapshots_of_another)
{
	static void *(* const faults[])(void *) = {
		store_for_ever, load_for_ever, write_for_ever,
	};
	static void *(* const snapshots[])(void *) = { snapshot_for_ever };
	pid_t other = spawn(self->fd, self->map, snapshots, 1);

	for (int i = 0; i < 30; i++) {
		pid_t pid = spawn(self->fd, self->map, faults, 3);

		usleep(2000 + i * 500);
		kill_and_reap(_metadata, pid);
	}
	kill_and_reap(_metadata, other);
	EXPECT_TRUE(pages_become(self->start + PAGES));
}

TEST_F(life, kill_of_a_process_that_snapshots_under_faults_of_another)
{
	static void *(* const faults[])(void *) = {
		store_for_ever, load_for_ever,
	};
	static void *(* const snapshots[])(void *) = {
		snapshot_for_ever, snapshot_for_ever,
	};
	pid_t other = spawn(self->fd, self->map, faults, 2);

	for (int i = 0; i < 30; i++) {
		pid_t pid = spawn(self->fd, self->map, snapshots, 2);

		usleep(2000 + i * 500);
		kill_and_reap(_metadata, pid);
	}
	kill_and_reap(_metadata, other);
	EXPECT_TRUE(pages_become(self->start + PAGES));
}

/* The only owner dies while it is at it. */
TEST_F(life, kill_of_the_last_owner_frees_everything)
{
	static void *(* const roles[])(void *) = {
		store_for_ever, snapshot_for_ever, load_for_ever,
	};

	for (int i = 0; i < 15; i++) {
		int fd = cow_create(LENGTH, "last");
		char *map = cow_map(fd, LENGTH, PROT_READ | PROT_WRITE);
		pid_t pid;

		ASSERT_NE(map, MAP_FAILED);
		pid = spawn(fd, map, roles, 3);
		munmap(map, LENGTH);
		close(fd);
		usleep(3000 + i * 1000);
		kill_and_reap(_metadata, pid);
		ASSERT_TRUE(pages_become(self->start + PAGES));
	}
}

/* Calls go on with the file that they began with. */

struct racer {
	int fd;
	volatile bool stop;
};

static void *call_for_a_while(void *data)
{
	struct cowmem_stat arg = { .size = sizeof(arg) };
	struct racer *r = data;
	char c;

	while (!r->stop) {
		int snap = cow_snapshot(r->fd, 0);

		if (pread(r->fd, &c, 1, 0) < 0 && errno != EBADF)
			return "pread";
		if (cow_ioctl(r->fd, COWMEM_STAT, &arg) == -EINVAL)
			return "STAT";
		if (snap >= 0)
			close(snap);
		else if (snap != -EBADF)
			return "SNAPSHOT";
	}
	return NULL;
}

TEST_F(life, handle_closed_under_running_calls)
{
	struct racer r = { .fd = 200 };
	pthread_t thread;
	void *failed;

	ASSERT_EQ(dup2(self->fd, r.fd), r.fd);
	ASSERT_EQ(pthread_create(&thread, NULL, call_for_a_while, &r), 0);
	for (int i = 0; i < 300; i++) {
		int fd = cow_create(LENGTH, "racer");

		ASSERT_GE(fd, 0);
		ASSERT_EQ(pwrite(fd, "x", 1, 0), 1);
		ASSERT_EQ(dup2(fd, r.fd), r.fd);
		close(fd);
		if (i % 4 == 0)
			close(r.fd);
	}
	r.stop = true;
	pthread_join(thread, &failed);
	EXPECT_EQ(failed, NULL)
		TH_LOG("%s", (char *)failed);
	close(r.fd);
}

/* ------------------------------------------------------------- the module stays */

/* Never called but with a buffer alive: unloading for real is not for tests. */
static int try_unload(void)
{
	return syscall(SYS_delete_module, "cowmem", O_NONBLOCK) ? -errno : 0;
}

static void expect_busy(struct __test_metadata *_metadata)
{
	int err = try_unload(), fd;

	if (err == -EPERM || err == -ENOSYS || err == -ENOENT)
		SKIP(return, "may not unload modules: %s", strerror(-err));
	ASSERT_EQ(err, -EWOULDBLOCK);
	fd = cow_create(PAGE, "after");
	ASSERT_GE(fd, 0);
	EXPECT_EQ(write(fd, "x", 1), 1);
	close(fd);
}

TEST_F(life, module_stays_for_a_handle)
{
	unmap(&self->map);
	expect_busy(_metadata);
}

TEST_F(life, module_stays_for_a_mapping)
{
	close_handle(&self->fd);
	expect_busy(_metadata);
	EXPECT_EQ(self->map[0], 'm');
}

TEST_F(life, module_stays_for_a_snapshot)
{
	int snap = cow_snapshot(self->fd, 0);
	char c;

	ASSERT_GE(snap, 0);
	unmap(&self->map);
	close_handle(&self->fd);
	expect_busy(_metadata);
	EXPECT_EQ(pread(snap, &c, 1, 0), 1);
	EXPECT_EQ(c, 'm');
	close(snap);
}

TEST_F(life, module_stays_for_a_mapping_of_a_snapshot)
{
	int snap = cow_snapshot(self->fd, 0);
	char *p;

	ASSERT_GE(snap, 0);
	p = cow_map(snap, LENGTH, PROT_READ);
	ASSERT_NE(p, MAP_FAILED);
	close(snap);
	unmap(&self->map);
	close_handle(&self->fd);
	expect_busy(_metadata);
	EXPECT_EQ(p[0], 'm');
	munmap(p, LENGTH);
}

TEST_F(life, module_stays_for_a_device_handle)
{
	int fd = cow_open();

	ASSERT_GE(fd, 0);
	unmap(&self->map);
	close_handle(&self->fd);
	expect_busy(_metadata);
	EXPECT_EQ(cow_stat(fd).length, 0);
	close(fd);
}

TEST_F(life, module_stays_for_a_mapping_of_a_device_handle)
{
	int fd = cow_open();
	char *p;

	ASSERT_GE(fd, 0);
	p = cow_map(fd, LENGTH, PROT_READ | PROT_WRITE);
	ASSERT_NE(p, MAP_FAILED);
	close(fd);
	unmap(&self->map);
	close_handle(&self->fd);
	expect_busy(_metadata);
	p[0] = 1;
	munmap(p, LENGTH);
}

TEST_F(life, module_stays_for_a_private_mapping)
{
	char *p = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE,
		       self->fd, 0);

	ASSERT_NE(p, MAP_FAILED);
	p[0] = 'p';
	unmap(&self->map);
	close_handle(&self->fd);
	expect_busy(_metadata);
	EXPECT_EQ(p[PAGE], 'm');
	munmap(p, LENGTH);
}

TEST_F(life, module_stays_for_a_handle_in_flight)
{
	int s[2];

	ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	ASSERT_EQ(send_fd(s[1], self->fd), 0);
	unmap(&self->map);
	close_handle(&self->fd);
	expect_busy(_metadata);
	close(s[0]);
	close(s[1]);
}

TEST_F(life, module_stays_for_an_O_PATH_handle)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->fd);
	fd = open(path, O_PATH);
	ASSERT_GE(fd, 0);
	unmap(&self->map);
	close_handle(&self->fd);
	EXPECT_EQ(cow_param("pages"), self->start + PAGES);
	expect_busy(_metadata);
	close(fd);
}

TEST_HARNESS_MAIN
