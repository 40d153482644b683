"""What of proxies' records nobody is to read: values become ``HUBBLE_REDACTED``. Pure.

It happens before a record comes into the ring, so no reader, export or metric has what was there.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from wire import access_log as wire

REDACTED: Final = "HUBBLE_REDACTED"


@dataclass(frozen=True, slots=True)
class Redaction:
    """What is taken out. Of headers the values; names in lower case, one of the sets is empty."""

    url_query: bool = False  # and the fragment
    password: bool = True  # of a URL
    headers_allow: frozenset[str] = frozenset()  # only these stay
    headers_deny: frozenset[str] = frozenset()  # all but these stay
    kafka_api_key: bool = False

    def record(self, record: wire.Record) -> wire.Record:
        """The record without it."""
        if record.http is not None:
            return msgspec.structs.replace(record, http=self._http(record.http))
        if record.kafka is not None and self.kafka_api_key:
            kafka = msgspec.structs.replace(record.kafka, api_key=REDACTED)
            return msgspec.structs.replace(record, kafka=kafka)
        return record

    def _http(self, http: wire.Http) -> wire.Http:
        headers = {
            name: values if self._stays(name.lower()) else [REDACTED] * len(values)
            for name, values in http.headers.items()
        }
        url = http.url
        if self.url_query:
            url = url.partition("#")[0].partition("?")[0]
        if self.password:
            url = _without_password(url)
        return msgspec.structs.replace(http, headers=headers, url=url)

    def _stays(self, header: str) -> bool:
        if self.headers_deny:
            return header not in self.headers_deny
        return header in self.headers_allow


def _without_password(url: str) -> str:
    """``scheme://user:HUBBLE_REDACTED@host``; of other texts nothing is changed."""
    scheme, slashes, rest = url.partition("//")
    if not slashes or (scheme and not scheme.endswith(":")):
        return url
    end = min((place for sign in "/?#" if (place := rest.find(sign)) >= 0), default=len(rest))
    who, at, host = rest[:end].rpartition("@")
    user, colon, _ = who.partition(":")
    if not at or not colon:
        return url
    return f"{scheme}//{user}:{REDACTED}@{host}{rest[end:]}"
