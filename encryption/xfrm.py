"""The kernel's IPsec states and policies as ``Target`` tables. Adapter.

A state's key cannot be changed in place: such a state is removed and added again, and the sender's
next packets open a new replay window.
"""

import errno
import os
import socket
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from encryption import ipsec
from encryption import xfrm_messages as messages
from encryption.ipsec import Policy, PolicyId, State, StateId

_NETLINK_XFRM = 6
_DATAGRAM = 1 << 17
_TIMEOUT_S = 10.0
_ERRORS_FILE = Path("/proc/thread-self/net/xfrm_stat")

Call = Callable[..., Awaitable[Any]]  # runs a function in the thread of the node's namespace


class States:
    """Security associations with marks of ours."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def read(self) -> Mapping[StateId, State]:
        """Every state that is ours."""
        found: dict[StateId, State] = await self._call(_read_states)
        return found

    async def upsert(self, rows: Sequence[tuple[StateId, State]]) -> Mapping[StateId, OSError]:
        """Add states; one with another key is replaced. Returns the rows that failed."""
        errors: dict[StateId, OSError] = await self._call(_write_states, rows)
        return errors

    async def delete(self, keys: Collection[StateId]) -> Mapping[StateId, OSError]:
        """Remove states. Returns the rows that failed."""
        errors: dict[StateId, OSError] = await self._call(_delete_states, keys)
        return errors

    async def last_sequence(self) -> int:
        """The highest sequence number that any state of ours has sent."""
        found: int = await self._call(_last_sequence)
        return found


class Policies:
    """Policies with marks of ours, and those for everybody."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def read(self) -> Mapping[PolicyId, Policy]:
        """Every policy that is ours."""
        found: dict[PolicyId, Policy] = await self._call(_read_policies)
        return found

    async def upsert(self, rows: Sequence[tuple[PolicyId, Policy]]) -> Mapping[PolicyId, OSError]:
        """Add or replace policies. Returns the rows that failed."""
        errors: dict[PolicyId, OSError] = await self._call(_write_policies, rows)
        return errors

    async def delete(self, keys: Collection[PolicyId]) -> Mapping[PolicyId, OSError]:
        """Remove policies. Returns the rows that failed."""
        errors: dict[PolicyId, OSError] = await self._call(_delete_policies, keys)
        return errors


async def error_counters(call: Call) -> dict[str, int]:
    """The kernel's counts of packets that IPsec refused, by the kernel's name; since boot."""
    text: str = await call(_ERRORS_FILE.read_text, "ascii")
    rows = (line.split() for line in text.splitlines())
    return {words[0]: int(words[1]) for words in rows if len(words) == 2}


class _Socket:
    """The kernel's IPsec socket in the calling thread's network namespace."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_XFRM)
        except OSError as error:
            raise OSError(
                error.errno, f"open the kernel's IPsec socket (XFRM): {error.strerror}"
            ) from error
        self._socket.settimeout(_TIMEOUT_S)
        self._sequence = 0

    def __enter__(self) -> "_Socket":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def dump(self, kind: int) -> Iterator[bytes]:
        """Bodies of all states or policies."""
        self._sequence += 1
        self._socket.send(messages.dump(kind, self._sequence))
        while True:
            for answer, _, body in messages.answers(self._socket.recv(_DATAGRAM)):
                if answer == messages.DONE:
                    return
                if answer == messages.ERROR:
                    code = messages.error_of(body)
                    raise OSError(code, f"list the kernel's IPsec: {os.strerror(code)}")
                yield body

    def do(self, make: Callable[[int], bytes]) -> int:
        """Send one request. Returns its error number."""
        self._sequence += 1
        self._socket.send(make(self._sequence))
        while True:
            for answer, sequence, body in messages.answers(self._socket.recv(_DATAGRAM)):
                if answer == messages.ERROR and sequence == self._sequence:
                    return messages.error_of(body)


def _read_states() -> dict[StateId, State]:
    with _Socket() as kernel:
        rows = map(messages.read_state, kernel.dump(messages.GET_STATE))
        return {row[0]: row[1] for row in rows if row and ipsec.is_ours_state(row[0])}


def _last_sequence() -> int:
    with _Socket() as kernel:
        rows = map(messages.read_state, kernel.dump(messages.GET_STATE))
        return max((row[2] for row in rows if row and ipsec.is_ours_state(row[0])), default=0)


def _write_states(rows: Sequence[tuple[StateId, State]]) -> dict[StateId, OSError]:
    errors: dict[StateId, OSError] = {}
    with _Socket() as kernel:
        for key, state in rows:
            add = partial(messages.new_state, key, state)
            code = kernel.do(add)
            if code == errno.EEXIST and key in _read_states():
                kernel.do(partial(messages.delete_state, key))
                code = kernel.do(add)
            if code:
                errors[key] = _state_error("add", key, code)
    return errors


def _delete_states(keys: Collection[StateId]) -> dict[StateId, OSError]:
    errors: dict[StateId, OSError] = {}
    with _Socket() as kernel:
        # By an address and an SPI the kernel may find a stranger's state in place of ours.
        for key in _read_states().keys() & set(keys):
            code = kernel.do(partial(messages.delete_state, key))
            if code and code != errno.ESRCH:
                errors[key] = _state_error("remove", key, code)
    return errors


def _state_error(what: str, key: StateId, code: int) -> OSError:
    name = f"IPsec state of key {key.spi} to {key.receiver}"
    if code == errno.EEXIST:
        return FileExistsError(code, f"{what} {name}: there is one that is not ours, remove it")
    hint = ""
    if code in (errno.ENOSYS, errno.ENOENT, errno.EPROTONOSUPPORT):
        hint = ": this kernel lacks the algorithm, or ESP (modules esp4, gcm)"
    return OSError(code, f"{what} {name}: {os.strerror(code)}{hint}")


def _read_policies() -> dict[PolicyId, Policy]:
    with _Socket() as kernel:
        rows = map(messages.read_policy, kernel.dump(messages.GET_POLICY))
        return {row[0]: row[1] for row in rows if row and ipsec.is_ours_policy(*row)}


def _write_policies(rows: Sequence[tuple[PolicyId, Policy]]) -> dict[PolicyId, OSError]:
    errors: dict[PolicyId, OSError] = {}
    with _Socket() as kernel:
        for key, policy in rows:
            code = kernel.do(partial(messages.write_policy, key, policy, messages.NEW_POLICY))
            if code == errno.EEXIST and key in _read_policies():
                code = kernel.do(
                    partial(messages.write_policy, key, policy, messages.UPDATE_POLICY)
                )
            if code:
                errors[key] = _policy_error("write", key, code)
    return errors


def _delete_policies(keys: Collection[PolicyId]) -> dict[PolicyId, OSError]:
    errors: dict[PolicyId, OSError] = {}
    with _Socket() as kernel:
        for key in keys:
            code = kernel.do(partial(messages.delete_policy, key))
            if code and code != errno.ENOENT:
                errors[key] = _policy_error("remove", key, code)
    return errors


def _policy_error(what: str, key: PolicyId, code: int) -> OSError:
    name = f"IPsec policy {key.direction.name.lower()} from {key.source} to {key.destination}"
    if code == errno.EEXIST:
        return FileExistsError(code, f"{what} {name}: there is one that is not ours, remove it")
    return OSError(code, f"{what} {name}: {os.strerror(code)}")
