"""joblib: `Parallel` kept open, with the loky backend. It takes two workers at least, since with one it calls in process.

What joblib would do with large arrays on its own, to write them into a file in /dev/shm once and map it, is switched off: it knows an
array by its identity, so an input that was changed in place and sent again would not arrive.
"""

from __future__ import annotations

import gc

import joblib
from joblib.externals.loky import get_reusable_executor

from benchmarks.contender import Call, Contender
from benchmarks.workloads import Array, Inputs, Model, Workload

_models: dict[Workload, Model] = {}


class JoblibParallel(Contender):
    def setup(self, workload: Workload) -> Call:
        self._parallel = parallel = joblib.Parallel(n_jobs=2, max_nbytes=None).__enter__()
        job = joblib.delayed(_run)

        def call(inputs: Inputs) -> Array:
            answer: Array = parallel([job(workload, inputs)])[0]
            return answer

        return call

    def facts(self) -> dict[str, str]:
        return {"joblib": joblib.__version__}

    def close(self) -> None:
        self._parallel.__exit__(None, None, None)
        get_reusable_executor().shutdown(wait=True, kill_workers=True)


def _run(workload: Workload, inputs: Inputs) -> Array:
    if workload not in _models:
        gc.disable()
        _models[workload] = workload.load()
    return _models[workload](**inputs)["y"]
