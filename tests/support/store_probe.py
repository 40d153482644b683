"""``python -m tests.support.store_probe PLACE SERVER_NAME CA CERT KEY``: what a store lets one do.

Runs in the network of a node. Prints a JSON object: reading, and each call by which etcd's own
checks can be passed by.
"""

import asyncio
import json
import sys

from kvstore.config import StoreConfig
from tests.conformance.test_store_front import OPEN, PASSED
from tests.support.etcd_raw import RawEtcd, outcome

PATIENCE_S = 2.0
CASES = [case for case in PASSED if case[0] in ("heartbeat", "status")] + OPEN


async def main(place: str, server_name: str, *files: str) -> None:
    """One connection for each call."""
    config = StoreConfig((f"https://{place}",), *files)
    found = {
        what: await outcome(RawEtcd(config, server_name), method, fields, PATIENCE_S)
        for what, method, fields in CASES
    }
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
