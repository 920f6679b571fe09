"""`mtp-mlx`: the command group, which imports a command only when it is called, and its exit codes.

0 done · 1 error of the run · 2 usage or an option that cannot be honoured · 3 texts differ ·
4 does not fit · 5 model not present · 70 engine failed · 130 interrupted.
"""

import json
import os
import sys
from importlib import import_module

import click

from mtp_mlx import __version__
from mtp_mlx.errors import MtpError, RequestError

# command -> (module, one line for --help)
COMMANDS = {
    "generate": ("mtp_mlx.cli.generate", "Write one reply to a prompt."),
}
EXIT_INTERRUPTED = 130
EXIT_ERROR = 1


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


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mtp-mlx")
def cli() -> None:
    """Gemma 4 with its MTP drafter on MLX: the target's own text, only sooner."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code; faults are one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = cli.main(arguments, prog_name="mtp-mlx", standalone_mode=False)
    except click.ClickException as error:
        _complain(arguments, error.format_message(), "usage", None)
        code = error.exit_code
    except MtpError as error:
        param = error.param if isinstance(error, RequestError) else None
        _complain(arguments, str(error), error.code, param)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`| head`): leave quietly, without Python's own complaint at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        _complain(arguments, str(error), "io", None)
        code = EXIT_ERROR
    sys.exit(code if isinstance(code, int) else 0)


def _complain(arguments: list[str], message: str, code: str, param: str | None) -> None:
    """One line on stderr; with --json also one object on stdout."""
    line = " ".join(message.split())
    print(f"mtp-mlx: {line}", file=sys.stderr)
    if "--json" in arguments:
        body = {"message": line, "type": "invalid_request_error", "param": param, "code": code}
        print(json.dumps({"error": body}))
