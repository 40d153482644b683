"""Users and roles of a mesh store. Adapter over the port; repeatable.

A user is the common name of a client certificate and has no password. Remote clusters share the
user ``remote``, which reads exactly what a cluster says of itself and writes nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from kvstore.port import AuthAdmin, prefix_end
from wire.etcd import keys

REMOTE = "remote"
LOCAL = "local"
ROOT = "root"


@dataclass(frozen=True, slots=True)
class Permission:
    """Read access to one key, or to all keys that begin with a prefix."""

    key: str
    prefix: bool = True


def remote_permissions(cluster: str) -> tuple[Permission, ...]:
    """What other clusters may read of ``cluster``."""
    return (
        Permission(keys.HEARTBEAT),
        Permission(keys.STATE_PREFIX),
        Permission(keys.cluster_config(cluster), prefix=False),
        Permission(keys.canary_prefix(cluster)),
    )


def local_permissions() -> tuple[Permission, ...]:
    """What agents of the store's own cluster may read: what was mirrored from others."""
    return (
        Permission(keys.HEARTBEAT),
        Permission(keys.CACHE_PREFIX),
        Permission(keys.CLUSTER_CONFIG_PREFIX),
        Permission(keys.SYNCED_PREFIX),
    )


async def bootstrap(store: AuthAdmin, cluster: str, remote_users: Iterable[str] = ()) -> None:
    """Create roles and users and turn authentication on.

    ``remote_users`` are further names with the role of remote clusters, one per peer.
    """
    for role, permissions in (
        (REMOTE, remote_permissions(cluster)),
        (LOCAL, local_permissions()),
    ):
        await store.add_role(role)
        for permission in permissions:
            end = prefix_end(permission.key).decode() if permission.prefix else ""
            await store.grant_permission(role, permission.key, end, read=True, write=False)
    await store.add_role(ROOT)
    for user, role in (
        (ROOT, ROOT),
        (f"admin-{cluster}", ROOT),
        (f"local-{cluster}", LOCAL),
        (REMOTE, REMOTE),
        *((user, REMOTE) for user in remote_users),
    ):
        await store.add_user(user)
        await store.grant_role(user, role)
    await store.enable_auth()
