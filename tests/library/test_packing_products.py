"""Packed products: equal to the float ones, exactly where sums are integers, in every shape, layout and way."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bayesbinn_nb.library.packed_kernels import warm_up
from bayesbinn_nb.library.packing import PackedConv2d, PackedConvTranspose2d, PackedLinear, pack_bits
from bayesbinn_nb.methods.kernels import use_engine


@pytest.fixture(params=["torch", "numba"], autouse=True)
def way(request):
    if request.param == "numba":
        pytest.importorskip("numba")
    with use_engine(request.param), torch.no_grad():
        yield request.param


def signs(*shape):
    return torch.randint(0, 2, shape) * 2.0 - 1


def inputs(*shape):
    "Reals; integers, of which every sum is exact; signs"
    return [(torch.randn(shape), False), (torch.randint(-8, 9, shape).float(), True), (signs(*shape), True)]


def close(ours, theirs, exact, weights):
    """Each of the two sums n numbers of size about one: the error of each is below n roundings of the largest
    partial sum"""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    if exact:
        assert torch.equal(ours, theirs)
    else:
        eps = torch.finfo(theirs.dtype).eps
        assert (ours - theirs).abs().max() <= 4 * eps * weights * 5


@pytest.mark.parametrize("batch", [1, 3, 4, 5, 16, 17, 40])
@pytest.mark.parametrize("rows,depth", [(1, 1), (3, 7), (8, 8), (13, 77), (10, 128), (9, 129), (70, 200), (5, 1000)])
def test_linear_of_every_size(batch, rows, depth):
    w, bias = signs(rows, depth), torch.randint(-3, 4, (rows,)).float()
    layer = PackedLinear(pack_bits(w), (rows, depth), torch.float32, bias)
    for x, exact in inputs(batch, depth):
        before = x.clone()
        close(layer(x), F.linear(x, w, bias), exact, depth)
        assert torch.equal(x, before)


def test_many_rows_are_done_in_blocks():
    w = signs(300, 2051)
    layer = PackedLinear(pack_bits(w), (300, 2051), torch.float32)
    for batch in (1, 6):
        for x, exact in inputs(batch, 2051):
            close(layer(x), F.linear(x, w), exact, 2051)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(threads):
    layer = PackedLinear(pack_bits(signs(700, 130)), (700, 130), torch.float32)
    for batch in (1, 100):
        for x, _ in inputs(batch, 130):
            torch.set_num_threads(1)
            one = layer(x)
            torch.set_num_threads(threads)
            assert torch.allclose(layer(x), one, atol=1e-5)


def test_linear_of_every_layout():
    w = signs(6, 20)
    layer = PackedLinear(pack_bits(w), (6, 20), torch.float32)
    for x in (torch.randn(20), torch.randn(2, 3, 20), torch.randn(20, 7).t(), torch.randn(9, 40)[::2, ::2]):
        close(layer(x), F.linear(x, w), False, 20)
    expanded = torch.randn(1, 20).expand(5, 20)
    close(layer(expanded), F.linear(expanded, w), False, 20)
    for shape in ((0, 20), (2, 0, 20)):
        assert layer(torch.empty(shape)).shape == (*shape[:-1], 6)


def test_wrong_inputs_are_refused_as_by_torch():
    layer = PackedLinear(pack_bits(signs(6, 20)), (6, 20), torch.float32)
    for wrong in (torch.randn(2, 19), torch.randn(2, 40), torch.randn(2, 20, dtype=torch.float64), torch.tensor(1.0)):
        with pytest.raises(RuntimeError):
            layer(wrong)
    conv = PackedConv2d(pack_bits(signs(4, 3, 3, 3)), (4, 3, 3, 3), torch.float32)
    for shape in ((2, 4, 8, 8), (2, 3, 2, 8), (3, 8)):
        with pytest.raises(RuntimeError):
            conv(torch.randn(shape))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types(dtype):
    w = signs(11, 70)
    layer = PackedLinear(pack_bits(w), (11, 70), dtype)
    x = torch.randint(-2, 3, (5, 70)).to(dtype)  # sums below 256: exact in all of them
    close(layer(x), F.linear(x, w.to(dtype)), True, 70)
    if dtype == torch.float64:
        x = torch.randn(5, 70, dtype=dtype)
        close(layer(x), F.linear(x, w.double()), False, 70)


def test_inference_mode_and_several_threads_of_python():
    from concurrent.futures import ThreadPoolExecutor

    w, x = signs(40, 130), torch.randint(-8, 9, (30, 130)).float()
    layer = PackedLinear(pack_bits(w), (40, 130), torch.float32)

    def predict(n):
        with torch.inference_mode():
            return torch.equal(layer(x[:n]), F.linear(x[:n], w))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(predict, list(range(1, 31)) * 5))


def test_what_is_not_finite_stays_so():
    w = signs(5, 70)
    layer = PackedLinear(pack_bits(w), (5, 70), torch.float32)
    for value in (float("nan"), float("inf")):
        for batch in (1, 9):
            x = torch.randn(batch, 70)
            x[0, 3] = value
            ours, theirs = layer(x), F.linear(x, w)
            assert not ours[0].isfinite().any() and ours[1:].isfinite().all() and not theirs[0].isfinite().any()


CONVS = [
    dict(),
    dict(padding=1),
    dict(padding=(2, 0), stride=(2, 1)),
    dict(stride=3, padding=1),
    dict(dilation=2, padding=2),
    dict(dilation=(1, 3), stride=(1, 2)),
    dict(padding="same", dilation=(2, 1)),
    dict(padding="valid"),
    dict(groups=2, padding=1),
    dict(groups=4),
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # the float layer's own
@pytest.mark.parametrize("config", CONVS, ids=str)
@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (2, 3), (5, 4)])
def test_convolutions(config, kernel):
    conv = nn.Conv2d(4, 12, kernel, **config)
    conv.weight.copy_(signs(*conv.weight.shape))
    conv.bias.copy_(torch.randint(-3, 4, (12,)))
    names = ("stride", "padding", "dilation", "groups")
    shape = tuple(conv.weight.shape)
    settings = {name: getattr(conv, name) for name in names}
    for given in (settings, config):
        layer = PackedConv2d(pack_bits(conv.weight), shape, torch.float32, conv.bias.detach(), **given)
        for x, exact in inputs(3, 4, 11, 14):
            close(layer(x), conv(x), exact, 80)
    x = torch.randn(2, 4, 11, 14).to(memory_format=torch.channels_last)
    close(layer(x), conv(x), False, 80)
    close(layer(x[0]), conv(x[0]), False, 80)
    assert layer(x[:0]).shape == conv(x[:0]).shape


def test_a_convolution_in_blocks_of_channels():
    w = signs(80, 300, 3, 3)
    layer = PackedConv2d(pack_bits(w), tuple(w.shape), torch.float32)
    for x, exact in inputs(1, 300, 5, 4):
        close(layer(x), F.conv2d(x, w), exact, 2700)


def test_transposed_convolutions():
    w = signs(4, 3, 2, 2)
    layer = PackedConvTranspose2d(pack_bits(w), (4, 3, 2, 2), torch.float32, stride=(2, 2))
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(layer(x), F.conv_transpose2d(x, w, stride=2))


# torch.export itself imports what torch has deprecated
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning")
def test_gradients_and_transforms_take_the_ordinary_way():
    w = signs(6, 20)
    layer, x = PackedLinear(pack_bits(w), (6, 20), torch.float32), torch.randn(3, 20)
    with torch.enable_grad():
        (got,) = torch.autograd.grad(layer(x.requires_grad_()).sum(), x)
    assert torch.equal(got, w.sum(0).expand(3, 20))
    x = x.detach()
    assert torch.allclose(torch.func.vmap(layer)(x), layer(x), atol=1e-5)
    product, slope = torch.func.jvp(layer, (x,), (torch.ones_like(x),))
    assert torch.allclose(slope, w.sum(1).expand(3, 6)) and torch.allclose(product, layer(x), atol=1e-5)
    assert torch.allclose(torch.export.export(layer, (x,)).module()(x), layer(x), atol=1e-5)


def test_warming_up_is_not_needed_twice():
    def compiled():
        return [len(loop.signatures) for loop in vars(packed_loops).values() if hasattr(loop, "signatures")]

    packed_loops = pytest.importorskip("bayesbinn_nb.library.packed_loops")
    warm_up()
    before = compiled()
    assert warm_up() >= 0 and compiled() == before and any(before)
