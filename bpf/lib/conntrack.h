/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Flows: found, created, kept alive, closed. */
#pragma once

#include "config.h"
#include "maps/conntrack.h"
#include "parse.h"

enum conntrack_timeout_s {
	TIMEOUT_TCP_S = 8000,
	TIMEOUT_TCP_SYN_S = 60,
	TIMEOUT_TCP_CLOSING_S = 10,
	TIMEOUT_SERVICE_CLOSING_S = 60,
	TIMEOUT_ANY_S = 60,
};

enum conntrack_state {
	CONNTRACK_NEW = 0,
	CONNTRACK_ESTABLISHED,
	CONNTRACK_REPLY,
};

static __always_inline __u32 now_s(void)
{
	return bpf_ktime_get_coarse_ns() / 1000000000ULL;
}

/* A SYN that is no answer: the beginning of a connection. */
static __always_inline bool packet_opens(const struct packet *packet)
{
	return packet->flow.protocol == IPPROTO_TCP &&
	       (packet->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

static __always_inline struct conntrack_value *conntrack_find(const struct conntrack_key *key,
							      __u32 now)
{
	struct conntrack_value *entry = bpf_map_lookup_elem(&ist_ct, key);

	return entry && entry->expires_s >= now ? entry : NULL;
}

/* The entry of a flow that the packet itself goes along with. NULL also when it closes and the
 * packet opens another connection between the same ports.
 */
static __always_inline struct conntrack_value *
conntrack_find_forward(struct packet *packet, enum conntrack_scope scope, __u32 now)
{
	struct conntrack_value *entry;

	packet->flow.scope = scope;
	entry = conntrack_find(&packet->flow, now);
	if (entry && packet_opens(packet) &&
	    entry->flags & (CONNTRACK_RX_CLOSING | CONNTRACK_TX_CLOSING))
		return NULL;
	return entry;
}

static __always_inline void conntrack_reverse(struct conntrack_key *reverse,
					      const struct conntrack_key *flow,
					      enum conntrack_scope scope)
{
	__builtin_memset(reverse, 0, sizeof(*reverse));
	reverse->source = flow->destination;
	reverse->destination = flow->source;
	reverse->source_port = flow->destination_port;
	reverse->destination_port = flow->source_port;
	reverse->protocol = flow->protocol;
	reverse->scope = scope;
}

/* The same, in place. */
static __always_inline void conntrack_turn(struct conntrack_key *flow, enum conntrack_scope scope)
{
	__be16 port = flow->source_port;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		__be32 word = flow->source.words[i];

		flow->source.words[i] = flow->destination.words[i];
		flow->destination.words[i] = word;
	}
	flow->source_port = flow->destination_port;
	flow->destination_port = port;
	flow->scope = scope;
}

/* The entry of a flow that the packet answers. */
static __always_inline struct conntrack_value *
conntrack_find_reply(const struct packet *packet, enum conntrack_scope scope, __u32 now)
{
	struct conntrack_key reverse;

	if (packet_opens(packet))
		return NULL;
	conntrack_reverse(&reverse, &packet->flow, scope);
	return conntrack_find(&reverse, now);
}

static __always_inline __u32 conntrack_timeout_s(const struct conntrack_value *entry,
						 const struct packet *packet, bool is_service)
{
	__u16 closing = entry->flags & (CONNTRACK_RX_CLOSING | CONNTRACK_TX_CLOSING);

	if (packet->flow.protocol != IPPROTO_TCP)
		return TIMEOUT_ANY_S;
	/* Replies never pass a service's entry: one side is all it sees. */
	if (is_service && closing)
		return TIMEOUT_SERVICE_CLOSING_S;
	if (closing == (CONNTRACK_RX_CLOSING | CONNTRACK_TX_CLOSING))
		return TIMEOUT_TCP_CLOSING_S;
	return entry->flags & CONNTRACK_SEEN_NON_SYN ? TIMEOUT_TCP_S : TIMEOUT_TCP_SYN_S;
}

/* What user space is told of the packet. Before the entry learns of the packet's flags. */
static __always_inline void conntrack_trace(struct conntrack_value *entry, struct packet *packet,
					    bool is_reply, __u32 now)
{
	__u8 flags = packet->flow.protocol == IPPROTO_TCP ? packet->tcp_flags : 0;
	__u8 seen = is_reply ? entry->rx_tcp_flags : entry->tx_tcp_flags;
	__u16 *told_s = is_reply ? &entry->rx_told_s : &entry->tx_told_s;

	packet->trace = is_reply ? PACKET_TRACE_REPLY : PACKET_TRACE_ESTABLISHED;
	if (config_trace < TRACE_CHANGES)
		return;
	packet->is_told = !(flags & ~seen & config_trace_flags) &&
			  (__u16)(now - *told_s) < config_trace_interval_s;
	if (!packet->is_told)
		*told_s = now;
}

/* Count the packet, and move the end of the entry's life. Two CPUs may lose a count to one another;
 * an atomic operation would cost every packet more than that is worth.
 */
static __always_inline void conntrack_touch(struct conntrack_value *entry, struct packet *packet,
					    bool is_reply, bool is_service, __u32 now)
{
	__u32 expires;

	if (config_trace && !is_service)
		conntrack_trace(entry, packet, is_reply, now);
	if (packet->flow.protocol == IPPROTO_TCP) {
		__u8 seen = packet->tcp_flags;
		__u16 flags = entry->flags;

		if (is_reply && (entry->rx_tcp_flags | seen) != entry->rx_tcp_flags)
			entry->rx_tcp_flags |= seen;
		if (!is_reply && (entry->tx_tcp_flags | seen) != entry->tx_tcp_flags)
			entry->tx_tcp_flags |= seen;
		if (!(seen & TCP_SYN))
			flags |= CONNTRACK_SEEN_NON_SYN;
		if (seen & (TCP_FIN | TCP_RST))
			flags |= is_reply ? CONNTRACK_RX_CLOSING : CONNTRACK_TX_CLOSING;
		/* Refused: there is no other side left to close. */
		if (seen & TCP_RST && !(entry->tx_tcp_flags & entry->rx_tcp_flags & TCP_SYN))
			flags |= CONNTRACK_RX_CLOSING | CONNTRACK_TX_CLOSING;
		if (flags != entry->flags)
			entry->flags = flags;
	}
	expires = now + conntrack_timeout_s(entry, packet, is_service);
	if (entry->expires_s != expires) /* a write takes the line away from other CPUs */
		entry->expires_s = expires;
	entry->packets++;
	entry->bytes += packet->length;
}

/* Is the flow of a packet that goes along with it allowed? An entry that is not stays: without it
 * the next reply would open a flow of its own, and the packet's successors would be replies of
 * that.
 */
static __always_inline void conntrack_allow(struct conntrack_value *entry, bool allowed)
{
	__u16 flags = allowed ? entry->flags & ~CONNTRACK_CUT : entry->flags | CONNTRACK_CUT;

	if (entry->flags != flags)
		entry->flags = flags;
}

static __always_inline bool conntrack_is_cut(const struct conntrack_value *entry)
{
	return entry->flags & CONNTRACK_CUT;
}

/* Create the entry of the packet's flow in `value`'s likeness. Negative when there is no room. */
static __always_inline long conntrack_create(struct packet *packet, enum conntrack_scope scope,
					     struct conntrack_value *value, __u32 now)
{
	packet->flow.scope = scope;
	conntrack_touch(value, packet, false, scope == CONNTRACK_SERVICE, now);
	if (config_trace && scope != CONNTRACK_SERVICE) {
		packet->trace = PACKET_TRACE_NEW;
		packet->is_told = 0;
		value->tx_told_s = now;
		value->rx_told_s = now - config_trace_interval_s;
	}
	return bpf_map_update_elem(&ist_ct, &packet->flow, value, BPF_ANY);
}
