"""A full disk, at any point of writing: one sentence with the file and what is safe, and a run that can go on."""

import builtins
import errno
import os
import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

from bayesbinn_nb.library.callbacks import CSVLogger, FlipRatio
from bayesbinn_nb.library.checkpoint import load_checkpoint, load_model, save_checkpoint, save_model
from bayesbinn_nb.library.data import ArrayData
from bayesbinn_nb.library.models import build_model
from bayesbinn_nb.library.trainer import Trainer
from bayesbinn_nb.methods.bayesbinn import BayesBiNN


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


class Filling:
    "A file on a disk that is full after so many writes"

    def __init__(self, file, writes):
        self.file, self.writes = file, writes

    def write(self, data):
        self.writes -= 1
        return no_space() if self.writes < 0 else self.file.write(data)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)


def fill(monkeypatch, stage):
    "The disk is full at this stage of writing a file: the name of a function, or the number of a write"
    if stage in ("fsync", "replace", "mkdir"):
        monkeypatch.setattr(*((Path, "mkdir") if stage == "mkdir" else (os, stage)), no_space)
        return
    whole, of_handle = builtins.open, os.fdopen

    def filling(path, *args, **kwargs):
        if not str(path).endswith(".part"):
            return whole(path, *args, **kwargs)
        return no_space() if stage == "open" else Filling(whole(path, *args, **kwargs), stage)

    monkeypatch.setattr(builtins, "open", filling)
    if stage == "open":
        monkeypatch.setattr(tempfile, "mkstemp", no_space)
    else:
        monkeypatch.setattr(os, "fdopen", lambda *args, **kwargs: Filling(of_handle(*args, **kwargs), stage))


def log(path, epochs):
    "The history as a file"
    logger = CSVLogger(path)
    trainer = type("Trained", (), {"history": [{"epoch": k, "loss": 1 / k} for k in range(1, epochs)]})()
    logger.on_epoch_end(trainer, {"epoch": epochs, "loss": 1 / epochs})


WRITERS = {
    "checkpoint": (
        lambda path, k: save_checkpoint({"k": k, "lam": torch.ones(9)}, path),
        lambda p: load_checkpoint(p)["k"],
    ),
    "model": (
        lambda path, k: save_model(build_model("mnist_mlp", in_features=4, hidden=4 * k, layers=1), path),
        lambda path: load_model(path).fc1.out_features // 4,
    ),
    "history": (log, lambda path: len(path.read_text().splitlines()) - 1),
}


STAGES = {writer: ["mkdir", "open", 0, "fsync", "replace"] for writer in WRITERS}
STAGES["checkpoint"] += [1, 2]  # the others are written in one piece


@pytest.mark.parametrize("writer, stage", [(writer, stage) for writer in STAGES for stage in STAGES[writer]])
def test_a_full_disk_is_one_sentence_and_loses_nothing(writer, stage, tmp_path, monkeypatch):
    write, read = WRITERS[writer]
    old, new = tmp_path / "old", tmp_path / "new"
    write(old, 1)
    with monkeypatch.context() as full:
        fill(full, stage)
        for path, safe in ((old, "the file of that name is as it was"), (new, "no part of it was left behind")):
            with pytest.raises(OSError) as e:
                write(path, 2)
            assert e.value.errno == errno.ENOSPC
            assert e.value.strerror.startswith(f"{path} could not be written: the disk is full; {safe}.")
    assert read(old) == 1 and [p.name for p in tmp_path.iterdir()] == ["old"]
    write(new, 2)
    assert read(new) == 2


def test_every_single_write_of_a_checkpoint_may_be_the_one_that_fails(tmp_path, monkeypatch):
    state, failed = {"lam": [torch.randn(30), torch.randn(500)], "epoch": 3}, 0
    for stage in range(200):
        with monkeypatch.context() as full:
            fill(full, stage)
            try:
                save_checkpoint(state, tmp_path / "c.pt")
                break
            except OSError as e:
                failed += 1
                assert "c.pt could not be written: the disk is full; no part of it was left behind." in str(e)
        assert not [*tmp_path.iterdir()]
    assert failed > 5 and torch.equal(load_checkpoint(tmp_path / "c.pt")["lam"][1], state["lam"][1])


def test_what_cannot_be_stored_is_not_called_a_full_disk(tmp_path):
    class Refuses(dict):
        def __reduce__(self):
            raise RuntimeError("not to be stored")

    with pytest.raises(RuntimeError, match="not to be stored"):
        save_checkpoint({"a": Refuses()}, tmp_path / "c.pt")
    assert not [*tmp_path.iterdir()]


def blobs():
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (90,), generator=g)
    return ArrayData(torch.randn(90, 4, generator=g) + 2 * torch.eye(3, 4)[y], y)


def fitted(folder, trainer=None):
    "Four epochs; the monitored value is best in the second"
    if trainer is None:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
        trainer = Trainer(net, device="cpu").compile(BayesBiNN(lr=1e-2, temperature=1.0, init_lambda=1.0))
    best_in_the_second = Hill()
    settings = {"batch_size": 30, "progress": "silent", "monitor": "hill", "checkpoint_dir": folder}
    trainer.fit(blobs(), epochs=4, callbacks=[best_in_the_second, FlipRatio()], **settings)
    return trainer


class Hill(FlipRatio):
    "A measure that is best in epoch 2"

    def on_epoch_end(self, trainer, logs):
        logs["hill"] = -abs(logs["epoch"] - 2)


def numbers(rows):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


@pytest.mark.parametrize("again", ["in the same process", "in another process"])
def test_a_run_on_a_full_disk_goes_on_when_there_is_room(again, tmp_path, monkeypatch):
    whole = fitted(tmp_path / "whole")
    best = load_checkpoint(tmp_path / "whole" / "best.pt")
    assert len(best["history"]) == 2
    for files in range(7):  # within, best and last, best and last, last, last
        folder, replace, left = tmp_path / str(files), os.replace, [files]
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
        trainer = Trainer(net, device="cpu").compile(BayesBiNN(lr=1e-2, temperature=1.0, init_lambda=1.0))

        def filling(source, target, left=left, replace=replace):
            left[0] -= 1
            return no_space() if left[0] < 0 else replace(source, target)

        with monkeypatch.context() as full:
            full.setattr(os, "replace", filling)
            with pytest.raises(OSError, match=r"(within|best|last)\.pt could not be written: the disk is full; "):
                fitted(folder, trainer)
        resumed = fitted(folder, trainer if again == "in the same process" else None)
        assert numbers(resumed.history) == numbers(whole.history), files
        kept = load_checkpoint(folder / "best.pt")
        assert numbers(kept["history"]) == numbers(best["history"]), files
        for name, weights in best["model"].items():
            assert torch.equal(kept["model"][name], weights), (files, name)
