"""The main job as a story in eight steps, told with the commands a user types. Adapter.

Each step is a function that makes things happen and returns what it saw; ``Step.held`` says whether
the story held. ``isthmus lab demo`` prints it, ``tests/lab/test_story.py`` asserts it.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
C1, C2 = "cluster1", "cluster2"
ONE, TWO = "Cluster-1", "Cluster-2"  # what rebel-base says of itself
RATE = 40.0  # requests per second of a stream: enough to see a gap of 25 ms
IN_FLIGHT_S = 2.0  # how long one may have been under way that a killed pod takes with it
COMMAND_TIMEOUT_S = 240  # longer than any of them waits by itself
GLOBAL = "service.cilium.io/global"
SHARED = "service.cilium.io/shared"
AFFINITY = "service.cilium.io/affinity"


class StoryError(Exception):
    """A command failed, or something did not come about in time."""


@dataclass(slots=True)
class Step:
    """One step with what was checked and measured."""

    number: int
    title: str
    checks: list[tuple[str, bool]] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Every check of the step was true, and there was one."""
        return bool(self.checks) and all(good for _, good in self.checks)

    def check(self, what: str, good: bool) -> None:
        """Note a check."""
        self.checks.append((what, good))


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a stream."""

    at: float
    ok: bool
    ms: float
    cluster: str
    error: str


class Stream:
    """A steady stream of requests from a pod, read while it runs."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.requests: list[Request] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                raw = json.loads(line)
            except ValueError:
                continue  # a message of the command that carries the stream
            self.requests.append(
                Request(
                    raw["at"], raw["ok"], raw["ms"], raw.get("cluster", ""), raw.get("error", "")
                )
            )

    @property
    def failed(self) -> list[Request]:
        """Requests without an answer."""
        return [r for r in self.requests if not r.ok]

    def since(self, moment: float) -> list[Request]:
        """Requests that began after a moment."""
        return [r for r in self.requests if r.at >= moment]

    def until(self, what: str, holds: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until enough has been seen. Raises ``StoryError``."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise StoryError(f"waited {seconds:.0f} s: {what}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End the stream and take its last lines."""
        self._process.terminate()
        try:
            self._process.wait(20)  # requests under way have their time
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reader.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()


class Mesh:
    """Two clusters of a lab, and the commands that act on them."""

    def __init__(self, lab: str, *, kvstoremesh: bool = False) -> None:
        self.lab = lab
        self.kvstoremesh = kvstoremesh
        kubeconfig = self.isthmus("lab", "kubeconfig", lab).strip()
        self.environment = {**os.environ, "KUBECONFIG": kubeconfig}

    def command(self, *argv: str, check: bool = True, stdin: str | None = None) -> str:
        """Run a command line. Raises ``StoryError`` with its words when it fails."""
        environment = getattr(self, "environment", None) or {**os.environ}
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            env=environment,
            input=stdin,
            timeout=COMMAND_TIMEOUT_S,
        )
        if check and done.returncode:
            text = (done.stderr or done.stdout).strip()
            raise StoryError(f"{' '.join(argv[:8])}: exit status {done.returncode}: {text}")
        return done.stdout

    def isthmus(self, *words: str, check: bool = True) -> str:
        """``isthmus …``."""
        return self.command(sys.executable, "-m", "cli.main", *words, check=check)

    def kubectl(self, context: str, *words: str) -> str:
        """``kubectl --context …``."""
        return self.command("kubectl", "--context", context, *words)

    def objects(self, context: str, *words: str) -> list[dict[str, Any]]:
        """``kubectl get … -o json``."""
        found: list[dict[str, Any]] = json.loads(
            self.kubectl(context, "get", *words, "-o", "json")
        )["items"]
        return found

    def pods(self, context: str, selector: str, namespace: str = "default") -> list[dict[str, Any]]:
        """Pods that run and are not going away."""
        found = self.objects(context, "pods", "-n", namespace, "-l", selector)
        return [p for p in found if "deletionTimestamp" not in p["metadata"]]

    def inside(self, context: str, pod: str, *argv: str, namespace: str = "default") -> str:
        """Run a command in a pod."""
        words = ("--lab", self.lab, "--cluster", context, "-n", namespace, pod, "--", *argv)
        return self.isthmus("lab", "exec", *words)

    def agents(self, context: str) -> dict[str, str]:
        """Node name → agent's pod."""
        found = self.pods(context, "k8s-app=cilium", "kube-system")
        return {p["spec"]["nodeName"]: p["metadata"]["name"] for p in found}

    def agent(self, node: str, *words: str) -> Any:
        """A table of a node's agent, as JSON."""
        argv = ("isthmus", *words, "-o", "json")
        return json.loads(self.isthmus("lab", "exec", "--lab", self.lab, node, "--", *argv))

    def annotate(self, context: str, *annotations: str) -> None:
        """Annotations of ``rebel-base``."""
        self.kubectl(context, "annotate", "--overwrite", "service", "rebel-base", *annotations)

    @contextmanager
    def stream(self, host: str, context: str = C1) -> Iterator[Stream]:
        """Requests from x-wing to a host, at a steady rate."""
        pod = self.pods(context, "name=x-wing")[0]["metadata"]["name"]
        program = str(HERE / "images" / "loadgen.py")
        argv = [sys.executable, "-m", "cli.main", "lab", "exec", "--lab", self.lab]
        argv += ["--cluster", context, "-n", "default", pod, "--"]
        argv += [sys.executable, "-I", "-S", program, host, "80", str(RATE), "600"]
        process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
            env=self.environment,
        )
        stream = Stream(process)
        try:
            stream.until("the first answer", lambda: any(r.ok for r in stream.requests))
            yield stream
        finally:
            stream.stop()

    def ask(self, count: int, context: str = C1) -> Counter[str]:
        """So many requests to ``rebel-base`` from x-wing; who answered."""
        with self.stream("rebel-base", context) as stream:
            stream.until(f"{count} requests", lambda: len(stream.requests) >= count)
        return Counter(r.cluster if r.ok else "failed" for r in stream.requests)

    def wait_for(self, what: str, holds: Callable[[], bool], seconds: float = 90) -> float:
        """Poll until it holds; how long it took. Raises ``StoryError``."""
        start = looked = time.monotonic()
        while not holds():
            if time.monotonic() - start > seconds:
                raise StoryError(f"waited {seconds:.0f} s: {what}")
            # As long as the look took, at least: it runs commands, and what is waited for needs the
            # machine, too.
            time.sleep(max(0.1, time.monotonic() - looked))
            looked = time.monotonic()
        return time.monotonic() - start

    def only(self, wanted: Mapping[str, bool], quiet_s: float = 0.5) -> Counter[str]:
        """Stream until as many answers in a row as make ``quiet_s`` come from just the wanted."""
        expected = {name for name, want in wanted.items() if want}
        enough = int(RATE * quiet_s)
        with self.stream("rebel-base") as stream:

            def holds() -> bool:
                recent = stream.requests[-enough:]
                return len(recent) == enough and {r.cluster for r in recent if r.ok} == expected

            stream.until(f"answers from {sorted(expected)} only", holds)
            moment = time.time()
            more = int(RATE)
            stream.until("some more", lambda: len(stream.since(moment)) >= more)
        return Counter(r.cluster if r.ok else "failed" for r in stream.since(moment))


def clusters(mesh: Mesh, step: Step) -> None:
    """Step 1: two clusters, two nodes each; nodes Ready, agents healthy."""
    cidrs: list[str] = []
    for context in (C1, C2):
        nodes = mesh.objects(context, "nodes")
        ready = [
            n["metadata"]["name"]
            for n in nodes
            if any(
                c["type"] == "Ready" and c["status"] == "True"
                for c in n["status"].get("conditions", [])
            )
        ]
        step.check(f"{context}: two nodes Ready", len(ready) == 2)
        cidrs += [n["spec"]["podCIDR"] for n in nodes]
        for node in ready:
            state = mesh.agent(node, "status")["cilium"]["state"]
            step.check(f"{node}: agent {state}", state == "Ok")
    step.check("pod CIDRs do not overlap", len(set(cidrs)) == 4)
    step.figures["pod CIDRs"] = " ".join(cidrs)
    for number, context in ((1, C1), (2, C2)):
        mesh.kubectl(context, "apply", "-f", str(HERE / "examples" / f"cluster{number}.yaml"))


def joined(mesh: Mesh, step: Step) -> None:
    """Step 2: enable, connect, status."""
    start = time.monotonic()
    for context in (C1, C2):
        more = ("--enable-kvstoremesh",) if mesh.kvstoremesh else ()
        mesh.isthmus("clustermesh", "enable", "--context", context, *more)
    said = mesh.isthmus("clustermesh", "connect", "--context", C1, "--destination-context", C2)
    step.check(said.strip().splitlines()[-1], "Connected cluster" in said)
    for context in (C1, C2):
        words = ("--context", context, "--wait", "--wait-duration", "110s", "-o", "json")
        status = json.loads(mesh.isthmus("clustermesh", "status", *words))
        connected = status["connectivity"]["connected"]
        step.check(f"{context}: every agent connected and synchronised", connected["min"] == 1)
    step.figures["enable to synchronised"] = f"{time.monotonic() - start:.1f} s"
    for context in (C1, C2):
        for name in ("rebel-base", "x-wing"):
            mesh.kubectl(context, "rollout", "status", f"deployment/{name}", "--timeout=110s")


def _known(mesh: Mesh, node: str, address: str) -> None:
    """Wait until a node's kernel knows whose address it is."""
    listed = f"{address}/32"
    mesh.wait_for(
        f"{node} knows {address}",
        lambda: listed in mesh.agent(node, "bpf", "ipcache", "list"),
    )


def pod_to_pod(mesh: Mesh, step: Step) -> None:
    """Step 3: by address, the source preserved, its identity known at the destination."""
    source = mesh.pods(C1, "name=x-wing")[0]
    target = mesh.pods(C2, "name=x-wing")[0]
    from_ip, to_ip = source["status"]["podIP"], target["status"]["podIP"]
    for pod, other in ((source, to_ip), (target, from_ip)):
        _known(mesh, pod["spec"]["nodeName"], other)
    answer = json.loads(
        mesh.inside(C1, source["metadata"]["name"], "curl", "-s", "-m", "5", f"http://{to_ip}/")
    )
    seen = answer["client"].rpartition(":")[0]
    step.check(f"{to_ip} answers, and saw {seen}", seen == from_ip)
    endpoints = mesh.agent(source["spec"]["nodeName"], "endpoint", "list")
    mine = next(
        e["status"]["identity"]["id"]
        for e in endpoints
        if e["status"]["external-identifiers"].get("k8s-pod-name") == source["metadata"]["name"]
    )
    flows = mesh.agent(target["spec"]["nodeName"], "bpf", "ct", "list")
    known = {
        f["source-security-id"]
        for f in flows
        if f["source"] == from_ip and f["destination"] == to_ip and f["direction"] == "IN"
    }
    step.check(f"identity {mine} is known at the destination", known == {mine})
    step.figures["source"] = f"{from_ip} identity {mine}"


def global_service(mesh: Mesh, step: Step) -> None:
    """Step 4: 100 requests reach backends of both clusters."""
    mesh.wait_for(
        "four backends in cluster1",
        lambda: len(_backends(mesh)) == 4,
    )
    found = mesh.ask(100)
    step.check("Cluster-1 answers", found[ONE] > 0)
    step.check("Cluster-2 answers", found[TWO] > 0)
    step.check("no request failed", found["failed"] == 0)
    step.figures["answers"] = _counts(found)


def sharing(mesh: Mesh, step: Step) -> None:
    """Step 5: shared=false takes cluster2's backends away, and back."""
    mesh.annotate(C2, f"{SHARED}=false")
    found = mesh.only({ONE: True, TWO: False})
    step.check("not shared: only Cluster-1 answers", set(found) == {ONE})
    step.figures["not shared"] = _counts(found)
    mesh.annotate(C2, f"{SHARED}-")
    found = mesh.only({ONE: True, TWO: True}, 1.0)
    step.check("shared again: both answer", found[ONE] > 0 and found[TWO] > 0)
    step.figures["shared again"] = _counts(found)


def affinity(mesh: Mesh, step: Step) -> None:
    """Step 6: affinity local, remote; fail-over when no local backend is ready, and back."""
    mesh.annotate(C1, f"{AFFINITY}=remote")
    found = mesh.only({ONE: False, TWO: True})
    step.check("remote: only Cluster-2 answers", set(found) == {TWO})
    mesh.annotate(C1, f"{AFFINITY}=local")
    found = mesh.only({ONE: True, TWO: False})
    step.check("local: only Cluster-1 answers", set(found) == {ONE})
    fail_over(mesh, step)
    mesh.annotate(C1, f"{AFFINITY}-")
    found = mesh.only({ONE: True, TWO: True}, 1.0)
    step.check("no affinity again: both answer", found[ONE] > 0 and found[TWO] > 0)


def fail_over(mesh: Mesh, step: Step) -> None:
    """With affinity local: unready, then killed; figures for the report and the bench."""
    names = [p["metadata"]["name"] for p in mesh.pods(C1, "name=rebel-base")]
    with mesh.stream("rebel-base") as stream:
        start = time.time()
        for name in names:
            mesh.inside(C1, name, "touch", "/tmp/unready")
        unready = time.time()
        mesh.wait_for("backends unready", lambda: not _ready(mesh, C1))
        stream.until(
            "Cluster-2 takes over", lambda: {r.cluster for r in stream.requests[-8:]} == {TWO}
        )
        first = next(r.at for r in stream.since(start) if r.cluster == TWO)
        last = max(r.at for r in stream.since(start) if r.cluster == ONE)
        mesh.kubectl(C1, "delete", "pod", "--wait=false", *names)
        stream.until("some requests after the kill", lambda: len(stream.since(unready)) > RATE * 3)
        mesh.kubectl(C1, "rollout", "status", "deployment/rebel-base", "--timeout=110s")
        back = time.time()
        stream.until("Cluster-1 again", lambda: {r.cluster for r in stream.requests[-8:]} == {ONE})
    in_flight = [
        r for r in stream.failed if last - IN_FLIGHT_S <= r.at <= last <= r.at + r.ms / 1000
    ]
    failed = len(stream.failed) - len(in_flight)
    again = next((r.at for r in stream.since(back) if r.cluster == ONE), back)
    step.check("fails over to Cluster-2 and back", True)
    step.check("no request failed", failed == 0)
    step.figures["time to fail over (probe of 1 s included)"] = f"{(first - start) * 1000:.0f} ms"
    step.figures["time to come back"] = f"{max(0.0, again - back) * 1000:.0f} ms"
    step.figures["requests during it"] = str(len(stream.requests))
    step.figures["failed requests"] = str(failed)
    for request in stream.failed[:5]:
        step.figures[f"failed at {request.at - start:.2f} s"] = request.error


def without_control(mesh: Mesh, step: Step) -> None:
    """Step 7: no remote etcd, then no local agents: nothing fails, and later changes arrive."""
    target = mesh.pods(C2, "name=x-wing")[0]["status"]["podIP"]
    apiserver = ("scale", "-n", "kube-system", "deployment/clustermesh-apiserver")
    selector = '{"spec":{"template":{"spec":{"nodeSelector":%s}}}}'
    agents = ("patch", "-n", "kube-system", "daemonset", "cilium", "-p")
    with mesh.stream("rebel-base") as service, mesh.stream(target) as pod:
        mesh.kubectl(C2, *apiserver, "--replicas=0")
        mesh.wait_for(
            "the remote etcd is gone",
            lambda: (
                not mesh.objects(
                    C2, "pods", "-n", "kube-system", "-l", "k8s-app=clustermesh-apiserver"
                )
            ),
        )
        _some_more(service, pod)
        mesh.kubectl(C1, *agents, selector % '{"isthmus.io/none":"x"}')
        mesh.wait_for("the local agents are gone", lambda: not mesh.agents(C1))
        _some_more(service, pod)
        mesh.kubectl(C2, "scale", "deployment/rebel-base", "--replicas=3")
        mesh.kubectl(C2, "rollout", "status", "deployment/rebel-base", "--timeout=110s")
        mesh.kubectl(C1, *agents, selector % "null")
        mesh.kubectl(C2, *apiserver, "--replicas=1")
        took = mesh.wait_for("the change arrives", lambda: len(_backends(mesh)) == 5)
        _some_more(service, pod)
    for name, stream in (("service", service), ("pod", pod)):
        count, failed = len(stream.requests), len(stream.failed)
        step.check(f"{name}: {count} requests, {failed} failed", failed == 0)
    step.check("a change made meanwhile arrived", True)
    step.figures["restart to change in the kernel"] = f"{took:.1f} s"
    clusters_seen = Counter(r.cluster for r in service.requests)
    step.check(
        "both clusters answered all along", clusters_seen[ONE] > 0 and clusters_seen[TWO] > 0
    )
    step.figures["answers"] = _counts(clusters_seen)


def parted(mesh: Mesh, step: Step) -> None:
    """Step 8: disconnect; what was learnt disappears, local traffic never fails."""
    local = mesh.pods(C1, "name=rebel-base")[0]["status"]["podIP"]
    node = mesh.pods(C1, "name=x-wing")[0]["spec"]["nodeName"]
    with mesh.stream(local) as pod, mesh.stream("rebel-base") as service:
        said = mesh.isthmus(
            "clustermesh", "disconnect", "--context", C1, "--destination-context", C2
        )
        step.check(said.strip().splitlines()[-1], "Disconnected cluster" in said)
        took = mesh.wait_for("remote backends disappear", lambda: len(_backends(mesh)) == 2)
        mesh.wait_for(
            "remote ipcache entries disappear",
            lambda: not _remote_identities(mesh.agent(node, "bpf", "ipcache", "list")),
        )
        mesh.wait_for(
            "remote identities disappear",
            lambda: not [i for i in mesh.agent(node, "identity", "list") if i["id"] >> 16 == 2],
        )
        moment = time.time()
        _some_more(pod, service)
    late = Counter(r.cluster if r.ok else "failed" for r in service.since(moment))
    step.check("remote backends, identities and ipcache entries are gone", True)
    step.check(f"local: {len(pod.requests)} requests, {len(pod.failed)} failed", not pod.failed)
    step.check("the service answers from Cluster-1 alone", set(late) == {ONE})
    step.figures["until forgotten"] = f"{took:.1f} s"


STEPS: Sequence[tuple[str, Callable[[Mesh, Step], None]]] = (
    ("two clusters, nodes Ready, agents healthy", clusters),
    ("joined: enable, connect, status", joined),
    ("pod to pod across clusters, source address and identity preserved", pod_to_pod),
    ("rebel-base is one service of both clusters", global_service),
    ("not shared, and shared again", sharing),
    ("affinity, fail-over and back", affinity),
    ("without remote etcd, without local agents", without_control),
    ("disconnected: nothing remote stays, nothing local fails", parted),
)


def tell(
    mesh: Mesh, steps: Sequence[tuple[str, Callable[[Mesh, Step], None]]] = STEPS
) -> Iterator[Step]:
    """Run the steps in order. One that breaks off is a step that did not hold."""
    for number, (title, act) in enumerate(steps, 1):
        step = Step(number, title)
        start = time.monotonic()
        try:
            act(mesh, step)
        except (StoryError, subprocess.TimeoutExpired, LookupError, ValueError) as error:
            step.check(f"{type(error).__name__}: {error}", False)
        step.seconds = time.monotonic() - start
        yield step


def _backends(mesh: Mesh) -> list[str]:
    """Backends of rebel-base in the kernel of x-wing's node."""
    node = mesh.pods(C1, "name=x-wing")[0]["spec"]["nodeName"]
    address = json.loads(mesh.kubectl(C1, "get", "service", "rebel-base", "-o", "json"))["spec"][
        "clusterIP"
    ]
    try:
        services = mesh.agent(node, "service", "list")
    except StoryError:
        return []  # the agent is still starting
    return [
        b["ip"]
        for s in services
        if s["spec"]["frontend-address"]["ip"] == address
        for b in s["spec"]["backend-addresses"]
    ]


def _ready(mesh: Mesh, context: str) -> list[str]:
    return [
        p["metadata"]["name"]
        for p in mesh.pods(context, "name=rebel-base")
        if any(
            c["type"] == "Ready" and c["status"] == "True"
            for c in p["status"].get("conditions", [])
        )
    ]


def _remote_identities(table: Mapping[str, Sequence[str]]) -> list[int]:
    """Identities of cluster2 in an ipcache as ``bpf ipcache list -o json`` prints it."""
    numbers = [int(i) for lines in table.values() for i in re.findall(r"identity=(\d+)", lines[0])]
    return [number for number in numbers if number >> 16 == 2]


def _some_more(*streams: Stream) -> None:
    """Let every stream make a second's worth of requests."""
    moment = time.time()
    for stream in streams:
        stream.until("more requests", lambda s=stream: len(s.since(moment)) >= RATE)  # type: ignore[misc]


def _counts(found: Counter[str]) -> str:
    return ", ".join(f"{name or 'unnamed'} {count}" for name, count in sorted(found.items()))
