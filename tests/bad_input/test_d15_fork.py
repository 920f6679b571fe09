"""D15: a fork of the process gets a clear error at once, whatever it does; the parent goes on."""

import asyncio
import json
import os
import signal
from collections.abc import Callable

import pytest

import mtp_mlx
from mtp_mlx.api import LLM
from tests.api_pairs import loaded
from tests.bad_input.engines import LONG, PROMPTS, SAMPLED, read

CHAT = [{"role": "user", "content": "sky"}]
HANGS_S = 20  # a child that takes so long waits for ever

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def in_a_fork(actions: dict[str, Callable[[], object]]) -> dict[str, str]:
    """What each action raises in a forked child, "" for nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(HANGS_S)
        said = {}
        for name, action in actions.items():
            os.write(writing, b" ")  # JSON does not mind; a child that hangs has said so much
            try:
                action()
                said[name] = ""
            except BaseException as error:
                said[name] = f"{type(error).__name__}: {error}"
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    done = len(answer) - len(answer.lstrip(b" ")) - 1
    assert status == 0, f"the child ended with {status} in {list(actions)[done]}"
    return json.loads(answer)


def leave(llm: LLM) -> None:
    with llm.stream(PROMPTS[0], **LONG) as stream:
        next(stream)


def test_whatever_a_fork_does_ends_at_once_and_the_parent_goes_on():
    llm = loaded()
    expected = llm.generate(PROMPTS[1], **SAMPLED)
    opened = llm.stream(PROMPTS[0], **LONG)
    next(opened)
    meanwhile = llm.stream(PROMPTS[1], **SAMPLED)

    async def read_async() -> None:
        async for _ in llm.astream(PROMPTS[0], **LONG):
            pass

    refused = {
        "generate": lambda: llm.generate(PROMPTS[0], max_tokens=2),
        "chat": lambda: llm.chat(CHAT, max_tokens=2),
        "batch": lambda: llm.batch(list(PROMPTS), max_tokens=2),
        "stream": lambda: llm.stream(PROMPTS[0], max_tokens=2),
        "leaving a stream": lambda: leave(llm),
        "astream": lambda: asyncio.run(read_async()),
        "logits": lambda: llm.logits([2, 9]),
        "propose": lambda: llm.propose([2, 9], 2),
        "stats": llm.stats,
        "peak memory": llm.peak_memory_bytes,
        "a stream of the parent": lambda: next(opened),
        "all of a stream of the parent": lambda: list(meanwhile),
    }
    quiet = {
        "cancelling a stream of the parent": opened.cancel,
        "dropping a stream of the parent": opened.__del__,
        "closing": llm.close,
        "ids of a prompt": lambda: llm.prompt_ids(PROMPTS[0]),
    }
    said = in_a_fork(refused | quiet)
    for name in refused:
        assert said[name].startswith("EngineStopped"), (name, said[name])
        assert "fork" in said[name] and "spawn" in said[name], (name, said[name])
        assert str(os.getpid()) in said[name]
    assert {name: said[name] for name in quiet} == dict.fromkeys(quiet, "")
    reading = read(meanwhile)
    assert (reading.error, meanwhile.reply.token_ids) == (None, expected.token_ids)
    assert next(opened).tokens
    opened.cancel()
    assert opened.reply.finish_reason == "cancelled"
    assert llm.generate(PROMPTS[1], **SAMPLED).token_ids == expected.token_ids
    assert llm.stats().is_idle


def test_async_streams_of_the_parent_end_at_once_in_a_fork():
    llm = loaded()

    async def both() -> mtp_mlx.Reply:
        async with llm.astream(PROMPTS[0], **LONG) as stream:
            await anext(stream)
            # The loop of the parent cannot run in the child: steps are taken by hand.
            said = in_a_fork(
                {
                    "next": lambda: stream.__anext__().send(None),
                    "close": lambda: stream.aclose().send(None),
                }
            )
            assert said["next"].startswith("EngineStopped") and "spawn" in said["next"]
            assert said["close"].startswith("StopIteration")  # it came to its end
            await anext(stream)
        return stream.reply

    assert asyncio.run(both()).finish_reason == "cancelled"
    assert llm.stats().is_idle


def test_a_fork_may_load_a_reference_of_its_own():
    """It computes without MLX, whose threads do not survive a fork."""
    llm = loaded(backend="numpy")
    options = {"temperature": 0, "max_tokens": 3}
    expected = llm.generate(PROMPTS[0], **options).token_ids

    def load_and_compare() -> None:
        folders = llm.pair.target, llm.pair.drafter
        with mtp_mlx.load(folders[0], draft_model=folders[1], backend="numpy") as own:
            assert own.generate(PROMPTS[0], **options).token_ids == expected

    said = in_a_fork({"stats": llm.stats, "load": load_and_compare})
    assert said["stats"].startswith("EngineStopped")
    assert said["load"] == ""
    assert llm.generate(PROMPTS[0], **options).token_ids == expected
