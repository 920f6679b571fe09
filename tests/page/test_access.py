"""For everybody: keyboard, screen readers, any eyes, small windows, no motion."""

import itertools
import re

import pytest

from tests.page.acts import begun, complete, is_wider_than_the_window, say, send, settings, tab
from tests.page.colours import DEFICIENCIES, contrast, difference
from tests.page.test_safety import FOLDER

LEAST_CONTRAST = 3.0  # of a line against the page
LEAST_BESIDE, LEAST_ANY = 17.0, 12.0  # CIE76 between neighbours, and between any two


def test_axe_finds_nothing_serious_on_any_tab_light_or_dark(opened, served, standin):
    sync = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = opened(served[1], reduced_motion="reduce")
    page.evaluate(sync.Axe().axe_script)
    found = []

    def look(where: str) -> None:
        """All rules in the light, and in the dark those that look at colours."""
        for scheme, only in (("light", None), ("dark", ["color-contrast", "link-in-text-block"])):
            page.emulate_media(color_scheme=scheme)
            options = {"resultTypes": ["violations"]} | ({"runOnly": only} if only else {})
            for rule in page.evaluate("(options) => axe.run(options)", options)["violations"]:
                if rule["impact"] in ("serious", "critical"):
                    targets = [node["target"] for node in rule["nodes"]]
                    found.append((where, scheme, rule["id"], targets))

    settings(page)
    look("the empty chat")
    page.get_by_label("Think before the reply").check()
    reply = say(page, "some markdown")
    reply.locator(".thought summary").click()
    page.get_by_role("button", name="Replay").click()
    page.get_by_label("Round", exact=True).fill("3")
    reply.locator(".text .tok").nth(3).hover()
    look("a reply")
    tab(page, "Race")
    page.get_by_role("button", name="Race").click()
    page.locator(".verdict").wait_for()
    look("a race")
    tab(page, "Connect")
    look("connect")
    assert found == []


def test_all_can_be_done_with_the_keyboard(page):
    assert page.evaluate("document.activeElement.id") == "message"
    page.keyboard.type("Tell me words")
    page.keyboard.press("Enter")
    complete(page)
    seen = walk(page, 60)
    for name in ("Retry", "Replay", "Copy as curl", "Edit", "Draft view", "New chat", "Settings"):
        assert name in seen, seen
    assert "word0" in seen and {"Chat", "Theme: auto"} <= seen and "Race" not in seen
    page.locator("#tab-chat").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#race").is_visible() and page.url.endswith("#race")
    assert {"Seed", "Temperature", "Race"} <= walk(page, 40)


def walk(page, steps: int) -> set[str]:
    """What Tab reaches: by its label or text. Every stop shows that it is one."""
    seen = set()
    for _ in range(steps):
        page.keyboard.press("Tab")
        name, is_shown = page.evaluate(
            """() => {
                const node = document.activeElement;
                const style = getComputedStyle(node);
                const label = node.getAttribute('aria-label') ?? node.labels?.[0]?.innerText;
                const box = getComputedStyle(node.parentElement);
                const isShown = style.outlineStyle !== 'none' || box.boxShadow !== 'none';
                return [(label ?? node.innerText ?? '').trim(), isShown || node === document.body];
            }"""
        )
        assert is_shown, name
        seen.add(name)
    return seen


def test_a_window_of_320_pixels_needs_no_sideways_scrolling(opened, served, standin):
    page = opened(served[1], viewport={"width": 320, "height": 640})
    assert not is_wider_than_the_window(page)
    settings(page)
    assert not is_wider_than_the_window(page)
    settings(page)
    say(page, "some markdown and words").locator(".text .tok").nth(2).hover()
    assert not is_wider_than_the_window(page)
    page.get_by_role("button", name="Replay").click()
    page.locator("#live summary").click()
    for name in ("Race", "Connect"):
        assert not is_wider_than_the_window(page)
        tab(page, name)
    assert not is_wider_than_the_window(page)


def test_reduced_motion_is_obeyed(opened, served, standin):
    motion = "getComputedStyle(document.getElementById('hello')).animationName"
    assert opened(served[1], reduced_motion="no-preference").evaluate(motion) == "rise"
    still = opened(served[1], reduced_motion="reduce")
    assert still.evaluate(motion) == "none"
    send(still, "Tell me words")
    begun(still)
    assert still.evaluate("document.getAnimations().length") == 0


def test_the_theme_is_switched(page):
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    theme = page.locator("#theme")
    theme.click()
    assert theme.inner_text() == "Theme: light" and page.evaluate(ground) == light
    theme.click()
    assert theme.inner_text() == "Theme: dark" and page.evaluate(ground) != light
    theme.click()
    assert theme.inner_text() == "Theme: auto" and page.evaluate(ground) == light


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_tints_are_told_apart_by_all_eyes(theme):
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    pairs = re.findall(r"--(?:bg|p\d): light-dark\((#\w{6}), (#\w{6})\)", style)
    ground, *tints = [pair[theme] for pair in pairs]
    assert len(tints) == 7
    assert min(contrast(tint, ground) for tint in tints) >= LEAST_CONTRAST
    for eyes in DEFICIENCIES:
        for (i, one), (j, other) in itertools.combinations(enumerate(tints), 2):
            least = LEAST_BESIDE if j == i + 1 else LEAST_ANY
            assert difference(one, other, eyes) >= least, (eyes, i + 1, j + 1)
