"""Pictures drawn by matplotlib."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from asr.io.caches import has_home, settle


def pyplot(path: str | Path) -> Any:
    """matplotlib.pyplot, to draw a picture that will be written to `path`. Needs no display.

    matplotlib wants a folder for its list of fonts and ends without one. Where the user has no
    cache, a temporary folder beside the picture serves while it is loaded.
    """
    settle()
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
