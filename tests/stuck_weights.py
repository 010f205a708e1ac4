"""How many weights get stuck near zero: the paper's network on real MNIST, both means, the first hundred steps.

    BAYESBINN_DATA=… python tests/stuck_weights.py            # float32, all 10,014,720 weights, about a minute
    python tests/stuck_weights.py --hidden 256 --dataset digits

A weight is counted where |λ| ≤ 9: there float32 noise can still flip it. With the mean of the step before (the released
code) the next step throws such a weight out again; with the current mean it stays (*The lag*,
nbs/methods/bayesbinn.ipynb).
`test_lag.py` shows the same on a million weights and made-up gradients in every test run.
"""

import argparse
import sys

import torch

from bayesbinn_nb.library.data import load_data
from bayesbinn_nb.library.models import build_model
from bayesbinn_nb.library.recipes import make_method, recipe

BOUND = 60  # of 10,014,720, with the lagged mean after 100 steps


def stuck_after(dataset: str, hidden: int, mean: str, steps: int = 100, seed: int = 1) -> tuple[int, int]:
    "(weights with |λ| ≤ 9, all weights) after so many steps of the published recipe"
    plan = recipe("mnist", "bayesbinn")
    plan["method_kwargs"] |= {"mean": mean}
    data = load_data(dataset, validation=0.1, split_seed=seed)
    torch.manual_seed(seed)
    first, _ = next(iter(data.train.batches(1)))
    pixels = first.numel()
    model = build_model("mnist_mlp", in_features=pixels, hidden=hidden)
    method = make_method(plan, model, len(data.train))
    method.prepare(model, train_size=len(data.train), seed=seed)
    order, done = torch.Generator().manual_seed(seed), 0
    while done < steps:
        for x, y in data.train.batches(plan["batch_size"], shuffle=True, generator=order):
            for one_pass in method.train_passes():
                with one_pass:
                    torch.nn.functional.cross_entropy(model(x.flatten(1)), y).backward()
            method.step()
            done += 1
            if done == steps:
                break
    lams = method.optimizer.natural_parameters()
    return sum(int((lam.abs() <= 9).sum()) for lam in lams), sum(lam.numel() for lam in lams)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--hidden", type=int, default=2048)
    args = parser.parse_args()
    found = {mean: stuck_after(args.dataset, args.hidden, mean) for mean in ("lagged", "current")}
    for mean, (stuck, total) in found.items():
        print(f"mean={mean}: {stuck:,} of {total:,} weights have |λ| ≤ 9 after 100 steps")
    sys.exit(args.hidden == 2048 and found["lagged"][0] >= BOUND)
