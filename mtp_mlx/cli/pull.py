"""`mtp-mlx pull`: fetch a model and its drafter from the hub into its normal cache."""

import json
import sys
import threading
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from mtp_mlx.cli.meter import Meter, bytes_text
from mtp_mlx.cli.options import Grouped, option
from mtp_mlx.text.visible import visible

if TYPE_CHECKING:
    from mtp_mlx.hub.fetch import Part, Plan
    from mtp_mlx.hub.record import Record

ASK_BYTES = 10 << 30
EXIT_DECLINED = 1
COMMIT_DIGITS = 8


def hub_names(
    context: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The short names, and the repositories that are here."""
    from mtp_mlx.hub.find import names_here
    from mtp_mlx.hub.names import aliases

    names = dict.fromkeys([*(alias.name for alias in aliases()), *names_here()])
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command(cls=Grouped, has_settings=False)
@click.argument("model", shell_complete=hub_names)
@option("Pulling", "--no-draft", is_flag=True, help="The target alone, without its drafter.")
@option(
    "Pulling",
    "--revision",
    metavar="REV",
    help="Branch, tag or commit of the target (main); its commit is kept and shown.",
)
@option("Pulling", "--dry-run", is_flag=True, help="Print the sizes, fetch nothing.")
@option("Pulling", "--offline", is_flag=True, help="No network: is it here? As HF_HUB_OFFLINE=1.")
@option("Pulling", "-y", "--yes", is_flag=True, help="Do not ask above 10 GiB.")
@option("Output", "--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(context: click.Context, model: str, as_json: bool, **given: Any) -> None:
    """Fetch MODEL and its drafter from the hub, and verify every file.

    MODEL is a short name (e2b e4b 12b 26b 31b, or with a suffix: e4b-4bit, 12b-8bit) or org/name.
    Only *.safetensors *.json *.jinja tokenizer.model come, into the cache that other programs use
    too. HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are obeyed.
    """
    from mtp_mlx.hub.cache import is_offline
    from mtp_mlx.hub.client import Unanswered
    from mtp_mlx.hub.fetch import plan_pull
    from mtp_mlx.hub.find import is_here

    wants_drafter, revision = not given["no_draft"], given["revision"]
    if given["offline"] or is_offline():
        _report_here(model, revision, wants_drafter, as_json)
        return
    try:
        plan = plan_pull(model, revision, wants_drafter)
    except Unanswered as error:
        if not is_here(model, revision, wants_drafter):
            raise
        click.echo(f"mtp-mlx: not asked for anything newer: {visible(str(error))}", err=True)
        _report_here(model, revision, wants_drafter, as_json)
        return
    if plan.note is not None:
        click.echo(f"mtp-mlx: {plan.note}", err=True)
    if given["dry_run"]:
        print(json.dumps(_plan_body(plan)) if as_json else _describe(plan))
        return
    if not given["yes"] and not _is_wanted(plan):
        context.exit(EXIT_DECLINED)
    records, seconds = _carry_out(plan)
    if as_json:
        print(json.dumps(_body(plan, records, seconds)))
    else:
        print("\n".join(_line(record) for record in records))


def _report_here(model: str, revision: str | None, wants_drafter: bool, as_json: bool) -> None:
    """Say where the pair is, without the network. Raises ModelNotFound where it is not here."""
    from mtp_mlx.hub.find import pair_here, title

    folders = pair_here(model, revision, wants_drafter)
    if as_json:
        keys = ("model", "draft_model")
        parts = [{"repo": title(folder), "folder": str(folder)} for folder in folders]
        print(json.dumps({"draft_model": None} | dict(zip(keys, parts, strict=False))))
        return
    print("\n".join(f"{title(folder)} is here: {folder}" for folder in folders))


def _is_wanted(plan: "Plan") -> bool:
    """Ask before a long download, where somebody is there to answer."""
    is_asked = sys.stdin is not None and sys.stdin.isatty() and plan.missing_bytes > ASK_BYTES
    if not is_asked:
        return True
    question = f"{_describe(plan)}\nFetch {bytes_text(plan.missing_bytes)} into {plan.cache}?"
    return click.confirm(question, default=True, err=True)


def _carry_out(plan: "Plan") -> tuple[list["Record"], float]:
    """The records, and how long it took."""
    from mtp_mlx.hub.fetch import Progress, carry_out

    for part in plan.parts:
        here = "" if part.missing else ", all here"
        name = f"{part.listing.repo_id} at {part.listing.commit[:COMMIT_DIGITS]}"
        click.echo(f"{name}: {bytes_text(part.missing_bytes)} to fetch{here}", err=True)
    with Meter(plan.missing_bytes) as meter:
        records = carry_out(plan, Progress(meter.say, meter.count, threading.Event()))
    seconds = meter.elapsed()
    if plan.missing_bytes:
        rate = bytes_text(meter.arrived / max(seconds, 1e-3))
        click.echo(f"{bytes_text(meter.arrived)} in {seconds:.1f} s, {rate}/s", err=True)
    return records, seconds


def _describe(plan: "Plan") -> str:
    """What --dry-run prints: each file with its size, those that are here marked."""
    lines = []
    for part in plan.parts:
        lines.append(f"{part.listing.repo_id} at {part.listing.commit}")
        for file in part.listing.files:
            here = "" if file in part.missing else "  here"
            lines.append(f"  {bytes_text(file.size):>10}  {file.name}{here}")
    total = sum(part.total_bytes for part in plan.parts)
    return "\n".join([*lines, f"{bytes_text(plan.missing_bytes)} of {bytes_text(total)} to fetch"])


def _line(record: "Record") -> str:
    """What is printed of a repository that is whole."""
    commit = record.commit[:COMMIT_DIGITS]
    size = bytes_text(record.size)
    return f"{record.repo_id}  {record.revision} = {commit}  {size}  verified"


def _plan_body(plan: "Plan") -> dict[str, Any]:
    return {
        "model": _part_body(plan.target),
        "draft_model": None if plan.drafter is None else _part_body(plan.drafter),
        "fetch_bytes": plan.missing_bytes,
        "cache": str(plan.cache),
        "note": plan.note,
    }


def _part_body(part: "Part") -> dict[str, Any]:
    missing = {file.name for file in part.missing}
    files = [
        {"name": file.name, "bytes": file.size, "here": file.name not in missing}
        for file in part.listing.files
    ]
    return {
        "repo": part.listing.repo_id,
        "revision": part.listing.revision,
        "commit": part.listing.commit,
        "folder": str(part.snapshot),
        "bytes": part.total_bytes,
        "files": files,
    }


def _body(plan: "Plan", records: list["Record"], seconds: float) -> dict[str, Any]:
    """What --json prints once all is verified."""
    parts = {
        key: _part_body(part)
        | {"verified": True, "pulled_at": record.pulled_at, "licence": record.licence}
        for key, part, record in zip(("model", "draft_model"), plan.parts, records, strict=False)
    }
    return _plan_body(plan) | parts | {"seconds": round(seconds, 3)}
