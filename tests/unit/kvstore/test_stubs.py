"""The generated stubs are those of the protocol file."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_stubs_are_up_to_date(tmp_path: Path) -> None:
    """Generating again gives the committed file, byte for byte."""
    subprocess.run([ROOT / "tools" / "gen_etcd_stubs.sh", tmp_path], check=True)
    made = (tmp_path / "kvstore" / "rpc_pb2.py").read_bytes()
    assert made == (ROOT / "kvstore" / "rpc_pb2.py").read_bytes()
