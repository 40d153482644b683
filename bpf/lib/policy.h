/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where policy stands: once per flow and side, with addresses as they are after translation.
 * Replies and ICMP errors of an allowed flow are not asked about. There is no policy yet: all is
 * allowed.
 */
#pragma once

#include "parse.h"

/* May a pod of ours with `identity` send this? */
static __always_inline struct verdict policy_egress(const struct packet *packet, __u32 identity)
{
	return VERDICT(VERDICT_NONE);
}

/* May a pod of ours receive this from `identity`? */
static __always_inline struct verdict policy_ingress(const struct packet *packet, __u32 identity)
{
	return VERDICT(VERDICT_NONE);
}
