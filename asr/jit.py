"""Functions that numba turns into machine code, kept in a cache where there is a safe one."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

from asr.io.caches import private_folder

Function = Callable[..., Any]
_config: Any = numba.config


def compiled(function: Function, **options: Any) -> Function:
    """`function`, compiled when it is first called with arguments of new types.

    Its machine code is kept beside its source, as Python keeps its own; where that folder is
    read-only, in the user's cache; and where there is none either, it is compiled in every process.
    """
    result: Function = numba.njit(nogil=True, error_model="numpy", **options)(function)
    with _cache_folder(Path(inspect.getfile(function)).parent) as found:
        if found and not _config.DISABLE_JIT:
            result._cache = _Cache(function)  # type: ignore[attr-defined]
    return result


def inner(function: Function) -> Function:
    """For what is called from compiled code alone: a third of the time to compile is saved."""
    return compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)


class _Cache(FunctionCache):
    """numba's, but neither a damaged file nor a full disk ends the command, and it is out of date
    as soon as any compiled function has changed.

    numba looks at the source of the function alone. What it calls may be compiled into it.
    """

    def __init__(self, function: Function) -> None:
        super().__init__(function)
        self._cache_file = IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=_source_stamp(),
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever unpickling raises
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(Exception):
            super().save_overload(sig, data)


@contextlib.contextmanager
def _cache_folder(source: Path) -> Iterator[bool]:
    """Whether there is a folder for the cache; numba looks for it in here.

    Left alone, numba goes on to a folder "~" below the current one where there is no home, and its
    cache is pickled code, which anybody could have put there.
    """
    if _config.CACHE_DIR or _is_writable(source / "__pycache__"):
        yield True
        return
    folder = private_folder()
    if folder is not None:
        _config.CACHE_DIR = str(folder / "numba")
    try:
        yield folder is not None
    finally:
        _config.CACHE_DIR = ""


@functools.cache
def _source_stamp() -> str:
    found = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        source = path.read_bytes()
        if b"\n@compiled" in source or b"\n@inner" in source:
            found.update(source)
    return found.hexdigest()


@functools.cache
def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True
