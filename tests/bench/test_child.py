"""What of a job is timed, and what is counted."""

from contextlib import nullcontext
from itertools import islice

import pytest

from bench.peers.child import TooShort, play
from bench.peers.job import Job
from bench.peers.meter import Counts

PLAIN, DRAFTED = (1,) * 5, (3, 2)  # ids a round of 6, behind the first


class Rounds:
    """Rows that get so many ids in each forward, after their first one."""

    distribution, note = "", None

    def __init__(self, *rows: tuple[int, ...]) -> None:
        self.meter, self._rows = self, [list(row) for row in rows]
        self.counts = Counts()

    def counting(self):
        return nullcontext()

    def run(self, prompts, tokens, drafts):
        for row, _ in enumerate(self._rows):
            yield row, [0]
        while any(self._rows):
            self.counts += Counts(forwards=1, rows=sum(map(bool, self._rows)), reads=1)
            for row, ids in enumerate(self._rows):
                if ids:
                    yield row, [0] * ids.pop(0)


@pytest.mark.parametrize("rows", [(PLAIN, DRAFTED), (DRAFTED, PLAIN)])
def test_counted_is_as_long_as_all_rows_decode(rows):
    done = play(Rounds(*rows), Job([[1], [1]], 6, 0, counts=True))
    assert (done.forwards, done.rows, done.reads) == (2, 4, 2)
    assert done.decode_tokens == 2 + 5  # the other row's of the same rounds with them
    assert 0 < done.decode_s < done.whole_s


class Late(Rounds):
    """The last row has its first id behind so many forwards of the others."""

    def __init__(self, forwards: int, *rows: tuple[int, ...]) -> None:
        super().__init__(*rows)
        self._forwards = forwards

    def run(self, prompts, tokens, drafts):
        yield 0, [0]
        for _ in range(self._forwards):
            self.counts += Counts(forwards=1, rows=1, reads=1)
            yield 0, [0] * self._rows[0].pop(0)
        yield from islice(super().run(prompts, tokens, drafts), 1, None)


def test_a_row_that_ends_before_all_decode_is_no_count():
    done = play(Late(1, DRAFTED, PLAIN), Job([[1], [1]], 6, 0, counts=True))
    assert (done.forwards, done.rows) == (1, 2)
    with pytest.raises(TooShort, match=r"6 ids a row, 2 rows, drafts 3: .* ask for more tokens"):
        play(Late(2, DRAFTED, PLAIN), Job([[1], [1]], 6, 3, counts=True))


def test_timed_is_the_whole():
    done = play(Rounds(PLAIN, DRAFTED), Job([[1], [1]], 6, 0))
    assert (done.forwards, done.decode_tokens) == (0, 10)
    assert 0 < done.decode_s < done.whole_s
