"""The command line, for the rows that a user meets there."""

from tests.cli.conftest import cli

__all__ = ["cli"]
