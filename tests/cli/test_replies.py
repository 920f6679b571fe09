"""Several replies, and the forms in which they are printed; the built-in pairs by name."""

import json
import shutil
from pathlib import Path

import pytest

from mtp_mlx import embedded
from mtp_mlx.text.visible import visible
from tests.api_pairs import folders, loaded, prompt_ids

IDS = ",".join(map(str, prompt_ids()))


@pytest.fixture
def generate(cli):
    """generate on the golden ids with a golden pair."""
    target, drafter = folders()
    options = ("--model", target, "--draft-model", drafter, "--prompt-ids", IDS)
    return lambda *rest: cli("generate", *options, *rest)


def expected(seed: int, **options):
    return loaded().generate(prompt_ids(), seed=seed, max_tokens=9, **options)


def test_several_replies_have_seeds_that_follow_and_are_separated(generate):
    answer = generate("-n", 3, "--seed", 5, "-m", 9)
    texts = [visible(expected(seed).text) + "\n" for seed in (5, 6, 7)]
    assert answer.code == 0
    assert answer.out == "\n".join(texts)
    assert answer.err.splitlines() == [f"mtp-mlx: reply {i} of 3, seed {i + 4}" for i in (1, 2, 3)]


def test_json_holds_several_replies_as_choices(generate):
    body = generate("-n", 2, "--seed", 5, "-m", 9, "--json").body
    assert set(body) == {
        "model", "draft_model", "prompt_token_ids", "choices", "peak_memory_bytes"
    }  # fmt: skip
    for seed, choice in zip((5, 6), body["choices"], strict=True):
        assert choice["seed"] == seed
        assert choice["token_ids"] == list(expected(seed).token_ids)
    drawn = generate("-n", 2, "-m", 9, "--json").body["choices"]
    assert drawn[1]["seed"] == drawn[0]["seed"] + 1
    assert drawn[1]["token_ids"] == list(expected(drawn[1]["seed"]).token_ids)


@pytest.mark.parametrize("count", [1, 2])
def test_json_lines_are_chunks_and_then_the_object(generate, count):
    options = ("-n", count, "--seed", 5, "-m", 9, "--num-draft-tokens", 2)
    answer = generate(*options, "--jsonl")
    *chunks, last = answer.lines
    body = generate(*options, "--json").body
    for found in (last, body):
        for reply in found.get("choices", [found]):
            del reply["timings"]
        del found["peak_memory_bytes"]
    assert last == body
    for index, reply in enumerate(last.get("choices", [last])):
        own = [chunk for chunk in chunks if chunk["index"] == index]
        tokens = [token for chunk in own for token in chunk["tokens"]]
        assert {frozenset(chunk) for chunk in own} == {
            frozenset(
                {"index", "text", "kind", "tokens", "finish_reason", "drafts", "round", "calls"}
            )
        }
        assert [token["id"] for token in tokens] == reply["token_ids"]
        assert "".join(chunk["text"] for chunk in own) == reply["text"]
        assert [chunk["finish_reason"] for chunk in own if chunk["finish_reason"]] == ["length"]
        assert sum(len(chunk["drafts"]) for chunk in own) == reply["spec"]["drafted"]
        assert {*tokens[0]} == {"id", "text", "origin", "position", "logprob"}
        assert tokens[0]["logprob"] is None


def test_a_fault_is_an_object_with_json_lines_too(generate):
    answer = generate("-m", 0, "--jsonl")
    assert (answer.code, answer.body["error"]["param"]) == (2, "max_tokens")


def test_no_draft_and_block_size_are_other_names(cli, generate):
    target, _ = folders()
    plain = cli("generate", "--prompt-ids", IDS, "--model", target, "--no-draft", "-m", 3, "--json")
    assert plain.body["draft_model"] is None
    options = ("--seed", 5, "-m", 9, "--json")
    for block, drafts in ((1, 0), (3, 2)):
        body = generate("--draft-block-size", block, *options).body
        assert body["spec"]["drafted"] == expected(5, num_draft_tokens=drafts).spec.drafted


def test_figures_do_not_mix_with_json(generate):
    answer = generate("--json", "--stats", "-m", 9, "--seed", 5)
    assert json.loads(answer.out)["seed"] == 5
    assert "\nseed            5\n" in answer.err


@pytest.mark.parametrize("name", embedded.NAMES)
def test_a_built_in_pair_is_known_by_its_name(cli, name):
    answer = cli("generate", "Tell me a story.", "--model", name, "-m", 3, "--json")
    assert (answer.code, answer.err) == (0, "")
    assert (answer.body["model"], answer.body["draft_model"]) == (name, f"{name}-assistant")


def test_a_folder_of_a_built_in_name_is_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(embedded.HERE.parent)
    assert embedded.name_of(Path("embedded/tiny")) == embedded.name_of(embedded.HERE / "tiny")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert embedded.name_of(Path("./tiny")) == "./tiny"
    assert embedded.name_of(tmp_path / "tiny") == str(tmp_path / "tiny")


@pytest.mark.parametrize("folder", ["tiny", "tiny-assistant"])
def test_a_damaged_built_in_file_says_so(cli, tmp_path, monkeypatch, folder):
    copy = shutil.copytree(embedded.HERE, tmp_path / "embedded")
    monkeypatch.setattr(embedded, "HERE", copy)
    monkeypatch.setattr(embedded, "PINS", copy / "sha256.json")
    weights = copy / folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(data)
    for change in (lambda: None, weights.unlink):
        change()
        answer = cli("generate", "sky", "--json")
        assert answer.code == 1
        assert answer.body["error"]["code"] == "invalid_checkpoint"
        assert f"{folder}/model.safetensors" in answer.err
        assert "install mtp-mlx again" in answer.err
        assert answer.err.count("\n") == 1
    assert cli("generate", "sky", "--model", "tiny-moe", "-m", 2).code == 0
