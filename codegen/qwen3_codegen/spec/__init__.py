"""Spec stage: YAML and config.json in, frozen ``ModelSpec`` and ``DeviceSpec`` out; every input check is here."""
