/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's harness, with more patience: a test that takes a second takes half
 * a minute on a debug kernel in an emulator on a busy machine.
 */
#ifndef COWMEM_SELFTESTS_HARNESS_H
#define COWMEM_SELFTESTS_HARNESS_H

#include "kselftest_harness.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	300	/* seconds */

#endif
