"""config.json of target and drafter, resolved once into frozen tables.

Both dialects are read: *classic* (`global_head_dim`, `num_global_key_value_heads`) and the one of
Transformers 5.23 (`per_layer_config`). A shape is never guessed: a missing key is an error that
names it. Modules read these tables and decide nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from mtp_mlx.errors import CheckpointError, DrafterMismatch, UnsupportedModel
from mtp_mlx.fields import Fields, shown
from mtp_mlx.quantization import Quantization, read_quantization

Kind = Literal["full", "sliding"]

TARGET_TYPES = ("gemma4", "gemma4_unified", "gemma4_text", "gemma4_unified_text")
DRAFTER_TYPES = ("gemma4_assistant", "gemma4_unified_assistant")

KINDS: dict[str, Kind] = {"full_attention": "full", "sliding_attention": "sliding"}

# Bounds far above any published model: they catch nonsense before anything is allocated.
MAX_WIDTH = 1 << 17
MAX_LAYERS = 1024
MAX_HEADS = 1024
MAX_HEAD_DIM = 1 << 13
MAX_VOCAB = 1 << 22
MAX_POSITIONS = 1 << 24
MIN_EPS = 1e-12  # MLX refuses 0


@dataclass(frozen=True)
class RopeSpec:
    """Rotary embedding of a layer kind: pairs (j, j + head_dim/2), the first `pairs` turn."""

    head_dim: int
    theta: float
    pairs: int
    factor: float


@dataclass(frozen=True)
class ExpertSpec:
    """Mixture of experts beside the dense MLP."""

    num_experts: int
    top_k: int
    width: int


@dataclass(frozen=True)
class LayerSpec:
    """One decoder layer. `reads_from` is the target layer whose K/V it attends to, its own when it
    owns any."""

    index: int
    window: int | None
    heads: int
    kv_heads: int
    head_dim: int
    rope: RopeSpec
    reads_from: int
    owns_cache: bool
    keys_are_values: bool
    ffn_dim: int
    experts: ExpertSpec | None

    @property
    def kind(self) -> Kind:
        return "full" if self.window is None else "sliding"


@dataclass(frozen=True)
class TargetConfig:
    """A Gemma 4 text model. `donors`: the layer per kind whose K/V the drafter reads."""

    source: str
    model_type: str
    hidden_size: int
    vocab_size: int
    layers: tuple[LayerSpec, ...]
    donors: Mapping[Kind, int]
    rms_norm_eps: float
    logit_softcap: float | None
    max_positions: int
    per_layer_dim: int
    eos_ids: tuple[int, ...]
    quantization: Quantization | None

    def owns_cache(self, index: int) -> bool:
        return self.layers[index].owns_cache

    @property
    def num_expert_layers(self) -> int:
        """Layers with experts."""
        return sum(layer.experts is not None for layer in self.layers)

    @property
    def mean_top_k(self) -> float:
        """Experts that a token chooses in a layer that has some."""
        counts = [layer.experts.top_k for layer in self.layers if layer.experts is not None]
        return sum(counts) / len(counts)


@dataclass(frozen=True)
class CentroidSpec:
    """Head of the small drafters: the best `top_k` of `num` equal clusters are scored."""

    num: int
    top_k: int


@dataclass(frozen=True)
class DrafterConfig:
    """An MTP assistant. Its layers own no K/V; `reads_from` names target layers once paired."""

    source: str
    model_type: str
    backbone_hidden_size: int
    hidden_size: int
    vocab_size: int
    layers: tuple[LayerSpec, ...]
    centroids: CentroidSpec | None
    rms_norm_eps: float
    logit_softcap: float | None
    quantization: Quantization | None

    def paired_with(self, target: TargetConfig) -> "DrafterConfig":
        """This config with every layer pointing at the target layer it reads.

        Raises DrafterMismatch naming both values where the two do not belong together.
        """
        _same(self, "backbone_hidden_size", self.backbone_hidden_size, target.hidden_size)
        _same(self, "vocab_size", self.vocab_size, target.vocab_size)
        layers = tuple(_pair_layer(self, layer, target) for layer in self.layers)
        return replace(self, layers=layers)


def _same(drafter: DrafterConfig, what: str, ours: object, theirs: object) -> None:
    if ours != theirs:
        raise DrafterMismatch(
            f"{drafter.source}: the drafter was made for {what} {ours}, the target has {theirs}; "
            "use the drafter of this target, or --draft-model none"
        )


def _pair_layer(drafter: DrafterConfig, layer: LayerSpec, target: TargetConfig) -> LayerSpec:
    where = f"layer {layer.index} ({layer.kind})"
    if layer.kind not in target.donors:
        raise DrafterMismatch(
            f"{drafter.source}: {where} reads {layer.kind} attention K/V, "
            "and the target owns no such layer"
        )
    donor = target.layers[target.donors[layer.kind]]
    _same(drafter, f"{where} head_dim", layer.head_dim, donor.head_dim)
    _same(drafter, f"{where} K/V heads", layer.kv_heads, donor.kv_heads)
    _same(drafter, f"{where} sliding_window", layer.window, donor.window)
    _same(drafter, f"{where} rope_theta", layer.rope.theta, donor.rope.theta)
    _same(drafter, f"{where} rotated pairs", layer.rope.pairs, donor.rope.pairs)
    _same(drafter, f"{where} rope factor", layer.rope.factor, donor.rope.factor)
    return replace(layer, reads_from=donor.index)


def read_target(values: Mapping[str, Any], source: str) -> TargetConfig:
    """TargetConfig from the parsed config.json; `source` is the file's name for messages."""
    top = Fields(values, source)
    model_type = _model_type(
        top, TARGET_TYPES, DRAFTER_TYPES, "a drafter; give it as --draft-model"
    )
    text = top if model_type.endswith("_text") else top.section("text_config")
    _check_text(top, text)
    count = text.integer("num_hidden_layers", 1, MAX_LAYERS)
    shared = text.integer("num_kv_shared_layers", 0, count - 1)
    layers = _layers(text, count, shared)
    vocab = text.integer("vocab_size", 1, MAX_VOCAB)
    return TargetConfig(
        source=source,
        model_type=model_type,
        hidden_size=text.integer("hidden_size", 1, MAX_WIDTH),
        vocab_size=vocab,
        layers=layers,
        donors=_last_owners(layers, count - shared),
        rms_norm_eps=text.number("rms_norm_eps", MIN_EPS, 1.0),
        logit_softcap=_softcap(text),
        max_positions=text.integer("max_position_embeddings", 1, MAX_POSITIONS),
        per_layer_dim=_per_layer_dim(text),
        eos_ids=_eos_ids(top, text, vocab),
        quantization=read_quantization(top),
    )


def read_drafter(values: Mapping[str, Any], source: str) -> DrafterConfig:
    """DrafterConfig from the parsed config.json of an assistant, not yet paired with a target."""
    top = Fields(values, source)
    model_type = _model_type(top, DRAFTER_TYPES, TARGET_TYPES, "a target; give it as --model")
    text = top.section("text_config")
    _check_text(top, text)
    count = text.integer("num_hidden_layers", 1, MAX_LAYERS)
    shared = text.values.get("num_kv_shared_layers")
    if shared not in (None, 0, count):
        raise text.fail("num_kv_shared_layers", f"{count} (all layers of a drafter) or 0", shared)
    if _per_layer_dim(text) or text.flag("enable_moe_block"):
        raise UnsupportedModel(f"{source}: drafters with per-layer inputs or experts are not known")
    return DrafterConfig(
        source=source,
        model_type=model_type,
        backbone_hidden_size=top.integer("backbone_hidden_size", 1, MAX_WIDTH),
        hidden_size=text.integer("hidden_size", 1, MAX_WIDTH),
        vocab_size=text.integer("vocab_size", 1, MAX_VOCAB),
        layers=_layers(text, count, count),
        centroids=_centroids(top, text),
        rms_norm_eps=text.number("rms_norm_eps", MIN_EPS, 1.0),
        logit_softcap=_softcap(text),
        quantization=read_quantization(top),
    )


def _model_type(top: Fields, wanted: tuple[str, ...], other: tuple[str, ...], hint: str) -> str:
    found = top.text("model_type")
    if found in wanted:
        return found
    if found in other:
        raise UnsupportedModel(f"{top.source}: model_type {shown(found)} is {hint}")
    raise UnsupportedModel(
        f"{top.source}: model_type {shown(found)} is not supported; supported: {', '.join(wanted)}"
    )


def _check_text(top: Fields, text: Fields) -> None:
    """Refuse what the modules would silently ignore."""
    for fields in (top, text):
        if "tie_word_embeddings" in fields.values and not fields.flag("tie_word_embeddings"):
            raise fields.fail("tie_word_embeddings", "true", False)
    if text.has("attention_bias") and text.flag("attention_bias"):
        raise text.fail("attention_bias", "false", True)
    activation = text.get("hidden_activation")
    if activation != "gelu_pytorch_tanh":
        raise text.fail("hidden_activation", "'gelu_pytorch_tanh'", activation)


def _softcap(text: Fields) -> float | None:
    if not text.has("final_logit_softcapping"):
        return None
    return text.number("final_logit_softcapping", 1e-3, 1e6)


def _per_layer_dim(text: Fields) -> int:
    if not text.has("hidden_size_per_layer_input"):
        return 0
    return text.integer("hidden_size_per_layer_input", 0, MAX_WIDTH)


def _eos_ids(top: Fields, text: Fields, vocab: int) -> tuple[int, ...]:
    found = {*top.token_ids("eos_token_id", vocab), *text.token_ids("eos_token_id", vocab)}
    return tuple(sorted(found))


def _centroids(top: Fields, text: Fields) -> CentroidSpec | None:
    if not top.flag("use_ordered_embeddings"):
        return None
    vocab = text.integer("vocab_size", 1, MAX_VOCAB)
    num = top.integer("num_centroids", 1, vocab)
    if vocab % num:
        raise top.fail("num_centroids", f"a divisor of the vocabulary of {vocab}", num)
    return CentroidSpec(num, top.integer("centroid_intermediate_top_k", 1, num))


def _layers(text: Fields, count: int, shared: int) -> tuple[LayerSpec, ...]:
    """The layer table. Layers from `count - shared` on own no K/V and read the last owner of
    their kind; with none below (a drafter before pairing) `reads_from` is -1."""
    kinds = _kinds(text, count)
    owning = count - shared
    owners: dict[Kind, int] = {kinds[i]: i for i in range(owning)}
    table = []
    for index, kind in enumerate(kinds):
        reads_from = index if index < owning else owners.get(kind, -1)
        if index >= owning > 0 and reads_from < 0:
            raise text.fail("layer_types", f"a {kind} layer among the first {owning}", "none")
        table.append(_layer(text, index, kind, reads_from))
    return tuple(table)


def _kinds(text: Fields, count: int) -> list[Kind]:
    names = text.get("layer_types")
    if not isinstance(names, list) or len(names) != count:
        length = len(names) if isinstance(names, list) else names
        raise text.fail("layer_types", f"a list of {count} layer types", length)
    for name in names:
        if not isinstance(name, str) or name not in KINDS:
            raise text.fail("layer_types", "'full_attention' or 'sliding_attention' each", name)
    return [KINDS[name] for name in names]


def _layer(text: Fields, index: int, kind: Kind, reads_from: int) -> LayerSpec:
    heads = text.integer("num_attention_heads", 1, MAX_HEADS)
    head_dim, kv_heads = _head_geometry(text, index, kind)
    if heads % kv_heads:
        raise text.fail("num_attention_heads", f"a multiple of {kv_heads} K/V heads", heads)
    if head_dim % 2:
        raise text.fail("head_dim", "even", head_dim)
    is_shared = reads_from != index
    wide = is_shared and reads_from >= 0 and text.flag("use_double_wide_mlp")
    ffn_dim = text.integer("intermediate_size", 1, MAX_WIDTH) * (2 if wide else 1)
    return LayerSpec(
        index=index,
        window=text.integer("sliding_window", 1, MAX_POSITIONS) if kind == "sliding" else None,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        rope=_rope(text.section("rope_parameters"), kind, head_dim),
        reads_from=reads_from,
        owns_cache=not is_shared,
        keys_are_values=kind == "full" and text.flag("attention_k_eq_v"),
        ffn_dim=ffn_dim,
        experts=_experts(text),
    )


def _head_geometry(text: Fields, index: int, kind: Kind) -> tuple[int, int]:
    """(head size, K/V heads) of one layer, whichever dialect the file speaks."""
    head_dim = text.integer("head_dim", 1, MAX_HEAD_DIM)
    kv_heads = text.integer("num_key_value_heads", 1, MAX_HEADS)
    if text.has("per_layer_config"):
        own = _own_section(text.section("per_layer_config"), index, kind)
        if own is None:
            return head_dim, kv_heads
        kv_heads = own.integer("num_key_value_heads", 1, MAX_HEADS, default=kv_heads)
        if kind == "sliding":
            return own.integer("head_dim", 1, MAX_HEAD_DIM, default=head_dim), kv_heads
        return own.integer("head_dim", 1, MAX_HEAD_DIM), kv_heads
    if kind == "sliding":
        return head_dim, kv_heads
    head_dim = text.integer("global_head_dim", 1, MAX_HEAD_DIM)
    if text.flag("attention_k_eq_v"):
        if text.get("num_global_key_value_heads") is None:
            return head_dim, kv_heads
        kv_heads = text.integer("num_global_key_value_heads", 1, MAX_HEADS)
    return head_dim, kv_heads


def _own_section(per_layer: Fields, index: int, kind: Kind) -> Fields | None:
    """The entry of one layer; its key may be zero-padded ("05"). A full layer must have one."""
    for key in per_layer.values:
        if (key.lstrip("0") or "0") == str(index):
            return per_layer.section(key)
    if kind == "sliding":
        return None
    raise CheckpointError(
        f"{per_layer.source}: {per_layer.prefix} has no entry for layer {index}, a full layer"
    )


def _rope(parameters: Fields, kind: Kind, head_dim: int) -> RopeSpec:
    own = parameters.section(f"{kind}_attention")
    theta = own.number("rope_theta", 1.0, 1e12)
    rope_type = own.text("rope_type")
    if rope_type == "default":
        return RopeSpec(head_dim, theta, head_dim // 2, 1.0)
    if rope_type == "proportional":
        share = own.number("partial_rotary_factor", 0.0, 1.0)
        factor = own.number("factor", 1e-3, 1e6, default=1.0)
        return RopeSpec(head_dim, theta, int(share * head_dim // 2), factor)
    raise own.fail("rope_type", "'default' or 'proportional'", rope_type)


def _experts(text: Fields) -> ExpertSpec | None:
    if not text.flag("enable_moe_block"):
        return None
    num = text.integer("num_experts", 1, 1 << 14)
    return ExpertSpec(
        num_experts=num,
        top_k=text.integer("top_k_experts", 1, num),
        width=text.integer("moe_intermediate_size", 1, MAX_WIDTH),
    )


def _last_owners(layers: tuple[LayerSpec, ...], owning: int) -> dict[Kind, int]:
    donors: dict[Kind, int] = {}
    for layer in layers[:owning]:
        donors[layer.kind] = layer.index
    return donors
