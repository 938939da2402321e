"""``python -m adapterctl``."""

from adapterctl.cli.main import main

main()
