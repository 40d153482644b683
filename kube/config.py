"""Where the API server is and who we are: in-cluster or from a kubeconfig. Adapter.

Kubeconfigs (contexts, certificates, tokens, exec plug-ins, OIDC) are read by the official client,
whose configuration alone is used; requests are made by ``kube.client``. Its import costs a third
of a second and 20 MB, so it happens only when a kubeconfig needs it: a plain one does not
(``kube.plain_kubeconfig``), and what the kubelet gives a pod is two variables and two files. See
docs/adr/0040-kubernetes-client.md and 0256-plain-kubeconfigs.md.
"""

import os
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kube.client import HttpClient

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_AGE_S = 60  # the kubelet renews the file long before its token ends


class ConfigError(ValueError):
    """The way to the API server is not usable: names the file and the remedy."""


@dataclass(slots=True)
class Access:
    """An API server's address with what proves who we are."""

    server: str
    ssl: ssl.SSLContext | None
    server_name: str | None
    proxy: str | None
    _authorization: Callable[[], Awaitable[str | None]] = field(repr=False)

    async def authorization(self) -> str | None:
        """The Authorization header, as fresh as the token file."""
        return await self._authorization()


class TokenFile:
    """A service account's token, read again when a minute has passed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header = ""
        self._read_at = 0.0

    async def authorization(self) -> str | None:
        """The header. A file that is away for a moment leaves the last token in use."""
        now = time.monotonic()
        if not self._header or now - self._read_at > TOKEN_AGE_S:
            try:
                self.read()
            except OSError:
                if not self._header:
                    raise
            self._read_at = now
        return self._header

    def read(self) -> None:
        """Raises ``OSError``."""
        # The file ends in a newline when people make it.
        self._header = f"Bearer {self._path.read_text().strip()}"


def default_kubeconfig() -> str:
    """$KUBECONFIG, or the file kubectl uses."""
    return os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")


async def load(kubeconfig: str = "", context: str = "") -> Access:
    """Read a kubeconfig; without one, what the kubelet gave this pod. Raises ``ConfigError``."""
    if kubeconfig:
        return await load_kubeconfig(kubeconfig, context)
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return load_in_cluster()
    return await load_kubeconfig(default_kubeconfig(), context)


def _exists(path: str) -> bool:
    """Whether any file of a list separated by colons is there."""
    return any(os.path.exists(os.path.expanduser(part)) for part in path.split(":") if part)


async def load_kubeconfig(path: str, context: str = "") -> Access:
    """Read one context of a kubeconfig. Raises ``ConfigError``."""
    from kube import plain_kubeconfig

    plain = plain_kubeconfig.read(path, context)
    if plain is not None:
        return Access(plain.server, plain.ssl, None, None, _static(plain.token))
    return await load_any_kubeconfig(path, context)


async def load_any_kubeconfig(path: str, context: str = "") -> Access:
    """``load_kubeconfig`` by the official client, whatever stands there. Raises ``ConfigError``."""
    import yaml
    from kubernetes.aio.client import Configuration
    from kubernetes.aio.config import ConfigException, load_kube_config

    if not _exists(path):
        raise ConfigError(
            f"kubeconfig {path}: no such file: name one with --kubeconfig or KUBECONFIG"
        )
    configuration = Configuration()
    try:
        await load_kube_config(
            path, context or None, client_configuration=configuration, persist_config=False
        )
        return _access(configuration)
    except ConfigException as error:
        raise ConfigError(f"kubeconfig {path}: {error}: {_remedy(context)}") from error
    except yaml.YAMLError as error:
        place = " ".join(str(error).split())
        raise ConfigError(f"kubeconfig {path} is not YAML: {place}: write it anew") from error
    except ssl.SSLError as error:
        raise ConfigError(
            f"kubeconfig {path}: a certificate or key in it is not usable ({error}): "
            "fetch the kubeconfig again"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"kubeconfig {path}: cannot read {error.filename or 'it'}: {error.strerror}: "
            "check the file and its permissions"
        ) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # The official loader meets a file of another shape with whatever its code runs into.
        raise ConfigError(
            f"kubeconfig {path} has not the shape of a kubeconfig "
            f"({type(error).__name__}: {error}): fetch it again"
        ) from error


def _static(token: str) -> Callable[[], Awaitable[str | None]]:
    async def authorization() -> str | None:
        return f"Bearer {token}" if token else None

    return authorization


def _remedy(context: str) -> str:
    if context:
        return f'is "{context}" one of those in `kubectl config get-contexts`?'
    return "choose a context with `kubectl config use-context` or name one with --context"


def load_in_cluster(directory: Path = SERVICE_ACCOUNT) -> Access:
    """What the kubelet gave this pod. Raises ``ConfigError``."""
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    token = TokenFile(directory / "token")
    try:
        token.read()
        context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    except ssl.SSLError as error:
        raise ConfigError(
            f"in-cluster configuration: {directory}/ca.crt is no certificate ({error.reason}): "
            "look at the config map kube-root-ca.crt"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"in-cluster configuration: cannot read {error.filename or directory}: "
            f"{error.strerror}: run as a pod with a service account, or name a file "
            "with --kubeconfig"
        ) from error
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Access(f"https://{authority}", context, None, None, token.authorization)


def _access(configuration: Any) -> Access:
    from kubernetes.aio.client.rest import RESTClientObject

    if not str(configuration.host).startswith(("http://", "https://")):
        raise ValueError(f'server "{configuration.host}" is no http(s) address')

    async def authorization() -> str | None:
        token = await configuration.get_api_key_with_prefix("BearerToken")
        return token.strip() if token else None

    secure = configuration.host.startswith("https://")
    return Access(
        server=configuration.host.rstrip("/"),
        # The library's own rules for authorities, client certificates and checks.
        ssl=RESTClientObject(configuration).ssl_context if secure else None,
        server_name=configuration.tls_server_name,
        proxy=configuration.proxy,
        _authorization=authorization,
    )


async def connect(kubeconfig: str = "", context: str = "") -> HttpClient:
    """A client to close after use; ``async with`` does. Nothing is sent yet.

    Raises ``ConfigError``.
    """
    return HttpClient(await load(kubeconfig, context))
