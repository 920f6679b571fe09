"""What of a job is timed, and what is counted."""

from contextlib import nullcontext

from bench.peers.child import play
from bench.peers.job import Job
from bench.peers.meter import Counts

PLAIN, DRAFTED = [1] * 5, [3, 2]  # ids a round of 6, behind the first


class Rounds:
    """Two rows that get so many ids in each forward."""

    distribution, note = "", None

    def __init__(self, *rows: list[int]) -> None:
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


def test_counted_is_as_long_as_all_rows_decode():
    done = play(Rounds(PLAIN, DRAFTED), Job([[1], [1]], 6, 0, counts=True))
    assert (done.forwards, done.rows, done.reads) == (2, 4, 2)
    assert done.decode_tokens == 2 + 5  # the other row's of the same rounds with them
    assert 0 < done.decode_s < done.whole_s


def test_timed_is_the_whole():
    done = play(Rounds(PLAIN, DRAFTED), Job([[1], [1]], 6, 0))
    assert (done.forwards, done.decode_tokens) == (0, 10)
    assert 0 < done.decode_s < done.whole_s
