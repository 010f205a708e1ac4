"Files of measured targets: each fault a sentence, all of them one table and one finding, the committed ones whole"

import copy
import json

import pytest

from bayesbinn_nb.library.targets import Outcome, load_average, machine, record
from bayesbinn_nb.repro.measured_targets import (
    TargetsError,
    load_targets,
    machine_name,
    target_faults,
    targets_dir,
    targets_finding,
    targets_table,
)

ROWS = [
    Outcome("optimiser", "paper", 1.5, 1.25, "bounds: bytes 0.90"),
    Outcome("training", "STE", 1.15, 1.5),
    Outcome("packed", "VGG", 1.0, None, "not measured: no memory"),
]


@pytest.fixture
def written(tmp_path):
    "What the benchmark itself writes"
    record(ROWS, tmp_path / "here.json", load_average())
    return json.loads((tmp_path / "here.json").read_text(encoding="utf8"))


def other(contents, capability="OTHER", **load):
    changed = copy.deepcopy(contents)
    changed["machine"]["capability"] = capability
    changed["load"] |= load
    return changed


def test_what_the_benchmark_writes_is_read_back(written, tmp_path):
    assert target_faults(written) == [] and load_targets(tmp_path) == [written]
    assert written["machine"] == machine() and machine_name(written).endswith(machine()["capability"])
    assert [row["met"] for row in written["targets"]] == [True, False, False]


def put(*path_and_value):
    *path, last, value = path_and_value

    def change(contents):
        for step in path:
            contents = contents[step]
        contents[last] = value

    return change


FAULTS = [
    (lambda c: c.pop("load"), "the field 'load' is missing."),
    (lambda c: c["machine"].pop("torch"), "machine lacks the field 'torch'."),
    (put("load", "before", 10**400), "load: before is 1000"),
    (put("machine", []), "machine must be an object with the fields processor,"),
    (put("machine", "processor", " "), "machine: processor is ' ', it must be a text."),
    (put("machine", "cores", 0), "machine: cores is 0, it must be a whole number from 1."),
    (put("machine", "cores", True), "machine: cores is True, it must be a whole number from 1."),
    (put("machine", "numba", 1), "machine: numba is 1, it must be a text, or null."),
    (put("date", "yesterday"), "date is 'yesterday', it must be an ISO date with a time zone."),
    (put("date", "2026-01-01"), "date is '2026-01-01', it must be an ISO date with a time zone."),
    (put("load", "before", -1), "load: before is -1, it must be a number from 0, or null."),
    (put("targets", []), "targets must be a list of at least one row."),
    (put("targets", 0, "text"), "target 1 must be an object with the fields group,"),
    (put("targets", 0, "limit", 0), "target 1: limit is 0, it must be a number above 0."),
    (put("targets", 1, "measured", float("nan")), "target 2: measured is nan, it must be a number from 0, or null."),
    (put("targets", 1, "met", True), "target 2 says met, but 1.5 was measured and the limit is 1.15;"),
    (put("targets", 0, "met", False), "target 1 says not met, but 1.25 was measured and the limit is 1.5;"),
    (put("targets", 2, "note", ""), "target 3 was not measured, and its note does not say why."),
    (lambda c: c["targets"].append(c["targets"][1]), "training: STE stands there 2 times."),
]


@pytest.mark.parametrize("change, said", FAULTS, ids=[said[:40] for _, said in FAULTS])
def test_each_fault_is_one_sentence(written, change, said):
    change(written)
    found = target_faults(written)
    assert len(found) == 1 and found[0].startswith(said)


def test_every_fault_of_every_file_is_said(written, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    written["machine"]["cores"], written["date"] = "two", None
    (tmp_path / "here.json").write_text(json.dumps(written))
    with pytest.raises(TargetsError) as raised:
        load_targets(tmp_path)
    lines = str(raised.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["broken.json", "here.json", "here.json", "list.json"]


def test_a_machine_has_one_file(written, tmp_path):
    (tmp_path / "again.json").write_text(json.dumps(written))
    with pytest.raises(TargetsError, match=r"^2 files are of .*; keep one\.$"):
        load_targets(tmp_path)
    (tmp_path / "again.json").write_text(json.dumps(other(written)))
    assert len(load_targets(tmp_path)) == 2


def test_machines_stand_side_by_side(written):
    second = other(written, before=None, after=None)
    second["targets"] = [second["targets"][0] | {"measured": 2.0, "met": False}]
    here, there = machine_name(written), machine_name(second)
    paper, ste, vgg = targets_table([written, second])
    assert (paper["limit"], paper[here], paper[there]) == ("1.5", "1.25 met", "2.00 not met")
    level = written["machine"]["capability"]
    assert paper["note"] == f"{level}: bounds: bytes 0.90; OTHER: bounds: bytes 0.90"
    assert (ste[here], ste[there], ste["note"]) == ("1.50 not met", "", "")
    assert (vgg[here], vgg[there]) == ("not measured", "")
    assert targets_table([written])[0]["note"] == "bounds: bytes 0.90"


def test_a_changed_limit_is_another_row(written):
    second = other(written)
    second["targets"][1] |= {"limit": 2.0, "met": True}
    rows = [row for row in targets_table([written, second]) if row["target"] == "training: STE"]
    assert [row["limit"] for row in rows] == ["1.15", "2"]


def test_the_finding_counts_each_machine(written):
    written["load"] = {"before": 0.25, "after": 3.0}
    second = other(written, before=None, after=None)
    first, last = targets_finding([written, second]).split("; OTHER")[0], targets_finding([second])
    assert "load average 0.2 before and 3.0 after it" in first
    assert "1 of 3 targets met, 1 not met, 1 not measured" in first
    assert "load not known" in last and last.endswith(".")


def test_no_file_is_said_so(tmp_path):
    assert load_targets(tmp_path) == [] and targets_table([]) == []
    assert targets_finding([]) == "No machine's targets were recorded yet."


@pytest.mark.skipif(targets_dir() is None, reason="only a checkout holds the results")
def test_the_committed_files_are_whole():
    found = load_targets()
    assert found and len(targets_table()) >= max(len(one["targets"]) for one in found)
    assert all(f"of {len(one['targets'])} targets met" in targets_finding() for one in found)
