/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* From bytes to a struct packet. Nothing else looks at skb->data; what writes headers asks for a
 * pointer here.
 */
#pragma once

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "abi/conntrack.h"
#include "address.h"
#include "fragment.h"
#include "icmp_wire.h"
#include "verdict.h"

enum {
	L3_OFFSET = ETH_HLEN,
	IP4_FRAGMENT_MASK = 0x3FFF, /* more fragments, or an offset */
	IP4_OFFSET_MASK = 0x1FFF,   /* in units of 8 bytes */
	IP4_DONT_FRAGMENT = 0x4000,
	IP6_FRAGMENT_MASK = 0xFFF9, /* as of IPv4 */
};

enum tcp_flag {
	TCP_FIN = 1,
	TCP_SYN = 2,
	TCP_RST = 4,
	TCP_ACK = 16,
};

enum packet_kind {
	PACKET_FLOW = 0,   /* ports, or an echo identifier, name its flow */
	PACKET_ICMP_ERROR, /* names another flow inside; `flow` has no ports */
	PACKET_ICMP_OTHER, /* neither */
	PACKET_NO_PORTS,   /* nobody can tell: only what is said of its whole protocol counts */
};

/* What a packet is to its flow. */
enum packet_trace {
	PACKET_TRACE_UNKNOWN = 0,
	PACKET_TRACE_NEW,
	PACKET_TRACE_ESTABLISHED,
	PACKET_TRACE_REPLY,
	PACKET_TRACE_RELATED,
};

/* The kernel's headers are not for user space. */
struct fragment6_header {
	__u8 next;
	__u8 reserved;
	__be16 fragment; /* offset in units of 8 bytes, two bits, more of them */
	__be32 identification;
};

struct sctp_header {
	__be16 source;
	__be16 destination;
	__be32 tag;
	__be32 checksum; /* of the SCTP packet alone: no address is in it */
};

/* The stack is short: 64 bytes. */
struct packet {
	struct conntrack_key flow; /* as the packet stands; follows translation */
	__u32 l3_length;	   /* bytes of the IP packet, or of one segment of it */
	__u32 length;		   /* bytes of the frame */
	__u32 source_identity;	   /* as far as they are known; 0: not */
	__u32 destination_identity;
	__u16 source_endpoint; /* 0: not a pod of ours */
	__u16 destination_endpoint;
	__u8 l4_offset;
	__u8 kind; /* enum packet_kind */
	__u8 is_ip4 : 1;
	__u8 is_link_only : 1; /* multicast of this link, like a multicast listener's report */
	__u8 trace : 3;	       /* enum packet_trace */
	__u8 is_told : 1;      /* of its flow nothing new is to be told */
	__u8 is_later : 1;     /* a later fragment: behind its IP header comes data */
	__u8 is_encrypted : 1; /* between the nodes nobody can read it */
	union {		       /* flow.protocol says which */
		__u8 tcp_flags;
		__u8 icmp_type;
	};
};

_Static_assert(sizeof(struct packet) == 64, "struct packet");

/* Both are written as the load itself: from C the compiler may move the 32 bits once more, and the
 * verifier no longer sees a pointer.
 */
static __always_inline void *skb_data(struct __sk_buff *skb)
{
	void *data;

	asm volatile("%0 = *(u32 *)(%1 + %2)"
		     : "=r"(data)
		     : "r"(skb), "i"(__builtin_offsetof(struct __sk_buff, data)));
	return data;
}

static __always_inline void *skb_data_end(struct __sk_buff *skb)
{
	void *end;

	asm volatile("%0 = *(u32 *)(%1 + %2)"
		     : "=r"(end)
		     : "r"(skb), "i"(__builtin_offsetof(struct __sk_buff, data_end)));
	return end;
}

/* `length` bytes at offset `at` as direct packet data, or NULL when the packet ends before. Every
 * pointer of an earlier call is stale after this one.
 */
static __always_inline void *packet_at(struct __sk_buff *skb, __u32 at, __u32 length)
{
	__u64 offset = at & 0x7FFF; /* a bound that the verifier can see */
	void *data = skb_data(skb) + offset;

	if (likely(data + length <= skb_data_end(skb)))
		return data;
	/* What is asked for may lie outside the linear part. */
	if (bpf_skb_pull_data(skb, offset + length))
		return NULL;
	data = skb_data(skb) + offset;
	return data + length <= skb_data_end(skb) ? data : NULL;
}

static __always_inline bool is_icmp_error(__u8 protocol, __u8 type)
{
	if (protocol == IPPROTO_ICMP)
		return type == ICMP4_UNREACHABLE || type == ICMP4_TIME_EXCEEDED ||
		       type == ICMP4_PARAMETER_PROBLEM;
	return type < ICMP6_FIRST_INFORMATIONAL;
}

static __always_inline struct verdict parse_l4(struct __sk_buff *skb, struct packet *packet,
					       __u32 payload)
{
	struct conntrack_key *flow = &packet->flow;
	__u32 header = 0;

	if (flow->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = packet_at(skb, packet->l4_offset, sizeof(*tcp));

		if (!tcp || payload < sizeof(*tcp))
			return DROP(SOURCE_PARSE, DROP_CT_TRUNCATED);
		flow->source_port = tcp->source;
		flow->destination_port = tcp->dest;
		packet->tcp_flags = ((__u8 *)tcp)[13];
		header = tcp->doff * 4;
	} else if (flow->protocol == IPPROTO_UDP) {
		struct udphdr *udp = packet_at(skb, packet->l4_offset, sizeof(*udp));

		if (!udp || payload < sizeof(*udp))
			return DROP(SOURCE_PARSE, DROP_CT_TRUNCATED);
		flow->source_port = udp->source;
		flow->destination_port = udp->dest;
		header = sizeof(*udp);
	} else if (flow->protocol == IPPROTO_SCTP) {
		struct sctp_header *sctp = packet_at(skb, packet->l4_offset, sizeof(*sctp));

		if (!sctp || payload < sizeof(*sctp))
			return DROP(SOURCE_PARSE, DROP_CT_TRUNCATED);
		flow->source_port = sctp->source;
		flow->destination_port = sctp->destination;
		header = sizeof(*sctp);
	} else if (flow->protocol == (packet->is_ip4 ? IPPROTO_ICMP : IPPROTO_ICMPV6)) {
		struct icmp_header *icmp = packet_at(skb, packet->l4_offset, sizeof(*icmp));
		__u8 request = packet->is_ip4 ? ICMP4_ECHO : ICMP6_ECHO;
		__u8 reply = packet->is_ip4 ? ICMP4_ECHO_REPLY : ICMP6_ECHO_REPLY;

		if (!icmp || payload < sizeof(*icmp))
			return DROP(SOURCE_PARSE, DROP_CT_TRUNCATED);
		packet->icmp_type = icmp->type;
		/* The identifier stands where a port would, so that a reply is the reverse. */
		if (icmp->type == request)
			flow->source_port = icmp->id;
		else if (icmp->type == reply)
			flow->destination_port = icmp->id;
		else if (is_icmp_error(flow->protocol, icmp->type))
			packet->kind = PACKET_ICMP_ERROR;
		else
			packet->kind = PACKET_ICMP_OTHER;
	} else {
		return DROP(SOURCE_PARSE, DROP_CT_UNKNOWN_L4);
	}
	/* A packet to be segmented counts as what each segment will be. */
	if (skb->gso_size)
		packet->l3_length = packet->l4_offset - L3_OFFSET + header + skb->gso_size;
	return VERDICT(VERDICT_NONE);
}

/* What is behind the IP header. `fragment`: 0 for a whole packet, else its offset in units of 8
 * bytes with whatever bits above; `identification` as on the wire.
 */
static __always_inline struct verdict parse_payload(struct __sk_buff *skb, struct packet *packet,
						    __u32 payload, __u32 fragment,
						    __u32 identification)
{
	__u32 offset = (fragment & IP4_OFFSET_MASK) * 8;
	struct verdict verdict;

	if (unlikely(offset)) {
		/* One that lies in the header of the first would put other ports in its place. */
		if (packet->flow.protocol == IPPROTO_TCP && offset < sizeof(struct tcphdr))
			return DROP(SOURCE_PARSE, DROP_FRAGMENT_UNSUPPORTED);
		packet->is_later = 1;
		if (!fragment_find(&packet->flow, identification, &packet->icmp_type))
			return DROP(SOURCE_PARSE, DROP_FIRST_FRAGMENT_UNKNOWN);
		return VERDICT(VERDICT_NONE);
	}
	verdict = parse_l4(skb, packet, payload);
	if (likely(!fragment) || verdict.kind != VERDICT_NONE)
		return verdict;
	if (packet->kind != PACKET_FLOW)
		return DROP(SOURCE_PARSE, DROP_FRAGMENT_UNSUPPORTED);
	fragment_keep(&packet->flow, identification, packet->icmp_type);
	return verdict;
}

static __always_inline struct verdict parse_ip4(struct __sk_buff *skb, struct packet *packet)
{
	struct iphdr *ip = packet_at(skb, L3_OFFSET, sizeof(*ip));
	__u32 header, total, fragment;

	if (!ip)
		return DROP(SOURCE_PARSE, DROP_MALFORMED);
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (!total) /* a GSO packet beyond 64 KiB */
		total = skb->len - L3_OFFSET;
	if (ip->version != 4 || header < sizeof(*ip) || total < header ||
	    total > skb->len - L3_OFFSET)
		return DROP(SOURCE_PARSE, DROP_MALFORMED);
	address_from_ip4(&packet->flow.source, ip->saddr);
	address_from_ip4(&packet->flow.destination, ip->daddr);
	packet->flow.protocol = ip->protocol;
	packet->is_ip4 = 1;
	packet->l3_length = total;
	packet->l4_offset = L3_OFFSET + header;
	fragment = bpf_ntohs(ip->frag_off) & IP4_FRAGMENT_MASK;
	return parse_payload(skb, packet, total - header, fragment, ip->id);
}

static __always_inline struct verdict parse_ip6(struct __sk_buff *skb, struct packet *packet)
{
	struct ipv6hdr *ip = packet_at(skb, L3_OFFSET, sizeof(*ip));
	__u32 payload, fragment = 0, identification = 0;
	struct fragment6_header *header;

	if (!ip)
		return DROP(SOURCE_PARSE, DROP_MALFORMED);
	payload = bpf_ntohs(ip->payload_len);
	if (!payload)
		payload = skb->len - L3_OFFSET - sizeof(*ip);
	if (ip->version != 6 || payload > skb->len - L3_OFFSET - sizeof(*ip))
		return DROP(SOURCE_PARSE, DROP_MALFORMED);
	__builtin_memcpy(&packet->flow.source, &ip->saddr, sizeof(struct address));
	__builtin_memcpy(&packet->flow.destination, &ip->daddr, sizeof(struct address));
	packet->flow.protocol = ip->nexthdr;
	packet->l3_length = sizeof(*ip) + payload;
	packet->l4_offset = L3_OFFSET + sizeof(*ip);
	/* A v4-mapped address on the wire would pass for an IPv4 one in every map. */
	if (address_is_ip4(&packet->flow.source) || address_is_ip4(&packet->flow.destination))
		return DROP(SOURCE_PARSE, DROP_MALFORMED);
	packet->is_link_only = address_is_link_multicast(&packet->flow.destination);
	if (packet->is_link_only && ip->nexthdr == IPPROTO_HOPOPTS)
		return VERDICT(VERDICT_NONE);
	if (ip->nexthdr == IPPROTO_HOPOPTS || ip->nexthdr == IPPROTO_ROUTING ||
	    ip->nexthdr == IPPROTO_DSTOPTS)
		return DROP(SOURCE_PARSE, DROP_INVALID_EXTENSION_HEADER);
	if (unlikely(ip->nexthdr == IPPROTO_FRAGMENT)) {
		header = packet_at(skb, packet->l4_offset, sizeof(*header));
		if (!header || payload < sizeof(*header))
			return DROP(SOURCE_PARSE, DROP_MALFORMED);
		packet->flow.protocol = header->next;
		packet->l4_offset += sizeof(*header);
		payload -= sizeof(*header);
		fragment = bpf_ntohs(header->fragment) & IP6_FRAGMENT_MASK; /* 0: the only one */
		fragment = fragment >> 3 | fragment << 16;
		identification = header->identification;
	}
	return parse_payload(skb, packet, payload, fragment, identification);
}

/* Fills `packet`; a verdict other than none is final. ARP is not its business. */
static __always_inline struct verdict parse(struct __sk_buff *skb, struct packet *packet)
{
	__builtin_memset(packet, 0, sizeof(*packet));
	packet->length = skb->len;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return parse_ip4(skb, packet);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return parse_ip6(skb, packet);
	if (bpf_ntohs(skb->protocol) < ETH_P_802_3_MIN)
		return DROP(SOURCE_PARSE, DROP_UNSUPPORTED_L2);
	return DROP(SOURCE_PARSE, DROP_UNSUPPORTED_L3);
}
