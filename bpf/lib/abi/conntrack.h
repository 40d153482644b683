/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One entry per flow and point of enforcement. Keys are in the order of the packet that opened the
 * flow: source first.
 */
#pragma once

#include "types.h"

enum conntrack_scope {
	CONNTRACK_EGRESS = 0,  /* a pod of this node opened it */
	CONNTRACK_INGRESS = 1, /* it was opened towards a pod of this node */
	CONNTRACK_SERVICE = 2, /* towards a service address: remembers the backend */
};

enum conntrack_flags {
	CONNTRACK_RX_CLOSING = 1,
	CONNTRACK_TX_CLOSING = 2,
	CONNTRACK_SEEN_NON_SYN = 4,
	CONNTRACK_LOOPBACK = 8, /* the pod reached itself through a service */
	CONNTRACK_FROM_TUNNEL = 16,
	CONNTRACK_CLUSTER_REPLY = 32, /* replies leave through the tunnel to tunnel_endpoint */
	CONNTRACK_CUT = 64,	      /* it was allowed, and is not any more: nor are replies */
	CONNTRACK_ANSWERED = 128,     /* user space was told of a reply's translation */
};

struct conntrack_key {
	struct address source;
	struct address destination;
	__be16 source_port;	 /* ICMP echo: the identifier */
	__be16 destination_port; /* ICMP echo: 0 */
	__u8 protocol;
	__u8 scope; /* enum conntrack_scope */
	__u8 pad[2];
};

struct conntrack_value {
	__u64 packets;
	__u64 bytes;
	__u32 expires_s; /* CLOCK_MONOTONIC seconds */
	__u32 source_identity;
	__u32 backend_id;  /* CONNTRACK_SERVICE only */
	__u16 revnat_id;   /* 0: no translation to undo */
	__u16 flags;	   /* enum conntrack_flags */
	__u8 tx_tcp_flags; /* seen in the opener's direction */
	__u8 rx_tcp_flags; /* seen in replies */
	__u16 tx_told_s;   /* when user space was last told, seconds modulo 2^16: of packets in */
	__u16 rx_told_s;   /* the opener's direction, and of replies */
	__u8 pad[2];
};

_Static_assert(sizeof(struct conntrack_key) == 40, "struct conntrack_key");
_Static_assert(sizeof(struct conntrack_value) == 40, "struct conntrack_value");
