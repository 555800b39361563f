"""Functions that numba compiles to machine code, cached on disk if a safe folder exists."""

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

    The machine code is cached beside the source, like Python's own cache; if that folder is
    read-only, in the user's cache; without either, each process compiles again.
    """
    result: Function = numba.njit(nogil=True, error_model="numpy", **options)(function)
    with _cache_folder(Path(inspect.getfile(function)).parent) as found:
        if found and not _config.DISABLE_JIT:
            result._cache = _Cache(function)  # type: ignore[attr-defined]
    return result


def inner(function: Function) -> Function:
    """For functions called only from compiled code; saves a third of the compile time."""
    return compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)


class _Cache(FunctionCache):
    """numba's cache, except that a damaged file or a full disk does not end the command, and that
    it is out of date as soon as any compiled function has changed.

    numba checks the source of the function alone, but functions that it calls may be inlined.
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
        except Exception:  # unpickling may raise any exception
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(Exception):
            super().save_overload(sig, data)


@contextlib.contextmanager
def _cache_folder(source: Path) -> Iterator[bool]:
    """Whether there is a folder for the cache; numba searches it here.

    By default, without a home, numba would use a folder "~" in the working directory. Its cache is
    pickled code, and any user could have written it there.
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
