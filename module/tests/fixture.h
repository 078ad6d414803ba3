/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A buffer, and a snapshot of it, of the suites that need the file system.
 */
#ifndef _COWMEM_TESTS_FIXTURE_H
#define _COWMEM_TESTS_FIXTURE_H

#include <kunit/test.h>
#include <linux/delay.h>
#include <linux/err.h>

#include "buffer.h"
#include "fs.h"
#include "page.h"
#include "snapshot.h"

struct fixture {
	struct vfsmount *mnt;
	struct cowmem_buffer *buf;
	struct cowmem_buffer *snap;	/* or NULL */
	unsigned long nr_nodes;		/* before the test */
};

/* For a suite's init(): a buffer of @size bytes, all hole. */
static inline int fixture_init(struct kunit *test, loff_t size)
{
	struct fixture *f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, f);
	f->nr_nodes = cowmem_nodes();
	f->mnt = cowmem_fs_pin();
	if (IS_ERR(f->mnt))
		return PTR_ERR(f->mnt);
	f->buf = cowmem_fs_buffer(f->mnt, NULL);
	if (IS_ERR(f->buf)) {
		cowmem_fs_unpin();
		return PTR_ERR(f->buf);
	}
	test->priv = f;
	return cowmem_buffer_set_size(f->buf, size);
}

static inline void put_snapshot(struct fixture *f)
{
	if (f->snap)
		iput(&f->snap->inode);
	f->snap = NULL;
}

/* For its exit(): nothing may be left, after @tries waits of 20 ms. */
static inline void fixture_exit(struct kunit *test, int tries)
{
	struct fixture *f = test->priv;

	if (!f)
		return;
	put_snapshot(f);
	iput(&f->buf->inode);
	cowmem_fs_unpin();
	while (tries-- && (cowmem_pages() || cowmem_nodes() != f->nr_nodes))
		msleep(20);
	KUNIT_EXPECT_EQ(test, cowmem_pages(), 0UL);
	KUNIT_EXPECT_EQ(test, cowmem_nodes(), f->nr_nodes);
}

static inline int take_shot(struct fixture *f)
{
	struct cowmem_shot shot = { .buf = f->buf, .snapshot = f->snap };

	return cowmem_snapshot_take(&shot, 1);
}

static inline void take_snapshot(struct kunit *test)
{
	struct fixture *f = test->priv;

	f->snap = cowmem_fs_buffer(f->mnt, f->buf);
	if (IS_ERR(f->snap))
		f->snap = NULL;
	KUNIT_ASSERT_NOT_NULL(test, f->snap);
	KUNIT_ASSERT_EQ(test, take_shot(f), 0);
	f->snap->frozen = true;
}

#endif
