"""What a foreign config may build: the allow-list of ``_target_``.

A listed component may be called with any arguments, by itself or by another one, so the list holds
only what neither runs code that its arguments name nor reads pickles. Found by reading MONAI 1.6.1
for ``locate``, ``import_module``, ``pickle``, ``torch.load`` and file access; an update of MONAI
means reading again.
"""

import functools
import inspect
import re
from importlib import import_module
from typing import Any

from monai.bundle import ComponentLocator

import mrn_components

# Packages of which everything is allowed that they define, with the exceptions of _REFUSED.
_WHOLE = (
    "ignite.metrics",
    "monai.engines",
    "monai.inferers",
    "monai.losses",
    "monai.metrics",
    "monai.networks.blocks",
    "monai.networks.layers",
    "monai.networks.nets",
    "monai.optimizers",
    "monai.transforms",
    "torch.nn",
    "torch.optim",
    "torch.utils.data.dataloader",
    "torch.utils.data.dataset",
    "torch.utils.data.distributed",
    "torch.utils.data.sampler",
)
_REFUSED = (  # modules, or names in them
    "monai.inferers.inferer.PatchInferer",  # merger_cls is any import path
    "monai.inferers.merger",  # writes where it is told
    "monai.losses.perceptual",  # torch.hub runs what it downloads
    "monai.networks.nets.flexible_unet",  # register_class takes any import path
    "monai.networks.nets.hovernet",  # downloads from any address
    "monai.networks.nets.transchex",
    "monai.optimizers.lr_finder",  # pickle_module
    "monai.transforms.io.array.WriteFileMapping",
    "monai.transforms.io.dictionary.WriteFileMappingd",
    "monai.transforms.utils_create_transform_ims",  # edits source files
)
# Packages of which only these names are allowed. Missing are above all those that write text of
# the config's own choice to files of its choice, such as LogfileHandler.
_SOME = {
    "ignite.distributed": "device finalize get_rank get_world_size initialize",
    "ignite.handlers": "EarlyStopping ProgressBar TerminateOnNan Timer",
    "ignite.handlers.param_scheduler": "ConcatScheduler CosineAnnealingScheduler LRScheduler "
    "LinearCyclicalScheduler ParamGroupScheduler PiecewiseLinear",
    "monai.data": "ArrayDataset CacheDataset DataLoader Dataset DistributedSampler "
    "DistributedWeightedRandomSampler IterableDataset PatchDataset ShuffleBuffer "
    "SmartCacheDataset ThreadDataLoader ZipDataset decollate_batch list_data_collate "
    "load_decathlon_datalist no_collation pad_list_data_collate partition_dataset",
    "monai.handlers": "AveragePrecision CheckpointLoader ConfusionMatrix EarlyStopHandler "
    "GarbageCollector HausdorffDistance LrScheduleHandler MeanAbsoluteError MeanDice "
    "MeanIoUHandler MeanSquaredError MetricLogger MetricsReloadedBinaryHandler PanopticQuality "
    "ParamSchedulerHandler PostProcessing ROCAUC RegressionMetrics SmartCacheHandler StatsHandler "
    "SurfaceDistance TensorBoardStatsHandler ValidationHandler from_engine "
    "stopping_fn_from_loss stopping_fn_from_metric",
    "monai.utils": "ensure_tuple set_determinism",
}
_ALLOWED = dict.fromkeys(_WHOLE) | {
    package: frozenset(names.split()) for package, names in _SOME.items()
}
# LoadImage and SaveImage import and call whatever a string in `reader` or `writer` names.
READERS = frozenset(
    ["ITKReader", "NibabelReader", "NrrdReader", "NumpyReader", "PILReader", "PydicomReader"]
)
WRITERS = frozenset(["ITKWriter", "NibabelWriter", "PILWriter"])
_PATH = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+")


def is_allowed(target: str) -> bool:
    """Whether a config may write ``_target_: target``; imports only listed packages.

    Args:
        target: an import path, or the bare name of something in MONAI.
    """
    if "." not in target:
        module = _locator().get_component_module_name(target)
        if module is None:
            return False  # pydoc would look for a module or a builtin, such as eval
        return is_allowed(f"{module if isinstance(module, str) else module[0]}.{target}")
    module, _, name = target.rpartition(".")
    if module == mrn_components.__name__:
        return name in mrn_components.__all__
    if not _PATH.fullmatch(target) or not _leads_to_package(module):
        return False
    found = _find(module, name)
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        return False
    # The way to it may lead through a module that some module imports: monai.data.utils.os.
    return _is_listed(str(found.__module__), found.__qualname__)


def needs_literals(target: str) -> bool:
    """Whether ``target`` is safe only with the arguments that ``argument_problem`` has checked."""
    name = target.rpartition(".")[2]
    return name.startswith(("LoadImage", "SaveImage"))


def argument_problem(name: str, value: Any) -> str | None:
    """What is wrong with an argument that names a class to load, or switches pickles on."""
    if name in ("reader", "writer"):
        known = READERS if name == "reader" else WRITERS
        names = value if isinstance(value, list) else [value]
        if not all(each is None or (isinstance(each, str) and each in known) for each in names):
            return f"{name} may only be one of {', '.join(sorted(known))}"
    if name in ("allow_pickle", "pickle_module", "merger_cls") and value not in (None, False):
        return f"{name} lets a file run code when it is read, or names code"
    if name == "weights_only" and value is not True:
        return "weights_only must be true: other files run code when they are read"
    return None


def _find(module: str, name: str) -> Any:
    try:
        return getattr(import_module(module), name, None)
    except Exception:  # no such module, or one that needs what is not installed
        return None


def _is_listed(module: str, name: str) -> bool:
    package = _package(module)
    if package is None or _is_below(f"{module}.{name}", _REFUSED) or not name.isidentifier():
        return False
    if name.startswith("_"):
        return False
    names = _ALLOWED[package]
    return names is None or name in names


def _leads_to_package(module: str) -> bool:
    """Whether ``module`` is, lies in or holds a listed package."""
    return any(_is_below(module, (p,)) or _is_below(p, (module,)) for p in _ALLOWED)


def _package(module: str) -> str | None:
    """The longest listed package that ``module`` is or lies in."""
    packages = [package for package in _ALLOWED if _is_below(module, (package,))]
    return max(packages, key=len, default=None)


def _is_below(path: str, parents: tuple[str, ...]) -> bool:
    return any(path == parent or path.startswith(f"{parent}.") for parent in parents)


@functools.cache
def _locator() -> ComponentLocator:
    """MONAI's table of its own names, the one it will use itself."""
    return ComponentLocator()
