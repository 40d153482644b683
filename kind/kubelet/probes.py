"""Liveness, readiness and startup probes. Adapter.

A probe is made from the node's network namespace, where the kubelet lives. Until the first success
a readiness or startup probe is tried more often than its period: a pod is known to be ready some
milliseconds after it is, instead of a period later. Failures are counted once per period.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

EAGER_PERIOD_S = 0.1
# Runs a command in the container; returns its exit code.
Execute = Callable[[list[str], float], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe with its defaults filled in."""

    spec: Json
    initial_delay_s: float
    period_s: float
    timeout_s: float
    success_threshold: int
    failure_threshold: int


def parse(spec: Json) -> Probe:
    """Read a probe of the API, with the API's defaults."""
    return Probe(
        spec=spec,
        initial_delay_s=float(spec.get("initialDelaySeconds") or 0),
        period_s=float(spec.get("periodSeconds") or 10),
        timeout_s=float(spec.get("timeoutSeconds") or 1),
        success_threshold=int(spec.get("successThreshold") or 1),
        failure_threshold=int(spec.get("failureThreshold") or 3),
    )


def port_number(port: int | str, container: Json) -> int:
    """A port given by number or by the name of one of the container's ports."""
    if isinstance(port, int) or port.isdigit():
        return int(port)
    for item in container.get("ports") or []:
        if item.get("name") == port:
            return int(item["containerPort"])
    raise ValueError(f"container {container['name']} has no port named {port!r}")


async def attempt(probe: Probe, container: Json, pod_ip: str, execute: Execute) -> str:
    """Try once; empty when it succeeded, else why not."""
    spec = probe.spec
    try:
        async with asyncio.timeout(probe.timeout_s):
            if "exec" in spec:
                code = await execute(list(spec["exec"]["command"]), probe.timeout_s)
                return "" if code == 0 else f"command exited with {code}"
            if "httpGet" in spec:
                return await _http_get(spec["httpGet"], container, pod_ip)
            if "tcpSocket" in spec:
                ref = spec["tcpSocket"]
                port = port_number(ref["port"], container)
                _, writer = await asyncio.open_connection(ref.get("host") or pod_ip, port)
                writer.close()
                return ""
            if "grpc" in spec:
                return await _grpc(spec["grpc"], pod_ip, probe.timeout_s)
            return f"probe kind {sorted(spec)} is not supported"
    except TimeoutError:
        return f"no answer within {probe.timeout_s:g} s"
    except (OSError, ValueError) as error:
        return str(error)


async def _grpc(ref: Json, pod_ip: str, timeout_s: float) -> str:
    # Here and not above: few pods have such a probe, and every node runs a kubelet.
    from grpc_health.v1 import health_pb2

    from hubble.rpc import RpcError
    from hubble.rpc_client import connect

    asked = health_pb2.HealthCheckRequest(service=ref.get("service") or "").SerializeToString()
    try:
        channel = await connect(f"{pod_ip}:{ref['port']}", None, timeout_s)
        try:
            data = await channel.unary("/grpc.health.v1.Health/Check", asked, timeout_s)
        finally:
            channel.close()
    except RpcError as error:
        return error.message
    status = health_pb2.HealthCheckResponse.FromString(data).status
    return "" if status == health_pb2.HealthCheckResponse.SERVING else "not serving"


async def _http_get(ref: Json, container: Json, pod_ip: str) -> str:
    host, port = ref.get("host") or pod_ip, port_number(ref["port"], container)
    tls = None
    if (ref.get("scheme") or "HTTP").upper() == "HTTPS":
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE  # as the real kubelet
    headers = {"Host": f"{host}:{port}", "User-Agent": "kube-probe/isthmus", "Connection": "close"}
    headers |= {item["name"]: item["value"] for item in ref.get("httpHeaders") or []}
    lines = [f"GET {ref.get('path') or '/'} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode())
        words = (await reader.readline()).split()
        if len(words) < 2 or not words[1].isdigit():
            return "answer is not HTTP"
        status = int(words[1])
        return "" if 200 <= status < 400 else f"HTTP status {status}"
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await writer.wait_closed()


async def watch(
    probe: Probe,
    once: Callable[[], Awaitable[str]],
    verdict: Callable[[bool, str], Awaitable[None]],
    eager: bool,
    now: Callable[[], float],
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Probe for ever; calls ``verdict`` whenever a threshold is crossed."""
    await pause(probe.initial_delay_s)
    successes = failures = 0
    last: bool | None = None
    succeeded = False  # ever
    next_count = now()
    while True:
        why = await once()
        counted = now() >= next_count
        if not why:
            successes, failures, succeeded = successes + 1, 0, True
            if successes >= probe.success_threshold and last is not True:
                last = True
                await verdict(True, "")
        elif counted:
            successes, failures = 0, failures + 1
            if failures >= probe.failure_threshold and last is not False:
                last = False
                await verdict(False, why)
                if not eager:
                    # A restarted container begins anew; the same failure is not said twice.
                    failures, last = 0, None
        if counted:
            next_count = now() + probe.period_s
        hurried = eager and not succeeded
        await pause(min(EAGER_PERIOD_S, probe.period_s) if hurried else probe.period_s)
