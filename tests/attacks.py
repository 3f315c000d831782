"""Bundles that try to run a command: every way to one that we know of.

A payload touches the file TRACE. Strings hold the word, which ``plant`` replaces by a real path.
"""

import json
import os
import shutil
from pathlib import Path

import torch
from monai.bundle import ConfigParser

BUNDLE = Path(__file__).parents[1] / "bundles" / "mrn"
TOUCH = "__import__('pathlib').Path('TRACE').touch()"
SHELL = "touch TRACE"

# Name: (config, id that MONAI is asked for). Each really runs when MONAI builds that id.
RUNNING = {
    "os.system": ({"x": {"_target_": "os.system", "command": SHELL}}, "x"),
    "subprocess.run": ({"x": {"_target_": "subprocess.run", "args": ["touch", "TRACE"]}}, "x"),
    "deep in lists": ({"x": [[{"a": [{"_target_": "os.system", "command": SHELL}]}]]}, "x"),
    "expression": ({"x": f"${TOUCH}"}, "x"),
    "target by reference": (
        {"name": "os.system", "x": {"_target_": "@name", "command": SHELL}},
        "x",
    ),
    "target by macro": ({"name": "os.system", "x": {"_target_": "%name", "command": SHELL}}, "x"),
    "component by macro": (
        {"hidden": [{"_target_": "os.system", "command": SHELL}], "x": "%hidden#0"},
        "x",
    ),
    "target by relative macro": (
        {"x": {"a": "os.system", "b": {"_target_": "%##a", "command": SHELL}}},
        "x",
    ),
    "target by expression": ({"x": {"_target_": "$'os' + '.system'", "command": SHELL}}, "x"),
    "target in a target": (
        {"x": {"_target_": {"_target_": "os.system", "_mode_": "callable"}, "command": SHELL}},
        "x",
    ),
    "description": ({"x": {"_target_": "Compose", "_desc_": f"${TOUCH}"}}, "x"),
    "requirement": ({"x": {"_target_": "Compose", "_requires_": [f"${TOUCH}"]}}, "x"),
    "switch": ({"x": {"_target_": "Compose", "_disabled_": f"${TOUCH}"}}, "x"),
    "import": ({"i": ["$import os"], "x": "$os.system('touch TRACE')"}, "x"),
    "import as": (
        {"i": ["$import subprocess as torch"], "x": "$torch.run(['touch','TRACE'])"},
        "x",
    ),
    "from import": ({"i": ["$from os import system"], "x": "$system('touch TRACE')"}, "x"),
    "import of a runner": (
        {"i": ["$import monai.utils as math"], "x": "$math.misc.run_cmd(['touch','TRACE'])"},
        "x",
    ),
    "module of a module": (
        {"x": {"_target_": "monai.data.utils.os.system", "command": SHELL}},
        "x",
    ),
    "bare name of MONAI": ({"x": {"_target_": "run_cmd", "cmd_list": ["touch", "TRACE"]}}, "x"),
    "MONAI's instantiate": (
        {"x": {"_target_": "monai.utils.module.locate", "path": "os.system"}, "y": f"${TOUCH}"},
        "y",
    ),
    "expression object": (
        {
            "text": f" ${TOUCH}",
            "e": {"_target_": "ConfigExpression", "config": "$@text[1:]"},
            "x": "$@e.evaluate()",
        },
        "x",
    ),
    "image reader": (
        {"x": {"_target_": "LoadImaged", "keys": "a", "reader": "os.system", "command": SHELL}},
        "x",
    ),
    "image reader by reference": (
        {
            "r": "os.system",
            "x": {"_target_": "LoadImaged", "keys": "a", "reader": ["@r"], "command": SHELL},
        },
        "x",
    ),
    "image reader later": (
        {
            "f": {"_target_": "LoadImage", "_mode_": "callable", "command": SHELL},
            "x": {"_target_": "apply_transform", "transform": "@f", "data": "os.system"},
        },
        "x",
    ),
    "image reader in an expression": (
        {"x": "$monai.transforms.LoadImage('os.system', command='touch TRACE')"},
        "x",
    ),
    "callable attribute": ({"x": "$torch.serialization.os.system('touch TRACE')"}, "x"),
    "subclasses": (
        {
            "x": "$[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'Popen' and "
            "c.__module__ == 'subprocess'][0](['touch', 'TRACE']).wait()"
        },
        "x",
    ),
    "f-string": ({"x": f'$f"{{{TOUCH}}}"'}, "x"),
    "lambda": ({"x": f"$(lambda: {TOUCH})()"}, "x"),
    "walrus": ({"x": f"$(y := {TOUCH})"}, "x"),
    "comprehension": ({"x": f"$[{TOUCH} for _ in [0]]"}, "x"),
    "hidden module": (
        {"i": ["$import os"], "x": "$[torch.system('touch TRACE') for torch in [@i#0]]"},
        "x",
    ),
    "getattr": ({"i": ["$import os"], "x": "$getattr(os, 'system')('touch TRACE')"}, "x"),
    "wide letters": ({"x": f"$ｅｖａｌ({TOUCH!r})"}, "x"),
    "key in a slice by %": ({TOUCH + " or 1": {"x": "$'abc'[5 %#]"}}, f"{TOUCH} or 1#x"),
    "key in a slice by @": (
        {"a": 1, "a and open('TRACE', 'w')": {"x": "$'abc'[@#:]"}},
        "a and open('TRACE', 'w')#x",
    ),
    "quotes and references": ({"b": 0, "x": f"$'@b' + str({TOUCH}) #'"}, None),
    "partial": (
        {
            "f": {"_target_": "os.system", "_mode_": "callable", "command": SHELL},
            "x": {"_target_": "@f"},
        },
        "x",
    ),
    "Lambda": (
        {
            "f": {"_target_": "os.system", "_mode_": "callable"},
            "x": {
                "_target_": "apply_transform",
                "transform": {"_target_": "Lambda", "func": "@f", "track_meta": False},
                "data": SHELL,
            },
        },
        "x",
    ),
    "run module of torch": (
        {
            "i": ["$import torch.utils.collect_env"],
            "x": "$torch.utils.collect_env.run('touch TRACE')",
        },
        "x",
    ),
}
# Name: keys of an inference config. Known as dangerous; that they run is not shown here.
STATIC = {
    "eval": {"x": {"_target_": "eval"}},
    "builtins.eval": {"x": {"_target_": "builtins.eval"}},
    "pickle": {"x": {"_target_": "pickle.loads", "data": "x"}},
    "runpy": {"x": {"_target_": "runpy.run_path", "path_name": "x.py"}},
    "torch.hub": {"x": {"_target_": "torch.hub.load", "repo_or_dir": "x", "model": "y"}},
    "torch.load": {"x": "$torch.load('x.pt', weights_only=False)"},
    "torch.jit": {"x": {"_target_": "torch.jit.load", "f": "x.ts"}},
    "numpy pickles": {"x": "$np.load('x.npy', allow_pickle=True)"},
    "numpy reader": {
        "x": {"_target_": "LoadImaged", "keys": "a", "reader": "NumpyReader", "allow_pickle": True}
    },
    "cache of pickles": {"x": {"_target_": "PersistentDataset", "weights_only": False}},
    "bundle in a bundle": {"x": {"_target_": "monai.bundle.run", "config_file": "x.yaml"}},
    "bundle by bare name": {"x": {"_target_": "ConfigWorkflow", "config_file": "x.yaml"}},
    "download": {"x": {"_target_": "download_and_extract", "url": "https://example.org"}},
    "nnU-Net runner": {"x": {"_target_": "monai.apps.nnunet.nnUNetV2Runner"}},
    "perceptual loss": {"x": {"_target_": "PerceptualLoss", "spatial_dims": 2}},
    "merger": {"x": {"_target_": "PatchInferer", "merger_cls": "os.system"}},
    "image writer": {"x": {"_target_": "SaveImaged", "keys": "a", "writer": "os.system"}},
    "log file": {"x": {"_target_": "LogfileHandler", "output_dir": "~", "filename": ".bashrc"}},
    "saver": {"x": {"_target_": "CheckpointSaver", "save_dir": "~", "final_filename": ".bashrc"}},
    "our own commands": {"x": {"_target_": "mrn_components.app.crossval.crossval"}},
    "modules of ours": {"x": {"_target_": "mrn_components.bundle.shutil.rmtree", "path": "x"}},
    "unregistered part of ours": {"x": {"_target_": "mrn_components.app"}},
    "debugger": {"x": {"_target_": "Compose", "_mode_": "debug"}},
    "debugger by key": {"x": {"_target_": "Compose", "_debug_": True}},
    "mode by expression": {"x": {"_target_": "Compose", "_mode_": "$'debug'"}},
    "overlay of a target": {"network_def#_target_": "os.system"},
    "overlay of a target, new style": {"network_def::_target_": "os.system"},
    "overlay of a reader": {"preprocessing#transforms#0#reader": "os.system"},
    "overlay that makes a callable": {"+collate": {"_target_": "LoadImaged"}},
    "overlay of a mode": {"preprocessing#transforms#0#_mode_": "callable"},
    "macro of another file": {"x": "%/tmp/other.json#x"},
    "several statements": {"i": "$import os\nos.system('x')"},
    "several imports": {"i": "$import os, subprocess"},
    "relative import": {"i": "$from . import x"},
    "import of scripts": {"i": "$import scripts"},
    "set an attribute": {"a": 1, "x": "$[0 for @a.state in [1]]"},
    "format": {"x": "$'{0.__class__}'.format(1)"},
    "keyword arguments": {"x": "$dict(**{'a': 1})"},
    "call of a reference": {"a": 1, "x": "$@a(1)"},
    "call of a result": {"x": "$list(@a)[0](1)"},
    "bare module": {"x": "$torch"},
    "all references": {"x": "$list(__local_refs)"},
    "no Python": {"x": "$1 +"},
    "nested too deeply": {"x": "$" + "(" * 500 + ")" * 500},
    "await": {"x": "$[x async for x in @a]"},
    "open": {"x": "$open('x', 'w')"},
    "target is a number": {"x": {"_target_": 3}},
    "a key of code": {"a b": 1},
}
# Name: (path in the bundle, text).
FILES = {
    "Python beside the configs": ("nibabel.py", TOUCH),
    "Python in a folder": ("google/protobuf/__init__.py", TOUCH),
    "compiled Python": ("scipy.pyc", ""),
    "extension": ("scipy.abi3.so", ""),
    "import in the metadata": ("configs/metadata.json", '{"x": "$import nibabel"}'),
    "macro in the metadata": ("configs/metadata.json", '{"x": ["%x"]}'),
    "target in the metadata": ("configs/metadata.json", '{"x": {"_target_": "os.system"}}'),
    "Python in YAML": ("configs/a.yaml", "x: !!python/object/apply:os.system ['touch TRACE']"),
    "no YAML": ("configs/a.yml", "a: [1"),
    "no JSON": ("configs/a.json", '{"a":'),
    "a folder below": ("configs/more/a.YAML", "x: {_target_: os.system}"),
    "aliases without end": ("configs/a.yaml", "a: &a [*a]"),
    "a billion laughs": (
        "configs/a.yaml",
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)),
    ),
    "log of any text": (
        "configs/logging.conf",
        "[handler_a]\nclass=FileHandler\nargs=('.bashrc',)\n[formatter_a]\nformat=touch TRACE",
    ),
    "class of the log": ("configs/logging.conf", f"[handler_a]\nclass={TOUCH}"),
    "arguments of the log": ("configs/logging.conf", f"[handler_a]\nargs=({TOUCH},)"),
    "more arguments": ("configs/logging.conf", f"[handler_a]\nkwargs={{'a': {TOUCH}}}"),
    "defaults of the log": ("configs/logging.conf", "[DEFAULT]\nclass=FileHandler\n[handler_a]\n"),
    "no logging.conf": ("configs/logging.conf", "class=StreamHandler"),
    "weights of no tensors": ("models/model.pt", "weights"),
}


# Name: what a bundle changes in its inference config: {key: value}. Each keeps to parts and names
# that some config of ours has, and would run, read, write or compute something else.
CHANGES = {
    # The first two of the bundles that passed an earlier guard.
    "comprehension that hides a call": {
        "masked_rois": '$[0 for eval in []] or max(["' + TOUCH + '"], key=eval)'
    },
    "training of nnU-Net": {
        "x": {"_target_": "mrn_components.NNUNetTraining", "subjects": [], "output_dir": "x"},
        "initialize": ["@x"],
    },
    "writer of folds": {
        "x": {"_target_": "mrn_components.split_folds", "subjects": [], "path": "TRACE"},
        "initialize": ["@x"],
    },
    "expression in a tree": {"image_size": f"${TOUCH} or 28"},
    "expression in an argument": {
        "network_def": {"_target_": "mrn_components.MRN", "r": f"${TOUCH}"}
    },
    "expression of ours at another place": {"image_size": "$len(@x)", "x": []},
    "encoder's weights by path": {
        "network_def": {
            "_target_": "mrn_components.MRN",
            "rois": "@rois",
            "res": {
                "_target_": "mrn_components.RES",
                "encoder": {"_target_": "mrn_components.SliceEncoder", "weights": "TRACE.pth"},
            },
        }
    },
    "encoder's weights by a name of another key": {
        "precision": "hub",
        "network_def": {"_target_": "mrn_components.VolumeViT", "weights": "@precision"},
    },
    "encoder's weights by their own key": {"encoder_weights": "hub"},
    "download by timm": {
        "network_def": {"_target_": "mrn_components.SliceEncoder", "pretrained": True}
    },
    "pickle by timm": {
        "network_def": {"_target_": "mrn_components.SliceEncoder", "checkpoint_path": "x.pth"}
    },
    "reader of images": {
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "LoadImaged", "keys": ["nm"], "reader": "os.system"}],
        }
    },
    "lambda of MONAI": {"preprocessing": {"_target_": "Lambdad", "keys": "nm", "func": "$print"}},
    "callable in a tree": {"network_def": {"_target_": "mrn_components.MRN", "_mode_": "callable"}},
    "debugger in a tree": {"network_def": {"_target_": "mrn_components.MRN", "_mode_": "debug"}},
    "requirement in a tree": {
        "network_def": {"_target_": "mrn_components.MRN", "_requires_": [f"${TOUCH}"]}
    },
    "reference to a workflow's part": {
        "network_def": {"_target_": "mrn_components.MRN", "rois": "@evaluator"}
    },
    "relative reference": {"network_def": {"_target_": "mrn_components.MRN", "rois": "@##rois"}},
    "macro in a tree": {"rois": "%/etc/passwd"},
    "image beyond the subject's folder": {
        "rois": {"nm": {"_target_": "mrn_components.ROI", "image": "../../secret", "nuclei": []}}
    },
    "image by an absolute path": {
        "rois": {"nm": {"_target_": "mrn_components.ROI", "image": "/etc/x", "nuclei": []}}
    },
    "other weights": {"ckpt_path": "/tmp/other.pt"},
    "other weights, computed": {"ckpt_path": "$@bundle_root + '/../other.pt'"},
    "other output": {"postprocessing": {"_target_": "SaveImaged", "output_dir": "/tmp"}},
    "a mode of a part of ours": {
        "collate": {"_target_": "mrn_components.collate_subjects", "_mode_": "debug"}
    },
    "a part for another": {"inferer": {"_target_": "Compose", "transforms": []}},
    "an argument more": {"checkpoint": {"_target_": "CheckpointLoader", "load_path": "x.pt"}},
    "part of somebody": {"network_def": {"_target_": "my_lab.Network"}},
    "no number": {"image_size": float("nan")},
    "a number without end": {"image_size": 10**400},
    "a handler that writes": {
        "handlers": [{"_target_": "LogfileHandler", "output_dir": "~", "filename": ".bashrc"}]
    },
    "tracking": {"evaluator": {"_target_": "MLFlowHandler", "tracking_uri": "http://example.org"}},
}


def planted(content, trace: Path):
    """``content`` with the path of the trace in it."""
    return json.loads(json.dumps(content).replace("TRACE", str(trace)))


def foreign_bundle(folder: Path, **files: str) -> Path:
    """A copy of the bundle mrn, without weights, with more files."""
    for name in ("inference.yaml", "metadata.json", "logging.conf"):
        (folder / "configs").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(BUNDLE / "configs" / name, folder / "configs" / name)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def changed_bundle(folder: Path, changes, name: str = "mrn") -> Path:
    """A copy of a bundle's inference config with other keys."""
    path = BUNDLE.parent / name / "configs" / "inference.yaml"
    config = ConfigParser.load_config_file(str(path)) | changes
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    return folder


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.system, (f"touch '{self.trace}'",)


def poison(path, trace):
    torch.save({"network": Payload(trace)}, path)
    Path(f"{path}.sha256").unlink(missing_ok=True)  # as who forges a file would do
    return str(path)
