"""config.toml: what is accepted, what is refused with line and nearest key, how it is edited."""

import os
import tomllib
from pathlib import Path

import pytest

from mtp_mlx.errors import RequestError
from mtp_mlx.settings import KEYS, MODEL_KEYS, parse_settings, parse_value, read_settings
from mtp_mlx.settings_text import line_of, with_value, write_settings

PATH = Path("config.toml")
WHOLE = """
[defaults]
model = "work"  # mine
memory_limit = "70%"
max_num_seqs = 4

[sampling]
temperature = 0.5
top_k = 20

[models.work]
path = "some/folder"
draft = "none"

[models."a.b"]
alias = "e4b-4bit"

[ui]
color_drafts = false
"""


def test_a_whole_file():
    found = parse_settings(WHOLE, PATH)
    assert found.options() == {
        "model": "work",
        "memory_limit": "70%",
        "max_num_seqs": 4,
        "temperature": 0.5,
        "top_k": 20,
        "color_drafts": False,
    }
    assert (found.models["work"].target, found.models["work"].draft) == ("some/folder", "none")
    assert (found.models["a.b"].target, found.models["a.b"].draft) == ("e4b-4bit", None)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "[defaults]\nmodl = 'x'",
            "config.toml:2: defaults.modl is not known; did you mean model",
        ),
        (
            "[sampling]\n\n temp=1",
            "config.toml:3: sampling.temp is not known; did you mean temperat",
        ),
        ("[smpling]\ntop_k = 1", "config.toml:1: smpling is not known; did you mean sampling?"),
        ("[defaults]\nhost = 'x'", "config.toml:2: defaults.host is not known; known are model, "),
        ("[ui]\ntheme = 'dark'", "config.toml:2: ui.theme is not known"),
        ("defaults.port = 1", "config.toml:1: defaults.port is not known"),
        ("seed = 1", "config.toml:1: seed is not known"),
        ("sampling = 1", "config.toml:1: sampling must be a section, found 1"),
        ("[defaults]\nmodel = 3", "config.toml:2: defaults.model must be a text, found 3"),
        ("[defaults]\nmodel = ''", "defaults.model must be a text, found ''"),
        ("[defaults]\nmemory_limit = 'much'", "memory_limit must be a size such as '12GB' or"),
        ("[defaults]\nmax_num_seqs = 65", "max_num_seqs must be an integer from 1 to 64, found 65"),
        ("[defaults]\nmax_num_seqs = true", "must be an integer from 1 to 64, found True"),
        ("[sampling]\ntop_p = nan", "top_p must be a number from 1e-06 to 1, found nan"),
        ("[ui]\ncolor_drafts = 'no'", "ui.color_drafts must be true or false, found 'no'"),
        ("[models.x]\ndraft = 'y'", "config.toml:1: models.x must be a section with path or alias"),
        ("[models.x]\npath = 'y'\nalias = 'z'", "path or alias, one of them"),
        (
            "[models]\nx = 1",
            "config.toml:2: models.x must be a section with path or alias, found 1",
        ),
        ("[models.x]\npth = 'y'", "config.toml:2: models.x.pth is not known; did you mean path?"),
        ("[defaults\n", "config.toml: not valid TOML: "),
        ("[ui]\ncolor_drafts = no\n", "line 2"),
        ("a = " + "[" * 20_000, "not valid TOML"),
        ("[sampling]\nseed = " + "9" * 5000, "config.toml: not valid TOML: "),
        ("[sampling]\nseed = 0x" + "f" * 5000, "found an integer of 20000 bits"),
    ],
)
def test_what_is_wrong_is_one_line_that_says_where(text, complaint):
    with pytest.raises(RequestError) as caught:
        parse_settings(text, PATH)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(RequestError, match="there is no such settings file"):
        read_settings(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match="not UTF-8"):
        read_settings(tmp_path / "bytes.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(RequestError, match="at most 1,048,576 bytes"):
        read_settings(tmp_path / "large.toml")
    with pytest.raises(RequestError, match="no such settings file"):
        read_settings(tmp_path)


def test_no_file_is_no_setting(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_settings(None).options() == {}


def test_a_home_that_may_not_be_entered_has_no_settings(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.delenv("MTP_MLX_CONFIG", raising=False)
    monkeypatch.setattr(os, "stat", refuse)
    assert read_settings(None).options() == {}


def test_lines():
    assert line_of(WHOLE, ("defaults", "model")) == 3
    assert line_of(WHOLE, ("models", "a.b", "alias")) == 16
    assert line_of(WHOLE, ("models", "work")) == 11
    assert line_of(WHOLE, ("models", "nobody")) is None


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("defaults", "model"), 'a "b" \\ c'),
        (("defaults", "draft_model"), "none"),
        (("sampling", "seed"), 7),
        (("ui", "color_drafts"), True),
        (("models", "new one", "alias"), "12b-4bit"),
        (("models", "a.b", "draft"), "ünï"),
    ],
)
@pytest.mark.parametrize("text", ["", WHOLE, "# only a remark"])
def test_a_key_is_set_and_all_else_stays(text, keys, value):
    before, after = tomllib.loads(text), tomllib.loads(with_value(text, keys, value))
    place = before
    for key in keys[:-1]:
        place = place.setdefault(key, {})
    place[keys[-1]] = value
    assert after == before
    assert ("# mine" in with_value(text, keys, value)) == ("# mine" in text and "model" not in keys)


@pytest.mark.parametrize("text", ["defaults = {model = 'x'}", "[defaults]\nmodel = '''\nx'''"])
def test_what_cannot_be_edited_is_left_to_the_user(text):
    with pytest.raises(RequestError, match=r'edit the file by hand: model = "y"'):
        with_value(text, ("defaults", "model"), "y")


@pytest.mark.parametrize(
    ("keys", "typed", "value"),
    [
        (("sampling", "temperature"), "0.7", 0.7),
        (("sampling", "temperature"), "1", 1),
        (("sampling", "top_k"), "40", 40),
        (("defaults", "memory_limit"), "70%", "70%"),
        (("defaults", "memory_limit"), "1000000000", 10**9),
        (("ui", "color_drafts"), "false", False),
        (("models", "12", "alias"), "31b", "31b"),
    ],
)
def test_values_as_they_are_typed(keys, typed, value):
    found = parse_value(keys, typed)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("keys", "typed", "complaint"),
    [
        (("sampling", "top_k"), "4.5", "must be an integer"),
        (("sampling", "temperature"), "nan", "must be a number"),
        (("ui", "color_drafts"), "1", "must be true or false"),
        (("sampling", "topk"), "4", "did you mean sampling.top_k"),
        (("models", "x", "folder"), "y", "models.NAME."),
        (("models", "path"), "y", "is not known"),
        (("port", ""), "1", "is not known"),
    ],
)
def test_values_that_are_refused(keys, typed, complaint):
    with pytest.raises(RequestError, match=complaint):
        parse_value(keys, typed)


def test_a_file_is_written_whole_and_through_a_link(tmp_path):
    real, link = tmp_path / "real.toml", tmp_path / "deep" / "link.toml"
    link.parent.mkdir()
    real.write_text("old")
    link.symlink_to(real)
    write_settings(link, "new")
    assert (real.read_text(), link.is_symlink()) == ("new", True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "real.toml"]


def test_every_key_is_one_that_a_command_has():
    from mtp_mlx.cli.generate import command

    names = {param.name for param in command.params}
    assert {key for section in KEYS.values() for key in section} <= names
    assert set(MODEL_KEYS) == {"path", "alias", "draft"}
