"""The page of a folder for sherpa-onnx, in a real browser: Debian's chromium, by playwright.

Skipped without them, or without onnxruntime-web (`npm install onnxruntime-web` in the checkout).
"""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asr.audio.load import write_wav
from asr.export.sherpa import export_sherpa
from tests.tones import RATE, speak, trained_tones

if TYPE_CHECKING:
    from playwright.sync_api import Page

LIBRARY = Path(__file__).resolve().parents[2] / "node_modules" / "onnxruntime-web" / "dist"
FILES = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs chromium (apt-get install chromium)")
    fake = [f"--use-fake-{what}-for-media-stream" for what in ("ui", "device")]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", *fake])
        yield browser.new_page()
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    _, model = trained_tones(tmp_path_factory.getbasetemp())
    out = tmp_path_factory.mktemp("page") / "out"
    export_sherpa(model, out)
    write_wav(out / "speech.wav", speak("low high up down"), RATE)
    return out


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_a_missing_library_is_named(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_text("Error: the folder onnxruntime-web is missing").wait_for()
    assert page.locator("#file").is_disabled()


@pytest.mark.slow
def test_the_page_recognises_a_file_and_the_microphone(
    page: Page, address: str, folder: Path
) -> None:
    if not LIBRARY.is_dir():
        pytest.skip("needs onnxruntime-web (npm install onnxruntime-web)")
    (folder / "onnxruntime-web").mkdir()
    for name in FILES:
        shutil.copy(LIBRARY / name, folder / "onnxruntime-web")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.get_by_text("Ready.").wait_for(timeout=60_000)
    page.locator("#file").set_input_files(folder / "speech.wav")
    page.get_by_text("s of audio in").wait_for()
    assert page.locator("#text").text_content() == "low high up down"
    page.locator("#record").click()
    page.get_by_text("Recording ...").wait_for()
    page.wait_for_timeout(600)  # of the browser's own beeps
    page.locator("#record").click()
    page.get_by_text("s of audio in").wait_for()
    (folder / "noise.txt").write_text("no recording")
    page.locator("#file").set_input_files(folder / "noise.txt")
    page.get_by_text("Error:").wait_for()
    assert all(url.startswith((address, "blob:", "data:")) for url in asked)
