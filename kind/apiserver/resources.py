"""Which resources exist: the built-in table, and what CRDs add while the server runs. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from kind.apiserver.objects import Obj

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind in one version, as discovery describes it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False  # has /status, and the main path then ignores status
    scale: bool = False
    extra_subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    list_kind: str = ""
    custom: bool = False  # defined by a CRD
    schema: Obj | None = field(default=None, hash=False)
    columns: tuple[Obj, ...] = field(default=(), hash=False)  # additionalPrinterColumns
    scale_paths: Obj | None = field(default=None, hash=False)
    storage_version: str = ""  # of the objects at rest; empty: version

    @property
    def group_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def stored_group_version(self) -> str:
        if self.group == "events.k8s.io":
            return "v1"
        version = self.storage_version or self.version
        return f"{self.group}/{version}" if self.group else version

    @property
    def table(self) -> str:
        """Where its objects lie: one per group and plural, whatever the version."""
        if self.group == "events.k8s.io":
            return "core/events"  # two views of the same objects, see ``versions``
        return f"{self.group or 'core'}/{self.plural}"

    @property
    def qualified(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


def _r(
    group: str,
    version: str,
    plural: str,
    kind: str,
    *short: str,
    namespaced: bool = True,
    status: bool = False,
    scale: bool = False,
    sub: tuple[str, ...] = (),
    categories: tuple[str, ...] = (),
    verbs: tuple[str, ...] = ALL_VERBS,
) -> Resource:
    return Resource(
        group,
        version,
        plural,
        kind,
        namespaced,
        kind.lower(),
        short,
        categories,
        status,
        scale,
        sub,
        verbs,
        f"{kind}List",
    )


_ALL = ("all",)
_CREATE = ("create",)
BUILTIN: tuple[Resource, ...] = (
    _r("", "v1", "configmaps", "ConfigMap", "cm"),
    _r("", "v1", "endpoints", "Endpoints", "ep"),
    _r("", "v1", "events", "Event", "ev"),
    _r("", "v1", "limitranges", "LimitRange", "limits"),
    _r("", "v1", "namespaces", "Namespace", "ns", namespaced=False, status=True, sub=("finalize",)),
    _r("", "v1", "nodes", "Node", "no", namespaced=False, status=True),
    _r(
        "",
        "v1",
        "pods",
        "Pod",
        "po",
        status=True,
        categories=_ALL,
        sub=("attach", "binding", "eviction", "exec", "log", "portforward"),
    ),
    _r("", "v1", "resourcequotas", "ResourceQuota", "quota", status=True),
    _r("", "v1", "secrets", "Secret"),
    _r("", "v1", "serviceaccounts", "ServiceAccount", "sa", sub=("token",)),
    _r("", "v1", "services", "Service", "svc", status=True, categories=_ALL),
    _r("apps", "v1", "controllerrevisions", "ControllerRevision"),
    _r("apps", "v1", "daemonsets", "DaemonSet", "ds", status=True, categories=_ALL),
    _r(
        "apps",
        "v1",
        "deployments",
        "Deployment",
        "deploy",
        status=True,
        scale=True,
        categories=_ALL,
    ),
    _r("apps", "v1", "replicasets", "ReplicaSet", "rs", status=True, scale=True, categories=_ALL),
    _r(
        "apps", "v1", "statefulsets", "StatefulSet", "sts", status=True, scale=True, categories=_ALL
    ),
    _r("batch", "v1", "jobs", "Job", status=True, categories=_ALL),
    _r("batch", "v1", "cronjobs", "CronJob", "cj", status=True, categories=_ALL),
    _r("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    _r("events.k8s.io", "v1", "events", "Event", "ev"),
    _r("coordination.k8s.io", "v1", "leases", "Lease"),
    _r("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", "netpol"),
    _r("networking.k8s.io", "v1", "ingresses", "Ingress", "ing", status=True),
    _r("networking.k8s.io", "v1", "ingressclasses", "IngressClass", namespaced=False),
    _r("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", "pdb", status=True),
    _r("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False),
    _r(
        "rbac.authorization.k8s.io",
        "v1",
        "clusterrolebindings",
        "ClusterRoleBinding",
        namespaced=False,
    ),
    _r("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    _r("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    _r("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", "pc", namespaced=False),
    _r(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        "crd",
        "crds",
        namespaced=False,
        status=True,
        categories=("api-extensions",),
    ),
    _r(
        "authentication.k8s.io",
        "v1",
        "tokenreviews",
        "TokenReview",
        namespaced=False,
        verbs=_CREATE,
    ),
    _r(
        "authentication.k8s.io",
        "v1",
        "selfsubjectreviews",
        "SelfSubjectReview",
        namespaced=False,
        verbs=_CREATE,
    ),
    _r(
        "authorization.k8s.io",
        "v1",
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
        namespaced=False,
        verbs=_CREATE,
    ),
    _r(
        "authorization.k8s.io",
        "v1",
        "subjectaccessreviews",
        "SubjectAccessReview",
        namespaced=False,
        verbs=_CREATE,
    ),
)
CRD_TABLE = "apiextensions.k8s.io/customresourcedefinitions"


def from_crd(crd: Obj) -> list[Resource]:
    """The resources a CRD serves, one per served version."""
    spec = crd["spec"]
    names = spec["names"]
    versions = [v for v in spec.get("versions") or [] if v.get("served")]
    storage = next((v["name"] for v in spec.get("versions") or [] if v.get("storage")), "")
    out = []
    for v in versions:
        sub = v.get("subresources") or {}
        out.append(
            Resource(
                group=spec["group"],
                version=v["name"],
                plural=names["plural"],
                kind=names["kind"],
                namespaced=spec.get("scope") == "Namespaced",
                singular=names.get("singular") or names["kind"].lower(),
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                status=sub.get("status") is not None,
                scale=sub.get("scale") is not None,
                list_kind=names.get("listKind") or names["kind"] + "List",
                custom=True,
                schema=(v.get("schema") or {}).get("openAPIV3Schema"),
                columns=tuple(v.get("additionalPrinterColumns") or ()),
                scale_paths=sub.get("scale"),
                storage_version=storage,
            )
        )
    return out


class Registry:
    """All resources by path; CRDs come and go."""

    def __init__(self, builtin: Iterable[Resource] = BUILTIN) -> None:
        self._builtin = tuple(builtin)
        self._custom: dict[str, list[Resource]] = {}  # CRD name → its resources
        self._index: dict[tuple[str, str, str], Resource] = {}
        self._reindex()

    def _reindex(self) -> None:
        self._index = {
            (r.group, r.version, r.plural): r for rs in self._custom.values() for r in rs
        }
        self._index |= {(r.group, r.version, r.plural): r for r in self._builtin}

    def set_crd(self, name: str, crd: Obj | None) -> None:
        """Serve what the CRD says from now on; ``None`` removes it."""
        if crd is None:
            self._custom.pop(name, None)
        else:
            self._custom[name] = from_crd(crd)
        self._reindex()

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._index.get((group, version, plural))

    def by_kind(self, group: str, kind: str) -> Resource | None:
        """The resource of a kind, in its first version."""
        return next((r for r in self._index.values() if (r.group, r.kind) == (group, kind)), None)

    def all(self) -> list[Resource]:
        """Sorted by group, version, plural; the core group first."""
        return sorted(self._index.values(), key=lambda r: (r.group, r.version, r.plural))

    def groups(self) -> dict[str, list[str]]:
        """Group → versions, newest first; the core group is left out."""
        out: dict[str, set[str]] = {}
        for r in self._index.values():
            if r.group:
                out.setdefault(r.group, set()).add(r.version)
        return {g: sorted(v, key=version_rank, reverse=True) for g, v in sorted(out.items())}


def version_rank(version: str) -> tuple[int, int, int, str]:
    """Kubernetes' order of versions: v2 > v1 > v1beta2 > v1alpha1 > anything else."""
    body = version[1:] if version.startswith("v") else ""
    for stage, rank in (("beta", 1), ("alpha", 0)):
        major, mark, minor = body.partition(stage)
        if mark and major.isdigit() and (minor.isdigit() or not minor):
            return (rank, int(major), int(minor or 0), version)
    return (2, int(body), 0, version) if body.isdigit() else (-1, 0, 0, version)
