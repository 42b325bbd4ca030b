"""Side-by-side benchmarks of gateways over one upstream on this machine. `make bench` runs `compare`."""
