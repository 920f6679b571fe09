"""Transformers' Gemma 4 run on the tiny pairs: what the goldens are made of (PyTorch, CPU)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers

DRAFT_STEPS = 3


@dataclass
class Pair:
    """A target and its drafter as Transformers modules of one precision."""

    target: torch.nn.Module
    drafter: torch.nn.Module


def build_pair(target_config: dict[str, Any], drafter_config: dict[str, Any]) -> Pair:
    """Uninitialised float32 modules; checks that Transformers keeps every key of the configs."""
    unified = target_config["model_type"] == "gemma4_unified"
    family = "Gemma4Unified" if unified else "Gemma4"
    text_class = getattr(transformers, f"{family}TextConfig")
    text_config = text_class(**target_config["text_config"])
    _check_agreement(target_config["text_config"], text_config.to_dict())
    assistant_config = getattr(transformers, f"{family}AssistantConfig")(**drafter_config)
    _check_agreement(drafter_config, assistant_config.to_dict())
    kinds = {"attn_implementation": "eager", "experts_implementation": "eager"}
    target = getattr(transformers, f"{family}ForCausalLM")._from_config(text_config, **kinds)
    drafter_class = getattr(transformers, f"{family}AssistantForCausalLM")
    return Pair(target.eval(), drafter_class._from_config(assistant_config, **kinds).eval())


def _check_agreement(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    for key, value in ours.items():
        if isinstance(value, dict):
            _check_agreement(value, theirs.get(key, {}))
        elif theirs.get(key) != value:
            raise ValueError(f"config key {key}: ours {value!r}, Transformers {theirs.get(key)!r}")


def manifest(model: torch.nn.Module) -> dict[str, str]:
    """Canonical key -> "float32[256, 64]" of every saved tensor; the tied head has none."""
    return {
        key.removeprefix("model."): f"{str(value.dtype).removeprefix('torch.')}{[*value.shape]}"
        for key, value in sorted(model.state_dict().items())
        if key != "lm_head.weight"
    }


def load(model: torch.nn.Module, weights: dict[str, np.ndarray]) -> None:
    """Copy canonical tensors into a module; every saved tensor must be given."""
    names = {key.removeprefix("model."): key for key in model.state_dict()}
    state = {names[key]: torch.from_numpy(value) for key, value in weights.items()}
    missing = model.load_state_dict(state, strict=False).missing_keys
    if set(missing) - {"lm_head.weight"}:
        raise ValueError(f"tensors without a value: {missing}")
    if model.lm_head.weight.data_ptr() != model.model.embed_tokens.weight.data_ptr():
        raise ValueError("the output head is not tied to the embedding")


def to_float64(model: torch.nn.Module) -> torch.nn.Module:
    """The module in float64, with embedding scales and RoPE frequencies recomputed in float64."""
    model.double()
    for module in model.modules():
        if hasattr(module, "scalar_embed_scale"):
            module.embed_scale = torch.tensor(module.scalar_embed_scale, dtype=torch.float64)
        for layer_type in getattr(module, "rope_type", {}):
            frequencies = _inverse_frequencies(module.config, layer_type)
            setattr(module, f"{layer_type}_inv_freq", frequencies)
    return model


def _inverse_frequencies(config: Any, layer_type: str) -> torch.Tensor:
    """float64 [head size / 2], as section 2.6 of the specification."""
    rope = config.rope_parameters[layer_type]
    full = layer_type == "full_attention"
    size = config.global_head_dim if full else config.head_dim
    rotated = int(rope.get("partial_rotary_factor", 1.0) * size // 2)
    pairs = torch.arange(size // 2, dtype=torch.float64)
    frequencies = rope["rope_theta"] ** (-2.0 * pairs / size)
    return torch.where(pairs < rotated, frequencies, 0.0)


@contextmanager
def float64_internals() -> Iterator[None]:
    """Make the reference's own casts to float32 (norms, softmax, RoPE) casts to float64."""
    softmax = torch.nn.functional.softmax

    def wide_softmax(scores: torch.Tensor, dim: int = -1, dtype: Any = None) -> torch.Tensor:
        return softmax(scores, dim=dim, dtype=torch.float64)

    torch.Tensor.float = torch.Tensor.double
    torch.nn.functional.softmax = wide_softmax
    try:
        yield
    finally:
        del torch.Tensor.float
        torch.nn.functional.softmax = softmax


@contextmanager
def recorded(modules: Sequence[torch.nn.Module]) -> Iterator[list[Any]]:
    """Collect what the modules return, in call order."""
    outputs: list[Any] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        for module in modules
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def run_target(target: torch.nn.Module, ids: np.ndarray) -> dict[str, np.ndarray]:
    """One full forward over ids [L].

    Returns logits [L, V], post-norm hidden [L, H], layers [layers, L, H] (each layer's output),
    and the last owning layer's key and value per type, `key_sliding` etc. [K/V heads, L, size].
    """
    with recorded(target.model.layers) as layers, recorded([target.model]) as bodies:
        logits = _forward(target, ids).logits[0]
    arrays = {
        "logits": logits.numpy(),
        "hidden": bodies[0].last_hidden_state[0].numpy(),
        "layers": torch.cat(layers).numpy(),
    }
    for layer_type, states in bodies[0].shared_kv_states.items():
        kind = layer_type.removesuffix("_attention")
        arrays[f"key_{kind}"], arrays[f"value_{kind}"] = (state[0].numpy() for state in states)
    return arrays


def _forward(target: torch.nn.Module, ids: np.ndarray) -> Any:
    with torch.no_grad():
        return target(
            input_ids=torch.from_numpy(ids)[None], use_cache=False, return_shared_kv_states=True
        )


def greedy(target: torch.nn.Module, ids: np.ndarray, count: int) -> np.ndarray:
    """int64 [count]: continuation by argmax, the whole text recomputed for every token."""
    text = ids
    for _ in range(count):
        token = _forward(target, text).logits[0, -1].argmax()
        text = np.append(text, token.numpy())
    return text[len(ids) :]


def draft_chain(
    pair: Pair, ids: np.ndarray, sliding_keys: int | None = None
) -> dict[str, np.ndarray]:
    """Three draft steps from the pending token ids[-1] after a target run over ids[:-1].

    The query position is n = len(ids) - 1 in every step. The drafter's sliding layers see
    what Transformers' mask shows, W + 1 keys, or the newest `sliding_keys`.
    Returns logits [3, V] (unselected tokens of an ordered head hold Transformers' fill value),
    hidden [3, H] (handed to the next step) and tokens [3].
    """
    count = len(ids) - 1
    with recorded([pair.target.model]) as bodies:
        _forward(pair.target, ids[:-1])
    shared = dict(bodies[0].shared_kv_states)
    if sliding_keys is not None:
        states = shared["sliding_attention"]
        shared["sliding_attention"] = tuple(state[:, :, -sliding_keys:] for state in states)
    hidden = bodies[0].last_hidden_state[:, -1:]
    token = torch.tensor([[ids[-1]]])
    steps = []
    for _ in range(DRAFT_STEPS):
        logits, hidden = _draft_step(pair, token, hidden, shared, count)
        token = logits.argmax(dim=-1)
        steps.append((logits[0, 0].numpy(), hidden[0, 0].numpy(), token[0, 0].numpy()))
    columns = (np.stack(column) for column in zip(*steps, strict=True))
    return dict(zip(("logits", "hidden", "tokens"), columns, strict=True))


def _draft_step(
    pair: Pair, token: torch.Tensor, hidden: torch.Tensor, shared: dict[str, Any], count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [1, 1, V] and hidden [1, 1, H] after one token [1, 1] with hidden [1, 1, H]."""
    with torch.no_grad():
        embedding = pair.target.model.embed_tokens(token)
        step = pair.drafter(
            inputs_embeds=torch.cat([embedding, hidden], dim=-1),
            position_ids=torch.tensor([[count]]),
            attention_mask=torch.ones(1, count + 1, dtype=torch.long),
            shared_kv_states=shared,
            use_cache=False,
        )
    return step.logits, step.last_hidden_state
