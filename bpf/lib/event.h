/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Tells user space what happened to a packet. A message that finds no room is counted. */
#pragma once

#include "config.h"
#include "maps/events.h"
#include "parse.h"

/* In one piece with room for the packet: the ring takes records of a constant size only. */
struct drop_record {
	struct drop_event event;
	__u8 capture[EVENT_CAPTURE_MAX];
	__u64 time_ns;
};

struct trace_record {
	struct trace_event event;
	__u8 capture[EVENT_CAPTURE_MAX];
	__u64 time_ns;
};

struct translation_record {
	struct translation_event event;
	__u64 time_ns;
};

struct policy_verdict_record {
	struct policy_verdict_event event;
	__u8 capture[EVENT_CAPTURE_MAX];
	__u64 time_ns;
};

static __always_inline void count_lost(__u32 type)
{
	__u64 *lost = bpf_map_lookup_elem(&ist_lost, &type);

	if (lost)
		++*lost;
}

static __always_inline void event_header(struct event_header *header, struct __sk_buff *skb,
					 __u32 type, __u32 subtype, __u32 endpoint)
{
	header->type = type;
	header->subtype = subtype;
	header->source = endpoint;
	header->hash = skb->hash;
	header->length = skb->len;
	header->version = EVENT_VERSION;
}

/* How much of the packet stands in `capture`. */
static __always_inline __u32 event_capture(struct __sk_buff *skb, __u8 *capture)
{
	__u32 length = skb->len;

	if (length >= EVENT_CAPTURE_MAX)
		return bpf_skb_load_bytes(skb, 0, capture, EVENT_CAPTURE_MAX) ? 0
									      : EVENT_CAPTURE_MAX;
	/* Written so that 6.1's verifier sees it is not nothing; an empty packet fails the load. */
	length--;
	asm volatile("" : "+r"(length));
	length = (length & (EVENT_CAPTURE_MAX - 1)) + 1;
	if (bpf_skb_load_bytes(skb, 0, capture, length))
		return 0;
	return length;
}

/* Not static: the verifier walks it once. */
__noinline int event_drop(struct __sk_buff *skb, const struct packet *packet,
			  __u32 reason_direction, __u32 file, __u32 line)
{
	bool ingress = (reason_direction & 0xFF) == DIRECTION_INGRESS;
	struct drop_record *record;

	if (!packet)
		return 0;
	record = bpf_ringbuf_reserve(&ist_events, sizeof(*record), 0);
	if (!record) {
		count_lost(EVENT_DROP);
		return 0;
	}
	event_header(&record->event.header, skb, EVENT_DROP, reason_direction >> 8,
		     ingress ? packet->destination_endpoint : packet->source_endpoint);
	record->event.source_identity = packet->source_identity;
	record->event.destination_identity = packet->destination_identity;
	record->event.destination_endpoint = ingress ? packet->destination_endpoint : 0;
	record->event.line = line;
	record->event.file = file;
	record->event.error = 0;
	record->event.ifindex = skb->ifindex;
	record->event.header.capture = event_capture(skb, record->capture);
	record->time_ns = bpf_ktime_get_ns();
	bpf_ringbuf_submit(record, 0);
	return 0;
}

struct policy_outcome {
	__u32 reason; /* 0: passes */
	__u32 rule;
	__u32 egress;
	__u32 match;
	__u32 audited;
	__u32 port; /* host order */
};

static __noinline int event_policy_verdict(struct __sk_buff *skb, const struct packet *packet,
					   const struct policy_outcome *outcome)
{
	struct policy_verdict_record *record = bpf_ringbuf_reserve(&ist_events, sizeof(*record), 0);

	if (!record) {
		count_lost(EVENT_POLICY_VERDICT);
		return 0;
	}
	event_header(&record->event.header, skb, EVENT_POLICY_VERDICT, 0,
		     outcome->egress ? packet->source_endpoint : packet->destination_endpoint);
	record->event.remote_identity =
		outcome->egress ? packet->destination_identity : packet->source_identity;
	record->event.verdict = -(__s32)outcome->reason;
	record->event.port = outcome->port;
	record->event.protocol = packet->flow.protocol;
	record->event.flags = (outcome->egress ? DIRECTION_EGRESS : DIRECTION_INGRESS) |
			      (packet->is_ip4 ? 0 : VERDICT_IP6) |
			      outcome->match << VERDICT_MATCH_SHIFT |
			      (outcome->audited ? VERDICT_AUDITED : 0);
	record->event.auth = 0;
	record->event.rule_high = outcome->rule >> 16;
	record->event.rule = outcome->rule;
	record->event.header.capture = event_capture(skb, record->capture);
	record->time_ns = bpf_ktime_get_ns();
	bpf_ringbuf_submit(record, 0);
	return 0;
}
