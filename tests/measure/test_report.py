"""What a report says of its samples: figures, JSON, tables."""

import json
from dataclasses import replace

import pytest

from mtp_mlx.measure.report import PLAIN, SERVER
from mtp_mlx.measure.sample import Rounds
from mtp_mlx.measure.tables import describe, table
from tests.measure.reports import MIB, report, samples


def line(found, drafts, rows=1, is_alike=False):
    [one] = [x for x in found.lines if (x.drafts, x.rows, x.is_alike) == (drafts, rows, is_alike)]
    return one


def test_a_sum_of_samples_is_one_after_the_other():
    first, second, _ = samples(10.0, 30)
    both = first + second
    assert both.seconds == first.seconds + second.seconds
    assert (both.tokens, both.first_s, both.peak_bytes) == (200, (0.1, 0.3) * 2, 2 * MIB)
    assert both.rounds == Rounds(80, 80, 120, 60, 200, 2.0, 1.5)
    assert both.rounds.since(second.rounds) == first.rounds


def test_rounds_tell_acceptance_tokens_and_the_hosts_share():
    rounds = Rounds(count=10, rows=20, drafted=60, accepted=45, tokens=65, seconds=2.0, eval_s=1.5)
    assert (rounds.acceptance, rounds.tokens_per_round) == (0.75, 3.25)
    assert (rounds.host_share, rounds.host_s) == (0.25, pytest.approx(0.05))
    none = Rounds(0, 0, 0, 0, 0, 0.0, 0.0)
    assert (none.acceptance, none.tokens_per_round, none.host_share, none.host_s) == (None, 0, 0, 0)


def test_ratios_are_told_only_beyond_the_noise():
    found = report(has_server=True)
    assert line(found, PLAIN).over_plain is None
    assert line(found, "auto").over_plain.value == pytest.approx(2.0)
    assert line(found, "auto").over_server.value == pytest.approx(2.5)
    assert line(found, SERVER).over_server is None
    assert line(found, SERVER, 4).over_plain.value == pytest.approx(0.8)
    assert line(found, "auto").num_different == 3 and line(found, SERVER).num_different == 0


def test_json_has_all_that_was_measured():
    body = json.loads(json.dumps(report(has_server=True).to_json()))
    assert set(body) == {
        *("bench", "model", "draft_model", "dtype", "note", "machine", "settings", "server"),
        *("prefill", "decode", "verify", "verify_host_s"),
    }
    assert body["machine"]["mlx"] == "0.32.4" and body["machine"]["commit"] is None
    assert body["settings"]["repeats"] == 3
    assert [(x["batch_size"], x["prompts"], x["drafts"]) for x in body["decode"]] == [
        (rows, kind, drafts)
        for rows, kind in ((1, "distinct"), (4, "distinct"), (4, "identical"))
        for drafts in (0, 3, "auto", "server")
    ]
    plain, three, auto, server = body["decode"][:4]
    assert auto["over_plain"]["ratio"] == pytest.approx(2.0)
    assert (plain["over_plain"], server["rounds"]) == (None, None)
    assert len(three["tokens_per_s"]["values"]) == 3
    assert three["rounds"]["acceptance"] == 0.5
    assert (three["decision"], auto["decision"]) == (None, "drafts 5")
    assert three["rounds"]["host_share"] == 0.25
    assert (three["peak_memory_bytes"], three["replies"]) == (3 * MIB, 6)
    assert body["verify"][0] == {"tokens": 1, "seconds": 1e-3, "spread": 0.01, "of_one": 1.0}
    assert body["verify_host_s"] == 5e-4
    assert body["prefill"][0]["prompt_tokens"] == 512


def test_what_the_model_notes_is_told_with_the_figures():
    found = report()
    assert found.to_json()["note"] is None and "note" not in describe(found)
    noted = replace(found, note="no kernels")
    assert noted.to_json()["note"] == "no kernels"
    assert "note: no kernels" in describe(noted).split("\n\n")[0].splitlines()


@pytest.mark.parametrize("is_markdown", [False, True])
def test_tables_name_what_they_belong_to(is_markdown):
    text = describe(report(), is_markdown=is_markdown)
    for words in (
        "target, drafter",
        "a chip, 2 cores",
        "MLX 0.32.4",
        "mtp-mlx 0.1.0",
        "distinct, at last: drafts 5",
        "verify: without the host's wait of 0.500 ms, which is in the spread",
    ):
        assert words in text
    rows = [row.strip("| ").split() for row in text.splitlines()]
    if is_markdown:
        rows = [[cell for cell in row if cell != "|"] for row in rows]
    assert ["1", "distinct", "auto", "20.0"] in [row[:4] for row in rows]
    assert ["64", "7.000", "1.0%", "7.00"] in rows
    assert "x server" not in text and "over HTTP" not in text


def test_a_ratio_within_the_noise_is_said_in_words():
    """3 drafts make 1 % of difference, and the repeats scatter by as much."""
    found = report()
    noisy = samples(10.0)
    own = noisy[1], noisy[2], noisy[0]  # other luck in every repeat
    changed = line(found, 3).__class__(1, False, 3, own, noisy)
    assert changed.over_plain.value is None
    assert changed.to_json()["over_plain"]["within_noise"]
    assert changed.to_json()["over_plain"]["ratio"] is None


def test_without_a_drafter_there_is_no_table_of_verifies():
    assert "verify" not in describe(report(costs=0))


def test_columns_are_as_wide_as_they_need():
    rows = [("1", "plain"), ("100", "auto")]
    assert table(("batch", "drafts"), rows, is_markdown=False).splitlines() == [
        "batch  drafts",
        "    1  plain",
        "  100  auto",
    ]
    assert table(("batch", "drafts"), rows, is_markdown=True).splitlines() == [
        "| batch | drafts |",
        "| --: | :-- |",
        "|     1 | plain  |",
        "|   100 | auto   |",
    ]
