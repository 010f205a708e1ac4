"The notebooks can be read: rules on cells and prose, counted by `tests/reading.py`"

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import reading  # noqa: E402

KEPT = (
    "math",
    "methods",
    "library",
    "site",
)  # rooms that keep every rule; the others have faults left, which the script lists


@pytest.mark.parametrize("room", KEPT)
def test_a_room_keeps_the_rules_on_cells_and_prose(room):
    assert reading.faults(room) == []
