"""The calibration at length: every point of the cost curve, and the drafter's two positions.

What it finds is printed and, where the timings are steady, kept for later loads of the same pair
on the same machine.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mtp_mlx import calibration_file
from mtp_mlx.api import LLM
from mtp_mlx.backends import Runtime
from mtp_mlx.calibration_file import Key
from mtp_mlx.engine.calibrated import MAX_SPREAD, scatter
from mtp_mlx.engine.runtime import MlxRuntime
from mtp_mlx.errors import RequestError, Unsupported
from mtp_mlx.measured import Measured, PositionScore
from mtp_mlx.proof import PROMPTS, as_prompts
from mtp_mlx.request import check_number
from mtp_mlx.verdict import Text

Progress = Callable[[str], None]

MAX_SECONDS = 60.0
MOST_SECONDS = 24 * 3600.0
REPEATS = 25  # of each figure, as far as the time goes
# Replies on which the drafter's positions are compared, and tokens of each.
NUM_TEXTS, TEXT_TOKENS = 8, 48
# A position is better from so many times as many tokens a round: less is chance on a few replies.
POSITION_MARGIN = 1.02


@dataclass(frozen=True)
class TuneReport:
    """What was measured, on what, and what became of it.

    num_slots: rows of the widest round. key: machine and pair. stored: the file; None where the
    calibration is not kept. refused: why not, where something is wrong; None also where
    MTP_MLX_CALIBRATION is off, in which case nothing was to be kept.
    """

    num_slots: int
    key: Key
    measured: Measured
    positions: tuple[PositionScore, ...]
    stored: Path | None
    refused: str | None

    @property
    def better(self) -> PositionScore:
        """The position whose drafts last longest; that of the rounds, unless another is clearly
        better."""
        own = self.positions[0]
        best = max(self.positions, key=lambda score: score.tokens_per_round)
        is_clear = best.tokens_per_round > POSITION_MARGIN * own.tokens_per_round
        return best if is_clear else own

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; times in seconds."""
        calibration = self.measured.calibration
        return {
            "machine": asdict(self.key),
            "num_slots": self.num_slots,
            "curve": [asdict(point) for point in self.measured.points],
            **calibration.to_json(),
            "spread_limit": MAX_SPREAD,
            "positions": [score.to_json() for score in self.positions],
            "better_position": self.better.name,
            "stored": None if self.stored is None else str(self.stored),
            "refused": self.refused,
        }


def tune(
    llm: LLM,
    *,
    max_seconds: float = MAX_SECONDS,
    force: bool = False,
    progress: Progress = lambda message: None,
) -> TuneReport:
    """Measure a loaded pair, and keep the calibration for rounds of as many rows as it was loaded
    for. Send it nothing else meanwhile.

    max_seconds: for the costs; the replies that the positions are compared on come on top. force:
    keep it although the timings scatter. `progress` hears what is done next.

    Raises RequestError without a drafter, Unsupported for the NumPy reference.
    """
    check_number("max_seconds", max_seconds, 0.0, MOST_SECONDS)
    if not llm.has_drafter:
        raise RequestError(
            "there is no drafter, and without one nothing is to be tuned; give its folder as "
            "draft_model (--draft-model)",
            param="draft_model",
        )
    may_keep, num_slots = calibration_file.is_on(), llm.stats().slots
    texts = _texts(llm, progress)

    def work(runtime: Runtime) -> TuneReport:
        mlx = _on_mlx(runtime)
        key = mlx.calibration_key()
        measured = mlx.measure_costs(max_seconds, REPEATS, progress)
        positions = mlx.compare_positions(texts, progress)
        spread = measured.calibration.spread
        stored, refused = None, None
        if may_keep and spread > MAX_SPREAD and not force:
            refused = f"{scatter(spread)}; close them and tune again, or keep it with --force"
        elif may_keep:
            try:
                stored = mlx.keep_calibration(measured.calibration)
            except OSError as error:
                refused = f"the file cannot be written: {error}"
        return TuneReport(num_slots, key, measured, positions, stored, refused)

    return llm._worker.call(lambda runtime, _: work(runtime))


def _texts(llm: LLM, progress: Progress) -> tuple[Text, ...]:
    """Prompts with their greedy replies."""
    progress("replies to draft on")
    prompts = [llm.prompt_ids(prompt) for prompt in as_prompts(llm, PROMPTS[:NUM_TEXTS])]
    replies = llm.batch(prompts, temperature=0, num_draft_tokens=0, max_tokens=TEXT_TOKENS)
    pairs = zip(prompts, replies, strict=True)
    return tuple(Text((*prompt, *reply.token_ids), len(prompt)) for prompt, reply in pairs)


def _on_mlx(runtime: Runtime) -> MlxRuntime:
    if not isinstance(runtime, MlxRuntime):
        raise Unsupported("the NumPy reference is not tuned; load with backend='mlx'")
    return runtime
