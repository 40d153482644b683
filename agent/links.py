"""Device pairs of pods with our program on them. Adapter over ``datapath``."""

import contextlib

from datapath import links
from datapath.kernel_thread import KernelThread
from datapath.links import EndpointLink
from datapath.runtime import Datapath
from model.address import Address


class DatapathLinks:
    """``agent.endpoints.Links`` on the real kernel.

    Netlink work for pods has a thread of its own: it takes milliseconds, in which the tables must
    not stand still.
    """

    def __init__(
        self, datapath: Datapath, routers: tuple[Address, ...], thread: KernelThread
    ) -> None:
        self._datapath, self._routers, self._thread = datapath, routers, thread

    async def create(
        self, netns: str, container_interface: str, host: str, addresses: tuple[Address, ...]
    ) -> EndpointLink:
        """Make the pair, and let its packets go through our program."""
        link = await self._thread.call(
            links.create_endpoint_link,
            netns,
            container_interface,
            host,
            addresses,
            self._routers,
            self._datapath.device_mtu,
            self._datapath.route_mtu,
        )
        try:
            await self._datapath.attach_endpoint(host)
        except OSError:
            with contextlib.suppress(OSError):
                await self._thread.call(links.delete_endpoint_link, host)
            raise
        return link

    async def delete(self, host: str, addresses: tuple[Address, ...] = ()) -> None:
        """Remove the pair and the flows of its addresses; no error when it is gone."""
        await self._thread.call(links.delete_endpoint_link, host)
        await self._datapath.detach_endpoint(host)
        for address in addresses:
            # The next pod with this address must not inherit flows, nor their identities.
            await self._datapath.conntrack.flush_address(address)

    async def exists(self, host: str) -> bool:
        """Whether the pair is there."""
        return await self._thread.call(links.endpoint_link_exists, host)
