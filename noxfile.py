"""The contributor's menu: `nox -l` shows it, `nox` runs all that is starred, `nox -s NAME` runs one.

Whatever tests, tests built wheels: the session `build` makes them once in each nox run, and the others install all of
them by file path, so that neither the source tree nor an unrelated `core` from a package index can be tested by
mistake. Arguments after `--` go on to the tool: `nox -s tests-3.12 -- core/tests -k retries`.
"""

import os
import shutil
import signal
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGES = ["core", "runner-sequential", "runner-concurrent", "runner-dask", "runner-ray"]
PYTHONS = ["3.11", "3.12", "3.13"]

# What the sessions install, in one place. The tools are pinned: a green tree stays green until somebody moves a pin.
TEST = ["pytest>=8.2", "pytest-timeout>=2.3", "sybil>=9", "trio>=0.28"]
# What the observers of the core need that are tested: its extras, and the SDK that an application would bring.
TEST_OBSERVERS = ["opentelemetry-sdk>=1.20", "rich>=13"]
# What only the tests of runner-dask need; Dask itself works without.
TEST_DASK = ["bokeh>=3.1", "cryptography>=42", "dask[array,dataframe]", "psutil>=5.8"]
TEST_RAY = ["numpy", "psutil>=5.8"]  # what only the tests of runner-ray need
TEST_SMOKE = ["psutil>=5.8"]  # what the conftest of both imports
BUILD = ["build>=1.2", "hatchling>=1.27,<2"]
EDITABLE = ["editables>=0.5", "hatchling>=1.27,<2"]  # what an editable install of a project with hatchling needs
XDIST = ["pytest-xdist>=3.6"]
UV = ["uv>=0.5"]
TWINE = ["twine>=6.1"]
VERSIONS = ["click>=8.1,<9", "packaging>=24", "tomlkit>=0.13"]  # what scripts/versions.py needs
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
LAYERS = ["import-linter==2.16"]
TYPES = ["mypy==2.4.1", "pyright[nodejs]==1.1.414"]

# The tests of runner-dask and runner-ray start hundreds of processes: all of them run on the newest Python that is
# there, with the newest Dask and Ray. On the lowest Python with the lowest ones, those run that a difference between
# them would show in: the conformance suite (for Ray, a selection of it, on temporary instances), and the options, which
# run on every Python. `nox -s tests-3.12 -- runner-dask/tests` runs all of them there.
ALL_ON = next((python for python in reversed(PYTHONS) if shutil.which(f"python{python}")), PYTHONS[-1])
SMOKE = {
    "runner-dask": [
        "runner-dask/tests/test_conformance.py::TestTemporaryClusterOfProcesses",
        "runner-dask/tests/test_options.py",
    ],
    "runner-ray": [
        "runner-ray/tests/test_conformance.py::TestTemporaryInstance",
        "runner-ray/tests/test_options.py",
    ],
}

# Half the time of the core's tests goes into the conformance suite on runners that they make up. They run on the newest
# Python; on the others, and with the lowest dependencies, the tests of the two local runners run the suite.
MADE_UP_RUNNERS = [
    f"--ignore=core/tests/{name}.py"
    for name in ("test_conformance_suite", "test_docs_contract", "test_executor_task_runner")
]

ROOT = Path(__file__).parent
DIST = ROOT / "dist"

# A session sees neither the source tree nor the settings of the person who runs it.
CLEAN: dict[str, str | None] = dict.fromkeys(["PYTHONPATH", *(n for n in os.environ if n.startswith("RIVERRUN_"))])

# In the background of a shell script Ctrl-C is ignored, also by all that is started from there; the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False  # a Python that is not installed is skipped, and nox says so


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
    wheels = sorted(str(wheel.relative_to(ROOT)) for wheel in DIST.glob("*.whl"))
    if len(wheels) != len(PACKAGES):
        session.error(f"expected one wheel for each of {PACKAGES} in dist/, found {wheels}")
    # First without dependencies: in a reused environment (`nox -r`) pip would keep the last build of this version.
    session.install("--force-reinstall", "--no-deps", *wheels)
    session.install(*wheels, *others)
    proof = (
        "import importlib.metadata, importlib.util, sys\n"
        f"for name in {PACKAGES}:\n"
        "    assert importlib.metadata.distribution(name).read_text('direct_url.json'), f'{name} is not our wheel'\n"
        "origin = importlib.util.find_spec('riverrun').origin\n"
        "assert origin.startswith(sys.prefix), f'riverrun comes from {origin}, not from the wheel'\n"
    )
    session.run("python", "-c", proof, env=CLEAN, log=False)


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


@nox.session(requires=["build"])
def types(session: nox.Session) -> None:
    """Mypy, strict, on the sources and the public face; pyright on the public face."""
    install(session, *TEST, *TEST_OBSERVERS, *TYPES, *VERSIONS)
    session.run("mypy")
    if not list(ROOT.glob("core/tests/typing/*.py")):
        session.error("core/tests/typing has no file: pyright would pass without looking at anything")
    # Pyright sees what a user's does: the installed wheels. It is bundled, with its node, and asks no server.
    python = shutil.which("python", path=session.bin)
    session.run("pyright", "--pythonpath", str(python), env={"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"})


@nox.session(python=PYTHONS, requires=["build"])
def tests(session: nox.Session) -> None:
    """The tests of all packages on one Python, with the newest dependencies."""
    install(session, *TEST, *TEST_OBSERVERS, *TEST_DASK, *TEST_RAY)
    if _names_tests(session):
        session.run("python", "-m", "pytest", *session.posargs, env=CLEAN)
        return
    passed = {package: _pass(session, package) for package in PACKAGES if package not in SMOKE}
    # Those that start hundreds of processes wait for them often: they run beside each other.
    with ThreadPoolExecutor() as threads:
        ray = threads.submit(_pass, session, "runner-ray", silent=True)  # what it prints is shown when it has ended
        passed |= {"runner-dask": _pass(session, "runner-dask"), "runner-ray": ray.result()}
    if failed := [package for package, well in passed.items() if not well]:
        session.error(f"these have tests that failed: {', '.join(failed)}")


def _pass(session: nox.Session, package: str, *, silent: bool = False) -> bool:
    """Run the tests of a package; say whether they passed."""
    selected = [f"{package}/tests"]
    if package in SMOKE and session.python != ALL_ON:
        selected = SMOKE[package][1:]  # the conformance suite runs on the newest Python, and on the lowest in `lowest`
    if package == "core" and session.python != ALL_ON:
        selected += MADE_UP_RUNNERS
    # `python -m` has this folder on `sys.path`, which workers in other processes inherit: so they can import the tests'
    # own modules, whose tasks travel by name. The source trees are not in reach that way.
    command = ["python", "-m", "pytest"] if package in SMOKE else ["pytest"]
    found_none = [5] if session.posargs else []  # pytest's status: `-k` may find tests in other packages only
    codes = [0, *found_none]
    try:
        output = session.run(*command, *selected, *session.posargs, env=CLEAN, success_codes=codes, silent=silent)
    except nox.command.CommandFailed:
        return False  # nox has shown what it printed
    if silent:
        session.log(output)
    return True


def _names_tests(session: nox.Session) -> bool:
    """Say whether the session's arguments name tests: then it runs them, and none by itself."""
    return any("/test" in argument for argument in session.posargs)


def _unless_given(session: nox.Session, selected: list[str]) -> list[str]:
    """Give the tests that a session runs by itself, unless its arguments name tests."""
    return [] if _names_tests(session) else selected


@nox.session(python=PYTHONS[0], requires=["build"])
def lowest(session: nox.Session) -> None:
    """The tests of all packages, on the lowest Python, with the lowest direct dependencies."""
    install(session, *TEST, *TEST_OBSERVERS, *TEST_SMOKE, *lowest_pins())
    light = [f"{package}/tests" for package in PACKAGES if package not in SMOKE]
    smoke = [test for tests in SMOKE.values() for test in tests]
    selected = _unless_given(session, [*light, *MADE_UP_RUNNERS, *smoke])
    session.run("python", "-m", "pytest", *selected, *session.posargs, env=CLEAN)


@nox.session(requires=["build"])
def integration(session: nox.Session) -> None:
    """The packages together: discovery, other people's plugins, the examples, the wheels themselves."""
    # With pip, also where nox installs with uv: some tests are about what people do with it, and uv cannot download.
    install(session, *TEST, *EDITABLE, *UV, "pip>=24", *TWINE, *VERSIONS, *XDIST)
    session.run("twine", "check", "--strict", *(str(file) for file in sorted(DIST.iterdir())))
    # A folder from which `pip install --no-index` can install Riverrun with all that it needs.
    wheelhouse = Path(session.virtualenv.location, "wheelhouse").resolve()
    shutil.rmtree(wheelhouse, ignore_errors=True)
    wheels = [str(wheel) for wheel in sorted(DIST.glob("*.whl"))]
    session.run("python", "-m", "pip", "download", "--quiet", "--dest", str(wheelhouse), *wheels, *PLUGINS)
    folders = {"WHEELHOUSE": str(wheelhouse), "DIST": str(DIST)}
    # Most of them wait for other programs: two files of tests at a time.
    beside = ["--numprocesses=2", "--dist=loadfile"]
    selected = _unless_given(session, ["tests-integration"])
    session.run("pytest", *beside, *selected, *session.posargs, env=CLEAN | folders)


@nox.session(requires=["build"])
def docs(session: nox.Session) -> None:
    """The examples in README files, docs and docstrings, run as tests."""
    install(session, *TEST, *TEST_OBSERVERS, "dask[array]")
    pages = ["README.md", "CONTRIBUTING.md", "docs", *(f"{package}/README.md" for package in PACKAGES)]
    imports = ["riverrun", *(package.replace("-", "_") for package in PACKAGES if package != "core")]
    doctests = ["--doctest-modules", "--ignore-glob=*/riverrun/task_runner.py", "--pyargs", *imports]
    # `riverrun.task_runner` is left out: all it does is to say, on import, that the name is `riverrun.task_runners`.
    session.run("pytest", *pages, *doctests, *session.posargs, env=CLEAN)


@nox.session(requires=["build"])
def demo(session: nox.Session) -> None:
    """A flow over every module of this Python's standard library; `-- --runner sequential` for another runner."""
    install(session)
    # At INFO, two lines for each of some 1,800 task runs would come before the report.
    session.run(
        "riverrun", "run", "examples/stdlib_census.py:census", "--log-level", "WARNING", *session.posargs, env=CLEAN
    )


@nox.session(requires=["build"], default=False)
def bench(session: nox.Session) -> None:
    """The figures, each beside its raw baseline; takes minutes, wants a quiet machine."""
    install(session)
    session.run("python", "benchmarks/run.py", *session.posargs, env=CLEAN)
