"""Names of the maps that Python reads or writes, as `bpf/lib/maps/*.h` defines them. Pure."""

IPCACHE = "ist_ipcache"
IPCACHE_PREFIXES = "ist_ipcache_lpm"
ENDPOINTS = "ist_endpoints"
INTERFACES = "ist_interfaces"
SERVICES = "ist_services"
BACKENDS = "ist_backends"
REVNAT = "ist_revnat"
AFFINITY_MATCH = "ist_aff_match"
MAGLEV = "ist_maglev"
CONNTRACK = "ist_ct"
METRICS = "ist_metrics"  # drops
FORWARDED = "ist_forwarded"
