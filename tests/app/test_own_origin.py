"""Pages of other websites cannot write to the server: files, pairs, anything."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import pytest

pytest.importorskip("gradio")

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from app.gradio_ui.own_origin import OwnOriginOnly


@pytest.fixture(scope="module")
def client():
    route = Route("/", lambda request: PlainTextResponse("done"), methods=["GET", "POST", "DELETE"])
    app = Starlette(routes=[route], middleware=[Middleware(OwnOriginOnly, port=7860)])
    return TestClient(app, base_url="http://127.0.0.1:7860")


@pytest.mark.parametrize(
    "origin", [None, "http://127.0.0.1:7860", "http://localhost:7860", "http://[::1]:7860", "HTTP://LOCALHOST:7860"]
)
def test_own_pages_and_programs_may_write(client, origin):
    headers = {} if origin is None else {"Origin": origin}
    assert client.post("/", headers=headers).text == "done"


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://127.0.0.1:7860",
        "http://127.0.0.1:7861",
        "http://127.0.0.1",
        "http://127.0.0.1:7860.evil.example",
        "http://127.0.0.1@evil.example:7860",
        "http://127.0.0.1:port",
        "null",
        "",
    ],
)
def test_other_websites_may_read_alone(client, origin):
    headers = {"Origin": origin}
    assert client.get("/", headers=headers).status_code == 200
    assert {client.request(method, "/", headers=headers).status_code for method in ("POST", "DELETE")} == {403}


def test_page_that_comes_through_a_tunnel_may_write(client):
    headers = {"Host": "localhost:9000", "Origin": "http://localhost:9000"}
    assert client.post("/", headers=headers).status_code == 200
    assert client.post("/", headers={**headers, "Origin": "http://localhost:9001"}).status_code == 403


def test_server_takes_no_files_from_other_websites(serve):
    at = urlsplit(serve())
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nhello\r\n--x--\r\n'

    def post(address, origin, content_type):
        connection = http.client.HTTPConnection(at.hostname, at.port, timeout=60)
        headers = {"Content-Type": content_type} | ({} if origin is None else {"Origin": origin})
        connection.request("POST", address, body, headers)
        return connection.getresponse().status

    form = "multipart/form-data; boundary=x"
    for origin, answer in (("http://evil.example", 403), (f"http://{at.netloc}", 200), (None, 200)):
        assert post("/gradio_api/upload", origin, form) == answer
    for address in ("/gradio_api/queue/join", "/review/x/act"):
        assert post(address, "http://evil.example", "text/plain") == 403
