"""Values of filters that are a small language each: pods, names, nodes, labels, addresses. Pure.

Each ``*_matcher`` turns one value into a function and raises ``FilterError`` where it has no
meaning. Regular expressions are RE2, as in Hubble: linear in the length of what they search.
"""

import ipaddress
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import re2

PATTERN_MAX: Final = 4096  # characters; RE2 compiles in proportion
_PROGRAM_BYTES_MAX: Final = 4 << 20  # of one compiled expression
_HOST_CHARACTERS: Final = re2.compile(r"^[-.0-9a-z_*]+$")
_KEY: Final = re2.compile(r"^[^\s,()=!<>]+$")
_SET: Final = re2.compile(r"^([^\s,()=!<>]+)\s+(in|notin)\s*\(([^()]*)\)$")

Text = Callable[[str], bool]
Labels = Callable[[tuple[str, ...]], bool]


class FilterError(ValueError):
    """A filter that means nothing; the message names the value and what is allowed."""


def regex(pattern: str, what: str) -> Text:
    """Does the expression occur in the text?"""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PROGRAM_BYTES_MAX
    if len(pattern) > PATTERN_MAX:
        raise FilterError(f"{what}: an expression of over {PATTERN_MAX} characters")
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise FilterError(f"{what} {pattern!r}: not a regular expression (RE2): {reason}") from None
    return lambda text: bool(compiled.search(text))


def _glob(pattern: str, what: str) -> str:
    """The expression of a glob over host names, not anchored."""
    lowered = pattern.lower().removesuffix(".")
    if not lowered or len(lowered) > PATTERN_MAX or not _HOST_CHARACTERS.search(lowered):
        raise FilterError(f"{what} {pattern!r}: letters, digits, '.', '-', '_' and '*' only")
    return "".join("[-.0-9a-z]*" if c == "*" else re2.escape(c) for c in lowered)


def fqdn(pattern: str, what: str) -> Text:
    """Is the name (one trailing dot and capitals aside) what the glob describes?"""
    matches = regex(f"^{_glob(pattern, what)}$", what)
    return lambda name: matches(name.lower().removesuffix("."))


def node(pattern: str, what: str) -> Text:
    """Is it the node? ``n`` and ``/n`` in any cluster, ``c/`` any of a cluster, ``c/n`` both."""
    cluster, _, name = pattern.rpartition("/")
    if not pattern:
        raise FilterError(f"{what}: a pattern must not be empty")
    left = _glob(cluster, what) if cluster else "[^/]*"
    right = _glob(name, what) if name else ".*"
    matches = regex(f"^{left}/{right}$", what)

    def is_node(full: str) -> bool:
        return matches((full if "/" in full else f"default/{full}").lower())

    return is_node


def namespaced(pattern: str, what: str) -> Callable[[str, str], bool]:
    """Does (namespace, name) fit ``[namespace/]prefix``?

    Without a slash the namespace is ``default``, ``/prefix`` is any, ``namespace/`` all of it.
    """
    namespace, slash, prefix = pattern.partition("/")
    if not slash:
        namespace, prefix = "default", pattern
    if not pattern:
        raise FilterError(f"{what}: name must not be empty")

    def fits(its_namespace: str, name: str) -> bool:
        if not its_namespace and not name:
            return False
        return (not namespace or its_namespace == namespace) and name.startswith(prefix)

    return fits


@lru_cache(maxsize=65536)
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def address(pattern: str, what: str) -> Text:
    """Is the address this one, or in this CIDR?"""
    try:
        if "/" not in pattern:
            wanted = str(ipaddress.ip_address(pattern))
            return lambda text: text == wanted
        network = ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        raise FilterError(f"{what} {pattern!r}: neither an address nor a CIDR") from None

    def inside(text: str) -> bool:
        found = _address(text)
        return found is not None and found.version == network.version and found in network

    return inside


@lru_cache(maxsize=65536)
def _split_label(label: str) -> tuple[str, str, str]:
    """(source, key, value) of ``source:key=value``."""
    name, _, value = label.partition("=")
    source, colon, key = name.partition(":")
    return (source, key, value) if colon else ("", name, value)


def _requirement(text: str, what: str) -> Labels:
    found = _SET.search(text)
    if found:
        key, operator, values = (str(part) for part in found.groups())
        wanted = frozenset(value.strip() for value in values.split(","))
        negated = operator == "notin"
    elif "=" in text:
        negated = "!=" in text
        key, value = (part.strip() for part in text.split("!=" if negated else "=", 1))
        value = value.removeprefix("=").strip()
        wanted = frozenset((value,))
        if "=" in value or "!" in value:
            raise FilterError(f"{what} {text!r}: more than one operator")
    else:
        negated = text.startswith("!")
        key, wanted = text.removeprefix("!").strip(), frozenset()
    if not _KEY.search(key):
        raise FilterError(f"{what} {text!r}: not of the form a=b, a!=b, a in (x,y), a or !a")
    source, colon, name = key.partition(":")
    if not colon:
        source, name = "", key

    def holds(labels: tuple[str, ...]) -> bool:
        for label in labels:
            its_source, its_key, its_value = _split_label(label)
            same_key = its_key == name and source in ("", "any", its_source)
            if same_key and (not wanted or its_value in wanted):
                return not negated
        return negated

    return holds


def _parts(selector: str) -> list[str]:
    """The selector cut at commas outside of parentheses."""
    parts, depth, begin = [], 0, 0
    for place, character in enumerate(selector):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(selector[begin:place].strip())
            begin = place + 1
    parts.append(selector[begin:].strip())
    return parts


def labels(selector: str, what: str) -> Labels:
    """Do labels (``source:key=value``) satisfy the selector? A key without a source: any."""
    if len(selector) > PATTERN_MAX:
        raise FilterError(f"{what}: a selector of over {PATTERN_MAX} characters")
    if not selector.strip():
        return lambda _: True
    required = [_requirement(part, what) for part in _parts(selector)]
    return lambda its: all(holds(its) for holds in required)
