"""Probes of the policy matrix, as small programs: run inside a namespace by ``python3``.

``serve ADDRESS TCP UDP`` answers on these ports. ``ask`` reads lines of JSON, each a list of probes
(token, protocol, address, port), tries all at once, and writes the tokens that were answered.
``sniff`` writes for each line it reads the tokens of packets that came in since the last. A token
is the source port, or the identifier of an echo request: no two probes have the same.
"""

import json
import select
import socket
import struct
import sys
import time

WAIT_S = 0.7
TCP, UDP, ICMP = 6, 17, 1


def serve(address: str, tcp: str, udp: str) -> None:
    listener = socket.create_server((address, int(tcp)), backlog=128)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((address, int(udp)))
    print("ready", flush=True)
    while True:
        for ready in select.select([listener, datagrams], [], [])[0]:
            if ready is listener:
                connection, _ = listener.accept()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
            else:
                data, peer = datagrams.recvfrom(2048)
                datagrams.sendto(data, peer)


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def _open(token: int, protocol: int, address: str, port: int) -> socket.socket:
    if protocol == ICMP:
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        made.setblocking(False)
        head = struct.pack("!BBHHH", 8, 0, 0, token, 1)
        head = struct.pack("!BBHHH", 8, 0, _checksum(head), token, 1)
        made.sendto(head, (address, 0))
        return made
    kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
    made = socket.socket(socket.AF_INET, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("0.0.0.0", token))
    made.setblocking(False)
    made.connect_ex((address, port))
    if protocol == UDP:
        made.send(b"probe")
    return made


def _answered(made: socket.socket, token: int, protocol: int) -> bool:
    try:
        if protocol == TCP:
            # Accepted, even if it was closed since.
            error = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return error in (0, 104)
        data = made.recv(2048)
    except OSError:
        return False
    return protocol == UDP or (data[20] == 0 and struct.unpack("!H", data[24:26])[0] == token)


def _try(probes: list[tuple[int, int, str, int]]) -> list[int]:
    waiting, answered = {}, []
    for token, protocol, address, port in probes:
        try:
            waiting[_open(token, protocol, address, port)] = (token, protocol)
        except OSError:
            continue
    end = time.monotonic() + WAIT_S
    while waiting and (left := end - time.monotonic()) > 0:
        reading = [s for s, (_, protocol) in waiting.items() if protocol != TCP]
        writing = [s for s, (_, protocol) in waiting.items() if protocol == TCP]
        readable, writable, _ = select.select(reading, writing, [], left)
        for made in (*readable, *writable):
            token, protocol = waiting[made]
            if _answered(made, token, protocol):
                answered.append(token)
            elif protocol == ICMP:
                continue  # somebody else's
            del waiting[made]
            made.close()
    for made in waiting:
        made.close()
    return answered


def ask() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_try([tuple(probe) for probe in json.loads(line)])), flush=True)


def sniff() -> None:
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    tap.setblocking(False)
    seen: set[int] = set()

    def look() -> None:
        """All that has come by now."""
        while True:
            try:
                data, about = tap.recvfrom(128)
            except BlockingIOError:
                return
            if about[2] == socket.PACKET_OUTGOING or len(data) < 28:
                continue
            inner = data[(data[0] & 15) * 4 :]
            if data[9] in (TCP, UDP):
                seen.add(struct.unpack("!H", inner[:2])[0])
            elif data[9] == ICMP and inner[0] == 8:
                seen.add(struct.unpack("!H", inner[4:6])[0])

    print("ready", flush=True)
    while True:
        asked = sys.stdin in select.select([sys.stdin, tap], [], [])[0]
        if asked and not sys.stdin.readline():
            return
        look()
        if asked:
            print(json.dumps(sorted(seen)), flush=True)
            seen.clear()


if __name__ == "__main__":
    {"serve": serve, "ask": ask, "sniff": sniff}[sys.argv[1]](*sys.argv[2:])
