/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ingress of a pod's host end: everything the pod sends. */
#include "lib/act.h"
#include "lib/forward.h"
#include "lib/neighbour.h"

/* A pod speaks with its own addresses only, and not to other nodes' tunnels. */
static __always_inline struct verdict check_sender(const struct packet *packet,
						   const struct interface_value *from)
{
	const struct address *own = packet->is_ip4 ? &from->address4 : &from->address6;

	if (!address_equal(&packet->flow.source, own))
		return DROP(SOURCE_FROM_CONTAINER, DROP_INVALID_SOURCE_IP);
	if (packet->flow.protocol == IPPROTO_UDP &&
	    packet->flow.destination_port == bpf_htons(config_tunnel_port))
		return DROP(SOURCE_FROM_CONTAINER, DROP_TUNNEL_FROM_POD);
	return VERDICT(VERDICT_NONE);
}

static __always_inline struct verdict decide(struct __sk_buff *skb, struct packet *packet)
{
	const struct interface_value *interface = interface_find(skb->ifindex);
	struct verdict verdict;
	struct sender from = {};

	if (skb->protocol == bpf_htons(ETH_P_ARP))
		return interface ? answer_arp(skb, interface)
				 : DROP(SOURCE_FROM_CONTAINER, DROP_UNKNOWN_SENDER);
	verdict = parse(skb, packet);
	if (verdict.kind != VERDICT_NONE)
		return verdict;
	if (interface && is_solicitation(packet) && !address_is_zero(&packet->flow.source))
		return answer_solicitation(skb, packet, interface);
	/* Every IPv6 stack announces itself to its link, also before its pod is known. Nobody else
	 * is on this one.
	 */
	if (packet->is_link_only)
		return VERDICT(VERDICT_STACK);
	if (!interface)
		return DROP(SOURCE_FROM_CONTAINER, DROP_UNKNOWN_SENDER);
	packet->source_identity = interface->identity;
	packet->source_endpoint = interface->endpoint_id;
	verdict = check_sender(packet, interface);
	if (verdict.kind != VERDICT_NONE)
		return verdict;
	from.identity = interface->identity;
	trace(skb, packet, TRACE_FROM_ENDPOINT, skb->ifindex);
	return forward(skb, packet, &from);
}

SEC("tc")
int from_container(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct verdict verdict = decide(skb, &packet);

	return act(skb, &packet, &verdict, HOOK_CONTAINER);
}

char _license[] SEC("license") = "Dual BSD/GPL";
