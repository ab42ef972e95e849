"""The conformance suite's parts: agents (`agent`), places where they live (`rig`), comparing (`suite`)."""
