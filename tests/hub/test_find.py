"""Names become folders, targets find their drafters, and nothing asks the network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mtp_mlx
from mtp_mlx.backends import find_pair
from mtp_mlx.embedded import HERE
from mtp_mlx.errors import DrafterMismatch, ModelNotFound
from mtp_mlx.hub.find import find_model
from tests.hub.server import DRAFTER, TARGET, cached
from tests.hub.test_cache import A, B, snapshot


def test_load_opens_a_cached_pair_by_its_short_name_and_asks_nobody(hub, cache):
    target = snapshot(cache, TARGET, A)
    drafter = snapshot(cache, DRAFTER, B, "tiny-assistant")
    with mtp_mlx.load("e4b-4bit") as llm:
        assert (llm.pair.target, llm.pair.drafter, llm.note) == (target, drafter, None)
        reply = llm.generate("fox", temperature=0, max_tokens=8)
    with mtp_mlx.load("tiny") as llm:
        assert reply.token_ids == llm.generate("fox", temperature=0, max_tokens=8).token_ids
    assert reply.spec.accepted > 0
    assert hub.requests == []


def test_the_hubs_library_is_not_imported_to_load(cache):
    snapshot(cache, TARGET, A)
    code = (
        "import sys, mtp_mlx; mtp_mlx.load('e4b-4bit', draft_model=None).close();"
        "print('huggingface_hub' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", ["e4b-4bit", "gemma-4-E4B-it-4bit", TARGET, TARGET.upper()])
def test_a_target_has_many_names(name, cache):
    folder = snapshot(cache, TARGET, A)
    assert find_model(name) == folder


def test_names_of_drafters_are_understood_too(cache):
    target = snapshot(cache, TARGET, A)
    drafter = snapshot(cache, DRAFTER, B, "tiny-assistant")
    assert find_pair(target, "e4b-assistant").drafter == drafter
    assert find_pair("e4b-4bit", DRAFTER).drafter == drafter
    assert find_pair("e4b-4bit", "none").drafter is None
    assert find_pair("e4b-4bit", None).note is None


@pytest.mark.parametrize("name", ["e4b-4bit", "org/name", "e4b-assistant"])
@pytest.mark.parametrize("role", ["target", "drafter"])
def test_what_is_not_here_ends_with_the_command_that_fetches_it(name, role, cache):
    with pytest.raises(ModelNotFound) as caught:
        find_pair(*((name, None) if role == "target" else ("tiny", name)))
    assert str(caught.value).startswith(f"{name}: ")
    assert str(caught.value).endswith(f"mtp-mlx pull {name}")
    assert str(cache) in str(caught.value)
    assert caught.value.exit_code == 5


def test_offline_is_named_where_it_is_in_the_way(cache, cli, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    answer = cli("generate", "hi", "--model", "e4b-4bit")
    assert answer.code == 5
    assert "HF_HUB_OFFLINE" in answer.err
    assert answer.err.endswith("mtp-mlx pull e4b-4bit\n")


def test_an_unfinished_copy_is_named_as_such(cache):
    (snapshot(cache, TARGET, A) / "model.safetensors").unlink()
    with pytest.raises(ModelNotFound, match=r"of no use: .*model\.safetensors.* pull e4b-4bit$"):
        find_model("e4b-4bit")


def test_a_folder_of_that_name_comes_before_the_hub(cache, tmp_path, monkeypatch):
    snapshot(cache, "org/name", A)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(HERE / "tiny", tmp_path / "org" / "name")
    assert find_model("org/name") == Path("org/name")
    shutil.copytree(HERE / "tiny", tmp_path / "e4b-4bit")
    assert find_model("./e4b-4bit") == Path("e4b-4bit")
    with pytest.raises(ModelNotFound):
        find_model("e4b-4bit")


def test_folders_of_ones_own_come_before_the_cache(cache, tmp_path, monkeypatch):
    snapshot(cache, TARGET, A)
    mine = tmp_path / "models"
    shutil.copytree(HERE / "tiny", mine / "gemma-4-e4b-it-4bit")
    shutil.copytree(HERE / "tiny-assistant", mine / "gemma-4-e4b-it-assistant")
    monkeypatch.setenv("MTP_MLX_MODEL_PATHS", str(mine))
    assert find_model("e4b-4bit") == mine / "gemma-4-e4b-it-4bit"
    assert find_pair("e4b-4bit", "auto").drafter == mine / "gemma-4-e4b-it-assistant"


def test_the_table_comes_before_the_name_and_the_name_before_the_layout(cache):
    target = snapshot(cache, TARGET, A)
    by_layout = snapshot(cache, "anyone/drafts", B, "tiny-assistant")
    pair = find_pair(target, "auto")
    assert pair.drafter == by_layout
    assert pair.note is not None
    assert "anyone/drafts" in pair.note and "width 80" in pair.note
    by_name = snapshot(cache, "anyone/gemma-4-e4b-it-assistant-bf16", B, "tiny-assistant")
    assert (find_pair(target, "auto").drafter, find_pair(target, "auto").note) == (by_name, None)
    closer = snapshot(cache, "mlx-community/gemma-4-e4b-it-4bit-assistant", B, "tiny-assistant")
    assert find_pair(target, "auto").drafter == closer
    by_table = snapshot(cache, DRAFTER, B, "tiny-assistant")
    assert find_pair(target, "auto").drafter == by_table


def test_a_target_in_a_folder_finds_the_cached_drafter_of_its_name(cache, tmp_path):
    target = Path(shutil.copytree(HERE / "tiny", tmp_path / "gemma-4-E4B-it-4bit"))
    drafter = snapshot(cache, DRAFTER, B, "tiny-assistant")
    assert find_pair(target, "auto").drafter == drafter


def test_a_drafter_of_another_layout_is_not_guessed(cache):
    snapshot(cache, "org/target", A)
    snapshot(cache, "org/drafts", B, "tiny-moe-assistant")
    pair = find_pair("org/target", "auto")
    assert pair.drafter is None
    assert pair.note is not None and pair.note.endswith("mtp-mlx pull org/target")


def test_a_drafter_with_another_vocabulary_is_not_guessed(cache):
    snapshot(cache, "org/target", A)
    drafter = snapshot(cache, "org/drafts", B, "tiny-assistant")
    assert find_pair("org/target", "auto").drafter == drafter
    words = json.loads((HERE / "tiny" / "tokenizer.json").read_text(encoding="utf-8"))
    words["added_tokens"][0]["content"] = "<another>"
    (drafter / "tokenizer.json").write_text(json.dumps(words), encoding="utf-8")
    assert find_pair("org/target", "auto").drafter is None


def test_the_targets_own_drafter_that_does_not_fit_is_an_error_with_both_numbers(cache, cli):
    snapshot(cache, TARGET, A)
    snapshot(cache, DRAFTER, B, "tiny-moe-assistant")
    with pytest.raises(DrafterMismatch, match=r"backbone_hidden_size 64, the target has 80"):
        mtp_mlx.load("e4b-4bit")
    answer = cli("generate", "hi", "--model", "e4b-4bit")
    assert answer.code == 2
    assert "64" in answer.err and "80" in answer.err


def test_json_names_the_repositories(cache, cli):
    snapshot(cache, TARGET, A)
    snapshot(cache, DRAFTER, B, "tiny-assistant")
    answer = cli("generate", "hi", "--model", "e4b-4bit", "-m", 2, "--json")
    assert (answer.body["model"], answer.body["draft_model"]) == (TARGET, DRAFTER)


def test_names_that_are_here_are_completed(cache):
    snapshot(cache, TARGET, A)
    snapshot(cache, "org/half", B)
    (cached(cache, "org/half") / "snapshots" / B / "model.safetensors").unlink()
    asked = {"_MTP_MLX_COMPLETE": "bash_complete", "COMP_CWORD": "3"}
    for word, names in (("e4b", {"plain,e4b-4bit", "dir,e4b"}), ("org", {"dir,org"})):
        done = subprocess.run(
            [sys.executable, "-m", "mtp_mlx"],
            env={**os.environ, **asked, "COMP_WORDS": f"mtp-mlx generate --model {word}"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert set(done.stdout.split()) == names
