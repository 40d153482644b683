"""What a process says of the certificates it shows."""

from datetime import UTC, datetime
from pathlib import Path

from certs import check
from certs.issue import create_ca, issue
from certs.presented import presented
from certs.profiles import Profile
from kvstore.config import StoreConfig
from model.cluster import ClusterName


def test_what_the_files_hold_now(tmp_path: Path) -> None:
    """Expiry, issuer and accepted authorities; a cluster whose files are bad is left out."""
    now = datetime.now(UTC)
    ca, other = create_ca(now), create_ca(now)
    pair = issue(ca, Profile("remote", client=True), now)
    (tmp_path / "ca").write_bytes(ca.certificate + other.certificate)
    (tmp_path / "crt").write_bytes(pair.certificate)
    good = StoreConfig((), str(tmp_path / "ca"), str(tmp_path / "crt"), "")
    bad = StoreConfig((), str(tmp_path / "none"), str(tmp_path / "crt"), "")
    found = presented({ClusterName("a"): good, ClusterName("b"): bad})
    assert set(found) == {"a"}
    said = found[ClusterName("a")]
    assert said.expires == check.expires_at(pair.certificate)
    assert said.issuer == check.subject_key_id(ca.certificate)
    assert set(said.authorities) == {check.subject_key_id(c.certificate) for c in (ca, other)}
    assert said.shape()["issuer"] == said.issuer
