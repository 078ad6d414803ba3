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
 *	pipe FD		"held": a pipe holds its first page, and FD is closed
 *	drain SEED	"right": the page that the pipe held is made from SEED
 */
#include "common.h"
#include "util.h"

static int pipefd[2];

static unsigned char next_byte(uint64_t *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return *state >> 56;
}

static void make_bytes(unsigned char *data, uint64_t n, uint64_t *state)
{
	uint64_t i;

	for (i = 0; i < n; i++)
		data[i] = next_byte(state);
}

static bool fill(int fd, uint64_t size, uint64_t seed)
{
	unsigned char data[PAGE];
	uint64_t offset, n;

	for (offset = 0; offset < size; offset += n) {
		n = size - offset < PAGE ? size - offset : PAGE;
		make_bytes(data, n, &seed);
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

/* Nothing of the buffer is left but a page in the pipe. */
static bool give_to_pipe(int fd)
{
	char *p = cow_map(fd, PAGE, PROT_READ);
	bool held = p != MAP_FAILED && !pipe(pipefd) && pipe_hold(pipefd, p);

	munmap(p, PAGE);
	close(fd);
	return held;
}

static bool drain_pipe(uint64_t seed)
{
	unsigned char data[PAGE], want[PAGE];
	bool right;

	make_bytes(want, PAGE, &seed);
	right = read(pipefd[0], data, PAGE) == PAGE && !memcmp(data, want, PAGE);
	pipe_close(pipefd);
	return right;
}

static void answer_stat(int fd)
{
	struct cowmem_stat st = cow_sharing(fd);

	printf("%d %llu %llu %llu\n", fd, st.length, st.resident, st.exclusive);
}

static void answer(void)
{
	char line[80];
	int number;

	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "stat %d", &number) == 1)
			answer_stat(number);
		else if (sscanf(line, "pipe %d", &number) == 1)
			puts(give_to_pipe(number) ? "held" : "error");
		else if (sscanf(line, "drain %d", &number) == 1)
			puts(drain_pipe(number) ? "right" : "wrong");
		else
			puts("error");
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
