"""Makes grammars into constraints of replies, for one model's vocabulary.

Everything slow is done on the caller's thread, before a request is submitted. What was compiled is
kept, as is what was refused: the same schema comes again with each request of a program.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtp_mlx.constraint.checker import CHECKER
from mtp_mlx.constraint.grammar import Begins, Grammar
from mtp_mlx.constraint.limits import LIMITS, SILENT, brief
from mtp_mlx.errors import InvalidSchema, Unsupported
from mtp_mlx.text.parts import Markers
from mtp_mlx.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from mtp_mlx.constraint.constrained import Constrained, Vocabulary

KEPT = 32  # compiled grammars


@dataclass(frozen=True)
class _Shared:
    """Of all replies of the model."""

    tokenizer: "LLTokenizer"
    vocabulary: "Vocabulary"


class Compiler:
    """Grammars of one model. Threads may share one; nothing is built before it is needed."""

    def __init__(self, tokenizer: Tokenizer, rows: int, ends: frozenset[int]) -> None:
        """`rows` of the embedding table; `ends` are the ids that end a reply."""
        self._tokenizer = tokenizer
        self._rows = rows
        self._ends = ends
        self._lock = threading.Lock()
        self._shared: _Shared | None = None
        self._kept: OrderedDict[Grammar, LLMatcher | str] = OrderedDict()

    def warm(self) -> None:
        """Build what all grammars share: of a large vocabulary it takes seconds, in which no other
        thread of this Python process runs."""
        if self._ends:
            self._share()

    def start(self, grammar: Grammar, begins: Begins) -> "Constrained":
        """The constraint of a new reply. Raises InvalidSchema, and Unsupported for a model whose
        replies cannot end."""
        from mtp_mlx.constraint.constrained import Constrained

        if not self._ends:
            raise Unsupported(
                f"no token of this model ends a reply, so leave {grammar.param} out",
                param=grammar.param,
            )
        shared = self._share()
        with self._lock:
            found = self._kept.get(grammar)
        if found is None:
            found = _compiled(grammar, shared.tokenizer)
        self._keep(grammar, found)
        if isinstance(found, str):
            raise InvalidSchema(found, param=grammar.param)
        return Constrained(shared.vocabulary, found.deep_copy(), begins)

    def _keep(self, grammar: Grammar, found: "LLMatcher | str") -> None:
        """Keep it as the last that was used."""
        with self._lock:
            self._kept[grammar] = found
            self._kept.move_to_end(grammar)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)

    def _share(self) -> _Shared:
        from llguidance import LLTokenizer

        with self._lock:
            if self._shared is None:
                text, ends = self._tokenizer.to_json(), sorted(self._ends)
                self._shared = _Shared(LLTokenizer(text, self._rows, ends), self._vocabulary())
            return self._shared

    def _vocabulary(self) -> "Vocabulary":
        from mtp_mlx.constraint.constrained import vocabulary

        markers = Markers.of(self._tokenizer)
        never = self._ends if markers.call is None else {*self._ends, markers.call}
        return vocabulary(
            rows=self._rows,
            in_thought=[i for i in range(self._tokenizer.vocab_size) if i not in never],
            ends=self._ends,
            opens=-1 if markers.thought is None else markers.thought,
            closes=-1 if markers.thought_end is None else markers.thought_end,
        )


def _compiled(grammar: Grammar, tokenizer: "LLTokenizer") -> "LLMatcher | str":
    """A matcher at its beginning, or what is wrong with the grammar. Raises InvalidSchema for one
    that took too much, which is no verdict to keep."""
    from llguidance import LLMatcher, LLParserLimits

    wrong = CHECKER.check(grammar.checks, grammar.param)
    if wrong is not None:
        return wrong
    limits = LLParserLimits(**LIMITS)
    matcher = LLMatcher(tokenizer, grammar.lark, log_level=SILENT, limits=limits)
    if not matcher.is_error():
        matcher.deep_copy().compute_bitmask()  # what is compiled at first use is shared
    return f"the grammar cannot be enforced: {brief(matcher)}" if matcher.is_error() else matcher
