"""The types of those fields of built-in kinds that the server itself looks at. Pure.

A body of the wrong shape is refused here with the field's path, so that defaults, checks and
controllers may rely on lists being lists. All other fields pass as they are.
"""

from kind.apiserver import schema
from kind.apiserver.errors import Cause
from kind.apiserver.objects import Obj

_TEXT: Obj = {"type": "string", "nullable": True}
_NUMBER: Obj = {"type": "integer", "nullable": True}
_TRUTH: Obj = {"type": "boolean", "nullable": True}
_ANY_MAP: Obj = {"type": "object", "nullable": True}
_PORT_OR_NAME: Obj = {"x-kubernetes-int-or-string": True, "nullable": True}


def _map(value: Obj) -> Obj:
    return {"type": "object", "nullable": True, "additionalProperties": value}


def _list(item: Obj) -> Obj:
    return {"type": "array", "nullable": True, "items": item}


def _object(**properties: Obj) -> Obj:
    """Optional and nullable, as Go reads it."""
    return {"type": "object", "nullable": True, "properties": properties}


def _item(**properties: Obj) -> Obj:
    return {"type": "object", "properties": properties}


_TEXTS = _list({"type": "string"})
_REFERENCE = _item(
    apiVersion=_TEXT,
    kind=_TEXT,
    name=_TEXT,
    uid=_TEXT,
    controller=_TRUTH,
    blockOwnerDeletion=_TRUTH,
)
_METADATA = _object(
    name=_TEXT,
    generateName=_TEXT,
    namespace=_TEXT,
    uid=_TEXT,
    resourceVersion=_TEXT,
    # The values of these two maps are judged by ``validate``, in its own words.
    labels=_ANY_MAP,
    annotations=_ANY_MAP,
    finalizers=_TEXTS,
    ownerReferences=_list(_REFERENCE),
    managedFields=_list(_item()),
)
_PROBE = _object(httpGet=_ANY_MAP, exec=_ANY_MAP, tcpSocket=_ANY_MAP, periodSeconds=_NUMBER)
_CONTAINER = _item(
    name=_TEXT,
    image=_TEXT,
    command=_TEXTS,
    args=_TEXTS,
    ports=_list(_item(name=_TEXT, containerPort=_NUMBER, hostPort=_NUMBER, protocol=_TEXT)),
    env=_list(_item(name=_TEXT, value=_TEXT, valueFrom=_object(fieldRef=_ANY_MAP))),
    volumeMounts=_list(_item(name=_TEXT, mountPath=_TEXT)),
    resources=_object(limits=_ANY_MAP, requests=_ANY_MAP),
    livenessProbe=_PROBE,
    readinessProbe=_PROBE,
    startupProbe=_PROBE,
)
_SELECTOR = _object(
    matchLabels=_map({"type": "string"}),
    matchExpressions=_list(_item(key=_TEXT, operator=_TEXT, values=_TEXTS)),
)
_TERM = _item(labelSelector=_SELECTOR, topologyKey=_TEXT, namespaces=_TEXTS)
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_NODE_TERM = _item(
    matchExpressions=_list(_item(key=_TEXT, operator=_TEXT, values=_TEXTS)),
    matchFields=_list(_item(key=_TEXT, operator=_TEXT, values=_TEXTS)),
)
_AFFINITY = _object(
    nodeAffinity=_object(**{_REQUIRED: _object(nodeSelectorTerms=_list(_NODE_TERM))}),
    podAffinity=_object(**{_REQUIRED: _list(_TERM)}),
    podAntiAffinity=_object(**{_REQUIRED: _list(_TERM)}),
)
_POD_SPEC = _object(
    containers=_list(_CONTAINER),
    initContainers=_list(_CONTAINER),
    volumes=_list(_item(name=_TEXT, configMap=_ANY_MAP, secret=_ANY_MAP, hostPath=_ANY_MAP)),
    nodeName=_TEXT,
    nodeSelector=_map({"type": "string"}),
    hostNetwork=_TRUTH,
    restartPolicy=_TEXT,
    serviceAccountName=_TEXT,
    serviceAccount=_TEXT,
    hostname=_TEXT,
    subdomain=_TEXT,
    schedulerName=_TEXT,
    terminationGracePeriodSeconds=_NUMBER,
    tolerations=_list(_item(key=_TEXT, operator=_TEXT, value=_TEXT, effect=_TEXT)),
    affinity=_AFFINITY,
    readinessGates=_list(_item(conditionType=_TEXT)),
)
_TEMPLATE = _object(metadata=_METADATA, spec=_POD_SPEC)
_CONDITIONS = _list(_item(type=_TEXT, status=_TEXT))
_ROLLING = _object(maxSurge=_PORT_OR_NAME, maxUnavailable=_PORT_OR_NAME)
_SETTLED = _object(
    conditions=_CONDITIONS, replicas=_NUMBER, readyReplicas=_NUMBER, availableReplicas=_NUMBER
)


def _workload(**more: Obj) -> Obj:
    spec = _object(
        replicas=_NUMBER,
        selector=_SELECTOR,
        template=_TEMPLATE,
        paused=_TRUTH,
        strategy=_object(type=_TEXT, rollingUpdate=_ROLLING),
        updateStrategy=_object(type=_TEXT, rollingUpdate=_ROLLING),
        revisionHistoryLimit=_NUMBER,
        **more,
    )
    return {"spec": spec, "status": _SETTLED}


_ENDPOINT_PORT = _item(name=_TEXT, port=_NUMBER, protocol=_TEXT, appProtocol=_TEXT)
_ADDRESS = _item(ip=_TEXT)
_SHAPES: dict[str, Obj] = {
    "core/pods": {
        "spec": _POD_SPEC,
        "status": _object(
            phase=_TEXT,
            podIP=_TEXT,
            conditions=_CONDITIONS,
            containerStatuses=_list(_item()),
            initContainerStatuses=_list(_item()),
        ),
    },
    "core/services": {
        "spec": _object(
            ports=_list(
                _item(
                    name=_TEXT,
                    port=_NUMBER,
                    protocol=_TEXT,
                    nodePort=_NUMBER,
                    targetPort=_PORT_OR_NAME,
                    appProtocol=_TEXT,
                )
            ),
            selector=_map({"type": "string"}),
            clusterIP=_TEXT,
            clusterIPs=_TEXTS,
            type=_TEXT,
            externalName=_TEXT,
            externalIPs=_TEXTS,
            ipFamilies=_TEXTS,
            sessionAffinity=_TEXT,
            publishNotReadyAddresses=_TRUTH,
        ),
        "status": _object(loadBalancer=_object(ingress=_list(_item(ip=_TEXT, hostname=_TEXT)))),
    },
    "core/nodes": {
        "spec": _object(
            podCIDR=_TEXT,
            podCIDRs=_TEXTS,
            unschedulable=_TRUTH,
            taints=_list(_item(key=_TEXT, value=_TEXT, effect=_TEXT)),
        ),
        "status": _object(
            conditions=_CONDITIONS,
            addresses=_list(_item(type=_TEXT, address=_TEXT)),
            daemonEndpoints=_object(kubeletEndpoint=_object(Port=_NUMBER)),
            nodeInfo=_ANY_MAP,
        ),
    },
    "core/namespaces": {"spec": _object(finalizers=_TEXTS), "status": _object(phase=_TEXT)},
    "core/configmaps": {
        "data": _map({"type": "string"}),
        "binaryData": _map({"type": "string"}),
        "immutable": _TRUTH,
    },
    "core/secrets": {
        "data": _map({"type": "string"}),
        "stringData": _map({"type": "string"}),
        "type": _TEXT,
        "immutable": _TRUTH,
    },
    "core/serviceaccounts": {"secrets": _list(_item())},
    "core/endpoints": {
        "subsets": _list(
            _item(
                addresses=_list(_ADDRESS),
                notReadyAddresses=_list(_ADDRESS),
                ports=_list(_ENDPOINT_PORT),
            )
        ),
    },
    "core/events": {
        "involvedObject": _ANY_MAP,
        "source": _ANY_MAP,
        "message": _TEXT,
        "count": _NUMBER,
    },
    "apps/deployments": _workload(),
    "apps/replicasets": _workload(),
    "apps/daemonsets": _workload(),
    "apps/statefulsets": _workload(serviceName=_TEXT, podManagementPolicy=_TEXT),
    "batch/jobs": _workload(
        completions=_NUMBER,
        parallelism=_NUMBER,
        backoffLimit=_NUMBER,
        suspend=_TRUTH,
        ttlSecondsAfterFinished=_NUMBER,
    ),
    "discovery.k8s.io/endpointslices": {
        "addressType": _TEXT,
        "ports": _list(_ENDPOINT_PORT),
        "endpoints": _list(
            _item(
                addresses=_TEXTS,
                conditions=_object(ready=_TRUTH, serving=_TRUTH, terminating=_TRUTH),
                nodeName=_TEXT,
                targetRef=_ANY_MAP,
            )
        ),
    },
    "policy/poddisruptionbudgets": {
        "spec": _object(
            selector=_SELECTOR, minAvailable=_PORT_OR_NAME, maxUnavailable=_PORT_OR_NAME
        ),
    },
    "networking.k8s.io/networkpolicies": {"spec": _object(podSelector=_SELECTOR)},
    "coordination.k8s.io/leases": {"spec": _object(holderIdentity=_TEXT)},
    "apiextensions.k8s.io/customresourcedefinitions": {
        "spec": _object(
            group=_TEXT,
            scope=_TEXT,
            names=_object(
                plural=_TEXT,
                kind=_TEXT,
                singular=_TEXT,
                listKind=_TEXT,
                shortNames=_TEXTS,
                categories=_TEXTS,
            ),
            versions=_list(
                _item(
                    name=_TEXT,
                    served=_TRUTH,
                    storage=_TRUTH,
                    schema=_object(openAPIV3Schema=_ANY_MAP),
                    subresources=_object(status=_ANY_MAP, scale=_ANY_MAP),
                    additionalPrinterColumns=_list(_item(name=_TEXT, type=_TEXT, jsonPath=_TEXT)),
                )
            ),
        ),
        "status": _object(conditions=_CONDITIONS, storedVersions=_TEXTS),
    },
}
_COMMON: Obj = {"metadata": _METADATA}


def wrong_types(table: str, obj: Obj) -> list[Cause]:
    """Every field that has not the type it must have."""
    properties = _COMMON | _SHAPES.get(table, {})
    return schema.validate(obj, {"properties": properties}, whole=True)
