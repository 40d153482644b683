"""The definitions of ServiceExport and ServiceImport (KEP-1645). Pure.

They belong to a Kubernetes group and are often there already: one that we did not make is left
alone.
"""

from typing import Any

from cluster_operator.definition import VERSION_LABEL
from cluster_operator.schema import INT64, INTEGER, STRING, TIME, Schema, array, fields, mapping
from wire.k8s.multicluster import GROUP, VERSION

SCHEMA_VERSION = "1.0.0"
# Asked for by API servers of groups that end in k8s.io; here it also says: not ours alone.
SHARED_ANNOTATION = "api-approved.kubernetes.io"
APPROVED = "https://github.com/kubernetes/enhancements/pull/1646"

_CONDITIONS = array(
    fields(
        ("type", "status"),
        type=STRING,
        status=STRING,
        reason=STRING,
        message=STRING,
        observedGeneration=INT64,
        lastTransitionTime=TIME,
    )
)
_PORT = fields(
    ("port",),
    name=STRING,
    protocol=STRING,
    appProtocol=STRING,
    port={"type": "integer", "format": "int32"},
)


def _export() -> Schema:
    return fields(
        spec=fields(exportedLabels=mapping(STRING), exportedAnnotations=mapping(STRING)),
        status=fields(conditions=_CONDITIONS),
    )


def _import() -> Schema:
    spec = fields(
        ("ports", "type"),
        ports=array(_PORT),
        ips=array(STRING) | {"maxItems": 2},
        type={"type": "string", "enum": ["ClusterSetIP", "Headless"]},
        sessionAffinity=STRING,
        sessionAffinityConfig=fields(clientIP=fields(timeoutSeconds=INTEGER)),
        ipFamilies=array(STRING),
    )
    status = fields(clusters=array(fields(("cluster",), cluster=STRING)), conditions=_CONDITIONS)
    return fields(spec=spec, status=status)


def definitions() -> tuple[dict[str, Any], ...]:
    """Both, ready to be created."""
    age = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
    valid, conflict = (
        {
            "name": kind,
            "type": "string",
            "jsonPath": f'.status.conditions[?(@.type=="{kind}")].status',
        }
        for kind in ("Valid", "Conflict")
    )
    kind = {"name": "Type", "type": "string", "jsonPath": ".spec.type"}
    ips = {"name": "IP", "type": "string", "jsonPath": ".spec.ips"}
    return (
        _definition("ServiceExport", "svcex", _export(), [valid, conflict, age]),
        _definition("ServiceImport", "svcim", _import(), [kind, ips, age]),
    )


def _definition(
    kind: str, short: str, schema: Schema, columns: list[dict[str, Any]]
) -> dict[str, Any]:
    singular = kind.lower()
    top = {"apiVersion": STRING, "kind": STRING, "metadata": {"type": "object"}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{singular}s.{GROUP}",
            "labels": {VERSION_LABEL: SCHEMA_VERSION},
            "annotations": {SHARED_ANNOTATION: APPROVED},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": f"{singular}s",
                "singular": singular,
                "shortNames": [short],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {
                        "openAPIV3Schema": schema | {"properties": top | schema["properties"]}
                    },
                }
            ],
        },
    }
