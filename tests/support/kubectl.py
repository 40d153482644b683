"""Which kubectl this machine has: some of what newer ones do, older ones cannot ask for."""

import json
import subprocess
from functools import cache

TOKENS = 24  # the first with `create token`
DRY_RUN_WITHOUT_OPENAPI = 27  # earlier ones look it up in OpenAPI documents that we do not serve
WEBSOCKETS = 30  # earlier ones stream by SPDY alone, which our kubelet does not speak


@cache
def minor() -> int:
    """The minor version of the client."""
    argv = ["kubectl", "version", "--client", "-o", "json"]
    found = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return int("".join(c for c in json.loads(found)["clientVersion"]["minor"] if c.isdigit()))
