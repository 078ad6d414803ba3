// SPDX-License-Identifier: GPL-2.0
/*
 * Race amplifiers, built with AMPLIFY=1 only: see amplify.h.
 */
#include <linux/delay.h>
#include <linux/moduleparam.h>
#include <linux/random.h>

#include "amplify.h"

static unsigned int amplify_us = 200;
module_param(amplify_us, uint, 0644);
MODULE_PARM_DESC(amplify_us, "Longest delay at a race window, in microseconds");

/* Most passes are quick, so that the threads stay out of step. */
static void delay_sometimes(void)
{
	u32 r = get_random_u32();

	if (amplify_us && r % 8 == 0)
		udelay((r >> 8) % amplify_us);
}

void cowmem_amplify_grant(void)
{
	delay_sometimes();
}

void cowmem_amplify_revoke(void)
{
	delay_sometimes();
}

void cowmem_amplify_copy(void)
{
	delay_sometimes();
}

void cowmem_amplify_store(void)
{
	delay_sometimes();
}
