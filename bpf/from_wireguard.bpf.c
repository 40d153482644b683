/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ingress of WireGuard's devices: what other nodes have encrypted for pods of this one, inside the
 * tunnel or without one. Packets have no Ethernet header here.
 */
#include "lib/act.h"
#include "lib/arrive.h"
#include "lib/overlay.h"
#include "lib/unwrap.h"

/* Room for an Ethernet header, which the programs and the pod expect. */
static __always_inline bool add_ethernet(struct __sk_buff *skb)
{
	__be16 protocol = skb->protocol;

	return !bpf_skb_change_head(skb, ETH_HLEN, 0) &&
	       !bpf_skb_store_bytes(skb, 2 * ETH_ALEN, &protocol, sizeof(protocol), 0);
}

static __always_inline int by_routes(struct __sk_buff *skb, struct packet *packet)
{
	const struct endpoint_value *endpoint;
	struct verdict verdict;
	__u32 identity = 0;

	endpoint = arrive_find(skb, 0, &identity);
	/* Without room for the header the stack takes it, and ist_host to the pod. */
	if (!endpoint || !add_ethernet(skb))
		return TC_NEXT;
	verdict = arrive(skb, packet, endpoint, identity, true);
	return act(skb, packet, &verdict, HOOK_ARRIVAL);
}

static __always_inline int by_tunnel(struct __sk_buff *skb, struct packet *packet)
{
	struct verdict verdict = DROP(SOURCE_FROM_WIREGUARD, DROP_WRITE_FAILED);
	__u32 claimed = 0;

	if (!unwrap(skb, &claimed)) {
		skb->mark = MARK_MAGIC_DECRYPT; /* for from_overlay */
		return TC_NEXT;
	}
	/* Without the tunnel's word nobody may go on. */
	if (add_ethernet(skb)) {
		verdict = parse(skb, packet);
		if (verdict.kind == VERDICT_NONE)
			verdict = overlay_receive(skb, packet, claimed, true);
	}
	return act(skb, packet, &verdict, HOOK_OVERLAY);
}

SEC("tc")
int from_wireguard(struct __sk_buff *skb)
{
	struct packet packet = {};

	return config_native ? by_routes(skb, &packet) : by_tunnel(skb, &packet);
}

char _license[] SEC("license") = "Dual BSD/GPL";
