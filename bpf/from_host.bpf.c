/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Egress of ist_host: what the node's stack sends to pods and services, its own and what it
 * forwards.
 */
#include "lib/act.h"
#include "lib/forward.h"

static __always_inline struct verdict decide(struct __sk_buff *skb, struct packet *packet)
{
	struct verdict verdict = parse(skb, packet);
	struct sender from = {.is_host = true};
	const struct endpoint_value *endpoint;

	if (verdict.kind != VERDICT_NONE)
		return verdict;
	if (packet->is_link_only)
		return VERDICT(VERDICT_STACK);
	endpoint = endpoint_find(&packet->flow.source);
	if (endpoint && endpoint->flags & ENDPOINT_HOST)
		from.identity = IDENTITY_HOST;
	else
		from.identity =
			endpoint ? endpoint->identity : ipcache_identity(&packet->flow.source);
	packet->source_identity = from.identity;
	trace(skb, packet, TRACE_FROM_HOST, skb->ifindex);
	return forward(skb, packet, &from);
}

SEC("tc")
int from_host(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct verdict verdict = decide(skb, &packet);

	return act(skb, &packet, &verdict, HOOK_HOST);
}

char _license[] SEC("license") = "Dual BSD/GPL";
