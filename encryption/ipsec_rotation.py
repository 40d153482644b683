"""When the keys of IPsec come and go. Pure: the time is an argument.

A new key is first one that we receive with. We announce it only then, and a peer sends with it only
when both have announced it. The old one goes when nobody announces it any more, and not before the
time that the operator gives for a rotation.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from encryption.ipsec_keys import KeyFileError, MeshKey


@dataclass(slots=True)
class KeyRing:
    """The keys of this node by ID, and which one is current."""

    duration_s: float
    _keys: dict[int, MeshKey] = field(default_factory=dict, repr=False)
    _since_s: dict[int, float] = field(default_factory=dict)  # when a key stopped being current
    current: int = 0

    @property
    def keys(self) -> tuple[MeshKey, ...]:
        """All that we receive with, the current one last."""
        older = [key for key_id, key in self._keys.items() if key_id != self.current]
        return (*older, self._keys[self.current]) if self.current else ()

    @property
    def key_ids(self) -> tuple[int, ...]:
        """Of ``keys``."""
        return tuple(key.id for key in self.keys)

    @property
    def overhead_bytes(self) -> int:
        """The largest of all keys': a packet must fit whichever encrypts it."""
        return max((key.overhead_bytes for key in self._keys.values()), default=0)

    def load(self, keys: Collection[MeshKey], now_s: float) -> bool:
        """Take what the secret says now, the current key last. Returns whether anything changed.

        Raises ``KeyFileError``, and keeps what is, when a known ID comes with another key.
        """
        for key in keys:
            known = self._keys.get(key.id)
            if known is not None and known != key:
                raise KeyFileError(
                    f"key ID {key.id} of IPsec is in use with another key: "
                    f"write the new key as {key.id % 15 + 1}+"
                )
        before = (self.current, set(self._keys))
        latest = [key.id for key in keys][-1]
        self._keys |= {key.id: key for key in keys}
        for key_id in self._keys:
            if key_id == latest:
                self._since_s.pop(key_id, None)
            else:
                self._since_s.setdefault(key_id, now_s)
        self.current = latest
        return before != (self.current, set(self._keys))

    def retire(self, announced: Collection[int], now_s: float) -> list[int]:
        """Drop old keys whose time is over and that no peer announces. Returns their IDs."""
        gone = [
            key_id
            for key_id, since_s in self._since_s.items()
            if now_s - since_s >= self.duration_s and key_id not in announced
        ]
        for key_id in gone:
            del self._keys[key_id], self._since_s[key_id]
        return gone
