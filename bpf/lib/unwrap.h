/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Takes the tunnel's headers off a packet that has come by a device without Ethernet, so that a pod
 * gets it without a second way through the node's stack. Only off what is as our tunnel sends it
 * and for a pod of this node; the tunnel device does the rest, and everything out of the ordinary.
 */
#pragma once

#include "config.h"
#include "endpoint.h"
#include "parse.h"

enum {
	IP4_PLAIN = 0x45,	  /* version 4, no options */
	IP_ECN_CONGESTED = 3,	  /* must be told to the inner packet */
	VXLAN_FLAGS = 0x08000000, /* the identity is valid, and nothing else is said */
	VXLAN_IDENTITY_SHIFT = 8,
	UNWRAP_AS_IP6 = 1ULL << 8, /* BPF_F_ADJ_ROOM_DECAP_L3_IPV6, of Linux 6.3 */
};

struct vxlan_header {
	__be32 flags;
	__be32 identity; /* in the upper 24 bits */
};

/* In the order of the wire. */
struct unwrap_headers {
	struct iphdr ip;
	struct udphdr udp;
	struct vxlan_header vxlan;
	struct ethhdr ethernet;
} __attribute__((packed));

/* Do the outer headers say what ours say? The addresses are another matter. */
static __always_inline bool unwrap_is_ours(const struct __sk_buff *skb,
					   const struct unwrap_headers *outer)
{
	__u32 total = bpf_ntohs(outer->ip.tot_len);

	return *(const __u8 *)&outer->ip == IP4_PLAIN && outer->ip.protocol == IPPROTO_UDP &&
	       !(outer->ip.frag_off & bpf_htons(IP4_FRAGMENT_MASK)) && total == skb->len &&
	       (outer->ip.tos & IP_ECN_CONGESTED) != IP_ECN_CONGESTED &&
	       outer->udp.dest == bpf_htons(config_tunnel_port) && !outer->udp.check &&
	       bpf_ntohs(outer->udp.len) == total - sizeof(outer->ip) &&
	       outer->vxlan.flags == bpf_htonl(VXLAN_FLAGS) &&
	       !(outer->vxlan.identity & bpf_htonl(0xFF));
}

/* Where the inner packet goes. False: it is too short, or not of IP. */
static __always_inline bool unwrap_destination(struct __sk_buff *skb, __be16 protocol,
					       struct address *destination)
{
	__u32 at = sizeof(struct unwrap_headers);

	if (protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = packet_at(skb, at, sizeof(*ip));

		if (ip)
			address_from_ip4(destination, ip->daddr);
		return ip;
	}
	if (protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = packet_at(skb, at, sizeof(*ip));

		if (ip)
			__builtin_memcpy(destination, &ip->daddr, sizeof(*destination));
		return ip;
	}
	return false;
}

/* True: the packet is the inner one now, and `identity` is what the tunnel said of its sender.
 * False: it is as it was.
 */
static __always_inline bool unwrap(struct __sk_buff *skb, __u32 *identity)
{
	const struct endpoint_value *endpoint;
	struct unwrap_headers *outer;
	struct address destination;
	__u64 flags = BPF_F_ADJ_ROOM_NO_CSUM_RESET;
	__be16 protocol;

	/* What was joined on its way is cheap to carry on, and dear to take apart. */
	if (skb->protocol != bpf_htons(ETH_P_IP) || skb->gso_size)
		return false;
	outer = packet_at(skb, 0, sizeof(*outer));
	if (!outer || !unwrap_is_ours(skb, outer))
		return false;
	*identity = bpf_ntohl(outer->vxlan.identity) >> VXLAN_IDENTITY_SHIFT;
	protocol = outer->ethernet.h_proto;
	address_from_ip4(&destination, outer->ip.daddr);
	endpoint = endpoint_find(&destination);
	if (!endpoint || !(endpoint->flags & ENDPOINT_HOST))
		return false;
	if (!unwrap_destination(skb, protocol, &destination))
		return false;
	endpoint = endpoint_find(&destination);
	if (!endpoint || endpoint->flags & ENDPOINT_HOST)
		return false;
	if (protocol == bpf_htons(ETH_P_IPV6))
		flags |= UNWRAP_AS_IP6;
	if (bpf_skb_adjust_room(skb, -(__s32)sizeof(*outer), BPF_ADJ_ROOM_MAC, flags))
		return false;
	/* Who has verified checksums has counted the outer UDP's among them. */
	bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);
	return true;
}
