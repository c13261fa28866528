"""Latency and throughput of fitted detectors, by protocols that say what they time."""
