"""Models on the hub, through its own client, huggingface_hub (the extra hub).

The client finds the address of the hub (HF_ENDPOINT) and the token (`hf auth login`, or HF_TOKEN)
itself. Nothing here reads or prints a token.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from asr.errors import AsrError
from asr.io.caches import private_folder
from asr.io.extras import installed_version, require
from asr.io.files import atomic_path, digest, refuse_taken, remove_leftovers
from asr.io.printable import printable
from asr.models.files import NEEDED, WEIGHTS, is_model_file
from asr.sharing.facts import ModelFacts, read_facts
from asr.sharing.package import check_files, contents

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import RepoFile

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_REPOSITORY = re.compile(f"{_PART}/{_PART}")
_PRETRAINED = re.compile(
    r"config\.json|preprocessor_config\.json|model(-\d+-of-\d+)?\.safetensors"
    r"|model\.safetensors\.index\.json"
)
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_ANSWERS = {
    401: f"no access: check the name; {_LOG_IN}",
    403: "no permission: use a token that may do this",
    404: f"no such repository or revision: check the name; if it is private, {_LOG_IN}",
    413: "a file that is too large for it",
    429: "too many requests: try again later",
}


def is_repository(name: str) -> bool:
    """Whether this can be the name of a repository, NAME/MODEL."""
    return _REPOSITORY.fullmatch(name) is not None


def push(folder: Path, repository: str, private: bool = False) -> tuple[str, ModelFacts, list[str]]:
    """Publish a model folder with its card, in one commit.

    The repository NAME/MODEL is created if necessary. Files of an earlier model that this one does
    not have are deleted there; other files stay. Returns its address, the facts of the model, and
    the names of files in the folder that are not part of it.

    Raises CheckpointError for a folder that is no model, AsrError if the hub refuses or cannot be
    reached.
    """
    api = _client(repository)
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    facts = read_facts(folder)
    files, others = contents(facts, repository)
    with _explained(repository):
        url = api.create_repo(repository, private=private or None, exist_ok=True)
        stale = [name for name in _listed(api, repository, None) if name not in files]
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in files.items()
        ]
        operations += [CommitOperationDelete(name) for name in stale if is_model_file(name)]
        title = f"Upload a model of {facts.info.date or 'an unknown date'}"
        api.create_commit(repository, operations, commit_message=title)
    return str(url), facts, others


def pull(repository: str, folder: Path, revision: str | None = None) -> ModelFacts:
    """Fetch a model into a new folder, atomically, and return its facts.

    Only files of a model are fetched, and each is compared with the digest that the hub states.
    Raises AsrError for an existing folder, a repository without such a model, a damaged file, and
    if the hub refuses or cannot be reached.
    """
    refuse_taken(folder)
    api = _client(repository)
    with _explained(repository):
        commit = api.model_info(repository, revision=revision).sha
        wanted = {
            name: file
            for name, file in _listed(api, repository, commit).items()
            if is_model_file(name)
        }
        lacking = [name for name in NEEDED if name not in wanted]
        if lacking or not wanted.keys() & set(WEIGHTS):
            raise AsrError(
                f"expected a model of asr, got {repository} without {(lacking or WEIGHTS)[0]}: "
                "name a repository that `asr models push` made"
            )
        _fetch(repository, commit, wanted, folder, check_files)
    return read_facts(folder)


def pull_pretrained(name: str) -> Path:
    """The folder with a pretrained network in the form of transformers, NAME/MODEL or
    NAME/MODEL@REVISION; it is fetched on the first call, and found without the network later.

    Only JSON and safetensors are fetched. Raises AsrError if there are none, for a damaged file,
    and if the hub refuses or cannot be reached.
    """
    repository, _, revision = name.partition("@")
    base = private_folder()
    if base is None:
        raise AsrError("expected a writable home for pretrained networks, got none: set HOME")
    marked = re.sub(r"[^A-Za-z0-9_.@-]", "-", name.replace("/", "--"))
    folder = base / "pretrained" / marked[:200]
    if folder.is_dir():
        return folder
    api = _client(repository)
    with _explained(repository):
        commit = api.model_info(repository, revision=revision or None).sha
        listed = _listed(api, repository, commit)
        wanted = {n: file for n, file in listed.items() if _PRETRAINED.fullmatch(n)}
        if not any(n.endswith(".safetensors") for n in wanted):
            raise AsrError(
                f"expected safetensors in {name}, got {_others(listed)}: name a revision that has "
                "them (NAME/MODEL@REVISION), or convert the network and give its folder "
                "(docs/pretrained.md)"
            )
        _fetch(repository, commit, wanted, folder, _check_intact)
    return folder


def _check_intact(
    place: Path, listed: Mapping[str, Callable[[Path], bool]], source: object
) -> None:
    for name, is_intact in listed.items():
        if not (place / name).is_file() or not is_intact(place / name):
            raise AsrError(
                f"expected the files of {source} as the hub states them, got {name} missing or "
                "damaged: run the same command again"
            )


def _others(listed: Mapping[str, RepoFile]) -> str:
    found = [n for n in listed if n.endswith((".bin", ".pt", ".h5", ".msgpack"))]
    return printable(found[0])[:100] if found else "none"


Check = Callable[[Path, Mapping[str, Callable[[Path], bool]], object], None]
"""Takes a folder, functions by name of a file that tell whether it is intact, and the origin."""


def _fetch(
    repository: str,
    commit: str | None,
    wanted: Mapping[str, RepoFile],
    folder: Path,
    check: Check,
) -> None:
    """Fetch files into a new folder, atomically; `check` compares them with what the hub states."""
    from huggingface_hub import snapshot_download

    remove_leftovers(folder)
    with atomic_path(folder) as place:
        _check_room(place.parent, sum(file.size for file in wanted.values()), folder)
        snapshot_download(
            repository, revision=commit, local_dir=place, allow_patterns=sorted(wanted)
        )
        shutil.rmtree(place / ".cache", ignore_errors=True)  # the client's notes
        intact: dict[str, Callable[[Path], bool]] = {
            name: partial(_is_intact, file) for name, file in wanted.items()
        }
        check(place, intact, repository)


def _client(repository: str) -> HfApi:
    require("huggingface_hub")
    if not _REPOSITORY.fullmatch(repository):
        raise AsrError(
            f"expected a repository of the form NAME/MODEL, got {repository[:100]!a}: correct it"
        )
    from huggingface_hub import HfApi
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()
    return HfApi(library_name="lstm-asr", library_version=installed_version())


def _listed(api: HfApi, repository: str, commit: str | None) -> dict[str, RepoFile]:
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(repository, recursive=True, revision=commit)
    return {one.path: one for one in tree if isinstance(one, RepoFile)}


def _check_room(place: Path, size: int, folder: Path) -> None:
    if shutil.disk_usage(place).free < size:
        raise AsrError(
            f"expected room for {size / 1e6:.0f} MB in {folder}, got less: make room, or choose "
            "another folder"
        )


def _is_intact(file: RepoFile, path: Path) -> bool:
    if path.stat().st_size != file.size:
        return False
    if file.lfs is not None:
        return digest(path) == file.lfs.sha256
    # The name of a file in git is the SHA-1 of its kind, its size and its content.
    content = path.read_bytes()
    named = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return named.hexdigest() == file.blob_id


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """Turn the errors of the client into one line."""
    import httpx2
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked = f"expected the hub to answer for {repository}, got"
    try:
        yield
    except (httpx2.HTTPError, ConnectionError, LocalEntryNotFoundError, RuntimeError) as error:
        raise AsrError(f"{asked} {_problem(error)}") from None
    except OSError as error:
        if error.errno is not None:  # of the disk
            raise
        raise AsrError(f"{asked} {_one_line(error)}; run the same command again") from None
    except ValueError as error:
        raise AsrError(f"{asked} {_one_line(error)}") from None


def _problem(error: BaseException) -> str:
    """What went wrong: the client wraps the errors of its connections in others."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and len(causes) < 10:
        causes.append(cause)
    if answers := [cause for cause in causes if isinstance(cause, HfHubHTTPError)]:
        return _answer(answers[0])
    broken = (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError)
    if any(isinstance(cause, broken) for cause in causes):
        return "a connection that broke: run the same command again"
    return "no answer: check the network (and HF_ENDPOINT and HF_HUB_OFFLINE, if they are set)"


def _answer(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if status in _ANSWERS:
        return f"{status}, {_ANSWERS[status]}"
    if status >= 500:
        return f"{status}, a failure of the hub: try again later"
    return f"{status}: {_one_line(error.server_message or 'no reason')}"


def _one_line(error: object) -> str:
    """The words of the client or the hub, cut short; should they hold the token, it is left out."""
    from huggingface_hub import get_token

    text = printable(" ".join(str(error).split()))
    if token := get_token():
        text = text.replace(token, "***")
    return text[:300]
