"""Policy objects of manifest files, and what is found in them. Adapter."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml

from policy.objects import cidr_group
from policy.objects.notes import Finding, Node, Notes
from policy.objects.read import Kind, Source, read
from policy.objects.settings import Settings

STDIN = "-"
SUFFIXES = (".yaml", ".yml", ".json")
GROUP_KIND = "CiliumCIDRGroup"
VERSIONS = {
    Kind.NETWORK_POLICY.value: ("networking.k8s.io/v1",),
    Kind.CILIUM.value: ("cilium.io/v2",),
    Kind.CLUSTERWIDE.value: ("cilium.io/v2",),
    GROUP_KIND: ("cilium.io/v2alpha1", "cilium.io/v2"),
}


class _Loader(yaml.SafeLoader):
    """Dates stay texts, as they do on their way to an API server."""


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, regex) for tag, regex in found if tag != "tag:yaml.org,2002:timestamp"]
    for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True)
class Judged:
    """One object of a file. ``unknown`` fields are errors here: an API server refuses them."""

    file: str
    kind: str
    name: str
    errors: tuple[Finding, ...]
    unknown: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    unenforced: tuple[Finding, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether it may be applied."""
        return not self.errors and not self.unknown

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        found = {
            "errors": (*self.errors, *self.unknown),
            "warnings": self.warnings,
            "notEnforced": self.unenforced,
        }
        listed = {
            name: [{"path": f.path, "reason": f.reason} for f in findings]
            for name, findings in found.items()
        }
        about = {"file": self.file, "kind": self.kind, "name": self.name, "valid": self.valid}
        return about | listed


def documents(names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """All documents of files, of the files in directories, of standard input.

    Raises ``click.ClickException`` naming the file.
    """
    for name in names:
        for file in _files(name):
            try:
                text = sys.stdin.read() if file == STDIN else Path(file).read_text()
                found = list(yaml.load_all(text, Loader=_Loader))
            except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
                raise click.ClickException(f"{file}: cannot be read: {error}") from error
            except yaml.YAMLError as error:
                raise click.ClickException(f"{file}: is no YAML: {_place(error)}") from error
            for document in found:
                yield from ((file, item) for item in _items(document))


def _files(name: str) -> list[str]:
    if name == STDIN or not Path(name).is_dir():
        return [name]
    return sorted(str(p) for p in Path(name).iterdir() if p.suffix in SUFFIXES)


def _place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark is not None else ""
    return where + str(getattr(error, "problem", None) or error).splitlines()[0]


def _items(document: Any) -> Iterator[Any]:
    if isinstance(document, dict) and str(document.get("kind", "")).endswith("List"):
        listed = document.get("items")
        yield from listed if isinstance(listed, list) else []
    elif document is not None:
        yield document


def source_of(document: Mapping[str, Any]) -> Source:
    """One object that ``judge`` found valid, other than a CIDR group."""
    kind, meta = Kind(document["kind"]), document["metadata"]
    namespace = "" if kind is Kind.CLUSTERWIDE else meta.get("namespace") or "default"
    annotations = meta.get("annotations") or {}
    spec, specs = document.get("spec"), document.get("specs")
    return Source(kind, namespace, meta["name"], spec, specs, annotations)


def judge(file: str, document: Any, settings: Settings) -> Judged | None:
    """``None`` for another kind of object."""
    if not isinstance(document, dict) or document.get("kind") not in VERSIONS:
        return None
    kind, notes = str(document["kind"]), Notes()
    clusterwide = kind in (Kind.CLUSTERWIDE, GROUP_KIND)
    known = ("apiVersion", "kind", "metadata", "spec", "status")
    whole = Node(document, "", notes).fields(
        known if kind in (Kind.NETWORK_POLICY, GROUP_KIND) else (*known, "specs")
    )
    if "apiVersion" not in whole:
        notes.errors.append(Finding("apiVersion", f"is missing: write {VERSIONS[kind][0]}"))
    else:
        whole["apiVersion"].one_of(VERSIONS[kind])
    meta = whole["metadata"].entries() if "metadata" in whole else {}
    name = meta["name"].text() if "name" in meta else ""
    if not name:
        notes.errors.append(Finding("metadata.name", "is missing"))
    namespace = meta["namespace"].text() if "namespace" in meta else ""
    if clusterwide and namespace:
        meta["namespace"].error(f"{kind} is clusterwide: remove it")
    namespace = "" if clusterwide else namespace or "default"
    annotations, labels = _texts(meta.get("annotations")), _texts(meta.get("labels"))
    place = f"{namespace}/{name}" if namespace else name
    if kind == GROUP_KIND:
        found: tuple[tuple[Finding, ...], ...]
        group = cidr_group.read(name, labels, document.get("spec"))
        found = (group.errors, group.unknown, group.warnings, ())
    else:
        source = Source(
            Kind(kind), namespace, name, document.get("spec"), document.get("specs"), annotations
        )
        reading = read(source, settings)
        found = (reading.errors, reading.unknown, reading.warnings, reading.unenforced)
    return Judged(
        file,
        kind,
        place,
        (*notes.errors, *found[0]),
        (*notes.unknown, *found[1]),
        found[2],
        found[3],
    )


def _texts(node: Node | None) -> dict[str, str]:
    if node is None or node.value is None:
        return {}
    return {key: value.text() for key, value in node.entries().items()}
