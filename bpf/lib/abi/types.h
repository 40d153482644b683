/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The two types every layout is made of. Addresses are 16 bytes in every map, IPv4 as v4-mapped. */
#pragma once

#include <linux/types.h>

struct address {
	union {
		__u8 bytes[16]; /* network order; ::ffff:a.b.c.d for IPv4 */
		__be32 words[4];
	};
};

struct mac {
	__u8 bytes[6];
};

_Static_assert(sizeof(struct address) == 16, "struct address");
_Static_assert(sizeof(struct mac) == 6, "struct mac");
