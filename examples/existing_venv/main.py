"""A venv that is there already: opexec runs the model in it and writes nothing into it.

    python examples/existing_venv/main.py

`env=` takes the folder of a venv or of a conda environment, or the path of an interpreter. It needs Python >= 3.7 and numpy.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import opexec

MODEL = Path(__file__).with_name("model.py")


def make_venv(folder: Path) -> None:
    """Yours would be there; this one is made the way you may have made it."""
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--no-project", "--python", sys.executable, folder], check=True)
    # Compiled, as pip leaves packages.
    install = [*uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", folder / "bin" / "python"]
    subprocess.run([*install, "numpy"], check=True)


def files(folder: Path) -> dict[str, int]:
    """Every file and when it was last changed."""
    return {str(path): path.lstat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        venv = Path(folder).resolve() / "venv"
        make_venv(venv)
        before = files(venv)
        for env in (venv, venv / "bin" / "python"):
            with opexec.load(f"{MODEL}:histogram", env=env) as model:
                counts = model(np.array([1, 2, 2, 3, 3, 3], np.uint8))
                runs_in_it = Path(model.workers[0].interpreter).is_relative_to(venv)
                print(f"env={env.name}: {counts.tolist()}; runs in the venv: {runs_in_it}")
        print(f"the venv has {len(before)} files, unchanged: {files(venv) == before}")


if __name__ == "__main__":
    main()
