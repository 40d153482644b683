"""Endpoints on disk: whole or not there."""

from dataclasses import replace
from pathlib import Path

from agent.endpoint_store import Endpoint, EndpointStore, decode, encode
from model.address import parse_address
from model.endpoint import EndpointId, EndpointState, LocalEndpoint
from model.identity import Identity, NumericIdentity
from model.labels import Label, Labels

LABELS = Labels.of([Label("app", "web"), Label("init", "", "reserved"), Label("empty", "")])
ENDPOINT = Endpoint(
    local=LocalEndpoint(
        EndpointId(77),
        NumericIdentity(65800),
        9,
        "lxc0123456789ab",
        b"\x02\x00\x00\x00\x00\x01",
        b"\x02\x00\x00\x00\x00\x02",
        (parse_address("10.1.0.5"), parse_address("fd00::5")),
    ),
    identity=Identity(NumericIdentity(65800), LABELS),
    container_id="c" * 64,
    container_interface="eth0",
    netns="/run/netns/x",
    namespace="default",
    pod="web",
    pod_uid="uid",
)


def test_round_trip(tmp_path: Path) -> None:
    """What is written is read, in the state of one to be restored."""
    assert decode(encode(ENDPOINT)) == replace(ENDPOINT, state=EndpointState.RESTORING)
    store = EndpointStore(tmp_path / "state")
    assert store.load() == []
    store.write(ENDPOINT)
    assert [e.id for e in store.load()] == [77]
    store.remove(ENDPOINT.id)
    store.remove(ENDPOINT.id)
    assert store.load() == []


def test_a_write_that_was_cut_keeps_the_old_file(tmp_path: Path) -> None:
    """Rubbish under the name of the file to come is passed over and later overwritten."""
    store = EndpointStore(tmp_path)
    store.write(ENDPOINT)
    (tmp_path / "77" / "endpoint.json_next").write_bytes(b'{"id":')
    assert [e.id for e in store.load()] == [77]
    store.write(ENDPOINT.with_identity(Identity(NumericIdentity(65801), LABELS)))
    assert [e.identity.id for e in store.load()] == [65801]


def test_a_broken_file_takes_only_itself(tmp_path: Path) -> None:
    """It is removed with its directory; others are loaded; what is not ours stays."""
    store = EndpointStore(tmp_path)
    store.write(ENDPOINT)
    for name, text in (("5", "{"), ("6", '{"id":6}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "endpoint.json").write_text(text)
    (tmp_path / "7").mkdir()
    (tmp_path / "router-address").write_text("10.1.0.1")
    assert [e.id for e in store.load()] == [77]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["77", "router-address"]
