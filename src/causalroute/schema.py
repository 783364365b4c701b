"""The JSON schema of `params.yaml`: made from the dataclasses, used to check a run before it starts, and printed as docs/params.md.

`python -m causalroute.schema` (or `make schema`) writes both files; a test fails where they are stale. Making it imports every method;
checking against it does not, so that the workflow starts fast.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from causalroute.config import Config, parse, suggest
from causalroute.errors import UserError
from causalroute.io import canonical_json, read_json, write_json, write_text
from causalroute.provenance import SOURCE, constants
from causalroute.variants import VARIANT

SCHEMA = Path("workflow/schemas/params.schema.json")
PAGE = Path("docs/params.md")


def methods(source: Path = SOURCE) -> list[str]:
    """Names of the methods: modules of `causalroute/methods` that say which `EDITOR` they train on."""
    names = sorted(path.stem for path in (source / "causalroute" / "methods").glob("*.py") if not path.stem.startswith("_"))
    return [name for name in names if "EDITOR" in constants(f"causalroute.methods.{name}", source)]


def build() -> dict[str, Any]:
    """The schema of the whole of `params.yaml`, settings of each method included; unknown keys are refused at every level."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(Config).json_schema()
    settings: dict[str, Any] = {}
    for name in methods():
        module: Any = import_module(f"causalroute.methods.{name}")
        node = TypeAdapter(module.Settings).json_schema()
        schema["$defs"].update(node.pop("$defs", {}))
        settings[name] = node
    variants = {f"^{name}@{VARIANT}$": {"$ref": f"#/properties/methods/properties/{name}"} for name in settings}
    schema["properties"]["methods"] |= {"additionalProperties": False, "properties": settings, "patternProperties": variants}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def read(path: Path) -> Any:
    """What a settings file holds, unchecked.

    Raises:
        UserError: it is no YAML.
    """
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}", where=str(path), fix="correct that line") from None


def check(values: Any, *, root: Path = Path(), where: str = "params.yaml") -> Config:
    """Checks loaded YAML and returns it as `Config`.

    Args:
        values: what the YAML file holds.
        root: the checkout, which holds the schema.
        where: the file, for messages.

    Raises:
        UserError: every wrong key at once, each with its path and the way to mend it.
    """
    from jsonschema import Draft202012Validator

    schema = read_json(root / SCHEMA)
    errors = sorted(Draft202012Validator(schema).iter_errors(values), key=lambda e: [str(p) for p in e.absolute_path])
    lines = list(dict.fromkeys(line for error in errors for line in explain(error)))
    if lines:
        raise UserError("\n".join(lines), where=where, fix="correct the keys named above; docs/params.md lists all of them")
    return parse(Config, canonical_json(values), where=where)


def explain(error: Any) -> Iterator[str]:
    """Lines that tell one validation error to a person."""
    key = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        known, patterns = error.schema.get("properties", {}), error.schema.get("patternProperties", {})
        for name in sorted(map(str, set(error.instance) - set(known))):
            if not any(re.search(pattern, name) for pattern in patterns):
                yield f"{key}.{name}: {_unknown(name, known, bool(patterns))}".lstrip(".")
    elif error.validator == "required":
        yield f"{key}: {error.message}".lstrip(": ")
    elif error.validator == "anyOf" and any(e.validator == "additionalProperties" for e in error.context):
        for cause in error.context:
            yield from explain(cause) if cause.validator == "additionalProperties" else ()
    elif isinstance(error.instance, str) and _number(error.instance) is not None:
        yield f"{key}: YAML reads {error.instance!r} as text, not as a number; write {_number(error.instance)}"
    else:
        yield f"{key or 'top level'}: {error.message}"


def _unknown(name: str, known: Iterable[str], variants: bool) -> str:
    """What is wrong with a key; among methods it may be a variant of one."""
    module, at, _ = name.partition("@")
    if not (variants and at):
        return f"unknown key; {suggest(name, known)}"
    if module not in known:
        return f"a variant of an unknown method; {suggest(module, known)}"
    return "a variant is named in lower-case letters, digits and underscores, such as `causal_moe@no_experts`"


def _number(text: str) -> str | None:
    """A text that is meant as a number, spelt so that every YAML reader sees one."""
    try:
        value = float(text)
    except ValueError:
        return None
    if not math.isfinite(value):
        return None
    return str(int(value)) if value.is_integer() else f"{value:.15f}".rstrip("0")


def page(schema: dict[str, Any]) -> str:
    """docs/params.md: one table per section, from the schema."""
    head = "# Settings\n\nEvery key of `params.yaml`. Written by `make schema` from the dataclasses in `src/causalroute`; do not edit.\n"
    parts = [head, _table("Top level", schema, schema)]
    parts += [_table(f"`{name}`", node, schema) for name, node in schema["$defs"].items()]
    parts += [_table(f"`methods.{name}`", node, schema) for name, node in schema["properties"]["methods"]["properties"].items()]
    return "\n".join(parts)


def _table(title: str, node: dict[str, Any], schema: dict[str, Any]) -> str:
    text = f"\n## {title}\n\n{node.get('description', '')}\n".replace("\n\n\n", "\n\n")
    rows = [
        f"| `{key}` | {_type(value)} | {_default(key, value, node)} | {_cell(value.get('description', ''))} |"
        for key, value in node.get("properties", {}).items()
    ]
    return text + ("\n| key | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n" if rows else "\nNo settings.\n")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _default(key: str, value: dict[str, Any], node: dict[str, Any]) -> str:
    if key in node.get("required", []):
        return "required"
    return f"`{json.dumps(value['default'])}`" if "default" in value else "see its section"


def _type(value: dict[str, Any]) -> str:
    """A short name of a value's type."""
    if "$ref" in value:
        return f"`{value['$ref'].rpartition('/')[2]}`"
    if "enum" in value or "const" in value:
        return " or ".join(f"`{option}`" for option in value.get("enum", [value.get("const")]))
    if "anyOf" in value:
        return " or ".join(_type(option) for option in value["anyOf"])
    if value.get("type") == "array":
        return f"list of {_type(value.get('items', {}))}"
    if value.get("type") == "object" and isinstance(value.get("additionalProperties"), dict):
        return f"name -> {_type(value['additionalProperties'])}"
    return str(value.get("type", "any"))


def main() -> int:
    """Writes the schema and its page."""
    schema = build()
    write_json(SCHEMA, schema)
    write_text(PAGE, page(schema))
    return 0


if __name__ == "__main__":
    main()
