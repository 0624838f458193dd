"""Custom operators in packages, compiled here against Python itself, or the framework of the package's environment."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import LoadError, packagers
from opexec.neuropod.loader import load_neuropod
from opexec.neuropod.packagers import create_python_neuropod
from tests.frameworks.environments import ENVIRONMENTS, built

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

X = np.arange(4, dtype=np.float32)
SPECS = {
    "input_spec": [{"name": "x", "dtype": "float32", "shape": ["n"]}],
    "output_spec": [{"name": "y", "dtype": "float32", "shape": ["n"]}],
    "test_input_data": {"x": X},
    "test_expected_out": {"y": 3 * X},
}

TORCH_OP = """
    #include <ATen/core/Tensor.h>
    #include <torch/library.h>
    at::Tensor triple(const at::Tensor& x) { return x.mul(3); }
    TORCH_LIBRARY(opexec_tests, m) { m.def("triple", &triple); }
    """
TORCH_MODEL = """
    import torch
    from torch.utils.cpp_extension import include_paths, library_paths
    compile(
        ["-std=c++20", *("-I" + path for path in include_paths())],
        [*("-L" + path for path in library_paths()), "-lc10", "-ltorch", "-ltorch_cpu"],
    )
    torch.ops.load_library(library)

    class Model(torch.nn.Module):
        def forward(self, x):
            return torch.ops.opexec_tests.triple(x)

    torch.jit.save(torch.jit.script(Model()), file)
    """

TENSORFLOW_OP = """
    #include "tensorflow/core/framework/op.h"
    #include "tensorflow/core/framework/op_kernel.h"
    #include "tensorflow/core/framework/shape_inference.h"
    using namespace tensorflow;
    REGISTER_OP("OpexecTriple").Input("x: float").Output("y: float")
        .SetShapeFn([](shape_inference::InferenceContext* c) { c->set_output(0, c->input(0)); return absl::OkStatus(); });
    struct Triple : OpKernel {
        explicit Triple(OpKernelConstruction* context) : OpKernel(context) {}
        void Compute(OpKernelContext* context) override {
            const Tensor& x = context->input(0);
            Tensor* y = nullptr;
            OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &y));
            auto from = x.flat<float>();
            auto to = y->flat<float>();
            for (int64_t i = 0; i < from.size(); ++i) to(i) = 3 * from(i);
        }
    };
    REGISTER_KERNEL_BUILDER(Name("OpexecTriple").Device(DEVICE_CPU), Triple);
    """
TENSORFLOW_MODEL = """
    import tensorflow as tf
    compile(tf.sysconfig.get_compile_flags(), tf.sysconfig.get_link_flags())
    op = tf.load_op_library(library)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None], name="x")
        tf.identity(op.opexec_triple(x=x), name="y")
    with open(file, "wb") as opened:
        opened.write(graph.as_graph_def().SerializeToString())
    """
COMPILE = """
    import subprocess, sys
    compiler, source, library, file = sys.argv[1:]

    def compile(flags, libraries):
        subprocess.check_call([compiler, "-shared", "-fPIC", "-O0", *flags, source, "-o", library, *libraries])
    """


EXTENSION = """
    #include <Python.h>
    static PyObject* triple(PyObject* self, PyObject* number) { return PyNumber_Multiply(number, PyLong_FromLong(3)); }
    static PyMethodDef methods[] = {{"triple", triple, METH_O, ""}, {0}};
    static PyModuleDef module = {PyModuleDef_HEAD_INIT, "triple_op", 0, -1, methods};
    PyMODINIT_FUNC PyInit_triple_op(void) { return PyModule_Create(&module); }
    """


def test_an_extension_of_python(tmp_path: Path) -> None:
    """The custom op of a Python model is a module, which its code imports; a copy of it does no harm."""
    compiler, library = shutil.which("gcc"), tmp_path / "triple_op.so"
    assert compiler is not None, "needs a C compiler (gcc)"
    (tmp_path / "op.c").write_text(textwrap.dedent(EXTENSION))
    flags = ["-shared", "-fPIC", "-I" + sysconfig.get_path("include")]
    subprocess.run([compiler, *flags, tmp_path / "op.c", "-o", library], check=True)
    code = tmp_path / "code"
    code.mkdir()
    (code / "model.py").write_text(
        "import triple_op\n\ndef make(data_path):\n    return lambda x: {'y': triple_op.triple(x)}\n"
    )
    given: dict[str, Any] = {
        "model_name": "triple",
        "code_path_spec": [{"python_root": code, "dirs_to_package": [""]}],
        "entrypoint_package": "model",
        "entrypoint": "make",
        "custom_ops": [library, shutil.copyfile(library, tmp_path / "triple_op_copy.so")],
        **SPECS,
    }
    one, two = (create_python_neuropod(neuropod_path=tmp_path / name, **given) for name in ("one", "two"))
    assert one.path.read_bytes() == two.path.read_bytes()
    with load_neuropod(one.path, visible_gpu=None) as neuropod:
        np.testing.assert_array_equal(neuropod.infer({"x": X})["y"], 3 * X)
    with pytest.raises(LoadError, match="No module named 'triple_op'"):
        load_neuropod(one.path, visible_gpu=None, load_custom_ops=False)


def made(environment: str, folder: Path, op: str, model: str) -> tuple[Path, Path]:
    """The compiled operator, and a model that uses it."""
    python = built(environment)
    compiler = shutil.which("g++")
    assert compiler is not None, "needs a C++ compiler (g++)"
    source, library, file = folder / "op.cc", folder / "triple.so", folder / "model"
    source.write_text(textwrap.dedent(op))
    script = folder / "model.py"  # torch.jit reads the source
    script.write_text(textwrap.dedent(COMPILE) + textwrap.dedent(model))
    wrote = subprocess.run([python, script, compiler, source, library, file], capture_output=True, text=True)
    assert wrote.returncode == 0, wrote.stderr[-3000:]
    return library, file


def test_a_torch_operator(tmp_path: Path) -> None:
    library, file = made("torch-2.13", tmp_path, TORCH_OP, TORCH_MODEL)
    package = packagers.create_torchscript_package(
        package_path=tmp_path / "triple.zip",
        model_name="triple",
        module_path=file,
        custom_ops=[library, shutil.copyfile(library, tmp_path / "copy.so")],
        environment=ENVIRONMENTS["torch-2.13"],
        **SPECS,
    )
    with load_neuropod(package.path, visible_gpu=None) as neuropod:
        np.testing.assert_array_equal(neuropod.infer({"x": X})["y"], 3 * X)
    with pytest.raises(LoadError, match="opexec_tests"):
        load_neuropod(package.path, visible_gpu=None, load_custom_ops=False)


def test_a_tensorflow_operator(tmp_path: Path) -> None:
    library, file = made("tensorflow-2.21", tmp_path, TENSORFLOW_OP, TENSORFLOW_MODEL)
    package = packagers.create_tensorflow_package(
        package_path=tmp_path / "triple.zip",
        model_name="triple",
        frozen_graph_path=file,
        node_name_mapping={"x": "x", "y": "y:0"},
        custom_ops=[library, shutil.copyfile(library, tmp_path / "copy.so")],
        environment=ENVIRONMENTS["tensorflow-2.21"],
        **SPECS,
    )
    with pytest.raises(LoadError, match="OpexecTriple"):
        opexec.load(package.path, options={"load_custom_ops": False})
