"""Renders a checkpoint's own chat template, and encodes a chat so that nobody can forge a turn.

The template is a program from the internet: it is compiled and run in a process of its own, within
limits of time, memory and output (renderer.py, render_worker.py).

Forged turns. The template writes `<turn|>` as text, so user text with the same characters would
become the control token when the whole is encoded. Placeholders for user strings do not work with
Gemma 4's template: it trims contents, sorts argument names, upper-cases and compares type names
and splits strings. So user strings stay as they are but for the punctuation that makes control
tokens, `Tokenizer.control_marks` (for Gemma: "<", "|" and ">"): in every user string (names,
arguments and mapping keys too) these characters are replaced by stand-ins, private-use code points
that occur nowhere else in the request. What is rendered then holds control tokens only where the
template itself wrote them. They are matched first, then the stand-ins are turned back, then the
text between is encoded as plain text. The ids of a harmless chat are exactly those of the rendered
text encoded as a whole; markers assembled from several fields stay text as well.

One consequence: a thought that a client left inside an assistant's `content` is plain text too, and
the template cannot cut it out. Callers put it in `reasoning`, or drop it.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtp_mlx.errors import CheckpointError, RequestError, Unsupported
from mtp_mlx.files import inside, read_json, read_small
from mtp_mlx.helper import Overrun, Refused
from mtp_mlx.text.renderer import RENDERER
from mtp_mlx.text.tokenizer import CONFIG_NAME, Tokenizer, check_surrogates, named_tokens
from mtp_mlx.text.visible import visible

FILE_NAME = "chat_template.jinja"
LIMIT_BYTES = 1 << 20  # Gemma 4's template has about 20 kB
MAX_DEPTH = 64  # of a message or tool
# The variable of a template that an option sets.
VARIABLES = {"tools": "tools", "think": "enable_thinking", "preserve_thinking": "preserve_thinking"}
STAND_INS = (*range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE))  # private-use planes 15, 16


class NoChatTemplate(RequestError):
    """A chat was asked of a model that has no chat template."""

    code = "no_chat_template"

    def __init__(self) -> None:
        super().__init__(
            "this model has no chat template; give it a plain prompt instead of messages "
            "(mtp-mlx generate --ignore-chat-template)",
            param="messages",
        )


class ChatTemplate:
    """A chat template that compiles. Rendering changes nothing, so threads may share one."""

    def __init__(self, source: str, named: dict[str, str] | None = None) -> None:
        """`named`: special tokens the template may write, such as {"bos_token": "<bos>"}.

        Raises CheckpointError if the source is not a template, or takes too much to compile.
        """
        self.source = source
        self._named = dict(named or {})
        try:
            RENDERER.compile(source)
        except Refused as error:
            raise CheckpointError(f"{FILE_NAME}: is not a template: {error}") from error
        except Overrun as error:
            raise CheckpointError(f"{FILE_NAME}: the chat template {error}") from error

    @classmethod
    def from_folder(cls, folder: Path) -> "ChatTemplate | None":
        """The template of the model in `folder`: its own file, else the tokenizer config's.

        None if the model has none; raises CheckpointError if it is damaged.
        """
        named = named_tokens(folder)
        if (folder / FILE_NAME).exists():
            try:
                return cls(read_small(inside(folder, FILE_NAME), LIMIT_BYTES).decode(), named)
            except UnicodeDecodeError as error:
                raise CheckpointError(f"{FILE_NAME}: is not UTF-8: {error}") from error
        source = _configured(folder)
        return None if source is None else cls(source, named)

    def render(
        self,
        messages: list[dict],
        *,
        add_generation_prompt: bool = True,
        tools: list[dict] | None = None,
        enable_thinking: bool = False,
        preserve_thinking: bool = False,
    ) -> str:
        """The chat as text.

        Raises RequestError for what the template refuses, and over 2 s, 256 MiB or 4 MiB of text.
        """
        values = self._named | {
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
            "enable_thinking": enable_thinking,
            "preserve_thinking": preserve_thinking,
        }
        try:
            return RENDERER.render(self.source, values)
        except Refused as error:
            fault = f"the chat template refuses this chat: {visible(str(error))}"
            raise RequestError(fault, param="messages") from error
        except Overrun as error:
            raise RequestError(f"the chat template {error}", param="messages") from error


def has_template(folder: Path) -> bool:
    """Whether the model in `folder` has a chat template, good or bad."""
    return (folder / FILE_NAME).exists() or _configured(folder) is not None


def encode_chat(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    messages: list[dict],
    *,
    tools: list[dict] | None = None,
    enable_thinking: bool = False,
    preserve_thinking: bool = False,
) -> list[int]:
    """The prompt ids of a chat; control tokens come from the template alone.

    Raises Unsupported for an option that the template does not know, and RequestError for a chat
    that is not JSON-like, holds a lone surrogate, or that the template refuses.
    """
    _check_chat(messages, tools)
    _check_known(template, tools=tools, think=enable_thinking, preserve_thinking=preserve_thinking)
    stand_ins = _choose_stand_ins(tokenizer.control_marks, template.source, [messages, tools])
    hidden = str.maketrans(stand_ins)
    shown = {ord(stand_in): mark for mark, stand_in in stand_ins.items()}
    try:
        text = template.render(
            _translate(messages, hidden),
            tools=None if tools is None else _translate(tools, hidden),
            enable_thinking=enable_thinking,
            preserve_thinking=preserve_thinking,
        )
    except RequestError as error:
        raise RequestError(str(error).translate(shown), param=error.param) from error
    return tokenizer.encode_template(text, shown)


def _check_chat(messages: list[dict], tools: list[dict] | None) -> None:
    """Raises RequestError unless both are lists of objects, of JSON values, free of surrogates."""
    for param, items in (("messages", messages), ("tools", tools or [])):
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise RequestError(f"{param}: expected a list of objects", param=param)
        for at, item in enumerate(items):
            for text in _strings(item, f"{param}[{at}]"):
                check_surrogates(text, f"{param}[{at}]", param)
    for at, message in enumerate(messages):
        _check_parts(message.get("content"), f"messages[{at}]")
    if not messages:
        raise RequestError("messages: expected at least one message", param="messages")


def _check_known(template: ChatTemplate, **asked: object) -> None:
    """Raises Unsupported for an option that would change nothing in what the template writes."""
    for option, value in asked.items():
        if value and VARIABLES[option] not in template.source:
            raise Unsupported(
                f"this model's chat template knows no {VARIABLES[option]}; leave {option} out",
                param=option,
            )


def _check_parts(content: object, where: str) -> None:
    """Raises Unsupported for a part of a message that is not text, such as an image."""
    for part in content if isinstance(content, list) else []:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if kind != "text":
            raise Unsupported(
                f"{where}: content of type {str(kind)[:40]!r} is not supported; text only",
                param="messages",
            )


def _strings(value: object, where: str, depth: int = MAX_DEPTH) -> Iterator[str]:
    """Every string in a JSON value, mapping keys too; raises RequestError for anything else."""
    if depth == 0:
        raise RequestError(
            f"{where}: nested deeper than {MAX_DEPTH} levels", param=where.split("[")[0]
        )
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in (*value.keys(), *value.values()):
            yield from _strings(item, where, depth - 1)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, where, depth - 1)
    elif value is not None and not isinstance(value, int | float):
        raise RequestError(
            f"{where}: {type(value).__name__} is not a JSON value", param=where.split("[")[0]
        )


def _choose_stand_ins(marks: frozenset[str], source: str, chat: list) -> dict[str, str]:
    """For each mark a private-use character that neither the template nor the chat holds."""
    used = set(source)
    used.update(*_strings([value for value in chat if value], "messages", MAX_DEPTH + 2))
    free = (chr(code) for code in STAND_INS if chr(code) not in used)
    chosen = dict(zip(sorted(marks), itertools.islice(free, len(marks)), strict=False))
    if len(chosen) < len(marks):
        raise RequestError("messages: too many different private-use characters", param="messages")
    return chosen


def _translate(value: Any, table: dict[int, str]) -> Any:
    """A copy of a JSON value with every string and mapping key translated."""
    if isinstance(value, str):
        return value.translate(table)
    if isinstance(value, dict):
        return {_translate(key, table): _translate(item, table) for key, item in value.items()}
    if isinstance(value, list):
        return [_translate(item, table) for item in value]
    return value


def _configured(folder: Path) -> str | None:
    """The chat template of tokenizer_config.json: a string, or the default of a named list."""
    has_one = (folder / CONFIG_NAME).exists()
    found = read_json(inside(folder, CONFIG_NAME)).get("chat_template") if has_one else None
    if isinstance(found, list):
        named = {item.get("name"): item.get("template") for item in found if isinstance(item, dict)}
        found = named.get("default")
    if found is not None and not isinstance(found, str):
        raise CheckpointError(
            f"{CONFIG_NAME}: chat_template: expected text, found {type(found).__name__}"
        )
    return found
