"""`mtp-mlx`: the command group, which imports a command only when it is called, and its exit codes.

0 done · 1 error of the run · 2 usage or an option that cannot be honoured · 3 texts differ ·
4 does not fit · 5 model not present · 70 engine failed · 130 interrupted.
"""

import io
import json
import os
import signal
import sys
import threading
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

import click

from mtp_mlx import __version__
from mtp_mlx.cli.terminal import RESET, can_style, is_terminal
from mtp_mlx.errors import MtpError, RequestError
from mtp_mlx.text.visible import visible

# command -> (module, one line for --help)
COMMANDS = {
    "bench": ("mtp_mlx.cli.bench", "Measure a model here, with drafts and without."),
    "chat": ("mtp_mlx.cli.chat", "Talk with a model."),
    "completion": ("mtp_mlx.cli.completion", "Print a shell's completion script."),
    "config": ("mtp_mlx.cli.config", "Show and change the settings that commands start from."),
    "convert": (
        "mtp_mlx.cli.convert",
        "Make MLX checkpoints of a pair, quantised with -q.",
    ),
    "demo": ("mtp_mlx.cli.demo", "Show the built-in pairs and their drafters at work."),
    "doctor": ("mtp_mlx.cli.doctor", "Check this machine, and say how to mend what is wrong."),
    "fit": ("mtp_mlx.cli.fit", "Say what a model takes here, before it is fetched."),
    "generate": ("mtp_mlx.cli.generate", "Write a reply to a prompt."),
    "ls": ("mtp_mlx.cli.ls", "List the models on this machine."),
    "pull": ("mtp_mlx.cli.pull", "Fetch a model and its drafter from the hub."),
    "rm": ("mtp_mlx.cli.rm", "Delete a model from the hub's cache."),
    "serve": ("mtp_mlx.cli.serve", "Serve a model to programs and pages, as OpenAI's API."),
    "show": ("mtp_mlx.cli.show", "Show what a model is and which drafter it has."),
    "tune": ("mtp_mlx.cli.tune", "Measure what drafting costs here, and keep it for later."),
    "verify": ("mtp_mlx.cli.verify", "Prove that drafts and neighbours change no text here."),
}
STDOUT, STDERR = 1, 2
EXIT_INTERRUPTED = 130
EXIT_USAGE = 2
EXIT_ERROR = 1
SERVER_FAULT = 500  # statuses from here on are not the caller's fault


class LazyGroup(click.Group):
    """Lists all commands without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return vars(import_module(COMMANDS[cmd_name][0]))["command"]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="mtp-mlx")
@click.pass_context
def cli(context: click.Context) -> None:
    """Gemma 4 with its MTP drafter on MLX: the target's own text, only sooner."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(EXIT_USAGE)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code; faults are one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _fill_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character shows "?"
    leave = partial(_leave, "--raw" in arguments)
    _on_interrupt(leave, unless=signal.SIG_IGN)  # as a shell's background jobs have it
    stdout = sys.stdout
    try:
        code = cli.main(arguments, prog_name="mtp-mlx", standalone_mode=False)
        print(end="", flush=True)
    except click.ClickException as error:
        _complain(arguments, error.format_message(), "usage", None)
        code = error.exit_code
    except MtpError as error:
        param = error.param if isinstance(error, RequestError) else None
        _complain(arguments, str(error), error.code, param, is_ours=error.status >= SERVER_FAULT)
        code = error.exit_code
    except click.Abort:
        code = EXIT_INTERRUPTED
    except SystemExit as leaving:
        code = leaving.code
        if sys.stdout is not stdout:  # click wraps it when its reader has gone, and leaves with 1
            code = _abandon_stdout()
    except BrokenPipeError:
        code = _abandon_stdout()
    except OSError as error:
        _settle_stdout()  # it may be the one that failed
        _complain(arguments, str(error), "io", None, is_ours=True)
        code = EXIT_ERROR
    _settle_stdout()
    _on_interrupt(signal.SIG_IGN)  # the end is near: no traceback from it
    sys.exit(code if isinstance(code, int) else 0)


def _fill_closed_streams() -> None:
    """Give the number of a closed standard stream (`<&-`) to the null device: no file may get it,
    and MLX cannot read from number 0."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(opened)


def _on_interrupt(handler: Any, unless: Any = None) -> None:
    """Set what Ctrl-C does, unless it is set to `unless`; only the main thread may."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and (unless is None or signal.getsignal(signal.SIGINT) is not unless):
        signal.signal(signal.SIGINT, handler)


def _leave(is_raw: bool, signum: int, frame: object) -> None:
    """Leave at once on Ctrl-C. A KeyboardInterrupt could be lost: Python drops exceptions that a
    destructor or an import lock's callback raises. is_raw: the model's own escapes were printed."""
    with suppress(OSError):  # a terminal that has gone
        if can_style() or (is_raw and is_terminal()):
            os.write(STDOUT, RESET.encode())
        os.write(STDOUT if is_terminal() else STDERR, b"\n")
        os.write(STDERR, b"interrupted\n")
    os._exit(EXIT_INTERRUPTED)


def _settle_stdout() -> None:
    """Write what is left, or drop it where that fails: Python's own flush at exit must not."""
    try:
        print(end="", flush=True)
    except OSError:
        _abandon_stdout()


def _abandon_stdout() -> int:
    """Leave quietly when the reader has gone (`| head`): Python's last flush must not complain."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _complain(
    arguments: list[str], message: str, code: str, param: str | None, *, is_ours: bool = False
) -> None:
    """One line on stderr; with --json or --jsonl also an object on stdout. `is_ours`: no fault of
    the call."""
    line = visible(" ".join(message.split()))
    if sys.stderr is not None:  # closed; print would write to stdout
        print(f"mtp-mlx: {line}", file=sys.stderr)
    if not {"--json", "--jsonl"}.isdisjoint(arguments):
        kind = "server_error" if is_ours else "invalid_request_error"
        body = {"message": line, "type": kind, "param": param, "code": code}
        print(json.dumps({"error": body}))
