"""EndpointSlices from services and pods."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kind.controllers.endpoints import (
    ENDPOINTS_PER_SLICE,
    desired_endpoints,
    endpoint,
    plan_slices,
    selected,
)

SERVICE: Any = {
    "metadata": {"name": "s", "namespace": "n", "uid": "u", "labels": {"team": "x"}},
    "spec": {"selector": {"app": "a"}, "ports": [{"port": 80, "targetPort": "http"}]},
}


def pod(number: int, *, ready: bool = True, port: int = 8080, **more: Any) -> Any:
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {
        "metadata": {
            "name": f"p{number}",
            "namespace": "n",
            "uid": f"u{number}",
            "labels": {"app": "a"},
        }
        | more.get("metadata", {}),
        "spec": {
            "nodeName": "node",
            "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}],
        },
        "status": {
            "podIP": f"10.0.{number >> 8}.{number & 255}",
            "phase": "Running",
            "conditions": conditions,
        }
        | more.get("status", {}),
    }


def carry_out(slices: list[Any], plan: Any, names: Any) -> list[Any]:
    """What the server has after a plan."""
    by_name = {s["metadata"]["name"]: s for s in slices}
    for gone in plan.delete:
        del by_name[gone["metadata"]["name"]]
    for changed in plan.update:
        assert changed["metadata"]["name"] in by_name
        by_name[changed["metadata"]["name"]] = changed
    for made in plan.create:
        name = f"s-{next(names)}"
        by_name[name] = made | {"metadata": made["metadata"] | {"name": name}}
    return list(by_name.values())


_steps = st.lists(
    st.dictionaries(
        st.integers(0, 240), st.tuples(st.booleans(), st.sampled_from([80, 81])), max_size=230
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(_steps)
def test_slices_always_hold_exactly_the_pods(steps: Any) -> None:
    """After every change: each pod once, in a slice of its port, at most 100 in each; then rest."""
    names = iter(range(10_000))
    slices: list[Any] = []
    for step in steps:
        pods = [pod(i, ready=ready, port=port) for i, (ready, port) in sorted(step.items())]
        slices = carry_out(slices, plan_slices(SERVICE, pods, slices), names)
        found = {}
        for s in slices:
            assert len(s["endpoints"]) <= ENDPOINTS_PER_SLICE
            for e in s["endpoints"]:
                number = int(e["targetRef"]["name"][1:])
                assert number not in found
                found[number] = (e["conditions"]["ready"], s["ports"][0]["port"])
        assert found == step
        assert slices, "a service is never without a slice"
        again = plan_slices(SERVICE, pods, slices)
        assert [again.create, again.update, again.delete] == [[], [], []]


def test_one_change_touches_one_slice() -> None:
    """A pod that becomes unready among 250 changes the one slice it is in."""
    pods = [pod(i) for i in range(250)]
    slices = carry_out([], plan_slices(SERVICE, pods, []), iter(range(9)))
    assert [len(s["endpoints"]) for s in slices] == [100, 100, 50]
    pods[120] = pod(120, ready=False)
    plan = plan_slices(SERVICE, pods, slices)
    assert (len(plan.update), plan.create, plan.delete) == (1, [], [])


def test_labels_follow_the_service() -> None:
    """Labels of the service are on its slices, and a headless one is marked."""
    headless = SERVICE | {"spec": SERVICE["spec"] | {"clusterIP": "None"}}
    (made,) = plan_slices(headless, [pod(1)], []).create
    labels = made["metadata"]["labels"]
    assert labels["team"] == "x"
    assert labels["kubernetes.io/service-name"] == "s"
    assert "service.kubernetes.io/headless" in labels
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u"


def test_conditions() -> None:
    """Ready, serving and terminating for each state of a pod."""

    def conditions(item: Any, service: Any = SERVICE) -> tuple[bool, bool, bool]:
        made = endpoint(service, item, "IPv4")
        assert made is not None
        c = made["conditions"]
        return c["ready"], c["serving"], c["terminating"]

    ending = {"metadata": {"deletionTimestamp": "x"}}
    assert conditions(pod(1)) == (True, True, False)
    assert conditions(pod(1, ready=False)) == (False, False, False)
    assert conditions(pod(1, **ending)) == (False, True, True)
    eager = SERVICE | {"spec": SERVICE["spec"] | {"publishNotReadyAddresses": True}}
    assert conditions(pod(1, ready=False), eager)[0]
    assert endpoint(SERVICE, pod(1, status={"podIP": ""}), "IPv4") is None
    assert endpoint(SERVICE, pod(1, status={"phase": "Succeeded"}), "IPv4") is None


def test_ports() -> None:
    """Named ports are looked up per pod; a pod without the port is no endpoint."""
    without = pod(2)
    without["spec"]["containers"][0]["ports"] = []
    (made,) = plan_slices(SERVICE, [pod(1), without], []).create
    assert [e["targetRef"]["name"] for e in made["endpoints"]] == ["p1"]
    bare = SERVICE | {"spec": {"selector": {"app": "a"}}}
    (made,) = plan_slices(bare, [without], []).create
    assert made["ports"] == []
    assert len(made["endpoints"]) == 1


def test_selection() -> None:
    """A service without selector selects nothing; with one, pods that carry all of it."""
    assert selected({"spec": {}}, [pod(1)]) == []
    assert [p["metadata"]["name"] for p in selected(SERVICE, [pod(2), pod(1)])] == ["p1", "p2"]
    other = pod(3)
    other["metadata"]["labels"] = {"app": "b"}
    assert selected(SERVICE, [other]) == []


def test_endpoints_object() -> None:
    """Ready and other addresses apart, by port; ending pods are left out."""
    ending = pod(3, metadata={"deletionTimestamp": "x"})
    found = desired_endpoints(SERVICE, [pod(1), pod(2, ready=False), ending, pod(4, port=81)])
    assert [
        (
            [a["ip"] for a in s.get("addresses", [])],
            [a["ip"] for a in s.get("notReadyAddresses", [])],
            s["ports"][0]["port"],
        )
        for s in found
    ] == [(["10.0.0.4"], [], 81), (["10.0.0.1"], ["10.0.0.2"], 8080)]


def test_slices_of_both_families() -> None:
    """One slice per family of the service; the Endpoints object has the first family's."""
    ips = [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]
    both = pod(1, status={"podIPs": ips})
    four = pod(2)
    dual = SERVICE | {"spec": SERVICE["spec"] | {"ipFamilies": ["IPv6", "IPv4"]}}
    made = {s["addressType"]: s for s in plan_slices(dual, [both, four], []).create}
    found = {k: [e["addresses"] for e in s["endpoints"]] for k, s in made.items()}
    assert found == {"IPv6": [["fd00::1"]], "IPv4": [["10.0.0.1"], ["10.0.0.2"]]}
    (subset,) = desired_endpoints(dual, [both, four])
    assert [a["ip"] for a in subset["addresses"]] == ["fd00::1"]

    slices = carry_out([], plan_slices(dual, [both], []), iter(range(9)))
    slices = carry_out(slices, plan_slices(SERVICE, [both], slices), iter(range(9)))
    assert [s["addressType"] for s in slices] == ["IPv4"], "a family that is gone takes its slice"
