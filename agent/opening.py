"""The node's datapath, as the settings want it. Adapter."""

import contextlib
import logging
from pathlib import Path

from agent import map_pressure, policy_settings
from agent.config import AgentConfig
from agent.endpoint_store import EndpointStore, write_atomically
from agent.node import Self
from agent.routing import is_native
from datapath.runtime import Datapath, DatapathConfig, Encryption, TraceConfig, open_datapath
from model.endpoint import EndpointId
from model.kernel_numbers import PIN_DIRECTORY
from policy.cidr_modes import CidrMode

log = logging.getLogger("isthmus.agent")


NEVER, ASKED = "never", "asked"


def _mode_file(config: AgentConfig) -> Path:
    return config.state_dir / "state" / "policy-mode"


def remember_mode(config: AgentConfig) -> None:
    """What the loaded programs do: ask policy, whose rows are written, or never."""
    try:
        word = ASKED if policy_settings.enforced(config) else NEVER
        write_atomically(_mode_file(config), word.encode())
    except OSError as error:
        log.warning('event=file-not-written path=%s error="%s"', _mode_file(config), error)


def _not_asked_so_far(config: AgentConfig) -> tuple[EndpointId, ...]:
    """Pods that policy was never asked about: until their rows are computed they stay open."""
    with contextlib.suppress(OSError):
        if policy_settings.enforced(config) and _mode_file(config).read_text() == NEVER:
            return tuple(e.id for e in EndpointStore(config.state_dir / "state").load())
    return ()


async def open_kernel(
    config: AgentConfig, me: Self, encryption: Encryption | None = None
) -> Datapath:
    """Devices, programs and maps of this node."""
    opened = await open_datapath(
        DatapathConfig(
            node_ip=me.ip,
            router_ip=me.router,
            router_ip6=me.router6,
            pod_cidrs=me.node.pod_cidrs,
            underlay=config.devices.split(",")[0] or None,
            devices=tuple(name for name in config.devices.split(",") if name),
            native=is_native(config),
            mtu=config.mtu or None,
            pin_dir=config.bpf_root / PIN_DIRECTORY,
            map_sizes=map_pressure.sizes(config),
            policy=policy_settings.enforced(config),
            policy_opens=_not_asked_so_far(config),
            policy_keeps_flows=config.policy_keep_connections,
            cidr_nodes=CidrMode.NODES in config.policy_cidr_match_mode,
            cidr_pods=CidrMode.PODS in config.policy_cidr_match_mode,
            host_policy=policy_settings.host_policy(config),
            events=config.enable_hubble,
            trace=TraceConfig(
                config.monitor_aggregation,
                round(config.monitor_aggregation_interval),
                config.monitor_aggregation_flags,
            ),
            encryption=encryption,
        )
    )
    if not policy_settings.enforced(config):
        remember_mode(config)
    return opened
