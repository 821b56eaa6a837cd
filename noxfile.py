"""Sessions: `nox` runs tests on every Python found, linters and type checkers; `nox -l` lists the rest."""

from __future__ import annotations

from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["tests", "lint", "types"]
nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.11", "3.12", "3.13", "3.14", "3.15"]
PROJECT = nox.project.load_toml("pyproject.toml")["project"]


@nox.session(reuse_venv=True)  # with the Python that runs nox
def fast(session: nox.Session) -> None:
    """Run the default tests with few hypothesis examples, about a minute; for use while you edit."""
    session.install("-e", ".[test]")
    session.run("pytest", "-q", *session.posargs, env={"HYPOTHESIS_PROFILE": "fast"})


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the default tests; arguments after `--` go to pytest."""
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session(python=PYTHONS[0])
def every_test(session: nox.Session) -> None:
    """Run every test, the slow ones and those of browsers, servers and worker processes too."""
    session.install("-e", ".[dev]")
    session.run("pytest", "--all", *session.posargs)


@nox.session(venv_backend="none")
def full(session: nox.Session) -> None:
    """Run all that CI runs, without time limits on the builds."""
    session.run(".ci/run", env={"BUILD_SECONDS": "0"}, external=True)


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """Run the tests against the lowest version of every dependency that the project claims to support."""
    floors = [requirement.replace(">=", "==") for requirement in PROJECT["dependencies"]]
    session.install("-e", ".[test]", *floors)
    session.run("pytest", *session.posargs)


@nox.session(python=PYTHONS[0])
def coverage(session: nox.Session) -> None:
    """Run the tests under coverage, in threads and child processes too, and report what they missed."""
    session.install("-e", ".[dev]")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "--all", "--numprocesses=0", *session.posargs)
    session.run("coverage", "combine")
    session.run("coverage", "report")


@nox.session(python=PYTHONS[0])
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session(python=PYTHONS[0])
def types(session: nox.Session) -> None:
    """Check types: mypy over everything, and the never-run typing tests with pyright too."""
    session.install("-e", ".[dev]")
    session.run("mypy", "--strict")
    session.run("pyright")


@nox.session(venv_backend="none")
def page_scripts(session: nox.Session) -> None:
    """Check the scripts of the report, and that the libraries in it are as published; needs Node and npm."""
    scripts = sorted(str(path) for path in Path("src/aetherflow/report/assets").glob("*.js"))
    session.run("npx", "--yes", "@biomejs/biome@2.6.8", "lint", "--error-on-warnings", *scripts, external=True)
    session.run("python", "tools/vendored.py", "--check")


@nox.session(python=PYTHONS[0])
def docs(session: nox.Session) -> None:
    """Write the telemetry reference and build the site into build/site; `-- serve` shows it while it is written."""
    session.install("-e", ".[docs,operations]")
    session.run("python", "-m", "tools.telemetry_reference")
    session.run("mkdocs", *(session.posargs or ["build"]), "--strict")


@nox.session(python=PYTHONS[0])
def regression_simulator(session: nox.Session) -> None:
    """Simulate the regression gate beside other tools; arguments after `--` go to the simulator."""
    session.install("-e", ".[trend]", "pytest-benchmark>=5.1")
    session.run("python", "benchmarks/regression_simulator.py", *session.posargs)


@nox.session(python=PYTHONS[0])
def otava(session: nox.Session) -> None:
    """Run the tests of trends with Apache Otava installed."""
    session.install("-e", ".[dev,trend]")
    session.run("pytest", "tests/analysis/test_trend.py", *session.posargs)


@nox.session(python=PYTHONS[0])
def collector(session: nox.Session) -> None:
    """Build the collector, where that was not done before, and try its configuration on it."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "tests.support.collector", env={"PYTHONPATH": "."})
    session.run("pytest", "--all", "tests/operations/test_collector.py", *session.posargs)
