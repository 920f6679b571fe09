"""Small machines, rows and rounds for the policy's tests."""

from dataclasses import replace

from mtp_mlx.engine import policy
from mtp_mlx.engine.policy import acceptance, search

K_MAX = 7
MAX_TOKENS = 64
NO_NOISE = 0.0


def calibration(*seconds: float, draft_s: float = 0.04, host_s: float = 0.05) -> policy.Calibration:
    """A machine whose forward of N = 1, 2, … takes the given seconds, the last slope beyond."""
    return policy.Calibration(
        verify=tuple(enumerate(seconds, 1)),
        draft_depth_s=0.7 * draft_s,
        draft_token_s=0.3 * draft_s,
        host_s=host_s,
        spread=NO_NOISE,
    )


FLAT = calibration(1.0, 1.01, 1.02, 1.03)
STEEP = calibration(1.0, 2.0, 3.0, 4.0)
CLIFF = calibration(1.0, 3.0, 3.0, 3.0)


def start(machine: policy.Calibration = FLAT, k_max: int = K_MAX) -> policy.State:
    return policy.State.start(machine, k_max, MAX_TOKENS)


def rows(count: int, cap: int = K_MAX) -> tuple[policy.RowInput, ...]:
    return tuple(policy.RowInput(index, cap) for index in range(count))


def limits(max_tokens: int = MAX_TOKENS, prefill_tokens: int = 0) -> policy.Limits:
    return policy.Limits(max_tokens, prefill_tokens)


def played(
    state: policy.State, allocation: policy.Allocation, accepted: tuple[int, ...]
) -> policy.State:
    """The state after a round that took as long as predicted and accepted so many drafts."""
    outcomes = tuple(
        policy.Outcome(row, drafted, min(right, drafted))
        for row, drafted, right in zip(allocation.rows, allocation.lengths, accepted, strict=True)
    )
    return policy.observe(state, allocation, outcomes, policy.Timing(allocation.seconds))


def taught(state: policy.State, row: int, matched: int, drafted: int, times: int) -> policy.State:
    """The state after so many shadows of a row with the same outcome."""
    for _ in range(times):
        state = shadowed(state, policy.Shadow(row, 0, matched, drafted))
    return state


def shadowed(state: policy.State, shadow: policy.Shadow) -> policy.State:
    """The state once a shadow has been judged, and nothing else was learned."""
    seen = acceptance.Seen(shadow.row, shadow.matched, shadow.drafted, shadow.verified)
    return replace(state, acceptance=state.acceptance.observe((seen,)))


def candidate(*rates: float) -> search.Candidate:
    """A row whose acceptance is known for certain."""
    values = search.survival(rates, len(rates))
    return search.Candidate(values, values, values)


def prices(*forward: float, depth_s: float = 0.0, token_s: float = 0.0) -> search.Prices:
    """Costs of a forward with 0, 1, … drafts, known for certain."""
    return search.Prices(forward, (0.0,) * len(forward), 0.0, depth_s, token_s, 0.0)
