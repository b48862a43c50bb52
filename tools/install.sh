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
  # Today's pip at once, where another can fetch it: those that come with Python take a minute more to choose among releases.
  if "$python" -m venv --without-pip .venv 2>/dev/null &&
    "$python" -m pip --python .venv/bin/python install --quiet --disable-pip-version-check --no-compile pip 2>/dev/null; then
    made=yes
  else
    rm -rf .venv
  fi
  if [ -n "${made:-}" ]; then
    :
  elif "$python" -c 'import venv, ensurepip' 2>/dev/null; then
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

.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
# Compiled once, here, on all cores: whoever runs it may not be allowed to, and every process of the platform would compile it anew.
.venv/bin/python -m compileall -q -j 0 core faaslite gateway autoscaler cli runtime-images
# But for what is never imported as Python; and a package may have files that are for another Python.
.venv/bin/python -m compileall -qq -j 0 -x 'site-packages/(pip|mypy|mypyc|kubernetes/aio)/' .venv/lib || true
