"""What a ComfyUI server is given: a port of its own, and this pack alone."""

import errno
import socket
import sys

import pytest

from testkit.tiny_host import ROOT
from tools.comfyui.server import alone, hold_port


@pytest.mark.skipif(sys.platform != "linux", reason="the port is let go elsewhere")
def test_a_held_port_is_lost_to_nobody_and_taken_by_the_server():
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


def test_what_lies_beside_the_clone_is_not_loaded(tmp_path):
    pack, = alone(tmp_path).iterdir()
    assert pack.resolve() == ROOT
