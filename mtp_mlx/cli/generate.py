"""`mtp-mlx generate`: one reply to a prompt, streamed as text or printed as one JSON object."""

import json
import sys
from typing import Any

import click

# Longer numbers are no counts or ids, and Python refuses to read very long ones.
MAX_DIGITS = 18


class DraftTokens(click.ParamType):
    """'auto' or a count."""

    name = "auto|N"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | int:
        if value == "auto" or isinstance(value, int):
            return value
        if not _is_count(value):
            self.fail(f"{value[:40]!r} is neither 'auto' nor a count", param, ctx)
        return int(value)


class TokenIds(click.ParamType):
    """Ids separated by commas."""

    name = "IDS"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        parts = value.split(",")
        if not all(_is_count(part.strip()) for part in parts):
            self.fail(f"{value[:40]!r} is not a list of ids such as 5,7,9", param, ctx)
        return [int(part) for part in parts]


def _is_count(text: str) -> bool:
    return text.isdecimal() and len(text) <= MAX_DIGITS


@click.command()
@click.argument("prompt", required=False)
@click.option("--model", default="tiny", help="Folder of the target.", metavar="DIR")
@click.option("--draft-model", default="auto", help="Folder of the drafter, auto or none.")
@click.option("--prompt-ids", type=TokenIds(), help="Token ids in place of a text prompt.")
@click.option(
    "--num-draft-tokens", type=DraftTokens(), default="auto", help="Drafts a round; 0: plain."
)
@click.option("--temp", "--temperature", "temperature", type=float, help="0 is greedy.")
@click.option("--top-k", type=int, help="Keep the k likeliest tokens; 0: all.")
@click.option("--top-p", type=float, help="Keep the likeliest tokens up to this mass.")
@click.option("--min-p", type=float, help="Keep tokens at least this likely, relative to the best.")
@click.option("--seed", type=int, help="Same seed, same text; drawn when absent.")
@click.option("-m", "--max-tokens", type=int, help="New tokens at most (4096).")
@click.option("--stop", multiple=True, help="End the reply before this text; may be repeated.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), help="Type of activations.")
@click.option("--backend", type=click.Choice(["mlx", "numpy"]), default="mlx", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    prompt: str | None, prompt_ids: list[int] | None, as_json: bool, **options: Any
) -> None:
    """Write one reply to PROMPT, a raw text (no chat template), or to --prompt-ids.

    Sampling options that are not given take the checkpoint's generation_config.
    """
    if (prompt is None) == (prompt_ids is None):
        raise click.UsageError("give a PROMPT or --prompt-ids, and not both")
    from mtp_mlx.api import load

    loading = {name: options.pop(name) for name in ("model", "draft_model", "dtype", "backend")}
    with load(**loading, max_num_seqs=1) as llm:
        if llm.note:
            print(f"mtp-mlx: {llm.note}", file=sys.stderr)
        with llm.stream(prompt_ids or prompt or "", **options) as stream:
            for chunk in stream:
                if not as_json:
                    print(chunk.text, end="", flush=True)
        if as_json:
            drafter = llm.pair.drafter
            names = {
                "model": str(llm.pair.target),
                "draft_model": None if drafter is None else str(drafter),
            }
            body = names | {"prompt_token_ids": stream.prompt_ids} | stream.reply.to_json()
            print(json.dumps(body | {"peak_memory_bytes": llm.peak_memory_bytes()}))
        else:
            print()
