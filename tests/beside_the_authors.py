"""The released BayesBiNN beside ours, on real MNIST, 256 units wide, at temperatures where the mean matters.

    git clone https://github.com/team-approx-bayes/BayesBiNN
    BAYESBINN_DATA=… python tests/beside_the_authors.py BayesBiNN      # about ten minutes on one core

Their optimiser and their network are loaded from the clone, unchanged; batches, splits and the rate of each epoch are
ours for both. Three seeds each: τ = 1e-3 for three epochs, τ = 1e-4 for two. Ours with the lagged mean must lie within
two standard deviations of theirs (of the difference of the means); with the current mean it is shown, and need not.
"""

import argparse
import importlib.util
import statistics
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch.nn.functional import cross_entropy

from bayesbinn_nb.library.data import load_data
from bayesbinn_nb.library.models import build_model
from bayesbinn_nb.library.recipes import make_method, make_schedule, recipe, schedule_value
from bayesbinn_nb.library.trainer import Trainer

SEEDS, HIDDEN, POINTS = (1, 2, 3), 256, ((1e-3, 3), (1e-4, 2))


def loaded(path: Path) -> ModuleType:
    "A module from a file of the clone"
    spec = importlib.util.spec_from_file_location(f"authors_{path.stem}", path)
    assert spec is not None and spec.loader is not None, f"there is no {path}"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def theirs(clone: Path, temperature: float, epochs: int, seed: int) -> float:
    "Test accuracy of the released code, in percent"
    data, plan = load_data("mnist", validation=0.1, split_seed=seed), recipe("mnist", "bayesbinn")
    torch.manual_seed(seed)
    network = loaded(clone / "models" / "models.py").MLPBinaryConnect
    model = network(784, 10, HIDDEN, eps=1e-4, drop_prob=0.2, momentum=0.15)
    optimizer = loaded(clone / "optimizers" / "BayesBiNN.py").BayesBiNN(
        model, train_set_size=len(data.train), lr=1e-4, betas=0.0, num_samples=1, temperature=temperature
    )
    order = torch.Generator().manual_seed(seed)
    for epoch in range(1, epochs + 1):
        model.train()
        optimizer.param_groups[0]["lr"] = schedule_value(plan["schedule"], epoch)
        for x, y in data.train.batches(100, shuffle=True, generator=order):

            def closure(x=x, y=y):
                optimizer.zero_grad()
                out = model(x.flatten(1))
                return cross_entropy(out, y), out

            optimizer.step(closure)
    model.eval()
    right = total = 0
    with torch.no_grad():
        for x, y in data.test.batches(1000):
            (out,) = optimizer.get_mc_predictions(model, x.flatten(1))  # the sign of their (lagged) mean
            right += int((out.argmax(1) == y).sum())
            total += len(y)
    return 100 * right / total


def ours(temperature: float, epochs: int, seed: int, mean: str) -> float:
    "Test accuracy of our recipe, in percent"
    data, plan = load_data("mnist", validation=0.1, split_seed=seed), recipe("mnist", "bayesbinn")
    plan["method_kwargs"] |= {"temperature": temperature, "mean": mean}
    torch.manual_seed(seed)
    model = build_model("mnist_mlp", hidden=HIDDEN)
    trainer = Trainer(model, device="cpu", seed=seed).compile(
        make_method(plan, model, len(data.train)),
        loss=plan["loss"],
        metrics=plan["metrics"],
        scheduler=lambda optimizer: make_schedule(optimizer, plan["schedule"]),
        scheduler_step=plan["schedule"]["when"],
    )
    history = trainer.fit(data.train, test=data.test, epochs=epochs, batch_size=100, progress="silent")
    return 100 * history[-1]["test_accuracy"]


def main(clone: Path) -> int:
    missed = 0
    for temperature, epochs in POINTS:
        found = {"theirs": [theirs(clone, temperature, epochs, seed) for seed in SEEDS]}
        for mean in ("lagged", "current"):
            found[mean] = [ours(temperature, epochs, seed, mean) for seed in SEEDS]
        print(f"τ = {temperature:g}, {epochs} epochs:")
        for name, values in found.items():
            print(f"    {name:8} {statistics.mean(values):6.2f} ± {statistics.stdev(values):.2f}")
        both = [statistics.variance(found[name]) / len(SEEDS) for name in ("theirs", "lagged")]
        apart = abs(statistics.mean(found["theirs"]) - statistics.mean(found["lagged"]))
        agree = apart <= 2 * sum(both) ** 0.5
        missed += not agree
        print(f"    lagged and theirs are {apart:.2f} points apart: {'within' if agree else 'NOT within'} two sd")
    return missed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("clone", type=Path, help="folder of the released code")
    sys.exit(main(parser.parse_args().clone))
