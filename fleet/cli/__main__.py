"""`python -m fleet.cli`, for where the `fleet` script is not on PATH."""

from fleet.cli.main import main

main()
