"Some changed files of every kind; `python tests/damage.py` looks at five thousand"

import subprocess
import sys
from pathlib import Path


def test_changed_files_of_every_kind_are_refused_in_a_sentence():
    # a process of its own: it sets a signal handler and a timer
    command = [sys.executable, Path(__file__).parent / "damage.py", "--count", "480", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
