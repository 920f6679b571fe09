"""`mtp-mlx convert`: a target and its drafter as MLX checkpoints, quantised with -q.

The options that mlx_lm.convert has too are spelled as there.
"""

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mtp_mlx.cli.options import Grouped, model_names, named_by_user, option
from mtp_mlx.cli.terminal import show_progress

if TYPE_CHECKING:
    from mtp_mlx.conversion.convert import Conversion, Written
    from mtp_mlx.conversion.output import Output
    from mtp_mlx.conversion.plan import Plan

MODES = ("affine", "mxfp4", "nvfp4", "mxfp8")
RECIPES = ("mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6")
DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
QUANTISING = ("q_bits", "q_group_size", "quant_predicate")
DRAFTER_ONLY = ("draft_q_bits", "draft_head_q_bits")
NAMES_SHOWN = 3
BITS = click.IntRange(1, 64)


@click.command(cls=Grouped)
@option(
    "Model",
    "--hf-path",
    "--model",
    "model",
    required=True,
    metavar="NAME|DIR",
    shell_complete=model_names,
    help="The target to convert.",
)
@option(
    "Model",
    "--draft-model",
    metavar="auto|none|NAME",
    default="auto",
    shell_complete=model_names,
    help="Its drafter, which is converted too; auto, the default, finds the target's own.",
)
@option(
    "Model",
    "--mlx-path",
    default="mlx_model",
    show_default=True,
    metavar="DIR",
    help="Folder of the new target; the new drafter's is DIR-assistant.",
)
@option("Storage", "-q", "--quantize", is_flag=True, help="Quantise the target.")
@option("Storage", "--q-bits", type=BITS, metavar="N", help="Bits a weight (4; mxfp8: 8).")
@option(
    "Storage",
    "--q-group-size",
    type=click.IntRange(1, 1 << 16),
    metavar="N",
    help="Weights that share a scale (64; mxfp4, mxfp8: 32; nvfp4: 16).",
)
@option(
    "Storage",
    "--q-mode",
    type=click.Choice(MODES),
    default="affine",
    show_default=True,
    help="The form of the numbers.",
)
@option(
    "Storage",
    "--quant-predicate",
    type=click.Choice(RECIPES),
    help="Fewer bits for most matrices, more for those that matter.",
)
@option(
    "Storage",
    "--dtype",
    type=click.Choice(list(DTYPES)),
    help="Type of what is not quantised, and of scales; as stored when absent.",
)
@option(
    "Storage",
    "--draft-q-bits",
    type=BITS,
    metavar="N",
    help="Quantise the drafter's layers too; without it they stay as they are.",
)
@option(
    "Storage",
    "--draft-head-q-bits",
    type=BITS,
    metavar="N",
    help="Likewise its head: table and centroids.",
)
@option("Output", "--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool, **given: Any) -> None:
    """Make MLX checkpoints of a target and its drafter; mlx-lm loads the target too.

    Tensors are read, quantised and written in parts, so that the memory needed is far below the
    model's size. Only the text part is written. The router of a mixture stays at 8 bits. The
    folders appear when they are complete; a folder that is not empty is refused.
    """
    from mtp_mlx.backends import find_pair
    from mtp_mlx.conversion.convert import convert
    from mtp_mlx.conversion.output import Output

    plans, folder = _plans(given), _folder(given["mlx_path"])
    named = {name: given[name] for name in ("model", "draft_model")}
    pair = find_pair(**named | named_by_user(named))
    if pair.drafter is None:
        _refuse_idle(given, pair.note)
    output = Output()
    _discard_on_interrupt(output)
    try:
        done = convert(pair, folder, plans, output, show_progress)
    finally:
        show_progress("")
    if pair.note is not None:
        left = "; only the target is written" if done.drafter is None else ""
        click.echo(f"mtp-mlx: {pair.note}{left}", err=True)
    for each in (done.target, done.drafter):
        if each is not None:
            _explain(each)
    print(json.dumps(_body(done)) if as_json else _describe(done))


def _refuse_idle(given: dict[str, Any], note: str | None) -> None:
    """Raises UsageError for an option of the drafter, where there is none to convert."""
    for name in DRAFTER_ONLY:
        if given[name] is not None:
            flag, why = f"--{name.replace('_', '-')}", note or "--draft-model is none"
            raise click.UsageError(f"{flag} needs a drafter: {why}")


def _folder(spelled: str) -> Path:
    """Where the new target goes. Raises UsageError for what cannot be a new folder's name."""
    folder = Path(os.path.abspath(os.path.expanduser(spelled)))
    if not folder.name:
        raise click.UsageError(f"--mlx-path {spelled} is the root; name a folder that is not there")
    return folder


def _plans(given: dict[str, Any]) -> "tuple[Plan, Plan]":
    """How target and drafter are to be stored. Raises UsageError for a contradiction."""
    from mtp_mlx.conversion.plan import Plan, quant_spec

    mode, group = given["q_mode"], given["q_group_size"]
    dtype = given["dtype"] and DTYPES[given["dtype"]]
    drafter = [
        bits and quant_spec("affine", bits, None, flag)
        for flag, bits in (
            ("--draft-q-bits", given["draft_q_bits"]),
            ("--draft-head-q-bits", given["draft_head_q_bits"]),
        )
    ]
    plans = Plan(dtype=dtype), Plan(default=drafter[0], head=drafter[1], dtype=dtype)
    if not given["quantize"]:
        idle = [name for name in QUANTISING if given[name] is not None]
        if idle or mode != "affine":
            name = (idle or ["q_mode"])[0].replace("_", "-")
            raise click.UsageError(f"--{name} needs -q, which quantises the target")
        return plans
    recipe = given["quant_predicate"]
    if recipe is not None and (mode != "affine" or given["q_bits"] is not None):
        other = "--q-bits" if given["q_bits"] is not None else f"--q-mode {mode}"
        raise click.UsageError(f"--quant-predicate chooses the bits; leave {other} out")
    default = quant_spec(mode, given["q_bits"], group, "--q-bits")
    return Plan(default=default, recipe=recipe, dtype=dtype), plans[1]


def _discard_on_interrupt(output: "Output") -> None:
    """On Ctrl-C remove what is half written, then do what Ctrl-C did before."""
    before = signal.getsignal(signal.SIGINT)

    def discard(signum: int, frame: Any) -> None:
        output.discard()
        if callable(before):
            before(signum, frame)

    if callable(before):
        signal.signal(signal.SIGINT, discard)


def _explain(done: "Written") -> None:
    """What is not in the new file, or not quantised, one line each on stderr."""
    if done.left_out:
        click.echo(
            f"mtp-mlx: {done.folder.name}: {done.left_out} tensors that text never reads are left "
            "out (vision, audio, keys and values of layers that share them)",
            err=True,
        )
    if done.left_plain:
        names = ", ".join(done.left_plain[:NAMES_SHOWN])
        more = len(done.left_plain) - NAMES_SHOWN
        click.echo(
            f"mtp-mlx: {done.folder.name}: not quantised, for no group divides their rows: {names}"
            f"{f' and {more} more' if more > 0 else ''}",
            err=True,
        )


def _body(done: "Conversion") -> dict[str, Any]:
    """What --json prints."""
    drafter = None if done.drafter is None else done.drafter.to_json()
    return {"target": done.target.to_json(), "drafter": drafter}


def _describe(done: "Conversion") -> str:
    """What is printed without --json."""
    return "\n".join(
        f"{each.folder}: {each.num_bytes / 1e9:.2f} GB in {each.num_files} "
        f"{'file' if each.num_files == 1 else 'files'}, {each.bits_per_weight:.2f} bits a weight "
        f"(was {each.source_bytes / 1e9:.2f} GB)"
        for each in (done.target, done.drafter)
        if each is not None
    )
