"""Endpoints on disk, so that a restart loses none. Adapter.

One directory per endpoint, ``state/<id>/endpoint.json``. A file is written aside and renamed into
place, so that a kill at any moment leaves the old one or the new one.
"""

import contextlib
import logging
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from model.address import Address, parse_address
from model.endpoint import EndpointId, EndpointState, LocalEndpoint
from model.identity import Identity, NumericIdentity
from model.labels import Label, Labels

log = logging.getLogger("isthmus.agent.endpoints")
_FILE = "endpoint.json"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A pod's attachment with everything we know about it."""

    local: LocalEndpoint
    identity: Identity
    container_id: str
    container_interface: str
    netns: str
    namespace: str = ""
    pod: str = ""
    pod_uid: str = ""
    state: EndpointState = EndpointState.READY

    @property
    def id(self) -> EndpointId:
        """Its number on this node."""
        return self.local.id

    @property
    def attachment(self) -> tuple[str, str]:
        """What the container runtime knows it by."""
        return self.container_id, self.container_interface

    @property
    def owner(self) -> str:
        """Who has its address, in words."""
        return f"{self.namespace}/{self.pod}" if self.pod else self.container_id

    @property
    def address(self) -> Address:
        """Its first address."""
        return self.local.addresses[0]

    def with_identity(self, identity: Identity) -> "Endpoint":
        """The same attachment with other labels."""
        return replace(self, identity=identity, local=replace(self.local, identity=identity.id))


class _File(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Version 1 of the file; fields are added, never given another meaning."""

    version: int = 1
    id: int
    container_id: str
    container_interface: str
    netns: str
    namespace: str
    pod: str
    pod_uid: str
    interface: str
    ifindex: int
    mac: str
    host_mac: str
    addresses: list[str]
    identity: int
    labels: list[tuple[str, str, str]]  # source, key, value


def encode(endpoint: Endpoint) -> bytes:
    """The file's content."""
    local = endpoint.local
    return msgspec.json.encode(
        _File(
            id=local.id,
            container_id=endpoint.container_id,
            container_interface=endpoint.container_interface,
            netns=endpoint.netns,
            namespace=endpoint.namespace,
            pod=endpoint.pod,
            pod_uid=endpoint.pod_uid,
            interface=local.interface,
            ifindex=local.ifindex,
            mac=local.mac.hex(":"),
            host_mac=local.host_mac.hex(":"),
            addresses=[str(a) for a in local.addresses],
            identity=endpoint.identity.id,
            labels=[(i.source, i.key, i.value) for i in endpoint.identity.labels],
        )
    )


def decode(data: bytes) -> Endpoint:
    """Inverse of ``encode``. Raises ``ValueError``."""
    file = msgspec.json.decode(data, type=_File)
    if not file.addresses:
        raise ValueError("it has no address")
    identity = NumericIdentity(file.identity)
    return Endpoint(
        local=LocalEndpoint(
            id=EndpointId(file.id),
            identity=identity,
            ifindex=file.ifindex,
            interface=file.interface,
            mac=bytes.fromhex(file.mac.replace(":", "")),
            host_mac=bytes.fromhex(file.host_mac.replace(":", "")),
            addresses=tuple(parse_address(a) for a in file.addresses),
        ),
        identity=Identity(identity, Labels.of(Label(k, v, s) for s, k, v in file.labels)),
        container_id=file.container_id,
        container_interface=file.container_interface,
        netns=file.netns,
        namespace=file.namespace,
        pod=file.pod,
        pod_uid=file.pod_uid,
        state=EndpointState.RESTORING,
    )


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file as a whole; what a kill leaves aside is overwritten by the next write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + "_next")
    aside.write_bytes(data)
    os.replace(aside, path)


class EndpointStore:
    """The state directory. Files are small and local: calls take well under a millisecond."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, endpoint: Endpoint) -> None:
        """Create or replace."""
        write_atomically(self.directory / str(endpoint.id) / _FILE, encode(endpoint))

    def remove(self, number: EndpointId) -> None:
        """No error when there is none."""
        shutil.rmtree(self.directory / str(number), ignore_errors=True)

    def load(self) -> list[Endpoint]:
        """Every endpoint; a file that is not whole is reported, and removed with its directory."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for entry in sorted(self.directory.iterdir()):
                if not entry.name.isdigit():
                    continue
                try:
                    found.append(decode((entry / _FILE).read_bytes()))
                except (OSError, ValueError) as error:
                    log.warning(
                        'event=endpoint-dropped path=%s error="%s": the pod must be created anew',
                        entry,
                        error,
                    )
                    shutil.rmtree(entry, ignore_errors=True)
        return found
