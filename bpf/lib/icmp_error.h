/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Turns a packet that cannot go on into the ICMP error that tells its sender so. */
#pragma once

#include "config.h"
#include "maps/scratch.h"
#include "parse.h"

struct icmp4_error {
	struct iphdr ip;
	struct icmp_header icmp;
};

struct icmp6_error {
	struct ipv6hdr ip;
	struct icmp_header icmp;
};

static __always_inline __u16 fold(__s64 sum)
{
	sum = (sum & 0xFFFF) + (sum >> 16 & 0xFFFF);
	sum = (sum & 0xFFFF) + (sum >> 16);
	return ~sum;
}

/* Type and code for a reason, type in the high byte; 0: nothing is said about it. */
static __always_inline __u32 icmp_kind(__u32 reason, bool is_ip4)
{
	switch (reason) {
	case DROP_NO_BACKEND:
		return is_ip4 ? ICMP4_UNREACHABLE << 8 | ICMP4_CODE_PORT
			      : ICMP6_UNREACHABLE << 8 | ICMP6_CODE_PORT;
	case DROP_FRAGMENTATION_NEEDED:
		return is_ip4 ? ICMP4_UNREACHABLE << 8 | ICMP4_CODE_FRAGMENTATION_NEEDED
			      : ICMP6_PACKET_TOO_BIG << 8;
	case DROP_TTL_EXCEEDED:
		return is_ip4 ? ICMP4_TIME_EXCEEDED << 8 : ICMP6_TIME_EXCEEDED << 8;
	default:
		return 0;
	}
}

static __always_inline long write_icmp4(struct __sk_buff *skb, __u32 kind, __u32 quoted_length,
					__s64 quoted_sum)
{
	struct icmp4_error head = {};
	struct iphdr *ip = packet_at(skb, L3_OFFSET, sizeof(*ip));

	if (!ip)
		return -1;
	head.ip.version = 4;
	head.ip.ihl = 5;
	head.ip.tot_len = bpf_htons(sizeof(head) + quoted_length);
	head.ip.ttl = 64;
	head.ip.protocol = IPPROTO_ICMP;
	head.ip.saddr = config_router_ip4.words[3];
	head.ip.daddr = ip->saddr;
	head.ip.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&head.ip, sizeof(head.ip), 0));
	head.icmp.type = kind >> 8;
	head.icmp.code = kind;
	if (kind == (ICMP4_UNREACHABLE << 8 | ICMP4_CODE_FRAGMENTATION_NEEDED))
		head.icmp.sequence = bpf_htons(config_route_mtu);
	head.icmp.checksum =
		fold(bpf_csum_diff(NULL, 0, (__be32 *)&head.icmp, sizeof(head.icmp), quoted_sum));
	if (bpf_skb_adjust_room(skb, sizeof(head), BPF_ADJ_ROOM_MAC, 0))
		return -1;
	return bpf_skb_store_bytes(skb, L3_OFFSET, &head, sizeof(head), 0);
}

static __always_inline long write_icmp6(struct __sk_buff *skb, __u32 kind, __u32 quoted_length,
					__s64 quoted_sum)
{
	struct icmp6_error head = {};
	struct ipv6hdr *ip = packet_at(skb, L3_OFFSET, sizeof(*ip));
	__be32 pseudo[2];

	if (!ip)
		return -1;
	head.ip.version = 6;
	head.ip.payload_len = bpf_htons(sizeof(head.icmp) + quoted_length);
	head.ip.nexthdr = IPPROTO_ICMPV6;
	head.ip.hop_limit = 64;
	config_router((struct address *)&head.ip.saddr, false);
	__builtin_memcpy(&head.ip.daddr, &ip->saddr, 16);
	head.icmp.type = kind >> 8;
	head.icmp.code = kind;
	if (kind >> 8 == ICMP6_PACKET_TOO_BIG)
		head.icmp.sequence = bpf_htons(config_route_mtu);
	pseudo[0] = bpf_htonl(sizeof(head.icmp) + quoted_length);
	pseudo[1] = bpf_htonl(IPPROTO_ICMPV6);
	quoted_sum = bpf_csum_diff(NULL, 0, pseudo, sizeof(pseudo), quoted_sum);
	quoted_sum = bpf_csum_diff(NULL, 0, (__be32 *)&head.ip.saddr, 32, quoted_sum);
	head.icmp.checksum =
		fold(bpf_csum_diff(NULL, 0, (__be32 *)&head.icmp, sizeof(head.icmp), quoted_sum));
	if (bpf_skb_adjust_room(skb, sizeof(head), BPF_ADJ_ROOM_MAC, 0))
		return -1;
	return bpf_skb_store_bytes(skb, L3_OFFSET, &head, sizeof(head), 0);
}

/* Not inlined: it is rare, and its headers would crowd the stack. 0 when the packet is the error
 * now, addressed to its former sender; otherwise it is of no more use.
 */
static __noinline int icmp_error(struct __sk_buff *skb, __u32 kind, __u32 is_ip4)
{
	__u32 length = skb->len - L3_OFFSET, zero = 0;
	struct icmp_quotation *quoted = bpf_map_lookup_elem(&ist_scratch, &zero);
	struct ethhdr *ethernet;
	__u8 mac[ETH_ALEN];
	__s64 sum;

	if (!quoted)
		return -1;
	if (is_ip4 ? !config_router_ip4.words[3] : !config_router_ip6.words[0])
		return -1;
	if (length > sizeof(*quoted)) {
		length = sizeof(*quoted);
		/* Also ends a packet's being one to be segmented. */
		if (bpf_skb_change_tail(skb, L3_OFFSET + sizeof(*quoted), 0))
			return -1;
	}
	__builtin_memset(quoted, 0, sizeof(*quoted));
	if (length < sizeof(struct iphdr) || length > sizeof(*quoted) ||
	    bpf_skb_load_bytes(skb, L3_OFFSET, quoted, length))
		return -1;
	sum = bpf_csum_diff(NULL, 0, (__be32 *)quoted, sizeof(*quoted), 0);
	if (is_ip4 ? write_icmp4(skb, kind, length, sum) : write_icmp6(skb, kind, length, sum))
		return -1;
	ethernet = packet_at(skb, 0, sizeof(*ethernet));
	if (!ethernet)
		return -1;
	__builtin_memcpy(mac, ethernet->h_dest, ETH_ALEN);
	__builtin_memcpy(ethernet->h_dest, ethernet->h_source, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, mac, ETH_ALEN);
	return 0;
}
