"""Train and evaluate on AISHELL-1.

python recipes/aishell/run.py                   download, prepare, train, evaluate
python recipes/aishell/run.py --source DIR      from a local copy with DIR/data_aishell
python recipes/aishell/run.py train.seed=2 out=exp/aishell-2
"""

from asr.cli.recipes import main
from data import aishell

if __name__ == "__main__":
    main(__file__, __doc__, aishell.prepare)
