"""A8: JSON files that are none, or none that a reader should trust."""

from pathlib import Path

import pytest

from tests.bad_input.faults import Damage, Fault, check, each

CONTENTS: list[tuple[str, bytes, str]] = [
    ("empty", b"", "not valid JSON"),
    ("words", b"hello", "not valid JSON"),
    ("half", b'{"model_type": "gem', "not valid JSON"),
    ("array", b"[1, 2]", "expected a JSON object, found list"),
    ("null", b"null", "expected a JSON object, found NoneType"),
    ("nan", b'{"rms_norm_eps": NaN}', "'NaN' is not finite"),
    ("infinity", b'{"rms_norm_eps": -Infinity}', "'-Infinity' is not finite"),
    ("1e999", b'{"rms_norm_eps": 1e999}', "'1e999' is not finite"),
    ("5000_digits", b'{"a": ' + b"7" * 5000 + b"}", "an integer of 5,000 digits"),
    ("deep", b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested deeper than 64 levels"),
    ("twice", b'{"a": 1, "a": 2}', "duplicate key 'a'"),
    ("not_utf8", b'{"a": "\xff"}', "not valid JSON"),
    ("utf16", '{"a": 1}'.encode("utf-16"), "not valid JSON"),
    ("zeros", bytes(100), "not valid JSON"),
    ("17_mib", b'{"a": "' + b"x" * (17 << 20) + b'"}', "expected at most 16,777,216 bytes"),
]
CONFIG, GENERATION = "config.json", "generation_config.json"


def written(role: str, name: str, content: bytes) -> Damage:
    def damage(target: Path, drafter: Path) -> None:
        ({"target": target, "drafter": drafter}[role] / name).write_bytes(content)

    return damage


def faults(role: str, name: str) -> list[Fault]:
    return [Fault(case, written(role, name, text), (name, said)) for case, text, said in CONTENTS]


@each(faults("target", CONFIG))
def test_a_config_that_is_no_json_is_refused(fault, tmp_path):
    check(fault, tmp_path)


@each(faults("drafter", CONFIG))
def test_a_config_of_the_drafter_that_is_no_json_is_refused(fault, tmp_path):
    check(fault, tmp_path)


@each(faults("target", GENERATION))
def test_a_generation_config_that_is_no_json_is_refused(fault, tmp_path):
    check(fault, tmp_path)


@each(faults("target", "tokenizer_config.json"))
def test_a_tokenizer_config_that_is_no_json_is_refused(fault, tmp_path):
    check(fault, tmp_path)


@pytest.mark.parametrize("role", ["target", "drafter"])
@pytest.mark.parametrize("is_folder", [True, False])
def test_a_config_that_is_no_file_is_refused(role, is_folder, tmp_path):
    def damage(target: Path, drafter: Path) -> None:
        path = {"target": target, "drafter": drafter}[role] / CONFIG
        path.unlink()
        if is_folder:
            path.mkdir()

    said = "regular file" if is_folder else "No such file"
    check(Fault("no_file", damage, (CONFIG, said)), tmp_path)
