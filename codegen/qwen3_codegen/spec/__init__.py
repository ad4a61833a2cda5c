"""Spec stage: YAML and config.json in, frozen ``ModelSpec`` and ``DeviceSpec`` out.

Every check of a user's input is here; later stages find no field missing and no size unknown.
"""
