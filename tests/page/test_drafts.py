"""The draft view: tints, the card about a round, the replay."""

from tests.page.acts import say, until


def tinted(reply) -> list[str]:
    return reply.locator(".text .tok.d").all_inner_texts()


def test_accepted_drafts_and_nothing_else_are_tinted_by_their_place(page):
    reply = say(page, "Tell me words")
    # The prompt's own token, then rounds of 7, 7 and 3 drafts with the target's token behind each.
    assert len(tinted(reply)) == 34
    first = reply.locator(".text .tok.p1").all_inner_texts()
    assert first[:3] == [" word1", " word9", " word17"]
    assert reply.locator(".text .tok.p7").all_inner_texts()[:2] == [" word7", " word15"]
    plain = reply.locator(".text .tok:not(.d)").all_inner_texts()
    assert plain[:4] == ["word0", " word8", " word16", " word20"]


def test_places_differ_in_line_as_well_as_in_colour(page):
    say(page, "Tell me words")
    lines = page.evaluate(
        """[1, 2, 3, 4, 5, 6, 7].map((place) => {
            const style = getComputedStyle(document.querySelector(`.text .p${place}`));
            return style.textDecorationStyle + style.textDecorationThickness;
        })"""
    )
    assert len(set(lines)) == 7


def test_hover_shows_the_round_and_what_was_rejected(page):
    reply = say(page, "Tell me words")
    reply.get_by_text("word19", exact=True).hover()
    card = page.locator("#card")
    assert card.locator("p").first.inner_text() == "Round 3 · drafted 7, accepted 3"
    struck = card.locator("s")
    assert struck.count() == 4
    assert "line-through" in struck.first.evaluate(
        "(node) => getComputedStyle(node).textDecoration"
    )
    assert card.inner_text().endswith("draft 3, accepted")
    page.mouse.move(5, 5)
    assert not card.is_visible()


def test_keys_walk_the_tokens(page):
    reply = say(page, "Tell me words")
    reply.locator(".text .tok").first.focus()
    page.keyboard.press("ArrowRight")
    card = page.locator("#card")
    assert page.evaluate("document.activeElement.textContent") == " word1"
    assert card.is_visible()
    assert card.locator("p").first.inner_text() == "Round 1 · drafted 7, accepted 7"
    page.keyboard.press("End")
    assert card.is_visible()
    assert page.evaluate("document.activeElement.textContent") == " word39"
    assert reply.locator(".text .tok[tabindex]").count() == 1
    page.keyboard.press("Escape")
    assert not card.is_visible()


def test_the_view_is_switched_off_and_on(page):
    reply = say(page, "Tell me words")
    text = reply.locator(".text").last.inner_text()
    page.get_by_label("Draft view").uncheck()
    assert reply.locator(".text .tok").count() == 0
    assert reply.locator(".text").last.inner_text() == text
    page.get_by_label("Draft view").check()
    assert len(tinted(reply)) == 34


def test_the_slider_replays_round_by_round(page):
    reply = say(page, "Tell me words")
    whole = reply.locator(".text").last.inner_text()
    page.get_by_role("button", name="Replay").click()
    slider = page.get_by_label("Round", exact=True)
    slider.fill("0")
    assert reply.locator(".text").last.inner_text() == "word0"
    slider.fill("3")
    text = reply.locator(".text").last
    assert text.locator(".tok").last.inner_text() == " word20"
    assert text.locator(".leftover s").count() == 4
    assert text.locator(".tok.now").all_inner_texts() == [
        " word17",
        " word18",
        " word19",
        " word20",
    ]
    assert reply.locator("output").inner_text() == "Round 3 of 6: 7 drafted, 3 accepted"
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert text.locator(".tok").last.inner_text() == " word16"
    page.get_by_role("button", name="Replay").click()
    assert reply.locator(".text").last.inner_text() == whole


def test_play_runs_to_the_end(page):
    reply = say(page, "Tell me words")
    page.get_by_role("button", name="Replay").click()
    page.get_by_label("Round", exact=True).fill("4")
    page.get_by_role("button", name="Play", exact=True).click()
    until(page, "document.querySelector('output').textContent.startsWith('Round 6 of 6')")
    page.get_by_role("button", name="Play", exact=True).wait_for()
    assert len(tinted(reply)) == 34


def test_tints_hold_within_markdown(page):
    reply = say(page, "some markdown")
    text = reply.locator(".text").last
    assert text.locator("strong .tok.d").count() == 1
    assert text.locator("h5").inner_text() == "A heading"
    assert text.locator("ol > li").count() == 2 and text.locator("ol ul li").inner_text() == "inner"
    assert text.locator("td").all_inner_texts() == ["1", "2"]
    assert text.locator("pre").inner_text().strip() == "print(1)"
    assert text.locator("blockquote").inner_text() == "a quote"
    assert text.locator("a").get_attribute("href") == "https://example.org/"
    assert text.locator("a").get_attribute("rel") == "noopener noreferrer nofollow"


def test_a_token_is_the_text_of_its_bytes(page):
    """Also where a delta begins with what decoders take for a mark of the byte order."""
    tokens = ["\ufeff", "\u00ef", "\U0001f98a", "", "x"]
    spans, at = [], 0
    for token, origin in zip(tokens, "ddtdd", strict=True):
        spans.append([at, at := at + len(token.encode()), origin])
    found = page.evaluate(
        """async ([text, spans]) => {
            const {Trace} = await import('/page/trace.js');
            const trace = new Trace();
            trace.add('content', text, {round: 1, drafted: 4, accepted: 4, spans, rejected: []});
            return trace.tokens.map((token) => [trace.textOf(token), token.place]);
        }""",
        ["".join(tokens), spans],
    )
    assert found == [["\ufeff", 1], ["\u00ef", 2], ["\U0001f98a", 0], ["x", 4]]


def test_a_reply_that_was_stopped_counts_tokens_without_text(page):
    """Bytes of a character that is complete with a later token."""
    spec = {"round": 1, "drafted": 0, "accepted": 0, "rejected": []}
    spec["spans"] = [[0, 0, "p"], [0, 0, "p"], [0, 4, "p"]]
    tokens = page.evaluate(
        """async (spec) => {
            const {Run} = await import('/page/run.js');
            const run = new Run({});
            run.take({choices: [{delta: {content: '\U0001f98a'}, spec}]});
            return run.tokens;
        }""",
        spec,
    )
    assert tokens == 3
