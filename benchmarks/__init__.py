"""Speed and memory against peers. Run one with ``python -m benchmarks.maps``."""
