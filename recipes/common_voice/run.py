"""Train and evaluate on Mozilla Common Voice, in any of its languages.

python recipes/common_voice/run.py --language eo --source DIR   from the unpacked release in DIR
python recipes/common_voice/run.py --language eo --source DIR --part validated    with more to learn
python recipes/common_voice/run.py --language eo --source DIR train.seed=2 out=exp/eo-2
"""

from asr.cli.recipes import main
from data import common_voice

if __name__ == "__main__":
    main(__file__, __doc__, common_voice.prepare, {"language": "en", "part": ""})
