"""The chat in Chromium: what is sent, what is shown, what can be done with a reply."""

import json

import pytest

from tests.page.acts import begun, complete, say, send, settings, until

UNUSUAL = "na\u00efve \U0001f98a\u2028\x85 end"
WORDS = " ".join(f"word{i}" for i in range(40))


def roles(body: dict) -> list[str]:
    return [message["role"] for message in body["messages"]]


def test_a_message_is_sent_and_its_reply_written_with_honest_figures(page, standin):
    reply = say(page, "Tell me words")
    assert reply.locator(".text").last.inner_text() == WORDS
    [body] = standin.bodies
    assert body["stream_options"] == {"include_usage": True} and body["spec_trace"] is True
    assert body["model"] == "tiny" and "temperature" not in body
    line = reply.locator(".figures").inner_text()
    assert line.startswith(
        "40 tok · 44.2 tok/s (plain ~31.4) · drafts 34/42 accepted · 6.5 tok/round"
    )
    assert "TTFT 0." in line and line.endswith("exactness B")


def test_a_second_message_carries_the_first_turn(page, standin):
    say(page, "Tell me words")
    say(page, "More")
    assert roles(standin.bodies[1]) == ["user", "assistant", "user"]
    assert standin.bodies[1]["messages"][1]["content"] == WORDS


def test_stop_ends_the_stream_and_keeps_what_was_said(page, standin):
    send(page, "a long reply")
    begun(page)
    page.get_by_role("button", name="Stop").click()
    reply = complete(page)
    assert reply.locator(".figures").inner_text().endswith("stopped")
    assert "word1" in reply.inner_text() and "word399" not in reply.inner_text()
    for _ in range(100):
        page.wait_for_timeout(20)
        if standin.cancelled:
            break
    assert standin.cancelled == 1


def test_escape_stops(page):
    send(page, "a long reply")
    begun(page)
    page.keyboard.press("Escape")
    assert "stopped" in complete(page).locator(".figures").inner_text()


def test_edit_resends_and_forgets_what_came_after(page, standin):
    say(page, "Tell me words")
    say(page, "More")
    page.get_by_role("button", name="Edit").first.click()
    page.get_by_label("Edit the message").fill("Tell me other words")
    page.get_by_role("button", name="Send", exact=True).first.click()
    complete(page)
    assert standin.bodies[-1]["messages"] == [{"role": "user", "content": "Tell me other words"}]
    assert page.locator("#log article").count() == 2


def test_edit_while_a_reply_is_written_ends_that_reply(page, standin):
    send(page, "a long reply")
    begun(page)
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Edit the message").fill("Tell me words")
    page.keyboard.press("Enter")
    reply = complete(page)
    assert reply.locator(".text").last.inner_text() == WORDS
    assert page.locator("#log article").count() == 2


def test_retry_sends_the_same_messages_again(page, standin):
    say(page, "Tell me words")
    page.get_by_role("button", name="Retry").click()
    complete(page)
    assert len(standin.bodies) == 2 and standin.bodies[0] == standin.bodies[1]
    assert page.locator(".reply").count() == 1


def test_thoughts_are_folded_and_not_sent_again(page, standin):
    settings(page)
    page.get_by_label("Think before the reply").check()
    reply = say(page, "Tell me words")
    thought = reply.locator(".thought")
    assert thought.locator("summary").inner_text() == "Thought"
    assert not thought.locator(".text").is_visible()
    thought.locator("summary").click()
    assert thought.locator(".text").inner_text() == "I think of naïve 🦊 words first"
    assert thought.locator(".tok").all_inner_texts()[3:5] == [" naïve", " 🦊"]
    say(page, "More")
    assert standin.bodies[-1]["messages"][1] == {"role": "assistant", "content": WORDS}


def test_settings_are_fields_of_the_request(page, standin):
    settings(page)
    for label, value in {"Temperature": "0.5", "Tokens at most": "9", "Seed": "3"}.items():
        page.locator("#settings").get_by_label(label).fill(value)
    page.get_by_label("Drafts a round").fill("0")
    page.get_by_label("System prompt").fill("Be brief.")
    reply = say(page, "Tell me words")
    [body] = standin.bodies
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0.5, 9, 3)
    assert body["num_draft_tokens"] == 0 and roles(body) == ["system", "user"]
    assert "no drafts" in reply.locator(".figures").inner_text()


@pytest.mark.parametrize(
    ("label", "value", "said"),
    [
        ("Temperature", "-1", "Temperature"),
        ("Tools", "[", "JSON list"),
        ("Tools", "{}", "JSON list"),
    ],
)
def test_a_setting_that_cannot_be_is_named_and_not_sent(page, standin, label, value, said):
    settings(page)
    page.locator("#settings").get_by_label(label).fill(value)
    send(page, "Tell me words")
    assert said in page.get_by_role("alert").inner_text()
    assert standin.bodies == []


def test_a_call_is_a_card_whose_result_goes_back(page, standin):
    settings(page)
    tools = [{"type": "function", "function": {"name": "get_time", "parameters": {}}}]
    page.get_by_label("Tools").fill(json.dumps(tools))
    reply = say(page, "Use the tool")
    assert reply.locator(".call").inner_text().startswith("Calls get_time")
    page.get_by_label("Result of get_time").fill("12:30")
    page.get_by_role("button", name="Send result").click()
    complete(page)
    _, call, result = standin.bodies[1]["messages"]
    assert call["tool_calls"][0]["function"]["arguments"] == '{"city":"Paris"}'
    assert result == {"role": "tool", "tool_call_id": "call_1", "content": "12:30"}


def test_an_error_is_shown_in_the_servers_words_and_can_be_tried_again(page, opened, standin):
    opened.allowed.append("400")
    reply = say(page, "refuse this")
    assert "temperature must be at least 0, found -1" in reply.get_by_role("alert").inner_text()
    page.get_by_role("button", name="Try again").click()
    complete(page)
    assert len(standin.bodies) == 2 and page.locator(".reply").count() == 1


def test_an_error_in_mid_stream_keeps_what_was_said(page, standin):
    reply = say(page, "break off")
    assert "the engine stopped" in reply.get_by_role("alert").inner_text()
    assert "word1" in reply.inner_text()


def test_a_connection_that_breaks_is_called_one_and_keeps_what_was_said(page, opened, standin):
    opened.allowed.append("ERR_INCOMPLETE_CHUNKED_ENCODING")
    reply = say(page, "snap off")
    alert = reply.get_by_role("alert").inner_text()
    assert "The connection ended before the reply was complete." in alert
    assert "word1" in reply.inner_text()


def test_a_full_queue_is_waited_for(page, opened, standin):
    opened.allowed.append("503")
    standin.busy = 1
    send(page, "Tell me words")
    page.get_by_text("32 requests wait already Asking again in 1 s").wait_for()
    assert complete(page).locator(".text").last.inner_text() == WORDS


def test_a_model_that_is_being_loaded_is_waited_for(opened, served, standin):
    opened.allowed.append("503")
    standin.loading = 1
    page = opened(served[1], is_ready=False)
    page.get_by_role("alert").get_by_text("the model is being loaded").wait_for()
    page.get_by_text("tiny", exact=True).first.wait_for()
    assert not page.get_by_role("alert").is_visible()


def test_a_reply_is_copied_as_curl_and_as_python(opened, served, standin):
    page = opened(served[1], permissions=["clipboard-read", "clipboard-write"])
    copied = lambda: page.evaluate("navigator.clipboard.readText()")  # noqa: E731
    say(page, "It's 'quoted'")
    page.get_by_role("button", name="Copy as curl").click()
    page.get_by_text("Copied").first.wait_for()
    assert "'It'\\''s" not in copied() and "It'\\''s '\\''quoted'\\''" in copied()
    assert f"curl {served[1]}v1/chat/completions" in copied() and '"seed": 11' in copied()
    assert "spec_trace" not in copied()
    page.get_by_role("button", name="Copy as Python").click()
    page.wait_for_timeout(50)
    compile(copied(), "copied", "exec")
    assert "seed=11" in copied() and 'api_key="not needed"' in copied()


def test_a_button_that_copies_keeps_its_name(page):
    say(page, "Tell me words")
    button = page.locator(".reply .acts button").first
    for _ in range(2):
        button.click()
        until(page, "document.querySelector('.reply .acts button').textContent !== 'Copy'")
    page.wait_for_timeout(1400)
    assert button.inner_text() == "Copy"


def test_the_chat_is_saved_as_markdown_and_as_json(page):
    say(page, "Tell me words")
    with page.expect_download() as markdown:
        page.get_by_role("button", name="Save .md").click()
    text = markdown.value.path().read_text(encoding="utf-8")
    assert text == f"## You\n\nTell me words\n\n## tiny\n\n{WORDS}\n"
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save .json").click()
    messages = json.loads(saved.value.path().read_text(encoding="utf-8"))["messages"]
    assert messages[1] == {"role": "assistant", "content": WORDS}
    page.get_by_role("button", name="New chat").click()
    assert page.locator("#log article").count() == 0 and page.locator("#hello").is_visible()


def test_frames_are_read_however_their_bytes_are_cut(page):
    sent = f": prefill 1/2\r\n\r\ndata: {UNUSUAL}\n\ndata:a\r\ndata: b\r\n\r\ndata: cut off"
    for size in (1, 2, 7, 1000):
        found = page.evaluate(
            """async ([text, size]) => {
                const {frames} = await import('/page/sse.js');
                const bytes = new TextEncoder().encode(text);
                const body = new ReadableStream({
                    start(out) {
                        for (let at = 0; at < bytes.length; at += size)
                            out.enqueue(bytes.slice(at, at + size));
                        out.close();
                    },
                });
                const found = [];
                for await (const event of frames(body)) found.push(event);
                return found;
            }""",
            [sent, size],
        )
        assert found == [{"comment": "prefill 1/2"}, {"data": UNUSUAL}, {"data": "a\nb"}]
