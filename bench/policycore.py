"""The computation of policy alone: no objects are read and no map is written.

*Full*: 25,000 identities and 10,000 policies of one rule each, in 250 namespaces, become the maps
of 30 endpoints, and every policy's peers are found besides, whether an endpoint needs them or not.
*Identity*: one new identity against those 10,000 selectors, and the rows it changes.
"""

import gc
import time
from collections.abc import Iterator

from bench.figure import Figure, percentile
from model.labels import CLUSTER_LABEL, NAMESPACE_LABEL, Labels
from model.policy_map import Direction
from policy.known import Options, Subject
from policy.rules import (
    DirectionRule,
    Operator,
    Origin,
    PolicyRule,
    PortRange,
    Requirement,
    Selector,
)
from policy.selector_cache import SelectorCache
from policy.table import PolicyTable

IDENTITIES = 25_000
POLICIES = 10_000
NAMESPACES = 250
ENDPOINTS = 30
NEW = 300


def labels_of(number: int) -> Labels:
    """The labels of the n-th identity."""
    name = f"team-{number % NAMESPACES}"
    return Labels.k8s(
        {
            NAMESPACE_LABEL: name,
            CLUSTER_LABEL: f"cluster{number % 4}",
            "app": f"app-{number // NAMESPACES % 100}",
            "tier": f"tier-{number % 3}",
            "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": name,
        }
    )


def _selector(namespace: str, app: int) -> Selector:
    return Selector(
        (
            Requirement(NAMESPACE_LABEL, Operator.IN, (namespace,), "k8s"),
            Requirement("app", Operator.IN, (f"app-{app}",)),
        )
    )


def _policy(number: int) -> PolicyRule:
    """Subject and peer are two apps of one namespace; every policy has a selector of its own."""
    namespace, app = f"team-{number % NAMESPACES}", number // NAMESPACES
    part = DirectionRule(
        Direction.INGRESS,
        peers=(_selector(namespace, app + 40),),
        ports=(PortRange(6, 8000, 8080),),
    )
    return PolicyRule(
        Origin("CiliumNetworkPolicy", namespace, f"policy-{number}"),
        _selector(namespace, app),
        (part,),
        frozenset([Direction.INGRESS]),
    )


def measure() -> Iterator[Figure]:
    """CPU seconds of all; milliseconds per new identity."""
    identities = {256 + n: labels_of(n) for n in range(IDENTITIES)}
    policies = [_policy(n) for n in range(POLICIES)]
    gc.collect()
    gc.freeze()
    runs = [_full(identities, policies) for _ in range(3)]
    spent, rows, table, cache = min(runs, key=lambda run: run[0])
    yield Figure(
        "policy.full_cpu_s",
        round(spent, 3),
        "CPU s",
        {"policies": POLICIES, "identities": IDENTITIES, "rows": rows, "runs": len(runs)},
    )
    taken = []
    for number in range(NEW):
        labels = labels_of(number)
        start = time.process_time()
        cache.put(10**6 + number, labels)
        table.put_identity(10**6 + number, labels)
        table.compute()
        taken.append((time.process_time() - start) * 1000)
    gc.unfreeze()
    yield Figure(
        "policy.identity_add_ms",
        round(percentile(taken, 0.99), 3),
        "ms",
        {"selectors": POLICIES, "p50": round(percentile(taken, 0.5), 3), "samples": NEW},
    )


def _full(
    identities: dict[int, Labels], policies: list[PolicyRule]
) -> tuple[float, int, PolicyTable, SelectorCache[str]]:
    table = PolicyTable(Options())
    cache: SelectorCache[str] = SelectorCache()
    start = time.process_time()
    table.put_identities(identities)
    for rule in policies:
        table.put_object(rule.origin, (rule,))
    for number in range(ENDPOINTS):
        table.put_endpoint(str(number), Subject(identities[256 + number]))
    table.compute()
    whole = time.process_time() - start
    cache.load(identities.items())  # indexed once more, but not paid for twice
    start = time.process_time()
    for rule in policies:
        for part in rule.rules:
            for peer in part.peers or ():
                if isinstance(peer, Selector):
                    cache.use(peer, "everybody")
    whole += time.process_time() - start
    return whole, sum(len(table.rows(str(n))) for n in range(ENDPOINTS)), table, cache
