"""A torch module as an ONNX graph: tracing, writing and running it; what is said is the same for heads and encoders.

Equal modules give equal bytes: descriptions, which hold stack traces and paths, are left out, and names come from the modules.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import causalroute
from causalroute.errors import UserError
from causalroute.io import canonical_json

if TYPE_CHECKING:
    from onnx import ModelProto

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
OPSET = 20
EXPLAINED = (
    ("Dynamo detected a call to a `functools.lru_cache`", UserWarning),  # the choice of a routing backend, a constant of the graph
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),  # torch copies a graph of its own
)
"""Warnings of torch while it writes a graph that say nothing about the graph."""
TALKATIVE = ("torch.onnx._internal.exporter._registration", "onnxscript.optimizer._constant_folding")
"""Loggers that list operators of packages that are not installed, and constants that are left to the runtime."""


def require_packages() -> None:
    """Looks for the packages of the ONNX export.

    Raises:
        UserError: one is missing.
    """
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"the ONNX export needs the package {name}", fix="pip install 'causalroute[onnx]'") from error


def open_session(path: Path) -> Any:
    """An onnxruntime session on the CPU, with one thread.

    Raises:
        UserError: packages are missing.
    """
    require_packages()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def to_onnx(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    also: Mapping[int, torch.export.Dim] | None = None,
    *,
    strict: bool = True,
) -> ModelProto:
    """Traces a module with `forward(*tensors)` for any number of rows.

    Args:
        module: in evaluation mode.
        example: tensors with more than one row.
        inputs: their names.
        outputs: names of what comes out.
        also: further axes of the inputs that take any size.
        strict: read Python's own steps, which keeps `len(x)` a size; else it becomes the number of the example.

    Raises:
        RuntimeError: torch cannot write the module as a graph.
    """
    free = {0: torch.export.Dim("batch"), **(also or {})}
    own: dict[Callable[..., Any], Callable[..., Any]] = {torch.ops.aten.sort.stable: _stable_sort, torch.ops.aten.log_sigmoid.default: _log_sigmoid}
    options: dict[str, Any] = {"dynamo": True, "opset_version": OPSET, "verbose": False, "custom_translation_table": own}
    with _quiet():
        program = torch.export.export(module.eval(), example, dynamic_shapes=((free,) * len(example),), strict=strict)
        written = torch.onnx.export(program, input_names=list(inputs), output_names=list(outputs), **options)
    assert written is not None
    proto: ModelProto = written.model_proto
    for value in proto.graph.input:
        for axis, size in free.items():
            value.type.tensor_type.shape.dim[axis].dim_param = size.__name__
    for value in proto.graph.output:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    proto.graph.ClearField("value_info")  # sizes under names of the tracer
    return proto


def _stable_sort(x: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """torch's stable sort, by which ties in the router go to the smaller expert: TopK puts the smaller index first among equals."""
    from onnxscript import opset20

    op: Any = opset20  # its types name each of the types a tensor can have
    length = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
    return op.TopK(x, length, axis=dim, largest=int(descending), sorted=1)


def _log_sigmoid(x: Any) -> Any:
    """-log(1 + exp(-x)): the exporter's log(sigmoid(x)) is far off below -10 or so, where runtimes approximate the sigmoid."""
    from onnxscript import opset20

    op: Any = opset20
    return op.Neg(op.Softplus(op.Neg(x)))


def save(proto: ModelProto, path: Path, metadata: Mapping[str, str]) -> None:
    """Checks the graph and writes it with the metadata, without the tracer's notes on lines and files; equal graphs give equal bytes."""
    import onnx
    import onnxscript

    _strip(proto)
    proto.producer_name, proto.producer_version = "causalroute", causalroute.__version__
    versions = {module.__name__: str(module.__version__) for module in (causalroute, torch, onnx, onnxscript)}
    onnx.helper.set_model_props(proto, dict(sorted({"versions": canonical_json(versions), **metadata}.items())))
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _strip(message: Any) -> None:
    """Clears descriptions everywhere: they hold stack traces with the paths of this machine."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        else:
            for part in [value] if hasattr(value, "ListFields") else value if field.message_type is not None else []:
                _strip(part)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch tells its own developers."""
    levels = {name: logging.getLogger(name).level for name in TALKATIVE}
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            for message, category in EXPLAINED:
                warnings.filterwarnings("ignore", message, category)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
