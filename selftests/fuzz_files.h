/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The calls of fuzz.c: what can be done to files and their descriptors.
 */
#ifndef COWMEM_SELFTESTS_FUZZ_FILES_H
#define COWMEM_SELFTESTS_FUZZ_FILES_H

#include <linux/falloc.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/xattr.h>

#include "fuzz.h"

static long call_open(struct worker *w, const uint64_t *a)
{
	static const int flags[] = { O_RDWR, O_RDWR, O_RDONLY, O_WRONLY, O_RDWR | O_TRUNC };

	return adopt(open(COWMEM_DEVICE, PICK(flags, a[0])), a[1]);
}

static long call_reopen(struct worker *w, const uint64_t *a)
{
	static const int flags[] = {
		O_RDWR, O_RDONLY, O_WRONLY, O_RDWR | O_APPEND, O_RDWR | O_TRUNC,
		O_RDONLY | O_TRUNC, O_PATH, O_RDWR | O_DIRECT, O_RDWR | O_SYNC,
		O_RDWR | O_NONBLOCK, O_RDWR | O_CREAT, O_RDONLY | O_DIRECTORY,
	};
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd_of(a[0]));
	return adopt(open(path, PICK(flags, a[1]), 0600), a[2]);
}

static long call_close(struct worker *w, const uint64_t *a)
{
	return close(fd_of(a[0]));
}

static long call_dup(struct worker *w, const uint64_t *a)
{
	return dup3(fd_of(a[0]), fd_of(a[1]), a[2] % 2 ? O_CLOEXEC : 0);
}

static long call_read(struct worker *w, const uint64_t *a)
{
	return read(fd_of(a[0]), at(a[1]), a[2]);
}

static long call_write(struct worker *w, const uint64_t *a)
{
	return write(fd_of(a[0]), at(a[1]), a[2]);
}

/* The same memory twice, in two parts. */
static void two_parts(struct iovec iov[2], uint64_t address, uint64_t other,
		      uint64_t length)
{
	size_t part = length % (3 * PAGE);

	iov[0] = (struct iovec){ at(address), length - part };
	iov[1] = (struct iovec){ at(other), part };
}

static const int rwf[] = { 0, 0, 0, RWF_HIPRI, RWF_DSYNC, RWF_NOWAIT, RWF_APPEND, 1 << 20 };

static long call_preadv(struct worker *w, const uint64_t *a)
{
	struct iovec iov[2];

	two_parts(iov, a[1], a[2], a[3]);
	return preadv2(fd_of(a[0]), iov, 2, a[4], PICK(rwf, a[5]));
}

static long call_pwritev(struct worker *w, const uint64_t *a)
{
	struct iovec iov[2];

	two_parts(iov, a[1], a[2], a[3]);
	return pwritev2(fd_of(a[0]), iov, 2, a[4], PICK(rwf, a[5]));
}

static long call_lseek(struct worker *w, const uint64_t *a)
{
	return lseek(fd_of(a[0]), a[1], a[2] % 6) < 0 ? -1 : 0;
}

static long call_ftruncate(struct worker *w, const uint64_t *a)
{
	return ftruncate(fd_of(a[0]), a[1]);
}

static long call_fallocate(struct worker *w, const uint64_t *a)
{
	static const int modes[] = {
		0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_UNSHARE_RANGE, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_COLLAPSE_RANGE,
		FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_INSERT_RANGE,
	};

	return fallocate(fd_of(a[0]), PICK(modes, a[3]), a[1], a[2]);
}

static long call_ficlone(struct worker *w, const uint64_t *a)
{
	return ioctl(fd_of(a[0]), FICLONE, fd_of(a[1]));
}

static long call_ficlonerange(struct worker *w, const uint64_t *a)
{
	struct file_clone_range arg = {
		.src_fd = fd_of(a[1]),
		.dest_offset = a[2],
		.src_offset = a[5] % 2 ? a[2] : a[3],
		.src_length = a[4],
	};

	return ioctl(fd_of(a[0]), FICLONERANGE, &arg);
}

static long call_fideduperange(struct worker *w, const uint64_t *a)
{
	struct {
		struct file_dedupe_range range;
		struct file_dedupe_range_info info[2];
	} arg = {
		.range = {
			.src_offset = a[2],
			.src_length = a[4],
			.dest_count = 1 + a[5] % 2,
		},
		.info = {
			{ .dest_fd = fd_of(a[1]), .dest_offset = a[5] / 2 % 2 ? a[2] : a[3] },
			{ .dest_fd = fd_of(a[5] / 4 % SLOTS), .dest_offset = a[2] },
		},
	};
	long ret = ioctl(fd_of(a[0]), FIDEDUPERANGE, &arg);

	/* What is wrong with one is told as a call's error is. */
	if (!ret && arg.info[0].status < 0)
		return errno = -arg.info[0].status, -1;
	return ret;
}

static long call_copy_file_range(struct worker *w, const uint64_t *a)
{
	loff_t from = a[2], to = a[3];

	return copy_file_range(fd_of(a[0]), a[5] % 8 ? &from : NULL, fd_of(a[1]),
			       a[5] / 8 % 8 ? &to : NULL, a[4], a[5] / 64 % 16 == 0);
}

/* Of a number; what is not asked for would wait for the other worker. */
static unsigned int splice_flags(uint64_t number)
{
	return SPLICE_F_NONBLOCK |
	       (number >> 8 & (SPLICE_F_MOVE | SPLICE_F_MORE | SPLICE_F_GIFT));
}

static long call_splice_out(struct worker *w, const uint64_t *a)
{
	loff_t from = a[1];

	return splice(fd_of(a[0]), a[3] % 4 ? &from : NULL, fd_of(PIPE_IN), NULL,
		      a[2], splice_flags(a[3]));
}

static long call_splice_in(struct worker *w, const uint64_t *a)
{
	loff_t to = a[1];

	return splice(fd_of(PIPE_OUT), NULL, fd_of(a[0]), a[3] % 4 ? &to : NULL,
		      a[2], splice_flags(a[3]));
}

static long call_vmsplice(struct worker *w, const uint64_t *a)
{
	struct iovec iov[2];

	two_parts(iov, a[0], a[1], a[2]);
	return vmsplice(fd_of(a[3] % 4 ? PIPE_IN : PIPE_OUT), iov, 2,
			splice_flags(a[3]));
}

/* From one pipe to itself is EINVAL; into a buffer of a page it is not. */
static long call_tee(struct worker *w, const uint64_t *a)
{
	int copy[2];
	long ret;

	if (pipe2(copy, O_NONBLOCK))
		return -1;
	ret = tee(fd_of(PIPE_OUT), copy[1], a[1], SPLICE_F_NONBLOCK);
	if (ret > 0)
		ret = splice(copy[0], NULL, fd_of(a[0]), NULL, ret, SPLICE_F_NONBLOCK);
	close(copy[0]);
	close(copy[1]);
	return ret;
}

/* Not to a memfd: it would take all memory. */
static long call_sendfile(struct worker *w, const uint64_t *a)
{
	off_t from = a[2];

	return sendfile(fd_of(a[4] % 8 ? a[1] % BUFFERS : PIPE_IN), fd_of(a[0]),
			a[4] / 8 % 4 ? &from : NULL, a[3]);
}

static long call_drain(struct worker *w, const uint64_t *a)
{
	return read(fd_of(PIPE_OUT), at(a[0]), a[1] % (16 * PAGE));
}

static long call_fsync(struct worker *w, const uint64_t *a)
{
	return a[1] % 2 ? fsync(fd_of(a[0])) :
	       sync_file_range(fd_of(a[0]), a[2], a[3], a[1] / 2 % 8);
}

static long call_fadvise(struct worker *w, const uint64_t *a)
{
	/* Its error is returned. */
	errno = a[3] % 8 == 7 ? (readahead(fd_of(a[0]), a[1], a[2]) ? errno : 0) :
		posix_fadvise(fd_of(a[0]), a[1], a[2], a[3] % 8);
	return errno ? -1 : 0;
}

static long call_fstat(struct worker *w, const uint64_t *a)
{
	struct stat st;
	long ret = fstat(fd_of(a[0]), &st);

	if (!ret && S_ISREG(st.st_mode) && (uint64_t)st.st_size > MAX_SIZE)
		complain("fstat: a size of %#llx", (unsigned long long)st.st_size);
	return ret;
}

/* As the kernel tells it to whoever looks into /proc. */
static long call_fdinfo(struct worker *w, const uint64_t *a)
{
	static __thread char text[PAGE];
	char path[64];
	int fd;
	long ret;

	snprintf(path, sizeof(path), "/proc/self/%s/%d",
		 a[1] % 4 ? "fdinfo" : "fd", fd_of(a[0]));
	if (a[1] % 4 == 0)
		return readlink(path, text, sizeof(text));
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return -1;
	ret = read(fd, text, sizeof(text));
	close(fd);
	return ret;
}

static long call_fcntl(struct worker *w, const uint64_t *a)
{
	struct flock lock = {
		.l_type = a[1] % 4, .l_start = a[2], .l_len = a[3],
	};
	int fd = fd_of(a[0]);

	switch (a[1] / 4 % 6) {
	case 0:
		return fcntl(fd, F_SETFL, a[1] >> 8 & (O_APPEND | O_NONBLOCK |
						       O_DIRECT | O_NOATIME));
	case 1:
		return fcntl(fd, F_GETFL);
	case 2:
		return fcntl(fd, F_SETLK, &lock);
	case 3:
		return fcntl(fd, F_OFD_SETLK, &lock);
	case 4:
		return fcntl(fd, F_ADD_SEALS, a[1] >> 8 & 31);
	default:
		return flock(fd, LOCK_NB | (a[2] / PAGE % 2 ? LOCK_EX : LOCK_UN));
	}
}

static long set_attribute(int fd, uint64_t what)
{
	struct timespec times[2] = { { .tv_sec = what >> 40 }, { .tv_nsec = UTIME_NOW } };
	char value[64];

	switch (what % 4) {
	case 0:
		return fchmod(fd, what >> 8 & 07777);
	case 1:
		return fchown(fd, -1, -1);
	case 2:
		return futimens(fd, times);
	default:
		return fgetxattr(fd, "user.fuzz", value, sizeof(value));
	}
}

/* Not of /dev/cowmem: it would keep them. */
static long call_attributes(struct worker *w, const uint64_t *a)
{
	int fd = dup(fd_of(a[0])), error;
	struct stat st;
	long ret;

	if (fd < 0)
		return -1;
	ret = fstat(fd, &st);
	if (!ret && S_ISREG(st.st_mode))
		ret = set_attribute(fd, a[1]);
	error = errno;
	close(fd);
	errno = error;
	return ret;
}

static long call_poll(struct worker *w, const uint64_t *a)
{
	struct pollfd fds[2] = {
		{ fd_of(a[0]), POLLIN | POLLOUT }, { fd_of(a[1]), POLLIN },
	};

	return poll(fds, 2, 0);
}

#endif
