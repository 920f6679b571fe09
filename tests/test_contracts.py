"""Promises about the package as a whole: what it imports, how it is written, how often it waits."""

import ast
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest

import mtp_mlx
from mtp_mlx.engine import constraints, engine, round
from mtp_mlx.engine.engine import Engine
from mtp_mlx.model import backend
from mtp_mlx.request import Request, Sampling, Tokens
from tests.api_pairs import engine_of, folders, loaded, prompt_ids, scripted
from tests.constraints import Steps
from tests.exact.pairs import golden_pair
from tests.oracle import agreeing

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "mtp_mlx").rglob("*.py"))
MAX_LINES = 400
# Only here do values leave the device.
HOST_READS = {"model/backend.py"}
# The Rust tokenizer raises plain Exception and nameless panics; `load` closes what it began. A
# request's own stop test or constraint ends its row, and a failed step its jobs, whatever was
# raised. The server answers every fault, and those of its own as one.
BROAD_EXCEPTS = {
    "text/tokenizer.py",
    "api.py",
    "engine/engine.py",
    "engine/constraints.py",
    "reference/runtime.py",
    "worker.py",
    "server/http/shell.py",
}
HEAVY = (
    *("mlx", "numpy", "tokenizers", "jinja2", "mlx_lm", "transformers", "torch"),
    *("rich", "prompt_toolkit", "markdown_it", "huggingface_hub", "llguidance"),
)
FOREIGN = ("mlx_lm", "transformers", "torch", "safetensors")
HELP_S = 0.15
# Spelled in parts, so that this file passes its own test.
FORBIDDEN_TEXT = ("/wo" + "rk/", "/home" + "/", "/Us" + "ers/", "python" + "hosted.org")
PYTHON = sys.executable


def run(code: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [PYTHON, "-c", code, *arguments], capture_output=True, text=True, timeout=100
    )


def imported_by(code: str, names: tuple[str, ...], *arguments: str) -> set[str]:
    """Which of `names` a new process has imported after `code`."""
    ending = f"import sys; print('IMPORTED', *({names!r} & sys.modules.keys()))".replace(
        repr(names), f"set({names!r})"
    )
    result = run(f"{code}\n{ending}", *arguments)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split()[1:])


# --- imports -----------------------------------------------------------------------------------


def test_importing_the_package_imports_nothing_heavy():
    assert imported_by("import mtp_mlx", HEAVY) == set()


LIGHT = (
    *("--help", "--version", "chat --help", "generate --help", "demo --help", "tune --help"),
    *("completion zsh", "pull --help", "ls --help", "rm --help", "show --help", "ls"),
    *("convert --help", "fit --help", "doctor --help", "config --help", "serve --help"),
    "bench --help",
)


@pytest.mark.parametrize("arguments", LIGHT)
def test_help_imports_nothing_heavy(arguments):
    arguments = arguments.split()
    code = (
        "from mtp_mlx.cli.main import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as left: assert left.code == 0"
    )
    assert imported_by(code, HEAVY) == set()


@pytest.mark.parametrize("variant", ["e2b", "26b"])
def test_from_load_to_reply_no_foreign_framework_is_imported(variant):
    code = (
        "import sys, mtp_mlx\n"
        "with mtp_mlx.load(sys.argv[1], draft_model=sys.argv[2]) as llm:\n"
        "    llm.chat([{'role': 'user', 'content': 'sky'}], max_tokens=4)\n"
        "    llm.generate('sky', max_tokens=4)\n"
        "    llm.propose([2, 9], 2)\n"
        "    llm.logits([2, 9])"
    )
    assert imported_by(code, FOREIGN, *map(str, folders(variant))) == set()


def test_help_costs_little_more_than_python_and_click():
    commands = ([PYTHON, "-m", "mtp_mlx", "--help"], [PYTHON, "-c", "import click"])
    for command in commands:  # fills the caches of bytecode and disk
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    for _ in range(3):  # a busy machine may spoil a measurement
        times: list[list[float]] = [[], []]
        for _ in range(7):
            for command, taken in zip(commands, times, strict=True):
                start = time.perf_counter()
                subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
                taken.append(time.perf_counter() - start)
        extra = statistics.median(times[0]) - statistics.median(times[1])
        if extra <= HELP_S:
            return
    raise AssertionError(f"--help takes {extra:.3f} s more than python and click")


# A finder that stands in front of all others and knows no MLX.
BLOCK_MLX = """
import sys
class NoMlx:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'mlx':
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NoMlx())
"""


def test_without_mlx_the_numpy_backend_generates():
    code = BLOCK_MLX + (
        "import mtp_mlx\n"
        "with mtp_mlx.load(sys.argv[1], draft_model=sys.argv[2], backend='numpy') as llm:\n"
        "    print(*llm.generate([2, 9], temperature=0, max_tokens=4).token_ids)"
    )
    result = run(code, *map(str, folders()))
    assert result.returncode == 0, result.stderr
    expected = loaded().generate([2, 9], temperature=0, max_tokens=4).token_ids
    assert tuple(map(int, result.stdout.split())) == expected


def test_without_mlx_one_line_names_the_extras():
    code = BLOCK_MLX + "from mtp_mlx.cli.main import main; main(sys.argv[1:])"
    target, drafter = map(str, folders())
    result = run(code, "generate", "sky", "--model", target, "--draft-model", drafter)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    for word in ("mtp-mlx[cpu]", "mtp-mlx[cuda]", "numpy"):
        assert word in result.stderr


# --- the source ----------------------------------------------------------------------------------


def places(kind: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Every node of a kind in the package, with the file it is in."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kind):
                yield path.relative_to(ROOT / "mtp_mlx").as_posix(), node


def called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Name):
        return node.func.id
    return node.func.attr if isinstance(node.func, ast.Attribute) else ""


def test_values_leave_the_device_in_one_place():
    readers = {file for file, node in places(ast.Call) if called(node) in ("item", "tolist")}
    assert readers <= HOST_READS


def test_attributes_are_read_by_name_and_never_probed():
    probes = ("getattr", "hasattr", "setattr", "delattr")
    assert [file for file, node in places(ast.Call) if called(node) in probes] == []


def test_exceptions_are_caught_by_kind():
    broad = set()
    for file, node in places(ast.ExceptHandler):
        caught = ast.unparse(node.type) if node.type is not None else "BaseException"
        if caught in ("Exception", "BaseException"):
            broad.add(file)
    assert broad <= BROAD_EXCEPTS


def test_no_module_holds_an_array_or_a_seed():
    """No variable of a module is made by a call of MLX, but for what `compiled` gives, which makes
    nothing before its first call."""
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                calls = [each for each in ast.walk(node.value) if isinstance(each, ast.Call)]
                made = [ast.unparse(call.func) for call in calls]
                assert not [name for name in made if name.startswith("mx.")], path
                assert not re.search(r"\bmx\.(random|stream)", ast.unparse(node.value)), path


def test_every_file_of_the_package_is_short():
    lengths = {path.name: path.read_text(encoding="utf-8").count("\n") for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_no_tracked_file_names_a_machine_or_a_registry():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.suffix in (".npz", ".safetensors") or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found = [word for word in FORBIDDEN_TEXT if word in text]
        assert not found, f"{name} holds {found}"


# --- the round -----------------------------------------------------------------------------------


class Counter:
    """Counts the calls of a function and passes them on."""

    def __init__(self, function) -> None:
        self.function = function
        self.calls = 0

    def __call__(self, *arguments):
        self.calls += 1
        return self.function(*arguments)


@pytest.mark.parametrize("drafts", [0, 3, 7])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_round_waits_for_the_device_once(monkeypatch, drafts, rows):
    options = {"temperature": 0.8, "seed": 3, "max_tokens": 9}
    full = [loaded().generate(prompt_ids()[: -row or None], **options) for row in range(rows)]
    llm = scripted([reply.token_ids for reply in full], agreeing(0.7, 4))
    llm._worker.call(lambda _, engine: make_rings(engine, rows))
    reads = Counter(backend.read_ints)
    monkeypatch.setattr(round, "read_ints", reads)
    evals = Counter(mx.eval)
    monkeypatch.setattr(mx, "eval", evals)
    prompts = [prompt_ids()[: -row or None] for row in range(rows)]
    each = [{"num_draft_tokens": drafts}] * rows
    running = engine_of(llm)
    steps = Counter(running.step)
    monkeypatch.setattr(running, "step", steps)
    in_rounds, reads_in_rounds = [], []
    round_of = running._round

    def watched():
        before = evals.calls, reads.calls
        events = round_of()
        in_rounds.append(evals.calls - before[0])
        reads_in_rounds.append(reads.calls - before[1])
        return events

    monkeypatch.setattr(running, "_round", watched)
    replies = llm.batch(prompts, each=each, **options)
    assert [r.token_ids for r in replies] == [f.token_ids for f in full]
    assert not any(in_rounds)  # prompts may wait, for rings that move
    assert max(reads_in_rounds) == 1
    assert reads.calls - sum(reads_in_rounds) == rows  # the first token of each prompt
    assert max(r.spec.rounds for r in replies) <= sum(reads_in_rounds) <= steps.calls
    if rows == 1:
        assert sum(reads_in_rounds) == replies[0].spec.rounds


@pytest.mark.parametrize("drafts", [0, 3])
@pytest.mark.parametrize("kind", ["logprobs and penalties", "constraint"])
def test_only_a_constrained_row_with_drafts_waits_once_more(monkeypatch, drafts, kind):
    """A constraint must know the drafts before the target chooses; all else is one report."""
    pair = golden_pair("31b")
    engine = Engine(pair.target, pair.drafter, max_num_seqs=2)
    sampling = Sampling(frequency_penalty=1.0, repetition_penalty=1.2, logit_bias=((5, 1.0),))
    asked = Request(
        prompt=(2, 9), sampling=sampling, max_tokens=9, logprobs=5, num_draft_tokens=drafts
    )
    rows = [asked, replace(asked, constraint=Steps(2) if kind == "constraint" else None)]
    for row in rows:
        engine.submit(row)
    reports, asks = Counter(backend.read_ints), Counter(backend.read_ints)
    monkeypatch.setattr(round, "read_ints", reports)
    monkeypatch.setattr(constraints, "read_ints", asks)
    evals = Counter(mx.eval)
    num_rounds = drafting_rounds = 0
    while not engine.is_idle:
        engine._admit()
        before = reports.calls, asks.calls
        with monkeypatch.context() as patched:
            patched.setattr(mx, "eval", evals)
            tokens = [event for event in engine._round() if isinstance(event, Tokens)]
        is_asked = any(each.request_id == 2 and each.drafted for each in tokens)
        assert reports.calls - before[0] == bool(tokens)
        assert asks.calls - before[1] == (is_asked and kind == "constraint")
        num_rounds += bool(tokens)
        drafting_rounds += is_asked
        engine._prefill()
    assert evals.calls == 0
    assert num_rounds >= 2
    assert bool(drafting_rounds) == bool(drafts)


def make_rings(running: engine.Engine, rows: int) -> None:
    """Room for the rows: rings move once for a new slot, and that is waited for."""
    for ring in running.cache.window.values():
        ring.reserve(rows - 1, len(running.slots))


def test_version_is_that_of_the_metadata():
    from importlib.metadata import version

    assert version("mtp-mlx") == mtp_mlx.__version__
