"""The portable lowering: IR ops as calls of InfiniCore operators, on any device."""
