"""`--server` names no ComfyUI: the runner ends at the first attempt, with a sentence that says why."""

import socket
import threading

import pytest

from tools.comfyui import client
from tools.comfyui.address import parse_address
from tools.comfyui.server import hold_port
from tools.graph import __main__ as command
from tools.graph import execution
from tools.graph.shipped import DEMO


@pytest.fixture(autouse=True)
def no_second_attempt(monkeypatch):
    async def fail(seconds):
        raise AssertionError(f"waited {seconds} s before another attempt")

    monkeypatch.setattr(client.asyncio, "sleep", fail)


def error_of(address, capsys, *more):
    """What the command prints as its error, which must be one line."""
    assert command.main([str(DEMO), "--server", address, *more]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def sentence(address, why):
    return (
        f"graph: Could not reach a ComfyUI at {address}, because {why}; "
        "start ComfyUI there, correct --server, or let --comfyui PATH start one."
    )


def test_a_name_that_does_not_exist(capsys):
    said = error_of("http://no-such-host.invalid/", capsys)
    assert said == sentence("no-such-host.invalid:8188", "the host name no-such-host.invalid cannot be resolved")


@pytest.mark.parametrize("more", [[], ["--watch", ".", "--once", "--prompt-input", "1.subject"]])
def test_a_port_where_nothing_listens(capsys, more):
    with hold_port() as held:  # no server can answer there meanwhile
        address = f"127.0.0.1:{held.getsockname()[1]}"
        said = error_of(address, capsys, *more)
    assert said == sentence(address, "nothing listens there (connection refused)")


@pytest.fixture
def answering(request):
    """The address of a program that answers every connection with these bytes and closes it; None: it never does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept, is_over = [], threading.Event()

        def answer():
            while not is_over.is_set():
                kept.append(connection := server.accept()[0])
                if request.param is not None and not is_over.is_set():
                    connection.recv(65536)
                    connection.sendall(request.param)
                    connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        is_over.set()
        socket.create_connection(server.getsockname()).close()
        thread.join()
        for connection in kept:
            connection.close()


def http(status, body):
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


IS_NONE = "what listens there is no ComfyUI"


@pytest.mark.parametrize(
    "answering, why",
    [
        (http("404 Not Found", "nothing here"), f"{IS_NONE} (it answered /system_stats with status 404)"),
        (http("200 OK", "<html>"), f"{IS_NONE} (its answer to /system_stats is not that of a ComfyUI)"),
        (http("200 OK", '{"user": 1}'), f"{IS_NONE} (its answer to /system_stats is not that of a ComfyUI)"),
        (http("200 OK", "[1]"), f"{IS_NONE} (its answer to /system_stats is not that of a ComfyUI)"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", f"{IS_NONE} (it does not speak HTTP: "),
        (b"", "what listens there closed the connection without an answer"),
    ],
    indirect=["answering"],
)
def test_a_port_where_something_else_listens(answering, capsys, why):
    said = error_of(answering, capsys)
    assert said == sentence(answering, why) or (why.endswith(": ") and why in said and said.endswith("start one."))


@pytest.mark.parametrize("answering", [None], indirect=True)
def test_a_port_that_never_answers(answering, capsys, monkeypatch):
    monkeypatch.setattr(execution, "ANSWER_SECONDS", 0.25)
    assert error_of(answering, capsys) == sentence(answering, "nothing answered within 0.25 s")


@pytest.mark.parametrize(
    "text, address",
    [
        ("127.0.0.1:8188", "127.0.0.1:8188"),
        ("http://gpu-box:80/", "gpu-box:80"),
        ("gpu-box", "gpu-box:8188"),
        ("[::1]", "[::1]:8188"),
        ("http://[::1]:9000", "[::1]:9000"),
    ],
)
def test_addresses_are_read_as_users_type_them(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "a b", "host:x", "host:99999", "host:0", ":8188", "https://host", "host/path", "user@host", "[::1"]
)
def test_what_is_no_address_is_refused_with_the_value_and_an_example(text, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main([str(DEMO), "--server", text])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and f"--server {text!r}: " in said and "such as 127.0.0.1:8188" in said
