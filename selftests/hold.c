// SPDX-License-Identifier: GPL-2.0
/*
 * usage: hold SIZE[:SEED]...
 *
 * Holds buffers for scripts, which reach them as /proc/PID/fd/FD.  A buffer has
 * SIZE bytes, all hole, or made from SEED: equal seeds, equal bytes.
 *
 * Says "ready PID FD..." and then answers lines from stdin until they end:
 *
 *	stat FD		FD SIZE RESIDENT PRIVATE, in bytes
 */
#include "common.h"

static unsigned char next_byte(uint64_t *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return *state >> 56;
}

static bool fill(int fd, uint64_t size, uint64_t seed)
{
	unsigned char data[PAGE];
	uint64_t offset, i, n;

	for (offset = 0; offset < size; offset += n) {
		n = size - offset < PAGE ? size - offset : PAGE;
		for (i = 0; i < n; i++)
			data[i] = next_byte(&seed);
		if (pwrite(fd, data, n, offset) != n)
			return false;
	}
	return true;
}

/* The buffer that @text asks for, or -1. */
static int create(const char *text)
{
	char *end;
	uint64_t size = strtoull(text, &end, 0);
	int fd;

	if (end == text || (*end && *end != ':'))
		return -1;
	fd = cow_create(size, "hold");
	if (fd < 0 || (*end && !fill(fd, size, strtoull(end + 1, NULL, 0))))
		return -1;
	return fd;
}

static void answer(void)
{
	struct cowmem_stat st;
	char line[80];
	int fd;

	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "stat %d", &fd) != 1) {
			printf("error\n");
			continue;
		}
		st = cow_sharing(fd);
		printf("%d %llu %llu %llu\n", fd, st.length, st.resident,
		       st.exclusive);
	}
}

int main(int argc, char **argv)
{
	int fds[argc], i;

	setlinebuf(stdout);
	for (i = 1; i < argc; i++) {
		fds[i] = create(argv[i]);
		if (fds[i] < 0) {
			fprintf(stderr, "hold: %s: no such buffer\n", argv[i]);
			return 1;
		}
	}
	printf("ready %d", getpid());
	for (i = 1; i < argc; i++)
		printf(" %d", fds[i]);
	printf("\n");
	answer();
	return 0;
}
