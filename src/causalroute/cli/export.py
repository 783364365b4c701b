"""`causalroute export SOURCE`: a saved model from a finished run, an ONNX file of its head, a copy on the Hugging Face hub."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

DESCRIPTION = """\
Takes a finished run (a folder with params.yaml) or a saved model, and writes a saved model, its head as ONNX, or both; or pushes it to the
Hugging Face hub."""
EXAMPLES = """\
examples:
  causalroute export . --dataset planted --method causal_moe --output model       # from a run of this checkout
  causalroute export out/model --onnx head.onnx                                   # head and scaling, for onnxruntime
  causalroute export out/model --onnx head.onnx --towers towers                    # and the encoder
  causalroute export out/model --push owner/name --private                        # asks for `hf auth login` beforehand

exit codes: 0 done; 2 unusable arguments or data"""


def add(commands: Any) -> None:
    """Adds the sub-command to argparse's sub-parsers."""
    one = commands.add_parser(
        "export",
        help="save the model of a run; ONNX; Hugging Face hub",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument("source", type=Path, help="folder of a finished run, or of a saved model")
    run_ = one.add_argument_group("from a run")
    run_.add_argument("--dataset", help="key of `datasets` (default: the only one of `run`)")
    run_.add_argument("--method", help="method or variant to save (default: causal_moe)")
    run_.add_argument("--reference", help="biased method to show beside it (default: erm)")
    to = one.add_argument_group("to")
    to.add_argument("--output", type=Path, metavar="FOLDER", help="folder of the saved model to write")
    to.add_argument("--onnx", type=Path, metavar="FILE", help="ONNX file to write")
    to.add_argument("--towers", type=Path, metavar="FOLDER", help="folder for the frozen encoder as ONNX, with its tokenizer")
    to.add_argument("--push", metavar="OWNER/NAME", help="repository on the Hugging Face hub, made where there is none")
    to.add_argument("--private", action="store_true", help="a repository that is made is private")
    one.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exports; returns the exit code.

    Raises:
        UserError: the arguments or the source are unusable.
    """
    from causalroute.errors import UserError
    from causalroute.serving import bundle

    if not (arguments.output or arguments.onnx or arguments.towers or arguments.push):
        raise UserError("nothing to export to", fix="give --output, --onnx, --towers or --push")
    from_run = (arguments.source / "params.yaml").is_file()
    if not from_run and any((arguments.dataset, arguments.method, arguments.reference)):
        raise UserError("--dataset, --method and --reference choose from a run", where=str(arguments.source), fix="name a folder with params.yaml")
    if from_run and not arguments.output:
        raise UserError("a run is saved as a model first", fix="say where with --output")
    if from_run:
        _assemble(arguments)
    elif arguments.output:
        bundle.copy(arguments.source, arguments.output)
        print(f"saved model: {arguments.output}")
    folder = arguments.output or arguments.source
    if arguments.onnx:
        _onnx(folder, arguments.onnx)
    if arguments.towers:
        _towers(folder, arguments.towers)
    if arguments.push:
        _push(folder, arguments.push, arguments.private)
    return 0


def _assemble(arguments: argparse.Namespace) -> None:
    from causalroute.errors import UserError
    from causalroute.serving.assemble import assemble, read_params

    runs = read_params(arguments.source).run
    if not arguments.dataset and len(runs) != 1:
        raise UserError("params.yaml runs several data sets", where=str(arguments.source), fix=f"choose one with --dataset: {', '.join(runs)}")
    chosen = (arguments.dataset or runs[0], arguments.method or "causal_moe")
    assemble(arguments.source, *chosen, arguments.output, arguments.reference or "erm")
    print(f"saved model: {arguments.output}")


def _onnx(folder: Path, path: Path) -> None:
    from causalroute.serving.bundle import open_bundle
    from causalroute.serving.onnx import export

    bundle = open_bundle(folder)
    method = bundle.config["method"]
    notes = {"backbone": bundle.config["backbone"]["name"]}
    export(bundle.weights(method), bundle.config["temperatures"][method], bundle.config["classes"], path, notes=notes)
    print(f"ONNX: {path}")


def _towers(folder: Path, target: Path) -> None:
    from causalroute.features.backbone import load_backbone
    from causalroute.serving import towers
    from causalroute.serving.bundle import open_bundle

    bundle = open_bundle(folder)
    name = bundle.config["backbone"]["name"]
    for path in towers.export(load_backbone(bundle.backbone, name), target, notes={"backbone": name}):
        print(f"ONNX: {path}")


def _push(folder: Path, name: str, private: bool) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    from causalroute.errors import UserError
    from causalroute.serving.bundle import open_bundle

    open_bundle(folder)
    try:
        HfApi().create_repo(name, private=private, exist_ok=True)
        HfApi().upload_folder(repo_id=name, folder_path=folder)
    except (HfHubHTTPError, OSError, ValueError) as error:
        fix = "log in with `hf auth login`; the name is owner/name; the hub must be reachable"
        raise UserError(f"the hub refused: {str(error).splitlines()[0]}", where=name, fix=fix) from error
    print(f"pushed to {name}")
