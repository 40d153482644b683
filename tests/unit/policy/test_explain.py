"""What is said of a connection names the object that decides and what would turn the verdict."""

from model.labels import Labels
from model.policy_map import Direction
from policy.explain import End, explain, unknown_side, who_text
from policy.known import Known, Mode, Options, Subject
from policy.oracle import Verdict
from policy.rules import (
    DirectionRule,
    Operator,
    Origin,
    PolicyRule,
    PortRange,
    Requirement,
    Selector,
)

IN = frozenset([Direction.INGRESS])


def labels(app: str) -> Labels:
    return Labels.k8s({"app": app})


def end(number: int, app: str) -> End:
    return End(number, labels(app), Subject(labels(app)))


def selector(app: str) -> Selector:
    return Selector((Requirement("app", Operator.IN, (app,)),))


def rule(name: str, peer: str, **more: object) -> PolicyRule:
    fields = {"deny": False, "unenforced": ""} | {
        k: more.pop(k) for k in ("deny", "unenforced") if k in more
    }
    part = DirectionRule(
        Direction.INGRESS, peers=(selector(peer),), ports=(PortRange(6, 80, 80),), **fields
    )
    return PolicyRule(Origin("CNP", "n", name), selector("web"), (part,), IN, **more)


CLIENT, OTHER, WEB = end(300, "client"), end(301, "other"), end(302, "web")
ALLOW = rule("allow", "client")


def said(rules: list[PolicyRule], source: End = CLIENT, options: Options = Options()):  # noqa: B008
    return explain(Known(), rules, options, source, WEB, 6, 80)


def test_allowed_names_the_rule() -> None:
    """Each side has its own reason."""
    found = said([ALLOW])
    assert found.passes
    assert found.ingress.rule == ALLOW.origin
    assert found.ingress.reason == "CNP n/allow allows it"
    assert found.egress.reason == "no policy starts default deny of egress here"
    assert not found.ingress.change


def test_dropped_names_who_started_default_deny_and_what_to_add() -> None:
    """Nothing matched: no rule decided, the starter is named."""
    found = said([ALLOW], OTHER)
    assert not found.passes
    assert found.ingress.verdict is Verdict.DROPPED
    assert found.ingress.rule is None
    assert found.ingress.reason.endswith("default deny of ingress is on by CNP n/allow")
    assert found.ingress.change == (
        "add an ingress rule that allows 80/TCP from identity 301 (k8s:app=other)"
    )


def test_denied_lists_every_denier_and_the_missing_allow() -> None:
    """Taking away one of two denies would not do."""
    found = said([rule("d1", "other", deny=True), rule("d2", "other", deny=True)], OTHER).ingress
    assert found.verdict is Verdict.DENIED
    assert found.rule == Origin("CNP", "n", "d1")
    assert found.change == (
        "take this peer or port out of the deny of CNP n/d1; "
        "take this peer or port out of the deny of CNP n/d2; "
        "add an ingress rule that allows 80/TCP from identity 301 (k8s:app=other)"
    )


def test_deny_over_an_allow_needs_only_the_deny_gone() -> None:
    """What is left allows it."""
    found = said([ALLOW, rule("deny", "client", deny=True)]).ingress
    assert found.change == "take this peer or port out of the deny of CNP n/deny"


def test_not_enforced_yet_is_said() -> None:
    """HTTP rules deny, and it is said that this is why."""
    found = said([rule("http", "client", unenforced="http")]).ingress
    assert found.verdict is Verdict.DENIED
    assert found.reason == "CNP n/http denies it: http is not enforced yet"


def test_invalid_is_said() -> None:
    """A closed rule is to be corrected."""
    found = said([ALLOW, rule("bad", "client", closed=True)]).ingress
    assert found.reason == "CNP n/bad is invalid: what it selects is shut"
    assert found.change == "correct CNP n/bad"


def test_audit_passes_and_says_who_would_deny() -> None:
    """A deny in audit, and default deny in audit."""
    found = said([ALLOW, rule("try", "client", deny=True, audit=True)])
    assert found.passes
    assert found.ingress.verdict is Verdict.AUDITED
    assert found.ingress.reason == "CNP n/try is in audit and would deny it"
    found = said([rule("try", "client", audit=True)], OTHER)
    assert found.ingress.reason == (
        "CNP n/try is in audit and would deny it (it starts default deny)"
    )


def test_modes() -> None:
    """Never: nothing is enforced; always: default deny without a rule."""
    assert said([rule("d", "client", deny=True)], options=Options(Mode.NEVER)).passes
    found = said([], options=Options(Mode.ALWAYS))
    assert found.egress.verdict is found.ingress.verdict is Verdict.DROPPED


def test_an_end_without_endpoint_is_not_asked() -> None:
    """An address of the world has no map."""
    found = explain(Known(), [ALLOW], Options(), End(2, Labels()), WEB, 6, 80)
    assert found.egress.unasked
    assert not found.passes


def test_who_started_default_deny_is_told() -> None:
    """As objects, beside the sentence; only where that decided."""
    found = said([ALLOW], OTHER)
    assert found.ingress.starters == (ALLOW.origin,)
    assert said([ALLOW]).ingress.starters == ()


def test_peers_are_told_by_what_people_wrote() -> None:
    """The place comes last, without the labels that say it."""
    pod = Labels.k8s(
        {
            "app": "web",
            "io.kubernetes.pod.namespace": "shop",
            "io.cilium.k8s.policy.cluster": "berlin",
            "io.cilium.k8s.policy.serviceaccount": "default",
            "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": "shop",
        }
    )
    assert who_text(pod) == "k8s:app=web in berlin/shop"
    assert who_text(labels("web")) == "k8s:app=web"


def test_a_peer_that_is_not_known_yet() -> None:
    """It passes where no rule speaks, and is dropped where one does."""
    assert WEB.subject is not None
    spoken = unknown_side([ALLOW], Options(), WEB.subject, Direction.INGRESS)
    assert spoken.verdict is Verdict.DROPPED
    assert "CNP n/allow" in spoken.reason
    assert unknown_side([ALLOW], Options(), WEB.subject, Direction.EGRESS).verdict.passes
    never = Options(mode=Mode.NEVER)
    assert unknown_side([ALLOW], never, WEB.subject, Direction.INGRESS).verdict.passes
