"""What policy objects say of a packet, read from their YAML alone: no reader, no rules, no rows.

Written from the meaning of the fields, and slow: peers are sets of labels and an address, every
field of every object is looked at for every packet. Readers, computation and maps are held against
it (`tests/property/test_policy_yaml.py`). Objects are valid; an invalid one is said to be so.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Json = Any
NAMESPACE, CLUSTER = "io.kubernetes.pod.namespace", "io.cilium.k8s.policy.cluster"
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels"
WORLDS = ("world", "world-ipv4", "world-ipv6")
ROLES = ("host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver")
NUMBERS = {"TCP": 6, "UDP": 17, "SCTP": 132}
ICMP_NAMES = {"EchoRequest": 8, "EchoReply": 0, "TimeExceeded": 11}
ABOVE_PORTS = ("serverNames", "terminatingTLS", "originatingTLS", "listener")


@dataclass(frozen=True)
class Thing:
    """An object: ``specs`` are all of its specs."""

    kind: str  # CNP, CCNP or NP
    specs: tuple[Json, ...]
    audit: bool = False
    invalid: bool = False


@dataclass(frozen=True)
class Peer:
    """Labels as ``source:key=value``; an address if it is outside of the clusters."""

    labels: frozenset[str]
    address: str = ""

    def values(self, key: str) -> list[str]:
        """Of a key as selectors write it, whatever its source if it names none."""
        source, colon, name = ("reserved", ":", key[1:]) if key[0] == "$" else key.partition(":")
        if not colon:
            source, name = "any", key
        split = (label.partition(":")[::2] for label in self.labels)
        pairs = ((s, *rest.partition("=")[::2]) for s, rest in split)
        return [value for s, k, value in pairs if k == name and source in ("any", s)]

    def has(self, reserved: str) -> bool:
        return f"reserved:{reserved}=" in self.labels


@dataclass(frozen=True)
class World:
    """What objects may name, and the settings."""

    services: Mapping[tuple[str, str], tuple[dict[str, str], Json, tuple[str, ...]]] = field(
        default_factory=dict
    )  # labels, labels of pods or None, addresses
    groups: Mapping[str, tuple[dict[str, str], tuple[str, ...]]] = field(default_factory=dict)
    own_ports: Mapping[tuple[str, int], int] = field(default_factory=dict)
    pod_ports: Mapping[tuple[str, int], set[int]] = field(default_factory=dict)
    mode: str = "default"
    allow_localhost: bool = True
    literal: bool = False
    local: bool = False
    audit: bool = False
    non_default_deny: bool = True


def meets(selector: Json, peer: Peer, prefix: str = "") -> bool:
    """``matchLabels`` and ``matchExpressions``; ``prefix`` goes before every key."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if value not in peer.values(prefix + key):
            return False
    for term in selector.get("matchExpressions") or ():
        found, wanted = peer.values(prefix + term["key"]), term.get("values") or ()
        holds = {
            "In": any(v in wanted for v in found),
            "NotIn": not any(v in wanted for v in found),
            "Exists": bool(found),
            "DoesNotExist": not found,
        }[term["operator"]]
        if not holds:
            return False
    return True


def keys_of(selector: Json) -> list[tuple[str, bool]]:
    """Every key, and whether it is asked for positively."""
    found = [(key, True) for key in selector.get("matchLabels") or {}]
    return found + [
        (term["key"], term["operator"] in ("In", "Exists"))
        for term in selector.get("matchExpressions") or ()
    ]


def bare(key: str) -> str:
    return key.partition(":")[2] if ":" in key else key


class Judge:
    """``subject`` is a pod of namespace ``default``, or the node, whose labels are its own."""

    def __init__(self, things: list[Thing], world: World, subject: Peer, on_node: bool) -> None:
        self.things, self.world, self.subject, self.on_node = things, world, subject, on_node

    def verdict(self, way: str, peer: Peer, protocol: int, port: int) -> str:
        """``allow``, ``audit``, ``drop`` (nobody allows) or ``deny`` (somebody forbids)."""
        world = self.world
        if world.mode == "never":
            return "allow"
        mine = [(t, s) for t in self.things for s in t.specs if self.is_subject(t, s)]
        said = [
            (word, thing.audit or world.audit)
            for thing, spec in mine
            for word in self.words(thing, spec, way, peer, protocol, port)
        ]
        if ("deny", False) in said:
            return "deny"
        allowed = any(word == "allow" for word, _ in said)
        if way == "ingress" and peer.has("host") and world.allow_localhost and not self.on_node:
            allowed = True
        is_init = self.subject.has("init")
        always = (world.mode == "always" or is_init) and not self.on_node
        shut = ("shut", False) in said or (always and not world.audit)
        if shut and not allowed:
            return "drop"
        on_paper = ("deny", True) in said
        on_paper = on_paper or (not allowed and (("shut", True) in said or always))
        return "audit" if on_paper else "allow"

    def is_subject(self, thing: Thing, spec: Json) -> bool:
        if thing.kind == "NP":
            at_home = self.subject.values(f"k8s:{NAMESPACE}") == ["default"]
            return not self.on_node and at_home and meets(spec["podSelector"], self.subject, "k8s:")
        if "nodeSelector" in spec or self.on_node:
            both = "nodeSelector" in spec and self.on_node
            return both and meets(spec["nodeSelector"], self.subject)
        if thing.kind == "CNP" and self.subject.values(f"k8s:{NAMESPACE}") != ["default"]:
            return False
        return meets(spec["endpointSelector"], self.subject)

    def words(
        self, thing: Thing, spec: Json, way: str, peer: Peer, protocol: int, port: int
    ) -> Iterator[str]:
        """``shut`` (default deny), ``allow``, ``deny``."""
        if thing.invalid:
            yield from ("deny", "shut")
            return
        if thing.kind == "NP":
            yield from self.kubernetes(spec, way, peer, protocol, port)
            return
        rules = [(r, False) for r in spec.get(way) or ()]
        rules += [(r, True) for r in spec.get(f"{way}Deny") or ()]
        switch = (spec.get("enableDefaultDeny") or {}).get(way)
        if rules and not (switch is False and self.world.non_default_deny):
            yield "shut"
        for rule, denies in rules:
            yield from self.rule(thing, spec, rule, way, denies, peer, protocol, port)

    def rule(
        self, thing: Thing, spec: Json, rule: Json, way: str, denies: bool, peer: Peer,
        protocol: int, port: int,
    ) -> Iterator[str]:  # fmt: skip
        prefix = "from" if way == "ingress" else "to"
        required = rule.get(f"{prefix}Requires") or ()
        in_a_pod = bool(peer.values(f"k8s:{NAMESPACE}"))
        for selector in required:
            # Pods that miss one of its conditions, those that are implied among them.
            if in_a_pod and not self.is_endpoint(thing, spec, selector, peer, required=True):
                yield "deny"
        items = [i for i in rule.get("toPorts") or ()]
        types = [f for i in rule.get("icmps") or () for f in i.get("fields") or ()]
        has_ports = bool(items or rule.get("icmps"))
        who = self.who(thing, spec, rule, prefix, peer, has_ports, denies)
        if who is None:
            who = has_ports  # nobody was named: with ports anybody, else nobody
        if not who:
            return
        authentication = (rule.get("authentication") or {}).get("mode", "disabled")
        word = "deny" if denies or authentication != "disabled" else "allow"
        if not has_ports or any(self.is_type(t, protocol, port) for t in types):
            yield word
        for item in items:
            if any(self.is_port(p, way, protocol, port) for p in item.get("ports") or ()):
                above = any(item.get(name) for name in ABOVE_PORTS)
                above = above or any(v for k, v in (item.get("rules") or {}).items()
                                     if k != "l7proto")  # fmt: skip
                yield "deny" if above and not denies else word

    def who(
        self, thing: Thing, spec: Json, rule: Json, prefix: str, peer: Peer, has_ports: bool,
        denies: bool,
    ) -> bool | None:  # fmt: skip
        """Whether the peer is meant; ``None``: no field says who."""
        literal = self.world.literal
        found: list[bool] = []
        for name, is_one in (
            ("Endpoints", lambda s: self.is_endpoint(thing, spec, s, peer)),
            ("CIDR", lambda c: inside(c, peer)),
            ("CIDRSet", lambda c: self.is_in_set(c, peer)),
            ("Entities", lambda e: is_entity(e, peer)),
            ("Nodes", lambda s: peer.has("remote-node") and meets(s, peer)),
            ("Groups", lambda g: False),
        ):
            if rule.get(prefix + name) is not None:
                found.append(any(is_one(item) for item in rule[prefix + name]))
        if rule.get(f"{prefix}Requires") is not None and not literal:
            found.append(False)
        names = rule.get("toFQDNs")
        if names or (names is not None and not literal):
            found.append(False)
        services = rule.get("toServices")
        if services or (services is not None and not literal):
            parts = [part for s in services for part in self.behind(s)]
            if not parts and literal and has_ports and not denies:
                found.append(True)
            found.append(any(self.is_behind(part, peer) for part in parts))
        return any(found) if found else None

    def is_endpoint(
        self, thing: Thing, spec: Json, selector: Json, peer: Peer, required: bool = False
    ) -> bool:
        keys = keys_of(selector)
        reserved = any(k.startswith(("reserved:", "$")) for k, _ in keys)
        named = [p for k, p in keys if k in (NAMESPACE, f"k8s:{NAMESPACE}", f"any:{NAMESPACE}")]
        labelled = [p for k, p in keys if bare(k).startswith(NAMESPACE_LABELS)]
        if not meets(selector, peer):
            return False
        if reserved and not required:
            return True
        namespaces = peer.values(f"k8s:{NAMESPACE}")
        free = named or (labelled and thing.kind == "CNP")
        if thing.kind == "CNP" and not free and namespaces != ["default"]:
            return False
        about_init = any(
            k in ("reserved:init", "$init") and positive
            for k, positive in keys_of(spec.get("endpointSelector") or {})
        )
        if thing.kind == "CCNP" and not named and not about_init and not namespaces:
            return False
        if free and not any(named + labelled) and not self.world.literal and not namespaces:
            return False
        return reserved or self.is_local(keys, peer)

    def is_local(self, keys: list[tuple[str, bool]], peer: Peer) -> bool:
        if not self.world.local or any(bare(k) == CLUSTER for k, _ in keys):
            return True
        return peer.values(f"k8s:{CLUSTER}") == ["default"]

    def is_in_set(self, item: Json, peer: Peer) -> bool:
        if any(inside(hole, peer) for hole in item.get("except") or ()):
            return False
        if "cidr" in item:
            return inside(item["cidr"], peer)
        for name, (labels, prefixes) in self.world.groups.items():
            chosen = name == item.get("cidrGroupRef")
            if "cidrGroupSelector" in item:
                own = Peer(frozenset(f"cidrgroup:{k}={v}" for k, v in labels.items()))
                chosen = meets(item["cidrGroupSelector"], own)
            if chosen and any(inside(p, peer) for p in prefixes):
                return True
        return False

    def behind(self, item: Json) -> Iterator[tuple[str, Json]]:
        """What a service stands for: ``(namespace, labels of pods)`` or ``("", address)``."""
        chosen = item.get("k8sService") or item["k8sServiceSelector"]
        for (namespace, name), (labels, pods, addresses) in self.world.services.items():
            if chosen.get("namespace", "") not in ("", namespace):
                continue
            if "serviceName" in chosen and chosen["serviceName"] != name:
                continue
            own = Peer(frozenset(f"k8s:{k}={v}" for k, v in labels.items()))
            if "selector" in chosen and not meets(chosen["selector"], own):
                continue
            if pods is not None:
                yield namespace, pods
            else:
                yield from (("", address) for address in addresses)

    def is_behind(self, part: tuple[str, Json], peer: Peer) -> bool:
        namespace, what = part
        if not namespace:
            return inside(what, peer)
        at_home = peer.values(f"k8s:{NAMESPACE}") == [namespace]
        return at_home and meets({"matchLabels": what}, peer, "k8s:")

    def is_port(self, item: Json, way: str, protocol: int, port: int) -> bool:
        name = item.get("protocol") or "ANY"
        if protocol not in ([NUMBERS[name]] if name != "ANY" else NUMBERS.values()):
            return False
        text = str(item["port"])
        if text.isdigit():
            first = int(text, 8 if len(text) > 1 and text[0] == "0" else 10)
        else:
            own = self.world.own_ports.get((text.lower(), protocol))
            numbers = {own} - {None} if way == "ingress" else set(
                self.world.pod_ports.get((text.lower(), protocol), ()))  # fmt: skip
            if len(numbers) != 1:
                return False
            (found,) = numbers
            assert found is not None
            first = found
        end = item.get("endPort") or 0
        if first == 0 and not end:
            return True
        return first <= port <= max(first, end)

    def is_type(self, item: Json, protocol: int, number: int) -> bool:
        if protocol != (58 if item.get("family") == "IPv6" else 1):
            return False
        names = {"EchoRequest": 128, "EchoReply": 129} if protocol == 58 else ICMP_NAMES
        wanted = names[item["type"]] if item["type"] in names else int(item["type"])
        return wanted in (0, number)

    def kubernetes(
        self, spec: Json, way: str, peer: Peer, protocol: int, port: int
    ) -> Iterator[str]:
        rules, types = spec.get(way) or [], spec.get("policyTypes") or []
        isolated = "Ingress" in types or "Egress" not in types
        if way == "egress":
            isolated = "Egress" in types
        if rules or isolated:
            yield "shut"
        for rule in rules:
            ports = rule.get("ports") or []
            peers = rule.get("from" if way == "ingress" else "to") or []
            if peers and not any(self.is_kubernetes_peer(p, peer) for p in peers):
                continue
            if not ports or any(self.is_kubernetes_port(p, way, protocol, port) for p in ports):
                yield "allow"

    def is_kubernetes_peer(self, item: Json, peer: Peer) -> bool:
        if "ipBlock" in item:
            return self.is_in_set(item["ipBlock"], peer)
        pods, places = item.get("podSelector"), item.get("namespaceSelector")
        namespaces = peer.values(f"k8s:{NAMESPACE}")
        keys: list[tuple[str, bool]] = keys_of(pods or {})
        if places is None:
            if namespaces != ["default"]:
                return False
        else:
            about = keys_of(places)
            if not meets(places, peer, f"k8s:{NAMESPACE_LABELS}."):
                return False
            leaks = self.world.literal and about and not any(p for _, p in about)
            if not namespaces and not leaks:
                return False
        return meets(pods or {}, peer, "k8s:") and self.is_local(keys, peer)

    def is_kubernetes_port(self, item: Json, way: str, protocol: int, port: int) -> bool:
        whole = {"port": str(item.get("port", "0")), "protocol": item.get("protocol") or "TCP"}
        return self.is_port(item | whole, way, protocol, port)


def inside(prefix: str, peer: Peer) -> bool:
    """Only what is outside of the clusters is in a prefix."""
    if not peer.address:
        return False
    network, address = ip_network(prefix, strict=False), ip_address(peer.address)
    return network.version == address.version and address in network


def is_entity(name: str, peer: Peer) -> bool:
    match name:
        case "all":
            return True
        case "none":
            return False
        case "world":
            return any(peer.has(world) for world in WORLDS)
        case "world-ipv4":
            return bool(peer.address) and ":" not in peer.address
        case "world-ipv6":
            return ":" in peer.address
        case "cluster":
            own = peer.values(f"k8s:{CLUSTER}") == ["default"]
            return own or any(peer.has(role) for role in ROLES)
    return peer.has(name)
