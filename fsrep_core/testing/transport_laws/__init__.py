"""The laws of transports, a module for each part of the contract."""
