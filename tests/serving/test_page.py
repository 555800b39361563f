"""The page in a real browser, with a file and with a microphone that plays one."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
import soundfile
import srt
import webvtt
from pydantic import ValidationError

from asr.audio.load import write_wav
from asr.inference.recognizer import Recognizer
from asr.serving.config import ServeConfig
from asr.serving.engine import Engine
from asr.serving.page import MOST_CHARACTERS, _Transcript, static_files
from tests.serving.browsing import launched, quiet, until
from tests.serving.conftest import LIMITS
from tests.serving.live_server import LiveServer
from tests.serving.running import Running, running
from tests.tones import RATE, speak

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SAID = "low high up down"
TRANSCRIPT = {
    "seconds": 2.0,
    "segments": [
        {
            "start": 0.1,
            "end": 1.2,
            "text": "<b>up</b> & down",
            "words": [{"word": "<b>up</b>", "start": 0.1, "end": 0.5, "confidence": 0.4}],
        }
    ],
}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "speech.wav"
    write_wav(path, speak(SAID), RATE)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Its microphone hears a pause after the speech."""
    path = tmp_path_factory.mktemp("microphone") / "spoken.wav"
    pause = np.random.default_rng(0).normal(0, 0.005, RATE).astype(np.float32)
    write_wav(path, np.concatenate([pause[: RATE // 2], speak(SAID), pause]), RATE)
    with launched(microphone=path) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, server: Running) -> Iterator[Page]:
    with quiet(browser, server.url) as page:
        page.goto(server.url)
        page.get_by_role("status").get_by_text("Ready.").wait_for()
        yield page


def words_of(page: Page) -> list[str]:
    return page.locator("#text button.word .said").all_inner_texts()


def test_a_file_is_recognised_and_drawn(page: Page, recording: Path, tmp_path: Path) -> None:
    page.get_by_label("Choose a recording").set_input_files(recording)
    page.get_by_text("recognised in").wait_for()
    assert words_of(page) == SAID.split()
    assert page.locator("#text button.word .facts").first.inner_text().endswith(" %")
    page.locator("#pictures[data-drawn]").wait_for()
    drawn = """canvas => new Set(new Uint32Array(canvas.getContext("2d").getImageData(
        0, 0, canvas.width, canvas.height).data.buffer)).size"""
    assert all(canvas.evaluate(drawn) > 2 for canvas in page.locator("canvas").all())
    for name, format in (("Text", "txt"), ("Subtitles (srt)", "srt"), ("Subtitles (vtt)", "vtt")):
        with page.expect_download() as caught:
            page.get_by_role("button", name=name).click()
        assert caught.value.suggested_filename == f"speech.{format}"
        caught.value.save_as(tmp_path / f"speech.{format}")
    assert (tmp_path / "speech.txt").read_text() == f"{SAID}\n"
    (cue,) = srt.parse((tmp_path / "speech.srt").read_text())
    assert cue.content == SAID
    assert [caption.text for caption in webvtt.read(str(tmp_path / "speech.vtt")).captions] == [
        SAID
    ]
    with page.expect_download() as caught:
        page.get_by_role("button", name="JSON").click()
    caught.value.save_as(tmp_path / "speech.json")
    saved = json.loads((tmp_path / "speech.json").read_text())
    assert [word["word"] for word in saved["segments"][0]["words"]] == SAID.split()


DROP = """([content]) => { const files = new DataTransfer();
  files.items.add(new File([Uint8Array.from(content)], "dropped.wav"));
  for (const kind of ["dragenter", "drop"]) document.body.dispatchEvent(
    new DragEvent(kind, {dataTransfer: files, bubbles: true, cancelable: true})); }"""


def test_a_dropped_file_is_recognised(page: Page) -> None:
    content = io.BytesIO()
    soundfile.write(content, speak(SAID), RATE, format="WAV")
    page.evaluate(DROP, [list(content.getvalue())])
    page.get_by_text("recognised in").wait_for()
    assert words_of(page) == SAID.split()
    assert "over" not in (page.locator("#drop").get_attribute("class") or "")


def test_uncertain_words_are_marked_without_colour_too(page: Page, recording: Path) -> None:
    words = [
        {
            "word": f"w{i}",
            "start": 0.1 * i,
            "end": 0.1 * i + 0.1,
            "confidence": (0.9, 0.6, 0.3)[i % 3],
        }
        for i in range(300)
    ]
    text = " ".join(str(word["word"]) for word in words)
    done = {
        "type": "transcript.text.done",
        "duration": 30.0,
        "segments": [{"start": 0.0, "end": 30.0, "text": text}],
        "words": words,
    }
    page.route(
        "**/v1/audio/transcriptions",
        lambda route: route.fulfill(
            content_type="text/event-stream", body=f"data: {json.dumps(done)}\n\n"
        ),
    )
    page.set_viewport_size({"width": 400, "height": 300})
    page.get_by_label("Choose a recording").set_input_files(recording)
    page.get_by_text("recognised in").wait_for()
    line = "button => getComputedStyle(button.firstChild).textDecorationStyle"
    mark = 'button => getComputedStyle(button.firstChild, "::after").content'
    buttons = page.locator("#text button.word")
    assert [buttons.nth(i).evaluate(line) for i in range(3)] == ["solid", "dotted", "wavy"]
    assert [buttons.nth(i).evaluate(mark) for i in range(3)] == ["none", "none", '"?"']
    names = [buttons.nth(i).inner_text() for i in range(3)]
    assert ["uncertain" in name for name in names] == [False, True, True]
    # What only screen readers get does not lengthen the page.
    assert page.evaluate(
        "document.documentElement.scrollHeight - document.querySelector('footer').offsetTop < 200"
    )


def test_a_click_on_a_word_plays_it_and_no_more(page: Page, recording: Path) -> None:
    page.get_by_label("Choose a recording").set_input_files(recording)
    page.get_by_text("recognised in").wait_for()
    page.evaluate(
        """() => { const audio = document.getElementById("audio"); window.heard = [];
          for (const kind of ["play", "pause"])
            audio.addEventListener(kind, () => heard.push([kind, audio.currentTime])); }"""
    )
    page.locator("#text button.word", has_text="up").click()
    until(page, "heard.length === 2")
    (_, start), (_, end) = page.evaluate("heard")
    title = page.locator("#text button.word", has_text="up").get_attribute("title") or ""
    first, last = float(title.split()[0]), float(title.split()[2])
    assert start == pytest.approx(first, abs=0.1)
    assert last - 0.1 < end < last + 1.0  # of a busy machine


def test_the_keyboard_is_enough(page: Page, recording: Path) -> None:
    page.get_by_label("Choose a recording").set_input_files(recording)
    page.get_by_text("recognised in").wait_for()
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('word')"):
            break
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.firstChild.textContent") == "up"
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('audio').currentTime > 0.5")
    page.keyboard.press("Tab")  # the words are one stop
    assert page.evaluate("document.activeElement.textContent") == "Text"


def test_everything_has_a_name_for_screen_readers(page: Page, recording: Path) -> None:
    page.get_by_label("Choose a recording").set_input_files(recording)
    page.get_by_text("recognised in").wait_for()
    tree = page.locator("body").aria_snapshot()
    for landmark in ("banner", "main", "contentinfo", 'region "Text"', 'region "Sound"'):
        assert f"- {landmark}" in tree
    assert '- button "low ' in tree
    assert '- textbox "Words to expect"' in tree
    assert '- img "waveform of the whole recording"' in tree
    assert page.locator("[aria-live=polite]").inner_text().split() == SAID.split()


def test_the_microphone_gives_text_while_it_listens(browser: Browser, live: LiveServer) -> None:
    with quiet(browser, live.running.url) as page:
        page.goto(live.running.url)
        page.get_by_label("Model").select_option("tones")
        page.get_by_role("button", name="Use the microphone").click()
        page.get_by_text("Listening. Speak.").wait_for()
        page.locator("#text button.word").nth(3).wait_for()  # the pause ends the utterance
        page.get_by_role("button", name="Stop").click()
        page.get_by_text("Stopped after").wait_for()
        # The small model may take the end of the recording for one more word.
        assert words_of(page)[:4] == SAID.split()
        page.locator("#pictures[data-drawn]").wait_for()
        assert page.get_by_role("button", name="JSON").is_visible()


def test_a_server_with_too_many_listeners_says_so(browser: Browser, live: LiveServer) -> None:
    with (
        live.limited(live_sessions=0),
        quiet(browser, live.running.url) as page,
    ):
        page.goto(live.running.url)
        page.get_by_role("status").get_by_text("Ready.").wait_for()
        page.get_by_role("button", name="Use the microphone").click()
        page.get_by_role("alert").get_by_text("live sessions").wait_for()
        assert not page.get_by_role("button", name="Stop").is_visible()


def test_what_is_no_recording_is_refused(page: Page, tmp_path: Path) -> None:
    (tmp_path / "noise.txt").write_text("no recording")
    with quiet(page.context.browser, page.url, ("400",)) as other:  # type: ignore[arg-type]
        other.goto(page.url)
        other.get_by_label("Choose a recording").set_input_files(tmp_path / "noise.txt")
        alert = other.get_by_role("alert")
        alert.get_by_text("expected").wait_for()
        assert not other.get_by_role("heading", name="Sound").is_visible()
        assert "noise.txt" not in alert.inner_text()
        assert other.get_by_text("Failed.").is_visible()


def test_a_token_is_asked_for_once(
    browser: Browser, recognizer: Recognizer, recording: Path
) -> None:
    with (
        running(Engine({"tones": recognizer}, LIMITS), ServeConfig(token="secret")) as server,
        quiet(browser, server.url, ("401",)) as page,
    ):
        page.goto(server.url)
        for token in ("wrong", "secret"):
            page.get_by_role("dialog").get_by_label("Token").fill(token)
            page.get_by_role("button", name="Continue").click()
            page.wait_for_timeout(100)
        page.get_by_role("status").get_by_text("Ready.").wait_for()
        page.reload()
        page.get_by_role("status").get_by_text("Ready.").wait_for()
        assert not page.get_by_role("dialog").is_visible()
        page.get_by_label("Choose a recording").set_input_files(recording)
        page.get_by_text("recognised in").wait_for()
        page.get_by_role("button", name="Use the microphone").click()
        page.get_by_text("Listening. Speak.").wait_for()
        page.get_by_role("button", name="Stop").click()
        page.get_by_text("Stopped after").wait_for()


# --- without a browser ---


def test_static_files_may_load_nothing_from_elsewhere(server: Running) -> None:
    for path in static_files():
        answer = httpx.get(server.url + path)
        if path == "/review":  # without --review
            assert answer.status_code == 404
            continue
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "://" not in answer.text.replace("https://www.w3.org", "")
    for path in ("/page/", "/page/../page.py", "/page/%2e%2e/page.py", "/page/missing.js"):
        assert httpx.get(server.url + path).status_code == 404


def test_formats_are_those_of_transcribe(server: Running) -> None:
    answer = httpx.post(f"{server.url}/page/format?to=vtt", json=TRANSCRIPT)
    assert answer.text.startswith("WEBVTT\n\n00:00:00.100 --> ")
    assert "&lt;b&gt;up&lt;/b&gt;" in answer.text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("to", "content"),
    [
        ("exe", "{}"),
        ("srt", ""),
        ("srt", "[]"),
        ("srt", '{"seconds": NaN, "segments": []}'),
        ("srt", '{"seconds": 1, "segments": [{"start": -1, "end": 2, "text": "a"}]}'),
        ("srt", '{"seconds": 1e999, "segments": []}'),
        ("srt", '{"seconds": 1, "segments": [{"start": 0, "end": 1e308, "text": "a"}]}'),
        ("srt", "[" * 100_000),
    ],
)
def test_what_is_no_transcript_is_refused(server: Running, to: str, content: str) -> None:
    kind = {"Content-Type": "application/json"}
    answer = httpx.post(f"{server.url}/page/format?to={to}", content=content, headers=kind)
    assert answer.status_code == 422
    assert answer.json()["error"]["message"]


def test_one_error_is_made_of_many() -> None:
    with pytest.raises(ValidationError) as caught:
        _Transcript.model_validate({"seconds": 1, "segments": [{}] * 20_000})
    assert caught.value.error_count() < 10
    words: list[dict[str, str]] = [{}] * 20_000
    segment = {"start": 0, "end": 1, "text": "", "words": words}
    with pytest.raises(ValidationError) as caught:
        _Transcript.model_validate({"seconds": 1, "segments": [segment]})
    assert caught.value.error_count() < 10


def test_a_transcript_that_would_take_minutes_is_refused(server: Running) -> None:
    segment = {"start": 0, "end": 1, "text": "ก" * (MOST_CHARACTERS + 1)}
    answer = httpx.post(
        f"{server.url}/page/format?to=srt", json={"seconds": 1, "segments": [segment]}
    )
    assert answer.status_code == 413
    assert f"at most {MOST_CHARACTERS} characters" in answer.json()["error"]["message"]
