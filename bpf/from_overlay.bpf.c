/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ingress of ist_vxlan: what other nodes send to this node's pods, and to itself. */
#include "lib/act.h"
#include "lib/deliver.h"
#include "lib/endpoint.h"
#include "lib/ipcache.h"

/* The sender's identity as its node claims it. */
static __always_inline struct verdict claimed_identity(struct __sk_buff *skb,
						       const struct packet *packet, __u32 *identity)
{
	struct bpf_tunnel_key key = {};
	const struct ipcache_value *source;

	if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0))
		return DROP(SOURCE_FROM_OVERLAY, DROP_NO_TUNNEL_KEY);
	*identity = key.tunnel_id;
	/* Nobody but this node is its own host. */
	if (*identity == IDENTITY_UNKNOWN || *identity == IDENTITY_HOST)
		return DROP(SOURCE_FROM_OVERLAY, DROP_INVALID_IDENTITY);
	if (*identity == IDENTITY_REMOTE_NODE) { /* which may be more than just a node */
		source = ipcache_find(&packet->flow.source);
		if (source && source->identity == IDENTITY_KUBE_APISERVER)
			*identity = IDENTITY_KUBE_APISERVER;
	}
	return VERDICT(VERDICT_NONE);
}

static __always_inline struct verdict decide(struct __sk_buff *skb, struct packet *packet)
{
	struct verdict verdict = parse(skb, packet);
	const struct endpoint_value *endpoint;
	__u32 identity = 0;

	if (verdict.kind != VERDICT_NONE)
		return verdict;
	verdict = claimed_identity(skb, packet, &identity);
	if (verdict.kind != VERDICT_NONE)
		return verdict;
	endpoint = endpoint_find(&packet->flow.destination);
	/* Not ours (any more): on no account back into the tunnel. */
	if (!endpoint)
		return DROP(SOURCE_FROM_OVERLAY, DROP_UNROUTABLE_IP);
	if (endpoint->flags & ENDPOINT_HOST)
		return deliver_host(skb, packet, now_s());
	verdict = hop(skb, packet);
	if (verdict.kind != VERDICT_NONE)
		return verdict;
	return deliver(skb, packet, endpoint, identity, CONNTRACK_FROM_TUNNEL, now_s());
}

SEC("tc")
int from_overlay(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct verdict verdict = decide(skb, &packet);

	return act(skb, &packet, &verdict, HOOK_OVERLAY);
}

char _license[] SEC("license") = "Dual BSD/GPL";
