"""The kernel's side, seen beside the agent: its pinned maps and its routes. Adapter; blocking."""

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from datapath import encoding, map_names, pins, syscall
from datapath.kernel_table import KernelTable
from kind.simulate import shape as layout
from kind.simulate.agent import MAPS, PINS
from kind.simulate.churn import Effect, Table
from kind.simulate.population import Population, prefixes
from model.address import parse_address, parse_prefix, unpack
from model.service import Frontend, Protocol

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Difference:
    """How a table differs from the truth."""

    table: str
    missing: int
    wrong: int
    extra: int
    example: str

    def __str__(self) -> str:
        return (
            f"{self.table}: {self.missing} rows missing, {self.wrong} wrong, {self.extra} too many "
            f"({self.example})"
        )


class Kernel:
    """Open maps of the agent under test."""

    def __init__(self, frontends: list[str]) -> None:
        self._maps = {
            name: KernelTable(syscall.get_pinned(str(pins.map_pin(PINS, name))), name)
            for name in MAPS.values()
        }
        self._frontends = [
            Frontend(parse_address(text), layout.PORT, Protocol.TCP) for text in frontends
        ]

    def shows(self, effect: Effect) -> bool:
        """Whether the kernel has what a change asks for."""
        if effect.table is Table.SERVICES:
            assert isinstance(effect.key, int)
            return self._selectable(self._frontends[effect.key]) == effect.wanted
        assert isinstance(effect.key, bytes)
        name = map_names.IPCACHE if effect.table is Table.HOSTS else map_names.IPCACHE_PREFIXES
        return self._maps[name].get(effect.key) == effect.wanted

    def _selectable(self, frontend: Frontend) -> int:
        value = self._maps[map_names.SERVICES].get(encoding.service_key(frontend, 0))
        return 0 if value is None else encoding.ServiceRow.parse(value).selectable

    def counts(self) -> dict[str, tuple[int, int]]:
        """Rows and room of each map, by the name people use."""
        return {
            text: (sum(1 for _ in self._maps[name].rows()), self._maps[name].max_entries)
            for text, name in MAPS.items()
        }

    def differences(self, population: Population) -> list[Difference]:
        """Everything in which kernel and truth disagree."""
        truth, shape = population.truth, population.shape

        def of_hosts(key: bytes) -> bool:
            return shape.is_simulated(unpack(key))

        def of_prefixes(key: bytes) -> bool:
            return shape.is_simulated(encoding.parse_ipcache_prefix_key(key).network_address)

        hosts = {k: v for k, v in self._maps[map_names.IPCACHE].rows() if of_hosts(k)}
        shorter = {k: v for k, v in self._maps[map_names.IPCACHE_PREFIXES].rows() if of_prefixes(k)}
        found = [
            _compare("ipcache", truth.hosts, hosts, lambda k: str(unpack(k))),
            _compare(
                "ipcache prefixes",
                truth.prefixes,
                shorter,
                lambda k: str(encoding.parse_ipcache_prefix_key(k)),
            ),
            self._routes(population),
            self._services(population),
        ]
        return [d for d in found if d.missing or d.wrong or d.extra]

    def _routes(self, population: Population) -> Difference:
        text = subprocess.run(
            ["ip", "-j", "-4", "route", "show"], capture_output=True, text=True, check=True
        ).stdout
        nets = {parse_prefix(r["dst"]) for r in json.loads(text) if "/" in str(r["dst"])}
        ours = {n: b"" for n in nets if population.shape.is_simulated(n.network_address)}
        return _compare("routes", dict.fromkeys(prefixes(population), b""), ours, str)

    def _services(self, population: Population) -> Difference:
        """Backends that new connections may take, service by service."""
        rows = dict(self._maps[map_names.SERVICES].rows())
        backends = dict(self._maps[map_names.BACKENDS].rows())
        missing = extra = 0
        example = ""
        for service, wanted in enumerate(population.truth.backends):
            frontend = self._frontends[service]
            found: set[object] = set()
            for slot in range(1, self._selectable(frontend) + 1):
                row = rows.get(encoding.service_key(frontend, slot))
                backend = row and backends.get(
                    encoding.number_key(encoding.SlotRow.parse(row).backend_id)
                )
                if backend:
                    found.add(encoding.BackendRow.parse(backend).address)
            missing += len(wanted - found)
            extra += len(found - wanted)
            if wanted != found and not example:
                example = f"{frontend.address}: {len(found)} backends, {len(wanted)} wanted"
        return Difference("service backends", missing, 0, extra, example)


def _compare(
    name: str, wanted: Mapping[K, bytes], found: Mapping[K, bytes], text: Callable[[K], str]
) -> Difference:
    missing = wanted.keys() - found.keys()
    extra = found.keys() - wanted.keys()
    wrong = [k for k, v in wanted.items() if k in found and found[k] != v]
    some = next(iter((*missing, *extra, *wrong)), None)
    example = f"for example {text(some)}" if some is not None else ""
    return Difference(name, len(missing), len(wrong), len(extra), example)
