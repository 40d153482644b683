"""Objects that exist from the first moment: namespaces, and the ``kubernetes`` service. Adapter."""

import logging
from dataclasses import dataclass

from kind.apiserver.api import Api
from kind.apiserver.errors import ApiError
from kind.apiserver.objects import Obj
from kind.apiserver.resources import Resource

log = logging.getLogger(__name__)
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


@dataclass(frozen=True, slots=True)
class Advertised:
    """Where pods reach this server."""

    address: str
    port: int
    service_ip: str  # the first of the service range


async def make_initial_objects(api: Api, advertised: Advertised) -> None:
    """Idempotent; the ``kubernetes`` endpoints follow the advertised address."""
    namespaces = _find(api, "", "namespaces")
    for name in NAMESPACES:
        body: Obj = {"metadata": {"name": name}}
        await _ensure(api, namespaces, "", body, replace=False)
    kind = "IPv6" if ":" in advertised.address else "IPv4"
    port = {"name": "https", "port": advertised.port, "protocol": "TCP"}
    labels = {"component": "apiserver", "provider": "kubernetes"}
    service = {
        "metadata": {"name": "kubernetes", "labels": labels},
        "spec": {
            "clusterIP": advertised.service_ip,
            "ports": [
                {"name": "https", "port": 443, "protocol": "TCP", "targetPort": advertised.port}
            ],
        },
    }
    await _ensure(api, _find(api, "", "services"), "default", service, replace=True)
    endpoints = {
        "metadata": {
            "name": "kubernetes",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{"addresses": [{"ip": advertised.address}], "ports": [port]}],
    }
    await _ensure(api, _find(api, "", "endpoints"), "default", endpoints, replace=True)
    endpoint_slice = {
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": kind,
        "endpoints": [{"addresses": [advertised.address], "conditions": {"ready": True}}],
        "ports": [port],
    }
    slices = _find(api, "discovery.k8s.io", "endpointslices")
    await _ensure(api, slices, "default", endpoint_slice, replace=True)


def _find(api: Api, group: str, plural: str) -> Resource:
    found = api.registry.find(group, "v1", plural)
    assert found is not None
    return found


async def _ensure(
    api: Api, resource: Resource, namespace: str, body: Obj, *, replace: bool
) -> None:
    name = body["metadata"]["name"]
    try:
        if replace:
            await api.modify(
                resource, namespace, name, lambda _: _fresh(body), missing=lambda: _fresh(body)
            )
        elif api.cache.get(resource.table, name) is None:
            await api.create(resource, namespace, _fresh(body))
    except ApiError as e:
        log.error("event=bootstrap_failed kind=%s name=%s error=%s", resource.kind, name, e)


def _fresh(body: Obj) -> Obj:
    return {k: dict(v) if isinstance(v, dict) else v for k, v in body.items()}
