"""The public kit: laws for plugin authors, faults and fixtures for test suites."""
