"""The node's datapath, as the settings want it. Adapter."""

from agent import map_pressure, policy_settings
from agent.config import AgentConfig
from agent.node import Self
from agent.routing import is_native
from datapath.runtime import Datapath, DatapathConfig, Encryption, TraceConfig, open_datapath
from model.kernel_numbers import PIN_DIRECTORY


async def open_kernel(
    config: AgentConfig, me: Self, encryption: Encryption | None = None
) -> Datapath:
    """Devices, programs and maps of this node."""
    return await open_datapath(
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
            policy_keeps_flows=config.policy_keep_connections,
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
