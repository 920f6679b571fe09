"""`mtp-mlx doctor` as text and as JSON, and its exit codes."""

FIELDS = {"id", "ok", "severity", "expected", "observed", "fix"}


def test_json(cli):
    answer = cli("doctor", "--json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.body["ok"]
    assert all(set(check) == FIELDS for check in answer.body["checks"])


def test_text_has_a_line_for_each_check_and_the_remedy_of_what_is_not_well(cli):
    answer = cli("doctor", "--draft-model", "none")
    checks = cli("doctor", "--draft-model", "none", "--json").body["checks"]
    wrong = [check for check in checks if not check["ok"]]
    assert answer.code == 0
    assert len(answer.out.splitlines()) == len(checks) + 2 * len(wrong)
    drafter = answer.out.index("slow   drafter")
    assert "mend it:  put the target's -assistant" in answer.out[drafter:]


def test_what_keeps_a_run_from_working_is_exit_code_1(cli):
    answer = cli("doctor", "31b-8bit", "--memory-limit", "4GB")
    assert (answer.code, answer.err) == (1, "")
    assert "wrong  fit" in answer.out
    assert not cli("doctor", "absent", "--json").body["ok"]
