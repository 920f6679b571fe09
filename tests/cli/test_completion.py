"""Shell completion: scripts, and what they ask for."""

import os
import shutil
import subprocess
import sys

import pytest


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed_for_each_shell(cli, shell):
    answer = cli("completion", shell)
    assert answer.code == 0
    assert "_MTP_MLX_COMPLETE" in answer.out
    assert "mtp-mlx" in answer.out


def has_new_bash() -> bool:
    """Whether there is a bash that click's script is for: 4.4, which a Mac does not bring."""
    code = "(( BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404 ))"
    return shutil.which("bash") is not None and not subprocess.run(["bash", "-c", code]).returncode


@pytest.mark.skipif(not has_new_bash(), reason="there is no bash 4.4 here")
def test_bash_reads_its_script(cli):
    script = cli("completion", "bash").out
    code = f"{script}\ncomplete -p mtp-mlx"
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mtp-mlx" in done.stdout


def completed(line: str) -> set[str]:
    words = line.split(" ")
    asked = {"_MTP_MLX_COMPLETE": "bash_complete", "COMP_WORDS": line}
    done = subprocess.run(
        [sys.executable, "-m", "mtp_mlx"],
        env={**os.environ, **asked, "COMP_CWORD": str(len(words) - 1)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return set(done.stdout.split())


def test_commands_options_and_models_are_completed():
    assert completed("mtp-mlx ge") == {"plain,generate"}
    assert "plain,--num-draft-tokens" in completed("mtp-mlx generate --n")
    assert completed("mtp-mlx generate --model ") >= {"plain,tiny", "plain,tiny-moe", "dir,"}
    assert completed("mtp-mlx generate --model tiny-") == {"plain,tiny-moe", "dir,tiny-"}
    assert completed("mtp-mlx generate --draft-model n") == {"plain,none", "dir,n"}
    assert completed("mtp-mlx demo --model ") == {"plain,tiny", "plain,tiny-moe"}
    assert "plain,e4b-4bit" in completed("mtp-mlx pull e4")
    assert completed("mtp-mlx completion z") == {"plain,zsh"}


def test_another_shell_is_a_fault_that_names_those_there_are(cli):
    answer = cli("completion", "tcsh")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert all(shell in answer.err for shell in ("tcsh", "bash", "zsh", "fish"))
