"""Tiny seeded Gemma 4 pairs: their configs, weights and checkpoints on disk.

`<variant>.json` holds both configs, the seeds and a manifest of every tensor; weights are drawn
from it with NumPy's frozen `RandomState` stream, so that no weights are committed. Tensor names
are canonical: Hugging Face's text-only names without the `model.` prefix. Floats are float32.
`<variant>.npz` holds what Transformers computes with these weights (see `make.py`).
"""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.golden import vocabulary
from training import gemma_files

HERE = Path(__file__).resolve().parent
VARIANTS = ("e2b", "e4b", "12b", "26b", "31b")
PROMPT_LENGTHS = (1, 23, 72)
LAYOUT_PREFIXES = {
    "hf": "model.language_model.",
    "hf-text": "model.",
    "mlx": "language_model.model.",
}
DIALECTS = ("classic", "5.23")
DRAFTER_ROOTS = ("pre_projection.", "post_projection.", "masked_embedding.")
Weights = dict[str, np.ndarray]


def record(variant: str) -> dict[str, Any]:
    """What `<variant>.json` says: seeds, scales, and per model config, manifest and hash."""
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; known: {', '.join(VARIANTS)}")
    return json.loads((HERE / f"{variant}.json").read_text(encoding="utf-8"))


def golden(variant: str) -> Weights:
    """Every array of `<variant>.npz`; see `make.py` for names and shapes."""
    with np.load(HERE / f"{variant}.npz") as arrays:
        return dict(arrays)


def target_config(variant: str) -> dict[str, Any]:
    """The target's config.json (multimodal wrapper, classic dialect)."""
    return record(variant)["target"]["config"]


def drafter_config(variant: str) -> dict[str, Any]:
    """The drafter's config.json (classic dialect)."""
    return record(variant)["drafter"]["config"]


def target_weights(variant: str) -> Weights:
    """Canonical key -> tensor of the target, Hugging Face layout (fused experts)."""
    return _recorded_weights(variant, "target")


def drafter_weights(variant: str) -> Weights:
    """Canonical key -> tensor of the drafter."""
    return _recorded_weights(variant, "drafter")


def _recorded_weights(variant: str, role: str) -> Weights:
    stored = record(variant)
    part = stored[role]
    weights = draw_weights(part["manifest"], part["seed"], part["scales"])
    digest = weights_sha256(weights)
    if digest != part["sha256"]:
        raise ValueError(
            f"{variant} {role}: drawn weights hash to {digest}, {variant}.json says"
            f" {part['sha256']}; the random stream differs or the file needs `make.py`"
        )
    return weights


def prompt(length: int, seed: int) -> np.ndarray:
    """int64 [length]: `<bos>`, then seeded ids in [3, 256)."""
    body = np.random.RandomState(seed).randint(3, vocabulary.VOCAB_SIZE, size=length - 1)
    return np.concatenate([[2], body]).astype(np.int64)


def draw_weights(manifest: dict[str, str], seed: int, scales: dict[str, float]) -> Weights:
    """Draw every tensor of a manifest (key -> "float32[256, 64]") in sorted key order."""
    random = np.random.RandomState(seed)
    weights = {}
    for key in sorted(manifest):
        dtype, shape = manifest[key].rstrip("]").split("[")
        sizes = tuple(int(size) for size in shape.split(","))
        weights[key] = _draw(random, key, sizes, scales).astype(dtype)
    return weights


def _draw(
    random: np.random.RandomState, key: str, shape: tuple[int, ...], scales: dict[str, float]
) -> np.ndarray:
    """One tensor; the name decides its distribution."""
    if key.endswith("token_ordering"):
        return random.permutation(shape[0])
    if key.endswith("layer_scalar"):
        return random.uniform(0.5, 1.0, size=shape)
    if "norm" in key or key.endswith(("router.scale", "per_expert_scale")):
        gain = scales["final_norm"] if key == "norm.weight" else 1.0
        gain = scales["query_norm"] if key.endswith("q_norm.weight") else gain
        return gain * (1.0 + 0.3 * random.standard_normal(shape))
    kind = "embedding" if key.startswith("embed_tokens") else "weight"
    return scales[kind] * random.standard_normal(shape)


def weights_sha256(weights: Weights) -> str:
    """Hash of names, types, shapes and little-endian bytes in sorted key order."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        array = weights[key]
        digest.update(f"{key} {array.dtype} {list(array.shape)}\n".encode())
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def dialect_523(config: dict[str, Any]) -> dict[str, Any]:
    """A classic config as Transformers 5.23 writes it: geometry of full layers by index.

    Indices are strings padded with zeros to the width of the largest ("05" beside "11").
    """
    changed = copy.deepcopy(config)
    text = changed.get("text_config", changed)
    geometry = {"head_dim": text.pop("global_head_dim")}
    heads = text.pop("num_global_key_value_heads")
    if heads is not None and text["attention_k_eq_v"]:
        geometry["num_key_value_heads"] = heads
    full = [i for i, kind in enumerate(text["layer_types"]) if kind == "full_attention"]
    width = len(str(max(full)))
    text["per_layer_config"] = {str(index).zfill(width): dict(geometry) for index in full}
    return changed


def write_pair(
    folder: Path, variant: str, layout: str = "hf", dialect: str = "classic", shards: int = 1
) -> tuple[Path, Path]:
    """Write target and drafter checkpoints below `folder`; returns their two folders.

    `layout` names the target's tensor names: "hf" (multimodal wrapper), "hf-text" (text-only
    model, whose config.json is the bare text config) or "mlx" (mlx-community, split experts).
    `shards` splits the target's file. Drafters have one layout and one file.
    """
    if layout not in LAYOUT_PREFIXES:
        raise ValueError(f"unknown layout {layout!r}; known: {', '.join(LAYOUT_PREFIXES)}")
    if dialect not in DIALECTS:
        raise ValueError(f"unknown dialect {dialect!r}; known: {', '.join(DIALECTS)}")
    configs = [_layout_config(target_config(variant), layout), drafter_config(variant)]
    if dialect == "5.23":
        configs = [dialect_523(config) for config in configs]
    paths = Path(folder) / "target", Path(folder) / "drafter"
    for path, config in zip(paths, configs, strict=True):
        _write_text_files(path, config)
    form = "mlx" if layout == "mlx" else "pt"
    _write_tensors(paths[0], named_target(target_weights(variant), layout), shards, form)
    _write_tensors(paths[1], named_drafter(drafter_weights(variant)), 1, form)
    return paths


def _layout_config(config: dict[str, Any], layout: str) -> dict[str, Any]:
    """The config.json that goes with a layout."""
    if layout == "hf-text":
        prefix = config["architectures"][0].removesuffix("ForConditionalGeneration")
        return {"architectures": [f"{prefix}ForCausalLM"], **config["text_config"]}
    if layout == "mlx":  # mlx-lm takes the vocabulary size from the top level
        return {**config, "vocab_size": config["text_config"]["vocab_size"]}
    return config


def named_target(weights: Weights, layout: str) -> Weights:
    """Target tensors under the names a layout's file has; "hf" gains two vision tensors."""
    prefix = LAYOUT_PREFIXES[layout]
    if layout == "mlx":
        weights = split_experts(weights)
    named = {prefix + key: value for key, value in weights.items()}
    if layout == "hf":
        named["model.vision_tower.patch_embedder.input_proj.weight"] = np.ones((4, 4), np.float32)
        named["model.embed_vision.embedding_projection.weight"] = np.ones((4, 4), np.float32)
    return named


def named_drafter(weights: Weights) -> Weights:
    """Drafter tensors under their names in a file (3.4 of the specification)."""
    return {
        key if key.startswith(DRAFTER_ROOTS) else f"model.{key}": value
        for key, value in weights.items()
    }


def split_experts(weights: Weights) -> Weights:
    """Fused `experts.gate_up_proj` [E, 2I, H] and `down_proj` as mlx-community's three."""
    split = {}
    for key, value in weights.items():
        stem, _, last = key.rpartition(".")
        if not stem.endswith(".experts"):
            split[key] = value
        elif last == "gate_up_proj":
            gate, up = np.split(value, 2, axis=1)
            split[f"{stem}.switch_glu.gate_proj.weight"] = np.ascontiguousarray(gate)
            split[f"{stem}.switch_glu.up_proj.weight"] = np.ascontiguousarray(up)
        else:
            split[f"{stem}.switch_glu.{last}.weight"] = value
    return split


def _write_text_files(folder: Path, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "config.json": config,
        "generation_config.json": gemma_files.GENERATION_CONFIG,
        "tokenizer.json": vocabulary.tokenizer_json(),
        "tokenizer_config.json": gemma_files.tokenizer_config(),
    }
    for name, content in files.items():
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    template = vocabulary.CHAT_TEMPLATE
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _write_tensors(folder: Path, weights: Weights, shards: int, form: str) -> None:
    """One model.safetensors, or `shards` files with an index."""
    from safetensors.numpy import save_file

    metadata = {"format": form}
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata)
        return
    places = {}
    for index, keys in enumerate(np.array_split(sorted(weights), shards), start=1):
        name = f"model-{index:05d}-of-{shards:05d}.safetensors"
        save_file({str(key): weights[str(key)] for key in keys}, folder / name, metadata)
        places.update({str(key): name for key in keys})
    total = sum(value.nbytes for value in weights.values())
    index_json = {"metadata": {"total_size": total}, "weight_map": places}
    text = json.dumps(index_json, indent=2)
    (folder / "model.safetensors.index.json").write_text(text + "\n", encoding="utf-8")
