"""`mtp-mlx serve` whose engine fails in every step: the parent, and by a second name its child."""

import sys
from functools import partial

from mtp_mlx.cli import serve
from mtp_mlx.cli.main import main
from mtp_mlx.engine.engine import Engine
from mtp_mlx.server.process import child
from mtp_mlx.server.process.parent import Parent

AS_CHILD = "as-child"


def fail(engine: Engine) -> None:
    raise ArithmeticError("cosmic ray")


if __name__ == "__main__":
    if sys.argv[1] == AS_CHILD:
        del sys.argv[1]
        Engine.step = fail
        child.main()
    else:
        command = (sys.executable, "-m", "tests.server.failing_serve", AS_CHILD)
        serve.Parent = partial(Parent, command=command)
        main(sys.argv[1:])
