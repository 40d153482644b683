"""Which address families a service is of: asked for, or as the cluster has them. Pure."""

from collections.abc import Sequence
from ipaddress import ip_address

from kind.apiserver.errors import Cause
from kind.apiserver.objects import Obj
from kind.apiserver.validate import wrong

SINGLE, PREFER, REQUIRE = "SingleStack", "PreferDualStack", "RequireDualStack"


def settle(spec: Obj, cluster: Sequence[str]) -> list[Cause]:
    """Fill ``ipFamilies`` and ``ipFamilyPolicy`` in place. ``cluster``: its families in order."""
    asked = list(spec.get("ipFamilies") or [])
    addresses = [a for a in spec.get("clusterIPs") or [spec.get("clusterIP")] if a]
    for place, family in enumerate(asked):
        if family not in cluster:
            why = f"this cluster is of {', '.join(cluster)}"
            return [wrong(f"spec.ipFamilies[{place}]", family, f"not configured: {why}")]
    implied = _families_of(addresses)
    for place, (family, said) in enumerate(zip(implied, asked, strict=False)):
        if family != said:
            text = f"expected an {said} value as indicated by `ipFamilies[{place}]`"
            return [wrong(f"spec.clusterIPs[{place}]", addresses[place], text)]
    families = asked or implied or [cluster[0]]
    families += implied[len(families) :]
    policy = spec.get("ipFamilyPolicy") or (REQUIRE if len(families) > 1 else _default(spec))
    if policy == REQUIRE and len(cluster) < 2:
        text = "this cluster is not configured for dual-stack services"
        return [wrong("spec.ipFamilyPolicy", policy, text)]
    if policy == SINGLE:
        families = families[:1]
    else:
        families += [f for f in cluster if f not in families]
    spec["ipFamilies"], spec["ipFamilyPolicy"] = families, policy
    return []


def _default(spec: Obj) -> str:
    """The endpoints of a headless service without a selector may be of any family."""
    return PREFER if spec.get("clusterIP") == "None" and not spec.get("selector") else SINGLE


def _families_of(addresses: Sequence[str]) -> list[str]:
    found = []
    for text in addresses:
        try:
            found.append(f"IPv{ip_address(text).version}")
        except ValueError:  # "None", or what allocation refuses
            break
    return found
