/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Egress of the devices that lead to other nodes: what the node may not send ends here, what must
 * be encrypted turns off, and in strict mode nothing of the mesh goes by in clear text. Attached
 * while encryption or policy of the node itself is on.
 */
#include "lib/act.h"
#include "lib/node_policy.h"

static __always_inline bool read_ends(struct __sk_buff *skb, struct ends *ends, bool *is_discovery)
{
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = packet_at(skb, L3_OFFSET, sizeof(*ip));

		if (!ip)
			return false;
		address_from_ip4(&ends->source, ip->saddr);
		address_from_ip4(&ends->destination, ip->daddr);
		return true;
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = packet_at(skb, L3_OFFSET, sizeof(*ip) + 1);

		if (!ip)
			return false;
		__builtin_memcpy(&ends->source, &ip->saddr, sizeof(ends->source));
		__builtin_memcpy(&ends->destination, &ip->daddr, sizeof(ends->destination));
		/* Neighbours must find each other before anything can be encrypted for them. */
		*is_discovery = ip->nexthdr == IPPROTO_ICMPV6 &&
				((__u8 *)(ip + 1))[0] >= ICMP6_ROUTER_SOLICITATION &&
				((__u8 *)(ip + 1))[0] <= ICMP6_REDIRECT;
		return true;
	}
	return false; /* ARP and what else a link says to itself */
}

static __always_inline struct verdict decide_encryption(struct __sk_buff *skb,
							struct packet *packet)
{
	__u32 magic = skb->mark & MARK_MAGIC_MASK;
	bool is_discovery = false;
	struct ends ends = {};

	if (skb->mark == MARK_WIREGUARD || (!config_wireguard_ifindex && !config_ipsec))
		return VERDICT(VERDICT_STACK);
	/* Judged where it went into the tunnel; by now it is encrypted, or need not be. */
	if (config_ipsec && (magic == MARK_MAGIC_ENCRYPT ||
			     (magic == MARK_MAGIC_OVERLAY && !config_wireguard_ifindex)))
		return VERDICT(VERDICT_STACK);
	if (!read_ends(skb, &ends, &is_discovery) || is_discovery)
		return VERDICT(VERDICT_STACK);
	packet->flow.source = ends.source;
	packet->flow.destination = ends.destination;
	return encrypt_decision(&ends, !config_native && magic == MARK_MAGIC_OVERLAY);
}

static __always_inline struct verdict decide(struct __sk_buff *skb, struct packet *packet)
{
	struct verdict verdict;

	if (config_host_policy) {
		verdict = node_send(skb, packet);
		if (verdict.kind != VERDICT_NONE)
			return verdict;
	}
	return decide_encryption(skb, packet);
}

SEC("tc")
int to_netdev(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct verdict verdict = decide(skb, &packet);

	return act(skb, &packet, &verdict, HOOK_NETWORK);
}

char _license[] SEC("license") = "Dual BSD/GPL";
