// SPDX-License-Identifier: GPL-2.0
/*
 * No depth and no order: thousands of snapshots, each of the one before or all of
 * one buffer that is written all the time, have each what they had, whichever are
 * closed before, and leave nothing behind.
 *
 * COWMEM_DEPTH is how many (10,000).
 */
#include <sys/resource.h>

#include "common.h"
#include "harness.h"
#include "util.h"

#define NR		16UL
/* Pages so far apart that each has a node of its own. */
#define STRIDE		(64 * PAGE)
#define SIZE		(NR * STRIDE)
/* One in so many is looked at. */
#define SPOT		97
#define MAX_CLONES	1000

/*
 * A family of depth + 1 buffers.  Writes have numbers, from 1 on, and write that
 * to one page after the other; the first NR make the oldest buffer, and each next
 * has one more.
 */
struct family {
	int depth;
	int *fd;		/* by age, the oldest first; -1: closed */
	long pages, nodes;	/* that the module held before */
};

static int depth_wanted(void)
{
	const char *text = getenv("COWMEM_DEPTH");
	int depth = text ? atoi(text) : 10000;

	return depth > 1 ? depth : 2;
}

/* False: this user may not have so many files. */
static bool family_begin(struct family *family, int depth)
{
	struct rlimit limit = { depth + 64, depth + 64 };
	int i;

	if (setrlimit(RLIMIT_NOFILE, &limit))
		return false;
	*family = (struct family) {
		.depth = depth,
		.fd = malloc((depth + 1) * sizeof(int)),
		.pages = cow_param("pages"),
		.nodes = cow_param("nodes"),
	};
	for (i = 0; i <= depth; i++)
		family->fd[i] = -1;
	return true;
}

static bool write_number(int fd, unsigned long number)
{
	return write_word(fd, number % NR * STRIDE, number);
}

/* The buffer of age @i: all writes up to number NR + i. */
static uint64_t number_in(int i, unsigned long page)
{
	unsigned long last = NR + i;

	return last - (last - page) % NR;
}

static int create_oldest(void)
{
	int fd = cow_create(SIZE, "depth");
	unsigned long number;

	for (number = 1; number <= NR; number++)
		if (!write_number(fd, number))
			return -1;
	return fd;
}

/* Each is a clone of the one before, with one more write. */
static bool make_chain(struct family *family)
{
	int *fd = family->fd, i;

	fd[0] = create_oldest();
	for (i = 1; i <= family->depth; i++) {
		fd[i] = cow_snapshot(fd[i - 1], COWMEM_WRITABLE);
		if (!write_number(fd[i], NR + i))
			return false;
	}
	return true;
}

/* All are frozen snapshots of the youngest, which is written after each. */
static bool make_moments(struct family *family)
{
	int live = create_oldest(), i;

	for (i = 0; i < family->depth; i++) {
		family->fd[i] = cow_snapshot(live, 0);
		if (family->fd[i] < 0 || !write_number(live, NR + i + 1))
			return false;
	}
	family->fd[i] = live;
	return true;
}

static bool buffer_right(const struct family *family, int i)
{
	unsigned long page;

	for (page = 0; page < NR; page++)
		if (read_word(family->fd[i], page * STRIDE) != number_in(i, page))
			return false;
	return true;
}

/* Number of buffers that are wrong, of some that are open, and both ends. */
static int nr_wrong(const struct family *family)
{
	int i, wrong = 0;

	for (i = 0; i <= family->depth; i++)
		if (family->fd[i] >= 0 &&
		    (i % SPOT == 0 || i == family->depth))
			wrong += !buffer_right(family, i);
	return wrong;
}

/*
 * Orders to close them in: order[k] is who is k-th
 */

typedef void (*order_fn)(int *order, int nr);

static void order_of_creation(int *order, int nr)
{
	int k;

	for (k = 0; k < nr; k++)
		order[k] = k;
}

static void order_reverse(int *order, int nr)
{
	int k;

	for (k = 0; k < nr; k++)
		order[k] = nr - 1 - k;
}

/* The same each time. */
static void order_random(int *order, int nr)
{
	int k, other, who;

	order_of_creation(order, nr);
	for (k = nr - 1; k > 0; k--) {
		other = random() % (k + 1);
		who = order[k];
		order[k] = order[other];
		order[other] = who;
	}
}

static void family_close(struct family *family, const int *who, int nr)
{
	while (nr--) {
		close(family->fd[*who]);
		family->fd[*who++] = -1;
	}
}

FIXTURE(family)
{
	struct family family;
	int *order;
};

FIXTURE_VARIANT(family)
{
	bool (*make)(struct family *family);
	order_fn order;
};

FIXTURE_VARIANT_ADD(family, chain_in_order_of_creation) {
	make_chain, order_of_creation
};
FIXTURE_VARIANT_ADD(family, chain_in_reverse_order) {
	make_chain, order_reverse
};
FIXTURE_VARIANT_ADD(family, chain_in_random_order) {
	make_chain, order_random
};
FIXTURE_VARIANT_ADD(family, moments_in_order_of_creation) {
	make_moments, order_of_creation
};
FIXTURE_VARIANT_ADD(family, moments_in_reverse_order) {
	make_moments, order_reverse
};
FIXTURE_VARIANT_ADD(family, moments_in_random_order) {
	make_moments, order_random
};

FIXTURE_SETUP(family)
{
	int depth = depth_wanted();

	if (!family_begin(&self->family, depth))
		SKIP(return, "no %d files for this user", depth);
	self->order = malloc((depth + 1) * sizeof(int));
	variant->order(self->order, depth + 1);
}

FIXTURE_TEARDOWN(family)
{
	free(self->order);
	free(self->family.fd);
}

TEST_F_TIMEOUT(family, closed_leaves_the_rest_right_and_nothing_behind, 300)
{
	struct family *family = &self->family;
	int nr = family->depth + 1, half = nr / 2;

	ASSERT_TRUE(variant->make(family));
	EXPECT_EQ(family->pages + NR + family->depth, cow_param("pages"));
	EXPECT_EQ(0, nr_wrong(family));
	family_close(family, self->order, half);
	EXPECT_EQ(0, nr_wrong(family));
	family_close(family, self->order + half, nr - half - 1);
	EXPECT_EQ(family->pages + NR, cow_param("pages"));
	EXPECT_TRUE(buffer_right(family, self->order[nr - 1]));
	family_close(family, self->order + nr - 1, 1);
	EXPECT_EQ(family->pages, cow_param("pages"));
	EXPECT_EQ(family->nodes, cow_param("nodes"));
}

/*
 * The far end of a chain
 */

/* Faults that the buffer counts while each page of it is loaded; -1: wrong. */
static long faults_of_loads(const struct family *family, int i, char *p)
{
	long before = cow_stat(family->fd[i]).faults;
	unsigned long page;

	for (page = 0; page < NR; page++)
		if (*(volatile uint64_t *)(p + page * STRIDE) !=
		    number_in(i, page))
			return -1;
	return cow_stat(family->fd[i]).faults - before;
}

/* The same for stores, which take back what @other has. */
static long faults_of_stores(const struct family *family, int i, char *p,
			     int other)
{
	long before = cow_stat(family->fd[i]).faults;
	unsigned long page;

	for (page = 0; page < NR; page++)
		*(volatile uint64_t *)(p + page * STRIDE) =
			number_in(other, page);
	return cow_stat(family->fd[i]).faults - before;
}

FIXTURE(end)
{
	struct family family;
	int last;
	char *first_map, *last_map;
	int fresh;		/* a buffer that no snapshot was taken of */
	char *fresh_map;
};

FIXTURE_SETUP(end)
{
	struct family *family = &self->family;
	int depth = depth_wanted();

	if (!family_begin(family, depth))
		SKIP(return, "no %d files for this user", depth);
	ASSERT_TRUE(make_chain(family));
	self->last = depth;
	self->first_map = cow_map(family->fd[0], SIZE, RW);
	self->last_map = cow_map(family->fd[depth], SIZE, RW);
	ASSERT_NE(MAP_FAILED, self->first_map);
	ASSERT_NE(MAP_FAILED, self->last_map);
	self->fresh = create_oldest();
	self->fresh_map = cow_map(self->fresh, SIZE, RW);
	ASSERT_NE(MAP_FAILED, self->fresh_map);
}

FIXTURE_TEARDOWN(end)
{
	free(self->family.fd);
}

TEST_F_TIMEOUT(end, of_a_chain_takes_as_many_faults_as_its_start, 300)
{
	struct family *family = &self->family;

	EXPECT_EQ(NR, faults_of_loads(family, 0, self->first_map));
	EXPECT_EQ(NR, faults_of_loads(family, self->last, self->last_map));
	EXPECT_EQ(NR, faults_of_stores(family, 0, self->first_map, self->last));
	EXPECT_EQ(NR, faults_of_stores(family, self->last, self->last_map, 0));
	/* All but the page that it had written before. */
	EXPECT_EQ(NR, cow_stat(family->fd[self->last]).copied);
	EXPECT_TRUE(buffer_right(family, 1));
	EXPECT_TRUE(buffer_right(family, self->last - 1));
	EXPECT_EQ(number_in(0, 5), read_word(family->fd[self->last], 5 * STRIDE));
	EXPECT_EQ(number_in(self->last, 5), read_word(family->fd[0], 5 * STRIDE));
}

#define ROUNDS		301

typedef void (*use_fn)(int fd, char *p, unsigned long page);

static void use_read(int fd, char *p, unsigned long page)
{
	read_word(fd, page * STRIDE);
}

static void use_load(int fd, char *p, unsigned long page)
{
	(void)*(volatile char *)(p + page * STRIDE);
}

static void use_STAT(int fd, char *p, unsigned long page)
{
	cow_stat(fd);
}

/* Of one use, of a page that is not mapped. */
static double seconds_of(use_fn use, int fd, char *p, unsigned long page)
{
	double start;

	madvise(p + page * STRIDE, PAGE, MADV_DONTNEED);
	start = seconds_now();
	use(fd, p, page);
	return seconds_now() - start;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *values, int nr)
{
	qsort(values, nr, sizeof(*values), by_value);
	return values[nr / 2];
}

/* In turns, so that what else the machine does hits both. */
static void compare_with_fresh(struct __test_metadata *_metadata,
			       FIXTURE_DATA(end) *self, use_fn use,
			       const char *name)
{
	int last = self->family.fd[self->last], i;
	double deep[ROUNDS], fresh[ROUNDS];

	for (i = 0; i < ROUNDS; i++) {
		deep[i] = seconds_of(use, last, self->last_map, i % NR);
		fresh[i] = seconds_of(use, self->fresh, self->fresh_map, i % NR);
	}
	TH_LOG("%s: %.1f us, of a fresh buffer %.1f us", name,
	       median(deep, ROUNDS) * 1e6, median(fresh, ROUNDS) * 1e6);
	/* Only a check that nobody walks along the chain. */
	EXPECT_LT(median(deep, ROUNDS), 3 * median(fresh, ROUNDS));
}

TEST_F_TIMEOUT(end, of_a_chain_is_as_near_as_a_fresh_buffer, 300)
{
	int last = self->family.fd[self->last];

	compare_with_fresh(_metadata, self, use_read, "read()");
	compare_with_fresh(_metadata, self, use_STAT, "STAT");
	EXPECT_EQ(0, cow_stat(last).faults);
	EXPECT_EQ(0, cow_stat(self->fresh).faults);
	compare_with_fresh(_metadata, self, use_load, "fault of a load");
	EXPECT_EQ(ROUNDS, cow_stat(last).faults);
	EXPECT_EQ(ROUNDS, cow_stat(self->fresh).faults);
	EXPECT_TRUE(buffer_right(&self->family, self->last));
}

/*
 * Many of one
 */

/* Bytes of pages held that no buffer says it has; less than 0: somebody lies. */
static long bytes_missing(const struct family *family)
{
	long bytes = (cow_param("pages") - family->pages) * PAGE;
	int i;

	for (i = 0; i <= family->depth; i++)
		bytes -= cow_sharing(family->fd[i]).proportional;
	return bytes;
}

static int nr_with_proportional(const struct family *family, uint64_t bytes)
{
	int i, nr = 0;

	for (i = 0; i <= family->depth; i++)
		nr += cow_sharing(family->fd[i]).proportional == bytes;
	return nr;
}

TEST(thousand_clones_have_together_what_is_held)
{
	int depth = depth_wanted(), nr, i;
	struct family family;

	NEED(SHARING);
	if (depth > MAX_CLONES)
		depth = MAX_CLONES;
	if (!family_begin(&family, depth))
		SKIP(return, "no %d files for this user", depth);
	nr = depth + 1;
	family.fd[0] = create_oldest();
	for (i = 1; i <= depth; i++) {
		family.fd[i] = cow_snapshot(family.fd[0], COWMEM_WRITABLE);
		ASSERT_GE(family.fd[i], 0);
	}
	EXPECT_EQ(family.pages + NR, cow_param("pages"));
	EXPECT_EQ(nr, nr_with_proportional(&family, NR * PAGE / nr));
	EXPECT_GE(bytes_missing(&family), 0);
	EXPECT_LT(bytes_missing(&family), nr);
	for (i = 1; i <= depth; i++)
		ASSERT_TRUE(write_number(family.fd[i], NR + i));
	EXPECT_EQ(family.pages + NR + depth, cow_param("pages"));
	EXPECT_GE(bytes_missing(&family), 0);
	EXPECT_LT(bytes_missing(&family), nr);
	for (i = 0; i <= depth; i++)
		close(family.fd[i]);
	EXPECT_EQ(family.pages, cow_param("pages"));
	EXPECT_EQ(family.nodes, cow_param("nodes"));
	free(family.fd);
}

TEST_HARNESS_MAIN
