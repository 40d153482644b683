/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Marks by which the kernel's IPsec knows what to encrypt for whom, and from whom to decrypt. */
#pragma once

#include "abi/marks.h"
#include "address.h"
#include "config.h"
#include "maps/nodes.h"

enum {
	IPSEC_PLAIN = 0,   /* the node encrypts with no key that we have */
	IPSEC_NO_NODE = 1, /* nobody has told us of the node */
};

/* The mark of a packet for the node `remote`, or one of the above. Not inlined: the callers' stacks
 * are full.
 */
static __noinline __u32 ipsec_mark_out(__be32 remote)
{
	const struct node_value *node;
	struct node_key key;

	address_from_ip4(&key.address, remote);
	node = bpf_map_lookup_elem(&ist_nodes, &key);
	if (!node)
		return IPSEC_NO_NODE;
	if (!node->key)
		return IPSEC_PLAIN;
	return (__u32)node->id << 16 | (__u32)node->key << 12 | MARK_MAGIC_ENCRYPT;
}

/* The mark by which IPsec decrypted it, or the one that from_wireguard gives, is still on it. */
static __always_inline bool was_decrypted(const struct __sk_buff *skb)
{
	return (config_ipsec || config_wireguard_ifindex) &&
	       (skb->mark & MARK_MAGIC_MASK) == MARK_MAGIC_DECRYPT;
}

/* The mark of what the node `remote` has encrypted; 0: nobody has told us of the node. */
static __always_inline __u32 ipsec_mark_in(__be32 remote)
{
	const struct node_value *node;
	struct node_key key;

	address_from_ip4(&key.address, remote);
	node = bpf_map_lookup_elem(&ist_nodes, &key);
	return node ? (__u32)node->id << 16 | MARK_MAGIC_DECRYPT : 0;
}
