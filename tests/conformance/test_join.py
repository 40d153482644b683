"""`isthmus clustermesh grant` and `join` between two API servers, through the real join service.

The service is the process that runs in a cluster, with the certificate that `enable` made. What was
exchanged opens a real etcd; strangers try what strangers try.
"""

import asyncio
import base64
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from certs import signing
from certs.issue import KeyPair, create_ca, issue
from certs.profiles import SERVER_NAME, SERVER_SECRET, mesh_profiles
from clustermesh_apiserver import grants
from kvstore.config import StoreConfig, parse_store_config
from kvstore.port import StoreError
from reconcile.tasks import TaskGroup
from tests.support import kind_apiserver
from tests.support.etcd import free_port, mesh_etcd, when_up
from tests.support.mesh_pair import SYSTEM, Pair
from wire.join import BODY_LIMIT, Introduction, Join, Token, decode_token, encode_token


@dataclass
class Joinable:
    """Two clusters, and the join service of the first."""

    pair: Pair
    directory: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.directory / "join.log").read_text()

    def start(self) -> None:
        for name in ("tls.crt", "tls.key"):
            (self.directory / name).write_bytes(self.pair.secret("a", SERVER_SECRET)[name])
        argv = [sys.executable, "-m", "clustermesh_apiserver", "join", "--listen", self.place]
        argv += ["--certificate", str(self.directory)]
        argv += ["--kubeconfig", str(self.pair.servers["a"].kubeconfig)]
        with (self.directory / "join.log").open("wb") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def grant(self, *words: str) -> str:
        """A token, once the service listens for it."""
        said = self.pair.good(
            *("clustermesh", "grant", "--context", "a", "--join-endpoint", self.place, *words)
        )
        kind_apiserver.until("the service listens", self.listens)
        return said.strip()

    def listens(self) -> bool:
        async def ask() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return False
            writer.close()
            return True

        return asyncio.run(ask())

    def join(self, token: str, *words: str) -> Any:
        return self.pair.isthmus("clustermesh", "join", "--context", "b", *words, token)

    def refused(self, token: str, *words: str) -> str:
        """What a join says that must fail; neither cluster is connected afterwards."""
        before = [self.connections(name) for name in "ab"]
        done = self.join(token, *words)
        assert done.returncode == 1, done.stdout
        assert done.stderr.startswith("Error: ")
        assert "Traceback" not in done.stderr
        assert [self.connections(name) for name in "ab"] == before
        return str(done.stderr)

    def connections(self, name: str) -> dict[str, bytes]:
        found = self.pair.servers[name].get(f"{SYSTEM}/secrets/cilium-clustermesh")
        data = found.body.get("data") or {} if found.code == 200 else {}
        return {k: base64.b64decode(v) for k, v in data.items()}

    def post(self, path: str, body: bytes, context: ssl.SSLContext | None = None) -> Any:
        """A stranger's request: status and text."""

        async def ask() -> tuple[int, str]:
            tls = context or self.trusting()
            url = f"https://{self.place}{path}"
            async with (
                aiohttp.ClientSession() as session,
                session.post(url, data=body, ssl=tls, server_hostname=SERVER_NAME) as answer,
            ):
                return answer.status, await answer.text()

        return asyncio.run(ask())

    def hurry(self, path: str, body: bytes, count: int) -> list[int]:
        """Statuses of a stranger's requests, all at the same time."""

        async def ask() -> list[int]:
            url, tls = f"https://{self.place}{path}", self.trusting()
            async with aiohttp.ClientSession() as session:

                async def one() -> int:
                    sent = session.post(url, data=body, ssl=tls, server_hostname=SERVER_NAME)
                    async with sent as answer:
                        return answer.status

                async with TaskGroup() as tasks:
                    asked = [tasks.create_task(one()) for _ in range(count)]
                return [task.result() for task in asked]

        return asyncio.run(ask())

    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(
            cadata=self.pair.secret("a", "cilium-ca")["ca.crt"].decode()
        )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("join")
    (directory / "a").mkdir()
    (directory / "b").mkdir()
    with (
        kind_apiserver.cluster(directory / "a") as a,
        kind_apiserver.cluster(directory / "b") as b,
    ):
        yield Pair(directory, a=a, b=b)


@pytest.fixture
def ready(pair: Pair, tmp_path: Path) -> Iterator[Joinable]:
    pair.fresh()
    made = Joinable(pair, tmp_path, free_port())
    made.start()
    try:
        yield made
    finally:
        made.stop()


def authority(ready: Joinable, name: str) -> KeyPair:
    data = ready.pair.secret(name, "cilium-ca")
    return KeyPair(data["ca.crt"], data["ca.key"])


def test_what_is_exchanged_opens_the_other_store(ready: Joinable, tmp_path: Path) -> None:
    """Each side's credentials are let in by a real etcd that trusts its own authority alone."""
    token = ready.grant()
    done = ready.join(token)
    assert done.returncode == 0, done.stderr + ready.log
    assert "✅ Joined cluster cluster-b <=> cluster-a!" in done.stdout
    for own, other, address in (("a", "b", "192.0.2.2"), ("b", "a", "192.0.2.1")):
        data = ready.connections(own)
        name = f"cluster-{other}"
        config = parse_store_config(data[name], name)
        assert [(t.address, t.port) for t in config.targets()] == [(address, 32379)]
        files = {config.ca_file, config.cert_file, config.key_file}
        assert {Path(f).name for f in files} == data.keys() - {name}
        with mesh_etcd(name, authority(ready, other)) as etcd:
            for key, value in data.items():
                (tmp_path / key).write_bytes(value)
            local = [str(tmp_path / Path(f).name) for f in (config.ca_file, config.cert_file)]
            key = str(tmp_path / Path(config.key_file).name)
            asyncio.run(opens(StoreConfig((etcd.url,), *local, key), name))
        trust = ready.pair.secret(own, SERVER_SECRET)["ca.crt"]
        assert trust == ready.pair.secret(own, "cilium-ca")["ca.crt"], "no authority was let in"
    assert not [k for k in ready.pair.everything("b") if decode_token(token).id in k]
    ready.pair.good("clustermesh", "disconnect", "--context", "a", "--destination-context", "b")
    assert [ready.connections(name) for name in "ab"] == [{}, {}], "no key is left behind"


async def opens(config: StoreConfig, cluster: str) -> None:
    store = await when_up(config)
    try:
        await store.get(f"cilium/cluster-config/{cluster}")
        with pytest.raises(StoreError):
            await store.put("cilium/state/x", b"x")
    finally:
        await store.close()


def test_no_key_and_no_secret_is_told(ready: Joinable) -> None:
    """Neither the log, nor what the granting side keeps, has the secret; keys stay at home."""
    token = ready.grant()
    assert ready.join(token).returncode == 0
    secret = decode_token(token).secret
    kept = b"".join(ready.pair.secret("a", grants.GRANTS_SECRET).values()).decode()
    assert secret not in kept + ready.log
    keys = [{v for k, v in ready.connections(n).items() if k.endswith(".key")} for n in "ab"]
    assert len(keys[0]) == len(keys[1]) == 1
    assert not keys[0] & keys[1]
    assert "PRIVATE KEY" not in ready.log


def test_a_token_is_good_once(ready: Joinable) -> None:
    """A second request with another key is refused, and told by whom it was used."""
    token = ready.grant()
    assert ready.join(token).returncode == 0
    ready.pair.good("clustermesh", "disconnect", "--context", "a", "--destination-context", "b")
    assert "used already, by cluster cluster-b" in ready.refused(token)
    rows = json.loads(
        ready.pair.good("clustermesh", "grant", "list", "--context", "a", "-o", "json")
    )
    assert [(r["state"], r["redeemed-by"]) for r in rows][-1] == ("redeemed", "cluster-b")


def test_the_same_request_may_come_again(ready: Joinable) -> None:
    """An answer that was lost is given again: same request, same certificate, one connection."""
    text = ready.grant()
    message = bring(ready, decode_token(text))
    first = ready.post("/v1/join", msgspec.json.encode(message))
    assert first[0] == 200, first
    assert ready.post("/v1/join", msgspec.json.encode(message)) == first
    other = msgspec.structs.replace(
        message, request=signing.make_request("remote").certificate.decode()
    )
    status, said = ready.post("/v1/join", msgspec.json.encode(other))
    assert (status, "used already" in said) == (403, True)


def bring(ready: Joinable, token: Token, **change: Any) -> Join:
    """What a joining cluster would send."""
    grant = grants.parse(ready.pair.secret("a", grants.GRANTS_SECRET)).by_id[token.id]
    ca = change.pop("ca", None) or authority(ready, "b")
    now = datetime.now(UTC)
    profile = mesh_profiles("cluster-b")["clustermesh-apiserver-remote-cert"]
    cluster = Introduction(
        "cluster-b", 2, 255, "", ["10.2.0.0/24"], ["192.0.2.2"], 32379, ca.certificate.decode()
    )
    message = Join(
        token.id,
        token.secret,
        cluster,
        signing.sign_request(ca, grant.request.encode(), profile, now).decode(),
        signing.make_request("remote").certificate.decode(),
    )
    return msgspec.structs.replace(message, **change)


def test_expired_revoked_guessed_and_damaged(ready: Joinable) -> None:
    """One clear sentence each; a guesser learns nothing that a stranger does not know."""
    ready.grant("--ttl", "5m")  # keeps the port open
    short = ready.pair.good(
        *("clustermesh", "grant", "--context", "a", "--join-endpoint", ready.place),
        *("--ttl", "1s"),
    ).strip()
    token = decode_token(short)
    guess = msgspec.structs.replace(token, secret="A" * 43)
    unknown = msgspec.structs.replace(token, id="aaaaaaaaaa")
    answers = {ready.refused(encode_token(t)) for t in (guess, unknown)}
    assert len(answers) == 1
    assert "not known" in answers.pop()
    listing = ("clustermesh", "grant", "list", "--context", "a")
    kind_apiserver.until("it expires", lambda: "expired" in ready.pair.good(*listing))
    assert "has expired" in ready.refused(short)
    text = ready.grant()
    assert "damaged" in ready.refused(text[:-5])
    assert "no join token" in ready.refused("hello")
    ready.pair.good("clustermesh", "grant", "revoke", "--context", "a", "all")
    kind_apiserver.until("the port is closed", lambda: not ready.listens())
    assert "cannot be reached" in ready.refused(text)


def test_somebody_in_between_is_found(ready: Joinable, tmp_path: Path) -> None:
    """Another authority is refused before the secret is shown; so is a stolen certificate."""
    text = ready.grant()
    token = decode_token(text)
    wrong = msgspec.structs.replace(token, fingerprint="0" * 64)
    assert "another authority" in ready.refused(encode_token(wrong))
    # A liar who shows the right authority and cannot prove that he belongs to it.
    now = datetime.now(UTC)
    fake = issue(create_ca(now), mesh_profiles("cluster-a")[SERVER_SECRET], now)
    (tmp_path / "fake.crt").write_bytes(fake.certificate)
    (tmp_path / "fake.key").write_bytes(fake.key)
    with liar(tmp_path, ready.pair.secret("a", "cilium-ca")["ca.crt"]) as (port, heard):
        there = msgspec.structs.replace(token, endpoints=[f"127.0.0.1:{port}"])
        assert "cannot prove" in ready.refused(encode_token(there))
        assert token.secret not in heard()


class liar:
    """A server with a foreign certificate that hands out somebody else's authority."""

    def __init__(self, directory: Path, authority: bytes) -> None:
        self._port, self._log = free_port(), directory / "heard"
        (directory / "authority").write_bytes(authority)
        script = (
            "import ssl,sys\nfrom http.server import *\nd=sys.argv[1]\n"
            "class H(BaseHTTPRequestHandler):\n"
            "  def do_GET(s):\n"
            "    s.send_response(200); s.end_headers()\n"
            "    s.wfile.write(open(d+'/authority','rb').read())\n"
            "  def do_POST(s):\n"
            "    open(d+'/heard','ab').write(s.rfile.read(int(s.headers['Content-Length'])))\n"
            "h=HTTPServer(('127.0.0.1',int(sys.argv[2])),H)\n"
            "c=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n"
            "c.load_cert_chain(d+'/fake.crt',d+'/fake.key')\n"
            "h.socket=c.wrap_socket(h.socket,server_side=True); h.serve_forever()\n"
        )
        self._log.write_text("")
        self._argv = [sys.executable, "-c", script, str(directory), str(self._port)]

    def __enter__(self) -> Any:
        self._process = subprocess.Popen(self._argv, stderr=subprocess.DEVNULL)

        def up() -> bool:
            async def ask() -> bool:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self._port)
                except OSError:
                    return False
                writer.close()
                return True

            return asyncio.run(ask())

        kind_apiserver.until("the liar listens", up)
        return self._port, self._log.read_text

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def request(name: str, *, authority: bool = False) -> str:
    """A signing request that asks for more than it should."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if authority:
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def test_hostile_joiners(ready: Joinable) -> None:
    """With a good token: other names, an authority's rights, foreign signatures, lies, bulk."""
    token = decode_token(ready.grant())
    good = bring(ready, token)
    grant = good.cluster
    cases: list[tuple[dict[str, Any], str]] = [
        ({"request": request("admin-cluster-a")}, "only"),
        ({"request": request("root")}, "only"),
        ({"request": request("remote", authority=True)}, "extensions"),
        ({"request": "nonsense"}, "cannot be read"),
        (
            {"certificate": bring(ready, token, ca=create_ca(datetime.now(UTC))).certificate},
            "not signed",
        ),
        ({"cluster": msgspec.structs.replace(grant, name="cluster-a")}, "both clusters are named"),
        ({"cluster": msgspec.structs.replace(grant, id=1)}, "both have ID 1"),
        ({"cluster": msgspec.structs.replace(grant, max_connected=511)}, "max-connected-clusters"),
        ({"cluster": msgspec.structs.replace(grant, pod_cidrs=["10.1.0.0/25"])}, "overlap"),
        ({"cluster": msgspec.structs.replace(grant, addresses=["x]\n- y"])}, "neither an IP"),
        ({"cluster": msgspec.structs.replace(grant, name="../x")}, "not valid"),
    ]
    for change, words in cases:
        body = msgspec.json.encode(msgspec.structs.replace(good, **change))

        def answered(body: bytes = body) -> Any:
            status, said = ready.post("/v1/join", body)
            return None if status == 429 else (status, said)  # asked too fast: the bound holds

        status, said = kind_apiserver.until("an answer", answered)
        assert (status, words in said) == (403, True), (words, status, said)
        assert ready.connections("a") == {}
    status, _ = kind_apiserver.until(
        "an answer",
        lambda: (a := ready.post("/v1/join", b"x" * (BODY_LIMIT + 1)))[0] != 429 and a,
    )
    assert status == 413
    assert 429 in ready.hurry("/v1/hello", b"{}", 60)
    old = ready.trusting()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(aiohttp.ClientError):
        ready.post("/v1/hello", b"{}", old)


def test_a_granted_name_is_kept(ready: Joinable) -> None:
    """A token for another cluster is no use to this one; what is connected is not replaced."""
    assert "granted to cluster oslo" in ready.refused(ready.grant("--name", "oslo"))
    assert ready.join(ready.grant()).returncode == 0
    again = ready.grant()
    assert "already connected" in ready.refused(again)
    assert "already connected" in ready.refused(again, "--replace")
    named = ready.grant("--name", "cluster-b")
    assert ready.join(named, "--replace").returncode == 0
