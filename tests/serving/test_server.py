"""The endpoints on a port of their own: beside a program, for as long as it wants, and gone with it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest
from tests.serving.asking import ask
from tests.support.forking import fork

from aetherflow.errors import ConfigurationError
from aetherflow.serving import serve


def place_of(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host.strip("[]"), int(port)


def test_it_is_there_within_the_block_and_not_after():
    """The endpoints answer from the first line of the block on; afterwards the port is free and the thread is gone."""
    with serve(port=0) as url:
        assert url.startswith("http://127.0.0.1:")
        assert ask(f"{url}/livez").status == 200
    socket.create_server(place_of(url)).close()
    assert "aetherflow-serve" not in [thread.name for thread in threading.enumerate()]


def test_a_port_that_is_taken_is_named():
    """One error says where nobody can listen and why; what listens there already goes on."""
    with serve(port=0) as url:
        host, port = place_of(url)
        with pytest.raises(
            ConfigurationError, match=rf"cannot listen on {host}:{port} \(Address already in use.*\); al"
        ):
            serve(port=port).__enter__()
        assert ask(f"{url}/livez").status == 200


@pytest.mark.parametrize("port", [-1, 65536, "80", True, None, 1.5])
def test_a_port_that_is_none_is_named(port):
    """The error says what a port is."""
    with pytest.raises(ConfigurationError, match=r"port is .*; allowed: a whole number, 0 to 65535"):
        serve(port=port).__enter__()


@pytest.mark.parametrize("host", ["", None, 7])
def test_a_host_that_is_none_is_named(host):
    """The error says what a host is."""
    with pytest.raises(ConfigurationError, match=r"host is .*; allowed: an address of this machine"):
        serve(host, 0).__enter__()


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "a" * 300])
def test_a_host_that_is_not_here_is_named(host):
    """An address of another machine, or of none, is an error that names it."""
    with pytest.raises(ConfigurationError, match=f"cannot listen on {host}:0"):
        serve(host, 0).__enter__()


def test_an_address_of_the_sixth_version_will_do():
    """Where the machine has IPv6, so have the endpoints."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with serve("::1", 0) as url:
        assert ask(f"{url}/livez").status == 200


def test_clients_that_say_nothing_hold_nothing_up():
    """Connections that were forgotten, or left in the middle of a request, neither block others nor the end."""
    with serve(port=0) as url:
        forgotten = [socket.create_connection(place_of(url)) for _ in range(50)]
        for each in forgotten[::2]:
            each.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        gone = socket.create_connection(place_of(url))
        gone.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        gone.close()
        assert ask(f"{url}/readyz").status == 200
    socket.create_server(place_of(url)).close()
    for each in forgotten:
        each.close()


def test_what_is_no_http_is_refused():
    """Garbage on the port is answered as a bad request, and the next one is served."""
    with serve(port=0) as url:
        with socket.create_connection(place_of(url), timeout=10) as client:
            client.sendall(b"\x16\x03\x01 this is no request\r\n\r\n")
            assert b"400" in client.recv(1000)
        assert ask(f"{url}/livez").status == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_lets_go_of_the_port():
    """A child that lives on does not keep the port that its parent has left."""
    go_on, end = os.pipe()
    started, starting = os.pipe()
    with serve(port=0) as url:
        if (child := fork()) == 0:
            os.close(end)
            os.write(starting, b"x")
            os.read(go_on, 1)
            os._exit(0)
        os.read(started, 1)  # the child lets go of the port when it starts
    for each in (go_on, started, starting):
        os.close(each)
    try:
        socket.create_server(place_of(url)).close()
    finally:
        os.close(end)
        os.waitpid(child, 0)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=50
    )


def test_importing_aetherflow_imports_no_server():
    """Who does not serve pays for none of it; Starlette alone is looked for by dependency-injector's wiring."""
    code = "import sys; sys.modules['starlette'] = None; import aetherflow; print('aetherflow.serving' in sys.modules)"
    done = run_python(f"{code}; print({{'uvicorn', 'prometheus_client'}} & set(sys.modules))")
    assert (done.stdout, done.stderr) == ("False\nset()\n", "")


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "prometheus_client"])
def test_a_missing_extra_is_named(package):
    """Without its packages the import fails with what to install."""
    done = run_python(f"import sys; sys.modules[{package!r}] = None; import aetherflow.serving")
    assert done.stderr.splitlines()[-1].startswith("aetherflow.errors.MissingExtraError: aetherflow.serving needs ")
    assert done.stderr.endswith("pip install 'aetherflow-otel[serve]'\n")


@pytest.mark.process_heavy
def test_the_application_runs_under_uvicorn_itself():
    """``uvicorn --factory aetherflow.serving:make_app`` is all it takes, and SIGTERM ends it in order."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--factory", "aetherflow.serving:make_app", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        try:
            for line in process.stderr:
                if "running on" in line:
                    break
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=10) as answer:
                assert answer.status == 200
        finally:
            process.terminate()
        assert "Traceback" not in process.stderr.read()
