"""WireGuard of ``wireguard-go`` on a TUN device, over its socket. Adapter; blocking.

The process is not ours: it is asked for by a file and kept by ``encryption.keeper``, which is
another process than the agent's, so that an agent that ends takes no packet with it.
"""

import errno
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from encryption import links
from encryption import wireguard_text as text
from encryption.device import DeviceState, PeerChange
from encryption.peers import PublicKey
from encryption.wireguard_keys import PrivateKey

SOCKETS = Path("/var/run/wireguard")  # where wireguard-go puts them
START_S = 20.0
_TIMEOUT_S = 10.0
_LOOK_S = 0.02
_AT_ONCE = 256  # peers in one message


class UserspaceDevice:
    """A TUN device whose other end is ``wireguard-go``."""

    kind = "userspace"

    def __init__(self, name: str, wanted: Path, sockets: Path = SOCKETS) -> None:
        """``wanted``: the directory in which the keeper looks for names of devices."""
        self.name, self._wanted = name, wanted
        self._socket = sockets / f"{name}.sock"

    def ensure(self, mtu: int) -> int:
        """Ask for the process and wait until it answers. Raises ``OSError``."""
        self._wanted.mkdir(parents=True, exist_ok=True)
        (self._wanted / self.name).touch()
        deadline = time.monotonic() + START_S
        while not (links.find(self.name) and self.answers()):
            if time.monotonic() > deadline:
                raise OSError(
                    errno.ETIMEDOUT,
                    f"no wireguard-go serves {self.name} after {START_S:g} s: does the container "
                    "`wireguard` run beside the agent, and is wireguard-go installed?",
                )
            time.sleep(_LOOK_S)
        return links.adjust(self.name, mtu)

    def answers(self) -> bool:
        """Whether the process is there."""
        try:
            self._ask("get=1\n\n")
        except OSError:
            return False
        return True

    def configure(self, key: PrivateKey, port: int, mark: int) -> None:
        """Set the device's own half; a key that it has already is not set again."""
        lines = []
        if self.read().public_key != key.public():
            lines.append(f"private_key={key.reveal().hex()}")
        lines += [f"listen_port={port}", f"fwmark={mark}"]
        _, code = self._ask("set=1\n" + "\n".join(lines) + "\n\n")
        if code:
            raise OSError(code, f"configure device {self.name} on UDP port {port}: errno {code}")

    def read(self) -> DeviceState:
        """All of it."""
        pairs, code = self._ask("get=1\n\n")
        if code:
            raise OSError(code, f"read device {self.name}: errno {code}")
        secret = next((value for key, value in pairs if key == "private_key"), "")
        own = PrivateKey(bytes.fromhex(secret)).public() if secret.strip("0") else None
        try:
            return text.parse_state(pairs, own)
        except text.ProtocolError as error:
            raise OSError(errno.EPROTO, f"read device {self.name}: {error}") from error

    def change(self, changes: Sequence[PeerChange]) -> Mapping[PublicKey, OSError]:
        """Many in one message; when it fails, one by one, so that each fails alone."""
        errors: dict[PublicKey, OSError] = {}
        for start in range(0, len(changes), _AT_ONCE):
            chunk = changes[start : start + _AT_ONCE]
            _, code = self._ask(text.render(chunk))
            for change in chunk if code else ():
                _, code = self._ask(text.render([change]))
                if code:
                    said = f"peer {change.key} of {self.name}: errno {code}"
                    errors[change.key] = OSError(code, said)
        return errors

    def remove(self) -> None:
        """The keeper ends the process when nobody asks for it any more; the device goes with it."""
        (self._wanted / self.name).unlink(missing_ok=True)
        deadline = time.monotonic() + _TIMEOUT_S
        while links.find(self.name) is not None:
            if time.monotonic() > deadline:
                raise OSError(errno.ETIMEDOUT, f"device {self.name} does not go away")
            time.sleep(_LOOK_S)

    def _ask(self, request: str) -> tuple[Sequence[tuple[str, str]], int]:
        path = self._socket
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_S)
            try:
                connection.connect(str(path))
                connection.sendall(request.encode())
                answer = bytearray()
                while not answer.endswith(b"\n\n"):
                    part = connection.recv(1 << 16)
                    if not part:
                        break
                    answer += part
            except OSError as error:
                code = error.errno or errno.ETIMEDOUT
                raise OSError(code, f"{path}: {os.strerror(code)}") from error
        try:
            return text.answer(answer.decode())
        except (text.ProtocolError, UnicodeDecodeError) as error:
            raise OSError(errno.EPROTO, f"{path}: {error}") from error
