"""Images ``echo`` and ``json-mock``: answers who answered, and whom. Adapter.

``POD_NAME``, ``NODE_NAME`` and ``CLUSTER`` come from the pod's environment when the manifest sets
them; the host name stands in for the first.
"""

import json
import os
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kind.images import httpd

POD = os.environ.get("POD_NAME") or socket.gethostname()
NODE = os.environ.get("NODE_NAME", "")
CLUSTER = os.environ.get("CLUSTER", "")


def answer(request: httpd.Request) -> httpd.Answer:
    """What arrived, and where."""
    body = {
        "pod": POD,
        "node": NODE,
        "cluster": CLUSTER,
        "client": f"{request.peer[0]}:{request.peer[1]}",
        "server": f"{request.local[0]}:{request.local[1]}",
        "method": request.method,
        "path": request.path,
        "host": request.headers.get("host", ""),
    }
    return httpd.Answer(200, "application/json", json.dumps(body).encode() + b"\n")


if __name__ == "__main__":
    httpd.Server(httpd.port_argument(8080), answer).serve()
