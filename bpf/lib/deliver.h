/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The last step to a pod of this node, or to the node itself. */
#pragma once

#include "policy.h"
#include "related.h"
#include "socket.h"
#include "trace.h"

/* A reply of a service's backend gets the service's address back. */
static __always_inline struct verdict
reply_from_service(struct __sk_buff *skb, struct packet *packet, struct conntrack_value *entry)
{
	const struct revnat_value *service;

	service = entry->revnat_id ? revnat_find(entry->revnat_id) : NULL;
	if (!service)
		return VERDICT(VERDICT_NONE);
	if (config_trace && !(entry->flags & CONNTRACK_ANSWERED)) {
		entry->flags |= CONNTRACK_ANSWERED;
		event_answer(skb, packet, service);
	}
	return nat_rewrite(skb, packet, NAT_SOURCE,
			   (struct nat_end){&packet->flow.source, packet->flow.source_port},
			   (struct nat_end){&service->address, service->port});
}

/* One router further. */
static __always_inline struct verdict hop(struct __sk_buff *skb, const struct packet *packet)
{
	if (packet->is_ip4) {
		struct iphdr *ip = packet_at(skb, L3_OFFSET, sizeof(*ip));
		__u32 sum;

		if (!ip)
			return DROP(SOURCE_DELIVER, DROP_MALFORMED);
		if (ip->ttl <= 1)
			return DROP(SOURCE_DELIVER, DROP_TTL_EXCEEDED);
		ip->ttl--;
		sum = ip->check + bpf_htons(0x0100);
		ip->check = sum + (sum >> 16);
	} else {
		struct ipv6hdr *ip = packet_at(skb, L3_OFFSET, sizeof(*ip));

		if (!ip)
			return DROP(SOURCE_DELIVER, DROP_MALFORMED);
		if (ip->hop_limit <= 1)
			return DROP(SOURCE_DELIVER, DROP_TTL_EXCEEDED);
		ip->hop_limit--;
	}
	return VERDICT(VERDICT_NONE);
}

/* An ICMP error for a pod of ours: of a flow it takes part in, or judged like any packet. */
static __always_inline struct verdict policy_related_ingress(struct __sk_buff *skb,
							     const struct packet *packet, __u32 now)
{
	if (!config_policy || related_is_needed(skb, packet) || related_is_known(skb, packet, now))
		return VERDICT(VERDICT_NONE);
	return policy_ingress(skb, packet, false);
}

static __always_inline struct verdict deliver_verdict(const struct endpoint_value *endpoint)
{
	return (struct verdict){.kind = VERDICT_DELIVER, .endpoint = endpoint};
}

/* What is no reply: judged, and its flow kept. `entry`: the flow's, if there is one. */
static __always_inline struct verdict admit(struct __sk_buff *skb, struct packet *packet,
					    struct conntrack_value *entry, __u16 flags, __u32 now)
{
	bool is_known = entry && !conntrack_is_cut(entry);
	struct verdict verdict = policy_ingress(skb, packet, is_known);

	if (entry)
		conntrack_allow(entry, verdict.kind == VERDICT_NONE);
	if (verdict.kind != VERDICT_NONE)
		return verdict;
	if (entry) {
		if (entry->source_identity != packet->source_identity) /* its labels changed */
			entry->source_identity = packet->source_identity;
		conntrack_touch(entry, packet, false, false, now);
	} else {
		struct conntrack_value value = {.source_identity = packet->source_identity,
						.flags = flags};

		if (conntrack_create(packet, CONNTRACK_INGRESS, &value, now))
			return DROP(SOURCE_DELIVER, DROP_CT_INSERT_FAILED);
	}
	return VERDICT(VERDICT_NONE);
}

/* To a pod, from `packet->source_identity`. */
static __always_inline struct verdict deliver(struct __sk_buff *skb, struct packet *packet,
					      const struct endpoint_value *endpoint, __u16 flags,
					      __u32 now)
{
	struct conntrack_value *entry;
	struct verdict verdict;

	packet->destination_endpoint = endpoint->id;
	packet->destination_identity = endpoint->identity;
	if (packet->kind == PACKET_ICMP_ERROR) {
		verdict = policy_related_ingress(skb, packet, now);
		if (verdict.kind == VERDICT_NONE)
			verdict = related_to_client(skb, packet, now);
		return verdict.kind ? verdict : deliver_verdict(endpoint);
	}
	if (packet->kind != PACKET_FLOW) {
		verdict = policy_ingress(skb, packet, false);
		return verdict.kind ? verdict : deliver_verdict(endpoint);
	}
	entry = conntrack_find_forward(packet, CONNTRACK_INGRESS, now);
	if (!entry) {
		entry = conntrack_find_reply(packet, CONNTRACK_EGRESS, now);
		if (entry) {
			verdict = policy_cut(entry, DIRECTION_INGRESS);
			if (verdict.kind != VERDICT_NONE)
				return verdict;
			conntrack_touch(entry, packet, true, false, now);
			verdict = reply_from_service(skb, packet, entry);
			return verdict.kind ? verdict : deliver_verdict(endpoint);
		}
	}
	verdict = admit(skb, packet, entry, flags, now);
	return verdict.kind ? verdict : deliver_verdict(endpoint);
}

/* An answer in a connection that is older than our programs: from now on it is known as one that
 * the node has opened.
 */
static __always_inline struct verdict take_over_answer(struct packet *packet, __u32 now)
{
	struct conntrack_value value = {.source_identity = IDENTITY_HOST};
	long failed;

	conntrack_turn(&packet->flow, CONNTRACK_EGRESS);
	conntrack_touch(&value, packet, true, false, now);
	failed = bpf_map_update_elem(&ist_ct, &packet->flow, &value, BPF_ANY);
	conntrack_turn(&packet->flow, CONNTRACK_INGRESS);
	return failed ? DROP(SOURCE_DELIVER, DROP_CT_INSERT_FAILED) : VERDICT(VERDICT_NONE);
}

/* May the node itself receive this? A drop with its direction, packed. */
static __noinline __u32 admit_to_node(struct __sk_buff *skb, struct packet *packet, __u32 now)
{
	struct conntrack_value *entry;
	struct verdict verdict;

	packet->destination_endpoint = ENDPOINT_NODE;
	packet->destination_identity = IDENTITY_HOST;
	if (packet->kind == PACKET_ICMP_ERROR)
		verdict = policy_related_ingress(skb, packet, now);
	else if (packet->kind != PACKET_FLOW)
		verdict = policy_ingress(skb, packet, false);
	else {
		entry = conntrack_find_forward(packet, CONNTRACK_INGRESS, now);
		if (!entry && socket_opened_it(skb, packet))
			verdict = take_over_answer(packet, now);
		else
			verdict = admit(skb, packet, entry, 0, now);
	}
	return drop_pack(verdict);
}

static __always_inline struct verdict judge_for_node(struct __sk_buff *skb, struct packet *packet,
						     __u32 now)
{
	struct verdict verdict = VERDICT(VERDICT_NONE);

	if (config_host_policy)
		verdict = drop_unpack(admit_to_node(skb, packet, now));
	verdict.direction = DIRECTION_INGRESS;
	return verdict;
}

/* To the node's own stack. */
static __always_inline struct verdict deliver_host(struct __sk_buff *skb, struct packet *packet,
						   __u32 now)
{
	struct conntrack_value *entry;
	struct verdict verdict = VERDICT(VERDICT_NONE);

	if (packet->kind == PACKET_ICMP_ERROR) {
		verdict = judge_for_node(skb, packet, now);
		if (verdict.kind == VERDICT_NONE)
			verdict = related_to_client(skb, packet, now);
	} else {
		entry = conntrack_find_reply(packet, CONNTRACK_EGRESS, now);
		if (entry) {
			verdict = policy_cut(entry, DIRECTION_INGRESS);
			if (verdict.kind != VERDICT_NONE)
				return verdict;
			conntrack_touch(entry, packet, true, false, now);
			verdict = reply_from_service(skb, packet, entry);
		} else {
			verdict = judge_for_node(skb, packet, now);
		}
	}
	return verdict.kind ? verdict : VERDICT(VERDICT_STACK);
}

/* The same for what our programs cannot read to its end. What the node's stack can read is its own
 * matter, unless policy says something of its whole protocol.
 */
static __always_inline struct verdict
deliver_unreadable(struct __sk_buff *skb, struct packet *packet, struct verdict parsed)
{
	struct verdict verdict = VERDICT(VERDICT_NONE);

	packet->kind = PACKET_NO_PORTS;
	packet->destination_endpoint = ENDPOINT_NODE;
	packet->destination_identity = IDENTITY_HOST;
	if (config_host_policy)
		verdict = policy_ingress(skb, packet, false);
	return verdict.kind == VERDICT_NONE ? VERDICT(VERDICT_STACK) : parsed;
}
