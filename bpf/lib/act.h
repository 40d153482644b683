/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Carries verdicts out and counts them: the only file that drops, redirects or passes a packet. */
#pragma once

#include <linux/if_packet.h>

#include "abi/marks.h"
#include "icmp_error.h"
#include "ipcache.h"
#include "ipsec.h"
#include "maps/metrics.h"
#include "route.h"
#include "trace.h"

enum hook {
	HOOK_CONTAINER, /* what a pod sends, on the host end of its pair */
	HOOK_OVERLAY,	/* what comes out of the tunnel */
	HOOK_HOST,	/* what the node's stack sends by ist_host */
	HOOK_NETWORK,	/* what leaves the node */
	HOOK_ARRIVAL,	/* what comes from other nodes without a tunnel */
};

static __always_inline void count_forward(struct __sk_buff *skb, __u32 direction)
{
	struct metrics_value *value = bpf_map_lookup_elem(&ist_forwarded, &direction);

	if (value) {
		value->packets++;
		value->bytes += skb->len;
	}
}

/* Not inlined: drops are rare. */
static __noinline int count_drop(struct __sk_buff *skb, __u32 reason_direction, __u32 file,
				 __u32 line)
{
	struct metrics_key key = {
		.reason = reason_direction >> 8,
		.direction = reason_direction,
		.line = line,
		.file = file,
	};
	struct metrics_value *value = bpf_map_lookup_elem(&ist_metrics, &key);

	if (value) {
		value->packets++;
		value->bytes += skb->len;
	} else {
		struct metrics_value first = {.packets = 1, .bytes = skb->len};

		bpf_map_update_elem(&ist_metrics, &key, &first, BPF_ANY);
	}
	return 0;
}

static __always_inline __u32 hook_direction(enum hook hook)
{
	return hook == HOOK_OVERLAY || hook == HOOK_ARRIVAL ? DIRECTION_INGRESS : DIRECTION_EGRESS;
}

static __always_inline int act_drop(struct __sk_buff *skb, const struct packet *packet,
				    const struct verdict *verdict, enum hook hook)
{
	__u32 direction = verdict->direction ? verdict->direction : hook_direction(hook);

	count_drop(skb, verdict->reason << 8 | direction, verdict->file, verdict->line);
	if (config_events)
		event_drop(skb, packet, verdict->reason << 8 | direction, verdict->file,
			   verdict->line);
	return TC_SHOT;
}

/* Drop; and if the sender should know, tell it. */
static __always_inline int act_refuse(struct __sk_buff *skb, const struct packet *packet,
				      const struct verdict *verdict, enum hook hook)
{
	__u32 kind = icmp_kind(verdict->reason, packet->is_ip4);

	act_drop(skb, packet, verdict, hook);
	/* No errors about errors, and none to other nodes' pods. */
	if (!kind || packet->kind == PACKET_ICMP_ERROR || packet->is_later ||
	    hook == HOOK_OVERLAY || hook == HOOK_ARRIVAL || icmp_error(skb, kind, packet->is_ip4))
		return TC_SHOT;
	return bpf_redirect(skb->ifindex, hook == HOOK_HOST ? BPF_F_INGRESS : 0);
}

static __always_inline int act_deliver(struct __sk_buff *skb, const struct packet *packet,
				       const struct verdict *verdict, enum hook hook)
{
	struct ethhdr *ethernet = packet_at(skb, 0, sizeof(*ethernet));

	if (!ethernet) {
		struct verdict failed = DROP(SOURCE_ACT, DROP_MALFORMED);

		return act_drop(skb, packet, &failed, hook);
	}
	__builtin_memcpy(ethernet->h_dest, &verdict->endpoint->mac, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, &verdict->endpoint->node_mac, ETH_ALEN);
	count_forward(skb, DIRECTION_INGRESS);
	trace(skb, packet, TRACE_TO_ENDPOINT, verdict->endpoint->ifindex);
	/* What IPsec has decrypted sheds the signs of it, which the pod's stack would ask about,
	 * only on the way through the host end.
	 */
	if (hook == HOOK_HOST || !config_redirect_peer || (hook == HOOK_ARRIVAL && config_ipsec))
		return bpf_redirect(verdict->endpoint->ifindex, 0);
	/* The tunnel's frames are addressed to nobody here; the pod's stack must not mind. */
	if (skb->pkt_type != PACKET_HOST)
		bpf_skb_change_type(skb, PACKET_HOST);
	return bpf_redirect_peer(verdict->endpoint->ifindex, 0);
}

/* Not inlined: the callers' stacks are full. */
static __noinline int tunnel_to(struct __sk_buff *skb, __u32 identity, __be32 remote)
{
	struct bpf_tunnel_key key = {
		.tunnel_id = identity,
		.remote_ipv4 = bpf_ntohl(remote),
		.tunnel_ttl = 64,
	};

	return bpf_skb_set_tunnel_key(skb, &key, sizeof(key), BPF_F_ZERO_CSUM_TX);
}

static __always_inline int act_tunnel(struct __sk_buff *skb, struct packet *packet,
				      const struct verdict *verdict, enum hook hook)
{
	__u32 mark = config_ipsec ? ipsec_mark_out(verdict->remote) : IPSEC_PLAIN;

	/* What IPsec does not encrypt is WireGuard's, if there is one: while a mesh changes over.
	 */
	if (config_wireguard_ifindex && mark == IPSEC_NO_NODE)
		mark = IPSEC_PLAIN;
	if (mark == IPSEC_NO_NODE) {
		struct verdict failed = DROP(SOURCE_ENCRYPT, DROP_NO_NODE_ID);

		return act_drop(skb, packet, &failed, hook);
	}
	if (config_ipsec && !config_wireguard_ifindex && config_strict && mark == IPSEC_PLAIN) {
		struct verdict failed = DROP(SOURCE_ENCRYPT, DROP_UNENCRYPTED);

		return act_drop(skb, packet, &failed, hook);
	}
	if (tunnel_to(skb, verdict->identity, verdict->remote)) {
		struct verdict failed = DROP(SOURCE_ACT, DROP_WRITE_FAILED);

		return act_drop(skb, packet, &failed, hook);
	}
	count_forward(skb, DIRECTION_EGRESS);
	packet->is_encrypted = mark || config_wireguard_ifindex;
	trace(skb, packet, TRACE_TO_OVERLAY, config_vxlan_ifindex);
	/* Stays on the packet through the tunnel device, to be known where it leaves the node. */
	if (!mark)
		mark = MARK_MAGIC_OVERLAY | verdict->identity << 16 |
		       (verdict->identity >> 16 & 0xFF);
	skb->mark = mark;
	return bpf_redirect(config_vxlan_ifindex, 0);
}

static __always_inline int act_route(struct __sk_buff *skb, const struct packet *packet,
				     const struct verdict *verdict, enum hook hook)
{
	__u32 ifindex = route_out(skb, packet);

	if (!ifindex) {
		struct verdict failed = DROP(SOURCE_ROUTE, DROP_FIB_LOOKUP_FAILED);

		return act_drop(skb, packet, &failed, hook);
	}
	count_forward(skb, DIRECTION_EGRESS);
	trace(skb, packet, TRACE_TO_NETWORK, ifindex);
	return TC_REDIRECT;
}

/* Back into the node's stack, whose IPsec encrypts what carries the mark. */
static __always_inline int act_encrypt(struct __sk_buff *skb, const struct packet *packet,
				       const struct verdict *verdict, enum hook hook)
{
	struct ethhdr *ethernet = packet_at(skb, 0, sizeof(*ethernet));

	if (!ethernet) {
		struct verdict failed = DROP(SOURCE_ACT, DROP_MALFORMED);

		return act_drop(skb, packet, &failed, hook);
	}
#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++) /* a copy of the whole would be of today's zeroes */
		ethernet->h_dest[i] = config_host_mac.bytes[i];
	skb->mark = verdict->mark;
	return bpf_redirect(config_host_ifindex, BPF_F_INGRESS);
}

static __always_inline int act(struct __sk_buff *skb, struct packet *packet,
			       const struct verdict *verdict, enum hook hook)
{
	switch (verdict->kind) {
	case VERDICT_DELIVER:
		return act_deliver(skb, packet, verdict, hook);
	case VERDICT_TUNNEL:
		return act_tunnel(skb, packet, verdict, hook);
	case VERDICT_STACK:
		/* Counted where it set out, or not ours at all; other programs may follow. */
		if (hook == HOOK_NETWORK || hook == HOOK_ARRIVAL)
			return TC_NEXT;
		count_forward(skb, hook_direction(hook));
		trace(skb, packet,
		      packet->destination_identity == IDENTITY_HOST ? TRACE_TO_HOST
								    : TRACE_TO_STACK,
		      skb->ifindex);
		if (hook == HOOK_OVERLAY)
			bpf_skb_change_type(skb, PACKET_HOST);
		/* Should the stack send it on in the node's name, it is a pod's all the same. */
		if (config_host_policy && hook == HOOK_CONTAINER)
			skb->mark = MARK_MAGIC_IDENTITY | packet->source_identity << 16 |
				    (packet->source_identity >> 16 & 0xFF);
		return TC_OK;
	case VERDICT_REINJECT:
		count_forward(skb, hook_direction(hook));
		trace(skb, packet, TRACE_TO_STACK, config_host_ifindex);
		return bpf_redirect(config_host_ifindex, BPF_F_INGRESS);
	case VERDICT_ENCRYPT:
		return verdict->ifindex ? bpf_redirect(verdict->ifindex, 0)
					: act_encrypt(skb, packet, verdict, hook);
	case VERDICT_ROUTE:
		return act_route(skb, packet, verdict, hook);
	case VERDICT_TURN_BACK:
		count_forward(skb, hook_direction(hook));
		return bpf_redirect(skb->ifindex, 0);
	default:
		return act_refuse(skb, packet, verdict, hook);
	}
}
