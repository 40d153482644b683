/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "abi/conntrack.h"
#include "compat.h"

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 262144);
	__type(key, struct conntrack_key);
	__type(value, struct conntrack_value);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ist_ct SEC(".maps");
