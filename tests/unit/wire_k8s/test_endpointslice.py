"""EndpointSlices → backends."""

import msgspec
import pytest

from model.address import parse_address
from model.local_service import LocalBackend
from model.service import L4, Protocol, ServiceName
from wire.k8s.endpointslice import EndpointSlice, decode_backends, merge_backends, owner_of
from wire.k8s.errors import ObjectError

ONE = parse_address("10.1.0.1")


def slice_(name: str, *endpoints: dict[str, object], port: int = 8080) -> EndpointSlice:
    return msgspec.convert(
        {
            "metadata": {
                "name": name,
                "namespace": "web",
                "labels": {"kubernetes.io/service-name": "shop"},
            },
            "addressType": "IPv4",
            "endpoints": list(endpoints),
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        },
        EndpointSlice,
    )


def endpoint(address: str = "10.1.0.1", **conditions: bool) -> dict[str, object]:
    return {"addresses": [address], "conditions": conditions, "nodeName": "n1"}


def test_slice_names_its_service() -> None:
    """The label decides, in the slice's namespace; a slice without it is nobody's."""
    assert owner_of(slice_("a")) == ServiceName("web", "shop")
    assert owner_of(EndpointSlice()) is None


def test_empty_slice_comes_with_nulls() -> None:
    """The server writes null for no endpoints and no ports."""
    empty = msgspec.json.decode('{"endpoints":null,"ports":null}', type=EndpointSlice)
    assert decode_backends(empty) == ()


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ({}, (True, True, False)),
        ({"ready": True}, (True, True, False)),
        ({"ready": False}, (False, False, False)),
        ({"ready": False, "serving": True, "terminating": True}, (False, True, True)),
    ],
)
def test_conditions(conditions: dict[str, bool], state: tuple[bool, bool, bool]) -> None:
    """Unknown reads as ready; serving follows ready where it is not told."""
    (backend,) = decode_backends(slice_("a", endpoint(**conditions)))
    assert (backend.ready, backend.serving, backend.terminating) == state


def test_backends_of_two_slices_are_one_set() -> None:
    """An address in two slices is one backend: ports together, the better state wins."""
    stale = slice_("a", endpoint(ready=False))
    fresh = slice_("b", endpoint(ready=True), endpoint("10.1.0.2"))
    for order in ([stale, fresh], [fresh, stale]):
        merged = merge_backends(order)
        assert sorted(map(str, merged)) == ["10.1.0.1", "10.1.0.2"]
        assert merged[ONE] == LocalBackend(
            address=ONE,
            ports={"http": L4(8080, Protocol.TCP)},
            node="n1",
        )


def test_unusable_address_names_the_slice() -> None:
    """Host names under an IP slice are refused with the object's name."""
    with pytest.raises(ObjectError, match="EndpointSlice web/a: "):
        decode_backends(slice_("a", endpoint("somewhere.example.com")))
