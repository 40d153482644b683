/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ingress of ist_vxlan: what other nodes send to this node's pods, and to itself. */
#include "lib/act.h"
#include "lib/overlay.h"

static __always_inline struct verdict decide(struct __sk_buff *skb, struct packet *packet)
{
	struct verdict verdict = parse(skb, packet);
	__u32 claimed = 0;

	if (verdict.kind != VERDICT_NONE)
		return verdict;
	verdict = overlay_claim(skb, &claimed);
	if (verdict.kind != VERDICT_NONE)
		return verdict;
	return overlay_receive(skb, packet, claimed, false);
}

SEC("tc")
int from_overlay(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct verdict verdict = decide(skb, &packet);

	return act(skb, &packet, &verdict, HOOK_OVERLAY);
}

char _license[] SEC("license") = "Dual BSD/GPL";
