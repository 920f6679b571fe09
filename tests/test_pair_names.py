"""Names of the published pairs, read in one way wherever a name is given."""

import tomllib

import pytest

from mtp_mlx.hub.names import TABLE, alias_of
from mtp_mlx.pair_names import SIZES, spelled, unconverted
from mtp_mlx.shapes import published

SUFFIXES = tomllib.loads(TABLE.read_text())["suffixes"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_the_table_of_short_names_offers_is_understood_everywhere(suffix):
    for size in SIZES:
        name = f"gemma-4-{size.upper()}-it-{suffix}"
        assert spelled(name) == (size, suffix)
        assert unconverted(name) == f"gemma-4-{size.upper()}-it"
        assert published(name).name == alias_of(name).name == f"{size}-{suffix}"


@pytest.mark.parametrize(
    "name", ["", "e4b-", "-4bit", "e5b", "gemma-4", "e4b 4bit", "e4b-İt", "e4b\n"]
)
def test_what_is_no_name_of_a_pair(name):
    assert spelled(name) is None or published(name) is None
    assert alias_of(name) is None


@pytest.mark.parametrize("name", ["mine", "4bit", "mine-4bits", "mine-4bit-assistant", "mine-٤bit"])
def test_names_that_converters_did_not_make_stay(name):
    assert unconverted(name) == name
