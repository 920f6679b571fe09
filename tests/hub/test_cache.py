"""What of the cache is taken for a model, and which commit a name stands for."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mtp_mlx.embedded import HERE
from mtp_mlx.hub.cache import cache_folder, find_repo, local_models, repos, wanted
from mtp_mlx.hub.record import mark_unfinished
from tests.hub.server import cached

A, B, C = "a" * 40, "b" * 40, "c" * 40


def snapshot(cache: Path, repo_id: str, commit: str, name: str = "tiny", age: int = 0) -> Path:
    """A commit of a repository as another program would have left it."""
    folder = cached(cache, repo_id) / "snapshots" / commit
    shutil.copytree(HERE / name, folder)
    os.utime(folder, (1e9 - age, 1e9 - age))
    return folder


PLACES = [
    {},
    {"HF_HOME": "/h"},
    {"XDG_CACHE_HOME": "/x"},
    {"HF_HUB_CACHE": "/c", "HF_HOME": "/h"},
    {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/h"},
    {"HF_HOME": "~/h"},
    {"HF_HOME": "$HOME/y"},
    {"HF_HUB_CACHE": ""},
]


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_the_cache_is_where_the_hubs_library_has_it(place, monkeypatch):
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    code = "from huggingface_hub.constants import HF_HUB_CACHE; print(HF_HUB_CACHE)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert cache_folder() == Path(done.stdout.strip())


def test_without_a_home_there_is_no_cache(monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert cache_folder() is None
    assert repos() == []


def test_only_what_a_checkpoint_is_read_from_is_wanted():
    for name in ("model-00001-of-00002.safetensors", "config.json", "chat_template.jinja"):
        assert wanted(name)
    assert wanted("tokenizer.model")
    for name in (
        "README.md",
        "x.py",
        "pytorch_model.bin",
        "sub/config.json",
        "..\\x.json",
        ".x.json",
    ):
        assert not wanted(name)


def test_a_repository_is_found_whatever_the_case_the_exact_one_first(cache):
    snapshot(cache, "Org/Name", A)
    assert find_repo("org/name").repo_id == "Org/Name"
    snapshot(cache, "org/name", B)
    assert find_repo("org/name").repo_id == "org/name"
    assert find_repo("org/other") is None
    (cache / "models--bad").mkdir()
    (cache / "datasets--org--name").mkdir()
    assert [repo.repo_id for repo in repos()] == ["Org/Name", "org/name"]


def test_the_main_branch_is_meant_and_else_the_newest(cache):
    for commit, age in ((A, 1), (B, 2), (C, 0)):
        snapshot(cache, "org/name", commit, age=age)
    assert [one.commit for one in find_repo("org/name").snapshots()] == [C, A, B]
    refs = cached(cache, "org/name") / "refs"
    refs.mkdir()
    (refs / "main").write_text(B)
    assert [one.commit for one in find_repo("org/name").snapshots()] == [B, C, A]
    assert find_repo("org/name").at("main").commit == B
    assert find_repo("org/name").at(A).commit == A
    assert find_repo("org/name").at("v2") is None


@pytest.mark.parametrize("gone", ["config.json", "model.safetensors"])
def test_a_commit_that_lacks_a_file_is_passed_over(gone, cache):
    (snapshot(cache, "org/name", A) / gone).unlink()
    repo = find_repo("org/name")
    assert repo.usable() is None
    assert repo.snapshots()[0].fault()
    snapshot(cache, "org/name", B, age=9)
    assert repo.usable().commit == B


def test_a_file_that_the_hubs_library_lists_and_that_is_not_there_is_missed(cache):
    folder = snapshot(cache, "org/name", A)
    files = {path.name: {"size": path.stat().st_size, "blob_id": "0"} for path in folder.iterdir()}
    (cached(cache, "org/name") / "trees").mkdir()
    tree = cached(cache, "org/name") / "trees" / f"{A}.json"
    tree.write_text(json.dumps({"format_version": 1, "files": {**files, "README.md": {"size": 1}}}))
    assert find_repo("org/name").usable() is not None
    (folder / "chat_template.jinja").unlink()
    assert "chat_template.jinja" in find_repo("org/name").snapshots()[0].fault()


@pytest.mark.parametrize("listed", ['{"size": "many"}', '{"size": null}', "3", '{"size": 1e999}'])
def test_a_damaged_list_of_the_hubs_library_is_none(listed, cache):
    snapshot(cache, "org/name", A)
    (cached(cache, "org/name") / "trees").mkdir()
    tree = cached(cache, "org/name") / "trees" / f"{A}.json"
    tree.write_text(f'{{"files": {{"config.json": {listed}}}}}')
    assert find_repo("org/name").usable() is not None


def test_a_link_to_nothing_is_a_missing_file(cache):
    folder = snapshot(cache, "org/name", A)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../blobs/gone")
    assert find_repo("org/name").usable() is None


def test_a_pull_that_has_not_ended_is_no_model(cache):
    snapshot(cache, "org/name", A)
    mark_unfinished(cached(cache, "org/name"), A)
    assert "not finished" in find_repo("org/name").snapshots()[0].fault()
    assert find_repo("org/name").usable() is None


def test_folders_of_ones_own_are_searched_at_both_depths(tmp_path, monkeypatch):
    one, two, alone = tmp_path / "one", tmp_path / "two", tmp_path / "alone"
    shutil.copytree(HERE / "tiny", one / "mine")
    shutil.copytree(HERE / "tiny", two / "org" / "theirs")
    shutil.copytree(HERE / "tiny", alone)
    (one / "empty").mkdir()
    paths = [str(one), str(two), str(alone), "", str(tmp_path / "absent")]
    monkeypatch.setenv("MTP_MLX_MODEL_PATHS", os.pathsep.join(paths))
    assert [name for name, _ in local_models()] == ["mine", "org/theirs", "alone"]
