"""What a foreign config may compute: the allow-list of ``$`` expressions.

An expression is read as the syntax tree that Python would run, after MONAI has put its references
in. Everything in it must be listed here: kinds of nodes, names, attributes and what is called.
"""

import ast
from collections.abc import Iterator

from monai.bundle import ReferenceResolver

from mrn_components.app.inspect.targets import is_allowed, needs_literals

_NODES = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Store, ast.Attribute,
    ast.Subscript, ast.Slice, ast.List, ast.Tuple, ast.Dict, ast.Set,
    ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod,
    ast.UnaryOp, ast.Not, ast.USub, ast.UAdd, ast.BoolOp, ast.And, ast.Or,
    ast.Compare, ast.cmpop, ast.IfExp, ast.Call, ast.keyword,
    ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension,
    ast.JoinedStr, ast.FormattedValue,
)  # fmt: skip
_BUILTINS = frozenset(
    [
        "abs",
        "all",
        "any",
        "bool",
        "dict",
        "enumerate",
        "float",
        "int",
        "len",
        "list",
        "max",
        "min",
        "range",
        "reversed",
        "round",
        "set",
        "sorted",
        "str",
        "sum",
        "tuple",
        "zip",
    ]
)
_MODULES = frozenset(
    ["glob", "ignite", "math", "monai", "mrn_components", "np", "numpy", "os", "torch"]
)
_IMPORTS = frozenset(["glob", "ignite", "math", "monai", "mrn_components", "numpy", "os", "torch"])
_NAMES = frozenset(  # of modules, besides the components that a config may build
    [
        "glob.glob",
        "math.ceil",
        "math.floor",
        "math.pi",
        "math.sqrt",
        "monai.__version__",
        "np.float32",
        "np.float64",
        "np.int16",
        "np.int32",
        "np.int64",
        "np.uint8",
        "np.pi",
        "numpy.float32",
        "numpy.float64",
        "numpy.int16",
        "numpy.int32",
        "numpy.int64",
        "numpy.uint8",
        "numpy.pi",
        "os.path.abspath",
        "os.path.basename",
        "os.path.dirname",
        "os.path.exists",
        "os.path.isdir",
        "os.path.isfile",
        "os.path.join",
        "torch.bfloat16",
        "torch.bool",
        "torch.cuda.device_count",
        "torch.cuda.is_available",
        "torch.device",
        "torch.distributed.get_rank",
        "torch.distributed.get_world_size",
        "torch.distributed.is_available",
        "torch.distributed.is_initialized",
        "torch.float16",
        "torch.float32",
        "torch.float64",
        "torch.int16",
        "torch.int32",
        "torch.int64",
        "torch.nn.SyncBatchNorm.convert_sync_batchnorm",
        "torch.set_num_threads",
        "torch.Tensor.bool",
        "torch.tensor",
        "torch.uint8",
    ]
)
_ATTRIBUTES = frozenset(  # of everything else: references, results, variables
    [
        "attach",
        "batch",
        "claim",
        "device",
        "epoch",
        "eval",
        "get",
        "index",
        "items",
        "keys",
        "load_state_dict",
        "max_epochs",
        "metrics",
        "named_parameters",
        "network",
        "output",
        "parameters",
        "run",
        "shape",
        "state",
        "state_dict",
        "to",
        "train",
        "type",
        "values",
    ]
)
_REFERENCES = "__local_refs"  # MONAI writes @a::b as __local_refs['a::b']


def expression_problem(text: str) -> str | None:
    """What is wrong with an expression; None if it may run.

    Args:
        text: as in the config, with the ``$``; relative ids may be unresolved.
    """
    try:
        if (statement := _import_of(text)) is not None:
            return _import_problem(statement)
        if "%::" in ReferenceResolver.normalize_id(text):
            return "'%#' in an expression: MONAI would write names of keys there"
        tree = ast.parse(_with_references(text)[1:], mode="eval")
        return next(_problems(tree), None)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"it is no expression that can be read ({type(error).__name__})"


def _import_of(text: str) -> ast.Module | None:
    """The statements, if MONAI would take the text for an import."""
    for code in (text[1:], _with_references(text)[1:]):
        try:
            module = ast.parse(code)
        except SyntaxError:  # @a is no Python
            continue
        if any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(module)):
            return module
    return None


def _import_problem(module: ast.Module) -> str | None:
    statement = module.body[0]
    if len(module.body) == 1 and isinstance(statement, ast.Import) and len(statement.names) == 1:
        name, alias = statement.names[0].name, statement.names[0].asname
        if name in _IMPORTS and (alias in (None, name) or (name, alias) == ("numpy", "np")):
            return None
    return f"it may only import one of {', '.join(sorted(_IMPORTS))}, under its own name"


def _with_references(text: str) -> str:
    """The text that MONAI evaluates: with its own replacement of ``@id``."""
    found = ReferenceResolver.match_refs_pattern(text)
    return ReferenceResolver.update_refs_pattern(text, found)


def _problems(tree: ast.Expression) -> Iterator[str]:
    variables = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    for name in sorted(variables):
        if name in _BUILTINS | _MODULES or name.startswith("_"):
            yield f"the variable {name!r} hides another name"
    yield from _Reader(variables).read(tree.body)


class _Reader:
    """Walks the tree; a chain of attributes of a module is read as one name."""

    def __init__(self, variables: set[str]) -> None:
        self.variables = variables

    def read(self, node: ast.AST) -> Iterator[str]:
        if not isinstance(node, _NODES) or _assigns(node):
            yield f"{type(node).__name__} is not allowed in it"
        elif isinstance(node, ast.Name | ast.Attribute) and (chain := self._chain(node)):
            yield from _name_problems(chain)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            if node.id not in self.variables | _BUILTINS:
                yield f"the name {node.id!r} is not allowed in it"
        elif isinstance(node, ast.Subscript) and _is_reference(node):
            return
        else:
            yield from self._read_parts(node)

    def _read_parts(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Attribute) and node.attr not in _ATTRIBUTES:
            yield f"the attribute .{node.attr} is not allowed in it"
        if isinstance(node, ast.Call):
            yield from self._call_problems(node)
        if isinstance(node, ast.comprehension) and node.is_async:
            yield "async is not allowed in it"
        for child in ast.iter_child_nodes(node):
            yield from self.read(child)

    def _call_problems(self, node: ast.Call) -> Iterator[str]:
        function = node.func
        is_name = isinstance(function, ast.Name) and function.id in _BUILTINS - self.variables
        if not is_name and not isinstance(function, ast.Attribute):
            yield "it may only call functions and methods by their names"
        if any(keyword.arg is None for keyword in node.keywords):
            yield "** is not allowed in it"

    def _chain(self, node: ast.AST) -> str | None:
        """``torch.cuda.is_available`` if the node is such a chain on a module."""
        names = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id in _MODULES - self.variables:
            return ".".join([node.id, *reversed(names)])
        return None


def _name_problems(chain: str) -> Iterator[str]:
    if chain not in _NAMES and (needs_literals(chain) or not is_allowed(chain)):
        yield f"the name {chain} is not allowed in it"


def _assigns(node: ast.AST) -> bool:
    """Whether the node sets something else than a variable."""
    is_store = isinstance(getattr(node, "ctx", None), ast.Store)
    return is_store and not isinstance(node, ast.Name | ast.Tuple)


def _is_reference(node: ast.Subscript) -> bool:
    """Whether the node is MONAI's ``__local_refs['id']``."""
    return (
        isinstance(node.value, ast.Name)
        and node.value.id == _REFERENCES
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.ctx, ast.Load)
    )
