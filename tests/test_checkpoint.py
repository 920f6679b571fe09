"""What a checkpoint folder may look like, and that each form of one model is that model."""

import json
import os
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

import mtp_mlx
from mtp_mlx.checkpoint import Checkpoint, open_drafter, open_target
from mtp_mlx.errors import CheckpointError
from mtp_mlx.generation import Defaults, read_defaults
from mtp_mlx.model.load import load_drafter, load_target
from mtp_mlx.reference.load import load_weights
from tests.bad_input.faults import both_backends
from tests.bad_input.files import (
    INDEX,
    WEIGHTS,
    Tensors,
    copy_pair,
    edit_json,
    edit_tensors,
    from_bfloat16,
    read_tensors,
    to_bfloat16,
    write_tensors,
)
from tests.golden import recipe

IDS = [2, 72, 101, 108, 108, 111, 33, 9, 200, 17, 64]  # longer than the window of 8
PREFIX = "model.language_model."
FORMS = [
    ("hf", "5.23", 3),
    ("hf-text", "classic", 2),
    ("hf-text", "5.23", 1),
    ("mlx", "classic", 3),
    ("mlx", "5.23", 1),
]
every_variant = pytest.mark.parametrize("variant", recipe.VARIANTS)


def numpy_weights(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    return load_weights(checkpoint)


def mlx_weights(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    model = load_target(checkpoint, mx.float32)
    return {key: np.array(array) for key, array in tree_flatten(model.parameters())}


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for key, array in one.items():
        assert np.array_equal(array, other[key]), key


# Every published form of a checkpoint.


@pytest.mark.parametrize(("layout", "dialect", "shards"), FORMS)
@every_variant
def test_every_layout_dialect_and_number_of_shards_is_the_same_model(
    variant, layout, dialect, shards, tmp_path
):
    plain = copy_pair(tmp_path / "plain", variant)
    other = copy_pair(tmp_path / "other", variant, layout, dialect, shards)
    assert (other[0] / INDEX).exists() == (shards > 1)
    checkpoints = [open_target(folder) for folder in (plain[0], other[0])]
    assert_same(*map(numpy_weights, checkpoints))
    assert_same(*map(mlx_weights, checkpoints))
    logits, drafts = [], []
    for target, drafter in (plain, other):
        llm = mtp_mlx.load(target, draft_model=drafter)
        logits.append(llm.logits(IDS))
        drafts.append(llm.propose(IDS, 3))
    assert np.array_equal(*logits)
    assert drafts[0] == drafts[1]


@every_variant
def test_weights_arrive_in_both_backends_as_they_were_written(variant, tmp_path):
    target, _ = copy_pair(tmp_path, variant)
    written = recipe.split_experts(recipe.target_weights(variant))
    checkpoint = open_target(target)
    assert_same(numpy_weights(checkpoint), written)
    assert_same(mlx_weights(checkpoint), written)


# What text does not read.

UNUSED = (
    "model.vision_tower.encoder.layers.0.self_attn.q_proj.weight",
    "vision_tower.encoder.layers.0.mlp.up_proj.input_max",
    "model.audio_tower.subsample.weight",
    "audio_tower.layers.0.norm.weight",
    "model.embed_vision.pooled.weight",
    "embed_audio.embedding_projection.weight",
    "model.vision_embedder.patch.weight",
    "multi_modal_projector.mm_input_projection_weight",
    "model.language_model.layers.0.self_attn.rotary_emb.inv_freq",
    "model.language_model.rotary_emb.full_attention_inv_freq",
    "model.language_model.layers.0.mlp.up_proj.output_min",
    "mtp.layers.0.weight",
    "lm_head.weight",
    "language_model.lm_head.weight",
)


@both_backends
def test_tensors_of_other_modalities_change_nothing_and_are_counted(backend, tmp_path):
    target, drafter = copy_pair(tmp_path, "31b")
    expected = mtp_mlx.load(target, draft_model=drafter, backend=backend).logits(IDS)
    before = open_target(target).num_unused

    def change(tensors: Tensors) -> None:
        for name in UNUSED:
            assert name not in tensors
            tensors[name] = np.full((3, 3), np.nan, np.float32)

    edit_tensors(target, change)
    assert open_target(target).num_unused == before + len(UNUSED)
    found = mtp_mlx.load(target, draft_model=drafter, backend=backend).logits(IDS)
    assert np.array_equal(found, expected)


def test_a_tower_may_be_stored_in_types_that_text_never_is(tmp_path):
    target, _ = copy_pair(tmp_path, "31b")
    name = "model.vision_tower.mask"
    edit_tensors(target, lambda tensors: tensors.update({name: np.ones(3, np.int64)}))
    assert mtp_mlx.load(target, draft_model=None).logits(IDS).shape == (len(IDS), 256)


@both_backends
@pytest.mark.parametrize(("variant", "num_shared"), [("e2b", 5), ("e4b", 6)])
def test_stale_keys_and_values_of_shared_layers_change_nothing(
    variant, num_shared, backend, tmp_path
):
    target, drafter = copy_pair(tmp_path, variant)
    llm = mtp_mlx.load(target, draft_model=drafter, backend=backend)
    expected, drafts = llm.logits(IDS), llm.propose(IDS, 3)
    before = open_target(target).num_unused
    count = recipe.target_config(variant)["text_config"]["num_hidden_layers"]
    parts = ("k_proj", "v_proj", "k_norm", "v_norm")

    def change(tensors: Tensors) -> None:
        for layer in range(count - num_shared, count):
            for part in parts:
                name = f"{PREFIX}layers.{layer}.self_attn.{part}.weight"
                assert name not in tensors
                tensors[name] = np.full((5, 7), np.inf, np.float32)

    def change_drafter(tensors: Tensors) -> None:
        for part in parts:
            tensors[f"model.layers.3.self_attn.{part}.weight"] = np.ones(3, np.float32)

    edit_tensors(target, change)
    edit_tensors(drafter, change_drafter)
    opened = open_target(target)
    assert opened.num_unused == before + len(parts) * num_shared
    assert open_drafter(drafter, opened.config).num_unused == len(parts)
    llm = mtp_mlx.load(target, draft_model=drafter, backend=backend)
    assert np.array_equal(llm.logits(IDS), expected)
    assert llm.propose(IDS, 3) == drafts


def test_stale_keys_of_a_layer_that_owns_its_own_are_no_stale_keys(tmp_path):
    target, _ = copy_pair(tmp_path, "e2b")
    name = f"{PREFIX}layers.4.self_attn.v_norm.weight"
    edit_tensors(target, lambda tensors: tensors.update({name: np.ones(32, np.float32)}))
    with pytest.raises(CheckpointError, match=r"layers\.4\.self_attn\.v_norm\.weight is not part"):
        load_target(open_target(target), mx.float32)


def test_a_shard_of_vision_alone_is_not_loaded(tmp_path):
    target, _ = copy_pair(tmp_path, "31b", shards=2)
    extra = "model-extra.safetensors"
    write_tensors(target / extra, {"model.vision_tower.x": np.ones(4, np.float32)})
    edit_json(target / INDEX, lambda i: i["weight_map"].update({"model.vision_tower.x": extra}))
    opened = open_target(target)
    assert extra not in [file.name for file in opened.files]
    assert mtp_mlx.load(target, draft_model=None).logits([2]).shape == (1, 256)


# Types on disk.


def rounded_to(kind: str, array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An array as stored in a 16-bit type, and the float32 of the same value."""
    if array.dtype.kind != "f":
        return array, array
    if kind == "bfloat16":
        return to_bfloat16(array), from_bfloat16(to_bfloat16(array))
    return array.astype(np.float16), array.astype(np.float16).astype(np.float32)


@both_backends
@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
@pytest.mark.parametrize("variant", ["e2b", "26b"])
def test_half_precision_on_disk_equals_float32_of_the_same_rounding(
    variant, kind, backend, tmp_path
):
    pairs = [copy_pair(tmp_path / name, variant) for name in ("half", "single")]
    for index, folders in enumerate(pairs):
        for folder in folders:
            tensors = read_tensors(folder / WEIGHTS)
            tensors = {name: rounded_to(kind, a)[index] for name, a in tensors.items()}
            write_tensors(folder / WEIGHTS, tensors)
    half, single = (
        mtp_mlx.load(target, draft_model=drafter, dtype="float32", backend=backend)
        for target, drafter in pairs
    )
    assert np.array_equal(half.logits(IDS), single.logits(IDS))
    assert half.propose(IDS, 3) == single.propose(IDS, 3)


def test_an_ordering_of_32_bits_equals_one_of_64(tmp_path):
    target, drafter = copy_pair(tmp_path, "e2b")
    expected = mtp_mlx.load(target, draft_model=drafter).propose(IDS, 3)
    name = "masked_embedding.token_ordering"
    edit_tensors(drafter, lambda t: t.update({name: t[name].astype(np.int32)}))
    assert mtp_mlx.load(target, draft_model=drafter).propose(IDS, 3) == expected


# Files that change between the check of their headers and their reading.


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def edit_a_byte(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")


def rename_a_tensor(path: Path) -> None:
    """Another header of the same length."""
    path.write_bytes(path.read_bytes().replace(b"norm.weight", b"nerm.weight"))


def replace(path: Path) -> None:
    """Another file with the same bytes, size and time."""
    found = path.stat()
    path.with_suffix(".new").write_bytes(path.read_bytes())
    path.with_suffix(".new").rename(path)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


CHANGES = [truncate, edit_a_byte, rename_a_tensor, replace, Path.unlink]
LOADERS = {"mlx": lambda opened: load_target(opened, mx.float32), "numpy": load_weights}


@pytest.mark.parametrize("backend", LOADERS)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_file_that_changes_before_it_is_read_fails_the_load(change, backend, tmp_path):
    target, _ = copy_pair(tmp_path, "31b")
    opened = open_target(target)
    change(target / WEIGHTS)
    with pytest.raises(CheckpointError, match=WEIGHTS) as caught:
        LOADERS[backend](opened)
    assert "changed while loading" in str(caught.value) or "No such file" in str(caught.value)


@pytest.mark.parametrize("change", [truncate, edit_a_byte], ids=lambda change: change.__name__)
def test_a_file_that_changes_while_mlx_reads_it_fails_the_load(change, tmp_path, monkeypatch):
    """MLX reads a header at once and the data when they are evaluated."""
    target, _ = copy_pair(tmp_path, "31b")
    opened = open_target(target)
    read_now = mx.load

    def load_and_change(file: str, **options: str):
        loaded = read_now(file, **options)
        change(Path(file))
        return loaded

    monkeypatch.setattr(mx, "load", load_and_change)
    with pytest.raises(CheckpointError, match=f"{WEIGHTS}: changed while loading"):
        load_target(opened, mx.float32)


def test_a_drafter_that_changes_before_it_is_read_fails_the_load(tmp_path):
    target, drafter = copy_pair(tmp_path, "31b")
    opened = open_drafter(drafter, open_target(target).config)
    edit_a_byte(drafter / WEIGHTS)
    with pytest.raises(CheckpointError, match="changed while loading"):
        load_drafter(opened, mx.float32)


@both_backends
def test_files_that_change_after_the_load_change_nothing(backend, tmp_path):
    target, drafter = copy_pair(tmp_path, "31b")
    expected = mtp_mlx.load(target, draft_model=drafter, backend=backend).logits(IDS)
    llm = mtp_mlx.load(target, draft_model=drafter, backend=backend)
    for folder in (target, drafter):
        (folder / WEIGHTS).write_bytes(b"")
    assert np.array_equal(llm.logits(IDS), expected)
    assert len(llm.propose(IDS, 2)) == 2


# Where replies end, and how they are sampled by default.


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        (1, 1, (1,)),
        ([1, 106], 1, (1, 106)),
        ([106, 1, 106], None, (1, 106)),
        (None, 50, (50,)),
        (None, None, ()),
        ("absent", "absent", ()),
        ([], 0, (0,)),
        ([255], [254, 255], (254, 255)),
    ],
)
def test_end_ids_of_a_config_are_the_union_of_both_levels(outer, inner, expected, tmp_path):
    target, _ = copy_pair(tmp_path, "31b")

    def change(top: dict) -> None:
        for values, ids in ((top, outer), (top["text_config"], inner)):
            values["eos_token_id"] = ids
            if ids == "absent":
                del values["eos_token_id"]

    edit_json(target / "config.json", change)
    assert open_target(target).config.eos_ids == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, Defaults()),
        ({}, Defaults()),
        ({"eos_token_id": 7}, Defaults(eos_ids=(7,))),
        ({"eos_token_id": [1, 106]}, Defaults(eos_ids=(1, 106))),
        ({"eos_token_id": None, "do_sample": None}, Defaults()),
        ({"temperature": 0.7, "top_k": 5}, Defaults(temperature=0.7, top_k=5)),
        ({"top_k": 5}, Defaults()),
        ({"do_sample": False, "temperature": 0.7, "eos_token_id": 3}, Defaults(eos_ids=(3,))),
        ({"do_sample": True}, Defaults(temperature=1.0)),
        (
            {"do_sample": True, "temperature": 0.5, "top_k": 64, "top_p": 0.95, "min_p": 0.1},
            Defaults(temperature=0.5, top_k=64, top_p=0.95, min_p=0.1),
        ),
        (
            {"do_sample": True, "temperature": 0, "top_k": None, "top_p": 1, "min_p": None},
            Defaults(temperature=0.0),
        ),
    ],
)
def test_sampling_defaults_are_those_of_generation_config(content, expected, tmp_path):
    if content is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(content))
    assert read_defaults(tmp_path, 256) == expected


def test_a_reply_ends_at_the_end_ids_of_all_files(tmp_path):
    """The token that the model writes third, named by each file in turn."""
    target, _ = copy_pair(tmp_path, "31b")

    def forget(top: dict) -> None:
        top["eos_token_id"] = top["text_config"]["eos_token_id"] = None

    edit_json(target / "config.json", forget)
    (target / "generation_config.json").unlink()
    ids = mtp_mlx.load(target, draft_model=None).generate(IDS, max_tokens=8).token_ids
    third = ids.index(ids[2])
    assert len(ids) == 8
    for name in ("config.json", "generation_config.json"):
        path = target / name
        values = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(values | {"eos_token_id": [ids[2]]}))
        reply = mtp_mlx.load(target, draft_model=None).generate(IDS, max_tokens=8)
        assert reply.token_ids == ids[: third + 1]
        assert reply.finish_reason == "stop"
        edit_json(path, lambda values: values.update(eos_token_id=None))
