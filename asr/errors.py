"""The errors a person can cause: one line saying what was expected, what came, what to do.

Commands catch `AsrError` and print its message; anything else is a bug and keeps its traceback.
"""

import errno


class AsrError(Exception):
    """Base of every error raised on purpose; its message is one line fit for a person."""


def reason(error: Exception) -> str:
    """What came instead of a readable file, for the message of an error: Python's own words name
    numbers of errors and codecs."""
    for kind, words in _REASONS.items():
        if isinstance(error, kind):
            return words
    return getattr(error, "strerror", None) or str(error)


_REASONS = {
    FileNotFoundError: "no such file",
    NotADirectoryError: "no such file",
    IsADirectoryError: "a folder",
    PermissionError: "no permission to read it",
    UnicodeDecodeError: "something else than UTF-8",
}


def disk_trouble(error: OSError) -> str:
    """What keeps a file from being written, and what to do: of a disk that is full or cannot be
    written; "" for any other error."""
    return _DISK.get(error.errno or 0, "")


_AGAIN = "and run the same command again"
_DISK = {
    errno.ENOSPC: f"a full disk: make room, {_AGAIN}",
    errno.EDQUOT: f"a quota that is used up: make room, {_AGAIN}",
    errno.EFBIG: f"a file larger than allowed: raise the limit (ulimit -f), {_AGAIN}",
    errno.EROFS: "a disk that cannot be written: name another place",
}


class AudioError(AsrError):
    """A recording is missing, cannot be decoded, or holds no samples."""


class AudioWarning(UserWarning):
    """A recording is damaged; what can be decoded of it is used."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        """The recording."""


class ManifestError(AsrError):
    """A manifest line is malformed; the message names file and line."""


class ConfigError(AsrError):
    """A recipe has an unknown key or a value of the wrong kind."""


class CheckpointError(AsrError):
    """A model folder or checkpoint is missing, damaged, or does not fit."""


class TrainingError(AsrError):
    """Training cannot start or go on: infeasible data, no memory, non-finite loss."""


class StreamError(AsrError):
    """A stream is given what it cannot take: the wrong shape, or anything after its end."""


class LanguageModelError(AsrError):
    """A language model's file is missing, malformed or damaged; the message names file and line."""


class AlignmentError(AsrError):
    """A text cannot be written with a model's units, or is too long for its recording."""


class ReportError(AsrError):
    """A report folder is missing, damaged, or cannot be compared with another."""


class TranscriptError(AsrError):
    """A file of texts is missing or malformed; the message names file and line."""
