"""Muon for weight matrices, AdamW for everything else, and one schedule for both."""

from collections import defaultdict
from collections.abc import Iterable

import torch

WARMUP = 0.03  # of all steps
CONSTANT = 0.4  # of all steps, before the rate falls to 0
WEIGHT_DECAY = 0.02
MOMENTUM = 0.95
# The quintic of Jordan et al. 2024, which brings singular values near 1 in five turns.
QUINTIC = (3.4445, -4.7750, 2.0315)
TURNS = 5


class Muon:
    """Steps along the nearest orthogonal matrix to the momentum (Jordan et al. 2024).

    Torch's own computes in bfloat16, which is slow on a CPU; here equal shapes go together in
    float32. A tensor [E, rows, columns] of experts is E matrices. Steps have AdamW's usual size,
    0.2 · sqrt(longer side) (Liu et al. 2025).
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self._groups: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            self._groups[parameter.shape].append(parameter)
        self._momenta = {
            shape: torch.zeros(len(group), *shape) for shape, group in self._groups.items()
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for shape, group in self._groups.items():
            gradients = torch.stack([_gradient(parameter) for parameter in group])
            momenta = self._momenta[shape].lerp_(gradients, 1 - MOMENTUM)
            mixed = gradients.lerp_(momenta, MOMENTUM)
            updates = _orthogonal(mixed.reshape(-1, *shape[-2:])).reshape(mixed.shape)
            for parameter, update in zip(group, updates, strict=True):
                parameter.mul_(1 - rate * WEIGHT_DECAY)
                parameter.add_(update, alpha=-0.2 * max(shape[-2:]) ** 0.5 * rate)


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None, "every matrix takes part in the loss"
    return parameter.grad


def _orthogonal(batch: torch.Tensor) -> torch.Tensor:
    """About U V^T for each matrix U S V^T of a batch [n, rows, columns]."""
    is_tall = batch.shape[1] > batch.shape[2]
    x = batch.mT if is_tall else batch
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(TURNS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if is_tall else x


class Optimizer:
    """Both together. Learning rates rise, stay, then fall to nothing."""

    def __init__(
        self, named: Iterable[tuple[str, torch.nn.Parameter]], steps: int, rate: float
    ) -> None:
        matrices, others = [], []
        for name, parameter in named:
            is_matrix = parameter.ndim >= 2 and "embed" not in name and "lm_head" not in name
            (matrices if is_matrix else others).append(parameter)
        self._parameters = [*matrices, *others]
        self._steps, self._rate, self._done = steps, rate, 0
        self._muon = Muon(matrices)
        self._adam = torch.optim.AdamW(
            others, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY, fused=True
        )

    def step(self) -> None:
        """Apply the gradients, clipped to norm 1, and clear them."""
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        rate = self._rate * self._share()
        self._muon.step(rate)
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        for parameter in self._parameters:
            parameter.grad = None
        self._done += 1

    def _share(self) -> float:
        """The schedule's share of the full rate at this step."""
        done = self._done / self._steps
        if done < WARMUP:
            return (self._done + 1) / (WARMUP * self._steps + 1)
        return min(1.0, (1.0 - done) / (1.0 - CONSTANT))
