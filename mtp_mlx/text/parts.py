"""Divides a reply into its thought, its tool calls and what it says, token by token.

Control tokens are the borders, never text that looks like them: `<|channel>` to `<channel|>` is a
thought, `<|tool_call>` to `<tool_call|>` a call. One pass over the ids, each looked at once; how
the stream is cut into rounds changes nothing.

A token belongs to one part, the borders to what they enclose. Of a thought, its channel's name
(whole or cut off) and white space at its ends are left out; of a call, all is kept as the model
wrote it. A call that is not complete, or cannot be read, is no call: nothing is made up, and its
text is all there is of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mtp_mlx.text.calls import QUOTE, Kind, parse_call
from mtp_mlx.text.drifted import DriftedCalls
from mtp_mlx.text.tokenizer import Tokenizer
from mtp_mlx.text.transcript import Transcript

CHANNEL = "thought"
BETWEEN_THOUGHTS = "\n\n"
QUOTE_TOKEN = '<|"|>'


@dataclass(frozen=True)
class Markers:
    """The ids of the control tokens that divide a reply; None where the tokenizer has no such."""

    thought: int | None = None
    thought_end: int | None = None
    call: int | None = None
    call_end: int | None = None
    quote: int | None = None

    @property
    def divide_thoughts(self) -> bool:
        """Are there tokens around thoughts?"""
        return self.thought is not None and self.thought_end is not None

    @property
    def divide_calls(self) -> bool:
        """Are there tokens around calls and their strings?"""
        return None not in (self.call, self.call_end, self.quote)

    @staticmethod
    def of(tokenizer: Tokenizer) -> "Markers":
        """Those of a tokenizer, by their names."""
        return Markers(
            thought=tokenizer.control_id("<|channel>"),
            thought_end=tokenizer.control_id("<channel|>"),
            call=tokenizer.control_id("<|tool_call>"),
            call_end=tokenizer.control_id("<tool_call|>"),
            quote=tokenizer.control_id(QUOTE_TOKEN),
        )

    def open_thought(self, prompt: Sequence[int]) -> tuple[int, ...]:
        """The end of a prompt that leaves a thought open, from its first token on, or nothing."""
        for at in range(len(prompt) - 1, -1, -1):
            if prompt[at] == self.thought:
                return tuple(prompt[at:])
            if prompt[at] == self.thought_end:
                return ()
        return ()


NO_MARKERS = Markers()  # of a raw prompt, whose reply is one text


class Piece(NamedTuple):
    kind: Kind
    text: str


class Parts:
    """The parts of one reply. Push tokens, finish at the end."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        stops: tuple[str, ...],
        markers: Markers = NO_MARKERS,
        *,
        has_tools: bool = False,
        is_single_call: bool = False,
        before: Sequence[int] = (),
    ) -> None:
        """`stops` end what the reply says, not its thought; is_single_call: so does its first call.
        has_tools: look for drifted calls too. `before`: the end of the prompt, see
        Markers.open_thought."""
        self.calls: list[tuple[str, str]] = []  # name and arguments
        self.unread: str | None = None  # the first call that is none
        self.kind: Kind = "content"  # of what comes next
        self._tokenizer = tokenizer
        self._markers = markers
        self._is_single_call = is_single_call
        self._content = Transcript(tokenizer, stops)
        self._drifted = DriftedCalls(self.calls) if has_tools else None
        self._text = self._content  # of the part that is open
        self._call: list[str] = []
        self._thought = _Thought("")
        self._has_thought = False
        for token in before:
            self.push(token)

    @property
    def is_stopped(self) -> bool:
        """Has a stop string ended the reply, or the one call that it may hold?"""
        return self._content.is_stopped or (self._is_single_call and bool(self.calls))

    def push(self, token: int) -> list[Piece]:
        """The text that is showable with this token: at least one piece, the first of its kind."""
        if token == self._markers.thought and self.kind != "reasoning":
            return self._begin_thought()
        if token == self._markers.call:
            return self._begin_call(token)
        if self.kind == "reasoning":
            return [self._in_thought(token)]
        if self.kind == "tool":
            return [self._in_call(token)]
        self._content.push(token)
        return self._said(self._content.take()) or [Piece("content", "")]

    def finish(self, *, is_cut: bool) -> list[Piece]:
        """The rest of the text, at the end of the reply; see Transcript.finish."""
        pieces = []
        if self.kind == "reasoning":
            pieces.append(self._reasoned(self._text.finish(is_cut=is_cut)))
        elif self.kind == "tool":
            rest = self._text.finish(is_cut=is_cut)
            pieces.append(Piece("tool", rest))
            self._call.append(rest)
            self._leave_call()
        pieces += self._said(self._content.finish(is_cut=is_cut))
        if self._drifted is not None:
            pieces += [Piece(*found) for found in self._drifted.finish()]
        return [piece for piece in pieces if piece.text]

    def _said(self, text: str) -> list[Piece]:
        """Text of the reply itself, in which drifted calls may be."""
        if self._drifted is None:
            return [Piece("content", text)]
        return [Piece(*found) for found in self._drifted.scan(text)]

    def _begin_thought(self) -> list[Piece]:
        self._leave_call()
        self.kind, self._text = "reasoning", Transcript(self._tokenizer)
        self._thought = _Thought(BETWEEN_THOUGHTS if self._has_thought else "")
        return [Piece("reasoning", "")]

    def _in_thought(self, token: int) -> Piece:
        if token == self._markers.thought_end:
            self.kind = "content"
            return self._reasoned(self._text.finish(is_cut=False))
        self._text.push(token)
        return self._reasoned(self._text.take())

    def _reasoned(self, text: str) -> Piece:
        """Text of the thought that is open."""
        shown = self._thought.add(text)
        self._has_thought = self._has_thought or bool(shown)
        return Piece("reasoning", shown)

    def _begin_call(self, token: int) -> list[Piece]:
        """A call ends a thought that is open, and makes nothing of a call that is."""
        rest = Piece("reasoning", "")
        if self.kind == "reasoning":
            rest = self._reasoned(self._text.finish(is_cut=False))
        self._leave_call()
        self.kind, self._text = "tool", Transcript(self._tokenizer)
        pieces = [Piece("tool", self._spelled(token))]
        return [*pieces, rest] if rest.text else pieces

    def _in_call(self, token: int) -> Piece:
        """A quote or the call's end also ends characters that are not complete."""
        if token not in (self._markers.quote, self._markers.call_end):
            self._text.push(token)
            text = self._text.take()
            self._call.append(text)
            return Piece("tool", text)
        text = self._text.finish(is_cut=False)
        self._text = Transcript(self._tokenizer)
        self._call.append(text)
        if token == self._markers.quote:
            self._call.append(QUOTE)
        else:
            self._end_call()
        return Piece("tool", text + self._spelled(token))

    def _end_call(self) -> None:
        found = parse_call("".join(self._call))
        if found is not None:
            self.calls.append(found)
            self._call = []
            self.kind = "content"
        else:
            self._leave_call()

    def _leave_call(self) -> None:
        """Nothing is made of the call that is open, if one is."""
        if self.kind == "tool":
            if self.unread is None:
                self.unread = "".join(self._call).replace(QUOTE, QUOTE_TOKEN)
            self._call = []
            self.kind = "content"

    def _spelled(self, token: int) -> str:
        return self._tokenizer.id_to_piece(token)


class _Thought:
    """The text of one thought without its channel's name and white space at its ends."""

    def __init__(self, before: str) -> None:
        """`before` is put in front of it, if there is any text in it."""
        self._before = before
        self._name: str | None = ""  # what may be the channel's name; None once that is settled
        self._space: list[str] = []  # at the end so far
        self._is_empty = True

    def add(self, text: str) -> str:
        """What of the text so far is known to belong to the thought and was not given yet."""
        if self._name is not None:
            self._name += text
            text = ""
            if not CHANNEL.startswith(self._name):
                has_name = self._name.startswith(CHANNEL) and self._name[len(CHANNEL)].isspace()
                text = self._name[len(CHANNEL) :] if has_name else self._name
                self._name = None
        if self._is_empty:
            text = text.lstrip()
        body = text.rstrip()
        if not body:
            self._space.append(text)
            return ""
        shown = "".join([self._before if self._is_empty else "", *self._space, body])
        self._space = [text[len(body) :]]
        self._is_empty = False
        return shown
