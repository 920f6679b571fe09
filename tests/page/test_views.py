"""The live strip, the race, the connect tab."""

from tests.page.acts import tab, until


def test_the_strip_moves_and_shows_every_row(page, standin):
    before = page.locator("#speed").inner_text()
    until(page, "(old) => document.getElementById('speed').textContent !== old", before)
    lanes = page.locator("#lanes li")
    assert lanes.count() == 8
    texts = lanes.all_inner_texts()
    assert (
        "writes" in texts[0] and "91 %" in texts[0] and "70/128" in texts[2] and "free" in texts[3]
    )
    assert page.locator("#places li").first.inner_text().split() == ["place", "1:", "97", "1"]
    assert page.locator("#places i").count() == 7
    assert page.locator("#speed-line line").count() == 1
    assert page.locator("#plain").inner_text() == "plain ~52"
    assert "K/V 300 MiB of 2.0 GiB" in page.locator("#memory").inner_text()
    assert page.locator("#queue").inner_text() == "1 waiting of 32"


def test_a_hidden_page_asks_for_nothing(page, standin):
    page.evaluate(
        """Object.defineProperty(document, 'hidden', {value: true, configurable: true});
        document.dispatchEvent(new Event('visibilitychange'));"""
    )
    page.wait_for_timeout(100)
    before = standin.polls
    page.wait_for_timeout(1300)
    assert standin.polls == before
    page.evaluate(
        """Object.defineProperty(document, 'hidden', {value: false, configurable: true});
        document.dispatchEvent(new Event('visibilitychange'));"""
    )
    page.wait_for_timeout(100)
    assert standin.polls == before + 1


def test_a_page_that_is_hidden_while_it_asks_goes_on_asking_once_a_second(page, standin):
    standin.status_s = 0.4
    before = standin.polls
    for _ in range(100):
        if standin.polls > before:
            break
        page.wait_for_timeout(20)
    for hidden in (True, False) * 5:
        page.evaluate(
            """(value) => {
                Object.defineProperty(document, 'hidden', {value, configurable: true});
                document.dispatchEvent(new Event('visibilitychange'));
            }""",
            hidden,
        )
    before = standin.polls
    page.wait_for_timeout(2500)
    assert 1 <= standin.polls - before <= 3


def race(page, prompt: str):
    tab(page, "Race")
    page.locator("#race").get_by_label("Prompt").fill(prompt)
    page.get_by_role("button", name="Race").click()
    return page.locator(".verdict")


def test_a_race_of_equal_texts_says_identical(page, standin):
    verdict = race(page, "Tell me words")
    assert verdict.inner_text().startswith("identical: all 40 tokens.")
    plain, drafted = standin.bodies
    assert (plain["num_draft_tokens"], drafted["num_draft_tokens"]) == (0, "auto")
    assert plain | {"num_draft_tokens": "auto"} == drafted and plain["cache"] is False
    assert page.locator("#plain-text").inner_text() == page.locator("#mtp-text").inner_text()
    assert page.locator("#plain-s").inner_text().endswith(" s")
    assert "drafts 34/42" in page.locator("#mtp-line").inner_text()


def test_a_race_of_other_texts_shows_the_first_other_token(page):
    verdict = race(page, "differ, please")
    assert verdict.inner_text().startswith("different from character 9 on.")
    assert page.locator("mark").all_inner_texts() == [" four", " three"]


def test_a_race_is_stopped(page):
    tab(page, "Race")
    page.locator("#race").get_by_label("Prompt").fill("a long reply")
    page.get_by_role("button", name="Race").click()
    until(page, "document.getElementById('plain-text').textContent.length > 20")
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()


def test_a_race_is_stopped_whatever_the_form_says_by_then(page):
    tab(page, "Race")
    prompt = page.locator("#race").get_by_label("Prompt")
    prompt.fill("a long reply")
    page.get_by_role("button", name="Race").click()
    until(page, "document.getElementById('plain-text').textContent.length > 20")
    prompt.fill("")
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()
    page.get_by_role("button", name="Race").click()
    assert page.locator("#race-go").inner_text() == "Race"  # nothing to race with


def test_connect_has_code_for_this_server(page, served):
    tab(page, "Connect")
    code = page.locator("#connect pre").all_inner_texts()
    assert len(code) == 4
    for each in code:
        assert f"{served[1]}v1" in each
    python, curl, _, swift = code
    compile(python, "connect", "exec")
    assert 'model="tiny"' in python and '"model": "tiny"' in curl and '"model": "tiny"' in swift
    assert "MTP_MLX_API_KEY" not in "".join(code)
