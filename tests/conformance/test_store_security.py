"""What the certificate of another cluster opens in our store: every call that a real etcd has.

The table says what happens to each. What may be called although it is of no use to a reader is in
it, too: the day on which etcd refuses it, or on which it does more than now, is to be noticed.
"""

import asyncio
import socket
import ssl
from collections.abc import Iterator

import grpc.aio
import pytest
import yaml

from cli.cluster import MANIFESTS
from kvstore.advisories import Weakness, weaknesses
from tests.support.etcd import Etcd, mesh_etcd
from tests.support.etcd_raw import Fields, RawEtcd, message

pytestmark = pytest.mark.root

OWN, FOREIGN, LEASED = b"cilium/state/x", b"cilium/cache/x", b"cilium/state/leased"
FOREIGN_PREFIX = [(1, b"cilium/cache/"), (2, b"cilium/cache0")]
# The lease numbers are ours, so that the table can name them.
LEASE_OF_KEYS, LEASE_OF_NOTHING = 4711, 4712
KV, WATCH, LEASE = "KV/", "Watch/Watch", "Lease/Lease"
LOCK, ELECTION = "/v3lockpb.Lock/", "/v3electionpb.Election/"


def put(key: bytes, *more: tuple[int, int]) -> Fields:
    return [(2, [(1, key), (2, b"evil"), *more])]


def read(key: bytes) -> Fields:
    return [(1, [(1, key)])]


def delete(key: bytes) -> Fields:
    return [(3, [(1, key), (3, 1)])]


def txn(*operations: Fields) -> Fields:
    return [(2, operation) for operation in operations]


def compare(key: bytes, *more: tuple[int, bytes]) -> tuple[int, Fields]:
    return 1, [(1, 0), (2, 3), (3, key), (7, b"secret"), *more]


def watch(*fields: tuple[int, int | bytes]) -> Fields:
    return [(1, [*fields, (3, 1), (6, 1)])]


LEADER = [(1, b"cilium/state/e"), (2, OWN), (3, 2), (4, LEASE_OF_KEYS)]
REFUSED: list[tuple[str, str, Fields]] = [
    ("read foreign", f"{KV}Range", [(1, FOREIGN)]),
    ("read foreign, old revision", f"{KV}Range", [(1, FOREIGN), (4, 3)]),
    ("read foreign, from this member", f"{KV}Range", [(1, FOREIGN), (7, 1)]),
    ("count foreign", f"{KV}Range", [*FOREIGN_PREFIX, (9, 1)]),
    ("keys of foreign", f"{KV}Range", [*FOREIGN_PREFIX, (8, 1)]),
    ("read all", f"{KV}Range", [(1, b"\0"), (2, b"\0")]),
    ("read from ours on", f"{KV}Range", [(1, b"cilium/state/"), (2, b"\0")]),
    ("read one key more", f"{KV}Range", [(1, b"cilium/state/"), (2, b"cilium/state1")]),
    ("other cluster's config", f"{KV}Range", [(1, b"cilium/cluster-config/c2")]),
    ("configs", f"{KV}Range", [(1, b"cilium/cluster-config/"), (2, b"cilium/cluster-config0")]),
    ("config, longer name", f"{KV}Range", [(1, b"cilium/cluster-config/c10")]),
    ("canaries of another", f"{KV}Range", [(1, b"cilium/synced/c2/x")]),
    ("canaries, longer name", f"{KV}Range", [(1, b"cilium/synced/c10/x")]),
    ("put", f"{KV}Put", [(1, OWN), (2, b"evil")]),
    ("put, previous value", f"{KV}Put", [(1, OWN), (4, 1)]),
    ("put, same value", f"{KV}Put", [(1, OWN), (5, 1)]),
    ("put on a lease", f"{KV}Put", [(1, b"cilium/state/new"), (3, LEASE_OF_KEYS)]),
    ("put foreign", f"{KV}Put", [(1, FOREIGN), (4, 1)]),
    ("delete", f"{KV}DeleteRange", [(1, OWN)]),
    ("delete, previous value", f"{KV}DeleteRange", [(1, FOREIGN), (3, 1)]),
    ("delete what is not", f"{KV}DeleteRange", [(1, b"cilium/state/none")]),
    ("transaction puts", f"{KV}Txn", txn(put(OWN))),
    ("transaction puts, previous value", f"{KV}Txn", txn(put(OWN, (4, 1)))),
    ("transaction puts on a lease", f"{KV}Txn", txn(put(OWN, (3, LEASE_OF_KEYS)))),
    ("transaction deletes", f"{KV}Txn", txn(delete(OWN))),
    ("transaction reads foreign", f"{KV}Txn", txn(read(OWN), read(FOREIGN))),
    ("transaction compares foreign", f"{KV}Txn", [compare(FOREIGN), *txn(read(OWN))]),
    ("compares a foreign range", f"{KV}Txn", [compare(b"cilium/cache/", (64, b"cilium/cache0"))]),
    ("branch not taken puts", f"{KV}Txn", [compare(OWN), *txn(put(OWN))]),
    ("watch of leased foreign", WATCH, watch(*FOREIGN_PREFIX)),
    ("watch foreign key", WATCH, watch((1, FOREIGN))),
    ("watch wider", WATCH, watch((1, b"cilium/"), (2, b"cilium0"))),
    ("watch all", WATCH, watch((1, b"\0"), (2, b"\0"))),
    ("watch one key more", WATCH, watch((1, b"cilium/state/"), (2, b"cilium/state1"))),
    ("revoke a lease of keys", f"{LEASE}Revoke", [(1, LEASE_OF_KEYS)]),
    ("lock", f"{LOCK}Lock", [(1, b"cilium/state/lock")]),
    ("lock on a lease", f"{LOCK}Lock", [(1, b"cilium/.initlock"), (2, LEASE_OF_NOTHING)]),
    ("unlock", f"{LOCK}Unlock", [(1, OWN)]),
    ("campaign", f"{ELECTION}Campaign", [(1, b"cilium/state/e"), (2, LEASE_OF_KEYS), (3, b"v")]),
    ("proclaim", f"{ELECTION}Proclaim", [(1, LEADER), (2, b"v")]),
    ("leader of foreign", f"{ELECTION}Leader", [(1, FOREIGN)]),
    ("resign", f"{ELECTION}Resign", [(1, LEADER)]),
    ("hash", "Maintenance/Hash", []),
    ("hash of keys", "Maintenance/HashKV", []),
    ("snapshot", "Maintenance/Snapshot", []),
    ("defragment", "Maintenance/Defragment", []),
    ("move leader", "Maintenance/MoveLeader", [(1, 5)]),
    ("add a member", "Cluster/MemberAdd", [(1, b"http://127.0.0.1:1")]),
    ("remove a member", "Cluster/MemberRemove", [(1, 5)]),
    ("update a member", "Cluster/MemberUpdate", [(1, 5), (2, b"http://127.0.0.1:1")]),
    ("promote a member", "Cluster/MemberPromote", [(1, 5)]),
    ("users", "Auth/UserList", []),
    ("roles", "Auth/RoleList", []),
    ("other user", "Auth/UserGet", [(1, b"root")]),
    ("other role", "Auth/RoleGet", [(1, b"local")]),
    ("add a user", "Auth/UserAdd", [(1, b"mallory"), (3, [(1, 1)])]),
    ("delete a user", "Auth/UserDelete", [(1, b"admin-c1")]),
    ("own password", "Auth/UserChangePassword", [(1, b"remote"), (2, b"x")]),
    ("become root", "Auth/UserGrantRole", [(1, b"remote"), (2, b"root")]),
    ("take a role", "Auth/UserRevokeRole", [(1, b"admin-c1"), (2, b"root")]),
    ("add a role", "Auth/RoleAdd", [(1, b"mallory")]),
    ("delete a role", "Auth/RoleDelete", [(1, b"local")]),
    ("widen its role", "Auth/RoleGrantPermission", [(1, b"remote"), (2, [(1, 2), (2, OWN)])]),
    ("narrow a role", "Auth/RoleRevokePermission", [(1, b"local"), (2, OWN)]),
    ("authentication off", "Auth/AuthDisable", []),
    ("authentication on", "Auth/AuthEnable", []),
    ("log in", "Auth/Authenticate", [(1, b"root"), (2, b"")]),
]
ALLOWED: list[tuple[str, str, Fields]] = [
    ("read", f"{KV}Range", [(1, b"cilium/state/"), (2, b"cilium/state0")]),
    ("its config", f"{KV}Range", [(1, b"cilium/cluster-config/c1")]),
    ("canaries", f"{KV}Range", [(1, b"cilium/synced/c1/"), (2, b"cilium/synced/c10")]),
    ("heartbeat", f"{KV}Range", [(1, b"cilium/.heartbeat"), (2, b"cilium/.heartbeau")]),
    ("transaction reads", f"{KV}Txn", txn(read(OWN))),
    ("watch", WATCH, watch((1, b"cilium/state/"), (2, b"cilium/state0"))),
    ("own user", "Auth/UserGet", [(1, b"remote")]),
    ("own role", "Auth/RoleGet", [(1, b"remote")]),
    ("status", "Maintenance/Status", []),
    ("members", "Cluster/MemberList", []),
]
# etcd 3.4 checks these for nobody. None of them changes a key, and none shows more than the names
# of keys (``time to live``): docs/adr/0090-store-security.md says what follows for us.
UNCHECKED: list[tuple[str, str, Fields]] = [
    ("grant a lease", f"{LEASE}Grant", [(1, 60)]),
    ("prolong another's lease", f"{LEASE}KeepAlive", [(1, LEASE_OF_KEYS)]),
    ("time to live", f"{LEASE}TimeToLive", [(1, LEASE_OF_KEYS), (2, 1)]),
    ("leases", f"{LEASE}Leases", []),
    ("revoke a lease of nothing", f"{LEASE}Revoke", [(1, LEASE_OF_NOTHING)]),
    ("compact", f"{KV}Compact", [(1, 2)]),
    ("list alarms", "Maintenance/Alarm", []),
    ("clear an alarm", "Maintenance/Alarm", [(1, 2), (3, 1)]),
]
NESTED_READ = txn([(4, txn(read(FOREIGN)))])
NESTED_PUT = txn([(4, txn(put(b"cilium/state/nested")))])
# From a key that may be read on, to the end of all keys: asked for by an end of one zero byte.
WATCH_ON = watch((1, b"cilium/.heartbeat"), (2, b"\0"))


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with mesh_etcd("c1") as found:
        asyncio.run(fill(found))
        yield found


async def fill(etcd: Etcd) -> None:
    admin = await etcd.store("admin-c1")
    raw = RawEtcd(etcd.user("admin-c1"))
    for key in (OWN, FOREIGN, b"cilium/cluster-config/c1", b"cilium/synced/c1/x"):
        await admin.put(key.decode(), b"secret")
    for lease in (LEASE_OF_KEYS, LEASE_OF_NOTHING):
        await raw.call(f"{LEASE}Grant", message([(1, 600), (2, lease)]))
    await admin.put(LEASED.decode(), b"1", LEASE_OF_KEYS)
    await raw.close()
    await admin.close()


async def content(etcd: Etcd) -> list[tuple[str, bytes, int]]:
    admin = await etcd.store("admin-c1")
    try:
        return [(r.key, r.value, r.mod_revision) for r in (await admin.range("")).rows]
    finally:
        await admin.close()


async def outcome(etcd: Etcd, method: str, fields: Fields) -> str:
    """``allowed``, or the words of the refusal."""
    raw = RawEtcd(etcd.user("remote"))
    try:
        answer = await raw.call(method, message(fields))
    except grpc.aio.AioRpcError as error:
        return error.details() or error.code().name
    finally:
        await raw.close()
    # A watch is refused on its stream, in words.
    return (
        "permission denied"
        if b"PermissionDenied" in answer or b"permission denied" in answer
        else "allowed"
    )


@pytest.mark.parametrize(("what", "method", "fields"), REFUSED, ids=[r[0] for r in REFUSED])
async def test_refused(etcd: Etcd, what: str, method: str, fields: Fields) -> None:
    """Whatever is not reading the four prefixes is refused and changes nothing."""
    before = await content(etcd)
    said = await outcome(etcd, method, fields)
    words = {"log in": "authentication failed", "move leader": "bad leader"}
    assert words.get(what, "permission denied") in said
    assert await content(etcd) == before


@pytest.mark.parametrize(("what", "method", "fields"), ALLOWED, ids=[r[0] for r in ALLOWED])
async def test_allowed(etcd: Etcd, what: str, method: str, fields: Fields) -> None:
    """What a reader needs; and what it may know of itself."""
    assert await outcome(etcd, method, fields) == "allowed"


@pytest.mark.parametrize(("what", "method", "fields"), UNCHECKED, ids=[r[0] for r in UNCHECKED])
async def test_unchecked_but_without_effect_on_keys(
    etcd: Etcd, what: str, method: str, fields: Fields
) -> None:
    """etcd lets anybody do these; no key changes by them."""
    before = await content(etcd)
    said = await outcome(etcd, method, fields)
    assert said == "allowed" or "not found" in said or "compacted" in said
    assert await content(etcd) == before


@pytest.mark.parametrize(
    ("weakness", "method", "fields"),
    [
        (Weakness.NESTED, f"{KV}Txn", NESTED_READ),
        (Weakness.NESTED, f"{KV}Txn", NESTED_PUT),
        (Weakness.WATCH_ON, WATCH, WATCH_ON),
    ],
    ids=["nested read", "nested put", "watch on"],
)
async def test_known_weaknesses_are_known(
    etcd: Etcd, weakness: Weakness, method: str, fields: Fields
) -> None:
    """An etcd lets these through exactly when we say so of its version."""
    admin = await etcd.store("admin-c1")
    version = (await admin.status()).version
    await admin.close()
    said = await outcome(etcd, method, fields)
    assert (said == "allowed") == (weakness in weaknesses(version))


def shake(etcd: Etcd, version: ssl.TLSVersion) -> tuple[str | None, str | None]:
    """What a handshake of just this version agrees on. Raises ``ssl.SSLError``."""
    config = etcd.user("remote")
    context = ssl.create_default_context(cafile=config.ca_file)
    context.load_cert_chain(config.cert_file, config.key_file)
    context.set_alpn_protocols(["h2"])
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", etcd.port), 30) as connection,
        context.wrap_socket(connection, server_hostname="127.0.0.1") as tls,
    ):
        return tls.version(), tls.selected_alpn_protocol()


def deployed_flags() -> list[str]:
    """What the manifest gives to etcd about TLS and its other doors."""
    (deployment,) = (
        item
        for item in yaml.safe_load_all((MANIFESTS / "clustermesh.yaml").read_text())
        if item["kind"] == "Deployment"
    )
    containers = deployment["spec"]["template"]["spec"]["containers"]
    (arguments,) = (c["args"] for c in containers if c["name"] == "etcd")
    return [a for a in arguments if a.startswith(("--cipher-suites", "--enable-grpc-gateway"))]


def test_as_deployed_only_tls_1_3_is_spoken() -> None:
    """With certificates of ours; our own client speaks it, and the HTTP gateway is shut."""
    flags = deployed_flags()
    assert len(flags) == 2
    with mesh_etcd("c1") as etcd:
        etcd.kill()
        etcd.start(*flags)

        async def status() -> str:
            store = await etcd.store("remote")
            try:
                return (await store.status()).version
            finally:
                await store.close()

        assert asyncio.run(status())
        assert shake(etcd, ssl.TLSVersion.TLSv1_3) == ("TLSv1.3", "h2")
        with pytest.raises(ssl.SSLError):
            shake(etcd, ssl.TLSVersion.TLSv1_2)
