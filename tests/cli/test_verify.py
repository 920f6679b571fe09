"""`mtp-mlx verify`: both built-in pairs pass, and a damaged cache is found."""

import json

import pytest

from mtp_mlx import proof
from mtp_mlx.cli import verify
from mtp_mlx.embedded import NAMES
from tests.damage import damage_drafted_rounds

FIELDS = {"identical", "level", "cases", "batch_sizes", "divergences", "errors", "eps"}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(proof, "LONG_TEXT", 80)
    monkeypatch.setattr(proof, "DECODED", 8)


@pytest.mark.parametrize("name", NAMES)
def test_the_built_in_pairs_are_identical_at_level_c(cli, name):
    answer = cli("verify", name, "--quick", "--tokens", 12, "--batch", "1,3", "--json")
    assert (answer.code, answer.err) == (0, "")
    body = answer.body
    assert set(body) >= FIELDS
    assert (body["identical"], body["level"], body["divergences"]) == (True, "C", [])
    assert (body["batch_sizes"], body["eps"], body["max_tokens"]) == ([1, 3], 0.0, 12)
    # Greedy and sampled: 4 alone with drafts, 6 in two batches of 3, plain, 3 drafts and mixed.
    assert body["cases"] == 2 * (4 + 3 * 6)
    assert body["has_drafter"] and body["draft_model"].endswith(f"{name}-assistant")
    assert {(e["block"], e["rows"]) for e in body["errors"]} == {
        (block, rows) for block in range(1, 9) for rows in (1, 3)
    } - {(1, 1)}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_all_prompts_in_all_batches_are_identical(cli, name, monkeypatch):
    monkeypatch.setattr(proof, "LONG_TEXT", 1120)
    answer = cli("verify", name, "--tokens", 24, "--json")
    assert answer.code == 0
    assert (answer.body["identical"], answer.body["level"]) == (True, "C")
    assert answer.body["batch_sizes"] == [1, 2, 3, 4, 8]


def test_text_output_ends_with_the_level(cli):
    answer = cli("verify", "tiny", "--quick", "--tokens", 6, "--batch", "2")
    assert answer.code == 0
    assert answer.out.endswith(f"\nlevel C: {verify.LEVELS['C']}\n")
    assert "texts that part 0 of 24, 0 of them by no rounding error\n" in answer.out


def test_batch_1_shows_level_b_at_most(cli):
    answer = cli("verify", "tiny", "--quick", "--tokens", 6, "--batch", "1", "--json")
    assert (answer.code, answer.body["identical"], answer.body["level"]) == (0, True, "B")


@pytest.mark.parametrize("rest", [[], ["--json"]])
def test_a_damaged_row_exits_with_3(cli, monkeypatch, tmp_path, rest):
    damage_drafted_rounds(monkeypatch, slot=1)
    file = tmp_path / "prompts.txt"
    file.write_text("Count from 3 to 12.\nTell me a story about a fox and a hen.\n")
    answer = cli("verify", "tiny", "--prompts", file, "--tokens", 24, "--batch", "2", *rest)
    assert answer.code == 3
    if not rest:
        assert "not a near-tie: prompt " in answer.out
        assert answer.out.splitlines()[-1].startswith("no level: ")
        return
    body = answer.body
    assert (body["identical"], body["level"]) == (False, None)
    assert body["divergences"]
    for each in body["divergences"]:
        assert (each["prompt"], each["against"]) == (1, "plain")  # the row in slot 1
        assert (each["is_near_tie"], each["batch_size"]) == (False, 2)
        assert each["allowed"] == 0.0
        assert each["gap"] is None or each["gap"] > 0
        assert each["plain"] != each["found"]


def test_without_a_drafter_only_batching_is_verified(cli):
    answer = cli("verify", "tiny", "--draft-model", "none", "--quick", "--tokens", 6)
    assert answer.code == 0
    assert "(batching only: no drafter is loaded)\n" in answer.out
    alone = cli("verify", "tiny", "--draft-model", "none", "--batch", "1")
    assert (alone.code, alone.err.count("\n")) == (2, 1)
    assert "nothing to compare" in alone.err


def test_prompts_come_from_a_file_or_stdin(cli, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("One\n\n  Two and a half\n", encoding="utf-8")
    answer = cli("verify", "tiny", "--prompts", file, "--tokens", 4, "--batch", "1,2", "--json")
    assert (answer.code, answer.body["cases"]) == (0, 2 * (2 + 3 * 2))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"\n \n", "holds no prompt"), (b"a\xff", "not UTF-8: byte 0xff")],
)
def test_a_bad_prompt_file_is_one_line(cli, tmp_path, content, reason):
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_bytes(content)
    answer = cli("verify", "tiny", "--prompts", file, "--json")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert reason in answer.err
    assert json.loads(answer.out)["error"]["code"] == "usage"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--batch", "0"],
        ["--batch", "1,x"],
        ["--batch", "65"],
        ["--tokens", "0"],
        ["--num-draft-tokens", "8"],
        ["12b", "extra"],
    ],
)
def test_wrong_usage_exits_with_2(cli, arguments):
    answer = cli("verify", *arguments)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert arguments[-1] in answer.err


def test_a_model_that_is_not_there_exits_with_5(cli):
    answer = cli("verify", "tinny")
    assert (answer.code, answer.err.count("\n")) == (5, 1)
