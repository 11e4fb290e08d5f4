"""What a user gets from ``pip install``: a package that stands alone."""

import json
import os
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# -I: neither the working directory nor the user's own site-packages can stand in for what was installed.
LOOK = """
import sys
before = set(sys.modules)
import groundfault
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
import json
from importlib import metadata, resources
root = resources.files("groundfault")
print(json.dumps({
    "where": str(root),
    "foreign": sorted(loaded - set(sys.stdlib_module_names) - {"groundfault"}),
    "loaded": sorted(loaded),
    "public": sorted(groundfault.__all__),
    "missing": [name for name in groundfault.__all__ if not hasattr(groundfault, name)],
    "typed": root.joinpath("py.typed").is_file(),
    "locustfile": root.joinpath("lab", "locustfiles", "gronk_spike.py").is_file(),
    "page": sorted(each.name for each in root.joinpath("console", "page").iterdir()),
    "tests": root.joinpath("..", "tests").exists(),
    "scripts": [script.name for script in metadata.entry_points(group="console_scripts")],
    "requires": [line for line in metadata.requires("groundfault") or () if "extra ==" not in line],
    "distributions": sorted(found.name for found in metadata.distributions()),
}))
"""


def pip(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run this interpreter's pip for another one, so that the environment itself holds nothing."""
    return subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--no-input", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=cwd,
    )


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """Return the interpreter of an environment that holds nothing but this package."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place / "venv", with_pip=False)
    interpreter = place / "venv" / "bin" / "python"
    installed = pip(interpreter, "install", "--no-deps", str(ROOT), cwd=place)
    if installed.returncode != 0:
        backend = pip(interpreter, "download", "--no-deps", "--dest", str(place), "hatchling", cwd=place)
        if backend.returncode != 0:
            pytest.skip(
                "no package index is reachable, and building needs hatchling from one: " + backend.stderr[-300:]
            )
        pytest.fail(f"pip install . failed:\n{installed.stdout}\n{installed.stderr}")
    return interpreter


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    return subprocess.run(
        [str(python), "-I", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=python.parent,
        env=environment,
    )


@pytest.fixture(scope="module")
def seen(python) -> dict:
    looked = run(python, "-c", LOOK)
    assert looked.returncode == 0, looked.stderr
    return json.loads(looked.stdout)


@pytest.mark.e2e
def test_the_installed_package_is_the_one_looked_at(seen, python):
    assert Path(seen["where"]).is_relative_to(python.parent.parent)
    assert seen["distributions"] == ["groundfault"]


@pytest.mark.e2e
def test_importing_it_loads_nothing_from_outside_the_standard_library(seen):
    assert seen["foreign"] == []
    assert "groundfault" in seen["loaded"]


@pytest.mark.e2e
def test_it_requires_nothing(seen):
    assert seen["requires"] == []


@pytest.mark.e2e
def test_every_public_name_is_there(seen):
    assert seen["public"]
    assert seen["missing"] == []


@pytest.mark.e2e
def test_its_types_and_its_scenario_ship_and_its_tests_do_not(seen):
    assert seen["typed"]
    assert seen["locustfile"]
    assert not seen["tests"]


@pytest.mark.e2e
def test_its_command_ships(seen, python):
    assert seen["scripts"] == ["groundfault"]
    assert (python.parent / "groundfault").is_file()


ALONE = """
import sys
before = set(sys.modules)
from wsgiref.util import setup_testing_defaults
from groundfault import CircuitOpenError, Resource, WSGILoadShedder

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"served"]

environ, answered = {}, []
setup_testing_defaults(environ)
body = WSGILoadShedder(app, service="saber")(environ, lambda status, headers, exc_info=None: answered.append(status))
assert (answered, b"".join(body)) == (["200 OK"], b"served")
body.close() if hasattr(body, "close") else None

command = Resource("saber").command("get")
assert command.call(lambda: "called") == "called"
command.tune(mode="force_open")
try:
    command.call(lambda: "called")
except CircuitOpenError:
    pass
else:
    raise AssertionError("an open circuit let a call through")

foreign = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
assert foreign == {"groundfault"}, foreign
"""


@pytest.mark.e2e
def test_the_core_alone_serves_and_calls(python):
    """Both halves work where no extra is installed."""
    done = run(python, "-c", ALONE)
    assert done.returncode == 0, done.stderr


PAGE = sorted(each.name for each in (ROOT / "groundfault" / "console" / "page").iterdir())
CONSOLE = """
import sys
before = set(sys.modules)
import groundfault.console, groundfault.console.answering, groundfault.console.top_command
from groundfault.console.pages import file_named, page
foreign = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
assert foreign - {"__mp_main__"} == {"groundfault"}, foreign  # what multiprocessing calls the main module
assert page().status == 200
assert [name for name in sys.argv[1:] if name != "index.html" and file_named(name).status != 200] == []
"""


@pytest.mark.e2e
def test_the_page_of_the_console_ships_and_is_served_without_any_extra(seen, python):
    assert "index.html" in PAGE
    assert seen["page"] == PAGE
    done = run(python, "-c", CONSOLE, *PAGE)
    assert done.returncode == 0, done.stderr


@pytest.mark.e2e
@pytest.mark.usefixtures("python")  # which skips where nothing can be built
def test_the_sdist_holds_the_page_and_nothing_that_tests_fetch(tmp_path):
    command = [sys.executable, "-m", "build", "--sdist", "--outdir", str(tmp_path), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
    assert built.returncode == 0, built.stdout + built.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = [name.partition("/")[2] for name in opened.getnames()]
    held = sorted(name.rpartition("/")[2] for name in names if name.startswith("groundfault/console/page/"))
    assert held == PAGE
    assert not [name for name in names if "node_modules" in name]
