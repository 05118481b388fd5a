"""Whole processes: what `import riverrun` and a small flow add to the start of Python."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from figures import Figure
from timing import in_turn, python

if TYPE_CHECKING:
    from figures import Sizes

INFO = {"RIVERRUN_LOG_LEVEL": "INFO"}
HELLO = """\
from riverrun import flow, task

@task
def hello():
    return "Hello!"

@flow(task_runner="sequential")
def hello_flow():
    return hello()

assert hello_flow() == "Hello!"
"""


def starting(sizes: Sizes) -> list[Figure]:
    """`import riverrun`, and a process with a one-task flow; beside `python -c pass`."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "hello.py").write_text(HELLO, encoding="utf-8")
        compiled = compiled_in(folder / "compiled", sizes)
        times = in_turn(
            {
                "pass": lambda: python("-c", "pass", folder=folder, environment=compiled),
                "import": lambda: python("-c", "import riverrun", folder=folder, environment=compiled),
                "flow": lambda: python("hello.py", folder=folder, environment=compiled),
                "flow, INFO": lambda: python("hello.py", folder=folder, environment=compiled | INFO),
            },
            sizes.process_rounds,
        )
    ms = {contender: [time * 1e3 for time in taken] for contender, taken in times.items()}
    flow_process = "a process with a one-task flow, sequential"
    return [
        Figure("import", '`python -c "import riverrun"`', "ms", ms["import"], ms["pass"], "difference", 15.0),
        Figure("process", flow_process, "ms", ms["flow"], ms["pass"], "difference", 80.0),
        Figure("process-info", "  the same, at log level INFO", "ms", ms["flow, INFO"], ms["pass"], "difference"),
    ]


def compiled_in(folder: Path, sizes: Sizes) -> dict[str, str]:
    """Have processes find all modules compiled, as an installer leaves them: the round that warms up compiles them.

    Without this, a source tree whose compiled files may not be written would be compiled anew in each process. One
    round alone, which nothing warms up, takes the modules as it finds them.
    """
    if sizes.process_rounds == 1:
        return {}
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder)}
