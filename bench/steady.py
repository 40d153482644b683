"""One request after the other over one connection, by pairs of numbers: how slow was the slowest?

``serve ADDRESS PORT`` echoes; ``ask ADDRESS PORT TEXT`` asks with this text until its input ends,
and prints JSON.
"""

import json
import select
import socket
import sys
import time

PAUSE_S = 0.002
SILENCE_S = 20.0


def serve(address: str, port: int) -> None:
    """Echo, one connection after another."""
    with socket.create_server((address, port)) as listener:
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while data := connection.recv(65536):
                    connection.sendall(data)


def ask(address: str, port: int, text: str) -> None:
    """Raises ``OSError`` when the connection breaks."""
    waits: list[float] = []
    payload = text.encode()
    with socket.create_connection((address, port), timeout=SILENCE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
            begun = time.monotonic()
            connection.sendall(payload)
            missing = len(payload)
            while missing:
                part = connection.recv(missing)
                if not part:
                    raise OSError("the connection was closed")
                missing -= len(part)
            waits.append(time.monotonic() - begun)
    waits.sort()
    print(json.dumps({"count": len(waits), "max_ms": waits[-1] * 1000, "all": waits[-20:]}))


if __name__ == "__main__":
    address, port = sys.argv[2], int(sys.argv[3])
    if sys.argv[1] == "serve":
        serve(address, port)
    else:
        ask(address, port, sys.argv[4])
