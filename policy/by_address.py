"""The rows that are about a pod's or a node's address, as the programs find them. Pure."""

from collections.abc import Mapping

from model.address import Prefix, host_prefix, parse_address
from model.labels import Labels
from policy.known import Options
from policy.selectors import is_inner, prefix_of


def address_of(options: Options, identity: int, text: str) -> Prefix | None:
    """A peer's address where rules of prefixes select him by it; "": it is not known."""
    return options.selected_by(identity, host_prefix(parse_address(text)) if text else None)


class ByAddress:
    """Numbers of prefixes among identities, the longest around an address first."""

    def __init__(self, options: Options, identities: Mapping[int, Labels]) -> None:
        self._options = options
        found = {
            prefix: number
            for number, labels in (identities.items() if options.cidr_modes else ())
            if is_inner(labels) and (prefix := prefix_of(labels)) is not None
        }
        self._numbers = sorted(found.items(), key=lambda item: -item[0].length)

    def number(self, identity: int, address: str) -> int | None:
        """The number whose rows are asked beside those of the identity."""
        own = address_of(self._options, identity, address) if self._numbers else None
        if own is None:
            return None
        around = (n for p, n in self._numbers if p.version == own.version and p.covers(own))
        return next(around, None)
