"""Attention over a volume, against a statement of it in loops over single planes and tokens."""

import math

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool1d

from mrn_components.networks.volume_blocks import in_windows

DINOV2 = "vit_base_patch14_reg4_dinov2.lvd142m"
DINOV3 = "vit_small_patch16_dinov3.lvd1689m"
SIZE = {DINOV2: 14, DINOV3: 16}  # of a patch


@pytest.fixture
def encoder(tiny_encoder):
    """A factory: five blocks, one more than a cycle; class tokens that are not nearly zero."""

    def make(name=DINOV2, attention="planes", **args):
        args = {"name": name, "attention": attention, "depth": 5, **args}
        made = tiny_encoder(**args).double().eval()
        torch.nn.init.normal_(made.vit.cls_token)
        torch.nn.init.normal_(made.vit.reg_token)
        return made

    return make


def volume_for(name, depth=4, height=3, width=2):
    side = SIZE[name]
    return torch.rand(depth, height * side, width * side, dtype=torch.float64)


def embedded(encoder, volume):
    """Tokens (D, n, C) before the first block."""
    x = encoder.vit._pos_embed(encoder.vit.patch_embed(volume[:, None]))
    return x[0] if isinstance(x, tuple) else x


def windows_mean(tokens, count):
    """Mean of the tokens i with floor(k P / count) <= i < ceil((k + 1) P / count), for every k."""
    size = len(tokens)
    means = []
    for k in range(count):
        members = tokens[k * size // count : math.ceil((k + 1) * size / count)]
        means.append(sum(members) / len(members))
    return means


def plane_cycle(encoder, tokens, height, width):
    """PlaneCycle's definition, one plane at a time: HW, DW, DH, HW, ..."""
    vit, first = encoder.vit, encoder.vit.num_prefix_tokens
    depth = len(tokens)
    prefix = [tokens[d, :first] for d in range(depth)]
    patch = {
        (d, y, x): tokens[d, first + y * width + x]
        for d in range(depth)
        for y in range(height)
        for x in range(width)
    }
    for i, block in enumerate(vit.blocks):
        plane = ("HW", "DW", "DH", "HW")[i % 4]
        stacked = {"HW": depth, "DW": height, "DH": width}[plane]
        shape = {"HW": (height, width), "DW": (depth, width), "DH": (depth, height)}[plane]
        own, after = windows_mean(prefix, stacked), []
        for k in range(stacked):
            places = [
                {"HW": (k, a, b), "DW": (a, k, b), "DH": (a, b, k)}[plane]
                for a in range(shape[0])
                for b in range(shape[1])
            ]
            sequence = torch.cat([own[k], torch.stack([patch[place] for place in places])])[None]
            rope = getattr(vit, "rope", None)
            more = () if rope is None else (rope.get_embed(shape),)
            (sequence,) = block(sequence, *more)
            after.append(sequence[:first])
            patch |= dict(zip(places, sequence[first:], strict=True))
        prefix = windows_mean(after, depth)
    rows = [
        torch.cat(
            [prefix[d][:1]] + [patch[d, y, x][None] for y in range(height) for x in range(width)]
        )
        for d in range(depth)
    ]
    return vit.norm(torch.cat(rows))


@pytest.mark.parametrize("name", [DINOV2, DINOV3])
@pytest.mark.parametrize("shape", [(4, 3, 2), (2, 3, 5), (1, 2, 2)])
def test_planes_equal_plane_cycle_one_plane_at_a_time(name, shape, encoder, close):
    made, volume = encoder(name), volume_for(name, *shape)
    (got,), (grid,) = made([volume])
    assert grid == (*shape, 1)
    close(got, plane_cycle(made, embedded(made, volume), *shape[1:]), 1e-10)


@pytest.mark.parametrize("sizes", [(5, 3), (3, 5), (4, 2), (2, 7), (1, 4), (6, 1), (4, 4)])
def test_windows_are_those_of_adaptive_pooling(sizes, close):
    tokens = torch.randn(2, sizes[0], 3, 8, dtype=torch.float64)
    expected = adaptive_avg_pool1d(tokens.permute(0, 2, 3, 1).flatten(0, 1), sizes[1])
    expected = expected.unflatten(0, (2, 3)).permute(0, 3, 1, 2)
    close(in_windows(tokens, sizes[1]), expected, 1e-12)


def test_volume_is_one_sequence_of_all_patches_with_one_set_of_prefix_tokens(encoder, close):
    made, volume = encoder(attention="volume", keep_registers=True), volume_for(DINOV2)
    tokens = embedded(made, volume)
    x = torch.cat([tokens[0, :5], tokens[:, 5:].flatten(0, 1)])[None]
    for block in made.vit.blocks:
        x = block(x)
    (x,) = made.vit.norm(x)
    slices = [torch.cat([x[:5], part]) for part in x[5:].split(6)]
    close(made([volume])[0][0], torch.cat(slices), 1e-10)


def rotated(x, angles):
    """Turn the pairs (i, i + half) of a head's numbers by its angles, one pair at a time."""
    half, out = len(x) // 2, x.clone()
    for i, angle in enumerate(angles):
        one, other = x[i], x[i + half]
        out[i] = one * math.cos(angle) - other * math.sin(angle)
        out[i + half] = other * math.cos(angle) + one * math.sin(angle)
    return out


def test_rotary_encoder_turns_by_the_place_in_the_volume(encoder, close):
    """Of 8 angles of a head, 2 tell the slice, 3 the row and 3 the column, as Flatten3D."""
    made, shape = encoder(DINOV3, "volume"), (3, 2, 2)
    volume = volume_for(DINOV3, *shape)
    tokens = embedded(made, volume)
    x = torch.cat([tokens[0, :5], tokens[:, 5:].flatten(0, 1)])
    for block in made.vit.blocks:
        qkv = block.attn.qkv(block.norm1(x)).unflatten(1, (3, 2, 16))
        turned = qkv.clone()
        for n in range(12):
            place = (n // 4, n // 2 % 2, n % 2)
            angles = [
                2 * math.pi * ((place[axis] + 0.5) / shape[axis] * 2 - 1) / 100 ** (i / width)
                for axis, width in enumerate((2, 3, 3))
                for i in range(width)
            ]
            for part in (0, 1):
                for head in (0, 1):
                    turned[5 + n, part, head] = rotated(qkv[5 + n, part, head], angles)
        q, k, v = turned.permute(1, 2, 0, 3)
        attended = ((q @ k.transpose(1, 2)) / 4).softmax(-1) @ v
        x = x + block.gamma_1 * block.attn.proj(attended.transpose(0, 1).flatten(1))
        x = x + block.gamma_2 * block.mlp(block.norm2(x))
    x = made.vit.norm(x)
    slices = [torch.cat([x[:1], part]) for part in x[5:].split(4)]
    close(made([volume])[0][0], torch.cat(slices), 1e-6)


@pytest.mark.parametrize("attention", ["planes", "volume"])
@pytest.mark.parametrize("name", [DINOV2, DINOV3])
def test_volumes_of_any_shape_equal_each_alone(name, attention, encoder, close):
    made = encoder(name, attention)
    shapes = [(4, 3, 2), (2, 2, 2), (4, 3, 2), (1, 1, 3)]
    volumes = [volume_for(name, *shape) for shape in shapes]
    levels, _ = made(volumes, blocks=[0, 3])
    alone = [made([volume], blocks=[0, 3])[0] for volume in volumes]
    for level, parts in zip(levels, zip(*alone, strict=True), strict=True):
        close(level, torch.cat(parts), 1e-10)


def test_the_order_of_slices_is_unknown_to_dinov2_in_a_volume(encoder, close):
    made, volume, order = encoder(attention="volume"), volume_for(DINOV2), [2, 0, 3, 1]
    tokens = made([volume])[0][0].unflatten(0, (4, -1))
    close(made([volume[order]])[0][0].unflatten(0, (4, -1)), tokens[order], 1e-10)


@pytest.mark.parametrize("attention", ["planes", "volume"])
def test_dinov3_knows_the_order_of_slices(attention, encoder):
    made, volume = encoder(DINOV3, attention), volume_for(DINOV3)
    tokens = made([volume])[0][0].unflatten(0, (4, -1))
    turned = made([volume.flip(0)])[0][0].unflatten(0, (4, -1))
    assert (turned.flip(0) - tokens).abs().max() > 1e-6


def test_the_volume_of_one_slice_is_the_slice(encoder, close):
    made, plain, volume = encoder(attention="volume"), encoder(), volume_for(DINOV2, depth=1)
    plain.attention = "slices"
    plain.load_state_dict(made.state_dict())  # no new parameter
    close(made([volume], [1])[0], plain([volume], [1])[0], 1e-10)


@pytest.mark.parametrize("attention", ["planes", "volume"])
def test_every_slice_reaches_every_patch(attention, encoder):
    made, volume = encoder(attention=attention), volume_for(DINOV2).requires_grad_()
    tokens = made([volume])[0][0].unflatten(0, (4, -1))
    tokens[0, -1].square().sum().backward()
    assert volume.grad.abs().amax((1, 2)).min() > 0


@pytest.mark.parametrize("attention", ["planes", "volume"])
def test_checkpointing_gives_the_same_gradients(attention, encoder, close):
    gradients = []
    made, volume = encoder(attention=attention).train(), volume_for(DINOV2)
    for enable in (False, True):
        made.set_grad_checkpointing(enable)
        made.zero_grad()
        made([volume])[0][0].square().sum().backward()
        gradients.append([p.grad for p in made.vit.parameters()])
    assert None not in gradients[0]
    close(gradients[1], gradients[0], 1e-10)


@torch.no_grad()
@pytest.mark.parametrize(("name", "attention"), [(DINOV2, "planes"), (DINOV3, "volume")])
def test_torchscript_runs_any_size(name, attention, encoder, close):
    made = encoder(name, attention, depth=3, keep_registers=True)
    script = torch.jit.script(made.on_tensors())
    for shape in [(4, 3, 2), (2, 2, 3)]:
        volumes = torch.stack([volume_for(name, *shape) for _ in range(2)])
        expected = made(list(volumes))[0][0]
        close(script(volumes[:, None]).flatten(0, 2), expected, 1e-10)


def test_another_attention_is_refused(encoder):
    with pytest.raises(ValueError, match="must be 'slices', 'planes' or 'volume', got 'axial'"):
        encoder(attention="axial")
