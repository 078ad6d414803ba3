/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * cowmem - memory buffers with copy-on-write snapshots
 *
 * Each open("/dev/cowmem", O_RDWR) makes a new, empty buffer and is a handle of
 * it: mmap(), read(), write(), lseek() and the ioctls below.  If the size of the
 * buffer is still 0, mmap() sets it to offset + length, rounded up to whole pages.
 *
 * Every fd that an ioctl returns is a handle as well, and a file: fstat(),
 * ftruncate(), SEEK_DATA, splice(), file locks and opening /proc/PID/fd/N work on
 * it as on a memfd.  (Opening the path of a /dev/cowmem handle makes another
 * buffer: turn it into a file with FILE first.)  Buffers belong to the uid that
 * created them, with mode 0600.
 *
 * A snapshot shares every page with its origin until one side writes.  It does
 * not depend on its origin: either may be closed first.
 *
 * Every struct begins with its own size, as the caller knows it, and flags.
 * A larger struct from a newer program is taken if the part that this kernel
 * does not know is zero.  Unknown flags and non-zero reserved fields are
 * refused.  All structs are the same for 32-bit callers.
 *
 * Errors common to all ioctls (a failed call has changed nothing, unless said
 * otherwise below, and wrote nothing to the struct):
 *
 *	EFAULT		the struct, or memory that it points to, is not
 *			accessible (RESTORE and LIMIT only read it)
 *	EINVAL		size is below that of the first version of the struct,
 *			an unknown flag is set, a reserved field is not zero,
 *			or a field has a value that it can never have
 *	E2BIG		size is larger than the kernel's struct and the rest is
 *			not all zero, or size is above the page size
 *	ENOTTY		unknown ioctl
 *	ENOMEM		out of memory
 *	EINTR		a fatal signal arrived while waiting
 *	EMFILE, ENFILE	no file descriptor left (calls that return one)
 *
 * Errors outside ioctls:
 *
 *	mmap		EACCES	 MAP_SHARED and PROT_WRITE of a handle without
 *				 write access (such as any frozen buffer)
 *			EPERM	 PROT_EXEC
 *			EOVERFLOW, or on some kernels EFBIG
 *				 the mapping would end beyond the largest size
 *	mprotect	EACCES	 PROT_EXEC, and PROT_WRITE of a MAP_SHARED mapping
 *				 of a handle without write access
 *	load, store	SIGBUS	 beyond the end of the buffer, of a page with a
 *				 memory error, or (store; load, if PINNABLE) at the
 *				 LIMIT
 *	MADV_POPULATE_READ, MADV_POPULATE_WRITE
 *			EFAULT	 beyond the end, or at the LIMIT, as load and store
 *	MADV_REMOVE	EACCES	 MAP_PRIVATE, or a handle without write access
 *	write, ftruncate EFBIG	 beyond the largest size or RLIMIT_FSIZE
 *	write, fallocate EBADF	 a handle without write access (such as any frozen
 *				 buffer)
 *	ftruncate	EINVAL	 a handle without write access, or of /dev/cowmem
 *	write		EFAULT	 source not readable; after a part was written
 *				 the short count is returned
 *	read, write, ftruncate, fallocate, copy_file_range
 *			EIO	 a page that has to be read, or zeroed in part, has a
 *				 memory error
 *	lseek		ENXIO	 SEEK_DATA or SEEK_HOLE beyond the last data or
 *				 the end
 *			EINVAL	 before the start or beyond the largest size
 *	open		EPERM	 for writing, or with O_TRUNC, of a frozen
 *				 buffer, also for root
 *	truncate, fchmod, fchown, futimens
 *			EPERM	 a frozen buffer, also for root
 *	futex		EFAULT	 process-shared futexes in a mapping do not
 *				 work; private ones do
 *	write, ftruncate, fallocate, copy_file_range
 *			ENOSPC	 a page would have to be allocated at the LIMIT
 *				 (write, copy_file_range: nothing was done yet,
 *				 else the short count)
 *	fallocate	EOPNOTSUPP
 *				 COLLAPSE_RANGE, INSERT_RANGE
 *			EFBIG	 beyond the largest size or RLIMIT_FSIZE
 *			ENODEV	 a /dev/cowmem handle: ask FILE for a file; so
 *				 does MADV_REMOVE in a mapping of one
 *	FICLONE, FICLONERANGE, FIDEDUPERANGE
 *			EINVAL	 not a multiple of the page size (but a source
 *				 range may end at the end of the source, and
 *				 then must reach the end of the destination or
 *				 beyond), overlapping, or beyond the end of the
 *				 source (FIDEDUPERANGE: of either)
 *			(no error) FIDEDUPERANGE compares a page that ends a frozen
 *				 buffer as a whole, as a mapping shows it
 *			EXDEV	 the other is not a file of cowmem; a handle of
 *				 /dev/cowmem is none (between two, and as the
 *				 source of FIDEDUPERANGE: EINVAL)
 *			EFBIG	 beyond the largest size or RLIMIT_FSIZE
 *			ENOSPC	 a page of the source that is pinned would have to
 *				 be copied, or the rest of the destination's last
 *				 page zeroed apart from who shares it, at the LIMIT
 *				 of the destination
 *			EIO	 memory error in a page that has to be copied or
 *				 compared
 *	FICLONE, FICLONERANGE, copy_file_range
 *			EBADF	 source without read access, destination without
 *				 write access
 *	FIDEDUPERANGE	(no error) what is wrong with a destination is its status
 *			EPERM	 destination without write access, of another user
 *			EINVAL	 source without read access
 *			EOPNOTSUPP
 *				 source is a memfd
 *	copy_file_range	EINVAL	 overlapping, or a /dev/cowmem handle
 *			EXDEV	 the other is not a file of cowmem
 *			EFBIG	 beyond the largest size or RLIMIT_FSIZE
 *	rmmod		EAGAIN	 (EWOULDBLOCK) while a buffer exists
 *
 * A fallocate() that fails leaves content and size as they were.  Modes: 0 and
 * KEEP_SIZE fill holes with pages, PUNCH_HOLE makes holes, ZERO_RANGE replaces by
 * pages of zeroes (what is pinned stays and is zeroed), UNSHARE_RANGE copies pages
 * that other buffers share and fills holes, so that no store needs a page until the
 * next snapshot.
 */
#ifndef _UAPI_LINUX_COWMEM_H
#define _UAPI_LINUX_COWMEM_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define COWMEM_DEVICE	"/dev/cowmem"
#define COWMEM_ABI	1	/* raised only if a program would break */
#define COWMEM_NAME_MAX	64	/* bytes of a name, with its final NUL */

/*
 * Flags.  No bit has two meanings, so that one given to a call that does not
 * know it is refused.
 */
#define COWMEM_CLOEXEC		(1U << 0)	/* close the new fd on exec */
#define COWMEM_PINNABLE		(1U << 1)	/* CREATE */
#define COWMEM_RDONLY		(1U << 2)	/* FILE */
#define COWMEM_WRITABLE		(1U << 3)	/* SNAPSHOT */
#define COWMEM_IN_PLACE		(1U << 4)	/* RESTORE */
#define COWMEM_SHARING		(1U << 5)	/* STAT */

#define COWMEM_NO_LIMIT		(~0ULL)		/* of LIMIT and STAT */
#define COWMEM_DIFF_END		(~0ULL)		/* cursor of DIFF: nothing more */

/**
 * struct cowmem_query - ioctl(COWMEM_QUERY)
 * @size: sizeof(struct cowmem_query)
 * @flags: 0
 * @abi: out: COWMEM_ABI of the module
 * @page_size: out: bytes in a page; offsets and lengths of ranges are
 *	multiples of it
 * @features: out: COWMEM_FEATURE_* bits
 * @max_size: out: largest size of a buffer in bytes
 * @max_members: out: most buffers in one group snapshot, 0 without groups
 * @__reserved: out: 0
 *
 * What the loaded module can do; works on any handle.
 */
struct cowmem_query {
	__u32 size;
	__u32 flags;
	__u32 abi;
	__u32 page_size;
	__aligned_u64 features;
	__aligned_u64 max_size;
	__u32 max_members;
	__u32 __reserved;
};

#define COWMEM_FEATURE_SNAPSHOT	(1ULL << 0)	/* CREATE, FILE, STAT, SNAPSHOT */
#define COWMEM_FEATURE_RANGE	(1ULL << 1)	/* SNAPSHOT of a range */
#define COWMEM_FEATURE_GROUP	(1ULL << 2)	/* SNAPSHOT of several buffers */
#define COWMEM_FEATURE_RESTORE	(1ULL << 3)
#define COWMEM_FEATURE_IN_PLACE	(1ULL << 4)	/* RESTORE with IN_PLACE */
#define COWMEM_FEATURE_DIFF	(1ULL << 5)
#define COWMEM_FEATURE_SHARING	(1ULL << 6)	/* STAT with SHARING */
#define COWMEM_FEATURE_LIMIT	(1ULL << 7)
#define COWMEM_FEATURE_PINNABLE	(1ULL << 8)	/* CREATE with PINNABLE */
#define COWMEM_FEATURE_CLONE	(1ULL << 9)	/* FICLONE, FICLONERANGE, copy_file_range */
#define COWMEM_FEATURE_DEDUPE	(1ULL << 10)	/* FIDEDUPERANGE */
#define COWMEM_FEATURE_FALLOCATE (1ULL << 11)

/**
 * struct cowmem_create - ioctl(COWMEM_CREATE)
 * @size: sizeof(struct cowmem_create)
 * @flags: COWMEM_CLOEXEC, COWMEM_PINNABLE
 * @length: size of the new buffer in bytes, 0 or more
 * @name: NUL-terminated, may be empty; shown as /cowmem:NAME in
 *	/proc/PID/maps and in fd links
 * @fd: out: a file of the new buffer, open for reading and writing
 * @__reserved: must be 0
 *
 * Makes a new buffer, full of holes, with an account of its own.  The handle
 * that the call is made on does not matter.
 *
 * With COWMEM_PINNABLE long-term write pins (io_uring fixed buffers, vfio, RDMA)
 * work on mappings of the buffer.  The price: the first access of any kind after
 * a snapshot copies, and holes read through a mapping that may write are
 * allocated.  Inherited by writable snapshots.
 *
 * Errors: EINVAL (name not terminated or with a '/'), EFBIG (length above
 * max_size).
 */
struct cowmem_create {
	__u32 size;
	__u32 flags;
	__aligned_u64 length;
	char name[COWMEM_NAME_MAX];
	__s32 fd;
	__u32 __reserved;
};

/**
 * struct cowmem_file - ioctl(COWMEM_FILE)
 * @size: sizeof(struct cowmem_file)
 * @flags: COWMEM_CLOEXEC, COWMEM_RDONLY (open for reading only)
 * @fd: out: a file of the same buffer
 * @__reserved: must be 0
 *
 * Turns a /dev/cowmem handle into a file; also works on a file.  The new file
 * has its own offset.
 *
 * Errors: EACCES (handle cannot read, or without COWMEM_RDONLY cannot write),
 * EPERM (without COWMEM_RDONLY on a frozen buffer).
 */
struct cowmem_file {
	__u32 size;
	__u32 flags;
	__s32 fd;
	__u32 __reserved;
};

/**
 * struct cowmem_member - one buffer of a group snapshot
 * @fd: a readable handle of the buffer
 * @snapshot_fd: out: file of its snapshot
 * @offset: start of the range in bytes, a multiple of the page size
 * @length: length of the range in bytes, a multiple of the page size unless
 *	the range ends at the end of the buffer; 0: to the end of the buffer
 */
struct cowmem_member {
	__s32 fd;
	__s32 snapshot_fd;
	__aligned_u64 offset;
	__aligned_u64 length;
};

/**
 * struct cowmem_snapshot - ioctl(COWMEM_SNAPSHOT)
 * @size: sizeof(struct cowmem_snapshot)
 * @flags: COWMEM_CLOEXEC, COWMEM_WRITABLE (an independent, writable clone)
 * @offset: as in struct cowmem_member; 0 with @nr_members
 * @length: as in struct cowmem_member; 0 with @nr_members
 * @members: address of an array of struct cowmem_member; 0 for the one buffer
 *	of the handle that the call is made on
 * @nr_members: length of that array; one consistent cut is taken over all of
 *	them (which must be different buffers), and all snapshots are made or
 *	none
 * @fd: out: a file of the snapshot, unless @nr_members: read-only if frozen,
 *	read-write if writable
 * @name: name of the snapshot(s), as in struct cowmem_create; empty: the name
 *	of the origin
 *
 * Makes a buffer that shares every page of another, in time that does not
 * depend on the size of the buffer but on the number of pages written since
 * its last snapshot.  Frozen by default: its content never changes again.
 *
 * The cut is consistent: if the snapshot has one store, it has every store and
 * atomic operation that happened before it, on any thread or process, through
 * any mapping.  Of a write() it may have some pages.  Writes through page
 * references in flight (O_DIRECT, io_uring, process_vm_writev, ptrace) fall on
 * either side, page by page.
 *
 * A snapshot of a range is a buffer of that length, whose offset 0 is @offset.
 *
 * Errors: EACCES (handle, or fd of a member, cannot read), EINVAL (name; range
 * not aligned, beyond the end, or empty because @offset is the end; more than
 * max_members; one buffer twice; only one of @members and @nr_members is 0),
 * EBADF (a member is not a handle of a cowmem buffer), EIO (a page that has to be
 * copied because it is pinned has a memory error), ENOSPC (so, at the LIMIT).
 */
struct cowmem_snapshot {
	__u32 size;
	__u32 flags;
	__aligned_u64 offset;
	__aligned_u64 length;
	__aligned_u64 members;
	__u32 nr_members;
	__s32 fd;
	char name[COWMEM_NAME_MAX];
};

/**
 * struct cowmem_restore - ioctl(COWMEM_RESTORE)
 * @size: sizeof(struct cowmem_restore)
 * @flags: COWMEM_IN_PLACE
 * @source: a readable handle of the buffer to take the content from
 * @__reserved: must be 0
 * @offset: start of the range in this buffer, a multiple of the page size
 * @source_offset: start of the range in the source, a multiple of the page size
 * @length: bytes, a multiple of the page size; 0 (with both offsets 0): the
 *	whole buffer, whose size becomes that of the source
 *
 * Makes the content of this buffer, or of a range of it, equal to another's,
 * under its live mappings, at a cost that grows with what differs (for a range
 * that the source has at another offset, with the range).  The size changes only
 * for the whole buffer.  No mapping and no snapshot shows a part of it, or new
 * content before the old is gone everywhere.  Private copies of MAP_PRIVATE
 * mappings stay, but for those beyond a new end.  A page of this buffer that is
 * pinned for writing keeps its place and gets the content.  A read() meanwhile may
 * have old bytes followed by new ones, not the reverse.  A page that is just being
 * read, or copied for a MAP_PRIVATE mapping, counts as pinned: whoever reads it may
 * have some of both, in any order.
 *
 * With COWMEM_IN_PLACE the caller promises that nobody writes to this buffer
 * meanwhile (else those pages have some of both), and up to 1,024 pages that
 * differ are copied back where they are, mapped writable as before.  Who reads
 * meanwhile may see a part.
 *
 * Errors: EBADF (source is not a handle of a cowmem buffer), EACCES (this
 * handle cannot write or the source cannot be read), EPERM (this buffer is
 * frozen), EINVAL (range not aligned, beyond the end of either, or overlapping
 * itself), ENOSPC (a page of the source that is pinned would have to be copied, at
 * the LIMIT of this buffer), EIO (memory error in a page that has to be copied
 * because it is pinned or takes the place of one that is, or with COWMEM_IN_PLACE;
 * if the memory fails only while a page that stays is filled, all is done but for
 * that page).
 */
struct cowmem_restore {
	__u32 size;
	__u32 flags;
	__s32 source;
	__u32 __reserved;
	__aligned_u64 offset;
	__aligned_u64 source_offset;
	__aligned_u64 length;
};

/**
 * struct cowmem_extent - one range of a DIFF
 * @offset: start in bytes, a multiple of the page size
 * @length: length in bytes, a multiple of the page size
 * @flags: COWMEM_EXTENT_DATA or COWMEM_EXTENT_HOLE: what this buffer has there
 * @__reserved: 0
 */
struct cowmem_extent {
	__aligned_u64 offset;
	__aligned_u64 length;
	__u32 flags;
	__u32 __reserved;
};

#define COWMEM_EXTENT_DATA	(1U << 0)
#define COWMEM_EXTENT_HOLE	(1U << 1)

/**
 * struct cowmem_diff - ioctl(COWMEM_DIFF)
 * @size: sizeof(struct cowmem_diff)
 * @flags: 0
 * @other: a readable handle of the buffer to compare with
 * @nr_extents: in: length of the array (to be set again before each call, as it
 *	is overwritten); out: extents written to it, at most 1,024
 * @extents: address of an array of struct cowmem_extent
 * @cursor: in: where to start, in bytes; out: where to go on, or COWMEM_DIFF_END
 *
 * Lists the ranges in which this buffer and another do not share pages, in
 * ascending order, up to the end of the longer.  (Equal bytes that were written
 * to both are a difference.)  Never misses a difference,
 * never lists a page that is still shared, nor a hole of both.  One call sees
 * both at one moment; it may return fewer extents than there is room for, and
 * an extent may go on in the next.
 *
 * Errors: EBADF (other is not a handle of a cowmem buffer), EACCES (one of the
 * two cannot be read), EINVAL (cursor not aligned, nr_extents 0).
 */
struct cowmem_diff {
	__u32 size;
	__u32 flags;
	__s32 other;
	__u32 nr_extents;
	__aligned_u64 extents;
	__aligned_u64 cursor;
};

/**
 * struct cowmem_limit - ioctl(COWMEM_LIMIT)
 * @size: sizeof(struct cowmem_limit)
 * @flags: 0
 * @limit: bytes of pages that the account of this buffer may hold, of which a
 *	part of a page does not count; COWMEM_NO_LIMIT
 *
 * An account is made with a fresh buffer and shared by all snapshots and clones
 * of it.  A page counts for the account whose buffer it was allocated for, until
 * it is freed.  A limit below what is held already only stops new pages.  The
 * parameter max_pages of the module bounds all accounts together in the same way.
 *
 * Errors: EPERM (neither the creator's uid nor CAP_SYS_RESOURCE).
 */
struct cowmem_limit {
	__u32 size;
	__u32 flags;
	__aligned_u64 limit;
};

/**
 * struct cowmem_stat - ioctl(COWMEM_STAT)
 * @size: sizeof(struct cowmem_stat)
 * @flags: COWMEM_SHARING
 * @id: out: number of the buffer, never used twice while the module is loaded
 * @account: out: number of its account
 * @state: out: COWMEM_STATE_* bits
 * @__reserved: out: 0
 * @length: out: size of the buffer in bytes
 * @resident: out: bytes of pages that the buffer reaches, shared or not
 * @limit: out: LIMIT of the account in bytes, or COWMEM_NO_LIMIT
 * @charged: out: bytes of pages that the account holds
 * @faults: out: page faults of MAP_SHARED and MAP_PRIVATE mappings, also those
 *	that ended in SIGBUS
 * @filled: out: holes that got a page
 * @copied: out: pages copied because another buffer shares them, or because of
 *	@held
 * @reused: out: pages that had been shared, written again without a copy
 *	because the last sharer had gone
 * @held: out: pages copied only because somebody (a pin for DMA, a pipe, a
 *	reader) held a reference to them; part of @copied
 * @snapshots: out: snapshots taken of this buffer
 * @exclusive: out: with COWMEM_SHARING: bytes of pages that this buffer reaches,
 *	at one offset, and no other does (USS)
 * @proportional: out: with COWMEM_SHARING: bytes, each page split among the
 *	buffers that reach it (PSS), rounded down; the sum over all buffers is
 *	the bytes of pages held, short by at most one byte for each buffer,
 *	whenever nothing changes meanwhile
 * @index: out: with COWMEM_SHARING: bytes of the buffer's page index that no
 *	other buffer shares
 * @name: out: name of the buffer
 *
 * Constant time, but with COWMEM_SHARING time that grows with what is resident.
 * Counters are of this buffer, since it was made.
 */
struct cowmem_stat {
	__u32 size;
	__u32 flags;
	__aligned_u64 id;
	__aligned_u64 account;
	__u32 state;
	__u32 __reserved;
	__aligned_u64 length;
	__aligned_u64 resident;
	__aligned_u64 limit;
	__aligned_u64 charged;
	__aligned_u64 faults;
	__aligned_u64 filled;
	__aligned_u64 copied;
	__aligned_u64 reused;
	__aligned_u64 held;
	__aligned_u64 snapshots;
	__aligned_u64 exclusive;
	__aligned_u64 proportional;
	__aligned_u64 index;
	char name[COWMEM_NAME_MAX];
};

#define COWMEM_STATE_FROZEN	(1U << 0)
#define COWMEM_STATE_PINNABLE	(1U << 1)

/* Without a size: that is in the struct, which may grow. */
#define COWMEM_IOC_TYPE	0xC3

#define COWMEM_QUERY	_IO(COWMEM_IOC_TYPE, 0x00)
#define COWMEM_CREATE	_IO(COWMEM_IOC_TYPE, 0x01)
#define COWMEM_FILE	_IO(COWMEM_IOC_TYPE, 0x02)
#define COWMEM_SNAPSHOT	_IO(COWMEM_IOC_TYPE, 0x03)
#define COWMEM_RESTORE	_IO(COWMEM_IOC_TYPE, 0x04)
#define COWMEM_DIFF	_IO(COWMEM_IOC_TYPE, 0x05)
#define COWMEM_STAT	_IO(COWMEM_IOC_TYPE, 0x06)
#define COWMEM_LIMIT	_IO(COWMEM_IOC_TYPE, 0x07)

#endif /* _UAPI_LINUX_COWMEM_H */
