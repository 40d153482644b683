"""The plugin and its configuration on the host: what makes a kubelet call a node ready. Adapter.

The configuration appears last, when pods can be attached, and stays when the agent ends.
"""

import json
import os
import shutil
from pathlib import Path

from agent.config import AgentConfig
from agent.endpoint_store import write_atomically


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
    if target.exists() and target.read_bytes() == source.read_bytes():
        return target
    aside = target.with_name(".cilium-cni.next")
    shutil.copyfile(source, aside)
    aside.chmod(0o755)
    os.replace(aside, target)
    return target


def write(config: AgentConfig) -> None:
    """Put plugin and configuration in place. Raises ``OSError``."""
    if config.write_cni_conf_when_ready is None:
        return
    install_plugin(config.cni_plugin, config.cni_bin_dir)
    wanted = configuration(config)
    path = config.write_cni_conf_when_ready
    if not path.exists() or path.read_bytes() != wanted:
        write_atomically(path, wanted)
