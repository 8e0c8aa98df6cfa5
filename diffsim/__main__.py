"""``diffsim VERB …``."""

import argparse
import sys
from collections.abc import Sequence

from diffsim import planned, run


def main(argv: Sequence[str] | None = None) -> int:
    """Give the exit code of a verb."""
    sys.path.insert(0, "")  # as python -m does: a case may name a class in this folder
    parser = argparse.ArgumentParser("diffsim", description="Differentiate physics simulations.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, text, add, does in (
        ("run", run.__doc__, run.arguments, run.execute),
        ("plan", planned.__doc__, run.plan_arguments, run.plan),
    ):
        verb = verbs.add_parser(name, help=f"{name} a case", description=text)
        add(verb).set_defaults(does=does)
    args = parser.parse_args(argv)
    return args.does(args)


if __name__ == "__main__":
    sys.exit(main())
