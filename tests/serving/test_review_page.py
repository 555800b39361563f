"""The page of reviews in a real browser: by keyboard, with a second browser, without the server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asr.dataset.manifest import read_manifest
from asr.inference.recognizer import Recognizer
from asr.serving.config import ServeConfig
from asr.serving.engine import Engine
from asr.serving.review import open_review
from tests.serving.browsing import launched, quiet, until
from tests.serving.conftest import LIMITS
from tests.serving.running import Running, running
from tests.serving.test_review_api import make_manifest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return make_manifest(tmp_path)


@pytest.fixture
def reviewing(recognizer: Recognizer, manifest: Path) -> Iterator[Running]:
    with (
        open_review(manifest, print) as review,
        running(Engine({"tones": recognizer}, LIMITS), ServeConfig(review=review)) as server,
    ):
        yield server


def opened(page: Page, server: Running) -> None:
    page.goto(f"{server.url}/review")
    page.get_by_role("heading", level=2).first.wait_for()
    page.get_by_label("Text", exact=False).wait_for()


def name(page: Page) -> str:
    return page.locator("#name").inner_text()


def kept(manifest: Path) -> dict[str, str]:
    return {u.id: u.text for u in read_manifest(manifest.with_name("all.reviewed.jsonl"))}


def test_a_person_corrects_texts_by_keyboard_alone(
    browser: Browser, reviewing: Running, manifest: Path
) -> None:
    with quiet(browser, reviewing.url, ("404",)) as page:
        opened(page, reviewing)
        page.get_by_text("0 of 4 checked").wait_for()
        given = {}
        for number in range(1, 5):
            id = name(page)
            assert page.evaluate("document.activeElement.id") == "correct"
            page.keyboard.press("Control+A")
            page.keyboard.type(f"text of {id}")
            given[id] = f"text of {id}"
            page.keyboard.press("Enter")
            page.get_by_text(f"{number} of 4 checked" if number < 4 else "All 4").wait_for()
            assert kept(manifest) == given
            if number < 4:
                until(page, f"document.getElementById('name').textContent !== {id!r}")
        assert given.keys() == {"one", "a/two", "../three", "gone"}
        page.keyboard.press("Alt+ArrowUp")
        until(page, f"document.getElementById('name').textContent !== {id!r}")
        assert page.locator("#correct").input_value() == f"text of {name(page)}"
        assert page.get_by_text("(checked)").is_visible()


def test_escape_plays_and_words_are_heard(browser: Browser, reviewing: Running) -> None:
    with quiet(browser, reviewing.url) as page:
        opened(page, reviewing)
        page.locator("#pictures[data-drawn]").wait_for()
        until(page, "document.getElementById('audio').currentTime > 0")  # it plays at once
        until(page, "document.getElementById('audio').paused")
        page.keyboard.press("Escape")
        until(page, "!document.getElementById('audio').paused")
        assert page.locator("#text button.word").count() >= 1
        # Texts from outside are texts.
        assert page.get_by_text("<b>said</b>").count() == 1
        assert page.locator("b", has_text="said").count() == 0


def test_a_useless_recording_is_left_out(
    browser: Browser, reviewing: Running, manifest: Path
) -> None:
    with quiet(browser, reviewing.url) as page:
        opened(page, reviewing)
        id = name(page)
        page.keyboard.press("Alt+Delete")
        page.get_by_text("0 of 4 checked, 1 left out").wait_for()
        (left_out,) = read_manifest(manifest.with_name("all.left_out.jsonl"))
        assert left_out.id == id
        until(page, f"document.getElementById('name').textContent !== {id!r}")
        page.locator("#queue button").last.click()
        page.get_by_text("(left out)").wait_for()
        assert name(page) == id
        page.locator("#correct").fill("of use after all")
        page.keyboard.press("Enter")
        page.get_by_text("1 of 4 checked.").wait_for()
        assert kept(manifest) == {id: "of use after all"}


def test_skipped_recordings_come_back_last(browser: Browser, reviewing: Running) -> None:
    with quiet(browser, reviewing.url, ("404",)) as page:
        opened(page, reviewing)
        seen = [name(page)]
        for _ in range(3):
            page.keyboard.press("Alt+ArrowDown")
            until(page, f"document.getElementById('name').textContent !== {seen[-1]!r}")
            seen.append(name(page))
        assert sorted(seen) == ["../three", "a/two", "gone", "one"]


def test_two_browsers_are_told_of_each_other(
    browser: Browser, reviewing: Running, manifest: Path
) -> None:
    with (
        quiet(browser, reviewing.url) as first,
        quiet(browser, reviewing.url, ("409",)) as second,
    ):
        for page in (first, second):
            opened(page, reviewing)
            page.locator("#queue button", has_text=re.compile("^one ·")).click()
            until(page, "document.getElementById('name').textContent === 'one'")
        first.locator("#correct").fill("by the first")
        first.keyboard.press("Enter")
        first.get_by_text("1 of 4 checked").wait_for()
        second.locator("#correct").fill("by the second")
        second.keyboard.press("Enter")
        second.get_by_role("alert").get_by_text("by the first").wait_for()
        second.keyboard.press("Enter")  # once more is no answer
        second.get_by_role("alert").get_by_text("by the first").wait_for()
        assert kept(manifest) == {"one": "by the first"}
        second.get_by_role("button", name="Replace it with mine").click()
        second.get_by_text("1 of 4 checked").wait_for()
        until(second, "document.getElementById('name').textContent !== 'one'")
        assert kept(manifest) == {"one": "by the second"}


def test_a_text_is_not_lost_when_the_server_is_away(
    browser: Browser, reviewing: Running, manifest: Path
) -> None:
    with quiet(browser, reviewing.url, ("net::ERR_FAILED",)) as page:
        opened(page, reviewing)
        id = name(page)
        page.route("**/review/item", lambda route: route.abort())
        page.locator("#correct").fill("almost lost")
        page.keyboard.press("Enter")
        page.get_by_role("alert").get_by_text("Not saved").wait_for()
        page.unroute("**/review/item")
        page.reload()
        page.get_by_text("(not saved yet)").wait_for()
        assert page.locator("#correct").input_value() == "almost lost"
        page.locator("#correct").press("Enter")
        page.get_by_text("1 of 4 checked").wait_for()
        assert kept(manifest) == {id: "almost lost"}
