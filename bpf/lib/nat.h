/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Writes another address and port into a packet, and puts its checksums right. */
#pragma once

#include "parse.h"

enum nat_side {
	NAT_SOURCE = 0,
	NAT_DESTINATION = 1,
};

enum {
	IP4_CHECKSUM_OFFSET = 10,
	TCP_CHECKSUM_OFFSET = 16,
	UDP_CHECKSUM_OFFSET = 6,
	ICMP_CHECKSUM_OFFSET = 2,
};

static __always_inline __u32 nat_address_offset(bool is_ip4, enum nat_side side)
{
	if (is_ip4)
		return side == NAT_SOURCE ? 12 : 16;
	return side == NAT_SOURCE ? 8 : 24;
}

/* Offset of the checksum within the L4 header. */
static __always_inline __u32 nat_checksum_offset(__u8 protocol)
{
	if (protocol == IPPROTO_TCP)
		return TCP_CHECKSUM_OFFSET;
	return protocol == IPPROTO_UDP ? UDP_CHECKSUM_OFFSET : ICMP_CHECKSUM_OFFSET;
}

/* One side of a flow. */
struct nat_end {
	const struct address *address;
	__be16 port; /* ignored where the protocol has none */
};

/* Replace one side of the packet's flow in its headers. `packet->flow` is the caller's to keep. */
static __always_inline struct verdict nat_rewrite(struct __sk_buff *skb,
						  const struct packet *packet, enum nat_side side,
						  struct nat_end old, struct nat_end new)
{
	__u8 protocol = packet->flow.protocol;
	bool has_ports = protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
	__u32 checksum = packet->l4_offset + nat_checksum_offset(protocol);
	__u32 at = L3_OFFSET + nat_address_offset(packet->is_ip4, side);
	__u64 flags = protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	__s64 difference;

	if (packet->is_ip4) {
		difference = bpf_csum_diff((__be32 *)&old.address->words[3], 4,
					   (__be32 *)&new.address->words[3], 4, 0);
		if (bpf_l3_csum_replace(skb, L3_OFFSET + IP4_CHECKSUM_OFFSET, 0, difference, 0) ||
		    bpf_skb_store_bytes(skb, at, &new.address->words[3], 4, 0))
			return DROP(SOURCE_NAT, DROP_WRITE_FAILED);
	} else {
		difference = bpf_csum_diff((__be32 *)old.address->words, 16,
					   (__be32 *)new.address->words, 16, 0);
		if (bpf_skb_store_bytes(skb, at, new.address, 16, 0))
			return DROP(SOURCE_NAT, DROP_WRITE_FAILED);
	}
	if (packet->is_later) /* the first has the ports, and a checksum that covers the addresses
			       */
		return VERDICT(VERDICT_NONE);
	/* The checksum of SCTP covers ports and is no sum: it cannot follow a change. */
	if (protocol == IPPROTO_SCTP)
		return old.port == new.port ? VERDICT(VERDICT_NONE)
					    : DROP(SOURCE_NAT, DROP_UNSUPPORTED_SERVICE_PROTOCOL);
	/* Of the others, ICMP over IPv4 alone leaves the addresses out of its checksum. */
	if (protocol != IPPROTO_ICMP &&
	    bpf_l4_csum_replace(skb, checksum, 0, difference, flags | BPF_F_PSEUDO_HDR))
		return DROP(SOURCE_NAT, DROP_WRITE_FAILED);
	if (!has_ports || old.port == new.port)
		return VERDICT(VERDICT_NONE);
	if (bpf_l4_csum_replace(skb, checksum, old.port, new.port, flags | sizeof(new.port)) ||
	    bpf_skb_store_bytes(skb, packet->l4_offset + side * sizeof(new.port), &new.port,
				sizeof(new.port), 0))
		return DROP(SOURCE_NAT, DROP_WRITE_FAILED);
	return VERDICT(VERDICT_NONE);
}
