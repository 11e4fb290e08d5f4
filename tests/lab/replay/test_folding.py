"""Templates: what stays of a path, and that nobody can be told from a plan, whatever the log held."""

import json
import random
import string
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.lab.replay import seen as seen_module
from groundfault.lab.replay.folding import MOST_CHILDREN, OTHER, Folder
from groundfault.lab.replay.lines import LineReader


@pytest.mark.parametrize(
    ("target", "template"),
    [
        ("/", "/"),
        ("/lobby", "/lobby"),
        ("/api/v2/lineup/77", "/api/v2/lineup/{n}"),
        ("/a/b/", "/a/b/"),
        ("//evil.example//x", "/evil.example/x"),
        ("/static/app.js", "/static/app.js"),
        ("/static/app.3f2a9c1b.js", "/static/{id}"),
        ("/favicon.ico", "/favicon.ico"),
        ("/order_items/getTopScores", "/order_items/getTopScores"),
        (f"/x/{uuid.UUID(int=7)}", "/x/{id}"),
        ("/x/deadbeefcafe", "/x/{id}"),
        ("/x/DEADBEEF", "/x/{id}"),
        ("/x/jane.doe@mail.example", "/x/{id}"),
        ("/x/jane.doe%40mail.example", "/x/{id}"),
        ("/x/%6a%61%6e%65%40mail", "/x/{id}"),
        ("/x/10.0.0.1", "/x/{id}"),
        ("/x/+15551234567", "/x/{id}"),
        ("/x/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0", "/x/{id}"),
        ("/x/xKqWzTbPrLmN", "/x/{id}"),
        ("/x/" + "a" * 60, "/x/{id}"),
        ("/x/the-quick-brown-fox-jumps-over", "/x/{id}"),
        ("/x/{n}", "/x/{id}"),
        ("/x/Zo\u00eb", "/x/{id}"),
        ("/x/a b", "/x/{id}"),
        ("/users/alice", "/users/{id}"),
        ("/Users/alice/orders/12", "/Users/{id}/orders/{n}"),
        ("/users/./alice", "/users/{id}/{id}"),
        ("/reset-password/qwertyab", "/reset-password/{id}"),
        ("/userProfile/alice.smith", "/userProfile/{id}"),
        ("/players/by-name/alice", "/players/{id}/{id}"),
        ("/user-service/lobby", "/user-service/lobby"),
        ("/users/me", "/users/me"),
        ("/reset/abcdef", "/reset/{id}"),
        ("/lobby;jsessionid=8A7F", "/lobby"),
        ("/lobby?", "/lobby?{key}={v}"),
        ("/search?q=jane+doe&page=2&q=x", "/search?q={v}&page={v}"),
        ("/search?jane", "/search?{key}={v}"),
        ("/search?filter[name]=jane&8f3a=1&x", "/search?filter[name]={v}&{key}={v}"),
        ("/search?jane@mail.example=1", "/search?{key}={v}"),
        ("/lobby#jane", "/lobby"),
        ("https://jane:pw@shop.example/lobby?x=1#y", "/lobby?x={v}"),
        ("https://shop.example", "/"),
        ("/" + "a/" * 30, "/a/a/a/a/a/a/a/a/a/a/{id}"),
        ("*", None),
        ("shop.example:443", None),
        ("javascript://x", None),
    ],
)
def test_a_target_is_folded_to_a_template(target, template):
    assert Folder().fold(target) == template


def test_under_a_parent_with_too_many_children_none_keeps_its_name(routes, line):
    names = [f"{one}o{other}a" for one in "bdfglmnp" for other in "rstvzkb"][: MOST_CHILDREN + 1]
    lines = [line(request=f"GET /club/{name}/shop HTTP/1.1") for name in names]
    assert routes(lines) == {"GET /club/{id}/shop": len(names)}
    few = routes(lines[:MOST_CHILDREN])
    assert len(few) == MOST_CHILDREN


def test_what_scanners_try_at_the_top_is_folded_and_what_the_crowd_asks_for_stays(routes, line):
    tried = [f"{a}o{b}a{c}u" for a in "bdfglmnp" for b in "rstvzkb" for c in "mnrst"]
    asked = ["lobby", "api/scores", *tried, *["lobby"] * 999, *["api/scores"] * 999]
    crowded = routes([line(request=f"GET /{path} HTTP/1.1") for path in asked])
    assert crowded == {"GET /lobby": 1000, "GET /api/scores": 1000, "GET /{id}": len(tried)}


def test_parts_that_saw_few_children_each_fold_them_once_they_are_merged():
    names = ["".join(each) for each in zip(string.ascii_lowercase * 3, "aeiou" * 16, strict=False)][: 2 * MOST_CHILDREN]
    total = LineReader().seen
    for start in range(0, len(names), 20):
        reader = LineReader()
        texts = [
            f'h - - [22/Nov/2026:18:00:00 +0000] "GET /club/{name} HTTP/1.1" 200 1'
            for name in names[start : start + 20]
        ]
        reader.count("\n".join(texts).encode())
        total.merge(reader.seen)
    total.fold_again()
    assert len(set(names)) > MOST_CHILDREN
    assert total.templates == {"GET /club/{id}"}


def test_kinds_beyond_the_cap_are_counted_as_other_and_nothing_is_lost(read, line, monkeypatch):
    monkeypatch.setattr(seen_module, "MOST_TEMPLATES", 20)
    words = ["".join(pair) for pair in zip("abcdefghij" * 4, "aeiou" * 8, strict=True)]
    lines = [line(request=f"GET /{one}/{other} HTTP/1.1") for one in words[:10] for other in words[:10]]
    reading = read(lines)
    assert len(reading.plan.templates) <= 20
    assert reading.plan.other > 0
    assert sum(reading.plan.weights()) + reading.plan.other == reading.plan.total == 100
    assert OTHER not in {each.path for each in reading.plan.templates}
    assert any("of kinds too many to tell apart" in note for note in reading.notes)


def test_whatever_the_paths_and_times_only_so_much_is_held():
    chance, total = random.Random(3), LineReader().seen
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    for _ in range(4):
        reader, texts = LineReader(), []
        for _ in range(3000):
            path = "/".join("".join(chance.choices(syllables, k=3)) for _ in range(4))
            at = (
                f"{chance.randrange(1, 29):02}/Nov/{chance.randrange(2001, 2030)}:{chance.randrange(24):02}:00:00 +0000"
            )
            texts.append(f'h - - [{at}] "GET /{path}?{chance.choice(syllables)}=1 HTTP/1.1" 200 1')
        reader.count("\n".join(texts).encode())
        for seen in (reader.seen, total):
            assert len(seen.hours) <= seen_module.MOST_HOURS
            assert seen.totals.keys() == seen.hours.keys() == seen.mix.keys()
            assert len(seen.templates) <= seen_module.MOST_TEMPLATES + 1
            assert len(seen.folder.wide) <= (MOST_CHILDREN + 1) ** 2
        total.merge(reader.seen)
    assert total.parsed == 12_000 == total.requests + total.gave_way
    assert total.requests == sum(sum(held) for held in total.hours.values()) == total.totals.total()


@given(st.lists(st.text("abcdefgh/", min_size=1, max_size=12), max_size=300))
def test_folding_again_changes_nothing_that_is_folded(paths):
    folder = Folder()
    folded = [folder.fold(f"/{path}") for path in paths]
    again = [folder.refold(each) for each in folded]
    wide = Folder(folder.wide)
    assert [wide.refold(each) for each in again] == again


# --- nobody can be told -----------------------------------------------------------------------------------------------

SECRETS = {
    "address": "203.0.113.77",
    "user": "quarterback_jane",
    "email": "jane.doe@mail.example",
    "token": "tok9f8e7d6c5b4a",
    "jwt": "eyJhbGciOiJIUzI1NiJ9",
    "uuid": "6fa459ea-ee8a-3ca4-894e-db77e160355e",
    "number": "4111111111111111",
    "query": "fantasyfootballsecret",
    "referer": "referring.example",
    "agent": "SecretBrowser",
    "cookie": "sessioncookievalue",
    "header": "BearerOfSecrets",
    "body": "bodyofevidence",
    "host": "shop.internal.example",
}


def hostile_lines():
    s = SECRETS
    tail = f'"https://{s["referer"]}/?x={s["query"]}" "{s["agent"]} {s["token"]}"'
    for target in (
        f"/login?user={s['user']}&password={s['query']}&{s['token']}",
        f"/users/{s['user']}/orders/{s['number']}",
        f"/x/{s['email']}/{s['uuid']}",
        f"/x/{s['email'].replace('@', '%40')}",
        f"/reset/{s['query']}",
        f"/t/{s['token']};{s['user']}={s['query']}",
        f"/j/{s['jwt']}.{s['token']}",
        f"https://{s['user']}:{s['token']}@{s['host']}/lobby#{s['query']}",
        f"/s?{s['email']}=1&{s['token']}=2",
        f"/{s['number']}?q={s['query']}",
    ):
        head = f"{s['address']} - {s['user']} [22/Nov/2026:18:00:00 +0000]"
        yield f'{head} "GET {target} HTTP/1.1" 200 1 {tail}'
        yield json.dumps(
            {
                "ts": 1_795_370_400,
                "method": "GET",
                "path": target,
                "status": 200,
                "remote_addr": s["address"],
                "user": s["user"],
                "headers": {"authorization": s["header"], "cookie": s["cookie"], "path": f"/{s['user']}"},
                "body": s["body"],
                "referer": s["referer"],
            }
        )
        yield f'{head} "{s["user"]} {target} HTTP/1.1" 200 1 {tail}'
    yield f"{s['address']} {s['user']} {s['query']} garbage"
    yield json.dumps({"ts": 1_795_370_400, "method": s["user"], "path": f"/{s['user']}", "status": s["query"]})


def test_no_value_of_a_hostile_log_is_in_the_plan(read, tmp_path):
    reading = read(list(hostile_lines()))
    assert reading.plan.total == 20
    path = tmp_path / "plan.json"
    reading.plan.write(path)
    text = path.read_text().lower()
    for kind, secret in SECRETS.items():
        for part in {secret, *secret.replace("@", ".").split(".")} - {
            "example",
            "mail",
            "doe",
            "203",
            "0",
            "113",
            "77",
        }:
            assert part.lower() not in text, kind


WORDLESS = st.one_of(
    st.integers(10**5, 10**15).map(str),
    st.uuids().map(str),
    st.binary(min_size=8, max_size=24).map(bytes.hex),
    st.ip_addresses().map(str),
    st.emails(),
    st.text(string.ascii_letters + string.digits, min_size=25, max_size=60),
)


@given(
    st.lists(st.tuples(st.sampled_from(["/x/{}", "/x?q={}", "/x/{}/y?q=1", "/x?{}=1", "/x#{}"]), WORDLESS), min_size=1)
)
def test_no_identifier_of_any_form_stays_in_a_template(targets):
    folder = Folder()
    for shape, value in targets:
        template = folder.fold(shape.format(value))
        assert template in {
            "/x/{id}",
            "/x/{n}",
            "/x?q={v}",
            "/x/{id}/y?q={v}",
            "/x/{n}/y?q={v}",
            "/x?{key}={v}",
            "/x",
        } or (
            # Characters that part a path or a query are in it: then each part was folded by itself.
            set(value) & set("/?#&=%;") and value not in template
        )
