"""What the agent's settings say about policy."""

from agent.config import AgentConfig
from datapath.runtime import HostPolicy
from policy.known import Mode, Options
from policy.objects.settings import Settings


def options(config: AgentConfig) -> Options:
    """What is enforced where no rule speaks."""
    return Options(
        config.enable_policy,
        config.allow_localhost,
        config.policy_audit_mode,
        config.policy_cidr_match_mode,
    )


def readings(config: AgentConfig) -> Settings:
    """How objects are read."""
    return Settings(
        cluster=config.cluster_name,
        default_local_cluster=config.policy_default_local_cluster,
        upstream_readings=config.policy_upstream_readings,
        invalid_open=config.policy_invalid_open,
        invalid_closes_nodes=config.policy_invalid_closes_nodes,
        audit=config.policy_audit_mode,
        non_default_deny=config.enable_non_default_deny_policies,
        node_selectors=config.enable_node_selector_labels,
        l7_proxy=config.enable_l7_proxy,
    )


def host_policy(config: AgentConfig) -> HostPolicy | None:
    """How the node itself is judged; ``None``: it is not."""
    if not (config.enable_host_firewall and enforced(config)):
        return None
    return HostPolicy(config.policy_kubelet_port)


def enforced(config: AgentConfig) -> bool:
    """Whether the programs ask policy at all."""
    return config.enable_policy is not Mode.NEVER
