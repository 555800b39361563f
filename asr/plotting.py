"""Plots with matplotlib."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from asr.io.caches import has_home, set_cache_folders


def pyplot(path: str | Path) -> Any:
    """matplotlib.pyplot, for a plot that will be written to `path`. It needs no display.

    matplotlib requires a folder for its list of fonts, or ends. If the user has no cache folder,
    a temporary one beside the plot is used while it is loaded.
    """
    set_cache_folders()
    if has_home() or "MPLCONFIGDIR" in os.environ:
        return _loaded()
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        os.environ["MPLCONFIGDIR"] = folder
        try:
            return _loaded()
        finally:
            del os.environ["MPLCONFIGDIR"]


def _loaded() -> Any:
    # Imported here: it takes a second, and few commands draw.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot
