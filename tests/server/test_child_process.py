"""What the engine's process does with what it was given: its sockets, its orders, its exit code."""

import os
import signal
import socket
import sys
from types import SimpleNamespace

import pytest

from mtp_mlx.errors import EngineStopped
from mtp_mlx.server.process import child as module
from mtp_mlx.server.process.child import Child
from mtp_mlx.server.process.launch import Launch, Order, order_line


class Left(BaseException):
    """The process would have ended here, with this code."""


@pytest.fixture(autouse=True)
def stays(monkeypatch):
    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(module, "LEAVE_S", 0.001)


@pytest.fixture
def main(monkeypatch):
    """Runs a child's `main` in this process, with this in place of its work."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(module.faulthandler, "enable", lambda: None)
    monkeypatch.setattr(module, "configure", lambda *_, **__: None)
    (ours, control), listener = socket.socketpair(), socket.socket()
    numbers = control.detach(), listener.detach()
    for number in numbers:
        os.set_inheritable(number, True)  # as those are that a parent passes
    monkeypatch.setattr(sys, "argv", ["child", *map(str, numbers)])
    opened = [ours]

    def run(work) -> None:
        def serve(child: Child) -> None:
            opened.extend((child._lines, child._control, child._listener))
            work(*numbers)

        monkeypatch.setattr(Child, "serve", serve)
        ours.sendall(Launch(loading={}).line())
        module.main()

    yield run
    for each in opened:
        each.close()


def test_no_program_that_it_starts_gets_its_sockets(main):
    """MLX runs a compiler: should that outlive it, the pipe would not end with it."""
    seen = []
    main(lambda *numbers: seen.extend(map(os.get_inheritable, numbers)))
    assert seen == [False, False]


def test_an_engine_that_has_ended_ends_its_process_whatever_its_threads_do(main):
    def work(*_):
        raise EngineStopped("cosmic ray")

    with pytest.raises(Left) as left:
        main(work)
    assert left.value.args == (EngineStopped.exit_code,)


@pytest.mark.parametrize("sent", [b"", b'{"ord', order_line(Order.STOP), None])
def test_it_stops_with_its_parent_however_that_ends(sent):
    """None: killed while it had not read what was sent to it, which resets the pipe."""
    parent, control = socket.socketpair()
    stops = []
    with control, control.makefile("rb") as lines:
        child = Child(Launch(loading={}), control, lines, control)
        child._server = SimpleNamespace(stop=lambda: stops.append(1))
        if sent is None:
            control.sendall(b"ready")
        else:
            parent.sendall(sent)
        parent.close()
        with pytest.raises(Left) as left:
            child._obey()
    assert (left.value.args, stops) == ((0,), [1])
