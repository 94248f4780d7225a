#!/usr/bin/env bash
# Prints the path of a Python that OneFlow has wheels for: CPython 3.10, 3.9, 3.8 or 3.7 (in this order) on x86-64 Linux.
#
# Searches the PATH, then the versions of pyenv and uv. Each candidate must run and pass a check. The search skips pyenv
# shims without an installed version, 32-bit builds and builds without venv. PYTHON=/path/to/python replaces the search.
# If no Python is suitable, prints one message that says what to install, and exits with code 2.
set -euo pipefail

versions=(3.10 3.9 3.8 3.7)
rejected=""
declare -A tried=()

# Imports the modules of the standard library that pip and the project need. pyenv omits modules whose headers are missing.
probe='
import sys
wanted = sys.argv[1]
found = "%d.%d" % sys.version_info[:2]
if found != wanted and (wanted != "any" or found not in ("3.10", "3.9", "3.8", "3.7")):
    sys.exit("is Python " + found)
import os, platform
if platform.python_implementation() != "CPython":
    sys.exit("is " + platform.python_implementation() + ", not CPython")
if sys.platform != "linux" or platform.machine() != "x86_64" or sys.maxsize < 2 ** 32:
    sys.exit("is not a 64-bit x86-64 Linux build")
try:
    os.confstr("CS_GNU_LIBC_VERSION")
except (ValueError, OSError):
    sys.exit("is not built for glibc")
missing = []
for name in ("venv", "ensurepip", "ssl", "zlib", "ctypes"):
    try:
        __import__(name)
    except ImportError:
        missing.append(name)
if missing:
    sys.exit("lacks the module " + ", ".join(missing))
'

# suitable CANDIDATE VERSION: whether the candidate runs and has the version; records the reason if not, for the final message.
suitable() {
  local reason runner=()
  # a folder may be on the PATH twice
  [[ -f "$1" && -x "$1" && -z "${tried[$1]:-}" ]] || return 1
  tried[$1]=yes
  if command -v timeout >/dev/null; then runner=(timeout 20); fi
  if reason=$(env -u PYTHONHOME -u PYTHONPATH "${runner[@]}" "$1" -c "$probe" "$2" 2>&1 </dev/null); then
    return 0
  fi
  reason=${reason%%$'\n'*}
  rejected+="  skipped: $1 (${reason:-does not run})"$'\n'
  return 1
}

# candidates VERSION: one path per line, newest patch release first within a folder of versions.
candidates() {
  local folder folders
  IFS=: read -r -a folders <<<"${PATH:-}"
  for folder in "${folders[@]}"; do
    [[ -z "$folder" ]] || echo "$folder/python$1"
  done
  local home=${HOME:-/nonexistent}
  local pyenv=${PYENV_ROOT:-$home/.pyenv}
  local uv=${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-$home/.local/share}/uv/python}
  {
    compgen -G "$pyenv/versions/$1.*/bin/python$1" || true
    compgen -G "$uv/cpython-$1.*/bin/python$1" || true
  } | sort -rV
}

if [[ -n "${PYTHON:-}" ]]; then
  path=$(command -v "$PYTHON" || true)
  if [[ -n "$path" ]] && suitable "$path" any; then
    echo "$path"
    exit 0
  fi
  echo "error: PYTHON=$PYTHON cannot run OneFlow, which needs CPython 3.7 to 3.10 with venv on x86-64 Linux." >&2
  printf '%s' "$rejected" >&2
  exit 2
fi

for version in "${versions[@]}"; do
  while IFS= read -r candidate; do
    if suitable "$candidate" "$version"; then
      echo "$candidate"
      exit 0
    fi
  done < <(candidates "$version")
done

if [[ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]]; then
  echo "error: OneFlow has wheels for x86-64 Linux only, and this is $(uname -s) on $(uname -m)." >&2
  exit 2
fi
cat >&2 <<'MESSAGE'
error: found no Python that OneFlow has wheels for (CPython 3.10, 3.9, 3.8 or 3.7). Install one, then run this again:
  uv:             uv python install 3.10
  pyenv:          pyenv install 3.10
  Ubuntu:         sudo add-apt-repository ppa:deadsnakes/ppa && sudo apt install python3.10 python3.10-venv
  conda:          conda create -n py310 python=3.10 && conda activate py310
  somewhere else: make test PYTHON=/path/to/python3.10
MESSAGE
printf '%s' "$rejected" >&2
exit 2
