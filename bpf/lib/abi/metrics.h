/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Counters per reason and direction, with the place in the code that counted. */
#pragma once

#include "types.h"

/* Where a drop is decided: the file behind `line`. */
enum source_file {
	SOURCE_NONE = 0,
	SOURCE_FROM_CONTAINER = 1,
	SOURCE_FROM_OVERLAY = 2,
	SOURCE_FROM_HOST = 3,
	SOURCE_PARSE = 4,
	SOURCE_CONNTRACK = 5,
	SOURCE_SERVICE = 6,
	SOURCE_NAT = 7,
	SOURCE_ICMP = 8,
	SOURCE_FORWARD = 9,
	SOURCE_DELIVER = 10,
	SOURCE_NEIGHBOUR = 11,
	SOURCE_ACT = 12,
	SOURCE_POLICY = 13,
	SOURCE_ENCRYPT = 14,
	SOURCE_FROM_NETWORK = 15,
	SOURCE_ROUTE = 16,
	SOURCE_FROM_WIREGUARD = 17,
};

struct metrics_key {
	__u8 reason;	/* enum drop_reason; REASON_FORWARDED for what went on */
	__u8 direction; /* enum traffic_direction */
	__u16 line;
	__u8 file; /* enum source_file */
	__u8 pad[3];
};

struct metrics_value {
	__u64 packets;
	__u64 bytes;
};

_Static_assert(sizeof(struct metrics_key) == 8, "struct metrics_key");
