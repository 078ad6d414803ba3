/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Buffers with a model in ordinary memory that has each of their bytes, for tests
 * that clone, copy and compare ranges.
 */
#ifndef COWMEM_SELFTESTS_BYTES_H
#define COWMEM_SELFTESTS_BYTES_H

#include "util.h"

/* What a buffer has mapped, and the most that it may grow to. */
#define MAX	(40 * PAGE)

static inline unsigned int next_random(unsigned int *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

/*
 * A buffer, with a mapping that may reach beyond its end, and its model, which
 * is zero behind the end.
 */
struct buffer {
	int fd;
	char *p;
	char *want;
	size_t size;
};

static inline bool buffer_map(struct buffer *buf, int prot)
{
	buf->p = cow_map(buf->fd, MAX, prot);
	buf->want = calloc(1, MAX);
	return buf->p != MAP_FAILED && buf->want;
}

/* All hole. */
static inline bool buffer_create(struct buffer *buf, size_t size)
{
	*buf = (struct buffer) {
		.fd = cow_create(size, program_invocation_short_name),
		.size = size,
	};
	return buf->fd >= 0 && buffer_map(buf, RW);
}

/* Every byte of [@offset, @offset + @length), by stores. */
static inline void buffer_fill(struct buffer *buf, size_t offset, size_t length,
			       unsigned int seed)
{
	size_t i;

	for (i = offset; i < offset + length; i++)
		buf->want[i] = next_random(&seed);
	memcpy(buf->p + offset, buf->want + offset, length);
}

static inline bool buffer_create_filled(struct buffer *buf, size_t size,
					unsigned int seed)
{
	if (!buffer_create(buf, size))
		return false;
	buffer_fill(buf, 0, size, seed);
	return true;
}

static inline bool buffer_snapshot(struct buffer *snap, struct buffer *origin,
				   bool writable)
{
	*snap = (struct buffer) {
		.fd = cow_snapshot(origin->fd, writable ? COWMEM_WRITABLE : 0),
		.size = origin->size,
	};
	if (snap->fd < 0 || !buffer_map(snap, writable ? RW : PROT_READ))
		return false;
	memcpy(snap->want, origin->want, MAX);
	return true;
}

static inline void buffer_close(struct buffer *buf)
{
	munmap(buf->p, MAX);
	free(buf->want);
	close(buf->fd);
	buf->fd = -1;
}

static inline bool buffer_ok(struct buffer *buf)
{
	static char data[MAX];
	struct stat st;

	return !fstat(buf->fd, &st) && st.st_size == buf->size &&
	       pread(buf->fd, data, MAX, 0) == buf->size &&
	       !memcmp(data, buf->want, buf->size) &&
	       !memcmp(buf->p, buf->want, page_up(buf->size));
}

static inline void buffer_store(struct buffer *buf, size_t offset, char value)
{
	buf->want[offset] = value;
	buf->p[offset] = value;
}

/* Change a byte. */
static inline void buffer_flip(struct buffer *buf, size_t offset)
{
	buffer_store(buf, offset, ~buf->want[offset]);
}

/* Change a byte in each page. */
static inline void buffer_store_all(struct buffer *buf)
{
	size_t offset;

	for (offset = 5; offset < buf->size; offset += PAGE)
		buffer_flip(buf, offset);
}

static inline bool buffer_write_all(struct buffer *buf)
{
	size_t offset;

	for (offset = 7; offset < buf->size; offset += PAGE) {
		buf->want[offset] = ~buf->want[offset];
		if (pwrite(buf->fd, buf->want + offset, 1, offset) != 1)
			return false;
	}
	return true;
}

static inline unsigned long resident(struct buffer *buf)
{
	return cow_stat(buf->fd).resident;
}

/* Take the next page out of the pipe: is it as at @want? */
static inline bool pipe_has_page(int pipefd[2], const char *want)
{
	char data[PAGE];

	return read(pipefd[0], data, PAGE) == PAGE && !memcmp(data, want, PAGE);
}

#endif
