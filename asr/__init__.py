"""Train your own speech recogniser: recordings with transcripts in, a small recogniser out."""

import os
import sys
import tempfile

# libgomp's threads spin for 300,000 turns where they wait for each other. While another program has
# one of the cores, that wait burns the other one, and a training step takes several times as long
# (docs/speed.md). The library reads the variable when torch loads it.
_OPENMP = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_")
if "torch" not in sys.modules and not any(name.startswith(_OPENMP) for name in os.environ):
    os.environ["GOMP_SPINCOUNT"] = "1000"

# torch imports dill where it is installed, which asks for the name of a folder for temporary files
# and writes nothing there. Without such a folder the question alone is an error.
try:
    tempfile.gettempdir()
except OSError:
    tempfile.tempdir = "/tmp"
