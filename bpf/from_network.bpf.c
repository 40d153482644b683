/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ingress of the devices that lead to other nodes. With IPsec: says who sent what is encrypted, for
 * all nodes use the same SPIs. Without a tunnel: what is for pods of this node. Attached where one
 * of these is so.
 */
#include "lib/act.h"
#include "lib/arrive.h"
#include "lib/ipsec.h"

static __always_inline bool is_esp(struct __sk_buff *skb, __be32 *sender)
{
	struct iphdr *ip;

	if (skb->protocol != bpf_htons(ETH_P_IP))
		return false;
	ip = packet_at(skb, L3_OFFSET, sizeof(*ip));
	if (!ip || ip->protocol != IPPROTO_ESP)
		return false;
	*sender = ip->saddr;
	return true;
}

SEC("tc")
int from_network(struct __sk_buff *skb)
{
	const struct endpoint_value *endpoint;
	struct packet packet = {};
	struct verdict verdict;
	__u32 identity = 0;
	__be32 sender;

	if (config_ipsec && is_esp(skb, &sender)) {
		skb->mark = ipsec_mark_in(sender);
		return TC_NEXT;
	}
	if (!config_native)
		return TC_NEXT;
	endpoint = arrive_find(skb, L3_OFFSET, &identity);
	if (!endpoint)
		return TC_NEXT;
	verdict = arrive(skb, &packet, endpoint, identity);
	return act(skb, &packet, &verdict, HOOK_ARRIVAL);
}

char _license[] SEC("license") = "Dual BSD/GPL";
