"""The laws of storages, a module for each part of the contract."""
