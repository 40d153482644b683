/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* To another node without a tunnel: the routes of this node say by which device and neighbour. Its
 * netfilter is not asked, as it is not for what comes back (from_network).
 */
#pragma once

#include <linux/if_packet.h>

#include "parse.h"

enum {
	FAMILY_IP4 = 2,
	FAMILY_IP6 = 10,
};

/* Have `packet` leave the node by its routes; the device by which it does. 0: there is no way. Not
 * inlined: the callers' stacks are full.
 */
static __noinline __u32 route_out(struct __sk_buff *skb, const struct packet *packet)
{
	struct bpf_fib_lookup way = {.ifindex = skb->ifindex};
	struct bpf_redir_neigh neighbour = {};
	long found;

	if (packet->is_ip4) {
		way.family = FAMILY_IP4;
		way.ipv4_src = packet->flow.source.words[3];
		way.ipv4_dst = packet->flow.destination.words[3];
	} else {
		way.family = FAMILY_IP6;
		__builtin_memcpy(way.ipv6_src, &packet->flow.source, sizeof(way.ipv6_src));
		__builtin_memcpy(way.ipv6_dst, &packet->flow.destination, sizeof(way.ipv6_dst));
	}
	found = bpf_fib_lookup(skb, &way, sizeof(way), 0);
	/* A neighbour that nobody has asked for yet is asked for when the packet goes out. */
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return 0;
	neighbour.nh_family = way.family;
	__builtin_memcpy(neighbour.ipv6_nh, way.ipv6_dst, sizeof(way.ipv6_dst));
	if (bpf_redirect_neigh(way.ifindex, &neighbour, sizeof(neighbour), 0) != TC_REDIRECT)
		return 0;
	return way.ifindex;
}
