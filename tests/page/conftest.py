"""Chromium, the echo server, and pages that complain about any word on the console."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.page.echo import EchoLoader
from tests.page.server import LiveServer, live_server

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def runs(program: str) -> bool:
    """Some systems have a placeholder that only says how to install one."""
    done = subprocess.run([program, "--version"], capture_output=True, timeout=60, check=False)
    return done.returncode == 0


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium with a profile of its own that is new and empty.

    Of a module and no longer: while Playwright is there, its event loop runs in this thread, and
    tests elsewhere that start one of their own would fail.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next((path for path in map(shutil.which, NAMES) if path and runs(path)), None)
    if chromium is None:
        pytest.skip("there is no Chromium; as root on Debian, make chromium installs it")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    """Answers at once."""
    with live_server(EchoLoader()) as live:
        yield live


@pytest.fixture(scope="module")
def slow_server() -> Iterator[LiveServer]:
    """Takes its time over every token."""
    with live_server(EchoLoader(step_seconds=0.03)) as live:
        yield live


@pytest.fixture
def open_page(browser) -> Iterator[Callable]:
    """Opens a page of a server; what it says on the console fails the test unless expected."""
    contexts, words = [], []

    def opened(live: LiveServer, *, width=1000, height=800, scheme="light", locale="en-US"):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, locale=locale
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: words.append(str(error)))
        page.on("console", lambda message: words.append(message.text))
        page.goto(live.url)
        page.wait_for_selector("#state[data-state=ready]")
        page.console = words
        return page

    yield opened
    for context in contexts:
        context.close()
    assert words == []
