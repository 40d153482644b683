/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ingress of ist_vxlan: what other nodes send to this node's pods, and to itself. */
#include "lib/act.h"
#include "lib/deliver.h"
#include "lib/endpoint.h"
#include "lib/ipcache.h"
#include "lib/trace.h"

/* Nodes of Cilium that are of both families tell its two halves apart. */
static __always_inline bool is_world(__u32 identity)
{
	return identity == IDENTITY_WORLD || identity == IDENTITY_WORLD_IP4 ||
	       identity == IDENTITY_WORLD_IP6;
}

/* Whose the packet is, when its node claims `claimed`, and its address is known as `known`'s. 0:
 * the two do not agree.
 */
static __always_inline __u32 agreed_identity(__u32 claimed, __u32 known)
{
	if (claimed == known)
		return known;
	/* What a sender calls by the common name may have one of this node's own. */
	if (claimed == IDENTITY_REMOTE_NODE)
		return known == IDENTITY_KUBE_APISERVER || known >= IDENTITY_REMOTE_NODE_SCOPE
			       ? known
			       : 0;
	if (!is_world(claimed))
		return 0;
	if (known >= IDENTITY_LOCAL_FIRST && known < IDENTITY_REMOTE_NODE_SCOPE)
		return known;
	return known == IDENTITY_WORLD ? known : 0;
}

/* With policy, what the tunnel says must be what the cluster of the address says. */
static __always_inline struct verdict check_claim(struct packet *packet, __u32 claimed)
{
	const struct ipcache_value *source = ipcache_find(&packet->flow.source);
	__u32 known = source ? source->identity : IDENTITY_WORLD;

	/* Nobody has told whose the address is; policy does not take it for the world's. */
	if (known == IDENTITY_UNKNOWN || (!source && !is_world(claimed))) {
		packet->source_identity = IDENTITY_UNKNOWN;
		return VERDICT(VERDICT_NONE);
	}
	packet->source_identity = agreed_identity(claimed, known);
	if (!packet->source_identity)
		return DROP(SOURCE_FROM_OVERLAY, DROP_INVALID_IDENTITY);
	return VERDICT(VERDICT_NONE);
}

/* The sender's identity as its node claims it. */
static __always_inline struct verdict claimed_identity(struct __sk_buff *skb, struct packet *packet)
{
	struct bpf_tunnel_key key = {};
	const struct ipcache_value *source;

	if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0))
		return DROP(SOURCE_FROM_OVERLAY, DROP_NO_TUNNEL_KEY);
	packet->source_identity = key.tunnel_id;
	/* Nobody but this node is its own host. */
	if (key.tunnel_id == IDENTITY_UNKNOWN || key.tunnel_id == IDENTITY_HOST)
		return DROP(SOURCE_FROM_OVERLAY, DROP_INVALID_IDENTITY);
	if (config_policy)
		return check_claim(packet, key.tunnel_id);
	if (key.tunnel_id == IDENTITY_REMOTE_NODE) { /* which may be more than just a node */
		source = ipcache_find(&packet->flow.source);
		if (source && source->identity == IDENTITY_KUBE_APISERVER)
			packet->source_identity = IDENTITY_KUBE_APISERVER;
	}
	return VERDICT(VERDICT_NONE);
}

static __always_inline struct verdict decide(struct __sk_buff *skb, struct packet *packet)
{
	struct verdict verdict = parse(skb, packet);
	const struct endpoint_value *endpoint;

	if (verdict.kind != VERDICT_NONE)
		return verdict;
	verdict = claimed_identity(skb, packet);
	if (verdict.kind != VERDICT_NONE)
		return verdict;
	packet->is_encrypted = ipsec_has_decrypted(skb);
	trace(skb, packet, TRACE_FROM_OVERLAY, skb->ifindex);
	endpoint = endpoint_find(&packet->flow.destination);
	/* Not ours (any more): on no account back into the tunnel. */
	if (!endpoint)
		return DROP(SOURCE_FROM_OVERLAY, DROP_UNROUTABLE_IP);
	if (endpoint->flags & ENDPOINT_HOST) {
		packet->destination_identity = endpoint->identity;
		return deliver_host(skb, packet, now_s());
	}
	verdict = hop(skb, packet);
	if (verdict.kind != VERDICT_NONE)
		return verdict;
	return deliver(skb, packet, endpoint, CONNTRACK_FROM_TUNNEL, now_s());
}

SEC("tc")
int from_overlay(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct verdict verdict = decide(skb, &packet);

	return act(skb, &packet, &verdict, HOOK_OVERLAY);
}

char _license[] SEC("license") = "Dual BSD/GPL";
