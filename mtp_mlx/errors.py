"""Everything a user can cause, as one tree of exceptions.

MtpError                        a fault with a clear line: what, where, what to do
├── CheckpointError             the model files are damaged, incomplete or unsupported
│   ├── ModelNotFound           there is no such model here
│   ├── UnsupportedModel        the files are fine, but of a kind this program does not run
│   └── DrafterMismatch         the drafter does not fit the target
├── DoesNotFit                  the memory plan exceeds this machine
├── RequestError                one request asks for something impossible
│   ├── ContextLengthExceeded   the prompt is longer than the context
│   ├── Unsupported             an option that cannot be honoured
│   └── InvalidSchema           a JSON schema that cannot be enforced
├── NumericalError              the target produced NaN or infinity for one row
├── TimedOut                    a reply was not complete at its deadline
└── EngineStopped               the engine is closed or has failed

Each class carries the HTTP `status`, the machine-readable `code` and the process `exit_code`
with which a server and the command line answer it.
"""

import traceback
from typing import TypeVar

Error = TypeVar("Error", bound=BaseException)


class MtpError(Exception):
    """Base of all errors that a user of this package can cause."""

    status = 500
    code = "internal"
    exit_code = 1


class CheckpointError(MtpError):
    """A checkpoint is damaged or incomplete; the message names file, key, expected and found."""

    status = 400
    code = "invalid_checkpoint"


class ModelNotFound(CheckpointError):
    """No model of that name or path is present."""

    status = 404
    code = "model_not_found"
    exit_code = 5


class UnsupportedModel(CheckpointError):
    """The model type or file format is not one this program runs; lists those it does."""

    code = "unsupported_model"
    exit_code = 2


class DrafterMismatch(CheckpointError):
    """Drafter and target do not belong together; the message names both values."""

    code = "drafter_mismatch"
    exit_code = 2


class DoesNotFit(MtpError):
    """The memory plan is larger than the budget of this machine."""

    status = 503
    code = "insufficient_memory"
    exit_code = 4


class RequestError(MtpError):
    """A request is invalid; `param` names the option at fault."""

    status = 400
    code = "invalid_value"
    exit_code = 2

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextLengthExceeded(RequestError):
    """The prompt does not leave room for one token; the message names both counts."""

    code = "context_length_exceeded"


class Unsupported(RequestError):
    """An option that exists elsewhere and cannot be honoured here."""

    code = "unsupported_parameter"


class InvalidSchema(RequestError):
    """A JSON schema is none, cannot be enforced, or takes too much; the message says what."""

    code = "invalid_schema"


class NumericalError(MtpError):
    """The target's hidden state or logits of a row are not finite; no token is made up."""

    code = "numerical_error"


class TimedOut(MtpError):
    """A reply was not complete within its `timeout`; its row was freed."""

    status = 408
    code = "timeout"


class EngineStopped(MtpError):
    """The engine is closed, or was stopped after a failure."""

    status = 503
    code = "engine_stopped"
    exit_code = 70


def contained(error: BaseException) -> Exception:
    """The error of one request, whose own code has raised `error`.

    A native library that panics raises what is no Exception and has no name to import. What comes
    from outside of the code is raised again.
    """
    if isinstance(error, Exception):
        return error
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        raise error
    found = MtpError(f"the request's own code broke down: {type(error).__name__}: {error}")
    found.__cause__ = error
    return found


def without_frames(error: Error) -> Error:
    """The same error, its traceback and those of its causes kept as notes, in words.

    For an error that is handed on: frames hold all that their functions used, the models too.
    """
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        left += (each.__cause__, each.__context__)
        if each.__traceback__ is not None:
            each.add_note("".join(traceback.format_tb(each.__traceback__)).rstrip())
            each.__traceback__ = None
    return error
