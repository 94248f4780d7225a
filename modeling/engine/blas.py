"""Selects the BLAS for OneFlow's GEMMs by processor.

OneFlow's own BLAS uses one thread. A library that is in the global symbol table before OneFlow is loaded replaces its `cblas_sgemm`. This
is MKL from its wheel or, on AMD processors with AVX-512, the OpenBLAS in SciPy's wheel. On these processors MKL does not use AVX-512 and is
half as fast (docs/performance.md).
"""

import contextlib
import ctypes
import glob
import os
import sys
from typing import Callable, NamedTuple, Optional

import numpy as np

_MKL_THREADING_INTEL = 0
_MKL_THREADING_SEQUENTIAL = 1
# OpenBLAS runs one call with several threads at a time. So it is used only for as many cores as there can be lanes with one thread each
# (modeling/engine/lanes/plan.py)
_MOST_OPENBLAS_THREADS = 4
_ROW_MAJOR, _AS_IT_IS = 101, 111


class Blas(NamedTuple):
    """A loaded library."""

    name: str
    set_threads: Callable  # function of one argument, the number of threads of a GEMM
    spins: bool  # its threads wait for each other in a loop and keep their cores busy


loaded: Optional[Blas] = None  # set by `load_blas`


def load(path):
    """Loads a library into the global symbol table. Returns a `ctypes.CDLL`, or None if it cannot be loaded."""
    try:
        return ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return None


def site_folders():
    """The folders where wheels are installed."""
    return [path for path in sys.path if path.endswith("-packages")]


def load_blas(threads):
    """Loads the BLAS for this machine into `loaded`. Call it before OneFlow is loaded.

    Args:
        threads: CPU threads of the process.
    Returns:
        `Blas`, or None if no library is found. OneFlow then uses its own BLAS.
    """
    global loaded
    loaded = _load_openblas() if wants_openblas(_processor(), threads) else None
    loaded = loaded or _load_mkl(threads)
    if loaded:
        loaded.set_threads(1 if loaded.spins else threads)
    return loaded


def _processor():
    """(vendor, set of flags) of the first processor in /proc/cpuinfo; both empty if the file does not name them."""
    fields = {}
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if not line.strip() and fields:
                break
            fields[name.strip()] = value.strip()
    return fields.get("vendor_id", ""), set(fields.get("flags", "").split())


def wants_openblas(processor, threads):
    """Whether OpenBLAS is faster than MKL on a processor (vendor, flags), for a process with `threads` threads."""
    vendor, flags = processor
    return vendor == "AuthenticAMD" and "avx512f" in flags and threads <= _MOST_OPENBLAS_THREADS


def _load_openblas():
    for folder in site_folders():
        for path in sorted(glob.glob(os.path.join(folder, "scipy.libs", "libopenblas*.so"))):
            _tell_cache_size()
            for companion in ("libquadmath", "libgfortran"):  # OpenBLAS finds them by name only after they are loaded
                for needed in glob.glob(os.path.join(folder, "scipy.libs", companion + "*")):
                    load(needed)
            library = load(path)
            if library is not None and multiplies(library):
                return Blas("OpenBLAS", library.openblas_set_num_threads, spins=True)
    return None


def _tell_cache_size():
    """Passes the size of the L2 cache to OpenBLAS, which divides matrices by it. A virtual machine may hide the size from OpenBLAS."""
    with contextlib.suppress(OSError, ValueError), open("/sys/devices/system/cpu/cpu0/cache/index2/size", encoding="ascii") as file:
        os.environ.setdefault("OPENBLAS_L2_SIZE", str(int(file.read().strip().rstrip("K"))))


def multiplies(library):
    """Whether a library's `cblas_sgemm` multiplies integers like NumPy. An OpenBLAS older than the processor may fail."""
    if not hasattr(library, "cblas_sgemm"):
        return False
    draw, (rows, inner, columns) = np.random.RandomState(1), (67, 131, 259)
    left, right = (draw.randint(-9, 10, shape).astype(np.float32) for shape in ((rows, inner), (inner, columns)))
    product = np.zeros((rows, columns), np.float32)
    a, b, c = (array.ctypes.data_as(ctypes.c_void_p) for array in (left, right, product))
    one, zero = ctypes.c_float(1.0), ctypes.c_float(0.0)
    sizes = rows, columns, inner
    library.cblas_sgemm(_ROW_MAJOR, _AS_IT_IS, _AS_IT_IS, *sizes, one, a, inner, b, columns, zero, c, columns)
    return np.array_equal(product, left.astype(np.int64) @ right.astype(np.int64))


def _load_mkl(threads):
    for folder in [os.path.join(sys.prefix, "lib")] + [os.path.join(path, "..", "..") for path in site_folders()]:
        for path in sorted(glob.glob(os.path.join(folder, "libmkl_rt.so.*"))):
            os.environ.setdefault("KMP_BLOCKTIME", "1")  # ms that idle OpenMP threads poll for work; short, because lanes share the cores
            # mkl_rt finds libiomp5 and its kernels only in folders that the loader searches. So they are loaded by path first
            for companion in ("libiomp5.so", "libmkl_core.so." + path.rsplit(".", 1)[1]):
                load(os.path.join(folder, companion))
            library = load(path)
            if library is not None:
                library.MKL_Set_Threading_Layer(_MKL_THREADING_INTEL if threads > 1 else _MKL_THREADING_SEQUENTIAL)
                library.MKL_Set_Dynamic(0)  # the same number of threads under load too, since another number rounds differently
                return Blas("MKL", library.MKL_Set_Num_Threads, spins=False)
    return None
