"""Train and evaluate on TED-LIUM 3.

python recipes/tedlium/run.py                 download, prepare, train, evaluate
python recipes/tedlium/run.py --source DIR    from a local copy of the unpacked archive
python recipes/tedlium/run.py train.seed=2 out=exp/tedlium-2   with other settings
"""

from asr.cli.recipes import main
from data import tedlium

if __name__ == "__main__":
    main(__file__, __doc__, tedlium.prepare)
