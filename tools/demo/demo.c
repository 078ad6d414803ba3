// SPDX-License-Identifier: GPL-2.0
/*
 * usage: demo DATASET
 *
 * LMDB in a cowmem buffer, and snapshots of it while it is written to.
 *
 * What LMDB opens as data.mdb is a symlink to /proc/PID/fd/N of this program,
 * which does no more than hold the buffer and its snapshots; mdb_load, mdb_stat,
 * mdb_dump and liblmdb are the distribution's.  Exit status 0: all checks passed.
 */
#include <sys/statvfs.h>
#include <time.h>

#include "common.h"
#include "env.h"

#define ENVS		"/envs"		/* a tmpfs for LMDB's directories */
#define LIVE		ENVS "/live"
#define NR_SNAPSHOTS	20		/* half of them in each mode */
#define PERIOD_US	100000
#define MIB		(1024.0 * 1024)

struct snapshot {
	int fd;
	double us;
	struct summary summary;
};

static struct snapshot snapshots[NR_SNAPSHOTS];
static struct summary dataset;

static char *snapshot_dir(int i)
{
	static char path[32];

	snprintf(path, sizeof(path), ENVS "/snapshot-%02d", i);
	return path;
}

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int load(const char *file)
{
	char command[128], line[128], target[64] = "";
	struct cowmem_stat stat;
	struct summary sum = { };
	int fd = cow_create(0, "lmdb");

	must(fd >= 0, "COWMEM_CREATE");
	make_env(LIVE, fd);
	must(readlink(LIVE "/data.mdb", target, sizeof(target) - 1) > 0, LIVE);
	printf("1. A cowmem buffer as LMDB's file: %s/data.mdb -> %s\n", LIVE,
	       target);

	snprintf(command, sizeof(command), "cat %s", file);
	must(verify(&dataset, command), file);
	must(run(line, sizeof(line), "mdb_load -f %s %s", file, LIVE),
	     "mdb_load");
	check(verify_env(&sum, LIVE) && sum.all == dataset.all,
	      "mdb_dump does not give back what mdb_load took");
	stat = cow_stat(fd);
	printf("   mdb_load put %lu records of this machine's package index there (%.1f MiB of\n"
	       "   names and texts); %.1f MiB are resident.\n", sum.records,
	       sum.bytes / MIB, stat.resident / MIB);
	return fd;
}

/* Returns when the writer has done its first transaction. */
static pid_t start_writer(const char *mode)
{
	int ready[2];
	pid_t pid;
	char c;

	must(!pipe(ready), "pipe");
	pid = fork();
	must(pid >= 0, "fork");
	if (!pid) {
		dup2(ready[1], 1);
		close(ready[0]);
		close(ready[1]);
		execlp("writer", "writer", LIVE, mode, NULL);
		_exit(127);
	}
	close(ready[1]);
	check(read(ready[0], &c, 1) == 1, "the writer does not get going");
	close(ready[0]);
	return pid;
}

static void stop_writer(pid_t pid)
{
	int status = -1;

	kill(pid, SIGTERM);
	waitpid(pid, &status, 0);
	check(status == 0, "the writer failed: status %#x", status);
}

static void take_snapshot(int live, int i)
{
	struct snapshot *snap = &snapshots[i];
	double start = now_us();

	snap->fd = cow_snapshot(live, 0);
	snap->us = now_us() - start;
	must(snap->fd >= 0, "COWMEM_SNAPSHOT");
	make_env(snapshot_dir(i), snap->fd);
}

static void verify_snapshot(int i)
{
	struct summary *sum = &snapshots[i].summary;
	char *dir = snapshot_dir(i);
	unsigned long entries = stat_entries(dir);

	check(entries == dataset.records, "%s: mdb_stat counts %lu records of %lu",
	      dir, entries, dataset.records);
	check(verify_env(sum, dir), "%s is not consistent", dir);
	check(sum->records == dataset.records && sum->text == dataset.text,
	      "%s has lost or changed records", dir);
	check(!i || sum->seq >= snapshots[i - 1].summary.seq,
	      "%s is older than the one before", dir);
}

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median_us(int first, int end)
{
	double us[NR_SNAPSHOTS];
	int i;

	for (i = first; i < end; i++)
		us[i - first] = snapshots[i].us;
	qsort(us, end - first, sizeof(*us), compare_double);
	return us[(end - first) / 2];
}

/* Snapshots [@first, @end) while a writer runs, and runs on. */
static void write_and_snapshot(int live, const char *mode, int first, int end)
{
	pid_t writer = start_writer(mode);
	struct cowmem_stat before = cow_stat(live), after;
	long transactions;
	int i;

	for (i = first; i < end; i++) {
		usleep(PERIOD_US);
		take_snapshot(live, i);
	}
	after = cow_stat(live);
	for (i = first; i < end; i++)
		verify_snapshot(i);
	stop_writer(writer);

	transactions = snapshots[end - 1].summary.seq -
		       snapshots[first].summary.seq;
	check(transactions > 0, "the writer did nothing between the snapshots");
	check(after.copied > before.copied, "no page was copied");
	printf("   %d snapshots, %.0f us each (median); between the first and the last %ld transactions,\n"
	       "   %llu page faults, %llu pages copied.%s\n",
	       end - first, median_us(first, end), transactions,
	       (unsigned long long)(after.faults - before.faults),
	       (unsigned long long)(after.copied - before.copied),
	       failed ? "" : " All open, are whole and consistent.");
}

static void verify_again(int live)
{
	struct summary sum;
	int i;

	for (i = 0; i < NR_SNAPSHOTS; i++)
		check(verify_env(&sum, snapshot_dir(i)) &&
		      sum.all == snapshots[i].summary.all,
		      "%s has changed since it was taken", snapshot_dir(i));
	check(verify_env(&sum, LIVE), "the live database is not consistent");
	check(sum.seq > snapshots[NR_SNAPSHOTS - 1].summary.seq,
	      "the live database has not gone on");
	printf("   The live database is at transaction %lu; snapshots are still at %lu, %lu ... %lu%s\n",
	       sum.seq,
	       snapshots[0].summary.seq, snapshots[1].summary.seq,
	       snapshots[NR_SNAPSHOTS - 1].summary.seq,
	       failed ? "" : ",\n   and dump as the first time.");
}

static void show_memory(int live)
{
	struct cowmem_stat stat = cow_sharing(live);
	double unshared = stat.resident, held = cow_param("pages") * PAGE;
	long shared = cow_param("pages") - stat.exclusive / PAGE;
	int i;

	for (i = 0; i < NR_SNAPSHOTS; i++) {
		stat = cow_sharing(snapshots[i].fd);
		check(stat.resident >= dataset.bytes && stat.copied == 0,
		      "%s does not hold its data", snapshot_dir(i));
		unshared += stat.resident;
		shared -= stat.exclusive / PAGE;
	}
	stat = cow_stat(live);
	/* While all snapshots live, no page that was made has been freed. */
	check(held == (stat.filled + stat.copied - stat.held) * PAGE,
	      "%.0f pages are held, but %llu were filled and %llu copied",
	      held / PAGE, (unsigned long long)stat.filled,
	      (unsigned long long)stat.copied);
	check(held < unshared && shared > 0, "no page is shared");
	printf("   Each of the %d buffers has all of its pages: %.1f MiB together; really held: %.1f MiB.\n"
	       "   Without sharing it would be %.1f times as much. Of %.0f pages %ld are shared, the others\n"
	       "   only one buffer has. (%llu pages copied, %llu reused)\n",
	       NR_SNAPSHOTS + 1, unshared / MIB, held / MIB, unshared / held,
	       held / PAGE, shared, (unsigned long long)stat.copied,
	       (unsigned long long)stat.reused);
}

/* The data is where we say: in the buffer, and nowhere else. */
static void show_files(int live)
{
	struct stat file;
	struct statvfs fs;
	char line[128];
	double used;

	must(!fstat(live, &file) && !statvfs(ENVS, &fs), ENVS);
	used = (double)(fs.f_blocks - fs.f_bfree) * fs.f_bsize;
	check(file.st_blocks * 512UL >= dataset.bytes,
	      "the buffer is smaller than its data");
	run(line, sizeof(line), "find %s -type f ! -name lock.mdb", ENVS);
	check(!line[0], "there is a file: %s", line);
	check(used < dataset.bytes, "%s holds %.0f bytes", ENVS, used);
	printf("   The buffer has %.1f MiB; in the %d directories are %.1f MiB, all of it lock.mdb.\n"
	       "   There is no data.mdb but symlinks, and this machine has no disk.\n",
	       file.st_blocks * 512 / MIB, NR_SNAPSHOTS + 1, used / MIB);
}

/* Without snapshots pages are the live buffer's again, and nothing is copied. */
static void close_snapshots(int live)
{
	struct cowmem_stat before, after;
	struct summary sum;
	int i;

	/* The writer has long made the pages of the last one its own. */
	close(cow_snapshot(live, 0));
	for (i = 0; i < NR_SNAPSHOTS; i++)
		close(snapshots[i].fd);
	before = cow_stat(live);
	check(cow_param("pages") * PAGE == before.resident,
	      "%ld pages are held", cow_param("pages"));
	stop_writer(start_writer("map"));
	after = cow_stat(live);
	check(after.reused > before.reused, "no page was reused");
	check(after.copied - before.copied == after.held - before.held,
	      "pages were copied for nobody");
	check(verify_env(&sum, LIVE), "the live database is not consistent");
	printf("   Held now: %.1f MiB. Transactions reuse %llu pages in place and copy %llu.\n",
	       before.resident / MIB,
	       (unsigned long long)(after.reused - before.reused),
	       (unsigned long long)(after.copied - before.copied));
}

int main(int argc, char **argv)
{
	const int half = NR_SNAPSHOTS / 2;
	int live;

	if (argc != 2) {
		fprintf(stderr, "usage: demo DATASET\n");
		return 1;
	}
	setlinebuf(stdout);
	live = load(argv[1]);
	printf("2. A writer changes it with pwrite(); meanwhile a snapshot each %d ms.\n",
	       PERIOD_US / 1000);
	write_and_snapshot(live, "write", 0, half);
	printf("3. The same with a writable mapping (MDB_WRITEMAP): stores that the kernel does not see.\n");
	write_and_snapshot(live, "map", half, NR_SNAPSHOTS);
	printf("4. Each snapshot once more, now that the writer has gone on and ended.\n");
	verify_again(live);
	printf("5. Where the data is, by STAT, /sys/module/cowmem and df.\n");
	show_memory(live);
	show_files(live);
	printf("6. All snapshots, and one taken just now, are closed: nothing is shared any more.\n");
	close_snapshots(live);
	return failed;
}
