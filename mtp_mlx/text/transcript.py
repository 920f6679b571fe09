"""The text of one reply, token by token: what may be shown now, and where a stop string ends it.

A token is bytes (see tokenizer.py), so the text is these bytes through an incremental UTF-8
decoder. It keeps back at most 3 bytes, those of a character that is still incomplete; a byte that
can begin no character appears at once as U+FFFD, so a stream never freezes.

Stop strings are matched on the text, character by character, by one automaton each (Knuth, Morris,
Pratt 1977): its state is the length of the longest suffix of the text that begins the stop string.
So the first stop string to be *completed* ends the reply, whatever the tokens' borders; of
several completed by the same character, the longest. The longest state is what must be held back.
"""

import codecs

from mtp_mlx.errors import RequestError
from mtp_mlx.text.tokenizer import Tokenizer, check_surrogates, show_stray_bytes

MAX_STOPS = 16
MAX_STOP_CHARS = 256


class Transcript:
    """The text of one reply. Push tokens, take what is safe to show, finish at the end."""

    def __init__(self, tokenizer: Tokenizer, stops: tuple[str, ...] = ()) -> None:
        """Raises RequestError(param="stop") for stop strings that cannot be honoured."""
        check_stops(stops)
        self._tokenizer = tokenizer
        self._matchers = [Matcher(stop) for stop in stops]
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._shown: list[str] = []
        self._ready: list[str] = []  # safe to show, not yet taken
        self._held = ""  # the end of the text, which begins a stop string
        self.is_stopped = False
        self.is_finished = False

    @property
    def text(self) -> str:
        """Everything shown so far: all that `take` and `finish` have returned."""
        return "".join(self._shown)

    def push(self, token_id: int) -> bool:
        """Adds a token; returns True if it completes a stop string, which ends the reply.

        Special tokens add no text. Raises RequestError for an id outside the vocabulary, and
        RuntimeError once the reply has ended.
        """
        if self.is_stopped or self.is_finished:
            raise RuntimeError("the reply has ended; no token can be added")
        piece = self._tokenizer.piece_bytes(token_id)
        if token_id not in self._tokenizer.special_ids:
            self._add(show_stray_bytes(self._decoder.decode(piece)))
        return self.is_stopped

    def take(self) -> str:
        """The text that is safe to show now and was not shown before; may be empty."""
        text = "".join(self._ready)
        self._ready.clear()
        if text:
            self._shown.append(text)
        return text

    def finish(self, *, is_cut: bool = True) -> str:
        """The rest of the text, at the end of the reply; a second call returns "".

        is_cut: the end came from outside (a budget, the context, a cancel): a character that is
        still incomplete is dropped. Where the model itself ended the reply, its bytes are shown.
        """
        if not (is_cut or self.is_stopped or self.is_finished):
            self._add(show_stray_bytes(self._decoder.decode(b"", final=True)))
        self.is_finished = True
        self._ready.append(self._held)
        self._held = ""
        return self.take()

    def _add(self, fresh: str) -> None:
        """Appends decoded text up to the first stop string that it completes."""
        for at, character in enumerate(fresh if self._matchers else ""):
            completed = [m.length for m in self._matchers if m.advance(character)]
            if completed:
                self._keep(self._held + fresh[: at + 1], max(completed))
                self._held = ""
                self.is_stopped = True
                return
        longest = max((matcher.state for matcher in self._matchers), default=0)
        self._keep(self._held + fresh, longest)

    def _keep(self, text: str, held: int) -> None:
        """All of `text` becomes ready to show but the last `held` characters."""
        self._ready.append(text[: len(text) - held])
        self._held = text[len(text) - held :]


class Matcher:
    """The automaton of one stop string; `state` is the length of its beginning now matched."""

    def __init__(self, stop: str) -> None:
        self.length = len(stop)
        self.state = 0
        self._stop = stop
        self._shorter = [0, 0]  # for each state, the next shorter beginning that also matches
        for character in stop[1:]:
            state = self._shorter[-1]
            while state and stop[state] != character:
                state = self._shorter[state]
            self._shorter.append(state + 1 if stop[state] == character else 0)

    def advance(self, character: str) -> bool:
        """Reads one character of text; returns whether it completes the stop string."""
        state = self.state
        while state and self._stop[state] != character:
            state = self._shorter[state]
        self.state = state + 1 if self._stop[state] == character else 0
        return self.state == self.length


def check_stops(stops: tuple[str, ...]) -> None:
    """Raises RequestError(param="stop") for too many, empty, overlong or non-string stops."""
    if len(stops) > MAX_STOPS:
        raise RequestError(
            f"stop: expected at most {MAX_STOPS} strings, found {len(stops)}", param="stop"
        )
    for stop in stops:
        if not isinstance(stop, str) or not 0 < len(stop) <= MAX_STOP_CHARS:
            found = f"{len(stop)} characters" if isinstance(stop, str) else type(stop).__name__
            raise RequestError(
                f"stop: expected strings of 1 to {MAX_STOP_CHARS} characters, found {found}",
                param="stop",
            )
        check_surrogates(stop, "stop", "stop")
