"""Asks a process of its own (render_worker.py) to run chat templates, one chat at a time.

An Overrun's message continues "the chat template".
"""

from typing import Any

from mtp_mlx.helper import Helper, lasting

TIME_LIMIT_S = 2.0


class Renderer(Helper):
    """The process that renders. Threads may share one."""

    def __init__(self) -> None:
        super().__init__("mtp_mlx.text.render_worker", "chat templates", "jinja2", TIME_LIMIT_S)

    def compile(self, source: str) -> None:
        """Check a template. Raises Refused for what is none, and as `ask` does."""
        self.ask({"source": source, "values": None})

    def render(self, source: str, values: dict[str, Any]) -> str:
        """What a template writes, given JSON values. Raises Refused where it refuses them, and as
        `ask` does."""
        return self.ask({"source": source, "values": values})


RENDERER = lasting(Renderer())
