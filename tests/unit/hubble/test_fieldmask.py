"""Field masks keep what they name and nothing else."""

import pytest
from google.protobuf import json_format

from hubble import fieldmask
from wire.hubble import flow_pb2

FLOW = {
    "uuid": "u",
    "verdict": "DROPPED",
    "source": {"pod_name": "a", "namespace": "n", "labels": ["x"], "workloads": [{"name": "w"}]},
    "l4": {"TCP": {"source_port": 1, "flags": {"SYN": True}}},
}


def masked(*paths: str) -> dict[str, object]:
    flow = json_format.ParseDict(FLOW, flow_pb2.Flow())
    tree = fieldmask.parse(paths)
    if tree is not None:
        fieldmask.keep(flow, tree)
    return json_format.MessageToDict(flow, preserving_proto_field_name=True)


@pytest.mark.parametrize(
    ("paths", "left"),
    [
        ((), FLOW),
        (("uuid",), {"uuid": "u"}),
        (
            ("source.pod_name", "l4.TCP.flags"),
            {"source": {"pod_name": "a"}, "l4": {"TCP": {"flags": {"SYN": True}}}},
        ),
        (("source.pod_name", "source"), {"source": FLOW["source"]}),
        (("source", "source.pod_name"), {"source": FLOW["source"]}),
        (("source.workloads",), {"source": {"workloads": [{"name": "w"}]}}),
        (("IP", "time"), {}),
    ],
)
def test_what_is_named_is_kept(paths: tuple[str, ...], left: dict[str, object]) -> None:
    """Nested, in any order; a parent swallows its children."""
    assert masked(*paths) == left


@pytest.mark.parametrize(
    "path",
    [
        "nothing",
        "source.nothing",
        "uuid.x",
        "source.workloads.name",
        "",
        "source.",
        "source_labels",
    ],
)
def test_a_path_to_nowhere_is_refused(path: str) -> None:
    """By name, also below a parent that is wanted whole."""
    with pytest.raises(fieldmask.FieldMaskError, match="invalid fieldmask"):
        fieldmask.parse(["source", path])
