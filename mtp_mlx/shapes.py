"""The published Gemma 4 pairs by name, before any file of theirs is here: configs and tensors."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from mtp_mlx.config import DrafterConfig, LayerSpec, TargetConfig, read_drafter, read_target
from mtp_mlx.pair_names import spelled
from mtp_mlx.quantization import MODES, PACKED_BITS, Quantization, QuantSpec

TABLE = Path(__file__).with_name("shapes.toml")
KINDS = {"S": "sliding_attention", "F": "full_attention"}
GROUP_SIZE = 64  # what converters choose for affine weights, unless they are told otherwise

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Stored:
    """Type and shape of a tensor as a file has it."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Published:
    """A published pair: `name` such as e4b-4bit, its configs, and its tensors as stored.

    The drafter is stored in bfloat16 whatever the target is.
    """

    name: str
    target: TargetConfig
    drafter: DrafterConfig
    target_tensors: tuple[Stored, ...]
    drafter_tensors: tuple[Stored, ...]


def published(name: str) -> Published | None:
    """The pair that a name means, None where it means none: a size, and how it is stored.

    A size alone is Google's own checkpoint, in bfloat16.
    """
    found = spelled(name)
    if found is None:
        return None
    size, suffix = found[0], found[1] or "bf16"
    spec = _spec(suffix)
    if spec is None and suffix != "bf16":
        return None
    target, drafter, kept = _read(size)
    target = replace(target, quantization=_quantization(target, spec, kept))
    return Published(
        name=f"{size}-{suffix}",
        target=target,
        drafter=drafter,
        target_tensors=tuple(stored(target_shapes(target), target.quantization).values()),
        drafter_tensors=tuple(stored(drafter_shapes(drafter), drafter.quantization).values()),
    )


def _quantization(
    target: TargetConfig, spec: QuantSpec | None, kept: Mapping[str, QuantSpec]
) -> Quantization | None:
    """What a converter writes into the config: `spec`, and `kept` for modules so named."""
    if spec is None:
        return None
    paths = [key.removesuffix(".weight") for key in target_shapes(target)]
    named = [(path, name) for path in paths for name in kept if path.endswith(name)]
    return Quantization(spec, {path: kept[name] for path, name in named})


def _spec(suffix: str) -> QuantSpec | None:
    """How matrices are stored under a converter's suffix, 4bit or mxfp4; None for others."""
    if suffix in MODES and suffix != "affine":
        bits, groups = MODES[suffix]
        return QuantSpec(groups[0], bits[0], suffix)
    bits = suffix.removesuffix("bit")
    if bits == suffix or bits not in map(str, MODES["affine"][0]):
        return None
    return QuantSpec(GROUP_SIZE, int(bits), "affine")


@cache
def _read(size: str) -> tuple[TargetConfig, DrafterConfig, dict[str, QuantSpec]]:
    """Configs of a size, paired, and the modules that converters store in a way of their own."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    entry, common = table[size], table["common"]
    text = _text(common | table["common_target"] | entry["target"])
    target = read_target({"model_type": "gemma4", "text_config": text}, f"{TABLE.name}: {size}")
    own = common | table["common_drafter"] | entry["drafter"]
    top: dict[str, Any] = {
        "model_type": "gemma4_assistant",
        "backbone_hidden_size": target.hidden_size,
        "text_config": _text(own) | {"sliding_window": text["sliding_window"]},
    }
    if "num_centroids" in own:
        names = ("num_centroids", "centroid_intermediate_top_k")
        top |= {"use_ordered_embeddings": True} | {name: own[name] for name in names}
    drafter = read_drafter(top, f"{TABLE.name}: {size} drafter").paired_with(target)
    kept = entry.get("kept", {"modules": ()})
    specs = [QuantSpec(kept["group_size"], kept["bits"], "affine") for _ in kept["modules"]]
    return target, drafter, dict(zip(kept["modules"], specs, strict=True))


def _text(values: Mapping[str, Any]) -> dict[str, Any]:
    """A text config, its layers spelled out."""
    layers = [KINDS[letter] for letter in values["pattern"] * values["repeat"]]
    return {**values, "layer_types": layers, "num_hidden_layers": len(layers)}


def stored(shapes: Shapes, quantization: Quantization | None) -> dict[str, Stored]:
    """The tensors of a file with these parameters, by key; None: matrices in bfloat16."""
    return {
        name: tensor
        for key, shape in shapes.items()
        for name, tensor in _parts(key, shape, quantization)
    }


def _parts(
    key: str, shape: tuple[int, ...], quantization: Quantization | None
) -> Iterator[tuple[str, Stored]]:
    """A parameter as it is stored: itself, or its packed values and what scales them."""
    path = key.removesuffix(".weight")
    spec = None if quantization is None else quantization.of(path)
    is_matrix = path != key and len(shape) > 1
    if spec is None or not is_matrix or shape[-1] % spec.group_size:
        yield key, Stored("I64" if key.endswith("token_ordering") else "BF16", shape)
        return
    rows, columns = shape[:-1], shape[-1]
    grouped = (*rows, columns // spec.group_size)
    yield key, Stored("U32", (*rows, columns * spec.bits // PACKED_BITS))
    if spec.mode == "affine":
        yield f"{path}.scales", Stored("BF16", grouped)
        yield f"{path}.biases", Stored("BF16", grouped)
    else:
        yield f"{path}.scales", Stored("U8", grouped)


def target_shapes(config: TargetConfig) -> Shapes:
    """Shape of every tensor of a target, by canonical key."""
    width, dim = config.hidden_size, config.per_layer_dim
    shapes: Shapes = {"embed_tokens.weight": (config.vocab_size, width), "norm.weight": (width,)}
    if dim:
        total = dim * len(config.layers)
        shapes["embed_tokens_per_layer.weight"] = (config.vocab_size, total)
        shapes["per_layer_model_projection.weight"] = (total, width)
        shapes["per_layer_projection_norm.weight"] = (dim,)
    for layer in config.layers:
        own = _layer_shapes(layer, width) | _key_value_shapes(layer, width)
        if dim:
            own["per_layer_input_gate.weight"] = (dim, width)
            own["per_layer_projection.weight"] = (width, dim)
            own["post_per_layer_input_norm.weight"] = (width,)
        shapes |= {f"layers.{layer.index}.{key}": shape for key, shape in own.items()}
    return shapes


def drafter_shapes(config: DrafterConfig) -> Shapes:
    """Shape of every tensor of a drafter, by canonical key."""
    width, backbone = config.hidden_size, config.backbone_hidden_size
    shapes: Shapes = {
        "embed_tokens.weight": (config.vocab_size, width),
        "norm.weight": (width,),
        "pre_projection.weight": (width, 2 * backbone),
        "post_projection.weight": (backbone, width),
    }
    if config.centroids is not None:
        shapes["masked_embedding.centroids.weight"] = (config.centroids.num, width)
        shapes["masked_embedding.token_ordering"] = (config.vocab_size,)
    for layer in config.layers:
        own = _layer_shapes(layer, width)
        shapes |= {f"layers.{layer.index}.{key}": shape for key, shape in own.items()}
    return shapes


def _layer_shapes(layer: LayerSpec, width: int) -> Shapes:
    """What every layer has: queries, the dense MLP, norms; and its experts, if it has any."""
    inner = layer.heads * layer.head_dim
    shapes: Shapes = {
        "layer_scalar": (1,),
        "self_attn.q_proj.weight": (inner, width),
        "self_attn.q_norm.weight": (layer.head_dim,),
        "self_attn.o_proj.weight": (width, inner),
        "mlp.gate_proj.weight": (layer.ffn_dim, width),
        "mlp.up_proj.weight": (layer.ffn_dim, width),
        "mlp.down_proj.weight": (width, layer.ffn_dim),
    }
    for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
        shapes[f"{name}_layernorm.weight"] = (width,)
    experts = layer.experts
    if experts is None:
        return shapes
    shapes["router.proj.weight"] = (experts.num_experts, width)
    shapes["router.scale"] = (width,)
    shapes["router.per_expert_scale"] = (experts.num_experts,)
    for name in ("gate_proj", "up_proj"):
        shapes[f"experts.switch_glu.{name}.weight"] = (experts.num_experts, experts.width, width)
    shapes["experts.switch_glu.down_proj.weight"] = (experts.num_experts, width, experts.width)
    for name in ("post_feedforward_layernorm_1", "post_feedforward_layernorm_2"):
        shapes[f"{name}.weight"] = (width,)
    shapes["pre_feedforward_layernorm_2.weight"] = (width,)
    return shapes


def _key_value_shapes(layer: LayerSpec, width: int) -> Shapes:
    """Projections of the keys and values of a layer that owns any."""
    if not layer.owns_cache:
        return {}
    outer = layer.kv_heads * layer.head_dim
    names = ("k_proj",) if layer.keys_are_values else ("k_proj", "v_proj")
    shapes: Shapes = {f"self_attn.{name}.weight": (outer, width) for name in names}
    return shapes | {"self_attn.k_norm.weight": (layer.head_dim,)}
