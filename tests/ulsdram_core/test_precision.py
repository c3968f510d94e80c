import pytest
import torch

from ulsdram_core.precision import autocast, choose_precision, full_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("choice", ["fp32", "bf16"])
def test_a_choice_is_kept(choice):
    assert choose_precision(choice, CPU) == choice


@pytest.mark.parametrize(
    ("amx", "avx512", "expected"),
    [(False, False, "fp32"), (False, True, "fp32"), (True, True, "bf16")],
)
def test_auto_asks_the_hardware(monkeypatch, amx, avx512, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    assert choose_precision("auto", CPU) == expected


def test_autocast_and_its_exception():
    a = torch.randn(2, 2)
    with autocast(CPU, "fp32"):
        assert (a @ a).dtype == torch.float32
    with autocast(CPU, "bf16"):
        assert (a @ a).dtype == torch.bfloat16
        with full_precision(CPU):
            assert (a @ a).dtype == torch.float32
