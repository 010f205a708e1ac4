"""The Triton kernels: they compile for a GPU target without a GPU, and agree with the CPU's passes where there is
one."""

import pytest
import torch

from bayesbinn_nb.methods import kernels
from bayesbinn_nb.methods.bayesbinn import BayesBiNNOptimizer
from bayesbinn_nb.methods.kernels import gpu

pytestmark = pytest.mark.filterwarnings(
    "ignore:TRITON_DEFAULT_FP_FUSION"
)  # fusion on or off: the kernels do not depend on it
triton = pytest.importorskip("triton")
FLAGS = ("HAS_GRAD", "SAMPLED", "HAS_TOTAL", "HAS_MOMENTUM", "HAS_PRIOR", "HAS_MEAN")


def compiled(kernel, signature, constants):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if not hasattr(kernel, "cache_key"):
        pytest.skip("Triton runs in interpreter mode here (TRITON_INTERPRET is set)")
    signature = signature | dict.fromkeys(constants, "constexpr")
    return triton.compile(
        ASTSource(fn=kernel, signature=signature, constexprs=constants), target=GPUTarget("cuda", 90, 32)
    ).asm["ptx"]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("stream,exact", [(0, False), (1, True)])
def test_the_sampling_kernel_compiles(dtype, stream, exact):
    signature = dict(
        out="*" + dtype, lam="*fp32", n="i32", temperature="fp32", seed_mixed="i64", draw="*i64", offset="i32"
    )
    ptx = compiled(gpu._sample_kernel, signature, dict(STREAM=stream, BLOCK=1024, EXACT=exact))
    assert "st.global" in ptx


@pytest.mark.parametrize("flags", [(1, 1, 0, 0, 0, 0), (1, 1, 1, 1, 1, 1), (1, 0, 0, 0, 0, 0), (0, 0, 1, 1, 0, 0)])
def test_the_update_kernel_compiles(flags):
    pointers = dict.fromkeys(("lam", "mode", "grad", "w", "total", "momentum", "prior", "mean", "lr", "step"), "*fp32")
    numbers = dict.fromkeys(("data_scale", "temperature", "beta", "kl_weight", "prior_value", "eps"), "fp32")
    constants = {name: bool(f) for name, f in zip(FLAGS, flags)} | {"BLOCK": 1024}
    ptx = compiled(gpu._update_kernel, pointers | {"n": "i32"} | numbers, constants)
    assert "st.global" in ptx


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("temperature,scale,momentum", [(0.7, 3.0, 0.0), (0.7, 3.0, 0.9), (1e-10, 10.0, 0.0)])
def test_twenty_steps_on_the_gpu_follow_the_cpu(temperature, scale, momentum):
    def run(device):
        torch.manual_seed(0)
        p = torch.nn.Parameter(torch.randn(300, 257, device=device))
        opt = BayesBiNNOptimizer(
            [p], train_size=100, lr=1e-3, temperature=temperature, init_lambda=scale, momentum=momentum, seed=3
        )
        target = torch.randn(300, 257, generator=torch.Generator().manual_seed(1)).to(device)
        for _ in range(20):
            with opt.sampled_params():
                ((p - target) ** 2).mean().backward()
            opt.step()
        return opt.natural_parameters()[0].cpu(), p.detach().cpu()

    (lam, mode), (lam_gpu, mode_gpu) = run("cpu"), run("cuda")
    assert torch.allclose(lam, lam_gpu, rtol=1e-3, atol=1e-4 * lam.abs().max().item())
    assert (mode != mode_gpu).float().mean() < 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("method_name", ["bayesbinn", "ste", "adam"])
def test_a_replayed_epoch_learns_like_an_eager_one(method_name):
    from bayesbinn_nb.library.data import load_data
    from bayesbinn_nb.library.models import build_model
    from bayesbinn_nb.library.trainer import Trainer
    from bayesbinn_nb.methods.bayesbinn import BayesBiNN
    from bayesbinn_nb.methods.full_precision import FullPrecision
    from bayesbinn_nb.methods.ste import STE

    make = {
        "bayesbinn": lambda: BayesBiNN(lr=1e-4),
        "ste": lambda: STE(lr=1e-2),
        "adam": lambda: FullPrecision(lr=1e-3),
    }[method_name]
    digits, scores = load_data("digits", device="cuda"), []
    for graph in (False, True):
        trainer = Trainer(
            build_model("mnist_mlp", in_features=64, hidden=128), device="cuda", seed=0, cuda_graph=graph
        ).compile(make())
        trainer.fit(digits.train, digits.val, epochs=8, batch_size=32, progress="silent")
        scores.append(trainer.history[-1]["val_accuracy"])
    assert min(scores) > 0.85


def test_off_a_gpu_the_kernels_of_the_cpu_are_used():
    assert not gpu.available("cpu")
    assert kernels.LARGEST_NOISE < 8.5
