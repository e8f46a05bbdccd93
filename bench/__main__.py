"""Run one benchmark and print its figures; with ``--json``, one object on the last line."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys

import bench


def main() -> int:
    names = sorted(
        module.name.replace("_", "-")
        for module in pkgutil.iter_modules(bench.__path__)
        if not module.name.startswith("_")
    )
    parser = argparse.ArgumentParser(prog="python -m bench", description=bench.__doc__)
    parser.add_argument("name", choices=names)
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--quick", action="store_true", help="smaller, to see that it works")
    options = parser.parse_args()
    module = importlib.import_module(f"bench.{options.name.replace('-', '_')}")
    figures = module.run(options)
    for name, value in figures.items():
        print(f"{name:>32}  {value}", file=sys.stderr)
    if options.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
