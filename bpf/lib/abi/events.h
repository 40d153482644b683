/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Messages to user space, as Cilium's monitor has them: a header, a body by type, and the first
 * bytes of the packet. The last eight bytes of each are when it happened (CLOCK_MONOTONIC, ns).
 */
#pragma once

#include "types.h"

enum event_type {
	EVENT_DROP = 1,
	EVENT_TRACE = 4,
	EVENT_POLICY_VERDICT = 5,
	EVENT_TRANSLATION = 7,
	EVENT_TYPE_COUNT = 8,
};

enum event_limits {
	EVENT_VERSION = 1,
	EVENT_CAPTURE_MAX = 128,
};

/* What config_trace asks for. */
enum trace_level {
	TRACE_OFF = 0,
	TRACE_ALL = 1,	   /* every packet, where it comes in and where it goes on */
	TRACE_OUTCOME = 2, /* every packet, where it goes on */
	TRACE_CHANGES = 3, /* where it goes on, if it tells something new of its flow */
};

enum trace_point {
	TRACE_TO_ENDPOINT = 0,
	TRACE_TO_HOST = 2,
	TRACE_TO_STACK = 3,
	TRACE_TO_OVERLAY = 4,
	TRACE_FROM_ENDPOINT = 5,
	TRACE_FROM_HOST = 7,
	TRACE_FROM_OVERLAY = 9,
	TRACE_FROM_NETWORK = 10,
	TRACE_TO_NETWORK = 11,
};

enum trace_reason {
	REASON_NEW = 0,
	REASON_ESTABLISHED = 1,
	REASON_REPLY = 2,
	REASON_RELATED = 3,
	REASON_UNKNOWN = 5,
	REASON_ENCRYPTED = 0x80, /* a bit beside these: between the nodes nobody can read it */
};

enum trace_bits {
	TRACE_IP6 = 1,
};

enum translation_point {
	TRANSLATION_BEFORE = 1, /* the address that the client knows */
	TRANSLATION_AFTER = 2,
	TRANSLATION_ANSWER_BEFORE = 3, /* of the first answer: the backend's address */
	TRANSLATION_ANSWER_AFTER = 4,
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

struct trace_event {
	struct event_header header;
	__u32 source_identity;
	__u32 destination_identity;
	__u16 destination_endpoint; /* 0: not to a pod of ours */
	__u8 reason;		    /* enum trace_reason */
	__u8 flags;		    /* enum trace_bits */
	__u32 ifindex;		    /* where it came in, or goes out */
	__u8 original[16];	    /* source address before ours, IPv4 in the first four bytes */
};

/* A service's address gives way to a backend's, and comes back in an answer: `destination` is the
 * side that the client speaks with, `source` the client, also of an answer. No packet follows; what
 * is behind the flags is not in Cilium's layout, where the cgroup tells whose it is.
 */
struct translation_event {
	__u8 type;
	__u8 point; /* enum translation_point */
	__u8 destination[16];
	__u16 destination_port; /* host order */
	__u64 cookie;		/* of the socket; 0: not known */
	__u64 cgroup;		/* 0: not known */
	__u8 protocol;		/* 1: TCP, 2: UDP, 0: another */
	__u8 flags;		/* enum trace_bits */
	__u8 source[16];
	__u16 source_port; /* host order */
	__u16 endpoint;	   /* the client's number; 0: the node */
	__u32 source_identity;
} __attribute__((packed));

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
_Static_assert(sizeof(struct trace_event) == 48, "struct trace_event");
_Static_assert(sizeof(struct translation_event) == 62, "struct translation_event");
_Static_assert(sizeof(struct policy_verdict_event) == 32, "struct policy_verdict_event");
