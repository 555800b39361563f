"""Draw `docs/report.png` from the report of the demo: `python docs/draw_report.py`.

Needs exp/demo/report (`make demo`), and chromium and playwright (`make test` installs playwright).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 300_000  # bytes


def draw(report: Path, out: Path) -> None:
    """The first screen of a report as a picture; exits where it would be too large."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1100, "height": 835}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        page.screenshot(path=out)
        browser.close()
    if out.stat().st_size > LARGEST:
        sys.exit(f"expected at most {LARGEST} bytes, got {out.stat().st_size} in {out}")


if __name__ == "__main__":
    draw(
        Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "exp/demo/report/report.html",
        ROOT / "docs" / "report.png",
    )
