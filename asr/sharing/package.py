"""A model as one file: a zip of its folder, with the size and SHA-256 of every file.

A zip and no tar: it lists its files at the end, so that the facts of a model can be read without
unpacking it, every system opens it, and each member has a checksum. It holds safetensors, JSON and
text, or an ONNX graph; nothing in it is code. The same folder gives the same bytes.

package.json    format version, and the files: {"lm/words.bin": {"bytes": ..., "sha256": ...}}
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from asr.errors import AsrError, CheckpointError
from asr.io.files import atomic_path, digest, read_json, refuse_taken
from asr.io.foreign import which_is, zip_names
from asr.io.paths import files_below
from asr.io.printable import printable_name
from asr.io.unpacking import unpack_files
from asr.models.files import is_model_file
from asr.sharing.card import readme
from asr.sharing.evaluations import FILE as EVALUATIONS
from asr.sharing.evaluations import ending
from asr.sharing.facts import ModelFacts, read_facts

LIST = "package.json"
FORMAT = 1
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date of zip: times would make each package another
MOST_FILES = 100
ADVICE = "copy or download it again"

Content = Path | bytes


class _Member(BaseModel):
    model_config = ConfigDict(extra="forbid")

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    def is_intact(self, path: Path) -> bool:
        return path.stat().st_size == self.bytes and digest(path) == self.sha256


class _List(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: int
    files: dict[str, _Member] = Field(max_length=MOST_FILES)


def contents(facts: ModelFacts, name: str) -> tuple[dict[str, Content], list[str]]:
    """The files of a model that is passed on as `name`, with its card and its evaluations; and the
    names of other files in its folder."""
    found: dict[str, Content] = {}
    others = []
    # The first has what linked folders hold, the second hidden files, which are named.
    every = {*files_below(facts.folder), *(p for p in facts.folder.rglob("*") if not p.is_dir())}
    for path in sorted(every):
        inside = path.relative_to(facts.folder).as_posix()
        if is_model_file(inside):
            found[inside] = path
        else:
            others.append(printable_name(inside))
    found["README.md"] = readme(facts, name).encode()
    found["info.json"] = _without_folders(facts.folder / "info.json")
    rows = [one.model_dump(mode="json") for one in facts.evaluations]
    found.pop(EVALUATIONS, None)
    if rows:
        found[EVALUATIONS] = (json.dumps(rows, indent=2, ensure_ascii=False) + "\n").encode()
    return dict(sorted(found.items())), others


def _without_folders(path: Path) -> Content:
    """info.json; in it `init.interpolation` leaves the path of a model on this machine."""
    info = read_json(path)
    match info.get("blend"):
        case [str(initial), *rest] if ending(Path(initial)) != initial:
            info["blend"] = [ending(Path(initial)), *rest]
            if "weights" in info:  # says of which models the weights are a mean
                info["weights"] = str(info["weights"]).replace(initial, ending(Path(initial)))
            return (json.dumps(info, indent=2, ensure_ascii=False) + "\n").encode()
    return path


def pack(folder: Path, file: Path) -> tuple[ModelFacts, list[str]]:
    """Write the package atomically. Returns the facts of the model, and the names of files in its
    folder that are not part of it.

    Raises CheckpointError for a folder that is no model, AsrError for another file at `file`.
    """
    facts = read_facts(folder)
    _check_place(file)
    files, others = contents(facts, facts.name)
    listed = {name: _described(content) for name, content in files.items()}
    text = json.dumps({"format": FORMAT, "files": listed}, indent=2)
    with atomic_path(file) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in ({LIST: text.encode()} | files).items():
            member = zipfile.ZipInfo(name, EPOCH)
            member.external_attr = 0o100644 << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            if isinstance(content, bytes):
                archive.writestr(member, content)
                continue
            with content.open("rb") as source, archive.open(member, "w", force_zip64=True) as out:
                shutil.copyfileobj(source, out, 1 << 20)
    return facts, others


def _check_place(file: Path) -> None:
    if file.is_dir() or (file.exists() and not is_package(file)):
        raise AsrError(
            f"expected a new file or an earlier package, got {file}: choose another name"
        )


def _described(content: Content) -> dict[str, Any]:
    if isinstance(content, bytes):
        return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {"bytes": content.stat().st_size, "sha256": digest(content)}


def is_package(file: Path) -> bool:
    """Whether a file looks like a package; nothing is unpacked."""
    return LIST in (zip_names(file) or ())


def unpack(file: Path, folder: Path) -> ModelFacts:
    """Write the model folder of a package, atomically, and return its facts.

    Raises AsrError for a folder that exists, and for a file that is no package, is damaged, or
    holds anything but the files of a model, all as its list says.
    """
    refuse_taken(folder)
    if not file.is_file():
        raise AsrError(f"expected a package of asr models pack, got {file}: check the path")
    if not is_package(file):
        kind = which_is(file) or ", which is none"
        raise AsrError(f"expected a package of asr models pack, got {file}{kind}: {ADVICE}")
    unpack_files(file, folder, lambda place: _check(place, file), ADVICE)
    return read_facts(folder)


def facts_of_package(file: Path) -> ModelFacts:
    """The facts of a packed model; it is unpacked into a temporary folder and checked."""
    with TemporaryDirectory() as place:
        facts = unpack(file, Path(place) / file.stem)
    return facts


def _check(place: Path, file: Path) -> None:
    """Raise AsrError unless the unpacked files are those of the list, which is then removed."""
    try:
        listed = _List.model_validate(read_json(place / LIST))
    except (OSError, ValueError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise AsrError(f"expected a list of files, got {file}: {LIST}: {what}; {ADVICE}") from None
    if listed.format != FORMAT:
        raise AsrError(
            f"expected a package of format {FORMAT}, got {file} of format {listed.format}: use a "
            "newer version of asr"
        )
    (place / LIST).unlink()
    check_files(place, {name: one.is_intact for name, one in listed.files.items()}, file)


def check_files(place: Path, listed: Mapping[str, Callable[[Path], bool]], source: object) -> None:
    """Raise AsrError unless a folder holds exactly these files, each intact by its function, and
    they are a model. `source` names their origin."""
    found = {path.relative_to(place).as_posix(): path for path in place.rglob("*")}
    for name in ("lm", "lstm"):
        if name in found and found[name].is_dir():
            del found[name]
    problem = ""
    if strange := sorted(name for name in listed.keys() | found if not is_model_file(name)):
        problem = f"{printable_name(strange[0])}, which is no part of a model"
    elif apart := sorted(listed.keys() ^ found.keys()):
        problem = f"{apart[0]} {'missing' if apart[0] in listed else 'in addition'}"
    elif damaged := sorted(name for name, path in found.items() if not listed[name](path)):
        problem = f"{damaged[0]} changed or damaged"
    if problem:
        raise AsrError(f"expected the files of a model, got {source} with {problem}: {ADVICE}")
    try:
        read_facts(place)
    except CheckpointError as error:
        message = str(error).replace(f"{place}/", "").replace(str(place), "its files")
        raise AsrError(f"expected a model, got {source}: {message}") from None
