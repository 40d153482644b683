"""Which settings of address families go with others. Pure."""

from typing import TYPE_CHECKING

from model.address import parse_prefix

if TYPE_CHECKING:
    from agent.config import AgentConfig


def refusal(config: "AgentConfig") -> str | None:
    """What cannot be, and the remedy; ``None`` when all is well."""
    if not config.enable_ipv4:
        return 'enable-ipv4 is "false": the tunnel needs IPv4 between nodes'
    strict = config.encryption_strict_mode_cidr if config.enable_encryption_strict_mode else ()
    missing = {4, 6} - {parse_prefix(text).version for text in strict}
    if strict and missing and config.enable_ipv6:
        return (
            f'encryption-strict-mode-cidr is "{",".join(strict)}" while enable-ipv6 is "true": '
            f"IPv{missing.pop()} of addresses that nobody has told of would leave in clear text: "
            "add the pod CIDRs of that family"
        )
    return None
