"""The files of the embedded pairs: sizes, pins, Gemma's ids, and a damaged installation."""

import json
import shutil
import statistics
import tomllib
from pathlib import Path

import pytest

import mtp_mlx
from mtp_mlx import embedded
from mtp_mlx.checkpoint import open_drafter, open_target
from mtp_mlx.errors import CheckpointError
from tests.embedded import held_out
from training.gemma_files import SPECIAL_TOKENS

ROOT = Path(__file__).resolve().parents[2]
LIMIT_BYTES = 6_000_000


def test_both_pairs_take_at_most_six_megabytes():
    files = [file for folder in embedded.FOLDERS for file in (embedded.HERE / folder).iterdir()]
    assert sum(file.stat().st_size for file in files) <= LIMIT_BYTES


def test_every_file_is_pinned_and_nothing_else():
    pins = json.loads(embedded.PINS.read_text())
    files = [file for folder in embedded.FOLDERS for file in (embedded.HERE / folder).iterdir()]
    assert sorted(pins) == sorted(str(file.relative_to(embedded.HERE)) for file in files)
    for name in embedded.NAMES:
        assert embedded.embedded_folder(name) == embedded.HERE / name


def test_the_wheel_takes_every_file_and_no_other():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = set()
    for pattern in settings["package-data"]["mtp_mlx.embedded"]:
        found.update(file for file in embedded.HERE.glob(pattern) if file.is_file())
    pinned = {embedded.HERE / file for file in json.loads(embedded.PINS.read_text())}
    assert found == pinned | {embedded.PINS, embedded.HERE / "README.md"}
    assert settings["packages"]["find"]["include"] == ["mtp_mlx*"]
    assert (embedded.HERE / "__init__.py").exists()


@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
@pytest.mark.parametrize("file", ["tiny/model.safetensors", "tiny-assistant/config.json"])
def test_a_damaged_file_says_so(tmp_path, monkeypatch, file, how):
    shutil.copytree(embedded.HERE, tmp_path / "embedded")
    monkeypatch.setattr(embedded, "HERE", tmp_path / "embedded")
    path = tmp_path / "embedded" / file
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if how == "flip" else content[:-9])
    with pytest.raises(CheckpointError, match=r"install mtp-mlx again"):
        mtp_mlx.load("tiny")
    with mtp_mlx.load("tiny-moe") as llm:  # the other pair is unharmed
        assert llm.has_drafter


@pytest.mark.parametrize("content", ["{}", "", "[]", None])
def test_damaged_pins_say_so(tmp_path, monkeypatch, content):
    monkeypatch.setattr(embedded, "PINS", tmp_path / "sha256.json")
    if content is not None:
        embedded.PINS.write_text(content)
    with pytest.raises(CheckpointError, match=r"sha256.json.*install mtp-mlx again"):
        embedded.embedded_folder("tiny")


@pytest.mark.parametrize("name", embedded.NAMES)
def test_special_tokens_have_gemmas_ids(name):
    tokenizer = held_out.writer(name).tokenizer
    for text, token in SPECIAL_TOKENS.items():
        assert tokenizer.id_to_piece(token) == text
    assert tokenizer.encode_template("a<turn|>\n")[-2:] == [106, 107]
    for text in ("Käse 🧀 12\n", "a[i] * b[0]", "", "  two  spaces "):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_shapes_are_those_of_e2b_and_26b():
    tiny = open_target(embedded.HERE / "tiny").config
    moe = open_target(embedded.HERE / "tiny-moe").config
    kinds = [layer.owns_cache for layer in tiny.layers]
    assert tiny.per_layer_dim
    assert not all(kinds)
    assert len({layer.ffn_dim for layer in tiny.layers}) == 2
    assert open_drafter(embedded.HERE / "tiny-assistant", tiny).config.centroids
    assert {layer.experts.num_experts for layer in moe.layers} == {16}
    assert any(layer.keys_are_values for layer in moe.layers)
    assert not open_drafter(embedded.HERE / "tiny-moe-assistant", moe).config.centroids


@pytest.mark.parametrize("name", embedded.NAMES)
def test_most_prompts_are_longer_than_the_window_and_nearly_all_with_their_replies(name):
    layers = open_target(embedded.HERE / name).config.layers
    [window] = {layer.window for layer in layers if layer.window}
    writer, examples = held_out.writer(name), held_out.examples(300, 5)
    assert statistics.median(len(writer.prompt(e)) for e in examples) > window
    assert sum(len(writer.text(e).ids) > window for e in examples) >= 0.9 * len(examples)


def test_a_link_to_an_embedded_folder_has_that_folder_s_name(tmp_path):
    (tmp_path / "tiny-moe").symlink_to(embedded.HERE / "tiny")
    assert embedded.name_of(tmp_path / "tiny-moe") == "tiny"
    assert embedded.name_of(tmp_path) == str(tmp_path)
