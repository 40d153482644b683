"""What outlives an agent of its WireGuard keys: files in the state directory. Adapter."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from agent.endpoint_store import write_atomically
from encryption import wireguard_keys as keys
from encryption.rotation import Phase
from encryption.wireguard_keys import PrivateKey

log = logging.getLogger("isthmus.agent.encryption")

KEY_FILE = "cilium_wg0.key"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rotation has come. Times are Unix seconds."""

    number: int = 0
    phase: Phase = Phase.STEADY
    since_s: float = 0.0
    begun_s: float = 0.0
    promoted_s: float = 0.0


class StateFiles:
    """Keys and progress; each file is replaced as a whole."""

    def __init__(self, directory: Path) -> None:
        self._main, self._next = directory / KEY_FILE, directory / f"{KEY_FILE}.next"
        self._progress = directory / "wireguard-rotation.json"

    def key(self) -> PrivateKey:
        """The main device's key, made when there is none."""
        return keys.load_or_create(self._main)

    def key_made_s(self) -> float:
        """Unix time of the key's file."""
        return self._main.stat().st_mtime

    def next_key(self) -> PrivateKey:
        """The key of a rotation, made when there is none."""
        return keys.load_or_create(self._next)

    def promote(self) -> PrivateKey:
        """The next key is the main one from now on; the old one is nowhere any more."""
        found = self.next_key()
        keys.save(self._main, found)
        return found

    def forget_next(self) -> None:
        """No error when there is none."""
        self._next.unlink(missing_ok=True)

    def load(self) -> Progress:
        """The progress of a former life."""
        try:
            raw = json.loads(self._progress.read_text())
            return Progress(
                int(raw["number"]),
                Phase(raw["phase"]),
                *(float(raw[name]) for name in ("since_s", "begun_s", "promoted_s")),
            )
        except FileNotFoundError:
            return Progress()
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning('event=rotation-state-unreadable file=%s error="%s"', self._progress, error)
            return Progress()

    def save(self, progress: Progress) -> None:
        """Before anybody is told."""
        raw = {
            "number": progress.number,
            "phase": progress.phase.value,
            "since_s": progress.since_s,
            "begun_s": progress.begun_s,
            "promoted_s": progress.promoted_s,
        }
        write_atomically(self._progress, json.dumps(raw).encode())
