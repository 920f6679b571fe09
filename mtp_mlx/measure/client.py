"""A client of any server that speaks OpenAI's chat API: streamed replies, and when they came."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mtp_mlx.errors import RequestError
from mtp_mlx.fields import shown, shown_name
from mtp_mlx.measure.sample import Sample

TIMEOUT_S = 300.0
FAULT_BYTES = 300  # of an error reply that are shown
SHOWN_NAMES = 5
SPOKEN = ("content", "reasoning_content", "reasoning", "tool_calls")  # by one server or another
SCHEMES = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Served:
    """A reply as a client saw it: seconds to its first token, be it text, thought or call, and to
    its end."""

    text: str
    prompt_tokens: int
    tokens: int
    first_s: float
    seconds: float

    @property
    def tokens_per_s(self) -> float | None:
        """Of the tokens after the first; None where all came at once."""
        if self.tokens < 2 or self.seconds <= self.first_s:
            return None
        return (self.tokens - 1) / (self.seconds - self.first_s)


def find_server(url: str, model: str | None) -> "Server":
    """The server at `url`, asked for a model, or for the only one that it lists. Raises
    RequestError where there are others to choose from."""
    if model is not None:
        return Server(url, model)
    names = Server(url).names()
    if len(names) != 1:
        listed = ", ".join(shown_name(name) for name in names[:SHOWN_NAMES]) or "none"
        raise RequestError(
            f"the server at {url} lists {len(names)} models ({listed}); name one (--against-model)",
            param="against_model",
        )
    return Server(url, names[0])


class Server:
    """A server at `url`, with or without /v1 at its end; `model` is what its requests name, and
    `extra` what they say besides."""

    def __init__(
        self, url: str, model: str | None = None, extra: Mapping[str, Any] | None = None
    ) -> None:
        """Raises RequestError for a URL of another kind."""
        self.url = url
        scheme, self._host, self._port, path = _parts(url)
        self._connect = SCHEMES[scheme]
        self._path = f"{path.rstrip('/').removesuffix('/v1')}/v1"
        self._model = model
        self._extra = extra or {}

    def names(self) -> list[str]:
        """Of the models that it lists."""
        with closing(self._connection()) as connection:
            return self._asked(lambda: self._listed(connection))

    def _listed(self, connection: http.client.HTTPConnection) -> list[str]:
        with self._sent(connection, "GET", "/models") as response:
            return [str(entry["id"]) for entry in json.loads(response.read())["data"]]

    def ask(self, messages: Messages, max_tokens: int, **extra: Any) -> Served:
        """One greedy reply, streamed. Raises RequestError, which names the server and its fault."""
        body = {
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({} if self._model is None else {"model": self._model}),
            **self._extra,
            **extra,
        }
        started = time.perf_counter()
        with closing(self._connection()) as connection:
            return self._asked(lambda: self._reply(connection, body, started))

    def write(self, chats: Sequence[Messages], max_tokens: int) -> Sample:
        """Replies to some chats, asked for at once by as many clients."""
        seconds, replies = at_once(lambda chat: self.ask(chat, max_tokens), chats, len(chats))
        return Sample(
            prompt_tokens=sum(reply.prompt_tokens for reply in replies),
            tokens=sum(reply.tokens for reply in replies),
            seconds=seconds,
            first_s=tuple(reply.first_s for reply in replies),
            row_tokens_per_s=tuple(r.tokens_per_s for r in replies if r.tokens_per_s is not None),
            texts=tuple(reply.text for reply in replies),
        )

    def _connection(self) -> http.client.HTTPConnection:
        return self._connect(self._host, self._port, timeout=TIMEOUT_S)

    def _asked(self, ask: Callable[[], Any]) -> Any:
        """What `ask` gives; trouble with the connection and odd bodies are the server's fault."""
        try:
            return ask()
        except (OSError, http.client.HTTPException) as error:
            raise self._fault(str(error) or type(error).__name__) from error
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise self._fault(f"its reply cannot be read: {shown(error)}") from error

    def _fault(self, what: str) -> RequestError:
        return RequestError(f"the server at {self.url} cannot be measured: {what}", param="against")

    def _sent(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: object = None
    ) -> http.client.HTTPResponse:
        sent = None if body is None else json.dumps(body)
        headers = {} if body is None else {"content-type": "application/json"}
        connection.request(method, self._path + path, sent, headers)
        response = connection.getresponse()
        if response.status != http.client.OK:
            with response:
                said = response.read(FAULT_BYTES).decode(errors="replace")
            raise self._fault(f"{response.status} {said}")
        return response

    def _reply(
        self, connection: http.client.HTTPConnection, body: object, started: float
    ) -> Served:
        """The events of a stream to its end."""
        text, first, usage = "", 0.0, None
        with self._sent(connection, "POST", "/chat/completions", body) as response:
            for event in _events(response):
                for choice in event["choices"]:
                    delta = choice["delta"]
                    if not first and any(delta.get(name) for name in SPOKEN):
                        first = time.perf_counter() - started
                    text += delta.get("content") or ""
                usage = event.get("usage") or usage
        seconds = time.perf_counter() - started
        if usage is None:
            raise self._fault("its streams tell no usage, though stream_options asked for it")
        read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not (isinstance(read, int) and isinstance(written, int) and written > 0):
            raise self._fault(f"it reports no tokens: {shown(usage)}")
        return Served(text, read, written, first or seconds, seconds)


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Those of a stream. Raises ValueError for one that tells of a fault, or is cut."""
    for line in response:
        if not line.startswith(b"data:"):
            continue
        if line[5:].strip() == b"[DONE]":
            return
        event = json.loads(line[5:])
        if event.get("error"):
            raise ValueError(shown(event["error"]))
        yield event
    raise ValueError("a stream ended without [DONE]")


def _parts(url: str) -> tuple[str, str, int | None, str]:
    """Scheme, host, port and path. Raises RequestError."""
    try:
        parts = urlsplit(url)
        if parts.scheme in SCHEMES and parts.hostname and not (parts.query or parts.fragment):
            return parts.scheme, parts.hostname, parts.port, parts.path
    except ValueError:  # a port or an address that is none
        pass
    raise RequestError(
        f"{shown(url)} is no URL of a server; give one such as http://127.0.0.1:8080/v1",
        param="against",
    )


def at_once(
    ask: Callable[[Messages], Served], chats: Sequence[Messages], clients: int
) -> tuple[float, list[Served]]:
    """All chats by so many clients, each of which asks for the next while there is one: wall
    seconds, and the replies in the order of the chats. Raises what the first faulty `ask` raised.
    """
    replies: list[Served | None] = [None] * len(chats)
    faults: list[Exception] = []
    left = iter(range(len(chats)))  # threads may share a range's iterator, not a generator

    def client() -> None:
        for index in left:
            try:
                replies[index] = ask(chats[index])
            except RequestError as error:
                faults.append(error)
                return

    threads = [threading.Thread(target=client) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if faults:
        raise faults[0]
    return seconds, [reply for reply in replies if reply is not None]
