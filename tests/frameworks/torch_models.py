"""torch's models for the conformance suite. Python >= 3.7; subject.py says what is in here."""

import os
import warnings

import torch
import torch_factories
from subject import Subject

FACTORIES = os.path.abspath(torch_factories.__file__)
VERSION = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])


def direct(x):
    with torch.no_grad():
        return torch_factories.affine().eval()(torch.from_numpy(x)).numpy()


def factory(folder):
    return Subject("torch", FACTORIES + ":affine", direct)


def state_dict(folder):
    path = os.path.join(folder, "weights.pt")
    torch.save(torch_factories.affine().state_dict(), path)
    return Subject("torch", FACTORIES + ":zeros", direct, {"state_dict": path})


def safetensors(folder):
    from safetensors.torch import save_file

    path = os.path.join(folder, "weights.safetensors")
    save_file(torch_factories.affine().state_dict(), path)
    return Subject("torch", FACTORIES + ":zeros", direct, {"state_dict": path})


def torchscript(folder):
    path = os.path.join(folder, "model.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(torch_factories.affine().eval(), torch.ones(2, 4)).save(path)
    # A traced module calls its input by the name it has in forward; torch 1.4 does not.
    return Subject("torchscript", path, direct, input=_name_in(path))


def _name_in(path):
    schema = torch.jit.load(path).forward.schema
    return schema.arguments[1].name


def export(folder):
    path = os.path.join(folder, "model.pt2")
    rows = torch.export.Dim("rows")
    program = torch.export.export(
        torch_factories.affine().eval(), (torch.ones(2, 4),), dynamic_shapes={"x": {0: rows}}
    )
    torch.export.save(program, path)
    (spec,) = [one for one in program.graph.nodes if one.name == "x"]
    symbol = str(spec.meta["val"].shape[0])
    return Subject(
        "torch",
        path,
        direct,
        inputs=[{"name": "x", "dtype": "float32", "shape": [symbol, 4]}],
        outputs=[{"name": "output", "dtype": "float32", "shape": [symbol, 3]}],
    )


def echo(folder, dtype):
    return Subject("torch", FACTORIES + ":echo", None, input="x")


def _lacks(name):
    since = {"complex64": (1, 6), "complex128": (1, 6), "bfloat16": (1, 7)}.get(name, (0, 0))
    return not hasattr(torch, name) or VERSION < since


def junk_weights(folder):
    path = _junk(folder, "weights.pt")
    return "torch", "torch", FACTORIES + ":zeros", {"state_dict": path}


def junk_program(folder):
    return "torch", "torch", _junk(folder, "model.pt2"), {}


def _junk(folder, name):
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(b"junk" * 100)
    return path


SUBJECTS = {"factory": factory, "state_dict": state_dict, "torchscript": torchscript}
if hasattr(torch, "export"):
    SUBJECTS.update(safetensors=safetensors, export=export)
DTYPES = {
    name: not _lacks(name)
    for name in (
        "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128 "
        "bfloat16 float8_e4m3fn float8_e5m2"
    ).split()
}
BAD = {"weights": junk_weights, "program": junk_program}
