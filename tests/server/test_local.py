"""`mtp_mlx.serve`: a server in the caller's own process."""

import json
import threading
import urllib.error
import urllib.request

import pytest

import mtp_mlx
from mtp_mlx.errors import MtpError, RequestError
from mtp_mlx.server.limits import Limits
from tests.server.served import tiny

BODY = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "seed": 3}


def asked(url: str, key: str | None = None) -> dict:
    headers = {"content-type": "application/json"}
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(BODY).encode(), headers
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_a_loaded_model_is_served_and_stays_usable(caplog):
    llm = tiny()
    with mtp_mlx.serve(llm, served_model_names=["mine"]) as server:
        answer = asked(server.url)
        assert answer["model"] == "mine"
        assert any("an abort of the device" in record.message for record in caplog.records)
    reply = llm.chat(BODY["messages"], seed=3)
    assert reply.text == answer["choices"][0]["message"]["content"]
    with pytest.raises(urllib.error.URLError):
        asked(server.url)
    server.close()  # twice does nothing
    assert "abort of the device" in mtp_mlx.serve.__doc__


def test_a_server_that_is_closed_at_once_leaves_no_thread():
    llm = tiny()
    before = set(threading.enumerate())
    for _ in range(5):
        mtp_mlx.serve(llm).close()
    assert set(threading.enumerate()) <= before


def test_what_grammars_need_is_there_before_the_first_request():
    with mtp_mlx.load("tiny") as llm:
        assert llm._compiler._shared is None  # who wants no grammar does not wait for it
        with mtp_mlx.serve(llm):
            assert llm._compiler._shared is not None


def test_two_servers_may_share_a_model():
    with mtp_mlx.serve(tiny()) as one, mtp_mlx.serve(tiny(), api_keys=["secret"]) as other:
        first = asked(one.url)["choices"]
        assert asked(other.url, "secret")["choices"] == first
        with pytest.raises(urllib.error.HTTPError) as refused:
            asked(other.url)
        refused.value.close()
        assert refused.value.code == 401


def test_other_machines_are_let_in_with_a_key_alone_and_a_taken_port_is_named():
    with pytest.raises(RequestError, match="api_keys"):
        mtp_mlx.serve(tiny(), host="0.0.0.0")
    with mtp_mlx.serve(tiny(), limits=Limits(queue=0)) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(MtpError, match=str(port)):
            mtp_mlx.serve(tiny(), port=port)
