"""A ComfyUI server gets a port of its own, and loads only this pack."""

import errno
import socket
import sys

import pytest

from testkit.tiny_host import ROOT
from tools.comfyui.server import alone, hold_port


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux the port stays held")
def test_only_the_server_can_take_a_held_port():
    with hold_port() as held, socket.socket() as other, socket.socket() as server:
        address = held.getsockname()
        with pytest.raises(OSError) as refused:
            other.bind(address)
        assert refused.value.errno == errno.EADDRINUSE
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
        server.listen()
        with socket.create_connection(address) as client:
            assert server.accept()[1] == client.getsockname()


def test_packs_beside_the_clone_are_not_loaded(tmp_path):
    (pack,) = alone(tmp_path).iterdir()
    assert pack.resolve() == ROOT
