"""`mtp-mlx serve SCRIPT` with a child that acts a script (see scripted_child.py), in place of a
model: `python -m tests.server.scripted_serve serve "ready serve" --port 0`."""

import sys
from functools import partial

from mtp_mlx.cli import serve
from mtp_mlx.cli.main import main
from mtp_mlx.server.process.parent import Parent

if __name__ == "__main__":
    child = (sys.executable, "-m", "tests.server.scripted_child")
    serve.Parent = partial(Parent, command=child)
    main(sys.argv[1:])
