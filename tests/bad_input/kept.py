"""Keys and values as attention may see them, to compare rows of two engines bit by bit."""

from collections.abc import Sequence

import numpy as np

from mtp_mlx.engine.engine import Engine
from mtp_mlx.model.target import Target
from mtp_mlx.request import Request
from tests.exact.pairs import Outcome, Run

# (layer, position) -> the bytes of its keys and values.
Kept = dict[tuple[int, int], bytes]


def kept(engine: Engine, slot: int) -> Kept:
    """The committed keys of a row, in sliding layers those of the window."""
    cache, found = engine.cache, {}
    length = cache.lengths[slot]
    for layer, full in cache.full.items():
        if length:
            keys, values = (np.array(part) for part in full.read(slot, length))
            found |= {
                (layer, at): keys[:, at].tobytes() + values[:, at].tobytes() for at in range(length)
            }
    for layer, ring in cache.window.items():
        if slot >= ring.num_slots:
            continue
        positions = np.arange(max(0, length - ring.window), length)
        places = ring.places(slot, positions)
        keys, values = np.array(ring.keys), np.array(ring.values)
        for at, place in zip(positions.tolist(), places, strict=True):
            found[layer, at] = keys[place].tobytes() + values[place].tobytes()
    return found


class Solo:
    """A request decoded plainly and alone: its outcome, and all that its cache ever held."""

    def __init__(self, target: Target, request: Request, chunk: int) -> None:
        engine = Engine(target, None, max_num_seqs=1, chunk=chunk)
        run, self.kept = Run(engine), Kept()
        bare = Request(
            prompt=request.prompt, sampling=request.sampling, max_tokens=request.max_tokens
        )
        run.submit(bare)
        while not engine.is_idle:
            run.step()
            self.kept |= kept(engine, 0)
        self.outcome: Outcome = run.outcomes[1]


def check_rows(engine: Engine, solos: Sequence[Solo]) -> int:
    """Every row that runs holds, bit by bit, what it would alone; how many keys were compared.

    The solo of request i + 1 is solos[i].
    """
    compared = 0
    for sequence in engine.sequences:
        own = kept(engine, sequence.slot)
        want = solos[sequence.id - 1].kept
        wrong = [place for place, data in own.items() if want.get(place, data) != data]
        assert not wrong, f"request {sequence.id}: (layer, position) {wrong[:4]} differ"
        compared += len(own.keys() & want.keys())
    return compared
