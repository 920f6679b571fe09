"""The prompt of a command: words of the command line, -p, and text that is piped in."""

import os
import stat
import sys

import click

from mtp_mlx.fields import shown_name

STDIN = "-"
LIMIT_BYTES = 16 << 20  # many times the longest context
REMEDY = "give it as words, with -p, or through a pipe"


def read_prompt(words: tuple[str, ...], option: str | None) -> str:
    """What is piped in, a blank line, then the words (or the text of -p): those of them there are.

    `option` "-" is stdin, even a terminal. Raises UsageError for a prompt that is empty, too long,
    no text, or given twice.
    """
    is_text = option is not None and option != STDIN
    if is_text and words:
        raise click.UsageError("give the prompt as words or with -p, and not both")
    own = option if is_text else " ".join(words)
    piped = _read_stdin() if option == STDIN else read_piped()
    prompt = "\n\n".join(part for part in (piped, own) if part)
    if not prompt.strip():
        raise click.UsageError(f"the prompt is empty; {REMEDY}")
    return prompt


def read_piped() -> str:
    """All of stdin where it is a pipe or a file; empty where it is a terminal, /dev/null or
    closed. A pipe that never ends is waited for."""
    if sys.stdin is None or stat.S_ISCHR(os.fstat(sys.stdin.fileno()).st_mode):
        return ""
    return _read_stdin()


def read_lines(file: str) -> list[str]:
    """The lines of a file that are not blank; "-" is stdin. Raises UsageError where there is none,
    or the file cannot be read, is too long or no text."""
    text = _read_stdin() if file == STDIN else read_file(file)
    lines = [line.strip() for line in text.splitlines()]
    prompts = [line for line in lines if line]
    if not prompts:
        raise click.UsageError(
            f"{'stdin' if file == STDIN else shown_name(file)} holds no prompt; write one a line"
        )
    return prompts


def read_file(file: str) -> str:
    """The text of a file. Raises UsageError where it cannot be read, is too long or no text."""
    try:
        with open(file, "rb") as opened:
            data = opened.read(LIMIT_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise click.UsageError(f"{shown_name(file)}: {reason}; name a readable file") from error
    return _decode(data, file)


def _read_stdin() -> str:
    """All of stdin without the line ends that close it, as in the shell's $(...)."""
    if sys.stdin is None:
        raise click.UsageError(f"stdin is closed, so it holds no prompt; {REMEDY}")
    return _decode(sys.stdin.buffer.read(LIMIT_BYTES + 1), STDIN).rstrip("\r\n")


def _decode(data: bytes, file: str) -> str:
    where = "the prompt on stdin" if file == STDIN else shown_name(file)
    if len(data) > LIMIT_BYTES:
        raise click.UsageError(f"{where} is longer than {LIMIT_BYTES:,} bytes; cut it")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"{where} is not UTF-8: byte {data[error.start]:#04x} at offset "
            f"{error.start}; convert it first"
        ) from error
