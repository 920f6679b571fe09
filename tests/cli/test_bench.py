"""`mtp-mlx bench`: both built-in pairs measured, another server beside, and what is refused."""

import json
import os
from dataclasses import replace

import pytest

import mtp_mlx
from mtp_mlx.engine import runtime
from mtp_mlx.measure import chats, compare, plot, report
from mtp_mlx.measure.client import Server
from mtp_mlx.measure.compare import compare as measured
from tests.api_pairs import loaded
from tests.measure.standin import running

SMALL = ("--generation-tokens", 5, "--prompt-tokens", 20, "--num-trials", 1)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """No more than what is always measured of a verify."""
    monkeypatch.setattr(report, "THOROUGH", replace(report.THOROUGH, cost_s=0.0))
    monkeypatch.setattr(compare, "WARM_TOKENS", 2)


def test_a_fault_of_the_kernels_is_in_the_report(cli, monkeypatch):
    monkeypatch.setattr(runtime, "check_kernels", lambda: "no kernels")
    answer = cli("bench", "tiny", *SMALL, "--batch-sizes", "1", "--depths", "0", "--json")
    assert (answer.code, answer.body["note"]) == (0, "no kernels")


def test_json_has_plain_and_drafts_distinct_and_identical(cli):
    answer = cli("bench", "tiny-moe", *SMALL, "--batch-sizes", "1,2", "--depths", "2", "--json")
    assert (answer.code, answer.err) == (0, "")
    body = answer.body
    assert (body["model"], body["draft_model"]) == ("tiny-moe", "tiny-moe-assistant")
    assert [(x["batch_size"], x["prompts"], x["drafts"]) for x in body["decode"]] == [
        (rows, kind, drafts)
        for rows, kind in ((1, "distinct"), (2, "distinct"), (2, "identical"))
        for drafts in (0, 2)
    ]
    for line in body["decode"]:
        rounds = line["rounds"]
        assert line["tokens"] == 2 * 5 * line["batch_size"]  # there and back
        assert (line["replies"], line["different"]) == (2 * line["batch_size"], 0)
        assert 0 < rounds["eval_s"] < rounds["seconds"]
        assert 0 < rounds["host_share"] < 1
        assert line["first_token_s"] > 0 and line["peak_memory_bytes"] > 0
        assert (rounds["drafted"] > 0) == (line["drafts"] == 2)
        # One repeat tells no ratio.
        assert line["over_plain"] is None or line["over_plain"]["ratio"] is None
    assert [x["prompt_tokens"] for x in body["prefill"]] == [20, 20]
    tokens = [point["tokens"] for point in body["verify"]]
    assert tokens[0] == 1 and body["verify"][0]["of_one"] == 1.0 and tokens == sorted(tokens)
    assert body["verify_host_s"] >= 0
    assert body["machine"]["mtp_mlx"] == mtp_mlx.__version__
    assert body["settings"]["depths"] == [2]


def test_tables_and_a_picture(cli, tmp_path):
    path = tmp_path / "bench.png"
    options = ("--batch-sizes", "1", "--depths", "auto", "--md", "--plot", path)
    answer = cli("bench", "tiny", *SMALL, *options)
    assert (answer.code, answer.err) == (0, "")
    assert "| distinct | plain" in answer.out and "| verify N |" in answer.out
    assert "MLX" in answer.out and "within noise" in answer.out
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_costs_no_figures(cli, tmp_path, monkeypatch):
    def full(report, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(plot, "draw", full)
    options = ("--batch-sizes", "1", "--depths", "0", "--plot", tmp_path / "bench.png")
    answer = cli("bench", "tiny", *SMALL, *options)
    assert answer.code == 1 and "No space left" in answer.err
    assert "distinct  plain" in answer.out


@pytest.mark.parametrize("has_file", [False, True])
def test_a_picture_is_asked_for_where_it_may_be_written(cli, tmp_path, monkeypatch, has_file):
    path = tmp_path / "bench.png"
    if has_file:
        path.touch()
    closed = path if has_file else tmp_path
    monkeypatch.setattr(os, "access", lambda asked, mode: (asked, mode) != (closed, os.W_OK))
    monkeypatch.setattr(mtp_mlx.api, "load", lambda *_, **__: pytest.fail("it was loaded"))
    answer = cli("bench", "--plot", path)
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert f"'{path}' cannot be written" in answer.err


def test_another_server_is_asked_the_same_chats(cli):
    with running() as standin:
        options = ("--batch-sizes", "2", "--depths", "0", "--against", standin.url, "--json")
        answer = cli("bench", "tiny", *SMALL, *options)
    assert (answer.code, answer.err) == (0, "")
    lines = answer.body["decode"]
    assert [line["drafts"] for line in lines] == [0, "server", 0, "server"]
    ours, theirs = lines[:2]
    assert ours["over_server"] == {"ratio": None, "spread": None, "within_noise": True}
    assert (theirs["rounds"], theirs["peak_memory_bytes"], theirs["tokens"]) == (None, None, 12)
    assert theirs["different"] == 4  # it says what no model of ours does
    asked = [body["messages"][0]["content"] for body in standin.asked]
    # Two warm and two timed batches of two: distinct prompts differ, and no chat comes twice but
    # the identical ones.
    assert len(asked) == 12 and len(set(asked)) == 6 + 3
    assert all(body["max_tokens"] in (2, 5) for body in standin.asked)


def test_own_prompts_are_read_from_a_file(cli, tmp_path):
    file = tmp_path / "prompts"
    file.write_text("Count from 1 to 3.\nhello\n")
    answer = cli("bench", "tiny", *SMALL, "--batch-sizes", "4", "--prompts", file)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "2 prompts are too few for a batch of 4" in answer.err


def test_without_a_drafter_there_is_plain_decoding_alone(cli):
    options = ("--draft-model", "none", "--batch-sizes", "1", "--json")
    answer = cli("bench", "tiny", *SMALL, *options)
    assert (answer.code, answer.err) == (0, "")
    assert [line["drafts"] for line in answer.body["decode"]] == [0]
    assert (answer.body["verify"], answer.body["draft_model"]) == ([], None)
    for depth in ("3", "auto"):
        refused = cli("bench", "tiny", *SMALL, *options, "--depths", f"0,{depth}")
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert f"depths holds {depth} and no drafter is loaded" in refused.err
        assert json.loads(refused.out)["error"]["param"] == "depths"


def test_quick_is_less_and_what_is_given_stays(cli, monkeypatch):
    seen = []

    def note(llm, texts, settings, server, progress):
        seen.append(settings)
        raise mtp_mlx.RequestError("enough")

    monkeypatch.setattr(compare, "compare", note)
    assert cli("bench").code == 2
    assert cli("bench", "--quick", "--depths", "auto,1,1", "--batch-size", "2,2").code == 2
    assert seen[0] == report.THOROUGH
    assert seen[1] == replace(report.QUICK, depths=("auto", 1), batch_sizes=(2,))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--depths", "8"], "0 to 7"),
        (["--depths", "1,often"], "0 to 7"),
        (["--depths", ""], "0 to 7"),
        (["--batch-sizes", "0"], "1 to 64"),
        (["--num-trials", "0"], "--num-trials"),
        (["--generation-tokens", "1"], "--generation-tokens"),
        (["--json", "--md"], "not both"),
        (["--against-model", "a"], "--against"),
        (["--against", "nowhere"], "no URL of a server"),
        (["--plot", "figure.pdf"], ".png"),
        (["--plot", "no/such/folder/figure.png"], "folder"),
        (["--prompts", "no-such-file"], "no-such-file"),
    ],
)
def test_wrong_usage_is_one_line_before_anything_is_measured(cli, monkeypatch, arguments, words):
    monkeypatch.setattr(mtp_mlx.api, "load", lambda *_, **__: pytest.fail("it was loaded"))
    answer = cli("bench", *arguments)
    assert answer.code in (1, 2) and answer.err.count("\n") == 1
    assert words in answer.err


def test_the_reference_is_not_measured():
    with pytest.raises(mtp_mlx.Unsupported, match="not measured"):
        measured(loaded("31b", max_num_seqs=1, backend="numpy"), ["a"] * 8, report.QUICK)


def test_a_server_is_asked_for_chats_and_a_model_without_a_template_reads_none(monkeypatch):
    monkeypatch.setattr(mtp_mlx.LLM, "has_chat_template", False)
    with pytest.raises(mtp_mlx.RequestError, match="no chat template"):
        measured(loaded(), ["a"] * 8, report.QUICK, Server("http://127.0.0.1:1"))


def test_built_in_questions_differ_and_are_enough():
    texts = chats.built_in()
    assert len(set(texts)) == len(texts) == 64
    assert chats.batch_of(texts, 3, is_alike=True) == [texts[0]] * 3
    assert chats.batch_of(texts, 2, is_alike=False, number=7) == [f"7. {x}" for x in texts[:2]]
