"""The script that the tests of interrupts run: a flow that ends by a signal, or not at all.

Arguments: a folder (with the pickled runner in `runner`), `sync` or `async`, and where the runner's class is defined:
the name of the module, and its file.
"""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import anyio

from riverrun import _conformance_jobs as _jobs
from riverrun import flow


def main() -> None:
    """Run the flow."""
    # Where the tests run in the background of a shell script, Ctrl-C is ignored by all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder, kind, module, file = Path(sys.argv[1]), *sys.argv[2:]
    make_importable(module, file)
    task_runner = pickle.loads((folder / "runner").read_bytes())  # noqa: S301 - from the test that runs this

    def release(*_: object) -> None:
        (folder / "release").touch()

    # A thread cannot be stopped; a task that is given up can be told. So a runner may wait for its threads.
    hold = _jobs.hold.with_options(on_failure=[release])
    hold_async = _jobs.hold_async.with_options(on_failure=[release])

    @flow(task_runner=task_runner)
    def endless() -> None:
        hold(folder / "started", folder / "release", 3600).result()

    @flow(task_runner=task_runner)
    async def endless_async() -> None:
        await hold_async(folder / "started", folder / "release", 3600)

    if kind == "sync":
        endless()
    else:
        anyio.run(endless_async)


def make_importable(module: str, file: str) -> None:
    """Import a module from its file if its name leads nowhere: pytest may have given it any."""
    with suppress(ImportError):
        importlib.import_module(module)
        return
    spec = importlib.util.spec_from_file_location(module, file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[module] = importlib.util.module_from_spec(spec)
    package = module.rpartition(".")[0]
    while package:
        sys.modules.setdefault(package, ModuleType(package))
        package = package.rpartition(".")[0]
    spec.loader.exec_module(sys.modules[module])
