"""Trains a target: next-token loss on the world's texts, with balanced experts for `tiny-moe`."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import transformers

from training import corpus, shapes
from training.optimizer import Optimizer

BALANCE = 0.02
RATE = 1.2e-2
POLISH_RATE = 6e-3
SETTLE_RATE = 4e-3
BATCH_TOKENS = 2048
INITIAL_POST_NORM = 0.3
SCALAR_RANGE = (0.9, 1.1)  # layer_scalar is an untrained buffer; not 1, so that loaders are tested


def new_target(name: str, seed: int) -> torch.nn.Module:
    """A target with seeded random weights, float32."""
    torch.manual_seed(seed)
    config = transformers.Gemma4TextConfig(**shapes.target_config(name)["text_config"])
    kinds = {"attn_implementation": "sdpa", "experts_implementation": "grouped_mm"}
    model = transformers.Gemma4ForCausalLM._from_config(config, **kinds).float().train()
    draw = np.random.RandomState(seed)
    for key, tensor in model.named_parameters():
        with torch.no_grad():
            if key.endswith("embed_tokens.weight"):
                tensor.normal_(std=config.hidden_size**-0.5)
            elif "post_" in key and key.endswith("norm.weight"):
                tensor.fill_(INITIAL_POST_NORM)
            elif tensor.ndim >= 2:
                tensor.normal_(std=tensor.shape[-1] ** -0.5)
    for key, buffer in model.named_buffers():
        if key.endswith("layer_scalar"):
            buffer.fill_(draw.uniform(*SCALAR_RANGE))
    return model


class Routers:
    """Collects what the routers of one forward did."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        for module in model.modules():
            if type(module).__name__ == "Gemma4TextRouter":
                module.register_forward_hook(self._record)

    def _record(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        self._seen.append((output[0], output[2]))

    def balance_loss(self) -> torch.Tensor | float:
        """Mean over layers of E · Σ (share of choices · mean probability): 1 when balanced.

        Fedus et al. 2021 (Switch Transformers), equation 4.
        """
        losses = []
        for probabilities, chosen in self._seen:
            num_experts = probabilities.shape[-1]
            counts = torch.bincount(chosen.reshape(-1), minlength=num_experts)
            shares = counts / chosen.numel()
            losses.append(num_experts * (shares * probabilities.mean(dim=0)).sum())
        self._seen.clear()
        return sum(losses) / len(losses) if losses else 0.0


def train(
    name: str,
    model: torch.nn.Module,
    source: Iterator[corpus.Text],
    num_tokens: int,
    rate: float,
) -> None:
    """Train a target on about `num_tokens` tokens of `source`; the rate ends at 0."""
    model.train()
    routers = Routers(model)
    steps = num_tokens // BATCH_TOKENS
    optimizer = Optimizer(model.named_parameters(), steps, rate)
    batches = corpus.batches(source, BATCH_TOKENS)
    started, losses = time.perf_counter(), []
    for step in range(steps):
        ids, weights = (torch.from_numpy(array) for array in next(batches))
        logits = model(input_ids=ids, use_cache=False).logits
        loss = weighted_loss(logits[:, :-1], ids[:, 1:], weights[:, 1:])
        (loss + BALANCE * routers.balance_loss()).backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 50 == 49:
            elapsed = time.perf_counter() - started
            print(
                f"{name} target step {step + 1}/{steps} loss {np.mean(losses[-50:]):.4f} "
                f"{elapsed:.0f} s",
                flush=True,
            )
    model.eval()


def weighted_loss(logits: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of ids [B, L] under logits [B, L, V], weighted by [B, L]."""
    entropy = torch.nn.functional.cross_entropy
    losses = entropy(logits.flatten(0, 1), ids.flatten(), reduction="none")
    return (losses * weights.flatten()).sum() / weights.sum()
