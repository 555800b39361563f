"""OpenAI's form, with its own client.

Covers `asr/serving/openai_api.py`, `asr/serving/openai_request.py`,
`asr/serving/openai_answers.py`, `asr/serving/upload.py`, `asr/serving/app.py`,
`asr/serving/config.py`, `asr/serving/limits.py` and `asr/serving/hot_words.py`.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile
import srt
import webvtt

from asr.audio.vad import SpeechDetector, speech_detector
from asr.inference import long_form
from asr.inference.recognizer import Recognizer
from asr.serving.hot_words import phrases_of
from tests.serving.running import Running
from tests.tones import RATE, sentence, speak

SPEECH = speak("low high up down", 3)


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV")
    return file.getvalue()


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0)


@pytest.fixture(scope="module")
def expected(recognizer: Recognizer) -> Any:
    return recognizer.transcribe(wav(SPEECH))


def create(client: openai.OpenAI, content: bytes = wav(SPEECH), **options: Any) -> Any:
    return client.audio.transcriptions.create(model="tones", file=("a.wav", content), **options)


def post(server: Running, fields: Any = None, content: bytes | None = wav(SPEECH)) -> Any:
    files = {} if content is None else {"file": ("a.wav", content)}
    return httpx.post(f"{server.url}/v1/audio/transcriptions", data=fields or {}, files=files)


def test_texts_are_those_of_the_recognizer(client: openai.OpenAI, recognizer: Recognizer) -> None:
    for seed in (1, 2, 3):
        content = wav(speak(sentence(seed), seed))
        result = create(client, content)
        assert result.text == recognizer.transcribe(content).text != ""
        assert result.usage.type == "duration"


def test_each_format(client: openai.OpenAI, expected: Any) -> None:
    assert create(client, response_format="text") == expected.text + "\n"
    (cue,) = srt.parse(create(client, response_format="srt"))
    assert cue.content.split() == expected.text.split()
    (caption,) = webvtt.from_string(create(client, response_format="vtt")).captions
    assert caption.text.split() == expected.text.split()
    verbose = create(client, response_format="verbose_json")
    assert (verbose.text, verbose.words) == (expected.text, None)
    assert verbose.duration == pytest.approx(len(SPEECH) / RATE, abs=0.001)
    (segment,) = verbose.segments
    assert (segment.id, segment.start, segment.text) == (0, 0.0, expected.text)
    assert segment.avg_logprob < 0


def test_times_of_words(client: openai.OpenAI, expected: Any) -> None:
    both = create(
        client, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    words = create(client, response_format="verbose_json", timestamp_granularities=["word"])
    assert [(w.word, w.start, w.end) for w in words.words] == [
        (w.text, w.start, w.end) for w in expected.words
    ]
    assert words.words[0].confidence == pytest.approx(expected.words[0].confidence, abs=1e-3)
    assert (words.segments, len(both.segments)) == (None, 1)
    assert both.words == words.words


def test_log_probabilities_of_words(client: openai.OpenAI, expected: Any) -> None:
    result = create(client, include=["logprobs"])
    assert "".join(row.token for row in result.logprobs) == expected.text
    assert bytes(map(int, result.logprobs[1].bytes)) == result.logprobs[1].token.encode()
    for row, word in zip(result.logprobs, expected.words, strict=True):
        assert np.exp(row.logprob) == pytest.approx(word.confidence, abs=1e-3)


def test_what_has_no_effect_is_taken(client: openai.OpenAI, expected: Any) -> None:
    for strategy in ("auto", {"type": "server_vad", "threshold": 0.5}):
        result = create(
            client,
            chunking_strategy=strategy,
            language="en",
            temperature=0.2,
            response_format="verbose_json",
        )
        assert (result.text, result.language) == (expected.text, "en")


def test_a_stream_has_a_delta_for_each_segment(
    client: openai.OpenAI, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def detector(rate: int, kind: str | None) -> SpeechDetector:
        return speech_detector(rate, "energy")  # tones are no speech to silero's

    monkeypatch.setattr(long_form, "speech_detector", detector)
    quiet = np.zeros(2 * RATE, np.float32)
    parts = [quiet]
    for seed in range(12):
        parts += [speak(sentence(seed), seed), quiet]
    content = wav(np.concatenate(parts))
    *deltas, done = create(client, content, stream=True, include=["logprobs"])
    text = recognizer.transcribe(content).text
    assert len(deltas) > 1
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert "".join(event.delta for event in deltas) == text
    assert (done.type, done.text) == ("transcript.text.done", text)
    assert len(done.logprobs) == len(text.split())
    assert create(client, content).text == text


def test_a_stream_of_what_is_no_audio_has_a_status(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="decodable audio"):
        create(client, b"no audio at all", stream=True)


def test_keywords_are_hot_words(client: openai.OpenAI) -> None:
    """They raise the score of a word in noise that would be none."""
    noise = wav(np.random.default_rng(0).normal(0, 0.05, RATE).astype(np.float32))
    plain = create(client, noise).text
    hot = create(client, noise, extra_body={"keywords": ["Low=50"]})
    assert "low" not in plain.split()
    assert "low" in hot.text.split()


def test_the_parts_of_a_prompt_that_can_be_words_are_hot(recognizer: Recognizer) -> None:
    prompt = "Low up, 12345! A sentence of more than four words; high\nHigh"
    assert phrases_of(prompt, recognizer) == ("Low up", "high")
    assert phrases_of("", recognizer) == ()
    assert phrases_of(prompt, recognizer, ["LOW  up=3", "low=="]) == ("high",)
    words = replace(recognizer.decoder, lexicon=("high", "low"))
    assert phrases_of(prompt, replace(recognizer, decoder=words)) == ("high",)


def test_models(client: openai.OpenAI) -> None:
    (row,) = client.models.list().data
    assert (row.id, row.object) == ("tones", "model")
    assert client.models.retrieve("tones") == row
    with pytest.raises(openai.NotFoundError, match="one of the models tones"):
        client.models.retrieve("a/b")


def test_the_only_model_need_not_be_named(server: Running, expected: Any) -> None:
    assert post(server).json()["text"] == expected.text


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"model": "whisper-1"}, "model", "one of the models tones, got 'whisper-1'"),
        ({"response_format": "xml"}, "response_format", "json, text, srt, verbose_json or vtt"),
        ({"temperature": "hot"}, "temperature", "from 0 to 1"),
        ({"temperature": "nan"}, "temperature", "from 0 to 1"),
        ({"language": "english!"}, "language", "a code such as en"),
        ({"stream": "perhaps"}, "stream", "true or false"),
        (
            {"stream": "true", "response_format": "srt"},
            "stream",
            "json, text or verbose_json with stream",
        ),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities", "verbose_json with"),
        ({"include[]": "everything"}, "include", "logprobs"),
        ({"keywords[]": "Łódź"}, "keywords", "spell it otherwise"),
        ({"keywords[]": "low " * 26}, "keywords", "at most 100 characters, got 104"),
        ({"keywords[]": ["low"] * 201}, "keywords", "at most 200"),
        ({"model": ["tones", "tones"]}, "model", "once, got it 2 times"),
        ({"hot_words": "low"}, "hot_words", "got 'hot_words'"),
    ],
)
def test_wrong_fields(server: Running, fields: Any, param: str, said: str) -> None:
    answer = post(server, fields)
    error = answer.json()["error"]
    assert answer.status_code == (404 if said.startswith("one of") else 400)
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert said in error["message"]


def test_wrong_files(server: Running) -> None:
    for content in (None, b""):
        answer = post(server, {"model": "tones"} if content is None else None, content)
        assert (answer.status_code, answer.json()["error"]["param"]) in [(400, "file"), (415, None)]
    answer = post(server, content=b"<?xml version='1.0'?>" * 9)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_audio")
    assert error["message"].startswith("expected decodable audio")
    assert "bytes>" not in error["message"]


def test_what_is_no_form(server: Running) -> None:
    url = f"{server.url}/v1/audio/transcriptions"
    assert httpx.post(url, json={"model": "tones"}).status_code == 415
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x"):
        answer = httpx.post(url, content=b"--y\r\n\r\n", headers={"Content-Type": kind})
        assert answer.status_code == 400
        assert answer.json()["error"]["message"].startswith("expected a form")


@pytest.mark.parametrize("charset", ["unicode_escape", "punycode", "idna", "undefined"])
def test_a_form_in_another_charset_is_refused(server: Running, charset: str) -> None:
    """Half of a character cannot be answered in UTF-8, and some of Python's codecs are slow."""
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    content = b'--x\r\nContent-Disposition: form-data; name="\\ud800"\r\n\r\n1\r\n--x--\r\n'
    url = f"{server.url}/v1/audio/transcriptions"
    answer = httpx.post(url, content=content, headers={"Content-Type": kind})
    assert answer.status_code == 415
    assert answer.json()["error"]["message"] == f"expected a form in UTF-8, got {charset!r}"
    kind = "Multipart/Form-Data; boundary=x; charset=UTF-8"
    answer = httpx.post(url, content=content, headers={"Content-Type": kind})
    assert answer.status_code == 400


def test_audio_that_stops_halfway_gives_its_text_and_a_warning(server: Running) -> None:
    whole = np.concatenate([SPEECH, np.full(RATE, np.nan, np.float32)])
    file = io.BytesIO()
    soundfile.write(file, whole, RATE, format="WAV", subtype="FLOAT")
    answer = post(server, content=file.getvalue())
    assert (answer.status_code, answer.json()["text"]) == (200, "low high up down")
    assert answer.json()["warning"].startswith("at 0.81 s: expected samples within [-1, 1]")
    assert answer.headers["X-Warning"] == answer.json()["warning"]
