"""Label selectors of objects to ``policy.rules.Selector``, with the namespaces they imply. Pure."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from model.labels import (
    CLUSTER_LABEL,
    NAMESPACE_LABEL,
    NAMESPACE_META_PREFIX,
    SOURCE_K8S,
    SOURCE_RESERVED,
)
from policy.objects.notes import Node
from policy.objects.settings import Settings
from policy.rules import ANY_SOURCE, Operator, Requirement, Selector

IN_NAMESPACES = Requirement(NAMESPACE_LABEL, Operator.EXISTS, (), SOURCE_K8S)
REMOTE_NODE = Requirement("remote-node", Operator.EXISTS, (), SOURCE_RESERVED)

_OWN_KEY = f"{SOURCE_K8S}:{NAMESPACE_LABEL}"
_NEGATIVE = (Operator.NOT_IN, Operator.DOES_NOT_EXIST)
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")

Key = tuple[str, str]  # source, key


def cilium_key(text: str) -> Key:
    """``source:key``; without a source any source."""
    if text.startswith("$"):
        return SOURCE_RESERVED, text[1:]
    source, colon, key = text.partition(":")
    return (source, key) if colon else (ANY_SOURCE, text)


def kubernetes_key(text: str) -> Key:
    """A pod's label."""
    return SOURCE_K8S, text


def namespace_key(text: str) -> Key:
    """A namespace's label, as the pods in it carry it."""
    return SOURCE_K8S, NAMESPACE_META_PREFIX + text


def group_key(text: str) -> Key:
    """A CIDR group's label."""
    source, key = cilium_key(text)
    return ("cidrgroup" if source == ANY_SOURCE else source), key


def parse(node: Node, key_of: Callable[[str], Key] = cilium_key) -> Selector:
    """``matchLabels`` and ``matchExpressions``; what is wrong is noted."""
    found = node.fields(("matchLabels", "matchExpressions"))
    labels = found["matchLabels"].entries().items() if "matchLabels" in found else ()
    expressions = found["matchExpressions"].items() if "matchExpressions" in found else ()
    read = [_equality(value, text, key_of) for text, value in labels]
    read += [_expression(item, key_of) for item in expressions]
    return Selector(tuple(r for r in read if r is not None))


def _equality(node: Node, text: str, key_of: Callable[[str], Key]) -> Requirement | None:
    before = len(node.notes.errors)
    source, key = _checked(node, text, key_of)
    wanted = _value(node)
    # What is wrong is left out, so that an invalid object closes too much and not too little.
    good = len(node.notes.errors) == before
    return Requirement(key, Operator.IN, (wanted,), source) if good else None


def _value(node: Node) -> str:
    text = node.text()
    if not _VALUE.fullmatch(text):
        node.error(
            f"{text[:80]!r} is no label value: at most 63 letters, digits, '-', '_' and '.', "
            "with a letter or digit at both ends"
        )
    return text


def _checked(node: Node, text: str, key_of: Callable[[str], Key]) -> Key:
    source, key = key_of(text)
    # What a prefix of ours was put before is checked without it.
    bare = text if key.endswith(text) else key
    prefix, slash, name = bare.rpartition("/")
    if not _NAME.fullmatch(name) or (
        slash and not (len(prefix) <= 253 and _PREFIX.fullmatch(prefix))
    ):
        node.error(f"{text[:80]!r} is no label key: write [source:][domain/]name")
    elif key == "namespace":
        node.warn(f"{text!r} is no label of pods; the namespace is {NAMESPACE_LABEL}")
    return source, key


def _expression(node: Node, key_of: Callable[[str], Key]) -> Requirement | None:
    before = len(node.notes.errors)
    found = node.fields(("key", "operator", "values"))
    for name in ("key", "operator"):
        if name not in found:
            node.error(f"{name} is missing")
            return None
    source, key = _checked(found["key"], found["key"].text(), key_of)
    name = found["operator"].one_of([o.value for o in Operator])
    items = found["values"].items() if "values" in found else []
    values = tuple(_value(item) for item in items)
    wants_values = name in ("In", "NotIn")
    if name and wants_values != bool(values):
        node.error(f"{name} needs {'at least one value' if wants_values else 'no values'}")
    if len(node.notes.errors) > before:
        return None
    return Requirement(key, Operator(name), values, source)


def _names_namespace(requirement: Requirement) -> bool:
    return requirement.key == NAMESPACE_LABEL and requirement.source in (SOURCE_K8S, ANY_SOURCE)


def _names_namespace_label(requirement: Requirement) -> bool:
    return requirement.key.startswith(NAMESPACE_META_PREFIX)


def _with(selector: Selector, *more: Requirement) -> Selector:
    return Selector((*selector.requirements, *more))


def in_namespace(namespace: str) -> Requirement:
    """Pods of that namespace, in every cluster."""
    return Requirement(NAMESPACE_LABEL, Operator.IN, (namespace,), SOURCE_K8S)


@dataclass(frozen=True, slots=True)
class Scope:
    """Where the object stands: what its selectors imply.

    ``namespace`` empty: clusterwide. ``may_be_init``: a subject that asks for ``reserved:init``,
    whose peers are not held to pods.
    """

    namespace: str
    settings: Settings
    may_be_init: bool = False

    def subject(self, node: Node) -> Selector:
        """``endpointSelector``: pods of the object's namespace."""
        selector = parse(self._without_namespace(node) if self.namespace else node)
        self._warn_of_subject(node, selector)
        if not self.namespace:
            return selector
        return Selector((in_namespace(self.namespace), *selector.requirements))

    def _without_namespace(self, node: Node) -> Node:
        """Written as an equality it is overwritten; anything else is a condition more."""
        value = node.value if isinstance(node.value, dict) else {}
        labels = value.get("matchLabels")
        if not isinstance(labels, dict) or _OWN_KEY not in labels:
            return node
        if labels[_OWN_KEY] != self.namespace:
            node.warn(
                f"a policy applies in its own namespace: {NAMESPACE_LABEL} "
                f"is read as {self.namespace}"
            )
        rest = {key: text for key, text in labels.items() if key != _OWN_KEY}
        return Node(value | {"matchLabels": rest}, node.path, node.notes)

    def _warn_of_subject(self, node: Node, selector: Selector) -> None:
        for r in selector.requirements:
            positive = r.operator is Operator.IN
            elsewhere = self.namespace and self.namespace not in r.values
            if elsewhere and positive and _names_namespace(r):
                node.warn(f"selects nothing: the policy is in namespace {self.namespace}")
            if r.key == CLUSTER_LABEL and positive and self.settings.cluster not in r.values:
                node.warn(
                    f"selects nothing in cluster {self.settings.cluster}: a policy is enforced in "
                    "the cluster of its subject; apply it there"
                )
            if (r.source, r.key) == (SOURCE_RESERVED, "host"):
                node.warn("does not select nodes: use nodeSelector in a clusterwide policy")

    def peer(self, node: Node, *, requirement: bool = False) -> Selector:
        """``from/toEndpoints``; ``requirement`` for ``from/toRequires``."""
        selector = parse(node)
        terms = selector.requirements
        roles = [r for r in terms if r.source == SOURCE_RESERVED]
        named = any(_names_namespace(r) for r in terms)
        labelled = any(_names_namespace_label(r) for r in terms)
        if roles and not requirement:
            if all(r.operator in _NEGATIVE for r in roles):
                node.warn(
                    "names a reserved label, and so is about all namespaces, nodes and the world"
                )
            return selector
        if self.namespace:
            if not named and not labelled:
                selector = _with(selector, in_namespace(self.namespace))
            else:
                selector = self._held_to_pods(node, selector)
        elif not named:
            if not self.may_be_init:
                selector = _with(selector, IN_NAMESPACES)
        else:
            selector = self._held_to_pods(node, selector)
        return self.held_to_cluster(selector)

    def _held_to_pods(self, node: Node, selector: Selector) -> Selector:
        """``NotIn`` is true of what has no namespace at all: the world and the nodes."""
        about = [
            r for r in selector.requirements if _names_namespace(r) or _names_namespace_label(r)
        ]
        if any(r.operator not in _NEGATIVE for r in about):
            return selector
        if self.settings.upstream_readings:
            node.warn("also selects all that is in no namespace: nodes and the world")
            return selector
        return _with(selector, IN_NAMESPACES)

    def held_to_cluster(self, selector: Selector) -> Selector:
        """Under ``policy-default-local-cluster``: unless the selector speaks of clusters."""
        terms = selector.requirements
        if not self.settings.default_local_cluster or any(
            r.source == SOURCE_RESERVED or r.key == CLUSTER_LABEL for r in terms
        ):
            return selector
        cluster = Requirement(CLUSTER_LABEL, Operator.IN, (self.settings.cluster,), SOURCE_K8S)
        return _with(selector, cluster)

    def pods(self, pod: Node | None, namespaces: Node | None) -> Selector:
        """A peer of a NetworkPolicy: ``podSelector``, ``namespaceSelector`` or both."""
        terms = parse(pod, kubernetes_key).requirements if pod else ()
        if namespaces is None:
            return self.held_to_cluster(Selector((in_namespace(self.namespace), *terms)))
        about = parse(namespaces, namespace_key).requirements
        selector = Selector((*about, *terms))
        if not about:
            selector = Selector((IN_NAMESPACES, *terms))
        else:
            selector = self._held_to_pods(namespaces, selector)
        return self.held_to_cluster(selector)


def names_init(selector: Selector) -> bool:
    """Whether the selector asks for ``reserved:init``; that it shall not be there does not."""
    return any(
        (r.source, r.key) == (SOURCE_RESERVED, "init") and r.operator not in _NEGATIVE
        for r in selector.requirements
    )


def complement(selector: Selector) -> list[Selector]:
    """Pods that the selector does not match, as selectors of which one matches."""
    opposite = {
        Operator.IN: Operator.NOT_IN,
        Operator.NOT_IN: Operator.IN,
        Operator.EXISTS: Operator.DOES_NOT_EXIST,
        Operator.DOES_NOT_EXIST: Operator.EXISTS,
    }
    return [
        Selector((IN_NAMESPACES, Requirement(r.key, opposite[r.operator], r.values, r.source)))
        for r in selector.requirements
    ]
