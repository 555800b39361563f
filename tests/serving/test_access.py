"""Who gets in, what is refused, and that nobody can hold the server up.

Covers `asr/serving/auth.py`, `asr/serving/errors.py`, `asr/serving/connections.py`,
`asr/serving/server.py`, `asr/serving/metrics.py`, `asr/serving/drained.py` and
`asr/serving/while_connected.py`.
"""

from __future__ import annotations

import io
import json
import mimetypes
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile
import websockets.sync.client as websockets
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from asr.errors import AsrError
from asr.inference.recognizer import Recognizer
from asr.serving.config import ServeConfig
from asr.serving.engine import Engine
from asr.serving.limits import Limits
from asr.serving.server import listen
from tests.serving.running import Running, running
from tests.tones import RATE, speak

LIMITS = Limits(
    decoders=1, idle_s=0.5, connections=20, upload_bytes=50_000, held_bytes=60_000, queue=4
)
CONFIG = ServeConfig("secret", ("https://example.org",), frozenset({"127.0.0.1", "asr.lan"}))
KEY = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def guarded(recognizer: Recognizer) -> Iterator[Running]:
    """A server with a token and narrow limits."""
    engine = Engine({"tones": recognizer}, LIMITS, "energy")
    engine._warm_up = lambda: None  # type: ignore[method-assign]
    with running(engine, CONFIG) as started:
        yield started


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV")
    return file.getvalue()


def post(server: Running, content: bytes, **headers: str) -> httpx.Response:
    url = f"{server.url}/v1/audio/transcriptions"
    return httpx.post(url, files={"file": ("a.wav", content)}, headers=KEY | headers)


def test_only_those_with_the_token_get_in(guarded: Running) -> None:
    for key in ("secre", "secret1", "sécret"):
        headers = {b"Authorization": f"Bearer {key}".encode()}
        answer = httpx.get(f"{guarded.url}/v1/models", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for path in ("/v1/models", "/metrics", "/nowhere"):
        assert httpx.get(guarded.url + path).status_code == 401
    assert httpx.get(f"{guarded.url}/health").json() == {"status": "ok"}
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(api_key="other", base_url=f"{guarded.url}/v1").models.list()
    models = openai.OpenAI(api_key="secret", base_url=f"{guarded.url}/v1").models.list()
    assert [model.id for model in models] == ["tones"]


def test_sockets_need_the_token_too(guarded: Running) -> None:
    url = f"ws://127.0.0.1:{guarded.port}/v1/realtime?intent=transcription"
    with pytest.raises(InvalidStatus):
        websockets.connect(url)
    with pytest.raises(InvalidStatus):
        websockets.connect(url, additional_headers=KEY, origin=Origin("https://evil.example"))
    protocols: Any = ["realtime", "openai-insecure-api-key.secret"]
    with websockets.connect(url, subprotocols=protocols) as client:
        assert client.subprotocol == "realtime"


def test_pages_of_other_sites_are_refused(guarded: Running) -> None:
    """Even with the token, and even where the browser asks nobody before it sends a form."""
    content = wav(speak("low"))
    assert post(guarded, content, Origin="https://evil.example").status_code == 403
    assert post(guarded, content, Origin="null").status_code == 403
    assert post(guarded, content, Origin="http://[").status_code == 403
    assert post(guarded, content, Origin="https://example.org").status_code == 200
    assert post(guarded, content, Origin=guarded.url).status_code == 200
    preflight = {"Access-Control-Request-Method": "POST"}
    for origin, allowed in (("https://example.org", True), ("https://evil.example", False)):
        answer = httpx.options(
            f"{guarded.url}/v1/audio/transcriptions", headers=preflight | {"Origin": origin}
        )
        assert ("access-control-allow-origin" in answer.headers) == allowed


def test_names_that_are_not_the_servers_are_refused(guarded: Running) -> None:
    """A page can make its own name mean this machine, and is then of the same site."""
    for host, status in (
        (f"asr.lan:{guarded.port}", 200),
        ("example.org", 200),
        ("evil.example", 403),
        ("[", 403),
    ):
        answer = httpx.get(f"{guarded.url}/v1/models", headers=KEY | {"Host": host})
        assert answer.status_code == status


def test_without_leave_no_other_page_may_read(server: Running) -> None:
    headers = {"Origin": "https://example.org", "Access-Control-Request-Method": "GET"}
    for answer in (
        httpx.options(f"{server.url}/v1/models", headers=headers),
        httpx.get(f"{server.url}/v1/models", headers=headers),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_wrong_addresses_and_methods(guarded: Running) -> None:
    for method, path, status in (
        ("GET", "/nowhere", 404),
        ("GET", "/v1/models/x", 404),
        ("GET", "/v1/audio/transcriptions", 405),
        ("DELETE", "/v1/models", 405),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/../../etc/passwd", 404),
    ):
        answer = httpx.request(method, guarded.url + path, headers=KEY)
        assert answer.status_code == status
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert "server" not in answer.headers


def test_an_unexpected_failure_tells_nothing(
    guarded: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError("/secret/path")

    monkeypatch.setattr(guarded.engine, "transcribe", fail)
    answer = post(guarded, wav(speak("low")))
    assert answer.status_code == 500
    assert answer.json()["error"] == {
        "message": "the server has failed at this request",
        "type": "server_error",
        "param": None,
        "code": None,
    }


def test_too_much_is_refused(guarded: Running) -> None:
    answer = post(guarded, wav(np.zeros(60_000, np.float32)))
    assert answer.status_code == 413
    assert answer.json()["error"]["message"].startswith("expected at most 0.0")

    def chunks() -> Iterator[bytes]:
        yield b"--x\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n"
        for _ in range(60):
            yield bytes(1000)

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    url = f"{guarded.url}/v1/audio/transcriptions"
    assert httpx.post(url, content=chunks(), headers=KEY | kind).status_code == 413
    guarded_held = 59_000
    state: Any = guarded.app.state
    state.held.size += guarded_held
    try:
        answer = post(guarded, wav(speak("low high")))
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
    finally:
        state.held.size -= guarded_held
    assert (post(guarded, wav(speak("low"))).status_code, state.held.size) == (200, 0)


def test_the_answer_to_a_large_upload_is_not_lost(guarded: Running) -> None:
    """Nor if it is refused before a byte of it is read."""
    content = bytes(8 << 20)
    assert post(guarded, content).status_code == 413
    assert post(guarded, content, Authorization="Bearer x").status_code == 401


def test_a_client_that_asks_first_need_not_send(guarded: Running) -> None:
    form = FORM.replace(b"40000", b"90000\r\nExpect: 100-continue")
    found, _ = exchange(guarded, HEAD + form)
    assert found.startswith(b"HTTP/1.1 413 ")


def test_a_full_queue_says_when_to_come_again(guarded: Running) -> None:
    guarded.engine._accepted += 4
    try:
        answer = post(guarded, wav(speak("low")))
    finally:
        guarded.engine._accepted -= 4
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["error"]["type"] == "rate_limit_error"


def test_no_request_opens_a_file(guarded: Running) -> None:
    opened: list[object] = []
    watching = True

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event in ("open", "os.listdir", "os.mkdir", "os.remove", "os.rename"):
            opened.append(arguments[0])

    url = f"{guarded.url}/v1/audio/transcriptions"
    with httpx.Client(headers=KEY) as client:
        client.get(f"{guarded.url}/health")
        mimetypes.init()  # which the client reads
        sys.addaudithook(note)
        try:
            for name in ("../../etc/passwd", "/etc/passwd", "a.wav"):
                files = {"file": (name, wav(speak("low")))}
                client.post(url, files=files, data={"model": name, "keywords[]": name})
                assert client.post(url, files=files).status_code == 200
            client.get(f"{guarded.url}/v1/models//etc/passwd")
            client.get(f"{guarded.url}/%2e%2e/%2e%2e/etc/passwd")
        finally:
            watching = False
    assert opened == []


def exchange(server: Running, *parts: bytes, pause: float = 0.0) -> tuple[bytes, float]:
    """What the server sends until it closes the connection, and how long that took."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        begun, found = time.monotonic(), b""

        def send() -> None:
            try:
                for part in parts:
                    connection.sendall(part)
                    time.sleep(pause)
            except OSError:
                pass

        sender = threading.Thread(target=send)
        sender.start()
        while part := connection.recv(65536):
            found += part
        took = time.monotonic() - begun
        sender.join()
    return found, took


HEAD = (
    b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: asr.lan\r\nAuthorization: Bearer secret\r\n"
)
FORM = b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 40000\r\n\r\n"


@pytest.mark.parametrize(
    ("parts", "pause"),
    [
        ([], 0.0),
        ([b"GET /hea"], 0.0),
        ([b"G", b"E", b"T", b" ", *([b"/"] * 20)], 0.1),
        ([HEAD + FORM], 0.0),
        ([HEAD + FORM, *([b"-"] * 20)], 0.1),
        ([HEAD + FORM.replace(b"multipart", b"nothing"), *([b"-"] * 20)], 0.1),
    ],
    ids=["nothing", "half a head", "slow head", "no body", "slow body", "body of a refused one"],
)
def test_those_who_dawdle_are_cut_off(guarded: Running, parts: list[bytes], pause: float) -> None:
    found, took = exchange(guarded, *parts, pause=pause)
    assert took > 0.3
    assert b"HTTP/1.1 4" in found
    body = found.partition(b"\r\n\r\n")[2]
    assert json.loads(body)["error"]["message"].startswith("expected")


def test_what_is_no_http(guarded: Running) -> None:
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", b"GET / HTTP/9\r\n\r\n"):
        found, took = exchange(guarded, garbage)
        head, _, body = found.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert json.loads(body)["error"]["message"].startswith("expected a request in HTTP/1.1")
        assert took < 5  # at once, and not after a time limit


def test_connections_are_limited(guarded: Running) -> None:
    held = [socket.create_connection(("127.0.0.1", guarded.port)) for _ in range(20)]
    try:
        found, _ = exchange(guarded)
        assert found.startswith(b"HTTP/1.1 503 ")
    finally:
        for connection in held:
            connection.close()
    until = time.monotonic() + 10  # the server sees the ends one by one
    while httpx.get(f"{guarded.url}/health").status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_request_that_takes_too_long_is_ended(
    guarded: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    begun, cancelled = threading.Event(), threading.Event()

    async def dawdle(*_: object, **__: object) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    monkeypatch.setattr(guarded.engine, "transcribe", dawdle)
    found, _ = exchange(guarded, b"GET /health HTTP/1.1\r\nHost: asr.lan\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 200 ")
    url = f"{guarded.url}/v1/audio/transcriptions"
    files = {"file": ("a.wav", wav(speak("low")))}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url, files=files, headers=KEY, timeout=1)
    assert begun.is_set()
    assert cancelled.wait(10)  # nobody waits for the text any more
    for layer in layers(guarded.app):
        if hasattr(layer, "_most"):
            monkeypatch.setattr(layer, "_most", 0.2)
    answer = post(guarded, wav(speak("low")))
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "server_error")


def layers(app: Any) -> Iterator[Any]:
    """The middleware of an application, from the outside."""
    layer = app.middleware_stack
    while layer is not None:
        yield layer
        layer = getattr(layer, "app", None) or getattr(layer, "_app", None)


def test_metrics(server: Running) -> None:
    httpx.post(
        f"{server.url}/v1/audio/transcriptions", files={"file": ("a.wav", wav(speak("low")))}
    )
    httpx.get(f"{server.url}/nowhere/123")
    answer = httpx.get(f"{server.url}/metrics")
    found = {
        (sample.name, sample.labels.get("path"), sample.labels.get("status")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    path = "/v1/audio/transcriptions"
    assert found["asr_requests_total", path, "200"] >= 1
    assert found["asr_requests_total", "other", "404"] >= 1
    assert found["asr_request_seconds_count", path, None] >= 1
    assert found["asr_audio_seconds_total", None, None] > 0
    assert found["asr_recognition_seconds_total", None, None] > 0
    assert found["asr_queue_requests", None, None] == 0
    assert ("asr_requests_total", "/nowhere/123", "404") not in found


def test_answers_do_not_wait_for_the_client_to_confirm_their_head() -> None:
    """Nagle's algorithm and delayed acknowledgement together take 40 ms for each of them."""
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_in_use_is_one_line() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(AsrError, match=f"got 127.0.0.1 port {port} .*another --host or"):
            listen("127.0.0.1", port)
    with pytest.raises(AsrError, match="expected an address to listen at"):
        listen("no-such-host.invalid", 0)
    for host in ("a..b", "a" * 64 + ".org"):  # no host can have such a name
        with pytest.raises(AsrError, match="expected an address to listen at"):
            listen(host, 0)
