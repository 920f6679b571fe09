"""Random models of the published shapes, built in memory: no files, quantised tensors as drawn.

Random weights would write loops, and loops share experts as no text does. So the text is
prescribed: after token t comes `successor(t)`, whatever the weights say. The target computes all
that a real one computes and then adds to that token's logit; the drafter likewise, and proposes
what its script says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from mtp_mlx.config import DrafterConfig, TargetConfig
from mtp_mlx.fit import Stored
from mtp_mlx.model.batch import Batch
from mtp_mlx.model.cache import Cache
from mtp_mlx.model.drafter import Drafter
from mtp_mlx.model.head import Logits
from mtp_mlx.model.routes import Routes
from mtp_mlx.model.target import Target
from mtp_mlx.model.view import View
from mtp_mlx.quantization import PACKED_BITS, Quantization
from mtp_mlx.shapes import drafter_shapes, stored, target_shapes
from tests.oracle import Oracle, Place, Proposal, Script

SURE = 1e4  # above all logits of a random model
# A linear congruential generator: all ids in turn, where the vocabulary is a power of two.
FACTOR, STEP = 1021, 7919
SQRT_12 = 12**0.5  # a uniform draw from a range of 1 deviates by its inverse


def successor(token: int, vocab_size: int) -> int:
    """What follows a token in the prescribed text."""
    return (token * FACTOR + STEP) % vocab_size


def text_after(token: int, vocab_size: int, length: int) -> list[int]:
    """The prescribed text from `token` on, itself the first."""
    text = [token]
    while len(text) < length:
        text.append(successor(text[-1], vocab_size))
    return text


def drawn(agreement: float, seed: int, rows: int, length: int) -> Script:
    """Right with probability `agreement`; drawn beforehand, for a round must not wait for it."""
    draws = np.random.default_rng(seed).random((rows, length)) < agreement
    table: list[list[bool]] = draws.tolist()

    def script(place: Place) -> Proposal:
        return "right" if table[place.request_id - 1][place.position % length] else "wrong"

    return script


@dataclass
class Fed:
    """The tokens of a target's last forward."""

    tokens: mx.array = field(default_factory=lambda: mx.zeros((0,), mx.int32))


class PrescribedTarget(Target):
    """A target that writes the prescribed text, at the cost of its own."""

    def __init__(self, config: TargetConfig, weights: Mapping[str, mx.array]) -> None:
        super().__init__(config, weights)
        self._fed = Fed()

    def __call__(self, batch: Batch, cache: Cache, routes: Routes | None = None) -> mx.array:
        self._fed.tokens = batch.tokens
        return super().__call__(batch, cache, routes)

    def logits(self, hidden: mx.array) -> mx.array:
        """Logits [N, V] of the last N tokens that were fed."""
        count, vocab = hidden.shape[0], self.config.vocab_size
        fed = self._fed.tokens[-count:].astype(mx.int32)
        following = (fed * FACTOR + STEP) % vocab
        return super().logits(hidden).at[mx.arange(count), following].add(SURE)


class ScriptedDrafter(Oracle):
    """A real drafter at its real cost, whose proposals are replaced by those of a script."""

    def __init__(self, drafter: Drafter, texts: Mapping[int, list[int]], script: Script) -> None:
        super().__init__(texts, script, drafter.config.vocab_size)
        self._drafter = drafter

    def step(self, embedded: mx.array, hidden: mx.array, view: View) -> tuple[Logits, mx.array]:
        """One step of the drafter; see Drafter.step."""
        logits, after = self._drafter.step(embedded, hidden, view)
        proposed = [
            right if self.script(place) == "right" else (right + 1) % self.vocab_size
            for place, right in self.look(view)
        ]
        rows, tokens = mx.arange(len(proposed)), mx.array(proposed)
        if logits.ids is None:
            return Logits(logits.scores.at[rows, tokens].add(SURE)), after
        ids = mx.concatenate([tokens[:, None], logits.ids[:, 1:]], axis=1)
        return Logits(logits.scores.at[rows, 0].add(SURE), ids), after


def random_target(config: TargetConfig, dtype: mx.Dtype) -> PrescribedTarget:
    """A target with random weights, activations of `dtype`."""
    tensors = stored(target_shapes(config), config.quantization)
    return PrescribedTarget(config, _draw(tensors, config.quantization, dtype))


def random_drafter(config: DrafterConfig, dtype: mx.Dtype) -> Drafter:
    """A drafter likewise."""
    tensors = stored(drafter_shapes(config), config.quantization)
    return Drafter(config, _draw(tensors, config.quantization, dtype))


def _draw(
    tensors: Mapping[str, Stored], quantization: Quantization | None, dtype: mx.Dtype
) -> dict[str, mx.array]:
    """All tensors, each evaluated before the next is drawn."""
    weights: dict[str, mx.array] = {}
    for key, tensor in tensors.items():
        path, _, kind = key.rpartition(".")
        if tensor.dtype == "U32":
            weights[key] = _random_bits(tensor.shape)
        elif kind in ("scales", "biases") and tensors[f"{path}.weight"].dtype == "U32":
            assert quantization is not None
            spec = quantization.of(path)
            assert spec is not None and spec.mode == "affine"
            columns = tensors[f"{path}.weight"].shape[-1] * PACKED_BITS // spec.bits
            scale = SQRT_12 / (2**spec.bits * columns**0.5)
            lowest = -0.5 * (2**spec.bits - 1) * scale
            weights[key] = mx.full(tensor.shape, scale if kind == "scales" else lowest, dtype)
        elif tensor.dtype == "I64":
            weights[key] = mx.random.permutation(tensor.shape[0]).astype(mx.int32)
        elif len(tensor.shape) == 1:  # norms and scalars
            weights[key] = mx.ones(tensor.shape, dtype)
        else:
            weights[key] = mx.random.normal(tensor.shape, dtype, scale=tensor.shape[-1] ** -0.5)
        mx.eval(weights[key])
    return weights


def _random_bits(shape: tuple[int, ...]) -> mx.array:
    """Uint32, all bits random."""
    halves = mx.random.randint(0, 1 << 16, (*shape[:-1], 2 * shape[-1]))
    return halves.astype(mx.uint16).view(mx.uint32)
