"""Which texts are kept for the next request, and which go when room is short. No arrays here.

Texts are cut into chunks of equal length from their first token, and kept as a tree: a node is a
text that ends at a chunk border, its path from the root the chunks of that text. Two texts share
the nodes of the chunks that they begin with, found by their exact token ids. A node has

    span     what its last chunk alone left behind; every text that goes on from it needs it
    window   what is needed beside the spans to take a text up at this border; may be dropped

A node with neither window nor children is of no use and goes, its span with it. Windows are dropped
least recently used first, those of borders that lie inside a longer text, and that nobody has come
back to, before all others: of one long prompt the end outlives the middle.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Span = TypeVar("Span")
Window = TypeVar("Window")

# Borders remembered after they were dropped, to say why a request finds nothing.
MAX_DROPPED = 1 << 12


@dataclass(eq=False)
class _Node(Generic[Span, Window]):
    """A text that ends at a chunk border. `digest` stands for its ids among the dropped ones."""

    parent: "_Node[Span, Window] | None"
    chunk: tuple[int, ...]
    border: int
    digest: int
    span: Span | None
    window: Window | None = None
    children: dict[tuple[int, ...], "_Node[Span, Window]"] = field(default_factory=dict)
    used: int = 0
    was_found: bool = False


@dataclass(frozen=True)
class Found(Generic[Span, Window]):
    """The longest kept text that a prompt begins with: `border` tokens, 0 for none.

    `reason`: why there are no more of them; None where nothing longer was ever kept.
    """

    border: int
    spans: tuple[Span, ...]
    window: Window | None
    reason: str | None


@dataclass(frozen=True)
class Wanted:
    """What a text needs to be kept up to `border`: the spans of the chunks that begin at `starts`,
    and the window; `num_bytes` for all."""

    border: int
    starts: tuple[int, ...]
    num_bytes: int


class Borders(Generic[Span, Window]):
    """The texts that are kept in at most `budget` bytes. `chunk`: tokens from border to border."""

    def __init__(
        self, chunk: int, budget: int, span_bytes: int, window_bytes: Callable[[int], int]
    ) -> None:
        """`window_bytes` gives the bytes of a window at a border."""
        self.chunk = chunk
        self.budget = budget
        self.bytes = 0
        self._span_bytes = span_bytes
        self._window_bytes = window_bytes
        self._root: _Node[Span, Window] = _Node(None, (), 0, 0, None)
        self._nodes: dict[int, _Node[Span, Window]] = {}  # all but the root, by id()
        self._dropped: OrderedDict[int, None] = OrderedDict()
        self._was_used = False
        self._clock = 0

    @property
    def is_on(self) -> bool:
        return self.budget > 0

    def find(self, ids: Sequence[int]) -> Found[Span, Window]:
        """The longest kept text that `ids` begins with, which counts as used."""
        path = list(self._path(ids))
        ends = [index for index, node in enumerate(path) if node.window is not None]
        best = path[: ends[-1] + 1] if ends else []
        border = best[-1].border if best else 0
        reason = self._shortfall(ids, path, border)
        if not best:
            return Found(0, (), None, reason)
        self._use(best[-1])
        best[-1].was_found = True
        spans = tuple(node.span for node in best if node.span is not None)
        return Found(border, spans, best[-1].window, reason)

    def wanted(self, ids: Sequence[int], border: int) -> Wanted | None:
        """What is missing to keep a text up to `border`, of which `ids` are known: all but the last
        chunk at least. None where all of it is there, or can never be."""
        path = list(self._path(ids[:border]))
        if path and path[-1].border == border and path[-1].window is not None:
            self._use(path[-1])
            return None
        whole = border // self.chunk * self._span_bytes + self._window_bytes(border)
        if whole > self.budget:
            return None
        starts = tuple(range(len(path) * self.chunk, border, self.chunk))
        missing = len(starts) * self._span_bytes + self._window_bytes(border)
        return Wanted(border, starts, missing)

    def make_room(
        self, ids: Sequence[int], border: int, free: int, promised: int = 0
    ) -> Wanted | None:
        """What the text `ids` wants at `border`, others dropped until it fits: into the budget, of
        which `promised` bytes are taken, and into `free` bytes, which grow by what is dropped.
        None, and it is not to be kept, if that fails."""
        limit = min(self.budget - promised, self.bytes + free)
        while True:
            wanted = self.wanted(ids, border)
            if wanted is None or self.bytes + wanted.num_bytes <= limit:
                return wanted
            path = list(self._path(ids[:border]))
            if not self._drop_one(spared=path[-1] if path else None):
                return None

    def leave(self, num_bytes: int) -> None:
        """Drop texts until at most `num_bytes` are held."""
        while self.bytes > max(num_bytes, 0):
            dropped = self._drop_one(spared=None)
            assert dropped, "bytes are held by no text"

    def keep(
        self, ids: Sequence[int], border: int, spans: Mapping[int, Span], window: Window
    ) -> bool:
        """Keep the text `ids[:border]`: `spans` by the start of their chunk, at least those of the
        chunks that are not held. False, and nothing is kept, where one is missing or it is too
        much."""
        path = list(self._path(ids[:border]))
        starts = range(len(path) * self.chunk, border, self.chunk)
        need = len(starts) * self._span_bytes
        node = path[-1] if path else self._root
        if node.border != border or node.window is None:
            need += self._window_bytes(border)
        if self.bytes + need > self.budget or any(start not in spans for start in starts):
            return False
        for start in starts:
            node = self._grow(node, tuple(ids[start : start + self.chunk]), spans[start])
        node.window = window
        self.bytes += need
        self._dropped.pop(node.digest, None)
        self._was_used = True
        self._use(node)
        return True

    def texts(self) -> Iterator[tuple[tuple[int, ...], Span | None, Window | None]]:
        """Every border that is held: its token ids, the span of its last chunk, its window."""
        for node in self._nodes.values():
            ids: tuple[int, ...] = ()
            at: _Node[Span, Window] | None = node
            while at is not None:
                ids = at.chunk + ids
                at = at.parent
            yield ids, node.span, node.window

    def _path(self, ids: Sequence[int]) -> Iterator[_Node[Span, Window]]:
        """The nodes of the borders of `ids`, as far as they are held."""
        node = self._root
        for start in range(0, len(ids) - self.chunk + 1, self.chunk):
            child = node.children.get(tuple(ids[start : start + self.chunk]))
            if child is None:
                return
            yield child
            node = child

    def _grow(
        self, parent: _Node[Span, Window], chunk: tuple[int, ...], span: Span
    ) -> _Node[Span, Window]:
        border, digest = parent.border + len(chunk), hash((parent.digest, chunk))
        node = _Node(parent, chunk, border, digest, span)
        parent.children[chunk] = node
        self._nodes[id(node)] = node
        return node

    def _use(self, node: _Node[Span, Window]) -> None:
        self._clock += 1
        node.used = self._clock

    def _drop_one(self, spared: _Node[Span, Window] | None) -> bool:
        """Drop the window that is worth least, and what is of no use without it; of `spared` and
        what it stands on the spans stay. False if there is nothing to drop."""
        droppable = [
            node
            for node in self._nodes.values()
            if node.window is not None or not (node.children or node is spared)
        ]
        if not droppable:
            return False
        node = min(droppable, key=lambda node: (node.was_found or not node.children, node.used))
        if node.window is not None:
            node.window = None
            self.bytes -= self._window_bytes(node.border)
            self._note_dropped(node)
        at: _Node[Span, Window] | None = node
        while at is not None and at.parent is not None and at is not spared:
            if at.children or at.window is not None:
                break
            del at.parent.children[at.chunk], self._nodes[id(at)]
            self.bytes -= self._span_bytes
            at = at.parent
        return True

    def _note_dropped(self, node: _Node[Span, Window]) -> None:
        self._dropped[node.digest] = None
        if len(self._dropped) > MAX_DROPPED:
            self._dropped.popitem(last=False)

    def _shortfall(
        self, ids: Sequence[int], path: Sequence[_Node[Span, Window]], border: int
    ) -> str | None:
        """Why a prompt finds no more than `border` tokens, of which `path` are held."""
        if not self.is_on:
            return "the prompt cache is off (prompt_cache_bytes is 0)"
        if len(ids) < self.chunk:
            return f"the prompt of {len(ids):,} tokens is shorter than a chunk of {self.chunk:,}"
        smallest = self._span_bytes + self._window_bytes(self.chunk)
        if smallest > self.budget:
            return f"a chunk takes {smallest:,} bytes, prompt_cache_bytes is {self.budget:,}"
        if dropped := self._longest_dropped(ids, border):
            return f"evicted: {dropped:,} tokens were kept and made room for others"
        if not self._was_used:
            return "first request: no text was kept before it"
        last = path[-1] if path else self._root
        rest = ids[last.border : last.border + self.chunk]
        shared = max((_run(rest, chunk) for chunk in last.children), default=0)
        if border and not (shared and len(rest) == self.chunk):
            return None  # the text goes on from here for the first time
        return f"the prompt differs at token {last.border + shared:,} from every text that is kept"

    def _longest_dropped(self, ids: Sequence[int], border: int) -> int:
        """The longest text beyond `border` that `ids` begins with and that was dropped, or 0."""
        digest, longest = 0, 0
        for start in range(0, len(ids) - self.chunk + 1, self.chunk):
            end = start + self.chunk
            digest = hash((digest, tuple(ids[start:end])))
            if end > border and digest in self._dropped:
                longest = end
        return longest


def _run(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two texts have in common at their beginning."""
    pairs = zip(left, right, strict=False)
    differing = (index for index, (one, other) in enumerate(pairs) if one != other)
    return next(differing, min(len(left), len(right)))
