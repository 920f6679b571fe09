"""The page on the real server with the built-in pair."""

import threading

import pytest

from mtp_mlx.server.settings import ServerSettings, digest
from tests.page.acts import say, settings, tab, until
from tests.server import served as real

STORY = "Tell me a story about a fox."
LIST = "Write a list of five animals."


@pytest.fixture(scope="module")
def here():
    with real.serving() as here:
        yield here


@pytest.fixture
def page(opened, here):
    return opened(f"http://127.0.0.1:{here.port}/")


def specs(page, here, prompt: str):
    """A reply of fixed draft lengths; and texts and specs of the stream to the same request."""
    settings(page)
    page.locator("#settings").get_by_label("Temperature").fill("0")
    page.get_by_label("Drafts a round").fill("3")
    with page.expect_request("**/v1/chat/completions") as request:
        reply = say(page, prompt)
    stream = here.post("/v1/chat/completions", request.value.post_data_json)
    choices = [choice for event in real.events(stream.body) for choice in event["choices"]]
    found = [(each["delta"].get("content", ""), each["spec"]) for each in choices if "spec" in each]
    return found, reply


def test_tints_are_the_accepted_drafts_of_the_stream(page, here):
    found, reply = specs(page, here, STORY)
    drafts = [
        text.encode()[start:end].decode()
        for text, spec in found
        for start, end, origin in spec["spans"]
        if origin == "d" and start < end  # an accepted token that ends the reply has no text
    ]
    assert len(drafts) > 20
    assert reply.locator(".text .tok.d").all_inner_texts() == drafts
    accepted = sum(spec["accepted"] for _, spec in found)
    drafted = sum(spec["drafted"] for _, spec in found)
    line = reply.locator(".figures").inner_text()
    assert f"drafts {accepted}/{drafted} accepted" in line
    assert reply.locator(".text").last.inner_text() == "".join(text for text, _ in found)


def test_hover_shows_what_this_round_rejected(page, here):
    found, reply = specs(page, here, LIST)
    spec = next(spec for _, spec in found if spec["rejected"] and spec["spans"])
    reply.locator(f'.text [data-r="{spec["round"]}"]').first.hover()
    card = page.locator("#card")
    counts = f"drafted {spec['drafted']}, accepted {spec['accepted']}"
    assert card.locator("p").first.inner_text() == f"Round {spec['round']} · {counts}"
    struck = [each["text"].replace(" ", "·") for each in spec["rejected"]]
    assert [text.split()[-1] for text in card.locator("s").all_inner_texts()] == struck


def test_a_list_is_a_list(page, here):
    _, reply = specs(page, here, LIST)
    assert reply.locator(".text ol > li").count() == 5


def test_thoughts_are_folded(page):
    settings(page)
    page.locator("#settings").get_by_label("Temperature").fill("0")
    page.get_by_label("Think before the reply").check()
    reply = say(page, "How many is 12 plus 30?")
    assert not reply.locator(".thought .text").is_visible()
    reply.locator(".thought summary").click()
    assert "12 and 30" in reply.locator(".thought .text").inner_text()


def test_stop_frees_the_row(page, here):
    # Within the page, since the reply is soon complete.
    page.evaluate(
        """new MutationObserver((_, observer) => {
            if (!document.querySelector('.text .tok')) return;
            observer.disconnect();
            document.getElementById('send').click();
        }).observe(document.getElementById('log'), {childList: true, subtree: true})"""
    )
    reply = say(page, STORY)
    assert reply.locator(".figures").inner_text().endswith("stopped")
    assert "Once" in reply.inner_text() and "end." not in reply.inner_text()
    real.until(here.is_idle)


def test_a_race_of_the_same_seed_is_identical(page):
    tab(page, "Race")
    page.locator("#race").get_by_label("Temperature").fill("0.7")
    page.get_by_role("button", name="Race").click()
    assert page.locator(".verdict").inner_text().startswith("identical: all ")
    assert "no drafts" in page.locator("#plain-line").inner_text()
    assert "accepted" in page.locator("#mtp-line").inner_text()
    assert len(page.locator("#mtp-text").inner_text()) > 50


def test_the_strip_shows_this_server(page, here):
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            here.post("/v1/chat/completions", {"messages": [{"role": "user", "content": STORY}]})

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        until(page, "Number(document.getElementById('speed').textContent) > 0")
        until(page, "document.querySelectorAll('#places i').length > 0")
        until(page, "document.querySelectorAll('#lanes .decode').length === 2")
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    until(page, "document.getElementById('speed').textContent === '0'")
    assert page.locator("#lanes li").all_inner_texts()[3].split() == ["4", "free"]
    assert "peak" in page.locator("#memory").inner_text()
    assert page.locator("#model").inner_text() == "tiny"


def test_errors_are_the_servers_words(page, opened):
    opened.allowed.append("400")
    settings(page)
    page.get_by_label("Tools").fill("[{}]")
    reply = say(page, STORY)
    assert "tools[0]" in reply.get_by_role("alert").inner_text()


def test_the_key_is_asked_for(opened, standin):
    opened.allowed.append("401")
    with real.serving(ServerSettings(api_keys=(digest("s3cret"),))) as here:
        page = opened(f"http://127.0.0.1:{here.port}/", is_ready=False)
        page.get_by_role("dialog").wait_for()
        page.get_by_label("Key", exact=True).fill("s3cret")
        page.keyboard.press("Enter")
        page.get_by_text("tiny", exact=True).first.wait_for()
        assert "tok/s" in say(page, STORY).inner_text()
        page.context.close()
