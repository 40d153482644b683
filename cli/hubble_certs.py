"""A cluster's authority, and the certificates of its observers and relay. Adapter."""

from collections.abc import Iterable
from datetime import UTC, datetime

from certs import upkeep
from certs.issue import KeyPair, create_ca
from certs.profiles import CA_SECRET, SERVER_SECRET, hubble_profiles
from cli import cluster
from kube import resources
from kube.port import Client


async def authority(api: Client, namespace: str, shared: KeyPair | None = None) -> KeyPair:
    """The cluster's CA from its Secret, made (or copied) when absent.

    A shared one takes the place of one that has signed nothing for the mesh yet.
    """
    data = cluster.secret_data(await cluster.read(api, "Secret", CA_SECRET, namespace))
    if data.get("ca.crt") and data.get("ca.key"):
        in_use = await cluster.read(api, "Secret", SERVER_SECRET, namespace) is not None
        if shared is None or in_use:
            return KeyPair(data["ca.crt"], data["ca.key"])
    made = shared or create_ca(datetime.now(UTC))
    content = {"ca.crt": made.certificate, "ca.key": made.key}
    await cluster.apply(api, [cluster.secret(CA_SECRET, namespace, content)])
    return made


async def issue(api: Client, namespace: str, name: str) -> None:
    """Make what a cluster's Hubble needs; what is good stays."""
    signs = await authority(api, namespace)
    await _issue(api, namespace, name, signs, hubble_profiles(name))


async def renew(api: Client, namespace: str, name: str, signs: KeyPair) -> None:
    """Only those that exist: after the authority has become another."""
    there = [
        secret
        for secret in hubble_profiles(name)
        if await cluster.read(api, "Secret", secret, namespace) is not None
    ]
    await _issue(api, namespace, name, signs, there)


async def remove(api: Client, namespace: str, name: str) -> None:
    """Of a cluster without Hubble."""
    for secret in hubble_profiles(name):
        await api.delete(resources.SECRETS, secret, namespace)


async def _issue(
    api: Client, namespace: str, name: str, signs: KeyPair, secrets: Iterable[str]
) -> None:
    profiles, now = hubble_profiles(name), datetime.now(UTC)
    for secret in secrets:
        data = cluster.secret_data(await cluster.read(api, "Secret", secret, namespace))
        made = upkeep.renewed(data, signs, profiles[secret], now)
        if made is not None:
            item = cluster.secret(secret, namespace, made, "kubernetes.io/tls")
            await cluster.apply(api, [item])
