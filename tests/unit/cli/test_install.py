"""What `isthmus install` would apply, and which settings it refuses."""

from pathlib import Path
from typing import Any

import pytest

from agent.config import load
from cli import cluster, hubble_ui, install
from hubble import config as hubble_config
from hubble import relay_main


def objects(*values: str) -> list[dict[str, Any]]:
    config = install.configuration("paris", 3, values)
    return install.objects(config, "kube-system", "isthmus:9")


def one(items: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    return next(i for i in items if i["kind"] == kind and i["metadata"]["name"] == name)


@pytest.mark.parametrize(
    ("name", "number", "values", "words"),
    [
        ("a" * 33, 1, (), ("a" * 33, "33 characters", "at most 32")),
        ("Paris", 1, (), ('"Paris"', "lower-case")),
        ("-paris", 1, (), ('"-paris"', "letter or digit")),
        ("", 1, (), ("cluster name is empty",)),
        ("paris", 0, (), ("ID 0", "from 1")),
        ("paris", 256, (), ("ID 256", "1 to 255")),
        ("paris", -1, (), ("ID -1", "1 to 255")),
        ("paris", 512, ("max-connected-clusters=511",), ("ID 512", "1 to 511")),
        ("paris", 1, ("max-connected-clusters=300",), ('"300"', "255 or 511")),
        ("default", 4, (), ('"default"', "ID 4", "its own name")),
        ("paris", 1, ("mtu",), ('--set "mtu"', "key=value")),
        ("paris", 1, ("=1",), ('--set "=1"', "key=value")),
        ("paris", 1, ("routing-mode=eni",), ('routing-mode is "eni"', "tunnel, native")),
        ("paris", 1, ("autoDirectNodeRoutes=true",), ("auto-direct-node-routes", "native")),
        ("paris", 1, ("MTU=big",), ('mtu is "big"', "number")),
        ("paris", 1, ("ipv6.enabled=yes",), ('enable-ipv6 is "yes"', "true or false")),
    ],
)
def test_bad_settings(
    name: str, number: int, values: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """Each is refused in one sentence with the value and what would be right."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        install.configuration(name, number, values)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("number", "values"), [(1, ()), (255, ()), (511, ("max-connected-clusters=511",))]
)
def test_edges_of_the_numbers(number: int, values: tuple[str, ...]) -> None:
    """The smallest and the largest ID are good."""
    assert install.configuration("paris", number, values)["cluster-id"] == str(number)


def test_longest_name() -> None:
    """32 characters are good."""
    assert install.configuration("a" * 32, 1, ())["cluster-name"] == "a" * 32


def test_cluster_in_no_mesh() -> None:
    """The name `default` with ID 0 is a cluster by itself."""
    assert install.configuration("default", 0, ())["cluster-id"] == "0"


def test_chart_values_are_understood() -> None:
    """Values as charts name them become the keys of the configuration."""
    found = install.configuration("paris", 3, ("loadBalancer.algorithm=maglev", "mtu=1400"))
    assert (found["bpf-lb-algorithm"], found["mtu"]) == ("maglev", "1400")


def test_the_agent_takes_these_settings(tmp_path: Path) -> None:
    """What is installed by default is accepted by the agent's own reader, as files."""
    config = install.configuration("paris", 3, ())
    directory = tmp_path / "config-map"
    directory.mkdir()
    for key, value in config.items():
        (directory / key).write_text(value)
    parsed = load([f"--config-dir={directory}"], {})
    assert (parsed.cluster_name, parsed.cluster_id) == ("paris", 3)
    assert parsed.prometheus_serve_addr == ("0.0.0.0", 9962)


def test_names_that_other_tools_look_for() -> None:
    """Workloads, labels and containers are where the ecosystem expects them."""
    items = objects()
    agent = one(items, "DaemonSet", "cilium")
    template = agent["spec"]["template"]
    assert template["metadata"]["labels"]["k8s-app"] == "cilium"
    assert [c["name"] for c in template["spec"]["containers"]] == ["cilium-agent"]
    assert template["spec"]["hostNetwork"] is True
    with_hubble = one(objects("hubble.enabled=true"), "DaemonSet", "cilium")
    containers = with_hubble["spec"]["template"]["spec"]["containers"]
    assert [c["name"] for c in containers] == ["cilium-agent", "hubble"]
    operator = one(items, "Deployment", "cilium-operator")
    assert operator["spec"]["template"]["metadata"]["labels"]["io.cilium/app"] == "operator"
    assert one(items, "ConfigMap", "cilium-config")["data"]["cluster-name"] == "paris"


def test_rights_come_before_who_needs_them() -> None:
    """Accounts and configuration are applied before the workloads that use them."""
    kinds = [item["kind"] for item in objects()]
    first = min(kinds.index("Deployment"), kinds.index("DaemonSet"))
    assert max(i for i, k in enumerate(kinds) if k in ("ServiceAccount", "ConfigMap")) < first


def test_selectors_match_their_pods() -> None:
    """A workload whose selector does not match its template would be refused by the API server."""
    store = cluster.manifest(
        "clustermesh",
        namespace="kube-system",
        image="i",
        cluster_name="paris",
        cluster_id=3,
        max_connected=255,
        service_type="NodePort",
        port=32379,
        etcd_port=32382,
        local_port=32383,
        peer_port=32380,
        join_port=32381,
        trust="x",
    )
    for item in (*objects(), *store):
        if "template" in item.get("spec", {}):
            wanted = item["spec"]["selector"]["matchLabels"].items()
            assert wanted <= item["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize(
    "values", [(), ("hubble.enabled=true",), ("hubble.enabled=true", "hubble.relay.enabled=true")]
)
def test_every_volume_is_defined_and_used(values: tuple[str, ...]) -> None:
    """Mounts name volumes of the same pod, and no volume is left over."""
    for item in objects(*values):
        pod = item.get("spec", {}).get("template", {}).get("spec")
        if pod is None:
            continue
        mounted = {m["name"] for c in pod["containers"] for m in c.get("volumeMounts", [])}
        assert mounted == {v["name"] for v in pod["volumes"]}


def test_mesh_certificates_are_optional() -> None:
    """The agent starts before there is a mesh, and keys are readable by root alone."""
    pod = one(objects(), "DaemonSet", "cilium")["spec"]["template"]["spec"]
    volume = next(v for v in pod["volumes"] if v["name"] == "clustermesh-secrets")["projected"]
    assert [s["secret"].get("optional") for s in volume["sources"]] == [True, True, True]
    assert volume["defaultMode"] == 0o400


def test_address_of_the_api_server() -> None:
    """The agent gives pods their way to the API server's service: it is told another way itself."""
    items = objects("k8sServiceHost=192.0.2.1", "k8sServicePort=7443")
    for kind, name in (("DaemonSet", "cilium"), ("Deployment", "cilium-operator")):
        env = one(items, kind, name)["spec"]["template"]["spec"]["containers"][0]["env"]
        assert {"name": "KUBERNETES_SERVICE_HOST", "value": "192.0.2.1"} in env
        assert {"name": "KUBERNETES_SERVICE_PORT", "value": "7443"} in env


def test_every_kind_can_be_applied() -> None:
    """Each object of the manifests has a path in the API server."""
    for item in objects():
        assert cluster.resource_of(item).kind == item["kind"]


def test_hubble_metrics_are_served_and_found() -> None:
    """A list as charts take it; the port, the Service and what scrapers look for come by itself."""
    made = objects(
        "hubble.enabled=true",
        r"hubble.metrics.enabled={dns:query,drop,httpV2:labelsContext=source_ip\,source_pod}",
    )
    config = one(made, "ConfigMap", "cilium-config")["data"]
    assert config["hubble-metrics"] == "dns:query drop httpV2:labelsContext=source_ip,source_pod"
    assert config["hubble-metrics-server"] == ":9965"
    service = one(made, "Service", "hubble-metrics")
    assert service["spec"]["clusterIP"] == "None"
    assert service["metadata"]["annotations"] == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "9965",
    }
    # Prometheus' usual settings take pods that declare a port, and make labels of theirs.
    for kind, name, port, label in (
        ("DaemonSet", "cilium", 9962, {"k8s-app": "cilium"}),
        ("Deployment", "cilium-operator", 9963, {"io.cilium/app": "operator"}),
    ):
        pod = one(made, kind, name)["spec"]["template"]
        found = {"prometheus.io/scrape": "true", "prometheus.io/port": str(port)}
        assert pod["metadata"]["annotations"] == found
        assert label.items() <= pod["metadata"]["labels"].items()
        (shown,) = pod["spec"]["containers"][0]["ports"]
        assert (shown["name"], shown["containerPort"]) == ("prometheus", port)
    names = {item["metadata"]["name"] for item in objects("hubble.enabled=true")}
    assert "hubble-metrics" not in names


def test_hubble_metrics_from_a_file_and_with_tls() -> None:
    """Where the objects' files are is known."""
    config = install.configuration(
        "paris",
        3,
        (
            "hubble.metrics.dynamic.enabled=true",
            "hubble.metrics.port=19965",
            "hubble.metrics.tls.enabled=true",
        ),
    )
    path = config["hubble-dynamic-metrics-config-path"]
    assert path == "/dynamic-metrics-config/dynamic-metrics.yaml"
    assert config["hubble-metrics-server"] == ":19965"
    assert config["hubble-metrics-server-tls-cert-file"].endswith("/server.crt")


def test_hubble_exports_as_charts_name_them() -> None:
    """Filters are JSON, one behind the other or in a list."""
    config = install.configuration(
        "paris",
        3,
        (
            "hubble.export.static.enabled=true",
            "hubble.export.static.fieldMask={time,node_name,verdict}",
            'hubble.export.static.allowList={"verdict":["DROPPED","ERROR"]}',
            r'hubble.export.static.denyList={{"source_ip":["10.0.0.1"\,"10.0.0.2"]}}',
            "hubble.export.dynamic.enabled=true",
            "hubble.export.fileMaxSizeMb=3",
        ),
    )
    assert config["hubble-export-file-path"] == "/var/run/cilium/hubble/events.log"
    assert config["hubble-export-fieldmask"] == "time node_name verdict"
    assert config["hubble-export-allowlist"] == '{"verdict":["DROPPED","ERROR"]}'
    assert config["hubble-export-denylist"] == '{"source_ip":["10.0.0.1","10.0.0.2"]}'
    assert config["hubble-flowlogs-config-path"] == "/flowlog-config/flowlogs.yaml"
    assert config["hubble-export-file-max-size-mb"] == "3"
    with pytest.raises(ValueError, match="hubble-export-allowlist"):
        install.configuration("paris", 3, ("hubble.export.static.allowList={verdict}",))


def test_what_hubble_hides_as_charts_name_it() -> None:
    """The process takes it."""
    config = install.configuration(
        "paris",
        3,
        ("hubble.redact.enabled=true", "hubble.redact.http.headers.allow={traceparent,accept}"),
    )
    environment = {"CILIUM_" + key.upper().replace("-", "_"): text for key, text in config.items()}
    found = hubble_config.load((), environment).redaction
    assert found is not None
    assert found.headers_allow == {"traceparent", "accept"}


def test_hubble_refuses_what_it_could_not_start_with() -> None:
    """In its own words, before anything is applied."""
    with pytest.raises(ValueError, match='no metric "weather"'):
        install.configuration("paris", 3, ("hubble.metrics.enabled=weather",))


RELAY = ("hubble.enabled=true", "hubble.relay.enabled=true")


def test_observers_listen_with_certificates() -> None:
    """Hubble's own reader takes the settings, and the files are where the pod has them."""
    config = install.configuration("paris", 3, ("hubble.enabled=true",))
    environment = {"CILIUM_" + k.upper().replace("-", "_"): v for k, v in config.items()}
    found = hubble_config.load((), environment)
    assert found.hubble_listen_address == ("", 4244)
    agent = one(objects("hubble.enabled=true"), "DaemonSet", "cilium")["spec"]["template"]["spec"]
    hubble = next(c for c in agent["containers"] if c["name"] == "hubble")
    (mount,) = [m["mountPath"] for m in hubble["volumeMounts"] if m["name"] == "hubble-tls"]
    volume = next(v for v in agent["volumes"] if v["name"] == "hubble-tls")["projected"]
    there = {f"{mount}/{i['path']}" for s in volume["sources"] for i in s["secret"]["items"]}
    assert found.hubble_tls_cert_file is not None
    assert found.hubble_tls_key_file is not None
    wanted = found.hubble_tls_cert_file, found.hubble_tls_key_file
    assert there == {str(path) for path in (*wanted, *found.hubble_tls_client_ca_files)}


@pytest.mark.parametrize(
    ("more", "flags", "ports"),
    [
        ((), {"--disable-server-tls"}, (443, 80)),
        (("hubble.relay.tls.server.enabled=true",), set(), (443, 443)),
        (("hubble.tls.enabled=false",), {"--disable-server-tls", "--disable-client-tls"}, (80, 80)),
    ],
)
def test_the_relay_takes_its_arguments(
    more: tuple[str, ...], flags: set[str], ports: tuple[int, int]
) -> None:
    """They are parsed by its own command; the peer service has the port that they name."""
    items = objects(*RELAY, *more)
    pod = one(items, "Deployment", "hubble-relay")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    context = relay_main.serve.make_context("serve", list(container["args"]))
    assert {a for a in container["args"] if a.startswith("--disable")} == flags
    peer, relay = (one(items, "Service", name) for name in ("hubble-peer", "hubble-relay"))
    assert (peer["spec"]["ports"][0]["port"], relay["spec"]["ports"][0]["port"]) == ports
    assert context.params["peer_service"].endswith(f":{ports[0]}")
    files = [v for v in context.params.values() if isinstance(v, Path)]
    files += context.params["tls_hubble_server_ca_files"] or ()
    volume = pod["volumes"][0]["projected"]
    mount = container["volumeMounts"][0]["mountPath"]
    there = {f"{mount}/{i['path']}" for s in volume["sources"] for i in s["secret"]["items"]}
    assert {str(path) for path in files} <= there


@pytest.mark.parametrize("tls", [False, True])
def test_the_ui_has_the_well_known_form(tls: bool) -> None:
    """Names and ports as the front end's web server and people's ingresses expect them; the
    backend's arguments are taken by its own command, and reach the relay's Service."""
    more = ("hubble.ui.enabled=true", f"hubble.relay.tls.server.enabled={str(tls).lower()}")
    items = objects(*RELAY, *more)
    pod = one(items, "Deployment", "hubble-ui")["spec"]["template"]
    front, backend = pod["spec"]["containers"]
    ports = [
        (c["name"], p["name"], p["containerPort"]) for c in (front, backend) for p in c["ports"]
    ]
    assert ports == [("frontend", "http", 8081), ("backend", "grpc", 8090)]
    service = one(items, "Service", "hubble-ui")["spec"]
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    (shown,) = service["ports"]
    assert (shown["name"], shown["port"], shown["targetPort"]) == ("http", 80, 8081)
    config = one(items, "ConfigMap", "hubble-ui-nginx")["data"]["nginx.conf"]
    assert "proxy_pass http://127.0.0.1:8090;" in config
    assert "try_files $uri $uri/ /index.html;" in config
    context = hubble_ui.ui.make_context("ui", list(backend["args"]))
    assert context.params["listen_address"] == ":8090"
    server = next(a for a in backend["args"] if a.startswith("--server="))
    relay = one(items, "Service", "hubble-relay")["spec"]["ports"][0]["port"]
    assert server.endswith(f"hubble-relay.kube-system.svc.cluster.local.:{relay}")
    assert any(a.startswith("--tls") for a in backend["args"]) is tls
    mount = next(m["mountPath"] for m in backend["volumeMounts"] if m["name"] == "certs")
    (volume,) = (v["projected"] for v in pod["spec"]["volumes"] if v["name"] == "certs")
    there = {f"{mount}/{i['path']}" for s in volume["sources"] for i in s["secret"]["items"]}
    files = {a.partition("=")[2] for a in backend["args"] if a.startswith("--tls-ca")}
    assert files <= there


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("hubble.relay.enabled=true",), "hubble.enabled is not: set both"),
        (
            ("hubble.enabled=true", "hubble.ui.enabled=true"),
            "hubble.relay.enabled is not: set both",
        ),
        (("hubble.enabled=true", "hubble.tls.enabled=maybe"), "true or false"),
    ],
)
def test_hubble_settings_that_do_not_fit(values: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        install.configuration("paris", 3, values)
