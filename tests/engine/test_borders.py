"""Which texts are kept: found by their ids alone, counted to the byte, dropped in a known order."""

import random
from collections.abc import Sequence

import pytest

from mtp_mlx.engine.borders import Borders, Found

CHUNK, SPAN, WINDOW = 4, 10, 100
A, B, C = (1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12)


def window_bytes(border: int) -> int:
    return min(border * 20, WINDOW)


def make(budget: int = 10_000) -> Borders[str, str]:
    return Borders(CHUNK, budget, SPAN, window_bytes)


def name(ids: Sequence[int]) -> str:
    """What stands for the K/V of a text."""
    return " ".join(map(str, ids))


def keep(borders: Borders[str, str], ids: Sequence[int], free: int = 1 << 40) -> bool:
    """Keep a whole text as the engine would, if there is room."""
    wanted = borders.make_room(ids, len(ids), free)
    if wanted is None:
        return False
    spans = {start: name(ids[: start + CHUNK]) for start in wanted.starts}
    return borders.keep(ids, len(ids), spans, name(ids))


def borders_of(*texts: tuple[int, ...], budget: int = 10_000) -> Borders[str, str]:
    made = make(budget)
    for text in texts:
        assert keep(made, text)
    return made


def test_a_text_is_found_up_to_the_last_border_that_the_prompt_shares_with_it():
    kept = borders_of(A, A + B, A + B + C)
    assert kept.find(A + B + (9, 9, 9)) == Found(8, (name(A), name(A + B)), name(A + B), None)
    assert kept.find(A + B + C).border == 12
    assert kept.find(A + C).border == 4
    assert kept.find(B + A).border == 0


def test_texts_that_begin_alike_share_the_chunks_they_begin_with():
    kept = borders_of(A + B, A + C)
    assert kept.bytes == 3 * SPAN + 2 * window_bytes(8)
    assert kept.find(A).border == 0  # nobody kept the window there


def test_only_what_is_missing_is_wanted():
    kept = borders_of(A + B)
    wanted = kept.wanted(A + B + C, 12)
    assert wanted is not None
    assert (wanted.starts, wanted.num_bytes) == ((8,), SPAN + WINDOW)
    assert kept.wanted(A + B, 8) is None
    again = kept.wanted(A + B, 4)
    assert again is not None and (again.starts, again.num_bytes) == ((), window_bytes(4))


def test_a_text_whose_last_chunk_is_not_known_yet_is_wanted_whole():
    kept = borders_of(A)
    wanted = kept.wanted((*A, 5, 6), 8)
    assert wanted is not None and wanted.starts == (4,)


def test_a_text_with_a_hole_is_not_kept():
    kept = make()
    assert not kept.keep(A + B, 8, {4: name(A + B)}, name(A + B))
    assert kept.bytes == 0 and not list(kept.texts())


def test_the_least_recently_used_text_goes_first():
    room = 2 * (SPAN + window_bytes(4))
    kept = borders_of(A, B, budget=room)
    kept.find(A)
    assert keep(kept, C)
    assert [ids for ids, _, _ in kept.texts()] == [A, C]


def test_the_middle_of_a_long_text_goes_before_its_end_and_before_other_texts():
    kept = borders_of(C, A, A + B)
    kept.leave(kept.bytes - 1)
    windows = {ids: window for ids, _, window in kept.texts()}
    assert windows == {C: name(C), A: None, A + B: name(A + B)}


def test_a_border_that_somebody_came_back_to_is_no_mere_middle():
    kept = borders_of(A, A + B, A + B + C)
    kept.find((*A, 0, 0, 0, 0))
    kept.leave(kept.bytes - 1)
    assert kept.find(A).border == 4
    assert kept.find(A + B).border == 4


def test_a_text_alone_gives_up_its_last_border_for_the_next():
    kept = borders_of(A, budget=2 * SPAN + window_bytes(8))
    assert keep(kept, A + B)
    assert {ids: window is not None for ids, _, window in kept.texts()} == {A: False, A + B: True}


def test_what_was_made_room_for_and_never_came_is_dropped_later():
    kept = borders_of(A, budget=2 * SPAN + window_bytes(8))
    assert kept.make_room((*A, 5), 8, 1 << 40) is not None  # A stays without its window
    assert kept.bytes == SPAN
    kept.leave(0)
    assert kept.bytes == 0 and not list(kept.texts())


def test_a_text_too_large_for_the_budget_drops_nothing():
    kept = borders_of(A, budget=SPAN + WINDOW)
    assert not keep(kept, B + C)
    assert kept.find(A).border == 4


def test_room_outside_counts_as_well_as_the_budget():
    kept = make()
    assert not keep(kept, A, free=SPAN)
    assert keep(kept, A, free=SPAN + window_bytes(4))
    assert keep(kept, B, free=0)  # A makes way
    assert [ids for ids, _, _ in kept.texts()] == [B]


REASONS = [
    (make(0), A, "is off"),
    (make(), A, "first request"),
    (make(SPAN), A, r"a chunk takes 90 bytes, prompt_cache_bytes is 10"),
    (borders_of(A), A[:3], "of 3 tokens is shorter than a chunk of 4"),
    (borders_of(A + B), (1, 2, 0, 4, 5), "differs at token 2 "),
    (borders_of(A, A + B), (*A, 5, 6, 0, 0), "differs at token 6 "),
]


@pytest.mark.parametrize(("kept", "prompt", "reason"), REASONS)
def test_a_miss_says_why(kept, prompt, reason):
    assert reason in (kept.find(prompt).reason or "")


def test_what_was_dropped_is_remembered():
    kept = borders_of(A, A + B)
    kept.leave(0)
    found = kept.find((*A, *B, 1))
    assert found.border == 0 and found.reason is not None
    assert "evicted: 8 tokens" in found.reason
    assert keep(kept, A + B)
    assert kept.find(A + B).reason is None


def test_a_text_that_goes_on_for_the_first_time_is_no_miss():
    assert borders_of(A).find((*A, 0, 0, 0, 0, 0)).reason is None


# --- the slow twin ------------------------------------------------------------------------------


class Slow:
    """The same rules over plain sets of texts, everything looked for anew each time."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.spans: dict[tuple[int, ...], list[int]] = {}  # -> was found, when used
        self.windows: set[tuple[int, ...]] = set()
        self.clock = 0

    @property
    def bytes(self) -> int:
        return len(self.spans) * SPAN + sum(window_bytes(len(text)) for text in self.windows)

    def use(self, text: tuple[int, ...], was_found: bool = False) -> None:
        self.clock += 1
        self.spans[text] = [int(was_found or self.spans[text][0]), self.clock]

    def find(self, ids: tuple[int, ...]) -> int:
        fitting = [text for text in self.windows if ids[: len(text)] == text]
        if not fitting:
            return 0
        best = max(fitting, key=len)
        self.use(best, was_found=True)
        return len(best)

    def held(self, ids: tuple[int, ...]) -> list[tuple[int, ...]]:
        ends = range(CHUNK, len(ids) + 1, CHUNK)
        return [ids[:end] for end in ends if ids[:end] in self.spans]

    def is_inner(self, text: tuple[int, ...]) -> bool:
        return any(len(o) > len(text) and o[: len(text)] == text for o in self.spans)

    def drop_one(self, spared: tuple[int, ...] | None) -> bool:
        loose = [t for t in self.spans if not (t in self.windows or self.is_inner(t))]
        able = [*self.windows, *(t for t in loose if t != spared)]
        if not able:
            return False
        rank = {t: (bool(self.spans[t][0]) or not self.is_inner(t), self.spans[t][1]) for t in able}
        victim = min(able, key=lambda text: rank[text])
        self.windows.discard(victim)
        for end in range(len(victim), 0, -CHUNK):
            text = victim[:end]
            if text == spared or text in self.windows or self.is_inner(text):
                break
            del self.spans[text]
        return True

    def leave(self, num_bytes: int) -> None:
        while self.bytes > num_bytes:
            assert self.drop_one(None)

    def keep(self, ids: tuple[int, ...], free: int) -> bool:
        limit = min(self.budget, self.bytes + free)
        while True:
            if ids in self.windows:
                self.use(ids)
                return False
            held = self.held(ids)
            whole = len(ids) // CHUNK * SPAN + window_bytes(len(ids))
            if whole > self.budget:
                return False
            if self.bytes + whole - len(held) * SPAN <= limit:
                break
            if not self.drop_one(held[-1] if held else None):
                return False
        for end in range(CHUNK, len(ids) + 1, CHUNK):
            self.spans.setdefault(ids[:end], [0, 0])
        self.windows.add(ids)
        self.use(ids)
        return True


def draw_text(draw: random.Random) -> tuple[int, ...]:
    """Few different chunks, so that texts begin alike."""
    chunks = [draw.choice((A, B, C)) for _ in range(draw.randint(1, 5))]
    return tuple(token for chunk in chunks for token in chunk)


@pytest.mark.parametrize("seed", range(40))
def test_the_tree_does_what_the_slow_twin_does(seed):
    draw = random.Random(seed)
    budget = draw.choice((0, 150, 400, 900, 10_000))
    tree, slow = make(budget), Slow(budget)
    for _ in range(150):
        ids, what = draw_text(draw), draw.random()
        if what < 0.5:
            free = draw.choice((0, 60, 1 << 40))
            assert keep(tree, ids, free) == slow.keep(ids, free)
        elif what < 0.9:
            found = tree.find((*ids, 0))
            assert found.border == slow.find((*ids, 0))
            assert found.spans == tuple(
                name(ids[:end]) for end in range(CHUNK, found.border + 1, CHUNK)
            )
            assert (found.window or "") == name(ids[: found.border])
        else:
            left = draw.randrange(budget + 1)
            tree.leave(left)
            slow.leave(left)
        texts = {ids: window is not None for ids, _, window in tree.texts()}
        assert texts == {text: text in slow.windows for text in slow.spans}
        assert tree.bytes == slow.bytes <= budget
