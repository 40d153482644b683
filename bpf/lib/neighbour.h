/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* "Who has this address?", asked by a pod: the host end answers for all but the pod's own. */
#pragma once

#include "conntrack.h"
#include "endpoint.h"

enum {
	ARP_REQUEST = 1,
	ARP_REPLY = 2,
	ND_OPTION_TARGET_MAC = 2,
	ND_SOLICITED_OVERRIDE = 0x60,
};

struct arp_packet {
	struct ethhdr ethernet;
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	struct mac sender_mac;
	__be32 sender_ip;
	struct mac target_mac;
	__be32 target_ip;
} __attribute__((packed));

struct solicitation {
	struct icmp_header icmp;
	struct address target;
	__u8 option; /* ours to write; a solicitation brings as many bytes of its own */
	__u8 option_length;
	struct mac mac;
};

static __always_inline struct verdict answer_arp(struct __sk_buff *skb,
						 const struct interface_value *from)
{
	struct arp_packet *arp = packet_at(skb, 0, sizeof(*arp));
	struct address sender;
	__be32 asked;

	if (!arp || arp->hardware != bpf_htons(1) || arp->protocol != bpf_htons(ETH_P_IP) ||
	    arp->hardware_length != 6 || arp->protocol_length != 4)
		return DROP(SOURCE_NEIGHBOUR, DROP_MALFORMED);
	address_from_ip4(&sender, arp->sender_ip);
	/* A probe for a duplicate of the pod's address has no sender. */
	if (arp->sender_ip && !address_equal(&sender, &from->address4))
		return DROP(SOURCE_NEIGHBOUR, DROP_INVALID_SOURCE_IP);
	if (arp->operation != bpf_htons(ARP_REQUEST) || arp->target_ip == from->address4.words[3])
		return VERDICT(VERDICT_STACK);
	asked = arp->target_ip;
	__builtin_memcpy(arp->ethernet.h_dest, &from->mac, ETH_ALEN);
	__builtin_memcpy(arp->ethernet.h_source, &from->node_mac, ETH_ALEN);
	arp->operation = bpf_htons(ARP_REPLY);
	arp->target_ip = arp->sender_ip;
	arp->target_mac = from->mac;
	arp->sender_ip = asked;
	arp->sender_mac = from->node_mac;
	return VERDICT(VERDICT_TURN_BACK);
}

static __always_inline bool is_solicitation(const struct packet *packet)
{
	return packet->flow.protocol == IPPROTO_ICMPV6 && packet->icmp_type == ICMP6_SOLICITATION;
}

static __always_inline struct verdict solicitation_decide(struct __sk_buff *skb,
							  const struct packet *packet,
							  const struct interface_value *from)
{
	struct {
		struct address source;
		struct address destination;
		__be32 length;
		__be32 protocol;
		struct solicitation message;
	} sum = {
		.destination = packet->flow.source,
		.length = bpf_htonl(sizeof(struct solicitation)),
		.protocol = bpf_htonl(IPPROTO_ICMPV6),
	};
	struct solicitation *message;
	struct ethhdr *ethernet;
	struct ipv6hdr *ip;
	__s64 folded;

	message = packet_at(skb, packet->l4_offset, sizeof(*message));
	if (!message || packet->l3_length != sizeof(*ip) + sizeof(*message))
		return DROP(SOURCE_NEIGHBOUR, DROP_MALFORMED);
	if (address_equal(&message->target, &from->address6))
		return DROP(SOURCE_NEIGHBOUR, DROP_INVALID_SOURCE_IP);
	sum.source = message->target;
	sum.message.icmp.type = ICMP6_ADVERTISEMENT;
	sum.message.icmp.id = bpf_htons(ND_SOLICITED_OVERRIDE << 8);
	sum.message.target = message->target;
	sum.message.option = ND_OPTION_TARGET_MAC;
	sum.message.option_length = 1;
	sum.message.mac = from->node_mac;
	folded = bpf_csum_diff(NULL, 0, (__be32 *)&sum, sizeof(sum), 0);
	folded = (folded & 0xFFFF) + (folded >> 16 & 0xFFFF);
	folded = (folded & 0xFFFF) + (folded >> 16);
	sum.message.icmp.checksum = ~folded;
	*message = sum.message;
	ip = packet_at(skb, L3_OFFSET, sizeof(*ip));
	if (!ip)
		return DROP(SOURCE_NEIGHBOUR, DROP_MALFORMED);
	__builtin_memcpy(&ip->saddr, &sum.source, sizeof(sum.source));
	__builtin_memcpy(&ip->daddr, &sum.destination, sizeof(sum.destination));
	ip->hop_limit = 255;
	ethernet = packet_at(skb, 0, sizeof(*ethernet));
	if (!ethernet)
		return DROP(SOURCE_NEIGHBOUR, DROP_MALFORMED);
	__builtin_memcpy(ethernet->h_dest, &from->mac, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, &from->node_mac, ETH_ALEN);
	return VERDICT(VERDICT_NONE);
}

static __noinline __u32 solicitation_packed(struct __sk_buff *skb, const struct packet *packet,
					    const struct interface_value *from)
{
	return drop_pack(solicitation_decide(skb, packet, from));
}

static __always_inline struct verdict answer_solicitation(struct __sk_buff *skb,
							  const struct packet *packet,
							  const struct interface_value *from)
{
	struct verdict verdict;

	verdict = drop_unpack(solicitation_packed(skb, packet, from));
	return verdict.kind ? verdict : VERDICT(VERDICT_TURN_BACK);
}
