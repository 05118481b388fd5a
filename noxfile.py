"""The contributor's menu: `nox -l` shows it, `nox` runs all that is starred, `nox -s NAME` runs one.

Three sizes: `nox -s quick` while writing (two minutes, no cluster), `nox` before a pull request (what CI runs), and
`nox -s stress` before a release (rare moments, under load, on every Python; it takes as long as it takes).

Whatever tests, tests built wheels: the session `build` makes them once in each nox run, and the others install all of
them by file path, so that neither the source tree nor an unrelated `core` from a package index can be tested by
mistake. Arguments after `--` go on to the tool: `nox -s tests-3.12 -- core/tests -k retries`.
"""

import argparse
import atexit
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

import nox
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from python_discovery import get_interpreter

PACKAGES = ["core", "runner-sequential", "runner-concurrent", "runner-dask", "runner-ray"]
LIGHT = ["core", "runner-sequential", "runner-concurrent"]  # no cluster
PYTHONS = ["3.11", "3.12", "3.13", "3.14", "3.15"]
WITHOUT_RAY = ["3.15"]  # Ray has no wheels for these

# What the sessions install, in one place. The tools are pinned: a green tree stays green until somebody moves a pin.
TEST = ["hypothesis>=6.100", "pytest>=8.2", "pytest-timeout>=2.3", "sybil>=9", "trio>=0.28"]
# What the observers of the core need that are tested: its extras, and the SDK that an application would bring.
TEST_OBSERVERS = ["opentelemetry-sdk>=1.20", "rich>=13"]
# What only the tests of runner-dask need; Dask itself works without.
TEST_DASK = ["bokeh>=3.1", "cryptography>=42", "dask[array,dataframe]", "psutil>=5.8"]
TEST_RAY = ["numpy", "psutil>=5.8"]  # what only the tests of runner-ray need
TEST_SMOKE = ["psutil>=5.8"]  # what the conftest of both imports
BUILD = ["build>=1.2", "hatchling>=1.27,<2"]
EDITABLE = ["editables>=0.5", "hatchling>=1.27,<2"]  # what an editable install of a project with hatchling needs
XDIST = ["pytest-xdist>=3.6"]
VERSIONS = ["click>=8.1,<9", "packaging>=24", "tomlkit>=0.13"]  # what scripts/versions.py needs
# What the integration tests use. Pip, also where nox installs with uv: what people do with it is tested, and uv cannot
# download.
INTEGRATION = [*EDITABLE, *VERSIONS, *XDIST, "nox>=2026.10.14", "pip>=24", "twine>=6.1", "uv>=0.5"]
# What other people's task runners are built with, run on and tested with, in the integration tests.
PLUGINS = [
    "editables>=0.5",
    "hatchling>=1.27,<2",
    "loky>=3.4",
    "mpi4py>=4.0",
    "mpich>=4.2",
    "pytest>=8.2",
    "pytest-timeout>=2.3",
]
LINT = ["ruff==0.17.6"]
COVERAGE = ["coverage>=7.10"]
LAYERS = ["import-linter==2.16"]
TYPES = ["mypy==2.4.1", "pyright[nodejs]==1.1.414"]

# On the lowest Python, with the lowest Dask and Ray, those of their tests run that a difference between versions would
# show in: a way of the conformance suite, and the options.
SMOKE = [
    "runner-dask/tests/test_conformance.py::TestTemporaryClusterOfProcesses",
    "runner-dask/tests/test_options.py",
    "runner-ray/tests/test_conformance.py::TestTemporaryInstance",
    "runner-ray/tests/test_options.py",
]

# Half the time of the core's tests goes into the conformance suite on runners that they make up. They run on the newest
# Python; on the others, and with the lowest dependencies, the tests of the two local runners run the suite.
MADE_UP_RUNNERS = [
    f"--ignore=core/tests/{name}.py"
    for name in ("test_conformance_suite", "test_docs_contract", "test_executor_task_runner")
]

ROOT = Path(__file__).parent
DIST = ROOT / "dist"
COVERED = ROOT / ".nox" / "covered"
"""Where the sessions that measure coverage leave what they measured."""
COVERAGE_FLOOR = 91
"""Of all lines and branches, in percent: today's figure, rounded down."""

# A session sees neither the source tree nor the settings of the person who runs it.
CLEAN: dict[str, str | None] = dict.fromkeys(["PYTHONPATH", *(n for n in os.environ if n.startswith("RIVERRUN_"))])

# In the background of a shell script Ctrl-C is ignored, also by all that is started from there; the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

nox.needs_version = ">=2026.10.14"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False  # a Python that is not installed is skipped, and nox says so
os.environ.setdefault("UV_HTTP_TIMEOUT", "180")  # seconds; wheels of 70 MB, over a slow line
# As pip does it. Where Python may not write byte code, each of a thousand processes would compile Dask or Ray anew.
os.environ.setdefault("UV_COMPILE_BYTECODE", "1")


def _installed() -> list[str]:
    """List the Pythons that are here; processes of nox that run one session each need not look again."""
    if (known := os.environ.get("NOX_PYTHONS_HERE")) is None:
        known = " ".join(python for python in PYTHONS if get_interpreter(python) is not None)
        os.environ["NOX_PYTHONS_HERE"] = known
    return known.split()


HERE = _installed() or PYTHONS[-1:]
LOWEST, NEWEST = HERE[0], HERE[-1]
NEWEST_WITH_RAY = next((python for python in reversed(HERE) if python not in WITHOUT_RAY), None)
# What runs on one Python takes nox's own, unless Ray cannot be installed there.
ONE_PYTHON = NEWEST_WITH_RAY if f"{sys.version_info.major}.{sys.version_info.minor}" in WITHOUT_RAY else None
CLUSTERS = [f"dask-{NEWEST}", *([f"ray-{NEWEST_WITH_RAY}"] if NEWEST_WITH_RAY else [])]

# What has to hold on each Python is tested on the lowest, with the lowest dependencies, and on the newest, with the
# newest ones; `stress` takes all of them. What takes longest begins first: sessions run beside each other.
nox.options.sessions = [
    "lint",
    "layers",
    "versions",
    *CLUSTERS,
    "integration",
    f"tests-{NEWEST}",
    *([f"tests-{LOWEST}"] if LOWEST not in {PYTHONS[0], NEWEST} else []),  # where `lowest` has no Python
    "lowest",
    "types",
    "docs",
    "demo",
    "coverage",
]


def lowest_pins() -> list[str]:
    """Every direct dependency, also those of extras, pinned to its lower bound; what has none is an error."""
    pins: set[str] = set()
    for package in PACKAGES:
        project = tomllib.loads((ROOT / package / "pyproject.toml").read_text("utf-8"))["project"]
        extras = project.get("optional-dependencies", {}).values()
        for line in [*project["dependencies"], *(line for extra in extras for line in extra)]:
            requirement = Requirement(line)
            if canonicalize_name(requirement.name) not in PACKAGES:
                (bound,) = [spec.version for spec in requirement.specifier if spec.operator == ">="]
                extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
                pins.add(f"{requirement.name}{extras}=={bound}")
    return sorted(pins)


def install(session: nox.Session, *others: str) -> None:
    """Install the built wheels, all by path, with whatever else the session needs."""
    wheels = {package: sorted(DIST.glob(f"{package.replace('-', '_')}-*.whl")) for package in PACKAGES}
    if any(len(files) != 1 for files in wheels.values()):
        session.error(f"expected one wheel for each of {PACKAGES} in dist/, found {wheels}")
    python = session.python or f"{sys.version_info.major}.{sys.version_info.minor}"
    if python in WITHOUT_RAY:
        session.log(f"Ray has no wheels for Python {python}: runner-ray is left out")
        del wheels["runner-ray"]
    paths = [str(file.relative_to(ROOT)) for files in wheels.values() for file in files]
    # First without dependencies: in a reused environment (`nox -r`) pip would keep the last build of this version.
    session.install("--force-reinstall", "--no-deps", *paths)
    session.install(*paths, *others)
    proof = (
        "import importlib.metadata, importlib.util, sys\n"
        f"for name in {list(wheels)}:\n"
        "    assert importlib.metadata.distribution(name).read_text('direct_url.json'), f'{name} is not our wheel'\n"
        "origin = importlib.util.find_spec('riverrun').origin\n"
        "assert origin.startswith(sys.prefix), f'riverrun comes from {origin}, not from the wheel'\n"
    )
    session.run("python", "-c", proof, env=CLEAN, log=False)


def _test(session: nox.Session, *arguments: str, env: dict[str, str | None] = CLEAN) -> bool:
    """Run pytest; say whether all passed.

    `python -m` has this folder on `sys.path`, which workers in other processes inherit: so they can import the tests'
    own modules, whose tasks travel by name. The source trees are not in reach that way.
    """
    found_none = [5] if session.posargs else []  # pytest's status: `-k` may find tests in other packages only
    try:
        session.run("python", "-m", *arguments, *session.posargs, env=env, success_codes=[0, *found_none])
    except nox.command.CommandFailed:
        return False  # nox has shown what it printed
    return True


def _names_tests(session: nox.Session) -> bool:
    """Say whether the session's arguments name tests: then it runs them, and none by itself."""
    return any("/test" in argument or "::" in argument for argument in session.posargs)


def _unless_given(session: nox.Session, selected: list[str]) -> list[str]:
    """Give the tests that a session runs by itself, unless its arguments name tests."""
    return [] if _names_tests(session) else selected


def _run_tests(session: nox.Session, *packages: str) -> None:
    """Run the tests of some packages one after the other, and measure what they cover if all of them are run."""
    if _names_tests(session):
        session.run("python", "-m", "pytest", *session.posargs, env=CLEAN)
        return
    failed = []
    COVERED.mkdir(parents=True, exist_ok=True)
    for package in packages:
        measured = (
            [] if session.posargs else ["coverage", "run", f"--data-file={COVERED}/{session.name}.{package}", "-m"]
        )
        made_up = MADE_UP_RUNNERS if package == "core" and session.python != NEWEST else []
        if not _test(session, *measured, "pytest", f"{package}/tests", *made_up):
            failed.append(package)
    if failed:
        session.error(f"these have tests that failed: {', '.join(failed)}")


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build each package: the sdist, and from it the wheel, into dist/."""
    session.install(*BUILD)
    shutil.rmtree(DIST, ignore_errors=True)
    for package in PACKAGES:
        session.run("python", "-m", "build", "--no-isolation", "--outdir", str(DIST), package, silent=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, rules and format; `nox -s lint -- --fix` mends what it can."""
    session.install(*LINT)
    if session.posargs == ["--fix"]:
        session.run("ruff", "check", "--fix", "--exit-zero", "--quiet", ".")
        session.run("ruff", "format", ".")
    _lint(session)


def _lint(session: nox.Session) -> None:
    if f'["{LINT[0]}"]' not in (ROOT / ".pre-commit-config.yaml").read_text("utf-8"):
        session.error(f".pre-commit-config.yaml has another ruff than the noxfile, which has {LINT[0]}")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def layers(session: nox.Session) -> None:
    """Water flows down: import-linter checks who may import whom."""
    session.install(*LAYERS)
    sources = os.pathsep.join(str(ROOT / package / "src") for package in PACKAGES)  # read, never run
    session.run("lint-imports", "--config", "pyproject.toml", "--no-cache", env={"PYTHONPATH": sources})


@nox.session
def versions(session: nox.Session) -> None:
    """The packages carry one version and compatible ranges; `-- minor`, `-- 0.2.0` ... moves them, in all packages."""
    session.install(*VERSIONS)
    what = ["bump", *session.posargs] if session.posargs else ["check"]
    session.run("python", "scripts/versions.py", *what, *PACKAGES)


@nox.session(python=ONE_PYTHON, requires=["build"])
def types(session: nox.Session) -> None:
    """Mypy, strict, on the sources and the public face; pyright on the public face."""
    install(session, *TEST, *TEST_OBSERVERS, *TYPES, *VERSIONS)
    session.run("mypy")
    if not list(ROOT.glob("core/tests/typing/*.py")):
        session.error("core/tests/typing has no file: pyright would pass without looking at anything")
    # Pyright sees what a user's does: the installed wheels. It is bundled, with its node, and asks no server.
    python = shutil.which("python", path=session.bin)
    session.run("pyright", "--pythonpath", str(python), env={"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"})


@nox.session(requires=["build"], default=False)
def quick(session: nox.Session) -> None:
    """While writing: lint, and the tests of the core and the two local runners, on one Python, without a cluster."""
    install(session, *TEST, *TEST_OBSERVERS, *XDIST, *LINT)
    _lint(session)
    selected = _unless_given(session, [*(f"{package}/tests" for package in LIGHT), *MADE_UP_RUNNERS])
    session.run("python", "-m", "pytest", "--numprocesses=2", *selected, *session.posargs, env=CLEAN)


@nox.session(python=PYTHONS, requires=["build"])
def tests(session: nox.Session) -> None:
    """The tests of the core and the two local runners on one Python, with the newest dependencies."""
    install(session, *TEST, *TEST_OBSERVERS, *TEST_DASK, *TEST_RAY, *COVERAGE)
    _run_tests(session, *LIGHT)


@nox.session(python=PYTHONS, requires=["build"])
def dask(session: nox.Session) -> None:
    """The tests of runner-dask on one Python, with the newest Dask."""
    install(session, *TEST, *TEST_DASK, *COVERAGE)
    _run_tests(session, "runner-dask")


@nox.session(python=[python for python in PYTHONS if python not in WITHOUT_RAY], requires=["build"])
def ray(session: nox.Session) -> None:
    """The tests of runner-ray on one Python, with the newest Ray."""
    install(session, *TEST, *TEST_RAY, *COVERAGE)
    _run_tests(session, "runner-ray")


@nox.session(requires=[f"tests-{NEWEST}", *CLUSTERS])
def coverage(session: nox.Session) -> None:
    """The branch coverage of all packages together, in the processes of the tests themselves; with a floor."""
    session.install(*COVERAGE)
    data = COVERED / "all"
    measured = [str(file) for name in [f"tests-{NEWEST}", *CLUSTERS] for file in sorted(COVERED.glob(f"{name}.*"))]
    session.run("coverage", "combine", "--keep", "--quiet", f"--data-file={data}", *measured)
    session.run("coverage", "report", f"--data-file={data}", f"--fail-under={COVERAGE_FLOOR}")


@nox.session(python=PYTHONS[0], requires=["build"])
def lowest(session: nox.Session) -> None:
    """The tests of all packages, on the lowest Python, with the lowest direct dependencies."""
    install(session, *TEST, *TEST_OBSERVERS, *TEST_SMOKE, *lowest_pins())
    selected = _unless_given(session, [*(f"{package}/tests" for package in LIGHT), *MADE_UP_RUNNERS, *SMOKE])
    session.run("python", "-m", "pytest", *selected, *session.posargs, env=CLEAN)


def _wheelhouse(session: nox.Session) -> dict[str, str]:
    """Fill a folder from which `pip install --no-index` can install Riverrun with all that it needs; tell the tests."""
    wheelhouse = Path(session.virtualenv.location, "wheelhouse").resolve()
    shutil.rmtree(wheelhouse, ignore_errors=True)
    wheels = [str(wheel) for wheel in sorted(DIST.glob("*.whl"))]
    session.run("python", "-m", "pip", "download", "--quiet", "--dest", str(wheelhouse), *wheels, *PLUGINS)
    return {"WHEELHOUSE": str(wheelhouse), "DIST": str(DIST)}


@nox.session(python=ONE_PYTHON, requires=["build"])
def integration(session: nox.Session) -> None:
    """The packages together: discovery, other people's plugins, the examples, the wheels themselves."""
    install(session, *TEST, *TEST_SMOKE, *INTEGRATION)
    session.run("twine", "check", "--strict", *(str(file) for file in sorted(DIST.iterdir())))
    folders = _wheelhouse(session)
    # Most of them wait for other programs: two files of tests at a time.
    beside = ["--numprocesses=2", "--dist=loadfile"]
    selected = _unless_given(session, ["tests-integration"])
    session.run("pytest", *beside, *selected, *session.posargs, env=CLEAN | folders)


@nox.session(python=ONE_PYTHON, requires=["build"])
def docs(session: nox.Session) -> None:
    """The examples in README files, docs and docstrings, run as tests."""
    install(session, *TEST, *TEST_OBSERVERS, "dask[array]")
    pages = ["README.md", "CONTRIBUTING.md", "docs", *(f"{package}/README.md" for package in PACKAGES)]
    imports = ["riverrun", *(package.replace("-", "_") for package in PACKAGES if package != "core")]
    doctests = ["--doctest-modules", "--ignore-glob=*/riverrun/task_runner.py", "--pyargs", *imports]
    # `riverrun.task_runner` is left out: all it does is to say, on import, that the name is `riverrun.task_runners`.
    session.run("pytest", *_unless_given(session, [*pages, *doctests]), *session.posargs, env=CLEAN)


@nox.session(python=ONE_PYTHON, requires=["build"])
def demo(session: nox.Session) -> None:
    """A flow over every module of this Python's standard library; `-- --runner sequential` for another runner."""
    install(session)
    # At INFO, two lines for each of some 1,800 task runs would come before the report.
    session.run(
        "riverrun", "run", "examples/stdlib_census.py:census", "--log-level", "WARNING", *session.posargs, env=CLEAN
    )


@nox.session(python=PYTHONS, requires=["build"], default=False)
def stress(session: nox.Session) -> None:
    """Before a release: rare moments, hunted with seeds, and every test of every package, with load beside them.

    `nox -s stress-3.13 -- --tries 50` tries more seeds than ten; `-- --seed 4711 ...` brings one back.
    """
    install(session, *TEST, *TEST_OBSERVERS, *TEST_DASK, *TEST_RAY, *INTEGRATION)
    env = CLEAN | _wheelhouse(session)
    everything = ["pytest", "-m", "stress or not stress"]
    if _names_tests(session):
        session.run("python", "-m", *everything, *session.posargs, env=env)
        return
    without_ray = session.python in WITHOUT_RAY  # and so without the examples and plugins of all runners
    packages = [package for package in PACKAGES if package != "runner-ray" or not without_ray]
    folders = ["tests-integration/stress" if without_ray else "tests-integration"]
    folders += [f"{package}/tests" for package in packages]
    with _load():
        failed = [folder for folder in folders if not _test(session, *everything, "--tries=10", folder, env=env)]
    if failed:
        session.error(f"these have tests that failed: {', '.join(failed)}")


@contextmanager
def _load() -> Iterator[None]:
    """Keep a core busy."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


@nox.session(python=ONE_PYTHON, requires=["build"], default=False)
def bench(session: nox.Session) -> None:
    """The figures, each beside its raw baseline; takes minutes, wants a quiet machine."""
    install(session)
    session.run("python", "benchmarks/run.py", *session.posargs, env=CLEAN)


# -- what the command line says, and the end of what nox prints


def _sessions_asked_for() -> list[str]:
    """List the sessions that the command line names."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-s", "-e", "--session", "--sessions", dest="sessions", nargs="*", action="extend", default=[])
    before_dashes = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    return parser.parse_known_args(before_dashes)[0].sessions


def _pythons_of(function: nox.registry.Func) -> list[str]:
    pythons = function.python or []
    return [pythons] if isinstance(pythons, str) else list(pythons)


def _stand_in_for_unknown(asked_for: list[str]) -> None:
    """Let an unknown session be one that fails: nox itself would then run none of the others either."""
    known = set()
    for name, function in nox.registry.get().items():
        known |= {name, *(f"{name}-{python}" for python in _pythons_of(function))}
    for name in set(asked_for) - known:
        near = get_close_matches(name, sorted(known), n=1)
        text = f"There is no session {name!r}{f'; did you mean {near[0]!r}?' if near else '.'} `nox -l` lists them"
        nox.session(lambda session, text=text: session.error(text), name=name, venv_backend="none", default=False)


def _say_at_the_end(file: Path) -> None:
    """Print which tests failed in which session, and what to type to run just those again."""
    failed: dict[str, dict[str, None]] = {}
    for line in file.read_text("utf-8").splitlines() if file.exists() else []:
        one = json.loads(line)
        failed.setdefault(one["session"], {})[one["test"]] = None
    shutil.rmtree(file.parent, ignore_errors=True)
    for session, tests in failed.items():
        print(f"\nFailed in {session}:", *tests, sep="\n  ")
        seeds = [int(seed) for test in tests for seed in re.findall(r"seed=(\d+)", test)]
        again = ["--seed", str(min(seeds)), "--tries", str(max(seeds) - min(seeds) + 1)] if seeds else []
        command = shlex.join([os.path.relpath(sys.argv[0]), "-r", "-s", session, "--", *tests, *again])
        print(f"Just these again:\n  {command}")


asked_for = _sessions_asked_for()
_stand_in_for_unknown(asked_for)
if not asked_for:
    # One more than there are cores, since they wait often. A session that is named should be seen as it goes on.
    nox.options.parallel = min(3, (os.cpu_count() or 1) + 1)
    nox.options.allow_parallel = True
if "TESTS_THAT_FAILED" not in os.environ:  # else this is a process of nox that runs one session for another one
    os.environ["TESTS_THAT_FAILED"] = str(Path(tempfile.mkdtemp(prefix="nox-")) / "failed.jsonl")
    atexit.register(_say_at_the_end, Path(os.environ["TESTS_THAT_FAILED"]))
    if (
        not asked_for
        and not {"-l", "--list"} & {*sys.argv}
        and (missing := [python for python in PYTHONS if python not in HERE])
    ):
        print(f"Not installed here, so not tested on: Python {', '.join(missing)}", file=sys.stderr)
