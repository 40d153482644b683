"""Ways to the stores that files name, tried step by step: what a person needs to see. Adapter."""

import asyncio
import contextlib
import hashlib
import ssl
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from kvstore import diagnose, etcd
from kvstore.config import Endpoint, StoreConfig, StoreConfigError, load_store_config
from kvstore.port import StoreError
from reconcile.tasks import TaskGroup
from wire.etcd import keys

PARALLEL = 64  # 250 clusters that do not answer take four rounds
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Way:
    """One endpoint of one file; ``error``: the file cannot be used."""

    cluster: str
    config: StoreConfig | None = None
    endpoint: Endpoint | None = None
    error: str = ""


def configured(directory: Path, wanted: Sequence[str]) -> list[Way]:
    """The ways of a directory's files, or of those ``wanted``.

    Raises ``LookupError`` when a wanted cluster has no file.
    """
    paths = sorted(directory.iterdir()) if directory.is_dir() else []
    ways: list[Way] = []
    for path in paths:
        if path.name.startswith(".") or not path.is_file() or b"endpoints:" not in _head(path):
            continue
        if not wanted or path.name in wanted:
            ways += of_file(path.name, path)
    missing = set(wanted) - {way.cluster for way in ways}
    if missing:
        raise LookupError(
            f"{directory} has no file for cluster {sorted(missing)[0]}: "
            "is it connected (`isthmus clustermesh status`)?"
        )
    return ways


def of_file(cluster: str, path: Path) -> list[Way]:
    """The ways that one file names."""
    try:
        config = load_store_config(path)
    except (StoreConfigError, OSError) as error:
        return [Way(cluster, error=str(error))]
    return [Way(cluster, config, target) for target in config.targets()]


def examine(ways: Sequence[Way], timeout_s: float) -> list[Json]:
    """Each way tried, all at once: keys ``cluster``, ``endpoint``, ``error`` (empty: it works),
    ``ms``, and ``steps``, which is for people: pairs of a subject and what was found.
    """
    with ThreadPoolExecutor(PARALLEL) as pool:
        rows = list(pool.map(lambda way: _examined(way, timeout_s), ways))
    asyncio.run(_ask_all(ways, rows, timeout_s))
    return rows


def text(rows: Sequence[Json], verbose: bool) -> str:
    """As a person reads it: a line for each way, or with ``verbose`` each step, too."""
    lines = []
    for row in rows:
        result = f"error: {row['error']}" if row["error"] else f"ok ({row['ms']} ms)"
        lines.append("   ".join(filter(None, (row["cluster"], row["endpoint"], result))))
        if verbose:
            lines += [f"    {subject}: {found}" for subject, found in row.get("steps", ())]
    return "\n".join(lines) or "No other cluster is configured."


def reach(place: str, timeout_s: float) -> Json:
    """Greet ``address:port``; whose certificate is shown is not judged: we have no CA of theirs."""
    row: Json = {"cluster": "", "endpoint": place, "error": ""}
    began = time.monotonic()
    try:
        address, _, port = place.rpartition(":")
        endpoint = Endpoint(address.strip("[]"), int(port), True, address.strip("[]"))
        shown = diagnose.shown_certificate(endpoint, timeout_s)
    except ssl.SSLError as error:
        row["error"] = f"what listens there does not speak TLS ({error.reason or error})"
    except (OSError, ValueError) as error:
        row["error"] = str(getattr(error, "strerror", None) or error)
    else:
        row["certificate"] = hashlib.sha256(shown).hexdigest()
    row["ms"] = round((time.monotonic() - began) * 1e3, 1)
    return row


def _examined(way: Way, timeout_s: float) -> Json:
    if way.config is None or way.endpoint is None:
        return {"cluster": way.cluster, "endpoint": "", "error": way.error, "ms": 0.0, "steps": []}
    began = time.monotonic()
    found = diagnose.shake_hands(way.config, way.endpoint, timeout_s)
    steps = list(_own_certificates(way.config))
    if found.peer:
        steps.append(("TCP connection", f"{found.peer} after {found.connected_ms} ms"))
        steps += _server_certificate(way.endpoint, timeout_s)
    if found.version:
        steps.append(("TLS", found.version))
    ms = round((time.monotonic() - began) * 1e3, 1)
    place = way.endpoint.authority
    return {
        "cluster": way.cluster,
        "endpoint": place,
        "error": found.error,
        "ms": ms,
        "steps": steps,
    }


async def _ask_all(ways: Sequence[Way], rows: Sequence[Json], timeout_s: float) -> None:
    gate = asyncio.Semaphore(PARALLEL)

    async def one(way: Way, row: Json) -> None:
        if row["error"] or way.config is None or way.endpoint is None:
            return
        async with gate:
            began = time.monotonic()
            try:
                async with asyncio.timeout(timeout_s):
                    row["steps"] += await _ask(way.config, way.endpoint)
            except TimeoutError:
                row["error"] = f"what listens there does not answer as etcd within {timeout_s:g} s"
            except OSError as error:
                row["error"] = f"the store does not answer: {error}"
            row["ms"] = round(row["ms"] + (time.monotonic() - began) * 1e3, 1)

    async with TaskGroup() as tasks:
        for way, row in zip(ways, rows, strict=True):
            tasks.create_task(one(way, row))


async def _ask(config: StoreConfig, endpoint: Endpoint) -> list[tuple[str, str]]:
    store = etcd.EtcdStore(endpoint, config)
    try:
        beat = await store.get(keys.HEARTBEAT)
        version = ""
        with contextlib.suppress(StoreError):  # a front of the store lets reading pass only
            version = f", version {(await store.status()).version}"
        when = beat.value.decode(errors="replace") if beat else "none: nobody publishes here"
        return [("etcd", f"cluster {store.cluster_id:x}{version}"), ("Heartbeat", when)]
    finally:
        await store.close()


def _own_certificates(config: StoreConfig) -> Iterator[tuple[str, str]]:
    for what, path in (("Authority", config.ca_file), ("Our certificate", config.cert_file)):
        if not path:
            continue
        try:
            for certificate in x509.load_pem_x509_certificates(Path(path).read_bytes()):
                yield what, described(certificate)
        except (OSError, ValueError) as error:
            yield what, f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"


def _server_certificate(endpoint: Endpoint, timeout_s: float) -> Iterator[tuple[str, str]]:
    if not endpoint.secure:
        return
    try:
        shown = diagnose.shown_certificate(endpoint, timeout_s)
        if shown:
            yield "Its certificate", described(x509.load_der_x509_certificate(shown))
    except (OSError, ValueError) as error:
        yield "Its certificate", f"not shown: {error}"


def described(certificate: x509.Certificate) -> str:
    """Subject, issuer, serial number, names, validity."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = ", ".join(str(name.value) for name in extension.value)
    except x509.ExtensionNotFound:
        names = ""
    until, now = certificate.not_valid_after_utc, datetime.now(UTC)
    state = "expired" if until < now else "good until"
    if certificate.not_valid_before_utc > now:
        state = f"not valid before {certificate.not_valid_before_utc:%F %T} UTC, until"
    parts = [
        certificate.subject.rfc4514_string(),
        f"issued by {certificate.issuer.rfc4514_string()}",
        f"serial {certificate.serial_number:x}",
        *([f"for {names}"] if names else []),
        f"{state} {until:%F %T} UTC",
    ]
    return ", ".join(parts)


def _head(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
