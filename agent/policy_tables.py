"""The tables of policy rows and addresses, as rounds that depend on one another. Adapter."""

from typing import Any

from agent.policies import Policies, Rows
from model.address import Prefix
from model.endpoint import EndpointId
from model.ipcache import IpcacheEntry
from reconcile.port import Target
from reconcile.table import Table


class AddressesTable(Table[Prefix, IpcacheEntry]):
    """The ipcache's table: tells policy which rows find no room."""

    def __init__(self, target: Target[Prefix, Any], desired: Any, policies: Policies, **more: Any):
        super().__init__("ipcache", target, desired, **more)
        self._policies = policies

    async def write(self) -> None:
        """First half of a round."""
        await super().write()
        if not self.held:
            self._policies.placed(self.failing())


class PolicyRowsTable(Table[EndpointId, Rows]):
    """The table of policy rows: each round computes first, and tells when all is written."""

    def __init__(self, target: Target[EndpointId, Any], policies: Policies, **more: Any) -> None:
        super().__init__("policy", target, policies, **more)
        self._policies = policies
        policies.touch = self.touch
        policies.soon = lambda: self.soon()  # the loop's, which comes later

    def due_in_s(self) -> float:
        """Also when an identity is to be forgotten."""
        due_s = super().due_in_s()
        return due_s if self.held else min(due_s, self._policies.rests_until_s() - self._clock())

    async def write(self) -> None:
        """First half of a round."""
        if self.held:
            return
        self._dirty |= self._policies.refresh()
        await super().write()
        if not self.status.error:
            self._policies.written()
