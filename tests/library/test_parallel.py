"""Several processes train one network: equal to one process, to the bit after a kill, refused where they differ,
ended with a sentence."""

import re
import textwrap

import pytest
import torch

from bayesbinn_nb.library.parallel import Cut, ShareSampler, launch

COMMON = """
import os, sys, time
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from bayesbinn_nb.library.arrays import ArrayData
from bayesbinn_nb.library.parallel import (
    DataParallel, ParallelTrainer, ShareSampler, from_all, join_group, others_alive, processes, rank, share_of,
)
from bayesbinn_nb.library.trainer import Callback, CSVLogger, Trainer
from bayesbinn_nb.methods.bayesbinn import BayesBiNN, BayesBiNNOptimizer
from bayesbinn_nb.methods.bop import Bop
from bayesbinn_nb.methods.ste import STE

join_group(timeout=60)
N = 43  # with batches of 7, the last one has a single example: a share is missing
numbers = torch.Generator().manual_seed(3)
x = torch.randn(N, 6, dtype=torch.float64, generator=numbers)
y = torch.randint(0, 3, (N,), generator=numbers)


def network(outputs=3, bias=False, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8, bias=bias), nn.Tanh(), nn.Linear(8, outputs, bias=False))


toy = dict(temperature=1.0, init_lambda=1.0, lr=1e-2)
METHODS = {
    "bayesbinn": lambda: BayesBiNN(**toy),
    "bayesbinn, S=2": lambda: BayesBiNN(**toy, samples=2, momentum=0.9),
    "ste": lambda: STE(),
    "bop": lambda: Bop(adaptivity_rate=0.1, threshold=1e-3),
}


def numbers_of(model, method):
    behind = [t.double().flatten() for tensors in method.behind().values() for t in tensors]
    return {"weights": torch.cat([p.detach().double().flatten() for p in model.parameters()]), "behind": torch.cat(behind)}


def print_line(text):
    sys.stdout.write(text + chr(10))  # in one piece
    sys.stdout.flush()
"""  # noqa: E501

EQUAL = """
found = {}


def keep(name, model, method, history=()):
    rows = [[row[k] for k in ("loss", "accuracy", "binary_accuracy", "val_loss") if k in row] for row in history]
    found[name] = numbers_of(model, method) | {"rows": torch.tensor(rows, dtype=torch.float64)}
    found[name]["N"] = torch.tensor(method.train_size)


for name, make in METHODS.items():
    model, method = network().double(), make()
    method.prepare(model, train_size=40, seed=1)  # torch's own DDP: shares of one size
    parallel, batch = DistributedDataParallel(model), torch.arange(40).view(5, 8)
    for step in range(20):
        mine = batch[step % 5][share_of(8, rank(), processes())]
        for one_pass in method.train_passes():
            with one_pass:
                cross_entropy(parallel(x[mine]), y[mine]).backward()
        method.step()
    keep(f"own loop, {name}", model, method)

    model, method = network(bias=True, seed=rank()).double(), make()  # rank 0's network is everybody's
    trainer = ParallelTrainer(model, device="cpu").compile(method)
    loader = DataLoader(TensorDataset(x, y), batch_sampler=ShareSampler(N, 7))
    keep(f"loader, {name}", model, method, trainer.fit(loader, epochs=3, progress="silent"))

    model, method = network(outputs=1), make()
    trainer = ParallelTrainer(model, device="cpu").compile(method, "binary_cross_entropy", ("binary_accuracy",))
    split = ArrayData(x.float(), (y == 1).float())
    keep(f"array, {name}", model, method, trainer.fit(split, split, epochs=3, batch_size=7, progress="silent"))
    if processes() == 1:
        alone, method = network(outputs=1), make()
        trainer = Trainer(alone, device="cpu").compile(method, "binary_cross_entropy", ("binary_accuracy",))
        trainer.fit(split, split, epochs=3, batch_size=7, progress="silent")
        assert all(torch.equal(a, b) for a, b in zip(alone.state_dict().values(), model.state_dict().values()))

some = torch.where(torch.arange(N) % 3 > 0, y, -100)  # some targets do not count
for kind in ("array", "loader"):
    model, method = network().double() if kind == "loader" else network(), METHODS["bayesbinn"]()
    loader = DataLoader(TensorDataset(x, some), batch_sampler=ShareSampler(N, 22))
    data = loader if kind == "loader" else ArrayData(x.float(), some)
    history = ParallelTrainer(model, device="cpu").compile(method).fit(data, epochs=3, batch_size=22, progress="silent")
    keep(f"ignored, {kind}", model, method, history)

from torchmetrics.classification import MulticlassF1Score

weights = 0.5 + torch.rand(N, generator=numbers)
F1 = lambda: MulticlassF1Score(num_classes=3)
WEIGHTED = {
    "weights of examples": dict(sample_weight=weights.numpy()),
    "weights of classes": dict(class_weight={0: 1.0, 1: 3.0, 2: 0.5}),
    "both weights": dict(sample_weight=weights.numpy(), class_weight={0: 1.0, 1: 3.0, 2: 0.5}),
}
for name, given in WEIGHTED.items():
    model, method = network(), METHODS["bayesbinn"]()
    trainer = ParallelTrainer(model, device="cpu").compile(method, metrics=["accuracy", F1()])
    run = dict(epochs=3, batch_size=7, validation_split=0.3, progress="silent")
    history = trainer.fit(x.float().numpy(), y.numpy(), **run, **given)
    f1 = [[row[k] for k in row if "F1" in k or "f1" in k] for row in history]
    assert all(len(row) == 2 for row in f1), history[0]  # of training and of validation
    keep(f"{name}, array", model, method, history)
    found[f"{name}, array"]["f1"] = torch.tensor(f1, dtype=torch.float64)
    if processes() == 1:
        alone, method = network(), METHODS["bayesbinn"]()
        single = Trainer(alone, device="cpu").compile(method, metrics=["accuracy", F1()])
        rows = single.fit(x.float().numpy(), y.numpy(), **run, **given)
        assert all(torch.equal(a, b) for a, b in zip(alone.state_dict().values(), model.state_dict().values()))
        for ours, theirs in zip(history, rows, strict=True):
            for key, value in theirs.items():
                assert "seconds" in key or abs(ours[key] - value) < 1e-6, key

torch.save(found, sys.argv[1] + f"/{processes()}.{rank()}.pt")
"""

METHOD_NAMES = ("bayesbinn", "bayesbinn, S=2", "ste", "bop")
CASES = [f"{kind}, {name}" for kind in ("own loop", "loader", "array") for name in METHOD_NAMES]
CASES += ["ignored, array", "ignored, loader"]
CASES += [f"{name}, array" for name in ("weights of examples", "weights of classes", "both weights")]


def run(body, *arguments, **settings):
    return launch(COMMON + textwrap.dedent(body), *map(str, arguments), **settings)


def well(outcomes):
    for outcome in outcomes:
        assert outcome.code == 0, outcome.errors[-3000:]
    return outcomes


@pytest.fixture(scope="module")
def equal(tmp_path_factory):
    folder = tmp_path_factory.mktemp("equal")
    found = {}
    for count in (1, 2, 3):
        well(run(EQUAL, folder, processes=count))
        found |= {(count, r): torch.load(folder / f"{count}.{r}.pt", weights_only=True) for r in range(count)}
    return found


# three shares of eight examples are not of one size, and torch's own DDP, which the first loop uses, averages
@pytest.mark.parametrize("processes, case", [(2, c) for c in CASES] + [(3, c) for c in CASES if "own loop" not in c])
def test_as_one_process(equal, processes, case):
    one, ranks = equal[1, 0][case], [equal[processes, r][case] for r in range(processes)]
    for key in one:
        for other in ranks[1:]:
            assert torch.equal(other[key], ranks[0][key]), key  # the ranks agree to the last bit
        # λ, latent weights and sums are float32, and so are the gradients of an ArrayData
        torch.testing.assert_close(ranks[0][key], one[key], rtol=2e-4, atol=2e-5, msg=lambda m: f"{key}: {m}")
    assert one["N"] in (30, 40, 43)  # all examples that are trained on, whatever the number of ranks


RESUMED = """
class Stop(Callback):
    def __init__(self, epoch, step):
        self.at, self.epoch = (epoch, step), 0

    def on_epoch_begin(self, trainer, logs):
        self.epoch = logs["epoch"]

    def on_batch_end(self, trainer, logs):
        if (self.epoch, logs["step"]) == self.at:
            raise KeyboardInterrupt

    def state_dict(self):
        return {}


def trainer():
    torch.manual_seed(0)
    parts = [nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3, bias=False)]
    return ParallelTrainer(nn.Sequential(*parts), device="cpu").compile(BayesBiNN(temperature=1.0, init_lambda=1.0, lr=1e-2))


split = ArrayData(x[:40].float(), y[:40])
run = dict(epochs=4, batch_size=8, progress="silent")
whole = trainer()
rows = whole.fit(split, split, **run)
for place in ((3, 0), (2, 3), (1, 2)):
    for seconds in (0.0, 1e-9):
        folder = f"{sys.argv[1]}/{place[0]}.{place[1]}.{seconds}" if rank() == 0 else f"{sys.argv[1]}/nowhere"
        try:
            trainer().fit(split, split, callbacks=[Stop(*place)], checkpoint_dir=folder, checkpoint_seconds=seconds, **run)
        except KeyboardInterrupt:
            pass
        again = trainer()
        history = again.fit(split, split, checkpoint_dir=folder, checkpoint_seconds=seconds, **run)
        for (name, a), b in zip(whole.model.state_dict().items(), again.model.state_dict().values()):
            assert torch.equal(a, b), (place, seconds, name)
        for a, b in zip(rows, history, strict=True):
            assert [v for k, v in a.items() if "seconds" not in k] == [v for k, v in b.items() if "seconds" not in k]
assert not os.path.exists(f"{sys.argv[1]}/nowhere")
if rank() == 0:
    alone = Trainer(trainer().model, device="cpu").compile(BayesBiNN(temperature=1.0, init_lambda=1.0, lr=1e-2))
    try:
        alone.fit(split, **run, checkpoint_dir=folder)
    except ValueError as e:
        print_line(f"alone: {e}")
"""  # noqa: E501


def test_goes_on_to_the_same_bit(tmp_path):
    "Killed within an epoch or between two, with dropout and batch normalisation; only rank 0 sees the folder"
    first, _ = well(run(RESUMED, tmp_path))
    assert "processes was 2 there and is None here" in first.output


REFUSED = """
def attempt(name, train=None, seed=0, lr=1e-2, rules={}, **settings):
    data = ArrayData(x.float(), y) if train is None else train
    try:
        ParallelTrainer(network(), device="cpu", seed=seed).compile(STE(lr=lr), **rules).fit(
            data, **({"epochs": 1, "progress": "silent"} | settings))
    except Exception as e:
        print_line(f"{name}: {type(e).__name__}: {e}")


attempt("seed", seed=rank())
attempt("setting", lr=1e-2 * (1 + rank()))
attempt("epochs", epochs=1 + rank())
attempt("data", ArrayData(x.float() + rank(), y))
attempt("loader", DataLoader(TensorDataset(x.float(), y), batch_size=7))
import bayesbinn_nb.library.parallel as parallel
digest = parallel.code_digest
parallel.code_digest = lambda: digest() if rank() == 0 else "another"
attempt("code", )
parallel.code_digest = digest
with open(f"{sys.argv[1]}/last.pt", "wb") as f:
    f.write(b"no checkpoint")
attempt("damaged", checkpoint_dir=sys.argv[1] if rank() == 0 else f"{sys.argv[1]}/nowhere")
attempt("nothing")
attempt("accumulation", rules=dict(gradient_accumulation_steps=2))
try:
    ParallelTrainer(network(), device="cpu", cuda_graph=True)
except Exception as e:
    print_line(f"graph: {type(e).__name__}: {e}")


class Enough(Callback):
    def on_epoch_end(self, trainer, logs):
        logs["seen by"] = rank()
        trainer.stop_training = rank() == 1 and logs["epoch"] == 2


trainer = ParallelTrainer(network(), device="cpu").compile(STE())
callbacks = [Enough(), CSVLogger(f"{sys.argv[1]}/{rank()}.csv")]
history = trainer.fit(ArrayData(x.float(), y), epochs=5, progress="line", callbacks=callbacks)
assert [(row["epoch"], row["seen by"]) for row in history] == [(1, 0), (2, 0)]  # rank 0's rows, any rank's wish
print_line("end")
"""


def test_differences_are_refused_on_every_rank_and_rank_0_writes(tmp_path):
    for outcome in well(run(REFUSED, tmp_path)):
        said = dict(line.split(": ", 1) for line in outcome.output.splitlines() if ": " in line)
        refused = {"seed", "setting", "epochs", "data", "loader", "code", "damaged", "accumulation", "graph"}
        assert set(said) == refused, outcome.output
        assert "gradient_accumulation_steps has no weights for shares" in said["accumulation"]
        assert said["graph"].startswith("ValueError: cuda_graph=True cannot record the talk between processes")
        assert "last.pt is not a readable checkpoint" in said["damaged"]
        assert (tmp_path / f"{outcome.rank}.csv").exists() == (outcome.rank == 0)
        assert ("epoch 2/5" in outcome.output) == (outcome.rank == 0)
        assert said["seed"].startswith("ValueError: the seed is 1 on rank 1 and 0 on rank 0: start all processes")
        assert "lr is 0.02 on rank 1 and 0.01 on rank 0" in said["setting"]
        assert "epochs is 2 on rank 1 and 1 on rank 0" in said["epochs"]
        assert said["data"].startswith("ValueError: the training data is")
        assert said["code"].startswith("ValueError: the code is 'another' on rank 1")
        assert said["loader"].startswith("TypeError: DataLoader would give every process all the training data")
        assert outcome.output.endswith("end\n")


DIES = """
class Leave(Callback):
    def on_epoch_end(self, trainer, logs):
        if rank() == 1 and logs["epoch"] == 2:
            if sys.argv[1] == "killed":
                os.kill(os.getpid(), 9)
            if sys.argv[1] == "raises":
                raise RuntimeError("this one is mine")
            time.sleep(60)


ParallelTrainer(network(), device="cpu").compile(STE()).fit(
    ArrayData(x.float(), y), epochs=50, progress="silent", callbacks=[Leave()], checkpoint_dir=sys.argv[2])
"""


@pytest.mark.parametrize("how", ["killed", "raises", "silent"])
def test_a_lost_process_ends_the_others_with_a_sentence(how, tmp_path):
    common = COMMON.replace("timeout=60", "timeout=4") if how == "silent" else COMMON
    first, second = launch(common + DIES, how, str(tmp_path), grace=6 if how == "silent" else 25)
    assert first.code != 0 and second.code != 0
    sentence = "Rank 0 of 2 stops, because another process has ended or does not answer"
    assert sentence in first.errors, first.errors[-2000:]
    assert re.search(r"start all of them again; they go on from .*last.pt", first.errors)
    if how == "raises":
        assert "this one is mine" in second.errors and "Rank 1" not in second.errors


SENT = """
found = {}
for name, make in METHODS.items():
    for precision in ("float32", "bfloat16"):
        trainer = ParallelTrainer(network(), device="cpu", precision=precision).compile(make())
        counts = []

        class Count(Callback):
            def on_epoch_end(self, trainer, logs):
                counts.append(trainer.gradient_bytes)

        trainer.fit(ArrayData(x.float(), y), epochs=2, batch_size=7, progress="silent", callbacks=[Count()])
        print_line(f"{name}|{precision}|{counts[-1]}")
"""


def test_bytes_of_gradients():
    "Per step and pass: one number for each weight, of the type in which the network computes"
    weights, steps = 6 * 8 + 8 * 3, 2 * 7
    for outcome in well(run(SENT)):
        rows = [line.split("|") for line in outcome.output.splitlines()]
        assert len(rows) == 8
        for name, precision, sent in rows:
            passes = 2 if "S=2" in name else 1
            narrow = precision == "bfloat16" and not name.startswith("bayesbinn")  # τ = 1 keeps float32 weights
            assert int(sent) == weights * steps * passes * (2 if narrow else 4), (name, precision)


@pytest.mark.parametrize("examples, batch_size", [(11, 5), (7, 7), (1, 4), (12, 4), (100, 9)])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_cut_covers_every_batch(examples, batch_size, count):
    cuts = [Cut(examples, batch_size, rank=r, processes=count) for r in range(count)]
    for i in range(len(cuts[0])):
        batch = range(examples)[i * batch_size : (i + 1) * batch_size]
        own = [j for c in cuts if c.weight(i) for j in range(examples)[c.part(i)]]
        assert own == list(batch)
        assert sum(c.weight(i) for c in cuts) == pytest.approx(1)
        assert all(len(range(examples)[c.part(i)]) for c in cuts)


def test_a_sampler_follows_seed_and_epoch():
    def order(seed, epoch):
        sampler = ShareSampler(20, 6, seed, cut=Cut(20, 6, rank=0, processes=1))
        sampler.set_epoch(epoch)
        return sum(sampler, [])

    assert order(0, 1) == order(0, 1) != order(0, 2) != order(1, 2)
    assert sorted(order(3, 4)) == list(range(20))
    plain = ShareSampler(20, 6, drop_last=True, shuffle=False, cut=Cut(20, 6, True, rank=0, processes=2))
    assert len(plain) == 3 and list(plain)[0] == [0, 1, 2]


def test_wrong_cut():
    with pytest.raises(ValueError, match="batch_size ≥ 1"):
        Cut(5, 0)


def test_a_sampler_may_be_built_before_the_group_is_joined(monkeypatch):
    "As torchrun starts a process: a share of nobody would give every process all the data"
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert list(ShareSampler(4, 4, shuffle=False)) == [[2, 3]]
