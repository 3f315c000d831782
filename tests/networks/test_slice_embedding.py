import pytest
import torch

from mrn_components.networks.packing import VolumeGrid, unpack
from mrn_components.networks.slice_embedding import SliceEmbedding, slice_vectors


@pytest.mark.parametrize("kind", ["learned", "sincos"])
def test_every_token_of_a_slice_gets_the_slices_vector(kind, close):
    embedding = SliceEmbedding(6, kind=kind)
    grids = [VolumeGrid(3, 1, 2), VolumeGrid(2, 2, 2)]
    added = embedding(torch.zeros(sum(grid.total for grid in grids), 6), grids)
    for volume, grid in zip(unpack(added, grids), grids, strict=True):
        expected = embedding.table[: grid.depth, None].expand(-1, grid.per_slice, -1)
        close(volume, expected, 0)


def test_taller_volumes_interpolate(close):
    table = SliceEmbedding(4, max_depth=3).table
    at = slice_vectors(table, 5)
    close(at[::2], table)
    close(at[1], (table[0] + table[1]) / 2)


def test_learned_vectors_train_and_fixed_ones_do_not():
    assert [p.shape for p in SliceEmbedding(8).parameters()] == [(64, 8)]
    assert SliceEmbedding(512, std=0.1).table.std().item() == pytest.approx(0.1, rel=0.05)
    assert not list(SliceEmbedding(8, kind="sincos").parameters())
    assert not SliceEmbedding(8, kind="sincos").state_dict()
