/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Tells user space of packets that pass, and of services' addresses that give way to backends'. Of
 * all this nothing is left in a program that is loaded with config_trace off.
 */
#pragma once

#include "abi/service.h"
#include "event.h"

static __always_inline bool trace_is_entry(__u32 point)
{
	return point == TRACE_FROM_ENDPOINT || point == TRACE_FROM_HOST ||
	       point == TRACE_FROM_OVERLAY || point == TRACE_FROM_NETWORK;
}

/* Nobody keeps the flows of the node's own packets: of TCP their beginning and end are told. */
static __always_inline bool trace_is_untracked_middle(const struct packet *packet)
{
	return packet->trace == PACKET_TRACE_UNKNOWN && packet->flow.protocol == IPPROTO_TCP &&
	       !(packet->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST));
}

static __always_inline bool trace_is_wanted(const struct packet *packet, __u32 point)
{
	if (!config_trace || packet->is_link_only)
		return false;
	if (config_trace >= TRACE_OUTCOME && trace_is_entry(point))
		return false;
	return config_trace < TRACE_CHANGES ||
	       !(packet->is_told || trace_is_untracked_middle(packet));
}

static __always_inline __u8 trace_reason(const struct packet *packet)
{
	if (packet->kind == PACKET_ICMP_ERROR)
		return REASON_RELATED;
	return packet->trace == PACKET_TRACE_UNKNOWN ? REASON_UNKNOWN : packet->trace - 1;
}

/* As the layout has it: an IPv4 address stands in the first four bytes. */
static __always_inline void trace_address(__u8 *to, const struct address *address, bool is_ip4)
{
	__builtin_memset(to, 0, sizeof(*address));
	if (is_ip4)
		__builtin_memcpy(to, &address->words[3], sizeof(__be32));
	else
		__builtin_memcpy(to, address, sizeof(*address));
}

/* Not static: the verifier walks it once. */
__noinline int event_trace(struct __sk_buff *skb, const struct packet *packet, __u32 point,
			   __u32 ifindex)
{
	struct trace_record *record;

	if (!packet)
		return 0;
	record = bpf_ringbuf_reserve(&ist_events, sizeof(*record), 0);
	if (!record) {
		count_lost(EVENT_TRACE);
		return 0;
	}
	event_header(&record->event.header, skb, EVENT_TRACE, point,
		     point == TRACE_TO_ENDPOINT ? packet->destination_endpoint
						: packet->source_endpoint);
	record->event.source_identity = packet->source_identity;
	record->event.destination_identity = packet->destination_identity;
	record->event.destination_endpoint = packet->destination_endpoint;
	record->event.reason = trace_is_entry(point) ? REASON_UNKNOWN : trace_reason(packet);
	if (packet->is_encrypted)
		record->event.reason |= REASON_ENCRYPTED;
	record->event.flags = packet->is_ip4 ? 0 : TRACE_IP6;
	record->event.ifindex = ifindex;
	/* A pod that reached itself by a service is its own client; of an answer the packet has the
	 * service's address and `flow` the backend's.
	 */
	if (address_is_loopback(&packet->flow.source, packet->is_ip4))
		trace_address(record->event.original, &packet->flow.destination, packet->is_ip4);
	else
		trace_address(record->event.original, &packet->flow.source, packet->is_ip4);
	record->event.header.capture = event_capture(skb, record->capture);
	record->time_ns = bpf_ktime_get_ns();
	bpf_ringbuf_submit(record, 0);
	return 0;
}

static __always_inline void trace(struct __sk_buff *skb, const struct packet *packet, __u32 point,
				  __u32 ifindex)
{
	if (trace_is_wanted(packet, point))
		event_trace(skb, packet, point, ifindex);
}

/* A client and whom it speaks with. */
struct translation_ends {
	const struct address *client;
	const struct address *server;
	__be16 client_port;
	__be16 server_port;
	__u32 point;
};

static __always_inline void translation_tell(struct __sk_buff *skb, const struct packet *packet,
					     struct translation_ends ends, __u16 endpoint,
					     __u32 identity)
{
	struct translation_record *record;

	record = bpf_ringbuf_reserve(&ist_events, sizeof(*record), 0);
	if (!record) {
		count_lost(EVENT_TRANSLATION);
		return;
	}
	record->event.type = EVENT_TRANSLATION;
	record->event.point = ends.point;
	trace_address(record->event.destination, ends.server, packet->is_ip4);
	record->event.destination_port = bpf_ntohs(ends.server_port);
	record->event.cookie = bpf_get_socket_cookie(skb);
	record->event.cgroup = 0;
	record->event.protocol = packet->flow.protocol == IPPROTO_TCP	? 1
				 : packet->flow.protocol == IPPROTO_UDP ? 2
									: 0;
	record->event.flags = packet->is_ip4 ? 0 : TRACE_IP6;
	trace_address(record->event.source, ends.client, packet->is_ip4);
	record->event.source_port = bpf_ntohs(ends.client_port);
	record->event.endpoint = endpoint;
	record->event.source_identity = identity;
	record->time_ns = bpf_ktime_get_ns();
	bpf_ringbuf_submit(record, 0);
}

/* Where the packet is going by `flow`: to the service's address before, to the backend's after. */
__noinline int event_translation(struct __sk_buff *skb, const struct packet *packet,
				 const struct conntrack_key *flow, __u32 point)
{
	if (!packet || !flow)
		return 0;
	translation_tell(skb, packet,
			 (struct translation_ends){&flow->source, &flow->destination,
						   flow->source_port, flow->destination_port,
						   point},
			 packet->source_endpoint, packet->source_identity);
	return 0;
}

/* A backend's answer, which its client is to take for the service's. */
__noinline int event_answer(struct __sk_buff *skb, const struct packet *packet,
			    const struct revnat_value *service)
{
	if (!packet || !service)
		return 0;
	translation_tell(skb, packet,
			 (struct translation_ends){&packet->flow.destination, &packet->flow.source,
						   packet->flow.destination_port,
						   packet->flow.source_port,
						   TRANSLATION_ANSWER_BEFORE},
			 packet->destination_endpoint, packet->destination_identity);
	translation_tell(skb, packet,
			 (struct translation_ends){&packet->flow.destination, &service->address,
						   packet->flow.destination_port, service->port,
						   TRANSLATION_ANSWER_AFTER},
			 packet->destination_endpoint, packet->destination_identity);
	return 0;
}
