/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Pods of this node. */
#pragma once

#include "maps/endpoint.h"

static __always_inline const struct endpoint_value *endpoint_find(const struct address *address)
{
	return bpf_map_lookup_elem(&ist_endpoints, address);
}

static __always_inline const struct interface_value *interface_find(__u32 ifindex)
{
	return bpf_map_lookup_elem(&ist_interfaces, &ifindex);
}
