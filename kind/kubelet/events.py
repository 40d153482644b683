"""Events about pods, for ``kubectl describe``. Adapter."""

import contextlib
from datetime import UTC, datetime
from typing import Any

from kind.kubelet.api import Api, ApiError

Json = dict[str, Any]


def timestamp(seconds: float | None = None) -> str:
    """A time as the API writes it; without an argument, now."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Recorder:
    """Records events of one pod, each distinct text once."""

    def __init__(self, api: Api, node: str, pod: Json) -> None:
        self._api = api
        self._node = node
        self._metadata = pod["metadata"]
        self._said: set[tuple[str, str]] = set()

    async def record(self, kind: str, reason: str, message: str) -> None:
        """Write an event; one that cannot be written is dropped, the status says it as well."""
        if (reason, message) in self._said:
            return
        self._said.add((reason, message))
        name, namespace = self._metadata["name"], self._metadata["namespace"]
        now = timestamp()
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{name}.", "namespace": namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": name,
                "namespace": namespace,
                "uid": self._metadata["uid"],
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": "kubelet", "host": self._node},
        }
        with contextlib.suppress(ApiError):
            await self._api.call("POST", f"/api/v1/namespaces/{namespace}/events", body)
