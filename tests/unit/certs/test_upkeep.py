"""Certificates of Hubble: what they say, and when they are issued anew."""

from datetime import UTC, datetime, timedelta

import pytest

from certs import check
from certs.issue import KeyPair, create_ca, issue
from certs.profiles import HUBBLE_SERVER_SECRET, RELAY_CLIENT_SECRET, hubble_profiles
from certs.upkeep import renewed

NOW = datetime.now(UTC).replace(microsecond=0)
CA, NEXT = create_ca(NOW - timedelta(days=300)), create_ca(NOW)
PROFILES = hubble_profiles("eu.west")


def aged(days: int, profile: str = HUBBLE_SERVER_SECRET, ca: KeyPair = CA) -> dict[str, bytes]:
    pair = issue(ca, PROFILES[profile], NOW - timedelta(days=days))
    return dict(pair.secret_data(ca.certificate))


def test_names_have_one_label_for_any_node() -> None:
    made = renewed({}, CA, PROFILES[HUBBLE_SERVER_SECRET], NOW)
    assert made is not None
    name = "*.eu-west.hubble-grpc.cilium.io"
    assert check.subject(made["tls.crt"]) == (name, (name,))
    assert check.expires_at(made["tls.crt"]) < NOW + timedelta(days=366)
    assert made["ca.crt"] == CA.certificate
    assert renewed(made, CA, PROFILES[HUBBLE_SERVER_SECRET], NOW) is None


@pytest.mark.parametrize(("days", "is_new"), [(1, False), (240, False), (250, True), (400, True)])
def test_the_last_third_of_a_life_is_for_renewal(days: int, is_new: bool) -> None:
    made = renewed(aged(days), CA, PROFILES[HUBBLE_SERVER_SECRET], NOW)
    assert (made is not None) == is_new


@pytest.mark.parametrize(
    "data",
    [
        aged(1, RELAY_CLIENT_SECRET),
        {**aged(1), "tls.key": b""},
        {**aged(1), "tls.crt": b"no PEM"},
        {**aged(1), "ca.crt": b"no PEM"},
    ],
)
def test_what_is_not_as_wanted_is_issued_anew(data: dict[str, bytes]) -> None:
    made = renewed(data, CA, PROFILES[HUBBLE_SERVER_SECRET], NOW)
    assert made is not None
    assert not check.problem("it", made["tls.crt"], CA.certificate, NOW)


def test_another_authority_signs_and_the_one_before_is_believed() -> None:
    made = renewed(aged(1), NEXT, PROFILES[HUBBLE_SERVER_SECRET], NOW)
    assert made is not None
    assert not check.problem("it", made["tls.crt"], NEXT.certificate, NOW)
    assert made["ca.crt"] == check.bundle(NEXT.certificate, CA.certificate)
    third = create_ca(NOW)
    again = renewed(made, third, PROFILES[HUBBLE_SERVER_SECRET], NOW)
    assert again is not None
    assert again["ca.crt"] == check.bundle(third.certificate, NEXT.certificate)
