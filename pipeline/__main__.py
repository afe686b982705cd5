"""`python -m pipeline …` is `ladder …`."""

import sys

from pipeline.cli import program

if __name__ == "__main__":
    sys.exit(program())
