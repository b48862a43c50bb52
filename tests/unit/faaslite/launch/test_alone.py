"""Components that a supervisor other than ours starts at the same time find, and leave, one whole data dir."""

import subprocess
import sys

import yaml

from faaslite.launch.home import Home
from faaslite.launch.settings import ClusterSettings

PREPARE = """
import sys
from pathlib import Path
from faaslite.launch import alone
from faaslite.launch.cluster import prepare
from faaslite.launch.home import Home
from faaslite.launch.settings import ClusterSettings

home = Home(Path(sys.argv[1]))
home.prepare()
sys.stdout.write("r")
sys.stdout.flush()
sys.stdin.read(1)
with alone._one_at_a_time(home):
    settings = ClusterSettings.load(home.settings) or ClusterSettings(runtime="process")
    cluster = prepare(home, settings, parts=frozenset([sys.argv[2]]) - {"none"})
    print(cluster.pki.token("admin"))
    cluster.close_listeners()
"""


def test_starting_together_on_a_fresh_data_dir(short_path):
    folder = short_path / "home"
    home = Home(folder)
    home.prepare()
    ClusterSettings(runtime="process", api_port=0, gateway_port=0).save(home.settings)
    parts = ["api", "gateway", "none", "none", "none"]
    command = [sys.executable, "-c", PREPARE, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, part], **pipes) for part in parts]
    for each in processes:
        assert each.stdout.read(1) == "r"
    for each in processes:
        each.stdin.write("g")
        each.stdin.flush()
    said = [each.communicate(timeout=60)[0].strip() for each in processes]
    assert [each.returncode for each in processes] == [0] * len(parts)
    assert len(set(said)) == 1
    settings = ClusterSettings.load(home.settings)
    assert settings.api_port and settings.gateway_port
    kubeconfig = yaml.safe_load(home.kubeconfig.read_text())
    assert kubeconfig["users"][0]["user"]["token"] == said[0]
    assert kubeconfig["clusters"][0]["cluster"]["server"].endswith(f":{settings.api_port}")
