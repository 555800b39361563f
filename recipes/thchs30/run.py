"""Train and evaluate on THCHS-30.

python recipes/thchs30/run.py                   download, prepare, train, evaluate
python recipes/thchs30/run.py --source DIR      from a local copy with DIR/data_thchs30
python recipes/thchs30/run.py train.seed=2 out=exp/thchs30-2
"""

from asr.cli.recipes import main
from data import thchs30

if __name__ == "__main__":
    main(__file__, __doc__, thchs30.prepare)
