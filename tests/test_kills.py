"Twenty kills at random points; `python tests/kills.py` does five hundred"

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="lives are forked processes")
@pytest.mark.parametrize(("only", "kills"), [("bayesbinn", 4), ("pmf", 4), ("lrnet", 4), ("runner", 8)])
def test_a_run_that_is_killed_at_random_points_ends_as_if_nothing_had_been(only, kills):
    import subprocess

    # a process of its own: fork and the threads of an earlier test do not go together
    command = [sys.executable, Path(__file__).parent / "kills.py", "--kills", str(kills), "--seed", "1", "--only", only]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
