/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What other nodes send without a tunnel, for pods of this node and for the node itself. Whose a
 * packet is says its address alone: the cluster of the address has told us.
 */
#pragma once

#include "deliver.h"
#include "endpoint.h"
#include "ipcache.h"
#include "ipsec.h"
#include "trace.h"

/* The addresses of a packet whose IP header begins at `at`. False: it is none of ours to judge. */
static __always_inline bool arrive_addresses(struct __sk_buff *skb, __u32 at,
					     struct address *source, struct address *destination)
{
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = packet_at(skb, at, sizeof(*ip));

		if (!ip)
			return false;
		address_from_ip4(source, ip->saddr);
		address_from_ip4(destination, ip->daddr);
		return true;
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = packet_at(skb, at, sizeof(*ip));

		if (!ip)
			return false;
		__builtin_memcpy(source, &ip->saddr, sizeof(*source));
		__builtin_memcpy(destination, &ip->daddr, sizeof(*destination));
		return true;
	}
	return false;
}

/* Whose packet it is: the receiver here, and the sender behind another node. NULL: it goes on as
 * if there were no program, by the stack, as what is sent there went.
 */
static __always_inline const struct endpoint_value *arrive_find(struct __sk_buff *skb, __u32 at,
								__u32 *identity)
{
	struct address source, destination;
	const struct endpoint_value *endpoint;
	const struct ipcache_value *peer;

	if (!arrive_addresses(skb, at, &source, &destination))
		return NULL;
	endpoint = endpoint_find(&destination);
	if (!endpoint)
		return NULL;
	peer = ipcache_find(&source);
	if (!peer || address_is_zero(&peer->tunnel_endpoint)) {
		*identity = IDENTITY_HOST;
		/* A pod of ours sends by its own device, and nobody else in its name. */
		return !(endpoint->flags & ENDPOINT_HOST) && endpoint_find(&source) ? endpoint
										    : NULL;
	}
	*identity = peer->identity;
	return endpoint;
}

static __always_inline struct verdict arrive(struct __sk_buff *skb, struct packet *packet,
					     const struct endpoint_value *endpoint, __u32 identity,
					     bool is_encrypted)
{
	struct verdict verdict = parse(skb, packet);
	bool is_host = endpoint->flags & ENDPOINT_HOST;

	packet->source_identity = identity;
	if (verdict.kind != VERDICT_NONE)
		return is_host ? deliver_unreadable(skb, packet, verdict) : verdict;
	if (identity == IDENTITY_HOST)
		return DROP(SOURCE_FROM_NETWORK, DROP_INVALID_IDENTITY);
	packet->is_encrypted = is_encrypted || was_decrypted(skb);
	trace(skb, packet, TRACE_FROM_NETWORK, skb->ifindex);
	if (is_host) {
		packet->destination_identity = endpoint->identity;
		return deliver_host(skb, packet, now_s());
	}
	verdict = hop(skb, packet);
	if (verdict.kind != VERDICT_NONE)
		return verdict;
	return deliver(skb, packet, endpoint, 0, now_s());
}
