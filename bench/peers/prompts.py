"""Prompts of given lengths for the embedded pairs: the ends of long held-out conversations."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tests.embedded import held_out
from training.gemma_files import SPECIAL_TOKENS

# Kinds with longer replies, and no reply that is a call.
KINDS = ("stories", "lists", "counting", "python", "json")
SEED = 41
EXCHANGES = 12


def prompts(pair: str, lengths: Sequence[int]) -> list[list[int]]:
    """A prompt of each length, all different; it ends where the model is to reply."""
    drawn = held_out.examples(3 * (EXCHANGES + 1) * len(lengths), SEED, KINDS)
    chats = iter([e for e in drawn if not e.tools and not e.thinking and e.reply.get("content")])
    return [_cut(_conversation(pair, chats), length) for length in lengths]


def _conversation(pair: str, chats: Any) -> list[int]:
    earlier = []
    for _ in range(EXCHANGES):
        one = next(chats)
        earlier.append({"role": "user", "content": one.last_user_message})
        earlier.append({"role": "assistant", "content": one.reply["content"]})
    last = next(chats)
    asked = {"role": "user", "content": last.last_user_message}
    return held_out.writer(pair).prompt(replace(last, messages=[*earlier, asked]))


def _cut(ids: list[int], length: int) -> list[int]:
    """BOS and the last of the ids."""
    if length > len(ids):
        raise ValueError(f"a prompt of {length} ids, the conversation has {len(ids)}")
    return [SPECIAL_TOKENS["<bos>"], *ids[-(length - 1) :]]
