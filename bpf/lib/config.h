/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the loader sets before a program is loaded; every constant needs a value. */
#pragma once

#include "abi/events.h"
#include "compat.h"

const volatile struct address config_router_ip4; /* source of ICMP errors of ours; zero: none */
const volatile struct address config_router_ip6;
const volatile __u32 config_vxlan_ifindex;
const volatile __u32 config_host_ifindex; /* of ist_host */
const volatile __u32 config_route_mtu;	  /* largest IP packet that reaches another node */
const volatile __u16 config_tunnel_port;  /* host order; pods may not send to it */
const volatile __u8 config_native; /* no tunnel: by the routes to the nodes behind which pods are */
const volatile struct mac config_host_mac; /* of ist_host */
const volatile __u8 config_redirect_peer;  /* deliver straight into the pod's namespace */
const volatile __u8 config_policy;	   /* policy is asked; an endpoint without rows is closed */
const volatile __u8 config_policy_keeps_flows; /* what was allowed once stays so for its flow */
const volatile __u8 config_cidr_modes;	       /* enum policy_cidr_modes */
const volatile __u8 config_host_policy;	       /* the node itself is judged, too */
const volatile __u16 config_kubelet_port;      /* host order; the API server always reaches it */
const volatile __u8 config_events;	       /* drops and verdicts are told to user space */
const volatile __u8 config_trace;	       /* enum trace_level: what passes is told, too */
const volatile __u8 config_trace_flags;	       /* TCP flags whose first sight is told */
const volatile __u16 config_trace_interval_s;  /* and a flow that lives is told this often */
const volatile __u16 config_wireguard_port;    /* host order; the next one while keys change */
const volatile __u32 config_wireguard_ifindex; /* of ist_wg0; 0: not encrypted by WireGuard */
const volatile __u8 config_encrypt_nodes;      /* also what nodes send to nodes */
const volatile __u8 config_ipsec;	 /* the tunnel's packets are encrypted by the kernel */
const volatile __u8 config_hears_ipsec;	 /* and what comes in is marked for decryption */
const volatile __u8 config_strict;	 /* what would leave in clear text is dropped */
const volatile __u8 config_strict_nodes; /* except to and from nodes */

/* Word by word: a copy of the whole would let the compiler take today's zeroes for granted. */
static __always_inline void config_router(struct address *router, bool is_ip4)
{
#pragma unroll
	for (int i = 0; i < 4; i++)
		router->words[i] = is_ip4 ? config_router_ip4.words[i] : config_router_ip6.words[i];
}
