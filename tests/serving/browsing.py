"""A browser for tests of the pages: Debian's chromium, by playwright."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@contextmanager
def launched(microphone: Path | None = None) -> Iterator[Browser]:
    """The browser; its microphone plays a recording once. Skips the test without a browser."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs chromium (apt-get install chromium)")
    arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
    if microphone is not None:
        arguments += ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
        arguments.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@contextmanager
def quiet(browser: Browser, address: str, expected: tuple[str, ...] = ()) -> Iterator[Page]:
    """A page of a server that asks nothing of others, and tells nothing on the console but what is
    expected."""
    page = browser.new_page()
    told: list[str] = []
    page.on("console", lambda m: told.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: told.append(str(error)))
    own = (address, address.replace("http", "ws"), "blob:", "data:")
    page.on("request", lambda r: None if r.url.startswith(own) else told.append(r.url))
    yield page
    page.close()
    assert [text for text in told if not any(part in text for part in expected)] == []


def until(page: Page, expression: str, seconds: float = 30.0) -> None:
    """Wait for an expression of the page to be true; the page's own policy forbids playwright's
    way."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"not true in {seconds} s: {expression}"
        page.wait_for_timeout(20)
