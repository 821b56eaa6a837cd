"""The worst check wins, and a status does not flap: held against the rule as two switches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from aetherflow.telemetry.health.status import CheckStatus, Hysteresis, Status, worst

LEVELS: tuple[Status, ...] = ("healthy", "degraded", "unhealthy")
known = st.sampled_from(LEVELS)
evaluations = st.lists(st.one_of(known, st.just("unknown")), max_size=60)
counts = st.integers(1, 4)


def as_switches(evaluated: Sequence[Status], worsen_after: int, improve_after: int) -> list[Status]:
    """The rule told otherwise: each level is a switch that so many evaluations in a row turn on, or off."""
    held: list[Status] = []
    on, above, below, unknown, is_known = [False, False], [0, 0], [0, 0], 0, False
    for each in evaluated:
        if each == "unknown":
            unknown += 1
            if unknown >= improve_after:
                on, above, below, is_known = [False, False], [0, 0], [0, 0], False
            held.append(LEVELS[sum(on)] if is_known else "unknown")
            continue
        unknown = 0
        for switch in (0, 1):
            is_above = LEVELS.index(each) > switch
            above[switch] = above[switch] + 1 if is_above else 0
            below[switch] = 0 if is_above else below[switch] + 1
            if (is_above and not is_known) or above[switch] >= worsen_after:
                on[switch] = True
            elif below[switch] >= improve_after:
                on[switch] = False
        is_known = True
        held.append(LEVELS[sum(on)])
    return held


@given(evaluations, counts, counts)
def test_the_status_is_that_of_two_switches(evaluated: list[Status], worsen_after: int, improve_after: int) -> None:
    """For any course of evaluations and any number of them that must agree."""
    hysteresis = Hysteresis(worsen_after, improve_after)
    assert [hysteresis.observe(each) for each in evaluated] == as_switches(evaluated, worsen_after, improve_after)


@given(known, st.lists(known, max_size=60), counts, counts)
def test_a_status_never_changes_more_often_than_agreement_allows(
    first: Status, evaluated: list[Status], worsen_after: int, improve_after: int
) -> None:
    """Between two changes to opposite sides lie as many evaluations as the second needs to agree."""
    hysteresis = Hysteresis(worsen_after, improve_after)
    held = [LEVELS.index(hysteresis.observe(each)) for each in (first, *evaluated)]
    changes = [(at, after - before) for at, (before, after) in enumerate(itertools.pairwise(held)) if after != before]
    for (at, first_way), (then, second_way) in itertools.pairwise(changes):
        if first_way * second_way < 0:
            assert then - at >= (worsen_after if second_way > 0 else improve_after)


def test_bad_by_turns_agrees_on_the_lesser() -> None:
    """Degraded and unhealthy in alternation is not healthy for ever."""
    hysteresis = Hysteresis(2, 3)
    course: list[Status] = ["healthy", "degraded", "unhealthy", "degraded", "unhealthy", "unhealthy"]
    assert [hysteresis.observe(each) for each in course] == [
        "healthy", "healthy", "degraded", "degraded", "degraded", "unhealthy",
    ]  # fmt: skip


@given(st.lists(st.sampled_from(["unknown", "ok", "warning", "error"]), max_size=8))
def test_the_worst_known_check_wins(checks: list[CheckStatus]) -> None:
    """Unknown ones are ignored; of none that is known nothing is known."""
    order = ("unknown", "ok", "warning", "error")
    expected = ("unknown", *LEVELS)[max(map(order.index, checks), default=0)]
    assert worst(checks) == expected
