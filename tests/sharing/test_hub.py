"""Models on the hub: the real client against a hub on this machine.

Covers `asr/cli/models.py`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from asr.errors import AsrError
from asr.io.caches import private_folder
from asr.sharing.hub import pull, pull_pretrained, push
from asr.sharing.package import pack
from tests.commands import Command
from tests.pretrained import write_network
from tests.sharing.fake_hub import Hub, running
from tests.sharing.models import INFO, make_model
from tests.sharing.test_package import contents

# The client itself causes it in httpx2.
pytestmark = pytest.mark.filterwarnings("ignore:Use .content:DeprecationWarning")

TOKEN = "hf_secretsecretsecret"
NAME = "ann/tones"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """An empty hub; the client talks to it, with a token, and not to the real one."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    hub = Hub(token=TOKEN)
    disable_progress_bars()
    with running(hub) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        files = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        # The faster storage of large files has a protocol of its own.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        # Other tests of this process may have imported the client as offline.
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield hub


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("runs") / "tones")


def test_a_model_goes_up_and_comes_down(hub: Hub, model: Path, tmp_path: Path) -> None:
    address, facts, others = push(model, NAME)
    assert address == f"{hub.home}/{NAME}"
    assert others == []
    stored = hub.repositories[NAME]
    assert stored["model.safetensors"] == (model / "model.safetensors").read_bytes()
    assert set(stored) == {*contents(model), ".gitattributes", "README.md", "evaluations.json"}
    assert hub.cards == [stored["README.md"].decode()]  # the hub has checked the card
    copy = pull(NAME, tmp_path / "copy")
    found = contents(tmp_path / "copy")
    assert found == {name: stored[name] for name in stored if name != ".gitattributes"}
    assert copy.evaluations == facts.evaluations
    assert not list(tmp_path.glob(".*"))


def test_a_later_model_replaces_the_files_of_the_first(
    hub: Hub, model: Path, tmp_path: Path
) -> None:
    push(model, NAME)
    hub.repositories[NAME]["notes.md"] = b"of the owner"
    greedy = make_model(tmp_path / "greedy", INFO | {"epochs": 9}, lm=False)
    push(greedy, NAME)
    pull(NAME, tmp_path / "copy")
    found = contents(tmp_path / "copy")
    assert not [name for name in found if name.startswith("lm/") or name == "decoder.json"]
    assert found["info.json"] == (greedy / "info.json").read_bytes()
    assert hub.repositories[NAME]["notes.md"] == b"of the owner"
    before = dict(hub.repositories[NAME])
    push(greedy, NAME)  # once more: nothing to send
    assert hub.repositories[NAME] == before


def test_private_repositories(hub: Hub, model: Path) -> None:
    push(model, NAME, private=True)
    assert hub.private == {NAME}


def test_only_files_of_a_model_come_down(hub: Hub, model: Path, tmp_path: Path) -> None:
    push(model, NAME)
    hub.repositories[NAME] |= {"setup.py": b"import os", "model.pkl": b"\x80\x04", "lm/x.py": b"1"}
    pull(NAME, tmp_path / "copy")
    assert not {"setup.py", "model.pkl", "lm/x.py"} & contents(tmp_path / "copy").keys()
    assert not any("setup.py" in request for request in hub.requests)


def test_a_broken_connection_is_resumed(hub: Hub, model: Path, tmp_path: Path) -> None:
    push(model, NAME)
    hub.broken = 1
    pull(NAME, tmp_path / "copy")
    assert hub.broken == 0
    found = contents(tmp_path / "copy")
    assert found["model.safetensors"] == (model / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("refuse", "message"),
    [
        ({"/resolve/": (500, "no")}, "got 500, a failure of the hub: try again later"),
        ({"/revision/": (401, "no"), f"models/{NAME}": (401, "no")}, "got 401, no access: check"),
        ({f"models/{NAME}": (403, "no")}, "got 403, no permission"),
        ({f"models/{NAME}": (429, "no")}, "got 429, too many requests"),
        ({f"models/{NAME}": (418, f"tea {TOKEN}\nfor two")}, r"got 418: tea \*\*\* for two"),
    ],
)
def test_a_refusal_is_one_line_and_leaves_nothing(
    hub: Hub,
    model: Path,
    tmp_path: Path,
    refuse: dict[str, tuple[int, str]],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    push(model, NAME)
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client tries again
    hub.refuse = refuse
    with pytest.raises(AsrError, match=message) as error:
        pull(NAME, tmp_path / "copy")
    assert "\n" not in str(error.value)
    assert TOKEN not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there(hub: Hub, model: Path, tmp_path: Path) -> None:
    with pytest.raises(AsrError, match="got 404, no such repository or revision"):
        pull(NAME, tmp_path / "copy")
    hub.repositories[NAME] = {"config.json": b"{}", "pytorch_model.bin": b""}
    with pytest.raises(AsrError, match=r"expected a model of asr, got ann/tones without tokens"):
        pull(NAME, tmp_path / "copy")
    for name in ("tones", "a/b/c", "../x", "a b/c", ""):
        with pytest.raises(AsrError, match="expected a repository of the form NAME/MODEL"):
            pull(name, tmp_path / "copy")
    push(model, NAME)
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(AsrError, match="expected a new folder"):
        pull(NAME, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_changed_file_is_refused(hub: Hub, model: Path, tmp_path: Path, name: str) -> None:
    push(model, NAME)
    hub.changed = name
    with pytest.raises(AsrError, match=f"got ann/tones with {name} changed or damaged"):
        pull(NAME, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_pushing_is_refused_in_one_line(
    hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    for part, status, message in (
        ("/lfs/", 403, "got 403, no permission"),
        ("/commit/", 400, "got 400: a bad card"),
        ("/preupload/", 500, "got 500, a failure of the hub"),
        ("/create", 403, "got 403, no permission"),
    ):
        hub.refuse = {part: (status, "a bad card")}
        hub.repositories.pop(NAME, None)
        with pytest.raises(AsrError, match=message) as error:
            push(model, NAME)
        assert "\n" not in str(error.value)
        assert "model.safetensors" not in hub.repositories.get(NAME, {})


def test_without_a_token_nothing_is_published(
    hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(AsrError, match=r"got 401, no access: .* HF_TOKEN") as error:
        push(model, NAME)
    assert "hf_another" not in str(error.value)


def test_without_a_network(
    hub: Hub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr("time.sleep", lambda _: None)
    for action in (lambda: push(model, NAME), lambda: pull(NAME, tmp_path / "copy")):
        with pytest.raises(AsrError, match="got no answer: check the network"):
            action()


def test_a_connection_that_always_breaks(
    hub: Hub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(model, NAME)
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.broken = 1000
    # Every answer brings half of the rest, until there is none.
    hub.repositories[NAME]["model.safetensors"] = b"x"
    with pytest.raises(AsrError, match="got a connection that broke: run the same command again"):
        pull(NAME, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


# --- the commands ---


def test_the_commands(hub: Hub, model: Path, tmp_path: Path, run: Command) -> None:
    ended = run("models", "push", model, NAME)
    assert (ended.status, ended.out) == (0, "")
    assert ended.err == f"published: {hub.home}/{NAME}\n"
    ended = run("models", "pull", NAME, tmp_path / "copy")
    assert (ended.status, ended.err) == (0, f"model: {tmp_path / 'copy'}\n")
    assert run("models", "pack", tmp_path / "copy", tmp_path / "a.zip").status == 0
    assert run("models", "unpack", tmp_path / "a.zip", tmp_path / "again").status == 0
    again, copy = contents(tmp_path / "again"), contents(tmp_path / "copy")
    assert again.pop("README.md") != copy.pop("README.md")  # which name the model
    assert again == copy
    for place in (tmp_path / "again", tmp_path / "a.zip"):
        shown = " ".join(run("models", "show", place).out.split())
        assert "licence cc-by-4.0" in shown
        assert "speech 1.5 hours, 40 utterances, 7 speakers" in shown
        assert "WER 6.67" in shown
    assert TOKEN not in ended.err
    assert "no such" in run("models", "pull", "ann/other", tmp_path / "other").error()


def test_what_is_unknown_is_told(tmp_path: Path, run: Command) -> None:
    model = make_model(tmp_path / "run", INFO | {"about": {}}, report=None)
    (model / "notes.docx").write_text("x")
    ended = run("models", "pack", model, tmp_path / "a.zip")
    assert ended.status == 0
    assert "left out, no part of the model: notes.docx" in ended.err
    assert "note: no error rate is known" in ended.err
    assert "warning: languages and licence unknown" in ended.err
    shown = " ".join(run("models", "show", model).out.split())
    assert "licence unknown" in shown


def test_models_are_listed(tmp_path: Path, run: Command) -> None:
    make_model(tmp_path / "a")
    make_model(tmp_path / "b", report=None)
    ended = run("models", "list", tmp_path)
    assert ended.status == 0
    lines = [line.split() for line in ended.out.splitlines()]
    row = " ".join(next(line for line in lines if "6.67" in line))
    assert "words WER 6.67" in row
    assert "2026-11-21" in row
    assert any(line[i : i + 2] == ["dev", "8.00"] for line in lines for i in range(len(line)))
    assert "(included)" in ended.out
    (tmp_path / "b" / "model" / "config.json").write_text("{}")
    ended = run("models", "list", tmp_path, tmp_path / "absent")
    assert ended.status == 1
    assert "6.67" in ended.out
    assert len(ended.errors) == 2


def test_the_commands_say_what_to_install(
    tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = run("models", "pull", NAME, tmp_path / "copy").error()
    assert "pip install 'lstm-asr[hub]'" in message


def test_packing_needs_no_client(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    pack(model, tmp_path / "a.zip")


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    private_folder.cache_clear()
    yield tmp_path / "caches" / "asr" / "pretrained"
    private_folder.cache_clear()


def test_a_pretrained_network_comes_down_once(hub: Hub, caches: Path, tmp_path: Path) -> None:
    network = write_network(tmp_path / "network")
    files = contents(network)
    hub.repositories["ann/network"] = files | {"pytorch_model.bin": b"\x80\x02", "x.py": b"1"}
    folder = pull_pretrained("ann/network@main")
    assert folder == caches / "ann--network@main"
    assert contents(folder) == files
    assert not any("pytorch_model" in request for request in hub.requests)
    hub.repositories.clear()
    assert pull_pretrained("ann/network@main") == folder


def test_a_pretrained_network_without_safetensors(hub: Hub, caches: Path) -> None:
    hub.repositories["ann/old"] = {"config.json": b"{}", "pytorch_model.bin": b"\x80\x02"}
    with pytest.raises(AsrError, match=r"expected safetensors in ann/old, got pytorch_model\.bin"):
        pull_pretrained("ann/old")
    with pytest.raises(AsrError, match="no such repository"):
        pull_pretrained("ann/nothing")
    assert not caches.exists()
