"""Jobs: pods that run to completion. Adapter."""

from datetime import UTC, datetime

from kind.apiserver.objects import Obj, condition, dicts, dig
from kind.controllers.hub import Key
from kind.controllers.owned import (
    is_active,
    is_ready,
    set_condition,
    timestamp,
)
from kind.controllers.pod_owner import PodOwner, in_parallel

TABLE = "jobs.batch"


def missing(job: Obj, active: int, succeeded: int) -> int:
    """How many pods to start now. Pure."""
    spec = job.get("spec") or {}
    if spec.get("suspend"):
        return 0
    parallel = int(spec.get("parallelism", 1))
    completions = spec.get("completions")
    if completions is None:  # a work queue: nothing new once a pod has succeeded
        return 0 if succeeded else max(0, parallel - active)
    return max(0, min(parallel, int(completions) - succeeded) - active)


def verdict(job: Obj, succeeded: int, failed: int, active: int) -> tuple[str, str]:
    """``Complete`` or ``Failed`` with a reason, or two empty words. Pure."""
    spec = job.get("spec") or {}
    if failed > int(spec.get("backoffLimit", 6)):
        return "Failed", "BackoffLimitExceeded"
    completions = spec.get("completions")
    done = (
        succeeded >= int(completions)
        if completions is not None
        else (succeeded > 0 and active == 0)
    )
    return ("Complete", "CompletionsReached") if done else ("", "")


class JobController(PodOwner):
    """One key per Job."""

    name, kind, api_version, table = "job", "Job", "batch/v1", TABLE

    async def reconcile(self, key: Key) -> float | None:
        job = self._hub.get(TABLE, key)
        if job is None or job["metadata"].get("deletionTimestamp"):
            return None
        pods = self._pods(job)
        active = [p for p in pods if is_active(p)]
        succeeded = sum(1 for p in pods if dig(p, "status", "phase") == "Succeeded")
        failed = sum(1 for p in pods if dig(p, "status", "phase") == "Failed")
        ended, reason = verdict(job, succeeded, failed, len(active))
        if ended == "Failed":
            for pod in active:
                await self._hub.delete("pods", pod)
        if not ended and not _finished(job):
            pod = self._pod(job, {})
            count = missing(job, len(active), succeeded)
            await in_parallel([self._hub.create("pods", pod) for _ in range(count)])
            active = [p for p in self._pods(job) if is_active(p)]
        await self._tell(job, active, succeeded, failed, ended, reason)
        return await self._expire(key)

    async def _tell(
        self, job: Obj, active: list[Obj], succeeded: int, failed: int, ended: str, reason: str
    ) -> None:
        now, old = datetime.now(UTC), job.get("status") or {}
        status = old | {
            "active": 0 if ended else len(active),
            "ready": sum(1 for p in active if is_ready(p)),
            "succeeded": succeeded,
            "failed": failed,
            "startTime": old.get("startTime") or timestamp(now),
        }
        if ended:
            status["conditions"] = set_condition(
                dicts(old.get("conditions")),
                {"type": ended, "status": "True", "reason": reason, "message": ""},
                now,
            )
            if ended == "Complete":
                status.setdefault("completionTime", timestamp(now))
        if not _finished(job):
            await self._report(job, status)

    async def _expire(self, key: Key) -> float | None:
        """``ttlSecondsAfterFinished``."""
        job = self._hub.get(TABLE, key)
        ttl = dig(job, "spec", "ttlSecondsAfterFinished")
        ended = _finished(job) if job is not None else None
        if job is None or ttl is None or ended is None:
            return None
        since = datetime.fromisoformat(str(ended["lastTransitionTime"]).replace("Z", "+00:00"))
        left = ttl - (datetime.now(UTC) - since).total_seconds()
        if left > 0:
            return float(left)
        await self._hub.delete(TABLE, job)
        return None


def _finished(job: Obj) -> Obj | None:
    for kind in ("Complete", "Failed"):
        found = condition(job, kind)
        if found is not None and found.get("status") == "True":
            return found
    return None
