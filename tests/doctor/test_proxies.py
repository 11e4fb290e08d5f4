"""`groundfault doctor`: what proxies would do to annotated 503s, from their configurations."""

import shutil
import subprocess

import pytest

from groundfault.doctor.envoy import look_at_envoy
from groundfault.doctor.haproxy import look_at_haproxy
from groundfault.doctor.nginx_rules import look_at_nginx


@pytest.fixture
def judged(tmp_path):
    """Judge a text by one of the three; return (verdict, line or "", what was seen) of all findings."""

    def judge(look, text):
        path = tmp_path / "config"
        path.write_text(text)
        said = []
        for finding in look(str(path)):
            assert finding.where.startswith(str(path))
            place = finding.where.removeprefix(str(path)).lstrip(": ")
            if finding.verdict != "ok":
                assert finding.why
                assert finding.advice
            said.append((finding.verdict, place, finding.seen))
        return said

    return judge


def contains(said, verdict, place, words):
    return any(each[:2] == (verdict, place) and words in each[2] for each in said)


# --- nginx ------------------------------------------------------------------------------------------------------------

TWO = "upstream two { server 10.0.0.1; server 10.0.0.2:80; }"
PATIENT = "upstream two { server 10.0.0.1 max_fails=0; server 10.0.0.2 max_fails=0; }"
ONE = "upstream two { server 10.0.0.1; }"
START = 'proxy_set_header X-Request-Start "t=${msec}";'


def nginx(upstream, *location, server=()):
    lines = [
        "http {",
        upstream,
        "server {",
        *server,
        "location / {",
        "proxy_pass http://two;",
        *location,
        "}",
        "}",
        "}",
    ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "verdict", "line", "words"),
    [
        (nginx(TWO, START, "proxy_next_upstream error http_503;"), "problem", "7", "up to 2 requests of one"),
        (nginx(PATIENT, START, "proxy_next_upstream error http_503;"), "warning", "7", "up to 2 requests"),
        (
            nginx("", START, "proxy_next_upstream http_503;"),
            "problem",
            "7",
            "as many requests of one as there are servers",
        ),
        (
            nginx(TWO, START, "proxy_next_upstream http_503;", "proxy_next_upstream_tries 2;"),
            "problem",
            "7",
            "up to 2 requests",
        ),
        (nginx(TWO, START, "proxy_next_upstream error non_idempotent;"), "warning", "7", "non_idempotent"),
        (nginx(TWO, START, server=["proxy_next_upstream http_503;"]), "problem", "4", "http_503"),
        (nginx(TWO, START, "proxy_hide_header x-groundfault;"), "problem", "7", "proxy_hide_header"),
        (nginx(TWO, START, "proxy_hide_header X-GroundFault-Reason;"), "warning", "7", "Reason"),
        (nginx(TWO, START, "add_header X-GroundFault handled always;"), "problem", "7", "add_header"),
        (
            nginx(TWO, START, "proxy_intercept_errors on;", "error_page 502 503 /e;"),
            "problem",
            "8",
            "error_page 503 with proxy_intercept_errors on",
        ),
        (
            nginx(TWO, START, "proxy_intercept_errors on;", "error_page 503 =200 /e;"),
            "warning",
            "8",
            "error_page 503",
        ),
        (
            nginx(TWO, START, "proxy_cache z;", "proxy_cache_valid any 1m;", "proxy_ignore_headers Cache-Control;"),
            "problem",
            "8",
            "proxy_cache_valid any 1m",
        ),
        (nginx(TWO, START, "limit_req zone=a;"), "warning", "7", "limit_req answers 503"),
        (nginx(TWO, START, "health_check uri=/home;"), "warning", "7", "health_check of /home"),
        (nginx(TWO), "warning", "5", "no X-Request-Start to the service, line 5"),
        (nginx(TWO, "proxy_set_header Host a;", server=[START]), "warning", "6", "no X-Request-Start"),
        (nginx("upstream two { server unix:/run/s; }"), "warning", "5", "unix socket"),
        (
            nginx(TWO, "proxy_set_header X-Request-Start $http_x_request_start;"),
            "warning",
            "6",
            "$http_x_request_start",
        ),
        ("events { }\n", "warning", "", "passes no request on"),
    ],
)
def test_nginx_settings_that_work_against_shedding(judged, text, verdict, line, words):
    said = judged(look_at_nginx, text)
    assert contains(said, verdict, line, words), said


@pytest.mark.parametrize(
    "text",
    [
        nginx(TWO, START),
        nginx(TWO, server=[START]),
        nginx(ONE, START, "proxy_next_upstream error http_503;"),  # measured: there is nobody else to ask
        nginx(TWO, START, "proxy_next_upstream off;"),
        nginx(TWO, START, "proxy_next_upstream http_503;", "proxy_next_upstream_tries 1;"),
        nginx(TWO, START, "proxy_intercept_errors on;", "error_page 502 /e;"),
        nginx(TWO, START, "error_page 503 /e;"),  # nothing is intercepted
        nginx(
            TWO,
            START,
            *("proxy_intercept_errors on;", "error_page 503 /e;"),
            server=["location = /e { add_header X-GroundFault $upstream_http_x_groundfault always; return 503; }"],
        ),
        nginx(TWO, START, "proxy_cache z;", "proxy_cache_valid any 1m;"),  # measured: no-store goes before it
        nginx(TWO, START, "limit_req zone=a;", "limit_req_status 429;"),
        nginx(TWO, START, "health_check uri=/healthz;"),
        nginx(TWO, START, "add_header X-GroundFault handled;"),  # without `always` no 503 gets it
    ],
)
def test_nginx_settings_that_leave_a_shed_as_it_is(judged, text):
    (only,) = judged(look_at_nginx, text)
    assert only[0] == "ok"


def test_includes_of_nginx_are_followed_and_findings_name_their_files(tmp_path):
    (tmp_path / "sites").mkdir()
    site = tmp_path / "sites" / "a.conf"
    site.write_text("server {\n proxy_pass http://a;\n proxy_hide_header X-GroundFault;\n}\n")
    main = tmp_path / "nginx.conf"
    main.write_text("http {\n include sites/*.conf;\n}\n")
    found = {finding.where: finding.verdict for finding in look_at_nginx(str(main))}
    assert found[f"{site}:3"] == "problem"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("http {\n server {\n", "2", 'expecting "}"'),
        ("http { }\n}\n", "2", 'unexpected "}"'),
        ("http {\n proxy_pass http://a\n}\n", "2", "not terminated"),
        ("proxy_pass http://a", "", "in the middle of a directive"),
        ("http {\n include absent.conf;\n}\n", "2", "does not exist"),
        ("include config;\n", "", "is there a circle"),
        ("\0", "", "is no text"),
    ],
)
def test_what_is_no_configuration_of_nginx_says_so(judged, text, line, words):
    ((verdict, where, seen),) = judged(look_at_nginx, text)
    assert (verdict, where) == ("problem", line)
    assert words in seen


def test_what_the_doctor_takes_for_nginx_nginx_takes_as_well(tmp_path):
    """The examples above are none of the doctor's own invention."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    config = tmp_path / "nginx.conf"
    text = nginx(TWO, START, "proxy_next_upstream error http_503;", "proxy_hide_header X-GroundFault;")
    config.write_text(f"pid {tmp_path}/pid;\nerror_log {tmp_path}/log;\nevents {{ }}\n{text}")
    run = subprocess.run(
        ["nginx", "-t", "-c", str(config), "-e", str(tmp_path / "early")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "syntax is ok" in run.stderr


# --- Envoy ------------------------------------------------------------------------------------------------------------

HEADERS = 'request_headers_to_add: [{header: {key: X-Request-Start, value: "t=%START_TIME(%s.%3f)%"}}]'


def route(policy):
    return (
        f"virtual_hosts:\n- name: all\n  {HEADERS}\n  routes:\n  - name: home\n    route: {{retry_policy: {policy}}}\n"
    )


def cluster(more):
    return f"clusters:\n- name: saber\n  {more}\n"


@pytest.mark.parametrize(
    ("text", "verdict", "place", "words"),
    [
        (route("{retry_on: 5xx}"), "warning", "routes[home].route.retry_policy", "retry_on 5xx: up to 2 requests"),
        (
            route("{retryOn: 'reset, gateway-error', numRetries: 3}"),
            "warning",
            "routes[home].route.retry_policy",
            "retry_on gateway-error: up to 4 requests",
        ),
        (
            route("{retry_on: retriable-status-codes, retriable_status_codes: [503]}"),
            "warning",
            "routes[home].route.retry_policy",
            "retriable-status-codes with 503",
        ),
        (
            route("{retry_on: retriable-headers, retriable_headers: [{name: X-GroundFault}]}"),
            "warning",
            "routes[home].route.retry_policy",
            "retriable-headers with X-GroundFault",
        ),
        (cluster("outlier_detection: {}"), "warning", "clusters[saber].outlier_detection", "up to 10 %"),
        (
            cluster("outlierDetection: {maxEjectionPercent: 100}"),
            "problem",
            "clusters[saber].outlier_detection",
            "consecutive_5xx 5, success_rate_minimum_hosts 5; up to 100 %",
        ),
        (
            cluster(
                "outlier_detection: {enforcing_consecutive_5xx: 0, enforcing_success_rate: 0,"
                " enforcing_consecutive_gateway_failure: 100}"
            ),
            "warning",
            "clusters[saber].outlier_detection",
            "by consecutive_gateway_failure 5;",
        ),
        (
            cluster("health_checks: [{http_health_check: {path: /home}}]"),
            "warning",
            "clusters[saber].health_checks",
            "health check of /home",
        ),
        (
            "virtual_hosts: []\nresponse_headers_to_add: [{header: {key: x-groundfault, value: handled}}]",
            "problem",
            "response_headers_to_add",
            "adds X-GroundFault",
        ),
        (
            '{"virtualHosts": [], "responseHeadersToRemove": ["X-GroundFault"]}',
            "problem",
            "response_headers_to_remove",
            "removes",
        ),
        ("virtual_hosts: []", "warning", "", "no X-Request-Start"),
        ("apiVersion: v1\nkind: Service\n", "problem", "", "is Service of Kubernetes"),
        ("- 1\n- text\n", "warning", "", "nothing of Envoy's"),
        ("", "warning", "", "nothing of Envoy's"),
    ],
)
def test_envoy_settings_that_work_against_shedding(judged, text, verdict, place, words):
    said = judged(look_at_envoy, text)
    assert any(each[0] == verdict and each[1].endswith(place) and words in each[2] for each in said), said


@pytest.mark.parametrize(
    "text",
    [
        route("{retry_on: 'connect-failure,refused-stream', num_retries: 2}"),
        route("{retry_on: 5xx, num_retries: 0}"),
        route("{retry_on: retriable-status-codes, retriable_status_codes: [409]}"),
        cluster("outlier_detection: {enforcing_consecutive_5xx: 0, enforcing_success_rate: 0}"),
        cluster("outlier_detection: null"),
        cluster("health_checks: [{http_health_check: {path: '/healthz?deep=0'}}]"),
        cluster("health_checks: [{tcp_health_check: {}}]"),
        cluster("retry_policy: nonsense\n  outlier_detection: [1]\n  health_checks: {a: b}").replace(
            "outlier_detection: [1]", "load_assignment: 1"
        ),
    ],
)
def test_envoy_settings_that_leave_a_shed_as_it_is(judged, text):
    (only,) = judged(look_at_envoy, text)
    assert only[0] == "ok"


def test_anchors_that_unfold_beyond_measure_are_walked_once(judged):
    levels = ["a0: &a0 {retry_policy: {retry_on: 5xx}}"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    said = judged(look_at_envoy, "\n".join(["clusters: []", *levels]))
    assert [each[0] for each in said] == ["warning"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [1\nb: 2\n", "2", "is not YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", "1", "is not YAML"),
        ("{" * 5000, "", "nested"),
    ],
)
def test_what_is_no_configuration_of_envoy_says_so(judged, text, line, words):
    ((verdict, where, seen),) = judged(look_at_envoy, text)
    assert (verdict, where) == ("problem", line)
    assert words in seen


# --- HAProxy ----------------------------------------------------------------------------------------------------------

STAMP = "http-request set-header X-Request-Start t=%[date(0,ms)]"


def haproxy(*lines, defaults=("mode http",)):
    return "\n".join(["defaults", *defaults, "listen a", STAMP, *lines]) + "\n"


@pytest.mark.parametrize(
    ("text", "verdict", "line", "words"),
    [
        (haproxy("retry-on 503 conn-failure"), "warning", "5", "up to 4 requests of one"),
        (haproxy("retries 1", "retry-on all-retryable-errors"), "warning", "6", "up to 2 requests"),
        (haproxy(defaults=("mode http", "retry-on 503")), "warning", "3", "retry-on 503"),
        (haproxy("option redispatch", "retry-on 503"), "warning", "6", "on other servers as well"),
        (haproxy("server s 1.1.1.1 check observe layer7 on-error mark-down"), "problem", "5", "on-error mark-down"),
        (
            haproxy("default-server check observe layer7 error-limit 50", "server s 1.1.1.1"),
            "warning",
            "6",
            "fail-check after 50",
        ),
        (haproxy("option httpchk", "server s 1.1.1.1 check"), "warning", "5", "asks for /"),
        (haproxy("option httpchk GET /home HTTP/1.1", "server s 1.1.1.1 check"), "warning", "5", "asks for /home"),
        (
            haproxy("option httpchk GET /healthz", "http-check send meth GET uri /deep", "server s 1.1.1.1 check"),
            "warning",
            "6",
            "asks for /deep",
        ),
        (haproxy("http-response del-header X-GroundFault"), "problem", "5", "del-header"),
        (haproxy("http-after-response set-header x-groundfault handled"), "problem", "5", "set-header"),
        (haproxy('http-response return status 503 if { status ge 500 } # a "page"'), "problem", "5", "return status"),
        (haproxy("http-error status 503 hdr X-GroundFault handled"), "problem", "5", "carries X-GroundFault"),
        ("backend a\nmode http\n", "warning", "", "no X-Request-Start"),
        ("frontend a\nmode http\n", "warning", "", "no backend"),
    ],
)
def test_haproxy_settings_that_work_against_shedding(judged, text, verdict, line, words):
    said = judged(look_at_haproxy, text)
    assert contains(said, verdict, line, words), said


@pytest.mark.parametrize(
    "text",
    [
        haproxy("retry-on conn-failure empty-response", "option redispatch"),
        haproxy("retries 0", "retry-on 503"),
        haproxy("retry-on 503", "mode tcp"),
        haproxy("retry-on none", defaults=("mode http", "retry-on 503")),
        haproxy("server s 1.1.1.1 check observe layer4 on-error mark-down"),
        haproxy("server s 1.1.1.1 observe layer7 on-error mark-down"),  # without a check it is not observed
        haproxy("option httpchk GET /healthz", "server s 1.1.1.1 check"),
        haproxy("no option httpchk", "server s 1.1.1.1 check", defaults=("mode http", "option httpchk")),
        haproxy("http-response return status 503 if { status 503 } !{ res.hdr(X-GroundFault) -m found }"),
        haproxy("errorfile 503 /nowhere/503.http"),  # it stands for HAProxy's own answers only
        "defaults named\nmode http\nretry-on 503\ndefaults\nmode http\nlisten a\n" + STAMP + "\n",
    ],
)
def test_haproxy_settings_that_leave_a_shed_as_it_is(judged, text):
    assert {verdict for verdict, _, _ in judged(look_at_haproxy, text)} == {"ok"}


def test_sections_of_haproxy_take_the_defaults_they_name(judged):
    text = f"defaults eager\nmode http\nretry-on 503\ndefaults\nmode http\nlisten a from eager\n{STAMP}\n"
    assert contains(judged(look_at_haproxy, text), "warning", "3", "retry-on 503")


def test_an_error_page_of_haproxy_that_says_handled_is_a_lie(judged, tmp_path):
    page = tmp_path / "503.http"
    page.write_text("HTTP/1.0 503 Service Unavailable\r\nx-groundfault: handled\r\n\r\n")
    said = judged(look_at_haproxy, haproxy(f"errorfile 503 {page}"))
    assert contains(said, "problem", "5", "carries X-GroundFault")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("upstream a {\n}\n", "1", "'upstream' stands outside of any section"),
        ("listen a\n acl x path '/a\n", "2", "no closing quotation"),
    ],
)
def test_what_is_no_configuration_of_haproxy_says_so(judged, text, line, words):
    ((verdict, where, seen),) = judged(look_at_haproxy, text)
    assert (verdict, where) == ("problem", line)
    assert words in seen


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("look", [look_at_nginx, look_at_envoy, look_at_haproxy])
def test_files_that_cannot_be_read_are_findings_that_name_them(look, tmp_path, monkeypatch):
    long = tmp_path / "long"
    long.write_text("# " + "x" * 4096)
    monkeypatch.setattr("groundfault.doctor.files.LARGEST", 100)
    for path, words in ((tmp_path / "absent", "No such file"), (tmp_path, "is a directory"), (long, "is longer than")):
        (finding,) = look(str(path))
        assert (finding.verdict, finding.where) == ("problem", str(path))
        assert words in finding.seen


@pytest.mark.parametrize(("look", "module"), [(look_at_nginx, "crossplane"), (look_at_envoy, "yaml")])
def test_what_reads_them_is_an_extra_and_whoever_lacks_it_learns_its_name(look, module, tmp_path, monkeypatch):
    (tmp_path / "config").write_text("a: 1;\n")
    monkeypatch.setitem(__import__("sys").modules, module, None)
    (finding,) = look(str(tmp_path / "config"))
    assert finding.verdict == "problem"
    assert finding.advice == "pip install 'groundfault[doctor]'"
