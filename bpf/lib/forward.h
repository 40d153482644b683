/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a pod or the node itself sends: through a service, and on its way. */
#pragma once

#include "config.h"
#include "deliver.h"
#include "endpoint.h"
#include "ipcache.h"
#include "trace.h"

struct sender {
	__u32 identity;
	bool is_host; /* the packet comes out of the node's stack */
};

/* Replies to a client that reached itself through a service: both addresses are put back. */
static __always_inline struct verdict loopback_decide(struct __sk_buff *skb, struct packet *packet,
						      const struct address *client, __u32 now)
{
	const struct conntrack_key *flow = &packet->flow;
	const struct revnat_value *service;
	struct conntrack_value *entry;
	struct verdict verdict;

	entry = conntrack_find_reply(packet, CONNTRACK_EGRESS, now);
	service = entry ? revnat_find(entry->revnat_id) : NULL;
	if (!service || !(entry->flags & CONNTRACK_LOOPBACK))
		return DROP(SOURCE_FORWARD, DROP_UNROUTABLE_IP);
	conntrack_touch(entry, packet, true, false, now);
	verdict = nat_rewrite(skb, packet, NAT_SOURCE,
			      (struct nat_end){&flow->source, flow->source_port},
			      (struct nat_end){&service->address, service->port});
	if (verdict.kind != VERDICT_NONE)
		return verdict;
	/* The port is the client's already. */
	return nat_rewrite(skb, packet, NAT_DESTINATION,
			   (struct nat_end){&flow->destination, flow->destination_port},
			   (struct nat_end){client, flow->destination_port});
}

static __noinline __u32 loopback_packed(struct __sk_buff *skb, struct packet *packet,
					const struct address *client, __u32 now)
{
	return drop_pack(loopback_decide(skb, packet, client, now));
}

static __always_inline struct verdict forward_loopback(struct __sk_buff *skb, struct packet *packet,
						       const struct sender *from, __u32 now)
{
	const struct endpoint_value *endpoint = endpoint_find(&packet->flow.source);
	struct address client = packet->flow.source;
	struct verdict verdict;

	if (!endpoint)
		return DROP(SOURCE_FORWARD, DROP_UNROUTABLE_IP);
	if (from->is_host) /* a node has many addresses; this one it uses towards services */
		config_router(&client, packet->is_ip4);
	verdict = drop_unpack(loopback_packed(skb, packet, &client, now));
	if (verdict.kind != VERDICT_NONE)
		return verdict;
	return from->is_host ? VERDICT(VERDICT_REINJECT) : deliver_verdict(endpoint);
}

/* Write into the headers what `packet->flow` says already. Returns a drop, packed. Not inlined: the
 * callers' stacks are full.
 */
static __noinline __u32 forward_translate(struct __sk_buff *skb, const struct packet *packet,
					  const struct conntrack_key *before,
					  const struct translation *to)
{
	const struct conntrack_key *after = &packet->flow;
	struct verdict verdict = VERDICT(VERDICT_NONE);

	if (to->loopback)
		verdict = nat_rewrite(skb, packet, NAT_SOURCE,
				      (struct nat_end){&before->source, before->source_port},
				      (struct nat_end){&after->source, after->source_port});
	if (verdict.kind == VERDICT_NONE)
		verdict = nat_rewrite(
			skb, packet, NAT_DESTINATION,
			(struct nat_end){&before->destination, before->destination_port},
			(struct nat_end){&after->destination, after->destination_port});
	return drop_pack(verdict);
}

/* Does policy speak about what this sender sends? */
static __always_inline bool is_judged(const struct sender *from)
{
	return !from->is_host || (config_host_policy && from->identity == IDENTITY_HOST);
}

/* The flow's entry on the sender's side: found, corrected, or made. */
static __always_inline struct verdict forward_track(struct __sk_buff *skb, struct packet *packet,
						    bool judged, const struct translation *to,
						    __u32 now)
{
	struct conntrack_value *entry;
	struct verdict verdict;

	entry = conntrack_find_forward(packet, CONNTRACK_EGRESS, now);
	if (!entry) {
		entry = conntrack_find_reply(packet, CONNTRACK_INGRESS, now);
		if (entry) {
			verdict = policy_cut(entry, DIRECTION_EGRESS);
			if (verdict.kind == VERDICT_NONE)
				conntrack_touch(entry, packet, true, false, now);
			return verdict;
		}
	}
	if (judged && !to->loopback) {
		verdict = policy_egress(skb, packet, entry && !conntrack_is_cut(entry));
		if (entry)
			conntrack_allow(entry, verdict.kind == VERDICT_NONE);
		if (verdict.kind != VERDICT_NONE)
			return verdict;
	}
	if (entry) {
		/* The same ports, once through a service and once without: the last one counts. */
		if (entry->revnat_id != to->revnat_id)
			entry->revnat_id = to->revnat_id;
		conntrack_touch(entry, packet, false, false, now);
	} else {
		struct conntrack_value value = {
			.source_identity = packet->source_identity,
			.revnat_id = to->revnat_id,
			.flags = to->loopback ? CONNTRACK_LOOPBACK : 0,
		};

		if (conntrack_create(packet, CONNTRACK_EGRESS, &value, now))
			return DROP(SOURCE_FORWARD, DROP_CT_INSERT_FAILED);
	}
	return VERDICT(VERDICT_NONE);
}

/* Where a packet goes that is not for this node's pods. Reads only its arguments and the loader's
 * constants. `peer`: NULL when nobody knows the destination.
 */
static __always_inline struct verdict forward_decision(const struct packet *packet,
						       const struct ipcache_value *peer,
						       const struct sender *from, bool translated)
{
	if (!peer || peer->flags & IPCACHE_SKIP_TUNNEL || address_is_zero(&peer->tunnel_endpoint)) {
		if (!from->is_host)
			return VERDICT(VERDICT_STACK);
		/* The stack has just sent it here: only a new destination can lead elsewhere. */
		if (translated)
			return VERDICT(VERDICT_REINJECT);
		return DROP(SOURCE_FORWARD, DROP_UNROUTABLE_IP);
	}
	if (config_native && from->is_host) /* as above; the stack has the routes */
		return translated ? VERDICT(VERDICT_REINJECT)
				  : DROP(SOURCE_FORWARD, DROP_UNROUTABLE_IP);
	if (!config_native && !address_is_ip4(&peer->tunnel_endpoint))
		return DROP(SOURCE_FORWARD, DROP_NO_TUNNEL_ENDPOINT);
	if (packet->l3_length > config_route_mtu)
		return DROP(SOURCE_FORWARD, DROP_FRAGMENTATION_NEEDED);
	if (config_native)
		return VERDICT(VERDICT_ROUTE);
	return (struct verdict){
		.kind = VERDICT_TUNNEL,
		.remote = peer->tunnel_endpoint.words[3],
		.identity = identity_elsewhere(packet->source_identity),
	};
}

/* Everything that leaves a pod or the node's stack for a pod or a service. */
static __always_inline struct verdict forward(struct __sk_buff *skb, struct packet *packet,
					      const struct sender *from)
{
	const struct endpoint_value *endpoint;
	struct verdict verdict = VERDICT(VERDICT_NONE), way;
	struct conntrack_key before;
	struct translation to = {};
	bool related = false;
	__u32 now = now_s();

	if (address_is_loopback(&packet->flow.destination, packet->is_ip4))
		return forward_loopback(skb, packet, from, now);
	packet->source_identity = from->identity;
	if (packet->kind == PACKET_ICMP_ERROR) {
		related = !config_policy || related_is_needed(skb, packet) ||
			  related_is_known(skb, packet, now);
		verdict = related_to_backend(skb, packet, now);
	}
	before = packet->flow;
	if (packet->kind == PACKET_FLOW)
		verdict = service_translate(packet, &to, now);
	if (verdict.kind != VERDICT_NONE)
		return verdict;

	if (config_trace && to.is_new) {
		event_translation(skb, packet, &before, TRANSLATION_BEFORE);
		event_translation(skb, packet, &packet->flow, TRANSLATION_AFTER);
	}
	endpoint = endpoint_find(&packet->flow.destination);
	if (to.active &&
	    (from->is_host ? endpoint && endpoint->flags & ENDPOINT_HOST
			   : address_equal(&packet->flow.destination, &packet->flow.source))) {
		to.loopback = 1;
		address_loopback(&packet->flow.source, packet->is_ip4);
	}
	if (!endpoint) {
		const struct ipcache_value *peer = ipcache_find(&packet->flow.destination);

		way = forward_decision(packet, peer, from, to.active);
		packet->destination_identity = peer ? peer->identity : IDENTITY_WORLD;
		/* As the program at the device will decide; by a tunnel it is known only there. */
		packet->is_encrypted = way.kind == VERDICT_ROUTE && peer && peer->encrypt_key &&
				       (config_wireguard_ifindex || config_ipsec);
	} else {
		packet->destination_identity = endpoint->identity;
		way = deliver_verdict(endpoint);
	}
	if (endpoint && endpoint->flags & ENDPOINT_HOST) {
		/* From the node to itself there is a way only through a service. */
		if (from->is_host && !to.active)
			return DROP(SOURCE_FORWARD, DROP_UNROUTABLE_IP);
		way = VERDICT(from->is_host ? VERDICT_REINJECT : VERDICT_STACK);
	}
	if (way.kind == VERDICT_DROP)
		return way;
	/* The stack has counted this hop for what comes out of it, and will for what goes in. */
	if (!from->is_host && way.kind != VERDICT_STACK) {
		verdict = hop(skb, packet);
		if (verdict.kind != VERDICT_NONE)
			return verdict;
	}
	/* Before it is judged: what is told of a verdict shows the packet that was judged. */
	if (to.active) {
		verdict = drop_unpack(forward_translate(skb, packet, &before, &to));
		if (verdict.kind != VERDICT_NONE)
			return verdict;
	}
	if ((is_judged(from) || to.active) && packet->kind == PACKET_FLOW) {
		verdict = forward_track(skb, packet, is_judged(from), &to, now);
		if (verdict.kind != VERDICT_NONE)
			return verdict;
	}
	if (is_judged(from) && packet->kind != PACKET_FLOW && !related) {
		verdict = policy_egress(skb, packet, false);
		if (verdict.kind != VERDICT_NONE)
			return verdict;
	}
	if (way.kind == VERDICT_DELIVER && !to.loopback)
		return deliver(skb, packet, endpoint, 0, now);
	if (way.kind == VERDICT_STACK && endpoint)
		return deliver_host(skb, packet, now);
	return way;
}
