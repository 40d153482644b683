"""The plugin and its configuration on the host: what makes a kubelet call a node ready. Adapter.

The configuration appears last, when pods can be attached, and stays when the agent ends.
"""

import json
import os
import shutil
from pathlib import Path

from agent.config import AgentConfig
from agent.endpoint_store import write_atomically

# What source and target looked like when they were found to be the same: nothing is read again
# while they look like that.
_same: dict[Path, tuple[tuple[int, ...], tuple[int, ...]]] = {}


def configuration(config: AgentConfig) -> bytes:
    """The network configuration list."""
    plugin: dict[str, object] = {"type": "cilium-cni", "agent-socket": str(config.api_socket)}
    plugin["state-dir"] = str(config.state_dir)
    body = {"cniVersion": "0.3.1", "name": "cilium", "plugins": [plugin]}
    return json.dumps(body, indent=2).encode() + b"\n"


def install_plugin(source: Path, directory: Path) -> Path:
    """Copy the plugin, replacing an older one as a whole: it may be running just now."""
    target = directory / "cilium-cni"
    directory.mkdir(parents=True, exist_ok=True)
    if target.exists():
        looks = _look(source), _look(target)
        if _same.get(target) == looks:
            return target
        if target.read_bytes() == source.read_bytes():
            _same[target] = looks
            return target
    aside = target.with_name(".cilium-cni.next")
    shutil.copyfile(source, aside)
    aside.chmod(0o755)
    os.replace(aside, target)
    return target


def _look(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def write(config: AgentConfig) -> None:
    """Put plugin and configuration in place. Raises ``OSError``."""
    if config.write_cni_conf_when_ready is None:
        return
    install_plugin(config.cni_plugin, config.cni_bin_dir)
    wanted = configuration(config)
    path = config.write_cni_conf_when_ready
    if not path.exists() or path.read_bytes() != wanted:
        write_atomically(path, wanted)
