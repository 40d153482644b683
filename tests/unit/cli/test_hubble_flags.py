"""Flags of ``isthmus hubble observe``: what each asks for, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format

from cli import hubble_flags, hubble_help
from tests.support.cli import isthmus
from tests.support.hubble import MemorySource
from tests.support.hubble_scenes import run
from wire.hubble import flow_pb2


async def test_selectors_reach_the_server(tmp_path: Path) -> None:
    """Filters, --not, --last, --first, --all, --since and --until select the flows."""
    source = MemorySource()
    source.add_flows(30)
    source.add_flows(1, verdict="DROPPED", event_type={"type": 1})

    async def shown(*arguments: str) -> list[str]:
        said = await run(tmp_path, source, "observe", "-o", "json", *arguments)
        assert said.code == 0, said.err
        return [json.loads(line)["flow"]["uuid"] for line in said.out.splitlines()]

    assert await shown() == [f"u{n}" for n in range(12, 32)]
    assert await shown("--last", "2") == ["u30", "u31"]
    assert await shown("--first", "2") == ["u1", "u2"]
    assert len(await shown("--all")) == 31
    assert await shown("--verdict", "dropped") == ["u31"]
    assert await shown("--last", "1", "--not", "--verdict", "DROPPED") == ["u30"]
    assert await shown("--since", "2025-06-15T15:07:09Z") == ["u29", "u30", "u31"]
    begin, end = "2025-06-15T15:06:43Z", "2025-06-15T15:06:44Z"
    assert await shown("--since", begin, "--until", end) == ["u3", "u4"]
    assert await shown("--last", "1", "--field-mask", "uuid") == ["u31"]
    denied = json.dumps({"verdict": ["DROPPED"]})
    assert await shown("--last", "1", "--denylist", denied) == ["u30"]


def raw_filters(*arguments: str) -> dict[str, list[Any]]:
    """What would be asked for, from the YAML that is printed."""
    said = isthmus("hubble", "observe", *arguments, "--print-raw-filters")
    assert said.code == 0, said.err
    lists = yaml.safe_load(said.out) or {}
    return {name: [json.loads(text) for text in texts] for name, texts in lists.items()}


RAW = [
    (["-n", "shop"], [{"source_pod": ["shop/"]}, {"destination_pod": ["shop/"]}], []),
    (
        ["-n", "shop", "--pod", "cart"],
        [{"source_pod": ["shop/cart"]}, {"destination_pod": ["shop/cart"]}],
        [],
    ),
    (["-A", "--pod", "cart"], [{"source_pod": ["/cart"]}, {"destination_pod": ["/cart"]}], []),
    (
        ["--from-namespace", "a", "--to-pod", "b/c"],
        [{"source_pod": ["a/"], "destination_pod": ["b/c"]}],
        [],
    ),
    (
        ["--pod", "a", "--port", "80", "--protocol", "tcp"],
        [
            {"source_pod": ["a"], "source_port": ["80"], "protocol": ["tcp"]},
            {"destination_pod": ["a"], "destination_port": ["80"], "protocol": ["tcp"]},
        ],
        [],
    ),
    (
        ["--not", "--to-port", "53", "--not", "--from-label", "a=b", "--from-label", "c"],
        [{"source_label": ["c"]}],
        [{"destination_port": ["53"], "source_label": ["a=b"]}],
    ),
    (["--to-identity", "world"], [{"destination_identity": [2]}], []),
    (["--workload", "Deployment/cart", "--from-all-namespaces"], None, None),
    (
        ["-t", "trace:to-network", "-t", "l7", "--type", "drop:133"],
        [
            {
                "event_type": [
                    {"type": 4, "match_sub_type": True, "sub_type": 11},
                    {"type": 129},
                    {"type": 1, "match_sub_type": True, "sub_type": 133},
                ]
            }
        ],
        [],
    ),
    (
        ["--tcp-flags", "syn,ack", "--tcp-flags", "rst"],
        [{"tcp_flags": [{"SYN": True, "ACK": True}, {"RST": True}]}],
        [],
    ),
    (["-6", "--unencrypted"], [{"ip_version": ["IPv6"], "encrypted": [False]}], []),
    (["--cel-expression", "true"], [{"experimental": {"cel_expression": ["true"]}}], []),
    (["--http-header", "a:b:c"], [{"http_header": [{"key": "a", "value": "b:c"}]}], []),
    (
        ["--from-cluster", "west", "--node-name", "west/"],
        [{"source_cluster_name": ["west"], "node_name": ["west/"]}],
        [],
    ),
    (
        ["--drop-reason-desc", "policy_denied", "--traffic-direction", "egress"],
        [{"drop_reason_desc": ["POLICY_DENIED"], "traffic_direction": ["EGRESS"]}],
        [],
    ),
    ([], [], []),
]


@pytest.mark.parametrize(("arguments", "allow", "deny"), RAW, ids=[" ".join(r[0]) for r in RAW])
def test_flags_become_filters(arguments: list[str], allow: Any, deny: Any) -> None:
    """At most two on each list; printed as YAML of JSON that can be used again."""
    lists = {"allowlist": [], "denylist": [], **raw_filters(*arguments)}
    if allow is not None:
        assert (lists["allowlist"], lists["denylist"]) == (allow, deny)
    for one in (*lists["allowlist"], *lists["denylist"]):
        json_format.ParseDict(one, flow_pb2.FlowFilter())


WRONG = [
    (
        ["--from-pod", "a", "--namespace", "b"],
        "filters --from-pod and --namespace cannot be combined",
    ),
    (["--pod", "a", "--to-pod", "b"], "filters --pod and --to-pod cannot be combined"),
    (["-n", "x", "--pod", "a/b"], "--pod a/b: names a namespace"),
    (["--first", "1", "--follow"], "cannot set both --first and --follow"),
    (["--last", "1", "--all"], "cannot set both --last and --all"),
    (["-o", "table", "-f"], "table output format is not compatible with follow mode"),
    (["--field-mask", "uuid"], "compact output format is not compatible with custom field mask"),
    (["-o", "json", "--field-mask", "x"], "invalid fieldmask: 'x'"),
    (["--pod", "a", "--not"], "trailing --not found in the arguments"),
    (["--verdict", "maybe"], "verdict 'maybe': none of VERDICT_UNKNOWN, FORWARDED"),
    (["--identity", "nobody"], "identity 'nobody': neither a number nor one of"),
    (["-t", "nothing"], "type 'nothing': not a number nor one of drop"),
    (["-t", "trace:x"], "'x' is not a number or one of to-endpoint"),
    (["--tcp-flags", "xyz"], "'xyz' is none of FIN"),
    (["--since", "yesterday"], "--since: 'yesterday' is neither a duration"),
    (["--until", "5"], "--until: '5' is neither a duration"),
    (["--last", "-1"], "-1 is not in the range"),
    (["--last", "x"], "'x' is not a valid integer"),
    (["--first", str(2**64)], "is not in the range"),
    (["--first", "1", "--all"], "cannot set --first together with --last or --all"),
    (["-o", "xml"], "'xml' is not one of 'compact'"),
    (["--time-format", "Kitchen"], "'Kitchen' is not one of 'StampMilli'"),
    (["--color", "pink"], "'pink' is not one of 'auto'"),
    (["--follow=maybe"], "--follow: 'maybe' is neither true nor false"),
    (["--ip-version", "v5"], "ip-version 'v5': none of NONE, V4, V6"),
    (["--ip-trace-id", "x"], "ip-trace-id 'x': not a number"),
    (["--identity", "-1"], "identity '-1'"),
    (["--identity", "4294967296"], "identity '4294967296'"),
    (["--workload", "/"], "workload '/': not of the form"),
    (["--http-header", "key"], "http-header 'key': not of the form key:value"),
    (["-t", "trace-sock:nothing"], "'nothing' is not a number or one of pre-xlate-fwd"),
    (["-t", "999"], "type '999'"),
    (["-t", "drop:"], "type drop:"),
    (["--namespace", ""], "--namespace: a namespace must not be empty"),
    (["--not", "--not"], "trailing --not found"),
    (["--timeout", "5"], "'5' is not a duration"),
    (["--server", "x:1", "-P"], "--server and --port-forward do not go together"),
    (["--tls", "--tls-client-cert-file", "pyproject.toml"], "go together"),
    (["--joined", "-f"], "--joined needs all flows of a connection"),
    (["--denylist", "x"], "--denylist x:"),
    (["--nothing"], "No such option"),
    (["--allowlist", '{"nothing": 1}'], "nothing"),
    (["--basic-auth-username", "x"], "basic auth needs --tls"),
]


@pytest.mark.parametrize(("arguments", "reason"), WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_wrong_usage_is_refused(arguments: list[str], reason: str) -> None:
    """Exit status 2 with what is wrong, before anybody is asked."""
    where = () if "-P" in arguments else ("--server", "unix:///nowhere")
    said = isthmus("hubble", "observe", *arguments, *where)
    assert said.code == 2
    assert reason in said.err


def sided(name: str, *values: Any) -> list[dict[str, Any]]:
    """Either side may hold."""
    return [{f"{side}_{name}": list(values)} for side in ("source", "destination")]


# Every filter flag: how it is given, and the filters that it makes.
EACH: dict[str, tuple[list[str], list[dict[str, Any]]]] = {
    **{
        f"{flag}{name}": ([f"--{flag}{name}", text], made)
        for name, field, text, value in (
            ("ip", "ip", "10.0.0.0/8", "10.0.0.0/8"),
            ("pod", "pod", "a/b", "a/b"),
            ("fqdn", "fqdn", "*.example.org", "*.example.org"),
            ("label", "label", "app in (a,b),!c", "app in (a,b),!c"),
            ("service", "service", "a/b", "a/b"),
            ("identity", "identity", "remote-node", 6),
            ("port", "port", "80", "80"),
            ("workload", "workload", "Deployment/cart", {"kind": "Deployment", "name": "cart"}),
            ("cluster", "cluster_name", "west", "west"),
            ("namespace", "pod", "shop", "shop/"),
        )
        for flag, made in (
            ("from-", [{f"source_{field}": [value]}]),
            ("to-", [{f"destination_{field}": [value]}]),
            ("", sided(field, value)),
        )
    },
    "from-all-namespaces": (["--from-all-namespaces"], [{"source_pod": ["/"]}]),
    "to-all-namespaces": (["--to-all-namespaces"], [{"destination_pod": ["/"]}]),
    "all-namespaces": (["-A"], sided("pod", "/")),
    "snat-ip": (["--snat-ip", "192.0.2.1"], [{"source_ip_xlated": ["192.0.2.1"]}]),
    "type": (
        ["-t", "trace-sock:post-xlate-rev", "-t", "7:4", "-t", "policy-verdict", "-t", "capture:4"],
        [
            {
                "event_type": [
                    {"type": 7, "match_sub_type": True, "sub_type": 4},
                    {"type": 7, "match_sub_type": True, "sub_type": 4},
                    {"type": 5},
                    {"type": 3, "match_sub_type": True, "sub_type": 4},
                ]
            }
        ],
    ),
    "verdict": (["--verdict", "translated"], [{"verdict": ["TRANSLATED"]}]),
    "drop-reason-desc": (
        ["--drop-reason-desc", "POLICY_DENY"],
        [{"drop_reason_desc": ["POLICY_DENY"]}],
    ),
    "traffic-direction": (
        ["--traffic-direction", "INGRESS"],
        [{"traffic_direction": ["INGRESS"]}],
    ),
    "protocol": (["--protocol", "DNS"], [{"protocol": ["DNS"]}]),
    "ip-version": (
        ["--ip-version", "none", "--ip-version", "v6", "--ip-version", "4"],
        [{"ip_version": ["IP_NOT_USED", "IPv6", "IPv4"]}],
    ),
    "ipv4": (["-4"], [{"ip_version": ["IPv4"]}]),
    "ipv6": (["--ipv6"], [{"ip_version": ["IPv6"]}]),
    "http-status": (["--http-status", "5+"], [{"http_status_code": ["5+"]}]),
    "http-method": (["--http-method", "get"], [{"http_method": ["get"]}]),
    "http-path": (["--http-path", "^/a'b"], [{"http_path": ["^/a'b"]}]),
    "http-url": (["--http-url", "x=1"], [{"http_url": ["x=1"]}]),
    "http-header": (["--http-header", "a:"], [{"http_header": [{"key": "a"}]}]),
    "tcp-flags": (["--tcp-flags", "FIN"], [{"tcp_flags": [{"FIN": True}]}]),
    "node-name": (["--node-name", "west/*"], [{"node_name": ["west/*"]}]),
    "node-label": (["--node-label", "zone=a"], [{"node_labels": ["zone=a"]}]),
    "interface": (["--interface", "eth0"], [{"interface": [{"name": "eth0"}]}]),
    "uuid": (["--uuid", "u1"], [{"uuid": ["u1"]}]),
    "trace-id": (["--trace-id", "abc"], [{"trace_id": ["abc"]}]),
    "ip-trace-id": (["--ip-trace-id", "18446744073709551615"], [{"ip_trace_id": [str(2**64 - 1)]}]),
    "encrypted": (["--encrypted"], [{"encrypted": [True]}]),
    "unencrypted": (["--unencrypted"], [{"encrypted": [False]}]),
    "cel-expression": (
        ["--cel-expression", "_flow.verdict == Verdict.DROPPED"],
        [{"experimental": {"cel_expression": ["_flow.verdict == Verdict.DROPPED"]}}],
    ),
}


@pytest.mark.parametrize("flag", EACH)
def test_each_filter_flag_means_its_field(flag: str) -> None:
    """Alone and after --not; in the latter case it denies."""
    arguments, expected = EACH[flag]
    assert raw_filters(*arguments) == {"allowlist": expected}
    if len(arguments) <= 2:
        assert raw_filters("--not", *arguments) == {"denylist": expected}


def test_no_filter_flag_is_left_out_of_the_table() -> None:
    """Every flag that the command has, and each says in the help what it takes."""
    known = {*hubble_flags.VALUED, *hubble_flags.SWITCHES, *hubble_flags.ALL_NAMESPACES}
    assert known == set(EACH) == set(hubble_help.HELP)
    shown = "".join(isthmus("hubble", "observe", "--help").out.split())
    assert "translated" in shown
    assert "from-endpoint" in shown


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--follow=false", "--last", "1"], ["u5"]),
        (["--all=true", "--print-node-name=False", "--numeric=0"], ["u1", "u2", "u3", "u4", "u5"]),
        (["--ip-translation=false", "--last=2"], ["u4", "u5"]),
        (["--use-default-field-masks=false", "--last", "1"], ["u5"]),
        (["--experimental-field-mask", "uuid,verdict", "--first", "1"], ["u1"]),
        (["--encrypted=false", "--last", "1"], ["u5"]),
        (
            ["-s", "-D", "--tls=false", "--silent-errors=t", "--color", "never", "--last", "1"],
            ["u5"],
        ),
        (["--last", "0"], ["u1", "u2", "u3", "u4", "u5"]),
        (["--until", "2025-06-15T15:06:42+00:00"], ["u1", "u2"]),
        (["--since", "Sun, 15 Jun 2025 15:06:44 +0000", "--last", "1"], ["u4"]),
        (["--since", "2025-06-15", "--first", "2"], ["u1", "u2"]),
        (["--since", "10000000h", "--until", "2025-06-15T15:06:41.5Z"], ["u1"]),
        (["--since", "1ns"], []),
    ],
    ids=" ".join,
)
async def test_flags_as_tools_in_go_take_them(
    arguments: list[str], expected: list[str], tmp_path: Path
) -> None:
    """Switches with a value, elder names, times of several kinds: the flows that are meant."""
    source = MemorySource()
    source.add_flows(5)
    said = await run(tmp_path, source, "observe", "-o", "jsonpb", *arguments)
    assert (said.code, said.err) == (0, "")
    assert [json.loads(line)["flow"]["uuid"] for line in said.out.splitlines()] == expected


async def test_how_lines_look(tmp_path: Path) -> None:
    """Names, numbers, nodes, colours and times, each by its flag."""
    source = MemorySource()
    fields = {"IP": {"source": "10.1.0.5", "destination": "10.1.0.9"}}
    fields["source"] = {"namespace": "shop", "pod_name": "cart", "identity": 7}
    source.add_flows(1, **fields)

    async def line(*arguments: str) -> str:
        said = await run(tmp_path, source, "observe", *arguments)
        assert (said.code, said.err) == (0, "")
        return said.out.rstrip("\n")

    plain = await line()
    assert plain == (
        "Jun 15 15:06:41.000: shop/cart (kube-apiserver) -> 10.1.0.9 (unknown) "
        "to-endpoint FORWARDED (number 1)"
    )
    assert await line("--color", "auto") == await line("--color=never") == plain
    assert "\x1b[36mshop/cart\x1b[0m" in await line("--color", "always")
    assert "10.1.0.5 (kube-apiserver) ->" in await line("--ip-translation=false")
    assert "10.1.0.5 (kube-apiserver) ->" in await line("--numeric")
    assert "15:06:41.000 [west/node-1]: " in await line("--print-node-name")
    assert (await line("--time-format", "RFC3339Nano")).startswith("2025-06-15T15:06:41Z: ")
    assert await line("-o", "tab") == await line("-o", "table")


async def test_the_denied_lists_of_the_settings_hold(tmp_path: Path) -> None:
    """``allowlist`` and ``denylist`` of the file, unless flags name others."""
    source = MemorySource()
    source.add_flows(3)
    source.add_flows(1, verdict="DROPPED", event_type={"type": 1})
    file = tmp_path / "config.yaml"
    file.write_text(
        isthmus("hubble", "observe", "--not", "--verdict", "DROPPED", "--print-raw-filters").out
    )
    words = ("observe", "-o", "json", "--config", str(file))
    said = await run(tmp_path, source, *words)
    assert [json.loads(x)["flow"]["uuid"] for x in said.out.splitlines()] == ["u1", "u2", "u3"]
    said = await run(tmp_path, source, *words, "--denylist", '{"uuid": ["u1"]}')
    assert [json.loads(x)["flow"]["uuid"] for x in said.out.splitlines()] == ["u2", "u3", "u4"]
