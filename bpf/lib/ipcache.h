/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Whose an address is, and behind which node. */
#pragma once

#include "maps/ipcache.h"
#include "address.h"

enum reserved_identity {
	IDENTITY_UNKNOWN = 0,
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2,
	IDENTITY_REMOTE_NODE = 6,
	IDENTITY_KUBE_APISERVER = 7,
	IDENTITY_WORLD_IP4 = 9,
	IDENTITY_WORLD_IP6 = 10,
	IDENTITY_LOCAL_FIRST = 1 << 24, /* from here on: numbers of this node's own */
	IDENTITY_REMOTE_NODE_SCOPE = 2 << 24,
};

static __always_inline bool identity_is_node(__u32 identity)
{
	return identity == IDENTITY_HOST || identity == IDENTITY_REMOTE_NODE ||
	       identity == IDENTITY_KUBE_APISERVER || identity >= IDENTITY_REMOTE_NODE_SCOPE;
}

/* Nodes of Cilium that are of both families tell the world's two halves apart. */
static __always_inline bool identity_is_world(__u32 identity)
{
	return identity == IDENTITY_WORLD || identity == IDENTITY_WORLD_IP4 ||
	       identity == IDENTITY_WORLD_IP6;
}

/* Of a prefix that a rule names: a part of the world with a number of this node's own. */
static __always_inline bool identity_is_prefix(__u32 identity)
{
	return identity >= IDENTITY_LOCAL_FIRST && identity < IDENTITY_REMOTE_NODE_SCOPE;
}

static __always_inline const struct ipcache_value *ipcache_find(const struct address *address)
{
	const struct ipcache_value *found = bpf_map_lookup_elem(&ist_ipcache, address);
	struct ipcache_prefix_key key;

	if (found)
		return found;
	key.prefix_length = 128;
	key.address = *address;
	return bpf_map_lookup_elem(&ist_ipcache_lpm, &key);
}

/* What an identity is called on another node. */
static __always_inline __u32 identity_elsewhere(__u32 identity)
{
	/* To others this node is one of the remote ones. */
	if (identity == IDENTITY_HOST || identity >= IDENTITY_REMOTE_NODE_SCOPE)
		return IDENTITY_REMOTE_NODE;
	return identity >= IDENTITY_LOCAL_FIRST ? IDENTITY_WORLD : identity;
}

/* Of an address outside this node. Unknown: a cluster owns it and has not told whose it is. */
static __always_inline __u32 ipcache_identity(const struct address *address)
{
	const struct ipcache_value *found = ipcache_find(address);

	return found ? found->identity : IDENTITY_WORLD;
}
