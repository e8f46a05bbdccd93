"""The parts that do input and output on trio: driver, pump, processes, binding, observers."""
