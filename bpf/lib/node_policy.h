/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the node itself exchanges by the devices that lead to other nodes. Packets of the mesh's
 * tunnels are not its own: what is in them is judged.
 */
#pragma once

#include "abi/marks.h"
#include "encrypt.h"
#include "forward.h"

static __always_inline bool is_own_address(const struct address *address)
{
	const struct endpoint_value *endpoint = endpoint_find(address);

	return endpoint && endpoint->flags & ENDPOINT_HOST;
}

/* Another node's tunnel, or what it encrypts. */
static __always_inline bool is_between_nodes(const struct packet *packet, __u32 peer)
{
	const struct conntrack_key *flow = &packet->flow;

	if (!identity_is_node(peer))
		return false;
	if (flow->protocol == IPPROTO_ESP)
		return true;
	return flow->protocol == IPPROTO_UDP &&
	       (flow->destination_port == bpf_htons(config_tunnel_port) ||
		flow->destination_port == bpf_htons(config_wireguard_port) ||
		flow->destination_port == bpf_htons(config_wireguard_port + 1));
}

/* To the stack: the node may receive it, or is not meant. */
static __always_inline struct verdict node_receive(struct __sk_buff *skb, struct packet *packet)
{
	struct verdict parsed = parse(skb, packet);

	if (!is_own_address(&packet->flow.destination))
		return VERDICT(VERDICT_STACK);
	packet->source_identity = ipcache_identity(&packet->flow.source);
	/* Nobody but this node is its own host. */
	if (packet->source_identity == IDENTITY_HOST)
		packet->source_identity = IDENTITY_WORLD;
	if (is_between_nodes(packet, packet->source_identity))
		return VERDICT(VERDICT_STACK);
	if (parsed.kind != VERDICT_NONE)
		return deliver_unreadable(skb, packet, parsed);
	return deliver_host(skb, packet, now_s());
}

/* None: the node may send it, or has not. */
static __always_inline struct verdict node_send(struct __sk_buff *skb, struct packet *packet)
{
	__u32 magic = skb->mark & MARK_MAGIC_MASK;
	struct translation to = {};
	struct verdict parsed;
	__u32 now;

	if (skb->mark == MARK_WIREGUARD || magic == MARK_MAGIC_OVERLAY ||
	    magic == MARK_MAGIC_ENCRYPT)
		return VERDICT(VERDICT_NONE);
	parsed = parse(skb, packet);
	if (packet->is_link_only || !is_own_address(&packet->flow.source))
		return VERDICT(VERDICT_NONE);
	packet->source_identity = IDENTITY_HOST;
	packet->destination_identity = ipcache_identity(&packet->flow.destination);
	if (is_between_nodes(packet, packet->destination_identity))
		return VERDICT(VERDICT_NONE);
	if (parsed.kind != VERDICT_NONE) {
		packet->kind = PACKET_NO_PORTS;
		if (policy_egress(skb, packet, false).kind != VERDICT_NONE)
			return parsed;
		return VERDICT(VERDICT_NONE);
	}
	now = now_s();
	/* A pod's, which the stack sends in the node's name, was judged when the pod sent it. */
	if (packet->kind == PACKET_FLOW)
		return forward_track(skb, packet, magic != MARK_MAGIC_IDENTITY, &to, now);
	if (magic == MARK_MAGIC_IDENTITY)
		return VERDICT(VERDICT_NONE);
	if (packet->kind == PACKET_ICMP_ERROR &&
	    (related_is_needed(skb, packet) || related_is_known(skb, packet, now)))
		return VERDICT(VERDICT_NONE);
	return policy_egress(skb, packet, false);
}
