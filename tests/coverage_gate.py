"""Runs the tests of the parts under coverage, subprocesses counted, and fails below the lines and branches of `app/` we
promise. What goes through the whole service and takes minutes is left to `make test`: a line that nothing but that
reaches is not covered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

LINES, BRANCHES = 95.0, 90.0
WHOLE: Final = ("tests/flows", "tests/chaos", "tests/bench", "tests/deploy", "tests/docs", "tests/layout")
"""Tests of the whole service, and of what is no code of it."""
ROOT: Final = Path(__file__).resolve().parents[1]


def shares(report: dict[str, dict[str, int]]) -> tuple[float, float]:
    """Per cent of lines and of branches that ran."""
    totals = report["totals"]
    lines = 100 * totals["covered_lines"] / max(1, totals["num_statements"])
    branches = 100 * totals["covered_branches"] / max(1, totals["num_branches"])
    return lines, branches


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="tierway-coverage-") as folder:
        environ = {"TESTS_EXAMPLES": "25", **os.environ, "COVERAGE_FILE": f"{folder}/data"}

        def run(*command: str) -> int:
            return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environ, check=False).returncode

        left_out = [f"--ignore={folder}" for folder in WHOLE]
        tests = ["pytest", "-q", "-n", "auto", "--dist", "loadfile", *left_out, *sys.argv[1:]]
        if failed := run("coverage", "run", "-m", *tests):
            return failed
        run("coverage", "combine", "--quiet")
        run("coverage", "json", "--quiet", "-o", f"{folder}/report.json")
        lines, branches = shares(json.loads(Path(folder, "report.json").read_text()))
        enough = lines >= LINES and branches >= BRANCHES
        if not enough:
            run("coverage", "report", "--sort", "cover")
        sys.stdout.write(f"coverage of app/: {lines:.1f} % of lines, {branches:.1f} % of branches")
        sys.stdout.write(f" (at least {LINES:.0f} and {BRANCHES:.0f})\n")
        return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
