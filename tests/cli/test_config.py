"""Where an option's value comes from: flag, environment, file, checkpoint, what is built in."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import platformdirs
import pytest

from mtp_mlx import api, doctor, estimate
from mtp_mlx.cli import chat, demo, generate, slash
from mtp_mlx.cli.main import main
from mtp_mlx.cli.options import Headed

IDS = ("--prompt-ids", "2,9", "-m", "2", "--json")


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Settings of this test's own."""
    path = tmp_path / "config.toml"
    path.write_text("")
    monkeypatch.setenv("MTP_MLX_CONFIG", str(path))
    return path


@pytest.fixture
def loads(monkeypatch) -> list[dict]:
    """What load() is called with."""
    calls: list[dict] = []
    real = api.load

    def load(model="tiny", **options):
        calls.append({"model": model, **options})
        return real("tiny", draft_model="none")

    monkeypatch.setattr(api, "load", load)
    return calls


def test_flag_then_environment_then_file_then_built_in(cli, file, loads, monkeypatch):
    cli("generate", *IDS)
    file.write_text('[defaults]\nmodel = "tiny-moe"\nmemory_limit = "3GB"\n')
    cli("generate", *IDS)
    monkeypatch.setenv("MTP_MLX_MEMORY_LIMIT", "2GB")
    cli("generate", *IDS)
    cli("generate", *IDS, "--memory-limit", "50%", "--model", "tiny")
    found = [(call["model"], call["memory_limit"]) for call in loads]
    assert found == [("tiny", None), ("tiny-moe", "3GB"), ("tiny-moe", "2GB"), ("tiny", "50%")]


def test_sampling_from_flag_environment_file_and_checkpoint(cli, file, monkeypatch):
    def ids(*options: str) -> list[int]:
        given = ("--seed", "5", "-m", "12", "--top-k", "0", "--top-p", "1", "--json")
        return cli("generate", "fox", "--ignore-chat-template", *given, *options).body["token_ids"]

    own, greedy, hot = ids(), ids("--temp", "0"), ids("--temp", "9")
    assert own != greedy != hot != own  # or nothing below shows anything
    file.write_text("[sampling]\ntemperature = 0\n")
    assert ids() == greedy
    monkeypatch.setenv("MTP_MLX_TEMP", "9")
    assert ids() == hot
    assert ids("--temp", "0") == greedy


@pytest.mark.parametrize("command", ["generate", "verify", "tune", "fit", "doctor"])
def test_a_name_of_the_users_own(cli, file, monkeypatch, command):
    loads = []

    def seen(model: str, draft_model: str, **options: object) -> None:
        loads.append((model, draft_model))
        raise ZeroDivisionError

    monkeypatch.setattr(estimate, "find_subject", seen)
    monkeypatch.setattr(doctor, "examine", seen)
    monkeypatch.setattr(api, "load", seen)
    work = '[models.work]\npath = "a/folder"\ndraft = "its/drafter"\n'
    file.write_text(f'{work}[defaults]\nmodel = "work"\n')
    for options in ((), ("--draft-model", "other")):
        with pytest.raises(ZeroDivisionError):
            main([command, *(("Hi",) if command == "generate" else ()), *options])
    assert loads == [("a/folder", "its/drafter"), ("a/folder", "other")]


@pytest.mark.parametrize("command", ["convert", "show"])
def test_a_name_of_the_users_own_for_files_alone(cli, file, tmp_path, command):
    file.write_text('[models.work]\nalias = "tiny"\ndraft = "none-such"\n')
    model = ("--hf-path", "work", "--mlx-path", tmp_path / "out")
    answer = cli(command, *(model if command == "convert" else ("work",)))
    assert answer.code == 5
    assert answer.err.startswith("mtp-mlx: none-such: no such model")


def test_another_model_in_a_chat_by_a_name_of_the_users_own(file, monkeypatch):
    file.write_text('[models.work]\nalias = "tiny-moe"\ndraft = "its/drafter"\n')
    found = []

    def seen(*pair: str) -> None:
        found.append(pair)
        raise ZeroDivisionError

    monkeypatch.setattr(slash, "find_pair", seen)
    given = ["tiny", "--draft-model", "tiny-assistant"]  # of the first model, not of the next
    with chat.command.make_context("chat", given):
        talk = SimpleNamespace(loading={"model": "tiny", "draft_model": "tiny-assistant"})
        for name in ("work", "tiny"):
            with pytest.raises(ZeroDivisionError):
                slash.obey(talk, "model", name)  # ty: ignore
        talk.loading["draft_model"] = "none"
        with pytest.raises(ZeroDivisionError):
            slash.obey(talk, "model", "work")  # ty: ignore
    assert found == [("tiny-moe", "its/drafter"), ("tiny", "auto"), ("tiny-moe", "none")]


def test_every_shared_option_of_replies_has_its_variable(cli, loads, monkeypatch):
    monkeypatch.setenv("MTP_MLX_CHECK_WEIGHTS", "1")
    cli("generate", *IDS)
    assert loads[0]["check_weights"] is True
    for name in ("MTP_MLX_THINK", "MTP_MLX_MEMORY_LIMIT"):
        monkeypatch.setenv(name, "perhaps")
        assert name in cli("generate", *IDS).err
        monkeypatch.delenv(name)
    headings = ("Model", "Sampling", "Thinking")
    bare = [
        param.name
        for command in (generate.command, chat.command)
        for param in command.params
        if isinstance(param, Headed) and param.heading in headings and param.envvar is None
    ]
    assert set(bare) == {"chat_template_args"}


def test_rows_and_colour_from_the_file(cli, file, loads, monkeypatch):
    seen = []
    monkeypatch.setattr(generate, "print_text", lambda *given, **_: seen.append(given[2]))
    file.write_text("[defaults]\nmax_num_seqs = 3\n[ui]\ncolor_drafts = false\n")
    cli("generate", "--prompt-ids", "2,9", "-m", "1", "-n", "5")
    cli(
        "generate",
        "--prompt-ids",
        "2,9",
        "-m",
        "1",
        "-n",
        "5",
        "--max-num-seqs",
        "2",
        "--color-drafts",
    )
    assert [call["max_num_seqs"] for call in loads] == [3, 2]
    assert [look.tints_drafts for look in seen] == [False, True]


def test_a_wrong_value_names_its_source(cli, file, monkeypatch):
    file.write_text("[sampling]\ntemperatre = 1\n")
    answer = cli("generate", "Hi")
    assert (answer.code, answer.out) == (2, "")
    assert (
        answer.err
        == f"mtp-mlx: {file}:2: sampling.temperatre is not known; did you mean temperature?\n"
    )
    file.write_text("")
    monkeypatch.setenv("MTP_MLX_TOP_K", "many")
    answer = cli("generate", "Hi")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "MTP_MLX_TOP_K" in answer.err
    answer = cli("generate", "Hi", "--top-k", "more")
    assert "--top-k" in answer.err and "MTP_MLX" not in answer.err


def test_a_file_that_is_named_must_be_there(cli, tmp_path):
    answer = cli("generate", "Hi", "--config", tmp_path / "none.toml")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "there is no such settings file" in answer.err


def test_a_user_without_a_home_has_no_settings_and_all_else_works(cli, monkeypatch):
    monkeypatch.delenv("MTP_MLX_CONFIG", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(platformdirs, "user_config_path", lambda *_, **__: Path("~/.config"))
    assert cli("generate", "--prompt-ids", "2,9", "-m", "1").code == 0
    assert cli("config", "show").code == 0
    for command in (("path",), ("set", "sampling.seed", "1")):
        answer = cli("config", *command)
        assert (answer.code, answer.out, "no home folder" in answer.err) == (2, "", True)


def test_help_reads_no_file(tmp_path):
    code = (
        "import sys\n"
        "from mtp_mlx.cli.main import main\n"
        "try: main(['generate', '--config', sys.argv[1], '--help'])\n"
        "except SystemExit as left: assert left.code == 0\n"
        "assert not {'tomllib', 'platformdirs', 'mtp_mlx.settings'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "none"], check=True, capture_output=True)


def test_show_says_where_each_value_comes_from(cli, file, monkeypatch):
    file.write_text(
        '[sampling]\ntop_k = 5\n[models.work]\nalias = "tiny"\n[defaults]\nmodel = "work"\n'
    )
    monkeypatch.setenv("MTP_MLX_TOP_P", "0.5")
    values = cli("config", "show", "--json").body["values"]
    origins = {key: found["origin"] for key, found in values.items()}
    assert origins["sampling.top_k"] == f"{file}:2"
    assert origins["models.work"] == f"{file}:3"
    assert origins["sampling.top_p"] == "MTP_MLX_TOP_P"
    assert origins["sampling.temperature"] == "generation_config of work"
    assert origins["defaults.max_num_seqs"] == "built-in"
    assert values["sampling.temperature"]["value"] == 1.0  # that of tiny
    lines = cli("config", "show", "--origin").out.splitlines()
    assert len(lines) == len(values)
    assert any(line.split() == ["sampling.top_k", "5", f"{file}:2"] for line in lines)
    assert str(file) not in cli("config", "show").out
    monkeypatch.setenv("MTP_MLX_MODEL", "absent")
    held = cli("config", "show", "--json").body["values"]["sampling.temperature"]
    assert held == {"value": None, "origin": "generation_config of absent, which is not here"}


def test_set_and_path(cli, file):
    assert cli("config", "path").out == f"{file}\n"
    for key, value in (
        ("defaults.model", "tiny-moe"),
        ("models.a.b.alias", "tiny"),
        ("ui.color_drafts", "false"),
    ):
        answer = cli("config", "set", key, value)
        assert (answer.code, answer.out) == (0, "")
    assert tomllib.loads(file.read_text()) == {
        "defaults": {"model": "tiny-moe"},
        "models": {"a.b": {"alias": "tiny"}},
        "ui": {"color_drafts": False},
    }
    before = file.read_text()
    for key, value in (("defaults.modelx", "x"), ("sampling.top_k", "x"), ("models.c.draft", "x")):
        answer = cli("config", "set", key, value)
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert file.read_text() == before


def test_json_of_a_fault(cli, file):
    file.write_text("[x]\n")
    answer = cli("config", "show", "--json")
    assert json.loads(answer.out)["error"]["param"] == "config"


def test_the_stronger_source_decides_between_a_drafter_and_none(cli, file, loads, monkeypatch):
    file.write_text('[defaults]\ndraft_model = "its/drafter"\n')
    cli("generate", *IDS)
    cli("generate", *IDS, "--no-draft")
    monkeypatch.setenv("MTP_MLX_NO_DRAFT", "1")
    cli("generate", *IDS)
    cli("generate", *IDS, "--draft-model", "other")
    assert [call["draft_model"] for call in loads] == ["its/drafter", "none", "none", "other"]
    monkeypatch.setenv("MTP_MLX_DRAFT_MODEL", "third")
    answer = cli("generate", *IDS)
    assert (answer.code, "contradict" in answer.err) == (2, True)


def test_stop_texts_of_the_environment_are_a_line_each(cli, monkeypatch):
    monkeypatch.setenv("MTP_MLX_STOP", "a b\nc")
    context = generate.command.make_context("generate", ["Hi"])
    assert context.params["stop"] == ("a b", "c")


@pytest.mark.parametrize("command", [("demo",), ("ls",), ("pull", "e4b"), ("rm", "e4b")])
def test_commands_that_no_setting_concerns_take_no_file(cli, file, command):
    answer = cli(*command, "--config", file)
    assert (answer.code, "No such option" in answer.err) == (2, True)


def test_a_broken_file_stops_no_command_that_has_no_use_for_it(cli, file):
    file.write_text("[broken")
    assert cli("ls", "--json").code == 0
    assert cli("generate", "Hi").code == 2


def test_settings_are_for_shared_options_only(cli, file):
    file.write_text('[defaults]\nmodel = "some/folder"\n[sampling]\nseed = 3\n')
    context = demo.command.make_context("demo", [])
    assert (context.params["model"], context.params["seed"]) == (None, None)
