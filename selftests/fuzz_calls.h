/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The calls of fuzz.c, and the errors that each may give: those that
 * uapi/linux/cowmem.h and the manual pages name, but for EIO, as no memory fails
 * here, and ENOMEM where only a machine that has none left would give it.
 */
#ifndef COWMEM_SELFTESTS_FUZZ_CALLS_H
#define COWMEM_SELFTESTS_FUZZ_CALLS_H

#include <assert.h>

#include "fuzz_files.h"
#include "fuzz_ioctls.h"
#include "fuzz_memory.h"

struct kind {
	const char *name;
	long (*run)(struct worker *w, const uint64_t *a);
	unsigned char args[ARGS];
	unsigned char weight;
	bool ours;
	const int *errors;
};

#define ERRORS(...)	((const int[]){ __VA_ARGS__, 0 })

/* Of all our ioctls. */
static const int common_errors[] = { EBADF, EFAULT, EINVAL, E2BIG, 0 };

#define KIND(_name, _weight, _errors, ...)	\
	{ .name = #_name, .run = call_##_name, .weight = _weight,	\
	  .errors = _errors, .args = { __VA_ARGS__ } }
#define OURS(_name, _weight, _errors, ...)	\
	{ .name = #_name, .run = call_##_name, .weight = _weight,	\
	  .ours = true, .errors = _errors, .args = { __VA_ARGS__ } }

static const struct kind kinds[] = {
	OURS(query, 1, ERRORS(0), BUFFER, BITS),
	OURS(create, 2, ERRORS(EMFILE, EFBIG), BUFFER, LENGTH, BITS, BITS, TO),
	OURS(file, 3, ERRORS(EMFILE, EACCES, EPERM), BUFFER, BITS, BITS, TO),
	OURS(snapshot, 10, ERRORS(EMFILE, EACCES, ENOSPC), BUFFER, OFFSET, LENGTH, BITS, BITS, TO),
	OURS(group, 4, ERRORS(EMFILE, EACCES, ENOSPC), BUFFER, BITS, BITS, BITS, BITS, OFFSET),
	OURS(restore, 10, ERRORS(EACCES, EPERM, ENOSPC),
	     BUFFER, ANY, OFFSET, OFFSET, LENGTH, BITS),
	OURS(diff, 5, ERRORS(EACCES), BUFFER, ANY, OFFSET, MEMORY, BITS, BITS),
	OURS(stat, 3, ERRORS(0), BUFFER, BITS, BITS),
	OURS(limit, 2, ERRORS(0), BUFFER, LENGTH, BITS),
	OURS(ioctl, 2, ERRORS(ENOTTY, EOPNOTSUPP, EPERM, EXDEV), BUFFER, BITS, MEMORY),
	KIND(keep, 1, ERRORS(EBADF, EACCES, ENOSPC, EMFILE), BUFFER, BITS),
	KIND(pages, 1, ERRORS(EMFILE), NONE),
	KIND(open, 2, ERRORS(EMFILE), BITS, TO),
	KIND(reopen, 4, ERRORS(EMFILE, ENOENT, EPERM, EACCES, EINVAL, ENOTDIR), BUFFER, BITS, TO),
	KIND(close, 4, ERRORS(EBADF), BUFFER),
	KIND(dup, 2, ERRORS(EBADF, EBUSY, EINVAL), BUFFER, TO, BITS),
	KIND(read, 2, ERRORS(EBADF, EFAULT, EINVAL), BUFFER, MEMORY, LENGTH),
	KIND(write, 3, ERRORS(EBADF, EFAULT, EFBIG, ENOSPC, EINVAL), BUFFER, MEMORY, LENGTH),
	KIND(preadv, 4, ERRORS(EBADF, EFAULT, EINVAL, EOPNOTSUPP),
	     BUFFER, MEMORY, MEMORY, LENGTH, OFFSET, BITS),
	KIND(pwritev, 6, ERRORS(EBADF, EFAULT, EINVAL, EOPNOTSUPP, EFBIG, ENOSPC),
	     BUFFER, MEMORY, MEMORY, LENGTH, OFFSET, BITS),
	KIND(lseek, 3, ERRORS(EBADF, EINVAL, ENXIO), BUFFER, OFFSET, BITS),
	KIND(ftruncate, 5, ERRORS(EBADF, EINVAL, EFBIG, ENOSPC), BUFFER, LENGTH),
	KIND(fallocate, 8, ERRORS(EBADF, EINVAL, EFBIG, ENOSPC, EOPNOTSUPP, ENODEV),
	     BUFFER, OFFSET, LENGTH, BITS),
	KIND(ficlone, 2, ERRORS(EBADF, EINVAL, EXDEV, EFBIG, ENOSPC), BUFFER, ANY),
	KIND(ficlonerange, 5, ERRORS(EBADF, EINVAL, EXDEV, EFBIG, ENOSPC),
	     BUFFER, ANY, OFFSET, OFFSET, LENGTH, BITS),
	KIND(fideduperange, 5, ERRORS(EBADF, EINVAL, EXDEV, EOPNOTSUPP, ENOSPC, EPERM),
	     ANY, ANY, OFFSET, OFFSET, LENGTH, BITS),
	KIND(copy_file_range, 5, ERRORS(EBADF, EINVAL, EXDEV, EFBIG, ENOSPC, EOVERFLOW),
	     ANY, BUFFER, OFFSET, OFFSET, LENGTH, BITS),
	KIND(splice_out, 2, ERRORS(EBADF, EINVAL, EAGAIN), BUFFER, OFFSET, LENGTH, BITS),
	KIND(splice_in, 2, ERRORS(EBADF, EINVAL, EAGAIN, EFBIG, ENOSPC),
	     BUFFER, OFFSET, LENGTH, BITS),
	KIND(vmsplice, 2, ERRORS(EFAULT, EINVAL, EAGAIN), MEMORY, MEMORY, LENGTH, BITS),
	KIND(tee, 1, ERRORS(EBADF, EINVAL, EAGAIN, EMFILE, EFBIG, ENOSPC), BUFFER, LENGTH),
	KIND(sendfile, 2, ERRORS(EBADF, EINVAL, EAGAIN, EFBIG, ENOSPC, EOVERFLOW, ESPIPE),
	     ANY, ANY, OFFSET, LENGTH, BITS),
	KIND(drain, 2, ERRORS(EAGAIN, EFAULT), MEMORY, LENGTH),
	KIND(fsync, 1, ERRORS(EBADF, EINVAL, ESPIPE), BUFFER, BITS, OFFSET, LENGTH),
	KIND(fadvise, 1, ERRORS(EBADF, EINVAL), BUFFER, OFFSET, LENGTH, BITS),
	KIND(fstat, 1, ERRORS(EBADF), BUFFER),
	KIND(fdinfo, 1, ERRORS(ENOENT, EMFILE), BUFFER, BITS),
	KIND(fcntl, 2, ERRORS(EBADF, EINVAL, EAGAIN, EACCES, EPERM, EOVERFLOW),
	     BUFFER, BITS, OFFSET, LENGTH),
	KIND(attributes, 1, ERRORS(EBADF, EPERM, EOPNOTSUPP, EMFILE), BUFFER, BITS),
	KIND(poll, 1, ERRORS(EBADF), BUFFER, BUFFER),
	KIND(mmap, 16, ERRORS(EBADF, EACCES, EPERM, EINVAL, EOVERFLOW, EFBIG, EOPNOTSUPP),
	     BUFFER, AREA, LENGTH, OFFSET, BITS),
	KIND(mmap_anonymous, 2, ERRORS(EINVAL), AREA, LENGTH, BITS),
	KIND(munmap, 3, ERRORS(EINVAL), AREA, LENGTH),
	KIND(mremap, 4, ERRORS(EINVAL, EFAULT, ENOMEM), AREA, LENGTH, AREA, LENGTH, BITS),
	KIND(mprotect, 4, ERRORS(EINVAL, EACCES, ENOMEM), AREA, LENGTH, BITS),
	KIND(madvise, 8, ERRORS(EINVAL, EACCES, ENOMEM, EFAULT, EBADF, ENODEV, ENOSPC),
	     AREA, LENGTH, BITS),
	KIND(mlock, 2, ERRORS(EINVAL, ENOMEM, EAGAIN), AREA, LENGTH, BITS),
	KIND(msync, 1, ERRORS(EINVAL, ENOMEM, EBUSY), AREA, LENGTH, BITS),
	KIND(mincore, 1, ERRORS(EINVAL, ENOMEM), AREA, LENGTH),
	KIND(load, 12, ERRORS(EFAULT), MEMORY, BITS),
	KIND(store, 16, ERRORS(EFAULT), MEMORY, BITS),
	KIND(atomic, 4, ERRORS(EFAULT), MEMORY, BITS),
	KIND(process_vm, 2, ERRORS(EFAULT, EINVAL), MEMORY, MEMORY, LENGTH, BITS),
	KIND(force, 2, ERRORS(EIO, EMFILE), MEMORY, BITS),
	KIND(futex, 1, ERRORS(EINVAL, EFAULT), MEMORY, BITS),
};

#define NR_KINDS	(sizeof(kinds) / sizeof(kinds[0]))
#define FORK		NR_KINDS	/* a child that runs the next few as well */

static_assert(NR_KINDS < MAX_KINDS, "kinds");

static bool listed(const int *errors, int error)
{
	while (*errors && *errors != error)
		errors++;
	return *errors;
}

static bool may_fail_with(const struct kind *kind, int error)
{
	return listed(kind->errors, error) ||
	       (kind->ours && listed(common_errors, error));
}

#endif
