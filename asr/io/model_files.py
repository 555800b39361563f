"""The JSON files of a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asr.errors import CheckpointError, reason
from asr.io.files import read_json


def read_facts(path: Path) -> dict[str, Any]:
    """A JSON object of a model folder. Raises CheckpointError naming the file."""
    facts = read_json_file(path)
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got other JSON: copy it again")
    return facts


def read_json_file(path: Path) -> Any:
    """Any JSON file. Raises CheckpointError naming the file."""
    try:
        return read_json(path)
    except FileNotFoundError:
        raise CheckpointError(f"expected {path}, got no such file: copy the folder whole") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"expected JSON, got {path}: {reason(error)}; copy it again"
        ) from None
