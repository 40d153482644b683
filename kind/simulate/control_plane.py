"""The agent's own cluster: an API server with the node and our global services. Adapter."""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from certs.issue import create_ca, issue
from certs.profiles import Profile
from cluster_operator.install import install_all
from kind.runtime.records import ENVIRONMENT
from kind.simulate import shape as layout
from kind.simulate.enclosure import ROOT
from kind.simulate.population import service_name
from kind.simulate.processes import START_S, Process, SimulationError, start_plain_etcd
from kube import resources
from kube.client import HttpClient
from kube.config import SERVICE_ACCOUNT, connect
from kube.port import ApiError

_API_PORT, _ETCD_PORT = 6443, 2379
_TOKEN = "simulation"
CRDS_S = 30.0


class ControlPlane:
    """The lab's API server, as a process."""

    def __init__(self) -> None:
        self.kubeconfig = ROOT / "kubeconfig"
        self.client: HttpClient | None = None

    async def start(self) -> HttpClient:
        """Start it; a client of it."""
        _, etcd = await start_plain_etcd(_ETCD_PORT)
        listen = f"127.0.0.1:{_API_PORT}"
        certificate, key = self._files(listen)
        server = Process(
            "kube-apiserver",
            [
                *(sys.executable, "-m", "kind.apiserver", f"--etcd-endpoint={etcd}"),
                f"--listen={listen}",
                f"--tls-cert={certificate}",
                f"--tls-key={key}",
                f"--token-file={ROOT / 'tokens'}",
                f"--service-cidr={layout.OWN_SERVICES}",
            ],
        )
        self.client = await connect(str(self.kubeconfig))
        await self._answers(server)
        return self.client

    def _files(self, listen: str) -> tuple[Path, Path]:
        now = datetime.now(UTC)
        authority = create_ca(now, "sim-kube-ca")
        pair = issue(authority, Profile("kube-apiserver", ("127.0.0.1",), server=True), now)
        certificate, key, ca = (ROOT / f"kube-api.{end}" for end in ("crt", "key", "ca"))
        certificate.write_bytes(pair.certificate)
        key.touch(mode=0o600)
        key.write_bytes(pair.key)
        ca.write_bytes(authority.certificate)
        (ROOT / "tokens").write_text(f'{_TOKEN},simulation,1,"system:masters"\n')
        context = {"cluster": "sim", "user": "sim"}
        server = {"server": f"https://{listen}", "certificate-authority": str(ca)}
        config: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "sim",
            "contexts": [{"name": "sim", "context": context}],
            "clusters": [{"name": "sim", "cluster": server}],
            "users": [{"name": "sim", "user": {"token": _TOKEN}}],
        }
        self.kubeconfig.write_text(json.dumps(config))
        return certificate, key

    async def _answers(self, server: Process) -> None:
        assert self.client is not None
        try:
            async with asyncio.timeout(START_S):
                while True:
                    server.check()
                    try:
                        await self.client.get(resources.NAMESPACES, "default")
                        return
                    except OSError as error:
                        if isinstance(error, ApiError) and not error.not_found:
                            raise
                        await asyncio.sleep(0.05)
        except TimeoutError:
            raise SimulationError(f"the API server does not answer:\n{server.tail()}") from None

    def mount_service_account(self) -> None:
        """What a pod has to find the API server: needs an enclosure with a /run of its own."""
        SERVICE_ACCOUNT.mkdir(parents=True)
        (SERVICE_ACCOUNT / "token").write_text(_TOKEN)
        (SERVICE_ACCOUNT / "ca.crt").write_bytes((ROOT / "kube-api.ca").read_bytes())
        os.environ.update(ENVIRONMENT)
        os.environ["KUBERNETES_SERVICE_HOST"] = "127.0.0.1"
        os.environ["KUBERNETES_SERVICE_PORT"] = str(_API_PORT)

    async def furnish(self, services: int) -> list[str]:
        """Definitions, the node and global services; the services' addresses."""
        api = self.client
        assert api is not None
        await install_all(api, CRDS_S)
        nodes = resources.untyped(resources.NODES)
        cidr = str(layout.OWN_PODS)
        node: dict[str, Any] = {
            "metadata": {"name": layout.OWN_NODE},
            "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        }
        await api.create(nodes, node)
        address = {"type": "InternalIP", "address": str(layout.OWN_IP)}
        await api.patch_status(nodes, layout.OWN_NODE, {"addresses": [address]})
        name = {"metadata": {"name": layout.NAMESPACE}}
        await api.create(resources.untyped(resources.NAMESPACES), name)
        return [await self._service(service) for service in range(services)]

    async def _service(self, service: int) -> str:
        assert self.client is not None
        port = {"name": layout.PORT_NAME, "port": layout.PORT, "targetPort": layout.TARGET_PORT}
        body = {
            "metadata": {
                "name": service_name(service),
                "annotations": {"service.cilium.io/global": "true"},
            },
            "spec": {"ports": [port]},
        }
        kind = resources.untyped(resources.SERVICES)
        made = await self.client.create(kind, body, layout.NAMESPACE)
        return str(made["spec"]["clusterIP"])
