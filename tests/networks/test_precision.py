import pytest
import torch

from mrn_components import fast_fp32_matmul
from mrn_components.networks.precision import bf16_pays


@pytest.fixture
def onednn():
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    yield matmul
    matmul.fp32_precision = before


@pytest.fixture
def amd(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "AMD"}, raising=False)


@pytest.mark.usefixtures("amd")
def test_onednn_is_used_only_where_it_keeps_fp32_accuracy(onednn):
    allowed = fast_fp32_matmul()
    a, b = torch.randn(2, 128, 128)
    exact = a.double() @ b.double()
    assert (a @ b - exact).norm() / exact.norm() < 1e-5
    assert (onednn.fp32_precision == "bf16") == allowed


@pytest.mark.usefixtures("amd")
def test_onednn_is_given_up_where_it_rounds(onednn):
    before = onednn.fp32_precision
    assert not fast_fp32_matmul(tolerance=0.0)
    assert onednn.fp32_precision == before


def test_intel_cpus_keep_their_library(onednn, monkeypatch):
    before = onednn.fp32_precision
    name = {"cpu_name": "Intel Xeon"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: name, raising=False)
    assert not fast_fp32_matmul()
    assert onednn.fp32_precision == before


def test_bf16_pays_only_with_units_for_it(monkeypatch):
    cpu = torch.device("cpu")
    for flags, expected in [({"avx512_bf16": True}, True), ({"avx512_f": True}, False)]:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda f=flags: f, raising=False)
        assert bf16_pays(cpu) is expected
    assert not bf16_pays(torch.device("meta"))
