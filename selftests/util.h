/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers of more than one test: pages and what is in them, files and pipes,
 * memory errors, child processes, and what the kernel says of a mapping.
 */
#ifndef COWMEM_SELFTESTS_UTIL_H
#define COWMEM_SELFTESTS_UTIL_H

#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>

#include <linux/userfaultfd.h>

#include "common.h"

#define GIB	(1UL << 30)
#define TIB	(1UL << 40)
#define NOBODY	65534

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#define MADV_POPULATE_WRITE	23
#endif

/* A result of the C library as 0, a count or -errno. */
static inline long ret(long value)
{
	return value < 0 ? -errno : value;
}

static inline double seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

/* By its release. */
static inline bool kernel_before(unsigned int major, unsigned int minor)
{
	unsigned int is_major = 0, is_minor = 0;
	struct utsname name;

	uname(&name);
	sscanf(name.release, "%u.%u", &is_major, &is_minor);
	return is_major < major || (is_major == major && is_minor < minor);
}

/*
 * Pages in memory
 */

static inline size_t page_up(size_t bytes)
{
	return (bytes + PAGE - 1) / PAGE * PAGE;
}

/* Is every byte of the page @value? */
static inline bool page_is(const char *page, char value)
{
	return page[0] == value && !memcmp(page, page + 1, PAGE - 1);
}

/* What fill_pages() writes to a page. */
static inline char value_of(unsigned long index)
{
	return 'a' + index;
}

static inline void fill_pages(char *p, unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++)
		memset(p + i * PAGE, value_of(i), PAGE);
}

/* Is the memory at @p what fill_pages() makes of @nr pages from @first on? */
static inline bool pages_filled(const char *p, unsigned long first,
				unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++)
		if (!page_is(p + i * PAGE, value_of(first + i)))
			return false;
	return true;
}

/* The first bytes of a page. */
static inline _Atomic uint64_t *page_word(char *p, unsigned long index)
{
	return (_Atomic uint64_t *)(p + index * PAGE);
}

/* 0, or the signal that a load raises. */
static inline int load_signal(const char *p)
{
	return COW_TRY((void)*(volatile const char *)p);
}

/* Order number @n of 0 ... @nr - 1, of 8 at most. */
static inline void order_of(unsigned int n, unsigned int nr,
			    unsigned int order[])
{
	unsigned int left[8] = { 0, 1, 2, 3, 4, 5, 6, 7 }, i, k;

	for (i = 0; i < nr; i++) {
		k = n % (nr - i);
		n /= nr - i;
		order[i] = left[k];
		memmove(&left[k], &left[k + 1], (7 - k) * sizeof(left[0]));
	}
}

/*
 * Files
 */

/* Another open file of what @fd refers to, or -errno. */
static inline int reopen(int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return ret(open(path, flags | O_CLOEXEC));
}

/* The number that the next file to be opened will have. */
static inline int next_fd(void)
{
	int fd = dup(0);

	if (fd >= 0)
		close(fd);
	return fd;
}

/* All that STAT tells, but for page faults. */
static inline bool stat_unchanged(int fd, const struct cowmem_stat *before)
{
	struct cowmem_stat now = cow_stat(fd);

	now.faults = before->faults;
	return !memcmp(&now, before, sizeof(now));
}

static inline unsigned long resident_pages(int fd)
{
	return cow_stat(fd).resident / PAGE;
}

/* The same by st_blocks, or -1 if that is not what STAT says. */
static inline long pages_of(int fd)
{
	struct stat st;

	if (fstat(fd, &st) || st.st_blocks * 512ULL != cow_stat(fd).resident)
		return -1;
	return st.st_blocks * 512ULL / PAGE;
}

static inline bool write_byte(int fd, off_t offset, char value)
{
	return pwrite(fd, &value, 1, offset) == 1;
}

static inline int read_byte(int fd, off_t offset)
{
	unsigned char value;

	return pread(fd, &value, 1, offset) == 1 ? value : -1;
}

static inline bool write_word(int fd, off_t offset, uint64_t value)
{
	return pwrite(fd, &value, sizeof(value), offset) == sizeof(value);
}

/* UINT64_MAX: there is none. */
static inline uint64_t read_word(int fd, off_t offset)
{
	uint64_t value;

	if (pread(fd, &value, sizeof(value), offset) != sizeof(value))
		return UINT64_MAX;
	return value;
}

/* Bytes written, or -errno. */
static inline int write_page(int fd, unsigned long index, char value)
{
	char data[PAGE];

	memset(data, value, PAGE);
	return ret(pwrite(fd, data, PAGE, index * PAGE));
}

/* By read(): is every byte of that page @value? */
static inline bool page_reads_as(int fd, unsigned long index, char value)
{
	char data[PAGE];

	return pread(fd, data, PAGE, index * PAGE) == PAGE &&
	       page_is(data, value);
}

/* copy_file_range(): bytes copied, or -errno. */
static inline long copy_range(int fd, off_t offset, int source,
			      off_t source_offset, size_t length)
{
	return ret(copy_file_range(source, &source_offset, fd, &offset, length,
				   0));
}

static inline bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == strlen(text);

	close(fd);
	return ok;
}

/* What is in a file that has one number, or -1. */
static inline long read_number(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	return n > 0 ? atol(text) : -1;
}

/* Let the pipe hold the page itself, not a copy. */
static inline bool pipe_hold(int pipefd[2], char *page)
{
	struct iovec iov = { page, PAGE };

	return vmsplice(pipefd[1], &iov, 1, 0) == PAGE;
}

/* Take the next page out of the pipe: is it @value all over? */
static inline bool pipe_has(int pipefd[2], char value)
{
	char data[PAGE];

	return read(pipefd[0], data, PAGE) == PAGE && page_is(data, value);
}

static inline void pipe_close(int pipefd[2])
{
	close(pipefd[0]);
	close(pipefd[1]);
}

/* 0 or -errno. */
static inline int send_fd(int sock, int fd)
{
	char data = 'f', control[CMSG_SPACE(sizeof(int))] = "";
	struct iovec iov = { &data, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	return sendmsg(sock, &msg, 0) == 1 ? 0 : -errno;
}

static inline int receive_fd(int sock)
{
	char data, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &data, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg;
	int fd;

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != 1)
		return -errno;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS)
		return -ENOMSG;
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	return fd;
}

/*
 * Pages with a memory error.  Where the kernel cannot take it back, each of them
 * is lost until the next boot.
 */

/* The kernel will say something, and it is meant to: tell the VM's init. */
static inline void expect_noise(void)
{
	close(open("/tmp/expect-noise", O_WRONLY | O_CREAT, 0600));
}

/* Let the page that is mapped at @p have an error.  Can this kernel do that? */
static inline bool poison(char *p)
{
	expect_noise();
	return !madvise(p, PAGE, MADV_HWPOISON) || errno != EINVAL;
}

/* After its last use: a poisoned page is never freed, and would look like a leak. */
static inline void unpoison(uint64_t frame)
{
	char text[32];

	snprintf(text, sizeof(text), "%#llx", (unsigned long long)frame);
	write_file("/sys/kernel/debug/hwpoison/unpoison-pfn", text);
}

/*
 * Child processes
 */

/* Run @statement in a child process; the value is its wait status. */
#define CHILD(statement) ({						\
	int _status = -1;						\
	pid_t _pid = fork();						\
									\
	if (!_pid) {							\
		statement;						\
		_exit(0);						\
	}								\
	waitpid(_pid, &_status, 0);					\
	_status;							\
})

/* Start a child that may stop itself with raise(SIGSTOP) on its way. */
#define CHILD_START(statement) ({					\
	pid_t _pid = fork();						\
									\
	if (!_pid) {							\
		statement;						\
		_exit(0);						\
	}								\
	_pid;								\
})

static inline bool child_stopped(pid_t pid)
{
	int status;

	return waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status);
}

/* Let a stopped child go on; the value is its wait status. */
static inline int child_finish(pid_t pid)
{
	int status = -1;

	kill(pid, SIGCONT);
	waitpid(pid, &status, 0);
	return status;
}

static inline bool become_nobody(void)
{
	return !setresgid(NOBODY, NOBODY, NOBODY) &&
	       !setresuid(NOBODY, NOBODY, NOBODY);
}

/*
 * Mappings
 */

static inline char *map_private(int fd, size_t length, int prot)
{
	return mmap(NULL, length, prot, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
}

static inline char *moved(char *p, size_t length)
{
	char *to = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
			-1, 0);

	return mremap(p, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, to);
}

/* Page frame number behind an address; 0: none. */
static inline uint64_t frame_of(const char *p)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t entry = 0;

	if (pread(fd, &entry, sizeof(entry),
		  (unsigned long)p / PAGE * sizeof(entry)) != sizeof(entry))
		entry = 0;
	close(fd);
	return entry >> 63 ? entry & ((1ULL << 55) - 1) : 0;
}

/*
 * Sum of the field "@name:" (kB) of smaps over the mappings in a range; -1:
 * there is none.
 */
static inline long smaps_kb(const char *p, size_t length, const char *name)
{
	unsigned long start, end, first = (unsigned long)p;
	FILE *smaps = fopen("/proc/self/smaps", "r");
	char line[512], key[64];
	bool inside = false;
	long kb, sum = -1;

	if (!smaps)
		return -1;
	while (fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start >= first && end <= first + length;
		else if (inside && sscanf(line, "%63[^:]: %ld kB", key, &kb) == 2 &&
			 !strcmp(key, name))
			sum = sum < 0 ? kb : sum + kb;
	}
	fclose(smaps);
	return sum;
}

/* -ENOSYS: this kernel has no such userfaultfd. */
static inline int uffd_register(char *p, size_t length, uint64_t mode,
				uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	struct uffdio_register reg = {
		.range = { .start = (unsigned long)p, .len = length },
		.mode = mode,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC), err = 0;

	if (fd < 0)
		return -ENOSYS;
	if (ioctl(fd, UFFDIO_API, &api))
		err = -ENOSYS;
	else if (ioctl(fd, UFFDIO_REGISTER, &reg))
		err = -errno;
	close(fd);
	return err;
}

/*
 * Exceptions that a store takes, as the kernel counts them for this thread.  The
 * first round stores elsewhere, and takes those of the measuring itself.
 */
static __attribute__((noinline, unused))
long faults_of_store(char *p, char value)
{
	char elsewhere;
	char *where[] = { &elsewhere, p };
	long before, faults = 0;
	int i;

	for (i = 0; i < 2; i++) {
		before = cow_minor_faults();
		*(volatile char *)where[i] = value;
		faults = cow_minor_faults() - before;
	}
	return faults;
}

#endif
