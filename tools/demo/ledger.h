/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the demo's database holds, and why a torn copy of it cannot look whole.
 *
 *	package records	"NAME"		"REVISION TEXT"
 *	accounts	"X#account"	"SEQ BALANCE", X from 'a' on, so that
 *					they lie all over the tree
 *
 * Each transaction of the writer adds 1 to SEQ in all accounts, moves money from
 * one account to another, and adds 1 to REVISION of NR_UPDATES packages.  So at
 * any point in time:
 *
 *	all accounts have the same SEQ, and their balances sum to TOTAL;
 *	the revisions of all packages sum to SEQ * NR_UPDATES;
 *	names and texts are those that were loaded.
 */
#ifndef COWMEM_DEMO_LEDGER_H
#define COWMEM_DEMO_LEDGER_H

#define NR_ACCOUNTS	8
#define TOTAL		(NR_ACCOUNTS * 1000)
#define NR_UPDATES	8

#define ACCOUNT_SUFFIX	"#account"
#define ACCOUNT_KEY	"%c" ACCOUNT_SUFFIX
#define ACCOUNT_VALUE	"%010lu %07ld"

/* Digits of REVISION, which is rewritten in place. */
#define REVISION_DIGITS	6

#endif
