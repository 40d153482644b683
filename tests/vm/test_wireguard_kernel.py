"""WireGuard of the kernel, which the machine's own kernel does not have: the suites that are shared
with userspace, the one of the devices and the one of two nodes with a sniffer between them.
"""

from tests.conformance.test_wireguard_device import (  # noqa: F401
    ready,
    test_device_survives_who_made_it,
    test_own_half,
    test_peers_are_written_and_read_back,
    test_prefix_is_taken_without_another_peer,
    test_prefix_moves_from_peer_to_peer,
)
from tests.netns.test_wireguard import (  # noqa: F401
    test_own_key_changes_under_traffic,
    test_pods_speak_in_cipher,
    world,
)
from tests.support.wireguard import Encrypted


async def test_the_kernels_is_chosen(ready: Encrypted) -> None:  # noqa: F811
    """Where there is one."""
    assert ready.device.kind == "kernel"
