"""What the manifests let an account do, and a client that remembers what it asked for.

The lab's API server gives every account every right, so this is where roles are held to what
processes really call.
"""

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from cli import cluster
from kube.client import HttpClient

_PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/[^/]+(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?"
)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_NAMED = "metadata.name="


@dataclass(frozen=True)
class Call:
    """One request as a role sees it."""

    verb: str
    group: str
    resource: str  # with its subresource
    namespace: str
    name: str


def call(method: str, path: str, query: Mapping[str, str]) -> Call:
    """Raises ``AssertionError`` for a path that names no object."""
    found = _PATH.fullmatch(path)
    assert found, path
    name = found["name"] or ""
    selected = query.get("fieldSelector", "")
    if not name and selected.startswith(_NAMED):
        name = selected.removeprefix(_NAMED)  # as an API server authorizes such lists
    verb = _VERBS.get(method, "")
    if method == "GET":
        verb = "get" if found["name"] else "watch" if query.get("watch") == "true" else "list"
    resource = "/".join(part for part in (found["plural"], found["sub"]) if part)
    return Call(verb, found["group"] or "", resource, found["namespace"] or "", name)


@contextmanager
def recorded(patch: pytest.MonkeyPatch, thread: str = "MainThread") -> Iterator[set[Call]]:
    """Every call that clients of a thread make meanwhile."""
    calls: set[Call] = set()
    ask = HttpClient._open

    async def remember(self: HttpClient, *words: Any) -> Any:
        method, path, query = words[2], words[3], dict(words[4])
        if threading.current_thread().name == thread:
            calls.add(call(method, path, query))
        return await ask(self, *words)

    with patch.context() as patched:
        patched.setattr(HttpClient, "_open", remember)
        yield calls


def refused(account: str, calls: set[Call], items: list[dict[str, Any]]) -> list[Call]:
    """The calls that no role of the account covers."""
    rules = list(_rules(account, items))
    return sorted((c for c in calls if not any(_covers(*r, c) for r in rules)), key=str)


def objects(*names: str, **values: object) -> list[dict[str, Any]]:
    """Manifests of ``deploy/manifests``."""
    return [item for name in names for item in cluster.manifest(name, **values)]


def _rules(account: str, items: list[dict[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Namespace (empty: everywhere) and rule."""
    for binding in items:
        if binding["kind"] not in ("ClusterRoleBinding", "RoleBinding"):
            continue
        if all(subject["name"] != account for subject in binding["subjects"]):
            continue
        space = binding["metadata"].get("namespace", "")
        for role in items:
            meta, wanted = role["metadata"], binding["roleRef"]
            if (role["kind"], meta["name"]) != (wanted["kind"], wanted["name"]):
                continue
            if role["kind"] == "ClusterRole" or meta["namespace"] == space:
                yield from ((space, rule) for rule in role["rules"])


def _covers(namespace: str, rule: Mapping[str, Any], wanted: Call) -> bool:
    names = rule.get("resourceNames")
    return (
        namespace in ("", wanted.namespace)
        and wanted.group in rule["apiGroups"]
        and wanted.resource in rule["resources"]
        and wanted.verb in rule["verbs"]
        and (not names or wanted.name in names)
    )
