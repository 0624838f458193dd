"""torch in, torch out: where the caller has torch too, its tensors go to the model and come back as tensors, over shared memory.

    python examples/torch_tensors/main.py

The model has torch 1.4 on Python 3.8, the caller torch 2.13: they share nothing but memory. An interpreter without torch starts this program
once more, in an environment that has it.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import opexec
from opexec import Environment
from opexec.dropin import torch as old_torch

OLD = Environment(python="3.8", requirements=["torch==1.4.0"])
HERE = Path(__file__).resolve()


def main() -> None:
    import torch

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.pt")
        subprocess.run([OLD.resolve(), HERE.with_name("save.py"), path], check=True)
        with old_torch.jit.load(path, env=OLD) as module:
            x = torch.arange(6, dtype=torch.float32).reshape(2, 3)
            with torch.no_grad():
                y, norm = module.eval()(x)
            worker = module.opexec_model.workers[0]
            print(
                f"caller torch {torch.__version__.partition('+')[0]}, model torch {worker.framework_version.partition('+')[0]}"
            )
            print(f"{type(y).__name__} {y.dtype} {y.tolist()}, norm {norm.item():.3f}")

            # A tensor over an array from `empty` lies where the model reads it.
            model = module.opexec_model
            frame = torch.from_numpy(model.empty("x", (480, 640, 3), "float32"))
            before = model.stats().bytes_copied_in
            for value in range(3):
                y, _ = module(frame.fill_(value))
            print(
                f"last answer {y[0, 0].tolist()}; input bytes copied: {model.stats().bytes_copied_in - before}"
            )


def run_where_torch_is() -> None:
    """The same program in an environment with torch and all that opexec needs."""
    needs = [need for need in metadata.requires("opexec") or () if "extra ==" not in need]
    python = Environment(sys.executable, ["torch==2.13.0", *needs]).resolve()
    root = str(Path(opexec.__file__).resolve().parents[1])
    finished = subprocess.run([python, HERE], env={**os.environ, "PYTHONPATH": root})
    sys.exit(finished.returncode)


if __name__ == "__main__":
    if importlib.util.find_spec("torch") is None:
        run_where_torch_is()
    main()
