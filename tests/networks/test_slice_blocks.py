import pytest
import torch
from timm.layers import DropPath
from torch import nn

from mrn_components import SliceEncoder

NAME = "vit_base_patch14_reg4_dinov2.lvd142m"
DINOV3 = "vit_small_patch16_dinov3.lvd1689m"
SHAPES = [(2, 28, 42), (1, 48, 48), (3, 28, 42), (1, 14, 28)]


def one_call_a_volume(encoder, volumes):
    """Final tokens of each volume by timm's own forward pass, cut to what the encoder keeps."""
    p, dropped = encoder.patch_size, encoder.vit.num_prefix_tokens
    tokens = []
    for volume in volumes:
        rows, columns = -volume.shape[1] % p, -volume.shape[2] % p
        edges = [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2]
        slices = torch.nn.functional.pad(volume[:, None], edges)
        found = encoder.vit.forward_features(slices)
        tokens.append(torch.cat([found[:, : encoder.prefix], found[:, dropped:]], 1).flatten(0, 1))
    return torch.cat(tokens)


def packed(encoder, volumes):
    return encoder(volumes)[0][0]


def gradients(encoder, tokens):
    encoder.zero_grad()
    weights = torch.linspace(-1, 1, tokens.numel(), dtype=tokens.dtype).view_as(tokens)
    (tokens * weights).sum().backward()
    return {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}


class Given(nn.Module):
    """Stands for timm's DropPath: multiplies row by row by numbers that are given."""

    drop_prob = 0.5

    def __init__(self, factors):
        super().__init__()
        self.factors = torch.tensor(factors, dtype=torch.float64)

    def forward(self, x):
        taken, self.factors = self.factors.split([len(x), len(self.factors) - len(x)])
        return x * taken.view(-1, *[1] * (x.ndim - 1))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("keep_registers", [False, True])
@pytest.mark.parametrize(
    "name", [NAME, DINOV3, "vit_small_patch16_dinov3_qkvb", "eva02_tiny_patch14_224"]
)
def test_equals_one_call_of_timm_a_volume(name, keep_registers, checkpointing, tiny_encoder, close):
    encoder = tiny_encoder(name=name, keep_registers=keep_registers).double()
    if checkpointing:
        encoder.set_grad_checkpointing()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    volumes = [torch.rand(shape, dtype=torch.float64) for shape in SHAPES]
    (tokens,), _ = encoder(volumes)
    expected = one_call_a_volume(encoder, volumes)
    close(tokens, expected, 1e-10)
    wanted = gradients(encoder, expected)
    assert len(wanted) > 20
    close(gradients(encoder, tokens), wanted, 1e-6)  # timm resamples positions in float32


def test_slices_are_dropped_as_timm_drops_rows(tiny_encoder, close):
    encoder = tiny_encoder(drop_path_rate=0.5).double()
    last = encoder.vit.blocks[-1]
    assert isinstance(last.drop_path2, DropPath)
    volumes = [torch.rand(shape, dtype=torch.float64) for shape in SHAPES]
    factors = {0: [2.0, 0.0], 1: [0.5], 2: [0.0, 2.0, 1.5], 3: [0.0]}  # of each volume's slices
    results = []
    for run, order in [(one_call_a_volume, [0, 1, 2, 3]), (packed, [0, 2, 1, 3])]:  # by shape
        rows = [factor for i in order for factor in factors[i]]
        last.drop_path1, last.drop_path2 = Given(rows), Given([2 - row for row in rows])
        tokens = run(encoder, volumes)
        assert not len(last.drop_path1.factors) + len(last.drop_path2.factors)
        results.append((tokens, gradients(encoder, tokens)))
    close(results[1][0], results[0][0], 1e-10)
    close(results[1][1], results[0][1], 1e-6)


def test_whole_slices_are_dropped_at_the_rate_and_scaled(tiny_encoder):
    encoder = tiny_encoder(drop_path_rate=0.25)
    nn.init.zeros_(encoder.vit.blocks[-1].ls2.gamma)  # the last attention alone can be dropped
    encoder.vit.norm = nn.Identity()
    slices = torch.rand(1, 28, 14).expand(600, -1, -1)
    before, after = encoder([slices, slices[:1, :14]], blocks=[0])[0]
    branch = (after - before)[: 600 * 3].view(600, 3, -1).detach()
    kept = branch.abs().amax((1, 2)) > 0
    assert 0.75 - 0.06 < kept.float().mean() < 0.75 + 0.06  # 3.4 deviations
    encoder.eval()
    before, after = encoder([slices[:1]], blocks=[0])[0]
    scaled = ((after - before) / 0.75).detach()
    torch.testing.assert_close(
        branch[kept], scaled.expand(int(kept.sum()), -1, -1), rtol=0, atol=1e-5
    )


def test_other_blocks_of_timm_are_refused():
    with pytest.raises(ValueError, match=r"'vit_.*' of timm has blocks \['ParallelScalingBlock'\]"):
        SliceEncoder(name="vit_base_patch16_xp_224", depth=1)
