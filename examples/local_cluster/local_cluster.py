"""A Ray cluster of three processes on this machine, and a sweep on it: a real cluster, small.

A head without cores and two nodes with one core each, on free loopback ports, their files in one folder.
The sweep is submitted as a job and its champion is printed. Only what was started here is ended.
    python local_cluster.py runs        # the folder of results, which all nodes see
"""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import gansweep

BIN = Path(sys.executable).parent
SWEEP = "--space smoke --data digits --name digits --trials 2 --kimg 20 --set conditional=true"
MEASURE = "--extractor pixels --second-extractor none --fid-samples 500 --final-samples 500"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_node(nodes, log, env, *options):
    """`ray start` until the end of `nodes`; returns when the node has joined."""
    command = [BIN / "ray", "start", "--block", f"--temp-dir={log.with_suffix('')}", *options]
    with log.open("w") as output:
        node = subprocess.Popen(command, env=env, stdout=output, stderr=output, start_new_session=True)
    nodes.callback(node.wait, 30)  # callbacks run in reverse order: SIGTERM first
    nodes.callback(node.terminate)
    while "Ray runtime started" not in log.read_text():
        if node.poll() is not None:
            sys.exit(log.read_text())
        time.sleep(0.2)


def main(out):
    port, dashboard, agent = (free_port() for _ in range(3))
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # nobody else may submit
    env = {**os.environ, **auth, "PATH": f"{BIN}:{os.environ['PATH']}"}
    ports = [f"--port={port}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    with tempfile.TemporaryDirectory(prefix="gs", ignore_cleanup_errors=True) as folder, ExitStack() as nodes:
        start_node(nodes, Path(folder, "h.log"), env, "--head", "--num-cpus=0", *ports)
        for name in ("n1.log", "n2.log"):
            start_node(nodes, Path(folder, name), env, f"--address=127.0.0.1:{port}", "--num-cpus=1")
        submit = [BIN / "gansweep", "submit", "--address", f"http://127.0.0.1:{dashboard}", "--out", out]
        subprocess.run([*submit, *SWEEP.split(), *MEASURE.split()], cwd=folder, env=env, check=True)
    champion = gansweep.load_generator("models:/digits@champion", tracking_uri=f"sqlite:///{out}/mlflow.db")
    print(f"champion: trial {champion.metadata.trial}, fid {champion.metadata.fid:.2f}")


main(Path(sys.argv[1]).absolute())
