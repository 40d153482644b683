"""What a record of a shared service offers, and in what two of them differ. Pure."""

from collections.abc import Collection, Mapping
from typing import TypeVar

from model.address import Address
from model.service import L4, SharedService

V = TypeVar("V")


def offered(shared: SharedService | None) -> dict[Address, dict[str, L4]]:
    """The backends a record lets others use."""
    if shared is None or not (shared.shared and shared.include_external):
        return {}
    return shared.backends


def changed(old: SharedService | None, new: SharedService | None) -> Collection[Address]:
    """Addresses about which one record says something else than the other."""
    found = differing(offered(old), offered(new))
    before, after = old.states if old else {}, new.states if new else {}
    if before or after:
        found = {*found, *differing(before, after)}
    here, there = old.zones if old else {}, new.zones if new else {}
    if (here or there) and here != there:
        found = {*found, *differing(here, there)}
    return found


def differing(old: Mapping[Address, V], new: Mapping[Address, V]) -> Collection[Address]:
    """Addresses that are in one only, or with another value.

    Values are mostly the same objects, so that thousands of them cost little.
    """
    if not old or not new:
        return new.keys() or old.keys()
    known = old.get
    found = [a for a, v in new.items() if (k := known(a)) is not v and k != v]
    found += set(old).difference(new)
    return found
