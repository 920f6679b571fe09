"""Tries strangers' schemas in a process of its own (check_worker.py) before they are used here."""

from mtp_mlx.constraint.limits import COMPILE_S
from mtp_mlx.errors import InvalidSchema
from mtp_mlx.helper import Helper, Overrun, Refused, lasting

WAIT_S = 20.0  # of a busy machine, for the processor time that is the limit


class Checker(Helper):
    """The process that compiles. Threads may share one."""

    def __init__(self) -> None:
        super().__init__("mtp_mlx.constraint.check_worker", "schemas", "llguidance", WAIT_S)

    def check(self, grammars: tuple[str, ...], param: str) -> str | None:
        """What is wrong with these, None where each compiles. Raises InvalidSchema over the limits,
        which says little of another time: the machine may have been busy."""
        try:
            self.ask({"grammars": grammars})
        except Refused as error:
            return f"the schema cannot be enforced: {error}"
        except Overrun as error:
            raise InvalidSchema(
                f"the schema takes more than {COMPILE_S:g} s or too much memory to compile; "
                "make it simpler",
                param=param,
            ) from error
        return None


CHECKER = lasting(Checker())
