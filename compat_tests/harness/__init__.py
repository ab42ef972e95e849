"""The conformance suite's machinery: agents (`agent`), places where they live (`rig`), running and comparing (`suite`)."""
