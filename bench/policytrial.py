"""What the commands about policy take that ask what may be: 25,000 identities, 10,000 policies.

*What-if*: the whole command, from its start to its last line, against a socket that tells what an
agent with 30 pods would tell: for a policy of one namespace, and for one that denies a third of all
identities to every pod. *Explain*: what the command does with the answers of both ends' agents.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

import msgspec

from bench.figure import Figure
from bench.policycore import ENDPOINTS, IDENTITIES, NAMESPACES, POLICIES, labels_of
from model.identity import ReservedIdentity
from model.labels import Label, Labels
from model.policy_map import Direction
from policy.explain import side
from policy.facts import EndpointFact, Facts, from_json, to_json
from policy.known import Options, Subject
from policy.objects.read import Kind, Source
from policy.objects.settings import Settings
from policy.oracle import Packet
from policy.trial import Readings

RUNS = 3
NARROW = {
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "new", "namespace": "team-3"},
    "spec": {
        "endpointSelector": {},
        "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "app-1"}}]}],
    },
}
WIDE = {
    "kind": "CiliumClusterwideNetworkPolicy",
    "metadata": {"name": "new"},
    "spec": {
        "endpointSelector": {},
        "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"tier": "tier-1"}}]}],
    },
}


def _source(number: int) -> Source:
    """The policies of ``policycore`` as objects."""
    namespace, app = f"team-{number % NAMESPACES}", number // NAMESPACES
    port = {"port": "8000", "endPort": 8080, "protocol": "TCP"}
    rule = {
        "fromEndpoints": [{"matchLabels": {"app": f"app-{app + 40}"}}],
        "toPorts": [{"ports": [port]}],
    }
    spec = {"endpointSelector": {"matchLabels": {"app": f"app-{app}"}}, "ingress": [rule]}
    return Source(Kind.CILIUM, namespace, f"policy-{number}", spec)


def _told() -> bytes:
    identities = {256 + n: labels_of(n) for n in range(IDENTITIES)}
    pods = {
        n: EndpointFact(f"team-{n}", "pod", 256 + n, Subject(identities[256 + n]))
        for n in range(ENDPOINTS)
    }
    for number in (ReservedIdentity.HOST, ReservedIdentity.WORLD, ReservedIdentity.REMOTE_NODE):
        own = Label(number.name.lower().replace("_", "-"), "", "reserved")
        identities[int(number)] = Labels.of([own])
    sources = tuple(_source(n) for n in range(POLICIES))
    facts = Facts("n1", Options(), Settings(), sources, identities=identities, endpoints=pods)
    return msgspec.json.encode(to_json(facts))


@contextmanager
def _socket(body: bytes) -> Iterator[str]:
    """A server that answers every request with ``body``, as the agent's socket does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingMixIn, UnixStreamServer):
        daemon_threads = True

    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/agent.sock"
        with Server(path, Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            yield path
            server.shutdown()
            thread.join()


def _whatif(path: str, document: Any) -> tuple[float, int]:
    """Seconds, and how many verdicts change."""
    text = json.dumps(document | {"apiVersion": "cilium.io/v2"})
    words = ["policy", "whatif", "-f", "-", "--host", f"unix://{path}"]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *words],
        input=text,
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[1],
    )
    return time.perf_counter() - start, int(done.stdout.splitlines()[-1].split()[0])


def _explain(body: bytes) -> float:
    start = time.perf_counter()
    ends = [from_json(json.loads(body)) for _ in range(2)]
    reader = Readings()
    for facts, way in zip(ends, (Direction.EGRESS, Direction.INGRESS), strict=True):
        packet = Packet(300, facts.identities[300], 6, 8000)
        subject = facts.endpoints[3].subject
        side(facts.known, facts.rules(reader), facts.options, subject, way, packet)
    return time.perf_counter() - start


def measure() -> Iterator[Figure]:
    """Seconds, the best of some runs."""
    body = _told()
    about = {"policies": POLICIES, "identities": IDENTITIES, "pods": ENDPOINTS, "runs": RUNS}
    with _socket(body) as path:
        narrow, changes = min(_whatif(path, NARROW) for _ in range(RUNS))
        wide, more = min(_whatif(path, WIDE) for _ in range(RUNS))
    detail = about | {"changes": changes, "wide_s": round(wide, 2), "wide_changes": more}
    yield Figure("policy.whatif_s", round(narrow, 2), "s", detail)
    best = min(_explain(body) for _ in range(RUNS))
    yield Figure("policy.explain_s", round(best, 2), "s", about | {"agents": 2})
