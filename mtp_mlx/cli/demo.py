"""`mtp-mlx demo`: what the drafters of the built-in pairs are good for, and that the text stays.

Each pair writes one reply with its drafter and the same one without. Exit code 3 where they differ.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from mtp_mlx.cli.options import Grouped, option
from mtp_mlx.cli.stats import aligned, describe_speculation
from mtp_mlx.cli.terminal import bracket, can_style, painted, show_note, tint
from mtp_mlx.embedded import NAMES
from mtp_mlx.reply import Chunk, Reply
from mtp_mlx.request import AUTO_DRAFT_TOKENS, MAX_DRAFT_TOKENS, MAX_SEED
from mtp_mlx.text.visible import visible

if TYPE_CHECKING:
    from mtp_mlx.api import LLM
    from mtp_mlx.options import Keywords
    from mtp_mlx.text.tokenizer import Tokenizer

PROMPTS = {
    "tiny": "Tell me a story about a fox and a hen.",
    "tiny-moe": "Count from 3 to 12.",
}
MAX_TOKENS = 96
EXIT_DIFFERENT = 3


@dataclass(frozen=True)
class Outcome:
    """A reply with its drafter, chunk by chunk, and the same one without."""

    chunks: Sequence[Chunk]
    drafted: Reply
    plain: Reply

    @property
    def is_same(self) -> bool:
        return self.drafted.token_ids == self.plain.token_ids

    @property
    def rounds(self) -> list["Round"]:
        """What follows the prompt's own token; the chunk that ends a reply may be no round."""
        later = [chunk for chunk in self.chunks[1:] if chunk.tokens or chunk.drafts]
        return [Round.of(number, chunk) for number, chunk in enumerate(later, start=1)]

    def telling_round(self) -> "Round | None":
        """The first with an accepted and a rejected draft, else the first with any draft."""
        drafting = [step for step in self.rounds if step.drafted]
        mixed = [step for step in drafting if step.accepted and step.rejected]
        return next(iter(mixed or drafting), None)


@dataclass(frozen=True)
class Round:
    """One round in ids. `bonus` is the target's own token: in place of the first rejected draft, or
    on top; empty where an accepted draft ends the reply."""

    number: int
    drafted: tuple[int, ...]
    accepted: tuple[int, ...]
    rejected: tuple[int, ...]
    bonus: tuple[int, ...]

    @classmethod
    def of(cls, number: int, chunk: Chunk) -> "Round":
        """The round behind a chunk."""
        count = chunk.accepted
        bonus = tuple(token.id for token in chunk.tokens[count:])
        rejected = chunk.drafts[count:] if bonus else ()
        return cls(number, chunk.drafts, chunk.drafts[:count], rejected, bonus)

    def steps(self) -> dict[str, tuple[int, ...]]:
        """The four steps by name."""
        return {
            "drafted": self.drafted,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "bonus": self.bonus,
        }


@click.command(cls=Grouped, has_settings=False)
@option("Model", "--model", type=click.Choice(NAMES), help="One pair only, instead of both.")
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
    "Sampling",
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    metavar="INTEGER",
    help="Sample with this seed; greedy when absent.",
)
@option("Output", "--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(
    context: click.Context,
    model: str | None,
    num_draft_tokens: int,
    seed: int | None,
    as_json: bool,
) -> None:
    """Show the built-in pairs at work: accepted drafts, one round, passes saved.

    Exit code 3 where the text without the drafter is another.
    """
    from mtp_mlx.api import load

    options: Keywords = {"temperature": 0.0} if seed is None else {"seed": seed}
    options |= {"num_draft_tokens": num_draft_tokens, "max_tokens": MAX_TOKENS}
    facts, is_same = [], True
    for name in NAMES if model is None else (model,):
        with load(name, max_num_seqs=1) as llm:
            show_note(llm)
            if as_json:
                outcome = _run(llm, PROMPTS[name], options, _pass)
                facts.append(_facts(llm, name, outcome))
            else:
                print(f"{name}, {num_draft_tokens} drafts a round, {_how(seed)}")
                print(f"> {PROMPTS[name]}\n")
                outcome = _run(llm, PROMPTS[name], options, _show)
                _explain(llm.tokenizer, outcome)
        is_same = is_same and outcome.is_same
    if as_json:
        print(json.dumps({"pairs": facts}))
    context.exit(0 if is_same else EXIT_DIFFERENT)


def _how(seed: int | None) -> str:
    return "greedy" if seed is None else f"sampled with seed {seed}"


def _run(llm: "LLM", prompt: str, options: "Keywords", show: Callable[[Chunk], None]) -> Outcome:
    """Both replies; `show` sees the chunks of the first as they come."""
    messages = [{"role": "user", "content": prompt}]
    chunks = []
    with llm.stream(messages, **options) as stream:
        for chunk in stream:
            show(chunk)
            chunks.append(chunk)
    without: Keywords = {**options, "num_draft_tokens": 0}
    return Outcome(chunks, stream.reply, llm.chat(messages, **without))


def _pass(chunk: Chunk) -> None:
    """Shows nothing."""


def _mark(text: str) -> str:
    return tint(text) if can_style() else bracket(text)


def _show(chunk: Chunk) -> None:
    print(painted(chunk, _mark), end="", flush=True)


def _explain(tokenizer: "Tokenizer", outcome: Outcome) -> None:
    """What is printed below a reply."""
    print(f"\n\n{_mark('like this')}: an accepted draft\n")
    step = outcome.telling_round()
    if step is not None:
        print(f"round {step.number} of {len(outcome.rounds)}, step by step:")
        print(aligned((name, _pieces(tokenizer, ids)) for name, ids in step.steps().items()))
        print()
    made, plain = (r.spec.target_forwards for r in (outcome.drafted, outcome.plain))
    passes = ("target passes", f"{made}, plain {plain}: {plain - made} saved")
    print(aligned([*describe_speculation(outcome.drafted.spec), passes]))
    print(f"same text without the drafter: {'yes' if outcome.is_same else 'no'}\n")


def _pieces(tokenizer: "Tokenizer", ids: Sequence[int]) -> str:
    return " ".join(visible(json.dumps(_piece(tokenizer, i), ensure_ascii=False)) for i in ids)


def _piece(tokenizer: "Tokenizer", token: int) -> str:
    """A token as text; one that is no text by itself as the vocabulary spells it."""
    return tokenizer.id_to_piece(token).replace("▁", " ")


def _facts(llm: "LLM", name: str, outcome: Outcome) -> dict[str, Any]:
    """What --json says about a pair."""
    step = outcome.telling_round()
    made, plain = (r.spec.target_forwards for r in (outcome.drafted, outcome.plain))
    return {
        "model": name,
        "prompt": PROMPTS[name],
        "reply": outcome.drafted.to_json(),
        "round": None if step is None else _round_facts(llm.tokenizer, step),
        "plain_target_forwards": plain,
        "target_forwards_saved": plain - made,
        "same_text": outcome.is_same,
    }


def _round_facts(tokenizer: "Tokenizer", step: Round) -> dict[str, Any]:
    spelled = {
        name: [{"id": token, "text": _piece(tokenizer, token)} for token in ids]
        for name, ids in step.steps().items()
    }
    return {"number": step.number} | spelled
