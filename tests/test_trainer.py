"""The trainer: a killed run goes on to the last bit, callbacks and errors do what they say."""
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bayesbinn_nb.library.checkpoint import load_checkpoint
from bayesbinn_nb.library.data import ArrayData, load_data
from bayesbinn_nb.library.models import build_model
from bayesbinn_nb.library.trainer import Callback, CSVLogger, FlipRatio, Progress, StopWhenStill, TensorBoardLogger, Trainer
from bayesbinn_nb.methods.bayesbinn import BayesBiNN
from bayesbinn_nb.methods.full_precision import FullPrecision
from bayesbinn_nb.methods.ste import STE

RUN = textwrap.dedent(
    """
    import sys, torch
    from bayesbinn_nb.library.data import load_data
    from bayesbinn_nb.library.models import build_model
    from bayesbinn_nb.library.trainer import FlipRatio, Trainer
    from bayesbinn_nb.methods.bayesbinn import BayesBiNN
    from bayesbinn_nb.methods.ste import STE

    torch.set_num_threads(1)
    digits = load_data("digits")
    method = {"bayesbinn": lambda: BayesBiNN(lr=1e-4), "ste": lambda: STE(lr=1e-2)}[sys.argv[1]]()
    trainer = Trainer(build_model("mnist_mlp", in_features=64, hidden=64), device="cpu", seed=3).compile(
        method, scheduler=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 30, 1e-16))
    trainer.fit(digits.train, digits.val, epochs=int(sys.argv[3]), callbacks=[FlipRatio()], progress="line", checkpoint_dir=sys.argv[2])
    print("done")
    """
)


@pytest.mark.parametrize("method", ["bayesbinn", "ste"])
def test_kill_minus_nine_and_resume_is_bit_identical(tmp_path, method):
    script = tmp_path / "run.py"
    script.write_text(RUN)
    epochs = 25

    def start(folder):
        return subprocess.Popen([sys.executable, str(script), method, str(tmp_path / folder), str(epochs)], stdout=subprocess.PIPE, text=True)

    whole = start("whole")
    assert "done" in whole.communicate(timeout=240)[0] and whole.returncode == 0
    cut = start("cut")
    for line in cut.stdout:
        if line.startswith("epoch 3/"):
            break
    os.kill(cut.pid, signal.SIGKILL)
    cut.communicate()
    assert cut.returncode == -signal.SIGKILL
    reached = len(load_checkpoint(tmp_path / "cut" / "last.pt")["history"])
    assert 2 <= reached < epochs, "the run was to be killed on its way"
    again = start("cut")
    assert "done" in again.communicate(timeout=240)[0]

    a, b = (load_checkpoint(tmp_path / folder / "last.pt") for folder in ("whole", "cut"))
    clean = lambda h: [{k: v for k, v in row.items() if "seconds" not in k} for row in h]
    assert clean(a["history"]) == clean(b["history"])
    assert all(torch.equal(a["model"][k], b["model"][k]) for k in a["model"])
    best_a, best_b = (load_checkpoint(tmp_path / folder / "best.pt") for folder in ("whole", "cut"))
    assert all(torch.equal(best_a["model"][k], best_b["model"][k]) for k in best_a["model"])


def toy(method=None, **kwargs):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    return Trainer(net, device="cpu", seed=0, **kwargs).compile(method or STE(lr=1e-2))


def blobs(n=300):
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (n,), generator=g)
    return ArrayData(torch.randn(n, 4, generator=g) + 3 * torch.eye(3, 4)[y], y)


def test_seeds_decide_everything_and_the_global_state_is_left_alone():
    results = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        state = torch.get_rng_state()
        trainer = toy(BayesBiNN(lr=1e-3, temperature=1.0, init_lambda=1.0))
        torch.set_rng_state(state)
        history = trainer.fit(blobs(), epochs=3, batch_size=32, progress="silent")
        assert torch.equal(torch.get_rng_state(), state)
        results.append([row["loss"] for row in history])
    assert results[0] == results[1]


def test_best_checkpoint_is_the_best_validation_epoch(tmp_path):
    digits = load_data("digits")
    trainer = Trainer(build_model("mnist_mlp", in_features=64, hidden=32), device="cpu", seed=1).compile(STE(lr=1e-2))
    history = trainer.fit(digits.train, digits.val, epochs=6, progress="silent", checkpoint_dir=tmp_path, checkpoint_seconds=1e9)
    best = load_checkpoint(tmp_path / "best.pt")
    assert len(best["history"]) == history.best("val_accuracy")["epoch"]
    assert len(load_checkpoint(tmp_path / "last.pt")["history"]) == 6
    trainer.load(tmp_path / "best.pt")
    assert trainer.evaluate(digits.val)["accuracy"] == pytest.approx(history.best("val_accuracy")["val_accuracy"])


def test_any_iterable_of_batches_trains():
    data = blobs()
    trainer = toy()
    trainer.fit(DataLoader(TensorDataset(data.x, data.y), batch_size=30), epochs=5, progress="silent")
    assert trainer.method.train_size == 300 and trainer.evaluate(data)["accuracy"] > 0.8


@pytest.mark.parametrize("method", [lambda: BayesBiNN(lr=1e-3, temperature=1.0, init_lambda=1.0), lambda: STE(lr=1e-2), lambda: FullPrecision(lr=1e-2)])
def test_bfloat16_trains_and_leaves_float32_weights(method):
    trainer = toy(method(), precision="bfloat16")
    trainer.fit(blobs(), epochs=15, batch_size=30, progress="silent")
    assert trainer.evaluate(blobs())["accuracy"] > 0.8
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())


def test_loggers_and_progress(tmp_path, capsys):
    callbacks = [FlipRatio(), CSVLogger(tmp_path / "log.csv"), TensorBoardLogger(tmp_path / "tb")]
    toy().fit(blobs(), epochs=3, callbacks=callbacks, progress="line")
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert len(lines) == 4 and "flip_ratio" in lines[0]
    assert list((tmp_path / "tb").iterdir())
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["1/3", "2/3", "3/3"]
    with pytest.raises(ValueError, match="style must be"):
        Progress("loud")


def test_stopping_when_no_weight_flips():
    trainer = Trainer(nn.Sequential(nn.Linear(4, 3)), device="cpu").compile(STE(lr=1e-12))
    history = trainer.fit(blobs(), epochs=50, callbacks=[FlipRatio(), StopWhenStill(4)], progress="silent")
    assert len(history) == 4 and history[-1]["flipped"] == 0


def test_mean_prediction_averages_probabilities():
    trainer = toy(BayesBiNN(lr=1e-3, temperature=1.0, init_lambda=0.5))
    trainer.fit(blobs(), epochs=3, progress="silent")
    draws, mean = trainer.predict(blobs(), "sample", 5), trainer.predict(blobs(), "mean", 5)
    assert torch.allclose(draws.mean(0), mean, atol=1e-6) and torch.allclose(mean.sum(1), torch.ones(300), atol=1e-5)
    scored = trainer.evaluate(blobs(), "mean", 5)
    assert scored["accuracy"] == pytest.approx((mean.argmax(1) == blobs().y).float().mean().item())


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_checkpoint(tmp_path):
    class Spoil(Callback):
        def on_epoch_begin(self, trainer, logs):
            if logs["epoch"] == 3:
                trainer.model[3].bias.data.fill_(float("nan"))

    trainer = toy()
    with pytest.raises(FloatingPointError, match="training loss is nan in epoch 3.*last good state"):
        trainer.fit(blobs(), epochs=5, callbacks=[Spoil()], progress="silent", checkpoint_dir=tmp_path)
    assert len(load_checkpoint(tmp_path / "last.pt")["history"]) == 2


def test_a_checkpoint_of_another_seed_or_method_is_refused(tmp_path):
    toy().fit(blobs(), epochs=1, progress="silent", checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="belongs to seed 0"):
        Trainer(nn.Linear(4, 3), device="cpu", seed=7).compile(STE()).load(tmp_path / "last.pt")
    with pytest.raises(ValueError, match="saved by the method 'ste'"):
        toy(BayesBiNN()).load(tmp_path / "last.pt")


def test_importing_the_library_needs_no_notebook_package():
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('matplotlib', 'seaborn', 'papermill', 'nbformat', 'nbdev', 'fastcore', 'IPython', 'IPython.display'):
            raise ImportError(name + ' must not be needed')
sys.meta_path.insert(0, Block())
import bayesbinn_nb.library.trainer, bayesbinn_nb.library.packing, bayesbinn_nb.library.recipes, bayesbinn_nb.library.plots
import bayesbinn_nb.methods.lrnet, bayesbinn_nb.methods.pmf, bayesbinn_nb.methods.bop
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
