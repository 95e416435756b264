"""What deploy/ has: read by the tools that will read it, and its steps taken where no image is."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from bench.postgresql import free_port

from handbell import __version__
from handbell.settings import Settings
from handbell.system import ANSWER_MARGIN_SECONDS

from .tools import build, fetch, go_program, need, python_venv, run

pytestmark = pytest.mark.timeout(500)

ROOT: Final = Path(__file__).parents[3]
DEPLOY: Final = ROOT / "deploy"
SECRETS: Final = {
    "POSTGRES_PASSWORD": "secret",
    "NATS_PASSWORD": "secret",
    "HANDBELL_SECRET_KEY": "key",
}
_HEALTH: Final = re.compile(r"^HEALTHCHECK .*CMD (\[.*\])$", re.MULTILINE)
_STEP: Final = re.compile(r"^(COPY|RUN) (.+)$", re.MULTILINE)


def test_compose_reads_its_file_and_names_what_is_not_set() -> None:
    """The library of ``docker compose`` takes it, with its secrets and not without them."""
    program = go_program("compose")
    file = DEPLOY / "compose.yaml"
    told = run([program, file], env=SECRETS)
    assert told.returncode == 0, told.stderr
    for service in ("migrate", "server", "worker", "postgres", "nats"):
        assert re.search(rf"^  {service}:$", told.stdout, re.MULTILINE), service
    for name in SECRETS:
        refused = run([program, file], env=SECRETS | {name: ""})
        assert refused.returncode != 0
        assert name in refused.stdout + refused.stderr


def test_kubernetes_would_take_the_manifests() -> None:
    """Each of them is valid by Kubernetes' own schemas."""
    python = python_venv("kubernetes")
    check = (
        "import sys, yaml, kubernetes_validate as k\n"
        "for one in yaml.safe_load(open(sys.argv[1]))['items']:\n"
        "    k.validate(one, k.latest_version(), strict=True)\n"
        "    print(one['kind'])\n"
    )
    told = run([python, "-c", check, DEPLOY / "kubernetes" / "handbell.yaml"])
    assert told.returncode == 0, told.stderr
    kinds = told.stdout.split()
    assert kinds.count("Deployment") == kinds.count("PodDisruptionBudget") == 2


@pytest.mark.parametrize("name", ["handbell-server.service", "handbell-worker.service"])
def test_systemd_takes_the_units(tmp_path: Path, name: str) -> None:
    """``systemd-analyze verify`` finds nothing wrong, the program being where it is said."""
    need("systemd-analyze")
    text = (DEPLOY / "systemd" / name).read_text()
    assert "/opt/handbell/bin/handbell" in text
    unit = tmp_path / name
    unit.write_text(text.replace("/opt/handbell/bin/handbell", shutil.which("true") or "/bin/true"))
    told = run(["systemd-analyze", "verify", unit])
    assert (told.returncode, told.stderr) == (0, "")


class Container:
    """A folder in which the steps of the Dockerfile were taken, as far as they need no root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.text = (DEPLOY / "Dockerfile").read_text()

    def inside(self, text: str) -> str:
        """Return a command with the image's paths as those of the folder."""
        for path in ("/src", "/opt/handbell"):
            text = re.sub(rf"(?<![\w/.]){path}(?=[/\s\[]|$)", f"{self.folder}{path}", text)
        return text

    def take_steps(self) -> None:
        """Copy and run what the first stage says."""
        _, stage, *_ = self.text.split("\nFROM ")
        for kind, words in _STEP.findall(stage):
            if kind == "COPY":
                *sources, target = words.split()
                for source in sources:
                    self._copy(ROOT / source, Path(self.inside(target)), source)
            elif kind == "RUN" and "pip install" in words:
                fetch(["sh", "-c", self._command(words)], folder=self.folder, env={})
            elif kind == "RUN":
                build(["sh", "-c", self._command(words)], folder=self.folder, env={})

    def _command(self, words: str) -> str:
        # The interpreter of the image is that of the tests here.
        return re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", self.inside(words))

    def _copy(self, source: Path, target: Path, name: str) -> None:
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / Path(name).name)

    def command(self, *words: str) -> list[str]:
        """Return what the entry point runs."""
        return [f"{self.folder}/opt/handbell/bin/handbell", *words]

    def health_check(self) -> list[str]:
        """Return the image's check of its health."""
        (found,) = _HEALTH.findall(self.text)
        python, *rest = json.loads(found)
        return [f"{self.folder}/opt/handbell/bin/{python}", *rest]


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """Give what the Dockerfile makes."""
    made = Container(tmp_path_factory.mktemp("image"))
    made.take_steps()
    yield made
    shutil.rmtree(made.folder)


def test_the_steps_of_the_dockerfile_make_a_server(container: Container) -> None:
    """What it installs serves by itself, and its health check agrees."""
    port = free_port()
    env = {
        "HOME": str(container.folder),
        "HANDBELL_HOME": str(container.folder / "home"),
        "HANDBELL_LISTEN": f"127.0.0.1:{port}",
        "PATH": os.environ["PATH"],
    }
    version = run(container.command("--version"), folder=container.folder, env=env)
    assert version.stdout.startswith("handbell ")
    check = [word.replace("8710", str(port)) for word in container.health_check()]
    assert run(check).returncode != 0
    with subprocess.Popen(
        container.command("serve"),
        cwd=container.folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            assert any("Ctrl-C" in line for line in server.stdout)
            assert run(check).returncode == 0
        finally:
            server.terminate()
            server.communicate(timeout=30)
    assert server.returncode == 0


def test_the_image_runs_as_nobody_in_particular_and_writes_its_home_alone() -> None:
    """It names a user without rights, and is run with a root that cannot be written."""
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.search(r"^USER 10001", text, re.MULTILINE)
    compose = (DEPLOY / "compose.yaml").read_text()
    manifests = (DEPLOY / "kubernetes" / "handbell.yaml").read_text()
    assert "read_only: true" in compose
    assert "readOnlyRootFilesystem: true" in manifests
    assert "runAsNonRoot: true" in manifests


def test_what_is_deployed_is_this_version_and_has_time_to_stop() -> None:
    """Images are named by version, and a stop waits longer than the answers to pushes may take."""
    settings = Settings()
    drain = settings.connect_timeout + settings.request_timeout + ANSWER_MARGIN_SECONDS
    compose = (DEPLOY / "compose.yaml").read_text()
    manifests = (DEPLOY / "kubernetes" / "handbell.yaml").read_text()
    units = [unit.read_text() for unit in (DEPLOY / "systemd").iterdir()]
    for text in (compose, manifests):
        assert set(re.findall(r"image: handbell\S*", text)) == {f"image: handbell:{__version__}"}
    sleeps = re.findall(r'command: \[sleep, "(\d+)"\]', manifests)
    graces = re.findall(r"terminationGracePeriodSeconds: (\d+)", manifests)
    assert len(graces) == 2
    assert min(map(int, graces)) > drain + max(map(int, sleeps))
    stops = re.findall(r"stop_grace_period: (\d+)s\n\nservices", compose)
    stops += [found for unit in units for found in re.findall(r"TimeoutStopSec=(\d+)", unit)]
    assert len(stops) == 1 + len(units)
    assert min(map(int, stops)) > drain


def test_kubernetes_and_systemd_keep_secrets_out_of_the_environment() -> None:
    """They are in a file that the settings name."""
    for file in ((DEPLOY / "kubernetes" / "handbell.yaml"), *(DEPLOY / "systemd").iterdir()):
        text = file.read_text()
        assert "HANDBELL_CONFIG" in text
        assert not re.search(r"secretRef|secretKeyRef|EnvironmentFile|HANDBELL_SECRET_KEY", text)
