/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Counters per reason and direction, with the place in the code that counted. */
#pragma once

#include "types.h"

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
