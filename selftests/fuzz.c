// SPDX-License-Identifier: GPL-2.0
/*
 * Random calls: all ioctls, all that can be done to files and to mappings, with
 * arguments near the edges, by two workers that share files and memory, and by
 * children of them, so that calls race.  What must hold whatever they do:
 *
 *	no call fails with an error that the header and the manual pages do not
 *	name for it; see fuzz_calls.h
 *	no frozen snapshot ever changes, nor a clone that nobody writes
 *	a failed ioctl writes nothing to its struct
 *	nothing hangs; when all is closed no page and no index node is left
 *
 * and what the kernel's own checkers look for.  Each kind of call has to succeed
 * now and then, else the fuzzer would be blind.
 *
 * A program is made from a seed, each next from the next one.  With KCOV (the
 * argument "guided") those that ran something new are kept, and changed to make
 * others.  A program that fails is printed; so is what it takes to run it again.
 *
 *	COWMEM_SEED		of the first program
 *	COWMEM_FUZZ_CALLS	how many calls
 */
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "fuzz.h"
#include "fuzz_calls.h"
#include "fuzz_coverage.h"
#include "kselftest.h"

#define PATIENCE	100	/* seconds for a program */
#define MOST_PAGES	1024	/* of all buffers */
#define MOST_CHILDREN	4	/* of the workers, at a time */
#define CHILD_CALLS	8
#define FIXED_PAGES	8	/* of the buffer that a program begins with */
#define CORPUS		1024

/*
 * Making programs
 */

static struct program corpus[CORPUS];
static unsigned int nr_corpus;

static void make_call(struct call *call, uint64_t *state)
{
	static unsigned int sum;
	unsigned int n;

	if (!sum)
		for (n = 0; n < NR_KINDS; n++)
			sum += kinds[n].weight;
	call->kind = FORK;
	call->arg[0] = random_next(state);
	if (!random_below(state, 64))
		return;
	n = random_below(state, sum);
	for (call->kind = 0; n >= kinds[call->kind].weight; call->kind++)
		n -= kinds[call->kind].weight;
	for (unsigned int i = 0; i < ARGS; i++)
		call->arg[i] = random_argument(state, kinds[call->kind].args[i]);
}

static void make_program(struct program *program, uint64_t *state)
{
	for (unsigned int w = 0; w < WORKERS; w++) {
		program->nr[w] = CALLS;
		for (unsigned int i = 0; i < CALLS; i++)
			make_call(&program->calls[w][i], state);
	}
}

/* Go on as another program does, from anywhere to anywhere. */
static void splice_program(struct program *program, unsigned int w, uint64_t *state)
{
	const struct program *other = &corpus[random_below(state, nr_corpus)];
	unsigned int from = random_below(state, other->nr[w]);
	unsigned int to = random_below(state, program->nr[w]), nr;

	nr = other->nr[w] - from < CALLS - to ? other->nr[w] - from : CALLS - to;
	memcpy(&program->calls[w][to], &other->calls[w][from],
	       nr * sizeof(struct call));
	program->nr[w] = to + nr;
}

static void change_program(struct program *program, uint64_t *state)
{
	unsigned int w = random_below(state, WORKERS);
	struct call *calls = program->calls[w];
	unsigned int *nr = &program->nr[w];
	unsigned int i = random_below(state, *nr), to = random_below(state, *nr);
	unsigned int argument = random_below(state, ARGS);

	switch (random_below(state, 6)) {
	case 0:
		make_call(&calls[i], state);
		break;
	case 1: case 2:
		if (calls[i].kind != FORK)
			calls[i].arg[argument] = random_argument(state,
				kinds[calls[i].kind].args[argument]);
		break;
	case 3:
		calls[to] = calls[i];
		break;
	case 4:
		if (*nr > 1)
			memmove(&calls[i], &calls[i + 1],
				(--*nr - i) * sizeof(*calls));
		break;
	default:
		splice_program(program, w, state);
	}
}

static void next_program(struct program *program, uint64_t seed)
{
	uint64_t state = seed;

	if (nr_corpus && random_below(&state, 4)) {
		*program = corpus[random_below(&state, nr_corpus)];
		for (unsigned int n = 1 + random_below(&state, 6); n; n--)
			change_program(program, &state);
	} else {
		make_program(program, &state);
	}
	program->seed = seed;
}

/*
 * Running them
 */

static void describe(const struct call *call, char *text, size_t size)
{
	int n = snprintf(text, size, "%s(", call->kind == FORK ? "fork" :
			 kinds[call->kind].name);

	for (unsigned int i = 0; i < ARGS; i++)
		n += snprintf(text + n, size - n, "%s%#llx", i ? ", " : "",
			      (unsigned long long)call->arg[i]);
	snprintf(text + n, size - n, ")");
}

static void run_call(struct worker *w, const struct call *call)
{
	const struct kind *kind = &kinds[call->kind];
	char text[200];

	shared->kinds[call->kind].tried++;
	if (kind->run(w, call->arg) >= 0) {
		shared->kinds[call->kind].done++;
	} else if (!may_fail_with(kind, errno)) {
		int error = errno;

		describe(call, text, sizeof(text));
		complain("worker %u%s, step %u: %s: %s", w->nr,
			 w->child ? "'s child" : "", w->step, text,
			 strerror(error));
	}
}

/* A child that does what its parent will do next, with the memory it had. */
static void run_fork(struct worker *w, const struct call *call)
{
	unsigned int end = w->step + 1 + call->arg[0] % CHILD_CALLS;
	const struct call *calls = w->program->calls[w->nr];

	shared->kinds[FORK].tried++;
	if (atomic_fetch_add(&shared->children, 1) >= MOST_CHILDREN) {
		atomic_fetch_sub(&shared->children, 1);
		return;
	}
	if (fork())
		return;
	shared->kinds[FORK].done++;
	w->child = true;
	while (++w->step < w->program->nr[w->nr] && w->step < end)
		if (calls[w->step].kind != FORK)
			run_call(w, &calls[w->step]);
	atomic_fetch_sub(&shared->children, 1);
	_exit(0);
}

static void *run_worker(void *arg)
{
	struct worker *w = arg;

	atomic_fetch_add(&shared->ready, 1);
	while (atomic_load(&shared->ready) < WORKERS)
		sched_yield();
	coverage_begin(w->nr);
	for (; w->step < w->program->nr[w->nr]; w->step++) {
		const struct call *call = &w->program->calls[w->nr][w->step];

		atomic_store(&shared->steps[w->nr], w->step);
		if (call->kind == FORK)
			run_fork(w, call);
		else
			run_call(w, call);
	}
	coverage_end(w->nr);
	return NULL;
}

/* What a program begins with, and what it cannot reach. */
struct scene {
	int frozen, clone;
	char *frozen_map, *clone_map;
};

static void place(int fd, unsigned int slot)
{
	if (fd < 0 || adopt(fd, slot) < 0)
		complain("cannot begin: %s", strerror(-fd));
}

static void make_others(void)
{
	int ends[2];

	if (pipe2(ends, O_NONBLOCK))
		complain("pipe: %m");
	place(ends[0], PIPE_OUT);
	place(ends[1], PIPE_IN);
	place(ret(memfd_create("fuzz", MFD_ALLOW_SEALING)), MEMFD);
	place(ret(open("/dev/zero", O_RDWR)), ZERO);
	if (ftruncate(fd_of(MEMFD), 16 * PAGE) ||
	    fcntl(fd_of(MEMFD), F_ADD_SEALS, F_SEAL_GROW))
		complain("memfd: %m");
}

static void make_scene(struct scene *scene)
{
	size_t length = FIXED_PAGES * PAGE;
	char *memory = mmap(ARENA, ARENA_BYTES, PROT_NONE, MAP_PRIVATE |
			    MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (memory != ARENA)
		complain("no arena: %m");
	make_others();
	place(cow_create(length, "first"), 0);
	mmap(ARENA, length, RW, MAP_SHARED | MAP_FIXED, fd_of(0), 0);
	fill_pages(ARENA, FIXED_PAGES);
	place(cow_snapshot(fd_of(0), 0), 1);
	place(cow_snapshot(fd_of(0), COWMEM_WRITABLE), 2);
	place(cow_open(), 3);
	place(cow_create_flags(length, "pinnable", COWMEM_PINNABLE), 4);
	place(cow_create(length, "other"), 5);
	mmap(ARENA + 16 * PAGE, length, RW, MAP_SHARED | MAP_FIXED, fd_of(4), 0);
	mmap(ARENA + 24 * PAGE, length, RW, MAP_SHARED | MAP_FIXED, fd_of(5), 0);
	mmap(ARENA + 32 * PAGE, length, RW, MAP_PRIVATE | MAP_FIXED, fd_of(2), 0);

	scene->frozen = cow_snapshot(fd_of(0), 0);
	scene->clone = cow_snapshot(fd_of(0), COWMEM_WRITABLE);
	scene->frozen_map = cow_map(scene->frozen, length, PROT_READ);
	scene->clone_map = cow_map(scene->clone, length, PROT_READ);
}

static void check_fixed(const char *name, int fd, const char *map)
{
	static char data[FIXED_PAGES * PAGE + 1];

	if (!pages_filled(map, 0, FIXED_PAGES))
		complain("%s changed, by its mapping", name);
	if (pread(fd, data, sizeof(data), 0) != sizeof(data) - 1 ||
	    !pages_filled(data, 0, FIXED_PAGES))
		complain("%s changed, by read()", name);
}

static void check_scene(const struct scene *scene, const struct worker *workers)
{
	check_fixed("frozen snapshot", scene->frozen, scene->frozen_map);
	check_fixed("clone", scene->clone, scene->clone_map);
	for (unsigned int w = 0; w < WORKERS; w++)
		for (unsigned int i = 0; i < KEPT; i++) {
			const struct kept *kept = &workers[w].kept[i];

			if (kept->fd && content_of(kept->fd) != kept->sum)
				complain("a frozen snapshot of worker %u changed", w);
		}
}

/* In some programs, leave few numbers for new files. */
static void crowd(uint64_t seed)
{
	struct rlimit files = { FIRST_FD + SLOTS, FIRST_FD + SLOTS };

	if (seed % 16)
		return;
	setrlimit(RLIMIT_NOFILE, &files);
	for (int fd = next_fd() + 4; fd < FIRST_FD; fd++)
		dup2(0, fd);
}

static void handle_signals(void)
{
	struct sigaction fault = {
		.sa_handler = fault_handler, .sa_flags = SA_NODEFER,
	};

	sigaction(SIGSEGV, &fault, NULL);
	sigaction(SIGBUS, &fault, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static void run_program(const struct program *program)
{
	static struct worker workers[WORKERS];
	pthread_t threads[WORKERS];
	struct scene scene;

	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	handle_signals();
	make_scene(&scene);
	crowd(program->seed);
	for (unsigned int i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){ .nr = i, .program = program };
		if (pthread_create(&threads[i], NULL, run_worker, &workers[i]))
			complain("no thread: %m");
	}
	for (unsigned int i = 0; i < WORKERS; i++)
		pthread_join(threads[i], NULL);
	while (wait(NULL) > 0)
		;
	check_scene(&scene, workers);
	_exit(0);
}

/* Its status, or -1: it hangs. */
static int wait_program(pid_t pid)
{
	struct timespec patience = { .tv_sec = PATIENCE };
	sigset_t child;
	int status;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	while (!waitpid(pid, &status, WNOHANG))
		if (sigtimedwait(&child, NULL, &patience) < 0 && errno == EAGAIN)
			return -1;
	return status;
}

static void complain_of_hang(const struct program *program)
{
	char text[WORKERS][100];

	for (unsigned int w = 0; w < WORKERS; w++)
		describe(&program->calls[w][shared->steps[w]], text[w], 100);
	complain("hangs in %s, %s", text[0], text[1]);
}

/* Kernel threads put the last reference to a file a little later. */
static bool all_gone(void)
{
	double end = seconds_now() + PATIENCE;

	while (cow_param("pages") || cow_param("nodes")) {
		if (seconds_now() > end)
			return false;
		usleep(1000);
	}
	return true;
}

static bool program_works(const struct program *program)
{
	int status;
	pid_t pid;

	shared->ready = 0;
	shared->children = 0;
	shared->wrong = false;
	pid = fork();
	if (!pid)
		run_program(program);
	status = wait_program(pid);
	if (status == -1)
		complain_of_hang(program);
	else if (status)
		complain("ended with status %#x", status);
	kill(-pid, SIGKILL);
	if (status != -1 && !all_gone())
		complain("%ld pages, %ld nodes are left", cow_param("pages"),
			 cow_param("nodes"));
	return !shared->wrong;
}

/*
 * The tests
 */

static void print_program(const struct program *program)
{
	char text[200];

	ksft_print_msg("%s\n", shared->text);
	ksft_print_msg("COWMEM_SEED=%llu COWMEM_FUZZ_CALLS=1%s\n",
		       (unsigned long long)program->seed,
		       nr_corpus ? ", if it is not made from another" : "");
	for (unsigned int w = 0; w < WORKERS; w++)
		for (unsigned int i = 0; i < program->nr[w]; i++) {
			describe(&program->calls[w][i], text, sizeof(text));
			ksft_print_msg("%u:%u %s\n", w, i, text);
		}
}

static unsigned long calls_done(void)
{
	unsigned long sum = 0;

	for (unsigned int i = 0; i < NR_KINDS; i++)
		sum += shared->kinds[i].tried;
	return sum;
}

static void keep_if_new(const struct program *program)
{
	if (coverage_new() && nr_corpus < CORPUS)
		corpus[nr_corpus++] = *program;
}

static void test_programs(uint64_t seed, unsigned long nr)
{
	static struct program program;
	double start = seconds_now();
	unsigned long done = 0;
	uint64_t next = seed;
	bool works = true;

	while (works && done < nr) {
		next_program(&program, next++);
		works = program_works(&program);
		keep_if_new(&program);
		done = calls_done();
	}
	if (!works)
		print_program(&program);
	ksft_print_msg("%lu calls, %.0f a second\n", done,
		       done / (seconds_now() - start));
	ksft_test_result(works, "fuzz: %lu programs from seed %llu on\n",
			 next - seed, (unsigned long long)seed);
}

static void test_kinds(unsigned long nr)
{
	bool all = true;

	for (unsigned int i = 0; i <= FORK; i++) {
		ksft_print_msg("%16s: %8lu, succeeded: %8lu\n",
			       i == FORK ? "fork" : kinds[i].name,
			       shared->kinds[i].tried, shared->kinds[i].done);
		all = all && shared->kinds[i].done;
	}
	if (!all && nr < 10000)
		ksft_test_result_skip("so few calls are not of all kinds\n");
	else
		ksft_test_result(all, "calls of all kinds have succeeded\n");
}

static void test_coverage(void)
{
	for (unsigned int i = 0; i < coverage.nr_functions; i++)
		if (!coverage.functions[i].reached)
			ksft_print_msg("never run: %s\n", coverage.functions[i].name);
	ksft_print_msg("%lu places, %lu edges, %u of %u functions, by %u programs\n",
		       coverage.nr_places, coverage.nr_edges, functions_reached(),
		       coverage.nr_functions, nr_corpus);
	ksft_test_result(nr_corpus, "what was run is seen\n");
}

static unsigned long number_from(const char *name, unsigned long standard)
{
	const char *text = getenv(name);

	return text ? strtoul(text, NULL, 0) : standard;
}

int main(int argc, char **argv)
{
	unsigned long seed = number_from("COWMEM_SEED", 1);
	unsigned long nr = number_from("COWMEM_FUZZ_CALLS", 50000);
	bool guided = argc > 1 && !strcmp(argv[1], "guided");
	char text[32];
	sigset_t child;

	ksft_print_header();
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	shared = mmap(NULL, sizeof(*shared), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		ksft_exit_fail_msg("mmap: %m\n");
	if (guided && !coverage_open())
		ksft_exit_fail_msg("no KCOV: %m\n");
	snprintf(text, sizeof(text), "%u", MOST_PAGES);
	if (!write_file("/sys/module/cowmem/parameters/max_pages", text))
		ksft_exit_fail_msg("max_pages: %m\n");
	ksft_set_plan(guided ? 3 : 2);
	test_programs(seed, nr);
	test_kinds(nr);
	if (guided)
		test_coverage();
	write_file("/sys/module/cowmem/parameters/max_pages", "0");
	if (ksft_get_fail_cnt())
		ksft_exit_fail();
	ksft_exit_pass();
}
