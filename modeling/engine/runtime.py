"""Loads BLAS and CUDA libraries, imports OneFlow, selects the device. Other modules take OneFlow from here.

    from modeling.engine.runtime import flow, select_device

A fast BLAS (modeling/engine/blas.py) must be loaded before OneFlow. OneFlow 0.9.0 cannot be imported without cuBLAS 11 and cuDNN 8, even on
a machine without a GPU. This module loads them from their wheels. Users need no environment variables.
"""

import atexit
import contextlib
import ctypes
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading

from modeling.cli.errors import UserError, fail, is_leaving
from modeling.engine import blas, cpu_threads
from ofrecord_util.escaping import say

# Compute capabilities (major versions) that the wheel's machine code runs on. 0.8.0 also carries PTX (7.5), which a
# newer driver compiles for newer cards.
_MACHINE_CODE_MAJORS = (6, 7, 8)


# Files that a process may have open, at least. On two cores, OneFlow 0.9.0 aborts below 15, and a run of one step needs 18.
# More cores and ranks need more.
_OPEN_FILES = 64


def _preload_cuda():
    """Loads cuBLAS and cuDNN from their wheels into the global symbol table. The system's loader finds the missing ones."""
    for name in ("cublas/lib/libcublasLt.so.11", "cublas/lib/libcublas.so.11", "cudnn/lib/libcudnn.so.8"):
        paths = (os.path.join(folder, "nvidia", name) for folder in blas.site_folders())
        any(blas.load(path) for path in paths if os.path.exists(path))


def _card():
    """((major, minor) compute capability, name) of the first NVIDIA GPU, as the driver reports it; None without a driver or GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return None
    attribute_major, attribute_minor = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{MAJOR,MINOR}
    driver.cuDeviceGetAttribute(ctypes.byref(major), attribute_major, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), attribute_minor, device)
    name = ctypes.create_string_buffer(128)
    driver.cuDeviceGetName(name, len(name), device)
    return (major.value, minor.value), name.value.decode("utf-8", "replace")


@contextlib.contextmanager
def _unbroken_by_interrupt():
    """Delays SIGINT until the block ends, where Python would raise a KeyboardInterrupt: inside the import of OneFlow that becomes an
    ImportError."""
    received = []
    main = threading.current_thread() is threading.main_thread()
    delays = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if delays:
        signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        if delays:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if received:
        raise KeyboardInterrupt


def check_open_files():
    """Checks the limit of open files, and raises it as far as the system lets the process. OneFlow aborts the process at a low one.

    Raises:
        UserError: the limit is too low.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES:
        if hard != resource.RLIM_INFINITY and hard < _OPEN_FILES:
            raise UserError(
                f"the process may open only {hard} files at a time (ulimit -n), and OneFlow aborts at so few: allow {_OPEN_FILES} or more"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, hard))


@contextlib.contextmanager
def _skipping_shutdown():
    """Context manager for the import of OneFlow. What it registers with atexit is left out where `modeling.cli.errors.run` ends a process
    that is alone: it joins OneFlow's threads, and one that polled for the end of a graph has kept a finished run from ending. Processes
    that train together need it, because it lets them end at the same time.
    """
    hooks, register = [], atexit.register

    def noted(function, *args, **kwargs):
        if getattr(function, "__module__", None) == "oneflow":
            hooks.append(function)
        return register(function, *args, **kwargs)

    def leave_out():
        if is_leaving() and flow.env.get_world_size() == 1:
            for hook in hooks:
                atexit.unregister(hook)

    atexit.register = noted
    try:
        yield
    finally:
        atexit.register = register
    atexit.register(leave_out)  # the last one that is registered runs first


def _import_oneflow():
    """Imports OneFlow and hides its start-up messages (libibverbs, a missing driver) from the user's terminal."""
    check_open_files()
    if sys.flags.optimize:
        raise UserError("OneFlow does not work with python -O, which removes assertions that it needs: leave out -O, PYTHONOPTIMIZE")
    # Otherwise OneFlow reports a missing driver at every start, and creates a folder ./log in the current folder
    os.environ.setdefault("GLOG_minloglevel", "3" if _card() is None else "2")
    if "GLOG_log_dir" not in os.environ:
        os.environ["GLOG_log_dir"] = tempfile.mkdtemp(prefix="oneflow-log-")
        atexit.register(shutil.rmtree, os.environ["GLOG_log_dir"], ignore_errors=True)
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            import oneflow
        except ImportError as error:
            raise UserError(
                f"OneFlow cannot be imported ({error}): install requirements.txt in a CPython 3.7 to 3.10 "
                "environment on x86-64 Linux "
                "(`make test` sets one up)"
            ) from error
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
    if not hasattr(oneflow, "nn"):
        raise UserError(
            "the installed oneflow {} is an empty placeholder: OneFlow has wheels only for CPython 3.7 "
            "to 3.10 on x86-64 "
            "Linux (`make test` finds such a Python or says how to install one)".format(getattr(oneflow, "__version__", "?"))
        )
    return oneflow


blas.load_blas(cpu_threads.cpu_threads())
_preload_cuda()
try:
    with cpu_threads.starting_engine_threads(), _unbroken_by_interrupt(), _skipping_shutdown():
        flow = _import_oneflow()
except UserError as error:  # no script is running yet that could print it
    fail(error)
_process = os.getpid()  # the process that has OneFlow's threads


def check_process(what="OneFlow"):
    """Raises a UserError in a process that was forked after OneFlow was imported. Its threads are not there, so each call would hang.

    Args:
        what: subject of the message.
    """
    if os.getpid() != _process:
        raise UserError(
            f"{what} was loaded in process {_process} and cannot be used in its forked child {os.getpid()}: start the child with "
            'multiprocessing.get_context("spawn"), and load the model there'
        )


def oneflow_version():
    """OneFlow's version as a tuple of ints, such as (0, 9, 0)."""
    return tuple(int(part) for part in flow.__version__.split("+")[0].split(".")[:3])


def cuda_problem(card, version, has_cuda):
    """The reason why this OneFlow cannot use the GPU, in one sentence; None if it can.

    Args:
        card: ((major, minor), name) as the driver reports it, or None without a GPU.
        version: OneFlow's version, a tuple of ints.
        has_cuda: whether OneFlow reports that CUDA is available.
    """
    if card is None:
        return "no NVIDIA GPU with a driver was found"
    (major, minor), name = card
    if major > max(_MACHINE_CODE_MAJORS) and version >= (0, 9, 0):
        return (
            "{} has compute capability {}.{}, but OneFlow {} contains code for 6.0 to 8.9 only: OneFlow 0.8.0 "
            "is the only version that "
            "runs on such a GPU (requirements-0.8.0.txt)".format(name, major, minor, ".".join(map(str, version)))
        )
    if major < min(_MACHINE_CODE_MAJORS):
        return f"{name} has compute capability {major}.{minor}, but OneFlow's wheels contain code for 6.0 and later only"
    if not has_cuda:
        return "OneFlow {} reports no CUDA for {} (driver too old?)".format(".".join(map(str, version)), name)
    return None


def select_device(name, warn=say):
    """The device that a run uses, "cuda" or "cpu".

    Args:
        name: `auto`, `cuda` or `cpu`, the value of `--device`.
        warn: function that is called with one line if there is a GPU but `auto` selects the CPU.
    Raises:
        UserError: `name` is "cuda", and CUDA cannot be used; or this process was forked after OneFlow was imported.
    """
    check_process()
    if name == "cpu":
        return "cpu"
    card = _card()
    problem = cuda_problem(card, oneflow_version(), card is not None and flow.cuda.is_available())
    if problem is None:
        return "cuda"
    if name == "cuda":
        raise UserError("--device cuda: " + problem + "; --device cpu runs without a GPU")
    if card is not None:
        warn("running on the CPU: " + problem)
    return "cpu"
