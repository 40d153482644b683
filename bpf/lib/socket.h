/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the node's own sockets know of a flow that no program saw begin. */
#pragma once

#include "conntrack.h"

enum { TCP_STATE_LISTEN = 10 };

/* Does a socket of the node take packets of this tuple, and does it listen? */
static __always_inline bool socket_is_there(struct __sk_buff *skb, struct bpf_sock_tuple *tuple,
					    bool is_ip4, bool *listens)
{
	__u32 size = is_ip4 ? sizeof(tuple->ipv4) : sizeof(tuple->ipv6);
	struct bpf_sock *found = bpf_skc_lookup_tcp(skb, tuple, size, BPF_F_CURRENT_NETNS, 0);

	if (!found)
		return false;
	*listens = found->state == TCP_STATE_LISTEN;
	bpf_sk_release(found);
	return true;
}

/* Is the packet of a connection that the node itself has opened? It has, when a socket of its own
 * is in it, and none listens at its port.
 */
static __noinline bool socket_opened_it(struct __sk_buff *skb, const struct packet *packet)
{
	const struct conntrack_key *flow = &packet->flow;
	struct bpf_sock_tuple tuple = {};
	bool listens = false;

	if (flow->protocol != IPPROTO_TCP || packet_opens(packet))
		return false;
	if (packet->is_ip4) {
		tuple.ipv4.saddr = flow->source.words[3];
		tuple.ipv4.daddr = flow->destination.words[3];
		tuple.ipv4.sport = flow->source_port;
		tuple.ipv4.dport = flow->destination_port;
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, flow->source.words, sizeof(tuple.ipv6.saddr));
		__builtin_memcpy(tuple.ipv6.daddr, flow->destination.words,
				 sizeof(tuple.ipv6.daddr));
		tuple.ipv6.sport = flow->source_port;
		tuple.ipv6.dport = flow->destination_port;
	}
	if (!socket_is_there(skb, &tuple, packet->is_ip4, &listens) || listens)
		return false;
	/* No connection has the port zero: only who listens is found now. */
	if (packet->is_ip4)
		tuple.ipv4.sport = 0;
	else
		tuple.ipv6.sport = 0;
	return !socket_is_there(skb, &tuple, packet->is_ip4, &listens);
}
