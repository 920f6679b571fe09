"""Prompts that are no chats: texts and token ids."""

from dataclasses import dataclass
from typing import Any

from mtp_mlx.errors import RequestError
from mtp_mlx.server.served import Served
from mtp_mlx.server.wire.reading import brief

EXPECTED = "a text, a list of texts, token ids, or a list of lists of token ids"


@dataclass(frozen=True)
class Prompt:
    """A prompt as the API takes it."""

    given: str | list[int]


def read_prompts(given: Any, served: Served) -> list[Prompt]:
    """One prompt or several. Raises RequestError naming the place."""
    if isinstance(given, str):
        return [Prompt(given)]
    if not isinstance(given, list) or not given:
        raise RequestError(f"prompt must be {EXPECTED}, found {brief(given)}", param="prompt")
    rows = served.llm.config.vocab_size
    if isinstance(given[0], str):
        return [_text(each, f"prompt[{at}]") for at, each in enumerate(given)]
    if isinstance(given[0], list):
        return [_ids(each, f"prompt[{at}]", rows) for at, each in enumerate(given)]
    return [_ids(given, "prompt", rows)]


def _text(given: Any, where: str) -> Prompt:
    if not isinstance(given, str):
        raise RequestError(
            f"{where} must be text, as prompt[0] is, found {brief(given)}", param=where
        )
    return Prompt(given)


def _ids(given: Any, where: str, rows: int) -> Prompt:
    if not isinstance(given, list) or not given:
        raise RequestError(
            f"{where} must be a list of token ids, found {brief(given)}", param=where
        )
    for at, token in enumerate(given):
        if type(token) is not int or not 0 <= token < rows:
            place = f"{where}[{at}]"
            raise RequestError(
                f"{place} must be a token id of this model, 0 to {rows - 1}, found {brief(token)}",
                param=place,
            )
    return Prompt(given)
