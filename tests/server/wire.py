"""The built-in pair as a server serves it, shared by a process's tests; bodies and answers."""

import json
from functools import cache

import mtp_mlx
from mtp_mlx.errors import RequestError
from mtp_mlx.options import Options
from mtp_mlx.server.errors import Refused, error_answer
from mtp_mlx.server.served import Served
from mtp_mlx.server.wire.answers import make_answer
from mtp_mlx.server.wire.asks import read_chat, read_completion

HELLO = [{"role": "user", "content": "hello"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
SECRET = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"const": None}}}


@cache
def served(names: tuple[str, ...] = (), accept_any_model: bool = False) -> Served:
    llm = mtp_mlx.load("tiny", backend="numpy")
    return Served.of(llm, names=names, accept_any_model=accept_any_model)


def chat(**fields):
    """The Ask of a chat."""
    return read_chat({"messages": HELLO} | fields, served())


def completion(**fields):
    return read_completion({"prompt": "The"} | fields, served())


def options(ask, choice=0):
    """What the API gets, but for the seed, which is drawn."""
    return {name: value for name, value in ask.choices[choice].options.items() if name != "seed"}


def fault(read, body):
    """The error reply to a body: status, code, param, message. It must be one."""
    try:
        found = read(body, served())
    except (RequestError, Refused) as error:
        answer = error_answer(error)
        body = answer.body["error"]
        assert "\n" not in body["message"] and "pydantic" not in body["message"]
        json.dumps(answer.body)
        return answer.status, body["code"], body["param"], body["message"]
    raise AssertionError(f"read as {found}")


def streams(ask):
    """The streams of an ask's choices, of the options that this pair's API knows."""
    known = Options.__dataclass_fields__
    return [
        served().llm.stream(prompt, **{k: v for k, v in given.items() if k in known})
        for prompt, given in ask.choices
    ]


def streamed(ask):
    """The frames of a stream, and the replies they are of."""
    answer, running, frames = make_answer(ask, "1", 7, served()), streams(ask), []
    for index, stream in enumerate(running):
        for chunk in stream:
            frames += answer.chunk(index, chunk)
        frames.append(answer.last(index, stream.reply))
    replies = [stream.reply for stream in running]
    if ask.include_usage:
        frames.append(answer.usage(replies))
    return frames, replies


def whole(ask):
    """A whole reply, and the replies it is of."""
    answer, running = make_answer(ask, "1", 7, served()), streams(ask)
    for index, stream in enumerate(running):
        for chunk in stream:
            answer.keep(index, chunk)
    replies = [stream.reply for stream in running]
    return answer.whole(replies), replies
