"""Metrics of a real node: the page tells exactly what the observer has."""

from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.access_log import Proxy, answer, dns_answer, record
from tests.support.agent import AgentNode, agent_node, traffic, until
from tests.support.hubble import asking
from tests.support.hubble_process import hubble_process
from tests.support.metrics_page import Scraped, parse
from tests.support.nodes import sh
from wire.hubble import flow_pb2 as f
from wire.hubble import observer_pb2

pytestmark = pytest.mark.root

METRICS = (
    "dns:query drop flow:sourceContext=pod;destinationContext=pod tcp icmp port-distribution "
    "policy flows-to-world:sourceContext=workload-name|pod "
    "httpV2:sourceContext=pod;labelsContext=source_namespace,destination_namespace"
)
OUTSIDE = "203.0.113.7"
HTTP = {"Method": "GET", "Protocol": "HTTP/1.1", "URL": "http://web/"}


def scrape(node: AgentNode) -> dict[str, Scraped]:
    """The page, empty before there is one."""
    command = f"ip netns exec {node.namespace} curl -s http://127.0.0.1:9965/metrics || true"
    text = sh(command)
    return parse(text) if text else {}


async def flows(path: Path) -> list[f.Flow]:
    async with asking(path) as stub:
        asked = observer_pb2.GetFlowsRequest(number=4095)
        return [found.flow async for found in stub.flows(asked) if found.HasField("flow")]


async def test_the_page_tells_what_the_observer_has(tmp_path: Path) -> None:
    """Each flow once, under its labels: connections, pings, the world, requests and questions."""
    async with agent_node(tmp_path) as node, AsyncExitStack() as stack:
        node.flags = {"enable-hubble": "true"}
        node.start()
        await node.ready()
        settings = {"hubble_metrics": METRICS, "hubble_metrics_server": "127.0.0.1:9965"}
        path = stack.enter_context(hubble_process(node, **settings))
        await until(lambda: "hubble_drop_total" in scrape(node), "the page")
        client = await node.add(node.pod("client", {"app": "client"}))
        server = await node.add(node.pod("server", {"app": "server"}))
        stack.callback(server.serve().kill)
        for _ in range(3):
            assert traffic(client.namespace, "tcp", server.address, 8080).finish()["names"]
        client.sh(f"ping -q -c 4 -i 0.1 -W 10 {server.address}")
        client.sh(f"ping -q -c 1 -W 1 {OUTSIDE} || true")
        proxy = Proxy(node.state / "envoy/sockets/access_log.sock")
        stack.callback(proxy.close)
        headers = {"X-Request-Id": ["7"]}
        here, there = client.address, server.address
        proxy.tell(record(here, there, HTTP={**HTTP, "Headers": headers}))
        proxy.tell(answer(there, here, HTTP={**HTTP, "Code": 200, "Headers": headers}))
        proxy.tell(dns_answer("web.example.", OUTSIDE, asker=here))

        async def all_told() -> bool:
            return scrape(node)["hubble_flows_processed_total"].total(type="L7") == 3

        await until(all_told, "requests")

        async def still() -> Any:
            page, told = scrape(node), await flows(path)
            counted, later = (
                p["hubble_flows_processed_total"].total() for p in (page, scrape(node))
            )
            return (page, told) if counted == later else None

        page, told = await until(still, "nothing more is told")
        counted = page["hubble_flows_processed_total"]
        asked = {"grpc_service": "observer.Observer", "grpc_method": "GetFlows", "grpc_code": "OK"}
        assert scrape(node)["grpc_server_handled_total"].total(**asked) == 1
        by_event = {"Drop": 1, "Trace": 4, "PolicyVerdict": 5, "Unknown": 7, "L7": 129}
        events = Counter(flow.event_type.type for flow in told)
        assert {by_event[t]: counted.total(type=t) for t in by_event} == dict(events) | {
            kind: 0 for kind in by_event.values() if kind not in events
        }
        assert page["hubble_lost_events_total"].total() == 0
        traces = [x for x in told if x.event_type.type == 4]
        of_client = [x for x in traces if x.l4.HasField("TCP") and x.source.pod_name == "client"]
        key = {"protocol": "TCP", "type": "Trace", "source": "default/client"}
        assert counted.total(**key, verdict="FORWARDED") == len(of_client) > 0
        flags = page["hubble_tcp_flags_total"]
        assert flags.total(flag="SYN") == sum(
            x.verdict == f.FORWARDED and x.l4.TCP.flags.SYN and not x.l4.TCP.flags.ACK for x in told
        )
        assert flags.total(flag="SYN-ACK") >= 3
        assert flags.total(flag="FIN") >= 6
        assert page["hubble_icmp_total"].total(type="EchoRequest", family="IPv4") >= 4
        assert page["hubble_port_distribution_total"].total(protocol="TCP", port="8080") >= 3
        assert page["hubble_policy_verdicts_total"].total(direction="ingress") == sum(
            x.event_type.type == 5 and x.traffic_direction == f.INGRESS for x in told
        )
        assert page["hubble_flows_to_world_total"].total(protocol="ICMPv4") >= 1
        http = {"source": "default/client", "destination_namespace": "default", "status": "200"}
        assert page["hubble_http_requests_total"].total(**http, reporter="client") == 1
        dns = {"query": "web.example.", "rcode": "No Error", "ips_returned": "1"}
        assert page["hubble_dns_responses_total"].total(**dns) == 1
        assert page["hubble_dns_response_types_total"].total(type="A") == 1
