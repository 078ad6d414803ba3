/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Race amplifiers, for test builds only (make AMPLIFY=1): they hold a window
 * open that is otherwise a few instructions wide.  A race test that never
 * turned red without them means little.
 */
#ifndef _COWMEM_AMPLIFY_H
#define _COWMEM_AMPLIFY_H

#ifdef COWMEM_AMPLIFY
/* After a page was granted, before its PTE is in. */
void cowmem_amplify_grant(void);
/* After a range was revoked, before the next. */
void cowmem_amplify_revoke(void);
/* Between reading a shared node and replacing it. */
void cowmem_amplify_copy(void);
/* After a path was made, before a page is stored below it. */
void cowmem_amplify_store(void);
#else
static inline void cowmem_amplify_grant(void) { }
static inline void cowmem_amplify_revoke(void) { }
static inline void cowmem_amplify_copy(void) { }
static inline void cowmem_amplify_store(void) { }
#endif

#endif
