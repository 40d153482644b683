/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Address -> identity and node. Host addresses live in a hash, shorter prefixes in a trie behind
 * it. */
#pragma once

#include "types.h"

enum ipcache_flags {
	IPCACHE_SKIP_TUNNEL = 1, /* a node's own address: reached by the underlay */
};

struct ipcache_key {
	struct address address;
};

struct ipcache_prefix_key {
	__u32 prefix_length; /* 0..128; a v4 prefix counts 96 more */
	struct address address;
};

struct ipcache_value {
	struct address tunnel_endpoint; /* zero: on this node, or no tunnel */
	__u32 identity;
	__u16 cluster_id;
	__u8 encrypt_key;
	__u8 flags; /* enum ipcache_flags */
};

_Static_assert(sizeof(struct ipcache_prefix_key) == 20, "struct ipcache_prefix_key");
_Static_assert(sizeof(struct ipcache_value) == 24, "struct ipcache_value");
