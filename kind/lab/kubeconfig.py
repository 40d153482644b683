"""The kubeconfig of a lab: one context per cluster, named like the cluster. Pure."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Access:
    """How one cluster is reached."""

    name: str
    server: str
    ca_pem: bytes
    token: str
    user: str = "admin"


def render(accesses: Sequence[Access]) -> dict[str, Any]:
    """The file as a value; the first cluster is the current context."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "current-context": accesses[0].name,
        "clusters": [
            {
                "name": item.name,
                "cluster": {
                    "server": item.server,
                    "certificate-authority-data": base64.b64encode(item.ca_pem).decode(),
                },
            }
            for item in accesses
        ],
        "users": [
            {"name": f"{item.name}-{item.user}", "user": {"token": item.token}} for item in accesses
        ],
        "contexts": [
            {
                "name": item.name,
                "context": {"cluster": item.name, "user": f"{item.name}-{item.user}"},
            }
            for item in accesses
        ],
    }
