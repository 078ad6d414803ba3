// SPDX-License-Identifier: GPL-2.0
/*
 * usage: mdb_dump -p DIRECTORY | verify
 *
 * Is this dump whole, and does it keep the rules of ledger.h?  If so prints
 * "RECORDS SEQ TEXT ALL BYTES": how many records, transactions done, two hashes,
 * of what never changes and of everything, and the size of keys and values.  If
 * not, says why and exits with 1.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "ledger.h"

struct summary {
	unsigned long records, bytes, accounts, seq, revisions;
	long balance;
	uint64_t text, all;
};

static void fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("verify: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

/* FNV-1a */
static uint64_t hash(uint64_t h, const char *text)
{
	for (; *text; text++)
		h = (h ^ (unsigned char)*text) * 0x100000001b3;
	return h;
}

static uint64_t hash_record(const char *key, const char *value)
{
	return hash(hash(hash(0xcbf29ce484222325, key), "="), value);
}

/* mdb_dump writes bytes that are not ASCII as \xx. */
static void unescape(char *line)
{
	char *to = line, code[3] = "";

	for (; *line; line++) {
		if (*line == '\\' && line[1] && line[2]) {
			memcpy(code, line + 1, 2);
			*to++ = strtoul(code, NULL, 16);
			line += 2;
		} else {
			*to++ = *line;
		}
	}
	*to = '\0';
}

static bool is_account(const char *key)
{
	return *key && !strcmp(key + 1, ACCOUNT_SUFFIX);
}

static void add_account(struct summary *sum, const char *key, const char *value)
{
	unsigned long seq;
	long balance;

	if (sscanf(value, "%lu %ld", &seq, &balance) != 2)
		fail("%s is garbled: %s", key, value);
	if (sum->accounts && seq != sum->seq)
		fail("a torn transaction: %s is at %lu, others at %lu",
		     key, seq, sum->seq);
	sum->seq = seq;
	sum->balance += balance;
	sum->accounts++;
}

static void add_package(struct summary *sum, const char *key, const char *value)
{
	char *text;

	sum->revisions += strtoul(value, &text, 10);
	if (text != value + REVISION_DIGITS)
		fail("%s is garbled: %s", key, value);
	/* A sum: the order of records does not matter. */
	sum->text += hash_record(key, text);
}

static void add_record(struct summary *sum, const char *key, const char *value)
{
	sum->records++;
	sum->bytes += strlen(key) + strlen(value);
	sum->all += hash_record(key, value);
	if (is_account(key))
		add_account(sum, key, value);
	else
		add_package(sum, key, value);
}

/* The next line without its newline; NULL at the end. */
static char *next_line(char **line, size_t *size)
{
	ssize_t length = getline(line, size, stdin);

	if (length <= 0)
		return NULL;
	(*line)[length - 1] = '\0';
	return *line;
}

/* Records are two lines, each with a blank in front. */
static void read_dump(struct summary *sum)
{
	char *key = NULL, *value = NULL;
	size_t key_size = 0, value_size = 0;

	do {
		if (!next_line(&key, &key_size))
			fail("no dump");
	} while (strcmp(key, "HEADER=END"));

	for (;;) {
		if (!next_line(&key, &key_size))
			fail("the dump ends after %lu records", sum->records);
		if (!strcmp(key, "DATA=END"))
			break;
		if (!next_line(&value, &value_size) || *key != ' ' ||
		    *value != ' ')
			fail("record %lu is garbled", sum->records);
		unescape(key);
		unescape(value);
		add_record(sum, key + 1, value + 1);
	}
	free(key);
	free(value);
}

int main(void)
{
	struct summary sum = { };

	read_dump(&sum);
	if (sum.accounts != NR_ACCOUNTS)
		fail("%lu accounts instead of %d", sum.accounts, NR_ACCOUNTS);
	if (sum.balance != TOTAL)
		fail("balances sum to %ld instead of %d", sum.balance, TOTAL);
	if (sum.revisions != sum.seq * NR_UPDATES)
		fail("a torn transaction: %lu of %lu revisions",
		     sum.revisions, sum.seq * NR_UPDATES);
	printf("%lu %lu %llx %llx %lu\n", sum.records, sum.seq,
	       (unsigned long long)sum.text, (unsigned long long)sum.all,
	       sum.bytes);
	return 0;
}
