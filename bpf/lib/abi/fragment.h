/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The key is the flow of a datagram, a struct conntrack_key as the packets stand, with the
 * datagram's identification in place of the ports: 16 bits of IPv4, 32 of IPv6.
 */
#pragma once

#include "types.h"

enum fragment_limits {
	FRAGMENTS_MAX = 8192,
};

/* What the first fragment says for all. */
struct fragment_value {
	__be16 source_port;
	__be16 destination_port;
	__u8 icmp_type;
	__u8 pad[3];
};

_Static_assert(sizeof(struct fragment_value) == 8, "struct fragment_value");
