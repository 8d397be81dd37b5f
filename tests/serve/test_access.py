"""The app answers its own pages on this machine only."""

from __future__ import annotations

import pytest
from app_client import HOME, OURS, TOKEN, known, started
from starlette.testclient import TestClient

from pseudohealthy.serve.access import ALWAYS


def test_the_token_opens_the_page_and_becomes_a_cookie_that_pages_elsewhere_cannot_use(
    run_folder, tmp_path
):
    client = TestClient(started(run_folder, tmp_path / "out"), base_url=HOME)
    assert client.get("/").status_code == 403
    assert client.get("/?token=wrong").status_code == 403
    first = client.get(f"/?token={TOKEN}")
    assert first.status_code == 200
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(first.headers["set-cookie"].split("; "))
    assert client.get("/").status_code == 200  # by the cookie
    assert "set-cookie" not in client.get("/").headers
    assert (
        TestClient(client.app, base_url=HOME)
        .get("/", headers={"Authorization": f"Bearer {TOKEN}"})
        .status_code
        == 200
    )


@pytest.mark.parametrize(
    "path", ["/", "/queue", "/runs", "/jobs/x/report.html", "/zip/x", "/nothing", "/runs/0/a.png"]
)
def test_nothing_is_answered_without_the_token(idle, path):
    assert TestClient(idle.app, base_url=HOME).get(path).status_code == 403


@pytest.mark.parametrize(
    "host, code",
    [
        ("127.0.0.1:8765", 200),
        ("localhost:8765", 200),
        ("LOCALHOST", 200),
        ("[::1]:9", 200),
        ("evil.com", 421),
        ("", 421),
        ("127.0.0.1.evil.com", 421),
        ("127.0.0.1@evil.com", 421),
        ("192.168.0.7:8765", 421),
        ("127.0.0.1:8765:1", 421),
        ("0.0.0.0:8765", 421),
    ],
)
def test_only_names_of_this_machine_are_answered(idle, host, code):
    assert idle.get("/", headers={"Host": host}).status_code == code


@pytest.mark.parametrize(
    "host, code", [("192.168.0.7:8765", 200), ("localhost", 200), ("evil.com", 421)]
)
def test_listening_everywhere_answers_addresses_but_no_foreign_names(
    run_folder, tmp_path, host, code
):
    client = known(
        TestClient(started(run_folder, tmp_path / "out", listen="0.0.0.0"), base_url=HOME)
    )
    assert client.get("/", headers={"Host": host}).status_code == code


@pytest.mark.parametrize(
    "headers, code",
    [
        ({"Origin": HOME}, 201),
        ({"Sec-Fetch-Site": "same-origin"}, 201),
        ({"Sec-Fetch-Site": "none"}, 201),
        ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, 201),
        ({}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://evil.com"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "file://"}, 403),
        ({"Origin": HOME, "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.com", "Sec-Fetch-Site": "same-origin"}, 403),
    ],
)
def test_a_post_must_come_from_our_own_page(idle, headers, code):
    answer = idle.post(
        "/jobs", data={"run": "tiny"}, files=[("files", ("a.png", b"x"))], headers=headers
    )
    assert answer.status_code == code


def test_a_post_without_the_token_is_refused_before_its_body_is_read(idle):
    def never():
        raise AssertionError("read")
        yield b""

    stranger = TestClient(idle.app, base_url=HOME)
    assert stranger.post("/jobs", content=never(), headers=OURS).status_code == 403


@pytest.mark.parametrize(
    "path, code", [("/", 200), ("/queue", 200), ("/nothing", 404), ("/jobs", 405)]
)
def test_every_answer_forbids_frames_sniffing_referrers_and_caches(idle, path, code):
    answer = idle.get(path)
    assert answer.status_code == code
    assert ALWAYS.items() <= {k.title(): v for k, v in answer.headers.items()}.items()
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    refused = TestClient(idle.app, base_url=HOME).get(path)
    assert refused.status_code == 403 and refused.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
def test_no_other_method_is_answered(idle, method):
    assert idle.request(method, "/", headers=OURS).status_code == 405
