"""`python -m trio_sandbox.cli`."""

from trio_sandbox.cli import main

main()
