"""Plan stage: ``Graph`` and ``DeviceSpec`` in, ``EnginePlan`` out; every decision ends here."""
