"""May these clusters be joined? Pure: facts in, one sentence per problem out.

Every sentence names the object and the remedy. Nothing is written unless there is none.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import combinations

from certs import check
from certs.profiles import CA_SECRET, REMOTE_SECRET, SERVER_SECRET
from cli.mesh_facts import ClusterFacts
from model.cluster import parse_cluster_id, parse_cluster_name


def _where(facts: ClusterFacts) -> str:
    return f"cluster {facts.name} (context {facts.context or 'current'})"


def member(facts: ClusterFacts) -> list[str]:
    """Why a cluster cannot be in any mesh: its name or its number."""
    where = _where(facts)
    problems = []
    try:
        parse_cluster_name(facts.name)
        parse_cluster_id(facts.id, facts.max_connected)
    except ValueError as error:
        problems.append(f"{where}: {error}; install it again with another value")
    if facts.name == "default":
        problems.append(f'{where}: "default" is no name for a mesh: install it with --cluster-name')
    return problems


def alone(facts: ClusterFacts, now: datetime) -> list[str]:
    """What is wrong with one cluster by itself."""
    where = _where(facts)
    problems = member(facts)
    if not facts.enabled:
        problems.append(
            f"{where}: no Service {facts.namespace}/clustermesh-apiserver: "
            "run `isthmus clustermesh enable` there"
        )
    elif not facts.addresses:
        problems.append(
            f"{where}: clustermesh-apiserver has no address yet: wait until it runs, "
            "or name one with --source-endpoint or --destination-endpoint"
        )
    if facts.enabled and not facts.ca:
        problems.append(
            f"{where}: Secret {facts.namespace}/{CA_SECRET} with ca.crt is missing: "
            "run `isthmus clustermesh enable` there"
        )
    for name, data in ((SERVER_SECRET, facts.server), (REMOTE_SECRET, facts.client)):
        if facts.enabled:
            why = check.problem(
                f"{where}: Secret {facts.namespace}/{name}",
                data.get("tls.crt", b""),
                data.get("ca.crt", b""),
                now,
            )
            if why.endswith("issue it anew"):
                why += ": run `isthmus clustermesh enable` there"
            problems += [why] if why else []
    return problems


def together(clusters: Sequence[ClusterFacts], now: datetime) -> list[str]:
    """What is wrong with joining them, each by itself included."""
    problems = [text for facts in clusters for text in alone(facts, now)]
    for a, b in combinations(clusters, 2):
        problems += _pair(a, b)
    for facts in clusters:
        problems += _third(facts, [c for c in clusters if c is not facts])
    return problems


def _pair(a: ClusterFacts, b: ClusterFacts) -> list[str]:
    problems = []
    if a.name == b.name:
        problems.append(
            f"contexts {a.context or 'current'} and {b.context or 'current'}: both clusters are "
            f"named {a.name}: install one of them with another --cluster-name"
        )
    if a.id == b.id and a.id:
        problems.append(
            f"clusters {a.name} and {b.name} both have ID {a.id}: "
            "install one of them with another --cluster-id"
        )
    if a.max_connected != b.max_connected:
        problems.append(
            f"clusters {a.name} and {b.name}: max-connected-clusters is {a.max_connected} and "
            f"{b.max_connected}: set both to the same"
        )
    if a.tunnel != b.tunnel:
        problems.append(
            f"clusters {a.name} and {b.name}: tunnel-protocol is {a.tunnel!r} and {b.tunnel!r}: "
            "set both to the same"
        )
    overlaps = [
        (p, q) for p in a.pod_cidrs for q in b.pod_cidrs if p.version == q.version and p.overlaps(q)
    ]
    if overlaps:
        p, q = overlaps[0]
        problems.append(
            f"clusters {a.name} and {b.name}: pod CIDRs {p} and {q} overlap: "
            "build one of the clusters with other pod CIDRs"
        )
    return problems


def _third(facts: ClusterFacts, others: Sequence[ClusterFacts]) -> list[str]:
    """What clusters that are already connected leave no room for."""
    problems = []
    for name, number in facts.connected.items():
        if not number:
            continue
        for other in others:
            if other.name == name and other.id != number:
                problems.append(
                    f"cluster {facts.name} is already connected to a cluster {name} with ID "
                    f"{number}, and this one has ID {other.id}: disconnect that one first, or "
                    "install this one with another --cluster-name"
                )
            elif other.name != name and other.id == number:
                problems.append(
                    f"cluster {other.name} has ID {number}, as has {name}, which {facts.name} is "
                    "already connected to: install it with another --cluster-id"
                )
    return problems
