"""The protocol of vosk's server, with a client of websockets.

Covers `asr/serving/vosk_api.py` and `asr/serving/sockets.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from asr.audio.load import write_wav
from tests.serving.live_server import LiveServer, talk
from tests.tones import RATE

CONFIG = {"sample_rate": RATE}


def ask(client: ClientConnection, message: Any) -> dict[str, Any]:
    client.send(message if isinstance(message, bytes) else json.dumps(message))
    answer = json.loads(client.recv(timeout=20))
    assert isinstance(answer, dict)
    return answer


def to_the_end(client: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """What the server says until it closes, and its code."""
    found = []
    with contextlib.suppress(ConnectionClosed):
        for message in client:
            found.append(json.loads(message))
    assert client.close_code is not None
    return found, client.close_code


def recognised(
    client: ClientConnection, samples: np.ndarray, config: dict[str, Any], step: int = 800
) -> list[dict[str, Any]]:
    """The answers to a block at a time, and to the end."""
    client.send(json.dumps({"config": config}))
    blocks = [samples[at : at + step].tobytes() for at in range(0, len(samples), step)]
    return [*(ask(client, block) for block in blocks), ask(client, {"eof": 1})]


def texts(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["text"] for answer in answers if answer.get("text")]


@pytest.mark.parametrize("model", ["tones", "streaming"])
def test_each_block_has_an_answer_and_each_utterance_a_result(live: LiveServer, model: str) -> None:
    with connect(f"{live.address}/vosk?model={model}") as client:
        answers = recognised(client, talk(), CONFIG, RATE // 2)
        assert to_the_end(client) == ([], 1000)
    assert texts(answers) == live.finals(model, talk())
    assert len(texts(answers)) == 2
    assert any(answer.get("partial") for answer in answers)
    assert all(("partial" in answer) != ("text" in answer) for answer in answers)
    assert "text" in answers[-1]
    for answer in answers:
        if "result" in answer:
            assert " ".join(word["word"] for word in answer["result"]) == answer["text"]
            for word in answer["result"]:
                assert 0 <= word["start"] < word["end"] <= len(talk()) / RATE
                assert 0 <= word["conf"] <= 1


def test_the_client_in_the_package_of_vosk(live: LiveServer) -> None:
    package = pytest.importorskip("vosk.transcriber.transcriber")
    client = package.Transcriber.__new__(package.Transcriber)  # without a model
    client.args = SimpleNamespace(server=f"{live.address}/vosk", output_type="txt")

    async def check() -> tuple[list[dict[str, Any]], int]:
        decoded = asyncio.StreamReader()
        decoded.feed_data(np.repeat(talk(), 16000 // RATE).tobytes())
        decoded.feed_eof()
        results = await client.recognize_stream_server(SimpleNamespace(stdout=decoded))
        assert isinstance(results, tuple)
        return results

    results, _ = asyncio.run(check())
    twice = np.repeat(talk(), 16000 // RATE)
    found = live.models["tones"].live([twice], 16000)
    assert client.format_result(results).splitlines() == [t.text for t in found if t.is_final]
    assert len(texts(results)) == 2


def test_results_as_the_client_wants_them(live: LiveServer) -> None:
    rate = 2 * RATE
    with connect(f"{live.address}/vosk") as client:
        config = {"sample_rate": float(rate), "words": 0, "phrase_list": ["low high", "[unk]"]}
        answers = recognised(client, np.repeat(talk(), 2), config, 10**6)
    assert len(texts(answers)) == 1  # two utterances in one message
    assert not any("result" in answer for answer in answers)
    with connect(f"{live.address}/vosk") as client:
        config = {**CONFIG, "max_alternatives": 3, "model": "tones", "phrase_list": []}
        *_, last = recognised(client, talk()[: -RATE // 2], config)
    ((best,),) = last.values()
    assert best["text"] == live.finals("tones", talk())[-1]
    assert 0 < best["confidence"] <= 1


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        (["hello"], "expected a JSON object"),
        (["[" * 100_000], "expected a JSON object"),
        (["[1]"], "expected a JSON object"),
        (['{"other": 1}'], "expected audio or eof, or before both config"),
        (['{"config": 3}'], "expected config as an object"),
        (['{"config": {"sample_rate": "NaN"}}'], "expected sample_rate"),
        (['{"config": {"sample_rate": 1e99}}'], "expected sample_rate"),
        (['{"config": {"sample_rate": [8000]}}'], "expected sample_rate"),
        (['{"config": {"max_alternatives": "x"}}'], "expected max_alternatives"),
        (['{"config": {"phrase_list": "up"}}'], "expected phrase_list"),
        (['{"config": {"phrase_list": [1]}}'], "expected phrase_list"),
        ([json.dumps({"config": {"phrase_list": ["up"] * 1000}})], "at most"),
        (['{"config": {"phrase_list": ["\\ud800"]}}', bytes(2)], "hot word"),
        (['{"config": {"model": "../../etc"}}', bytes(2)], "expected one of the models"),
        (['{"config": {"model": 3}}'], "expected model"),
        ([bytes(3)], "expected 16-bit samples, got 3 bytes"),
        ([bytes(2), '{"config": {}}'], "expected audio or eof, or before both config"),
    ],
)
def test_garbage_is_answered_by_one_error_and_cut_off(
    live: LiveServer, messages: list[str | bytes], says: str
) -> None:
    with connect(f"{live.address}/vosk") as client:
        for message in messages:
            client.send(message)
        found, code = to_the_end(client)
    assert code == 1008
    errors = [answer["error"] for answer in found if "error" in answer]
    assert len(errors) == 1 == len(found[-1])
    assert says in errors[0]
    assert "/" not in errors[0].replace("../../etc", "")
    assert len(errors[0]) < 300


def test_clients_that_are_silent_or_too_many_are_cut_off(live: LiveServer) -> None:
    address = f"{live.address}/vosk"
    with live.limited(live_idle_s=0.1), connect(address) as client:
        assert "expected a message" in json.loads(client.recv(timeout=20))["error"]
    with live.limited(live_sessions=0), connect(address) as client:
        (answer,), code = to_the_end(client)
    assert "too many" in answer["error"]
    assert code == 1013


def test_the_place_of_a_client_that_goes_is_free_again(live: LiveServer) -> None:
    until = time.monotonic() + 20
    with live.limited(live_sessions=1):
        for _ in range(3):
            answer: dict[str, Any] = {}
            while "partial" not in answer:
                assert time.monotonic() < until
                with connect(f"{live.address}/vosk") as client:
                    answer = ask(client, talk()[:RATE].tobytes())
                    client.close_socket()  # without a word


@pytest.mark.filterwarnings("ignore:connect:DeprecationWarning")  # in OpenAI's client
def test_the_examples_of_the_documentation(
    live: LiveServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "serving.md"
    section = page.read_text().partition("## Live sockets")[2].partition("## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.S)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    write_wav(tmp_path / "call.wav", talk() / 32768, RATE)
    for code in blocks:
        here = code.replace("localhost:8000", f"127.0.0.1:{live.running.port}")
        names = {"samples": np.repeat(talk(), 2).tobytes()}
        exec(compile(here.replace("an4", "tones"), "docs/serving.md", "exec"), names)
    said = capsys.readouterr().out
    for text in live.finals("tones", talk()):
        assert f'"text": "{text}"' in said
    assert said.splitlines()[-1] == live.finals("tones", talk())[0]
