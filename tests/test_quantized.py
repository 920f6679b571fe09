"""Quantised checkpoints equal the float32 model of the same values."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

import mtp_mlx
from mtp_mlx.config import read_drafter, read_target
from mtp_mlx.errors import UnsupportedModel
from mtp_mlx.quantization import MODES, QuantSpec
from mtp_mlx.reference.load import dequantize
from mtp_mlx.shapes import Shapes, drafter_shapes, target_shapes
from tests.bad_input.files import WEIGHTS, Json, Pair, Tensors, copy_pair, write_tensors
from tests.golden import recipe

# Float32 sums of quantised products in MLX's order against NumPy's of the expanded values.
LOGITS_ATOL = 2e-4
IDS = [2, 72, 101, 108, 108, 111, 33, 9, 200, 17, 64]  # longer than the window of 8
AFFINE_BITS = MODES["affine"][0]
SEED = 7
EIGHT = QuantSpec(64, 8, "affine")
Plan = Callable[[str], QuantSpec | None]

# Every row length is a multiple of 64, so that groups of 64 fit.
WIDTHS = {"hidden_size": 64, "intermediate_size": 128}
EXTRA_WIDTHS = {
    "e2b": {"hidden_size_per_layer_input": 64},
    "e4b": {"hidden_size_per_layer_input": 64},
    "26b": {"moe_intermediate_size": 64},
}
NEVER_QUANTISED = ("norm", "layer_scalar", "router.scale", "per_expert_scale", "token_ordering")


def uniform(group_size: int, bits: int, mode: str = "affine") -> Plan:
    """Everything that can be quantised, alike."""
    return lambda path: QuantSpec(group_size, bits, mode)


def mixed(path: str) -> QuantSpec | None:
    """As published models mix it: 8 bits for router and dense MLP, some modules plain."""
    if path.endswith(("router.proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")):
        return EIGHT
    if path.endswith(("o_proj", "post_projection", "per_layer_model_projection")):
        return None
    return QuantSpec(32, 6, "affine") if path.startswith("embed") else QuantSpec(64, 4, "affine")


def write_quantized(folder: Path, variant: str, plan: Plan) -> tuple[Pair, Pair]:
    """The same random pair twice: quantised by `plan`, and expanded by MLX to plain float32."""
    packed = copy_pair(folder / "packed", variant, "mlx")
    plain = copy_pair(folder / "plain", variant, "mlx")
    _write_both(packed[0], plain[0], variant, "target", plan)
    _write_both(packed[1], plain[1], variant, "drafter", plan)
    return packed, plain


def _write_both(packed: Path, plain: Path, variant: str, role: str, plan: Plan) -> None:
    """Draw the weights of one model and write them in both forms."""

    def named(key: str) -> str:
        if role == "target":
            return "language_model.model." + key
        return key if key.startswith(recipe.DRAFTER_ROOTS) else "model." + key

    top = json.loads((plain / "config.json").read_text())
    top["text_config"] |= WIDTHS | (EXTRA_WIDTHS.get(variant, {}) if role == "target" else {})
    manifest = {
        key: f"{'int64' if key.endswith('ordering') else 'float32'}{list(shape)}"
        for key, shape in _shapes(top, role).items()
    }
    scales = recipe.record(variant)[role]["scales"]
    weights = recipe.draw_weights(manifest, SEED, scales)
    small, expanded, default, others = _quantize(weights, plan)
    write_tensors(packed / WEIGHTS, {named(key): value for key, value in small.items()})
    write_tensors(plain / WEIGHTS, {named(key): value for key, value in expanded.items()})
    (plain / "config.json").write_text(json.dumps(top))
    section = default | {named(path): value for path, value in others.items()}
    (packed / "config.json").write_text(json.dumps(top | {"quantization": section}))


def _shapes(top: Json, role: str) -> Shapes:
    if role == "drafter":
        return drafter_shapes(read_drafter(top, "drafter"))
    return target_shapes(read_target(top, "target"))


def _quantize(weights: Mapping[str, np.ndarray], plan: Plan) -> tuple[Tensors, Tensors, Json, Json]:
    """Packed tensors, expanded tensors, the commonest setting, and the others by module path."""
    packed: Tensors = {}
    expanded: Tensors = {}
    settings: dict[str, QuantSpec | None] = {}
    for key, array in weights.items():
        path = key.removesuffix(".weight")
        spec = None
        if not any(part in key for part in NEVER_QUANTISED):
            spec = settings[path] = plan(path)
        if spec is None:
            packed[key] = expanded[key] = array
            continue
        how = asdict(spec)
        parts = mx.quantize(mx.array(array), **how)
        for name, value in zip(("weight", "scales", "biases"), parts, strict=False):
            packed[f"{path}.{name}"] = np.array(value)
        expanded[key] = np.array(mx.dequantize(*parts, **how).astype(mx.float32))
    specs = [spec for spec in settings.values() if spec is not None]
    default = max(specs, key=specs.count)
    others = {
        path: False if spec is None else asdict(spec)
        for path, spec in settings.items()
        if spec != default
    }
    return packed, expanded, asdict(default), others


PLANS = {
    "4_bits_of_64": uniform(64, 4),
    "4_bits_of_32": uniform(32, 4),
    "8_bits_of_64": uniform(64, 8),
    "8_bits_of_32": uniform(32, 8),
    "mixed": mixed,
}


@pytest.mark.parametrize(
    ("variant", "plan"),
    [
        ("e2b", "4_bits_of_64"),
        ("e2b", "mixed"),
        ("26b", "8_bits_of_32"),
        ("26b", "mixed"),
        ("31b", "4_bits_of_32"),
        ("31b", "8_bits_of_64"),
        ("12b", "mixed"),
    ],
)
def test_a_quantised_pair_equals_the_twin_of_its_expanded_values(variant, plan, tmp_path):
    packed, plain = write_quantized(tmp_path, variant, PLANS[plan])
    fast = mtp_mlx.load(packed[0], draft_model=packed[1])
    slow = mtp_mlx.load(plain[0], draft_model=plain[1], backend="numpy")
    expanded = mtp_mlx.load(packed[0], draft_model=packed[1], backend="numpy")
    expected = slow.logits(IDS)
    assert np.abs(fast.logits(IDS) - expected).max() <= LOGITS_ATOL
    assert np.array_equal(expanded.logits(IDS), expected)
    assert fast.propose(IDS, 3) == expanded.propose(IDS, 3) == slow.propose(IDS, 3)
    drafted = fast.generate(IDS, max_tokens=6, temperature=0.0, num_draft_tokens=3)
    assert (
        drafted.token_ids
        == fast.generate(IDS, max_tokens=6, temperature=0.0, num_draft_tokens=0).token_ids
    )


def test_what_was_meant_to_be_quantised_is(tmp_path):
    """Guards the tests above: the mixed plan packs experts, embeddings, router and both heads."""
    packed, _ = write_quantized(tmp_path / "26b", "26b", mixed)
    names = mx.load(str(packed[0] / WEIGHTS))
    small, _ = write_quantized(tmp_path / "e2b", "e2b", mixed)
    for part in (
        "embed_tokens", "layers.0.router.proj", "layers.0.experts.switch_glu.down_proj",
        "layers.0.mlp.up_proj", "layers.2.self_attn.k_proj",
    ):  # fmt: skip
        assert f"language_model.model.{part}.scales" in names
    section = json.loads((packed[0] / "config.json").read_text())["quantization"]
    assert section["bits"] == 4
    assert section["language_model.model.layers.0.router.proj"]["bits"] == 8
    assert section["language_model.model.layers.0.self_attn.o_proj"] is False
    assert "language_model.model.embed_tokens_per_layer.biases" in mx.load(str(small[0] / WEIGHTS))
    drafter = mx.load(str(small[1] / WEIGHTS))
    for part in ("masked_embedding.centroids", "model.embed_tokens", "pre_projection"):
        assert drafter[f"{part}.weight"].dtype == mx.uint32
        assert f"{part}.scales" in drafter


def test_half_precision_scales_equal_float32_ones(tmp_path):
    """Converters store scales in the type of the checkpoint, bfloat16 or float16."""
    packed, _ = write_quantized(tmp_path, "31b", uniform(64, 4))
    for folder in packed:
        arrays = mx.load(str(folder / WEIGHTS))
        arrays = {
            key: array.astype(mx.float16) if key.endswith((".scales", ".biases")) else array
            for key, array in arrays.items()
        }
        mx.eval(arrays)
        mx.save_safetensors(str(folder / WEIGHTS), arrays, {"format": "mlx"})
    logits = [
        mtp_mlx.load(packed[0], draft_model=packed[1], backend=backend).logits(IDS)
        for backend in ("mlx", "numpy")
    ]
    assert np.abs(logits[0] - logits[1]).max() <= LOGITS_ATOL


@pytest.mark.parametrize(
    ("mode", "bits", "group_size"), [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)]
)
def test_modes_without_biases_load_in_mlx_and_are_refused_by_the_twin(
    mode, bits, group_size, tmp_path
):
    packed, plain = write_quantized(tmp_path, "31b", uniform(group_size, bits, mode))
    found = mtp_mlx.load(packed[0], draft_model=packed[1]).logits(IDS)
    expected = mtp_mlx.load(plain[0], draft_model=plain[1], backend="numpy").logits(IDS)
    assert np.abs(found - expected).max() <= LOGITS_ATOL
    with pytest.raises(UnsupportedModel, match=r"config\.json: .* affine quantisation only"):
        mtp_mlx.load(packed[0], draft_model=packed[1], backend="numpy")


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("bits", AFFINE_BITS)
def test_the_twin_expands_affine_weights_as_mlx_does(bits, group_size):
    random = np.random.RandomState(bits)
    for shape in ((8, 256), (3, 4, 128)):
        weight = mx.array(random.standard_normal(shape).astype(np.float32))
        parts = mx.quantize(weight, group_size, bits)
        expected = np.array(mx.dequantize(*parts, group_size=group_size, bits=bits))
        packed, scales, biases = map(np.array, parts)
        found = dequantize(packed, scales, biases, QuantSpec(group_size, bits, "affine"))
        assert found.shape == shape
        # One rounding of q · scale + bias where MLX fuses it, two in NumPy.
        assert np.abs(found - expected).max() <= np.abs(expected).max() * 2**-22


@pytest.mark.parametrize("bits", AFFINE_BITS)
def test_the_twin_reads_every_code_where_mlx_does(bits):
    """With scale 1 and bias 0 the expanded value is the code itself."""
    weight = np.random.RandomState(bits).randint(0, 2**32, (4, bits * 2), dtype=np.uint64)
    packed = weight.astype(np.uint32)
    ones, zeros = np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32)
    expected = mx.dequantize(
        mx.array(packed), mx.array(ones), mx.array(zeros), group_size=64, bits=bits
    )
    found = dequantize(packed, ones, zeros, QuantSpec(64, bits, "affine"))
    assert np.array_equal(found, np.array(expected))
    assert found.max() == 2**bits - 1


@pytest.mark.parametrize("variant", ["e2b", "26b", "31b"])
def test_what_mlx_lm_converts_loads_as_it_is(variant, tmp_path):
    from mlx_lm import utils  # slow to import

    target, _ = copy_pair(tmp_path, variant, "mlx")
    model, config = utils.load_model(target)
    model, config = utils.quantize_model(model, config, group_size=32, bits=4)
    utils.save_model(target, model)
    utils.save_config(config, target / "config.json")
    found, expected = (
        mtp_mlx.load(target, draft_model=None, backend=backend).logits(IDS)
        for backend in ("mlx", "numpy")
    )
    assert np.abs(found - expected).max() <= LOGITS_ATOL
    theirs = model(mx.array([IDS])).astype(mx.float32)[0]
    assert np.abs(found - np.array(theirs)).max() <= LOGITS_ATOL
