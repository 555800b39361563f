"""Train and evaluate on the Wall Street Journal corpus.

python recipes/wsj/run.py --source DIR    from a local copy of the corpus
python recipes/wsj/run.py --source DIR train.seed=2 out=exp/wsj-2   with other settings
"""

from asr.cli.recipes import main
from data import wsj

if __name__ == "__main__":
    main(__file__, __doc__, wsj.prepare)
