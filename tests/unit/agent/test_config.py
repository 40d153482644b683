"""Settings: where they come from, which wins, and what is said about a bad one."""

from pathlib import Path

import pytest

from agent.config import ConfigError, load
from encryption.migration import Kind, Stance
from model.service import Selection
from wire.bpf.layouts import TraceLevel


def test_flags_win_over_environment_over_files(tmp_path: Path) -> None:
    """One key from three places; what only one place says counts as well."""
    (tmp_path / "cluster-name").write_text("from-file\n")
    (tmp_path / "cluster-id").write_text("7")
    (tmp_path / "mtu").write_text("1400")
    (tmp_path / "enable-hubble").write_text("true")
    (tmp_path / "..data").mkdir()
    environment = {"CILIUM_CLUSTER_NAME": "from-environment", "CILIUM_MTU": "1450"}
    arguments = [f"--config-dir={tmp_path}", "--cluster-name", "from-flag"]
    config = load(arguments, environment)
    assert (config.cluster_name, config.cluster_id, config.mtu) == ("from-flag", 7, 1450)
    assert load([f"--config-dir={tmp_path}"], environment).cluster_name == "from-environment"


def test_probes_have_a_pace_that_a_round_can_keep() -> None:
    """A round of probes takes some seconds."""
    config = load(["--clustermesh-probe-interval=2s"], {})
    assert (config.clustermesh_probe_interval, config.clustermesh_probe_return) == (2.0, 120.0)
    text = r'^clustermesh-probe-interval is "500ms": use 1s or more$'
    with pytest.raises(ConfigError, match=text):
        load(["--clustermesh-probe-interval=500ms"], {})


def test_values_are_read_as_what_they_mean() -> None:
    """Switches, durations, addresses, words."""
    config = load(
        [
            "--debug",
            "--clustermesh-sync-timeout=1m30s",
            "--prometheus-serve-addr=:9962",
            "--bpf-lb-algorithm=maglev",
            "--state-dir=/run/x",
            "--kubeconfig=/k",
        ],
        {"K8S_NODE_NAME": "n1"},
    )
    assert config.debug
    assert config.clustermesh_sync_timeout == 90
    assert config.prometheus_serve_addr == ("0.0.0.0", 9962)
    assert config.bpf_lb_algorithm is Selection.MAGLEV
    assert str(config.api_socket) == "/run/x/cilium.sock"
    assert (config.k8s_node_name, config.k8s_kubeconfig_path) == ("n1", "/k")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cluster-name=UPPER"], ["cluster-name", "UPPER", "lower-case"]),
        (["--cluster-name=" + "x" * 33], ["cluster-name", "at most 32"]),
        (["--cluster-name=a", "--cluster-id=300"], ["cluster-id", "300", "1 to 255"]),
        (["--cluster-id=3"], ["cluster-name", "default", "name of its own"]),
        (["--cluster-id=x"], ["cluster-id", '"x"', "0 to 511"]),
        (["--max-connected-clusters=300"], ["max-connected-clusters", "255, 511"]),
        (
            ["--policy-cidr-match-mode=nodes,all"],
            ["policy-cidr-match-mode", "nodes,all", "or both"],
        ),
        (["--routing-mode=eni"], ["routing-mode", "tunnel", "native"]),
        (["--auto-direct-node-routes"], ["auto-direct-node-routes", "tunnel", "native"]),
        (
            ["--routing-mode=native", "--direct-routing-skip-unreachable"],
            ["direct-routing-skip-unreachable", "auto-direct-node-routes"],
        ),
        (["--ipv4-native-routing-cidr=fd00::/8"], ["ipv4-native-routing-cidr", "one IPv4 prefix"]),
        (["--ipv4-native-routing-cidr=10.1.2.3/8"], ["ipv4-native-routing-cidr", "10.1.2.3/8"]),
        (["--tunnel-protocol=geneve"], ["tunnel-protocol", "vxlan"]),
        (["--ipam=eni"], ["ipam", "kubernetes"]),
        (["--enable-ipv4=false"], ["enable-ipv4", "IPv4"]),
        (["--enable-ipv6=maybe"], ["enable-ipv6", "maybe"]),
        (
            [
                *("--enable-ipv6", "--enable-wireguard", "--enable-encryption-strict-mode"),
                "--encryption-strict-mode-cidr=10.0.0.0/8",
            ],
            ["encryption-strict-mode-cidr", "10.0.0.0/8", "IPv6", "enable-ipv6"],
        ),
        (["--bpf-lb-algorithm=rr"], ["bpf-lb-algorithm", "random or maglev"]),
        (["--clustermesh-sync-timeout=soon"], ["clustermesh-sync-timeout", "soon"]),
        (["--prometheus-serve-addr=9962"], ["prometheus-serve-addr", ":PORT"]),
        (["--state-dir=here"], ["state-dir", "absolute"]),
        (["--no-such-thing=1"], ["--no-such-thing"]),
        (["stray"], ["stray", "--KEY=VALUE"]),
        (["--config-dir=/nowhere/at/all"], ["config-dir", "/nowhere/at/all"]),
    ],
)
def test_a_bad_value_is_named(arguments: list[str], words: list[str]) -> None:
    """One sentence with the key, the value, and what to do."""
    with pytest.raises(ConfigError) as error:
        load(arguments, {})
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("none", TraceLevel.TRACE_ALL),
        ("lowest", TraceLevel.TRACE_OUTCOME),
        ("low", TraceLevel.TRACE_OUTCOME),
        ("medium", TraceLevel.TRACE_CHANGES),
        ("Maximum", TraceLevel.TRACE_CHANGES),
    ],
)
def test_levels_of_aggregation_by_their_names(name: str, level: TraceLevel) -> None:
    """How often and of which flags may be said too; the default is the chart's."""
    found = load(
        [
            f"--monitor-aggregation={name}",
            "--monitor-aggregation-interval=10s",
            "--monitor-aggregation-flags=syn,fin",
        ],
        {},
    )
    assert found.monitor_aggregation is level
    assert (found.monitor_aggregation_interval, found.monitor_aggregation_flags) == (10.0, 3)
    usual = load([], {})
    assert (usual.monitor_aggregation, usual.monitor_aggregation_flags) == (
        TraceLevel.TRACE_CHANGES,
        0xFF,
    )


def test_511_clusters_allow_a_higher_id() -> None:
    """The limit of an ID follows the size of the mesh."""
    config = load(["--cluster-name=a", "--cluster-id=300", "--max-connected-clusters=511"], {})
    assert config.cluster_id == 300


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("enable-wireguard", "enable-ipsec"), "both .*`isthmus encrypt migrate`"),
        (("enable-wireguard", "encryption-accepts=wireguard"), "always accepted, leave it out"),
        (("encryption-accepts=cleartext",), "use one of off, wireguard, ipsec"),
        (("enable-encryption-strict-mode", "encryption-accepts=ipsec"), "nothing encrypts"),
    ],
)
def test_kinds_of_encryption_that_cannot_be(arguments: tuple[str, ...], says: str) -> None:
    """Two kinds to send with, or a second one that is the first."""
    with pytest.raises(ConfigError, match=says):
        load([f"--{word}" for word in arguments], {})


def test_settings_say_a_stance() -> None:
    """What is sent with, and what is accepted besides."""
    assert load([], {}).stance == Stance(Kind.OFF)
    assert load(["--enable-ipsec"], {}).stance == Stance(Kind.IPSEC)
    both = load(["--enable-wireguard", "--encryption-accepts=ipsec"], {})
    assert both.stance == Stance(Kind.WIREGUARD, Kind.IPSEC)
