"""What a user has set in a chat: options of the next replies, and how they are shown."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from mtp_mlx.errors import RequestError
from mtp_mlx.fields import shown
from mtp_mlx.options import Keywords, read_biases

ON_OFF = {"on": True, "off": False}
DEFAULT = "default"
VIEW = ("color_drafts", "hide_thinking")


@dataclass(frozen=True)
class Settings:
    """`options`: keywords of the API, without those that are left to the checkpoint."""

    options: Mapping[str, object] = field(default_factory=dict)
    color_drafts: bool = True
    hide_thinking: bool = False

    @property
    def keywords(self) -> Keywords:
        return cast(Keywords, dict(self.options))

    def with_option(self, name: str, value: object) -> "Settings":
        """With an option of the API; None takes it back. Whether its value can be honoured, only
        the model knows. Raises RequestError for a name that is none."""
        known = (*Keywords.__annotations__, *VIEW)
        if name not in Keywords.__annotations__:
            near = difflib.get_close_matches(name, known, 1)
            hint = f", perhaps {near[0]}" if near else ""
            raise RequestError(
                f"there is no option {shown(name)}{hint}; options are {', '.join(known)}",
                param=name,
            )
        options = {key: kept for key, kept in self.options.items() if key != name}
        return replace(self, options=options if value is None else options | {name: value})

    def with_text(self, name: str, text: str) -> "Settings":
        """With an option as it was typed: a number, on, off, "default" to take it back, or text."""
        match name:
            case "color_drafts":
                return replace(self, color_drafts=on_off(name, text))
            case "hide_thinking":
                return replace(self, hide_thinking=on_off(name, text))
            case "logit_bias" if text != DEFAULT:
                return self.with_option(name, read_biases(text))
        return self.with_option(name, _value(text))

    def rows(self) -> list[tuple[str, str]]:
        """Names and values of all that is set."""
        rows = [(name, str(value)) for name, value in self.options.items()]
        shows = {"color_drafts": self.color_drafts, "hide_thinking": self.hide_thinking}
        return [*rows, *((name, "on" if value else "off") for name, value in shows.items())]


def draft_tokens(text: str) -> int | str:
    """The drafts a round that /draft names. Raises RequestError."""
    if text == "auto":
        return text
    if text == "off":
        return 0
    if text.isdecimal() and len(text) < 4:
        return int(text)
    raise RequestError(f"/draft wants auto, off or a count, found {shown(text)}", param="draft")


def on_off(name: str, text: str) -> bool:
    """Raises RequestError for what is neither on nor off."""
    if text not in ON_OFF:
        raise RequestError(f"{name} wants on or off, found {shown(text)}", param=name)
    return ON_OFF[text]


def _value(text: str) -> object:
    """A number, a truth value, None for "default", else the text itself."""
    if text == DEFAULT:
        return None
    if text in ON_OFF:
        return ON_OFF[text]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, int | float | str) else text
