"""modeling/engine/blas.py: which BLAS a machine gets, and that OneFlow's GEMMs really run on it."""

import os
import subprocess
import sys

import numpy as np
import pytest
from tiny_model import ROOT

from modeling.engine import blas, runtime

AMD, INTEL = "AuthenticAMD", "GenuineIntel"


@pytest.mark.parametrize(
    ("processor", "threads", "wanted"),
    [
        ((AMD, {"fma", "avx2", "avx512f"}), 2, True),
        ((AMD, {"fma", "avx2", "avx512f"}), 4, True),
        ((AMD, {"fma", "avx2", "avx512f"}), 5, False),
        ((AMD, {"fma", "avx2"}), 2, False),
        ((INTEL, {"fma", "avx2", "avx512f"}), 2, False),
        (("", set()), 2, False),
    ],
)
def test_choice(processor, threads, wanted):
    assert blas.wants_openblas(processor, threads) == wanted


def test_this_processor():
    vendor, flags = blas._processor()
    assert vendor
    assert {"fpu", "sse2"} <= flags


def test_a_library_that_cannot_multiply_is_refused():
    class Wrong:
        def cblas_sgemm(self, *arguments):
            pass

    assert not blas.multiplies(Wrong())
    assert not blas.multiplies(object())


def test_a_missing_library_is_none(tmp_path):
    assert blas.load(str(tmp_path / "libnone.so")) is None


_PROCESS = """
import sys
import numpy as np
from modeling.engine import blas
blas.wants_openblas = lambda *_: {wanted}
from modeling.engine import blas, runtime
from modeling.engine.runtime import flow
calls = [line.split()[-1] for line in open("/proc/self/maps") if "openblasp" in line or "libmkl_rt" in line]
draw = np.random.RandomState(0)
a, b = draw.randn(301, 97).astype(np.float32), draw.randn(97, 203).astype(np.float32)
found = flow.matmul(flow.tensor(a), flow.tensor(b)).numpy()
print(blas.loaded.name, np.abs(found - a.astype(np.float64) @ b).max() < 1e-4, sorted({{c.rsplit("/", 1)[1][:9] for c in calls}}))
"""


@pytest.mark.parametrize("name", ["MKL", "OpenBLAS"])
def test_either_library_multiplies_for_oneflow(name):
    if name == "OpenBLAS" and sys.version_info < (3, 9):
        pytest.skip("requirements-common.txt brings SciPy from Python 3.9 on")
    environment = dict(os.environ, PYTHONPATH=ROOT)
    code = _PROCESS.format(wanted=name == "OpenBLAS")
    output = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
    library = {"MKL": "libmkl_rt", "OpenBLAS": "libopenbl"}[name]
    assert output.strip() == f"{name} True ['{library}']"


def test_this_process_has_one():
    x = np.ones((3, 2), np.float32)
    assert blas.loaded is not None
    assert (runtime.flow.matmul(runtime.flow.tensor(x), runtime.flow.tensor(x.T.copy())).numpy() == 2).all()
