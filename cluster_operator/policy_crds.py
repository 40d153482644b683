"""The definitions of CiliumNetworkPolicy, its clusterwide kind, and CiliumCIDRGroup. Pure."""

from typing import Any

from cluster_operator.definition import AGE, definition
from cluster_operator.policy_schema import rule
from cluster_operator.schema import BOOLEAN, INT64, STRING, TIME, Schema, array, fields, mapping

_CIDR: Schema = {"type": "string", "pattern": r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"}


def _policy() -> Schema:
    condition = fields(
        ("type", "status"),
        type=STRING,
        status=STRING,
        reason=STRING,
        message=STRING,
        observedGeneration=INT64,
        lastTransitionTime=TIME,
    )
    derived = fields(
        ok=BOOLEAN,
        error=STRING,
        lastUpdated=TIME,
        localPolicyRevision=INT64,
        enforcing=BOOLEAN,
        annotations=mapping(STRING),
    )
    status = fields(conditions=array(condition), derivativePolicies=mapping(derived))
    return fields(spec=rule(), specs=array(rule()), status=status)


def definitions() -> tuple[dict[str, Any], ...]:
    """All three, ready to be created."""
    valid = ("Valid", "string", '.status.conditions[?(@.type=="Valid")].status', 0)
    return (
        definition(
            "CiliumNetworkPolicy",
            "ciliumnetworkpolicies",
            "ciliumnetworkpolicy",
            "Namespaced",
            ["cnp", "ciliumnp"],
            [AGE, valid],
            _policy(),
            True,
        ),
        definition(
            "CiliumClusterwideNetworkPolicy",
            "ciliumclusterwidenetworkpolicies",
            "ciliumclusterwidenetworkpolicy",
            "Cluster",
            ["ccnp"],
            [AGE, valid],
            _policy(),
            True,
        ),
        definition(
            "CiliumCIDRGroup",
            "ciliumcidrgroups",
            "ciliumcidrgroup",
            "Cluster",
            ["ccg"],
            [AGE],
            fields(("spec",), spec=fields(("externalCIDRs",), externalCIDRs=array(_CIDR))),
            False,
            "v2alpha1",
        ),
    )
