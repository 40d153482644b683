"""Calls that a server got, as other servers of gRPC tell Prometheus. Pure."""

from typing import Final

from hubble.rpc import Code
from telemetry.metrics import Counter, Family

_UNARY: Final = frozenset(("GetNodes", "GetNamespaces", "ServerStatus", "Check"))
_BOTH_WAYS: Final = frozenset(("ServerReflectionInfo",))
_LABELS: Final = ("grpc_type", "grpc_service", "grpc_method")


class CallMetrics:
    """Of one server: ``called`` is for it to call."""

    def __init__(self) -> None:
        self._started = Counter(_LABELS)
        self._handled = Counter((*_LABELS, "grpc_code"))

    def called(self, path: str, code: Code | None) -> None:
        """A call began (``None``), or ended so."""
        service, _, method = path.removeprefix("/").rpartition("/")
        kind = "unary" if method in _UNARY else "server_stream"
        if method in _BOTH_WAYS:
            kind = "bidi_stream"
        if code is None:
            self._started.add(kind, service, method)
        else:
            self._handled.add(kind, service, method, _code(code))

    def families(self) -> list[Family]:
        """For ``/metrics``."""
        return [
            self._started.family("grpc_server_started_total", "Calls that began."),
            self._handled.family("grpc_server_handled_total", "Calls that ended, and how."),
        ]


def _code(code: Code) -> str:
    """As Go's library writes it."""
    if code is Code.CANCELLED:
        return "Canceled"
    return "OK" if code is Code.OK else code.name.title().replace("_", "")
