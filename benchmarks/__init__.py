"""Speed and memory against peers. Run one with ``python benchmarks/maps.py``."""
