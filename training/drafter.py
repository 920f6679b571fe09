"""Trains a drafter on its frozen target: all anchors of a text in one forward, steps unrolled.

Anchor n stands for a round whose pending token is n: the query sits at position n in every step,
sees keys 0..n-1 of the target's last sliding and last full K/V layer (the sliding ones only the
window's newest), and starts from the target's state of token n-1. Step s is fed token n+s and its
own last output, as at run time after s accepted drafts.
"""

import time
from collections.abc import Iterator

import numpy as np
import torch
import transformers

from training import corpus, shapes
from training.optimizer import Optimizer

STEPS = 4
STEP_DECAY = 0.8
RATE = 1.2e-2
BATCH_TOKENS = 2048
INITIAL_POST_NORM = 0.3
SCALAR_RANGE = (0.9, 1.1)


def new_drafter(name: str, target: torch.nn.Module, seed: int) -> torch.nn.Module:
    """A drafter whose head and projections span the target's embedding; the rest is random."""
    torch.manual_seed(seed)
    config = transformers.Gemma4AssistantConfig(**shapes.drafter_config(name))
    model = transformers.Gemma4AssistantForCausalLM._from_config(config, attn_implementation="sdpa")
    model = model.float().train()
    table = target.model.embed_tokens.weight.detach()
    size = model.model.embed_tokens.weight.shape[1]
    basis = torch.linalg.svd(table, full_matrices=False).Vh[:size]  # [h, H]
    draw = np.random.RandomState(seed)
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            if "post_" in key and key.endswith("norm.weight"):
                tensor.fill_(INITIAL_POST_NORM)
            elif tensor.ndim >= 2:
                tensor.normal_(std=tensor.shape[-1] ** -0.5)
        model.model.embed_tokens.weight.copy_(table @ basis.T)
        model.pre_projection.weight.copy_(torch.cat([basis, basis], dim=1))
        model.post_projection.weight.copy_(basis.T)
        for key, buffer in model.named_buffers():
            if key.endswith("layer_scalar"):
                buffer.fill_(draw.uniform(*SCALAR_RANGE))
    return model


class Anchors:
    """What the target knows of a batch of texts, and the masks of its anchors."""

    def __init__(self, target: torch.nn.Module, ids: torch.Tensor) -> None:
        with torch.no_grad():
            body = target.model(input_ids=ids, use_cache=False, return_shared_kv_states=True)
            self.embedded = target.model.embed_tokens(ids)
            logits = target.lm_head(body.last_hidden_state)
            cap = target.config.final_logit_softcapping
            self.log_probs = (torch.tanh(logits / cap) * cap).log_softmax(dim=-1)
        self.states = body.last_hidden_state.roll(1, dims=1)  # of token n - 1
        self.keys_values = dict(body.shared_kv_states)
        length, window = ids.shape[1], target.config.sliding_window
        at = torch.arange(length)
        before = (at[None, :] < at[:, None]) | (at[:, None] == 0)  # anchor 0 has no key: unused
        near = before & (at[None, :] >= at[:, None] - window)
        self.masks = {"full_attention": before[None, None], "sliding_attention": near[None, None]}
        self.positions = at[None]

    def steps(self, drafter: torch.nn.Module) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Per step, logits [B, L, V] and the states before the head [B, L, h]."""
        states = self.states
        for step in range(STEPS):
            inputs = torch.cat([self.embedded.roll(-step, dims=1), states], dim=-1)
            body = drafter.model(
                inputs_embeds=drafter.pre_projection(inputs),
                attention_mask=self.masks,
                position_ids=self.positions,
                shared_kv_states=self.keys_values,
                use_cache=False,
            )
            states = drafter.post_projection(body.last_hidden_state)
            yield drafter.lm_head(body.last_hidden_state), body.last_hidden_state


def train(
    name: str,
    target: torch.nn.Module,
    source: Iterator[corpus.Text],
    num_tokens: int,
    seed: int,
) -> torch.nn.Module:
    """A drafter of `target`, trained on about `num_tokens` tokens of `source`."""
    drafter = new_drafter(name, target, seed)
    steps = num_tokens // BATCH_TOKENS
    named = [(k, p) for k, p in drafter.named_parameters() if "masked_embedding" not in k]
    optimizer = Optimizer(named, steps, RATE)
    batches = corpus.batches(source, BATCH_TOKENS)
    started, agreed = time.perf_counter(), []
    for at in range(steps):
        ids, weights = (torch.from_numpy(array) for array in next(batches))
        loss, agreement = _loss(drafter, Anchors(target, ids), weights)
        loss.backward()
        optimizer.step()
        agreed.append(agreement)
        if at % 50 == 49:
            rates = " ".join(f"{rate:.3f}" for rate in np.mean(agreed[-50:], axis=0))
            elapsed = time.perf_counter() - started
            print(
                f"{name} drafter step {at + 1}/{steps} agrees {rates} {elapsed:.0f} s", flush=True
            )
    return drafter.eval()


def _loss(
    drafter: torch.nn.Module, anchors: Anchors, weights: torch.Tensor
) -> tuple[torch.Tensor, list[float]]:
    """Half cross entropy with the target's argmax, half with its distribution, over all steps.

    Also the weighted share of drafts that equal the target's argmax, per step.
    """
    total = torch.zeros(())
    agreed = []
    for step, (logits, _) in enumerate(anchors.steps(drafter)):
        expected = anchors.log_probs.roll(-step, dims=1)
        counts = counted(weights, step)
        log_probs = logits.log_softmax(dim=-1)
        best = expected.argmax(dim=-1)
        hard = -log_probs.gather(-1, best[..., None])[..., 0]
        soft = -(expected.exp() * log_probs).sum(dim=-1)
        total = total + STEP_DECAY**step * ((hard + soft) / 2 * counts).sum() / counts.sum()
        hits = (log_probs.argmax(dim=-1) == best).float()
        agreed.append(((hits * counts).sum() / counts.sum()).item())
    return total, agreed


def counted(weights: torch.Tensor, step: int) -> torch.Tensor:
    """Weights [B, L] of the tokens that step `step` of each anchor predicts; 0 where none is."""
    counts = weights.roll(-step - 1, dims=1)
    counts[:, weights.shape[1] - step - 1 :] = 0
    counts[:, 0] = 0  # no key to read
    return counts
