/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Another node's address -> its number and its key. Numbers are this node's own. */
#pragma once

#include "types.h"

struct node_key {
	struct address address;
};

struct node_value {
	__u16 id;
	__u8 key; /* of IPsec, that we send with; 0: in clear text */
	__u8 pad;
};

_Static_assert(sizeof(struct node_value) == 4, "struct node_value");
