"""The requests of the page of reviews, to a server, also to one that is killed.

Covers `asr/serving/config.py`.
"""

from __future__ import annotations

import asyncio
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile

from asr.audio.load import write_wav
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.inference.recognizer import Recognizer
from asr.serving.app import build_app
from asr.serving.config import ServeConfig
from asr.serving.engine import Engine
from asr.serving.review import open_review
from asr.serving.review_api import load
from tests.serving.conftest import LIMITS
from tests.serving.running import running
from tests.tones import RATE, speak

SAID = "<b>said</b>"
TEXTS = {"one": "low high", "a/two": "up down up", "../three": "down"}


@dataclass(frozen=True)
class Reviewing:
    """A server with a review, and where its texts are written."""

    client: httpx.Client
    written: Path

    def item(self, id: str) -> dict[str, Any]:
        answer = self.client.get("/review/item", params={"id": id})
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()
        return found

    def check(self, id: str, text: str, version: str) -> httpx.Response:
        return self.client.put("/review/item", json={"id": id, "text": text, "version": version})


def make_manifest(folder: Path) -> Path:
    utterances = []
    for number, (id, text) in enumerate(TEXTS.items()):
        samples = speak(text, number)
        write_wav(folder / "wav" / f"{number}.wav", samples, RATE)
        seconds = len(samples) / RATE
        utterances.append(Utterance(id, folder / "wav" / f"{number}.wav", "", seconds, "ann"))
    utterances.append(Utterance("gone", folder / "wav" / "gone.wav", SAID, 1.0))
    write_manifest(folder / "all.jsonl", utterances)
    return folder / "all.jsonl"


@pytest.fixture(scope="module")
def reviewing(
    recognizer: Recognizer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reviewing]:
    manifest = make_manifest(tmp_path_factory.mktemp("review"))
    with (
        open_review(manifest, print) as review,
        running(Engine({"tones": recognizer}, LIMITS), ServeConfig(review=review)) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        yield Reviewing(client, review.path)


def test_recordings_are_recognised_and_listed(reviewing: Reviewing) -> None:
    item = reviewing.item("a/two")
    assert item["text"] == item["suggestion"]["text"] == "up down up"
    assert [word["word"] for word in item["suggestion"]["words"]] == ["up", "down", "up"]
    assert all(0 <= word["confidence"] <= 1 for word in item["suggestion"]["words"])
    assert (item["origin"], item["speaker"], item["version"]) == ("suggestion", "ann", "unchecked")
    for id in TEXTS:
        reviewing.item(id)
    gone = reviewing.item("gone")
    assert gone["text"] == SAID
    assert gone["suggestion"]["error"].startswith("The recording cannot be read")
    assert "gone.wav" not in json.dumps(gone)
    listed = reviewing.client.get("/review/list").json()
    assert listed["counts"]["recognised"] == listed["counts"]["total"] == 4
    rows = [row for row in listed["items"] if not row["checked"]]
    sure = [row["confidence"] for row in rows if not row["error"]]
    assert sure == sorted(sure)
    assert rows[-1]["id"] == "gone"


def test_the_sound_is_that_of_the_utterance(reviewing: Reviewing) -> None:
    answer = reviewing.client.get("/review/audio", params={"id": "../three"})
    samples, rate = soundfile.read(io.BytesIO(answer.content))
    assert answer.headers["content-type"] == "audio/flac"
    # No page of another site can play it.
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert len(samples) / rate == pytest.approx(len(speak("down", 2)) / RATE, abs=0.001)
    missing = reviewing.client.get("/review/audio", params={"id": "gone"})
    assert missing.status_code == 404
    assert "gone.wav" not in missing.text


def test_a_segment_of_a_recording_is_loaded_alone(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", speak("low high up down"), RATE)
    utterance = Utterance("a", tmp_path / "a.wav", "", 0.2, start=0.1, end=0.3)
    assert len(load(utterance, RATE)) == 0.2 * RATE


@pytest.mark.parametrize(
    "id",
    ["", "two", "../../etc/passwd", "/etc/passwd", "three.wav", "wav/0.wav", "one\0", "é" * 999],
)
def test_only_ids_of_the_manifest_are_known(reviewing: Reviewing, id: str) -> None:
    for what in ("item", "audio"):
        answer = reviewing.client.get(f"/review/{what}", params={"id": id})
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == "expected an id of the review, got another"
    assert reviewing.check(id, "text", "unchecked").status_code == 404


def test_a_checked_text_is_written_before_the_answer(reviewing: Reviewing) -> None:
    before = reviewing.item("one")
    answer = reviewing.check("one", " low  high ", before["version"])
    assert answer.status_code == 200
    assert answer.json()["origin"] == "checked"
    (written,) = [u for u in read_manifest(reviewing.written) if u.id == "one"]
    assert (written.text, written.speaker) == ("low high", "ann")
    changed = reviewing.check("one", "other", before["version"])
    assert changed.status_code == 409
    assert changed.json()["error"]["code"] == "changed"
    assert reviewing.item("one")["text"] == "low high"


def test_a_recording_is_left_out(reviewing: Reviewing) -> None:
    version = reviewing.item("gone")["version"]
    decision = {"id": "gone", "text": None, "version": version}
    answer = reviewing.client.put("/review/item", json=decision)
    assert answer.json()["left_out"]
    assert answer.json()["origin"] == "left out"
    assert reviewing.client.get("/review/list").json()["items"][-1]["id"] == "gone"


def test_of_two_browsers_one_wins_and_the_other_is_told(reviewing: Reviewing) -> None:
    version = reviewing.item("a/two")["version"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: reviewing.check("a/two", f"text {i}", version), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + 7 * [409]
    (winner,) = [answer.json()["text"] for answer in answers if answer.status_code == 200]
    assert reviewing.item("a/two")["text"] == winner


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 422),
        (b"[]", "application/json", 422),
        (b'{"id": "one", "text": 3, "version": ""}', "application/json", 422),
        (b'{"id": "one", "text": "half \\ud800", "version": ""}', "application/json", 422),
        (b'{"id": "one", "text": "%s", "version": ""}' % (b"x" * 30_000), "application/json", 422),
        (b'{"id": "one", "text": "", "version": ""}', "text/plain", 415),
        (b"x" * (5 << 20), "application/json", 413),
    ],
)
def test_a_wrong_request_changes_nothing(
    reviewing: Reviewing, content: bytes, kind: str, status: int
) -> None:
    before = reviewing.written.read_bytes() if reviewing.written.exists() else b""
    answer = reviewing.client.put("/review/item", content=content, headers={"content-type": kind})
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    assert (reviewing.written.read_bytes() if reviewing.written.exists() else b"") == before


def test_a_page_of_another_site_cannot_check(reviewing: Reviewing) -> None:
    request = {"id": "one", "text": "evil", "version": reviewing.item("one")["version"]}
    answer = reviewing.client.put(
        "/review/item", json=request, headers={"Origin": "http://evil.example"}
    )
    assert answer.status_code == 403


def test_a_review_needs_the_token_and_its_page_does_not(
    recognizer: Recognizer, tmp_path: Path
) -> None:
    with open_review(make_manifest(tmp_path), print) as review:
        app = build_app(Engine({"tones": recognizer}, LIMITS), ServeConfig("secret", review=review))

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            paths = ("/review", "/review/list", "/review/item?id=one", "/review/audio?id=one")
            answers = [(await client.get(path)).status_code for path in paths]
            return [*answers, (await client.put("/review/item", json={})).status_code]

    assert asyncio.run(ask()) == [200, 401, 401, 401, 401]


def start(manifest: Path, model: Path) -> tuple[subprocess.Popen[str], str]:
    """A server in a process of its own, and its address."""
    options = ["--port", "0", "--review", str(manifest)]
    process = subprocess.Popen(
        [sys.executable, "-m", "asr", "serve", f"tones={model}", *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().split()[-1]


@pytest.mark.slow
def test_nothing_is_lost_when_the_server_is_killed(exported: Path, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    process, address = start(manifest, exported)
    told = {}
    with httpx.Client(base_url=address, timeout=30) as client:
        reviewing = Reviewing(client, tmp_path / "all.reviewed.jsonl")
        with ThreadPoolExecutor(3) as pool:
            versions = {id: reviewing.item(id)["version"] for id in TEXTS}
            for number in range(5):
                for id in TEXTS:
                    text = f"text {number}"
                    answer = reviewing.check(id, text, versions[id]).json()
                    told[id], versions[id] = text, answer["version"]
            # Killed while further texts arrive.
            last = [pool.submit(reviewing.check, id, "last", versions[id]) for id in TEXTS]
            process.send_signal(signal.SIGKILL)
            for id, answered in zip(TEXTS, last, strict=True):
                if answered.exception() is None and answered.result().status_code == 200:
                    told[id] = "last"
    process.wait()
    kept = {u.id: u.text for u in read_manifest(tmp_path / "all.reviewed.jsonl")}
    assert kept.keys() == told.keys()
    assert all(kept[id] in (told[id], "last") for id in told)
    process, address = start(manifest, exported)
    with httpx.Client(base_url=address, timeout=30) as client:
        assert client.get("/review/list").json()["counts"]["checked"] == len(kept)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not list(tmp_path.glob(".*"))
