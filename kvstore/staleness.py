"""How old what we hold of a remote cluster is, and when it is too old. Pure; times in seconds."""

from dataclasses import dataclass

KEEP = 0.0  # the policy: for ever


@dataclass(slots=True)
class Age:
    """Follows one cluster. ``revoke_after_s`` is how old its data may become; ``KEEP``: any age."""

    revoke_after_s: float
    since_s: float  # the last moment at which the data were those of the cluster
    fresh: bool = False
    revoked: bool = False
    revocations: int = 0  # how often, all time

    def update(self, fresh: bool, now_s: float, heard_s: float | None = None) -> None:
        """Say whether the data are up to date now.

        ``heard_s``: a copy in between knows better when the cluster was last heard of.
        """
        if fresh:
            self.since_s, self.revoked = now_s, False
        elif heard_s is not None:
            self.since_s = min(heard_s, now_s)
        elif self.fresh:
            self.since_s = now_s
        self.fresh = fresh

    def age_s(self, now_s: float) -> float:
        """0 while fresh."""
        return 0.0 if self.fresh else max(0.0, now_s - self.since_s)

    def left_s(self, now_s: float) -> float | None:
        """Until the data are revoked; ``None``: they will not be, or are."""
        if not self.revoke_after_s or self.fresh or self.revoked:
            return None
        return max(0.0, self.since_s + self.revoke_after_s - now_s)

    def expire(self, now_s: float) -> bool:
        """Whether the data are to be revoked now; true once."""
        if self.left_s(now_s) != 0.0:
            return False
        self.revoked = True
        self.revocations += 1
        return True
