"""Commands in a read-only installation, for a user without a name, a home and temporary files.

Covers `asr/plotting.py`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from asr.io.files import write_json
from tests.tones import tone_recipe

ROOT = Path(__file__).resolve().parents[2]
# Everything but one folder is made read-only, for this process and its children.
READ_ONLY = """
mount --bind "$1" "$1"
findmnt -rno TARGET | while read -r place; do
  case $place in "$1"|/proc*|/sys*|/dev*) ;; *) mount -o remount,ro,bind "$place" ;; esac
done
shift
exec "$@"
"""
PROGRAM = """
import pwd, sys, tempfile
from pathlib import Path

def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

pwd.getpwuid = unknown
for folder in (Path(sys.argv[2]), Path("/var/tmp")):
    try:
        (folder / "x").write_text("")
        sys.exit(f"expected {folder} to be read-only")
    except OSError:
        pass
from asr.io.caches import private_folder
assert private_folder() is None, private_folder()
from asr.cli.main import app
out, recipe, model, recording = sys.argv[1], *sys.argv[3:]
for command in (
    ["train", recipe],
    ["transcribe", "--model", model, recording],
):
    app(command, standalone_mode=False)
from asr.plotting import pyplot
picture = f"{out}/picture.png"
pyplot(picture).subplots()[0].savefig(picture)
"""


@pytest.mark.slow
def test_nothing_but_the_results_is_written(
    tones: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    inside = ["unshare", "--mount", "sh", "-euc", READ_ONLY, "sh", str(out)]
    if subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("needs unshare and the right to mount")
    manifests, model = tones
    recipe = tone_recipe(manifests, out / "run", epochs=1)
    write_json(tmp_path / "recipe.yaml", recipe.model_dump(mode="json", exclude_defaults=True))
    recording = next(manifests["dev"].parent.rglob("*.wav"))
    files = tmp_path / "recipe.yaml", model, recording
    ended = subprocess.run(
        [*inside, sys.executable, "-c", PROGRAM, str(out), str(ROOT), *map(str, files)],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert (out / "picture.png").stat().st_size > 1000
    assert {path.name for path in out.iterdir()} == {"run", "picture.png"}
    assert "atplotlib" not in ended.stderr
