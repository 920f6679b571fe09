"""One reply under a grammar: which tokens may come next, and which have come.

Drafts are not bound by the grammar, so they may leave it, or pass the end of a thought: the masks
of a round are worked out place by place, each as if the drafts before it had come. They are filled
on a copy of the matcher, so that asking changes nothing; a draft that exhausts the parser harms
nobody unless the target chooses it too.

A thought that comes first is free: any token with text or a marker may stand in it, save those that
would end the reply inside it or begin a call. It ends with its own marker alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from llguidance import LLExecutor, LLMatcher
from llguidance.numpy import (
    fill_next_token_bitmask,
    fill_next_token_bitmask_par_with_draft_tokens,
)

from mtp_mlx.constraint.grammar import Begins
from mtp_mlx.constraint.limits import brief
from mtp_mlx.errors import MtpError

BITS = 32


@dataclass(frozen=True)
class Vocabulary:
    """What every reply of a model shares: ids that end it, the thought's markers (-1: there is no
    such token), one row that says which tokens a thought may hold, and what fills masks."""

    ends: frozenset[int]
    opens: int
    closes: int
    thought: np.ndarray
    executor: LLExecutor


def vocabulary(
    *, rows: int, in_thought: Sequence[int], ends: frozenset[int], opens: int, closes: int
) -> Vocabulary:
    """That of a model with so many `rows` of its embedding table."""
    bits = np.zeros(-(-rows // BITS) * BITS, np.uint8)
    bits[list(in_thought)] = 1
    thought = np.packbits(bits, bitorder="little").view("<i4")
    return Vocabulary(ends, opens, closes, thought, LLExecutor(1))


class Constrained:
    """See request.Constraint."""

    def __init__(self, vocabulary: Vocabulary, matcher: LLMatcher, begins: Begins) -> None:
        self._vocabulary = vocabulary
        self._matcher = matcher
        self._begins: Begins = begins  # as seen from the next token

    def masks(self, drafts: Sequence[int]) -> np.ndarray:
        """Row i: which tokens may come at place i, given drafts[:i]. None may where nothing can
        meet the schema any more, or where the parser is at its limits."""
        vocabulary, drafts = self._vocabulary, list(drafts)
        rows = np.zeros((len(drafts) + 1, vocabulary.thought.size), np.int32)
        begins, at = self._begins, 0
        if begins == "either":
            if drafts[:1] == [vocabulary.opens]:
                self._fill(rows, 0, [])
                begins, at = "thought", 1
            else:
                self._fill(rows, 0, drafts)
            _allow(rows[0], vocabulary.opens)
        elif begins == "reply":
            self._fill(rows, 0, drafts)
        if begins == "thought":
            end = _index(drafts, vocabulary.closes, at)
            rows[at : end + 1] = vocabulary.thought
            if end < len(drafts):
                self._fill(rows, end + 1, drafts[end + 1 :])
        return rows.view(np.uint32)

    def _fill(self, rows: np.ndarray, at: int, drafts: list[int]) -> None:
        """The grammar's rows from `at` on, for the drafts that follow there."""
        matcher = self._matcher.deep_copy()
        if drafts:
            jobs = [(matcher, at, drafts)]
            fill_next_token_bitmask_par_with_draft_tokens(self._vocabulary.executor, jobs, rows)
        else:
            fill_next_token_bitmask(matcher, rows, at)

    def take(self, tokens: Sequence[int]) -> None:
        """The reply goes on with these. Raises MtpError for one that is not allowed."""
        left = self._take_thought(list(tokens))
        is_over = bool(left) and left[-1] in self._vocabulary.ends
        said = left[:-1] if is_over else left
        is_allowed = self._matcher.try_consume_tokens(said) == len(said)
        # The end is not consumed: a matcher that has stopped by itself would refuse it.
        if not is_allowed or (is_over and not self._matcher.is_accepting()):
            reason = f": {brief(self._matcher)}" if self._matcher.is_error() else ""
            raise MtpError(f"the reply's grammar does not allow a token that was chosen{reason}")

    def _take_thought(self, tokens: list[int]) -> list[int]:
        """Take what belongs to a thought, and return the rest."""
        if self._begins == "either" and tokens:
            is_thought = tokens[0] == self._vocabulary.opens
            self._begins = "thought" if is_thought else "reply"
            tokens = tokens[1:] if is_thought else tokens
        if self._begins != "thought":
            return tokens
        end = _index(tokens, self._vocabulary.closes, 0)
        if not all(_allows(self._vocabulary.thought, token) for token in tokens[:end]):
            raise MtpError("a thought may not hold a token that was chosen")
        if end < len(tokens):
            self._begins = "reply"
        return tokens[end + 1 :]


def _index(tokens: list[int], wanted: int, start: int) -> int:
    """Where `wanted` first stands from `start` on; the length where it does not."""
    return tokens.index(wanted, start) if wanted in tokens[start:] else len(tokens)


def _allow(row: np.ndarray, token: int) -> None:
    row.view(np.uint32)[token // BITS] |= np.uint32(1 << token % BITS)


def _allows(row: np.ndarray, token: int) -> bool:
    return bool(row.view(np.uint32)[token // BITS] >> np.uint32(token % BITS) & 1)
