"""Runs the system tests through a real proxy, in containers: `python scripts/integration.py`.

Takes   a container engine with compose; `TALLYPOST_PYTHON_IMAGE` and `TALLYPOST_PROXY_IMAGE`, where the official
        images cannot be had; further arguments, which go to pytest.
Gives   pytest's exit code; what the containers wrote, if it is not 0.
Never   leaves a container, a network or a volume behind, however it ends; never skips for want of an engine.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS_MAX = 90

NO_ENGINE = """\
{missing}

The integration tests need a container engine and compose. Install Docker (https://docs.docker.com/engine/install/);
on Debian and Ubuntu:

    apt-get install docker.io docker-compose

and start it; then run this again."""


class Failed(Exception):
    """Something outside of the tests stands in the way; the message says what, and what to do."""


def say(sentence: str) -> None:
    """Tell how far it is."""
    sys.stdout.write(f"integration: {sentence}\n")
    sys.stdout.flush()


def run(command: Sequence[str], environment: dict[str, str], *, quiet: bool = False) -> int:
    """Run a command to its end; when this program is told to stop, the command is ended first."""
    output = subprocess.DEVNULL if quiet else None
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            process.kill()
            raise


def compose_command(environment: dict[str, str]) -> list[str]:
    """How compose is called on this machine.

    Raises:
        Failed: there is no engine, it does not answer, or it has no compose.
    """
    docker = shutil.which("docker")
    if docker is None:
        raise Failed(NO_ENGINE.format(missing="There is no `docker` on this machine."))
    if run([docker, "info"], environment, quiet=True) != 0:
        missing = "`docker info` fails: the engine is not running, or this user may not use it."
        raise Failed(NO_ENGINE.format(missing=missing))
    if run([docker, "compose", "version"], environment, quiet=True) == 0:
        return [docker, "compose"]
    alone = shutil.which("docker-compose")
    if alone is None:
        raise Failed(
            NO_ENGINE.format(missing="There is neither `docker compose` nor `docker-compose` on this machine.")
        )
    return [alone]


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def applications() -> Iterator[Path]:
    """A folder with the declarations of all that will post: the system tests, and the examples."""
    with tempfile.TemporaryDirectory(prefix="tallypost-applications-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # The server's user, which is nobody on this machine, reads it.
        for declaration in (ROOT / "tests" / "system" / "applications").glob("*.toml"):
            shutil.copyfile(declaration, folder / declaration.name)
        for declaration in (ROOT / "examples").rglob("telemetry.toml"):
            example = declaration.relative_to(ROOT / "examples").parts[0]
            shutil.copyfile(declaration, folder / f"example-{example}.toml")
        for declaration in folder.iterdir():
            declaration.chmod(0o644)
        yield folder


def wait_until_ready(port: int) -> None:
    """Return once the server says through the proxy that it can store.

    Raises:
        Failed: it did not say so in time.
    """
    last = "nothing"
    deadline = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            last = f"{answer.status} {answer.read(500)!r}"
            if answer.status == http.client.OK:
                return
        except (OSError, http.client.HTTPException) as error:
            last = repr(error)
        finally:
            connection.close()
        time.sleep(0.2)
    raise Failed(f"The server was not ready within {READY_SECONDS_MAX} s; the last answer was {last}.")


def python_with_pytest() -> str:
    """The interpreter of the development environment if there is one, else the one that runs this."""
    inside = ROOT / ".venv" / "bin" / "python"
    return str(inside) if inside.exists() else sys.executable


def test(arguments: Sequence[str]) -> int:
    """Build, start, test, take down; the exit code of the tests."""
    # Compose's own variables would name another project or file, or contradict what is asked of it here.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COMPOSE_")}
    project = f"tallypost-integration-{secrets.token_hex(4)}"
    port = free_port()
    compose = [*compose_command(environment), "--project-name", project, "--file", str(ROOT / "docker-compose.yml")]
    with applications() as folder:
        environment |= {"TALLYPOST_PORT": str(port), "TALLYPOST_APPLICATIONS": str(folder)}
        environment |= {"TALLYPOST_SERVER_IMAGE": "tallypost-server:integration"}
        environment |= {"TALLYPOST_EXAMPLE_IMAGE": "tallypost-example:integration"}
        environment |= {"TALLYPOST_SYSTEM_URL": f"http://127.0.0.1:{port}"}
        environment |= {"TALLYPOST_SYSTEM_COMPOSE": shlex.join(compose)}
        environment |= {"TALLYPOST_SYSTEM_EXEC": shlex.join([*compose, "exec", "-T", "server"])}
        code, started = 1, False
        try:
            say("building the images of server and example.")
            begun = time.monotonic()
            if run([*compose, "--profile", "example", "build"], environment) != 0:
                raise Failed(
                    "The images could not be built; what the builder said stands above. Where the official images "
                    "cannot be had, name others in TALLYPOST_PYTHON_IMAGE and TALLYPOST_PROXY_IMAGE."
                )
            say(f"built in {time.monotonic() - begun:.0f} s; starting project {project} at port {port}.")
            started = True
            if run([*compose, "up", "--detach"], environment) != 0:
                raise Failed("The containers could not be started; what compose said stands above.")
            wait_until_ready(port)
            say("the server is ready behind the proxy; running the tests.")
            begun = time.monotonic()
            code = run([python_with_pytest(), "-m", "pytest", "-m", "system", "tests/system", *arguments], environment)
            say(f"the tests ended with {code} after {time.monotonic() - begun:.0f} s.")
        finally:
            with shielded():
                if started and code != 0:
                    say("what the containers wrote last:")
                    run([*compose, "ps"], environment)
                    run([*compose, "logs", "--no-color", "--tail", "100"], environment)
                say("taking everything down.")
                down = [*compose, "--profile", "example", "down", "--volumes", "--timeout", "5"]
                if run(down, environment, quiet=True) != 0 and run(down, environment) != 0:
                    say(f"that did not work; look with: {shlex.join([*compose, 'ps', '--all'])}")
                    code = code or 1
    return code


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Nothing interrupts the taking down: who presses Ctrl-C twice still gets a clean machine."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop(number: int, frame: FrameType | None) -> None:
    """Turn a signal into an exception, so that everything is taken down."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """The exit code: pytest's, 1 when it did not come to the tests, 130 when it was interrupted."""
    if "--help" in arguments or "-h" in arguments:
        say("usage: python scripts/integration.py [arguments for pytest, as: -k posting]")
        return 0
    # SIGINT too: a shell that starts this in the background has it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        return test(arguments)
    except Failed as failed:
        sys.stderr.write(f"{failed}\n")
        return 1
    except KeyboardInterrupt:
        say("interrupted.")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
