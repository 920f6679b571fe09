"""The command line as a process: pipes, interrupts, encodings, folders."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.api_pairs import folders
from tests.interrupts import heed_interrupts

PYTHON = sys.executable
ROOT = Path(__file__).resolve().parents[2]
# Says when the command line takes over: what comes before is Python's own start.
READY = (
    "import sys; from mtp_mlx.cli.main import main;"
    "print('ready', file=sys.stderr, flush=True); main(sys.argv[1:])"
)
LIMIT_S = 60


def arguments(*rest: str) -> list[str]:
    target, drafter = folders()
    return ["generate", "--model", str(target), "--draft-model", str(drafter), *rest]


def process(*command: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, capture_output=True, timeout=LIMIT_S, preexec_fn=heed_interrupts, **options
    )


def test_installed_script_and_module_run_from_another_folder(tmp_path):
    script = Path(PYTHON).with_name("mtp-mlx")
    options = arguments("sky", "--seed", "3", "-m", "4", "--json")
    results = [
        process(*start, *options, cwd=tmp_path)
        for start in ([PYTHON, "-m", "mtp_mlx"], [str(script)])
        if Path(start[0]).exists()
    ]
    assert results
    for result in results:
        assert (result.returncode, result.stderr) == (0, b"")
        assert json.loads(result.stdout)["token_ids"] == json.loads(results[0].stdout)["token_ids"]
    assert list(tmp_path.iterdir()) == []


def test_a_model_may_be_named_relative_to_the_folder_one_is_in():
    target, drafter = folders()
    result = process(
        *(PYTHON, "-m", "mtp_mlx", "generate", "sky", "-m", "2", "--json"),
        *("--model", target.name, "--draft-model", f"./{drafter.name}"),
        cwd=target.parent,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert json.loads(result.stdout)["model"] == target.name


def interrupted(delay_s: float, *rest: str) -> tuple[str, str, int]:
    """Output, errors and exit code of a long generation with SIGINT after `delay_s`."""
    # 64 replies: one alone may end by itself at once.
    command = [PYTHON, "-c", READY, *arguments("sky", "-m", "3000", "-n", "64", *rest)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, preexec_fn=heed_interrupts) as child:
        assert child.stderr.readline() == "ready\n"
        time.sleep(delay_s)
        child.send_signal(signal.SIGINT)
        try:
            out, errors = child.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
    return out, errors, child.returncode


@pytest.mark.parametrize("seed", range(4))
def test_an_interrupt_at_any_moment_exits_with_130_and_no_traceback(seed):
    draw = random.Random(seed)
    for attempt in range(5):
        # The first attempts hit imports and load, the others the generation.
        delay_s = draw.uniform(0.0, 0.1 if attempt < 2 else 0.8)
        _, errors, code = interrupted(delay_s, "--stop", "never seen")
        said = [line for line in errors.splitlines() if not line.startswith("mtp-mlx: reply ")]
        assert (code, " ".join(said).split()) == (130, ["interrupted"])


def test_an_interrupted_json_run_prints_no_half_object():
    out, _, code = interrupted(0.5, "--json")
    assert (code, out) == (130, "")


@pytest.mark.parametrize("options", [["--help"], ["text"], ["json"]], ids=["help", "text", "json"])
def test_a_reader_that_has_gone_is_no_fault(options):
    runs = {
        "--help": ["--help"],
        "text": arguments("sky", "-m", "40"),
        "json": arguments("sky", "-m", "4", "--json"),
    }
    reading, writing = os.pipe()
    os.close(reading)
    child = subprocess.run(
        [PYTHON, "-m", "mtp_mlx", *runs[options[0]]],
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=LIMIT_S,
    )
    os.close(writing)
    assert (child.returncode, child.stderr) == (0, b"")


def test_a_reader_that_goes_after_one_character_is_no_fault():
    child = subprocess.Popen(
        [PYTHON, "-m", "mtp_mlx", *arguments("sky", "-m", "3000", "--seed", "1")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert len(os.read(child.stdout.fileno(), 1)) == 1
    child.stdout.close()
    errors = child.stderr.read()
    child.stderr.close()
    assert (child.wait(LIMIT_S), errors) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("rest", [[], ["--json"]])
def test_a_full_disk_is_one_line(rest):
    with open("/dev/full", "w") as full:
        child = subprocess.run(
            [PYTHON, "-m", "mtp_mlx", *arguments("sky", "-m", "4", *rest)],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=LIMIT_S,
            text=True,
        )
    assert child.returncode == 1
    assert child.stderr.startswith("mtp-mlx: ")
    assert child.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("closed", "has_text", "has_figures"),
    [("<&-", 1, 1), (">&-", 0, 1), ("2>&-", 1, 0), ("<&- >&- 2>&-", 0, 0)],
)
def test_a_closed_stream_is_no_fault(closed, has_text, has_figures):
    command = [PYTHON, "-m", "mtp_mlx", *arguments("sky", "-m", "4", "--seed", "3", "--stats")]
    result = process("sh", "-c", f'"$@" {closed}', "sh", *command)
    assert result.returncode == 0
    assert bool(result.stdout) == has_text
    assert (b"seed            3" in result.stderr) == has_figures


@pytest.mark.parametrize("closed", ["2>&-", "2>&- <&-"])
def test_a_fault_with_stderr_closed_leaves_stdout_to_the_json(closed):
    command = [PYTHON, "-m", "mtp_mlx", "generate", "--bogus", "--json"]
    result = process("sh", "-c", f'"$@" {closed}', "sh", *command)
    assert result.returncode == 2
    assert "--bogus" in json.loads(result.stdout)["error"]["message"]


@pytest.mark.parametrize(("text", "code"), [(b"", 0), (b"\n", 0), (b"sky", 2)])
def test_token_ids_and_a_pipe_are_two_prompts_only_if_the_pipe_holds_one(text, code):
    command = [PYTHON, "-m", "mtp_mlx", *arguments("--prompt-ids", "5,7", "-m", "2")]
    result = process(*command, input=text)
    assert (result.returncode, b"not both" in result.stderr) == (code, code == 2)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_any_terminal_encoding_shows_what_it_can(encoding):
    result = process(
        *(PYTHON, "-m", "mtp_mlx", *arguments("sky", "-m", "40", "--ignore-chat-template")),
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.decode(encoding)


def test_a_prompt_that_is_no_text_is_one_line():
    result = process(PYTHON, "-m", "mtp_mlx", *arguments("-m", "2"), b"\xff")
    assert result.returncode == 2
    assert b"surrogate" in result.stderr
    assert result.stderr.count(b"\n") == 1


def test_an_interrupt_inside_a_destructor_is_not_lost():
    # Python swallows exceptions there, and in the callbacks of its import locks.
    code = (
        "import os, signal, sys, mtp_mlx.api\n"
        "from mtp_mlx.cli.main import main\n"
        "class Dying:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        self.after = 1\n"
        "def load(**options):\n"
        "    Dying()\n"
        "    raise OSError('the interrupt was lost')\n"
        "mtp_mlx.api.load = load\n"
        "main(['generate', 'sky'])"
    )
    result = process(PYTHON, "-c", code, text=True)
    assert result.returncode == 130
    assert result.stderr.split() == ["interrupted"]
