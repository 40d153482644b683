/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ICMP errors about translated flows: the packet quoted inside must read as its sender sent it, or
 * the sender will not know it again.
 */
#pragma once

#include "nat.h"
#include "service.h"

enum {
	ICMP_HEADER_LENGTH = 8,
	ICMP_QUOTED_L4 = 8, /* how much of the quoted packet's L4 header there must be */
};

/* The packet that an ICMP error quotes. */
struct quoted {
	struct conntrack_key flow;
	__u32 l4_offset;
	__u32 has_ports; /* else it was never translated */
};

static __always_inline struct verdict
parse_quoted(struct __sk_buff *skb, const struct packet *packet, struct quoted *quoted)
{
	__u32 at = packet->l4_offset + ICMP_HEADER_LENGTH;
	__be16 *ports;

	__builtin_memset(quoted, 0, sizeof(*quoted));
	if (packet->is_ip4) {
		struct iphdr *ip = packet_at(skb, at, sizeof(*ip));

		if (!ip)
			return DROP(SOURCE_ICMP, DROP_CT_TRUNCATED);
		if (ip->version != 4 || ip->ihl < 5)
			return DROP(SOURCE_ICMP, DROP_MALFORMED);
		address_from_ip4(&quoted->flow.source, ip->saddr);
		address_from_ip4(&quoted->flow.destination, ip->daddr);
		quoted->flow.protocol = ip->protocol;
		quoted->l4_offset = at + ip->ihl * 4;
	} else {
		struct ipv6hdr *ip = packet_at(skb, at, sizeof(*ip));

		if (!ip)
			return DROP(SOURCE_ICMP, DROP_CT_TRUNCATED);
		if (ip->version != 6)
			return DROP(SOURCE_ICMP, DROP_MALFORMED);
		__builtin_memcpy(&quoted->flow.source, &ip->saddr, sizeof(struct address));
		__builtin_memcpy(&quoted->flow.destination, &ip->daddr, sizeof(struct address));
		quoted->flow.protocol = ip->nexthdr;
		quoted->l4_offset = at + sizeof(*ip);
	}
	ports = packet_at(skb, quoted->l4_offset, ICMP_QUOTED_L4);
	if (!ports)
		return DROP(SOURCE_ICMP, DROP_CT_TRUNCATED);
	if (quoted->flow.protocol == IPPROTO_TCP || quoted->flow.protocol == IPPROTO_UDP) {
		quoted->flow.source_port = ports[0];
		quoted->flow.destination_port = ports[1];
		quoted->has_ports = 1;
	} else if (quoted->flow.protocol == (packet->is_ip4 ? IPPROTO_ICMP : IPPROTO_ICMPV6)) {
		__u8 type = *(__u8 *)ports;

		if (type == (packet->is_ip4 ? ICMP4_ECHO : ICMP6_ECHO))
			quoted->flow.source_port = ports[2];
		else if (type == (packet->is_ip4 ? ICMP4_ECHO_REPLY : ICMP6_ECHO_REPLY))
			quoted->flow.destination_port = ports[2];
	} else if (quoted->flow.protocol == IPPROTO_SCTP) {
		quoted->flow.source_port = ports[0];
		quoted->flow.destination_port = ports[1];
	}
	return VERDICT(VERDICT_NONE);
}

/* A checksum after the sum of what it covers changed by `difference`. */
static __always_inline __sum16 checksum_after(__sum16 checksum, __u64 difference)
{
	__u32 sum = (__u16)~checksum;

	sum += (difference & 0xFFFF) + (difference >> 16 & 0xFFFF);
	sum = (sum & 0xFFFF) + (sum >> 16);
	sum = (sum & 0xFFFF) + (sum >> 16);
	return ~sum;
}

/* Replace two bytes of the quoted packet; the ICMP checksum follows. */
static __always_inline long quoted_store(struct __sk_buff *skb, const struct packet *packet,
					 __u32 at, __u16 old, __u16 new)
{
	if (bpf_l4_csum_replace(skb, packet->l4_offset + ICMP_CHECKSUM_OFFSET, old, new,
				sizeof(new)))
		return -1;
	return bpf_skb_store_bytes(skb, at, &new, sizeof(new), 0);
}

static __always_inline long quoted_checksum(struct __sk_buff *skb, const struct packet *packet,
					    __u32 at, __u64 difference, bool zero_is_none)
{
	__sum16 *field = packet_at(skb, at, sizeof(*field));
	__sum16 old, new;

	if (!field) /* the quotation ends before it */
		return 0;
	old = *field;
	if (!old && zero_is_none)
		return 0;
	new = checksum_after(old, difference);
	if (!new &&zero_is_none)
		new = 0xFFFF;
	return quoted_store(skb, packet, at, old, new);
}

/* Replace one side of the quoted packet's flow. */
static __always_inline struct verdict
nat_rewrite_quoted(struct __sk_buff *skb, const struct packet *packet, const struct quoted *quoted,
		   enum nat_side side, struct nat_end old, struct nat_end new)
{
	__u32 l3 = packet->l4_offset + ICMP_HEADER_LENGTH;
	__u32 at = l3 + nat_address_offset(packet->is_ip4, side);
	__u32 first = packet->is_ip4 ? 3 : 0;
	__u64 difference;
	__s64 addresses;

	addresses = bpf_csum_diff((__be32 *)old.address->words, 16, (__be32 *)new.address->words,
				  16, 0);
#pragma unroll
	for (int i = 0; i < 4; i++) {
		__be32 word = new.address->words[i];

		if (i < first)
			continue;
		if (bpf_l4_csum_replace(skb, packet->l4_offset + ICMP_CHECKSUM_OFFSET,
					old.address->words[i], word, sizeof(word)) ||
		    bpf_skb_store_bytes(skb, at + (i - first) * 4, &word, sizeof(word), 0))
			return DROP(SOURCE_ICMP, DROP_WRITE_FAILED);
	}
	if (packet->is_ip4 &&
	    quoted_checksum(skb, packet, l3 + IP4_CHECKSUM_OFFSET, addresses, false))
		return DROP(SOURCE_ICMP, DROP_WRITE_FAILED);
	difference =
		(addresses & 0xFFFF) + (addresses >> 16 & 0xFFFF) + (__u16)~old.port + new.port;
	if (quoted_checksum(skb, packet,
			    quoted->l4_offset + nat_checksum_offset(quoted->flow.protocol),
			    difference, quoted->flow.protocol == IPPROTO_UDP))
		return DROP(SOURCE_ICMP, DROP_WRITE_FAILED);
	if (old.port != new.port &&
	    quoted_store(skb, packet, quoted->l4_offset + side * sizeof(new.port), old.port,
			 new.port))
		return DROP(SOURCE_ICMP, DROP_WRITE_FAILED);
	return VERDICT(VERDICT_NONE);
}

/* Does an error quote a packet of a flow that was allowed? Asked before anything is translated. Not
 * static: the verifier walks it once.
 */
__noinline __u32 related_is_known(struct __sk_buff *skb, const struct packet *packet, __u32 now)
{
	struct quoted quoted;
	struct conntrack_key *flow = &quoted.flow;
	struct verdict verdict;

	if (!packet)
		return 0;
	verdict = parse_quoted(skb, packet, &quoted);
	if (verdict.kind != VERDICT_NONE)
		return 0;
	flow->scope = CONNTRACK_EGRESS;
	if (conntrack_find(flow, now))
		return 1;
	flow->scope = CONNTRACK_INGRESS;
	if (conntrack_find(flow, now))
		return 1;
	conntrack_turn(flow, CONNTRACK_EGRESS);
	if (conntrack_find(flow, now))
		return 1;
	flow->scope = CONNTRACK_INGRESS;
	if (conntrack_find(flow, now))
		return 1;
	flow->scope = CONNTRACK_SERVICE;
	return conntrack_find(flow, now) != NULL;
}

/* Errors without which no flow finds its packet size are let through always. */
static __always_inline bool related_is_needed(struct __sk_buff *skb, const struct packet *packet)
{
	struct icmp_header *icmp;

	if (!packet->is_ip4)
		return packet->icmp_type == ICMP6_PACKET_TOO_BIG;
	if (packet->icmp_type != ICMP4_UNREACHABLE)
		return false;
	icmp = packet_at(skb, packet->l4_offset, sizeof(*icmp));
	return icmp && icmp->code == ICMP4_CODE_FRAGMENTATION_NEEDED;
}

/* An error on its way to whoever opened the flow that it quotes: what was translated on the way out
 * is translated back.
 */
static __always_inline struct verdict related_to_client_decide(struct __sk_buff *skb,
							       struct packet *packet, __u32 now)
{
	const struct conntrack_value *entry;
	const struct revnat_value *service;
	struct quoted quoted;
	struct verdict verdict = parse_quoted(skb, packet, &quoted);
	bool from_backend;

	if (verdict.kind != VERDICT_NONE || !quoted.has_ports)
		return verdict;
	quoted.flow.scope = CONNTRACK_EGRESS;
	entry = conntrack_find(&quoted.flow, now);
	service = entry && entry->revnat_id ? revnat_find(entry->revnat_id) : NULL;
	if (!service)
		return verdict;
	from_backend = address_equal(&packet->flow.source, &quoted.flow.destination);
	verdict = nat_rewrite_quoted(
		skb, packet, &quoted, NAT_DESTINATION,
		(struct nat_end){&quoted.flow.destination, quoted.flow.destination_port},
		(struct nat_end){&service->address, service->port});
	if (verdict.kind == VERDICT_NONE && from_backend)
		verdict =
			nat_rewrite(skb, packet, NAT_SOURCE, (struct nat_end){&packet->flow.source},
				    (struct nat_end){&service->address});
	return verdict;
}

/* Not inlined: such errors are rare, and what they need would crowd the stack. */
static __noinline __u32 related_to_client_packed(struct __sk_buff *skb, struct packet *packet,
						 __u32 now)
{
	return drop_pack(related_to_client_decide(skb, packet, now));
}

static __always_inline struct verdict related_to_client(struct __sk_buff *skb,
							struct packet *packet, __u32 now)
{
	return drop_unpack(related_to_client_packed(skb, packet, now));
}

/* An error that a client sends about a reply it got from a service: the backend must read its own
 * packet.
 */
static __always_inline struct verdict related_to_backend_decide(struct __sk_buff *skb,
								struct packet *packet, __u32 now)
{
	const struct conntrack_value *entry;
	const struct backend_value *backend;
	struct quoted quoted;
	struct verdict verdict = parse_quoted(skb, packet, &quoted);
	struct conntrack_key *flow = &quoted.flow;
	bool to_service;

	if (verdict.kind != VERDICT_NONE || !quoted.has_ports)
		return verdict;
	conntrack_turn(flow, CONNTRACK_SERVICE);
	entry = conntrack_find(flow, now);
	if (!entry)
		return verdict;
	backend = bpf_map_lookup_elem(&ist_backends, &entry->backend_id);
	if (!backend)
		return verdict;
	to_service = address_equal(&packet->flow.destination, &flow->destination);
	verdict = nat_rewrite_quoted(skb, packet, &quoted, NAT_SOURCE,
				     (struct nat_end){&flow->destination, flow->destination_port},
				     (struct nat_end){&backend->address, backend->port});
	if (verdict.kind != VERDICT_NONE || !to_service)
		return verdict;
	verdict = nat_rewrite(skb, packet, NAT_DESTINATION,
			      (struct nat_end){&packet->flow.destination},
			      (struct nat_end){&backend->address});
	packet->flow.destination = backend->address;
	return verdict;
}

/* Not inlined: such errors are rare, and what they need would crowd the stack. */
static __noinline __u32 related_to_backend_packed(struct __sk_buff *skb, struct packet *packet,
						  __u32 now)
{
	return drop_pack(related_to_backend_decide(skb, packet, now));
}

static __always_inline struct verdict related_to_backend(struct __sk_buff *skb,
							 struct packet *packet, __u32 now)
{
	return drop_unpack(related_to_backend_packed(skb, packet, now));
}
