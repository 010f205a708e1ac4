"""Instruction levels: only downwards, and each really changes bits or says that it does not."""

import importlib.util
from pathlib import Path

import pytest
import torch

spec = importlib.util.spec_from_file_location("levels", Path(__file__).with_name("levels.py"))
levels = importlib.util.module_from_spec(spec)
spec.loader.exec_module(levels)


@pytest.mark.parametrize(
    "capability, expected",
    [
        ("AVX512", ["avx2", "oldest"]),
        ("AVX2", ["oldest"]),
        ("DEFAULT", []),
        ("SVE256", []),  # another architecture
    ],
)
def test_levels_are_strictly_below_the_processor(capability, expected):
    assert [level.name for level in levels.lower_levels(capability)] == expected


def test_the_oldest_level_changes_bits_here_and_the_native_one_none(monkeypatch):
    for name in levels.LEVELS[0].env:
        monkeypatch.delenv(name, raising=False)
    native = levels.probe()
    assert levels.changed(native, levels.probe()) == []  # the probe itself gives the same bits twice
    lower = levels.lower_levels(native["capability"])
    if not lower:
        pytest.skip(f"no level below {native['capability']} is known")
    oldest = levels.probe(lower[-1].env)
    assert oldest["capability"] == lower[-1].capability
    assert levels.changed(native, oldest)


def test_a_level_that_changes_nothing_is_skipped_and_said(monkeypatch):
    same = dict(capability="AVX2", digests={"sum": "1"})
    monkeypatch.setattr(levels, "probe", lambda env=None: same)
    said = []
    assert levels.levels_here(said.append) == []
    assert said == ["this processor: AVX2", "oldest: changes no bit on this machine, SKIPPED"]


def test_the_numeric_tests_are_there():
    paths = [Path(path) for path in levels.numeric_tests()]
    assert len(levels.NUMERIC) == len(set(levels.NUMERIC)) > 10
    for name, path in zip(levels.NUMERIC, paths, strict=True):  # one file each, in whatever room
        assert path.name == f"test_{name}.py" and path.exists(), f"NUMERIC names {name}, which is no test file"


def test_a_red_level_makes_the_command_fail(monkeypatch, capsys):
    monkeypatch.setattr(levels, "levels_here", lambda: list(levels.LEVELS))
    monkeypatch.setattr(levels, "run_level", lambda level, jobs: level.name != "oldest")
    assert levels.main(["run"]) == 1
    assert "avx2 ok, oldest FAILED" in capsys.readouterr().out
    monkeypatch.setattr(levels, "run_level", lambda level, jobs: True)
    assert levels.main(["run"]) == 0


def test_every_test_process_has_one_thread():
    assert torch.get_num_threads() == 1
