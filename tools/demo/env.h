/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Directories that LMDB's programs open, what these programs say of them, and
 * the demo's checks.
 */
#ifndef COWMEM_DEMO_ENV_H
#define COWMEM_DEMO_ENV_H

#include <stdbool.h>
#include <stddef.h>

/* A check has failed. */
extern bool failed;

/* What verify prints of a dump: see there. */
struct summary {
	unsigned long records, seq;
	unsigned long long text, all;
	unsigned long bytes;
};

/* Unless @good say why not, and go on. */
__attribute__((format(printf, 2, 3)))
void check(bool good, const char *format, ...);

/* Unless @good there is no sense in going on. */
void must(bool good, const char *what);

/* Run a shell command; its first line goes to @line.  Did it succeed? */
__attribute__((format(printf, 3, 4)))
bool run(char *line, size_t size, const char *format, ...);

/* What verify says of the output of the command @source. */
bool verify(struct summary *sum, const char *source);

/* What verify says of mdb_dump of a directory. */
bool verify_env(struct summary *sum, const char *directory);

/* Records that mdb_stat counts in a directory, 0 if it fails. */
unsigned long stat_entries(const char *directory);

/*
 * A directory whose data.mdb is a symlink to file @fd of this process.  LMDB puts
 * lock.mdb beside it, an ordinary file: mutexes that processes share do not work
 * in a cowmem mapping.
 */
void make_env(const char *directory, int fd);

#endif
