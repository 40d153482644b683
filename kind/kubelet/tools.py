"""What every pod's worker of a kubelet uses. Values."""

from collections.abc import Callable
from dataclasses import dataclass

from kind.kubelet.api import Api
from kind.kubelet.config import Config
from kind.kubelet.link import Link
from kind.kubelet.podspec import Sources
from kind.kubelet.sandbox import Network

RETRY_FIRST_S, RETRY_CAP_S = 0.1, 2.0


@dataclass(frozen=True, slots=True)
class Tools:
    """Made once."""

    config: Config
    api: Api
    runtime: Link
    network: Network
    sources: Callable[[str], Sources]  # by namespace


def backoff_s(failures: int) -> float:
    """How long to wait after so many failures to set something up, seconds."""
    return min(RETRY_CAP_S, RETRY_FIRST_S * float(2 ** min(failures, 8)))
