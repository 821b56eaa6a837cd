"""The words of health, what is worse than what, and a status that does not flap."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, Literal

__all__ = ["CheckStatus", "Hysteresis", "Status", "ViewName", "worst"]

Status = Literal["unknown", "healthy", "degraded", "unhealthy"]
"""What all checks of a view say together."""

CheckStatus = Literal["unknown", "ok", "warning", "error"]
"""What one check says."""

ViewName = Literal["live", "ready", "health"]
"""Who asks: ``live`` whether to restart this process, ``ready`` whether to send it work, ``health`` how it does."""

_LEVELS: Final[tuple[Status, ...]] = ("healthy", "degraded", "unhealthy")
_STATUSES: Final[dict[CheckStatus, Status]] = {"ok": "healthy", "warning": "degraded", "error": "unhealthy"}


def worst(checks: Iterable[CheckStatus]) -> Status:
    """Return what checks say together: the worst of those that are known; ``unknown`` where none is."""
    levels = [_LEVELS.index(_STATUSES[check]) for check in checks if check != "unknown"]
    return _LEVELS[max(levels)] if levels else "unknown"


class Hysteresis:
    """A status that changes only after evaluations in a row that agree that it is worse, or better.

    It becomes as bad as all of the last ``worsen_after`` evaluations at least were, and as good as all of the last
    ``improve_after`` at least were, so that evaluations which are bad by turns in different degrees agree on the
    lesser one. From unknown the first evaluation decides. Unknown evaluations count for neither side; after
    ``improve_after`` of them in a row the status is unknown again.

    Args:
        worsen_after: Evaluations, 1 or more.
        improve_after: Evaluations, 1 or more.
    """

    def __init__(self, worsen_after: int, improve_after: int) -> None:
        self.status: Status = "unknown"
        self._worsen_after = worsen_after
        self._improve_after = improve_after
        self._unknown = 0
        self._recent: deque[int] = deque(maxlen=max(worsen_after, improve_after))

    def observe(self, evaluated: Status) -> Status:
        """Take an evaluation in.

        Args:
            evaluated: What the checks say at this moment.

        Returns:
            The status from now on.
        """
        if evaluated == "unknown":
            self._unknown += 1
            if self._unknown >= self._improve_after:
                self.status = "unknown"
            return self.status
        self._unknown = 0
        self._recent.append(_LEVELS.index(evaluated))
        self.status = evaluated if self.status == "unknown" else _LEVELS[self._level(_LEVELS.index(self.status))]
        return self.status

    def _level(self, held: int) -> int:
        recent = list(self._recent)
        if len(recent) >= self._worsen_after:
            held = max(held, min(recent[-self._worsen_after :]))
        if len(recent) >= self._improve_after:
            held = min(held, max(recent[-self._improve_after :]))
        return held
