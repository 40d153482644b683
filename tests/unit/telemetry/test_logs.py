"""Log lines: two forms of the same, one line each, no secret in any."""

import io
import json
import logging

import pytest

from telemetry.logs import COUNTED, Formatter, LogOptions, configure, fields, parse_options, scrub


def record(message: str, *arguments: object, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("kvstore.remote", level, "f", 1, message, arguments, None)


def test_text_and_json_say_the_same() -> None:
    """Pairs of the message are fields; the sentence is ``msg``; level and subsystem are told."""
    said = record('event=lost cluster=%s error="%s": try again', "beta", "no way, at all")
    assert Formatter("text").format(said) == (
        'level=info subsys=kvstore.remote event=lost cluster=beta error="no way, at all": try again'
    )
    assert json.loads(Formatter("json").format(said)) == {
        "event": "lost",
        "cluster": "beta",
        "error": "no way, at all",
        "msg": "try again",
        "level": "info",
        "subsys": "kvstore.remote",
    }
    stamped = json.loads(Formatter("json-ts").format(said))
    assert stamped["time"].endswith("+00:00")
    assert Formatter("text-ts").format(said).startswith("time=")


def test_nobody_makes_a_line_of_his_own() -> None:
    """A name from a peer with line breaks stays on its line; no field of ours can be replaced."""
    said = record('event=rejected why="%s"', 'x"\nlevel=error subsys=agent event=forged')
    (line,) = Formatter("text").format(said).splitlines()
    assert line.startswith("level=info ")
    (line,) = Formatter("json").format(said).splitlines()
    assert json.loads(line)["level"] == "info"


def test_an_exception_is_one_line() -> None:
    """With its traceback."""
    try:
        raise ValueError("boom\nbang")
    except ValueError as error:
        said = record("event=end")
        said.exc_info = (type(error), error, error.__traceback__)
    (line,) = Formatter("text").format(said).splitlines()
    assert "ValueError: boom" in line
    assert "ValueError: boom" in json.loads(Formatter("json").format(said))["msg"]


KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIBrn\nabc=\n-----END EC PRIVATE KEY-----"
SECRETS = [
    ("Authorization: Bearer abcdef.123456", "abcdef"),
    ("authorization: basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    (f"could not read {KEY} there", "MHcCAQ"),
    (KEY[:60], "MHcCAQ"),
    ("kubeconfig has token: s3cr3t-token here", "s3cr3t"),
    ('join-token="s3cr3t-token"', "s3cr3t"),
    ("etcd.password=hunter22", "hunter22"),
    ("client-key-data: LS0tLS1CRUdJTg==", "LS0tLS1"),
    ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln is the token", "eyJhbGci"),
    ("GET https://user:hunter22@etcd:2379/", "hunter22"),
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_secrets_are_struck_out(text: str, secret: str) -> None:
    """In either form, whichever part of a record brings them."""
    assert secret in text
    assert secret not in scrub(text)
    for form in ("text", "json"):
        line = Formatter(form).format(record("event=x error=%s", text))
        assert secret not in line
        assert "[redacted]" in line


@pytest.mark.parametrize(
    "text",
    [
        "event=start cluster=c1 token-file=/var/run/x",
        "secret cilium-clustermesh has no file c2",
        "https://127.0.0.1:2379: connection refused",
        "-----BEGIN CERTIFICATE-----",
        "lease=694d9a9d8a3c6f4b keys=1000",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Paths, addresses, numbers and words."""
    assert scrub(text) == text


def test_fields_of_odd_messages() -> None:
    """A message without pairs is ``msg``; equal signs inside text are text."""
    assert fields("just words") == {"msg": "just words"}
    assert fields('event=x q="a=b c=d" tail') == {"event": "x", "q": "a=b c=d", "msg": "tail"}
    assert fields("event=x") == {"event": "x"}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], LogOptions("text-ts", logging.INFO)),
        (["format=json"], LogOptions("json", logging.INFO)),
        (["format=json-ts,level=debug"], LogOptions("json-ts", logging.DEBUG)),
        (["format=text", "level=warn"], LogOptions("text", logging.WARNING)),
        (['{"format":"json","level":"error"}'], LogOptions("json", logging.ERROR)),
        ([""], LogOptions()),
    ],
)
def test_options(options: list[str], wanted: LogOptions) -> None:
    """As flags and as the value of a ConfigMap's key."""
    assert parse_options(options) == wanted


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("format=xml", 'format is "xml": use one of text, text-ts, json, json-ts'),
        ("level=loud", 'level is "loud": use one of'),
        ("colour=red", '"colour" is not known'),
        ("json", '"json" is not key=value'),
        ("{", "is no JSON"),
    ],
)
def test_bad_options_name_the_remedy(option: str, why: str) -> None:
    """One sentence."""
    with pytest.raises(ValueError, match=why):
        parse_options([option])


def test_a_process_speaks_in_one_form() -> None:
    """All loggers of the process, libraries included."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    try:
        configure(LogOptions("json", logging.WARNING), stream=stream)
        logging.getLogger("some.library").info("not told")
        logging.getLogger("some.library").warning("event=told token=abcdefgh")
        assert json.loads(stream.getvalue())["token"] == "[redacted]"
    finally:
        root.handlers[:], root.level = before, level
        root.setLevel(level)


def test_warnings_and_errors_are_counted() -> None:
    """By who said them, whether they are shown or not; the rest is not."""
    configure(LogOptions(), stream=io.StringIO())
    try:
        some = logging.getLogger("counted.here")
        before = dict(COUNTED.values)
        for say in (some.debug, some.info, some.warning, some.error, some.error):
            say("event=x")
        assert COUNTED.values.get(("warning", "counted.here"), 0) == 1
        assert COUNTED.values["error", "counted.here"] == 2
        assert len(COUNTED.values) == len(before) + 2
    finally:
        logging.basicConfig(force=True)
