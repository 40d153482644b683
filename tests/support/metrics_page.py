"""A page of metrics, read as Prometheus reads it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"(?:,|$)')
_PARTS = ("_bucket", "_sum", "_count")


@dataclass
class Scraped:
    """One family."""

    kind: str
    samples: list[tuple[dict[str, str], float]] = field(default_factory=list)
    parts: set[str] = field(default_factory=set)

    def total(self, **labels: str) -> float:
        """The sum of what has these labels; of a histogram, how often it was observed."""
        return sum(value for found, value in self.samples if labels.items() <= found.items())


def parse(text: str) -> dict[str, Scraped]:
    """Families by name. What Prometheus would refuse fails here."""
    families: dict[str, Scraped] = {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in families, f"{name} twice"
            families[name] = Scraped(kind)
            continue
        if line.startswith("#"):
            continue
        found = _LINE.match(line)
        assert found, line
        name, inner, value = found[1], found[2] or "", float(found[3])
        labels = dict(_LABEL.findall(inner))
        assert ",".join(f'{k}="{v}"' for k, v in labels.items()) == inner, line
        part = next((p for p in _PARTS if name.endswith(p) and name not in families), "")
        family = families[name.removesuffix(part)]
        assert (family.kind == "histogram") == bool(part), line
        family.parts.add(part)
        if part == "_bucket":
            assert labels.pop("le")
        elif part != "_sum":
            family.samples.append((labels, value))
    return families


Wanted = Mapping[str, tuple[str, str]]  # name → type, labels separated by blanks


def check(families: Mapping[str, Scraped], prefix: str, wanted: Wanted) -> None:
    """Every wanted family is there, with its type, and each sample with exactly its labels."""
    for name, (kind, labels) in wanted.items():
        found = families.get(prefix + name)
        assert found, f"{prefix}{name} is missing"
        assert found.kind == kind, f"{prefix}{name} is a {found.kind}"
        for said, _ in found.samples:
            assert set(said) == set(labels.split()), f"{prefix}{name} has labels {sorted(said)}"
        if kind == "histogram" and found.samples:
            assert found.parts == set(_PARTS)
