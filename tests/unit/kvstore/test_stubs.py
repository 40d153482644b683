"""The generated stubs are those of the protocol file."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_stubs_are_up_to_date(tmp_path: Path) -> None:
    """Generating again gives the committed files, byte for byte."""
    subprocess.run([ROOT / "tools" / "gen_etcd_stubs.sh", tmp_path], check=True)
    for name in ("kvstore/rpc_pb2.py", "wire/etcd/endpointslice_pb2.py"):
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()
