/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Later fragments have no ports: those of the first hold, if it came before them. */
#pragma once

#include "maps/fragment.h"

/* The first fragment of a datagram, whose ports are known: keep them. The key takes the place of
 * the flow for a moment, since the stack is short.
 */
static __always_inline void fragment_keep(struct conntrack_key *flow, __u32 identification,
					  __u8 icmp_type)
{
	struct fragment_value value = {
		.source_port = flow->source_port,
		.destination_port = flow->destination_port,
		.icmp_type = icmp_type,
	};

	flow->source_port = identification;
	flow->destination_port = identification >> 16;
	bpf_map_update_elem(&ist_fragments, flow, &value, BPF_ANY);
	flow->source_port = value.source_port;
	flow->destination_port = value.destination_port;
}

/* A later fragment: fill in the ports. False: the first has not come. */
static __always_inline bool fragment_find(struct conntrack_key *flow, __u32 identification,
					  __u8 *icmp_type)
{
	const struct fragment_value *found;

	flow->source_port = identification;
	flow->destination_port = identification >> 16;
	found = bpf_map_lookup_elem(&ist_fragments, flow);
	if (!found)
		return false;
	flow->source_port = found->source_port;
	flow->destination_port = found->destination_port;
	*icmp_type = found->icmp_type;
	return true;
}
