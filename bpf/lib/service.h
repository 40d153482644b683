/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Service address -> backend, packet by packet. Decides; nat.h writes. */
#pragma once

#include "maps/service.h"
#include "conntrack.h"

struct translation {
	__u32 backend_id;
	__u16 revnat_id;
	__u8 active;   /* the packet goes to a service */
	__u8 is_new;   /* the backend was chosen for this packet */
	__u8 loopback; /* and its backend is the client itself */
};

static __always_inline __u32 rotate(__u32 value, __u32 bits)
{
	return value << bits | value >> (32 - bits);
}

/* A flow's place in a Maglev table. The service's address stays out of it on purpose: the same flow
 * finds the same backend under each of a service's addresses.
 */
static __always_inline __u32 maglev_hash(const struct conntrack_key *flow)
{
	__u32 words[6] = {
		flow->source.words[0],
		flow->source.words[1],
		flow->source.words[2],
		flow->source.words[3],
		(__u32)flow->source_port << 16 | flow->destination_port,
		flow->protocol,
	};
	__u32 hash = 0x9747b28c;

#pragma unroll
	for (int i = 0; i < 6; i++) {
		hash ^= rotate(words[i] * 0xcc9e2d51, 15) * 0x1b873593;
		hash = rotate(hash, 13) * 5 + 0xe6546b64;
	}
	hash ^= hash >> 16;
	hash *= 0x85ebca6b;
	hash ^= hash >> 13;
	hash *= 0xc2b2ae35;
	return hash ^ hash >> 16;
}

static __always_inline __u32 maglev_select(const struct conntrack_key *flow, __u32 revnat_id)
{
	void *inner = bpf_map_lookup_elem(&ist_maglev, &revnat_id);
	__u32 zero = 0, at = maglev_hash(flow) % MAGLEV_TABLE_SIZE;
	struct maglev_table *table;

	if (!inner)
		return 0;
	table = bpf_map_lookup_elem(inner, &zero);
	asm volatile("" : "+r"(at)); /* the verifier does not follow the remainder */
	return table && at < MAGLEV_TABLE_SIZE ? table->backend_ids[at] : 0;
}

static __always_inline __u32 random_select(struct service_key *key, __u32 count)
{
	const struct service_slot *slot;

	key->slot = bpf_get_prandom_u32() % count + 1;
	slot = bpf_map_lookup_elem(&ist_services, key);
	if (!slot) { /* the service shrinks under us: its first slot goes last */
		key->slot = 1;
		slot = bpf_map_lookup_elem(&ist_services, key);
	}
	if (!slot)
		return 0;
	if (slot->other_share && (bpf_get_prandom_u32() & 0xffff) < slot->other_share)
		return slot->other_id;
	return slot->backend_id;
}

static __always_inline void affinity_remember(const struct affinity_key *key, __u32 backend_id)
{
	struct affinity_value value = {
		.last_used_ns = bpf_ktime_get_ns(),
		.backend_id = backend_id,
	};

	bpf_map_update_elem(&ist_affinity, key, &value, BPF_ANY);
}

/* The backend this client used last, if it is not too long ago and still serves. */
static __always_inline const struct backend_value *
affinity_select(const struct affinity_key *key, __u32 timeout_s, __u32 *backend_id)
{
	const struct affinity_value *last = bpf_map_lookup_elem(&ist_affinity, key);
	struct affinity_match_key match = {.revnat_id = key->revnat_id};
	const struct backend_value *backend;

	if (!last || bpf_ktime_get_ns() - last->last_used_ns > timeout_s * 1000000000ULL)
		return NULL;
	match.backend_id = last->backend_id;
	if (!bpf_map_lookup_elem(&ist_aff_match, &match))
		return NULL;
	backend = bpf_map_lookup_elem(&ist_backends, &match.backend_id);
	if (!backend || backend->state != BACKEND_ACTIVE)
		return NULL;
	*backend_id = match.backend_id;
	return backend;
}

/* A backend for a flow that has none yet. */
static __always_inline const struct backend_value *
backend_select(struct service_key *key, const struct service_value *master,
	       const struct conntrack_key *flow, const struct affinity_key *affinity,
	       __u32 *backend_id)
{
	const struct backend_value *backend = NULL;

	if (!master->count)
		return NULL;
	if (master->flags & SERVICE_AFFINITY)
		backend = affinity_select(affinity, master->affinity_timeout_s, backend_id);
	if (!backend && master->flags & SERVICE_MAGLEV) {
		*backend_id = maglev_select(flow, master->revnat_id);
		backend = bpf_map_lookup_elem(&ist_backends, backend_id);
	}
	if (!backend) {
		*backend_id = random_select(key, master->count);
		backend = bpf_map_lookup_elem(&ist_backends, backend_id);
	}
	return backend;
}

static __always_inline struct service_key service_key_of(const struct packet *packet)
{
	return (struct service_key){
		.address = packet->flow.destination,
		.port = packet->flow.destination_port,
		.protocol = packet->flow.protocol,
	};
}

static __always_inline struct verdict service_choose(struct packet *packet,
						     const struct service_value *master,
						     struct translation *to, __u32 now)
{
	struct service_key key = service_key_of(packet);
	const struct backend_value *backend = NULL;
	struct affinity_key affinity = {};
	struct conntrack_value *entry;

	if (master->flags & SERVICE_AFFINITY) {
		affinity.client = packet->flow.source;
		affinity.revnat_id = master->revnat_id;
	}
	entry = conntrack_find_forward(packet, CONNTRACK_SERVICE, now);
	if (entry) {
		to->backend_id = entry->backend_id;
		backend = bpf_map_lookup_elem(&ist_backends, &to->backend_id);
		/* A backend that drains keeps connections, not attempts at one: it may be dead. */
		if (backend && backend->state != BACKEND_ACTIVE && packet_opens(packet))
			backend = NULL;
		if (backend)
			conntrack_touch(entry, packet, false, true, now);
	}
	if (!backend) { /* a new flow, or one whose backend is gone */
		struct conntrack_value value = {.revnat_id = master->revnat_id};

		backend = backend_select(&key, master, &packet->flow, &affinity, &to->backend_id);
		if (!backend)
			return DROP(SOURCE_SERVICE, DROP_NO_BACKEND);
		value.backend_id = to->backend_id;
		if (conntrack_create(packet, CONNTRACK_SERVICE, &value, now))
			return DROP(SOURCE_SERVICE, DROP_CT_INSERT_FAILED);
		to->is_new = 1;
	}
	if (master->flags & SERVICE_AFFINITY)
		affinity_remember(&affinity, to->backend_id);
	packet->flow.destination = backend->address;
	packet->flow.destination_port = backend->port;
	to->revnat_id = master->revnat_id;
	to->active = 1;
	return VERDICT(VERDICT_NONE);
}

/* Not inlined: the stack has no room for it beside its caller's. */
static __noinline __u32 service_choose_packed(struct packet *packet,
					      const struct service_value *master,
					      struct translation *to, __u32 now)
{
	return drop_pack(service_choose(packet, master, to, now));
}

/* Where the packet goes if it is for a service: `packet->flow` says it already, its bytes not yet.
 */
static __always_inline struct verdict service_translate(struct packet *packet,
							struct translation *to, __u32 now)
{
	struct service_key key = service_key_of(packet);
	const struct service_value *master = bpf_map_lookup_elem(&ist_services, &key);

	if (!master)
		return VERDICT(VERDICT_NONE);
	return drop_unpack(service_choose_packed(packet, master, to, now));
}

/* The service address that a reply gets back as its source. NULL: the service is gone. */
static __always_inline const struct revnat_value *revnat_find(__u16 revnat_id)
{
	__u32 key = revnat_id;

	return bpf_map_lookup_elem(&ist_revnat, &key);
}
