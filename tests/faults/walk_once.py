"""One retrain up to the comparison, in a process of its own: `python walk_once.py FOLDER SHUFFLE_SEED`.

Thread counts are the environment's. Seed 0 leaves the rows in their order. Standard output: one JSON object with the
folders of the stages that the test compares.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "data"))

from crossrisk.quiet import make_quiet  # noqa: E402  the builders' folder must be on the path first

make_quiet(os.environ)

from builders import FLOW_TOML, loans_with_noise, portfolio  # noqa: E402
from steps import Walk  # noqa: E402

OVERRIDES = (
    "lineup.contenders=['source_logistic', 'source_boosted', 'target_logistic', 'dan']",
    "lineup.dan.mmd_weights=[0.0]",
)


def main() -> None:
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    frame = loans_with_noise()
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=seed) if seed else frame
    walk = Walk(portfolio(folder, shuffled, toml=FLOW_TOML, overrides=OVERRIDES)).judge()
    print(json.dumps({name: str(walk[name].folder) for name in ("split", "calibrated", "compared")}))


if __name__ == "__main__":
    main()
