"""pull, ls, show and rm against a hub that works."""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

import mtp_mlx
from mtp_mlx.cli import pull
from mtp_mlx.hub import client, fetch
from mtp_mlx.hub.cache import find_repo
from mtp_mlx.hub.record import mark_unfinished, record_of
from tests.hub.server import DRAFTER, TARGET, UNWANTED, Repo, cached, files_of


def snapshot_of(cache: Path, repo_id: str, repo: Repo) -> Path:
    return cached(cache, repo_id) / "snapshots" / repo.commit


def test_a_pair_is_pulled_verified_recorded_and_runs(hub, cache, cli):
    answer = cli("pull", "e4b-4bit")
    assert answer.code == 0
    assert "verified" in answer.out and TARGET in answer.out and DRAFTER in answer.out
    assert "MB/s" in answer.err
    for repo_id, repo in hub.repos.items():
        folder = snapshot_of(cache, repo_id, repo)
        names = set(repo.files) - set(UNWANTED)
        assert {path.name for path in folder.rglob("*")} == names
        for name in names:
            assert (folder / name).read_bytes() == repo.files[name]
        record = record_of(cached(cache, repo_id), repo.commit)
        assert record is not None
        assert (record.revision, record.commit) == ("main", repo.commit)
        assert (record.licence, record.endpoint) == ("apache-2.0", hub.url)
        weights = next(one for one in record.files if one.name == "model.safetensors")
        digest = hashlib.sha256(repo.files["model.safetensors"]).hexdigest()
        assert weights.digest == f"sha256:{digest}"
        assert (cached(cache, repo_id) / "refs" / "main").read_text() == repo.commit
    assert hub.fetched().isdisjoint(os.path.basename(name) for name in UNWANTED if "/" not in name)
    assert not any("original" in line for line in hub.requests)
    hub.requests.clear()
    with mtp_mlx.load("e4b-4bit") as llm:
        assert llm.has_drafter and llm.note is None
    assert hub.requests == []


def test_small_files_come_before_any_weights(hub, cli):
    assert cli("pull", "e4b-4bit").code == 0
    weights = [at for at, line in enumerate(hub.requests) if line.endswith(".safetensors")]
    others = [at for at, line in enumerate(hub.requests) if line.endswith(".json")]
    assert max(others) < min(weights)


def test_what_is_here_is_not_fetched_again(hub, cli):
    assert cli("pull", "e4b-4bit").code == 0
    hub.requests.clear()
    again = cli("pull", "e4b-4bit")
    assert again.code == 0 and "all here" in again.err
    assert hub.fetched() == set()
    assert len(hub.requests) == 2


def test_a_new_commit_takes_over_only_when_it_is_whole(hub, cache, cli):
    assert cli("pull", "e4b-4bit").code == 0
    old = hub.repos[TARGET].commit
    hub.repos[TARGET] = Repo(files_of("tiny", "newer"))
    new = hub.repos[TARGET].commit
    assert new != old
    hub.faults.status = 503
    assert cli("pull", "e4b-4bit").code == 0  # what is here is kept, and that is said
    assert find_repo(TARGET).usable().commit == old
    hub.faults.status = None
    hub.requests.clear()
    assert cli("pull", "e4b-4bit").code == 0
    assert find_repo(TARGET).usable().commit == new
    assert not any("/cdn/" in line for line in hub.requests)  # the same weights


def test_a_revision_is_pinned_and_shown(hub, cache, cli):
    answer = cli("pull", "e4b-4bit", "--revision", "v1", "--no-draft", "--json")
    commit = hub.repos[TARGET].commit
    assert (answer.body["model"]["revision"], answer.body["model"]["commit"]) == ("v1", commit)
    assert answer.body["draft_model"] is None
    assert find_repo(DRAFTER) is None
    shown = cli("show", "e4b-4bit", "--json").body
    assert (shown["revision"], shown["commit"], shown["verified"]) == ("v1", commit, True)
    bad = cli("pull", "e4b-4bit", "--revision", "v9")
    assert bad.code == 5 and "'v9'" in bad.err and bad.err.endswith("mtp-mlx pull e4b-4bit\n")
    assert cli("pull", "e4b-4bit", "--revision", "../x").code == 2


def test_the_commit_that_was_pulled_last_is_the_one_that_is_meant(hub, cache, cli):
    assert cli("pull", "e4b-4bit", "--no-draft").code == 0
    main = hub.repos[TARGET].commit
    hub.repos[TARGET] = Repo(files_of("tiny", "other"))
    other = hub.repos[TARGET].commit
    assert cli("pull", "e4b-4bit", "--no-draft", "--revision", other).code == 0
    assert (cached(cache, TARGET) / "refs" / "main").read_text() == main
    for path in (cached(cache, TARGET) / "snapshots").iterdir():
        os.utime(path, (1e9 + (path.name == main), 1e9 + (path.name == main)))
    assert cli("show", "e4b-4bit", "--json").body["commit"] == other


def test_a_repository_has_one_folder_whatever_the_case(hub, cache, cli):
    assert cli("pull", TARGET.upper(), "--no-draft").code == 0
    assert cli("pull", TARGET, "--no-draft").code == 0
    assert [path.name for path in cache.glob("models--*")] == [cached(cache, TARGET).name]


def test_what_is_no_name_of_the_hub_is_refused(hub, cli):
    for name in ("tiny", "./e4b", "word", "a/b/c"):
        answer = cli("pull", name)
        assert answer.code == 5 and "short name" in answer.err
    assert hub.requests == []


def test_a_dry_run_tells_sizes_and_writes_nothing(hub, cache, cli):
    answer = cli("pull", "e4b-4bit", "--dry-run", "--json")
    files = {file["name"]: file["bytes"] for file in answer.body["model"]["files"]}
    real = hub.repos[TARGET].files
    assert files == {name: len(real[name]) for name in set(real) - set(UNWANTED)}
    parts = (answer.body["model"], answer.body["draft_model"])
    assert answer.body["fetch_bytes"] == sum(part["bytes"] for part in parts)
    assert not cache.exists()
    text = cli("pull", "e4b-4bit", "--dry-run")
    assert "2.9 MB of 2.9 MB to fetch" in text.out
    assert hub.fetched() == set()


def test_json_is_one_object_with_progress_on_stderr(hub, cli):
    answer = cli("pull", "e4b-4bit", "--json")
    assert answer.body["model"]["repo"] == TARGET
    assert answer.body["model"]["verified"] and answer.body["draft_model"]["verified"]
    assert answer.body["model"]["licence"] == "apache-2.0"
    assert "2.6 MB to fetch" in answer.err


def test_a_drafter_that_the_hub_lacks_is_one_line(hub, cli):
    del hub.repos[DRAFTER]
    answer = cli("pull", "e4b-4bit")
    assert answer.code == 0
    first = answer.err.splitlines()[0]
    assert DRAFTER in first and "decoding will be plain" in first


def test_the_second_drafter_of_the_table_is_taken_where_the_first_is_not_there(hub, cli):
    other = "mlx-community/gemma-4-E4B-it-assistant-bf16"
    hub.repos[other] = hub.repos.pop(DRAFTER)
    answer = cli("pull", "e4b-4bit", "--json")
    assert answer.body["draft_model"]["repo"] == other
    with mtp_mlx.load("e4b-4bit") as llm:
        assert llm.has_drafter


def test_a_pair_that_does_not_fit_is_refused_before_its_weights(hub, cli):
    hub.repos[DRAFTER] = Repo(files_of("tiny-moe-assistant", "b"))
    answer = cli("pull", "e4b-4bit")
    assert answer.code == 2
    assert "backbone_hidden_size 64, the target has 80" in answer.err
    assert "model.safetensors" not in hub.fetched()


def test_a_model_of_another_kind_is_refused_before_its_weights(hub, cli):
    files = hub.repos[TARGET].files
    files["config.json"] = json.dumps({"model_type": "llama"}).encode()
    answer = cli("pull", "e4b-4bit")
    assert answer.code == 2 and "llama" in answer.err
    assert "model.safetensors" not in hub.fetched()
    del files["model.safetensors"]
    answer = cli("pull", "e4b-4bit")
    assert answer.code == 2 and "*.safetensors" in answer.err


def test_a_token_is_used(hub, cli, monkeypatch):
    hub.repos[TARGET].token = "hf_secret"
    assert cli("pull", "e4b-4bit", "--no-draft").code == 5
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    answer = cli("pull", "e4b-4bit", "--no-draft")
    assert answer.code == 0
    assert "hf_secret" not in answer.out + answer.err


class Terminal:
    """A stdin with somebody who answers."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    def isatty(self) -> bool:
        return True

    def readline(self, *size: int) -> str:
        return self.answers.pop(0) + "\n"


@pytest.mark.parametrize(("said", "code"), [("n", 1), ("y", 0), ("", 0)])
def test_a_long_download_is_asked_about_on_a_terminal(said, code, hub, cache, cli, monkeypatch):
    monkeypatch.setattr(pull, "ASK_BYTES", 1000)
    monkeypatch.setattr(sys, "stdin", Terminal(said))
    answer = cli("pull", "e4b-4bit")
    assert answer.code == code
    assert "Fetch 2.9 MB into" in answer.err and str(cache) in answer.err
    assert (find_repo(TARGET) is not None) == (code == 0)


@pytest.mark.parametrize("how", ["small", "yes", "no terminal"])
def test_otherwise_nothing_is_asked(how, hub, cli, monkeypatch):
    monkeypatch.setattr(pull, "ASK_BYTES", 10 << 30 if how == "small" else 1000)
    if how != "no terminal":
        monkeypatch.setattr(sys, "stdin", Terminal())
    assert cli("pull", "e4b-4bit", *(["-y"] if how == "yes" else [])).code == 0


def test_offline_asks_nobody(hub, cli, monkeypatch):
    assert cli("pull", "e4b-4bit", "--offline").code == 5
    assert cli("pull", "e4b-4bit").code == 0
    hub.requests.clear()
    here = cli("pull", "e4b-4bit", "--offline", "--json")
    assert (here.body["model"]["repo"], here.body["draft_model"]["repo"]) == (TARGET, DRAFTER)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert cli("pull", "e4b-4bit").code == 0
    assert cli("pull", "e4b-4bit", "--revision", "main").code == 0
    other = cli("pull", "12b-8bit")
    assert other.code == 5
    assert "HF_HUB_OFFLINE" in other.err and "mlx-community/gemma-4-12B-it-8bit" in other.err
    assert cli("pull", "e4b-4bit", "--revision", "v9").code == 5
    assert hub.requests == []


def test_files_of_another_program_are_verified_and_mended(hub, cache, cli):
    assert cli("pull", "e4b-4bit").code == 0
    for path in (cached(cache, TARGET) / ".mtp-mlx").iterdir():
        path.unlink()
    weights = snapshot_of(cache, TARGET, hub.repos[TARGET]) / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert cli("pull", "e4b-4bit").code == 0
    assert weights.read_bytes() == good
    assert record_of(cached(cache, TARGET), hub.repos[TARGET].commit) is not None


def test_a_damaged_file_of_the_store_that_repositories_share_is_fetched_again(hub, cache, cli):
    """The hub's library links a repository's blobs to files named by their hash, for all."""
    assert cli("pull", "e4b-4bit").code == 0
    shutil.rmtree(cached(cache, TARGET) / ".mtp-mlx")
    weights = snapshot_of(cache, TARGET, hub.repos[TARGET]) / "model.safetensors"
    good, blob = weights.read_bytes(), weights.resolve()
    shared = cache / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    shared.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert cli("pull", "e4b-4bit").code == 0
    assert weights.read_bytes() == good and not shared.exists()


def test_a_damaged_file_elsewhere_is_left_alone(hub, cache, cli, tmp_path):
    assert cli("pull", "e4b-4bit").code == 0
    shutil.rmtree(cached(cache, TARGET) / ".mtp-mlx")
    weights = snapshot_of(cache, TARGET, hub.repos[TARGET]) / "model.safetensors"
    good = weights.read_bytes()
    own = tmp_path / "own.safetensors"
    own.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    weights.unlink()
    weights.symlink_to(own)
    assert cli("pull", "e4b-4bit").code == 0
    assert weights.read_bytes() == good and own.exists()


def test_what_a_record_lists_and_is_gone_is_fetched_again(hub, cache, cli):
    assert cli("pull", "e4b-4bit").code == 0
    template = snapshot_of(cache, TARGET, hub.repos[TARGET]) / "chat_template.jinja"
    template.unlink()
    answer = cli("generate", "hi", "--model", "e4b-4bit")
    assert answer.code == 5
    assert "chat_template.jinja" in answer.err and answer.err.endswith("mtp-mlx pull e4b-4bit\n")
    assert cli("pull", "e4b-4bit").code == 0
    assert template.is_file()


def test_ls_lists_what_is_here(hub, cache, cli):
    empty = cli("ls")
    assert (empty.code, empty.out) == (0, "") and "mtp-mlx pull" in empty.err
    assert cli("pull", "e4b-4bit").code == 0
    text = cli("ls").out
    assert f"{TARGET} (e4b-4bit)" in text and text.count("verified") == 2
    models = {one["name"]: one for one in cli("ls", "--json").body["models"]}
    assert (models[TARGET]["kind"], models[DRAFTER]["kind"]) == ("target", "drafter")
    assert models[TARGET]["commit"] == hub.repos[TARGET].commit
    assert models[TARGET]["usable"] and models[TARGET]["bytes"] > 2_000_000
    other = cached(cache, "org/llama") / "snapshots" / ("d" * 40)
    other.mkdir(parents=True)
    (other / "config.json").write_text('{"model_type": "llama"}')
    assert "org/llama" not in cli("ls").out
    assert "org/llama" in cli("ls", "--all").out


def test_ls_has_a_line_a_model_whatever_its_name(cache, cli, tmp_path, monkeypatch):
    for name in ("a\nb", "\x1b[31mred", "c\udcff"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        (tmp_path / "mine" / name / "config.json").write_text('{"model_type": "gemma4"}')
    monkeypatch.setenv("MTP_MLX_MODEL_PATHS", str(tmp_path / "mine"))
    text = cli("ls").out
    assert text.count("\n") == 3 and "\x1b" not in text and "a\\nb" in text
    assert [one["name"] for one in cli("ls", "--json").body["models"]][1] == "a\nb"


def test_what_the_hub_says_of_a_licence_is_shown_and_not_obeyed(hub, cli):
    hub.repos[TARGET].licence = "mit\x1b[2J\nsize  0 B"
    assert cli("pull", "e4b-4bit").code == 0
    text = cli("show", "e4b-4bit").out
    assert "\x1b" not in text and "mit\\x1b[2J\\nsize  0 B" in text


def test_show_tells_what_a_model_is(hub, cli):
    assert cli("pull", "e4b-4bit").code == 0
    body = cli("show", "e4b-4bit", "--json").body
    assert body["name"] == TARGET and body["draft_model"] == DRAFTER
    assert (body["layers"], body["hidden_size"], body["context"]) == (20, 80, 4096)
    assert body["sampling"] == {"temperature": 1.0, "top_k": 64, "top_p": 0.95, "min_p": 0.0}
    assert body["licence"] == "apache-2.0"
    text = cli("show", "e4b-4bit").out
    assert hub.repos[TARGET].commit in text and "apache-2.0" in text
    assert "width 80" in cli("show", "e4b-assistant").out
    assert "tiny-assistant" in cli("show").out


def test_rm_of_a_half_pull_and_of_one_of_two_equal_models(hub, cache, cli):
    hub.repos["org/copy"] = hub.repos[TARGET]  # the same commit
    assert cli("pull", "e4b-4bit").code == 0
    assert cli("pull", "org/copy", "--no-draft").code == 0
    assert cli("rm", "org/copy", "-y").code == 0
    assert find_repo("org/copy") is None and find_repo(TARGET).usable() is not None
    mark_unfinished(cached(cache, "org/half"), "0" * 40)
    assert cli("rm", "org/half", "-y").code == 0
    assert not cached(cache, "org/half").exists()


def test_rm_is_not_stopped_by_a_damaged_reference_of_any_repository(hub, cache, cli):
    assert cli("pull", "e4b-4bit").code == 0
    (cached(cache, DRAFTER) / "refs" / "main").write_bytes(b"\xff\xfe")
    for repo_id in (TARGET, DRAFTER):
        assert cli("rm", repo_id, "-y").code == 0
        assert find_repo(repo_id) is None


def test_rm_asks_first_and_deletes_one_model(hub, cache, cli, monkeypatch):
    assert cli("pull", "e4b-4bit").code == 0
    assert cli("rm", "e4b-4bit").code == 2
    monkeypatch.setattr(sys, "stdin", Terminal("n", "", "y"))
    for _ in range(2):
        answer = cli("rm", "e4b-4bit")
        assert answer.code == 1 and f"Delete {TARGET}" in answer.err
    assert find_repo(TARGET) is not None
    assert cli("rm", "e4b-4bit", "--json").body["removed"] == TARGET
    assert (
        find_repo(TARGET) is None and not (cache / ".locks" / cached(cache, TARGET).name).exists()
    )
    assert find_repo(DRAFTER).usable() is not None
    gone = cli("rm", "e4b-4bit", "-y")
    assert gone.code == 5 and str(cache) in gone.err
    assert cli("rm", "tiny", "-y").code == 2
    assert cli("rm", "../cache", "-y").code == 2


def test_the_first_answer_of_the_hub_is_due_within_ten_seconds():
    assert client.FIRST_ANSWER_S < 10
    assert fetch.WORKERS > 1
