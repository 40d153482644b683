/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The result of every decision. Decisions return it; act.h alone carries it out. */
#pragma once

#include "abi/endpoint.h"
#include "abi/metrics.h"
#include "abi/reasons.h"
#include "compat.h"

enum verdict_kind {
	VERDICT_NONE = 0, /* no decision yet: go on */
	VERDICT_DROP,
	VERDICT_DELIVER,   /* into the pod behind `endpoint` */
	VERDICT_TUNNEL,	   /* to node `remote`, as `identity` */
	VERDICT_ROUTE,	   /* to another node, by the routes of this one */
	VERDICT_STACK,	   /* to the host's stack, as it came */
	VERDICT_REINJECT,  /* to the host's stack, again: its destination changed */
	VERDICT_ENCRYPT,   /* into the WireGuard device `ifindex`; 0: by IPsec, with `mark` */
	VERDICT_TURN_BACK, /* the packet became an answer: out where it came in */
};

struct verdict {
	__u8 kind;
	__u8 reason;
	__u8 file;
	__u8 direction; /* of a drop; 0: that of the hook */
	__u32 line;
	__be32 remote;
	__u32 identity; /* what the tunnel claims */
	__u32 ifindex;	/* of the device that encrypts */
	__u32 mark;	/* for the kernel's IPsec */
	const struct endpoint_value *endpoint;
};

#define DROP(file_, reason_)                                                                       \
	((struct verdict){                                                                         \
		.kind = VERDICT_DROP, .reason = (reason_), .file = (file_), .line = __LINE__})

#define VERDICT(kind_)                                                                             \
	((struct verdict){                                                                         \
		.kind = (kind_),                                                                   \
	})

/* A drop (or none) as one number: what a function that is not inlined can return. */
static __always_inline __u32 drop_pack(struct verdict verdict)
{
	if (verdict.kind != VERDICT_DROP)
		return 0;
	return verdict.line << 16 | verdict.file << 8 | verdict.reason;
}

static __always_inline struct verdict drop_unpack(__u32 packed)
{
	if (!packed)
		return VERDICT(VERDICT_NONE);
	return (struct verdict){
		.kind = VERDICT_DROP,
		.reason = packed & 0xFF,
		.file = packed >> 8 & 0xFF,
		.line = packed >> 16,
	};
}
