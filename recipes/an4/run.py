"""Train and evaluate on CMU AN4.

python recipes/an4/run.py                              download, prepare, train, evaluate
python recipes/an4/run.py --source DIR                 from a local copy of the unpacked archive
python recipes/an4/run.py train.seed=2 out=exp/an4-2   with other settings
"""

from asr.cli.recipes import main
from data import an4

if __name__ == "__main__":
    main(__file__, __doc__, an4.prepare)
