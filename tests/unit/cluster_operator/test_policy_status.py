"""What a policy's condition says."""

from typing import Any

import msgspec
import pytest

from cluster_operator.policy_status import FINE, MAX_MESSAGE, conditions, message
from policy.known import Mode
from policy.objects.read import AUDIT_ANNOTATION, Kind, Reading, Source, read
from policy.objects.settings import Settings
from wire.k8s.policy import PolicyObject

GOOD: Any = {"endpointSelector": {}, "ingress": [{"fromEntities": ["world"]}]}
BAD: Any = {"endpointSelector": {}, "ingress": [{"fromEntities": ["World"]}]}
FQDN: Any = {"endpointSelector": {}, "egress": [{"toFQDNs": [{"matchName": "a.com"}]}]}


def reading(spec: Any, specs: Any = None) -> Reading:
    return read(Source(Kind.CILIUM, "web", "p", spec, specs), Settings())


def stored(*said: Any, generation: int = 1) -> PolicyObject:
    body = {
        "metadata": {"name": "p", "namespace": "web", "generation": generation},
        "status": {"conditions": list(said)},
    }
    return msgspec.convert(body, PolicyObject)


def test_fine() -> None:
    """In Cilium's words."""
    (said, _) = conditions(stored(), reading(GOOD), "t1") or ()
    assert said == {
        "type": "Valid",
        "status": "True",
        "reason": "Validated",
        "message": FINE,
        "observedGeneration": 1,
        "lastTransitionTime": "t1",
    }


def test_every_spec_counts() -> None:
    """A bad one that is not the last makes it invalid."""
    (said, _) = conditions(stored(), reading(GOOD, [BAD, GOOD]), "t1") or ()
    assert said["status"] == "False"
    assert said["message"].startswith("specs[0].ingress[0].fromEntities[0]: 'World' is not one of")


@pytest.mark.parametrize(
    ("spec", "annotations", "settings", "mode", "status", "reason"),
    [
        (GOOD, {}, Settings(), Mode.DEFAULT, "True", "Enforced"),
        (GOOD, {}, Settings(), Mode.NEVER, "False", "Disabled"),
        (GOOD, {AUDIT_ANNOTATION: "true"}, Settings(), Mode.ALWAYS, "False", "Audit"),
        (BAD, {}, Settings(), Mode.DEFAULT, "False", "Invalid"),
        (BAD, {}, Settings(invalid_open=True), Mode.DEFAULT, "False", "Invalid"),
        (FQDN, {}, Settings(), Mode.DEFAULT, "False", "Partly"),
    ],
)
def test_what_agents_do_with_it(
    spec: Any, annotations: dict[str, str], settings: Settings, mode: Mode, status: str, reason: str
) -> None:
    """A policy must not look as if it protected anybody when it does not."""
    found = read(Source(Kind.CILIUM, "web", "p", spec, annotations=annotations), settings)
    (_, said) = conditions(stored(), found, "t1", mode) or ()
    assert (said["type"], said["status"], said["reason"]) == ("Enforced", status, reason)
    if spec is BAD:
        assert ("nothing passes" in said["message"]) is not settings.invalid_open


def test_rules_for_nodes() -> None:
    """Without the setting they forbid nothing, and it is said."""
    spec = {"nodeSelector": {}, "ingress": [{"fromEntities": ["world"]}]}
    found = read(Source(Kind.CLUSTERWIDE, "", "p", spec), Settings())
    (_, said) = conditions(stored(), found, "t1") or ()
    assert (said["status"], said["reason"]) == ("False", "Disabled")
    (_, said) = conditions(stored(), found, "t1", judges_nodes=True) or ()
    assert (said["status"], said["reason"]) == ("True", "Enforced")


def test_said_once() -> None:
    """Nothing is written when it says the same already; a time changes with the status only."""
    first = conditions(stored(), reading(GOOD), "t1") or []
    assert conditions(stored(*first), reading(GOOD), "t2") is None
    (later, _) = conditions(stored(*first, generation=2), reading(GOOD), "t2") or ()
    assert (later["lastTransitionTime"], later["observedGeneration"]) == ("t1", 2)
    (turned, _) = conditions(stored(*first), reading(BAD), "t3") or ()
    assert (turned["lastTransitionTime"], turned["status"]) == ("t3", "False")


def test_others_stay() -> None:
    """Conditions of other writers."""
    other = {"type": "Other", "status": "True"}
    said = conditions(stored(other), reading(GOOD), "t1") or []
    assert [c["type"] for c in said] == ["Other", "Valid", "Enforced"]
    assert said[0] == other


def test_what_is_not_enforced_is_said() -> None:
    """A valid policy says which of its fields do nothing yet."""
    spec = {"endpointSelector": {}, "egress": [{"toFQDNs": [{"matchName": "a.com"}]}]}
    assert message(reading(spec)) == (
        f"{FINE}; not enforced yet, and denied: spec.egress[0].toFQDNs"
    )


def test_many_errors_are_counted() -> None:
    """A message has an end."""
    spec = {"endpointSelector": {}, "ingress": [{"fromEntities": ["World"] * 500}]}
    text = message(reading(spec))
    assert len(text) <= MAX_MESSAGE
    assert text.endswith(" more")
