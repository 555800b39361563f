"""Errors caused by users or their data: one line with what was expected, what came, what to do.

Commands catch `AsrError` and print its message; any other exception is a bug and has a traceback.
"""

import errno


class AsrError(Exception):
    """Base of every error raised on purpose; its message is one line for users."""


def reason(error: Exception) -> str:
    """What came instead of a readable file, for an error message. Python's own messages contain
    error numbers and codec names."""
    for kind, words in _REASONS.items():
        if isinstance(error, kind):
            return words
    return getattr(error, "strerror", None) or str(error)


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that memory has run out: one of Python, of torch's allocators (that of
    the CPU raises a plain RuntimeError), of CUDA's libraries or of Triton.

    >>> lacks_memory(RuntimeError("CUDNN_STATUS_ALLOC_FAILED")), lacks_memory(ValueError("full"))
    (True, False)
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(part in str(error) for part in ("allocate memory", "out of memory", "ALLOC_FAILED"))


_REASONS = {
    FileNotFoundError: "no such file",
    NotADirectoryError: "no such file",
    IsADirectoryError: "a folder",
    PermissionError: "no permission to read it",
    UnicodeDecodeError: "text that is not UTF-8",
}


def disk_trouble(error: OSError) -> str:
    """Why a file cannot be written, and what to do, for a full or read-only disk; "" for any other
    error."""
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
    """A recording is damaged; its intact part is used."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        """The recording."""


class ManifestError(AsrError):
    """A manifest, lexicon or file of labels is malformed, lacks what is needed, or cannot be
    written."""


class ConfigError(AsrError):
    """A setting, an option, or a combination of both is invalid or not supported."""


class CheckpointError(AsrError):
    """A model folder or checkpoint is missing, damaged, or incompatible."""


class TrainingError(AsrError):
    """Training cannot start or continue: infeasible data, no memory, non-finite loss."""


class StreamError(AsrError):
    """A stream got invalid input: the wrong shape, or input after its end."""


class LanguageModelError(AsrError):
    """A language model file is missing, malformed or damaged, or hot words or sentences cannot be
    used."""


class AlignmentError(AsrError):
    """A text cannot be aligned: it is empty, missing, too long for its recording, or has no
    tokens."""


class ReportError(AsrError):
    """A report folder is missing, damaged, or cannot be compared with another."""


class TranscriptError(AsrError):
    """A file of texts is missing or malformed; the message names file and line."""
