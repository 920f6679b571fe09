"""A child without a model, for tests of its parent: does what its script, the model's name, says.

`sleep=S` · `say=TEXT` · `fill=N` says N characters · `fail` does not load · `abort` · `once=FILE` goes on in the first child alone, later ones
abort · `ready` serves · `serve=S` ends S seconds
after it was told to drain, at once when told to stop · `stuck` does not end.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

from mtp_mlx.errors import DoesNotFit
from mtp_mlx.server.launch import Failed, Launch, Order, Ready, read_order


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    listener = socket.socket(fileno=int(sys.argv[2]))
    lines = control.makefile("rb")
    launch = Launch.of(lines.readline())
    for word in launch.loading["model"].split():
        _do(word, control, listener, lines)


def _do(word: str, control: socket.socket, listener: socket.socket, lines) -> None:
    match word.partition("="):
        case ["sleep", _, seconds]:
            time.sleep(float(seconds))
        case ["say", _, text]:
            print(text, flush=True)
        case ["fill", _, count]:
            print("x" * int(count), flush=True)
        case ["fail", _, _]:
            error = DoesNotFit("it takes 9 GB, and 1 GB is free")
            control.sendall(Failed.of(error).line())
            os._exit(error.exit_code)
        case ["abort", _, _]:
            os.abort()
        case ["once", _, path]:
            if Path(path).exists():
                os.abort()
            Path(path).touch()
        case ["ready", _, _]:
            threading.Thread(target=_serve, args=(listener,), daemon=True).start()
            control.sendall(Ready("scripted", None).line())
        case ["serve", _, drain_s]:
            if read_order(lines.readline()) is Order.DRAIN:
                listener.close()
                time.sleep(float(drain_s or 0))
            os._exit(0)
        case ["stuck", _, _]:
            time.sleep(1000)
        case unknown:
            raise ValueError(unknown)


def _serve(listener: socket.socket) -> None:
    """Answer every connection with the process's number."""
    listener.setblocking(True)
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            connection.recv(1 << 16)
            body = json.dumps({"pid": os.getpid()}).encode()
            head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)


if __name__ == "__main__":
    main()
