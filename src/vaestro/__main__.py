"""`python -m vaestro` is the command line."""

from vaestro.cli import main

main()
