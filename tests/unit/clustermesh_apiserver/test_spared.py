"""Whose a row is, by its key or its value."""

import pytest

from clustermesh_apiserver.spared import Spared, owner_of

OWNERS = {
    ("nodes/v1/c1/n1", b"{}"): ("CiliumNode", "", "n1"),
    ("identities/v1/id/65836", b"k8s:a=b;"): ("CiliumIdentity", "", "65836"),
    ("services/v1/c1/ns/web", b"{}"): ("Service", "ns", "web"),
    ("ip/v1/default/10.0.0.1", b'{"K8sNamespace":"ns","K8sPodName":"p","ID":3}'): (
        "CiliumEndpoint",
        "ns",
        "p",
    ),
    ("ip/v1/default/10.0.0.1", b"nonsense"): None,
    ("novelties/v1/c1/x", b"{}"): None,
}


@pytest.mark.parametrize(("row", "owner"), OWNERS.items())
def test_a_row_tells_whose_it_is(
    row: tuple[str, bytes], owner: tuple[str, str, str] | None
) -> None:
    """What cannot be told belongs to nobody, and is not spared."""
    key, value = f"cilium/state/{row[0]}", row[1]
    assert owner_of(key, value) == owner
    assert Spared(lambda: [owner] if owner else [])(key, value) is (owner is not None)
    assert Spared(lambda: [("Service", "ns", "other")])(key, value) is False
