// SPDX-License-Identifier: GPL-2.0
/*
 * Who sees whose writes: mappings, processes, handles and system calls of one
 * buffer see one another's at once; an origin, its snapshots and its clones
 * never do.  After each write every page of every buffer is compared with a
 * model.
 */
#include <sys/socket.h>
#include <sys/uio.h>

#include "common.h"
#include "harness.h"
#include "util.h"
#include "writers.h"

#define NR		8UL
#define SIZE		(NR * PAGE)

/*
 * A buffer, with a mapping and with what is to be in it: a page holds one
 * value all over.
 */
struct buffer {
	int fd;
	char *p;
	bool frozen;
	char want[NR];
};

static bool buffer_map(struct buffer *buf)
{
	buf->p = cow_map(buf->fd, SIZE, buf->frozen ? PROT_READ : RW);
	return buf->p != MAP_FAILED;
}

static bool buffer_create(struct buffer *buf)
{
	unsigned long i;

	*buf = (struct buffer) { .fd = cow_create(SIZE, "sharing") };
	if (buf->fd < 0 || !buffer_map(buf))
		return false;
	for (i = 0; i < NR; i++) {
		buf->want[i] = 'a' + i;
		memset(buf->p + i * PAGE, buf->want[i], PAGE);
	}
	return true;
}

static bool buffer_snapshot(struct buffer *buf, struct buffer *origin,
			    bool writable)
{
	*buf = *origin;
	buf->frozen = !writable;
	buf->fd = cow_snapshot(origin->fd, writable ? COWMEM_WRITABLE : 0);
	return buf->fd >= 0 && buffer_map(buf);
}

static void buffer_close(struct buffer *buf)
{
	munmap(buf->p, SIZE);
	close(buf->fd);
	buf->fd = -1;
}

static bool buffer_mapping_ok(struct buffer *buf)
{
	unsigned long i;

	for (i = 0; i < NR; i++)
		if (!page_is(buf->p + i * PAGE, buf->want[i]))
			return false;
	return true;
}

static bool buffer_file_ok(struct buffer *buf)
{
	char data[SIZE];
	unsigned long i;

	if (pread(buf->fd, data, SIZE, 0) != SIZE)
		return false;
	for (i = 0; i < NR; i++)
		if (!page_is(data + i * PAGE, buf->want[i]))
			return false;
	return true;
}

/* Mapping and file are what the model says; closed buffers always are. */
static bool buffer_ok(struct buffer *buf)
{
	return buf->fd < 0 || (buffer_mapping_ok(buf) && buffer_file_ok(buf));
}

/* The same without the file. */
static bool mappings_ok(struct buffer *buf, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		if (buf[i].fd >= 0 && !buffer_mapping_ok(&buf[i]))
			return false;
	return true;
}

static bool buffers_ok(struct buffer *buf, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		if (!buffer_ok(&buf[i]))
			return false;
	return true;
}

/* Fill a page, and the model with it. */
static bool buffer_write(struct buffer *buf, unsigned long index, char value,
			 write_fn by)
{
	buf->want[index] = value;
	return by(buf->fd, buf->p, index, value);
}

/*
 * One buffer, seen from two sides
 */

FIXTURE(one)
{
	struct buffer buf;
	char *p;	/* second mapping */
};

FIXTURE_SETUP(one)
{
	ASSERT_TRUE(buffer_create(&self->buf));
	self->p = cow_map(self->buf.fd, SIZE, RW);
	ASSERT_NE(MAP_FAILED, self->p);
}

FIXTURE_TEARDOWN(one)
{
	close(self->buf.fd);
}

TEST_F(one, two_mappings_in_one_process)
{
	unsigned long i;

	for (i = 0; i < NR; i++) {
		self->buf.p[i * PAGE] = '1';
		EXPECT_EQ('1', self->p[i * PAGE]);
		self->p[i * PAGE] = '2';
		EXPECT_EQ('2', self->buf.p[i * PAGE]);
	}
}

TEST_F(one, two_mappings_across_a_snapshot)
{
	unsigned long i;
	int snap;

	EXPECT_TRUE(page_is(self->p, 'a'));
	snap = cow_snapshot(self->buf.fd, 0);
	ASSERT_GE(snap, 0);
	for (i = 0; i < NR; i++) {
		EXPECT_EQ('a' + i, self->p[i * PAGE]);
		self->buf.p[i * PAGE] = '1';
		EXPECT_EQ('1', self->p[i * PAGE]);
		self->p[i * PAGE] = '2';
		EXPECT_EQ('2', self->buf.p[i * PAGE]);
	}
}

TEST_F(one, store_is_seen_by_read)
{
	char value;

	self->p[PAGE + 5] = '!';
	EXPECT_EQ(1, pread(self->buf.fd, &value, 1, PAGE + 5));
	EXPECT_EQ('!', value);
}

TEST_F(one, write_is_seen_by_load)
{
	EXPECT_EQ('b', self->p[PAGE + 5]);
	ASSERT_EQ(1, pwrite(self->buf.fd, "!", 1, PAGE + 5));
	EXPECT_EQ('!', self->p[PAGE + 5]);
	EXPECT_EQ('!', self->buf.p[PAGE + 5]);
	EXPECT_EQ('b', self->p[PAGE + 4]);
	EXPECT_EQ('b', self->p[PAGE + 6]);
}

TEST_F(one, write_across_pages_is_seen_by_load)
{
	char data[2 * PAGE];

	memset(data, '!', sizeof(data));
	ASSERT_EQ(sizeof(data), pwrite(self->buf.fd, data, sizeof(data), 100));
	EXPECT_EQ('a', self->p[99]);
	EXPECT_EQ(0, memcmp(self->p + 100, data, sizeof(data)));
	EXPECT_EQ('c', self->p[100 + sizeof(data)]);
}

TEST_F(one, write_and_store_across_a_snapshot)
{
	char value;
	int snap;

	EXPECT_EQ('b', self->p[PAGE]);
	snap = cow_snapshot(self->buf.fd, 0);
	ASSERT_GE(snap, 0);
	ASSERT_EQ(1, pwrite(self->buf.fd, "1", 1, PAGE));
	EXPECT_EQ('1', self->p[PAGE]);
	self->p[PAGE] = '2';
	EXPECT_EQ(1, pread(self->buf.fd, &value, 1, PAGE));
	EXPECT_EQ('2', value);
	EXPECT_EQ(1, pread(snap, &value, 1, PAGE));
	EXPECT_EQ('b', value);
}

TEST_F(one, device_and_file_handles_are_of_one_buffer)
{
	int dev = cow_open(), file, reader;
	char *p, *q, *r;

	ASSERT_GE(dev, 0);
	p = cow_map(dev, SIZE, RW);
	file = cow_file(dev, 0);
	reader = cow_file(file, COWMEM_RDONLY);
	q = cow_map(file, SIZE, RW);
	r = cow_map(reader, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, p);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_NE(MAP_FAILED, r);
	p[0] = '1';
	EXPECT_EQ('1', q[0]);
	EXPECT_EQ('1', r[0]);
	q[0] = '2';
	EXPECT_EQ('2', p[0]);
	EXPECT_EQ('2', r[0]);
	ASSERT_EQ(1, pwrite(file, "3", 1, 0));
	EXPECT_EQ('3', p[0]);
	ASSERT_EQ(1, pwrite(dev, "4", 1, 0));
	EXPECT_EQ('4', q[0]);
	EXPECT_EQ('4', r[0]);
}

TEST_F(one, reopened_file_is_of_the_same_buffer)
{
	char path[64], *q;
	int file;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->buf.fd);
	file = open(path, O_RDWR);
	ASSERT_GE(file, 0);
	EXPECT_EQ(cow_stat(self->buf.fd).id, cow_stat(file).id);
	q = cow_map(file, SIZE, RW);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ('a', q[0]);
	q[0] = '!';
	EXPECT_EQ('!', self->p[0]);
	self->p[0] = '?';
	EXPECT_EQ('?', q[0]);
}

TEST_F(one, child_sees_the_parent_and_the_other_way_round)
{
	EXPECT_EQ(0, CHILD({
		if (!buffer_ok(&self->buf))
			_exit(1);
		self->p[PAGE] = '!';
	}));
	EXPECT_EQ('!', self->buf.p[PAGE]);
	self->p[PAGE] = '?';
	EXPECT_EQ(0, CHILD(_exit(self->buf.p[PAGE] != '?')));
}

/* In a process that has nothing of the buffer but a socket. */
static bool check_passed_fd(int sock, char seen, char written)
{
	int fd = receive_fd(sock);
	char *p = cow_map(fd, SIZE, RW);

	if (p == MAP_FAILED || p[0] != seen)
		return false;
	p[0] = written;
	return true;
}

FIXTURE(passed)
{
	int sock[2];
	pid_t pid;
	struct buffer buf;
};

FIXTURE_SETUP(passed)
{
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, self->sock));
	self->pid = fork();
	if (!self->pid)
		_exit(!check_passed_fd(self->sock[1], 'a', '!'));
	ASSERT_TRUE(buffer_create(&self->buf));
}

FIXTURE_TEARDOWN(passed)
{
	close(self->buf.fd);
}

TEST_F(passed, process_maps_a_passed_fd)
{
	int status = -1;

	ASSERT_EQ(0, send_fd(self->sock[0], self->buf.fd));
	EXPECT_EQ(self->pid, waitpid(self->pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ('!', self->buf.p[0]);
}

TEST_F(passed, fd_in_a_socket_keeps_the_buffer)
{
	struct buffer clone;
	int status = -1, fd;

	ASSERT_TRUE(buffer_snapshot(&clone, &self->buf, true));
	fd = dup(clone.fd);
	ASSERT_EQ(0, send_fd(self->sock[0], clone.fd));
	buffer_close(&clone);
	EXPECT_EQ(self->pid, waitpid(self->pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ('a', self->buf.p[0]);
	EXPECT_EQ(1, pread(fd, &status, 1, 0));
	EXPECT_EQ('!', status);
}

/*
 * Private mappings
 */

FIXTURE(private)
{
	struct buffer buf;
	char *q;
};

FIXTURE_SETUP(private)
{
	ASSERT_TRUE(buffer_create(&self->buf));
	self->q = mmap(NULL, SIZE, RW, MAP_PRIVATE, self->buf.fd, 0);
	ASSERT_NE(MAP_FAILED, self->q);
}

FIXTURE_TEARDOWN(private)
{
	close(self->buf.fd);
}

TEST_F(private, sees_stores_until_it_has_its_own_page)
{
	self->buf.p[0] = '1';
	EXPECT_EQ('1', self->q[0]);
	self->buf.p[0] = '2';
	EXPECT_EQ('2', self->q[0]);
	self->q[1] = '!';
	self->buf.p[0] = '3';
	EXPECT_EQ('2', self->q[0]);
	EXPECT_EQ('a', self->buf.p[1]);
}

TEST_F(private, sees_writes_until_it_has_its_own_page)
{
	EXPECT_EQ('a', self->q[0]);
	ASSERT_EQ(1, pwrite(self->buf.fd, "1", 1, 0));
	EXPECT_EQ('1', self->q[0]);
	self->q[1] = '!';
	ASSERT_EQ(1, pwrite(self->buf.fd, "2", 1, 0));
	EXPECT_EQ('1', self->q[0]);
}

TEST_F(private, of_the_origin_follows_the_origin_after_a_snapshot)
{
	struct buffer snap;

	EXPECT_EQ('a', self->q[0]);
	EXPECT_EQ('b', self->q[PAGE]);
	ASSERT_TRUE(buffer_snapshot(&snap, &self->buf, false));
	self->buf.p[0] = '1';
	EXPECT_EQ('1', self->q[0]);
	ASSERT_EQ(1, pwrite(self->buf.fd, "2", 1, PAGE));
	EXPECT_EQ('2', self->q[PAGE]);
	EXPECT_TRUE(buffer_ok(&snap));
}

TEST_F(private, own_page_is_kept_across_a_snapshot)
{
	struct buffer snap;

	self->q[0] = '!';
	ASSERT_TRUE(buffer_snapshot(&snap, &self->buf, false));
	EXPECT_EQ('!', self->q[0]);
	self->buf.p[0] = '1';
	EXPECT_EQ('!', self->q[0]);
	self->q[0] = '?';
	EXPECT_EQ('1', self->buf.p[0]);
	EXPECT_TRUE(buffer_ok(&snap));
}

TEST_F(private, store_after_a_snapshot_changes_neither_buffer)
{
	struct buffer snap;

	EXPECT_EQ('a', self->q[0]);
	ASSERT_TRUE(buffer_snapshot(&snap, &self->buf, false));
	memset(self->q, '!', SIZE);
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(buffer_ok(&snap));
	EXPECT_EQ(0, cow_stat(self->buf.fd).copied);
}

TEST_F(private, of_a_frozen_snapshot_is_private)
{
	struct buffer snap;
	char *q, *r;

	ASSERT_TRUE(buffer_snapshot(&snap, &self->buf, false));
	q = mmap(NULL, SIZE, RW, MAP_PRIVATE, snap.fd, 0);
	r = mmap(NULL, SIZE, RW, MAP_PRIVATE, snap.fd, 0);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_NE(MAP_FAILED, r);
	memset(q, '!', SIZE);
	EXPECT_TRUE(buffer_ok(&snap));
	EXPECT_TRUE(buffer_ok(&self->buf));
	EXPECT_TRUE(page_is(r, 'a'));
	memset(self->buf.p, '?', SIZE);
	EXPECT_TRUE(page_is(r, 'a'));
	EXPECT_TRUE(page_is(q, '!'));
}

TEST_F(private, of_a_clone_follows_the_clone_only)
{
	struct buffer clone;
	char *q;

	ASSERT_TRUE(buffer_snapshot(&clone, &self->buf, true));
	q = mmap(NULL, SIZE, RW, MAP_PRIVATE, clone.fd, 0);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ('a', q[0]);
	self->buf.p[0] = '1';
	EXPECT_EQ('a', q[0]);
	clone.p[0] = '2';
	EXPECT_EQ('2', q[0]);
	EXPECT_EQ('1', self->q[0]);
}

/*
 * Everybody related to everybody, and all ways to write
 */

enum { ORIGIN, CLONE, GRANDCLONE, WRITABLE };	/* those that can be written */
enum { FROZEN = WRITABLE, FROZEN_CLONE, STRANGER, NR_BUFFERS };

FIXTURE(family)
{
	struct buffer buf[NR_BUFFERS];
};

FIXTURE_VARIANT(family)
{
	write_fn by;
	int writer;
};

FIXTURE_VARIANT_ADD(family, store_to_origin) { write_store, ORIGIN };
FIXTURE_VARIANT_ADD(family, store_to_clone) { write_store, CLONE };
FIXTURE_VARIANT_ADD(family, store_to_clone_of_clone) {
	write_store, GRANDCLONE,
};
FIXTURE_VARIANT_ADD(family, write_to_origin) { write_write, ORIGIN };
FIXTURE_VARIANT_ADD(family, write_to_clone) { write_write, CLONE };
FIXTURE_VARIANT_ADD(family, write_to_clone_of_clone) {
	write_write, GRANDCLONE,
};
FIXTURE_VARIANT_ADD(family, process_vm_writev_to_origin) {
	write_remote, ORIGIN,
};
FIXTURE_VARIANT_ADD(family, process_vm_writev_to_clone) {
	write_remote, CLONE,
};
FIXTURE_VARIANT_ADD(family, process_vm_writev_to_clone_of_clone) {
	write_remote, GRANDCLONE,
};
FIXTURE_VARIANT_ADD(family, proc_mem_to_origin) { write_proc_mem, ORIGIN };
FIXTURE_VARIANT_ADD(family, proc_mem_to_clone) { write_proc_mem, CLONE };
FIXTURE_VARIANT_ADD(family, proc_mem_to_clone_of_clone) {
	write_proc_mem, GRANDCLONE,
};
FIXTURE_VARIANT_ADD(family, child_to_origin) { write_child, ORIGIN };
FIXTURE_VARIANT_ADD(family, child_to_clone) { write_child, CLONE };
FIXTURE_VARIANT_ADD(family, child_to_clone_of_clone) {
	write_child, GRANDCLONE,
};

FIXTURE_SETUP(family)
{
	struct buffer *buf = self->buf;

	ASSERT_TRUE(buffer_create(&buf[ORIGIN]));
	ASSERT_TRUE(buffer_snapshot(&buf[CLONE], &buf[ORIGIN], true));
	ASSERT_TRUE(buffer_snapshot(&buf[GRANDCLONE], &buf[CLONE], true));
	ASSERT_TRUE(buffer_snapshot(&buf[FROZEN], &buf[ORIGIN], false));
	ASSERT_TRUE(buffer_snapshot(&buf[FROZEN_CLONE], &buf[CLONE], false));
	ASSERT_TRUE(buffer_create(&buf[STRANGER]));
}

FIXTURE_TEARDOWN(family)
{
	int i;

	for (i = 0; i < NR_BUFFERS; i++)
		close(self->buf[i].fd);
}

TEST_F(family, nobody_else_sees_a_write)
{
	struct buffer *writer = &self->buf[variant->writer];
	unsigned long i;

	for (i = 0; i < NR; i++) {
		ASSERT_TRUE(buffer_write(writer, i, '0' + i, variant->by));
		EXPECT_TRUE(buffers_ok(self->buf, NR_BUFFERS));
	}
}

TEST_F(family, nobody_else_sees_a_write_to_pages_all_have_mapped)
{
	struct buffer *writer = &self->buf[variant->writer];

	ASSERT_TRUE(buffers_ok(self->buf, NR_BUFFERS));
	ASSERT_TRUE(buffer_write(writer, 3, '1', variant->by));
	EXPECT_TRUE(buffers_ok(self->buf, NR_BUFFERS));
	ASSERT_TRUE(buffer_write(writer, 3, '2', variant->by));
	EXPECT_TRUE(buffers_ok(self->buf, NR_BUFFERS));
}

TEST_F(family, nobody_else_sees_a_write_after_the_others_wrote)
{
	struct buffer *writer = &self->buf[variant->writer];
	int i;

	for (i = 0; i < WRITABLE; i++) {
		ASSERT_TRUE(buffer_write(&self->buf[i], i, '0' + i,
					 write_store));
		ASSERT_TRUE(buffer_write(&self->buf[i], 7, '4' + i,
					 write_store));
	}
	for (i = 0; i < NR; i += 2)
		ASSERT_TRUE(buffer_write(writer, i, 'A' + i, variant->by));
	ASSERT_TRUE(buffer_write(writer, 7, '!', variant->by));
	EXPECT_TRUE(buffers_ok(self->buf, NR_BUFFERS));
}

TEST_F(family, last_of_the_family_can_be_written)
{
	struct buffer *writer = &self->buf[variant->writer];
	unsigned long i;

	for (i = 0; i < STRANGER; i++)
		if (i != variant->writer)
			buffer_close(&self->buf[i]);
	for (i = 0; i < NR; i++)
		ASSERT_TRUE(buffer_write(writer, i, '0' + i, variant->by));
	EXPECT_TRUE(buffers_ok(self->buf, NR_BUFFERS));
	EXPECT_EQ(0, cow_stat(writer->fd).copied);
	EXPECT_EQ(NR, cow_stat(writer->fd).reused);
}

TEST_F(family, snapshot_of_the_writer_between_two_writes)
{
	struct buffer *writer = &self->buf[variant->writer], snap;

	ASSERT_TRUE(buffer_write(writer, 3, '1', variant->by));
	ASSERT_TRUE(buffer_snapshot(&snap, writer, false));
	ASSERT_TRUE(buffer_write(writer, 3, '2', variant->by));
	EXPECT_TRUE(buffers_ok(self->buf, NR_BUFFERS));
	EXPECT_TRUE(buffer_ok(&snap));
}

/*
 * Progressive writes: clone number i writes page number i
 */

FIXTURE(progressive)
{
	struct buffer origin;
	struct buffer clone[NR];
};

FIXTURE_VARIANT(progressive)
{
	bool chain;	/* clones of clones, else all of the origin */
	bool reverse;	/* the last one writes first */
};

FIXTURE_VARIANT_ADD(progressive, fan) { };
FIXTURE_VARIANT_ADD(progressive, fan_reverse) { .reverse = true };
FIXTURE_VARIANT_ADD(progressive, chain) { .chain = true };
FIXTURE_VARIANT_ADD(progressive, chain_reverse) {
	.chain = true, .reverse = true,
};

FIXTURE_SETUP(progressive)
{
	struct buffer *from = &self->origin;
	unsigned long i;

	ASSERT_TRUE(buffer_create(&self->origin));
	for (i = 0; i < NR; i++) {
		ASSERT_TRUE(buffer_snapshot(&self->clone[i], from, true));
		if (variant->chain)
			from = &self->clone[i];
	}
}

FIXTURE_TEARDOWN(progressive)
{
	close(self->origin.fd);
}

TEST_F(progressive, each_has_its_own_page_and_no_other)
{
	unsigned long i, n;

	for (i = 0; i < NR; i++) {
		n = variant->reverse ? NR - 1 - i : i;
		ASSERT_TRUE(buffer_write(&self->clone[n], n, '0' + n,
					 write_store));
		EXPECT_TRUE(buffers_ok(self->clone, NR));
	}
	EXPECT_TRUE(buffer_ok(&self->origin));
}

TEST_F(progressive, every_page_of_every_clone)
{
	unsigned long i, n;

	for (n = 0; n < NR; n++)
		for (i = 0; i < NR; i++)
			ASSERT_TRUE(buffer_write(&self->clone[n],
						 (n + i) % NR, n * NR + i,
						 i % 2 ? write_store :
							 write_write));
	EXPECT_TRUE(buffers_ok(self->clone, NR));
	EXPECT_TRUE(buffer_ok(&self->origin));
}

TEST_F(progressive, closed_one_by_one_the_rest_stay)
{
	unsigned long i, n;

	for (i = 0; i < NR; i++) {
		n = variant->reverse ? NR - 1 - i : i;
		ASSERT_TRUE(buffer_write(&self->clone[n], n, '0' + n,
					 write_store));
		buffer_close(&self->clone[n]);
		EXPECT_TRUE(buffers_ok(self->clone, NR));
		EXPECT_TRUE(buffer_ok(&self->origin));
	}
	EXPECT_EQ(0, cow_stat(self->origin.fd).copied);
}

TEST_F(progressive, truncated_one_by_one_the_rest_stay)
{
	unsigned long i;

	for (i = 0; i < NR - 1; i++) {
		ASSERT_EQ(0, ftruncate(self->clone[i].fd, i * PAGE));
		buffer_close(&self->clone[i]);
		EXPECT_TRUE(buffers_ok(self->clone, NR));
	}
	EXPECT_TRUE(buffer_ok(&self->origin));
}

TEST_F(progressive, snapshot_before_each_write_of_the_origin)
{
	struct buffer snap[NR];
	unsigned long i;

	for (i = 0; i < NR; i++) {
		ASSERT_TRUE(buffer_snapshot(&snap[i], &self->origin, false));
		ASSERT_TRUE(buffer_write(&self->origin, i, '0' + i,
					 write_store));
	}
	EXPECT_TRUE(buffers_ok(snap, NR));
	EXPECT_TRUE(buffers_ok(self->clone, NR));
	EXPECT_TRUE(buffer_ok(&self->origin));
}

/*
 * Every order in which four buffers can write
 */

#define NR_ORDERS	24

FIXTURE(orders)
{
	struct buffer buf[4];
};

FIXTURE_VARIANT(orders)
{
	bool chain;	/* the next is a clone of the one before, not of the first */
	int close_after;	/* writes after which one is closed; 0: never */
	write_fn by;
};

FIXTURE_VARIANT_ADD(orders, fan) { .by = write_store };
FIXTURE_VARIANT_ADD(orders, fan_written) { .by = write_write };
FIXTURE_VARIANT_ADD(orders, fan_close_after_1) {
	.close_after = 1, .by = write_store,
};
FIXTURE_VARIANT_ADD(orders, fan_close_after_2) {
	.close_after = 2, .by = write_store,
};
FIXTURE_VARIANT_ADD(orders, fan_close_after_3) {
	.close_after = 3, .by = write_store,
};
FIXTURE_VARIANT_ADD(orders, chain) { .chain = true, .by = write_store };
FIXTURE_VARIANT_ADD(orders, chain_written) { .chain = true, .by = write_write };
FIXTURE_VARIANT_ADD(orders, chain_close_after_1) {
	.chain = true, .close_after = 1, .by = write_store,
};
FIXTURE_VARIANT_ADD(orders, chain_close_after_2) {
	.chain = true, .close_after = 2, .by = write_store,
};
FIXTURE_VARIANT_ADD(orders, chain_close_after_3) {
	.chain = true, .close_after = 3, .by = write_store,
};

FIXTURE_SETUP(orders)
{
}

FIXTURE_TEARDOWN(orders)
{
}

static bool orders_create(struct buffer *buf, bool chain)
{
	int i;

	if (!buffer_create(&buf[0]))
		return false;
	for (i = 1; i < 4; i++)
		if (!buffer_snapshot(&buf[i], &buf[chain ? i - 1 : 0], true))
			return false;
	return true;
}

/* The same page in all, and one of its own. */
static bool orders_write(struct buffer *buf, unsigned int n, write_fn by)
{
	return buffer_write(&buf[n], 0, '0' + n, by) &&
	       buffer_write(&buf[n], 1 + n, 'A' + n, by);
}

/* Close the buffer that would write after the next one, or one that has. */
static void orders_close(struct buffer *buf, unsigned int order[4], int written)
{
	buffer_close(&buf[order[(written + 1) % 4]]);
}

static bool orders_run(struct buffer *buf, unsigned int order[4],
		       const FIXTURE_VARIANT(orders) *variant)
{
	int i;

	for (i = 0; i < 4; i++) {
		if (buf[order[i]].fd >= 0 &&
		    !orders_write(buf, order[i], variant->by))
			return false;
		if (!mappings_ok(buf, 4))
			return false;
		if (variant->close_after == i + 1)
			orders_close(buf, order, i + 1);
	}
	return buffers_ok(buf, 4);
}

TEST_F(orders, every_order_of_writers)
{
	unsigned int n, i, order[4];

	for (n = 0; n < NR_ORDERS; n++) {
		order_of(n, 4, order);
		ASSERT_TRUE(orders_create(self->buf, variant->chain));
		EXPECT_TRUE(orders_run(self->buf, order, variant))
			TH_LOG("order %u %u %u %u", order[0], order[1],
			       order[2], order[3]);
		for (i = 0; i < 4; i++)
			if (self->buf[i].fd >= 0)
				buffer_close(&self->buf[i]);
	}
}

FIXTURE(closing)
{
	struct buffer buf[4];
};

FIXTURE_VARIANT(closing)
{
	bool chain;
	write_fn by;
};

FIXTURE_VARIANT_ADD(closing, fan) { .by = write_store };
FIXTURE_VARIANT_ADD(closing, fan_written) { .by = write_write };
FIXTURE_VARIANT_ADD(closing, chain) { .chain = true, .by = write_store };
FIXTURE_VARIANT_ADD(closing, chain_written) {
	.chain = true, .by = write_write,
};

FIXTURE_SETUP(closing)
{
}

FIXTURE_TEARDOWN(closing)
{
}

TEST_F(closing, every_order_leaves_the_rest_and_in_the_end_nothing)
{
	long pages = cow_param("pages"), nodes = cow_param("nodes");
	unsigned int n, i, order[4];

	for (n = 0; n < NR_ORDERS; n++) {
		order_of(n, 4, order);
		ASSERT_TRUE(orders_create(self->buf, variant->chain));
		for (i = 0; i < 4; i++)
			ASSERT_TRUE(orders_write(self->buf, i, variant->by));
		for (i = 0; i < 4; i++) {
			buffer_close(&self->buf[order[i]]);
			EXPECT_TRUE(buffers_ok(self->buf, 4));
		}
	}
	EXPECT_EQ(pages, cow_param("pages"));
	EXPECT_EQ(nodes, cow_param("nodes"));
}

TEST_HARNESS_MAIN
