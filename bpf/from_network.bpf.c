/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ingress of the devices that lead to other nodes, with IPsec: says who sent what is encrypted, for
 * all nodes use the same SPIs. Attached while IPsec is on.
 */
#include "lib/ipsec.h"
#include "lib/parse.h"

SEC("tc")
int from_network(struct __sk_buff *skb)
{
	struct iphdr *ip;

	if (skb->protocol != bpf_htons(ETH_P_IP))
		return TC_NEXT;
	ip = packet_at(skb, L3_OFFSET, sizeof(*ip));
	if (ip && ip->protocol == IPPROTO_ESP)
		skb->mark = ipsec_mark_in(ip->saddr);
	return TC_NEXT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
