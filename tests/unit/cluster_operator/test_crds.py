"""The resource definitions say what Isthmus itself writes."""

from typing import Any

import pytest

from cluster_operator.crds import definitions, version_of
from cluster_operator.definition import VERSION_LABEL
from model.address import parse_address
from model.cluster import ClusterId, ClusterName
from model.endpoint import EndpointId, EndpointState
from model.identity import Identity, NumericIdentity
from model.labels import Labels
from model.node import INTERNAL_IP, Node, NodeAddress, NodeName
from wire.k8s.cilium_endpoint import NamedPort, encode_endpoint, encode_status
from wire.k8s.cilium_identity import encode_identity
from wire.k8s.cilium_node import encode_node

BY_KIND = {d["spec"]["names"]["kind"]: d for d in definitions()}


def strangers(schema: dict[str, Any], value: Any, path: str = "") -> list[str]:
    """Fields of a value that the schema does not know or knows as another type."""
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    if not isinstance(value, kinds[schema["type"]]):
        return [path]
    if "enum" in schema and value not in schema["enum"]:
        return [path]
    found: list[str] = []
    if schema["type"] == "array":
        for item in value:
            found += strangers(schema["items"], item, f"{path}[]")
    if schema["type"] == "object" and "x-kubernetes-preserve-unknown-fields" not in schema:
        for key, item in value.items():
            inner = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
            if inner is None:
                found.append(f"{path}.{key}")
            else:
                found += strangers(inner, item, f"{path}.{key}")
        found += [f"{path}.{key} missing" for key in schema.get("required", ()) if key not in value]
    return found


IDENTITY = Identity(NumericIdentity(300), Labels.k8s({"app": "shop"}))
NODE = Node(
    ClusterName("c"),
    NodeName("n"),
    ClusterId(1),
    (NodeAddress(INTERNAL_IP, parse_address("192.0.2.1")),),
    health_ips=(parse_address("10.0.0.9"),),
    encryption_key=1,
    boot_id="b",
)
STATUS = encode_status(
    endpoint=EndpointId(1),
    state=EndpointState.READY,
    identity=IDENTITY,
    addresses=[parse_address("10.0.0.1")],
    node=parse_address("192.0.2.1"),
    encryption_key=1,
    named_ports=[NamedPort(name="http", port=80, protocol="TCP")],
    identifiers={"k8s-pod-name": "p", "container-id": "c"},
)


@pytest.mark.parametrize(
    "body",
    [
        encode_identity(IDENTITY),
        encode_node(NODE, "uid"),
        encode_endpoint("d", "p", "u", {}, STATUS),
    ],
    ids=lambda body: body["kind"],
)
def test_what_we_write_is_in_the_schema(body: dict[str, Any]) -> None:
    """No field of ours would be pruned or refused by a server that checks."""
    version = BY_KIND[body["kind"]]["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    plain = {key: value for key, value in body.items() if key != "metadata"}
    assert strangers(schema, {**plain, "metadata": {}}) == []


@pytest.mark.parametrize("state", EndpointState)
def test_every_state_is_in_the_schema(state: EndpointState) -> None:
    """An endpoint in any state can be stored."""
    schema = BY_KIND["CiliumEndpoint"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert state.value in schema["properties"]["status"]["properties"]["state"]["enum"]


def test_names() -> None:
    """kubectl get cep, cn, ciliumid, cnp, ccnp, ccg."""
    short = {kind: d["spec"]["names"]["shortNames"][0] for kind, d in BY_KIND.items()}
    assert short == {
        "CiliumEndpoint": "cep",
        "CiliumNode": "cn",
        "CiliumIdentity": "ciliumid",
        "CiliumNetworkPolicy": "cnp",
        "CiliumClusterwideNetworkPolicy": "ccnp",
        "CiliumCIDRGroup": "ccg",
    }


@pytest.mark.parametrize(
    ("text", "expected"), [("1.31.0", (1, 31, 0)), ("", ()), ("v1", ()), ("2", (2,))]
)
def test_schema_versions(text: str, expected: tuple[int, ...]) -> None:
    """A version that is not readable counts as older than any."""
    assert version_of({VERSION_LABEL: text}) == expected
