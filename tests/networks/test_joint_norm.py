import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mrn_components import SERes10, join_batch_norms
from mrn_components.networks.joint_norm import _JointBatchNorm3d

ROIS = {"nm": 2, "qsm1": 5}


def make_crops(subjects=4):
    """Crops of unequal sizes: the largest boxes are those of the last subjects."""
    rng = torch.Generator().manual_seed(3)
    shapes = [(3 + i % 2, 20 + 4 * i, 24) for i in range(subjects)]
    return {
        roi: [torch.rand(1 + k, *shape, generator=rng) for shape in shapes]
        for roi, k in ROIS.items()
    }


def train_rank(rank, world_size, folder):
    """Train a SERes10 on this rank's share of the subjects; save its weights and predictions."""
    torch.set_num_threads(1)
    if world_size > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
        )
    torch.manual_seed(7)
    encoder = SERes10(widths=(16, 16, 16, 24), stem_stride=(1, 1, 1))
    encoder.build(ROIS)
    network = join_batch_norms(encoder).train()
    wrapped = network
    if world_size > 1:
        wrapped = DistributedDataParallel(network, broadcast_buffers=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    crops = make_crops()
    share = len(crops["nm"]) // world_size
    mine = slice(rank * share, (rank + 1) * share)
    volumes = [crop for roi in ROIS for crop in crops[roi][mine]]
    for _ in range(3):
        features, _ = wrapped(volumes, [roi for roi in ROIS for _ in range(share)])
        optimizer.zero_grad()
        features.square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        features, _ = network.eval()(crops["nm"], ["nm"] * len(crops["nm"]))
    torch.save({"weights": network.state_dict(), "features": features}, f"{folder}/{rank}.pt")
    if world_size > 1:
        distributed.destroy_process_group()


def test_two_ranks_train_a_seres10_like_one_process(tmp_path, forks):
    """The crops' common box, the statistics and their gradients are those of both ranks."""
    (single,) = forks.run_ranks(train_rank, 1, tmp_path / "1")
    first, second = forks.run_ranks(train_rank, 2, tmp_path / "2")
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first, single, rtol=1e-4, atol=1e-5)


def test_one_process_keeps_torchs_batch_norm():
    """On one process, in training and in evaluation."""
    torch.manual_seed(0)
    plain, joined = nn.BatchNorm3d(3), join_batch_norms(nn.BatchNorm3d(3))
    assert isinstance(joined, _JointBatchNorm3d)
    for volumes in torch.rand(2, 4, 3, 2, 5, 5):
        assert torch.equal(plain(volumes), joined(volumes))
    assert torch.equal(plain.eval()(volumes), joined.eval()(volumes))
    assert plain.state_dict().keys() == joined.state_dict().keys()
