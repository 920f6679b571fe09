"""A12: NaN and infinity in what every row passes through."""

import numpy as np
import pytest

import mtp_mlx
from tests.bad_input.faults import (
    Fault,
    both_backends,
    check,
    in_drafter_tensors,
    in_target_tensors,
)
from tests.bad_input.files import WEIGHTS, Tensors, copy_pair, edit_tensors, to_bfloat16

PREFIX = "model.language_model."
TARGET_KEYS = [
    ("31b", "embed_tokens.weight"),
    ("31b", "norm.weight"),
    ("31b", "layers.3.input_layernorm.weight"),
    ("31b", "layers.3.post_attention_layernorm.weight"),
    ("31b", "layers.3.pre_feedforward_layernorm.weight"),
    ("31b", "layers.3.self_attn.q_norm.weight"),
    ("31b", "layers.3.self_attn.k_norm.weight"),
    ("31b", "layers.3.layer_scalar"),
    ("26b", "layers.2.post_feedforward_layernorm_1.weight"),
    ("26b", "layers.2.post_feedforward_layernorm_2.weight"),
    ("26b", "layers.2.pre_feedforward_layernorm_2.weight"),
    ("26b", "layers.2.router.scale"),
    ("26b", "layers.2.router.per_expert_scale"),
    ("e2b", "layers.2.post_per_layer_input_norm.weight"),
    ("e2b", "per_layer_projection_norm.weight"),
]
DRAFTER_KEYS = ["model.embed_tokens.weight", "model.norm.weight", "model.layers.3.layer_scalar"]


def spoilt(name: str, value: float):
    """The last number of a tensor becomes `value`."""

    def change(tensors: Tensors) -> None:
        tensors[name].flat[-1] = value

    return change


@both_backends
@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize(("variant", "key"), TARGET_KEYS)
def test_a_target_with_one_number_spoilt_is_refused_by_file_and_key(
    variant, key, value, backend, tmp_path
):
    damage = in_target_tensors(spoilt(PREFIX + key, value))
    fault = Fault(key, damage, (f"target/{WEIGHTS}", key, "NaN or infinity"))
    check(fault, tmp_path, variant=variant, backend=backend)


@both_backends
@pytest.mark.parametrize("name", DRAFTER_KEYS)
def test_a_drafter_with_one_number_spoilt_is_refused_by_file_and_key(name, backend, tmp_path):
    said = (f"drafter/{WEIGHTS}", name.removeprefix("model."), "NaN or infinity")
    fault = Fault(name, in_drafter_tensors(spoilt(name, np.nan)), said)
    check(fault, tmp_path, backend=backend)


@both_backends
def test_half_precision_that_overflowed_is_refused(backend, tmp_path):
    """A float32 norm cast to float16 on disk by a careless tool."""

    def change(tensors: Tensors) -> None:
        with np.errstate(over="ignore"):
            tensors[PREFIX + "norm.weight"] = (tensors[PREFIX + "norm.weight"] * 1e6).astype("e")

    said = (f"target/{WEIGHTS}", "norm.weight", "NaN or infinity")
    check(Fault("float16", in_target_tensors(change), said), tmp_path, backend=backend)


@both_backends
def test_a_nan_of_bfloat16_is_refused(backend, tmp_path):
    def change(tensors: Tensors) -> None:
        for name in tensors:
            tensors[name] = to_bfloat16(tensors[name])
        tensors[PREFIX + "embed_tokens.weight"].flat[5] = 0x7FC0

    said = (f"target/{WEIGHTS}", "embed_tokens.weight", "NaN or infinity")
    check(Fault("bfloat16", in_target_tensors(change), said), tmp_path, backend=backend)


MATRICES = [
    ("31b", "target", PREFIX + "layers.3.mlp.up_proj.weight", "layers.3.mlp.up_proj.weight"),
    ("26b", "target", PREFIX + "layers.2.experts.gate_up_proj", "layers.2.experts."),
    ("e2b", "target", PREFIX + "embed_tokens_per_layer.weight", "embed_tokens_per_layer.weight"),
    ("31b", "drafter", "post_projection.weight", "post_projection.weight"),
]


@both_backends
@pytest.mark.parametrize(("variant", "role", "name", "said"), MATRICES)
def test_any_number_spoilt_is_found_where_all_weights_are_checked(
    variant, role, name, said, backend, tmp_path
):
    target, drafter = copy_pair(tmp_path, variant)
    how = {"draft_model": drafter, "backend": backend, "check_weights": True}
    assert mtp_mlx.load(target, **how).has_drafter
    edit_tensors({"target": target, "drafter": drafter}[role], spoilt(name, np.inf))
    with pytest.raises(mtp_mlx.CheckpointError, match=f"{said}.* holds NaN or infinity") as caught:
        mtp_mlx.load(target, **how)
    assert role in str(caught.value)
    mtp_mlx.load(target, **how | {"check_weights": False})  # the round's own check is left
