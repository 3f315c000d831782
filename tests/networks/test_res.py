import pytest
import torch

from mrn_components import FFA, RES, SFA, DPTHead


@pytest.fixture
def make_res(tiny_encoder):
    def make(*, depth=12, ffa=3, sfa=2, dpt="local", **args):
        res = RES(
            encoder=tiny_encoder(depth=depth),
            ffa=FFA(num_layers=ffa) if ffa else None,
            sfa=SFA(num_layers=sfa) if sfa else None,
            dpt=DPTHead(features=dpt, fusion_channels=16) if dpt else None,
            **args,
        )
        res.build({"nm": 2})
        return res

    return make


@pytest.fixture
def levels_of(monkeypatch):
    """The four levels that a RES hands to its DPT for one volume."""

    def capture(res):
        seen = []
        forward = res.dpt.forward

        def spy(levels, *args):
            seen.extend(levels)
            return forward(levels, *args)

        monkeypatch.setattr(res.dpt, "forward", spy)
        volume = torch.rand(1, 2, 14, 28)
        res([volume], ["nm"])
        return seen, volume

    return capture


@pytest.mark.parametrize("features", ["local", "global"])
def test_dpt_takes_the_encoder_and_three_layers_of_ffa(features, make_res, levels_of, close):
    res = make_res(depth=2, dpt=features)
    levels, volume = levels_of(res)
    encoded, grids = res.encoder([*volume])
    _, globals_, locals_ = res.ffa(res.slice_embedding(encoded[-1], grids), grids)
    last = locals_[2] if features == "local" else globals_[2]
    for got, expected in zip(levels, [encoded[-1], *globals_[:2], last], strict=True):
        close(got, expected, 0)


@pytest.mark.parametrize(
    ("ffa", "blocks"), [(0, [3, 6, 9, 11]), (1, [6, 9, 11]), (2, [9, 11]), (3, [11]), (4, [])]
)
def test_encoder_blocks_fill_up_the_four_levels(ffa, blocks, make_res, levels_of, close):
    res = make_res(ffa=ffa)
    levels, volume = levels_of(res)
    assert len(levels) == 4
    encoded, _ = res.encoder([*volume], blocks)
    for got, expected in zip(levels, encoded[: len(blocks)], strict=False):
        close(got, expected)


@pytest.mark.parametrize("depth", [1, 2, 4, 24])
def test_any_encoder_depth_fills_four_levels(depth, make_res, levels_of):
    assert len(levels_of(make_res(depth=depth, ffa=0))[0]) == 4


def test_without_sfa_the_roi_token_is_the_mean_slice_token(make_res, close):
    res = make_res(depth=2, ffa=0, sfa=0, dpt=None, slice_embedding="none")
    volumes = [torch.rand(1, 3, 14, 14), torch.rand(1, 1, 14, 28)]
    tokens, masks = res(volumes, ["nm", "nm"])
    assert masks is None
    encoded, _ = res.encoder([*volumes[0]])
    close(tokens[0], encoded[0].view(3, 2, 32)[:, 0].mean(0))


@pytest.mark.parametrize("kind", ["learned", "sincos", "none"])
def test_only_the_slice_embedding_tells_slices_apart(kind, make_res, close):
    res = make_res(depth=2, slice_embedding=kind, slice_pos_std=1.0).double()
    volume = torch.rand(1, 4, 14, 14, dtype=torch.float64)
    (token, masks), (flipped, flipped_masks) = (res([v], ["nm"]) for v in (volume, volume.flip(1)))
    same = torch.allclose(token, flipped, atol=1e-9, rtol=0)
    same_masks = torch.allclose(masks[0].flip(1), flipped_masks[0], atol=1e-9, rtol=0)
    assert (same, same_masks) == ((True, True) if kind == "none" else (False, False))


def test_slice_embedding_must_be_known(make_res):
    with pytest.raises(ValueError, match=r"slice_embedding must be .*got 'rope'"):
        make_res(depth=2, slice_embedding="rope")
