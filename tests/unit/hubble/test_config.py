"""Settings: where they come from, and what cannot be used."""

from pathlib import Path

import pytest

from hubble.config import ConfigError, load
from hubble.redact import Redaction


def test_flags_win_over_environment_and_that_over_files(tmp_path: Path) -> None:
    (tmp_path / "cluster-name").write_text("of-files\n")
    (tmp_path / "hubble-event-buffer-capacity").write_text("63")
    (tmp_path / "kube-proxy-replacement").write_text("true")  # somebody else's
    (tmp_path / "..data").mkdir()
    environment = {"CILIUM_HUBBLE_EVENT_BUFFER_CAPACITY": "127", "K8S_NODE_NAME": "node-7"}
    found = load([f"--config-dir={tmp_path}"], environment)
    assert (found.cluster_name, found.hubble_event_buffer_capacity) == ("of-files", 127)
    assert found.k8s_node_name == "node-7"
    flags = [f"--config-dir={tmp_path}", "--hubble-event-buffer-capacity=255"]
    assert load(flags, environment).hubble_event_buffer_capacity == 255


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--hubble-event-buffer-capacity=4096", "2\\^n-1"),
        ("--hubble-event-buffer-capacity=many", "use a number"),
        ("--hubble-event-queue-size=-1", "up to 65536"),
        ("--hubble-socket-path=hubble.sock", "absolute path"),
        ("--debug=perhaps", "true or false"),
        ("--weather=fine", "weather"),
        ("--hubble-monitor-events=drop weather", 'no event "weather": use drop'),
        ("--hubble-metrics=weather", 'no metric "weather"'),
        ("--hubble-metrics-server=:port", "HOST:PORT"),
        ("--hubble-metrics-server-enable-tls=true", "tls-cert-file is not set"),
        ("observe", "KEY=VALUE"),
        ("--config-dir=/nowhere/at/all", "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_named_with_the_remedy(argument: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load([argument], {})


def test_the_queue_is_by_cpus_unless_told() -> None:
    usual = load([], {})
    assert 1024 <= usual.queue_size <= 16384
    assert usual.hubble_event_buffer_capacity == 4095
    assert load(["--hubble-event-queue-size=500"], {}).queue_size == 500


def test_kinds_of_events_are_named() -> None:
    found = load(["--hubble-monitor-events=drop, policy-verdict agent"], {})
    assert found.hubble_monitor_events == {1, 5, 130}


def test_metrics_come_from_one_place() -> None:
    flags = ["--hubble-metrics=drop", "--hubble-dynamic-metrics-config-path=/etc/m.yaml"]
    with pytest.raises(ConfigError, match="use one of them"):
        load(flags, {})
    found = load(["--hubble-metrics-server=127.0.0.1", "--hubble-metrics=drop"], {})
    assert found.hubble_metrics_server == ("127.0.0.1", 9965)


def test_what_is_hidden_of_requests() -> None:
    """Nothing unless it is switched on; then passwords and all headers; one list of headers."""
    assert load(["--hubble-redact-http-urlquery=true"], {}).redaction is None
    assert load(["--hubble-redact-enabled=true"], {}).redaction == Redaction()
    found = load(
        [
            "--hubble-redact-enabled=true",
            "--hubble-redact-http-urlquery=true",
            "--hubble-redact-http-userinfo=false",
            "--hubble-redact-http-headers-allow=Accept,traceparent X-Request-Id",
            "--hubble-redact-kafka-apikey=true",
        ],
        {},
    ).redaction
    stays = frozenset(("accept", "traceparent", "x-request-id"))
    expected = Redaction(url_query=True, password=False, headers_allow=stays, kafka_api_key=True)
    assert found == expected
    with pytest.raises(ConfigError, match="both set: use one of them"):
        load(["--hubble-redact-http-headers-allow=a", "--hubble-redact-http-headers-deny=b"], {})
