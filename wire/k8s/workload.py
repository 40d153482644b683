"""What a pod is a copy of, as people name it. Pure."""

import re

from wire.k8s.meta import labels_of
from wire.k8s.pod import Pod

_SCHEDULED = re.compile(r"^(.+)-\d{8,10}$")  # a CronJob's Job carries its minute


def workload_of(pod: Pod) -> tuple[str, str] | None:
    """Name and kind; ``None`` for a pod that nobody controls.

    The owner, except that a ReplicaSet stands for its Deployment and a Job for its CronJob.
    """
    meta = pod.metadata
    owner = next((o for o in meta.owner_references or () if o.controller), None)
    if owner is None or not meta.generate_name:
        return None
    labels = labels_of(meta)
    if owner.kind == "ReplicaSet":
        suffix = "-" + labels.get("pod-template-hash", "")
        if len(suffix) > 1 and owner.name.endswith(suffix):
            return owner.name.removesuffix(suffix), "Deployment"
    elif owner.kind == "ReplicationController" and "deploymentconfig" in labels:
        return labels["deploymentconfig"], "DeploymentConfig"
    elif owner.kind == "Job" and (match := _SCHEDULED.match(owner.name)):
        return match[1], "CronJob"
    return owner.name, owner.kind
