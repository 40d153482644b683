"""Policy objects with every field that there is, from a seed; it remembers which fields it used.

Each feature has a name, and the objects that have it are known, so that a test can count what
occurs and what has something to say.
"""

from random import Random
from typing import Any

from policy.objects.read import AUDIT_ANNOTATION, Kind, Source
from tests.support.random_policies import CLUSTER, NAMESPACE

Json = dict[str, Any]
LABELS: dict[str, Json] = {
    "everything": {},
    "label": {"app": "client"},
    "other-label": {"app": "other"},
    "k8s-label": {"k8s:app": "client"},
    "any-label": {"any:app": "client"},
    "namespace": {NAMESPACE: "other"},
    "k8s-namespace": {f"k8s:{NAMESPACE}": "other", "app": "client"},
    "namespace-label": {"k8s:io.cilium.k8s.namespace.labels.team": "x"},
    "cluster": {CLUSTER: "c2"},
    "own-cluster": {CLUSTER: "default", "app": "client"},
    "reserved": {"reserved:remote-node": ""},
    "dollar": {"$host": ""},
    "foreign-source": {"cidr:app": "client"},
}
EXPRESSIONS: dict[str, Json] = {
    "in": {"key": "app", "operator": "In", "values": ["client", "other"]},
    "not-in": {"key": "app", "operator": "NotIn", "values": ["client"]},
    "exists": {"key": "app", "operator": "Exists"},
    "does-not-exist": {"key": "app", "operator": "DoesNotExist"},
    "namespace-exists": {"key": NAMESPACE, "operator": "Exists"},
    "namespace-not-in": {"key": NAMESPACE, "operator": "NotIn", "values": ["other"]},
    "namespace-does-not-exist": {"key": f"k8s:{NAMESPACE}", "operator": "DoesNotExist"},
    "namespace-label-not-in": {
        "key": "io.cilium.k8s.namespace.labels.team", "operator": "NotIn", "values": ["x"],
    },
    "cluster-exists": {"key": CLUSTER, "operator": "Exists"},
    "cluster-not-in": {"key": CLUSTER, "operator": "NotIn", "values": ["c2"]},
    "reserved-exists": {"key": "reserved:remote-node", "operator": "Exists"},
    "reserved-does-not-exist": {"key": "reserved:host", "operator": "DoesNotExist"},
}  # fmt: skip
ENTITIES = (
    "all", "world", "world-ipv4", "world-ipv6", "cluster", "host", "remote-node", "kube-apiserver",
    "health", "init", "ingress", "unmanaged", "none",
)  # fmt: skip
CIDRS = ("0.0.0.0/0", "10.0.0.0/8", "10.96.0.0/12", "192.0.2.0/24", "192.0.2.3", "::/0",
         "2001:db8::/32", "203.0.113.0/24")  # fmt: skip
HOLES: dict[str, Json] = {
    "hole": {"cidr": "10.0.0.0/8", "except": ["10.96.0.0/12"]},
    "two-holes": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "192.0.2.0/24"]},
    "hole-in-6": {"cidr": "::/0", "except": ["2001:db8::/32"]},
    "hole-around": {"cidr": "192.0.2.0/24", "except": ["192.0.2.0/16"]},
    "no-hole": {"cidr": "10.97.0.0/16"},
    "empty-holes": {"cidr": "192.0.2.0/24", "except": []},
    "group": {"cidrGroupRef": "g"},
    "group-hole": {"cidrGroupRef": "g", "except": ["10.97.0.0/16"]},
    "group-missing": {"cidrGroupRef": "none"},
    "group-selector": {"cidrGroupSelector": {"matchLabels": {"team": "x"}}},
    "groups-all": {"cidrGroupSelector": {}},
}
SERVICES: dict[str, Json] = {
    "service": {"k8sService": {"serviceName": "pods", "namespace": "default"}},
    "service-anywhere": {"k8sService": {"serviceName": "addresses"}},
    "service-missing": {"k8sService": {"serviceName": "missing", "namespace": "default"}},
    "service-selector": {"k8sServiceSelector": {"selector": {"matchLabels": {"tier": "x"}}}},
    "service-selector-there": {
        "k8sServiceSelector": {"selector": {}, "namespace": "other"},
    },
}  # fmt: skip
PORTS: dict[str, Json] = {
    "tcp": {"port": "80", "protocol": "TCP"},
    "any": {"port": "80", "protocol": "ANY"},
    "no-protocol": {"port": "53"},
    "sctp": {"port": "80", "protocol": "SCTP"},
    "zero": {"port": "0", "protocol": "UDP"},
    "zero-any": {"port": "0"},
    "range": {"port": "64", "endPort": 127, "protocol": "TCP"},
    "range-from-zero": {"port": "0", "endPort": 80, "protocol": "TCP"},
    "range-any": {"port": "81", "endPort": 8080},
    "range-backwards": {"port": "80", "endPort": 8, "protocol": "TCP"},
    "name": {"port": "http", "protocol": "TCP"},
    "name-any": {"port": "HTTP"},
    "name-wrong": {"port": "http", "protocol": "UDP"},
    "name-range": {"port": "http", "endPort": 8090, "protocol": "TCP"},
    "octal": {"port": "0120", "protocol": "TCP"},
}
TYPES: dict[str, Json] = {
    "type": {"type": 8},
    "type-name": {"type": "EchoRequest"},
    "type-zero": {"type": 0},
    "type-text": {"type": "13"},
    "type-6": {"type": "EchoRequest", "family": "IPv6"},
}
ABOVE: dict[str, Json] = {
    "http": {"rules": {"http": [{"method": "GET"}]}},
    "kafka": {"rules": {"kafka": [{"topic": "t"}]}},
    "l7": {"rules": {"l7proto": "p", "l7": [{"a": "b"}]}},
    "http-empty": {"rules": {"http": []}},
    "rules-empty": {"rules": {}},
    "sni": {"serverNames": ["a.com"]},
    "tls": {"terminatingTLS": {"secret": {"name": "s"}}},
}
KUBERNETES_PORTS: dict[str, Json] = {
    "number": {"port": 80},
    "kubernetes-name": {"port": "http"},
    "kubernetes-range": {"port": 64, "endPort": 127},
    "kubernetes-empty": {},
    "kubernetes-udp": {"port": 53, "protocol": "UDP"},
    "kubernetes-sctp": {"protocol": "SCTP"},
}
KUBERNETES_PEERS: dict[str, Json] = {
    "pods": {"podSelector": {"matchLabels": {"app": "client"}}},
    "pods-all": {"podSelector": {}},
    "namespaces-all": {"namespaceSelector": {}},
    "namespaces": {"namespaceSelector": {"matchLabels": {"team": "x"}}},
    "namespaces-not": {
        "namespaceSelector": {
            "matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["x"]}]
        }
    },
    "pods-in-namespaces": {
        "namespaceSelector": {"matchLabels": {"team": "x"}},
        "podSelector": {"matchLabels": {"app": "client"}},
    },
    "pods-anywhere": {
        "namespaceSelector": {},
        "podSelector": {
            "matchExpressions": [{"key": "app", "operator": "In", "values": ["client", "web"]}]
        },
    },
    "block": {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.96.0.0/12"]}},
    "block-all": {"ipBlock": {"cidr": "0.0.0.0/0"}},
}
FLAGS = (None, False, True)


class Author:
    """Writes objects; the same seed writes the same. ``used``: features by the object's name."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self.used: dict[str, set[str]] = {}
        self._now: set[str] = set()

    def objects(self) -> list[Source]:
        """One to three of them."""
        return [self._object(f"p{n}") for n in range(self._random.choice((1, 1, 2, 3)))]

    def _likely(self, chance: float) -> bool:
        return self._random.random() < chance

    def _pick(self, table: dict[str, Json], kind: str) -> Json:
        name = self._random.choice(list(table))
        self._use(f"{kind}:{name}")
        return table[name]

    def _use(self, *features: str) -> None:
        self._now.update(features)

    def _object(self, name: str) -> Source:
        self._now = self.used.setdefault(name, set())
        kind = self._random.choice(list(Kind))
        notes = {}
        if self._likely(0.12):
            notes = {AUDIT_ANNOTATION: "true"}
            self._use("audit")
        namespace = "" if kind is Kind.CLUSTERWIDE else "default"
        if kind is Kind.NETWORK_POLICY:
            return Source(kind, namespace, name, self._kubernetes(), annotations=notes)
        if self._likely(0.2):
            self._use("specs")
            specs = [self._spec(kind) for _ in range(self._random.randint(1, 2))]
            first = self._spec(kind) if self._likely(0.5) else None
            return Source(kind, namespace, name, first, specs, annotations=notes)
        return Source(kind, namespace, name, self._spec(kind), annotations=notes)

    def _subject(self, kind: Kind) -> Json:
        if kind is Kind.CLUSTERWIDE and self._likely(0.3):
            self._use("nodeSelector")
            return {"nodeSelector": self._random.choice([{}, {"matchLabels": {"zone": "a"}}])}
        if kind is Kind.CLUSTERWIDE and self._likely(0.2):
            self._use("subject:init")
            return {"endpointSelector": {"matchLabels": {"reserved:init": ""}}}
        if kind is Kind.CLUSTERWIDE and self._likely(0.1):
            self._use("subject:not-init")
            term = {"key": "reserved:init", "operator": "DoesNotExist"}
            return {"endpointSelector": {"matchExpressions": [term]}}
        labels = self._random.choice([{}, {"app": "web"}, {"k8s:app": "web"}])
        return {"endpointSelector": {"matchLabels": labels} if labels else {}}

    def _spec(self, kind: Kind) -> Json:
        spec = self._subject(kind)
        for way in ("ingress", "egress"):
            for denies, chance in ((False, 0.6), (True, 0.45)):
                if self._likely(chance):
                    spec[way + "Deny" * denies] = self._rules(way, denies, "nodeSelector" in spec)
        if self._likely(0.25):
            flags = {"ingress": self._random.choice(FLAGS), "egress": self._random.choice(FLAGS)}
            spec["enableDefaultDeny"] = flags
            self._use(*(f"enableDefaultDeny.{way}:{flag}" for way, flag in flags.items()))
        if self._likely(0.1):
            self._use("remarks")
            spec |= {"description": "x", "log": {"value": "y"}, "labels": [{"key": "z"}]}
        return spec

    def _rules(self, way: str, denies: bool, on_nodes: bool) -> list[Json] | None:
        if self._likely(0.06):
            self._use("list:empty")
            return self._random.choice([[], None])
        self._use("deny" if denies else "allow")
        count = self._random.randint(1, 2)
        return [self._rule(way, denies, on_nodes) for _ in range(count)]

    def _rule(self, way: str, denies: bool, on_nodes: bool) -> Json:
        rule = self._peers("from" if way == "ingress" else "to", denies)
        if self._likely(0.05):
            self._use("peers:null")
            rule.setdefault("fromEndpoints" if way == "ingress" else "toEndpoints", None)
        match self._random.randrange(8):
            case 0:
                rule["icmps"] = [{"fields": [self._pick(TYPES, "icmp")]}]
            case 1:
                self._use("toPorts:empty")
                rule["toPorts"] = self._random.choice([[], None, [{}]])
            case 2 | 3 | 4 | 5:
                count = self._random.randint(1, 2)
                rule["toPorts"] = [self._ports(way, denies, on_nodes) for _ in range(count)]
        if not denies and self._likely(0.06):
            mode = self._random.choice(["disabled", "required"])
            self._use(f"authentication:{mode}")
            rule["authentication"] = {"mode": mode}
        return rule

    def _peers(self, prefix: str, denies: bool) -> Json:
        choice = self._random.randrange(14)
        if choice <= 3:
            return {f"{prefix}Endpoints": self._some(self._selector, "Endpoints")}
        if choice <= 5:
            return {f"{prefix}Entities": self._some(self._entity, "Entities")}
        if choice == 6:
            return {f"{prefix}CIDR": self._some(lambda: self._random.choice(CIDRS), "CIDR")}
        if choice <= 8:
            return {f"{prefix}CIDRSet": self._some(lambda: self._pick(HOLES, "set"), "CIDRSet")}
        if choice == 9:
            nodes: list[Json] = [{}, {"matchLabels": {"node:zone": "a"}}]
            return {f"{prefix}Nodes": self._some(lambda: self._random.choice(nodes), "Nodes")}
        if choice in (10, 13) and prefix == "to":
            return {"toServices": self._some(lambda: self._pick(SERVICES, "to"), "Services")}
        if choice in (10, 13):
            return {"fromRequires": self._some(self._selector, "Requires")}
        if choice == 11 and prefix == "to" and not denies:
            return {"toFQDNs": self._some(lambda: {"matchName": "a.com"}, "FQDNs")}
        if choice == 11:
            return {f"{prefix}Groups": self._some(lambda: {"aws": {"region": "x"}}, "Groups")}
        self._use("nobody-named")
        return {}

    def _some(self, make: Any, kind: str) -> list[Any]:
        if self._likely(0.12):
            self._use(f"{kind}:empty")
            return []
        self._use(kind)
        return [make() for _ in range(self._random.randint(1, 2))]

    def _entity(self) -> str:
        name = self._random.choice(ENTITIES)
        self._use(f"entity:{name}")
        return name

    def _selector(self) -> Json:
        if self._likely(0.35):
            found: Json = {"matchExpressions": [self._pick(EXPRESSIONS, "expression")]}
            if self._likely(0.3):
                found["matchLabels"] = self._pick(LABELS, "labels")
            return found
        return {"matchLabels": self._pick(LABELS, "labels")}

    def _ports(self, way: str, denies: bool, on_nodes: bool) -> Json:
        if not denies and not on_nodes and self._likely(0.2):
            return {"ports": [PORTS["tcp"]]} | self._pick(ABOVE, "above")
        if not denies and way == "egress" and self._likely(0.08):
            self._use("above:dns")
            return {"ports": [PORTS["no-protocol"]], "rules": {"dns": [{"matchPattern": "*"}]}}
        return {"ports": [self._pick(PORTS, "port") for _ in range(self._random.randint(1, 2))]}

    def _kubernetes(self) -> Json:
        selector = self._random.choice([{}, {"matchLabels": {"app": "web"}}])
        spec: Json = {"podSelector": selector}
        for way, peers in (("ingress", "from"), ("egress", "to")):
            match self._random.randrange(5):
                case 0:
                    self._use(f"kubernetes-{way}:empty")
                    spec[way] = []
                case 1 | 2 | 3:
                    self._use(f"kubernetes-{way}")
                    count = self._random.randint(1, 2)
                    spec[way] = [self._kubernetes_rule(peers) for _ in range(count)]
        if self._likely(0.5):
            types = self._random.choice([["Ingress"], ["Egress"], ["Ingress", "Egress"], []])
            self._use(f"policyTypes:{','.join(types)}")
            spec["policyTypes"] = types
        return spec

    def _kubernetes_rule(self, peers: str) -> Json:
        rule: Json = {}
        if self._likely(0.75):
            rule[peers] = self._some(lambda: self._pick(KUBERNETES_PEERS, "peer"), "from")
        if self._likely(0.6):
            rule["ports"] = self._some(
                lambda: self._pick(KUBERNETES_PORTS, "kubernetes-port"), "ports"
            )
        return rule
