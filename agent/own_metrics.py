"""Families about the agent itself: its process, its work, its calls, and the objects it reads.

Reads values; the names are a public interface. What we have no value for is left out: there is no
proxy, and the connection table is the kernel's to clean.
"""

import platform
import time
from collections import Counter as Sums
from collections.abc import Awaitable, Callable

from aiohttp import web

from agent.health import VERSION
from agent.policy_shapes import enforcement
from agent.view import View
from datapath import kernel_table, memory, syscall
from kube.observed import OBSERVED
from telemetry import logs, process
from telemetry.metrics import Counter, Family, Histogram, family

_API = Histogram(("path", "method", "return_code"))
_ROUNDS = Counter(("status",))
_ROUND_TIMES = Histogram(("status",))
_DELAY = Histogram(("source",))
_FOLLOWED = Histogram(("scope",))
_ACTIONS = {"create": "add", "update": "update", "delete": "delete"}


@web.middleware
async def timed(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Of the REST API: how long each call took."""
    begun_s, code = time.monotonic(), "500"
    try:
        answer = await handler(request)
        code = str(answer.status)
        return answer
    except web.HTTPException as error:
        code = str(error.status)
        raise
    finally:
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else "other"
        _API.observe(time.monotonic() - begun_s, path, request.method.lower(), code)


def listen(view: View) -> None:
    """Have the agent's parts tell when they have worked."""

    def on_round(took_s: float, well: bool) -> None:
        status = "success" if well else "failure"
        _ROUNDS.add(status)
        _ROUND_TIMES.observe(took_s, status)

    for loop in view.loops:
        loop.on_round = on_round
    view.policies.on_written = lambda took_s: _DELAY.observe(took_s, "k8s")
    view.policies.on_followed = lambda took_s: _FOLLOWED.observe(took_s, "global")


def collect(view: View) -> list[Family]:
    """All of them."""
    return [
        *process.families("cilium_"),
        logs.COUNTED.family("cilium_errors_warnings_total", "Warnings and errors in the log"),
        _API.family("cilium_agent_api_process_time_seconds", "How long calls of our API took"),
        _ROUNDS.family(
            "cilium_controllers_runs_total", "Rounds that brought tables to what is wanted"
        ),
        _ROUND_TIMES.family("cilium_controllers_runs_duration_seconds", "How long a round took"),
        *OBSERVED.families("cilium_"),
        _version(),
        *_bootstrap(view),
        *_maps(),
        *_endpoints(view),
        *_policy(view),
        *_mesh(view),
    ]


def _version() -> Family:
    labels = {"version": VERSION, "revision": "", "arch": platform.machine()}
    return family("cilium_version", "gauge", "Version of the agent", [(labels, 1)])


def _bootstrap(view: View) -> list[Family]:
    ready_s = view.progress.ready_s
    labels = {"scope": "overall", "outcome": "success"}
    return [
        family(
            "cilium_agent_bootstrap_seconds",
            "gauge",
            "How long the start took",
            [(labels, ready_s)] if ready_s is not None else [],
        )
    ]


def _maps() -> list[Family]:
    sizes = memory.locked_bytes()
    operations = sorted(kernel_table.OPERATIONS.items())
    return [
        *(
            family(
                f"cilium_bpf_{kind}_virtual_memory_max_bytes",
                "gauge",
                f"Kernel memory that is reserved for our {what}",
                [({}, sizes[kind])],
            )
            for kind, what in (("maps", "maps"), ("progs", "programs"))
        ),
        family(
            "cilium_bpf_map_ops_total",
            "counter",
            "Rows written to and removed from maps",
            [
                ({"map_name": n.removeprefix("ist_"), "operation": o, "outcome": r}, value)
                for (n, o, r), value in operations
            ],
        ),
        syscall.TIMES.family("cilium_bpf_syscall_duration_seconds", "How long bpf(2) calls took"),
    ]


def _endpoints(view: View) -> list[Family]:
    return [
        view.endpoints.counters.times.family(
            "cilium_endpoint_regeneration_time_stats_seconds",
            "How long it took to bring an endpoint into the datapath",
        )
    ]


def _policy(view: View) -> list[Family]:
    states = Sums(enforcement(view.policies.get(endpoint.id)) for endpoint in view.endpoints)
    return [
        family("cilium_policy", "gauge", "Policies", [({}, len(view.policy_inputs.policies))]),
        family(
            "cilium_policy_max_revision",
            "gauge",
            "Revision of the policies in the kernel",
            [({}, view.policies.realized_revision)],
        ),
        view.policy_inputs.changes.family(
            "cilium_policy_change_total", "Changes of policies by whether all of them can be used"
        ),
        _DELAY.family(
            "cilium_policy_implementation_delay",
            "From the news of a policy until the kernel has it, seconds",
        ),
        _FOLLOWED.family(
            "cilium_policy_incremental_update_duration",
            "From the news of an identity until policies in the kernel count with it, seconds",
        ),
        family(
            "cilium_policy_endpoint_enforcement_status",
            "gauge",
            "Endpoints by whether policy is enforced at them",
            [({"enforcement": word}, number) for word, number in sorted(states.items())],
        ),
    ]


def _mesh(view: View) -> list[Family]:
    paths = [view.prober.paths[name] for name in view.remotes.statuses]
    silent = [probe for path in paths for probe in path.last if not probe.answered]
    told = sorted(OBSERVED.events.values.items())
    return [
        family(
            "cilium_nodes_all_num",
            "gauge",
            "Nodes of the mesh",
            [({}, sum(1 for _ in view.mesh.nodes))],
        ),
        family(
            "cilium_unreachable_nodes",
            "gauge",
            "Nodes of remote clusters that did not answer the latest probes at all",
            [({}, sum(not probe.direct for probe in silent))],
        ),
        family(
            "cilium_unreachable_health_endpoints",
            "gauge",
            "Nodes of remote clusters that did not answer the latest probes behind the tunnel",
            [({}, len(silent))],
        ),
        family(
            "cilium_services_events_total",
            "counter",
            "Changes of services",
            [
                ({"action": _ACTIONS[action]}, value)
                for (scope, action, status), value in told
                if scope == "Service" and status == "success"
            ],
        ),
        family(
            "cilium_nodes_all_events_received_total",
            "counter",
            "Changes of nodes",
            [
                ({"event_type": _ACTIONS[action], "source": "custom-resource"}, value)
                for (scope, action, status), value in told
                if scope == "CiliumNode" and status == "success"
            ],
        ),
    ]
