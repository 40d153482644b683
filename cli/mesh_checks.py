"""May these clusters be joined? Pure: facts in, one finding per problem out.

Every finding names the object and the remedy. Nothing is written unless there is none.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import combinations

from certs import check
from certs.profiles import CA_SECRET, REMOTE_SECRET, SERVER_SECRET
from cli.mesh_facts import ClusterFacts
from cli.mesh_findings import Finding, sentence
from model.cluster import parse_cluster_id, parse_cluster_name


def _where(facts: ClusterFacts) -> str:
    return f"cluster {facts.name} (context {facts.context or 'current'})"


def member(facts: ClusterFacts) -> list[Finding]:
    """Why a cluster cannot be in any mesh: its name or its number."""
    where, who = _where(facts), (facts.name,)
    problems = []
    try:
        parse_cluster_name(facts.name)
        parse_cluster_id(facts.id, facts.max_connected)
    except ValueError as error:
        remedy = "install it again with another value"
        problems.append(Finding("cluster-name-id", who, f"{where}: {error}", remedy))
    if facts.name == "default":
        found = f'{where}: "default" is no name for a mesh'
        problems.append(Finding("cluster-name-id", who, found, "install it with --cluster-name"))
    return problems


def alone(facts: ClusterFacts, now: datetime) -> list[Finding]:
    """What is wrong with one cluster by itself."""
    where, who = _where(facts), (facts.name,)
    problems = member(facts)
    if not facts.enabled:
        found = f"{where}: no Service {facts.namespace}/clustermesh-apiserver"
        problems.append(Finding("mesh-store", who, found, "run `isthmus clustermesh enable` there"))
        return problems
    if not facts.addresses:
        problems.append(
            Finding(
                "mesh-store",
                who,
                f"{where}: clustermesh-apiserver has no address yet",
                "wait until it runs, or name one with --source-endpoint or --destination-endpoint",
            )
        )
    if not facts.ca:
        found = f"{where}: Secret {facts.namespace}/{CA_SECRET} with ca.crt is missing"
        problems.append(
            Finding("certificate", who, found, "run `isthmus clustermesh enable` there")
        )
    for name, data in ((SERVER_SECRET, facts.server), (REMOTE_SECRET, facts.client)):
        why = check.problem(
            f"{where}: Secret {facts.namespace}/{name}",
            data.get("tls.crt", b""),
            data.get("ca.crt", b""),
            now,
        )
        if why:
            anew = why.endswith("issue it anew")
            more = ": run `isthmus clustermesh enable` there" if anew else ""
            problems.append(sentence("certificate", facts.name, why, more))
    return problems


def together(clusters: Sequence[ClusterFacts], now: datetime) -> list[Finding]:
    """What is wrong with joining them, each by itself included."""
    problems = [text for facts in clusters for text in alone(facts, now)]
    for a, b in combinations(clusters, 2):
        problems += _pair(a, b)
    for facts in clusters:
        problems += _third(facts, [c for c in clusters if c is not facts])
    return problems


def _pair(a: ClusterFacts, b: ClusterFacts) -> list[Finding]:
    problems = []
    who, both = (a.name, b.name), f"clusters {a.name} and {b.name}"
    if a.name == b.name:
        problems.append(
            Finding(
                "cluster-name",
                who,
                f"contexts {a.context or 'current'} and {b.context or 'current'}: both clusters "
                f"are named {a.name}",
                "install one of them with another --cluster-name",
            )
        )
    if a.id == b.id and a.id:
        remedy = "install one of them with another --cluster-id"
        problems.append(Finding("cluster-id", who, f"{both} both have ID {a.id}", remedy))
    if a.max_connected != b.max_connected:
        problems.append(
            Finding(
                "max-connected-clusters",
                who,
                f"{both}: max-connected-clusters is {a.max_connected} and {b.max_connected}",
                "set both to the same",
            )
        )
    if a.tunnel != b.tunnel:
        found = f"{both}: tunnel-protocol is {a.tunnel!r} and {b.tunnel!r}"
        problems.append(Finding("tunnel-protocol", who, found, "set both to the same"))
    overlaps = [
        (p, q) for p in a.pod_cidrs for q in b.pod_cidrs if p.version == q.version and p.overlaps(q)
    ]
    if overlaps:
        p, q = overlaps[0]
        remedy = "build one of the clusters with other pod CIDRs"
        problems.append(Finding("pod-cidr", who, f"{both}: pod CIDRs {p} and {q} overlap", remedy))
    return problems


def _third(facts: ClusterFacts, others: Sequence[ClusterFacts]) -> list[Finding]:
    """What clusters that are already connected leave no room for."""
    problems = []
    for name, number in facts.connected.items():
        if not number:
            continue
        for other in others:
            who = (facts.name, other.name)
            if other.name == name and other.id != number:
                problems.append(
                    Finding(
                        "cluster-id",
                        who,
                        f"cluster {facts.name} is already connected to a cluster {name} with ID "
                        f"{number}, and this one has ID {other.id}",
                        "disconnect that one first, or install this one with another "
                        "--cluster-name",
                    )
                )
            elif other.name != name and other.id == number:
                problems.append(
                    Finding(
                        "cluster-id",
                        who,
                        f"cluster {other.name} has ID {number}, as has {name}, which {facts.name} "
                        "is already connected to",
                        "install it with another --cluster-id",
                    )
                )
    return problems


def refusal(findings: Sequence[Finding]) -> str:
    """All of them as one message."""
    return "\n       ".join(str(finding) for finding in findings)
