"""Tests with real virtual machines, on what `make setup` left in the data folder."""
