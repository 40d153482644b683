/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "compat.h"

enum {
	ICMP_QUOTED_MAX = 96, /* any IP header, and enough of what follows */
};

struct icmp_quotation {
	__u8 bytes[ICMP_QUOTED_MAX];
};

/* What does not fit on the stack; holds nothing between packets. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct icmp_quotation);
} ist_scratch SEC(".maps");
