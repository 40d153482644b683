"""What is wrong with clusters, before they are connected and while they are. Pure.

Facts in, findings out; ``mesh_examine`` gathers the facts.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import combinations, permutations
from typing import Any

from certs import check
from certs.profiles import CA_SECRET, REMOTE_SECRET, SERVER_SECRET
from cli import mesh_checks, mesh_own_faults, mesh_routing
from cli.mesh_examined import AgentSeen, Examined
from cli.mesh_findings import Finding, ordered
from cli.mesh_status import age_s, why_not_ready
from model.address import host_prefix

SKEW_WARNING_S = 10.0
SKEW_FAILED_S = 300.0  # certificates are issued as of five minutes ago
SETTINGS = {  # key of cilium-config -> what holds when it is absent
    "routing-mode": "tunnel",
    "tunnel-port": "8472",
}
_PASSING = ("synchronization", "retrieval status", "unknown status", "Waiting for", "not ready")
_ENCRYPTION = {"enable-wireguard": "WireGuard", "enable-ipsec": "IPsec"}


def faults(sides: Sequence[Examined], now: datetime) -> list[Finding]:
    """Everything that is wrong, the blocking first."""
    found = mesh_checks.together([side.facts for side in sides], now)
    for side in sides:
        found += [
            *_soon(side, now),
            *mesh_own_faults.held(side, now),
            *_agents(side),
            *_connections(side),
            *_mirror(side),
        ]
        found += _mtu_inside(side)
    for a, b in combinations(sides, 2):
        found += [*_settings(a, b), *_addresses(a, b), *_mtu(a, b), *_versions(a, b)]
    found += _clocks(sides)
    for a, b in permutations(sides, 2):
        found += [
            *_early(a, b, now),
            *_trust(a, b),
            *mesh_own_faults.trust(a, b),
            *mesh_routing.uncovered(a, b),
            *_reach(a, b),
            *_one_way(a, b),
        ]
    return ordered(found)


def _soon(side: Examined, now: datetime) -> list[Finding]:
    """Certificates that end within a month; those that have ended are told elsewhere."""
    facts = side.facts
    held = {
        CA_SECRET: facts.ca,
        SERVER_SECRET: facts.server.get("tls.crt", b""),
        REMOTE_SECRET: facts.client.get("tls.crt", b""),
    }
    found = []
    for name, pem in held.items():
        try:
            left = check.expires_at(pem) - now
        except ValueError:
            continue
        authority = name == CA_SECRET
        if authority and left < timedelta(0):
            text = f"cluster {side.name}: the authority in Secret {name} has expired"
            found.append(
                Finding("certificate", (side.name,), text, "run `isthmus certs rotate --ca`")
            )
        elif timedelta(0) <= left < check.SOON:
            text = f"cluster {side.name}: Secret {name} expires in {left.days} days"
            remedy = f"run `isthmus certs rotate{' --ca' if authority else ''}`"
            found.append(Finding("certificate", (side.name,), text, remedy, False))
    return found


def _agents(side: Examined) -> list[Finding]:
    found, who = [], (side.name,)
    silent = [agent for agent in side.agents if agent.error]
    if side.agents_wanted > len(side.agents):
        text = f"cluster {side.name}: {len(side.agents)} of {side.agents_wanted} agents run"
        found.append(
            Finding("agents", who, text, "look at the pods of DaemonSet cilium", blocking=False)
        )
    if silent:
        first = silent[0]
        text = (
            f"cluster {side.name}: {len(silent)} of {len(side.agents)} agents do not answer, "
            f"as {first.pod} on node {first.node}: {first.error}"
        )
        found.append(Finding("agents", who, text, "look at the log of its container cilium-agent"))
    rejected: dict[str, tuple[int, str]] = {}
    for agent in side.agents:
        for remote in _remotes(agent):
            if remote.get("num-rejected"):
                worst = int(remote["num-rejected"]), str(remote.get("last-rejected") or "")
                rejected[remote["name"]] = max(rejected.get(remote["name"], (0, "")), worst)
    for name, (count, example) in sorted(rejected.items()):
        text = f"cluster {side.name} refuses {count} records of cluster {name}, as: {example}"
        remedy = f"correct them in cluster {name}; kinds are in `isthmus clustermesh status`"
        found.append(Finding("rejected-records", (side.name, name), text, remedy, blocking=False))
    return found


def _remotes(agent: AgentSeen) -> list[Mapping[str, Any]]:
    return list((agent.status.get("cluster-mesh") or {}).get("clusters") or [])


def _told_of(name: str, agents: Sequence[AgentSeen]) -> list[Mapping[str, Any]]:
    return [remote for agent in agents for remote in _remotes(agent) if remote["name"] == name]


def _connections(side: Examined) -> list[Finding]:
    """Are the agents connected to what they are told to read, and is it what it was?"""
    found: list[Finding] = []
    answering = [agent for agent in side.agents if not agent.error]
    for name, number in side.facts.connected.items():
        who = (side.name, name)
        bad = [(a, why) for a in answering if (why := _why_not(a, name))]
        if bad:
            agent, why = bad[0]
            text = (
                f"cluster {side.name}: {len(bad)} of {len(answering)} agents are not connected to "
                f"cluster {name}, as the one on node {agent.node}: {why}"
            )
            if any((r.get("data") or {}).get("revoked") for r in _told_of(name, answering)):
                text += "; its backends are taken back"
            found.append(Finding("connection", who, text, _remedy(why, side.name, name)))
        seen = [r for r in _told_of(name, answering) if r.get("config")]
        announced = {int(r["config"].get("cluster-id") or 0) for r in seen} - {0}
        if number and announced - {number}:
            other = min(announced - {number})
            text = (
                f"cluster {side.name} was connected to {name} with ID {number}, it now has {other}"
            )
            found.append(Finding("cluster-id", who, text, "disconnect and connect them again"))
        if any(r.get("ready") and not r["config"].get("sync-canaries") for r in seen):
            text = (
                f"cluster {name} does not announce the capability syncedCanaries: cluster "
                f"{side.name} cannot tell when it has read all of it"
            )
            found.append(
                Finding("capability", who, text, f"upgrade the mesh store of {name}", False)
            )
    return found


def _why_not(agent: AgentSeen, name: str) -> str:
    """What the way says is more than what the connection says."""
    state = next((why_not_ready(r) for r in _remotes(agent) if r["name"] == name), "unknown status")
    tried = [e for e in agent.endpoints if e.get("cluster") == name and e.get("error")]
    return str(tried[0]["error"]) if state and tried else state


def _remedy(why: str, own: str, name: str) -> str:
    if any(word in why for word in _PASSING):
        return "wait with `isthmus clustermesh status --wait`; if it stays, look at the agent's log"
    if "certificate" in why or " CA " in why:
        return f"connect {own} and {name} again, or renew with `isthmus certs rotate`"
    return (
        f"does the mesh store of {name} run, and may nodes of {own} reach it? If it moved, connect "
        "again; if the cluster is gone, disconnect it with --force"
    )


def _mirror(side: Examined) -> list[Finding]:
    found = []
    for remote in side.copies:
        why = why_not_ready(remote)
        if not why or remote.get("name") not in side.facts.connected:
            continue
        name = str(remote["name"])
        text = f"cluster {side.name}: KVStoreMesh is not connected to cluster {name}: {why}"
        if (age := age_s(remote)) is not None:
            text += f"; agents read data that is {age} s old"
        found.append(Finding("kvstoremesh", (side.name, name), text, _remedy(why, side.name, name)))
    return found


def _encryption(side: Examined) -> str:
    on = [name for key, name in _ENCRYPTION.items() if side.settings.get(key) == "true"]
    return " and ".join(on) or "none"


def _settings(a: Examined, b: Examined) -> list[Finding]:
    both, who = f"clusters {a.name} and {b.name}", (a.name, b.name)
    found = []
    for key, default in SETTINGS.items():
        one, two = a.settings.get(key) or default, b.settings.get(key) or default
        if one != two:
            text = f"{both}: {key} is {one!r} and {two!r}"
            found.append(Finding(key, who, text, "set both to the same"))
    one, two = _encryption(a), _encryption(b)
    if one != two:
        text = f"{both}: encryption between nodes is {one} and {two}"
        remedy = "set enable-wireguard and enable-ipsec to the same in both"
        found.append(Finding("encryption", who, text, remedy))
    with_ipv6 = [s.name for s in (a, b) if s.settings.get("enable-ipv6") == "true"]
    if len(with_ipv6) == 1:
        text = f"{both}: only {with_ipv6[0]} has IPv6: pods reach one another by IPv4 alone"
        remedy = "set enable-ipv6 to the same in both"
        found.append(Finding("enable-ipv6", who, text, remedy, blocking=False))
    return found


def _addresses(a: Examined, b: Examined) -> list[Finding]:
    """Addresses that stand for two things. Service addresses mean something in one cluster only."""
    who = (a.name, b.name)
    found = []
    shared = set(a.node_addresses.values()) & set(b.node_addresses.values())
    if shared:
        text = f"clusters {a.name} and {b.name}: both have a node of address {min(shared)}"
        found.append(Finding("node-address", who, text, "give the nodes different addresses"))
    for one, two in ((a, b), (b, a)):
        found += _in_pods(one, two)
    return found


def _in_pods(a: Examined, b: Examined) -> list[Finding]:
    """What of ``a`` lies among the pods of ``b``."""
    found, who = [], (a.name, b.name)
    remedy = "build one of the clusters with other CIDRs"
    pods = [p for p in b.facts.pod_cidrs if p not in a.facts.pod_cidrs]
    for kind, addresses in (("node", a.node_addresses), ("Service", a.service_addresses)):
        hit = next(
            ((n, x, p) for n, x in addresses.items() for p in pods if p.covers(host_prefix(x))),
            None,
        )
        if hit:
            text = (
                f"cluster {a.name}: {kind} {hit[0]} has address {hit[1]}, which is in pod CIDR "
                f"{hit[2]} of cluster {b.name}"
            )
            check_ = "node-address" if kind == "node" else "service-cidr"
            found.append(Finding(check_, who, text, remedy))
    overlap = next(
        ((s, p) for s in a.service_cidrs for p in pods if s.version == p.version and s.overlaps(p)),
        None,
    )
    if overlap and not any(f.check == "service-cidr" for f in found):
        text = (
            f"service CIDR {overlap[0]} of cluster {a.name} and pod CIDR {overlap[1]} of cluster "
            f"{b.name} overlap: a new Service may take a pod's address"
        )
        found.append(Finding("service-cidr", who, text, remedy, blocking=False))
    return found


def _mtus(side: Examined) -> set[int]:
    return {agent.device_mtu for agent in side.agents} - {0}


def _mtu_inside(side: Examined) -> list[Finding]:
    sizes = _mtus(side)
    if len(sizes) < 2:
        return []
    node = next(a.node for a in side.agents if a.device_mtu == min(sizes))
    text = (
        f"cluster {side.name}: pods have MTU {max(sizes)} on some nodes and {min(sizes)} on "
        f"others, as on {node}"
    )
    return [Finding("mtu", (side.name,), text, "set mtu to the smallest on all nodes", False)]


def _mtu(a: Examined, b: Examined) -> list[Finding]:
    one, two = _mtus(a), _mtus(b)
    if not one or not two or min(one) == min(two):
        return []
    text = (
        f"clusters {a.name} and {b.name}: pods have MTU {min(one)} and {min(two)}: large packets "
        "to the smaller side may be lost"
    )
    remedy = f"install both with --set mtu={min(*one, *two)}"
    return [Finding("mtu", (a.name, b.name), text, remedy, blocking=False)]


def _versions(a: Examined, b: Examined) -> list[Finding]:
    one = {agent.version for agent in a.agents} - {""}
    two = {agent.version for agent in b.agents} - {""}
    if not one or not two:
        return []
    low, high = sorted([*one, *two], key=_numbers)[0], sorted([*one, *two], key=_numbers)[-1]
    (major, minor, _), (last_major, last_minor, _) = _numbers(low), _numbers(high)
    if (major, minor) == (last_major, last_minor):
        return []
    older = a.name if low in one else b.name
    text = f"clusters {a.name} and {b.name}: agents of versions {low} and {high}"
    far = major != last_major or last_minor - minor > 1
    return [Finding("version", (a.name, b.name), text, f"upgrade cluster {older}", far)]


def _numbers(version: str) -> tuple[int, int, int]:
    parts = [int(part) for part in version.split(".")]
    return parts[0], parts[1], parts[2] if len(parts) > 2 else 0


def _clocks(sides: Sequence[Examined]) -> list[Finding]:
    """Clocks that differ from one another; a workstation's own does not matter."""
    clocks = [(f"the API server of cluster {s.name}", s.name, s.skew_s) for s in sides]
    clocks += [
        (f"node {agent.node} of cluster {s.name}", s.name, agent.skew_s)
        for s in sides
        for agent in s.agents
    ]
    known = [(skew, what, name) for what, name, skew in clocks if skew is not None]
    if len(known) < 2:
        return []
    (least, behind, one), (most, ahead, two) = min(known), max(known)
    if most - least < SKEW_WARNING_S:
        return []
    text = f"the clock of {behind} is {most - least:.0f} s behind that of {ahead}"
    who = tuple(dict.fromkeys((one, two)))
    remedy = "run a time service (NTP) on both"
    return [Finding("clock", who, text, remedy, most - least >= SKEW_FAILED_S)]


def _early(a: Examined, b: Examined, now: datetime) -> list[Finding]:
    """Is a certificate of ``b`` still to come by the clock of ``a``?"""
    skews = [x for x in (a.skew_s, *(agent.skew_s for agent in a.agents)) if x is not None]
    found = []
    for name, data in ((SERVER_SECRET, b.facts.server), (REMOTE_SECRET, b.facts.client)):
        try:
            begins = check.validity(data.get("tls.crt", b""))[0]
        except ValueError:
            continue
        if skews and begins <= now and begins > now + timedelta(seconds=min(skews)):
            text = (
                f"cluster {b.name}: Secret {name} is not valid before {begins:%Y-%m-%d %H:%M}Z, "
                f"which is still to come by a clock of cluster {a.name}"
            )
            remedy = f"set the clocks of cluster {a.name} right"
            found.append(Finding("clock", (a.name, b.name), text, remedy))
    return found


def _reads(a: Examined, b: Examined) -> bool:
    return b.name in a.facts.connected


def _trust(a: Examined, b: Examined) -> list[Finding]:
    """When ``a`` reads ``b``: does each accept the other's certificate? Connect sees to it."""
    if not _reads(a, b) or b.name not in a.common:
        return []
    found = []
    for what, pem, side, trust in (
        ("server", b.facts.server, a, a.facts.client),
        ("client", a.facts.client, b, b.facts.server),
    ):
        other = b if side is a else a
        if not check.is_signed(pem.get("tls.crt", b""), trust.get("ca.crt", b"")):
            text = (
                f"cluster {side.name} does not trust the authority that signed the {what} "
                f"certificate of cluster {other.name}"
            )
            remedy = f"connect {a.name} and {b.name} again, so that they exchange their authorities"
            found.append(Finding("authority", (a.name, b.name), text, remedy))
    return found


def _reach(a: Examined, b: Examined) -> list[Finding]:
    """Before they are connected: can nodes of ``a`` reach the store of ``b``?"""
    if _reads(a, b):
        return []  # its agents say so themselves
    port = b.facts.port
    places = {f"{address}:{port}" for address in b.facts.addresses}
    tried = [
        (agent, e) for agent in a.agents for e in agent.endpoints if e.get("endpoint") in places
    ]
    bad = [(agent, e) for agent, e in tried if e.get("error")]
    if not bad:
        return []
    agent, way = bad[0]
    nodes = len({agent.node for agent, _ in bad})
    text = (
        f"{nodes} of {len({t.node for t, _ in tried})} nodes of cluster {a.name} do not reach the "
        f"mesh store of cluster {b.name}, as {agent.node}: {way['endpoint']}: {way['error']}"
    )
    remedy = f"let nodes of {a.name} reach TCP port {port} there, or connect with another endpoint"
    return [Finding("reachability", (a.name, b.name), text, remedy)]


def _one_way(a: Examined, b: Examined) -> list[Finding]:
    if not _reads(a, b) or _reads(b, a):
        return []
    text = f"cluster {a.name} reads cluster {b.name}, which does not read {a.name}"
    remedy = f"connect {b.name} to {a.name} too, or its pods cannot answer those of {a.name}"
    return [Finding("one-way", (a.name, b.name), text, remedy, blocking=False)]
