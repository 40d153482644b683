"""Policy objects in an installed cluster: definitions, columns, the operator's verdict."""

import json
from typing import Any

import pytest

from tests.support.lab import Lab, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.lab,
    pytest.mark.timeout(300),
]

GOOD: dict[str, Any] = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "judged-good", "namespace": "default"},
    "spec": {
        "endpointSelector": {"matchLabels": {"app": "nobody-has-this"}},
        "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "nobody-has-this"}}]}],
    },
}
BAD = GOOD | {
    "metadata": {"name": "judged-bad", "namespace": "default"},
    "specs": [
        {
            "endpointSelector": {"matchLabels": {"app": "nobody-has-this"}},
            "ingress": [{"fromCIDR": ["10.0.0.0/64"]}],
        },
        GOOD["spec"],
    ],
}
CLUSTERWIDE = GOOD | {
    "kind": "CiliumClusterwideNetworkPolicy",
    "metadata": {"name": "judged-wide"},
}


def valid(lab: Lab, kind: str, name: str) -> dict[str, Any] | None:
    found = lab.get(kind, name, "-n", "default")
    conditions = found.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == "Valid"), None)


def test_verdicts_are_written_back(lab: Lab) -> None:
    """By the operator of the installed cluster, with the rights it has there."""
    lab.apply(GOOD, BAD, CLUSTERWIDE)
    try:
        for kind, name in (("cnp", "judged-good"), ("ccnp", "judged-wide")):
            wait_until(f"{name} is judged", lambda k=kind, n=name: valid(lab, k, n) is not None)
            condition = valid(lab, kind, name)
            assert condition is not None
            assert (condition["status"], condition["message"]) == (
                "True",
                "Policy validation succeeded",
            )
        wait_until("the bad one is judged", lambda: valid(lab, "cnp", "judged-bad") is not None)
        condition = valid(lab, "cnp", "judged-bad")
        assert condition is not None
        assert condition["status"] == "False"
        assert condition["message"].startswith("specs[0].ingress[0].fromCIDR[0]: '10.0.0.0/64'")
        table = lab.kubectl("get", "cnp", "-A")
        rows = {row[1]: row for row in (line.split() for line in table.splitlines())}
        assert rows["NAME"] == ["NAMESPACE", "NAME", "AGE", "VALID"]
        assert (rows["judged-good"][3], rows["judged-bad"][3]) == ("True", "False")
    finally:
        for kind, name in (("cnp", "judged-good"), ("cnp", "judged-bad"), ("ccnp", "judged-wide")):
            lab.kubectl("delete", kind, name, "-n", "default", "--ignore-not-found")


def test_what_a_schema_refuses(lab: Lab) -> None:
    """`kubectl apply` says which field."""
    spec = {"endpointSelector": {}, "ingress": [{"toPorts": [{"ports": [{"port": 80}]}]}]}
    body = GOOD | {"spec": spec}
    with pytest.raises(AssertionError, match="port"):
        lab.kubectl("apply", "-f", "-", stdin=json.dumps(body))
