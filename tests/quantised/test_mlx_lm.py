"""What mlx_lm.convert writes loads as it is, and means what it means to mlx-lm."""

import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import mtp_mlx
from mtp_mlx.checkpoint import open_target
from tests.golden import recipe
from tests.quantised.converted import SETTINGS, converted, run_mlx_lm
from tests.quantised.sources import source_pair

# Float32 in another order of operations, over logits of up to 18.
LOGITS_ATOL = 2e-4
IDS = [2, 72, 101, 108, 108, 111, 33, 9, 200, 17, 64]  # longer than the window of 8
QUICK = ("4_bits_of_32", "8_bits_of_64")
QUICK_TOO = {("e2b", "mxfp4"), ("26b", "mxfp4"), ("e4b", "mixed_3_6"), ("26b", "mixed_2_6")}
CASES = [
    pytest.param(
        variant,
        name,
        marks=[] if name in QUICK or (variant, name) in QUICK_TOO else [pytest.mark.slow],
    )
    for variant in recipe.VARIANTS
    for name in SETTINGS
]


def logits_of_mlx_lm(folder, ids: list[int]) -> np.ndarray:
    """mlx-lm's logits, all of it in float32.

    A table of mode mxfp4 and its like it reads as bfloat16, and then computes the per-layer inputs
    in bfloat16 too; so the embeddings are handed over in float32.
    """
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)
    embedded = model.language_model.model.embed_tokens(mx.array([ids])).astype(mx.float32)
    return np.array(model(mx.array([ids]), input_embeddings=embedded).astype(mx.float32))[0]


@pytest.mark.parametrize(("variant", "name"), CASES)
def test_logits_are_those_of_mlx_lm_on_the_same_folder(variant, name):
    folder, _ = converted(variant, name, 4)
    expected = logits_of_mlx_lm(folder, IDS)
    found = mtp_mlx.load(folder, draft_model=None).logits(IDS)
    assert np.abs(expected).max() > 5
    assert np.abs(found - expected).max() <= LOGITS_ATOL


@pytest.mark.parametrize("name", ["4_bits_of_32", "mixed_2_6", "mxfp4"])
def test_they_were_quantised(name):
    """Guards the test above: table, experts and attention are packed, the router to 8 bits."""
    folder, _ = converted("26b", name, 4)
    config = open_target(folder).config
    assert config.quantization is not None
    if name != "mixed_2_6":  # mlx-lm's recipes overrule what it has for routers
        assert config.quantization.of("layers.0.router.proj").bits == 8
    bits = {spec.bits for spec in config.quantization.overrides.values() if spec is not None}
    assert bits == ({2, 6} if name == "mixed_2_6" else {8})
    tensors = open_target(folder).tensors
    for path in (
        "embed_tokens",
        "layers.0.self_attn.q_proj",
        "layers.1.experts.switch_glu.up_proj",
    ):
        assert tensors[f"{path}.weight"].dtype == "U32"


def test_matrices_that_no_group_divides_stay_plain_as_in_mlx_lm(tmp_path):
    """mlx_lm.convert leaves them plain, and config.json does not say so."""
    target, _ = source_pair(tmp_path, "31b")
    run_mlx_lm(target, tmp_path / "out", q_bits=4, q_group_size=128)
    checkpoint = open_target(tmp_path / "out")
    kinds = {key: info.dtype for key, info in checkpoint.tensors.items()}
    assert kinds["embed_tokens.weight"] == "F32"  # rows of 64
    assert kinds["layers.0.mlp.down_proj.weight"] == "U32"  # rows of 128
    found = mtp_mlx.load(tmp_path / "out", draft_model=None).logits(IDS)
    assert np.abs(found - logits_of_mlx_lm(tmp_path / "out", IDS)).max() <= LOGITS_ATOL


@pytest.mark.parametrize("variant", ["e2b", "26b", "31b"])
def test_a_text_only_checkpoint_converts_and_loads(variant, tmp_path):
    """Gemma4ForCausalLM: names begin with `model.`, config.json is the bare text config."""
    target, _ = source_pair(tmp_path, variant, layout="hf-text")
    run_mlx_lm(target, tmp_path / "out", q_bits=4, q_group_size=32)
    names = open_target(tmp_path / "out").tensors["norm.weight"].name
    assert names == "model.norm.weight"
    from mlx_lm.utils import load_model

    model, _ = load_model(tmp_path / "out")
    expected = np.array(model(mx.array([IDS])).astype(mx.float32))[0]
    found = mtp_mlx.load(tmp_path / "out", draft_model=None).logits(IDS)
    assert np.abs(found - expected).max() <= LOGITS_ATOL


@pytest.mark.parametrize(
    ("variant", "layout", "dialect", "said"),
    [
        ("12b", "hf-text", "classic", "gemma4_unified_text not supported"),
        ("31b", "hf", "5.23", "shape"),
    ],
)
def test_what_mlx_lm_cannot_convert_we_load_plain(variant, layout, dialect, said, tmp_path):
    """The text-only 12B has a model_type that mlx-lm lacks, and of the newer dialect it reads the
    classic keys, which are not there. Nobody has such files quantised by mlx-lm, then; `mtp-mlx
    convert` makes them."""
    target, _ = source_pair(tmp_path, variant, layout, dialect)
    with pytest.raises(ValueError, match=said):
        run_mlx_lm(target, tmp_path / "out", q_bits=4, q_group_size=32)
    assert mtp_mlx.load(target, draft_model=None).logits(IDS).shape == (len(IDS), 256)


def test_the_layout_of_mlx_community_loads(tmp_path):
    """Converted by mlx-vlm: a vision tower beside `language_model.model.`, quantised or not."""
    folder, _ = converted("31b", "4_bits_of_32", 4)
    arrays = mx.load(str(folder / "model.safetensors"))
    tower = nn.QuantizedLinear.from_linear(nn.Linear(64, 64), 32, 4)
    arrays |= {f"vision_tower.encoder.layers.0.mlp.up_proj.{k}": v for k, v in tower.items()}
    arrays["embed_vision.embedding_projection.weight"] = mx.ones((4, 4))
    config = json.loads((folder / "config.json").read_text())
    config["quantization"]["vision_tower.encoder.layers.0.mlp.up_proj"] = False
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(tmp_path / "model.safetensors"), arrays, {"format": "mlx"})
    found = mtp_mlx.load(tmp_path, draft_model=None).logits(IDS)
    assert np.array_equal(found, mtp_mlx.load(folder, draft_model=None).logits(IDS))
