"""The side-by-side benchmark on our own engine: what it counts, what it calls wrong, what it asks
for. The peers have an environment of their own, which is not there in tests."""

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest

from bench import side_by_side
from bench.peers import bars, cases, environment, process
from bench.peers.cases import Case, Seen, Variant
from bench.peers.installed import closure, size
from bench.peers.job import Done, Job
from bench.peers.process import LM, OWN, VLM
from bench.peers.prompts import prompts

PROMPTS = prompts("tiny", (9, 30))
TOKENS = 12


def done(text: list[int], seconds: float = 1.0) -> Done:
    return Done(
        texts=[text], whole_s=2 * seconds, decode_tokens=len(text), decode_s=seconds,
        decode_cpu_s=seconds, peak_bytes=1, forwards=len(text), rows=len(text), reads=len(text),
        eval_s=0.0,
    )  # fmt: skip


OWN_OVER_LM = bars.bars(3)[0]


def judged_of(bar: bars.Bar, ratios: tuple[float, float, float]) -> dict:
    measured = dict(zip(("lowest", "median", "highest"), ratios, strict=True))
    return measured | bars.verdict(bar, 1, measured)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    folders = process.write_pairs("tiny", folder)[OWN]
    with process.running(OWN, folders, folder / "cache", None) as engine:
        yield engine


def test_prompts_have_their_lengths_and_begin_a_text():
    assert [len(prompt) for prompt in PROMPTS] == [9, 30]
    assert {prompt[0] for prompt in PROMPTS} == {2}
    assert PROMPTS[0][1:] != PROMPTS[1][-8:]


def test_a_plain_job_reads_once_a_forward_and_writes_what_rows_write_alone(own):
    together = own.run(Job(PROMPTS, TOKENS, 0, counts=True))
    alone = [own.run(Job([prompt], TOKENS, 0)) for prompt in PROMPTS]
    assert together.texts == [text for each in alone for text in each.texts]
    assert [len(text) for text in together.texts] == [TOKENS, TOKENS]
    # What is in the air as the last row gets its first id is counted on one side only.
    assert together.decode_tokens - together.rows in (0, 1)
    assert together.reads - together.forwards in (0, 1)
    assert alone[0].decode_tokens == TOKENS - 1
    assert (alone[0].forwards, alone[0].reads, alone[0].eval_s) == (0, 0, 0)  # it was timed
    assert 0 < together.eval_s < together.decode_s
    assert 0 < alone[0].decode_s < alone[0].whole_s


def test_drafts_save_forwards_and_change_no_text(own):
    plain, drafted = (own.run(Job(PROMPTS[:1], 24, drafts, counts=True)) for drafts in (0, 3))
    assert drafted.texts == plain.texts
    assert drafted.forwards < plain.forwards == 23
    assert drafted.reads == drafted.forwards


def test_cases_of_a_pair_are_measured_judged_and_shown(own, monkeypatch, capsys):
    monkeypatch.setattr(side_by_side, "WARM_UP", 2)
    monkeypatch.setattr(side_by_side, "LENGTHS", {"mixed": (9, 30, 14)})
    asked = Namespace(
        rows=[1, 2], lengths=["mixed"], tokens=TOKENS, repeats=1, blas=None, peer_drafts=3
    )
    chosen = cases.variants((OWN,), (2,), 3)
    found = side_by_side.measure_pair("tiny", {OWN: own}, chosen, asked)
    assert [(case["rows"], len(case["lines"])) for case in found] == [(1, 3), (2, 3)]
    for case in found:
        plain, auto, two = case["lines"]
        for line in (plain, auto, two):
            assert (line["wrong"], line["of"]) == (0, {1: 3, 2: 2}[case["rows"]])
            assert line["whole_tokens_per_s"]["median"] > 0 and line["decode_over_base"] is None
        assert 0.9 < plain["forwards_per_token"] < 1.2
        assert two["forwards_per_token"] < plain["forwards_per_token"]
        assert two["accepted"] > plain["accepted"]
    assert [[bar["bar"] for bar in case["bars"]] for case in found] == [["auto / plain"], []]
    said = capsys.readouterr().out
    assert "3 of 3 rows alone are ours" in said and "tiny, 2 rows, mixed lengths" in said


@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is Linux's")
def test_what_a_draft_step_takes_is_asked_by_rows_with_the_library_preloaded(monkeypatch):
    monkeypatch.setattr(side_by_side, "SHARE_REPEATS", 3)
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    library = next(Path(line.split()[-1]) for line in maps if "/libm." in line)
    found = side_by_side.draft_shares("tiny", [1, 2], library)
    assert list(found) == [1, 2] and all(0 < share < 1 for share in found.values())


def test_where_a_library_is_not_there_no_share_is_told(monkeypatch, capsys):
    """The loader only warns, and the share would be that of another library."""
    absent = Path("/no/such/library.so")
    monkeypatch.setattr(side_by_side, "arguments", lambda: Namespace())
    monkeypatch.setattr(
        side_by_side, "beside", lambda _: side_by_side.draft_shares("tiny", [1], absent)
    )
    with pytest.raises(SystemExit) as left:
        side_by_side.main()
    heard = capsys.readouterr()
    assert (left.value.code, heard.out, heard.err.count("\n")) == (2, "", 1)
    assert heard.err.endswith(f"bench.draft_step: {absent} is not loaded\n")


def test_an_engine_that_fails_says_so(own, tmp_path, capfd):
    missing = tmp_path / "none", tmp_path / "nor-this"
    with (
        pytest.raises(RuntimeError, match=r"mtp-mlx has ended with exit code 1"),
        process.running(OWN, missing, tmp_path, None),
    ):
        pytest.fail("it runs")
    assert "none" in capfd.readouterr().err


def test_a_library_that_is_not_preloaded_is_noticed(tmp_path, capfd):
    library = tmp_path / "libopenblas.so.0"
    library.touch()
    with (
        pytest.raises(RuntimeError, match="has ended"),
        process.running(OWN, (tmp_path, tmp_path), tmp_path, library),
    ):
        pytest.fail("it runs")
    assert f"{library} is not loaded" in capfd.readouterr().err


def test_one_row_is_three_prompts_and_more_are_the_first_ones():
    asked = [[2, n] for n in range(8)]
    assert Case.of(1, "equal", asked).batches == ([[2, 0]], [[2, 1]], [[2, 2]])
    assert Case.of(4, "equal", asked).batches == ([[2, 0], [2, 1], [2, 2], [2, 3]],)


def test_a_row_is_wrong_where_any_run_has_other_ids():
    right = [[5, 6, 7]]
    seen = Seen([[done([5, 6, 7])]], [done([5, 6, 7])])
    assert seen.wrong(right) == 0
    seen.timed.append([done([5, 6, 8])])
    assert seen.wrong(right) == 1
    assert Seen([], [done([5, 6, 8])]).wrong(right) == 1


def test_speeds_are_of_all_batches_of_a_run():
    seen = Seen([[done([1] * 10, 1.0), done([1] * 20, 2.0)], [done([1] * 30, 1.0)]])
    assert seen.decode == [10, 30]
    assert seen.whole == [5, 15]
    assert seen.cpu_per_token == [0.1, 1 / 30]


def test_bars_are_judged_where_both_are_here_and_they_apply():
    fast, slow = (Seen([[done([1] * 10, seconds)]]) for seconds in (1.0, 1.5))
    chosen = cases.variants((OWN, LM, VLM), (2,), 3)
    assert [v.name for v in chosen] == [
        "mlx-lm plain", "mlx-vlm plain", "mlx-vlm MTP",
        "mtp-mlx plain", "mtp-mlx auto", "mtp-mlx 2",
    ]  # fmt: skip
    seen = {v: fast if v.engine == OWN else slow for v in chosen}

    def met(rows: int, lengths: str, share: float | None) -> list[tuple[str, bool]]:
        found = bars.judged(seen, rows, lengths, share, 3)
        return [(each["bar"], each["is_met"]) for each in found]

    assert met(1, "equal", None) == [
        ("plain / mlx-lm plain", True), ("auto / plain", True), ("auto / mlx-vlm MTP", True),
    ]  # fmt: skip
    assert ("auto / mlx-lm plain", False) in met(1, "equal", 0.3)
    assert ("auto / mlx-vlm MTP", False) in met(8, "mixed", None)
    assert not [name for name, _ in met(8, "equal", None) if "mlx-vlm" in name]
    del seen[Variant(LM, 0)]
    assert met(4, "equal", 0.3) == [("auto / plain", True)]
    cheap = [("auto / plain", True), ("auto / plain, drafts cheap", False)]
    assert met(4, "equal", 0.19) == cheap


def test_a_variant_that_is_named_twice_is_measured_once():
    chosen = cases.variants((OWN,), (0, 1, 3, 1), 3)
    assert [each.drafts for each in chosen] == [0, "auto", 1, 3]


def test_quick_gives_way_to_what_is_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["side_by_side", "--quick", "--rows", "8", "--tokens", "256"])
    asked = side_by_side.arguments()
    assert (asked.rows, asked.tokens, asked.repeats, asked.depths) == ([8], 256, 1, [2])


def test_what_a_package_requires_is_counted_with_it():
    found = closure(["mtp-mlx"])
    assert {"mtp-mlx", "numpy", "click"} <= set(found)
    assert "pytest" not in found  # of an extra that nobody asked for
    assert size(found["mtp-mlx"]) > 5e6  # the embedded pairs alone


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rows", "9"], "--rows are [9]"),
        (["--tokens", "1"], "--tokens 1"),
        (["--quick", "--rows", "9"], "--rows are [9]"),
        (["--depths", "1", "8"], "--depths are [1, 8]"),
        (["--depths", "-1"], "--depths are [-1]"),
        (["--peer-drafts", "0"], "--peer-drafts is 0"),
        (["--own", "--peer-drafts", "5"], "--peer-drafts are of mlx-vlm"),
        (["--blas", "/nowhere/libopenblas.so"], "--blas /nowhere/libopenblas.so: no such file"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(options, said, capsys, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "argv", ["side_by_side", *options])
    with pytest.raises(SystemExit) as left:
        side_by_side.main()
    heard = capsys.readouterr()
    assert (left.value.code, heard.out, heard.err.count("\n")) == (2, "", 1)
    assert said in heard.err


@pytest.mark.parametrize(
    ("ratios", "said", "verdict"),
    [
        ((1.5, 1.6, 1.7), "met", "met"),
        ((1.4, 1.4, 1.7), "met", "met"),
        ((1.1, 1.6, 1.7), "met, within the spread", "within the spread"),
        ((1.1, 1.3, 1.4), "MISSED, within the spread", "within the spread"),
        ((1.1, 1.2, 1.3), "MISSED", "missed"),
    ],
)
def test_a_bar_says_whether_every_repeat_agrees(ratios, said, verdict, capsys):
    found = judged_of(OWN_OVER_LM, ratios)
    assert found["verdict"] == verdict
    side_by_side.show_bar({"bar": OWN_OVER_LM.name, "least": 1.4, "is_strict": False} | found)
    assert capsys.readouterr().out.strip().endswith(f"at least 1.40: {said}")


def test_what_is_asked_to_be_above_is_not_met_by_as_much():
    above = replace(OWN_OVER_LM, is_strict=True)
    assert judged_of(above, (1.4, 1.4, 1.4))["verdict"] == "missed"
    assert judged_of(above, (1.41, 1.41, 1.41))["verdict"] == "met"
    strict = [bar for bar in bars.bars(3) if bar.is_strict]
    assert [(bar.name, set(bar.least.values())) for bar in strict] == [
        ("auto / plain, drafts cheap", {1.0})
    ]


def test_what_is_not_installed_is_named(capsys):
    side_by_side.show_engines({LM: None})
    assert capsys.readouterr().out.split() == [LM, *environment.ABSENT.split()]


def test_an_environment_that_was_not_made_to_the_end_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "FOLDER", tmp_path)
    assert environment.python() is None
    assert process.installed() == (OWN,)
    (tmp_path / "ready").touch()
    assert process.installed() == (OWN, LM, VLM)
