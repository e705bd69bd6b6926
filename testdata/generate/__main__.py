"""Entry point: ``python -m generate`` with testdata as working folder, or ``python testdata/generate/__main__.py``."""

import os
import sys

if not __package__:  # started as a plain script: put testdata, not testdata/generate, on the path
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

if __name__ == "__main__":
    # torch orders some TorchScript constants by a set of strings; a fixed hash seed makes the bytes reproducible.
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])

    from generate.cli import main

    sys.exit(main())
