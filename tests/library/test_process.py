"""Which arithmetic: what is faster here, what was asked for, and a warning where the two differ. The probe is a
stub."""

import pytest

from bayesbinn_nb.library import process
from bayesbinn_nb.library.process import PrecisionWarning, bfloat16_ratio, choose_precision, lacks_precision


@pytest.fixture
def here(monkeypatch):
    def ratio(value):
        monkeypatch.setattr(process, "bfloat16_ratio", lambda device="cpu": value)

    return ratio


@pytest.mark.parametrize(
    "ratio, wanted", [(0.5, "bfloat16"), (0.89, "bfloat16"), (0.95, "float32"), (140.0, "float32")]
)
def test_auto_takes_what_is_clearly_faster(here, ratio, wanted):
    here(ratio)
    precision, why = choose_precision("auto")
    assert precision == wanted and why.startswith("auto: ") and f"{ratio:.2g} times as long" in why


def test_float32_is_never_probed(monkeypatch):
    monkeypatch.setattr(process, "bfloat16_ratio", lambda device: pytest.fail("it was probed"))
    assert choose_precision("float32") == ("float32", "asked for") and not lacks_precision("float32")


def test_bfloat16_is_given_with_a_warning_where_it_is_slower(here):
    here(0.5)
    assert choose_precision("bfloat16")[0] == "bfloat16" and not lacks_precision("bfloat16")  # warnings are errors
    here(30.0)
    with pytest.warns(PrecisionWarning, match="30 times as long as in float32.*'auto' would take float32"):
        precision, why = choose_precision("bfloat16")
    assert precision == "bfloat16" and why.startswith("asked for: ") and lacks_precision("bfloat16")
    here(2.0)
    assert not lacks_precision("bfloat16")  # slower, and not hopeless


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match="precision must be 'auto', 'float32' or 'bfloat16', not 'float16'"):
        choose_precision("float16")


def test_a_process_measures_once(monkeypatch):
    calls = []
    monkeypatch.setattr(process, "_seconds_of_product", lambda *a: calls.append(a) or 1.0)
    process._measured_ratio.cache_clear()
    try:
        assert bfloat16_ratio() == bfloat16_ratio("cpu") == 1.0 and len(calls) == 2
    finally:
        process._measured_ratio.cache_clear()
