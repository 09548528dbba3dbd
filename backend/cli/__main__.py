"""`python -m backend.cli`: the `boxlift` command where its script is not on the PATH."""

from backend.cli import main

main()
