import pytest
import torch

from mrn_components import SFA


@pytest.fixture
def sfa():
    module = SFA(num_layers=2)
    module.build(32, 2)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.double()


def test_each_volume_alone_gives_its_roi_token(sfa, close):
    slices, depths = torch.randn(6, 32, dtype=torch.float64), [3, 1, 2]
    expected = torch.cat([sfa(part, [len(part)]) for part in slices.split(depths)])
    close(sfa(slices, depths), expected, 1e-12)


def test_roi_token_is_the_first_of_timm_style_attention(sfa, close):
    slices = torch.randn(3, 32, dtype=torch.float64)
    x = torch.cat([sfa.roi_token, slices])
    for block in sfa.blocks:
        x = block(x, [(1, 4)])
    close(sfa(slices, [3]), sfa.norm(x[:1]), 1e-12)


def test_order_of_slices_does_not_matter_without_an_embedding(sfa, close):
    slices = torch.randn(5, 32, dtype=torch.float64)
    close(sfa(slices.flip(0), [5]), sfa(slices, [5]), 1e-12)


def test_at_least_one_layer():
    with pytest.raises(ValueError, match="num_layers must be >= 1, got 0"):
        SFA(num_layers=0)
