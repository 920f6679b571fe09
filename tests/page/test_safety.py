"""Model text stays text, the key stays in memory, and the page is small."""

from pathlib import Path

import mtp_mlx.server
from tests.page.acts import say
from tests.page.standin import HOSTILE

FOLDER = Path(mtp_mlx.server.__file__).parent / "page"
MOST_BYTES = 80_000


def test_the_page_is_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MOST_BYTES


def test_no_file_has_an_inline_script_or_names_another_origin():
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8")
        assert ".innerHTML" not in text and "outerHTML" not in text and "eval(" not in text, path
        assert "insertAdjacent" not in text and " style=" not in text, path
        addresses = text.replace("http://www.w3.org/2000/svg", "").replace("https?://", "")
        assert "http://" not in addresses and "https://" not in addresses, path


def test_hostile_model_text_stays_text(page):
    title = page.title()
    reply = say(page, "be hostile")
    text = reply.locator(".text").last
    shown = text.inner_text()
    for part in ("<img src=x onerror=", "<script>", "[/bold]", "&lt;b&gt;", "<style>", "<iframe"):
        assert part in shown
    assert "[click](javascript:alert(1))" in shown and "![pixel](http" in shown
    assert text.locator("img, script, style, iframe, a").count() == 0
    assert page.title() == title and HOSTILE.count("<") == shown.count("<")


def test_hostile_markdown_takes_no_time(page):
    took = page.evaluate(
        """async () => {
            const {MarkdownView} = await import('/page/markdown.js');
            const root = document.createElement('div');
            const texts = [
                '*a '.repeat(4000), '`'.repeat(9000), '['.repeat(9000), '**_'.repeat(3000),
                '> '.repeat(5000), '- '.repeat(5000), '|'.repeat(9000), '\\\\'.repeat(9001),
                '![a](b'.repeat(2000), '*'.repeat(9000), '_a_'.repeat(3000), '~~x'.repeat(3000),
                '```' + 'a'.repeat(300000) + '`'];
            return texts.map((text) => {
                const start = performance.now();
                new MarkdownView(root, (a, b) => [text.slice(a, b)]).update(text);
                return performance.now() - start;
            });
        }"""
    )
    assert max(took) < 1500, took


def test_a_key_is_asked_for_and_kept_in_memory_alone(opened, served, standin):
    opened.allowed.append("401")
    standin.key = "s3cret"
    page = opened(served[1], is_ready=False)
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("a key is needed").wait_for()
    dialog.get_by_label("Key").fill("wrong")
    page.keyboard.press("Enter")
    page.wait_for_timeout(150)
    dialog.get_by_label("Key").fill("s3cret")
    dialog.get_by_role("button", name="Use it").click()
    page.get_by_text("tiny", exact=True).first.wait_for()
    assert not dialog.is_visible() and "40 tok" in say(page, "Tell me words").inner_text()
    kept = "JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])"
    assert "s3cret" not in page.evaluate(kept) + page.content()
    page.get_by_role("tab", name="Connect").click()
    python, curl, web, swift = page.locator("#connect pre").all_inner_texts()
    compile(python, "connect", "exec")
    assert all("MTP_MLX_API_KEY" in each for each in (python, curl, web, swift))
    page.reload()
    dialog.wait_for()


def test_a_key_that_no_header_can_carry_is_not_taken(opened, served, standin):
    opened.allowed.append("401")
    standin.key = "s3cret"
    page = opened(served[1], is_ready=False)
    key = page.get_by_label("Key", exact=True)
    key.fill("clé — ключ")
    page.keyboard.press("Enter")
    page.wait_for_timeout(100)
    assert page.get_by_role("dialog").is_visible()
    key.fill(" s3cret ")
    page.keyboard.press("Enter")
    page.get_by_text("tiny", exact=True).first.wait_for()


def test_a_key_that_is_refused_leaves_a_line_and_a_way_back(opened, served, standin):
    opened.allowed.append("401")
    standin.key = "s3cret"
    page = opened(served[1], is_ready=False)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("alert").get_by_text("a key is needed").wait_for()
    page.get_by_role("button", name="Try again").click()
    page.get_by_label("Key", exact=True).fill("s3cret")
    page.keyboard.press("Enter")
    page.get_by_text("tiny", exact=True).first.wait_for()
    assert not page.get_by_role("alert").is_visible()
