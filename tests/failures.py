"""An error of each class that opexec raises."""

from opexec import errors

ONE_OF_EACH = [
    errors.SpecError("a"),
    errors.BuildError("b"),
    errors.PackageError("c", package="p.zip", file="config.json", field="name"),
    errors.LoadError("d", stage="load", failures={"m": ValueError("why")}),
    errors.FrameworkNotFound("e", package="p.zip", field="platform"),
    errors.WorkerDied("f", pid=7, exit_code=None, signal="SIGKILL", stderr=("last",), stage="call"),
    errors.ModelError("KeyError", "g", "where"),
    errors.CallTimeout("h"),
    errors.Overloaded("i"),
    errors.OutOfSharedMemory("j"),
    errors.ModelClosed("k"),
    errors.ProtocolError("l"),
]
