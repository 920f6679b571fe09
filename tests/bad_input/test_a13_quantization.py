"""A13: quantised weights and a config that do not agree."""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np

from mtp_mlx.errors import UnsupportedModel
from tests.bad_input.faults import Damage, Fault, both_backends, check, each
from tests.bad_input.files import Json, Tensors, edit_json, edit_tensors

PREFIX = "model.language_model."
PATHS = ("embed_tokens", "layers.0.mlp.gate_proj", "layers.1.self_attn.q_proj")
GATE = "layers.0.mlp.gate_proj"
FOUR = {"group_size": 32, "bits": 4}


def quantized(
    section: object,
    change: Callable[[Tensors], object] = lambda tensors: None,
    key: str = "quantization",
) -> Damage:
    """Three tensors at 4 bits, group 32, and this section in config.json (none if None)."""

    def damage(target: Path, drafter: Path) -> None:
        def quantize(tensors: Tensors) -> None:
            for path in PATHS:
                parts = mx.quantize(mx.array(tensors[f"{PREFIX}{path}.weight"]), 32, 4)
                for part, array in zip(("weight", "scales", "biases"), parts, strict=True):
                    tensors[f"{PREFIX}{path}.{part}"] = np.array(array)
            change(tensors)

        edit_tensors(target, quantize)
        if section is not None:
            edit_json(target / "config.json", lambda top: top.update({key: section}))

    return damage


def without(name: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.pop(f"{PREFIX}{name}")


def with_ones(name: str, *shape: int, dtype: str = "float32") -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({f"{PREFIX}{name}": np.ones(shape, dtype)})


def packed_norm(tensors: Tensors) -> None:
    """A norm stored as one quantised row of 64."""
    for part, size, dtype in (("weight", 8, "uint32"), ("scales", 2, "e"), ("biases", 2, "e")):
        tensors[f"{PREFIX}norm.{part}"] = np.ones(size, dtype)


def wider(tensors: Tensors) -> None:
    """Tensors that agree with each other on rows of 128 where the config has 64."""
    for path in PATHS:
        rows = len(tensors[f"{PREFIX}{path}.weight"])
        tensors[f"{PREFIX}{path}.weight"] = np.ones((rows, 16), np.uint32)
        for part in ("scales", "biases"):
            tensors[f"{PREFIX}{path}.{part}"] = np.ones((rows, 1), np.float32)


def having(**values: object) -> Json:
    return FOUR | values


def override(value: object, path: str = "language_model.model." + GATE) -> Json:
    return FOUR | {path: value}


CONFIG = "config.json"
OTHERS = [
    {"quant_method": "gptq", "bits": 4, "group_size": 32},
    {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"},
    {"quant_method": "bitsandbytes", "load_in_4bit": True},
    {"quant_method": "fp8", "weight_block_size": [128, 128]},
    {"quant_method": "compressed-tensors", "config_groups": {}},
    {"quant_method": "x\n" * 100_000},
]
SECTIONS = [
    Fault("bits_7", quantized(having(bits=7)), (CONFIG, "quantization.bits", "found 7")),
    Fault("bits_0", quantized(having(bits=0)), (CONFIG, "quantization.bits", "found 0")),
    Fault("bits_text", quantized(having(bits="4")), (CONFIG, "quantization.bits", "found '4'")),
    Fault("no_bits", quantized({"group_size": 32}), (CONFIG, "quantization.bits is missing")),
    Fault("no_group", quantized({"bits": 4}), (CONFIG, "quantization.group_size is missing")),
    Fault("group_48", quantized(having(group_size=48)), (CONFIG, "group_size", "found 48")),
    Fault("group_0", quantized(having(group_size=0)), (CONFIG, "group_size", "found 0")),
    Fault("mode", quantized(having(mode="nf4")), (CONFIG, "quantization.mode", "'nf4'")),
    Fault("mode_list", quantized(having(mode=["affine"])), (CONFIG, "quantization.mode")),
    Fault("mode_null", quantized(having(mode=None)), (CONFIG, "quantization.mode", "None")),
    Fault("mxfp4_8", quantized(having(mode="mxfp4", bits=8)), (CONFIG, "bits", "for mxfp4")),
    Fault("list", quantized([4, 32]), (CONFIG, "quantization must be an object")),
    Fault("override_7", quantized(override({"bits": 7, "group_size": 32})), (CONFIG, "found 7")),
    Fault("override_48", quantized(override({"bits": 4, "group_size": 48})), (CONFIG, "found 48")),
    Fault("override_empty", quantized(override({})), (CONFIG, GATE + ".bits is missing")),
    Fault("newline", quantized(override({"bits": 7}, "a\nb")), (CONFIG, "a\\nb.group_size")),
    Fault("long_path", quantized(override({"bits": 7}, "x" * 9999)), (CONFIG, "xxx")),
    *(
        Fault(
            other["quant_method"][:9].strip(), quantized(other, key=key),
            (CONFIG, f"{key} of kind ", "mlx_lm.convert"), UnsupportedModel,
        )
        for other in OTHERS
        for key in ("quantization", "quantization_config")
    ),
]  # fmt: skip
TENSORS = [
    Fault("no_section", quantized(None), (CONFIG, "is quantised", "no quantization section")),
    Fault("no_scales", quantized(FOUR, without(GATE + ".scales")), (GATE, "scales")),
    Fault("no_biases", quantized(FOUR, without(GATE + ".biases")), (GATE + ".biases", "missing")),
    Fault("no_weight", quantized(FOUR, without(GATE + ".weight")), (GATE + ".weight", "missing")),
    Fault(
        "eight_bits", quantized(having(bits=8)),
        ("embed_tokens.weight", "[256, 8]", "[256, 2]", "not 8 bits in groups of 32"),
    ),
    Fault(
        "three_bits", quantized(having(bits=3)),
        ("embed_tokens.weight", "[256, 8]", "[256, 2]", "not 3 bits in groups of 32"),
    ),
    Fault(
        "group_64", quantized(having(group_size=64)),
        ("embed_tokens.weight", "[256, 8]", "[256, 2]", "not 4 bits in groups of 64"),
    ),
    Fault("group_128", quantized(having(group_size=128)), ("[256, 2]", "in groups of 128")),
    Fault("not_quantised", quantized(override(False)), (GATE, "is not quantised")),
    Fault(
        "override_8", quantized(override({"bits": 8, "group_size": 32})),
        (GATE + ".weight", "[96, 8]", "[96, 2]", "not 8 bits in groups of 32"),
    ),
    Fault(
        "scales_shape", quantized(FOUR, with_ones(GATE + ".scales", 96, 3)),
        (GATE + ".weight", "[96, 8]", "scales [96, 3]", "biases [96, 2]"),
    ),
    Fault(
        "scales_of_rank_0", quantized(FOUR, with_ones(GATE + ".scales")),
        (GATE + ".weight", "[96, 8]", "scales []", "biases [96, 2]"),
    ),
    Fault(
        "biases_shape", quantized(FOUR, with_ones(GATE + ".biases", 2, 96)),
        (GATE + ".weight", "[96, 8]", "scales [96, 2]", "biases [2, 96]"),
    ),
    Fault(
        "weight_shape", quantized(FOUR, with_ones(GATE + ".weight", 96, 9, dtype="uint32")),
        (GATE + ".weight", "[96, 9]", "scales [96, 2]"),
    ),
    Fault(
        "weight_of_rank_0", quantized(FOUR, with_ones(GATE + ".weight", dtype="uint32")),
        (GATE + ".weight", "of shape []", "scales [96, 2]"),
    ),
    Fault("floats", quantized(FOUR, with_ones(GATE + ".weight", 96, 8)), (GATE + ".weight", "F32")),
    Fault(
        "scales_of_integers", quantized(FOUR, with_ones(GATE + ".scales", 96, 2, dtype="int32")),
        (GATE + ".scales", "I32"),
    ),
    Fault(
        "scales_of_a_norm", quantized(FOUR, with_ones("norm.scales", 2)),
        ("norm.biases is missing",),
    ),
    Fault(
        "scales_of_a_scalar", quantized(FOUR, with_ones("layers.0.layer_scalar.scales", 2)),
        ("layers.0.layer_scalar.weight is missing",),
    ),
    Fault(
        "scales_of_nothing", quantized(FOUR, with_ones("x.scales", 2)),
        ("x.weight is missing",),
    ),
    Fault("a_norm", quantized(FOUR, packed_norm), ("norm.",)),
    Fault("wider", quantized(having(group_size=128), wider), ("embed_tokens", "64", "128")),
    Fault("root", quantized(FOUR, with_ones(".scales", 2)), (".weight is missing",)),
]  # fmt: skip


@both_backends
@each(SECTIONS)
def test_a_section_that_mlx_cannot_run_is_refused_by_key(fault, backend, tmp_path):
    check(fault, tmp_path, backend=backend)


@both_backends
@each(TENSORS)
def test_quantised_tensors_that_do_not_fit_the_section_are_refused(fault, backend, tmp_path):
    check(fault, tmp_path, backend=backend)
