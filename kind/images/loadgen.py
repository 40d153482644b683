"""A steady stream of HTTP requests from inside a pod, one line of JSON for each. Adapter.

Every request has a connection of its own and a thread of its own, so that one that hangs delays no
other. Runs on the standard library alone; ends after the given seconds or on SIGTERM, when every
request has had its answer or its timeout.
"""

import http.client
import json
import re
import signal
import socket
import sys
import threading
import time
from typing import Any

TIMEOUT_S = 10.0  # for an answer: a busy machine stands still for seconds
# So often the kernel tries again to connect, which needs no process of ours to run: who is not let
# in within three seconds has failed.
SYN_RETRIES = 1
_CLUSTER = re.compile(rb'"Cluster": *"([^"]*)"')
_lock = threading.Lock()


def connected(address: str, port: int) -> socket.socket:
    """A connection. Raises ``OSError``."""
    made = socket.socket()
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, SYN_RETRIES)
    made.settimeout(TIMEOUT_S)
    try:
        made.connect((address, port))
    except OSError:
        made.close()
        raise
    return made


def request(address: str, host: str, port: int) -> None:
    """One request; its line is printed when it has ended."""
    line: dict[str, Any] = {"at": time.time(), "host": host}
    start = time.perf_counter()
    try:
        connection = http.client.HTTPConnection(address, port)
        connection.sock = connected(address, port)
        connection.request("GET", "/", headers={"Host": host})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        found = _CLUSTER.search(body)
        line["ok"] = answer.status == 200
        line["cluster"] = found.group(1).decode() if found else ""
        if answer.status != 200:
            line["error"] = f"HTTP {answer.status}"
    except (OSError, http.client.HTTPException) as error:
        line["ok"] = False
        line["error"] = str(error) or type(error).__name__
    line["ms"] = round((time.perf_counter() - start) * 1000, 2)
    with _lock:
        print(json.dumps(line), flush=True)


def main(url_host: str, port: int, per_second: float, seconds: float) -> None:
    """The name is resolved once, so that what is measured is the service and not the DNS."""
    address = socket.gethostbyname(url_host)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    begin = time.perf_counter()
    running: list[threading.Thread] = []
    count = 0
    while not stop.is_set() and time.perf_counter() - begin < seconds:
        thread = threading.Thread(target=request, args=(address, url_host, port))
        thread.start()
        running = [t for t in running if t.is_alive()] + [thread]
        count += 1
        stop.wait(max(0.0, begin + count / per_second - time.perf_counter()))
    for thread in running:
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
