#!/bin/sh
# Makes .venv in the clone and installs opexec there, editable, with the extra named: `tools/setup.sh test`.
#
# Needs any Python >= 3.10 that can make virtual environments; PYTHON=... names the one to use. What is done already is done again
# only where the clone moved, another PYTHON is asked for, or pyproject.toml changed.
set -eu
cd "$(dirname "$0")/.."
extra=${1:?usage: tools/setup.sh EXTRA}

say() { printf '==> %s\n' "$*"; }
die() { printf 'opexec: %s\n' "$*" >&2; exit 1; }
quietly() { "$@" </dev/null >/dev/null 2>&1; }

# Prints the path of the first interpreter that fits. Each is run to be sure: a pyenv shim can lie on PATH and exit 127.
find_python() {
    no_venv=
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3.13 python3.12 python3.11 python3.10 python3 python "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.*/bin/python
    fi
    for candidate; do
        quietly "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || continue
        if quietly "$candidate" -c 'import ensurepip, venv; ensurepip.version()'; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
        no_venv=${no_venv:-$candidate}
    done
    [ -z "$no_venv" ] || die "$no_venv cannot make virtual environments (it lacks ensurepip): run" \
        "\`apt-get install $(venv_package "$no_venv")\` and try again"
    [ -z "${PYTHON:-}" ] || die "PYTHON=$PYTHON is no Python >= 3.10 that runs: give the path of one, or leave PYTHON out"
    die "no Python >= 3.10 found: run \`apt-get install python3 python3-venv\`, or name one with PYTHON=/path/to/python3"
}

# Debian and Ubuntu name the package after the version, unless it is that of the system's own python3.
venv_package() {
    "$1" -c 'import os, sys
own = os.path.realpath("/usr/bin/python3") == os.path.realpath(sys.executable)
print("python3-venv" if own else "python3.%d-venv" % sys.version_info[1])'
}

# What .venv was made of. A .venv that was copied together with its clone would import the other clone's opexec.
made_of=.venv/made-of
if [ -n "${PYTHON:-}" ]; then
    python=$(find_python)
else
    python=$(sed -n 2p $made_of 2>/dev/null || true)
fi
if ! [ -x .venv/bin/uv ] || ! quietly .venv/bin/python -c '' \
    || [ "$(cat $made_of 2>/dev/null)" != "$(printf '%s\n' "$PWD" "$python")" ]; then
    [ -n "${PYTHON:-}" ] || python=$(find_python)
    say "making .venv with $("$python" --version) ($python)"
    "$python" -m venv --clear .venv
    say "installing uv"
    .venv/bin/python -m pip install -qq --disable-pip-version-check uv
    printf '%s\n' "$PWD" "$python" >$made_of
fi

stamp=.venv/$extra.stamp
inputs=$(cat pyproject.toml tools/setup.sh | cksum)
[ "$(cat "$stamp" 2>/dev/null)" != "$inputs" ] || exit 0

# uv does not read pip's configuration. What a machine needs of it is handed on: a mirror, its certificate, and a folder of wheels
# for what may lie there instead of the index's (a torch for the CPU, say). Extra indexes are not: uv would trust them before the
# main one.
pip_settings=$(.venv/bin/python -m pip config list)
pip_setting() { # as a comma-separated list; a variable comes before a file, and is listed first
    printf '%s\n' "$pip_settings" | sed -n "s/^[^=]*[.]$1='\(.*\)'\$/\1/p" | head -n 1 | sed 's/\\n/ /g' | xargs | tr ' ' ,
}
hand_on() {
    value=$(printenv "$1" || pip_setting "$2")
    [ -z "$value" ] || export "$1=$value"
}
hand_on UV_FIND_LINKS find-links
hand_on UV_DEFAULT_INDEX index-url
hand_on SSL_CERT_FILE cert

say "installing opexec[$extra]"
.venv/bin/uv pip install --python .venv/bin/python --compile-bytecode --editable ".[$extra]"
printf '%s\n' "$inputs" >"$stamp"
