"""A session's connection and the age of its data, as the APIs show them. Pure."""

from typing import Any

from kvstore.staleness import KEEP
from kvstore.status import RemoteStatus


def connection(status: RemoteStatus, now_s: float) -> dict[str, Any]:
    """Keys to be added to a ``RemoteCluster``; ``now_s`` of the loop's clock, durations whole."""
    age = status.age
    data: dict[str, Any] = {
        "age-seconds": round(age.age_s(now_s)),
        "stale-data": "keep" if age.revoke_after_s == KEEP else "revoke",
        "revoked": age.revoked,
    }
    if age.revoke_after_s != KEEP:
        data["revoke-after-seconds"] = round(age.revoke_after_s)
    left_s = age.left_s(now_s)
    if left_s is not None:
        data["revoke-in-seconds"] = round(left_s)
    return {
        "connection": {
            "state": status.state.value,
            "event": status.event.value if status.event else "",
            "action": status.action.value,
            "since-seconds": round(now_s - status.event_s) if status.event else 0,
        },
        "data": data,
        "compare": {
            "count": status.compares,
            "repaired": status.repaired,
            "disorders": status.disorders,
        },
    }
