#!/usr/bin/env bash
# Make an environment what its lock says, with uv; uv itself is fetched by pip where it is missing.
#
#   scripts/environment.sh FOLDER LOCK       create FOLDER and install exactly what LOCK names, checked by hash
#   scripts/environment.sh FOLDER --project  install this project into FOLDER, editable
#   scripts/environment.sh --uv ARGUMENT...  run uv
#
# PYTHON names the interpreter, TOOLS the folder for a uv of our own. The mirror and certificates that the user
# configured for uv, or for pip where uv was missing, are used.
set -euo pipefail
cd "$(dirname "$0")/.."
TOOLS="${TOOLS:-.venv-tools}"
PYTHON="${PYTHON:-}"

fail() {
  echo "$*" >&2
  exit 1
}

need_python() {
  [ -n "$PYTHON" ] || fail "Boxlift needs Python 3.11, 3.12 or 3.13: install one, or name it: make setup PYTHON=/path/to/python"
  "$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
    fail "$PYTHON is not Python 3.11, 3.12 or 3.13: name one that is: make setup PYTHON=/path/to/python"
}

# What pip was told about its mirror and certificates, for a uv that nobody has configured.
follow_pip() {
  local pip="$TOOLS/bin/pip" index cert
  index="${PIP_INDEX_URL:-$("$pip" config get global.index-url 2>/dev/null || true)}"
  cert="${PIP_CERT:-$("$pip" config get global.cert 2>/dev/null || true)}"
  [ -z "$index" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
  [ -z "$cert" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$cert}"
}

find_uv() {
  if uv --version >/dev/null 2>&1; then
    UV=uv
    return
  fi
  if [ ! -x "$TOOLS/bin/uv" ]; then
    need_python
    echo "Fetching uv into $TOOLS"
    "$PYTHON" -m venv "$TOOLS" || fail "Python's venv module does not work here (Debian: apt-get install python3-venv)"
    "$TOOLS/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/tools.txt
  fi
  UV="$TOOLS/bin/uv"
  follow_pip
}

find_uv
case "${1:-}" in
  --uv)
    shift
    exec "$UV" "$@"
    ;;
  "" | -*)
    fail "usage: scripts/environment.sh FOLDER LOCK"
    ;;
esac

if [ "${2:-}" = --project ]; then
  # Its build tools are in the lock: nothing is fetched that is not.
  exec "$UV" pip install --quiet --python "$1" --no-deps --no-build-isolation --editable .
fi

if ! "$1/bin/python" -c '' 2>/dev/null; then
  need_python
  "$UV" venv --quiet --clear --python "$("$PYTHON" -c 'import sys; print(sys.executable)')" "$1"
fi
echo "Installing $2 into $1"
"$UV" pip sync --python "$1" --require-hashes "$2"
