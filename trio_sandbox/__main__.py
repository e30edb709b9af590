"""`python -m trio_sandbox`: the same as the program `trio-sandbox`."""

from trio_sandbox.cli import main

main()
