"""`mtp-mlx verify`: the user's own proof that drafts and neighbours change no text here.

Exit code 3 where texts or logits part and rounding does not explain it; 2 where what was asked for
did not happen, so that nothing is shown.
"""

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from mtp_mlx.cli.demo import EXIT_DIFFERENT
from mtp_mlx.cli.options import (
    Grouped,
    Sizes,
    draft_model_option,
    limit_option,
    loading_of,
    model_argument,
    option,
)
from mtp_mlx.cli.prompt import read_lines
from mtp_mlx.cli.stats import aligned
from mtp_mlx.cli.terminal import show_note, show_progress
from mtp_mlx.request import AUTO_DRAFT_TOKENS, MAX_DRAFT_TOKENS
from mtp_mlx.text.visible import visible
from mtp_mlx.verdict import LEVELS, BlockError, Divergence, Kind, VerifyReport

if TYPE_CHECKING:
    from mtp_mlx.api import LLM

MAX_TOKENS = 4096
BATCH_SIZES = [1, 2, 3, 4, 8]
# With --quick: every third prompt, and these where they are not given.
QUICK_SIZES, QUICK_TOKENS, QUICK_STRIDE = [1, 4], 24, 3
SHOWN = 5  # divergences printed of each sort
EXIT_NOT_SHOWN = 2
REMEDY = "give more --tokens, prompts with longer replies, or smaller batches"


@click.command(cls=Grouped)
@model_argument
@draft_model_option
@limit_option
@option(
    "Model",
    "--num-draft-tokens",
    type=click.IntRange(1, MAX_DRAFT_TOKENS),
    default=AUTO_DRAFT_TOKENS,
    metavar="N",
    show_default=True,
    help="Drafts a round.",
)
@option(
    "Texts",
    "--prompts",
    metavar="FILE",
    help="A prompt a line, - is stdin; a dozen built-in ones when absent.",
)
@option(
    "Texts",
    "--tokens",
    type=click.IntRange(1, MAX_TOKENS),
    metavar="N",
    help="New tokens at most of each reply (64, or as many as the largest batch needs).",
)
@option("Texts", "--batch", type=Sizes(), help="Batch sizes (1,2,3,4,8).")
@option("Texts", "--quick", is_flag=True, help="Fewer and shorter texts, batches of 1 and 4.")
@option("Output", "--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(context: click.Context, as_json: bool, **given: Any) -> None:
    """Compare the texts of MODEL (tiny when absent) with and without drafts, alone and in batches.

    Greedy and sampled. Prints the exactness level that was shown: A, B or C. Exit code 3 where
    texts or logits part and no rounding error explains it; 2 where nothing is shown, because no
    draft was accepted or a batch never had all its rows in one round.
    """
    loading = loading_of(given)
    file = given["prompts"]
    texts = None if file is None else read_lines(file)
    sizes, tokens = _extent(given)
    from mtp_mlx.api import load
    from mtp_mlx.proof import PROMPTS, as_prompts, verify

    texts = PROMPTS if texts is None else texts
    with load(**loading, max_num_seqs=max(sizes)) as llm:
        show_note(llm)
        try:
            report = verify(
                llm,
                as_prompts(llm, texts[::QUICK_STRIDE] if given["quick"] else texts),
                max_tokens=tokens,
                batch_sizes=sizes,
                num_draft_tokens=given["num_draft_tokens"],
                progress=show_progress,
            )
        finally:
            show_progress("")
        print(json.dumps(_body(llm, report)) if as_json else _describe(llm, report))
        if loading.get("backend", "mlx") == "mlx":
            _keep(llm, loading.get("dtype"), report)
    if report.has_fault:
        context.exit(EXIT_DIFFERENT)
    if report.missing:
        click.echo(f"mtp-mlx: {'; '.join(report.missing)}; {REMEDY}", err=True)
        context.exit(EXIT_NOT_SHOWN)


def _keep(llm: "LLM", dtype: str | None, report: VerifyReport) -> None:
    """For doctor: what was shown for this pair on this machine."""
    from mtp_mlx import calibration_file, proof_file
    from mtp_mlx.backends import open_pair
    from mtp_mlx.engine.calibrated import key_of
    from mtp_mlx.model.load import compute_dtype

    if not calibration_file.is_on():
        return
    opened = open_pair(llm.pair)
    compute = compute_dtype(opened.target.config, opened.target.tensors.values(), dtype)
    try:
        key = key_of((opened.target, opened.drafter), compute)
        folder = calibration_file.cache_folder()
        kept = proof_file.Kept(report.level, report.cases, report.has_fault)
        proof_file.keep(folder, key, kept)
    except OSError as error:
        click.echo(f"mtp-mlx: the result is not kept: {error}", err=True)


def _extent(given: dict[str, Any]) -> tuple[list[int], int | None]:
    """Batch sizes and new tokens: as given, else what --quick sets, else the defaults."""
    from mtp_mlx.together import least_tokens

    sizes = given["batch"] or (QUICK_SIZES if given["quick"] else BATCH_SIZES)
    if given["tokens"] is not None or not given["quick"]:
        return sizes, given["tokens"]
    return sizes, max(QUICK_TOKENS, least_tokens(max(sizes), given["num_draft_tokens"]))


def _body(llm: "LLM", report: VerifyReport) -> dict[str, Any]:
    """What --json prints."""
    from mtp_mlx.hub.find import title

    drafter = llm.pair.drafter
    names = {
        "model": title(llm.pair.target),
        "draft_model": None if drafter is None else title(drafter),
    }
    return report.to_json() | names


def _describe(llm: "LLM", report: VerifyReport) -> str:
    """What is printed without --json."""
    drafts = f"{report.num_draft_tokens} drafts a round and auto" if report.has_drafter else "plain"
    sizes = ", ".join(str(size) for size in report.batch_sizes)
    parted = f"{len(report.divergences)} of {report.cases:,}"
    rows = [
        ("compared", f"{report.cases:,} texts, {drafts}, batches of {sizes}, greedy and sampled"),
        *_rounds(report),
        ("texts that part", f"{parted}, {len(report.faults)} of them by no rounding error"),
        ("logit error", f"{_errors(report)}; rounding makes {report.bound:.1e} at most"),
        ("near-ties", f"{report.near_ties_per_1000:.1f} of 1,000 positions"),
    ]
    near = [each for each in report.divergences if each.is_near_tie]
    lines = [aligned(rows)]
    for name, said in (
        ("not rounding", [_error(each) for each in report.kernel_faults]),
        ("not a near-tie", [_sentence(llm, each) for each in report.faults]),
        ("near-tie", [_sentence(llm, each) for each in near]),
        ("in part", [f"{each}; more --tokens bring them together" for each in report.partial]),
    ):
        lines += [f"{name}: {each}" for each in said[:SHOWN]]
        if len(said) > SHOWN:
            lines.append(f"{name}: {len(said) - SHOWN} more; --json lists all")
    return "\n".join([*lines, _verdict(report)])


def _rounds(report: VerifyReport) -> list[tuple[str, str]]:
    """Drafts accepted of those made, and the most rows of a round by batch size."""
    accepted: Counter[Kind] = Counter()
    drafted: Counter[Kind] = Counter()
    rows: dict[int, int] = {}
    for each in report.exercises:
        accepted[each.kind] += each.accepted
        drafted[each.kind] += each.drafted
        if each.kind != "auto":
            rows[each.batch_size] = min(each.most_rows, rows.get(each.batch_size, each.most_rows))
    made = f"{accepted['drafts']:,} of {drafted['drafts']:,}"
    auto = f"{accepted['auto']:,} of {drafted['auto']:,}"
    said = [("drafts accepted", f"{made}; auto {auto}")] if report.has_drafter else []
    return [*said, ("rows in a round", " ".join(f"{size}:{most}" for size, most in rows.items()))]


def _errors(report: VerifyReport) -> str:
    """The largest error of blocks of each width."""
    blocks = sorted({error.block for error in report.errors})
    widths = (max(e.largest for e in report.errors if e.block == block) for block in blocks)
    return " ".join(f"{b}:{e:.1e}" for b, e in zip(blocks, widths, strict=True))


def _error(each: BlockError) -> str:
    """An error of the kernels in words."""
    rows = "1 row" if each.rows == 1 else f"{each.rows} rows"
    return (
        f"blocks of {each.block}, {rows}: logits up to {each.largest:.1e} from those of one token "
        f"at a time, {each.usual:.1e} as a rule; another best at {each.disagreements} of "
        f"{each.positions} positions, {each.far_disagreements} of them by far"
    )


def _sentence(llm: "LLM", each: Divergence) -> str:
    """One divergence in words."""
    one = _piece(llm, each.plain, each.plain_finish)
    other = _piece(llm, each.found, each.error or each.found_finish)
    how = "greedy" if each.temperature == 0 else f"T {each.temperature:g} seed {each.seed}"
    base = "the prompt alone" if each.against == "alone" else "plain decoding"
    gap = "" if each.gap is None else f"; gap {each.gap:.2e}, rounding {each.allowed:.2e}"
    drafts = "auto" if each.num_draft_tokens is None else each.num_draft_tokens
    return visible(
        f"prompt {each.prompt}, token {each.position}, {how}, batch {each.batch_size}, "
        f"{drafts} drafts: {other} where {base} has {one}{gap}"
    )


def _piece(llm: "LLM", token: int | None, end: str) -> str:
    """A token as the vocabulary spells it; its id where the embedding table's padding has none; the
    reason of the end where there is no token."""
    if token is None:
        return f"the end ({end})"
    if token >= llm.tokenizer.vocab_size:
        return f"id {token}"
    piece = llm.tokenizer.id_to_piece(token).replace("▁", " ")
    return json.dumps(piece, ensure_ascii=False)


def _verdict(report: VerifyReport) -> str:
    """The last line."""
    if report.faults:
        return "no level: texts part and rounding does not explain it; this is a bug, report it"
    if report.kernel_faults:
        return "no level: logits part by more than rounding; this is a bug, report it"
    if report.level is None:
        return f"no level: {'; '.join(report.missing)}"
    scope = "" if report.has_drafter else " (batching only: no drafter is loaded)"
    return f"level {report.level}: {LEVELS[report.level]}{scope}"
