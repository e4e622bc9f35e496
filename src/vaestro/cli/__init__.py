"""The command line: a command is a few lines that call a public function, and nothing heavy is imported before it is needed."""


def main() -> None:
    """Run the command that the process was called with, and exit with its code."""
    from vaestro.cli.app import app

    app()
