import pytest
import torch
from timm.models.vision_transformer import Block
from torch import nn

from mrn_components.networks.attention import PackedBlock


@pytest.fixture
def blocks():
    """Our block and timm's with the same, larger than initial, parameters."""
    ours = PackedBlock(32, 2).double()
    theirs = Block(
        32, 2, qkv_bias=True, qk_norm=True, init_values=0.01, norm_layer=nn.LayerNorm
    ).double()
    state = {name: torch.randn_like(value) * 0.3 for name, value in ours.state_dict().items()}
    ours.load_state_dict(state)
    theirs.load_state_dict(state, strict=True)
    return ours, theirs


SEQUENCES = [(2, 5), (1, 5), (1, 7), (2, 4)]


def test_packed_block_equals_timm_block_on_each_group(blocks, close):
    ours, theirs = blocks
    x = torch.randn(30, 32, dtype=torch.float64)
    groups = x.split([count * length for count, length in SEQUENCES])
    expected = torch.cat(
        [
            theirs(group.unflatten(0, shape)).flatten(0, 1)
            for group, shape in zip(groups, SEQUENCES, strict=True)
        ]
    )
    close(ours(x, SEQUENCES), expected, 1e-12)


def test_first_tokens_alone_equal_those_of_the_whole(blocks, close):
    x = torch.randn(30, 32, dtype=torch.float64)
    whole = blocks[0](x, SEQUENCES).split([count * length for count, length in SEQUENCES])
    expected = torch.cat(
        [
            group.unflatten(0, shape)[:, :2].flatten(0, 1)
            for group, shape in zip(whole, SEQUENCES, strict=True)
        ]
    )
    close(blocks[0](x, SEQUENCES, first=2), expected, 1e-12)


def test_initialisation_follows_the_paper_and_vggt():
    block = PackedBlock(64, 1)
    xavier = (2 / (64 + 3 * 64)) ** 0.5
    assert block.attn.qkv.weight.std().item() == pytest.approx(xavier, rel=0.1)
    assert block.mlp.fc1.bias.abs().max() == 0
    assert torch.all(block.ls1.gamma == 0.01)
    assert block.norm1.eps == 1e-5
