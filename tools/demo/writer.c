// SPDX-License-Identifier: GPL-2.0
/*
 * usage: writer DIRECTORY write|map
 *
 * Changes the database by the rules of ledger.h, transaction after transaction,
 * until SIGTERM; writes a byte to its output after the first.  An ordinary user
 * of liblmdb, which knows nothing of cowmem.  "write" lets LMDB store with
 * pwrite(), "map" through a writable mapping of data.mdb (MDB_WRITEMAP).
 *
 * With DEMO_BREAK set it commits in the midst of each transaction: the demo has
 * to notice.
 */
#include <errno.h>
#include <lmdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ledger.h"

/* A load, not a benchmark: leave the CPUs to who reads the snapshots. */
#define PAUSE_US	5000

static volatile sig_atomic_t stop;
static MDB_env *env;
static MDB_dbi dbi;
static char **names;
static size_t nr_names;

static void check(int err, const char *what)
{
	if (err) {
		fprintf(stderr, "writer: %s: %s\n", what, mdb_strerror(err));
		exit(1);
	}
}

static void open_environment(const char *directory, unsigned int flags)
{
	check(mdb_env_create(&env), "mdb_env_create");
	/* The size of the map is the one that mdb_load put there. */
	check(mdb_env_open(env, directory, flags, 0600), directory);
}

static MDB_txn *begin(void)
{
	MDB_txn *txn;

	check(mdb_txn_begin(env, NULL, 0, &txn), "mdb_txn_begin");
	check(mdb_dbi_open(txn, NULL, 0, &dbi), "mdb_dbi_open");
	return txn;
}

static void commit(MDB_txn *txn)
{
	check(mdb_txn_commit(txn), "mdb_txn_commit");
}

static void read_names(void)
{
	MDB_txn *txn = begin();
	MDB_cursor *cursor;
	MDB_val key, value;

	check(mdb_cursor_open(txn, dbi, &cursor), "mdb_cursor_open");
	while (!mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
		if (memchr(key.mv_data, '#', key.mv_size))
			continue;
		names = realloc(names, (nr_names + 1) * sizeof(*names));
		check(names ? 0 : ENOMEM, "names");
		names[nr_names++] = strndup(key.mv_data, key.mv_size);
	}
	mdb_cursor_close(cursor);
	mdb_txn_abort(txn);
}

/* A copy of the value, since the page it is in is about to change. */
static void get(MDB_txn *txn, char *name, char *text, size_t size)
{
	MDB_val key = { strlen(name), name }, value;

	check(mdb_get(txn, dbi, &key, &value), name);
	snprintf(text, size, "%.*s", (int)value.mv_size, (char *)value.mv_data);
}

static void put(MDB_txn *txn, char *name, char *text)
{
	MDB_val key = { strlen(name), name }, value = { strlen(text), text };

	check(mdb_put(txn, dbi, &key, &value, 0), name);
}

/* One to pay, one to receive; all get the new SEQ. */
static void update_accounts(MDB_txn *txn)
{
	int from = rand() % NR_ACCOUNTS, to = rand() % NR_ACCOUNTS;
	long amount = rand() % 100, balance;
	char name[16], text[64];
	unsigned long seq;
	int i;

	for (i = 0; i < NR_ACCOUNTS; i++) {
		snprintf(name, sizeof(name), ACCOUNT_KEY, 'a' + i);
		get(txn, name, text, sizeof(text));
		sscanf(text, "%lu %ld", &seq, &balance);
		balance += amount * ((i == to) - (i == from));
		snprintf(text, sizeof(text), ACCOUNT_VALUE, seq + 1, balance);
		put(txn, name, text);
	}
}

static void update_packages(MDB_txn *txn)
{
	char text[2048], digits[32], *name;
	int i;

	for (i = 0; i < NR_UPDATES; i++) {
		name = names[rand() % nr_names];
		get(txn, name, text, sizeof(text));
		snprintf(digits, sizeof(digits), "%0*d", REVISION_DIGITS,
			 atoi(text) + 1);
		memcpy(text, digits, REVISION_DIGITS);
		put(txn, name, text);
	}
}

static void on_sigterm(int sig)
{
	stop = 1;
}

int main(int argc, char **argv)
{
	unsigned long transactions = 0;
	MDB_txn *txn;

	if (argc != 3) {
		fprintf(stderr, "usage: writer DIRECTORY write|map\n");
		return 1;
	}
	signal(SIGTERM, on_sigterm);
	open_environment(argv[1], strcmp(argv[2], "map") ? 0 : MDB_WRITEMAP);
	read_names();
	while (!stop) {
		txn = begin();
		update_accounts(txn);
		if (getenv("DEMO_BREAK")) {
			commit(txn);
			usleep(PAUSE_US);
			txn = begin();
		}
		update_packages(txn);
		commit(txn);
		if (!transactions++ && write(1, "", 1) != 1)
			break;
		usleep(PAUSE_US);
	}
	mdb_env_close(env);
	return 0;
}
