/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services. Slot 0 of a frontend is its master; slots 1..count name backends that new flows may
 * take. Writers keep the order: backends, slots, maglev, reverse NAT, master last; to shrink,
 * master first.
 */
#pragma once

#include "types.h"

enum service_flags {
	SERVICE_AFFINITY = 1, /* sessionAffinity: ClientIP */
	SERVICE_MAGLEV = 2,   /* otherwise random */
};

enum backend_state {
	BACKEND_ACTIVE = 0,
	BACKEND_TERMINATING = 1, /* keeps its flows, gets no new ones */
	BACKEND_QUARANTINED = 2,
	BACKEND_MAINTENANCE = 3,
};

enum service_limits {
	MAGLEV_TABLE_SIZE = 16381,
};

struct service_key {
	struct address address;
	__be16 port;
	__u16 slot;
	__u8 protocol;
	__u8 scope; /* 0; kept for external and internal traffic policies */
	__u8 pad[2];
};

/* Slot 0. */
struct service_value {
	__u32 backend_id; /* 0 */
	__u32 affinity_timeout_s;
	__u16 count; /* selectable backends */
	__u16 revnat_id;
	__u16 flags; /* enum service_flags */
	__u16 pad;
};

/* Other slots, in the same map. A slot is drawn evenly; of 65,536 draws `other_share` go to the
 * other backend (alias method), which gives every backend the weight it should have.
 */
struct service_slot {
	__u32 backend_id;
	__u32 other_id;
	__u16 other_share;
	__u16 revnat_id;
	__u16 flags;
	__u16 pad;
};

/* Keyed by backend id (__u32). */
struct backend_value {
	struct address address;
	__be16 port;
	__u8 protocol;
	__u8 state; /* enum backend_state */
	__u16 cluster_id;
	__u8 pad[2];
};

/* Keyed by revnat id (__u32). */
struct revnat_value {
	struct address address;
	__be16 port;
	__u8 pad[2];
};

struct affinity_key {
	struct address client;
	__u32 revnat_id;
};

struct affinity_value {
	__u64 last_used_ns; /* CLOCK_MONOTONIC */
	__u32 backend_id;
	__u8 pad[4];
};

/* Presence alone matters: this backend still belongs to this service. */
struct affinity_match_key {
	__u32 backend_id;
	__u32 revnat_id;
};

_Static_assert(sizeof(struct service_key) == 24, "struct service_key");
_Static_assert(sizeof(struct service_value) == 16, "struct service_value");
_Static_assert(sizeof(struct service_slot) == sizeof(struct service_value), "struct service_slot");
_Static_assert(sizeof(struct backend_value) == 24, "struct backend_value");
_Static_assert(sizeof(struct revnat_value) == 20, "struct revnat_value");
_Static_assert(sizeof(struct affinity_key) == 20, "struct affinity_key");
_Static_assert(sizeof(struct affinity_value) == 16, "struct affinity_value");
