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
from mesh import joining
from model.cluster import ClusterId, ClusterName, parse_cluster_id, parse_cluster_name
from model.peer import Peer


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
    who = (a.name, b.name)
    contexts = f"contexts {a.context or 'current'} and {b.context or 'current'}: "
    return [
        # Clusters of one name are told apart by their contexts.
        Finding(p.check, who, (contexts if a.name == b.name else "") + p.found, p.remedy)
        for p in joining.pair(_peer(a), _peer(b))
    ]


def _third(facts: ClusterFacts, others: Sequence[ClusterFacts]) -> list[Finding]:
    """What clusters that are already connected leave no room for."""
    return [
        Finding(p.check, (facts.name, other.name), p.found, p.remedy)
        for other in others
        for p in joining.clashes(facts.name, other.name, other.id, facts.connected)
    ]


def _peer(facts: ClusterFacts) -> Peer:
    """As it stands; what is wrong with its name or number is told by ``member``."""
    return Peer(
        ClusterName(facts.name),
        ClusterId(facts.id),
        facts.max_connected,
        facts.tunnel,
        facts.pod_cidrs,
    )


def refusal(findings: Sequence[Finding]) -> str:
    """All of them as one message."""
    return "\n       ".join(str(finding) for finding in findings)
