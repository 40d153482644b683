"""What ``clustermesh inspect`` says. Pure: answers of agents in, objects and lines out."""

from collections.abc import Mapping, Sequence
from typing import Any

from cli.mesh_status import age_s, why_not_ready

COUNTS = {
    "nodes": "num-nodes",
    "endpoints": "num-endpoints",
    "identities": "num-identities",
    "services": "num-shared-services",
    "service-exports": "num-service-exports",
}
CAPABILITIES = ("sync-canaries", "kvstoremesh", "service-exports-enabled")


def remote(
    name: str,
    recorded_id: int,
    entry: Mapping[str, Any],
    agents: Mapping[str, Mapping[str, Any]],
    copy: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """One connected cluster; ``agents`` are what the agent of each node says."""
    seen = {node: _of(status, name) for node, status in sorted(agents.items())}
    known = [one for one in seen.values() if one.get("config") is not None]
    config = known[0]["config"] if known else {}
    body: dict[str, Any] = {
        "name": name,
        "id": {"recorded": recorded_id, "announced": int(config.get("cluster-id") or 0)},
        "entry": dict(entry),
        "capabilities": {what: bool(config.get(what)) for what in CAPABILITIES} if known else {},
        "counts": {
            what: max((int(one.get(key) or 0) for one in known), default=0)
            for what, key in COUNTS.items()
        },
        "agents": [
            {
                "node": node,
                "connected": not (why := _why(agents[node], one)),
                "why": why,
                "status": str(one.get("status") or ""),
                "failures": int(one.get("num-failures") or 0),
                "age-seconds": age_s(one),
                "rejected": int(one.get("num-rejected") or 0),
                "certificate-expires": (one.get("certificate") or {}).get("expires"),
            }
            for node, one in seen.items()
        ],
    }
    if copy is not None:
        why = why_not_ready(copy)
        body["kvstoremesh"] = {
            "connected": not why,
            "why": why,
            "age-seconds": age_s(copy),
        }
    return body


def _of(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    clusters = (status.get("cluster-mesh") or {}).get("clusters") or []
    return next((one for one in clusters if one.get("name") == name), {})


def _why(status: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    if "error" in status:
        return f"the agent does not answer: {status['error']}"
    return why_not_ready(one) if one else "unknown status"


def lines(body: Mapping[str, Any]) -> list[str]:
    """For people."""
    own, store = body["cluster"], body["cluster"]["store"]
    ready = "ready" if store["ready"] else "not ready"
    places = ", ".join(store["endpoints"]) or "no address yet"
    state = f"{store['service-type']}, {ready}, {places}" if store["enabled"] else "not enabled"
    out = [
        f"Cluster {own['name']} (ID {own['id']} of {own['max-connected-clusters']})",
        f"   Mesh store:     {state}",
        f"   KVStoreMesh:    {'enabled' if store['kvstoremesh'] else 'disabled'}",
        f"   Tunnel:         {own['tunnel-protocol']}",
        f"   Pod CIDRs:      {', '.join(own['pod-cidrs'])}",
        "   Certificates:",
    ]
    width = max(len(row["secret"]) for row in body["certificates"])
    out += [
        f"     {row['secret']:{width}}   {row['subject'] or '-'}, {row['state']}"
        + (f", until {row['expires'][:10]}" if row["expires"] else "")
        for row in body["certificates"]
    ]
    if not body["remotes"]:
        out += ["", "No cluster connected"]
    for found in body["remotes"]:
        out += ["", *_remote(found)]
    return out


def _remote(found: Mapping[str, Any]) -> list[str]:
    entry, agents = found["entry"], found["agents"]
    announced, recorded = found["id"]["announced"], found["id"]["recorded"]
    number = f"ID {announced or recorded or 'unknown'}"
    if announced and recorded and announced != recorded:
        number += f", recorded as {recorded}"
    reached = entry.get("problem") or (
        f"{', '.join(entry['endpoints'])} at {', '.join(entry['reached-at'])}"
    )
    connected = sum(agent["connected"] for agent in agents)
    counts = ", ".join(f"{number} {what}" for what, number in found["counts"].items())
    out = [
        f"Cluster {found['name']} ({number})",
        f"   Store:          {reached} (Secret {entry['secret']})",
        f"   Declared by:    {_declared(entry)}",
        f"   Capabilities:   {_capabilities(found['capabilities'])}",
        f"   Read:           {counts}",
        f"   Agents:         {connected}/{len(agents)} connected{_age(agents)}",
    ]
    out += [f"     {a['node']}: {a['why']}" for a in agents if a["why"]]
    if "kvstoremesh" in found:
        copy = found["kvstoremesh"]
        state = "connected" if copy["connected"] else copy["why"]
        out.append(f"   KVStoreMesh:    {state}{_age([copy])}")
    rejected = max((agent["rejected"] for agent in agents), default=0)
    out.append(f"   Rejected:       {f'{rejected} records' if rejected else 'none'}")
    expires = sorted(a["certificate-expires"] for a in agents if a["certificate-expires"])
    if expires:
        out.append(f"   Our certificate until {expires[0][:10]}")
    return out


def _declared(entry: Mapping[str, Any]) -> str:
    by = entry.get("declared-by")
    return f"ClusterMeshPeer {by}" if by else "a command"


def _capabilities(found: Mapping[str, bool]) -> str:
    if not found:
        return "not known yet"
    return ", ".join(f"{what}={str(on).lower()}" for what, on in found.items())


def _age(rows: Sequence[Mapping[str, Any]]) -> str:
    ages = [int(row["age-seconds"]) for row in rows if row["age-seconds"] is not None]
    return f", age of data: {max(ages)} s" if ages else ""
