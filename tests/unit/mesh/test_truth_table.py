"""Global, shared, affinity: the whole table, row by row, with what two releases of Cilium do.

We are cluster alpha with backend A; the other cluster is beta with backend B. Columns `v118` and
`v120`: what these releases do. By their rules they agree on every line; a defect of some 1.18
releases, which lose B when the annotation is written out as `none`, is left out.
"""

from itertools import product
from typing import NamedTuple

import pytest

from mesh.guard import LocalPrefixes
from model.address import parse_address
from model.cluster import ClusterId, ClusterName
from model.local_service import LocalBackend, LocalService, MeshSettings
from model.service import (
    L4,
    Affinity,
    Frontend,
    Protocol,
    Selection,
    ServiceName,
    SharedService,
)
from tests.support.naive_services import ServiceClaims, merge

NAME = ServiceName("shop", "rebel-base")
VIP = parse_address("10.96.0.10")
FRONT = Frontend(VIP, 80, Protocol.TCP)
A, B = parse_address("10.1.0.1"), parse_address("10.2.0.1")
TARGET = {"http": L4(8080, Protocol.TCP)}
LETTERS = {A: "A", B: "B"}
ANY, YES, NO = (False, True), (True,), (False,)


class Ours(NamedTuple):
    """State of our backend."""

    ready: bool
    serving: bool
    terminating: bool


ACTIVE = Ours(ready=True, serving=True, terminating=False)
UNREADY = Ours(ready=False, serving=False, terminating=False)
ENDING = Ours(ready=False, serving=True, terminating=True)
ENDED = Ours(ready=False, serving=False, terminating=True)


class Row(NamedTuple):
    """One line of the table. ``there``: beta publishes a ready backend."""

    ours_global: tuple[bool, ...]
    theirs_global: tuple[bool, ...]
    theirs_shared: tuple[bool, ...]
    affinity: Affinity
    ours: Ours | None
    there: tuple[bool, ...]
    v118: str
    v120: str


NONE, LOCAL, REMOTE = Affinity.NONE, Affinity.LOCAL, Affinity.REMOTE
STATES = (ACTIVE, UNREADY, ENDING, ENDED, None)
ALONE = {ACTIVE: "A", UNREADY: "", ENDING: "A", ENDED: "", None: ""}  # "": refused
TABLE = [
    # We are not global: only ours, whatever they and the affinity say.
    *(Row(NO, ANY, ANY, a, s, ANY, ALONE[s], ALONE[s]) for a in Affinity for s in STATES),
    # They are not global: they publish nothing.
    *(Row(YES, NO, ANY, a, s, ANY, ALONE[s], ALONE[s]) for a in Affinity for s in STATES),
    # They do not share: the same, seen from here.
    *(Row(YES, YES, NO, a, s, ANY, ALONE[s], ALONE[s]) for a in Affinity for s in STATES),
    # Both global, theirs shared, no affinity: all that are active.
    Row(YES, YES, YES, NONE, ACTIVE, YES, "AB", "AB"),
    Row(YES, YES, YES, NONE, ACTIVE, NO, "A", "A"),
    Row(YES, YES, YES, NONE, UNREADY, YES, "B", "B"),
    Row(YES, YES, YES, NONE, UNREADY, NO, "", ""),
    Row(YES, YES, YES, NONE, ENDING, YES, "B", "B"),
    Row(YES, YES, YES, NONE, ENDING, NO, "A", "A"),
    Row(YES, YES, YES, NONE, ENDED, YES, "B", "B"),
    Row(YES, YES, YES, NONE, ENDED, NO, "", ""),
    Row(YES, YES, YES, NONE, None, YES, "B", "B"),
    Row(YES, YES, YES, NONE, None, NO, "", ""),
    # Local: theirs only while none of ours is active.
    Row(YES, YES, YES, LOCAL, ACTIVE, YES, "A", "A"),
    Row(YES, YES, YES, LOCAL, ACTIVE, NO, "A", "A"),
    Row(YES, YES, YES, LOCAL, UNREADY, YES, "B", "B"),
    Row(YES, YES, YES, LOCAL, UNREADY, NO, "", ""),
    Row(YES, YES, YES, LOCAL, ENDING, YES, "B", "B"),
    Row(YES, YES, YES, LOCAL, ENDING, NO, "A", "A"),
    Row(YES, YES, YES, LOCAL, ENDED, YES, "B", "B"),
    Row(YES, YES, YES, LOCAL, ENDED, NO, "", ""),
    Row(YES, YES, YES, LOCAL, None, YES, "B", "B"),
    Row(YES, YES, YES, LOCAL, None, NO, "", ""),
    # Remote: ours only while none of theirs is there.
    Row(YES, YES, YES, REMOTE, ACTIVE, YES, "B", "B"),
    Row(YES, YES, YES, REMOTE, ACTIVE, NO, "A", "A"),
    Row(YES, YES, YES, REMOTE, UNREADY, YES, "B", "B"),
    Row(YES, YES, YES, REMOTE, UNREADY, NO, "", ""),
    Row(YES, YES, YES, REMOTE, ENDING, YES, "B", "B"),
    Row(YES, YES, YES, REMOTE, ENDING, NO, "A", "A"),
    Row(YES, YES, YES, REMOTE, ENDED, YES, "B", "B"),
    Row(YES, YES, YES, REMOTE, ENDED, NO, "", ""),
    Row(YES, YES, YES, REMOTE, None, YES, "B", "B"),
    Row(YES, YES, YES, REMOTE, None, NO, "", ""),
]


def chosen(
    row: Row, is_global: bool, published: bool, shared: bool, there: bool, offer: bool
) -> str:
    """What new connections take. ``offer``: our own `shared`."""
    mesh = MeshSettings(is_global=is_global, shared=offer, affinity=row.affinity)
    service = LocalService(NAME, {VIP: {"http": L4(80, Protocol.TCP)}}, mesh=mesh)
    own = {A: LocalBackend(A, TARGET, *row.ours)} if row.ours else {}
    theirs = SharedService(
        ClusterName("beta"),
        ClusterId(2),
        NAME,
        backends={B: TARGET} if there else {},
        shared=shared,
    )
    claims = ServiceClaims(service, own, (theirs,) if published else ())
    table, sentences = merge(claims, LocalPrefixes(), Selection.RANDOM, ClusterName("alpha"))
    assert sentences == ()
    found = table[FRONT]
    return "".join(LETTERS[b.address] for b in found.backends[: found.selectable])


@pytest.mark.parametrize("row", TABLE, ids=lambda row: "-".join(str(part) for part in row[:5]))
def test_truth_table(row: Row) -> None:
    """Every combination a line stands for gives what both columns say, and our own `shared` never
    matters to what we use."""
    for is_global in row.ours_global:
        for published in row.theirs_global:
            for shared in row.theirs_shared:
                for there in row.there:
                    for offer in ANY:
                        found = chosen(row, is_global, published, shared, there, offer)
                        assert found == row.v120 == row.v118, (
                            is_global,
                            published,
                            shared,
                            there,
                            offer,
                        )


def test_the_table_is_complete() -> None:
    """Every combination of the inputs stands in exactly one line."""
    inputs = product(Affinity, STATES, ANY, ANY, ANY, ANY)
    for affinity, ours, ours_global, theirs_global, theirs_shared, there in inputs:
        lines = [
            row
            for row in TABLE
            if (row.affinity, row.ours) == (affinity, ours)
            and ours_global in row.ours_global
            and theirs_global in row.theirs_global
            and theirs_shared in row.theirs_shared
            and there in row.there
        ]
        assert len(lines) == 1, (affinity, ours, ours_global, theirs_global, theirs_shared, there)
