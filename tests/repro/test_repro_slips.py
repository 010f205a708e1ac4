"""Names, files and options that are nearly right, a stop at the wrong moment, and machines that differ."""

import errno
import json
import threading
from types import SimpleNamespace

import pytest

from bayesbinn_nb.library import targets
from bayesbinn_nb.repro import confirm, executed, jobs, notebooks, runner, suites, units
from bayesbinn_nb.repro.cli import _what_next, main
from bayesbinn_nb.repro.identity import identify
from bayesbinn_nb.repro.jobs import RunnerError
from bayesbinn_nb.repro.runner import folder_lock, suite_folder
from bayesbinn_nb.repro.suites import SuiteError, load_suite


def test_a_suite_of_ones_own_does_not_take_the_place_of_a_known_one(tmp_path):
    (tmp_path / "short.yaml").write_text("rows: [{row: r, template: two_moons, seeds: [0]}]")
    own = load_suite(tmp_path / "short.yaml")
    with pytest.raises(SuiteError, match="has the name of a suite of the package"):
        suite_folder(own)
    assert suite_folder(own, tmp_path / "here") == tmp_path / "here"
    assert suite_folder(load_suite("short")).name == "short"


def test_targets_are_chosen_before_anything_is_measured(tmp_path, capsys, monkeypatch):
    kept = tmp_path / "kept.json"
    kept.write_text("before")

    def broken():
        raise MemoryError("no room")

    def made():
        return [targets.Target("one", 2.0, lambda: targets.Measured(1.0)), targets.Target("two", 2.0, broken)]

    monkeypatch.setattr(targets, "GROUPS", {"mine": made})
    for words, said in ((["nosuch"], "no group or target has 'nosuch'"), ([], "there is no such folder")):
        where = kept if words else tmp_path / "absent" / "kept.json"
        with pytest.raises(SystemExit):
            targets.main([*words, "--json", str(where)])
        assert said in capsys.readouterr().err and kept.read_text() == "before"
    targets.main(["--json", str(kept)])
    rows = json.loads(kept.read_text())["targets"]
    assert [row["measured"] for row in rows] == [1.0, None]
    assert "not measured: MemoryError: no room" in rows[1]["note"]


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"cells": 3}'])
def test_a_page_that_is_no_notebook_is_a_fault_of_that_page(tmp_path, text):
    page = tmp_path / "page.ipynb"
    page.write_text(text)
    checked = notebooks.check_page(page)
    assert not checked.ok and "notebook" in checked.faults[0]


@pytest.mark.parametrize(
    "gpu, said", [(True, "it ran on a GPU, and there is none on this machine"), (False, "no trace")]
)
def test_records_of_a_gpu_are_not_confirmed_without_one(tmp_path, monkeypatch, gpu, said):
    row = next(iter(load_suite("short").rows))
    monkeypatch.setattr(confirm, "has_gpu", lambda: False)
    monkeypatch.setattr(confirm, "read_note", lambda folder: {"hash": "0" * 16, "gpu": gpu, "seeds": [0]})
    monkeypatch.setattr(confirm, "settled", lambda row, folder: row)
    monkeypatch.setattr(confirm, "row_state", lambda row, folder: "older code")
    monkeypatch.setattr(confirm, "load_records", lambda *a, **k: [SimpleNamespace(hash="0" * 16, dtype="float32")])
    assert said in confirm.confirm_row(row, tmp_path).said


@pytest.mark.parametrize("options", [["--shard", ""], ["--devices", "0,"], ["--devices", ""]])
def test_an_empty_part_or_device_is_refused(options, tmp_path, capsys):
    code = main(["batch", "quick", "--out", str(tmp_path), *options])
    assert code == 2 and options[0] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_advised_after_a_batch_is_a_command_that_works(tmp_path, monkeypatch):
    folder = tmp_path / "a folder"
    monkeypatch.setattr("bayesbinn_nb.repro.places.default_out", lambda name: folder)
    own = _what_next(suites.Suite("mine", []))
    assert f"`bayesbinn report --suite '{folder}'`" in own
    assert "`bayesbinn report --suite quick`" in _what_next(load_suite("quick"))


def test_a_file_system_without_locks_is_not_taken_for_a_busy_one(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def without(*a):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", without)
    with pytest.raises(RunnerError, match="cannot be locked") as caught, folder_lock(tmp_path):
        pass
    assert not isinstance(caught.value, runner.Busy)


def test_paths_are_shortened_at_their_ends_only():
    swaps = [("/work/data", "$DATA"), ("/home/u", "~")]
    text = executed.clean_text("/work/database /work/data/x /home/user2 /home/u, /home/u/y", None, swaps)
    assert text == "/work/database $DATA/x /home/user2 ~, ~/y"


def test_whole_numbers_are_decimal():
    for text, value in (("010", 10), ("1_000", 1000), ("-3", -3), ("1:30", "1:30"), ("0x1f", "0x1f"), ("7", 7)):
        assert suites.load_yaml(text) == value and type(suites.load_yaml(text)) is type(value)


def test_a_line_of_python_that_begins_with_a_percent_sign_counts():
    cells = "x = (\n7\n% {}\n)\nrecord_run('.', arm='a')"
    first, second = (identify([cells.format(k)], {}) for k in (2, 3))
    assert first.hash != second.hash
    assert identify(["%matplotlib inline\nx = 1\nrecord_run('.')"], {}).hash


def test_a_job_that_is_being_started_can_be_stopped(tmp_path, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slow(place):
        begun.set()
        assert go_on.wait(20)

    monkeypatch.setattr(jobs, "sweep", slow)
    monkeypatch.setattr(jobs, "_start", lambda *a: pytest.fail("it was started all the same"))
    answers, job = [], dict(name="r", kind="page", folder=str(tmp_path))
    worker = threading.Thread(target=lambda: answers.append(jobs.execute_job(job)))
    worker.start()
    assert begun.wait(20)
    jobs.stop_jobs()
    go_on.set()
    worker.join(20)
    assert answers[0]["error"] == "stopped" and not jobs._RUNNING and not jobs._STOPPING


def test_units_of_another_kind_are_set_aside_and_named(tmp_path, monkeypatch):
    row, kinds = SimpleNamespace(name="r"), ("a" * 16, "b" * 16, "a" * 16)
    mine = [units.Unit(f"r, seed {seed}", (seed,), row) for seed in range(3)]
    for unit in mine:
        unit.folder(tmp_path).mkdir(parents=True)
    noted = {unit.folder(tmp_path): {"hash": kind} for unit, kind in zip(mine, kinds)}
    monkeypatch.setattr(units, "read_note", lambda folder, problems: noted[folder])
    with pytest.raises(RunnerError, match="r, seed 1 set aside"):
        units._agreed(mine, tmp_path)
    assert [p.name for p in sorted((tmp_path / "r" / "_units").iterdir())] == ["0", "2"]
    assert (tmp_path / "r" / "_older" / "1-bbbbbbbb").is_dir()
