"""The command line: a command is a few lines that call a public function, and nothing heavy is imported before it is needed."""

import os


def main() -> None:
    """Run the command that the process was called with, and exit with its code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when torch is imported: threads that wait actively cost tenfold on shared cores
    from vaestro.cli.app import app

    app()
