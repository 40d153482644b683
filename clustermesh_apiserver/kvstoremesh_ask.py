"""What a running ``kvstoremesh`` says, asked by a command beside it. Adapter (HTTP)."""

import json
import urllib.error
import urllib.request
from typing import Any

ASK_TIMEOUT_S = 5.0


def ask(address: tuple[str, int]) -> list[dict[str, Any]]:
    """The answer of a running ``kvstoremesh``. Raises ``OSError``."""
    url = f"http://{address[0]}:{address[1]}/v1/cluster"
    try:
        with urllib.request.urlopen(url, timeout=ASK_TIMEOUT_S) as reply:
            found: list[dict[str, Any]] = json.load(reply)
            return found
    except urllib.error.URLError as error:
        raise OSError(f"{url}: {error.reason}: does kvstoremesh run?") from error
