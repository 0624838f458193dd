"""A program written for onnxruntime, unchanged but for two places: the import, and `env=` where the session is made.

    python examples/drop_in_onnxruntime/main.py

The session lives in Python 3.7 with onnxruntime 1.4; the program's own interpreter needs no onnxruntime at all.
"""

import subprocess
import tempfile
from pathlib import Path

import numpy as np

from opexec import Environment
from opexec.dropin import onnxruntime as ort  # was: import onnxruntime as ort

OLD = Environment(python="3.7", requirements=["onnxruntime==1.4.0"])
WRITER = Environment(requirements=["onnx>=1.16"])  # for this example's model file only


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "affine.onnx")
        subprocess.run([WRITER.resolve(), Path(__file__).with_name("write_model.py"), path], check=True)

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(str(path), options, env=OLD)  # was without env=

        for kind, nodes in (("input", session.get_inputs()), ("output", session.get_outputs())):
            for node in nodes:
                print(f"{kind} {node.name}: {node.type} {node.shape}")
        (y,) = session.run(["y"], {"x": np.array([[1, 2], [3, 4]], np.float32)})
        print(f"y = {y.tolist()}")
        print(f"{session.get_modelmeta().producer_name}, on {session.get_providers()[0]}")

        # Behind it is an opexec.Model, with all that it can do.
        worker = session.opexec_model.workers[0]
        print(f"in a worker with Python {worker.python}, {worker.framework} {worker.framework_version}")
        try:
            session.io_binding()
        except AttributeError as error:
            print(f"what it lacks it says: {str(error)[:54]}...")
        session.close()


if __name__ == "__main__":
    main()
