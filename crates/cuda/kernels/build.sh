#!/bin/sh
# Compiles each kernel of this folder to the PTX beside it. Needs Python and no GPU.
#
# With NVRTC of CUDA 12.0, which pip fetches: PTX carries the version of its compiler, and a driver refuses PTX that is
# newer than itself. 12.0 is the oldest driver that pinlane uses, compute_50 the oldest target that this compiler knows.
set -eu
cd "$(dirname "$0")"
venv=../../../target/nvrtc
if ! [ -e "$venv/ready" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet 'nvidia-cuda-nvrtc-cu12==12.0.*'
    touch "$venv/ready"
fi
exec "$venv/bin/python" build.py ./*.cu
