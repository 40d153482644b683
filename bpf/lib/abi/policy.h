/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What an endpoint may send and receive: one trie of rows per endpoint, keyed by endpoint number in
 * a hash of maps. An endpoint that has none is closed.
 */
#pragma once

#include "types.h"

enum policy_bits {
	POLICY_STATIC_BITS = 40, /* identity and direction always match whole */
	POLICY_PROTOCOL_BITS = 8,
	POLICY_FULL_BITS = 24, /* then protocol and port, as many bits as the row says */
};

enum policy_flags {
	POLICY_DENY = 1,
	POLICY_AUDIT = 2, /* what the row denies passes, and is reported */
};

enum policy_cidr_modes {
	CIDR_NODES = 1, /* rules of prefixes select nodes by their addresses */
	CIDR_PODS = 2,	/* and pods by theirs */
};

enum policy_limits {
	POLICY_ROWS_MAX = 16384,
	POLICY_ENDPOINTS_MAX = 65536,
};

struct policy_key {
	__u32 prefix_length; /* POLICY_STATIC_BITS + bits of the row */
	__u32 identity;	     /* of the other side; 0: anybody; all ones: nobody knows whose */
	__u8 egress;
	__u8 protocol;
	__be16 port; /* ICMP: the type */
};

struct policy_value {
	__u32 rule; /* index of the rule that decided; 0: none */
	__u8 flags; /* enum policy_flags */
	__u8 bits;  /* of the key, since a lookup does not tell which key matched */
	__u8 pad[2];
	__u64 packets;
	__u64 bytes;
};

_Static_assert(sizeof(struct policy_key) == 12, "struct policy_key");
_Static_assert(sizeof(struct policy_value) == 24, "struct policy_value");
