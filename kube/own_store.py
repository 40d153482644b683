"""How a cluster's own agents reach its mesh store, when they read copies in it. Adapter."""

from kube import resources
from kube.connections import store_config
from kube.port import ApiError, Client

APISERVER = "clustermesh-apiserver"
KVSTOREMESH = "kvstoremesh"  # its container
LOCAL_PORT = 32383  # of the node: agents of the same cluster that read copies


async def has_kvstoremesh(api: Client, namespace: str) -> bool:
    """Whether other clusters are copied into the own store. Raises ``OSError``."""
    try:
        found = await api.get(resources.untyped(resources.DEPLOYMENTS), APISERVER, namespace)
    except ApiError as error:
        if not error.not_found:
            raise
        return False
    containers = found["spec"]["template"]["spec"]["containers"]
    return any(c["name"] == KVSTOREMESH for c in containers)


async def hosts(api: Client, namespace: str) -> tuple[str, ...]:
    """The addresses of the nodes that run the store. Raises ``OSError``."""
    pods = await api.list(
        resources.untyped(resources.PODS), namespace, label_selector=f"k8s-app={APISERVER}"
    )
    found = {p["status"]["hostIP"] for p in pods if (p.get("status") or {}).get("hostIP")}
    return tuple(sorted(found))


def config(namespace: str, at: tuple[str, ...]) -> bytes:
    """The value of every cluster's key for agents that read the copies."""
    return store_config(f"{APISERVER}.{namespace}.svc", LOCAL_PORT, at, "local-etcd-client")
