"""A server that answers as ours does, with what the real one cannot be made to say on demand:
hostile model text, calls of tools, faults, a key, all seven places of a round."""

import asyncio
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from threading import Thread

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

PAGE = files("mtp_mlx.server") / "page"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
STEP_S = 0.02

HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"> <script>document.title='owned'</script> "
    "[/bold] [click](javascript:alert(1)) ![pixel](http://example.com/p.png) &lt;b&gt;\n\n"
    "<style>body{display:none}</style>\n\n```html\n<iframe src=//example.com></iframe>\n```\n"
)
MARKDOWN = (
    "## A heading\n\n"
    "Some **bold** and *slanted* words, `code`, and a [link](https://example.org/).\n\n"
    "1. one\n2. two\n   - inner\n\n> a quote\n\n"
    "| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nprint(1)\n```\n"
)


@dataclass
class Round:
    """Texts of tokens and where they are from; what was drafted in vain."""

    tokens: list[tuple[str, str]]
    rejected: list[str] = field(default_factory=list)
    kind: str = "content"

    def chunk(self, number: int) -> dict:
        spans, at = [], 0
        for text, origin in self.tokens:
            spans.append([at, at := at + len(text.encode()), origin])
        accepted = sum(origin == "d" for _, origin in self.tokens)
        spec = {
            "round": number,
            "drafted": accepted + len(self.rejected),
            "accepted": accepted,
            "spans": spans,
            "rejected": [{"id": 5, "text": text} for text in self.rejected],
        }
        name = "content" if self.kind == "content" else "reasoning_content"
        return {"delta": {name: "".join(text for text, _ in self.tokens)}, "spec": spec}


def rounds_of(text: str, depth: int, kind: str = "content") -> list[Round]:
    """A text as rounds: the prompt's token, then full rounds and partly rejected ones in turn."""
    words = text.split(" ")
    tokens = [words[0], *(f" {word}" for word in words[1:])]
    if not depth:
        return [Round([(token, "p")], kind=kind) for token in tokens]
    rounds, at = [Round([(tokens[0], "t")], kind=kind)], 1
    while at < len(tokens):
        taken = depth if len(rounds) % 3 else depth // 2
        drafts = [(token, "d") for token in tokens[at : at + taken]]
        own = [(token, "t") for token in tokens[at + taken : at + taken + 1]]
        rounds.append(Round(drafts + own, [" never"] * (depth - taken), kind))
        at += taken + 1
    return rounds


def script(body: dict) -> list[Round]:
    """What is written, by what the last message asks for."""
    asked = body["messages"][-1]["content"]
    depth = body.get("num_draft_tokens", 7)
    depth = 7 if depth == "auto" else depth
    text = " ".join(f"word{i}" for i in range(400 if "long" in asked else 40))
    if "hostile" in asked:
        text = HOSTILE
    elif "markdown" in asked:
        text = MARKDOWN
    elif "differ" in asked:
        text = f"one two {'three' if depth else 'four'} five"
    thought = rounds_of("I think of naïve 🦊 words first", depth, "reasoning")
    return [*(thought if body.get("enable_thinking") else []), *rounds_of(text, depth)]


class Standin:
    """`key`: what must be sent, if anything; `busy`, `loading`: requests that get 503; `bodies`:
    those that were read; `cancelled`: streams whose client left; `status_s`: how long the status
    takes."""

    def __init__(self) -> None:
        self.key: str | None = None
        self.busy = self.loading = 0
        self.bodies: list[dict] = []
        self.cancelled = 0
        self.polls = 0
        self.status_s = 0.0

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self.page),
                Route("/page/{name}", self.page),
                Route("/v1/status", self.status),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
            ]
        )

    async def page(self, request: Request) -> Response:
        path = PAGE / request.path_params.get("name", "index.html")
        headers = {"content-security-policy": CSP, "x-content-type-options": "nosniff"}
        kind = TYPES[path.name.rsplit(".")[-1]]
        return Response(path.read_bytes(), media_type=kind, headers=headers)

    def refused(self, request: Request) -> Response | None:
        if self.key in (None, request.headers.get("authorization", "").removeprefix("Bearer ")):
            return None
        return fault(401, "invalid_api_key", "a key is needed: send Authorization: Bearer KEY")

    async def status(self, request: Request) -> Response:
        self.polls += 1
        await asyncio.sleep(self.status_s)
        if self.loading:
            self.loading -= 1
            return fault(503, "model_loading", "the model is being loaded", {"retry-after": "1"})
        return self.refused(request) or JSONResponse(status(self.polls))

    async def chat(self, request: Request) -> Response:
        if refused := self.refused(request):
            return refused
        if self.busy:
            self.busy -= 1
            return fault(503, "queue_full", "32 requests wait already", {"retry-after": "1"})
        body = await request.json()
        self.bodies.append(body)
        if "refuse" in body["messages"][-1]["content"]:
            return fault(400, "invalid_value", "temperature must be at least 0, found -1")
        return StreamingResponse(self.stream(body), media_type="text/event-stream")

    async def stream(self, body: dict):
        asked = body["messages"][-1]["content"]
        rounds = script(body)
        try:
            yield ": prefill 64/128\r\n\r\n"
            await asyncio.sleep(0.1)
            if "tool" in asked and body.get("tools"):
                call = {"index": 0, "id": "call_1", "type": "function"}
                call["function"] = {"name": "get_time", "arguments": '{"city":"Paris"}'}
                yield frame({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
                yield frame(last([], "tool_calls"))
                yield "data: [DONE]\r\n\r\n"
                return
            for number, part in enumerate(rounds):
                choice = {"index": 0, "finish_reason": None} | part.chunk(number)
                yield frame({"choices": [choice]})
                await asyncio.sleep(STEP_S)
                if "snap" in asked and number == 2:
                    raise ConnectionError("the server is gone")
                if "break" in asked and number == 2:
                    error = {"message": "the engine stopped", "type": "server_error"}
                    yield frame({"error": error | {"param": None, "code": "engine_restarting"}})
                    return
            yield frame(last(rounds, "stop"))
            yield "data: [DONE]\r\n\r\n"
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def last(rounds: list[Round], finish: str) -> dict:
    drafts = sum(part.chunk(0)["spec"]["drafted"] for part in rounds)
    accepted = sum(part.chunk(0)["spec"]["accepted"] for part in rounds)
    tokens = sum(len(part.tokens) for part in rounds)
    return {
        "choices": [{"index": 0, "delta": {}, "finish_reason": finish}],
        "usage": {"completion_tokens": tokens},
        "timings": {
            "predicted_per_second": 44.2,
            "draft_n": drafts,
            "draft_n_accepted": accepted,
            "draft_rounds": len(rounds) - 1,
        },
        "mtp": {"seed": 11, "exactness": "B", "plain_tps_estimate": 31.4, "parked": None},
    }


def status(polls: int) -> dict:
    row = {"prompt_tokens": 128, "prompt_done": 128, "depth": 4}
    rows = [
        row
        | {"slot": 0, "id": "a", "state": "decode", "tokens": 7 * polls, "tokens_per_s": 40.0}
        | {"drafted": 100, "accepted": 91},
        row
        | {"slot": 1, "id": "b", "state": "decode", "tokens": 3 * polls, "tokens_per_s": 40.0}
        | {"drafted": 50, "accepted": 30},
        row
        | {"slot": 2, "id": "c", "state": "prefill", "prompt_done": 70, "tokens": 0}
        | {"tokens_per_s": 0.0, "drafted": 0, "accepted": 0},
    ]
    return {
        "model": "tiny",
        "draft_model": "tiny-assistant",
        "version": "0.0",
        "exactness": "B",
        "slots": 8,
        "running": 2,
        "prefilling": 1,
        "waiting": 1,
        "queue_limit": 32,
        "rows": rows,
        "tokens_per_s": 80.0 + 9 * (polls % 5),
        "plain_tokens_per_s": 52.0,
        "depth": [4, 3],
        "acceptance_by_position": [0.97, 0.93, 0.85, 0.74, 0.6, 0.41, 0.3],
        "parked": None,
        "memory": {
            "kv_reserved_bytes": 300 << 20,
            "kv_budget_bytes": 2 << 30,
            "prompt_cache_bytes": 41 << 20,
            "peak_bytes": 900 << 20,
        },
        "uptime_s": 12.0,
        "last_round_age_s": 0.1,
        "requests": {"total": 5, "cancelled": 0, "refused": 0},
    }


def frame(data: dict) -> str:
    return f"data: {json.dumps(data)}\r\n\r\n"


def fault(status: int, code: str, message: str, headers: dict | None = None) -> Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return JSONResponse({"error": error}, status, headers)


@contextmanager
def serving(app):
    """The address of `app`, served on loopback by a thread."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    thread = Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}/"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(5)
        socket.close()
