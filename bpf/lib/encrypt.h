/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What must not leave the node in clear text, and by which device it leaves instead. */
#pragma once

#include "abi/marks.h"
#include "config.h"
#include "endpoint.h"
#include "ipcache.h"
#include "ipsec.h"
#include "maps/encrypt.h"
#include "verdict.h"

/* The two ends of a packet, whatever it carries. */
struct ends {
	struct address source;
	struct address destination;
};

static __always_inline struct verdict encrypt_for(const struct address *node)
{
	const __u32 *other = bpf_map_lookup_elem(&ist_encrypt_via, node);

	return (struct verdict){
		.kind = VERDICT_ENCRYPT,
		.ifindex = other ? *other : config_wireguard_ifindex,
	};
}

/* 0: nobody of the mesh. */
static __always_inline __u32 identity_of_end(const struct address *address)
{
	const struct endpoint_value *endpoint = endpoint_find(address);

	return endpoint ? endpoint->identity : ipcache_identity(address);
}

static __always_inline bool is_strict(const struct address *address)
{
	struct ipcache_prefix_key key = {.prefix_length = 128, .address = *address};

	return bpf_map_lookup_elem(&ist_strict, &key) != NULL;
}

/* A packet that nobody has encrypted. `peer`: what is known of its destination. */
static __always_inline struct verdict strict_check(const struct ends *ends,
						   const struct ipcache_value *peer, __u32 source)
{
	if (!config_strict)
		return VERDICT(VERDICT_STACK);
	if (config_strict_nodes &&
	    (identity_is_node(source) || (peer && identity_is_node(peer->identity))))
		return VERDICT(VERDICT_STACK);
	/* Behind another node, or waiting to be told behind which. */
	if (peer && !identity_is_node(peer->identity) &&
	    (!address_is_zero(&peer->tunnel_endpoint) || peer->identity == IDENTITY_UNKNOWN))
		return DROP(SOURCE_ENCRYPT, DROP_UNENCRYPTED);
	if (is_strict(&ends->source) && is_strict(&ends->destination))
		return DROP(SOURCE_ENCRYPT, DROP_UNENCRYPTED);
	return VERDICT(VERDICT_STACK);
}

/* Without a tunnel: for the node `remote`, by the kernel's IPsec. NONE: it has no key that we have,
 * or is WireGuard's.
 */
static __always_inline struct verdict encrypt_by_ipsec(const struct address *remote)
{
	__u32 mark = address_is_ip4(remote) ? ipsec_mark_out(remote->words[3]) : IPSEC_NO_NODE;

	if (mark == IPSEC_NO_NODE && !config_wireguard_ifindex)
		return DROP(SOURCE_ENCRYPT, DROP_NO_NODE_ID);
	if (mark == IPSEC_PLAIN || mark == IPSEC_NO_NODE)
		return VERDICT(VERDICT_NONE);
	return (struct verdict){.kind = VERDICT_ENCRYPT, .mark = mark};
}

/* `is_overlay`: our own tunnel's packet, which ends at a node and carries others' traffic. */
static __always_inline struct verdict encrypt_decision(const struct ends *ends, bool is_overlay)
{
	const struct ipcache_value *peer;
	bool nodes;
	__u32 source;

	if (is_overlay)
		return encrypt_for(&ends->destination);
	peer = ipcache_find(&ends->destination);
	source = identity_of_end(&ends->source);
	nodes = identity_is_node(source) || (peer && identity_is_node(peer->identity));
	if (config_ipsec && config_native && peer && !address_is_zero(&peer->tunnel_endpoint)) {
		struct verdict verdict = encrypt_by_ipsec(&peer->tunnel_endpoint);

		if (verdict.kind != VERDICT_NONE)
			return verdict;
	}
	if (config_wireguard_ifindex && peer && peer->encrypt_key && source != IDENTITY_UNKNOWN &&
	    source != IDENTITY_WORLD && (!nodes || config_encrypt_nodes))
		return encrypt_for(address_is_zero(&peer->tunnel_endpoint)
					   ? &ends->destination
					   : &peer->tunnel_endpoint);
	return strict_check(ends, peer, source);
}
