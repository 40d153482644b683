/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ingress of the devices that lead to other nodes. With IPsec: says who sent what is encrypted, for
 * all nodes use the same SPIs. Without a tunnel: what is for pods of this node. With policy of the
 * node itself: what it may not receive ends here. Attached where one of these is so.
 */
#include "lib/act.h"
#include "lib/arrive.h"
#include "lib/ipsec.h"
#include "lib/node_policy.h"

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
	const struct endpoint_value *endpoint = NULL;
	struct packet packet = {};
	struct verdict verdict;
	__u32 identity = 0;
	__be32 sender;

	if (config_hears_ipsec && is_esp(skb, &sender)) {
		skb->mark = ipsec_mark_in(sender);
		if (!config_host_policy)
			return TC_NEXT;
	}
	if (config_native)
		endpoint = arrive_find(skb, L3_OFFSET, &identity);
	if (endpoint)
		verdict = arrive(skb, &packet, endpoint, identity, false);
	else if (config_host_policy)
		verdict = node_receive(skb, &packet);
	else
		return TC_NEXT;
	return act(skb, &packet, &verdict, HOOK_ARRIVAL);
}

char _license[] SEC("license") = "Dual BSD/GPL";
