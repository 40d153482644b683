"""Real traffic of the tests, as small programs: run inside a namespace by ``python3 traffic.py …``.

Every server prints ``ready`` when it listens. Every client prints one JSON line with what it saw.
"""

import json
import os
import select
import socket
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

_TIMEOUT_S = float(os.environ.get("TRAFFIC_PATIENCE_S", "10"))
_LATE_S, _LAST_S = 1.0, 15.0  # what is under way is awaited, of flows that are answered at all
CANARY = b"isthmus-canary-5d0c1a7e"  # as in sniffer.py: it must not be seen where it is encrypted


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def serve_tcp(host: str, port: str, name: str) -> None:
    """Answer each connection with a line of JSON (name, peer), then echo what comes."""
    listener = socket.create_server((host, int(port)), family=_family(host), backlog=128)
    listener.setblocking(False)
    print("ready", flush=True)
    poll = select.epoll()
    poll.register(listener.fileno(), select.EPOLLIN)
    open_ones: dict[int, socket.socket] = {}
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                connection, peer = listener.accept()
                open_ones[connection.fileno()] = connection
                poll.register(connection.fileno(), select.EPOLLIN)
                line = json.dumps({"name": name, "peer": peer[0]}) + "\n"
                connection.sendall(line.encode())
                continue
            connection = open_ones[fd]
            try:
                data = connection.recv(65536)
                if data:
                    connection.setblocking(True)
                    connection.sendall(data)
                    continue
            except OSError:
                pass
            poll.unregister(fd)
            open_ones.pop(fd).close()


def serve_udp(host: str, port: str, name: str) -> None:
    """Answer each datagram with JSON (name, peer, size, and its first bytes as tag)."""
    with socket.socket(_family(host), socket.SOCK_DGRAM) as server:
        server.bind((host, int(port)))
        _roomy(server)
        print("ready", flush=True)
        while True:
            _answer(server, name)


def _answer(server: socket.socket, name: str) -> str:
    data, peer = server.recvfrom(65536)
    tag = data[:16].decode(errors="replace")
    answer = {"name": name, "peer": peer[0], "size": len(data), "tag": tag}
    server.sendto(json.dumps(answer).encode(), peer)
    return str(peer[0])


def count_udp(host: str, port: str, name: str) -> None:
    """As ``serve_udp`` until stdin ends. Prints how many datagrams each peer got here."""
    came: dict[str, int] = {}
    with socket.socket(_family(host), socket.SOCK_DGRAM) as server:
        server.bind((host, int(port)))
        _roomy(server)
        print("ready", flush=True)
        while True:
            readable, _, _ = select.select([server, sys.stdin], [], [])
            if server in readable:
                peer = _answer(server, name)
                came[peer] = came.get(peer, 0) + 1
            elif sys.stdin in readable:
                break
    print(json.dumps(came))


def _roomy(udp_socket: socket.socket) -> None:
    """Nothing may be lost in the socket, so that what is lost was lost on the way."""
    so_rcvbufforce = 33
    udp_socket.setsockopt(socket.SOL_SOCKET, so_rcvbufforce, 8 << 20)


def tcp(host: str, port: str, count: str = "1", size: str = "0") -> None:
    """``count`` connections, each echoing ``size`` bytes. Prints who answered, and the errors."""
    names: dict[str, int] = {}
    peers: set[str] = set()
    errors: list[str] = []
    mss = 0
    for _ in range(int(count)):
        try:
            with socket.create_connection((host, int(port)), timeout=_TIMEOUT_S) as connection:
                stream = connection.makefile("rb")
                hello = json.loads(stream.readline())
                if int(size):
                    _echo(connection, stream, int(size))
                mss = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
                stream.close()
            names[hello["name"]] = names.get(hello["name"], 0) + 1
            peers.add(hello["peer"])
        except OSError as error:
            errors.append(str(error))
    print(json.dumps({"names": names, "peers": sorted(peers), "errors": errors, "mss": mss}))


def _echo(connection, stream, size: int) -> None:
    block, left, back = (CANARY + os.urandom(233)) * 32, size, 0
    while left > 0:
        part = block[: min(left, len(block))]
        connection.sendall(part)
        if stream.read(len(part)) != part:
            raise OSError("the echo differs")
        left -= len(part)
        back += len(part)


def udp(host: str, port: str, count: str = "1", size: str = "16") -> None:
    """``count`` datagrams, each from a new socket. Prints who answered, and the errors."""
    names: dict[str, int] = {}
    peers: set[str] = set()
    errors: list[str] = []
    for _ in range(int(count)):
        with socket.socket(_family(host), socket.SOCK_DGRAM) as client:
            client.settimeout(_TIMEOUT_S)
            client.connect((host, int(port)))
            try:
                client.send((b"x" * int(size) + CANARY)[-int(size) :])
                answer = json.loads(client.recv(65536))
                names[answer["name"]] = names.get(answer["name"], 0) + 1
                peers.add(answer["peer"])
            except OSError as error:
                errors.append(str(error))
    print(json.dumps({"names": names, "peers": sorted(peers), "errors": errors}))


def ping(host: str, count: str = "1", size: str = "56") -> None:
    """ICMP echo by a raw socket. Prints how many were answered, and the errors that came."""
    answered, errors = 0, []
    identifier = os.getpid() & 0xFFFF
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.setsockopt(
            socket.IPPROTO_IP, socket.IP_RECVERR if hasattr(socket, "IP_RECVERR") else 11, 1
        )
        raw.settimeout(_TIMEOUT_S)
        raw.connect((host, 0))
        for sequence in range(int(count)):
            body = (b"i" * int(size) + CANARY)[-int(size) :] if int(size) else b""
            head = struct.pack("!BBHHH", 8, 0, 0, identifier, sequence)
            head = struct.pack("!BBHHH", 8, 0, _checksum(head + body), identifier, sequence)
            try:
                raw.send(head + body)
                answered += _answered(raw, identifier, sequence)
            except OSError as error:
                errors.append(str(error))
    print(json.dumps({"answered": answered, "errors": errors}))


def _answered(raw: socket.socket, identifier: int, sequence: int) -> bool:
    deadline = time.monotonic() + _TIMEOUT_S
    while True:  # what is there is looked at, however late it has become
        packet = raw.recv(65536)
        offset = (packet[0] & 15) * 4
        kind, _, _, got, number = struct.unpack_from("!BBHHH", packet, offset)
        if kind == 0 and (got, number) == (identifier, sequence):
            return True
        if time.monotonic() >= deadline:
            return False


def _checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def steady_udp(host: str, port: str, interval_s: str) -> None:
    """Numbered datagrams at a pace until stdin ends. Prints how many were sent and answered.

    The pace is what a flow is; nothing waits for it.
    """
    sent, answers, ended = 0, set(), 0.0
    with socket.socket(_family(host), socket.SOCK_DGRAM) as client:
        client.connect((host, int(port)))
        client.setblocking(False)
        _roomy(client)
        print("ready", flush=True)
        due = time.monotonic()
        while True:
            now = time.monotonic()
            if ended:
                # Who has answered may not have been run for a while; who has not will not any more.
                due = ended + (_LAST_S if answers else _LATE_S)
                if now >= due or len(answers) == sent:
                    break
            heard = [client] if ended else [client, sys.stdin]
            readable, _, _ = select.select(heard, [], [], max(0.0, due - now))
            if client in readable:
                answers.add(json.loads(client.recv(65536))["tag"])
            if sys.stdin in readable:
                ended = time.monotonic()
            elif not ended and time.monotonic() >= due:
                sent += 1
                client.send(f"{sent:016d}".encode())
                # A process that was not run for a while must not make up for it in one burst.
                due = max(due + float(interval_s), time.monotonic())
    print(json.dumps({"sent": sent, "answered": len(answers)}))


def steady_tcp(host: str, port: str, interval_s: str) -> None:
    """One connection that echoes at a pace until stdin ends. Prints what it saw."""
    patience_s = max(10.0, _TIMEOUT_S)
    print(json.dumps(_steady(host, port, interval_s, patience_s, threading.Barrier(1))))


def steady_tcps(host: str, port: str, interval_s: str, count: str, patience_s: str) -> None:
    """As many such connections at once; an error is when nothing comes back for ``patience_s``."""
    barrier = threading.Barrier(int(count))
    each = (host, port, interval_s, float(patience_s), barrier)
    with ThreadPoolExecutor(int(count)) as pool:
        running = [pool.submit(_steady, *each) for _ in range(int(count))]
    print(json.dumps([one.result() for one in running]))


def _steady(host: str, port: str, interval_s: str, patience_s: float, all_: threading.Barrier):
    name, rounds, errors, worst = "", 0, [], 0.0
    try:
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            stream = connection.makefile("rb")
            name = json.loads(stream.readline())["name"]
            connection.settimeout(patience_s)
            if all_.wait(60) == 0:
                print("ready", flush=True)
            while not select.select([sys.stdin], [], [], float(interval_s))[0]:
                begun = time.monotonic()
                connection.sendall(CANARY)
                if stream.read(len(CANARY)) != CANARY:
                    raise OSError("the echo differs")
                worst = max(worst, time.monotonic() - begun)
                rounds += 1
            stream.close()
    except OSError as error:
        errors.append(str(error))
    return {"name": name, "rounds": rounds, "errors": errors, "worst_s": worst}


if __name__ == "__main__":
    globals()[sys.argv[1].replace("-", "_")](*sys.argv[2:])
