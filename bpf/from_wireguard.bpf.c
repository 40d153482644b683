/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ingress of WireGuard's devices, without a tunnel: what other nodes have encrypted for pods of
 * this one. Packets have no Ethernet header here.
 */
#include "lib/act.h"
#include "lib/arrive.h"

SEC("tc")
int from_wireguard(struct __sk_buff *skb)
{
	const struct endpoint_value *endpoint;
	struct packet packet = {};
	struct verdict verdict;
	__u32 identity = 0;
	__be16 protocol = skb->protocol;

	endpoint = arrive_find(skb, 0, &identity);
	/* Without room for the header the stack takes it, and ist_host to the pod. */
	if (!endpoint || bpf_skb_change_head(skb, ETH_HLEN, 0))
		return TC_NEXT;
	bpf_skb_store_bytes(skb, 2 * ETH_ALEN, &protocol, sizeof(protocol), 0);
	verdict = arrive(skb, &packet, endpoint, identity, true);
	return act(skb, &packet, &verdict, HOOK_ARRIVAL);
}

char _license[] SEC("license") = "Dual BSD/GPL";
