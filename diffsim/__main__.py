"""``diffsim VERB …``."""

import argparse
import sys
from collections.abc import Sequence

from diffsim import run


def main(argv: Sequence[str] | None = None) -> int:
    """Give the exit code of a verb."""
    sys.path.insert(0, "")  # as python -m does: a case may name a class in this folder
    parser = argparse.ArgumentParser("diffsim", description="Differentiate physics simulations.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    run.arguments(verbs.add_parser("run", help="run a case", description=run.__doc__))
    return run.execute(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
