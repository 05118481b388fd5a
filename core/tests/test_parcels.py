"""Shipping: what `ship=` may name, what is sent of it, and how a worker, a process of its own, comes to have it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import pickle
import stat
import subprocess
import sys
import types
import zipfile
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from riverrun import _unpacking
from riverrun.exceptions import TaskRunnerOptionError, TaskRunnerStartError
from riverrun.workers import Parcel, checked_ship, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


PACKAGE = {
    "parcelpkg/__init__.py": "VERSION = 1\n",
    "parcelpkg/deep/__init__.py": "",
    "parcelpkg/deep/steps.py": "import importlib.resources as r\nTEXT = r.files('parcelpkg').joinpath('data.txt')\n",
    "parcelpkg/data.txt": "data\n",
    "parcelpkg/__pycache__/x.cpython-311.pyc": "",
    "parcelpkg/old.pyc": "",
    "parcelpkg/.git/config": "",
    "parcelpkg/.env": "SECRET=1",
}
SENT = ["parcelpkg/__init__.py", "parcelpkg/data.txt", "parcelpkg/deep/__init__.py", "parcelpkg/deep/steps.py"]


@pytest.fixture(autouse=True)
def imports_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Let a test import and unpack what it likes."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(_unpacking, "_homes", {})
    monkeypatch.chdir(tmp_path)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("parcel"):
            del sys.modules[name]


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    def tree(files: dict[str, str], folder: str = "src") -> Path:
        for name, text in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        return tmp_path / folder

    return tree


@pytest.fixture
def worker(tmp_path: Path) -> Callable[..., str]:
    """Run code in another process, which has several shipments, each a list of parcels; give what it printed."""

    def worker(code: str, *shipments: list[Parcel], folder: Path | None = tmp_path / "worker") -> str:
        (tmp_path / "shipments").write_bytes(pickle.dumps(shipments))
        start = f"""
            import os, pickle, sys
            from riverrun.workers import unpack
            folder = {None if folder is None else str(folder)!r}
            with open({str(tmp_path / "shipments")!r}, "rb") as file:
                shipments = pickle.load(file)
        """
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", dedent(start) + dedent(code)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=elsewhere,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return worker


def files_in(parcel: Parcel, tmp_path: Path) -> list[str]:
    (tmp_path / "parcel.zip").write_bytes(parcel.content)
    with zipfile.ZipFile(tmp_path / "parcel.zip") as archive:
        return archive.namelist()


def text_of(ship, **options) -> str:
    with pytest.raises(TaskRunnerStartError) as caught:
        pack(ship, **options)
    return str(caught.value)


# What an entry may be.


def test_a_package_is_sent_with_its_data_and_without_byte_code_and_hidden_files(tree, tmp_path: Path):
    [parcel] = pack([tree(PACKAGE) / "parcelpkg"])
    assert (parcel.name, parcel.modules) == ("parcelpkg", ("parcelpkg",))
    assert files_in(parcel, tmp_path) == SENT


def test_an_import_name_a_module_and_a_part_of_a_package_all_send_the_package(tree, monkeypatch):
    folder = tree(PACKAGE)
    monkeypatch.syspath_prepend(folder)
    by_path = pack([folder / "parcelpkg"])
    assert pack(["parcelpkg"]) == pack(["parcelpkg.deep.steps"]) == by_path
    assert "parcelpkg" not in sys.modules  # nothing was imported for it
    import parcelpkg.deep.steps

    assert pack([parcelpkg]) == pack([parcelpkg.deep.steps]) == by_path
    assert pack(["parcelpkg", parcelpkg, str(folder / "parcelpkg")]) == by_path


def test_a_path_inside_a_package_sends_the_package_unless_it_is_imported_by_itself(tree, monkeypatch):
    folder = tree(PACKAGE)
    assert pack([folder / "parcelpkg" / "deep" / "steps.py"]) == pack([folder / "parcelpkg"])
    monkeypatch.syspath_prepend(folder / "parcelpkg" / "deep")
    assert pack([folder / "parcelpkg" / "deep" / "steps.py"])[0].modules == ("steps",)


def test_a_module_of_one_file_is_sent_by_path_name_and_object(tree, monkeypatch, tmp_path: Path):
    folder = tree({"parcelmod.py": "X = 1"})
    monkeypatch.syspath_prepend(folder)
    import parcelmod

    [parcel] = pack([folder / "parcelmod.py"])
    assert files_in(parcel, tmp_path) == ["parcelmod.py"]
    assert pack("parcelmod") == pack(parcelmod) == pack("src/parcelmod.py") == [parcel]


def test_a_module_that_was_loaded_from_a_path_is_sent_under_its_own_name(tree, tmp_path: Path):
    file = tree({"some-script.py": "X = 1"}) / "some-script.py"
    spec = importlib.util.spec_from_file_location("parcelscript", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert files_in(pack([module])[0], tmp_path) == ["parcelscript.py"]


def test_a_folder_without_init_is_sent_as_a_folder_of_modules(tree, worker, tmp_path: Path):
    folder = tree({**PACKAGE, "parcelmod.py": "X = 1", "notes.md": "", "venv/pyvenv.cfg": "", "venv/a.py": ""})
    [parcel] = pack([folder])
    assert (parcel.name, parcel.modules) == ("src", ("parcelmod", "parcelpkg"))
    assert files_in(parcel, tmp_path) == ["notes.md", "parcelmod.py", *SENT]
    assert worker("unpack(shipments[0], folder)\nimport parcelmod, parcelpkg.deep\nprint(parcelmod.X)", [parcel]) == "1"


@pytest.mark.parametrize("suffix", [".zip", ".whl", ".egg"])
def test_an_archive_is_sent_with_what_is_in_it(suffix: str, tree, worker, tmp_path: Path):
    folder = tree(PACKAGE)
    path = tmp_path / f"lib-1.0{suffix}"
    with zipfile.ZipFile(path, "w") as archive:
        for name in PACKAGE:
            archive.write(folder / name, name)
    [parcel] = pack([str(path)])
    assert parcel.modules == ("parcelpkg",)
    assert files_in(parcel, tmp_path) == SENT
    code = "unpack(shipments[0], folder)\nfrom parcelpkg.deep.steps import TEXT\nprint(TEXT.read_text())"
    assert worker(code, [parcel]) == "data"


def test_a_name_that_cannot_be_imported_but_is_a_path_is_the_path(tree):
    tree({"__init__.py": ""}, folder="parcelhere")
    assert pack("./parcelhere")[0].modules == ("parcelhere",)
    assert pack("parcelhere")[0].modules == ("parcelhere",)


def test_links_are_followed_and_not_in_circles(tree, tmp_path: Path):
    folder = tree({"parcelpkg/__init__.py": ""})
    data = tree({"table.csv": "1"}, folder="data")
    (folder / "parcelpkg" / "data").symlink_to(data)
    (folder / "parcelpkg" / "again").symlink_to(folder / "parcelpkg")
    (folder / "parcelpkg" / "nothing").symlink_to(folder / "nowhere")
    assert files_in(pack([folder / "parcelpkg"])[0], tmp_path) == ["parcelpkg/__init__.py", "parcelpkg/data/table.csv"]


# The digest.


def test_the_digest_depends_on_names_and_content_and_on_nothing_else(tree):
    first = tree(PACKAGE, folder="a") / "parcelpkg"
    again = tree(PACKAGE, folder="b") / "parcelpkg"
    os.utime(again / "data.txt", (1, 1))
    (again / "data.txt").chmod(0o600)
    [parcel] = pack([first])
    assert pack([again])[0].digest == parcel.digest
    (again / "data.txt").write_text("other", "utf-8")
    assert pack([again])[0].digest != parcel.digest
    (first / "data.txt").rename(first / "date.txt")
    assert pack([first])[0].digest != parcel.digest


# What cannot be sent.


def test_a_path_that_does_not_exist(tmp_path: Path):
    assert text_of(["./no/such.py"]) == f"Cannot ship './no/such.py': there is no {tmp_path}/no/such.py."


def test_a_name_that_cannot_be_imported_is_told_with_its_near_match(tree, monkeypatch):
    monkeypatch.syspath_prepend(tree(PACKAGE))
    assert text_of("parcelpgk.deep") == (
        "Cannot ship 'parcelpgk.deep': no module `parcelpgk` can be imported here; did you mean `parcelpkg`? To ship "
        "something that is not on `sys.path`, give its path."
    )
    assert text_of("qqxyzzyq") == (
        "Cannot ship 'qqxyzzyq': no module `qqxyzzyq` can be imported here. To ship something that is not on "
        "`sys.path`, give its path."
    )


@pytest.mark.parametrize("entry", [sys, "sys", json, "json", "json.decoder", "zipimport"])
def test_what_python_itself_brings(entry):
    shown = entry if isinstance(entry, str) else entry.__name__
    top = shown.partition(".")[0]
    assert text_of(entry) == (
        f"Cannot ship {shown!r}: `{top}` is a part of Python, so every worker has it. Leave it out."
    )


def test_a_compiled_module(tree, monkeypatch):
    folder = tree({f"parcelfast{importlib.machinery.EXTENSION_SUFFIXES[0]}": ""})
    monkeypatch.syspath_prepend(folder)
    file = next(folder.iterdir())
    assert text_of("parcelfast") == (
        f"Cannot ship 'parcelfast': `parcelfast` is compiled ({file}). Install it on the workers; only Python source "
        f"is sent."
    )


def test_a_package_with_a_compiled_part(tree):
    folder = tree({"parcelpkg/__init__.py": "", "parcelpkg/_fast.so": ""})
    assert text_of(str(folder / "parcelpkg")) == (
        f"Cannot ship '{folder}/parcelpkg': it has compiled parts (parcelpkg/_fast.so). Install it on the workers; "
        f"only Python source is sent."
    )


def test_a_module_without_source(tree, monkeypatch):
    assert text_of(types.ModuleType("parcelmade")) == (
        "Cannot ship 'parcelmade': `parcelmade` has no source here. Install it on the workers; if it comes from an "
        "archive, ship the archive by its path."
    )
    archive = tree({}) / "lib.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("parcelzipped.py", "X = 1")
    monkeypatch.syspath_prepend(archive)
    assert f"`parcelzipped` has no source here ({archive}/parcelzipped.py is no source file)" in text_of("parcelzipped")
    assert pack([archive])[0].modules == ("parcelzipped",)


def test_a_namespace_package(tree, monkeypatch):
    folder = tree({"parcelspace/a.py": ""})
    monkeypatch.syspath_prepend(folder)
    text = (
        f"Cannot ship 'parcelspace': `parcelspace` is a folder without an `__init__.py` (a namespace package), and its "
        f"parts may be anywhere. Add an `__init__.py`, or ship the folder that it is in by its path: '{folder}'."
    )
    assert text_of("parcelspace") == text
    import parcelspace

    assert text_of(parcelspace) == text
    assert pack([folder])[0].modules == ("parcelspace",)


def test_the_main_module():
    expected = "what a script or a notebook defines travels with each task anyway. Leave it out."
    assert text_of("__main__") == text_of(sys.modules["__main__"]) == f"Cannot ship '__main__': {expected}"


def test_riverrun_itself():
    assert text_of("riverrun") == (
        "Cannot ship 'riverrun': workers need Riverrun before anything can be sent. Install `core` on them."
    )


def test_paths_that_nothing_can_be_imported_from(tree, tmp_path: Path):
    folder = tree({"table.csv": "", "my-script.py": "", "empty/data.txt": ""})
    assert text_of([folder / "table.csv"]) == (
        f"Cannot ship '{folder}/table.csv': 'table.csv' is no name that can be imported, nor an archive."
    )
    assert "'my-script.py' is no name that can be imported" in text_of([folder / "my-script.py"])
    assert text_of([folder / "empty"]) == (
        f"Cannot ship '{folder}/empty': {folder}/empty has no module or package right in it."
    )


def test_archives_that_are_none_or_reach_outside(tree, tmp_path: Path):
    folder = tree({"broken.zip": "no"})
    assert text_of([folder / "broken.zip"]) == (
        f"Cannot ship '{folder}/broken.zip': it cannot be read: File is not a zip file."
    )
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../parcelevil.py", "")
    assert "it has a member outside of itself, '../parcelevil.py'." in text_of([tmp_path / "evil.zip"])


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="needs a user who may not read everything")
def test_a_file_that_may_not_be_read(tree):
    file = tree({"parcelmod.py": ""}) / "parcelmod.py"
    file.chmod(0)
    assert f"Cannot ship '{file}': it cannot be read: [Errno 13]" in text_of([file])


def test_too_much_code_names_the_biggest_files(tree):
    folder = tree(
        {"parcelpkg/__init__.py": "", **{f"parcelpkg/{n}.bin": "x" * n for n in (10_000, 200_000, 1, 500_000)}}
    )
    package = folder / "parcelpkg"
    assert text_of([package], limit=300_000) == (
        f"Cannot ship '{package}': 0.7 MB are more than the limit of 0.3 MB. The biggest files: {package}/500000.bin "
        f"(0.5 MB), {package}/200000.bin (0.2 MB), {package}/10000.bin (0.0 MB). Put data where the workers can read "
        f"it, or install the code on them."
    )
    assert pack([package], limit=710_001)


def test_two_entries_that_bring_the_same_module(tree):
    one = tree({"parcelmod.py": "1"}, folder="one") / "parcelmod.py"
    two = tree({"parcelmod.py": "2"}, folder="two")
    assert text_of([one, two]) == (
        f"Cannot ship '{two}': '{one}' brings a module `parcelmod` too. Leave one of them out."
    )


# The option.


def test_the_option_takes_one_entry_or_several_and_keeps_modules_by_name():
    assert checked_ship("mypkg", "MyRunner") == ("mypkg",)
    assert checked_ship(Path("a.py"), "MyRunner") == (Path("a.py"),)
    assert checked_ship([json, "b"], "MyRunner") == checked_ship((json, "b"), "MyRunner") == ("json", "b")
    assert checked_ship((), "MyRunner") == ()


@pytest.mark.parametrize("value", [None, 5, {"a": 1}, {"a"}, b"a.py"])
def test_the_option_refuses_what_is_no_list(value):
    with pytest.raises(TaskRunnerOptionError) as caught:
        checked_ship(value, "MyRunner")
    assert str(caught.value) == f"`MyRunner`: `ship` takes a list of modules, import names or paths, not {value!r}."


@pytest.mark.parametrize("entry", [None, 5, "", b"a.py", ["a"], len])
def test_the_option_refuses_entries_that_name_nothing(entry):
    with pytest.raises(TaskRunnerOptionError) as caught:
        checked_ship(["good", entry], "MyRunner")
    assert str(caught.value) == f"`MyRunner`: `ship` takes modules, import names or paths; {entry!r} is none of them."
    with pytest.raises(TaskRunnerOptionError, match="^pack\\(\\): `ship` takes"):
        pack([entry])


# On a worker.


def test_a_worker_imports_what_was_shipped_and_reads_its_data(tree, worker):
    code = """
        [place] = unpack(shipments[0], folder)
        from parcelpkg.deep.steps import TEXT
        print(sys.path[0] == place, os.path.dirname(place) == folder, TEXT.read_text().strip())
    """
    assert worker(code, pack([tree(PACKAGE) / "parcelpkg"])) == "True True data"


def test_functions_of_a_shipped_module_travel_by_name(tree, worker, monkeypatch, tmp_path: Path):
    import cloudpickle

    folder = tree({"parcelmod.py": "def place():\n    return __file__\n"})
    monkeypatch.syspath_prepend(folder)
    import parcelmod

    (tmp_path / "function").write_bytes(cloudpickle.dumps(parcelmod.place))
    code = f"""
        unpack(shipments[0], folder)
        with open({str(tmp_path / "function")!r}, "rb") as file:
            print(pickle.load(file)().startswith(folder))
    """
    assert worker(code, pack("parcelmod")) == "True"


def test_unpacking_again_changes_nothing(tree, worker):
    code = """
        first = unpack(shipments[0], folder)
        import parcelmod
        path = list(sys.path)
        again = unpack(shipments[0], folder)
        import parcelmod as same
        print(again == first, sys.path == path, same is parcelmod)
    """
    assert worker(code, pack([tree({"parcelmod.py": "X = 1"})])) == "True True True"


def test_a_newer_parcel_takes_the_place_of_an_older_one_and_back(tree, worker):
    one = pack([tree({"parcelmod.py": "X = 1", "parcelpkg/__init__.py": "", "parcelpkg/a.py": "X = 1"})])
    two = pack([tree({"parcelmod.py": "X = 2", "parcelpkg/a.py": "X = 2"})])
    code = """
        from importlib import import_module
        found = []
        for shipment in shipments:
            places = unpack(shipment, folder)
            found.append([import_module(name).X for name in ("parcelmod", "parcelpkg.a")])
        print(found, sum(place.startswith(folder) for place in sys.path))
    """
    assert worker(code, one, two, one) == "[[1, 1], [2, 2], [1, 1]] 1"


def test_what_another_flow_has_shipped_stays(tree, worker):
    one = pack([tree({"parcelmod.py": "X = 1", "parcelother.py": "X = 1"}, folder="a/src")])
    two = pack([tree({"parcelmod.py": "X = 2"}, folder="b/src")])
    code = """
        for shipment in shipments:
            unpack(shipment, folder)
        import parcelmod, parcelother
        print(parcelmod.X, parcelother.X)
    """
    assert worker(code, one, two) == "2 1"


def test_a_module_that_the_worker_has_imported_from_elsewhere_is_replaced(tree, worker, tmp_path: Path):
    installed = tree({"parcelmod.py": "X = 'installed'"}, folder="installed")
    shipped = pack([tree({"parcelmod.py": "X = 'shipped'"}) / "parcelmod.py"])
    code = f"""
        sys.path.insert(0, {str(installed)!r})
        import parcelmod
        unpack(shipments[0], folder)
        import parcelmod as now
        print(parcelmod.X, now.X)
    """
    assert worker(code, shipped) == "installed shipped"


def test_a_module_named_as_one_of_pythons_is_left_alone_where_that_is_in_use(tree, worker):
    parcels = pack([tree({"queue.py": "", "parcelmod.py": "X = 1"})])
    code = "import queue\nunpack(shipments[0], folder)\nimport queue, parcelmod\nprint(queue.Queue.__name__)"
    assert worker(code, parcels) == "Queue"


def test_files_that_were_swept_away_come_back(tree, worker, tmp_path: Path):
    parcels = pack([tree(PACKAGE) / "parcelpkg"])
    [place] = json.loads(worker("import json\nprint(json.dumps(unpack(shipments[0], folder)))", parcels))
    Path(place, "parcelpkg", "data.txt").unlink()
    Path(place, "parcelpkg", "__init__.py").write_text("", "utf-8")  # torn by a crash of the machine
    code = (
        "unpack(shipments[0], folder)\nimport parcelpkg\nfrom parcelpkg.deep.steps import TEXT\nprint(TEXT.read_text())"
    )
    assert worker(code, parcels) == "data"
    assert Path(place, "parcelpkg", "__init__.py").read_text("utf-8") == "VERSION = 1\n"


ONE_OF_SEVERAL = """
import pickle, sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from riverrun.workers import unpack

with open(sys.argv[1], "rb") as file:
    parcels = pickle.load(file)
print("ready", flush=True)
sys.stdin.readline()

def use(n):
    unpack(parcels, sys.argv[2])
    return import_module(f"parcelpkg.m{n}").X

with ThreadPoolExecutor(4) as pool:
    print(sum(pool.map(use, range(60))), flush=True)
"""


def test_processes_and_threads_of_one_host_unpack_at_the_same_time(tree, tmp_path: Path):
    files = {f"parcelpkg/m{n}.py": f"X = {n}\n" * 200 for n in range(60)}
    parcels = pack([tree({"parcelpkg/__init__.py": "", **files}) / "parcelpkg"])
    (tmp_path / "parcels").write_bytes(pickle.dumps(parcels))
    command = [sys.executable, "-c", ONE_OF_SEVERAL, str(tmp_path / "parcels"), str(tmp_path / "worker")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.communicate(timeout=60)[0] for process in processes] == ["1770\n"] * 3
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert list((tmp_path / "worker").rglob(".*")) == []  # nothing half written is left


@pytest.mark.skipif(os.name != "posix", reason="the text is that of a POSIX system")
def test_a_folder_that_cannot_be_written_is_an_error_that_names_worker_and_code(tree, tmp_path: Path):
    (tmp_path / "file").write_text("", "utf-8")
    parcels = pack([tree({"parcelmod.py": ""})])
    with pytest.raises(TaskRunnerStartError) as caught:
        unpack(parcels, str(tmp_path / "file" / "folder"))
    text = str(caught.value)
    assert text.startswith("Worker ")
    assert f":{os.getpid()} cannot write the code that was shipped to it ('src'): [Errno 20] Not a directory" in text
    assert text.endswith(". Give it a folder that it can write to, with enough room, or install the code there.")


@pytest.mark.skipif(os.name != "posix", reason="looks at the rights of files as POSIX has them")
def test_without_a_folder_the_files_are_in_a_temporary_folder_of_the_user_alone(tree, worker, tmp_path: Path):
    parcels = pack([tree({"parcelmod.py": "X = 1"})])
    code = "[place] = unpack(shipments[0])\nimport parcelmod\nprint(os.path.dirname(place))"
    root = Path(worker(code, parcels))
    assert root == tmp_path / f"riverrun-shipped-{os.getuid()}"
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert Path(worker(code, parcels)) == root
    root.chmod(0o777)  # anybody could have put code into it
    other = Path(worker(code, parcels))
    assert other != root
    assert stat.S_IMODE(other.stat().st_mode) == 0o700


# In the process that packed.


def test_in_the_process_that_packed_them_modules_stay_as_they_are(tree, monkeypatch, tmp_path: Path):
    monkeypatch.syspath_prepend(tree({"parcelmod.py": "X = 1"}))
    import parcelmod

    path = list(sys.path)
    assert unpack(pickle.loads(pickle.dumps(pack("parcelmod"))), str(tmp_path / "worker")) == []  # noqa: S301
    assert (sys.modules["parcelmod"], sys.path) == (parcelmod, path)


def test_in_the_process_that_packed_it_a_path_outside_of_sys_path_can_be_imported_too(tree, tmp_path: Path):
    for version in (1, 2):
        unpack(pack([tree({"parcelmod.py": f"X = {version}"}) / "parcelmod.py"]), str(tmp_path / "worker"))
        assert vars(importlib.import_module("parcelmod"))["X"] == version
