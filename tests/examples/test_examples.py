"""Every example runs and prints what it should; so do the pages of documentation that hold programs."""

from __future__ import annotations

import doctest
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from opexec import BuildError, Environment
from tests.absent import absent

CLONE = Path(__file__).parents[2]
EXAMPLES = CLONE / "examples"

#: What each example prints; ``...`` stands for anything.
PRINTS = {
    "quickstart": """\
worker ...: Python ..., numpy ..., ready
strength: float32 (118, 158), strongest 849
edges in rows 38..79, columns 58..99
refused: input 'image': expected uint8[height, width, 3], got float64[120, 160, 3]: the dtype must be uint8 (...)
after close: 320 pixels lie on edges
""",
    "conflicting_versions": """\
legacy:cosine: Python 3.9..., numpy 1...: best is 756 at 0.466113
modern:cosine: Python 3..., numpy 2...: best is 756 at 0.466113
the answers agree: True
legacy.py with numpy 2...: AttributeError: `np.alltrue` was removed in the NumPy 2.0 release. ...
modern.py with numpy 1...: AttributeError: module 'numpy.linalg' has no attribute 'vector_norm'
""",
    "share": """\
owner:    [2.0, 2.0], call 1 of worker ...
attached: [0.0, 2.0, 4.0, 6.0], call 2 of worker ...
its mistake is its own: TypeError
attached: [0.0, 2.0, 4.0, 6.0], call 3 of worker ...
its mistake is its own: TypeError
calls in all: 5
the same worker for all: True, call 4
when it has ended: nobody shares a model as 'example-share'
""",
    "drop_in": """\
function: list of 3 boxes, first [...]; {'count': 38, 'brightest': ..., 'note': 'first three only'}
worker:   list of 3 boxes, first [...]; {'count': 38, 'brightest': ..., 'note': 'first three only'}
the same: True
infer:    output_0/0, output_0/1, output_0/2, output_1/count, output_1/brightest, output_1/note
""",
    "drop_in_onnxruntime": """\
input x: tensor(float) ['n', 2]
output y: tensor(float) ['n', 2]
y = [[3.0, 5.0], [7.0, 9.0]]
write_model.py, on CPUExecutionProvider
in a worker with Python 3.7..., onnxruntime 1.4.0
what it lacks it says: 'InferenceSession' of opexec.dropin.onnxruntime has no...
""",
    "existing_venv": """\
env=venv: [0, 1, 2, 3]; runs in the venv: True
env=python: [0, 1, 2, 3]; runs in the venv: True
the venv has ... files, unchanged: True
""",
    "old_and_new_sklearn": """\
Python 3.8..., scikit-learn 0.23.2: [0, 2, 1], sure by ... or more
Python 3.13..., scikit-learn 1...: [0, 2, 1], sure by ... or more
they agree: True
the old file in the new version: ...scikit-learn 1... cannot load ...old.joblib (written by scikit-learn 0.23.2): ...
""",
    "torch_tensors": """\
caller torch 2.13.0, model torch 1.4.0
Tensor torch.float32 [[1.0, 3.0, 5.0], [7.0, 9.0, 11.0]], norm 7.416
last answer [5.0, 5.0, 5.0]; input bytes copied: 0
""",
    "capture_loop": """\
frame 0: object at row 184, column 280
frame 20: object at row 264, column 440
frame 40: object at row 344, column 600
60 frames of 6,912,000 bytes: 0 input bytes copied
the upper half: 0 input bytes copied
a numpy array: 6,912,000 input bytes copied
""",
    "async_calls": """\
left:  [0, 8, 16, 24, 32, 40]
right: [0, 8, 16, 24, 32, 40]
the loop went on meanwhile: True
timeout: worker 'left' did not answer within the call's timeout; ...
cancelled: True
the next answers: [40, 48]
""",
    "threads": """\
8 threads:  40 of 40 right
40 Futures: 40 of 40 right
the caller worked on while the model did: True; int64 came back
""",
    "benchmarking": """\
in process, batch 1: p50 ... us, p99 ... us
isolated, batch 1: p50 ... us, p99 ... us, ... times the base (... to ...)
in process, batch 256: p50 ... us, p99 ... us
isolated, batch 256: p50 ... us, p99 ... us, ... times the base (... to ...)
steps of an isolated call: copy_in, wake_up, bind, model, copy_out, reply, arrays
""",
    "in_process_or_isolated": """\
batch    1: in process ... us, isolated ... times that; answers equal: True
batch   64: in process ... us, isolated ... times that; answers equal: True
batch 4096: in process ... us, isolated ... times that; answers equal: True
""",
    "when_it_fails": """\
wrong inputs: inputs 'x', 'y' do not fit the spec:
  input 'x': expected float32[n], got float64[3]: the dtype must be float32 (...)
  input 'y' is unknown; the model's inputs are 'x'
the model raised: ValueError: values above 100 make no sense
too large: model 'fragile': 30.52 MiB of shared memory are needed, and shm_limit=16 MiB, ... in use, leaves ...
the next call: 1.5
the worker died of SIGABRT (stage 'call'), having said 'about to crash'
too slow: worker 'fragile' did not answer within the call's timeout; ...
cannot load (stage 'load'): ...model.py:robust could not be loaded by the python platform ...: AttributeError: ... it defines fragile
""",
}


#: Examples that build environments of size, and the Python versions that these need.
BUILDS = {
    "conflicting_versions": ("3.9",),
    "drop_in_onnxruntime": ("3.7",),
    "existing_venv": (),
    "old_and_new_sklearn": ("3.8", "3.13"),
    "torch_tensors": ("3.8",),
}


def need_python(*versions: str) -> None:
    """Skip the test where one of these is not there and none can be downloaded; CI must have them."""
    try:
        for version in versions:
            _built(version)
    except BuildError as error:
        absent(f"Python {version} with numpy: {error}")


@functools.cache
def _built(version: str) -> None:
    Environment(python=version, requirements=["numpy<1.24"] if version == "3.9" else ["numpy"]).resolve()


def test_every_folder_of_examples_is_run_here_and_listed_in_their_readme() -> None:
    folders = {path.parent.name for path in EXAMPLES.glob("*/main.py")}
    assert folders == PRINTS.keys()
    assert folders == set(re.findall(r"\]\((\w+)/main\.py\)", (EXAMPLES / "README.md").read_text("utf-8")))


@pytest.mark.parametrize("name", sorted(PRINTS.keys() - BUILDS.keys()))
def test_an_example_prints_what_it_should(name: str, tmp_path: Path) -> None:
    assert_prints(EXAMPLES / name / "main.py", PRINTS[name], tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", BUILDS)
def test_an_example_with_environments_prints_what_it_should(name: str, tmp_path: Path) -> None:
    need_python(*BUILDS[name])
    assert_prints(EXAMPLES / name / "main.py", PRINTS[name], tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_the_programs_on_a_page_print_what_the_page_says(page: str, tmp_path: Path) -> None:
    need_python("3.9")
    program, prints = [], []
    for language, block in re.findall(
        r"^```(python|text)\n(.*?)^```$", (CLONE / page).read_text("utf-8"), re.M | re.S
    ):
        named = re.match(r"# (\w+\.py)\n", block)
        if language == "text":
            prints.append(block)
        elif named:
            (tmp_path / named[1]).write_text(block, "utf-8")
        else:
            program.append(block)
    assert program and prints
    (tmp_path / "program.py").write_text("\n".join(program), "utf-8")
    assert_prints(tmp_path / "program.py", "".join(prints), tmp_path)


def assert_prints(program: Path, expected: str, folder: Path) -> None:
    """Run a program with `folder` as its working directory; fail unless it ends well and prints `expected`."""
    finished = subprocess.run(
        [sys.executable, "-X", "utf8", program],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
    )
    assert finished.returncode == 0, finished.stderr
    checker, options = doctest.OutputChecker(), doctest.ELLIPSIS
    if not checker.check_output(expected, finished.stdout, options):
        example = doctest.Example("", expected)
        pytest.fail(checker.output_difference(example, finished.stdout, options | doctest.REPORT_NDIFF))


@pytest.mark.parametrize(
    "page",
    ["README.md", "examples/README.md", *(f"docs/{path.name}" for path in (CLONE / "docs").glob("*.md"))],
)
def test_what_a_page_links_to_is_there(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#([\w-]+))?\)", (CLONE / page).read_text("utf-8"))
    for target, anchor in links:
        linked = (CLONE / page).parent / target
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text("utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}, (
                anchor
            )
