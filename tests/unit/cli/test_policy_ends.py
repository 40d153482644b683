"""Ends of connections as they are named, and the backends behind a service's port."""

from typing import Any, cast

import click
import pytest

from cli.policy_ends import Ending, ServiceEnd, backends, find
from cli.policy_source import Cluster, Clusters
from kube.port import Client

NOBODY = cast("Clusters", None)  # is not asked for what names no cluster's object


@pytest.mark.parametrize(
    ("text", "identity", "address"),
    [
        ("world", 2, ""),
        ("host", 1, ""),
        ("remote-node", 6, ""),
        ("kube-apiserver", 7, ""),
        ("192.0.2.1", None, "192.0.2.1"),
        ("2001:db8::1", None, "2001:db8::1"),
    ],
)
async def test_what_is_no_object(text: str, identity: int | None, address: str) -> None:
    """Entities and addresses."""
    found = await find(NOBODY, text)
    assert isinstance(found, Ending)
    assert (found.identity, found.address, found.endpoint) == (identity, address, None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("everybody", "kube-apiserver"),
        ("World", "no end of a connection"),
        ("192.0.2.0/24/", "write [CLUSTER/]NAMESPACE/POD"),
        ("a//b", "svc/NAMESPACE/NAME"),
        ("a/b/c/d", "svc/NAMESPACE/NAME"),
        ("a/b/svc/c/d", "svc/NAMESPACE/NAME"),
    ],
)
async def test_what_names_nothing(text: str, told: str) -> None:
    """Says what to write."""
    with pytest.raises(click.ClickException, match=_literally(told)):
        await find(NOBODY, text)


def _literally(text: str) -> str:
    return text.replace("[", r"\[").replace("]", r"\]")


def frontend(name: str, port: int, protocol: str, *ends: tuple[str, int]) -> dict[str, Any]:
    return {
        "spec": {
            "frontend-address": {"ip": "10.96.0.9", "port": port, "protocol": protocol},
            "backend-addresses": [{"ip": ip, "port": number} for ip, number in ends],
            "flags": {"namespace": "shop", "name": name},
        }
    }


SERVICES = [
    frontend("web", 80, "tcp", ("10.1.0.5", 8080), ("10.2.0.5", 8080)),
    frontend("web", 80, "tcp", ("10.1.0.5", 8080)),  # of the other family, or another address
    frontend("web", 53, "udp", ("10.1.0.6", 5353)),
    frontend("idle", 80, "tcp"),
]


async def behind(name: str, protocol: str, port: int) -> list[tuple[str, int]]:
    asked = ("n1", ("cilium-dbg", "service", "list", "-o", "json"))
    place = Cluster(cast("Client", None), "kube-system", "west", "", {asked: SERVICES})
    source = Ending("shop/client", place, "n1")
    return await backends(ServiceEnd("svc", place, "shop", name), source, protocol, port)


async def test_backends() -> None:
    """Each once, at its own port."""
    assert await behind("web", "tcp", 80) == [("10.1.0.5", 8080), ("10.2.0.5", 8080)]
    assert await behind("web", "UDP", 53) == [("10.1.0.6", 5353)]


@pytest.mark.parametrize(
    ("name", "protocol", "port", "told"),
    [
        ("none", "tcp", 80, "node n1 of cluster west knows no service shop/none"),
        ("web", "tcp", 53, "no port 53/TCP: it has 53/UDP, 80/TCP"),
        ("idle", "tcp", 80, "has no backends"),
    ],
)
async def test_services_without_an_answer(name: str, protocol: str, port: int, told: str) -> None:
    """Say what there is."""
    with pytest.raises(click.ClickException, match=told):
        await behind(name, protocol, port)
