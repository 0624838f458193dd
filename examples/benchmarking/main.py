"""What does isolation cost a model, at two batch sizes, and how many calls a second does it answer?

    python examples/benchmarking/main.py

`opexec bench` does the same from the command line, with tables, pictures and a page.
"""

from pathlib import Path

from opexec import TensorSpec, bench

MODEL = Path(__file__).with_name("model.py")


def main() -> None:
    report = bench.run(
        f"{MODEL}:network",
        in_process=True,
        batches=[1, 256],
        inputs=[TensorSpec("x", "float32", ("batch", 64))],
        outputs=[TensorSpec("scores", "float32", ("batch", 10))],
        # Short, for an example; the defaults measure for longer.
        settings=bench.Settings(rounds=5, seconds=0.05, warm_up=1),
    )
    for result in report.results:
        assert result.latency is not None, result.error
        line = f"{result.label}: p50 {result.latency.p50 * 1e6:.0f} us, p99 {result.latency.p99 * 1e6:.0f} us"
        difference = report.difference(result)
        if difference is not None:
            ratio = difference.p50
            line += f", {ratio.value:.2f} times the base ({ratio.low:.2f} to {ratio.high:.2f})"
        print(line)
    steps = report.results[1].breakdown
    assert steps is not None
    print("steps of an isolated call:", ", ".join(steps.steps))


if __name__ == "__main__":
    main()
