"""Stateful differential fuzzing: random programs on the kernel and on TAS, traces compared (docs/conformance.md)."""
