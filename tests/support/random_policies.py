"""Policy objects as somebody might write them, from a seed."""

from random import Random
from typing import Any

from policy.objects.read import AUDIT_ANNOTATION, Kind, Source

NAMESPACE = "io.kubernetes.pod.namespace"
CLUSTER = "io.cilium.k8s.policy.cluster"
_EXPRESSIONS = (
    {"key": "app", "operator": "NotIn", "values": ["client"]},
    {"key": "app", "operator": "In", "values": ["client", "other"]},
    {"key": NAMESPACE, "operator": "Exists"},
    {"key": NAMESPACE, "operator": "NotIn", "values": ["other"]},
    {"key": CLUSTER, "operator": "NotIn", "values": ["c2"]},
)
_LABELS: tuple[dict[str, str], ...] = (
    {},
    {"app": "client"},
    {"app": "other"},
    {NAMESPACE: "other"},
    {CLUSTER: "c2"},
    {"reserved:remote-node": ""},
)
_ENTITIES = ("all", "world", "cluster", "host", "remote-node", "kube-apiserver", "none")
_CIDRS = ("0.0.0.0/0", "10.0.0.0/8", "10.96.0.0/12", "192.0.2.0/24", "192.0.2.3/32", "::/0")
_HOLES = (("10.0.0.0/8", "10.96.0.0/12"), ("0.0.0.0/0", "192.0.2.0/24"), ("::/0", "2001:db8::/32"))
_PORTS: tuple[dict[str, Any], ...] = (
    {"port": "80", "protocol": "TCP"},
    {"port": "80"},
    {"port": "0", "protocol": "UDP"},
    {"port": "64", "endPort": 127, "protocol": "TCP"},
    {"port": "1", "endPort": 80, "protocol": "UDP"},
    {"port": "http", "protocol": "TCP"},
    {"port": "81", "endPort": 8080},
)
_ICMPS = ({"type": 8}, {"type": 0}, {"type": 13}, {"type": 8, "family": "IPv6"})


class Writer:
    """Writes objects; the same seed writes the same."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def objects(self) -> list[Source]:
        """One to four of them, most of them about the web pod."""
        return [self._object(f"p{n}") for n in range(self._random.randint(1, 4))]

    def _likely(self, chance: float) -> bool:
        return self._random.random() < chance

    def _object(self, name: str) -> Source:
        kind = self._random.choice(list(Kind))
        notes = {AUDIT_ANNOTATION: "true"} if self._likely(0.15) else {}
        if kind is Kind.NETWORK_POLICY:
            return Source(kind, "default", name, self._kubernetes(), annotations=notes)
        namespace = "default" if kind is Kind.CILIUM else ""
        return Source(kind, namespace, name, self._cilium(), annotations=notes)

    def _cilium(self) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "endpointSelector": self._random.choice([{}, {"matchLabels": {"app": "web"}}])
        }
        for way in ("ingress", "egress"):
            if self._likely(0.75):
                spec[way] = self._rules(way, deny=False)
            if self._likely(0.6):
                spec[f"{way}Deny"] = self._rules(way, deny=True)
        if self._likely(0.2):
            spec["enableDefaultDeny"] = {"ingress": self._likely(0.5), "egress": self._likely(0.5)}
        return spec

    def _rules(self, way: str, *, deny: bool) -> list[dict[str, Any]]:
        return [self._rule(way, deny) for _ in range(self._random.randint(1, 2))]

    def _rule(self, way: str, deny: bool) -> dict[str, Any]:
        prefix = "from" if way == "ingress" else "to"
        rule: dict[str, Any] = {}
        match self._random.randrange(6):
            case 0:
                pass
            case 1 | 2:
                rule[f"{prefix}Endpoints"] = [self._selector()]
            case 3:
                rule[f"{prefix}Entities"] = self._random.sample(_ENTITIES, 1)
            case 4:
                rule[f"{prefix}CIDR"] = self._random.sample(_CIDRS, self._random.randint(1, 2))
            case _:
                cidr, hole = self._random.choice(_HOLES)
                rule[f"{prefix}CIDRSet"] = [{"cidr": cidr, "except": [hole]}]
        if self._likely(0.15):
            rule["icmps"] = [{"fields": [self._random.choice(_ICMPS)]}]
        elif self._likely(0.6):
            rule["toPorts"] = [self._ports(deny)]
        return rule

    def _ports(self, deny: bool) -> dict[str, Any]:
        if not deny and self._likely(0.1):
            port = [{"port": "80", "protocol": "TCP"}]
            return {"ports": port, "rules": {"http": [{"method": "GET"}]}}
        return {"ports": self._random.sample(_PORTS, self._random.randint(1, 2))}

    def _selector(self) -> dict[str, Any]:
        if self._likely(0.3):
            return {"matchExpressions": [self._random.choice(_EXPRESSIONS)]}
        return {"matchLabels": self._random.choice(_LABELS)}

    def _kubernetes(self) -> dict[str, Any]:
        spec: dict[str, Any] = {"podSelector": {}}
        for way, peers in (("ingress", "from"), ("egress", "to")):
            if self._likely(0.6):
                spec[way] = [self._kubernetes_rule(peers)]
        if self._likely(0.4):
            spec["policyTypes"] = self._random.sample(["Ingress", "Egress"], 1)
        return spec

    def _kubernetes_rule(self, peers: str) -> dict[str, Any]:
        rule: dict[str, Any] = {}
        match self._random.randrange(4):
            case 0:
                pass
            case 1:
                rule[peers] = [{"podSelector": {"matchLabels": {"app": "client"}}}]
            case 2:
                team = {"matchLabels": {"team": "x"}}
                rule[peers] = [{"namespaceSelector": self._random.choice([{}, team])}]
            case _:
                cidr, hole = _HOLES[0]
                rule[peers] = [{"ipBlock": {"cidr": cidr, "except": [hole]}}]
        if self._likely(0.5):
            rule["ports"] = [{"port": self._random.choice([80, "http"])}]
        return rule
