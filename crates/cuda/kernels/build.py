"""Compiles CUDA C++ files to PTX files beside them, with the NVRTC of this Python's environment. See build.sh."""

import ctypes
import hashlib
import importlib.util
import pathlib
import sys

OPTIONS = [b"--gpu-architecture=compute_50", b"--std=c++17"]


def open_nvrtc() -> ctypes.CDLL:
    [folder] = importlib.util.find_spec("nvidia.cuda_nvrtc").submodule_search_locations
    nvrtc = ctypes.CDLL(str(pathlib.Path(folder) / "lib" / "libnvrtc.so.12"))
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
    return nvrtc


def text(program: ctypes.c_void_p, length_of, bytes_of) -> str:
    length = ctypes.c_size_t()
    length_of(program, ctypes.byref(length))
    buffer = ctypes.create_string_buffer(length.value)
    bytes_of(program, buffer)
    return buffer.value.decode()


def compile_to_ptx(nvrtc: ctypes.CDLL, source: pathlib.Path) -> str:
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), source.name.encode(), 0, None, None)
    options = (ctypes.c_char_p * len(OPTIONS))(*OPTIONS)
    status = nvrtc.nvrtcCompileProgram(program, len(OPTIONS), options)
    if status:
        log = text(program, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog)
        raise SystemExit(f"{source}: {nvrtc.nvrtcGetErrorString(status).decode()}\n{log}")
    return text(program, nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)


def main() -> None:
    nvrtc = open_nvrtc()
    for argument in sys.argv[1:]:
        source = pathlib.Path(argument)
        # NVRTC adds constants of its own headers, which nothing here uses.
        lines = [line for line in compile_to_ptx(nvrtc, source).splitlines() if "_INTERNAL_" not in line]
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        # A test compares the digest with the source's: see crates/cuda/src/kernels.rs.
        lines.insert(0, f"// {source.name}, SHA-256 {digest}, compiled by build.sh. Do not edit.")
        source.with_suffix(".ptx").write_text("\n".join(lines).rstrip("\n") + "\n")


main()
