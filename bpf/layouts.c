/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One variable of each shared type, so that all of them reach the BTF that tools/gen_layouts.py
 * reads. Never loaded.
 */
#include "lib/abi/conntrack.h"
#include "lib/abi/endpoint.h"
#include "lib/abi/events.h"
#include "lib/abi/fragment.h"
#include "lib/abi/ipcache.h"
#include "lib/abi/marks.h"
#include "lib/abi/metrics.h"
#include "lib/abi/node.h"
#include "lib/abi/policy.h"
#include "lib/abi/reasons.h"
#include "lib/abi/service.h"

#define LAYOUT(kind_, name_) kind_ name_ layout_##name_

LAYOUT(struct, conntrack_key);
LAYOUT(struct, conntrack_value);
LAYOUT(struct, endpoint_key);
LAYOUT(struct, endpoint_value);
LAYOUT(struct, interface_value);
LAYOUT(struct, fragment_value);
LAYOUT(struct, ipcache_key);
LAYOUT(struct, ipcache_prefix_key);
LAYOUT(struct, ipcache_value);
LAYOUT(struct, node_key);
LAYOUT(struct, node_value);
LAYOUT(struct, metrics_key);
LAYOUT(struct, metrics_value);
LAYOUT(struct, service_key);
LAYOUT(struct, service_value);
LAYOUT(struct, service_slot);
LAYOUT(struct, backend_value);
LAYOUT(struct, revnat_value);
LAYOUT(struct, affinity_key);
LAYOUT(struct, affinity_value);
LAYOUT(struct, affinity_match_key);
LAYOUT(struct, policy_key);
LAYOUT(struct, policy_value);
LAYOUT(struct, event_header);
LAYOUT(struct, drop_event);
LAYOUT(struct, trace_event);
LAYOUT(struct, translation_event);
LAYOUT(struct, policy_verdict_event);
LAYOUT(enum, policy_bits);
LAYOUT(enum, policy_flags);
LAYOUT(enum, policy_cidr_modes);
LAYOUT(enum, policy_limits);
LAYOUT(enum, event_type);
LAYOUT(enum, event_limits);
LAYOUT(enum, trace_level);
LAYOUT(enum, trace_point);
LAYOUT(enum, trace_reason);
LAYOUT(enum, trace_bits);
LAYOUT(enum, translation_point);
LAYOUT(enum, policy_match);
LAYOUT(enum, verdict_bits);
LAYOUT(enum, conntrack_scope);
LAYOUT(enum, conntrack_flags);
LAYOUT(enum, endpoint_flags);
LAYOUT(enum, ipcache_flags);
LAYOUT(enum, mark_bits);
LAYOUT(enum, source_file);
LAYOUT(enum, drop_reason);
LAYOUT(enum, traffic_direction);
LAYOUT(enum, service_flags);
LAYOUT(enum, backend_state);
LAYOUT(enum, service_limits);
