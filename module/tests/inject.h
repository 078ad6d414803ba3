/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Allocation failures at will.  Only the user-space build has them: its
 * kunit/test.h brings a function and a macro of the name.
 */
#ifndef _COWMEM_TESTS_INJECT_H
#define _COWMEM_TESTS_INJECT_H

#include <kunit/test.h>
#include <linux/types.h>

#ifndef cowmem_inject_failures
/**
 * cowmem_inject_failures() - make allocations of nodes and pages fail
 * @after: how many succeed before
 * @nr: how many fail then; 0: none
 *
 * Context: any.
 * Return: false if this build cannot; then none fails.
 */
static inline bool cowmem_inject_failures(unsigned int after, unsigned int nr)
{
	return false;
}
#endif

#endif
