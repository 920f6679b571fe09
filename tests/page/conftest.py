"""One browser and one stand-in server for each file; each test has a page of its own.

Not one for all files: Playwright's loop runs on the thread of the tests while the browser is there,
and other tests begin loops of their own.
"""

import shutil

import pytest

from tests.page.acts import until
from tests.page.standin import Standin, serving

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 8000


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("the page is tested in Chromium, and there is none here")
    sync = pytest.importorskip("playwright.sync_api")
    with sync.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def served():
    """The stand-in and its address."""
    standin = Standin()
    with serving(standin.app()) as url:
        yield standin, url


@pytest.fixture
def standin(served):
    """As new: no key, nothing busy, nothing seen."""
    standin, _ = served
    standin.key, standin.busy, standin.bodies, standin.cancelled = None, 0, [], 0
    standin.status_s = 0.0
    return standin


@pytest.fixture
def opened(browser):
    """Opens addresses. In the end: no page asked any other origin for anything, and none wrote an
    error or broke its own policy; `allowed` are parts of errors that a test provokes."""
    contexts, requests, faults, allowed = [], [], [], []

    def open_page(url, is_ready=True, **options):
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 820}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: requests.append((url, request.url)))
        page.on(
            "console", lambda line: line.type in ("error", "warning") and faults.append(line.text)
        )
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(url)
        if is_ready:
            until(page, "document.getElementById('model').textContent !== '…'")
        return page

    open_page.allowed = allowed
    yield open_page
    for context in contexts:
        context.close()
    away = [url for home, url in requests if not url.startswith((home, "data:", "blob:"))]
    assert away == []
    assert [fault for fault in faults if not any(part in fault for part in allowed)] == []


@pytest.fixture
def page(opened, served, standin):
    return opened(served[1])
