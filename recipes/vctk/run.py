"""Train and evaluate on VCTK.

python recipes/vctk/run.py                 download, prepare, train, evaluate
python recipes/vctk/run.py --source DIR    from a local copy of the unpacked archive
python recipes/vctk/run.py train.seed=2 out=exp/vctk-2   with other settings
"""

from asr.cli.recipes import main
from data import vctk

if __name__ == "__main__":
    main(__file__, __doc__, vctk.prepare)
