"""Who reads one store with the same certificates shares one connection."""

import pytest

from kvstore.channels import Channel
from kvstore.etcd import connect
from kvstore.port import UnavailableError
from tests.support.etcd import Etcd, plain_etcd, when_up

pytestmark = pytest.mark.root


async def test_alike_means_shared(secured: Etcd) -> None:
    """Another user, or the same with a renewed certificate, has a connection of its own."""
    config, other = secured.user("remote"), secured.user("admin-c1")
    (endpoint,) = config.targets()
    one, two, third = Channel(endpoint, config), Channel(endpoint, config), Channel(endpoint, other)
    assert one.grpc is two.grpc
    assert third.grpc is not one.grpc
    renewed = Channel(endpoint, secured.user("remote"))  # the files hold another certificate now
    assert renewed.grpc is not one.grpc
    for channel in (one, two, third, renewed):
        await channel.close()


async def test_the_last_one_closes(secured: Etcd) -> None:
    """A store that is closed, even twice, takes nothing from another."""
    config = secured.user("admin-c1")
    first, second = await when_up(config), await connect(config)
    assert first._channel is second._channel
    await first.close()
    await first.close()
    await second.put("cilium/state/x", b"1")
    await second.close()


async def test_what_failed_is_not_given_to_anybody_new() -> None:
    """After a failure of one user a new one connects anew, while the old still holds the old."""
    with plain_etcd() as etcd:
        old, failed = await etcd.store(), await etcd.store()
        etcd.kill()
        with pytest.raises(UnavailableError):
            await failed.get("k")
        etcd.start()
        fresh = await etcd.store()
        assert await fresh.get("k") is None
        config = etcd.user("root")
        (endpoint,) = config.targets()
        probe = Channel(endpoint, config)
        assert probe.grpc is fresh._channel
        assert probe.grpc is not old._channel
        await probe.close()
        for store in (old, failed, fresh):
            await store.close()
