"""The command line that experiments at the budget of docs/family.md share."""

from __future__ import annotations

import argparse
from pathlib import Path


def parser(description: str | None, out: Path) -> argparse.ArgumentParser:
    """Options that all experiments have; `out` is the folder of the results by default."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--source", type=Path, help="folder with AN4's etc and wav")
    made.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    made.add_argument("--out", type=Path, default=out, help="folder of the results")
    made.add_argument("overrides", nargs="*", metavar="key=value")
    return made
