/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Pods of this node: by address (for delivery) and by host-side interface (for what a pod sends).
 */
#pragma once

#include "types.h"

enum endpoint_flags {
	ENDPOINT_HOST = 1, /* an address of this node itself: deliver to the stack */
};

struct endpoint_key {
	struct address address;
};

struct endpoint_value {
	__u32 ifindex; /* host end of the pair; 0 with ENDPOINT_HOST */
	__u32 identity;
	__u16 id;	     /* endpoint number, 0 with ENDPOINT_HOST */
	__u16 flags;	     /* enum endpoint_flags */
	struct mac mac;	     /* of the pod's end */
	struct mac node_mac; /* of the host end */
};

/* Keyed by the host end's ifindex (__u32): one shared program serves every pod. */
struct interface_value {
	struct address address4; /* zero: none */
	struct address address6; /* zero: none */
	__u32 identity;
	__u16 endpoint_id;
	struct mac mac;	     /* of the pod's end */
	struct mac node_mac; /* of the host end: answers ARP and ND */
	__u8 pad[6];
};

_Static_assert(sizeof(struct endpoint_value) == 24, "struct endpoint_value");
_Static_assert(sizeof(struct interface_value) == 56, "struct interface_value");
