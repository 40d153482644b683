"""``isthmus-wireguard``: keeps ``wireguard-go`` running for the devices that the agent asks for.

A process of its own, in a container of its own beside the agent's, so that whatever happens to the
agent, packets go on being encrypted. The agent asks by an empty file named like the device in
``--wanted``; a device whose file is gone is ended. Adapter; it decides nothing and holds no key.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from encryption import tun

LOOK_S = 0.1
AGAIN_S = 1.0  # between a process that ended by itself and the next
PROGRAM = "wireguard-go"
_NAME = re.compile(r"ist_wg[0-9]")


class Keeper:
    """Processes by device."""

    def __init__(self, wanted: Path) -> None:
        self._wanted = wanted
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._not_before_s: dict[str, float] = {}
        self._is_ours_to_open = tun.is_needed(_version())

    def look(self, now_s: float) -> None:
        """Start what is asked for, end what is not, notice what has ended."""
        asked = {p.name for p in self._wanted.iterdir() if _NAME.fullmatch(p.name)}
        for name, process in list(self._running.items()):
            if process.poll() is not None:
                print(f"event=ended device={name} code={process.returncode}", flush=True)
                del self._running[name]
                self._not_before_s[name] = now_s + AGAIN_S
            elif name not in asked:
                process.terminate()
        for name in sorted(asked - self._running.keys()):
            if now_s >= self._not_before_s.get(name, 0.0):
                try:
                    self._start(name)
                except OSError as error:
                    print(f'event=failed device={name} error="{error}"', flush=True)
                    self._not_before_s[name] = now_s + AGAIN_S

    def _start(self, name: str) -> None:
        # A socket that a killed process left would make the new one refuse to start.
        Path(f"/var/run/wireguard/{name}.sock").unlink(missing_ok=True)
        environment = os.environ | {"LOG_LEVEL": "error", "WG_PROCESS_FOREGROUND": "1"}
        with ExitStack() as stack:
            descriptors = []
            if self._is_ours_to_open:
                descriptors.append(tun.opened(name))
                stack.callback(os.close, descriptors[0])
                environment["WG_TUN_FD"] = str(descriptors[0])
                _wait_for_more(name)
            self._running[name] = subprocess.Popen(
                [PROGRAM, "-f", name],
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
            )
        print(f"event=started device={name} pid={self._running[name].pid}", flush=True)

    def close(self) -> None:
        """End all of them."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            process.wait()


def _version() -> str:
    """What the program says; nothing, where it is not installed yet."""
    try:
        return subprocess.run(
            [PROGRAM, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True
        ).stdout
    except OSError:
        return ""


def _wait_for_more(name: str) -> None:
    try:
        tun.wait_for_more(name)
    except OSError as error:
        said = f"{error}; packets come one by one, which is slower"
        print(f'event=unjoined device={name} error="{said}"', flush=True)


def main() -> None:
    """Until SIGTERM."""
    parser = argparse.ArgumentParser(prog="isthmus-wireguard", description=__doc__)
    parser.add_argument("--wanted", type=Path, default=Path("/var/run/cilium/wireguard"))
    wanted: Path = parser.parse_args().wanted
    wanted.mkdir(parents=True, exist_ok=True)
    keeper = Keeper(wanted)

    def stop(number: int, frame: FrameType | None) -> None:
        keeper.close()
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while True:
        keeper.look(time.monotonic())
        time.sleep(LOOK_S)


if __name__ == "__main__":
    main()
