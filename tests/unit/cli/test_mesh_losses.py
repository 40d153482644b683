"""What a forced disconnect says before it asks."""

from typing import Any

from cli import mesh_losses
from cli.mesh_losses import lines, losses


def service(name: str, *clusters: str) -> dict[str, Any]:
    """Backends of clusters; our own carry none."""
    backends = [{"cluster": c} if c else {} for c in clusters]
    flags = {"namespace": "default", "name": name}
    return {"spec": {"flags": flags, "backend-addresses": backends}}


def status(**counts: int) -> dict[str, Any]:
    remote = {"name": "b", **{f"num-{k.replace('_', '-')}": v for k, v in counts.items()}}
    return {"cluster-mesh": {"clusters": [{"name": "c", "num-nodes": 99}, remote]}}


def test_services_that_lose_all_some_and_none() -> None:
    """A frontend of several ports is one service."""
    found = losses(
        "b",
        [status(nodes=2), status(nodes=3, endpoints=7, identities=4, shared_services=2)],
        [
            service("only", "b", "b"),
            service("only", "b"),
            service("both", "", "b"),
            service("third", "c", "b"),
            service("own", ""),
            service("other", "c"),
            service("empty"),
        ],
    )
    assert (found.nodes, found.endpoints, found.identities, found.services) == (3, 7, 4, 2)
    assert found.without_backend == ("default/only",)
    assert found.fewer == ("default/both", "default/third")
    said = "\n".join(lines("a", found))
    assert "Cluster a will forget cluster b:" in said
    assert "3 nodes, 7 endpoints, 4 identities, 2 services" in said
    assert "1 local service loses its last backends: default/only" in said
    assert "2 local services lose some backends" in said


def test_many_services_are_counted() -> None:
    """Five are named."""
    many = [service(f"s{i}", "b") for i in range(8)]
    said = "\n".join(lines("a", losses("b", [status(nodes=1)], many)))
    assert "8 local services lose their last backends: " in said
    assert said.count("default/s") == mesh_losses.SHOWN
    assert "and 3 more" in said


def test_nothing_is_lost() -> None:
    said = lines("a", losses("b", [status(nodes=1)], [service("own", "")]))
    assert said[-1] == "  - no local service has a backend there"


def test_no_agent_answers() -> None:
    """Not knowing is not the same as losing nothing."""
    (said,) = lines("a", losses("b", [], []))
    assert "not known" in said
