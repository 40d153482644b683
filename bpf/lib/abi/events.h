/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Messages to user space, as Cilium's monitor has them: a header, a body by type, and the first
 * bytes of the packet.
 */
#pragma once

#include "types.h"

enum event_type {
	EVENT_DROP = 1,
	EVENT_POLICY_VERDICT = 5,
	EVENT_TYPE_COUNT = 6,
};

enum event_limits {
	EVENT_VERSION = 1,
	EVENT_CAPTURE_MAX = 128,
};

enum policy_match {
	MATCH_NONE = 0,
	MATCH_L3_ONLY = 1,
	MATCH_L3_L4 = 2,
	MATCH_L4_ONLY = 3,
	MATCH_ALL = 4,
	MATCH_L3_PROTOCOL = 5,
	MATCH_PROTOCOL_ONLY = 6,
};

/* Of policy_verdict_event.flags. */
enum verdict_bits {
	VERDICT_DIRECTION_MASK = 0x03, /* enum traffic_direction */
	VERDICT_IP6 = 0x04,
	VERDICT_MATCH_SHIFT = 3, /* three bits: enum policy_match */
	VERDICT_AUDITED = 0x40,
};

struct event_header {
	__u8 type;
	__u8 subtype;  /* of a drop: the reason */
	__u16 source;  /* number of the endpoint that it happened to */
	__u32 hash;    /* of the flow, as the kernel has it */
	__u32 length;  /* of the packet */
	__u16 capture; /* bytes of it that follow the body */
	__u16 version;
};

struct drop_event {
	struct event_header header;
	__u32 source_identity;
	__u32 destination_identity;
	__u32 destination_endpoint; /* 0: on its way out */
	__u16 line;
	__u8 file;
	__s8 error;
	__u32 ifindex;
};

struct policy_verdict_event {
	struct event_header header;
	__u32 remote_identity;
	__s32 verdict; /* 0: allowed; negative: minus the drop reason */
	__u16 port;    /* host order */
	__u8 protocol;
	__u8 flags; /* enum verdict_bits */
	__u8 auth;
	__u8 rule_high; /* the rule's index, 24 bits of it */
	__u16 rule;
};

_Static_assert(sizeof(struct event_header) == 16, "struct event_header");
_Static_assert(sizeof(struct drop_event) == 36, "struct drop_event");
_Static_assert(sizeof(struct policy_verdict_event) == 32, "struct policy_verdict_event");
