"""Roll-outs of Deployments: bounds kept at every step, and an end reached."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kind.controllers import rollout
from tests.support.kind_apiserver import deployment as small_deployment

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def deployment(replicas: int, image: str = "example:1", **rolling: Any) -> Any:
    made = small_deployment("d", "n", replicas, image)
    made["metadata"]["uid"] = "u"
    if rolling:
        made["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": rolling}
    return made


class World:
    """ReplicaSets with pods that become available when told."""

    def __init__(self) -> None:
        self.sets: list[Any] = []

    def step(self, d: Any, may_become_available: int) -> bool:
        """The controller's turn, then the pods'; false when nothing changed."""
        new = rollout.find_new(d, self.sets)
        old = [s for s in self.sets if s is not new]
        changed = False
        if new is None:
            first = rollout.first_scale(d, old)
            made = rollout.new_set(d, self.sets, first)
            made["metadata"]["creationTimestamp"] = f"{len(self.sets):03}"
            made["status"] = {"replicas": 0, "availableReplicas": 0}
            self.sets.append(made)
            return True
        for name, replicas in rollout.desired_scales(d, new, old).items():
            (found,) = [s for s in self.sets if s["metadata"]["name"] == name]
            found["spec"]["replicas"] = replicas
            changed = True
        for s in self.sets:
            status, wanted = s["status"], s["spec"]["replicas"]
            if status["replicas"] != wanted:
                status["replicas"] = wanted
                changed = True
            status["availableReplicas"] = min(status["availableReplicas"], wanted)
            grown = min(may_become_available, wanted - status["availableReplicas"])
            if grown > 0:
                status["availableReplicas"] += grown
                may_become_available -= grown
                changed = True
        return changed

    def available(self) -> int:
        return sum(int(s["status"]["availableReplicas"]) for s in self.sets)

    def total(self) -> int:
        return sum(int(s["spec"]["replicas"]) for s in self.sets)

    def settle(self, d: Any, speed: int = 99) -> None:
        for _ in range(200):
            if not self.step(d, speed):
                return
        raise AssertionError("the roll-out does not end")


_amount = st.one_of(st.integers(0, 5), st.integers(0, 100).map(lambda n: f"{n}%"))


@given(st.integers(0, 12), _amount, _amount, st.integers(1, 4), st.integers(1, 3))
def test_bounds_hold_at_every_step(
    replicas: int, surge: Any, missing: Any, speed: int, images: int
) -> None:
    """Never more than wanted + maxSurge pods, never fewer available than allowed; then the end."""
    world = World()
    bounds = {"maxSurge": surge, "maxUnavailable": missing}
    world.settle(deployment(replicas, **bounds))
    for number in range(images):
        d = deployment(replicas, f"example:{number + 2}", **bounds)
        up, down = rollout.limits(d)
        for _ in range(200):
            changed = world.step(d, speed)
            assert world.total() <= replicas + up
            assert world.available() >= min(replicas, replicas - down)
            if not changed:
                break
        new = rollout.find_new(d, world.sets)
        assert new is not None
        assert new["spec"]["replicas"] == replicas == world.total() == world.available()


def test_recreate_empties_first() -> None:
    """With Recreate no new pod starts while an old one is there."""
    world = World()
    world.settle(deployment(3))
    d = deployment(3, "example:2")
    d["spec"]["strategy"] = {"type": "Recreate"}
    for _ in range(10):
        world.step(d, 99)
        counts = [s["spec"]["replicas"] for s in world.sets]
        assert 0 in counts
    assert counts == [0, 3]


def test_paused_changes_nothing_but_the_scale() -> None:
    """A paused deployment follows its replicas, not its template."""
    world = World()
    world.settle(deployment(3))
    d = deployment(5, "example:2")
    d["spec"]["paused"] = True
    assert rollout.desired_scales(d, None, world.sets) == {world.sets[0]["metadata"]["name"]: 5}


def test_status() -> None:
    """Available and Progressing say where the roll-out stands; unchanged conditions stay."""
    world = World()
    d = deployment(2)
    world.step(d, 0)
    world.step(d, 0)
    new = world.sets[0]
    status = rollout.status_of(d, new, [], NOW)
    words = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
    assert words["Available"] == ("False", "MinimumReplicasUnavailable")
    assert words["Progressing"] == ("True", "ReplicaSetUpdated")
    assert status["unavailableReplicas"] == 2
    world.settle(d)
    d["status"] = rollout.status_of(d, new, [], NOW)
    words = {c["type"]: (c["status"], c["reason"]) for c in d["status"]["conditions"]}
    assert words["Available"][0] == "True"
    assert words["Progressing"][1] == "NewReplicaSetAvailable"
    later = datetime(2026, 1, 2, tzinfo=UTC)
    assert rollout.status_of(d, new, [], later) == d["status"]


def test_history() -> None:
    """Old empty ReplicaSets beyond the limit go, the oldest revisions first."""
    world = World()
    for number in range(5):
        d = deployment(1, f"example:{number}")
        d["spec"]["revisionHistoryLimit"] = 2
        world.settle(d)
    new = rollout.find_new(d, world.sets)
    old = [s for s in world.sets if s is not new]
    gone = rollout.superfluous(d, old)
    assert [rollout.revision_of(s) for s in gone] == [1, 2]
