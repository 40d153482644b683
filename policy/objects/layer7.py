"""Rules above ports: checked as Cilium does, and reported, for they are not enforced yet. Pure."""

import re
from collections.abc import Callable

from policy.objects import expressions
from policy.objects.notes import Node

_NAME = re.compile(r"([-a-zA-Z0-9_]+[.]?)+")
_PATTERN = re.compile(r"([-a-zA-Z0-9_*]+[.]?)+")
_MAX_NAME = 255
_MISMATCHES = ("LOG", "ADD", "DELETE", "REPLACE")
_ROLES = ("produce", "consume")
_KAFKA = ("role", "apiKey", "apiVersion", "clientID", "topic")
_KINDS = ("http", "kafka", "dns", "l7")


def names(node: Node) -> None:
    """``matchName`` or ``matchPattern``."""
    found = node.fields(("matchName", "matchPattern"))
    if len(found) != 1:
        node.error("needs exactly one of matchName, matchPattern")
    for name, pattern in (("matchName", _NAME), ("matchPattern", _PATTERN)):
        if name in found:
            _dns_name(found[name], pattern)


def _dns_name(node: Node, pattern: re.Pattern[str]) -> None:
    text = node.text()
    if len(text) > _MAX_NAME:
        node.error(f"is longer than {_MAX_NAME} characters")
    # An expression that could go back on itself is only shown what is short and legal.
    elif text and (".." in text or text.startswith(".") or not _legal(text, pattern)):
        node.error(f"{text[:80]!r} is no name: use letters, digits, '-', '_' and '.'")


def _legal(text: str, pattern: re.Pattern[str]) -> bool:
    return all(pattern.fullmatch(part) for part in text.rstrip(".").split(".") if part)


def _http(node: Node) -> None:
    found = node.fields(("path", "method", "host", "headers", "headerMatches"))
    for name in ("path", "method"):
        if name in found and (reason := expressions.problem(found[name].text())):
            found[name].error(reason)
    if "host" in found:
        found["host"].text()
    if "headers" in found:
        found["headers"].texts()
    for item in found["headerMatches"].items() if "headerMatches" in found else ():
        _header(item)


def _header(node: Node) -> None:
    found = node.fields(("name", "value", "secret", "mismatch"))
    if "name" not in found or not found["name"].text():
        node.error("name is missing")
    if "value" in found:
        found["value"].text()
    if "mismatch" in found:
        found["mismatch"].one_of(_MISMATCHES)
    if "secret" in found:
        _secret(found["secret"])


def _secret(node: Node) -> None:
    found = node.fields(("namespace", "name"))
    if "name" not in found or not found["name"].text():
        node.error("name is missing")
    if "namespace" in found:
        found["namespace"].text()


def _kafka(node: Node) -> None:
    found = node.fields(_KAFKA)
    if "role" in found:
        found["role"].one_of(_ROLES)
    if "role" in found and "apiKey" in found:
        node.error("role and apiKey cannot be combined")
    for name in _KAFKA[1:]:
        if name in found and len(found[name].text()) > _MAX_NAME:
            found[name].error(f"is longer than {_MAX_NAME} characters")


def _generic(node: Node) -> None:
    for value in node.entries().values():
        value.text()


_READERS: dict[str, Callable[[Node], None]] = {
    "http": _http,
    "kafka": _kafka,
    "dns": names,
    "l7": _generic,
}


def rules(node: Node) -> str:
    """The kind of rules in ``rules`` of a port item; empty when nothing is ruled."""
    found = node.fields((*_KINDS, "l7proto"))
    given = [kind for kind in _KINDS if kind in found]
    if len(given) > 1:
        node.error(f"{' and '.join(given)} cannot be combined")
    if "l7" in found and "l7proto" not in found:
        node.error("l7 needs l7proto")
    if "l7proto" in found:
        found["l7proto"].text()
        if not given:
            node.warn("has no l7: the ports are open to every request")
        if any(kind != "l7" for kind in given):
            node.error(f"l7proto and {given[0]} cannot be combined")
    ruled = ""
    for kind in given:
        items = found[kind].items()
        if not items:
            found[kind].warn("is empty: the ports are open to every request")
        for item in items:
            _READERS[kind](item)
            ruled = ruled or kind
    return ruled


def tls(node: Node) -> None:
    """``terminatingTLS``, ``originatingTLS``."""
    found = node.fields(("secret", "trustedCA", "certificate", "privateKey"))
    if "secret" not in found:
        node.error("secret is missing")
    else:
        _secret(found["secret"])
    for name in ("trustedCA", "certificate", "privateKey"):
        if name in found:
            found[name].text()


def listener(node: Node) -> None:
    """A listener of an Envoy configuration."""
    found = node.fields(("envoyConfig", "name", "priority"))
    if "name" not in found or not found["name"].text():
        node.error("name is missing")
    if "priority" in found:
        found["priority"].number(1, 100)
    if "envoyConfig" not in found:
        node.error("envoyConfig is missing")
        return
    inner = found["envoyConfig"].fields(("kind", "name"))
    if "kind" in inner:
        inner["kind"].one_of(("CiliumEnvoyConfig", "CiliumClusterwideEnvoyConfig"))
    if "name" not in inner or not inner["name"].text():
        found["envoyConfig"].error("name is missing")
