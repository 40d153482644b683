"""The plugin on the host is the one that we bring."""

import os
from pathlib import Path

from agent.cni_conf import install_plugin


def test_whatever_is_put_in_its_place_is_replaced(tmp_path: Path) -> None:
    """Also what looks as large and as old; and a newer plugin of ours."""
    source, directory = tmp_path / "plugin", tmp_path / "bin"
    source.write_bytes(b"first")
    target = install_plugin(source, directory)
    for _ in range(2):
        assert install_plugin(source, directory).read_bytes() == b"first"
    seen = target.stat()
    target.write_bytes(b"other")
    os.utime(target, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert install_plugin(source, directory).read_bytes() == b"first"
    source.write_bytes(b"newer")
    assert install_plugin(source, directory).read_bytes() == b"newer"
    assert target.stat().st_mode & 0o111
    target.unlink()
    assert install_plugin(source, directory).read_bytes() == b"newer"
