"""Log lines of our processes: key=value text or JSON, one line each, without secrets. Adapter.

Messages are written as ``event=word key=value key="some text": a sentence``. Whatever a peer or a
person put into them stays on its line, and what looks like a secret is struck out.
"""

import json
import logging
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO

from telemetry.metrics import Counter

FORMATS = ("text", "text-ts", "json", "json-ts")
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
STRUCK = "[redacted]"
# What is kept of each is its first group.
_SECRETS = (
    re.compile(r"()-----BEGIN [A-Z ]*PRIVATE KEY.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.S),
    re.compile(r"(?i)\b((?:bearer|basic) )[-\w.~+/]{6,}=*"),
    re.compile(
        r"(?i)\b((?:[\w-]*token|passwd|[\w-]*password|secret|[\w-]*key-data)[=:]\s?\"?)"
        r"[^\s\"',;]{4,}"
    ),
    re.compile(r"()\beyJ[-\w]{10,}\.[-\w]+\.[-\w]*"),  # a JSON web token
    re.compile(r"(://)[^/\s:@]+:[^/\s@]+(?=@)"),  # user and password of a URL
)
_PAIR = re.compile(r'(?:^|(?<=\s))([a-z][\w.-]*)=("(?:[^"\\]|\\.)*"|[^\s"]*)')


@dataclass(frozen=True, slots=True)
class LogOptions:
    """``log-opt`` of Cluster Mesh's programs, as far as it concerns standard error."""

    format: str = "text-ts"
    level: int = logging.INFO


def parse_options(options: Iterable[str]) -> LogOptions:
    """``key=value`` texts, or one JSON object. Raises ``ValueError`` naming value and remedy."""
    found: dict[str, str] = {}
    for option in options:
        text = option.strip()
        if text.startswith("{"):
            try:
                found.update({str(k): str(v) for k, v in json.loads(text).items()})
            except ValueError as error:
                raise ValueError(f'log-opt: "{text}" is no JSON: {error}') from error
            continue
        for pair in filter(None, text.split(",")):
            key, separator, value = pair.partition("=")
            if not separator:
                raise ValueError(f'log-opt: "{pair}" is not key=value')
            found[key] = value
    unknown = sorted(found.keys() - {"format", "level"})
    if unknown:
        raise ValueError(f'log-opt: "{unknown[0]}" is not known: use format or level')
    form, level = found.get("format", "text-ts"), found.get("level", "info").lower()
    if form not in FORMATS:
        raise ValueError(f'log-opt: format is "{form}": use one of {", ".join(FORMATS)}')
    if level not in LEVELS:
        raise ValueError(f'log-opt: level is "{level}": use one of {", ".join(LEVELS)}')
    return LogOptions(form, LEVELS[level])


def scrub(text: str) -> str:
    """The text without what looks like a secret."""
    for pattern in _SECRETS:
        text = pattern.sub(lambda found: found[1] + STRUCK, text)
    return text


def fields(message: str) -> dict[str, str]:
    """The pairs of a message; what is left of it is ``msg``."""
    found: dict[str, str] = {}

    def take(match: "re.Match[str]") -> str:
        value = match[2]
        if value.startswith('"'):
            value = value[1:-1].replace('\\"', '"')
        found[match[1]] = value
        return ""

    rest = " ".join(_PAIR.sub(take, message).split()).strip(" :")
    return {**found, "msg": rest} if rest else found


class Formatter(logging.Formatter):
    """One line per record."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self._json = form.startswith("json")
        self._stamped = form.endswith("-ts")

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        message = scrub(message)
        said = {"level": record.levelname.lower(), "subsys": record.name}
        if self._stamped:
            moment = datetime.fromtimestamp(record.created, UTC)
            said = {"time": moment.isoformat(timespec="milliseconds"), **said}
        if self._json:
            return json.dumps({**fields(message), **said}, ensure_ascii=False)
        head = " ".join(f"{key}={value}" for key, value in said.items())
        return f"{head} {_on_one_line(message)}"


def _on_one_line(text: str) -> str:
    """Control characters as escapes: nobody's text makes a line of its own."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Counting(logging.Handler):
    """Counts warnings and errors, whether they are shown or not."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "warning" if record.levelno < logging.ERROR else "error"
        COUNTED.add(level, record.name)


COUNTED = Counter(("level", "subsystem"))  # of this process


def configure(options: LogOptions, *, debug: bool = False, stream: TextIO | None = None) -> None:
    """Send every record of this process to standard error in one form."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Formatter(options.format))
    level = logging.DEBUG if debug else options.level
    logging.basicConfig(level=level, handlers=[handler, Counting(logging.WARNING)], force=True)
