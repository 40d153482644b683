"""What ``isthmus status`` says. Pure: the agent's StatusResponse in, lines out.

A part that the agent does not report has no line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cli import output

Object = Mapping[str, Any]
Line = tuple[str, str]  # label and value; a line without a label continues the one above

MIN_WIDTH = 2
_PARTS = (
    ("kvstore", "kvstore"),
    ("container-runtime", "container runtime"),
    ("kubernetes", "kubernetes"),
    ("cilium", "cilium"),
)
_ATTACH = {"tcx": "TCX", "tc": "Legacy TC"}


@dataclass(frozen=True, slots=True)
class Detail:
    """Which parts are shown whole, and not only where something is wrong."""

    addresses: bool = False
    clusters: bool = False
    controllers: bool = False
    verbose: bool = False


def _state(part: Object | None) -> str:
    return str((part or {}).get("state", ""))


def problem(status: Object, require_kubernetes: bool = True) -> str:
    """The first part that is not well; empty when all are. An agent that says nothing is not."""
    for key, name in _PARTS:
        part = status.get(key)
        if part is None or (key == "kubernetes" and not require_kubernetes):
            continue
        if _state(part) not in ("Ok", "Disabled"):
            return f"error in {name}: {part.get('msg') or _state(part) or 'no state'}"
    if _state(status.get("cilium")) != "Ok":
        return "error in cilium: the agent reports no state"
    return ""


def text(status: Object, detail: Detail, now: datetime) -> str:
    """The whole report."""
    lines: list[Line] = [
        *_general(status),
        *_ipam(status.get("ipam"), detail.addresses or detail.verbose),
        *_mesh(status.get("cluster-mesh"), detail.clusters or detail.verbose, now),
        *_network(status),
        *_controllers(status.get("controllers"), detail.controllers or detail.verbose),
        *_identities(status.get("identity-range")),
        *_hubble(status.get("hubble")),
        *_complaints(status),
    ]
    width = max([MIN_WIDTH, *(len(label) + output.GAP for label, _ in lines)])
    return "\n".join(
        (label.ljust(width) + value if label else value).rstrip() for label, value in lines
    )


def _stated(label: str, part: Object | None) -> list[Line]:
    if part is None:
        return []
    message = str(part.get("msg") or "")
    return [(label, f"{_state(part)}   {message}" if message else _state(part))]


def _general(status: Object) -> list[Line]:
    lines = [
        *_stated("KVStore:", status.get("kvstore")),
        *_stated("ContainerRuntime:", status.get("container-runtime")),
        *_stated("Kubernetes:", status.get("kubernetes")),
    ]
    apis = (status.get("kubernetes") or {}).get("k8s-api-versions") or []
    if apis:
        names = ", ".join(f'"{name}"' for name in sorted(apis))
        lines.append(("Kubernetes APIs:", f"[{names}]"))
    if proxy := status.get("kube-proxy-replacement"):
        lines.append(("KubeProxyReplacement:", str(proxy.get("mode", ""))))
    if chaining := status.get("cni-chaining"):
        lines.append(("CNI Chaining:", str(chaining.get("mode", ""))))
    if file := status.get("cni-file"):
        message = str(file.get("msg") or "")
        whole = message if message and _state(file) == "Ok" else f"{_state(file)}   {message}"
        lines.append(("CNI Config file:", whole))
    lines += _stated("Cilium:", status.get("cilium"))
    if stale := status.get("stale"):
        probes = ", ".join(f'"{name}" since {since}' for name, since in sorted(stale.items()))
        lines.append(("Stale status:", probes))
    if (monitor := status.get("nodeMonitor")) is not None:
        lines.append(("NodeMonitor:", _monitor(monitor)))
    lines += _stated("Cilium health daemon:", (status.get("cluster") or {}).get("ciliumHealth"))
    return lines


def _monitor(monitor: Object) -> str:
    if not monitor.get("cpus"):
        return "Disabled"
    memory = f"{monitor.get('npages', 0)}x{monitor.get('pagesize', 0)}"
    return f"Listening for events on {monitor['cpus']} CPUs with {memory} of shared memory"


def _ipam(ipam: Object | None, whole: bool) -> list[Line]:
    if ipam is None:
        return []
    lines = [("IPAM:", str(ipam.get("status", "")))]
    allocations = ipam.get("allocations") or {}
    if whole and allocations:
        lines.append(("Allocated addresses:", ""))
        lines += [("", f"  {address} ({owner})") for address, owner in allocations.items()]
    return lines


def _mesh(mesh: Object | None, whole: bool, now: datetime) -> list[Line]:
    if mesh is None:
        return []
    clusters = mesh.get("clusters") or []
    ready = sum(bool(remote.get("ready")) for remote in clusters)
    services = mesh.get("num-global-services", 0)
    summary = f"{ready}/{len(clusters)} remote clusters ready, {services} global-services"
    lines = [("ClusterMesh:", summary)]
    for remote in clusters:
        cut = (remote.get("data-path") or {}).get("share-percent", 100) < 100
        if whole or not remote.get("ready") or remote.get("num-rejected") or cut:
            lines += [("", line) for line in remote_cluster(remote, now)]
    return lines


def remote_cluster(remote: Object, now: datetime) -> list[str]:
    """One remote cluster."""
    counts = ", ".join(
        f"{remote.get(f'num-{key}', 0)} {words}"
        for key, words in (
            ("nodes", "nodes"),
            ("endpoints", "endpoints"),
            ("identities", "identities"),
            ("shared-services", "services"),
            ("service-exports", "MCS-API service exports"),
            ("failures", "reconnections"),
        )
    )
    word = "ready" if remote.get("ready") else "not-ready"
    last = _ago(remote.get("last-failure"), now)
    lines = [f"   {remote.get('name')}: {word}, {counts} (last: {last})"]
    if remote.get("status"):
        lines.append(f"   └  {remote['status']}")
    lines.append(f"   └  remote configuration: {_remote_config(remote.get('config'))}")
    if synced := remote.get("synced"):
        known = ", ".join(
            f"{key}={_word(synced[key])}"
            for key in ("nodes", "endpoints", "identities", "services", "service-exports")
            if key in synced
        )
        lines.append(f"   └  synchronization status: {known}")
    lines += [f"   └  {line}" for line in _age(remote)]
    if path := remote.get("data-path"):
        text = f"{path['state']}, {path['status']}"
        if path["share-percent"] < 100:
            text += f"; its backends get {path['share-percent']} % of their connections"
        lines.append(f"   └  data path: {text}")
    if copied := remote.get("copy"):
        heard = _ago(copied.get("last-heard"), now)
        lines.append(f"   └  copied by KVStoreMesh, which last heard of the cluster: {heard}")
        if not copied.get("connected"):
            lines.append(f"   └  the copy is cut off: {copied.get('error') or 'no reason known'}")
    if remote.get("num-rejected"):
        latest = remote.get("last-rejected", "")
        lines.append(f"   └  rejected records: {remote['num-rejected']}, the latest: {latest}")
        lines += [
            f"      {found['count']} {found['kind']}, as: {found['example']}"
            for found in remote.get("violations") or []
        ]
    if remote.get("num-late"):
        lines.append(
            f"   └  too many changes: {remote['num-late']} wait, {remote.get('num-throttled', 0)} "
            "had to wait so far"
        )
    return lines


def _age(remote: Object) -> list[str]:
    """Where the connection stands, how old the data are, and what will become of them."""
    lines = []
    if at := remote.get("connection"):
        event = f", after: {at['event']} ({at['since-seconds']} s ago)" if at["event"] else ""
        lines.append(f"connection: {at['state']}{event}; then: {at['action']}")
    if data := remote.get("data"):
        age, fate = data["age-seconds"], "kept until it is back"
        if data["revoked"]:
            fate = "its backends are taken back until it is back"
        elif "revoke-in-seconds" in data:
            fate = f"its backends are taken back in {data['revoke-in-seconds']} s"
        if age or data["revoked"] or not remote.get("ready"):
            lines.append(f"age of data: {age} s, {fate}")
    found = remote.get("compare")
    if found and (found["repaired"] or found["disorders"]):
        lines.append(
            f"its watch is not to be trusted: {found['repaired']} rows repaired by compare, "
            f"{found['disorders']} times out of order"
        )
    return lines


def _remote_config(config: Object | None) -> str:
    if config is None:
        return "expected=unknown, retrieved=unknown"
    parts = [
        f"expected={_word(config.get('required'))}",
        f"retrieved={_word(config.get('retrieved'))}",
    ]
    if config.get("retrieved"):
        exports = config.get("service-exports-enabled")
        offered = "unsupported" if exports is None else "enabled" if exports else "disabled"
        parts += [
            f"cluster-id={config.get('cluster-id', 0)}",
            f"kvstoremesh={_word(config.get('kvstoremesh'))}",
            f"sync-canaries={_word(config.get('sync-canaries'))}",
            f"service-exports={offered}",
        ]
    return ", ".join(parts)


def _word(value: object) -> str:
    return "true" if value else "false"


def _ago(moment: object, now: datetime) -> str:
    """``3h2m5s ago``; ``never`` for none."""
    if not moment:
        return "never"
    try:
        then = datetime.fromisoformat(str(moment))
    except ValueError:
        return str(moment)
    if then.year <= 1:  # the zero time: how others write "never"
        return "never"
    return f"{duration(now - then.replace(tzinfo=then.tzinfo or UTC))} ago"


def duration(span: timedelta) -> str:
    """``3h2m5s``: whole seconds, without leading zero parts."""
    seconds = max(0, int(span.total_seconds()))
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def _network(status: Object) -> list[Line]:
    lines: list[Line] = []
    if routing := status.get("routing"):
        mode = str(routing.get("inter-host-routing-mode", ""))
        if mode == "Tunnel":
            mode += f" [{routing.get('tunnel-protocol', '')}]"
        inside = routing.get("intra-host-routing-mode", "")
        lines.append(("Routing:", f"Network: {mode}   Host: {inside}"))
    if attach := status.get("attach-mode"):
        lines.append(("Attach Mode:", _ATTACH.get(attach, str(attach))))
    if device := status.get("datapath-mode"):
        lines.append(("Device Mode:", device))
    return lines


def _controllers(controllers: Sequence[Object] | None, whole: bool) -> list[Line]:
    if controllers is None:
        return []
    failing = [c for c in controllers if _failures(c)]
    well = len(controllers) - len(failing)
    lines = [("Controller Status:", f"{well}/{len(controllers)} healthy")]
    shown = controllers if whole else failing
    if not shown:
        return lines
    rows = [["  Name", "Runs", "Failures", "Message"]]
    for controller in shown:
        status = controller.get("status") or {}
        error = status.get("last-failure-msg") if _failures(controller) else ""
        rows.append(
            [
                f"  {controller.get('name', '')}",
                str(status.get("success-count", 0)),
                str(status.get("failure-count", 0)),
                str(error or status.get("message") or "no error"),
            ]
        )
    return lines + [("", line) for line in output.table(rows, MIN_WIDTH).splitlines()]


def _failures(controller: Object) -> int:
    return int((controller.get("status") or {}).get("consecutive-failure-count") or 0)


def _identities(numbers: Object | None) -> list[Line]:
    if not numbers:
        return []
    least, most = numbers.get("min-identity"), numbers.get("max-identity")
    return [("Global Identity Range:", f"min {least}, max {most}")]


def _hubble(hubble: Object | None) -> list[Line]:
    lines = _stated("Hubble:", hubble)
    observer = (hubble or {}).get("observer")
    if observer and lines:
        now, most = observer.get("current-flows", 0), observer.get("max-flows", 0)
        share = 100 * now / most if most else 0.0
        label, value = lines[0]
        lines = [(label, f"{value}   Current/Max Flows: {now}/{most} ({share:.2f}%)")]
    return lines


def _complaints(status: Object) -> list[Line]:
    """Objects and records that cannot be used, and what the datapath wants to be known."""
    lines: list[Line] = []
    rejected = status.get("rejected") or {}
    mesh = status.get("cluster-mesh") or {}
    for label, count, problems in (
        ("Rejected objects:", rejected.get("count"), rejected.get("problems") or []),
        ("Rejected records:", mesh.get("num-rejected"), mesh.get("problems") or []),
    ):
        if count or problems:
            lines.append((label, str(count or len(problems))))
            lines += [("", f"   {problem}") for problem in problems]
    lines += [("Datapath:", message) for message in status.get("messages") or []]
    return lines
