"""The tests of the round see what they are for: each fault of `mutants` fails a named one."""

import pytest

from tests.law.mutants import MUTANTS, Mutant, death


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_named_test_fails_under_the_mutant(mutant: Mutant) -> None:
    assert death(mutant) is not None, f"{mutant.killer.__name__} does not see {mutant.name}"


def test_every_killer_is_a_test_of_its_own() -> None:
    """It runs on the real code as well, where it passes."""
    for mutant in MUTANTS:
        assert mutant.killer.__name__.startswith("test_")
        assert mutant.killer.__module__.startswith("tests.")
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
