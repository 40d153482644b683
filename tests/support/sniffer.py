"""A leak sniffer on the underlay: what may not be seen there, and whether it was.

It captures every frame of a namespace with tcpdump and judges them afterwards: a canary of the test
payloads anywhere in a frame, a packet from or to a pod's address, or the tunnel's own headers in
clear text are leaks. A frame that tcpdump missed is a failure as well: it might have been one.
"""

import re
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

from model.kernel_numbers import VXLAN_PORT

# In every payload of tests/support/traffic.py and of the lab's probes.
CANARY = b"isthmus-canary-5d0c1a7e"
# Without immediate mode the kernel packs frames into blocks of this buffer, and misses none on a
# busy machine; a block is handed over when it is full, or after a second.
BUFFER_KIB, HANDED_OVER_S = 65536, 1.3
_COOKED = 113  # LINUX_SLL: 16 bytes of header, the last two the protocol
_PCAP = struct.Struct("<IHHiIII")
_RECORD = struct.Struct("<IIII")
_ETHERTYPES = {0x0800: 4, 0x86DD: 6}
_ESP = 50
_WIREGUARD_TYPES = range(1, 5)


@dataclass
class Sightings:
    """What was on the wire. ``leaks`` names frames that should not have been."""

    frames: int = 0
    bytes: int = 0
    esp: int = 0
    wireguard: int = 0  # frames of UDP 51871 or its twin that look like WireGuard's
    leaked_bytes: int = 0
    leaks: list[str] = field(default_factory=list)  # the first few
    missed: int = 0

    def add_leak(self, text: str, size: int) -> None:
        self.leaked_bytes += size
        if len(self.leaks) < 20:
            self.leaks.append(text)

    def assert_clean(self, but: Collection[str] = ()) -> None:
        """No leak, nothing missed, and something encrypted was there at all. ``but``: leaks that
        were meant.
        """
        assert self.missed == 0, f"the sniffer missed {self.missed} frames"
        leaks = [leak for leak in self.leaks if leak not in but]
        assert leaks == [], f"{self.leaked_bytes} bytes in clear text: {leaks}"
        assert self.wireguard + self.esp > 0, f"nothing encrypted among {self.frames} frames"


class Sniffer:
    """Captures in a namespace until ``stop``."""

    def __init__(
        self,
        namespace: str,
        pods: Sequence[str],
        interface: str = "any",
        way: str = "inout",
        nodes: Sequence[str] = (),
    ) -> None:
        """``pods``: prefixes whose addresses must not show on the underlay. ``way``: ``out`` where
        the kernel shows what it has decrypted as if it had come in by the device.

        ``nodes``: what a pod says to one of these, or hears from it, is the node's own traffic, and
        may show its addresses where nodes are not encrypted; a canary it must not show.
        """
        self._pods = [ip_network(text) for text in pods]
        self._nodes = [ip_network(text) for text in nodes]
        self._directory = tempfile.TemporaryDirectory(prefix="ist-sniff-")
        self._file = Path(self._directory.name) / "frames.pcap"
        cooked = ["-y", "LINUX_SLL"] if interface == "any" else []
        self._process = subprocess.Popen(
            [
                *("ip", "netns", "exec", namespace),
                *("tcpdump", "-i", interface, *cooked, "-n", "-U", "-s", "0", "-Q", way),
                *("-B", str(BUFFER_KIB), "-w", str(self._file)),
            ],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stderr is not None
        while "listening on" not in (line := self._process.stderr.readline()):
            assert line, "tcpdump did not start"

    def stop(self) -> Sightings:
        """End the capture and judge it."""
        time.sleep(HANDED_OVER_S)
        before = -1
        for _ in range(50):  # a machine that others use as well may take longer
            if before == (before := self._file.stat().st_size):
                break
            time.sleep(0.2)
        self._process.send_signal(signal.SIGINT)
        _, said = self._process.communicate(timeout=40)
        dropped = re.search(r"(\d+) packets? dropped by kernel", said)
        seen = Sightings(missed=int(dropped[1]) if dropped else 0)
        for protocol, packet in frames(self._file):
            judge(seen, protocol, packet, self._pods, self._nodes)
        self._directory.cleanup()
        return seen


@contextmanager
def sniffing(
    namespace: str,
    pods: Sequence[str],
    interface: str = "any",
    way: str = "inout",
    nodes: Sequence[str] = (),
) -> Iterator[Sightings]:
    """The sightings are complete, and must be clean, when the block is left without an error."""
    sniffer = Sniffer(namespace, pods, interface, way, nodes)
    result = Sightings()
    try:
        yield result
    finally:
        seen = sniffer.stop()
        for name in Sightings.__dataclass_fields__:
            setattr(result, name, getattr(seen, name))
    result.assert_clean()


def frames(file: Path) -> Iterator[tuple[int, bytes]]:
    """Ethertype and what follows the link's header, of each frame of a capture."""
    data = file.read_bytes()
    link = _PCAP.unpack_from(data)[6]
    header = 16 if link == _COOKED else 14
    at = _PCAP.size
    while at + _RECORD.size <= len(data):
        _, _, kept, _ = _RECORD.unpack_from(data, at)
        frame = data[at + _RECORD.size : at + _RECORD.size + kept]
        at += _RECORD.size + kept
        yield struct.unpack_from(">H", frame, header - 2)[0], frame[header:]


def canary_seen(size: int) -> str:
    """The leak that a packet with the canary is."""
    return f"canary in a packet of {size} bytes"


def judge(
    seen: Sightings,
    protocol: int,
    packet: bytes,
    pods: Sequence[IPv4Network | IPv6Network],
    nodes: Sequence[IPv4Network | IPv6Network] = (),
) -> None:
    """Count one frame, and what of it is a leak."""
    seen.frames += 1
    seen.bytes += len(packet)
    if CANARY in packet:
        seen.add_leak(canary_seen(len(packet)), len(packet))
        return
    version = _ETHERTYPES.get(protocol)
    if version is None or len(packet) < (20 if version == 4 else 40):
        return
    if version == 4:
        source, target, number = packet[12:16], packet[16:20], packet[9]
        payload = packet[(packet[0] & 15) * 4 :]
    else:
        source, target, number, payload = packet[8:24], packet[24:40], packet[6], packet[40:]
    ends = ip_address(source), ip_address(target)
    for end, other in (ends, ends[::-1]):
        if any(end in pod for pod in pods) and not any(other in node for node in nodes):
            seen.add_leak(f"pod address in {ends[0]} > {ends[1]} protocol {number}", len(packet))
            return
    if number == _ESP:
        seen.esp += 1
    if number != 17 or len(payload) < 12:
        return
    port = struct.unpack_from(">H", payload, 2)[0]
    if port == VXLAN_PORT:
        vni = int.from_bytes(payload[12:15]) if len(payload) > 14 else 0
        seen.add_leak(f"tunnel in {ends[0]} > {ends[1]} VNI {vni}", len(packet))
    elif port in (51871, 51872):
        if payload[8] in _WIREGUARD_TYPES and payload[9:12] == b"\0\0\0":
            seen.wireguard += 1
        else:
            seen.add_leak(f"no WireGuard in {ends[0]} > {ends[1]} port {port}", len(packet))
