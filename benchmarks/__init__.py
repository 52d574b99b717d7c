"""Benchmarks: one file per question asked, each beside plain Python doing the same. `python -m benchmarks` runs them; docs/benchmarks.md says how to read them.

Shared by the questions: `inputs` (seeded people, records, requests), `plain` (the same rules written by hand), `peers` (pycasbin, cedarpy), `packs` (grown
packs), `measure` (blocks, medians), `report` (tables, files, plots). Never imported by the engine, and imports no private name of it.
"""
