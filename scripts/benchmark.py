"""How fast the network runs, beside what this machine could do at best.

    python scripts/benchmark.py [--network paper|small] [--cases infer-fp32,data] [--json PATH]

Every case runs in a process of its own, on crops of realistic and unequal sizes. Its limit is the
time that its counted operations take at the speed of this machine's best matrix product and best
attention, both measured in the same process before and after. Cases:

    yardstick          plain forward pass: fp32, square slices of three channels, ROI by ROI
    yardstick-dpt      the same with the segmentation head, which inference leaves out
    infer-PRECISION    forward pass in evaluation mode; PRECISION is fp32 or bf16
    train-PRECISION-bN[-ckpt]
                       a training step of N subjects: student forward and backward, all losses,
                       teacher, AdamW, teacher update; with activation checkpointing or not
    count-PRECISION-bN[-ckpt]
                       the same step's operations, counted without computing it
    encoder-PRECISION  the encoder alone on four subjects in sixteen shapes, in turn with its
                       yardstick, one call of timm a shape
    data               augmented subjects from the cache, in one process

Operations are those that torch dispatches and that compute: on a GPU each is a launch.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, Literal

import fire
import torch
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import linear, pad, scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mrn_components import fast_fp32_matmul, keep_freed_memory
from mrn_components.networks.packing import VolumeGrid
from mrn_components.networks.slice_embedding import slice_vectors
from mrn_components.phantom import make_cohort

CONFIGS = Path(__file__).resolve().parents[1] / "bundles" / "mrn" / "configs"
# Crops of a typical subject after resizing to 224, (D, H, W); from masks of the challenge.
SHAPES = {
    "nm": (10, 112, 224),
    "qsm1": (19, 210, 224),
    "qsm2": (11, 126, 224),
    "qsm3": (10, 126, 224),
}
TRAINING = {
    # Batch 4 needs 28 GiB without checkpointing in bf16 and 49 in fp32 (ViT-B).
    "paper": "train-fp32-b1,train-fp32-b1-ckpt,train-fp32-b4-ckpt,train-bf16-b1,train-bf16-b1-ckpt",
    "small": "train-fp32-b4,train-fp32-b4-ckpt,train-bf16-b4,train-bf16-b4-ckpt",
}
LONG_SECONDS = 30


def benchmark(
    *,
    network: Literal["paper", "small"] = "paper",
    cases: str | tuple[str, ...] = (),
    repeats: int = 3,
    threads: int | None = None,
    json_path: str | None = None,
) -> None:
    """Run cases and print a table.

    Args:
        network: "paper" is train.yaml, "small" is train.yaml with small.yaml.
        cases: names, separated by commas; all when omitted.
        repeats: timed runs of a case after a first one, of which the fastest counts. A case whose
            first run takes more than half a minute is not repeated.
        threads: of the processor; all when omitted.
        json_path: file for the results.
    """
    if not cases:
        cases = (
            f"yardstick,yardstick-dpt,infer-fp32,infer-bf16,encoder-fp32,{TRAINING[network]},data"
        )
    names = cases.split(",") if isinstance(cases, str) else cases  # fire makes tuples of lists
    threads = threads or os.cpu_count() or 1
    results = []
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        command = [sys.executable, __file__, "case", network, name, str(repeats), str(threads)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        failed = {"failed": f"exit status {done.returncode}"}
        last = (done.stdout.splitlines() or [""])[-1]
        results.append({"case": name, **(failed if done.returncode else json.loads(last))})
    report = {"network": network, "machine": _machine(threads), "results": results}
    if json_path is not None:
        Path(json_path).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(_table(report))


def run_case(network: str, name: str, repeats: int, threads: int) -> None:
    """Run one case in this process and print its result as a line of JSON."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    kind, *options = name.split("-")
    runs = {"data": lambda: _data(network), "encoder": lambda: _encoder(network, options, repeats)}
    if kind not in (*runs, "yardstick", "infer", "train", "count"):
        raise ValueError(
            f"case must begin with yardstick, infer, train, count, encoder or data, got {name!r}."
        )
    result = runs.get(kind, lambda: _compute(network, kind, options, repeats))()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if torch.cuda.is_available():
        memory = torch.cuda.max_memory_allocated()
    print(json.dumps({**result, "peak_gib": memory / 2**30}))


def plain_forward(mrn: nn.Module, images: dict[str, list[Tensor]], *, dpt: bool = False) -> Tensor:
    """What ``mrn`` computes, without its economies: the logits (B, 2).

    Slices are padded to squares, repeated to three channels and normalised; ROIs go one by one
    through timm's own modules; every token is computed.

    Args:
        mrn: an MRN from ``with_plain_patches``.
        images: as ``mrn`` takes them; squares give its numbers.
        dpt: also run the segmentation head, and drop its masks.
    """
    rows = [
        torch.cat([_plain_roi_token(mrn.res, volume, roi, dpt=dpt) for roi, volume in subject])
        for subject in zip(*([(roi, v) for v in images[roi]] for roi in mrn.rois), strict=True)
    ]
    return mrn.classifier(torch.stack(rows))


def with_plain_patches(mrn: nn.Module) -> nn.Module:
    """A copy of ``mrn`` with timm's patch convolution, for three channels."""
    mrn = deepcopy(mrn)
    folded = mrn.res.encoder.vit.patch_embed.proj
    plain = nn.Conv2d(3, folded.out_channels, folded.kernel_size, folded.stride)
    plain.load_state_dict(folded.state_dict())
    mrn.res.encoder.vit.patch_embed.proj = plain.to(folded.weight.device)
    return mrn


def _plain_roi_token(res: nn.Module, volume: Tensor, roi: str, *, dpt: bool) -> Tensor:
    vit = res.encoder.vit
    depth, height, width = volume.shape[1:]
    side = max(height, width)
    rest = (side - width, side - height)
    edges = [part for r in rest for part in (r // 2, r - r // 2)]
    slices = pad(volume[0], edges)[:, None].repeat(1, 3, 1, 1)  # (D, 3, S, S)
    mean = slices.new_tensor(IMAGENET_DEFAULT_MEAN).view(3, 1, 1)
    std = slices.new_tensor(IMAGENET_DEFAULT_STD).view(3, 1, 1)
    tokens = vit.forward_features((slices - mean) / std)
    encoded = tokens = torch.cat([tokens[:, :1], tokens[:, vit.num_prefix_tokens :]], dim=1)
    tokens = tokens + slice_vectors(res.slice_embedding.table, depth)[:, None]
    levels = []
    for global_block, local_block in zip(res.ffa.global_blocks, res.ffa.local_blocks, strict=True):
        tokens = Block.forward(global_block, tokens.flatten(0, 1)[None]).view_as(tokens)
        levels.append(tokens)
        tokens = Block.forward(local_block, tokens)
    if dpt:
        patches = side // res.encoder.patch_size
        maps = [level.flatten(0, 1) for level in [encoded, *levels[:-1], tokens]]
        maps = [maps[0]] * (4 - len(maps)) + maps  # fewer layers of FFA: the same cost
        res.dpt(maps, [VolumeGrid(depth, patches, patches)], [(side, side)], [roi])
    x = torch.cat([res.sfa.roi_token, tokens[:, 0]])[None]
    for block in res.sfa.blocks:
        x = Block.forward(block, x)
    return res.sfa.norm(x[0, 0])


def _compute(network: str, kind: str, options: list[str], repeats: int) -> dict[str, Any]:
    """Time a case, and count what it should take."""
    precision = "bf16" if "bf16" in options else "fp32"
    batch = next((int(option[1:]) for option in options if option[1:].isdigit()), 1)
    config = _config(network)
    config["precision"] = precision
    config["network_def#res#checkpointing"] = "ckpt" in options
    if kind != "yardstick":
        fast_fp32_matmul()  # as in the bundle's `initialize`
        keep_freed_memory()
    mrn = config.get_parsed_content("network")
    images = _images(config, batch)
    run: Callable[[], object]
    if kind in ("train", "count"):
        run = _step(config, mrn, images)
        count = lambda: _training_step(mrn, images)  # noqa: E731
    elif kind == "infer":
        run = count = torch.no_grad()(lambda: mrn.eval()(images))
    else:
        plain = with_plain_patches(mrn).eval()
        run = count = torch.no_grad()(lambda: plain_forward(plain, images, dpt="dpt" in options))
    linear_flop, attention_flop, operations = _count(count)
    work = {
        "subjects": batch,
        "tflop": (linear_flop + attention_flop) / 1e12,
        "attention_tflop": attention_flop / 1e12,
        "operations": operations,
    }
    if kind == "count":
        return work
    speeds = [_speeds(precision, mrn.res.encoder)]
    seconds = _best(run, repeats)
    speeds.append(_speeds(precision, mrn.res.encoder))
    matmul, attention = (max(speed) for speed in zip(*speeds, strict=True))
    limit = linear_flop / matmul + attention_flop / attention
    return {
        **work,
        "seconds": seconds,
        "matmul_gflop_per_second": matmul / 1e9,
        "attention_gflop_per_second": attention / 1e9,
        "limit_seconds": limit,
        "of_limit": limit / seconds,
    }


def _encoder(network: str, options: list[str], repeats: int) -> dict[str, Any]:
    """Time the encoder on packed slices and by one call a shape, in turn, by processor time."""
    fast_fp32_matmul()
    keep_freed_memory()
    config = _config(network)
    encoder: Any = config.get_parsed_content("network").res.encoder.eval()
    volumes = [
        volume[0, :, : max(1, volume.shape[2] - number * encoder.patch_size)]
        for volumes in _images(config, 4).values()
        for number, volume in enumerate(volumes)
    ]
    device = volumes[0].device
    autocast = partial(torch.autocast, device.type, torch.bfloat16, "bf16" in options)
    packed = torch.no_grad()(autocast()(lambda: encoder(volumes)))
    by_shape = torch.no_grad()(autocast()(lambda: _by_shape(encoder, volumes)))
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    times = [(_best(packed, 0, clock), _best(by_shape, 0, clock)) for _ in range(repeats + 1)]
    seconds, yardstick = (min(column) for column in zip(*times[1:] or times, strict=True))
    return {
        "subjects": 4,
        "seconds": seconds,
        "by_shape_seconds": yardstick,
        "speed_up": yardstick / seconds,
        "operations": _count(packed)[2],
        "by_shape_operations": _count(by_shape)[2],
    }


def _by_shape(encoder: Any, volumes: list[Tensor]) -> Tensor:
    """The encoder's tokens (N, C) by one call of timm for all slices of a shape."""
    p: int = encoder.patch_size
    groups: dict[torch.Size, list[tuple[int, Tensor]]] = {}
    for i, volume in enumerate(volumes):
        rows, columns = -volume.shape[1] % p, -volume.shape[2] % p
        edges = [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2]
        slices = pad(volume[:, None], edges)
        groups.setdefault(slices.shape[1:], []).append((i, slices))
    found: dict[int, Tensor] = {}
    for group in groups.values():
        numbers, slices = zip(*group, strict=True)
        tokens = encoder.vit.forward_features(torch.cat(slices))
        tokens = torch.cat([tokens[:, :1], tokens[:, encoder.vit.num_prefix_tokens :]], 1)
        found.update(zip(numbers, tokens.split([len(part) for part in slices]), strict=True))
    return torch.cat([found[i].flatten(0, 1) for i in range(len(volumes))])


def _config(network: str) -> ConfigParser:
    files = [CONFIGS / "train.yaml", *([CONFIGS / "small.yaml"] if network == "small" else [])]
    config = ConfigParser()
    config.read_config([str(file) for file in files])
    config["bundle_root"] = str(CONFIGS.parent)
    config["encoder_weights"] = "none"
    return config


def _images(config: ConfigParser, batch: int) -> dict[str, list[Tensor]]:
    side = config["image_size"]
    device = config.get_parsed_content("device")
    return {
        roi: [
            torch.rand(1, depth, height * side // 224, width * side // 224, device=device)
            for _ in range(batch)
        ]
        for roi, (depth, height, width) in SHAPES.items()
    }


def _step(
    config: ConfigParser, mrn: nn.Module, images: dict[str, list[Tensor]]
) -> Callable[[], object]:
    """A training step by the bundle's trainer, loss, optimiser and mSupMoCo handler."""
    classes = {name: roi.num_classes for name, roi in config.get_parsed_content("rois").items()}
    targets = {
        "label": torch.arange(len(images["nm"]), device=images["nm"][0].device) % 2,
        "masks": {
            roi: [torch.randint_like(v[0], classes[roi]).long() for v in volumes]
            for roi, volumes in images.items()
        },
    }
    trainer = SupervisedTrainer(
        device=config.get_parsed_content("device"),
        max_epochs=1,
        train_data_loader=[(images, targets)],
        network=mrn,
        optimizer=config.get_parsed_content("optimizer"),
        loss_function=config.get_parsed_content("loss"),
        prepare_batch=lambda batch, *_args, **_kwargs: batch,
        train_handlers=[config.get_parsed_content("handlers#msupmoco")],
        decollate=False,
    )

    def step() -> None:
        trainer.state.epoch = 0
        trainer.run()

    return step


def _training_step(mrn: nn.Module, images: dict[str, list[Tensor]]) -> None:
    """The parts of a training step that multiply large matrices."""
    output = mrn.train()(images)
    masks = [mask.sum() for volumes in output["masks"].values() for mask in volumes]
    torch.autograd.grad(sum(masks) + output["logits"].sum(), list(mrn.parameters()))
    with torch.no_grad():
        mrn.eval()(images)  # costs what the teacher does


class _Operations(TorchDispatchMode):
    """Counts operations that compute, not those that only look at a tensor in another way."""

    count = 0

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        looks = func.is_view or func.namespace == "prim"  # prim::device asks, and computes nothing
        self.count += not (looks or "empty" in func.name() or "detach" in func.name())
        return func(*args, **(kwargs or {}))


def _count(run: Callable[[], object]) -> tuple[float, float, int]:
    """Flops of ``run`` in matrix products and in attention, and its operations, without data."""
    counter, operations = FlopCounterMode(display=False), _Operations()
    with FakeTensorMode(allow_non_fake_inputs=True), counter, operations:
        run()
    counts = counter.get_flop_counts()["Global"]
    attention = sum(flop for op, flop in counts.items() if "attention" in str(op))
    return sum(counts.values()) - attention, attention, operations.count


def _speeds(precision: str, encoder: nn.Module) -> tuple[float, float]:
    """Best speed of a matrix product and of attention, in operations a second."""
    options = {
        "dtype": torch.bfloat16 if precision == "bf16" else torch.float32,
        "device": next(encoder.parameters()).device,
    }
    matmul = 0.0
    for rows, inner, columns in [(2048, 2048, 2048), (2048, 768, 3072), (2048, 3072, 768)]:
        x, weight = torch.randn(rows, inner, **options), torch.randn(columns, inner, **options)
        seconds = _best(lambda x=x, weight=weight: linear(x, weight), 3)
        matmul = max(matmul, 2 * rows * inner * columns / seconds)
    tokens, width = 2048, encoder.channels // encoder.num_heads
    q, k, v = torch.randn(3, 1, encoder.num_heads, tokens, width, **options)
    seconds = _best(lambda: scaled_dot_product_attention(q, k, v), 3)
    return matmul, 4 * encoder.num_heads * tokens**2 * width / seconds


def _best(
    run: Callable[[], object], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of the fastest run after a first one, or of the first where it is long."""
    times: list[float] = []
    while len(times) <= repeats and not (times and times[0] > LONG_SECONDS):
        start = clock()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(clock() - start)
    return min(times[1:] or times)


def _data(network: str) -> dict[str, Any]:
    """Speed of the training data set once its cache is full, on phantoms."""
    with tempfile.TemporaryDirectory() as folder:
        make_cohort(Path(folder) / "phantom", subjects=10, view="midbrain")
        config = _config(network)
        config["dataset_dir"] = str(Path(folder) / "phantom")
        config["output_dir"] = config["cache_dir"] = folder
        dataset = config.get_parsed_content("train#dataset")
        collate = config.get_parsed_content("collate")
        prepare = config.get_parsed_content("prepare_batch")
        subjects = _best(lambda: _exhaust(dataset), 3) / len(dataset)
        batches = _best(lambda: _exhaust(prepare(collate([item])) for item in dataset), 3)
    return {"subjects": 1, "seconds": subjects, "seconds_with_resizing": batches / len(dataset)}


def _exhaust(items: Iterable[Any]) -> None:
    for _ in items:
        pass


def _machine(threads: int) -> dict[str, Any]:
    cpu = getattr(torch.cpu, "get_capabilities", dict)().get("cpu_name", "unknown CPU")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    return {"device": device, "threads": threads, "torch": torch.__version__}


def _speed_up(name: str, result: dict[str, Any], yardstick: float | None) -> float | None:
    """How many times faster than its yardstick a case is, if it has one."""
    if yardstick is not None and name.startswith(("yardstick", "infer")):
        return yardstick / result["seconds"]
    return result.get("speed_up")


def _table(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    columns = ["case", "s", "TFLOP", "limit s", "of limit", "peak GiB", "subjects/s", "speed-up"]
    columns.append("operations")
    by_case = {result["case"]: result for result in report["results"]}
    yardstick = by_case.get("yardstick", {}).get("seconds")
    rows = []
    for name, result in by_case.items():
        if "failed" in result:
            rows.append([name, result["failed"]] + [""] * 7)
            continue
        limit, seconds = result.get("limit_seconds"), result.get("seconds")
        rows.append(
            [
                name,
                f"{seconds:.3g}" if seconds else "",
                f"{result['tflop']:.3g}" if "tflop" in result else "",
                f"{limit:.3g}" if limit else "",
                f"{result['of_limit']:.0%}" if limit else "",
                f"{result['peak_gib']:.1f}",
                f"{result['subjects'] / seconds:.3g}" if seconds else "",
                f"{speed_up:.2f}" if (speed_up := _speed_up(name, result, yardstick)) else "",
                str(result.get("operations", "")),
            ]
        )
    machine = report["machine"]
    head = f"{report['network']} network, {machine['device']}, {machine['threads']} threads, "
    lines = [columns, ["---"] * len(columns), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{head}PyTorch {machine['torch']}\n\n{table}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["case"]:
        run_case(*sys.argv[2:4], *(int(number) for number in sys.argv[4:6]))
    else:
        fire.Fire(benchmark)
