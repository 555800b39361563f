"""Train and evaluate on VoxPopuli, in any of the 16 languages that it transcribes.

python recipes/voxpopuli/run.py --language hr                stream, prepare, train, evaluate
python recipes/voxpopuli/run.py --language hr --source DIR   from a copy with DIR/hr/train-*.parquet
python recipes/voxpopuli/run.py --language hr train.seed=2 out=exp/voxpopuli-hr-2
"""

from asr.cli.recipes import main
from data import voxpopuli

if __name__ == "__main__":
    main(__file__, __doc__, voxpopuli.prepare, {"language": "en"})
