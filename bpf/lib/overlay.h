/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What other nodes send through the tunnel, once the tunnel's headers are off: for this node's
 * pods, and for itself. Its node says whose the packet is.
 */
#pragma once

#include "deliver.h"
#include "endpoint.h"
#include "ipcache.h"
#include "ipsec.h"
#include "trace.h"

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
	if (!identity_is_world(claimed))
		return 0;
	return identity_is_prefix(known) || known == IDENTITY_WORLD ? known : 0;
}

/* With policy, what the tunnel says must be what the cluster of the address says. */
static __always_inline struct verdict check_claim(struct packet *packet, __u32 claimed)
{
	const struct ipcache_value *source = ipcache_find(&packet->flow.source);
	__u32 known = source ? source->identity : IDENTITY_WORLD;

	/* Nobody has told whose the address is; policy does not take it for the world's. */
	if (known == IDENTITY_UNKNOWN || (!source && !identity_is_world(claimed))) {
		packet->source_identity = IDENTITY_UNKNOWN;
		return VERDICT(VERDICT_NONE);
	}
	packet->source_identity = agreed_identity(claimed, known);
	if (!packet->source_identity)
		return DROP(SOURCE_FROM_OVERLAY, DROP_INVALID_IDENTITY);
	return VERDICT(VERDICT_NONE);
}

static __always_inline struct verdict claimed_identity(struct packet *packet, __u32 claimed)
{
	const struct ipcache_value *source;

	packet->source_identity = claimed;
	/* Nobody but this node is its own host. */
	if (claimed == IDENTITY_UNKNOWN || claimed == IDENTITY_HOST)
		return DROP(SOURCE_FROM_OVERLAY, DROP_INVALID_IDENTITY);
	if (config_policy)
		return check_claim(packet, claimed);
	if (claimed == IDENTITY_REMOTE_NODE) { /* which may be more than just a node */
		source = ipcache_find(&packet->flow.source);
		if (source && source->identity == IDENTITY_KUBE_APISERVER)
			packet->source_identity = IDENTITY_KUBE_APISERVER;
	}
	return VERDICT(VERDICT_NONE);
}

/* The tunnel device's word for whose the packet is. */
static __always_inline struct verdict overlay_claim(struct __sk_buff *skb, __u32 *claimed)
{
	struct bpf_tunnel_key key = {};

	if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0))
		return DROP(SOURCE_FROM_OVERLAY, DROP_NO_TUNNEL_KEY);
	*claimed = key.tunnel_id;
	return VERDICT(VERDICT_NONE);
}

/* A packet that parse() has read. `claimed`: the sender's identity as its node has it. */
static __always_inline struct verdict overlay_receive(struct __sk_buff *skb, struct packet *packet,
						      __u32 claimed, bool is_encrypted)
{
	struct verdict verdict = claimed_identity(packet, claimed);
	const struct endpoint_value *endpoint;

	if (verdict.kind != VERDICT_NONE)
		return verdict;
	packet->is_encrypted = is_encrypted || was_decrypted(skb);
	trace(skb, packet, TRACE_FROM_OVERLAY, config_vxlan_ifindex);
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
