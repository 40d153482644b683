"""What an agent does not load: it would lie in its memory for as long as it lives."""

import subprocess
import sys


def test_an_agent_without_wireguard_loads_no_netlink_library() -> None:
    """Nor what that would bring: a database and a framework for tests."""
    heavy = ("pyroute2", "sqlite3", "unittest", "multiprocessing", "kubernetes", "yaml", "rich")
    code = (
        "import sys\n"
        "from agent import __main__, daemon, mesh_encryption, opening, settings_watch\n"
        "from kube import config\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert out == "[]\n"
