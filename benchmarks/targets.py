"""Train tiny models as people have them on captioned emoji, audit each through the door, and print what was found.

python -m benchmarks.targets train FOLDER --data emoji.parquet
python -m benchmarks.targets audit FOLDER --data emoji.parquet
"""

import argparse
from pathlib import Path

from benchmarks.tiny_pipelines import PARTS, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "audit"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="columns image and text, 1,653 rows or more")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    train(given.folder, given.data, given.parts)


if __name__ == "__main__":
    main()
