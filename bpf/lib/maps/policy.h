/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "abi/ipcache.h"
#include "abi/policy.h"
#include "compat.h"

struct policy_rows {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, POLICY_ROWS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, sizeof(struct policy_key)); /* clang 14 emits no type this deep */
	__uint(value_size, sizeof(struct policy_value));
};

/* By endpoint number. A hash, because before Linux 6.8 whoever reads a map of maps by a system call
 * waits for a grace period of RCU per element, and of an array that is one for every number there
 * could be.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, POLICY_ENDPOINTS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__array(values, struct policy_rows); /* last: a flexible member */
} ist_policy SEC(".maps");

/* Prefixes of rules -> the number whose rows are about pods and nodes with addresses there. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipcache_prefix_key);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ist_cidr_rules SEC(".maps");

/* Addresses of the API server, which the node itself always reaches. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipcache_key);
	__type(value, __u8);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ist_api_servers SEC(".maps");
