"""The agent starts again, in its own process, when its settings ask for another encryption.

Files of a mounted ConfigMap change under a running agent. Of all settings only the stance is
followed (``encryption.migration``): a step of a migration then needs no pod to be replaced, which
would take userspace WireGuard with it. Adapter.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable

from agent.config import AgentConfig, ConfigError, SettingsChangedError
from agent.ipsec import read_secret
from agent.mesh_encryption import MeshEncryption
from encryption.choose import open_device
from encryption.ipsec_keys import KeyFileError
from encryption.ipsec_rotation import KeyRing
from encryption.migration import Kind
from model.kernel_numbers import DEVICE_WIREGUARD

log = logging.getLogger("isthmus.agent")

LOOK_S = 2.0


async def follow(encryption: MeshEncryption, read: Callable[[], AgentConfig]) -> None:
    """Raises ``SettingsChangedError`` once the settings ask for another stance that can be had."""
    running = encryption.opened.stance
    while True:
        await asyncio.sleep(LOOK_S * (0.5 + random.random()))  # not all agents at once
        refused = ""
        try:
            wanted = await asyncio.to_thread(read)
            if wanted.stance == running:
                continue
            added = wanted.stance.kinds - running.kinds
            if Kind.IPSEC in added:
                read_secret(wanted.ipsec_key_file, KeyRing(0.0), time.monotonic())
            if Kind.WIREGUARD in added:  # opened again by the next process, which takes it over
                place = wanted.state_dir / "wireguard"
                await asyncio.to_thread(open_device, DEVICE_WIREGUARD, encryption.mtu, place)
            log.info('event=settings-changed from="%s" to="%s"', running, wanted.stance)
            raise SettingsChangedError
        except (ConfigError, KeyFileError, OSError) as error:
            refused = f"the settings cannot be followed: {error}"
        finally:
            if refused and refused != encryption.refused:
                log.error('event=settings-refused error="%s"', refused)
            encryption.refused = refused
