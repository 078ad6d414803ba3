/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Bounds of PSS that need no knowledge of the index.
 *
 * A page is split among its owners, and what each of them gets once more at each
 * node above that has several.  So a place (an offset of a buffer) has one part of
 * its page in as many as the product of all numbers of owners on its path.  Where
 * owners are depends on how the buffers came about, but each owner that is not on
 * the path leads to another place of the same page, and no two to the same.  So
 * these numbers, less one each, add up to no more than there are other places:
 *
 *	a page in one place is all there, one in two is split in halves;
 *	a place of a page in more has half of it at most, and at least what the
 *	largest product leaves, that of numbers as alike as can be;
 *	what the others cannot have, it has.
 */
#ifndef COWMEM_SELFTESTS_SPLIT_H
#define COWMEM_SELFTESTS_SPLIT_H

#include "common.h"

/* Bounds of the PSS of a buffer, in bytes. */
struct split {
	long least, most;
};

/* Of @steps factors that, less one each, add up to @sum. */
static inline long largest_product(unsigned int sum, unsigned int steps)
{
	long product = 1;
	unsigned int i;

	for (i = 0; i < steps; i++)
		product *= 1 + (sum + i) / steps;
	return product;
}

/*
 * Add a page that is in @all places, @own of them in the buffer.  @steps: at how
 * many it may be split: levels of nodes, and itself.
 */
static inline void split_add(struct split *split, unsigned int own,
			     unsigned int all, unsigned int steps)
{
	long least = PAGE / largest_product(all - 1, steps);
	long most = all > 1 ? PAGE / 2 : PAGE;
	long others_least = (all - own) * least;
	long others_most = (all - own) * most;

	least *= own;
	most *= own;
	if (least < (long)PAGE - others_most)
		least = (long)PAGE - others_most;
	if (most > (long)PAGE - others_least)
		most = (long)PAGE - others_least;
	split->least += least;
	split->most += most;
}

/* Is @bytes, which was rounded down, within the bounds? */
static inline bool split_allows(const struct split *split, uint64_t bytes)
{
	return (long)bytes <= split->most && (long)bytes + 1 >= split->least;
}

#endif
