"""``bench/RESULTS.md``: the latest value of each figure, with machine and date."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

from bench.figure import Figure

PATH = Path(__file__).parent / "RESULTS.md"
LIMITS = {  # what each figure must reach
    "propagation.p50_ms": "≤ 25",
    "propagation.p99_ms": "≤ 150",
    "datapath.cross_stream_ratio": "≥ 0.9",
    "datapath.cross_rr_ratio": "≥ 0.9",
    "datapath.same_stream_ratio": "≥ 0.95",
    "datapath.same_rr_ratio": "≥ 0.95",
    "lb.rr_10000_vs_1_ratio": "≥ 0.95",
    "agent.rss_10k_mb": "≤ 120",
    "failover.failed_requests": "0",
    "mesh250.cpu_s": "≤ 5",
    "mesh250.rss_mb": "≤ 300",
    "mesh250.churn_core_pct": "≤ 2",
    "mesh250.propagation_p99_ms": "≤ 150",
    "mesh1m.wall_s": "≤ 20",
    "mesh1m.rss_mb": "≤ 600",
    "publish.endpoints_10k_s": "≤ 1",
    "bigservice.reader_core_pct": "≤ 5",
    "policy.full_cpu_s": "≤ 0.5",
    "policy.whatif_s": "≤ 10",
    "policy.explain_s": "≤ 5",
    "policy.identity_add_ms": "≤ 5",
    "policy.apply_p99_ms": "≤ 100",
    "policy.rr_1000_ratio": "≥ 0.97",
    "encrypt.wg_stream_ratio": "≥ 0.8",
    "encrypt.reconcile_1000_s": "≤ 2",
    "encrypt.reconcile_1_ms": "≤ 10",
    "encrypt.rotation_max_ms": "≤ 250",
    "encrypt.leaked_bytes": "0",
    "hubble.events_per_core_s": "≥ 200000",
    "hubble.ring_mb": "≤ 25",
    "hubble.observe_10k_s": "≤ 0.5",
    "hubble.relay_flows_per_s": "≥ 50000",
    "hubble.rr_ratio": "≥ 0.95",
    "kvstoremesh.keys_per_s": "≥ 20000",
    "kvstoremesh.keys_per_cpu_s": "≥ 50000",
}
HEAD = """# Results

Written by `python -m bench --record`. Ratios compare medians of interleaved runs with a peer in the
same run; absolute numbers belong to a shared machine and say little: beside it stands how long a
step of a loop and a read of a random row among millions took just then.

| Figure | Value | Must reach | Unit | Date, machine | Detail |
|---|---|---|---|---|---|
"""
_ROW = re.compile(r"^\| (\S+) \|.*$", re.M)


def record(figure: Figure, machine: str) -> None:
    """Replace or add one figure's row, with ``bench.machine.told()``; rows stay sorted by name."""
    text = PATH.read_text() if PATH.exists() else HEAD
    rows = {m.group(1): m.group(0) for m in _ROW.finditer(text) if m.group(1) != "Figure"}
    where = f"{datetime.now(UTC):%Y-%m-%d}, {machine}"
    detail = json.dumps(
        {k: v for k, v in figure.detail.items() if not isinstance(v, list | dict)} or figure.detail
    )
    rows[figure.name] = (
        f"| {figure.name} | {figure.value:g} | {LIMITS.get(figure.name, '')} | {figure.unit} "
        f"| {where} | `{detail[:300]}` |"
    )
    PATH.write_text(HEAD + "\n".join(rows[name] for name in sorted(rows)) + "\n")
