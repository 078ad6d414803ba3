// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's part of the unit tests in user space: see include/shim.h.
 *
 * main() sets the tree and the pages up as module/main.c does, runs every suite
 * that was linked in, and prints KTAP.  Its status is 0 if no test failed, and
 * nothing is left when all is torn down again.
 */
#include <stdarg.h>

#include "page.h"
#include "shim.h"
#include "tree.h"

#define SHIM_MAX_SUITES	8

struct kmem_cache {
	const char *name;
	unsigned int size;
	unsigned long nr_objects;
};

int shim_cpu;

static struct kunit_suite *suites[SHIM_MAX_SUITES];
static unsigned int nr_suites, nr_tests;
static unsigned int inject_after, inject_nr;
static unsigned long nr_live_pages;

/* Says what it is, as an address sanitizer's report would, and stops. */
static void shim_check(bool condition, const char *what)
{
	if (condition)
		return;
	fflush(stdout);
	fprintf(stderr, "shim: %s\n", what);
	abort();
}

bool cowmem_inject_failures(unsigned int after, unsigned int nr)
{
	inject_after = after;
	inject_nr = nr;
	return true;
}

static bool shim_alloc_fails(void)
{
	if (!inject_nr)
		return false;
	if (inject_after) {
		inject_after--;
		return false;
	}
	inject_nr--;
	return true;
}

int percpu_counter_init(struct percpu_counter *counter, s64 amount, gfp_t gfp)
{
	counter->count = malloc(sizeof(*counter->count));
	if (!counter->count)
		return -ENOMEM;
	*counter->count = amount;
	return 0;
}

void percpu_counter_destroy(struct percpu_counter *counter)
{
	free(counter->count);
	counter->count = NULL;
}

struct kmem_cache *kmem_cache_create(const char *name, unsigned int size,
				     unsigned int align, unsigned int flags,
				     void (*ctor)(void *object))
{
	struct kmem_cache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return NULL;
	cache->name = name;
	cache->size = size;
	return cache;
}

void kmem_cache_destroy(struct kmem_cache *cache)
{
	shim_check(!cache->nr_objects, "objects left in a destroyed cache");
	free(cache);
}

void *kmem_cache_alloc(struct kmem_cache *cache, gfp_t gfp)
{
	void *object = shim_alloc_fails() ? NULL : malloc(cache->size);

	if (!object)
		return NULL;
	/* What is not initialized must not look empty by chance. */
	memset(object, gfp & __GFP_ZERO ? 0 : 0x5a, cache->size);
	cache->nr_objects++;
	return object;
}

void kmem_cache_free(struct kmem_cache *cache, void *object)
{
	cache->nr_objects--;
	free(object);
}

struct page *alloc_page(gfp_t gfp)
{
	struct page *page = shim_alloc_fails() ? NULL : calloc(1, sizeof(*page));

	if (!page)
		return NULL;
	page->data = malloc(PAGE_SIZE);
	if (!page->data) {
		free(page);
		return NULL;
	}
	memset(page->data, gfp & __GFP_ZERO ? 0 : 0x5a, PAGE_SIZE);
	page->refcount = 1;
	nr_live_pages++;
	return page;
}

void get_page(struct page *page)
{
	shim_check(page->refcount > 0, "reference to a page that has none");
	page->refcount++;
}

void put_page(struct page *page)
{
	shim_check(page->refcount > 0, "page put too often");
	if (--page->refcount)
		return;
	shim_check(!page->locked, "locked page freed");
	nr_live_pages--;
	free(page->data);
	free(page);
}

void lock_page(struct page *page)
{
	shim_check(!page->locked, "page locked twice");
	page->locked = true;
}

void unlock_page(struct page *page)
{
	shim_check(page->locked, "page not locked");
	page->locked = false;
}

void *memchr_inv(const void *start, int c, size_t bytes)
{
	const u8 *byte = start;

	for (; bytes; bytes--, byte++)
		if (*byte != (u8)c)
			return (void *)byte;
	return NULL;
}

void shim_register(struct kunit_suite *suite)
{
	shim_check(nr_suites < SHIM_MAX_SUITES, "too many suites");
	suites[nr_suites++] = suite;
}

void shim_check_failed(struct kunit *test, bool fatal, const char *file,
		       int line, const char *format, ...)
{
	va_list args;

	test->failed = true;
	printf("    # %s: %s at %s:%d\n    #     ", test->name,
	       fatal ? "ASSERTION FAILED" : "EXPECTATION FAILED", file, line);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	if (fatal)
		longjmp(test->abort, 1);
}

void shim_skip(struct kunit *test, const char *why)
{
	test->skipped = true;
	printf("    # %s: %s\n", test->name, why);
	longjmp(test->abort, 1);
}

/* As KUnit: .exit runs whatever happened before, and may fail the test too. */
static bool run_case(struct kunit_suite *suite, struct kunit_case *test_case)
{
	struct kunit test = { .suite = suite->name, .name = test_case->name };

	if (!setjmp(test.abort)) {
		if (suite->init && suite->init(&test))
			test.failed = true;
		else
			test_case->run_case(&test);
	}
	cowmem_inject_failures(0, 0);
	if (suite->exit && !setjmp(test.abort))
		suite->exit(&test);
	printf("%s %u %s.%s%s\n", test.failed ? "not ok" : "ok", ++nr_tests,
	       suite->name, test_case->name,
	       test.skipped && !test.failed ? " # SKIP" : "");
	fflush(stdout);
	return !test.failed;
}

static unsigned int run_suite(struct kunit_suite *suite)
{
	struct kunit_case *test_case;
	unsigned int nr_failed = 0;

	for (test_case = suite->test_cases; test_case->run_case; test_case++)
		if (!run_case(suite, test_case))
			nr_failed++;
	return nr_failed;
}

int main(void)
{
	unsigned int i, nr_failed = 0;

	if (cowmem_page_init() || cowmem_tree_init()) {
		printf("Bail out! no memory\n");
		return EXIT_FAILURE;
	}
	printf("KTAP version 1\n# %lu slots, %d levels\n", COWMEM_NODE_SLOTS,
	       COWMEM_TREE_LEVELS);
	for (i = 0; i < nr_suites; i++)
		nr_failed += run_suite(suites[i]);
	printf("1..%u\n# %u failed\n", nr_tests, nr_failed);
	fflush(stdout);
	if (nr_failed)
		return EXIT_FAILURE;
	cowmem_tree_exit();
	cowmem_page_exit();
	shim_check(!nr_live_pages, "pages left at the end");
	return EXIT_SUCCESS;
}
