"""The process behind chat templates: it starts, answers, dies and ends without a trace."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from mtp_mlx import helper
from mtp_mlx.errors import MtpError
from mtp_mlx.helper import Overrun, Refused
from mtp_mlx.text.renderer import Renderer
from tests.interrupts import heed_interrupts

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
WAIT_S = 30.0  # of a busy machine, for what an idle one does at once
# A script that says which process renders for it, and then does what its caller appends.
SCRIPT = """
import os, sys, time
from mtp_mlx.helper import Overrun
from mtp_mlx.text.renderer import RENDERER
RENDERER.compile("a")
print(RENDERER._process.pid, flush=True)
"""


@pytest.fixture
def own():
    """A renderer of its own, closed afterwards."""
    made = Renderer()
    yield made
    made.close()


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not yet asked how does not."""
    return state_of(pid) not in ("", "Z")


def state_of(pid: int) -> str:
    """R for a process that computes, S for one that waits, Z for one that has ended, or none."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return found.stdout.strip()[:1]


def waits_for(holds: Callable[[], bool]) -> bool:
    """Whether a condition comes true in time."""
    limit = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() > limit:
            return False
        time.sleep(0.05)
    return True


def has_ended(pid: int) -> bool:
    """Waits until a process has ended."""
    return waits_for(lambda: not is_running(pid))


def pid_of(own: Renderer) -> int:
    assert own._process is not None
    return own._process.pid


def test_it_starts_when_needed_or_early_and_stays(own):
    assert own._process is None
    own.start()
    pid = pid_of(own)
    own.start()
    assert own.render("{{ a }}", {"a": "b"}) == "b"
    assert own.render("{{ a | upper }}", {"a": "b"}) == "B"
    assert pid_of(own) == pid


def test_it_ends_when_closed_and_starts_again(own):
    own.close()
    own.compile("a")
    pid = pid_of(own)
    own.close()
    assert own._process is None
    assert not is_running(pid)
    assert own.render("a", {}) == "a"


@pytest.mark.parametrize(
    "value",
    ["\ud800", "a\u2028\x00\n\r\"\\", "\U000f0000é", 1.5, float("inf"), -(2**70), None, True,
     {"b": [1, {"a": []}], "a": 2}],
    ids=ascii,
)  # fmt: skip
def test_values_arrive_as_they_are(own, value):
    assert own.render("{{ a }}", {"a": value}) == str(value)


def test_threads_take_turns(own):
    found: dict[int, list[str]] = {}

    def ask(number: int) -> None:
        found[number] = [own.render("{{ a }}/{{ b }}", {"a": number, "b": i}) for i in range(20)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [f"{number}/{i}" for i in range(20)] for number in range(6)}


def test_more_templates_than_it_remembers(own):
    for _ in range(2):
        for number in range(12):
            assert own.render(f"{number} {{{{ a }}}}", {"a": "b"}) == f"{number} b"


def test_a_killed_process_is_replaced(own):
    own.compile("a")
    pid = pid_of(own)
    os.kill(pid, signal.SIGKILL)
    assert has_ended(pid)
    assert own.render("a", {}) == "a"
    assert pid_of(own) != pid


def test_a_process_that_dies_while_it_renders_is_an_overrun(own):
    own.compile(ENDLESS)
    killer = threading.Timer(0.3, os.kill, (pid_of(own), signal.SIGSEGV))
    killer.start()
    with pytest.raises(Overrun, match="ended its process, with status -11"):
        own.render(ENDLESS, {})
    killer.join()
    assert own.render("a", {}) == "a"


def test_a_process_that_does_not_read_is_ended(own, monkeypatch):
    own.compile("a")
    monkeypatch.setattr(own, "_limit_s", 0.3)
    pid = pid_of(own)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(Overrun, match=r"ran longer than 0\.3 s"):
        own.render("{{ a }}", {"a": "a" * (4 << 20)})
    assert not is_running(pid)
    monkeypatch.undo()
    assert own.render("a", {}) == "a"


def test_what_is_no_template_or_no_json_is_refused_by_the_same_process(own):
    own.compile("a")
    pid = pid_of(own)
    with pytest.raises(Refused, match="unexpected"):
        own.compile("{{ }")
    with pytest.raises(Refused, match="no JSON"):
        own.render("a", {"a": object()})
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Refused, match="no JSON"):
        own.render("a", {"a": deep})
    assert pid_of(own) == pid


@pytest.mark.parametrize("answer", ["garbage", "[" * 100_000, "[1]", '{"text": 5}', '{"no": ""}'])
def test_an_answer_that_is_none_is_an_overrun(own, monkeypatch, answer):
    monkeypatch.setattr(helper, "BOOT", f"import sys\nprint('{{}}', flush=True)\nfor line in "
                        f"sys.stdin: print({answer!r}, flush=True)")  # fmt: skip
    with pytest.raises(Overrun, match="gave no answer that can be read"):
        own.render("a", {})
    assert own._process is None


def test_an_answer_without_end_is_cut_off(own, monkeypatch):
    monkeypatch.setattr(helper, "ANSWER_LIMIT_BYTES", 1000)
    own.compile("a")
    with pytest.raises(Overrun, match="ended its process"):
        own.render("{{ 'a' * 2000 }}", {})
    assert own._process is None


def test_a_process_that_cannot_start_is_an_error_that_says_so(own, monkeypatch):
    monkeypatch.setattr(helper, "BOOT", "raise SystemExit(3)")
    with pytest.raises(MtpError, match=r"did not start: .*status 3; check that .* jinja2"):
        own.render("a", {})
    monkeypatch.setattr(helper, "BOOT", "import time; time.sleep(60)")
    monkeypatch.setattr(helper, "START_LIMIT_S", 0.3)
    with pytest.raises(MtpError, match=r"did not start: it ran longer than 0\.3 s"):
        own.render("a", {})
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(MtpError, match=r"cannot be started: .*no/such/python"):
        own.start()
    monkeypatch.undo()
    assert own.render("a", {}) == "a"


def test_it_gets_no_open_file_of_its_parent(own):
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    own.compile("a")
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], WAIT_S)
    assert ready and os.read(reading, 1) == b""
    os.close(reading)


def test_memory_is_bounded_where_the_system_bounds_none():
    code = """
import resource, sys
def refuse(kind, limits):
    if kind != resource.RLIMIT_CORE:
        raise ValueError("current limit exceeds maximum limit")
resource.setrlimit = refuse
from mtp_mlx.text import render_worker
render_worker.ALARM_S = 60  # of the memory this is, not of a busy machine's time
render_worker.main()
"""
    hoard = (
        "{% set kept = namespace(all=[]) %}{% for i in range(300) %}"
        "{% set kept.all = kept.all + ['a' * 10000000 ~ i] %}{% endfor %}"
    )
    requests = [{"source": source, "values": {}} for source in ("a", hoard, "b")]
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    result = subprocess.run(
        [sys.executable, "-c", code], input=lines, capture_output=True, text=True, timeout=60
    )
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    overrun = {"overrun": "needs more than 256 MiB of memory"}
    assert answers == [{"text": ""}, {"text": "a"}, overrun]


def test_it_imports_jinja_and_nothing_heavy_and_its_parent_no_jinja():
    heavy = {"mlx", "numpy", "tokenizers", "mtp_mlx.text.template"}
    for module, absent in (
        ("mtp_mlx.text.render_worker", heavy),
        ("mtp_mlx.text.template", {"jinja2", "mlx", "numpy"}),
    ):
        code = f"import sys, {module}; print(*{absent!r} & sys.modules.keys())"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (result.stdout, result.stderr) == ("\n", "")


# --- the parent's life -------------------------------------------------------------------------


def run_script(ending: str, *, shell: str = "", group: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", SCRIPT + ending]
    if shell:
        command = ["/bin/sh", "-c", shell, *command]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=group,
        preexec_fn=heed_interrupts,
    )


def line_of(parent: subprocess.Popen[str]) -> str:
    """Its next line, and no byte more: what a buffered read takes, `communicate` never sees."""
    assert parent.stdout is not None
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(parent.stdout.fileno(), 1)):
        line += byte
    return line.decode()


def worker_of(parent: subprocess.Popen[str]) -> int:
    return int(line_of(parent))


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise KeyboardInterrupt"])
def test_it_ends_when_its_parent_exits(ending):
    with run_script(ending) as parent:
        worker = worker_of(parent)
        _, errors = parent.communicate(timeout=WAIT_S)
    assert not is_running(worker)
    assert "ResourceWarning" not in errors
    assert ("Traceback" in errors) == (ending == "raise KeyboardInterrupt")


@pytest.mark.parametrize("ending", ["time.sleep(99)", f"RENDERER.render({ENDLESS!r}, {{}})"])
def test_it_ends_when_its_parent_is_killed(ending):
    with run_script(ending) as parent:
        worker = worker_of(parent)
        time.sleep(0.3)
        parent.kill()
    assert has_ended(worker)


def test_an_interrupt_reaches_the_parent_alone():
    ending = (
        f"try: print('rendering', flush=True); RENDERER.render({ENDLESS!r}, {{}})\n"
        "except KeyboardInterrupt: print('interrupted', RENDERER._process)\n"
        "print(RENDERER.render('again', {}))"
    )
    with run_script(ending, group=True) as parent:
        worker = worker_of(parent)
        assert line_of(parent) == "rendering\n"
        assert waits_for(lambda: state_of(worker) == "R")
        os.killpg(parent.pid, signal.SIGINT)
        output, errors = parent.communicate(timeout=WAIT_S)
    assert (output, errors) == ("interrupted None\nagain\n", "")
    assert not is_running(worker)


def test_an_interrupt_between_two_chats_does_not_end_it():
    ending = (
        "try: time.sleep(99)\n"
        "except KeyboardInterrupt: pass\n"
        "time.sleep(0.2)\n"
        "print(RENDERER.render('again', {}), RENDERER._process.pid)"
    )
    with run_script(ending, group=True) as parent:
        worker = worker_of(parent)
        time.sleep(0.2)
        os.killpg(parent.pid, signal.SIGINT)
        output, errors = parent.communicate(timeout=WAIT_S)
    assert (output, errors) == (f"again {worker}\n", "")


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_it_runs_where_standard_files_are_closed(closed):
    ending = "print(RENDERER.render('{{ a }}', {'a': 'b'}))"
    with run_script(ending, shell=f'exec "$0" "$@" {closed}') as parent:
        worker = worker_of(parent)
        output, _ = parent.communicate(timeout=WAIT_S)
    assert output == "b\n"
    assert not is_running(worker)


def test_a_fork_asks_a_process_of_its_own():
    ending = (
        "mine = RENDERER._process.pid\n"
        "forked = os.fork()\n"
        "text = RENDERER.render('{{ a }}', {'a': forked == 0})\n"
        "if forked == 0: os._exit(10 * (text == 'True') + (RENDERER._process.pid != mine))\n"
        "print(text, os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]))\n"
        "print(RENDERER.render('still', {}), RENDERER._process.pid == mine)"
    )
    with run_script(ending) as parent:
        worker = worker_of(parent)
        output, errors = parent.communicate(timeout=WAIT_S)
    assert (output, errors) == ("False 11\nstill True\n", "")
    assert not is_running(worker)
