"""Reports of made-up samples."""

from mtp_mlx.measure.report import PLAIN, SERVER, Line, Reading, Report, Settings
from mtp_mlx.measure.sample import Rounds, Sample
from mtp_mlx.measure.where import Where
from mtp_mlx.measured import Point

MIB = 1 << 20
WHERE = Where("a chip, 2 cores", "Linux 6 x86_64", 8 << 30, "3.11.7", "0.32.4", "0.1.0", None, None)
JITTER = (1.0, 1.02, 0.98)  # of the seconds, by repeat


def samples(
    speed: float, accepted: int = 0, text: str = "a", decision: str | None = None
) -> tuple[Sample, ...]:
    """Three repeats of 100 tokens in 40 rounds, 1 MiB more memory in each."""
    drafted = 60 if accepted else 0
    return tuple(
        Sample(
            prompt_tokens=20,
            tokens=100,
            seconds=100 / speed * factor,
            first_s=(0.1, 0.3),
            row_tokens_per_s=(speed / 2,),
            texts=(text, "b"),
            rounds=Rounds(40, 40, drafted, accepted, 100, 1.0, 0.75),
            peak_bytes=(index + 1) * MIB,
            decision=decision,
        )
        for index, factor in enumerate(JITTER)
    )


def served(speed: float) -> tuple[Sample, ...]:
    """What a client sees of another server."""
    return tuple(
        Sample(20, 100, 100 / speed * factor, (0.2, 0.2), (), ("a", "b")) for factor in JITTER
    )


def report(*, has_server: bool = False, costs: int = 7) -> Report:
    """Batches of 1 and 4, plain, with 3 drafts and with auto, which is twice as fast."""
    lines = []
    for rows, is_alike in ((1, False), (4, False), (4, True)):
        plain = samples(10.0 * rows)
        other = served(8.0 * rows) if has_server else None
        ours = {
            PLAIN: plain,
            3: samples(10.1 * rows, 30),
            "auto": samples(20.0 * rows, 45, "c", "drafts 5"),
        }
        found = {**ours, SERVER: other} if other else ours
        lines += [Line(rows, is_alike, kind, own, plain, other) for kind, own in found.items()]
    return Report(
        model="target",
        draft_model="drafter",
        dtype="float32",
        note=None,
        where=WHERE,
        settings=Settings((1, 4), (3, "auto"), 3, 128, 512, 1.0),
        server="http://127.0.0.1:1" if has_server else None,
        readings=(Reading(1, 512, samples(1.0)),),
        lines=tuple(lines),
        costs=tuple(Point(1 << power, 1e-3 * (1 + power), 0.01) for power in range(costs)),
        cost_host_s=5e-4 if costs else 0.0,
    )
