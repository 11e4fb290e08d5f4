"""The Flask extension beside what an application of its own does: handlers, signals, streams, teardown."""

import flask
import pytest
from flask import got_request_exception
from werkzeug.test import create_environ

from groundfault import CircuitOpenError, Registry, Resource, SettingsError, Shedder
from groundfault.integrations.flask import LoadShedder

ANNOTATED = ("handled", "circuit-open", "grouper")


def annotation(answer):
    return tuple(answer.headers.get(f"X-GroundFault{part}") for part in ("", "-Reason", "-Origin"))


@pytest.fixture
def shedder():
    return Shedder(service="grouper")


@pytest.fixture
def saber():
    return Resource("saber", registry=Registry()).command("get_entrants", mode="force_open")


@pytest.fixture
def app(shedder, saber):
    app = flask.Flask("grouper")
    app.add_url_rule("/entrants", "entrants", lambda: saber.call(lambda: "entrants"))
    app.add_url_rule("/unrelated", "unrelated", lambda: 1 // 0)
    LoadShedder(app, shedder=shedder)
    return app


def get(app, path="/entrants", **how):
    with app.test_client() as client, client.get(path, **how) as answer:
        answer.get_data()
        return answer


# --- adopting ---------------------------------------------------------------------------------------------------------


def test_an_application_made_later_is_put_behind_it(saber):
    extension = LoadShedder(service="grouper")
    for name in ("one", "other"):
        app = flask.Flask(name)
        app.add_url_rule("/entrants", "entrants", lambda: saber.call(lambda: "entrants"))
        extension.init_app(app)
        assert app.extensions["groundfault"] is extension
        assert annotation(get(app)) == ANNOTATED
    assert sum(extension.shedder.snapshot().admitted.values()) == 2


def test_nobody_stands_behind_two(app, shedder):
    with pytest.raises(RuntimeError, match="grouper stands behind a LoadShedder already"):
        LoadShedder(app, shedder=shedder)


def test_a_setting_that_makes_no_sense_is_told_at_once():
    with pytest.raises(SettingsError, match="deadline_s must be"):
        LoadShedder(flask.Flask("grouper"), deadline_s=-1)


# --- whose answer it is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [CircuitOpenError, Exception])
@pytest.mark.parametrize("early", [True, False])
def test_a_handler_of_the_application_wins(shedder, saber, kind, early):
    app = flask.Flask("grouper")
    app.add_url_rule("/entrants", "entrants", lambda: saber.call(lambda: "entrants"))

    def handle(error):
        return "from the cache", 203

    if early:
        app.register_error_handler(kind, handle)
    LoadShedder(app, shedder=shedder)
    if not early:
        app.register_error_handler(kind, handle)
    answer = get(app)
    assert (answer.status_code, answer.text) == (203, "from the cache")
    assert annotation(answer) == (None, None, None)


def test_a_handler_of_a_blueprint_wins(app, saber):
    blueprint = flask.Blueprint("contest", "contest")
    blueprint.add_url_rule("/contest", "contest", lambda: saber.call(lambda: "entrants"))
    blueprint.register_error_handler(CircuitOpenError, lambda error: ("by the blueprint", 203))
    app.register_blueprint(blueprint)
    assert get(app, "/contest").text == "by the blueprint"
    assert annotation(get(app, "/entrants")) == ANNOTATED


def test_a_handler_that_answers_503_keeps_its_page_and_is_annotated(app):
    app.register_error_handler(CircuitOpenError, lambda error: ("please come back", 503))
    answer = get(app)
    assert (answer.status_code, answer.text, annotation(answer)) == (503, "please come back", ANNOTATED)


def test_a_handler_for_500_sees_what_is_unrelated_and_nothing_else(app):
    seen = []
    app.register_error_handler(500, lambda error: (seen.append(error.original_exception), ("sorry", 500))[1])
    assert annotation(get(app)) == ANNOTATED
    assert seen == []
    answer = get(app, "/unrelated")
    assert (answer.status_code, answer.text) == (500, "sorry")
    assert isinstance(seen[0], ZeroDivisionError)


def test_a_handler_that_fails_for_a_dependency_of_its_own(app, saber):
    app.register_error_handler(ZeroDivisionError, lambda error: saber.call(lambda: "help"))
    assert annotation(get(app, "/unrelated")) == ANNOTATED


def test_functions_after_the_request_see_the_answer(app):
    seen = []
    ended = []
    app.after_request(lambda response: (seen.append(response.status_code), response)[1])
    app.teardown_request(ended.append)
    get(app)
    assert seen == [503]
    assert isinstance(ended[0], CircuitOpenError)  # so that a transaction is rolled back


def test_the_signal_is_for_what_nobody_answered(app):
    told = []

    def receiver(sender, exception, **_):
        told.append(type(exception))

    with got_request_exception.connected_to(receiver, app):
        get(app)
        assert told == []
        get(app, "/unrelated")
        assert told == [ZeroDivisionError]


@pytest.mark.parametrize("setting", ["TESTING", "DEBUG", "PROPAGATE_EXCEPTIONS"])
def test_where_errors_are_let_through_only_the_unrelated_are(app, setting):
    app.config[setting] = True
    assert annotation(get(app)) == ANNOTATED
    with pytest.raises(ZeroDivisionError):
        get(app, "/unrelated")


# --- streams ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def streaming(app, shedder, saber):
    ended = []

    @app.get("/stream")
    def stream():
        def chunks():
            try:
                yield b"first"
                ended.append(shedder.snapshot().in_flight)
                yield b"second"
            finally:
                ended.append("closed")

        return flask.Response(flask.stream_with_context(chunks()))

    @app.get("/failing-stream")
    def failing_stream():
        def chunks():
            yield saber.call(lambda: b"never")

        return flask.Response(flask.stream_with_context(chunks()))

    return ended


def test_a_stream_is_in_flight_to_its_last_byte(app, shedder, streaming):
    with app.test_client() as client:
        answer = client.get("/stream", buffered=False)
        chunks = answer.iter_encoded()
        assert next(chunks) == b"first"
        assert next(chunks) == b"second"
        assert streaming == [1]
        answer.close()
    assert (streaming, shedder.snapshot().in_flight) == ([1, "closed"], 0)


def test_a_client_that_leaves_frees_its_place(app, shedder, streaming):
    with app.test_client() as client:
        answer = client.get("/stream", buffered=False)
        next(answer.iter_encoded())
        assert shedder.snapshot().in_flight == 1
        answer.close()  # what a server does whose client has left
    assert (streaming, shedder.snapshot().in_flight) == (["closed"], 0)


def test_a_stream_that_fails_before_its_first_byte_is_answered(app, streaming):
    begun = []
    body = app(create_environ("/failing-stream"), lambda *start: begun.append(start[:2]) or len)
    assert b"Service Unavailable" in b"".join(body)
    body.close()
    status, headers = begun[-1]
    assert (status, dict(headers)["X-GroundFault-Reason"]) == ("503 Service Unavailable", "circuit-open")


def test_a_flask_that_hands_on_its_context_is_served_alike(shedder, saber):
    """As the methods of Flask 3.2 do, with the context in front of what they took before."""

    class Later(flask.Flask):
        def handle_exception(self, *given):
            context, error = given if len(given) == 2 else ("context", *given)
            assert context == "context"
            return super().handle_exception(error)

        def finalize_request(self, *given, from_error_handler=False):
            return super().finalize_request(given[-1], from_error_handler=from_error_handler)

        def wsgi_app(self, environ, start_response):
            with self.request_context(environ):
                try:
                    answer = self.full_dispatch_request()
                except Exception as error:  # noqa: BLE001  as Flask's own
                    answer = self.handle_exception("context", error)
                return answer(environ, start_response)

    app = Later("grouper")
    app.add_url_rule("/entrants", "entrants", lambda: saber.call(lambda: "entrants"))
    app.add_url_rule("/unrelated", "unrelated", lambda: 1 // 0)
    LoadShedder(app, shedder=shedder)
    assert annotation(get(app)) == ANNOTATED
    assert get(app, "/unrelated").status_code == 500
