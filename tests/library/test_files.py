"""Files that are whole or not there, also where many threads write at once."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from bayesbinn_nb.library.files import atomic_write, write_whole


def test_a_file_has_the_rights_of_any_other_file(tmp_path):
    before = os.umask(0o027)
    try:
        written = write_whole(tmp_path / "a", "text")
        with open(tmp_path / "b", "w") as f:
            f.write("text")
    finally:
        os.umask(before)
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


def test_threads_that_write_one_file_leave_one_of_their_texts(tmp_path):
    before = os.umask(0)
    os.umask(before)
    texts = [str(i) * 10_000 for i in range(10)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_whole(tmp_path / "one", text), texts * 5))
    assert (tmp_path / "one").read_text() in texts and [p.name for p in tmp_path.iterdir()] == ["one"]
    assert os.umask(before) == before  # a setting of the whole process, which no thread may touch


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError(5, "Input/output error")])
def test_whatever_is_raised_leaves_what_was_there(tmp_path, error):
    write_whole(tmp_path / "a", "old")
    with pytest.raises(error if isinstance(error, type) else OSError), atomic_write(tmp_path / "a", "w") as f:
        f.write("new")
        raise error
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]
