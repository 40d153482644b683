/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What policy says of a packet: asked for every packet of a flow in the opener's direction, with
 * addresses as they are after translation. Replies, and ICMP errors of known flows, are not asked
 * about.
 */
#pragma once

#include "conntrack.h"
#include "event.h"
#include "icmp_wire.h"
#include "ipcache.h"
#include "maps/policy.h"

enum {
	ENDPOINT_NODE = 0, /* the number of the node itself, as an endpoint with a policy */
};

static __always_inline struct policy_value *policy_find(void *rows, struct policy_key *key,
							__u32 identity)
{
	key->identity = identity;
	return bpf_map_lookup_elem(rows, key);
}

/* Denied, and not only on paper. */
static __always_inline bool policy_forbids(const struct policy_value *row)
{
	return (row->flags & (POLICY_DENY | POLICY_AUDIT)) == POLICY_DENY;
}

/* A row that forbids comes before any other, then one that would, then the one that says more of
 * protocol and port.
 */
static __always_inline __u32 policy_rank(const struct policy_value *row)
{
	return (policy_forbids(row) ? 64 : 0) + (row->flags & POLICY_DENY ? 32 : 0) + row->bits;
}

/* The row that decides; of equals the one that names the identity. */
static __always_inline struct policy_value *policy_choose(struct policy_value *named,
							  struct policy_value *any)
{
	if (!named || !any)
		return named ? named : any;
	return policy_rank(any) > policy_rank(named) ? any : named;
}

static __always_inline __u32 policy_match(const struct policy_value *row, bool named)
{
	if (!row->bits)
		return named ? MATCH_L3_ONLY : MATCH_ALL;
	if (row->bits <= 8)
		return named ? MATCH_L3_PROTOCOL : MATCH_PROTOCOL_ONLY;
	return named ? MATCH_L3_L4 : MATCH_L4_ONLY;
}

static __always_inline void policy_count(struct policy_value *row, const struct packet *packet)
{
	__sync_fetch_and_add(&row->packets, 1);
	__sync_fetch_and_add(&row->bytes, packet->length);
}

static __always_inline __be16 policy_port(const struct packet *packet)
{
	if (packet->flow.protocol == IPPROTO_ICMP || packet->flow.protocol == IPPROTO_ICMPV6)
		return bpf_htons(packet->icmp_type);
	return packet->flow.destination_port;
}

/* Of the node's own traffic, what no policy can forbid: without it the node could not hear of a
 * better one. The API server's addresses; and IPv6's neighbours.
 */
static __always_inline bool policy_spares_node(const struct packet *packet, __u32 egress)
{
	const struct conntrack_key *flow = &packet->flow;
	struct address peer;

	if (packet->kind == PACKET_NO_PORTS)
		return false;
	if (flow->protocol == IPPROTO_ICMPV6)
		return packet->icmp_type >= ICMP6_ROUTER_SOLICITATION &&
		       packet->icmp_type <= ICMP6_REDIRECT;
	if (flow->protocol != IPPROTO_TCP)
		return false;
	if (!egress && flow->destination_port != bpf_htons(config_kubelet_port))
		return false;
	peer = egress ? flow->destination : flow->source; /* Linux 6.1 wants keys on the stack */
	return bpf_map_lookup_elem(&ist_api_servers, &peer);
}

/* What rules of prefixes say of a pod or a node, whom the ipcache calls by his identity. */
static __always_inline struct policy_value *policy_by_address(void *rows, struct policy_key *key,
							      const struct packet *packet,
							      __u32 egress, __u32 identity)
{
	__u32 mode = identity_is_node(identity) ? CIDR_NODES : CIDR_PODS;
	struct ipcache_prefix_key peer = {.prefix_length = 128};
	const __u32 *found;

	if (!(config_cidr_modes & mode) || identity == IDENTITY_UNKNOWN ||
	    identity_is_world(identity) || identity_is_prefix(identity))
		return NULL;
	peer.address = egress ? packet->flow.destination : packet->flow.source;
	found = bpf_map_lookup_elem(&ist_cidr_rules, &peer);
	return found ? policy_find(rows, key, *found) : NULL;
}

static __always_inline __u32 policy_lookup(const struct packet *packet,
					   struct policy_outcome *outcome)
{
	__u32 endpoint = outcome->egress ? packet->source_endpoint : packet->destination_endpoint;
	__u32 identity = outcome->egress ? packet->destination_identity : packet->source_identity;
	struct policy_key key = {
		.prefix_length = POLICY_STATIC_BITS + POLICY_FULL_BITS,
		.egress = outcome->egress,
		.protocol = packet->flow.protocol,
		.port = policy_port(packet),
	};
	struct policy_value *named, *any, *row, *by_address;
	void *rows;

	outcome->port = bpf_ntohs(key.port);
	if (endpoint == ENDPOINT_NODE && policy_spares_node(packet, outcome->egress))
		return 0;
	rows = bpf_map_lookup_elem(&ist_policy, &endpoint);
	/* A node that is shut before it was told anything could not be told anything. */
	if (!rows)
		return endpoint == ENDPOINT_NODE ? 0 : DROP_NO_POLICY_PROGRAM;
	if (packet->kind == PACKET_NO_PORTS)
		key.prefix_length = POLICY_STATIC_BITS + POLICY_PROTOCOL_BITS;
	/* An address of somebody whom nobody has told us about yet is not the world's, and passes
	 * only where nothing is forbidden to anybody.
	 */
	named = policy_find(rows, &key, identity == IDENTITY_UNKNOWN ? ~0U : identity);
	if (identity == IDENTITY_UNKNOWN && !named)
		return outcome->egress ? DROP_UNKNOWN_RECEIVER : DROP_UNKNOWN_SENDER;
	any = policy_find(rows, &key, 0);
	if (config_cidr_modes) {
		by_address = policy_by_address(rows, &key, packet, outcome->egress, identity);
		named = policy_choose(named, by_address);
	}
	row = policy_choose(named, any);
	if (!row)
		return DROP_POLICY_DENIED;
	policy_count(row, packet);
	outcome->rule = row->rule;
	outcome->match = policy_match(row, row == named);
	if (policy_forbids(row))
		return DROP_POLICY_DENY_RULE;
	outcome->audited = !!(row->flags & POLICY_AUDIT);
	return 0;
}

/* That the node itself may do what no rule speaks of is not told for every flow of it. */
static __always_inline bool policy_is_news(const struct packet *packet,
					   const struct policy_outcome *outcome)
{
	__u32 endpoint = outcome->egress ? packet->source_endpoint : packet->destination_endpoint;

	return endpoint != ENDPOINT_NODE || outcome->rule;
}

/* The reason to drop, or 0. Not static: the verifier walks it once and not for each place that
 * asks.
 */
__noinline __u32 policy_reason(struct __sk_buff *skb, const struct packet *packet, __u32 egress,
			       __u32 is_new)
{
	struct policy_outcome outcome = {.egress = egress};

	if (!packet) /* never; the verifier takes no caller's word for it */
		return DROP_MALFORMED;
	outcome.reason = policy_lookup(packet, &outcome);
	if (config_events && (outcome.reason || (is_new && policy_is_news(packet, &outcome))))
		event_policy_verdict(skb, packet, &outcome);
	return outcome.reason;
}

static __always_inline struct verdict policy_drop(__u32 reason, __u32 direction, __u32 line)
{
	return (struct verdict){
		.kind = VERDICT_DROP,
		.reason = reason,
		.file = SOURCE_POLICY,
		.line = line,
		.direction = direction,
	};
}

/* A reply of a flow that is not allowed any more goes the flow's way. */
static __always_inline struct verdict policy_cut(const struct conntrack_value *entry,
						 __u32 direction)
{
	if (!config_policy || !conntrack_is_cut(entry))
		return VERDICT(VERDICT_NONE);
	return policy_drop(DROP_POLICY_DENIED, direction, __LINE__);
}

/* May the sender, a pod of ours, send this? `is_known`: it is of a flow that was allowed once. */
static __always_inline struct verdict policy_egress(struct __sk_buff *skb,
						    const struct packet *packet, bool is_known)
{
	__u32 reason;

	if (!config_policy || (is_known && config_policy_keeps_flows))
		return VERDICT(VERDICT_NONE);
	reason = policy_reason(skb, packet, 1, !is_known);
	return reason ? policy_drop(reason, DIRECTION_EGRESS, __LINE__) : VERDICT(VERDICT_NONE);
}

/* May the receiver, a pod of ours, receive this? */
static __always_inline struct verdict policy_ingress(struct __sk_buff *skb,
						     const struct packet *packet, bool is_known)
{
	__u32 reason;

	if (!config_policy || (is_known && config_policy_keeps_flows))
		return VERDICT(VERDICT_NONE);
	reason = policy_reason(skb, packet, 0, !is_known);
	return reason ? policy_drop(reason, DIRECTION_INGRESS, __LINE__) : VERDICT(VERDICT_NONE);
}
