"""`validate`: everything that is wrong with a file, at once and without a store."""

import json

import pytest


@pytest.fixture
def file(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


NAIVE = "must be as in 2026-11-23T20:00:00Z, with its time zone, not datetime.datetime(2026, 11, 23, 20, 0)"

BAD_TOML = """["*"]
failure_threshold = 1.5
server.deadline_s = 0.001
timout_s = 3
["topps/contest-db"]
timeout_s = -1
max_concurrent = { value = 5, until = 2026-11-23T20:00:00 }
"""


def test_validate_says_everything_that_is_wrong_with_path_value_and_bound(cli_of, file):
    name = file("bad.toml", BAD_TOML)
    ended = cli_of("validate", name)
    assert (ended.code, ended.err) == (1, "")
    assert sorted(line for line in ended.out.splitlines() if line.startswith("error")) == [
        "error: *:failure_threshold must be a number above 0 and at most 1, not 1.5",
        "error: *:server.deadline_s must be a number between 0.01 and 300, not 0.001",
        f"error: topps/contest-db:max_concurrent: until {NAIVE}",
        "error: topps/contest-db:timeout_s must be a number between 0.001 and 300, not -1",
    ]
    assert "warning: *:timout_s is no setting that this version knows\n" in ended.out
    assert ended.out.endswith(f"{name}: 4 settings, 4 errors, 1 warning\n")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{}", "0 settings, 0 errors, 0 warnings"),
        ("a.json", '{"*": {"timeout_s": 1}}', "1 setting, 0 errors, 0 warnings"),
        ("a.toml", '["*"]\nserver.mode = "shadow"\n', "1 setting, 1 error, 0 warnings"),
        ("a.toml", '["*"]\nnews = 1\n', "1 setting, 0 errors, 1 warning"),
        ("a.json", '{"*": 1, "topps": {"timeout_s": 1}}', "1 setting, 1 error, 0 warnings"),
        ("a.json", "[1]", "0 settings, 1 error, 0 warnings"),
    ],
)
def test_validate_counts(cli_of, file, name, text, said):
    path = file(name, text)
    ended = cli_of("validate", path)
    assert ended.out.splitlines()[-1] == f"{path}: {said}"
    assert ended.code == (" 0 errors" not in said)


def test_validate_holds_the_caps(cli_of, file):
    many = {"*": {f"name{number}": 1 for number in range(2001)}}
    large = {"*": {f"name{number}": "x" * 100 for number in range(700)}}
    assert (
        "error: a document must have at most 2000 keys, not 2001\n"
        in cli_of("validate", file("many.json", json.dumps(many))).out
    )
    assert (
        "large.json must be at most 65536 bytes, not " in cli_of("validate", file("large.json", json.dumps(large))).err
    )


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.toml", "a = ", "a.toml is not TOML: "),
        ("a.json", '{"*": {"timeout_s": 1, "timeout_s": 2}}', 'a.json is not JSON: "timeout_s" stands there twice'),
        ("a.json", "", "a.json is empty: processes take that for a file that is still being written"),
        ("a.toml", " \n", "a.toml is empty: "),
    ],
)
def test_validate_says_where_a_file_cannot_be_read(cli_of, file, name, text, words):
    ended = cli_of("validate", file(name, text))
    assert (ended.code, ended.out, words in ended.err) == (1, "", True)


def test_validate_survives_what_is_no_text(cli_of, tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    ended = cli_of("validate", str(tmp_path / "a.json"))
    assert (ended.code, "is not JSON: 'utf-8' codec can't decode" in ended.err) == (1, True)
    assert "cannot be read: Is a directory" in cli_of("validate", str(tmp_path)).err


def test_validate_as_json(cli_of, file):
    found = cli_of("validate", "--json", file("bad.toml", BAD_TOML)).json
    assert (found["valid"], len(found["problems"]), found["settings"]) == (False, 4, 4)
    assert found["warnings"] == ["*:timout_s is no setting that this version knows"]


def test_validate_lets_a_fleet_be_switched_off_on_demand(cli_of, file):
    path = file("off.json", '{"*": {"server.mode": "off"}}')
    assert (cli_of("validate", path).code, cli_of("validate", "--allow-disable", path).code) == (1, 0)
