"""What the gunicorn kit does for reports: in workers, and in the master when one has died."""

import os

import pytest
from sample_reports import counted

from groundfault.events import internal_errors
from groundfault.metrics._coding import encode
from groundfault.metrics._place import replace_file

kit = pytest.importorskip("groundfault.integrations.gunicorn", exc_type=ImportError)


@pytest.mark.parametrize(
    ("environment", "given", "used"),
    [(None, None, None), (None, "/a", "/a"), ("/b", "/a", "/b"), ("/b", None, "/b")],
)
def test_the_environment_goes_before_the_file(monkeypatch, environment, given, used):
    monkeypatch.setenv("GROUNDFAULT_RUN_DIR", environment or "")  # so that it is as before afterwards
    kit.install({}, run_dir=given)
    assert (os.environ["GROUNDFAULT_RUN_DIR"] or None) == used


def test_hooks_of_the_file_stay_and_have_as_many_parameters_as_gunicorn_wants():
    seen = []
    namespace = {
        "post_worker_init": lambda worker: seen.append(("init", worker)),
        "child_exit": lambda server, worker: seen.append(("exit", server, worker)),
    }
    kit.install(namespace)
    namespace["child_exit"]("server", "worker")
    assert seen == [("exit", "server", "worker")]
    config = pytest.importorskip("gunicorn.config").Config()
    for name in ("child_exit", "post_worker_init"):
        config.set(name, namespace[name])  # which counts the parameters


def test_what_a_dead_worker_has_counted_is_folded(place, monkeypatch):
    replace_file(place.path / "1-0000000000000001.json", encode(counted(3)))
    monkeypatch.setenv("GROUNDFAULT_RUN_DIR", str(place.path))
    kit.child_exit(None, None)
    assert sorted(path.name for path in place.path.iterdir()) == ["lock", "totals.json"]


@pytest.mark.parametrize("named", ["", "/proc/self/mem", "missing", "\0"])
def test_without_a_directory_the_master_goes_on(monkeypatch, tmp_path, named):
    monkeypatch.setattr(os, "environ", {"GROUNDFAULT_RUN_DIR": named and os.path.join(tmp_path, named)})  # noqa: PTH118  NUL
    kit.child_exit(None, None)
    assert set(internal_errors()) <= {"gunicorn child_exit"}
