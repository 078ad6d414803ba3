// SPDX-License-Identifier: GPL-2.0
/*
 * Directories that LMDB's programs open, and what these programs say of them:
 * see env.h.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "env.h"

bool failed;

void check(bool good, const char *format, ...)
{
	va_list args;

	if (good)
		return;
	failed = true;
	va_start(args, format);
	printf("   FAILED: ");
	vprintf(format, args);
	printf("\n");
	va_end(args);
}

void must(bool good, const char *what)
{
	if (good)
		return;
	printf("   FAILED: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* Run a shell command; its first line goes to @line. */
bool run(char *line, size_t size, const char *format, ...)
{
	char command[256];
	va_list args;
	FILE *pipe;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	pipe = popen(command, "r");
	must(pipe, command);
	line[0] = '\0';
	if (!fgets(line, size, pipe))
		line[0] = '\0';
	return pclose(pipe) == 0;
}

bool verify(struct summary *sum, const char *source)
{
	char line[128];

	return run(line, sizeof(line), "%s | verify", source) &&
	       sscanf(line, "%lu %lu %llx %llx %lu", &sum->records, &sum->seq,
		      &sum->text, &sum->all, &sum->bytes) == 5;
}

bool verify_env(struct summary *sum, const char *directory)
{
	char source[64];

	snprintf(source, sizeof(source), "mdb_dump -p %s", directory);
	return verify(sum, source);
}

/* Entries as mdb_stat counts them, or 0. */
unsigned long stat_entries(const char *directory)
{
	unsigned long entries = 0;
	char line[128];

	run(line, sizeof(line), "mdb_stat -e %s | grep Entries", directory);
	sscanf(line, " Entries: %lu", &entries);
	return entries;
}

/* A directory for LMDB, whose data.mdb is our @fd. */
void make_env(const char *directory, int fd)
{
	char target[64], path[64];

	snprintf(target, sizeof(target), "/proc/%d/fd/%d", getpid(), fd);
	snprintf(path, sizeof(path), "%s/data.mdb", directory);
	must(!mkdir(directory, 0700), directory);
	must(!symlink(target, path), path);
}
