"""The definition of ClusterMeshPeer. Pure."""

from typing import Any

from cluster_operator.definition import AGE, Column, definition
from cluster_operator.schema import INT64, STRING, TIME, array, fields, named
from model.cluster import MAX_CONNECTED_CLUSTERS, NAME_LIMIT
from wire.k8s.cluster_mesh_peer import GROUP, KIND, VERSION

PLURAL = "clustermeshpeers"
ENDPOINT_LIMIT = 16

_READY = '.status.conditions[?(@.type=="Ready")]'
_COLUMNS: tuple[Column, ...] = (
    ("Cluster ID", "integer", ".spec.clusterID", 0),
    ("Ready", "string", f"{_READY}.status", 0),
    ("Reason", "string", f"{_READY}.reason", 0),
    ("Age of data", "string", ".status.dataAge", 0),
    ("Endpoints", "string", ".spec.endpoints", 1),
    ("Message", "string", f"{_READY}.message", 1),
    AGE,
)


def _said(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "description": text}


def _spec() -> dict[str, Any]:
    return named(
        {
            "clusterName": _said(
                "Name of the other cluster in the mesh; left out: the name of this object.",
                {"type": "string", "maxLength": NAME_LIMIT},
            ),
            "clusterID": _said(
                "Number of the other cluster in the mesh.",
                {"type": "integer", "minimum": 1, "maximum": max(MAX_CONNECTED_CLUSTERS)},
            ),
            "endpoints": _said(
                "HOST:PORT of the other cluster's mesh store, one port for all.",
                array({"type": "string", "minLength": 1})
                | {"minItems": 1, "maxItems": ENDPOINT_LIMIT},
            ),
            "secretRef": _said(
                "Secret of the namespace isthmus-peers with ca.crt (the other's authority), "
                "tls.crt and tls.key (our certificate for its store); left out: this cluster's own "
                "certificate, for clusters whose stores trust its authority.",
                fields(("name",), name={"type": "string", "minLength": 1}),
            ),
            "cacheTTL": _said(
                "After how long without the cluster its backends are taken back, like 10m; 0s: "
                "never; left out: as clustermesh-cache-ttl says.",
                STRING,
            ),
        },
        ("clusterID", "endpoints"),
    )


def definitions() -> tuple[dict[str, Any], ...]:
    """It, ready to be created."""
    condition = fields(
        ("type", "status"),
        type=STRING,
        status=STRING,
        reason=STRING,
        message=STRING,
        observedGeneration=INT64,
        lastTransitionTime=TIME,
    )
    schema = fields(
        ("spec",), spec=_spec(), status=fields(conditions=array(condition), dataAge=STRING)
    )
    singular = KIND.lower()
    made = definition(
        KIND, PLURAL, singular, "Cluster", ["cmp"], _COLUMNS, schema, True, VERSION, GROUP
    )
    return (made,)
