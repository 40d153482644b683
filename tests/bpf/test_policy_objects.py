"""Objects → rules → rows → the kernel's tries: what passes is what the oracle lets pass."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import ICMP
from scapy.layers.sctp import SCTP

from model.address import parse_prefix
from policy.cidr_modes import CidrMode
from policy.known import Options
from policy.wanted import inner
from tests.bpf.conftest import furnish
from tests.support.bpf import A, Machine
from tests.support.packets import frame, from_tunnel, ip, tcp, udp
from tests.support.policy_engine import ADDRESSES, PODS, Engine, cnp
from tests.support.policy_engine import NODES as MESH_NODES
from tests.support.random_policies import Writer
from wire.bpf import layouts as w
from wire.bpf.layouts import DropReason as R

SEEDS = range(24)
NODES = {name: address for name, address in MESH_NODES.items() if name != "H"}
WHERE = {**PODS, **MESH_NODES, **ADDRESSES}
MODES = {seed: frozenset(modes) for seed, modes in enumerate(
    ([CidrMode.NODES], [CidrMode.PODS], list(CidrMode)) * 6, 100
)}  # fmt: skip
PACKETS = [
    *(f"{port}/TCP" for port in (63, 64, 80, 81, 128, 443, 8080, 8081)),
    *(f"{port}/UDP" for port in (53, 80, 81, 8080)),
    *("80/SCTP", "81/SCTP", "8/ICMP", "13/ICMP"),
]
REASONS = {
    "allow": None,
    "audit": None,
    "drop": R.DROP_POLICY_DENIED,
    "deny": R.DROP_POLICY_DENY_RULE,
}


@pytest.fixture(scope="module")
def enforcing() -> Iterator[Machine]:
    machine = Machine(changes={"config_policy": 1}).load()
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def by_address() -> Iterator[dict[frozenset[CidrMode], Machine]]:
    """Machines whose rules of prefixes select nodes, pods, or both."""
    bits = {
        CidrMode.NODES: w.PolicyCidrModes.CIDR_NODES,
        CidrMode.PODS: w.PolicyCidrModes.CIDR_PODS,
    }
    machines = {}
    for modes in set(MODES.values()):
        changes = {"config_policy": 1, "config_cidr_modes": sum(bits[mode] for mode in modes)}
        machines[modes] = Machine(changes=changes).load()
    yield machines
    for machine in machines.values():
        machine.close()


def packet(text: str, source: str, destination: str) -> Any:
    port, _, protocol = text.partition("/")
    match protocol:
        case "TCP":
            return tcp(source, destination, dport=int(port))
        case "UDP":
            return udp(source, destination, dport=int(port))
        case "SCTP":
            return frame(ip(source, destination) / SCTP(sport=4000, dport=int(port)) / bytes(8))
    return frame(ip(source, destination) / ICMP(type=int(port), id=7, seq=1) / b"abcdefgh")


def put(machine: Machine, engine: Engine) -> None:
    """The rows of the pod, and whose the addresses are."""
    machine.clear()
    furnish(machine)
    machine.policy(A.number, engine.table.rows("e"))
    for name, address in PODS.items():
        machine.remote(address, engine.numbers[name])
    for name, address in NODES.items():
        machine.remote(address, engine.numbers[name], None)
    for prefix, number in engine.prefixes.items():
        key = w.IpcachePrefixKey(prefix.length, prefix[:16]).pack()
        machine.put("ist_ipcache_lpm", key, w.IpcacheValue(bytes(16), number, 0, 0, 0).pack())
        machine.put("ist_cidr_rules", key, inner(number).to_bytes(4, sys.byteorder))


def sent(machine: Machine, name: str, text: str) -> R | None:
    """From the pod to a peer."""
    source = A.address6 if ":" in WHERE[name] else A.address
    return machine.run("from_container", packet(text, source, WHERE[name])).reason


def received(machine: Machine, name: str, text: str, engine: Engine) -> R | None:
    """From a peer to the pod, the way such a peer's packets come."""
    destination = A.address6 if ":" in WHERE[name] else A.address
    made = from_tunnel(packet(text, WHERE[name], destination))
    if name == "H":
        return machine.run("from_host", made).reason
    claimed = 6 if name in NODES else engine.numbers[name] if name in PODS else 2
    return machine.run("from_overlay", made, vni=claimed).reason


def forget_flows(machine: Machine) -> None:
    table = machine.tables["ist_ct"]
    table.remove([key for key, _ in list(table.rows())])


@pytest.mark.parametrize("seed", SEEDS)
def test_kernel_agrees_with_the_oracle(enforcing: Machine, seed: int) -> None:
    """Every peer, every packet, both directions; the reason tells a deny from default deny."""
    held_against_the_oracle(enforcing, Engine(Writer(seed).objects()))


@pytest.mark.parametrize("seed", MODES)
def test_kernel_agrees_about_addresses(
    by_address: dict[frozenset[CidrMode], Machine], seed: int
) -> None:
    """The same where rules of prefixes select nodes, pods, or both by their addresses."""
    modes = MODES[seed]
    engine = Engine(Writer(seed).objects(), options=Options(cidr_modes=modes))
    held_against_the_oracle(by_address[modes], engine)


def held_against_the_oracle(enforcing: Machine, engine: Engine) -> None:
    objects = engine.objects
    put(enforcing, engine)
    for name in WHERE:
        texts = [t for t in PACKETS if ":" not in WHERE[name] or "ICMP" not in t]
        for text in texts:
            wanted = REASONS[engine.say(f">{name}:{text}")]
            assert sent(enforcing, name, text) is wanted, (objects, name, text)
            forget_flows(enforcing)
            wanted = REASONS[engine.say(f"{name}:{text}")]
            assert received(enforcing, name, text, engine) is wanted, (objects, name, text)
            forget_flows(enforcing)


def test_the_random_objects_are_worth_it() -> None:
    """Of all that is asked a good part passes, is denied, and is dropped; some is audited."""
    found = {word: 0 for word in REASONS}
    for seed in SEEDS:
        engine = Engine(Writer(seed).objects())
        assert all(reading.valid for reading in engine.readings)
        for word in engine.say(" ".join(f"{n}:80/TCP >{n}:80/UDP" for n in WHERE)).split():
            found[word] += 1
    total = sum(found.values())
    assert all(found[word] > total * 0.05 for word in ("allow", "drop", "deny")), found
    assert found["audit"] > 0


def test_families_are_apart_in_the_kernel(enforcing: Machine) -> None:
    """``::/0`` is not the world of IPv4, although the trie has it around the mapped addresses."""
    spec = {"endpointSelector": {}, "egress": [{"toCIDR": ["::/0"]}]}
    engine = Engine([cnp(spec)])
    put(enforcing, engine)
    assert parse_prefix("0.0.0.0/0") in engine.prefixes
    assert sent(enforcing, "V6", "80/TCP") is None
    assert sent(enforcing, "Wd", "80/TCP") is R.DROP_POLICY_DENIED
