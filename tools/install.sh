#!/usr/bin/env bash
# Makes .venv and installs faaslite with its development tools into it.
# Works where Python lacks venv or ensurepip (Debian without python3-venv): then virtualenv from PyPI makes it.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-}
if [ -z "$python" ]; then
  for each in python3.13 python3.12 python3.11 python3; do
    if command -v "$each" >/dev/null && "$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      python=$each
      break
    fi
  done
fi
if [ -z "$python" ]; then
  echo "faaslite needs Python 3.11 or newer; install it (Debian 12: apt-get install python3), or set PYTHON" >&2
  exit 1
fi

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  rm -rf .venv
  if "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    "$python" -m venv .venv
  elif "$python" -m pip --version >/dev/null 2>&1; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    "$python" -m pip install --quiet --target "$scratch" virtualenv
    PYTHONPATH=$scratch "$python" -m virtualenv --quiet .venv
  elif command -v uv >/dev/null; then
    uv venv --quiet --seed --python "$python" .venv
  else
    echo "$python has neither venv nor pip; on Debian: apt-get install python3-venv" >&2
    exit 1
  fi
fi

.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
# Compiled once, here: whoever runs it may not be allowed to, and every process of the platform would compile it anew.
.venv/bin/python -m compileall -q -j 0 core faaslite gateway autoscaler cli runtime-images
