"""Compiles CUDA C++ files to PTX files beside them, with the NVRTC of this Python's environment. See build.sh."""

import ctypes
import importlib.util
import pathlib
import sys

OPTIONS = [b"--gpu-architecture=compute_50", b"--std=c++17"]


def open_nvrtc() -> ctypes.CDLL:
    [folder] = importlib.util.find_spec("nvidia.cuda_nvrtc").submodule_search_locations
    return ctypes.CDLL(str(pathlib.Path(folder) / "lib" / "libnvrtc.so.12"))


def compile_to_ptx(nvrtc: ctypes.CDLL, source: pathlib.Path) -> bytes:
    def check(status: int) -> None:
        if status:
            raise SystemExit(f"{source}: {name_of(status).decode()}\n{text('Log').decode()}")

    def name_of(status: int) -> bytes:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        return nvrtc.nvrtcGetErrorString(status)

    def text(what: str) -> bytes:
        """The program's log or PTX. NVRTC has a function for its length, and one for its bytes."""
        function = f"nvrtcGet{'Program' if what == 'Log' else ''}{what}"
        length = ctypes.c_size_t()
        getattr(nvrtc, f"{function}Size")(program, ctypes.byref(length))
        buffer = ctypes.create_string_buffer(length.value)
        getattr(nvrtc, function)(program, buffer)
        return buffer.value

    program = ctypes.c_void_p()
    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), source.name.encode(), 0, None, None))
    options = (ctypes.c_char_p * len(OPTIONS))(*OPTIONS)
    check(nvrtc.nvrtcCompileProgram(program, len(OPTIONS), options))
    return text("PTX")


def main() -> None:
    nvrtc = open_nvrtc()
    for argument in sys.argv[1:]:
        source = pathlib.Path(argument)
        ptx = compile_to_ptx(nvrtc, source).decode()
        # NVRTC adds constants of its own headers, which nothing here uses.
        lines = [line for line in ptx.splitlines() if "_INTERNAL_" not in line]
        lines.insert(0, f"// {source.name}, compiled by build.sh. Do not edit.")
        source.with_suffix(".ptx").write_text("\n".join(lines).rstrip("\n") + "\n")


main()
