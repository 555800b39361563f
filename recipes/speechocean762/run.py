"""Train and evaluate on speechocean762.

python recipes/speechocean762/run.py                 download, prepare, train, evaluate
python recipes/speechocean762/run.py --source DIR    from a local copy of the unpacked archive
python recipes/speechocean762/run.py train.seed=2 out=exp/speechocean762-2   with other settings
"""

from asr.cli.recipes import main
from data import speechocean762

if __name__ == "__main__":
    main(__file__, __doc__, speechocean762.prepare)
