"""NetworkPolicy, CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy, CiliumCIDRGroup. Pure.

Their insides stay plain JSON values: ``policy.objects`` reads them, because an error there is told
with its path and closes what the object selects, and so must not cost us the object.
"""

from typing import Any

from wire.k8s.meta import Condition, K8sObject, K8sStruct


class PolicyStatus(K8sStruct, frozen=True):
    """What the operator says of a policy."""

    conditions: list[Condition] | None = None


class PolicyObject(K8sObject, frozen=True):
    """A policy; ``specs`` only in Cilium's kinds."""

    spec: Any = None
    specs: Any = None
    status: PolicyStatus | None = None


class CidrGroupObject(K8sObject, frozen=True):
    """A named list of prefixes."""

    spec: Any = None
