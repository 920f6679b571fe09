"""`mtp-mlx serve`: an OpenAI-compatible server; this process has the socket, a child the model."""

import asyncio
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from mtp_mlx.cli.options import (
    Decorator,
    Grouped,
    all_of,
    loading_of,
    merge_draft_tokens,
    model_names,
    model_option,
    pair_options,
    settings_of,
    shared,
)
from mtp_mlx.cli.sampling import choosing_options, length_option, penalty_options
from mtp_mlx.errors import MtpError, RequestError
from mtp_mlx.fields import shown
from mtp_mlx.generation import Defaults
from mtp_mlx.loading import MAX_NUM_SEQS
from mtp_mlx.machine import MOST_BYTES
from mtp_mlx.options import Keywords, Options
from mtp_mlx.request import MOST_TOKENS, check_integer
from mtp_mlx.server.limits import Limits
from mtp_mlx.server.process.key_file import VARIABLE, key_digests
from mtp_mlx.server.process.launch import Failed, Launch
from mtp_mlx.server.process.listen import is_loopback, listen
from mtp_mlx.server.process.log import LEVELS, ToLines, configure
from mtp_mlx.server.process.parent import Outcome, Parent, Wishes
from mtp_mlx.server.process.ready import ReadyFile
from mtp_mlx.server.process.relay import Relay
from mtp_mlx.settings import MAX_PORT
from mtp_mlx.text.visible import visible

LIMITS = Limits()
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s*]+")
MAX_QUEUE = 10_000
MAX_S = 7 * 24 * 3600.0
SHOWN_LINES = 10
SAMPLING = (
    *("temperature", "top_k", "top_p", "min_p", "max_tokens", "num_draft_tokens"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty"),
)
NO_MODEL = (
    "name the model to serve: mtp-mlx serve tiny, which is built in, or one that mtp-mlx ls lists; "
    "mtp-mlx pull NAME fetches one"
)


def _targets(
    context: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    return model_names(context, click.Argument(["model"]), incomplete)


def _seconds(flag: str, default: float, text: str) -> Decorator:
    return shared(
        "Limits",
        flag,
        type=click.FloatRange(0, MAX_S, min_open=flag != "--drain"),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help=text,
    )


address_options = all_of(
    shared(
        "Address", "--host", default="127.0.0.1", show_default=True, help="Address to listen on."
    ),
    shared(
        "Address",
        "--port",
        type=click.IntRange(0, MAX_PORT),
        default=8080,
        show_default=True,
        help="0 is a free one.",
    ),
    shared(
        "Address",
        "--api-key-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Keys that clients must give, one a line; also MTP_MLX_API_KEY, separated by commas.",
    ),
    shared(
        "Address",
        "--allowed-origins",
        multiple=True,
        metavar="ORIGIN",
        help="A page's origin that may call, such as https://app.example; may be repeated.",
    ),
    shared(
        "Address",
        "--allowed-hosts",
        multiple=True,
        metavar="HOST",
        help="A name of this machine in clients' URLs, beyond loopback's; may be repeated.",
    ),
)
name_options = all_of(
    shared(
        "Model",
        "--served-model-name",
        multiple=True,
        metavar="NAME",
        help="What clients call the model; may be repeated.",
    ),
    shared(
        "Model", "--accept-any-model", is_flag=True, help="Serve it whatever model a client names."
    ),
    shared(
        "Model",
        "--max-num-seqs",
        "--decode-concurrency",
        "max_num_seqs",
        type=click.IntRange(1, MAX_NUM_SEQS),
        default=8,
        show_default=True,
        metavar="N",
        help="Replies written at once; more wait.",
    ),
    shared(
        "Model",
        "--prompt-cache-bytes",
        type=click.IntRange(0, MOST_BYTES),
        metavar="BYTES",
        help="For what is kept of prompts; a fifth of what the model leaves when absent.",
    ),
)
limit_options = all_of(
    shared(
        "Limits",
        "--max-queue",
        type=click.IntRange(0, MAX_QUEUE),
        default=LIMITS.queue,
        show_default=True,
        metavar="N",
        help="Requests that wait for a row at most; more are refused.",
    ),
    _seconds("--queue-timeout", LIMITS.queue_s, "A request waits so long at most."),
    _seconds("--request-timeout", LIMITS.request_s, "A reply takes so long at most."),
    _seconds("--stall-timeout", LIMITS.stall_s, "It goes without a token so long at most."),
    _seconds("--drain", LIMITS.drain_s, "Running replies have so long after SIGTERM."),
)
process_options = all_of(
    shared(
        "Process",
        "--ready-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Written once it serves: JSON with url and pid, or with error.",
    ),
    shared(
        "Process",
        "--parent-pid",
        type=click.IntRange(min=1),
        metavar="PID",
        help="End when this process does.",
    ),
    shared(
        "Process",
        "--metrics-prefix",
        type=click.Choice(["mtp_mlx", "vllm"]),
        default="mtp_mlx",
        show_default=True,
        help="Of the names in /metrics.",
    ),
    shared("Process", "--no-ui", is_flag=True, help="No page at /."),
    shared(
        "Process",
        "--log-level",
        type=click.Choice(LEVELS, case_sensitive=False),
        default="INFO",
        show_default=True,
        help="What is said on stderr.",
    ),
    shared("Process", "--log-json", is_flag=True, help="The log as JSON, an object a line."),
)


@click.command(cls=Grouped)
@click.argument("name", required=False, metavar="[MODEL]", shell_complete=_targets)
@address_options
@model_option()
@pair_options
@name_options
@choosing_options
@length_option
@penalty_options
@limit_options
@process_options
@click.pass_context
def command(context: click.Context, name: str | None, **given: Any) -> None:
    """Serve MODEL over HTTP as OpenAI's API, with a page at / to try it.

    Sampling options hold where a request says nothing. The model is in a process of its own, which
    is started again when it dies. SIGTERM and Ctrl-C end the server once running replies are
    complete.
    """
    given["model"] = _model(context, name, given["model"])
    merge_draft_tokens(given)
    with _ending_at_once():
        _start(context, given)


def _start(context: click.Context, given: dict[str, Any]) -> None:
    """Bind, serve, and leave with the exit code."""
    wishes = Wishes(ready_file=given.pop("ready_file"), parent_pid=given.pop("parent_pid"))
    file = ReadyFile(wishes.ready_file)
    file.check()
    file.remove()
    try:
        listener, launch = _prepared(context, given)
    except MtpError as error:
        file.say_failed(Failed.of(error))
        raise
    with listener:
        context.exit(_supervise(listener, launch, wishes))


@contextmanager
def _ending_at_once() -> Generator[None]:
    """Inside, SIGTERM ends the program in good order, until the parent heeds it with more care."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(0)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _model(context: click.Context, name: str | None, option: str | None) -> str:
    """The model that is named, as an argument, an option, a variable or a setting."""
    is_typed = context.get_parameter_source("model") is ParameterSource.COMMANDLINE
    if is_typed and None not in (name, option) and name != option:
        raise click.UsageError(f"{name} and --model {option} contradict; give one")
    found = name or option
    if found is None:
        raise click.UsageError(NO_MODEL)
    return found


def _prepared(context: click.Context, given: dict[str, Any]) -> tuple[socket.socket, Launch]:
    """The socket, bound, and what is served there. Raises MtpError."""
    digests = key_digests(given.pop("api_key_file"), os.environ.get(VARIABLE))
    origins = given.pop("allowed_origins")
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            raise RequestError(
                f"--allowed-origins {shown(origin)} is no origin; write one exactly as browsers "
                "send it, such as https://app.example:8443",
                param="allowed_origins",
            )
    sampling = _sampling(given)
    host = given.pop("host")
    listener = listen(host, given.pop("port"))
    if not digests and not is_loopback(listener):
        listener.close()
        raise RequestError(
            f"--host {host} lets other machines in, and there is no API key; give --api-key-file "
            f"or {VARIABLE}, or listen on 127.0.0.1",
            param="host",
        )
    limits = Limits(
        queue=given.pop("max_queue"),
        queue_s=given.pop("queue_timeout"),
        request_s=given.pop("request_timeout"),
        stall_s=given.pop("stall_timeout"),
        drain_s=given.pop("drain"),
    )
    own_names = tuple({given["model"]} & settings_of(context).models.keys())
    loading = loading_of(given)
    loading |= {name: given.pop(name) for name in ("max_num_seqs", "prompt_cache_bytes")}
    return listener, Launch(
        loading=loading,
        sampling=sampling,
        limits=limits,
        names=given.pop("served_model_name") or own_names,
        accepts_any_model=given.pop("accept_any_model"),
        key_digests=digests,
        allowed_hosts=(host, *given.pop("allowed_hosts")),
        allowed_origins=origins,
        has_page=not given.pop("no_ui"),
        metrics_prefix=given.pop("metrics_prefix"),
        log_level=given.pop("log_level"),
        logs_json=given.pop("log_json"),
    )


def _sampling(given: dict[str, Any]) -> Keywords:
    """What holds where a request says nothing. Raises RequestError for a value out of range."""
    found = {name: given.pop(name) for name in SAMPLING}
    sampling = Keywords(**{name: value for name, value in found.items() if value is not None})
    options = Options.of(sampling)
    options.sampling(Defaults())
    options.draft_tokens()
    if options.max_tokens is not None:
        check_integer("max_tokens", options.max_tokens, 1, MOST_TOKENS)
    return sampling


def _supervise(listener: socket.socket, launch: Launch, wishes: Wishes) -> int:
    """Serve until the end; the exit code, after a line about a fault."""
    relay = Relay()
    configure(ToLines(relay.say), launch.log_level, as_json=launch.logs_json)
    try:
        outcome = asyncio.run(Parent(listener, launch, wishes, relay).run())
        if outcome.failed is not None:
            _say_failed(outcome, relay, as_json=launch.logs_json)
    finally:
        relay.close()
    return outcome.code


def _say_failed(outcome: Outcome, relay: Relay, *, as_json: bool) -> None:
    """What went wrong, as other commands say it; after the last lines of an engine that failed."""
    assert outcome.failed is not None
    message = visible(" ".join(outcome.failed.message.split()))
    if as_json:
        fields = {"phase": "failed", "code": outcome.failed.code, "log": outcome.log}
        logging.getLogger("mtp_mlx.server").critical("%s", message, extra={"fields": fields})
        return
    for line in outcome.log[-SHOWN_LINES:]:
        relay.say(f"  | {visible(line)}".encode())
    relay.say(f"mtp-mlx: {message}".encode())
