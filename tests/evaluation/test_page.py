"""The page in a real browser: Debian's chromium, driven by playwright. Skipped without either.

Covers `asr/evaluation/clips.py`, `asr/evaluation/charts.py`.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from asr.dataset.shards import load_recording
from asr.evaluation import clips
from asr.evaluation.clips import embed
from asr.evaluation.error_rate import score
from asr.evaluation.page import Epoch, Extras, embedded, write_page
from asr.evaluation.report import RunFacts, build_report
from asr.evaluation.utterance import Details
from asr.inference.time_formats import Posteriors, Word

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SCRIPT = "<script>window.broken=1</script>"
FACTS = RunFacts(
    "exp/<b>model</b>", "test.jsonl", "ab" * 32, "2025-01-31", 1000, "greedy", "none", 60.0, 2.0
)
REFERENCES = {
    "u1": "turn on the light",
    "u2": "stop",
    "u3": f"say {SCRIPT} now",
    "u4": "turn it off",
}
HYPOTHESES = {
    "u1": "turn of the right",
    "u2": "stop",
    "u3": f"say {SCRIPT} how",
    "u4": "turn off",
}
SPEAKERS = {"u1": "eve", "u2": "ann", "u3": "eve", "u4": "<i>bob</i>"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs chromium (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


def tone(path: Path, seconds: float = 1.0) -> Path:
    time = np.arange(int(16000 * seconds)) / 16000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 1000 * time), 16000)
    return path


def timed(words: list[str]) -> tuple[Word, ...]:
    return tuple(Word(word, 0.2 * i, 0.2 * i + 0.15, 0.9 - 0.1 * i) for i, word in enumerate(words))


def details(name: str, folder: Path) -> Details:
    words = HYPOTHESES[name].split()
    return Details(
        speaker=SPEAKERS[name],
        seconds=1.0,
        audio=tone(folder / f"{name}.wav"),
        snr=20.0,
        words=timed(words),
        posteriors=Posteriors(33, 0.03, ((2, 5, 90), (3, 12, 60), (3, 13, 40))),
    )


@pytest.fixture(scope="module")
def report_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    known = {name: details(name, folder) for name in REFERENCES}
    report = build_report(score(REFERENCES, HYPOTHESES), known, FACTS, training={"turn": 12})
    curves = [Epoch(i, 10.0 / i, 1 / i, 1e-3) for i in range(1, 5)]
    symbols = ("<blank>", "▁", "a", "▁turn")
    write_page(report, folder / "report.html", Extras(symbols, curves))
    return folder / "report.html"


@pytest.fixture
def page(browser: Browser, report_page: Path) -> Iterator[Page]:
    """The page, opened from disk; nothing may be asked of the network, nor told on the console."""
    opened = browser.new_page()
    told: list[str] = []
    opened.on("console", lambda m: told.append(m.text) if m.type == "error" else None)
    opened.on("pageerror", lambda error: told.append(str(error)))
    opened.on(
        "request",
        lambda request: (
            told.append(request.url)
            if not request.url.startswith(("file:", "data:", "blob:"))
            else None
        ),
    )
    opened.goto(report_page.as_uri())
    opened.wait_for_selector(".row")
    yield opened
    assert told == []
    opened.close()


def ids(page: Page) -> list[str]:
    return [str(row.get_attribute("data-id")) for row in page.query_selector_all(".row")]


def test_it_opens_and_shows_the_figures(page: Page) -> None:
    tiles = page.locator(".tile").all_inner_texts()
    assert "36.36 %" in tiles[0]
    assert "4 of 11" in tiles[0]
    assert len(page.query_selector_all("svg.chart")) == 4  # three curves and the calibration
    # The first in the list, which has most errors, is open.
    assert page.inner_text("#pane h3") == ids(page)[0] == "u1"


def test_texts_from_outside_are_texts(page: Page) -> None:
    assert page.evaluate("window.broken") is None
    assert "<b>model<" in page.title()
    assert SCRIPT in page.inner_text("#list")
    page.click(".row[data-id=u3]")
    assert SCRIPT in page.inner_text("#pane")
    assert page.locator("b", has_text="model").count() == 0
    assert "<i>bob</i>" in page.inner_text("body")


def test_it_sorts(page: Page) -> None:
    page.select_option("#sort", "order")
    assert ids(page) == ["u1", "u2", "u3", "u4"]
    page.select_option("#sort", "length")
    assert ids(page)[0] == "u1"
    page.select_option("#sort", "confidence")
    assert ids(page)[0] == "u1"
    assert ids(page)[-1] == "u2"
    page.select_option("#sort", "speaker")
    assert ids(page)[0] == "u4"


def test_it_filters_by_text_errors_pairs_and_groups(page: Page) -> None:
    page.fill("#text", "TURN")
    assert ids(page) == ["u1", "u4"]
    assert page.inner_text("#count") == "2 of 4"
    page.fill("#text", "")
    page.check("#wrong")
    assert "u2" not in ids(page)
    page.uncheck("#wrong")
    page.click("button.link >> text=light → right")
    assert ids(page) == ["u1"]
    page.click("#pair")
    assert len(ids(page)) == 4
    page.get_by_role("button", name="eve", exact=True).click()
    assert sorted(ids(page)) == ["u1", "u3"]


def test_a_link_shows_all_that_it_counts(page: Page) -> None:
    page.fill("#text", "nothing is like this")
    assert ids(page) == []
    assert "show all" in page.inner_text("#pane")
    page.click("button.link >> text=light → right")
    assert ids(page) == ["u1"]
    page.click("#all")
    assert len(ids(page)) == 4


def test_normalised_words_play_as_they_were_heard(browser: Browser, tmp_path: Path) -> None:
    known = {
        name: replace(details(name, tmp_path), words=timed(["uh", *HYPOTHESES[name].split()]))
        for name in REFERENCES
    }
    write_page(build_report(score(REFERENCES, HYPOTHESES), known, FACTS), tmp_path / "report.html")
    opened = browser.new_page()
    opened.goto((tmp_path / "report.html").as_uri())
    opened.wait_for_selector("#pane audio")
    assert "before normalisation:" in opened.inner_text("#pane")
    assert opened.locator("#pane .column button:enabled").first.inner_text() == "uh"
    opened.close()


def test_what_could_not_be_read_says_why(browser: Browser, tmp_path: Path) -> None:
    known = {name: replace(details(name, tmp_path), audio=None) for name in REFERENCES}
    report = build_report(
        score(REFERENCES, HYPOTHESES), known, FACTS, unreadable={"u4": "u4.wav: no samples"}
    )
    write_page(report, tmp_path / "report.html")
    opened = browser.new_page()
    opened.goto((tmp_path / "report.html").as_uri())
    opened.wait_for_selector(".row")
    assert "u4.wav: no samples" in opened.inner_text("body")
    assert opened.locator("audio").count() == 0
    opened.close()


def test_it_draws_and_plays(page: Page) -> None:
    page.click(".row[data-id=u1]")
    page.wait_for_function("document.getElementById('pane').dataset.drawn === 'u1'")
    canvases = page.locator("#pane canvas")
    assert canvases.count() == 4

    def colours(place: int) -> int:
        return int(
            canvases.nth(place).evaluate(
                """canvas => new Set(new Uint32Array(canvas.getContext("2d").getImageData(
                    0, 0, canvas.width, canvas.height).data.buffer)).size"""
            )
        )

    assert all(colours(place) > 3 for place in range(4))
    # The tone of 1 kHz is the brightest row of the spectrogram: an eighth of the way up.
    brightest: Any = canvases.nth(0).evaluate(
        """canvas => { const pixels = canvas.getContext("2d").getImageData(
            Math.floor(canvas.width / 2), 0, 1, canvas.height).data;
          let best = 0, row = 0;
          for (let y = 0; y < canvas.height; y++) {
            const light = pixels[4 * y] + pixels[4 * y + 1] + pixels[4 * y + 2];
            if (light > best) { best = light; row = y; }
          }
          return 1 - row / canvas.height; }"""
    )
    assert 0.10 < brightest < 0.15
    # A word is short: a busy machine may look for the first time when it has been played.
    page.evaluate("document.addEventListener('play', () => { window.played = true; }, true)")
    page.evaluate("document.addEventListener('ended', () => { window.ended = true; }, true)")
    page.click("#pane .column button >> text=right")
    page.wait_for_function("window.played === true")
    assert page.evaluate("document.querySelector('audio').currentTime") >= 0.6
    page.wait_for_function("window.ended === true")  # Chromium fails at the end of FLAC
    assert page.locator("#pane audio").count() == 1


def test_rows_out_of_view_do_not_exist(browser: Browser, tmp_path: Path) -> None:
    references = {f"u{i:05}": f"one two {i}" for i in range(3000)}
    report = build_report(score(references, references), {}, FACTS)
    write_page(report, tmp_path / "many.html")
    opened = browser.new_page()
    opened.goto((tmp_path / "many.html").as_uri())
    opened.wait_for_selector(".row")
    assert 10 < len(ids(opened)) < 60
    opened.evaluate("document.getElementById('list').scrollTop = 1e9")
    opened.wait_for_selector(".row[data-id=u02999]")
    opened.focus("#list")
    opened.keyboard.press("ArrowDown")
    assert opened.inner_text("#pane h3") == "u00001"
    opened.close()


def test_a_new_size_draws_anew_and_lets_the_recording_play(page: Page) -> None:
    page.click(".row[data-id=u1]")
    page.wait_for_function("document.getElementById('pane').dataset.drawn === 'u1'")
    page.evaluate("window.before = document.querySelector('#pane audio')")
    width = page.locator("#pane canvas").nth(0).evaluate("canvas => canvas.width")
    page.set_viewport_size({"width": 1000, "height": 700})
    page.wait_for_function(
        "width => ![0, width].includes(document.querySelector('#pane canvas').width)", arg=width
    )
    assert page.evaluate("window.before === document.querySelector('#pane audio')")


def test_of_a_linked_stretch_the_rest_is_not_drawn(browser: Browser, tmp_path: Path) -> None:
    tone(tmp_path / "long.wav", 4.0)
    (tmp_path / "page.html").write_text("<!doctype html><title>empty</title>")
    script = Path(clips.__file__).parent / "templates" / "spectrogram.js"
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    opened = browser.new_page()
    try:
        opened.goto(f"http://127.0.0.1:{server.server_port}/page.html")
        opened.add_script_tag(path=script)
        for fragment, seconds in (("", 4.0), ("#t=1", 3.0), ("#t=1.5,2.25", 0.75)):
            count = opened.evaluate(f"loadSamples('long.wav{fragment}').then(s => s.length)")
            assert count == 16000 * seconds
    finally:
        opened.close()
        server.shutdown()
        server.server_close()


def test_recordings_beyond_the_room_are_linked(tmp_path: Path) -> None:
    known = {name: details(name, tmp_path) for name in REFERENCES}
    report = build_report(score(REFERENCES, HYPOTHESES), known, FACTS)
    write_page(report, tmp_path / "report.html", Extras(audio_megabytes=0))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "data:audio" not in page
    assert '"a":"u1.wav"' in page
    # Room for about one: that with the most errors.
    write_page(report, tmp_path / "report.html", Extras(audio_megabytes=0.015))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:audio/flac") == 1
    assert '"a":"u1.wav"' not in page


def test_one_long_recording_keeps_no_other_out(tmp_path: Path) -> None:
    known = {name: details(name, tmp_path) for name in REFERENCES}
    for name, seconds in (("u1", 60.0), ("u3", None)):
        long = tone(tmp_path / f"{name}.wav", 60.0)
        known[name] = replace(known[name], audio=long, seconds=seconds)
    assert set(embed(["u1", "u3", "u4", "u2"], known, 0.05)) == {"u4", "u2"}


def test_what_finds_no_room_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    known = {}
    for i in range(200):
        seconds = float(random.uniform(0.5, 1.5))
        path = tmp_path / f"u{i}.wav"
        soundfile.write(path, random.normal(0, 0.1, int(seconds * 16000)), 16000)
        known[f"u{i}"] = Details(audio=path, seconds=seconds)
    read = []

    def load(path: Path, *rest: Any) -> Any:
        read.append(path)
        return load_recording(path, *rest)

    monkeypatch.setattr(clips, "load_recording", load)
    embedded_ones = embed(known, known, 0.25)
    assert 5 < len(embedded_ones) < 15
    assert len(read) <= len(embedded_ones) + clips.MOST_MISSES
    # What is left of the room holds no more than a short one.
    left = 0.25 * clips.MEGABYTE - sum(map(len, embedded_ones.values()))
    assert left < 1.5 * 16000 * 2 * 4 / 3
    for name, row in known.items():
        known[name] = replace(row, seconds=None)
    read.clear()
    assert len(embed(known, known, 0.25)) > 5
    assert len(read) < 50


def test_data_in_a_script_element_ends_no_script() -> None:
    text = str(embedded({"text": "</script><!-- & \u2028"}))
    assert not set("<>&\u2028") & set(text)
