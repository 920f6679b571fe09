"""`mtp-mlx verify`: both built-in pairs pass, and planted faults are found."""

import json

import pytest

from mtp_mlx import calibration_file, proof, together
from mtp_mlx.cli import verify
from mtp_mlx.embedded import NAMES
from mtp_mlx.engine import blocks
from mtp_mlx.errors import RequestError
from tests.api_pairs import folders
from tests.damage import damage_drafted_rounds, silence_drafters
from tests.law import faults

FIELDS = {"identical", "level", "cases", "batch_sizes", "divergences", "errors", "eps", "bound"}
# The least with which a batch of 2 shares a round with 3 drafts, and a little more.
TOKENS = 8


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(proof, "LONG_TEXT", 80)
    monkeypatch.setattr(proof, "DECODED", 4)
    monkeypatch.setattr(blocks, "WIDTHS", (1, 4))


@pytest.fixture
def prompts(tmp_path):
    """A file of two prompts that the built-in pairs know well."""
    file = tmp_path / "prompts.txt"
    file.write_text("Count from 3 to 12.\n\n  Tell me a story about a fox and a hen.\n")
    return file


@pytest.fixture
def one(tmp_path):
    """A file of one prompt; the rows of a batch are all the same then."""
    file = tmp_path / "one.txt"
    file.write_text("Count from 3 to 12.\n")
    return file


def golden() -> tuple[str, ...]:
    """The command for a pair of random weights, whose drafts are rejected all the time."""
    target, drafter = folders()
    return ("verify", str(target), "--draft-model", str(drafter))


@pytest.mark.parametrize("name", NAMES)
def test_the_built_in_pairs_are_identical_at_level_c(cli, name, prompts, monkeypatch):
    monkeypatch.setattr(proof, "DECODED", 8)
    monkeypatch.setattr(blocks, "WIDTHS", range(1, 9))
    short = ["--tokens", 9, "--num-draft-tokens", 2]
    answer = cli("verify", name, "--prompts", prompts, "--batch", "1,3", *short, "--json")
    assert (answer.code, answer.err) == (0, "")
    body = answer.body
    assert set(body) >= FIELDS
    assert (body["identical"], body["level"], body["divergences"]) == (True, "C", [])
    assert (body["batch_sizes"], body["eps"], body["max_tokens"]) == ([1, 3], 0.0, 9)
    assert (body["covers"], body["missing"]) == (["drafts", "batches"], [])
    assert 0 < body["bound"] < 0.1
    # Greedy and sampled: 2 alone with drafts and auto; a batch of 3, plain, drafts, mixed and auto.
    assert body["cases"] == 2 * (2 * 2 + 4 * 3)
    done = {(each["batch_size"], each["kind"]): each for each in body["exercises"]}
    assert done.keys() == {(n, k) for n in (1, 3) for k in ("plain", "drafts", "auto")} - {
        (1, "plain")
    }
    for (size, kind), each in done.items():
        assert each["most_rows"] == size or kind == "auto"
        assert (each["drafted"] >= each["accepted"] > 0) == (kind != "plain")
    assert body["has_drafter"] and (body["model"], body["draft_model"]) == (
        name,
        f"{name}-assistant",
    )
    assert {(e["block"], e["rows"]) for e in body["errors"]} == {
        (block, rows) for block in range(1, 9) for rows in (1, 3)
    } - {(1, 1)}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
def test_all_prompts_in_all_batches_are_identical(cli, name, monkeypatch):
    monkeypatch.setattr(proof, "LONG_TEXT", 1120)
    monkeypatch.setattr(proof, "DECODED", 32)
    monkeypatch.setattr(blocks, "WIDTHS", range(1, 9))
    answer = cli("verify", name, "--tokens", 40, "--json")
    assert answer.code == 0
    assert (answer.body["identical"], answer.body["level"]) == (True, "C")
    assert answer.body["batch_sizes"] == [1, 2, 3, 4, 8]


def test_doctor_names_the_level_that_was_shown(cli, one, monkeypatch, tmp_path):
    monkeypatch.setattr(calibration_file, "cache_folder", lambda: tmp_path)
    monkeypatch.setenv(calibration_file.VARIABLE, "on")
    assert cli("verify", "tiny", "--prompts", one, "--tokens", 6, "--batch", "1").code == 0
    checks = {check["id"]: check for check in cli("doctor", "--json").body["checks"]}
    assert checks["exactness"]["observed"].startswith("level B, ")


def test_text_output_ends_with_the_level(cli, prompts):
    answer = cli("verify", "tiny", "--prompts", prompts, "--tokens", TOKENS, "--batch", "2")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.endswith(f"\nlevel C: {verify.LEVELS['C']}\n")
    assert "texts that part 0 of 16, 0 of them by no rounding error\n" in answer.out
    assert "rows in a round 2:2\n" in answer.out


def test_batch_1_shows_level_b_at_most(cli, one):
    answer = cli("verify", "tiny", "--prompts", one, "--tokens", 6, "--batch", "1", "--json")
    assert (answer.code, answer.body["identical"], answer.body["level"]) == (0, True, "B")
    assert answer.body["covers"] == ["drafts"]


def test_too_few_tokens_for_all_rows_to_meet_show_so_many(cli, prompts):
    answer = cli("verify", "tiny", "--prompts", prompts, "--tokens", 8, "--batch", "4")
    assert (answer.code, answer.err) == (0, "")
    assert "\nin part: of 4 rows at most " in answer.out
    assert "\nlevel C: " in answer.out


def test_a_batch_that_never_shares_a_round_shows_nothing(cli, monkeypatch, one):
    monkeypatch.setattr(together.Case, "options", _two_tokens(together.Case.options))
    answer = cli("verify", "tiny", "--prompts", one, "--batch", "2", "--json")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert answer.err.startswith("mtp-mlx: no plain round had two of 2 rows; no draft was")
    assert verify.REMEDY in answer.err
    body = answer.body
    assert (body["identical"], body["level"], len(body["missing"])) == (True, None, 2)


def _two_tokens(original):
    """Replies end as early as some models' do: nothing is drafted, and no round is shared."""
    return lambda case, drafts, max_tokens: original(case, drafts, 2)


def test_a_drafter_that_never_agrees_shows_nothing(cli, monkeypatch, one):
    silence_drafters(monkeypatch)
    answer = cli("verify", "tiny", "--prompts", one, "--batch", "1", "--tokens", 6)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    last = answer.out.splitlines()[-1]
    assert last.startswith("no level: no draft was accepted with 1 row (")


def test_a_damaged_row_exits_with_3(cli, monkeypatch, prompts):
    damage_drafted_rounds(monkeypatch, slot=1)
    answer = cli(*golden(), "--prompts", prompts, "--tokens", 12, "--batch", "2", "--json")
    assert answer.code == 3
    body = answer.body
    assert (body["identical"], body["level"]) == (False, None)
    assert body["divergences"]
    for each in body["divergences"]:
        assert (each["against"], each["is_near_tie"], each["batch_size"]) == ("plain", False, 2)
        assert each["allowed"] == 0.0
        assert each["gap"] is None or each["gap"] > 0
        assert (each["plain"], each["plain_finish"]) != (each["found"], each["found_finish"])
    greedy = {each["prompt"] for each in body["divergences"] if each["temperature"] == 0}
    assert len(greedy) == 1  # the row in slot 1


def test_kernels_that_err_more_than_rounding_exit_with_3(cli, one):
    with faults.ring_slack_ignored():
        answer = cli("verify", "tiny", "--prompts", one, "--tokens", TOKENS, "--batch", "2")
    assert answer.code == 3
    assert "\nnot rounding: blocks of 4, 1 row: logits up to " in answer.out
    assert answer.out.splitlines()[-1].startswith("no level: ")


def test_a_wrong_draft_that_is_kept_exits_with_3(cli, one):
    with faults.mismatch_keeps_the_draft():
        answer = cli(*golden(), "--prompts", one, "--tokens", 16, "--batch", "2")
    assert answer.code == 3
    assert "not a near-tie: prompt " in answer.out
    assert answer.out.splitlines()[-1].startswith("no level: texts part")


def test_a_step_that_fails_exits_with_70_and_says_where(cli, one):
    with faults.skipped_rollback():  # the cache itself finds it
        answer = cli(*golden(), "--prompts", one, "--tokens", 12, "--batch", "2")
    assert (answer.code, answer.err.count("\n")) == (70, 1)
    assert "batches of 2, drafts: the engine failed: " in answer.err
    assert "a forward cannot start at" in answer.err


def test_without_a_drafter_only_batching_is_verified(cli, one):
    plain = ["verify", "tiny", "--draft-model", "none"]
    answer = cli(*plain, "--prompts", one, "--batch", "1,2", "--tokens", 6)
    assert (answer.code, answer.err) == (0, "")
    assert "drafts accepted" not in answer.out
    assert "rows in a round 2:2\n" in answer.out
    assert answer.out.endswith("whatever runs beside it (batching only: no drafter is loaded)\n")
    alone = cli(*plain, "--batch", "1")
    assert (alone.code, alone.err.count("\n")) == (2, 1)
    assert "nothing to compare" in alone.err


def test_quick_takes_fewer_prompts_and_as_many_tokens_as_needed(cli, monkeypatch):
    asked = {}
    stopped = RequestError("enough")

    def seen(llm, prompts, **options):
        asked.update(options, prompts=len(prompts))
        raise stopped

    monkeypatch.setattr(proof, "verify", seen)
    wanted = {(): (12, None, [1, 2, 3, 4, 8]), ("--quick",): (4, 24, [1, 4])}
    wanted["--quick", "--batch", "16"] = (4, 63, [16])
    for given, (prompts, tokens, sizes) in wanted.items():
        assert cli("verify", "tiny", *given).code == 2
        assert (asked["prompts"], asked["max_tokens"]) == (prompts, tokens)
        assert asked["batch_sizes"] == sizes


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
