"""The frame of a resource definition. Pure.

The schema version is raised with every change of a definition; the operator replaces older ones.
"""

from collections.abc import Sequence
from typing import Any

from cluster_operator.schema import STRING, Schema

GROUP = "cilium.io"
VERSION_LABEL = "io.cilium.k8s.crd.schema.version"
SCHEMA_VERSION = "1.32.0"

Column = tuple[str, str, str, int]  # name, type, path, priority

AGE: Column = ("Age", "date", ".metadata.creationTimestamp", 0)


def definition(
    kind: str,
    plural: str,
    singular: str,
    scope: str,
    short: Sequence[str],
    columns: Sequence[Column],
    schema: Schema,
    status_subresource: bool,
    version_name: str = "v2",
    group: str = GROUP,
) -> dict[str, Any]:
    """One definition, ready to be created."""
    body = {
        "type": "object",
        "properties": {
            "apiVersion": STRING,
            "kind": STRING,
            "metadata": {"type": "object"},
            **schema["properties"],
        },
    }
    # Only what the kind itself requires; metadata is the server's business.
    if "required" in schema:
        body["required"] = ["metadata", *schema["required"]]
    version: dict[str, Any] = {
        "name": version_name,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": body},
        "additionalPrinterColumns": [_column(*column) for column in columns],
    }
    if status_subresource:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            "labels": {VERSION_LABEL: SCHEMA_VERSION},
        },
        "spec": {
            "group": group,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": singular,
                "shortNames": list(short),
                "categories": ["cilium"],
            },
            "scope": scope,
            "versions": [version],
        },
    }


def _column(name: str, type_: str, path: str, priority: int) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": type_, "jsonPath": path}
    if priority:
        column["priority"] = priority
    return column
