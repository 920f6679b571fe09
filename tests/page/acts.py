"""What a user does with the page."""

import time

from playwright.sync_api import Locator, Page

PATIENCE_S = 8.0


def until(page: Page, expression: str, argument: object = None) -> None:
    """Wait for it. (Playwright's own wait_for_function evaluates text within the page, which the
    page's policy forbids.)"""
    end = time.monotonic() + PATIENCE_S
    while not page.evaluate(expression, argument):
        assert time.monotonic() < end, f"never true: {expression}"
        page.wait_for_timeout(20)


def say(page: Page, text: str) -> Locator:
    """Send a message; the reply, once it is complete."""
    send(page, text)
    return complete(page)


def send(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send", exact=True).click()


def begun(page: Page) -> None:
    """Wait until something of a reply is there."""
    until(page, "document.querySelectorAll('.text .tok').length > 8")


def complete(page: Page) -> Locator:
    """The last reply, when nothing is being written any more."""
    until(
        page,
        "document.querySelector('.reply:last-child[aria-busy=false]') !== null"
        " && document.getElementById('send').textContent === 'Send'",
    )
    return page.locator(".reply").last


def settings(page: Page) -> None:
    page.locator("#settings > summary").click()


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def is_wider_than_the_window(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth > innerWidth")
