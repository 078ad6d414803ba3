/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Ways to fill a page of the buffer @fd, that is mapped at @p.
 */
#ifndef COWMEM_SELFTESTS_WRITERS_H
#define COWMEM_SELFTESTS_WRITERS_H

#include "util.h"

typedef bool (*write_fn)(int fd, char *p, unsigned long index, char value);

static inline bool write_store(int fd, char *p, unsigned long index, char value)
{
	memset(p + index * PAGE, value, PAGE);
	return true;
}

static inline bool write_write(int fd, char *p, unsigned long index, char value)
{
	return write_page(fd, index, value) == PAGE;
}

static inline bool write_remote(int fd, char *p, unsigned long index,
				char value)
{
	char data[PAGE];
	struct iovec local = { data, PAGE }, remote = { p + index * PAGE, PAGE };

	memset(data, value, PAGE);
	return process_vm_writev(getpid(), &local, 1, &remote, 1, 0) == PAGE;
}

static inline bool write_proc_mem(int fd, char *p, unsigned long index,
				  char value)
{
	int mem = open("/proc/self/mem", O_RDWR);
	char data[PAGE];
	bool done;

	memset(data, value, PAGE);
	done = pwrite(mem, data, PAGE, (long)p + index * PAGE) == PAGE;
	close(mem);
	return done;
}

static inline bool write_child(int fd, char *p, unsigned long index, char value)
{
	return !CHILD(write_store(fd, p, index, value));
}

#endif
