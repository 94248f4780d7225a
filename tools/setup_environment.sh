#!/usr/bin/env bash
# tools/setup_environment.sh VENV REQUIREMENTS...    creates the environment VENV with these requirements, unless it exists.
#
# VENV/.ready contains the digest of the requirement files (and of the file that they include) and the version of Python.
# It is written last, so that an interrupted installation does not count as complete. If the digest or the version changes,
# the environment is created again. VENV/.made_by_setup_environment is written first: the script replaces only a folder that has it, so
# that a mistyped VENV never deletes a folder of the user.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ $# -lt 2 ]]; then
  echo "usage: tools/setup_environment.sh VENV REQUIREMENTS..." >&2
  exit 2
fi
venv=$1
while [[ "$venv" == ?*/ ]]; do venv=${venv%/}; done
shift
for file in "$@"; do
  if [[ ! -f "$file" ]]; then
    echo "error: $file does not exist; OneFlow versions with requirements: 0.9.0, 0.8.0" >&2
    exit 2
  fi
done

# Environments of earlier versions have no marker, but the digest in .ready and the pyvenv.cfg of `python -m venv`.
marker=.made_by_setup_environment
is_own() {
  [[ -f "$venv/$marker" ]] || { [[ -f "$venv/pyvenv.cfg" ]] && grep -Eqs '^[0-9a-f]{64} [0-9.]+$' "$venv/.ready"; }
}
# A link is used where it leads to an environment that is up to date, and never replaced.
check_replaceable() {
  if [[ -L "$venv" ]]; then
    echo "error: $venv is a symbolic link to an environment that is missing or out of date; remove the link, or set up what it names" >&2
    exit 2
  fi
  if [[ ! -e "$venv" ]] || is_own || { [[ -d "$venv" ]] && [[ -z "$(ls -A "$venv")" ]]; }; then return; fi
  echo "error: $venv exists and was not made by this script, so it is not replaced; give another folder, or remove it" >&2
  exit 2
}

# The user's settings for pip and Python must not affect the environment.
unset PYTHONHOME PYTHONPATH
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

if [[ ! -d "$(dirname "$venv")" ]]; then
  echo "error: $venv: the folder $(dirname "$venv") does not exist" >&2
  exit 2
fi
is_own || check_replaceable # before anything is written

# If two `make` run at once, the second one waits and then finds a complete environment.
if command -v flock >/dev/null; then
  exec 9>"$venv.lock"
  flock 9
fi

version_of='import sys; print("%d.%d.%d" % sys.version_info[:3])'
digest=$(cat requirements-common.txt "$@" | sha256sum | cut -d' ' -f1)

if [[ -f "$venv/.ready" ]] && version=$("$venv/bin/python" -c "$version_of" 2>/dev/null); then
  wanted=$version
  if [[ -n "${PYTHON:-}" ]]; then
    python=$(tools/find_python.sh)
    wanted=$("$python" -c "$version_of")
  fi
  if [[ "$(cat "$venv/.ready")" == "$digest $wanted" ]]; then exit 0; fi
fi

python=$(tools/find_python.sh)
version=$("$python" -c "$version_of")
check_replaceable
echo "Setting up $venv with Python $version ($python); the first time takes a few minutes." >&2
rm -rf "$venv"
mkdir "$venv"
echo "tools/setup_environment.sh may replace this folder" >"$venv/$marker"
"$python" -m venv "$venv"

requirements=()
for file in "$@"; do requirements+=(-r "$file"); done
# Shows progress on a terminal but not in a log. pip prints errors in both cases.
quiet=()
if [[ ! -t 1 ]]; then quiet=(-q); fi
if ! "$venv/bin/python" -m pip install ${quiet[@]+"${quiet[@]}"} "${requirements[@]}"; then
  echo "error: pip could not install $* into $venv (see the reason above). Fix it, then run the command again." >&2
  exit 1
fi
echo "$digest $version" >"$venv/.ready"
