"""A11: tensors that are not those of the config."""

import numpy as np
import pytest

from tests.bad_input.faults import (
    Fault,
    both_backends,
    check,
    each,
    in_drafter_tensors,
    in_target_json,
    in_target_tensors,
    with_value,
)
from tests.bad_input.files import CODES, Tensors

PREFIX = "model.language_model."
EMBEDDING, NORM = "embed_tokens.weight", "norm.weight"
Q_PROJ = "layers.2.self_attn.q_proj.weight"
SCALAR = "layers.0.layer_scalar"


def reshaped(key: str, *shape: int, prefix: str = PREFIX):
    def change(tensors: Tensors) -> None:
        tensors[prefix + key] = np.ones(shape, np.float32)

    return change


def without(key: str, prefix: str = PREFIX):
    return lambda tensors: tensors.pop(prefix + key)


def without_layer(tensors: Tensors) -> None:
    for name in [name for name in tensors if ".layers.1." in name]:
        del tensors[name]


def under_both_names(tensors: Tensors) -> None:
    tensors["model." + NORM] = tensors[PREFIX + NORM]


def cast(key: str, dtype: str):
    def change(tensors: Tensors) -> None:
        tensors[PREFIX + key] = tensors[PREFIX + key].astype(dtype)

    return change


TARGET, DRAFTER = "target/", "drafter/"
EXTRA = "is not part of this model"
FAULTS = [
    Fault(
        "transposed", in_target_tensors(reshaped(EMBEDDING, 64, 256)),
        (TARGET, EMBEDDING, "[256, 64]", "[64, 256]"),
    ),
    Fault(
        "flat", in_target_tensors(reshaped(Q_PROJ, 4096)),
        (TARGET, Q_PROJ, "[64, 64]", "[4096]"),
    ),
    Fault(
        "rank_0", in_target_tensors(reshaped(SCALAR)), (TARGET, SCALAR, "should have shape [1]")
    ),
    Fault("longer_norm", in_target_tensors(reshaped(NORM, 65)), (TARGET, NORM, "[64]", "[65]")),
    Fault("missing", in_target_tensors(without(Q_PROJ)), (TARGET, Q_PROJ, "is missing")),
    Fault("missing_norm", in_target_tensors(without(NORM)), (TARGET, NORM, "is missing")),
    Fault("missing_embedding", in_target_tensors(without(EMBEDDING)), (TARGET, EMBEDDING)),
    Fault("missing_layer", in_target_tensors(without_layer), (TARGET, "layers.1.", "is missing")),
    Fault("extra", in_target_tensors(reshaped("extra.weight", 3)), (TARGET, "extra.weight", EXTRA)),
    Fault(
        "extra_layer", in_target_tensors(reshaped("layers.6.mlp.up_proj.weight", 96, 64)),
        (TARGET, "layers.6.mlp.up_proj.weight", EXTRA),
    ),
    Fault(
        "extra_bias", in_target_tensors(reshaped("layers.0.self_attn.q_proj.bias", 64)),
        (TARGET, "layers.0.self_attn.q_proj.bias", EXTRA),
    ),
    Fault(
        "extra_v_proj", in_target_tensors(reshaped("layers.5.self_attn.v_proj.weight", 32, 64)),
        (TARGET, "layers.5.self_attn.v_proj.weight", EXTRA),
    ),
    Fault(
        "experts_of_a_dense_model",
        in_target_tensors(reshaped("layers.0.experts.gate_up_proj", 8, 64, 64)),
        (TARGET, "layers.0.experts.", EXTRA),
    ),
    Fault(
        "experts_of_rank_1", in_target_tensors(reshaped("layers.0.experts.gate_up_proj", 8)),
        (TARGET, "layers.0.experts.gate_up_proj", EXTRA),
    ),
    Fault(
        "layer_of_5000_digits",
        in_target_tensors(reshaped(f"layers.{'9' * 5000}.self_attn.k_proj.weight", 1)),
        (TARGET, "layers.999", EXTRA),
    ),
    Fault("newline", in_target_tensors(reshaped("a\nb", 1)), (TARGET, "a\\nb", EXTRA)),
    Fault("long", in_target_tensors(reshaped("x" * 100_000, 1)), (TARGET, "xxx", EXTRA)),
    Fault("two_names", in_target_tensors(under_both_names), ("model.norm.weight", "same tensor")),
    Fault(
        "drafter_shape", in_drafter_tensors(reshaped("pre_projection.weight", 32, 64, prefix="")),
        (DRAFTER, "pre_projection.weight", "[32, 128]", "[32, 64]"),
    ),
    Fault(
        "drafter_missing", in_drafter_tensors(without("post_projection.weight", prefix="")),
        (DRAFTER, "post_projection.weight", "is missing"),
    ),
    Fault(
        "drafter_extra", in_drafter_tensors(reshaped("masked_embedding.centroids.weight", 16, 32,
                                                     prefix="")),
        (DRAFTER, "masked_embedding.centroids.weight", EXTRA),
    ),
    Fault(
        "wider_config", in_target_json("config.json", with_value("intermediate_size", 97)),
        (TARGET, "mlp.", "97", "96"),
    ),
]  # fmt: skip


@both_backends
@each(FAULTS)
def test_tensors_that_are_not_those_of_the_config_are_refused_by_name(fault, backend, tmp_path):
    check(fault, tmp_path, backend=backend)


@both_backends
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32", "uint8", "bool"])
@pytest.mark.parametrize("key", [EMBEDDING, NORM, Q_PROJ, SCALAR])
def test_integers_in_the_place_of_floats_are_refused(key, dtype, backend, tmp_path):
    fault = Fault(key, in_target_tensors(cast(key, dtype)), (TARGET, key, CODES[dtype]))
    check(fault, tmp_path, backend=backend)


@both_backends
@pytest.mark.parametrize(
    ("key", "shape", "due"),
    [
        ("gate_up_proj", (8, 64, 63), "[8, 32, 64]"),
        ("gate_up_proj", (8, 63, 64), "[8, 32, 64]"),
        ("gate_up_proj", (7, 64, 64), "[8, 32, 64]"),
        ("gate_up_proj", (8,), "is missing"),
        ("down_proj", (8, 32, 64), "[8, 64, 32]"),
        ("down_proj", (8,), "[8, 64, 32]"),
    ],
)
def test_experts_of_another_shape_are_refused_with_both(key, shape, due, backend, tmp_path):
    damage = in_target_tensors(reshaped(f"layers.0.experts.{key}", *shape))
    fault = Fault("experts", damage, (TARGET, "layers.0.experts.", due))
    check(fault, tmp_path, variant="26b", backend=backend)


def ordering(values: np.ndarray):
    def change(tensors: Tensors) -> None:
        tensors["masked_embedding.token_ordering"] = values

    return in_drafter_tensors(change)


IDENTITY = np.arange(256)
ORDERINGS = {
    "repeated": np.where(IDENTITY == 7, 8, IDENTITY),
    "negative": np.where(IDENTITY == 7, -1, IDENTITY),
    "above": np.where(IDENTITY == 7, 256, IDENTITY),
    "wraps_at_32_bits": np.where(IDENTITY == 7, 7 + 2**32, IDENTITY),
    "float": IDENTITY.astype(np.float32),
    "short": IDENTITY[:255],
    "square": IDENTITY.reshape(16, 16),
    "empty": IDENTITY[:0],
}


@both_backends
@pytest.mark.parametrize("name", ORDERINGS)
def test_an_ordering_that_is_no_permutation_is_refused(name, backend, tmp_path):
    fault = Fault(name, ordering(ORDERINGS[name]), (DRAFTER, "masked_embedding.token_ordering"))
    check(fault, tmp_path, variant="e2b", backend=backend)
