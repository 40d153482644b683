"""The commands about policy on a node, against its real agent."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import AgentNode, put, until
from tests.support.agent_policy import isthmus

pytestmark = pytest.mark.root

POLICIES = "ciliumnetworkpolicies"
ONLY_FRIEND = {
    "endpointSelector": {"matchLabels": {"app": "server"}},
    "ingress": [
        {
            "fromEndpoints": [{"matchLabels": {"app": "friend"}}],
            "toPorts": [{"ports": [{"port": "8080", "protocol": "TCP"}]}],
        }
    ],
}
STRANGERS_TOO = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "strangers-too"},
    "spec": {
        "endpointSelector": {"matchLabels": {"app": "server"}},
        "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"app": "friend"}}]}],
        "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "stranger"}}]}],
    },
}
BAD = {"endpointSelector": {"matchLabels": {"app": "nobody"}}, "egress": [{"toCIDR": ["x"]}]}


async def told(node: AgentNode, *arguments: object, stdin: str = "") -> Any:
    done = await isthmus(node, "policy", *arguments, "-o", "json", stdin=stdin)
    assert done.code == 0, done.err
    return json.loads(done.out)


async def test_policies_of_a_node(node: AgentNode, tmp_path: Path) -> None:
    """List, get, selectors and what-if tell what the agent was told and what would come of more."""
    node.start()
    await node.ready()
    for name in ("server", "friend", "stranger"):
        await node.add(node.pod(name, {"app": name}))
    for name, spec in (("only-friend", ONLY_FRIEND), ("bad", BAD)):
        put(node.fake, POLICIES, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})

    async def both() -> bool:
        return len(await told(node, "list")) == 2

    await until(both, "both policies")
    bad, good = await told(node, "list")
    assert (bad["name"], bad["valid"], bad["endpoints"]) == ("bad", False, [])
    assert bad["errors"][0]["path"] == "spec.egress[0].toCIDR[0]"
    assert (good["valid"], good["endpoints"]) == (True, ["default/server"])
    shown = (await isthmus(node, "policy", "list")).out
    assert "spec.egress[0].toCIDR[0]" in shown

    (whole,) = await told(node, "get", "default/only-friend")
    assert whole["spec"] == ONLY_FRIEND
    assert whole["rules"][0]["defaultDeny"] == ["ingress"]
    missing = await isthmus(node, "policy", "get", "nothing")
    assert (missing.code, missing.out) == (1, "")
    assert "there is no policy nothing" in missing.err

    statuses = [endpoint["status"] for endpoint in await node.get("endpoint")]
    identities = {s["external-identifiers"]["pod-name"]: s["identity"]["id"] for s in statuses}
    (selector,) = await told(node, "selectors")
    assert selector["identities"] == [identities["default/friend"]]
    assert selector["policies"] == ["CiliumNetworkPolicy default/only-friend"]

    more = json.loads(json.dumps(STRANGERS_TOO))
    changes = await told(node, "whatif", "-f", "-", stdin=json.dumps(more))
    assert {c["endpoint"] for c in changes} == {"default/server"}
    found = {
        (peer["identity"], c["protocol"], c["port"]): (c["before"], c["after"])
        for c in changes
        for peer in c["peers"]
    }
    assert found[identities["default/friend"], 6, 8080] == ("allowed", "denied")
    assert found[identities["default/stranger"], 6, 8080] == ("dropped", "allowed")
    assert (identities["default/server"], 6, 8080) not in found
    (opens,) = {json.dumps(c["ruleAfter"]) for c in changes if c["after"] == "allowed"}
    assert json.loads(opens)["name"] == "strangers-too"
    told_so = await isthmus(
        node, "policy", "whatif", "-f", "-", "--exit-code", stdin=json.dumps(more)
    )
    assert told_so.code == 1
    assert "strangers-too" in told_so.out

    await _recorded_flows(node, more, identities, tmp_path)

    gone = {**more, "metadata": {"name": "only-friend"}}
    opened = await told(node, "whatif", "-f", "-", "--delete", stdin=json.dumps(gone))
    assert {c["after"] for c in opened} == {"allowed"}
    more["spec"]["ingress"] = [{"fromCIDR": ["x"]}]
    refused = await isthmus(node, "policy", "whatif", "-f", "-", stdin=json.dumps(more))
    assert refused.code == 1
    assert "spec.ingress[0].fromCIDR[0]" in refused.err


async def _recorded_flows(
    node: AgentNode, more: Any, identities: dict[str, int], directory: Path
) -> None:
    """Of what was seen, the flow that the new policy denies is told, once, and how often."""
    file = directory / "seen.json"
    flows = []
    for name, seen in (("friend", 2), ("server", 1)):
        ends = {
            "source": {"namespace": "default", "pod_name": name},
            "destination": {"namespace": "default", "pod_name": "server"},
            "l4": {"TCP": {"destination_port": 8080}},
        }
        ends["source"]["identity"] = identities[f"default/{name}"]
        flows += [{"flow": ends}] * seen
    file.write_text("\n".join(map(json.dumps, flows)))
    (change,) = await told(node, "whatif", "-f", "-", "--flows", file, stdin=json.dumps(more))
    assert (change["endpoint"], change["direction"], change["flows"]) == (
        "default/server",
        "ingress",
        2,
    )
    assert change["peer"] == {"pod": "default/friend", "identity": identities["default/friend"]}
    assert (change["before"], change["after"]) == ("allowed", "denied")
    assert change["ruleAfter"]["name"] == "strangers-too"
