"""Errors of libraries are explained with what the run knows."""

import gc
import os
import signal

import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.handlers import CheckpointLoader
from monai.transforms import Compose, Lambdad
from stand_in import StandIn, collate, make_dataset, make_optimizer, make_trainer, prepare_batch

from mrn_components import FaultReportHandler, ROIDataset
from mrn_components.system.errors import DamagedFileError, ResourceError, user_message
from mrn_components.training.handlers.faults import _memory_advice


@pytest.fixture(autouse=True, scope="module")
def brief_ends():
    """Collect the loaders of failed runs; each of their workers is waited for 0.1 s, not 5 s."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
        yield
        gc.collect()


def subjects_of(transform):
    items = make_dataset().data
    return ROIDataset(data=items, transform=Compose([Lambdad("label", transform)]))


def train(dataset=None, *, workers=0, network=None):
    network = network or StandIn()
    handlers = [FaultReportHandler()]
    make_trainer(
        network,
        make_optimizer(network),
        handlers,
        epochs=1,
        dataset=dataset,
        workers=workers,
        shuffle=False,
    ).run()


def fail_at(label, action):
    """Subject 5 alone has this label."""
    if label == 5:
        action()
    return label % 2


def with_a_fault(action):
    dataset = subjects_of(lambda label: fail_at(label, action))
    dataset.data[5]["label"] = 5
    return dataset


def test_a_killed_worker_is_named_with_its_subject():
    dataset = with_a_fault(lambda: os.kill(os.getpid(), signal.SIGKILL))
    message = r"worker .* was killed while it read PHAN_005, often .*--shm-size=8g.*--num_workers 0"
    with pytest.raises(ResourceError, match=message) as caught:
        train(dataset, workers=2)
    assert user_message(caught.value) == str(caught.value)


def test_a_workers_error_is_that_of_the_subject():
    dataset = with_a_fault(lambda: 1 / 0)
    with pytest.raises(ValueError, match=r"^subject PHAN_005: .*") as caught:
        train(dataset, workers=2)
    assert "Traceback" not in str(caught.value)
    with pytest.raises(RuntimeError, match=r"^subject PHAN_005: "):
        train(dataset)


def test_other_data_sets_have_workers_too():
    class Dataset(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ResourceError, match="a worker of the data loader was killed, often"):
        train(Dataset(), workers=1)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't"),
        MemoryError(),
    ],
)
def test_want_of_memory_names_the_batch_and_the_way_out(error):
    class Hungry(StandIn):
        def forward(self, _images):
            raise error

    message = (
        r"out of memory on cpu, at the subjects \['PHAN_000', 'PHAN_001', .*"
        r"nm 2x3x4, 3x3x4, .*; qsm 2x3x4, .*first: --batch_size 1, --precision bf16\."
    )
    with pytest.raises(ResourceError, match=message):
        train(network=Hungry())


def test_want_of_memory_is_mended_by_what_the_network_has():
    """Words for the user are in code: a config has none, and the network tells what helps."""
    network = StandIn()
    network.encoder = torch.nn.Module()
    network.encoder.grad_checkpointing = False
    trainer = make_trainer(network, make_optimizer(network), [])
    assert _memory_advice(trainer) == [
        "--batch_size 1",
        "--network_def#res#checkpointing True",
        "--precision bf16",
    ]
    assert _memory_advice(Engine(lambda *_: None)) == ["--precision bf16", "--device cpu"]


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (StandIn(width=5).state_dict(), ValueError, r"made for another network than this StandIn"),
        (b"", DamagedFileError, r"the weights are damaged or no file of tensors; copy them again"),
        (b"not weights", DamagedFileError, r"the weights are damaged"),
        ("half", DamagedFileError, r"the weights are damaged"),
    ],
)
def test_weights_that_do_not_fit_or_are_damaged(tmp_path, content, kind, message):
    path, network = tmp_path / "model.pt", StandIn()
    torch.save(network.state_dict() if content == "half" else content, path)
    if content == "half":
        os.truncate(path, path.stat().st_size // 2)
    if isinstance(content, bytes):
        path.write_bytes(content)
    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        DataLoader(make_dataset(2), batch_size=2, collate_fn=collate),
        network,
        prepare_batch=prepare_batch,
        decollate=False,
        val_handlers=[FaultReportHandler(), CheckpointLoader(str(path), {"network": network})],
    )
    with pytest.raises(kind, match=message):
        evaluator.run()


def test_other_errors_pass_unchanged():
    error = KeyError("nm")

    class Broken(StandIn):
        def forward(self, _images):
            raise error

    with pytest.raises(KeyError) as caught:
        train(network=Broken())
    assert caught.value is error
