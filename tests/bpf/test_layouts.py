"""Python's side of the map layouts is what the compiler says."""

import subprocess
import sys
from pathlib import Path

from tests.support.bpf import Machine
from wire.bpf import layouts as w

ROOT = Path(__file__).parents[2]
SHAPES = {
    "ist_endpoints": (16, w.ENDPOINT_VALUE.size),
    "ist_interfaces": (4, w.INTERFACE_VALUE.size),
    "ist_ipcache": (16, w.IPCACHE_VALUE.size),
    "ist_ipcache_lpm": (w.IPCACHE_PREFIX_KEY.size, w.IPCACHE_VALUE.size),
    "ist_ct": (w.CONNTRACK_KEY.size, w.CONNTRACK_VALUE.size),
    "ist_fragments": (w.CONNTRACK_KEY.size, w.FRAGMENT_VALUE.size),
    "ist_services": (w.SERVICE_KEY.size, w.SERVICE_VALUE.size),
    "ist_backends": (4, w.BACKEND_VALUE.size),
    "ist_revnat": (4, w.REVNAT_VALUE.size),
    "ist_affinity": (w.AFFINITY_KEY.size, w.AFFINITY_VALUE.size),
    "ist_aff_match": (w.AFFINITY_MATCH_KEY.size, 1),
}


def test_layouts_are_generated_from_the_headers() -> None:
    """`wire/bpf/layouts.py` is what tools/gen_layouts.py makes of bpf/lib/abi today."""
    subprocess.run([sys.executable, ROOT / "tools/gen_layouts.py", "--check"], check=True)


def test_maps_have_the_layouts(loaded: Machine) -> None:
    """The loaded maps' keys and values have the generated sizes."""
    found = {n: (t.key_size, t.value_size) for n, t in loaded.tables.items() if n in SHAPES}
    assert found == SHAPES
