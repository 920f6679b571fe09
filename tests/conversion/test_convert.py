"""Our own conversion: mlx-lm's numbers to the bit, the drafter beside, whole folders or none."""

import json
import os
import tracemalloc
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

import mtp_mlx
from mtp_mlx.checkpoint import find_drafter, open_drafter, open_target
from mtp_mlx.conversion import convert as convert_module
from mtp_mlx.conversion import output as output_module
from mtp_mlx.conversion import stream
from mtp_mlx.conversion.output import Output
from mtp_mlx.conversion.plan import DEFAULTS, RECIPES, Plan, quant_spec
from mtp_mlx.errors import CheckpointError, MtpError, RequestError, Unsupported
from mtp_mlx.quantization import QuantSpec
from mtp_mlx.validate import INDEX_NAME, read_checkpoint
from tests.bad_input.files import WEIGHTS, edit_tensors, read_tensors
from tests.quantised.converted import SETTINGS, converted, run_mlx_lm, run_ours
from tests.quantised.sources import source_pair

IDS = [2, 72, 101, 108, 108, 111, 33, 9, 200, 17, 64]
FOUR = QuantSpec(32, 4, "affine")


def plan_of(name: str) -> Plan:
    """What mlx_lm.convert is asked for, as a plan of ours."""
    asked = SETTINGS[name]
    spec = quant_spec(
        asked.get("q_mode", "affine"), asked.get("q_bits"), asked.get("q_group_size"), "--q-bits"
    )
    return Plan(default=spec, recipe=asked.get("quant_predicate"))


def arrays_of(folder: Path) -> dict[str, mx.array]:
    found: dict[str, mx.array] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        loaded = mx.load(str(file))
        assert isinstance(loaded, dict)
        found |= loaded
    return found


def specs_of(folder: Path) -> dict[str, QuantSpec | None]:
    """How each packed matrix is stored, as config.json says."""
    opened = open_target(folder)
    assert opened.config.quantization is not None
    paths = [key.removesuffix(".scales") for key in opened.tensors if key.endswith(".scales")]
    return {path: opened.config.quantization.of(path) for path in paths}


def same_tensors(one: Path, other: Path) -> None:
    left, right = arrays_of(one), arrays_of(other)
    assert left.keys() == right.keys()
    for name, array in left.items():
        assert array.dtype == right[name].dtype, name
        assert mx.array_equal(array, right[name]), name


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("e2b", "4_bits_of_32"),
        ("e4b", "8_bits_of_64"),
        ("12b", "4_bits_of_32"),
        ("26b", "4_bits_of_32"),
        ("26b", "mxfp4"),
        ("31b", "8_bits_of_64"),
        pytest.param("31b", "mixed_3_6", marks=pytest.mark.slow),
        pytest.param("e2b", "mxfp8", marks=pytest.mark.slow),
        pytest.param("31b", "nvfp4", marks=pytest.mark.slow),
    ],
)
def test_the_target_is_bit_for_bit_what_mlx_lm_makes(variant, name, tmp_path):
    theirs, _ = converted(variant, name, 4)
    source = source_pair(tmp_path, variant)
    done = run_ours((source[0], None), tmp_path / "ours", plan_of(name))
    same_tensors(tmp_path / "ours", theirs)
    specs = [specs_of(folder) for folder in (tmp_path / "ours", theirs)]
    assert specs[0] == specs[1]
    assert done.drafter is None
    assert done.target.left_out == 2  # the tower's


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_give_every_matrix_the_bits_of_mlx_lm(name, tmp_path):
    """All but the router's, which stays at 8 bits: mlx-lm's recipes overrule that."""
    source = source_pair(tmp_path, "26b")
    run_mlx_lm(source[0], tmp_path / "theirs", quant_predicate=name, q_group_size=32)
    plan = Plan(default=QuantSpec(32, 4, "affine"), recipe=name)
    run_ours((source[0], None), tmp_path / "ours", plan)
    ours, theirs = (specs_of(tmp_path / folder) for folder in ("ours", "theirs"))
    for path, spec in ours.items():
        is_router = path.endswith("router.proj")
        assert spec == (QuantSpec(64, 8, "affine") if is_router else theirs[path]), path


@pytest.mark.parametrize(
    ("variant", "layout", "dialect"),
    [("e2b", "hf", "5.23"), ("26b", "hf", "5.23"), ("31b", "mlx", "classic"),
     ("e4b", "hf-text", "classic")],
)  # fmt: skip
def test_every_layout_and_dialect_converts_to_what_mlx_lm_loads(variant, layout, dialect, tmp_path):
    from mlx_lm.utils import load_model

    source = source_pair(tmp_path, variant, layout, dialect)
    run_ours((source[0], None), tmp_path / "out", Plan(default=FOUR))
    model, _ = load_model(tmp_path / "out")
    expected = np.array(model(mx.array([IDS])).astype(mx.float32))[0]
    found = mtp_mlx.load(tmp_path / "out", draft_model=None).logits(IDS)
    assert np.abs(found - expected).max() <= 2e-4


def test_the_drafter_keeps_its_numbers_unless_asked_and_is_found_by_itself(tmp_path):
    source = source_pair(tmp_path, "e2b")
    done = run_ours(source, tmp_path / "out", Plan(default=FOUR))
    assert done.drafter is not None
    assert find_drafter(tmp_path / "out") == done.drafter.folder == tmp_path / "out-assistant"
    same_tensors(done.drafter.folder, source[1])
    llm = mtp_mlx.load(tmp_path / "out")
    assert llm.has_drafter
    options = {"max_tokens": 8, "temperature": 0.8, "seed": 3}
    plain = llm.generate(IDS, **options, num_draft_tokens=0)
    assert llm.generate(IDS, **options, num_draft_tokens=3).token_ids == plain.token_ids


def test_the_drafters_head_is_apart_from_its_layers(tmp_path):
    source = source_pair(tmp_path, "e2b")
    config = open_target(source[0]).config
    kinds = {}
    eight = QuantSpec(64, 8, "affine")
    for name, plan in (("layers", Plan(default=FOUR)), ("head", Plan(head=eight))):
        run_ours(source, tmp_path / name, Plan(), plan)
        drafter = open_drafter(tmp_path / f"{name}-assistant", config)
        kinds[name] = {
            key.removesuffix(".scales") for key in drafter.tensors if key.endswith(".scales")
        }
        assert drafter.tensors["masked_embedding.token_ordering"].dtype == "I64"
        assert mtp_mlx.load(tmp_path / name).propose(IDS, 2)
    assert kinds["head"] == {"embed_tokens", "masked_embedding.centroids"}
    assert {"pre_projection", "post_projection", "layers.3.mlp.up_proj"} < kinds["layers"]
    assert kinds["layers"].isdisjoint(kinds["head"])


def test_without_quantisation_the_layout_alone_changes(tmp_path):
    source = source_pair(tmp_path, "26b")
    run_ours(source, tmp_path / "out", Plan())
    folders = source[0], tmp_path / "out"
    before, after = (mtp_mlx.load(each, draft_model=None).logits(IDS) for each in folders)
    assert np.array_equal(before, after)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization" not in config
    assert "vision_config" not in config


def test_types_are_cast_and_the_config_says_so(tmp_path):
    source = source_pair(tmp_path, "31b")
    run_mlx_lm(source[0], tmp_path / "theirs", q_bits=4, q_group_size=32, dtype="bfloat16")
    run_ours(source, tmp_path / "out", Plan(default=FOUR, dtype="BF16"), Plan(dtype="BF16"))
    same_tensors(tmp_path / "out", tmp_path / "theirs")
    drafter = read_checkpoint(tmp_path / "out-assistant")
    assert {info.dtype for info in drafter.values()} == {"BF16"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    mtp_mlx.load(tmp_path / "out")


def test_the_small_files_come_along(tmp_path):
    source = source_pair(tmp_path, "31b")
    run_ours(source, tmp_path / "out", Plan(default=FOUR))
    for name in (
        "tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"
    ):  # fmt: skip
        assert (tmp_path / "out" / name).read_bytes() == (source[0] / name).read_bytes()


def test_shards_and_chunks_change_no_number(tmp_path, monkeypatch):
    source = source_pair(tmp_path, "26b")
    run_ours(source, tmp_path / "whole", Plan(default=FOUR))
    monkeypatch.setattr(stream, "CHUNK_BYTES", 1000)
    pair = convert_module.Pair(*source, None)
    done = convert_module.convert(
        pair, tmp_path / "cut", (Plan(default=FOUR), Plan()), Output(), str, shard_bytes=100_000
    )
    same_tensors(tmp_path / "whole", tmp_path / "cut")
    files = sorted((tmp_path / "cut").glob("*.safetensors"))
    assert len(files) == done.target.num_files > 3
    index = json.loads((tmp_path / "cut" / INDEX_NAME).read_text())
    assert set(index["weight_map"].values()) == {file.name for file in files}
    assert index["metadata"]["total_size"] == done.target.num_bytes
    largest = max(part.stat().st_size for part in files)
    assert largest < 100_000 + 30_000  # and a header
    mtp_mlx.load(tmp_path / "cut")


def test_memory_is_bounded_by_the_chunk_not_by_the_tensor(tmp_path, monkeypatch):
    source = source_pair(tmp_path, "31b", vocab_size=1 << 17)  # a table of 32 MiB
    monkeypatch.setattr(stream, "CHUNK_BYTES", 1 << 20)
    mx.reset_peak_memory()
    held = mx.get_active_memory()
    tracemalloc.start()
    try:
        run_ours((source[0], None), tmp_path / "out", Plan(default=FOUR))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert mx.get_peak_memory() - held < 8 << 20
    assert peak < 16 << 20


# --- refusals -----------------------------------------------------------------------------------


def nothing_left(folder: Path) -> bool:
    return sorted(path.name for path in folder.iterdir()) == ["source", "source-assistant"]


@pytest.mark.parametrize("taken", ["out", "out-assistant"])
def test_a_folder_that_is_not_empty_is_refused_before_any_work(taken, tmp_path):
    source = source_pair(tmp_path, "31b")
    (tmp_path / taken).mkdir()
    (tmp_path / taken / "mine").write_text("kept")
    with pytest.raises(RequestError, match=f"{taken}: exists and is not empty; remove it"):
        run_ours(source, tmp_path / "out", Plan(default=FOUR))
    assert {path.name for path in tmp_path.iterdir()} == {"source", "source-assistant", taken}
    assert [path.name for path in (tmp_path / taken).iterdir()] == ["mine"]


def test_an_empty_folder_is_taken_and_a_file_is_not(tmp_path):
    source = source_pair(tmp_path, "31b")
    (tmp_path / "out").mkdir()
    run_ours((source[0], None), tmp_path / "out", Plan())
    assert (tmp_path / "out" / WEIGHTS).is_file()
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="file: exists"):
        run_ours((source[0], None), tmp_path / "file", Plan())


@pytest.mark.parametrize("place", ["there", "not there"])
def test_a_link_is_followed_for_target_and_drafter(place, tmp_path):
    """Into another disk, say; the drafter goes where a load of the target finds it."""
    source = source_pair(tmp_path, "31b")
    disk = tmp_path / "disk"
    if place == "there":
        (disk / "real").mkdir(parents=True)
    for name, target in (("out", disk / "real"), ("disk/real-assistant", disk / "drafter")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(target)
    done = run_ours(source, tmp_path / "out", Plan())
    assert done.target.folder == disk / "real" and (disk / "real" / WEIGHTS).is_file()
    assert (disk / "drafter" / WEIGHTS).is_file()
    assert find_drafter(tmp_path / "out") == disk / "real-assistant"
    assert sorted(path.name for path in disk.iterdir()) == ["drafter", "real", "real-assistant"]


def test_what_a_killed_run_left_is_named(tmp_path):
    source = source_pair(tmp_path, "31b")
    (tmp_path / ".out.partial").mkdir()
    with pytest.raises(RequestError, match=r"\.out\.partial: another conversion .* remove it"):
        run_ours(source, tmp_path / "out", Plan())
    assert (tmp_path / ".out.partial").is_dir()


def spoil(value: float):
    def change(tensors) -> None:
        tensors["model.language_model.layers.5.mlp.up_proj.weight"][-1, -1] = value

    return change


@pytest.mark.parametrize(("value", "dtype"), [(np.nan, None), (np.inf, None), (1e30, "F16")])
def test_numbers_that_are_none_are_refused_and_nothing_is_left(value, dtype, tmp_path):
    source = source_pair(tmp_path, "31b")
    edit_tensors(source[0], spoil(value))
    with pytest.raises(CheckpointError, match=r"layers\.5\.mlp\.up_proj\.weight holds NaN or inf"):
        run_ours(source, tmp_path / "out", Plan(default=FOUR, dtype=dtype))
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("role", [0, 1])
def test_a_tensor_of_another_shape_is_refused_before_anything_is_written(
    role, tmp_path, monkeypatch
):
    source = source_pair(tmp_path, "31b")
    name = ("model.language_model.norm.weight", "model.norm.weight")[role]
    edit_tensors(source[role], lambda tensors: tensors.update({name: np.ones(65, np.float32)}))
    monkeypatch.setattr(Output, "begin", lambda *_: pytest.fail("written to"))
    with pytest.raises(CheckpointError, match=r"norm.weight should have shape \[64\] .* \[65\]"):
        run_ours(source, tmp_path / "out", Plan(default=FOUR))


def test_a_file_changed_meanwhile_is_refused_and_nothing_is_left(tmp_path, monkeypatch):
    source = source_pair(tmp_path, "31b")
    original = stream._write

    def write(path, shard):
        yield from original(path, shard)
        os.utime(source[0] / WEIGHTS, (1, 1))

    monkeypatch.setattr(stream, "_write", write)
    with pytest.raises(CheckpointError, match="changed while loading"):
        run_ours(source, tmp_path / "out", Plan(default=FOUR))
    assert nothing_left(tmp_path)


def test_a_full_disk_is_foreseen(tmp_path, monkeypatch):
    source = source_pair(tmp_path, "31b")
    usage = output_module.shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(output_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(MtpError, match=r"0\.07 GB are needed, 0\.00 GB are free; make room"):
        run_ours(source, tmp_path / "out", Plan(default=FOUR))
    assert nothing_left(tmp_path)


def test_what_is_quantised_already_is_refused(tmp_path):
    theirs, drafter = converted("31b", "4_bits_of_32", 4)
    for pair, said in (((theirs, None), "theirs"), ((theirs, drafter), "theirs")):
        with pytest.raises(Unsupported, match=f"{said}: is quantised already, to 4 bits; give"):
            run_ours(pair, tmp_path / "out", Plan(default=FOUR))
    source = source_pair(tmp_path, "31b")
    with pytest.raises(Unsupported, match="ours-assistant: is quantised already"):
        run_ours((source[0], drafter), tmp_path / "out", Plan())


def test_a_link_out_of_the_folder_is_not_copied(tmp_path):
    source = source_pair(tmp_path, "31b")
    (source[0] / "added_tokens.json").symlink_to("/etc/passwd")
    with pytest.raises(CheckpointError, match="leads out of the model folder"):
        run_ours(source, tmp_path / "out", Plan())
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("mode", "bits", "group", "said"),
    [
        ("affine", 7, None, "--q-bits of mode affine must be one of 2, 3, 4, 5, 6, 8, found 7"),
        ("affine", 4, 48, "--q-group-size of mode affine must be one of 32, 64, 128, found 48"),
        ("mxfp4", 8, None, "--q-bits of mode mxfp4 must be one of 4, found 8"),
        ("nvfp4", 4, 32, "--q-group-size of mode nvfp4 must be one of 16, found 32"),
    ],
)
def test_what_mlx_has_no_kernel_for_is_refused(mode, bits, group, said):
    with pytest.raises(Unsupported) as caught:
        quant_spec(mode, bits, group, "--q-bits")
    assert str(caught.value) == said


@pytest.mark.parametrize("mode", DEFAULTS)
def test_the_defaults_of_a_mode_are_allowed(mode):
    assert quant_spec(mode, None, None, "--q-bits").mode == mode


def test_read_tensors_sees_what_was_written(tmp_path):
    """A reader of our own, which knows no MLX, finds the same bytes."""
    source = source_pair(tmp_path, "31b")
    run_ours(source, tmp_path / "out", Plan())
    folders = source[1], tmp_path / "out-assistant"
    before, after = (read_tensors(folder / WEIGHTS) for folder in folders)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
