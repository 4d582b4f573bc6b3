"""A page to ask, mute and look: python scripts/explore.py

Shows test scenes of the embedded benchmark and clips of yours, takes sound, picture or single
seconds away, and puts the answers of two trained runs beside the best possible answer.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if find_spec("torch") is None:
    print("error: this Python has no torch; `bash train.sh` makes an environment: . .venv/bin/activate, then "
          "pip install -r requirements/page.txt", file=sys.stderr)
    sys.exit(2)

from dataset.extract import parse_weights
from engine.errors import UsageError, positive, require, run_guarded

UPLOAD = "200mb"             # the largest file that is taken


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("runs")], metavar="RUN",
                        help="run folders, exported folders, or folders of such (default: runs)")
    parser.add_argument("--data", type=Path, default=Path("data/synthetic"),
                        help="the embedded benchmark, made there if it is not (default: data/synthetic)")
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=PATH",
                        help="local weights of the extractors, as for extract_features.py")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--port", type=positive, default=7860, help="of 127.0.0.1 (default 7860)")
    parser.add_argument("--share", action="store_true",
                        help="also a public link, for 72 hours; whoever has it can ask, but not name files here")
    return parser.parse_args()


def main() -> None:
    options = parse()
    require("page", "gradio", "av", "transformers")
    if options.port > 65_535:
        raise UsageError(f"--port {options.port}: give a port up to 65535")
    lacking = [path for path in options.folders if not path.exists() and path != Path("runs")]
    if lacking:
        raise UsageError(f"{lacking[0]} does not exist; give run folders, or nothing for those of runs/")
    with tempfile.TemporaryDirectory(prefix="explore-") as folder:
        # Gradio reads these when it is imported: uploads go to a folder of this page, gone with it.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
        from scripts.page.serve import serve

        serve(options.folders, options.data, parse_weights(options.weights), options.device, options.port, UPLOAD,
              options.share)


if __name__ == "__main__":
    run_guarded(main)
