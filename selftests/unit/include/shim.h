/* SPDX-License-Identifier: GPL-2.0 */
/*
 * As much of the kernel as module/tree.c, page.c, account.c and their KUnit suites
 * need to be built for user space.  The headers in linux/ and kunit/ have the
 * names that those files include, and include this one.
 *
 * Everything that is allocated comes from malloc(), one piece each, so that the
 * address sanitizer sees what is used after it was freed.  No locks: the suites
 * run in one thread.
 */
#ifndef _SHIM_H
#define _SHIM_H

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;
typedef unsigned int gfp_t;
typedef unsigned long pgoff_t;

#define BITS_PER_LONG		64
#define PAGE_SHIFT		12
#define PAGE_SIZE		(1UL << PAGE_SHIFT)

#define likely(condition)	__builtin_expect(!!(condition), 1)
#define unlikely(condition)	__builtin_expect(!!(condition), 0)
#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))

#define U64_MAX			UINT64_MAX

#define min(a, b) ({							\
	__typeof__(a) __a = (a);					\
	__typeof__(b) __b = (b);					\
	__a < __b ? __a : __b;						\
})

#define max(a, b) ({							\
	__typeof__(a) __a = (a);					\
	__typeof__(b) __b = (b);					\
	__a > __b ? __a : __b;						\
})

#define READ_ONCE(x)		(*(const volatile __typeof__(x) *)&(x))

/* linux/err.h */

static inline void *ERR_PTR(long error)
{
	return (void *)error;
}

static inline long PTR_ERR(const void *ptr)
{
	return (long)ptr;
}

static inline bool IS_ERR(const void *ptr)
{
	return (unsigned long)ptr >= -4095UL;
}

/* linux/uidgid.h */

typedef struct {
	unsigned int val;
} kuid_t;

/* linux/version.h: the newest, so that compat.h has nothing to add. */

#define KERNEL_VERSION(a, b, c)	(((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE	KERNEL_VERSION(7, 0, 0)

/* linux/fs.h: the rest of compat.h. */

struct inode {
	struct timespec mtime;
	struct timespec ctime;
};

static inline struct timespec inode_set_ctime_current(struct inode *inode)
{
	return inode->ctime;
}

static inline struct timespec inode_set_mtime_to_ts(struct inode *inode,
						    struct timespec ts)
{
	inode->mtime = ts;
	return ts;
}

/* linux/sched.h, linux/smp.h */

#define cond_resched()		do { } while (0)
#define fatal_signal_pending(task)	false
#define smp_mb()		__atomic_thread_fence(__ATOMIC_SEQ_CST)

extern int shim_cpu;

static inline int raw_smp_processor_id(void)
{
	return shim_cpu;
}

/* Wherever it runs next. */
static inline int get_cpu(void)
{
	return ++shim_cpu;
}

#define put_cpu()		do { } while (0)

/* linux/atomic.h */

typedef struct {
	long counter;
} atomic_long_t;

static inline void atomic_long_set(atomic_long_t *v, long i)
{
	__atomic_store_n(&v->counter, i, __ATOMIC_RELAXED);
}

static inline void atomic_long_inc(atomic_long_t *v)
{
	__atomic_fetch_add(&v->counter, 1, __ATOMIC_RELAXED);
}

static inline void atomic_long_dec(atomic_long_t *v)
{
	__atomic_fetch_sub(&v->counter, 1, __ATOMIC_RELAXED);
}

static inline bool atomic_long_try_cmpxchg(atomic_long_t *v, long *old, long new)
{
	return __atomic_compare_exchange_n(&v->counter, old, new, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

static inline bool atomic_long_dec_and_test(atomic_long_t *v)
{
	return __atomic_sub_fetch(&v->counter, 1, __ATOMIC_SEQ_CST) == 0;
}

static inline long atomic_long_read(const atomic_long_t *v)
{
	return __atomic_load_n(&v->counter, __ATOMIC_RELAXED);
}

static inline long atomic_long_read_acquire(const atomic_long_t *v)
{
	return __atomic_load_n(&v->counter, __ATOMIC_ACQUIRE);
}

/* linux/bitmap.h */

#define DECLARE_BITMAP(name, bits) \
	unsigned long name[((bits) + BITS_PER_LONG - 1) / BITS_PER_LONG]

static inline bool test_bit(unsigned long nr, const unsigned long *map)
{
	return map[nr / BITS_PER_LONG] >> (nr % BITS_PER_LONG) & 1;
}

static inline void __set_bit(unsigned long nr, unsigned long *map)
{
	map[nr / BITS_PER_LONG] |= 1UL << (nr % BITS_PER_LONG);
}

static inline void __clear_bit(unsigned long nr, unsigned long *map)
{
	map[nr / BITS_PER_LONG] &= ~(1UL << (nr % BITS_PER_LONG));
}

static inline bool __test_and_clear_bit(unsigned long nr, unsigned long *map)
{
	bool old = test_bit(nr, map);

	__clear_bit(nr, map);
	return old;
}

/* The first bit from @nr on that differs from those of @skip. */
static inline unsigned long shim_next_bit(const unsigned long *map,
					  unsigned long size, unsigned long nr,
					  unsigned long skip)
{
	while (nr < size) {
		unsigned long word = (map[nr / BITS_PER_LONG] ^ skip) >>
				     (nr % BITS_PER_LONG);

		if (word)
			return min(nr + __builtin_ctzl(word), size);
		nr = (nr / BITS_PER_LONG + 1) * BITS_PER_LONG;
	}
	return size;
}

static inline unsigned long find_next_bit(const unsigned long *map,
					  unsigned long size, unsigned long nr)
{
	return shim_next_bit(map, size, nr, 0);
}

static inline unsigned long find_next_zero_bit(const unsigned long *map,
					       unsigned long size,
					       unsigned long nr)
{
	return shim_next_bit(map, size, nr, ~0UL);
}

static inline bool bitmap_empty(const unsigned long *map, unsigned int bits)
{
	return find_next_bit(map, bits, 0) == bits;
}

static inline void bitmap_clear(unsigned long *map, unsigned int start,
				unsigned int nr)
{
	while (nr--)
		__clear_bit(start++, map);
}

/* linux/percpu_counter.h */

struct percpu_counter {
	s64 *count;	/* from malloc(): sanitizers know when it is gone */
};

int percpu_counter_init(struct percpu_counter *counter, s64 amount, gfp_t gfp);
void percpu_counter_destroy(struct percpu_counter *counter);

static inline void percpu_counter_inc(struct percpu_counter *counter)
{
	++*counter->count;
}

static inline void percpu_counter_dec(struct percpu_counter *counter)
{
	--*counter->count;
}

/* The kernel's clamps to zero; here that is an error. */
static inline s64 percpu_counter_sum_positive(struct percpu_counter *counter)
{
	return *counter->count;
}

/* linux/gfp.h, linux/slab.h */

#define GFP_KERNEL		0x01u
#define GFP_NOWAIT		0x02u
#define __GFP_ZERO		0x04u
#define __GFP_ACCOUNT		0x08u
#define __GFP_NOWARN		0x10u
#define __GFP_HIGHMEM		0x20u
#define __GFP_FS		0x40u
#define __GFP_RETRY_MAYFAIL	0x80u
#define current_gfp_context(gfp)	(gfp)
#define GFP_KERNEL_ACCOUNT	(GFP_KERNEL | __GFP_ACCOUNT)
#define SLAB_ACCOUNT		0x01u

#define kmalloc(size, gfp)	malloc(size)
#define kfree(object)		free(object)

struct kmem_cache;

struct kmem_cache *kmem_cache_create(const char *name, unsigned int size,
				     unsigned int align, unsigned int flags,
				     void (*ctor)(void *object));
void kmem_cache_destroy(struct kmem_cache *cache);
void *kmem_cache_alloc(struct kmem_cache *cache, gfp_t gfp);
void kmem_cache_free(struct kmem_cache *cache, void *object);

/*
 * Let pass the next @after allocations of objects and pages, fail the @nr that
 * come then.  Off after each test.  See module/tests/inject.h.
 */
bool cowmem_inject_failures(unsigned int after, unsigned int nr);
#define cowmem_inject_failures cowmem_inject_failures

/* linux/mm.h, linux/highmem.h, linux/pagemap.h */

struct vm_area_struct;

struct page {
	unsigned long private;
	unsigned long index;
	struct {
		void *next;
	} lru;
	int refcount;
	bool locked;
	bool poisoned;
	u8 *data;
};

/* Each page is a folio of its own. */
#define folio page

static inline struct folio *page_folio(struct page *page)
{
	return page;
}

struct page *alloc_page(gfp_t gfp);
void put_page(struct page *page);
void get_page(struct page *page);
void lock_page(struct page *page);
void unlock_page(struct page *page);

static inline int page_ref_count(const struct page *page)
{
	return page->refcount;
}

static inline void page_ref_add(struct page *page, int nr)
{
	page->refcount += nr;
}

static inline void page_ref_sub(struct page *page, int nr)
{
	page->refcount -= nr;
}

static inline bool PageHWPoison(const struct page *page)
{
	return page->poisoned;
}

static inline void SetPageHWPoison(struct page *page)
{
	page->poisoned = true;
}

static inline void ClearPageHWPoison(struct page *page)
{
	page->poisoned = false;
}

static inline void *kmap_local_page(struct page *page)
{
	return page->data;
}

#define kunmap_local(address)	((void)(address))

static inline int copy_mc_user_highpage(struct page *to, struct page *from,
					unsigned long address,
					struct vm_area_struct *vma)
{
	memcpy(to->data, from->data, PAGE_SIZE);
	return 0;
}

/* linux/string.h */

void *memchr_inv(const void *start, int c, size_t bytes);

/* linux/module.h */

#define MODULE_DESCRIPTION(text)
#define MODULE_LICENSE(text)

/* kunit/test.h */

struct kunit {
	void *priv;
	const char *suite;
	const char *name;
	bool failed;
	bool skipped;
	jmp_buf abort;
};

struct kunit_case {
	void (*run_case)(struct kunit *test);
	const char *name;
};

struct kunit_suite {
	const char *name;
	int (*init)(struct kunit *test);
	void (*exit)(struct kunit *test);
	struct kunit_case *test_cases;
};

#define KUNIT_CASE(function)	{ .run_case = function, .name = #function }

/* One suite a file: more than that nobody needs. */
#define kunit_test_suites(suite)					\
	static __attribute__((constructor)) void kunit_register(void)	\
	{								\
		shim_register(suite);					\
	}

void shim_register(struct kunit_suite *suite);
__attribute__((format(printf, 5, 6)))
void shim_check_failed(struct kunit *test, bool fatal, const char *file,
		       int line, const char *format, ...);
__attribute__((noreturn))
void shim_skip(struct kunit *test, const char *why);

#define kunit_info(test, format, ...) \
	printf("    # %s: " format "\n", (test)->name, ##__VA_ARGS__)

#define kunit_skip(test, why)	shim_skip(test, why)

#define SHIM_COMPARE(test, fatal, left, op, right) do {			\
	__typeof__(left) __left = (left);				\
	__typeof__(right) __right = (right);				\
									\
	if (!(__left op __right))					\
		shim_check_failed(test, fatal, __FILE__, __LINE__,	\
				  "%s " #op " %s: %lld and %lld",	\
				  #left, #right, (long long)__left,	\
				  (long long)__right);			\
} while (0)

#define SHIM_CHECK(test, fatal, condition) do {				\
	if (!(condition))						\
		shim_check_failed(test, fatal, __FILE__, __LINE__,	\
				  "%s", #condition);			\
} while (0)

#define KUNIT_EXPECT_EQ(test, l, r)	SHIM_COMPARE(test, false, l, ==, r)
#define KUNIT_EXPECT_NE(test, l, r)	SHIM_COMPARE(test, false, l, !=, r)
#define KUNIT_EXPECT_LT(test, l, r)	SHIM_COMPARE(test, false, l, <, r)
#define KUNIT_EXPECT_LE(test, l, r)	SHIM_COMPARE(test, false, l, <=, r)
#define KUNIT_EXPECT_GT(test, l, r)	SHIM_COMPARE(test, false, l, >, r)
#define KUNIT_EXPECT_GE(test, l, r)	SHIM_COMPARE(test, false, l, >=, r)
#define KUNIT_EXPECT_TRUE(test, c)	SHIM_CHECK(test, false, c)
#define KUNIT_EXPECT_FALSE(test, c)	SHIM_CHECK(test, false, !(c))
#define KUNIT_EXPECT_NULL(test, p)	SHIM_CHECK(test, false, !(p))
#define KUNIT_EXPECT_NOT_NULL(test, p)	SHIM_CHECK(test, false, p)
#define KUNIT_EXPECT_PTR_EQ(test, l, r)	SHIM_CHECK(test, false, (l) == (r))
#define KUNIT_EXPECT_PTR_NE(test, l, r)	SHIM_CHECK(test, false, (l) != (r))

#define KUNIT_ASSERT_EQ(test, l, r)	SHIM_COMPARE(test, true, l, ==, r)
#define KUNIT_ASSERT_NE(test, l, r)	SHIM_COMPARE(test, true, l, !=, r)
#define KUNIT_ASSERT_LT(test, l, r)	SHIM_COMPARE(test, true, l, <, r)
#define KUNIT_ASSERT_LE(test, l, r)	SHIM_COMPARE(test, true, l, <=, r)
#define KUNIT_ASSERT_GT(test, l, r)	SHIM_COMPARE(test, true, l, >, r)
#define KUNIT_ASSERT_GE(test, l, r)	SHIM_COMPARE(test, true, l, >=, r)
#define KUNIT_ASSERT_TRUE(test, c)	SHIM_CHECK(test, true, c)
#define KUNIT_ASSERT_FALSE(test, c)	SHIM_CHECK(test, true, !(c))
#define KUNIT_ASSERT_NULL(test, p)	SHIM_CHECK(test, true, !(p))
#define KUNIT_ASSERT_NOT_NULL(test, p)	SHIM_CHECK(test, true, p)
#define KUNIT_ASSERT_PTR_EQ(test, l, r)	SHIM_CHECK(test, true, (l) == (r))
#define KUNIT_ASSERT_PTR_NE(test, l, r)	SHIM_CHECK(test, true, (l) != (r))

#endif
