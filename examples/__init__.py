"""Programs to start from: each is run as it stands, `python examples/NAME.py`."""
