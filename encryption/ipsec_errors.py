"""Names by which the kernel's counts of IPsec errors are known to monitors. Pure."""

from collections.abc import Mapping

# Kernel's name without `Xfrm` -> error and type, as Cilium's metric `ipsec_xfrm_error` has them.
_STATE = {
    "ProtoError": "state_protocol",
    "ModeError": "state_mode",
    "SeqError": "state_sequence",
    "Expired": "state_expired",
    "Invalid": "state_invalid",
}
LABELS: Mapping[str, tuple[str, str]] = {
    "XfrmInError": ("other", "inbound"),
    "XfrmInBufferError": ("no_buffer", "inbound"),
    "XfrmInHdrError": ("header", "inbound"),
    "XfrmInNoStates": ("no_state", "inbound"),
    **{f"XfrmInState{name}": (label, "inbound") for name, label in _STATE.items()},
    "XfrmInStateMismatch": ("state_mismatched", "inbound"),
    "XfrmInTmplMismatch": ("template_mismatched", "inbound"),
    "XfrmInNoPols": ("no_policy", "inbound"),
    "XfrmInPolBlock": ("policy_blocked", "inbound"),
    "XfrmInPolError": ("policy", "inbound"),
    "XfrmFwdHdrError": ("forward_header", "inbound"),
    "XfrmAcquireError": ("acquire", "inbound"),
    "XfrmOutError": ("other", "outbound"),
    "XfrmOutBundleGenError": ("bundle_generation", "outbound"),
    "XfrmOutBundleCheckError": ("bundle_check", "outbound"),
    "XfrmOutNoStates": ("no_state", "outbound"),
    **{f"XfrmOutState{name}": (label, "outbound") for name, label in _STATE.items()},
    "XfrmOutPolBlock": ("policy_blocked", "outbound"),
    "XfrmOutPolDead": ("policy_dead", "outbound"),
    "XfrmOutPolError": ("policy", "outbound"),
}


def by_label(counters: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """Counts by error and type; what this table does not know is counted as ``other``."""
    found = dict.fromkeys(LABELS.values(), 0)
    for name, count in counters.items():
        way = "outbound" if name.startswith("XfrmOut") else "inbound"
        found[LABELS.get(name, ("other", way))] += count
    return found
