"""An old scikit-learn for an old file, beside today's: two versions of one framework in one program.

    python examples/old_and_new_sklearn/main.py

What scikit-learn 0.23 has written only it can read. So each file gets the version that wrote it, in an environment that is built once and then kept.
"""

import subprocess
import tempfile
from pathlib import Path

import numpy as np

import opexec
from opexec import Environment
from opexec.dropin import joblib

OLD = Environment(python="3.8", requirements=["scikit-learn==0.23.2", "numpy<1.20"])
NEW = Environment(python="3.13", requirements=["scikit-learn>=1.7"])
TRAIN = Path(__file__).with_name("train.py")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, env in (("old", OLD), ("new", NEW)):
            files[name] = Path(folder, f"{name}.joblib")
            subprocess.run([env.resolve(), TRAIN, files[name]], check=True)

        flowers = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [5.9, 3.0, 4.2, 1.5]])
        with joblib.load(files["old"], env=OLD) as old, joblib.load(files["new"], env=NEW) as new:
            for forest in (old, new):
                worker = forest.opexec_model.workers[0]
                sure = forest.predict_proba(flowers).max(axis=1).min()
                print(
                    f"Python {worker.python}, scikit-learn {worker.framework_version}: {forest.predict(flowers).tolist()}, sure by {sure:.2f} or more"
                )
            print(f"they agree: {np.array_equal(old.predict(flowers), new.predict(flowers))}")

        try:
            opexec.load(files["old"], env=NEW)
        except opexec.LoadError as error:
            print(f"the old file in the new version: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main()
