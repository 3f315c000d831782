import pytest
import torch
from tiny import ROIS, TINY

from mrn_components import FFA, MRN, RES, SFA, DPTHead, SliceEncoder


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def tiny_encoder():
    return lambda **args: SliceEncoder(**{**TINY, **args})


@pytest.fixture
def tiny_mrn(tiny_encoder):
    """A factory: parts by name; None leaves a part out."""

    def make(*, encoder=None, ffa=3, sfa=2, dpt="local", res=None, **mrn):
        parts = RES(
            encoder=encoder or tiny_encoder(),
            ffa=FFA(num_layers=ffa) if ffa else None,
            sfa=SFA(num_layers=sfa) if sfa else None,
            dpt=DPTHead(features=dpt, fusion_channels=16) if dpt else None,
            **(res or {}),
        )
        return MRN(**{"rois": ROIS, "res": parts, "dropout": 0.0, **mrn})

    return make


@pytest.fixture
def images():
    """Two subjects of unequal geometry; the second subject's nm has an odd size."""
    return {
        "nm": [torch.rand(1, 3, 28, 56), torch.rand(1, 2, 25, 56)],
        "qsm1": [torch.rand(1, 4, 56, 42), torch.rand(1, 1, 56, 56)],
    }


@pytest.fixture
def close():
    """Asserts that tensors are equal to 1e-5 unless told otherwise."""

    def check(got, expected, tolerance=1e-5):
        torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)

    return check
